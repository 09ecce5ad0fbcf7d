//! The account of an objective on one batch: `I >= H(Z) + E ln q(z | z')`, in nats.

use crate::bounds::Account;
use crate::entropy::{Gaussian, Vmf};
use crate::{Entropy as _, EntropyConfig, Estimate, InvarianceConfig, ObjectiveConfig, Result, op, special};
use candle_core::{DType, Device, Tensor};
use infomax_core::Embeddings;
use std::f64::consts::PI;

/// Where the densities of an account live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Space {
    /// `R^d`: the conditional is Gaussian, `q = N(z', s2 I)` with the best `s2`.
    Euclidean,
    /// The unit sphere of `R^d`: the conditional is von Mises-Fisher around `z'` with a fitted `kappa`.
    Sphere,
}

/// The account of an objective, see [`ObjectiveConfig::account`].
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ObjectiveAccount {
    /// Where the densities live.
    pub space: Space,
    /// The estimator of the entropy part.
    pub estimator: String,
    /// Whether the objective's own entropy term is not in nats (a surrogate) or missing, so that `estimator`
    /// stands in for it.
    pub stands_in: bool,
    /// The variance `s2` of the Gaussian conditional, or the `kappa` of the von Mises-Fisher one.
    pub spread: f64,
    /// The three numbers, in nats.
    #[serde(flatten)]
    pub account: Account,
}

impl ObjectiveConfig {
    /// The bound of arXiv 2303.00633 on the projections, `I(Z; X') >= H(Z) + E ln q(z | z')`: the entropy part, the
    /// conditional part and their sum, in nats. For training steps and for inspection; without gradient.
    ///
    /// - **Space.** The unit sphere where the objective compares or spreads unit rows (cosine invariances,
    ///   `normalize = true`, contrastive and other spherical entropies), else `R^d`.
    /// - **Entropy.** The mean over the views. An estimator that is in nats on that space is used as it is, and its
    ///   [`infomax_core::Bound`] is that of the part: `gaussian`, `hadamard` (upper), `pairdist`, `pairdist-full`
    ///   (upper or lower, of the mixture), `kde`, `kozachenko-leonenko` (estimates); on the sphere `vmf`, `hydes`
    ///   and `contrastive` (the density of their own kernel). For every other objective, surrogate or without an
    ///   entropy term, the Gaussian upper bound (`eps = 1e-4`) stands in, on the sphere the von Mises-Fisher density
    ///   with the `kappa` that fits best when a row is left out.
    /// - **Conditional.** Over all ordered pairs of views: Gaussian with `s2 = E |z - z'|^2 / d`, or
    ///   von Mises-Fisher with `kappa` from the mean cosine (Banerjee et al. 2005). For any spread it is a lower
    ///   bound on `E ln p(z | z')` up to sampling; these maximize it.
    ///
    /// So the sum is a lower bound on the information only where the entropy part is one (`pairdist` with a lower
    /// divergence); with an estimate it is an estimate of the lower bound, and with an upper bound it can exceed
    /// the information. Predictors and teachers are not looked at: both parts are of the projections.
    ///
    /// # Errors
    /// One view only; what the estimator refuses.
    pub fn account(&self, z: &Embeddings) -> Result<ObjectiveAccount> {
        let views = z
            .projections
            .iter()
            .map(|v| Ok(v.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?))
            .collect::<Result<Vec<_>>>()?;
        if views.len() < 2 {
            return Err(crate::Error::Shape {
                term: "account",
                expected: "at least two views",
                got: vec![views.len()],
            });
        }
        let space = self.space();
        let own = self.entropy.build()?.filter(|_| self.entropy.nats_on() == Some(space));
        let rows = match space {
            Space::Euclidean => views,
            Space::Sphere => views
                .iter()
                .map(|v| crate::invariance::normalize_rows(v, 1e-12))
                .collect::<Result<Vec<_>>>()?,
        };
        let (estimator, stands_in, estimates) = match &own {
            Some(own) => (own.name().to_owned(), false, each(&rows, |v| own.estimate(v))?),
            None if space == Space::Euclidean => {
                ("gaussian".to_owned(), true, each(&rows, stand_in_gaussian)?)
            }
            None => ("vmf".to_owned(), true, each(&rows, best_vmf)?),
        };
        let nats = estimates.iter().map(|e| e.nats).sum::<f64>() / estimates.len() as f64;
        let entropy = Estimate { nats, bound: estimates[0].bound };
        let (conditional, spread) = match space {
            Space::Euclidean => gaussian_conditional(&rows)?,
            Space::Sphere => sphere_conditional(&rows)?,
        };
        let account = Account { entropy, conditional, information: nats + conditional };
        Ok(ObjectiveAccount { space, estimator, stands_in, spread, account })
    }

