//! What the numbers of an array of images mean, found out once when it is opened.

use super::{Layout, Scalar, Segment};
use crate::npy::Number;
use rayon::prelude::*;

/// The meaning of pixels.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) scalar: Scalar,
    /// Records whose pixels lie outside of the range of the others, with the reason.
    pub(super) wrong: Vec<(usize, String)>,
    pub(super) notes: Vec<String>,
}

/// Up to this many bytes all records are looked at; of larger arrays, as many that are spread over them.
const MOST: u64 = 2 << 30;
/// Of bytes, which need no range, so many records are looked at.
const SOME: usize = 64;

/// The range of the numbers of one image.
#[derive(Clone, Copy, Debug)]
struct Range {
    low: f64,
    high: f64,
    finite: bool,
    whole: bool,
}

impl Range {
    fn of(number: Number, bytes: &[u8]) -> Self {
        let mut range = Self { low: f64::INFINITY, high: f64::NEG_INFINITY, finite: true, whole: true };
        for chunk in bytes.chunks_exact(number.size() as usize) {
            let v = number.float(chunk);
            range.finite &= v.is_finite();
            range.whole &= v.fract() == 0.0;
            range.low = range.low.min(v);
            range.high = range.high.max(v);
        }
        range
    }

    /// Whether all numbers are gray levels at this scale, up to half a level.
    fn fits(&self, scale: f64) -> bool {
        self.finite && self.low * scale >= -0.5 && self.high * scale <= 255.5
    }
}

/// Finds the scale that makes bytes of the pixels of an array.
///
/// Booleans are 0 and 255. Integers are gray levels 0 to 255, `u16` above that 0 to 65,535. Numbers of floating point
/// are 0 to 1, or, where they go beyond 16, 0 to 255. A few records do not decide: where nine of ten fit the smaller
/// range, it is meant. Single records that do not fit are listed; where most do not,
/// the array is refused with the range that was found.
pub(super) fn judge(
    segment: &Segment,
    layout: &Layout,
    number: Number,
    name: &str,
) -> Result<Judged, String> {
    let scalar = |scale| Scalar { number, scale };
    if number == Number::Bool {
        return Ok(Judged { scalar: scalar(255.0), ..Judged::default() });
    }
    let bytes = layout.numbers() as u64 * number.size();
    let most = match number {
        Number::U8 => SOME,
        _ => usize::try_from(MOST / bytes.max(1)).unwrap_or(usize::MAX).max(SOME),
    };
    let looked = segment.count.min(most);
    let at = |k: usize| if looked == segment.count { k } else { k * segment.count / looked };
    // Records that cannot be read are found when they are used.
    let ranges: Vec<(usize, Range)> = (0..looked)
        .into_par_iter()
        .filter_map(|k| {
            let record = segment.place.take(segment.offset + at(k) as u64 * segment.stride, bytes).ok()?;
            Some((at(k), Range::of(number, &record)))
        })
        .collect();
    if ranges.is_empty() {
        return Ok(Judged {
            scalar: scalar(if number.is_float() { 255.0 } else { 1.0 }),
            ..Judged::default()
        });
    }
    let (low, high) = span(ranges.iter().map(|(_, r)| r));
    let what =
        |(low, high): (f64, f64)| format!("{name} holds {number:?} from {} to {}", short(low), short(high));
    let fitting = |scale: f64| ranges.iter().map(|(_, r)| r).filter(move |r| r.fits(scale));
    let count = |scale: f64| fitting(scale).count();
    // What is said is the range of the records that are used.
    let levels = span(fitting(1.0));
    let (all, half) = (ranges.len(), ranges.len().div_ceil(2));
    let mut notes = Vec::new();
    let scale = if number.is_float() {
        let whole = fitting(1.0).all(|r| r.whole);
        if count(255.0) == all || (count(255.0) >= half && nearly_all(&ranges, 255.0)) {
            255.0
        } else if count(1.0) >= half && (whole || levels.1 > 16.0) {
            notes.push(format!("{}, which are taken as gray levels 0 to 255", what(levels)));
            1.0
        } else if count(255.0) >= half {
            255.0
        } else {
            return Err(format!("{}: {}", what((low, high)), advice(low, high)));
        }
    } else if count(1.0) == all || (count(1.0) >= half && (number != Number::U16 || nearly_all(&ranges, 1.0)))
    {
        if levels.1 <= 1.0 && levels.1 > 0.0 {
            notes.push(format!(
                "{}: of 255 gray levels that is black; if they are booleans, save them as bool, or times 255",
                what(levels)
            ));
        } else if number != Number::U8 {
            notes.push(format!("{}, which are taken as gray levels 0 to 255", what(levels)));
        }
        1.0
    } else if number == Number::U16 {
        notes.push(format!("{}, which are taken as gray levels 0 to 65535", what((low, high))));
        1.0 / 257.0
    } else {
        return Err(format!("{}: {}", what((low, high)), advice(low, high)));
    };
    let wrong = ranges
        .iter()
        .filter(|(_, r)| !r.fits(scale))
        .map(|(record, r)| {
            let found = match r.finite {
                true => format!("from {} to {}", short(r.low), short(r.high)),
                false => "that are not finite".to_owned(),
            };
            let most = if scale == 255.0 { 1.0 } else { (255.0f64 / scale).round() };
            (*record, format!("{name}, record {record}: pixels {found}; the others hold 0 to {most}"))
        })
        .collect();
    Ok(Judged { scalar: scalar(scale), wrong, notes })
}

/// The smallest and the largest number of the records that are finite.
fn span<'a>(ranges: impl Iterator<Item = &'a Range>) -> (f64, f64) {
    ranges
        .filter(|r| r.finite)
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), r| (low.min(r.low), high.max(r.high)))
}

/// Whether at least nine of ten records fit a scale, or all but one of four or more. Records of nothing but zeros fit
/// every scale and tell nothing.
fn nearly_all(ranges: &[(usize, Range)], scale: f64) -> bool {
    let telling = || ranges.iter().map(|(_, r)| r).filter(|r| r.low != 0.0 || r.high != 0.0);
    let (all, fit) = (telling().count(), telling().filter(|r| r.fits(scale)).count());
    let others = all - fit;
    others * 10 <= all || (others == 1 && all >= 4)
}

/// What to do with a range that means nothing here.
fn advice(low: f64, high: f64) -> String {
    let hint = if !low.is_finite() || !high.is_finite() {
        "no number is finite"
    } else if (-1.01..0.0).contains(&low) && high <= 1.01 {
        "numbers from -1 to 1 become images by (x + 1) / 2"
    } else if low < 0.0 {
        "normalized images become images again by x * std + mean"
    } else {
        "divide by the largest value that is possible"
    };
    format!(
        "floating-point images hold 0 to 1, or 0 to 255, and integers 0 to 255; {hint}, then save them as uint8 or float32"
    )
}

fn short(v: f64) -> String {
    if v == v.trunc() && v.abs() < 1e7 { format!("{v:.0}") } else { format!("{v:.4}") }
}
