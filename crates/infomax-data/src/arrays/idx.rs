//! IDX files, the format of MNIST, plain or compressed with gzip.
//!
//! Big-endian: two zero bytes, the type of the elements, the number of dimensions, each dimension in 4 bytes, data.
//! <http://yann.lecun.com/exdb/mnist/>

use super::{ArrayImages, Arrays, Layout, Order, Place, Scalar, Segment};
use crate::npy::{Number, label_values};
use crate::options::{OpenOptions, Skipped};
use crate::split::split_of;
use crate::{Error, Result};
use flate2::read::MultiGzDecoder;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// What is unpacked from one gzip file at most.
const MAX_UNPACKED: u64 = 8 << 30;

/// Whether the name is one of an IDX file of images.
pub(crate) fn is_idx(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.contains("images") && (name.contains("idx3") || name.ends_with(".idx") || name.ends_with(".idx.gz"))
}

/// The part of a data set that a file belongs to by MNIST's names.
pub(crate) fn idx_split(path: &Path) -> &'static str {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    if name.contains("t10k") { "test" } else { split_of(&name).unwrap_or("train") }
}

/// The name of a file without the ending of its compression.
pub(crate) fn idx_stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.strip_suffix(".gz").unwrap_or(&name).to_owned()
}

/// Whether the name is one of an IDX file of labels.
pub(crate) fn is_idx_labels(path: &Path) -> bool {
    let name = idx_stem(path);
    name.contains("labels") && (name.contains("idx1") || name.ends_with(".idx"))
}

/// An opened file: where its data lie and their dimensions.
struct Opened {
    place: Place,
    offset: u64,
    dims: Vec<u64>,
    number: Number,
}

fn open(path: &Path) -> Result<Opened> {
    let damaged = |reason: String| Error::Decode { path: path.to_path_buf(), reason };
    let io = |source: std::io::Error| Error::Io { path: path.to_path_buf(), source };
    let mut place = Place::open(path)?;
    let magic = place.take(0, place.len().min(2)).map_err(io)?;
    let packed = magic == [0x1f, 0x8b];
    let head = match packed {
        true => {
            let file = std::fs::File::open(path).map_err(io)?;
            let mut head = Vec::new();
            MultiGzDecoder::new(file)
                .take(260)
                .read_to_end(&mut head)
                .map_err(|e| damaged(format!("damaged gzip: {e}")))?;
            head
        }
        false => place.take(0, place.len().min(260)).map_err(io)?,
    };
    let (number, dims) = header(&head).map_err(damaged)?;
    let offset = 4 + 4 * dims.len() as u64;
    let (mut offset, wide) = (offset, number.size() > 1);
    if packed || wide {
        let want = dims.iter().try_fold(number.size(), |n, d| n.checked_mul(*d));
        let want = want.and_then(|n| n.checked_add(offset));
        let want = want.filter(|n| *n <= MAX_UNPACKED).ok_or_else(|| {
            damaged(format!("dimensions {dims:?} are more than the limit of {MAX_UNPACKED} bytes unpacked"))
        })?;
        // Memory grows with what is really there, not with what the header promises. An error in the middle
        // leaves what came before it, as for a plain file that was cut.
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(io)?;
        let _ = match packed {
            true => MultiGzDecoder::new(file).take(want).read_to_end(&mut bytes),
            false => file.take(want).read_to_end(&mut bytes),
        };
        if wide {
            // Everything here is big-endian, and everything else little-endian.
            bytes.drain(..bytes.len().min(offset as usize));
            bytes.chunks_exact_mut(number.size() as usize).for_each(<[u8]>::reverse);
            offset = 0;
        }
        place = Place::memory(path, bytes);
    }
    Ok(Opened { place, offset, dims, number })
}

/// Reads the header: the type of the numbers and the dimensions.
fn header(head: &[u8]) -> std::result::Result<(Number, Vec<u64>), String> {
    let [0, 0, kind, n, rest @ ..] = head else { return Err("not an IDX file".into()) };
    let number = match kind {
        0x08 => Number::U8,
        0x09 => Number::I8,
        0x0b => Number::I16,
        0x0c => Number::I32,
        0x0d => Number::F32,
        0x0e => Number::F64,
        kind => return Err(format!("not an IDX file: there is no type 0x{kind:02x}")),
    };
    let n = usize::from(*n);
    if n == 0 {
        return Err("not an IDX file: it has no dimensions".into());
    }
    let dims = rest.get(..4 * n).ok_or("damaged IDX: it ends within its header")?;
    Ok((number, dims.chunks_exact(4).map(|b| b.iter().fold(0, |v, b| v << 8 | u64::from(*b))).collect()))
}

/// The images of a file, with the labels of the file beside it, if there is one.
pub(crate) fn idx(path: &Path, options: &OpenOptions) -> Result<ArrayImages> {
    let Opened { place, offset, dims, number } = open(path)?;
    let damaged = |path: &Path, reason: String| Error::Decode { path: path.to_path_buf(), reason };
    let (promised, height, width, channels) = match dims[..] {
        [n, h, w] => (n, h, w, 1),
        [n, h, w, c @ (1 | 3 | 4)] => (n, h, w, c),
        _ => return Err(damaged(path, format!("dimensions {dims:?}; images have (count, rows, columns)"))),
    };
    let stride = height.checked_mul(width).and_then(|n| n.checked_mul(channels));
    let stride = stride.and_then(|n| n.checked_mul(number.size())).filter(|n| *n > 0);
    let stride =
        stride.ok_or_else(|| damaged(path, format!("dimensions {dims:?} hold no pixel, or too many")))?;
    let mut skipped = Vec::new();
    let mut count = (place.len().saturating_sub(offset) / stride).min(promised);
    if count < promised {
        skipped
            .push(Skipped::new(path, format!("cut: {count} of {promised} images are there, and are used")));
    }
    let mut labels = Vec::new();
    if let Some(beside) = labels_of(path) {
        let Opened { place, offset, dims, number } = open(&beside)?;
        let size = number.size();
        let there = (place.len().saturating_sub(offset) / size).min(dims.iter().product());
        if dims[..] != [promised] {
            return Err(damaged(&beside, format!("labels of dimensions {dims:?} for {promised} images")));
        }
        if there < count {
            let reason =
                format!("cut: {there} labels for {count} images; the images without one are left out");
            skipped.push(Skipped::new(&beside, reason));
            count = there;
        }
        let bytes = place.take(offset, count * size);
        let bytes = bytes.map_err(|source| Error::Io { path: beside.clone(), source })?;
        labels = label_values(number, &[count], &bytes).map_err(|reason| damaged(&beside, reason))?;
    }
    let layout = Layout {
        width: width as usize,
        height: height as usize,
        channels: channels as usize,
        order: Order::Interleaved,
        scalar: Scalar { number, ..Scalar::U8 },
    };
    let segments = vec![Segment { place, offset, stride, count: count as usize }];
    let arrays =
        Arrays { format: "IDX", layout, segments, labels, classes: Vec::new(), skipped, notes: Vec::new() };
    ArrayImages::new(path, arrays, options)
}

/// `train-labels-idx1-ubyte` for `train-images-idx3-ubyte`, compressed or not.
fn labels_of(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let name = name.replace("images", "labels").replace("idx3", "idx1");
    let plain = name.strip_suffix(".gz").unwrap_or(&name);
    [name.clone(), plain.to_owned(), format!("{plain}.gz")]
        .into_iter()
        .map(|name| path.with_file_name(name))
        .find(|p| p != path && p.is_file())
}
