//! The columns of a parquet file: which one holds the images, and which one the labels, of whatever type.

use super::parquet::AtPlace;
use crate::labels::Value;
use crate::npy::{Number, label_values};
use crate::options::OpenOptions;
use parquet::basic::{ConvertedType, LogicalType, Type};
use parquet::column::reader::ColumnReader;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};

/// What is read of a file.
pub(super) struct Columns {
    /// The leaf of the images.
    pub(super) image: usize,
    pub(super) label: Option<Leaf>,
    /// What is not read, and why.
    pub(super) notes: Vec<String>,
}

/// The leaf of the labels.
pub(super) struct Leaf {
    column: usize,
    /// The name of the whole column.
    pub(super) name: String,
}

/// A group of labels that is not read.
pub(super) enum Unread {
    Damaged(String),
    /// What there is are no labels of single classes.
    NoLabels(String),
}

/// Names of columns of labels, the likelier ones first.
const LABELS: [&str; 17] = [
    "label",
    "labels",
    "fine_label",
    "cls",
    "class",
    "target",
    "targets",
    "classes",
    "label_id",
    "class_id",
    "category",
    "category_id",
    "class_name",
    "label_name",
    "y",
    "coarse_label",
    "species",
];

/// Finds the column of images and the one of labels.
pub(super) fn columns(metadata: &ParquetMetaData, options: &OpenOptions) -> Result<Columns, String> {
    let schema = metadata.file_metadata().schema_descr();
    let leaves: Vec<(String, Type, i16)> = (0..schema.num_columns())
        .map(|i| {
            let column = schema.column(i);
            (column.path().string(), column.physical_type(), column.max_rep_level())
        })
        .collect();
    let binary = |(path, kind, repeated): &&(String, Type, i16), name: &str| {
        *kind == Type::BYTE_ARRAY
            && *repeated == 0
            && (path.eq_ignore_ascii_case(name) || path.eq_ignore_ascii_case(&format!("{name}.bytes")))
    };
    let find_binary = |name: &str| leaves.iter().position(|leaf| binary(&leaf, name));
    let all: Vec<&str> = leaves.iter().map(|(path, _, _)| path.as_str()).collect();
    let there = all.join(", ");
    let mut notes = Vec::new();
    let image = match &options.image {
        Some(name) => find_binary(name).ok_or(format!("no column of images `{name}`; there are: {there}"))?,
        None => {
            let known =
                ["image", "img", "jpg", "jpeg", "png", "webp"].iter().find_map(|name| find_binary(name));
            let flat = |(path, kind, repeated): &(String, Type, i16)| {
                *repeated == 0 && *kind == Type::BYTE_ARRAY && path.to_lowercase().ends_with(".bytes")
            };
            let nested: Vec<usize> = (0..leaves.len()).filter(|i| flat(&leaves[*i])).collect();
            let image = known.or(nested.first().copied());
            let image = image.ok_or_else(|| format!("no column of images; there are: {there}"))?;
            let others: Vec<&str> = nested.iter().filter(|i| **i != image).map(|i| all[*i]).collect();
            if !others.is_empty() {
                notes.push(format!(
                    "images are those of the column {}; not used: {} (data.image names another one)",
                    all[image],
                    others.join(", ")
                ));
            }
            image
        }
    };
    let root = |path: &str| path.split('.').next().unwrap_or_default().to_owned();
    let taken = root(all[image]);
    let of = |name: &str| leaves.iter().position(|(path, _, _)| root(path).eq_ignore_ascii_case(name));
    let label = match &options.label {
        Some(name) => Some(of(name).ok_or(format!("no column `{name}` for the labels; there are: {there}"))?),
        None => LABELS.iter().find_map(|name| of(name).filter(|at| *at != image)),
    };
    // A group of several fields has no single meaning.
    let label = label.filter(|at| {
        let name = root(all[*at]);
        let fields = all.iter().filter(|path| root(path) == name).count();
        let ok = fields == 1 && leaves[*at].2 <= 1;
        if !ok {
            notes.push(format!("the column `{name}` is not read as labels: it holds several fields a row"));
        }
        ok
    });
    let mut others: Vec<String> = all.iter().map(|path| root(path)).filter(|name| *name != taken).collect();
    others.retain(|name| label.is_none_or(|at| root(all[at]) != *name));
    others.dedup();
    if !others.is_empty() {
        let hint =
            if label.is_none() { "; no column is called `label` (data.label names another one)" } else { "" };
        notes.push(format!("columns that are not used: {}{hint}", others.join(", ")));
    }
    let split =
        others.iter().find(|name| ["split", "subset", "partition"].contains(&name.to_lowercase().as_str()));
    if let Some(name) = split {
        notes.push(format!(
            "the column `{name}` is not used: the rows of all its values are in one part; write a file for each part \
             (train.parquet, test.parquet)"
        ));
    }
    let label = label.map(|column| Leaf { column, name: root(all[column]) });
    Ok(Columns { image, label, notes })
}

