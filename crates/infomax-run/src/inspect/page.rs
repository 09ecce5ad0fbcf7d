//! The report as one HTML page.

use super::plots::{MAPPED, shuffled};
use super::{Figure, Inspection, Section};
use infomax_report::{Bars, Cell, Chart, HeatMap, Inline, Line, Page, Points, Table, Verdict, number};
use std::collections::BTreeMap;

/// What a page shows beside the report.
#[derive(Clone, Debug, Default)]
pub struct PageExtras {
    /// Names of the classes by number; a class without one shows its number.
    pub class_names: BTreeMap<u32, String>,
    /// What the maps are colored by: a name, and a value for each row of the input. The labels come first by
    /// themselves.
    pub colors: Vec<(String, Vec<Option<String>>)>,
    /// Small pictures of rows, as addresses that hold them.
    pub thumbnails: BTreeMap<usize, String>,
    /// A name for each row, where there is one.
    pub names: Vec<Option<String>>,
    /// Sentences about the input: what was left out, what was drawn.
    pub notes: Vec<String>,
}

/// Values of a column that a map tells apart.
const COLORS: usize = 24;

/// The report on one embedding as a page; [`Page::to_html`] writes it. Charts need `InspectConfig::plots`.
pub fn page(name: &str, report: &Inspection, labels: Option<&[Option<u32>]>, extras: &PageExtras) -> Page {
    let left_out = report.n - report.finite_rows;
    let mut lead = format!("{} rows, {} columns", report.n, report.d);
    if left_out > 0 {
        lead += &format!(
            "; {left_out} rows with values that are not finite are left out of all but the first section"
        );
    }
    let mut page = Page::new(name)
        .lead(format!("{lead}. Entropies and informations are in nats, intervals of the level 0.9."));
    for note in &extras.notes {
        page = page.lead(note.clone());
    }
    page = page.section(summary(report));
    for part in &report.sections {
        let mut section = section(part);
        section = match part.title {
            "collapse and rank" => with_spectrum(section, report),
            "entropy, in nats" => with_bracket(section, part),
            "normality" => with_normality(section, report),
            "geometry" => with_distances(section, report),
            "labels" => with_confusion(section, report, extras),
            _ => section,
        };
        page = page.section(section);
    }
    page = page.section(maps(report, labels, extras));
    if !report.rows.is_empty() {
        page = page.section(rows(report, extras));
    }
    page.footer(format!(
        "infomax {}: what each figure is stands in docs/diagnostics.md",
        env!("CARGO_PKG_VERSION")
    ))
}

/// Adds the comparison of two embeddings to a page.
pub fn with_comparison(page: Page, beside: &Section) -> Page {
    page.section(section(beside))
}

/// Only figures with a stated threshold can be unusual; of the others nothing is said.
fn verdict(figure: &Figure) -> Cell {
    match (&figure.warning, figure.doubts.is_empty()) {
        (Some(_), _) => Cell::badge(Verdict::Warning, "look"),
        (None, false) => Cell::badge(Verdict::Neutral, "doubtful"),
        (None, true) => Cell::default(),
    }
}

/// A sentence: a capital, and one full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.trim_end_matches('.').chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).chain(['.']).collect()
}

fn summary(report: &Inspection) -> infomax_report::Section {
    let unusual: Vec<&Figure> =
        report.sections.iter().flat_map(|s| &s.figures).filter(|f| f.warning.is_some()).collect();
    let skipped: usize = report.sections.iter().map(|s| s.skipped.len()).sum();
    let mut section = infomax_report::Section::new("In short");
    section = match unusual.len() {
        0 => section.verdict(Verdict::Good, "nothing unusual"),
        n => section.verdict(Verdict::Warning, format!("{n} to look at")),
    };
    let items: Vec<String> = unusual
        .iter()
        .map(|f| format!("{} = {}: {}", f.key, number(f.value, 4), f.warning.as_deref().unwrap_or_default()))
        .collect();
    section = if items.is_empty() {
        section.text("No figure is beyond the thresholds that docs/diagnostics.md states.")
    } else {
        section.items(items)
    };
    if skipped > 0 {
        let parts = if skipped == 1 { "1 part" } else { &format!("{skipped} parts") };
        section = section.text(format!("{parts} could not be computed; the sections say why."));
    }
    section
}

