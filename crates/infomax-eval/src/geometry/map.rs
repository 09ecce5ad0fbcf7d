//! Maps in two dimensions: by principal axes, and by neighbors.

use crate::matrix::Rows;
use crate::{Error, Result};
use candle_core::Tensor;
use infomax_kernels::linalg;
use rayon::prelude::*;

/// Rows in two dimensions.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Map {
    /// A point for each row.
    pub points: Vec<(f64, f64)>,
    /// How it was made, in words.
    pub method: String,
}

/// How [`neighbor_map`] is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NeighborMapConfig {
    /// About how many neighbors of a row count: the perplexity. At most a third of the other rows.
    pub perplexity: f64,
    /// Steps of descent, of which the first third exaggerates attraction twelve times.
    pub steps: usize,
}

impl Default for NeighborMapConfig {
    /// Perplexity 30, 750 steps.
    fn default() -> Self {
        Self { perplexity: 30.0, steps: 750 }
    }
}

/// The largest number of rows of [`neighbor_map`], which holds all pairs.
const MOST_ROWS: usize = 5_000;

/// The scores on the first two principal axes of the centered rows `(N, D)`. The sign of an axis is such that the score
/// of the largest size is positive; a missing second axis gives zeros.
///
/// # Errors
/// Not a matrix, fewer than two rows, or values that are not finite.
pub fn principal_map(z: &Tensor) -> Result<Map> {
    let rows = Rows::read_at_least("principal_map", "z", z, 2)?;
    let (points, shares) = principal(&rows)?;
    let method = format!(
        "principal axes, which hold {:.1} % and {:.1} % of the variance",
        100.0 * shares[0],
        100.0 * shares[1]
    );
    Ok(Map { points, method })
}

/// t-SNE (van der Maaten and Hinton 2008) with all pairs, no approximation: conditional probabilities of normal
/// neighborhoods of one perplexity, made symmetric, against a Student distribution with one degree of freedom in the
/// plane. It starts from the principal axes scaled to the deviation 1e-4 and learns at the rate `max(N / 12, 50)` with
/// gains and momentum as scikit-learn does (Belkina et al. 2019; Kobak and Berens 2019), so that nothing is random.
/// Distances between far clusters and sizes of clusters mean little. `N^2` floats of memory, `N^2` operations a step;
/// the bits do not depend on the number of threads.
///
/// # Errors
/// Not a matrix, fewer than 8 or more than 5,000 rows, values that are not finite, or settings out of range.
pub fn neighbor_map(z: &Tensor, cfg: &NeighborMapConfig) -> Result<Map> {
    const OP: &str = "neighbor_map";
    let rows = Rows::read_at_least(OP, "z", z, 8)?;
    let n = rows.n;
    if n > MOST_ROWS {
        let reason = "all pairs are held: choose at most 5000 rows";
        return Err(Error::Config { key: "rows", value: n.to_string(), reason });
    }
    if !(cfg.perplexity > 1.0 && cfg.perplexity.is_finite()) {
        let reason = "must be above 1";
        return Err(Error::Config { key: "perplexity", value: cfg.perplexity.to_string(), reason });
    }
    let perplexity = cfg.perplexity.min((n as f64 - 1.0) / 3.0);
    let attraction = probabilities(&rows, perplexity);
    let (start, _) = principal(&rows)?;
    let points = descend(&attraction, &start, cfg.steps);
    Ok(Map { points, method: format!("t-SNE of all pairs, perplexity {perplexity:.0}, {} steps", cfg.steps) })
}

type Points = Vec<(f64, f64)>;

