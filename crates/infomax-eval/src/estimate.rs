//! Numbers with their error bars, and how those are made.

use crate::{Error, Result, special};
use infomax_core::Key;
use rand::RngExt as _;
use rayon::prelude::*;
use serde::Serialize;

/// An estimate with what is known about its error.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The estimate.
    pub value: f64,
    /// Where the true value is likely to be; `None` where too few rows or draws were given for one. It says
    /// nothing about the bias of the estimator.
    pub interval: Option<Interval>,
    /// The rows that took part.
    pub n: usize,
    /// Reasons not to trust the estimate; empty where none was found.
    pub doubts: Vec<Doubt>,
}

impl Estimate {
    pub(crate) fn new(value: f64, n: usize) -> Self {
        Self { value, interval: None, n, doubts: Vec::new() }
    }

    pub(crate) fn with(mut self, interval: Option<Interval>) -> Self {
        self.interval = interval;
        self
    }

    pub(crate) fn doubting(mut self, doubts: impl IntoIterator<Item = Doubt>) -> Self {
        self.doubts.extend(doubts);
        self
    }
}

/// An interval of a stated level, and how it was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Its lower end.
    pub lower: f64,
    /// Its upper end.
    pub upper: f64,
    /// The share of samples for which such an interval is meant to hold the truth, for example 0.9.
    pub level: f64,
    /// The method, in words.
    pub method: String,
}

impl Interval {
    /// `value +- z se` with the normal quantile `z` of the level.
    pub(crate) fn normal(value: f64, se: f64, level: f64, method: impl Into<String>) -> Self {
        let half = special::normal_quantile(0.5 + 0.5 * level) * se;
        Self { lower: value - half, upper: value + half, level, method: method.into() }
    }

    /// Widened towards where an estimate moves as the rows grow, from those of subsamples of the `ratio`-th part of the rows.
    fn along(mut self, value: f64, drawn: &[f64], ratio: f64) -> Self {
        let count = drawn.len() as f64;
        let trend = value - drawn.iter().sum::<f64>() / count;
        let certain = (trend.abs() - 2.0 * (variance(drawn) / count).sqrt()).max(0.0);
        let ahead = certain / (ratio.sqrt() - 1.0);
        if trend > 0.0 {
            self.upper += ahead;
        } else {
            self.lower -= ahead;
        }
        self.method += ", widened by the trend from subsamples to all rows";
        self
    }
}

/// A reason not to trust an estimate: a word for programs, a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Doubt {
    /// One word that stays the same from release to release, such as `few-samples` or `saturated`.
    pub code: &'static str,
    /// The reason with its numbers.
    pub message: String,
}

impl Doubt {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl std::fmt::Display for Doubt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// An estimate between a lower and an upper bound.
///
/// `lower <= estimate.value <= upper` holds for what is reported; where the three numbers came out in another
/// order, the estimate is moved to the nearer bound, and its interval is widened until it holds that. Where the interval did
/// not reach that bound, so that chance does not explain it, `doubts` says so with the number as it was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bracket {
    /// The lower bound.
    pub lower: f64,
    /// What the lower bound is, in words.
    pub lower_method: String,
    /// The estimate.
    pub estimate: Estimate,
    /// The upper bound.
    pub upper: f64,
    /// What the upper bound is, in words.
    pub upper_method: String,
}

impl Bracket {
    /// Orders the three; bounds that cross are both moved to their mean.
    pub(crate) fn ordered(
        lower: (f64, impl Into<String>),
        mut estimate: Estimate,
        upper: (f64, impl Into<String>),
    ) -> Self {
        let (mut low, mut high) = (lower.0, upper.0);
        if low > high {
            let message = format!(
                "the lower bound {low:.4} came out above the upper bound {high:.4}: one of them does not hold \
                 for these data"
            );
            estimate.doubts.push(Doubt::new("crossed-bounds", message));
            let middle = 0.5 * (low + high);
            (low, high) = (middle, middle);
        }
        let found = estimate.value;
        if found < low || found > high {
            let (side, bound) =
                if found < low { ("below the lower", low) } else { ("above the upper", high) };
            let by_chance = estimate.interval.as_ref().is_some_and(|i| i.lower <= bound && bound <= i.upper);
            let message =
                format!("the estimate {found:.4} came out {side} bound {bound:.4} and was moved to it");
            let (code, message) = match by_chance {
                true => ("moved-to-bound", format!("{message}; its interval holds the bound")),
                false => ("outside-bounds", message),
            };
            // Where the bounds meet, they are the value.
            if !by_chance || high - low > 1e-6 * (1.0 + bound.abs()) {
                estimate.doubts.push(Doubt::new(code, message));
            }
            estimate.value = bound;
            if let Some(interval) = &mut estimate.interval {
                interval.lower = interval.lower.min(bound);
                interval.upper = interval.upper.max(bound);
            }
        }
        Self { lower: low, lower_method: lower.1.into(), estimate, upper: high, upper_method: upper.1.into() }
    }
}

