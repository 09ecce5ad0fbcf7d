//! Spectral entropies and redundancy reduction.

use crate::pairwise::squared_distances;
use crate::{
    Entropy, Error, Estimate, Path, Result,
    entropy::{centred, entropy_part, mixture::positive, per_view},
    invariance::normalize_rows,
    moments, op,
};
use candle_core::Tensor;
use infomax_core::{Bound, Context, Embeddings, Part, Role};
use infomax_kernels::linalg;

/// Barlow Twins (Zbontar et al., arXiv 2103.03230): `on = sum_j (C_jj - 1)^2` and `off = sum_{i != j} C_ij^2`
/// of the cross-correlation `C = Z1^T Z2 / n` of standardised columns (biased variance plus `eps`).
///
/// Through `||Z1^T Z2||_F^2 = sum(K1 o K2)` when `n < d`. For more than two views: the mean over pairs.
/// `on` is the invariance part, `off` the entropy part.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Barlow {
    /// The factor of both parts (1; solo-learn 0.025).
    pub scale: f64,
    /// The factor of the off-diagonal part (0.0051; lightly and solo-learn 0.005).
    pub lambda: f64,
    /// Added to the variances (1e-5).
    pub eps: f64,
    /// The form of the off-diagonal part.
    pub path: Path,
}

impl Default for Barlow {
    fn default() -> Self {
        Self { scale: 1.0, lambda: 0.0051, eps: 1e-5, path: Path::Auto }
    }
}

impl Entropy for Barlow {
    fn name(&self) -> &'static str {
        "barlow"
    }

    fn bound(&self) -> Bound {
        Bound::Surrogate
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> Result<Vec<Part>> {
        let views = gathered_pairs("barlow", z, ctx)?;
        let parts = pair_mean(&views, |a, b| barlow(a, b, self.eps, self.path))?;
        Ok(vec![
            Part {
                name: "on-diagonal".into(),
                role: Role::Invariance,
                weight: self.scale,
                value: parts.get(0)?,
            },
            entropy_part("off-diagonal", self.scale * self.lambda, parts.get(1)?),
        ])
    }

    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        let parts = op::host(&barlow(z, z, self.eps, self.path)?)?;
        Ok(Estimate { nats: -self.scale * (parts[0] + self.lambda * parts[1]), bound: Bound::Surrogate })
    }
}

/// `[on, off]` of two views `(n, d)`, as [`Barlow`] defines them: shape `(2)`, differentiable.
///
/// # Errors
/// Views of unequal shape, or of fewer than two rows.
pub fn barlow(z1: &Tensor, z2: &Tensor, eps: f64, path: Path) -> Result<Tensor> {
    let (z1, z2) = (moments::matrix("barlow", z1, 2)?, moments::matrix("barlow", z2, 2)?);
    if z1.dims() != z2.dims() {
        return Err(Error::Shape {
            term: "barlow",
            expected: "two views of one shape",
            got: z2.dims().to_vec(),
        });
    }
    let (n, d) = z1.dims2()?;
    let count = n as f64;
    let standard = |z: &Tensor| -> Result<Tensor> {
        let zc = centred(z)?;
        let variances = (zc.sqr()?.mean_keepdim(0)? + eps)?;
        Ok(zc.broadcast_div(&variances.sqrt()?)?)
    };
    let (z1, z2) = (standard(&z1)?, standard(&z2)?);
    let diagonal = ((&z1 * &z2)?.sum(0)? / count)?;
    let on = (&diagonal - 1.0)?.sqr()?.sum_all()?;
    let off = if path.is_gram(n, d) && z1.device().is_cpu() {
        // Both views as one argument, so that one closed form holds both gradients.
        let both = Tensor::cat(&[&z1, &z2], 0)?;
        let (a, b) = (z1.detach(), z2.detach());
        let (k1, k2) = (a.matmul(&a.t()?)?, b.matmul(&b.t()?)?);
        let c = op::host(&diagonal)?;
        let total = (&k1 * &k2)?.to_dtype(candle_core::DType::F64)?.sum_all()?.to_scalar::<f64>()?;
        let squares: f64 = c.iter().map(|c| c * c).sum();
        let value = (total / (count * count) - squares).max(0.0);
        let grad = move |g: &Tensor| {
            let g = op::number(g)?;
            let scale = 2.0 * g / (count * count);
            let columns: Vec<f64> = c.iter().map(|c| -2.0 * g * c / count).collect();
            let g1 = moments::axpy_columns(scale, &k2.matmul(&a)?, &b, &columns)?;
            let g2 = moments::axpy_columns(scale, &k1.matmul(&b)?, &a, &columns)?;
            Tensor::cat(&[g1, g2], 0)
        };
        op::attach(&both, op::scalar(value, &both)?, grad)?
    } else {
        let c = (z1.t()?.matmul(&z2)? / count)?;
        let mask = (Tensor::ones((d, d), c.dtype(), c.device())? - Tensor::eye(d, c.dtype(), c.device())?)?;
        (c * mask)?.sqr()?.sum_all()?
    };
    Ok(Tensor::stack(&[on, off], 0)?)
}

