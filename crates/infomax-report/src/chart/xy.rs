//! Lines, points and histograms over two axes.

use super::frame::{Anchor, Canvas, TEXT, WIDTH, fit, legend_height, width};
use crate::scale::{Scale, drawable};
use crate::text::place;
use crate::theme::{Color, Theme};
use crate::xml::Xml;

const TALL: f64 = 250.0;

/// A chart of two axes.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    title: String,
    x: Axis,
    y: Axis,
    marks: Vec<Mark>,
    references: Vec<Reference>,
}

#[derive(Clone, Debug, Default)]
struct Axis {
    title: String,
    log: bool,
    range: Option<(f64, f64)>,
    hidden: bool,
}

#[derive(Clone, Debug)]
enum Mark {
    Line(Line),
    Points(Points),
    Histogram { name: String, bins: Vec<(f64, f64, f64)> },
}

#[derive(Clone, Debug)]
struct Reference {
    vertical: bool,
    at: f64,
    name: String,
}

/// A line through points in their order, with a band around it if errors are known.
#[derive(Clone, Debug, Default)]
pub struct Line {
    name: String,
    points: Vec<(f64, f64)>,
    band: Vec<(f64, f64)>,
    dashed: bool,
}

/// Points of one class.
#[derive(Clone, Debug, Default)]
pub struct Points {
    name: String,
    points: Vec<(f64, f64)>,
    hints: Vec<String>,
    size: f64,
    ramp: Option<f64>,
}

impl Line {
    /// A line of a name through `(x, y)`. A point that cannot be drawn makes a gap.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self { name: name.into(), points: points.into_iter().collect(), ..Self::default() }
    }

    /// `(low, high)` at each point, in the same order; where one is missing or not finite there is no band.
    #[must_use]
    pub fn band(mut self, band: impl IntoIterator<Item = (f64, f64)>) -> Self {
        self.band = band.into_iter().collect();
        self
    }

    /// Draws the line in dashes, as models and expectations are.
    #[must_use]
    pub fn dashed(mut self) -> Self {
        self.dashed = true;
        self
    }
}

impl Points {
    /// Points of a name.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self { name: name.into(), points: points.into_iter().collect(), size: 4.0, ..Self::default() }
    }

    /// A text for each point that shows on hovering. It makes the file several times longer.
    #[must_use]
    pub fn hints(mut self, hints: impl IntoIterator<Item = String>) -> Self {
        self.hints = hints.into_iter().collect();
        self
    }

    /// The diameter, 4 at first.
    #[must_use]
    pub fn size(mut self, size: f64) -> Self {
        self.size = if size.is_finite() { size.clamp(0.5, 40.0) } else { 4.0 };
        self
    }

    /// The color by a place between 0 and 1 of an ordered scale, in place of the next color of the series: for classes
    /// that are steps of a number.
    #[must_use]
    pub fn ramp(mut self, at: f64) -> Self {
        self.ramp = Some(at);
        self
    }
}

