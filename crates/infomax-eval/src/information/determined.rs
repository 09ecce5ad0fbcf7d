//! Whether one variable is a function of the other as far as the rows show.

use super::continuous::{KsgConfig, Marginals, ksg};
use super::ties::Groups;
use super::tree::beside;
use crate::estimate::{choose, variance};
use crate::geometry::nearest;
use crate::matrix::Rows;
use crate::normality::whitened;
use infomax_core::Key;

/// How many dimensions both variables fill, apart and together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Filled {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) joint: f64,
}

/// Rows that are looked at.
const ROWS: usize = 2_000;
/// Dimensions that are missing of the joint, from which on rows lie on a surface in it.
const MISSING: f64 = 0.75;
/// The same after two standard errors.
const SURELY: f64 = 0.5;

/// The dimensions, where the rows of both variables together fill fewer than both do apart: they lie on a curve or surface, such as
/// `y = x^2` or a circle, so that the information of continuous variables is infinite. `None` where nothing shows that: a whole dimension
/// is missing where `y` is a function of `x`, none where there is noise wider than the distance to the nearest row.
///
/// Dimensions are by TwoNN (Facco et al., arXiv:1803.06992, by likelihood) of the columns after `asinh` in units of their deviation, which
/// tames tails and is smooth, made white: correlation alone flattens nothing then. Beside them the estimate of Kraskov and others must fall
/// from 2 to 16 neighbors as on a surface. At most 2,000 rows; at least 50, no more
/// dimensions than `2 log10 N` (Eckmann and Ruelle 1992), and columns without many ties.
pub(super) fn flat(x: &Rows, y: &Rows) -> Option<Filled> {
    if x.n < 50 {
        return None;
    }
    let rows = choose(Key::new(0).fold_named("dimension"), x.n, x.n.min(ROWS));
    let (x, y) = (smooth(&x.select(&rows)), smooth(&y.select(&rows)));
    // Values of a grid have no ratio of distances that says a dimension.
    let tied = |rows: &Rows| {
        (0..rows.d).any(|j| {
            let column = Rows { n: rows.n, d: 1, values: rows.column(j) };
            Groups::new(&column).with_more_than(1) * 100 > rows.n
        })
    };
    if tied(&x) || tied(&y) {
        return None;
    }
    let filled = Filled { x: dimension(&x)?, y: dimension(&y)?, joint: dimension(&beside(&[&x, &y]))? };
    let n = x.n as f64;
    let (apart, missing) = (filled.x + filled.y, filled.x + filled.y - filled.joint);
    // Each has a relative standard error of about 1.3 / sqrt(n): terms of near rows depend on each other.
    let error = 1.3 * (filled.x.powi(2) + filled.y.powi(2) + filled.joint.powi(2)).sqrt() / n.sqrt();
    let resolved = apart <= 2.0 * n.log10();
    if !resolved || missing <= MISSING || missing - 2.0 * error <= SURELY {
        return None;
    }
    // Narrow clusters fill dimensions only at their own scale. At that of the joint neighbors the estimate of Kraskov and others falls
    // by `missing / joint ln 8` from 2 to 16 neighbors on a surface, and little where a width or a cluster is seen.
    let at = |k: usize| {
        let cfg = KsgConfig { k, marginals: Marginals::Raw, ..KsgConfig::default() };
        ksg(&x, &y, &cfg).ok().map(|(value, _)| value)
    };
    let fall = at(2)? - at(16)?;
    (fall > 0.5 * missing / filled.joint * 8f64.ln()).then_some(filled)
}

/// `asinh` of the columns, centered, in units of their deviation.
fn smooth(rows: &Rows) -> Rows {
    let mut rows = rows.centered();
    let d = rows.d;
    for j in 0..d {
        let column = rows.column(j);
        let mut sizes: Vec<f64> = column.iter().map(|v| v.abs()).collect();
        sizes.sort_by(f64::total_cmp);
        // The median of the absolute values, unless half of them are alike.
        let middle = sizes[sizes.len() / 2];
        let scale = if middle > 0.0 { middle } else { variance(&column).sqrt() };
        rows.values.iter_mut().skip(j).step_by(d).for_each(|v| *v = (*v / scale).asinh());
    }
    rows.centered()
}

