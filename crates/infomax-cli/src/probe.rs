//! `infomax probe`: what simple classifiers read from embeddings, by stated protocols.

use crate::args::{ProbeArgs, Protocol};
use crate::embeddings::{self, Loaded, ReadOptions};
use crate::labels::{self, LABELS, Raw};
use crate::progress::Progress;
use crate::table::table;
use crate::{Status, arrays, print, variables};
use anyhow::{Result, bail};
use candle_core::Tensor;
use infomax_run::infomax_core::Key;
use infomax_run::infomax_eval::probe::{
    FewShotConfig, KnnGridConfig, RidgeConfig, SgdProbeConfig, accuracy_interval, few_shot, knn_grid,
    repeated_interval, ridge_probe, sgd_probe, widened_interval,
};
use infomax_run::infomax_eval::{Interval, LinearProbeConfig, choose, linear_probe};
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

/// What is probed.
struct Data {
    train: Labeled,
    /// `None`: a part of the other is held out.
    test: Option<Labeled>,
    /// The names of the classes by number.
    classes: Vec<String>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Line {
    protocol: Protocol,
    /// The mean over seeds.
    accuracy: Option<f64>,
    /// Where the accuracy on other rows is likely to be.
    interval: Option<Interval>,
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
    if !(args.level > 0.0 && args.level < 1.0) {
        bail!("--level {}: a share above 0 and below 1", args.level);
    }
    let mut progress = Progress::new(args.output.quiet).of("embed");
    let mut data = read(args, &mut progress)?;
    let labels = args.labels.as_ref().unwrap_or(&args.embeddings);
    variables::several(labels, &data.train.y)?;
    let notes = uncommon(&data, args.holdout);
    notes.iter().for_each(|note| crate::say!("{note}"));
    data.notes.extend(notes);
    let (all, test) = (&data.train, &data.test);
    let mut lines = Vec::new();
    for &protocol in &args.protocols() {
        let mut reports = Vec::new();
        let mut refused = None;
        let mut sizes = [0, 0];
        for seed in args.seed..args.seed + args.seeds as u64 {
            let parted = if test.is_none() { Some(split(all, args.holdout, seed)?) } else { None };
            let (train, held) = match (&parted, test) {
                (Some((train, held)), _) => (train, held),
                (None, Some(test)) => (all, test),
                (None, None) => bail!("there are no rows to test on"),
            };
            sizes = [train.y.len(), held.y.len()];
            match one(protocol, train, held, seed, args) {
                Ok(report) => reports.push(report),
                Err(error) => refused = Some(error.to_string()),
            }
            // What neither draws nor splits is the same for every seed.
            if parted.is_none() && matches!(protocol, Protocol::Linear | Protocol::Ridge) {
                break;
            }
        }
        lines.push(line(protocol, reports, refused, sizes, test.is_some(), args.level));
    }
    let rows = [all.y.len(), test.as_ref().map_or(0, |t| t.y.len())];
    if args.output.json {
        let json = serde_json::json!({
            "rows": rows[0], "test_rows": test.as_ref().map(|t| t.y.len()), "classes": data.classes, "probes": lines,
            "split": if test.is_some() { "given".into() } else { format!("{:.2} of each class held out, drawn by each seed", args.holdout) },
            "notes": data.notes,
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

/// The mean of the reports, and how sure it is. `sizes` are the rows of a fit and of a test, `given` whether the latter were given.
fn line(
    protocol: Protocol,
    reports: Vec<Value>,
    refused: Option<String>,
    sizes: [usize; 2],
    given: bool,
    level: f64,
) -> Line {
    let values: Vec<f64> = reports.iter().filter_map(accuracy).collect();
    let n = values.len() as f64;
    let mean = (!values.is_empty()).then(|| values.iter().sum::<f64>() / n);
    let deviation = mean
        .filter(|_| values.len() > 1)
        .map(|m| (values.iter().map(|v| (v - m) * (v - m)).sum::<f64>() / (n - 1.0)).sqrt());
    let interval = mean.and_then(|mean| {
        if let (false, Some(interval)) = (given, repeated_interval(&values, sizes[0], sizes[1], level)) {
            return Some(interval);
        }
        let rows = accuracy_interval(mean, sizes[1], level)?;
        if let Some(deviation) = deviation {
            return Some(widened_interval(mean, rows, deviation, values.len(), "seeds"));
        }
        // Few shots are drawn many times within a report.
        let draws = reports.first().and_then(|report| report["draws"].as_array()).map_or(0, Vec::len);
        let spread = reports.first().and_then(|report| report["deviation"].as_f64()).unwrap_or(0.0);
        Some(widened_interval(mean, rows, spread, draws, "draws of training rows"))
    });
    Line { protocol, accuracy: mean, interval, deviation, seeds: values.len(), refused, reports }
}

/// The embeddings to train on, and those to test on where they are given.
fn read(args: &ProbeArgs, progress: &mut Progress) -> Result<Data> {
    let path = Path::new(&args.embeddings);
    if path.is_dir() && path.join("config.toml").exists() {
        return of_run(args, progress);
    }
    let options = ReadOptions { seed: args.seed, ..ReadOptions::default() };
    let loaded = embeddings::read(&args.embeddings, &options, progress)?;
    let mut notes = loaded.notes.clone();
    let (first, said) = labels_of(&args.embeddings, &loaded, args.labels.as_deref())?;
    said.iter().for_each(|note| progress.note(note));
    notes.extend(said);
    let Some(test) = &args.test else {
        let labels::Classes { names, mut files } = labels::together(&[&first]);
        let train = labeled(&args.embeddings, &loaded.z, &files.swap_remove(0), &mut notes)?;
        return Ok(Data { train, test: None, classes: names, notes });
    };
    let other = embeddings::read(test, &options, progress)?;
    notes.extend(other.notes.iter().cloned());
    // The same column beside the rows that are tested, unless another is named.
    let beside = args.labels.as_deref().filter(|name| other.table.column(&[name]).is_some());
    let named = args.test_labels.as_deref().or(beside);
    if named.is_none() && args.labels.is_some() && other.table.column(&LABELS).is_none() {
        bail!("--test {test}: --test-labels names the class of each of its rows");
    }
    let (second, said) = labels_of(test, &other, named)?;
    said.iter().for_each(|note| progress.note(note));
    notes.extend(said);
    // Both are numbered together: a class is the same number in both.
    let labels::Classes { names, mut files } = labels::together(&[&first, &second]);
    let theirs = labeled(test, &other.z, &files.swap_remove(1), &mut notes)?;
    let train = labeled(&args.embeddings, &loaded.z, &files.swap_remove(0), &mut notes)?;
    Ok(Data { train, test: Some(theirs), classes: names, notes })
}

/// The labels of embeddings: those that are named, or those beside them.
fn labels_of(name: &str, loaded: &Loaded, labels: Option<&str>) -> Result<(Raw, Option<String>)> {
    match (labels, loaded.table.column(&LABELS)) {
        (Some(word), _) => labels::of_argument(word, loaded.z.dim(0)?, &loaded.table),
        (None, Some((column, values))) => Ok((
            Raw::of_column(values),
            Some(format!("{name}: the labels are those of the column `{column}`")),
        )),
        (None, None) => {
            let others: Vec<&str> = loaded.table.columns.iter().map(|(name, _)| name.as_str()).collect();
            let columns = match others.as_slice() {
                [] => String::new(),
                names => format!(", or a column beside them: {}", names.join(", ")),
            };
            bail!("--labels FILE is needed: a class for each row of {name}{columns}")
        }
    }
}

/// The images of a run.
fn of_run(args: &ProbeArgs, progress: &mut Progress) -> Result<Data> {
    if args.labels.is_some() || args.test.is_some() {
        bail!(
            "{}: a run has labels and test images of its own; --labels and --test are for files",
            args.embeddings
        );
    }
    let embedded = embed_run(Path::new(&args.embeddings), &EmbedOptions::default(), progress)?;
    let known = embedded.rows.iter().filter_map(|row| row.label).max();
    let mut classes: Vec<String> =
        known.map_or_else(Vec::new, |most| (0..=most).map(|c| c.to_string()).collect());
    for row in &embedded.rows {
        if let (Some(label), Some(name)) = (row.label, &row.class)
            && let Some(class) = classes.get_mut(label as usize)
        {
            class.clone_from(name);
        }
    }
    let mut notes = Vec::new();
    let mut part = |name: &str| -> Result<Labeled> {
        let rows: Vec<usize> = (0..embedded.rows.len()).filter(|&i| embedded.rows[i].part == name).collect();
        let labels: Vec<Option<u32>> = rows.iter().map(|&i| embedded.rows[i].label).collect();
        if rows.is_empty() {
            return Ok(Labeled { x: embedded.values.narrow(0, 0, 0)?, y: Vec::new() });
        }
        labeled(&args.embeddings, &variables::rows(&embedded.values, &rows)?, &labels, &mut notes)
    };
    let (train, test) = (part("train")?, part("test")?);
    let test = Some(test).filter(|t| !t.y.is_empty());
    Ok(Data { train, test, classes, notes })
}

/// Rows that have a class and are finite.
fn labeled(name: &str, x: &Tensor, labels: &[Option<u32>], notes: &mut Vec<String>) -> Result<Labeled> {
    if x.dim(0)? != labels.len() {
        bail!("{name} has {} rows, but there are {} labels; give one for each row", x.dim(0)?, labels.len());
    }
    let mut note = |text: String| {
        crate::say!("{text}");
        notes.push(text);
    };
    let mut known: Vec<usize> = (0..labels.len()).filter(|&i| labels[i].is_some()).collect();
    if known.is_empty() {
        bail!("{name}: no row has a label");
    }
    if known.len() < labels.len() {
        note(format!("{name}: {} rows have no label and are left out", labels.len() - known.len()));
    }
    let damaged = arrays::damaged(x)?;
    if !damaged.is_empty() {
        note(format!("{name}: values that are not finite are left out, in {}", arrays::listed(&damaged)));
        known.retain(|i| damaged.binary_search(i).is_err());
    }
    if known.is_empty() {
        bail!("{name}: no row with a label is finite");
    }
    let y = known.iter().filter_map(|&i| labels[i]).collect();
    Ok(Labeled { x: variables::rows(x, &known)?, y })
}

/// How many rows of `members` are held out; one at least is trained on.
fn held_of(members: usize, share: f64) -> usize {
    ((members as f64 * share).round() as usize).min(members.saturating_sub(1))
}

/// Classes that are trained on and never tested, or tested and never trained on.
fn uncommon(data: &Data, holdout: f64) -> Vec<String> {
    let count = |rows: &Labeled| {
        let mut counts = vec![0usize; data.classes.len()];
        rows.y.iter().for_each(|class| counts[*class as usize] += 1);
        counts
    };
    let trained = count(&data.train);
    let named = |which: &dyn Fn(usize) -> bool| -> Option<String> {
        let found: Vec<usize> = (0..trained.len()).filter(|&class| which(class)).collect();
        let shown: Vec<&str> = found.iter().take(10).map(|&class| data.classes[class].as_str()).collect();
        let more = if found.len() > 10 { ", ..." } else { "" };
        let plural = if found.len() == 1 { "class" } else { "classes" };
        (!found.is_empty()).then(|| format!("{} {plural} ({}{more})", found.len(), shown.join(", ")))
    };
    let mut notes = Vec::new();
    match &data.test {
        None => {
            let never = |class: usize| trained[class] > 0 && held_of(trained[class], holdout) == 0;
            notes.extend(named(&never).map(|who| {
                format!(
                    "{who} with too few rows to hold out {:.0} % of: trained on and never tested, so that the accuracy says \
                     nothing of them",
                    100.0 * holdout
                )
            }));
        }
        Some(test) => {
            let tested = count(test);
            notes.extend(named(&|class| trained[class] == 0 && tested[class] > 0).map(|who| {
                format!("{who} only among the rows that are tested: every one of these counts as wrong")
            }));
            notes.extend(named(&|class| trained[class] > 0 && tested[class] == 0).map(|who| {
                format!("{who} only among the rows that are trained on: the accuracy says nothing of them")
            }));
        }
    }
    notes
}

/// A share of each class to test on, drawn by the seed; a class of one row is trained on.
fn split(all: &Labeled, share: f64, seed: u64) -> Result<(Labeled, Labeled)> {
    let classes = all.y.iter().copied().max().unwrap_or(0);
    let key = Key::new(seed).fold_named("probe-split");
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for class in 0..=classes {
        let members: Vec<usize> = (0..all.y.len()).filter(|&i| all.y[i] == class).collect();
        let held = held_of(members.len(), share);
        let drawn = choose(key.fold_in(u64::from(class)), members.len(), held);
        for (at, row) in members.iter().enumerate() {
            if drawn.binary_search(&at).is_ok() { test.push(*row) } else { train.push(*row) }
        }
    }
    if test.is_empty() {
        bail!(
            "no class has rows to hold out {:.0} % of ({} rows in {} classes): give --test and --test-labels, or a larger \
             --holdout",
            100.0 * share,
            all.y.len(),
            classes + 1
        );
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
            l.interval
                .as_ref()
                .map_or_else(|| "-".into(), |i| format!("[{:.2}, {:.2}]", 100.0 * i.lower, 100.0 * i.upper)),
            percent(l.deviation),
            l.seeds.to_string(),
            percent(last.and_then(|r| r["top5_accuracy"].as_f64())),
            percent(worst),
            percent(last.and_then(|r| r["calibration"]["expected_error"].as_f64())),
        ]
    };
    let header = [
        "probe",
        "top-1 %",
        "interval %",
        "deviation",
        "seeds",
        "top-5 %",
        "worst class %",
        "calibration error %",
    ];
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
        if let Some(interval) = &line.interval {
            let _ = writeln!(out, "    interval of the level {}: {}", interval.level, interval.method);
        }
        let doubts = line.reports.last().and_then(|r| r["doubts"].as_array());
        for message in doubts.into_iter().flatten().filter_map(|doubt| doubt["message"].as_str()) {
            let _ = writeln!(out, "    doubt: {message}");
        }
    }
    out += "per class, confusion and every seed: --json";
    out
}
