//! The program as one of several processes: joined over TCP, and refused where nothing joins them.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests, where a failure should stop.

mod common;

use common::stderr;
use std::process::Command;

/// The built program with the variables of a launcher.
fn launched(dir: &std::path::Path, variables: &[(&str, &str)], args: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infomax"));
    command.current_dir(dir).args(args).envs(variables.iter().copied()).output().unwrap()
}

#[test]
#[cfg(not(feature = "mpi"))]
fn several_processes_are_refused_before_there_is_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let mpi = ["process 1 of 2", "mpirun of Open MPI", "built without mpi", "--features mpi", "MASTER_ADDR"];
    let none = ["rank 1 of 2", "starts no MPI", "MASTER_ADDR and MASTER_PORT", "are not set", "--mpi=pmix"];
    for (variables, parts) in [
        ([("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")], mpi),
        ([("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "2")], none),
        ([("RANK", "1"), ("WORLD_SIZE", "2")], none),
    ] {
        let args = [&["pretrain", "--epochs", "1"], &common::SMALL[..]].concat();
        let output = launched(dir.path(), &variables, &args);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        for part in parts {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Two processes of a job of steps without an end or of two epochs, started as torchrun does.
struct Two {
    processes: [std::process::Child; 2],
    run: std::path::PathBuf,
}

impl Two {
    fn start(dir: &std::path::Path, name: &str, more: &[&str]) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let run = dir.join(name);
        let process = |rank: usize| {
            let out = std::fs::File::create(dir.join(format!("{name}-{rank}.txt"))).unwrap();
            Command::new(env!("CARGO_BIN_EXE_infomax"))
                .current_dir(dir)
                .args(["pretrain", "--threads", "1", "--rank-timeout", "2", "--run"])
                .arg(&run)
                .args(tiny(more))
                .args(more)
                .envs([("RANK", rank.to_string()), ("WORLD_SIZE", "2".into())])
                .envs([("MASTER_ADDR", "127.0.0.1".to_owned()), ("MASTER_PORT", port.to_string())])
                .stdout(out.try_clone().unwrap())
                .stderr(out)
                .spawn()
                .unwrap()
        };
        Self { processes: [process(0), process(1)], run }
    }

    /// The losses of the steps up to now.
    fn losses(run: &std::path::Path) -> Vec<f64> {
        let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
        // The last line may be on its way.
        let steps = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        steps.filter_map(|step| step["total"].as_f64()).collect()
    }

    /// Waits until the run is under way.
    fn under_way(&mut self) {
        for _ in 0..3000 {
            if Self::losses(&self.run).len() >= 4 {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("no steps within a minute: {:?}", self.texts());
    }

    fn texts(&self) -> [String; 2] {
        [0, 1].map(|rank| std::fs::read_to_string(format!("{}-{rank}.txt", self.run.display())).unwrap())
    }

    #[cfg(unix)]
    fn signal(&self, rank: usize, signal: &str) {
        let id = self.processes[rank].id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &id]).status().unwrap().success());
    }

    fn end(mut self) -> ([Option<i32>; 2], [String; 2]) {
        let codes = [0, 1].map(|rank| self.processes[rank].wait().unwrap().code());
        (codes, self.texts())
    }
}

const TINY: [&str; 8] = [
    "data.train_images=48",
    "data.test_images=24",
    "data.shapes.size=16",
    "train.batch=24",
    "train.log_every=1",
    "train.checkpoint_every_steps=2",
    "model.encoder.blocks=[1, 1]",
    "model.encoder.width=4",
];

/// The settings of a job of milliseconds a step, without those that are set otherwise.
fn tiny<'a>(others: &[&str]) -> Vec<&'a str> {
    let key = |set: &str| set.split('=').next().map(str::to_owned);
    let kept = TINY.iter().filter(|set| others.iter().all(|other| key(other) != key(set)));
    kept.flat_map(|set| ["--set", set]).collect()
}

#[test]
fn two_processes_over_tcp_make_the_steps_of_one() {
    let dir = tempfile::tempdir().unwrap();
    let (codes, texts) = Two::start(dir.path(), "two", &["--epochs", "2"]).end();
    assert_eq!(codes, [Some(0); 2], "{texts:?}");
    assert!(texts[0].contains("2 ranks on 1 host") && !texts[1].contains("ranks on"), "{texts:?}");
    let mut args = vec!["pretrain", "--no-eval", "--epochs", "2", "--run", "one"];
    args.extend(tiny(&[]));
    common::ok(&common::infomax(dir.path(), &args));
    let (two, one) = (Two::losses(&dir.path().join("two")), Two::losses(&dir.path().join("one")));
    assert_eq!((two.len(), one.len()), (4, 4));
    for (a, b) in two.iter().zip(&one) {
        assert!((a - b).abs() <= 2e-3 * b.abs(), "{two:?} {one:?}");
    }
    // The evaluation at the end is that of rank 0.
    assert!(dir.path().join("two/evaluation.json").is_file());
}

#[test]
#[cfg(unix)]
fn a_process_that_is_killed_stopped_or_asked_to_end_ends_both_and_the_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    for (signal, said, code) in [
        ("KILL", "closed its connection", Some(1)),
        ("STOP", "waited 2 s in", Some(1)),
        ("TERM", "Stopped after step", Some(130)),
    ] {
        let mut two = Two::start(dir.path(), signal, &["--no-eval", "--epochs", "100000"]);
        two.under_way();
        two.signal(1, signal);
        let first = two.processes[0].wait().unwrap().code();
        if signal == "STOP" {
            two.signal(1, "KILL");
        }
        let run = two.run.clone();
        let (codes, texts) = two.end();
        assert_eq!(first, code, "{texts:?}");
        assert!(texts[0].contains(said), "{said}: {texts:?}");
        assert!(texts.iter().any(|text| text.contains("rank 1 (")), "{texts:?}");
        if signal == "TERM" {
            assert_eq!(codes, [Some(130); 2], "{texts:?}");
        }
        let steps = Two::losses(&run).len();
        let epochs = (steps / 2 + 2).to_string();
        let resume = ["pretrain", "--no-eval", "--epochs", &epochs, "--resume", signal];
        let output = common::infomax(dir.path(), &resume);
        common::ok(&output);
        assert!(stderr(&output).contains("resumed at step"), "{}", stderr(&output));
    }
}

#[test]
#[cfg(unix)]
fn a_signal_to_one_process_during_the_evaluation_ends_both_with_the_training_saved() {
    let dir = tempfile::tempdir().unwrap();
    // Many small batches: the evaluation lasts until it is stopped.
    let long = ["--set", "eval.batch=1", "--set", "data.train_images=4800", "--set", "train.batch=2400"];
    for (rank, signal) in [(1, "TERM"), (0, "INT"), (1, "KILL")] {
        let name = format!("{signal}{rank}");
        let mut two = Two::start(dir.path(), &name, &[&["--epochs", "1"], &long[..]].concat());
        let (done, mut left) = (two.run.join("checkpoints"), 3000);
        let saved = || {
            let mut all = std::fs::read_dir(&done).into_iter().flatten().flatten();
            all.any(|one| one.path().join("model.safetensors").is_file())
        };
        while !saved() {
            assert!(left > 0 && two.processes[0].try_wait().unwrap().is_none(), "{:?}", two.texts());
            std::thread::sleep(std::time::Duration::from_millis(20));
            left -= 1;
        }
        // Its last step is saved; the rest of the training is a matter of milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(500));
        two.signal(rank, signal);
        let run = two.run.clone();
        let (codes, texts) = two.end();
        if signal == "KILL" {
            assert_eq!(codes, [Some(1), None], "{texts:?}");
            assert!(texts[0].contains("rank 1 ("), "{texts:?}");
        } else {
            assert_eq!(codes, [Some(130); 2], "{texts:?}");
            let by = format!("The evaluation was stopped by rank {rank}");
            assert!(texts[0].contains(&by) && !texts[1].contains(&by), "{texts:?}");
            let (own, asked) = (format!("rank {rank} ("), "asked to stop: ending the evaluation");
            assert!(texts[rank].contains(&own) && texts[rank].contains(asked), "{texts:?}");
        }
        assert!(!run.join("evaluation.json").exists(), "{name}: {texts:?}");
        assert!(!common::weights(&run).is_empty());
    }
}

#[test]
fn what_one_process_does_is_refused_to_several_and_variables_without_a_meaning_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let two = [("RANK", "0"), ("WORLD_SIZE", "2")];
    for args in [&["evaluate", "runs/x"][..], &["embed", "runs/x", "--out", "z.npy"], &["paper", "--all"]] {
        let output = launched(dir.path(), &two, args);
        let text = stderr(&output);
        assert!(!output.status.success() && text.contains("the work of one process"), "{args:?}: {text}");
    }
    let wrong = [("RANK", "2"), ("WORLD_SIZE", "2")];
    let text = stderr(&launched(dir.path(), &wrong, &["pretrain"]));
    assert!(text.contains("WORLD_SIZE = 2: RANK = 2 must be below it"), "{text}");
    // One process of a launcher is a process like any other; so is one where others use the name.
    for variables in [&[("RANK", "0"), ("WORLD_SIZE", "1")][..], &[("RANK", "first")]] {
        let output = launched(dir.path(), variables, &["pretrain", "--rank-timeout", "0"]);
        assert!(stderr(&output).contains("--rank-timeout 0: seconds above 0"), "{}", stderr(&output));
    }
}
