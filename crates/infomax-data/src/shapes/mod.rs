//! A procedural data set: shapes under random pose, color, texture, clutter and noise.
//!
//! The class of an image is its shape and nothing else: position, size, rotation, colors, textures and
//! clutter are drawn independently of it. Every image is a function of the seed, the split and its index.

mod config;
mod render;
mod sdf;
mod texture;

pub use config::{Shape, ShapesConfig, Split};

use crate::cache::ImageCache;
use crate::dataset::{Dataset, index_error};
use crate::{Error, Result};
use infomax_augment::Image;
use infomax_core::Key;

/// The procedural data set. Image `i` shows class `i mod 10`, so all classes are equally frequent.
#[derive(Debug)]
pub struct Shapes {
    config: ShapesConfig,
    key: Key,
    classes: Vec<String>,
    cache: ImageCache,
}

impl Shapes {
    /// The data set of a configuration. Nothing is drawn before it is asked for.
    ///
    /// # Errors
    /// A setting that is out of range.
    pub fn new(config: ShapesConfig) -> Result<Self> {
        config.check()?;
        // Every split has its own key, so no image of one can appear in another.
        let key = Key::new(config.seed).fold_named("shapes").fold_named(config.split.name());
        let classes = Shape::ALL.iter().map(|s| s.name().to_owned()).collect();
        let cache = ImageCache::new(config.len, config.cache_bytes);
        Ok(Self { config, key, classes, cache })
    }

    /// The configuration.
    pub fn config(&self) -> &ShapesConfig {
        &self.config
    }
}

impl Dataset for Shapes {
    fn len(&self) -> usize {
        self.config.len
    }

    fn image(&self, index: usize) -> Result<Image> {
        let shape = self.label(index).and_then(|l| Shape::ALL.get(l as usize));
        let shape = *shape.ok_or_else(|| index_error(self, index))?;
        self.cache.get_or_make(index, || {
            let data = render::render(&self.config, shape, &mut self.key.fold_in(index as u64).rng());
            Image::new(self.config.size, self.config.size, 3, data).map_err(Error::from)
        })
    }

    fn label(&self, index: usize) -> Option<u32> {
        (index < self.config.len).then_some((index % Shape::ALL.len()) as u32)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn name(&self) -> String {
        format!("shapes ({})", self.config.split.name())
    }

    fn describe(&self) -> String {
        let ShapesConfig { len, size, seed, .. } = self.config;
        format!("{}: {len} images of {size}x{size}, {} classes, seed {seed}", self.name(), self.classes.len())
    }
}
