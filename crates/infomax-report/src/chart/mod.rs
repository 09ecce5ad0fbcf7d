//! Charts as SVG.

mod bars;
mod frame;
mod heat;
mod xy;

pub use bars::Bars;
pub use heat::HeatMap;
pub use xy::{Chart, Line, Points};

use crate::theme::Theme;
use crate::xml::Xml;

/// Any of the charts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Figure {
    /// Lines, points, histograms.
    Chart(Chart),
    /// Rows with bars or intervals.
    Bars(Bars),
    /// A matrix.
    HeatMap(HeatMap),
}

impl Figure {
    /// The chart as a file of its own, with fixed colors on white.
    pub fn to_svg_file(&self) -> String {
        self.svg(Theme::File)
    }

    pub(crate) fn svg(&self, theme: Theme) -> String {
        let mut xml = Xml::default();
        match self {
            Self::Chart(chart) => chart.draw(&mut xml, theme),
            Self::Bars(bars) => bars.draw(&mut xml, theme),
            Self::HeatMap(map) => map.draw(&mut xml, theme),
        }
        xml.finish()
    }
}

macro_rules! figure {
    ($($name:ident),*) => {$(
        impl From<$name> for Figure {
            fn from(chart: $name) -> Self {
                Self::$name(chart)
            }
        }

        impl $name {
            /// The chart as a file of its own, with fixed colors on white.
            pub fn to_svg_file(&self) -> String {
                let mut xml = Xml::default();
                self.draw(&mut xml, Theme::File);
                xml.finish()
            }
        }
    )*};
}
figure!(Chart, Bars, HeatMap);
