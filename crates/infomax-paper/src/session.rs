//! Experiments one after the other, with everything on disk after each of them.

use crate::ctx::{Ctx, Preset, Settings};
use crate::experiments::{EXPERIMENTS, Experiment, find};
use crate::verdict::Verdict;
use crate::{Error, Finding, Result, html, write};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Instant;

/// How an experiment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It has a finding.
    Done,
    /// It has none: `error` says why.
    Failed,
    /// Ctrl-C came first.
    Interrupted,
}

/// Where and how a finding was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The version of this crate.
    pub version: String,
    /// The operating system and the architecture.
    pub system: String,
    /// The threads that there are.
    pub threads: usize,
    /// What the caller says of the machine.
    pub description: String,
    /// The command.
    pub command: String,
}

/// An experiment that was run: `NAME/finding.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// Its name.
    pub name: String,
    /// Its claim.
    pub claim: String,
    /// How it ended.
    pub state: State,
    /// The verdict on the claim.
    pub verdict: Verdict,
    /// The preset.
    pub preset: Preset,
    /// The images: `shapes`, or a path.
    pub data: String,
    /// The seeds of trained encoders.
    pub seeds: u64,
    /// The seconds that it took, with the training that it caused and without that which was there.
    pub seconds: f64,
    /// Where it was made.
    pub machine: Machine,
    /// Why there is no finding.
    pub error: Option<String>,
    /// The finding.
    pub finding: Finding,
}

/// What [`run`] did.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Outcome {
    /// The experiments in the order in which they ran.
    pub experiments: Vec<Done>,
    /// Whether Ctrl-C ended it.
    pub interrupted: bool,
    /// Experiments that were asked for and did not get their turn.
    pub missing: Vec<String>,
}

/// Runs experiments by name in the order of the table, and writes after each of them, each file as a whole:
///
/// ```text
/// OUT/report.html               one self-contained page: verdicts, charts, tables
/// OUT/paper.json                what `Outcome` holds, without the tables
/// OUT/NAME/finding.json         everything that the experiment found
/// OUT/NAME/TABLE.csv, CHART.svg
/// OUT/encoders/METHOD-sSEED-HASH   runs, as `infomax pretrain` makes them
/// ```
///
/// An experiment that fails is reported as failed, and the rest goes on. Findings of experiments that are not asked for
/// this time and lie in the folder stay in the report. `say` gets lines of progress.
///
/// # Errors
/// A name that is no experiment; a file that cannot be written, such as on a full disk: what was written before stays.
pub fn run(settings: &Settings, names: &[&str], say: &mut dyn FnMut(&str)) -> Result<Outcome> {
    let mut asked: Vec<&Experiment> = names.iter().map(|name| find(name)).collect::<Result<_>>()?;
    asked.sort_by_key(|e| EXPERIMENTS.iter().position(|other| other.name == e.name));
    asked.dedup_by_key(|e| e.name);
    if settings.seeds == Some(0) {
        return Err(Error::Config("0 seeds: at least 1 is needed, and 2 for an interval".into()));
    }
    // What cannot be written is said before the work.
    std::fs::create_dir_all(&settings.out).map_err(|e| Error::io("create", &settings.out, e))?;
    let mut ctx = Ctx::new(settings, say);
    let (mut done, mut interrupted): (Vec<Done>, bool) = (Vec::new(), false);
    for experiment in &asked {
        let known = read(settings, experiment.name, ctx.seeds().end);
        if let Some(known) = known.filter(|k| settings.resume && complete(k)) {
            ctx.note(&format!("{}: there already, {}", experiment.name, known.verdict.words()));
            done.push(known);
            continue;
        }
        ctx.note(&format!("{}: {}", experiment.name, experiment.claim));
        let start = Instant::now();
        (ctx.missing, ctx.configurations) = (Vec::new(), Vec::new());
        let result = ctx.check().and_then(|()| (experiment.run)(&mut ctx));
        let (state, error, mut finding) = match result {
            Ok(finding) => (State::Done, None, finding),
            Err(Error::Interrupted) => (State::Interrupted, None, Finding::default()),
            Err(error) => (State::Failed, Some(error.to_string()), Finding::default()),
        };
        finding.missing.append(&mut ctx.missing);
        finding.configurations.append(&mut ctx.configurations);
        let seconds = start.elapsed().as_secs_f64();
        let one = record(settings, experiment, state, error, finding, seconds, ctx.seeds().end);
        if state == State::Interrupted {
            interrupted = true;
            break;
        }
        let said = one.error.clone().map_or(one.verdict.words().to_owned(), |e| format!("failed: {e}"));
        ctx.note(&format!("{}: {said} ({seconds:.0} s)", one.name));
        write_one(&settings.out, &one)?;
        done.push(one);
        let missing = left(&asked, &done);
        write_all(settings, &done, &missing, false)?;
    }
    let missing = left(&asked, &done);
    write_all(settings, &done, &missing, interrupted)?;
    Ok(Outcome { experiments: done, interrupted, missing })
}

