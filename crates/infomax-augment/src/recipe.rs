//! What a view is made of, as data.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The views of a sample, and the normalisation that they share.
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
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The mean of every channel, of values in 0..1. Its length is the number of channels.
    pub mean: Vec<f32>,
    /// The standard deviation of every channel, of values in 0..1.
    pub std: Vec<f32>,
    /// The views, in order; an entry with `count = n` stands for `n` of them.
    pub views: Vec<ViewConfig>,
}

/// One view: crop and resize, then colour jitter, grayscale, blur, solarize, flips, normalisation, each
/// with its own probability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewConfig {
    /// How many views of this kind there are.
    #[serde(default = "one")]
    pub count: usize,
    /// The height and width of the view in pixels.
    pub size: usize,
    /// The random resized crop; without it, the image is resized so that its shorter side has `size`
    /// pixels and its centre is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<Crop>,
    /// The filter of resizing.
    #[serde(default)]
    pub filter: Filter,
    /// The probability of a horizontal flip.
    #[serde(default)]
    pub flip: f64,
    /// The probability of a vertical flip.
    #[serde(default)]
    pub vertical_flip: f64,
    /// Changes of brightness, contrast, saturation and hue, in random order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<ColorJitter>,
    /// The probability of a conversion to grey.
    #[serde(default)]
    pub grayscale: f64,
    /// Gaussian blur.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blur: Option<Blur>,
    /// Inversion of the bright values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solarize: Option<Solarize>,
}

/// A crop of random area and aspect ratio at a random place (torchvision's `RandomResizedCrop`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crop {
    /// The range of the area of the crop, as a part of the area of the image.
    pub scale: (f64, f64),
    /// The range of width / height; its logarithm is uniform.
    #[serde(default = "default_ratio")]
    pub ratio: (f64, f64),
}

/// The filter with which an image is resampled; its support grows with the scale when shrinking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// A triangle of radius 1.
    #[default]
    Bilinear,
    /// Keys' cubic convolution with a = -0.5 and radius 2.
    Bicubic,
}

/// Random changes of colour (torchvision's `ColorJitter`), in an order that is drawn anew every time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColorJitter {
    /// The probability that the colours are changed at all.
    pub p: f64,
    /// The factor is uniform on `[max(0, 1 - brightness), 1 + brightness]`.
    #[serde(default)]
    pub brightness: f64,
    /// The factor is uniform on `[max(0, 1 - contrast), 1 + contrast]`.
    #[serde(default)]
    pub contrast: f64,
    /// The factor is uniform on `[max(0, 1 - saturation), 1 + saturation]`.
    #[serde(default)]
    pub saturation: f64,
    /// The shift is uniform on `[-hue, hue]`, in full turns; at most 0.5.
    #[serde(default)]
    pub hue: f64,
}

/// Gaussian blur with reflected borders (torchvision's `GaussianBlur`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blur {
    /// The probability of a blur.
    pub p: f64,
    /// The range of the standard deviation in pixels, at most 16.
    #[serde(default = "default_sigma")]
    pub sigma: (f64, f64),
    /// The width of the kernel in pixels, odd; without it, four standard deviations to each side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<usize>,
}

/// Inversion of all values from a threshold on: `x -> 255 - x` where `x >= threshold`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Solarize {
    /// The probability of an inversion.
    pub p: f64,
    /// The least value that is inverted.
    #[serde(default = "default_threshold")]
    pub threshold: u8,
}

fn one() -> usize {
    1
}

pub(crate) fn default_ratio() -> (f64, f64) {
    (3.0 / 4.0, 4.0 / 3.0)
}

pub(crate) fn default_sigma() -> (f64, f64) {
    (0.1, 2.0)
}

pub(crate) fn default_threshold() -> u8 {
    128
}

impl ViewConfig {
    /// A view that is only resized and cropped at the centre.
    pub fn plain(size: usize) -> Self {
        Self {
            count: 1,
            size,
            crop: None,
            filter: Filter::default(),
            flip: 0.0,
            vertical_flip: 0.0,
            jitter: None,
            grayscale: 0.0,
            blur: None,
            solarize: None,
        }
    }

