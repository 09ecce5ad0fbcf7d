//! `infomax paper`: the experiments of the paper, each with its verdict.

use crate::args::{PaperArgs, PaperPreset};
use crate::pretrain::stop_flag;
use crate::table::table;
use crate::{Status, print};
use anyhow::{Result, bail};
use infomax_paper::{EXPERIMENTS, Outcome, Preset, Settings, State};

/// `infomax paper`.
pub(crate) fn run(args: &PaperArgs) -> Result<Status> {
    if args.names.iter().any(|name| name == "list") {
        if args.names.len() > 1 {
            bail!("`list` stands alone: infomax paper list");
        }
        return list(args.output.json);
    }
    let settings = Settings {
        preset: match args.preset {
            PaperPreset::Smoke => Preset::Smoke,
            PaperPreset::Small => Preset::Small,
            PaperPreset::Full => Preset::Full,
        },
        data: args.data.clone(),
        seeds: args.seeds,
        resume: args.resume,
        workers: args.output.threads.unwrap_or(0),
        machine: processor(),
        command: command(args),
        stop: stop_flag(None)?,
        ..Settings::new(&args.out)
    };
    let names: Vec<&str> = match args.all {
        true => EXPERIMENTS.iter().map(|e| e.name).collect(),
        false => args.names.iter().map(String::as_str).collect(),
    };
    let quiet = args.output.quiet;
    let mut say = |line: &str| {
        if !quiet || line.contains("warning") {
            crate::say!("{line}");
        }
    };
    let outcome = infomax_paper::run(&settings, &names, &mut say)?;
    if args.output.json {
        print(&serde_json::to_string_pretty(&outcome)?)?;
    } else {
        print(&text(&outcome))?;
    }
    let report = args.out.join("report.html");
    for what in &outcome.unwritten {
        crate::say!("not written: {what}");
    }
    if outcome.interrupted {
        let left = outcome.missing.join(", ");
        crate::say!("Interrupted; not there: {left}. The same command with --resume goes on.");
        return Ok(Status::Interrupted);
    }
    let failed: Vec<&str> =
        outcome.experiments.iter().filter(|d| d.state == State::Failed).map(|d| d.name.as_str()).collect();
    if !failed.is_empty() {
        let others = match outcome.experiments.len() > failed.len() {
            true => format!("the others are in {}", report.display()),
            false => format!("why is in {}", report.display()),
        };
        bail!("{} failed; {others}", failed.join(", "));
    }
    if !outcome.unwritten.is_empty() {
        bail!(
            "not everything could be written to {}; what was found is above, and the same command with --resume computes \
             only what is not there",
            args.out.display()
        );
    }
    if !quiet {
        crate::say!("Everything is in {}.", report.display());
    }
    Ok(Status::Done)
}

fn list(json: bool) -> Result<Status> {
    if json {
        let all: Vec<_> = EXPERIMENTS
            .iter()
            .map(|e| {
                serde_json::json!({
                    "name": e.name, "claim": e.claim, "needs": e.needs, "statistic": e.statistic,
                    "small_minutes": e.small_minutes, "full": e.full,
                })
            })
            .collect();
        print(&serde_json::to_string_pretty(&all)?)?;
        return Ok(Status::Done);
    }
    for e in EXPERIMENTS {
        print(&format!(
            "{}\n  {}\n  statistic: {}\n  needs: {}\n  small: within {} min on 2 cores; full: {}\n",
            e.name, e.claim, e.statistic, e.needs, e.small_minutes, e.full
        ))?;
    }
    Ok(Status::Done)
}

fn text(outcome: &Outcome) -> String {
    let mut rows = Vec::new();
    for d in &outcome.experiments {
        let words = if d.state == State::Failed { "failed" } else { d.verdict.words() };
        rows.push(vec![d.name.clone(), words.to_owned(), format!("{:.1}", d.seconds / 60.0)]);
    }
    let mut lines = vec![table(&["experiment", "verdict", "minutes"], &rows), String::new()];
    for d in &outcome.experiments {
        lines.extend(d.error.iter().map(|error| format!("{}: {error}", d.name)));
        lines.extend(d.finding.judgments.iter().map(|j| format!("{}: {} {}", d.name, j.claim, j.line())));
        lines.extend(d.finding.missing.iter().map(|m| format!("{}: missing: {m}", d.name)));
    }
    lines.join("\n")
}

/// What the report says of the machine: its processor, where the system tells.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim().to_owned()).unwrap_or_default()
}

/// The command as it can be given again; paths as they were given.
fn command(args: &PaperArgs) -> String {
    let mut text = "infomax paper".to_owned();
    match args.all {
        true => text += " --all",
        false => args.names.iter().for_each(|name| text += &format!(" {name}")),
    }
    let preset = match args.preset {
        PaperPreset::Smoke => "smoke",
        PaperPreset::Small => "small",
        PaperPreset::Full => "full",
    };
    text += &format!(" --preset {preset}");
    if let Some(data) = &args.data {
        text += &format!(" --data {}", data.display());
    }
    if let Some(seeds) = args.seeds {
        text += &format!(" --seeds {seeds}");
    }
    text += &format!(" --out {}", args.out.display());
    if args.resume {
        text += " --resume";
    }
    if let Some(threads) = args.output.threads {
        text += &format!(" --threads {threads}");
    }
    text
}
