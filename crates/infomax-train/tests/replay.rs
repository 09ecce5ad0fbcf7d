//! Failed steps leave capsules, and a capsule makes the step again.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

#[allow(dead_code, unreachable_pub)]
mod common;

use common::{After, Setup, Toy, start, trainer};
use infomax_train::{Checkpoint, Error, FailureKind, Observer, Replay, RunDir, Silent};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

fn capsules(run: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(run.join("capsules")).into_iter().flatten();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn replay(capsule: &Path, setup: Setup) -> Result<Replay, Error> {
    trainer(RunDir::scratch().unwrap(), setup).replay(&Checkpoint::open(capsule).unwrap())
}

fn with(change: impl Fn(&mut Toy)) -> Setup {
    let mut setup = Setup::default();
    change(&mut setup.objective);
    setup
}

#[test]
fn a_step_that_is_not_finite_is_made_again_to_the_bit() {
    #[derive(Default)]
    struct Told(Option<(PathBuf, u64)>);
    impl Observer for Told {
        fn on_capsule(&mut self, path: &Path, bytes: u64) {
            self.0 = Some((path.to_owned(), bytes));
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let setup = || with(|toy| toy.nan_at = Some(13));
    let mut told = Told::default();
    let error = start(&run, setup()).run(&AtomicBool::new(false), &mut told).unwrap_err();
    assert!(matches!(error, Error::NonFinite { step: 13, .. }), "{error}");
    let found = capsules(&run);
    assert!(found.len() == 1 && found[0].ends_with("step-00000013"), "{found:?}");
    let size: u64 = std::fs::read_dir(&found[0]).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert_eq!(told.0, Some((found[0].clone(), size)));
    let log = std::fs::read_to_string(run.join("log.txt")).unwrap();
    assert!(log.contains("MiB): the part `spread` is not finite (NaN)"), "{log}");

    let made = replay(&found[0], setup()).unwrap();
    assert!(made.same && made.step == 13, "{made:?}");
    assert_eq!(made.recorded.kind, FailureKind::NonFinite);
    let names: Vec<&str> = made.recorded.reached.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        ["checksum of view 0", "checksum of view 1", "part invariance", "part spread", "total"]
    );
    let held = |kind: &str, name: &str| {
        made.held.iter().find(|held| held.kind == kind && held.name == name).unwrap()
    };
    assert_eq!((held("term", "spread").nan, held("term", "invariance").nan), (1, 0));
    // Which gradients it spoils, though the run never came to them; the weights were good.
    assert_eq!(held("gradient", "net.w1").nan, 6 * 8);
    assert_eq!((held("parameter", "net.w1").nan, held("projection", "0").shape.clone()), (0, vec![16, 4]));
    assert_eq!(held("buffer", "net.mean").shape, [8]);
    assert!(made.held.iter().any(|held| held.kind == "state of the objective" && held.name == "center"));

    // A step that goes another way is said to: without the fault, or from other buffers.
    let made = replay(&found[0], Setup::default()).unwrap();
    assert!(!made.same && made.found.is_none());
    let other = with(|toy| (toy.nan_at, toy.scale) = (Some(13), 1.0 + f64::from(f32::EPSILON)));
    let made = replay(&found[0], other).unwrap();
    assert!(
        !made.same && made.found.unwrap().reason == made.recorded.reason,
        "the values differ, the reason not"
    );
    let seed = Setup { config: infomax_train::TrainConfig { seed: 3, ..common::config() }, ..setup() };
    assert!(matches!(replay(&found[0], seed), Err(Error::OtherRun { .. })));
}

#[test]
fn a_resumed_run_has_the_capsule_of_the_uninterrupted_one() {
    let dir = tempfile::tempdir().unwrap();
    let setup = || with(|toy| toy.nan_at = Some(13));
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    start(&one, setup()).run(&AtomicBool::new(false), &mut Silent).unwrap_err();
    let stop = AtomicBool::new(false);
    let mut after = After(|metrics: &infomax_train::StepMetrics| {
        stop.store(metrics.step == 12, std::sync::atomic::Ordering::Relaxed);
    });
    start(&two, setup()).run(&stop, &mut after).unwrap();
    // The first step of this process, in which all buffers are copied.
    let mut resumed = common::reopen(&two, setup());
    resumed.resume().unwrap();
    resumed.run(&AtomicBool::new(false), &mut Silent).unwrap_err();
    let read = |run: &Path, name: &str| std::fs::read(capsules(run)[0].join(name)).unwrap();
    for name in ["model.safetensors", "optimizer.safetensors", "objective.safetensors"] {
        assert!(read(&one, name) == read(&two, name), "{name}");
    }
    assert!(replay(&capsules(&two)[0], setup()).unwrap().same);
}

#[test]
fn a_collapse_leaves_the_state_before_its_step() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let setup = || {
        let mut setup = with(|toy| toy.collapse = true);
        (setup.config.epochs, setup.optimizer) = (40, r#"{"name":"adamw","weight_decay":20.0}"#);
        setup
    };
    let mut trainer = start(&run, setup());
    // A constant output to begin with, and an objective that never spreads it.
    let weight = trainer.learner().params().get("net.w1").unwrap().var;
    weight.set(&weight.zeros_like().unwrap()).unwrap();
    trainer.run(&AtomicBool::new(false), &mut Silent).unwrap();
    let found = capsules(&run);
    assert!(!found.is_empty(), "the verdict left none");
    let made = replay(&found[0], setup()).unwrap();
    assert_eq!(made.recorded.kind, FailureKind::Collapse);
    assert!(made.same, "{:?} {:?}", made.recorded, made.found);
    assert!(made.recorded.reached.iter().any(|(name, _)| name == "norm of the gradient"));
    // A healthy run leaves nothing.
    let healthy = dir.path().join("healthy");
    start(&healthy, Setup::default()).run(&AtomicBool::new(false), &mut Silent).unwrap();
    assert!(capsules(&healthy).is_empty());
}

#[test]
fn errors_and_panics_leave_capsules_and_few_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let setup = |at, panics| with(move |toy| toy.fail_at = Some((at, panics)));
    start(&run, setup(3, false)).run(&AtomicBool::new(false), &mut Silent).unwrap_err();
    let made = replay(&capsules(&run)[0], setup(3, false)).unwrap();
    assert!(made.same && made.recorded.kind == FailureKind::Error, "{made:?}");
    assert!(made.recorded.reason.contains("as asked for"), "{:?}", made.recorded);

    let panics = || {
        let mut trainer = common::reopen(&run, setup(6, true));
        trainer.resume().unwrap();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            trainer.run(&AtomicBool::new(false), &mut Silent)
        }))
        .map(drop)
    };
    assert!(panics().is_err(), "the panic goes on");
    let made = replay(&capsules(&run)[1], setup(6, true)).unwrap();
    assert!(made.same && made.recorded.kind == FailureKind::Panic, "{made:?}");

    for at in [7, 8, 9, 9] {
        let mut trainer = common::reopen(&run, setup(at, false));
        trainer.resume().unwrap();
        trainer.run(&AtomicBool::new(false), &mut Silent).unwrap_err();
    }
    let names: Vec<String> =
        capsules(&run).iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(
        names,
        ["step-00000007", "step-00000008", "step-00000009"],
        "the newest three, each step once"
    );

    let none = dir.path().join("none");
    let mut off = setup(3, false);
    off.config.keep_capsules = 0;
    start(&none, off).run(&AtomicBool::new(false), &mut Silent).unwrap_err();
    assert!(capsules(&none).is_empty());
    // A checkpoint is no capsule.
    let checkpoint = RunDir::latest(&run).unwrap().unwrap().checkpoint;
    let message = replay(checkpoint.path(), Setup::default()).unwrap_err().to_string();
    assert!(message.contains("no capsule"), "{message}");
}
