//! Parquet files with encoded images, as Hugging Face's `datasets` writes them.

use crate::arrays::Place;
use crate::decode::guarded;
use crate::encoded::{Encoded, Found, Store, delegate_dataset};
use crate::folder::MAX_LABEL;
use crate::options::{OpenOptions, Skipped};
use crate::{Error, Result};
use bytes::Bytes;
use parquet::basic::Type;
use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use std::collections::VecDeque;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Images in parquet files: a column `image` with the field `bytes`, or a binary column whose name says that
/// it holds images, and a column of whole numbers `label` (or `labels`, `fine_label`, `cls`, `class`,
/// `target`).
///
/// A column is stored in groups of rows which can only be unpacked as a whole, so a few groups are kept
/// unpacked, and [`Dataset::blocks`](crate::Dataset::blocks) tells the loader to take samples group by
/// group. Files without compression are read, and those with snappy, gzip, LZ4, zstd or brotli.
#[derive(Debug)]
pub struct ParquetShards {
    inner: Encoded<Groups>,
}

/// Bytes of unpacked groups that are kept, if they are more than one for each thread.
const KEEP_BYTES: u64 = 256 << 20;

/// The largest column chunk that is unpacked.
const MAX_GROUP: i64 = 4 << 30;

impl ParquetShards {
    /// Opens one or more files. `root` stands for all of them in messages.
    ///
    /// # Errors
    /// A file without a column of images; no usable image; damage under `strict`. Otherwise damaged files
    /// and rows are left out and listed.
    pub fn open(root: impl AsRef<Path>, files: &[PathBuf], options: &OpenOptions) -> Result<Self> {
        let root = root.as_ref();
        let mut store = Groups::default();
        let (mut classes, mut skipped) = (Vec::new(), Vec::new());
        for path in files {
            match store.add(path, &mut skipped) {
                Ok(names) if classes.is_empty() => classes = names,
                Ok(_) => {}
                // A shard that was cut has no index, which stands at its end.
                Err(Error::Decode { path, reason }) => skipped.push(Skipped { path, reason }),
                Err(other) => return Err(other),
            }
        }
        let most = store.rows.iter().map(|r| r.label).filter(|l| *l != NONE).max();
        if let Some(most) = most {
            let first = classes.len() as u32;
            classes.extend((first..=most).map(|label| label.to_string()));
        }
        store.set_blocks();
        let found = Found { store, classes, skipped, files: files.len(), format: "parquet shards" };
        Ok(Self { inner: Encoded::new(root, found, options)? })
    }
}

delegate_dataset!(ParquetShards);

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Row {
    group: u32,
    row: u32,
    label: u32,
}

/// A group of rows of one file.
struct Group {
    file: Arc<Shard>,
    number: usize,
}

struct Shard {
    path: PathBuf,
    reader: SerializedFileReader<AtPlace>,
    /// The column of images.
    column: usize,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} group {}", self.file.path.display(), self.number)
    }
}

/// Reads by position: the reader that the crate has for files moves the cursor that all threads share.
#[derive(Clone)]
struct AtPlace {
    place: Arc<Place>,
    at: u64,
}

impl Length for AtPlace {
    fn len(&self) -> u64 {
        self.place.len()
    }
}

impl Read for AtPlace {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = self.place.len().saturating_sub(self.at).min(out.len() as u64);
        self.place.read(self.at, &mut out[..n as usize])?;
        self.at += n;
        Ok(n as usize)
    }
}