fn left(asked: &[&Experiment], done: &[Done]) -> Vec<String> {
    let there = |e: &&&Experiment| done.iter().all(|d| d.name != e.name);
    asked.iter().filter(there).map(|e| e.name.to_owned()).collect()
}

fn complete(known: &Done) -> bool {
    known.state == State::Done && known.finding.missing.is_empty()
}

fn data_name(settings: &Settings) -> String {
    settings.data.as_ref().map_or("shapes".into(), |path| path.display().to_string())
}

/// The finding of an earlier session with the same settings.
fn read(settings: &Settings, name: &str, seeds: u64) -> Option<Done> {
    let text = std::fs::read(settings.out.join(name).join("finding.json")).ok()?;
    let known: Done = serde_json::from_slice(&text).ok()?;
    let same = known.preset == settings.preset
        && known.data == data_name(settings)
        && known.seeds == seeds
        && known.machine.version == env!("CARGO_PKG_VERSION");
    same.then_some(known)
}

fn record(
    settings: &Settings,
    experiment: &Experiment,
    state: State,
    error: Option<String>,
    finding: Finding,
    seconds: f64,
    seeds: u64,
) -> Done {
    Done {
        name: experiment.name.into(),
        claim: experiment.claim.into(),
        state,
        verdict: finding.verdict(),
        preset: settings.preset,
        data: data_name(settings),
        seeds,
        seconds,
        machine: Machine {
            version: env!("CARGO_PKG_VERSION").into(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            description: settings.machine.clone(),
            command: settings.command.clone(),
        },
        error,
        finding,
    }
}

fn write_one(out: &Path, one: &Done) -> Result<()> {
    let folder = out.join(&one.name);
    for table in &one.finding.tables {
        write::csv(&folder.join(format!("{}.csv", table.name)), table)?;
    }
    for plot in &one.finding.plots {
        write::replace(&folder.join(format!("{}.svg", plot.name)), html::svg(plot).as_bytes())?;
    }
    for picture in &one.finding.pictures {
        write::replace(&folder.join(format!("{}.svg", picture.name)), picture.svg.as_bytes())?;
    }
    // Last: a finding that is there has all of its files.
    write::json(&folder.join("finding.json"), one)
}

fn write_all(settings: &Settings, done: &[Done], missing: &[String], interrupted: bool) -> Result<()> {
    let mut all = done.to_vec();
    for experiment in EXPERIMENTS {
        if done.iter().all(|d| d.name != experiment.name) && !missing.iter().any(|m| m == experiment.name) {
            let seeds = done.first().map_or(0, |d| d.seeds);
            all.extend(read(settings, experiment.name, seeds));
        }
    }
    all.sort_by_key(|d| EXPERIMENTS.iter().position(|e| e.name == d.name));
    let summary: Vec<_> = all
        .iter()
        .map(|d| {
            serde_json::json!({
                "name": d.name, "claim": d.claim, "state": d.state, "verdict": d.verdict,
                "judgments": d.finding.judgments, "missing": d.finding.missing, "error": d.error,
                "seconds": d.seconds, "preset": d.preset, "data": d.data, "seeds": d.seeds, "machine": d.machine,
            })
        })
        .collect();
    let summary =
        serde_json::json!({ "experiments": summary, "missing": missing, "interrupted": interrupted });
    write::json(&settings.out.join("paper.json"), &summary)?;
    let page = html::page(&all, missing, interrupted);
    write::replace(&settings.out.join("report.html"), page.as_bytes())
}
