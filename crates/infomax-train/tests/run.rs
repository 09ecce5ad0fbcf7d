//! Runs of the toy: resumption with the same bits, guards, retention, damage.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers outside of the test functions.

#[allow(dead_code, unreachable_pub)]
mod common;

use common::{After, Setup, Toy, reopen, start};
use infomax_core::candle_core::DType;
use infomax_train::{
    Checkpoint, Error, HealthState, Observer, Outcome, RunDir, Silent, StepTime, TrainConfig,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

fn never() -> AtomicBool {
    AtomicBool::new(false)
}

fn finish(path: &Path, setup: Setup) -> PathBuf {
    let mut trainer = start(path, setup);
    match trainer.run(&never(), &mut Silent).unwrap() {
        Outcome::Finished { checkpoint, .. } => checkpoint,
        other => panic!("{other:?}"),
    }
}

/// Everything of a checkpoint, as bits.
fn content(path: &Path) -> Vec<(String, Vec<u64>)> {
    let checkpoint = Checkpoint::open(path).unwrap();
    let mut all = Vec::new();
    for (kind, tensors) in [
        ("model", checkpoint.model().unwrap()),
        ("optimizer", checkpoint.optimizer().unwrap()),
        ("objective", checkpoint.objective().unwrap()),
    ] {
        for (name, tensor) in tensors {
            let values =
                tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            all.push((format!("{kind}/{name}"), values.into_iter().map(f64::to_bits).collect()));
        }
    }
    all
}

/// The metrics without their times.
fn metrics(run: &Path) -> Vec<String> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let strip = |line: &str| {
        let mut metrics: infomax_train::StepMetrics = serde_json::from_str(line).unwrap();
        metrics.time = StepTime::default();
        serde_json::to_string(&metrics).unwrap()
    };
    text.lines().map(strip).collect()
}

fn steps(run: &Path) -> Vec<String> {
    let entries = fs::read_dir(run.join("checkpoints")).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_resumed_run_has_the_bits_of_the_uninterrupted_one() {
    let optimizers = [
        r#"{"name":"sgd","nesterov":true,"weight_decay":0.01}"#,
        r#"{"name":"adamw","weight_decay":0.05}"#,
        r#"{"name":"lars","eta":0.1,"form":"solo-learn"}"#,
        r#"{"name":"lamb"}"#,
        r#"{"name":"muon","groups":[{"match":"net.w?","weight_decay":0.1}]}"#,
    ];
    for optimizer in optimizers {
        let dir = tempfile::tempdir().unwrap();
        let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
        let expected = finish(&whole, Setup { optimizer, ..Setup::default() });

        // Stopped in the midst of an epoch, and once more at its end.
        let mut at = None;
        for stop_at in [7, 15] {
            let setup = Setup { optimizer, ..Setup::default() };
            let mut trainer = if at.is_none() { start(&parts, setup) } else { reopen(&parts, setup) };
            let resumed = trainer.resume().unwrap();
            assert_eq!(resumed.as_ref().map(|r| r.step), at);
            assert!(resumed.is_none_or(|r| r.warnings.is_empty()));
            let stop = never();
            let mut observer =
                After(|m: &infomax_train::StepMetrics| stop.store(m.step == stop_at, Ordering::Relaxed));
            match trainer.run(&stop, &mut observer).unwrap() {
                Outcome::Interrupted { step, .. } => assert_eq!(step, stop_at),
                other => panic!("{other:?}"),
            }
            at = Some(stop_at);
        }
        let mut trainer = reopen(&parts, Setup { optimizer, ..Setup::default() });
        assert_eq!(trainer.resume().unwrap().unwrap().step, 15);
        let Outcome::Finished { checkpoint, step, .. } = trainer.run(&never(), &mut Silent).unwrap() else {
            panic!("not finished")
        };
        assert_eq!(step, 30);
        assert_eq!(content(&checkpoint), content(&expected), "{optimizer}");
        assert!(content(&expected).iter().any(|(name, _)| name == "objective/center"));
        assert_eq!(metrics(&parts), metrics(&whole), "{optimizer}");
        assert_eq!(metrics(&whole).len(), 30);
    }
}

#[test]
fn a_crash_after_logging_is_cut_back_to_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, crashed) = (dir.path().join("whole"), dir.path().join("crashed"));
    let expected = finish(&whole, Setup::default());
    // The source fails in step 12, two steps after the checkpoint of epoch 2: as if the process had died.
    let mut trainer =
        start(&crashed, Setup { objective: Toy { nan_at: Some(12), ..Toy::new() }, ..Setup::default() });
    trainer.run(&never(), &mut Silent).unwrap_err();
    drop(trainer);
    let mut file = fs::OpenOptions::new().append(true).open(crashed.join("metrics.jsonl")).unwrap();
    std::io::Write::write_all(&mut file, b"{\"step\":13,\"epo").unwrap();
    fs::create_dir(crashed.join("checkpoints/.tmp-step-00000015")).unwrap();
    assert_eq!(metrics_lines(&crashed), 13);

    let mut trainer = reopen(&crashed, Setup::default());
    assert_eq!(trainer.resume().unwrap().unwrap().step, 10);
    assert_eq!(metrics_lines(&crashed), 10);
    let Outcome::Finished { checkpoint, .. } = trainer.run(&never(), &mut Silent).unwrap() else { panic!() };
    assert_eq!(content(&checkpoint), content(&expected));
    assert_eq!(metrics(&crashed), metrics(&whole));
    assert_eq!(steps(&crashed), ["step-00000025", "step-00000030"]);
}

