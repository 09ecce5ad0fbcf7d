//! Depthwise convolution: one kernel for each channel, vectorized over channels.
//!
//! A task takes one image and as many channels as a vector has lanes, and copies them into a padded buffer
//! with the channels innermost. There every tap is one multiplication of whole vectors, whatever the stride,
//! the dilation and the width of the image. Both layouts of images, channels first and channels last, differ
//! in this copy only.

use crate::tensor::check;
use crate::tensor::check::ConvShape;
use crate::tensor::half::{half, wide, wide_option};
use crate::tensor::optional::{self, Argument, Optional};
use crate::tensor::path::Path;
use crate::tensor::storage::{contiguous, result, slice, tensor};
use crate::{Conv2dConfig, Error, Result, device};
use candle_core::{CpuStorage, DType, Shape, Tensor};
use infomax_simd::{Float, Isa, Kernel, Shared, Simd, filled, grow};
use infomax_simd::{Real, add_rows};
use rayon::prelude::*;

/// Depthwise convolution with channels last: `xs` `(N, H, W, C)`, `weight` `(C, 1, R, S)`, `bias` `(C)`, and
/// `cfg.groups = C`; the result is `(N, P, Q, C)`.
///
/// Otherwise as [`conv2d`](crate::conv2d), which takes the same fast path for channels first. Networks that
/// alternate it with maps of the channels (ConvNeXt, arXiv:2201.03545) need no transposition this way.
///
/// # Gradient
/// Of `xs`, `weight` and `bias`. `xs` gets none (and no time is spent) if nothing it was made of is a variable.
///
/// # Numerics
/// Sums in the type of the input over the taps; the gradients of weight and bias are added in f64 over images,
/// in order. The same bits for any number of threads. bf16 and f16 are computed in f32.
///
/// # Errors
/// Shapes or types that do not fit; other groups than channels; a batch without elements; a kernel larger than
/// the padded image.
pub fn depthwise_conv2d_last(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    cfg: Conv2dConfig,
) -> Result<Tensor> {
    depthwise_conv2d_last_isa(xs, weight, bias, cfg, Isa::detect())
}

pub(crate) fn depthwise_conv2d_last_isa(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    cfg: Conv2dConfig,
    isa: Isa,
) -> Result<Tensor> {
    if half(xs) {
        let bias = wide_option(bias)?;
        let ys = depthwise_conv2d_last_isa(&wide(xs)?, &wide(weight)?, bias.as_ref(), cfg, isa)?;
        return Ok(ys.to_dtype(xs.dtype())?);
    }
    let shape = check_last(xs, weight, bias, cfg)?;
    let Path::Cpu(_) = Path::of(xs) else {
        return device::depthwise_conv2d_last(xs, weight, bias, cfg);
    };
    apply(xs, weight, bias, Depthwise { shape, last: true, isa })
}

/// [`crate::conv2d`] with one kernel for each channel.
pub(super) fn depthwise_first(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    shape: ConvShape,
    isa: Isa,
) -> Result<Tensor> {
    apply(xs, weight, bias, Depthwise { shape, last: false, isa })
}

pub(crate) fn check_last(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    cfg: Conv2dConfig,
) -> Result<ConvShape> {
    const OP: &str = "depthwise_conv2d_last";
    let (_, _, _, c) = check::dims4(OP, "xs", xs)?;
    let (k, ..) = check::dims4(OP, "weight", weight)?;
    if cfg.groups != c || k != c {
        let reason = "must be the number of channels of xs and of kernels in weight";
        return Err(Error::Config { op: OP, name: "groups", value: cfg.groups.to_string(), reason });
    }
    check::conv(&xs.permute((0, 3, 1, 2))?, weight, bias, cfg)
}

fn apply(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>, op: Depthwise) -> Result<Tensor> {
    let (xs, weight) = (contiguous(xs)?, contiguous(weight)?);
    optional::apply(&xs, &weight, bias, op)
}

