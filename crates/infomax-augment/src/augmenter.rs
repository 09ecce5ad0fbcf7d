//! Draws and computes views.

use crate::blur::Blurrer;
use crate::resample::{Resampler, Source};
use crate::{CropBox, Error, Image, JitterStep, Recipe, Result, ViewConfig, ViewParams, color, hue};

/// Computes the views of a [`Recipe`]. Shared by all threads; each thread has its own [`Scratch`].
#[derive(Clone, Debug)]
pub struct Augmenter {
    recipe: Recipe,
    views: Vec<ViewConfig>,
    tables: Vec<[f32; 256]>,
}

/// Buffers that are reused from view to view, so that nothing is allocated per image.
#[derive(Debug, Default)]
pub struct Scratch {
    planes: Vec<u8>,
    resampler: Resampler,
    blurrer: Blurrer,
}

impl Augmenter {
    /// Checks a recipe and prepares it.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting that is out of range.
    pub fn new(recipe: &Recipe) -> Result<Self> {
        recipe.check()?;
        let views = recipe.views.iter().flat_map(|v| std::iter::repeat_n(v.clone(), v.count)).collect();
        Ok(Self { recipe: recipe.clone(), views, tables: tables(&recipe.mean, &recipe.std) })
    }

    /// The recipe.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The number of views.
    pub fn views(&self) -> usize {
        self.views.len()
    }

    /// The number of channels, of images and of views.
    pub fn channels(&self) -> usize {
        self.tables.len()
    }

    /// The shape `(channels, height, width)` of a view; zeros for a view that does not exist.
    pub fn output(&self, view: usize) -> (usize, usize, usize) {
        self.views.get(view).map_or((0, 0, 0), |v| (self.channels(), v.size, v.size))
    }

    /// Draws the parameters of a view of an image of this size.
    ///
    /// # Errors
    /// A view that does not exist.
    pub fn draw(
        &self,
        view: usize,
        width: usize,
        height: usize,
        rng: &mut (impl rand::Rng + ?Sized),
    ) -> Result<ViewParams> {
        Ok(ViewParams::draw(self.view(view)?, width, height, rng))
    }

    /// Computes a view with given parameters into `out`, `(C, H, W)` and normalised.
    ///
    /// # Errors
    /// A view that does not exist, an image of another number of channels, a crop beyond the image, an
    /// output of another length.
    pub fn render(
        &self,
        view: usize,
        image: &Image,
        params: &ViewParams,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<()> {
        let config = self.view(view)?;
        check(image, params.crop, self.channels(), config.size, out.len())?;
        pulp::Arch::new().dispatch(Render { config, image, params, tables: &self.tables, scratch, out });
        Ok(())
    }

    /// Draws the parameters of a view and computes it into `out`, `(C, H, W)` and normalised.
    ///
    /// # Errors
    /// As [`Augmenter::render`].
    pub fn apply(
        &self,
        view: usize,
        image: &Image,
        rng: &mut (impl rand::Rng + ?Sized),
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<()> {
        let params = self.draw(view, image.width(), image.height(), rng)?;
        self.render(view, image, &params, scratch, out)
    }

    fn view(&self, view: usize) -> Result<&ViewConfig> {
        self.views.get(view).ok_or(Error::View { view, views: self.views.len() })
    }
}

/// `(v / 255 - mean) / std` for every value of every channel.
pub(crate) fn tables(mean: &[f32], std: &[f32]) -> Vec<[f32; 256]> {
    mean.iter().zip(std).map(|(m, s)| std::array::from_fn(|v| (v as f32 / 255.0 - m) / s)).collect()
}

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
    pub(crate) image: &'a Image,
    pub(crate) params: &'a ViewParams,
    pub(crate) tables: &'a [[f32; 256]],
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) out: &'a mut [f32],
}

impl pulp::WithSimd for Render<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) {
        let Self { config, image, params, tables, scratch, out } = self;
        let size = config.size;
        let plane = size * size;
        let channels = image.channels();
        let Scratch { planes, resampler, blurrer } = scratch;
        planes.resize(channels * plane, 0);
        let source = Source { data: image.data(), width: image.width(), channels };
        resampler.run(source, params.crop, config.filter, (size, size), planes);

        let colours = &mut planes[..channels.min(3) * plane];
        for step in params.jitter.iter().flatten() {
            match *step {
                JitterStep::Brightness(factor) if factor != 1.0 => color::brightness(colours, factor),
                JitterStep::Contrast(factor) if factor != 1.0 => color::contrast(colours, plane, factor),
                JitterStep::Saturation(factor) if factor != 1.0 && channels >= 3 => {
                    color::saturation(colours, plane, factor);
                }
                JitterStep::Hue(turns) if turns != 0.0 && channels >= 3 => hue::shift(colours, plane, turns),
                _ => {}
            }
        }
        if params.grayscale && channels >= 3 {
            color::grayscale(colours, plane);
        }
        if let Some(sigma) = params.blur {
            blurrer.run(planes, (size, size), sigma, config.blur.and_then(|b| b.kernel));
        }
        if let Some(threshold) = params.solarize {
            color::solarize(&mut planes[..channels.min(3) * plane], threshold);
        }

        for ((table, plane), out) in
            tables.iter().zip(planes.chunks_exact(plane)).zip(out.chunks_exact_mut(plane))
        {
            for (y, out) in out.chunks_exact_mut(size).enumerate() {
                let y = if params.vertical_flip { size - 1 - y } else { y };
                let row = &plane[y * size..][..size];
                if params.flip {
                    for (o, v) in out.iter_mut().zip(row.iter().rev()) {
                        *o = table[usize::from(*v)];
                    }
                } else {
                    for (o, v) in out.iter_mut().zip(row) {
                        *o = table[usize::from(*v)];
                    }
                }
            }
        }
    }
}
