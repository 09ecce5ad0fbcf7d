//! IDX files, the format of MNIST, plain or compressed with gzip.
//!
//! Big-endian: two zero bytes, the type (8 is `u8`), the number of dimensions, each dimension in 4 bytes, data.
//! <http://yann.lecun.com/exdb/mnist/>

use super::{ArrayImages, Arrays, Label, Layout, Order, Place, Scalar, Segment};
use crate::options::{OpenOptions, Skipped};
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
    if name.starts_with("t10k") || name.contains("test") { "test" } else { "train" }
}

/// An opened file: where its data lie and their dimensions.
struct Opened {
    place: Place,
    offset: u64,
    dims: Vec<u64>,
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
    let dims = dims(&head).map_err(damaged)?;
    let offset = 4 + 4 * dims.len() as u64;
    if packed {
        let want = dims.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).and_then(|n| n.checked_add(offset));
        let want = want.filter(|n| *n <= MAX_UNPACKED).ok_or_else(|| {
            damaged(format!("dimensions {dims:?} are more than the limit of {MAX_UNPACKED} bytes unpacked"))
        })?;
        // Memory grows with what is really there, not with what the header promises. An error in the middle
        // leaves what came before it, as for a plain file that was cut.
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(io)?;
        let _ = MultiGzDecoder::new(file).take(want).read_to_end(&mut bytes);
        place = Place::memory(path, bytes);
    }
    Ok(Opened { place, offset, dims })
}

/// Reads the header.
fn dims(head: &[u8]) -> std::result::Result<Vec<u64>, String> {
    match head {
        [0, 0, 8, n, rest @ ..] if *n > 0 => {
            let n = usize::from(*n);
            if rest.len() < 4 * n {
                return Err("damaged IDX: it ends within its header".into());
            }
            Ok(rest[..4 * n]
                .chunks_exact(4)
                .map(|b| b.iter().fold(0, |v, b| v << 8 | u64::from(*b)))
                .collect())
        }
        [0, 0, kind, ..] if *kind != 8 => {
            Err(format!("IDX of the type 0x{kind:02x}; only bytes (0x08) are read"))
        }
        _ => Err("not an IDX file".into()),
    }
}

/// The images of a file, with the labels of the file beside it, if there is one.
pub(crate) fn idx(path: &Path, options: &OpenOptions) -> Result<ArrayImages> {
    let Opened { place, offset, dims } = open(path)?;
    let damaged = |path: &Path, reason: String| Error::Decode { path: path.to_path_buf(), reason };
    let (promised, height, width, channels) = match dims[..] {
        [n, h, w] => (n, h, w, 1),
        [n, h, w, c @ (1 | 3 | 4)] => (n, h, w, c),
        _ => return Err(damaged(path, format!("dimensions {dims:?}; images have (count, rows, columns)"))),
    };
    let stride = height.checked_mul(width).and_then(|n| n.checked_mul(channels)).filter(|n| *n > 0);
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
        let Opened { place, offset, dims } = open(&beside)?;
        let there = place.len().saturating_sub(offset).min(dims.iter().product());
        if dims[..] != [promised] {
            return Err(damaged(&beside, format!("labels of dimensions {dims:?} for {promised} images")));
        }
        if there < count {
            let reason =
                format!("cut: {there} labels for {count} images; the images without one are left out");
            skipped.push(Skipped::new(&beside, reason));
            count = there;
        }
        let bytes = place.take(offset, count).map_err(|source| Error::Io { path: beside.clone(), source })?;
        labels = bytes.iter().map(|v| Label::of(i64::from(*v), None)).collect();
    }
    let layout = Layout {
        width: width as usize,
        height: height as usize,
        channels: channels as usize,
        order: Order::Interleaved,
        scalar: Scalar::U8,
    };
    let segments = vec![Segment { place, offset, stride, count: count as usize }];
    let arrays = Arrays { format: "IDX", layout, segments, labels, classes: Vec::new(), skipped };
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
