//! The settings and results of the operations: those that the CUDA operations have too come from there, where they
//! need no CUDA.

pub use infomax_cuda::{BatchNormOutput, Conv2dConfig, Exclude, Pool2dConfig, Score};

/// What is applied after a normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// `max(x, 0)`, with the derivative 0 at 0.
    Relu,
}

/// The settings of [`attention`](crate::attention).
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct AttentionConfig {
    /// The factor of the products; absent: `1 / sqrt(D)`.
    pub scale: Option<f64>,
    /// Query `i` sees the keys `0..=i` only.
    pub causal: bool,
}

/// A function of one element, for [`elementwise`](crate::elementwise) and [`linear_with`](crate::linear_with).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Elementwise {
    /// `x`.
    #[default]
    Identity,
    /// `max(x, 0)`; the derivative at 0 is 0, as in PyTorch. NaN stays.
    Relu,
    /// `x Phi(x) = x (1 + erf(x / sqrt 2)) / 2`: the exact form (arXiv:1606.08415), not the tanh approximation.
    /// Derivative: `Phi(x) + x phi(x)`, with the density `phi` of the standard normal distribution.
    Gelu,
    /// `x / (1 + e^-x)` (arXiv:1702.03118). Derivative: `s (1 + x (1 - s))` with the sigmoid `s`.
    Silu,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// The error function; derivative `2 / sqrt(pi) e^(-x^2)`.
    Erf,
    /// `e^x`.
    Exp,
}

/// What is done to the columns of a matrix first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Normalize {
    /// Nothing.
    Not,
    /// The mean is subtracted.
    Center,
    /// The mean is subtracted, then the column is divided by the root of its biased variance plus this.
    Standardize(f64),
}
