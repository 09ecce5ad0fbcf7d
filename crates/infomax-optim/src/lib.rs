//! Optimizers, schedules and gradients by name.
//!
#![doc = include_str!("../README.md")]
//!
//! # Parameters of one's own
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
mod course;
mod error;
mod grads;
mod groups;
mod lamb;
mod lars;
mod moments;
mod muon;
mod schedule;
mod sgd;
mod slots;
mod vars;

pub use {candle_core, infomax_core};

pub use adamw::{AdamW, AdamWConfig};
pub use config::{OptimConfig, Optimizer, build};
pub use course::{CourseConfig, LrScale};
pub use error::{Error, Result};
pub use grads::Gradients;
pub use groups::ParamGroup;
pub use lamb::{Lamb, LambConfig};
pub use lars::{Lars, LarsConfig, LarsForm};
pub use muon::{Muon, MuonConfig, MuonScale, orthogonalize};
pub use schedule::{Schedule, ScheduleConfig, ScheduleKind};
pub use sgd::{Sgd, SgdConfig};
pub use vars::{NamedVars, kind_of, params};

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