impl Chart {
    /// A chart of a title without contents.
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), ..Self::default() }
    }

    /// The title of the horizontal axis.
    #[must_use]
    pub fn x(mut self, title: impl Into<String>) -> Self {
        self.x.title = title.into();
        self
    }

    /// The title of the vertical axis.
    #[must_use]
    pub fn y(mut self, title: impl Into<String>) -> Self {
        self.y.title = title.into();
        self
    }

    /// A logarithmic horizontal axis: values that are not positive are left out.
    #[must_use]
    pub fn log_x(mut self) -> Self {
        self.x.log = true;
        self
    }

    /// A logarithmic vertical axis: values that are not positive are left out.
    #[must_use]
    pub fn log_y(mut self) -> Self {
        self.y.log = true;
        self
    }

    /// The ends of the horizontal axis, in place of those of the values; what is beyond is cut.
    #[must_use]
    pub fn x_range(mut self, low: f64, high: f64) -> Self {
        self.x.range = Some((low, high));
        self
    }

    /// The ends of the vertical axis, in place of those of the values; what is beyond is cut.
    #[must_use]
    pub fn y_range(mut self, low: f64, high: f64) -> Self {
        self.y.range = Some((low, high));
        self
    }

    /// No ticks: coordinates without a meaning, as those of a map.
    #[must_use]
    pub fn without_ticks(mut self) -> Self {
        (self.x.hidden, self.y.hidden) = (true, true);
        self
    }

    /// A plain line; [`Chart::add`] takes one with a band or dashes.
    #[must_use]
    pub fn line(self, name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        self.add(Line::new(name, points))
    }

    /// Plain points; [`Chart::points_of`] takes those with hints, sizes or a place on a scale.
    #[must_use]
    pub fn points(self, name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        self.points_of(Points::new(name, points))
    }

    /// Adds a line.
    #[must_use]
    #[allow(clippy::should_implement_trait)] // The verb of a builder, not a sum.
    pub fn add(mut self, line: Line) -> Self {
        self.marks.push(Mark::Line(line));
        self
    }

    /// Adds points.
    #[must_use]
    pub fn points_of(mut self, points: Points) -> Self {
        self.marks.push(Mark::Points(points));
        self
    }

    /// Bars `(from, to, height)` over the horizontal axis.
    #[must_use]
    pub fn histogram(
        mut self,
        name: impl Into<String>,
        bins: impl IntoIterator<Item = (f64, f64, f64)>,
    ) -> Self {
        self.marks.push(Mark::Histogram { name: name.into(), bins: bins.into_iter().collect() });
        self
    }

    /// A vertical line at a value of the horizontal axis, with its name.
    #[must_use]
    pub fn mark_x(mut self, at: f64, name: impl Into<String>) -> Self {
        self.references.push(Reference { vertical: true, at, name: name.into() });
        self
    }

    /// A horizontal line at a value of the vertical axis, with its name.
    #[must_use]
    pub fn mark_y(mut self, at: f64, name: impl Into<String>) -> Self {
        self.references.push(Reference { vertical: false, at, name: name.into() });
        self
    }

    /// The axes, and how many points have no place on them.
    fn scales(&self) -> (Option<(Scale, Scale)>, usize) {
        let mut lost = 0;
        let (mut xs, mut ys) = (Vec::new(), Vec::new());
        let mut take = |x: &[f64], y: f64, extra: &[f64]| {
            if !x.iter().all(|x| drawable(*x, self.x.log)) || !drawable(y, self.y.log) {
                lost += 1;
                return;
            }
            xs.extend(x);
            ys.push(y);
            ys.extend(extra.iter().filter(|v| drawable(**v, self.y.log)));
        };
        for mark in &self.marks {
            match mark {
                Mark::Line(line) => {
                    for (k, (x, y)) in line.points.iter().enumerate() {
                        let band = line.band.get(k).map_or([f64::NAN; 2], |(a, b)| [*a, *b]);
                        take(&[*x], *y, &band);
                    }
                }
                Mark::Points(p) => p.points.iter().for_each(|(x, y)| take(&[*x], *y, &[])),
                Mark::Histogram { bins, .. } => bins.iter().for_each(|(a, b, y)| take(&[*a, *b], *y, &[0.0])),
            }
        }
        if !xs.is_empty() {
            for r in &self.references {
                if r.vertical { xs.push(r.at) } else { ys.push(r.at) }
            }
        }
        let scale = |axis: &Axis, values: Vec<f64>, margin: bool| match axis.range {
            Some((a, b)) if drawable(a, axis.log) && drawable(b, axis.log) && !values.is_empty() => {
                Some(Scale::between(a, b, axis.log, false))
            }
            _ => Scale::around(values, axis.log, margin),
        };
        let points = self.marks.iter().any(|m| matches!(m, Mark::Points(_)));
        // Bars stand on the axis.
        let floor =
            ys.iter().all(|y| *y >= 0.0) && self.marks.iter().any(|m| matches!(m, Mark::Histogram { .. }));
        let top = ys.iter().copied().fold(0.0, f64::max);
        let ys = match (floor && self.y.range.is_none() && !self.y.log && top > 0.0, ys) {
            (true, ys) if !ys.is_empty() => Some(Scale::between(0.0, top * 1.04, false, false)),
            (_, ys) => scale(&self.y, ys, true),
        };
        (scale(&self.x, xs, points).zip(ys), lost)
    }

    fn legend(&self) -> Vec<(Color, String)> {
        if self.marks.len() < 2 {
            return Vec::new();
        }
        let entry = |(k, mark): (usize, &Mark)| match mark {
            Mark::Line(line) => (Color::Series(k), line.name.clone()),
            Mark::Points(p) => (p.ramp.map_or(Color::Series(k), Color::Ramp), p.name.clone()),
            Mark::Histogram { name, .. } => (Color::Series(k), name.clone()),
        };
        self.marks.iter().enumerate().map(entry).collect()
    }

    pub(super) fn draw(&self, xml: &mut Xml, theme: Theme) {
        let legend = self.legend();
        let ((scales, lost), top) = (self.scales(), 28.0 + legend_height(&legend));
        let bottom = top + 6.0 + TALL;
        let named = if self.x.title.is_empty() { 0.0 } else { 18.0 };
        let ticks = if self.x.hidden { 4.0 } else { 18.0 };
        let told = if lost > 0 { 18.0 } else { 0.0 };
        let height = bottom + ticks + named + told + 6.0;
        let mut canvas = Canvas::begin(xml, theme, height, &self.title);
        canvas.legend(28.0, &legend);
        match scales {
            None => canvas.nothing(top + TALL / 2.0, "nothing to draw: no finite value"),
            Some((x, y)) => self.plot(&mut canvas, &x, &y, top + 6.0),
        }
        if named > 0.0 {
            let title = fit(&self.x.title, WIDTH - 70.0, TEXT);
            canvas.text((WIDTH / 2.0 + 20.0, bottom + ticks + 13.0), Anchor::Middle, "muted", &title, None);
        }
        if lost > 0 {
            let positive = if self.x.log || self.y.log { " or not positive" } else { "" };
            let text = format!("{lost} points are not finite{positive} and not drawn");
            canvas.text((10.0, height - 8.0), Anchor::Start, "warning", &text, None);
        }
        canvas.end();
    }

    fn plot(&self, canvas: &mut Canvas<'_>, x: &Scale, y: &Scale, top: f64) {
        let (xt, yt) = (x.ticks(6), y.ticks(5));
        let wide = yt.iter().map(|t| width(&t.label, TEXT)).fold(0.0, f64::max);
        let wide = if self.y.hidden { 0.0 } else { wide };
        let left = 12.0 + wide + if self.y.title.is_empty() { 0.0 } else { 18.0 };
        let inner = (WIDTH - left - 14.0, TALL);
        let grid = Color::Named("grid");
        if !self.y.hidden {
            for tick in &yt {
                let Some(at) = y.at(tick.value) else { continue };
                let at = top + TALL * (1.0 - at);
                canvas.stroke(
                    &format!("M{} {}h{}", place(left), place(at), place(inner.0)),
                    grid,
                    1.0,
                    false,
                );
                canvas.text((left - 5.0, at + 4.0), Anchor::End, "muted", &tick.label, None);
            }
        }
        if !self.x.hidden {
            for tick in &xt {
                let Some(at) = x.at(tick.value) else { continue };
                let at = left + inner.0 * at;
                canvas.stroke(&format!("M{} {}v{}", place(at), place(top), place(TALL)), grid, 1.0, false);
                canvas.text((at, top + TALL + 15.0), Anchor::Middle, "muted", &tick.label, None);
            }
        }
        if !self.y.title.is_empty() {
            canvas.upright((14.0, top + TALL / 2.0), &fit(&self.y.title, TALL, TEXT));
        }
        // A drawing of its own cuts what is beyond the axes.
        let [l, t, w, h] = [left, top, inner.0, inner.1].map(place);
        canvas
            .xml
            .open("svg", &[("x", &l), ("y", &t), ("width", &w), ("height", &h), ("overflow", "hidden")]);
        let to = |p: (f64, f64)| Some((inner.0 * x.at(p.0)?, inner.1 * (1.0 - y.at(p.1)?)));
        for (k, mark) in self.marks.iter().enumerate() {
            match mark {
                Mark::Line(line) => line.draw(canvas, Color::Series(k), &to),
                Mark::Points(points) => points.draw(canvas, Color::Series(k), &to),
                Mark::Histogram { bins, .. } => {
                    for (a, b, tall) in bins {
                        let low = if self.y.log { None } else { to((*a, 0.0)) };
                        let (Some((x0, y0)), Some((x1, _))) = (to((*a, *tall)), to((*b, *tall))) else {
                            continue;
                        };
                        let foot = low.map_or(inner.1, |p| p.1);
                        let bar = (x0.min(x1), y0.min(foot), (x1 - x0).abs() - 0.5, (foot - y0).abs());
                        canvas.rect(bar, Color::Series(k), 0.65, None);
                    }
                }
            }
        }
        for r in &self.references {
            let at = if r.vertical { x.at(r.at) } else { y.at(r.at) };
            let Some(at) = at.filter(|at| (0.0..=1.0).contains(at)) else { continue };
            let name = fit(&r.name, inner.0 * 0.8, TEXT);
            if r.vertical {
                let at = at * inner.0;
                canvas.stroke(&format!("M{} 0V{h}", place(at)), Color::Named("muted"), 1.5, true);
                let end = at + width(&name, TEXT) + 6.0 > inner.0;
                let (shift, anchor) = if end { (-4.0, Anchor::End) } else { (4.0, Anchor::Start) };
                canvas.text((at + shift, 12.0), anchor, "muted", &name, None);
            } else {
                let at = (1.0 - at) * inner.1;
                canvas.stroke(&format!("M0 {}H{w}", place(at)), Color::Named("muted"), 1.5, true);
                let up = if at < 16.0 { 13.0 } else { -4.0 };
                canvas.text((inner.0 - 4.0, at + up), Anchor::End, "muted", &name, None);
            }
        }
        canvas.xml.close();
    }
}

