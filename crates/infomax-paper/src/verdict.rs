//! Verdicts: pure functions from numbers to judgments.

use crate::stats;
use serde::{Deserialize, Serialize};

/// What an experiment says of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The statistic lies on the side of the claim, beyond its error.
    Supported,
    /// The statistic lies on the other side, beyond its error.
    NotSupported,
    /// The error is larger than the distance to the threshold, or something is missing.
    Undecided,
}

impl Verdict {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Supported => "supported",
            Self::NotSupported => "not supported",
            Self::Undecided => "undecided at this scale",
        }
    }

    /// The verdict on a claim of several parts: not supported if one part is not, supported if all are.
    pub fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        let parts: Vec<Self> = parts.into_iter().collect();
        if parts.contains(&Self::NotSupported) {
            Self::NotSupported
        } else if parts.is_empty() || parts.contains(&Self::Undecided) {
            Self::Undecided
        } else {
            Self::Supported
        }
    }
}

/// One part of a claim with the statistic behind the verdict on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgment {
    /// The part of the claim, as a sentence.
    pub claim: String,
    /// The verdict.
    pub verdict: Verdict,
    /// What was measured, in words and with its unit.
    pub statistic: String,
    /// Its value.
    pub effect: Option<f64>,
    /// Its interval.
    pub interval: Option<(f64, f64)>,
    /// The level of the interval.
    pub level: f64,
    /// The p-value, where a test is meant.
    pub p_value: Option<f64>,
    /// The number of independent values behind it.
    pub n: usize,
    /// The rule that led to the verdict.
    pub rule: String,
}

impl Judgment {
    /// One line: the verdict and its statistic.
    pub fn line(&self) -> String {
        let mut text = format!("{}: {}", self.verdict.words(), self.statistic);
        if let Some(effect) = self.effect {
            text += &format!(" = {}", short(effect));
        }
        if let Some((low, high)) = self.interval {
            text += &format!(" [{}, {}]", short(low), short(high));
        }
        if let Some(p) = self.p_value {
            text += &format!(", p = {}", short(p));
        }
        text + &format!(", n = {}", self.n)
    }
}

/// Three significant digits.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        v if (1e-3..1e4).contains(&v) => {
            let digits = (2 - v.log10().floor() as i32).max(0) as usize;
            format!("{value:.digits$}")
        }
        _ => format!("{value:.2e}"),
    }
}

/// On which side of the threshold the claim lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The claim is that the value lies above.
    Above,
    /// The claim is that the value lies below.
    Below,
}

/// The level of intervals over seeds and runs.
pub const LEVEL: f64 = 0.95;

/// Whether the mean of independent values lies on one side of a threshold: supported if Student's interval of the level
/// 0.95 lies there entirely, not supported if it lies entirely on the other side, else undecided. Fewer than three values
/// decide nothing, as two can be equal by chance and leave no width; values that are not finite are left out.
pub fn mean_beyond(claim: &str, statistic: &str, values: &[f64], side: Side, threshold: f64) -> Judgment {
    let values: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    let interval = stats::t_interval(&values, LEVEL);
    let word = if side == Side::Above { "above" } else { "below" };
    Judgment {
        claim: claim.into(),
        verdict: of_interval(interval.filter(|_| values.len() > 2), side, threshold),
        statistic: statistic.into(),
        effect: (!values.is_empty()).then(|| stats::mean(&values)),
        interval,
        level: LEVEL,
        p_value: None,
        n: values.len(),
        rule: format!(
            "supported if the 95 % interval of the mean (Student, over independent values) lies {word} {}, not \
             supported if it lies on the other side",
            short(threshold)
        ),
    }
}

/// A share of independent trials against a threshold, by Wilson's interval of the level 0.95.
pub fn share_beyond(
    claim: &str,
    statistic: &str,
    hits: usize,
    n: usize,
    side: Side,
    threshold: f64,
) -> Judgment {
    let interval = (n > 0).then(|| stats::wilson(hits, n, LEVEL));
    let word = if side == Side::Above { "above" } else { "below" };
    Judgment {
        claim: claim.into(),
        verdict: of_interval(interval, side, threshold),
        statistic: statistic.into(),
        effect: (n > 0).then(|| hits as f64 / n as f64),
        interval,
        level: LEVEL,
        p_value: None,
        n,
        rule: format!(
            "supported if the 95 % interval of the share (Wilson) lies {word} {}, not supported if it lies on the \
             other side",
            short(threshold)
        ),
    }
}

/// The size of a rank correlation that makes one variable a predictor of another in these experiments.
pub const USEFUL_CORRELATION: f64 = 0.5;

