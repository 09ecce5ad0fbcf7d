//! Activations, linear maps, and the functions of one row.

use crate::tensor::check;
use crate::{Error, Result};
use candle_core::{D, Tensor};

/// `max(x, 0)`, element by element. The derivative at 0 is 0, as in PyTorch (Candle's own has 1); NaN stays.
///
/// # Errors
/// Shapes, types or settings that do not fit; a tensor without elements.
pub fn relu(xs: &Tensor) -> Result<Tensor> {
    // Candle's relu has the derivative 1 at 0. NaN compares false, so it stays.
    let zeros = xs.zeros_like()?;
    Ok(xs.le(&zeros)?.where_cond(&zeros, xs)?)
}

/// `x (1 + erf(x / sqrt 2)) / 2`, element by element: the exact form, not the tanh approximation.
///
/// # Errors
/// Shapes, types or settings that do not fit; a tensor without elements.
pub fn gelu(xs: &Tensor) -> Result<Tensor> {
    let cdf = ((xs * std::f64::consts::FRAC_1_SQRT_2)?.erf()? + 1.0)?;
    Ok(((xs * cdf)? * 0.5)?)
}

/// `x / (1 + exp(-x))`, element by element.
///
/// # Errors
/// Shapes, types or settings that do not fit; a tensor without elements.
pub fn silu(xs: &Tensor) -> Result<Tensor> {
    // 1 / (1 + exp(-x)), with exp(-x) = inf for very negative x giving 0, as it must.
    let gate = (xs.neg()?.exp()? + 1.0)?.recip()?;
    Ok((xs * gate)?)
}

/// `ys = xs weight^T + bias`: `xs` `(.., I)`, `weight` `(O, I)`, `bias` `(O)`; the result is `(.., O)`.
///
/// # Errors
/// Shapes, types or settings that do not fit; a tensor without elements.
pub fn linear(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    const OP: &str = "linear";
    let inputs = check::last(OP, xs)?;
    let (outputs, columns) = check::dims2(OP, "weight", weight)?;
    if columns != inputs {
        return Err(Error::Shape {
            op: OP,
            name: "weight",
            expected: format!("(outputs, {inputs})"),
            got: weight.dims().to_vec(),
        });
    }
    check::not_empty(OP, "weight", weight)?;
    check::same_dtype(OP, xs, "weight", Some(weight))?;
    check::vector(OP, xs, "bias", bias, outputs)?;
    let rows = xs.elem_count() / inputs;
    let mut ys = xs.reshape((rows, inputs))?.matmul(&weight.t()?)?;
    if let Some(bias) = bias {
        ys = ys.broadcast_add(bias)?;
    }
    let mut dims = xs.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = outputs;
    }
    Ok(ys.reshape(dims)?)
}

/// `x - ln sum exp x` over the last dimension, shifted by the maximum first.
///
/// # Errors
/// Shapes, types or settings that do not fit; a tensor without elements.
pub fn log_softmax(xs: &Tensor) -> Result<Tensor> {
    check::last("log_softmax", xs)?;
    // The shift has no part in the value, so it needs no gradient.
    let shifted = xs.broadcast_sub(&xs.max_keepdim(D::Minus1)?.detach())?;
    Ok(shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)?)
}

/// `exp x / sum exp x` over the last dimension, shifted by the maximum first.
///
/// # Errors
/// Shapes, types or settings that do not fit; a tensor without elements.
pub fn softmax(xs: &Tensor) -> Result<Tensor> {
    check::last("softmax", xs)?;
    let weights = xs.broadcast_sub(&xs.max_keepdim(D::Minus1)?.detach())?.exp()?;
    Ok(weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?)
}

/// The mean cross-entropy of `logits` `(N, K)` against `labels`, a scalar in nats.
///
/// With the label smoothing `e` the target is `(1 - e)` at the label plus `e / K` everywhere, as in PyTorch.
///
/// # Errors
/// Shapes, types or settings that do not fit; a tensor without elements.
pub fn cross_entropy(logits: &Tensor, labels: &[u32], label_smoothing: f64) -> Result<Tensor> {
    const OP: &str = "cross_entropy";
    let (n, k) = check::dims2(OP, "logits", logits)?;
    check::not_empty(OP, "logits", logits)?;
    if labels.len() != n {
        return Err(Error::Config {
            op: OP,
            name: "labels",
            value: format!("{} labels for {n} rows", labels.len()),
            reason: "must be one for each row of the logits",
        });
    }
    if let Some(label) = labels.iter().find(|l| **l as usize >= k) {
        return Err(Error::Config {
            op: OP,
            name: "labels",
            value: format!("{label} of {k} classes"),
            reason: "must be smaller than the number of classes",
        });
    }
    if !(0.0..=1.0).contains(&label_smoothing) {
        return Err(Error::Config {
            op: OP,
            name: "label_smoothing",
            value: label_smoothing.to_string(),
            reason: "must be between 0 and 1",
        });
    }
    let log_p = log_softmax(logits)?;
    let index = Tensor::from_slice(labels, (n, 1), logits.device())?;
    let nll = log_p.contiguous()?.gather(&index, 1)?.mean_all()?.neg()?;
    if label_smoothing == 0.0 {
        return Ok(nll);
    }
    let uniform = log_p.mean_all()?.neg()?;
    Ok(((nll * (1.0 - label_smoothing))? + (uniform * label_smoothing)?)?)
}

/// `x / max(|x|, eps)` over the last dimension. Below `eps` the gradient is that of `x / eps`.
///
/// # Errors
/// Shapes, types or settings that do not fit; a tensor without elements.
pub fn l2_normalize(xs: &Tensor, eps: f64) -> Result<Tensor> {
    const OP: &str = "l2_normalize";
    check::last(OP, xs)?;
    check::positive(OP, "eps", eps)?;
    // max(|x|, eps) = sqrt(max(|x|^2, eps^2)): the square root is never taken of 0.
    let power = xs.sqr()?.sum_keepdim(D::Minus1)?;
    let floor = Tensor::full(eps * eps, power.shape(), xs.device())?.to_dtype(xs.dtype())?;
    let norm = power.gt(&floor)?.where_cond(&power, &floor)?.sqrt()?;
    Ok(xs.broadcast_div(&norm)?)
}
