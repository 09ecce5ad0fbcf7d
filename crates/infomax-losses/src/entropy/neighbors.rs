//! Nearest-neighbor entropies.

use crate::{Error, Result, entropy::per_view, invariance::normalize_rows, moments, op, special};
use candle_core::{DType, Device, Tensor};
use infomax_core::Bound;
use infomax_kernels::pairwise::{kth_in_maximum_norm, kth_neighbors};
use std::f64::consts::PI;

/// The `k`-th nearest other row of each row with its squared distance; `None` where rows are not finite. With a `floor` they
/// are searched in f32 first, which stands unless a squared distance is below it or outside of the range of f32.
fn nearest(z: &Tensor, k: usize, floor: Option<f64>) -> Result<Option<Vec<(usize, f64)>>> {
    if let Some(floor) = floor {
        // Squares of smaller and of larger numbers vanish and overflow.
        let range = floor.max(1e-30)..1e30;
        let found = search(&z.to_dtype(DType::F32)?, k)?;
        if let Some(found) = found.filter(|found| found.iter().all(|(_, r2)| range.contains(r2))) {
            return Ok(Some(found));
        }
    }
    search(&z.to_device(&Device::Cpu)?.to_dtype(DType::F64)?, k)
}

fn search(z: &Tensor, k: usize) -> Result<Option<Vec<(usize, f64)>>> {
    match kth_neighbors(z, k) {
        Ok(found) => Ok(Some(found)),
        Err(infomax_kernels::Error::NonFinite { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What an estimate of rows is that are not finite: it is for the trainer to say.
fn undefined(z: &Tensor) -> Result<Tensor> {
    Ok(z.sum_all()?.affine(0.0, f64::NAN)?)
}

/// The norm of [`KozachenkoLeonenko`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// The 2-norm.
    #[default]
    Euclidean,
    /// The maximum norm.
    Chebyshev,
}

/// `H = psi(n) - psi(k) + ln V_d + d/n sum_i ln r_k(i)` with the distance `r_k` to the `k`-th neighbor and
/// the volume `V_d` of the unit ball (Kozachenko and Leonenko 1987; Kraskov et al. 2004).
///
/// Consistent; piecewise smooth, with the gradient through the selected neighbor. Cost `n^2 d`, memory `O(n)`. Neighbors
/// are searched in the type of the rows (f32 beyond its range in f64), their distances are taken in f64.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct KozachenkoLeonenko {
    /// The factor in the total.
    pub weight: f64,
    /// The number of the neighbor (3).
    pub k: usize,
    /// The norm.
    pub metric: Metric,
}

impl Default for KozachenkoLeonenko {
    fn default() -> Self {
        Self { weight: 1.0, k: 3, metric: Metric::Euclidean }
    }
}

impl KozachenkoLeonenko {
    /// The entropy of the rows of `z` `(n, d)`: a scalar, differentiable.
    ///
    /// # Errors
    /// `k` outside of `1..n`; two equal rows among the `k` neighbors (the entropy is minus infinity: add a
    /// seeded jitter far below the resolution of the data).
    pub fn entropy(&self, z: &Tensor) -> Result<Tensor> {
        let z = moments::matrix("kozachenko-leonenko", z, 2)?;
        let (n, d) = z.dims2()?;
        if self.k == 0 || self.k >= n {
            return Err(Error::Config {
                term: "kozachenko-leonenko",
                key: "k",
                value: self.k.to_string(),
                reason: "must be at least 1 and less than the number of samples",
            });
        }
        let found = match self.metric {
            Metric::Euclidean => nearest(&z, self.k, (z.dtype() != DType::F64).then_some(0.0))?,
            Metric::Chebyshev => Some(kth_in_maximum_norm(&z, self.k)?),
        };
        let Some(found) = found else { return undefined(&z) };
        let x = op::host(&z)?;
        let mut grad = vec![0f64; n * d];
        let mut logs = 0.0;
        for (i, (j, r)) in found.into_iter().enumerate() {
            if r == 0.0 {
                return Err(Error::Config {
                    term: "kozachenko-leonenko",
                    key: "k",
                    value: self.k.to_string(),
                    reason: "rows are equal to their neighbors, so the estimate is minus infinity",
                });
            }
            match self.metric {
                Metric::Euclidean => {
                    logs += 0.5 * r.ln();
                    for c in 0..d {
                        let g = (x[i * d + c] - x[j * d + c]) / r;
                        grad[i * d + c] += g;
                        grad[j * d + c] -= g;
                    }
                }
                Metric::Chebyshev => {
                    logs += r.ln();
                    let c = (0..d)
                        .max_by(|a, b| {
                            let e = |c: usize| (x[i * d + c] - x[j * d + c]).abs();
                            e(*a).total_cmp(&e(*b))
                        })
                        .unwrap_or(0);
                    let g = 1.0 / (x[i * d + c] - x[j * d + c]);
                    grad[i * d + c] += g;
                    grad[j * d + c] -= g;
                }
            }
        }
        let dim = d as f64;
        let volume = match self.metric {
            Metric::Euclidean => 0.5 * dim * PI.ln() - special::ln_gamma(0.5 * dim + 1.0),
            Metric::Chebyshev => dim * 2f64.ln(),
        };
        let scale = dim / n as f64;
        let value = special::digamma(n as f64) - special::digamma(self.k as f64) + volume + scale * logs;
        let grad = (Tensor::from_vec(grad, (n, d), &Device::Cpu)? * scale)?
            .to_dtype(z.dtype())?
            .to_device(z.device())?;
        Ok(op::attach(&z, op::scalar(value, &z)?, move |g| grad.broadcast_mul(g))?)
    }

    fn settings(&self) -> Result<()> {
        crate::settings::count("kozachenko-leonenko", "k", self.k, 1)
    }
}

per_view!(KozachenkoLeonenko, "kozachenko-leonenko", |_: &KozachenkoLeonenko| Bound::Estimate);

/// `mean_i ln(|x_i - x_nn(i)| + eps)` on unit rows (Sablayrolles et al., arXiv 1806.03198): the estimator of
/// Kozachenko and Leonenko for `k = 1` up to constants. The gradient goes through both rows of a pair.
///
/// Whatever the type of the rows, they are scaled and their distances taken in f64: far from the origin, unit rows differ
/// in digits that f32 does not have, and in one dimension they are equal up to rounding. Neighbors of f32 rows are searched
/// in f32 where all of them are farther than some hundredths, in f64 otherwise. Cost `n^2 d`, memory `O(n)`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct KoLeo {
    /// The factor in the total.
    pub weight: f64,
    /// Added to every difference of coordinates and to the distance (1e-8).
    pub eps: f64,
}

impl Default for KoLeo {
    fn default() -> Self {
        Self { weight: 1.0, eps: 1e-8 }
    }
}

impl KoLeo {
    /// The surrogate of the rows of `z` `(n, d)`: a scalar, differentiable.
    ///
    /// # Errors
    /// Fewer than two rows.
    pub fn entropy(&self, z: &Tensor) -> Result<Tensor> {
        self.settings()?;
        let narrow = moments::matrix("koleo", z, 2)?;
        // Metal has no f64.
        let wide = if narrow.device().is_metal() { narrow.clone() } else { narrow.to_dtype(DType::F64)? };
        let x = normalize_rows(&wide, self.eps)?;
        let (n, d) = x.dims2()?;
        // In f32 the nearest of rows that are some hundredths apart are found; nearer ones need what f32 rounds away.
        let floor = (narrow.dtype() != DType::F64).then_some(1e-3);
        let Some(found) = nearest(&x.detach(), 1, floor)? else { return undefined(&narrow) };
        let rows = op::host(&x)?;
        let mut grad = vec![0f64; n * d];
        let mut logs = 0.0;
        for (i, (j, _)) in found.into_iter().enumerate() {
            let of = |c: usize| rows[i * d + c] - rows[j * d + c] + self.eps;
            let r = (0..d).map(|c| of(c) * of(c)).sum::<f64>().sqrt();
            logs += (r + self.eps).ln();
            // At a distance of 0 there is no slope.
            let scale = if r > 0.0 { 1.0 / (n as f64 * r * (r + self.eps)) } else { 0.0 };
            for c in 0..d {
                let g = scale * of(c);
                grad[i * d + c] += g;
                grad[j * d + c] -= g;
            }
        }
        let grad =
            Tensor::from_vec(grad, (n, d), &Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device())?;
        let value = op::attach(&x, op::scalar(logs / n as f64, &x)?, move |g| grad.broadcast_mul(g))?;
        Ok(value.to_dtype(narrow.dtype())?)
    }

    fn settings(&self) -> Result<()> {
        crate::settings::positive("koleo", "eps", self.eps)
    }
}

per_view!(KoLeo, "koleo", |_: &KoLeo| Bound::Surrogate);
