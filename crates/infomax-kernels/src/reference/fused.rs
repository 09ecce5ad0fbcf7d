//! Attention, functions of one element, and the blocks of transformers.

use super::{layer_norm, linear, log_softmax, relu, silu, softmax};
use crate::tensor::check;
use crate::tensor::check::check_attention;
use crate::{AttentionConfig, Conv2dConfig, Elementwise, Result};
use candle_core::Tensor;

/// See [`crate::elementwise`].
///
/// # Errors
/// As [`crate::elementwise`].
pub fn elementwise(xs: &Tensor, function: Elementwise) -> Result<Tensor> {
    check::not_empty("elementwise", "xs", xs)?;
    Ok(match function {
        Elementwise::Identity => xs.clone(),
        Elementwise::Relu => relu(xs)?,
        Elementwise::Gelu => super::gelu(xs)?,
        Elementwise::Silu => silu(xs)?,
        Elementwise::Sigmoid => (xs.neg()?.exp()? + 1.0)?.recip()?,
        Elementwise::Tanh => xs.tanh()?,
        Elementwise::Erf => xs.erf()?,
        Elementwise::Exp => xs.exp()?,
    })
}

/// See [`crate::linear_with`].
///
/// # Errors
/// As [`crate::linear_with`].
pub fn linear_with(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>, act: Elementwise) -> Result<Tensor> {
    elementwise(&linear(xs, weight, bias)?, act)
}

/// See [`crate::cross_entropy_soft`].
///
/// # Errors
/// As [`crate::cross_entropy_soft`].
pub fn cross_entropy_soft(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    const OP: &str = "cross_entropy_soft";
    let (n, _) = check::dims2(OP, "logits", logits)?;
    check::not_empty(OP, "logits", logits)?;
    check::same_shape(OP, logits, "targets", Some(targets))?;
    Ok(((log_softmax(logits)? * targets)?.sum_all()? * (-1.0 / n as f64))?)
}

/// See [`crate::attention`].
///
/// # Errors
/// As [`crate::attention`].
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, cfg: AttentionConfig) -> Result<Tensor> {
    attention_by(softmax, q, k, v, cfg)
}

/// [`attention`] with a softmax.
pub(crate) fn attention_by(
    softmax: impl Fn(&Tensor) -> Result<Tensor>,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    cfg: AttentionConfig,
) -> Result<Tensor> {
    let s = check_attention(q, k, v, cfg)?;
    let mut products = (q.contiguous()?.matmul(&k.contiguous()?.t()?)? * s.scale)?;
    if s.causal {
        let hidden: Vec<u8> = (0..s.n * s.m).map(|i| u8::from(i % s.m > i / s.m)).collect();
        let hidden = Tensor::from_vec(hidden, (s.n, s.m), q.device())?.broadcast_as(products.shape())?;
        let never = Tensor::full(f64::NEG_INFINITY, products.shape(), q.device())?.to_dtype(q.dtype())?;
        products = hidden.where_cond(&never, &products)?;
    }
    Ok(softmax(&products)?.matmul(&v.contiguous()?)?)
}

/// See [`crate::feed_forward`].
///
/// # Errors
/// As [`crate::feed_forward`].
pub fn feed_forward(xs: &Tensor, p: &crate::FeedForward<'_>, residual: Option<&Tensor>) -> Result<Tensor> {
    feed_forward_by(&PARTS, xs, p, residual)
}

/// What the halves of a transformer layer are made of.
#[derive(Clone, Copy)]
pub(crate) struct Parts {
    pub(crate) layer_norm: fn(&Tensor, Option<&Tensor>, Option<&Tensor>, f64) -> Result<Tensor>,
    pub(crate) linear_with: fn(&Tensor, &Tensor, Option<&Tensor>, Elementwise) -> Result<Tensor>,
    pub(crate) attention: fn(&Tensor, &Tensor, &Tensor, AttentionConfig) -> Result<Tensor>,
}

const PARTS: Parts = Parts { layer_norm, linear_with, attention };

/// [`feed_forward`] of such parts.
pub(crate) fn feed_forward_by(
    parts: &Parts,
    xs: &Tensor,
    p: &crate::FeedForward<'_>,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    crate::ops::transformer::check_feed_forward(xs, p, residual)?;
    let ys = (parts.layer_norm)(xs, Some(p.norm_weight), Some(p.norm_bias), p.eps)?;
    let ys = (parts.linear_with)(&ys, p.in_weight, Some(p.in_bias), p.act)?;
    let ys = (parts.linear_with)(&ys, p.out_weight, Some(p.out_bias), Elementwise::Identity)?;
    add_scaled(&ys, p.scale, residual.unwrap_or(xs))
}

/// See [`crate::self_attention`].
///
/// # Errors
/// As [`crate::self_attention`].
pub fn self_attention(xs: &Tensor, p: &crate::SelfAttention<'_>) -> Result<Tensor> {
    self_attention_by(&PARTS, xs, p)
}

/// [`self_attention`] of such parts.
pub(crate) fn self_attention_by(parts: &Parts, xs: &Tensor, p: &crate::SelfAttention<'_>) -> Result<Tensor> {
    let (b, n, d) = crate::ops::transformer::check_self_attention(xs, p)?;
    let ys = (parts.layer_norm)(xs, Some(p.norm_weight), Some(p.norm_bias), p.eps)?;
    let qkv = (parts.linear_with)(&ys, p.qkv_weight, Some(p.qkv_bias), Elementwise::Identity)?;
    let qkv = qkv.reshape((b, n, 3, p.heads, d / p.heads))?.permute((2, 0, 3, 1, 4))?;
    let part = |i: usize| qkv.narrow(0, i, 1)?.squeeze(0);
    let ys = (parts.attention)(&part(0)?, &part(1)?, &part(2)?, AttentionConfig::default())?;
    let ys = ys.transpose(1, 2)?.reshape((b, n, d))?;
    let ys = (parts.linear_with)(&ys, p.out_weight, Some(p.out_bias), Elementwise::Identity)?;
    add_scaled(&ys, p.scale, xs)
}

fn add_scaled(ys: &Tensor, scale: Option<&Tensor>, residual: &Tensor) -> Result<Tensor> {
    let ys = match scale {
        Some(scale) => ys.broadcast_mul(scale)?,
        None => ys.clone(),
    };
    Ok((ys + residual)?)
}

/// See [`crate::depthwise_conv2d_last`].
///
/// # Errors
/// As [`crate::depthwise_conv2d_last`].
pub fn depthwise_conv2d_last(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    cfg: Conv2dConfig,
) -> Result<Tensor> {
    crate::ops::conv::depthwise::check_last(xs, weight, bias, cfg)?;
    let ys = super::conv2d(&xs.permute((0, 3, 1, 2))?.contiguous()?, weight, bias, cfg)?;
    Ok(ys.permute((0, 2, 3, 1))?.contiguous()?)
}
