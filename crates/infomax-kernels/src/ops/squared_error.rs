//! Squared errors, one pass each way.

use crate::moments::columns::moments::sum_chunks;
use crate::tensor::check;
use crate::tensor::path::Path;
use crate::tensor::storage::{contiguous, result, slice, tensor};
use crate::{Result, device};
use candle_core::{CpuStorage, CustomOp2, Layout, Shape, Tensor};
use infomax_simd::{Float, Isa, Kernel, Shared, Simd, filled};
use rayon::prelude::*;

/// `sum (a - b)^2` over all elements, a scalar; the sum is taken in f64.
///
/// # Gradient
/// `2 (a - b)` and its negative, the difference formed before it is scaled: an offset that both share does no harm.
///
/// # Errors
/// Shapes or types that differ; tensors without elements.
pub fn squared_error(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    const OP: &str = "squared_error";
    check::not_empty(OP, "a", a)?;
    check::same_shape(OP, a, "b", Some(b))?;
    let Path::Cpu(_) = Path::of(a) else {
        return device::squared_error(a, b);
    };
    Ok(contiguous(a)?.apply_op2(&contiguous(b)?, SquaredError)?)
}

struct SquaredError;

/// `out = factor (x - y)`. The difference comes first: that of two near numbers is exact, while the rounding of
/// `factor x - factor y` is one of the numbers themselves.
struct Difference<'a, T> {
    x: &'a [T],
    y: &'a [T],
    factor: T,
    out: &'a mut [T],
}

impl<T: Float> Kernel<T> for Difference<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        let len = self.out.len();
        let (x, y) = (&self.x[..len], &self.y[..len]);
        for i in 0..len {
            self.out[i] = self.factor * (x[i] - y[i]);
        }
    }
}

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
                let mut db = Vec::with_capacity(len);
                let db_at = Shared::new(db.as_mut_ptr());
                const CHUNK: usize = 1 << 14;
                // SAFETY: the chunks write all elements of both.
                let da = unsafe {
                    filled(len, |da: Shared<T>| {
                        (0..len.div_ceil(CHUNK)).into_par_iter().for_each(|c| {
                            let (from, to) = (c * CHUNK, ((c + 1) * CHUNK).min(len));
                            let (x, y) = (&a[from..to], &b[from..to]);
                            for (out, factor) in [(da, T::of(2.0 * g)), (db_at, T::of(-2.0 * g))] {
                                let out = std::slice::from_raw_parts_mut(out.get().add(from), to - from);
                                T::dispatch(isa, Difference { x, y, factor, out });
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