/// A process that was killed before its first checkpoint leaves lines that come again.
#[test]
fn metrics_without_a_checkpoint_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("run"), dir.path().join("other"));
    finish(&other, Setup::default());
    drop(start(&path, Setup::default()));
    let lines = std::fs::read(other.join("metrics.jsonl")).unwrap();
    let some: Vec<u8> = lines.split_inclusive(|byte| *byte == b'\n').take(2).flatten().copied().collect();
    std::fs::write(path.join("metrics.jsonl"), some).unwrap();
    let mut trainer = reopen(&path, Setup::default());
    assert_eq!(trainer.resume().unwrap(), None);
    trainer.run(&never(), &mut Silent).unwrap();
    drop(trainer);
    assert_eq!(metrics(&path), metrics(&other));
}

fn metrics_lines(run: &Path) -> usize {
    fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines().count()
}

#[test]
fn a_nan_names_its_part_and_step_and_keeps_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut trainer =
        start(&run, Setup { objective: Toy { nan_at: Some(7), ..Toy::new() }, ..Setup::default() });
    let error = trainer.run(&never(), &mut Silent).unwrap_err();
    let Error::NonFinite { what, step, last_checkpoint, .. } = &error else { panic!("{error}") };
    assert_eq!((what.as_str(), *step), ("the part `spread`", 7));
    assert!(error.to_string().contains("step-00000005"), "{error}");
    Checkpoint::open(last_checkpoint.as_ref().unwrap()).unwrap();
    assert_eq!(steps(&run), ["step-00000005"]);
    assert!(fs::read_to_string(run.join("log.txt")).unwrap().contains("`spread`"));
}

#[test]
fn an_overflowing_parameter_is_not_saved() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let trainer = start(&run, Setup::default());
    let var = trainer.learner().params().get("net.w1").unwrap().var;
    let mut trainer = trainer;
    let inf = (var.ones_like().unwrap() * f64::INFINITY).unwrap();
    let mut observer = After(move |m: &infomax_train::StepMetrics| {
        if m.step == 5 {
            var.set(&inf).unwrap();
        }
    });
    let error = trainer.run(&never(), &mut observer).unwrap_err();
    assert!(
        matches!(&error, Error::NonFinite { what, step: 5, .. } if what == "the parameter `net.w1`"),
        "{error}"
    );
    assert!(steps(&run).is_empty());
}

