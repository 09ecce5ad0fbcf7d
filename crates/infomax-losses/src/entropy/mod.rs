//! The entropy estimators: each one type that is a loss term and a monitor.

mod components;
mod correlation;
mod gaussian;
mod hydes;
mod marginal;
mod matrix_ssl;
mod mcr2;
mod mixture;
mod mmcr;
mod neighbours;
mod normality;
mod running;
mod sliced;
mod spectral;
mod swav;
mod vibcreg;
mod vicreg;
mod vicregl;

pub use components::{PairDistFull, mixture_bound};
pub use correlation::TotalCorrelation;
pub(crate) use gaussian::centred;
pub use gaussian::{CodingRate, Gaussian, Hadamard, LogDet, Moment, half_log_det};
pub use hydes::Hydes;
pub use marginal::{MSpacing, Squash};
pub use matrix_ssl::MatrixSsl;
pub use mcr2::Mcr2;
pub(crate) use mixture::positive;
pub use mixture::{Contrastive, Divergence, Kde, PairDist, Uniformity, Vmf};
pub use mmcr::{Mmcr, nuclear_norm};
pub use neighbours::{KoLeo, KozachenkoLeonenko, Metric};
pub use normality::{SlicedNormality, Statistic, normality};
pub use running::{CorInfoMax, Tico};
pub use sliced::{SigReg, VisReg, epps_pulley};
pub use spectral::{Barlow, Frossl, Mec, Renyi, barlow};
pub use swav::{Swav, sinkhorn};
pub use vibcreg::Vibcreg;
pub use vicreg::{Vicreg, variance_covariance, variance_covariance_composed};
pub use vicregl::Vicregl;

use crate::Result;
use candle_core::Tensor;
use infomax_core::{Bound, Context, Embeddings, Part, Role, TermState};

/// An entropy in nats, or a surrogate of it that grows with it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// The value; in nats unless the bound is [`Bound::Surrogate`].
    pub nats: f64,
    /// How it relates to the true entropy.
    pub bound: Bound,
}

/// An entropy estimator: a differentiable loss term, and a monitor.
pub trait Entropy: std::fmt::Debug + Send + Sync {
    /// Its name, as in a configuration.
    fn name(&self) -> &'static str;

    /// How its value relates to the true entropy.
    fn bound(&self) -> Bound;

    /// Refuses settings outside of their range.
    ///
    /// # Errors
    /// Names the setting.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// The parts of the loss, to be minimised: minus the entropy, or a surrogate of that.
    ///
    /// # Errors
    /// Shapes or embeddings that the estimator has no meaning for.
    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> Result<Vec<Part>>;

    /// The entropy of the rows of one matrix `(n, d)`.
    ///
    /// # Errors
    /// As [`Entropy::evaluate`].
    fn estimate(&self, z: &Tensor) -> Result<Estimate>;

    /// Takes a step's embeddings into the running state.
    ///
    /// # Errors
    /// As [`Entropy::evaluate`].
    fn update(&mut self, _z: &Embeddings, _ctx: &Context<'_>) -> Result<()> {
        Ok(())
    }

    /// The running state.
    fn state(&self) -> TermState {
        TermState::new()
    }

    /// Restores a running state.
    ///
    /// # Errors
    /// A state of another estimator.
    fn load_state(&mut self, _state: &TermState) -> Result<()> {
        Ok(())
    }
}

/// How the values of the views are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reduce {
    /// Their mean.
    #[default]
    Mean,
    /// Twice their mean: the sum for two views, and of the same size for more.
    Sum,
}

impl Reduce {
    /// The factor of the sum over `views` views.
    pub fn factor(self, views: usize) -> f64 {
        match self {
            Self::Mean => 1.0 / views as f64,
            Self::Sum => 2.0 / views as f64,
        }
    }
}

pub(crate) fn entropy_part(name: &str, weight: f64, value: Tensor) -> Part {
    Part { name: name.into(), role: Role::Entropy, weight, value }
}

/// The views, each gathered over the ranks, at least `least` of them.
pub(crate) fn gathered(
    term: &'static str,
    least: usize,
    z: &Embeddings,
    ctx: &Context<'_>,
) -> Result<Vec<Tensor>> {
    if z.projections.len() < least {
        let expected = if least > 1 { "at least two views" } else { "a view" };
        return Err(crate::Error::Shape { term, expected, got: vec![z.projections.len()] });
    }
    let mut views = Vec::new();
    for view in z.projections.iter() {
        views.push(crate::op::widen(&ctx.collective.all_gather(view)?)?);
    }
    Ok(views)
}

/// `ln sum_k exp x_k` over the first dimension of `(K, n)`: shape `(n)`, differentiable.
pub(crate) fn log_sum_exp_first(x: &Tensor) -> Result<Tensor> {
    let max = x.max_keepdim(0)?.detach();
    let sums = x.broadcast_sub(&max)?.exp()?.sum(0)?;
    Ok((sums.log()? + max.squeeze(0)?)?)
}

/// Minus the mean of an entropy over the views, each gathered over the ranks.
pub(crate) fn mean_over_views(
    z: &Embeddings,
    ctx: &Context<'_>,
    entropy: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let mut values = Vec::new();
    for view in z.projections.iter() {
        values.push(entropy(&ctx.collective.all_gather(view)?)?);
    }
    Ok(Tensor::stack(&values, 0)?.mean_all()?)
}

/// The [`Entropy`] of a type with `weight` and `entropy(&Tensor)`: minus its mean over the views.
macro_rules! per_view {
    ($type:ty, $name:literal, $bound:expr) => {
        impl crate::Entropy for $type {
            fn name(&self) -> &'static str {
                $name
            }

            fn bound(&self) -> infomax_core::Bound {
                $bound(self)
            }

            fn evaluate(
                &self,
                z: &infomax_core::Embeddings,
                ctx: &infomax_core::Context<'_>,
            ) -> crate::Result<Vec<infomax_core::Part>> {
                let entropy = crate::entropy::mean_over_views(z, ctx, |view| self.entropy(view))?;
                Ok(vec![crate::entropy::entropy_part($name, self.weight, entropy.neg()?)])
            }

            fn estimate(&self, z: &Tensor) -> crate::Result<crate::Estimate> {
                Ok(crate::Estimate { nats: crate::op::number(&self.entropy(z)?)?, bound: $bound(self) })
            }
        }
    };
}
pub(crate) use per_view;
