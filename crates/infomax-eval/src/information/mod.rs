//! How much entropy and information embeddings hold, in nats, and how surely.

mod continuous;
mod entropy;
mod gaussian;
mod labels;
mod mixture;
mod permutation;

pub use continuous::{KsgConfig, KsgKind, Marginals, mutual_information};
pub use entropy::{Norm, kozachenko_leonenko};
pub use gaussian::{GaussianEntropy, Shrinkage, gaussian_entropy, shrinkage_covariance};
pub use labels::{LabelInformation, label_entropy, label_information, mixed_mutual_information};
pub use mixture::{MixtureConfig, mixture_entropy};
pub use permutation::{PermutationTest, label_permutation_test, mutual_information_permutation_test};
