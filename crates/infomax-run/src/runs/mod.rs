//! Runs beside each other: what lies in a folder, and how several of them differ.

mod compare;
mod page;

pub use compare::{Comparison, Curve, compare};

use crate::config::leaves;
use crate::{Error, Result};
use infomax_train::{History, RunDir, RunState};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One run, as its folder tells it.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RunSummary {
    /// The name of the folder.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
    /// How it stands.
    pub state: RunState,
    /// The error that ended it, or what else the log says of its end.
    pub ending: Option<String>,
    /// The method where the configuration names one, the objective otherwise.
    pub method: String,
    /// What it is trained on: the last part of the path of the images, or the embedded data set.
    pub data: String,
    /// Finished steps, by the last line of metrics or the end of the run in its log.
    pub steps: u64,
    /// Steps of the whole run, by that line or the log.
    pub total_steps: Option<u64>,
    /// The last value of the objective. Those of different objectives say nothing of each other.
    pub loss: Option<f64>,
    /// The figures of the trained encoder by `evaluation.json`, by name: `linear`, `knn`, `rank_me` ...
    pub evaluation: BTreeMap<String, f64>,
    /// The last values of everything that the metrics hold.
    pub last: BTreeMap<String, f64>,
    /// Seconds of training.
    pub seconds: f64,
    /// When it was begun, in seconds since 1970 (UTC).
    pub started: Option<f64>,
    /// The configuration by dotted key.
    pub config: BTreeMap<String, String>,
    /// What could not be read, and what else to know.
    pub notes: Vec<String>,
    /// The metrics.
    #[serde(skip)]
    pub history: History,
}

/// The runs in some folders.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Listing {
    /// The runs, by name.
    pub runs: Vec<RunSummary>,
    /// Folders that were skipped, with the reason.
    pub skipped: Vec<(PathBuf, String)>,
}

impl RunSummary {
    /// Reads a run. Training may go on meanwhile.
    ///
    /// # Errors
    /// A folder that is no run, or whose configuration or files cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let text = RunDir::config_of(path)?;
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            Error::Config(format!("{}: {}", path.join("config.toml").display(), e.message().trim()))
        })?;
        let config: BTreeMap<String, String> = leaves(&table)
            .into_iter()
            .map(|(key, value)| (key, value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)))
            .collect();
        let history = History::read(path)?;
        let mut notes = history.problems.clone();
        let evaluation = evaluation(&path.join("evaluation.json"), &mut notes);
        let mut last = BTreeMap::new();
        history.records.iter().for_each(|record| last.extend(record.values.clone()));
        let steps = history.steps;
        let verdict = history.records.iter().rev().find_map(|record| record.words.get("health"));
        if let Some(verdict) = verdict.filter(|word| *word != "healthy") {
            notes.push(format!("the monitor's last verdict on its embedding: {verdict}"));
        }
        let evaluated = evaluation.get("step").copied();
        if let Some(evaluated) = evaluated.filter(|step| *step != steps as f64) {
            notes.push(format!("its evaluation is that of step {evaluated}"));
        }
        let name = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let name =
            name.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
        let get = |key: &str| config.get(key).cloned();
        let method = get("method").or_else(|| get("objective.name")).unwrap_or_else(|| "?".to_owned());
        let folder = get("data.path")
            .and_then(|path| Some(Path::new(&path).file_name()?.to_string_lossy().into_owned()));
        let data = folder.or_else(|| get("data.source")).unwrap_or_else(|| "?".to_owned());
        Ok(Self {
            name,
            path: path.to_owned(),
            state: history.state,
            ending: history.ending.clone(),
            method,
            data,
            steps,
            total_steps: last.get("total_steps").map(|total| *total as u64).or(history.planned),
            loss: last.get("total").copied(),
            evaluation,
            last,
            seconds: history.seconds,
            started: history.started,
            config,
            notes,
            history,
        })
    }

    /// A figure by its name: of the evaluation, of the last line of metrics, or `steps`, `loss`, `seconds`, `started`.
    pub fn figure(&self, name: &str) -> Option<f64> {
        match name {
            "steps" => Some(self.steps as f64),
            "loss" => self.loss,
            "seconds" | "duration" => Some(self.seconds),
            "started" => self.started,
            _ => self.evaluation.get(name).or_else(|| self.last.get(name)).copied(),
        }
    }
}

