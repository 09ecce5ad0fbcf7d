//! Squared distances of all pairs of rows, and log-sum-exps of their scores strip by strip, without a whole matrix.

use crate::blas::{Factor, multiply};
use crate::graph::node1;
use crate::launch::{Arg, Grid, Module, contiguous, count32, device, empty, launch, tensor};
use crate::moments::{Columns, each, line, with_transpose};
use crate::{Error, Exclude, Products, Result, Score};
use candle_core::{CudaDevice, CudaStorage, DType, Tensor};

/// `l_i = ln sum_j exp s_ij` over the rows of `x` `(n, d)`, f32: shape `(n)`, differentiable.
///
/// Some rows at a time: their inner products with all rows by cuBLAS, then one kernel that scores and sums them; the
/// backward pass multiplies again. Memory is that of one strip, at most 64 MiB, beside the result.
///
/// # Gradient
/// With `w_ij = e^(s_ij) (g_i e^(-l_i) + g_j e^(-l_j))`, symmetric: `c W X` for dot products, and
/// `-2 c (diag(W 1) X - W X)` for distances.
///
/// # Numerics
/// f32. Distances are taken after centering, are never negative and exactly 0 on the diagonal; of rows that are close by the
/// differences of their elements, as in [`squared_distances`]. A row that leaves out everything gives minus infinity. The
/// same bits in every run as far as cuBLAS gives them.
///
/// # Errors
/// Anything but an f32 matrix with elements on a CUDA device; a factor that is not finite, or negative for distances.
pub fn row_log_sum_exp(x: &Tensor, score: Score, exclude: Exclude) -> Result<Tensor> {
    row_log_sum_exp_blocked(x, score, exclude, 0)
}

/// [`row_log_sum_exp`] with a given number of rows in a strip; 0 for a choice by `n`.
///
/// # Errors
/// As [`row_log_sum_exp`].
pub fn row_log_sum_exp_blocked(x: &Tensor, score: Score, exclude: Exclude, block: usize) -> Result<Tensor> {
    const OP: &str = "row_log_sum_exp";
    let (n, d) = match *x.dims() {
        [n, d] if n > 0 && d > 0 => (n, d),
        _ => {
            let expected = "a matrix with elements".into();
            return Err(Error::Shape { op: OP, name: "x", expected, got: x.dims().to_vec() });
        }
    };
    if x.dtype() != DType::F32 {
        return Err(Error::DType { op: OP, name: "x", got: x.dtype(), expected: "f32" });
    }
    count32(OP, "n", n)?;
    let (Score::Distance(c) | Score::Dot(c)) = score;
    if !c.is_finite() || (c < 0.0 && matches!(score, Score::Distance(_))) {
        let reason = "the factor must be finite, and of a distance not negative";
        return Err(Error::Config { op: OP, name: "score", value: format!("{score:?}"), reason });
    }
    let period = match exclude {
        Exclude::Nothing => 0,
        Exclude::Own => n,
        Exclude::Sample(0) => {
            let reason = "the batch must have at least one sample";
            return Err(Error::Config { op: OP, name: "exclude", value: "Sample(0)".into(), reason });
        }
        Exclude::Sample(batch) => batch.min(n),
    };
    let block = match block {
        0 => ((64 << 20) / 4 / n).clamp(16, n.max(16)),
        given => given,
    };
    let x = contiguous(x)?;
    let device = device(OP, "x", &x)?;
    let scored = x.detach();
    let (rows, squares) = match score {
        Score::Dot(_) => (scored, None),
        Score::Distance(_) => {
            let (columns, z) = Columns::new(OP, &scored)?;
            let centered = tensor(columns.centered(&z, false)?.0, (n, d));
            let squares = centered.sqr()?.sum(1)?.contiguous()?;
            (centered, Some(squares))
        }
    };
    let strips = Strips { device, x: x.detach(), rows, squares, dims: (n, d), block, c, period };
    let logs = strips.log_sums()?;
    Ok(node1(OP, &x, logs, n, move |_, logs, g| Ok([Some(strips.grad(logs, g)?)]))?)
}

