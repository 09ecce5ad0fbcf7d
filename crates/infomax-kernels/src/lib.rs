//! Training-grade operations for Candle on the CPU: plain functions on tensors, each with its exact
//! gradient, and a composed [`mod@reference`] form beside it.

mod check;
mod error;
pub mod linalg;
pub mod reference;
mod types;

pub use error::{Error, Result};
pub use reference::*;
pub use types::{Activation, BatchNormOutput, Conv2dConfig, Pool2dConfig};
