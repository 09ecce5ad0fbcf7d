//! `infomax probe`: what simple classifiers read from embeddings, by stated protocols.

use crate::args::{ProbeArgs, Protocol};
use crate::progress::Progress;
use crate::table::table;
use crate::{Status, arrays, print, variables};
use anyhow::{Result, bail};
use candle_core::Tensor;
use infomax_run::infomax_core::Key;
use infomax_run::infomax_eval::probe::{
    FewShotConfig, KnnGridConfig, RidgeConfig, SgdProbeConfig, few_shot, knn_grid, ridge_probe, sgd_probe,
};
use infomax_run::infomax_eval::{LinearProbeConfig, choose, linear_probe};
use infomax_run::{EmbedOptions, embed_run};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;

/// Rows with their classes.
struct Labeled {
    x: Tensor,
    y: Vec<u32>,
}

#[derive(Serialize)]
struct Line {
    protocol: Protocol,
    /// The mean over seeds.
    accuracy: Option<f64>,
    /// The standard deviation over seeds; `None` for one.
    deviation: Option<f64>,
    seeds: usize,
    /// Why there is no number.
    refused: Option<String>,
    /// The report of each seed.
    reports: Vec<Value>,
}

pub(crate) fn run(args: &ProbeArgs) -> Result<Status> {
    if args.seeds == 0 {
        bail!("--seeds 0: at least one is needed");
    }
    if !(args.holdout > 0.0 && args.holdout < 1.0) {
        bail!("--holdout {}: a share above 0 and below 1", args.holdout);
    }
    let mut progress = Progress::new(args.output.quiet);
    let (all, test) = read(args, &mut progress)?;
    let labels = args.labels.as_ref().map_or_else(|| args.embeddings.clone(), |l| l.display().to_string());
    variables::several(&labels, &all.y)?;
    let mut lines = Vec::new();
    for &protocol in &args.protocols() {
        let mut reports = Vec::new();
        let mut refused = None;
        for seed in args.seed..args.seed + args.seeds as u64 {
            let parted = if test.is_none() { Some(split(&all, args.holdout, seed)?) } else { None };
            let (train, held) = match (&parted, &test) {
                (Some((train, held)), _) => (train, held),
                (None, Some(test)) => (&all, test),
                (None, None) => bail!("there are no rows to test on"),
            };
            match one(protocol, train, held, seed, args) {
                Ok(report) => reports.push(report),
                Err(error) => refused = Some(error.to_string()),
            }
            // What neither draws nor splits is the same for every seed.
            if parted.is_none() && matches!(protocol, Protocol::Linear | Protocol::Ridge) {
                break;
            }
        }
        let values: Vec<f64> = reports.iter().filter_map(accuracy).collect();
        let n = values.len() as f64;
        let mean = (!values.is_empty()).then(|| values.iter().sum::<f64>() / n);
        let deviation = mean
            .filter(|_| values.len() > 1)
            .map(|m| (values.iter().map(|v| (v - m) * (v - m)).sum::<f64>() / (n - 1.0)).sqrt());
        lines.push(Line { protocol, accuracy: mean, deviation, seeds: values.len(), refused, reports });
    }
    let rows = [all.y.len(), test.as_ref().map_or(0, |t| t.y.len())];
    if args.output.json {
        let json = serde_json::json!({
            "rows": rows[0], "test_rows": test.as_ref().map(|t| t.y.len()), "probes": lines,
            "split": if test.is_some() { "given".into() } else { format!("{:.2} of each class held out, drawn by each seed", args.holdout) },
        });
        print(&serde_json::to_string_pretty(&json)?)?;
    } else {
        print(&text(&lines, rows, args))?;
    }
    if lines.iter().all(|l| l.accuracy.is_none()) {
        bail!("no probe gave a number");
    }
    Ok(Status::Done)
}

