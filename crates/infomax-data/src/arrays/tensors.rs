//! Arrays with names: `.npy`, `.npz` and `.safetensors`, images and the labels beside them.

use super::{ArrayImages, Arrays, Label, Layout, Order, Place, Scalar, Segment};
use crate::npy::{self, NpyHeader, Number};
use crate::options::{OpenOptions, Skipped};
use crate::split::split_of;
use crate::zip_member::{is_stored, read_member};
use crate::{Error, Result};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use std::fs::File;
use std::path::{Path, PathBuf};
use zip::ZipArchive;

/// What is unpacked from one compressed archive at most.
const MAX_UNPACKED: u64 = 8 << 30;

/// An array: its name, what it holds and where.
struct Array {
    name: String,
    number: Number,
    shape: Vec<u64>,
    place: Place,
    offset: u64,
}

impl Array {
    fn bytes(&self) -> Option<u64> {
        self.shape.iter().try_fold(self.number.size(), |n, d| n.checked_mul(*d))
    }

    /// Rows, columns, channels of its images, if it can hold images.
    fn layout(&self) -> Option<Layout> {
        let scalar = match self.number {
            Number::U8 => Scalar::U8,
            Number::F32 => Scalar::F32,
            Number::F64 => Scalar::F64,
            _ => return None,
        };
        let (height, width, channels, order) = match self.shape[..] {
            [_, h, w] => (h, w, 1, Order::Interleaved),
            [_, h, w, c @ (1 | 3 | 4)] => (h, w, c, Order::Interleaved),
            [_, c @ (1 | 3 | 4), h, w] => (h, w, c, Order::Planar),
            _ => return None,
        };
        let size = |v: u64| usize::try_from(v).ok().filter(|v| (1..=1 << 20).contains(v));
        Some(Layout {
            width: size(width)?,
            height: size(height)?,
            channels: channels as usize,
            order,
            scalar,
        })
    }

    fn is_labels(&self) -> bool {
        !self.number.is_float() && matches!(self.shape[..], [_] | [_, 1])
    }
}

/// Whether a file is one of these, by its name.
pub(crate) fn is_array_file(path: &Path) -> bool {
    path.extension()
        .and_then(|e| e.to_str())
        .is_some_and(|e| ["npy", "npz", "safetensors"].iter().any(|known| e.eq_ignore_ascii_case(known)))
}

/// Opens the image arrays of some files, each with the part of a data set that its name tells.
pub(crate) fn open_arrays(
    root: &Path,
    files: &[PathBuf],
    options: &OpenOptions,
) -> Result<Vec<(&'static str, ArrayImages)>> {
    let mut arrays = Vec::new();
    for path in files {
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        match extension.to_str() {
            Some("npz") => npz(path, &mut arrays)?,
            Some("safetensors") => safetensors(path, &mut arrays)?,
            _ => arrays.push(npy_file(path)?),
        }
    }
    let (images, others): (Vec<_>, Vec<_>) = arrays.into_iter().partition(|a| a.layout().is_some());
    let names: Vec<String> = others.iter().map(|a| format!("{} {:?}", a.name, a.shape)).collect();
    if images.is_empty() {
        let reason = format!(
            "no array of images: `uint8`, or floating-point in 0..1, of (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 \
             or 4 channels; there are: {}",
            names.join(", ")
        );
        return Err(Error::Decode { path: root.to_path_buf(), reason });
    }
    let alone = images.len() == 1;
    let mut parts = Vec::new();
    for array in images {
        let part = split_of(&array.name);
        let labels = others.iter().find(|o| {
            o.is_labels()
                && (alone || split_of(&o.name) == part)
                && (is_label_name(&o.name) || others.len() == 1)
        });
        parts.push((part.unwrap_or("train"), images_of(root, array, labels, options)?));
    }
    Ok(parts)
}

/// Whether the name of a file is one of labels.
pub(crate) fn is_label_file(path: &Path) -> bool {
    is_label_name(&path.file_stem().unwrap_or_default().to_string_lossy())
}

