//! How alike two representations of the same samples are.

use crate::estimate::{Doubt, Estimate, Resampling};
use crate::matrix::{self, Rows};
use crate::{Error, Result};
use candle_core::Tensor;
use serde::Serialize;

/// The result of [`linear_cka`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinearCka {
    /// `|Yc^T Xc|_F^2 / (|Xc^T Xc|_F |Yc^T Yc|_F)`: in `[0, 1]`, and far above 0 for unrelated representations
    /// when rows are not many more than columns.
    pub plain: Estimate,
    /// The same ratio of unbiased estimates of the dependence: about 0 for unrelated ones, of either sign.
    pub debiased: Estimate,
}

/// Linear centered kernel alignment (Kornblith et al., arXiv:1905.00414), plain and with the unbiased
/// `HSIC_1` of Song et al. (2012), as Nguyen et al. (arXiv:2010.15327) use it:
/// `HSIC_1 = 1 / (n (n - 3)) [tr(K L) + (1 K 1)(1 L 1) / ((n - 1)(n - 2)) - 2 / (n - 2) 1 K L 1]` of Gram matrices
/// without their diagonals.
///
/// Invariant to rotations, to one scale for all columns and to shifts of either. By the `D x D` products or the
/// `N x N` Gram matrices, whichever costs less. Intervals by subsampling.
///
/// # Errors
/// Different numbers of rows, fewer than four, values that are not finite, or a representation that is constant.
pub fn linear_cka(x: &Tensor, y: &Tensor, cfg: &Resampling) -> Result<LinearCka> {
    const OP: &str = "linear_cka";
    let (x, y) = (Rows::read_at_least(OP, "x", x, 4)?, Rows::read_at_least(OP, "y", y, 4)?);
    matrix::paired(OP, ["x", "y"], &x, &y)?;
    for (name, rows) in [("x", &x), ("y", &y)] {
        let columns = rows.constant_columns();
        if columns.len() == rows.d {
            return Err(Error::Constant { op: OP, name, columns });
        }
    }
    let n = x.n;
    let [plain, debiased] = both(&x, &y)?;
    let mut intervals = cfg.subsample_all(&[plain, debiased], n, 8, |rows| {
        Ok(both(&x.select(rows), &y.select(rows))?.to_vec())
    })?;
    let wide = x.d.max(y.d);
    let biased = (n < 10 * wide).then(|| {
        let message = format!(
            "{n} rows for {wide} columns: the plain value of unrelated representations is far above 0 here; \
             use the debiased one"
        );
        Doubt::new("few-samples", message)
    });
    let negative = !debiased.is_finite();
    let undefined = negative.then(|| {
        Doubt::new("undefined", "an unbiased estimate of a self-dependence is not positive: too few rows")
    });
    let of_debiased = intervals.pop().flatten();
    Ok(LinearCka {
        plain: Estimate::new(plain, n).with(intervals.pop().flatten()).doubting(biased),
        debiased: Estimate::new(debiased, n).with(of_debiased).doubting(undefined),
    })
}

fn both(x: &Rows, y: &Rows) -> Result<[f64; 2]> {
    let prepare = |rows: &Rows| -> Result<(Rows, Tensor)> {
        let centered = rows.centered();
        // One scale for all: it cancels, and squares of squares stay in range.
        let scale = centered.largest().max(f64::MIN_POSITIVE);
        let values = centered.values.iter().map(|v| v / scale).collect();
        let scaled = Rows { values, ..centered };
        let tensor = scaled.tensor()?;
        Ok((scaled, tensor))
    };
    let ((a, ta), (b, tb)) = (prepare(x)?, prepare(y)?);
    let n = a.n;
    // tr(K L) with diagonals, for the three pairs.
    let (xy, xx, yy) = if n < a.d.max(b.d) {
        let (k, l) = (ta.matmul(&ta.t()?.contiguous()?)?, tb.matmul(&tb.t()?.contiguous()?)?);
        let sum = |p: &Tensor, q: &Tensor| -> Result<f64> { Ok((p * q)?.sum_all()?.to_scalar::<f64>()?) };
        (sum(&k, &l)?, sum(&k, &k)?, sum(&l, &l)?)
    } else {
        let (at, bt) = (ta.t()?.contiguous()?, tb.t()?.contiguous()?);
        let norm = |p: Tensor| -> Result<f64> { Ok(p.sqr()?.sum_all()?.to_scalar::<f64>()?) };
        (norm(at.matmul(&tb)?)?, norm(at.matmul(&ta)?)?, norm(bt.matmul(&tb)?)?)
    };
    let (da, db) = (a.squares(), b.squares());
    let plain = xy / (xx.sqrt() * yy.sqrt());
    let hsic = |trace: f64, p: &[f64], q: &[f64]| unbiased(trace, p, q);
    let (hxy, hxx, hyy) = (hsic(xy, &da, &db), hsic(xx, &da, &da), hsic(yy, &db, &db));
    let debiased = if hxx > 0.0 && hyy > 0.0 { hxy / (hxx.sqrt() * hyy.sqrt()) } else { f64::NAN };
    Ok([plain, debiased])
}

/// `HSIC_1` of centered features from `tr(K L)` and the two diagonals: rows of a centered Gram matrix sum to 0, so
/// that those without the diagonal sum to minus it.
fn unbiased(trace: f64, p: &[f64], q: &[f64]) -> f64 {
    let n = p.len() as f64;
    let diagonal: f64 = p.iter().zip(q).map(|(a, b)| a * b).sum();
    let (sum_p, sum_q): (f64, f64) = (p.iter().sum(), q.iter().sum());
    let bracket = (trace - diagonal) + sum_p * sum_q / ((n - 1.0) * (n - 2.0)) - 2.0 / (n - 2.0) * diagonal;
    bracket / (n * (n - 3.0))
}
