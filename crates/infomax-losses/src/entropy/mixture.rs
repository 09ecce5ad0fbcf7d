//! Mixture entropies from pairwise distances and similarities.

use crate::pairwise::{Exclude, Score, row_log_sum_exp, squared_distances};
use crate::pairwise_ranks::Rows;
use crate::ranks::Ranks;
use crate::settings::{between, not_negative, positive};
use crate::{
    Entropy, Error, Estimate, Result,
    entropy::{entropy_part, per_view},
    invariance::normalize_rows,
    moments, op, special,
};
use candle_core::{Device, Tensor};
use infomax_core::{Bound, Context, Embeddings, Part, Role, Term};
use infomax_kernels::columns::column_moments;
use infomax_kernels::pairwise::nearest_squared_distances;
use std::f64::consts::{E, PI};

/// The distance between mixture components of [`PairDist`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Divergence {
    /// Kullback-Leibler: an upper bound.
    #[default]
    Kl,
    /// Bhattacharyya, which is Chernoff at 1/2: a lower bound.
    Bhattacharyya,
    /// Chernoff at `alpha`: a lower bound.
    Chernoff,
    /// Expected likelihood kernel, by Jensen's inequality: a lower bound.
    Elk,
}

/// Pairwise-distance bounds on the entropy of the mixture of Gaussians `N(z_i, s2 I)` (Kolchinsky and Tracey,
/// arXiv 1706.02419).
///
/// ```text
/// H = d/2 ln(2 pi e s2) - mean_i ln mean_j exp(-a |z_i - z_j|^2 / (2 s2))
/// ```
/// with `a = 1` for KL, `a = alpha (1 - alpha)` for Chernoff, 1/4 for Bhattacharyya; the expected-likelihood
/// form has `d/2 ln(4 pi s2)` and `a = 1/2`. All equal: `H` is that of one component; `k` far clusters: plus
/// `ln k`. The mixture's information about its component saturates at `ln n`.
///
/// # Numerics
/// Streaming log-sum-exp: memory `O(n x block)`. Equal rows are at distance 0 exactly. Gradients vanish when `s2` is
/// far below the squared distances of neighbors; `adaptive` ties `s2` to their median (without gradient).
///
/// Components of unequal weights: [`PairDist::entropy_weighted`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct PairDist {
    /// The factor in the total.
    pub weight: f64,
    /// The distance between components.
    pub divergence: Divergence,
    /// The order of the Chernoff divergence (1/2).
    pub alpha: f64,
    /// The variance of the components, `s2`; with `adaptive`, a factor of it.
    pub variance: f64,
    /// Whether `s2` is `variance` times the median squared nearest-neighbor distance. Where that is 0, since half
    /// of the rows or more are equal to another, it is 1e-12, or less for rows of a smaller scale.
    pub adaptive: bool,
    /// Whether rows are scaled to unit length first.
    pub normalize: bool,
}

impl Default for PairDist {
    fn default() -> Self {
        Self {
            weight: 1.0,
            divergence: Divergence::Kl,
            alpha: 0.5,
            variance: 1.0,
            adaptive: false,
            normalize: false,
        }
    }
}

impl PairDist {
    /// The entropy of the rows of `z` `(n, d)`: a scalar, differentiable.
    ///
    /// # Errors
    /// Anything but a matrix; a variance that is not above 0.
    pub fn entropy(&self, z: &Tensor) -> Result<Tensor> {
        let (z, score, constant) = self.prepared(z)?;
        let n = z.dim(0)? as f64;
        let sums = row_log_sum_exp(&z, Score::Distance(score), Exclude::Nothing)?;
        Ok(sums.mean_all()?.affine(-1.0, constant + n.ln())?)
    }

    /// The entropy of the mixture with the weights `c_i` of its components, which are scaled to sum to 1:
    /// `H = d/2 ln(2 pi e s2) - sum_i c_i ln sum_j c_j exp(-a |z_i - z_j|^2 / (2 s2))`, a scalar, differentiable in
    /// `z`. Equal weights are [`PairDist::entropy`]; here the whole `n x n` matrix is in memory.
    ///
    /// # Errors
    /// As [`PairDist::entropy`]; not one weight a row, a negative one, or none above 0.
    pub fn entropy_weighted(&self, z: &Tensor, weights: &[f64]) -> Result<Tensor> {
        let (z, score, constant) = self.prepared(z)?;
        let weights = mixture_weights("pairdist", weights, z.dim(0)?)?;
        let logs: Vec<f64> = weights.iter().map(|w| w.ln()).collect();
        let home = |v: Vec<f64>, shape: (usize, usize)| {
            Tensor::from_vec(v, shape, &Device::Cpu)?.to_dtype(z.dtype())?.to_device(z.device())
        };
        let n = weights.len();
        let scores = (squared_distances(&z)? * -score)?.broadcast_add(&home(logs, (1, n))?)?;
        let max = scores.max_keepdim(1)?.detach();
        let sums = (scores.broadcast_sub(&max)?.exp()?.sum_keepdim(1)?.log()? + max)?;
        Ok((sums * home(weights, (n, 1))?)?.sum_all()?.affine(-1.0, constant)?)
    }

