//! How sure an accuracy is.

use crate::estimate::{Interval, variance};
use crate::special::{normal_quantile, student_quantile};

/// The interval of Wilson (1927) for an accuracy on `rows` test rows,
/// `[p + z^2 / (2 n) -+ z sqrt(p (1 - p) / n + z^2 / (4 n^2))] / (1 + z^2 / n)` with the normal quantile `z` of the level: other
/// test rows, the same fit. It has a width at accuracies of 0 and 1, too. `None` without test rows.
pub fn accuracy_interval(accuracy: f64, rows: usize, level: f64) -> Option<Interval> {
    if rows == 0 || !(0.0..=1.0).contains(&accuracy) || !(level > 0.0 && level < 1.0) {
        return None;
    }
    let n = rows as f64;
    let z = normal_quantile(0.5 + 0.5 * level);
    let share = z * z / n;
    let middle = accuracy + 0.5 * share;
    let half = z * (accuracy * (1.0 - accuracy) / n + 0.25 * share / n).sqrt();
    // Rounding must not put the accuracy itself outside.
    let lower = ((middle - half) / (1.0 + share)).clamp(0.0, accuracy);
    let upper = ((middle + half) / (1.0 + share)).clamp(accuracy, 1.0);
    Some(Interval { lower, upper, level, method: format!("Wilson, over {rows} test rows") })
}

/// The interval of a mean accuracy over parts drawn again and again from the same rows: Student's, with the variance of
/// Nadeau and Bengio (2003), `(1 / J + n_test / n_train) s^2` of `J` accuracies, as parts share rows. `None` for fewer than two, and where all are
/// equal, which says nothing of the error.
pub fn repeated_interval(accuracies: &[f64], train: usize, test: usize, level: f64) -> Option<Interval> {
    let count = accuracies.len();
    if count < 2 || train == 0 || test == 0 || !(level > 0.0 && level < 1.0) {
        return None;
    }
    if accuracies.iter().all(|a| *a == accuracies[0]) {
        return None;
    }
    let mean = accuracies.iter().sum::<f64>() / count as f64;
    let share = 1.0 / count as f64 + test as f64 / train as f64;
    let half =
        student_quantile(0.5 + 0.5 * level, count as f64 - 1.0) * (share * variance(accuracies)).sqrt();
    let method = format!("Student over {count} drawn splits, variance of Nadeau and Bengio");
    Some(Interval { lower: (mean - half).max(0.0), upper: (mean + half).min(1.0), level, method })
}

/// An interval over test rows, widened by what a mean over `count` fits adds, `t s / sqrt(count)` in quadrature on each side.
pub fn widened_interval(
    value: f64,
    interval: Interval,
    deviation: f64,
    count: usize,
    what: &str,
) -> Interval {
    if count < 2 || deviation.is_nan() || deviation <= 0.0 {
        return interval;
    }
    let t = student_quantile(0.5 + 0.5 * interval.level, count as f64 - 1.0);
    let half = t * deviation / (count as f64).sqrt();
    let side = |end: f64| ((end - value).powi(2) + half * half).sqrt();
    Interval {
        lower: (value - side(interval.lower)).max(0.0),
        upper: (value + side(interval.upper)).min(1.0),
        method: format!("{}, widened by the spread over {count} {what}", interval.method),
        ..interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infomax_core::Key;
    use rand::RngExt as _;

    #[test]
    fn intervals_equal_tables() {
        // statsmodels.stats.proportion.proportion_confint(8, 10, 0.05, "wilson").
        let i = accuracy_interval(0.8, 10, 0.95).unwrap();
        assert!((i.lower - 0.490_162_471_556_642).abs() < 1e-9, "{i:?}");
        assert!((i.upper - 0.943_317_848_545_625_7).abs() < 1e-9, "{i:?}");
        // All right: no interval of width 0.
        let i = accuracy_interval(1.0, 20, 0.9).unwrap();
        assert!(i.lower < 0.95 && i.upper == 1.0, "{i:?}");
        assert!(accuracy_interval(0.5, 0, 0.9).is_none());
        // scipy.stats.t.ppf(0.95, 2) = 2.9199855803537242.
        let i = repeated_interval(&[0.5, 0.6, 0.7], 80, 20, 0.9).unwrap();
        let half = 2.919_985_580_353_724 * ((1.0 / 3.0 + 0.25) * 0.01f64).sqrt();
        assert!((i.upper - (0.6 + half)).abs() < 1e-9 && (i.lower - (0.6 - half)).abs() < 1e-9, "{i:?}");
        assert!(repeated_interval(&[0.7], 80, 20, 0.9).is_none());
        assert!(repeated_interval(&[1.0, 1.0, 1.0], 80, 20, 0.9).is_none(), "no interval without a width");
        let plain = accuracy_interval(0.8, 100, 0.9).unwrap();
        let wide = widened_interval(0.8, plain.clone(), 0.05, 5, "seeds");
        assert!(wide.lower < plain.lower && wide.upper > plain.upper && wide.method.contains("5 seeds"));
    }

    #[test]
    fn wilson_covers_as_often_as_it_says() {
        let mut rng = Key::new(3).rng();
        for p in [0.1, 0.5, 0.97] {
            let mut held = 0;
            for _ in 0..1000 {
                let right = (0..60).filter(|_| rng.random::<f64>() < p).count();
                let i = accuracy_interval(right as f64 / 60.0, 60, 0.9).unwrap();
                held += usize::from(i.lower <= p && p <= i.upper);
            }
            assert!((840..=960).contains(&held), "{p}: {held}");
        }
    }
}
