//! Colors: variables of the page, or fixed ones in a file of its own.

/// Hues of series that are told apart with any color vision (after Okabe and Ito), for light and for dark paper.
pub(crate) const SERIES: [(&str, &str); 8] = [
    ("#0068a8", "#5cb3ee"),
    ("#c45100", "#f59a4c"),
    ("#00795a", "#3fc79c"),
    ("#a8427e", "#e591c2"),
    ("#8a6d00", "#e3c74a"),
    ("#5b4bc4", "#a99cf5"),
    ("#2c7f95", "#76d0e6"),
    ("#6b6b6b", "#b3b3b3"),
];

/// The other colors: name, on light paper, on dark paper.
pub(crate) const COLORS: [(&str, &str, &str); 8] = [
    ("paper", "#ffffff", "#14171c"),
    ("panel", "#f5f6f8", "#1d2128"),
    ("ink", "#1b1f24", "#e4e7eb"),
    ("muted", "#59616c", "#a3abb6"),
    ("grid", "#dfe3e8", "#333a44"),
    ("good", "#116329", "#5fd07f"),
    ("warning", "#8a5300", "#f0b354"),
    ("bad", "#b3261e", "#ff8f85"),
];

/// Where a drawing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Theme {
    /// In a page, whose variables give the colors.
    Page,
    /// In a file of its own, on white.
    File,
}

/// What a mark is colored by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Color {
    /// The k-th of the series.
    Series(usize),
    /// A place between 0 and 1 of an ordered scale.
    Ramp(f64),
    /// By name.
    Named(&'static str),
}

impl Theme {
    /// A color as CSS.
    pub(crate) fn css(self, color: Color) -> String {
        match (color, self) {
            (Color::Series(k), _) if k >= SERIES.len() => hue(k),
            (Color::Series(k), Theme::Page) => format!("var(--s{k})"),
            (Color::Series(k), Theme::File) => SERIES[k].0.into(),
            (Color::Ramp(at), _) => ramp(at),
            (Color::Named(name), Theme::Page) => format!("var(--{name})"),
            (Color::Named(name), Theme::File) => {
                COLORS.iter().find(|(other, ..)| *other == name).map_or("#000000", |c| c.1).into()
            }
        }
    }
}

/// The declarations of all variables, for light or for dark paper.
pub(crate) fn variables(dark: bool) -> String {
    let pick = |light: &'static str, other: &'static str| if dark { other } else { light };
    let named = COLORS.iter().map(|(name, light, other)| format!("--{name}:{}", pick(light, other)));
    let series =
        SERIES.iter().enumerate().map(|(k, (light, other))| format!("--s{k}:{}", pick(light, other)));
    named.chain(series).collect::<Vec<_>>().join(";")
}

/// Colors after the named ones: hues by the golden angle, of a lightness that both papers bear.
fn hue(k: usize) -> String {
    let angle = (k as f64 * 137.507_764).rem_euclid(360.0) / 60.0;
    let light = if k.is_multiple_of(2) { 0.42 } else { 0.58 };
    let chroma = 0.62 * (1.0 - (2.0f64 * light - 1.0).abs());
    let x = chroma * (1.0 - (angle.rem_euclid(2.0) - 1.0).abs());
    let (r, g, b) = match angle as u32 {
        0 => (chroma, x, 0.0),
        1 => (x, chroma, 0.0),
        2 => (0.0, chroma, x),
        3 => (0.0, x, chroma),
        4 => (x, 0.0, chroma),
        _ => (chroma, 0.0, x),
    };
    hex([r, g, b].map(|c| c + light - chroma / 2.0))
}

/// From violet over green to yellow (after viridis), the ends drawn in so that both papers bear them.
fn ramp(at: f64) -> String {
    const STOPS: [[f64; 3]; 5] =
        [[0.35, 0.22, 0.60], [0.23, 0.40, 0.66], [0.13, 0.57, 0.55], [0.36, 0.72, 0.36], [0.83, 0.77, 0.15]];
    let at = if at.is_finite() { at.clamp(0.0, 1.0) * 4.0 } else { 0.0 };
    let k = (at as usize).min(3);
    let part = at - k as f64;
    hex([0, 1, 2].map(|c| STOPS[k][c] * (1.0 - part) + STOPS[k + 1][c] * part))
}

fn hex(color: [f64; 3]) -> String {
    let [r, g, b] = color.map(|c| (c.clamp(0.0, 1.0) * 255.0).round() as u8);
    format!("#{r:02x}{g:02x}{b:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative luminance of WCAG 2.
    fn luminance(color: &str) -> f64 {
        let channel = |at: usize| {
            let c = f64::from(u8::from_str_radix(&color[at..at + 2], 16).unwrap()) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }

    fn contrast(a: &str, b: &str) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn text_and_marks_stand_out_on_both_papers() {
        let (light, dark) = (COLORS[0].1, COLORS[0].2);
        for (name, on_light, on_dark) in COLORS {
            if ["ink", "muted", "good", "warning", "bad"].contains(&name) {
                assert!(contrast(on_light, light) >= 4.5, "{name}");
                assert!(contrast(on_dark, dark) >= 4.5, "{name}");
            }
        }
        for (on_light, on_dark) in SERIES {
            assert!(contrast(on_light, light) >= 3.0, "{on_light}");
            assert!(contrast(on_dark, dark) >= 3.0, "{on_dark}");
        }
        assert!(contrast(light, dark) > 10.0);
    }

    #[test]
    fn colors_beyond_the_named_ones_differ() {
        let all: std::collections::BTreeSet<_> = (0..40).map(|k| Theme::File.css(Color::Series(k))).collect();
        assert_eq!(all.len(), 40);
        assert_eq!(Theme::Page.css(Color::Series(1)), "var(--s1)");
        assert_ne!(ramp(0.0), ramp(1.0));
        assert_eq!(ramp(f64::NAN), ramp(0.0));
    }
}
