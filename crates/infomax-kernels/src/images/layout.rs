//! The layout, and the way in and out of it.

use super::layer::computes;
use crate::tensor::check;
use crate::tensor::storage::{contiguous, result, slice, tensor};
use crate::{Error, Result};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};
use half::bf16;
use infomax_simd::Stored;
use infomax_simd::{Float, Isa, Kernel, Shared, Simd, filled};
use rayon::prelude::*;
use std::marker::PhantomData;

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
///
/// # bf16
/// [`Blocked::from_images_bf16`] keeps f32 images in bf16, and so does every map made of them: half of the
/// memory, and half of the bytes that each pass over a map moves. What is stored is rounded to the nearest bf16,
/// ties to even (maps, their gradients between operations, and weights where a convolution reads them); all
/// arithmetic, sums and statistics are in f32 or wider. Parameters are f32 tensors, their gradients come in f32,
/// and so do the images of [`Blocked::to_images`] and the means of [`Blocked::global_avg_pool`]. bf16 has the
/// exponents of f32, so that a loss needs no scaling. NaN stays NaN.
///
/// Where the processor has dot products of bf16 that are faster than f32 ([`Isa::Avx512Bf16`], on processors of AMD) and the blocks hold 16 images (a batch of
/// 9 to 16, 25 to 32, 41 to 48 and so on), convolutions but 3x3 ones of stride 1, which take Winograd's form in f32 registers, and both of their gradients multiply pairs of bf16, in
/// the direct form, and add them up in f32: `c + x1 y1` and then `+ x0 y0`, each rounded once to the nearest, where
/// subnormal operands and sums (below 2^-126) count as 0. The roundings of what is stored are the same as elsewhere.
/// The bits of a result depend on the instruction set, never on the number of threads.
///
/// With the tiles of AMX ([`Isa::Amx`]) those convolutions that are expected to be faster multiply tiles of bf16 instead, in
/// the order of [`infomax_simd::tiles`]; [`CpuProducts`](crate::CpuProducts) fixes the arithmetic, or splits products of f32.
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
        crate::has_cpu_kernels(xs)
    }

    /// Brings images `(N, C, H, W)` into this layout.
    ///
    /// # Errors
    /// A tensor of another rank or without elements; one that [`Blocked::supports`] refuses.
    pub fn from_images(xs: &Tensor) -> Result<Self> {
        const OP: &str = "blocked::from_images";
        if !Self::supports(xs) {
            return Err(refused(OP, xs, "must be f32 or f64 on the CPU"));
        }
        Self::new(OP, xs, false)
    }

    /// True if images like these can be brought into this layout in bf16: f32, on the CPU.
    pub fn supports_bf16(xs: &Tensor) -> bool {
        Self::supports(xs) && xs.dtype() == DType::F32
    }

    /// Brings f32 images `(N, C, H, W)` into this layout, rounded to bf16; see [`Blocked`].
    ///
    /// # Gradient
    /// That of the identity: the rounding has the derivative 1.
    ///
    /// # Errors
    /// A tensor of another rank or without elements; one that [`Blocked::supports_bf16`] refuses.
    pub fn from_images_bf16(xs: &Tensor) -> Result<Self> {
        const OP: &str = "blocked::from_images_bf16";
        if !Self::supports_bf16(xs) {
            return Err(refused(OP, xs, "must be f32 on the CPU"));
        }
        Self::new(OP, xs, true)
    }

    fn new(op: &'static str, xs: &Tensor, half: bool) -> Result<Self> {
        let (n, c, h, w) = check::dims4(op, "xs", xs)?;
        check::not_empty(op, "xs", xs)?;
        let lanes = lanes(n);
        let dims = Dims { images: n, blocks: n.div_ceil(lanes), h, w, c, lanes };
        let xs = contiguous(xs)?;
        let data = if half {
            xs.apply_op1(Inwards::<bf16>::new(dims))?
        } else {
            match xs.dtype() {
                DType::F64 => xs.apply_op1(Inwards::<f64>::new(dims))?,
                _ => xs.apply_op1(Inwards::<f32>::new(dims))?,
            }
        };
        Ok(Self { data, images: n })
    }

    /// The type in which the maps are stored.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// The images `(N, C, H, W)`; f32 where the maps are bf16.
    ///
    /// # Errors
    /// Those of Candle.
    pub fn to_images(&self) -> Result<Tensor> {
        let dims = self.sizes()?;
        Ok(match self.data.dtype() {
            DType::F64 => self.data.apply_op1(Outwards::<f64>::new(dims))?,
            DType::BF16 => self.data.apply_op1(Outwards::<bf16>::new(dims))?,
            _ => self.data.apply_op1(Outwards::<f32>::new(dims))?,
        })
    }

    /// The mean of each plane: `(N, C)`; f32 where the maps are bf16.
    ///
    /// # Errors
    /// Those of Candle.
    pub fn global_avg_pool(&self) -> Result<Tensor> {
        let dims = self.sizes()?;
        Ok(self.data.apply_op1(super::pool::GlobalMean { dims })?)
    }

    /// `(N, C, H, W)` of the images.
    ///
    /// # Errors
    /// None for a value that was made by this crate.
    pub fn dims(&self) -> Result<(usize, usize, usize, usize)> {
        let d = self.sizes()?;
        Ok((d.images, d.c, d.h, d.w))
    }

    /// That a parameter has the type that is computed with.
    pub(super) fn computes(&self, op: &'static str, name: &'static str, parameter: &Tensor) -> Result<()> {
        match self.data.dtype() {
            DType::F64 => computes::<f64>(op, name, parameter),
            DType::BF16 => computes::<bf16>(op, name, parameter),
            _ => computes::<f32>(op, name, parameter),
        }
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

fn refused(op: &'static str, xs: &Tensor, reason: &'static str) -> Error {
    let value = format!("{:?} on {:?}", xs.dtype(), xs.device().location());
    Error::Config { op, name: "xs", value, reason }
}

/// From `(N, C, H, W)` to the blocked layout of maps of type `E`.
struct Inwards<E> {
    dims: Dims,
    stored: PhantomData<E>,
}

/// Back.
struct Outwards<E> {
    dims: Dims,
    stored: PhantomData<E>,
}

impl<E> Inwards<E> {
    fn new(dims: Dims) -> Self {
        Self { dims, stored: PhantomData }
    }
}

impl<E> Outwards<E> {
    fn new(dims: Dims) -> Self {
        Self { dims, stored: PhantomData }
    }
}

/// Moves one channel of one block.
struct Plane<E: Stored> {
    images: *mut E::Real,
    /// Elements between images.
    image: usize,
    blocked: *mut E,
    used: usize,
    pixels: usize,
    /// Elements between pixels of the block.
    pixel: usize,
    lanes: usize,
    inwards: bool,
}

impl<T: Float, E: Stored<Real = T>> Kernel<T> for Plane<E> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        let whole = if self.used == self.lanes { self.pixels / S::LANES * S::LANES } else { 0 };
        // SAFETY: `used` planes of `pixels` elements, and as many pixels of the block; the side that is read is
        // never written.
        unsafe {
            for l in (0..self.lanes).step_by(S::LANES) {
                for p in (0..whole).step_by(S::LANES) {
                    let (image, block) =
                        (self.images.add(l * self.image + p), self.blocked.add(p * self.pixel + l));
                    if self.inwards {
                        E::transpose_narrow::<S>(image, self.image, block, self.pixel);
                    } else {
                        E::transpose_wide::<S>(block, self.pixel, image, self.image);
                    }
                }
            }
            for p in whole..self.pixels {
                for l in 0..self.lanes {
                    let block = self.blocked.add(p * self.pixel + l);
                    if l >= self.used {
                        if self.inwards {
                            *block = E::default();
                        }
                    } else if self.inwards {
                        *block = E::narrow(*self.images.add(l * self.image + p));
                    } else {
                        *self.images.add(l * self.image + p) = (*block).wide();
                    }
                }
            }
        }
    }
}

