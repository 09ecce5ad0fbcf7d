//! The choice between `Z Z^T` and `Z^T Z`, and the check of batches.

use crate::{Error, Result, op};
use candle_core::Tensor;

/// Which of the two forms of a second-moment objective is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum MomentForm {
    /// The smaller of the two: [`MomentForm::Gram`] when `n < d`.
    #[default]
    Auto,
    /// Through the `n x n` Gram matrix of the samples.
    Gram,
    /// Through the `d x d` matrix of the features.
    Features,
}

impl MomentForm {
    /// Whether the Gram form is used for `n` samples in `d` dimensions.
    pub fn is_gram(self, n: usize, d: usize) -> bool {
        match self {
            Self::Auto => n < d,
            Self::Gram => true,
            Self::Features => false,
        }
    }
}

/// Refuses what is not a matrix with at least `rows` rows, and widens half types to f32.
pub(crate) fn matrix(term: &'static str, z: &Tensor, rows: usize) -> Result<Tensor> {
    if z.rank() != 2 || z.dims()[0] < rows || z.dims()[1] == 0 {
        let expected = if rows > 1 { "a matrix (n, d) with n >= 2" } else { "a matrix (n, d)" };
        return Err(Error::Shape { term, expected, got: z.dims().to_vec() });
    }
    Ok(op::widen(z)?)
}