/// FroSSL (Skean et al., arXiv 2310.02903): per view, `2 ln ||C / tr C||_F` of columns of unit length, that is
/// minus the quadratic matrix Renyi entropy, and the squared error to the mean view.
///
/// On the smaller of `Z Z^T` and `Z^T Z`, without an eigenvalue.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Frossl {
    /// The factor of the regularisation (1).
    pub weight: f64,
    /// The factor of the invariance part (1).
    pub invariance: f64,
    /// The form of the norm.
    pub path: Path,
}

impl Default for Frossl {
    fn default() -> Self {
        Self { weight: 1.0, invariance: 1.0, path: Path::Auto }
    }
}

impl Frossl {
    /// `-2 ln ||C / tr C||_F` of the rows of `z` `(n, d)`: a scalar in `[0, ln min(n, d)]`, differentiable.
    ///
    /// # Errors
    /// Anything but a matrix.
    pub fn entropy(&self, z: &Tensor) -> Result<Tensor> {
        let x = unit_columns(&moments::matrix("frossl", z, 1)?)?;
        let (n, d) = x.dims2()?;
        let product = if self.path.is_gram(n, d) { x.matmul(&x.t()?)? } else { x.t()?.matmul(&x)? };
        let trace = op::number(&x.sqr()?.sum_all()?)?.max(f64::MIN_POSITIVE);
        let squares = ((product / trace)?.sqr()?.sum_all()?).maximum(1e-30)?;
        Ok(squares.log()?.neg()?)
    }
}

impl Entropy for Frossl {
    fn name(&self) -> &'static str {
        "frossl"
    }

    fn bound(&self) -> Bound {
        Bound::Surrogate
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> Result<Vec<Part>> {
        let views =
            z.projections.iter().map(|v| ctx.collective.all_gather(v)).collect::<Result<Vec<_>, _>>()?;
        let count = views.len() as f64;
        let entropies = views.iter().map(|v| self.entropy(v)).collect::<Result<Vec<_>>>()?;
        let regularisation = Tensor::stack(&entropies, 0)?.sum_all()?.neg()?;
        let unit = views.iter().map(|v| unit_columns(&op::widen(v)?)).collect::<Result<Vec<_>>>()?;
        let stacked = Tensor::stack(&unit, 0)?;
        let error = stacked.broadcast_sub(&stacked.mean_keepdim(0)?)?.sqr()?.mean_all()?;
        // sum_v V d mse_v = V^2 d mean_v mse_v.
        let value = (error * (count * count * views[0].dim(1)? as f64))?;
        Ok(vec![
            Part { name: "invariance".into(), role: Role::Invariance, weight: self.invariance, value },
            entropy_part("frossl", self.weight, regularisation),
        ])
    }

    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        Ok(Estimate { nats: op::number(&self.entropy(z)?)?, bound: Bound::Surrogate })
    }
}