/// Moves all planes.
///
/// # Safety
/// `images` and `blocked` must be valid for the whole batch; the one that is written belongs to this call.
unsafe fn change<E: Stored>(d: Dims, images: Shared<E::Real>, blocked: Shared<E>, inwards: bool) {
    let (pixels, image) = (d.h * d.w, d.c * d.h * d.w);
    let isa = super::tile::fit::<E::Real>(Isa::detect(), d.lanes);
    (0..d.blocks * d.c).into_par_iter().for_each(|task| {
        let (block, c) = (task / d.c, task % d.c);
        // SAFETY: the tasks move every channel of every block, each all of its pixels and images.
        let (images, blocked) = unsafe {
            let at_block = block * pixels * d.c * d.lanes + c * d.lanes;
            (images.get().add(block * d.lanes * image + c * pixels), blocked.get().add(at_block))
        };
        let (used, pixel, lanes) = (d.used(block), d.c * d.lanes, d.lanes);
        E::Real::dispatch(isa, Plane { images, image, blocked, used, pixels, pixel, lanes, inwards });
    });
}

fn inwards<E: Stored>(d: Dims, images: &[E::Real]) -> Vec<E> {
    // SAFETY: every element is written; the images are only read.
    unsafe { filled(d.len(), |to| change::<E>(d, Shared::new(images.as_ptr().cast_mut()), to, true)) }
}

fn outwards<E: Stored>(d: Dims, blocked: &[E]) -> Vec<E::Real> {
    // SAFETY: every element is written; the blocks are only read.
    unsafe {
        filled(d.images * d.c * d.h * d.w, |to| {
            change::<E>(d, to, Shared::new(blocked.as_ptr().cast_mut()), false);
        })
    }
}

impl<E: Stored> CustomOp1 for Inwards<E> {
    fn name(&self) -> &'static str {
        "blocked-from-images"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let values = inwards::<E>(self.dims, slice::<E::Real>((s, l))?);
        Ok((crate::tensor::storage::owned(values), self.dims.shape()))
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        if !xs.track_op() {
            return Ok(None);
        }
        let grad = grad.contiguous()?;
        Ok(Some(tensor(result(&[&grad], |v: &[&[E]]| outwards(self.dims, v[0]))?, xs.shape())?))
    }
}

impl<E: Stored> CustomOp1 for Outwards<E> {
    fn name(&self) -> &'static str {
        "blocked-to-images"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let d = self.dims;
        let values = outwards::<E>(d, slice::<E>((s, l))?);
        Ok((crate::tensor::storage::owned(values), Shape::from((d.images, d.c, d.h, d.w))))
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        if !xs.track_op() {
            return Ok(None);
        }
        let grad = grad.contiguous()?;
        Ok(Some(tensor(result(&[&grad], |v: &[&[E::Real]]| inwards::<E>(self.dims, v[0]))?, xs.shape())?))
    }
}
