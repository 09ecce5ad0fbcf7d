//! A matrix as colored cells.

use super::frame::{Anchor, Canvas, TEXT, WIDTH, fit, width};
use crate::scale::drawable;
use crate::text::number;
use crate::theme::{Color, Theme};
use crate::xml::Xml;

/// A matrix with names of its rows and columns, such as a confusion. The opacity of a cell is the size of its value over
/// the largest; negative values have another color. Up to twelve columns hold their numbers; with more, they show on
/// hovering.
#[derive(Clone, Debug, Default)]
pub struct HeatMap {
    title: String,
    rows: Vec<String>,
    columns: Vec<String>,
    values: Vec<Vec<f64>>,
    axes: (String, String),
}

impl HeatMap {
    /// A matrix of names; a row that is too short ends with cells without values.
    pub fn new<R: Into<String>, C: Into<String>>(
        title: impl Into<String>,
        rows: impl IntoIterator<Item = R>,
        columns: impl IntoIterator<Item = C>,
        values: Vec<Vec<f64>>,
    ) -> Self {
        Self {
            title: title.into(),
            rows: rows.into_iter().map(Into::into).collect(),
            columns: columns.into_iter().map(Into::into).collect(),
            values,
            axes: Default::default(),
        }
    }

    /// What rows and columns are.
    #[must_use]
    pub fn axes(mut self, rows: impl Into<String>, columns: impl Into<String>) -> Self {
        self.axes = (rows.into(), columns.into());
        self
    }

    pub(super) fn draw(&self, xml: &mut Xml, theme: Theme) {
        let (n, m) = (self.rows.len(), self.columns.len());
        if n == 0 || m == 0 {
            let mut canvas = Canvas::begin(xml, theme, 100.0, &self.title);
            canvas.nothing(60.0, "nothing to draw: no row or no column");
            return canvas.end();
        }
        let longest =
            |names: &[String]| names.iter().map(|name| width(name, TEXT)).fold(0.0, f64::max).min(110.0);
        let side = if self.axes.0.is_empty() { 0.0 } else { 16.0 };
        let left = 14.0 + side + longest(&self.rows);
        let above = 30.0 + if self.axes.1.is_empty() { 0.0 } else { 16.0 };
        let wide = (WIDTH - left - 12.0) / m as f64;
        let tall = wide.clamp(if n > 40 { 4.0 } else { 14.0 }, 34.0);
        // Names that have no room across stand upright.
        let across = longest(&self.columns) <= wide - 2.0;
        let top = above + if across { 18.0 } else { longest(&self.columns) + 8.0 };
        let bottom = top + tall * n as f64;
        let value =
            |r: usize, c: usize| self.values.get(r).and_then(|row| row.get(c)).copied().unwrap_or(f64::NAN);
        let cells = (0..n).flat_map(|r| (0..m).map(move |c| (r, c)));
        let lost = cells.clone().filter(|(r, c)| !drawable(value(*r, *c), false)).count();
        let most = cells.clone().map(|(r, c)| value(r, c)).filter(|v| drawable(*v, false)).map(f64::abs);
        let most = most.fold(0.0, f64::max);
        let height = bottom + if lost > 0 { 26.0 } else { 10.0 };
        let mut canvas = Canvas::begin(xml, theme, height, &self.title);
        if !self.axes.1.is_empty() {
            let middle = left + wide * m as f64 / 2.0;
            canvas.text(
                (middle, 40.0),
                Anchor::Middle,
                "muted",
                &fit(&self.axes.1, WIDTH - left, TEXT),
                None,
            );
        }
        if !self.axes.0.is_empty() {
            canvas.upright((14.0, (top + bottom) / 2.0), &fit(&self.axes.0, (bottom - top).max(60.0), TEXT));
        }
        // As many names as have room.
        let stride = |size: f64| ((TEXT + 1.0) / size).ceil().max(1.0) as usize;
        for (c, name) in self.columns.iter().enumerate() {
            let middle = left + wide * (c as f64 + 0.5);
            if across {
                canvas.text((middle, top - 5.0), Anchor::Middle, "ink", name, None);
            } else if c.is_multiple_of(stride(wide)) {
                let turn = format!("rotate(-90 {middle:.2} {:.2})", top - 4.0);
                let style = format!("fill:{}", canvas.css(Color::Named("ink")));
                let (x, y) = (format!("{:.2}", middle + 4.0), format!("{:.2}", top - 4.0));
                let attributes = [("x", x.as_str()), ("y", &y), ("transform", &turn), ("style", &style)];
                canvas.xml.element("text", &attributes, &fit(name, 110.0, TEXT));
            }
        }
        for (r, name) in self.rows.iter().enumerate().filter(|(r, _)| r.is_multiple_of(stride(tall))) {
            let middle = top + tall * (r as f64 + 0.5);
            canvas.text((left - 5.0, middle + 4.0), Anchor::End, "ink", &fit(name, 110.0, TEXT), None);
        }
        for (r, c) in cells {
            let v = value(r, c);
            let (x, y) = (left + wide * c as f64, top + tall * r as f64);
            let hint = format!("{}, {}: {}", self.rows[r], self.columns[c], number(v, 4));
            let gap = if tall > 8.0 { 1.0 } else { 0.0 };
            if !drawable(v, false) {
                canvas.rect((x, y, wide - gap, tall - gap), Color::Named("grid"), 1.0, Some(&hint));
                continue;
            }
            let share = if most > 0.0 { v.abs() / most } else { 0.0 };
            let color = Color::Series(usize::from(v < 0.0));
            canvas.rect((x, y, wide - gap, tall - gap), color, 0.06 + 0.94 * share, Some(&hint));
            if m <= 12 {
                let ink = if share > 0.55 { "paper" } else { "ink" };
                let text = number(v, 3);
                if width(&text, TEXT) <= wide {
                    canvas.text((x + wide / 2.0, y + tall / 2.0 + 4.0), Anchor::Middle, ink, &text, None);
                }
            }
        }
        if lost > 0 {
            let text = format!("{lost} cells have no finite value and are gray");
            canvas.text((10.0, height - 7.0), Anchor::Start, "warning", &text, None);
        }
        canvas.end();
    }
}
