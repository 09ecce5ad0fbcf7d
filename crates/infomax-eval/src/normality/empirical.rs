//! Tests on the empirical distribution function and the empirical characteristic function.

use super::multivariate::bhep_p_value;
use super::{NormalityTest, standardized, ties};
use crate::estimate::Doubt;
use crate::{Result, special};

/// The test of Anderson and Darling (1954) with estimated mean and deviation (case 3):
/// `A^2 = -n - 1/n sum (2 i - 1) [ln Phi(z_i) + ln(1 - Phi(z_{n+1-i}))]`; the statistic is that of
/// `scipy.stats.anderson`.
///
/// The p-value is of the modified `A^2 (1 + 0.75 / n + 2.25 / n^2)` by the formulas of D'Agostino and Stephens
/// (1986, table 4.9), as R's `nortest` has it: at most 0.01 off around 0.05, and a bound below 1e-6.
///
/// # Errors
/// Fewer than eight values, values that are not finite, or no spread.
pub fn anderson_darling(x: &[f64]) -> Result<NormalityTest> {
    let mut z = standardized("anderson_darling", x, 8, 1.0)?;
    z.sort_by(f64::total_cmp);
    let n = z.len();
    let sum: f64 = (0..n)
        .map(|i| (2 * i + 1) as f64 * (special::normal_ln_cdf(z[i]) + special::normal_ln_cdf(-z[n - 1 - i])))
        .sum();
    let size = n as f64;
    let statistic = -size - sum / size;
    let a = statistic * (1.0 + 0.75 / size + 2.25 / (size * size));
    let p_value = if a < 0.2 {
        1.0 - (-13.436 + 101.14 * a - 223.73 * a * a).exp()
    } else if a < 0.34 {
        1.0 - (-8.318 + 42.796 * a - 59.938 * a * a).exp()
    } else if a < 0.6 {
        (0.9177 - 4.279 * a - 1.38 * a * a).exp()
    } else {
        // The parabola turns up again at a = 153; it is used below 10 only.
        let a = a.min(10.0);
        (1.2937 - 5.709 * a + 0.0186 * a * a).exp()
    };
    Ok(NormalityTest { statistic, p_value, n, doubts: ties(x).into_iter().collect() })
}

/// The test of Epps and Pulley (1983) on the empirical characteristic function, with estimated mean and biased
/// variance and the weight `exp(-t^2 / 2)`, in closed form:
/// `n [mean_ij exp(-(z_i - z_j)^2 / 2) - sqrt 2 mean_i exp(-z_i^2 / 4) + 1 / sqrt 3]`.
///
/// Consistent against every alternative. The p-value is by the log-normal limit of Henze and Zirkler (1990) for
/// one dimension and `beta = 1`. Cost `n^2`.
///
/// # Errors
/// Fewer than eight values, values that are not finite, or no spread.
pub fn epps_pulley(x: &[f64]) -> Result<NormalityTest> {
    let z = standardized("epps_pulley", x, 8, 0.0)?;
    let n = z.len() as f64;
    let mut pairs = 0.0;
    for (i, a) in z.iter().enumerate() {
        pairs += z[..i].iter().map(|b| (-0.5 * (a - b) * (a - b)).exp()).sum::<f64>();
    }
    let singles = z.iter().map(|a| (-0.25 * a * a).exp()).sum::<f64>() / n;
    let mean = (2.0 * pairs + n) / (n * n);
    let statistic = n * (mean - 2f64.sqrt() * singles + 1.0 / 3f64.sqrt());
    let few = (z.len() < 20)
        .then(|| Doubt::new("few-samples", format!("{} values; the limit is good from about 20", z.len())));
    let doubts = few.into_iter().chain(ties(x)).collect();
    Ok(NormalityTest { statistic, p_value: bhep_p_value(statistic, 1.0, 1), n: z.len(), doubts })
}
