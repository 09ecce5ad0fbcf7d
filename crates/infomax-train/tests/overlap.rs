//! Gradients that are summed while the backward pass runs: the same bits as those that are summed after it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code, unreachable_pub)]
mod common;

use common::{INPUT, Source, config};
use infomax_core::candle_core::{DType, Device, Tensor, Var};
use infomax_core::{
    Collective, Context, Counted, Embeddings, Encoder, Init, Key, Learner, Objective, ParamKind, Params,
    Part, Pass, Position, Report, Result, Role, View, Views, replicas,
};
use infomax_kernels::linear;
use infomax_optim::{Schedule, build};
use infomax_train::{Checkpoint, Outcome, Parts, RunDir, TrainConfig, Trainer};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// The gradient of the second layer is larger than a bucket.
const WIDTH: usize = 1500;

#[derive(Debug)]
struct Wide(Params, [Var; 3]);

impl Wide {
    fn new() -> Self {
        let params = Params::new(DType::F32, &Device::Cpu, Key::new(5));
        let layer = |name: &str, inputs: usize, outputs: usize| {
            let init = Init::Normal { mean: 0.0, std: 1.0 / (inputs as f64).sqrt() };
            params.root().get(name, (outputs, inputs), ParamKind::Weight, init).unwrap()
        };
        let layers = [layer("first", INPUT, WIDTH), layer("second", WIDTH, WIDTH), layer("third", WIDTH, 3)];
        Self(params, layers)
    }
}

impl Learner for Wide {
    fn params(&self) -> &Params {
        &self.0
    }

    fn encoder(&self) -> &dyn Encoder {
        self
    }

    fn embed(&self, views: &[View], pass: &Pass<'_>) -> Result<Embeddings> {
        let rows = views.iter().map(|view| self.forward(&view.values, pass));
        Ok(Embeddings::new(Views::new(rows.collect::<Result<_>>()?)?))
    }
}

impl Encoder for Wide {
    fn forward(&self, xs: &Tensor, _: &Pass<'_>) -> Result<Tensor> {
        let layer = |xs: Tensor, weight: &Var| -> Result<Tensor> {
            let ys = linear(&xs, weight, None);
            Ok(ys.map_err(infomax_core::candle_core::Error::wrap)?.tanh()?)
        };
        self.1.iter().try_fold(xs.clone(), layer)
    }

    fn feature_dim(&self) -> usize {
        3
    }
}

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

const STEPS: u64 = 5;

/// The bits of the parameters at the end on each rank, and the messages of gradients.
fn train(ranks: usize, overlap: bool) -> Vec<(Vec<u32>, u64)> {
    let dir = tempfile::tempdir().unwrap();
    let path = &dir.path();
    std::thread::scope(|scope| {
        let threads: Vec<_> = replicas(ranks)
            .into_iter()
            .map(|rank| {
                scope.spawn(move || {
                    let collective = Counted::new(Arc::new(rank));
                    let (rank, ranks) = (collective.rank(), collective.size());
                    let config = TrainConfig { max_steps: Some(STEPS), overlap, ..config() };
                    let optimizer = build(&serde_json::from_str(r#"{"name":"sgd"}"#).unwrap()).unwrap();
                    let parts = Parts::local(
                        Box::new(Wide::new()),
                        Box::new(Mean),
                        optimizer,
                        Schedule::constant(0.05),
                        Box::new(Source { position: Position::default(), rank, ranks }),
                        config,
                        RunDir::create(path.join(rank.to_string()), "seed = 0\n").unwrap(),
                    );
                    let parts = Parts { collective: Arc::new(collective.clone()), ..parts };
                    let outcome =
                        Trainer::new(parts).unwrap().run(&AtomicBool::new(false), &mut infomax_train::Silent);
                    let Outcome::Finished { checkpoint, .. } = outcome.unwrap() else {
                        panic!("not finished")
                    };
                    let model = Checkpoint::open(checkpoint).unwrap().model().unwrap();
                    let values = model.values().map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap());
                    let bits = values.flatten().map(f32::to_bits).collect();
                    let traffic = collective.traffic();
                    let sums = traffic.calls().filter(|(name, ..)| *name == "sum_in_place");
                    (bits, sums.map(|(_, calls, _)| calls).sum())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn the_same_bits_with_and_without_overlap() {
    for ranks in [2, 3] {
        let (beside, after) = (train(ranks, true), train(ranks, false));
        for ((beside, early), (after, late)) in beside.iter().zip(&after) {
            assert!(beside == after, "{ranks} ranks");
            // One for the rest in every step, and one for the large layer in all but the first.
            assert_eq!((*early, *late), (2 * STEPS - 1, STEPS));
        }
    }
}