/// The embeddings to train on, and those to test on where they are given.
fn read(args: &ProbeArgs, progress: &mut Progress) -> Result<(Labeled, Option<Labeled>)> {
    let path = Path::new(&args.embeddings);
    if path.is_dir() {
        if args.labels.is_some() || args.test.is_some() {
            bail!(
                "{}: a run has labels and test images of its own; --labels and --test are for files",
                args.embeddings
            );
        }
        let embedded = embed_run(path, &EmbedOptions::default(), progress)?;
        let part = |name: &str| -> Result<Labeled> {
            let rows: Vec<usize> =
                (0..embedded.rows.len()).filter(|&i| embedded.rows[i].part == name).collect();
            let labels: Vec<Option<u32>> = rows.iter().map(|&i| embedded.rows[i].label).collect();
            if rows.is_empty() {
                return Ok(Labeled { x: embedded.values.narrow(0, 0, 0)?, y: Vec::new() });
            }
            labeled(&args.embeddings, variables::rows(&embedded.values, &rows)?, &labels, progress_note)
        };
        let (train, test) = (part("train")?, part("test")?);
        return Ok((train, Some(test).filter(|t| !t.y.is_empty())));
    }
    let Some(labels) = &args.labels else {
        bail!("--labels FILE is needed: a class for each row of {}", args.embeddings);
    };
    let matrix = |file: &str| -> Result<Tensor> {
        let x = arrays::tensor(file)?;
        if x.rank() != 2 {
            bail!("{file}: embeddings are a matrix (samples, features), not {:?}", x.dims());
        }
        Ok(x)
    };
    let (x, found) = (matrix(&args.embeddings)?, variables::labels(labels)?);
    match (&args.test, &args.test_labels) {
        (None, None) => Ok((labeled(&args.embeddings, x, &found, progress_note)?, None)),
        (Some(test), Some(test_labels)) => {
            // Both are numbered together: a class is the same number in both.
            let [ours, theirs] = variables::labels_together(labels, test_labels)?;
            let train = labeled(&args.embeddings, x, &ours, progress_note)?;
            Ok((train, Some(labeled(test, matrix(test)?, &theirs, progress_note)?)))
        }
        _ => bail!("--test and --test-labels go together"),
    }
}

fn progress_note(text: &str) {
    crate::say!("{text}");
}

/// Rows that have a class and are finite.
fn labeled(name: &str, x: Tensor, labels: &[Option<u32>], note: fn(&str)) -> Result<Labeled> {
    if x.dim(0)? != labels.len() {
        bail!("{name} has {} rows, but there are {} labels; give one for each row", x.dim(0)?, labels.len());
    }
    let mut known: Vec<usize> = (0..labels.len()).filter(|&i| labels[i].is_some()).collect();
    if known.is_empty() {
        bail!("{name}: no row has a label");
    }
    if known.len() < labels.len() {
        note(&format!("{name}: {} rows have no label and are left out", labels.len() - known.len()));
    }
    let damaged = arrays::damaged(&x)?;
    if !damaged.is_empty() {
        note(&format!("{name}: values that are not finite are left out, in {}", arrays::listed(&damaged)));
        known.retain(|i| damaged.binary_search(i).is_err());
    }
    if known.is_empty() {
        bail!("{name}: no row with a label is finite");
    }
    let y = known.iter().filter_map(|&i| labels[i]).collect();
    Ok(Labeled { x: variables::rows(&x, &known)?, y })
}

/// A share of each class to test on, drawn by the seed; a class of one row is trained on.
fn split(all: &Labeled, share: f64, seed: u64) -> Result<(Labeled, Labeled)> {
    let classes = all.y.iter().copied().max().unwrap_or(0);
    let key = Key::new(seed).fold_named("probe-split");
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for class in 0..=classes {
        let members: Vec<usize> = (0..all.y.len()).filter(|&i| all.y[i] == class).collect();
        let held = ((members.len() as f64 * share).round() as usize).min(members.len().saturating_sub(1));
        let drawn = choose(key.fold_in(u64::from(class)), members.len(), held);
        for (at, row) in members.iter().enumerate() {
            if drawn.binary_search(&at).is_ok() { test.push(*row) } else { train.push(*row) }
        }
    }
    if test.is_empty() {
        bail!("no class has rows to hold out: give --test and --test-labels, or a larger --holdout");
    }
    train.sort_unstable();
    test.sort_unstable();
    let take = |rows: &[usize]| -> Result<Labeled> {
        Ok(Labeled { x: variables::rows(&all.x, rows)?, y: rows.iter().map(|&i| all.y[i]).collect() })
    };
    Ok((take(&train)?, take(&test)?))
}

