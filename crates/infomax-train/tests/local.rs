//! Local steps with an outer optimizer: the plain run as a special case, resuming, and what is exchanged.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code, unreachable_pub)]
mod common;

use common::{After, INPUT, Setup, Source, config};
use infomax_core::candle_core::{DType, Device, Tensor, Var};
use infomax_core::{
    Collective, Context, Counted, Embeddings, Encoder, Init, Key, Learner, Local, Objective, ParamKind,
    Params, Part, Pass, Position, Report, Result, Role, View, Views, replicas,
};
use infomax_optim::{Schedule, build};
use infomax_train::{Checkpoint, Outcome, OuterConfig, Parts, RunDir, TrainConfig, Trainer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn never() -> AtomicBool {
    AtomicBool::new(false)
}

/// `tanh(x W)`: no statistics of the batch.
#[derive(Debug)]
struct Plain(Params, Var);

impl Plain {
    fn new() -> Self {
        let params = Params::new(DType::F32, &Device::Cpu, Key::new(5));
        let init = Init::Normal { mean: 0.0, std: 0.6 };
        let w = params.root().get("w", (INPUT, 3), ParamKind::Weight, init).unwrap();
        Self(params, w)
    }
}

impl Learner for Plain {
    fn params(&self) -> &Params {
        &self.0
    }

    fn encoder(&self) -> &dyn Encoder {
        self
    }

    fn embed(&self, views: &[View], _: &Pass<'_>) -> Result<Embeddings> {
        let embed = |view: &View| Ok(view.values.matmul(&self.1)?.tanh()?);
        Ok(Embeddings::new(Views::new(views.iter().map(embed).collect::<Result<_>>()?)?))
    }
}

impl Encoder for Plain {
    fn forward(&self, xs: &Tensor, _: &Pass<'_>) -> Result<Tensor> {
        Ok(xs.matmul(&self.1)?)
    }

    fn feature_dim(&self) -> usize {
        3
    }
}

/// A mean over samples, which shares of one size average to: that of all ranks, or of the own rows.
#[derive(Debug)]
struct Mean;

impl Objective for Mean {
    fn name(&self) -> &str {
        "mean"
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> Result<Report> {
        let rows = |v: usize| ctx.collective.all_gather(&z.projections[v]);
        let value = ((rows(0)? - rows(1)?)?.sqr()?.mean_all()? - rows(0)?.sqr()?.mean_all()?)?;
        Report::from_parts(vec![Part { name: "mean".into(), role: Role::Invariance, weight: 1.0, value }])
    }
}

fn plain(run: PathBuf, config: TrainConfig, collective: Arc<dyn Collective>) -> Trainer {
    let source = Source { position: Position::default(), rank: collective.rank(), ranks: collective.size() };
    let optimizer = build(&serde_json::from_str(r#"{"name":"sgd","momentum":0.0}"#).unwrap()).unwrap();
    let parts = Parts::local(
        Box::new(Plain::new()),
        Box::new(Mean),
        optimizer,
        Schedule::constant(0.3),
        Box::new(source),
        config,
        RunDir::create(run, "seed = 0\n").unwrap(),
    );
    Trainer::new(Parts { collective, ..parts }).unwrap()
}

/// Runs a trainer of each rank in a thread of its own.
fn on_ranks<T: Send>(ranks: usize, f: impl Fn(Arc<dyn Collective>) -> T + Sync) -> Vec<T> {
    let f = &f;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            replicas(ranks).into_iter().map(|rank| scope.spawn(move || f(Arc::new(rank)))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn model(outcome: Outcome) -> BTreeMap<String, Vec<f32>> {
    let (Outcome::Finished { checkpoint, .. } | Outcome::Interrupted { checkpoint, .. }) = outcome else {
        panic!("{outcome:?}")
    };
    let model = Checkpoint::open(checkpoint).unwrap().model().unwrap();
    model.into_iter().map(|(name, t)| (name, t.flatten_all().unwrap().to_vec1().unwrap())).collect()
}

fn near(a: &BTreeMap<String, Vec<f32>>, b: &BTreeMap<String, Vec<f32>>, tolerance: f32) {
    assert!(a.keys().eq(b.keys()));
    for (name, values) in a {
        for (x, y) in values.iter().zip(&b[name]) {
            assert!((x - y).abs() <= tolerance * (1.0 + y.abs()), "{name}: {x} {y}");
        }
    }
}

fn steps(count: u64, local_steps: u64, outer: Option<OuterConfig>) -> TrainConfig {
    let config = config();
    TrainConfig { max_steps: Some(count), clip_grad_norm: None, local_steps, outer, ..config }
}

const MEAN: OuterConfig = OuterConfig { lr: 1.0, momentum: 0.0, nesterov: false };

#[test]
fn one_local_step_with_plain_sgd_is_the_data_parallel_run() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &'static str, ranks, config: TrainConfig| {
        on_ranks(ranks, |rank| {
            let path = dir.path().join(format!("{name}-{ranks}-{}", rank.rank()));
            model(plain(path, config.clone(), rank).run(&never(), &mut infomax_train::Silent).unwrap())
        })
    };
    let expected = run("whole", 1, steps(12, 1, None)).remove(0);
    for ranks in [2, 4] {
        near(&run("plain", ranks, steps(12, 1, None))[0], &expected, 1e-5);
        let found = run("local", ranks, steps(12, 1, Some(MEAN)));
        found.iter().for_each(|model| near(model, &expected, 1e-5));
        assert!(found.iter().all(|model| *model == found[0]), "every rank holds the same bits");
        // More local steps are another run.
        let more = run("more", ranks, steps(12, 4, Some(MEAN)));
        let differs =
            |name: &String| more[0][name].iter().zip(&expected[name]).any(|(a, b)| (a - b).abs() > 1e-4);
        assert!(expected.keys().any(differs));
    }
    // One process that takes the mean of itself is one without local steps, but for rounding.
    near(&run("alone", 1, steps(12, 5, Some(MEAN)))[0], &expected, 1e-5);
    // With an outer rate below 1 it is Lookahead: half of the way at each outer step.
    let half = OuterConfig { lr: 0.5, ..MEAN };
    let (start, full, back) = (
        model_at_start(),
        run("full", 1, steps(4, 1, None)).remove(0),
        run("half", 1, steps(4, 4, Some(half))).remove(0),
    );
    let way: Vec<f32> = start.iter().zip(&full["w"]).map(|(a, b)| 0.5 * (a + b)).collect();
    near(&back, &[("w".to_owned(), way)].into(), 1e-5);
}

fn model_at_start() -> Vec<f32> {
    Plain::new().1.flatten_all().unwrap().to_vec1().unwrap()
}

/// The trainer of the toy run, with statistics, an objective with state and AdamW.
fn toy(path: &Path, open: bool, config: &TrainConfig, rank: Arc<dyn Collective>) -> Trainer {
    let run = if open { RunDir::open(path).unwrap() } else { RunDir::create(path, "seed = 0\n").unwrap() };
    common::replica(run, Setup { config: config.clone(), ..Setup::default() }, rank)
}

#[test]
fn a_resumed_run_with_local_steps_is_the_uninterrupted_one() {
    let dir = tempfile::tempdir().unwrap();
    let config = TrainConfig { local_steps: 4, ..config() };
    let whole = on_ranks(2, |rank| {
        let path = dir.path().join(format!("whole-{}", rank.rank()));
        model(toy(&path, false, &config, rank).run(&never(), &mut infomax_train::Silent).unwrap())
    });
    assert_eq!(whole[0], whole[1], "the last outer step comes with the end of the run");
    // In the midst of a round, and at the end of one.
    for at in [7, 8] {
        let path = |name: &str, rank: usize| dir.path().join(format!("{name}-{at}-{rank}"));
        let stopped = on_ranks(2, |rank| {
            let stop = never();
            let mut observer = After(|m: &infomax_train::StepMetrics| {
                stop.store(m.step == at, Ordering::Relaxed);
            });
            model(toy(&path("part", rank.rank()), false, &config, rank).run(&stop, &mut observer).unwrap())
        });
        assert_eq!(stopped[0] == stopped[1], at == 8, "ranks differ between outer steps, and only there");
        // The folder of the one rank that writes is enough for all.
        copy(&path("part", 0), &path("copy", 0));
        copy(&path("part", 0), &path("copy", 1));
        for folders in ["part", "copy"] {
            let resumed = on_ranks(2, |rank| {
                let mut trainer = toy(&path(folders, rank.rank()), true, &config, rank);
                let resumed = trainer.resume().unwrap().unwrap();
                assert_eq!((resumed.step, resumed.warnings), (at, vec![]));
                model(trainer.run(&never(), &mut infomax_train::Silent).unwrap())
            });
            assert_eq!(resumed, whole, "{folders} at {at}");
        }
        // Another number of ranks says what becomes of it, and goes on.
        copy(&path("part", 0), &path("alone", 0));
        let mut trainer = toy(&path("alone", 0), true, &config, Arc::new(Local));
        let warnings = trainer.resume().unwrap().unwrap().warnings;
        assert!(warnings.iter().any(|w| w.contains("2 ranks") && w.contains("1 now")), "{warnings:?}");
        trainer.run(&never(), &mut infomax_train::Silent).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn ranks_exchange_no_parameters_between_outer_steps() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = |local_steps: u64| {
        let traffic = on_ranks(2, |rank| {
            let path = dir.path().join(format!("{local_steps}-{}", rank.rank()));
            let counted = Counted::new(rank);
            // No checkpoint but the last: that of local steps gathers what the other ranks carry.
            let config = TrainConfig { checkpoint_every_epochs: 0, ..steps(12, local_steps, None) };
            let (mut sums, mut before) = (Vec::new(), 0);
            let inner = counted.clone();
            let mut observer = After(|_: &infomax_train::StepMetrics| {
                let exchanged = inner.traffic().calls().filter(|c| c.0 != "agree").map(|c| c.2).sum::<u64>();
                sums.push(exchanged - before);
                before = exchanged;
            });
            toy(&path, false, &config, Arc::new(counted)).run(&never(), &mut observer).unwrap();
            sums
        });
        traffic[0].clone()
    };
    let (every, sixth) = (bytes(1), bytes(6));
    // 88 parameters of 4 bytes, and a buffer of 8; what steps say of themselves are a few numbers.
    assert!(every.iter().all(|bytes| *bytes >= 352), "{every:?}");
    assert!(sixth.iter().all(|bytes| *bytes < 100 || *bytes >= 352), "{sixth:?}");
    let steps = sixth.iter().zip(1u64..).filter(|(bytes, _)| **bytes >= 352);
    let met: Vec<u64> = steps.map(|(_, step)| step).collect();
    assert_eq!(met, [6, 12], "{sixth:?}");
}

#[test]
fn settings_out_of_range_are_refused() {
    let refuse = |config: TrainConfig, key: &str| {
        let message = config.check().unwrap_err().to_string();
        assert!(message.contains(key), "{message}");
    };
    refuse(TrainConfig { local_steps: 0, ..config() }, "local_steps = 0");
    let outer =
        |lr, momentum| TrainConfig { outer: Some(OuterConfig { lr, momentum, nesterov: true }), ..config() };
    refuse(outer(0.0, 0.9), "outer.lr = 0");
    refuse(outer(f64::NAN, 0.9), "outer.lr = NaN");
    refuse(outer(0.7, 1.0), "outer.momentum = 1");
    assert_eq!(TrainConfig { local_steps: 1, ..config() }.outer_optimizer(), None);
    let paper = TrainConfig { local_steps: 50, ..config() }.outer_optimizer().unwrap();
    assert_eq!((paper.lr, paper.momentum, paper.nesterov), (0.7, 0.9, true));
}
