//! The error of this crate.

use std::path::PathBuf;

/// What can go wrong while data are found, read and batched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A path does not exist.
    #[error(
        "{path}: no such file or folder; give the folder that holds the images (or class sub-folders of images)"
    )]
    NotFound {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// A path is not a folder.
    #[error("{path}: not a folder; give the folder that holds the images")]
    NotAFolder {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// A folder holds no usable image.
    #[error("{path}: no usable image{}", empty(*.files, *.damaged, .example))]
    Empty {
        /// The folder.
        path: PathBuf,
        /// The number of files that were seen.
        files: usize,
        /// The number of image files that could not be read.
        damaged: usize,
        /// The first of them with its reason, as text; empty if there is none.
        example: String,
    },
    /// The operating system refused to read.
    #[error("{path}: {source}")]
    Io {
        /// What was read.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A file is not an image, or a damaged one.
    #[error("{path}: {reason}")]
    Decode {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Damaged files were found and the options do not allow to leave them out.
    #[error("{path}: {count} damaged files; remove them or read without `strict`. {list}")]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// The number of damaged files.
        count: usize,
        /// The first of them with their reasons.
        list: String,
    },
    /// A sample was asked for that does not exist.
    #[error("sample {index} was asked for, {name} has {len}")]
    Index {
        /// The index that was asked for.
        index: usize,
        /// The number of samples.
        len: usize,
        /// The data set.
        name: String,
    },
    /// A batch needs more samples than there are.
    #[error(
        "a batch of {}{} needs more than the {len} samples of {name}; use a batch of at most {}", batch * ranks,
        if *ranks > 1 { format!(" over {ranks} processes") } else { String::new() }, most * ranks
    )]
    BatchTooLarge {
        /// The samples of a batch in one process.
        batch: usize,
        /// The number of processes.
        ranks: usize,
        /// The samples of the data set.
        len: usize,
        /// The largest batch that fits.
        most: usize,
        /// The data set.
        name: String,
    },
    /// A setting is outside of its range.
    #[error("{key} = {value}: {reason}")]
    Config {
        /// The name of the setting.
        key: String,
        /// Its value, as text.
        value: String,
        /// Why it is refused, and what is accepted.
        reason: String,
    },
    /// A sample could not be made into a view.
    #[error("sample {index} of {name}: {source}")]
    Sample {
        /// The index of the sample.
        index: usize,
        /// The data set.
        name: String,
        /// What went wrong.
        source: Box<Error>,
    },
    /// More samples are damaged than may be replaced.
    #[error(
        "{count} samples could not be read, more than the {most} that may be replaced; is a disk failing? {list}"
    )]
    TooManyDamaged {
        /// The number of different damaged samples so far.
        count: usize,
        /// The largest number that is accepted.
        most: usize,
        /// The first of them with their reasons.
        list: String,
    },
    /// A worker thread ended without a result.
    #[error("a loader thread stopped unexpectedly ({0}); this is a defect, please report it")]
    Worker(String),
    /// An error of the augmentation.
    #[error(transparent)]
    Augment(#[from] infomax_augment::Error),
    /// An error of Candle.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Why there is no image: the first reason, or else what is read.
fn empty(files: usize, damaged: usize, example: &str) -> String {
    match (example.is_empty(), damaged) {
        (true, _) => format!(
            " among {files} files; JPEG and PNG are read, and WebP, GIF, BMP and TIFF with the feature `formats`, in \
             the folder or in sub-folders of it"
        ),
        (false, ..=1) => format!(": {example}"),
        (false, _) => format!(": {example}; and {} more were left out", damaged - 1),
    }
}

impl Error {
    pub(crate) fn config(key: impl Into<String>, value: impl ToString, reason: impl Into<String>) -> Self {
        Self::Config { key: key.into(), value: value.to_string(), reason: reason.into() }
    }
}

impl From<Error> for infomax_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(e) => Self::Candle(e),
            Error::Config { key, value, reason } => Self::Config { key, value, reason },
            other => Self::other("reading data", other),
        }
    }
}

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
