//! VIbCReg: VICReg with correlations in place of covariances.

use crate::{
    Entropy, Estimate, MomentForm, Reduce, Result,
    entropy::{centered, entropy_part, variance_covariance},
    moments, op,
    ranks::Ranks,
};
use candle_core::Tensor;
use infomax_core::{Bound, Context, Embeddings, Part, Role, Term};

/// Variance and normalized covariance of VIbCReg (Lee and Aune, arXiv 2109.00783), as in solo-learn: the hinge of
/// [`crate::entropy::Vicreg`] and `1/d^2 sum_{i != j} r_ij^2` of the correlations `r` of the columns.
///
/// Correlations do not change with the scale of a column, so that the second part cannot be lowered by
/// shrinking, and its size does not depend on `d`. Cost `n d min(n, d)`. The iterative normalization of the
/// paper is a layer of its projector and no part of the loss.
///
/// # Gradient
/// As that of VICReg; a column of one constant value has correlation 0 and no gradient from the second part.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Vibcreg {
    /// Weight of the variance part (25).
    pub variance: f64,
    /// Weight of the covariance part (200).
    pub covariance: f64,
    /// The standard deviation above which the hinge is silent (1).
    pub gamma: f64,
    /// Added to the variance under the root (1e-4).
    pub eps: f64,
    /// How the views' parts are joined (the sum).
    pub views: Reduce,
    /// The form of the covariance part.
    pub path: MomentForm,
}

impl Default for Vibcreg {
    fn default() -> Self {
        Self {
            variance: 25.0,
            covariance: 200.0,
            gamma: 1.0,
            eps: 1e-4,
            views: Reduce::Sum,
            path: MomentForm::Auto,
        }
    }
}

impl Vibcreg {
    /// `[variance, covariance]` of one view `(n, d)`: shape `(2)`, differentiable.
    ///
    /// # Errors
    /// Fewer than two rows.
    pub fn parts(&self, z: &Tensor) -> Result<Tensor> {
        let z = moments::matrix("vibcreg", z, 2)?;
        let (n, d) = z.dims2()?;
        let zc = centered(&z)?;
        let stds = ((zc.sqr()?.sum(0)? / (n - 1) as f64)? + self.eps)?.sqrt()?;
        let variance = op::hinge(&(stds.neg()? + self.gamma)?)?.mean_all()?;
        let norms = zc.sqr()?.sum_keepdim(0)?.maximum(1e-24)?.sqrt()?;
        let unit = zc.broadcast_div(&norms)?;
        // The operation gives sum_{i != j} (r_ij / (n - 1))^2 / d of columns of unit length.
        let dof = (n - 1) as f64;
        let off = variance_covariance(&unit, self.gamma, self.eps, self.path)?.get(1)?;
        Ok(Tensor::stack(&[variance, (off * (dof * dof / d as f64))?], 0)?)
    }

    /// [`Vibcreg::parts`] of the rows of all ranks, from their scatter where that is less traffic than the rows.
    fn shared(&self, ranks: &Ranks<'_>, z: &Tensor) -> Result<Tensor> {
        let scatter = if ranks.total < 2 { None } else { ranks.scatter(z)? };
        let Some(scatter) = scatter else { return self.parts(&ranks.gather(z)?) };
        let (dof, d) = ((ranks.total - 1) as f64, scatter.dim(0)?);
        let eye = Tensor::eye(d, scatter.dtype(), scatter.device())?;
        let squares = (&scatter * &eye)?.sum_keepdim(0)?;
        let stds = ((&squares / dof)? + self.eps)?.sqrt()?;
        let variance = op::hinge(&(stds.neg()? + self.gamma)?)?.mean_all()?;
        let norms = squares.maximum(1e-24)?.sqrt()?;
        let r = scatter.broadcast_div(&norms)?.broadcast_div(&norms.t()?)?;
        let off = ((&r - (&r * &eye)?)?.sqr()?.sum_all()? / (d * d) as f64)?;
        Ok(Tensor::stack(&[variance, off], 0)?.to_dtype(op::widen(z)?.dtype())?)
    }
}

impl Term for Vibcreg {
    fn name(&self) -> &str {
        "vibcreg"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Surrogate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        let ranks = Ranks::of(ctx, z.projections.batch())?;
        let parts = z.projections.iter().map(|v| self.shared(&ranks, v)).collect::<Result<Vec<_>>>()?;
        let sums = (Tensor::stack(&parts, 0)?.sum(0)? * self.views.factor(parts.len()))?;
        Ok(vec![
            entropy_part("variance", self.variance, sums.get(0)?),
            entropy_part("covariance", self.covariance, sums.get(1)?),
        ])
    }
}

impl Entropy for Vibcreg {
    fn check(&self) -> Result<()> {
        let Self { variance, covariance, gamma, eps, .. } = *self;
        let settings = [("variance", variance), ("covariance", covariance), ("gamma", gamma), ("eps", eps)];
        crate::settings::none_negative("vibcreg", settings)
    }

    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        let parts = op::host(&self.parts(z)?)?;
        Ok(Estimate {
            nats: -(self.variance * parts[0] + self.covariance * parts[1]),
            bound: Bound::Surrogate,
        })
    }
}
