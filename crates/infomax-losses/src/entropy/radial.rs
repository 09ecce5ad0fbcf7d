//! Norms of embeddings against the chi distribution: Radial-VCReg.

use super::{MSpacing, Squash, Vicreg};
use crate::ranks::Ranks;
use crate::{Entropy, Estimate, MomentForm, Reduce, Result, entropy::entropy_part, moments, op, special};
use candle_core::Tensor;
use infomax_core::{Bound, Context, Embeddings, Part, Role, Term};
use std::f64::consts::LN_2;

/// Radial-VCReg (Kuang et al., arXiv 2602.14272; its forward form): variance and covariance of [`super::Vicreg`], and
/// the divergence of the norms `r_i = ||z_i||` from the chi distribution of `d` degrees of freedom, that of the norms
/// of `N(0, I)`,
///
/// ```text
/// KL(r || chi_d) = E[-ln chi_d(r)] - h(r),    -ln chi_d(r) = r^2 / 2 - (d - 1) ln r + const
/// ```
///
/// as two parts: `radial`, the mean of `r^2 / 2 - (d - 1) ln r` less its value at `r = sqrt(d)`, and `norms`, minus the entropy
/// of the norms by `m`-spacings ([`MSpacing`] without a transformation). Second moments alone do not tell a normal cloud from
/// many others of unit covariance; norms tell some of them. [`Radial::divergence`] is the divergence in nats.
///
/// The weights of both radial parts (1) are our choice: those of the paper for images were not available to us, and its
/// experiments in two dimensions have 100.
///
/// # Numerics
/// Powers of `r` are formed of `r^2 / d`, whose logarithm is small near the target, so that f32 keeps its digits
/// for any `d`. Norms below `1e-6` count as `1e-6`.
///
/// # Gradient
/// Through the order of the norms; that of the first radial part is `z (1 - (d - 1) / r^2) / n`. A row of norm 0 has none.
///
/// Cost `n d m` of the moments, and `n d + n ln n`.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Radial {
    /// Weight of the variance part (25).
    pub variance: f64,
    /// Weight of the covariance part (1).
    pub covariance: f64,
    /// Weight of the cross-entropy of the norms and the chi distribution (1).
    pub radial: f64,
    /// Weight of the entropy of the norms (1).
    pub norms: f64,
    /// The steps of the spacings; 0 for `round(sqrt n)`.
    pub m: usize,
    /// The standard deviation above which the hinge is silent (1).
    pub gamma: f64,
    /// Added to the variance under the root (1e-4).
    pub eps: f64,
    /// How the views' variance parts are joined (the mean).
    pub variance_views: Reduce,
    /// How the views' covariance parts are joined (the sum).
    pub covariance_views: Reduce,
    /// The form of the covariance part.
    pub path: MomentForm,
}

impl Default for Radial {
    fn default() -> Self {
        Self {
            variance: 25.0,
            covariance: 1.0,
            radial: 1.0,
            norms: 1.0,
            m: 0,
            gamma: 1.0,
            eps: 1e-4,
            variance_views: Reduce::Mean,
            covariance_views: Reduce::Sum,
            path: MomentForm::Auto,
        }
    }
}

/// The least norm.
const LEAST: f64 = 1e-6;

impl Radial {
    /// `KL(r || chi_d)` in nats of the norms of the rows of `z` `(n, d)`, by spacings: a scalar, differentiable. An estimate, which can be below 0 by
    /// chance, and is too high by what spacings of `m` steps miss of the tails (0.05 of 4,000 normal rows).
    ///
    /// # Errors
    /// Fewer than two rows, or `m >= n`.
    pub fn divergence(&self, z: &Tensor) -> Result<Tensor> {
        let z = moments::matrix("radial", z, 2)?;
        let d = z.dim(1)? as f64;
        let parts = self.of_squares(&squares(&z)?, d)?;
        // -ln chi_d at r = sqrt(d).
        let constant =
            0.5 * d - 0.5 * (d - 1.0) * d.ln() + (0.5 * d - 1.0) * LN_2 + special::ln_gamma(0.5 * d);
        Ok((parts.sum_all()? + constant)?)
    }

    /// The term of the second moments.
    fn moments(&self) -> Vicreg {
        let Self { variance, covariance, gamma, eps, variance_views, covariance_views, path, .. } = *self;
        Vicreg { variance, covariance, gamma, eps, variance_views, covariance_views, path }
    }

    /// `[cross-entropy above that at sqrt(d), minus the entropy of the norms]` of squared norms `(n, 1)`.
    fn of_squares(&self, squares: &Tensor, d: f64) -> Result<Tensor> {
        let squares = squares.maximum(LEAST * LEAST)?;
        let ratio = (&squares / d)?;
        let cross = (((&ratio - 1.0)? * (0.5 * d))? - (ratio.log()? * (0.5 * (d - 1.0)))?)?.mean_all()?;
        let spacing = MSpacing { m: self.m, squash: Squash::None, ..Default::default() };
        let entropy = spacing.entropy(&squares.sqrt()?).map_err(|e| e.of_term("radial"))?;
        Ok(Tensor::stack(&[cross, entropy.neg()?], 0)?)
    }
}

/// The squared norms of the rows `(n, 1)`.
fn squares(z: &Tensor) -> Result<Tensor> {
    Ok(z.sqr()?.sum_keepdim(1)?)
}

