//! JSON lines: one object, or one array of numbers, a line.

use super::scan::Sink;
use super::{Table, VectorOptions, Vectors, chosen};
use crate::{Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// The longest line that is read.
const LONGEST: usize = 64 << 20;

pub(super) fn read(path: &Path, options: &VectorOptions) -> Result<Vectors> {
    // Once to count, so that rows can be drawn, and to find what holds the embeddings; once to read.
    let numbers = |value: &Value| {
        value.as_array().is_some_and(|a| !a.is_empty() && a.iter().all(|v| v.is_number() || v.is_null()))
    };
    let (mut n, mut first, mut lengths) = (0, None, BTreeMap::new());
    let mut arrays = None;
    each(path, |_, value| {
        n += 1;
        match &value {
            Value::Object(fields) => {
                for (name, own) in fields {
                    if numbers(own) && !lengths.contains_key(name) {
                        lengths.insert(name.clone(), own.as_array().map_or(0, Vec::len));
                    }
                }
            }
            own if arrays.is_none() && numbers(own) => arrays = own.as_array().map(Vec::len),
            _ => {}
        }
        // A line that is null has no embedding, and says nothing of the others.
        if first.is_none() && !value.is_null() {
            first = Some(value);
        }
        Ok(())
    })?;
    let damaged = |reason: String| Error::Decode { path: path.to_path_buf(), reason };
    let first = first.ok_or_else(|| damaged("no line holds an embedding".into()))?;
    let (field, others) = match &first {
        Value::Array(_) if arrays.is_some() => (None, Vec::new()),
        Value::Object(fields) => {
            let candidates: Vec<String> = lengths.keys().cloned().collect();
            let all: Vec<String> = fields.keys().cloned().collect();
            let field = candidates[chosen(path, options.column.as_deref(), &candidates, &all)?].clone();
            let plain = |(name, v): &(&String, &Value)| **name != field && !v.is_array() && !v.is_object();
            let others = fields.iter().filter(plain).map(|(name, _)| name.clone()).collect();
            (Some(field), others)
        }
        _ => return Err(damaged("its first line is neither an object nor an array of numbers".into())),
    };
    // The numbers of a line; none if it has no embedding.
    let vector = |line: usize, value: &Value| -> Result<Option<Vec<f64>>> {
        let own = match (&field, value) {
            (_, Value::Null) => return Ok(None),
            (Some(field), Value::Object(fields)) => fields.get(field).unwrap_or(&Value::Null),
            (None, own) => own,
            (Some(field), _) => {
                return Err(damaged(format!("line {line} is no object with a field `{field}`")));
            }
        };
        let own = match own {
            Value::Null => return Ok(None),
            own => own.as_array().ok_or_else(|| {
                let name = field.as_deref().unwrap_or("[...]");
                damaged(format!("line {line} has no array of numbers `{name}`"))
            })?,
        };
        let number = |v: &Value| match v {
            // Python writes what is not finite as words that are no JSON, or as null.
            Value::Null => Ok(f64::NAN),
            v => v.as_f64().ok_or_else(|| damaged(format!("line {line}: `{v}` is no number"))),
        };
        Ok(Some(own.iter().map(number).collect::<Result<Vec<_>>>()?).filter(|row| !row.is_empty()))
    };
    let d = field.as_ref().map_or(arrays, |field| lengths.get(field).copied());
    let d = d.ok_or_else(|| damaged("no line holds an embedding".into()))?;
    let mut missing = 0usize;
    let mut sink = Sink::new(n, d, true, options);
    let mut table = Table::new(others);
    each(path, |line, value| {
        let row = vector(line, &value)?.unwrap_or_else(|| {
            missing += 1;
            vec![f64::NAN; d]
        });
        if row.len() != d {
            return Err(damaged(format!("line {line} has {} numbers, the first has {d}", row.len())));
        }
        if sink.wants() {
            table.texts_of(&value);
            table.push(|name| match value.get(name) {
                Some(Value::String(text)) => Some(text.clone()),
                None | Some(Value::Null | Value::Array(_) | Value::Object(_)) => None,
                Some(other) => Some(other.to_string()),
            });
        }
        sink.push(&row);
        Ok(())
    })?;
    let note = format!("{missing} rows have no embedding; they count as not finite");
    sink.finish(path, table, (missing > 0).then_some(note).into_iter().collect())
}

/// The value of each line that is not empty.
pub(super) fn each(path: &Path, mut take: impl FnMut(usize, Value) -> Result<()>) -> Result<()> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let damaged = |reason: String| Error::Decode { path: path.to_path_buf(), reason };
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(io)?);
    let (mut line, mut text) = (0, Vec::new());
    loop {
        text.clear();
        let read =
            std::io::Read::take(&mut reader, LONGEST as u64 + 1).read_until(b'\n', &mut text).map_err(io)?;
        if read == 0 {
            return Ok(());
        }
        line += 1;
        if text.len() > LONGEST {
            return Err(damaged(format!("line {line} is longer than {LONGEST} bytes")));
        }
        let own = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
        if own.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let value = serde_json::from_slice(own).map_err(|e| {
            let said = String::from_utf8_lossy(own);
            let hint = if said.contains("NaN") || said.contains("Infinity") {
                "; JSON has no NaN, write null"
            } else {
                ""
            };
            damaged(format!("line {line} is no JSON: {e}{hint}"))
        })?;
        take(line, value)?;
    }
}
