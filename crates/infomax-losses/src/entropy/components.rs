//! Pairwise-distance bounds on the entropy of mixtures of Gaussians with full covariances.

use crate::{
    Entropy, Error, Estimate, Result,
    entropy::{Divergence, centered, entropy_part, gathered, mixture::mixture_weights},
    moments, op,
    settings::{between, not_negative, positive},
};
use candle_core::{DType, Device, Tensor};
use infomax_core::{Bound, Context, Embeddings, Part, Role, Term};
use std::f64::consts::PI;

/// Pairwise-distance bounds (Kolchinsky and Tracey, arXiv 1706.02419) with a component of full covariance for
/// every sample: `N(m_i, variance S_i + eps I)` with the mean `m_i` and the covariance `S_i` (divided by `V`) of
/// the views of sample `i`. See [`mixture_bound`] for the formula.
///
/// What the paper of the project calls the mixture of the embeddings (arXiv 2303.00633, theorem 1) has such
/// components: the images of one input under small noise. For a single matrix (the monitor) every component
/// has the covariance of all rows. Cost `n^2 d^3`: meant for `d` up to some tens.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct PairDistFull {
    /// The factor in the total.
    pub weight: f64,
    /// The distance between components.
    pub divergence: Divergence,
    /// The order of the Chernoff divergence (1/2).
    pub alpha: f64,
    /// The factor of the covariances.
    pub variance: f64,
    /// Added to the diagonals of the covariances (0.1).
    pub eps: f64,
}

impl Default for PairDistFull {
    fn default() -> Self {
        Self { weight: 1.0, divergence: Divergence::Kl, alpha: 0.5, variance: 1.0, eps: 0.1 }
    }
}

impl PairDistFull {
    /// The entropy of the mixture of one component a sample, from its views `(n, d)`: a scalar, differentiable.
    ///
    /// # Errors
    /// Views of unequal shape; settings outside of their range.
    pub fn entropy(&self, views: &[Tensor]) -> Result<Tensor> {
        let views =
            views.iter().map(|v| moments::matrix("pairdist-full", v, 1)).collect::<Result<Vec<_>>>()?;
        let z = Tensor::stack(&views, 1)?; // (n, V, d)
        let (_, count, d) = z.dims3()?;
        let means = z.mean_keepdim(1)?;
        let zc = z.broadcast_sub(&means)?;
        let within = (zc.transpose(1, 2)?.contiguous()?.matmul(&zc)? * (self.variance / count as f64))?;
        let eye = (Tensor::eye(d, z.dtype(), z.device())? * self.eps)?;
        mixture_bound(&means.squeeze(1)?, &within.broadcast_add(&eye)?, self.divergence, self.alpha)
    }

    /// The entropy of the mixture with given covariances of its components, `N(m_i, variance S_i + eps I)`, from the
    /// means `(n, d)` and the covariances `(n, d, d)`: a scalar, differentiable in both.
    ///
    /// # Errors
    /// Shapes that do not fit; settings outside of their range.
    pub fn entropy_of(&self, means: &Tensor, covariances: &Tensor) -> Result<Tensor> {
        let covariances = self.widened(covariances)?;
        mixture_bound(means, &covariances, self.divergence, self.alpha)
    }

    /// [`PairDistFull::entropy_of`] with weights of the components, as [`mixture_bound_weighted`].
    ///
    /// # Errors
    /// As [`PairDistFull::entropy_of`] and [`mixture_bound_weighted`].
    pub fn entropy_of_weighted(
        &self,
        means: &Tensor,
        covariances: &Tensor,
        weights: &[f64],
    ) -> Result<Tensor> {
        let covariances = self.widened(covariances)?;
        mixture_bound_weighted(means, &covariances, weights, self.divergence, self.alpha)
    }

    /// `variance S + eps I` of covariances `(n, d, d)`.
    fn widened(&self, covariances: &Tensor) -> Result<Tensor> {
        self.check()?;
        let wrong = || Error::Shape {
            term: "pairdist-full",
            expected: "covariances (n, d, d), one matrix a component",
            got: covariances.dims().to_vec(),
        };
        let &[_, d, e] = covariances.dims() else { return Err(wrong()) };
        if d != e || covariances.elem_count() == 0 {
            return Err(wrong());
        }
        let s = op::widen(covariances)?;
        let eye = (Tensor::eye(d, s.dtype(), s.device())? * self.eps)?;
        Ok((s * self.variance)?.broadcast_add(&eye)?)
    }

