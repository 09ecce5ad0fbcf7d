//! Entropies of the single dimensions.

use crate::{Error, Result, entropy::per_view, moments, op, special};
use candle_core::{Device, Tensor};
use infomax_core::Bound;

/// What is applied to every element before the spacings are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Squash {
    /// Nothing: the differential entropy of the embeddings.
    None,
    /// The logistic function, `1 / (1 + e^{-z})`.
    #[default]
    Sigmoid,
    /// The distribution function of `N(0, 1)`.
    GaussCdf,
}

/// The mean over the dimensions of the m-spacing entropy (Vasicek 1976; E2MC, Chakraborty et al.),
/// `H_j = 1/(n - m) sum_i ln((n + 1)/m (x_(i+m) - x_(i)) + 1e-7)`, `m = round(sqrt n)` unless given.
///
/// Bounds the joint entropy from above (times `d`, for no transformation). Cost `n d ln n`; the gradient goes
/// through the order of the samples.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct MSpacing {
    /// The factor in the total.
    pub weight: f64,
    /// The number of steps in the order; 0 for `round(sqrt n)`.
    pub m: usize,
    /// What is applied to every element first.
    pub squash: Squash,
    /// The weight of the hyper-covariance, `1/d sum_{i != j} C_ij^2` of the transformed elements (0; E2MC 1).
    pub covariance: f64,
}

impl Default for MSpacing {
    fn default() -> Self {
        Self { weight: 1.0, m: 0, squash: Squash::Sigmoid, covariance: 0.0 }
    }
}

impl MSpacing {
    /// The mean marginal entropy of `z` `(n, d)` minus the weighted hyper-covariance: a scalar, differentiable.
    ///
    /// # Errors
    /// Fewer than two rows, or `m >= n`.
    pub fn entropy(&self, z: &Tensor) -> Result<Tensor> {
        let x = squash(&moments::matrix("m-spacing", z, 2)?, self.squash)?;
        let entropy = self.spacings(&x)?;
        if self.covariance == 0.0 {
            return Ok(entropy);
        }
        let parts = crate::entropy::variance_covariance(&x, 1.0, 1e-4, crate::MomentForm::Auto)?;
        Ok((entropy - (parts.get(1)? * self.covariance)?)?)
    }

    fn settings(&self) -> Result<()> {
        crate::settings::not_negative("m-spacing", "covariance", self.covariance)
    }

    fn spacings(&self, x: &Tensor) -> Result<Tensor> {
        let (n, d) = x.dims2()?;
        let m = if self.m == 0 { (n as f64).sqrt().round() as usize } else { self.m };
        if m == 0 || m >= n {
            return Err(Error::Config {
                term: "m-spacing",
                key: "m",
                value: m.to_string(),
                reason: "must be at least 1 and less than the number of samples",
            });
        }
        let values = op::host(x)?;
        let mut grad = vec![0f64; n * d];
        let (factor, count) = ((n as f64 + 1.0) / m as f64, (n - m) as f64 * d as f64);
        let mut sum = 0.0;
        for j in 0..d {
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|a, b| values[a * d + j].total_cmp(&values[b * d + j]));
            for i in 0..n - m {
                let (low, high) = (order[i] * d + j, order[i + m] * d + j);
                let inner = factor * (values[high] - values[low]) + 1e-7;
                sum += inner.ln();
                grad[high] += factor / (inner * count);
                grad[low] -= factor / (inner * count);
            }
        }
        let grad =
            Tensor::from_vec(grad, (n, d), &Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device())?;
        Ok(op::attach(x, op::scalar(sum / count, x)?, move |g| grad.broadcast_mul(g))?)
    }
}

per_view!(MSpacing, "m-spacing", |c: &MSpacing| match c.squash {
    Squash::None if c.covariance == 0.0 => Bound::Estimate,
    _ => Bound::Surrogate,
});

/// A function of an element, and its derivative from the element and its value.
type Function = fn(f64) -> f64;
type Slope = fn(f64, f64) -> f64;

fn squash(z: &Tensor, kind: Squash) -> Result<Tensor> {
    let (f, slope): (Function, Slope) = match kind {
        Squash::None => return Ok(z.clone()),
        Squash::Sigmoid => (|v| 1.0 / (1.0 + (-v).exp()), |_, y| y * (1.0 - y)),
        Squash::GaussCdf => (
            |v| 0.5 * (1.0 + special::erf(v * std::f64::consts::FRAC_1_SQRT_2)),
            |v, _| (-0.5 * v * v).exp() / (2.0 * std::f64::consts::PI).sqrt(),
        ),
    };
    let values = op::host(z)?;
    let ys: Vec<f64> = values.iter().map(|v| f(*v)).collect();
    let slopes: Vec<f64> = values.iter().zip(&ys).map(|(v, y)| slope(*v, *y)).collect();
    let tensor =
        |v: Vec<f64>| Tensor::from_vec(v, z.dims(), &Device::Cpu)?.to_dtype(z.dtype())?.to_device(z.device());
    let slopes = tensor(slopes)?;
    Ok(op::attach(z, tensor(ys)?, move |g| g * &slopes)?)
}
