//! `infomax mi`: what two arrays tell of each other, and how well that is known.

mod given;

use crate::args::MiArgs;
use crate::progress::Progress;
use crate::table::table;
use crate::variables::{self, Kind};
use crate::{Status, arrays, print};
use anyhow::{Context as _, Result, bail};
use infomax_run::infomax_core::{Key, ValueHash};
use infomax_run::infomax_data::npy;
use infomax_run::infomax_eval::information::{
    MutualConfig, MutualEstimator, MutualReport, Variable, mutual_report,
};
use infomax_run::infomax_eval::selftest::{Cell, MeasureConfig, Task, measure, tasks};
use infomax_run::infomax_eval::{Estimate, Resampling, choose};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::f64::consts::LN_2;
use std::fmt::Write as _;
use std::path::Path;

pub(crate) fn run(args: &MiArgs) -> Result<Status> {
    if args.selftest {
        return selftest(args);
    }
    let of_selftest = [
        ("--write", args.write.is_some()),
        ("--seeds", args.seeds.is_some()),
        ("--n", !args.n.is_empty()),
        ("--tasks", args.tasks.is_some()),
        ("--images", args.images),
    ];
    if let Some((flag, _)) = of_selftest.iter().find(|(_, given)| *given) {
        bail!("{flag} belongs to the self-test: `infomax mi --selftest {flag} ...`, without files");
    }
    let [x_file, y_file] = args.files.as_slice() else {
        bail!(
            "two files are needed, X and Y, row i of both being the same sample; or `infomax mi --selftest`"
        );
    };
    if args.given.is_some() {
        given::estimators(&args.estimator)?;
    }
    let mut progress = Progress::new(args.output.quiet).of("embed");
    let mut all = vec![
        (x_file.as_str(), variables::variable(x_file, args.x_is, &mut progress)?),
        (y_file.as_str(), variables::variable(y_file, args.y_is, &mut progress)?),
    ];
    if let Some(z) = args.given.as_deref() {
        all.push((z, variables::variable(z, Kind::Continuous, &mut progress)?));
    }
    let rows = all[0].1.rows();
    if let Some((file, other)) = all.iter().find(|(_, read)| read.rows() != rows) {
        bail!(
            "{x_file} has {rows} rows and {file} has {}; row i of both must be the same sample",
            other.rows()
        );
    }
    if !args.output.quiet && !args.output.json {
        all.iter().take(2).for_each(|(_, read)| say!("{}", read.note));
    }
    let left_out = leave_out(args, &mut all)?;
    for (file, read) in &all {
        if let Variable::Discrete(labels) = &read.variable {
            variables::several(file, labels)?;
        }
    }
    let resampling =
        Resampling { draws: args.draws, level: args.level, max_rows: args.max_rows, seed: args.seed };
    let cfg = MutualConfig {
        estimators: estimators(&args.estimator)?,
        k: args.k,
        resampling,
        permutations: args.permutations,
        permutation_rows: args.permutation_rows,
        slice_dim: args.slice_dim,
        seed: args.seed,
    };
    if let [(_, x), (_, y), (_, z)] = all.as_slice() {
        return given::conditional(
            [&x.variable, &y.variable, &z.variable],
            &cfg,
            args.output.json,
            &left_out,
        );
    }
    let report = mutual_report(&all[0].1.variable, &all[1].1.variable, &cfg)?;
    if args.output.json {
        let mut json = serde_json::to_value(&report)?;
        json["unit"] = "nats".into();
        json["x"] = all[0].1.note.clone().into();
        json["y"] = all[1].1.note.clone().into();
        json["rows_of"] = rows.into();
        json["left_out"] = left_out;
        for estimate in json["estimates"].as_array_mut().into_iter().flatten() {
            if let Some(nats) = estimate["estimate"]["value"].as_f64() {
                estimate["bits"] = (nats / LN_2).into();
            }
        }
        print(&serde_json::to_string_pretty(&json)?)?;
    } else {
        print(&text(&report, &cfg))?;
    }
    Ok(Status::Done)
}

