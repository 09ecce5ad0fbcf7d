//! Differential entropy from several orders of nearest neighbors, weighted so that the bias of high dimensions cancels.

use super::entropy::high_dimension;
use crate::estimate::{Estimate, Resampling};
use crate::geometry::nearest;
use crate::matrix::Rows;
use crate::special::{digamma, ln_ball, ln_gamma};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use infomax_kernels::linalg;

/// The weighted estimator of Kozachenko and Leonenko (Berrett, Samworth and Yuan, arXiv:1606.00304):
/// `sum_j w_j / N sum_i [ln(N - 1) - psi(j) + ln V_D + D ln r_j(i)]` in nats, in the Euclidean norm, with the weights of
/// [`entropy_weights`]. Efficient in more dimensions than the plain estimator, for smooth densities; below four
/// dimensions it is that of the `k`-th neighbor. The interval is by subsampling.
///
/// # Errors
/// As [`super::kozachenko_leonenko`], any row that coincides with another where its weight is not 0, or `k` too small
/// for the dimension, see [`entropy_weights`].
pub fn weighted_kozachenko_leonenko(z: &Tensor, k: usize, cfg: &Resampling) -> Result<Estimate> {
    const OP: &str = "weighted_kozachenko_leonenko";
    let rows = Rows::read(OP, "z", z)?;
    let weights = entropy_weights(k, rows.d)?;
    let value = of_rows(OP, &rows, &weights)?;
    let interval =
        cfg.subsample(value, rows.n, k + 2, |chosen| of_rows(OP, &rows.select(chosen), &weights))?;
    Ok(Estimate::new(value, rows.n)
        .with(interval)
        .doubting(high_dimension(rows.n, rows.d))
        .doubting(super::ties::doubt_of_entropy(&rows)))
}

fn of_rows(op: &'static str, rows: &Rows, weights: &[f64]) -> Result<f64> {
    let (n, d, k) = (rows.n as f64, rows.d as f64, weights.len());
    let neighbors = nearest(op, rows, k)?;
    let ties = (0..rows.n)
        .filter(|&i| weights.iter().zip(neighbors.distances_of(i)).any(|(w, r)| *w != 0.0 && *r <= 0.0))
        .count();
    if ties > 0 {
        return Err(Error::Ties { op, name: "z", rows: ties, n: rows.n, k });
    }
    let mut sums = vec![0.0; k];
    for i in 0..rows.n {
        for ((sum, r), w) in sums.iter_mut().zip(neighbors.distances_of(i)).zip(weights) {
            *sum += if *w == 0.0 { 0.0 } else { r.ln() };
        }
    }
    let base = (n - 1.0).ln() + ln_ball(rows.d);
    Ok((1..).zip(weights).zip(&sums).map(|((j, w), s)| w * (base - digamma(f64::from(j)) + d * s / n)).sum())
}

/// The weights `w` of neighbors 1 to `k` in `D` dimensions: the shortest vector with `sum w_j = 1` and
/// `sum_j w_j Gamma(j + 2 l / D) / Gamma(j) = 0` for `l = 1 .. floor(D / 4)`, as in the package IndepTest of the authors;
/// below four dimensions all weight is on the `k`-th neighbor. Without the further zeros that the paper allows.
///
/// # Errors
/// No dimension, or `k` of no more than `floor(D / 4)`: the conditions would have no solution.
pub fn entropy_weights(k: usize, d: usize) -> Result<Vec<f64>> {
    let conditions = d / 4;
    if d == 0 || k <= conditions {
        let reason = "must be above a quarter of the dimension, one condition for each four";
        return Err(Error::Config { key: "k", value: format!("{k} in {d} dimensions"), reason });
    }
    if conditions == 0 {
        return Ok((1..=k).map(|j| if j == k { 1.0 } else { 0.0 }).collect());
    }
    // Each row of G is divided by its value at k: the numbers stay near 1.
    let entry = |l: usize, j: usize| {
        let power = |j: usize| ln_gamma(j as f64 + 2.0 * l as f64 / d as f64) - ln_gamma(j as f64);
        (power(j) - power(k)).exp()
    };
    let g: Vec<f64> = (0..=conditions).flat_map(|l| (1..=k).map(move |j| entry(l, j))).collect();
    let g = Tensor::from_vec(g, (conditions + 1, k), &Device::Cpu)?;
    // The pseudoinverse by singular values: rows of G are nearly dependent, and G G^T would square that.
    let (u, s, v) = linalg::svd(&g)?;
    let first = u.get(0)?.to_vec1::<f64>()?;
    let s = s.to_vec1::<f64>()?;
    let scaled: Vec<f64> = first.iter().zip(&s).map(|(u, s)| u / s).collect();
    let scaled = Tensor::from_vec(scaled, (s.len(), 1), &Device::Cpu)?;
    Ok(v.matmul(&scaled)?.flatten_all()?.to_vec1::<f64>()?)
}
