//! Log-sum-exp over the rows of a pairwise score matrix that is never stored.

use crate::{Result, moments};
use candle_core::Tensor;
pub use infomax_kernels::pairwise::{Exclude, Score};
use infomax_kernels::{pairwise as kernels, reference};

/// `l_i = ln sum_j exp s_ij` over the rows of `x` `(n, d)`: shape `(n)`, differentiable. Half types are widened.
///
/// Memory is `O(n x block)`; see [`row_log_sum_exp`](kernels::row_log_sum_exp) of `infomax-kernels` for the
/// gradient and the numerics. A row that leaves out everything gives minus infinity.
///
/// # Errors
/// Anything but a matrix; elements whose squares are not finite.
pub fn row_log_sum_exp(x: &Tensor, score: Score, exclude: Exclude) -> Result<Tensor> {
    Ok(kernels::row_log_sum_exp(&moments::matrix("pairwise", x, 1)?, score, exclude)?)
}

/// [`row_log_sum_exp`] with a given number of rows in a block (at most 144 are taken); results do not depend
/// on it but for rounding.
///
/// # Errors
/// As [`row_log_sum_exp`], and a block of no rows.
pub fn row_log_sum_exp_blocked(x: &Tensor, score: Score, exclude: Exclude, block: usize) -> Result<Tensor> {
    let x = moments::matrix("pairwise", x, 1)?;
    if block == 0 {
        return Err(crate::Error::Config {
            term: "pairwise",
            key: "block",
            value: "0".into(),
            reason: "must be at least 1",
        });
    }
    Ok(kernels::row_log_sum_exp_blocked(&x, score, exclude, block)?)
}

/// [`row_log_sum_exp`] from plain Candle operations, with the whole score matrix: the reference.
///
/// # Errors
/// As [`row_log_sum_exp`].
pub fn row_log_sum_exp_composed(x: &Tensor, score: Score, exclude: Exclude) -> Result<Tensor> {
    Ok(reference::row_log_sum_exp(&moments::matrix("pairwise", x, 1)?, score, exclude)?)
}

/// `|x_i - x_j|^2` `(n, n)`, differentiable: centered first, never negative, exactly 0 on the diagonal.
///
/// # Errors
/// Anything but a matrix.
pub fn squared_distances(x: &Tensor) -> Result<Tensor> {
    Ok(kernels::squared_distances(&moments::matrix("pairwise", x, 1)?)?)
}
