//! Draws for experiments that need no network.

use candle_core::{DType, Device, Tensor};
use infomax_core::Key;

/// Standard normal numbers `(n, d)` as rows.
pub(crate) fn normal(key: Key, n: usize, d: usize) -> crate::Result<Vec<Vec<f64>>> {
    Ok(key.normal(0.0, 1.0, (n, d), DType::F64, &Device::Cpu)?.to_vec2::<f64>()?)
}

/// Rows as a tensor `(n, d)`, f64.
pub(crate) fn tensor(rows: &[Vec<f64>]) -> crate::Result<Tensor> {
    let d = rows.first().map_or(0, Vec::len);
    let values: Vec<f64> = rows.iter().flatten().copied().collect();
    Ok(Tensor::from_vec(values, (rows.len(), d), &Device::Cpu)?)
}
