//! What examples that time operations share.

use candle_core::{Device, Result, Tensor};
use std::time::Instant;

/// Values of one sign and the other, without a pattern.
pub(crate) fn noise(shape: &[usize]) -> Result<Tensor> {
    let count: usize = shape.iter().product();
    let values =
        (0..count as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32 - 0.5);
    Tensor::from_vec(values.collect::<Vec<_>>(), shape, &Device::Cpu)
}

/// The best of some rounds, each of at least 20 ms.
pub(crate) fn seconds(mut run: impl FnMut() -> infomax_kernels::Result<()>) -> infomax_kernels::Result<f64> {
    let start = Instant::now();
    run()?;
    let count = (0.02 / start.elapsed().as_secs_f64()).ceil().max(1.0) as u32;
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        for _ in 0..count {
            run()?;
        }
        best = best.min(start.elapsed().as_secs_f64() / f64::from(count));
    }
    Ok(best)
}
