//! The settings of the single operations of a view.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// A crop of random area and aspect ratio at a random place (torchvision's `RandomResizedCrop`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Filter {
    /// A triangle of radius 1.
    #[default]
    Bilinear,
    /// Keys' cubic convolution with a = -0.5 and radius 2.
    Bicubic,
}

/// Whose arithmetic the operations follow. torchvision computes the same operation in different ways on PIL
/// images and on tensors of `uint8`, and its two interfaces for tensors differ once more: by one gray level for
/// most operations, on noise by up to some 20 for the hue and bicubic resizing.
///
/// The parameters are drawn in the same way for all of them, so a view differs in its rounding, and at the edges
/// of an affine transformation in what is taken for the pixels beyond. Blur, solarize, posterize, equalize, flips,
/// normalization, noise and erasing are the same for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Semantics {
    /// PIL images: Pillow's integers. The presets have this one, and it is the fastest.
    #[default]
    Pil,
    /// Tensors through `torchvision.transforms` and `torchvision.transforms.functional`: resizing in single
    /// precision without rounding between the two directions, hue and blending in single precision.
    Tensor,
    /// Tensors through `torchvision.transforms.v2`: resizing with weights of 16 bits and rounding between the
    /// two directions, hue and blending in single precision with fused products.
    TensorV2,
}

impl Semantics {
    pub(crate) fn is_pil(&self) -> bool {
        *self == Self::Pil
    }
}

/// A random rotation, shift, scaling and shear about the center of the view (torchvision's `RandomAffine`;
/// with `degrees` alone, a random rotation). It acts on the resized view; what comes from outside of it
/// has the value `fill`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Affine {
    /// The probability of the transformation.
    pub p: f64,
    /// The range of the angle in degrees, clockwise.
    #[serde(default)]
    pub degrees: (f64, f64),
    /// The largest shift along x and y, as a part of the width and height; in whole pixels.
    #[serde(default)]
    pub translate: (f64, f64),
    /// The range of the factor of scaling.
    #[serde(default = "default_affine_scale")]
    pub scale: (f64, f64),
    /// The range of the shear parallel to the x axis, in degrees.
    #[serde(default)]
    pub shear: (f64, f64),
    /// How values between pixels are found.
    #[serde(default)]
    pub sampling: Sampling,
    /// The value of pixels from outside of the view.
    #[serde(default)]
    pub fill: u8,
}

/// How an affine transformation finds values between pixels, without antialiasing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// The pixel that the point lies in.
    Nearest,
    /// Linear between the four pixels around it; cut off to an integer as Pillow does, or, with the semantics of
    /// tensors, rounded.
    #[default]
    Bilinear,
}

/// Random changes of color (torchvision's `ColorJitter`), in an order that is drawn anew every time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ColorJitter {
    /// The probability that the colors are changed at all.
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

/// Keeps the upper bits of every value (`PIL.ImageOps.posterize`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Posterize {
    /// The probability of the operation.
    pub p: f64,
    /// The number of bits that are kept, 1 to 8.
    pub bits: u8,
}

/// Gaussian blur with reflected borders (torchvision's `GaussianBlur`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Solarize {
    /// The probability of an inversion.
    pub p: f64,
    /// The least value that is inverted.
    #[serde(default = "default_threshold")]
    pub threshold: u8,
}

/// Independent Gaussian noise on every value: `clamp(v / 255 + sigma n, 0, 1)`, then normalized
/// (torchvision's `v2.GaussianNoise` on values in 0..1).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Noise {
    /// The probability of noise.
    pub p: f64,
    /// The range of its standard deviation, of values in 0..1.
    pub sigma: (f64, f64),
}

/// Overwrites a random box of the normalized view (torchvision's `RandomErasing`; with `ratio = [1, 1]`, a
/// cutout).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Erase {
    /// The probability of erasing.
    pub p: f64,
    /// The range of the area of the box, as a part of the area of the view.
    #[serde(default = "default_erase_scale")]
    pub scale: (f64, f64),
    /// The range of height / width; its logarithm is uniform.
    #[serde(default = "default_erase_ratio")]
    pub ratio: (f64, f64),
    /// What the box is filled with.
    #[serde(default)]
    pub fill: EraseFill,
}

/// What an erased box is filled with, in units of the normalized view.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum EraseFill {
    /// One value; 0 is the mean of the data.
    Value(f32),
    /// Standard normal noise.
    Noise,
}