#[derive(Clone, Copy)]
struct Depthwise {
    shape: ConvShape,
    /// Channels are the last dimension.
    last: bool,
    isa: Isa,
}

/// Where the elements of some channels of one image lie.
#[derive(Clone, Copy)]
struct Plane {
    first: usize,
    pixel: usize,
    channel: usize,
    channels: usize,
    h: usize,
    w: usize,
}

/// One side of the padded buffer: its index `i` holds pixel `(i - offset) / step`, where that is a pixel.
#[derive(Clone, Copy)]
struct Side {
    size: usize,
    offset: isize,
    step: usize,
}

impl Side {
    /// The pixels of a side of `len` that have a place, as `(index, pixel)`.
    #[inline(always)]
    fn places(self, len: usize) -> impl Iterator<Item = (usize, usize)> {
        (0..len).filter_map(move |i| {
            let at = self.offset + (i * self.step) as isize;
            (at >= 0 && (at as usize) < self.size).then_some((at as usize, i))
        })
    }

    /// For a step of 1: the first pixel of a side of `len` that has a place, and their number.
    #[inline(always)]
    fn first(self, len: usize) -> (usize, usize) {
        let skip = self.offset.min(0).unsigned_abs().min(len);
        let end = (self.size as isize - self.offset).clamp(skip as isize, len as isize) as usize;
        (skip, end - skip)
    }
}

/// Copies the channels of a plane into `buffer`, `LANES` for each pixel, the rest zero.
///
/// # Safety
/// The instruction set of `S` must be present.
#[inline(always)]
unsafe fn stage<S: Simd>(buffer: &mut [S::T], source: &[S::T], plane: Plane, rows: Side, cols: Side) {
    let lanes = S::LANES;
    buffer.fill(S::T::default());
    for (y, i) in rows.places(plane.h) {
        let row = &mut buffer[y * cols.size * lanes..][..cols.size * lanes];
        if plane.channel == 1 {
            let from = &source[plane.first + i * plane.w * plane.pixel..];
            for (x, j) in cols.places(plane.w) {
                let from = &from[j * plane.pixel..][..plane.channels];
                let to = &mut row[x * lanes..][..lanes];
                if plane.channels == lanes {
                    // SAFETY: both slices have the length of a vector. A copy of a length that is not known
                    // before would be a call for each pixel.
                    unsafe { S::store(to.as_mut_ptr(), S::load(from.as_ptr())) };
                } else {
                    to[..plane.channels].copy_from_slice(from);
                }
            }
        } else {
            // Squares of channels and pixels, where all channels are there and neighbors stay neighbors.
            let (skip, room) = cols.first(plane.w);
            if plane.channels == lanes && cols.step == 1 && room >= lanes {
                for j in (0..room).step_by(lanes) {
                    // The last square overlaps the one before it.
                    let j = skip + j.min(room - lanes);
                    let from =
                        &source[plane.first + i * plane.w + j..][..(lanes - 1) * plane.channel + lanes];
                    let x = (cols.offset + j as isize) as usize;
                    let to = &mut row[x * lanes..][..lanes * lanes];
                    // SAFETY: both slices hold their squares.
                    unsafe { S::transpose(from.as_ptr(), plane.channel, to.as_mut_ptr(), lanes) };
                }
                continue;
            }
            for l in 0..plane.channels {
                let from = &source[plane.first + l * plane.channel + i * plane.w..][..plane.w];
                for (x, j) in cols.places(plane.w) {
                    row[x * lanes + l] = from[j];
                }
            }
        }
    }
}

/// Weights of some channels with the channels innermost, flipped on both sides for the gradient.
#[inline(always)]
fn pack<T: Float>(out: &mut [T], lanes: usize, weight: &[T], channels: usize, taps: usize, flip: bool) {
    out.fill(T::default());
    for c in 0..channels {
        for t in 0..taps {
            let from = if flip { taps - 1 - t } else { t };
            out[t * lanes + c] = weight[c * taps + from];
        }
    }
}

