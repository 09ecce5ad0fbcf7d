//! What a view is made of, as data.

mod settings;

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
pub use settings::{
    Affine, Blur, ColorJitter, Crop, Erase, EraseFill, Filter, Noise, Posterize, Sampling, Semantics,
    Solarize,
};
pub(crate) use settings::{default_ratio, default_sigma, default_threshold};

/// The views of a sample, and the normalization that they share.
///
/// In TOML:
/// ```toml
/// mean = [0.4914, 0.4822, 0.4465]
/// std = [0.247, 0.2435, 0.2616]
/// [[views]]
/// count = 2
/// size = 32
/// crop = { scale = [0.2, 1.0] }
/// flip = 0.5
/// jitter = { p = 0.8, brightness = 0.4, contrast = 0.4, saturation = 0.2, hue = 0.1 }
/// grayscale = 0.2
/// solarize = { p = 0.1 }
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The mean of every channel, of values in 0..1. Its length is the number of channels.
    pub mean: Vec<f32>,
    /// The standard deviation of every channel, of values in 0..1.
    pub std: Vec<f32>,
    /// Whose arithmetic the operations follow: `"pil"`, `"tensor"` or `"tensor-v2"`.
    #[serde(default, skip_serializing_if = "Semantics::is_pil")]
    pub semantics: Semantics,
    /// The views, in order; an entry with `count = n` stands for `n` of them.
    pub views: Vec<ViewConfig>,
}

/// One view. The operations follow one another in the order of the fields, each with its own probability:
/// crop and resize, affine, color jitter, grayscale, posterize, equalize, blur, solarize, flips, noise,
/// normalization, erasing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ViewConfig {
    /// How many views of this kind there are.
    #[serde(default = "one")]
    pub count: usize,
    /// The height and width of the view in pixels.
    pub size: usize,
    /// Whether these are local views (small crops that teachers do not embed); they come after the global ones.
    #[serde(default, skip_serializing_if = "is_false")]
    pub local: bool,
    /// The random resized crop; without it, the largest centered square is resized to the view, or `resize`
    /// says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<Crop>,
    /// Without a random crop: the whole image is resized so that its shorter side has this many pixels,
    /// and the center is taken (torchvision's `Resize` and `CenterCrop`). At least `size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<usize>,
    /// The filter of resizing.
    #[serde(default)]
    pub filter: Filter,
    /// Rotation, shift, scaling and shear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affine: Option<Affine>,
    /// Changes of brightness, contrast, saturation and hue, in random order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<ColorJitter>,
    /// The probability of a conversion to gray.
    #[serde(default)]
    pub grayscale: f64,
    /// Fewer bits for each value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub posterize: Option<Posterize>,
    /// The probability that the histogram of each channel is equalized (`PIL.ImageOps.equalize`).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub equalize: f64,
    /// Gaussian blur.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blur: Option<Blur>,
    /// Inversion of the bright values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solarize: Option<Solarize>,
    /// The probability of a horizontal flip.
    #[serde(default)]
    pub flip: f64,
    /// The probability of a vertical flip.
    #[serde(default)]
    pub vertical_flip: f64,
    /// Gaussian noise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise: Option<Noise>,
    /// A box that is overwritten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erase: Option<Erase>,
}

fn is_false(b: &bool) -> bool {
    !b
}

fn is_zero(p: &f64) -> bool {
    *p == 0.0
}

fn one() -> usize {
    1
}

impl ViewConfig {
    /// A view that is only resized and cropped at the center.
    pub fn plain(size: usize) -> Self {
        Self {
            count: 1,
            size,
            local: false,
            crop: None,
            resize: None,
            filter: Filter::default(),
            affine: None,
            jitter: None,
            grayscale: 0.0,
            posterize: None,
            equalize: 0.0,
            blur: None,
            solarize: None,
            flip: 0.0,
            vertical_flip: 0.0,
            noise: None,
            erase: None,
        }
    }

