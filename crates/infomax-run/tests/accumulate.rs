//! A batch that is embedded in parts has the gradient of the whole batch.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers outside of the test functions.

use infomax_run::candle_core::{DType, Device};
use infomax_run::infomax_core::{
    Batch, BatchSource, Key, Learner as _, Params, Position, Result as CoreResult, View,
};
use infomax_run::infomax_losses::ObjectiveConfig;
use infomax_run::infomax_models::{EncoderConfig, JointEmbedding, ModelConfig, ResNetConfig, VitConfig};
use infomax_run::infomax_optim::{OptimConfig, Schedule, SgdConfig, build};
use infomax_run::infomax_train::{
    Error, InParts, Observer, Outcome, Parts, RunDir, Silent, StepMetrics, TrainConfig, Trainer,
};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const BATCH: usize = 12;

/// Two views of noise, a function of the position.
#[derive(Debug)]
struct Noise(Position, DType);

impl BatchSource for Noise {
    fn batches_per_epoch(&self) -> u64 {
        4
    }

    fn samples_per_epoch(&self) -> u64 {
        4 * BATCH as u64
    }

    fn seek(&mut self, position: Position) -> CoreResult<()> {
        self.0 = position;
        Ok(())
    }

    fn position(&self) -> Position {
        self.0
    }

    fn next_batch(&mut self) -> CoreResult<Batch> {
        let key = Key::new(3).fold_in(self.0.epoch).fold_in(self.0.batch);
        let draw = |i, std| key.fold_in(i).normal(0.0, std, (BATCH, 3, 8, 8), self.1, &Device::Cpu);
        let x = draw(0, 1.0)?;
        let views = vec![View::global((&x + draw(1, 0.3)?)?), View::global((&x + draw(2, 0.3)?)?)];
        self.0 = match self.0 {
            Position { epoch, batch: 3 } => Position { epoch: epoch + 1, batch: 0 },
            Position { epoch, batch } => Position { epoch, batch: batch + 1 },
        };
        Ok(Batch { views, labels: None, indices: (0..BATCH as u64).collect() })
    }
}

/// A transformer whose samples do not depend on each other.
fn transformer() -> ModelConfig {
    dropping(0.0, 0.0)
}

/// The same with stochastic depth and dropout.
fn dropping(drop_path: f64, dropout: f64) -> ModelConfig {
    let vit = VitConfig {
        image: 8,
        patch: 4,
        width: 16,
        depth: 2,
        heads: 2,
        drop_path,
        dropout,
        ..VitConfig::default()
    };
    ModelConfig {
        encoder: EncoderConfig::Vit(vit),
        projector: vec![16, 8],
        projector_norm: false,
        ..ModelConfig::default()
    }
}

fn residual() -> ModelConfig {
    let encoder = ResNetConfig { blocks: vec![1], width: 4, ..ResNetConfig::default() };
    ModelConfig { encoder: EncoderConfig::ResNet(encoder), projector: vec![8, 8], ..ModelConfig::default() }
}

fn trainer(
    run: RunDir,
    (model, objective, dtype): (&ModelConfig, &str, DType),
    accumulate: u64,
    batch_norm: InParts,
) -> Result<Trainer, Error> {
    let params = Params::new(dtype, &Device::Cpu, Key::new(1));
    let learner = JointEmbedding::new(model, &params).unwrap();
    let optimizer =
        build(&OptimConfig::Sgd(SgdConfig { weight_decay: 0.0, ..SgdConfig::default() })).unwrap();
    let config = TrainConfig { epochs: 1, accumulate, batch_norm, ..TrainConfig::default() };
    Trainer::new(Parts::local(
        Box::new(learner),
        ObjectiveConfig::named(objective).unwrap().build().unwrap(),
        optimizer,
        Schedule::constant(0.02),
        Box::new(Noise(Position::default(), dtype)),
        config,
        run,
    ))
}

fn create(path: &Path) -> RunDir {
    RunDir::create(path, "").unwrap()
}

fn values(trainer: &Trainer) -> Vec<f64> {
    let all = trainer.learner().params().tensors().into_values();
    all.flat_map(|t| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap())
        .collect()
}

struct Keep(Vec<StepMetrics>);

impl Observer for Keep {
    fn on_step(&mut self, metrics: &StepMetrics) {
        self.0.push(metrics.clone());
    }
}

/// Parameters after an epoch of four steps, with the totals of the objective and the norms of the gradient.
fn train(model: &ModelConfig, objective: &str, dtype: DType, accumulate: u64) -> (Vec<f64>, Vec<f64>) {
    let dir = tempfile::tempdir().unwrap();
    let parts = (model, objective, dtype);
    let mut trainer = trainer(create(&dir.path().join("run")), parts, accumulate, InParts::Refuse).unwrap();
    let mut seen = Keep(Vec::new());
    trainer.run(&AtomicBool::new(false), &mut seen).unwrap();
    (values(&trainer), seen.0.iter().flat_map(|m| [m.total, m.grad_norm]).collect())
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs() / (1.0 + a.abs())).fold(0.0, f64::max)
}

