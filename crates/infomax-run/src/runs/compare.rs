//! Several runs: what differs, and what came out.

use super::{Listing, RunSummary};
use crate::Result;
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Runs side by side; every row has a value for each run, in their order.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Comparison {
    /// The runs.
    pub runs: Vec<RunSummary>,
    /// Keys of the configuration that differ, with the value in each run; `None` where it has none.
    pub differing: Vec<(String, Vec<Option<String>>)>,
    /// Figures of the evaluations, then the last ones of the metrics, by name.
    pub figures: Vec<(String, Vec<Option<f64>>)>,
    /// Courses.
    pub curves: Vec<Curve>,
    /// Folders that could not be read, with the reason.
    pub skipped: Vec<(PathBuf, String)>,
}

/// A value over the steps, for each run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Curve {
    /// Its name in `metrics.jsonl`.
    pub name: String,
    /// Step and value; empty for a run that has none.
    pub points: Vec<Vec<(u64, f64)>>,
}

/// Compares runs; one alone is shown with its figures and curves. Folders that are no runs, and damaged ones, are among
/// [`Comparison::skipped`].
///
/// # Errors
/// No folder that is a run, with what is wrong with the first one.
pub fn compare(paths: &[PathBuf]) -> Result<Comparison> {
    let mut listing = Listing::default();
    paths.iter().for_each(|path| listing.take(path));
    if let (true, Some(first)) = (listing.runs.is_empty(), paths.first()) {
        RunSummary::read(first)?;
    }
    Ok(Comparison { skipped: listing.skipped, ..Comparison::of(listing.runs) })
}

/// Figures of metrics whose last value says how a run ended.
const LAST: [&str; 5] = [
    "embedding.std_l2_normalized",
    "embedding.participation_ratio",
    "features.participation_ratio",
    "account.information",
    "grad_norm",
];

impl Comparison {
    /// The same of runs that were read.
    pub fn of(mut runs: Vec<RunSummary>) -> Self {
        super::tell_apart(&mut runs);
        let keys: BTreeSet<&String> = runs.iter().flat_map(|run| run.config.keys()).collect();
        let row = |key: &String| -> Vec<Option<String>> {
            runs.iter().map(|run| run.config.get(key).cloned()).collect()
        };
        let differing = keys
            .into_iter()
            .map(|key| (key.clone(), row(key)))
            .filter(|(_, row)| row.windows(2).any(|pair| pair.first() != pair.last()))
            .collect();
        let evaluated: BTreeSet<String> =
            runs.iter().flat_map(|run| run.evaluation.keys().cloned()).collect();
        // Accuracies first, as they are what is asked for.
        let mut names: Vec<String> = ["linear", "knn"].iter().map(|name| (*name).to_owned()).collect();
        let others = |name: &String| !["linear", "knn", "step", "dim"].contains(&name.as_str());
        names.extend(evaluated.into_iter().filter(others));
        names.extend(["loss".to_owned(), "steps".to_owned(), "seconds".to_owned()]);
        let curves = curve_names(&runs);
        names.extend(LAST.iter().map(|name| (*name).to_owned()));
        names.extend(curves.iter().filter(|name| is_online(name)).cloned());
        let figures = names
            .into_iter()
            .map(|name| {
                let values = runs.iter().map(|run| run.figure(&name)).collect::<Vec<_>>();
                (name, values)
            })
            .filter(|(_, values)| values.iter().any(Option::is_some))
            .collect();
        let curves = curves
            .into_iter()
            .map(|name| Curve { points: runs.iter().map(|run| run.history.curve(&name)).collect(), name })
            .collect();
        Self { runs, differing, figures, curves, skipped: Vec::new() }
    }
}

/// The curves that are shown: the loss and its parts, spread and rank, what is measured online, the information.
pub(super) fn curve_names(runs: &[RunSummary]) -> Vec<String> {
    let all: BTreeSet<&String> = runs.iter().flat_map(|run| run.last.keys()).collect();
    let parts = |name: &&&String| name.starts_with("parts.") && !name.ends_with(".weight");
    let mut names: Vec<String> = vec!["total".to_owned()];
    names.extend(all.iter().filter(parts).map(|name| (*name).clone()));
    names.extend(LAST.iter().map(|name| (*name).to_owned()));
    names.extend(all.iter().filter(|name| is_online(name)).map(|name| (*name).clone()));
    names.retain(|name| all.contains(name));
    names
}

/// What is measured of labels while a run goes on.
fn is_online(name: &str) -> bool {
    let measured = ["online", "knn", "probe", "accuracy"].iter().any(|word| name.contains(word));
    measured && !name.starts_with("time.") && !name.starts_with("parts.")
}
