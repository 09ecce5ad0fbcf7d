//! The vocabulary of `infomax`: the few types that bind its crates together, and no mathematics.
//!
//! | item | what it is |
//! |---|---|
//! | [`Key`] | a seeded, counter-based source of random numbers: same key, same bits |
//! | [`Views`], [`Embeddings`] | the embeddings of one batch, `V` views of shape `(B, D)` each |
//! | [`Term`], [`Objective`], [`Report`] | a loss as a sum of named, weighted parts |
//! | [`Params`] | named parameters and buffers in a fixed order |
//! | [`Encoder`], [`Mapped`], [`Learner`], [`Pass`] | what a model offers to training and to evaluation |
//! | [`View`], [`Batch`], [`BatchSource`] | what a data set offers to training |
//! | [`Collective`], [`replicas`] | sums and gathers over the processes of a data-parallel run |
//!
//! Everything is plain [`candle_core::Tensor`]s and object-safe traits, so that a new objective, model
//! or data set changes no line of the trainer.

mod collective;
mod error;
mod key;
mod model;
mod objective;
mod params;
mod pass;
mod source;
mod views;

pub use {candle_core, rand, rand_chacha};

pub use collective::{
    Collective, Counted, Local, Pending, Queued, Replica, Traffic, check_collective, replicas,
};
pub use error::{Error, Result};
pub use key::{Key, ValueHash};
pub use model::{Encoder, Learner, Mapped};
pub use objective::{Bound, Context, InformationAccount, Objective, Part, Report, Role, Term, TermState};
pub use params::{Init, Param, ParamBuilder, ParamKind, Params};
pub use pass::{Layers, Mode, Pass};
pub use source::{Batch, BatchSource, Cut, Position, SourceStats, View, ViewKind};
pub use views::{Embeddings, LocalMap, Views};

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
