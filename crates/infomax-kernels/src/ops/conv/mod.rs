//! Two-dimensional convolution with its gradients.

pub(crate) mod depthwise;
mod gather;
mod ops;
mod stage;
#[cfg(test)]
mod tests;
mod wgrad;

pub use depthwise::depthwise_conv2d_last;
pub use ops::conv2d;
