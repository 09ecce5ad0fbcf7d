//! Hyperspherical density shaping: the information between the views of a sample on the sphere.

use crate::pairwise::{Exclude, Score};
use crate::pairwise_ranks::Rows;
use crate::ranks::Ranks;
use crate::{
    Entropy, Estimate, Result,
    entropy::{Vmf, entropy_part, log_sum_exp_first},
    invariance::normalize_rows,
    settings::{none_negative, positive},
    special,
};
use candle_core::Tensor;
use infomax_core::{Bound, Context, Embeddings, Part, Role, Term};

/// HyDeS (Rodriguez-Betancourt and Casasola-Murillo, arXiv 2604.24498): `-(alpha H_global - beta H_local)`, both
/// entropies from a density of von Mises-Fisher kernels on the unit sphere.
///
/// ```text
/// H_global = -mean_a ln mean_b C_d(kappa) exp(kappa z_a . z_b)     over all rows of all views
/// H_local  = -mean_a ln mean_b C_d(kappa) exp(kappa z_a . z_b)     over the views of the sample of a
/// ```
/// At `alpha = beta = 1` it is minus an estimate of the information between a view and its sample, in nats.
/// `H_local` is the invariance part, `-H_global` the entropy part. The constants of the paper were not
/// available to us: `kappa = 5`, `alpha = beta = 1` are our choice. Cost `(V n)^2 d`, memory `O(V n x block)`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Hydes {
    /// The factor of both parts.
    pub weight: f64,
    /// The factor of the global entropy.
    pub alpha: f64,
    /// The factor of the local entropy.
    pub beta: f64,
    /// The concentration of the kernel.
    pub kappa: f64,
    /// Whether a row is left out of its own densities.
    pub leave_one_out: bool,
}

impl Default for Hydes {
    fn default() -> Self {
        Self { weight: 1.0, alpha: 1.0, beta: 1.0, kappa: 5.0, leave_one_out: true }
    }
}

impl Hydes {
    /// `[H_global, H_local]` of views `(n, d)` each, in nats: shape `(2)`, differentiable.
    ///
    /// # Errors
    /// Fewer than two views; views of unequal shape.
    pub fn entropies(&self, views: &[Tensor]) -> Result<Tensor> {
        let rows = views.first().map_or(0, |view| view.dims().first().copied().unwrap_or(0));
        self.over_ranks(views, &Ranks::of(&Context::standalone(), rows)?)
    }

    fn over_ranks(&self, views: &[Tensor], ranks: &Ranks<'_>) -> Result<Tensor> {
        positive("hydes", "kappa", self.kappa)?;
        crate::error::views("hydes", 2, views.len())?;
        let unit = views.iter().map(|v| normalize_rows(v, 1e-12)).collect::<Result<Vec<_>>>()?;
        let d = unit[0].dim(1)?;
        let own = usize::from(self.leave_one_out);
        let ln_c = special::vmf_ln_normalizer(d, self.kappa);
        let exclude = if self.leave_one_out { Exclude::Own } else { Exclude::Nothing };
        let sums = Rows::gather(ranks, &unit)?.log_sum_exp(ranks, Score::Dot(self.kappa), exclude)?;
        let global = sums.mean_all()?.affine(-1.0, ((views.len() * ranks.total - own) as f64).ln() - ln_c)?;
        let mut locals = Vec::new();
        for (i, a) in unit.iter().enumerate() {
            let mut scores = Vec::new();
            for (j, b) in unit.iter().enumerate() {
                if i != j || !self.leave_one_out {
                    scores.push(((a * b)?.sum(1)? * self.kappa)?);
                }
            }
            locals.push(log_sum_exp_first(&Tensor::stack(&scores, 0)?)?.mean_all()?);
        }
        let local = ranks
            .mean(&Tensor::stack(&locals, 0)?.mean_all()?)?
            .affine(-1.0, ((views.len() - own) as f64).ln() - ln_c)?;
        Ok(Tensor::stack(&[global, local], 0)?)
    }
}

impl Term for Hydes {
    fn name(&self) -> &str {
        "hydes"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Estimate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        let ranks = Ranks::of(ctx, z.projections.batch())?;
        let entropies = self.over_ranks(z.projections.as_slice(), &ranks)?;
        Ok(vec![
            Part {
                name: "local-entropy".into(),
                role: Role::Invariance,
                weight: self.weight * self.beta,
                value: entropies.get(1)?,
            },
            entropy_part("global-entropy", self.weight * self.alpha, entropies.get(0)?.neg()?),
        ])
    }
}

impl Entropy for Hydes {
    fn check(&self) -> Result<()> {
        none_negative("hydes", [("weight", self.weight), ("alpha", self.alpha), ("beta", self.beta)])?;
        positive("hydes", "kappa", self.kappa)
    }

    /// The global entropy of one view.
    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        Vmf { weight: 1.0, kappa: self.kappa, leave_one_out: self.leave_one_out }.estimate(z)
    }
}
