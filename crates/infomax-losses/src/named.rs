//! The named objectives: constructors of an invariance and an entropy term.

use crate::{EntropyConfig, Error, Invariance, ObjectiveConfig, Reduce, Result, entropy, invariance::Mse};

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub struct NamedObjective {
    /// The name, as in a configuration.
    pub name: &'static str,
    /// Its terms, in words.
    pub composition: &'static str,
    /// The conventions it has; the first is the default.
    pub conventions: &'static [&'static str],
    /// The paper.
    pub source: &'static str,
    preset: fn(&str) -> (Invariance, EntropyConfig),
}

/// All named objectives, by name.
pub fn names() -> &'static [NamedObjective] {
    NAMED
}

pub(crate) fn find(name: &str, convention: Option<&str>) -> Result<ObjectiveConfig> {
    let Some(named) = NAMED.iter().find(|named| named.name == name) else {
        let all: Vec<&str> = NAMED.iter().map(|named| named.name).collect();
        return Err(Error::unknown("objective", name, &all));
    };
    let convention = convention.unwrap_or(named.conventions[0]);
    if !named.conventions.contains(&convention) {
        return Err(Error::unknown("convention", convention, named.conventions));
    }
    let (invariance, entropy) = (named.preset)(convention);
    Ok(ObjectiveConfig { name: name.into(), convention: convention.into(), invariance, entropy })
}

const NAMED: &[NamedObjective] = &[NamedObjective {
    name: "vicreg",
    composition: "25 mse + 25 variance hinge + 1 covariance",
    conventions: &["official", "solo-learn", "lightly"],
    source: "arXiv 2105.04906",
    preset: |convention| {
        let variance_views = if convention == "solo-learn" { Reduce::Sum } else { Reduce::Mean };
        (mse(25.0), EntropyConfig::Vicreg(entropy::Vicreg { variance_views, ..Default::default() }))
    },
}];

fn mse(weight: f64) -> Invariance {
    Invariance::Mse(Mse { weight, ..Default::default() })
}
