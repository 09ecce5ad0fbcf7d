//! Sliced comparisons with a Gaussian: SIGReg and VISReg.

use crate::{
    Entropy, Estimate, Result,
    entropy::{centred, entropy_part, mixture::positive},
    moments, op,
};
use candle_core::{DType, Device, Tensor};
use infomax_core::{Bound, Context, Embeddings, Key, Part};
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
}

impl Default for SigReg {
    fn default() -> Self {
        Self { weight: 0.02, slices: 1024, knots: 17, t_max: 3.0 }
    }
}

impl SigReg {
    /// The statistic of the rows of `z` `(n, d)` on directions drawn from `key`: a scalar, differentiable.
    ///
    /// # Errors
    /// Anything but a matrix.
    pub fn statistic(&self, z: &Tensor, key: Key) -> Result<Tensor> {
        let z = moments::matrix("sigreg", z, 1)?;
        let directions = directions(&z, self.slices, key)?;
        Ok(epps_pulley(&z.matmul(&directions)?, self.knots, self.t_max)?.mean_all()?)
    }

    /// The expectation of the statistic for `N(0, I)`, for any number of samples.
    pub fn floor(&self) -> f64 {
        grid(self.knots, self.t_max).iter().map(|(_, phi, weight)| weight * (1.0 - phi * phi)).sum()
    }
}

impl Entropy for SigReg {
    fn name(&self) -> &'static str {
        "sigreg"
    }

    fn bound(&self) -> Bound {
        Bound::Surrogate
    }

    fn check(&self) -> Result<()> {
        positive("sigreg", "slices", self.slices as f64)?;
        positive("sigreg", "knots", self.knots as f64 - 1.0)?;
        positive("sigreg", "t_max", self.t_max)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> Result<Vec<Part>> {
        let key = ctx.key.fold_named("sigreg");
        let value = crate::entropy::mean_over_views(z, ctx, |view| self.statistic(view, key))?;
        Ok(vec![entropy_part("sigreg", self.weight, value)])
    }

    /// Minus the statistic above its floor: 0 in expectation for `N(0, I)`.
    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        let value = op::number(&self.statistic(z, Key::new(0).fold_named("sigreg"))?)?;
        Ok(Estimate { nats: self.floor() - value, bound: Bound::Surrogate })
    }
}

/// The Epps-Pulley statistics of the columns of `y` `(n, m)`, as [`SigReg`] defines them: shape `(m)`.
///
/// One sine and cosine an element; the other points of the equispaced grid follow by rotation, in f64.
///
/// # Errors
/// Anything but a matrix.
pub fn epps_pulley(y: &Tensor, knots: usize, t_max: f64) -> Result<Tensor> {
    let y = moments::matrix("epps-pulley", y, 1)?;
    let (n, m) = y.dims2()?;
    let grid = grid(knots.max(2), t_max);
    let step = grid[1].0;
    let values = op::host(&y)?;
    let points = grid.len();
    // Sums over the samples of cos and sin of t_q y, for every point and column.
    let mut cosines = vec![0f64; points * m];
    let mut sines = vec![0f64; points * m];
    let mut rotor = Rotor::new(m);
    for row in values.chunks_exact(m) {
        rotor.start(row, step);
        for q in 0..points {
            let (cs, ss) = (&mut cosines[q * m..(q + 1) * m], &mut sines[q * m..(q + 1) * m]);
            for j in 0..m {
                cs[j] += rotor.cos[j];
                ss[j] += rotor.sin[j];
            }
            rotor.turn();
        }
    }
    let count = n as f64;
    let mut value = vec![0f64; m];
    for (q, (_, phi, weight)) in grid.iter().enumerate() {
        for j in 0..m {
            let (c, s) = (cosines[q * m + j] / count - phi, sines[q * m + j] / count);
            value[j] += count * weight * (c * c + s * s);
        }
    }
    let value = Tensor::from_vec(value, m, &Device::Cpu)?.to_dtype(y.dtype())?.to_device(y.device())?;
    let (dtype, device) = (y.dtype(), y.device().clone());
    let grad = move |g: &Tensor| {
        let g = op::host(g)?;
        let mut grad = vec![0f64; n * m];
        let mut rotor = Rotor::new(m);
        for (row, out) in values.chunks_exact(m).zip(grad.chunks_exact_mut(m)) {
            rotor.start(row, step);
            for (q, (t, phi, weight)) in grid.iter().enumerate() {
                let factor = 2.0 * weight * t;
                for j in 0..m {
                    let (c, s) = (cosines[q * m + j] / count - phi, sines[q * m + j] / count);
                    out[j] += factor * (s * rotor.cos[j] - c * rotor.sin[j]);
                }
                rotor.turn();
            }
            for (v, g) in out.iter_mut().zip(&g) {
                *v *= g;
            }
        }
        Tensor::from_vec(grad, (n, m), &Device::Cpu)?.to_dtype(dtype)?.to_device(&device)
    };
    if y.device().is_cpu() {
        return Ok(op::attach(&y, value, grad)?);
    }
    // Elsewhere only scalars can be attached: one column after the other would be slow, so the host is used.
    let host = y.to_device(&Device::Cpu)?;
    Ok(epps_pulley(&host, knots, t_max)?.to_device(y.device())?)
}

