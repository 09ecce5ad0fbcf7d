//! Distances between empirical characteristic functions and a symmetric target.

use crate::graph::node1;
use crate::launch::{Arg, Module, empty, launch, tensor};
use crate::moments::{Columns, line};
use crate::{Error, Result};
use candle_core::{DType, Tensor};

/// Points of the grid in one launch, as in the kernels.
const POINTS: usize = 24;

/// `n sum_q w_q [(mean_i cos(q step y_ij) - target_q)^2 + (mean_i sin(q step y_ij))^2]` for every column of `y`
/// `(n, m)`, f32: shape `(m)`.
///
/// # Gradient
/// `g_j sum_q 2 w_q t_q [mean sin cos(t_q y_ij) - (mean cos - target_q) sin(t_q y_ij)]` with `t_q = q step`.
///
/// # Numerics
/// One cosine and one sine an element for up to 24 points, the other points by rotation. Rows are added in f32 within parts
/// and the parts in f64, in an order that depends on the shape alone.
///
/// # Errors
/// Anything but an f32 matrix with elements on a CUDA device; numbers of targets and weights that differ, or are zero.
pub fn characteristic_error(y: &Tensor, step: f64, targets: &[f64], weights: &[f64]) -> Result<Tensor> {
    const OP: &str = "characteristic_error";
    if targets.is_empty() || targets.len() != weights.len() {
        let expected = "as many numbers as targets, at least one".into();
        let got = vec![targets.len(), weights.len()];
        return Err(Error::Shape { op: OP, name: "weights", expected, got });
    }
    let (columns, y) = Columns::new(OP, y)?;
    let (cuda, n, m) = (columns.device.clone(), columns.n, columns.d);
    let knots = targets.len();
    let there = |values: &[f64]| Tensor::from_slice(values, values.len(), y.device());
    let (targets, weights) = (there(targets)?, there(weights)?);
    let mut cosines = empty(&cuda, DType::F64, knots * m)?;
    let mut sines = empty(&cuda, DType::F64, knots * m)?;
    let mut errors = empty(&cuda, DType::F64, m)?;
    let mut values = empty(&cuda, DType::F32, m)?;
    for first in (0..knots).step_by(POINTS) {
        let points = POINTS.min(knots - first);
        let mut sums = empty(&cuda, DType::F32, columns.count * 2 * points * m)?;
        let args = vec![
            Arg::Read(&y),
            Arg::Write(&mut sums),
            Arg::U32(n as u32),
            Arg::U32(m as u32),
            Arg::U32(points as u32),
            Arg::U32(first as u32),
            Arg::F32(step as f32),
            Arg::U32(columns.per),
        ];
        launch(&cuda, Module::Characteristic, "wave_sums", columns.grid(), args)?;
        let sums = tensor(sums, columns.count * 2 * points * m);
        let args = vec![
            Arg::Read(&sums),
            Arg::Read(&targets),
            Arg::Read(&weights),
            Arg::Write(&mut cosines),
            Arg::Write(&mut sines),
            Arg::Write(&mut errors),
            Arg::Write(&mut values),
            Arg::U32(n as u32),
            Arg::U32(m as u32),
            Arg::U32(points as u32),
            Arg::U32(first as u32),
            Arg::U32(columns.count as u32),
        ];
        launch(&cuda, Module::Characteristic, "wave_errors", line(m), args)?;
    }
    let (cosines, sines) = (tensor(cosines, (knots, m)), tensor(sines, (knots, m)));
    Ok(node1(OP, &y, values, m, move |[y], _, g| {
        let mut dy = empty(&columns.device, DType::F32, n * m)?;
        for first in (0..knots).step_by(POINTS) {
            let args = vec![
                Arg::Read(y),
                Arg::Read(&cosines),
                Arg::Read(&sines),
                Arg::Read(&weights),
                Arg::Read(g),
                Arg::Write(&mut dy),
                Arg::U32(n as u32),
                Arg::U32(m as u32),
                Arg::U32(POINTS.min(knots - first) as u32),
                Arg::U32(first as u32),
                Arg::F64(step),
                Arg::U32(columns.per),
            ];
            launch(&columns.device, Module::Characteristic, "wave_slopes", columns.grid(), args)?;
        }
        Ok([Some(tensor(dy, (n, m)))])
    })?)
}
