//! How much entropy and information embeddings hold, in nats, and how surely.

mod conditional;
mod continuous;
mod copula;
mod corrected;
mod entropy;
mod gaussian;
mod labels;
mod labels_mixture;
mod matched;
mod mixture;
mod mixtures;
mod mutual;
mod normal;
mod permutation;
mod sliced;
mod ties;
mod tree;
mod weighted;

pub use conditional::conditional_mutual_information;
pub use continuous::{KsgConfig, KsgKind, Marginals, mutual_information};
pub use copula::{copula_splitting_entropy, copula_splitting_information};
pub use corrected::{CorrectedConfig, corrected_mutual_information};
pub use entropy::{Norm, kozachenko_leonenko};
pub use gaussian::{GaussianEntropy, Shrinkage, gaussian_entropy, shrinkage_covariance};
pub use labels::{LabelInformation, label_entropy, label_information, mixed_mutual_information};
pub use labels_mixture::label_mixture_information;
pub use matched::matched_mutual_information;
pub(crate) use matched::student_information;
pub use mixture::{MixtureConfig, mixture_entropy};
pub use mixtures::{discrete_mutual_information, mixture_mutual_information};
pub use mutual::{MutualConfig, MutualEstimator, MutualReport, NamedEstimate, Variable, mutual_report};
pub use normal::{NormalModel, normal_conditional_mutual_information, normal_mutual_information};
pub use permutation::{PermutationTest, label_permutation_test, mutual_information_permutation_test};
pub use sliced::{SlicedConfig, sliced_mutual_information};
pub use ties::repeated_rows;
pub use weighted::{entropy_weights, weighted_kozachenko_leonenko};