/// The scores on two axes, and the shares of the variance that these hold.
fn principal(rows: &Rows) -> Result<(Points, [f64; 2])> {
    let centered = rows.centered();
    let (n, d) = (rows.n, rows.d);
    let x = centered.tensor()?;
    let narrow = d <= n;
    let moment = if narrow { x.t()?.matmul(&x)? } else { x.matmul(&x.t()?)? };
    let (values, vectors) = linalg::eigh(&moment)?;
    let (values, vectors) = (values.to_vec1::<f64>()?, vectors.to_vec2::<f64>()?);
    let total: f64 = values.iter().map(|v| v.max(0.0)).sum();
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
    let score = |which: usize| -> Vec<f64> {
        let Some(&k) = order.get(which) else { return vec![0.0; n] };
        let mut scores: Vec<f64> = if narrow {
            centered.iter().map(|row| row.iter().zip(&vectors).map(|(x, v)| x * v[k]).sum()).collect()
        } else {
            vectors.iter().map(|v| v[k] * values[k].max(0.0).sqrt()).collect()
        };
        let largest = scores.iter().copied().fold(0.0f64, |a, b| if b.abs() > a.abs() { b } else { a });
        if largest < 0.0 {
            scores.iter_mut().for_each(|s| *s = -*s);
        }
        scores
    };
    let share = |which: usize| match order.get(which) {
        Some(&k) if total > 0.0 => values[k].max(0.0) / total,
        _ => 0.0,
    };
    Ok((score(0).into_iter().zip(score(1)).collect(), [share(0), share(1)]))
}

/// `(p_{j|i} + p_{i|j}) / 2N`, row by row.
fn probabilities(rows: &Rows, perplexity: f64) -> Vec<f32> {
    let n = rows.n;
    let conditional: Vec<Vec<f64>> = (0..n)
        .into_par_iter()
        .map(|i| {
            let own = rows.row(i);
            let mut squares: Vec<f64> = rows
                .iter()
                .map(|other| own.iter().zip(other).map(|(a, b)| (a - b) * (a - b)).sum())
                .collect();
            squares[i] = f64::INFINITY;
            // Differences to the nearest, so that the largest weight is 1.
            let least = squares.iter().copied().fold(f64::INFINITY, f64::min);
            squares.iter_mut().for_each(|s| *s -= least);
            weights(&squares, perplexity)
        })
        .collect();
    let mut joint = vec![0.0f32; n * n];
    joint.par_chunks_mut(n).enumerate().for_each(|(i, out)| {
        for (j, p) in out.iter_mut().enumerate() {
            *p = ((conditional[i][j] + conditional[j][i]) / (2.0 * n as f64)) as f32;
        }
    });
    joint
}

/// `exp(-beta s)` over their sum, with `beta` such that the entropy is that of `perplexity` equal weights.
fn weights(squares: &[f64], perplexity: f64) -> Vec<f64> {
    let target = perplexity.ln();
    let entropy = |beta: f64| {
        let (mut sum, mut mean) = (0.0, 0.0);
        for s in squares.iter().filter(|s| s.is_finite()) {
            let w = (-beta * s).exp();
            sum += w;
            mean += w * s;
        }
        f64::ln(sum) + beta * mean / sum
    };
    let typical = squares.iter().copied().filter(|s| s.is_finite() && *s > 0.0).fold(f64::INFINITY, f64::min);
    let mut beta = if typical.is_finite() { 1.0 / typical } else { 1.0 };
    let (mut low, mut high) = (0.0, f64::INFINITY);
    for _ in 0..100 {
        let h = entropy(beta);
        if (h - target).abs() < 1e-6 {
            break;
        }
        if h > target {
            low = beta;
            beta = if high.is_finite() { 0.5 * (low + high) } else { beta * 2.0 };
        } else {
            high = beta;
            beta = 0.5 * (low + high);
        }
    }
    let raw: Vec<f64> = squares.iter().map(|s| if s.is_finite() { (-beta * s).exp() } else { 0.0 }).collect();
    let sum: f64 = raw.iter().sum();
    raw.into_iter().map(|w| w / sum).collect()
}

const LANES: usize = 8;

/// What a row feels: attraction and repulsion along both axes, and its part of the normalizer.
fn forces(p: &[f32], xs: &[f32], ys: &[f32], i: usize) -> [f32; 5] {
    // Sums in lanes: one order, and vector code.
    let mut sums = [[0.0f32; LANES]; 5];
    let (x, y) = (xs[i], ys[i]);
    let mut add = |lane: usize, p: f32, ox: f32, oy: f32| {
        let (dx, dy) = (x - ox, y - oy);
        let near = 1.0 / (1.0 + dx * dx + dy * dy);
        let pull = p * near;
        sums[0][lane] += pull * dx;
        sums[1][lane] += pull * dy;
        sums[2][lane] += near * near * dx;
        sums[3][lane] += near * near * dy;
        sums[4][lane] += near;
    };
    let whole = p.len() / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let (p, xs, ys) = (&p[at..at + LANES], &xs[at..at + LANES], &ys[at..at + LANES]);
        for lane in 0..LANES {
            add(lane, p[lane], xs[lane], ys[lane]);
        }
    }
    for at in whole..p.len() {
        add(at - whole, p[at], xs[at], ys[at]);
    }
    let mut out = sums.map(|lanes| lanes.iter().sum::<f32>());
    out[4] -= 1.0; // Of the row with itself.
    out
}

