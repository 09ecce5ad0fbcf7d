//! Scores of all pairs of rows: squared distances, and log-sum-exps of a matrix that is never stored.

mod blocks;
mod nearest;
mod schedule;

use crate::moments::columns::moments::moments;
use crate::moments::columns::{Columns, Finishing, matrix};
use crate::tensor::path::Path;
use crate::tensor::storage::{contiguous, result, slice, tensor};
pub use crate::types::{Exclude, Score};
use crate::{Error, Result, device};
use blocks::{Backward, Block, Forward, LARGEST, Rows};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};
use infomax_simd::elementary::Elementary;
use infomax_simd::gemm::Map;
use infomax_simd::{Isa, Shared};
pub use nearest::{kth_in_maximum_norm, kth_neighbors};
use rayon::prelude::*;
use std::sync::Arc;

/// `l_i = ln sum_j exp s_ij` over the rows of `x` `(n, d)`: shape `(n)`, differentiable.
///
/// Pairs of blocks of rows are scored, reduced and dropped, the symmetric half once for both; the backward
/// pass scores them again. Memory is `O(n x block)` beside the result.
///
/// # Gradient
/// With `w_ij = e^(s_ij) (g_i e^(-l_i) + g_j e^(-l_j))`, symmetric: `c W X` for dot products, and
/// `-2 c (diag(W 1) X - W X)` for distances, where the diagonal of `W`, which would cancel, is left out.
///
/// # Numerics
/// Distances are taken after centering, are never negative and exactly 0 on the diagonal; of rows that are close,
/// for which the products would cancel, by the differences of their elements, so that equal rows have distance 0
/// and their own share of the gradient. Maxima are running,
/// sums over blocks in f64. In f32, exponentials have a relative error below 1.5e-7; in f64 they are the
/// library's. A row that leaves out everything gives minus infinity. The same bits for any number of threads.
///
/// # Errors
/// Anything but a matrix with elements; elements whose squares are not finite; a factor that is not.
pub fn row_log_sum_exp(x: &Tensor, score: Score, exclude: Exclude) -> Result<Tensor> {
    row_log_sum_exp_blocked(x, score, exclude, 0)
}

/// [`row_log_sum_exp`] with a given number of rows in a block, at most 144; 0 for a choice by `n`. Results
/// do not depend on it but for rounding.
///
/// # Errors
/// As [`row_log_sum_exp`].
pub fn row_log_sum_exp_blocked(x: &Tensor, score: Score, exclude: Exclude, block: usize) -> Result<Tensor> {
    row_log_sum_exp_isa(x, score, exclude, block, Isa::detect())
}

pub(crate) fn row_log_sum_exp_isa(
    x: &Tensor,
    score: Score,
    exclude: Exclude,
    block: usize,
    isa: Isa,
) -> Result<Tensor> {
    const OP: &str = "row_log_sum_exp";
    check(OP, x, score, exclude)?;
    let Path::Cpu(_) = Path::of(x) else {
        return device::row_log_sum_exp(x, score, exclude);
    };
    let x = contiguous(x)?;
    let op = match x.dtype() {
        DType::F64 => LogSumExp::new::<f64>(OP, &x, score, exclude, block, isa)?,
        _ => LogSumExp::new::<f32>(OP, &x, score, exclude, block, isa)?,
    };
    Ok(x.apply_op1(op)?)
}

