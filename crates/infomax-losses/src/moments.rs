//! Centred batches and their second moments, on the cheaper side of `Z Z^T` and `Z^T Z`.

use crate::{Error, Result, op};
use candle_core::{DType, Device, Tensor, WithDType};

/// Which of the two forms of a second-moment objective is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// The smaller of the two: [`Path::Gram`] when `n < d`.
    #[default]
    Auto,
    /// Through the `n x n` Gram matrix of the samples.
    Gram,
    /// Through the `d x d` matrix of the features.
    Features,
}

impl Path {
    /// Whether the Gram form is used for `n` samples in `d` dimensions.
    pub fn is_gram(self, n: usize, d: usize) -> bool {
        match self {
            Self::Auto => n < d,
            Self::Gram => true,
            Self::Features => false,
        }
    }
}

/// Refuses what is not a matrix with at least `rows` rows, and widens half types to f32.
pub(crate) fn matrix(term: &'static str, z: &Tensor, rows: usize) -> Result<Tensor> {
    if z.rank() != 2 || z.dims()[0] < rows || z.dims()[1] == 0 {
        let expected = if rows > 1 { "a matrix (n, d) with n >= 2" } else { "a matrix (n, d)" };
        return Err(Error::Shape { term, expected, got: z.dims().to_vec() });
    }
    Ok(op::widen(z)?)
}

/// A centred matrix with the sums of squares of its columns.
pub(crate) struct Centred {
    /// `(n, d)`, without gradient.
    pub(crate) z: Tensor,
    /// `s_j = sum_i z_ij^2`, on the host, in f64.
    pub(crate) squares: Vec<f64>,
}

/// Centres the columns of `z` (f32 or f64); sums in f64, whatever the dtype.
pub(crate) fn centre(z: &Tensor) -> candle_core::Result<Centred> {
    match z.dtype() {
        DType::F32 => centre_as::<f32>(z),
        _ => centre_as::<f64>(z),
    }
}

fn centre_as<T: WithDType>(z: &Tensor) -> candle_core::Result<Centred> {
    let (n, d) = z.dims2()?;
    let mut values = z.flatten_all()?.to_vec1::<T>()?;
    let mut mean = vec![0f64; d];
    for row in values.chunks_exact(d) {
        for (m, v) in mean.iter_mut().zip(row) {
            *m += v.to_f64();
        }
    }
    for m in &mut mean {
        *m /= n as f64;
    }
    let mut squares = vec![0f64; d];
    for row in values.chunks_exact_mut(d) {
        for ((v, m), s) in row.iter_mut().zip(&mean).zip(&mut squares) {
            let x = v.to_f64() - m;
            *s += x * x;
            *v = T::from_f64(x);
        }
    }
    let z = Tensor::from_vec(values, (n, d), &Device::Cpu)?.to_device(z.device())?;
    Ok(Centred { z, squares })
}

/// The sum of the squares of all elements, in f64.
pub(crate) fn sum_squares(x: &Tensor) -> candle_core::Result<f64> {
    fn sum<T: WithDType>(x: &Tensor) -> candle_core::Result<f64> {
        let values = x.flatten_all()?.to_vec1::<T>()?;
        Ok(values.chunks(4096).map(|c| c.iter().map(|v| v.to_f64() * v.to_f64()).sum::<f64>()).sum())
    }
    match x.dtype() {
        DType::F32 => sum::<f32>(x),
        _ => sum::<f64>(x),
    }
}

/// `alpha A + B diag(b)` for matrices of one shape and a vector `b` over the columns, in one pass.
pub(crate) fn axpy_columns(alpha: f64, a: &Tensor, z: &Tensor, b: &[f64]) -> candle_core::Result<Tensor> {
    fn run<T: WithDType>(alpha: f64, a: &Tensor, z: &Tensor, b: &[f64]) -> candle_core::Result<Tensor> {
        let (n, d) = a.dims2()?;
        let alpha = T::from_f64(alpha);
        let b: Vec<T> = b.iter().map(|v| T::from_f64(*v)).collect();
        let mut values = a.flatten_all()?.to_vec1::<T>()?;
        let z_values = z.flatten_all()?.to_vec1::<T>()?;
        for (row, z_row) in values.chunks_exact_mut(d).zip(z_values.chunks_exact(d)) {
            for ((v, z), b) in row.iter_mut().zip(z_row).zip(&b) {
                *v = alpha * *v + *b * *z;
            }
        }
        Tensor::from_vec(values, (n, d), &Device::Cpu)?.to_device(a.device())
    }
    match a.dtype() {
        DType::F32 => run::<f32>(alpha, a, z, b),
        _ => run::<f64>(alpha, a, z, b),
    }
}

/// The matrix with its diagonal set to zero.
pub(crate) fn zero_diagonal(a: &Tensor) -> candle_core::Result<Tensor> {
    fn run<T: WithDType>(a: &Tensor) -> candle_core::Result<Tensor> {
        let n = a.dim(0)?;
        let mut values = a.flatten_all()?.to_vec1::<T>()?;
        for i in 0..n {
            values[i * n + i] = T::zero();
        }
        Tensor::from_vec(values, (n, n), &Device::Cpu)?.to_device(a.device())
    }
    match a.dtype() {
        DType::F32 => run::<f32>(a),
        _ => run::<f64>(a),
    }
}
