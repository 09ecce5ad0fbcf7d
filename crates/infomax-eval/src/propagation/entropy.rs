//! The entropy of a normal distribution whose covariance may be singular.

use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use infomax_kernels::linalg;
use serde::Serialize;
use std::f64::consts::{E, PI};

/// The result of [`support_entropy`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SupportEntropy {
    /// `1/2 sum_{j <= rank} ln(2 pi e lambda_j)` in nats: the entropy with respect to the volume of the subspace that
    /// the distribution fills. At full rank it is `1/2 ln det(2 pi e C)`.
    pub nats: f64,
    /// The eigenvalues that count, those above the tolerance.
    pub rank: usize,
    /// The dimension.
    pub dim: usize,
    /// All eigenvalues, descending.
    pub eigenvalues: Vec<f64>,
    /// Eigenvalues up to this are taken for 0.
    pub tolerance: f64,
}

impl SupportEntropy {
    /// The entropy with respect to the volume of the whole space: minus infinity where the rank is not full.
    pub fn full(&self) -> f64 {
        if self.rank == self.dim { self.nats } else { f64::NEG_INFINITY }
    }
}

/// The entropy of the normal distribution of a covariance `(D, D)` on the subspace that it fills, in nats.
///
/// An eigenvalue counts above `relative_tolerance` times the largest; the root of it is the precision of the Jacobian
/// that the covariance was made of, so `1e-10` suits one computed in f32 (`1e-5` of the largest singular value) and
/// `1e-24` one in f64. Entropies of different ranks cannot be compared.
///
/// # Errors
/// Not a square matrix, values that are not finite, a tolerance outside of 0 to 1, or a covariance of zeros.
pub fn support_entropy(covariance: &Tensor, relative_tolerance: f64) -> Result<SupportEntropy> {
    const OP: &str = "support_entropy";
    if !(0.0..1.0).contains(&relative_tolerance) {
        let (value, reason) = (relative_tolerance.to_string(), "must be at least 0 and below 1");
        return Err(Error::Config { key: "relative_tolerance", value, reason });
    }
    let c = covariance.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    let mut eigenvalues = linalg::eigvalsh(&c)?.to_vec1::<f64>()?;
    eigenvalues.reverse();
    let (dim, largest) = (eigenvalues.len(), eigenvalues.first().copied().unwrap_or(0.0));
    if largest <= 0.0 {
        return Err(Error::Singular { op: OP, name: "the noise", rows: dim, columns: dim });
    }
    let tolerance = relative_tolerance * largest;
    let kept = || eigenvalues.iter().filter(|v| **v > tolerance);
    let nats = kept().map(|v| 0.5 * (2.0 * PI * E * v).ln()).sum();
    Ok(SupportEntropy { nats, rank: kept().count(), dim, tolerance, eigenvalues })
}
