//! Log-sum-exp over the rows of a pairwise score matrix that is never stored.

use crate::{Result, moments, op};
use candle_core::{DType, Device, Tensor, WithDType};

/// The score of two rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Score {
    /// `-c |x_i - x_j|^2`.
    Distance(f64),
    /// `c x_i . x_j`.
    Dot(f64),
}

/// Which columns a row leaves out of its sum. All choices are symmetric in the row and the column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclude {
    /// None.
    Nothing,
    /// The row itself.
    Own,
    /// All rows of the same sample, for views stacked below each other: `j = i` modulo the batch.
    Sample(usize),
}

impl Exclude {
    fn excludes(self, i: usize, j: usize) -> bool {
        match self {
            Self::Nothing => false,
            Self::Own => i == j,
            Self::Sample(batch) => i % batch == j % batch,
        }
    }
}

/// `l_i = ln sum_j exp s_ij` over the rows of `x` `(n, d)`: shape `(n)`, differentiable.
///
/// Blocks of rows of the score matrix are formed, reduced and dropped; the backward pass forms them again.
/// Memory is `O(n x block)`. The score matrix is symmetric, so that the gradient needs one product a block:
/// with `w_ij = e^{s_ij} (g_i e^{-l_i} + g_j e^{-l_j})` it is `c W X` for dot products, and
/// `-2 c (diag(W 1) X - W X)` for distances. Distances are taken after centring and are exactly 0 on the
/// diagonal. A row that leaves out everything gives minus infinity.
///
/// # Errors
/// Anything but a matrix.
pub fn row_log_sum_exp(x: &Tensor, score: Score, exclude: Exclude) -> Result<Tensor> {
    row_log_sum_exp_blocked(x, score, exclude, 256)
}

/// [`row_log_sum_exp`] with a given number of rows in a block; results do not depend on it but for rounding.
///
/// # Errors
/// As [`row_log_sum_exp`], and a block of no rows.
pub fn row_log_sum_exp_blocked(x: &Tensor, score: Score, exclude: Exclude, block: usize) -> Result<Tensor> {
    let x = moments::matrix("pairwise", x, 1)?;
    if block == 0 {
        return Err(crate::Error::Config {
            term: "pairwise",
            key: "block",
            value: "0".into(),
            reason: "must be at least 1",
        });
    }
    if !x.device().is_cpu() {
        return row_log_sum_exp_composed(&x, score, exclude);
    }
    Ok(match x.dtype() {
        DType::F32 => streaming::<f32>(&x, score, exclude, block)?,
        _ => streaming::<f64>(&x, score, exclude, block)?,
    })
}

/// [`row_log_sum_exp`] from plain Candle operations, with the whole score matrix: the reference.
///
/// # Errors
/// As [`row_log_sum_exp`].
pub fn row_log_sum_exp_composed(x: &Tensor, score: Score, exclude: Exclude) -> Result<Tensor> {
    let x = moments::matrix("pairwise", x, 1)?;
    let n = x.dim(0)?;
    let scores = match score {
        Score::Dot(c) => (x.matmul(&x.t()?)? * c)?,
        Score::Distance(c) => (squared_distances(&x)? * -c)?,
    };
    let mask: Vec<f64> =
        (0..n * n).map(|ij| if exclude.excludes(ij / n, ij % n) { f64::NEG_INFINITY } else { 0.0 }).collect();
    let mask = Tensor::from_vec(mask, (n, n), &Device::Cpu)?.to_dtype(x.dtype())?.to_device(x.device())?;
    let scores = (scores + mask)?;
    let max = scores.max_keepdim(1)?.detach();
    let sums = scores.broadcast_sub(&max)?.exp()?.sum(1)?;
    Ok((sums.log()? + max.squeeze(1)?)?)
}

/// `|x_i - x_j|^2` `(n, n)`, differentiable: centred first, never negative, exactly 0 on the diagonal.
///
/// # Errors
/// Anything but a matrix.
pub fn squared_distances(x: &Tensor) -> Result<Tensor> {
    let x = crate::entropy::centred(&moments::matrix("pairwise", x, 1)?)?;
    let squares = x.sqr()?.sum_keepdim(1)?;
    let r2 = (x.matmul(&x.t()?)? * -2.0)?.broadcast_add(&squares)?.broadcast_add(&squares.t()?)?;
    let n = x.dim(0)?;
    let off = (Tensor::ones((n, n), x.dtype(), x.device())? - Tensor::eye(n, x.dtype(), x.device())?)?;
    Ok((r2 * off)?.relu()?)
}

/// Exponentials of a slice; the f32 form has no branches, so that it vectorises.
trait Real: WithDType {
    fn exp_shifted(values: &mut [Self], shift: f64);
    fn exp(self) -> Self;
}

impl Real for f32 {
    fn exp_shifted(values: &mut [Self], shift: f64) {
        let shift = shift as Self;
        for v in values {
            *v = exp_f32(*v - shift);
        }
    }
    fn exp(self) -> Self {
        exp_f32(self)
    }
}

impl Real for f64 {
    fn exp_shifted(values: &mut [Self], shift: f64) {
        for v in values {
            *v = (*v - shift).exp();
        }
    }
    fn exp(self) -> Self {
        Self::exp(self)
    }
}

/// `e^x` with a relative error below 2e-7; `x < -87` gives about 1e-38, and `x > 88` is cut to 88.
///
/// `x = n ln 2 + r`, `|r| <= ln 2 / 2`, by the rounding of an addition; then a polynomial of degree 6 in `r`.
#[inline]
fn exp_f32(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: the unit of the last place is 1.
    let x = x.clamp(-87.0, 88.0);
    let t = x * std::f32::consts::LOG2_E + MAGIC;
    let n = t - MAGIC;
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let p = 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    p * f32::from_bits((t.to_bits() << 23).wrapping_add(0x3f80_0000))
}