    fn kind(&self) -> Bound {
        if self.divergence == Divergence::Kl { Bound::Upper } else { Bound::Lower }
    }
}

impl Term for PairDistFull {
    fn name(&self) -> &str {
        "pairdist-full"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(self.kind())
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        let entropy = self.entropy(&gathered("pairdist-full", 1, z, ctx)?)?;
        Ok(vec![entropy_part("pairdist-full", self.weight, entropy.neg()?)])
    }
}

impl Entropy for PairDistFull {
    fn check(&self) -> Result<()> {
        not_negative("pairdist-full", "weight", self.weight)?;
        positive("pairdist-full", "eps", self.eps)?;
        positive("pairdist-full", "variance", self.variance)?;
        between("pairdist-full", "alpha", self.alpha)
    }

    /// Of components with the covariance `variance S + eps I` of all rows.
    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        let z = moments::matrix("pairdist-full", z, 1)?.to_dtype(DType::F64)?;
        let (n, d) = z.dims2()?;
        let zc = centered(&z)?;
        let eye = (Tensor::eye(d, z.dtype(), z.device())? * self.eps)?;
        let shared = ((zc.t()?.matmul(&zc)? * (self.variance / n as f64))? + eye)?;
        let covariances = shared.unsqueeze(0)?.broadcast_as((n, d, d))?.contiguous()?;
        let value = op::number(&mixture_bound(&z, &covariances, self.divergence, self.alpha)?)?;
        Ok(Estimate { nats: value, bound: self.kind() })
    }
}

/// `H = mean_i H(p_i) - mean_i ln mean_j exp(-D(p_i || p_j))` of `p_i = N(m_i, S_i)`: a scalar, differentiable in
/// the means `(n, d)` and the symmetric covariances `(n, d, d)`.
///
/// | divergence | `D(p_i \|\| p_j)`, `m = m_i - m_j` | bound |
/// |---|---|---|
/// | KL | `1/2 [tr(S_j^-1 S_i) - d + m^T S_j^-1 m + ln det S_j / det S_i]` | upper |
/// | Chernoff | `a(1-a)/2 m^T M^-1 m + 1/2 ln det M / (det S_i^(1-a) det S_j^a)`, `M = (1-a) S_i + a S_j` | lower |
/// | Bhattacharyya | Chernoff at `a = 1/2` | lower |
/// | ELK | the form is `-mean_i ln mean_j N(m_i; m_j, S_i + S_j)` | lower |
///
/// (For `alpha != 1/2` some implementations mix up `S_i` and `S_j` in `M`; this orientation is held against
/// quadrature by a test.) In f64; cost `n^2 d^3`; only the lower triangles of the covariances are read.
///
/// # Errors
/// Shapes that do not fit; a covariance that is not positive definite; `alpha` outside of `(0, 1)`.
pub fn mixture_bound(
    means: &Tensor,
    covariances: &Tensor,
    divergence: Divergence,
    alpha: f64,
) -> Result<Tensor> {
    bound(means, covariances, None, divergence, alpha)
}

/// [`mixture_bound`] of components with weights `c_i`, which are scaled to sum to 1:
/// `sum_i c_i H(p_i) - sum_i c_i ln sum_j c_j exp(-D(p_i || p_j))`.
///
/// # Errors
/// As [`mixture_bound`]; not one weight a component, a negative one, or none above 0.
pub fn mixture_bound_weighted(
    means: &Tensor,
    covariances: &Tensor,
    weights: &[f64],
    divergence: Divergence,
    alpha: f64,
) -> Result<Tensor> {
    bound(means, covariances, Some(weights), divergence, alpha)
}

