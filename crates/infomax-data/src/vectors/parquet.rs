//! Parquet: a column of lists of numbers, or columns of numbers, and plain columns beside them.

use super::scan::Sink;
use super::{Table, VectorOptions, Vectors, chosen};
use crate::arrays::Place;
use crate::decode::guarded;
use crate::shards::{AtPlace, class_names, spread};
use crate::{Error, Result};
use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::column::reader::ColumnReader;
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

type Reader = SerializedFileReader<AtPlace>;
type Words<T> = std::result::Result<T, String>;

/// Rows that are read at once.
const CHUNK: usize = 2_048;

/// What a leaf of the schema can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A list of numbers.
    List,
    /// A number of floating point.
    Float,
    /// Another plain value.
    Plain,
}

struct Leaf {
    index: usize,
    name: String,
    kind: Kind,
    wide: bool,
    text: bool,
}

pub(super) fn read(path: &Path, options: &VectorOptions) -> Result<Vectors> {
    let reader = open(path)?;
    let leaves = leaves(&reader);
    let of = |kind: Kind| leaves.iter().filter(move |leaf| leaf.kind == kind);
    let lists: Vec<&Leaf> = of(Kind::List).collect();
    let floats: Vec<&Leaf> = of(Kind::Float).collect();
    let mut notes = Vec::new();
    let (columns, list) = if lists.is_empty() && options.column.is_none() && floats.len() > 1 {
        notes.push(format!(
            "no column holds lists: the {} columns of floating point are the embedding",
            floats.len()
        ));
        (floats, false)
    } else {
        let names: Vec<String> = lists.iter().map(|leaf| leaf.name.clone()).collect();
        let all: Vec<String> = leaves.iter().map(|leaf| leaf.name.clone()).collect();
        let column = lists[chosen(path, options.column.as_deref(), &names, &all)?];
        if names.len() > 1 {
            notes.push(format!("the column `{}` is the embedding", column.name));
        }
        (vec![column], true)
    };
    let beside: Vec<&Leaf> = leaves
        .iter()
        .filter(|l| l.kind != Kind::List && !columns.iter().any(|c| c.index == l.index))
        .collect();
    let n = usize::try_from(reader.metadata().file_metadata().num_rows()).unwrap_or(0);
    let wide = columns.iter().any(|leaf| leaf.wide);
    let damaged = |reason: String| Error::Decode { path: path.to_path_buf(), reason };
    let d = match list {
        true => guarded(|| width(&reader, columns[0].index)).map_err(damaged)?,
        false => columns.len(),
    };
    let mut sink = Sink::new(n, d, wide, options);
    let mut missing = 0usize;
    let mut table = Table::new(beside.iter().map(|leaf| leaf.name.clone()).collect());
    table.texts = texts_of(&reader, beside.iter().copied());
    for group in 0..reader.metadata().num_row_groups() {
        let texts =
            guarded(|| beside.iter().map(|leaf| texts(&reader, group, leaf)).collect::<Words<Vec<_>>>());
        let texts = texts.map_err(|e| damaged(format!("row group {group}: {e}")))?;
        let mut row = 0;
        let mut take = |values: &[f64]| {
            if sink.wants() {
                for ((_, out), own) in table.columns.iter_mut().zip(&texts) {
                    out.push(own.get(row).cloned().flatten());
                }
            }
            row += 1;
            sink.push(values);
        };
        let read = guarded(|| match list {
            true => each_list(&reader, group, columns[0].index, d, &mut missing, &mut take),
            false => each_row(&reader, group, &columns, &mut take),
        });
        read.map_err(|e| damaged(format!("row group {group}: {e}")))?;
    }
    if missing > 0 {
        notes.push(format!("{missing} rows have no embedding; they count as not finite"));
    }
    sink.finish(path, table, notes)
}

/// The plain columns of a file.
pub(super) fn table(path: &Path) -> Result<Table> {
    let reader = open(path)?;
    let leaves: Vec<Leaf> = leaves(&reader).into_iter().filter(|leaf| leaf.kind != Kind::List).collect();
    let damaged = |reason: String| Error::Decode { path: path.to_path_buf(), reason };
    let mut table = Table::new(leaves.iter().map(|leaf| leaf.name.clone()).collect());
    table.texts = texts_of(&reader, leaves.iter());
    for group in 0..reader.metadata().num_row_groups() {
        for (leaf, (_, values)) in leaves.iter().zip(&mut table.columns) {
            values.extend(guarded(|| texts(&reader, group, leaf)).map_err(damaged)?);
        }
    }
    Ok(table)
}

