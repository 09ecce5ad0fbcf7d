//! Pooling, tap by tap.

use super::conv::strided;
use crate::tensor::check;
use crate::{Pool2dConfig, Result};
use candle_core::Tensor;

/// The largest pixel of each window of `(N, C, H, W)`. Windows may overlap; padding never wins.
///
/// The gradient goes to the first of equal maxima, and to the last NaN, as in PyTorch; that of a window of minus
/// infinity alone may go to its padding.
///
/// # Errors
/// Shapes, types or settings that do not fit; a tensor without elements.
pub fn max_pool2d(xs: &Tensor, cfg: Pool2dConfig) -> Result<Tensor> {
    let (p, q) = check::pool("max_pool2d", xs, cfg)?;
    let padded =
        pad_with(&pad_with(xs, 2, cfg.padding, f64::NEG_INFINITY)?, 3, cfg.padding, f64::NEG_INFINITY)?;
    let mut best: Option<Tensor> = None;
    for r in 0..cfg.kernel {
        for s in 0..cfg.kernel {
            let tap = strided(&strided(&padded, 2, r, cfg.stride, p)?, 3, s, cfg.stride, q)?.contiguous()?;
            best = Some(match best {
                // The strict comparison gives ties to the first tap, as PyTorch does; NaN, which is unequal
                // to itself, is always taken.
                Some(best) => (tap.gt(&best)? + tap.ne(&tap)?)?.where_cond(&tap, &best)?,
                None => tap,
            });
        }
    }
    Ok(best.map_or_else(|| xs.contiguous(), Ok)?)
}

/// The mean of each window of `(N, C, H, W)`; padding counts as zeros, as in PyTorch by default.
///
/// # Errors
/// Shapes, types or settings that do not fit; a tensor without elements.
pub fn avg_pool2d(xs: &Tensor, cfg: Pool2dConfig) -> Result<Tensor> {
    let (p, q) = check::pool("avg_pool2d", xs, cfg)?;
    let padded = pad_with(&pad_with(xs, 2, cfg.padding, 0.0)?, 3, cfg.padding, 0.0)?;
    let mut sum: Option<Tensor> = None;
    for r in 0..cfg.kernel {
        for s in 0..cfg.kernel {
            let tap = strided(&strided(&padded, 2, r, cfg.stride, p)?, 3, s, cfg.stride, q)?;
            sum = Some(match sum {
                Some(sum) => (sum + tap)?,
                None => tap,
            });
        }
    }
    let sum = sum.map_or_else(|| xs.contiguous(), Ok)?;
    Ok((sum * (1.0 / (cfg.kernel * cfg.kernel) as f64))?)
}

/// The mean of each plane: `(N, C, H, W)` to `(N, C)`.
///
/// # Errors
/// Shapes, types or settings that do not fit; a tensor without elements.
pub fn global_avg_pool(xs: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = check::dims4("global_avg_pool", "xs", xs)?;
    check::not_empty("global_avg_pool", "xs", xs)?;
    Ok(xs.reshape((n, c, h * w))?.mean(2)?)
}

fn pad_with(xs: &Tensor, dim: usize, padding: usize, value: f64) -> Result<Tensor> {
    if padding == 0 {
        return Ok(xs.clone());
    }
    let mut dims = xs.dims().to_vec();
    dims[dim] = padding;
    let side = Tensor::full(value, dims, xs.device())?.to_dtype(xs.dtype())?;
    Ok(Tensor::cat(&[&side, xs, &side], dim)?)
}