/// How error bars are found by drawing again from the rows.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resampling {
    /// The number of draws; 0 for no interval.
    pub draws: usize,
    /// The level of the interval.
    pub level: f64,
    /// At most so many rows in each subsample, which bounds the cost.
    pub max_rows: usize,
    /// The seed of the draws: the same seed gives the same interval, whatever the number of threads.
    pub seed: u64,
}

impl Default for Resampling {
    /// 100 draws of at most 2,000 rows, at the level 0.9, with the seed 0.
    fn default() -> Self {
        Self { draws: 100, level: 0.9, max_rows: 2_000, seed: 0 }
    }
}

impl Resampling {
    /// No intervals.
    pub fn none() -> Self {
        Self { draws: 0, ..Self::default() }
    }

    /// Refuses settings out of their range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting.
    pub fn check(&self) -> Result<()> {
        if !(self.level > 0.0 && self.level < 1.0) {
            let (value, reason) = (self.level.to_string(), "must be above 0 and below 1");
            return Err(Error::Config { key: "resampling.level", value, reason });
        }
        if self.draws == 1 || self.max_rows < 4 {
            let value = format!("draws {}, max_rows {}", self.draws, self.max_rows);
            let reason = "needs at least 2 draws (or 0 for none) and max_rows of at least 4";
            return Err(Error::Config { key: "resampling", value, reason });
        }
        Ok(())
    }

    /// An interval around `value`, the estimate of all `n` rows, from estimates of subsamples without
    /// replacement (Politis and Romano 1994): with `m` of `n` rows, `Var(theta_n) = Var(theta_m) m / (n - m)`
    /// for an estimator whose variance falls as `1 / n`. Made for estimators that replacement breaks, as it
    /// doubles rows: all those on nearest neighbors, and ranks. `None` where half of the rows are fewer than
    /// `needed`, or where the estimator refuses a subsample: that says nothing against the estimate of all rows.
    pub(crate) fn subsample(
        &self,
        value: f64,
        n: usize,
        needed: usize,
        estimate: impl Fn(&[usize]) -> Result<f64> + Sync,
    ) -> Result<Option<Interval>> {
        Ok(self.subsample_all(&[value], n, needed, |rows| Ok(vec![estimate(rows)?]))?.pop().flatten())
    }

    /// [`Resampling::subsample`] for several estimates of the same rows.
    pub(crate) fn subsample_all(
        &self,
        values: &[f64],
        n: usize,
        needed: usize,
        estimate: impl Fn(&[usize]) -> Result<Vec<f64>> + Sync,
    ) -> Result<Vec<Option<Interval>>> {
        self.check()?;
        let m = (n / 2).min(self.max_rows);
        if self.draws == 0 || m < needed.max(2) {
            return Ok(vec![None; values.len()]);
        }
        let key = Key::new(self.seed).fold_named("subsample");
        let draws: Vec<Vec<f64>> = (0..self.draws as u64)
            .into_par_iter()
            .map(|draw| {
                let drawn = estimate(&choose(key.fold_in(draw), n, m));
                drawn.unwrap_or_else(|_| vec![f64::NAN; values.len()])
            })
            .collect();
        let method = format!("{} subsamples of {m} of {n} rows, normal", self.draws);
        let interval = |i: usize| {
            let drawn: Vec<f64> = draws.iter().map(|d| d[i]).filter(|v| v.is_finite()).collect();
            // The spread of a few that happened to be finite would be too small.
            if drawn.len() < self.draws {
                return None;
            }
            let se = (variance(&drawn) * m as f64 / (n - m) as f64).sqrt();
            Some(Interval::normal(values[i], se, self.level, method.clone()))
        };
        Ok((0..values.len()).map(interval).collect())
    }

