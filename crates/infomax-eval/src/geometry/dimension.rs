//! The intrinsic dimension of the cloud, from the distances to nearest neighbors.

use super::Neighbors;
use crate::estimate::{Doubt, Estimate, Interval, Resampling};
use crate::{Error, Result};
use serde::Serialize;

/// The settings of [`intrinsic_dimension`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DimensionConfig {
    /// The share of the largest ratios that TwoNN by least squares leaves out.
    pub discard: f64,
}

impl Default for DimensionConfig {
    /// `discard = 0.1`, as in the paper and in scikit-dimension.
    fn default() -> Self {
        Self { discard: 0.1 }
    }
}

/// The result of [`intrinsic_dimension`]: three estimates of one quantity.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IntrinsicDimension {
    /// TwoNN by least squares through the origin of `-ln(1 - F(mu))` on `ln mu`, `mu = r_2 / r_1` (Facco et al.,
    /// arXiv:1803.06992), with `F = i / N` at the `i`-th smallest ratio, as in scikit-dimension.
    pub two_nn: Estimate,
    /// TwoNN by maximum likelihood, `(N - 1) / sum ln mu`.
    pub two_nn_likelihood: Estimate,
    /// Levina and Bickel (2004) with `k` neighbors, `m(x) = [1 / (k - 1) sum_{j<k} ln(r_k / r_j)]^{-1}`, joined by
    /// the harmonic mean of MacKay and Ghahramani (2005). `None` for `k < 3`.
    pub levina_bickel: Option<Estimate>,
    /// The neighbors that Levina and Bickel's estimate used.
    pub k: usize,
}

/// The intrinsic dimension from nearest neighbors, of which `k = 20` is usual.
///
/// Rows with duplicates among their neighbors have no ratio and are left out, counted in the doubts. The
/// intervals are normal, with the standard error of a mean whose terms depend on each other where rows are neighbors;
/// that of TwoNN by least squares is its bootstrap, wider by the same factor as the mean of `ln mu`.
///
/// # Errors
/// Fewer than two neighbors a row, or fewer than eight rows without a duplicate.
pub fn intrinsic_dimension(
    neighbors: &Neighbors,
    cfg: &DimensionConfig,
    resampling: &Resampling,
) -> Result<IntrinsicDimension> {
    const OP: &str = "intrinsic_dimension";
    resampling.check()?;
    if !(0.0..0.9).contains(&cfg.discard) {
        let (value, reason) = (cfg.discard.to_string(), "must be at least 0 and below 0.9");
        return Err(Error::Config { key: "dimension.discard", value, reason });
    }
    if neighbors.k < 2 {
        let (value, reason) = (neighbors.k.to_string(), "TwoNN needs two neighbors a row");
        return Err(Error::Config { key: "dimension.k", value, reason });
    }
    let used: Vec<usize> = (0..neighbors.n).filter(|&i| neighbors.distances_of(i)[0] > 0.0).collect();
    let log = |&i: &usize| (neighbors.distances_of(i)[1] / neighbors.distances_of(i)[0]).ln();
    let logs: Vec<f64> = used.iter().map(log).collect();
    let mut sorted = logs.clone();
    sorted.sort_by(f64::total_cmp);
    let needed = 8;
    let farthest = sorted.last().copied().unwrap_or(0.0);
    if logs.len() < needed || farthest <= 0.0 {
        return Err(Error::TooFew { op: OP, name: "rows with distinct neighbors", rows: logs.len(), needed });
    }
    let n = logs.len();
    let of_logs = mean_variance(neighbors, &used, &logs, 2);
    let around = |value: f64, se: f64| {
        Interval::normal(
            value,
            se,
            resampling.level,
            "standard error with the dependence of neighbors, normal",
        )
    };
    let value = least_squares(&sorted, cfg.discard);
    // The bootstrap takes rows for independent: wider by as much as the mean of the logarithms is.
    let spread = resampling.bootstrap_deviation(&sorted, |again| {
        let mut again = again.to_vec();
        again.sort_by(f64::total_cmp);
        least_squares(&again, cfg.discard)
    })?;
    let wider = (of_logs * n as f64 / crate::estimate::variance(&logs)).sqrt();
    let interval = spread.map(|deviation| around(value, deviation * wider));
    let two_nn = Estimate::new(value, n).with(interval).doubting(doubts(neighbors, value, n));
    let mean = logs.iter().sum::<f64>() / n as f64;
    let value = (n as f64 - 1.0) / (n as f64 * mean);
    let interval = around(value, value / mean * of_logs.sqrt());
    let two_nn_likelihood =
        Estimate::new(value, n).with(Some(interval)).doubting(doubts(neighbors, value, n));

    let k = neighbors.k;
    let levina_bickel = (k >= 3).then(|| {
        let inverse = |&i: &usize| {
            let r = neighbors.distances_of(i);
            let sum: f64 = r[..k - 1].iter().map(|near| (r[k - 1] / near).ln()).sum();
            sum / (k as f64 - 1.0)
        };
        let inverses: Vec<f64> = used.iter().map(inverse).collect();
        let mean = inverses.iter().sum::<f64>() / n as f64;
        let value = 1.0 / mean;
        let se = value / mean * mean_variance(neighbors, &used, &inverses, k).sqrt();
        Estimate::new(value, n).with(Some(around(value, se))).doubting(doubts(neighbors, value, n))
    });
    Ok(IntrinsicDimension { two_nn, two_nn_likelihood, levina_bickel, k })
}

