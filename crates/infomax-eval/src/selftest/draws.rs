//! Rows of the distributions that tasks are made of, and the maps that leave information as it is.

use crate::matrix::Rows;
use crate::special::{normal_quantile, normal_survival};
use infomax_core::Key;
use rand::RngExt as _;
use statrs::function::gamma::digamma;

/// Standard normal rows.
pub(super) fn normal(key: Key, n: usize, d: usize) -> Rows {
    let mut rng = key.rng();
    // By the quantile: one number a draw, whatever the distribution of later ones.
    let values = (0..n * d)
        .map(|_| normal_quantile((rng.random::<f64>() + 2f64.powi(-54)).min(1.0 - 1e-16)))
        .collect();
    Rows { n, d, values }
}

/// Uniform numbers of `[0, 1)`.
pub(super) fn uniform(key: Key, n: usize) -> Vec<f64> {
    let mut rng = key.rng();
    (0..n).map(|_| rng.random::<f64>()).collect()
}

/// `d` columns on both sides, of which the first ones are correlated in pairs.
pub(super) fn paired(key: Key, n: usize, dx: usize, dy: usize, rho: &[f64]) -> (Rows, Rows) {
    let (x, mut y) = (normal(key.fold_in(0), n, dx), normal(key.fold_in(1), n, dy));
    for i in 0..n {
        for (j, r) in rho.iter().enumerate() {
            let at = i * dy + j;
            y.values[at] = r * x.values[i * dx + j] + (1.0 - r * r).sqrt() * y.values[at];
        }
    }
    (x, y)
}

/// All columns of both sides with the correlation `rho` to each other.
pub(super) fn dense(key: Key, n: usize, dx: usize, dy: usize, rho: f64) -> (Rows, Rows) {
    let (mut x, mut y, common) =
        (normal(key.fold_in(0), n, dx), normal(key.fold_in(1), n, dy), normal(key.fold_in(2), n, 1));
    for (rows, d) in [(&mut x, dx), (&mut y, dy)] {
        for (i, row) in rows.values.chunks_exact_mut(d).enumerate() {
            row.iter_mut().for_each(|v| *v = rho.sqrt() * common.values[i] + (1.0 - rho).sqrt() * *v);
        }
    }
    (x, y)
}

/// The information of [`dense`]: the block of ones times `rho` gives `ln det = (d - 1) ln(1 - rho) + ln(1 + (d - 1) rho)`.
pub(super) fn dense_information(dx: usize, dy: usize, rho: f64) -> f64 {
    let half = |d: usize| 0.5 * ((d as f64 - 1.0) * (1.0 - rho).ln() + (1.0 + (d as f64 - 1.0) * rho).ln());
    half(dx) + half(dy) - half(dx + dy)
}

/// Student's distribution with the identity as dispersion: normal rows times a common `sqrt(nu / chi^2_nu)`.
pub(super) fn student(key: Key, n: usize, dx: usize, dy: usize, nu: usize) -> (Rows, Rows) {
    student_paired(key, n, [dx, dy], nu, &[])
}

/// [`student`] with pairs of correlated columns: their normal information is added to that of the common scale.
pub(super) fn student_paired(
    key: Key,
    n: usize,
    [dx, dy]: [usize; 2],
    nu: usize,
    rho: &[f64],
) -> (Rows, Rows) {
    let (mut x, mut y) = paired(key, n, dx, dy, rho);
    let chi = normal(key.fold_in(2), n, nu);
    for i in 0..n {
        let scale = (nu as f64 / chi.row(i).iter().map(|v| v * v).sum::<f64>()).sqrt();
        x.values[i * dx..(i + 1) * dx].iter_mut().for_each(|v| *v *= scale);
        y.values[i * dy..(i + 1) * dy].iter_mut().for_each(|v| *v *= scale);
    }
    (x, y)
}

/// A map of every element.
pub(super) fn each(mut rows: Rows, f: impl Fn(f64) -> f64) -> Rows {
    rows.values.iter_mut().for_each(|v| *v = f(*v));
    rows
}

pub(super) fn cdf(x: f64) -> f64 {
    1.0 - normal_survival(x)
}

pub(super) fn half_cube(x: f64) -> f64 {
    x * x.abs().sqrt()
}