    /// From the scores of the own rows against those of all ranks.
    fn shared(&self, ranks: &Ranks<'_>, z: &Tensor) -> Result<Option<Tensor>> {
        let z = self.rows(z)?;
        let rows = Rows::gather(ranks, std::slice::from_ref(&z))?;
        let (score, constant) = self.scores(&rows.all)?;
        let sums = rows.log_sum_exp(ranks, Score::Distance(score), Exclude::Nothing)?;
        Ok(Some(sums.mean_all()?.affine(-1.0, constant + (ranks.total as f64).ln())?))
    }

    fn rows(&self, z: &Tensor) -> Result<Tensor> {
        self.settings()?;
        let z = moments::matrix("pairdist", z, 1)?;
        if self.normalize { normalize_rows(&z, 1e-12) } else { Ok(z) }
    }

    /// The rows, the factor of their squared distances, and what is added to the entropy.
    fn prepared(&self, z: &Tensor) -> Result<(Tensor, f64, f64)> {
        let z = self.rows(z)?;
        let (score, constant) = self.scores(&z)?;
        Ok((z, score, constant))
    }

    /// The factor of the squared distances of rows, and what is added to the entropy.
    fn scores(&self, z: &Tensor) -> Result<(f64, f64)> {
        let s2 = self.component_variance(z)?;
        let dim = z.dim(1)? as f64;
        let single = 0.5 * dim * (2.0 * PI * E * s2).ln();
        let (factor, constant) = match self.divergence {
            Divergence::Kl => (1.0, single),
            Divergence::Bhattacharyya => (0.25, single),
            Divergence::Chernoff => (self.alpha * (1.0 - self.alpha), single),
            Divergence::Elk => (0.5, 0.5 * dim * (4.0 * PI * s2).ln()),
        };
        Ok((factor / (2.0 * s2), constant))
    }

    fn settings(&self) -> Result<()> {
        positive("pairdist", "variance", self.variance)?;
        between("pairdist", "alpha", self.alpha)
    }

    /// The entropy of one component, `H(Z | C)`; [`PairDist::entropy`] minus it bounds `I(Z; C)`.
    ///
    /// # Errors
    /// As [`PairDist::entropy`].
    pub fn conditional(&self, z: &Tensor) -> Result<f64> {
        let z = moments::matrix("pairdist", z, 1)?;
        Ok(0.5 * z.dim(1)? as f64 * (2.0 * PI * E * self.component_variance(&z)?).ln())
    }

    fn component_variance(&self, z: &Tensor) -> Result<f64> {
        if !self.adaptive || z.dim(0)? < 2 {
            return Ok(self.variance);
        }
        let n = z.dim(0)?;
        let mut nearest = nearest_squared_distances(z)?;
        nearest.sort_by(f64::total_cmp);
        let s2 = self.variance * nearest[n / 2];
        // What a factor of distances in f32 can hold.
        if s2 > 1e-30 {
            return Ok(s2);
        }
        // Mostly equal rows have no distances. The variance stays above 0, and far below that of the rows, so that
        // those which differ stay apart.
        let spread = column_moments(z)?.squares.iter().sum::<f64>() / n as f64;
        Ok(if spread > 0.0 { (1e-9 * spread).clamp(1e-30, 1e-12) } else { 1e-12 })
    }

    fn kind(&self) -> Bound {
        if self.divergence == Divergence::Kl { Bound::Upper } else { Bound::Lower }
    }
}

per_view!(PairDist, "pairdist", PairDist::kind, PairDist::shared);

/// The kernel density estimate with a Gaussian kernel: `H = -mean_i ln p(z_i)`,
/// `p(z_i) = mean_j N(z_i; z_j, s2 I)` with (resubstitution, biased low) or without (`leave_one_out`) `j = i`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Kde {
    /// The factor in the total.
    pub weight: f64,
    /// The variance of the kernel.
    pub variance: f64,
    /// Whether a sample is left out of its own density.
    pub leave_one_out: bool,
}

impl Default for Kde {
    fn default() -> Self {
        Self { weight: 1.0, variance: 0.1, leave_one_out: false }
    }
}

