//! Operations on tensors that the kernels of this crate do not take: by the CUDA kernels of `infomax-cuda` where they
//! are built in and take the tensor (f32 and bf16 on a CUDA device), otherwise composed of Candle's own operations.
//!
//! Each function has the arguments and the meaning of the operation of its name; the arguments are checked.

// Without the feature every function is its composed form.
#![cfg_attr(not(feature = "cuda"), allow(clippy::needless_return))]

use crate::types::{Exclude, Score};
use crate::{
    Activation, AttentionConfig, BatchNormOutput, Conv2dConfig, Elementwise, Normalize, Pool2dConfig,
};
use crate::{Result, linalg, reference};
use candle_core::{DType, Device, Tensor};

#[cfg(feature = "cuda")]
use crate::tensor::path::Path;
#[cfg(feature = "cuda")]
use infomax_cuda::{Function, Images};

/// True if the CUDA kernels take this tensor.
#[cfg(feature = "cuda")]
fn cuda(xs: &Tensor) -> bool {
    crate::tensor::backward::collect_on_cuda();
    Path::of(xs) == Path::Cuda && infomax_cuda::supports(xs)
}

/// True for bf16 tensors that an operation of one argument takes as they are.
pub(crate) fn takes_half(xs: &Tensor) -> bool {
    #[cfg(feature = "cuda")]
    return xs.dtype() == DType::BF16 && cuda(xs);
    #[cfg(not(feature = "cuda"))]
    {
        let _ = xs;
        false
    }
}

pub(crate) fn conv2d(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    cfg: Conv2dConfig,
) -> Result<Tensor> {
    #[cfg(feature = "cudnn")]
    if cuda(xs) {
        return Ok(infomax_cuda::conv2d(xs, weight, bias, cfg, crate::settings::options())?);
    }
    reference::conv2d(xs, weight, bias, cfg)
}

/// With the channels last: the kernels take them first.
pub(crate) fn depthwise_conv2d_last(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    cfg: Conv2dConfig,
) -> Result<Tensor> {
    let ys = conv2d(&xs.permute((0, 3, 1, 2))?.contiguous()?, weight, bias, cfg)?;
    Ok(ys.permute((0, 2, 3, 1))?.contiguous()?)
}

pub(crate) fn conv_norm_train(
    xs: &Tensor,
    [weight, scale, shift]: [&Tensor; 3],
    residual: Option<&Tensor>,
    cfg: Conv2dConfig,
    eps: f64,
    act: Activation,
) -> Result<BatchNormOutput> {
    #[cfg(feature = "cudnn")]
    if cuda(xs) && weight.dtype() == DType::F32 {
        let (relu, options) = (act == Activation::Relu, crate::settings::options());
        return Ok(infomax_cuda::conv_norm_train(
            xs, weight, scale, shift, residual, cfg, eps, relu, options,
        )?);
    }
    reference::conv_norm_train(xs, [weight, scale, shift], residual, cfg, eps, act)
}

pub(crate) fn batch_norm_train(
    xs: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    eps: f64,
    act: Activation,
) -> Result<BatchNormOutput> {
    #[cfg(feature = "cuda")]
    if cuda(xs) {
        let relu = act == Activation::Relu;
        let first = Images::ChannelsFirst;
        return Ok(infomax_cuda::batch_norm_train(xs, weight, bias, residual, eps, relu, first)?);
    }
    reference::batch_norm_train(xs, weight, bias, residual, eps, act)
}

pub(crate) fn batch_norm_eval(
    xs: &Tensor,
    [mean, var]: [&Tensor; 2],
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    eps: f64,
    act: Activation,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda(xs) {
        let relu = act == Activation::Relu;
        let first = Images::ChannelsFirst;
        return Ok(infomax_cuda::batch_norm_eval(xs, mean, var, weight, bias, residual, eps, relu, first)?);
    }
    reference::batch_norm_eval(xs, &mean.detach(), &var.detach(), weight, bias, residual, eps, act)
}

