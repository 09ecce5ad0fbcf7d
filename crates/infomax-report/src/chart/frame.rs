//! What all charts share: the canvas, its text, the legend.

use crate::text::place;
use crate::theme::{Color, Theme};
use crate::xml::Xml;

/// The width of every chart; small enough that its text is readable on a phone.
pub(super) const WIDTH: f64 = 480.0;
/// The size of text.
pub(super) const TEXT: f64 = 12.0;
/// Entries of a legend before the rest is only counted.
const LEGEND: usize = 24;

/// How a text stands to its place.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// One chart being written.
pub(super) struct Canvas<'a> {
    pub(super) xml: &'a mut Xml,
    pub(super) theme: Theme,
}

impl<'a> Canvas<'a> {
    /// Begins a chart of a height with its title.
    pub(super) fn begin(xml: &'a mut Xml, theme: Theme, height: f64, title: &str) -> Self {
        let view = format!("0 0 {} {}", place(WIDTH), place(height));
        let (width, tall) = (place(WIDTH), place(height));
        let mut attributes = vec![("viewBox", view.as_str()), ("role", "img"), ("aria-label", title)];
        attributes.extend([("font-family", "system-ui,sans-serif"), ("font-size", "12")]);
        if theme == Theme::File {
            attributes.insert(0, ("xmlns", "http://www.w3.org/2000/svg"));
            attributes.extend([("width", width.as_str()), ("height", tall.as_str())]);
        }
        xml.open("svg", &attributes);
        xml.element("title", &[], title);
        let mut canvas = Self { xml, theme };
        if theme == Theme::File {
            canvas.rect((0.0, 0.0, WIDTH, height), Color::Named("paper"), 1.0, None);
        }
        canvas.text(
            (10.0, 18.0),
            Anchor::Start,
            "ink",
            &fit(title, WIDTH - 20.0, 14.0),
            Some("font-size:14px;font-weight:600"),
        );
        canvas
    }

    pub(super) fn css(&self, color: Color) -> String {
        self.theme.css(color)
    }

    pub(super) fn text(
        &mut self,
        at: (f64, f64),
        anchor: Anchor,
        color: &'static str,
        text: &str,
        more: Option<&str>,
    ) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let style = format!("fill:{};{}", self.css(Color::Named(color)), more.unwrap_or_default());
        let (x, y) = (place(at.0), place(at.1));
        self.xml.element(
            "text",
            &[("x", &x), ("y", &y), ("text-anchor", anchor), ("style", style.as_str())],
            text,
        );
    }

    /// A text that reads upwards, its middle at a place.
    pub(super) fn upright(&mut self, at: (f64, f64), text: &str) {
        let style = format!("fill:{}", self.css(Color::Named("muted")));
        let turn = format!("translate({} {}) rotate(-90)", place(at.0), place(at.1));
        self.xml.element("text", &[("transform", &turn), ("text-anchor", "middle"), ("style", &style)], text);
    }

    /// A filled rectangle `(x, y, width, height)`, with a text that shows on hovering.
    pub(super) fn rect(
        &mut self,
        (x, y, w, h): (f64, f64, f64, f64),
        color: Color,
        opacity: f64,
        hint: Option<&str>,
    ) {
        let style = format!("fill:{};fill-opacity:{}", self.css(color), place(opacity));
        let [x, y, w, h] = [x, y, w.max(0.0), h.max(0.0)].map(place);
        let attributes = [("x", x.as_str()), ("y", &y), ("width", &w), ("height", &h), ("style", &style)];
        let Some(hint) = hint else { return self.xml.empty("rect", &attributes) };
        self.xml.open("rect", &attributes);
        self.xml.element("title", &[], hint);
        self.xml.close();
    }

    pub(super) fn stroke(&mut self, path: &str, color: Color, width: f64, dashed: bool) {
        let dash = if dashed { ";stroke-dasharray:5 4" } else { "" };
        let style = format!("fill:none;stroke:{};stroke-width:{}{dash}", self.css(color), place(width));
        self.xml.empty("path", &[("d", path), ("style", &style)]);
    }

    /// The names of what is drawn, in rows from a height on; the height below them.
    pub(super) fn legend(&mut self, top: f64, entries: &[(Color, String)]) -> f64 {
        let (rows, hidden) = lay_out(entries);
        for (row, line) in rows.iter().enumerate() {
            let y = top + 16.0 * row as f64;
            for (x, k) in line {
                self.rect((*x, y + 2.0, 10.0, 10.0), entries[*k].0, 1.0, None);
                self.text((x + 14.0, y + 11.0), Anchor::Start, "ink", &shown(&entries[*k].1), None);
            }
        }
        if hidden > 0 {
            let y = top + 16.0 * rows.len() as f64 + 11.0;
            self.text((10.0, y), Anchor::Start, "muted", &format!("and {hidden} more"), None);
        }
        top + legend_height(entries)
    }

    /// A sentence where a drawing would be.
    pub(super) fn nothing(&mut self, middle: f64, why: &str) {
        self.text((WIDTH / 2.0, middle), Anchor::Middle, "muted", why, Some("font-style:italic"));
    }

    pub(super) fn end(self) {
        self.xml.close();
    }
}

/// How tall the legend will be.
pub(super) fn legend_height(entries: &[(Color, String)]) -> f64 {
    let (rows, hidden) = lay_out(entries);
    16.0 * (rows.len() + usize::from(hidden > 0)) as f64
}

/// How wide a text is, about: the files name no font, so nothing knows better.
pub(super) fn width(text: &str, size: f64) -> f64 {
    text.chars().map(|c| if c.is_ascii() { 0.58 } else { 0.9 }).sum::<f64>() * size
}

/// A text cut to a width, with an ellipsis.
pub(super) fn fit(text: &str, room: f64, size: f64) -> String {
    if width(text, size) <= room {
        return text.to_owned();
    }
    let mut out = String::new();
    for c in text.chars() {
        if width(&out, size) + 2.0 * size > room {
            break;
        }
        out.push(c);
    }
    out.push('\u{2026}');
    out
}

fn shown(name: &str) -> String {
    fit(name, 200.0, TEXT)
}

type Places = Vec<Vec<(f64, usize)>>;

fn lay_out(entries: &[(Color, String)]) -> (Places, usize) {
    let shown_count = if entries.len() > LEGEND { LEGEND - 1 } else { entries.len() };
    let mut rows: Places = Vec::new();
    let mut x = f64::INFINITY;
    for (k, (_, name)) in entries.iter().take(shown_count).enumerate() {
        let wide = 14.0 + width(&shown(name), TEXT) + 14.0;
        if x + wide > WIDTH - 4.0 {
            x = 10.0;
            rows.push(Vec::new());
        }
        if let Some(row) = rows.last_mut() {
            row.push((x, k));
        }
        x += wide;
    }
    (rows, entries.len() - shown_count)
}