fn section(part: &Section) -> infomax_report::Section {
    let title = sentence(part.title).trim_end_matches('.').to_owned();
    let mut section = infomax_report::Section::new(title);
    let warnings = part.figures.iter().filter(|f| f.warning.is_some()).count();
    if warnings > 0 {
        section = section.verdict(Verdict::Warning, format!("{warnings} to look at"));
    } else if part.figures.is_empty() {
        section = section.verdict(Verdict::Neutral, "not computed");
    }
    if !part.figures.is_empty() {
        let mut table = Table::stacked([
            Cell::from("figure"),
            Cell::right("value"),
            Cell::right("interval"),
            Cell::from(""),
            Cell::from("meaning"),
        ]);
        for figure in &part.figures {
            let interval = match (&figure.interval, figure.bounds) {
                (Some(i), _) => format!("{} to {}", number(i.lower, 4), number(i.upper, 4)),
                (None, Some((a, b))) => format!("within {} to {}", number(a, 4), number(b, 4)),
                (None, None) => String::new(),
            };
            let mut meaning = vec![Inline::Text(sentence(&figure.meaning))];
            if let Some(warning) = &figure.warning {
                meaning.push(Inline::Strong(format!(" {}", sentence(warning))));
            }
            for doubt in &figure.doubts {
                meaning.push(Inline::Text(format!(" Doubt: {}.", doubt.to_string().trim_end_matches('.'))));
            }
            let key = Cell::from(Inline::Code(figure.key.into()));
            table.row([
                key,
                Cell::number(figure.value, 5),
                Cell::right(interval),
                verdict(figure),
                Cell::of(meaning),
            ]);
        }
        section = section.table(table);
    }
    let skipped = part.skipped.iter().map(|reason| format!("Not computed: {reason}"));
    let said: Vec<String> = part.notes.iter().cloned().chain(skipped).collect();
    if said.is_empty() { section } else { section.items(said) }
}

fn with_spectrum(section: infomax_report::Section, report: &Inspection) -> infomax_report::Section {
    let Some(plots) = &report.plots else { return section };
    if plots.eigenvalues.is_empty() {
        return section;
    }
    let points = plots.eigenvalues.iter().enumerate().map(|(i, l)| ((i + 1) as f64, *l));
    let mut chart = Chart::new("Spectrum of the covariance")
        .x("component")
        .y("eigenvalue")
        .log_x()
        .log_y()
        .points_of(Points::new("eigenvalues", points).size(3.5));
    let mut caption = "Variances along the principal axes.".to_owned();
    if let Some((intercept, alpha, first, last)) = plots.power_law {
        let law = (first..=last).map(|i| (i as f64, (intercept - alpha * (i as f64).ln()).exp()));
        chart = chart.add(Line::new(format!("i^-{}", number(alpha, 3)), law).dashed());
        caption += &format!(" The power law is fitted to the components {first} to {last}.");
    }
    let (mut sum, total) = (0.0, plots.eigenvalues.iter().sum::<f64>());
    let share: Vec<(f64, f64)> = plots
        .eigenvalues
        .iter()
        .enumerate()
        .map(|(i, l)| {
            sum += l;
            ((i + 1) as f64, sum / total)
        })
        .collect();
    let share =
        Chart::new("Share of the variance").x("components").y("share").line("share", share).y_range(0.0, 1.0);
    section
        .figure(chart, caption)
        .figure(share.mark_y(0.9, "0.9"), "The share of the first components together.")
}

fn with_bracket(section: infomax_report::Section, part: &Section) -> infomax_report::Section {
    let bars = part
        .figures
        .iter()
        .filter(|f| f.key.starts_with("entropy"))
        .fold(Bars::of_points("Entropy").axis("nats"), |bars, f| {
            bars.row_within(f.key, f.value, f.interval.as_ref().map(|i| (i.lower, i.upper)), f.bounds)
        });
    section.figure(
        bars,
        "Estimates (thick), intervals (thin), bounds from below and above (pale). `entropy_blurred` and its bounds are of the blurred rows at hand, the others of the density that the rows come from.",
    )
}

