//! Sliced comparisons with a Gaussian: SIGReg and VISReg.

use crate::{
    Entropy, Estimate, Result,
    entropy::{centered, entropy_part},
    moments, op,
    ranks::Ranks,
    settings::{count, none_negative, positive},
};
use candle_core::{DType, Device, Tensor};
use infomax_core::{Bound, Context, Embeddings, Key, Part, Role, Term};
use infomax_kernels::columns::{Columns, Finishing};
use infomax_kernels::{characteristic_error, characteristic_error_over};
use std::f64::consts::PI;

/// The sliced Epps-Pulley statistic of LeJEPA (Balestriero and LeCun, arXiv 2511.08544): how far random
/// projections of the embeddings are from `N(0, 1)`.
///
/// ```text
/// n sum_q w_q phi(t_q) [ (mean_i cos t_q y_i - phi(t_q))^2 + (mean_i sin t_q y_i)^2 ],  phi(t) = exp(-t^2/2)
/// ```
/// averaged over slices `y = Z a`, `|a| = 1`, drawn from the step's key, equal on all ranks. `t_q` are
/// `knots` points of `[0, t_max]` with trapezoid weights of the symmetric integral.
///
/// The statistic does not go to 0: for perfect `N(0, I)` its expectation is [`SigReg::floor`] (1.0525).
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct SigReg {
    /// The factor in the total (0.02; lightly 0.05).
    pub weight: f64,
    /// The number of directions (1024).
    pub slices: usize,
    /// The number of points of the grid (17).
    pub knots: usize,
    /// The end of the grid (3).
    pub t_max: f64,
    /// A seed of the directions, which are then the same at every step; unset, they follow from the step's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl Default for SigReg {
    fn default() -> Self {
        Self { weight: 0.02, slices: 1024, knots: 17, t_max: 3.0, seed: None }
    }
}

impl SigReg {
    /// The statistic of the rows of `z` `(n, d)` on directions drawn from `key`: a scalar, differentiable.
    ///
    /// # Errors
    /// Anything but a matrix.
    pub fn statistic(&self, z: &Tensor, key: Key) -> Result<Tensor> {
        let z = moments::matrix("sigreg", z, 1)?;
        self.along(&z, &directions(&z, self.slices, key)?)
    }

    /// The statistic of the rows of `z` `(n, d)` along given directions, the columns of `(d, m)`: a scalar,
    /// differentiable in `z`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn along(&self, z: &Tensor, directions: &Tensor) -> Result<Tensor> {
        let z = &moments::matrix("sigreg", z, 1)?;
        let directions = &fitting("sigreg", z, directions)?;
        Ok(epps_pulley(&project(z, directions)?, self.knots, self.t_max)?.mean_all()?)
    }

    /// From the characteristic functions of all ranks, where their sums are less traffic than the rows.
    fn shared(&self, ranks: &Ranks<'_>, z: &Tensor, directions: &Tensor) -> Result<Option<Tensor>> {
        let numbers = 2 * self.knots.max(2) * self.slices + 1;
        if !infomax_kernels::has_cpu_kernels(z) || !ranks.sums_pay(numbers, z) {
            return Ok(None);
        }
        let z = &moments::matrix("sigreg", z, 1)?;
        let y = project(z, &fitting("sigreg", z, directions)?)?;
        let (step, targets, weights) = points(self.knots, self.t_max);
        let sum = &|values: &mut [f64]| ranks.add(values);
        Ok(Some(
            characteristic_error_over(&y, step, &targets, &weights, ranks.collective.size(), sum)?
                .mean_all()?,
        ))
    }

    /// The expectation of the statistic for `N(0, I)`, for any number of samples.
    pub fn floor(&self) -> f64 {
        grid(self.knots, self.t_max).iter().map(|(_, phi, weight)| weight * (1.0 - phi * phi)).sum()
    }
}

impl Term for SigReg {
    fn name(&self) -> &str {
        "sigreg"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Surrogate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        let key = slices_key("sigreg", self.seed, ctx.key);
        // All views have the same width, and so the same directions.
        let first = moments::matrix("sigreg", &z.projections[0], 1)?;
        let directions = directions(&first, self.slices, key)?;
        let of_rows = |view: &Tensor| self.along(&moments::matrix("sigreg", view, 1)?, &directions);
        let shared = |ranks: &Ranks<'_>, view: &Tensor| self.shared(ranks, view, &directions);
        let value = crate::entropy::mean_over_views(z, ctx, of_rows, shared)?;
        Ok(vec![entropy_part("sigreg", self.weight, value)])
    }
}

