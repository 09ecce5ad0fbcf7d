//! Row-wise operations of objectives: unit rows and squared errors, one pass each way.

use crate::moments::columns::moments::{by_rows, sum_chunks};
use crate::tensor::check;
use crate::tensor::path::Path;
use crate::tensor::storage::{contiguous, result, slice, tensor};
use crate::{Result, reference};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Shape, Tensor};
use infomax_simd::{Float, Isa, Kernel, Shared, Simd, filled};
use rayon::prelude::*;

/// `z_i / max(|z_i|, eps)` for the rows of `z` `(n, d)`: on the CPU one pass forward, one backward.
///
/// # Gradient
/// `(g - y (y . g)) / |z_i|`; below `eps` that of `z_i / eps`. Finite at a zero row.
///
/// # Errors
/// Anything but a matrix with elements; an `eps` that is not positive.
pub fn unit_rows(z: &Tensor, eps: f64) -> Result<Tensor> {
    const OP: &str = "unit_rows";
    crate::moments::columns::matrix(OP, z)?;
    check::positive(OP, "eps", eps)?;
    let Path::Cpu(_) = Path::of(z) else {
        return reference::l2_normalize(z, eps);
    };
    Ok(contiguous(z)?.apply_op1(UnitRows { eps })?)
}

/// `sum (a - b)^2` over all elements, a scalar; the sum is taken in f64.
///
/// # Gradient
/// `2 (a - b)` and its negative.
///
/// # Errors
/// Shapes or types that differ; tensors without elements.
pub fn squared_error(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    const OP: &str = "squared_error";
    check::not_empty(OP, "a", a)?;
    check::same_shape(OP, a, "b", Some(b))?;
    let Path::Cpu(_) = Path::of(a) else {
        return reference::squared_error(a, b);
    };
    Ok(contiguous(a)?.apply_op2(&contiguous(b)?, SquaredError)?)
}

struct UnitRows {
    eps: f64,
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

/// `out = alpha x + beta y`.
struct Combine<'a, T> {
    x: &'a [T],
    y: &'a [T],
    alpha: T,
    beta: T,
    out: &'a mut [T],
}

impl<T: Float> Kernel<T> for Combine<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        let len = self.out.len();
        let (x, y) = (&self.x[..len], &self.y[..len]);
        for i in 0..len {
            self.out[i] = self.alpha * x[i] + self.beta * y[i];
        }
    }
}

impl UnitRows {
    fn norm<T: Float>(&self, row: &[T], isa: Isa) -> (f64, bool) {
        let norm = T::dispatch(isa, RowDot(row, row)).sqrt();
        (norm.max(self.eps), norm > self.eps)
    }

    fn forward<T: Float>(&self, z: &[T], d: usize) -> Vec<T> {
        let isa = Isa::detect();
        // SAFETY: every row is written.
        unsafe {
            filled(z.len(), |out: Shared<T>| {
                by_rows(z.len() / d, d, out, |i, out| {
                    let row = &z[i * d..(i + 1) * d];
                    let alpha = T::of(1.0 / self.norm(row, isa).0);
                    T::dispatch(isa, Combine { x: row, y: row, alpha, beta: T::default(), out });
                });
            })
        }
    }

    fn backward<T: Float>(&self, z: &[T], y: &[T], g: &[T], d: usize) -> Vec<T> {
        let isa = Isa::detect();
        // SAFETY: every row is written.
        unsafe {
            filled(z.len(), |out: Shared<T>| {
                by_rows(z.len() / d, d, out, |i, out| {
                    let at = i * d..(i + 1) * d;
                    let (z, y, g) = (&z[at.clone()], &y[at.clone()], &g[at]);
                    let (norm, above) = self.norm(z, isa);
                    let dot = if above { T::dispatch(isa, RowDot(y, g)) } else { 0.0 };
                    let (alpha, beta) = (T::of(1.0 / norm), T::of(-dot / norm));
                    T::dispatch(isa, Combine { x: g, y, alpha, beta, out });
                });
            })
        }
    }
}

