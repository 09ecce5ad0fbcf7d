//! `cargo xtask compare`: two result files of the same pretraining job as one Markdown table.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

/// Which results to compare.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// What `infomax pretrain --json` printed, or the evaluation.json of a run (which holds no times).
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
    at: At,
    digits: usize,
    /// 100 for fractions that are shown in percent.
    scale: f64,
    ratio: bool,
}

/// Where a figure stands.
enum At {
    /// Under a key of the document; the first that exists.
    Keys(&'static [&'static str]),
    /// Ours: in the row of the evaluation called so, under the key. PyTorch's: under the last name.
    Evaluation(&'static str, &'static str, &'static str),
}

/// What both sides report.
const ROWS: &[Row] = &[
    Row { label: "training (s)", at: At::Keys(&["train_seconds"]), digits: 1, scale: 1.0, ratio: true },
    Row {
        label: "training images a second",
        at: At::Keys(&["images_per_s", "images_per_second"]),
        digits: 0,
        scale: 1.0,
        ratio: true,
    },
    percent("kNN, trained (%)", At::Evaluation("trained encoder", "knn", "knn")),
    percent("linear probe, trained (%)", At::Evaluation("trained encoder", "linear", "linear")),
    percent("kNN, random initialization (%)", At::Evaluation("random encoder", "knn", "random_knn")),
    percent(
        "linear probe, random initialization (%)",
        At::Evaluation("random encoder", "linear", "random_linear"),
    ),
];

const fn percent(label: &'static str, at: At) -> Row {
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
    let value = match row.at {
        At::Keys(keys) => keys.iter().find_map(|key| result.get(key)),
        At::Evaluation(what, key, flat) => {
            // `evaluation.json` is the inner object of what `infomax pretrain --json` prints.
            let rows = result.get("evaluation").unwrap_or(result).get("rows").and_then(Value::as_array);
            match rows {
                Some(rows) => rows.iter().find(|r| r["what"] == what).and_then(|r| r.get(key)),
                None => result.get(flat),
            }
        }
    };
    Some(value?.as_f64()? * row.scale)
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
        let rows =
            json!([{ "what": "random encoder", "knn": 0.3 }, { "what": "trained encoder", "knn": 0.5 }]);
        let ours = json!({ "train_seconds": 20.0, "evaluation": { "rows": rows } });
        let peer = json!({ "train_seconds": 50.0, "knn": 0.414, "images_per_second": 200.4 });
        let text = table(&names(), &ours, &peer).unwrap();
        assert!(text.contains("| training (s) | 20.0 | 50.0 | 0.40 |"), "{text}");
        assert!(text.contains("| kNN, trained (%) | 50.0 | 41.4 |  |"), "{text}");
        assert!(text.contains("| kNN, random initialization (%) | 30.0 | – |  |"), "{text}");
        assert!(text.contains("| training images a second | – | 200 |  |"), "{text}");
    }

    #[test]
    fn reads_an_evaluation_file_too() {
        let ours = json!({ "rows": [{ "what": "trained encoder", "linear": 0.6 }] });
        let text = table(&names(), &ours, &json!({ "linear": 0.5 })).unwrap();
        assert!(text.contains("| linear probe, trained (%) | 60.0 | 50.0 |  |"), "{text}");
    }

    #[test]
    fn refuses_files_of_another_kind() {
        assert!(table(&names(), &json!({ "x": 1 }), &json!({ "knn": 0.5 })).is_err());
    }
}
