//! Rows of length one.

use crate::moments::columns::moments::by_rows;
use crate::tensor::check;
use crate::tensor::half::{half, wide};
use crate::tensor::path::Path;
use crate::tensor::storage::{contiguous, result, slice, tensor};
use crate::{Result, device};
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor, bail};
use infomax_simd::{Float, Isa, Kernel, Shared, Simd, filled};

/// `x / max(|x|, eps)` over the last dimension: on the CPU one pass forward, one backward.
///
/// # Gradient
/// `dx = (g - y sum(g y)) / |x|`; where `|x| <= eps` that of `x / eps`. Finite at a zero row.
///
/// # Numerics
/// Sums of products and the difference in the gradient are taken in f64. bf16 and f16 are computed in f32.
///
/// # Errors
/// A scalar, a tensor without elements, or an `eps` that is not positive.
pub fn l2_normalize(xs: &Tensor, eps: f64) -> Result<Tensor> {
    l2_normalize_isa(xs, eps, Isa::detect())
}

pub(crate) fn l2_normalize_isa(xs: &Tensor, eps: f64, isa: Isa) -> Result<Tensor> {
    const OP: &str = "l2_normalize";
    check::positive(OP, "eps", eps)?;
    check::last(OP, xs)?;
    if half(xs) && !device::takes_half(xs) {
        return Ok(l2_normalize_isa(&wide(xs)?, eps, isa)?.to_dtype(xs.dtype())?);
    }
    let Path::Cpu(_) = Path::of(xs) else {
        return device::l2_normalize(xs, eps);
    };
    Ok(contiguous(xs)?.apply_op1(L2 { eps, isa })?)
}

/// The length of a row.
fn width(dims: &[usize]) -> candle_core::Result<usize> {
    match dims.last() {
        Some(&d) => Ok(d),
        None => bail!("l2_normalize: a scalar has no rows"),
    }
}

struct L2 {
    eps: f64,
    isa: Isa,
}

/// `sum x^2` or `sum x y` of a row; f64 over runs of the lanes' own sums.
struct RowDot<'a, T>(&'a [T], &'a [T]);

impl<T: Float> Kernel<T> for RowDot<'_, T> {
    type Out = f64;

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) -> f64 {
        let mut lanes = [0f64; 16];
        let (a, b) = (self.0.chunks_exact(16), self.1.chunks_exact(16));
        let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x.f64() * y.f64()).sum();
        for (a, b) in a.zip(b) {
            for l in 0..16 {
                lanes[l] += a[l].f64() * b[l].f64();
            }
        }
        lanes.iter().sum::<f64>() + rest
    }
}

/// `out = alpha x`.
struct Scale<'a, T> {
    x: &'a [T],
    alpha: T,
    out: &'a mut [T],
}

impl<T: Float> Kernel<T> for Scale<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        let len = self.out.len();
        let x = &self.x[..len];
        for i in 0..len {
            self.out[i] = self.alpha * x[i];
        }
    }
}

/// `out = (g - dot x) factor`, in f64 inside: what is left of `g` beside `x` can be far smaller than both.
struct Beside<'a, T> {
    g: &'a [T],
    x: &'a [T],
    dot: f64,
    factor: f64,
    out: &'a mut [T],
}

impl<T: Float> Kernel<T> for Beside<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        let len = self.out.len();
        let (g, x) = (&self.g[..len], &self.x[..len]);
        for i in 0..len {
            self.out[i] = T::of((g[i].f64() - self.dot * x[i].f64()) * self.factor);
        }
    }
}

impl L2 {
    fn norm<T: Float>(&self, row: &[T], isa: Isa) -> (f64, bool) {
        let norm = T::dispatch(isa, RowDot(row, row)).sqrt();
        // A NaN compares false and stays.
        if norm <= self.eps { (self.eps, false) } else { (norm, true) }
    }

    fn forward<T: Float>(&self, z: &[T], d: usize) -> Vec<T> {
        let isa = self.isa;
        // SAFETY: every row is written.
        unsafe {
            filled(z.len(), |out: Shared<T>| {
                by_rows(z.len() / d, d, out, |i, out| {
                    let row = &z[i * d..(i + 1) * d];
                    let alpha = T::of(1.0 / self.norm(row, isa).0);
                    T::dispatch(isa, Scale { x: row, alpha, out });
                });
            })
        }
    }

    fn backward<T: Float>(&self, z: &[T], g: &[T], d: usize) -> Vec<T> {
        let isa = self.isa;
        // SAFETY: every row is written.
        unsafe {
            filled(z.len(), |out: Shared<T>| {
                by_rows(z.len() / d, d, out, |i, out| {
                    let at = i * d..(i + 1) * d;
                    let (z, g) = (&z[at.clone()], &g[at]);
                    let (norm, above) = self.norm(z, isa);
                    // Of the row itself, and not of its rounded direction: that would not be of length one.
                    let dot = if above { T::dispatch(isa, RowDot(z, g)) / norm / norm } else { 0.0 };
                    T::dispatch(isa, Beside { g, x: z, dot, factor: 1.0 / norm, out });
                });
            })
        }
    }
}

impl CustomOp1 for L2 {
    fn name(&self) -> &'static str {
        "l2-normalize"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let d = width(l.dims())?;
        let storage = match s {
            CpuStorage::F64(_) => CpuStorage::F64(self.forward(slice::<f64>((s, l))?, d)),
            _ => CpuStorage::F32(self.forward(slice::<f32>((s, l))?, d)),
        };
        Ok((storage, l.shape().clone()))
    }

    fn bwd(&self, z: &Tensor, _: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        fn run<T: Float>(op: &L2, z: &Tensor, g: &Tensor) -> candle_core::Result<Tensor> {
            let d = width(z.dims())?;
            tensor(result(&[z, g], |v: &[&[T]]| op.backward(v[0], v[1], d))?, z.shape())
        }
        let g = g.contiguous()?;
        Ok(Some(match z.dtype() {
            candle_core::DType::F64 => run::<f64>(self, z, &g)?,
            _ => run::<f32>(self, z, &g)?,
        }))
    }
}
