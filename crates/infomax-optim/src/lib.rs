//! Optimizers, schedules and weight averages for the parameters of `infomax` models.
//!
//! | item | what it is |
//! |---|---|
//! | [`Sgd`] | stochastic gradient descent with (Nesterov) momentum, as `torch.optim.SGD` |
//! | [`AdamW`] | Adam with decoupled weight decay, as `torch.optim.AdamW` |
//! | [`Lars`] | layer-wise adaptive rates, in the forms of the official VICReg code and of solo-learn |
//! | [`Schedule`] | the learning rate of a step: linear warm-up, then a cosine or a constant |
//! | [`Gradients`] | the gradients by name, with their norm: clipped, accumulated, averaged over ranks; a NaN names its parameter |
//!
//! All state is keyed by parameter name and is plain tensors, so that a run can be saved and continued
//! with the same bits. Elementwise passes run over threads; no sum depends on their number.
//!
//! ```
//! use infomax_core::candle_core::{DType, Device};
//! use infomax_core::{Init, Key, ParamKind, Params};
//! use infomax_optim::{Gradients, OptimConfig, SgdConfig, build};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let params = Params::new(DType::F32, &Device::Cpu, Key::new(0));
//! let w = params.root().get("w", 3, ParamKind::Weight, Init::Const(1.0))?;
//! let config = OptimConfig::Sgd(SgdConfig { momentum: 0.0, weight_decay: 0.0, ..SgdConfig::default() });
//! let mut optimizer = build(&config)?;
//! let grads = Gradients::of(&params, &w.sqr()?.sum_all()?.backward()?)?; // 2 w
//! optimizer.step(&params, &grads, 0.25)?;
//! assert_eq!(w.to_vec1::<f32>()?, [0.5; 3]);
//! # Ok(())
//! # }
//! ```

mod adamw;
mod config;
mod error;
mod grads;
mod lars;
mod schedule;
mod sgd;
mod slots;

pub use {candle_core, infomax_core};

pub use adamw::{AdamW, AdamWConfig};
pub use config::{OptimConfig, Optimizer, build};
pub use error::{Error, Result};
pub use grads::Gradients;
pub use lars::{Lars, LarsConfig, LarsForm};
pub use schedule::{Schedule, ScheduleConfig, ScheduleKind};
pub use sgd::{Sgd, SgdConfig};

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
