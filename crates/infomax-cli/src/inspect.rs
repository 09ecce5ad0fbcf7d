//! `infomax inspect`: what embeddings know, as a report.

use crate::args::InspectArgs;
use crate::progress::Progress;
use crate::{Status, arrays, print};
use anyhow::{Context as _, Result, bail};
use candle_core::Tensor;
use infomax_run::inspect::{
    Condition, Figure, InspectConfig, InspectInput, Inspection, Section, compare, inspect,
};
use infomax_run::{EmbedOptions, embed_run};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// The width that sentences are broken at.
const WIDTH: usize = 100;

pub(crate) fn run(args: &InspectArgs) -> Result<Status> {
    // What is wrong with a condition is said before the work.
    let conditions: Vec<Condition> =
        args.fail_if.iter().map(|text| Condition::parse(text)).collect::<Result<_, _>>()?;
    if args.max_rows < 100 {
        bail!("--max-rows {}: at least 100 rows are looked at", args.max_rows);
    }
    let cfg = InspectConfig { max_rows: args.max_rows, seed: args.seed, ..InspectConfig::default() };
    let mut progress = Progress::new(args.output.quiet);
    let mut inputs = Vec::new();
    for file in &args.files {
        inputs.push((file.as_str(), read(file, &mut progress)?));
    }
    let Some((name, (z, mut labels))) = inputs.first().cloned() else { bail!("there are no embeddings") };
    if let Some(path) = &args.labels {
        labels = Some(read_labels(path)?);
    }
    let views = args.views.as_deref().map(arrays::tensor).transpose()?;
    let report = inspect(&InspectInput { z: z.clone(), views, labels }, &cfg)?;
    let beside = match inputs.get(1) {
        Some((_, (other, _))) => Some(compare(&z, other, &cfg)?),
        None => None,
    };
    let second = match inputs.get(1) {
        Some((name, (other, labels))) => {
            let input = InspectInput { labels: labels.clone(), ..InspectInput::new(other.clone()) };
            Some((*name, inspect(&input, &cfg)?))
        }
        None => None,
    };
    if let Some(path) = &args.out {
        write_rows(&report, path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let mut held = Vec::new();
    for condition in &conditions {
        held.extend(condition.holds(&report)?);
    }
    if args.output.json {
        let mut json = serde_json::json!({ "embeddings": name, "report": report, "failed": held });
        if let (Some((name, second)), Some(beside)) = (&second, &beside) {
            json["second"] = serde_json::json!({ "embeddings": name, "report": second });
            json["comparison"] = serde_json::json!(beside);
        }
        print(&serde_json::to_string_pretty(&json)?)?;
    } else {
        let mut out = text(name, &report);
        if let (Some((name, second)), Some(beside)) = (&second, &beside) {
            out += &format!("\n{}\n{}", text(name, second), section(beside));
        }
        print(out.trim_end())?;
    }
    held.iter().for_each(|condition| crate::say!("--fail-if holds: {condition}"));
    Ok(if held.is_empty() { Status::Done } else { Status::ConditionHolds })
}

type Embedded = (Tensor, Option<Vec<Option<u32>>>);

/// Embeddings from a file, or of the test images of a run (those that it trained on, if it has no others).
fn read(file: &str, progress: &mut Progress) -> Result<Embedded> {
    let path = Path::new(file);
    if !path.is_dir() {
        return Ok((arrays::tensor(file)?, None));
    }
    let embedded = embed_run(path, &EmbedOptions::default(), progress)?;
    let part = if embedded.rows.iter().any(|row| row.part == "test") { "test" } else { "train" };
    let rows: Vec<u32> =
        (0u32..).zip(&embedded.rows).filter(|(_, row)| row.part == part).map(|(i, _)| i).collect();
    let labels: Vec<Option<u32>> =
        embedded.rows.iter().filter(|row| row.part == part).map(|row| row.label).collect();
    let index = Tensor::new(rows, embedded.values.device())?;
    let labels = labels.iter().any(Option::is_some).then_some(labels);
    progress.note(&format!("{file}: {} images of the part `{part}`", index.elem_count()));
    Ok((embedded.values.index_select(&index, 0)?, labels))
}

/// What a column of labels is called.
const HEADERS: [&str; 6] = ["label", "labels", "class", "target", "y", "category"];

/// One class a row: whole numbers of an array, or words of a text.
fn read_labels(path: &Path) -> Result<Vec<Option<u32>>> {
    let shown = path.display();
    let array = std::fs::read(path).with_context(|| format!("cannot read {shown}"))?;
    if array.starts_with(b"\x93NUMPY") {
        return Ok(infomax_data::npy::read_some_labels(path)?);
    }
    let text = String::from_utf8(array).map_err(|_| {
        anyhow::anyhow!("{shown} is neither an .npy file nor a text with a label on each line")
    })?;
    let mut lines: Vec<&str> = text.trim_start_matches('\u{feff}').lines().map(str::trim).collect();
    // A name above numbers, or the word itself, is a header.
    let number = |line: &&str| line.is_empty() || line.parse::<f64>().is_ok();
    if let Some((first, rest)) = lines.split_first()
        && (HEADERS.contains(&first.to_lowercase().as_str())
            || (!number(first) && !rest.is_empty() && rest.iter().all(number)))
    {
        lines.remove(0);
    }
    let numbers: Option<Vec<Option<f64>>> =
        lines.iter().map(|l| if l.is_empty() { Some(None) } else { l.parse().ok().map(Some) }).collect();
    if let Some(numbers) = numbers {
        let known = |(row, v): (usize, &Option<f64>)| v.map_or(Ok(None), |v| class(v, row, path));
        return numbers.iter().enumerate().map(known).collect();
    }
    // Words are counted in the order of the alphabet.
    let words: std::collections::BTreeSet<&str> = lines.iter().copied().filter(|l| !l.is_empty()).collect();
    let number: BTreeMap<&str, u32> = words.into_iter().zip(0u32..).collect();
    Ok(lines.iter().map(|line| number.get(line).copied()).collect())
}

/// A whole number as a class; a negative one or NaN is unknown.
fn class(value: f64, row: usize, path: &Path) -> Result<Option<u32>> {
    if value.is_nan() || value < 0.0 {
        return Ok(None);
    }
    if value.fract() != 0.0 || value > f64::from(u32::MAX) {
        bail!("{}: the label {value} of row {row} is no class: a whole number below 2^32", path.display());
    }
    Ok(Some(value as u32))
}

fn text(name: &str, report: &Inspection) -> String {
    let mut out = format!("{name}: {} rows, {} columns\n", report.n, report.d);
    for part in &report.sections {
        out += &format!("\n{}", section(part));
    }
    if !report.rows.is_empty() {
        out += "\nROWS TO LOOK AT\n";
        for row in &report.rows {
            let _ = writeln!(out, "  row {:<8} {:<11} {}", row.row, row.why, row.detail);
        }
    }
    out
}

fn section(part: &Section) -> String {
    let mut out = format!("{}\n", part.title.to_uppercase());
    for figure in &part.figures {
        let _ = writeln!(out, "  {:<26} {}", figure.key, value(figure));
        out += &wrapped(&figure.meaning, "      ");
        for doubt in &figure.doubts {
            out += &wrapped(&format!("doubt: {doubt}"), "      ");
        }
        if let Some(warning) = &figure.warning {
            out += &wrapped(&format!("LOOK: {warning}"), "      ");
        }
    }
    for note in &part.notes {
        out += &wrapped(note, "  ");
    }
    for reason in &part.skipped {
        out += &wrapped(&format!("not computed: {reason}"), "  ");
    }
    out
}

/// The number with its interval and its bounds.
fn value(figure: &Figure) -> String {
    let number = |v: f64| match v {
        v if v.fract() == 0.0 && v.abs() < 1e9 => format!("{v:.0}"),
        v if v.abs() >= 1e-3 && v.abs() < 1e6 => format!("{v:.4}"),
        v => format!("{v:.3e}"),
    };
    let mut text = number(figure.value);
    if let Some(interval) = &figure.interval {
        let _ = write!(text, "  [{}, {}]", number(interval.lower), number(interval.upper));
    }
    if let Some((low, high)) = figure.bounds {
        let _ = write!(text, "  between {} and {}", number(low), number(high));
    }
    text
}

fn wrapped(text: &str, indent: &str) -> String {
    let (mut out, mut line) = (String::new(), indent.to_owned());
    for word in text.split_whitespace() {
        if line.chars().count() + word.chars().count() >= WIDTH && line.len() > indent.len() {
            out += &format!("{}\n", line.trim_end());
            line = indent.to_owned();
        }
        line += word;
        line.push(' ');
    }
    out + line.trim_end() + "\n"
}

/// A line for each row: what is known of it.
fn write_rows(report: &Inspection, path: &Path) -> Result<()> {
    let mut text = String::from("row");
    for (name, _) in &report.columns {
        let _ = write!(text, ",{name}");
    }
    text += ",look_at\n";
    let mut why: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    report.rows.iter().for_each(|row| why.entry(row.row).or_default().push(row.why));
    for row in 0..report.n {
        let _ = write!(text, "{row}");
        for (_, values) in &report.columns {
            text.push(',');
            if let Some(value) = values.get(row).copied().flatten() {
                let _ = write!(text, "{value}");
            }
        }
        let _ = writeln!(text, ",{}", why.get(&row).map(|all| all.join(";")).unwrap_or_default());
    }
    crate::embed::replace(path, text.as_bytes())
}
