//! What the pictures of a report are drawn from.

use super::{InspectConfig, select, subset};
use crate::Result;
use candle_core::{DType, Device, Tensor};
use infomax_core::Key;
use infomax_eval::geometry::{Map, NeighborMapConfig, neighbor_map, principal_map};
use infomax_eval::normality::{ColumnTest, marginal_normality};
use infomax_eval::spectrum::spectrum;

/// Numbers for charts; what could not be computed is in `skipped`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Plots {
    /// The eigenvalues of the covariance, descending.
    pub eigenvalues: Vec<f64>,
    /// The power law `exp(intercept) i^-alpha` of the eigenvalues 11 to 100, or of all where they are fewer:
    /// `(intercept, alpha, first, last)`, by least squares weighted with `1 / i`.
    pub power_law: Option<(f64, f64, usize, usize)>,
    /// Columns beside the normal distribution: the least normal one, the one in the middle, the most normal one.
    pub marginals: Vec<Marginal>,
    /// The p-values of all columns, ascending.
    pub p_values: Vec<f64>,
    /// Densities of the distances of pairs of rows: of all pairs, and with labels of pairs within and between classes.
    pub distances: Vec<(&'static str, Vec<(f64, f64)>)>,
    /// The share of pairs that are farther apart than the densities show, and the largest distance.
    pub distances_beyond: Option<(f64, f64)>,
    /// Of how many rows the distances are.
    pub distance_rows: usize,
    /// The rows of the maps, as numbers of the input.
    pub map_rows: Vec<usize>,
    /// The rows along the first two principal axes.
    pub principal: Option<Map>,
    /// The rows by their neighbors.
    pub neighbors: Option<Map>,
    /// The classes of the probe and `confusion[t][p]` on its test rows.
    pub confusion: Option<(Vec<u32>, Vec<Vec<u32>>)>,
    /// What could not be computed, with the reason.
    pub skipped: Vec<String>,
}

/// The values of a column beside the normal distribution.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Marginal {
    /// The column, from 0.
    pub column: usize,
    /// The statistic of D'Agostino and Pearson.
    pub statistic: f64,
    /// Its p-value.
    pub p_value: f64,
    /// The density of the standardized values: `(from, to, height)`.
    pub bins: Vec<(f64, f64, f64)>,
}

/// Rows of the densities of distances: half a million pairs.
const PAIRED: usize = 1_000;
/// Rows of the maps.
pub(super) const MAPPED: usize = 1_500;
const BINS: usize = 48;

/// `z` are the finite rows, of which `original` gives the numbers in the input.
pub(super) fn plots(
    z: &Tensor,
    original: &[usize],
    labels: Option<&[Option<u32>]>,
    cfg: &InspectConfig,
) -> Plots {
    let mut plots = Plots::default();
    let n = original.len();
    match spectrum(z) {
        Ok(all) => {
            plots.power_law = power_law(&all.eigenvalues);
            plots.eigenvalues = all.eigenvalues;
        }
        Err(e) => plots.skipped.push(format!("spectrum: {e}")),
    }
    if let Err(e) = normality(z, &mut plots) {
        plots.skipped.push(format!("marginals: {e}"));
    }
    let some = subset(n, PAIRED, cfg.seed);
    plots.distance_rows = some.len();
    let of = |rows: &[usize]| rows.iter().map(|&i| labels.and_then(|l| l[i])).collect::<Vec<_>>();
    match select(z, &some).and_then(|rows| distances(&rows, &of(&some))) {
        Ok((found, beyond)) => (plots.distances, plots.distances_beyond) = (found, beyond),
        Err(e) => plots.skipped.push(format!("distances: {e}")),
    }
    let some = subset(n, MAPPED.min(cfg.max_rows), cfg.seed);
    plots.map_rows = some.iter().map(|&i| original[i]).collect();
    match select(z, &some) {
        Ok(rows) => {
            match principal_map(&rows) {
                Ok(map) => plots.principal = Some(map),
                Err(e) => plots.skipped.push(format!("map by principal axes: {e}")),
            }
            match neighbor_map(&rows, &NeighborMapConfig::default()) {
                Ok(map) => plots.neighbors = Some(map),
                Err(e) => plots.skipped.push(format!("map by neighbors: {e}")),
            }
        }
        Err(e) => plots.skipped.push(format!("maps: {e}")),
    }
    plots
}

