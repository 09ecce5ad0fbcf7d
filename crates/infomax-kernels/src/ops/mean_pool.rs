//! Means of windows and of whole planes.

use crate::tensor::check;
use crate::tensor::half::{half, wide};
use crate::tensor::path::Path;
use crate::tensor::storage::{contiguous, result, slice, tensor};
use crate::{Pool2dConfig, Result, device};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};
use infomax_simd::Isa;
use infomax_simd::{Arith, Real, Task, chunked, run, sum};

/// The mean of each window of `(N, C, H, W)`: `(N, C, P, Q)`. Windows may overlap; padding counts as zeros, as
/// in PyTorch by default.
///
/// # Gradient
/// Each pixel gets `1 / kernel^2` of the gradients of its windows.
///
/// # Errors
/// Shapes or settings that do not fit; a tensor without elements.
pub fn avg_pool2d(xs: &Tensor, cfg: Pool2dConfig) -> Result<Tensor> {
    const OP: &str = "avg_pool2d";
    if half(xs) && !device::takes_half(xs) {
        return Ok(avg_pool2d(&wide(xs)?, cfg)?.to_dtype(xs.dtype())?);
    }
    let (p, q) = check::pool(OP, xs, cfg)?;
    let Path::Cpu(_) = Path::of(xs) else {
        return device::avg_pool2d(xs, cfg);
    };
    let (n, c, h, w) = check::dims4(OP, "xs", xs)?;
    Ok(contiguous(xs)?
        .apply_op1(Mean { planes: n * c, size: (h, w), out: (p, q), cfg })?
        .reshape((n, c, p, q))?)
}

/// The mean of each plane: `(N, C, H, W)` to `(N, C)`.
///
/// # Gradient
/// Each pixel gets `1 / (H W)` of the gradient of its plane.
///
/// # Errors
/// A tensor of another rank or without elements.
pub fn global_avg_pool(xs: &Tensor) -> Result<Tensor> {
    const OP: &str = "global_avg_pool";
    if half(xs) && !device::takes_half(xs) {
        return Ok(global_avg_pool(&wide(xs)?)?.to_dtype(xs.dtype())?);
    }
    let (n, c, h, w) = check::dims4(OP, "xs", xs)?;
    check::not_empty(OP, "xs", xs)?;
    let Path::Cpu(isa) = Path::of(xs) else {
        return device::global_avg_pool(xs);
    };
    Ok(contiguous(xs)?.apply_op1(GlobalMean { plane: h * w, isa })?.reshape((n, c))?)
}

/// Planes of a task: about 64 KiB.
fn planes_per_task(plane: usize) -> usize {
    (16384 / plane).max(1)
}

struct GlobalMean {
    plane: usize,
    isa: Isa,
}

struct Means<'a, T>(usize, &'a [T], &'a mut [T]);

impl<T: Real> Task for Means<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let scale = T::of(1.0 / self.0 as f64);
        for (x, y) in self.1.chunks_exact(self.0).zip(self.2) {
            *y = sum(x.len(), |j| x[j]) * scale;
        }
    }
}

impl GlobalMean {
    fn forward<T: Real>(&self, xs: &[T]) -> Vec<T> {
        let planes = planes_per_task(self.plane);
        chunked(xs.len() / self.plane, planes, |i, ys| {
            let xs = &xs[i * planes * self.plane..][..ys.len() * self.plane];
            run(self.isa, Means(self.plane, xs, ys));
        })
    }

    fn backward<T: Real>(&self, grad: &[T]) -> Vec<T> {
        let (planes, scale) = (planes_per_task(self.plane), T::of(1.0 / self.plane as f64));
        chunked(grad.len() * self.plane, planes * self.plane, |i, dx| {
            for (dx, g) in dx.chunks_exact_mut(self.plane).zip(&grad[i * planes..]) {
                dx.fill(*g * scale);
            }
        })
    }
}

impl CustomOp1 for GlobalMean {
    fn name(&self) -> &'static str {
        "global-avg-pool"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let count = l.shape().elem_count() / self.plane;
        let storage = match s {
            CpuStorage::F64(_) => CpuStorage::F64(self.forward(slice::<f64>((s, l))?)),
            _ => CpuStorage::F32(self.forward(slice::<f32>((s, l))?)),
        };
        Ok((storage, Shape::from(count)))
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        Ok(Some(match xs.dtype() {
            DType::F64 => tensor(result(&[&grad], |v: &[&[f64]]| self.backward(v[0]))?, xs.shape())?,
            _ => tensor(result(&[&grad], |v: &[&[f32]]| self.backward(v[0]))?, xs.shape())?,
        }))
    }
}

struct Mean {
    planes: usize,
    size: (usize, usize),
    out: (usize, usize),
    cfg: Pool2dConfig,
}

impl Mean {
    /// The pixels of the window `i` of a side of `len`.
    fn window(&self, i: usize, len: usize) -> std::ops::Range<usize> {
        let Pool2dConfig { kernel, stride, padding } = self.cfg;
        let end = (i * stride + kernel).saturating_sub(padding).min(len);
        (i * stride).saturating_sub(padding).min(end)..end
    }

    fn scale<T: Real>(&self) -> T {
        T::of(1.0 / (self.cfg.kernel * self.cfg.kernel) as f64)
    }

    fn forward<T: Real>(&self, xs: &[T]) -> Vec<T> {
        let ((h, w), (p, q)) = (self.size, self.out);
        chunked(self.planes * p * q, p * q, |plane, ys| {
            let xs = &xs[plane * h * w..][..h * w];
            for (i, row) in ys.chunks_exact_mut(q).enumerate() {
                for (j, y) in row.iter_mut().enumerate() {
                    let mut total = T::ZERO;
                    for r in self.window(i, h) {
                        for x in &xs[r * w..][self.window(j, w)] {
                            total += *x;
                        }
                    }
                    *y = total * self.scale();
                }
            }
        })
    }

    fn backward<T: Real>(&self, grad: &[T]) -> Vec<T> {
        let ((h, w), (p, q)) = (self.size, self.out);
        chunked(self.planes * h * w, h * w, |plane, dx: &mut [T]| {
            dx.fill(T::ZERO);
            for (i, row) in grad[plane * p * q..][..p * q].chunks_exact(q).enumerate() {
                for (j, g) in row.iter().enumerate() {
                    for r in self.window(i, h) {
                        for d in &mut dx[r * w..][self.window(j, w)] {
                            *d += *g * self.scale();
                        }
                    }
                }
            }
        })
    }
}

impl CustomOp1 for Mean {
    fn name(&self) -> &'static str {
        "avg-pool2d"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let storage = match s {
            CpuStorage::F64(_) => CpuStorage::F64(self.forward(slice::<f64>((s, l))?)),
            _ => CpuStorage::F32(self.forward(slice::<f32>((s, l))?)),
        };
        Ok((storage, Shape::from(self.planes * self.out.0 * self.out.1)))
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        Ok(Some(match xs.dtype() {
            DType::F64 => tensor(result(&[&grad], |v: &[&[f64]]| self.backward(v[0]))?, xs.shape())?,
            _ => tensor(result(&[&grad], |v: &[&[f32]]| self.backward(v[0]))?, xs.shape())?,
        }))
    }
}