impl Kde {
    /// The entropy of the rows of `z` `(n, d)`: a scalar, differentiable.
    ///
    /// # Errors
    /// Anything but a matrix, of at least two rows when one is left out.
    pub fn entropy(&self, z: &Tensor) -> Result<Tensor> {
        self.settings()?;
        let z = moments::matrix("kde", z, 1 + usize::from(self.leave_one_out))?;
        let (n, d) = z.dims2()?;
        let (exclude, count) = self_inclusion(self.leave_one_out, n);
        let sums = row_log_sum_exp(&z, Score::Distance(0.5 / self.variance), exclude)?;
        self.of_sums(&sums, d, count)
    }

    fn of_sums(&self, sums: &Tensor, d: usize, count: f64) -> Result<Tensor> {
        let constant = 0.5 * d as f64 * (2.0 * PI * self.variance).ln() + count.ln();
        Ok(sums.mean_all()?.affine(-1.0, constant)?)
    }

    /// From the scores of the own rows against those of all ranks.
    fn shared(&self, ranks: &Ranks<'_>, z: &Tensor) -> Result<Option<Tensor>> {
        self.settings()?;
        if self.leave_one_out && ranks.total < 2 {
            return Ok(None);
        }
        let z = moments::matrix("kde", z, 1)?;
        let (exclude, count) = self_inclusion(self.leave_one_out, ranks.total);
        let rows = Rows::gather(ranks, std::slice::from_ref(&z))?;
        let sums = rows.log_sum_exp(ranks, Score::Distance(0.5 / self.variance), exclude)?;
        Ok(Some(self.of_sums(&sums, z.dim(1)?, count)?))
    }

    fn settings(&self) -> Result<()> {
        positive("kde", "variance", self.variance)
    }
}

per_view!(Kde, "kde", |_: &Kde| Bound::Estimate, Kde::shared);

/// Minus the uniformity loss, `-ln mean_{i<j} exp(-t |z_i - z_j|^2)` on unit rows (Wang and Isola,
/// arXiv 2005.10242): the quadratic Renyi entropy of a kernel density, up to constants.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Uniformity {
    /// The factor in the total.
    pub weight: f64,
    /// The inverse width of the kernel (2; lightly 1).
    pub t: f64,
    /// Whether rows are scaled to unit length first.
    pub normalize: bool,
}

impl Default for Uniformity {
    fn default() -> Self {
        Self { weight: 1.0, t: 2.0, normalize: true }
    }
}

impl Uniformity {
    /// The surrogate of the rows of `z` `(n, d)`: a scalar, differentiable.
    ///
    /// # Errors
    /// Fewer than two rows.
    pub fn entropy(&self, z: &Tensor) -> Result<Tensor> {
        let z = moments::matrix("uniformity", z, 2)?;
        let z = if self.normalize { normalize_rows(&z, 1e-12)? } else { z };
        Self::of_sums(&row_log_sum_exp(&z, Score::Distance(self.t), Exclude::Own)?)
    }

    fn of_sums(sums: &Tensor) -> Result<Tensor> {
        let n = sums.elem_count() as f64;
        let max = op::host(sums)?.into_iter().fold(f64::NEG_INFINITY, f64::max);
        let total = (sums - max)?.exp()?.sum_all()?.log()?;
        Ok(total.affine(-1.0, (n * (n - 1.0)).ln() - max)?)
    }

    /// From the scores of the own rows against those of all ranks.
    fn shared(&self, ranks: &Ranks<'_>, z: &Tensor) -> Result<Option<Tensor>> {
        if ranks.total < 2 {
            return Ok(None);
        }
        let z = moments::matrix("uniformity", z, 1)?;
        let z = if self.normalize { normalize_rows(&z, 1e-12)? } else { z };
        let rows = Rows::gather(ranks, std::slice::from_ref(&z))?;
        Ok(Some(Self::of_sums(&rows.log_sum_exp(ranks, Score::Distance(self.t), Exclude::Own)?)?))
    }

    fn settings(&self) -> Result<()> {
        positive("uniformity", "t", self.t)
    }
}

per_view!(Uniformity, "uniformity", |_: &Uniformity| Bound::Surrogate, Uniformity::shared);

/// The entropy of a kernel density with von Mises-Fisher kernels on the unit sphere,
/// `H = -ln C_d(kappa) - mean_i ln mean_j exp(kappa z_i . z_j)`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Vmf {
    /// The factor in the total.
    pub weight: f64,
    /// The concentration of the kernel.
    pub kappa: f64,
    /// Whether a sample is left out of its own density.
    pub leave_one_out: bool,
}

impl Default for Vmf {
    fn default() -> Self {
        Self { weight: 1.0, kappa: 5.0, leave_one_out: true }
    }
}