#[test]
fn parts_have_the_gradient_of_the_whole_batch() {
    let check =
        |model: &ModelConfig, objective: &str, dtype: DType, (params, curve): (f64, f64), parts: &[u64]| {
            let (whole, along_whole) = train(model, objective, dtype, 1);
            for &accumulate in parts {
                let (found, along) = train(model, objective, dtype, accumulate);
                let (far, apart) = (distance(&whole, &found), distance(&along_whole, &along));
                let what = format!("{objective} {dtype:?} in {accumulate} parts: {far} {apart}");
                assert!(far < params && apart < curve, "{what}");
            }
        };
    for objective in ["vicreg", "simclr"] {
        check(&transformer(), objective, DType::F64, (1e-9, 1e-9), &[2, 4, BATCH as u64]);
        // Parameters in f32; the gradient of twelve samples in eight dimensions is stiff.
        check(&transformer(), objective, DType::F32, (1e-5, 1e-4), &[4]);
    }
    // What is drawn for a sample is what it would be in the whole batch.
    check(&dropping(0.3, 0.0), "vicreg", DType::F64, (1e-9, 1e-9), &[3]);
    check(&dropping(0.0, 0.1), "vicreg", DType::F64, (1e-9, 1e-9), &[3]);
}

#[test]
fn a_run_in_parts_is_resumed_with_the_same_bits() {
    for (model, batch_norm) in [(transformer(), InParts::Refuse), (residual(), InParts::MicroBatch)] {
        let dir = tempfile::tempdir().unwrap();
        let parts = (&model, "vicreg", DType::F32);
        let mut whole = trainer(create(&dir.path().join("whole")), parts, 3, batch_norm).unwrap();
        whole.run(&AtomicBool::new(false), &mut Silent).unwrap();

        let path = dir.path().join("parts");
        struct StopAt<'a>(u64, &'a AtomicBool);
        impl Observer for StopAt<'_> {
            fn on_step(&mut self, metrics: &StepMetrics) {
                self.1.store(metrics.step == self.0, Ordering::Relaxed);
            }
        }
        let stop = AtomicBool::new(false);
        let mut first = trainer(create(&path), parts, 3, batch_norm).unwrap();
        let outcome = first.run(&stop, &mut StopAt(2, &stop)).unwrap();
        assert!(matches!(outcome, Outcome::Interrupted { step: 2, .. }), "{outcome:?}");
        drop(first);
        let mut second = trainer(RunDir::open(&path).unwrap(), parts, 3, batch_norm).unwrap();
        assert_eq!(second.resume().unwrap().unwrap().step, 2);
        second.run(&AtomicBool::new(false), &mut Silent).unwrap();
        assert_eq!(values(&second), values(&whole));
    }
}

/// Batch statistics of parts: the first embedding must leave no trace in the running statistics.
#[test]
fn running_statistics_move_once_a_part() {
    let dir = tempfile::tempdir().unwrap();
    let parts = (&residual(), "vicreg", DType::F64);
    let mut trainer = trainer(create(&dir.path().join("run")), parts, 3, InParts::MicroBatch).unwrap();
    let before = trainer.learner().params().get("encoder.bn1.running_mean").unwrap().var.copy().unwrap();
    struct First(bool);
    impl Observer for First {
        fn stop_reason(&mut self) -> Option<String> {
            self.0.then(|| "one step is enough".to_owned())
        }
    }
    let outcome = trainer.run(&AtomicBool::new(false), &mut First(true)).unwrap();
    assert!(matches!(outcome, Outcome::Stopped { step: 1, ref reason, .. } if reason.contains("enough")));

    // The same parts through a learner of its own, one pass over each.
    let params = Params::new(DType::F64, &Device::Cpu, Key::new(1));
    let learner = JointEmbedding::new(&residual(), &params).unwrap();
    let batch = Noise(Position::default(), DType::F64).next_batch().unwrap();
    for part in 0..3 {
        let cut = |view: &View| View::global(view.values.narrow(0, part * 4, 4).unwrap());
        let views: Vec<View> = batch.views.iter().map(cut).collect();
        learner.embed(&views, &infomax_run::infomax_core::Pass::train(Key::new(0))).unwrap();
    }
    let read = |params: &Params| {
        let mean = params.get("encoder.bn1.running_mean").unwrap().var;
        mean.to_vec1::<f64>().unwrap()
    };
    let (trained, expected) = (read(trainer.learner().params()), read(&params));
    assert!(distance(&trained, &expected) < 1e-12, "{trained:?} {expected:?}");
    assert!(distance(&trained, &before.to_vec1::<f64>().unwrap()) > 1e-4);
}

#[test]
fn what_would_change_the_gradient_is_refused_with_the_reason() {
    let refused = |model: &ModelConfig, accumulate, batch_norm, part: &str| {
        let dir = tempfile::tempdir().unwrap();
        let run = create(&dir.path().join("run"));
        let error = trainer(run, (model, "vicreg", DType::F32), accumulate, batch_norm).err().unwrap();
        let message = error.to_string();
        assert!(
            message.contains(&format!("accumulate = {accumulate}")) && message.contains(part),
            "{message}"
        );
    };
    refused(&residual(), 3, InParts::Refuse, "`encoder.bn1` and");
    refused(&residual(), 12, InParts::MicroBatch, "at most 6 parts");
    refused(&transformer(), 5, InParts::Refuse, "12 samples does not split into 5");
    refused(&ModelConfig { projector_norm: true, ..transformer() }, 3, InParts::Refuse, "`projector.1`");
    let teacher = ModelConfig { projector_norm: true, teacher_momentum: Some(0.9), ..transformer() };
    refused(&teacher, 3, InParts::Refuse, "and one more layer");
}
