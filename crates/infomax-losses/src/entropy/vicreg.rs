//! The second-moment surrogate of VICReg: hinge on the standard deviations, squared covariances.

use crate::ranks::Ranks;
use crate::{Entropy, Estimate, MomentForm, Reduce, Result, entropy::entropy_part, moments, op};
use candle_core::Tensor;
use infomax_core::{Bound, Context, Embeddings, Part, Role, Term};

/// Variance and covariance regularization of VICReg (Bardes, Ponce, LeCun; arXiv 2105.04906).
///
/// Per view `Z` `(n, d)` with centered `Zc` and the unbiased `S = Zc^T Zc / (n - 1)`:
///
/// ```text
/// variance   = 1/d sum_j max(0, gamma - sqrt(S_jj + eps))
/// covariance = 1/d sum_{i != j} S_ij^2
/// ```
///
/// A [`Bound::Surrogate`] of `-H(Z)`: the hinge stands for the diagonal of the Gaussian bound, and the
/// covariances for its correlation part, `ln det(I + E) = -||E||_F^2 / 2 + O(E^3)`.
///
/// # Numerics
/// With fewer samples than dimensions, `sum_ij S_ij^2 = ||Zc Zc^T||_F^2 / (n - 1)^2` costs `n^2 d` and not
/// `n d^2`; otherwise the `d x d` matrix is formed and its diagonal masked, which keeps the digits that the
/// subtraction would lose on a whitened batch. Sums are taken in f64. The gradient is in closed form.
///
/// # Gradient
/// Zero for a column with `std >= gamma` (also at the kink); finite everywhere; exactly zero for a batch
/// whose rows are all equal.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Vicreg {
    /// Weight of the variance part (25).
    pub variance: f64,
    /// Weight of the covariance part (1).
    pub covariance: f64,
    /// The standard deviation above which the hinge is silent (1).
    pub gamma: f64,
    /// Added to the variance under the root (1e-4).
    pub eps: f64,
    /// How the views' variance parts are joined: the mean officially, the sum in solo-learn.
    pub variance_views: Reduce,
    /// How the views' covariance parts are joined (the sum everywhere).
    pub covariance_views: Reduce,
    /// The form of the covariance part.
    pub path: MomentForm,
}

impl Default for Vicreg {
    fn default() -> Self {
        Self {
            variance: 25.0,
            covariance: 1.0,
            gamma: 1.0,
            eps: 1e-4,
            variance_views: Reduce::Mean,
            covariance_views: Reduce::Sum,
            path: MomentForm::Auto,
        }
    }
}

impl Term for Vicreg {
    fn name(&self) -> &str {
        "vicreg"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Surrogate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        Ok(self.parts(z, &Ranks::of(ctx, z.projections.batch())?)?)
    }
}

impl Vicreg {
    /// The parts of the views of all ranks.
    pub(super) fn parts(&self, z: &Embeddings, ranks: &Ranks<'_>) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        for view in z.projections.iter() {
            parts.push(variance_covariance_over(ranks, view, self.gamma, self.eps, self.path)?);
        }
        let parts = Tensor::stack(&parts, 1)?; // (2, V)
        let views = parts.dim(1)?;
        let variance = (parts.get(0)?.sum_all()? * self.variance_views.factor(views))?;
        let covariance = (parts.get(1)?.sum_all()? * self.covariance_views.factor(views))?;
        Ok(vec![
            entropy_part("variance", self.variance, variance),
            entropy_part("covariance", self.covariance, covariance),
        ])
    }
}

impl Entropy for Vicreg {
    fn check(&self) -> Result<()> {
        let Self { variance, covariance, gamma, eps, .. } = *self;
        let settings = [("variance", variance), ("covariance", covariance), ("gamma", gamma), ("eps", eps)];
        crate::settings::none_negative("vicreg", settings)
    }

    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        let parts = op::host(&variance_covariance(z, self.gamma, self.eps, self.path)?)?;
        Ok(Estimate {
            nats: -(self.variance * parts[0] + self.covariance * parts[1]),
            bound: Bound::Surrogate,
        })
    }
}

/// `[variance, covariance]` of one view `(n, d)`, as [`Vicreg`] defines them: shape `(2)`, differentiable.
///
/// # Errors
/// Anything but a matrix of at least two rows.
pub fn variance_covariance(z: &Tensor, gamma: f64, eps: f64, path: MomentForm) -> Result<Tensor> {
    let z = moments::matrix("vicreg", z, 2)?;
    let (n, d) = z.dims2()?;
    Ok(infomax_kernels::columns::variance_covariance(&z, gamma, eps, path.is_gram(n, d))?)
}

/// [`variance_covariance`] of the rows of all ranks, from their scatter where that is less traffic than the rows.
pub(crate) fn variance_covariance_over(
    ranks: &Ranks<'_>,
    z: &Tensor,
    gamma: f64,
    eps: f64,
    path: MomentForm,
) -> Result<Tensor> {
    let scatter = if ranks.total < 2 { None } else { ranks.scatter(z)? };
    let Some(scatter) = scatter else { return variance_covariance(&ranks.gather(z)?, gamma, eps, path) };
    let (dof, d) = ((ranks.total - 1) as f64, scatter.dim(0)?);
    let eye = Tensor::eye(d, scatter.dtype(), scatter.device())?;
    let s = (scatter / dof)?;
    let diagonal = (&s * &eye)?;
    let stds = (diagonal.sum(0)? + eps)?.sqrt()?;
    let variance = op::hinge(&(stds.neg()? + gamma)?)?.mean_all()?;
    let covariance = ((s - diagonal)?.sqr()?.sum_all()? / d as f64)?;
    Ok(Tensor::stack(&[variance, covariance], 0)?.to_dtype(op::widen(z)?.dtype())?)
}

/// [`variance_covariance`] from plain Candle operations: the reference.
///
/// # Errors
/// As [`variance_covariance`].
pub fn variance_covariance_composed(z: &Tensor, gamma: f64, eps: f64) -> Result<Tensor> {
    let z = moments::matrix("vicreg", z, 2)?;
    Ok(infomax_kernels::reference::variance_covariance(&z, gamma, eps)?)
}
