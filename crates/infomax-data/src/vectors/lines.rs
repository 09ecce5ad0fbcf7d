//! JSON lines: one object, or one array of numbers, a line.

use super::scan::Sink;
use super::{Table, VectorOptions, Vectors, chosen};
use crate::{Error, Result};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// The longest line that is read.
const LONGEST: usize = 64 << 20;

pub(super) fn read(path: &Path, options: &VectorOptions) -> Result<Vectors> {
    // Once to count, so that rows can be drawn; once to read.
    let (mut n, mut first) = (0, None);
    each(path, |_, value| {
        n += 1;
        first.get_or_insert(value);
        Ok(())
    })?;
    let damaged = |reason: String| Error::Decode { path: path.to_path_buf(), reason };
    let first = first.ok_or_else(|| damaged("an empty file: no line holds an embedding".into()))?;
    let numbers = |value: &Value| {
        value.as_array().is_some_and(|a| !a.is_empty() && a.iter().all(|v| v.is_number() || v.is_null()))
    };
    let (field, others) = match &first {
        Value::Array(_) if numbers(&first) => (None, Vec::new()),
        Value::Object(fields) => {
            let of = |keep: &dyn Fn(&Value) -> bool| -> Vec<String> {
                fields.iter().filter(|(_, v)| keep(v)).map(|(k, _)| k.clone()).collect()
            };
            let candidates = of(&numbers);
            let all = of(&|_| true);
            let field = candidates[chosen(path, options.column.as_deref(), &candidates, &all)?].clone();
            (Some(field), of(&|v| !v.is_array() && !v.is_object()))
        }
        _ => return Err(damaged("line 1 is neither an object nor an array of numbers".into())),
    };
    let vector = |line: usize, value: &Value| -> Result<Vec<f64>> {
        let own = match &field {
            Some(field) => value.get(field),
            None => Some(value),
        };
        let own = own.and_then(Value::as_array);
        let own = own.ok_or_else(|| {
            damaged(format!("line {line} has no array of numbers `{}`", field.as_deref().unwrap_or("[...]")))
        })?;
        let number = |v: &Value| match v {
            // Python writes what is not finite as words that are no JSON, or as null.
            Value::Null => Ok(f64::NAN),
            v => v.as_f64().ok_or_else(|| damaged(format!("line {line}: `{v}` is no number"))),
        };
        own.iter().map(number).collect()
    };
    let d = vector(1, &first)?.len();
    let mut sink = Sink::new(n, d, true, options);
    let mut table = Table::new(others);
    each(path, |line, value| {
        let row = vector(line, &value)?;
        if row.len() != d {
            return Err(damaged(format!("line {line} has {} numbers, the first has {d}", row.len())));
        }
        if sink.wants() {
            table.push(|name| match value.get(name) {
                Some(Value::String(text)) => Some(text.clone()),
                None | Some(Value::Null | Value::Array(_) | Value::Object(_)) => None,
                Some(other) => Some(other.to_string()),
            });
        }
        sink.push(&row);
        Ok(())
    })?;
    sink.finish(path, table, Vec::new())
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
