//! Functions of one element.

use crate::graph::node1;
use crate::launch::{Arg, Grid, Module, contiguous, device, empty, launch, pack, suffix, tensor};
use crate::{Function, Result};
use candle_core::Tensor;

/// `function(xs)`, element by element, f32 or bf16 (computed in f32).
///
/// # Gradient
/// The exact derivative, from `xs`.
///
/// # Errors
/// Another type; a tensor that is not on a CUDA device.
pub fn elementwise(xs: &Tensor, function: Function) -> Result<Tensor> {
    const OP: &str = "elementwise";
    let suffix = suffix(OP, xs)?;
    let device = device(OP, "xs", xs)?;
    let xs = contiguous(xs)?;
    let count = xs.elem_count();
    let packs = move |tensors: &[Option<&Tensor>]| if count.is_multiple_of(4) { pack(tensors) } else { 1 };
    let width = packs(&[Some(&xs)]);
    let mut ys = empty(&device, xs.dtype(), count)?;
    launch(
        &device,
        Module::Elementwise,
        &format!("unary_forward_{suffix}_{width}"),
        Grid::over(count / width),
        vec![Arg::Read(&xs), Arg::Write(&mut ys), Arg::U64(count as u64), Arg::U32(function as u32)],
    )?;
    let back = move |[x]: [&Tensor; 1], _: &Tensor, g: &Tensor| {
        let width = packs(&[Some(x), Some(g)]);
        let mut dx = empty(&device, x.dtype(), count)?;
        launch(
            &device,
            Module::Elementwise,
            &format!("unary_backward_{suffix}_{width}"),
            Grid::over(count / width),
            vec![
                Arg::Read(x),
                Arg::Read(g),
                Arg::Write(&mut dx),
                Arg::U64(count as u64),
                Arg::U32(function as u32),
            ],
        )?;
        Ok([Some(tensor(dx, x.shape()))])
    };
    Ok(node1(OP, &xs, ys, xs.shape(), back)?)
}