fn with_normality(mut section: infomax_report::Section, report: &Inspection) -> infomax_report::Section {
    let Some(plots) = &report.plots else { return section };
    let kinds = ["Least normal", "In the middle", "Most normal"];
    for (k, marginal) in plots.marginals.iter().enumerate() {
        let bell = (0..=96).map(|k| {
            let x = -4.0 + f64::from(k) / 12.0;
            (x, (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt())
        });
        let kind = kinds.get(k).copied().unwrap_or_default();
        let chart = Chart::new(format!("{kind}: column {}", marginal.column))
            .x("standardized value")
            .y("density")
            .histogram("values", marginal.bins.iter().copied())
            .add(Line::new("normal", bell));
        section = section.figure(
            chart,
            match marginal.p_value {
                0.0 => format!("K2 = {}, p below 1e-300.", number(marginal.statistic, 4)),
                p => format!("K2 = {}, p = {}.", number(marginal.statistic, 4), number(p, 3)),
            },
        );
    }
    if plots.p_values.is_empty() {
        return section;
    }
    let n = plots.p_values.len() as f64;
    let curve = plots.p_values.iter().enumerate().map(|(i, p)| ((i as f64 + 0.5) / n, *p));
    let chart = Chart::new("p-values of the columns")
        .x("share of the columns")
        .y("p-value")
        .x_range(0.0, 1.0)
        .y_range(0.0, 1.0)
        .points_of(Points::new("columns", curve).size(3.0))
        .add(Line::new("if all are normal", [(0.0, 0.0), (1.0, 1.0)]).dashed());
    section.figure(chart, "Ascending. On the diagonal if every column is normal; along the foot if none is.")
}

fn with_distances(section: infomax_report::Section, report: &Inspection) -> infomax_report::Section {
    let Some(plots) = report.plots.as_ref().filter(|plots| !plots.distances.is_empty()) else {
        return section;
    };
    let chart = plots.distances.iter().fold(
        Chart::new("Distances of pairs").x("Euclidean distance").y("density"),
        |chart, (name, density)| chart.line(*name, density.iter().copied()),
    );
    let mut caption = format!("All pairs of {} rows.", plots.distance_rows);
    if let Some((share, largest)) = plots.distances_beyond {
        caption += &format!(
            " {} % of the pairs are farther apart, up to {}, and not shown.",
            number(100.0 * share, 2),
            number(largest, 4)
        );
    }
    section.figure(chart, caption)
}

fn with_confusion(
    section: infomax_report::Section,
    report: &Inspection,
    extras: &PageExtras,
) -> infomax_report::Section {
    let Some((classes, counts)) = report.plots.as_ref().and_then(|plots| plots.confusion.as_ref()) else {
        return section;
    };
    let names: Vec<String> = classes.iter().map(|c| class_name(*c, extras)).collect();
    let values = counts.iter().map(|row| row.iter().map(|c| f64::from(*c)).collect()).collect();
    let map = HeatMap::new("Confusion of the linear probe", names.clone(), names, values)
        .axes("label", "predicted");
    section.figure(map, "Counts of test rows.")
}

fn class_name(class: u32, extras: &PageExtras) -> String {
    extras.class_names.get(&class).cloned().unwrap_or_else(|| class.to_string())
}

fn maps(report: &Inspection, labels: Option<&[Option<u32>]>, extras: &PageExtras) -> infomax_report::Section {
    let section = infomax_report::Section::new("Maps");
    let Some(plots) = &report.plots else { return section.text("Not drawn.") };
    let mut section = section.text(format!(
        "{} of {} rows{}. A map by neighbors keeps who is near whom; distances between far groups and their sizes mean little.",
        plots.map_rows.len(),
        report.finite_rows,
        if plots.map_rows.len() < report.finite_rows { format!(", drawn by the seed (at most {MAPPED})") } else { String::new() }
    ));
    let mut colors: Vec<(String, Vec<Option<String>>)> = Vec::new();
    if let Some(labels) = labels {
        let name = |label: &Option<u32>| label.map(|class| class_name(class, extras));
        colors.push(("label".into(), labels.iter().map(name).collect()));
    }
    colors.extend(extras.colors.iter().cloned());
    if colors.is_empty() {
        colors.push((String::new(), Vec::new()));
    }
    for (title, values) in &colors {
        let groups = groups(&plots.map_rows, values);
        for (kind, map) in [("Principal axes", &plots.principal), ("Neighbors", &plots.neighbors)] {
            let Some(map) = map else { continue };
            let by = if title.is_empty() { String::new() } else { format!(", by {title}") };
            let mut chart = Chart::new(format!("{kind}{by}")).without_ticks();
            for (name, color, members) in &groups {
                let points = Points::new(name.clone(), members.iter().map(|&at| map.points[at])).size(4.5);
                chart = chart.points_of(match color {
                    Some(at) => points.ramp(*at),
                    None => points,
                });
            }
            section = section.figure(chart, sentence(&map.method));
        }
    }
    let skipped: Vec<String> = plots.skipped.iter().map(|reason| format!("Not drawn: {reason}")).collect();
    if skipped.is_empty() { section } else { section.items(skipped) }
}

type Group = (String, Option<f64>, Vec<usize>);

/// Places in the map by the values of a column: classes, or fifths of a number of many values.
fn groups(rows: &[usize], values: &[Option<String>]) -> Vec<Group> {
    let order = shuffled(rows.len(), 0);
    if values.is_empty() {
        return vec![("rows".into(), None, order)];
    }
    let value = |at: usize| values.get(rows[at]).and_then(Option::as_deref);
    let mut distinct: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut unknown = Vec::new();
    for &at in &order {
        match value(at) {
            Some(value) => distinct.entry(value).or_default().push(at),
            None => unknown.push(at),
        }
    }
    let numeric = distinct.keys().all(|v| v.parse::<f64>().is_ok_and(f64::is_finite));
    let mut out: Vec<Group> = if numeric && distinct.len() > COLORS {
        let mut by: Vec<(f64, usize)> = distinct
            .iter()
            .flat_map(|(v, members)| members.iter().map(|&at| (v.parse::<f64>().unwrap_or(0.0), at)))
            .collect();
        by.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let size = by.len().div_ceil(5).max(1);
        by.chunks(size)
            .enumerate()
            .map(|(k, part)| {
                let (low, high) = (part[0].0, part[part.len() - 1].0);
                let name = format!("{} to {}", number(low, 3), number(high, 3));
                (name, Some(k as f64 / 4.0), part.iter().map(|p| p.1).collect())
            })
            .collect()
    } else {
        let mut all: Vec<(&str, Vec<usize>)> = distinct.into_iter().collect();
        if numeric {
            let key = |v: &str| v.parse::<f64>().unwrap_or(0.0);
            all.sort_by(|a, b| key(a.0).total_cmp(&key(b.0)));
        } else if all.len() > COLORS {
            // The most frequent ones have colors of their own.
            all.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then(a.0.cmp(b.0)));
            let rest: Vec<usize> = all.drain(COLORS - 1..).flat_map(|(_, members)| members).collect();
            let mut out: Vec<Group> = all.into_iter().map(|(v, m)| (v.to_owned(), None, m)).collect();
            out.push(("others".into(), None, rest));
            return with_unknown(out, unknown);
        }
        all.into_iter().map(|(v, members)| (v.to_owned(), None, members)).collect()
    };
    out.retain(|group| !group.2.is_empty());
    with_unknown(out, unknown)
}

