//! Many tests at once.

/// Adjusted p-values of Holm (1979): the chance of any false rejection stays below the level, whatever the
/// dependence. `max_{j <= i} min(1, (m - j) p_(j))` over the sorted values, in the order that was given. Values
/// that are not numbers stay so and are not counted.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let order = sorted(p_values);
    let mut adjusted = vec![f64::NAN; p_values.len()];
    let mut largest = 0f64;
    for (rank, &i) in order.iter().enumerate() {
        largest = largest.max(((order.len() - rank) as f64 * p_values[i]).min(1.0));
        adjusted[i] = largest;
    }
    adjusted
}

/// Adjusted p-values of Benjamini and Hochberg (1995): the expected share of false rejections stays below the
/// level for tests that are independent or depend positively. `min_{j >= i} min(1, m p_(j) / j)`. Values that are
/// not numbers stay so and are not counted.
pub fn benjamini_hochberg(p_values: &[f64]) -> Vec<f64> {
    let order = sorted(p_values);
    let mut adjusted = vec![f64::NAN; p_values.len()];
    let mut smallest = 1f64;
    for (rank, &i) in order.iter().enumerate().rev() {
        smallest = smallest.min(order.len() as f64 * p_values[i] / (rank + 1) as f64);
        adjusted[i] = smallest;
    }
    adjusted
}

fn sorted(p_values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..p_values.len()).filter(|&i| !p_values[i].is_nan()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]).then(a.cmp(&b)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worked_example() {
        // Tabulated by hand from the definitions.
        let p = [0.01, 0.04, f64::NAN, 0.03, 0.005];
        let close = |a: &[f64], b: &[f64]| {
            a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-15 || (a.is_nan() && b.is_nan()))
        };
        assert!(close(&holm(&p), &[0.03, 0.06, f64::NAN, 0.06, 0.02]), "{:?}", holm(&p));
        let bh = benjamini_hochberg(&p);
        assert!(close(&bh, &[0.02, 0.04, f64::NAN, 0.04, 0.02]), "{bh:?}");
        assert_eq!((holm(&[]), benjamini_hochberg(&[0.9])), (vec![], vec![0.9]));
    }
}