impl Entropy for SigReg {
    fn check(&self) -> Result<()> {
        none_negative("sigreg", [("weight", self.weight)])?;
        count("sigreg", "slices", self.slices, 1)?;
        count("sigreg", "knots", self.knots, 2)?;
        positive("sigreg", "t_max", self.t_max)
    }

    /// Minus the statistic above its floor: 0 in expectation for `N(0, I)`.
    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        let value = op::number(&self.statistic(z, slices_key("sigreg", self.seed, Key::new(0)))?)?;
        Ok(Estimate { nats: self.floor() - value, bound: Bound::Surrogate })
    }
}

/// The Epps-Pulley statistics of the columns of `y` `(n, m)`, as [`SigReg`] defines them: shape `(m)`.
///
/// One sine and cosine an element; the other points of the equispaced grid follow by rotation.
///
/// # Errors
/// Anything but a matrix.
pub fn epps_pulley(y: &Tensor, knots: usize, t_max: f64) -> Result<Tensor> {
    let y = moments::matrix("epps-pulley", y, 1)?;
    let (step, targets, weights) = points(knots, t_max);
    Ok(characteristic_error(&y, step, &targets, &weights)?)
}

/// The step of the grid, the targets and the weights at its points.
fn points(knots: usize, t_max: f64) -> (f64, Vec<f64>, Vec<f64>) {
    let grid = grid(knots.max(2), t_max);
    (grid[1].0, grid.iter().map(|point| point.1).collect(), grid.iter().map(|point| point.2).collect())
}

/// The mean squared difference of the sorted columns of `y` `(n, m)` and a goal by rank and column: a scalar,
/// differentiable in `y`. Of equal values that of the earlier row counts as less.
pub(super) fn against(y: &Tensor, goal: impl Fn(usize, usize) -> f64) -> Result<Tensor> {
    let (n, m) = y.dims2()?;
    let values = op::host(y)?;
    let mut residual = vec![0f64; n * m];
    let mut sum = 0.0;
    let mut order: Vec<usize> = (0..n).collect();
    for j in 0..m {
        order.sort_by(|a, b| values[a * m + j].total_cmp(&values[b * m + j]));
        for (rank, i) in order.iter().enumerate() {
            let e = values[i * m + j] - goal(rank, j);
            sum += e * e;
            residual[i * m + j] = 2.0 * e / (n * m) as f64;
        }
    }
    let grad =
        Tensor::from_vec(residual, (n, m), &Device::Cpu)?.to_dtype(y.dtype())?.to_device(y.device())?;
    Ok(op::attach(y, op::scalar(sum / (n * m) as f64, y)?, move |g| grad.broadcast_mul(g))?)
}

/// `Z A` for constant directions `A`: the gradient is that of `Z` alone.
pub(super) fn project(z: &Tensor, directions: &Tensor) -> Result<Tensor> {
    if !infomax_kernels::has_cpu_kernels(z) {
        return Ok(z.matmul(directions)?);
    }
    let y = Columns::plain(z)?.right(directions, &Finishing::default())?;
    let back = directions.t()?.contiguous()?;
    Ok(op::attach(z, y, move |g| Ok(Columns::plain(g)?.right(&back, &Finishing::default())?))?)
}

/// `(t, phi(t), w phi(t))` of the grid.
fn grid(knots: usize, t_max: f64) -> Vec<(f64, f64, f64)> {
    let step = t_max / (knots - 1) as f64;
    (0..knots)
        .map(|q| {
            let t = q as f64 * step;
            let weight = if q == 0 || q == knots - 1 { step } else { 2.0 * step };
            let phi = (-0.5 * t * t).exp();
            (t, phi, weight * phi)
        })
        .collect()
}

/// The key of the directions: of a fixed seed, or of the step.
pub(crate) fn slices_key(term: &str, seed: Option<u64>, step: Key) -> Key {
    seed.map_or(step, Key::new).fold_named(term)
}

/// Given directions in the type and on the device of the rows.
pub(crate) fn fitting(term: &'static str, z: &Tensor, directions: &Tensor) -> Result<Tensor> {
    if directions.rank() != 2 || directions.dims()[0] != z.dims()[1] || directions.dims()[1] == 0 {
        let expected = "directions (d, m) as columns, for embeddings (n, d)";
        return Err(crate::Error::Shape { term, expected, got: directions.dims().to_vec() });
    }
    Ok(directions.to_dtype(z.dtype())?.to_device(z.device())?.contiguous()?)
}

