//! One row a name: bars, or values with their intervals.

use super::frame::{Anchor, Canvas, TEXT, WIDTH, fit, width};
use crate::scale::{Scale, drawable};
use crate::text::{number, place};
use crate::theme::{Color, Theme};
use crate::xml::Xml;

const ROW: f64 = 24.0;

/// Rows with a value each: as bars from zero, or as points with an interval (thin line) within bounds (wide band).
#[derive(Clone, Debug, Default)]
pub struct Bars {
    title: String,
    axis: String,
    rows: Vec<Row>,
    points: bool,
}

#[derive(Clone, Debug, Default)]
struct Row {
    name: String,
    value: f64,
    interval: Option<(f64, f64)>,
    bounds: Option<(f64, f64)>,
}

impl Bars {
    /// Bars from zero.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// Points in place of bars: for values whose zero means nothing, as entropies.
    pub fn of_points(title: impl Into<String>) -> Self {
        Self { points: true, ..Self::new(title) }
    }

    /// The title of the axis of values.
    #[must_use]
    pub fn axis(mut self, title: impl Into<String>) -> Self {
        self.axis = title.into();
        self
    }

    /// A row.
    #[must_use]
    pub fn row(mut self, name: impl Into<String>, value: f64) -> Self {
        self.rows.push(Row { name: name.into(), value, ..Row::default() });
        self
    }

    /// A row with what is known of its error: an interval, and bounds from below and above.
    #[must_use]
    pub fn row_within(
        mut self,
        name: impl Into<String>,
        value: f64,
        interval: Option<(f64, f64)>,
        bounds: Option<(f64, f64)>,
    ) -> Self {
        self.rows.push(Row { name: name.into(), value, interval, bounds });
        self
    }

    fn scale(&self) -> Option<Scale> {
        let ends = |pair: Option<(f64, f64)>| pair.into_iter().flat_map(|(a, b)| [a, b]);
        let of = |row: &Row| {
            std::iter::once(row.value).chain(ends(row.interval)).chain(ends(row.bounds)).collect::<Vec<_>>()
        };
        let values: Vec<f64> = self.rows.iter().flat_map(of).collect();
        if self.points || !values.iter().any(|v| drawable(*v, false)) {
            return Scale::around(values, false, true);
        }
        Scale::around(values.into_iter().chain([0.0]), false, true)
    }

    pub(super) fn draw(&self, xml: &mut Xml, theme: Theme) {
        let lost = self.rows.iter().filter(|row| !drawable(row.value, false)).count();
        let bottom = 34.0 + ROW * self.rows.len().max(1) as f64;
        let named = if self.axis.is_empty() { 0.0 } else { 18.0 };
        let told = if lost > 0 { 18.0 } else { 0.0 };
        let height = bottom + 20.0 + named + told + 4.0;
        let mut canvas = Canvas::begin(xml, theme, height, &self.title);
        let wide = self.rows.iter().map(|row| width(&row.name, TEXT)).fold(0.0, f64::max).min(190.0);
        let left = 16.0 + wide;
        let inner = WIDTH - left - 60.0;
        let scale = self.scale();
        if let Some(scale) = &scale {
            for tick in scale.ticks(5) {
                let Some(at) = scale.at(tick.value) else { continue };
                let at = left + inner * at;
                let line = format!("M{} 30V{}", place(at), place(bottom));
                canvas.stroke(&line, Color::Named("grid"), 1.0, false);
                canvas.text((at, bottom + 15.0), Anchor::Middle, "muted", &tick.label, None);
            }
        } else {
            canvas.nothing(bottom - ROW / 2.0, "nothing to draw: no finite value");
        }
        for (k, row) in self.rows.iter().enumerate() {
            let middle = 34.0 + ROW * (k as f64 + 0.5);
            canvas.text((left - 6.0, middle + 4.0), Anchor::End, "ink", &fit(&row.name, 190.0, TEXT), None);
            if let Some(scale) = &scale {
                let to = |v: f64| scale.at(v).map(|at| left + inner * at);
                self.mark(&mut canvas, row, middle, &to);
            }
            canvas.text((WIDTH - 8.0, middle + 4.0), Anchor::End, "ink", &number(row.value, 4), None);
        }
        if named > 0.0 {
            let title = fit(&self.axis, inner + 50.0, TEXT);
            canvas.text((left + inner / 2.0, bottom + 32.0), Anchor::Middle, "muted", &title, None);
        }
        if lost > 0 {
            let text = format!("{lost} values are not finite and not drawn");
            canvas.text((10.0, height - 7.0), Anchor::Start, "warning", &text, None);
        }
        canvas.end();
    }

    fn mark(&self, canvas: &mut Canvas<'_>, row: &Row, middle: f64, to: &dyn Fn(f64) -> Option<f64>) {
        let span = |pair: Option<(f64, f64)>| pair.and_then(|(a, b)| Some((to(a)?, to(b)?)));
        let color = Color::Series(0);
        if let Some((a, b)) = span(row.bounds) {
            canvas.rect((a.min(b), middle - 7.0, (b - a).abs(), 14.0), color, 0.25, None);
        }
        if let Some(at) = to(row.value) {
            let line = |at: f64, h: f64| format!("M{} {}v{}", place(at), place(middle - h), place(2.0 * h));
            if self.points {
                canvas.stroke(&line(at, 5.0), color, 4.0, false);
            } else {
                let zero = to(0.0).unwrap_or(at);
                canvas.rect((zero.min(at), middle - 7.0, (at - zero).abs(), 14.0), color, 0.75, None);
            }
        }
        if let Some((a, b)) = span(row.interval) {
            let [a, b, y, top] = [a, b, middle, middle - 4.0].map(place);
            canvas.stroke(&format!("M{a} {top}v8M{a} {y}H{b}M{b} {top}v8"), Color::Named("ink"), 1.3, false);
        }
    }
}
