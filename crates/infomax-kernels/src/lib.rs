//! Training-grade operations for Candle on the CPU: plain functions on tensors, each with its exact
//! gradient, and a composed [`mod@reference`] form beside it.
//!
#![doc = include_str!("../README.md")]

#[allow(unsafe_code)]
mod characteristic;
mod check;
#[allow(unsafe_code)]
pub mod columns;
#[allow(unsafe_code)]
mod conv;
mod elementary;
mod error;
pub mod linalg;
mod log_det;
#[allow(unsafe_code)]
mod memory;
#[allow(unsafe_code)]
mod norm;
#[allow(unsafe_code)]
pub mod pairwise;
pub mod reference;
#[allow(unsafe_code)]
mod objective_rows;
#[allow(unsafe_code)]
mod simd;
mod storage;
mod types;

pub use characteristic::characteristic_error;
pub use conv::conv2d;
pub use error::{Error, Result};
pub use log_det::{Normalise, half_log_det_gram};
pub use memory::keep_freed_memory;
pub use norm::{batch_norm_eval, batch_norm_train};
pub use reference::{
    avg_pool2d, cross_entropy, gelu, global_avg_pool, group_norm, l2_normalize, layer_norm, linear,
    log_softmax, max_pool2d, relu, rms_norm, silu, softmax,
};
pub use objective_rows::{squared_error, unit_rows};
pub use simd::Isa;
pub use types::{Activation, BatchNormOutput, Conv2dConfig, Pool2dConfig};
