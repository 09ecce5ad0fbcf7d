//! CIFAR-10 and CIFAR-100, the binary version and the Python version.
//!
//! Format: <https://www.cs.toronto.edu/~kriz/cifar.html>. A binary record is one label byte (CIFAR-100: the
//! coarse, then the fine label) and 3072 bytes, the red, green and blue plane of 32x32 pixels.

use super::{ArrayImages, Arrays, Layout, Order, Place, Scalar, Segment, pickle};
use crate::labels::Value;
use crate::options::{OpenOptions, Skipped};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

const PIXELS: u64 = 3072;

const LAYOUT: Layout =
    Layout { width: 32, height: 32, channels: 3, order: Order::Planar, scalar: Scalar::U8 };

const CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ten,
    Hundred,
}

impl Kind {
    fn of(folder: &Path, ten: &str, hundred: &str) -> Option<Self> {
        if folder.join(ten).is_file() || (folder.join("test_batch.bin").is_file() && ten.ends_with(".bin")) {
            Some(Self::Ten)
        } else if folder.join(hundred).is_file() {
            Some(Self::Hundred)
        } else {
            None
        }
    }

    fn classes(self) -> usize {
        match self {
            Self::Ten => 10,
            Self::Hundred => 100,
        }
    }
}

/// Whether a folder holds the binary version.
pub(crate) fn is_cifar(folder: &Path) -> bool {
    Kind::of(folder, "data_batch_1.bin", "train.bin").is_some()
}

/// Whether a folder holds the Python version.
pub(crate) fn is_cifar_python(folder: &Path) -> bool {
    let hundred = folder.join("meta").is_file() && folder.join("train").is_file();
    hundred || folder.join("data_batch_1").is_file()
}

/// The training or the test part of the binary version; `None` without files of it.
pub(crate) fn cifar(folder: &Path, part: &str, options: &OpenOptions) -> Result<Option<ArrayImages>> {
    let kind = Kind::of(folder, "data_batch_1.bin", "train.bin").unwrap_or(Kind::Ten);
    let files = files(folder, kind, part, ".bin");
    if files.is_empty() {
        return Ok(None);
    }
    let ahead = match kind {
        Kind::Ten => 1,
        Kind::Hundred => 2,
    };
    let stride = PIXELS + ahead;
    let (mut segments, mut labels, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for path in files {
        let place = Place::open(&path)?;
        let count = place.len() / stride;
        if place.len() % stride != 0 {
            let over = place.len() % stride;
            skipped.push(Skipped::new(
                &path,
                format!(
                    "record {count}: cut, {over} of {stride} bytes; the {count} records before it are used"
                ),
            ));
        }
        // The labels lie between the images, so the file is read once, in pieces.
        let per_piece = (1 << 20) / stride;
        let mut record = 0;
        while record < count {
            let take = per_piece.min(count - record);
            let bytes = place
                .take(record * stride, take * stride)
                .map_err(|source| Error::Io { path: path.clone(), source })?;
            let fine = bytes.chunks_exact(stride as usize).map(|r| i64::from(r[ahead as usize - 1]));
            labels.extend(fine.map(|label| Value::below(label, kind.classes())));
            record += take;
        }
        segments.push(Segment { place, offset: ahead, stride, count: count as usize });
    }
    let classes = class_names(folder, kind);
    let format = match kind {
        Kind::Ten => "CIFAR-10 binary",
        Kind::Hundred => "CIFAR-100 binary",
    };
    let arrays = Arrays { format, layout: LAYOUT, segments, labels, classes, skipped, notes: Vec::new() };
    ArrayImages::new(folder, arrays, options).map(Some)
}

/// The training or the test part of the Python version; `None` without files of it.
pub(crate) fn cifar_python(folder: &Path, part: &str, options: &OpenOptions) -> Result<Option<ArrayImages>> {
    let kind = if folder.join("data_batch_1").is_file() { Kind::Ten } else { Kind::Hundred };
    let files = files(folder, kind, part, "");
    if files.is_empty() {
        return Ok(None);
    }
    let (mut segments, mut labels, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
    for path in files {
        let bytes = std::fs::read(&path).map_err(|e| crate::folder::open_error(&path, e))?;
        let (pixels, values) = match pickle::batch(&bytes) {
            Ok(found) => found,
            Err(reason) => {
                skipped.push(Skipped::new(&path, format!("damaged pickle: {reason}")));
                continue;
            }
        };
        labels.extend(values.iter().map(|label| Value::below(*label, kind.classes())));
        let place = Place::memory(&path, pixels);
        segments.push(Segment { place, offset: 0, stride: PIXELS, count: values.len() });
    }
    let meta = folder.join(if kind == Kind::Ten { "batches.meta" } else { "meta" });
    let names = std::fs::read(&meta).ok().and_then(|bytes| pickle::class_names(&bytes).ok());
    let classes = names.filter(|n| n.len() == kind.classes()).unwrap_or_else(|| class_names(folder, kind));
    let format = match kind {
        Kind::Ten => "CIFAR-10 Python",
        Kind::Hundred => "CIFAR-100 Python",
    };
    let arrays = Arrays { format, layout: LAYOUT, segments, labels, classes, skipped, notes: Vec::new() };
    ArrayImages::new(folder, arrays, options).map(Some)
}

/// The files of a part that are there.
fn files(folder: &Path, kind: Kind, part: &str, extension: &str) -> Vec<PathBuf> {
    let names: Vec<String> = match (kind, part) {
        (Kind::Ten, "train") => (1..=5).map(|i| format!("data_batch_{i}{extension}")).collect(),
        (Kind::Ten, _) => vec![format!("test_batch{extension}")],
        (Kind::Hundred, part) => vec![format!("{part}{extension}")],
    };
    names.into_iter().map(|name| folder.join(name)).filter(|path| path.is_file()).collect()
}

/// The names of the classes: those of the text file beside the data, else those of the authors, else numbers.
fn class_names(folder: &Path, kind: Kind) -> Vec<String> {
    let file = match kind {
        Kind::Ten => "batches.meta.txt",
        Kind::Hundred => "fine_label_names.txt",
    };
    let text = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
    let names: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    if names.len() == kind.classes() {
        return names;
    }
    match kind {
        Kind::Ten => CLASSES.map(str::to_owned).to_vec(),
        Kind::Hundred => (0..100).map(|label| label.to_string()).collect(),
    }
}