/// `|x_i - x_j|^2` `(n, n)` over the rows of `x` `(n, d)`, f32: one product by cuBLAS and one pass over it.
///
/// # Gradient
/// With `H = G + G^T` without its diagonal: `2 (diag(H 1) X - H X)`, one product.
///
/// # Numerics
/// Centered first; never negative; exactly 0 on the diagonal and for equal rows: of rows whose squared distance is below
/// 1/64 of the sum of their squares, where the product would cancel, the differences of the elements are taken.
///
/// # Errors
/// Anything but an f32 matrix with elements on a CUDA device.
pub fn squared_distances(x: &Tensor, products: Products) -> Result<Tensor> {
    const OP: &str = "squared_distances";
    let (columns, x) = Columns::new(OP, x)?;
    let (cuda, n, d) = (columns.device.clone(), columns.n, columns.d);
    let centered = tensor(columns.centered(&x.detach(), false)?.0, (n, d));
    let product = tensor(columns.symmetric(&centered, true, products)?, (n, n));
    let mut squares = empty(&cuda, DType::F32, n)?;
    let args = vec![Arg::Read(&product), Arg::Write(&mut squares), Arg::U32(n as u32)];
    launch(&cuda, Module::Pairwise, "diagonal", line(n), args)?;
    let squares = tensor(squares, n);
    let mut out = empty(&cuda, DType::F32, n * n)?;
    let args = vec![
        Arg::Read(&product),
        Arg::Write(&mut out),
        Arg::Read(&squares),
        Arg::Read(&x),
        Arg::U32(n as u32),
        Arg::U32(d as u32),
    ];
    launch(&cuda, Module::Pairwise, "distances", each(n), args)?;
    Ok(node1(OP, &x, out, (n, n), move |_, _, g| {
        let both = with_transpose(&columns.device, g)?;
        let mut weights = empty(&columns.device, DType::F32, n * n)?;
        let args = vec![Arg::Read(&both), Arg::Write(&mut weights), Arg::U32(n as u32)];
        launch(&columns.device, Module::Pairwise, "laplacian", each(n), args)?;
        let weights = tensor(weights, (n, n));
        let mut dx = empty(&columns.device, DType::F32, n * d)?;
        let factors = [Factor::plain(&weights), Factor::plain(&centered)];
        multiply(&columns.device, factors, (2.0, 0.0), &mut dx, products)?;
        Ok([Some(tensor(dx, (n, d)))])
    })?)
}

struct Strips {
    device: CudaDevice,
    x: Tensor,
    /// The rows whose products are scored: `x`, or `x` without its mean.
    rows: Tensor,
    squares: Option<Tensor>,
    dims: (usize, usize),
    block: usize,
    c: f64,
    period: usize,
}

impl Strips {
    /// Calls `f` with each strip of products: its first row, and the storage of `(rows, n)`.
    fn each(
        &self,
        mut f: impl FnMut(usize, usize, Tensor) -> candle_core::Result<()>,
    ) -> candle_core::Result<()> {
        let n = self.dims.0;
        let columns = self.rows.t()?;
        for first in (0..n).step_by(self.block) {
            let count = self.block.min(n - first);
            f(first, count, self.rows.narrow(0, first, count)?.matmul(&columns)?)?;
        }
        Ok(())
    }

    fn sizes<'a>(&self, first: usize) -> [Arg<'a>; 5] {
        [
            Arg::U64(first as u64),
            Arg::U32(self.dims.0 as u32),
            Arg::U32(self.dims.1 as u32),
            Arg::F32(self.c as f32),
            Arg::U32(self.period as u32),
        ]
    }

    fn log_sums(&self) -> candle_core::Result<CudaStorage> {
        let mut logs = empty(&self.device, DType::F32, self.dims.0)?;
        self.each(|first, count, products| {
            let mut args = vec![
                Arg::Read(&products),
                Arg::Maybe(self.squares.as_ref()),
                Arg::Read(&self.x),
                Arg::Write(&mut logs),
            ];
            args.extend(self.sizes(first));
            let grid = Grid { blocks: (count as u32, 1), threads: (256, 1) };
            launch(&self.device, Module::Pairwise, "strip_log_sums", grid, args)
        })?;
        Ok(logs)
    }

    /// The gradient of `x`.
    fn grad(&self, logs: &Tensor, g: &Tensor) -> candle_core::Result<Tensor> {
        let mut strips = Vec::new();
        self.each(|first, count, products| {
            let mut sums = empty(&self.device, DType::F32, count)?;
            let mut weights = empty(&self.device, DType::F32, count * self.dims.0)?;
            let mut args = vec![
                Arg::Read(&products),
                Arg::Write(&mut weights),
                Arg::Maybe(self.squares.as_ref()),
                Arg::Read(&self.x),
                Arg::Read(logs),
                Arg::Read(g),
                Arg::Write(&mut sums),
            ];
            args.extend(self.sizes(first));
            let grid = Grid { blocks: (count as u32, 1), threads: (256, 1) };
            launch(&self.device, Module::Pairwise, "strip_weights", grid, args)?;
            let weights = tensor(weights, (count, self.dims.0));
            let along = weights.matmul(&self.rows)?;
            strips.push(match self.squares {
                None => (along * self.c)?,
                Some(_) => {
                    let own = self.rows.narrow(0, first, count)?.broadcast_mul(&tensor(sums, (count, 1)))?;
                    ((own - along)? * (-2.0 * self.c))?
                }
            });
            Ok(())
        })?;
        Tensor::cat(&strips, 0)
    }
}
