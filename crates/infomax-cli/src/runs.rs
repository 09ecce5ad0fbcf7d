//! `infomax runs`: runs side by side in the terminal, as JSON, as a page; and their metrics in other formats.

use crate::args::{ExportFormat, RunsArgs, RunsCommand};
use crate::pretrain::clock;
use crate::table::{sparkline, table};
use crate::{Status, print};
use anyhow::{Result, bail};
use infomax_run::runs::{self, Comparison, Listing, RunSummary};
use infomax_train::LogFormat;
use std::path::{Path, PathBuf};

/// The width of a curve in the terminal.
const CURVE: usize = 40;

/// `infomax runs`.
pub(crate) fn run(args: &RunsArgs) -> Result<Status> {
    if let Some(RunsCommand::Export { run, format, out }) = &args.command {
        let path = found(run);
        if !path.exists() {
            return Err(unknown(run));
        }
        return export(&path, *format, out);
    }
    let default = || vec![PathBuf::from("runs")];
    let paths: Vec<PathBuf> =
        if args.paths.is_empty() { default() } else { args.paths.iter().map(|p| found(p)).collect() };
    if args.paths.is_empty() && !Path::new("runs").is_dir() {
        bail!("there is no folder runs here; name one, or train a first run with `infomax pretrain`");
    }
    if let Some(missing) = paths.iter().find(|path| !path.exists()) {
        return Err(unknown(missing));
    }
    // Of the folder that nobody named it is no news that it is empty.
    let named = !args.paths.is_empty();
    let (paths, others): (Vec<_>, Vec<_>) =
        paths.into_iter().partition(|path| !named || !path.is_dir() || has_runs(path));
    others.iter().for_each(|path| crate::say!("skipped {}: it is no run and holds none", path.display()));
    if paths.is_empty() {
        bail!("none of these is a run or a folder of runs");
    }
    if let Some(file) = &args.html {
        let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
        if !["html", "htm"].contains(&ending.as_str()) {
            bail!("--html {}: the name ends with .html", file.display());
        }
        let mut listing = listing(&paths, args)?;
        notes(&mut listing);
        crate::embed::replace(file, listing.to_html().as_bytes())?;
        crate::say!("{} runs in {}", listing.runs.len(), file.display());
        return Ok(Status::Done);
    }
    if !args.list && paths.iter().all(|path| runs::is_run(path)) {
        let comparison = runs::compare(&paths)?;
        comparison.skipped.iter().for_each(|(path, why)| crate::say!("skipped {}: {why}", path.display()));
        print(&if args.json { serde_json::to_string_pretty(&comparison)? } else { compared(&comparison) })?;
        return Ok(Status::Done);
    }
    let mut listing = listing(&paths, args)?;
    if args.json {
        print(&serde_json::to_string_pretty(&listing)?)?;
    } else {
        notes(&mut listing);
        print(&listed(&listing))?;
    }
    Ok(Status::Done)
}

fn listing(paths: &[PathBuf], args: &RunsArgs) -> Result<Listing> {
    let mut listing = runs::list(paths)?;
    listing.sort(&args.sort)?;
    if args.reverse {
        listing.runs.reverse();
    }
    Ok(listing)
}

/// A run by its path, by its name in `runs/`, or by its number there.
pub(crate) fn found(path: &Path) -> PathBuf {
    let inside = Path::new("runs").join(path);
    if path.exists() || path.components().count() != 1 {
        return path.to_owned();
    }
    if inside.exists() {
        return inside;
    }
    match named(path).as_slice() {
        [only] => only.clone(),
        _ => path.to_owned(),
    }
}

/// The runs in `runs/` whose number, or the start of whose name, this is.
fn named(path: &Path) -> Vec<PathBuf> {
    let start = format!("{}-", path.display());
    let number = path.to_str().and_then(|text| text.parse::<u64>().ok());
    let entries = std::fs::read_dir("runs").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut named: Vec<PathBuf> = entries
        .filter(|path| {
            path.file_name().map(|name| name.to_string_lossy()).is_some_and(|name| {
                let first = name.split('-').next().and_then(|first| first.parse::<u64>().ok());
                name.starts_with(&start) || (number.is_some() && first == number)
            })
        })
        .collect();
    named.sort();
    named
}

/// What is said of a run that is not found, or of several.
fn unknown(path: &Path) -> anyhow::Error {
    let several: Vec<String> = named(path).iter().map(|run| run.display().to_string()).collect();
    match several.len() {
        0 => anyhow::anyhow!(
            "there is no folder {} here, and no run of that name or number in runs/ (`infomax runs` lists them)",
            path.display()
        ),
        _ => anyhow::anyhow!("{} is not one run: {}; name one of them", path.display(), several.join(", ")),
    }
}

/// Whether a folder is a run, or one of its folders is.
fn has_runs(path: &Path) -> bool {
    let inside =
        || std::fs::read_dir(path).into_iter().flatten().flatten().any(|entry| runs::is_run(&entry.path()));
    runs::is_run(path) || inside()
}

/// Says what was skipped and what else to know.
fn notes(listing: &mut Listing) {
    for (path, why) in &listing.skipped {
        crate::say!("skipped {}: {why}", path.display());
    }
    for run in &listing.runs {
        run.notes.iter().for_each(|note| crate::say!("note: {}: {note}", run.name));
    }
}

fn percent(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{:.1} %", 100.0 * value))
}

