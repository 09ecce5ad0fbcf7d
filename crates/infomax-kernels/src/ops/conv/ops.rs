//! The differentiable operation.

use super::gather::{Gather, Target, channels_per_tile, pack_weights};
use super::stage::Windows;
use super::wgrad::WeightGrad;
use crate::tensor::check;
use crate::tensor::check::ConvShape;
use crate::tensor::optional::{self, Argument, Optional};
use crate::tensor::path::Path;
use crate::tensor::storage::{contiguous, result, slice, tensor};
use crate::{Conv2dConfig, Result, device};
use candle_core::{CpuStorage, DType, Shape, Tensor};
use infomax_simd::{Float, Isa, Shared, filled};

/// Convolution of images `xs` `(N, C, H, W)` with `weight` `(K, C / groups, R, S)`: `(N, K, P, Q)`.
///
/// ```text
/// ys[n, k, p, q] = bias[k] + sum over (c, r, s) of
///     weight[k, c, r, s] * xs[n, c, p * stride + r * dilation - padding, q * stride + s * dilation - padding]
/// P = (H + 2 padding - dilation (R - 1) - 1) / stride + 1, rounded down
/// ```
///
/// A cross-correlation, like `torch.nn.functional.conv2d`. f32 and f64 on the CPU run the kernels of this
/// crate; other types and devices run [`crate::reference::conv2d`].
///
/// # Gradient
/// Of `xs`, `weight` and `bias`. `xs` gets none (and no time is spent) if nothing it was made of is a
/// variable.
///
/// # Numerics
/// Sums in the type of the input, in an order that depends on the shapes and the instruction set, never on
/// the number of threads.
///
/// # Errors
/// Shapes or types that do not fit; a batch without elements; a kernel larger than the padded image.
pub fn conv2d(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>, cfg: Conv2dConfig) -> Result<Tensor> {
    conv2d_isa(xs, weight, bias, cfg, Isa::detect())
}

/// [`conv2d`] with a chosen instruction set.
pub(crate) fn conv2d_isa(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    cfg: Conv2dConfig,
    isa: Isa,
) -> Result<Tensor> {
    let shape = check::conv(xs, weight, bias, cfg)?;
    let Path::Cpu(_) = Path::of(xs) else {
        return device::conv2d(xs, weight, bias, cfg);
    };
    if shape.groups == shape.c && shape.k == shape.c && shape.c > 1 {
        return super::depthwise::depthwise_first(xs, weight, bias, shape, isa);
    }
    let (xs, weight) = (contiguous(xs)?, contiguous(weight)?);
    let op = Conv { shape, isa };
    optional::apply(&xs, &weight, bias, op)
}

#[derive(Clone, Copy)]
struct Conv {
    shape: ConvShape,
    isa: Isa,
}

impl Conv {
    /// Pixels and taps where only the products of channels matter are one long row.
    fn flat(&self) -> bool {
        let d = &self.shape;
        d.r == 1 && d.s == 1 && d.stride == 1 && d.padding == 0
    }

    fn windows(&self) -> Windows {
        let d = &self.shape;
        if self.flat() {
            let pixels = d.h * d.w;
            return Windows { hs: 1, ws: pixels, po: 1, qo: pixels, step: 1, taps: vec![(0, 0)] };
        }
        let at = |tap: usize| (tap * d.dilation) as isize - d.padding as isize;
        let taps = (0..d.r).flat_map(|r| (0..d.s).map(move |s| (at(r), at(s)))).collect();
        Windows { hs: d.h, ws: d.w, po: d.p, qo: d.q, step: d.stride, taps }
    }

