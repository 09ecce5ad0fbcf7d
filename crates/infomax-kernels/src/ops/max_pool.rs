//! The largest pixel of each window.

use crate::tensor::check;
use crate::tensor::half::{half, wide};
use crate::tensor::path::Path;
use crate::tensor::storage::{contiguous, result, slice, tensor};
use crate::{Pool2dConfig, Result, device};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor, bail};
use infomax_simd::Isa;
use infomax_simd::{Arith, Real, Task, chunked, run};
use rayon::prelude::*;
use std::sync::OnceLock;

/// The largest pixel of each window of `(N, C, H, W)`: `(N, C, P, Q)`. Windows may overlap; padding never wins.
///
/// # Gradient
/// That of a window goes to its largest pixel, to the first one (row by row) of equal pixels. Which pixel that is
/// is kept from the forward pass.
///
/// # Numerics
/// A window with a NaN has the value NaN, and its gradient goes to the last NaN. All of this is PyTorch's rule.
/// bf16 and f16 are compared in f32, which is exact.
///
/// # Errors
/// Shapes or settings that do not fit; a tensor without elements.
pub fn max_pool2d(xs: &Tensor, cfg: Pool2dConfig) -> Result<Tensor> {
    max_pool2d_isa(xs, cfg, Isa::detect())
}

pub(crate) fn max_pool2d_isa(xs: &Tensor, cfg: Pool2dConfig, isa: Isa) -> Result<Tensor> {
    const OP: &str = "max_pool2d";
    if half(xs) && !device::takes_half(xs) {
        return Ok(max_pool2d_isa(&wide(xs)?, cfg, isa)?.to_dtype(xs.dtype())?);
    }
    let out = check::pool(OP, xs, cfg)?;
    let (n, c, h, w) = check::dims4(OP, "xs", xs)?;
    if !matches!(Path::of(xs), Path::Cpu(_)) || u32::try_from(h * w).is_err() {
        return device::max_pool2d(xs, cfg);
    }
    let keep = xs.track_op();
    let op = Largest { planes: n * c, size: (h, w), out, cfg, isa, keep, places: OnceLock::new() };
    Ok(contiguous(xs)?.apply_op1(op)?.reshape((n, c, out.0, out.1))?)
}

struct Largest {
    planes: usize,
    size: (usize, usize),
    out: (usize, usize),
    cfg: Pool2dConfig,
    isa: Isa,
    /// The places are wanted for a backward pass.
    keep: bool,
    /// The pixel of its plane that each window took.
    places: OnceLock<Vec<u32>>,
}

/// The pixels of the window `i` on a side of `len`; never empty, as the padding is at most half of the kernel.
fn window(cfg: Pool2dConfig, i: usize, len: usize) -> std::ops::Range<usize> {
    let end = (i * cfg.stride + cfg.kernel - cfg.padding).min(len);
    (i * cfg.stride).saturating_sub(cfg.padding)..end
}

/// Some planes: columns of the rows of a window first, which is a loop over whole rows, then along the row.
struct Planes<'a, T> {
    op: &'a Largest,
    xs: &'a [T],
    ys: &'a mut [T],
    places: &'a mut [u32],
}

impl<T: Real> Task for Planes<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let ((h, w), (p, q), cfg) = (self.op.size, self.op.out, self.op.cfg);
        let (mut best, mut at) = (vec![T::ZERO; w], vec![0u32; w]);
        let outs = self.ys.chunks_exact_mut(p * q).zip(self.places.chunks_exact_mut(p * q));
        for (x, (ys, places)) in self.xs.chunks_exact(h * w).zip(outs) {
            for (i, (ys, places)) in ys.chunks_exact_mut(q).zip(places.chunks_exact_mut(q)).enumerate() {
                let rows = window(cfg, i, h);
                best.copy_from_slice(&x[rows.start * w..][..w]);
                for (j, at) in at.iter_mut().enumerate() {
                    *at = (rows.start * w + j) as u32;
                }
                for r in rows.start + 1..rows.end {
                    let row = &x[r * w..][..w];
                    let first = (r * w) as u32;
                    for (j, ((x, best), at)) in row.iter().zip(&mut best).zip(&mut at).enumerate() {
                        // A NaN is unequal to itself, and always taken.
                        #[allow(clippy::eq_op)]
                        let take = (*x > *best) | (*x != *x);
                        *best = if take { *x } else { *best };
                        *at = if take { first + j as u32 } else { *at };
                    }
                }
                for (j, (y, place)) in ys.iter_mut().zip(places).enumerate() {
                    let columns = window(cfg, j, w);
                    let (mut value, mut pixel) = (best[columns.start], at[columns.start]);
                    for (x, at) in best[columns.clone()].iter().zip(&at[columns]).skip(1) {
                        let take = first_of(*x, *at, value, pixel);
                        value = if take { *x } else { value };
                        pixel = if take { *at } else { pixel };
                    }
                    (*y, *place) = (value, pixel);
                }
            }
        }
    }
}

/// True if a pass over the window row by row would end at `x` and not at `y`. Without branches, which would go
/// wrong half of the time.
#[inline(always)]
#[allow(clippy::eq_op)]
fn first_of<T: Real>(x: T, at: u32, y: T, other: u32) -> bool {
    let missing = (x != x) & ((y == y) | (at > other));
    missing | (x > y) | ((x == y) & (at < other))
}

impl Largest {
    /// Planes of a task: about 64 KiB.
    fn chunk(&self) -> usize {
        (16384 / (self.size.0 * self.size.1)).max(1)
    }

