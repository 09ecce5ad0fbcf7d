//! The `k`-th nearest other row of every row.

use super::blocks::{Block, LARGEST, column_maxima, maximum};
use super::{Exclude, LogSumExp, Score, blocks};
use crate::moments::columns::matrix;
use crate::tensor::storage::{contiguous, result};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use infomax_simd::elementary::Elementary;
use infomax_simd::{Arith, Isa, Kernel, Shared, Simd, Task, run};
use rayon::prelude::*;

/// For every row of `x` `(n, d)` its `k`-th nearest other row in the 2-norm, and the squared distance, detached; of equal
/// distances the smaller index is nearer.
///
/// Pairs of blocks of rows are scored as for [`super::row_log_sum_exp`], once for both; memory is `O(n (block + k))`.
/// Distances are compared in the type of `x`, those of close rows by the differences of their elements; the one that is
/// returned is taken by the differences, in f64. The same rows for any number of threads.
///
/// # Errors
/// As [`super::row_log_sum_exp`], and a `k` that is 0 or not below `n`.
pub fn kth_neighbors(x: &Tensor, k: usize) -> Result<Vec<(usize, f64)>> {
    kth_neighbors_isa(x, k, Isa::detect())
}

pub(crate) fn kth_neighbors_isa(x: &Tensor, k: usize, isa: Isa) -> Result<Vec<(usize, f64)>> {
    const OP: &str = "kth_neighbors";
    fn search<T: Elementary>(x: &Tensor, k: usize, isa: Isa) -> Result<Vec<(usize, f64)>> {
        let op = LogSumExp::prepare::<T>(OP, x, Score::Distance(1.0), Exclude::Own, 0, isa)?;
        Ok(result(&[x], |v: &[&[T]]| op.kth(v[0], k))?)
    }
    let x = host(OP, x, k)?;
    crate::on_the_host(|| match x.dtype() {
        DType::F64 => search::<f64>(&x, k, isa),
        _ => search::<f32>(&x, k, isa),
    })
}

/// [`kth_neighbors`] in the maximum norm `max_c |x_ic - x_jc|`, with the distance itself, in f64.
///
/// # Errors
/// As [`kth_neighbors`].
pub fn kth_in_maximum_norm(x: &Tensor, k: usize) -> Result<Vec<(usize, f64)>> {
    let x = host("kth_in_maximum_norm", x, k)?.to_dtype(DType::F64)?;
    let ((n, d), isa) = (x.dims2()?, Isa::detect());
    let of = |x: &[f64], i: usize, distances: &mut Vec<(f64, usize)>| {
        distances.clear();
        distances.resize(n, (f64::INFINITY, i));
        run(isa, Farthest { x, own: &x[i * d..][..d], out: distances });
        // The row itself is out of the search.
        distances.swap_remove(i);
        let order = |a: &(f64, usize), b: &(f64, usize)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        let (_, &mut (r, j), _) = distances.select_nth_unstable_by(k - 1, order);
        (j, r)
    };
    crate::on_the_host(|| {
        let found = result(&[&x], |v: &[&[f64]]| {
            (0..n).into_par_iter().map_init(Vec::new, |distances, i| of(v[0], i, distances)).collect()
        });
        Ok(found?)
    })
}

/// The rows on the host, in order.
fn host(op: &'static str, x: &Tensor, k: usize) -> Result<Tensor> {
    let (n, _) = matrix(op, x)?;
    if k == 0 || k >= n {
        let reason = "must be at least 1 and less than the number of rows";
        return Err(Error::Config { op, name: "k", value: format!("{k} of {n} rows"), reason });
    }
    let x = contiguous(&x.detach().to_device(&Device::Cpu)?)?;
    let narrow = !matches!(x.dtype(), DType::F64 | DType::F32);
    Ok(if narrow { x.to_dtype(DType::F32)? } else { x })
}