    fn space(&self) -> Space {
        let unit = match &self.invariance {
            InvarianceConfig::Cosine(_) | InvarianceConfig::WeightedCosine(_) => true,
            InvarianceConfig::Mse(c) => c.normalize,
            InvarianceConfig::SmoothL1(_) | InvarianceConfig::Whitened(_) => false,
            InvarianceConfig::None(_) => self.entropy.is_spherical(),
        };
        if unit { Space::Sphere } else { Space::Euclidean }
    }
}

impl EntropyConfig {
    /// Whether the term looks at unit rows only.
    fn is_spherical(&self) -> bool {
        match self {
            Self::Uniformity(c) => c.normalize,
            Self::CodingRate(c) => c.normalize,
            Self::PairDist(c) => c.normalize,
            Self::Mmcr(c) => c.normalize,
            Self::Mcr2(c) => c.normalize,
            Self::Vmf(_) | Self::Contrastive(_) | Self::KoLeo(_) | Self::Mec(_) | Self::Tico(_) => true,
            Self::MatrixSsl(_) | Self::Hydes(_) | Self::Swav(_) => true,
            _ => false,
        }
    }

    /// The space on which the term's estimate is an entropy in nats of the rows' density, if there is one.
    fn nats_on(&self) -> Option<Space> {
        match self {
            Self::Gaussian(_) | Self::Hadamard(_) | Self::Kde(_) | Self::KozachenkoLeonenko(_) => {
                Some(Space::Euclidean)
            }
            Self::PairDist(c) if !c.normalize => Some(Space::Euclidean),
            Self::PairDistFull(_) => Some(Space::Euclidean),
            Self::Vmf(_) | Self::Hydes(_) | Self::Contrastive(_) => Some(Space::Sphere),
            _ => None,
        }
    }
}

fn each(rows: &[Tensor], f: impl Fn(&Tensor) -> Result<Estimate>) -> Result<Vec<Estimate>> {
    rows.iter().map(f).collect()
}

fn stand_in_gaussian(z: &Tensor) -> Result<Estimate> {
    Gaussian::default().estimate(z)
}

/// The smallest cross-entropy of a left-out row over a grid of concentrations.
fn best_vmf(z: &Tensor) -> Result<Estimate> {
    let mut best: Option<Estimate> = None;
    for kappa in [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0] {
        let estimate = Vmf { weight: 1.0, kappa, leave_one_out: true }.estimate(z)?;
        if best.is_none_or(|b| estimate.nats < b.nats) {
            best = Some(estimate);
        }
    }
    best.ok_or(crate::Error::Shape { term: "account", expected: "rows", got: z.dims().to_vec() })
}

/// `-d/2 (1 + ln(2 pi s2))` at the best `s2`; equal views have none, so that a floor keeps it finite.
fn gaussian_conditional(rows: &[Tensor]) -> Result<(f64, f64)> {
    let d = rows[0].dim(1)? as f64;
    let (mut error, mut pairs) = (0.0, 0.0);
    for (i, a) in rows.iter().enumerate() {
        for b in &rows[i + 1..] {
            error += op::number(&crate::invariance::mse(a, b)?)?;
            pairs += 1.0;
        }
    }
    let s2 = (error / pairs).max(1e-12);
    Ok((-0.5 * d * (error / pairs / s2 + (2.0 * PI * s2).ln()), s2))
}

/// `kappa R + ln C(kappa)` of the mean cosine `R`.
fn sphere_conditional(rows: &[Tensor]) -> Result<(f64, f64)> {
    let d = rows[0].dim(1)?;
    let (mut sum, mut pairs) = (0.0, 0.0);
    for (i, a) in rows.iter().enumerate() {
        for b in &rows[i + 1..] {
            sum += op::number(&(a * b)?.sum(1)?.mean_all()?)?;
            pairs += 1.0;
        }
    }
    let mean = (sum / pairs).clamp(0.0, 1.0 - 1e-9);
    let kappa = (mean * (d as f64 - mean * mean) / (1.0 - mean * mean)).min(1e5);
    Ok((kappa * sum / pairs + special::vmf_ln_normalizer(d, kappa), kappa))
}
