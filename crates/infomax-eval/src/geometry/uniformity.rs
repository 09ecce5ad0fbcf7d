//! How close positive pairs are, and how evenly embeddings cover the sphere.

use crate::estimate::{Estimate, Interval, Resampling};
use crate::matrix::{self, Rows};
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;

/// Uniformity `ln mean_{i<j} exp(-2 |x_i - x_j|^2)` of the L2-normalized rows (Wang and Isola,
/// arXiv:2005.10242), `t = 2`: 0 when collapsed, towards -4 when spread in many dimensions. Minus the quadratic
/// Renyi entropy of a kernel estimate, up to a constant.
///
/// # Errors
/// Not a matrix, fewer than two rows, or values that are not finite.
pub fn uniformity(z: &Tensor) -> Result<f64> {
    let rows = Rows::read_at_least("uniformity", "z", z, 2)?;
    Ok(kernel_means(&rows.unit(), 2.0)?.0)
}

/// [`uniformity`] at any `t > 0` with its interval: the delta method on the projection of the U-statistic,
/// `se(ln U) = 2 sd_i(mean_j exp(-t |x_i - x_j|^2)) / (sqrt(N) U)`.
///
/// # Errors
/// As [`uniformity`], or `t` that is not positive.
pub fn uniformity_estimate(z: &Tensor, t: f64, cfg: &Resampling) -> Result<Estimate> {
    cfg.check()?;
    if !(t > 0.0 && t.is_finite()) {
        let (value, reason) = (t.to_string(), "must be positive and finite");
        return Err(Error::Config { key: "uniformity.t", value, reason });
    }
    let rows = Rows::read_at_least("uniformity", "z", z, 2)?;
    let (value, means) = kernel_means(&rows.unit(), t)?;
    let n = rows.n as f64;
    let se = 2.0 * (crate::estimate::variance(&means) / n).sqrt() / value.exp();
    let method = "delta method on the U-statistic, normal";
    Ok(Estimate::new(value, rows.n).with(Some(Interval::normal(value, se, cfg.level, method))))
}

/// Alignment `mean_i |x_i - y_i|^alpha` of the L2-normalized rows of positive pairs (Wang and Isola,
/// arXiv:2005.10242; `alpha = 2` there): 0 for equal views, 2 in the mean for unrelated ones at `alpha = 2`.
///
/// # Errors
/// Matrices of different shapes, fewer than two rows, values that are not finite, or `alpha` not positive.
pub fn alignment(x: &Tensor, y: &Tensor, alpha: f64, cfg: &Resampling) -> Result<Estimate> {
    const OP: &str = "alignment";
    if !(alpha > 0.0 && alpha.is_finite()) {
        let (value, reason) = (alpha.to_string(), "must be positive and finite");
        return Err(Error::Config { key: "alignment.alpha", value, reason });
    }
    let (a, b) = (Rows::read_at_least(OP, "x", x, 2)?, Rows::read_at_least(OP, "y", y, 2)?);
    matrix::paired(OP, ["x", "y"], &a, &b)?;
    if a.d != b.d {
        let expected = format!("({}, {}) like x", a.n, a.d);
        return Err(Error::Shape { op: OP, name: "y", expected, got: y.dims().to_vec() });
    }
    let (a, b) = (a.unit(), b.unit());
    let distance = |(p, q): (&[f64], &[f64])| {
        let square: f64 = p.iter().zip(q).map(|(p, q)| (p - q) * (p - q)).sum();
        square.powf(0.5 * alpha)
    };
    cfg.mean(&a.iter().zip(b.iter()).map(distance).collect::<Vec<f64>>())
}

/// `ln` of the mean of the kernel over pairs, and its mean over the others for each row.
fn kernel_means(unit: &Rows, t: f64) -> Result<(f64, Vec<f64>)> {
    let n = unit.n;
    let squares = unit.squares();
    let x = unit.tensor()?;
    let transposed = x.t()?.contiguous()?;
    let mut means = Vec::with_capacity(n);
    for start in (0..n).step_by(512) {
        let rows = 512.min(n - start);
        let products = x.narrow(0, start, rows)?.matmul(&transposed)?.flatten_all()?.to_vec1::<f64>()?;
        let block: Vec<f64> = products
            .par_chunks(n)
            .enumerate()
            .map(|(i, row)| {
                let own = start + i;
                // Rounding can leave a tiny negative distance.
                let kernel = |(j, p): (usize, &f64)| {
                    let square = (squares[own] + squares[j] - 2.0 * p).max(0.0);
                    if j == own { 0.0 } else { (-t * square).exp() }
                };
                row.iter().enumerate().map(kernel).sum::<f64>() / (n as f64 - 1.0)
            })
            .collect();
        means.extend(block);
    }
    Ok(((means.iter().sum::<f64>() / n as f64).max(f64::MIN_POSITIVE).ln(), means))
}
