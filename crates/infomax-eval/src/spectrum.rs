//! The spectrum of a set of embeddings, and what is read from it.

use crate::{Error, Result, matrix};
use candle_core::{DType, Tensor};
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
    /// Participation ratio `(sum l)^2 / sum l^2` of the eigenvalues of the covariance. Centered.
    pub participation_ratio: f64,
    /// Stable rank `|Z|_F^2 / |Z|_2^2`, not centered.
    pub stable_rank: f64,
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
    const OP: &str = "spectrum";
    let (n, d) = check(OP, z)?;
    let z = z.detach().to_dtype(DType::F64)?.to_device(&candle_core::Device::Cpu)?;
    let singular_values: Vec<f64> = gram_eigenvalues(&z)?.into_iter().map(f64::sqrt).collect();
    let centered = z.broadcast_sub(&z.mean_keepdim(0)?)?;
    let eigenvalues: Vec<f64> =
        gram_eigenvalues(&centered)?.into_iter().map(|l| l / (n as f64 - 1.0)).collect();

    let sum: f64 = singular_values.iter().sum();
    let squares: f64 = singular_values.iter().map(|s| s * s).sum();
    let top = singular_values.first().copied().unwrap_or(0.0);
    let rank_me = if sum > 0.0 {
        singular_values.iter().map(|s| s / sum + 1e-7).map(|p| -p * p.ln()).sum::<f64>().exp()
    } else {
        0.0
    };
    let trace: f64 = eigenvalues.iter().sum();
    let power: f64 = eigenvalues.iter().map(|l| l * l).sum();
    Ok(Spectrum {
        samples: n,
        dim: d,
        rank_me,
        effective_rank: entropy_rank(&singular_values),
        covariance_entropy_rank: entropy_rank(&eigenvalues),
        participation_ratio: if power > 0.0 { trace * trace / power } else { 0.0 },
        stable_rank: if top > 0.0 { squares / (top * top) } else { 0.0 },
        alpha_req: (eigenvalues.len() >= 100)
            .then(|| slope(&eigenvalues, 10..100, |rank| 1.0 / rank))
            .flatten(),
        alpha_all: slope(&eigenvalues, 0..positive(&eigenvalues), |_| 1.0),
        eigenvalues,
        singular_values,
    })
}

pub(crate) fn check(op: &'static str, z: &Tensor) -> Result<(usize, usize)> {
    matrix::host(op, "z", z)?;
    let (n, d) = z.dims2()?;
    if n < 2 {
        let got = z.dims().to_vec();
        return Err(Error::Shape { op, name: "z", expected: "of at least two rows".into(), got });
    }
    Ok((n, d))
}

/// The eigenvalues of `Z^T Z` and, zeros apart, of `Z Z^T`: `min(N, D)` of them, descending, not negative.
fn gram_eigenvalues(z: &Tensor) -> Result<Vec<f64>> {
    let (n, d) = z.dims2()?;
    let t = z.t()?.contiguous()?;
    let gram = if d <= n { t.matmul(z)? } else { z.matmul(&t)? };
    let mut values = linalg::eigvalsh(&gram)?.to_vec1::<f64>()?;
    values.reverse();
    let floor = values.first().copied().unwrap_or(0.0) * f64::EPSILON * n.max(d) as f64;
    // Eigenvalues below the rounding of the largest are noise, of either sign.
    Ok(values.into_iter().map(|l| if l > floor { l } else { 0.0 }).collect())
}

/// `exp H(x / sum x)`, 0 for a vector of zeros.
fn entropy_rank(x: &[f64]) -> f64 {
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