    fn forward<T: Float>(&self, xs: &[T], weight: &[T], bias: Option<&[T]>) -> Vec<T> {
        let d = &self.shape;
        let windows = self.windows();
        let (cg, kg, taps, pixels) = (d.c / d.groups, d.k / d.groups, d.r * d.s, d.p * d.q);
        let rows = channels_per_tile::<T>(self.isa);
        // SAFETY: the groups write all channels, each all of its pixels.
        unsafe {
            filled(d.n * d.k * pixels, |out: Shared<T>| {
                for g in 0..d.groups {
                    let own = &weight[g * kg * cg * taps..][..kg * cg * taps];
                    let weights = pack_weights(rows, kg, cg, taps, |k, c, t| own[(k * cg + c) * taps + t]);
                    let target = Target {
                        image: d.k * pixels,
                        plane: pixels,
                        width: windows.qo,
                        origin: (0, 0),
                        step: 1,
                        first: g * kg * pixels,
                    };
                    Gather {
                        windows: &windows,
                        target,
                        images: d.n,
                        source: xs,
                        source_image: d.c * d.h * d.w,
                        source_first: g * cg * d.h * d.w,
                        channels: cg,
                        outputs: kg,
                        weights: &weights,
                        bias: bias.map(|b| &b[g * kg..(g + 1) * kg]),
                    }
                    .run(self.isa, out);
                }
            })
        }
    }

    /// The gradient of the input: for each phase of the stride a convolution of `grad` with the taps that
    /// reach the pixels of this phase.
    fn input_grad<T: Float>(&self, weight: &[T], grad: &[T]) -> Vec<T> {
        let d = &self.shape;
        let (cg, kg, taps) = (d.c / d.groups, d.k / d.groups, d.r * d.s);
        let rows = channels_per_tile::<T>(self.isa);
        let (plane, pixels) = (d.h * d.w, d.p * d.q);
        // Pixels `first + stride * i` of a side, and the taps that reach them, each with the window that
        // does, relative to `i`.
        let phase = |first: usize, size: usize, len: usize| {
            let count = if first < size { (size - first).div_ceil(d.stride) } else { 0 };
            let reach: Vec<(usize, isize)> = (0..len)
                .filter_map(|tap| {
                    let from = (first + d.padding) as isize - (tap * d.dilation) as isize;
                    (from.rem_euclid(d.stride as isize) == 0)
                        .then(|| (tap, from.div_euclid(d.stride as isize)))
                })
                .collect();
            (count, reach)
        };
        let mut values = Vec::with_capacity(d.n * d.c * plane);
        let out: Shared<T> = Shared::new(values.as_mut_ptr());
        let mut covered = true;
        let mut passes = Vec::new();
        for i in 0..d.stride.min(d.h) {
            let (po, row_taps) = phase(i, d.h, d.r);
            for j in 0..d.stride.min(d.w) {
                let (qo, col_taps) = phase(j, d.w, d.s);
                if row_taps.is_empty() || col_taps.is_empty() {
                    covered = false;
                    continue;
                }
                let pairs: Vec<_> =
                    row_taps.iter().flat_map(|r| col_taps.iter().map(move |s| (*r, *s))).collect();
                passes.push(((i, j), (po, qo), pairs));
            }
        }
        if !covered {
            // Pixels that no window sees.
            // SAFETY: the capacity; zero bytes are 0.0.
            unsafe { out.get().write_bytes(0, d.n * d.c * plane) };
        }
        for (origin, (po, qo), pairs) in passes {
            let flat = self.flat();
            let windows = Windows {
                hs: if flat { 1 } else { d.p },
                ws: if flat { pixels } else { d.q },
                po: if flat { 1 } else { po },
                qo: if flat { pixels } else { qo },
                step: 1,
                taps: pairs.iter().map(|(r, s)| (r.1, s.1)).collect(),
            };
            for g in 0..d.groups {
                let own = &weight[g * kg * cg * taps..][..kg * cg * taps];
                let index: Vec<usize> = pairs.iter().map(|(r, s)| r.0 * d.s + s.0).collect();
                let weights =
                    pack_weights(rows, cg, kg, index.len(), |c, k, t| own[(k * cg + c) * taps + index[t]]);
                let target = Target {
                    image: d.c * plane,
                    plane,
                    width: if flat { plane } else { d.w },
                    origin,
                    step: d.stride,
                    first: g * cg * plane,
                };
                let pass = Gather {
                    windows: &windows,
                    target,
                    images: d.n,
                    source: grad,
                    source_image: d.k * pixels,
                    source_first: g * kg * pixels,
                    channels: kg,
                    outputs: cg,
                    weights: &weights,
                    bias: None,
                };
                // SAFETY: the phases and groups write disjoint pixels of the new buffer.
                unsafe { pass.run(self.isa, out) };
            }
        }
        // SAFETY: the phases cover every pixel, or zeros were written first.
        unsafe { values.set_len(d.n * d.c * plane) };
        values
    }

