//! A toy run: a small network with a batch-norm-like buffer, an objective with state, and batches that are
//! functions of their position.

use infomax_core::candle_core::{DType, Device, Tensor, Var};
use infomax_core::{
    Batch, BatchSource, Collective, Context, Embeddings, Encoder, Init, Key, Learner, Local, Objective,
    ParamKind, Params, Part, Pass, Position, Report, Result, Role, TermState, View, Views,
};
use infomax_optim::{Schedule, ScheduleKind, build};
use infomax_train::{Observer, Parts, RunDir, StepMetrics, TrainConfig, Trainer};
use std::path::Path;
use std::sync::Arc;

/// `tanh(x W1 + b1) W2` with a running mean of the hidden units that evaluation subtracts.
#[derive(Debug)]
pub struct Mlp {
    params: Params,
    w1: Var,
    b1: Var,
    w2: Var,
    mean: Var,
}

pub const INPUT: usize = 6;

impl Mlp {
    pub fn new(hidden: usize) -> Self {
        let params = Params::new(DType::F32, &Device::Cpu, Key::new(5));
        let (root, init) = (params.root().pp("net"), Init::Normal { mean: 0.0, std: 0.6 });
        let w1 = root.get("w1", (INPUT, hidden), ParamKind::Weight, init).unwrap();
        let b1 = root.get("b1", hidden, ParamKind::Bias, Init::Const(0.1)).unwrap();
        let w2 = root.get("w2", (hidden, 4), ParamKind::Weight, init).unwrap();
        let mean = root.get("mean", hidden, ParamKind::Buffer, Init::Const(0.0)).unwrap();
        Self { params, w1, b1, w2, mean }
    }
}

impl Learner for Mlp {
    fn params(&self) -> &Params {
        &self.params
    }

    fn encoder(&self) -> &dyn Encoder {
        self
    }

    fn embed(&self, views: &[View], pass: &Pass<'_>) -> Result<Embeddings> {
        let mut out = Vec::new();
        for View { values: x, .. } in views {
            let hidden = x.matmul(&self.w1)?.broadcast_add(&self.b1)?.tanh()?;
            if pass.is_train() {
                let ranks = pass.collective;
                // Shares differ in size: the sum over all rows, not the mean of means.
                let batch = (ranks.sum(&hidden.detach().sum(0)?)? / rows_of_all(x.dim(0)?, ranks)?)?;
                self.mean.set(&((self.mean.as_tensor() * 0.9)? + (batch * 0.1)?)?)?;
            }
            // The buffer takes part, so that one that is not restored shows.
            out.push(hidden.broadcast_sub(&self.mean.as_tensor().detach().copy()?)?.matmul(&self.w2)?);
        }
        Ok(Embeddings::new(Views::new(out)?))
    }
}

fn rows_of_all(own: usize, ranks: &dyn Collective) -> Result<f64> {
    Ok(ranks.sum(&Tensor::new(own as f64, &Device::Cpu)?)?.to_scalar::<f64>()?)
}

impl Encoder for Mlp {
    fn forward(&self, xs: &Tensor, _: &Pass<'_>) -> Result<Tensor> {
        Ok(xs.matmul(&self.w1)?)
    }

    fn feature_dim(&self) -> usize {
        self.w1.dims()[1]
    }
}

/// Invariance, spread around a running center, and noise from the key of the step. At `nan_at` the spread
/// is NaN; at `fail_at` it refuses the batch, or panics.
#[derive(Debug)]
pub struct Toy {
    pub center: Tensor,
    pub nan_at: Option<u64>,
    pub collapse: bool,
    pub fail_at: Option<(u64, bool)>,
    /// A factor of the invariance.
    pub scale: f64,
}

impl Toy {
    pub fn new() -> Self {
        Self {
            center: Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap(),
            nan_at: None,
            collapse: false,
            fail_at: None,
            scale: 1.0,
        }
    }
}

