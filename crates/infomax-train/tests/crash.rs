//! `kill -9` at any moment, and a full disk. This test starts itself as the process that is killed, so it
//! brings its own `main`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)] // A test, though not by harness.

#[allow(dead_code, unreachable_pub)]
mod common;

use common::{After, Setup, reopen, start};
use infomax_train::{Checkpoint, RunDir, Silent, TrainConfig};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("child") => child(Path::new(&args[2]), args[3].parse().unwrap()),
        // What the standard harness answers when it is asked for its tests.
        Some("--list") => println!("crash: test"),
        _ => {
            killed_at_any_moment();
            #[cfg(unix)]
            full_disk();
            println!("crash: ok");
        }
    }
}

fn setup(hidden: usize) -> Setup {
    let config = TrainConfig { epochs: 100_000, checkpoint_every_steps: Some(1), ..common::config() };
    Setup { config, hidden, ..Setup::default() }
}

/// Trains until it is killed, with a checkpoint at every step.
fn child(path: &Path, hidden: usize) {
    let mut trainer = match path.exists() {
        true => reopen(path, setup(hidden)),
        false => start(path, setup(hidden)),
    };
    trainer.resume().unwrap();
    if let Err(error) = trainer.run(&AtomicBool::new(false), &mut Silent) {
        println!("{error}");
        std::process::exit(3);
    }
}

/// Waits for a checkpoint of a later step than `last`, however slow the machine is, then a while more.
fn wait(path: &Path, last: u64, more: Duration) {
    let later = || match RunDir::latest(path) {
        Ok(Some(found)) => found.checkpoint.state().step > last,
        // Not started yet, or the child deleted what was just being read.
        _ => false,
    };
    let start = Instant::now();
    while !later() && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(more);
}

fn killed_at_any_moment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let exe = std::env::current_exe().unwrap();
    let mut last = 0;
    for round in 0..12u64 {
        let mut child = Command::new(&exe).arg("child").arg(&path).arg("64").spawn().unwrap();
        // Spread over the few milliseconds that a step with its checkpoint takes.
        wait(&path, last, Duration::from_millis(3 * round));
        child.kill().unwrap(); // SIGKILL on Unix
        child.wait().unwrap();
        let found = RunDir::latest(&path).unwrap().expect("a checkpoint");
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
        let step = found.checkpoint.state().step;
        assert!(step > last, "a checkpoint was lost: {last}, then {step}");
        assert!(!found.checkpoint.model().unwrap().is_empty());
        last = step;
    }
    // Going on cleans up, and the metrics have every step once.
    let mut trainer = reopen(&path, setup(64));
    assert_eq!(trainer.resume().unwrap().unwrap().step, last);
    let stop = AtomicBool::new(false);
    let mut observer = After(|_| stop.store(true, std::sync::atomic::Ordering::Relaxed));
    trainer.run(&stop, &mut observer).unwrap();
    let text = std::fs::read_to_string(path.join("metrics.jsonl")).unwrap();
    let steps =
        text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64());
    assert!(steps.eq((1..=last + 1).map(Some)), "the metrics do not have every step once");
    for entry in std::fs::read_dir(path.join("checkpoints")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with("step-"), "{name} was not cleaned");
    }
}

/// A limit on the size of files stands for the disk: writing past it is an error of the same kind.
#[cfg(unix)]
fn full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let exe = std::env::current_exe().unwrap();
    // 64 blocks of 512 bytes: the metrics reach that after some dozen checkpoints, with a small model.
    // The other units of `ulimit` (1024 bytes in bash) only make it later.
    for hidden in ["16", "4000"] {
        let path = path.with_extension(hidden);
        let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" child \"$1\" \"$2\"";
        let output = Command::new("sh")
            .args(["-c", script])
            .arg(&exe)
            .arg(&path)
            .arg(hidden)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        let message = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(3), "{message}");
        assert!(message.contains(path.to_str().unwrap()) && message.contains("free some space"), "{message}");
        let found = RunDir::latest(&path).unwrap();
        if hidden == "16" {
            assert!(message.contains("metrics.jsonl"), "{message}");
            Checkpoint::open(found.expect("a checkpoint").checkpoint.path()).unwrap();
        } else {
            // The very first checkpoint did not fit: nothing half-written stays.
            assert!(message.contains("safetensors") && found.is_none(), "{message}");
            assert_eq!(std::fs::read_dir(path.join("checkpoints")).unwrap().count(), 0);
        }
    }
}
