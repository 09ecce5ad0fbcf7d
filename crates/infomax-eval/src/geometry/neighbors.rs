//! Exact nearest neighbors by blocked matrix products.

use crate::matrix::Rows;
use crate::{Error, Result};
use candle_core::{DType, Tensor, WithDType};
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
#[non_exhaustive]
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

    /// The nearest `k` of them, at most all.
    pub fn nearest(&self, k: usize) -> Self {
        let k = k.min(self.k);
        let indices = (0..self.n).flat_map(|row| &self.of(row)[..k]).copied().collect();
        let distances = (0..self.n).flat_map(|row| &self.distances_of(row)[..k]).copied().collect();
        Self { k, indices, distances, ..*self }
    }

    /// For each row, whether its last neighbor is as near as the one before the last: then which of the two is among one
    /// neighbor less is decided by their order alone. `false` for a single neighbor.
    pub fn undecided(&self) -> Vec<bool> {
        let tied = |row: usize| match self.distances_of(row) {
            [.., before, last] => before == last,
            _ => false,
        };
        (0..self.n).map(tied).collect()
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
/// Of equal distances the earlier row is the nearer. Cost `N^2 D / 2` multiplications and `512 N` floats of memory.
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
    if open.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = (k + 8).min(rows.n - 1);
    let unit = if dtype == DType::F32 { 2f64.powi(-24) } else { 2f64.powi(-53) };
    let share = 1.0 - (rows.d as f64 + 8.0) * unit;
    let lengths: Vec<f64> = rows.squares().iter().map(|s| share * s).collect();
    let candidates: Vec<Found> = match dtype {
        DType::F32 => {
            let rounded: Vec<f32> = lengths.iter().map(|l| *l as f32).collect();
            candidates(rows, open, wanted, &rounded, |length, product| length - 2.0 * product)?
        }
        _ => candidates(rows, open, wanted, &lengths, |length, product| length - 2.0 * product)?,
    };
    let refined: Vec<(Found, bool)> = open
        .par_iter()
        .zip(&candidates)
        .map(|(&i, candidates)| refine(rows, i, k, candidates, lengths[i]))
        .collect();
    let mut undecided = Vec::new();
    for (&i, (neighbors, certain)) in open.iter().zip(refined) {
        if !certain {
            undecided.push(i);
        }
        found[i] = neighbors;
    }
    Ok(undecided)
}

/// For each `open` row the `wanted` rows of the smallest bound `score(length, product)`, with it.
///
/// Where all rows are open, a block of rows is multiplied with the rows from its own first one on only: a product
/// serves both of its rows.
fn candidates<T: WithDType + PartialOrd>(
    rows: &Rows,
    open: &[usize],
    wanted: usize,
    lengths: &[T],
    score: impl Fn(T, T) -> T + Sync,
) -> Result<Vec<Found>> {
    const BLOCK: usize = 512;
    /// Columns of a product that are searched together: they are neighbors in memory.
    const STRIPE: usize = 64;
    let n = rows.n;
    let all = open.len() == n;
    let base = rows.tensor()?.to_dtype(T::DTYPE)?;
    let mut best: Vec<Best<T>> = open.iter().map(|_| Best::new(wanted)).collect();
    for start in (0..open.len()).step_by(BLOCK) {
        let count = BLOCK.min(open.len() - start);
        let first = if all { start } else { 0 };
        let queries = match all {
            true => base.narrow(0, start, count)?,
            false => rows.select(&open[start..start + count]).tensor()?.to_dtype(T::DTYPE)?,
        };
        let width = n - first;
        let others = base.narrow(0, first, width)?.t()?;
        let products = queries.matmul(&others)?.flatten_all()?.to_vec1::<T>()?;
        best[start..start + count].par_iter_mut().zip(products.par_chunks(width)).enumerate().for_each(
            |(i, (best, row))| best.scan(first..n, open[start + i], |j| score(lengths[j], row[j - first])),
        );
        if !all {
            continue;
        }
        let skip = start + count;
        best[skip..].par_chunks_mut(STRIPE).enumerate().for_each(|(stripe, best)| {
            let from = skip - first + stripe * STRIPE;
            let mut limits: Vec<T> = best.iter().map(Best::limit).collect();
            for (i, row) in products.chunks_exact(width).enumerate() {
                let (row, length) = (&row[from..from + best.len()], lengths[start + i]);
                let small = |any: bool, (product, limit): (&T, &T)| any | (score(length, *product) < *limit);
                if !row.iter().zip(&limits).fold(false, small) {
                    continue;
                }
                for ((product, limit), best) in row.iter().zip(&mut limits).zip(best.iter_mut()) {
                    let value = score(length, *product);
                    if value < *limit {
                        best.offer(value, start + i);
                        *limit = best.limit();
                    }
                }
            }
        });
    }
    Ok(best.into_iter().map(Best::into_found).collect())
}

/// The rows of the smallest values so far, ascending; of equal values the earlier offer stays first.
struct Best<T> {
    wanted: usize,
    kept: Vec<(T, u32)>,
}

impl<T: WithDType + PartialOrd> Best<T> {
    fn new(wanted: usize) -> Self {
        Self { wanted, kept: Vec::with_capacity(wanted + 1) }
    }

    /// Only what is below this is taken.
    fn limit(&self) -> T {
        match self.kept.last() {
            Some((largest, _)) if self.kept.len() == self.wanted => *largest,
            _ => T::from_f64(f64::INFINITY),
        }
    }

    fn offer(&mut self, value: T, row: usize) {
        let at = self.kept.partition_point(|(kept, _)| *kept <= value);
        self.kept.insert(at, (value, row as u32));
        self.kept.truncate(self.wanted);
    }

    /// Offers the rows of a range but `own`.
    fn scan(&mut self, range: std::ops::Range<usize>, own: usize, value: impl Fn(usize) -> T) {
        /// So many are passed over at once where none of them is small enough: that test vectorizes.
        const STRIDE: usize = 16;
        let mut limit = self.limit();
        for start in range.clone().step_by(STRIDE) {
            let end = (start + STRIDE).min(range.end);
            if !(start..end).fold(false, |any, j| any | (value(j) < limit)) {
                continue;
            }
            for j in start..end {
                let value = value(j);
                if j != own && value < limit {
                    self.offer(value, j);
                    limit = self.limit();
                }
            }
        }
    }

    fn into_found(self) -> Found {
        self.kept.into_iter().map(|(value, row)| (value.to_f64(), row)).collect()
    }
}

/// The `wanted` rows of the smallest value, without the row itself, ascending.
pub(crate) fn smallest(n: usize, own: usize, wanted: usize, value: impl Fn(usize) -> f64) -> Vec<(f64, u32)> {
    let mut best = Best::new(wanted);
    best.scan(0..n, own, value);
    best.into_found()
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