/// The report of a protocol as JSON.
fn one(protocol: Protocol, train: &Labeled, test: &Labeled, seed: u64, args: &ProbeArgs) -> Result<Value> {
    let (x, y, t, l) = (&train.x, &train.y, &test.x, &test.y);
    let sgd = |cfg: SgdProbeConfig| {
        let epochs = args.epochs.unwrap_or(cfg.epochs);
        let lr = args.lr.unwrap_or(cfg.lr);
        sgd_probe(x, y, t, l, &SgdProbeConfig { seed, epochs, lr, standardize: args.standardize, ..cfg })
    };
    Ok(match protocol {
        Protocol::Linear => serde_json::to_value(linear_probe(x, y, t, l, &LinearProbeConfig::default())?)?,
        Protocol::Ridge => serde_json::to_value(ridge_probe(x, y, t, l, &RidgeConfig::default())?)?,
        Protocol::Knn => {
            serde_json::to_value(knn_grid(x, y, t, l, &KnnGridConfig { seed, ..KnnGridConfig::default() })?)?
        }
        Protocol::FewShot => {
            let cfg = FewShotConfig { shots: args.shots, seed, ..FewShotConfig::default() };
            serde_json::to_value(few_shot(x, y, t, l, &cfg)?)?
        }
        Protocol::SoloLearn => serde_json::to_value(sgd(SgdProbeConfig::solo_learn())?)?,
        Protocol::Vicreg => serde_json::to_value(sgd(SgdProbeConfig::vicreg())?)?,
        Protocol::All => bail!("`all` stands for the others"),
    })
}

/// The accuracy of a report: a number, or an estimate.
fn accuracy(report: &Value) -> Option<f64> {
    report["accuracy"].as_f64().or_else(|| report["accuracy"]["value"].as_f64())
}

fn text(lines: &[Line], rows: [usize; 2], args: &ProbeArgs) -> String {
    let mut out = match rows[1] {
        0 => format!(
            "{} labeled rows, of which {:.0} % of each class are held out, drawn by each seed\n\n",
            rows[0],
            100.0 * args.holdout
        ),
        test => format!("{} rows to train on, {test} to test on\n\n", rows[0]),
    };
    let percent = |v: Option<f64>| v.map_or_else(|| "-".into(), |v| format!("{:.2}", 100.0 * v));
    let cells = |l: &Line| {
        let last = l.reports.last();
        let worst = last
            .and_then(|r| r["per_class"].as_array())
            .and_then(|all| all.iter().filter_map(Value::as_f64).min_by(f64::total_cmp));
        vec![
            l.protocol.name().to_owned(),
            percent(l.accuracy),
            percent(l.deviation),
            l.seeds.to_string(),
            percent(last.and_then(|r| r["top5_accuracy"].as_f64())),
            percent(worst),
            percent(last.and_then(|r| r["calibration"]["expected_error"].as_f64())),
        ]
    };
    let header =
        ["probe", "top-1 %", "deviation", "seeds", "top-5 %", "worst class %", "calibration error %"];
    out += &table(&header, &lines.iter().map(cells).collect::<Vec<_>>());
    out += "\n\n";
    for line in lines {
        match (line.reports.last().and_then(|r| r["protocol"].as_str()), &line.refused) {
            (_, Some(reason)) => {
                let _ = writeln!(out, "{}: not computed: {reason}", line.protocol.name());
            }
            (Some(protocol), None) => {
                let _ = writeln!(out, "{}: {protocol}", line.protocol.name());
            }
            _ => {}
        }
    }
    out += "per class, confusion and every seed: --json";
    out
}
