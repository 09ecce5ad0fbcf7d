//! Runs of several ranks, in threads of this process: one process with the same global batch is the measure.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests, where a failure should stop.

use infomax_core::{Collective, Local, replicas};
use infomax_run::config::{Origins, layers};
use infomax_run::{Error, Options, Outcome, RunConfig, RunObserver, Silent, pretrain_with};
use infomax_train::Observer;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const TINY: [&str; 11] = [
    "data.train_images=48",
    "data.test_images=24",
    "data.shapes.size=16",
    "train.batch=24",
    "train.epochs=2",
    "train.monitor.every=1",
    "train.log_every=1",
    "model.encoder.blocks=[1, 1]",
    "model.encoder.width=4",
    "model.projector=[16, 16]",
    "optim.lr=0.01",
];

fn config(set: &[&str]) -> RunConfig {
    of_method("vicreg", set)
}

fn of_method(method: &str, set: &[&str]) -> RunConfig {
    let all = TINY.iter().chain(set);
    let assignments = all.map(|a| ((*a).to_owned(), "--set".to_owned())).collect();
    let origins = Origins { method: Some(method.to_owned()), assignments, ..Origins::default() };
    RunConfig::resolve(&layers(&origins).unwrap()).unwrap()
}

fn options(run: &Path, collective: Arc<dyn Collective>) -> Options {
    let run = Some(run.to_owned());
    Options { run, evaluate: false, workers: 1, collective, ..Options::default() }
}

/// The results of all ranks, each with a configuration of its own.
fn together(
    size: usize,
    f: impl Fn(usize, Arc<dyn Collective>) -> infomax_run::Result<Outcome> + Sync,
) -> Vec<infomax_run::Result<Outcome>> {
    let f = &f;
    std::thread::scope(|scope| {
        let ranks = replicas(size).into_iter().map(|rank| scope.spawn(move || f(rank.rank(), rank.handle())));
        ranks.collect::<Vec<_>>().into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// Total, parts, norm of the gradient, ranks of the embedding: of each step.
fn curve(run: &Path) -> Vec<Vec<f64>> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let step = |line: &str| {
        let step: serde_json::Value = serde_json::from_str(line).unwrap();
        let mut values = vec![step["total"].as_f64().unwrap(), step["grad_norm"].as_f64().unwrap()];
        values.extend(step["parts"].as_array().unwrap().iter().map(|part| part["value"].as_f64().unwrap()));
        values.push(step["embedding"]["participation_ratio"].as_f64().unwrap());
        values
    };
    text.lines().map(step).collect()
}

fn close(found: &[Vec<f64>], expected: &[Vec<f64>], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (step, (found, expected)) in found.iter().zip(expected).enumerate() {
        for (a, b) in found.iter().zip(expected) {
            assert!(
                (a - b).abs() <= tolerance * b.abs().max(1e-3),
                "{what}, step {step}: {found:?} {expected:?}"
            );
        }
    }
}

#[test]
fn two_and_three_ranks_make_the_steps_of_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // A term of the whole batch, one of pairs of rows, and a teacher.
    for (method, set) in [("vicreg", &[][..]), ("simclr", &[]), ("byol", &["model.predictor=[16]"])] {
        let config = of_method(method, set);
        let one = at(&format!("{method}-1"));
        pretrain_with(&config, &options(&one, Arc::new(Local)), &mut Silent).unwrap();
        let expected = curve(&one);
        assert_eq!(expected.len(), 4);
        for size in [2, 3] {
            let run = at(&format!("{method}-{size}"));
            let outcomes =
                together(size, |_, ranks| pretrain_with(&config, &options(&run, ranks), &mut Silent));
            outcomes.into_iter().for_each(|outcome| assert_eq!(outcome.unwrap().run, run));
            close(&curve(&run), &expected, 2e-3, &format!("{method} on {size} ranks"));
        }
    }
}

/// What rank 0 is told.
#[derive(Default)]
struct Told(Vec<String>);

impl Observer for Told {}

impl RunObserver for Told {
    fn on_warning(&mut self, line: &str) {
        self.0.push(line.to_owned());
    }
}

#[test]
fn a_run_continues_with_another_number_of_ranks_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let parts = folder.path().join("parts");
    let half = config(&["train.epochs=1"]);
    together(2, |_, ranks| pretrain_with(&half, &options(&parts, ranks), &mut Silent))
        .into_iter()
        .for_each(|outcome| drop(outcome.unwrap()));
    // From 2 ranks to 3, and from 3 to one.
    for (size, epochs) in [(3, 2), (1, 3)] {
        let told = std::sync::Mutex::new(Vec::new());
        let outcomes = together(size, |rank, ranks| {
            let config = RunConfig::of_run(&parts).unwrap();
            let options = Options { resume: true, epochs: Some(epochs), ..options(&parts, ranks) };
            let mut observer = Told::default();
            let outcome = pretrain_with(&config, &options, &mut observer);
            if rank == 0 {
                told.lock().unwrap().append(&mut observer.0);
            }
            outcome
        });
        outcomes.into_iter().for_each(|outcome| drop(outcome.unwrap()));
        let told = told.into_inner().unwrap().join("\n");
        let before = if size == 3 { 2 } else { 3 };
        assert!(told.contains(&format!("ranks was {before}, now it is {size}")), "{told}");
    }
    assert_eq!(curve(&parts).len(), 6);
}

