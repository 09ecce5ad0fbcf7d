//! Spectral entropies and redundancy reduction.

use crate::pairwise::squared_distances;
use crate::ranks::Ranks;
use crate::{
    Entropy, Error, Estimate, MomentForm, Result,
    entropy::{centered, entropy_part, per_view},
    invariance::normalize_rows,
    moments, op,
    settings::{none_negative, positive},
};
use candle_core::Tensor;
use infomax_core::{Bound, Context, Embeddings, Part, Role, Term};
use infomax_kernels::columns::{Columns, Finishing, column_moments, gram, inner_product};
use infomax_kernels::linalg;

/// Barlow Twins (Zbontar et al., arXiv 2103.03230): `on = sum_j (C_jj - 1)^2` and `off = sum_{i != j} C_ij^2`
/// of the cross-correlation `C = Z1^T Z2 / n` of standardized columns (biased variance plus `eps`).
///
/// Through `||Z1^T Z2||_F^2 = sum(K1 o K2)` when `n < d`. For more than two views: the mean over pairs.
/// `on` is the invariance part, `off` the entropy part.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Barlow {
    /// The factor of both parts (1; solo-learn 0.025).
    pub scale: f64,
    /// The factor of the off-diagonal part (0.0051; lightly and solo-learn 0.005).
    pub lambda: f64,
    /// Added to the variances (1e-5).
    pub eps: f64,
    /// The form of the off-diagonal part.
    pub path: MomentForm,
}

impl Default for Barlow {
    fn default() -> Self {
        Self { scale: 1.0, lambda: 0.0051, eps: 1e-5, path: MomentForm::Auto }
    }
}

