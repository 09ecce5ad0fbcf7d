//! Whether embeddings are normal: tests of one column, of all of them together, and of many at once.

mod columns;
mod correction;
mod empirical;
mod moments;
mod multivariate;
mod shapiro;

pub use columns::{ColumnTest, MarginalNormality, marginal_normality};
pub use correction::{benjamini_hochberg, holm};
pub use empirical::{anderson_darling, epps_pulley};
pub use moments::{dagostino_pearson, jarque_bera};
pub(crate) use multivariate::whitened;
pub use multivariate::{Mardia, henze_zirkler, mardia, mardia_kurtosis};
pub use shapiro::shapiro_wilk;

use crate::estimate::Doubt;
use crate::{Error, Result};
use serde::Serialize;

/// The result of a test whose null hypothesis is that the values are normal.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NormalityTest {
    /// The statistic.
    pub statistic: f64,
    /// The probability of a statistic at least as far out when the values are normal.
    pub p_value: f64,
    /// The values that took part.
    pub n: usize,
    /// Reasons not to trust the p-value.
    pub doubts: Vec<Doubt>,
}

/// Values of one column, checked: enough, finite, not constant. Centered on their mean and divided by the
/// deviation with `n - ddof`.
fn standardized(op: &'static str, x: &[f64], needed: usize, ddof: f64) -> Result<Vec<f64>> {
    if x.len() < needed {
        return Err(Error::TooFew { op, name: "x", rows: x.len(), needed });
    }
    let rows: Vec<usize> = (0..x.len()).filter(|&i| !x[i].is_finite()).collect();
    if !rows.is_empty() {
        return Err(Error::NonFinite { op, name: "x", rows });
    }
    let scale = x.iter().fold(0f64, |m, v| m.max(v.abs()));
    let n = x.len() as f64;
    // No overflow of squares; a scale changes no test of normality.
    let scaled: Vec<f64> = x.iter().map(|v| if scale > 0.0 { v / scale } else { 0.0 }).collect();
    let rough = scaled.iter().sum::<f64>() / n;
    let mean = rough + scaled.iter().map(|v| v - rough).sum::<f64>() / n;
    let variance = scaled.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - ddof);
    // What rounding of the values alone would leave is no spread.
    if variance.sqrt() <= 4.0 * f64::EPSILON * mean.abs() {
        return Err(Error::Constant { op, name: "x", columns: vec![0] });
    }
    Ok(scaled.iter().map(|v| (v - mean) / variance.sqrt()).collect())
}

/// Whether the p-value can be trusted with these values: many ties are not normal by their kind.
fn ties(x: &[f64]) -> Option<Doubt> {
    let mut sorted = x.to_vec();
    sorted.sort_by(f64::total_cmp);
    let tied = sorted.windows(2).filter(|w| w[0] == w[1]).count();
    (tied * 10 > x.len()).then(|| {
        let message =
            format!("{tied} of {} values equal another: no continuous distribution has ties", x.len());
        Doubt::new("ties", message)
    })
}
