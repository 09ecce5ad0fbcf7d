//! The ranges of settings.

use crate::{Error, Result};

fn within(term: &'static str, key: &'static str, value: f64, ok: bool, reason: &'static str) -> Result<()> {
    if ok && value.is_finite() {
        return Ok(());
    }
    Err(Error::Config { term, key, value: value.to_string(), reason })
}

/// Refuses what is not above 0.
pub(crate) fn positive(term: &'static str, key: &'static str, value: f64) -> Result<()> {
    within(term, key, value, value > 0.0, "must be above 0")
}

/// Refuses what is below 0: of weights, floors and widths that may be missing.
pub(crate) fn not_negative(term: &'static str, key: &'static str, value: f64) -> Result<()> {
    within(term, key, value, value >= 0.0, "must be a finite number of at least 0")
}

/// [`not_negative`] of several settings of a term.
pub(crate) fn none_negative<const N: usize>(
    term: &'static str,
    settings: [(&'static str, f64); N],
) -> Result<()> {
    settings.into_iter().try_for_each(|(key, value)| not_negative(term, key, value))
}

/// Refuses what is not in 0 to 1.
pub(crate) fn share(term: &'static str, key: &'static str, value: f64) -> Result<()> {
    within(term, key, value, (0.0..=1.0).contains(&value), "must be in 0..=1")
}

/// Refuses what is not between 0 and 1.
pub(crate) fn between(term: &'static str, key: &'static str, value: f64) -> Result<()> {
    within(term, key, value, value > 0.0 && value < 1.0, "must be above 0 and below 1")
}

/// Refuses what is not a number.
pub(crate) fn finite(term: &'static str, key: &'static str, value: f64) -> Result<()> {
    within(term, key, value, true, "must be a finite number")
}

/// Refuses a count that is below `least`.
pub(crate) fn count(term: &'static str, key: &'static str, value: usize, least: usize) -> Result<()> {
    if value >= least {
        return Ok(());
    }
    let reason = if least == 2 { "must be at least 2" } else { "must be at least 1" };
    Err(Error::Config { term, key, value: value.to_string(), reason })
}
