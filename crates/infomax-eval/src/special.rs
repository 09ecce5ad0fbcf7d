//! Special functions, by `statrs` and `libm`.

use statrs::function::{beta, erf, gamma};
use std::f64::consts::SQRT_2;

pub(crate) use gamma::digamma;

/// `ln Gamma(x)` for `x > 0`.
pub(crate) fn ln_gamma(x: f64) -> f64 {
    libm::lgamma(x)
}

/// `P(N(0, 1) > x)`, precise in the tail.
pub(crate) fn normal_survival(x: f64) -> f64 {
    0.5 * libm::erfc(x / SQRT_2)
}

/// `ln P(N(0, 1) < x)`, finite for every finite `x`.
pub(crate) fn normal_ln_cdf(x: f64) -> f64 {
    if x > -30.0 {
        return normal_survival(-x).ln();
    }
    // The asymptotic series of the Mills ratio: its next term is below 1e-8 of the sum here.
    let y = 1.0 / (x * x);
    let series = 1.0 - y * (1.0 - 3.0 * y * (1.0 - 5.0 * y * (1.0 - 7.0 * y)));
    -0.5 * x * x - (-x).ln() - 0.5 * (2.0 * std::f64::consts::PI).ln() + series.ln()
}

/// The `p` quantile of `N(0, 1)`, `0 < p < 1`.
pub(crate) fn normal_quantile(p: f64) -> f64 {
    -SQRT_2 * erf::erfc_inv(2.0 * p)
}

/// The `p` quantile of Student's distribution with `df` degrees of freedom, `0 < p < 1`.
pub(crate) fn student_quantile(p: f64, df: f64) -> f64 {
    if p < 0.5 {
        return -student_quantile(1.0 - p, df);
    }
    // P(T > t) = 1/2 I_{df / (df + t^2)}(df / 2, 1/2), which falls in t.
    let tail = |t: f64| 0.5 * beta::checked_beta_reg(0.5 * df, 0.5, df / (df + t * t)).unwrap_or(f64::NAN);
    let (mut low, mut high) = (0.0f64, 1.0f64);
    while tail(high) > 1.0 - p && high < 1e12 {
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if tail(middle) > 1.0 - p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// `P(chi^2_df > x)`.
pub(crate) fn chi2_survival(x: f64, df: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    gamma::checked_gamma_ur(0.5 * df, 0.5 * x).unwrap_or(f64::NAN)
}

/// The log-volume of the unit ball of the Euclidean norm in `d` dimensions.
pub(crate) fn ln_ball(d: usize) -> f64 {
    let half = 0.5 * d as f64;
    half * std::f64::consts::PI.ln() - ln_gamma(half + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_tables() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12 * b.abs().max(1e-3), "{a} instead of {b}");
        close(digamma(1.0), -0.577_215_664_901_532_9);
        close(digamma(1e6), 1e6f64.ln() - 0.5e-6 - 1e-12 / 12.0);
        close(normal_survival(3.0), 1.349_898_031_630_094_6e-3);
        close(normal_quantile(0.975), 1.959_963_984_540_054);
        // In closed form for 1 and 2 degrees of freedom.
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9 * b.abs(), "{a} instead of {b}");
        near(student_quantile(0.95, 2.0), 0.9 / (2.0 * 0.95 * 0.05f64).sqrt());
        near(student_quantile(0.025, 1.0), -(0.475 * std::f64::consts::PI).tan());
        near(student_quantile(0.975, 9.0), 2.262_157_162_8);
        close(chi2_survival(3.0, 2.0), (-1.5f64).exp());
        close(ln_ball(3), (4.0 / 3.0 * std::f64::consts::PI).ln());
        // ln Phi is smooth where the series takes over.
        let (a, b) = (normal_ln_cdf(-29.999_999), normal_ln_cdf(-30.000_001));
        assert!((a - b - 2e-6 * 30.033).abs() < 1e-8, "{a} {b}");
        assert!(normal_ln_cdf(-1e10).is_finite());
    }
}
