//! `cargo xtask compare`: two result files of the same pretraining job as one Markdown table.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

/// Which results to compare.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Result of `infomax pretrain`: the evaluation file of its run directory.
    ours: PathBuf,
    /// Result of benches/peers/vicreg_cifar.py (`--json`).
    peer: PathBuf,
    /// Column headings.
    #[arg(long, value_names = ["OURS", "PEER"], num_args = 2)]
    names: Option<Vec<String>>,
}

/// How a row is computed from a result and printed.
struct Row {
    label: &'static str,
    /// JSON pointers in order of preference.
    at: &'static [&'static str],
    digits: usize,
    /// 100 for fractions that are shown in percent.
    scale: f64,
    ratio: bool,
}

/// What both sides report. The first pointer is the one of the Python script.
const ROWS: &[Row] = &[
    seconds("seconds an epoch", &["/seconds_per_epoch", "/timing/seconds_per_epoch"]),
    rate("training images a second", &["/images_per_second", "/timing/images_per_second"]),
    percent("kNN, trained (%)", &["/knn", "/trained/knn", "/trained/knn/accuracy"]),
    percent("linear probe, trained (%)", &["/linear", "/trained/linear", "/trained/linear/accuracy"]),
    percent("kNN, random initialisation (%)", &["/random_knn", "/random/knn", "/random/knn/accuracy"]),
    percent(
        "linear probe, random initialisation (%)",
        &["/random_linear", "/random/linear", "/random/linear/accuracy"],
    ),
    Row { label: "threads", at: &["/threads"], digits: 0, scale: 1.0, ratio: false },
];

const fn seconds(label: &'static str, at: &'static [&'static str]) -> Row {
    Row { label, at, digits: 1, scale: 1.0, ratio: true }
}

const fn rate(label: &'static str, at: &'static [&'static str]) -> Row {
    Row { label, at, digits: 0, scale: 1.0, ratio: true }
}

const fn percent(label: &'static str, at: &'static [&'static str]) -> Row {
    Row { label, at, digits: 1, scale: 100.0, ratio: false }
}

/// Reads both files and prints the table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let read = |path: &PathBuf| -> Result<Value> {
        let text = fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not one JSON object", path.display()))
    };
    let names = options.names.clone().unwrap_or_else(|| vec!["infomax".to_owned(), "PyTorch".to_owned()]);
    print!("{}", table(&names, &read(&options.ours)?, &read(&options.peer)?)?);
    Ok(())
}

fn table(names: &[String], ours: &Value, peer: &Value) -> Result<String> {
    let mut text = format!("| | {} | {} | ratio |\n|---|---:|---:|---:|\n", names[0], names[1]);
    let mut found = 0;
    for row in ROWS {
        let (a, b) = (lookup(ours, row), lookup(peer, row));
        if a.is_none() && b.is_none() {
            continue;
        }
        found += usize::from(a.is_some() && b.is_some());
        let show = |x: Option<f64>| x.map_or_else(|| "–".to_owned(), |x| format!("{x:.*}", row.digits));
        let ratio = match (a, b) {
            (Some(a), Some(b)) if row.ratio && b != 0.0 => format!("{:.2}", a / b),
            _ => String::new(),
        };
        text += &format!("| {} | {} | {} | {ratio} |\n", row.label, show(a), show(b));
    }
    if found == 0 {
        bail!("the two files have no figure in common: are both results of the same job?");
    }
    Ok(text)
}

fn lookup(result: &Value, row: &Row) -> Option<f64> {
    row.at.iter().find_map(|at| result.pointer(at)?.as_f64()).map(|x| x * row.scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names() -> Vec<String> {
        vec!["a".to_owned(), "b".to_owned()]
    }

    #[test]
    fn puts_figures_side_by_side() {
        let ours =
            json!({ "timing": { "seconds_per_epoch": 20.0 }, "trained": { "knn": { "accuracy": 0.5 } } });
        let peer = json!({ "seconds_per_epoch": 50.0, "knn": 0.414, "threads": 2 });
        let text = table(&names(), &ours, &peer).unwrap();
        assert!(text.contains("| seconds an epoch | 20.0 | 50.0 | 0.40 |"), "{text}");
        assert!(text.contains("| kNN, trained (%) | 50.0 | 41.4 |  |"), "{text}");
        assert!(text.contains("| threads | – | 2 |  |"), "{text}");
    }

    #[test]
    fn refuses_files_of_another_kind() {
        assert!(table(&names(), &json!({ "x": 1 }), &json!({ "knn": 0.5 })).is_err());
    }
}
