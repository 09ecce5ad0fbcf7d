//! The report as text.

use infomax_run::inspect::{Figure, Inspection, Section};
use std::fmt::Write as _;

/// The width that sentences are broken at.
const WIDTH: usize = 100;

pub(super) fn text(name: &str, report: &Inspection) -> String {
    let mut out = format!("{name}: {} rows, {} columns\n", report.n, report.d);
    for part in &report.sections {
        out += &format!("\n{}", section(part));
    }
    if !report.rows.is_empty() {
        out += "\nROWS TO LOOK AT\n";
        let (shown, more) = report.shown();
        for row in shown {
            let _ =
                writeln!(out, "  row {:<8} {:<14} {}", row.source.unwrap_or(row.row), row.why, row.detail);
        }
        for (why, count) in more {
            let _ = writeln!(out, "  and {count} more of the kind {why}: --out marks them");
        }
    }
    out
}

pub(super) fn section(part: &Section) -> String {
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
