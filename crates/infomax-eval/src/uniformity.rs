//! How evenly embeddings cover the sphere.

use crate::{Result, spectrum};
use candle_core::{D, DType, Device, Tensor};

/// Uniformity `ln mean_{i<j} exp(-2 |x_i - x_j|^2)` of the L2-normalized rows (Wang and Isola,
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