fn descend(attraction: &[f32], start: &[(f64, f64)], steps: usize) -> Vec<(f64, f64)> {
    let n = start.len();
    let spread = (start.iter().map(|p| p.0 * p.0).sum::<f64>() / n as f64).sqrt();
    let scale = if spread > 0.0 { 1e-4 / spread } else { 0.0 };
    let mut at = [
        start.iter().map(|p| (p.0 * scale) as f32).collect::<Vec<f32>>(),
        start.iter().map(|p| (p.1 * scale) as f32).collect(),
    ];
    let mut speed = [vec![0.0f32; n], vec![0.0; n]];
    let mut gain = [vec![1.0f32; n], vec![1.0; n]];
    let rate = (n as f32 / 12.0).max(50.0);
    for step in 0..steps {
        let early = step < steps / 3;
        let (exaggeration, momentum) = if early { (12.0, 0.5) } else { (1.0, 0.8) };
        let felt: Vec<[f32; 5]> = (0..n)
            .into_par_iter()
            .map(|i| forces(&attraction[i * n..(i + 1) * n], &at[0], &at[1], i))
            .collect();
        let normalizer = felt.iter().map(|f| f64::from(f[4])).sum::<f64>().max(1e-12) as f32;
        for axis in 0..2 {
            for i in 0..n {
                let gradient = 4.0 * (exaggeration * felt[i][axis] - felt[i][axis + 2] / normalizer);
                let g = &mut gain[axis][i];
                *g = if (gradient > 0.0) == (speed[axis][i] > 0.0) { (*g * 0.8).max(0.01) } else { *g + 0.2 };
                speed[axis][i] = momentum * speed[axis][i] - rate * *g * gradient;
            }
            let mean = {
                let moved = at[axis].iter_mut().zip(&speed[axis]);
                moved.for_each(|(x, v)| *x += v);
                at[axis].iter().map(|x| f64::from(*x)).sum::<f64>() / n as f64
            };
            at[axis].iter_mut().for_each(|x| *x -= mean as f32);
        }
    }
    at[0].iter().zip(&at[1]).map(|(x, y)| (f64::from(*x), f64::from(*y))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use infomax_core::Key;

    fn normal(seed: u64, n: usize, d: usize) -> Vec<Vec<f64>> {
        let z = Key::new(seed).normal(0.0, 1.0, (n, d), DType::F64, &Device::Cpu).unwrap();
        z.to_vec2().unwrap()
    }

    fn tensor(rows: Vec<Vec<f64>>) -> Tensor {
        Tensor::new(rows, &Device::Cpu).unwrap()
    }

    #[test]
    fn principal_axes_are_those_of_the_largest_spread_in_both_shapes() {
        // Known scores: 5 on one column, 2 on another, little elsewhere.
        for (n, d) in [(60, 6), (20, 40)] {
            let mut rows = normal(1, n, d);
            for (i, row) in rows.iter_mut().enumerate() {
                row.iter_mut().for_each(|v| *v *= 1e-3);
                row[3] = 5.0 * (i as f64 / n as f64 - 0.5) + 7.0;
                row[1] = if i % 2 == 0 { 0.3 } else { -0.3 };
            }
            let map = principal_map(&tensor(rows)).unwrap();
            let size: f64 = map.points.iter().map(|p| p.1.abs()).sum::<f64>() / n as f64;
            assert!((map.points[n - 1].0 - map.points[0].0).abs() > 4.0, "{map:?}");
            assert!((size - 0.3).abs() < 0.1, "{size}");
            assert!(map.points.iter().map(|p| p.0).sum::<f64>().abs() < 1e-9, "centered");
        }
    }

    #[test]
    fn weights_have_the_perplexity() {
        let squares: Vec<f64> =
            (0..50).map(|k| if k == 7 { f64::INFINITY } else { f64::from(k) * 0.37 }).collect();
        let p = weights(&squares, 9.0);
        let entropy: f64 = p.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        assert!((entropy.exp() - 9.0).abs() < 1e-4 && p[7] == 0.0, "{entropy}");
        // All the same distance: equal weights, whatever is asked for.
        assert!(weights(&[0.0; 10], 3.0).iter().all(|p| (p - 0.1).abs() < 1e-12));
    }

    #[test]
    fn forces_are_the_gradient_of_the_divergence() {
        let n = 13;
        let rows = Rows::read("test", "z", &tensor(normal(2, n, 4))).unwrap();
        let p = probabilities(&rows, 3.0);
        assert!((p.iter().map(|p| f64::from(*p)).sum::<f64>() - 1.0).abs() < 1e-5);
        let at = normal(3, 2, n);
        let divergence = |at: &[Vec<f64>]| {
            let near = |i: usize, j: usize| {
                1.0 / (1.0 + (at[0][i] - at[0][j]).powi(2) + (at[1][i] - at[1][j]).powi(2))
            };
            let pairs: Vec<(usize, usize)> =
                (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).filter(|(i, j)| i != j).collect();
            let sum: f64 = pairs.iter().map(|(i, j)| near(*i, *j)).sum();
            pairs.iter().map(|(i, j)| -f64::from(p[i * n + j]) * (near(*i, *j) / sum).ln()).sum::<f64>()
        };
        let narrow: Vec<Vec<f32>> = at.iter().map(|a| a.iter().map(|v| *v as f32).collect()).collect();
        let felt: Vec<[f32; 5]> =
            (0..n).map(|i| forces(&p[i * n..(i + 1) * n], &narrow[0], &narrow[1], i)).collect();
        let normalizer: f32 = felt.iter().map(|f| f[4]).sum();
        for axis in 0..2 {
            for i in 0..n {
                let (mut up, mut down) = (at.clone(), at.clone());
                up[axis][i] += 1e-5;
                down[axis][i] -= 1e-5;
                let numeric = (divergence(&up) - divergence(&down)) / 2e-5;
                let ours = 4.0 * (felt[i][axis] - felt[i][axis + 2] / normalizer);
                assert!((numeric - f64::from(ours)).abs() < 1e-4, "{numeric} {ours}");
            }
        }
    }

    #[test]
    fn clusters_stay_together_and_noise_makes_none() {
        let cfg = NeighborMapConfig { perplexity: 10.0, steps: 300 };
        // The share of rows whose nearest neighbor in the map is of the own class.
        let agreement = |rows: Vec<Vec<f64>>| {
            let map = neighbor_map(&tensor(rows), &cfg).unwrap();
            assert!(map.points.iter().all(|p| p.0.is_finite() && p.1.is_finite()));
            let square = |a: (f64, f64), b: (f64, f64)| (a.0 - b.0).powi(2) + (a.1 - b.1).powi(2);
            let own = |i: usize| {
                let others = (0..map.points.len()).filter(|j| *j != i);
                let near = others.min_by(|a, b| {
                    square(map.points[i], map.points[*a]).total_cmp(&square(map.points[i], map.points[*b]))
                });
                near.unwrap() % 3 == i % 3
            };
            (0..map.points.len()).filter(|i| own(*i)).count() as f64 / map.points.len() as f64
        };
        let apart = |shift: f64| {
            let mut rows = normal(4, 120, 10);
            rows.iter_mut().enumerate().for_each(|(i, row)| row[i % 3] += shift);
            rows
        };
        assert!(agreement(apart(8.0)) > 0.95);
        assert!(agreement(apart(0.0)) < 0.6);
    }

    #[test]
    fn the_same_bits_for_any_number_of_threads_and_rows_that_coincide_are_borne() {
        let cfg = NeighborMapConfig { perplexity: 5.0, steps: 60 };
        let z = tensor(normal(5, 70, 5));
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| neighbor_map(&z, &cfg)).unwrap()
        };
        assert_eq!(on(1), on(3));
        let same = neighbor_map(&tensor(vec![vec![1.0, 2.0]; 9]), &cfg).unwrap();
        assert!(same.points.iter().all(|p| *p == (0.0, 0.0)));
        assert!(neighbor_map(&tensor(normal(6, 5, 2)), &cfg).is_err());
        let wrong = NeighborMapConfig { perplexity: f64::NAN, ..cfg };
        assert!(neighbor_map(&z, &wrong).is_err());
    }
}
