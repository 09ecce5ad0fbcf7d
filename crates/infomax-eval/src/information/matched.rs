//! Nearest neighbors with the bias that they have on a Student copula that looks alike to them.

use super::continuous::{KsgConfig, Marginals, ksg};
use super::corrected::{Canonical, CorrectedConfig, canonical_information};
use super::entropy::high_dimension;
use super::normal::read_pair;
use crate::Result;
use crate::estimate::{Doubt, Estimate, Resampling};
use crate::special::{digamma, ln_gamma};
use candle_core::Tensor;

/// The mutual information by KSG in canonical coordinates, read off a scale of Student copulas, in nats.
///
/// [`super::corrected_mutual_information`] takes off the bias that KSG has on the part of the dependence that correlations show. The part
/// beyond them keeps its own bias, which is large in more than a few columns and hardly changes with the rows. This estimator
/// measures that one as well, by indirect inference (Gouriéroux, Monfort and Renault, 1993): of the family of Student
/// copulas with the canonical correlations of the sample it takes the one, by its degrees of freedom, from which KSG gives
/// the same value `T` with as many rows, and its information is the result,
///
/// `I_G + h_nu(D_x) + h_nu(D_y) - h_nu(D_x + D_y)`,
///
/// with the normal information `I_G` of the correlations and the entropies `h_nu` of Student's distribution. Where `T` lies
/// below what normal samples give, the result is that of `corrected`. For normal and for Student's copulas the bias
/// cancels; for others the family is a ruler whose marks are nearer to the truth than the bare number, and no proof: the
/// doubt `model-based` says what was added.
///
/// The interval is by subsampling; each subsample is read off a scale of its own number of rows.
///
/// # Errors
/// As [`super::corrected_mutual_information`].
pub fn matched_mutual_information(
    x: &Tensor,
    y: &Tensor,
    cfg: &CorrectedConfig,
    resampling: &Resampling,
) -> Result<Estimate> {
    let (x, y) = read_pair("matched_mutual_information", x, y)?;
    super::corrected::check(cfg)?;
    let n = x.n;
    let model = Canonical::new(&x, &y)?;
    let ksg_cfg = KsgConfig { k: cfg.k, marginals: Marginals::Raw, ..KsgConfig::default() };
    let (found, saturated) = ksg(&model.x, &model.y, &ksg_cfg)?;
    let normal = model.normal();
    let scale = Scale::new(&model, n, cfg)?;
    let (value, beyond) = scale.read(found, normal);
    let m = (n / 2).min(resampling.max_rows);
    let interval = if resampling.draws > 0 && m > 4 * cfg.k {
        let part = Scale::new(&model, m, cfg)?;
        resampling.subsample_trend(value, n, (4 * cfg.k).max(x.d + y.d + 4), |chosen| {
            let (a, b) = (model.x.select(chosen), model.y.select(chosen));
            let own = if model.kept.is_empty() { 0.0 } else { canonical_information(&a, &b)?.1 };
            Ok(part.read(ksg(&a, &b, &ksg_cfg)?.0, own).0)
        })?
    } else {
        None
    };
    let mut doubts: Vec<Doubt> = high_dimension(n, x.d + y.d).into_iter().collect();
    if saturated > 0.5 {
        doubts.push(super::corrected::saturation(saturated, n));
    }
    let added = value - found;
    if added.abs() > 0.5 * value.abs().max(0.05) {
        let message = format!(
            "{added:+.3} nats of it are what neighbors miss on a Student copula that gives the same number: neighbors alone \
             say {found:.3}"
        );
        doubts.push(Doubt::new("model-based", message));
    }
    if beyond {
        let message = format!(
            "neighbors see more beyond correlations than on any Student copula of {} degrees of freedom: what is beyond \
             that is counted without its bias",
            WEIGHTS.last().map_or(0.0, |w| 1.0 / w)
        );
        doubts.push(Doubt::new("off-scale", message));
    }
    doubts.extend(super::mutual::negative(value));
    Ok(Estimate::new(value, n).with(interval).doubting(doubts))
}

