//! The training loop of `infomax`: steps, guards, metrics, checkpoints and resumption.
//!
//! | item | what it is |
//! |---|---|
//! | [`Trainer`] | drives a learner, an objective, an optimizer and a source of batches, all of them traits |
//! | [`TrainConfig`] | epochs, checkpoints, logging, clipping, the monitor |
//! | [`RunDir`] | the folder of a run: `config.toml`, `metrics.jsonl`, `log.txt`, `checkpoints/` |
//! | [`Checkpoint`] | a verified checkpoint on disk |
//! | [`Replay`], [`Failure`] | a step that failed, made again from its capsule |
//! | [`History`] | what a run wrote about itself, read from outside |
//! | [`export`], [`LogFormat`] | its metrics as CSV, for TensorBoard, for MLflow |
//! | [`StepMetrics`] | what one step reports to an [`Observer`] and to `metrics.jsonl` |
//! | [`Watcher`] | measures beside the training: online probes, ranks |
//! | [`Courses`] | weight decay and momenta that change with the steps |
//! | [`Budget`] | a wall time in the place of epochs |
//! | [`EmbeddingStats`], [`Health`] | the monitor that tells a healthy embedding from a collapsed one |
//!
//! A run can be stopped at any moment. A checkpoint is written beside its final place, synced and renamed,
//! so a name in `checkpoints/` always stands for a whole checkpoint; a resumed run continues with the bits
//! that the uninterrupted one would have had.

mod budget;
mod capsule;
mod checkpoint;
mod config;
mod courses;
mod error;
mod files;
mod history;
mod logs;
mod metrics;
mod monitor;
mod observer;
mod replay;
mod run_dir;
mod trainer;
mod watch;

pub use budget::Budget;
pub use capsule::{Failure, FailureKind};
pub use checkpoint::{Checkpoint, FORMAT_VERSION, FileCheck, METADATA, Needs, State};
pub use config::{InParts, MonitorConfig, OuterConfig, TrainConfig};
pub use courses::Courses;
pub use error::{Error, Result};
pub use history::{History, Record, RunState};
pub use logs::{LogFormat, export};
pub use metrics::{PartValue, StepMetrics, StepTime, TimeTotals};
pub use monitor::{EmbeddingStats, Health, HealthState};
pub use observer::{EpochSummary, Observer, Silent};
pub use replay::{Held, Replay};
pub use run_dir::{Found, RunDir};
pub use trainer::{Identity, Outcome, Parts, Resumed, Trainer};
pub use watch::{Seen, Watcher};
pub use {candle_core, infomax_core, infomax_optim};

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