/// One image and one block of channels: `out = windows of source times weight`.
struct Slide<'a, T> {
    source: &'a [T],
    from: Plane,
    rows: Side,
    cols: Side,
    /// The weights of these channels, `(channels, R S)`.
    weight: &'a [T],
    bias: Option<&'a [T]>,
    flip: bool,
    taps: (usize, usize),
    stride: usize,
    dilation: usize,
    to: Plane,
    out: *mut T,
    buffer: &'a mut Vec<T>,
    packed: &'a mut Vec<T>,
    line: &'a mut Vec<T>,
}

impl<T: Float> Kernel<T> for Slide<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        let (r, s) = self.taps;
        let lanes = S::LANES;
        let width = self.cols.size;
        let buffer = &mut grow(self.buffer, self.rows.size * width * lanes)[..self.rows.size * width * lanes];
        // SAFETY: the instruction set is present.
        unsafe { stage::<S>(buffer, self.source, self.from, self.rows, self.cols) };
        let packed = &mut grow(self.packed, (r * s + 1) * lanes)[..(r * s + 1) * lanes];
        pack(packed, lanes, self.weight, self.from.channels, r * s, self.flip);
        let start = &mut packed[r * s * lanes..];
        start.fill(T::default());
        if let Some(bias) = self.bias {
            start[..bias.len()].copy_from_slice(bias);
        }
        let to = self.to;
        let line = &mut grow(self.line, to.w * lanes)[..to.w * lanes];
        assert!((to.h - 1) * self.stride + (r - 1) * self.dilation < self.rows.size);
        assert!((to.w - 1) * self.stride + (s - 1) * self.dilation < width);
        for p in 0..to.h {
            let mut q = 0;
            while q < to.w {
                // SAFETY: the windows of these pixels are within the buffer, by the assertions above, and the
                // weights and the line hold whole vectors.
                unsafe {
                    let base = buffer.as_ptr().add((p * self.stride * width + q * self.stride) * lanes);
                    let geometry = (r, s, width, self.stride, self.dilation);
                    let line = line.as_mut_ptr().add(q * lanes);
                    q += match to.w - q {
                        8.. => tile::<S, 8>(base, packed.as_ptr(), geometry, line),
                        6..8 => tile::<S, 6>(base, packed.as_ptr(), geometry, line),
                        4..6 => tile::<S, 4>(base, packed.as_ptr(), geometry, line),
                        2..4 => tile::<S, 2>(base, packed.as_ptr(), geometry, line),
                        _ => tile::<S, 1>(base, packed.as_ptr(), geometry, line),
                    };
                }
            }
            let row = to.first + p * to.w * to.pixel;
            let squares = if to.pixel == 1 && to.channels == lanes && to.w >= lanes { to.w } else { 0 };
            for q in (0..squares).step_by(lanes).map(|q| q.min(to.w - lanes)) {
                // SAFETY: pixels of this task in the planes of its channels, and whole vectors in the line; the
                // last square writes some of them a second time.
                unsafe {
                    S::transpose(line.as_ptr().add(q * lanes), lanes, self.out.add(row + q), to.channel);
                }
            }
            for (q, values) in line.chunks_exact(lanes).enumerate().skip(squares) {
                // SAFETY: elements of this task in the output; a whole vector where its channels lie together.
                unsafe {
                    let out = self.out.add(row + q * to.pixel);
                    if to.channel == 1 && to.channels == lanes {
                        S::store(out, S::load(values.as_ptr()));
                    } else {
                        for (l, value) in values[..to.channels].iter().enumerate() {
                            *out.add(l * to.channel) = *value;
                        }
                    }
                }
            }
        }
    }
}