/// `cos(q a)` and `sin(q a)` of a row of angles, for `q = 0, 1, ...`.
struct Rotor {
    cos: Vec<f64>,
    sin: Vec<f64>,
    step_cos: Vec<f64>,
    step_sin: Vec<f64>,
}

impl Rotor {
    fn new(m: usize) -> Self {
        Self { cos: vec![0.0; m], sin: vec![0.0; m], step_cos: vec![0.0; m], step_sin: vec![0.0; m] }
    }

    fn start(&mut self, row: &[f64], step: f64) {
        self.cos.fill(1.0);
        self.sin.fill(0.0);
        for (j, v) in row.iter().enumerate() {
            (self.step_sin[j], self.step_cos[j]) = (v * step).sin_cos();
        }
    }

    fn turn(&mut self) {
        let zipped = self.cos.iter_mut().zip(&mut self.sin).zip(self.step_cos.iter().zip(&self.step_sin));
        for ((c, s), (a, b)) in zipped {
            (*c, *s) = (*c * a - *s * b, *s * a + *c * b);
        }
    }
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

pub(crate) fn directions(z: &Tensor, slices: usize, key: Key) -> Result<Tensor> {
    let d = z.dim(1)?;
    let a = key.normal(0.0, 1.0, (d, slices), DType::F64, &Device::Cpu)?;
    let a = a.broadcast_div(&a.sqr()?.sum_keepdim(0)?.sqrt()?)?;
    Ok(a.to_dtype(z.dtype())?.to_device(z.device())?)
}

/// VISReg (Wu et al., arXiv 2606.02572): squared mean, squared deviation of the standard deviations from 1,
/// and the sliced 2-Wasserstein distance of the standardised batch to `N(0, I)`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VisReg {
    /// The weight of the scale part (0.9).
    pub scale: f64,
    /// The weight of the shape part (0.9).
    pub shape: f64,
    /// The weight of the centre part (0.9).
    pub centre: f64,
    /// The number of directions (4096).
    pub slices: usize,
    /// Added to the standard deviations (1e-4).
    pub eps: f64,
}

impl Default for VisReg {
    fn default() -> Self {
        Self { scale: 0.9, shape: 0.9, centre: 0.9, slices: 4096, eps: 1e-4 }
    }
}

impl VisReg {
    /// `[scale, shape, centre]` of one view `(n, d)`: shape `(3)`, differentiable. The standard deviations
    /// that the shape part divides by get no gradient.
    ///
    /// # Errors
    /// Fewer than two rows.
    pub fn parts(&self, z: &Tensor, key: Key) -> Result<Tensor> {
        let z = moments::matrix("visreg", z, 2)?;
        let n = z.dim(0)?;
        let zc = centred(&z)?;
        // The floor keeps the gradient of the root finite for a constant column.
        let std = zc.sqr()?.mean_keepdim(0)?.maximum(1e-24)?.sqrt()?;
        let scale = std.affine(-1.0, 1.0)?.sqr()?.mean_all()?;
        let centre = z.mean(0)?.sqr()?.mean_all()?;
        let standard = zc.broadcast_div(&(std.detach() + self.eps)?)?;
        let y = standard.matmul(&directions(&z, self.slices, key)?)?;
        let quantiles: Vec<f64> = (1..=n).map(|i| normal_quantile(i as f64 / (n as f64 + 1.0))).collect();
        let m = self.slices;
        let values = op::host(&y)?;
        let mut residual = vec![0f64; n * m];
        let mut sum = 0.0;
        let mut order: Vec<usize> = (0..n).collect();
        for j in 0..m {
            order.sort_by(|a, b| values[a * m + j].total_cmp(&values[b * m + j]));
            for (rank, i) in order.iter().enumerate() {
                let e = values[i * m + j] - quantiles[rank];
                sum += e * e;
                residual[i * m + j] = 2.0 * e / (n * m) as f64;
            }
        }
        let grad =
            Tensor::from_vec(residual, (n, m), &Device::Cpu)?.to_dtype(z.dtype())?.to_device(z.device())?;
        let shape = op::attach(&y, op::scalar(sum / (n * m) as f64, &z)?, move |g| grad.broadcast_mul(g))?;
        Ok(Tensor::stack(&[scale, shape, centre], 0)?)
    }
}

impl Entropy for VisReg {
    fn name(&self) -> &'static str {
        "visreg"
    }

    fn bound(&self) -> Bound {
        Bound::Surrogate
    }

    fn check(&self) -> Result<()> {
        positive("visreg", "slices", self.slices as f64)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> Result<Vec<Part>> {
        let key = ctx.key.fold_named("visreg");
        let mut parts = Vec::new();
        for view in z.projections.iter() {
            parts.push(self.parts(&ctx.collective.all_gather(view)?, key)?);
        }
        let parts = Tensor::stack(&parts, 0)?.mean(0)?;
        Ok(vec![
            entropy_part("scale", self.scale, parts.get(0)?),
            entropy_part("shape", self.shape, parts.get(1)?),
            entropy_part("centre", self.centre, parts.get(2)?),
        ])
    }

    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        let parts = op::host(&self.parts(z, Key::new(0).fold_named("visreg"))?)?;
        let nats = -(self.scale * parts[0] + self.shape * parts[1] + self.centre * parts[2]);
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
