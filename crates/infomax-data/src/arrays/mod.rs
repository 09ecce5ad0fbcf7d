//! Images of one size, without compression, at known places of files: CIFAR, STL-10, IDX, NumPy, safetensors.

mod cifar;
mod idx;
mod pickle;
mod place;
mod stl10;
mod tensors;

pub(crate) use cifar::{cifar, cifar_python, is_cifar, is_cifar_python};
pub(crate) use idx::{idx, idx_split, is_idx};
pub(crate) use place::Place;
pub(crate) use stl10::{is_stl10, stl10};
pub(crate) use tensors::{is_array_file, is_label_file, open_arrays};

use crate::dataset::{Dataset, SizeRange, index_error};
use crate::options::{OpenOptions, Skipped, accept};
use crate::{Error, Result};
use infomax_augment::Image;
use std::path::Path;

/// The label of a sample without a class.
pub(crate) const NONE: u32 = u32::MAX;

/// In which order the numbers of an image lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Rows, columns, channels.
    Interleaved,
    /// Channels, rows, columns.
    Planar,
    /// Channels, columns, rows.
    PlanarColumns,
}

/// How a pixel is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scalar {
    U8,
    /// Little-endian, 0 to 1.
    F32,
    /// Little-endian, 0 to 1.
    F64,
}

/// The shape of all images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) channels: usize,
    pub(crate) order: Order,
    pub(crate) scalar: Scalar,
}

impl Layout {
    pub(crate) fn numbers(&self) -> usize {
        self.width * self.height * self.channels
    }

    pub(crate) fn bytes(&self) -> usize {
        let size = match self.scalar {
            Scalar::U8 => 1,
            Scalar::F32 => 4,
            Scalar::F64 => 8,
        };
        self.numbers() * size
    }
}

/// Records of equal length one after the other.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) place: Place,
    /// Where the first image starts.
    pub(crate) offset: u64,
    /// From one image to the next.
    pub(crate) stride: u64,
    pub(crate) count: usize,
}

/// Images of one size that lie uncompressed in files (or in memory, where the file is compressed).
///
/// Nothing is held of files but their handles: each image is read when it is asked for, by position, so any
/// number of threads read at once, and the cache of the operating system keeps what is used.
#[derive(Debug)]
pub struct ArrayImages {
    name: String,
    format: &'static str,
    layout: Layout,
    segments: Vec<Segment>,
    /// Segment and record of every sample, where some were left out.
    kept: Option<Vec<(u32, u32)>>,
    labels: Vec<u32>,
    classes: Vec<String>,
    skipped: Vec<Skipped>,
}

/// What a format found.
pub(crate) struct Arrays {
    pub(crate) format: &'static str,
    pub(crate) layout: Layout,
    pub(crate) segments: Vec<Segment>,
    /// One for every record of every segment, or empty.
    pub(crate) labels: Vec<Label>,
    pub(crate) classes: Vec<String>,
    pub(crate) skipped: Vec<Skipped>,
}

/// The label of a record as it stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    Known(u32),
    Unknown,
    /// Out of range: the sample is left out.
    Wrong(i64),
}

impl Label {
    /// A label below `classes`; without a number of classes, below a million, and -1 means unknown.
    pub(crate) fn of(value: i64, classes: Option<usize>) -> Self {
        let most = classes.unwrap_or(crate::folder::MAX_LABEL as usize + 1);
        match u32::try_from(value) {
            Ok(label) if (label as usize) < most => Self::Known(label),
            _ if value == -1 && classes.is_none() => Self::Unknown,
            _ => Self::Wrong(value),
        }
    }
}

