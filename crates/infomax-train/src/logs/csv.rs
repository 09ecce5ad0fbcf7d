//! Metrics as a table.

use super::{Sink, number};
use crate::history::{History, Record, place};
use crate::{Error, Result, files};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A row a step, a column a value; empty where a step did not measure it.
#[derive(Debug)]
pub(super) struct Table {
    path: PathBuf,
    file: File,
    columns: Vec<String>,
}

impl Table {
    pub(super) fn write(history: &History, path: &Path) -> Result<Self> {
        let names = |record: &Record| -> Vec<String> {
            record.values.keys().chain(record.words.keys()).cloned().collect()
        };
        let all: BTreeSet<String> = history.records.iter().flat_map(names).collect();
        let mut columns: Vec<String> = all.into_iter().collect();
        columns.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| a.cmp(b)));
        let mut bytes = row(path, columns.iter().map(String::as_str))?;
        for record in &history.records {
            bytes.extend(row(path, columns.iter().map(|column| cell(record, column)))?);
        }
        files::replace(path, &bytes)?;
        let file = OpenOptions::new().append(true).open(path).map_err(|e| Error::io("open", path, e))?;
        Ok(Self { path: path.to_owned(), file, columns })
    }
}

impl Sink for Table {
    fn append(&mut self, record: &Record) -> Result<bool> {
        let known = |name: &String| self.columns.contains(name);
        if !record.values.keys().chain(record.words.keys()).all(known) {
            return Ok(false);
        }
        let bytes = row(&self.path, self.columns.iter().map(|column| cell(record, column)))?;
        self.file.write_all(&bytes).map_err(|e| Error::io("write", &self.path, e))?;
        Ok(true)
    }
}

fn cell(record: &Record, column: &str) -> String {
    let value = record.values.get(column).map(|value| number(*value));
    value.or_else(|| record.words.get(column).cloned()).unwrap_or_default()
}

fn row(path: &Path, cells: impl Iterator<Item = impl AsRef<[u8]>>) -> Result<Vec<u8>> {
    let io = |e: csv::Error| Error::io("encode", path, std::io::Error::other(e));
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(cells).map_err(io)?;
    writer.into_inner().map_err(|e| Error::io("encode", path, std::io::Error::other(e.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunState;

    fn record(step: u64, values: &[(&str, f64)]) -> Record {
        let mut record = Record { step, ..Record::default() };
        record.values = values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        record.values.insert("step".to_owned(), step as f64);
        record
    }

    #[test]
    fn a_new_column_is_not_appended_and_a_gap_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.csv");
        let history = |records| History {
            records,
            state: RunState::Unfinished,
            ending: None,
            started: None,
            seconds: 0.0,
            steps: 0,
            planned: None,
            problems: Vec::new(),
        };
        let (one, three) =
            (record(1, &[("total", 0.1 + 0.2), ("time.step_s", 2.0)]), record(3, &[("total", 1e-9)]));
        let two = record(2, &[("parts.a,b", -4.0), ("total", 1.0)]);
        let mut table = Table::write(&history(vec![one.clone()]), &path).unwrap();
        assert!(!table.append(&two).unwrap(), "a column that it has not");
        let mut table = Table::write(&history(vec![one, two]), &path).unwrap();
        assert!(table.append(&three).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = "step,total,\"parts.a,b\",time.step_s\n1,0.30000000000000004,,2\n2,1,-4,\n3,1e-9,,\n";
        assert_eq!(text, expected);
    }
}