impl Term for Barlow {
    fn name(&self) -> &str {
        "barlow"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Surrogate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        let pairs = Pairs::of("barlow", z, ctx)?;
        let parts = pairs.mean(|a, b| barlow(a, b, self.eps, self.path), |r, a, b| self.shared(r, a, b))?;
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
}

impl Barlow {
    /// [`barlow`] of the rows of all ranks, from sums where those are less traffic than the rows.
    fn shared(&self, ranks: &Ranks<'_>, z1: &Tensor, z2: &Tensor) -> Result<Option<Tensor>> {
        let d = z1.dim(1)?;
        if ranks.total < 2 || z1.dims() != z2.dims() || !ranks.sums_pay(d * d + 4 * d, z1) {
            return Ok(None);
        }
        let (a, b) = (ranks.centered(z1)?, ranks.centered(z2)?);
        // One message: the products, and the squares of both below them.
        let squares = |z: &Tensor| z.sqr()?.sum_keepdim(0);
        let sums = ranks.sum(&(Tensor::cat(&[a.t()?.matmul(&b)?, squares(&a)?, squares(&b)?], 0)?))?;
        let sums = (sums / ranks.total as f64)?;
        let std = |row| (sums.narrow(0, row, 1)? + self.eps)?.sqrt();
        let c = sums.narrow(0, 0, d)?.broadcast_div(&std(d)?.t()?)?.broadcast_div(&std(d + 1)?)?;
        let eye = Tensor::eye(d, c.dtype(), c.device())?;
        let diagonal = (&c * &eye)?;
        let on = (&diagonal - eye)?.sqr()?.sum_all()?;
        let off = (c - diagonal)?.sqr()?.sum_all()?;
        Ok(Some(Tensor::stack(&[on, off], 0)?))
    }
}

impl Entropy for Barlow {
    fn check(&self) -> Result<()> {
        none_negative("barlow", [("scale", self.scale), ("lambda", self.lambda), ("eps", self.eps)])
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
pub fn barlow(z1: &Tensor, z2: &Tensor, eps: f64, path: MomentForm) -> Result<Tensor> {
    let (z1, z2) = (moments::matrix("barlow", z1, 2)?, moments::matrix("barlow", z2, 2)?);
    if z1.dims() != z2.dims() {
        return Err(Error::Shape {
            term: "barlow",
            expected: "two views of one shape",
            got: z2.dims().to_vec(),
        });
    }
    let (n, d) = z1.dims2()?;
    if path.is_gram(n, d) && infomax_kernels::has_cpu_kernels(&z1) {
        return barlow_gram(&z1, &z2, eps);
    }
    let standard = |z: &Tensor| -> Result<Tensor> {
        let zc = centered(z)?;
        let variances = (zc.sqr()?.mean_keepdim(0)? + eps)?;
        Ok(zc.broadcast_div(&variances.sqrt()?)?)
    };
    let (z1, z2) = (standard(&z1)?, standard(&z2)?);
    if path.is_gram(n, d) {
        // sum(K1 o K2) = ||Z1^T Z2||_F^2.
        let c = (&z1 * &z2)?.mean(0)?;
        let on = (&c - 1.0)?.sqr()?.sum_all()?;
        let products = (gram(&z1)? * gram(&z2)?)?.sum_all()?;
        let off = ((products / (n * n) as f64)? - c.sqr()?.sum_all()?)?;
        return Ok(Tensor::stack(&[on, off], 0)?);
    }
    let c = (z1.t()?.matmul(&z2)? / n as f64)?;
    let eye = Tensor::eye(d, c.dtype(), c.device())?;
    let diagonal = (&c * &eye)?;
    let on = (&diagonal - eye)?.sqr()?.sum_all()?;
    let off = (c - diagonal)?.sqr()?.sum_all()?;
    Ok(Tensor::stack(&[on, off], 0)?)
}

/// [`barlow`] through `sum(K1 o K2) = ||X1^T X2||_F^2`, with the gradient in closed form:
/// `dX1 = 2/n^2 d_off K2 X1 + X2 diag(2 d_on (c - 1) - 2 d_off c) / n`, then through the standardization.
fn barlow_gram(z1: &Tensor, z2: &Tensor, eps: f64) -> Result<Tensor> {
    let (n, d) = z1.dims2()?;
    let count = n as f64;
    let standard = |z: &Tensor| -> Result<(Columns, Vec<f64>)> {
        let moments = column_moments(z)?;
        let scale: Vec<f64> = moments.squares.iter().map(|s| 1.0 / (s / count + eps).sqrt()).collect();
        Ok((Columns::new(z, moments.mean, scale.clone())?, scale))
    };
    let ((x1, scale1), (x2, scale2)) = (standard(z1)?, standard(z2)?);
    let c: Vec<f64> = x1.dot_columns(&x2)?.into_iter().map(|c| c / count).collect();
    let (k1, k2) = (x1.gram(false)?, x2.gram(false)?);
    let on: f64 = c.iter().map(|c| (c - 1.0) * (c - 1.0)).sum();
    let squares: f64 = c.iter().map(|c| c * c).sum();
    let off = (inner_product(&k1, &k2)? / (count * count) - squares).max(0.0);
    let value = Tensor::from_vec(vec![on, off], 2, z1.device())?.to_dtype(z1.dtype())?;
    let grad = move |g: &Tensor| {
        let g = op::host(g)?;
        let factors: Vec<f64> = c.iter().map(|c| 2.0 * (g[0] * (c - 1.0) - g[1] * c) / count).collect();
        let of = |x: &Columns, k: &Tensor, other: &Columns, scale: &[f64]| {
            let finishing = Finishing {
                alpha: 2.0 * g[1] / (count * count),
                add: Some((other, factors.clone())),
                project: Some(vec![1.0 / count; d]),
                post: Some(scale.to_vec()),
            };
            x.left(k, &finishing)
        };
        Ok((of(&x1, &k2, &x2, &scale1)?, of(&x2, &k1, &x1, &scale2)?))
    };
    Ok(op::attach_pair(z1, z2, value, grad)?)
}

/// FroSSL (Skean et al., arXiv 2310.02903): per view, `2 ln ||C / tr C||_F` of columns of unit length, that is
/// minus the quadratic matrix Renyi entropy, and the squared error to the mean view.
///
/// The loss of the paper, for two views, has centered columns (`center`); that of the code of its authors for any
/// number of views has not. With the columns standardized first, as there, the value is the same: the scale of a
/// column goes with its length.
///
/// On the smaller of `Z Z^T` and `Z^T Z`, without an eigenvalue.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Frossl {
    /// The factor of the regularization (1).
    pub weight: f64,
    /// The factor of the invariance part (1).
    pub invariance: f64,
    /// Whether columns are centered before they are scaled to unit length.
    pub center: bool,
    /// The form of the norm.
    pub path: MomentForm,
}

impl Default for Frossl {
    fn default() -> Self {
        Self { weight: 1.0, invariance: 1.0, center: false, path: MomentForm::Auto }
    }
}

impl Frossl {
    /// The columns, centered if they shall be.
    fn columns(&self, z: &Tensor) -> Result<Tensor> {
        let z = moments::matrix("frossl", z, 1)?;
        if self.center { centered(&z) } else { Ok(z) }
    }

