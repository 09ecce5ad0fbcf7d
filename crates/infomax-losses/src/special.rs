//! Special functions: log-gamma, digamma, the logarithm of the modified Bessel function.

use std::f64::consts::PI;

/// `ln Gamma(x)` for `x > 0`: Stirling's series after shifting the argument above 12.
pub fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 12.0 {
        shift += x.ln();
        x += 1.0;
    }
    let y = 1.0 / (x * x);
    let series = ((((-691.0 / 360_360.0 * y + 1.0 / 1188.0) * y - 1.0 / 1680.0) * y + 1.0 / 1260.0) * y
        - 1.0 / 360.0)
        * y
        + 1.0 / 12.0;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * PI).ln() + series / x - shift
}

/// `psi(x) = d/dx ln Gamma(x)` for `x > 0`: the asymptotic series after shifting the argument above 12.
pub fn digamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 12.0 {
        shift += 1.0 / x;
        x += 1.0;
    }
    let y = 1.0 / (x * x);
    let series =
        ((((691.0 / 32_760.0 * y - 1.0 / 132.0) * y + 1.0 / 240.0) * y - 1.0 / 252.0) * y + 1.0 / 120.0) * y
            - 1.0 / 12.0;
    x.ln() - 0.5 / x + series * y - shift
}

/// `ln I_nu(x)` for `nu >= 0`, `x > 0`, from the power series, whose terms are all positive.
pub fn ln_bessel_i(nu: f64, x: f64) -> f64 {
    let quarter = 0.25 * x * x;
    // The largest term: quarter = k (nu + k).
    let peak = (0.5 * ((nu * nu + x * x).sqrt() - nu)).floor().max(0.0);
    let log_peak = (2.0 * peak + nu) * (0.5 * x).ln() - ln_gamma(peak + 1.0) - ln_gamma(nu + peak + 1.0);
    let mut sum = 1.0;
    let (mut term, mut k) = (1.0, peak);
    while term > 1e-18 {
        k += 1.0;
        term *= quarter / (k * (nu + k));
        sum += term;
    }
    (term, k) = (1.0, peak);
    while k > 0.0 && term > 1e-18 {
        term *= k * (nu + k) / quarter;
        k -= 1.0;
        sum += term;
    }
    log_peak + sum.ln()
}

/// The logarithm of the normalizing constant of the von Mises-Fisher density `C e^{kappa mu.x}` on the unit
/// sphere of `R^p`; minus the log-area of the sphere at `kappa = 0`.
pub fn vmf_ln_normalizer(p: usize, kappa: f64) -> f64 {
    let half = 0.5 * p as f64;
    if kappa == 0.0 {
        return ln_gamma(half) - 2f64.ln() - half * PI.ln();
    }
    (half - 1.0) * kappa.ln() - half * (2.0 * PI).ln() - ln_bessel_i(half - 1.0, kappa)
}

/// The entropy of a von Mises-Fisher distribution on the unit sphere of `R^p`, in nats.
pub fn vmf_entropy(p: usize, kappa: f64) -> f64 {
    let half = 0.5 * p as f64;
    // I_{p/2} / I_{p/2 - 1} by its continued fraction, which keeps the digits that logarithms would lose.
    let mut mean = 0.0;
    if kappa > 0.0 {
        let terms = 60 + (2.0 * kappa) as u32;
        for k in (0..terms).rev() {
            mean = 1.0 / (2.0 * (half + f64::from(k)) / kappa + mean);
        }
    }
    -vmf_ln_normalizer(p, kappa) - kappa * mean
}

/// The error function, by its series below 3 and the continued fraction of its complement above.
pub fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a < 3.0 {
        let (mut term, mut sum, mut k) = (a, a, 0.0);
        while term.abs() > 1e-17 * sum.abs() {
            k += 1.0;
            term *= -a * a / k;
            sum += term / (2.0 * k + 1.0);
            if k > 200.0 {
                break;
            }
        }
        return (2.0 / PI.sqrt() * sum).copysign(x);
    }
    let mut fraction = 0.0;
    for k in (1..60).rev() {
        fraction = 0.5 * f64::from(k) / (a + fraction);
    }
    (1.0 - (-a * a).exp() / (PI.sqrt() * (a + fraction))).copysign(x)
}

/// `phi(x) / (1 - Phi(x))` of `N(0, 1)`: the hazard, `x + 1/x` for large `x`.
pub fn normal_hazard(x: f64) -> f64 {
    if x > 3.0 {
        // 1 - Phi(x) = phi(x) / (x + 1 / (x + 2 / (x + ...))).
        let mut fraction = 0.0;
        for k in (1..80).rev() {
            fraction = f64::from(k) / (x + fraction);
        }
        return x + fraction;
    }
    let tail = 0.5 * (1.0 - erf(x * std::f64::consts::FRAC_1_SQRT_2));
    (-0.5 * x * x).exp() / ((2.0 * PI).sqrt() * tail)
}

/// `ln Phi(x)` of `N(0, 1)`, without underflow: `-x^2 / 2 - ln(-x) - ...` for very negative `x`.
pub fn ln_normal_cdf(x: f64) -> f64 {
    let ln_density = -0.5 * x * x - 0.5 * (2.0 * PI).ln();
    if x < -3.0 {
        ln_density - normal_hazard(-x).ln()
    } else if x > 3.0 {
        (-(ln_density.exp() / normal_hazard(x))).ln_1p()
    } else {
        (0.5 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert!((ln_gamma(0.5) - 0.5 * PI.ln()).abs() < 1e-13);
        assert!((ln_gamma(11.0) - 3_628_800f64.ln()).abs() < 1e-12);
        assert!((digamma(1.0) + 0.577_215_664_901_532_9).abs() < 1e-13);
        assert!((ln_bessel_i(0.0, 1.0) - 1.266_065_877_752_008_4_f64.ln()).abs() < 1e-13);
        assert!((erf(1.0) - 0.842_700_792_949_714_9).abs() < 1e-14);
        assert!((erf(-2.5) + 0.999_593_047_982_555).abs() < 1e-13);
        // Abramowitz and Stegun, table 26.2: -log10 Q(5) = 6.54265, -log10 Q(20) = 88.56010.
        assert!((ln_normal_cdf(-5.0) + 6.542_65 * 10f64.ln()).abs() < 3e-5);
        assert!((ln_normal_cdf(-20.0) + 88.560_10 * 10f64.ln()).abs() < 3e-5);
        for x in [-3.0, 3.0] {
            // The two forms meet, in value and slope.
            let (below, above) = (ln_normal_cdf(x - 1e-9), ln_normal_cdf(x + 1e-9));
            assert!((below - above).abs() < 1e-7 * (1.0 + below.abs()), "{below} {above}");
            assert!((normal_hazard(x - 1e-9) / normal_hazard(x + 1e-9) - 1.0).abs() < 1e-8);
        }
        let h = 1e-5;
        for x in [-12.0, -4.0, -1.0, 0.5, 2.9, 6.0] {
            let slope = (ln_normal_cdf(x + h) - ln_normal_cdf(x - h)) / (2.0 * h);
            assert!((slope - normal_hazard(-x)).abs() < 1e-7 * (1.0 + slope.abs()), "{x}: {slope}");
        }
    }
}
