//! Tables as parquet files.

use super::super::{Error, Result};
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, FloatType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use std::path::Path;
use std::sync::Arc;

/// A column of a table.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Cells {
    /// Whole numbers.
    Whole(Vec<i64>),
    /// Numbers, where there are any.
    Numbers(Vec<Option<f64>>),
    /// Texts, where there are any.
    Texts(Vec<Option<String>>),
    /// A list of so many numbers a row, row by row.
    Lists(usize, Vec<f32>),
}

impl Cells {
    fn rows(&self) -> usize {
        match self {
            Self::Whole(v) => v.len(),
            Self::Numbers(v) => v.len(),
            Self::Texts(v) => v.len(),
            Self::Lists(d, v) => v.len() / (*d).max(1),
        }
    }
}

/// The bytes of a parquet file with these columns, compressed with Zstandard; other programs (pandas, DuckDB,
/// embedding-atlas) open it. `path` is what errors name.
///
/// # Errors
/// [`Error::Decode`] for columns of different lengths or of one name.
pub fn parquet_bytes(path: &Path, columns: &[(String, Cells)]) -> Result<Vec<u8>> {
    let refuse = |reason: String| Error::Decode { path: path.to_path_buf(), reason };
    let rows = columns.first().map_or(0, |(_, cells)| cells.rows());
    for (k, (name, cells)) in columns.iter().enumerate() {
        if cells.rows() != rows {
            return Err(refuse(format!(
                "the column `{name}` has {} rows, the first has {rows}",
                cells.rows()
            )));
        }
        if columns[..k].iter().any(|(other, _)| other == name) {
            return Err(refuse(format!("two columns have the name `{name}`")));
        }
    }
    write(columns).map_err(|e| refuse(e.to_string()))
}

fn write(columns: &[(String, Cells)]) -> parquet::errors::Result<Vec<u8>> {
    let fields = columns
        .iter()
        .map(|(name, cells)| field(name, cells))
        .collect::<parquet::errors::Result<Vec<_>>>()?;
    let schema = Arc::new(Type::group_type_builder("rows").with_fields(fields).build()?);
    let properties =
        Arc::new(WriterProperties::builder().set_compression(Compression::ZSTD(Default::default())).build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties)?;
    let mut group = writer.next_row_group()?;
    let mut at = columns.iter();
    while let Some(mut column) = group.next_column()? {
        let Some((_, cells)) = at.next() else { break };
        match cells {
            Cells::Whole(values) => column.typed::<Int64Type>().write_batch(values, None, None)?,
            Cells::Numbers(values) => {
                let (there, levels) = present(values);
                column.typed::<DoubleType>().write_batch(&there, Some(&levels), None)?
            }
            Cells::Texts(values) => {
                let (there, levels) = present(values);
                let there: Vec<ByteArray> = there.iter().map(|text| ByteArray::from(text.as_str())).collect();
                column.typed::<ByteArrayType>().write_batch(&there, Some(&levels), None)?
            }
            Cells::Lists(d, values) => {
                let repeats: Vec<i16> = (0..values.len()).map(|i| i16::from(i % d != 0)).collect();
                let levels = vec![1i16; values.len()];
                column.typed::<FloatType>().write_batch(values, Some(&levels), Some(&repeats))?
            }
        };
        column.close()?;
    }
    group.close()?;
    writer.into_inner()
}

fn field(name: &str, cells: &Cells) -> parquet::errors::Result<Arc<Type>> {
    let plain = |kind: Physical, repetition: Repetition| {
        Type::primitive_type_builder(name, kind).with_repetition(repetition)
    };
    Ok(Arc::new(match cells {
        Cells::Whole(_) => plain(Physical::INT64, Repetition::REQUIRED).build()?,
        Cells::Numbers(_) => plain(Physical::DOUBLE, Repetition::OPTIONAL).build()?,
        Cells::Texts(_) => plain(Physical::BYTE_ARRAY, Repetition::OPTIONAL)
            .with_logical_type(Some(LogicalType::String))
            .build()?,
        Cells::Lists(..) => {
            let element = Type::primitive_type_builder("element", Physical::FLOAT)
                .with_repetition(Repetition::REQUIRED);
            let list = Type::group_type_builder("list")
                .with_repetition(Repetition::REPEATED)
                .with_fields(vec![Arc::new(element.build()?)])
                .build()?;
            Type::group_type_builder(name)
                .with_repetition(Repetition::REQUIRED)
                .with_logical_type(Some(LogicalType::List))
                .with_fields(vec![Arc::new(list)])
                .build()?
        }
    }))
}

/// The values that are there, and for each row whether it has one.
fn present<T: Clone>(values: &[Option<T>]) -> (Vec<T>, Vec<i16>) {
    (values.iter().flatten().cloned().collect(), values.iter().map(|v| i16::from(v.is_some())).collect())
}
