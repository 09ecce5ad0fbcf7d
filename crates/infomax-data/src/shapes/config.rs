//! What the procedural data set can be asked for.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Which part of the data set. Parts share no random numbers, so no image either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// For training.
    #[default]
    Train,
    /// For choosing settings.
    Validation,
    /// For the final measurement.
    Test,
}

impl Split {
    /// `train`, `validation` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// The classes, distinct under any rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Shape {
    Circle,
    Square,
    Triangle,
    Pentagon,
    Star,
    Cross,
    Ring,
    Heart,
    Crescent,
    Arrow,
}

impl Shape {
    /// All classes, in the order of their labels.
    pub const ALL: [Self; 10] = [
        Self::Circle,
        Self::Square,
        Self::Triangle,
        Self::Pentagon,
        Self::Star,
        Self::Cross,
        Self::Ring,
        Self::Heart,
        Self::Crescent,
        Self::Arrow,
    ];

    /// The name of the class.
    pub fn name(self) -> &'static str {
        match self {
            Self::Circle => "circle",
            Self::Square => "square",
            Self::Triangle => "triangle",
            Self::Pentagon => "pentagon",
            Self::Star => "star",
            Self::Cross => "cross",
            Self::Ring => "ring",
            Self::Heart => "heart",
            Self::Crescent => "crescent",
            Self::Arrow => "arrow",
        }
    }
}

/// The settings of the procedural data set; the last ones set how hard it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShapesConfig {
    /// Which part.
    pub split: Split,
    /// The seed of everything random.
    pub seed: u64,
    /// The number of images.
    pub len: usize,
    /// Height and width in pixels, 8 to 1024.
    pub size: usize,
    /// The range of the diameter of the shape, as a part of the image.
    pub scale: (f64, f64),
    /// The largest rotation of the shape to either side, in turns (0.5: any).
    pub rotation: f64,
    /// How far the shape may reach over the border, as a part of its diameter (0: it is wholly visible).
    pub cut: f64,
    /// The least difference of luma between shape and background, in 0..1, before textures.
    pub contrast: f64,
    /// The strength of the textures within shape and background, in 0..1 (0: plain colors).
    pub texture: f64,
    /// The range of the number of small blobs, bars and boxes behind the shape.
    pub clutter: (usize, usize),
    /// The standard deviation of the noise of every value, in 0..1.
    pub noise: f64,
    /// Bytes of memory in which drawn images may be kept (3 kB each at 32x32).
    pub cache_bytes: usize,
}

impl Default for ShapesConfig {
    fn default() -> Self {
        Self {
            split: Split::Train,
            seed: 0,
            len: 10_000,
            size: 32,
            scale: (0.65, 0.95),
            rotation: 0.12,
            cut: 0.05,
            contrast: 0.35,
            texture: 0.15,
            clutter: (0, 2),
            noise: 0.03,
            cache_bytes: 256 << 20,
        }
    }
}

impl ShapesConfig {
    pub(crate) fn check(&self) -> Result<()> {
        let unit = |key: &str, v: f64| {
            let ok = (0.0..=1.0).contains(&v);
            if ok { Ok(()) } else { Err(Error::config(key, v, "a value in 0..=1 is needed")) }
        };
        if self.len == 0 {
            return Err(Error::config("len", 0, "at least one image is needed"));
        }
        if !(8..=1024).contains(&self.size) {
            return Err(Error::config("size", self.size, "images have 8 to 1024 pixels a side"));
        }
        if !(self.scale.0 > 0.0 && self.scale.0 <= self.scale.1 && self.scale.1 <= 1.0) {
            let reason = "two parts of the image, the smaller first, above 0 and at most 1";
            return Err(Error::config("scale", format!("{:?}", self.scale), reason));
        }
        if self.clutter.0 > self.clutter.1 || self.clutter.1 > 1000 {
            let reason = "two numbers, the smaller first, at most 1000";
            return Err(Error::config("clutter", format!("{:?}", self.clutter), reason));
        }
        if !(0.0..=0.5).contains(&self.contrast) {
            return Err(Error::config(
                "contrast",
                self.contrast,
                "a difference of luma in 0..=0.5 is needed",
            ));
        }
        if !(0.0..=0.5).contains(&self.rotation) {
            return Err(Error::config("rotation", self.rotation, "a part of a turn in 0..=0.5 is needed"));
        }
        unit("cut", self.cut)?;
        unit("texture", self.texture)?;
        unit("noise", self.noise)
    }
}