#[test]
fn retention_keeps_the_newest_and_the_marked() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let config = TrainConfig {
        checkpoint_every_steps: Some(2),
        keep_checkpoints: 3,
        keep_every_steps: Some(10),
        ..common::config()
    };
    finish(&run, Setup { config, ..Setup::default() });
    let expected = ["step-00000010", "step-00000020", "step-00000026", "step-00000028", "step-00000030"];
    assert_eq!(steps(&run), expected);

    let run = dir.path().join("short");
    let config =
        TrainConfig { max_steps: Some(3), checkpoint_every_epochs: 0, log_every: 2, ..common::config() };
    finish(&run, Setup { config, ..Setup::default() });
    assert_eq!(steps(&run), ["step-00000003"]);
    assert_eq!(metrics_lines(&run), 2);
}

#[test]
fn damage_is_found_named_and_passed_over_with_a_warning() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 5] = [
        ("model.safetensors", |file| fs::write(file, &fs::read(file).unwrap()[..40]).unwrap()),
        ("optimizer.safetensors", |file| {
            let mut bytes = fs::read(file).unwrap();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            fs::write(file, bytes).unwrap();
        }),
        ("objective.safetensors", |file| fs::remove_file(file).unwrap()),
        ("state.json", |file| fs::write(file, &fs::read(file).unwrap()[..100]).unwrap()),
        ("state.json", |file| {
            let text = fs::read_to_string(file).unwrap();
            assert!(text.contains("\"step\": 30,"));
            fs::write(file, text.replace("\"step\": 30,", "\"step\": 31,")).unwrap();
        }),
    ];
    for (name, harm) in harms {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let newest = finish(&run, Setup::default());
        let expected = content(&newest);
        harm(&newest.join(name));
        let error = Checkpoint::open(&newest).unwrap_err();
        assert!(matches!(&error, Error::Damaged { path, .. } if *path == newest.join(name)), "{error}");

        let mut trainer = reopen(&run, Setup::default());
        let resumed = trainer.resume().unwrap().unwrap();
        assert_eq!(resumed.step, 25);
        assert!(resumed.warnings.len() == 1 && resumed.warnings[0].contains(name), "{:?}", resumed.warnings);
        let Outcome::Finished { checkpoint, .. } = trainer.run(&never(), &mut Silent).unwrap() else {
            panic!()
        };
        assert_eq!(content(&checkpoint), expected);
        assert!(steps(&run).contains(&"aside-0-step-00000030".to_owned()), "{:?}", steps(&run));

        for (_, path) in [25, 30].map(|step| (step, run.join(format!("checkpoints/step-{step:08}")))) {
            fs::write(path.join("model.safetensors"), b"").unwrap();
        }
        let error = RunDir::latest(&run).unwrap_err();
        assert!(matches!(&error, Error::NoGoodCheckpoint { problems, .. } if problems.len() == 2), "{error}");
    }
}