/// The information of Student's distribution with the identity as dispersion, which is that of its common scale:
/// `h(D_x) + h(D_y) - h(D_x + D_y)` with
/// `h(k) = ln G(nu / 2) - ln G((nu + k) / 2) + k / 2 ln(nu pi) + (nu + k) / 2 (psi((nu + k) / 2) - psi(nu / 2))`. That of correlated
/// pairs is added to it (Arellano-Valle, Contreras-Reyes and Genton 2013).
pub(crate) fn student_information(dx: usize, dy: usize, nu: f64) -> f64 {
    let h = |k: usize| {
        let k = k as f64;
        let sum = 0.5 * (nu + k);
        ln_gamma(0.5 * nu) - ln_gamma(sum)
            + 0.5 * k * (nu * std::f64::consts::PI).ln()
            + sum * (digamma(sum) - digamma(0.5 * nu))
    };
    h(dx) + h(dy) - h(dx + dy)
}

/// `1 / nu` of the marks. From 30 degrees of freedom on a Student copula is nearly normal; below 1/2 nearly all of its
/// information is in the scale.
const WEIGHTS: [f64; 7] = [0.03, 0.1, 0.2, 0.35, 0.6, 1.0, 2.0];

/// What KSG gives with a number of rows on copulas of the same correlations and growing information beyond them.
struct Scale {
    /// What KSG gives on normal samples, over their information; 1 without correlations.
    share: f64,
    /// By how much more KSG gives on Student's samples, and their information beyond correlations; both rising from 0.
    marks: Vec<(f64, f64)>,
}

impl Scale {
    fn new(model: &Canonical, rows: usize, cfg: &CorrectedConfig) -> Result<Self> {
        // As many samples in all as the correction takes for one number.
        let few = CorrectedConfig { surrogates: cfg.surrogates.div_ceil(2), ..*cfg };
        let normal = model.normal();
        let base = model.surrogates(rows, cfg, None)?;
        // Differences of the same draws: their noise is common.
        let common =
            if few.surrogates == cfg.surrogates { base } else { model.surrogates(rows, &few, None)? };
        let mut marks = vec![(0.0, 0.0)];
        for w in WEIGHTS {
            let more = model.surrogates(rows, &few, Some(1.0 / w))? - common;
            let (last, _) = marks[marks.len() - 1];
            // Noise can turn neighboring marks.
            if more > last {
                marks.push((more, student_information(model.x.d, model.y.d, 1.0 / w)));
            }
        }
        Ok(Self { share: if model.kept.is_empty() { 1.0 } else { base / normal }, marks })
    }

    /// The information of the copula that gives `found`, of normal information `normal`; and whether it lies beyond the last
    /// mark.
    fn read(&self, found: f64, normal: f64) -> (f64, bool) {
        let more = found - self.share * normal;
        let after = self.marks.partition_point(|(t, _)| *t < more);
        let beyond = match (after.checked_sub(1).and_then(|at| self.marks.get(at)), self.marks.get(after)) {
            (None, _) => return (normal + more, false),
            (Some((t, i)), None) => return (normal + i + (more - t), true),
            (Some((t, i)), Some((next_t, next_i))) => i + (next_i - i) * (more - t) / (next_t - t),
        };
        (normal + beyond, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_of_a_common_factor_has_the_known_information() {
        for (dx, dy, nu, truth) in [
            (1, 1, 1.0, 0.224_171_427_529_236),
            (2, 2, 2.0, 0.193_147_180_559_945),
            (5, 5, 3.0, 0.298_543_622_652_757),
        ] {
            assert!((student_information(dx, dy, nu) - truth).abs() < 1e-12);
        }
        assert!(student_information(4, 4, 1e6).abs() < 1e-4);
    }

    #[test]
    fn marks_are_read_between_below_and_beyond() {
        let scale = Scale { share: 0.8, marks: vec![(0.0, 0.0), (0.1, 0.3), (0.2, 0.7)] };
        let close = |found: f64, normal: f64, wanted: (f64, bool)| {
            let (value, beyond) = scale.read(found, normal);
            assert!((value - wanted.0).abs() < 1e-12 && beyond == wanted.1, "{value} {beyond}");
        };
        close(0.8, 1.0, (1.0, false));
        close(0.75, 1.0, (0.95, false));
        close(0.95, 1.0, (1.5, false));
        close(1.1, 1.0, (1.8, true));
    }
}
