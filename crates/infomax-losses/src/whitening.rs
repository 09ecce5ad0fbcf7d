//! Batch whitening with its exact gradient: the invariance term of W-MSE.

use crate::{Error, Result, entropy::centered, moments, op};
use candle_core::{DType, Device, Tensor};
use infomax_kernels::linalg;

/// `Y = Zc L^{-T}` with `(1 - eps) S + eps I = L L^T` and the unbiased covariance `S` of the rows of `z` `(n, d)`: at
/// `eps = 0` the rows of `Y` have mean 0 and covariance `I` exactly. Differentiable, in f64 inside.
///
/// # Gradient
/// With the incoming `G` and `M = G^T Y`: the centered
/// `[G - (1 - eps)/(n - 1) Y (F + F^T)] L^{-1}`, where `F` is the lower triangle of `M` with halved diagonal.
/// Cost `n d^2 + d^3`.
///
/// # Errors
/// Fewer than two rows; a covariance that is singular (`n <= d`, or a collapsed batch, at `eps = 0`).
pub fn whiten(z: &Tensor, eps: f64) -> Result<Tensor> {
    let z = moments::matrix("whitening", z, 2)?;
    let (n, d) = z.dims2()?;
    let dof = (n - 1) as f64;
    let data = z.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    let zc = centered(&data)?.detach();
    let moment = (zc.t()?.matmul(&zc)? * ((1.0 - eps) / dof))?;
    let mut s = op::host(&moment)?;
    for i in 0..d {
        s[i * d + i] += eps;
    }
    let lower = linalg::cholesky_factor(&s, d).ok_or_else(|| Error::Shape {
        term: "whitening",
        expected: "a covariance of full rank: more rows than columns that vary (train.batch in a run), or eps > 0",
        got: vec![n, d],
    })?;
    let root = Tensor::from_vec(linalg::invert_lower(&lower, d), (d, d), &Device::Cpu)?;
    let y = zc.matmul(&root.t()?)?;
    let value = y.to_dtype(z.dtype())?.to_device(z.device())?;
    let (dtype, device) = (z.dtype(), z.device().clone());
    let grad = move |g: &Tensor| {
        let g = g.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let m = op::host(&g.t()?.matmul(&y)?)?;
        // F + F^T: both triangles from the lower one, the diagonal once.
        let both: Vec<f64> = (0..d * d)
            .map(|k| {
                let (i, j) = (k / d, k % d);
                m[i.max(j) * d + i.min(j)]
            })
            .collect();
        let both = Tensor::from_vec(both, (d, d), &Device::Cpu)?;
        let inner = (g - (y.matmul(&both)? * ((1.0 - eps) / dof))?)?;
        let grad = centered(&inner.matmul(&root)?)?;
        grad.to_dtype(dtype)?.to_device(&device)
    };
    if z.device().is_cpu() {
        // Not elementwise: only the host has an operation for it.
        return infomax_kernels::on_the_host(|| Ok(op::attach(&z, value, grad)?));
    }
    Ok(whiten(&z.to_device(&Device::Cpu)?, eps)?.to_device(z.device())?)
}
