//! Layer norm, RMS norm and group norm: one pass over the cached row for each direction.

use crate::tensor::check;
use crate::tensor::half::{half, wide, wide_option};
use crate::tensor::path::Path;
use crate::tensor::storage::{contiguous, result, slice, tensor};
use crate::{Error, Result, device};
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Shape, Tensor};
use infomax_simd::Isa;
use infomax_simd::{Arith, Real, Task, add_rows, chunked, chunked2, run, sum};

/// `(x - mean) / sqrt(var + eps) * weight + bias` over the last dimension `D`, with the biased variance
/// (arXiv:1607.06450).
///
/// `weight` and `bias` `(D)` may be missing (1 and 0).
///
/// # Gradient
/// With `x^ = (x - mean) / sqrt(var + eps)` and `h = g weight`:
/// `dx = (h - mean(h) - x^ mean(h x^)) / sqrt(var + eps)`, `dweight = sum g x^`, `dbias = sum g`.
///
/// # Numerics
/// The mean first, then the centered moments. The sums over rows are cut into chunks that depend on the shape
/// only: the same bits for any number of threads. bf16 and f16 are computed in f32.
///
/// # Errors
/// Shapes or types that do not fit; a tensor without elements; an `eps` that is not positive.
pub fn layer_norm(xs: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    layer_norm_isa(xs, weight, bias, eps, Isa::detect())
}

pub(crate) fn layer_norm_isa(
    xs: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
    isa: Isa,
) -> Result<Tensor> {
    const OP: &str = "layer_norm";
    if half(xs) {
        let (weight, bias) = (wide_option(weight)?, wide_option(bias)?);
        let ys = layer_norm_isa(&wide(xs)?, weight.as_ref(), bias.as_ref(), eps, isa)?;
        return Ok(ys.to_dtype(xs.dtype())?);
    }
    let d = check::last(OP, xs)?;
    check::vector(OP, xs, "weight", weight, d)?;
    check::vector(OP, xs, "bias", bias, d)?;
    check::positive(OP, "eps", eps)?;
    let Path::Cpu(_) = Path::of(xs) else {
        return device::layer_norm(xs, weight, bias, eps);
    };
    RowNorm { name: OP, width: d, channels: d, groups: 1, center: true, eps, isa }.apply(xs, weight, bias)
}

/// `x / sqrt(mean(x^2) + eps) * weight` over the last dimension (arXiv:1910.07467).
///
/// # Gradient
/// With `x^ = x / sqrt(mean(x^2) + eps)` and `h = g weight`:
/// `dx = (h - x^ mean(h x^)) / sqrt(mean(x^2) + eps)`, `dweight = sum g x^`.
///
/// # Numerics
/// As [`layer_norm`].
///
/// # Errors
/// As [`layer_norm`].
pub fn rms_norm(xs: &Tensor, weight: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    rms_norm_isa(xs, weight, eps, Isa::detect())
}

pub(crate) fn rms_norm_isa(xs: &Tensor, weight: Option<&Tensor>, eps: f64, isa: Isa) -> Result<Tensor> {
    const OP: &str = "rms_norm";
    if half(xs) {
        let weight = wide_option(weight)?;
        return Ok(rms_norm_isa(&wide(xs)?, weight.as_ref(), eps, isa)?.to_dtype(xs.dtype())?);
    }
    let d = check::last(OP, xs)?;
    check::vector(OP, xs, "weight", weight, d)?;
    check::positive(OP, "eps", eps)?;
    let Path::Cpu(_) = Path::of(xs) else {
        return device::rms_norm(xs, weight, eps);
    };
    RowNorm { name: OP, width: d, channels: d, groups: 1, center: false, eps, isa }.apply(xs, weight, None)
}

/// [`layer_norm`] of each of `groups` groups of channels of `(N, C)` or `(N, C, H, W)`; `weight` and `bias` are
/// `(C)` (arXiv:1803.08494).
///
/// # Gradient, numerics
/// As [`layer_norm`], with the means over a group, and the sums of `dweight` and `dbias` over `N, H, W`.
///
/// # Errors
/// As [`layer_norm`], or a number of groups that does not divide the channels.
pub fn group_norm(
    xs: &Tensor,
    groups: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    group_norm_isa(xs, groups, weight, bias, eps, Isa::detect())
}

