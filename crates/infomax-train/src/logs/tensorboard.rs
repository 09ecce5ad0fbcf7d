//! Metrics as an event file of TensorBoard.

use super::Sink;
use crate::history::{History, Record};
use crate::{Error, Result, files};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// What the names of event files have in common: TensorBoard looks for `tfevents`.
const NAME: &str = "events.out.tfevents.";
/// The end of the names of those that are written here, which may be replaced.
const OURS: &str = ".infomax";

/// A file of records: `length: u64`, `masked crc32c(length): u32`, the bytes, `masked crc32c(bytes): u32`, little-endian
/// (the TFRecord framing). Each record is the protocol buffer `tensorflow.Event` (tensorflow/core/util/event.proto);
/// the first one says `brain.Event:2`.
#[derive(Debug)]
pub(super) struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    pub(super) fn write(history: &History, folder: &Path) -> Result<Self> {
        files::create_dir(folder)?;
        let start = history.records.first().map(|record| record.time).or(history.started).unwrap_or(0.0);
        let path = folder.join(format!("{NAME}{:010}{OURS}", start.max(0.0) as u64));
        let mut bytes = framed(&version(start));
        history.records.iter().for_each(|record| bytes.extend(framed(&event(record))));
        files::replace(&path, &bytes)?;
        // One file a run: TensorBoard would show an older one as a second course of the same curves.
        let entries = std::fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(|name| name.starts_with(NAME) && name.ends_with(OURS));
            if ours && entry.path() != path {
                std::fs::remove_file(entry.path()).map_err(|e| Error::io("remove", &entry.path(), e))?;
            }
        }
        let file = OpenOptions::new().append(true).open(&path).map_err(|e| Error::io("open", &path, e))?;
        Ok(Self { path, file })
    }
}

impl Sink for Events {
    fn append(&mut self, record: &Record) -> Result<bool> {
        let bytes = framed(&event(record));
        self.file.write_all(&bytes).map_err(|e| Error::io("write", &self.path, e))?;
        Ok(true)
    }
}

/// A record with its length and its two checksums.
fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut bytes = Vec::with_capacity(data.len() + 16);
    bytes.extend(length);
    bytes.extend(masked(crc32c::crc32c(&length)).to_le_bytes());
    bytes.extend(data);
    bytes.extend(masked(crc32c::crc32c(data)).to_le_bytes());
    bytes
}

/// The mask of TFRecord: a checksum of data that hold checksums would be weak.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// `Event { wall_time = 1, file_version = 3 }`.
fn version(time: f64) -> Vec<u8> {
    let mut event = Vec::new();
    double(&mut event, 1, time);
    bytes(&mut event, 3, b"brain.Event:2");
    event
}

/// `Event { wall_time = 1, step = 2, summary = 5 { value = 1 { tag = 1, simple_value = 2 } ... } }`: the values of a
/// line but its step, in f32. The first point of a name is a `/`, by which TensorBoard makes groups; a name without one
/// is in the group `train`.
fn event(record: &Record) -> Vec<u8> {
    let mut summary = Vec::new();
    for (name, value) in record.values.iter().filter(|(name, _)| *name != "step") {
        let tag = match name.split_once('.') {
            Some((group, rest)) => format!("{group}/{rest}"),
            None => format!("train/{name}"),
        };
        let mut entry = Vec::new();
        bytes(&mut entry, 1, tag.as_bytes());
        key(&mut entry, 2, 5);
        entry.extend((*value as f32).to_le_bytes());
        bytes(&mut summary, 1, &entry);
    }
    let mut event = Vec::new();
    double(&mut event, 1, record.time);
    key(&mut event, 2, 0);
    varint(&mut event, record.step);
    bytes(&mut event, 5, &summary);
    event
}

/// The number and the wire type of a field.
fn key(to: &mut Vec<u8>, field: u64, wire: u64) {
    varint(to, field << 3 | wire);
}

fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn double(to: &mut Vec<u8>, field: u64, value: f64) {
    key(to, field, 1);
    to.extend(value.to_le_bytes());
}

fn bytes(to: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(to, field, 2);
    varint(to, value.len() as u64);
    to.extend(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that `tests/golden/events.py` got from the Python package.
    const GOLDEN: &[u8] = include_bytes!("../../tests/golden/events.tfevents");

    fn record(step: u64, time: f64, values: &[(&str, f64)]) -> Record {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Record { step, time, values, ..Record::default() }
    }

    #[test]
    fn the_bytes_are_those_of_the_python_package() {
        let mut ours = framed(&version(1_700_000_000.25));
        let first = [("lr", 0.004), ("parts.variance", -1.5), ("step", 1.0), ("total", 0.1)];
        ours.extend(framed(&event(&record(1, 1_700_000_001.5, &first))));
        let second = [("embedding.std_mean", 1e-30), ("time.step_s", 12345.678), ("total", 3e38)];
        ours.extend(framed(&event(&record(1_000_000_007, 1_700_000_002.0, &second))));
        assert!(ours == GOLDEN, "{} bytes, golden {}", ours.len(), GOLDEN.len());
    }

    #[test]
    fn one_file_a_run_that_grows() {
        let dir = tempfile::tempdir().unwrap();
        let history = |records| History {
            records,
            state: crate::RunState::Unfinished,
            ending: None,
            started: None,
            seconds: 0.0,
            steps: 0,
            planned: None,
            problems: Vec::new(),
        };
        let foreign = dir.path().join("events.out.tfevents.1.other");
        std::fs::write(&foreign, "").unwrap();
        let one = record(1, 50.0, &[("total", 1.0)]);
        Events::write(&history(vec![one.clone()]), dir.path()).unwrap();
        let one = Record { time: 60.0, ..one };
        let mut events = Events::write(&history(vec![one.clone()]), dir.path()).unwrap();
        let two = record(2, 61.0, &[("total", 2.0)]);
        assert!(events.append(&two).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        let grown = std::fs::read(&events.path).unwrap();
        Events::write(&history(vec![one, two]), dir.path()).unwrap();
        assert_eq!(std::fs::read(&events.path).unwrap(), grown);
        assert!(foreign.exists());
    }
}
