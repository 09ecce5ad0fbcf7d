//! Arrays with names: `.npy`, `.npz` and `.safetensors`, images and the labels beside them.

use super::{ArrayImages, Arrays, Layout, Order, Place, Scalar, Segment};
use crate::labels::Value;
use crate::npy::{self, NpyHeader, Number, label_values};
use crate::options::{OpenOptions, Skipped};
use crate::split::PARTS;
use crate::split::{split_of, words};
use crate::zip_member::{is_stored, read_member};
use crate::{Error, Result};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use std::collections::{BTreeMap, BTreeSet};
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

    /// Rows, columns, channels of its images, if it can hold images: every type of numbers, and axes of length 1
    /// before the samples are passed over.
    fn layout(&self) -> Option<Layout> {
        if self.number.is_text() {
            return None;
        }
        let mut shape = &self.shape[..];
        while let ([1, inner @ ..], true) = (shape, shape.len() > 4) {
            shape = inner;
        }
        let (height, width, channels, order) = match shape {
            // (H, W, 3) is one image and no set of them.
            [_, h, w] if *w != 3 || *h <= 3 => (h, w, 1, Order::Interleaved),
            [_, h, w, c @ (1 | 3 | 4)] => (h, w, *c, Order::Interleaved),
            [_, c @ (1 | 3 | 4), h, w] => (h, w, *c, Order::Planar),
            _ => return None,
        };
        let size = |v: u64| usize::try_from(v).ok().filter(|v| (1..=1 << 20).contains(v));
        // The scale of the numbers is found when the array is opened.
        let scalar = Scalar { number: self.number, ..Scalar::U8 };
        let (width, height) = (size(*width)?, size(*height)?);
        Some(Layout { width, height, channels: channels as usize, order, scalar })
    }

    /// The number of images, if it can hold images.
    fn samples(&self) -> u64 {
        let extra = if self.shape.len() > 4 { self.shape.len() - 4 } else { 0 };
        self.shape.get(extra).copied().unwrap_or(0)
    }

    /// Whether it can hold a label for each of so many samples.
    fn has_rows(&self, samples: u64) -> bool {
        self.shape.first() == Some(&samples) || self.shape[..] == [1, samples]
    }

    /// The shape and the type, for messages.
    fn describe(&self) -> String {
        format!("{} {:?} {:?}", self.name, self.shape, self.number)
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
    let (mut arrays, mut unread) = (Vec::new(), Vec::new());
    for path in files {
        let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
        match extension.to_str() {
            Some("npz") => npz(path, &mut arrays, &mut unread)?,
            Some("safetensors") => safetensors(path, &mut arrays, &mut unread)?,
            _ => match npy_file(path) {
                // Beside others, an array that is not read is no reason to refuse them.
                Err(Error::Decode { path, reason }) if files.len() > 1 => {
                    unread.push(format!(
                        "{}: {reason}",
                        path.file_name().unwrap_or_default().to_string_lossy()
                    ));
                }
                array => arrays.push(array?),
            },
        }
    }
    let refuse = |reason: String| Error::Decode { path: root.to_path_buf(), reason };
    let (images, mut others): (Vec<_>, Vec<_>) = arrays.into_iter().partition(|a| match &options.image {
        Some(wanted) => a.layout().is_some() && is_named(&a.name, wanted),
        None => a.layout().is_some(),
    });
    if images.is_empty() {
        let there: Vec<String> = others.iter().map(Array::describe).chain(unread).collect();
        let wanted = options.image.as_ref().map_or_else(String::new, |name| format!(" called `{name}`"));
        let reason = format!(
            "no array of images{wanted}: numbers of any type of (N, H, W), (N, H, W, C) or (N, C, H, W) with 1, 3 or 4 \
             channels (a flat array is none: x.reshape(-1, 28, 28)); there are: {}",
            there.join(", ")
        );
        return Err(refuse(reason));
    }
    // Of several arrays for one part, the one whose name or type is that of images.
    let mut chosen: Vec<(&'static str, Array)> = Vec::new();
    let mut by_part: BTreeMap<&'static str, Vec<Array>> = BTreeMap::new();
    for array in images {
        by_part.entry(split_of(&array.name).unwrap_or("train")).or_default().push(array);
    }
    for (part, mut candidates) in by_part {
        let names = candidates.iter().map(Array::describe).collect::<Vec<_>>().join(", ");
        for better in [is_image_name, |a: &Array| !is_label_name(&a.name), is_pixel_type] {
            if candidates.len() > 1 && candidates.iter().any(better) {
                let (keep, rest) = candidates.into_iter().partition(better);
                candidates = keep;
                let rest: Vec<Array> = rest;
                others.extend(rest);
            }
        }
        let only = candidates.pop().filter(|_| candidates.is_empty());
        let only = only.ok_or_else(|| {
            refuse(format!(
                "two arrays of images for `{part}`: {names}; name them apart by `train`, `test`, `val`, or choose one \
                 with data.image"
            ))
        })?;
        chosen.push((part, only));
    }
    chosen.sort_by_key(|(part, _)| PARTS.iter().position(|p| p == part));
    let alone = chosen.len() == 1;
    let mut used: BTreeSet<usize> = BTreeSet::new();
    let mut parts = Vec::new();
    for (part, array) in chosen {
        let told = split_of(&array.name);
        let candidates = others.iter().enumerate().filter(|(_, o)| alone || split_of(&o.name) == told);
        let mut labels: Vec<(usize, &Array)> = match &options.label {
            Some(wanted) => candidates.filter(|(_, o)| is_named(&o.name, wanted)).collect(),
            None => candidates.filter(|(_, o)| is_label_name(&o.name) || others.len() == 1).collect(),
        };
        labels
            .sort_by_key(|(_, o)| (!o.has_rows(array.samples()), o.name.contains("coarse"), o.name.clone()));
        used.extend(labels.first().map(|(at, _)| at));
        let mut notes = Vec::new();
        if let [(_, first), more @ ..] = &labels[..]
            && !more.is_empty()
        {
            let more: Vec<String> = more.iter().map(|(_, o)| o.describe()).collect();
            notes.push(format!(
                "labels are those of {}; not used: {} (data.label names another one)",
                first.name,
                more.join(", ")
            ));
        }
        if let (Some(wanted), true) = (&options.label, labels.is_empty()) {
            let there: Vec<&str> = others.iter().map(|o| o.name.as_str()).collect();
            return Err(refuse(format!(
                "no array `{wanted}` for the labels; there are: {}",
                there.join(", ")
            )));
        }
        let unlabeled = labels.is_empty();
        let found = images_of(root, array, labels.first().map(|(_, o)| *o), notes, options)?;
        parts.push((part, found, unlabeled));
    }
    let unused: Vec<String> = others
        .iter()
        .enumerate()
        .filter(|(at, other)| !used.contains(at) && !is_label_name(&other.name))
        .map(|(_, other)| other.describe())
        .chain(unread)
        .collect();
    if let (Some((_, first, unlabeled)), false) = (parts.first_mut(), unused.is_empty()) {
        let hint =
            if *unlabeled { "; labels are arrays called label (labels), target, class or y" } else { "" };
        first.note(format!("arrays that are not used: {}{hint}", unused.join(", ")));
    }
    Ok(parts.into_iter().map(|(part, data, _)| (part, data)).collect())
}

/// Whether an array is the one that is asked for: by its name, or without the word of a part (`train_fine_labels` for
/// `fine_labels`).
fn is_named(name: &str, wanted: &str) -> bool {
    let plain = |name: &str| {
        let words = words(name.rsplit('/').next().unwrap_or(name));
        words.into_iter().filter(|w| crate::split::part_of_word(w).is_none()).collect::<Vec<_>>()
    };
    name == wanted || plain(name) == plain(wanted)
}

fn is_image_name(array: &Array) -> bool {
    words(&array.name).iter().any(|w| {
        matches!(
            w.as_str(),
            "image" | "images" | "img" | "imgs" | "x" | "xtrain" | "xtest" | "xval" | "pixels" | "data"
        )
    })
}

/// Bytes and floating point, as images are stored most.
fn is_pixel_type(array: &Array) -> bool {
    array.number == Number::U8 || array.number.is_float()
}

/// Whether the name of a file is one of labels.
pub(crate) fn is_label_file(path: &Path) -> bool {
    is_label_name(&path.file_stem().unwrap_or_default().to_string_lossy())
}

fn is_label_name(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    let lower = last.to_lowercase();
    let words = words(last);
    ["label", "target", "class", "categor"].iter().any(|known| lower.contains(known))
        || words.iter().any(|w| {
            matches!(w.as_str(), "y" | "ys" | "ytrain" | "ytest" | "yval" | "gt" | "cls" | "trainy" | "testy")
        })
}

fn images_of(
    root: &Path,
    array: Array,
    labels: Option<&Array>,
    mut notes: Vec<String>,
    options: &OpenOptions,
) -> Result<ArrayImages> {
    let damaged = |reason: String| Error::Decode { path: array.place.path().to_path_buf(), reason };
    let layout = array.layout().ok_or_else(|| damaged(format!("{} holds no images", array.name)))?;
    let (stride, promised) = (layout.bytes() as u64, array.samples());
    let mut count = (array.place.len().saturating_sub(array.offset) / stride).min(promised);
    let mut skipped = Vec::new();
    if count < promised {
        let reason = format!("{}: cut: {count} of {promised} images are there, and are used", array.name);
        skipped.push(Skipped::new(array.place.path(), reason));
    }
    let mut values = Vec::new();
    if let Some(labels) = labels {
        if !labels.has_rows(promised) {
            return Err(damaged(format!(
                "{} holds {promised} images, but {} {} labels",
                array.name,
                labels.name,
                labels.shape.first().copied().unwrap_or(1)
            )));
        }
        let whole = labels.bytes().filter(|n| *n <= MAX_UNPACKED && promised > 0);
        let size = whole.ok_or_else(|| damaged(format!("{} is too large for labels", labels.describe())))?
            / promised;
        let there = labels.place.len().saturating_sub(labels.offset) / size.max(1);
        if there < count {
            let reason = format!("{}: cut: {there} labels for {count} images", labels.name);
            skipped.push(Skipped::new(labels.place.path(), reason));
            count = there;
        }
        let bytes = labels
            .place
            .take(labels.offset, count * size)
            .map_err(|source| Error::Io { path: labels.place.path().to_path_buf(), source })?;
        let mut shape = labels.shape.clone();
        if let [1, samples] = &mut shape[..] {
            *samples = count;
        } else if let Some(first) = shape.first_mut() {
            *first = count;
        }
        let read = label_values(labels.number, &shape, &bytes).and_then(|values| {
            // Numbers that are mostly not whole are those of a regression.
            let wrong = values.iter().filter(|v| matches!(v, Value::Wrong(_))).count();
            match (labels.number.is_float() && 2 * wrong > values.len(), values.first()) {
                (true, Some(Value::Wrong(reason))) => Err(reason.clone()),
                (true, _) => Err("most of them are no whole numbers".into()),
                _ => Ok(values),
            }
        });
        match read {
            Ok(read) => values = read,
            Err(reason) => notes.push(format!("{} is not read as labels: {reason}", labels.describe())),
        }
    }
    let format = match array.place.path().extension().and_then(|e| e.to_str()) {
        Some(e) if e.eq_ignore_ascii_case("npz") => "NumPy .npz",
        Some(e) if e.eq_ignore_ascii_case("safetensors") => "safetensors",
        _ => "NumPy .npy",
    };
    let segments = vec![Segment { place: array.place, offset: array.offset, stride, count: count as usize }];
    let arrays = Arrays { format, layout, segments, labels: values, classes: Vec::new(), skipped, notes };
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

fn npz(path: &Path, arrays: &mut Vec<Array>, unread: &mut Vec<String>) -> Result<()> {
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
        let Some(short) = name.strip_suffix(".npy") else {
            unread.push(format!("{name}: no array"));
            continue;
        };
        let mut head = Vec::new();
        let most = size.min(npy::MAX_HEADER + 12);
        read_member(&mut archive, i, most, &mut head).map_err(|e| broken(format!("{name}: {e}")))?;
        // Arrays that are not read (objects, records) are no reason to refuse the others.
        let header = match npy::header(&head) {
            Ok(header) => header,
            Err(reason) => {
                unread.push(format!("{short}: {reason}"));
                continue;
            }
        };
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

fn safetensors(path: &Path, arrays: &mut Vec<Array>, unread: &mut Vec<String>) -> Result<()> {
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
        let Some(number) = number(info.dtype) else {
            unread.push(format!("{name}: of type {:?}", info.dtype));
            continue;
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

/// The numbers of a safetensors type; `None` for those that no array of ours holds.
pub(crate) fn number(dtype: Dtype) -> Option<Number> {
    Some(match dtype {
        Dtype::BOOL => Number::Bool,
        Dtype::U8 => Number::U8,
        Dtype::I8 => Number::I8,
        Dtype::U16 => Number::U16,
        Dtype::I16 => Number::I16,
        Dtype::U32 => Number::U32,
        Dtype::I32 => Number::I32,
        Dtype::U64 => Number::U64,
        Dtype::I64 => Number::I64,
        Dtype::F16 => Number::F16,
        Dtype::BF16 => Number::Bf16,
        Dtype::F32 => Number::F32,
        Dtype::F64 => Number::F64,
        _ => return None,
    })
}