pub(crate) fn group_norm_isa(
    xs: &Tensor,
    groups: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
    isa: Isa,
) -> Result<Tensor> {
    const OP: &str = "group_norm";
    if half(xs) {
        let (weight, bias) = (wide_option(weight)?, wide_option(bias)?);
        let ys = group_norm_isa(&wide(xs)?, groups, weight.as_ref(), bias.as_ref(), eps, isa)?;
        return Ok(ys.to_dtype(xs.dtype())?);
    }
    let (_, c, inner) = check::batch_norm(OP, xs, weight, bias, None, eps)?;
    if groups == 0 || c % groups != 0 {
        let reason = "must divide the number of channels";
        return Err(Error::Config { op: OP, name: "groups", value: groups.to_string(), reason });
    }
    let Path::Cpu(_) = Path::of(xs) else {
        return device::group_norm(xs, groups, weight, bias, eps);
    };
    let (channels, width) = (c / groups, c / groups * inner);
    RowNorm { name: OP, width, channels, groups, center: true, eps, isa }.apply(xs, weight, bias)
}

/// Rows of `width = channels * inner` elements, normalized; row `i` belongs to group `i % groups`, whose
/// channels have the scales `weight[group * channels ..]`.
#[derive(Clone, Copy)]
struct RowNorm {
    name: &'static str,
    width: usize,
    channels: usize,
    groups: usize,
    center: bool,
    eps: f64,
    isa: Isa,
}

/// The mean (0 if it stays) and `1 / sqrt(moment + eps)` of a row.
#[inline(always)]
pub(crate) fn statistics<T: Real>(xs: &[T], center: bool, eps: f64) -> (T, T) {
    let d = T::of(xs.len() as f64);
    let mean = if center { sum(xs.len(), |j| xs[j]) / d } else { T::ZERO };
    let moment = sum(xs.len(), |j| {
        let x = xs[j] - mean;
        x * x
    });
    (mean, T::ONE / (moment / d + T::of(eps)).sqrt())
}

/// `(x - mean) * scale * weight + bias` of one row.
#[inline(always)]
pub(crate) fn normalize_row<A: Arith, T: Real>(xs: &[T], weight: &[T], bias: &[T], eps: f64, ys: &mut [T]) {
    let (mean, scale) = statistics::<T>(xs, true, eps);
    for (((y, x), w), b) in ys.iter_mut().zip(xs).zip(weight).zip(bias) {
        *y = A::fma((*x - mean) * scale, *w, *b);
    }
}

/// Adds the gradient of [`normalize_row`] to `dx`, and those of weight and bias to `dw` and `db`.
#[inline(always)]
pub(crate) fn pull_row<A: Arith, T: Real>(
    xs: &[T],
    weight: &[T],
    grad: &[T],
    (center, eps): (bool, f64),
    dx: &mut [T],
    dw: &mut [T],
    db: &mut [T],
) {
    let len = xs.len();
    let (weight, grad) = (&weight[..len], &grad[..len]);
    let (mean, scale) = statistics::<T>(xs, center, eps);
    let d = T::of(len as f64);
    let first = if center { sum(len, |j| grad[j] * weight[j]) / d } else { T::ZERO };
    let second = sum(len, |j| grad[j] * weight[j] * ((xs[j] - mean) * scale)) / d;
    let (dx, dw, db) = (&mut dx[..len], &mut dw[..len], &mut db[..len]);
    for j in 0..len {
        let x = (xs[j] - mean) * scale;
        dx[j] += (A::fma(grad[j], weight[j], -first) - x * second) * scale;
        dw[j] = A::fma(grad[j], x, dw[j]);
        db[j] += grad[j];
    }
}

struct Forward<'a, T> {
    op: RowNorm,
    /// The number of the first row.
    row: usize,
    xs: &'a [T],
    weight: &'a [T],
    bias: &'a [T],
    ys: &'a mut [T],
}

impl<T: Real> Task for Forward<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let RowNorm { width, channels, groups, center, eps, .. } = self.op;
        for (i, (x, y)) in self.xs.chunks_exact(width).zip(self.ys.chunks_exact_mut(width)).enumerate() {
            let own = (self.row + i) % groups * channels..((self.row + i) % groups + 1) * channels;
            let (weight, bias) = (&self.weight[own.clone()], &self.bias[own]);
            if channels == width && center {
                normalize_row::<A, T>(x, weight, bias, eps, y);
                continue;
            }
            let (mean, scale) = statistics::<T>(x, center, eps);
            if channels == width {
                for (((y, x), w), b) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                    *y = A::fma(*x * scale, *w, *b);
                }
                continue;
            }
            let inner = width / channels;
            let planes = x.chunks_exact(inner).zip(y.chunks_exact_mut(inner));
            for ((x, y), (w, b)) in planes.zip(weight.iter().zip(bias)) {
                for (y, x) in y.iter_mut().zip(x) {
                    *y = A::fma((*x - mean) * scale, *w, *b);
                }
            }
        }
    }
}

struct Backward<'a, T> {
    op: RowNorm,
    row: usize,
    xs: &'a [T],
    weight: &'a [T],
    grad: &'a [T],
    dx: &'a mut [T],
    /// The sums of this task: `dweight`, then `dbias`.
    sums: &'a mut [T],
}