/// Leaves out what no estimator takes, the same rows of all variables, and says so: rows without a value or a class, rows beyond
/// `--rows`, columns that do not vary.
fn leave_out(args: &MiArgs, all: &mut [(&str, variables::Read)]) -> Result<serde_json::Value> {
    let rows = all.first().map_or(0, |(_, read)| read.rows());
    let missing: BTreeSet<usize> = all.iter().flat_map(|(_, read)| read.missing.iter().copied()).collect();
    for (file, read) in all.iter().filter(|(_, read)| !read.missing.is_empty()) {
        say!(
            "{file}: rows without a value that is finite, or without a class, are left out of all: {}",
            arrays::listed(&read.missing)
        );
    }
    if missing.len() == rows {
        bail!(
            "{}: no row has finite values, and a class, in all files",
            all.iter().map(|(file, _)| *file).collect::<Vec<_>>().join(", ")
        );
    }
    if !missing.is_empty() {
        let kept: Vec<usize> = (0..rows).filter(|row| !missing.contains(row)).collect();
        all.iter_mut().try_for_each(|(_, read)| read.keep(&kept))?;
    }
    let copies = copies(all)?;
    if !copies.is_empty() {
        let n = rows - missing.len();
        say!(
            "{} of {n} rows equal an earlier one in all columns of both files: copies, which estimators would take for shared \
             information, are left out",
            copies.len()
        );
        let kept: Vec<usize> = (0..n).filter(|row| copies.binary_search(row).is_err()).collect();
        all.iter_mut().try_for_each(|(_, read)| read.keep(&kept))?;
    }
    let n = rows - missing.len() - copies.len();
    if n > args.rows {
        let drawn = choose(Key::new(args.seed).fold_named("mi-rows"), n, args.rows);
        all.iter_mut().try_for_each(|(_, read)| read.keep(&drawn))?;
        say!("{} of {n} rows, drawn with the seed {} (all: --rows {n})", args.rows, args.seed);
    }
    let mut columns = serde_json::Map::new();
    for ((file, read), name) in all.iter_mut().zip(["x", "y", "given"]) {
        let constant = read.without_constant_columns(file)?;
        if !constant.is_empty() {
            let shown: Vec<String> = constant.iter().take(10).map(usize::to_string).collect();
            say!(
                "{file}: {} columns that are the same in all rows are left out, as they share no information: {}{} (the first \
                 column is 0)",
                constant.len(),
                shown.join(", "),
                if constant.len() > 10 { ", ..." } else { "" }
            );
        }
        columns.insert(name.into(), constant.into());
    }
    Ok(serde_json::json!({ "rows": missing, "copies": copies.len(), "columns": columns }))
}

/// Rows that equal an earlier one where whole rows were copied: each value of X is there with one of Y only, and each of Y with one
/// of X. Values of a grid meet others, and are no copies; a constant variable, or classes, are not looked at.
fn copies(all: &[(&str, variables::Read)]) -> Result<Vec<usize>> {
    let mut hashes: Vec<Vec<ValueHash>> = Vec::new();
    for (_, read) in all {
        let Variable::Continuous(values) = &read.variable else { return Ok(Vec::new()) };
        hashes.push(values.to_vec2::<f64>()?.iter().map(|row| ValueHash::of(row)).collect());
    }
    let n = hashes.first().map_or(0, Vec::len);
    let (mut seen, mut later) = (HashSet::new(), Vec::new());
    for row in 0..n {
        let joint: Vec<ValueHash> = hashes.iter().map(|file| file[row]).collect();
        if !seen.insert(joint) {
            later.push(row);
        }
    }
    let distinct = |file: &Vec<ValueHash>| file.iter().collect::<HashSet<_>>().len();
    let whole = hashes.iter().all(|file| distinct(file) == seen.len()) && seen.len() > 2;
    Ok(if whole { later } else { Vec::new() })
}

/// `all` is no name of one.
fn estimators(names: &[String]) -> Result<Vec<MutualEstimator>> {
    use MutualEstimator::{Discrete, Mixed};
    let known = || MutualEstimator::CONTINUOUS.into_iter().chain([Mixed, Discrete]);
    let mut wanted = Vec::new();
    for name in names.iter().flat_map(|n| n.split(',')).map(str::trim).filter(|n| *n != "all") {
        match known().find(|e| e.name() == name) {
            Some(estimator) => wanted.push(estimator),
            None => {
                let names: Vec<&str> = known().map(MutualEstimator::name).collect();
                bail!("--estimator {name}: there is no such estimator; there are all, {}", names.join(", "));
            }
        }
    }
    Ok(wanted)
}