pub(crate) fn directions(z: &Tensor, slices: usize, key: Key) -> Result<Tensor> {
    let d = z.dim(1)?;
    let a = key.normal(0.0, 1.0, (d, slices), DType::F64, &Device::Cpu)?;
    let a = a.broadcast_div(&a.sqr()?.sum_keepdim(0)?.sqrt()?)?;
    Ok(a.to_dtype(z.dtype())?.to_device(z.device())?)
}

/// VISReg (Wu et al., arXiv 2606.02572): squared mean, squared deviation of the standard deviations from 1,
/// and the sliced 2-Wasserstein distance of the standardized batch to `N(0, I)`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct VisReg {
    /// The weight of the scale part (0.9).
    pub scale: f64,
    /// The weight of the shape part (0.9).
    pub shape: f64,
    /// The weight of the center part (0.9).
    pub center: f64,
    /// The number of directions (4096).
    pub slices: usize,
    /// A seed of the directions, which are then the same at every step; unset, they follow from the step's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// Added to the standard deviations (1e-4).
    pub eps: f64,
}

impl Default for VisReg {
    fn default() -> Self {
        Self { scale: 0.9, shape: 0.9, center: 0.9, slices: 4096, seed: None, eps: 1e-4 }
    }
}

impl VisReg {
    /// `[scale, shape, center]` of one view `(n, d)`: shape `(3)`, differentiable. The standard deviations
    /// that the shape part divides by get no gradient.
    ///
    /// # Errors
    /// Fewer than two rows.
    pub fn parts(&self, z: &Tensor, key: Key) -> Result<Tensor> {
        let z = moments::matrix("visreg", z, 2)?;
        self.along(&z, &directions(&z, self.slices, key)?)
    }

    /// The parts along given directions, the columns of `(d, m)`: shape `(3)`, differentiable in `z`.
    ///
    /// # Errors
    /// Fewer than two rows; shapes that do not fit.
    pub fn along(&self, z: &Tensor, directions: &Tensor) -> Result<Tensor> {
        let z = moments::matrix("visreg", z, 2)?;
        let directions = fitting("visreg", &z, directions)?;
        let n = z.dim(0)?;
        let zc = centered(&z)?;
        // The floor keeps the gradient of the root finite for a constant column.
        let std = zc.sqr()?.mean_keepdim(0)?.maximum(1e-24)?.sqrt()?;
        let scale = std.affine(-1.0, 1.0)?.sqr()?.mean_all()?;
        let center = z.mean(0)?.sqr()?.mean_all()?;
        let standard = zc.broadcast_div(&(std.detach() + self.eps)?)?;
        let y = project(&standard, &directions)?;
        let quantiles: Vec<f64> = (1..=n).map(|i| normal_quantile(i as f64 / (n as f64 + 1.0))).collect();
        let shape = against(&y, |rank, _| quantiles[rank])?;
        Ok(Tensor::stack(&[scale, shape, center], 0)?)
    }
}

impl Term for VisReg {
    fn name(&self) -> &str {
        "visreg"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Surrogate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        let key = slices_key("visreg", self.seed, ctx.key);
        let mut parts = Vec::new();
        for view in z.projections.iter() {
            parts.push(self.parts(&ctx.collective.all_gather_same(view)?, key)?);
        }
        let parts = Tensor::stack(&parts, 0)?.mean(0)?;
        Ok(vec![
            entropy_part("scale", self.scale, parts.get(0)?),
            entropy_part("shape", self.shape, parts.get(1)?),
            entropy_part("center", self.center, parts.get(2)?),
        ])
    }
}

impl Entropy for VisReg {
    fn check(&self) -> Result<()> {
        let Self { scale, shape, center, eps, .. } = *self;
        none_negative("visreg", [("scale", scale), ("shape", shape), ("center", center), ("eps", eps)])?;
        count("visreg", "slices", self.slices, 1)
    }

    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        let parts = op::host(&self.parts(z, slices_key("visreg", self.seed, Key::new(0)))?)?;
        let nats = -(self.scale * parts[0] + self.shape * parts[1] + self.center * parts[2]);
        Ok(Estimate { nats, bound: Bound::Surrogate })
    }
}

/// The quantile of `N(0, 1)`: bisection on the distribution function, finished by Newton's method.
fn normal_quantile(p: f64) -> f64 {
    let cdf = |x: f64| 0.5 * (1.0 + crate::special::erf(x * std::f64::consts::FRAC_1_SQRT_2));
    let (mut low, mut high) = (-40.0, 40.0);
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if cdf(middle) < p { low = middle } else { high = middle }
    }
    let mut x = 0.5 * (low + high);
    for _ in 0..3 {
        x -= (cdf(x) - p) * (2.0 * PI).sqrt() * (0.5 * x * x).exp();
    }
    x
}