fn bound(
    means: &Tensor,
    covariances: &Tensor,
    weights: Option<&[f64]>,
    divergence: Divergence,
    alpha: f64,
) -> Result<Tensor> {
    const TERM: &str = "pairdist-full";
    between(TERM, "alpha", alpha)?;
    let means = moments::matrix(TERM, means, 1)?;
    let (n, d) = means.dims2()?;
    if covariances.dims() != [n, d, d] {
        return Err(Error::Shape {
            term: TERM,
            expected: "covariances (n, d, d) for means (n, d)",
            got: covariances.dims().to_vec(),
        });
    }
    let covariances = op::widen(covariances)?;
    // One argument, so that one closed form holds both gradients.
    let both = Tensor::cat(&[means.flatten_all()?, covariances.flatten_all()?], 0)?;
    let values = op::host(&both)?;
    let (m, s) = values.split_at(n * d);
    let weights = match weights {
        Some(weights) => mixture_weights(TERM, weights, n)?,
        None => vec![1.0 / n as f64; n],
    };
    let mixture = Mixture { n, d, m, s, weights, divergence, alpha };
    let (value, grad) = mixture.bound()?;
    let grad = Tensor::from_vec(grad, both.dims(), &Device::Cpu)?
        .to_dtype(both.dtype())?
        .to_device(both.device())?;
    Ok(op::attach(&both, op::scalar(value, &both)?, move |g| grad.broadcast_mul(g))?)
}

struct Mixture<'a> {
    n: usize,
    d: usize,
    m: &'a [f64],
    s: &'a [f64],
    weights: Vec<f64>,
    divergence: Divergence,
    alpha: f64,
}

/// One pair: the logarithm of its summand, and its slopes by `m_i - m_j`, `S_i` and `S_j`.
struct Pair {
    log: f64,
    mean: Vec<f64>,
    own: Vec<f64>,
    other: Vec<f64>,
}

