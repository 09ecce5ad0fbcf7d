//! Distribution matching to rectified priors: Rectified LpJEPA.

use super::sliced::{against, directions, project, slices_key};
use crate::settings::{count, finite, none_negative};
use crate::{Entropy, Estimate, Result, entropy::entropy_part, moments, op};
use candle_core::{DType, Device, Tensor};
use infomax_core::{Bound, Context, Embeddings, Key, Part, Role, Term};

/// The distribution of an element of the target before it is rectified, of unit variance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Prior {
    /// Laplace (`p = 1`): the largest entropy at a given mean absolute value.
    #[default]
    Laplace,
    /// Normal (`p = 2`): the largest entropy at a given variance.
    Normal,
}

/// RDMReg of Rectified LpJEPA (Kuang et al., arXiv 2602.01456): the sliced 2-Wasserstein distance of the rectified rows `max(z, 0)` from as many
/// draws of `max(mu + e, 0)`, `e` of the prior in each element,
///
/// ```text
/// 1/(M n) sum_m sum_i (sorted_i <a_m, z+> - sorted_i <a_m, t>)^2,    |a_m| = 1
/// ```
///
/// Directions and draws come from the step's key, and are equal on all ranks. Rectified embeddings are sparse: `mu` sets
/// the share of zeros, a half at 0. The authors' projector ends with a ReLU; here this term rectifies the
/// projections itself, as `rectify` of the `mse` does, which is the same.
///
/// The distance does not go to 0: two samples of one distribution differ. Other `p` than 1 and 2 are not offered.
///
/// # Gradient
/// Through the order of the rows; 0 where `z <= 0`, so that an element that is negative in all rows stays so.
///
/// Cost `2 n d M + M n ln n`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Rectified {
    /// The factor in the total (250).
    pub weight: f64,
    /// The distribution of an element of the target before it is rectified.
    pub prior: Prior,
    /// Its mean (0); lower for sparser embeddings.
    pub mu: f64,
    /// The number of directions (512; the authors' 8192 change little, they say).
    pub slices: usize,
    /// A seed of directions and draws, which are then the same at every step; unset, they follow from the step's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl Default for Rectified {
    fn default() -> Self {
        Self { weight: 250.0, prior: Prior::Laplace, mu: 0.0, slices: 512, seed: None }
    }
}

impl Rectified {
    /// The distance of the rows of `z` `(n, d)` from draws of the target by `key`: a scalar, differentiable.
    ///
    /// # Errors
    /// Anything but a matrix.
    pub fn statistic(&self, z: &Tensor, key: Key) -> Result<Tensor> {
        let z = moments::matrix("rectified", z, 1)?;
        let a = directions(&z, self.slices, key)?;
        let target = self.target(z.dims2()?, key)?.to_dtype(z.dtype())?.to_device(z.device())?;
        let (n, m) = (z.dim(0)?, self.slices);
        let mut goal = op::host(&project(&target, &a)?)?;
        let mut column = vec![0f64; n];
        for j in 0..m {
            (0..n).for_each(|i| column[i] = goal[i * m + j]);
            column.sort_by(f64::total_cmp);
            (0..n).for_each(|i| goal[i * m + j] = column[i]);
        }
        against(&project(&op::hinge(&z)?, &a)?, |rank, slice| goal[rank * m + slice])
    }

    /// Draws of the target `(n, d)` in f64.
    fn target(&self, (n, d): (usize, usize), key: Key) -> Result<Tensor> {
        let key = key.fold_named("target");
        let draws = match self.prior {
            Prior::Normal => key.normal(self.mu, 1.0, (n, d), DType::F64, &Device::Cpu)?,
            Prior::Laplace => {
                let uniform = op::host(&key.uniform(-0.5, 0.5, (n, d), DType::F64, &Device::Cpu)?)?;
                let scale = std::f64::consts::FRAC_1_SQRT_2;
                // 1 - 2 |u| is above 0 but for u = -1/2, where the quantile is infinite.
                let draw =
                    |u: f64| self.mu - scale * u.signum() * (1.0 - 2.0 * u.abs()).max(f64::MIN_POSITIVE).ln();
                Tensor::from_vec(uniform.into_iter().map(draw).collect(), (n, d), &Device::Cpu)?
            }
        };
        Ok(draws.relu()?)
    }
}

impl Term for Rectified {
    fn name(&self) -> &str {
        "rectified"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Surrogate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        let key = slices_key("rectified", self.seed, ctx.key);
        let mut values = Vec::new();
        for (at, view) in z.projections.iter().enumerate() {
            // Each view has directions and draws of its own, as the authors' has.
            values.push(self.statistic(&ctx.collective.all_gather_same(view)?, key.fold_in(at as u64))?);
        }
        Ok(vec![entropy_part("rectified", self.weight, Tensor::stack(&values, 0)?.mean(0)?)])
    }
}

