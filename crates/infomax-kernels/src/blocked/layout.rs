//! The layout, and the way in and out of it.

use crate::simd::{Float, Isa, Kernel, Shared, Simd, filled};
use crate::storage::{contiguous, result, slice, tensor};
use crate::{Error, Result, check};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor, WithDType as _};
use rayon::prelude::*;

/// Images of one block, for a batch of `n`.
fn lanes(n: usize) -> usize {
    if n.next_multiple_of(16) == n.next_multiple_of(8) { 16 } else { 8 }
}

/// A batch of feature maps in blocks of 8 or 16 images, which lie side by side in memory.
///
/// The tensor is `(N / B, H, W, C, B)`, contiguous: a pixel holds, for each channel, the values of `B` images.
/// Every operation acts on whole vectors of images, for any size of image and kernel, and a convolution reads
/// its operands without copying them. A batch that is no multiple of `B` is filled up with images whose values
/// mean nothing and whose gradients are 0.
///
/// It is made by [`Blocked::from_images`], and left through [`Blocked::to_images`] or
/// [`Blocked::global_avg_pool`], all differentiable. f32 and f64 on the CPU only:
/// [`Blocked::supports`] tells.
#[derive(Clone, Debug)]
pub struct Blocked {
    pub(super) data: Tensor,
    pub(super) images: usize,
}

/// The sizes of a [`Blocked`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dims {
    pub(super) images: usize,
    pub(super) blocks: usize,
    pub(super) h: usize,
    pub(super) w: usize,
    pub(super) c: usize,
    pub(super) lanes: usize,
}

impl Dims {
    pub(super) fn len(&self) -> usize {
        self.blocks * self.h * self.w * self.c * self.lanes
    }

    pub(super) fn shape(&self) -> Shape {
        Shape::from(vec![self.blocks, self.h, self.w, self.c, self.lanes])
    }

    /// Images of a block that are no filling.
    pub(super) fn used(&self, block: usize) -> usize {
        self.lanes.min(self.images - block * self.lanes)
    }
}

impl Blocked {
    /// True if images like these can be brought into this layout: f32 or f64, on the CPU.
    pub fn supports(xs: &Tensor) -> bool {
        crate::storage::on_cpu(xs)
    }

    /// Brings images `(N, C, H, W)` into this layout.
    ///
    /// # Errors
    /// A tensor of another rank or without elements; one that [`Blocked::supports`] refuses.
    pub fn from_images(xs: &Tensor) -> Result<Self> {
        const OP: &str = "blocked::from_images";
        let (n, c, h, w) = check::dims4(OP, "xs", xs)?;
        check::not_empty(OP, "xs", xs)?;
        if !Self::supports(xs) {
            return Err(Error::Config {
                op: OP,
                name: "xs",
                value: format!("{:?} on {:?}", xs.dtype(), xs.device().location()),
                reason: "must be f32 or f64 on the CPU",
            });
        }
        let lanes = lanes(n);
        let dims = Dims { images: n, blocks: n.div_ceil(lanes), h, w, c, lanes };
        Ok(Self { data: contiguous(xs)?.apply_op1(Change { dims, inwards: true })?, images: n })
    }

    /// The images `(N, C, H, W)`.
    ///
    /// # Errors
    /// Those of Candle.
    pub fn to_images(&self) -> Result<Tensor> {
        Ok(self.data.apply_op1(Change { dims: self.sizes()?, inwards: false })?)
    }

    /// The mean of each plane: `(N, C)`.
    ///
    /// # Errors
    /// Those of Candle.
    pub fn global_avg_pool(&self) -> Result<Tensor> {
        Ok(self.data.apply_op1(super::pool::GlobalMean { dims: self.sizes()? })?)
    }

    /// `(N, C, H, W)` of the images.
    ///
    /// # Errors
    /// None for a value that was made by this crate.
    pub fn dims(&self) -> Result<(usize, usize, usize, usize)> {
        let d = self.sizes()?;
        Ok((d.images, d.c, d.h, d.w))
    }

