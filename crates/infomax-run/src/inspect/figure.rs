//! The figures of a report.

use infomax_eval::probe::accuracy_interval;
use infomax_eval::{Bracket, Doubt, Estimate, Interval};
use serde::Serialize;

/// One question of a report with its figures.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Section {
    /// The question in a word or two.
    pub title: &'static str,
    /// The answers.
    pub figures: Vec<Figure>,
    /// Sentences about the whole section.
    pub notes: Vec<String>,
    /// Parts that could not be computed, each with the reason.
    pub skipped: Vec<String>,
}

/// A number with what it means.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Figure {
    /// Its name, which stays the same from release to release.
    pub key: &'static str,
    /// The number.
    pub value: f64,
    /// Where the true value is likely to be.
    pub interval: Option<Interval>,
    /// What bounds it from below and above, where that is known.
    pub bounds: Option<(f64, f64)>,
    /// What it means, and what is usual.
    pub meaning: String,
    /// What to look at, if the value is unusual.
    pub warning: Option<String>,
    /// Reasons not to trust it.
    pub doubts: Vec<Doubt>,
}

impl Section {
    pub(super) fn new(title: &'static str) -> Self {
        Self { title, figures: Vec::new(), notes: Vec::new(), skipped: Vec::new() }
    }

    /// Adds a figure, or the reason why there is none.
    pub(super) fn add<E: std::fmt::Display>(&mut self, what: &str, figure: Result<Figure, E>) {
        match figure {
            Ok(figure) => self.figures.push(figure),
            Err(reason) => self.skipped.push(format!("{what}: {reason}")),
        }
    }

    /// What a computation gave, or the reason why it gave nothing.
    pub(super) fn try_part<T, E: std::fmt::Display>(&mut self, what: &str, part: Result<T, E>) -> Option<T> {
        part.map_err(|reason| self.skipped.push(format!("{what}: {reason}"))).ok()
    }

    pub(super) fn noted(mut self, note: Option<String>) -> Self {
        self.notes.extend(note);
        self
    }
}

impl Figure {
    pub(super) fn plain(key: &'static str, value: f64, meaning: impl Into<String>) -> Self {
        let meaning = meaning.into();
        Self { key, value, interval: None, bounds: None, meaning, warning: None, doubts: Vec::new() }
    }

    pub(super) fn estimate(key: &'static str, estimate: Estimate, meaning: impl Into<String>) -> Self {
        let Estimate { value, interval, doubts, .. } = estimate;
        Self { interval, doubts, ..Self::plain(key, value, meaning) }
            .contained(f64::NEG_INFINITY, f64::INFINITY)
    }

    pub(super) fn bracket(key: &'static str, bracket: Bracket, meaning: impl Into<String>) -> Self {
        let bounds = Some((bracket.lower, bracket.upper));
        let meaning = format!(
            "{}; from below: {}, from above: {}",
            meaning.into(),
            bracket.lower_method,
            bracket.upper_method
        );
        let Estimate { value, interval, doubts, .. } = bracket.estimate;
        Self { bounds, interval, doubts, ..Self::plain(key, value, meaning) }
            .contained(bracket.lower, bracket.upper)
    }

    /// Brings the interval between bounds that hold, and around the value: a value that was moved to a bound takes its
    /// interval along. Where the interval did not hold the value, a doubt says so.
    fn contained(mut self, low: f64, high: f64) -> Self {
        let Some(interval) = &mut self.interval else { return self };
        let value = self.value;
        if interval.lower.is_nan() || interval.upper.is_nan() || value.is_nan() {
            return self;
        }
        let (found_low, found_high) = (interval.lower, interval.upper);
        // `max` and `min`, because bounds of rounding errors could make `clamp` panic.
        interval.lower = found_low.max(low).min(high).min(value);
        interval.upper = found_high.min(high).max(low).max(value);
        if value < found_low || value > found_high {
            // It stays as wide as it was, towards where the bounds leave room.
            let width = found_high - found_low;
            if value > found_high {
                interval.upper = (value + width).min(high).max(value);
            } else {
                interval.lower = (value - width).max(low).min(value);
            }
            interval.method += ", moved to hold the value";
            let message = format!(
                "the interval came out as {found_low:.4} to {found_high:.4} without the value {value:.4}, and was \
                 moved to hold it: it says less than the level of the interval promises"
            );
            self.doubts.push(Doubt { code: "moved-interval", message });
        }
        if let Some(interval) = &self.interval
            && interval.upper <= interval.lower
        {
            let message = "the interval has no width: every draw gave this number, as where nothing varies or a bound is \
                           reached; it says nothing of the error"
                .to_owned();
            self.doubts.push(Doubt { code: "no-spread", message });
        }
        self
    }

    /// An accuracy on so many test rows, with its interval.
    pub(super) fn accuracy(key: &'static str, value: f64, rows: usize, level: f64, meaning: String) -> Self {
        Self { interval: accuracy_interval(value, rows, level), ..Self::plain(key, value, meaning) }
    }

    pub(super) fn doubting(mut self, doubts: impl IntoIterator<Item = Doubt>) -> Self {
        self.doubts.extend(doubts);
        self
    }

    /// Says what to look at where the value is unusual.
    pub(super) fn warn_if(mut self, unusual: bool, warning: impl Into<String>) -> Self {
        if unusual {
            self.warning = Some(warning.into());
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bracket(value: f64, interval: (f64, f64), bounds: (f64, f64)) -> Figure {
        let interval =
            Interval { lower: interval.0, upper: interval.1, level: 0.9, method: "normal".to_owned() };
        let estimate = Estimate { value, interval: Some(interval), n: 10, doubts: Vec::new() };
        Figure::bracket(
            "label_information",
            Bracket {
                lower: bounds.0,
                lower_method: "a".into(),
                estimate,
                upper: bounds.1,
                upper_method: "b".into(),
            },
            "",
        )
    }

    #[test]
    fn a_value_never_stands_outside_its_interval_nor_the_interval_outside_its_bounds() {
        for (value, interval, bounds, want, doubted) in [
            // Moved up to the lower bound, beyond an interval that was not moved.
            (0.2743, (0.1399, 0.2042), (0.2743, 2.31), (0.2743, 0.2743 + (0.2042 - 0.1399)), true),
            (1.0982, (-1.8959, -1.8777), (1.0982, 1.0986), (1.0982, 1.0986), true),
            // Moved down to the upper bound.
            (2.0, (2.5, 3.0), (1.0, 2.0), (1.5, 2.0), true),
            // In order: nothing changes; or the ends alone are beyond.
            (1.5, (1.2, 1.8), (1.0, 2.0), (1.2, 1.8), false),
            (1.5, (0.2, 2.8), (1.0, 2.0), (1.0, 2.0), false),
        ] {
            let figure = bracket(value, interval, bounds);
            let found = figure.interval.unwrap();
            assert_eq!((found.lower, found.upper), want, "{value} {interval:?}");
            assert!(found.lower <= value && value <= found.upper);
            assert_eq!(figure.doubts.iter().any(|d| d.code == "moved-interval"), doubted, "{value}");
        }
        // What has no width is said to have none.
        let flat = bracket(1.5, (1.5, 1.5), (1.0, 2.0));
        assert!(flat.doubts.iter().any(|d| d.code == "no-spread"));
        assert!(!bracket(1.5, (1.2, 1.8), (1.0, 2.0)).doubts.iter().any(|d| d.code == "no-spread"));
    }
}
