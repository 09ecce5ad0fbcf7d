//! The figures of a report.

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
    }

    pub(super) fn bracket(key: &'static str, bracket: Bracket, meaning: impl Into<String>) -> Self {
        let bounds = Some((bracket.lower, bracket.upper));
        let meaning = format!(
            "{}; from below: {}, from above: {}",
            meaning.into(),
            bracket.lower_method,
            bracket.upper_method
        );
        Self { bounds, ..Self::estimate(key, bracket.estimate, meaning) }
    }

    /// Says what to look at where the value is unusual.
    pub(super) fn warn_if(mut self, unusual: bool, warning: impl Into<String>) -> Self {
        if unusual {
            self.warning = Some(warning.into());
        }
        self
    }
}
