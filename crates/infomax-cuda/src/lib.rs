//! Differentiable operations for Candle tensors on a CUDA device: plain functions, each with its exact gradient.
//!
#![doc = include_str!("../README.md")]

mod driver;
mod error;
mod types;

#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
mod batch_norm;
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
mod blas;
#[cfg(feature = "cuda")]
mod characteristic;
#[cfg(feature = "cudnn")]
mod conv;
#[cfg(feature = "cudnn")]
mod conv_norm;
#[cfg(feature = "cuda")]
mod cross_entropy;
#[cfg(feature = "cudnn")]
#[allow(unsafe_code)]
mod cudnn;
#[cfg(feature = "cuda")]
mod elementwise;
#[cfg(feature = "cuda")]
mod graph;
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
mod launch;
#[cfg(all(any(feature = "cuda", test), target_os = "linux", target_arch = "x86_64"))]
#[allow(unsafe_code)]
mod lazy;
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
mod memory;
#[cfg(feature = "cuda")]
mod moments;
#[cfg(feature = "cuda")]
mod muon;
#[cfg(feature = "cuda")]
mod optim;
#[cfg(feature = "cuda")]
mod pairwise;
#[cfg(feature = "cuda")]
mod pool;
#[cfg(feature = "cuda")]
mod rows;
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
mod upload;
#[cfg(feature = "cuda")]
mod views;

#[cfg(feature = "cuda")]
pub use batch_norm::{batch_norm_eval, batch_norm_train};
pub use candle_core;
#[cfg(feature = "cuda")]
pub use characteristic::characteristic_error;
#[cfg(feature = "cudnn")]
pub use conv::conv2d;
#[cfg(feature = "cudnn")]
pub use conv_norm::conv_norm_train;
#[cfg(feature = "cuda")]
pub use cross_entropy::{cross_entropy, cross_entropy_soft};
#[cfg(feature = "cudnn")]
pub use cudnn::forget_plans;
pub use driver::{
    Card, Driver, Library, built_for, driver, explain, is_out_of_memory, libraries, missing_libraries,
};
#[cfg(feature = "cuda")]
pub use elementwise::elementwise;
pub use error::{Error, Result};
#[cfg(feature = "cuda")]
pub use graph::collect_gradients;
#[cfg(feature = "cuda")]
pub use launch::{poison_new_buffers, supports};
#[cfg(feature = "cuda")]
pub use memory::{MemoryUse, keep_freed_memory, memory_use, reset_peak_memory, stop_tracking_events};
#[cfg(feature = "cuda")]
pub use moments::{center, gram, squared_error, variance_covariance};
#[cfg(feature = "cuda")]
pub use muon::newton_schulz;
#[cfg(feature = "cuda")]
pub use optim::{AdamW, Lamb, Sgd, Slot, adamw_step, lamb_step, sgd_step, squared_norms};
#[cfg(feature = "cuda")]
pub use pairwise::{row_log_sum_exp, row_log_sum_exp_blocked, squared_distances};
#[cfg(feature = "cuda")]
pub use pool::{avg_pool2d, global_avg_pool, max_pool2d};
#[cfg(feature = "cuda")]
pub use rows::{group_norm, l2_normalize, layer_norm, log_softmax, log_sum_exp, rms_norm, softmax};
pub use types::{
    BatchNormOutput, Conv2dConfig, Exclude, Function, Images, Math, Options, Pool2dConfig, Products, Score,
    Search,
};
#[cfg(feature = "cuda")]
pub use upload::{Upload, Uploader};
#[cfg(feature = "cuda")]
pub use views::ViewKernel;
