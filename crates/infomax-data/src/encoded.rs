//! What all sources of encoded images share: decoding, checking, caching, whole or in part.

use crate::cache::ImageCache;
use crate::dataset::{Dataset, Part, SizeRange};
use crate::decode::{self, Limits};
use crate::options::{OpenOptions, Skipped, accept};
use crate::{Error, Result, verify};
use infomax_augment::{CropBox, Image};
use std::fmt::Debug;
use std::path::PathBuf;

/// Encoded images by index, wherever they lie.
pub(crate) trait Store: Send + Sync + Debug {
    /// The number of images.
    fn len(&self) -> usize;

    /// The bytes of an image.
    fn read(&self, index: usize) -> std::io::Result<Vec<u8>>;

    /// The first `most` bytes of an image, or more.
    fn head(&self, index: usize, _most: usize) -> std::io::Result<Vec<u8>> {
        self.read(index)
    }

    /// The class of an image.
    fn label(&self, index: usize) -> Option<u32>;

    /// Where an image lies, for messages.
    fn place(&self, index: usize) -> PathBuf;

    /// Forgets the images whose flag is false.
    fn retain(&mut self, keep: &[bool]);

    /// See [`Dataset::blocks`].
    fn blocks(&self) -> &[usize] {
        &[]
    }

    /// See [`Dataset::mixed_blocks`].
    fn mixed_blocks(&self) -> usize {
        8
    }
}

/// A data set of encoded images.
#[derive(Debug)]
pub(crate) struct Encoded<S> {
    pub(crate) store: S,
    pub(crate) classes: Vec<String>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) sizes: Option<SizeRange>,
    pub(crate) notes: Vec<String>,
    /// Whether images are turned as their EXIF data ask.
    upright: bool,
    name: String,
    format: &'static str,
    limits: Limits,
    cache: ImageCache,
}

/// What a source found before its images are checked.
#[derive(Default)]
pub(crate) struct Found<S> {
    pub(crate) store: S,
    pub(crate) classes: Vec<String>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) notes: Vec<String>,
    /// The number of files that were looked at.
    pub(crate) files: usize,
    pub(crate) format: &'static str,
}

impl<S: Store> Encoded<S> {
    pub(crate) fn new(root: &std::path::Path, found: Found<S>, options: &OpenOptions) -> Result<Self> {
        let limits = options.limits();
        let upright = options.exif_orientation;
        let checked = verify::verify(found.store, options.verify, limits, options.cache_bytes, upright);
        let mut skipped = found.skipped;
        skipped.extend(checked.skipped);
        skipped.sort_by(|a, b| a.path.cmp(&b.path));
        accept(root, checked.store.len(), found.files, &skipped, options.strict)?;
        let mut notes = found.notes;
        notes.extend(checked.turned.filter(|_| !upright).map(|(count, first)| {
            format!(
                "{count} images have an EXIF orientation that is not applied, as in torchvision (the first: {}); \
                 data.exif_orientation = true turns them upright",
                first.display()
            )
        }));
        Ok(Self {
            store: checked.store,
            classes: found.classes,
            skipped,
            sizes: checked.sizes,
            notes,
            upright,
            name: root.display().to_string(),
            format: found.format,
            limits,
            cache: checked.cache,
        })
    }

    fn bytes(&self, index: usize) -> Result<Vec<u8>> {
        if index >= self.store.len() {
            return Err(Error::Index { index, len: self.store.len(), name: self.name.clone() });
        }
        self.store.read(index).map_err(|source| Error::Io { path: self.store.place(index), source })
    }

    fn decode(&self, bytes: &[u8]) -> Result<Image, String> {
        let image = decode::decode(bytes, self.limits)?;
        match self.upright {
            true => decode::turn(image, decode::orientation(bytes)),
            false => Ok(image),
        }
    }

    fn damaged(&self, index: usize, reason: String) -> Error {
        Error::Decode { path: self.store.place(index), reason }
    }
}

impl<S: Store> Dataset for Encoded<S> {
    fn len(&self) -> usize {
        self.store.len()
    }

    fn image(&self, index: usize) -> Result<Image> {
        self.cache.get_or_make(index, || {
            let bytes = self.bytes(index)?;
            self.decode(&bytes).map_err(|reason| self.damaged(index, reason))
        })
    }

    fn image_part(
        &self,
        index: usize,
        choose: &mut dyn FnMut(usize, usize) -> Result<CropBox>,
    ) -> Result<Part> {
        if let Some(image) = self.cache.get(index) {
            return Part::cut(image, choose(image.width(), image.height())?);
        }
        let bytes = self.bytes(index)?;
        let header = decode::probe(&bytes, self.limits).map_err(|reason| self.damaged(index, reason))?;
        // What is turned is decoded as a whole.
        if self.upright && decode::orientation(&bytes) != decode::UPRIGHT {
            let image = self.decode(&bytes).map_err(|reason| self.damaged(index, reason))?;
            choose(image.width(), image.height())?;
            self.cache.keep(index, &image);
            return Ok(Part { image, x: 0, y: 0 });
        }
        let (width, height) = (header.width, header.height);
        let wanted = choose(width, height)?;
        if self.cache.has_room(width * height * 3) {
            let image = decode::decode(&bytes, self.limits).map_err(|reason| self.damaged(index, reason))?;
            self.cache.keep(index, &image);
            return Ok(Part { image, x: 0, y: 0 });
        }
        decode::decode_part(&bytes, self.limits, wanted).map_err(|reason| self.damaged(index, reason))
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.store.label(index)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn place(&self, index: usize) -> String {
        match index < self.store.len() {
            true => self.store.place(index).display().to_string(),
            false => format!("sample {index}"),
        }
    }

    fn format(&self) -> &'static str {
        self.format
    }

    fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn sizes(&self) -> Option<SizeRange> {
        self.sizes
    }

    fn blocks(&self) -> &[usize] {
        self.store.blocks()
    }

    fn mixed_blocks(&self) -> usize {
        self.store.mixed_blocks()
    }
}

/// Implements [`Dataset`] for a type that wraps an [`Encoded`] as its field `inner`.
macro_rules! delegate_dataset {
    ($type:ty) => {
        impl $crate::Dataset for $type {
            fn len(&self) -> usize {
                self.inner.len()
            }
            fn image(&self, index: usize) -> $crate::Result<infomax_augment::Image> {
                self.inner.image(index)
            }
            fn image_part(
                &self,
                index: usize,
                choose: &mut dyn FnMut(usize, usize) -> $crate::Result<infomax_augment::CropBox>,
            ) -> $crate::Result<$crate::Part> {
                self.inner.image_part(index, choose)
            }
            fn label(&self, index: usize) -> Option<u32> {
                self.inner.label(index)
            }
            fn classes(&self) -> &[String] {
                self.inner.classes()
            }
            fn name(&self) -> String {
                self.inner.name()
            }
            fn place(&self, index: usize) -> String {
                self.inner.place(index)
            }
            fn format(&self) -> &'static str {
                self.inner.format()
            }
            fn skipped(&self) -> &[$crate::Skipped] {
                self.inner.skipped()
            }
            fn notes(&self) -> &[String] {
                self.inner.notes()
            }
            fn sizes(&self) -> Option<$crate::SizeRange> {
                self.inner.sizes()
            }
            fn blocks(&self) -> &[usize] {
                self.inner.blocks()
            }
            fn mixed_blocks(&self) -> usize {
                self.inner.mixed_blocks()
            }
        }
    };
}
pub(crate) use delegate_dataset;