/// Least squares of `ln l_i` on `ln i` with the weights `1 / i`, over 11 to 100 or, if those are not positive, all
/// that are.
fn power_law(eigenvalues: &[f64]) -> Option<(f64, f64, usize, usize)> {
    let largest = eigenvalues.first().copied().filter(|l| *l > 0.0)?;
    let positive = eigenvalues.iter().take_while(|l| **l > largest * 1e-12).count();
    let (first, last) = if positive >= 100 { (11, 100) } else { (1, positive) };
    if last < first + 2 {
        return None;
    }
    let (mut w, mut x, mut y) = (0.0, 0.0, 0.0);
    let point = |i: usize| (1.0 / i as f64, (i as f64).ln(), eigenvalues[i - 1].ln());
    for i in first..=last {
        let (weight, a, b) = point(i);
        (w, x, y) = (w + weight, x + weight * a, y + weight * b);
    }
    let (x, y) = (x / w, y / w);
    let (mut xx, mut xy) = (0.0, 0.0);
    for i in first..=last {
        let (weight, a, b) = point(i);
        xx += weight * (a - x) * (a - x);
        xy += weight * (a - x) * (b - y);
    }
    let slope = xy / xx;
    Some((y - slope * x, -slope, first, last))
}

fn normality(z: &Tensor, plots: &mut Plots) -> Result<()> {
    let all = marginal_normality(z, ColumnTest::DagostinoPearson, 0.05)?;
    let mut order: Vec<(usize, f64, f64)> = all
        .columns
        .iter()
        .enumerate()
        .filter_map(|(j, test)| test.as_ref().map(|t| (j, t.statistic, t.p_value)))
        .collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    plots.p_values = order.iter().map(|c| c.2).collect();
    plots.p_values.sort_by(f64::total_cmp);
    let mut shown = vec![0, order.len() / 2, order.len().saturating_sub(1)];
    shown.dedup();
    for at in shown {
        let Some(&(column, statistic, p_value)) = order.get(at) else { continue };
        let values = z.narrow(1, column, 1)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let deviation = (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt();
        let scaled: Vec<f64> = values.iter().map(|v| (v - mean) / deviation).collect();
        plots.marginals.push(Marginal { column, statistic, p_value, bins: histogram(&scaled, -4.0, 4.0) });
    }
    Ok(())
}

/// A density over equal bins; what is beyond counts for the total and is not shown.
fn histogram(values: &[f64], low: f64, high: f64) -> Vec<(f64, f64, f64)> {
    let width = (high - low) / BINS as f64;
    let mut counts = vec![0u64; BINS];
    for v in values {
        let at = ((v - low) / width).floor();
        if at >= 0.0 && at <= BINS as f64 && *v <= high {
            counts[(at as usize).min(BINS - 1)] += 1;
        }
    }
    let total = values.len().max(1) as f64 * width;
    let bin =
        |(k, c): (usize, &u64)| (low + k as f64 * width, low + (k + 1) as f64 * width, *c as f64 / total);
    counts.iter().enumerate().map(bin).collect()
}

type Densities = Vec<(&'static str, Vec<(f64, f64)>)>;

/// Densities, and the share of pairs beyond what they show with the largest distance: a few far rows would leave no room
/// for the others.
fn distances(z: &Tensor, labels: &[Option<u32>]) -> Result<(Densities, Option<(f64, f64)>)> {
    let rows = z.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    let (mut all, mut within, mut between) = (Vec::new(), Vec::new(), Vec::new());
    for (i, a) in rows.iter().enumerate() {
        for (j, b) in rows.iter().enumerate().take(i) {
            let square: f64 = a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum();
            let distance = square.sqrt();
            all.push(distance);
            if let (Some(x), Some(y)) = (labels[i], labels[j]) {
                if x == y { within.push(distance) } else { between.push(distance) }
            }
        }
    }
    all.sort_by(f64::total_cmp);
    let (Some(&low), Some(&largest)) = (all.first(), all.last()) else { return Ok((Vec::new(), None)) };
    let usual = all[(all.len() - 1) * 995 / 1000];
    let high = if largest > 1.5 * usual && usual > low { usual } else { largest };
    let density = |values: &[f64]| -> Vec<(f64, f64)> {
        histogram(values, low, high).into_iter().map(|(a, b, h)| (0.5 * (a + b), h)).collect()
    };
    if high <= low {
        return Ok((Vec::new(), None));
    }
    let mut out = vec![("all pairs", density(&all))];
    if !within.is_empty() && !between.is_empty() {
        out.push(("within a class", density(&within)));
        out.push(("between classes", density(&between)));
    }
    let beyond = all.iter().filter(|v| **v > high).count() as f64 / all.len() as f64;
    Ok((out, (beyond > 0.0).then_some((beyond, largest))))
}

/// Rows of a map in an order that has nothing to do with theirs, so that no class hides the others.
pub(super) fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    let key = Key::new(seed).fold_named("drawing order");
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by_key(|&i| key.fold_in(i as u64).words());
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_power_law_of_a_power_law_is_itself() {
        for n in [20usize, 300] {
            let spectrum: Vec<f64> = (1..=n).map(|i| 3.0 * (i as f64).powf(-1.3)).collect();
            let (intercept, alpha, first, last) = power_law(&spectrum).unwrap();
            assert!((alpha - 1.3).abs() < 1e-9 && (intercept - 3f64.ln()).abs() < 1e-9);
            assert_eq!((first, last), if n == 20 { (1, 20) } else { (11, 100) });
        }
        assert_eq!(power_law(&[1.0, 0.0]), None);
        assert_eq!(power_law(&[0.0; 5]), None);
    }

    #[test]
    fn a_density_has_the_area_of_what_it_shows() {
        let bins = histogram(&[0.0, 0.1, 0.5, 1.0, 7.0], 0.0, 1.0);
        let area: f64 = bins.iter().map(|(a, b, h)| (b - a) * h).sum();
        assert!((area - 0.8).abs() < 1e-12, "four of five: {area}");
    }

    #[test]
    fn distances_are_split_by_class() {
        let z = Tensor::new(vec![vec![0.0f64], vec![1.0], vec![10.0], vec![11.5]], &Device::Cpu).unwrap();
        let (found, beyond) = distances(&z, &[Some(0), Some(0), Some(1), None]).unwrap();
        assert_eq!(beyond, None);
        let largest = |k: usize| found[k].1.iter().filter(|p| p.1 > 0.0).map(|p| p.0).fold(0.0, f64::max);
        assert_eq!(
            found.iter().map(|f| f.0).collect::<Vec<_>>(),
            ["all pairs", "within a class", "between classes"]
        );
        assert!(largest(0) > 11.0 && largest(1) < 1.5 && (largest(2) - 10.0).abs() < 0.5);
        assert_eq!(distances(&z, &[None; 4]).unwrap().0.len(), 1);
        // One row far out is said, and leaves room for the others.
        let far: Vec<Vec<f64>> =
            (0..500).map(|i| vec![if i == 7 { 1e6 } else { f64::from(i % 50) }]).collect();
        let (found, beyond) = distances(&Tensor::new(far, &Device::Cpu).unwrap(), &[None; 500]).unwrap();
        let (share, largest) = beyond.unwrap();
        assert!((share - 499.0 / (250.0 * 499.0)).abs() < 1e-3 && largest > 9e5, "{share} {largest}");
        assert!(found[0].1.iter().all(|p| p.0 < 60.0));
        assert!(
            distances(&Tensor::ones((5, 2), DType::F64, &Device::Cpu).unwrap(), &[None; 5])
                .unwrap()
                .0
                .is_empty()
        );
    }
}
