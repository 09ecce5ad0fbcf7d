//! Two-dimensional convolution with its gradients.

mod gather;
mod ops;
mod stage;
#[cfg(test)]
mod tests;
mod wgrad;

pub use ops::conv2d;
