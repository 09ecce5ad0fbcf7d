//! `infomax replay`: a failed step, made again.

use crate::args::ReplayArgs;
use crate::progress::Progress;
use crate::table::table;
use crate::{Status, print};
use anyhow::{Result, bail};
use infomax_run::ReplayOptions;
use infomax_run::runs::short;
use infomax_train::{Failure, FailureKind, Held, Replay, RunDir};
use std::path::{Path, PathBuf};

/// `infomax replay CAPSULE`.
pub(crate) fn run(args: &ReplayArgs) -> Result<Status> {
    let options = ReplayOptions {
        run: args.run.clone(),
        data: args.data.clone(),
        workers: args.output.threads.unwrap_or(0),
    };
    let capsule = capsule(&args.capsule)?;
    let replay = infomax_run::replay(&capsule, &options, &mut Progress::new(args.output.quiet))?;
    replay.warnings.iter().for_each(|warning| crate::say!("warning: {warning}"));
    print(&if args.output.json { serde_json::to_string_pretty(&replay)? } else { text(&replay, args.all) })?;
    Ok(if replay.same { Status::Done } else { Status::NotTheSame })
}

/// The capsule itself, or that of a run which has a single one.
fn capsule(path: &Path) -> Result<PathBuf> {
    let Some(capsules) = RunDir::capsules(path)? else { return Ok(path.to_owned()) };
    match capsules.as_slice() {
        [one] => Ok(one.clone()),
        [] => bail!("the run {} has no capsules: no step of it failed", path.display()),
        several => {
            let names: Vec<String> = several.iter().map(|path| path.display().to_string()).collect();
            bail!("the run {} has several capsules; name one of {}", path.display(), names.join(", "))
        }
    }
}

fn text(replay: &Replay, all: bool) -> String {
    let mut text = match replay.recorded.kind {
        FailureKind::Parameter => format!(
            "The parameters after step {}, whose update overflowed, and what a further step makes of them, from the \
             capsule.\n",
            replay.step
        ),
        _ => format!("Step {} (after {} finished steps), from its capsule.\n", replay.step + 1, replay.step),
    };
    text += &format!("recorded: {}\n", said(&replay.recorded));
    text += &match &replay.found {
        _ if replay.same && !tells(&replay.recorded) => {
            "replayed: the same: the views to the bit; none of the values is finite, so that they tell no more\n".to_owned()
        }
        _ if replay.same => "replayed: the same, to the bit\n".to_owned(),
        Some(found) => format!("replayed: NOT the same: {}\n", said(found)),
        None => "replayed: NOT the same: the step did not fail\n".to_owned(),
    };
    if !replay.same {
        for (name, recorded) in &replay.recorded.reached {
            let found = replay.found.iter().flat_map(|found| &found.reached).find(|(other, _)| other == name);
            let found = found.map_or("-", |(_, value)| value.as_str());
            if found != recorded {
                text += &format!("  {name}: {recorded}, now {found}\n");
            }
        }
    }
    // What is named first is what is not finite; of a large network the rest is long.
    let (bad, good): (Vec<&Held>, Vec<&Held>) = replay.held.iter().partition(|held| held.nan + held.inf > 0);
    text += &match bad.len() {
        0 => format!("\nall {} tensors of the step are finite\n", good.len()),
        n => format!(
            "\nnot finite ({n} of {} tensors), in the order of the step:\n{}\n",
            replay.held.len(),
            rows(&bad)
        ),
    };
    let shown: Vec<&Held> = good.iter().copied().filter(|held| all || !many(held)).collect();
    text += &format!("\nfinite:\n{}", rows(&shown));
    if shown.len() < good.len() {
        let hidden: Vec<&Held> = good.iter().copied().filter(|held| many(held)).collect();
        let largest = |kind: &str| {
            let of = |held: &&&Held| held.kind == kind;
            hidden.iter().filter(of).max_by(|a, b| a.rms.unwrap_or(0.0).total_cmp(&b.rms.unwrap_or(0.0)))
        };
        for kind in MANY {
            if let Some(held) = largest(kind) {
                let rms = held.rms.map_or("-".to_owned(), short);
                text += &format!("\nthe {kind} with the largest rms is {} ({rms})", held.name);
            }
        }
        text += &format!(
            "\n{} parameters, buffers, layers and gradients are left out; --all shows them",
            hidden.len()
        );
    }
    text
}

/// Whether a number of a failed step is finite, and not the 0 of a term that is clipped; or there is none.
fn tells(failure: &Failure) -> bool {
    let numbers: Vec<f64> = failure.reached.iter().filter_map(|(_, value)| value.parse().ok()).collect();
    numbers.is_empty() || numbers.iter().any(|value| value.is_finite() && *value != 0.0)
}

/// The kinds of which there is one for each layer.
const MANY: [&str; 4] = ["parameter", "buffer", "layer", "gradient"];

/// Whether there is one of its kind for each layer.
fn many(held: &Held) -> bool {
    MANY.contains(&held.kind.as_str())
}

fn said(failure: &Failure) -> String {
    let kind = serde_json::to_value(failure.kind).ok();
    let kind = kind.as_ref().and_then(serde_json::Value::as_str).unwrap_or("failure").to_owned();
    format!("{kind}: {}", failure.reason)
}

fn rows(held: &[&Held]) -> String {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), short);
    let row = |held: &&Held| {
        vec![
            format!("{} {}", held.kind, held.name),
            format!("{:?}", held.shape),
            number(held.min),
            number(held.max),
            number(held.mean),
            number(held.rms),
            held.nan.to_string(),
            held.inf.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = held.iter().map(row).collect();
    table(&["tensor", "shape", "min", "max", "mean", "rms", "NaN", "inf"], &rows)
}
