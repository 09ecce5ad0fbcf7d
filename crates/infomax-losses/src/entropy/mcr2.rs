//! Maximal coding rate reduction: the rate of all rows minus the rate within classes.

use crate::{
    Entropy, Error, Estimate, MomentForm, Result,
    entropy::{CodingRate, entropy_part, gathered},
    ranks::{self, Ranks},
    settings::{not_negative, positive},
};
use candle_core::Tensor;
use infomax_core::{Bound, Context, Embeddings, Part, Role, Term};

/// MCR2 (Yu et al., arXiv 2006.08558): `-(R(Z) - R(Z | classes))`, see [`CodingRate`] for both rates.
///
/// The rows of all views are taken together. Without labels the views of one sample are a class of `V` rows,
/// the self-supervised form; with `supervised` the labels of the batch are the classes. `R(Z | classes)` is the
/// invariance part, `-R(Z)` the entropy part.
///
/// Cost `V n d min(V n, d)`, and `n V^2 d` for the classes of one sample each.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Mcr2 {
    /// The factor of both parts.
    pub weight: f64,
    /// The squared distortion (0.5).
    pub eps: f64,
    /// Whether rows are scaled to unit length first.
    pub normalize: bool,
    /// Whether the labels of the batch are the classes; else the views of a sample are one.
    pub supervised: bool,
}

impl Default for Mcr2 {
    fn default() -> Self {
        Self { weight: 1.0, eps: 0.5, normalize: true, supervised: false }
    }
}

impl Mcr2 {
    fn rate(&self) -> CodingRate {
        CodingRate { weight: 1.0, eps: self.eps, normalize: self.normalize, path: MomentForm::Auto }
    }

    /// `[R, R_c]` of views `(n, d)` each: shape `(2)`, differentiable. Without labels, one class a sample.
    ///
    /// # Errors
    /// Views of unequal shape; a number of labels other than `n`.
    pub fn rates(&self, views: &[Tensor], labels: Option<&[u32]>) -> Result<Tensor> {
        let rate = self.rate();
        let all = Tensor::cat(views, 0)?;
        let conditional = match labels {
            Some(labels) => {
                let n = views[0].dim(0)?;
                if labels.len() != n {
                    return Err(Error::Shape {
                        term: "mcr2",
                        expected: "one label a row of a view",
                        got: vec![labels.len(), n],
                    });
                }
                rate.conditional(&all, &labels.repeat(views.len()))?
            }
            None => self.within_samples(views)?,
        };
        Ok(Tensor::stack(&[rate.entropy(&all)?, conditional], 0)?)
    }

    /// [`Mcr2::rates`] of the samples of all ranks without labels: a sample's views are on one rank.
    fn over_ranks(&self, views: &[Tensor], ranks: &Ranks<'_>) -> Result<Tensor> {
        let within = ranks.mean(&self.within_samples(views)?)?;
        let rows = Tensor::cat(views, 0)?;
        let all = match self.rate().shared_of(ranks, &rows, views.len())? {
            Some(rate) => rate.to_dtype(within.dtype())?,
            None => self.rate().entropy(&ranks.gather(&rows)?)?,
        };
        Ok(Tensor::stack(&[all, within], 0)?)
    }

    fn both(&self, rates: &Tensor) -> Result<Vec<Part>> {
        let (name, role, weight) = ("class-rate".into(), Role::Invariance, self.weight);
        let within = Part { name, role, weight, value: rates.get(1)? };
        Ok(vec![within, entropy_part("rate", weight, rates.get(0)?.neg()?)])
    }

    /// `mean_i 1/2 ln det(I + d / (V eps) Z_i Z_i^T)`: elimination on all the small Gram matrices at once.
    fn within_samples(&self, views: &[Tensor]) -> Result<Tensor> {
        let rows = views.iter().map(|v| self.rate().rows(v)).collect::<Result<Vec<_>>>()?;
        let count = rows.len();
        let scale = rows[0].dim(1)? as f64 / (count as f64 * self.eps);
        let mut gram: Vec<Vec<Tensor>> = Vec::new();
        for i in 0..count {
            let row = (0..=i).map(|j| {
                let product = ((&rows[i] * &rows[j])?.sum(1)? * scale)?;
                if i == j { product + 1.0 } else { Ok(product) }
            });
            gram.push(row.collect::<candle_core::Result<_>>()?);
        }
        let mut logs = Vec::new();
        for k in 0..count {
            // I + a Gram matrix: no pivot is below 1.
            let pivot = gram[k][k].clone();
            for i in k + 1..count {
                let factor = (&gram[i][k] / &pivot)?;
                for j in k + 1..=i {
                    gram[i][j] = (&gram[i][j] - (&factor * &gram[j][k])?)?;
                }
            }
            logs.push(pivot.log()?.mean_all()?);
        }
        Ok((Tensor::stack(&logs, 0)?.sum_all()? * 0.5)?)
    }
}

impl Term for Mcr2 {
    fn name(&self) -> &str {
        "mcr2"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Surrogate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        if !self.supervised {
            crate::error::views("mcr2", 2, z.projections.len())?;
            let rates = self.over_ranks(z.projections.as_slice(), &Ranks::of(ctx, z.projections.batch())?)?;
            return Ok(self.both(&rates)?);
        }
        let views = gathered("mcr2", 1, z, ctx)?;
        let labels = match &z.labels {
            Some(labels) => ranks::labels(labels, ctx)?,
            None => {
                let hint = "the classes of the samples are needed (a data set with labels; `--labels FILE` of \
                            `infomax objective`), or set objective.entropy.supervised = false";
                return Err(Error::Missing { term: "mcr2", field: "labels", hint }.into());
            }
        };
        Ok(self.both(&self.rates(&views, Some(&labels))?)?)
    }
}

impl Entropy for Mcr2 {
    fn check(&self) -> Result<()> {
        not_negative("mcr2", "weight", self.weight)?;
        positive("mcr2", "eps", self.eps)
    }

    /// The rate of one view.
    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        self.rate().estimate(z)
    }
}
