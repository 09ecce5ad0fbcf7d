//! Metrics in other formats: while a run goes on, across its interruptions, and afterwards.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests, where a failure should stop.

#[allow(dead_code, unreachable_pub)]
mod common;

use common::{After, Setup, reopen, start};
use infomax_train::{History, LogFormat, RunState, Silent, StepMetrics, TrainConfig, export};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

fn setup() -> Setup {
    let log = vec![LogFormat::Tensorboard, LogFormat::Csv, LogFormat::Mlflow, LogFormat::Csv];
    Setup { config: TrainConfig { log, ..common::config() }, ..Setup::default() }
}

/// A run that is stopped after a step, at which it saves.
fn until(run: &Path, step: u64, resume: bool) {
    let stop = AtomicBool::new(false);
    let mut observer = After(|metrics: &StepMetrics| stop.store(metrics.step == step, Ordering::Relaxed));
    let mut trainer = if resume { reopen(run, setup()) } else { start(run, setup()) };
    if resume {
        trainer.resume().unwrap();
    }
    trainer.run(&stop, &mut observer).unwrap();
}

/// A reader of event files that shares no line with the writer: step and tag to value.
fn events(folder: &Path) -> BTreeMap<(u64, String), f32> {
    let files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    let bytes = std::fs::read(&files[0]).unwrap();
    let mut found = BTreeMap::new();
    let (mut at, mut first) = (0, true);
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        let data = &bytes[at + 12..at + 12 + length];
        for (of, place) in [(&bytes[at..at + 8], at + 8), (data, at + 12 + length)] {
            let crc = crc32c::crc32c(of);
            let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
            assert_eq!(masked.to_le_bytes(), bytes[place..place + 4]);
        }
        at += 16 + length;
        let event = fields(data);
        assert!(f64::from_bits(event[0].1) > 1.7e9, "a time of our days");
        if first {
            assert!(event.iter().any(|(field, _, text)| (*field, *text) == (3, &b"brain.Event:2"[..])));
            first = false;
            continue;
        }
        let step = event.iter().find(|(field, ..)| *field == 2).unwrap().1;
        let summary = event.iter().find(|(field, ..)| *field == 5).unwrap().2;
        for (_, _, value) in fields(summary) {
            let value = fields(value);
            let tag = String::from_utf8(value[0].2.to_vec()).unwrap();
            let number = f32::from_bits(value[1].1 as u32);
            assert_eq!(found.insert((step, tag), number), None, "step {step} twice");
        }
    }
    found
}

/// The fields of a protocol buffer: number, value, bytes.
fn fields(mut data: &[u8]) -> Vec<(u64, u64, &[u8])> {
    fn varint(data: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = data[0];
            *data = &data[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }
    let mut found = Vec::new();
    while !data.is_empty() {
        let key = varint(&mut data);
        let (mut value, mut bytes) = (0, &data[..0]);
        let length = match key & 7 {
            0 => {
                value = varint(&mut data);
                0
            }
            1 => 8,
            2 => varint(&mut data) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        (bytes, data) = if length > 0 { data.split_at(length) } else { (bytes, data) };
        match key & 7 {
            1 => value = u64::from_le_bytes(bytes.try_into().unwrap()),
            5 => value = u64::from(u32::from_le_bytes(bytes.try_into().unwrap())),
            _ => {}
        }
        found.push((key >> 3, value, bytes));
    }
    found
}

#[test]
fn every_step_is_there_once_whatever_happened_to_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    until(&run, 7, false);
    assert_eq!(History::read(&run).unwrap().state, RunState::Interrupted);
    // What a killed process leaves: steps after its checkpoint, and a half-written line.
    let mut csv = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    let last = csv.lines().last().unwrap().to_owned();
    csv += &format!("{}\n8,0,3", last.replacen('7', "8", 1));
    std::fs::write(run.join("metrics.csv"), csv).unwrap();
    until(&run, 9, true);
    // Back to the checkpoint of step 7.
    std::fs::remove_dir_all(run.join("checkpoints/step-00000009")).unwrap();
    let mut trainer = reopen(&run, setup());
    assert_eq!(trainer.resume().unwrap().unwrap().step, 7);
    trainer.run(&AtomicBool::new(false), &mut Silent).unwrap();

    let history = History::read(&run).unwrap();
    assert_eq!((history.state, history.records.len()), (RunState::Finished, 30));
    assert!(
        history.problems.is_empty() && history.seconds > 0.0 && history.started.is_some_and(|s| s > 1.7e9)
    );
    assert!(history.records.windows(2).all(|pair| pair[0].time <= pair[1].time));
    let losses = history.curve("total");
    // The table is that of an export afterwards, and has the values of metrics.jsonl.
    let csv = std::fs::read_to_string(run.join("metrics.csv")).unwrap();
    export(&run, LogFormat::Csv, &dir.path().join("again.csv")).unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("again.csv")).unwrap(), csv);
    let mut rows = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = rows.next().unwrap();
    assert_eq!(&header[..5], ["step", "epoch", "total_steps", "lr", "total"]);
    let health = header.iter().position(|name| *name == "health").unwrap();
    let rows: Vec<Vec<&str>> = rows.collect();
    assert_eq!((rows[0][health], rows[1][health]), ("", "healthy"), "measured at every second step");
    let read: Vec<(u64, f64)> =
        rows.iter().map(|row| (row[0].parse().unwrap(), row[4].parse().unwrap())).collect();
    assert_eq!(read, losses);

    // TensorBoard's are f32.
    let live = events(&run.join("tensorboard"));
    for (step, value) in &losses {
        assert_eq!(live[&(*step, "train/total".to_owned())], *value as f32);
    }
    assert!(
        live.contains_key(&(2, "embedding/std_mean".into()))
            && live.contains_key(&(1, "parts/spread".into()))
    );
    export(&run, LogFormat::Tensorboard, &dir.path().join("tb")).unwrap();
    assert_eq!(events(&dir.path().join("tb")), live);

    let metrics = |store: &Path| {
        let run = std::fs::read_dir(store.join("0")).unwrap().map(|e| e.unwrap().path()).find(|p| p.is_dir());
        let run = run.unwrap();
        let text = std::fs::read_to_string(run.join("metrics/total")).unwrap();
        let lines = text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned());
        (lines.collect::<Vec<_>>(), std::fs::read_to_string(run.join("meta.yaml")).unwrap())
    };
    let (lines, meta) = metrics(&run.join("mlruns"));
    assert_eq!(lines, losses.iter().map(|(step, value)| format!("{value} {step}")).collect::<Vec<_>>());
    assert!(meta.contains("status: 3\n") && !meta.contains("end_time: null"), "{meta}");
    export(&run, LogFormat::Mlflow, &dir.path().join("mlruns")).unwrap();
    assert_eq!(metrics(&dir.path().join("mlruns")).0, lines);
}

#[test]
fn what_cannot_be_read_is_named_and_a_held_run_is_running() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let held = infomax_train::RunDir::create(&run, "").unwrap();
    assert_eq!(History::read(&run).unwrap().state, RunState::Running);
    drop(held);
    std::fs::write(run.join("metrics.jsonl"), "{\"step\":1,\"total\":2.0}\nnonsense\n{\"step\":2,\"tot")
        .unwrap();
    let history = History::read(&run).unwrap();
    assert_eq!(
        (history.state, history.records.len(), history.curve("total")),
        (RunState::Unfinished, 1, vec![(1, 2.0)])
    );
    assert!(
        history.problems.len() == 1 && history.problems[0].contains("line 2 of"),
        "{:?}",
        history.problems
    );
    assert!(History::read(dir.path()).is_err());
}