fn range(estimate: &Estimate) -> String {
    estimate.interval.as_ref().map_or_else(|| "-".into(), |i| format!("[{:.4}, {:.4}]", i.lower, i.upper))
}

/// The estimate that is read first, in a line.
fn headline(what: &str, estimator: MutualEstimator, estimate: &Estimate, cfg: &MutualConfig) -> String {
    format!(
        "{what} = {:.4} nats = {:.4} bits   {} % interval {} nats   by {}",
        estimate.value,
        estimate.value / LN_2,
        100.0 * cfg.resampling.level,
        range(estimate),
        estimator.name()
    )
}

fn text(report: &MutualReport, cfg: &MutualConfig) -> String {
    let mut out = String::new();
    let first = report.estimates.first().and_then(|f| f.estimate.as_ref());
    if let Some(doubt) = first.and_then(|e| e.doubts.iter().find(|d| d.code == "determined")) {
        let _ = writeln!(out, "I(X; Y) is infinite, or cannot be measured from {} rows: {doubt}", report.n);
    } else if report.recommended.is_none() {
        let _ = writeln!(out, "I(X; Y) is not known: {}", report.reason);
    } else if let Some((first, estimate)) =
        report.estimates.first().and_then(|f| Some((f, f.estimate.as_ref()?)))
    {
        let _ = writeln!(out, "{}", headline("I(X; Y)", first.estimator, estimate, cfg));
    }
    let infinite = first.is_some_and(|e| e.doubts.iter().any(|d| d.code == "determined"));
    let _ = match report.recommended {
        Some(_) if !infinite => writeln!(out, "{} rows; chosen because {}\n", report.n, report.reason),
        _ => writeln!(out, "{} rows\n", report.n),
    };
    let rows: Vec<Vec<String>> = report
        .estimates
        .iter()
        .map(|e| {
            let Some(estimate) = &e.estimate else {
                return vec![e.estimator.name().into(), "-".into(), "-".into(), "-".into(), "-".into()];
            };
            let p = e.p_value.map_or_else(|| "-".into(), |p| format!("{p:.3}"));
            let (nats, bits) = (estimate.value, estimate.value / LN_2);
            vec![e.estimator.name().into(), format!("{nats:.4}"), format!("{bits:.4}"), range(estimate), p]
        })
        .collect();
    out += &table(&["estimator", "nats", "bits", "interval (nats)", "p"], &rows);
    out += "\n\n";
    for e in &report.estimates {
        let _ = writeln!(out, "{}: {}", e.estimator.name(), e.estimator.about());
        if let Some(reason) = &e.refused {
            let _ = writeln!(out, "    not computed: {reason}");
        }
        for doubt in e.estimate.iter().flat_map(|e| &e.doubts) {
            let _ = writeln!(out, "    doubt ({}): {doubt}", doubt.code);
        }
    }
    if let Some(first) = report.estimates.first() {
        if let Some(interval) = first.estimate.as_ref().and_then(|e| e.interval.as_ref()) {
            let _ = writeln!(
                out,
                "\nintervals: {}; of precision, not of bias: docs/information.md",
                interval.method
            );
        }
        if first.p_value.is_some() {
            let _ = write!(
                out,
                "p: independence, by {} permutations of Y on {} rows",
                cfg.permutations, first.tested_rows
            );
        }
    }
    out.trim_end().to_owned()
}