/// Asks for a stop after the first step.
struct Stopping(Arc<AtomicBool>);

impl Observer for Stopping {
    fn on_step(&mut self, _: &infomax_train::StepMetrics) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

impl RunObserver for Stopping {}

#[test]
fn a_run_with_local_steps_continues_between_two_outer_steps() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let config = config(&["train.epochs=2", "train.local_steps=3"]);
    let (whole, parts) = (at("whole"), at("parts"));
    together(2, |_, ranks| pretrain_with(&config, &options(&whole, ranks), &mut Silent))
        .into_iter()
        .for_each(|outcome| drop(outcome.unwrap()));
    together(2, |_, ranks| {
        let options = options(&parts, ranks);
        let mut observer = Stopping(options.stop.clone());
        pretrain_with(&config, &options, &mut observer)
    })
    .into_iter()
    .for_each(|outcome| {
        assert!(matches!(outcome.unwrap().training, infomax_train::Outcome::Interrupted { step: 1, .. }));
    });
    // Each rank has parameters of its own here.
    together(2, |_, ranks| {
        let options = Options { resume: true, ..options(&parts, ranks) };
        pretrain_with(&RunConfig::of_run(&parts).unwrap(), &options, &mut Silent)
    })
    .into_iter()
    .for_each(|outcome| drop(outcome.unwrap()));
    assert_eq!(curve(&parts), curve(&whole));
}

#[test]
fn other_settings_and_batches_that_do_not_divide_are_refused_on_every_rank_before_there_is_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    for (set, name) in [
        ("optim.lr=0.02", "optim.lr: 0.01 on rank 0, 0.02 on rank 1"),
        ("data.train_images=60", "data.train_images: 48 on rank 0, 60 on rank 1"),
    ] {
        let outcomes = together(2, |rank, ranks| {
            let config = config(if rank == 1 { std::slice::from_ref(&set) } else { &[] });
            pretrain_with(&config, &options(&run, ranks), &mut Silent)
        });
        for outcome in outcomes {
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains("the ranks differ") && error.contains(name), "{error}");
        }
        assert!(!run.exists());
    }
    let outcomes = together(5, |_, ranks| pretrain_with(&config(&[]), &options(&run, ranks), &mut Silent));
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Setting { .. }), "{text}");
        assert!(text.contains("train.batch = 24") && text.contains("among 5; take 20 or 25"), "{text}");
    }
    assert!(!run.exists());
}