impl Vmf {
    /// The entropy of the rows of `z` `(n, d)`, scaled to unit length: a scalar, differentiable.
    ///
    /// # Errors
    /// Anything but a matrix, of at least two rows when one is left out.
    pub fn entropy(&self, z: &Tensor) -> Result<Tensor> {
        let z = moments::matrix("vmf", z, 1 + usize::from(self.leave_one_out))?;
        let (n, d) = z.dims2()?;
        let (exclude, count) = self_inclusion(self.leave_one_out, n);
        // `kappa z.z' = kappa - kappa |z - z'|^2 / 2`, and the first goes with the constant: nothing large cancels.
        let score = Score::Distance(0.5 * self.kappa);
        let sums = row_log_sum_exp(&normalize_rows(&z, 1e-12)?, score, exclude)?;
        Ok(sums.mean_all()?.affine(-1.0, count.ln() - special::vmf_ln_peak(d, self.kappa))?)
    }

    /// From the scores of the own rows against those of all ranks.
    fn shared(&self, ranks: &Ranks<'_>, z: &Tensor) -> Result<Option<Tensor>> {
        if self.leave_one_out && ranks.total < 2 {
            return Ok(None);
        }
        let z = normalize_rows(&moments::matrix("vmf", z, 1)?, 1e-12)?;
        let (exclude, count) = self_inclusion(self.leave_one_out, ranks.total);
        let rows = Rows::gather(ranks, std::slice::from_ref(&z))?;
        let sums = rows.log_sum_exp(ranks, Score::Distance(0.5 * self.kappa), exclude)?;
        let constant = count.ln() - special::vmf_ln_peak(z.dim(1)?, self.kappa);
        Ok(Some(sums.mean_all()?.affine(-1.0, constant)?))
    }

    fn settings(&self) -> Result<()> {
        not_negative("vmf", "kappa", self.kappa)
    }
}

per_view!(Vmf, "vmf", |_: &Vmf| Bound::Estimate, Vmf::shared);

/// The log-sum-exp of contrastive losses over all views together: `mean_i ln sum_{j != i} exp(z_i . z_j / t)`
/// on unit rows. With the cosine invariance of weight `1/t` it is NT-Xent (SimCLR, arXiv 2002.05709);
/// with `decoupled`, the positives are left out of the sum (DCL, arXiv 2110.06848).
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Contrastive {
    /// The factor in the total.
    pub weight: f64,
    /// The temperature `t` (0.5; solo-learn 0.2).
    pub temperature: f64,
    /// Whether the other views of a sample are left out.
    pub decoupled: bool,
}

impl Default for Contrastive {
    fn default() -> Self {
        Self { weight: 1.0, temperature: 0.5, decoupled: false }
    }
}

impl Term for Contrastive {
    fn name(&self) -> &str {
        "contrastive"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Surrogate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        let ranks = Ranks::of(ctx, z.projections.batch())?;
        let views = z.projections.iter().map(|v| normalize_rows(v, 1e-12)).collect::<Result<Vec<_>>>()?;
        let rows = Rows::gather(&ranks, &views)?;
        if rows.all.dim(0)? < 2 || (self.decoupled && ranks.total < 2) {
            return Err(Error::Shape {
                term: "contrastive",
                expected: "negatives: at least two samples",
                got: rows.all.dims().to_vec(),
            }
            .into());
        }
        let exclude = if self.decoupled { Exclude::Sample(ranks.total) } else { Exclude::Own };
        let sums = rows.log_sum_exp(&ranks, Score::Dot(1.0 / self.temperature), exclude)?;
        Ok(vec![entropy_part("contrastive", self.weight, sums.mean_all()?)])
    }
}

impl Entropy for Contrastive {
    fn check(&self) -> Result<()> {
        not_negative("contrastive", "weight", self.weight)?;
        positive("contrastive", "temperature", self.temperature)
    }

    /// The leave-one-out entropy with the von Mises-Fisher kernel of concentration `1/t`.
    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        Vmf { weight: 1.0, kappa: 1.0 / self.temperature, leave_one_out: true }.estimate(z)
    }
}

fn self_inclusion(leave_one_out: bool, n: usize) -> (Exclude, f64) {
    if leave_one_out { (Exclude::Own, n as f64 - 1.0) } else { (Exclude::Nothing, n as f64) }
}

/// Weights of the components of a mixture, scaled to sum to 1.
pub(crate) fn mixture_weights(term: &'static str, weights: &[f64], components: usize) -> Result<Vec<f64>> {
    if weights.len() != components {
        let expected = "one weight of the mixture a row";
        return Err(Error::Shape { term, expected, got: vec![weights.len(), components] });
    }
    weights.iter().try_for_each(|w| not_negative(term, "weights", *w))?;
    let sum: f64 = weights.iter().sum();
    positive(term, "weights", sum)?;
    Ok(weights.iter().map(|w| w / sum).collect())
}