/// The names of columns of texts, and of classes that have names.
fn texts_of<'a>(reader: &Reader, leaves: impl Iterator<Item = &'a Leaf>) -> BTreeSet<String> {
    let named = |leaf: &&Leaf| leaf.text || !class_names(reader.metadata(), &leaf.name).is_empty();
    leaves.filter(named).map(|leaf| leaf.name.clone()).collect()
}

fn open(path: &Path) -> Result<Reader> {
    let damaged = |reason: String| Error::Decode { path: path.to_path_buf(), reason };
    let place = AtPlace::new(Arc::new(Place::open(path)?));
    // The reader panics on some damaged files.
    guarded(|| SerializedFileReader::new(place).map_err(|e| e.to_string()))
        .map_err(|e| damaged(format!("damaged parquet file: {e}")))
}

fn leaves(reader: &Reader) -> Vec<Leaf> {
    let schema = reader.metadata().file_metadata().schema_descr();
    let leaf = |index: usize| {
        let column = schema.column(index);
        let half = matches!(column.logical_type_ref(), Some(LogicalType::Float16));
        let text = matches!(column.logical_type_ref(), Some(LogicalType::String | LogicalType::Enum))
            || matches!(column.converted_type(), ConvertedType::UTF8 | ConvertedType::ENUM);
        let number =
            matches!(column.physical_type(), Type::FLOAT | Type::DOUBLE | Type::INT32 | Type::INT64) || half;
        let parts = column.path().parts();
        let float = matches!(column.physical_type(), Type::FLOAT | Type::DOUBLE) || half;
        let kind = match (column.max_rep_level(), parts.len()) {
            // `name.list.element`, or the older `name.array`, or a plain repeated field.
            (1, 1..=3) if number => Kind::List,
            (0, 1) if float => Kind::Float,
            (0, 1) if number || text || column.physical_type() == Type::BOOLEAN => Kind::Plain,
            _ => return None,
        };
        let wide = matches!(column.physical_type(), Type::DOUBLE | Type::INT64);
        Some(Leaf { index, name: parts[0].clone(), kind, wide, text })
    };
    (0..schema.num_columns()).filter_map(leaf).collect()
}

/// Takes definition levels, repetition levels and values; says whether it wants more.
type Take<'a> = dyn FnMut(&[i16], &[i16], &[f64]) -> Words<bool> + 'a;

/// Calls back with the levels and the values, as f64, of some records at a time.
fn records(reader: &Reader, group: usize, index: usize, most: usize, take: &mut Take<'_>) -> Words<()> {
    let words = |e: parquet::errors::ParquetError| e.to_string();
    let rows = reader.get_row_group(group).map_err(words)?;
    macro_rules! all {
        ($column:expr, $number:expr) => {{
            let (mut levels, mut repeats, mut raw) = (Vec::new(), Vec::new(), Vec::new());
            loop {
                levels.clear();
                repeats.clear();
                raw.clear();
                let (records, _, _) = $column
                    .read_records(most, Some(&mut levels), Some(&mut repeats), &mut raw)
                    .map_err(words)?;
                if records == 0 {
                    return Ok(());
                }
                let values: Vec<f64> = raw.iter().map($number).collect();
                if !take(&levels, &repeats, &values)? {
                    return Ok(());
                }
            }
        }};
    }
    match rows.get_column_reader(index).map_err(words)? {
        ColumnReader::FloatColumnReader(mut column) => all!(column, |v: &f32| f64::from(*v)),
        ColumnReader::DoubleColumnReader(mut column) => all!(column, |v: &f64| *v),
        ColumnReader::Int32ColumnReader(mut column) => all!(column, |v: &i32| f64::from(*v)),
        ColumnReader::Int64ColumnReader(mut column) => all!(column, |v: &i64| *v as f64),
        ColumnReader::FixedLenByteArrayColumnReader(mut column) => {
            all!(column, |v: &parquet::data_type::FixedLenByteArray| match *v.data() {
                [a, b] => half::f16::from_le_bytes([a, b]).to_f64(),
                _ => f64::NAN,
            })
        }
        _ => Err("its lists hold no numbers".into()),
    }
}

