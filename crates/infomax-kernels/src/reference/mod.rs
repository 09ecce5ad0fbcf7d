//! Every operation as a composition of Candle's own, with the same signature as its fast form.
//!
//! Slow, differentiable on every device, and plain enough to be checked by eye: the fast forms are tested
//! against these, and devices other than the CPU run them.

mod characteristic;
mod columns;
mod conv;
mod dense;
mod fused;
mod norm;
mod pairwise;
mod patches;
mod pool;

pub use characteristic::characteristic_error;
pub(crate) use columns::normalized;
pub use columns::{center, gram, half_log_det_gram, second_moment, squared_error, variance_covariance};
pub use conv::conv2d;
pub use dense::{cross_entropy, gelu, l2_normalize, linear, log_softmax, relu, silu, softmax};
pub(crate) use fused::{Parts, attention_by, feed_forward_by, self_attention_by};
pub use fused::{
    attention, cross_entropy_soft, depthwise_conv2d_last, elementwise, feed_forward, linear_with,
    self_attention,
};
pub(crate) use norm::conv_norm_train;
pub use norm::{batch_norm_eval, batch_norm_train, group_norm, layer_norm, rms_norm};
pub use pairwise::{row_log_sum_exp, squared_distances};
pub use patches::{patches, patches_last};
pub use pool::{avg_pool2d, global_avg_pool, max_pool2d};
