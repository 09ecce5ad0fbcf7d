//! Training-grade operations for Candle on the CPU: plain functions on tensors, each with its exact
//! gradient, and a composed [`mod@reference`] form beside it.
//!
#![doc = include_str!("../README.md")]

#[allow(unsafe_code)]
mod attention;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod avx512_x86;
mod backward;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod bf16_x86;
#[allow(unsafe_code)]
mod block;
#[allow(unsafe_code)]
mod blocked;
#[allow(unsafe_code)]
mod characteristic;
mod check;
#[allow(unsafe_code)]
pub mod columns;
#[allow(unsafe_code)]
mod conv;
mod cross_entropy;
mod elementary;
mod elementwise;
mod error;
mod isa;
#[allow(unsafe_code)]
mod lanes;
#[allow(unsafe_code)]
mod limits;
pub mod linalg;
#[allow(unsafe_code)]
mod linear;
mod log_det;
#[allow(unsafe_code)]
mod mat;
mod math;
mod max_pool;
mod mean_pool;
#[allow(unsafe_code)]
mod memory;
#[allow(unsafe_code)]
#[cfg(target_arch = "aarch64")]
mod neon;
#[allow(unsafe_code)]
mod norm;
#[allow(unsafe_code)]
mod objective_rows;
mod optional;
#[allow(unsafe_code)]
mod pairs;
#[allow(unsafe_code)]
pub mod pairwise;
#[allow(unsafe_code)]
mod panels;
mod parameters;
mod patches;
pub mod reference;
mod row_norm;
mod rows;
#[allow(unsafe_code)]
mod simd;
mod storage;
#[allow(unsafe_code)]
mod stored;
#[cfg(test)]
mod tests;
mod types;
pub mod update;
mod wide;

pub use attention::{AttentionConfig, attention};
pub use backward::backward;
pub use block::{FeedForward, SelfAttention, feed_forward, self_attention};
pub use blocked::{BatchStats, Blocked, ConvNorm, ResidualOutput, ResidualUnit, Shortcut};
pub use characteristic::characteristic_error;
pub use conv::{conv2d, depthwise_conv2d_last};
pub use cross_entropy::{cross_entropy, cross_entropy_soft};
pub use elementwise::{Elementwise, elementwise, gelu, relu, silu};
pub use error::{Error, Result};
pub use isa::Isa;
pub use limits::MachineLimits;
pub use linear::{linear, linear_with};
pub use log_det::{Normalise, half_log_det_gram};
pub use max_pool::max_pool2d;
pub use mean_pool::{avg_pool2d, global_avg_pool};
pub use memory::keep_freed_memory;
pub use norm::{batch_norm_eval, batch_norm_train};
pub use objective_rows::{squared_error, unit_rows};
pub use patches::{patches, patches_last};
pub use row_norm::{group_norm, layer_norm, rms_norm};
pub use rows::{l2_normalize, log_softmax, softmax};
pub use types::{Activation, BatchNormOutput, Conv2dConfig, Pool2dConfig};
