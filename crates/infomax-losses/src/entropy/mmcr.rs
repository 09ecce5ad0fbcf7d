//! Maximum manifold capacity: nuclear norms of the centroids and of the views of a sample.

use crate::{
    Entropy, Estimate, Result, entropy::entropy_part, invariance::normalize_rows, moments, op, ranks::Ranks,
};
use candle_core::{DType, Device, Tensor};
use infomax_core::{Bound, Context, Embeddings, Part, Role, Term};
use infomax_kernels::linalg;

/// MMCR (Yerxa et al., arXiv 2303.03307): `-||C||_* + lambda mean_i ||Z_i||_*` with the nuclear norm `||.||_*`,
/// the centroids `C` `(n, d)` (the mean over the views of each sample) and the views `Z_i` `(V, d)` of sample `i`.
///
/// On unit rows `||C||_* <= sqrt(n min(n, d))`, with equality iff the views agree and the centroids are
/// orthogonal or uniform: one part asks for both agreement and spread. The targets of a momentum teacher, where
/// there is one, count as more views. Cost `n d min(n, d)`.
///
/// # Gradient
/// `U V^T` of the singular value decomposition; 0 on the null space, where the norm has a kink.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Mmcr {
    /// The factor of both parts.
    pub weight: f64,
    /// The factor of the views' norms (0.005).
    pub lambda: f64,
    /// Whether rows are scaled to unit length first (true; lightly leaves it to the caller).
    pub normalize: bool,
}

impl Default for Mmcr {
    fn default() -> Self {
        Self { weight: 1.0, lambda: 0.005, normalize: true }
    }
}

impl Mmcr {
    fn rows(&self, z: &Tensor) -> Result<Tensor> {
        let z = moments::matrix("mmcr", z, 1)?;
        if self.normalize { normalize_rows(&z, 1e-12) } else { Ok(z) }
    }
}

impl Term for Mmcr {
    fn name(&self) -> &str {
        "mmcr"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Surrogate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        let ranks = Ranks::of(ctx, z.projections.batch())?;
        let mut views: Vec<Tensor> = z.projections.iter().cloned().collect();
        views.extend(z.targets.iter().flat_map(infomax_core::Views::iter).map(Tensor::detach));
        let views = views.iter().map(|v| self.rows(v)).collect::<Result<Vec<_>>>()?;
        let stacked = Tensor::stack(&views, 1)?; // (n, V, d)
        // The views of a sample are on one rank: its centroid travels, not its views.
        let centroids = ranks.gather(&stacked.mean(1)?)?;
        let mut parts = vec![entropy_part("centroids", self.weight, nuclear_norm(&centroids)?.neg()?)];
        if self.lambda != 0.0 {
            let value = ranks.mean(&mean_nuclear_norm(&stacked)?)?;
            let weight = self.weight * self.lambda;
            parts.push(Part { name: "views".into(), role: Role::Invariance, weight, value });
        }
        Ok(parts)
    }
}

impl Entropy for Mmcr {
    fn check(&self) -> Result<()> {
        crate::settings::none_negative("mmcr", [("weight", self.weight), ("lambda", self.lambda)])
    }

    /// The nuclear norm of the rows over its largest value, `sqrt(n min(n, d))` for unit rows.
    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        let z = self.rows(z)?;
        let (n, d) = z.dims2()?;
        let largest = ((n * n.min(d)) as f64).sqrt();
        Ok(Estimate { nats: op::number(&nuclear_norm(&z)?)? / largest, bound: Bound::Surrogate })
    }
}

/// The nuclear norm (the sum of the singular values) of a matrix: a scalar, differentiable.
///
/// # Errors
/// Anything but a matrix of finite numbers.
pub fn nuclear_norm(z: &Tensor) -> Result<Tensor> {
    let z = moments::matrix("nuclear-norm", z, 1)?;
    let (value, grad) = norm_and_gradient(&z)?;
    Ok(op::attach(&z, op::scalar(value, &z)?, move |g| grad.broadcast_mul(g))?)
}

/// The mean of the nuclear norms of `(n, V, d)`, matrix by matrix.
fn mean_nuclear_norm(z: &Tensor) -> Result<Tensor> {
    let n = z.dim(0)?;
    let (mut sum, mut grads) = (0.0, Vec::with_capacity(n));
    for i in 0..n {
        let (value, grad) = norm_and_gradient(&z.get(i)?.contiguous()?)?;
        sum += value / n as f64;
        grads.push((grad / n as f64)?);
    }
    let grad = Tensor::stack(&grads, 0)?;
    Ok(op::attach(z, op::scalar(sum, z)?, move |g| grad.broadcast_mul(g))?)
}

fn norm_and_gradient(z: &Tensor) -> Result<(f64, Tensor)> {
    let data = z.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    let (n, d) = data.dims2()?;
    let value = linalg::singular_values(&data)?.iter().sum();
    // U V^T = (Z Z^T)^{-1/2} Z = Z (Z^T Z)^{-1/2}, by the smaller of the two.
    let wide = n < d;
    let gram = if wide { data.matmul(&data.t()?)? } else { data.t()?.matmul(&data)? };
    let (values, vectors) = linalg::eigh(&gram)?;
    let values = op::host(&values)?;
    // Below it, the squares are rounding: a null direction, where the subgradient is 0.
    let cut = 1e-13 * values.iter().fold(0f64, |m, v| m.max(*v));
    let roots: Vec<f64> = values.iter().map(|v| if *v > cut { 1.0 / v.sqrt() } else { 0.0 }).collect();
    let roots = Tensor::from_vec(roots, (1, values.len()), &Device::Cpu)?;
    let inverse = vectors.broadcast_mul(&roots)?.matmul(&vectors.t()?)?;
    let grad = if wide { inverse.matmul(&data)? } else { data.matmul(&inverse)? };
    Ok((value, grad.to_dtype(z.dtype())?.to_device(z.device())?))
}
