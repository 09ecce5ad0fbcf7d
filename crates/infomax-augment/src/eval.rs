//! The deterministic view that evaluation uses.

use crate::finish::Finish;
use crate::recipe::check_normalization;
use crate::render::{Render, check};
use crate::{CropBox, Error, Image, Recipe, Result, Scratch, Semantics, ViewConfig, ViewParams};

/// Resizes the largest centered square of an image to `size x size` pixels and normalizes it.
#[derive(Clone, Debug)]
pub struct EvalTransform {
    config: ViewConfig,
    semantics: Semantics,
    /// The side of the centered square, as a part of the shorter side of the image.
    part: f64,
    finish: Finish,
}

impl EvalTransform {
    /// A transform to `size` pixels a side, with one mean and standard deviation a channel (values in 0..1).
    ///
    /// # Errors
    /// A size of 0, or a mean and standard deviation that do not fit each other.
    pub fn new(size: usize, mean: &[f32], std: &[f32]) -> Result<Self> {
        check_normalization(mean, std)?;
        if size == 0 {
            return Err(Error::config("size", size, "a view has at least one pixel a side"));
        }
        let (config, finish) = (ViewConfig::plain(size), Finish::new(mean, std));
        Ok(Self { config, semantics: Semantics::Pil, part: 1.0, finish })
    }

    /// The transform that belongs to a recipe: the size of its largest view, its filter, normalization
    /// and semantics.
    ///
    /// # Errors
    /// As [`Recipe::check`].
    pub fn for_recipe(recipe: &Recipe) -> Result<Self> {
        recipe.check()?;
        let largest = recipe.views.iter().max_by_key(|v| v.size);
        let mut transform = Self::new(largest.map_or(0, |v| v.size), &recipe.mean, &recipe.std)?;
        transform.semantics = recipe.semantics;
        transform.config.filter = largest.map_or(transform.config.filter, |v| v.filter);
        Ok(transform)
    }

    /// Takes the middle `part` of the shorter side, for example 224 / 256 as usual for ImageNet.
    ///
    /// # Errors
    /// A part that is not in `0 < part <= 1`.
    pub fn with_center(mut self, part: f64) -> Result<Self> {
        if !(part > 0.0 && part <= 1.0) {
            return Err(Error::config("part", part, "a part of the shorter side, above 0 and at most 1"));
        }
        self.part = part;
        Ok(self)
    }

    /// Resizes the whole image so that its shorter side has `resize` pixels and takes the center, as
    /// torchvision's `Resize` and `CenterCrop` do, for example 256 before 224 as usual for ImageNet.
    ///
    /// # Errors
    /// Fewer pixels than the output has.
    pub fn with_resize(mut self, resize: usize) -> Result<Self> {
        if resize < self.config.size {
            let reason = format!("at least the size of the output, {}", self.config.size);
            return Err(Error::config("resize", resize, reason));
        }
        self.config.resize = Some(resize);
        Ok(self)
    }

    /// With the arithmetic of another implementation of resizing.
    pub fn with_semantics(mut self, semantics: Semantics) -> Self {
        self.semantics = semantics;
        self
    }

    /// The shape `(channels, height, width)` of the output.
    pub fn output(&self) -> (usize, usize, usize) {
        (self.finish.channels(), self.config.size, self.config.size)
    }

    /// Computes the view into `out`, `(C, H, W)` and normalized.
    ///
    /// # Errors
    /// An image of another number of channels, an output of another length.
    pub fn apply(&self, image: &Image, scratch: &mut Scratch, out: &mut [f32]) -> Result<()> {
        let mut params = ViewParams::plain(image.width(), image.height());
        if self.config.resize.is_some() {
            params.crop = CropBox { x: 0, y: 0, width: image.width(), height: image.height() };
        } else {
            let side = ((params.crop.width as f64 * self.part).round() as usize).max(1);
            params.crop.x = (image.width() - side) / 2;
            params.crop.y = (image.height() - side) / 2;
            (params.crop.width, params.crop.height) = (side, side);
        }
        check(image, params.crop, self.finish.channels(), self.config.size, out.len())?;
        let (config, semantics, finish) = (&self.config, self.semantics, &self.finish);
        infomax_simd::bytes::dispatch(Render {
            config,
            semantics,
            image,
            params: &params,
            finish,
            scratch,
            out,
        });
        Ok(())
    }
}
