//! Exact nearest neighbors by blocked matrix products.

use crate::matrix::Rows;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use rayon::prelude::*;
use serde::Serialize;

/// The distance between rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// `|x - y|_2`.
    #[default]
    Euclidean,
    /// `|x / |x| - y / |y||_2 = sqrt(2 - 2 cos)`: in the order of the cosine.
    Cosine,
}

/// The `k` nearest other rows of each row.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbors {
    /// The number of rows.
    pub n: usize,
    /// The columns of the data.
    pub dim: usize,
    /// Neighbors of each row.
    pub k: usize,
    /// `(N, k)`, row by row: the neighbors, the nearest first.
    pub indices: Vec<u32>,
    /// `(N, k)`, row by row: their distances, in f64 from differences of the rows.
    pub distances: Vec<f64>,
    /// Rows whose candidates were searched again in f64, as f32 products could not tell them apart.
    pub searched_again: usize,
}

impl Neighbors {
    /// The neighbors of a row.
    pub fn of(&self, row: usize) -> &[u32] {
        &self.indices[row * self.k..(row + 1) * self.k]
    }

    /// The distances of a row to its neighbors, ascending.
    pub fn distances_of(&self, row: usize) -> &[f64] {
        &self.distances[row * self.k..(row + 1) * self.k]
    }
}

/// The `k` nearest other rows of each row, exactly: no approximate index.
///
/// Candidates come from f32 products of the centered rows, in blocks. With `c = (D + 8) 2^-24`, which bounds the
/// rounding of such a product in any order of summation, `(1 - c)(|x|^2 + |y|^2) - 2 x.y` is a lower bound of the
/// squared distance, and candidates are the `k + 8` rows of the smallest. Their distances are then formed in f64
/// from differences. A row whose `k`-th distance exceeds the largest bound among its candidates may have missed
/// one: it is searched again with products in f64 (`c = (D + 8) 2^-53`), and if that cannot tell either, by
/// differences to all rows.
///
/// Of equal distances the earlier row is the nearer. Cost `N^2 D` multiplications and `512 N` floats of memory.
/// The result does not depend on the number of threads.
///
/// # Errors
/// Not a matrix, values that are not finite, or `k` of 0 or not below the number of rows.
pub fn nearest_neighbors(z: &Tensor, k: usize, metric: Metric) -> Result<Neighbors> {
    const OP: &str = "nearest_neighbors";
    let rows = Rows::read(OP, "z", z)?;
    match metric {
        Metric::Euclidean => nearest(OP, &rows, k),
        Metric::Cosine => nearest(OP, &rows.unit(), k),
    }
}

/// [`nearest_neighbors`] in the Euclidean distance.
pub(crate) fn nearest(op: &'static str, rows: &Rows, k: usize) -> Result<Neighbors> {
    if k == 0 {
        return Err(Error::Config { key: "k", value: "0".into(), reason: "must be at least 1" });
    }
    if rows.n <= k {
        return Err(Error::TooFew { op, name: "z", rows: rows.n, needed: k + 1 });
    }
    let centered = rows.centered();
    let scale = centered.largest();
    let scaled = match scale > 0.0 {
        true => Rows { values: centered.values.iter().map(|v| v / scale).collect(), ..centered },
        false => centered,
    };
    let mut found = vec![Vec::new(); rows.n];
    let mut open: Vec<usize> = (0..rows.n).collect();
    let mut searched_again = 0;
    // Products of a few columns cost less than their doubt.
    for dtype in [DType::F32, DType::F64] {
        if dtype == DType::F32 && scaled.d < 8 {
            continue;
        }
        if dtype == DType::F64 && scaled.d >= 8 {
            searched_again = open.len();
        }
        open = search(&scaled, &open, k, dtype, &mut found)?;
    }
    let last: Vec<Found> = open.par_iter().map(|&i| direct(&scaled, i, k)).collect();
    open.iter().zip(last).for_each(|(&i, row)| found[i] = row);
    let (mut indices, mut distances) = (Vec::with_capacity(rows.n * k), Vec::with_capacity(rows.n * k));
    for row in &found {
        indices.extend(row.iter().map(|(_, j)| *j));
        distances.extend(row.iter().map(|(square, _)| square.sqrt() * scale));
    }
    Ok(Neighbors { n: rows.n, dim: rows.d, k, indices, distances, searched_again })
}

type Found = Vec<(f64, u32)>;

