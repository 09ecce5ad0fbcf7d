//! The bridge to `faer`: decompositions of matrices of up to a few thousand rows, in f64 inside.
//!
//! Inputs of any float type on any device are brought to the host and to f64; results go back to the type
//! and the device of the input. Symmetric arguments are read from their lower triangle only, and gradients
//! with respect to them are symmetric.

#[allow(unsafe_code)]
pub(crate) mod mat;

use crate::tensor::check;
use crate::{Error, Result};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Device, Layout, Shape, Tensor};
use faer::{Mat, MatRef, Side, linalg::solvers::Solve};
use std::sync::Arc;

/// The jitter tried one after the other when a Cholesky decomposition fails, relative to the mean of the
/// diagonal.
pub const JITTER_LADDER: [f64; 5] = [0.0, 1e-12, 1e-10, 1e-8, 1e-6];

/// `ln det A` of a symmetric positive definite matrix `(D, D)`, a scalar.
///
/// By Cholesky, `A + jitter I = L L^T`, `ln det = 2 sum ln L_ii`, with the first jitter of
/// [`JITTER_LADDER`] that succeeds; [`log_det_spd_jitter`] also returns it.
///
/// # Gradient
/// `A^{-1}` (of the jittered matrix), symmetric.
///
/// # Errors
/// A matrix that is not square, or not positive definite with the largest jitter.
pub fn log_det_spd(a: &Tensor) -> Result<Tensor> {
    Ok(log_det_spd_jitter(a)?.0)
}

/// [`log_det_spd`] and the absolute jitter that it needed (0 for a well-conditioned matrix).
///
/// # Errors
/// As [`log_det_spd`].
pub fn log_det_spd_jitter(a: &Tensor) -> Result<(Tensor, f64)> {
    let (factor, jitter) = cholesky("log_det_spd", a)?;
    let value = 2.0 * (0..factor.L().nrows()).map(|i| factor.L()[(i, i)].ln()).sum::<f64>();
    let ys = on_host(a)?.apply_op1(LogDet { factor: Arc::new(factor), value })?;
    Ok((home(ys, a)?, jitter))
}

/// `A^{-1} B` for a symmetric positive definite `A` `(D, D)` and `B` `(D, M)`; the result is `(D, M)`.
///
/// # Gradient
/// With `X = A^{-1} B` and the incoming gradient `G`: `dB = A^{-1} G`, `dA = -(dB X^T + X dB^T) / 2`.
///
/// # Errors
/// Shapes that do not fit, or a matrix that is not positive definite with the largest jitter of
/// [`JITTER_LADDER`].
pub fn solve_spd(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    const OP: &str = "solve_spd";
    let (factor, _) = cholesky(OP, a)?;
    let (rows, _) = check::dims2(OP, "b", b)?;
    if rows != a.dim(0)? {
        return Err(Error::Shape {
            op: OP,
            name: "b",
            expected: format!("({}, M)", a.dim(0)?),
            got: b.dims().to_vec(),
        });
    }
    check::not_empty(OP, "b", b)?;
    let ys = on_host(a)?.apply_op2(&on_host(b)?.contiguous()?, SolveSpd { factor: Arc::new(factor) })?;
    home(ys, b)
}

/// The lower Cholesky factor, row by row, of a symmetric matrix of `d` rows, of which the lower triangle is read;
/// `None` for a pivot that is not above the rounding of its row (`1e-14` of the diagonal element). No jitter.
pub fn cholesky_factor(s: &[f64], d: usize) -> Option<Vec<f64>> {
    let factor = MatRef::from_row_major_slice(s, d, d).llt(Side::Lower).ok()?;
    let lower = factor.L();
    let sound = |i: usize| lower[(i, i)] * lower[(i, i)] > 1e-14 * s[i * d + i].abs();
    (0..d).all(sound).then(|| row_major(lower))
}

/// The inverse, row by row, of a lower triangular matrix of `d` rows without zeros on its diagonal.
pub fn invert_lower(lower: &[f64], d: usize) -> Vec<f64> {
    let mut inverse = Mat::<f64>::identity(d, d);
    let lower = MatRef::from_row_major_slice(lower, d, d);
    faer::linalg::triangular_solve::solve_lower_triangular_in_place(lower, inverse.as_mut(), faer::Par::Seq);
    row_major(inverse.as_ref())
}

/// The eigenvalues of a symmetric matrix `(D, D)`, ascending, shape `(D)`.
///
/// # Gradient
/// `V diag(g) V^T`. Exact for any symmetric function of the eigenvalues (sums of `f(lambda)`: traces,
/// entropies, log-determinants), repeated eigenvalues included; the gradient of one single eigenvalue
/// within a repeated group depends on the choice of basis.
///
/// # Errors
/// A matrix that is not square, or not finite.
pub fn eigvalsh(a: &Tensor) -> Result<Tensor> {
    let (values, vectors) = eigen("eigvalsh", a)?;
    let ys = on_host(a)?.apply_op1(Eigvalsh { values, vectors: Arc::new(vectors) })?;
    home(ys, a)
}

