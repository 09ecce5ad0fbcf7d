//! Training-grade operations for Candle on the CPU: plain functions on tensors, each with its exact
//! gradient, and a composed [`mod@reference`] form beside it.
//!
#![doc = include_str!("../README.md")]

#[allow(unsafe_code)]
mod blocked;
mod check;
#[allow(unsafe_code)]
mod conv;
mod error;
#[allow(unsafe_code)]
mod limits;
pub mod linalg;
#[allow(unsafe_code)]
mod memory;
#[allow(unsafe_code)]
mod norm;
pub mod reference;
#[allow(unsafe_code)]
mod simd;
mod storage;
mod types;

pub use blocked::{BatchStats, Blocked, ConvNorm, ResidualOutput, ResidualUnit, Shortcut};
pub use conv::conv2d;
pub use error::{Error, Result};
pub use limits::MachineLimits;
pub use memory::keep_freed_memory;
pub use norm::{batch_norm_eval, batch_norm_train};
pub use reference::{
    avg_pool2d, cross_entropy, gelu, global_avg_pool, group_norm, l2_normalize, layer_norm, linear,
    log_softmax, max_pool2d, relu, rms_norm, silu, softmax,
};
pub use simd::Isa;
pub use types::{Activation, BatchNormOutput, Conv2dConfig, Pool2dConfig};
