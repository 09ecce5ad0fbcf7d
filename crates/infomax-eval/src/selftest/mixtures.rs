//! Mixtures of normal pairs: their information has no closed form, and is an integral over their known densities.

use super::Task;
use super::draws::{normal, spiral_plane, uniform};
use crate::matrix::Rows;
use infomax_core::Key;

/// The mixtures of `bmi` (bend-and-mix models; Czyz, Grabowski, Vogt, Beerenwinkel and Marx, arXiv:2310.10240), as in the second version
/// of that benchmark: `X`, `AI`, waves, galaxy, concentric balls, and two normal pairs of which a share is independent.
///
/// A truth is the mean of `ln p(x, y) - ln p(x) - ln p(y)` over four million draws, with a standard error
/// below 0.0006, by `tests/golden/mi/mixtures.py`.
/// Maps of `x` alone (the waves, the spiral of the galaxy) leave it as it is.
pub(super) fn mixtures() -> Vec<Task> {
    let mut all = vec![
        task("1v1-X-0.9", 0.408_41, x(0.9), |x| x),
        task("1v1-AI", 0.775_35, ai(), |x| x),
        task("2v1-waves-12-5.0-3.0", 1.306_94, waves(), wave),
        task("2v1-galaxy-0.5-3.0", 0.493_91, galaxy(), |x| spiral_plane(x, 0.5)),
    ];
    // Truths in the order of the list; the more columns, the more of `ln n` they tell.
    for (d, n, truth) in
        [(3, 5, 0.455_53), (5, 5, 0.627_18), (3, 10, 0.560_13), (5, 10, 0.751_34), (25, 5, 1.190_86)]
    {
        all.push(task(&format!("{d}v1-concentric_gaussians-{n}"), truth, concentric(d, n), |x| x));
    }
    // Ten clusters that both sides show, and nothing else in common: what embeddings with classes are like.
    for d in [2, 4, 16] {
        all.push(task(&format!("clusters-{d}-{d}"), 10f64.ln(), clusters(d), |x| x));
    }
    // Columns beyond the two pairs are noise, so that the truth does not depend on their number.
    for (share, truth) in [(0.2, 0.637_08), (0.5, 0.270_12)] {
        for d in [5, 25] {
            let name = format!("mult-sparse-w-inliers-{d}-{d}-2-2.0-{share}");
            all.push(task(&name, truth, inliers(d, share), |x| x));
        }
    }
    all
}

/// One normal pair `(x, y)` of a mixture: independent columns, but for `rho`, the correlation of the first columns of
/// both sides, pair by pair.
#[derive(Clone)]
struct Part {
    weight: f64,
    mean: [Vec<f64>; 2],
    deviation: [Vec<f64>; 2],
    rho: Vec<f64>,
}

impl Part {
    /// With variances, as the benchmark writes them.
    fn new(weight: f64, mean: [&[f64]; 2], variance: [&[f64]; 2], rho: &[f64]) -> Self {
        let root = |v: &[f64]| v.iter().map(|v| v.sqrt()).collect();
        Self { weight, mean: mean.map(<[f64]>::to_vec), deviation: variance.map(root), rho: rho.to_vec() }
    }
}

fn task(name: &str, truth: f64, parts: Vec<Part>, map: fn(Rows) -> Rows) -> Task {
    Task::of_rows(name, "mixture", truth, move |key, n| {
        let (x, y) = draw(&parts, key, n);
        (map(x), y)
    })
}

fn draw(parts: &[Part], key: Key, n: usize) -> (Rows, Rows) {
    let [dx, dy] = parts.first().map_or([0; 2], |p| p.mean.each_ref().map(Vec::len));
    let (mut x, mut y) = (normal(key.fold_in(0), n, dx), normal(key.fold_in(1), n, dy));
    for (i, u) in uniform(key.fold_in(2), n).into_iter().enumerate() {
        let mut below = 0.0;
        let part = parts.iter().find(|p| {
            below += p.weight;
            u < below
        });
        // Weights that sum to a little less than 1.
        let Some(part) = part.or(parts.last()) else { continue };
        let (x, y) = (&mut x.values[i * dx..(i + 1) * dx], &mut y.values[i * dy..(i + 1) * dy]);
        for (j, r) in part.rho.iter().enumerate() {
            y[j] = r * x[j] + (1.0 - r * r).sqrt() * y[j];
        }
        for (side, row) in [x, y].into_iter().enumerate() {
            for (j, v) in row.iter_mut().enumerate() {
                *v = part.mean[side][j] + part.deviation[side][j] * *v;
            }
        }
    }
    (x, y)
}

fn x(rho: f64) -> Vec<Part> {
    [-rho, rho].map(|r| Part::new(0.5, [&[0.0]; 2], [&[1.0]; 2], &[r])).into()
}

fn ai() -> Vec<Part> {
    let part = |mx: f64, my: f64, vx: f64, vy: f64, rho: f64| {
        Part::new(1.0 / 6.0, [&[mx], &[my]], [&[vx], &[vy]], &[rho])
    };
    vec![
        part(1.0, 0.0, 0.01, 0.2, 0.0),
        part(1.0, 1.0, 0.05, 0.001, 0.0),
        part(1.0, -1.0, 0.05, 0.001, 0.0),
        part(-0.8, -0.2, 0.03, 0.001, 0.0),
        part(-1.2, 0.0, 0.04, 0.2, 0.95),
        part(-0.4, 0.0, 0.04, 0.2, -0.95),
    ]
}

fn galaxy() -> Vec<Part> {
    [-1.5, 1.5].map(|m| Part::new(0.5, [&[m, m], &[m]], [&[1.0, 1.0], &[1.0]], &[])).into()
}