impl Objective for Toy {
    fn name(&self) -> &str {
        "toy"
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> Result<Report> {
        if let Some((at, panics)) = self.fail_at
            && at == ctx.step
        {
            assert!(!panics, "as asked for");
            return Err(infomax_core::Error::config("fail_at", at, "as asked for"));
        }
        let z = &z.projections;
        // Of the whole batch, so that any number of ranks sees one objective.
        let (a, b) = (ctx.collective.all_gather(&z[0])?, ctx.collective.all_gather(&z[1])?);
        let noise = ctx.key.normal(0.0, 0.01, a.dims(), DType::F32, &Device::Cpu)?;
        let invariance = (((&a - &b)? + noise)?.sqr()?.mean_all()? * self.scale)?;
        let distance = a.broadcast_sub(&self.center)?.sqr()?.mean_all()?;
        let spread = match self.collapse {
            true => distance,
            false => (distance + 0.1)?.log()?.neg()?,
        };
        let spread = if self.nan_at == Some(ctx.step) { (spread * f64::NAN)? } else { spread };
        let part = |name: &str, role, weight, value| Part { name: name.into(), role, weight, value };
        Report::from_parts(vec![
            part("invariance", Role::Invariance, 1.0, invariance),
            part("spread", Role::Entropy, 0.3, spread),
        ])
    }

    fn update(&mut self, z: &Embeddings, ctx: &Context<'_>) -> Result<()> {
        let all = ctx.collective.all_gather(&z.projections[0])?;
        self.center = ((&self.center * 0.9)? + (all.mean(0)? * 0.1)?)?;
        Ok(())
    }

    fn state(&self) -> TermState {
        [("center".to_owned(), self.center.clone())].into()
    }

    fn load_state(&mut self, state: &TermState) -> Result<()> {
        self.center = state["center"].clone();
        Ok(())
    }
}

/// Batches that depend on their position alone, of which each rank gets its share.
#[derive(Debug)]
pub struct Source {
    pub position: Position,
    pub rank: usize,
    pub ranks: usize,
}

pub const BATCHES: u64 = 5;

impl BatchSource for Source {
    fn batches_per_epoch(&self) -> u64 {
        BATCHES
    }

    fn samples_per_epoch(&self) -> u64 {
        BATCHES * 16
    }

    fn seek(&mut self, position: Position) -> Result<()> {
        self.position = position;
        Ok(())
    }

    fn next_batch(&mut self) -> Result<Batch> {
        let Position { epoch, batch } = self.position;
        let key = Key::new(9).fold_in(epoch).fold_in(batch);
        let view = |v| key.fold_in(v).normal(0.0, 0.1, (16, INPUT), DType::F32, &Device::Cpu);
        let x = Key::new(9).fold_in(batch).normal(0.0, 1.0, (16, INPUT), DType::F32, &Device::Cpu)?;
        // 16 samples over 3 ranks are 5, 5 and 6.
        let (from, to) = (self.rank * 16 / self.ranks, (self.rank + 1) * 16 / self.ranks);
        let rows = to - from;
        let share = |x: Tensor| Ok::<_, infomax_core::Error>(View::global(x.narrow(0, from, rows)?));
        let views = vec![share((&x + view(0)?)?)?, share((&x + view(1)?)?)?];
        self.position = match batch + 1 {
            BATCHES => Position { epoch: epoch + 1, batch: 0 },
            batch => Position { epoch, batch },
        };
        Ok(Batch { views, labels: None, indices: (0..rows as u64).collect() })
    }

    fn position(&self) -> Position {
        self.position
    }
}

pub fn config() -> TrainConfig {
    let mut config = TrainConfig { epochs: 6, clip_grad_norm: Some(0.5), ..TrainConfig::default() };
    config.monitor.every = 2;
    config.monitor.grace_steps = 4;
    config
}

pub struct Setup {
    pub config: TrainConfig,
    pub optimizer: &'static str,
    pub hidden: usize,
    pub objective: Toy,
}

impl Default for Setup {
    fn default() -> Self {
        let optimizer = r#"{"name":"adamw","weight_decay":0.05}"#;
        Self { config: config(), optimizer, hidden: 8, objective: Toy::new() }
    }
}

pub fn trainer(run: RunDir, setup: Setup) -> Trainer {
    replica(run, setup, Arc::new(Local))
}

/// The trainer of one rank.
pub fn replica(run: RunDir, setup: Setup, collective: Arc<dyn Collective>) -> Trainer {
    try_replica(run, setup, collective).unwrap()
}

/// The trainer of one rank, or why there is none.
pub fn try_replica(
    run: RunDir,
    setup: Setup,
    collective: Arc<dyn Collective>,
) -> Result<Trainer, infomax_train::Error> {
    let schedule = Schedule {
        kind: ScheduleKind::Cosine,
        base_lr: 0.02,
        warmup_start_lr: 0.001,
        warmup_steps: 4,
        total_steps: 30,
        final_lr: 0.001,
        ..Schedule::constant(0.02)
    };
    let learner = Box::new(Mlp::new(setup.hidden));
    let optimizer = build(&serde_json::from_str(setup.optimizer).unwrap()).unwrap();
    let (rank, ranks) = (collective.rank(), collective.size());
    let source = Box::new(Source { position: Position::default(), rank, ranks });
    let objective = Box::new(setup.objective);
    let parts = Parts::local(learner, objective, optimizer, schedule, source, setup.config, run);
    Trainer::new(Parts { collective, ..parts })
}

pub fn start(path: &Path, setup: Setup) -> Trainer {
    trainer(RunDir::create(path, "seed = 0\n").unwrap(), setup)
}

pub fn reopen(path: &Path, setup: Setup) -> Trainer {
    trainer(RunDir::open(path).unwrap(), setup)
}

/// Calls a function after every step.
pub struct After<F: FnMut(&StepMetrics)>(pub F);

impl<F: FnMut(&StepMetrics)> Observer for After<F> {
    fn on_step(&mut self, metrics: &StepMetrics) {
        (self.0)(metrics);
    }
}