/// Turns the planes of the columns (0, 1) and (1, 2) by angles that grow with the squared length of a row.
pub(super) fn spiral(mut rows: Rows) -> Rows {
    let d = rows.d;
    for row in rows.values.chunks_exact_mut(d) {
        let angle = row.iter().map(|v| v * v).sum::<f64>() / d as f64;
        let (s, c) = angle.sin_cos();
        for (a, b) in [(0, 1), (1, 2)] {
            let (p, q) = (row[a], row[b]);
            // The generator of the rotation has +1 above the diagonal: both planes turn alike.
            row[a] = c * p + s * q;
            row[b] = -s * p + c * q;
        }
    }
    rows
}

/// Turns the plane by `speed` times the squared length of a row.
pub(super) fn spiral_plane(mut rows: Rows, speed: f64) -> Rows {
    for row in rows.values.chunks_exact_mut(2) {
        let (s, c) = (speed * (row[0] * row[0] + row[1] * row[1])).sin_cos();
        (row[0], row[1]) = (c * row[0] - s * row[1], s * row[0] + c * row[1]);
    }
    rows
}

/// `d` pairs of a uniform column and the same plus uniform noise of `(-e, e)`.
pub(super) fn smoothed(key: Key, n: usize, d: usize, e: f64) -> (Rows, Rows) {
    let x = uniform(key.fold_in(0), n * d);
    let noise = uniform(key.fold_in(1), n * d);
    let y = x.iter().zip(noise).map(|(x, u)| x + e * (2.0 * u - 1.0)).collect();
    (Rows { n, d, values: x }, Rows { n, d, values: y })
}

/// The information of one pair of [`smoothed`].
pub(super) fn smoothed_information(e: f64) -> f64 {
    if e > 0.5 { 0.25 / e } else { e - (2.0 * e).ln() }
}

/// `d` pairs of the logarithms of `X ~ Gamma(shape)` and `Y | X ~ Exp(X)` (the gamma-exponential pair of
/// arXiv:cond-mat/0305641; logarithms, as small shapes underflow).
pub(super) fn log_gamma_exponential(key: Key, n: usize, d: usize, shape: f64) -> (Rows, Rows) {
    let mut rng = key.rng();
    let (mut x, mut y) = (Vec::with_capacity(n * d), Vec::with_capacity(n * d));
    for _ in 0..n * d {
        let mut log = || (1.0 - rng.random::<f64>()).ln();
        // Gamma(a) = Gamma(a + 1) U^(1/a), of which the first factor is made by Marsaglia and Tsang's rejection.
        let small = log() / shape;
        let scale = shape + 1.0 - 1.0 / 3.0;
        let gamma = loop {
            let (u, v) = (log(), log());
            let z = (-2.0 * u).sqrt() * (std::f64::consts::TAU * v.exp()).cos();
            let cube = (1.0 + z / (3.0 * scale.sqrt())).powi(3);
            if cube > 0.0 && log() < 0.5 * z * z + scale * (1.0 - cube + cube.ln()) {
                break (scale * cube).ln();
            }
        };
        let log_x = gamma + small;
        x.push(log_x);
        y.push((-log()).ln() - log_x);
    }
    (Rows { n, d, values: x }, Rows { n, d, values: y })
}

/// The information of one pair of [`log_gamma_exponential`]: `psi(shape + 1) - ln shape`.
pub(super) fn gamma_exponential_information(shape: f64) -> f64 {
    digamma(shape + 1.0) - shape.ln()
}

/// The argument in `(1e-12, 1e6)` at which a falling function has the value.
pub(super) fn solve_falling(f: impl Fn(f64) -> f64, value: f64) -> f64 {
    let (mut low, mut high) = (1e-12f64.ln(), 1e6f64.ln());
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if f(middle.exp()) > value { low = middle } else { high = middle }
    }
    (0.5 * (low + high)).exp()
}

/// A column of `(0, 1)` rolled into the plane.
pub(super) fn swiss_roll(rows: &Rows) -> Rows {
    let roll = |u: &f64| {
        let t = 1.5 * std::f64::consts::PI * (1.0 + 2.0 * u);
        [t * t.cos() / 21.0, t * t.sin() / 21.0]
    };
    Rows { n: rows.n, d: 2, values: rows.values.iter().flat_map(roll).collect() }
}

/// A normal column becomes a mixture of two: the quantile function of the mixture, by bisection.
pub(super) fn bimodal(x: f64, weights: [f64; 2], means: [f64; 2], deviations: [f64; 2]) -> f64 {
    let target = cdf(x);
    let (mut low, mut high) = (-60.0f64, 60.0f64);
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        let mass: f64 = (0..2).map(|c| weights[c] * cdf((middle - means[c]) / deviations[c])).sum();
        if mass < target { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}
