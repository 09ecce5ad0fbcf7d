//! Evaluation of frozen representations: what they know, how surely, and which rows to look at.
//!
//! One room a question, each a function on plain tensors: [`probe`], [`spectrum`](mod@spectrum), [`geometry`],
//! [`normality`], [`information`], [`bound`]. Estimates come as an [`Estimate`]: the value, an [`Interval`] with
//! its method and level, the rows that took part, and the [`Doubt`]s about it. Entropies and informations are
//! in nats. All is computed on the host in f64 unless stated; the same seed gives the same bits whatever the
//! number of threads.

mod bank;
pub mod bound;
mod error;
mod estimate;
pub mod geometry;
pub mod information;
mod matrix;
pub mod normality;
pub mod probe;
mod special;
pub mod spectrum;

pub use bank::FeatureBank;
pub use error::{Error, Result};
pub use estimate::{Bracket, Doubt, Estimate, Interval, Resampling};
pub use geometry::uniformity;
pub use probe::{KnnConfig, KnnReport, LinearProbeConfig, ProbeReport, knn, linear_probe};
pub use spectrum::{Spectrum, spectrum};