/// The matrix-based Renyi entropy `1/(1 - alpha) ln tr A^alpha` of the normalised kernel matrix
/// `A_ij = exp(-|z_i - z_j|^2 / (2 sigma^2)) / n` (Sanchez Giraldo et al., arXiv 1211.2459); at `alpha = 1` the
/// von Neumann entropy `-tr A ln A`; at `alpha = 2`, `-ln ||A||_F^2` without an eigenvalue. In `[0, ln n]`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Renyi {
    /// The factor in the total.
    pub weight: f64,
    /// The order (2).
    pub alpha: f64,
    /// The width of the kernel; 0 for `sqrt(d / 2)`.
    pub sigma: f64,
}

impl Default for Renyi {
    fn default() -> Self {
        Self { weight: 1.0, alpha: 2.0, sigma: 0.0 }
    }
}

impl Renyi {
    /// The entropy of the rows of `z` `(n, d)`: a scalar, differentiable.
    ///
    /// # Errors
    /// Anything but a matrix; an order that is not above 0.
    pub fn entropy(&self, z: &Tensor) -> Result<Tensor> {
        self.of_matrix(&self.kernel(z)?)
    }

    /// The entropy of the joint, from the Hadamard product of the kernels.
    ///
    /// # Errors
    /// As [`Renyi::entropy`].
    pub fn joint(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        self.of_matrix(&(self.kernel(x)? * self.kernel(y)?)?)
    }

    /// `I(X; Y) = S(X) + S(Y) - S(X, Y)`.
    ///
    /// # Errors
    /// As [`Renyi::entropy`].
    pub fn mutual_information(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        Ok(((self.entropy(x)? + self.entropy(y)?)? - self.joint(x, y)?)?)
    }

    pub(crate) fn kernel(&self, z: &Tensor) -> Result<Tensor> {
        let z = moments::matrix("renyi", z, 1)?;
        let d = z.dim(1)? as f64;
        let sigma2 = if self.sigma == 0.0 { 0.5 * d } else { self.sigma * self.sigma };
        Ok((squared_distances(&z)? * (-0.5 / sigma2))?.exp()?)
    }

    /// Of a kernel matrix with unit diagonal.
    pub(crate) fn of_matrix(&self, kernel: &Tensor) -> Result<Tensor> {
        positive("renyi", "alpha", self.alpha)?;
        let a = (kernel / kernel.dim(0)? as f64)?;
        if self.alpha == 2.0 {
            return Ok(a.sqr()?.sum_all()?.log()?.neg()?);
        }
        // Rounding leaves null eigenvalues of either sign; the floor keeps logarithms and gradients finite.
        let floor = if a.dtype() == candle_core::DType::F32 { 1e-8 } else { 1e-15 };
        let eigenvalues = linalg::eigvalsh(&a)?.maximum(floor)?;
        let logs = eigenvalues.log()?;
        if (self.alpha - 1.0).abs() < 1e-12 {
            return Ok((eigenvalues * logs)?.sum_all()?.neg()?);
        }
        let trace = (logs * self.alpha)?.exp()?.sum_all()?;
        Ok((trace.log()? / (1.0 - self.alpha))?)
    }
}

per_view!(Renyi, "renyi", |_: &Renyi| Bound::Surrogate);

/// Maximum entropy coding (Liu et al., arXiv 2210.11464): `ln det(I + lambda Z1 Z2^T)` on unit rows,
/// `lambda = d / (n eps)`, exact or by its series of the given order; the loss is its value times
/// `-1 / (lambda n)`, averaged over pairs of views.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mec {
    /// The factor in the total.
    pub weight: f64,
    /// The squared distortion (64).
    pub eps: f64,
    /// The order of the series (4); 0 for the exact determinant.
    pub order: usize,
}

