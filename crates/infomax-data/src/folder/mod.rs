//! JPEG and PNG files below a folder.

mod verify;
mod walk;

use crate::cache::ImageCache;
use crate::dataset::{Dataset, index_error};
use crate::decode::{self, Limits};
use crate::{Error, Result};
use infomax_augment::Image;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where labels come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Labels {
    /// The first sub-folder below the root is the class; files in the root itself have none.
    #[default]
    Folders,
    /// No labels.
    None,
}

/// How much of every file is checked when a folder is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// Everything where all images fit into the cache, else the headers, and above 100,000 files nothing.
    #[default]
    Auto,
    /// Nothing: a damaged file is found when it is used.
    Never,
    /// Format and size.
    Header,
    /// Every file is decoded once.
    Decode,
}

/// How a folder is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FolderOptions {
    /// Where labels come from.
    pub labels: Labels,
    /// Whether a damaged file is an error instead of being left out.
    pub strict: bool,
    /// How much is checked at the start.
    pub verify: Verify,
    /// The largest number of pixels of an image.
    pub max_pixels: usize,
    /// Bytes of memory in which decoded images may be kept.
    pub cache_bytes: usize,
}

impl Default for FolderOptions {
    fn default() -> Self {
        Self {
            labels: Labels::Folders,
            strict: false,
            verify: Verify::Auto,
            max_pixels: Limits::default().max_pixels,
            cache_bytes: 1 << 30,
        }
    }
}

/// A file that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// The images below a folder, in the order of their paths.
#[derive(Debug)]
pub struct ImageFolder {
    root: PathBuf,
    files: Vec<walk::Entry>,
    classes: Vec<String>,
    skipped: Vec<Skipped>,
    sizes: Option<((usize, usize), (usize, usize))>,
    limits: Limits,
    cache: ImageCache,
}

/// Above this number of files [`Verify::Auto`] checks nothing, so that opening stays a matter of seconds.
const AUTO_VERIFY_LIMIT: usize = 100_000;

impl ImageFolder {
    /// Finds the images below `path` and checks them as far as the options ask.
    ///
    /// Hidden files, and files whose extension is not one of an image, are passed over. Links to folders
    /// are followed, but never in a circle. Files that turn out damaged are left out and listed by
    /// [`ImageFolder::skipped`].
    ///
    /// # Errors
    /// A path that is missing, is no folder or cannot be read; no usable image; damaged files under
    /// `strict`.
    pub fn open(path: impl AsRef<Path>, options: &FolderOptions) -> Result<Self> {
        let root = path.as_ref().to_path_buf();
        let found = walk::walk(&root, options.labels)?;
        let limits = Limits { max_pixels: options.max_pixels };
        let level = match options.verify {
            Verify::Auto if found.files.len() > AUTO_VERIFY_LIMIT => Verify::Never,
            level => level,
        };
        let mut skipped = found.unreadable;
        let checked = verify::verify(found.files, level, limits, options.cache_bytes);
        skipped.extend(checked.skipped);
        if options.strict && !skipped.is_empty() {
            let list: Vec<_> =
                skipped.iter().take(5).map(|s| format!("{}: {}", s.path.display(), s.reason)).collect();
            return Err(Error::Damaged { path: root, count: skipped.len(), list: list.join("; ") });
        }
        if checked.files.is_empty() {
            let example = skipped.first().map(|s| format!(" (first: {}: {})", s.path.display(), s.reason));
            return Err(Error::Empty {
                path: root,
                files: found.seen,
                damaged: skipped.len(),
                example: example.unwrap_or_default(),
            });
        }
        Ok(Self {
            root,
            files: checked.files,
            classes: found.classes,
            skipped,
            sizes: checked.sizes,
            limits,
            cache: checked.cache,
        })
    }

    /// The files that were left out, with the reason.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// The path of a sample.
    pub fn path(&self, index: usize) -> Option<&Path> {
        self.files.get(index).map(|f| f.path.as_path())
    }

    /// The least and the largest width and height, where the files were checked.
    pub fn sizes(&self) -> Option<((usize, usize), (usize, usize))> {
        self.sizes
    }
}

fn read(path: &Path, limits: Limits) -> Result<Image> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
    decode::decode(&bytes, limits).map_err(|reason| Error::Decode { path: path.to_path_buf(), reason })
}

impl Dataset for ImageFolder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn image(&self, index: usize) -> Result<Image> {
        let file = self.files.get(index).ok_or_else(|| index_error(self, index))?;
        self.cache.get_or_make(index, || read(&file.path, self.limits))
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.files.get(index)?.label
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn name(&self) -> String {
        self.root.display().to_string()
    }

    fn describe(&self) -> String {
        let sizes = match self.sizes {
            Some((low, high)) if low == high => format!(" of {}x{}", low.0, low.1),
            Some((low, high)) => format!(" of {}x{} to {}x{}", low.0, low.1, high.0, high.1),
            None => String::new(),
        };
        let classes = match self.classes.len() {
            0 => "no labels".to_owned(),
            n => format!("{n} classes"),
        };
        let skipped = match self.skipped.len() {
            0 => String::new(),
            n => format!(", {n} damaged files left out"),
        };
        format!("{}: {} images{sizes}, {classes}{skipped}", self.name(), self.len())
    }
}