impl Entropy for Rectified {
    fn check(&self) -> Result<()> {
        none_negative("rectified", [("weight", self.weight)])?;
        finite("rectified", "mu", self.mu)?;
        count("rectified", "slices", self.slices, 1)
    }

    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        let value = op::number(&self.statistic(z, slices_key("rectified", self.seed, Key::new(0)))?)?;
        Ok(Estimate { nats: -value, bound: Bound::Surrogate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(t: &Tensor) -> f64 {
        t.to_scalar::<f64>().unwrap()
    }

    #[test]
    fn the_distance_is_that_of_the_formula_typed_again() {
        let term = Rectified { slices: 5, mu: 0.2, ..Default::default() };
        let key = Key::new(3);
        let z = Key::new(1).normal(0.1, 1.0, (9, 4), DType::F64, &Device::Cpu).unwrap();
        let a = directions(&z, 5, key).unwrap().t().unwrap().to_vec2::<f64>().unwrap();
        let target = term.target((9, 4), key).unwrap().to_vec2::<f64>().unwrap();
        let rows = z.to_vec2::<f64>().unwrap();
        let along = |rows: &[Vec<f64>], a: &[f64]| {
            let dot = |r: &Vec<f64>| r.iter().zip(a).map(|(r, a)| r.max(0.0) * a).sum::<f64>();
            let mut all: Vec<f64> = rows.iter().map(dot).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let distance = |a: &Vec<f64>| -> f64 {
            along(&rows, a).iter().zip(along(&target, a)).map(|(p, q)| (p - q).powi(2)).sum()
        };
        let expected = a.iter().map(distance).sum::<f64>() / 45.0;
        assert!((number(&term.statistic(&z, key).unwrap()) - expected).abs() < 1e-12);
    }

    #[test]
    fn targets_have_the_moments_of_their_prior_before_they_are_rectified() {
        for prior in [Prior::Laplace, Prior::Normal] {
            // Far from 0 nothing is cut.
            let term = Rectified { prior, mu: 100.0, ..Default::default() };
            let draws = op::host(&term.target((200, 200), Key::new(5)).unwrap()).unwrap();
            let n = draws.len() as f64;
            let mean = draws.iter().sum::<f64>() / n;
            let moment = |k: i32| draws.iter().map(|v| (v - mean).powi(k)).sum::<f64>() / n;
            assert!((mean - 100.0).abs() < 0.03 && (moment(2) - 1.0).abs() < 0.04, "{prior:?}");
            let kurtosis = moment(4) / moment(2).powi(2);
            let wanted = if prior == Prior::Laplace { 6.0 } else { 3.0 };
            assert!((kurtosis - wanted).abs() < 0.1 * wanted, "{prior:?}: {kurtosis}");
            let term = Rectified { prior, ..Default::default() };
            let draws = op::host(&term.target((200, 200), Key::new(6)).unwrap()).unwrap();
            let zeros = draws.iter().filter(|v| **v == 0.0).count() as f64 / n;
            assert!((zeros - 0.5).abs() < 0.02, "{zeros}");
        }
    }

    #[test]
    fn draws_of_the_target_are_nearer_than_others_of_its_mean_and_variance() {
        let term = Rectified { slices: 64, ..Default::default() };
        let own = term.target((1_000, 6), Key::new(8)).unwrap();
        let distance = |z: &Tensor| number(&term.statistic(z, Key::new(9)).unwrap());
        let near = distance(&own);
        // Dense rows of the same mean and variance, no spread, one column for all.
        let (mean, variance) =
            (own.mean_all().unwrap(), own.broadcast_sub(&own.mean_all().unwrap()).unwrap());
        let deviation = number(&variance.sqr().unwrap().mean_all().unwrap()).sqrt();
        let low = number(&mean) - 3f64.sqrt() * deviation;
        let high = number(&mean) + 3f64.sqrt() * deviation;
        let dense = Key::new(10).uniform(low, high, (1_000, 6), DType::F64, &Device::Cpu).unwrap();
        let still = (own.zeros_like().unwrap() + number(&mean)).unwrap();
        let line = own.narrow(1, 0, 1).unwrap().repeat((1, 6)).unwrap();
        for other in [dense, still, line] {
            assert!(distance(&other) > 2.0 * near, "{} {near}", distance(&other));
        }
    }
}
