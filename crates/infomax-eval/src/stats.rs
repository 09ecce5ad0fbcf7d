//! Cheap statistics of embeddings: what a monitor of collapse looks at.

use crate::{Error, Result, matrix, spectrum};
use candle_core::{D, DType, Device, Tensor};
use serde::Serialize;

/// What [`embedding_stats`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct EmbeddingStats {
    /// The mean over dimensions of the unbiased standard deviation over samples.
    pub std_mean: f64,
    /// The smallest standard deviation of a dimension.
    pub std_min: f64,
    /// The mean over dimensions of the standard deviation of the L2-normalised rows: 0 when collapsed,
    /// about `1 / sqrt(D)` when spread over the sphere (Chen and He, arXiv:2011.10566).
    pub std_l2_normalised: f64,
    /// The effective rank of the embeddings, see [`crate::Spectrum::effective_rank`].
    pub effective_rank: f64,
}

/// Statistics of embeddings `(N, D)`, in f64.
///
/// # Errors
/// Not a matrix, fewer than two rows, or values that are not finite.
pub fn embedding_stats(z: &Tensor) -> Result<EmbeddingStats> {
    spectrum::check("embedding_stats", z)?;
    let z = f64_host(z)?;
    let std = std(&z)?;
    let normalised = self::std(&unit(&z)?)?;
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    Ok(EmbeddingStats {
        std_mean: mean(&std),
        std_min: std.iter().copied().fold(f64::INFINITY, f64::min),
        std_l2_normalised: mean(&normalised),
        effective_rank: spectrum::spectrum(&z)?.effective_rank,
    })
}

/// Alignment `E |x - y|^2` of the L2-normalised rows of two views (Wang and Isola, arXiv:2005.10242): 0 when
/// both views of each sample agree, 2 for independent ones.
///
/// # Errors
/// Matrices of unequal shape or values that are not finite.
pub fn alignment(a: &Tensor, b: &Tensor) -> Result<f64> {
    const OP: &str = "alignment";
    matrix::host(OP, "a", a)?;
    matrix::host(OP, "b", b)?;
    if a.dims() != b.dims() {
        let (expected, got) = (format!("{:?} like a", a.dims()), b.dims().to_vec());
        return Err(Error::Shape { op: OP, name: "b", expected, got });
    }
    let difference = (unit(&f64_host(a)?)? - unit(&f64_host(b)?)?)?;
    Ok(difference.sqr()?.sum(D::Minus1)?.mean_all()?.to_scalar::<f64>()?)
}

/// Uniformity `ln mean_{i<j} exp(-2 |x_i - x_j|^2)` of the L2-normalised rows (Wang and Isola,
/// arXiv:2005.10242), `t = 2`: 0 when collapsed, towards -4 when spread in many dimensions.
///
/// # Errors
/// Not a matrix, fewer than two rows, or values that are not finite.
pub fn uniformity(z: &Tensor) -> Result<f64> {
    let (n, _) = spectrum::check("uniformity", z)?;
    let x = unit(&f64_host(z)?)?;
    let norms = x.sqr()?.sum_keepdim(D::Minus1)?;
    let transposed = x.t()?.contiguous()?;
    let mut total = 0.0;
    for start in (0..n).step_by(512) {
        let rows = 512.min(n - start);
        let cross = (x.narrow(0, start, rows)?.matmul(&transposed)? * -2.0)?;
        let squares = cross.broadcast_add(&norms.narrow(0, start, rows)?)?.broadcast_add(&norms.t()?)?;
        // Rounding can leave a tiny negative distance.
        let squares = squares.relu()?;
        total += (squares * -2.0)?.exp()?.sum_all()?.to_scalar::<f64>()?;
    }
    // The diagonal holds ones (distance 0), and each pair is counted twice.
    let pairs = n as f64 * (n as f64 - 1.0);
    Ok(((total - n as f64) / pairs).max(f64::MIN_POSITIVE).ln())
}

fn f64_host(z: &Tensor) -> Result<Tensor> {
    Ok(z.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?.contiguous()?)
}

fn unit(z: &Tensor) -> Result<Tensor> {
    Ok(z.broadcast_div(&z.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?.maximum(1e-12f64)?)?)
}

fn std(z: &Tensor) -> Result<Vec<f64>> {
    let n = z.dims()[0] as f64;
    let power = z.broadcast_sub(&z.mean_keepdim(0)?)?.sqr()?.sum(0)?;
    Ok(power.to_vec1::<f64>()?.into_iter().map(|p| (p / (n - 1.0)).sqrt()).collect())
}