struct Blocks<T> {
    x: Tensor,
    squares: Vec<T>,
    score: Score,
    exclude: Exclude,
    block: usize,
    n: usize,
}

impl<T: Real> Blocks<T> {
    /// The scores of rows `from..to`, row by row; excluded ones are minus infinity.
    fn scores(&self, from: usize, to: usize) -> candle_core::Result<Vec<T>> {
        let rows = self.x.narrow(0, from, to - from)?;
        let mut s = rows.matmul(&self.x.t()?)?.flatten_all()?.to_vec1::<T>()?;
        for (i, row) in (from..to).zip(s.chunks_exact_mut(self.n)) {
            match self.score {
                Score::Dot(c) => {
                    let c = T::from_f64(c);
                    for v in row.iter_mut() {
                        *v *= c;
                    }
                }
                Score::Distance(c) => {
                    let (c, two, own) = (T::from_f64(c), T::from_f64(2.0), self.squares[i]);
                    for (v, q) in row.iter_mut().zip(&self.squares) {
                        let s = c * (two * *v - own - *q);
                        *v = if s > T::zero() { T::zero() } else { s };
                    }
                    row[i] = T::zero();
                }
            }
            let out = T::from_f64(f64::NEG_INFINITY);
            match self.exclude {
                Exclude::Nothing => {}
                Exclude::Own => row[i] = out,
                Exclude::Sample(batch) => {
                    row.iter_mut().skip(i % batch).step_by(batch).for_each(|v| *v = out)
                }
            }
        }
        Ok(s)
    }

    fn ranges(&self) -> impl Iterator<Item = (usize, usize)> + use<T> {
        let (n, block) = (self.n, self.block);
        (0..n).step_by(block).map(move |from| (from, (from + block).min(n)))
    }

    fn log_sums(&self) -> candle_core::Result<Vec<f64>> {
        let mut out = Vec::with_capacity(self.n);
        for (from, to) in self.ranges() {
            for row in self.scores(from, to)?.chunks_exact_mut(self.n) {
                let max = row.iter().fold(T::from_f64(f64::NEG_INFINITY), |m, v| if *v > m { *v } else { m });
                let max = max.to_f64();
                if max == f64::NEG_INFINITY {
                    out.push(max);
                    continue;
                }
                T::exp_shifted(row, max);
                // Chunked sums: f32 within a chunk, f64 over the chunks.
                let sum: f64 = row.chunks(64).map(|c| c.iter().fold(T::zero(), |a, v| a + *v).to_f64()).sum();
                out.push(max + sum.ln());
            }
        }
        Ok(out)
    }

    fn gradient(&self, log_sums: &[f64], g: &[f64]) -> candle_core::Result<Tensor> {
        let n = self.n;
        let shifts: Vec<T> = log_sums.iter().map(|l| T::from_f64(*l)).collect();
        let g: Vec<T> = g.iter().map(|v| T::from_f64(*v)).collect();
        let floor = T::from_f64(f64::NEG_INFINITY);
        let mut blocks = Vec::new();
        for (from, to) in self.ranges() {
            let mut w = self.scores(from, to)?;
            let mut sums = Vec::with_capacity(to - from);
            for (i, row) in (from..to).zip(w.chunks_exact_mut(n)) {
                let (own, gi) = (shifts[i], g[i]);
                for ((v, shift), gj) in row.iter_mut().zip(&shifts).zip(&g) {
                    let s = *v;
                    // No score is above its log-sum-exp but for rounding, which is large for large scores.
                    let (below, across) = (s - own, s - *shift);
                    let cut = |x: T| if x > T::zero() { T::zero() } else { x };
                    let weight = gi * Real::exp(cut(below)) + *gj * Real::exp(cut(across));
                    *v = if s > floor { weight } else { T::zero() };
                }
                sums.push(row.iter().map(|v| v.to_f64()).sum::<f64>());
            }
            let w = Tensor::from_vec(w, (to - from, n), &Device::Cpu)?;
            let product = w.matmul(&self.x)?;
            blocks.push(match self.score {
                Score::Dot(c) => (product * c)?,
                Score::Distance(c) => {
                    let sums = Tensor::from_vec(sums, (to - from, 1), &Device::Cpu)?.to_dtype(T::DTYPE)?;
                    let own = self.x.narrow(0, from, to - from)?.broadcast_mul(&sums)?;
                    ((own - product)? * (-2.0 * c))?
                }
            });
        }
        Tensor::cat(&blocks, 0)
    }
}

fn streaming<T: Real>(
    x: &Tensor,
    score: Score,
    exclude: Exclude,
    block: usize,
) -> candle_core::Result<Tensor> {
    let n = x.dim(0)?;
    let (data, squares) = match score {
        Score::Dot(_) => (x.detach(), Vec::new()),
        Score::Distance(_) => {
            let data = moments::centre(x)?.z;
            let squares = data.sqr()?.sum(1)?.to_vec1::<T>()?;
            (data, squares)
        }
    };
    let blocks = Blocks::<T> { x: data, squares, score, exclude, block, n };
    let log_sums = blocks.log_sums()?;
    let value = Tensor::from_vec(log_sums.clone(), n, &Device::Cpu)?.to_dtype(x.dtype())?;
    op::attach(x, value, move |g| blocks.gradient(&log_sums, &op::host(g)?))
}