#[test]
fn other_models_settings_and_versions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let newest = finish(&run, Setup::default());
    let refused = |setup: Setup| {
        let error = reopen(&run, setup).resume().unwrap_err();
        assert!(matches!(&error, Error::OtherRun { path, .. } if *path == newest), "{error}");
        error.to_string()
    };
    let message = refused(Setup { hidden: 9, ..Setup::default() });
    assert!(
        message.contains("net.w1") && message.contains("[6, 8]") && message.contains("[6, 9]"),
        "{message}"
    );
    let message = refused(Setup { optimizer: r#"{"name":"sgd"}"#, ..Setup::default() });
    assert!(message.contains("`adamw`") && message.contains("`sgd`"), "{message}");
    let message = refused(Setup { config: TrainConfig { seed: 3, ..common::config() }, ..Setup::default() });
    assert!(message.contains("seed"), "{message}");

    let state = newest.join("state.json");
    let text = fs::read_to_string(&state).unwrap();
    fs::write(&state, text.replace("\"format_version\": 1", "\"format_version\": 7")).unwrap();
    let error = RunDir::latest(&run).unwrap_err();
    assert!(matches!(error, Error::FormatVersion { found: 7, known: 1, .. }), "{error}");
}

#[test]
fn a_group_that_matches_nothing_is_refused_before_the_first_step() {
    let dir = tempfile::tempdir().unwrap();
    let optimizer = r#"{"name":"lars","groups":[{"match":"nowhere.*","lr_factor":0.5}]}"#;
    let run = infomax_train::RunDir::create(dir.path().join("run"), "seed = 0\n").unwrap();
    let setup = Setup { optimizer, ..Setup::default() };
    let error = common::try_replica(run, setup, std::sync::Arc::new(infomax_core::Local)).unwrap_err();
    assert!(error.to_string().contains("nowhere.*"), "{error}");
}

#[test]
fn folders_are_guarded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    assert!(matches!(RunDir::open(&path), Err(Error::NotARun { .. })));
    let run = RunDir::create(&path, "a = 1\n").unwrap();
    assert!(matches!(RunDir::open(&path), Err(Error::Busy { .. })));
    assert!(matches!(RunDir::create(&path, ""), Err(Error::Busy { .. })));
    assert_eq!(run.config().unwrap(), "a = 1\n");
    run.write_file("eval.json", b"{}").unwrap();
    assert_eq!(fs::read(path.join("eval.json")).unwrap(), b"{}");
    drop(run);
    assert!(RunDir::latest(&path).unwrap().is_none());
    assert!(reopen(&path, Setup::default()).resume().unwrap().is_none());
    // Nothing was logged or kept: the folder may be taken over. Then something was.
    assert_eq!(RunDir::create(&path, "a = 2\n").unwrap().config().unwrap(), "a = 2\n");
    fs::write(path.join("metrics.jsonl"), "{}\n").unwrap();
    assert!(matches!(RunDir::create(&path, ""), Err(Error::RunExists { .. })));
    fs::write(dir.path().join("file"), "").unwrap();
    let error = RunDir::create(dir.path().join("file/run"), "").unwrap_err();
    assert!(error.to_string().contains("file/run"), "{error}");
}