/// Whether `x` predicts `y` by rank over runs, with the expected sign: supported if the correlation reaches
/// [`USEFUL_CORRELATION`], its interval excludes 0 and the permutation test rejects independence at 0.01; not supported
/// if the interval lies below that size; else undecided.
pub fn predicts(claim: &str, statistic: &str, x: &[f64], y: &[f64], sign: f64, seed: u64) -> Judgment {
    let (x, y) = stats::finite_pairs(x, y);
    let rho = stats::spearman(&x, &y).map(|r| r * sign);
    let interval = rho.and_then(|r| stats::correlation_interval(r, x.len(), LEVEL));
    let p_value = stats::spearman_permutation(&x, &y, sign, 4999, seed);
    let verdict = match (rho, interval, p_value) {
        (Some(r), Some((low, _)), Some(p)) if r >= USEFUL_CORRELATION && low > 0.0 && p < 0.01 => {
            Verdict::Supported
        }
        (Some(_), Some((_, high)), _) if high < USEFUL_CORRELATION => Verdict::NotSupported,
        _ => Verdict::Undecided,
    };
    Judgment {
        claim: claim.into(),
        verdict,
        statistic: statistic.into(),
        effect: rho,
        interval,
        level: LEVEL,
        p_value,
        n: x.len(),
        rule: "supported if Spearman's correlation (counted positive in the direction of the claim) is at least 0.5, its \
               95 % interval (Bonett and Wright) is above 0 and the one-sided permutation p-value is below 0.01; not \
               supported if the interval lies below 0.5"
            .into(),
    }
}

/// A judgment that nothing can be said, with the reason.
pub fn nothing(claim: &str, statistic: &str, reason: &str) -> Judgment {
    Judgment {
        claim: claim.into(),
        verdict: Verdict::Undecided,
        statistic: statistic.into(),
        effect: None,
        interval: None,
        level: LEVEL,
        p_value: None,
        n: 0,
        rule: reason.into(),
    }
}

fn of_interval(interval: Option<(f64, f64)>, side: Side, threshold: f64) -> Verdict {
    match (interval, side) {
        (Some((low, _)), Side::Above) if low > threshold => Verdict::Supported,
        (Some((_, high)), Side::Above) if high < threshold => Verdict::NotSupported,
        (Some((_, high)), Side::Below) if high < threshold => Verdict::Supported,
        (Some((low, _)), Side::Below) if low > threshold => Verdict::NotSupported,
        _ => Verdict::Undecided,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_judged_by_its_interval() {
        let judge = |values: &[f64]| mean_beyond("c", "s", values, Side::Above, 1.0).verdict;
        assert_eq!(judge(&[2.0, 2.1, 1.9]), Verdict::Supported);
        assert_eq!(judge(&[0.2, 0.1, 0.3]), Verdict::NotSupported);
        assert_eq!(judge(&[2.0, 0.1, 1.0]), Verdict::Undecided);
        assert_eq!(judge(&[5.0]), Verdict::Undecided);
        assert_eq!(judge(&[5.0, f64::NAN]), Verdict::Undecided);
        assert_eq!(judge(&[5.0, 5.0]), Verdict::Undecided, "equal by chance");
        let below = mean_beyond("c", "s", &[0.2, 0.1, 0.3], Side::Below, 1.0);
        assert_eq!(below.verdict, Verdict::Supported);
    }

    #[test]
    fn shares_use_wilson() {
        let judge = |hits, n| share_beyond("c", "s", hits, n, Side::Above, 0.5).verdict;
        assert_eq!(judge(20, 20), Verdict::Supported);
        assert_eq!(judge(1, 20), Verdict::NotSupported);
        assert_eq!(judge(2, 3), Verdict::Undecided);
        assert_eq!(judge(0, 0), Verdict::Undecided);
    }

    #[test]
    fn a_predictor_is_told_from_noise() {
        let x: Vec<f64> = (0..36).map(f64::from).collect();
        let y: Vec<f64> = x.iter().map(|v| v + 5.0 * (v * 1.7).sin()).collect();
        assert_eq!(predicts("c", "s", &x, &y, 1.0, 0).verdict, Verdict::Supported);
        assert_eq!(predicts("c", "s", &x, &y, -1.0, 0).verdict, Verdict::NotSupported);
        let shuffled: Vec<f64> = (0..36).map(|i| f64::from((i * 17 + 5) % 36)).collect();
        let judged = predicts("c", "s", &x, &shuffled, 1.0, 0);
        assert_eq!(judged.verdict, Verdict::NotSupported, "{judged:?}");
        assert_eq!(predicts("c", "s", &x[..3], &y[..3], 1.0, 0).verdict, Verdict::Undecided);
    }

    #[test]
    fn a_claim_is_as_good_as_its_worst_part() {
        use Verdict::{NotSupported, Supported, Undecided};
        assert_eq!(Verdict::all([Supported, Supported]), Supported);
        assert_eq!(Verdict::all([Supported, Undecided]), Undecided);
        assert_eq!(Verdict::all([NotSupported, Undecided]), NotSupported);
        assert_eq!(Verdict::all([]), Undecided);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 0.5, 12.345, -0.0123, 1e-9].map(short),
            ["0", "0.500", "12.3", "-0.0123", "1.00e-9"]
        );
    }
}