pub(crate) fn layer_norm(
    xs: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda(xs) {
        return Ok(infomax_cuda::layer_norm(xs, weight, bias, eps)?);
    }
    reference::layer_norm(xs, weight, bias, eps)
}

pub(crate) fn rms_norm(xs: &Tensor, weight: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda(xs) {
        return Ok(infomax_cuda::rms_norm(xs, weight, eps)?);
    }
    reference::rms_norm(xs, weight, eps)
}

pub(crate) fn group_norm(
    xs: &Tensor,
    groups: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda(xs) {
        return Ok(infomax_cuda::group_norm(xs, groups, weight, bias, eps)?);
    }
    reference::group_norm(xs, groups, weight, bias, eps)
}

pub(crate) fn softmax(xs: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda(xs) {
        return Ok(infomax_cuda::softmax(xs)?);
    }
    reference::softmax(xs)
}

pub(crate) fn log_softmax(xs: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda(xs) {
        return Ok(infomax_cuda::log_softmax(xs)?);
    }
    reference::log_softmax(xs)
}

pub(crate) fn l2_normalize(xs: &Tensor, eps: f64) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda(xs) {
        return Ok(infomax_cuda::l2_normalize(xs, eps)?);
    }
    reference::l2_normalize(xs, eps)
}

pub(crate) fn elementwise(xs: &Tensor, function: Elementwise) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda(xs) {
        let function = match function {
            Elementwise::Identity => return Ok(xs.clone()),
            Elementwise::Relu => Function::Relu,
            Elementwise::Gelu => Function::Gelu,
            Elementwise::Silu => Function::Silu,
            Elementwise::Sigmoid => Function::Sigmoid,
            Elementwise::Tanh => Function::Tanh,
            Elementwise::Erf => Function::Erf,
            Elementwise::Exp => Function::Exp,
        };
        return Ok(infomax_cuda::elementwise(xs, function)?);
    }
    reference::elementwise(xs, function)
}

pub(crate) fn max_pool2d(xs: &Tensor, cfg: Pool2dConfig) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda(xs) {
        return Ok(infomax_cuda::max_pool2d(xs, cfg, Images::ChannelsFirst)?);
    }
    reference::max_pool2d(xs, cfg)
}

pub(crate) fn avg_pool2d(xs: &Tensor, cfg: Pool2dConfig) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda(xs) {
        return Ok(infomax_cuda::avg_pool2d(xs, cfg, Images::ChannelsFirst)?);
    }
    reference::avg_pool2d(xs, cfg)
}

pub(crate) fn global_avg_pool(xs: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda(xs) {
        return Ok(infomax_cuda::global_avg_pool(xs, Images::ChannelsFirst)?);
    }
    reference::global_avg_pool(xs)
}

/// The products are the device's own; the function is one pass.
pub(crate) fn linear_with(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    act: Elementwise,
) -> Result<Tensor> {
    elementwise(&reference::linear(xs, weight, bias)?, act)
}

/// The products are the device's own, and the matrix of weights is stored; its softmax is one pass.
pub(crate) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, cfg: AttentionConfig) -> Result<Tensor> {
    reference::attention_by(softmax, q, k, v, cfg)
}

/// The halves of a transformer layer are made of these.
const PARTS: reference::Parts = reference::Parts { layer_norm, linear_with, attention };

pub(crate) fn feed_forward(
    xs: &Tensor,
    p: &crate::FeedForward<'_>,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    reference::feed_forward_by(&PARTS, xs, p, residual)
}

pub(crate) fn self_attention(xs: &Tensor, p: &crate::SelfAttention<'_>) -> Result<Tensor> {
    reference::self_attention_by(&PARTS, xs, p)
}

pub(crate) fn row_log_sum_exp(x: &Tensor, score: Score, exclude: Exclude) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda(x) && x.dtype() == DType::F32 {
        return Ok(infomax_cuda::row_log_sum_exp(x, score, exclude)?);
    }
    reference::row_log_sum_exp(x, score, exclude)
}