/// The squared distance of every row to its nearest other row, `(n)`, detached; memory `O(n x block)`.
///
/// # Errors
/// As [`row_log_sum_exp`], and fewer than two rows.
pub fn nearest_squared_distances(x: &Tensor) -> Result<Vec<f64>> {
    const OP: &str = "nearest_squared_distances";
    fn run<T: Elementary>(x: &Tensor) -> Result<Vec<f64>> {
        let score = Score::Distance(1.0);
        let op = LogSumExp::prepare::<T>(OP, x, score, Exclude::Own, 0, Isa::detect())?;
        let maxima = result(&[x], |v: &[&[T]]| op.forward(v[0], false).0)?;
        Ok(maxima.into_iter().map(|m| -m).collect())
    }
    let (n, _) = matrix(OP, x)?;
    if n < 2 {
        let expected = "at least two rows".into();
        return Err(Error::Shape { op: OP, name: "x", expected, got: x.dims().to_vec() });
    }
    let x = contiguous(&x.detach().to_device(&candle_core::Device::Cpu)?)?;
    crate::on_the_host(|| match x.dtype() {
        DType::F64 => run::<f64>(&x),
        _ => run::<f32>(&x.to_dtype(DType::F32)?),
    })
}

/// `|x_i - x_j|^2` `(n, n)` over the rows of `x` `(n, d)`, differentiable.
///
/// Centered first, never negative, exactly 0 on the diagonal and for equal rows: of rows that are close, where the
/// products would cancel, the differences of the elements are taken.
///
/// # Gradient
/// With `H = G + G^T` without its diagonal: `2 (diag(H 1) X - H X)`.
///
/// # Errors
/// Anything but a matrix with elements.
pub fn squared_distances(x: &Tensor) -> Result<Tensor> {
    matrix("squared_distances", x)?;
    let Path::Cpu(_) = Path::of(x) else {
        return device::squared_distances(x);
    };
    let x = contiguous(x)?;
    let columns = Columns::centered(&x)?.0;
    let gram = columns.gram(false)?;
    Ok(x.apply_op1(SquaredDistances { columns, gram })?)
}

fn check(op: &'static str, x: &Tensor, score: Score, exclude: Exclude) -> Result<()> {
    matrix(op, x)?;
    let (Score::Distance(c) | Score::Dot(c)) = score;
    let largest = if x.dtype() == DType::F64 { f64::MAX } else { f64::from(f32::MAX) };
    if c.is_nan() || c.abs() > largest || (c < 0.0 && matches!(score, Score::Distance(_))) {
        let reason = "the factor must be finite in the type of x, and of a distance not negative";
        return Err(Error::Config { op, name: "score", value: format!("{score:?}"), reason });
    }
    if exclude == Exclude::Sample(0) {
        let reason = "the batch must have at least one sample";
        return Err(Error::Config { op, name: "exclude", value: "Sample(0)".into(), reason });
    }
    Ok(())
}

struct LogSumExp {
    score: Score,
    exclude: Exclude,
    block: usize,
    isa: Isa,
    dims: (usize, usize),
    /// The shift of the columns.
    shift: Vec<f64>,
    /// `|x_i|^2`, shifted.
    squares: Vec<f64>,
    log_sums: Arc<Vec<f64>>,
}

impl LogSumExp {
    fn prepare<T: Elementary>(
        op: &'static str,
        x: &Tensor,
        score: Score,
        exclude: Exclude,
        block: usize,
        isa: Isa,
    ) -> Result<Self> {
        let (n, d) = x.dims2()?;
        let block = match block {
            // Some pairs for every round, blocks that fill the cache.
            0 => n.div_ceil(8).next_multiple_of(12).clamp(48, LARGEST),
            given => given.min(LARGEST),
        };
        let (shift, squares) = result(&[x], |v: &[&[T]]| {
            let shift = match score {
                Score::Distance(_) => moments(v[0], d, isa).0,
                Score::Dot(_) => vec![0.0; d],
            };
            let map = Map::<T>::new(&shift, &vec![1.0; d]);
            let square = |row: &[T]| {
                let mut buffer = vec![T::default(); d];
                map.row(0, row, &mut buffer);
                buffer.iter().map(|v| v.f64() * v.f64()).sum::<f64>()
            };
            let squares: Vec<f64> = v[0].par_chunks(d).map(square).collect();
            (shift, squares)
        })?;
        if squares.iter().any(|s| !T::of(*s).f64().is_finite()) {
            return Err(Error::NonFinite { op, name: "x" });
        }
        Ok(Self { score, exclude, block, isa, dims: (n, d), shift, squares, log_sums: Arc::default() })
    }