/// `N` pixels side by side, and their number: the accumulators stay in registers over all taps.
#[inline(always)]
unsafe fn tile<S: Simd, const N: usize>(
    base: *const S::T,
    packed: *const S::T,
    (r, s, width, stride, dilation): (usize, usize, usize, usize, usize),
    out: *mut S::T,
) -> usize {
    // SAFETY: by the caller.
    unsafe {
        let mut sums = [S::load(packed.add(r * s * S::LANES)); N];
        let step = stride * S::LANES;
        let mut weight = packed;
        for i in 0..r {
            let mut at = base.add(i * dilation * width * S::LANES);
            for _ in 0..s {
                let w = S::load(weight);
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = S::fma(w, S::load(at.add(n * step)), *sum);
                }
                weight = weight.add(S::LANES);
                at = at.add(dilation * S::LANES);
            }
        }
        for (n, sum) in sums.iter().enumerate() {
            S::store(out.add(n * S::LANES), *sum);
        }
    }
    N
}

/// The gradients of weight and bias of one block of channels over some images.
struct Collect<'a, T> {
    source: &'a [T],
    from: Vec<Plane>,
    rows: Side,
    cols: Side,
    grad: &'a [T],
    to: Vec<Plane>,
    taps: (usize, usize),
    stride: usize,
    dilation: usize,
    buffer: &'a mut Vec<T>,
    grads: &'a mut Vec<T>,
    sums: &'a mut Vec<T>,
    /// `(channels, R S + 1)`: the taps, then the bias.
    out: &'a mut [T],
}

impl<T: Float> Kernel<T> for Collect<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        let (r, s) = self.taps;
        let (lanes, width) = (S::LANES, self.cols.size);
        let sums = &mut grow(self.sums, (r * s + 1) * lanes)[..(r * s + 1) * lanes];
        sums.fill(T::default());
        for (from, to) in self.from.iter().zip(&self.to) {
            let size = self.rows.size * width * lanes;
            let buffer = &mut grow(self.buffer, size)[..size];
            // SAFETY: the instruction set is present.
            unsafe { stage::<S>(buffer, self.source, *from, self.rows, self.cols) };
            let grads = &mut grow(self.grads, to.h * to.w * lanes)[..to.h * to.w * lanes];
            let whole = |size| Side { size, offset: 0, step: 1 };
            // SAFETY: the instruction set is present.
            unsafe { stage::<S>(grads, self.grad, *to, whole(to.h), whole(to.w)) };
            assert!((to.h - 1) * self.stride + (r - 1) * self.dilation < self.rows.size);
            assert!((to.w - 1) * self.stride + (s - 1) * self.dilation < width);
            for i in 0..r {
                let mut j = 0;
                while j < s {
                    let n = (s - j).min(8);
                    // SAFETY: all windows are within the buffer, by the assertions above.
                    unsafe {
                        let base = buffer.as_ptr().add((i * width + j) * self.dilation * lanes);
                        let geometry = (to.h, to.w, width, self.stride, self.dilation);
                        let out = sums.as_mut_ptr().add((i * s + j) * lanes);
                        let bias = (i == 0 && j == 0).then(|| out.add((r * s) * lanes));
                        match n {
                            8 => taps::<S, 8>(base, grads.as_ptr(), geometry, out, bias),
                            7 => taps::<S, 7>(base, grads.as_ptr(), geometry, out, bias),
                            6 => taps::<S, 6>(base, grads.as_ptr(), geometry, out, bias),
                            5 => taps::<S, 5>(base, grads.as_ptr(), geometry, out, bias),
                            4 => taps::<S, 4>(base, grads.as_ptr(), geometry, out, bias),
                            3 => taps::<S, 3>(base, grads.as_ptr(), geometry, out, bias),
                            2 => taps::<S, 2>(base, grads.as_ptr(), geometry, out, bias),
                            _ => taps::<S, 1>(base, grads.as_ptr(), geometry, out, bias),
                        }
                    }
                    j += n;
                }
            }
        }
        let width = r * s + 1;
        for (c, out) in self.out.chunks_exact_mut(width).enumerate() {
            for (t, o) in out.iter_mut().enumerate() {
                *o = sums[t * lanes + c];
            }
        }
    }
}

