//! The Jacobian of an encoder at a point, by its own backward pass.

use crate::{Error, Result};
use candle_core::{DType, Device, Tensor, Var};

/// The Jacobian `A`, `A[o][i] = d f_o / d x_i`, shape `(D_out, D_in)` in f64 on the host, of an encoder at the point
/// `x`, whose shape is that of one sample without the axis of the batch and whose elements are counted row by row.
///
/// `rows_per_pass` copies of the point go through the encoder as one batch, and the backward pass of the sum of
/// another output of each copy gives as many rows at once: memory is that of one training step on `rows_per_pass`
/// samples, cost `D_out / rows_per_pass` such steps. Exact but for the rounding of the type of `x`; at kinks it is
/// the subgradient that the encoder's operations choose.
///
/// # Errors
/// No rows a pass, an output that is not `(rows, D_out)` with at least one column, values that are not finite, or an
/// output that does not depend on the input in a differentiable way.
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor};
/// # fn main() -> infomax_eval::Result<()> {
/// let w = Tensor::new(&[[1f64, 2.0], [0.0, -3.0]], &Device::Cpu)?; // (D_in, D_out)
/// let x = Tensor::new(&[0.5f64, 1.0], &Device::Cpu)?;
/// let a = infomax_eval::propagation::jacobian(|x| Ok(x.matmul(&w)?), &x, 8)?;
/// assert_eq!(a.to_vec2::<f64>()?, [[1.0, 0.0], [2.0, -3.0]]);
/// # Ok(())
/// # }
/// ```
pub fn jacobian(
    encoder: impl Fn(&Tensor) -> Result<Tensor>,
    x: &Tensor,
    rows_per_pass: usize,
) -> Result<Tensor> {
    const OP: &str = "jacobian";
    if rows_per_pass == 0 || x.elem_count() == 0 {
        let value = format!("{rows_per_pass} rows a pass, input {:?}", x.dims());
        let reason = "needs at least one row a pass and an input that is not empty";
        return Err(Error::Config { key: "jacobian.rows_per_pass", value, reason });
    }
    let inputs = x.elem_count();
    let point = x.detach().unsqueeze(0)?;
    let mut rows: Vec<f64> = Vec::new();
    let (mut start, mut outputs) = (0, 1);
    while start < outputs {
        // The first pass is of one row: it tells how many there are.
        let count = if start == 0 { 1 } else { rows_per_pass.min(outputs - start) };
        let mut dims = point.dims().to_vec();
        if let Some(first) = dims.first_mut() {
            *first = count;
        }
        let batch = Var::from_tensor(&point.broadcast_as(dims)?.contiguous()?)?;
        let z = encoder(batch.as_tensor())?;
        outputs = width(OP, &z, count)?;
        let mut pick = vec![0f64; count * outputs];
        for row in 0..count {
            pick[row * outputs + start + row] = 1.0;
        }
        let pick = Tensor::from_vec(pick, (count, outputs), &Device::Cpu)?;
        let sum = (&z * pick.to_device(z.device())?.to_dtype(z.dtype())?)?.sum_all()?;
        let grads = infomax_kernels::backward(&sum)?;
        let Some(grad) = grads.get(&batch) else {
            return Err(Error::Config {
                key: "encoder",
                value: format!("output {start}"),
                reason: "must depend on its input by differentiable operations",
            });
        };
        rows.extend(grad.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?);
        start += count;
    }
    let damaged: Vec<usize> = rows
        .chunks_exact(inputs)
        .enumerate()
        .filter(|(_, row)| row.iter().any(|v| !v.is_finite()))
        .map(|(o, _)| o)
        .collect();
    if !damaged.is_empty() {
        return Err(Error::NonFinite { op: OP, name: "the Jacobian", rows: damaged });
    }
    Ok(Tensor::from_vec(rows, (outputs, inputs), &Device::Cpu)?)
}

/// The columns of an output, which has a row for each sample.
pub(super) fn width(op: &'static str, z: &Tensor, rows: usize) -> Result<usize> {
    match z.dims() {
        [n, d] if *n == rows && *d > 0 => Ok(*d),
        got => Err(Error::Shape {
            op,
            name: "the encoder's output",
            expected: format!("({rows}, D) for {rows} samples"),
            got: got.to_vec(),
        }),
    }
}
