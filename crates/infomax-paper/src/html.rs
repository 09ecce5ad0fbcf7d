//! The report as one page, and charts as SVG.

use crate::finding::{Cell as Value, Plot, Style, Table as Numbers};
use crate::session::{Done, State};
use crate::verdict::{Judgment, Verdict as Judged, short};
use infomax_report::{Cell, Chart, Inline, Line, Page, Section, Table, Verdict, data_uri};

/// A chart as a file of its own.
pub(crate) fn svg(plot: &Plot) -> String {
    chart(plot).to_svg_file()
}

fn chart(plot: &Plot) -> Chart {
    let mut chart = Chart::new(plot.title.clone()).x(plot.x.clone()).y(plot.y.clone());
    if plot.log_x {
        chart = chart.log_x();
    }
    if plot.log_y {
        chart = chart.log_y();
    }
    for series in &plot.series {
        let points = series.points.iter().copied();
        chart = match series.style {
            Style::Line => chart.line(series.name.clone(), points),
            Style::Dashed => chart.add(Line::new(series.name.clone(), points).dashed()),
            Style::Points => chart.points(series.name.clone(), points),
        };
    }
    plot.marks.iter().fold(chart, |chart, (at, name)| chart.mark_y(*at, name.clone()))
}

fn color(verdict: Judged) -> Verdict {
    match verdict {
        Judged::Supported => Verdict::Good,
        Judged::NotSupported => Verdict::Bad,
        Judged::Undecided => Verdict::Neutral,
    }
}

fn badge(done: &Done) -> (Verdict, String) {
    match done.state {
        State::Done => (color(done.verdict), done.verdict.words().into()),
        State::Failed => (Verdict::Warning, "failed".into()),
        State::Interrupted => (Verdict::Warning, "interrupted".into()),
    }
}

/// The whole report.
pub(crate) fn page(all: &[Done], missing: &[String], unwritten: &[String], interrupted: bool) -> String {
    let mut page = Page::new("The paper, measured").lead(
        "Experiments on the claims of \"An Information Theory Perspective on Variance-Invariance-Covariance \
         Regularization\" (Shwartz-Ziv et al., NeurIPS 2023, arXiv 2303.00633), run by `infomax paper`. Every number \
         was measured by this run; none is copied from the paper.",
    );
    let seconds: f64 = all.iter().map(|d| d.seconds).sum();
    page = page.lead(format!(
        "{} experiments, {:.1} minutes in all. What each is of, and where it was made, is in its section.",
        all.len(),
        seconds / 60.0
    ));
    if interrupted || !missing.is_empty() {
        let why = if interrupted { "This run was interrupted" } else { "This run goes on" };
        let text = format!("{why}. Not there: {}. `--resume` goes on.", missing.join(", "));
        page = page.lead_inline([
            Inline::Badge(Verdict::Warning, "incomplete".into()),
            Inline::Text(format!(" {text}")),
        ]);
    }
    for what in unwritten {
        page = page.lead_inline([
            Inline::Badge(Verdict::Warning, "not written".into()),
            Inline::Text(format!(" {what}. What was found is on this page; the files are not there.")),
        ]);
    }
    page = page.section(overview(all)).section(how_to_read());
    for done in all {
        page = page.section(section(done));
    }
    page.to_html()
}

fn overview(all: &[Done]) -> Section {
    let mut table = Table::stacked(["experiment", "verdict", "minutes", "claim", "statistic"]);
    for done in all {
        let (verdict, words) = badge(done);
        let statistic: Vec<String> = done.finding.judgments.iter().map(Judgment::line).collect();
        table.row([
            Cell::from(Inline::Code(done.name.clone())),
            Cell::badge(verdict, words),
            Cell::number(done.seconds / 60.0, 2),
            Cell::from(done.claim.clone()),
            Cell::from(done.error.clone().unwrap_or_else(|| statistic.join("; "))),
        ]);
    }
    Section::new("Verdicts").table(table)
}