impl ChunkReader for AtPlace {
    type T = BufReader<Self>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(BufReader::new(Self { place: Arc::clone(&self.place), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        Ok(self.place.take(start, length as u64)?.into())
    }
}

/// The images of a group.
type Unpacked = Arc<Vec<Option<ByteArray>>>;

/// A group that one thread unpacks while the others that want it wait.
type Slot = Arc<Mutex<Option<Unpacked>>>;

/// The groups that were used last, the latest at the end.
#[derive(Debug, Default)]
struct Kept {
    groups: VecDeque<(usize, Slot, u64)>,
}

#[derive(Debug, Default)]
struct Groups {
    groups: Vec<Group>,
    rows: Vec<Row>,
    blocks: Vec<usize>,
    kept: Mutex<Kept>,
}

impl Groups {
    /// Adds a file and returns the names of its classes.
    fn add(&mut self, path: &Path, skipped: &mut Vec<Skipped>) -> Result<Vec<String>> {
        let damaged = |reason: String| Error::Decode { path: path.to_path_buf(), reason };
        let place = AtPlace { place: Arc::new(Place::open(path)?), at: 0 };
        // The reader panics on some damaged files.
        let reader = guarded(|| SerializedFileReader::new(place).map_err(|e| e.to_string()))
            .map_err(|e| damaged(format!("damaged parquet file: {e}")))?;
        let metadata = reader.metadata();
        let (column, labels) = columns(metadata).map_err(&damaged)?;
        let names = class_names(metadata);
        let groups = metadata.num_row_groups();
        let shard = Arc::new(Shard { path: path.to_path_buf(), reader, column });
        for number in 0..groups {
            let meta = shard.reader.metadata().row_group(number);
            let count = usize::try_from(meta.num_rows()).unwrap_or(0);
            let size = meta.column(column).uncompressed_size();
            if !(0..=MAX_GROUP).contains(&size) {
                let reason = format!("row group {number}: {size} bytes; the limit is {MAX_GROUP}");
                skipped.push(Skipped::new(path, reason));
                continue;
            }
            let values = match labels.map(|c| guarded(|| whole_numbers(&shard, number, c, count))).transpose()
            {
                Ok(values) => values,
                Err(reason) => {
                    skipped.push(Skipped::new(path, format!("row group {number}: labels: {reason}")));
                    continue;
                }
            };
            let group = self.groups.len() as u32;
            for row in 0..count {
                let label = match values.as_ref().and_then(|v| v.get(row).copied().flatten()) {
                    None | Some(-1) => NONE,
                    Some(v) => match u32::try_from(v) {
                        Ok(label) if label <= MAX_LABEL => label,
                        _ => {
                            let reason = format!(
                                "row group {number}, row {row}: the label {v} is not in 0..={MAX_LABEL}"
                            );
                            skipped.push(Skipped::new(path, reason));
                            continue;
                        }
                    },
                };
                self.rows.push(Row { group, row: row as u32, label });
            }
            self.groups.push(Group { file: Arc::clone(&shard), number });
        }
        Ok(names)
    }

    fn set_blocks(&mut self) {
        let ends = self.rows.windows(2).enumerate().filter(|(_, w)| w[0].group != w[1].group);
        self.blocks = ends.map(|(i, _)| i + 1).collect();
        if !self.rows.is_empty() {
            self.blocks.push(self.rows.len());
        }
    }

    /// The images of a group, unpacked now or kept from before.
    fn unpack(&self, group: usize) -> std::io::Result<Unpacked> {
        let slot = self.slot(group);
        let mut unpacked = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(images) = &*unpacked {
            return Ok(Arc::clone(images));
        }
        let Group { file, number } = &self.groups[group];
        let images = Arc::new(guarded(|| byte_arrays(file, *number)).map_err(std::io::Error::other)?);
        *unpacked = Some(Arc::clone(&images));
        Ok(images)
    }

    /// The slot of a group; the ones that were not used for longest make room.
    fn slot(&self, group: usize) -> Slot {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = kept.groups.iter().position(|(g, _, _)| *g == group)
            && let Some(found) = kept.groups.remove(at)
        {
            let slot = Arc::clone(&found.1);
            kept.groups.push_back(found);
            return slot;
        }
        let Group { file, number } = &self.groups[group];
        let size = file.reader.metadata().row_group(*number).column(file.column).uncompressed_size();
        let slot = Slot::default();
        kept.groups.push_back((group, Arc::clone(&slot), size.max(0) as u64));
        // Every thread may use a group of its own, whatever the size.
        let least = 1 + rayon::current_num_threads();
        while kept.groups.len() > least && kept.groups.iter().map(|g| g.2).sum::<u64>() > KEEP_BYTES {
            kept.groups.pop_front();
        }
        slot
    }
}

impl Store for Groups {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn read(&self, index: usize) -> std::io::Result<Vec<u8>> {
        let row = self.rows.get(index).ok_or(std::io::ErrorKind::NotFound)?;
        let values = self.unpack(row.group as usize)?;
        match values.get(row.row as usize) {
            Some(Some(bytes)) => Ok(bytes.data().to_vec()),
            _ => Err(std::io::Error::other("the row has no image")),
        }
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.rows.get(index).map(|r| r.label).filter(|label| *label != NONE)
    }

    fn place(&self, index: usize) -> PathBuf {
        match self.rows.get(index) {
            Some(row) => {
                let Group { file, number } = &self.groups[row.group as usize];
                PathBuf::from(format!("{}, row group {number}, row {}", file.path.display(), row.row))
            }
            None => PathBuf::new(),
        }
    }

    fn retain(&mut self, keep: &[bool]) {
        let mut keep = keep.iter();
        self.rows.retain(|_| *keep.next().unwrap_or(&true));
        self.set_blocks();
    }

    fn blocks(&self) -> &[usize] {
        &self.blocks
    }
}

/// The column of images and the one of labels.
fn columns(metadata: &ParquetMetaData) -> std::result::Result<(usize, Option<usize>), String> {
    let schema = metadata.file_metadata().schema_descr();
    let leaves: Vec<(String, Type, bool)> = (0..schema.num_columns())
        .map(|i| {
            let column = schema.column(i);
            (column.path().string(), column.physical_type(), column.max_rep_level() == 0)
        })
        .collect();
    let find = |names: &[&str], fits: &dyn Fn(Type) -> bool| {
        names.iter().find_map(|name| {
            leaves
                .iter()
                .position(|(path, kind, flat)| *flat && fits(*kind) && path.eq_ignore_ascii_case(name))
        })
    };
    let binary = |kind| kind == Type::BYTE_ARRAY;
    let whole = |kind| kind == Type::INT64 || kind == Type::INT32;
    let images = ["image.bytes", "img.bytes", "jpg.bytes", "png.bytes", "image", "img", "jpg", "jpeg", "png"];
    let found: Vec<&str> = leaves.iter().map(|(path, _, _)| path.as_str()).collect();
    let image = find(&images, &binary).or_else(|| {
        leaves.iter().position(|(path, kind, flat)| *flat && binary(*kind) && path.ends_with(".bytes"))
    });
    let image = image.ok_or_else(|| format!("no column of images; there are: {}", found.join(", ")))?;
    let labels = ["label", "labels", "fine_label", "cls", "class", "target"];
    Ok((image, find(&labels, &whole)))
}

/// The names of the classes that `datasets` keeps in the file.
fn class_names(metadata: &ParquetMetaData) -> Vec<String> {
    let pairs = metadata.file_metadata().key_value_metadata();
    let text = pairs.and_then(|p| p.iter().find(|kv| kv.key == "huggingface")?.value.as_deref());
    let json: Option<serde_json::Value> = text.and_then(|t| serde_json::from_str(t).ok());
    let features = json.as_ref().and_then(|j| j.get("info")?.get("features"));
    let names = features.and_then(|f| {
        ["label", "labels", "fine_label", "cls", "class", "target"]
            .iter()
            .find_map(|k| f.get(k)?.get("names"))
    });
    let names = names.and_then(|n| n.as_array()).map(Vec::as_slice).unwrap_or_default();
    names.iter().filter_map(|n| n.as_str().map(str::to_owned)).collect()
}

/// A column of binary values.
fn byte_arrays(shard: &Shard, group: usize) -> std::result::Result<Vec<Option<ByteArray>>, String> {
    let words = |e: parquet::errors::ParquetError| format!("row group {group}: {e}");
    let reader = shard.reader.get_row_group(group).map_err(words)?;
    let count = usize::try_from(reader.metadata().num_rows()).unwrap_or(0);
    let most = reader.metadata().column(shard.column).column_descr().max_def_level();
    match reader.get_column_reader(shard.column).map_err(words)? {
        ColumnReader::ByteArrayColumnReader(mut column) => {
            let (mut levels, mut values) = (Vec::new(), Vec::new());
            loop {
                let (records, _, _) =
                    column.read_records(count.max(1), Some(&mut levels), None, &mut values).map_err(words)?;
                if records == 0 {
                    break;
                }
            }
            Ok(spread(values, &levels, most))
        }
        _ => Err("not a column of binary values".into()),
    }
}

/// A column of whole numbers.
fn whole_numbers(
    shard: &Shard,
    group: usize,
    column: usize,
    count: usize,
) -> std::result::Result<Vec<Option<i64>>, String> {
    let words = |e: parquet::errors::ParquetError| e.to_string();
    let reader = shard.reader.get_row_group(group).map_err(words)?;
    let most = reader.metadata().column(column).column_descr().max_def_level();
    let mut levels = Vec::new();
    macro_rules! all {
        ($column:expr) => {{
            let mut values = Vec::new();
            while $column.read_records(count.max(1), Some(&mut levels), None, &mut values).map_err(words)?.0
                > 0
            {}
            values
        }};
    }
    let values: Vec<i64> = match reader.get_column_reader(column).map_err(words)? {
        ColumnReader::Int64ColumnReader(mut column) => all!(column),
        ColumnReader::Int32ColumnReader(mut column) => all!(column).into_iter().map(i64::from).collect(),
        _ => return Err("not a column of whole numbers".into()),
    };
    Ok(spread(values, &levels, most))
}

/// Puts the nulls back between the values that are there.
fn spread<T>(values: Vec<T>, levels: &[i16], most: i16) -> Vec<Option<T>> {
    if most == 0 || levels.is_empty() {
        return values.into_iter().map(Some).collect();
    }
    let mut values = values.into_iter();
    levels.iter().map(|level| (*level == most).then(|| values.next()).flatten()).collect()
}