#[test]
fn a_collapse_is_reported_with_what_to_change() {
    #[derive(Default)]
    struct Seen(Vec<infomax_train::Health>, u64);
    impl Observer for Seen {
        fn on_health(&mut self, health: &infomax_train::Health) {
            self.0.push(health.clone());
        }
        fn on_epoch(&mut self, _: &infomax_train::EpochSummary) {
            self.1 += 1;
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let config = TrainConfig { epochs: 40, ..common::config() };
    let objective = Toy { collapse: true, ..Toy::new() };
    let optimizer = r#"{"name":"adamw","weight_decay":20.0}"#;
    let mut trainer =
        start(&dir.path().join("run"), Setup { config, objective, optimizer, ..Setup::default() });
    let weight = trainer.learner().params().get("net.w1").unwrap().var;
    let mut seen = Seen::default();
    // A constant output to begin with, and an objective that never spreads it.
    weight.set(&weight.zeros_like().unwrap()).unwrap();
    let outcome = trainer.run(&never(), &mut seen).unwrap();
    let Outcome::Finished { health, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(seen.1, 40);
    assert!(
        seen.0.iter().any(|h| h.state == HealthState::Collapsed && h.advice.contains("raise the weight")),
        "{:?}",
        seen.0
    );
    assert_eq!(seen.0.last().unwrap(), &health);
}

#[test]
fn parameters_that_nothing_reaches_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let unused = |trainer: &infomax_train::Trainer| {
        let root = trainer.learner().params().root();
        root.get("orphan", 3, infomax_core::ParamKind::Weight, infomax_core::Init::Const(1.0)).unwrap();
    };
    let mut trainer = start(&dir.path().join("a"), Setup::default());
    unused(&trainer);
    let error = trainer.run(&never(), &mut Silent).unwrap_err();
    assert!(matches!(&error, Error::Unused { names, total: 4 } if names == &["orphan"]), "{error}");
    let config = TrainConfig { allow_unused_parameters: true, ..common::config() };
    let mut trainer = start(&dir.path().join("b"), Setup { config, ..Setup::default() });
    unused(&trainer);
    trainer.run(&never(), &mut Silent).unwrap();
}

/// Runs `ranks` trainers, one thread each, every one with its share of every batch, and returns how each ended.
fn together(dir: &Path, ranks: usize, stop_rank: Option<usize>) -> Vec<Result<Outcome, Error>> {
    let runs = infomax_core::replicas(ranks).into_iter().map(|rank| {
        use infomax_core::Collective as _;
        let number = rank.rank();
        let run = RunDir::create(dir.join(format!("{ranks}-{number}")), "seed = 0\n").unwrap();
        let mut trainer = common::replica(run, Setup::default(), std::sync::Arc::new(rank));
        move || {
            let stop = never();
            let mut observer = After(|m: &infomax_train::StepMetrics| {
                stop.store(stop_rank == Some(number) && m.step == 9, Ordering::Relaxed);
            });
            trainer.run(&stop, &mut observer)
        }
    });
    let runs: Vec<_> = runs.collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = runs.into_iter().map(|run| scope.spawn(run)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn several_ranks_train_as_one_process_on_the_whole_batch() {
    let dir = tempfile::tempdir().unwrap();
    let model = |outcome: Result<Outcome, Error>| match outcome.unwrap() {
        Outcome::Finished { checkpoint, .. } => Checkpoint::open(checkpoint).unwrap().model().unwrap(),
        other => panic!("{other:?}"),
    };
    let expected = model(together(dir.path(), 1, None).pop().unwrap());
    // Three ranks have shares of unequal size.
    for ranks in [2, 3, 4] {
        let found: Vec<_> = together(dir.path(), ranks, None).into_iter().map(model).collect();
        for (name, expected) in &expected {
            let values =
                |t: &infomax_core::candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let first = values(&found[0][name]);
            for (a, b) in first.iter().zip(values(expected)) {
                assert!((a - b).abs() < 1e-4 * (1.0 + b.abs()), "{ranks} ranks, {name}: {a} and {b}");
            }
            // Every rank holds the same bits.
            assert!(found.iter().all(|model| values(&model[name]) == first), "{ranks} ranks, {name}");
        }
    }
}

#[test]
fn a_request_to_stop_on_one_rank_stops_all_at_one_step() {
    let dir = tempfile::tempdir().unwrap();
    for outcome in together(dir.path(), 2, Some(1)) {
        assert!(matches!(outcome.unwrap(), Outcome::Interrupted { step: 9, .. }));
    }
}

#[test]
fn an_error_on_one_rank_ends_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let errors: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = infomax_core::replicas(2)
            .into_iter()
            .map(|rank| {
                use infomax_core::Collective as _;
                let number = rank.rank();
                let run = RunDir::create(dir.path().join(number.to_string()), "seed = 0\n").unwrap();
                // Only rank 1 sees the NaN: the others would wait for its gradients for ever.
                let nan_at = (number == 1).then_some(3);
                let setup = Setup { objective: Toy { nan_at, ..Toy::new() }, ..Setup::default() };
                let mut trainer = common::replica(run, setup, std::sync::Arc::new(rank));
                scope.spawn(move || trainer.run(&never(), &mut Silent).unwrap_err().to_string())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(errors[1].contains("spread") && errors[1].contains("after 3 finished steps"), "{errors:?}");
    assert!(errors[0].contains("another rank failed after 3 finished steps"), "{errors:?}");
}
