//! The computation of one view.

use crate::affine::Warper;
use crate::blur::Blurrer;
use crate::finish::{Finish, Output};
use crate::resample::{Kernel, Resampler, Source, Window};
use crate::tensor::resize::FloatResampler;
use crate::{
    CropBox, Error, Image, JitterStep, Result, Semantics, ViewConfig, ViewParams, color, hue, tensor,
};

/// Buffers that are reused from view to view, so that nothing is allocated per image.
#[derive(Debug, Default)]
pub struct Scratch {
    planes: Vec<u8>,
    resampler: Resampler,
    float_resampler: FloatResampler,
    warper: Warper,
    blurrer: Blurrer,
}

/// Checks what a view is computed from and into.
pub(crate) fn check(image: &Image, crop: CropBox, channels: usize, size: usize, out: usize) -> Result<()> {
    let (width, height) = (image.width(), image.height());
    if image.channels() != channels {
        return Err(Error::Channels { image: image.channels(), recipe: channels });
    }
    let inside = |start: usize, len: usize, limit: usize| {
        len > 0 && start.checked_add(len).is_some_and(|end| end <= limit)
    };
    if !inside(crop.x, crop.width, width) || !inside(crop.y, crop.height, height) {
        return Err(Error::CropBox { crop: format!("{crop:?}"), width, height });
    }
    let expected = channels * size * size;
    if out != expected {
        return Err(Error::Output { expected, got: out });
    }
    Ok(())
}

/// The computation of one view, compiled for the instruction sets that `pulp` chooses from at run time.
/// The arithmetic is the same in all of them, so the bits are.
pub(crate) struct Render<'a> {
    pub(crate) config: &'a ViewConfig,
    pub(crate) semantics: Semantics,
    pub(crate) image: &'a Image,
    pub(crate) params: &'a ViewParams,
    pub(crate) finish: &'a Finish,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) out: &'a mut [f32],
}

impl infomax_simd::bytes::WithSimd for Render<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: infomax_simd::bytes::Simd>(self, simd: S) {
        let Self { config, semantics, image, params, finish, scratch, out } = self;
        let size = config.size;
        let plane = size * size;
        let channels = image.channels();
        let Scratch { planes, resampler, float_resampler, warper, blurrer } = scratch;
        planes.resize(channels * plane, 0);
        let source = Source { data: image.data(), width: image.width(), channels };
        let window = window(config, params.crop);
        let filter = config.filter;
        if semantics == Semantics::Tensor {
            float_resampler.run(simd, source, params.crop, filter, window, planes);
        } else {
            resampler.run(simd, source, params.crop, Kernel { filter, semantics }, window, planes);
        }
        if let Some(step) = &params.affine {
            let settings = config.affine.map_or_else(Default::default, |a| (a.sampling, a.fill));
            warper.run(simd, planes, size, step, settings, semantics);
        }

        // The fourth channel is no color; bands are all alike.
        let colors = if channels == 4 { 3 } else { channels };
        let rgb = colors == 3;
        let colors = colors * plane;
        for step in params.jitter.iter().flatten() {
            let change = Change::Jitter(*step);
            infomax_simd::bytes::alone(
                simd,
                Color { planes: &mut planes[..colors], plane, change, semantics },
            );
        }
        if params.grayscale && rgb {
            let change = Change::Grayscale;
            infomax_simd::bytes::alone(
                simd,
                Color { planes: &mut planes[..colors], plane, change, semantics },
            );
        }
        if let Some(bits) = params.posterize {
            color::posterize(&mut planes[..colors], bits);
        }
        if params.equalize {
            color::equalize(&mut planes[..colors], plane);
        }
        if let Some(sigma) = params.blur {
            blurrer.run(simd, planes, (size, size), sigma, config.blur.and_then(|b| b.kernel));
        }
        if let Some(threshold) = params.solarize {
            color::solarize(&mut planes[..colors], threshold);
        }
        finish.run(simd, planes, params, Output { out, size });
    }
}

/// One change of color, as an operation by itself.
struct Color<'a> {
    planes: &'a mut [u8],
    plane: usize,
    change: Change,
    semantics: Semantics,
}

enum Change {
    Jitter(JitterStep),
    Grayscale,
}

impl infomax_simd::bytes::WithSimd for Color<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: infomax_simd::bytes::Simd>(self, simd: S) {
        let Self { planes, plane, change, semantics } = self;
        let rgb = planes.len() == 3 * plane;
        match change {
            Change::Jitter(JitterStep::Brightness(1.0) | JitterStep::Contrast(1.0)) => return,
            Change::Jitter(JitterStep::Saturation(factor)) if factor == 1.0 || !rgb => return,
            Change::Jitter(JitterStep::Hue(turns)) if turns == 0.0 || !rgb => return,
            _ => {}
        }
        match semantics {
            Semantics::Pil => on_pil(simd, planes, plane, change),
            Semantics::Tensor => on_tensor::<false>(planes, plane, change),
            Semantics::TensorV2 => on_tensor::<true>(planes, plane, change),
        }
    }
}

