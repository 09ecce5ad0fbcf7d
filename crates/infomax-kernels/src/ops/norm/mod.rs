//! Normalization layers.

mod batch;
mod batch_columns;
mod batch_kernel;
mod conv_norm;
#[cfg(test)]
mod tests;

pub(crate) mod peers;

pub use batch::{batch_norm_eval, batch_norm_train, batch_norm_train_with};
pub use conv_norm::conv_norm_train;
pub use peers::Peers;