fn waves() -> Vec<Part> {
    (0..12)
        .map(|i| {
            let (at, level) = (1.5 * f64::from(i), 1.5 * f64::from(i % 4));
            Part::new(1.0 / 12.0, [&[at, 0.0], &[level]], [&[0.1, 1.0], &[0.1]], &[])
        })
        .collect()
}

fn wave(mut rows: Rows) -> Rows {
    for row in rows.values.chunks_exact_mut(2) {
        let bent = row[0] + 5.0 * (3.0 * row[1]).sin();
        (row[0], row[1]) = (0.1 * bent - 0.8, 0.5 * row[1]);
    }
    rows
}

fn concentric(d: usize, n: usize) -> Vec<Part> {
    (1..=n)
        .map(|i| {
            let i = i as f64;
            Part::new(1.0 / n as f64, [&vec![0.0; d], &[i]], [&vec![i * i; d], &[1e-4]], &[])
        })
        .collect()
}

/// Centers at distances of ten deviations and more from each other: the cluster is known from either side.
fn clusters(d: usize) -> Vec<Part> {
    let one = vec![1.0; d];
    let centers = |side: u64| {
        let rows = normal(Key::new(5).fold_named("clusters").fold_in(side), 10, d);
        // In the plane on a ring, where drawn ones would come near to each other.
        let ring = move |c: usize| {
            let angle = std::f64::consts::TAU * ((3 * c * (1 + 2 * side as usize)) % 10) as f64 / 10.0;
            vec![20.0 * angle.cos(), 20.0 * angle.sin()]
        };
        move |c: usize| if d == 2 { ring(c) } else { rows.row(c).iter().map(|v| 12.0 * v).collect() }
    };
    let (x, y) = (centers(0), centers(1));
    (0..10).map(|c| Part::new(0.1, [&x(c), &y(c)], [&one; 2], &[])).collect()
}

fn inliers(d: usize, share: f64) -> Vec<Part> {
    let (zero, one) = (vec![0.0; d], vec![1.0; d]);
    [(1.0 - share, &[0.8, 0.8] as &[f64]), (share, &[])]
        .map(|(weight, rho)| Part::new(weight, [&zero; 2], [&one; 2], rho))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ln` of the density of a mixture of normal pairs at `(x, y)`, and of both marginals.
    fn log_densities(parts: &[Part], row: [&[f64]; 2]) -> [f64; 3] {
        let terms = parts.iter().map(|p| {
            let score = |side: usize, j: usize| (row[side][j] - p.mean[side][j]) / p.deviation[side][j];
            let one = |side: usize| -> f64 {
                (0..row[side].len())
                    .map(|j| {
                        let z = score(side, j);
                        -0.5 * (z * z + std::f64::consts::TAU.ln()) - p.deviation[side][j].ln()
                    })
                    .sum()
            };
            let (px, py) = (one(0), one(1));
            let joint: f64 = p
                .rho
                .iter()
                .enumerate()
                .map(|(j, r)| {
                    let (a, b, s) = (score(0, j), score(1, j), 1.0 - r * r);
                    -0.5 * s.ln() - 0.5 * (r * r * (a * a + b * b) - 2.0 * r * a * b) / s
                })
                .sum();
            [px + py + joint, px, py].map(|l| l + p.weight.ln())
        });
        let terms: Vec<[f64; 3]> = terms.collect();
        [0, 1, 2].map(|k| {
            let most = terms.iter().map(|t| t[k]).fold(f64::NEG_INFINITY, f64::max);
            most + terms.iter().map(|t| (t[k] - most).exp()).sum::<f64>().ln()
        })
    }

    fn monte_carlo(parts: &[Part], n: usize) -> (f64, f64) {
        let (x, y) = draw(parts, Key::new(11), n);
        let values: Vec<f64> = (0..n)
            .map(|i| {
                let [joint, px, py] = log_densities(parts, [x.row(i), y.row(i)]);
                joint - px - py
            })
            .collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n as f64 - 1.0);
        (mean, (variance / n as f64).sqrt())
    }

    #[test]
    fn truths_are_the_means_of_the_pointwise_information() {
        let known = mixtures();
        let truth = |name: &str| known.iter().find(|t| t.name == name).unwrap().truth;
        for (name, parts) in [
            ("1v1-X-0.9", x(0.9)),
            ("1v1-AI", ai()),
            ("2v1-waves-12-5.0-3.0", waves()),
            ("2v1-galaxy-0.5-3.0", galaxy()),
            ("3v1-concentric_gaussians-5", concentric(3, 5)),
            ("5v1-concentric_gaussians-5", concentric(5, 5)),
            ("3v1-concentric_gaussians-10", concentric(3, 10)),
            ("5v1-concentric_gaussians-10", concentric(5, 10)),
            ("25v1-concentric_gaussians-5", concentric(25, 5)),
            ("clusters-2-2", clusters(2)),
            ("clusters-4-4", clusters(4)),
            ("clusters-16-16", clusters(16)),
            ("mult-sparse-w-inliers-5-5-2-2.0-0.2", inliers(5, 0.2)),
            ("mult-sparse-w-inliers-5-5-2-2.0-0.5", inliers(5, 0.5)),
        ] {
            let (mean, error) = monte_carlo(&parts, 40_000);
            assert!((mean - truth(name)).abs() < 4.0 * error + 0.001, "{name}: {mean} +- {error}");
        }
    }

    #[test]
    fn one_part_has_the_information_of_a_normal_pair() {
        let (mean, error) =
            monte_carlo(&[Part::new(1.0, [&[3.0], &[-1.0]], [&[4.0], &[0.25]], &[0.6])], 20_000);
        assert!((mean + 0.5 * 0.64f64.ln()).abs() < 4.0 * error, "{mean} +- {error}");
    }
}