    /// `-2 ln ||C / tr C||_F` of the rows of `z` `(n, d)`: a scalar in `[0, ln min(n, d)]`, differentiable.
    ///
    /// # Errors
    /// Anything but a matrix.
    pub fn entropy(&self, z: &Tensor) -> Result<Tensor> {
        let z = self.columns(z)?;
        let (n, d) = z.dims2()?;
        let gram = self.path.is_gram(n, d);
        if !infomax_kernels::has_cpu_kernels(&z) {
            let x = unit_columns(&z)?;
            let product = if gram { x.matmul(&x.t()?)? } else { x.t()?.matmul(&x)? };
            let trace = op::number(&x.sqr()?.sum_all()?)?.max(f64::MIN_POSITIVE);
            let squares = ((product / trace)?.sqr()?.sum_all()?).maximum(1e-30)?;
            return Ok(squares.log()?.neg()?);
        }
        let plain = Columns::plain(&z)?;
        let norms: Vec<f64> = plain.dot_columns(&plain)?.into_iter().map(f64::sqrt).collect();
        let unit = |norm: &f64| 1.0 / norm.max(1e-12);
        let trace: f64 = norms.iter().map(|norm| norm * norm * unit(norm) * unit(norm)).sum();
        // Divided by the root of the trace, so that tiny columns below the floor have products within f32; the cap
        // keeps the factor itself there.
        let root = if trace > 0.0 { trace.sqrt().max(1e-25) } else { 1.0 };
        let scale: Vec<f64> = norms.iter().map(|norm| unit(norm) / root).collect();
        // The gradient of a column below the floor does not see its length, and none sees the trace.
        let project: Vec<f64> =
            norms.iter().map(|norm| if *norm > 1e-12 { root * root } else { 0.0 }).collect();
        let x = Columns::new(&z, vec![0.0; d], scale.clone())?;
        let product = if gram { x.gram(false)? } else { x.second_moment(false)? };
        let squares = inner_product(&product, &product)?;
        let share = if trace > 0.0 { root * root / trace } else { 0.0 };
        let value = op::scalar(-(squares * share * share).max(1e-30).ln(), &z)?;
        let grad = move |g: &Tensor| {
            let alpha = if squares > 0.0 { -4.0 * op::number(g)? / squares } else { 0.0 };
            if gram {
                let (project, post) = (Some(project.clone()), Some(scale.clone()));
                return Ok(x.left(&product, &Finishing { alpha, add: None, project, post })?);
            }
            let g = x.right(&product, &Finishing { alpha, ..Default::default() })?;
            Ok(x.through_normalization(&g, &project, &scale)?)
        };
        Ok(op::attach(&z, value, grad)?)
    }
}

impl Term for Frossl {
    fn name(&self) -> &str {
        "frossl"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Surrogate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        let views = crate::entropy::gathered("frossl", 1, z, ctx)?;
        let count = views.len() as f64;
        let entropies = views.iter().map(|v| self.entropy(v)).collect::<Result<Vec<_>>>()?;
        let regularization = Tensor::stack(&entropies, 0)?.sum_all()?.neg()?;
        let unit = views.iter().map(|v| unit_columns(&self.columns(v)?)).collect::<Result<Vec<_>>>()?;
        let stacked = Tensor::stack(&unit, 0)?;
        let error = stacked.broadcast_sub(&stacked.mean_keepdim(0)?)?.sqr()?.mean_all()?;
        // sum_v V d mse_v = V^2 d mean_v mse_v.
        let value = (error * (count * count * views[0].dim(1)? as f64))?;
        Ok(vec![
            Part { name: "invariance".into(), role: Role::Invariance, weight: self.invariance, value },
            entropy_part("frossl", self.weight, regularization),
        ])
    }
}

impl Entropy for Frossl {
    fn check(&self) -> Result<()> {
        none_negative("frossl", [("weight", self.weight), ("invariance", self.invariance)])
    }

    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        Ok(Estimate { nats: op::number(&self.entropy(z)?)?, bound: Bound::Surrogate })
    }
}

/// The matrix-based Renyi entropy `1/(1 - alpha) ln tr A^alpha` of the normalized kernel matrix
/// `A_ij = exp(-|z_i - z_j|^2 / (2 sigma^2)) / n` (Sanchez Giraldo et al., arXiv 1211.2459); at `alpha = 1` the
/// von Neumann entropy `-tr A ln A`; at `alpha = 2`, `-ln ||A||_F^2` without an eigenvalue. In `[0, ln n]`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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

