//! The spectrum of a set of embeddings, and what is read from it.

use crate::estimate::{Doubt, Estimate, Resampling};
use crate::matrix::{self, Rows};
use crate::{Error, Result};
use candle_core::Tensor;
use infomax_kernels::linalg;
use serde::Serialize;

/// What [`spectrum`] reports. Entropies are in nats; ranks are `exp` of an entropy or a ratio, so 1 means that
/// a single direction is left and `D` that all are used alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spectrum {
    /// Rows `N`.
    pub samples: usize,
    /// Columns `D`.
    pub dim: usize,
    /// RankMe (Garrido et al., arXiv:2210.02885): `exp(-sum p ln p)` with `p = s / sum s + 1e-7` over the
    /// singular values `s` of `Z`, not centered.
    pub rank_me: f64,
    /// Effective rank (Roy and Vetterli 2007): the same without the `1e-7`, and `0 ln 0 = 0`.
    pub effective_rank: f64,
    /// `exp` of the entropy of the normalized eigenvalues of the covariance: the exponential of its
    /// von Neumann entropy. Centered.
    pub covariance_entropy_rank: f64,
    /// Participation ratio `(sum l)^2 / sum l^2` of the eigenvalues of the covariance. Centered. It is below
    /// that of the population when rows are few: of `D` equal variances it finds about `N D / (N + D)`.
    pub participation_ratio: f64,
    /// The participation ratio of the population, estimated by
    /// `tr Sigma^2 = v^2 / ((v - 1)(v + 2)) (tr S^2 - (tr S)^2 / v)`, `(tr Sigma)^2 = (tr S)^2 - 2 tr Sigma^2 / v`
    /// with `v = N - 1`, both unbiased for normal rows (Srivastava 2005), so that `N <= D` is no obstacle. `None`
    /// with fewer than four rows, or where the estimate of `tr Sigma^2` is not positive.
    pub participation_ratio_corrected: Option<f64>,
    /// Stable rank `|Z|_F^2 / |Z|_2^2`, not centered.
    pub stable_rank: f64,
    /// NESum `sum l / max l` of the eigenvalues of the covariance (He and Ozay 2022): the stable rank of the
    /// centered matrix.
    pub nesum: f64,
    /// IsoScore (Rudman et al., arXiv:2108.07344): 0 for a single direction, 1 for equal variances. Its defect of
    /// isotropy comes to `(PR - 1) / (D - 1)` with the participation ratio PR. `None` for one column.
    pub iso_score: Option<f64>,
    /// alpha-ReQ (Agrawal et al. 2022): minus the slope of `ln l_i` on `ln i` by least squares weighted with
    /// `1 / i` over `i = 11..=100`, the window of reptrix. `None` with fewer than 100 positive eigenvalues.
    pub alpha_req: Option<f64>,
    /// Minus the slope of `ln l_i` on `ln i` over all eigenvalues above the rounding of the largest, without
    /// weights. `None` with fewer than two.
    pub alpha_all: Option<f64>,
    /// The eigenvalues of the covariance `Zc^T Zc / (N - 1)`, descending.
    pub eigenvalues: Vec<f64>,
    /// The singular values of `Z`, not centered, descending.
    pub singular_values: Vec<f64>,
    /// Reasons not to trust the ranks.
    pub doubts: Vec<Doubt>,
}

/// The spectrum of embeddings `(N, D)`, in f64 through the smaller of the two Gram matrices.
///
/// Singular values below about `1.5e-8 sqrt(max(N, D))` of the largest are rounding, and count as 0: a Gram
/// matrix holds their squares. A
/// constant or zero matrix has no covariance spectrum: its centered ranks are reported as 0.
///
/// # Errors
/// Not a matrix, fewer than two rows, or values that are not finite.
pub fn spectrum(z: &Tensor) -> Result<Spectrum> {
    of_rows(&Rows::read_at_least("spectrum", "z", z, 2)?)
}

