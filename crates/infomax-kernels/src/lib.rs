//! Training-grade operations for Candle on the CPU: plain functions on tensors, each with its exact
//! gradient, and a composed [`mod@reference`] form beside it.
//!
#![doc = include_str!("../README.md")]

mod error;
#[allow(unsafe_code)]
mod images;
pub mod linalg;
#[allow(unsafe_code)]
mod memory;
mod moments;
mod ops;
pub mod reference;
mod tensor;
#[cfg(test)]
mod tests;
mod types;
pub mod update;

pub use candle_core;
pub use error::{Error, Result};
pub use images::{BatchStats, Blocked, ConvNorm, ResidualOutput, ResidualUnit, Shortcut};
pub use infomax_simd::{Isa, MachineLimits};
pub use memory::keep_freed_memory;
pub use moments::characteristic::characteristic_error;
pub use moments::log_det::half_log_det_gram;
pub use moments::{columns, pairwise};
pub use ops::attention::attention;
pub use ops::conv::{conv2d, depthwise_conv2d_last};
pub use ops::cross_entropy::{cross_entropy, cross_entropy_soft};
pub use ops::elementwise::{elementwise, gelu, relu, silu};
pub use ops::l2_normalize::l2_normalize;
pub use ops::linear::{linear, linear_with};
pub use ops::max_pool::max_pool2d;
pub use ops::mean_pool::{avg_pool2d, global_avg_pool};
pub use ops::norm::{Peers, batch_norm_eval, batch_norm_train, batch_norm_train_with};
pub use ops::patches::{patches, patches_last};
pub use ops::row_norm::{group_norm, layer_norm, rms_norm};
pub use ops::rows::{log_softmax, softmax};
pub use ops::squared_error::squared_error;
pub use ops::transformer::{FeedForward, SelfAttention, feed_forward, self_attention};
pub use tensor::backward::backward;
pub use types::{
    Activation, AttentionConfig, BatchNormOutput, Conv2dConfig, Elementwise, Normalize, Pool2dConfig,
};
