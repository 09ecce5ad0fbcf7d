//! Nearest-neighbor entropies.

use crate::{Error, Result, entropy::per_view, invariance::normalize_rows, moments, op, special};
use candle_core::{DType, Device, Tensor};
use infomax_core::Bound;
use std::f64::consts::PI;

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
/// Consistent; piecewise smooth, with the gradient through the selected neighbor. Cost `n^2 d`, in f64.
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
        let x = op::host(&z)?;
        let mut grad = vec![0f64; n * d];
        let mut logs = 0.0;
        let mut distances: Vec<(f64, usize)> = Vec::with_capacity(n);
        for i in 0..n {
            let own = &x[i * d..(i + 1) * d];
            distances.clear();
            for j in (0..n).filter(|j| *j != i) {
                let other = &x[j * d..(j + 1) * d];
                let differences = own.iter().zip(other).map(|(a, b)| a - b);
                let r = match self.metric {
                    Metric::Euclidean => differences.map(|e| e * e).sum::<f64>(),
                    Metric::Chebyshev => differences.fold(0f64, |m, e| m.max(e.abs())),
                };
                distances.push((r, j));
            }
            let (_, &mut (r, j), _) =
                distances.select_nth_unstable_by(self.k - 1, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
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
/// Whatever the type of the rows, they are scaled and compared in f64: far from the origin, unit rows differ in
/// digits that f32 does not have, and in one dimension they are equal up to rounding.
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
        let n = x.dim(0)?;
        let data = x.detach();
        let similarity = op::host(&data.matmul(&data.t()?)?)?;
        let nearest: Vec<u32> = (0..n)
            .map(|i| {
                let others = (0..n).filter(|j| *j != i);
                let best = others.fold((f64::NEG_INFINITY, 0), |best, j| {
                    let s = similarity[i * n + j];
                    if s > best.0 { (s, j) } else { best }
                });
                best.1 as u32
            })
            .collect();
        let neighbors = x.index_select(&Tensor::from_vec(nearest, n, x.device())?, 0)?;
        let r2 = ((x - neighbors)? + self.eps)?.sqr()?.sum(1)?;
        // In f32 a collapsed pair underflows to 0, where the root has no gradient.
        let r2 = if r2.dtype() == DType::F32 { r2.maximum(1e-20)? } else { r2 };
        Ok((r2.sqrt()? + self.eps)?.log()?.mean_all()?.to_dtype(narrow.dtype())?)
    }

    fn settings(&self) -> Result<()> {
        crate::settings::positive("koleo", "eps", self.eps)
    }
}

per_view!(KoLeo, "koleo", |_: &KoLeo| Bound::Surrogate);