fn selftest(args: &MiArgs) -> Result<Status> {
    let defaults = MeasureConfig::default();
    let chosen = estimators(&args.estimator)?;
    let cfg = MeasureConfig {
        n: if args.n.is_empty() { vec![1_000] } else { args.n.clone() },
        seeds: args.seeds.unwrap_or(5),
        seed: args.seed,
        estimators: if chosen.is_empty() { defaults.estimators } else { chosen },
        k: args.k,
        resampling: Resampling { level: args.level, ..defaults.resampling },
    };
    let mut all = tasks();
    if args.images {
        all.extend(infomax_run::selftest::image_tasks(args.seed)?);
    }
    if let Some(filter) = &args.tasks {
        all.retain(|t| t.name.contains(filter.as_str()) || t.family == filter);
        if all.is_empty() {
            bail!("--tasks {filter}: no task has this in its name");
        }
    }
    if let Some(dir) = &args.write {
        return write_tasks(dir, &all, &cfg, args);
    }
    let (mut done, total) = (0, all.len() * cfg.n.len());
    let cells = measure(&all, &cfg, |task, n| {
        done += 1;
        if !args.output.quiet {
            say!("{done}/{total} {} with {n} rows", task.name);
        }
    })?;
    if args.output.json {
        let json = serde_json::json!({ "settings": cfg, "cells": cells, "unit": "nats" });
        print(&serde_json::to_string_pretty(&json)?)?;
    } else {
        print(&selftest_text(&cells, &cfg))?;
    }
    Ok(Status::Done)
}

/// The draws as arrays, and what they share.
fn write_tasks(dir: &Path, all: &[Task], cfg: &MeasureConfig, args: &MiArgs) -> Result<Status> {
    std::fs::create_dir_all(dir).with_context(|| format!("--write {}", dir.display()))?;
    let mut list = Vec::new();
    for task in all {
        for &n in &cfg.n {
            for seed in 0..cfg.seeds {
                let (x, y) = cfg.draw(task, seed as u64, n)?;
                let name = format!("{}-n{n}-s{seed}", task.name);
                let file = |side: &str| dir.join(format!("{name}.{side}.npy"));
                npy::write(&file("x"), &x)?;
                npy::write(&file("y"), &y)?;
                list.push(serde_json::json!({
                    "file": name, "task": task.name, "family": task.family, "n": n, "seed": seed, "truth": task.truth,
                }));
            }
        }
    }
    let json = serde_json::json!({ "draws": list, "unit": "nats" });
    crate::embed::replace(&dir.join("tasks.json"), serde_json::to_string_pretty(&json)?.as_bytes())?;
    if !args.output.quiet {
        say!("{} draws of {} tasks in {}", list.len(), all.len(), dir.display());
    }
    Ok(Status::Done)
}

/// A row a task, and the means over tasks.
fn selftest_text(cells: &[Cell], cfg: &MeasureConfig) -> String {
    let names: Vec<&str> = std::iter::once("first").chain(cfg.estimators.iter().map(|e| e.name())).collect();
    let mut header = vec!["task", "n", "truth"];
    header.extend(&names);
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut sums: BTreeMap<&str, (f64, f64, f64, f64, f64)> = BTreeMap::new();
    for group in cells.chunks(names.len()) {
        let Some(first) = group.first() else { continue };
        let mut row = vec![first.task.clone(), first.n.to_string(), format!("{:.3}", first.truth)];
        let best = group.iter().map(|c| c.error).fold(f64::INFINITY, f64::min);
        for cell in group {
            let cover = cell.coverage.map_or_else(|| "-".into(), |c| format!("{:.0}", 100.0 * c));
            row.push(format!("{:+.3} {:.3} {cover}", cell.mean - cell.truth, cell.error));
            if cell.error.is_finite() {
                let sum = sums.entry(cell.estimator).or_default();
                sum.0 += cell.error;
                sum.1 += 1.0;
                sum.2 += f64::from(u8::from(cell.error <= best * 1.000_001));
                if let Some(coverage) = cell.coverage {
                    sum.3 += coverage;
                    sum.4 += 1.0;
                }
            }
        }
        rows.push(row);
    }
    let mut last = vec!["all (mean error, share best, coverage)".to_owned(), String::new(), String::new()];
    for name in &names {
        let (error, count, best, coverage, covered) = sums.get(name).copied().unwrap_or_default();
        last.push(format!(
            "{:.3} {:.0}% {:.0}",
            error / count,
            100.0 * best / count,
            100.0 * coverage / covered
        ));
    }
    rows.push(last);
    format!(
        "bias, mean absolute error (nats) and coverage of the {:.0} % intervals (%) over {} draws of each task, k = {}\n\n{}\n\n\
         first: what the rule of `infomax mi` puts first; docs/information.md says how it was drawn",
        100.0 * cfg.resampling.level,
        cfg.seeds,
        cfg.k,
        table(&header, &rows)
    )
}
