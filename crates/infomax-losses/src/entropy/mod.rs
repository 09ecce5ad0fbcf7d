//! The entropy estimators: each one type that is a loss term and a monitor.

mod components;
mod correlation;
mod discrepancy;
mod expansion;
mod gaussian;
mod hydes;
mod marginal;
mod matrix_ssl;
mod mcr2;
mod mixture;
mod mmcr;
mod neighbors;
mod normality;
mod radial;
mod rectified;
mod running;
mod sliced;
mod spectral;
mod swav;
mod vibcreg;
mod vicreg;
mod vicregl;

pub use components::{PairDistFull, mixture_bound, mixture_bound_weighted};
pub use correlation::TotalCorrelation;
pub use discrepancy::{Discrepancy, Kernel, KernelDiscrepancy};
pub use expansion::Expansion;
pub(crate) use gaussian::centered;
pub use gaussian::{CodingRate, Gaussian, Hadamard, LogDet, Moment, half_log_det};
pub use hydes::Hydes;
pub use marginal::{MSpacing, Squash};
pub use matrix_ssl::MatrixSsl;
pub use mcr2::Mcr2;
pub use mixture::{Contrastive, Divergence, Kde, PairDist, Uniformity, Vmf};
pub use mmcr::{Mmcr, nuclear_norm};
pub use neighbors::{KoLeo, KozachenkoLeonenko, Metric};
pub use normality::{SlicedNormality, Statistic, normality};
pub use radial::Radial;
pub use rectified::{Prior, Rectified};
pub use running::{CorInfoMax, Running, Tico};
pub use sliced::{SigReg, VisReg, epps_pulley};
pub use spectral::{Barlow, Frossl, Mec, Renyi, barlow};
pub use swav::{Swav, sinkhorn};
pub use vibcreg::Vibcreg;
pub(crate) use vicreg::variance_covariance_over;
pub use vicreg::{Vicreg, variance_covariance, variance_covariance_composed};
pub use vicregl::Vicregl;

use crate::Result;
use crate::ranks::Ranks;
use candle_core::Tensor;
use infomax_core::{Bound, Context, Embeddings, Part, Role, Term};

/// An entropy in nats, or a surrogate of it that grows with it.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// The value; in nats unless the bound is [`Bound::Surrogate`].
    pub nats: f64,
    /// How it relates to the true entropy.
    pub bound: Bound,
}

/// An entropy estimator: a differentiable [`Term`], to be minimized (minus the entropy, or a surrogate of that),
/// and a monitor.
pub trait Entropy: Term {
    /// Refuses settings outside of their range.
    ///
    /// # Errors
    /// Names the setting.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// The entropy of the rows of one matrix `(n, d)`, with how it relates to the truth.
    ///
    /// # Errors
    /// Shapes that the estimator has no meaning for.
    fn estimate(&self, z: &Tensor) -> Result<Estimate>;
}

/// A configuration of an entropy estimator, from which the term is made.
///
/// An estimator without running state is its own configuration. One with state ([`CorInfoMax`], [`Tico`],
/// [`Swav`]) starts empty with each term that is made.
pub trait IntoTerm {
    /// The term, at its start.
    fn into_term(self) -> Box<dyn Entropy>;
}

impl<T: Entropy + 'static> IntoTerm for T {
    fn into_term(self) -> Box<dyn Entropy> {
        Box::new(self)
    }
}

/// How the values of the views are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    crate::error::views(term, least, z.projections.len())?;
    let mut views = Vec::new();
    for view in z.projections.iter() {
        views.push(crate::op::widen(&ctx.collective.all_gather_same(view)?)?);
    }
    Ok(views)
}

/// `ln sum_k exp x_k` over the first dimension of `(K, n)`: shape `(n)`, differentiable.
pub(crate) fn log_sum_exp_first(x: &Tensor) -> Result<Tensor> {
    let max = x.max_keepdim(0)?.detach();
    let sums = x.broadcast_sub(&max)?.exp()?.sum(0)?;
    Ok((sums.log()? + max.squeeze(0)?)?)
}

/// The mean of an entropy over the views: `shared` of the own rows of each, and where that gives none, `entropy` of the
/// rows of all ranks.
pub(crate) fn mean_over_views(
    z: &Embeddings,
    ctx: &Context<'_>,
    entropy: impl Fn(&Tensor) -> Result<Tensor>,
    shared: impl Fn(&Ranks<'_>, &Tensor) -> Result<Option<Tensor>>,
) -> Result<Tensor> {
    let ranks = Ranks::of(ctx, z.projections.batch())?;
    let mut values = Vec::new();
    for view in z.projections.iter() {
        let own = if ranks.alone() { None } else { shared(&ranks, view)? };
        values.push(match own {
            Some(value) => value.to_dtype(crate::op::widen(view)?.dtype())?,
            None => entropy(&ranks.gather(view)?)?,
        });
    }
    Ok(Tensor::stack(&values, 0)?.mean_all()?)
}

/// No form of several processes but that of all rows.
pub(crate) fn gathers<T>(_: &T, _: &Ranks<'_>, _: &Tensor) -> Result<Option<Tensor>> {
    Ok(None)
}

/// The [`Term`] and [`Entropy`] of a type with `weight`, `settings()` and `entropy(&Tensor)`: minus its mean over
/// the views. The last argument, where given, is the form for several processes, see [`mean_over_views`].
macro_rules! per_view {
    ($type:ty, $name:literal, $bound:expr) => {
        crate::entropy::per_view!($type, $name, $bound, crate::entropy::gathers);
    };
    ($type:ty, $name:literal, $bound:expr, $shared:expr) => {
        impl infomax_core::Term for $type {
            fn name(&self) -> &str {
                $name
            }

            fn role(&self) -> infomax_core::Role {
                infomax_core::Role::Entropy
            }

            fn bound(&self) -> Option<infomax_core::Bound> {
                Some($bound(self))
            }

            fn evaluate(
                &self,
                z: &infomax_core::Embeddings,
                ctx: &infomax_core::Context<'_>,
            ) -> infomax_core::Result<Vec<infomax_core::Part>> {
                let shared =
                    |ranks: &crate::ranks::Ranks<'_>, view: &candle_core::Tensor| $shared(self, ranks, view);
                let entropy = crate::entropy::mean_over_views(z, ctx, |view| self.entropy(view), shared)?;
                Ok(vec![crate::entropy::entropy_part($name, self.weight, entropy.neg()?)])
            }
        }

        impl crate::Entropy for $type {
            fn check(&self) -> crate::Result<()> {
                crate::settings::not_negative($name, "weight", self.weight)?;
                self.settings()
            }

            fn estimate(&self, z: &Tensor) -> crate::Result<crate::Estimate> {
                Ok(crate::Estimate { nats: crate::op::number(&self.entropy(z)?)?, bound: $bound(self) })
            }
        }
    };
}
pub(crate) use per_view;