fn how_to_read() -> Section {
    Section::new("How to read this").items([
        "Supported: the interval of the statistic lies on the side of the claim. Not supported: it lies on the other \
         side. Undecided: the interval holds the threshold, or too little is there. An honest \"not supported\" is a \
         result.",
        "A claim of several parts is supported if all of them are, and not supported if one is not.",
        "Intervals have the level 95 % and stand for the spread over seeds or runs, not for what another data set or a \
         larger network would do: the preset small says something of small networks.",
        "Entropies and informations are in nats.",
    ])
}

fn section(done: &Done) -> Section {
    let (verdict, words) = badge(done);
    let m = &done.machine;
    let images = match done.data.as_str() {
        "none" => String::new(),
        data => format!(", images: {data}"),
    };
    let mut section =
        Section::new(done.name.clone()).verdict(verdict, words).text(done.claim.clone()).text(format!(
            "Preset {}{images}, {} seeds, {:.1} minutes on {} ({}, {} threads), infomax {}: {}",
            done.preset.name(),
            done.seeds,
            done.seconds / 60.0,
            if m.description.is_empty() { "this machine" } else { &m.description },
            m.system,
            m.threads,
            m.version,
            if m.command.is_empty() { "called as a library" } else { &m.command },
        ));
    if let Some(error) = &done.error {
        section = section.text(format!("There is no finding: {error}"));
    }
    if !done.finding.judgments.is_empty() {
        let mut table =
            Table::stacked(["part of the claim", "verdict", "value", "95 % interval", "p", "n", "statistic"]);
        for j in &done.finding.judgments {
            let interval = j.interval.map_or("-".into(), |(a, b)| format!("{} to {}", short(a), short(b)));
            table.row([
                Cell::from(j.claim.clone()),
                Cell::badge(color(j.verdict), j.verdict.words()),
                Cell::right(j.effect.map_or("-".into(), short)),
                Cell::right(interval),
                Cell::right(j.p_value.map_or("-".into(), short)),
                Cell::right(j.n.to_string()),
                Cell::from(j.statistic.clone()),
            ]);
        }
        let rules = done.finding.judgments.iter().map(|j| format!("{} {}.", j.claim, j.rule));
        section = section.table(table).folded("Rules of the verdicts", Section::new("Rules").items(rules));
    }
    if !done.finding.missing.is_empty() {
        section = section.text("Missing:").items(done.finding.missing.clone());
    }
    for plot in &done.finding.plots {
        section = section.figure(chart(plot), plot.caption.clone());
    }
    if !done.finding.pictures.is_empty() {
        section = section.pictures(
            done.finding
                .pictures
                .iter()
                .map(|p| (data_uri("image/svg+xml", p.svg.as_bytes()), p.caption.clone())),
        );
    }
    if !done.finding.notes.is_empty() {
        section = section.items(done.finding.notes.clone());
    }
    for table in &done.finding.tables {
        let contents = Section::new(table.name.clone()).table(numbers(table));
        section = section.folded(format!("Numbers: {}", table.caption), contents);
    }
    for (name, text) in &done.finding.configurations {
        section = section.folded(
            format!("Configuration of {name} (of one of its seeds)"),
            Section::new(name.clone()).code(text.clone()),
        );
    }
    section
}

/// At most so many rows of a table go into the page; all of them are in the CSV file.
const ROWS: usize = 400;

fn numbers(table: &Numbers) -> Table {
    let mut shown = Table::new(table.columns.iter().map(|c| match &*c.unit {
        "" => c.name.clone(),
        unit => format!("{} [{unit}]", c.name),
    }));
    for row in table.rows.iter().take(ROWS) {
        shown.row(row.iter().map(|cell| match cell {
            Value::Number(v) => Cell::number(*v, 4),
            Value::Text(text) => Cell::from(text.clone()),
            Value::Missing => Cell::right("-"),
        }));
    }
    shown
}