impl<T: Real> Task for Backward<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let RowNorm { width, channels, groups, center, eps, .. } = self.op;
        self.sums.fill(T::ZERO);
        let (dw, db) = self.sums.split_at_mut(channels * groups);
        let rows = self.xs.chunks_exact(width).zip(self.grad.chunks_exact(width));
        for (i, ((x, g), d)) in rows.zip(self.dx.chunks_exact_mut(width)).enumerate() {
            let own = (self.row + i) % groups * channels..((self.row + i) % groups + 1) * channels;
            let weight = &self.weight[own.clone()];
            let (dw, db) = (&mut dw[own.clone()], &mut db[own]);
            if channels == width {
                d.fill(T::ZERO);
                pull_row::<A, T>(x, weight, g, (center, eps), d, dw, db);
                continue;
            }
            let inner = width / channels;
            let (mean, scale) = statistics::<T>(x, true, eps);
            let (mut first, mut second) = (T::ZERO, T::ZERO);
            for c in 0..channels {
                let (x, g) = (&x[c * inner..][..inner], &g[c * inner..][..inner]);
                let total = sum(inner, |j| g[j]);
                let along = sum(inner, |j| g[j] * (x[j] - mean)) * scale;
                dw[c] += along;
                db[c] += total;
                first += total * weight[c];
                second += along * weight[c];
            }
            let count = T::of(width as f64);
            let (first, second) = (first / count, second / count);
            for c in 0..channels {
                let (x, g) = (&x[c * inner..][..inner], &g[c * inner..][..inner]);
                for ((d, x), g) in d[c * inner..][..inner].iter_mut().zip(x).zip(g) {
                    *d = (A::fma(*g, weight[c], -first) - (*x - mean) * scale * second) * scale;
                }
            }
        }
    }
}

impl RowNorm {
    /// Weight and bias travel as one tensor `(2, C)`; what is missing is a constant.
    fn apply(self, xs: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>) -> Result<Tensor> {
        let default = |t: Option<&Tensor>, value: f64| match t {
            Some(t) => Ok(t.clone()),
            None => Tensor::full(value, self.channels * self.groups, xs.device())?.to_dtype(xs.dtype()),
        };
        let affine = Tensor::stack(&[default(weight, 1.0)?, default(bias, 0.0)?], 0)?;
        Ok(contiguous(xs)?.apply_op2(&affine, self)?)
    }

    /// Whole rows of about 64 KiB, and at least 16 of them where sums are kept for each task.
    fn rows(&self) -> usize {
        (16384 / self.width).max(16)
    }

    fn forward<T: Real>(&self, xs: &[T], affine: &[T]) -> Vec<T> {
        let (rows, (weight, bias)) = (self.rows(), affine.split_at(affine.len() / 2));
        chunked(xs.len(), rows * self.width, |i, ys| {
            let xs = &xs[i * rows * self.width..][..ys.len()];
            run(self.isa, Forward { op: *self, row: i * rows, xs, weight, bias, ys });
        })
    }

    fn backward<T: Real>(&self, xs: &[T], affine: &[T], grad: &[T]) -> (Vec<T>, Vec<T>) {
        let (rows, weight) = (self.rows(), &affine[..affine.len() / 2]);
        let (chunk, sums) = (rows * self.width, affine.len());
        let tasks = xs.len().div_ceil(chunk);
        let (dx, parts) = chunked2((xs.len(), tasks * sums), (chunk, sums), |i, dx, sums| {
            let at = i * chunk..i * chunk + dx.len();
            let (xs, grad) = (&xs[at.clone()], &grad[at]);
            run(self.isa, Backward { op: *self, row: i * rows, xs, weight, grad, dx, sums });
        });
        (dx, add_rows(&parts, sums))
    }
}

impl CustomOp2 for RowNorm {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let storage = match s1 {
            CpuStorage::F64(_) => {
                CpuStorage::F64(self.forward(slice::<f64>((s1, l1))?, slice::<f64>((s2, l2))?))
            }
            _ => CpuStorage::F32(self.forward(slice::<f32>((s1, l1))?, slice::<f32>((s2, l2))?)),
        };
        Ok((storage, l1.shape().clone()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        affine: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        fn typed<T: Real>(
            op: &RowNorm,
            xs: &Tensor,
            affine: &Tensor,
            grad: &Tensor,
        ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
            let (dx, da) = result(&[xs, affine, grad], |v: &[&[T]]| op.backward(v[0], v[1], v[2]))?;
            Ok((Some(tensor(dx, xs.shape())?), Some(tensor(da, affine.shape())?)))
        }
        let grad = grad.contiguous()?;
        match xs.dtype() {
            DType::F64 => typed::<f64>(self, xs, affine, &grad),
            _ => typed::<f32>(self, xs, affine, &grad),
        }
    }
}
