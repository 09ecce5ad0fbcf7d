//! The log-determinant of a regularized second moment, on the smaller side and in f64 inside.

use crate::linalg::{cholesky, row_major};
use crate::moments::columns::{Columns, Finishing, Side, matrix};
use crate::tensor::path::Path;
use crate::tensor::storage::contiguous;
use crate::{Error, Normalize, Result, device};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor};
use faer::{Mat, linalg::solvers::Solve};

/// `1/2 ln det(I + s X^T X) = 1/2 ln det(I + s X X^T)` of the normalized columns `X` of `z` `(n, d)`: a
/// scalar, differentiable, by the `n x n` matrix (`rows`) or the `d x d` one.
///
/// # Gradient
/// `s (I + s X X^T)^{-1} X`, and through the normalization.
///
/// # Numerics
/// Whatever the type of `z`, the product, its Cholesky decomposition (with the jitter of
/// [`JITTER_LADDER`](crate::linalg::JITTER_LADDER)) and the gradient are taken in f64: with a large `s` the
/// null directions, of eigenvalue 1, would drown the others in f32.
///
/// # Errors
/// Anything but a matrix with elements; an `s` that is not positive; a matrix that is not finite.
pub fn half_log_det_gram(z: &Tensor, s: f64, normalize: Normalize, rows: bool) -> Result<Tensor> {
    const OP: &str = "half_log_det_gram";
    let (n, d) = matrix(OP, z)?;
    crate::tensor::check::positive(OP, "s", s)?;
    if let Normalize::Standardize(eps) = normalize {
        crate::tensor::check::positive(OP, "eps", eps)?;
    }
    let Path::Cpu(_) = Path::of(z) else {
        return device::half_log_det_gram(z, s, normalize, rows);
    };
    let z = contiguous(z)?;
    let mut finishing = (None, None);
    let x = match normalize {
        Normalize::Not => Columns::plain(&z)?,
        Normalize::Center => Columns::centered(&z)?.0,
        Normalize::Standardize(eps) => {
            let (_, moments) = Columns::centered(&z)?;
            let scale: Vec<f64> = moments.squares.iter().map(|q| 1.0 / (q / n as f64 + eps).sqrt()).collect();
            finishing = (Some(vec![1.0 / n as f64; d]), Some(scale.clone()));
            Columns::new(&z, moments.mean, scale)?
        }
    };
    let side = if rows { Side::Rows } else { Side::Columns };
    let product = x.symmetric(side, true)?;
    let size = product.dim(0)?;
    let shifted = ((product * s)? + Tensor::eye(size, candle_core::DType::F64, &Device::Cpu)?)?;
    let (factor, _) = cholesky(OP, &shifted)?;
    let value = (0..size).map(|i| factor.L()[(i, i)].ln()).sum::<f64>();
    if !value.is_finite() {
        return Err(Error::NonFinite { op: OP, name: "z" });
    }
    let (project, post) = finishing;
    Ok(z.apply_op1(HalfLogDet { x, s, rows, factor, value, project, post })?)
}

struct HalfLogDet {
    x: Columns,
    s: f64,
    rows: bool,
    factor: crate::linalg::Cholesky,
    value: f64,
    project: Option<Vec<f64>>,
    post: Option<Vec<f64>>,
}

impl CustomOp1 for HalfLogDet {
    fn name(&self) -> &'static str {
        "half-log-det-gram"
    }

    fn cpu_fwd(&self, s: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let storage = match s {
            CpuStorage::F64(_) => CpuStorage::F64(vec![self.value]),
            _ => CpuStorage::F32(vec![self.value as f32]),
        };
        Ok((storage, Shape::from(())))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let g = g.to_dtype(candle_core::DType::F64)?.to_scalar::<f64>()?;
        let size = self.factor.L().nrows();
        let inverse = self.factor.solve(Mat::<f64>::identity(size, size));
        let inverse = Tensor::from_vec(row_major(inverse.as_ref()), (size, size), &Device::Cpu)?;
        let alpha = self.s * g;
        if self.rows {
            let (project, post) = (self.project.clone(), self.post.clone());
            return Ok(Some(self.x.left(&inverse, &Finishing { alpha, project, post, add: None })?));
        }
        let product = self.x.right(&inverse, &Finishing { alpha, ..Default::default() })?;
        Ok(Some(match (&self.project, &self.post) {
            (Some(project), Some(post)) => self.x.through_normalization(&product, project, post)?,
            _ => product,
        }))
    }
}
