//! Pooling in the blocked layout.

use super::layout::{Blocked, Dims};
use crate::tensor::check;
use crate::tensor::storage::{result, slice, tensor};
use crate::{Pool2dConfig, Result};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};
use half::bf16;
use infomax_simd::Stored;
use infomax_simd::{Float as _, Shared, filled};
use rayon::prelude::*;

/// The mean of each plane, as `(N, C)`.
#[derive(Clone, Copy)]
pub(super) struct GlobalMean {
    pub(super) dims: Dims,
}

impl GlobalMean {
    fn forward<E: Stored>(&self, xs: &[E]) -> Vec<E::Real> {
        let d = self.dims;
        let (line, pixels) = (d.c * d.lanes, d.h * d.w);
        let mut means = vec![E::Real::default(); d.images * d.c];
        means.par_chunks_mut(d.lanes * d.c).enumerate().for_each(|(block, to)| {
            let mut sums = vec![E::Real::default(); line];
            for pixel in xs[block * pixels * line..][..pixels * line].chunks_exact(line) {
                for (s, x) in sums.iter_mut().zip(pixel) {
                    *s += x.wide();
                }
            }
            let scale = E::Real::of(1.0 / pixels as f64);
            for (image, to) in to.chunks_exact_mut(d.c).enumerate() {
                for (c, to) in to.iter_mut().enumerate() {
                    *to = sums[c * d.lanes + image] * scale;
                }
            }
        });
        means
    }

    fn backward<E: Stored>(&self, grad: &[E::Real]) -> Vec<E> {
        let d = self.dims;
        let (line, pixels) = (d.c * d.lanes, d.h * d.w);
        let mut values = vec![E::default(); d.len()];
        values.par_chunks_mut(pixels * line).enumerate().for_each(|(block, to)| {
            let scale = E::Real::of(1.0 / pixels as f64);
            let (first, rest) = to.split_at_mut(line);
            for image in 0..d.used(block) {
                for c in 0..d.c {
                    first[c * d.lanes + image] = E::narrow(grad[(block * d.lanes + image) * d.c + c] * scale);
                }
            }
            rest.chunks_exact_mut(line).for_each(|to| to.copy_from_slice(first));
        });
        values
    }
}

impl CustomOp1 for GlobalMean {
    fn name(&self) -> &'static str {
        "blocked-global-mean"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let storage = match s {
            CpuStorage::F64(_) => crate::tensor::storage::owned(self.forward(slice::<f64>((s, l))?)),
            CpuStorage::BF16(_) => crate::tensor::storage::owned(self.forward(slice::<bf16>((s, l))?)),
            _ => crate::tensor::storage::owned(self.forward(slice::<f32>((s, l))?)),
        };
        Ok((storage, Shape::from((self.dims.images, self.dims.c))))
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        Ok(Some(match xs.dtype() {
            DType::F64 => tensor(result(&[&grad], |v: &[&[f64]]| self.backward::<f64>(v[0]))?, xs.shape())?,
            DType::BF16 => tensor(result(&[&grad], |v: &[&[f32]]| self.backward::<bf16>(v[0]))?, xs.shape())?,
            _ => tensor(result(&[&grad], |v: &[&[f32]]| self.backward::<f32>(v[0]))?, xs.shape())?,
        }))
    }
}

/// The largest pixel of each window.
#[derive(Clone, Copy)]
struct Max {
    from: Dims,
    to: Dims,
    cfg: Pool2dConfig,
}

impl Blocked {
    /// The largest pixel of each window, as [`max_pool2d`](crate::max_pool2d). In bf16 the gradients of windows
    /// that overlap are added one by one, each sum rounded.
    ///
    /// # Errors
    /// Settings that do not fit.
    pub fn max_pool2d(&self, cfg: Pool2dConfig) -> Result<Self> {
        let from = self.sizes()?;
        let (h, w) = check::pool_sizes("blocked::max_pool2d", (from.h, from.w), cfg)?;
        let data = self.data.apply_op1(Max { from, to: Dims { h, w, ..from }, cfg })?;
        Ok(Self { data, images: self.images })
    }
}

