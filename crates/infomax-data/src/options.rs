//! How images are read.

use crate::decode::Limits;
use crate::{Error, Result};
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

/// How much of every encoded image is checked when a source is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// Everything where all images fit into the cache, else the headers, and above 100,000 files nothing.
    #[default]
    Auto,
    /// Nothing: a damaged image is found when it is used.
    Never,
    /// Format and size.
    Header,
    /// Every image is decoded once.
    Decode,
}

/// How a source is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpenOptions {
    /// Where the labels of an image folder come from.
    pub labels: Labels,
    /// Whether a damaged file or sample is an error instead of being left out.
    pub strict: bool,
    /// How much is checked at the start.
    pub verify: Verify,
    /// The largest number of pixels of an image.
    pub max_pixels: usize,
    /// Bytes of memory in which decoded images may be kept.
    pub cache_bytes: usize,
    /// Which image of a sample that has several: the field of tar shards (`jpg`, `left.png`), the column of parquet
    /// files, the name of an array. `None` follows the rule of the format.
    pub image: Option<String>,
    /// Where the labels stand where there are several: the field of tar shards (`cls`), the column of parquet files
    /// and of lists, the name of an array. `None` follows the rule of the format.
    pub label: Option<String>,
    /// Whether images are turned upright as their EXIF data ask. Off as in torchvision: the pixels are those that
    /// are stored.
    pub exif_orientation: bool,
}

/// The options of an [`ImageFolder`](crate::ImageFolder): those of every source.
pub type FolderOptions = OpenOptions;

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            labels: Labels::Folders,
            strict: false,
            verify: Verify::Auto,
            max_pixels: Limits::default().max_pixels,
            cache_bytes: 1 << 30,
            image: None,
            label: None,
            exif_orientation: false,
        }
    }
}

impl OpenOptions {
    pub(crate) fn limits(&self) -> Limits {
        Limits { max_pixels: self.max_pixels }
    }
}

/// A file or a sample that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why, and which sample of it.
    pub reason: String,
}

impl Skipped {
    pub(crate) fn new(path: &Path, reason: impl Into<String>) -> Self {
        Self { path: path.to_path_buf(), reason: reason.into() }
    }
}

/// Refuses what was left out under `strict`, and a source without any sample.
pub(crate) fn accept(
    root: &Path,
    samples: usize,
    files: usize,
    skipped: &[Skipped],
    strict: bool,
) -> Result<()> {
    if strict && !skipped.is_empty() {
        let list: Vec<_> =
            skipped.iter().take(5).map(|s| format!("{}: {}", s.path.display(), s.reason)).collect();
        return Err(Error::Damaged { path: root.to_path_buf(), count: skipped.len(), list: list.join("; ") });
    }
    if samples == 0 {
        let example = skipped.first().map(|s| match s.path == root {
            true => s.reason.clone(),
            false => format!("{}: {}", s.path.display(), s.reason),
        });
        return Err(Error::Empty {
            path: root.to_path_buf(),
            files,
            damaged: skipped.len(),
            example: example.unwrap_or_default(),
        });
    }
    Ok(())
}
