//! Normalizations, two passes each: the mean first, then the centered moments.

use crate::tensor::check;
use crate::{Activation, BatchNormOutput, Error, Result};
use candle_core::{D, Tensor};

/// See [`crate::batch_norm_train`].
///
/// # Errors
/// As [`crate::batch_norm_train`].
pub fn batch_norm_train(
    xs: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    eps: f64,
    act: Activation,
) -> Result<BatchNormOutput> {
    let (n, c, inner) = check::batch_norm("batch_norm_train", xs, weight, bias, residual, eps)?;
    let flat = xs.reshape((n, c, inner))?;
    let mean = flat.mean_keepdim((0, 2))?;
    let centered = flat.broadcast_sub(&mean)?;
    let var = centered.sqr()?.mean_keepdim((0, 2))?;
    let ys = centered.broadcast_div(&(&var + eps)?.sqrt()?)?;
    let ys = finish(&ys, xs, weight, bias, residual, act)?;
    Ok(BatchNormOutput {
        ys,
        mean: mean.reshape(c)?.detach(),
        var: var.reshape(c)?.detach(),
        count: n * inner,
    })
}

/// See [`crate::batch_norm_eval`].
///
/// # Errors
/// As [`crate::batch_norm_eval`].
pub fn batch_norm_eval(
    xs: &Tensor,
    mean: &Tensor,
    var: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    eps: f64,
    act: Activation,
) -> Result<Tensor> {
    const OP: &str = "batch_norm_eval";
    let (n, c, inner) = check::batch_norm(OP, xs, weight, bias, residual, eps)?;
    check::vector(OP, xs, "mean", Some(mean), c)?;
    check::vector(OP, xs, "var", Some(var), c)?;
    let column = |v: &Tensor| v.reshape((1, c, 1));
    let centered = xs.reshape((n, c, inner))?.broadcast_sub(&column(mean)?)?;
    let ys = centered.broadcast_div(&(column(var)? + eps)?.sqrt()?)?;
    finish(&ys, xs, weight, bias, residual, act)
}

/// `(x - mean) / sqrt(var + eps) * weight + bias` over the last dimension, with the biased variance.
///
/// # Errors
/// Shapes, types or settings that do not fit; a tensor without elements.
pub fn layer_norm(xs: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    const OP: &str = "layer_norm";
    let d = check::last(OP, xs)?;
    check::vector(OP, xs, "weight", weight, d)?;
    check::vector(OP, xs, "bias", bias, d)?;
    check::positive(OP, "eps", eps)?;
    let centered = xs.broadcast_sub(&xs.mean_keepdim(D::Minus1)?)?;
    let var = centered.sqr()?.mean_keepdim(D::Minus1)?;
    scale_shift(&centered.broadcast_div(&(var + eps)?.sqrt()?)?, weight, bias)
}

/// `x / sqrt(mean(x^2) + eps) * weight` over the last dimension (arXiv:1910.07467).
///
/// # Errors
/// Shapes, types or settings that do not fit; a tensor without elements.
pub fn rms_norm(xs: &Tensor, weight: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    const OP: &str = "rms_norm";
    let d = check::last(OP, xs)?;
    check::vector(OP, xs, "weight", weight, d)?;
    check::positive(OP, "eps", eps)?;
    let power = xs.sqr()?.mean_keepdim(D::Minus1)?;
    scale_shift(&xs.broadcast_div(&(power + eps)?.sqrt()?)?, weight, None)
}

/// Layer norm of each of `groups` groups of channels of `(N, C)` or `(N, C, H, W)`; `weight` and `bias` are
/// `(C)` (arXiv:1803.08494).
///
/// # Errors
/// Shapes, types or settings that do not fit; a tensor without elements.
pub fn group_norm(
    xs: &Tensor,
    groups: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    const OP: &str = "group_norm";
    let (n, c, inner) = check::batch_norm(OP, xs, weight, bias, None, eps)?;
    if groups == 0 || c % groups != 0 {
        return Err(Error::Config {
            op: OP,
            name: "groups",
            value: groups.to_string(),
            reason: "must divide the number of channels",
        });
    }
    let ys = layer_norm(&xs.reshape((n, groups, c / groups * inner))?, None, None, eps)?;
    finish(&ys.reshape((n, c, inner))?, xs, weight, bias, None, Activation::None)
}

/// Scale, shift, residual and activation of `(N, C, inner)`, in the shape of `xs`.
fn finish(
    ys: &Tensor,
    xs: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    act: Activation,
) -> Result<Tensor> {
    let c = ys.dim(1)?;
    let column = |v: &Tensor| v.reshape((1, c, 1));
    let ys =
        scale_shift(ys, weight.map(column).transpose()?.as_ref(), bias.map(column).transpose()?.as_ref())?;
    let mut ys = ys.reshape(xs.shape())?;
    if let Some(residual) = residual {
        ys = (ys + residual)?;
    }
    match act {
        Activation::None => Ok(ys),
        Activation::Relu => super::relu(&ys),
    }
}

fn scale_shift(xs: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>) -> Result<Tensor> {
    let mut ys = xs.clone();
    if let Some(weight) = weight {
        ys = ys.broadcast_mul(weight)?;
    }
    if let Some(bias) = bias {
        ys = ys.broadcast_add(bias)?;
    }
    Ok(ys)
}
