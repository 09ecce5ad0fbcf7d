//! VICRegL: VICReg of the pooled embeddings and of matched local ones.

use crate::{
    Entropy, Error, Estimate, MomentForm, Result,
    entropy::{Vicreg, entropy_part, variance_covariance, variance_covariance_over},
    invariance::mse,
    op,
    ranks::Ranks,
    settings::{count, none_negative, share},
};
use candle_core::Tensor;
use infomax_core::{Bound, Context, Embeddings, LocalMap, Part, Role, Term};
use rayon::prelude::*;

/// The regularization of VICRegL (Bardes, Ponce, LeCun; arXiv 2210.01571): `alpha` times the variance and
/// covariance of the embeddings, and `1 - alpha` times VICReg of local embeddings.
///
/// Local embeddings come with the projections ([`infomax_core::Views::with_local`]): maps `(B, P, D)`, and the
/// places of the `P` patches in the original image. For each of the first two (global) views `a` and each other
/// view `b`, the patches of `a` are matched with their nearest patches of `b`, by embedding and by place; of all
/// matches of a sample the closest `matches_first` are kept, and `matches_second` of the matches from `b` to `a`.
/// The `m`-th closest matches of all samples are one pair of batches `(B, D)` for VICReg.
///
/// The matches have no gradient. Without places there is no matching by place. The part `local-invariance` is the
/// local invariance; that of the pooled embeddings is the invariance term of the objective.
///
/// Cost of a pair of views: `B P^2 D` for the matches, `M B D min(B, D)` for `M` matches.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Vicregl {
    /// The share of the pooled embeddings (0.75).
    pub alpha: f64,
    /// Weight of the local invariance, before its share (25).
    pub invariance: f64,
    /// Weight of the variance parts, before their share (25).
    pub variance: f64,
    /// Weight of the covariance parts, means over the views, before their share (1).
    pub covariance: f64,
    /// The standard deviation above which the hinge is silent (1).
    pub gamma: f64,
    /// Added to the variance under the root (1e-4).
    pub eps: f64,
    /// The number of matches from a global view (20).
    pub matches_first: usize,
    /// The number of matches to a global view (4).
    pub matches_second: usize,
}

impl Default for Vicregl {
    fn default() -> Self {
        Self {
            alpha: 0.75,
            invariance: 25.0,
            variance: 25.0,
            covariance: 1.0,
            gamma: 1.0,
            eps: 1e-4,
            matches_first: 20,
            matches_second: 4,
        }
    }
}

impl Vicregl {
    fn regularization(&self, ranks: &Ranks<'_>, z: &Tensor) -> Result<Tensor> {
        variance_covariance_over(ranks, z, self.gamma, self.eps, MomentForm::Auto)
    }

    /// `[invariance, variance, covariance]` of the local embeddings: shape `(3)`, differentiable.
    ///
    /// # Errors
    /// Fewer than two maps; maps of unequal batch or dimension.
    pub fn local(&self, maps: &[LocalMap]) -> Result<Tensor> {
        let batch = maps.first().map_or(0, |map| map.values().dims()[0]);
        self.local_over(maps, &Ranks::of(&Context::standalone(), batch)?)
    }

    /// [`Vicregl::local`] of the samples of all ranks: the patches of a sample are matched on its rank.
    fn local_over(&self, maps: &[LocalMap], ranks: &Ranks<'_>) -> Result<Tensor> {
        if maps.len() < 2 {
            return Err(Error::Shape {
                term: "vicregl",
                expected: "local embeddings of at least two views",
                got: vec![maps.len()],
            });
        }
        let mut values = Vec::new();
        for (i, a) in maps.iter().enumerate().take(2) {
            for (j, b) in maps.iter().enumerate() {
                if i != j {
                    let by_value = self.matched(ranks, a, b, (a.values(), b.values()))?;
                    values.push(match (a.places(), b.places()) {
                        (Some(p), Some(q)) => (by_value + self.matched(ranks, a, b, (p, q))?)?,
                        _ => by_value,
                    });
                }
            }
        }
        Ok(Tensor::stack(&values, 0)?.mean(0)?)
    }

    /// Both directions, matched by the distances of what `by` holds.
    fn matched(
        &self,
        ranks: &Ranks<'_>,
        a: &LocalMap,
        b: &LocalMap,
        by: (&Tensor, &Tensor),
    ) -> Result<Tensor> {
        let there = nearest(by.0, by.1, self.matches_first)?;
        let back = nearest(by.1, by.0, self.matches_second)?;
        let first =
            self.vicreg(ranks, &pick(a.values(), &there, 0)?, &pick(b.values(), &there, 1)?, &there)?;
        let second = self.vicreg(ranks, &pick(b.values(), &back, 0)?, &pick(a.values(), &back, 1)?, &back)?;
        Ok(((first + second)? * 0.5)?)
    }

    fn vicreg(&self, ranks: &Ranks<'_>, x: &Tensor, y: &Tensor, matches: &Matches) -> Result<Tensor> {
        let (count, batch) = (matches.count, matches.batch);
        let mut parts = Vec::new();
        for side in [x, y] {
            let d = side.dim(1)?;
            let first = side.narrow(0, 0, batch)?;
            if ranks.alone() || ranks.sums_pay(d * d, &first) {
                for m in 0..count {
                    parts.push(self.regularization(ranks, &side.narrow(0, m * batch, batch)?)?);
                }
                continue;
            }
            // One message for all matches: samples first, so that the ranks' parts are below each other.
            let all = ranks.gather(&side.reshape((count, batch, d))?.transpose(0, 1)?.contiguous()?)?;
            for m in 0..count {
                let rows = all.narrow(1, m, 1)?.squeeze(1)?.contiguous()?;
                parts.push(variance_covariance(&rows, self.gamma, self.eps, MomentForm::Auto)?);
            }
        }
        let parts = Tensor::stack(&parts, 0)?.mean(0)?;
        Ok(Tensor::cat(&[ranks.mean(&mse(x, y)?)?.unsqueeze(0)?, parts], 0)?)
    }
}

