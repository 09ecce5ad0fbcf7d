//! Kernel discrepancies from `N(0, I)`: KerJEPA.

use crate::{Error, Result, entropy::per_view, moments};
use candle_core::Tensor;
use infomax_core::Bound;

/// What measures the distance to `N(0, I)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Discrepancy {
    /// The kernel Stein discrepancy, which knows the score `-z` of the target.
    #[default]
    Stein,
    /// The maximum mean discrepancy, whose expectations over the target are in closed form.
    Mmd,
}

/// The kernel, a function of `q = ||x - y||^2` in units of the bandwidth `s`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Kernel {
    /// `(1 + q / (2 s^2))^(-1/2)`, the inverse multiquadric; for Stein only.
    #[default]
    InverseMultiquadric,
    /// `exp(-q / (2 s^2))`.
    Gaussian,
}

/// Minus the squared discrepancy of the rows from `N(0, I)`, without slices (KerJEPA, Zimmermann et al., arXiv 2512.19605).
///
/// With a kernel `phi(q)`, `q = ||x - y||^2`, Stein's kernel of the score `-x` is
///
/// ```text
/// k_p(x, y) = -2 d phi' - 4 q phi'' + 2 q phi' + phi x.y
/// ```
///
/// whose expectation over `N(0, I)` is 0 for any `y`; the statistic is its mean over pairs of different rows, which is 0 in expectation for
/// `N(0, I)` at any number of rows, and can be below 0 by chance. The maximum mean discrepancy with the Gaussian kernel is
///
/// ```text
/// mean_{i != j} k(x_i, x_j) - 2 mean_i a^(d/2) exp(-||x_i||^2 / (2 s^2 + 2)) + b^(d/2),   a = s^2 / (s^2 + 1), b = s^2 / (s^2 + 2)
/// ```
///
/// The constants (bandwidth `sqrt(d)`, the weights of the preset `kerjepa`) are our choice: those of the paper were not available to us.
///
/// # Numerics
/// Distances are products, not differences: kernels vary over `2 s^2`, of the size of the squared norms, so that their
/// rounding does not count. Half types are widened.
///
/// # Gradient
/// Composed, smooth everywhere.
///
/// Cost `n^2 d`, memory `n^2`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct KernelDiscrepancy {
    /// The factor in the total.
    pub weight: f64,
    /// What is measured.
    pub discrepancy: Discrepancy,
    /// The kernel.
    pub kernel: Kernel,
    /// The bandwidth `s`; 0 for `sqrt(d)`.
    pub bandwidth: f64,
}

impl Default for KernelDiscrepancy {
    fn default() -> Self {
        Self {
            weight: 1.0,
            discrepancy: Discrepancy::Stein,
            kernel: Kernel::InverseMultiquadric,
            bandwidth: 0.0,
        }
    }
}

const NAME: &str = "kernel-discrepancy";

impl KernelDiscrepancy {
    /// The squared discrepancy of the rows of `z` `(n, d)`: a scalar, differentiable.
    ///
    /// # Errors
    /// Fewer than two rows.
    pub fn statistic(&self, z: &Tensor) -> Result<Tensor> {
        let z = moments::matrix(NAME, z, 2)?;
        let (n, d) = z.dims2()?;
        let dim = d as f64;
        let s2 = if self.bandwidth > 0.0 { self.bandwidth * self.bandwidth } else { dim };
        let gram = z.matmul(&z.t()?)?;
        let squares = z.sqr()?.sum_keepdim(1)?;
        let q = squares.broadcast_add(&squares.t()?)?.sub(&(&gram * 2.0)?)?.relu()?;
        // Pairs of different rows: a row with itself is the largest term of few rows, and would pull norms to 0.
        let others = (Tensor::ones((n, n), z.dtype(), z.device())? - Tensor::eye(n, z.dtype(), z.device())?)?;
        let mean = |pairs: &Tensor| -> Result<Tensor> {
            Ok(((pairs * &others)?.sum_all()? / (n * (n - 1)) as f64)?)
        };
        // phi, -2 phi' and 4 phi''.
        let (phi, first, second) = match self.kernel {
            Kernel::Gaussian => {
                let phi = (&q * (-0.5 / s2))?.exp()?;
                (phi.clone(), (&phi / s2)?, (phi / (s2 * s2))?)
            }
            Kernel::InverseMultiquadric => {
                let inverse = ((&q * (0.5 / s2))? + 1.0)?.recip()?;
                let phi = inverse.sqrt()?;
                let cube = (&phi * &inverse)?;
                let fifth = (&cube * &inverse)?;
                (phi, (cube * (0.5 / s2))?, (fifth * (0.75 / (s2 * s2)))?)
            }
        };
        Ok(match self.discrepancy {
            Discrepancy::Stein => {
                let trace = ((&first * dim)? - (&q * second)?)?;
                let scores = ((phi * gram)? - (q * first)?)?;
                mean(&(trace + scores)?)?
            }
            Discrepancy::Mmd => {
                let factor = (0.5 * dim * (s2 / (s2 + 1.0)).ln()).exp();
                let cross = ((squares * (-0.5 / (s2 + 1.0)))?.exp()?.mean_all()? * (2.0 * factor))?;
                let constant = (0.5 * dim * (s2 / (s2 + 2.0)).ln()).exp();
                ((mean(&phi)? - cross)? + constant)?
            }
        })
    }

    /// Minus [`KernelDiscrepancy::statistic`].
    fn entropy(&self, z: &Tensor) -> Result<Tensor> {
        Ok(self.statistic(z)?.neg()?)
    }

