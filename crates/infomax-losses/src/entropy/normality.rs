//! Sliced tests of normality as losses.

use crate::{
    Entropy, Estimate, Result,
    entropy::{
        entropy_part, gathers, mean_over_views,
        sliced::{directions, slices_key},
    },
    moments, op,
    settings::{count, not_negative},
    special,
};
use candle_core::{Device, Tensor};
use infomax_core::{Bound, Context, Embeddings, Key, Part, Role, Term};
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// The statistic of [`SlicedNormality`], of one slice `y` of `n` samples against `N(0, 1)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Statistic {
    /// Epps and Pulley 1983, in closed form (the limit of the grid of [`crate::entropy::SigReg`], all of R):
    /// `n [sqrt(2 pi) mean_ij e^{-(y_i - y_j)^2 / 2} - 2 sqrt(pi) mean_i e^{-y_i^2 / 4} + sqrt(2 pi / 3)]`.
    /// Bounded gradient; cost `n^2` a slice.
    EppsPulley,
    /// Cramer and von Mises: `1 / (12 n) + sum_i (Phi(y_(i)) - (2 i - 1) / (2 n))^2`. The gradient vanishes far
    /// from the origin. Cost `n ln n`.
    #[default]
    CramerVonMises,
    /// Anderson and Darling 1952: `-n - 1/n sum_i (2 i - 1) [ln Phi(y_(i)) + ln Phi(-y_(n + 1 - i))]`. Sees the
    /// tails, and pulls samples back from any distance. Cost `n ln n`.
    AndersonDarling,
    /// The first four moments, as Neyman's smooth test: `n sum_{k=1}^{4} (mean_i He_k(y_i))^2 / k!` with the
    /// Hermite polynomials `He_k`. A polynomial of degree 8: strong far from the origin, so that a batch must be
    /// roughly centered: far out, a collapsed one scores better than a spread one. Cost `n`.
    Moments,
}

/// How far random projections of the embeddings are from `N(0, 1)`: the mean of a [`Statistic`] over slices
/// `y = Z a`, `|a| = 1`, drawn from the step's key, equal on all ranks.
///
/// `N(0, I)` has the largest entropy among the distributions of its covariance; a statistic is a surrogate of
/// that entropy which also fixes mean and scale. [`SlicedNormality::floor`] is its expectation at `N(0, I)`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct SlicedNormality {
    /// The factor in the total.
    pub weight: f64,
    /// The statistic of a slice.
    pub statistic: Statistic,
    /// The number of directions (256).
    pub slices: usize,
    /// A seed of the directions, which are then the same at every step; unset, they follow from the step's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl Default for SlicedNormality {
    fn default() -> Self {
        Self { weight: 1.0, statistic: Statistic::CramerVonMises, slices: 256, seed: None }
    }
}

impl SlicedNormality {
    /// The mean statistic of the rows of `z` `(n, d)` on directions drawn from `key`: a scalar, differentiable.
    ///
    /// # Errors
    /// Anything but a matrix.
    pub fn value(&self, z: &Tensor, key: Key) -> Result<Tensor> {
        let z = moments::matrix("sliced-normality", z, 1)?;
        self.along(&z, &directions(&z, self.slices, key)?)
    }

    /// The mean statistic of the rows of `z` `(n, d)` along given directions, the columns of `(d, m)`: a scalar,
    /// differentiable in `z`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn along(&self, z: &Tensor, directions: &Tensor) -> Result<Tensor> {
        let z = moments::matrix("sliced-normality", z, 1)?;
        let directions = crate::entropy::sliced::fitting("sliced-normality", &z, directions)?;
        Ok(normality(&z.matmul(&directions)?, self.statistic)?.mean_all()?)
    }

    /// The expectation of the statistic for `N(0, I)`, for any number of samples: `sqrt(2 pi) (1 - 1/sqrt 3)`,
    /// 1/6, 1 and 4.
    pub fn floor(&self) -> f64 {
        match self.statistic {
            Statistic::EppsPulley => (2.0 * PI).sqrt() * (1.0 - 1.0 / 3f64.sqrt()),
            Statistic::CramerVonMises => 1.0 / 6.0,
            Statistic::AndersonDarling => 1.0,
            Statistic::Moments => 4.0,
        }
    }
}

impl Term for SlicedNormality {
    fn name(&self) -> &str {
        "sliced-normality"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Surrogate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        let key = slices_key("sliced-normality", self.seed, ctx.key);
        let value = mean_over_views(z, ctx, |view| self.value(view, key), |r, v| gathers(self, r, v))?;
        Ok(vec![entropy_part("normality", self.weight, value)])
    }
}

impl Entropy for SlicedNormality {
    fn check(&self) -> Result<()> {
        not_negative("sliced-normality", "weight", self.weight)?;
        count("sliced-normality", "slices", self.slices, 1)
    }

    /// Minus the statistic above its floor: 0 in expectation for `N(0, I)`.
    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        let value = op::number(&self.value(z, slices_key("sliced-normality", self.seed, Key::new(0)))?)?;
        Ok(Estimate { nats: self.floor() - value, bound: Bound::Surrogate })
    }
}