/// TwoNN by likelihood of the whitened rows, at most their columns; `None` where columns depend on each other or too few rows
/// are distinct.
fn dimension(rows: &Rows) -> Option<f64> {
    let white = whitened("dimension", &rows.tensor().ok()?).ok()?;
    let near = nearest("dimension", &white, 2).ok()?;
    let ratios = (0..white.n).map(|i| near.distances_of(i)).filter(|r| r[0] > 0.0);
    let logs: Vec<f64> = ratios.map(|r| (r[1] / r[0]).ln()).collect();
    if logs.len() < 40 {
        return None;
    }
    let count = logs.len() as f64;
    Some(((count - 1.0) / logs.iter().sum::<f64>()).min(rows.d as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn normal(seed: u64, n: usize, d: usize) -> Rows {
        let x = Key::new(seed).normal(0.0, 1.0, (n, d), DType::F64, &Device::Cpu).unwrap();
        Rows::read("t", "x", &x).unwrap()
    }

    fn map(rows: &Rows, d: usize, f: impl Fn(&[f64]) -> Vec<f64>) -> Rows {
        Rows { n: rows.n, d, values: rows.iter().flat_map(f).collect() }
    }

    #[test]
    fn functions_are_seen_and_noise_is_not() {
        let x = normal(1, 1_000, 1);
        type Function = fn(f64) -> f64;
        for f in
            [|v| v * v, |v: f64| (3.0 * v).sin(), |v: f64| v.abs(), |v: f64| v * v * v - v] as [Function; 4]
        {
            let y = map(&x, 1, |r| vec![f(r[0])]);
            let found = flat(&x, &y).unwrap();
            assert!(found.joint < 1.15 && flat(&y, &x).is_some(), "{found:?}");
            let noise = normal(2, 1_000, 1);
            let blurred = Rows {
                values: y.values.iter().zip(&noise.values).map(|(y, e)| y + 0.1 * e).collect(),
                ..y.clone()
            };
            assert_eq!(flat(&x, &blurred), None);
        }
        // Neither is a function of the other on a circle.
        let angle = normal(3, 1_000, 1);
        let cosine = map(&angle, 1, |r| vec![(9.0 * r[0]).cos()]);
        let sine = map(&angle, 1, |r| vec![(9.0 * r[0]).sin()]);
        assert!(flat(&cosine, &sine).is_some());
        // A column of two that is a function of both of the others, beside one that is noise.
        let (x, e) = (normal(4, 2_000, 2), normal(5, 2_000, 1));
        let y = Rows {
            n: 2_000,
            d: 2,
            values: x.iter().zip(&e.values).flat_map(|(x, e)| [x[0] * x[1], *e]).collect(),
        };
        assert!(flat(&x, &y).is_some());
        for d in [1, 2, 3] {
            assert_eq!(flat(&normal(6, 1_000, d), &normal(7, 1_000, d)), None);
        }
        // Five clusters of y that are much narrower than rows of x are apart tell a class, which is finite.
        let (x, e) = (normal(8, 1_000, 3), normal(9, 1_000, 1));
        let class = |i: usize| (i % 5) as f64;
        let rings = Rows {
            values: x
                .iter()
                .enumerate()
                .flat_map(|(i, r)| r.iter().map(move |v| v * (1.0 + class(i))))
                .collect(),
            ..x.clone()
        };
        let narrow = Rows {
            n: 1_000,
            d: 1,
            values: e.values.iter().enumerate().map(|(i, e)| class(i) + 0.02 * e).collect(),
        };
        assert_eq!(flat(&rings, &narrow), None);
        // Values of a grid say nothing.
        let grid = map(&x, 1, |r| vec![(20.0 * r[0]).round()]);
        assert_eq!(flat(&grid, &grid), None);
    }
}
