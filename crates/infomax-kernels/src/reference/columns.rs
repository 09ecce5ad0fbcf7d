//! Second moments of Candle's operations.

use crate::tensor::check;
use crate::{Normalize, Result, linalg};
use candle_core::Tensor;

/// `Z - mean` of every column.
///
/// # Errors
/// Anything but a matrix with elements.
pub fn center(z: &Tensor) -> Result<Tensor> {
    matrix("center", z)?;
    Ok(z.broadcast_sub(&z.mean_keepdim(0)?)?)
}

/// `Z Z^T` `(n, n)`.
///
/// # Errors
/// Anything but a matrix with elements.
pub fn gram(z: &Tensor) -> Result<Tensor> {
    matrix("gram", z)?;
    Ok(z.matmul(&z.t()?)?)
}

/// `Z^T Z` `(d, d)`.
///
/// # Errors
/// Anything but a matrix with elements.
pub fn second_moment(z: &Tensor) -> Result<Tensor> {
    matrix("second_moment", z)?;
    Ok(z.t()?.matmul(z)?)
}

/// `[variance, covariance]` of VICReg, through the `d x d` matrix: shape `(2)`.
///
/// # Errors
/// Anything but a matrix with elements.
pub fn variance_covariance(z: &Tensor, gamma: f64, eps: f64) -> Result<Tensor> {
    let (n, d) = matrix("variance_covariance", z)?;
    let dof = n as f64 - 1.0;
    let zc = center(z)?;
    let variances = (zc.sqr()?.sum(0)? / dof)?;
    let below = ((variances + eps)?.sqrt()?.neg()? + gamma)?;
    // A maximum with 0 would turn NaN into 0.
    let variance = (below.relu()? + (below * 0.0)?)?.mean_all()?;
    let s = (second_moment(&zc)? / dof)?;
    let off = (Tensor::ones((d, d), z.dtype(), z.device())? - Tensor::eye(d, z.dtype(), z.device())?)?;
    let covariance = ((s * off)?.sqr()?.sum_all()? / d as f64)?;
    Ok(Tensor::stack(&[variance, covariance], 0)?)
}

/// `sum (a - b)^2` over all elements.
///
/// # Errors
/// Shapes or types that differ.
pub fn squared_error(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    check::same_shape("squared_error", a, "b", Some(b))?;
    Ok((a - b)?.sqr()?.sum_all()?)
}

/// `1/2 ln det(I + s X^T X)` of the normalized matrix, through the `d x d` matrix.
///
/// # Errors
/// Anything but a matrix with elements; a matrix that is not finite.
pub fn half_log_det_gram(z: &Tensor, s: f64, normalize: Normalize) -> Result<Tensor> {
    let (_, d) = matrix("half_log_det_gram", z)?;
    let x = normalized(z, normalize)?;
    let shifted = ((x.t()?.matmul(&x)? * s)? + Tensor::eye(d, z.dtype(), z.device())?)?;
    Ok((linalg::log_det_spd(&shifted)? * 0.5)?)
}

/// The matrix with its columns normalized.
pub(crate) fn normalized(z: &Tensor, normalize: Normalize) -> Result<Tensor> {
    Ok(match normalize {
        Normalize::Not => z.clone(),
        Normalize::Center => center(z)?,
        Normalize::Standardize(eps) => {
            let zc = center(z)?;
            let variances = (zc.sqr()?.mean_keepdim(0)? + eps)?;
            zc.broadcast_div(&variances.sqrt()?)?
        }
    })
}

pub(super) fn matrix(op: &'static str, z: &Tensor) -> Result<(usize, usize)> {
    let dims = check::dims2(op, "z", z)?;
    check::not_empty(op, "z", z)?;
    Ok(dims)
}