impl Mixture<'_> {
    fn bound(&self) -> Result<(f64, Vec<f64>)> {
        let (n, d) = (self.n, self.d);
        let single = (0..n)
            .map(|i| inverse(&self.s[i * d * d..(i + 1) * d * d], d).ok_or_else(|| not_definite(i)))
            .collect::<Result<Vec<_>>>()?;
        let mut grad = vec![0f64; n * d + n * d * d];
        let mut value = 0.0;
        let elk = self.divergence == Divergence::Elk;
        for i in 0..n {
            let share = self.weights[i];
            if share == 0.0 {
                continue;
            }
            if !elk {
                // H(p_i), with its slope 1/2 S_i^-1.
                value += 0.5 * (d as f64 * (2.0 * PI * std::f64::consts::E).ln() + single[i].1) * share;
                self.add(&mut grad, i, &single[i].0, 0.5 * share);
            }
            let pairs = (0..n).map(|j| self.pair(i, j, &single)).collect::<Result<Vec<_>>>()?;
            let max = pairs.iter().fold(f64::NEG_INFINITY, |m, p| m.max(p.log));
            let terms: Vec<f64> =
                pairs.iter().zip(&self.weights).map(|(p, w)| w * (p.log - max).exp()).collect();
            let sum: f64 = terms.iter().sum();
            value -= (max + sum.ln()) * share;
            for (j, pair) in pairs.iter().enumerate() {
                let weight = -terms[j] / sum * share;
                for c in 0..d {
                    grad[i * d + c] += weight * pair.mean[c];
                    grad[j * d + c] -= weight * pair.mean[c];
                }
                self.add(&mut grad, i, &pair.own, weight);
                self.add(&mut grad, j, &pair.other, weight);
            }
        }
        Ok((value, grad))
    }

    fn add(&self, grad: &mut [f64], i: usize, slope: &[f64], weight: f64) {
        let side = self.d * self.d;
        let at = self.n * self.d + i * side;
        for (g, s) in grad[at..at + side].iter_mut().zip(slope) {
            *g += weight * s;
        }
    }

    fn pair(&self, i: usize, j: usize, single: &[(Vec<f64>, f64)]) -> Result<Pair> {
        let d = self.d;
        if i == j && self.divergence != Divergence::Elk {
            // No distance and no slope, exactly: the terms would cancel to their rounding only.
            let zero = || vec![0f64; d * d];
            return Ok(Pair { log: 0.0, mean: vec![0.0; d], own: zero(), other: zero() });
        }
        let m: Vec<f64> = (0..d).map(|c| self.m[i * d + c] - self.m[j * d + c]).collect();
        let (si, sj) = (&self.s[i * d * d..(i + 1) * d * d], &self.s[j * d * d..(j + 1) * d * d]);
        let ((inv_i, ln_i), (inv_j, ln_j)) = (&single[i], &single[j]);
        if self.divergence == Divergence::Kl {
            let u = times(inv_j, &m, d);
            let quadratic: f64 = m.iter().zip(&u).map(|(a, b)| a * b).sum();
            let trace: f64 = inv_j.iter().zip(si).map(|(a, b)| a * b).sum();
            // A = S_j^-1 S_i S_j^-1 + u u^T.
            let product = square(inv_j, si, d);
            let inner = square(&product, inv_j, d);
            let other = (0..d * d).map(|k| 0.5 * (inner[k] + u[k / d] * u[k % d] - inv_j[k])).collect();
            let own = (0..d * d).map(|k| -0.5 * (inv_j[k] - inv_i[k])).collect();
            return Ok(Pair {
                log: -0.5 * (trace - d as f64 + quadratic + ln_j - ln_i),
                mean: u.iter().map(|v| -v).collect(),
                own,
                other,
            });
        }
        // M, the factor of the quadratic form, and the parts of S_i and S_j in M.
        let (a, b, factor) = match self.divergence {
            Divergence::Elk => (1.0, 1.0, 1.0),
            Divergence::Bhattacharyya => (0.5, 0.5, 0.25),
            _ => (1.0 - self.alpha, self.alpha, self.alpha * (1.0 - self.alpha)),
        };
        let mixed: Vec<f64> = si.iter().zip(sj).map(|(x, y)| a * x + b * y).collect();
        let (inv, ln) = inverse(&mixed, d).ok_or_else(|| not_definite(i))?;
        let u = times(&inv, &m, d);
        let quadratic: f64 = m.iter().zip(&u).map(|(x, y)| x * y).sum();
        let by_mixed: Vec<f64> = (0..d * d).map(|k| 0.5 * (factor * u[k / d] * u[k % d] - inv[k])).collect();
        let mean = u.iter().map(|v| -factor * v).collect();
        if self.divergence == Divergence::Elk {
            let log = -0.5 * (d as f64 * (2.0 * PI).ln() + ln + quadratic);
            return Ok(Pair { log, mean, own: by_mixed.clone(), other: by_mixed });
        }
        Ok(Pair {
            log: -0.5 * (factor * quadratic + ln - a * ln_i - b * ln_j),
            mean,
            own: (0..d * d).map(|k| a * (by_mixed[k] + 0.5 * inv_i[k])).collect(),
            other: (0..d * d).map(|k| b * (by_mixed[k] + 0.5 * inv_j[k])).collect(),
        })
    }
}

fn not_definite(i: usize) -> Error {
    Error::Config {
        term: "pairdist-full",
        key: "covariance",
        value: format!("of component {i}"),
        reason: "is not positive definite; raise eps",
    }
}

/// The inverse and the log-determinant of a symmetric positive definite matrix, by Cholesky.
fn inverse(s: &[f64], d: usize) -> Option<(Vec<f64>, f64)> {
    let lower = infomax_kernels::linalg::cholesky_factor(s, d)?;
    let root = infomax_kernels::linalg::invert_lower(&lower, d);
    let ln = 2.0 * (0..d).map(|i| lower[i * d + i].ln()).sum::<f64>();
    let mut out = vec![0f64; d * d];
    for i in 0..d {
        for j in 0..=i {
            let v: f64 = (i..d).map(|k| root[k * d + i] * root[k * d + j]).sum();
            (out[i * d + j], out[j * d + i]) = (v, v);
        }
    }
    Some((out, ln))
}

fn times(a: &[f64], x: &[f64], d: usize) -> Vec<f64> {
    a.chunks_exact(d).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
}

fn square(a: &[f64], b: &[f64], d: usize) -> Vec<f64> {
    let mut out = vec![0f64; d * d];
    for i in 0..d {
        for k in 0..d {
            let v = a[i * d + k];
            for j in 0..d {
                out[i * d + j] += v * b[k * d + j];
            }
        }
    }
    out
}
