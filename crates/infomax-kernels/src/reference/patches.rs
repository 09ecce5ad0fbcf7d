//! Patches by reshaping.

use crate::Result;
use crate::tensor::check::check_patches;
use candle_core::Tensor;

/// [`patches`](crate::patches).
///
/// # Errors
/// As there.
pub fn patches(xs: &Tensor, patch: usize) -> Result<Tensor> {
    check_patches(xs, patch, false)?;
    reshaped(xs, patch)
}

/// [`patches_last`](crate::patches_last).
///
/// # Errors
/// As there.
pub fn patches_last(xs: &Tensor, patch: usize) -> Result<Tensor> {
    check_patches(xs, patch, true)?;
    reshaped(&xs.permute((0, 3, 1, 2))?, patch)
}

fn reshaped(xs: &Tensor, patch: usize) -> Result<Tensor> {
    let (n, c, h, w) = xs.dims4()?;
    let (p, q) = (h / patch, w / patch);
    let xs = xs.narrow(2, 0, p * patch)?.narrow(3, 0, q * patch)?.contiguous()?;
    let xs = xs.reshape((n, c, p, patch, q, patch))?.permute((0, 2, 4, 1, 3, 5))?;
    Ok(xs.reshape((n, p, q, c * patch * patch))?)
}
