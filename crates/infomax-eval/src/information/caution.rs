//! What is said of estimates that rows are too few for, that chance explains, or that have no finite truth.

use super::determined::Filled;
use super::mutual::NamedEstimate;
use crate::estimate::{Doubt, Estimate, Resampling};

/// Rows below which no estimate is put first, whatever `k`.
pub(super) const FEW_ROWS: usize = 24;

pub(super) fn too_few(n: usize, needed: usize) -> Doubt {
    let message = format!(
        "{n} rows are too few to say what two variables share: estimates of so few differ from 0 by chance alone; at least \
         {needed} are needed"
    );
    Doubt::new("few-rows", message)
}

/// An interval that excludes 0 where the permutations of all rows do not reject independence reaches to it.
pub(super) fn reach_zero(named: &mut NamedEstimate, n: usize, level: f64) {
    let (Some(p), Some(estimate)) = (named.p_value, &mut named.estimate) else { return };
    let Some(interval) = &mut estimate.interval else { return };
    let excluded = interval.lower > 0.0 || interval.upper < 0.0;
    // A test of a part of the rows says less than they do.
    if excluded && named.tested_rows == n && p > 1.0 - level {
        interval.lower = interval.lower.min(0.0);
        interval.upper = interval.upper.max(0.0);
        interval.method += &format!(", reaching to 0: permutations do not reject independence (p = {p:.2})");
    }
}

/// Why the information is infinite as far as the rows show.
#[derive(Clone, Copy, Debug)]
pub(super) enum Determined {
    Correlation,
    Dimensions(Filled),
}

/// The doubts that hold for every estimator: infinite information, and why there is no interval.
pub(super) fn said(estimate: &mut Estimate, determined: Option<Determined>, resampling: &Resampling) {
    if let Some(determined) = determined {
        estimate.interval = None;
        let how = match determined {
            Determined::Correlation => {
                "X and Y determine each other but for rounding (a canonical correlation of 1 of the \
                 values or of their ranks)"
                    .to_owned()
            }
            Determined::Dimensions(filled) => format!(
                "X determines a part of Y, or Y of X (X fills {:.1} dimensions, Y {:.1}, and both together only {:.1}: the \
                 rows lie on a curve or surface, without noise as wide as the distance to the nearest row)",
                filled.x, filled.y, filled.joint
            ),
        };
        let message = format!(
            "as far as {} rows show, {how}: of continuous variables the information is then infinite, estimates grow without \
             bound with the rows, and a number shows the rows or the rounding; no interval is given",
            estimate.n
        );
        estimate.doubts.push(Doubt::new("determined", message));
    } else if estimate.interval.is_none() && resampling.draws > 0 {
        let message = format!(
            "no interval: subsamples of half of the {} rows are too few for this estimator, or degenerate",
            estimate.n
        );
        estimate.doubts.push(Doubt::new("no-interval", message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::Interval;
    use crate::information::MutualEstimator;

    #[test]
    fn intervals_reach_to_zero_where_chance_explains_them() {
        let of = |p_value: f64, tested_rows: usize| {
            let interval = Interval { lower: 0.2, upper: 0.4, level: 0.9, method: "m".into() };
            let estimate = Estimate::new(0.3, 100).with(Some(interval));
            let mut named = NamedEstimate {
                estimator: MutualEstimator::Ksg1,
                estimate: Some(estimate),
                p_value: Some(p_value),
                tested_rows,
                refused: None,
            };
            reach_zero(&mut named, 100, 0.9);
            let interval = named.estimate.unwrap().interval.unwrap();
            (interval.lower, interval.upper, interval.method.contains("p = "))
        };
        assert_eq!(of(0.4, 100), (0.0, 0.4, true));
        // What is significant, or tested on a part of the rows, stays.
        assert_eq!(of(0.05, 100), (0.2, 0.4, false));
        assert_eq!(of(0.4, 50), (0.2, 0.4, false));
    }
}
