//! Tests on skewness and kurtosis.

use super::{NormalityTest, standardized, ties};
use crate::estimate::Doubt;
use crate::{Result, special};

/// The omnibus test of D'Agostino and Pearson (1973): `K^2 = Z_1^2 + Z_2^2` of the transformed skewness
/// (D'Agostino 1970) and kurtosis (Anscombe and Glynn 1983), `p = exp(-K^2 / 2)`. `scipy.stats.normaltest`.
///
/// # Errors
/// Fewer than eight values, values that are not finite, or no spread.
pub fn dagostino_pearson(x: &[f64]) -> Result<NormalityTest> {
    let z = standardized("dagostino_pearson", x, 8, 0.0)?;
    let (skewness, kurtosis) = moments(&z);
    let statistic =
        skewness_z(skewness, z.len() as f64).powi(2) + kurtosis_z(kurtosis, z.len() as f64).powi(2);
    let few = (z.len() < 20).then(|| {
        Doubt::new("few-samples", format!("{} values; the kurtosis needs 20 for its approximation", z.len()))
    });
    let doubts = few.into_iter().chain(ties(x)).collect();
    Ok(NormalityTest { statistic, p_value: (-0.5 * statistic).exp(), n: z.len(), doubts })
}

/// The test of Jarque and Bera (1980): `n / 6 (g_1^2 + (b_2 - 3)^2 / 4)`, `p = exp(-JB / 2)`.
/// `scipy.stats.jarque_bera`.
///
/// # Errors
/// Fewer than eight values, values that are not finite, or no spread.
pub fn jarque_bera(x: &[f64]) -> Result<NormalityTest> {
    let z = standardized("jarque_bera", x, 8, 0.0)?;
    let (skewness, kurtosis) = moments(&z);
    let excess = kurtosis - 3.0;
    let statistic = z.len() as f64 / 6.0 * (skewness * skewness + 0.25 * excess * excess);
    let few = (z.len() < 2000).then(|| {
        let message = format!("{} values; its chi-square limit is good from about 2,000", z.len());
        Doubt::new("few-samples", message)
    });
    let doubts = few.into_iter().chain(ties(x)).collect();
    Ok(NormalityTest { statistic, p_value: (-0.5 * statistic).exp(), n: z.len(), doubts })
}

/// Biased skewness and kurtosis of values of mean 0 and variance 1.
fn moments(z: &[f64]) -> (f64, f64) {
    let n = z.len() as f64;
    (z.iter().map(|v| v * v * v).sum::<f64>() / n, z.iter().map(|v| (v * v) * (v * v)).sum::<f64>() / n)
}

fn skewness_z(g1: f64, n: f64) -> f64 {
    let y = g1 * ((n + 1.0) * (n + 3.0) / (6.0 * (n - 2.0))).sqrt();
    let beta2 = 3.0 * (n * n + 27.0 * n - 70.0) * (n + 1.0) * (n + 3.0)
        / ((n - 2.0) * (n + 5.0) * (n + 7.0) * (n + 9.0));
    let w2 = -1.0 + (2.0 * (beta2 - 1.0)).sqrt();
    let delta = 1.0 / (0.5 * w2.ln()).sqrt();
    let alpha = (2.0 / (w2 - 1.0)).sqrt();
    delta * (y / alpha).asinh()
}

fn kurtosis_z(b2: f64, n: f64) -> f64 {
    let mean = 3.0 * (n - 1.0) / (n + 1.0);
    let variance = 24.0 * n * (n - 2.0) * (n - 3.0) / ((n + 1.0) * (n + 1.0) * (n + 3.0) * (n + 5.0));
    let x = (b2 - mean) / variance.sqrt();
    let skew = 6.0 * (n * n - 5.0 * n + 2.0) / ((n + 7.0) * (n + 9.0))
        * (6.0 * (n + 3.0) * (n + 5.0) / (n * (n - 2.0) * (n - 3.0))).sqrt();
    let a = 6.0 + 8.0 / skew * (2.0 / skew + (1.0 + 4.0 / (skew * skew)).sqrt());
    let denominator = 1.0 + x * (2.0 / (a - 4.0)).sqrt();
    // The cube root of a ratio whose denominator may be negative; at 0 the statistic grows without bound.
    let term = denominator.signum() * ((1.0 - 2.0 / a) / denominator.abs()).cbrt();
    (1.0 - 2.0 / (9.0 * a) - term) / (2.0 / (9.0 * a)).sqrt()
}

/// The two-sided p-value of a standard normal statistic.
pub(super) fn two_sided(z: f64) -> f64 {
    2.0 * special::normal_survival(z.abs())
}
