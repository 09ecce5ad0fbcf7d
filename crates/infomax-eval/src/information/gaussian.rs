//! The entropy of the normal distribution of the same covariance: an upper bound.

use crate::estimate::{Doubt, Estimate, Resampling};
use crate::matrix::Rows;
use crate::special::digamma;
use crate::{Error, Result};
use candle_core::Tensor;
use infomax_kernels::linalg;
use serde::Serialize;
use std::f64::consts::{E, PI};

/// How the covariance is drawn towards `tr(S) / D I`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shrinkage {
    /// Ledoit and Wolf (2004): the share that minimizes the expected squared error, whatever the distribution.
    LedoitWolf,
    /// Oracle approximating shrinkage (Chen et al., arXiv:0907.4698): smaller error for normal rows.
    Oas,
}

/// The result of [`gaussian_entropy`], in nats. Each is `D / 2 ln(2 pi e) + 1/2 ln det` of an estimate of the
/// covariance, and so at least the entropy of any distribution with that covariance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GaussianEntropy {
    /// Of the sample covariance with `N - 1`; `None` where it is singular. Too low in the mean.
    pub sample: Option<Estimate>,
    /// The same minus its bias for normal rows,
    /// `1/2 [sum_{j=1}^D psi((N - j) / 2) + D ln(2 / (N - 1))]`.
    pub unbiased: Option<Estimate>,
    /// Of the covariance by Ledoit and Wolf.
    pub ledoit_wolf: Estimate,
    /// Of the covariance by oracle approximating shrinkage.
    pub oas: Estimate,
    /// Of the variances alone, `1/2 sum ln S_jj`: the bound of Hadamard; its excess is the total correlation of
    /// the normal distribution.
    pub diagonal: Estimate,
}

/// The entropies of the normal distribution of the covariance of `z`, by five estimates of that covariance, with
/// intervals by subsampling, which those of the sample covariance and of both shrunk ones widen towards where the value moves as
/// the rows grow: their bias falls with the rows. Those by shrinkage hold for `N` about `D` or below it, where the sample covariance is
/// singular.
///
/// # Errors
/// Not a matrix, fewer than four rows, values that are not finite, or constant columns, whose entropy is minus
/// infinity.
pub fn gaussian_entropy(z: &Tensor, cfg: &Resampling) -> Result<GaussianEntropy> {
    const OP: &str = "gaussian_entropy";
    let rows = Rows::read_at_least(OP, "z", z, 4)?;
    let columns = rows.constant_columns();
    if !columns.is_empty() {
        return Err(Error::Constant { op: OP, name: "z", columns });
    }
    let (n, d) = (rows.n, rows.d);
    let values = entropies(&rows)?;
    // All but the second and the last have a bias that falls with the rows.
    let trend = [true, false, true, true, false];
    let of = |chosen: &[usize]| Ok(entropies(&rows.select(chosen))?.to_vec());
    let mut intervals = cfg.subsample_all_trend(&values, n, 4, &trend, of)?.into_iter();
    let mut all = values.iter().map(|v| Estimate::new(*v, n).with(intervals.next().flatten()));
    let mut next = || all.next().unwrap_or_else(|| Estimate::new(f64::NAN, n));
    let (sample, unbiased, ledoit_wolf, oas, diagonal) = (next(), next(), next(), next(), next());
    let few = (n < 10 * d).then(|| {
        let message = format!("{n} rows in {d} dimensions: the covariance is known roughly only");
        Doubt::new("few-samples", message)
    });
    let shrunk = (n <= d).then(|| {
        let message =
            format!("{n} rows in {d} dimensions: the shrinkage target decides the directions without data");
        Doubt::new("rank-deficient", message)
    });
    let finite = |e: Estimate| e.value.is_finite().then(|| e.doubting(few.clone()));
    Ok(GaussianEntropy {
        sample: finite(sample),
        unbiased: finite(unbiased),
        ledoit_wolf: ledoit_wolf.doubting(few.clone()).doubting(shrunk.clone()),
        oas: oas.doubting(few.clone()).doubting(shrunk),
        diagonal,
    })
}

