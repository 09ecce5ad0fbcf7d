//! Nearest neighbors with the bias that they have on a Student copula that looks alike to them.

use super::continuous::{KsgConfig, Marginals, ksg};
use super::corrected::{Canonical, CorrectedConfig, NOT_NORMAL, canonical_information, mean};
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
/// below what normal samples of those correlations give, the correlations say more than there is (clusters do that: their
/// centers are correlated, and the rows within them are not); then the family is that of normal copulas with a share of each
/// correlation's information, and the result that share of `I_G`. For normal and for Student's copulas the bias
/// cancels; for others the family is a ruler whose marks are nearer to the truth than the bare number, and no proof: the
/// doubt `model-based` says what was added, `below-normal` that the share is less than three quarters.
///
/// The interval is by subsampling; each subsample is read off a scale of its own number of rows. Where more than a quarter of the
/// value rests on the family and the rows are not those of a normal copula (Mardia's kurtosis of the scores, four standard deviations), or
/// more is beyond correlations than the family can show, the interval reaches down to `T`: clusters with correlated centers show neighbors as little as normal rows of many times their
/// information, and nothing in the numbers tells them apart.
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
    let share = value / normal;
    let m = (n / 2).min(resampling.max_rows);
    let mut interval = if resampling.draws > 0 && m > 4 * cfg.k {
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
            "{added:+.3} nats of it are what neighbors miss on a normal or Student copula that gives them the same number: alone \
             they say {found:.3}"
        );
        doubts.push(Doubt::new("model-based", message));
    }
    // A quarter of it: for ten clusters in 4 + 4 columns the family adds 0.9 of 3.2 nats where there are 2.3.
    let rests_on_family = added > 0.25 * value.abs();
    let kurtosis =
        super::corrected::kurtosis_of_scores(&x, &y).filter(|z| rests_on_family && z.abs() > NOT_NORMAL);
    // Some mixtures have the kurtosis of normal rows, and more than the family can show.
    if rests_on_family
        && (beyond || kurtosis.is_some())
        && let Some(interval) = &mut interval
    {
        interval.lower = interval.lower.min(found);
        interval.method += ", down to what neighbors alone say";
    }
    if let Some(kurtosis) = kurtosis {
        let message = format!(
            "the normal scores of both variables together are not normal (Mardia's kurtosis {kurtosis:+.0} standard deviations \
             off), and clusters look to neighbors like normal rows of more information: the truth can lie anywhere from \
             {found:.3} on; with classes at hand, ask what the variables tell of them"
        );
        doubts.push(Doubt::new("not-normal", message));
    }
    if normal > 0.1 && share < 0.75 {
        let message = format!(
            "a normal copula of the same correlations would hold {normal:.3} nats and show neighbors more: the dependence is not \
             normal, as that of clusters; neighbors alone say {found:.3}"
        );
        doubts.push(Doubt::new("below-normal", message));
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
    super::ties::explain(&mut doubts, super::ties::doubt(&[("x", &x), ("y", &y)]));
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

/// Shares of the information of the correlations below all of it.
const SHARES: [f64; 5] = [0.0, 0.1, 0.25, 0.5, 0.75];

/// What KSG gives with a number of rows on copulas of less and of more information than that of the correlations.
struct Scale {
    /// What KSG gives on normal samples, over their information; 1 without correlations.
    share: f64,
    /// What KSG gives on normal samples of less correlation, over that of all of it, and the share of their information; both
    /// rising to 1. Empty without correlations.
    below: Vec<(f64, f64)>,
    /// By how much more KSG gives on Student's samples, and their information beyond correlations; both rising from 0.
    marks: Vec<(f64, f64)>,
}

impl Scale {
    fn new(model: &Canonical, rows: usize, cfg: &CorrectedConfig) -> Result<Self> {
        // Half as many samples for each mark as the correction takes for its one number.
        let few = cfg.surrogates.div_ceil(2);
        let normal = model.normal();
        let all = model.surrogates(rows, cfg.surrogates, cfg, 1.0, None)?;
        // Marks are differences of the same draws: their noise is common.
        let (base, common) = (mean(&all), mean(&all[..few]));
        let mark = |share, nu| Ok::<_, crate::Error>(mean(&model.surrogates(rows, few, cfg, share, nu)?));
        let mut below: Vec<(f64, f64)> = Vec::new();
        if !model.kept.is_empty() && common > 0.0 {
            for share in SHARES {
                let less = mark(share, None)? / common;
                if less < 1.0 && below.last().is_none_or(|(last, _)| less > *last) {
                    below.push((less, share));
                }
            }
            below.push((1.0, 1.0));
        }
        let mut marks = vec![(0.0, 0.0)];
        for w in WEIGHTS {
            let more = mark(1.0, Some(1.0 / w))? - common;
            let (last, _) = marks[marks.len() - 1];
            // Noise can turn neighboring marks.
            if more > last {
                marks.push((more, student_information(model.x.d, model.y.d, 1.0 / w)));
            }
        }
        Ok(Self { share: if model.kept.is_empty() { 1.0 } else { base / normal }, below, marks })
    }

    /// The information of the copula that gives `found`, of normal information `normal`; and whether it lies beyond the last
    /// mark.
    fn read(&self, found: f64, normal: f64) -> (f64, bool) {
        let all = self.share * normal;
        let more = found - all;
        if more < 0.0 && normal > 0.0 && all > 0.0 && self.below.len() > 1 {
            let at = found / all;
            let after = self.below.partition_point(|(t, _)| *t < at).clamp(1, self.below.len() - 1);
            let ((t, i), (next_t, next_i)) = (self.below[after - 1], self.below[after]);
            // Below the first mark there is no correlation to take a share of.
            let share = i + (next_i - i) * (at - t) / (next_t - t);
            return (if share > 0.0 { share * normal } else { found.min(0.0) }, false);
        }
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
        let below = vec![(0.0, 0.0), (0.5, 0.25), (1.0, 1.0)];
        let scale = Scale { share: 0.8, below, marks: vec![(0.0, 0.0), (0.1, 0.3), (0.2, 0.7)] };
        let close = |found: f64, normal: f64, wanted: (f64, bool)| {
            let (value, beyond) = scale.read(found, normal);
            assert!((value - wanted.0).abs() < 1e-12 && beyond == wanted.1, "{value} {beyond}");
        };
        close(0.8, 1.0, (1.0, false));
        close(0.6, 1.0, (0.625, false));
        close(0.2, 1.0, (0.125, false));
        close(-0.1, 1.0, (-0.1, false));
        close(0.95, 1.0, (1.5, false));
        close(1.1, 1.0, (1.8, true));
    }
}
