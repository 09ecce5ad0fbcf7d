//! Information-theoretic self-supervised learning in Rust on Candle: all of `infomax` under one name.
//!
//! This crate holds no code. Take it to try things out; take the single crates to build on them.
//!
//! | module | crate | for |
//! |---|---|---|
//! | [`core`] | `infomax-core` | views, terms, objectives, learners, batches, keys |
//! | [`simd`] | `infomax-simd` | vectors and matrix products for slices, without Candle |
//! | [`kernels`] | `infomax-kernels` | training-grade operations for Candle, with gradients |
//! | [`losses`] | `infomax-losses` | invariance terms, entropy estimators, named objectives |
//! | [`augment`] | `infomax-augment` | seeded views of images on the host |
//! | [`data`] | `infomax-data` | data sets and the loader |
//! | [`models`] | `infomax-models` | encoders, projectors, learners |
//! | [`optim`] | `infomax-optim` | SGD, AdamW, LARS, LAMB, Muon, groups of parameters, schedules |
//! | [`train`] | `infomax-train` | the loop, checkpoints, guards |
//! | [`eval`] | `infomax-eval` | probes and diagnostics |
//! | [`report`] | `infomax-report` | HTML pages and SVG charts |
//! | [`run`] | `infomax-run` | whole runs: a configuration to data, model, trainer and evaluation |
//!
//! # Tutorial: a training loop by hand
//!
//! [`train::Trainer`] does this with checkpoints, guards and metrics; these are its parts.
//!
//! ```
//! use infomax::augment::{Augmenter, Recipe};
//! use infomax::candle_core::{DType, Device};
//! use infomax::data::{Loader, LoaderConfig, Shapes, ShapesConfig};
//! use infomax::models::{EncoderConfig, JointEmbedding, ModelConfig, ResNetConfig};
//! use infomax::optim::{AdamWConfig, Gradients, OptimConfig, build};
//! use infomax::prelude::*;
//! use std::sync::Arc;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Batches of two augmented views of each image; the key decides every bit of them.
//! let images = Arc::new(Shapes::new(ShapesConfig { len: 64, ..ShapesConfig::default() })?);
//! let recipe = Recipe::preset("vicreg-shapes")?.with_size(16);
//! let config = LoaderConfig { batch: 16, key: Key::new(0), ..LoaderConfig::default() };
//! let mut batches = Loader::new(images, Augmenter::new(&recipe)?, config)?;
//!
//! // An encoder with a projector, an objective, an optimizer.
//! let params = Params::new(DType::F32, &Device::Cpu, Key::new(1));
//! let encoder = ResNetConfig { blocks: vec![1, 1], width: 8, ..ResNetConfig::default() };
//! let encoder = EncoderConfig::ResNet(encoder);
//! let config = ModelConfig { encoder, projector: vec![32, 32], ..ModelConfig::default() };
//! let model = JointEmbedding::new(&config, &params)?;
//! let objective = ObjectiveConfig::named("vicreg")?.build()?;
//! let mut optimizer = build(&OptimConfig::AdamW(AdamWConfig::default()))?;
//!
//! for _ in 0..3 {
//!     let batch = batches.next_batch()?;
//!     let z = model.embed(&batch.views, &Pass::train(Key::new(2)))?;
//!     let report = objective.evaluate(&z, &Context::standalone())?;
//!     let names: Vec<_> = report.parts.iter().map(|part| part.name.as_str()).collect();
//!     assert_eq!(names, ["invariance", "variance", "covariance"]);
//!     optimizer.step(&params, &Gradients::of(&params, &report.total.backward()?)?, 1e-3)?;
//! }
//!
//! // What the encoder makes of the images now.
//! let features = model.features(&batches.next_batch()?.views[0].values)?;
//! assert_eq!(features.dims(), [16, 16]);
//! let spectrum = infomax::eval::spectrum(&features)?;
//! assert!(spectrum.effective_rank >= 1.0);
//! # Ok(())
//! # }
//! ```

pub use infomax_augment as augment;
pub use infomax_core as core;
pub use infomax_core::candle_core;
pub use infomax_data as data;
pub use infomax_eval as eval;
pub use infomax_kernels as kernels;
pub use infomax_losses as losses;
pub use infomax_models as models;
pub use infomax_optim as optim;
pub use infomax_report as report;
pub use infomax_run as run;
pub use infomax_simd as simd;
pub use infomax_train as train;

/// The items that most programs need.
pub mod prelude {
    pub use infomax_core::{
        Batch, BatchSource, Bound, Context, Embeddings, Encoder, Key, Learner, Mode, Objective, Params, Pass,
        Report, Role, Term, View, Views,
    };
    pub use infomax_losses::ObjectiveConfig;
}

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