#[inline(always)]
fn on_pil<S: infomax_simd::bytes::Simd>(simd: S, planes: &mut [u8], plane: usize, change: Change) {
    match change {
        Change::Jitter(JitterStep::Brightness(factor)) => color::brightness(simd, planes, factor),
        Change::Jitter(JitterStep::Contrast(factor)) => color::contrast(simd, planes, plane, factor),
        Change::Jitter(JitterStep::Saturation(factor)) => color::saturation(simd, planes, plane, factor),
        Change::Jitter(JitterStep::Hue(turns)) => hue::shift(simd, planes, plane, turns),
        Change::Grayscale => color::grayscale(simd, planes, plane),
    }
}

/// With `V2`, as torchvision's second interface.
#[inline(always)]
fn on_tensor<const V2: bool>(planes: &mut [u8], plane: usize, change: Change) {
    match change {
        Change::Jitter(JitterStep::Brightness(factor)) => tensor::color::brightness(planes, factor),
        Change::Jitter(JitterStep::Contrast(factor)) => tensor::color::contrast::<V2>(planes, plane, factor),
        Change::Jitter(JitterStep::Saturation(factor)) => {
            tensor::color::saturation::<V2>(planes, plane, factor);
        }
        Change::Jitter(JitterStep::Hue(turns)) => tensor::hue::shift::<V2>(planes, plane, turns),
        Change::Grayscale => tensor::color::grayscale::<V2>(planes, plane),
    }
}

/// The part of the resized crop that is the view: all of it, or its center.
fn window(config: &ViewConfig, crop: CropBox) -> Window {
    let size = config.size;
    let Some(short) = config.resize else {
        return Window { full: (size, size), offset: (0, 0), size };
    };
    // torchvision's `Resize` cuts off the longer side to an integer, and `CenterCrop` rounds half to even.
    let (w, h) = (crop.width, crop.height);
    let long = |long: usize, other: usize| (short as f64 * long as f64 / other as f64) as usize;
    let full = if w <= h { (short, long(h, w)) } else { (long(w, h), short) };
    let center = |n: usize| (n.saturating_sub(size) as f64 / 2.0).round_ties_even() as usize;
    Window { full, offset: (center(full.0), center(full.1)), size }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Affine, Augmenter, ColorJitter, Crop, Erase, EraseFill, Filter, Noise, Posterize, Recipe, Sampling,
    };
    use infomax_simd::bytes::WithSimd as _;
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    /// A view that uses everything, often.
    pub(crate) fn everything(size: usize, filter: Filter) -> ViewConfig {
        ViewConfig {
            crop: Some(Crop { scale: (0.05, 1.0), ratio: (0.3, 3.0) }),
            filter,
            affine: Some(Affine {
                p: 0.3,
                degrees: (-30.0, 30.0),
                translate: (0.1, 0.1),
                scale: (0.8, 1.2),
                shear: (-10.0, 10.0),
                sampling: Sampling::Bilinear,
                fill: 3,
            }),
            jitter: Some(ColorJitter { p: 0.9, brightness: 0.8, contrast: 0.8, saturation: 0.8, hue: 0.5 }),
            grayscale: 0.2,
            posterize: Some(Posterize { p: 0.2, bits: 4 }),
            equalize: 0.2,
            blur: Some(crate::Blur { p: 0.7, sigma: (0.1, 5.0), kernel: None }),
            solarize: Some(crate::Solarize { p: 0.3, threshold: 100 }),
            flip: 0.5,
            vertical_flip: 0.5,
            noise: Some(Noise { p: 0.3, sigma: (0.0, 0.2) }),
            erase: Some(Erase { p: 0.3, scale: (0.02, 0.3), ratio: (0.3, 3.3), fill: EraseFill::Noise }),
            ..ViewConfig::plain(size)
        }
    }

    /// The vectors that this machine has give the bits of plain code, for sizes around their lengths and any
    /// number of channels.
    #[test]
    fn vectors_give_the_bits_of_plain_code() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let (mut first, mut second) = (Scratch::default(), Scratch::default());
        for case in 0..630 {
            let channels = [1, 3, 3, 3, 4, 2, 5][case % 7];
            let size = [1, 7, 16, 18, 31, 32, 33, 47, 64, 96][case % 10];
            let filter = if case % 2 == 0 { Filter::Bilinear } else { Filter::Bicubic };
            let (width, height) = (rng.random_range(1..150_usize), rng.random_range(1..150_usize));
            let data = (0..width * height * channels).map(|_| rng.random::<u8>()).collect();
            let image = Image::new(width, height, channels, data).unwrap();
            let config = everything(size, filter);
            let (mean, std) = (vec![0.45; channels], vec![0.22; channels]);
            let semantics = [Semantics::Pil, Semantics::Tensor, Semantics::TensorV2][case % 3];
            let views = vec![config.clone()];
            let recipe = Recipe { mean: mean.clone(), std: std.clone(), semantics, views };
            let augmenter = Augmenter::new(&recipe).unwrap();
            let params = augmenter.draw(0, width, height, &mut rng).unwrap();
            let mut got = vec![f32::NAN; channels * size * size];
            let mut want = got.clone();
            augmenter.render(0, &image, &params, &mut first, &mut got).unwrap();
            let finish = Finish::new(&mean, &std);
            Render {
                config: &config,
                semantics,
                image: &image,
                params: &params,
                finish: &finish,
                scratch: &mut second,
                out: &mut want,
            }
            .with_simd(infomax_simd::bytes::Scalar);
            assert!(
                got.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()),
                "{width}x{height}x{channels} to {size} ({semantics:?}): {params:?}"
            );
            assert!(got.iter().all(|v| v.is_finite()));
        }
    }
}
