//! What noise at the input becomes at the output of an encoder: Theorem 1 of the information-theoretic view of
//! self-supervised learning (arXiv:2303.00633), against Monte Carlo.
//!
//! Around a point `x` a network of piecewise linear activations is affine, `f(x + e) = f(x) + A e` with its Jacobian
//! `A`, as long as `x + e` stays in the linear region of `x`. Normal noise of covariance `S` then becomes normal with
//! the covariance `A S A^T`, and `h(Z | x) = 1/2 ln det(2 pi e A S A^T)`. [`jacobian`] gives `A` exactly, by the
//! encoder's own forward and backward passes; [`Noise::propagate`] the covariance; [`support_entropy`] the entropy
//! with its rank; [`monte_carlo`] what comes out in truth; [`agreement`] how far the two are apart, and
//! [`region_shares`] how often the noise leaves the region in which the theorem holds.
//!
//! The encoder is a function of tensors `(B, ...) -> (B, D)` that treats each sample by itself (evaluation mode: no
//! statistics of the batch).

mod agreement;
mod entropy;
mod jacobian;
mod noise;

pub use agreement::{Agreement, RegionShares, agreement, region_shares};
pub use entropy::{SupportEntropy, support_entropy};
pub use jacobian::jacobian;
pub use noise::{MonteCarlo, MonteCarloConfig, Noise, monte_carlo};