impl ArrayImages {
    pub(crate) fn new(root: &Path, arrays: Arrays, options: &OpenOptions) -> Result<Self> {
        let Arrays { format, layout, segments, labels, mut classes, mut skipped } = arrays;
        let pixels = layout.width.saturating_mul(layout.height);
        if pixels == 0 || pixels > options.max_pixels {
            return Err(Error::Decode {
                path: root.to_path_buf(),
                reason: format!(
                    "images of {}x{} pixels; the limit is 1 to {} (max_pixels)",
                    layout.width, layout.height, options.max_pixels
                ),
            });
        }
        let count: usize = segments.iter().map(|s| s.count).sum();
        if labels.is_empty() {
            classes.clear();
        }
        if !labels.is_empty() && labels.len() != count {
            return Err(Error::Decode {
                path: root.to_path_buf(),
                reason: format!("{count} images but {} labels", labels.len()),
            });
        }
        let mut places =
            segments.iter().zip(0u32..).flat_map(|(s, i)| (0..s.count as u32).map(move |record| (i, record)));
        let wrong = labels.iter().any(|l| matches!(l, Label::Wrong(_)));
        let (mut kept, mut plain) = (Vec::new(), Vec::with_capacity(labels.len()));
        for label in &labels {
            let place = places.next().unwrap_or_default();
            match *label {
                Label::Known(label) => plain.push(label),
                Label::Unknown => plain.push(NONE),
                Label::Wrong(value) => {
                    let path = segments[place.0 as usize].place.path();
                    let most = if classes.is_empty() { 1_000_000 } else { classes.len() };
                    let reason = format!("record {}: the label {value} is not in 0..{most}", place.1);
                    skipped.push(Skipped::new(path, reason));
                    continue;
                }
            }
            if wrong {
                kept.push(place);
            }
        }
        if classes.is_empty() {
            let most = plain.iter().filter(|l| **l != NONE).max();
            classes = (0..most.map_or(0, |m| m + 1)).map(|label| label.to_string()).collect();
        }
        let samples = if wrong { kept.len() } else { count };
        accept(root, samples, segments.len(), &skipped, options.strict)?;
        let name = root.display().to_string();
        let kept = wrong.then_some(kept);
        Ok(Self { name, format, layout, segments, kept, labels: plain, classes, skipped })
    }

    /// Segment and record of a sample.
    fn locate(&self, index: usize) -> Option<(&Segment, u64)> {
        if let Some(kept) = &self.kept {
            let (segment, record) = kept.get(index)?;
            return Some((self.segments.get(*segment as usize)?, u64::from(*record)));
        }
        let mut left = index;
        for segment in &self.segments {
            if left < segment.count {
                return Some((segment, left as u64));
            }
            left -= segment.count;
        }
        None
    }
}

impl Dataset for ArrayImages {
    fn len(&self) -> usize {
        match &self.kept {
            Some(kept) => kept.len(),
            None => self.segments.iter().map(|s| s.count).sum(),
        }
    }

    fn image(&self, index: usize) -> Result<Image> {
        let (segment, record) = self.locate(index).ok_or_else(|| index_error(self, index))?;
        let mut bytes = vec![0; self.layout.bytes()];
        segment
            .place
            .read(segment.offset + record * segment.stride, &mut bytes)
            .map_err(|source| Error::Io { path: segment.place.path().to_path_buf(), source })?;
        let numbers = to_u8(bytes, self.layout.scalar).map_err(|reason| Error::Decode {
            path: segment.place.path().to_path_buf(),
            reason: format!("record {record}: {reason}"),
        })?;
        let Layout { width, height, channels, order, .. } = self.layout;
        Ok(Image::new(width, height, channels, interleave(numbers, width, height, channels, order))?)
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.get(index).copied().filter(|label| *label != NONE)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn place(&self, index: usize) -> String {
        match self.locate(index) {
            Some((segment, record)) => format!("{}, record {record}", segment.place.path().display()),
            None => format!("sample {index}"),
        }
    }

    fn format(&self) -> &'static str {
        self.format
    }

    fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    fn sizes(&self) -> Option<SizeRange> {
        SizeRange::of([(self.layout.width, self.layout.height)])
    }
}

/// Numbers as bytes 0 to 255.
fn to_u8(bytes: Vec<u8>, scalar: Scalar) -> Result<Vec<u8>, String> {
    let scale = |v: f64| match (0.0..=1.0).contains(&v) {
        true => Ok((v * 255.0).round() as u8),
        false => Err(format!("a pixel of {v}; floating-point images hold 0 to 1")),
    };
    match scalar {
        Scalar::U8 => Ok(bytes),
        Scalar::F32 => bytes
            .chunks_exact(4)
            .map(|b| scale(f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))))
            .collect(),
        Scalar::F64 => bytes
            .chunks_exact(8)
            .map(|b| scale(f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])))
            .collect(),
    }
}

/// Brings pixels into the order rows, columns, channels.
fn interleave(data: Vec<u8>, width: usize, height: usize, channels: usize, order: Order) -> Vec<u8> {
    if order == Order::Interleaved || (channels == 1 && order == Order::Planar) {
        return data;
    }
    let (plane, mut out) = (width * height, vec![0; data.len()]);
    for (c, values) in data.chunks_exact(plane).enumerate() {
        match order {
            Order::PlanarColumns => {
                for (x, column) in values.chunks_exact(height).enumerate() {
                    for (y, v) in column.iter().enumerate() {
                        out[(y * width + x) * channels + c] = *v;
                    }
                }
            }
            _ => out[c..].iter_mut().step_by(channels).zip(values).for_each(|(o, v)| *o = *v),
        }
    }
    out
}