impl CustomOp1 for UnitRows {
    fn name(&self) -> &'static str {
        "unit-rows"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (_, d) = l.shape().dims2()?;
        let storage = match s {
            CpuStorage::F64(_) => CpuStorage::F64(self.forward(slice::<f64>((s, l))?, d)),
            _ => CpuStorage::F32(self.forward(slice::<f32>((s, l))?, d)),
        };
        Ok((storage, l.shape().clone()))
    }

    fn bwd(&self, z: &Tensor, y: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        fn run<T: Float>(op: &UnitRows, z: &Tensor, y: &Tensor, g: &Tensor) -> candle_core::Result<Tensor> {
            let (_, d) = z.dims2()?;
            tensor(result(&[z, y, g], |v: &[&[T]]| op.backward(v[0], v[1], v[2], d))?, z.shape())
        }
        let g = g.contiguous()?;
        Ok(Some(match z.dtype() {
            candle_core::DType::F64 => run::<f64>(self, z, y, &g)?,
            _ => run::<f32>(self, z, y, &g)?,
        }))
    }
}

struct SquaredError;

impl SquaredError {
    fn value<T: Float>(a: &[T], b: &[T]) -> f64 {
        struct Sum<'a, T>(&'a [T], &'a [T]);
        impl<T: Float> Kernel<T> for Sum<'_, T> {
            type Out = f64;
            #[inline(always)]
            unsafe fn run<S: Simd<T = T>>(self) -> f64 {
                let mut lanes = [0f64; 16];
                let (a, b) = (self.0.chunks_exact(16), self.1.chunks_exact(16));
                let square = |x: T, y: T| {
                    let e = x.f64() - y.f64();
                    e * e
                };
                let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| square(*x, *y)).sum();
                for (a, b) in a.zip(b) {
                    for l in 0..16 {
                        lanes[l] += square(a[l], b[l]);
                    }
                }
                lanes.iter().sum::<f64>() + rest
            }
        }
        let isa = Isa::detect();
        sum_chunks(a.len(), |r| T::dispatch(isa, Sum(&a[r.clone()], &b[r])))
    }
}

impl CustomOp2 for SquaredError {
    fn name(&self) -> &'static str {
        "squared-error"
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
                CpuStorage::F64(vec![Self::value(slice::<f64>((s1, l1))?, slice::<f64>((s2, l2))?)])
            }
            _ => CpuStorage::F32(vec![Self::value(slice::<f32>((s1, l1))?, slice::<f32>((s2, l2))?) as f32]),
        };
        Ok((storage, Shape::from(())))
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        fn run<T: Float>(a: &Tensor, b: &Tensor, g: f64) -> candle_core::Result<(Tensor, Tensor)> {
            let isa = Isa::detect();
            let (da, db) = result(&[a, b], |v: &[&[T]]| {
                let (a, b, len) = (v[0], v[1], v[0].len());
                let alpha = T::of(2.0 * g);
                let mut db = Vec::with_capacity(len);
                let db_at = Shared::new(db.as_mut_ptr());
                const CHUNK: usize = 1 << 14;
                // SAFETY: the chunks write all elements of both.
                let da = unsafe {
                    filled(len, |da: Shared<T>| {
                        (0..len.div_ceil(CHUNK)).into_par_iter().for_each(|c| {
                            let (from, to) = (c * CHUNK, ((c + 1) * CHUNK).min(len));
                            let (x, y) = (&a[from..to], &b[from..to]);
                            for (out, alpha) in [(da, alpha), (db_at, T::of(-2.0 * g))] {
                                let out = std::slice::from_raw_parts_mut(out.get().add(from), to - from);
                                let beta = T::default() - alpha;
                                T::dispatch(isa, Combine { x, y, alpha, beta, out });
                            }
                        });
                    })
                };
                // SAFETY: written above.
                unsafe { db.set_len(len) };
                (da, db)
            })?;
            Ok((tensor(da, a.shape())?, tensor(db, a.shape())?))
        }
        let number = g.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()?;
        let (da, db) = match a.dtype() {
            candle_core::DType::F64 => run::<f64>(a, b, number)?,
            _ => run::<f32>(a, b, number)?,
        };
        Ok((Some(da), Some(db)))
    }
}