    fn new<T: Elementary>(
        op: &'static str,
        x: &Tensor,
        score: Score,
        exclude: Exclude,
        block: usize,
        isa: Isa,
    ) -> Result<Self> {
        let mut prepared = Self::prepare::<T>(op, x, score, exclude, block, isa)?;
        let (max, total) = result(&[x], |v: &[&[T]]| prepared.forward(v[0], true))?;
        let log = |(m, t): (f64, f64)| if t > 0.0 { m + t.ln() } else { f64::NEG_INFINITY };
        prepared.log_sums = Arc::new(max.into_iter().zip(total).map(log).collect());
        Ok(prepared)
    }

    /// Visits every pair of blocks, rounds one after the other, the diagonal first.
    fn visit(&self, task: impl Fn((usize, usize), (usize, usize)) + Send + Sync) {
        let n = self.dims.0;
        let blocks = n.div_ceil(self.block);
        let range = |b: usize| (b * self.block, ((b + 1) * self.block).min(n));
        (0..blocks).into_par_iter().for_each(|b| task(range(b), range(b)));
        for round in schedule::rounds(blocks) {
            round.par_iter().for_each(|(i, j)| task(range(*i), range(*j)));
        }
    }

    fn with_rows<T: Elementary, R>(&self, x: &[T], f: impl FnOnce(&Rows<'_, T>) -> R) -> R {
        let (n, d) = self.dims;
        let map = Map::new(&self.shift, &vec![1.0; d]);
        let squares: Vec<T> = self.squares.iter().map(|s| T::of(*s)).collect();
        f(&Rows { x, n, d, map: &map, squares: &squares, score: self.score, exclude: self.exclude })
    }

    /// The maxima, and the sums of exponentials below them if they are asked for.
    fn forward<T: Elementary>(&self, x: &[T], sums: bool) -> (Vec<f64>, Vec<f64>) {
        let n = self.dims.0;
        let mut max = vec![T::of(f64::NEG_INFINITY); n];
        let mut total = vec![0f64; n];
        let max_at = Shared::new(max.as_mut_ptr());
        let total_at = Shared::new(if sums { total.as_mut_ptr() } else { std::ptr::null_mut() });
        self.with_rows(x, |rows| {
            self.visit(|i, j| {
                T::with_scratch(|scratch| {
                    let (a, b, s) = (&mut scratch.stage, &mut scratch.panel, &mut scratch.tile);
                    let block = Block { rows, i, j, a, b, s, close: Vec::new() };
                    T::dispatch(self.isa, Forward { block, max: max_at, total: total_at });
                });
            });
        });
        (max.into_iter().map(|m| m.f64()).collect(), total)
    }

    fn backward<T: Elementary>(&self, x: &[T], g: &[T]) -> Vec<T> {
        let (n, d) = self.dims;
        let log = |l: &f64| T::of(if l.is_finite() { *l } else { f64::INFINITY });
        let log_sums: Vec<T> = self.log_sums.iter().map(log).collect();
        let mut out = vec![T::default(); n * d];
        let mut weights = vec![0f64; n];
        let (out_at, weights_at) = (Shared::new(out.as_mut_ptr()), Shared::new(weights.as_mut_ptr()));
        self.with_rows(x, |rows| {
            debug_assert_eq!(rows.n, log_sums.len());
            self.visit(|i, j| {
                T::with_scratch(|scratch| {
                    let (a, b, s) = (&mut scratch.stage, &mut scratch.panel, &mut scratch.tile);
                    let block = Block { rows, i, j, a, b, s, close: Vec::new() };
                    let log_sums = log_sums.as_slice();
                    T::dispatch(self.isa, Backward { block, log_sums, g, out: out_at, weights: weights_at });
                });
            });
            out.par_chunks_mut(d).enumerate().for_each(|(i, row)| match self.score {
                Score::Dot(c) => {
                    let c = T::of(c);
                    for v in row {
                        *v *= c;
                    }
                }
                Score::Distance(c) => {
                    let (c, weight) = (T::of(-2.0 * c), T::of(weights[i]));
                    let source = &x[i * d..(i + 1) * d];
                    for (j, v) in row.iter_mut().enumerate() {
                        let own = source[j] - rows.map.high[j] - rows.map.low[j];
                        *v = c * (weight * own - *v);
                    }
                }
            });
        });
        out
    }
}

impl CustomOp1 for LogSumExp {
    fn name(&self) -> &'static str {
        "row-log-sum-exp"
    }