/// The distances of a row to all rows in the maximum norm.
struct Farthest<'a> {
    x: &'a [f64],
    own: &'a [f64],
    out: &'a mut [(f64, usize)],
}

impl Task for Farthest<'_> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        for (j, (out, row)) in self.out.iter_mut().zip(self.x.chunks_exact(self.own.len())).enumerate() {
            let mut lanes = [0f64; 8];
            let larger = |l: f64, a: f64, b: f64| {
                let r = (a - b).abs();
                if r > l { r } else { l }
            };
            let (a, b) = (self.own.chunks_exact(8), row.chunks_exact(8));
            let rest = a.remainder().iter().zip(b.remainder()).fold(0.0, |m, (a, b)| larger(m, *a, *b));
            for (a, b) in a.zip(b) {
                for l in 0..8 {
                    lanes[l] = larger(lanes[l], a[l], b[l]);
                }
            }
            *out = (lanes.iter().fold(rest, |m, l| if *l > m { *l } else { m }), j);
        }
    }
}

/// A neighbor: minus its squared distance, and the row.
type Neighbor<T> = (T, u32);

impl LogSumExp {
    fn kth<T: Elementary>(&self, x: &[T], k: usize) -> Vec<(usize, f64)> {
        let (n, d) = self.dims;
        // The nearest first; rows that are not there are farther than all.
        let mut lists: Vec<Neighbor<T>> = vec![(T::of(f64::NEG_INFINITY), u32::MAX); n * k];
        let lists_at = Shared::new(lists.as_mut_ptr());
        self.with_rows(x, |rows| {
            self.visit(|i, j| {
                T::with_scratch(|scratch| {
                    let (a, b, s) = (&mut scratch.stage, &mut scratch.panel, &mut scratch.tile);
                    let block = Block { rows, i, j, a, b, s, close: Vec::new() };
                    T::dispatch(self.isa, Nearest { block, k, lists: lists_at });
                });
            });
        });
        let row = |i: usize| &x[i * d..][..d];
        let last = lists.chunks_exact(k).map(|list| list[k - 1].1 as usize).enumerate();
        last.map(|(i, j)| (j, blocks::squared_distance(row(i), row(j)))).collect()
    }
}

/// Takes the scores of a block into the lists of its rows, and of its columns.
struct Nearest<'a, T> {
    block: Block<'a, T>,
    k: usize,
    /// `(n, k)`; this block's rows on both sides are its own.
    lists: Shared<Neighbor<T>>,
}

impl<T: Elementary> Kernel<T> for Nearest<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(mut self) {
        // SAFETY: the instruction set is that of the caller.
        unsafe { self.block.scored::<S>() };
        let ((ni, nj), k) = (self.block.sizes(), self.k);
        let (i0, j0) = (self.block.i.0, self.block.j.0);
        let s = &self.block.s[..LARGEST * LARGEST];
        // SAFETY: the lists hold `k` elements for each row, and those of rows `i` and `j` are this task's alone.
        let list = |row: usize| unsafe { std::slice::from_raw_parts_mut(self.lists.get().add(row * k), k) };
        for r in 0..ni {
            let (row, list) = (&s[r * LARGEST..][..nj], list(i0 + r));
            if maximum(row) >= list[k - 1].0 {
                for (c, score) in row.iter().enumerate() {
                    insert(list, (*score, (j0 + c) as u32));
                }
            }
        }
        if self.block.diagonal() {
            return;
        }
        let top = column_maxima(s, (ni, nj));
        for c in 0..nj {
            let list = list(j0 + c);
            if top[c] >= list[k - 1].0 {
                for r in 0..ni {
                    insert(list, (s[r * LARGEST + c], (i0 + r) as u32));
                }
            }
        }
    }
}