impl Listing {
    /// Sorts by `name`, `state`, `method`, `data` or a figure, the largest figure first; runs without it come last.
    ///
    /// # Errors
    /// A figure that no run has, with those that there are.
    pub fn sort(&mut self, key: &str) -> Result<()> {
        match key {
            "name" => self.runs.sort_by(|a, b| a.name.cmp(&b.name)),
            "state" => self.runs.sort_by_key(|run| run.state),
            "method" => self.runs.sort_by(|a, b| a.method.cmp(&b.method)),
            "data" => self.runs.sort_by(|a, b| a.data.cmp(&b.data)),
            _ => {
                if !self.runs.is_empty() && self.runs.iter().all(|run| run.figure(key).is_none()) {
                    let of = |run: &RunSummary| {
                        run.evaluation.keys().chain(run.last.keys()).cloned().collect::<Vec<_>>()
                    };
                    let mut known: Vec<String> = self.runs.iter().flat_map(of).collect();
                    known.sort();
                    known.dedup();
                    let hint = match self.runs.iter().all(|run| run.evaluation.is_empty()) {
                        true => {
                            " (none of them is evaluated: `infomax evaluate RUN` brings the figures of the probes)"
                        }
                        false => "",
                    };
                    return Err(Error::Config(format!(
                        "no run has the figure `{key}`{hint}; sort by name, state, method, data, steps, loss, seconds, started, or \
                         one of: {}",
                        known.join(", ")
                    )));
                }
                let value =
                    |run: &RunSummary| run.figure(key).filter(|v| v.is_finite()).unwrap_or(f64::NEG_INFINITY);
                self.runs.sort_by(|a, b| value(b).total_cmp(&value(a)));
            }
        }
        Ok(())
    }

    /// One page with the runs, what differs between them and their curves, which loads nothing.
    pub fn to_html(&self) -> String {
        page::page(self)
    }
}

/// The runs in folders: a folder that is a run, or the runs that lie in it.
///
/// # Errors
/// A folder that is not there or cannot be read. What lies in it and is no run, or a damaged one, is among
/// [`Listing::skipped`].
pub fn list(folders: &[PathBuf]) -> Result<Listing> {
    let mut listing = Listing::default();
    for folder in folders {
        if is_run(folder) {
            listing.take(folder);
            continue;
        }
        let entries = std::fs::read_dir(folder).map_err(|e| Error::io("read", folder, e))?;
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| Error::io("read", folder, e))?.path();
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            // Files between the runs are notes of people.
            if path.is_dir() && !hidden {
                paths.push(path);
            }
        }
        paths.sort();
        paths.iter().for_each(|path| listing.take(path));
    }
    tell_apart(&mut listing.runs);
    Ok(listing)
}

/// Calls runs of one name by their paths.
fn tell_apart(runs: &mut [RunSummary]) {
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for run in runs {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            run.name = run.path.display().to_string();
        }
    }
}

impl Listing {
    fn take(&mut self, path: &Path) {
        match RunSummary::read(path) {
            Ok(run) => self.runs.push(run),
            Err(error) => self.skipped.push((path.to_owned(), error.to_string())),
        }
    }
}

/// A number with four digits, as plain as possible.
pub fn short(value: f64) -> String {
    let size = value.abs();
    if value == value.trunc() && size < 1e7 {
        return format!("{value}");
    }
    match size {
        _ if !(1e-3..1e6).contains(&size) => format!("{value:.3e}"),
        _ => format!("{value:.*}", (3.0 - size.log10().floor()).clamp(0.0, 6.0) as usize),
    }
}

/// Whether a folder is that of a run.
pub fn is_run(path: &Path) -> bool {
    path.join("config.toml").is_file()
}

/// The figures of the trained encoder, the first row; none without an evaluation.
fn evaluation(file: &Path, notes: &mut Vec<String>) -> BTreeMap<String, f64> {
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return BTreeMap::new(),
        Err(e) => {
            notes.push(format!("cannot read {}: {e}", file.display()));
            return BTreeMap::new();
        }
    };
    let Ok(report) = serde_json::from_slice::<serde_json::Value>(&bytes) else {
        notes.push(format!("{} is damaged: it is no JSON", file.display()));
        return BTreeMap::new();
    };
    let rows = report.get("rows").and_then(serde_json::Value::as_array);
    let row = rows.and_then(|rows| rows.first()).and_then(serde_json::Value::as_object);
    let mut figures: BTreeMap<String, f64> =
        row.into_iter().flatten().filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect();
    figures
        .extend(report.get("step").and_then(serde_json::Value::as_f64).map(|step| ("step".to_owned(), step)));
    figures
}
