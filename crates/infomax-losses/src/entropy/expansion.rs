//! SimDINO's expansion: the coding rate of global views, smoothed by the teacher.

use crate::{
    Entropy, Estimate, MomentForm, Result,
    entropy::{CodingRate, entropy_part},
    op,
    ranks::Ranks,
    settings::{not_negative, positive},
};
use candle_core::Tensor;
use infomax_core::{Bound, Context, Embeddings, Part, Role, Term};

/// The expansion term of SimDINO (Wu et al., arXiv 2502.10385): for each global view the coding rate
///
/// ```text
/// gamma R(W),   R(W) = 1/2 ln det(I + d / (n eps) W^T W),   gamma = (d + n) / (d n)
/// ```
/// of rows `W` `(n, d)`, averaged over the views; see [`CodingRate`]. With `smooth`, where a momentum teacher gives
/// targets, `W` is the mean of the unit rows of student and teacher, without gradient of the latter (`expa_type = 1`
/// of the official code, its default); else the rows of the student alone. The mean of two unit rows is not scaled
/// again, so that views on which both disagree count less.
///
/// The views are those that come first as global ones. Cost `n d min(n, d)` a view.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Expansion {
    /// The factor in the total.
    pub weight: f64,
    /// The squared distortion (0.5).
    pub eps: f64,
    /// Whether the rows of the teacher are averaged in.
    pub smooth: bool,
}

impl Default for Expansion {
    fn default() -> Self {
        Self { weight: 1.0, eps: 0.5, smooth: true }
    }
}

impl Expansion {
    fn rate(&self, normalize: bool) -> CodingRate {
        CodingRate { weight: 1.0, eps: self.eps, normalize, path: MomentForm::Auto }
    }

    /// `gamma R` of the student's rows and, for the smoothed form, the teacher's `(n, d)`: a scalar, differentiable in
    /// the first.
    ///
    /// # Errors
    /// Anything but matrices of one shape.
    pub fn entropy(&self, student: &Tensor, teacher: Option<&Tensor>) -> Result<Tensor> {
        let rows = self.rows(student, teacher)?;
        let (n, d) = rows.dims2()?;
        let (n, d) = (n as f64, d as f64);
        Ok((self.rate(false).entropy(&rows)? * ((d + n) / (d * n)))?)
    }

    /// The unit rows of the student, and where there is one their mean with those of the teacher.
    fn rows(&self, student: &Tensor, teacher: Option<&Tensor>) -> Result<Tensor> {
        let unit = self.rate(true);
        let rows = unit.rows(student)?;
        Ok(match teacher {
            Some(teacher) => ((rows + unit.rows(&teacher.detach())?)? * 0.5)?,
            None => rows,
        })
    }
}

impl Term for Expansion {
    fn name(&self) -> &str {
        "expansion"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Surrogate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        let ranks = Ranks::of(ctx, z.projections.batch())?;
        let mut rates = Vec::new();
        for (v, view) in z.projections.iter().enumerate().take(z.globals()) {
            let target = z.targets.as_ref().filter(|targets| self.smooth && v < targets.len());
            let rows = self.rows(view, target.map(|targets| &targets[v]))?;
            let (n, d) = (ranks.total as f64, rows.dim(1)? as f64);
            let rate = match self.rate(false).shared_of(&ranks, &rows, 1)? {
                Some(rate) => rate.to_dtype(rows.dtype())?,
                None => self.rate(false).entropy(&ranks.gather(&rows)?)?,
            };
            rates.push((rate * ((d + n) / (d * n)))?);
        }
        let mean = Tensor::stack(&rates, 0)?.mean_all()?;
        Ok(vec![entropy_part("expansion", self.weight, mean.neg()?)])
    }
}

impl Entropy for Expansion {
    fn check(&self) -> Result<()> {
        not_negative("expansion", "weight", self.weight)?;
        positive("expansion", "eps", self.eps)
    }

    /// `gamma R` of one view, without a teacher.
    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        Ok(Estimate { nats: op::number(&self.entropy(z, None)?)?, bound: Bound::Surrogate })
    }
}