fn with_unknown(mut groups: Vec<Group>, unknown: Vec<usize>) -> Vec<Group> {
    if !unknown.is_empty() {
        groups.push(("unknown".into(), None, unknown));
    }
    groups
}

fn rows(report: &Inspection, extras: &PageExtras) -> infomax_report::Section {
    let named = extras.names.iter().any(Option::is_some);
    let mut head = vec![Cell::right("row"), Cell::from("why"), Cell::from("detail")];
    if named {
        head.insert(1, Cell::from("name"));
    }
    let mut table = Table::stacked(head);
    let name = |row: usize| extras.names.get(row).cloned().flatten().unwrap_or_default();
    let (listed, more) = report.shown();
    for note in &listed {
        let mut cells = vec![
            Cell::right(note.source.unwrap_or(note.row).to_string()),
            Cell::from(note.why),
            Cell::from(note.detail.clone()),
        ];
        if named {
            cells.insert(1, Cell::from(name(note.row)));
        }
        table.row(cells);
    }
    let left: Vec<String> = more.iter().map(|(why, count)| format!("{count} more {why}")).collect();
    let left = if left.is_empty() { String::new() } else { format!(" ({} not listed)", left.join(", ")) };
    let mut section = infomax_report::Section::new("Rows to look at")
        .text(format!("At most ten of each kind are listed{left}; --out marks up to a thousand of each."));
    let mut shown = std::collections::BTreeSet::new();
    let pictures: Vec<(String, String)> = listed
        .into_iter()
        .filter(|note| shown.insert((note.row, note.why)))
        .filter_map(|note| {
            let uri = extras.thumbnails.get(&note.row)?;
            Some((
                uri.clone(),
                format!("{}: {} {}", note.why, note.source.unwrap_or(note.row), name(note.row)),
            ))
        })
        .collect();
    if !pictures.is_empty() {
        section = section.pictures(pictures);
    }
    section.table(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_become_classes_fifths_or_the_most_frequent() {
        let rows: Vec<usize> = (0..100).map(|i| 2 * i).collect();
        let all = |value: &dyn Fn(usize) -> Option<String>| {
            let values: Vec<Option<String>> = (0..200).map(value).collect();
            let found = groups(&rows, &values);
            let mut members: Vec<usize> = found.iter().flat_map(|g| g.2.clone()).collect();
            members.sort_unstable();
            assert_eq!(members, (0..100).collect::<Vec<_>>(), "every row once");
            found.into_iter().map(|g| (g.0, g.2.len())).collect::<Vec<_>>()
        };
        let few = all(&|i| (i > 9).then(|| (i / 2 % 11).to_string()));
        assert_eq!((few.len(), few[10].0.as_str(), few[11].clone()), (12, "10", ("unknown".into(), 5)));
        let numbers = all(&|i| Some(format!("{}", i as f64 * 0.5)));
        assert_eq!(numbers.iter().map(|g| g.1).collect::<Vec<_>>(), [20; 5]);
        assert_eq!(numbers[0].0, "0 to 19");
        let words = all(&|i| Some(if i < 20 { "often".into() } else { format!("word{i}") }));
        assert_eq!(
            (words.len(), words[0].clone(), words[23].0.as_str()),
            (COLORS, ("often".into(), 10), "others")
        );
    }
}
