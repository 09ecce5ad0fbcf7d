//! Fifty steps from the same weights on the same batches have the losses of PyTorch: `golden/fifty_steps.py`.
//!
//! In f64: a step that puts one activation on the other side of a ReLU's kink parts two programs by 1e-5, and f32 does so
//! within some steps.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use infomax_core::{Batch, BatchSource, Key, Params, Position, View};
use infomax_losses::ObjectiveConfig;
use infomax_models::{EncoderConfig, JointEmbedding, ModelConfig, ResNetConfig};
use infomax_optim::Schedule;
use infomax_train::{Observer, Parts, RunDir, StepMetrics, TrainConfig, Trainer};
use std::sync::atomic::AtomicBool;

const STEPS: u64 = 50;
const BATCHES: u64 = 5;
const BATCH: usize = 16;

/// Numbers in `[-1, 1)` from the bytes of a name and the index.
fn uniform(name: &str, count: usize) -> Vec<f64> {
    let seed = name.bytes().fold(0u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let number = |i: usize| {
        let h = (i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed.wrapping_mul(2_246_822_519));
        let h = (h ^ h >> 15).wrapping_mul(2_246_822_507);
        f64::from(h ^ h >> 13) / f64::from(1u32 << 31) - 1.0
    };
    (0..count).map(number).collect()
}

fn tensor(name: &str, dims: &[usize], scale: f64) -> Tensor {
    let values: Vec<f64> = uniform(name, dims.iter().product()).into_iter().map(|v| v * scale).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

/// Two noisy looks at images of 3x3 flat squares.
#[derive(Debug)]
struct Source(Position);

impl BatchSource for Source {
    fn batches_per_epoch(&self) -> u64 {
        BATCHES
    }

    fn samples_per_epoch(&self) -> u64 {
        BATCHES * BATCH as u64
    }

    fn seek(&mut self, position: Position) -> infomax_core::Result<()> {
        self.0 = position;
        Ok(())
    }

    fn next_batch(&mut self) -> infomax_core::Result<Batch> {
        let batch = self.0.batch;
        let base = tensor(&format!("base {batch}"), &[BATCH, 3, 3, 1, 3, 1], 1.0);
        let base = base.broadcast_as((BATCH, 3, 3, 4, 3, 4))?.contiguous()?.reshape((BATCH, 3, 12, 12))?;
        let view = |v: usize| {
            let noise = tensor(&format!("view {batch} {v}"), &[BATCH, 3, 12, 12], 0.4);
            Ok::<_, candle_core::Error>(View::global((&base + noise)?))
        };
        let views = vec![view(0)?, view(1)?];
        self.0 = match batch + 1 {
            BATCHES => Position { epoch: self.0.epoch + 1, batch: 0 },
            batch => Position { batch, ..self.0 },
        };
        Ok(Batch { views, labels: None, indices: (0..BATCH as u64).collect() })
    }

    fn position(&self) -> Position {
        self.0
    }
}

struct Losses(Vec<f64>);

impl Observer for Losses {
    fn on_step(&mut self, metrics: &StepMetrics) {
        self.0.push(metrics.total);
    }
}

fn losses(method: &str) -> Vec<f64> {
    let encoder = ResNetConfig { blocks: vec![1, 1], width: 8, ..ResNetConfig::default() };
    let byol = method == "byol";
    let model = ModelConfig {
        encoder: EncoderConfig::ResNet(encoder),
        projector: vec![32, 24],
        predictor: if byol { vec![32] } else { vec![] },
        teacher_momentum: byol.then_some(0.9),
        ..ModelConfig::default()
    };
    let params = Params::new(DType::F64, &Device::Cpu, Key::new(0));
    let learner = JointEmbedding::new(&model, &params).unwrap();
    // The teacher's parameters start as the student's, of the same names.
    for (name, param) in params.all() {
        let own = name.strip_prefix("teacher.").unwrap_or(&name);
        let dims = param.var.dims().to_vec();
        if dims.len() > 1 {
            let fan: usize = dims[1..].iter().product();
            param.var.set(&tensor(own, &dims, (6.0 / fan as f64).sqrt())).unwrap();
        } else if own.ends_with(".bias") {
            param.var.set(&param.var.as_detached_tensor().zeros_like().unwrap()).unwrap();
        }
    }
    let mut objective = ObjectiveConfig::named(method).unwrap();
    if method == "simclr" {
        let given = |key: &str| (key == "temperature").then_some(0.5);
        objective = ObjectiveConfig::beside(method, None, &given).unwrap();
    }
    let optimizer: infomax_optim::OptimConfig = serde_json::from_value(serde_json::json!({
        "name": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "exclude_bias_and_norm": false
    }))
    .unwrap();
    let mut config = TrainConfig { epochs: STEPS / BATCHES, log_every: 1, ..TrainConfig::default() };
    config.monitor.every = 0;
    let parts = Parts::local(
        Box::new(learner),
        objective.build().unwrap(),
        infomax_optim::build(&optimizer).unwrap(),
        Schedule::constant(0.01),
        Box::new(Source(Position::default())),
        config,
        RunDir::scratch().unwrap(),
    );
    let mut observer = Losses(Vec::new());
    Trainer::new(parts).unwrap().run(&AtomicBool::new(false), &mut observer).unwrap();
    observer.0
}

#[test]
fn fifty_steps_have_the_losses_of_pytorch() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("golden/fifty_steps.json")).unwrap();
    for method in ["vicreg", "simclr", "byol"] {
        let expected: Vec<f64> = serde_json::from_value(golden[method].clone()).unwrap();
        let got = losses(method);
        assert_eq!(got.len(), expected.len());
        // The loss moves by far more than the tolerance: a step that was not made would show.
        let range = |f: fn(f64, f64) -> f64| expected.iter().copied().reduce(f).unwrap();
        assert!(range(f64::max) > 1.2 * range(f64::min), "{method}: {expected:?}");
        for (step, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let far = (got - expected).abs() / expected.abs();
            assert!(far < 1e-9, "{method}, step {step}: {got}, PyTorch {expected}");
        }
    }
}