/// The statistics of the columns of `y` `(n, m)`: shape `(m)`, differentiable, computed in f64.
///
/// # Errors
/// Anything but a matrix.
pub fn normality(y: &Tensor, statistic: Statistic) -> Result<Tensor> {
    let y = moments::matrix("normality", y, 1)?;
    let (n, m) = y.dims2()?;
    let values = op::host(&y)?;
    let mut sums = Vec::with_capacity(m);
    let mut grad = vec![0f64; n * m];
    let mut column = vec![0f64; n];
    for j in 0..m {
        for (c, row) in column.iter_mut().zip(values.chunks_exact(m)) {
            *c = row[j];
        }
        let (value, slopes) = match statistic {
            Statistic::EppsPulley => epps_pulley(&column),
            Statistic::CramerVonMises => by_rank(&column, |n| 1.0 / (12.0 * n), cramer_von_mises),
            Statistic::AndersonDarling => by_rank(&column, |n| -n, anderson_darling),
            Statistic::Moments => hermite(&column),
        };
        sums.push(value);
        for (i, slope) in slopes.into_iter().enumerate() {
            grad[i * m + j] = slope;
        }
    }
    let home = |v: Vec<f64>, shape: &[usize]| {
        Tensor::from_vec(v, shape, &Device::Cpu)?.to_dtype(y.dtype())?.to_device(y.device())
    };
    let (value, grad) = (home(sums, &[m])?, home(grad, &[n, m])?);
    if infomax_kernels::has_cpu_kernels(&y) {
        return Ok(op::attach(&y, value, move |g| grad.broadcast_mul(&g.reshape((1, m))?))?);
    }
    // Elsewhere only scalars can be attached: value + sum((y - y') G) by columns has value and gradient.
    Ok((value + ((&y - y.detach())? * grad)?.sum(0)?)?)
}

fn epps_pulley(y: &[f64]) -> (f64, Vec<f64>) {
    let n = y.len() as f64;
    let mut grad = vec![0f64; y.len()];
    let (mut pairs, mut singles) = (n, 0.0);
    for i in 0..y.len() {
        for j in 0..i {
            let e = y[i] - y[j];
            let k = (-0.5 * e * e).exp();
            pairs += 2.0 * k;
            let slope = 2.0 * (2.0 * PI).sqrt() / n * e * k;
            grad[i] -= slope;
            grad[j] += slope;
        }
        let k = (-0.25 * y[i] * y[i]).exp();
        singles += k;
        grad[i] += PI.sqrt() * y[i] * k;
    }
    let value = (2.0 * PI).sqrt() * pairs / n - 2.0 * PI.sqrt() * singles + n * (2.0 * PI / 3.0).sqrt();
    (value, grad)
}

/// The constant of a statistic of the order, from `n`.
type Constant = fn(f64) -> f64;
/// Its summand and slope from the sample, its rank from 0, and `n`.
type Summand = fn(f64, usize, f64) -> (f64, f64);

fn by_rank(y: &[f64], constant: Constant, summand: Summand) -> (f64, Vec<f64>) {
    let mut order: Vec<usize> = (0..y.len()).collect();
    order.sort_by(|a, b| y[*a].total_cmp(&y[*b]));
    let n = y.len() as f64;
    let mut grad = vec![0f64; y.len()];
    let mut sum = constant(n);
    for (rank, i) in order.into_iter().enumerate() {
        let (value, slope) = summand(y[i], rank, n);
        sum += value;
        grad[i] = slope;
    }
    (sum, grad)
}

fn cramer_von_mises(y: f64, rank: usize, n: f64) -> (f64, f64) {
    let cdf = 0.5 * (1.0 + special::erf(y * FRAC_1_SQRT_2));
    let error = cdf - (2.0 * rank as f64 + 1.0) / (2.0 * n);
    (error * error, 2.0 * error * (-0.5 * y * y).exp() / (2.0 * PI).sqrt())
}

fn anderson_darling(y: f64, rank: usize, n: f64) -> (f64, f64) {
    // The i-th summand of the sum and the (n + 1 - i)-th share the sample.
    let (low, high) = (2.0 * rank as f64 + 1.0, 2.0 * (n - rank as f64) - 1.0);
    let (below, above) = (special::ln_normal_cdf(y), special::ln_normal_cdf(-y));
    let slope = high * special::normal_hazard(y) - low * special::normal_hazard(-y);
    (-(low * below + high * above) / n, slope / n)
}

fn hermite(y: &[f64]) -> (f64, Vec<f64>) {
    const FACTORIALS: [f64; 4] = [1.0, 2.0, 6.0, 24.0];
    let polynomials = |y: f64| [y, y * y - 1.0, y * (y * y - 3.0), (y * y - 6.0) * y * y + 3.0];
    let n = y.len() as f64;
    let mut means = [0f64; 4];
    for v in y {
        for (m, p) in means.iter_mut().zip(polynomials(*v)) {
            *m += p / n;
        }
    }
    let value = means.iter().zip(FACTORIALS).map(|(m, f)| n * m * m / f).sum();
    let slope = |y: &f64| {
        // He_k' = k He_{k-1}.
        let [h1, h2, h3, _] = polynomials(*y);
        let slopes = [1.0, 2.0 * h1, 3.0 * h2, 4.0 * h3];
        (0..4).map(|k| 2.0 * means[k] / FACTORIALS[k] * slopes[k]).sum()
    };
    (value, y.iter().map(slope).collect())
}