    fn settings(&self) -> Result<()> {
        crate::settings::not_negative(NAME, "bandwidth", self.bandwidth)?;
        if self.discrepancy == Discrepancy::Mmd && self.kernel != Kernel::Gaussian {
            return Err(Error::Config {
                term: NAME,
                key: "kernel",
                value: "inverse-multiquadric".into(),
                reason: "has no closed form over N(0, I) for `mmd`: take kernel = \"gaussian\", or discrepancy = \"stein\"",
            });
        }
        Ok(())
    }
}

per_view!(KernelDiscrepancy, "kernel-discrepancy", |_: &KernelDiscrepancy| Bound::Surrogate);

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use infomax_core::Key;

    fn normal(seed: u64, n: usize, d: usize) -> Tensor {
        Key::new(seed).normal(0.0, 1.0, (n, d), DType::F64, &Device::Cpu).unwrap()
    }

    fn value(term: &KernelDiscrepancy, z: &Tensor) -> f64 {
        term.statistic(z).unwrap().to_scalar::<f64>().unwrap()
    }

    fn all() -> [KernelDiscrepancy; 3] {
        let gaussian = KernelDiscrepancy { kernel: Kernel::Gaussian, bandwidth: 1.7, ..Default::default() };
        [
            KernelDiscrepancy { bandwidth: 1.3, ..Default::default() },
            gaussian.clone(),
            KernelDiscrepancy { discrepancy: Discrepancy::Mmd, ..gaussian },
        ]
    }

    fn kernel(term: &KernelDiscrepancy, x: &[f64], y: &[f64]) -> f64 {
        let q: f64 = x.iter().zip(y).map(|(a, b)| (a - b) * (a - b)).sum();
        let u = q / (2.0 * term.bandwidth * term.bandwidth);
        if term.kernel == Kernel::Gaussian { (-u).exp() } else { (1.0 + u).powf(-0.5) }
    }

    /// Stein's kernel from differences of the kernel itself: no derivative is typed.
    fn stein(term: &KernelDiscrepancy, x: &[f64], y: &[f64]) -> f64 {
        let h = 1e-3;
        let moved = |v: &[f64], j: usize, by: f64| {
            let mut v = v.to_vec();
            v[j] += by;
            v
        };
        let k = |x: &[f64], y: &[f64]| kernel(term, x, y);
        (0..x.len())
            .map(|j| {
                let at = |a: f64, b: f64| k(&moved(x, j, a), &moved(y, j, b));
                let both = (at(h, h) - at(h, -h) - at(-h, h) + at(-h, -h)) / (4.0 * h * h);
                let of_x = (at(h, 0.0) - at(-h, 0.0)) / (2.0 * h);
                let of_y = (at(0.0, h) - at(0.0, -h)) / (2.0 * h);
                both - x[j] * of_y - y[j] * of_x + x[j] * y[j] * k(x, y)
            })
            .sum()
    }

    #[test]
    fn values_are_those_of_kernels_without_derivatives() {
        let z = (normal(1, 7, 3) * 1.2).unwrap();
        let rows = z.to_vec2::<f64>().unwrap();
        for term in all() {
            let pairs = |of: &dyn Fn(&[f64], &[f64]) -> f64| {
                let each = (0..7).flat_map(|i| (0..7).map(move |j| (i, j))).filter(|(i, j)| i != j);
                each.map(|(i, j)| of(&rows[i], &rows[j])).sum::<f64>() / 42.0
            };
            let expected = match term.discrepancy {
                Discrepancy::Stein => pairs(&|x, y| stein(&term, x, y)),
                Discrepancy::Mmd => {
                    // Expectations of a product kernel over N(0, I), by the trapezoid rule in each dimension.
                    let grid: Vec<(f64, f64)> = (-800..=800)
                        .map(|i| f64::from(i) * 0.01)
                        .map(|t| (t, 0.01 * (-0.5 * t * t).exp() / (2.0 * std::f64::consts::PI).sqrt()))
                        .collect();
                    let over = |x: f64| grid.iter().map(|(t, w)| w * kernel(&term, &[x], &[*t])).sum::<f64>();
                    let cross: f64 =
                        rows.iter().map(|r| r.iter().map(|x| over(*x)).product::<f64>()).sum::<f64>() / 7.0;
                    let own: f64 = grid.iter().step_by(10).map(|(t, w)| 10.0 * w * over(*t)).sum();
                    pairs(&|x, y| kernel(&term, x, y)) - 2.0 * cross + own.powi(3)
                }
            };
            assert!((value(&term, &z) - expected).abs() < 1e-5, "{term:?}: {} {expected}", value(&term, &z));
        }
    }

    #[test]
    fn the_target_has_none_in_the_mean_and_others_have() {
        for term in all() {
            let term = KernelDiscrepancy { bandwidth: 0.0, ..term };
            let draws: Vec<f64> = (0..40).map(|seed| value(&term, &normal(seed, 128, 6))).collect();
            let mean = draws.iter().sum::<f64>() / 40.0;
            let deviation = (draws.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 39.0).sqrt();
            assert!(mean.abs() < 3.0 * deviation / 40f64.sqrt(), "{term:?}: {mean} {deviation}");
            let z = normal(50, 128, 6);
            let largest = draws.iter().copied().fold(0.0, f64::max);
            for other in
                [(&z * 0.01).unwrap(), (&z * 2.0).unwrap(), (&z + 1.0).unwrap(), z.powf(3.0).unwrap()]
            {
                assert!(value(&term, &other) > 2.0 * largest, "{term:?}: {} {largest}", value(&term, &other));
            }
        }
    }

    #[test]
    fn a_kernel_without_a_closed_form_is_refused() {
        let wrong = KernelDiscrepancy { discrepancy: Discrepancy::Mmd, ..Default::default() };
        assert!(wrong.settings().unwrap_err().to_string().contains("stein"));
    }
}