impl Term for Vicregl {
    fn name(&self) -> &str {
        "vicregl"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Surrogate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        let ranks = Ranks::of(ctx, z.projections.batch())?;
        let mut global = Vec::new();
        for view in z.projections.iter() {
            global.push(self.regularization(&ranks, view)?);
        }
        let global = Tensor::stack(&global, 0)?.mean(0)?;
        let share = 1.0 - self.alpha;
        let mut parts = vec![
            entropy_part("variance", self.alpha * self.variance, global.get(0)?),
            entropy_part("covariance", self.alpha * self.covariance, global.get(1)?),
        ];
        if share > 0.0 {
            let maps = z.projections.local().ok_or(Error::Missing {
                term: "vicregl",
                field: "projections.local",
                hint: "maps of local embeddings are needed (`Views::with_local`; in a run model.local_projector = \
                       [512, 512, 512]), or set objective.entropy.alpha = 1, the share of the pooled ones",
            })?;
            let local = self.local_over(maps, &ranks)?;
            parts.push(Part {
                name: "local-invariance".into(),
                role: Role::Invariance,
                weight: share * self.invariance,
                value: local.get(0)?,
            });
            parts.push(entropy_part("local-variance", share * self.variance, local.get(1)?));
            parts.push(entropy_part("local-covariance", share * self.covariance, local.get(2)?));
        }
        Ok(parts)
    }
}

impl Entropy for Vicregl {
    fn check(&self) -> Result<()> {
        let Self { invariance, variance, covariance, gamma, eps, .. } = *self;
        let weights = [("invariance", invariance), ("variance", variance), ("covariance", covariance)];
        none_negative("vicregl", weights)?;
        none_negative("vicregl", [("gamma", gamma), ("eps", eps)])?;
        share("vicregl", "alpha", self.alpha)?;
        count("vicregl", "matches_first", self.matches_first, 1)?;
        count("vicregl", "matches_second", self.matches_second, 1)
    }

    /// As [`Vicreg`]'s, of the pooled embeddings.
    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        let vicreg = Vicreg {
            variance: self.variance,
            covariance: self.covariance,
            gamma: self.gamma,
            eps: self.eps,
            ..Default::default()
        };
        vicreg.estimate(z)
    }
}

/// For every sample the `count` closest matches: rows of the first and of the second map (`B P` of them), match
/// by match.
struct Matches {
    rows: [Vec<u32>; 2],
    count: usize,
    batch: usize,
}

fn nearest(a: &Tensor, b: &Tensor, count: usize) -> Result<Matches> {
    let ((batch, p, d), (other, q, e)) = (a.dims3()?, b.dims3()?);
    if batch != other || d != e {
        return Err(Error::Shape {
            term: "vicregl",
            expected: "local maps of one batch and one dimension",
            got: b.dims().to_vec(),
        });
    }
    let (x, y) = (op::host(&a.detach())?, op::host(&b.detach())?);
    let count = count.min(p);
    // Samples do not depend on each other: any number of threads gives the same matches.
    let closest: Vec<Vec<(f64, usize, usize)>> = (0..batch)
        .into_par_iter()
        .map(|i| {
            let (own, others) = (&x[i * p * d..(i + 1) * p * d], &y[i * q * d..(i + 1) * q * d]);
            let mut best: Vec<_> =
                own.chunks_exact(d).enumerate().map(|(s, row)| closest(s, row, others)).collect();
            best.sort_by(|u, v| u.0.total_cmp(&v.0));
            best.truncate(count);
            best
        })
        .collect();
    let mut rows = [vec![0u32; count * batch], vec![0u32; count * batch]];
    for (i, best) in closest.into_iter().enumerate() {
        for (m, (_, s, t)) in best.into_iter().enumerate() {
            rows[0][m * batch + i] = (i * p + s) as u32;
            rows[1][m * batch + i] = (i * q + t) as u32;
        }
    }
    Ok(Matches { rows, count, batch })
}

/// The squared distance of a row to the nearest of the others, its own place, and that of the nearest: the first of
/// several.
fn closest(place: usize, row: &[f64], others: &[f64]) -> (f64, usize, usize) {
    let mut best = (f64::INFINITY, place, 0);
    for (t, other) in others.chunks_exact(row.len()).enumerate() {
        // Four sums at a time: one alone would wait for each addition.
        let mut sums = [0.0; 4];
        let (whole, rest) = (row.chunks_exact(4), row.len() / 4 * 4);
        for (u, v) in whole.zip(other.chunks_exact(4)) {
            for lane in 0..4 {
                let difference = u[lane] - v[lane];
                sums[lane] += difference * difference;
            }
        }
        let tail: f64 = row[rest..].iter().zip(&other[rest..]).map(|(u, v)| (u - v) * (u - v)).sum();
        let distance = (sums[0] + sums[1]) + (sums[2] + sums[3]) + tail;
        if distance < best.0 {
            best = (distance, place, t);
        }
    }
    best
}

fn pick(map: &Tensor, matches: &Matches, side: usize) -> Result<Tensor> {
    let (batch, p, d) = map.dims3()?;
    let rows = &matches.rows[side];
    let rows = Tensor::from_slice(rows, rows.len(), map.device())?;
    Ok(map.reshape((batch * p, d))?.index_select(&rows, 0)?)
}