/// Sample, unbiased, Ledoit-Wolf, OAS, diagonal; not a number where one does not exist.
fn entropies(rows: &Rows) -> Result<[f64; 5]> {
    let (n, d) = (rows.n as f64, rows.d);
    let unit = 0.5 * d as f64 * (2.0 * PI * E).ln();
    let centered = rows.centered();
    let biased = second_moment(&centered)?;
    let of = |cov: &[f64]| half_log_det(cov, d).map_or(f64::NAN, |l| unit + l);
    let sample = if rows.n > d {
        of(&biased.iter().map(|v| v * n / (n - 1.0)).collect::<Vec<f64>>())
    } else {
        f64::NAN
    };
    let bias: f64 =
        (1..=d).map(|j| digamma(0.5 * (n - j as f64))).sum::<f64>() + d as f64 * (2.0 / (n - 1.0)).ln();
    let diagonal = unit + 0.5 * (0..d).map(|j| (biased[j * d + j] * n / (n - 1.0)).ln()).sum::<f64>();
    let mut shrunk = [0.0; 2];
    for (value, kind) in shrunk.iter_mut().zip([Shrinkage::LedoitWolf, Shrinkage::Oas]) {
        *value = of(&shrink(&centered, &biased, kind).0);
    }
    let unbiased = if sample.is_finite() { sample - 0.5 * bias } else { f64::NAN };
    Ok([sample, unbiased, shrunk[0], shrunk[1], diagonal])
}

/// The covariance `(D, D)` after shrinkage, row by row, and the share of the target in it; with the conventions of
/// scikit-learn: the sample covariance divided by `N`.
///
/// # Errors
/// Not a matrix, fewer than two rows, or values that are not finite.
pub fn shrinkage_covariance(z: &Tensor, kind: Shrinkage) -> Result<(Tensor, f64)> {
    let rows = Rows::read_at_least("shrinkage_covariance", "z", z, 2)?.centered();
    let (cov, share) = shrink(&rows, &second_moment(&rows)?, kind);
    Ok((Tensor::from_vec(cov, (rows.d, rows.d), &candle_core::Device::Cpu)?, share))
}

pub(super) fn second_moment(centered: &Rows) -> Result<Vec<f64>> {
    let x = centered.tensor()?;
    Ok((x.t()?.contiguous()?.matmul(&x)? / centered.n as f64)?.flatten_all()?.to_vec1::<f64>()?)
}

pub(super) fn shrink(centered: &Rows, cov: &[f64], kind: Shrinkage) -> (Vec<f64>, f64) {
    let (n, d) = (centered.n as f64, centered.d);
    let p = d as f64;
    let mu = (0..d).map(|j| cov[j * d + j]).sum::<f64>() / p;
    let squares: f64 = cov.iter().map(|v| v * v).sum();
    // |S - mu I|^2 = |S|^2 - p mu^2, formed as differences.
    let spread: f64 = cov
        .iter()
        .enumerate()
        .map(|(at, v)| if at % (d + 1) == 0 { (v - mu) * (v - mu) } else { v * v })
        .sum();
    let share = match kind {
        Shrinkage::LedoitWolf => {
            let fourth: f64 = centered.squares().iter().map(|s| s * s).sum::<f64>() / n;
            let error = (fourth - squares) / n;
            if spread > 0.0 { (error / spread).clamp(0.0, 1.0) } else { 0.0 }
        }
        Shrinkage::Oas => {
            let numerator = squares / (p * p) + mu * mu;
            let denominator = (n + 1.0) * (spread / (p * p));
            if denominator > 0.0 { (numerator / denominator).min(1.0) } else { 1.0 }
        }
    };
    let mut shrunk: Vec<f64> = cov.iter().map(|v| (1.0 - share) * v).collect();
    (0..d).for_each(|j| shrunk[j * d + j] += share * mu);
    (shrunk, share)
}

/// `1/2 ln det` by Cholesky of the correlation matrix and the variances; `None` where it is singular.
pub(super) fn half_log_det(cov: &[f64], d: usize) -> Option<f64> {
    let deviations: Vec<f64> = (0..d).map(|j| cov[j * d + j].sqrt()).collect();
    let correlation: Vec<f64> =
        cov.iter().enumerate().map(|(at, v)| v / (deviations[at / d] * deviations[at % d])).collect();
    let factor = linalg::cholesky_factor(&correlation, d)?;
    // A pivot of rounding is a zero.
    let diagonal = || (0..d).map(|j| factor[j * d + j]);
    diagonal().all(|l| l > 1e-7).then(|| diagonal().zip(&deviations).map(|(l, s)| l.ln() + s.ln()).sum())
}