type Place<'a> = &'a dyn Fn((f64, f64)) -> Option<(f64, f64)>;

impl Line {
    fn draw(&self, canvas: &mut Canvas<'_>, color: Color, to: Place<'_>) {
        let mut runs: Vec<Vec<[(f64, f64); 2]>> = vec![Vec::new()];
        for (k, (x, _)) in self.points.iter().enumerate() {
            let edge = self.band.get(k).and_then(|(a, b)| Some([to((*x, *a))?, to((*x, *b))?]));
            match (edge, runs.last_mut()) {
                (Some(edge), Some(run)) => run.push(edge),
                _ => runs.push(Vec::new()),
            }
        }
        for run in runs.iter().filter(|run| run.len() > 1) {
            let around = run.iter().map(|e| e[0]).chain(run.iter().rev().map(|e| e[1]));
            let path = path(around.map(Some)) + "Z";
            let style = format!("fill:{};fill-opacity:0.2;stroke:none", canvas.css(color));
            canvas.xml.empty("path", &[("d", &path), ("style", &style)]);
        }
        let places: Vec<_> = self.points.iter().map(|p| to(*p)).collect();
        canvas.stroke(&path(places.iter().copied()), color, 1.8, self.dashed);
        // A point between two gaps has no line of its own.
        let alone = |k: usize| {
            let other = |at: Option<usize>| at.and_then(|at| places.get(at).copied().flatten()).is_none();
            places[k].filter(|_| other(k.checked_sub(1)) && other(Some(k + 1)))
        };
        dots(canvas, (0..places.len()).filter_map(alone), color, 4.0);
    }
}

