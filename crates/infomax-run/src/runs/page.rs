//! Runs as a page.

use super::{Comparison, Listing, RunSummary};
use infomax_report::{Cell, Chart, Page, Section, Table, Verdict};
use infomax_train::RunState;

/// So many curves share one chart.
const MOST: usize = 12;

/// A table of the runs, what differs between them, and a chart for each curve.
pub(super) fn page(listing: &Listing) -> String {
    let comparison = Comparison::of(listing.runs.clone());
    let runs = &comparison.runs;
    let mut page = Page::new("Runs").lead(format!("{} runs of infomax.", runs.len()));
    page = page.section(overview(runs));
    if !comparison.differing.is_empty() {
        let head = std::iter::once("key".to_owned()).chain(runs.iter().map(|run| run.name.clone()));
        let mut table = Table::new(head);
        for (key, values) in &comparison.differing {
            let values = values.iter().map(|value| value.clone().unwrap_or_else(|| "-".to_owned()));
            table.row(std::iter::once(key.clone()).chain(values));
        }
        page = page.section(Section::new("What differs in the configuration").table(table));
    }
    let mut curves = Section::new("Curves");
    if runs.len() > MOST {
        curves = curves.text(format!("The first {MOST} runs of the table; name fewer runs to see others."));
    }
    for curve in &comparison.curves {
        let mut chart = Chart::new(curve.name.clone()).x("step").y(curve.name.clone());
        // A run without this curve, too: each has one color in all charts.
        for (run, points) in runs.iter().zip(&curve.points).take(MOST) {
            chart = chart.line(run.name.clone(), points.iter().map(|(step, value)| (*step as f64, *value)));
        }
        curves = curves.figure(chart, format!("{} over the steps.", curve.name));
    }
    if !comparison.curves.is_empty() {
        page = page.section(curves);
    }
    let notes = runs.iter().flat_map(|run| run.notes.iter().map(|note| format!("{}: {note}", run.name)));
    let skipped = listing.skipped.iter().map(|(path, why)| format!("skipped {}: {why}", path.display()));
    let notes: Vec<String> = notes.chain(skipped).collect();
    if !notes.is_empty() {
        page = page.section(Section::new("Notes").items(notes));
    }
    page.footer("Written by `infomax runs --html`. Losses of different objectives say nothing of each other.")
        .to_html()
}

fn overview(runs: &[RunSummary]) -> Section {
    let mut table = Table::new([
        "run",
        "state",
        "method",
        "data",
        "steps",
        "loss",
        "linear",
        "kNN",
        "effective rank",
        "seconds",
    ]);
    let number = |value: Option<f64>, digits| match value {
        Some(value) => Cell::number(value, digits),
        None => Cell::right("-"),
    };
    for run in runs {
        let verdict = match run.state {
            RunState::Finished => Verdict::Good,
            RunState::Failed => Verdict::Bad,
            RunState::Stopped | RunState::Interrupted | RunState::Unfinished => Verdict::Warning,
            RunState::Running => Verdict::Neutral,
        };
        let percent = |name: &str| match run.figure(name) {
            Some(value) => Cell::right(format!("{:.1} %", 100.0 * value)),
            None => Cell::right("-"),
        };
        table.row([
            Cell::from(run.name.as_str()),
            Cell::badge(verdict, run.state.to_string()),
            Cell::from(run.method.as_str()),
            Cell::from(run.data.as_str()),
            Cell::right(run.steps.to_string()),
            number(run.loss, 4),
            percent("linear"),
            percent("knn"),
            number(run.figure("effective_rank"), 3),
            number(Some(run.seconds), 4),
        ]);
    }
    let ends = runs.iter().filter(|run| run.state == RunState::Failed);
    let ends: Vec<String> =
        ends.filter_map(|run| Some(format!("{} failed: {}", run.name, run.ending.as_ref()?))).collect();
    let section = Section::new("Overview").table(table);
    if ends.is_empty() { section } else { section.items(ends) }
}