impl Max {
    /// The pixels of a window, in order.
    fn window(&self, pixel: usize) -> impl Iterator<Item = usize> {
        let Self { from, to, cfg } = *self;
        let inside = move |at: usize, tap: usize, size: usize| {
            (at * cfg.stride + tap).checked_sub(cfg.padding).filter(|x| *x < size)
        };
        let (p, q) = (pixel / to.w, pixel % to.w);
        (0..cfg.kernel).filter_map(move |r| inside(p, r, from.h)).flat_map(move |y| {
            (0..cfg.kernel).filter_map(move |s| inside(q, s, from.w)).map(move |x| y * from.w + x)
        })
    }

    fn forward<E: Stored>(&self, xs: &[E]) -> Vec<E> {
        let (line, pixels) = (self.from.c * self.from.lanes, self.to.h * self.to.w);
        let image = self.from.h * self.from.w;
        // SAFETY: each task writes its line, from the first pixel of its window on.
        unsafe {
            filled(self.to.len(), |out: Shared<E>| {
                (0..self.to.blocks * pixels).into_par_iter().with_min_len(4).for_each(|task| {
                    let (block, pixel) = (task / pixels, task % pixels);
                    let to = out.get().add(task * line);
                    for (i, source) in self.window(pixel).enumerate() {
                        let from = &xs[(block * image + source) * line..][..line];
                        if i == 0 {
                            std::ptr::copy_nonoverlapping(from.as_ptr(), to, line);
                            continue;
                        }
                        let to = std::slice::from_raw_parts_mut(to, line);
                        for (to, x) in to.iter_mut().zip(from) {
                            *to = if x.wide() > to.wide() { *x } else { *to };
                        }
                    }
                });
            })
        }
    }

    /// To the first of equal maxima.
    fn backward<E: Stored>(&self, xs: &[E], ys: &[E], grad: &[E]) -> Vec<E> {
        let (c, lanes) = (self.from.c, self.from.lanes);
        let (line, pixels) = (c * lanes, self.to.h * self.to.w);
        let image = self.from.h * self.from.w;
        let mut dx = vec![E::default(); self.from.len()];
        // Windows overlap, channels do not.
        let split = c.div_ceil(4);
        let out = Shared::new(dx.as_mut_ptr());
        (0..self.from.blocks * 4).into_par_iter().for_each(|task| {
            let (block, c0) = (task / 4, task % 4 * split);
            let part = split.min(c.saturating_sub(c0)) * lanes;
            if part == 0 {
                return;
            }
            let mut done = vec![false; part];
            for pixel in 0..pixels {
                done.fill(false);
                let at = (block * pixels + pixel) * line + c0 * lanes;
                let (ys, grad) = (&ys[at..][..part], &grad[at..][..part]);
                for source in self.window(pixel) {
                    let at = (block * image + source) * line + c0 * lanes;
                    let xs = &xs[at..][..part];
                    // SAFETY: the channels of this task.
                    let dx = unsafe { std::slice::from_raw_parts_mut(out.get().add(at), part) };
                    for i in 0..part {
                        let here = xs[i].wide() == ys[i].wide() && !done[i];
                        let more = if here { grad[i].wide() } else { E::Real::default() };
                        dx[i] = E::narrow(dx[i].wide() + more);
                        done[i] |= here;
                    }
                }
            }
        });
        dx
    }
}

impl CustomOp1 for Max {
    fn name(&self) -> &'static str {
        "blocked-max-pool2d"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let storage = match s {
            CpuStorage::F64(_) => crate::tensor::storage::owned(self.forward(slice::<f64>((s, l))?)),
            CpuStorage::BF16(_) => crate::tensor::storage::owned(self.forward(slice::<bf16>((s, l))?)),
            _ => crate::tensor::storage::owned(self.forward(slice::<f32>((s, l))?)),
        };
        Ok((storage, self.to.shape()))
    }

    fn bwd(&self, xs: &Tensor, ys: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        let all = [xs, ys, &grad];
        Ok(Some(match xs.dtype() {
            DType::BF16 => {
                tensor(result(&all, |v: &[&[bf16]]| self.backward(v[0], v[1], v[2]))?, xs.shape())?
            }
            DType::F64 => tensor(result(&all, |v: &[&[f64]]| self.backward(v[0], v[1], v[2]))?, xs.shape())?,
            _ => tensor(result(&all, |v: &[&[f32]]| self.backward(v[0], v[1], v[2]))?, xs.shape())?,
        }))
    }
}