fn is_label_name(name: &str) -> bool {
    let name = name.to_lowercase();
    let last = name.rsplit('/').next().unwrap_or(&name);
    last.contains("label")
        || last.contains("target")
        || last.contains("class")
        || last.starts_with('y')
        || last.ends_with("_y")
}

fn images_of(
    root: &Path,
    array: Array,
    labels: Option<&Array>,
    options: &OpenOptions,
) -> Result<ArrayImages> {
    let damaged = |reason: String| Error::Decode { path: array.place.path().to_path_buf(), reason };
    let layout = array.layout().ok_or_else(|| damaged(format!("{} holds no images", array.name)))?;
    let (stride, promised) = (layout.bytes() as u64, array.shape[0]);
    let mut count = (array.place.len().saturating_sub(array.offset) / stride).min(promised);
    let mut skipped = Vec::new();
    if count < promised {
        let reason = format!("{}: cut: {count} of {promised} images are there, and are used", array.name);
        skipped.push(Skipped::new(array.place.path(), reason));
    }
    let mut values = Vec::new();
    if let Some(labels) = labels {
        if labels.shape[0] != promised {
            return Err(damaged(format!(
                "{} holds {promised} images, but {} {} labels",
                array.name, labels.name, labels.shape[0]
            )));
        }
        let size = labels.number.size();
        let there = labels.place.len().saturating_sub(labels.offset) / size;
        if there < count {
            let reason = format!("{}: cut: {there} labels for {count} images", labels.name);
            skipped.push(Skipped::new(labels.place.path(), reason));
            count = there;
        }
        let bytes = labels
            .place
            .take(labels.offset, count * size)
            .map_err(|source| Error::Io { path: labels.place.path().to_path_buf(), source })?;
        values = bytes.chunks_exact(size as usize).map(|b| Label::of(labels.number.label(b), None)).collect();
    }
    let format = match array.place.path().extension().and_then(|e| e.to_str()) {
        Some(e) if e.eq_ignore_ascii_case("npz") => "NumPy .npz",
        Some(e) if e.eq_ignore_ascii_case("safetensors") => "safetensors",
        _ => "NumPy .npy",
    };
    let segments = vec![Segment { place: array.place, offset: array.offset, stride, count: count as usize }];
    let arrays = Arrays { format, layout, segments, labels: values, classes: Vec::new(), skipped };
    ArrayImages::new(root, arrays, options)
}

fn npy_file(path: &Path) -> Result<Array> {
    let place = Place::open(path)?;
    let head = place
        .take(0, place.len().min(npy::MAX_HEADER + 12))
        .map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
    let header = npy::header(&head).map_err(|reason| Error::Decode { path: path.to_path_buf(), reason })?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    arranged(name, header, place, 0)
}

/// An array at an offset of a place. What is not in C order and little-endian as it lies is brought into it, in
/// memory.
fn arranged(name: String, header: NpyHeader, place: Place, before: u64) -> Result<Array> {
    let offset = before + header.offset;
    let (number, shape) = (header.number, header.shape.clone());
    if header.is_plain() {
        return Ok(Array { name, number, shape, place, offset });
    }
    let path = place.path().to_path_buf();
    let there = place.len().saturating_sub(offset);
    let bytes = header.bytes().filter(|bytes| *bytes <= there.min(MAX_UNPACKED)).ok_or_else(|| {
        let reason = format!(
            "{name}: an array in Fortran order or big-endian is read as a whole, and {there} bytes are there for \
             the shape {shape:?}; save it with numpy.ascontiguousarray"
        );
        Error::Decode { path: path.clone(), reason }
    })?;
    let data = place.take(offset, bytes).map_err(|source| Error::Io { path: path.clone(), source })?;
    Ok(Array { name, number, shape, place: Place::memory(&path, header.arrange(data)), offset: 0 })
}

