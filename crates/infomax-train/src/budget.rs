//! A run of a given wall time.

use crate::{Error, Result};
use std::time::Instant;

/// A wall time such as `"5m"`, `"90s"` or `"1h 30m"`.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Budget(f64);

impl Budget {
    /// So many seconds.
    ///
    /// # Errors
    /// Not a positive number of seconds.
    pub fn seconds(seconds: f64) -> Result<Self> {
        if seconds > 0.0 && seconds.is_finite() {
            return Ok(Self(seconds));
        }
        let reason = "a budget is a time above 0";
        Err(Error::Config { key: "budget", value: seconds.to_string(), reason })
    }

    /// The seconds.
    pub fn as_seconds(self) -> f64 {
        self.0
    }
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            s if s % 3600.0 == 0.0 => write!(f, "{}h", s / 3600.0),
            s if s % 60.0 == 0.0 => write!(f, "{}m", s / 60.0),
            s if s.fract() == 0.0 => write!(f, "{s}s"),
            s => write!(f, "{}ms", (s * 1000.0).round().max(1.0)),
        }
    }
}

impl From<Budget> for String {
    fn from(budget: Budget) -> Self {
        budget.to_string()
    }
}

impl TryFrom<String> for Budget {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let refuse = || format!("`{text}` is no time: write it like 5m, 90s or 1h 30m");
        let span: jiff::SignedDuration = text.parse().map_err(|_| refuse())?;
        Self::seconds(span.as_secs_f64()).map_err(|_| refuse())
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Budget {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Budget".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        String::json_schema(generator)
    }
}

/// The time that a run trains, those parts of it included that came before a resumption.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    before: f64,
    budget: Option<f64>,
}

impl Clock {
    pub(crate) fn new(before: f64, budget: Option<Budget>) -> Self {
        Self { start: Instant::now(), before, budget: budget.map(Budget::as_seconds) }
    }

    /// Seconds since the start or the resumption.
    pub(crate) fn elapsed(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// Seconds of the whole run.
    pub(crate) fn spent(&self) -> f64 {
        self.before + self.elapsed()
    }

    /// Whether the budget is used up.
    pub(crate) fn is_over(&self) -> bool {
        self.budget.is_some_and(|budget| self.spent() >= budget)
    }

    /// The number of steps that the run will come to if the rest is as fast as what was, by a budget; the planned
    /// number before anything was measured.
    pub(crate) fn horizon(&self, step: u64, planned: u64) -> Option<u64> {
        self.budget.map(|budget| steps(step, self.spent() / budget, planned))
    }
}

/// `step / progress`, which makes the part of the steps that are made equal to the part of the time that is gone.
fn steps(step: u64, progress: f64, planned: u64) -> u64 {
    if step == 0 {
        return planned;
    }
    // A cast of what is too large saturates.
    ((step as f64 / progress.max(1e-9)).round() as u64).max(step + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (text, seconds, again) in [
            ("5m", 300.0, "5m"),
            ("90s", 90.0, "90s"),
            ("1h 30m", 5400.0, "90m"),
            ("2h", 7200.0, "2h"),
            ("250ms", 0.25, "250ms"),
        ] {
            let budget = Budget::try_from(text.to_owned()).unwrap();
            assert_eq!((budget.as_seconds(), budget.to_string().as_str()), (seconds, again));
            assert_eq!(Budget::try_from(budget.to_string()), Ok(budget));
        }
        for text in ["5", "", "fast", "-3m", "0s"] {
            assert!(Budget::try_from(text.to_owned()).unwrap_err().contains("5m"), "{text}");
        }
        assert!(Budget::seconds(f64::NAN).is_err());
    }

    #[test]
    fn the_length_of_a_run_follows_from_the_time_that_is_gone() {
        assert_eq!(steps(0, 0.0, 70), 70);
        assert_eq!(steps(10, 0.1, 70), 100);
        // Slower than planned, faster than planned, past the end.
        assert_eq!((steps(10, 0.5, 70), steps(300, 0.5, 70), steps(10, 2.0, 70)), (20, 600, 11));
    }
}
