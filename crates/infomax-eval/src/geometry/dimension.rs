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
/// intervals are bootstraps over rows with the neighbors kept, and for the likelihood its own standard error
/// `d / sqrt(N)`; both take rows for independent, which neighborhoods that overlap are not.
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
    let rows = || (0..neighbors.n).map(|i| neighbors.distances_of(i)).filter(|r| r[0] > 0.0);
    let mut logs: Vec<f64> = rows().map(|r| (r[1] / r[0]).ln()).collect();
    logs.sort_by(f64::total_cmp);
    let needed = 8;
    let farthest = logs.last().copied().unwrap_or(0.0);
    if logs.len() < needed || farthest <= 0.0 {
        return Err(Error::TooFew { op: OP, name: "rows with distinct neighbors", rows: logs.len(), needed });
    }
    let n = logs.len();
    let value = least_squares(&logs, cfg.discard);
    let interval = resampling.bootstrap(&logs, |again| {
        let mut again = again.to_vec();
        again.sort_by(f64::total_cmp);
        least_squares(&again, cfg.discard)
    })?;
    let two_nn = Estimate::new(value, n).with(interval).doubting(doubts(neighbors, value, n));
    let value = (n as f64 - 1.0) / logs.iter().sum::<f64>();
    let method = "standard error d / sqrt(N) of the likelihood, normal";
    let interval = Interval::normal(value, value / (n as f64).sqrt(), resampling.level, method);
    let two_nn_likelihood =
        Estimate::new(value, n).with(Some(interval)).doubting(doubts(neighbors, value, n));

    let k = neighbors.k;
    let levina_bickel = if k < 3 {
        None
    } else {
        let inverse = |r: &[f64]| {
            let sum: f64 = r[..k - 1].iter().map(|near| (r[k - 1] / near).ln()).sum();
            sum / (k as f64 - 1.0)
        };
        let inverses: Vec<f64> = rows().map(inverse).collect();
        let harmonic = |v: &[f64]| v.len() as f64 / v.iter().sum::<f64>();
        let value = harmonic(&inverses);
        let interval = resampling.bootstrap(&inverses, harmonic)?;
        Some(Estimate::new(value, n).with(interval).doubting(doubts(neighbors, value, n)))
    };
    Ok(IntrinsicDimension { two_nn, two_nn_likelihood, levina_bickel, k })
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
