//! Convolution by cuDNN: forward, and the gradients of the input and of the weight.

use crate::cudnn::{Direction, Handle, Key, Plan, addresses};
use crate::graph::node2;
use crate::launch::{Arg, contiguous, count32, device, empty, suffix, tensor, with_values};
use crate::types::ConvShape;
use crate::{Conv2dConfig, Error, Images, Options, Result};
use candle_core::{CudaDevice, CudaStorage, DType, Tensor};

/// Convolution of images `xs` with `weight` `(K, C / groups, R, S)`, f32 or bf16 (with sums in f32).
///
/// ```text
/// ys[n, k, p, q] = bias[k] + sum over (c, r, s) of
///     weight[k, c, r, s] * xs[n, c, p * stride + r * dilation - padding, q * stride + s * dilation - padding]
/// P = (H + 2 padding - dilation (R - 1) - 1) / stride + 1, rounded down
/// ```
///
/// A cross-correlation, like `torch.nn.functional.conv2d`. `xs` is `(N, C, H, W)` and the result `(N, K, P, Q)`, or
/// with [`Images::ChannelsLast`] `(N, H, W, C)` and `(N, P, Q, K)`.
///
/// # Gradient
/// Of `xs`, `weight` and `bias`, by cuDNN too. `xs` gets none (and no time is spent) if nothing it was made of is a
/// variable.
///
/// # Numerics
/// f32 sums; f32 factors are rounded to TF32 with [`Math::Tf32`](crate::Math::Tf32). [`Search::Deterministic`](crate::Search::Deterministic) gives the same bits in
/// every run on the same card with the same cuDNN.
///
/// # Errors
/// Shapes or types that do not fit; a tensor that is not on a CUDA device; a convolution without an algorithm.
pub fn conv2d(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    cfg: Conv2dConfig,
    options: Options,
) -> Result<Tensor> {
    const OP: &str = "conv2d";
    let images = options.images;
    let conv = Conv::new(xs, weight, cfg, options)?;
    let shape = conv.key.shape;
    if weight.dtype() != xs.dtype() {
        let expected = "the type of xs";
        return Err(Error::DType { op: OP, name: "weight", got: weight.dtype(), expected });
    }
    if let Some(bias) = bias
        && bias.dims() != [shape.k]
    {
        let expected = format!("({})", shape.k);
        return Err(Error::Shape { op: OP, name: "bias", expected, got: bias.dims().to_vec() });
    }
    let xs = contiguous(xs)?;
    let stored = conv.store(&weight.detach())?;
    let ys = conv.run(Direction::Forward, &xs, &stored)?;
    let out = conv.out();
    let ys = node2(OP, [&xs, weight], ys, &out[..], move |[x, w], _, g| {
        let mut dx = None;
        if x.track_op() {
            dx = Some(tensor(conv.run(Direction::Input, &stored, g)?, x.shape()));
        }
        let mut dw = None;
        if w.track_op() {
            dw = Some(conv.load(conv.run(Direction::Weight, x, g)?)?);
        }
        Ok([dx, dw])
    })?;
    match bias {
        None => Ok(ys),
        Some(bias) => {
            let bias = bias.to_dtype(ys.dtype())?;
            Ok(ys.broadcast_add(&bias.reshape(&images.shape([1, shape.k, 1, 1])[..])?)?)
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Conv {
    pub(crate) device: CudaDevice,
    key: Key,
}

impl Conv {
    /// The convolution of these images with this weight, whose type does not matter here.
    pub(crate) fn new(xs: &Tensor, weight: &Tensor, cfg: Conv2dConfig, options: Options) -> Result<Self> {
        const OP: &str = "conv2d";
        suffix(OP, xs)?;
        let device = device(OP, "xs", xs)?;
        let sizes = options.images.sizes(OP, xs)?;
        let shape = ConvShape::new(sizes, Images::ChannelsFirst.sizes(OP, weight)?, cfg)?;
        count32(OP, "xs", xs.elem_count())?;
        count32(OP, "xs", shape.n * shape.k * shape.p * shape.q)?;
        Ok(Self { device, key: Key { shape, bf16: xs.dtype() == DType::BF16, options } })
    }

    /// The shape of the result.
    pub(crate) fn out(&self) -> [usize; 4] {
        let ConvShape { n, k, p, q, .. } = self.key.shape;
        self.key.options.images.shape([n, k, p, q])
    }

    /// The weight in the order that cuDNN reads: `(K, R, S, C / groups)` for channels last.
    pub(crate) fn store(&self, weight: &Tensor) -> candle_core::Result<Tensor> {
        match self.key.options.images {
            Images::ChannelsFirst => weight.contiguous(),
            Images::ChannelsLast => weight.permute((0, 2, 3, 1))?.contiguous(),
        }
    }

    /// Its gradient as `(K, C / groups, R, S)`.
    pub(crate) fn load(&self, storage: CudaStorage) -> candle_core::Result<Tensor> {
        let ConvShape { k, c, r, s, cfg, .. } = self.key.shape;
        match self.key.options.images {
            Images::ChannelsFirst => Ok(tensor(storage, (k, c / cfg.groups, r, s))),
            Images::ChannelsLast => {
                tensor(storage, (k, r, s, c / cfg.groups)).permute((0, 3, 1, 2))?.contiguous()
            }
        }
    }

    /// Runs one direction on its two inputs.
    pub(crate) fn run(
        &self,
        direction: Direction,
        a: &Tensor,
        b: &Tensor,
    ) -> candle_core::Result<CudaStorage> {
        let ConvShape { n, c, h, w, k, r, s, p, q, cfg } = self.key.shape;
        let len = match direction {
            Direction::Forward => n * k * p * q,
            Direction::Input => n * c * h * w,
            Direction::Weight => k * (c / cfg.groups) * r * s,
        };
        let mut out = empty(&self.device, a.dtype(), len)?;
        let handle = Handle::of(&self.device)?;
        let plan = Plan::of(&self.device, &handle, direction, self.key, [a, b], &mut out)?;
        // An algorithm may turn out not to take the shape: then the next one is tried, and kept.
        let mut last = None;
        while let Some(choice) = plan.choices.get(plan.at.get()) {
            let mut space = empty(&self.device, DType::U8, choice.space)?;
            let args = vec![Arg::Read(a), Arg::Read(b), Arg::Write(&mut out), Arg::Write(&mut space)];
            let done =
                with_values(&self.device, args, |values| Ok(plan.run(&handle, *choice, &addresses(values))))?;
            match done {
                Ok(()) => return Ok(out),
                Err(error) => last = Some(error),
            }
            plan.at.set(plan.at.get() + 1);
        }
        plan.at.set(0);
        Err(match last {
            Some(error) => candle_core::Error::wrap(error).context(format!("conv2d, {direction:?}")),
            None => {
                let what = format!("{direction:?} of {:?}", self.key);
                Error::NoAlgorithm { op: "conv2d", what }.into()
            }
        })
    }
}