/// The names of the classes that `datasets` keeps in the file for a column.
pub(crate) fn class_names(metadata: &ParquetMetaData, column: &str) -> Vec<String> {
    let pairs = metadata.file_metadata().key_value_metadata();
    let text = pairs.and_then(|p| p.iter().find(|kv| kv.key == "huggingface")?.value.as_deref());
    let json: Option<serde_json::Value> = text.and_then(|t| serde_json::from_str(t).ok());
    let features = json.as_ref().and_then(|j| j.get("info")?.get("features"));
    let feature = features.and_then(|f| f.get(column));
    // A list of class labels keeps them one level deeper.
    let names = feature.and_then(|f| f.get("names").or_else(|| f.get("feature")?.get("names")));
    let names = names.and_then(|n| n.as_array()).map(Vec::as_slice).unwrap_or_default();
    names.iter().filter_map(|n| n.as_str().map(str::to_owned)).collect()
}

/// The labels of a group of rows.
pub(super) fn values(
    reader: &SerializedFileReader<AtPlace>,
    group: usize,
    leaf: &Leaf,
) -> Result<Result<Vec<Value>, Unread>, String> {
    let words = |e: parquet::errors::ParquetError| e.to_string();
    let rows = reader.get_row_group(group).map_err(words)?;
    let count = usize::try_from(rows.metadata().num_rows()).unwrap_or(0);
    let meta = rows.metadata().column(leaf.column).column_descr_ptr();
    let (most, repeated) = (meta.max_def_level(), meta.max_rep_level() > 0);
    let logical = meta.logical_type_ref();
    if matches!(logical, Some(LogicalType::Timestamp(_) | LogicalType::Time(_) | LogicalType::Date))
        || matches!(
            meta.converted_type(),
            ConvertedType::DATE
                | ConvertedType::TIME_MILLIS
                | ConvertedType::TIME_MICROS
                | ConvertedType::TIMESTAMP_MILLIS
                | ConvertedType::TIMESTAMP_MICROS
                | ConvertedType::INTERVAL
        )
    {
        return Ok(Err(Unread::NoLabels("it holds times".into())));
    }
    let decimal =
        matches!(logical, Some(LogicalType::Decimal(_))) || meta.converted_type() == ConvertedType::DECIMAL;
    // The number of digits behind the point, of a decimal.
    let scale = decimal.then(|| match logical {
        Some(LogicalType::Decimal(kind)) => kind.scale,
        _ => meta.type_scale(),
    });
    let half = matches!(logical, Some(LogicalType::Float16));
    let unsigned = matches!(meta.logical_type_ref(), Some(LogicalType::Integer(kind)) if !kind.is_signed)
        || matches!(
            meta.converted_type(),
            ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64
        );
    let (mut levels, mut repeats) = (Vec::new(), Vec::new());
    macro_rules! all {
        ($column:expr) => {{
            let mut values = Vec::new();
            loop {
                let repeats = if repeated { Some(&mut repeats) } else { None };
                let (records, _, _) = $column
                    .read_records(count.max(1), Some(&mut levels), repeats, &mut values)
                    .map_err(words)?;
                if records == 0 {
                    break;
                }
            }
            values
        }};
        ($column:expr, $value:expr) => {
            all!($column).into_iter().map($value).collect::<Vec<Value>>()
        };
    }
    // Bytes are those of a decimal, of a half float, or of a text.
    let of_bytes = |bytes: parquet::data_type::ByteArray| match (scale, bytes.data()) {
        (Some(scale), data) => decimal_value(unscaled(data), scale),
        (None, &[low, high]) if half => Value::of_float(half::f16::from_le_bytes([low, high]).into()),
        (None, data) => Value::of_text(&String::from_utf8_lossy(data)),
    };
    let of_whole = |v: i64| match scale {
        Some(scale) => decimal_value(Some(v.into()), scale),
        None => Value::of_number(v),
    };
    let values = match rows.get_column_reader(leaf.column).map_err(words)? {
        ColumnReader::BoolColumnReader(mut column) => all!(column, |v: bool| Value::Number(i64::from(v))),
        ColumnReader::Int32ColumnReader(mut column) => all!(column, |v: i32| match unsigned {
            true => Value::of_number(i64::from(v as u32)),
            false => of_whole(v.into()),
        }),
        ColumnReader::Int64ColumnReader(mut column) => all!(column, |v: i64| match unsigned {
            true => Value::of_number(i64::try_from(v as u64).unwrap_or(i64::MAX)),
            false => of_whole(v),
        }),
        ColumnReader::FloatColumnReader(mut column) => all!(column, |v: f32| Value::of_float(v.into())),
        ColumnReader::DoubleColumnReader(mut column) => all!(column, Value::of_float),
        ColumnReader::ByteArrayColumnReader(mut column) => all!(column, of_bytes),
        ColumnReader::FixedLenByteArrayColumnReader(mut column) => {
            let values: Vec<parquet::data_type::FixedLenByteArray> = all!(column);
            // Without a type, bytes of a fixed length may be anything: only those that are plain text are names.
            let binary = |v: &parquet::data_type::FixedLenByteArray| {
                std::str::from_utf8(v.data()).map_or(true, |text| text.chars().any(char::is_control))
            };
            if !half && scale.is_none() && values.iter().any(binary) {
                let reason = "it holds bytes of a fixed length that are no text; write numbers or texts";
                return Ok(Err(Unread::NoLabels(reason.into())));
            }
            values.into_iter().map(|v| of_bytes(v.into())).collect()
        }
        ColumnReader::Int96ColumnReader(_) => {
            return Ok(Err(Unread::NoLabels("it holds times".into())));
        }
    };
    if !repeated {
        let values = super::parquet::spread(values, &levels, most);
        return Ok(plain(values.into_iter().map(|v| v.unwrap_or(Value::Missing)).collect()));
    }
    Ok(lists(values, &levels, &repeats, most))
}

