//! Images of one size, without compression, at known places of files: CIFAR, STL-10, IDX, NumPy, safetensors.

mod cifar;
mod idx;
mod pickle;
mod pixels;
mod place;
mod stl10;
pub(crate) mod tensors;

pub(crate) use cifar::{cifar, cifar_python, is_cifar, is_cifar_python};
pub(crate) use idx::{idx, idx_split, idx_stem, is_idx, is_idx_labels};
pub(crate) use place::Place;
pub(crate) use stl10::{is_stl10, stl10};
pub(crate) use tensors::{is_array_file, is_label_file, open_arrays};

use crate::dataset::{Dataset, SizeRange, index_error};
use crate::labels::{NONE, Value, number};
use crate::npy::Number;
use crate::options::{OpenOptions, Skipped, accept};
use crate::{Error, Result};
use infomax_augment::Image;
use std::collections::BTreeSet;
use std::path::Path;

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

/// How a pixel is stored: a little-endian number, and by what it is multiplied to be a gray level 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scalar {
    pub(crate) number: Number,
    pub(crate) scale: f64,
}

impl Scalar {
    pub(crate) const U8: Self = Self { number: Number::U8, scale: 1.0 };
}

impl Default for Scalar {
    fn default() -> Self {
        Self::U8
    }
}

/// The shape of all images.
#[derive(Clone, Copy, Debug, PartialEq)]
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
        self.numbers() * self.scalar.number.size() as usize
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
    notes: Vec<String>,
}

/// What a format found.
pub(crate) struct Arrays {
    pub(crate) format: &'static str,
    pub(crate) layout: Layout,
    pub(crate) segments: Vec<Segment>,
    /// One for every record of every segment, or empty.
    pub(crate) labels: Vec<Value>,
    /// Names that the format declares.
    pub(crate) classes: Vec<String>,
    pub(crate) skipped: Vec<Skipped>,
    pub(crate) notes: Vec<String>,
}

impl ArrayImages {
    pub(crate) fn new(root: &Path, arrays: Arrays, options: &OpenOptions) -> Result<Self> {
        let Arrays { format, mut layout, segments, labels, mut classes, mut skipped, mut notes } = arrays;
        let refuse = |reason: String| Error::Decode { path: root.to_path_buf(), reason };
        let pixels = layout.width.saturating_mul(layout.height);
        if pixels == 0 || pixels > options.max_pixels {
            return Err(refuse(format!(
                "images of {}x{} pixels; the limit is 1 to {} (max_pixels)",
                layout.width, layout.height, options.max_pixels
            )));
        }
        let count: usize = segments.iter().map(|s| s.count).sum();
        if !labels.is_empty() && labels.len() != count {
            return Err(refuse(format!("{count} images but {} labels", labels.len())));
        }
        let mut left_out = BTreeSet::new();
        if let [only] = &segments[..]
            && only.count > 0
        {
            let name = only.place.path().file_name().unwrap_or_default().to_string_lossy();
            let judged = pixels::judge(only, &layout, layout.scalar.number, &name)
                .map_err(|reason| Error::Decode { path: only.place.path().to_path_buf(), reason })?;
            layout.scalar = judged.scalar;
            notes.extend(judged.notes);
            for (record, reason) in judged.wrong {
                skipped.push(Skipped::new(only.place.path(), reason));
                left_out.insert(record);
            }
        }
        let mut plain = Vec::with_capacity(labels.len());
        if labels.is_empty() {
            classes.clear();
        } else {
            let numbered = number(&labels, &classes);
            classes = numbered.classes;
            let mut places = segments.iter().flat_map(|s| (0..s.count).map(move |record| (s, record)));
            for (i, label) in numbered.labels.into_iter().enumerate() {
                let place = places.next();
                plain.push(label.as_ref().copied().unwrap_or(NONE));
                if let (Err(reason), Some((segment, record))) = (label, place)
                    && left_out.insert(i)
                {
                    skipped.push(Skipped::new(segment.place.path(), format!("record {record}: {reason}")));
                }
            }
        }
        let mut kept = None;
        if !left_out.is_empty() {
            let places = segments
                .iter()
                .zip(0u32..)
                .flat_map(|(s, i)| (0..s.count as u32).map(move |record| (i, record)));
            let places = places.enumerate().filter(|(i, _)| !left_out.contains(i)).map(|(_, place)| place);
            kept = Some(places.collect::<Vec<_>>());
            let mut index = 0;
            plain.retain(|_| {
                index += 1;
                !left_out.contains(&(index - 1))
            });
        }
        let samples = kept.as_ref().map_or(count, Vec::len);
        accept(root, samples, segments.len(), &skipped, options.strict)?;
        let name = root.display().to_string();
        Ok(Self { name, format, layout, segments, kept, labels: plain, classes, skipped, notes })
    }

    /// Adds a sentence to what the user should know.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
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

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn sizes(&self) -> Option<SizeRange> {
        SizeRange::of([(self.layout.width, self.layout.height)])
    }
}

/// Numbers as bytes 0 to 255.
fn to_u8(bytes: Vec<u8>, scalar: Scalar) -> Result<Vec<u8>, String> {
    let Scalar { number, scale } = scalar;
    if scalar == Scalar::U8 {
        return Ok(bytes);
    }
    let level = |b: &[u8]| {
        let v = number.float(b);
        // Half a level beyond the ends is the rounding of whoever wrote it.
        match (-0.5..=255.5).contains(&(v * scale)) {
            true => Ok((v * scale).round().clamp(0.0, 255.0) as u8),
            false => {
                let most = if scale == 255.0 { 1.0 } else { (255.0 / scale).round() };
                Err(format!("a pixel of {v}; the images of this array hold 0 to {most}"))
            }
        }
    };
    bytes.chunks_exact(number.size() as usize).map(level).collect()
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
