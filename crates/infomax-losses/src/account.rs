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
    ///   and `contrastive` (the density of their own kernel), unless a kernel of another width fits better by more than
    ///   0.1 nats: on left-out rows every kernel is above the entropy, and far above it where it is wider than the rows are
    ///   spread. For every other objective, surrogate or without an
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
    /// **No spread is no information.** Where all rows of a view are equal, to the rounding of their type, the account
    /// is refused: the differential entropy is minus infinity, and what an estimator makes of it is its own width.
    /// So it is where the spread is far below the width of a kernel or component that does not follow it. The width
    /// `eps` of `gaussian`, `hadamard` and what stands in holds for both parts: `s2` is not taken below it, and a
    /// batch that shrinks below it has an account of nearly 0.
    ///
    /// # Errors
    /// One view only; a view without spread; what the estimator refuses.
    pub fn account(&self, z: &Embeddings) -> Result<ObjectiveAccount> {
        let rounding = rounding(z.projections.dtype());
        let views = z
            .projections
            .iter()
            .map(|v| Ok(v.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?))
            .collect::<Result<Vec<_>>>()?;
        crate::error::views("account", 2, views.len())?;
        let space = self.space();
        let own = self.entropy.build()?.filter(|_| self.entropy.nats_on() == Some(space));
        let width = self.entropy.width().filter(|_| own.is_some());
        let rows = match space {
            Space::Euclidean => views,
            Space::Sphere => views
                .iter()
                .map(|v| crate::invariance::normalize_rows(v, 1e-12))
                .collect::<Result<Vec<_>>>()?,
        };
        for (i, view) in rows.iter().enumerate() {
            has_spread(i + 1, view, rounding, width)?;
        }
        views_differ(&rows, rounding)?;
        let (estimator, stands_in, estimates) = match (&own, space) {
            (Some(own), Space::Euclidean) => {
                (own.name().to_owned(), false, each(&rows, |v| own.estimate(v))?)
            }
            (None, Space::Euclidean) => ("gaussian".to_owned(), true, each(&rows, stand_in_gaussian)?),
            (own, Space::Sphere) => {
                let best = each(&rows, best_vmf)?;
                let own = own
                    .as_ref()
                    .map(|own| Ok::<_, crate::Error>((own.name(), each(&rows, |v| own.estimate(v))?)));
                match own.transpose()? {
                    Some((name, own)) if total(&own) <= total(&best) + UNFIT * rows.len() as f64 => {
                        (name.to_owned(), false, own)
                    }
                    _ => ("vmf".to_owned(), true, best),
                }
            }
        };
        let nats = total(&estimates) / estimates.len() as f64;
        let entropy = Estimate { nats, bound: estimates[0].bound };
        let (conditional, spread) = match space {
            Space::Euclidean => gaussian_conditional(&rows, self.entropy.resolution(stands_in))?,
            Space::Sphere => sphere_conditional(&rows)?,
        };
        let account = Account { entropy, conditional, information: nats + conditional };
        Ok(ObjectiveAccount { space, estimator, stands_in, spread, account })
    }

    /// Whether the entropy term is itself an entropy in nats of the rows as the invariance sees them, so that nothing
    /// stands in for it in an account.
    pub fn entropy_in_nats(&self) -> bool {
        self.entropy.nats_on() == Some(self.space())
    }

    fn space(&self) -> Space {
        let unit = match &self.invariance {
            InvarianceConfig::Cosine(_)
            | InvarianceConfig::WeightedCosine(_)
            | InvarianceConfig::ClassCosine(_) => true,
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
            Self::CorInfoMax(c) => c.normalize,
            Self::Vmf(_) | Self::Contrastive(_) | Self::KoLeo(_) | Self::Mec(_) | Self::Tico(_) => true,
            Self::MatrixSsl(_) | Self::Hydes(_) | Self::Swav(_) | Self::Expansion(_) => true,
            _ => false,
        }
    }

    /// The variance that the term adds to the embeddings as a floor, which the conditional part shares.
    fn resolution(&self, stands_in: bool) -> f64 {
        match self {
            _ if stands_in => Gaussian::default().eps,
            Self::Gaussian(c) => c.eps,
            Self::Hadamard(c) => c.eps,
            _ => 0.0,
        }
    }

    /// The variance of a kernel or component that does not follow the spread of the rows.
    fn width(&self) -> Option<f64> {
        match self {
            Self::PairDist(c) if !c.adaptive => Some(c.variance),
            Self::PairDistFull(c) => Some(c.eps),
            Self::Kde(c) => Some(c.variance),
            Self::Vmf(Vmf { kappa, .. }) | Self::Hydes(crate::entropy::Hydes { kappa, .. }) => {
                (*kappa > 0.0).then(|| 1.0 / kappa)
            }
            Self::Contrastive(c) => Some(c.temperature),
            _ => None,
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

/// Nats by which the kernel of a term may be worse than the one that fits best, before that one stands in.
const UNFIT: f64 = 0.1;

fn total(estimates: &[Estimate]) -> f64 {
    estimates.iter().map(|e| e.nats).sum()
}

fn each(rows: &[Tensor], f: impl Fn(&Tensor) -> Result<Estimate>) -> Result<Vec<Estimate>> {
    rows.iter().map(f).collect()
}

fn stand_in_gaussian(z: &Tensor) -> Result<Estimate> {
    Gaussian::default().estimate(z)
}

/// The relative rounding of a type.
pub(crate) fn rounding(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::EPSILON,
        DType::F16 => 1e-3,
        DType::BF16 => 8e-3,
        _ => f64::from(f32::EPSILON),
    }
}

/// The sum of the variances of the columns; refuses rows `(n, d)` without it, up to the rounding of their type or
/// below a thousandth of a fixed width.
pub(crate) fn has_spread(view: usize, rows: &Tensor, rounding: f64, width: Option<f64>) -> Result<f64> {
    let n = rows.dim(0)? as f64;
    let moments = infomax_kernels::columns::column_moments(rows)?;
    let spread = moments.squares.iter().sum::<f64>() / n;
    let size = moments.mean.iter().map(|m| m * m).sum::<f64>() + spread;
    let refused = |found: String| Err(crate::Error::NoSpread { view, found });
    if n < 2.0 {
        return refused("it is one sample".into());
    }
    if spread <= 4.0 * rounding * rounding * size {
        return refused(format!("its {n} rows are equal to the rounding of their type"));
    }
    // A kernel or component of its own width tells a few points apart and no more; a density has none.
    let distinct = distinct(rows)?;
    if width.is_none() && 2 * distinct <= rows.dim(0)? {
        return refused(format!("only {distinct} of its {n} rows are distinct, and points have no density"));
    }
    match width {
        Some(width) if spread < 1e-3 * width => refused(format!(
            "its variance of {spread:.1e} in all dimensions together is far below the width {width:.1e} of the \
             estimator, which is all that would be measured"
        )),
        _ => Ok(spread),
    }
}

/// The number of rows that differ in any bit; of zeros both signs are one.
fn distinct(rows: &Tensor) -> Result<usize> {
    let rows = rows.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    let keys: std::collections::HashSet<Vec<u64>> =
        rows.iter().map(|row| row.iter().map(|v| (v + 0.0).to_bits()).collect()).collect();
    Ok(keys.len())
}

/// Refuses views that are equal: what a continuous variable tells of itself has no end.
fn views_differ(rows: &[Tensor], rounding: f64) -> Result<()> {
    for (i, view) in rows.iter().enumerate().skip(1) {
        let change = (view - &rows[0])?.sqr()?.sum_all()?.to_scalar::<f64>()?;
        let size = rows[0].sqr()?.sum_all()?.to_scalar::<f64>()?;
        if change <= 4.0 * rounding * rounding * size {
            return Err(crate::Error::EqualViews { view: i + 1 });
        }
    }
    Ok(())
}

/// The smallest cross-entropy of a left-out row over a grid of concentrations, which goes on for as long as the
/// value falls: a narrow batch gets a narrow kernel.
fn best_vmf(z: &Tensor) -> Result<Estimate> {
    let mut best: Option<Estimate> = None;
    let more = (0..54).map(|k| 500.0 * [1.0, 2.0, 4.0][k % 3] * 10f64.powi((k / 3) as i32));
    for kappa in [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0].into_iter().chain(more) {
        let estimate = Vmf { weight: 1.0, kappa, leave_one_out: true }.estimate(z)?;
        if best.is_none_or(|b| estimate.nats < b.nats) {
            best = Some(estimate);
        } else if kappa > 200.0 {
            break;
        }
    }
    best.ok_or(crate::Error::Shape { term: "account", expected: "rows", got: z.dims().to_vec() })
}

/// `-d/2 (1 + ln(2 pi s2))` at the best `s2`, the mean squared difference of an element. Equal views have none: it is
/// not taken below the floor that the entropy part has, nor below 1e-12 of the spread.
fn gaussian_conditional(rows: &[Tensor], floor: f64) -> Result<(f64, f64)> {
    let d = rows[0].dim(1)? as f64;
    let (mut error, mut pairs) = (0.0, 0.0);
    for (i, a) in rows.iter().enumerate() {
        for b in &rows[i + 1..] {
            error += op::number(&crate::invariance::mse(a, b)?)?;
            pairs += 1.0;
        }
    }
    let spread = has_spread(1, &rows[0], 0.0, None)? / d;
    let s2 = (error / pairs).max(floor).max(1e-12 * spread);
    Ok((-0.5 * d * (1.0 + (2.0 * PI * s2).ln()), s2))
}

/// `kappa R + ln C(kappa)` of the mean cosine `R`. The concentration is not taken above 1e5, or 10 over the spread of
/// the rows where that is more.
fn sphere_conditional(rows: &[Tensor]) -> Result<(f64, f64)> {
    let d = rows[0].dim(1)?;
    // 1 - R, by the squared distances of unit rows, which keep the digits of a small one.
    let (mut apart, mut pairs) = (0.0, 0.0);
    for (i, a) in rows.iter().enumerate() {
        for b in &rows[i + 1..] {
            apart += 0.5 * d as f64 * op::number(&crate::invariance::mse(a, b)?)?;
            pairs += 1.0;
        }
    }
    let apart = apart / pairs;
    let mean = (1.0 - apart).clamp(0.0, 1.0);
    let most = f64::max(1e5, 10.0 / has_spread(1, &rows[0], 0.0, None)?);
    // (1 - R^2) = (1 - R) (1 + R).
    let fitted = mean * (d as f64 - mean * mean) / (apart.max(0.0) * (1.0 + mean));
    let kappa = if fitted.is_nan() { most } else { fitted.min(most) };
    Ok((special::vmf_ln_peak(d, kappa) - kappa * apart, kappa))
}