/// A number of big-endian bytes in two's complement, if it has at most 128 bits.
fn unscaled(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first().is_some_and(|b| b & 0x80 != 0);
    let start = if negative { -1i128 } else { 0 };
    (1..=16).contains(&bytes.len()).then(|| bytes.iter().fold(start, |v, b| v << 8 | i128::from(*b)))
}

/// A decimal number: `unscaled / 10^scale`, if that is whole.
fn decimal_value(unscaled: Option<i128>, scale: i32) -> Value {
    let power = u32::try_from(scale).ok().and_then(|scale| 10i128.checked_pow(scale));
    let (Some(unscaled), Some(power)) = (unscaled, power) else {
        return Value::Wrong("the label is a decimal of more than 38 digits".into());
    };
    match i64::try_from(unscaled / power) {
        Ok(whole) if unscaled % power == 0 => Value::of_number(whole),
        Ok(_) => Value::Wrong(format!("the label {unscaled}e-{scale} is no whole number")),
        Err(_) => Value::Wrong(format!("the label {} is too large", unscaled / power)),
    }
}

/// One value a row. Numbers of which most are not whole are those of a regression.
fn plain(values: Vec<Value>) -> Result<Vec<Value>, Unread> {
    let fraction = |v: &&Value| matches!(v, Value::Wrong(reason) if reason.contains("whole"));
    let wrong = values.iter().filter(|v| matches!(v, Value::Wrong(_)) && fraction(v)).count();
    match values.iter().find(fraction) {
        Some(Value::Wrong(reason)) if 2 * wrong > values.len() && !reason.contains("negative") => {
            Err(Unread::NoLabels(reason.clone()))
        }
        _ => Ok(values),
    }
}

/// One list a row: of one element, or one-hot.
fn lists(values: Vec<Value>, levels: &[i16], repeats: &[i16], most: i16) -> Result<Vec<Value>, Unread> {
    let mut rows: Vec<Vec<Value>> = Vec::new();
    let mut values = values.into_iter();
    for (level, repeat) in levels.iter().zip(repeats) {
        if *repeat == 0 {
            rows.push(Vec::new());
        }
        if *level == most
            && let (Some(row), Some(value)) = (rows.last_mut(), values.next())
        {
            row.push(value);
        }
    }
    if rows.iter().all(|row| row.len() <= 1) {
        return plain(rows.into_iter().map(|row| row.into_iter().next().unwrap_or(Value::Missing)).collect());
    }
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut bytes = Vec::with_capacity(rows.len() * width);
    for (at, row) in rows.iter().enumerate() {
        if !row.is_empty() && row.len() != width {
            return Err(Unread::NoLabels(format!(
                "row {at} has a list of {} labels; several labels a sample are not read",
                row.len()
            )));
        }
        let digit = |value: Option<&Value>| match value {
            None => Some(0u8),
            Some(Value::Number(number)) => u8::try_from(*number).ok(),
            _ => None,
        };
        for k in 0..width {
            let value = digit(row.get(k));
            bytes.push(
                value.ok_or_else(|| Unread::NoLabels(format!("row {at} has a list that is not one-hot")))?,
            );
        }
    }
    label_values(Number::U8, &[rows.len() as u64, width as u64], &bytes).map_err(Unread::NoLabels)
}
