//! Normalization layers.

mod batch;
mod batch_columns;
mod batch_kernel;
mod conv_norm;
#[cfg(test)]
mod tests;

pub use batch::{batch_norm_eval, batch_norm_train};
pub use conv_norm::conv_norm_train;
