//! Training-grade operations for Candle on the CPU: plain functions on tensors, each with its exact
//! gradient, and a composed [`mod@reference`] form beside it.
//!
#![doc = include_str!("../README.md")]

mod device;
mod error;
#[allow(unsafe_code)]
mod images;
pub mod linalg;
/// What the CUDA driver says, and its memory; from `infomax-cuda`.
pub mod cuda {
    pub use infomax_cuda::{Card, Driver, Library, built_for, driver, explain, is_out_of_memory};
    #[cfg(feature = "cuda")]
    pub use infomax_cuda::{
        MemoryUse, keep_freed_memory, memory_use, reset_peak_memory, stop_tracking_events,
    };
    #[cfg(feature = "cuda")]
    pub use infomax_cuda::{Upload, Uploader, ViewKernel};
    pub use infomax_cuda::{libraries, missing_libraries};
}
#[allow(unsafe_code)]
mod memory;
mod moments;
mod ops;
pub mod reference;
mod settings;
mod tensor;
#[cfg(test)]
mod tests;
mod types;
pub mod update;

pub use candle_core;
pub use error::{Error, Result};
pub use images::{BatchStats, Blocked, ConvNorm, ResidualOutput, ResidualUnit, Shortcut};
pub use infomax_simd::{Isa, MachineLimits};
pub use memory::{LineAligned, keep_freed_memory};
pub use moments::characteristic::{characteristic_error, characteristic_error_over};
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
pub use ops::norm::{Peers, batch_norm_eval, batch_norm_train, batch_norm_train_with, conv_norm_train};
pub use ops::patches::{patches, patches_last};
pub use ops::row_norm::{group_norm, layer_norm, rms_norm};
pub use ops::rows::{log_softmax, softmax};
pub use ops::softmax_regression::{SoftmaxRegression, softmax_regression};
pub use ops::squared_error::squared_error;
pub use ops::transformer::{FeedForward, SelfAttention, feed_forward, self_attention};
pub use settings::{Arithmetic, CpuProducts, CudaProducts, Single, no_amx};
pub use tensor::backward::{Told, backward, backward_telling};
pub use tensor::path::{has_cpu_kernels, on_the_host, without_cpu_kernels};
pub use types::{
    Activation, AttentionConfig, BatchNormOutput, Conv2dConfig, Elementwise, Normalize, Pool2dConfig,
};
