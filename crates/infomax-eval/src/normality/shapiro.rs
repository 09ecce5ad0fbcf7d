//! The test of Shapiro and Wilk.

use super::{NormalityTest, standardized, ties};
use crate::estimate::Doubt;
use crate::{Result, special};

/// The test of Shapiro and Wilk (1965) by Royston's algorithm AS R94 (1995), which `scipy.stats.shapiro` and R's
/// `shapiro.test` follow: `W` is the squared correlation of the sorted values with approximate coefficients, and
/// `ln(1 - W)` is normal with moments fitted for `n` up to 5,000.
///
/// # Errors
/// Fewer than three values, values that are not finite, or no spread.
pub fn shapiro_wilk(x: &[f64]) -> Result<NormalityTest> {
    let mut z = standardized("shapiro_wilk", x, 3, 0.0)?;
    z.sort_by(f64::total_cmp);
    let n = z.len();
    let weights = weights(n);
    // The squared correlation as 1 - W, so that values near 1 keep their digits.
    let (mut sa, mut sx, mut sax) = (0.0, 0.0, 0.0);
    let range = z[n - 1] - z[0];
    let mean = z.iter().sum::<f64>() / n as f64 / range;
    for (i, v) in z.iter().enumerate() {
        let a = match i.cmp(&(n - 1 - i)) {
            std::cmp::Ordering::Less => -weights[i],
            std::cmp::Ordering::Equal => 0.0,
            std::cmp::Ordering::Greater => weights[n - 1 - i],
        };
        let x = v / range - mean;
        sa += a * a;
        sx += x * x;
        sax += a * x;
    }
    let root = (sa * sx).sqrt();
    let rest = ((root - sax) * (root + sax) / (sa * sx)).max(0.0);
    let statistic = 1.0 - rest;
    let large = (n > 5000)
        .then(|| Doubt::new("many-samples", format!("{n} values; the p-value was fitted for at most 5,000")));
    let doubts = large.into_iter().chain(ties(x)).collect();
    Ok(NormalityTest { statistic, p_value: p_value(rest, n), n, doubts })
}

/// The weights of the upper half, largest first.
fn weights(n: usize) -> Vec<f64> {
    const C1: [f64; 6] = [0.0, 0.221157, -0.147981, -2.07119, 4.434685, -2.706056];
    const C2: [f64; 6] = [0.0, 0.042981, -0.293762, -1.752461, 5.682633, -3.582633];
    if n == 3 {
        return vec![0.5f64.sqrt()];
    }
    let size = n as f64;
    let mut m: Vec<f64> = (1..=n / 2).map(|i| quantile((i as f64 - 0.375) / (size + 0.25))).collect();
    let sum = 2.0 * m.iter().map(|v| v * v).sum::<f64>();
    let (root, r) = (sum.sqrt(), 1.0 / size.sqrt());
    let first = poly(&C1, r) - m[0] / root;
    let (kept, factor);
    if n > 5 {
        let second = poly(&C2, r) - m[1] / root;
        let rest = sum - 2.0 * m[0] * m[0] - 2.0 * m[1] * m[1];
        factor = (rest / (1.0 - 2.0 * first * first - 2.0 * second * second)).sqrt();
        kept = vec![first, second];
    } else {
        factor = ((sum - 2.0 * m[0] * m[0]) / (1.0 - 2.0 * first * first)).sqrt();
        kept = vec![first];
    }
    m.iter_mut().for_each(|v| *v = -*v / factor);
    m[..kept.len()].copy_from_slice(&kept);
    m
}

fn p_value(rest: f64, n: usize) -> f64 {
    const G: [f64; 2] = [-2.273, 0.459];
    const C3: [f64; 4] = [0.544, -0.39978, 0.025054, -6.714e-4];
    const C4: [f64; 4] = [1.3822, -0.77857, 0.062767, -0.0020322];
    const C5: [f64; 4] = [-1.5861, -0.31082, -0.083751, 0.0038915];
    const C6: [f64; 3] = [-0.4803, -0.082676, 0.0030302];
    let (size, y) = (n as f64, rest.ln());
    if n == 3 {
        let w = 1.0 - rest;
        return (1.0 - 6.0 / std::f64::consts::PI * w.sqrt().min(1.0).acos()).clamp(0.0, 1.0);
    }
    let (y, mean, deviation) = if n <= 11 {
        let gamma = poly(&G, size);
        if y >= gamma {
            return 1e-19;
        }
        (-(gamma - y).ln(), poly(&C3, size), poly(&C4, size).exp())
    } else {
        (y, poly(&C5, size.ln()), poly(&C6, size.ln()).exp())
    };
    special::normal_survival((y - mean) / deviation)
}

/// The normal quantile of AS 111 (Beasley and Springer 1977), precise to 1e-8. The fits of AS R94 were made with
/// it; a better one moves `W` by as much.
fn quantile(p: f64) -> f64 {
    const A: [f64; 4] = [2.50662823884, -18.61500062529, 41.39119773534, -25.44106049637];
    const B: [f64; 5] = [1.0, -8.4735109309, 23.08336743743, -21.06224101826, 3.13082909833];
    const C: [f64; 4] = [-2.78718931138, -2.29796479134, 4.85014127135, 2.32121276858];
    const D: [f64; 3] = [1.0, 3.54388924762, 1.63706781897];
    let q = p - 0.5;
    if q.abs() <= 0.42 {
        return q * poly(&A, q * q) / poly(&B, q * q);
    }
    let r = (-(p.min(1.0 - p)).ln()).sqrt();
    let value = poly(&C, r) / poly(&D, r);
    if q < 0.0 { -value } else { value }
}

/// The polynomial of ascending coefficients.
fn poly(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().rev().fold(0.0, |sum, c| sum * x + c)
}
