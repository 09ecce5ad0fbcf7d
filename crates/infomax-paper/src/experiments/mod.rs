//! The experiments as a table.

mod account;
mod affine;
mod bound;
mod diagonal;
mod distances;
mod em;
mod entropy;
mod mixtures;
mod normality;
mod runs;
mod table;
mod transfer;

use crate::ctx::Ctx;
use crate::{Error, Finding, Result};

/// An experiment, as data.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Experiment {
    /// The name on the command line.
    pub name: &'static str,
    /// The claim, in one sentence.
    pub claim: &'static str,
    /// What it needs.
    pub needs: &'static str,
    /// What the verdict rests on.
    pub statistic: &'static str,
    /// Raised whenever its statistic, or an estimator that it rests on, changes: `--resume` takes over no finding of another
    /// revision.
    pub revision: u32,
    /// The budget in minutes of the preset `small` on two idle cores, without encoders that are there already.
    pub small_minutes: f64,
    /// What the preset `full` takes, in words.
    pub full: &'static str,
    pub(crate) run: fn(&mut Ctx<'_>) -> Result<Finding>,
}

impl Experiment {
    /// Whether it looks at images: others are the same whatever the data set.
    pub fn takes_images(&self) -> bool {
        self.needs != "nothing"
    }
}

impl std::fmt::Debug for Experiment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Experiment")
            .field("name", &self.name)
            .field("claim", &self.claim)
            .finish_non_exhaustive()
    }
}

/// All experiments: those that train first come after those that only compute.
pub const EXPERIMENTS: &[Experiment] = &[
    mixtures::EXPERIMENT,
    diagonal::EXPERIMENT,
    em::EXPERIMENT,
    distances::EXPERIMENT,
    table::EXPERIMENT,
    normality::EXPERIMENT,
    affine::EXPERIMENT,
    entropy::EXPERIMENT,
    bound::EXPERIMENT,
    account::EXPERIMENT,
    transfer::EXPERIMENT,
];

/// The experiment of a name.
///
/// # Errors
/// [`Error::Unknown`] with the names that there are.
pub fn find(name: &str) -> Result<&'static Experiment> {
    EXPERIMENTS.iter().find(|e| e.name == name).ok_or_else(|| Error::Unknown {
        name: name.into(),
        known: EXPERIMENTS.iter().map(|e| e.name).collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_the_small_preset_fits_into_an_hour() {
        assert!(EXPERIMENTS.iter().map(|e| e.small_minutes).sum::<f64>() < 60.0);
        assert!(find("mixtures").is_ok() && find("nope").unwrap_err().to_string().contains("mixtures"));
    }
}