    fn weight_grad<T: Float>(&self, xs: &[T], grad: &[T]) -> Vec<T> {
        let d = &self.shape;
        let windows = self.windows();
        let (cg, kg) = (d.c / d.groups, d.k / d.groups);
        let mut all = Vec::with_capacity(if d.groups == 1 { 0 } else { d.k * cg * d.r * d.s });
        for g in 0..d.groups {
            let part = WeightGrad {
                windows: &windows,
                images: d.n,
                source: xs,
                source_image: d.c * d.h * d.w,
                source_first: g * cg * d.h * d.w,
                channels: cg,
                grad,
                grad_image: d.k * d.p * d.q,
                grad_first: g * kg * d.p * d.q,
                outputs: kg,
            }
            .run(self.isa);
            if d.groups == 1 {
                return part;
            }
            all.extend(part);
        }
        all
    }

    fn output(&self) -> Shape {
        Shape::from((self.shape.n, self.shape.k, self.shape.p, self.shape.q))
    }
}

impl Optional for Conv {
    const NAME: &'static str = "conv2d";

    fn run(
        &self,
        xs: Argument<'_>,
        weight: Argument<'_>,
        bias: Option<Argument<'_>>,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        fn typed<T: Float>(
            op: &Conv,
            xs: Argument<'_>,
            weight: Argument<'_>,
            bias: Option<Argument<'_>>,
        ) -> candle_core::Result<CpuStorage> {
            let bias = bias.map(|b| slice::<T>(b)).transpose()?;
            Ok(crate::tensor::storage::owned(op.forward(slice::<T>(xs)?, slice::<T>(weight)?, bias)))
        }
        let storage = match xs.0 {
            CpuStorage::F64(_) => typed::<f64>(self, xs, weight, bias)?,
            _ => typed::<f32>(self, xs, weight, bias)?,
        };
        Ok((storage, self.output()))
    }

    fn grads(
        &self,
        (xs, weight, bias): (&Tensor, &Tensor, Option<&Tensor>),
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 3]> {
        fn typed<T: Float>(
            op: &Conv,
            xs: &Tensor,
            weight: &Tensor,
            grad: &Tensor,
        ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
            let dx = if xs.track_op() {
                let dx = result(&[weight, grad], |v: &[&[T]]| op.input_grad(v[0], v[1]))?;
                Some(tensor(dx, xs.shape())?)
            } else {
                None
            };
            let dw = if weight.track_op() {
                let dw = result(&[xs, grad], |v: &[&[T]]| op.weight_grad(v[0], v[1]))?;
                Some(tensor(dw, weight.shape())?)
            } else {
                None
            };
            Ok((dx, dw))
        }
        let (dx, dw) = match xs.dtype() {
            DType::F64 => typed::<f64>(self, xs, weight, grad)?,
            _ => typed::<f32>(self, xs, weight, grad)?,
        };
        let db = bias.filter(|bias| bias.track_op()).map(|_| grad.sum((0, 2, 3))).transpose()?;
        Ok([dx, dw, db])
    }
}
