//! The settings and results of the operations.

use candle_core::Tensor;

/// The geometry of [`conv2d`](crate::conv2d), the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dConfig {
    /// The step between windows, in pixels.
    pub stride: usize,
    /// The zeros added on each side, in pixels.
    pub padding: usize,
    /// The step between the taps of the kernel, in pixels.
    pub dilation: usize,
    /// Input and output channels are split into so many independent groups.
    pub groups: usize,
}

impl Default for Conv2dConfig {
    /// Stride 1, no padding, dilation 1, one group: the default of PyTorch.
    fn default() -> Self {
        Self { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}

/// The geometry of [`max_pool2d`](crate::max_pool2d) and [`avg_pool2d`](crate::avg_pool2d).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool2dConfig {
    /// The side of the window, in pixels.
    pub kernel: usize,
    /// The step between windows, in pixels.
    pub stride: usize,
    /// The padding on each side, in pixels; at most half of the kernel.
    pub padding: usize,
}

impl Pool2dConfig {
    /// Windows side by side: the stride is the kernel, without padding.
    pub fn new(kernel: usize) -> Self {
        Self { kernel, stride: kernel, padding: 0 }
    }
}

/// What is applied after a normalization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// `max(x, 0)`, with the derivative 0 at 0.
    Relu,
}

/// The result of [`batch_norm_train`](crate::batch_norm_train).
#[derive(Clone, Debug)]
pub struct BatchNormOutput {
    /// The normalized input, with the shape of the input.
    pub ys: Tensor,
    /// The mean of each channel over this batch, shape `(C)`, detached from the graph.
    pub mean: Tensor,
    /// The biased variance of each channel over this batch, shape `(C)`, detached from the graph.
    pub var: Tensor,
    /// The values of each channel that they were taken over, those of other processes too.
    pub count: usize,
}

/// The score of two rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Score {
    /// `-c |x_i - x_j|^2`.
    Distance(f64),
    /// `c x_i . x_j`.
    Dot(f64),
}

/// Which columns a row leaves out of its sum. All choices are symmetric in the row and the column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclude {
    /// None.
    Nothing,
    /// The row itself.
    Own,
    /// All rows of the same sample, for views stacked below each other: `j = i` modulo the batch.
    Sample(usize),
}

impl Exclude {
    /// Whether row `i` leaves out column `j`.
    pub fn excludes(self, i: usize, j: usize) -> bool {
        match self {
            Self::Nothing => false,
            Self::Own => i == j,
            Self::Sample(batch) => i % batch == j % batch,
        }
    }
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