/// The length of the first list that is there.
fn width(reader: &Reader, index: usize) -> Words<usize> {
    let most = reader.metadata().file_metadata().schema_descr().column(index).max_def_level();
    let mut found = None;
    for group in 0..reader.metadata().num_row_groups() {
        records(reader, group, index, 64, &mut |levels, repeats, _| {
            split(levels, repeats, |own| {
                if found.is_none() && (own.len() > 1 || own.first() == Some(&most)) {
                    found = Some(own.len());
                }
            });
            Ok(found.is_none())
        })?;
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Err("no row has an embedding".into())
}

/// The definition levels of each record.
fn split(levels: &[i16], repeats: &[i16], mut take: impl FnMut(&[i16])) {
    let starts: Vec<usize> = (0..repeats.len()).filter(|&i| repeats[i] == 0).collect();
    for (k, &start) in starts.iter().enumerate() {
        let end = starts.get(k + 1).copied().unwrap_or(repeats.len());
        take(levels.get(start..end).unwrap_or_default());
    }
}

fn each_list(
    reader: &Reader,
    group: usize,
    index: usize,
    d: usize,
    missing: &mut usize,
    take: &mut dyn FnMut(&[f64]),
) -> Words<()> {
    let most = reader.metadata().file_metadata().schema_descr().column(index).max_def_level();
    let (mut row, mut vector) = (0usize, Vec::with_capacity(d));
    records(reader, group, index, CHUNK, &mut |levels, repeats, values| {
        let mut values = values.iter();
        let mut wrong = None;
        split(levels, repeats, |own| {
            vector.clear();
            let none = own.len() == 1 && own[0] < most && d != 1;
            if none {
                *missing += 1;
                vector.resize(d, f64::NAN);
            } else {
                // A null within a list is no number.
                vector.extend(own.iter().map(|level| {
                    if *level == most { values.next().copied().unwrap_or(f64::NAN) } else { f64::NAN }
                }));
            }
            if vector.len() != d {
                wrong.get_or_insert((row, vector.len()));
            }
            row += 1;
            take(&vector);
        });
        match wrong {
            Some((row, length)) => Err(format!("row {row}: a list of {length} numbers, the first has {d}")),
            None => Ok(true),
        }
    })
}

fn each_row(reader: &Reader, group: usize, columns: &[&Leaf], take: &mut dyn FnMut(&[f64])) -> Words<()> {
    let mut all: Vec<Vec<Option<f64>>> = Vec::with_capacity(columns.len());
    for leaf in columns {
        let most = reader.metadata().file_metadata().schema_descr().column(leaf.index).max_def_level();
        let mut own = Vec::new();
        records(reader, group, leaf.index, 1 << 16, &mut |levels, _, values| {
            own.extend(spread(values.to_vec(), levels, most));
            Ok(true)
        })?;
        all.push(own);
    }
    let mut row = Vec::with_capacity(columns.len());
    for i in 0..all.first().map_or(0, Vec::len) {
        row.clear();
        row.extend(all.iter().map(|own| own.get(i).copied().flatten().unwrap_or(f64::NAN)));
        take(&row);
    }
    Ok(())
}

/// A plain column as texts; numbers of classes that the file names have their names.
fn texts(reader: &Reader, group: usize, leaf: &Leaf) -> Words<Vec<Option<String>>> {
    let words = |e: parquet::errors::ParquetError| e.to_string();
    let rows = reader.get_row_group(group).map_err(words)?;
    let count = usize::try_from(rows.metadata().num_rows()).unwrap_or(0).max(1);
    let most = rows.metadata().column(leaf.index).column_descr().max_def_level();
    let names = class_names(reader.metadata(), &leaf.name);
    let whole =
        |v: i64| usize::try_from(v).ok().and_then(|v| names.get(v).cloned()).unwrap_or_else(|| v.to_string());
    macro_rules! all {
        ($column:expr, $text:expr) => {{
            let (mut levels, mut values) = (Vec::new(), Vec::new());
            while $column.read_records(count, Some(&mut levels), None, &mut values).map_err(words)?.0 > 0 {}
            spread(values.into_iter().map($text).collect::<Vec<String>>(), &levels, most)
        }};
    }
    let found = match rows.get_column_reader(leaf.index).map_err(words)? {
        ColumnReader::BoolColumnReader(mut column) => all!(column, |v: bool| v.to_string()),
        ColumnReader::Int32ColumnReader(mut column) => all!(column, |v: i32| whole(v.into())),
        ColumnReader::Int64ColumnReader(mut column) => all!(column, whole),
        ColumnReader::FloatColumnReader(mut column) => all!(column, |v: f32| v.to_string()),
        ColumnReader::DoubleColumnReader(mut column) => all!(column, |v: f64| v.to_string()),
        ColumnReader::ByteArrayColumnReader(mut column) => {
            all!(column, |v: parquet::data_type::ByteArray| String::from_utf8_lossy(v.data()).into_owned())
        }
        _ => vec![None; count],
    };
    Ok(found.into_iter().map(|text| text.filter(|text| !text.is_empty())).collect())
}