    fn cpu_fwd(&self, s: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let storage = match s {
            CpuStorage::F64(_) => CpuStorage::F64(self.log_sums.to_vec()),
            _ => CpuStorage::F32(self.log_sums.iter().map(|l| *l as f32).collect()),
        };
        Ok((storage, Shape::from(self.log_sums.len())))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let g = g.contiguous()?;
        Ok(Some(match x.dtype() {
            DType::F64 => tensor(result(&[x, &g], |v: &[&[f64]]| self.backward(v[0], v[1]))?, x.shape())?,
            _ => tensor(result(&[x, &g], |v: &[&[f32]]| self.backward(v[0], v[1]))?, x.shape())?,
        }))
    }
}

struct SquaredDistances {
    columns: Columns,
    gram: Tensor,
}

impl CustomOp1 for SquaredDistances {
    fn name(&self) -> &'static str {
        "squared-distances"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        fn run<T: Elementary>(gram: &[T], x: &[T], n: usize) -> Vec<T> {
            let d = x.len() / n;
            let squares: Vec<T> = (0..n).map(|i| gram[i * n + i]).collect();
            let mut out = vec![T::default(); n * n];
            out.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
                let (own, two) = (squares[i], T::of(2.0));
                for (j, ((v, g), q)) in row.iter_mut().zip(&gram[i * n..]).zip(&squares).enumerate() {
                    let r2 = own + *q - two * *g;
                    *v = if r2 < T::of(blocks::CLOSE) * (own + *q) {
                        T::of(blocks::squared_distance(&x[i * d..][..d], &x[j * d..][..d]))
                    } else {
                        r2
                    };
                }
                row[i] = T::default();
            });
            out
        }
        let n = self.gram.dim(0)?;
        let storage = match s {
            CpuStorage::F64(_) => {
                let x = slice::<f64>((s, l))?;
                CpuStorage::F64(result(&[&self.gram], |v: &[&[f64]]| run(v[0], x, n))?)
            }
            _ => {
                let x = slice::<f32>((s, l))?;
                CpuStorage::F32(result(&[&self.gram], |v: &[&[f32]]| run(v[0], x, n))?)
            }
        };
        Ok((storage, Shape::from((n, n))))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        fn weights<T: Elementary>(g: &[T], n: usize) -> Vec<T> {
            // diag(H 1) - H, so that one product is the gradient.
            let mut out = vec![T::default(); n * n];
            out.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
                let mut total = 0.0;
                for (j, v) in row.iter_mut().enumerate() {
                    if i != j {
                        let h = g[i * n + j] + g[j * n + i];
                        total += h.f64();
                        *v = T::default() - h;
                    }
                }
                row[i] = T::of(total);
            });
            out
        }
        let (g, n) = (g.contiguous()?, self.gram.dim(0)?);
        let shape = Shape::from((n, n));
        let weights = match g.dtype() {
            DType::F64 => tensor(result(&[&g], |v: &[&[f64]]| weights(v[0], n))?, &shape)?,
            _ => tensor(result(&[&g], |v: &[&[f32]]| weights(v[0], n))?, &shape)?,
        };
        Ok(Some(self.columns.left(&weights, &Finishing { alpha: 2.0, ..Default::default() })?))
    }
}
