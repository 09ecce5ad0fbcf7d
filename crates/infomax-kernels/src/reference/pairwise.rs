//! Pairwise scores of Candle's operations, with the whole matrix.

use super::columns::{center, matrix};
use crate::Result;
use crate::types::{Exclude, Score};
use candle_core::{Device, Tensor};

/// `ln sum_j exp s_ij` over the rows of `x` `(n, d)`: shape `(n)`.
///
/// # Errors
/// Anything but a matrix with elements.
pub fn row_log_sum_exp(x: &Tensor, score: Score, exclude: Exclude) -> Result<Tensor> {
    let (n, _) = matrix("row_log_sum_exp", x)?;
    let scores = match score {
        Score::Dot(c) => (x.matmul(&x.t()?)? * c)?,
        Score::Distance(c) => (squared_distances(x)? * -c)?,
    };
    let mask: Vec<f64> =
        (0..n * n).map(|ij| if exclude.excludes(ij / n, ij % n) { f64::NEG_INFINITY } else { 0.0 }).collect();
    let mask = Tensor::from_vec(mask, (n, n), &Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device())?;
    let scores = (scores + mask)?;
    let max = scores.max_keepdim(1)?.detach();
    let sums = scores.broadcast_sub(&max)?.exp()?.sum(1)?;
    Ok((sums.log()? + max.squeeze(1)?)?)
}

/// `|x_i - x_j|^2` `(n, n)`: centered first, never negative, exactly 0 on the diagonal.
///
/// # Errors
/// Anything but a matrix with elements.
pub fn squared_distances(x: &Tensor) -> Result<Tensor> {
    let (n, _) = matrix("squared_distances", x)?;
    let x = center(x)?;
    let squares = x.sqr()?.sum_keepdim(1)?;
    let r2 = (x.matmul(&x.t()?)? * -2.0)?.broadcast_add(&squares)?.broadcast_add(&squares.t()?)?;
    let off = (Tensor::ones((n, n), x.dtype(), x.device())? - Tensor::eye(n, x.dtype(), x.device())?)?;
    Ok((r2 * off)?.relu()?)
}
