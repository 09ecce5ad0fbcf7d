//! What the embeddings know of labels.

use super::{Figure, InspectConfig, LISTED, RowNote, Section, select};
use candle_core::Tensor;
use infomax_core::Key;
use infomax_eval::geometry::{Metric, nearest_neighbors, silhouette};
use infomax_eval::information::label_information;
use infomax_eval::probe::{RidgeConfig, ridge_probe};
use infomax_eval::{KnnConfig, LinearProbeConfig, knn, linear_probe};
use std::collections::BTreeMap;

/// The classes of a probe, and how often it took each for each.
type Confusion = (Vec<u32>, Vec<Vec<u32>>);

/// Probes on a held-out part of every class, the information that labels and embeddings share, and rows whose
/// neighbors agree on another label.
pub(super) fn labels(
    z: &Tensor,
    labels: &[Option<u32>],
    names: &BTreeMap<u32, String>,
    cfg: &InspectConfig,
) -> (Section, Vec<RowNote>, Option<Confusion>) {
    let mut section = Section::new("labels");
    let mut confusion = None;
    let known: Vec<usize> = (0..labels.len()).filter(|&i| labels[i].is_some()).collect();
    if known.len() < labels.len() {
        section.notes.push(format!("{} rows have no label and are left out", labels.len() - known.len()));
    }
    // Whatever numbers the classes have, they are counted from 0.
    let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for &i in &known {
        members.entry(labels[i].unwrap_or_default()).or_default().push(i);
    }
    let number: BTreeMap<u32, u32> =
        members.keys().enumerate().map(|(at, class)| (*class, at as u32)).collect();
    let class = |i: usize| labels[i].and_then(|label| number.get(&label).copied()).unwrap_or_default();
    let key = Key::new(cfg.seed).fold_named("holdout");
    let (mut train, mut test) = (Vec::new(), Vec::new());
    let mut untested = Vec::new();
    for (class, rows) in &mut members {
        rows.sort_by_key(|&i| key.fold_in(i as u64).words());
        let held = ((rows.len() as f64 * cfg.holdout).round() as usize).min(rows.len().saturating_sub(1));
        if held == 0 {
            untested.push(format!("{} ({})", named(*class, names), rows.len()));
        }
        test.extend_from_slice(&rows[..held]);
        train.extend_from_slice(&rows[held..]);
    }
    train.sort_unstable();
    test.sort_unstable();
    if !untested.is_empty() {
        section.notes.push(format!(
            "{} classes have too few rows for one of them to be tested (their rows in brackets): {}{}",
            untested.len(),
            untested.iter().take(10).cloned().collect::<Vec<_>>().join(", "),
            if untested.len() > 10 { ", ..." } else { "" }
        ));
    }
    if members.len() < 2 || test.is_empty() {
        section.skipped.push(format!(
            "probes: {} labeled rows of {} classes; at least 2 classes of a few rows each are needed",
            known.len(),
            members.len()
        ));
        return (section, Vec::new(), None);
    }
    section.notes.push(format!(
        "{} classes; probes fitted to {} rows and tested on {} others of the same classes",
        members.len(),
        train.len(),
        test.len()
    ));
    let pick = |rows: &[usize]| select(z, rows);
    let (Some(xs), Some(ts)) =
        (section.try_part("probes", pick(&train)), section.try_part("probes", pick(&test)))
    else {
        return (section, Vec::new(), None);
    };
    let numbers = |rows: &[usize]| rows.iter().map(|&i| class(i)).collect::<Vec<u32>>();
    let (xl, tl) = (numbers(&train), numbers(&test));
    let accuracy =
        |key, value, text: String| Figure::accuracy(key, value, tl.len(), cfg.resampling.level, text);
    let linear = LinearProbeConfig::default();
    if let Some(report) = section.try_part("linear", linear_probe(&xs, &xl, &ts, &tl, &linear)) {
        confusion = Some((members.keys().copied().collect(), report.confusion.clone()));
        let worst = report.per_class.iter().enumerate().filter_map(|(class, a)| Some((class, (*a)?)));
        let worst = worst.min_by(|a, b| a.1.total_cmp(&b.1));
        let text = format!("accuracy: {}", report.protocol);
        section.figures.push(accuracy("linear", report.accuracy, text).doubting(report.doubts));
        if let Some((class, accuracy)) = worst {
            let name = named(members.keys().nth(class).copied().unwrap_or_default(), names);
            section.figures.push(
                Figure::plain(
                    "worst_class",
                    accuracy,
                    format!("the linear probe on the class {name}, its worst"),
                )
                .warn_if(accuracy < 0.5 * report.accuracy, "this class is far behind the others"),
            );
        }
    }
    section.add(
        "knn",
        knn(&xs, &xl, &ts, &tl, &KnnConfig::default()).map(|report| {
            let text = format!(
                "accuracy of {} nearest neighbors, cosine, temperature {}",
                report.k, report.temperature
            );
            accuracy("knn", report.accuracy, text)
        }),
    );
    section.add(
        "ridge",
        ridge_probe(&xs, &xl, &ts, &tl, &RidgeConfig::default()).map(|report| {
            let text = format!("accuracy: {}", report.protocol);
            accuracy("ridge", report.accuracy, text).doubting(report.doubts)
        }),
    );
    if let Some(information) = section
        .try_part("label_information", label_information(&xs, &xl, &ts, &tl, 5, &linear, &cfg.resampling))
    {
        let probe = &information.probe;
        let sure = probe
            .interval
            .as_ref()
            .map_or_else(String::new, |i| format!(" ({:.3} to {:.3} by the test rows)", i.lower, i.upper));
        section.figures.push(Figure::bracket(
            "label_information",
            information.bracket,
            format!(
                "I(Z; Y) in nats, of H(Y) = {:.3}; the linear probe reads {:.3}{sure}",
                information.entropy.value, probe.value
            ),
        ));
    }
    if ts.dims().first().is_some_and(|rows| *rows <= cfg.max_rows) {
        section.add(
            "silhouette",
            silhouette(&ts, &tl, &cfg.resampling).map(|all| {
                Figure::estimate(
                    "silhouette",
                    all.score,
                    "1: classes are apart; 0: they overlap; of the test rows",
                )
            }),
        );
    }
    let rows = section
        .try_part("label errors", suspects(z, &known, &|i| labels[i].unwrap_or_default(), names, cfg))
        .unwrap_or_default();
    if !rows.is_empty() {
        section
            .notes
            .push(format!("{} rows whose neighbors all have one other label are listed", rows.len()));
    }
    (section, rows, confusion)
}