/// True if the CUDA kernels that are for f32 alone take this tensor.
#[cfg(feature = "cuda")]
fn cuda_f32(xs: &Tensor) -> bool {
    cuda(xs) && xs.dtype() == DType::F32
}

/// How products of second moments are taken: as all others.
#[cfg(feature = "cuda")]
fn products() -> infomax_cuda::Products {
    match crate::CudaProducts::current().tf32 {
        true => infomax_cuda::Products::Tf32,
        false => infomax_cuda::Products::F32,
    }
}

pub(crate) fn squared_distances(x: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda_f32(x) {
        return Ok(infomax_cuda::squared_distances(x, products())?);
    }
    reference::squared_distances(x)
}

pub(crate) fn center(z: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda_f32(z) {
        return Ok(infomax_cuda::center(z)?);
    }
    reference::center(z)
}

/// `Z Z^T`, or `Z^T Z` of the columns.
pub(crate) fn symmetric(z: &Tensor, rows: bool) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda_f32(z) {
        return Ok(infomax_cuda::gram(z, rows, products())?);
    }
    if rows { reference::gram(z) } else { reference::second_moment(z) }
}

pub(crate) fn variance_covariance(z: &Tensor, gamma: f64, eps: f64, rows: bool) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda_f32(z) {
        return Ok(infomax_cuda::variance_covariance(z, gamma, eps, rows, products())?);
    }
    let _ = rows;
    reference::variance_covariance(z, gamma, eps)
}

pub(crate) fn characteristic_error(
    y: &Tensor,
    step: f64,
    targets: &[f64],
    weights: &[f64],
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda_f32(y) {
        return Ok(infomax_cuda::characteristic_error(y, step, targets, weights)?);
    }
    reference::characteristic_error(y, step, targets, weights)
}

pub(crate) fn cross_entropy(logits: &Tensor, labels: &[u32], label_smoothing: f64) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda_f32(logits) {
        return Ok(infomax_cuda::cross_entropy(logits, labels, label_smoothing)?);
    }
    reference::cross_entropy(logits, labels, label_smoothing)
}

pub(crate) fn cross_entropy_soft(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda_f32(logits) {
        return Ok(infomax_cuda::cross_entropy_soft(logits, targets)?);
    }
    reference::cross_entropy_soft(logits, targets)
}

pub(crate) fn squared_error(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if cuda_f32(a) && cuda_f32(b) {
        return Ok(infomax_cuda::squared_error(a, b)?);
    }
    reference::squared_error(a, b)
}

/// The Newton-Schulz iterations of Muon, where the device has a form of its own for them.
pub(crate) fn newton_schulz(g: &Tensor, steps: usize, coefficients: [f64; 3]) -> Result<Option<Tensor>> {
    #[cfg(feature = "cuda")]
    if cuda_f32(g) {
        return Ok(Some(infomax_cuda::newton_schulz(g, steps, coefficients, products())?));
    }
    let _ = (g, steps, coefficients);
    Ok(None)
}

/// The product of the smaller side on the device, in f64 where it has that (CUDA); its decomposition, and the inverse
/// for the gradient, on the host.
pub(crate) fn half_log_det_gram(z: &Tensor, s: f64, normalize: Normalize, rows: bool) -> Result<Tensor> {
    let wide = if matches!(z.device(), Device::Metal(_)) { z.clone() } else { z.to_dtype(DType::F64)? };
    let x = reference::normalized(&wide, normalize)?;
    let product = if rows { x.matmul(&x.t()?)? } else { x.t()?.matmul(&x)? };
    let eye = Tensor::eye(product.dim(0)?, x.dtype(), x.device())?;
    let half = (linalg::log_det_spd(&((product * s)? + eye)?)? * 0.5)?;
    Ok(half.to_dtype(z.dtype())?)
}