    /// [`Resampling::subsample`] for an estimator whose bias falls with the rows: where the mean over subsamples of `m`
    /// rows lies off the estimate of `n` by more than two standard errors, the interval is widened on the side to which
    /// the estimate moves as the rows grow, by what is still to come if the bias falls as `1 / sqrt(n)`:
    /// `|theta_n - mean theta_m| / (sqrt(n / m) - 1)`.
    pub(crate) fn subsample_trend(
        &self,
        value: f64,
        n: usize,
        needed: usize,
        estimate: impl Fn(&[usize]) -> Result<f64> + Sync,
    ) -> Result<Option<Interval>> {
        let one = |rows: &[usize]| Ok(vec![estimate(rows)?]);
        Ok(self.subsample_all_trend(&[value], n, needed, &[true], one)?.pop().flatten())
    }

    /// [`Resampling::subsample_trend`] for several estimates of the same rows, of those whose place in `trend` says so; the others
    /// as by [`Resampling::subsample_all`].
    pub(crate) fn subsample_all_trend(
        &self,
        values: &[f64],
        n: usize,
        needed: usize,
        trend: &[bool],
        estimate: impl Fn(&[usize]) -> Result<Vec<f64>> + Sync,
    ) -> Result<Vec<Option<Interval>>> {
        let drawn = std::sync::Mutex::new(Vec::new());
        let intervals = self.subsample_all(values, n, needed, |rows| {
            let one = estimate(rows)?;
            // A poisoned lock would mean that another thread panicked: its values stay as they are.
            drawn.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(one.clone());
            Ok(one)
        })?;
        let drawn = drawn.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let m = (n / 2).min(self.max_rows) as f64;
        let widened = |(at, interval): (usize, Option<Interval>)| {
            let interval = interval?;
            if !trend.get(at).copied().unwrap_or(false) {
                return Some(interval);
            }
            let mut own: Vec<f64> = drawn.iter().map(|d: &Vec<f64>| d[at]).collect();
            // In an order that no thread decides.
            own.sort_by(f64::total_cmp);
            Some(interval.along(values[at], &own, n as f64 / m))
        };
        Ok(intervals.into_iter().enumerate().map(widened).collect())
    }

    /// The percentile bootstrap (Efron 1979) of a statistic of independent values.
    pub(crate) fn bootstrap(
        &self,
        values: &[f64],
        statistic: impl Fn(&[f64]) -> f64 + Sync,
    ) -> Result<Option<Interval>> {
        let tail = 0.5 - 0.5 * self.level;
        Ok(self.bootstrap_draws(values, statistic)?.map(|drawn| Interval {
            lower: quantile(&drawn, tail),
            upper: quantile(&drawn, 1.0 - tail),
            level: self.level,
            method: format!("percentile bootstrap, {} draws over {} rows", self.draws, values.len()),
        }))
    }

    /// The deviation of the draws of [`Resampling::bootstrap`].
    pub(crate) fn bootstrap_deviation(
        &self,
        values: &[f64],
        statistic: impl Fn(&[f64]) -> f64 + Sync,
    ) -> Result<Option<f64>> {
        Ok(self.bootstrap_draws(values, statistic)?.map(|drawn| variance(&drawn).sqrt()))
    }

    /// The statistic of each draw, ascending; `None` without draws or where one is not finite.
    fn bootstrap_draws(
        &self,
        values: &[f64],
        statistic: impl Fn(&[f64]) -> f64 + Sync,
    ) -> Result<Option<Vec<f64>>> {
        self.check()?;
        if self.draws == 0 || values.len() < 2 {
            return Ok(None);
        }
        let key = Key::new(self.seed).fold_named("bootstrap");
        let mut drawn: Vec<f64> = (0..self.draws as u64)
            .into_par_iter()
            .map(|draw| {
                let mut rng = key.fold_in(draw).rng();
                let again: Vec<f64> =
                    values.iter().map(|_| values[rng.random_range(0..values.len())]).collect();
                statistic(&again)
            })
            .filter(|v| v.is_finite())
            .collect();
        if drawn.len() < self.draws {
            return Ok(None);
        }
        drawn.sort_by(f64::total_cmp);
        Ok(Some(drawn))
    }

    /// A mean of values of independent rows, with its normal interval.
    pub(crate) fn mean(&self, values: &[f64]) -> Result<Estimate> {
        self.check()?;
        let n = values.len();
        let value = values.iter().sum::<f64>() / n as f64;
        let se = (variance(values) / n as f64).sqrt();
        let interval = (n > 1)
            .then(|| Interval::normal(value, se, self.level, "standard error of the mean over rows, normal"));
        Ok(Estimate::new(value, n).with(interval))
    }
}

