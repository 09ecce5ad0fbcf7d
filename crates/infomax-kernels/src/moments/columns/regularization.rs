//! The variance and covariance regularization of VICReg.

use super::{Columns, Finishing, inner_product, matrix};
use crate::tensor::path::Path;
use crate::tensor::storage::{contiguous, result, tensor};
use crate::{Error, Result, device};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};
use infomax_simd::Stored;

/// `[variance, covariance]` of `z` `(n, d)` as VICReg defines them (arXiv:2105.04906): shape `(2)`, differentiable. With the
/// centered columns `X` and the unbiased `S = X^T X / (n - 1)`:
///
/// `variance = 1/d sum_j max(0, gamma - sqrt(S_jj + eps))`, `covariance = 1/d sum_{i != j} S_ij^2`.
///
/// With `rows`, `sum_ij S_ij^2 = ||X X^T||_F^2 / (n - 1)^2` is taken from the `n x n` matrix, which costs `n^2 d` and not
/// `n d^2`; otherwise the `d x d` matrix is formed and its diagonal masked, which keeps the digits that the subtraction would
/// lose on a whitened batch.
///
/// # Gradient
/// `4 g_1 / ((n - 1)^2 d) (X X^T X - X diag(s))` with the sums of squares `s` of the columns, and
/// `-g_0 x_ij / (d (n - 1) std_j)` for the columns with `std_j < gamma`; 0 for others, also at the kink.
///
/// # Numerics
/// Moments in two passes and sums in f64, products in the type of `z`.
///
/// # Errors
/// Anything but a matrix of at least two rows.
pub fn variance_covariance(z: &Tensor, gamma: f64, eps: f64, rows: bool) -> Result<Tensor> {
    const OP: &str = "variance_covariance";
    let (n, d) = matrix(OP, z)?;
    if n < 2 {
        let expected = "at least two rows".into();
        return Err(Error::Shape { op: OP, name: "z", expected, got: z.dims().to_vec() });
    }
    let Path::Cpu(_) = Path::of(z) else {
        return device::variance_covariance(z, gamma, eps, rows);
    };
    let z = contiguous(z)?;
    let (dof, dim) = ((n - 1) as f64, d as f64);
    let (x, moments) = Columns::centered(&z)?;
    let stds: Vec<f64> = moments.squares.iter().map(|s| (s / dof + eps).sqrt()).collect();
    // `max` would turn NaN into 0.
    let variance = stds.iter().map(|s| if *s > gamma { 0.0 } else { gamma - s }).sum::<f64>() / dim;
    let hinge: Vec<f64> =
        stds.iter().map(|s| if *s < gamma { -1.0 / (dim * dof * s) } else { 0.0 }).collect();
    // K = X X^T, or the off-diagonal part of X^T X.
    let (product, off) = if rows {
        let k = x.gram(false)?;
        let diagonal: f64 = moments.squares.iter().map(|s| s * s).sum();
        let off = inner_product(&k, &k)? - diagonal;
        // `max` would turn the NaN of an overflow into 0.
        (k, if off < 0.0 { 0.0 } else { off })
    } else {
        let s = zero_diagonal(&x.second_moment(false)?)?;
        let off = inner_product(&s, &s)?;
        (s, off)
    };
    let scale = 1.0 / (dof * dof * dim);
    let (value, squares) = ([variance, off * scale], moments.squares);
    Ok(z.apply_op1(VarianceCovariance { x, squares, hinge, product, value, scale, rows })?)
}

struct VarianceCovariance {
    x: Columns,
    squares: Vec<f64>,
    hinge: Vec<f64>,
    product: Tensor,
    value: [f64; 2],
    scale: f64,
    rows: bool,
}

impl CustomOp1 for VarianceCovariance {
    fn name(&self) -> &'static str {
        "variance-covariance"
    }

    fn cpu_fwd(&self, s: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let storage = match s {
            CpuStorage::F64(_) => CpuStorage::F64(self.value.to_vec()),
            _ => CpuStorage::F32(self.value.iter().map(|v| *v as f32).collect()),
        };
        Ok((storage, Shape::from(2)))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let g = g.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let [variance, covariance] = g[..] else { candle_core::bail!("a gradient of {} parts", g.len()) };
        let alpha = 4.0 * covariance * self.scale;
        let of = |(h, s): (&f64, &f64)| variance * h - if self.rows { alpha * s } else { 0.0 };
        let factors = self.hinge.iter().zip(&self.squares).map(of).collect();
        let finishing = Finishing { alpha, add: Some((&self.x, factors)), ..Default::default() };
        Ok(Some(match self.rows {
            true => self.x.left(&self.product, &finishing)?,
            false => self.x.right(&self.product, &finishing)?,
        }))
    }
}

/// The matrix with its diagonal set to zero.
fn zero_diagonal(a: &Tensor) -> candle_core::Result<Tensor> {
    fn run<T: Stored>(a: &Tensor) -> candle_core::Result<Tensor> {
        let n = a.dim(0)?;
        let mut values = result(&[a], |v: &[&[T]]| v[0].to_vec())?;
        for i in 0..n {
            values[i * n + i] = T::default();
        }
        tensor(values, a.shape())
    }
    match a.dtype() {
        DType::F32 => run::<f32>(a),
        _ => run::<f64>(a),
    }
}
