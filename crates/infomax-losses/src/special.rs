//! Special functions: log-gamma, digamma, the logarithm of the modified Bessel function.

use std::f64::consts::PI;

/// `ln Gamma(x)` for `x > 0`, else NaN: Stirling's series after shifting the argument above 12.
pub fn ln_gamma(x: f64) -> f64 {
    if x.is_nan() || x <= 0.0 {
        return f64::NAN;
    }
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

/// `psi(x) = d/dx ln Gamma(x)` for `x > 0`, else NaN: the asymptotic series after shifting the argument above 12.
pub fn digamma(x: f64) -> f64 {
    if x.is_nan() || x <= 0.0 {
        return f64::NAN;
    }
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

/// `ln I_nu(x)` for `nu >= 0`, `x >= 0`; NaN for other arguments.
///
/// Up to `sqrt(nu^2 + x^2) = 200` from the power series, whose terms are all positive; above, from the uniform
/// expansion of Debye (DLMF 10.41), whose first term that is left out is below 1e-14 there. So the work does not
/// grow with the argument.
pub fn ln_bessel_i(nu: f64, x: f64) -> f64 {
    ln_bessel_scaled(nu, x) + x
}

/// `ln(e^-x I_nu(x))`, which keeps its digits where `ln I_nu(x)` is nearly `x`.
fn ln_bessel_scaled(nu: f64, x: f64) -> f64 {
    if nu.is_nan() || x.is_nan() || nu < 0.0 || x < 0.0 {
        return f64::NAN;
    }
    if x == 0.0 {
        return if nu == 0.0 { 0.0 } else { f64::NEG_INFINITY };
    }
    if let Some(debye) = Debye::new(nu, x) {
        // sqrt(nu^2 + x^2) - x, without the cancellation.
        let beyond = nu * (nu / (debye.root + x));
        let log = if nu == 0.0 { 0.0 } else { nu * (x.ln() - (nu + debye.root).ln()) };
        return beyond + log - 0.5 * (2.0 * PI).ln() - 0.5 * debye.root.ln() + debye.sum.ln_1p();
    }
    let quarter = 0.25 * x * x;
    // The largest term: quarter = k (nu + k).
    let peak = (0.5 * (nu.hypot(x) - nu)).floor().max(0.0);
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
    log_peak + sum.ln() - x
}

/// The sums of Debye's expansions at one place.
struct Debye {
    /// `sqrt(nu^2 + x^2)`.
    root: f64,
    /// `sum_k u_k(t) / nu^k`, `k >= 1`, with `t = nu / root`.
    sum: f64,
    /// `sum_k (v_k(t) - u_k(t)) / nu^k` of the expansion of the derivative.
    slope: f64,
}

impl Debye {
    /// The coefficients of `u_k(t) = t^k sum_j c_j t^(2j)`, and their common divisor.
    const U: [(f64, &[f64]); 5] = [
        (24.0, &[3.0, -5.0]),
        (1152.0, &[81.0, -462.0, 385.0]),
        (414_720.0, &[30_375.0, -369_603.0, 765_765.0, -425_425.0]),
        (39_813_120.0, &[4_465_125.0, -94_121_676.0, 349_922_430.0, -446_185_740.0, 185_910_725.0]),
        (
            6_688_604_160.0,
            &[
                1_519_035_525.0,
                -49_286_948_607.0,
                284_499_769_554.0,
                -614_135_872_350.0,
                566_098_157_625.0,
                -188_699_385_875.0,
            ],
        ),
    ];

    /// Where the expansion is exact to rounding. It is one in `1 / root`, so that it holds for `nu = 0` too.
    fn new(nu: f64, x: f64) -> Option<Self> {
        let root = nu.hypot(x);
        if root <= 200.0 {
            return None;
        }
        let (s, p) = (1.0 / root, (nu / root) * (nu / root));
        // v_(k+1) - u_(k+1) = -t (1 - t^2) (u_k / 2 + t u_k'), from the recurrences of both.
        let (mut sum, mut slope, mut power) = (0.0, -0.5 * s * (1.0 - p), s);
        for (k, (divisor, coefficients)) in Self::U.iter().enumerate() {
            let order = (k + 1) as f64;
            let (mut value, mut steep, mut tower) = (0.0, 0.0, 1.0);
            for (j, c) in coefficients.iter().enumerate() {
                value += c * tower;
                steep += c * (0.5 + order + 2.0 * j as f64) * tower;
                tower *= p;
            }
            sum += value / divisor * power;
            slope -= steep / divisor * power * s * (1.0 - p);
            power *= s;
        }
        Some(Self { root, sum, slope })
    }
}

/// The logarithm of the normalizing constant of the von Mises-Fisher density `C e^{kappa mu.x}` on the unit
/// sphere of `R^p`; minus the log-area of the sphere at `kappa = 0`. NaN for `p = 0` and a negative `kappa`.
pub fn vmf_ln_normalizer(p: usize, kappa: f64) -> f64 {
    vmf_ln_peak(p, kappa) - kappa
}

/// `ln C + kappa`, the logarithm of the largest value of the density of [`vmf_ln_normalizer`]: it keeps its digits
/// for a large `kappa`.
pub(crate) fn vmf_ln_peak(p: usize, kappa: f64) -> f64 {
    let half = 0.5 * p as f64;
    if kappa == 0.0 {
        return ln_gamma(half) - 2f64.ln() - half * PI.ln();
    }
    if p == 0 || kappa.is_nan() || kappa < 0.0 {
        return f64::NAN;
    }
    let nu = half - 1.0;
    // I_(-1/2) is the one of negative order, on the two points of the line: cosh.
    let bessel = if nu < 0.0 {
        0.5 * (2.0 / (PI * kappa)).ln() + (-2.0 * kappa).exp().ln_1p() - 2f64.ln()
    } else {
        ln_bessel_scaled(nu, kappa)
    };
    nu * kappa.ln() - half * (2.0 * PI).ln() - bessel
}

/// The entropy of a von Mises-Fisher distribution on the unit sphere of `R^p`, in nats.
pub fn vmf_entropy(p: usize, kappa: f64) -> f64 {
    let half = 0.5 * p as f64;
    let nu = half - 1.0;
    // kappa (1 - A) with the mean cosine A = I_{p/2} / I_{p/2 - 1}.
    let debye = if nu >= 0.0 { Debye::new(nu, kappa) } else { None };
    let missing = match debye {
        // A = (root (1 + slope / (1 + sum)) - nu) / kappa.
        Some(debye) => {
            let beyond = nu * (nu / (debye.root + kappa));
            nu - beyond - debye.root * debye.slope / (1.0 + debye.sum)
        }
        // Of two points: the hyperbolic tangent.
        None if p == 1 => 2.0 * kappa / ((2.0 * kappa).exp() + 1.0),
        // Its continued fraction, which keeps the digits that logarithms would lose.
        None => {
            let mut mean = 0.0;
            if kappa > 0.0 {
                let terms = 60 + (2.0 * kappa) as u32;
                for k in (0..terms).rev() {
                    mean = 1.0 / (2.0 * (half + f64::from(k)) / kappa + mean);
                }
            }
            kappa * (1.0 - mean)
        }
    };
    missing - vmf_ln_peak(p, kappa)
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
        // At the edges and outside of the domains: an answer, and at once.
        assert_eq!((ln_bessel_i(0.0, 0.0), ln_bessel_i(2.0, 0.0)), (0.0, f64::NEG_INFINITY));
        for x in [-1.0, f64::NEG_INFINITY, f64::NAN] {
            assert!(ln_gamma(x).is_nan() && digamma(x).is_nan() && ln_bessel_i(1.0, x).is_nan());
        }
        let h = 1e-5;
        for x in [-12.0, -4.0, -1.0, 0.5, 2.9, 6.0] {
            let slope = (ln_normal_cdf(x + h) - ln_normal_cdf(x - h)) / (2.0 * h);
            assert!((slope - normal_hazard(-x)).abs() < 1e-7 * (1.0 + slope.abs()), "{x}: {slope}");
        }
    }

    /// `(nu, x, ln I_nu(x), the entropy on the sphere of R^(2 nu + 2))` in 60 digits by the power series.
    #[test]
    #[allow(clippy::excessive_precision)] // As they were computed.
    fn bessel_functions_of_large_arguments() {
        for (nu, x, log, entropy) in [
            (0.0, 150.0, 146.576_579_950_351_86, -1.084_704_035_662_978_7),
            (0.0, 201.0, 197.430_032_458_384_49, -1.231_465_466_372_455_6),
            (0.0, 250.0, 246.320_832_012_057_08, -1.340_788_908_928_480_6),
            (0.5, 1000.0, 995.627_183_827_304_29, -4.069_878_212_572_791_5),
            (1.5, 2e4, 19_994.129_267_689_277, -14.131_320_976_003_732),
            (3.0, 199.9, 196.310_212_290_331_66, -8.653_726_203_496_743_7),
            (3.0, 200.5, 196.908_779_607_778_34, -8.664_083_756_949_898_1),
            (31.0, 500.0, 495.012_353_918_084_78, -108.290_179_616_603_24),
            (63.0, 2e4, 19_994.030_096_541_985, -448.864_710_482_747_68),
            (511.0, 3.0, -2_472.625_082_245_609_1, -2_093.031_692_740_639_8),
            (511.0, 700.0, 516.388_223_739_654_56, -2_245.567_031_709_818_8),
        ] {
            let got = ln_bessel_i(nu, x);
            assert!((got - log).abs() < 1e-14 * (100.0 + log.abs()), "{nu} {x}: {got} {log}");
            let got = vmf_entropy((2.0 * nu) as usize + 2, x);
            assert!((got - entropy).abs() < 1e-12 * (1.0 + entropy.abs()), "{nu} {x}: {got} {entropy}");
        }
        // Arguments without end: no hang, and the entropy of a normal distribution of variance 1 / kappa.
        for p in [1, 2, 3, 64, 4096] {
            for kappa in [1e9, 1e17, 1e300] {
                let flat = (p as f64 - 1.0) * 0.5 * (2.0 * PI * std::f64::consts::E / kappa).ln();
                let flat = if p == 1 { 0.0 } else { flat };
                let got = vmf_entropy(p, kappa);
                assert!((got - flat).abs() < 1e-2 * (1.0 + flat.abs() * 1e-9), "{p} {kappa}: {got} {flat}");
                assert!(vmf_ln_normalizer(p, kappa).is_finite());
            }
        }
    }
}
