//! The gap between the diagonal and the full Gaussian bound, and DiME.

use crate::{Entropy, Estimate};
use crate::{
    Error, Result,
    entropy::{Gaussian, Hadamard, LogDet, Renyi, entropy_part, mean_over_views},
    op,
};
use candle_core::{DType, Tensor};
use infomax_core::{Bound, Context, Embeddings, Key, Part, Role, Term};

/// The total correlation of the Gaussian with the covariance of the rows,
/// `T = sum_j H_j - H = -1/2 ln det Corr >= 0`: [`Hadamard`] minus [`Gaussian`], both with `eps`.
///
/// As a loss it is minimized: it decorrelates and leaves the scale alone, so that it needs a part that keeps
/// the variances up. As a monitor it is reported as `-T`, which grows with the entropy. Cost as [`Gaussian`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct TotalCorrelation {
    /// The factor in the total.
    pub weight: f64,
    /// The factor of the diagonal bound, which keeps the variances up (1; 0 for the total correlation alone,
    /// which nothing keeps from collapsing).
    pub diagonal: f64,
    /// Added to the variances (1e-4).
    pub eps: f64,
}

impl Default for TotalCorrelation {
    fn default() -> Self {
        Self { weight: 1.0, diagonal: 1.0, eps: 1e-4 }
    }
}

impl TotalCorrelation {
    /// The total correlation of the rows of `z` `(n, d)`, in nats: a scalar, differentiable.
    ///
    /// # Errors
    /// As [`Gaussian::entropy`].
    pub fn gap(&self, z: &Tensor) -> Result<Tensor> {
        let (hadamard, gaussian) = self.bounds();
        Ok((hadamard.entropy(z)? - gaussian.entropy(z)?)?)
    }

    fn bounds(&self) -> (Hadamard, Gaussian) {
        let eps = self.eps;
        (Hadamard { weight: 1.0, eps }, Gaussian { weight: 1.0, eps, corrected: false })
    }
}

impl Term for TotalCorrelation {
    fn name(&self) -> &str {
        "total-correlation"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Surrogate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        let (hadamard, gaussian) = self.bounds();
        let full = mean_over_views(z, ctx, |v| gaussian.entropy(v), |r, v| gaussian.shared(r, v))?;
        let diagonal = mean_over_views(z, ctx, |v| hadamard.entropy(v), |r, v| hadamard.shared(r, v))?;
        let mut parts = vec![entropy_part("total-correlation", self.weight, (&diagonal - full)?)];
        if self.diagonal != 0.0 {
            let value = diagonal.neg()?;
            parts.push(entropy_part("diagonal", self.weight * self.diagonal, value));
        }
        Ok(parts)
    }
}

impl Entropy for TotalCorrelation {
    fn check(&self) -> Result<()> {
        let settings = [("weight", self.weight), ("diagonal", self.diagonal), ("eps", self.eps)];
        crate::settings::none_negative("total-correlation", settings)
    }

    /// `-T`.
    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        Ok(Estimate { nats: -op::number(&self.gap(z)?)?, bound: Bound::Surrogate })
    }
}

impl Renyi {
    /// DiME (Skean et al., arXiv 2301.08164): `E_P S(X, P Y) - S(X, Y)` over random permutations `P` of the samples
    /// drawn from `key`. How much the pairing matters, at least 0 in expectation, without the bias of
    /// [`Renyi::mutual_information`]; a scalar, differentiable in both.
    ///
    /// # Errors
    /// As [`Renyi::joint`]; no permutation.
    pub fn dime(&self, x: &Tensor, y: &Tensor, permutations: usize, key: Key) -> Result<Tensor> {
        crate::settings::count("dime", "permutations", permutations, 1)?;
        let (a, b) = (self.kernel(x)?, self.kernel(y)?);
        if a.dims() != b.dims() {
            return Err(Error::Shape {
                term: "dime",
                expected: "as many rows of x as of y",
                got: b.dims().to_vec(),
            });
        }
        let n = a.dim(0)?;
        let mut shuffled = Vec::new();
        for p in 0..permutations {
            let draws = key.fold_in(p as u64).uniform(0.0, 1.0, n, DType::F64, &candle_core::Device::Cpu)?;
            let draws = op::host(&draws)?;
            let mut order: Vec<u32> = (0..n as u32).collect();
            order.sort_by(|i, j| draws[*i as usize].total_cmp(&draws[*j as usize]));
            let order = Tensor::from_vec(order, n, b.device())?;
            let moved = b.index_select(&order, 0)?.index_select(&order, 1)?;
            shuffled.push(self.of_matrix(&(&a * moved)?)?);
        }
        let joint = self.of_matrix(&(a * b)?)?;
        Ok((Tensor::stack(&shuffled, 0)?.mean_all()? - joint)?)
    }
}

impl LogDet {
    /// `H(X, Y) = 1/2 ln det(I + beta cov[X, Y])` of paired rows.
    ///
    /// # Errors
    /// As [`LogDet::entropy`], and numbers of rows that differ.
    pub fn joint(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        self.entropy(&Tensor::cat(&[&op::widen(x)?, &op::widen(y)?], 1)?)
    }
}
