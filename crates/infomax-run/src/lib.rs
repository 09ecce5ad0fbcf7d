//! Runs of `infomax` as a library: everything between a configuration and its outcome, without printing.
//!
//! | item | what it is |
//! |---|---|
//! | [`RunConfig`] | a run as data: data, views, model, objective, optimizer, training, evaluation |
//! | [`config::Layers`] | defaults, files and single values laid over each other, with the origin of each |
//! | [`pretrain`], [`Options`], [`Outcome`] | trains a representation and evaluates it |
//! | [`evaluate_run`], [`Evaluation`] | probes a checkpoint again |
//! | [`embed_run`], [`Embedded`] | the features of images by the encoder of a run, with paths and labels |
//! | [`inspect`] | a report of what embeddings know: health, rank, entropy, normality, geometry, labels |
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

mod assemble;
pub mod config;
pub mod device;
mod embed;
mod error;
mod evaluate;
mod identity;
mod images;
pub mod inspect;
mod observer;
mod opened;
mod pretrain;
mod rehearse;
pub mod selftest;

pub use assemble::{Assembly, check};
pub use config::RunConfig;
pub use embed::{EmbedOptions, Embedded, EmbeddedRow, Space, embed_run};
pub use error::{Error, Result};
pub use evaluate::{Evaluation, Row, TrainedOn, evaluate, evaluate_run};
pub use identity::ModelCard;
pub use images::Images;
pub use observer::{Plan, RunObserver, Silent};
pub use opened::UseOptions;
pub use pretrain::{Options, Outcome, pretrain, pretrain_with};
pub use {
    candle_core, infomax_augment, infomax_core, infomax_data, infomax_eval, infomax_losses, infomax_models,
    infomax_optim, infomax_train,
};

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