    fn settings(&self) -> Result<()> {
        none_negative("renyi", [("sigma", self.sigma)])?;
        positive("renyi", "alpha", self.alpha)
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
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
        self.log_det_of((c * lambda)?)
    }

    /// From the products of the rows of all ranks, where their sum is less traffic than the rows.
    fn shared(&self, ranks: &Ranks<'_>, z1: &Tensor, z2: &Tensor) -> Result<Option<Tensor>> {
        let (a, b) = (normalize_rows(z1, 1e-12)?, normalize_rows(z2, 1e-12)?);
        let lambda = a.dim(1)? as f64 / (ranks.total as f64 * self.eps);
        ranks.product(&b, &a)?.map(|c| self.log_det_of((c * lambda)?)).transpose()
    }

    /// `ln det(I + C)`.
    fn log_det_of(&self, c: Tensor) -> Result<Tensor> {
        if self.order == 0 {
            // det(A)^2 = det(A^T A) is symmetric and positive definite.
            let side = c.dim(0)?;
            let eye = Tensor::eye(side, c.dtype(), c.device())?;
            let shifted = (c + eye)?;
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

impl Term for Mec {
    fn name(&self) -> &str {
        "mec"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Surrogate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        let d = z.projections.dim() as f64;
        let pairs = Pairs::of("mec", z, ctx)?;
        let value = pairs.mean(|a, b| self.log_det(a, b), |r, a, b| self.shared(r, a, b))?;
        // 1 / (lambda n) = eps / d.
        let value = (value * (-self.eps / d))?;
        Ok(vec![entropy_part("mec", self.weight, value)])
    }
}

impl Entropy for Mec {
    fn check(&self) -> Result<()> {
        none_negative("mec", [("weight", self.weight)])?;
        positive("mec", "eps", self.eps)
    }

    /// `(n + d)/2 ln det(I + lambda Z Z^T) / n`, the coding length of one sample.
    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        let (n, d) = moments::matrix("mec", z, 1)?.dims2()?;
        let value = op::number(&self.log_det(z, z)?)?;
        Ok(Estimate { nats: 0.5 * (n + d) as f64 * value / n as f64, bound: Bound::Surrogate })
    }
}

/// All pairs of two views.
pub(crate) struct Pairs<'a> {
    ranks: Ranks<'a>,
    views: &'a [Tensor],
}

impl<'a> Pairs<'a> {
    pub(crate) fn of(term: &'static str, z: &'a Embeddings, ctx: &Context<'a>) -> Result<Self> {
        crate::error::views(term, 2, z.projections.len())?;
        Ok(Self { ranks: Ranks::of(ctx, z.projections.batch())?, views: z.projections.as_slice() })
    }

    /// The mean of a function of a pair: `shared` of the own rows of both views, and where that gives none for a pair,
    /// `whole` of the rows of all ranks.
    pub(crate) fn mean(
        &self,
        whole: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
        shared: impl Fn(&Ranks<'_>, &Tensor, &Tensor) -> Result<Option<Tensor>>,
    ) -> Result<Tensor> {
        let mut gathered: Option<Vec<Tensor>> = None;
        let mut values = Vec::new();
        for (i, a) in self.views.iter().enumerate() {
            for (j, b) in self.views.iter().enumerate().skip(i + 1) {
                let own = if self.ranks.alone() { None } else { shared(&self.ranks, a, b)? };
                values.push(match (own, &gathered) {
                    (Some(value), _) => value.to_dtype(op::widen(a)?.dtype())?,
                    (None, Some(all)) => whole(&all[i], &all[j])?,
                    (None, None) => {
                        let all =
                            self.views.iter().map(|v| self.ranks.gather(v)).collect::<Result<Vec<_>>>()?;
                        let value = whole(&all[i], &all[j])?;
                        gathered = Some(all);
                        value
                    }
                });
            }
        }
        Ok(Tensor::stack(&values, 0)?.mean(0)?)
    }
}

fn unit_columns(z: &Tensor) -> Result<Tensor> {
    let norms = z.sqr()?.sum_keepdim(0)?.maximum(1e-24)?.sqrt()?;
    Ok(z.broadcast_div(&norms)?)
}
