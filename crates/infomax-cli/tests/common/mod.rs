//! What the tests of the program share.

#![allow(dead_code, clippy::unwrap_used)] // Each test program uses a part; a failure should stop.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub(crate) fn infomax(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_infomax")).current_dir(dir).args(args).output().unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
pub(crate) fn ok(output: &Output) {
    assert!(output.status.success(), "status {}\n{}\n{}", output.status, stdout(output), stderr(output));
}

/// A network and a data set that train in seconds.
pub(crate) const SMALL: [&str; 18] = [
    "--set",
    "model.encoder.blocks=[1, 1]",
    "--set",
    "model.encoder.width=8",
    "--set",
    "model.projector=[32, 32]",
    "--set",
    "data.train_images=200",
    "--set",
    "data.test_images=100",
    "--set",
    "train.batch=40",
    "--set",
    "train.log_every=1",
    "--set",
    "data.shapes.size=16",
    "--set",
    "augment.size=16",
];

pub(crate) fn pretrain(dir: &Path, more: &[&str]) -> Output {
    let args: Vec<&str> = ["pretrain", "--quiet"].iter().chain(&SMALL).chain(more).copied().collect();
    infomax(dir, &args)
}

pub(crate) fn metrics(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Metrics without what differs from run to run.
pub(crate) fn deterministic(run: &Path) -> Vec<Value> {
    let mut lines = metrics(run);
    lines.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("time")));
    lines
}

pub(crate) fn weights(run: &Path) -> Vec<u8> {
    let mut checkpoints: Vec<PathBuf> =
        std::fs::read_dir(run.join("checkpoints")).unwrap().map(|e| e.unwrap().path()).collect();
    checkpoints.sort();
    std::fs::read(checkpoints.last().unwrap().join("model.safetensors")).unwrap()
}