/// The variance of the mean of one value a row, where rows that are among each other's first `k` neighbors depend on
/// each other and others do not: `1 / N^2` times the sum of the products of deviations over such pairs, and at least
/// that of independent rows.
fn mean_variance(neighbors: &Neighbors, used: &[usize], values: &[f64], k: usize) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let mut deviations = vec![0.0; neighbors.n];
    used.iter().zip(values).for_each(|(&i, v)| deviations[i] = v - mean);
    let near = |i: usize| &neighbors.of(i)[..k];
    let mut pairs = 0.0;
    for &i in used {
        for &j in near(i) {
            // A pair that is mutual is met twice.
            let j = j as usize;
            if i < j || !near(j).contains(&(i as u32)) {
                pairs += 2.0 * deviations[i] * deviations[j];
            }
        }
    }
    let alone: f64 = deviations.iter().map(|d| d * d).sum();
    (alone + pairs.max(0.0)) / (n * n)
}

/// The slope through the origin over the smallest ratios.
fn least_squares(sorted: &[f64], discard: f64) -> f64 {
    let n = sorted.len() as f64;
    // The empirical distribution reaches 1 at the largest, whose logarithm does not exist.
    let kept = ((n * (1.0 - discard)) as usize).min(sorted.len() - 1);
    let (mut xy, mut xx) = (0.0, 0.0);
    for (i, x) in sorted.iter().take(kept).enumerate() {
        let y = -(1.0 - (i + 1) as f64 / n).ln();
        xy += x * y;
        xx += x * x;
    }
    xy / xx
}

fn doubts(neighbors: &Neighbors, value: f64, used: usize) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    let left_out = neighbors.n - used;
    if left_out > 0 {
        let message = format!("{left_out} of {} rows have an exact duplicate and were left out", neighbors.n);
        doubts.push(Doubt::new("duplicates", message));
    }
    // Eckmann and Ruelle (1992): neighborhoods of a tenth of the diameter hold a neighbor only below this.
    let limit = 2.0 * (used as f64).log10();
    if value > limit {
        let message = format!(
            "{used} rows resolve dimensions up to about 2 log10 N = {limit:.1} (Eckmann and Ruelle 1992); above \
             it the estimate is too low"
        );
        doubts.push(Doubt::new("few-samples", message));
    }
    doubts
}