impl Default for EraseFill {
    fn default() -> Self {
        Self::Value(0.0)
    }
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

fn default_affine_scale() -> (f64, f64) {
    (1.0, 1.0)
}

fn default_erase_scale() -> (f64, f64) {
    (0.02, 0.33)
}

fn default_erase_ratio() -> (f64, f64) {
    (0.3, 3.3)
}

/// A range check that names the setting.
fn within(ok: bool, key: String, value: impl std::fmt::Debug, reason: &str) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::config(key, format!("{value:?}"), reason)) }
}

const PARTS: &str = "two parts of the area, the smaller first, above 0 and at most 1";

fn is_part((low, high): (f64, f64)) -> bool {
    low > 0.0 && low <= high && high <= 1.0
}

fn is_range((low, high): (f64, f64), least: f64, most: f64) -> bool {
    low >= least && low <= high && high <= most
}

fn is_ratio((low, high): (f64, f64)) -> bool {
    low > 0.0 && low <= high && high.is_finite()
}

impl Crop {
    pub(super) fn check(&self, key: impl Fn(&str) -> String) -> Result<()> {
        within(is_part(self.scale), key("crop.scale"), self.scale, PARTS)?;
        let reason = "two ratios width / height, the smaller first, above 0";
        within(is_ratio(self.ratio), key("crop.ratio"), self.ratio, reason)
    }
}

impl Affine {
    pub(super) fn check(&self, key: impl Fn(&str) -> String) -> Result<()> {
        let (d, t, s, h) = (self.degrees, self.translate, self.scale, self.shear);
        within(
            is_range(d, -360.0, 360.0),
            key("affine.degrees"),
            d,
            "two angles in -360..=360, the smaller first",
        )?;
        let parts = (0.0..=1.0).contains(&t.0) && (0.0..=1.0).contains(&t.1);
        within(parts, key("affine.translate"), t, "two parts of the width and height, each in 0..=1")?;
        within(
            is_range(s, 0.01, 100.0),
            key("affine.scale"),
            s,
            "two factors in 0.01..=100, the smaller first",
        )?;
        within(
            is_range(h, -80.0, 80.0),
            key("affine.shear"),
            h,
            "two angles in -80..=80 degrees, the smaller first",
        )
    }
}

impl ColorJitter {
    pub(super) fn check(&self, key: impl Fn(&str) -> String) -> Result<()> {
        let strengths =
            [("brightness", self.brightness), ("contrast", self.contrast), ("saturation", self.saturation)];
        for (name, v) in strengths {
            within(
                (0.0..=100.0).contains(&v),
                key(&format!("jitter.{name}")),
                v,
                "a strength lies in 0..=100",
            )?;
        }
        let hue = self.hue;
        within((0.0..=0.5).contains(&hue), key("jitter.hue"), hue, "a shift of the hue lies in 0..=0.5 turns")
    }
}

impl Posterize {
    pub(super) fn check(&self, key: impl Fn(&str) -> String) -> Result<()> {
        within((1..=8).contains(&self.bits), key("posterize.bits"), self.bits, "1 to 8 bits are kept")
    }
}

impl Blur {
    pub(super) fn check(&self, key: impl Fn(&str) -> String) -> Result<()> {
        let reason = "two standard deviations in pixels, the smaller first, above 0 and at most 16";
        within(self.sigma.0 > 0.0 && is_range(self.sigma, 0.0, 16.0), key("blur.sigma"), self.sigma, reason)?;
        let odd = self.kernel.is_none_or(|k| k % 2 == 1 && k <= 801);
        within(odd, key("blur.kernel"), self.kernel, "the width of the kernel is odd and at most 801")
    }
}

impl Noise {
    pub(super) fn check(&self, key: impl Fn(&str) -> String) -> Result<()> {
        let reason = "two standard deviations of values in 0..1, the smaller first, in 0..=10";
        within(is_range(self.sigma, 0.0, 10.0), key("noise.sigma"), self.sigma, reason)
    }
}

impl Erase {
    pub(super) fn check(&self, key: impl Fn(&str) -> String) -> Result<()> {
        within(is_part(self.scale), key("erase.scale"), self.scale, PARTS)?;
        let reason = "two ratios height / width, the smaller first, above 0";
        within(is_ratio(self.ratio), key("erase.ratio"), self.ratio, reason)?;
        let finite = match self.fill {
            EraseFill::Value(v) => v.is_finite(),
            EraseFill::Noise => true,
        };
        within(finite, key("erase.fill"), self.fill, "the value must be finite")
    }
}
