//! Patches of images as rows: what a convolution whose stride is its kernel multiplies.

use crate::tensor::check::{Patches, check_patches};
use crate::tensor::half::{half, wide};
use crate::tensor::path::Path;
use crate::tensor::storage::{contiguous, result, slice, tensor};
use crate::{Result, reference};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};
use infomax_simd::Float;
use infomax_simd::chunked;

/// The patches of `patch x patch` pixels of `(N, C, H, W)`, side by side, as rows: the result is
/// `(N, H / patch, W / patch, C patch^2)`, each row in the order of the weight `(K, C, patch, patch)` of a
/// convolution. `linear(patches(xs), weight.flatten_from(1))` is that convolution with the stride `patch`,
/// channels last. Rows and columns of pixels beyond the last whole patch have no part.
///
/// # Gradient
/// Each pixel gets that of its place; pixels in no patch get 0.
///
/// # Errors
/// A tensor of another rank or without elements; a patch of 0 pixels or larger than the image.
pub fn patches(xs: &Tensor, patch: usize) -> Result<Tensor> {
    apply(xs, patch, false)
}

/// As [`patches`], of images with channels last: `(N, H, W, C)`. The order within a row is the same.
///
/// # Gradient, errors
/// As [`patches`].
pub fn patches_last(xs: &Tensor, patch: usize) -> Result<Tensor> {
    apply(xs, patch, true)
}

fn apply(xs: &Tensor, patch: usize, last: bool) -> Result<Tensor> {
    let op = check_patches(xs, patch, last)?;
    if half(xs) {
        return Ok(apply(&wide(xs)?, patch, last)?.to_dtype(xs.dtype())?);
    }
    let Path::Cpu(_) = Path::of(xs) else {
        return if last { reference::patches_last(xs, patch) } else { reference::patches(xs, patch) };
    };
    Ok(contiguous(xs)?.apply_op1(op)?)
}

impl Patches {
    /// Patches of a column and of a row, and the elements of one.
    fn sizes(&self) -> (usize, usize, usize) {
        (self.h / self.patch, self.w / self.patch, self.c * self.patch * self.patch)
    }

    /// The distances of channels, rows and columns in the image.
    fn strides(&self) -> (usize, usize, usize) {
        if self.last { (1, self.w * self.c, self.c) } else { (self.h * self.w, self.w, 1) }
    }

    /// Where the elements of a patch lie, relative to its first one.
    fn offsets(&self) -> Vec<usize> {
        let ((c, r, s), side) = (self.strides(), 0..self.patch);
        let pixels: Vec<usize> =
            side.clone().flat_map(|i| side.clone().map(move |j| i * r + j * s)).collect();
        (0..self.c).flat_map(|k| pixels.iter().map(move |pixel| k * c + pixel)).collect()
    }

    /// Where a patch begins in its image.
    fn first(&self, p: usize, q: usize) -> usize {
        let (_, r, s) = self.strides();
        (p * r + q * s) * self.patch
    }

    fn forward<T: Float>(&self, xs: &[T]) -> Vec<T> {
        let ((p, q, size), offsets, image) = (self.sizes(), self.offsets(), self.c * self.h * self.w);
        chunked(self.n * p * q * size, q * size, |line, ys| {
            let image = &xs[line / p * image..][..image];
            for (j, row) in ys.chunks_exact_mut(size).enumerate() {
                let from = &image[self.first(line % p, j)..];
                for (y, at) in row.iter_mut().zip(&offsets) {
                    *y = from[*at];
                }
            }
        })
    }

    fn backward<T: Float>(&self, grad: &[T]) -> Vec<T> {
        let ((p, q, size), offsets) = (self.sizes(), self.offsets());
        let image = self.c * self.h * self.w;
        chunked(self.n * image, image, |n, dx: &mut [T]| {
            if p * self.patch < self.h || q * self.patch < self.w {
                dx.fill(T::default());
            }
            for (i, row) in grad[n * p * q * size..][..p * q * size].chunks_exact(size).enumerate() {
                let to = &mut dx[self.first(i / q, i % q)..];
                for (g, at) in row.iter().zip(&offsets) {
                    to[*at] = *g;
                }
            }
        })
    }
}

impl CustomOp1 for Patches {
    fn name(&self) -> &'static str {
        "patches"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (p, q, size) = self.sizes();
        let storage = match s {
            CpuStorage::F64(_) => CpuStorage::F64(self.forward(slice::<f64>((s, l))?)),
            _ => CpuStorage::F32(self.forward(slice::<f32>((s, l))?)),
        };
        Ok((storage, Shape::from((self.n, p, q, size))))
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        Ok(Some(match xs.dtype() {
            DType::F64 => tensor(result(&[&grad], |v: &[&[f64]]| self.backward(v[0]))?, xs.shape())?,
            _ => tensor(result(&[&grad], |v: &[&[f32]]| self.backward(v[0]))?, xs.shape())?,
        }))
    }
}
