//! Parquet files with encoded images, as Hugging Face's `datasets` writes them.

use super::columns::{self, Columns, Unread, class_names};
use crate::arrays::Place;
use crate::decode::guarded;
use crate::encoded::{Encoded, Found, Store, delegate_dataset};
use crate::labels::{NONE, Value, number};
use crate::options::{OpenOptions, Skipped};
use crate::{Error, Result};
use bytes::Bytes;
use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use std::collections::VecDeque;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Images in parquet files: a column `image` with the field `bytes`, or a binary column whose name says that
/// it holds images, and a column of labels `label` (or `labels`, `fine_label`, `cls`, `class`, `target` ...):
/// numbers that are whole, booleans, texts, or a list that is one-hot or has one element. [`OpenOptions::image`] and
/// [`OpenOptions::label`] name other columns. Columns that are not read are named in
/// [`Dataset::notes`](crate::Dataset::notes).
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
        let (mut names, mut skipped, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        let mut values: Vec<Value> = Vec::new();
        let mut refused = Vec::new();
        for path in files {
            match store.add(path, options, &mut values, &mut skipped, &mut notes) {
                Ok(found) if names.is_empty() => names = found,
                Ok(_) => {}
                // A shard that was cut has no index, which stands at its end.
                Err(Error::Decode { path, reason }) => refused.push(Skipped { path, reason }),
                Err(other) => return Err(other),
            }
        }
        // What is wrong with all files, such as a column that is asked for and not there, is said of the first one.
        if refused.len() == files.len()
            && let Some(Skipped { path, reason }) = refused.first().cloned()
        {
            return Err(Error::Decode { path, reason });
        }
        skipped.extend(refused);
        let labeled = values.iter().any(|value| *value != Value::Missing);
        let numbered = number(&values, if labeled { &names } else { &[] });
        let mut keep = Vec::with_capacity(values.len());
        for (row, label) in store.rows.iter_mut().zip(numbered.labels) {
            keep.push(label.is_ok());
            match label {
                Ok(label) => row.label = label,
                Err(reason) => {
                    let Group { file, number } = &store.groups[row.group as usize];
                    let reason = format!("row group {number}, row {}: {reason}", row.row);
                    skipped.push(Skipped::new(&file.path, reason));
                }
            }
        }
        let mut flags = keep.iter();
        store.rows.retain(|_| *flags.next().unwrap_or(&true));
        store.set_blocks();
        notes.dedup();
        let (classes, files) = (numbered.classes, files.len());
        let found = Found { store, classes, skipped, notes, files, format: "parquet shards" };
        Ok(Self { inner: Encoded::new(root, found, options)? })
    }
}

delegate_dataset!(ParquetShards);

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
pub(crate) struct AtPlace {
    place: Arc<Place>,
    at: u64,
}

impl AtPlace {
    /// The whole file.
    pub(crate) fn new(place: Arc<Place>) -> Self {
        Self { place, at: 0 }
    }
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
    /// Adds a file with a label for each of its rows, and returns the names of its classes.
    fn add(
        &mut self,
        path: &Path,
        options: &OpenOptions,
        labels: &mut Vec<Value>,
        skipped: &mut Vec<Skipped>,
        notes: &mut Vec<String>,
    ) -> Result<Vec<String>> {
        let damaged = |reason: String| Error::Decode { path: path.to_path_buf(), reason };
        let place = AtPlace::new(Arc::new(Place::open(path)?));
        // The reader panics on some damaged files.
        let reader = guarded(|| SerializedFileReader::new(place).map_err(|e| e.to_string()))
            .map_err(|e| damaged(format!("damaged parquet file: {e}")))?;
        let metadata = reader.metadata();
        let Columns { image: column, mut label, notes: found } =
            columns::columns(metadata, options).map_err(&damaged)?;
        for note in found {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        let names = label.as_ref().map_or_else(Vec::new, |label| class_names(metadata, &label.name));
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
            let read = label.as_ref().map(|l| guarded(|| columns::values(&shard.reader, number, l)));
            let read = read.map(|read| read.unwrap_or_else(|reason| Err(Unread::Damaged(reason))));
            let mut values = match read.transpose() {
                Ok(values) => values.unwrap_or_default(),
                Err(Unread::Damaged(reason)) => {
                    skipped.push(Skipped::new(path, format!("row group {number}: labels: {reason}")));
                    continue;
                }
                Err(Unread::NoLabels(reason)) => {
                    let name = label.take().map_or_else(String::new, |l| l.name);
                    notes.push(format!("the column `{name}` is not read as labels: {reason}"));
                    Vec::new()
                }
            };
            values.resize(count, Value::Missing);
            labels.append(&mut values);
            let group = self.groups.len() as u32;
            self.rows.extend((0..count).map(|row| Row { group, row: row as u32, label: NONE }));
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

    /// As many of the largest groups as fit into what is kept.
    fn mixed_blocks(&self) -> usize {
        let size = |g: &Group| {
            g.file.reader.metadata().row_group(g.number).column(g.file.column).uncompressed_size().max(1)
                as u64
        };
        let largest = self.groups.iter().map(size).max().unwrap_or(1);
        usize::try_from(KEEP_BYTES / largest).unwrap_or(usize::MAX).max(8)
    }
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

/// Puts the nulls back between the values that are there.
pub(crate) fn spread<T>(values: Vec<T>, levels: &[i16], most: i16) -> Vec<Option<T>> {
    if most == 0 || levels.is_empty() {
        return values.into_iter().map(Some).collect();
    }
    let mut values = values.into_iter();
    levels.iter().map(|level| (*level == most).then(|| values.next()).flatten()).collect()
}
