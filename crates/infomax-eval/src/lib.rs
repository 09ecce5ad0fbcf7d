//! Evaluation of frozen representations: what they know, how surely, and which rows to look at.
//!
//! One room a question, each a function on plain tensors: [`probe`], [`spectrum`](mod@spectrum), [`geometry`],
//! [`normality`], [`information`], [`bound`], [`propagation`]. Estimates come as an [`Estimate`]: the value, an [`Interval`] with
//! its method and level, the rows that took part, and the [`Doubt`]s about it. Entropies and informations are
//! in nats. All is computed on the host in f64 unless stated; the same seed gives the same bits whatever the
//! number of threads.
//!
//! ```
//! use candle_core::{DType, Device};
//! use infomax_core::Key;
//! use infomax_eval::{Resampling, geometry, information, spectrum};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let z = Key::new(0).normal(0.0, 1.0, (500, 4), DType::F32, &Device::Cpu)?;
//! let ranks = spectrum(&z)?;
//! assert!(ranks.effective_rank > 3.9);
//!
//! let neighbors = geometry::nearest_neighbors(&z, 20, geometry::Metric::Euclidean)?;
//! let d = geometry::intrinsic_dimension(&neighbors, &Default::default(), &Resampling::default())?;
//! assert!((d.two_nn.value - 4.0).abs() < 0.8);
//!
//! let entropy = information::kozachenko_leonenko(&z, 3, information::Norm::Euclidean, &Resampling::default())?;
//! let truth = 2.0 * (2.0 * std::f64::consts::PI * std::f64::consts::E).ln();
//! assert!((entropy.value - truth).abs() < 0.3 && entropy.interval.is_some());
//! # Ok(())
//! # }
//! ```

mod bank;
pub mod bound;
mod error;
mod estimate;
pub mod geometry;
pub mod information;
mod matrix;
pub mod normality;
pub mod probe;
pub mod propagation;
pub mod selftest;
mod special;
pub mod spectrum;

pub use bank::FeatureBank;
pub use error::{Error, Result};
pub use estimate::{Bracket, Doubt, Estimate, Interval, Resampling, choose};
pub use geometry::uniformity;
pub use probe::{KnnConfig, KnnReport, LinearProbeConfig, ProbeReport, knn, linear_probe};
pub use spectrum::{Spectrum, spectrum};
pub use {candle_core, infomax_core};

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