/// `N` taps side by side, over all pixels of an image.
#[inline(always)]
unsafe fn taps<S: Simd, const N: usize>(
    base: *const S::T,
    grad: *const S::T,
    (h, w, width, stride, dilation): (usize, usize, usize, usize, usize),
    out: *mut S::T,
    bias: Option<*mut S::T>,
) {
    // SAFETY: by the caller.
    unsafe {
        let mut sums = [S::splat(S::T::default()); N];
        let mut total = S::splat(S::T::default());
        let step = dilation * S::LANES;
        let mut grad = grad;
        for p in 0..h {
            let mut at = base.add(p * stride * width * S::LANES);
            for _ in 0..w {
                let g = S::load(grad);
                for (n, sum) in sums.iter_mut().enumerate() {
                    *sum = S::fma(g, S::load(at.add(n * step)), *sum);
                }
                total = S::add(total, g);
                grad = grad.add(S::LANES);
                at = at.add(stride * S::LANES);
            }
        }
        for (n, sum) in sums.iter().enumerate() {
            let to = out.add(n * S::LANES);
            S::store(to, S::add(S::load(to), *sum));
        }
        if let Some(bias) = bias {
            S::store(bias, S::add(S::load(bias), total));
        }
    }
}

impl Depthwise {
    fn plane(&self, n: usize, first: usize, lanes: usize, (h, w): (usize, usize)) -> Plane {
        let c = self.shape.c;
        let channels = lanes.min(c - first);
        let (pixel, channel) = if self.last { (c, 1) } else { (1, h * w) };
        Plane { first: n * c * h * w + first * channel, pixel, channel, channels, h, w }
    }

    /// The padded sides for the windows of the forward pass.
    fn sides(&self) -> (Side, Side) {
        let d = &self.shape;
        let side = |out: usize, taps: usize| Side {
            size: (out - 1) * d.stride + (taps - 1) * d.dilation + 1,
            offset: d.padding as isize,
            step: 1,
        };
        (side(d.p, d.r), side(d.q, d.s))
    }

    /// Runs `Slide` for each image and block of channels.
    fn slide<T: Real>(
        &self,
        source: &[T],
        weight: &[T],
        bias: Option<&[T]>,
        (rows, cols): (Side, Side),
        (from, to): ((usize, usize), (usize, usize)),
        (stride, flip): (usize, bool),
    ) -> Vec<T> {
        let d = &self.shape;
        let lanes = T::lanes(self.isa);
        let (blocks, taps) = (d.c.div_ceil(lanes), d.r * d.s);
        let fill = |out: Shared<T>| {
            (0..d.n * blocks).into_par_iter().for_each(|i| {
                let (n, first) = (i / blocks, i % blocks * lanes);
                let channels = lanes.min(d.c - first);
                T::with_scratch(|scratch| {
                    let kernel = Slide {
                        source,
                        from: self.plane(n, first, lanes, from),
                        rows,
                        cols,
                        weight: &weight[first * taps..][..channels * taps],
                        bias: bias.map(|b| &b[first..first + channels]),
                        flip,
                        taps: (d.r, d.s),
                        stride,
                        dilation: d.dilation,
                        to: self.plane(n, first, lanes, to),
                        out: out.get(),
                        buffer: &mut scratch.stage,
                        packed: &mut scratch.panel,
                        line: &mut scratch.tile,
                    };
                    T::dispatch(self.isa, kernel);
                });
            });
        };
        // SAFETY: each task writes its channels of its image, and those are all elements.
        unsafe { filled(d.n * d.c * to.0 * to.1, fill) }
    }

    fn forward<T: Real>(&self, xs: &[T], weight: &[T], bias: Option<&[T]>) -> Vec<T> {
        let d = &self.shape;
        self.slide(xs, weight, bias, self.sides(), ((d.h, d.w), (d.p, d.q)), (d.stride, false))
    }