    fn check(&self, at: usize) -> Result<()> {
        let key = |name: &str| format!("views[{at}].{name}");
        if self.count == 0 {
            return Err(Error::config(key("count"), 0, "leave the view out instead"));
        }
        if self.size == 0 || self.size > MAX_SIZE {
            return Err(Error::config(
                key("size"),
                self.size,
                format!("a view has 1 to {MAX_SIZE} pixels a side"),
            ));
        }
        let jitter_p = self.jitter.map_or(0.0, |j| j.p);
        let probabilities = [
            ("flip", self.flip),
            ("vertical_flip", self.vertical_flip),
            ("grayscale", self.grayscale),
            ("jitter.p", jitter_p),
            ("blur.p", self.blur.map_or(0.0, |b| b.p)),
            ("solarize.p", self.solarize.map_or(0.0, |s| s.p)),
        ];
        for (name, p) in probabilities {
            if !(0.0..=1.0).contains(&p) {
                return Err(Error::config(key(name), p, "a probability lies in 0..=1"));
            }
        }
        if let Some(Crop { scale, ratio }) = self.crop {
            if !(scale.0 > 0.0 && scale.0 <= scale.1 && scale.1 <= 1.0) {
                return Err(Error::config(
                    key("crop.scale"),
                    format!("{scale:?}"),
                    "two parts of the area, the smaller first, above 0 and at most 1",
                ));
            }
            if !(ratio.0 > 0.0 && ratio.0 <= ratio.1 && ratio.1.is_finite()) {
                return Err(Error::config(
                    key("crop.ratio"),
                    format!("{ratio:?}"),
                    "two ratios width / height, the smaller first, above 0",
                ));
            }
        }
        if let Some(j) = self.jitter {
            for (name, v) in
                [("brightness", j.brightness), ("contrast", j.contrast), ("saturation", j.saturation)]
            {
                if !(0.0..=100.0).contains(&v) {
                    return Err(Error::config(
                        key(&format!("jitter.{name}")),
                        v,
                        "a strength lies in 0..=100",
                    ));
                }
            }
            if !(0.0..=0.5).contains(&j.hue) {
                return Err(Error::config(
                    key("jitter.hue"),
                    j.hue,
                    "a shift of the hue lies in 0..=0.5 turns",
                ));
            }
        }
        if let Some(b) = self.blur {
            if !(b.sigma.0 > 0.0 && b.sigma.0 <= b.sigma.1 && b.sigma.1 <= 16.0) {
                return Err(Error::config(
                    key("blur.sigma"),
                    format!("{:?}", b.sigma),
                    "two standard deviations in pixels, the smaller first, above 0 and at most 16",
                ));
            }
            if let Some(k) = b.kernel.filter(|k| k % 2 == 0 || *k > 801) {
                return Err(Error::config(
                    key("blur.kernel"),
                    k,
                    "the width of the kernel is odd and at most 801",
                ));
            }
        }
        Ok(())
    }
}

/// The largest side of a view.
const MAX_SIZE: usize = 8192;

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
            view.size = ((view.size * size) as f64 / largest as f64).round().max(1.0) as usize;
        }
        self
    }

    /// The same recipe with another normalisation.
    pub fn with_normalisation(mut self, mean: &[f32], std: &[f32]) -> Self {
        self.mean = mean.to_vec();
        self.std = std.to_vec();
        self
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first setting that is out of range.
    pub fn check(&self) -> Result<()> {
        check_normalisation(&self.mean, &self.std)?;
        if self.views.is_empty() {
            return Err(Error::config("views", "[]", "a recipe needs at least one view"));
        }
        self.views.iter().enumerate().try_for_each(|(i, v)| v.check(i))
    }
}

pub(crate) fn check_normalisation(mean: &[f32], std: &[f32]) -> Result<()> {
    if !matches!(mean.len(), 1 | 3 | 4) || mean.len() != std.len() {
        return Err(Error::config(
            "mean, std",
            format!("{} and {} values", mean.len(), std.len()),
            "both need one value a channel, for 1, 3 or 4 channels",
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