/// The eigenvalues `(D)`, ascending, and the eigenvectors `(D, D)` in columns of a symmetric matrix.
///
/// # Gradient
/// None: both results are detached.
///
/// # Errors
/// As [`eigvalsh`].
pub fn eigh(a: &Tensor) -> Result<(Tensor, Tensor)> {
    let (values, vectors) = eigen("eigh", a)?;
    let d = values.len();
    let values = Tensor::from_vec(values, d, &Device::Cpu)?;
    let vectors = Tensor::from_vec(row_major(vectors.as_ref()), (d, d), &Device::Cpu)?;
    Ok((home(values, a)?, home(vectors, a)?))
}

/// The singular values of a matrix `(N, D)`, descending, shape `(min(N, D))`.
///
/// # Gradient
/// `U diag(g) V^T`. Exact for any symmetric function of the singular values (nuclear norm, entropies), equal
/// ones included; the gradient of a single one within a group of equal ones depends on the choice of basis, and
/// at 0 it is one of the subgradients.
///
/// # Errors
/// A tensor that is not a matrix, or not finite.
pub fn svdvals(a: &Tensor) -> Result<Tensor> {
    let (values, u, v) = thin_svd("svdvals", a)?;
    let ys = on_host(a)?.apply_op1(Svdvals { values, u, v })?;
    home(ys, a)
}

/// The thin singular value decomposition of a matrix `(N, D)`, with `K = min(N, D)`: `U` `(N, K)`, the singular
/// values `(K)`, descending, and `V` `(D, K)`, so that `A = U diag(S) V^T`.
///
/// # Gradient
/// None: all three are detached; [`svdvals`] has the gradient of the values.
///
/// # Errors
/// As [`svdvals`].
pub fn svd(a: &Tensor) -> Result<(Tensor, Tensor, Tensor)> {
    let (values, u, v) = thin_svd("svd", a)?;
    let k = values.len();
    Ok((home(u, a)?, home(Tensor::from_vec(values, k, &Device::Cpu)?, a)?, home(v, a)?))
}

/// The singular values of a matrix `(N, D)`, descending. Not differentiable: see [`svdvals`].
///
/// # Errors
/// A tensor that is not a matrix, or not finite.
pub fn singular_values(a: &Tensor) -> Result<Vec<f64>> {
    const OP: &str = "singular_values";
    let (rows, cols) = check::dims2(OP, "a", a)?;
    check::not_empty(OP, "a", a)?;
    finite(OP, a, rows, cols)?.singular_values().map_err(|_| Error::NoConvergence { op: OP, rows, cols })
}

/// The singular values, `U` `(N, K)` and `V` `(D, K)`.
fn thin_svd(op: &'static str, a: &Tensor) -> Result<(Vec<f64>, Tensor, Tensor)> {
    let (rows, cols) = check::dims2(op, "a", a)?;
    check::not_empty(op, "a", a)?;
    let mat = finite(op, a, rows, cols)?;
    let svd = mat.thin_svd().map_err(|_| Error::NoConvergence { op, rows, cols })?;
    let values: Vec<f64> = svd.S().column_vector().iter().copied().collect();
    let k = values.len();
    let u = Tensor::from_vec(row_major(svd.U()), (rows, k), &Device::Cpu)?;
    let v = Tensor::from_vec(row_major(svd.V()), (cols, k), &Device::Cpu)?;
    Ok((values, u, v))
}

fn square(op: &'static str, a: &Tensor) -> Result<usize> {
    let (rows, cols) = check::dims2(op, "a", a)?;
    if rows != cols {
        return Err(Error::Shape { op, name: "a", expected: "square".into(), got: a.dims().to_vec() });
    }
    check::not_empty(op, "a", a)?;
    Ok(rows)
}

fn on_host(a: &Tensor) -> Result<Tensor> {
    Ok(a.to_device(&Device::Cpu)?.to_dtype(DType::F64)?)
}

fn home(ys: Tensor, like: &Tensor) -> Result<Tensor> {
    Ok(ys.to_dtype(like.dtype())?.to_device(like.device())?)
}

fn to_mat(a: &Tensor, rows: usize, cols: usize) -> Result<Mat<f64>> {
    let values = on_host(a)?.flatten_all()?.to_vec1::<f64>()?;
    Ok(Mat::from_fn(rows, cols, |i, j| values[i * cols + j]))
}

/// The decompositions of `faer` may loop or panic on NaN: refuse it here.
fn finite(op: &'static str, a: &Tensor, rows: usize, cols: usize) -> Result<Mat<f64>> {
    let mat = to_mat(a, rows, cols)?;
    if (0..cols).any(|j| (0..rows).any(|i| !mat[(i, j)].is_finite())) {
        return Err(Error::NoConvergence { op, rows, cols });
    }
    Ok(mat)
}

