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
    /// The revision of the experiment, see [`Experiment::revision`]; findings without one are of the first.
    #[serde(default = "first_revision")]
    pub revision: u32,
    /// The preset.
    pub preset: Preset,
    /// The images: `shapes`, or a path; `none` for an experiment that looks at no images.
    pub data: String,
    /// What the images are, in hexadecimal digits; none where it looks at none.
    #[serde(default)]
    pub images: Option<String>,
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

fn first_revision() -> u32 {
    1
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
    /// Files that could not be written, with the reason. What they were to hold is in `experiments`.
    pub unwritten: Vec<String>,
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
/// An experiment that fails is reported as failed, and the rest goes on. So it does where a file cannot be written, such as on
/// a full disk: what was written before stays, and [`Outcome::unwritten`] names the file. Findings of experiments that are not
/// asked for this time and lie in the folder stay in the report. `say` gets lines of progress.
///
/// # Errors
/// A name that is no experiment; a folder that cannot be made.
pub fn run(settings: &Settings, names: &[&str], say: &mut dyn FnMut(&str)) -> Result<Outcome> {
    let mut asked: Vec<&Experiment> = names.iter().map(|name| find(name)).collect::<Result<_>>()?;
    asked.sort_by_key(|e| EXPERIMENTS.iter().position(|other| other.name == e.name));
    asked.dedup_by_key(|e| e.name);
    if settings.seeds == Some(0) {
        return Err(Error::Config("0 seeds: at least 1 is needed, and 2 for an interval".into()));
    }
    // What cannot be written is said before the work.
    std::fs::create_dir_all(&settings.out).map_err(|e| Error::io("create", &settings.out, e))?;
    let _lock = lock(&settings.out)?;
    let mut ctx = Ctx::new(settings, say);
    // What cannot be read, too.
    let images = match asked.iter().any(|experiment| experiment.takes_images()) {
        true => Some(format!("{:016x}", crate::encoders::images(&mut ctx)?.1.fingerprint())),
        false => None,
    };
    let (mut done, mut unwritten): (Vec<Done>, Vec<String>) = (Vec::new(), Vec::new());
    let mut interrupted = false;
    for experiment in &asked {
        let this = This::new(&ctx, experiment, images.as_ref());
        if settings.resume {
            match known(settings, experiment, &this) {
                Known::Same(known) if complete(&known) => {
                    ctx.note(&format!("{}: there already, {}", experiment.name, known.verdict.words()));
                    done.push(*known);
                    continue;
                }
                Known::Other(why) => {
                    ctx.note(&format!("{}: the finding that is there {why}: again", experiment.name));
                }
                Known::Same(_) | Known::None => {}
            }
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
        let one = record(settings, experiment, state, error, finding, seconds, this);
        if state == State::Interrupted {
            interrupted = true;
            break;
        }
        let said = one.error.clone().map_or(one.verdict.words().to_owned(), |e| format!("failed: {e}"));
        ctx.note(&format!("{}: {said} ({seconds:.0} s)", one.name));
        if state == State::Failed && stored(settings, experiment.name).is_some_and(|d| d.state == State::Done)
        {
            ctx.note(&format!("{}: the finding of an earlier call is kept in its folder", one.name));
        } else if let Err(error) = write_one(&settings.out, &one) {
            ctx.note(&format!("warning: {}: {error}; its finding is kept for the report", one.name));
            unwritten.push(format!("{}: {error}", one.name));
        }
        done.push(one);
        // The report is tried again after the next experiment, and at the end.
        if let Err(error) = write_all(settings, &done, &left(&asked, &done), &unwritten, false) {
            ctx.note(&format!("warning: {error}"));
        }
    }
    let missing = left(&asked, &done);
    if let Err(error) = write_all(settings, &done, &missing, &unwritten, interrupted) {
        unwritten.push(error.to_string());
    }
    Ok(Outcome { experiments: done, interrupted, missing, unwritten })
}

fn left(asked: &[&Experiment], done: &[Done]) -> Vec<String> {
    let there = |e: &&&Experiment| done.iter().all(|d| d.name != e.name);
    asked.iter().filter(there).map(|e| e.name.to_owned()).collect()
}

fn complete(known: &Done) -> bool {
    known.state == State::Done && known.finding.missing.is_empty()
}

/// What a finding of this call is of.
#[derive(Clone)]
struct This {
    data: String,
    images: Option<String>,
    seeds: u64,
}

impl This {
    fn new(ctx: &Ctx<'_>, experiment: &Experiment, images: Option<&String>) -> Self {
        match experiment.takes_images() {
            true => Self {
                data: ctx.settings.data.as_ref().map_or("shapes".into(), |path| path.display().to_string()),
                images: images.cloned(),
                seeds: ctx.seeds().end,
            },
            false => Self { data: "none".into(), images: None, seeds: ctx.starts().end },
        }
    }
}

/// A finding of an earlier session.
enum Known {
    /// Of the same settings.
    Same(Box<Done>),
    /// Of other settings, which are named, or unreadable.
    Other(String),
    None,
}

fn stored(settings: &Settings, name: &str) -> Option<Done> {
    let text = std::fs::read(settings.out.join(name).join("finding.json")).ok()?;
    serde_json::from_slice(&text).ok()
}

fn known(settings: &Settings, experiment: &Experiment, this: &This) -> Known {
    let path = settings.out.join(experiment.name).join("finding.json");
    let Some(known) = stored(settings, experiment.name) else {
        return match path.exists() {
            true => Known::Other("is damaged, or of another format".into()),
            false => Known::None,
        };
    };
    let differs = if known.machine.version != env!("CARGO_PKG_VERSION") {
        format!("is of the version {}", known.machine.version)
    } else if known.revision != experiment.revision {
        format!("is of another statistic (revision {}, now {})", known.revision, experiment.revision)
    } else if known.preset != settings.preset {
        format!("is of the preset {}", known.preset.name())
    } else if known.images != this.images {
        format!("is of other images (of {})", known.data)
    } else if known.seeds != this.seeds {
        format!("is of {} seeds", known.seeds)
    } else {
        return Known::Same(Box::new(known));
    };
    Known::Other(differs)
}

/// Keeps other processes out of the folder until it is dropped.
fn lock(out: &Path) -> Result<std::fs::File> {
    let path = out.join(".lock");
    let file = std::fs::File::create(&path).map_err(|e| Error::io("create", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::Config(format!(
            "{} is in use by another process: wait for it, or choose another folder with --out",
            out.display()
        ))),
        // A file system without locks.
        Err(std::fs::TryLockError::Error(_)) => Ok(file),
    }
}

fn record(
    settings: &Settings,
    experiment: &Experiment,
    state: State,
    error: Option<String>,
    finding: Finding,
    seconds: f64,
    this: This,
) -> Done {
    Done {
        name: experiment.name.into(),
        claim: experiment.claim.into(),
        state,
        verdict: finding.verdict(),
        revision: experiment.revision,
        preset: settings.preset,
        data: this.data,
        images: this.images,
        seeds: this.seeds,
        seconds,
        machine: Machine {
            version: env!("CARGO_PKG_VERSION").into(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            threads: match settings.workers {
                0 => std::thread::available_parallelism().map_or(1, usize::from),
                workers => workers,
            },
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

fn write_all(
    settings: &Settings,
    done: &[Done],
    missing: &[String],
    unwritten: &[String],
    interrupted: bool,
) -> Result<()> {
    let mut all = done.to_vec();
    // Findings of earlier calls stay, each with what it is of.
    let others = EXPERIMENTS.iter().filter(|experiment| done.iter().all(|d| d.name != experiment.name));
    all.extend(others.filter_map(|experiment| stored(settings, experiment.name)));
    all.sort_by_key(|d| EXPERIMENTS.iter().position(|e| e.name == d.name));
    let summary: Vec<_> = all
        .iter()
        .map(|d| {
            serde_json::json!({
                "name": d.name, "claim": d.claim, "state": d.state, "verdict": d.verdict,
                "judgments": d.finding.judgments, "missing": d.finding.missing, "error": d.error,
                "seconds": d.seconds, "revision": d.revision, "preset": d.preset, "data": d.data, "images": d.images, "seeds": d.seeds, "machine": d.machine,
            })
        })
        .collect();
    let summary = serde_json::json!({ "experiments": summary, "missing": missing, "unwritten": unwritten, "interrupted": interrupted });
    let page = html::page(&all, missing, unwritten, interrupted);
    let written = write::replace(&settings.out.join("report.html"), page.as_bytes());
    written.and(write::json(&settings.out.join("paper.json"), &summary))
}
