//! Convolution as one matrix product for each tap of the kernel.

use crate::tensor::check;
use crate::{Conv2dConfig, Result};
use candle_core::Tensor;

/// See [`crate::conv2d`].
///
/// # Errors
/// As [`crate::conv2d`].
pub fn conv2d(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>, cfg: Conv2dConfig) -> Result<Tensor> {
    let d = check::conv(xs, weight, bias, cfg)?;
    let padded = pad(xs, d.padding)?;
    let (cg, kg) = (d.c / d.groups, d.k / d.groups);
    let mut groups = Vec::with_capacity(d.groups);
    for g in 0..d.groups {
        let xs = padded.narrow(1, g * cg, cg)?;
        let weight = weight.narrow(0, g * kg, kg)?;
        let mut sum: Option<Tensor> = None;
        for r in 0..d.r {
            for s in 0..d.s {
                let tap = weight.narrow(2, r, 1)?.narrow(3, s, 1)?.reshape((1, kg, cg))?;
                let window = strided(
                    &strided(&xs, 2, r * d.dilation, d.stride, d.p)?,
                    3,
                    s * d.dilation,
                    d.stride,
                    d.q,
                )?;
                let part = tap.broadcast_matmul(&window.reshape((d.n, cg, d.p * d.q))?)?;
                sum = Some(match sum {
                    Some(sum) => (sum + part)?,
                    None => part,
                });
            }
        }
        // `check` refuses empty kernels, so there was a tap.
        groups.extend(sum);
    }
    let ys = Tensor::cat(&groups, 1)?.reshape((d.n, d.k, d.p, d.q))?;
    match bias {
        Some(bias) => Ok(ys.broadcast_add(&bias.reshape((1, d.k, 1, 1))?)?),
        None => Ok(ys),
    }
}

/// Adds zeros on all four sides.
fn pad(xs: &Tensor, padding: usize) -> Result<Tensor> {
    if padding == 0 {
        return Ok(xs.clone());
    }
    Ok(xs.pad_with_zeros(2, padding, padding)?.pad_with_zeros(3, padding, padding)?)
}

/// Every `stride`-th index of a dimension, `len` of them.
pub(super) fn strided(xs: &Tensor, dim: usize, start: usize, stride: usize, len: usize) -> Result<Tensor> {
    if stride == 1 {
        return Ok(xs.narrow(dim, start, len)?);
    }
    let index: Vec<u32> = (0..len).map(|i| (start + i * stride) as u32).collect();
    let index = Tensor::from_vec(index, len, xs.device())?;
    Ok(xs.contiguous()?.index_select(&index, dim)?)
}
