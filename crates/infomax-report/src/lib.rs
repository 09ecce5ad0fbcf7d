//! Reports as files: one self-contained HTML page, and SVG charts.
//!
//! [`Page`] holds [`Section`]s of paragraphs, [`Table`]s, figures, pictures and lists; [`Page::to_html`] writes one file
//! that loads nothing: no script, no font, no picture from elsewhere (its content security policy forbids them). Colors
//! are variables that follow `prefers-color-scheme`. Every chart is also a file of its own by `to_svg_file`.
//!
//! | type | draws |
//! |---|---|
//! | [`Chart`] | lines with bands, points by class, histograms, reference lines, on linear or logarithmic axes |
//! | [`Bars`] | one row a name: a bar, or a value with its interval and bounds |
//! | [`HeatMap`] | a matrix, such as a confusion |
//!
//! Nothing here fails: values that cannot be drawn are left out, counted, and the count stands below the chart.

mod chart;
mod page;
mod scale;
mod text;
mod theme;
mod xml;

pub use chart::{Bars, Chart, Figure, HeatMap, Line, Points};
pub use page::{Cell, Inline, Page, Section, Table, Verdict};
pub use text::{data_uri, number};
