//! Evaluation of frozen representations: nearest neighbors, a linear probe, and the spectrum.

mod bank;
mod error;
mod knn;
mod lbfgs;
mod matrix;
mod probe;
mod spectrum;
mod uniformity;

pub use bank::FeatureBank;
pub use error::{Error, Result};
pub use knn::{KnnConfig, KnnReport, knn};
pub use probe::{LinearProbeConfig, ProbeReport, linear_probe};
pub use spectrum::{Spectrum, spectrum};
pub use uniformity::uniformity;
pub use {candle_core, infomax_core};

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
