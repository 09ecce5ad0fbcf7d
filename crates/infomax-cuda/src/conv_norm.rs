//! A convolution and its batch norm as one operation.

use crate::batch_norm::{Channels, Norm};
use crate::conv::Conv;
use crate::cudnn::Direction;
use crate::graph::{Parameters, node2, node3};
use crate::launch::{contiguous, tensor};
use crate::{BatchNormOutput, Conv2dConfig, Error, Options, Result};
use candle_core::{DType, Tensor};

/// [`conv2d`](crate::conv2d) without a bias, then [`batch_norm_train`](crate::batch_norm_train), as one node of the
/// graph: the same values and gradients, without Candle's passes over the gradient between them (it adds each to fresh
/// zeros), and without a node for the cast of a weight.
///
/// `weight` `(K, C / groups, R, S)`, `scale` and `shift` `(K)` are f32 or of the type of `xs`; for bf16 images an f32
/// weight is rounded here, and its gradient widened. `residual` has the shape and type of the result.
///
/// # Gradient, numerics
/// As the two operations. The convolution's result is kept for the backward pass.
///
/// # Errors
/// As the two operations.
pub fn conv_norm_train(
    xs: &Tensor,
    weight: &Tensor,
    scale: &Tensor,
    shift: &Tensor,
    residual: Option<&Tensor>,
    cfg: Conv2dConfig,
    eps: f64,
    relu: bool,
    options: Options,
) -> Result<BatchNormOutput> {
    const OP: &str = "conv_norm_train";
    let conv = Conv::new(xs, weight, cfg, options)?;
    let (xs, weight) = (contiguous(xs)?, weight.to_dtype(DType::F32)?);
    let residual = residual.map(contiguous).transpose()?;
    let stored = conv.store(&weight.detach().to_dtype(xs.dtype())?)?;
    let out = conv.out();
    let inner = tensor(conv.run(Direction::Forward, &xs, &stored)?, &out[..]);
    let shape = Channels::of(OP, &inner, residual.as_ref(), eps, options.images)?;
    let [mean, var, root] = shape.moments(&conv.device, &inner, eps)?;
    let (device, count) = (conv.device.clone(), shape.count());
    let norm =
        Norm { op: OP, shape, device: device.clone(), mean: mean.clone(), scale: root, relu, train: true };
    let (Some(scale), Some(shift)) =
        (shape.column(OP, "scale", Some(scale))?, shape.column(OP, "shift", Some(shift))?)
    else {
        return Err(Error::Device { op: OP, name: "scale" });
    };
    let parameters = Parameters::new(&[&weight, &scale, &shift], &device)?;
    let ys = norm.forward(&inner, Some(&scale), Some(&shift), residual.as_ref())?;
    let (token, scale) = (parameters.token.clone(), scale.detach());
    let back =
        move |x: &Tensor, y: &Tensor, g: &Tensor, r: bool| -> candle_core::Result<[Option<Tensor>; 3]> {
            let grads = norm.backward(&inner, y, g, Some(&scale), true, r)?;
            let Some(between) = grads.input else { return Ok([None, None, grads.residual]) };
            let mut dx = None;
            if x.track_op() {
                dx = Some(tensor(conv.run(Direction::Input, &stored, &between)?, x.shape()));
            }
            let mut dtoken = None;
            if parameters.token.track_op() {
                let dw = conv.load(conv.run(Direction::Weight, x, &between)?)?.to_dtype(DType::F32)?;
                dtoken = parameters.give(vec![dw, grads.weight, grads.bias])?;
            }
            Ok([dx, dtoken, grads.residual])
        };
    let ys = match residual {
        None => node2(OP, [&xs, &token], ys, &out[..], move |[x, _], y, g| {
            let [dx, dtoken, _] = back(x, y, g, false)?;
            Ok([dx, dtoken])
        })?,
        Some(residual) => node3(OP, [&xs, &token, &residual], ys, &out[..], move |[x, _, r], y, g| {
            back(x, y, g, r.track_op())
        })?,
    };
    Ok(BatchNormOutput { ys, mean, var, count })
}