/// [`spectrum`] of the rows of each class; `None` for a class of fewer than two rows.
///
/// # Errors
/// As [`spectrum`], and labels that do not fit.
pub fn spectrum_per_class(z: &Tensor, labels: &[u32]) -> Result<Vec<Option<Spectrum>>> {
    const OP: &str = "spectrum_per_class";
    let rows = matrix::labeled(OP, "z", z, labels)?;
    let largest = labels.iter().copied().max().unwrap_or(0);
    if largest >= 1_000_000 {
        let reason = "classes are numbered from 0 without gaps";
        return Err(Error::Config { key: "labels", value: largest.to_string(), reason });
    }
    let mut members = vec![Vec::new(); largest as usize + 1];
    labels.iter().enumerate().for_each(|(i, l)| members[*l as usize].push(i));
    members.iter().map(|own| (own.len() >= 2).then(|| of_rows(&rows.select(own))).transpose()).collect()
}

/// The ranks of [`spectrum`] with their intervals.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankEstimates {
    /// [`Spectrum::rank_me`].
    pub rank_me: Estimate,
    /// [`Spectrum::effective_rank`].
    pub effective_rank: Estimate,
    /// [`Spectrum::covariance_entropy_rank`].
    pub covariance_entropy_rank: Estimate,
    /// [`Spectrum::participation_ratio`].
    pub participation_ratio: Estimate,
    /// [`Spectrum::participation_ratio_corrected`]; not a number where that is `None`.
    pub participation_ratio_corrected: Estimate,
    /// [`Spectrum::stable_rank`].
    pub stable_rank: Estimate,
    /// [`Spectrum::nesum`].
    pub nesum: Estimate,
}

/// The ranks with intervals by subsampling.
///
/// The intervals hold the spread only: all these ranks but the corrected one are lower for fewer rows, and the
/// doubts say so where it matters.
///
/// # Errors
/// As [`spectrum`], or settings out of range.
pub fn rank_estimates(z: &Tensor, cfg: &Resampling) -> Result<RankEstimates> {
    let rows = Rows::read_at_least("rank_estimates", "z", z, 2)?;
    let all = of_rows(&rows)?;
    let ranks = |s: &Spectrum| {
        vec![
            s.rank_me,
            s.effective_rank,
            s.covariance_entropy_rank,
            s.participation_ratio,
            s.participation_ratio_corrected.unwrap_or(f64::NAN),
            s.stable_rank,
            s.nesum,
        ]
    };
    let values = ranks(&all);
    let mut intervals = cfg
        .subsample_all(&values, rows.n, 4, |chosen| Ok(ranks(&of_rows(&rows.select(chosen))?)))?
        .into_iter();
    let mut estimates = values.into_iter().map(|value| {
        let interval = intervals.next().flatten();
        Estimate::new(value, all.samples).with(interval).doubting(all.doubts.clone())
    });
    let mut next = || estimates.next().unwrap_or_else(|| Estimate::new(f64::NAN, all.samples));
    Ok(RankEstimates {
        rank_me: next(),
        effective_rank: next(),
        covariance_entropy_rank: next(),
        participation_ratio: next(),
        participation_ratio_corrected: next(),
        stable_rank: next(),
        nesum: next(),
    })
}

fn of_rows(rows: &Rows) -> Result<Spectrum> {
    let (n, d) = (rows.n, rows.d);
    // Squares of any scale fit: a rank does not depend on it.
    let scale = rows.largest();
    let scaled = match scale > 0.0 {
        true => Rows { n, d, values: rows.values.iter().map(|v| v / scale).collect() },
        false => rows.clone(),
    };
    let singular: Vec<f64> = gram_eigenvalues(&scaled)?.into_iter().map(f64::sqrt).collect();
    let eigen: Vec<f64> =
        gram_eigenvalues(&scaled.centered())?.into_iter().map(|l| l / (n as f64 - 1.0)).collect();

    let sum: f64 = singular.iter().sum();
    let squares: f64 = singular.iter().map(|s| s * s).sum();
    let top = singular.first().copied().unwrap_or(0.0);
    let rank_me = if sum > 0.0 {
        singular.iter().map(|s| s / sum + 1e-7).map(|p| -p * p.ln()).sum::<f64>().exp()
    } else {
        0.0
    };
    let trace: f64 = eigen.iter().sum();
    let power: f64 = eigen.iter().map(|l| l * l).sum();
    let largest = eigen.first().copied().unwrap_or(0.0);
    let participation_ratio = if power > 0.0 { trace * trace / power } else { 0.0 };
    Ok(Spectrum {
        samples: n,
        dim: d,
        rank_me,
        effective_rank: entropy_rank(&singular),
        covariance_entropy_rank: entropy_rank(&eigen),
        participation_ratio,
        participation_ratio_corrected: corrected(n, trace, power),
        stable_rank: if top > 0.0 { squares / (top * top) } else { 0.0 },
        nesum: if largest > 0.0 { trace / largest } else { 0.0 },
        iso_score: (d > 1).then(|| ((participation_ratio - 1.0) / (d as f64 - 1.0)).max(0.0)),
        alpha_req: (eigen.len() >= 100).then(|| slope(&eigen, 10..100, |rank| 1.0 / rank)).flatten(),
        alpha_all: slope(&eigen, 0..positive(&eigen), |_| 1.0),
        doubts: doubts(n, d, power),
        eigenvalues: eigen.into_iter().map(|l| l * scale * scale).collect(),
        singular_values: singular.into_iter().map(|s| s * scale).collect(),
    })
}

