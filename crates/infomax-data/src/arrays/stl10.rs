//! STL-10, the binary version: images of 96x96 in three planes, each column by column; labels from 1.
//!
//! Format: <https://cs.stanford.edu/~acoates/stl10/>.

use super::{ArrayImages, Arrays, Layout, Order, Place, Scalar, Segment};
use crate::labels::Value;
use crate::options::{OpenOptions, Skipped};
use crate::{Error, Result};
use std::path::Path;

const SIDE: usize = 96;

const CLASSES: [&str; 10] =
    ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"];

/// Whether a folder holds it.
pub(crate) fn is_stl10(folder: &Path) -> bool {
    ["train_X.bin", "unlabeled_X.bin"].iter().any(|name| folder.join(name).is_file())
}

/// `train`, `test` or `unlabeled`; `None` without its file.
pub(crate) fn stl10(folder: &Path, part: &str, options: &OpenOptions) -> Result<Option<ArrayImages>> {
    let path = folder.join(format!("{part}_X.bin"));
    if !path.is_file() {
        return Ok(None);
    }
    let layout =
        Layout { width: SIDE, height: SIDE, channels: 3, order: Order::PlanarColumns, scalar: Scalar::U8 };
    let stride = layout.bytes() as u64;
    let place = Place::open(&path)?;
    let (mut count, mut skipped) = (place.len() / stride, Vec::new());
    if place.len() % stride != 0 {
        let over = place.len() % stride;
        let reason =
            format!("record {count}: cut, {over} of {stride} bytes; the {count} records before it are used");
        skipped.push(Skipped::new(&path, reason));
    }
    let beside = folder.join(format!("{part}_y.bin"));
    let mut labels = Vec::new();
    if beside.is_file() {
        let bytes = std::fs::read(&beside).map_err(|source| Error::Io { path: beside.clone(), source })?;
        if bytes.len() as u64 != count {
            let reason = format!("{} labels for {count} images; what has both is used", bytes.len());
            skipped.push(Skipped::new(&beside, reason));
            count = count.min(bytes.len() as u64);
        }
        labels = bytes.iter().take(count as usize).map(|v| Value::below(i64::from(*v) - 1, 10)).collect();
    }
    let text = std::fs::read_to_string(folder.join("class_names.txt")).unwrap_or_default();
    let mut classes: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    if classes.len() != 10 {
        classes = CLASSES.map(str::to_owned).to_vec();
    }
    let segments = vec![Segment { place, offset: 0, stride, count: count as usize }];
    let arrays =
        Arrays { format: "STL-10 binary", layout, segments, labels, classes, skipped, notes: Vec::new() };
    ArrayImages::new(folder, arrays, options).map(Some)
}
