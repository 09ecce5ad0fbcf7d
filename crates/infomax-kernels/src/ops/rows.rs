//! Functions of rows: softmax, log-softmax and L2 normalization, over the last dimension.

use crate::tensor::check;
use crate::tensor::half::{half, wide};
use crate::tensor::path::Path;
use crate::tensor::storage::{contiguous, result, slice, tensor};
use crate::{Result, device};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};
use infomax_simd::Isa;
use infomax_simd::{Arith, Real, Task, chunked, max, rows_per_task, run, sum};

/// `exp(x) / sum exp(x)` over the last dimension.
///
/// # Gradient
/// `dx = y (g - sum(g y))`.
///
/// # Numerics
/// The maximum is taken off first. A row of `-inf` only, or with NaN, gives NaN. bf16 and f16 are computed in
/// f32.
///
/// # Errors
/// A scalar or a tensor without elements.
pub fn softmax(xs: &Tensor) -> Result<Tensor> {
    softmax_isa(xs, Isa::detect())
}

pub(crate) fn softmax_isa(xs: &Tensor, isa: Isa) -> Result<Tensor> {
    apply("softmax", xs, Softmax, isa, device::softmax)
}

/// `x - ln sum exp(x)` over the last dimension.
///
/// # Gradient
/// `dx = g - exp(y) sum(g)`.
///
/// # Numerics
/// As [`softmax`].
///
/// # Errors
/// A scalar or a tensor without elements.
pub fn log_softmax(xs: &Tensor) -> Result<Tensor> {
    log_softmax_isa(xs, Isa::detect())
}

pub(crate) fn log_softmax_isa(xs: &Tensor, isa: Isa) -> Result<Tensor> {
    apply("log_softmax", xs, LogSoftmax, isa, device::log_softmax)
}

/// A function of one row.
pub(crate) trait Row: Copy + Send + Sync + 'static {
    const NAME: &'static str;
    fn forward<A: Arith, T: Real>(self, xs: &[T], ys: &mut [T]);
    fn backward<A: Arith, T: Real>(self, xs: &[T], ys: &[T], grad: &[T], dx: &mut [T]);
}

fn apply<R: Row>(
    op: &'static str,
    xs: &Tensor,
    row: R,
    isa: Isa,
    composed: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let width = check::last(op, xs)?;
    if half(xs) && !device::takes_half(xs) {
        return Ok(apply(op, &wide(xs)?, row, isa, composed)?.to_dtype(xs.dtype())?);
    }
    let Path::Cpu(_) = Path::of(xs) else {
        return composed(xs);
    };
    Ok(contiguous(xs)?.apply_op1(Rows { row, width, isa })?)
}

struct Rows<R> {
    row: R,
    width: usize,
    isa: Isa,
}

struct Forward<'a, T, R> {
    row: R,
    width: usize,
    xs: &'a [T],
    ys: &'a mut [T],
}

impl<T: Real, R: Row> Task for Forward<'_, T, R> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        for (x, y) in self.xs.chunks_exact(self.width).zip(self.ys.chunks_exact_mut(self.width)) {
            self.row.forward::<A, T>(x, y);
        }
    }
}

struct Backward<'a, T, R> {
    row: R,
    width: usize,
    xs: &'a [T],
    ys: &'a [T],
    grad: &'a [T],
    dx: &'a mut [T],
}

impl<T: Real, R: Row> Task for Backward<'_, T, R> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let w = self.width;
        let rows = self.xs.chunks_exact(w).zip(self.ys.chunks_exact(w)).zip(self.grad.chunks_exact(w));
        for (((x, y), g), d) in rows.zip(self.dx.chunks_exact_mut(w)) {
            self.row.backward::<A, T>(x, y, g, d);
        }
    }
}