pub(crate) fn row_major(a: MatRef<'_, f64>) -> Vec<f64> {
    let mut values = Vec::with_capacity(a.nrows() * a.ncols());
    for i in 0..a.nrows() {
        values.extend((0..a.ncols()).map(|j| a[(i, j)]));
    }
    values
}

pub(crate) type Cholesky = faer::linalg::solvers::Llt<f64>;

pub(crate) fn cholesky(op: &'static str, a: &Tensor) -> Result<(Cholesky, f64)> {
    let d = square(op, a)?;
    let mut mat = to_mat(a, d, d)?;
    let mean = (0..d).map(|i| mat[(i, i)]).sum::<f64>() / d as f64;
    let mut added = 0.0;
    for relative in JITTER_LADDER {
        let jitter = relative * mean.abs();
        for i in 0..d {
            mat[(i, i)] += jitter - added;
        }
        added = jitter;
        if let Ok(factor) = mat.llt(Side::Lower)
            && (0..d).all(|i| factor.L()[(i, i)].is_finite())
        {
            return Ok((factor, jitter));
        }
    }
    Err(Error::NotPositiveDefinite { op, size: d, jitter: added })
}

fn eigen(op: &'static str, a: &Tensor) -> Result<(Vec<f64>, Mat<f64>)> {
    let d = square(op, a)?;
    let mat = finite(op, a, d, d)?;
    let eigen =
        mat.self_adjoint_eigen(Side::Lower).map_err(|_| Error::NoConvergence { op, rows: d, cols: d })?;
    let values = eigen.S().column_vector().iter().copied().collect();
    Ok((values, eigen.U().to_owned()))
}

struct LogDet {
    factor: Arc<Cholesky>,
    value: f64,
}

impl CustomOp1 for LogDet {
    fn name(&self) -> &'static str {
        "log-det-spd"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F64(vec![self.value]), Shape::from(())))
    }

    fn bwd(&self, arg: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let d = arg.dim(0)?;
        let inverse = self.factor.solve(Mat::<f64>::identity(d, d));
        let inverse = Tensor::from_vec(row_major(inverse.as_ref()), (d, d), arg.device())?;
        // Rounding leaves the solve slightly asymmetric.
        let inverse = ((&inverse + inverse.t()?)? * 0.5)?;
        Ok(Some(inverse.broadcast_mul(grad)?))
    }
}

struct SolveSpd {
    factor: Arc<Cholesky>,
}

impl SolveSpd {
    fn solve(&self, b: &Tensor) -> candle_core::Result<Tensor> {
        let (rows, cols) = b.dims2()?;
        let x = self.factor.solve(to_mat(b, rows, cols)?);
        Tensor::from_vec(row_major(x.as_ref()), (rows, cols), b.device())
    }
}

impl CustomOp2 for SolveSpd {
    fn name(&self) -> &'static str {
        "solve-spd"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        s: &CpuStorage,
        l: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let values = crate::tensor::storage::elements::<f64>(s)?;
        let (rows, cols) = l.shape().dims2()?;
        // `solve_spd` hands over a contiguous tensor.
        let values = &values[l.start_offset()..];
        let x = self.factor.solve(Mat::from_fn(rows, cols, |i, j| values[i * cols + j]));
        Ok((CpuStorage::F64(row_major(x.as_ref())), Shape::from((rows, cols))))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        x: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let db = self.solve(grad)?;
        let outer = db.matmul(&x.t()?)?;
        let da = ((&outer + outer.t()?)? * -0.5)?;
        Ok((Some(da), Some(db)))
    }
}

struct Eigvalsh {
    values: Vec<f64>,
    vectors: Arc<Mat<f64>>,
}

impl CustomOp1 for Eigvalsh {
    fn name(&self) -> &'static str {
        "eigvalsh"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F64(self.values.clone()), Shape::from(self.values.len())))
    }

    fn bwd(&self, arg: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let d = arg.dim(0)?;
        let vectors = Tensor::from_vec(row_major(self.vectors.as_ref().as_ref()), (d, d), arg.device())?;
        let scaled = vectors.broadcast_mul(&grad.reshape((1, d))?)?;
        Ok(Some(scaled.matmul(&vectors.t()?)?))
    }
}

struct Svdvals {
    values: Vec<f64>,
    u: Tensor,
    v: Tensor,
}

impl CustomOp1 for Svdvals {
    fn name(&self) -> &'static str {
        "svdvals"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F64(self.values.clone()), Shape::from(self.values.len())))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let scaled = self.u.broadcast_mul(&grad.reshape((1, self.values.len()))?)?;
        Ok(Some(scaled.matmul(&self.v.t()?)?))
    }
}
