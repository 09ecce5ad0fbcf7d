//! Self-supervised objectives as a sum of an invariance term and an entropy estimator.
//!
//! For two views with embeddings `z, z'`, `I(Z; X') >= H(Z) + E log q(z | z')` (arXiv 2303.00633): the second
//! summand is the **invariance** term, the first the **entropy** that keeps embeddings from collapsing.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use infomax_core::{Context, Embeddings};
//! let z = Tensor::arange(0f32, 32., &Device::Cpu)?.reshape((8, 4))?.sin()?;
//! let objective = infomax_losses::ObjectiveConfig::named("vicreg")?.build()?;
//! let report = objective.evaluate(&Embeddings::pair(z.clone(), z)?, &Context::standalone())?;
//! assert_eq!(report.parts.len(), 3); // invariance, variance, covariance
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod account;
pub mod bounds;
mod config;
pub mod entropy;
mod error;
pub mod invariance;
mod moments;
pub mod named;
mod objective;
mod op;
pub mod pairwise;
mod pairwise_ranks;
mod ranks;
mod settings;
pub mod special;
mod tagged;
mod whitening;

pub use account::{ObjectiveAccount, Space};
pub use config::{EntropyConfig, InvarianceConfig, NoEntropy, NoInvariance, ObjectiveConfig};
pub use entropy::{Entropy, Estimate, IntoTerm, Reduce};
pub use error::{Error, Result};
pub use moments::MomentForm;
pub use named::names;
pub use objective::Composed;
pub use whitening::whiten;
pub use {candle_core, infomax_core};

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