impl Points {
    fn draw(&self, canvas: &mut Canvas<'_>, color: Color, to: Place<'_>) {
        let color = self.ramp.map_or(color, Color::Ramp);
        if self.hints.is_empty() {
            return dots(canvas, self.points.iter().filter_map(|p| to(*p)), color, self.size);
        }
        let style = format!("fill:{};fill-opacity:0.75", canvas.css(color));
        let radius = place(self.size / 2.0);
        for (k, point) in self.points.iter().enumerate() {
            let Some((x, y)) = to(*point) else { continue };
            let (x, y) = (place(x), place(y));
            canvas.xml.open("circle", &[("cx", &x), ("cy", &y), ("r", &radius), ("style", &style)]);
            canvas.xml.element("title", &[], self.hints.get(k).map_or("", String::as_str));
            canvas.xml.close();
        }
    }
}

/// Round points as one path of lines without length: a tenth of the text of as many circles.
fn dots(canvas: &mut Canvas<'_>, points: impl Iterator<Item = (f64, f64)>, color: Color, size: f64) {
    let path: String = points.map(|(x, y)| format!("M{x:.1} {y:.1}h0")).collect();
    if path.is_empty() {
        return;
    }
    let color = canvas.css(color);
    let style = format!(
        "fill:none;stroke:{color};stroke-width:{};stroke-linecap:round;stroke-opacity:0.75",
        place(size)
    );
    canvas.xml.empty("path", &[("d", &path), ("style", &style)]);
}

fn path(points: impl Iterator<Item = Option<(f64, f64)>>) -> String {
    let mut out = String::new();
    let mut pen = 'M';
    for point in points {
        match point {
            Some((x, y)) => {
                out.push_str(&format!("{pen}{} {}", place(x), place(y)));
                pen = 'L';
            }
            None => pen = 'M',
        }
    }
    out
}
