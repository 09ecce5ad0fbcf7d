//! What an experiment found, as plain data.

use crate::verdict::{Judgment, Verdict};
use serde::{Deserialize, Serialize};

/// The result of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The parts of the claim, each with its verdict.
    pub judgments: Vec<Judgment>,
    /// The numbers.
    pub tables: Vec<Table>,
    /// The charts.
    pub plots: Vec<Plot>,
    /// Pictures that are SVG already, such as an animation.
    pub pictures: Vec<Picture>,
    /// What a reader should know: sizes, doubts, what stands in for what.
    pub notes: Vec<String>,
    /// What is missing, such as a seed that failed, with the reason.
    pub missing: Vec<String>,
    /// The configurations of the encoders that took part, as TOML, by name.
    pub configurations: Vec<(String, String)>,
}

impl Finding {
    /// The verdict on the whole claim. Where something is missing, a supported claim stays supported by what is there,
    /// and `missing` says so.
    pub fn verdict(&self) -> Verdict {
        Verdict::all(self.judgments.iter().map(|j| j.verdict))
    }
}

/// A table with named columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// The name, which is that of its CSV file.
    pub name: String,
    /// What it shows.
    pub caption: String,
    /// The columns.
    pub columns: Vec<Column>,
    /// The rows, each with one cell a column.
    pub rows: Vec<Vec<Cell>>,
}

/// A column of a [`Table`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The name.
    pub name: String,
    /// The unit; empty for none.
    pub unit: String,
}

/// A cell of a [`Table`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Cell {
    /// A finite number.
    Number(f64),
    /// Words.
    Text(String),
    /// Not there: it does not exist, was not computed, or was not finite.
    Missing,
}

impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        if value.is_finite() { Self::Number(value) } else { Self::Missing }
    }
}

impl From<Option<f64>> for Cell {
    fn from(value: Option<f64>) -> Self {
        value.map_or(Self::Missing, Self::from)
    }
}

impl From<usize> for Cell {
    fn from(value: usize) -> Self {
        Self::Number(value as f64)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl Table {
    /// A table without rows; a column is its name, or `name [unit]`.
    pub fn new(name: &str, caption: &str, columns: &[&str]) -> Self {
        let column = |text: &&str| match text.strip_suffix(']').and_then(|t| t.split_once(" [")) {
            Some((name, unit)) => Column { name: name.into(), unit: unit.into() },
            None => Column { name: (*text).into(), unit: String::new() },
        };
        let columns = columns.iter().map(column).collect();
        Self { name: name.into(), caption: caption.into(), columns, rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "{}", self.name);
        self.rows.push(cells);
    }
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    /// A line through the points.
    #[default]
    Line,
    /// A dashed line: a reference.
    Dashed,
    /// Points.
    Points,
}

/// A series of a [`Plot`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The name.
    pub name: String,
    /// The points; those that are not finite are left out.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub style: Style,
}

/// A chart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plot {
    /// The name, which is that of its SVG file.
    pub name: String,
    /// The title.
    pub title: String,
    /// What it shows.
    pub caption: String,
    /// The horizontal axis.
    pub x: String,
    /// The vertical axis.
    pub y: String,
    /// Whether the horizontal axis is logarithmic.
    pub log_x: bool,
    /// Whether the vertical axis is logarithmic.
    pub log_y: bool,
    /// The series.
    pub series: Vec<Series>,
    /// Horizontal reference lines with their names.
    pub marks: Vec<(f64, String)>,
}

impl Plot {
    pub(crate) fn new(name: &str, title: &str, x: &str, y: &str) -> Self {
        let text = |t: &str| t.to_owned();
        Self { name: text(name), title: text(title), x: text(x), y: text(y), ..Self::default() }
    }

    pub(crate) fn caption(mut self, caption: &str) -> Self {
        self.caption = caption.into();
        self
    }

    pub(crate) fn logarithmic(mut self, x: bool, y: bool) -> Self {
        (self.log_x, self.log_y) = (x, y);
        self
    }

    pub(crate) fn mark(mut self, at: f64, name: &str) -> Self {
        self.marks.push((at, name.into()));
        self
    }

    pub(crate) fn add(&mut self, name: &str, style: Style, points: impl IntoIterator<Item = (f64, f64)>) {
        let drawable = |v: f64, log: bool| v.is_finite() && (!log || v > 0.0);
        let points = points.into_iter().filter(|(x, y)| drawable(*x, self.log_x) && drawable(*y, self.log_y));
        self.series.push(Series { name: name.into(), points: points.collect(), style });
    }
}

/// A picture that is SVG already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// The name, which is that of its file.
    pub name: String,
    /// What it shows.
    pub caption: String,
    /// The SVG.
    pub svg: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_survives_json_as_missing() {
        let mut table = Table::new("t", "c", &["what", "value [nats]"]);
        table.row(vec!["a".into(), f64::NAN.into()]);
        table.row(vec!["b".into(), 1.5.into()]);
        assert_eq!(table.columns[1], Column { name: "value".into(), unit: "nats".into() });
        let mut plot = Plot::new("p", "t", "x", "y").logarithmic(true, false);
        plot.add("s", Style::Line, [(0.0, 1.0), (1.0, f64::INFINITY), (2.0, 3.0)]);
        assert_eq!(plot.series[0].points, [(2.0, 3.0)]);
        let finding = Finding { tables: vec![table], plots: vec![plot], ..Finding::default() };
        let text = serde_json::to_string(&finding).unwrap();
        assert_eq!(serde_json::from_str::<Finding>(&text).unwrap(), finding);
        assert_eq!(finding.verdict(), Verdict::Undecided);
    }
}
