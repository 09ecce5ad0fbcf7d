//! The orthogonalization of Muon.

use super::sum_squares;
use crate::{Result, device, linear};
use candle_core::{DType, Tensor};

/// Newton-Schulz iterations of the fifth order on a matrix `G` `(rows, columns)` (Jordan et al., 2024,
/// <https://kellerjordan.github.io/posts/muon/>), detached: `X = G / (||G|| + 1e-7)`, then `steps` times
/// `X <- a X + (b A + c A^2) X` with `A = X X^T` and the `coefficients` `(a, b, c)`, on the side with fewer rows.
///
/// `G` is f64, or is computed in f32, and the result has the type of the computation. On a CUDA device the sums are taken
/// within the products, and the norm does not come to the host.
///
/// # Errors
/// A tensor that is no matrix, or has no elements.
pub fn newton_schulz(g: &Tensor, steps: usize, coefficients: [f64; 3]) -> Result<Tensor> {
    let (rows, columns) = crate::moments::columns::matrix("newton_schulz", g)?;
    let wide = if g.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let g = g.detach().to_dtype(wide)?;
    if let Some(x) = device::newton_schulz(&g, steps, coefficients)? {
        return Ok(x);
    }
    let [a, b, c] = coefficients;
    // The products are of the smaller side.
    let g = if rows > columns { g.t()?.contiguous()? } else { g.contiguous()? };
    let norm = sum_squares(&g, 0.0, &g)?.sqrt();
    let mut x = (g / (norm + 1e-7))?;
    for _ in 0..steps {
        let square = linear(&x, &x, None)?;
        let m = ((&square * b)? + (linear(&square, &square, None)? * c)?)?;
        x = ((&x * a)? + linear(&m, &x.t()?.contiguous()?, None)?)?;
    }
    Ok(if rows > columns { x.t()?.contiguous()? } else { x })
}
