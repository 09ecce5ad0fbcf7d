//! Runs of `infomax` as a library: everything between a configuration and its outcome, without printing.
//!
//! | item | what it is |
//! |---|---|
//! | [`RunConfig`] | a run as data: data, views, model, objective, optimizer, training, evaluation |
//! | [`config::Layers`] | defaults, files and single values laid over each other, with the origin of each |
//! | [`methods`] | whole recipes by one word: the heads, views and optimizer that the authors of a method use |
//! | [`pretrain`], [`Options`], [`Outcome`] | trains a representation and evaluates it; with [`Options::collective`] as one of several processes |
//! | [`evaluate_run`], [`Evaluation`] | probes a checkpoint again |
//! | [`embed_run`], [`Embedded`] | the features of images by the encoder of a run, with paths and labels |
//! | [`export`], [`ExportOptions`], [`Exported`] | the weights of an encoder under the names of torchvision or timm, or as ONNX |
//! | [`WeightsFile`] | weights from files of this project, torchvision and timm |
//! | [`inspect`] | a report of what embeddings know: health, rank, entropy, normality, geometry, labels |
//! | [`Condition`] | `rank < 0.1 * d`: what machines judge reports and runs by |
//! | [`runs`] | runs side by side: what differs in their configurations, figures, curves |
//! | [`replay`] | makes a failed step again from its capsule |
//! | [`selftest::image_tasks`] | pictures with exactly set mutual information |
//! | [`ModelCard`] | what a checkpoint says of its model |
//! | [`RunObserver`] | is told what happens: for bars, dashboards, logs |
//! | [`device::open`] | `auto`, `cpu`, `cuda:N` or `metal` as a device of Candle |
//!
//! The program `infomax` is arguments, tables and a progress bar around these functions; a call of
//! [`pretrain`] gives the same run, to the bit.
//!
//! ```no_run
//! use infomax_run::{RunConfig, Silent, pretrain};
//!
//! let mut config = RunConfig::default(); // the embedded data set, VICReg, a small ResNet
//! config.train.run.epochs = 2;
//! let outcome = pretrain(&config, &mut Silent)?;
//! let evaluation = outcome.evaluation.expect("the run was not interrupted");
//! println!("{:?} in {}", evaluation.rows[0].linear, outcome.run.display());
//! # Ok::<(), infomax_run::Error>(())
//! ```

mod ahead;
mod assemble;
mod condition;
pub mod config;
pub mod device;
mod device_views;
mod embed;
mod error;
mod evaluate;
mod identity;
mod images;
pub mod inspect;
pub mod methods;
mod observer;
mod online;
mod opened;
mod pretrain;
mod ranks;
mod rehearse;
mod replay;
pub mod runs;
pub mod selftest;
mod stop;
mod weights;

pub use assemble::{Assembly, check};
pub use condition::Condition;
pub use config::RunConfig;
#[cfg(feature = "cuda")]
pub use device_views::DeviceViews;
pub use embed::{EmbedOptions, Embedded, EmbeddedRow, Space, embed_run};
pub use error::{Error, Result};
pub use evaluate::{Evaluation, Row, TrainedOn, evaluate, evaluate_run};
pub use identity::ModelCard;
pub use images::Images;
pub use observer::{Plan, RunObserver, Silent};
pub use opened::UseOptions;
pub use pretrain::{Options, Outcome, pretrain, pretrain_with};
pub use replay::{ReplayOptions, replay};
pub use weights::{ExportOptions, Exported, WeightsFile, export, export_onnx};
pub use {
    candle_core, infomax_augment, infomax_core, infomax_data, infomax_eval, infomax_losses, infomax_models,
    infomax_optim, infomax_train,
};

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