/// What a class is called.
fn named(class: u32, names: &BTreeMap<u32, String>) -> String {
    names.get(&class).cloned().unwrap_or_else(|| class.to_string())
}

/// Labeled rows whose ten nearest labeled rows all agree on another label.
fn suspects(
    z: &Tensor,
    known: &[usize],
    class: &dyn Fn(usize) -> u32,
    names: &BTreeMap<u32, String>,
    cfg: &InspectConfig,
) -> crate::Result<Vec<RowNote>> {
    let some = super::subset(known.len(), cfg.max_rows, cfg.seed);
    let rows: Vec<usize> = some.iter().map(|&i| known[i]).collect();
    let k = cfg.neighbors.min(rows.len().saturating_sub(1));
    let near = nearest_neighbors(&select(z, &rows)?, k, Metric::Cosine)?;
    let mut notes = Vec::new();
    for (at, &row) in rows.iter().enumerate() {
        let others: Vec<u32> = near.of(at).iter().map(|&j| class(rows[j as usize])).collect();
        if let Some(&first) = others.first()
            && first != class(row)
            && others.iter().all(|other| *other == first)
            && notes.len() < LISTED
        {
            let (theirs, own) = (named(first, names), named(class(row), names));
            let detail = format!("all {k} nearest labeled rows have the class {theirs} and not {own}");
            notes.push(RowNote { row, source: None, why: "label", detail });
        }
    }
    Ok(notes)
}