    /// The gradient of the input: windows with the flipped kernel over `grad`, with zeros between its pixels
    /// where there was a stride.
    fn input_grad<T: Real>(&self, weight: &[T], grad: &[T]) -> Vec<T> {
        let d = &self.shape;
        let side = |size: usize, taps: usize| Side {
            size: size + (taps - 1) * d.dilation,
            offset: ((taps - 1) * d.dilation) as isize - d.padding as isize,
            step: d.stride,
        };
        let sides = (side(d.h, d.r), side(d.w, d.s));
        self.slide(grad, weight, None, sides, ((d.p, d.q), (d.h, d.w)), (1, true))
    }

    /// The gradients of weight and bias.
    fn weight_grad<T: Real>(&self, xs: &[T], grad: &[T]) -> (Vec<T>, Vec<T>) {
        let d = &self.shape;
        let lanes = T::lanes(self.isa);
        let (blocks, width) = (d.c.div_ceil(lanes), d.r * d.s + 1);
        // Few enough partial sums, whatever the batch, and enough tasks for many cores.
        let images = d.n.div_ceil(16);
        let chunks = d.n.div_ceil(images);
        let (rows, cols) = self.sides();
        let mut parts = vec![T::ZERO; chunks * d.c * width];
        parts.par_chunks_mut(d.c * width).enumerate().for_each(|(chunk, parts)| {
            parts.par_chunks_mut(lanes * width).enumerate().for_each(|(block, out)| {
                let of = |size| {
                    (chunk * images..d.n.min((chunk + 1) * images))
                        .map(|n| self.plane(n, block * lanes, lanes, size))
                        .collect()
                };
                T::with_scratch(|scratch| {
                    let kernel = Collect {
                        source: xs,
                        from: of((d.h, d.w)),
                        rows,
                        cols,
                        grad,
                        to: of((d.p, d.q)),
                        taps: (d.r, d.s),
                        stride: d.stride,
                        dilation: d.dilation,
                        buffer: &mut scratch.stage,
                        grads: &mut scratch.panel,
                        sums: &mut scratch.tile,
                        out,
                    };
                    T::dispatch(self.isa, kernel);
                });
            });
        });
        debug_assert!(blocks * lanes >= d.c);
        let sums = add_rows(&parts, d.c * width);
        let weight = sums.chunks_exact(width).flat_map(|row| row[..width - 1].to_vec()).collect();
        (weight, sums.chunks_exact(width).map(|row| row[width - 1]).collect())
    }
}

impl Optional for Depthwise {
    const NAME: &'static str = "depthwise-conv2d";

    fn run(
        &self,
        xs: Argument<'_>,
        weight: Argument<'_>,
        bias: Option<Argument<'_>>,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        fn typed<T: Real>(
            op: &Depthwise,
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
        let d = &self.shape;
        let dims = if self.last { (d.n, d.p, d.q, d.c) } else { (d.n, d.c, d.p, d.q) };
        Ok((storage, Shape::from(dims)))
    }

    fn grads(
        &self,
        (xs, weight, bias): (&Tensor, &Tensor, Option<&Tensor>),
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 3]> {
        fn typed<T: Real>(
            op: &Depthwise,
            xs: &Tensor,
            weight: &Tensor,
            bias: Option<&Tensor>,
            grad: &Tensor,
        ) -> candle_core::Result<[Option<Tensor>; 3]> {
            let want = xs.track_op();
            let (dx, (dw, db)) = result(&[xs, weight, grad], |v: &[&[T]]| {
                (want.then(|| op.input_grad(v[1], v[2])), op.weight_grad(v[0], v[2]))
            })?;
            let dx = dx.map(|dx| tensor(dx, xs.shape())).transpose()?;
            let db = bias.map(|b| tensor(db, b.shape())).transpose()?;
            Ok([dx, Some(tensor(dw, weight.shape())?), db])
        }
        match xs.dtype() {
            DType::F64 => typed::<f64>(self, xs, weight, bias, grad),
            _ => typed::<f32>(self, xs, weight, bias, grad),
        }
    }
}