/// Four digits, as plain as possible.
fn number(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), infomax_run::runs::short)
}

fn listed(listing: &Listing) -> String {
    if listing.runs.is_empty() {
        return "no runs".to_owned();
    }
    let header = ["run", "state", "method", "data", "steps", "loss", "linear", "kNN", "time"];
    let rows: Vec<Vec<String>> = listing
        .runs
        .iter()
        .map(|run| {
            let total = run.total_steps.filter(|total| *total != run.steps);
            let total = total.map_or(String::new(), |total| format!("/{total}"));
            vec![
                run.name.clone(),
                run.state.to_string(),
                run.method.clone(),
                run.data.clone(),
                format!("{}{total}", run.steps),
                number(run.loss),
                percent(run.figure("linear")),
                percent(run.figure("knn")),
                clock(run.seconds),
            ]
        })
        .collect();
    let mut text = table(&header, &rows);
    for run in &listing.runs {
        if let (infomax_train::RunState::Failed, Some(why)) = (run.state, &run.ending) {
            text += &format!("\n{} failed: {why}", run.name);
        }
    }
    text
}

fn compared(comparison: &Comparison) -> String {
    let names: Vec<&str> = comparison.runs.iter().map(|run| run.name.as_str()).collect();
    let head =
        |first: &'static str| -> Vec<&str> { std::iter::once(first).chain(names.iter().copied()).collect() };
    let mut blocks = Vec::new();
    let cell = |text: fn(&RunSummary) -> String| comparison.runs.iter().map(text);
    let fact = |name: &str, text: fn(&RunSummary) -> String| -> Vec<String> {
        std::iter::once(name.to_owned()).chain(cell(text)).collect()
    };
    let mut rows = vec![
        fact("state", |run| run.state.to_string()),
        fact("method", |run| run.method.clone()),
        fact("data", |run| run.data.clone()),
        fact("time", |run| clock(run.seconds)),
    ];
    for (name, values) in comparison.figures.iter().filter(|(name, _)| name != "seconds") {
        let text = |value: &Option<f64>| match name.starts_with("linear") || name == "knn" {
            true => percent(*value),
            false => number(*value),
        };
        rows.push(std::iter::once(name.clone()).chain(values.iter().map(text)).collect());
    }
    blocks.push(table(&head("run"), &rows));
    if comparison.runs.len() > 1 {
        let rows: Vec<Vec<String>> = comparison
            .differing
            .iter()
            .map(|(key, values)| {
                let values = values.iter().map(|value| value.clone().unwrap_or_else(|| "-".to_owned()));
                std::iter::once(key.clone()).chain(values).collect()
            })
            .collect();
        blocks.push(match rows.is_empty() {
            true => "The configurations are equal.".to_owned(),
            false => table(&head("differs"), &rows),
        });
    }
    blocks.extend(curves(comparison));
    for run in &comparison.runs {
        if let (infomax_train::RunState::Failed, Some(why)) = (run.state, &run.ending) {
            blocks.push(format!("{} failed: {why}", run.name));
        }
        blocks.extend(run.notes.iter().map(|note| format!("note: {}: {note}", run.name)));
    }
    blocks.join("\n\n")
}

/// One block: for each curve a line a run, on one scale.
fn curves(comparison: &Comparison) -> Option<String> {
    let width = comparison.runs.iter().map(|run| run.name.chars().count()).max()?;
    let mut text = String::new();
    for curve in &comparison.curves {
        let all = || curve.points.iter().flatten();
        let values = || all().map(|(_, value)| *value).filter(|value| value.is_finite());
        let (Some(low), Some(high)) = (values().reduce(f64::min), values().reduce(f64::max)) else {
            continue;
        };
        // What is measured seldom has few blocks and no gaps.
        let most = curve.points.iter().map(Vec::len).max().unwrap_or(1);
        let last = all().map(|(step, _)| *step).max().unwrap_or(1);
        text +=
            &format!("{}  {} .. {}, step 0 .. {last}\n", curve.name, number(Some(low)), number(Some(high)));
        for (run, points) in
            comparison.runs.iter().zip(&curve.points).filter(|(_, points)| !points.is_empty())
        {
            let line = sparkline(points, CURVE.min(most), last, (low, high));
            text += &format!("  {:width$}  {line}  {}\n", run.name, number(points.last().map(|(_, v)| *v)));
        }
    }
    (!text.is_empty()).then(|| text.trim_end().to_owned())
}

fn export(run: &Path, format: ExportFormat, out: &Path) -> Result<Status> {
    let format = match format {
        ExportFormat::Csv => LogFormat::Csv,
        ExportFormat::Tensorboard => LogFormat::Tensorboard,
        ExportFormat::Mlflow => LogFormat::Mlflow,
    };
    match format {
        LogFormat::Csv if out.is_dir() => bail!("-o {} is a folder; a CSV goes into a file", out.display()),
        LogFormat::Tensorboard | LogFormat::Mlflow if out.is_file() => {
            bail!("-o {} is a file; this format is a folder", out.display())
        }
        _ => {}
    }
    if let LogFormat::Csv = format {
        crate::embed::target(out)?;
    }
    let history = infomax_train::export(run, format, out)?;
    history.problems.iter().for_each(|problem| crate::say!("warning: {problem}"));
    crate::say!("{} logged steps in {}", history.records.len(), out.display());
    Ok(Status::Done)
}