    fn check(&self, at: usize) -> Result<()> {
        let key = |name: &str| format!("views[{at}].{name}");
        if self.count == 0 {
            return Err(Error::config(key("count"), 0, "leave the view out instead"));
        }
        if self.size == 0 || self.size > MAX_SIZE {
            let reason = format!("a view has 1 to {MAX_SIZE} pixels a side");
            return Err(Error::config(key("size"), self.size, reason));
        }
        if let Some(resize) = self.resize {
            if self.crop.is_some() {
                let reason = "with a random crop there is nothing to resize; leave one of the two out";
                return Err(Error::config(key("resize"), resize, reason));
            }
            if resize < self.size || resize > MAX_SIZE {
                let reason =
                    format!("at least the size of the view ({}) and at most {MAX_SIZE} pixels", self.size);
                return Err(Error::config(key("resize"), resize, reason));
            }
        }
        let probabilities = [
            ("flip", self.flip),
            ("vertical_flip", self.vertical_flip),
            ("grayscale", self.grayscale),
            ("equalize", self.equalize),
            ("affine.p", self.affine.map_or(0.0, |a| a.p)),
            ("jitter.p", self.jitter.map_or(0.0, |j| j.p)),
            ("posterize.p", self.posterize.map_or(0.0, |s| s.p)),
            ("blur.p", self.blur.map_or(0.0, |b| b.p)),
            ("solarize.p", self.solarize.map_or(0.0, |s| s.p)),
            ("noise.p", self.noise.map_or(0.0, |s| s.p)),
            ("erase.p", self.erase.map_or(0.0, |s| s.p)),
        ];
        for (name, p) in probabilities {
            if !(0.0..=1.0).contains(&p) {
                return Err(Error::config(key(name), p, "a probability lies in 0..=1"));
            }
        }
        self.crop.map_or(Ok(()), |s| s.check(key))?;
        self.affine.map_or(Ok(()), |s| s.check(key))?;
        self.jitter.map_or(Ok(()), |s| s.check(key))?;
        self.posterize.map_or(Ok(()), |s| s.check(key))?;
        self.blur.map_or(Ok(()), |s| s.check(key))?;
        self.noise.map_or(Ok(()), |s| s.check(key))?;
        self.erase.map_or(Ok(()), |s| s.check(key))
    }
}

/// The largest side of a view.
pub(crate) const MAX_SIZE: usize = 8192;

impl Recipe {
    /// The number of views, with `count` expanded.
    pub fn view_count(&self) -> usize {
        self.views.iter().map(|v| v.count).sum()
    }

    /// The same recipe for another size: the largest view gets `size` pixels, the others keep their
    /// proportion to it (rounded, at least 1).
    pub fn with_size(mut self, size: usize) -> Self {
        let largest = self.views.iter().map(|v| v.size).max().unwrap_or(1).max(1);
        for view in &mut self.views {
            for side in [Some(&mut view.size), view.resize.as_mut()].into_iter().flatten() {
                *side = ((*side * size) as f64 / largest as f64).round().max(1.0) as usize;
            }
        }
        self
    }

    /// The same recipe with another normalization.
    pub fn with_normalization(mut self, mean: &[f32], std: &[f32]) -> Self {
        self.mean = mean.to_vec();
        self.std = std.to_vec();
        self
    }

    /// The same recipe with the arithmetic of another implementation.
    pub fn with_semantics(mut self, semantics: Semantics) -> Self {
        self.semantics = semantics;
        self
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first setting that is out of range.
    pub fn check(&self) -> Result<()> {
        check_normalization(&self.mean, &self.std)?;
        if self.views.is_empty() {
            return Err(Error::config("views", "[]", "a recipe needs at least one view"));
        }
        if let Some(at) =
            self.views.iter().enumerate().position(|(i, v)| !v.local && (i > 0 && self.views[i - 1].local))
        {
            let reason = "a global view comes after a local one; put the global views first";
            return Err(Error::config(format!("views[{at}].local"), false, reason));
        }
        if self.views[0].local {
            return Err(Error::config(
                "views[0].local",
                true,
                "at least one view is global, and comes first",
            ));
        }
        self.views.iter().enumerate().try_for_each(|(i, v)| v.check(i))
    }
}

pub(crate) fn check_normalization(mean: &[f32], std: &[f32]) -> Result<()> {
    if mean.is_empty() || mean.len() > crate::image::MAX_CHANNELS || mean.len() != std.len() {
        return Err(Error::config(
            "mean, std",
            format!("{} and {} values", mean.len(), std.len()),
            format!("both need one value a channel, for 1 to {} channels", crate::image::MAX_CHANNELS),
        ));
    }
    if let Some(v) = mean.iter().find(|v| !v.is_finite()) {
        return Err(Error::config("mean", v, "the mean must be finite"));
    }
    match std.iter().find(|v| !(v.is_finite() && **v > 0.0)) {
        Some(v) => Err(Error::config("std", v, "the standard deviation must be finite and above 0")),
        None => Ok(()),
    }
}