fn doubts(n: usize, d: usize, power: f64) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    if power <= 0.0 {
        doubts.push(Doubt::new("constant", "all rows are equal: there is no spectrum of their covariance"));
    }
    if n <= d {
        let message = format!(
            "{n} rows in {d} dimensions: no rank can exceed the number of rows; only the corrected \
             participation ratio estimates that of the population"
        );
        doubts.push(Doubt::new("few-samples", message));
    } else if n < 10 * d {
        let message = format!(
            "{n} rows in {d} dimensions: the sample spreads equal eigenvalues, so that ranks are read too low; \
             ten rows a dimension or the corrected participation ratio avoid it"
        );
        doubts.push(Doubt::new("few-samples", message));
    }
    doubts
}

fn corrected(n: usize, trace: f64, power: f64) -> Option<f64> {
    if n < 4 {
        return None;
    }
    let v = n as f64 - 1.0;
    let squares = v * v / ((v - 1.0) * (v + 2.0)) * (power - trace * trace / v);
    let square = trace * trace - 2.0 * squares / v;
    // Below the rounding of the two that were subtracted there is no estimate.
    (squares > 1e-12 * power && square > 0.0).then(|| square / squares)
}

/// The eigenvalues of `Z^T Z` and, zeros apart, of `Z Z^T`: `min(N, D)` of them, descending, not negative.
fn gram_eigenvalues(rows: &Rows) -> Result<Vec<f64>> {
    let (n, d) = (rows.n, rows.d);
    let z = rows.tensor()?;
    let t = z.t()?.contiguous()?;
    let gram = if d <= n { t.matmul(&z)? } else { z.matmul(&t)? };
    let mut values = linalg::eigvalsh(&gram)?.to_vec1::<f64>()?;
    values.reverse();
    let floor = values.first().copied().unwrap_or(0.0) * f64::EPSILON * n.max(d) as f64;
    // Eigenvalues below the rounding of the largest are noise, of either sign.
    Ok(values.into_iter().map(|l| if l > floor { l } else { 0.0 }).collect())
}

/// `exp H(x / sum x)`, 0 for a vector of zeros.
pub(super) fn entropy_rank(x: &[f64]) -> f64 {
    let sum: f64 = x.iter().sum();
    if sum <= 0.0 {
        return 0.0;
    }
    x.iter().map(|v| v / sum).filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum::<f64>().exp()
}

fn positive(values: &[f64]) -> usize {
    values.iter().take_while(|l| **l > 0.0).count()
}

/// Minus the slope of `ln l_i` on `ln i`; ranks `i` count from 1.
fn slope(values: &[f64], window: std::ops::Range<usize>, weight: impl Fn(f64) -> f64) -> Option<f64> {
    if window.len() < 2 || positive(values) < window.end {
        return None;
    }
    let points = || {
        window.clone().map(|i| {
            let rank = (i + 1) as f64;
            (weight(rank), rank.ln(), values[i].ln())
        })
    };
    let total: f64 = points().map(|(w, _, _)| w).sum();
    let mx = points().map(|(w, x, _)| w * x).sum::<f64>() / total;
    let my = points().map(|(w, _, y)| w * y).sum::<f64>() / total;
    let cov: f64 = points().map(|(w, x, y)| w * (x - mx) * (y - my)).sum();
    let var: f64 = points().map(|(w, x, _)| w * (x - mx) * (x - mx)).sum();
    Some(-cov / var)
}
