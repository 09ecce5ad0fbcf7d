//! Intervals over seeds and runs, rank correlations, permutation tests.

use infomax_core::Key;
use rand::RngExt as _;
use statrs::distribution::{ContinuousCDF as _, Normal, StudentsT};

/// The mean; not a number of nothing.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The unbiased standard deviation, in two passes; not a number for fewer than two values.
pub fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (values.len() as f64 - 1.0)).sqrt()
}

/// The median; not a number of nothing.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// A quantile with linear interpolation; not a number of nothing.
pub fn quantile(values: &[f64], p: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = p.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (at - low as f64) * (sorted[high] - sorted[low])
}

/// Student's interval of the mean of independent values; `None` for fewer than two.
pub fn t_interval(values: &[f64], level: f64) -> Option<(f64, f64)> {
    let n = values.len();
    if n < 2 || values.iter().any(|v| !v.is_finite()) {
        return None;
    }
    let t = StudentsT::new(0.0, 1.0, n as f64 - 1.0).ok()?.inverse_cdf(0.5 + 0.5 * level);
    let half = t * deviation(values) / (n as f64).sqrt();
    Some((mean(values) - half, mean(values) + half))
}

/// Wilson's interval of a share.
pub fn wilson(hits: usize, n: usize, level: f64) -> (f64, f64) {
    let (z, n) = (normal_quantile(0.5 + 0.5 * level), n as f64);
    let share = hits as f64 / n;
    let center = (share + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt() / (1.0 + z * z / n);
    // At the ends the formula gives 0 and 1 up to rounding.
    let lower = if hits == 0 { 0.0 } else { (center - half).max(0.0) };
    (lower, if share >= 1.0 { 1.0 } else { (center + half).min(1.0) })
}

fn normal_quantile(p: f64) -> f64 {
    Normal::new(0.0, 1.0).map_or(f64::NAN, |normal| normal.inverse_cdf(p))
}

/// Ranks from 1, equal values at their mean rank.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let same = order[start..].iter().take_while(|i| values[**i] == values[order[start]]).count().max(1);
        let rank = start as f64 + 0.5 * (same as f64 + 1.0);
        order[start..start + same].iter().for_each(|i| ranks[*i] = rank);
        start += same;
    }
    ranks
}

/// Pearson's correlation; `None` for fewer than two values or no spread.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    let (mx, my) = (mean(x), mean(y));
    let dot = |a: &[f64], ma: f64, b: &[f64], mb: f64| -> f64 {
        a.iter().zip(b).map(|(p, q)| (p - ma) * (q - mb)).sum()
    };
    let scale = (dot(x, mx, x, mx) * dot(y, my, y, my)).sqrt();
    (x.len() > 1 && scale > 0.0).then(|| dot(x, mx, y, my) / scale)
}

/// Spearman's rank correlation; `None` for fewer than two values or no spread.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    pearson(&ranks(x), &ranks(y))
}

/// The interval of Spearman's correlation by Fisher's transformation with the variance `(1 + r^2 / 2) / (n - 3)` (Bonett
/// and Wright 2000); `None` for fewer than four pairs.
pub fn correlation_interval(r: f64, n: usize, level: f64) -> Option<(f64, f64)> {
    if n < 4 {
        return None;
    }
    let r = r.clamp(-0.999_999, 0.999_999);
    let half = normal_quantile(0.5 + 0.5 * level) * ((1.0 + 0.5 * r * r) / (n as f64 - 3.0)).sqrt();
    Some(((r.atanh() - half).tanh(), (r.atanh() + half).tanh()))
}

/// The one-sided p-value of `sign` times Spearman's correlation by random permutations, `(1 + hits) / (1 + draws)`;
/// `None` without spread.
pub fn spearman_permutation(x: &[f64], y: &[f64], sign: f64, draws: u64, seed: u64) -> Option<f64> {
    let (x, y) = (ranks(x), ranks(y));
    let found = sign * pearson(&x, &y)?;
    let key = Key::new(seed).fold_named("permutation");
    let mut hits = 0;
    for draw in 0..draws {
        let (mut rng, mut shuffled) = (key.fold_in(draw).rng(), y.clone());
        for i in (1..shuffled.len()).rev() {
            shuffled.swap(i, rng.random_range(0..=i));
        }
        hits += u64::from(pearson(&x, &shuffled).is_some_and(|r| sign * r >= found - 1e-12));
    }
    Some((1 + hits) as f64 / (1 + draws) as f64)
}

/// The pairs of which both numbers are finite.
pub fn finite_pairs(x: &[f64], y: &[f64]) -> (Vec<f64>, Vec<f64>) {
    x.iter().zip(y).filter(|(a, b)| a.is_finite() && b.is_finite()).map(|(a, b)| (*a, *b)).unzip()
}

/// The slope of least squares of `y` on `x`; `None` without spread of `x`.
pub fn slope(x: &[f64], y: &[f64]) -> Option<f64> {
    let (mx, my) = (mean(x), mean(y));
    let spread: f64 = x.iter().map(|v| (v - mx) * (v - mx)).sum();
    let joint: f64 = x.iter().zip(y).map(|(p, q)| (p - mx) * (q - my)).sum();
    (spread > 0.0).then(|| joint / spread)
}

/// Where a curve crosses `level` first, `x` on a logarithmic scale; `None` where it does not.
pub fn crossing(points: &[(f64, f64)], level: f64) -> Option<f64> {
    points.windows(2).find_map(|pair| {
        let [(x0, y0), (x1, y1)] = pair else { return None };
        let (a, b) = (y0 - level, y1 - level);
        (a * b <= 0.0 && a != b).then(|| (x0.ln() + (x1.ln() - x0.ln()) * a / (a - b)).exp())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_equal_tables() {
        // t of 2 degrees of freedom at 97.5 %: 4.302653.
        let (low, high) = t_interval(&[1.0, 2.0, 3.0], 0.95).unwrap();
        assert!((high - 2.0 - 4.302_653 / 3f64.sqrt()).abs() < 1e-5 && (low + high - 4.0).abs() < 1e-12);
        assert!(t_interval(&[1.0], 0.95).is_none());
        // Wilson, 8 of 10: 0.4902 to 0.9433.
        let (low, high) = wilson(8, 10, 0.95);
        assert!((low - 0.4902).abs() < 1e-4 && (high - 0.9433).abs() < 1e-4, "{low} {high}");
    }

    #[test]
    fn ranks_share_ties() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
        assert_eq!(spearman(&[1.0, 2.0, 3.0], &[1.0, 8.0, 27.0]), Some(1.0));
        assert_eq!(spearman(&[1.0, 1.0], &[1.0, 2.0]), None);
    }

    #[test]
    fn permutations_find_what_there_is() {
        let x: Vec<f64> = (0..20).map(f64::from).collect();
        assert!(spearman_permutation(&x, &x, 1.0, 999, 0).unwrap() <= 0.001);
        assert!(spearman_permutation(&x, &x, -1.0, 999, 0).unwrap() > 0.99);
    }

    #[test]
    fn curves_cross() {
        let curve = [(0.01, 0.9), (0.1, 0.5), (1.0, 0.1)];
        assert!((crossing(&curve, 0.5).unwrap() - 0.1).abs() < 1e-12);
        assert_eq!(crossing(&curve, 0.95), None);
        assert!((slope(&[1.0, 2.0], &[3.0, 5.0]).unwrap() - 2.0).abs() < 1e-12);
    }
}