impl<R: Row> Rows<R> {
    fn forward<T: Real>(&self, xs: &[T]) -> Vec<T> {
        let chunk = rows_per_task(self.width) * self.width;
        chunked(xs.len(), chunk, |i, ys| {
            let xs = &xs[i * chunk..][..ys.len()];
            run(self.isa, Forward { row: self.row, width: self.width, xs, ys });
        })
    }

    fn backward<T: Real>(&self, xs: &[T], ys: &[T], grad: &[T]) -> Vec<T> {
        let chunk = rows_per_task(self.width) * self.width;
        chunked(xs.len(), chunk, |i, dx| {
            let at = i * chunk..i * chunk + dx.len();
            let (xs, ys, grad) = (&xs[at.clone()], &ys[at.clone()], &grad[at]);
            run(self.isa, Backward { row: self.row, width: self.width, xs, ys, grad, dx });
        })
    }
}

impl<R: Row> CustomOp1 for Rows<R> {
    fn name(&self) -> &'static str {
        R::NAME
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let storage = match s {
            CpuStorage::F64(_) => CpuStorage::F64(self.forward(slice::<f64>((s, l))?)),
            _ => CpuStorage::F32(self.forward(slice::<f32>((s, l))?)),
        };
        Ok((storage, l.shape().clone()))
    }

    fn bwd(&self, xs: &Tensor, ys: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let all = [xs, ys, &grad.contiguous()?];
        Ok(Some(match xs.dtype() {
            DType::F64 => tensor(result(&all, |v: &[&[f64]]| self.backward(v[0], v[1], v[2]))?, xs.shape())?,
            _ => tensor(result(&all, |v: &[&[f32]]| self.backward(v[0], v[1], v[2]))?, xs.shape())?,
        }))
    }
}

/// `ys = exp(xs - max)`; the maximum and the sum of `ys`.
#[inline(always)]
pub(crate) fn shifted_exp<A: Arith, T: Real>(xs: &[T], ys: &mut [T]) -> (T, T) {
    let shift = max(xs);
    for (y, x) in ys.iter_mut().zip(xs) {
        *y = (*x - shift).exp::<A>();
    }
    let ys = &*ys;
    (shift, sum(ys.len(), |j| ys[j]))
}

/// The sum of the products of two rows.
#[inline(always)]
pub(crate) fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let b = &b[..a.len()];
    sum(a.len(), |j| a[j] * b[j])
}

#[derive(Clone, Copy)]
struct Softmax;

impl Row for Softmax {
    const NAME: &'static str = "softmax";

    #[inline(always)]
    fn forward<A: Arith, T: Real>(self, xs: &[T], ys: &mut [T]) {
        let (_, total) = shifted_exp::<A, T>(xs, ys);
        let scale = T::ONE / total;
        for y in ys {
            *y *= scale;
        }
    }

    #[inline(always)]
    fn backward<A: Arith, T: Real>(self, _: &[T], ys: &[T], grad: &[T], dx: &mut [T]) {
        let mean = dot::<T>(ys, grad);
        for ((d, y), g) in dx.iter_mut().zip(ys).zip(grad) {
            *d = *y * (*g - mean);
        }
    }
}

#[derive(Clone, Copy)]
struct LogSoftmax;

impl Row for LogSoftmax {
    const NAME: &'static str = "log-softmax";

    #[inline(always)]
    fn forward<A: Arith, T: Real>(self, xs: &[T], ys: &mut [T]) {
        let (shift, total) = shifted_exp::<A, T>(xs, ys);
        let log = total.ln();
        for (y, x) in ys.iter_mut().zip(xs) {
            *y = (*x - shift) - log;
        }
    }

    #[inline(always)]
    fn backward<A: Arith, T: Real>(self, _: &[T], ys: &[T], grad: &[T], dx: &mut [T]) {
        let total = sum(grad.len(), |j| grad[j]);
        for ((d, y), g) in dx.iter_mut().zip(ys).zip(grad) {
            *d = A::fma(-y.exp::<A>(), total, *g);
        }
    }
}