/// Fills in the neighbors of the `open` rows, and returns those that the products could not decide.
fn search(rows: &Rows, open: &[usize], k: usize, dtype: DType, found: &mut [Found]) -> Result<Vec<usize>> {
    const BLOCK: usize = 512;
    if open.is_empty() {
        return Ok(Vec::new());
    }
    let (n, d) = (rows.n, rows.d);
    let wanted = (k + 8).min(n - 1);
    let unit = if dtype == DType::F32 { 2f64.powi(-24) } else { 2f64.powi(-53) };
    let c = (d as f64 + 8.0) * unit;
    let squares = rows.squares();
    let base = rows.tensor()?.to_dtype(dtype)?;
    let transposed = base.t()?.contiguous()?;
    let mut undecided = Vec::new();
    for block in open.chunks(BLOCK) {
        let queries = rows.select(block).tensor()?.to_dtype(dtype)?;
        let products = queries.matmul(&transposed)?.flatten_all()?;
        let results: Vec<(Found, bool)> = match dtype {
            DType::F32 => {
                let lengths: Vec<f32> = squares.iter().map(|s| ((1.0 - c) * s) as f32).collect();
                let products = products.to_vec1::<f32>()?;
                let each = products.par_chunks(n).zip(block);
                each.map(|(row, &i)| {
                    let bound = |j: usize| lengths[j] - 2.0 * row[j];
                    refine(rows, i, k, &smallest(n, i, wanted, bound), (1.0 - c) * squares[i])
                })
                .collect()
            }
            _ => {
                let products = products.to_vec1::<f64>()?;
                let each = products.par_chunks(n).zip(block);
                each.map(|(row, &i)| {
                    let bound = |j: usize| (1.0 - c) * squares[j] - 2.0 * row[j];
                    refine(rows, i, k, &smallest(n, i, wanted, bound), (1.0 - c) * squares[i])
                })
                .collect()
            }
        };
        for (&i, (neighbors, certain)) in block.iter().zip(results) {
            if !certain {
                undecided.push(i);
            }
            found[i] = neighbors;
        }
    }
    Ok(undecided)
}

/// The `wanted` rows of the smallest bound, without the row itself, ascending.
pub(crate) fn smallest<T: Copy + PartialOrd + Into<f64>>(
    n: usize,
    own: usize,
    wanted: usize,
    bound: impl Fn(usize) -> T,
) -> Vec<(f64, u32)> {
    /// So many are passed over at once where none of them is small enough: that test vectorizes.
    const STRIDE: usize = 16;
    let mut best: Vec<(T, u32)> = Vec::with_capacity(wanted + 1);
    let mut limit: Option<T> = None;
    for start in (0..n).step_by(STRIDE) {
        let end = (start + STRIDE).min(n);
        if let Some(limit) = limit
            && !(start..end).fold(false, |any, j| any | (bound(j) < limit))
        {
            continue;
        }
        for j in start..end {
            let value = bound(j);
            if j == own || limit.is_some_and(|limit| value >= limit) {
                continue;
            }
            let at = best.partition_point(|(b, _)| *b <= value);
            best.insert(at, (value, j as u32));
            best.truncate(wanted);
            if best.len() == wanted {
                limit = best.last().map(|(b, _)| *b);
            }
        }
    }
    best.into_iter().map(|(b, j)| (b.into(), j)).collect()
}

/// The `k` nearest of the candidates by differences in f64, and whether no other row can be nearer.
fn refine(rows: &Rows, own: usize, k: usize, candidates: &[(f64, u32)], length: f64) -> (Found, bool) {
    let x = rows.row(own);
    let mut exact: Found =
        candidates.iter().map(|&(_, j)| (square_distance(x, rows.row(j as usize)), j)).collect();
    exact.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    exact.truncate(k);
    let all = candidates.len() + 1 == rows.n;
    let farthest = exact.last().map_or(0.0, |(s, _)| *s);
    let reach = candidates.last().map_or(f64::NEG_INFINITY, |(b, _)| b + length);
    // Nothing is nearer than a duplicate.
    (exact, all || farthest == 0.0 || farthest <= reach)
}

/// The `k` nearest by differences to all rows.
fn direct(rows: &Rows, own: usize, k: usize) -> Found {
    let squares: Vec<f64> = rows.iter().map(|row| square_distance(rows.row(own), row)).collect();
    smallest(rows.n, own, k, |j| squares[j])
}

/// `|x - y|^2` in eight sums, which vectorize, added in a fixed order.
pub(crate) fn square_distance(x: &[f64], y: &[f64]) -> f64 {
    let mut sums = [0.0f64; 8];
    let (xs, ys) = (x.chunks_exact(8), y.chunks_exact(8));
    let rest: f64 = xs.remainder().iter().zip(ys.remainder()).map(|(a, b)| (a - b) * (a - b)).sum();
    for (a, b) in xs.zip(ys) {
        for ((s, a), b) in sums.iter_mut().zip(a).zip(b) {
            *s += (a - b) * (a - b);
        }
    }
    sums.iter().sum::<f64>() + rest
}