    fn forward<T: Real>(&self, xs: &[T]) -> Vec<T> {
        let (plane, size, chunk) = (self.size.0 * self.size.1, self.out.0 * self.out.1, self.chunk());
        let mut ys = vec![T::ZERO; self.planes * size];
        let mut places = vec![0u32; self.planes * size];
        let outs = ys.par_chunks_mut(chunk * size).zip(places.par_chunks_mut(chunk * size));
        outs.zip(xs.par_chunks(chunk * plane)).for_each(|((ys, places), xs)| {
            run(self.isa, Planes { op: self, xs, ys, places });
        });
        if self.keep {
            let _ = self.places.set(places);
        }
        ys
    }

    fn backward<T: Real>(&self, grad: &[T], places: &[u32]) -> Vec<T> {
        let (plane, size, chunk) = (self.size.0 * self.size.1, self.out.0 * self.out.1, self.chunk());
        chunked(self.planes * plane, chunk * plane, |i, dx: &mut [T]| {
            dx.fill(T::ZERO);
            let own = i * chunk * size..;
            let windows = grad[own.clone()].chunks_exact(size).zip(places[own].chunks_exact(size));
            for (dx, (grad, places)) in dx.chunks_exact_mut(plane).zip(windows) {
                for (g, at) in grad.iter().zip(places) {
                    dx[*at as usize] += *g;
                }
            }
        })
    }
}

impl CustomOp1 for Largest {
    fn name(&self) -> &'static str {
        "max-pool2d"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let storage = match s {
            CpuStorage::F64(_) => CpuStorage::F64(self.forward(slice::<f64>((s, l))?)),
            _ => CpuStorage::F32(self.forward(slice::<f32>((s, l))?)),
        };
        Ok((storage, Shape::from(self.planes * self.out.0 * self.out.1)))
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let Some(places) = self.places.get() else { bail!("max_pool2d: backward before forward") };
        let grad = grad.contiguous()?;
        Ok(Some(match xs.dtype() {
            DType::F64 => tensor(result(&[&grad], |v: &[&[f64]]| self.backward(v[0], places))?, xs.shape())?,
            _ => tensor(result(&[&grad], |v: &[&[f32]]| self.backward(v[0], places))?, xs.shape())?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    /// Ties, NaN and windows of minus infinity: values and gradients of PyTorch 2.15 for
    /// `max_pool2d(x, kernel, stride, padding)` with the gradient 1, 2, 3 and so on of the result.
    #[test]
    fn the_rules_of_pytorch() {
        const NAN: f64 = f64::NAN;
        const LOW: f64 = f64::NEG_INFINITY;
        let x = [1.0, 1.0, 0.0, 2.0, 1.0, NAN, 3.0, 3.0, NAN, 0.0, 3.0, LOW, LOW, LOW, LOW, LOW];
        type Case<'a> = ((usize, usize, usize), &'a [f64], &'a [(usize, f64)]);
        let cases: [Case<'_>; 4] = [
            (
                (2, 1, 0),
                &[NAN, NAN, 3.0, NAN, NAN, 3.0, NAN, 3.0, 3.0],
                &[(5, 8.0), (6, 9.0), (8, 11.0), (10, 17.0)],
            ),
            ((3, 2, 1), &[NAN, NAN, NAN, NAN], &[(5, 7.0), (8, 3.0)]),
            (
                (2, 2, 1),
                &[1.0, 1.0, 2.0, NAN, NAN, 3.0, LOW, LOW, LOW],
                &[
                    (0, 1.0),
                    (1, 2.0),
                    (3, 3.0),
                    (5, 5.0),
                    (7, 6.0),
                    (8, 4.0),
                    (12, 7.0),
                    (13, 8.0),
                    (15, 9.0),
                ],
            ),
            (
                (3, 1, 1),
                &[NAN, NAN, NAN, 3.0, NAN, NAN, NAN, 3.0, NAN, NAN, NAN, 3.0, NAN, NAN, 3.0, 3.0],
                &[(5, 24.0), (6, 24.0), (8, 57.0), (10, 31.0)],
            ),
        ];
        for ((kernel, stride, padding), values, expected) in cases {
            for isa in Isa::available() {
                for dtype in [DType::F64, DType::F32] {
                    let xs = Tensor::new(&x, &Device::Cpu).unwrap().reshape((1, 1, 4, 4)).unwrap();
                    let xs = Var::from_tensor(&xs.to_dtype(dtype).unwrap()).unwrap();
                    let cfg = Pool2dConfig { kernel, stride, padding };
                    let ys = max_pool2d_isa(&xs, cfg, *isa).unwrap().flatten_all().unwrap();
                    let got = ys.to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
                    for (a, b) in got.iter().zip(values) {
                        assert!(a == b || a.is_nan() && b.is_nan(), "{cfg:?} {got:?}");
                    }
                    let count = values.len() as f64 + 1.0;
                    let weight = Tensor::arange(1.0, count, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
                    let grads = (ys * weight).unwrap().sum_all().unwrap().backward().unwrap();
                    let dx = grads.get(&xs).unwrap().flatten_all().unwrap().to_dtype(DType::F64).unwrap();
                    let mut all = [0.0; 16];
                    for (at, g) in expected {
                        all[*at] = *g;
                    }
                    assert_eq!(dx.to_vec1::<f64>().unwrap(), all, "{cfg:?}");
                }
            }
        }
    }
}
