//! Tables as parquet files.

use super::super::{Error, Result};
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, FloatType, Int64Type};
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
    /// Whole numbers, where there are any.
    SomeWhole(Vec<Option<i64>>),
    /// Truths, where there are any.
    Truths(Vec<Option<bool>>),
    /// Texts, where there are any.
    Texts(Vec<Option<String>>),
    /// A list of so many numbers a row, row by row.
    Lists(usize, Vec<f32>),
}

impl Cells {
    /// A column of texts as what all of them are: whole numbers, numbers, truths (`true`, `false`), or else texts. A number is one whose
    /// text comes back from it, so that `007` stays a text.
    pub fn typed(values: &[Option<String>]) -> Self {
        fn all<T>(values: &[Option<String>], read: impl Fn(&str) -> Option<T>) -> Option<Vec<Option<T>>> {
            values.iter().map(|v| v.as_deref().map_or(Some(None), |text| read(text).map(Some))).collect()
        }
        let whole = |text: &str| text.parse::<i64>().ok().filter(|v| v.to_string() == text);
        // A sign, a leading zero or a word that Rust reads as infinite is no number of a table.
        let number = |text: &str| {
            let digits = text.strip_prefix('-').unwrap_or(text);
            let padded = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
            let plain = digits.starts_with(|c: char| c.is_ascii_digit()) && !padded;
            let word = ["nan", "inf", "-inf"].iter().any(|w| text.eq_ignore_ascii_case(w));
            text.parse::<f64>().ok().filter(|v| word || (plain && v.is_finite()))
        };
        let truth = |text: &str| text.parse::<bool>().ok();
        if values.iter().all(Option::is_none) {
            return Self::Texts(values.to_vec());
        }
        let typed = all(values, whole).map(Self::SomeWhole);
        let typed = typed.or_else(|| all(values, number).map(Self::Numbers));
        typed.or_else(|| all(values, truth).map(Self::Truths)).unwrap_or_else(|| Self::Texts(values.to_vec()))
    }

    fn rows(&self) -> usize {
        match self {
            Self::Whole(v) => v.len(),
            Self::Numbers(v) => v.len(),
            Self::SomeWhole(v) => v.len(),
            Self::Truths(v) => v.len(),
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
            Cells::SomeWhole(values) => {
                let (there, levels) = present(values);
                column.typed::<Int64Type>().write_batch(&there, Some(&levels), None)?
            }
            Cells::Truths(values) => {
                let (there, levels) = present(values);
                column.typed::<BoolType>().write_batch(&there, Some(&levels), None)?
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
        Cells::SomeWhole(_) => plain(Physical::INT64, Repetition::OPTIONAL).build()?,
        Cells::Truths(_) => plain(Physical::BOOLEAN, Repetition::OPTIONAL).build()?,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_the_type_that_all_of_them_have() {
        let of = |words: &[&str]| {
            let words: Vec<Option<String>> =
                words.iter().map(|w| (!w.is_empty()).then(|| (*w).to_owned())).collect();
            Cells::typed(&words)
        };
        assert_eq!(of(&["3", "", "-7"]), Cells::SomeWhole(vec![Some(3), None, Some(-7)]));
        assert_eq!(of(&["3", "0.5", "1e-3"]), Cells::Numbers(vec![Some(3.0), Some(0.5), Some(1e-3)]));
        assert_eq!(of(&["true", "", "false"]), Cells::Truths(vec![Some(true), None, Some(false)]));
        for words in [&["007", "8"][..], &["1", "a"], &["", ""], &["+1", "2"], &["true", "1"], &["infinity"]]
        {
            assert!(matches!(of(words), Cells::Texts(_)), "{words:?}");
        }
    }
}