    pub(super) fn sizes(&self) -> Result<Dims> {
        match *self.data.dims() {
            [blocks, h, w, c, lanes] => Ok(Dims { images: self.images, blocks, h, w, c, lanes }),
            _ => Err(Error::Shape {
                op: "blocked",
                name: "data",
                expected: "of rank 5".into(),
                got: self.data.dims().to_vec(),
            }),
        }
    }
}

/// Between `(N, C, H, W)` and the blocked layout.
#[derive(Clone, Copy)]
struct Change {
    dims: Dims,
    inwards: bool,
}

/// Moves one channel of one block.
struct Plane<T> {
    images: *const T,
    /// Elements between images.
    image: usize,
    blocked: *mut T,
    used: usize,
    pixels: usize,
    /// Elements between pixels of the block.
    pixel: usize,
    lanes: usize,
    inwards: bool,
}

impl<T: Float> Kernel<T> for Plane<T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        let whole = if self.used == self.lanes { self.pixels / S::LANES * S::LANES } else { 0 };
        // SAFETY: `used` planes of `pixels` elements, and as many pixels of the block.
        unsafe {
            for l in (0..self.lanes).step_by(S::LANES) {
                for p in (0..whole).step_by(S::LANES) {
                    let (image, block) =
                        (self.images.add(l * self.image + p), self.blocked.add(p * self.pixel + l));
                    if self.inwards {
                        S::transpose(image, self.image, block, self.pixel);
                    } else {
                        S::transpose(block, self.pixel, image.cast_mut(), self.image);
                    }
                }
            }
            for p in whole..self.pixels {
                for l in 0..self.lanes {
                    let block = self.blocked.add(p * self.pixel + l);
                    if l >= self.used {
                        if self.inwards {
                            *block = T::default();
                        }
                    } else if self.inwards {
                        *block = *self.images.add(l * self.image + p);
                    } else {
                        *self.images.cast_mut().add(l * self.image + p) = *block;
                    }
                }
            }
        }
    }
}

impl Change {
    fn values<T: Float>(&self, from: &[T], inwards: bool) -> Vec<T> {
        let d = self.dims;
        let (pixels, image) = (d.h * d.w, d.c * d.h * d.w);
        let isa = super::tile::fit::<T>(Isa::detect(), d.lanes);
        let len = if inwards { d.len() } else { d.images * image };
        // SAFETY: the tasks write every channel of every block, each all of its pixels and images.
        unsafe {
            filled(len, |to: Shared<T>| {
                (0..d.blocks * d.c).into_par_iter().for_each(|task| {
                    let (block, c) = (task / d.c, task % d.c);
                    let at_image = block * d.lanes * image + c * pixels;
                    let at_block = block * pixels * d.c * d.lanes + c * d.lanes;
                    let (images, blocked) = if inwards {
                        (from.as_ptr().add(at_image), to.get().add(at_block))
                    } else {
                        (to.get().cast_const().add(at_image), from.as_ptr().cast_mut().add(at_block))
                    };
                    let (used, pixel, lanes) = (d.used(block), d.c * d.lanes, d.lanes);
                    T::dispatch(isa, Plane { images, image, blocked, used, pixels, pixel, lanes, inwards });
                });
            })
        }
    }

    fn shape(&self, inwards: bool) -> Shape {
        let d = self.dims;
        if inwards { d.shape() } else { Shape::from((d.images, d.c, d.h, d.w)) }
    }
}

impl CustomOp1 for Change {
    fn name(&self) -> &'static str {
        "blocked-layout"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let storage = match s {
            CpuStorage::F64(_) => f64::to_cpu_storage_owned(self.values(slice::<f64>((s, l))?, self.inwards)),
            _ => f32::to_cpu_storage_owned(self.values(slice::<f32>((s, l))?, self.inwards)),
        };
        Ok((storage, self.shape(self.inwards)))
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        if !xs.track_op() {
            return Ok(None);
        }
        let grad = grad.contiguous()?;
        let (back, shape) = (!self.inwards, self.shape(!self.inwards));
        Ok(Some(match xs.dtype() {
            DType::F64 => tensor(result(&[&grad], |v: &[&[f64]]| self.values(v[0], back))?, &shape)?,
            _ => tensor(result(&[&grad], |v: &[&[f32]]| self.values(v[0], back))?, &shape)?,
        }))
    }
}
