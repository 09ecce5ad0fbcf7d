//! Shared inputs of the benchmarks: fixed seeds, sizes that shrink when a benchmark only has to run.

use candle_core::{DType, Device, Tensor, Var};
use infomax_core::{Key, Result};

/// Whether the benchmarks only have to run once, as under `cargo test`: cargo passes `--bench` when it measures.
pub fn smoke() -> bool {
    let mut measuring = false;
    for arg in std::env::args() {
        match arg.as_str() {
            "--test" => return true,
            "--bench" => measuring = true,
            _ => {}
        }
    }
    !measuring
}

/// `measured` when measuring, `smoke` when the benchmark only has to run.
pub fn size(measured: usize, when_smoke: usize) -> usize {
    if smoke() { when_smoke } else { measured }
}

/// Standard normal values in f32 on the CPU; the same for the same name and shape.
///
/// # Errors
/// A shape that does not fit in memory.
pub fn normal(name: &str, shape: &[usize]) -> Result<Tensor> {
    Key::new(0).fold_named(name).normal(0.0, 1.0, shape, DType::F32, &Device::Cpu)
}

/// The same, as a variable that takes a gradient.
///
/// # Errors
/// Those of [`normal`].
pub fn variable(name: &str, shape: &[usize]) -> Result<Var> {
    Ok(Var::from_tensor(&normal(name, shape)?)?)
}

/// An identifier `device/op/dtype/shape` of a benchmark on the CPU in f32.
pub fn id(op: &str, shape: &[usize]) -> String {
    let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("cpu/{op}/f32/{}", shape.join("x"))
}
