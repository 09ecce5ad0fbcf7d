//! Axes: from values to places, and where their ticks are.

use crate::text::trimmed;

/// Values beyond this have no differences in f64.
const LARGEST: f64 = 1e300;

/// One axis.
#[derive(Clone, Debug)]
pub(crate) struct Scale {
    low: f64,
    high: f64,
    log: bool,
}

/// A mark on an axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tick {
    pub(crate) value: f64,
    pub(crate) label: String,
}

impl Scale {
    /// An axis that holds all values, a little wider; of values that cannot be drawn on it none counts. None where
    /// nothing is left.
    pub(crate) fn around(values: impl IntoIterator<Item = f64>, log: bool, margin: bool) -> Option<Self> {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.into_iter().filter(|v| drawable(*v, log)) {
            (low, high) = (low.min(value), high.max(value));
        }
        (low <= high).then(|| Self::between(low, high, log, margin))
    }

    /// An axis between two values in any order.
    pub(crate) fn between(low: f64, high: f64, log: bool, margin: bool) -> Self {
        let bring = |v: f64| if log { v.log10() } else { v };
        let (mut a, mut b) = (bring(low.min(high)), bring(low.max(high)));
        if b - a <= a.abs().max(b.abs()) * 1e-12 {
            // One value only.
            let half = if log {
                0.5
            } else if a == 0.0 {
                1.0
            } else {
                a.abs() * 0.1
            };
            (a, b) = (a - half, b + half);
        } else if margin {
            let more = (b - a) * 0.04;
            (a, b) = (a - more, b + more);
        }
        Self { low: a, high: b, log }
    }

    /// Where a value is, from 0 to 1; None where it cannot be drawn.
    pub(crate) fn at(&self, value: f64) -> Option<f64> {
        let value = drawable(value, self.log).then_some(if self.log { value.log10() } else { value })?;
        Some((value - self.low) / (self.high - self.low))
    }

    /// At most about `count` ticks with their labels.
    pub(crate) fn ticks(&self, count: usize) -> Vec<Tick> {
        if self.log {
            let decades = self.decades(count);
            if decades.len() >= 2 {
                return decades;
            }
            // Less than two decades: round values of the numbers themselves.
            let (low, high) = (10f64.powf(self.low), 10f64.powf(self.high));
            return nice(low, high, count).into_iter().filter(|tick| tick.value > 0.0).collect();
        }
        nice(self.low, self.high, count)
    }

    fn decades(&self, count: usize) -> Vec<Tick> {
        let (first, last) = (self.low.ceil() as i32, self.high.floor() as i32);
        let stride = ((last - first + 1).max(1) as usize).div_ceil(count.max(1)).max(1);
        let tick = |e: i32| Tick { value: 10f64.powi(e), label: power(e) };
        (first..=last).filter(|e| e.rem_euclid(stride as i32) == 0).map(tick).collect()
    }
}

/// Whether a value has a place on such an axis.
pub(crate) fn drawable(value: f64, log: bool) -> bool {
    value.is_finite() && value.abs() <= LARGEST && (!log || value > 0.0)
}

fn power(exponent: i32) -> String {
    match exponent {
        -3..=4 => trimmed(&format!("{:.3}", 10f64.powi(exponent))).to_owned(),
        _ => format!("1e{exponent}"),
    }
}

/// Multiples of 1, 2 or 5 times a power of ten.
fn nice(low: f64, high: f64, count: usize) -> Vec<Tick> {
    let raw = (high - low) / count.max(1) as f64;
    let magnitude = 10f64.powf(raw.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * magnitude >= raw * 0.999).unwrap_or(10.0);
    let step = factor * magnitude;
    let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
    // Between two ticks there may be none.
    if last < first {
        return Vec::new();
    }
    // Not more than can be told apart, whatever rounding does to extreme values.
    let steps = (0..=(last - first).clamp(0.0, 64.0) as u32).map(|k| first + f64::from(k));
    steps.map(|k| Tick { value: k * step, label: label(k * step, step) }).collect()
}

/// A tick with as many decimals as its step needs.
fn label(value: f64, step: f64) -> String {
    let digits = step.log10().floor() as i32;
    if value == 0.0 {
        return "0".into();
    }
    let size = value.abs().log10().floor() as i32;
    if size >= 6 || digits < -4 {
        let decimals = (size - digits).clamp(0, 12) as usize;
        let text = format!("{value:.decimals$e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{exponent}", trimmed(mantissa));
    }
    let decimals = (-digits).max(0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, log: bool) -> Vec<String> {
        Scale::between(low, high, log, false).ticks(5).into_iter().map(|t| t.label).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(
            labels(0.0, 1.0, false),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"].map(|l| if l == "0.0" { "0" } else { l })
        );
        assert_eq!(labels(-3.0, 7.0, false), ["-2", "0", "2", "4", "6"]);
        assert_eq!(labels(7.0, -3.0, false), labels(-3.0, 7.0, false));
        assert_eq!(labels(0.0, 2.5e6, false), ["0", "500000", "1e6", "1.5e6", "2e6", "2.5e6"]);
        assert_eq!(labels(1e-7, 2e-7, false), ["1e-7", "1.2e-7", "1.4e-7", "1.6e-7", "1.8e-7", "2e-7"]);
    }

    #[test]
    fn logarithmic_ticks_are_decades_or_round_values() {
        assert_eq!(labels(0.5, 2e3, true), ["1", "10", "100", "1000"]);
        assert_eq!(labels(1e-12, 1.0, true), ["1e-12", "1e-9", "1e-6", "0.001", "1"]);
        assert_eq!(
            labels(3.0, 5.0, true),
            ["3", "3.5", "4", "4.5", "5"].map(|l| if l.len() == 1 { format!("{l}.0") } else { l.into() })
        );
    }

    #[test]
    fn what_cannot_be_drawn_has_no_place() {
        let scale = Scale::between(1.0, 100.0, true, false);
        assert_eq!(scale.at(10.0), Some(0.5));
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e301] {
            assert_eq!(scale.at(value), None);
        }
        assert!(Scale::around([f64::NAN, 0.0], true, true).is_none());
        assert!(Scale::around([], false, true).is_none());
    }

    proptest::proptest! {
        #[test]
        fn every_axis_has_a_few_ticks_inside_in_order(
            a in -1e12f64..1e12, width in 1e-3f64..1e12, log: bool, count in 2usize..8
        ) {
            let (low, high) = if log { (a.abs() + 1e-9, a.abs() + 1e-9 + width) } else { (a, a + width) };
            let scale = Scale::between(low, high, log, true);
            let ticks = scale.ticks(count);
            proptest::prop_assert!(ticks.len() <= 2 * count + 2, "{ticks:?}");
            for pair in ticks.windows(2) {
                proptest::prop_assert!(pair[0].value < pair[1].value);
            }
            for tick in &ticks {
                let at = scale.at(tick.value).unwrap();
                proptest::prop_assert!((-1e-6..=1.0 + 1e-6).contains(&at), "{tick:?} {at}");
            }
        }

        #[test]
        fn a_single_value_is_in_the_middle(value in -1e9f64..1e9) {
            let scale = Scale::around([value], false, true).unwrap();
            proptest::prop_assert!((scale.at(value).unwrap() - 0.5).abs() < 1e-6);
        }
    }
}