fn npz(path: &Path, arrays: &mut Vec<Array>) -> Result<()> {
    let damaged = |reason: String| Error::Decode { path: path.to_path_buf(), reason };
    let file = File::open(path).map_err(|e| crate::folder::open_error(path, e))?;
    let mut archive = ZipArchive::new(file).map_err(|e| damaged(format!("damaged .npz: {e}")))?;
    let mut unpacked = 0u64;
    for i in 0..archive.len() {
        let broken = |e: String| damaged(format!("damaged .npz: {e}"));
        let member = archive.by_index_raw(i).map_err(|e| broken(e.to_string()))?;
        let name = member.name().map_err(|e| broken(e.to_string()))?.into_owned();
        let (stored, start, size) = (is_stored(&member), member.data_start(), member.size());
        drop(member);
        let Some(short) = name.strip_suffix(".npy") else { continue };
        let mut head = Vec::new();
        let most = size.min(npy::MAX_HEADER + 12);
        read_member(&mut archive, i, most, &mut head).map_err(|e| broken(format!("{name}: {e}")))?;
        // Arrays that are not read (objects, text) are no reason to refuse the others.
        let Ok(header) = npy::header(&head) else { continue };
        let (place, before) = match (stored, start) {
            (true, Some(start)) => (Place::open(path)?, start),
            _ => {
                unpacked = unpacked.saturating_add(size);
                if unpacked > MAX_UNPACKED {
                    let reason = format!("more than {MAX_UNPACKED} bytes unpacked; save it with numpy.savez");
                    return Err(damaged(reason));
                }
                let mut bytes = Vec::new();
                read_member(&mut archive, i, size, &mut bytes).map_err(|e| broken(format!("{name}: {e}")))?;
                (Place::memory(path, bytes), 0)
            }
        };
        arrays.push(arranged(short.to_owned(), header, place, before)?);
    }
    Ok(())
}

fn safetensors(path: &Path, arrays: &mut Vec<Array>) -> Result<()> {
    let damaged = |reason: String| Error::Decode { path: path.to_path_buf(), reason };
    let io = |source: std::io::Error| Error::Io { path: path.to_path_buf(), source };
    let place = Place::open(path)?;
    let length =
        place.take(0, 8).map_err(|_| damaged("damaged safetensors: it ends within its header".into()))?;
    let length = length.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
    if length > 100_000_000 || length.saturating_add(8) > place.len() {
        return Err(damaged(format!("damaged safetensors: a header of {length} bytes")));
    }
    // `SafeTensors::read_metadata` wants the whole file in memory.
    let head = place.take(8, length).map_err(io)?;
    let metadata: Metadata =
        serde_json::from_slice(&head).map_err(|e| damaged(format!("damaged safetensors: {e}")))?;
    let mut tensors: Vec<_> = metadata.tensors().into_iter().collect();
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, info) in tensors {
        let number = match info.dtype {
            Dtype::U8 | Dtype::BOOL => Number::U8,
            Dtype::I8 => Number::I8,
            Dtype::U16 => Number::U16,
            Dtype::I16 => Number::I16,
            Dtype::U32 => Number::U32,
            Dtype::I32 => Number::I32,
            Dtype::U64 => Number::U64,
            Dtype::I64 => Number::I64,
            Dtype::F32 => Number::F32,
            Dtype::F64 => Number::F64,
            _ => continue,
        };
        let shape = info.shape.iter().map(|d| *d as u64).collect();
        let offset = (length + 8).saturating_add(info.data_offsets.0 as u64);
        let array = Array { name, number, shape, place: Place::open(path)?, offset };
        let size = info.data_offsets.1.checked_sub(info.data_offsets.0);
        if size.is_none() || array.bytes() != size.map(|s| s as u64) {
            return Err(damaged(format!(
                "damaged safetensors: {} has another size than its shape",
                array.name
            )));
        }
        arrays.push(array);
    }
    Ok(())
}