impl Term for Radial {
    fn name(&self) -> &str {
        "radial"
    }

    fn role(&self) -> Role {
        Role::Entropy
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::Surrogate)
    }

    fn evaluate(&self, z: &Embeddings, ctx: &Context<'_>) -> infomax_core::Result<Vec<Part>> {
        let ranks = Ranks::of(ctx, z.projections.batch())?;
        let mut parts = self.moments().parts(z, &ranks)?;
        let mut radial = Vec::new();
        for view in z.projections.iter() {
            let view = moments::matrix("radial", view, 1)?;
            // Of the other ranks norms are enough.
            let norms = ranks.gather(&squares(&view)?)?;
            radial.push(self.of_squares(&norms, view.dim(1)? as f64)?);
        }
        let radial = Tensor::stack(&radial, 0)?.mean(0)?;
        parts.extend([
            entropy_part("radial", self.radial, radial.get(0)?),
            entropy_part("norms", self.norms, radial.get(1)?),
        ]);
        Ok(parts)
    }
}

impl Entropy for Radial {
    fn check(&self) -> Result<()> {
        self.moments().check().map_err(|e| e.of_term("radial"))?;
        crate::settings::none_negative("radial", [("radial", self.radial), ("norms", self.norms)])
    }

    fn estimate(&self, z: &Tensor) -> Result<Estimate> {
        let z = moments::matrix("radial", z, 2)?;
        let moments = self.moments().estimate(&z)?.nats;
        let radial = op::host(&self.of_squares(&squares(&z)?, z.dim(1)? as f64)?)?;
        let nats = moments - (self.radial * radial[0] + self.norms * radial[1]);
        Ok(Estimate { nats, bound: Bound::Surrogate })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use infomax_core::{Key, Views};

    fn normal(seed: u64, n: usize, d: usize) -> Tensor {
        Key::new(seed).normal(0.0, 1.0, (n, d), DType::F64, &Device::Cpu).unwrap()
    }

    fn number(t: &Tensor) -> f64 {
        t.to_dtype(DType::F64).unwrap().to_scalar::<f64>().unwrap()
    }

    #[test]
    fn parts_are_those_of_the_formulas_typed_again() {
        let z = (normal(1, 23, 5) * 1.3).unwrap();
        let rows = z.to_vec2::<f64>().unwrap();
        let mut norms: Vec<f64> = rows.iter().map(|r| r.iter().map(|v| v * v).sum::<f64>().sqrt()).collect();
        let cross = norms.iter().map(|r| 0.5 * r * r - 4.0 * r.ln()).sum::<f64>() / 23.0;
        norms.sort_by(f64::total_cmp);
        let m = 5; // round(sqrt 23)
        let entropy =
            (0..23 - m).map(|i| ((norms[i + m] - norms[i]) * 24.0 / m as f64 + 1e-7).ln()).sum::<f64>()
                / (23 - m) as f64;
        let term = Radial { variance: 0.0, covariance: 0.0, ..Default::default() };
        let views = Views::new(vec![z.clone(), z.clone()]).unwrap();
        let parts = term.evaluate(&Embeddings::new(views), &Context::standalone()).unwrap();
        let value = |name: &str| number(&parts.iter().find(|p| p.name == name).unwrap().value);
        let at_target = 0.5 * 5.0 - 2.0 * 5f64.ln();
        assert!((value("radial") - (cross - at_target)).abs() < 1e-12);
        assert!((value("norms") + entropy).abs() < 1e-12);
        // Gamma(5/2) = 3/4 sqrt(pi).
        let constant = 1.5 * LN_2 + (0.75 * std::f64::consts::PI.sqrt()).ln();
        assert!((number(&term.divergence(&z).unwrap()) - (cross + constant - entropy)).abs() < 1e-12);
    }

    #[test]
    fn normal_rows_are_near_the_chi_distribution_and_others_of_unit_covariance_are_not() {
        let (n, d) = (4_000, 8);
        let term = Radial::default();
        let divergence = |z: &Tensor| number(&term.divergence(z).unwrap());
        let z = normal(2, n, d);
        // Spacings of 63 steps miss a part of the tails.
        assert!(divergence(&z).abs() < 0.1, "{}", divergence(&z));
        // On a sphere of radius sqrt(d): unit covariance, one norm.
        let sphere = z.broadcast_div(&z.sqr().unwrap().mean_keepdim(1).unwrap().sqrt().unwrap()).unwrap();
        assert!(divergence(&sphere) > 3.0, "{}", divergence(&sphere));
        // Two scales, of unit covariance together.
        let scales: Vec<f64> =
            (0..n).map(|i| if i % 2 == 0 { 0.4 } else { (2.0f64 - 0.16).sqrt() }).collect();
        let mixed = z.broadcast_mul(&Tensor::from_vec(scales, (n, 1), &Device::Cpu).unwrap()).unwrap();
        assert!(divergence(&mixed) > 0.3, "{}", divergence(&mixed));
    }

    #[test]
    fn wide_rows_in_f32_have_the_value_of_f64() {
        let z = normal(3, 64, 4_096);
        let wide = number(&Radial::default().divergence(&z).unwrap());
        let narrow = number(&Radial::default().divergence(&z.to_dtype(DType::F32).unwrap()).unwrap());
        assert!((wide - narrow).abs() < 2e-2, "{wide} {narrow}");
    }
}
