//! Tables of texts: names, paths, groups, labels.

use crate::{Error, Result};
use std::collections::BTreeSet;
use std::path::Path;

/// Columns of texts; numbers are texts, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// A name and a value for each row; `None` where it is missing or empty.
    pub columns: Vec<(String, Vec<Option<String>>)>,
    /// The names of columns that are texts where they come from, so that what looks like a number in them is none. A `.csv` has
    /// no types and names none.
    pub texts: BTreeSet<String>,
}

impl Table {
    pub(super) fn new(names: Vec<String>) -> Self {
        Self { columns: names.into_iter().map(|name| (name, Vec::new())).collect(), texts: BTreeSet::new() }
    }

    /// A row, of which a function knows the value of each column.
    pub(super) fn push(&mut self, value: impl Fn(&str) -> Option<String>) {
        for (name, values) in &mut self.columns {
            values.push(value(name).filter(|text| !text.is_empty()));
        }
    }

    /// Notes which columns are texts in an object of JSON.
    pub(super) fn texts_of(&mut self, value: &serde_json::Value) {
        for (name, _) in &self.columns {
            if value.get(name).is_some_and(serde_json::Value::is_string) && !self.texts.contains(name) {
                self.texts.insert(name.clone());
            }
        }
    }

    /// The number of rows; 0 without columns.
    pub fn rows(&self) -> usize {
        self.columns.first().map_or(0, |(_, values)| values.len())
    }

    /// A column by one of its names, in the order of the names, whatever their case.
    pub fn column(&self, names: &[&str]) -> Option<&(String, Vec<Option<String>>)> {
        names.iter().find_map(|name| self.columns.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)))
    }

    /// The rows of some numbers; a number beyond the end gives missing values.
    pub fn select(&self, rows: &[usize]) -> Self {
        let pick =
            |values: &[Option<String>]| rows.iter().map(|&i| values.get(i).cloned().flatten()).collect();
        let columns = self.columns.iter().map(|(name, values)| (name.clone(), pick(values))).collect();
        Self { columns, texts: self.texts.clone() }
    }
}

/// Reads a table with a line of names: `.csv`, `.tsv` and `.txt` (commas, semicolons or tabs), `.jsonl` and `.ndjson`, and
/// with the feature `parquet` the plain columns of `.parquet`.
///
/// # Errors
/// [`Error::Io`]; [`Error::Decode`] with the line and what is wrong in it.
pub fn read_table(path: &Path) -> Result<Table> {
    super::readable(path)?;
    let kind = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    match kind.as_str() {
        "jsonl" | "ndjson" => lines(path),
        #[cfg(feature = "parquet")]
        "parquet" | "pq" => super::parquet::table(path),
        "csv" | "tsv" | "txt" => separated(path),
        _ => {
            let reason = "no kind of table that is read; .csv, .tsv, .jsonl and .parquet are".into();
            Err(Error::Decode { path: path.to_path_buf(), reason })
        }
    }
}

fn separated(path: &Path) -> Result<Table> {
    let damaged = |reason: String| Error::Decode { path: path.to_path_buf(), reason };
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged("no text in UTF-8".into()))?;
    let text = text.trim_start_matches('\u{feff}');
    let first = text.lines().next().unwrap_or_default();
    let delimiter = ['\t', ';', ','].into_iter().find(|d| first.contains(*d)).unwrap_or(',');
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter as u8)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let names: Vec<String> =
        reader.headers().map_err(|e| damaged(e.to_string()))?.iter().map(ToOwned::to_owned).collect();
    if names.is_empty() {
        return Err(damaged("an empty table: its first line has the names of the columns".into()));
    }
    let mut table = Table::new(names);
    for record in reader.records() {
        let record = record.map_err(|e| damaged(e.to_string()))?;
        for (cell, (_, values)) in record.iter().zip(&mut table.columns) {
            values.push((!cell.is_empty()).then(|| cell.to_owned()));
        }
    }
    Ok(table)
}

fn lines(path: &Path) -> Result<Table> {
    let mut table = Table::default();
    super::lines::each(path, |line, value| {
        let Some(fields) = value.as_object() else {
            let reason = format!("line {line} is no object with a field for each column");
            return Err(Error::Decode { path: path.to_path_buf(), reason });
        };
        if line == 1 {
            let plain = fields.iter().filter(|(_, v)| !v.is_array() && !v.is_object());
            table = Table::new(plain.map(|(k, _)| k.clone()).collect());
        }
        table.texts_of(&value);
        table.push(|name| match fields.get(name) {
            Some(serde_json::Value::String(text)) => Some(text.clone()),
            None | Some(serde_json::Value::Null) => None,
            Some(other) => Some(other.to_string()),
        });
        Ok(())
    })?;
    Ok(table)
}