/// `m` of the numbers below `n`, ascending, all subsets alike.
pub fn choose(key: Key, n: usize, m: usize) -> Vec<usize> {
    let mut rng = key.rng();
    let mut all: Vec<usize> = (0..n).collect();
    for i in 0..m {
        let j = rng.random_range(i..n);
        all.swap(i, j);
    }
    all.truncate(m);
    all.sort_unstable();
    all
}

/// A permutation of the numbers below `n`, all alike.
pub(crate) fn permutation(key: Key, n: usize) -> Vec<usize> {
    let mut rng = key.rng();
    let mut all: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        let j = rng.random_range(0..=i);
        all.swap(i, j);
    }
    all
}

/// The unbiased variance, in two passes; 0 for fewer than two values.
pub(crate) fn variance(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    if values.len() < 2 {
        return 0.0;
    }
    let mean = values.iter().sum::<f64>() / n;
    values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0)
}

/// The quantile of sorted values, with linear interpolation.
pub(crate) fn quantile(sorted: &[f64], p: f64) -> f64 {
    let at = p * (sorted.len() - 1) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (at - low as f64) * (sorted[high] - sorted[low])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normals(seed: u64, n: usize) -> Vec<f64> {
        let x =
            Key::new(seed).normal(0.0, 1.0, n, candle_core::DType::F64, &candle_core::Device::Cpu).unwrap();
        x.to_vec1().unwrap()
    }

    #[test]
    fn both_methods_cover_a_mean_as_often_as_they_say() {
        let cfg = Resampling { draws: 60, ..Resampling::default() };
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let (mut boot, mut sub) = (0, 0);
        for seed in 0..300 {
            let x = normals(seed, 80);
            let inside = |i: Option<Interval>| i.is_some_and(|i| i.lower <= 0.0 && 0.0 <= i.upper);
            boot += usize::from(inside(cfg.bootstrap(&x, mean).unwrap()));
            let drawn =
                cfg.subsample(mean(&x), 80, 2, |rows| Ok(rows.iter().map(|&i| x[i]).sum::<f64>() / 40.0));
            sub += usize::from(inside(drawn.unwrap()));
        }
        // 270 of 300 at the level 0.9; five deviations are 26.
        assert!((235..=292).contains(&boot) && (235..=292).contains(&sub), "{boot} {sub}");
    }

    #[test]
    fn too_few_rows_give_no_interval_and_bad_settings_are_named() {
        let cfg = Resampling::default();
        assert_eq!(cfg.subsample(0.0, 9, 5, |_| Ok(0.0)).unwrap(), None);
        assert_eq!(Resampling::none().bootstrap(&[1.0, 2.0, 3.0], |v| v[0]).unwrap(), None);
        let wrong = Resampling { level: 1.0, ..cfg };
        assert!(wrong.check().unwrap_err().to_string().contains("resampling.level"));
    }

    #[test]
    fn brackets_are_ordered_and_say_what_was_moved() {
        let b = Bracket::ordered((0.0, "low"), Estimate::new(2.0, 10), (1.0, "high"));
        assert_eq!((b.lower, b.estimate.value, b.upper), (0.0, 1.0, 1.0));
        assert_eq!(b.estimate.doubts[0].code, "outside-bounds");
        let interval = Interval { lower: 1.8, upper: 2.2, level: 0.9, method: "m".into() };
        let estimate = Estimate::new(2.0, 10).with(Some(interval));
        let b = Bracket::ordered((0.0, "low"), estimate, (1.0, "high"));
        let interval = b.estimate.interval.as_ref().map(|i| (i.lower, i.upper));
        assert_eq!((b.estimate.value, interval), (1.0, Some((1.0, 2.2))));
        assert_eq!(b.estimate.doubts[0].code, "outside-bounds");
        let interval = Interval { lower: 0.8, upper: 1.6, level: 0.9, method: "m".into() };
        let estimate = Estimate::new(1.2, 10).with(Some(interval));
        let b = Bracket::ordered((0.0, "low"), estimate, (1.0, "high"));
        assert_eq!((b.estimate.value, b.estimate.doubts[0].code), (1.0, "moved-to-bound"));
        let b = Bracket::ordered((2.0, "low"), Estimate::new(1.5, 10), (1.0, "high"));
        assert_eq!((b.lower, b.estimate.value, b.upper), (1.5, 1.5, 1.5));
        assert_eq!(b.estimate.doubts[0].code, "crossed-bounds");
        let b = Bracket::ordered((0.0, "low"), Estimate::new(0.5, 10), (1.0, "high"));
        assert!(b.estimate.doubts.is_empty());
    }
}
