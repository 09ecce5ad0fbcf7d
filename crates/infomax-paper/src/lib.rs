//! The experiments of "An Information Theory Perspective on Variance-Invariance-Covariance Regularization"
//! (arXiv 2303.00633), each with its numbers, charts and a verdict.
//!
//! | item | what it is |
//! |---|---|
//! | [`EXPERIMENTS`], [`Experiment`] | the table: name, claim, what it needs, how long it takes |
//! | [`run`], [`Settings`], [`Preset`] | runs experiments and writes everything below one folder |
//! | [`Finding`], [`Table`], [`Plot`] | what an experiment found: plain data that goes to JSON, CSV, SVG and HTML |
//! | [`Judgment`], [`Verdict`] | supported, not supported, undecided at this scale, and the statistic behind it |
//! | [`verdict`] | the rules, pure functions from numbers to judgments |
//! | [`stats`] | intervals over seeds, rank correlations, permutation tests |
//!
//! Trained encoders come from [`infomax_run::pretrain_with`] and are kept by the hash of their configuration, so that
//! experiments share them and an interrupted run goes on. No number of the paper is in here: a result is measured.

mod ctx;
mod encoders;
mod error;
mod experiments;
mod features;
mod finding;
mod html;
mod random;
mod session;
pub mod stats;
pub mod verdict;
mod write;

pub use ctx::{Preset, Settings};
pub use error::{Error, Result};
pub use experiments::{EXPERIMENTS, Experiment, find};
pub use finding::{Cell, Column, Finding, Picture, Plot, Series, Style, Table};
pub use session::{Done, Machine, Outcome, State, run};
pub use verdict::{Judgment, Verdict};

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
