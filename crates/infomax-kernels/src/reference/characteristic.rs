//! The distance of characteristic functions of Candle's operations.

use super::columns::matrix;
use crate::Result;
use candle_core::Tensor;

/// `n sum_q w_q [(mean_i cos(q step y_ij) - target_q)^2 + (mean_i sin(q step y_ij))^2]` for every column: `(m)`.
///
/// # Errors
/// Anything but a matrix with elements.
pub fn characteristic_error(y: &Tensor, step: f64, targets: &[f64], weights: &[f64]) -> Result<Tensor> {
    let (n, _) = matrix("characteristic_error", y)?;
    let mut sum = (y.get(0)? * 0.0)?;
    for (q, (target, weight)) in targets.iter().zip(weights).enumerate() {
        let phase = (y * (q as f64 * step))?;
        let (c, s) = ((phase.cos()?.mean(0)? - *target)?, phase.sin()?.mean(0)?);
        sum = (sum + ((c.sqr()? + s.sqr()?)? * (*weight * n as f64))?)?;
    }
    Ok(sum)
}