impl Default for Mec {
    fn default() -> Self {
        Self { weight: 1.0, eps: 64.0, order: 4 }
    }
}

impl Mec {
    /// `ln det(I + lambda Z1 Z2^T)` of two views `(n, d)`: a scalar, differentiable.
    ///
    /// The series converges only while the spectral radius of `lambda Z1 Z2^T` (at most `d / eps`) is below 1.
    ///
    /// # Errors
    /// Views of unequal shape.
    pub fn log_det(&self, z1: &Tensor, z2: &Tensor) -> Result<Tensor> {
        let (a, b) = (normalize_rows(z1, 1e-12)?, normalize_rows(z2, 1e-12)?);
        let (n, d) = a.dims2()?;
        let lambda = d as f64 / (n as f64 * self.eps);
        let c = if n < d { a.matmul(&b.t()?)? } else { b.t()?.matmul(&a)? };
        let c = (c * lambda)?;
        if self.order == 0 {
            // det(A)^2 = det(A^T A) is symmetric and positive definite.
            let side = c.dim(0)?;
            let shifted = (c + Tensor::eye(side, a.dtype(), a.device())?)?;
            return Ok((linalg::log_det_spd(&shifted.t()?.matmul(&shifted)?)? * 0.5)?);
        }
        let eye = Tensor::eye(c.dim(0)?, c.dtype(), c.device())?;
        let mut power = c.clone();
        let mut sum = (&c * &eye)?.sum_all()?;
        for k in 2..=self.order {
            power = power.matmul(&c)?;
            let sign = if k % 2 == 0 { -1.0 } else { 1.0 };
            sum = (sum + ((&power * &eye)?.sum_all()? * (sign / k as f64))?)?;
        }
        Ok(sum)
    }
}

impl Entropy for Mec {
    fn name(&self) -> &'static str {
        "mec"
    }

    fn bound(&self) -> Bound {
        Bound::Surrogate
    }

    fn check(&self) -> Result<()> {
        positive("mec", "eps", self.eps)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> Result<Vec<Part>> {
        let views = gathered_pairs("mec", z, ctx)?;
        let d = views[0].dim(1)? as f64;
        // 1 / (lambda n) = eps / d.
        let value = (pair_mean(&views, |a, b| self.log_det(a, b))? * (-self.eps / d))?;
        Ok(vec![entropy_part("mec", self.weight, value)])
    }

    /// `(n + d)/2 ln det(I + lambda Z Z^T) / n`, the coding length of one sample.
    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        let (n, d) = moments::matrix("mec", z, 1)?.dims2()?;
        let value = op::number(&self.log_det(z, z)?)?;
        Ok(Estimate { nats: 0.5 * (n + d) as f64 * value / n as f64, bound: Bound::Surrogate })
    }
}

fn gathered_pairs(term: &'static str, z: &Embeddings, ctx: &Context<'_>) -> Result<Vec<Tensor>> {
    if z.projections.len() < 2 {
        return Err(Error::Shape { term, expected: "at least two views", got: vec![z.projections.len()] });
    }
    Ok(z.projections.iter().map(|v| ctx.collective.all_gather(v)).collect::<Result<Vec<_>, _>>()?)
}

fn pair_mean(views: &[Tensor], f: impl Fn(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let mut values = Vec::new();
    for (i, a) in views.iter().enumerate() {
        for b in &views[i + 1..] {
            values.push(f(a, b)?);
        }
    }
    Ok(Tensor::stack(&values, 0)?.mean(0)?)
}

fn unit_columns(z: &Tensor) -> Result<Tensor> {
    let norms = z.sqr()?.sum_keepdim(0)?.maximum(1e-24)?.sqrt()?;
    Ok(z.broadcast_div(&norms)?)
}
