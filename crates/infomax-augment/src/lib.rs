//! Seeded random views of images on the host, with the semantics of torchvision on PIL images or on tensors.
//!
//! A [`Recipe`] lists the views of a sample: how each is cropped, resized, jittered, blurred and
//! normalized. An [`Augmenter`] applies it: [`Augmenter::draw`] draws the parameters of one view from a
//! generator of random numbers, [`Augmenter::render`] computes the view with given parameters, and
//! [`Augmenter::apply`] does both. All randomness comes from the generator that is passed in, so the
//! same generator gives the same bits on any machine and any number of threads.
//!
//! ```
//! use infomax_augment::{Augmenter, Image, Recipe, Scratch};
//! use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
//!
//! let augmenter = Augmenter::new(&Recipe::preset("vicreg-cifar")?)?;
//! let image = Image::new(40, 36, 3, vec![128; 40 * 36 * 3])?;
//! let (c, h, w) = augmenter.output(0);
//! let mut view = vec![0f32; c * h * w]; // (C, H, W), normalized
//! let mut scratch = Scratch::default(); // one per thread, reused
//! augmenter.apply(0, &image, &mut ChaCha8Rng::seed_from_u64(1), &mut scratch, &mut view)?;
//! # Ok::<(), infomax_augment::Error>(())
//! ```
//!
//! # Exactness
//! Resampling is the fixed-point algorithm of Pillow (with antialiasing), in the order of rows and columns
//! that Pillow 13 chooses; it and brightness, contrast, saturation, hue, grayscale, solarize, posterize,
//! equalize, flips, affine, normalization and erasing are those of `torchvision.transforms` on PIL images,
//! bit for bit. Gaussian blur is the one of torchvision to one gray level. Random parameters have
//! torchvision's distributions, but come from another generator. [`Semantics`] chooses the arithmetic of
//! torchvision on tensors instead, which is held in the same way.
//!
//! # Channels
//! Images have 1 (gray), 3 (RGB) or 4 channels (RGB and one more), or any number of bands. Operations on
//! color values act on the first three of 4 channels, else on all; of them saturation, hue and grayscale
//! need three colors and leave gray images (as in torchvision) and other numbers of bands alone.

mod affine;
mod augment;
mod augmenter;
mod blur;
mod color;
mod draw;
mod error;
mod eval;
mod finish;
mod hue;
mod image;
mod presets;
mod recipe;
mod render;
mod resample;
mod series;
mod tables;
mod tensor;
mod transpose;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use augment::{Augment, ImageAugment};
pub use augmenter::Augmenter;
pub use draw::{AffineStep, CropBox, EraseStep, Jitter, JitterStep, NoiseStep, ViewParams};
pub use error::{Error, Result};
pub use eval::EvalTransform;
pub use image::Image;
pub use presets::Preset;
pub use recipe::{
    Affine, Blur, ColorJitter, Crop, Erase, EraseFill, Filter, Noise, Posterize, Recipe, Sampling, Semantics,
    Solarize, ViewConfig,
};
pub use render::Scratch;
pub use series::{Mask, MaskAxis, MaskStep, Series, SeriesAugmenter, SeriesParams, SeriesRecipe, SeriesView};
pub use tables::ViewTables;

// The generators that views are drawn from, in the versions that this crate takes.
pub use {rand, rand_chacha};

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