/// Puts a neighbor into its place of a list, the nearest first and of equal ones the smaller row; the last one drops out.
#[inline(always)]
fn insert<T: Elementary>(list: &mut [Neighbor<T>], new: Neighbor<T>) {
    let before = |a: &Neighbor<T>, b: &Neighbor<T>| a.0 > b.0 || (a.0 == b.0 && a.1 < b.1);
    let Some(last) = list.last() else { return };
    // The row itself has minus infinity.
    if !before(&new, last) || new.0 == T::of(f64::NEG_INFINITY) {
        return;
    }
    let mut at = list.len() - 1;
    while at > 0 && before(&new, &list[at - 1]) {
        list[at] = list[at - 1];
        at -= 1;
    }
    list[at] = new;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows on a coarse grid, so that distances are often equal, with equal rows among them.
    fn rows(n: usize, d: usize, seed: u64, grid: f64) -> Vec<f64> {
        let values = infomax_testing::spread(&[n * d], seed, 0.5).to_vec1::<f64>().unwrap();
        values.into_iter().map(|v| (v * grid).round() / grid * 4.0).collect()
    }

    fn reference(x: &[f64], d: usize, k: usize, norm: impl Fn(&[f64], &[f64]) -> f64) -> Vec<(usize, f64)> {
        let n = x.len() / d;
        let row = |i: usize| &x[i * d..][..d];
        let kth = |i: usize| {
            let mut all: Vec<(f64, usize)> =
                (0..n).filter(|j| *j != i).map(|j| (norm(row(i), row(j)), j)).collect();
            all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            (all[k - 1].1, all[k - 1].0)
        };
        (0..n).map(kth).collect()
    }

    fn euclidean(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
    }

    #[test]
    fn neighbors_are_those_of_a_search_row_by_row() {
        // Beyond one block of 48 and several; a fine grid has no equal distances, a coarse one many.
        for (n, d, k, grid) in
            [(2, 1, 1, 4.0), (7, 3, 6, 1e6), (50, 5, 1, 1e6), (131, 17, 3, 1e6), (300, 4, 2, 8.0)]
        {
            let x = rows(n, d, n as u64, grid);
            let expected = reference(&x, d, k, euclidean);
            let tensor = Tensor::from_slice(&x, (n, d), &Device::Cpu).unwrap();
            for isa in Isa::tested() {
                let found = kth_neighbors_isa(&tensor, k, isa).unwrap();
                for (i, ((j, r2), (jj, rr))) in found.iter().zip(&expected).enumerate() {
                    assert!((r2 - rr).abs() <= 1e-12 * (1.0 + rr), "{isa:?} row {i}: {r2} {rr}");
                    // Products round: of distances that are equal to f64's precision either row may come first.
                    let same = j == jj
                        || (euclidean(&x[i * d..][..d], &x[j * d..][..d]) - rr).abs() <= 1e-12 * (1.0 + rr);
                    assert!(same, "{isa:?} row {i}: {j} {jj}");
                }
                let narrow = kth_neighbors_isa(&tensor.to_dtype(DType::F32).unwrap(), k, isa).unwrap();
                for ((_, r2), (_, rr)) in narrow.iter().zip(&expected) {
                    assert!((r2 - rr).abs() <= 1e-4 * (1.0 + rr), "{isa:?} f32: {r2} {rr}");
                }
            }
            let largest = |a: &[f64], b: &[f64]| a.iter().zip(b).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
            assert_eq!(kth_in_maximum_norm(&tensor, k).unwrap(), reference(&x, d, k, largest), "{n} {d} {k}");
        }
    }

    #[test]
    fn equal_rows_have_no_distance_and_wrong_numbers_are_refused() {
        let x = Tensor::from_slice(&[1e4f32, 2.0, 1e4, 2.0, 1e4, 2.5], (3, 2), &Device::Cpu).unwrap();
        assert_eq!(kth_neighbors(&x, 1).unwrap(), [(1, 0.0), (0, 0.0), (0, 0.25)]);
        for k in [0, 3] {
            assert!(kth_neighbors(&x, k).unwrap_err().to_string().contains("of 3 rows"));
            assert!(kth_in_maximum_norm(&x, k).is_err());
        }
    }
}
