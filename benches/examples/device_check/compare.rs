//! Values and gradients of two forms of one function.

use anyhow::{Result, anyhow};
use candle_core::{DType, Device, Tensor, Var};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The rows so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Objectives that are left out, as they ran before.
    pub(crate) skip: usize,
}

impl Report {
    pub(crate) fn failed(&mut self, name: &str, why: &str) {
        self.failed += 1;
        println!("FAILED {name}: {}", why.replace('\n', " | "));
    }

    /// A row that holds where `worst` is at most `tolerance`.
    pub(crate) fn row(&mut self, name: &str, worst: Result<Worst>, tolerance: f64) {
        match worst {
            Ok(worst) if worst.error <= tolerance => {
                self.passed += 1;
                println!("ok {name}: {:.1e} ({}) of {tolerance:.0e}", worst.error, worst.what);
            }
            Ok(worst) => {
                let why = format!("{:.2e} ({}) is above {tolerance:.0e}", worst.error, worst.what);
                self.failed(name, &why);
            }
            Err(error) => self.failed(name, &format!("{error:#}")),
        }
    }
}

/// The largest relative error, and of what.
#[derive(Clone, Debug)]
pub(crate) struct Worst {
    pub(crate) error: f64,
    pub(crate) what: String,
}

impl Worst {
    pub(crate) fn none() -> Self {
        Self { error: 0.0, what: "nothing".into() }
    }

    /// Takes `error` in if it is larger, or not a number.
    pub(crate) fn take(&mut self, what: &str, error: f64) {
        // NaN stays, and is above every tolerance as infinity.
        let error = if error.is_nan() { f64::INFINITY } else { error };
        if error >= self.error {
            *self = Self { error, what: what.to_owned() };
        }
    }
}

/// Normal numbers from a counter and a seed, f64 on the CPU.
pub(crate) fn draw(shape: &[usize], seed: u64) -> Result<Tensor> {
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let uniform = |i: u64| {
        let bits = mix(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ mix(seed.wrapping_add(1)));
        ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    let count: usize = shape.iter().product();
    let normal =
        |i: u64| (-2.0 * uniform(2 * i).ln()).sqrt() * (std::f64::consts::TAU * uniform(2 * i + 1)).cos();
    Ok(Tensor::from_vec((0..count as u64).map(normal).collect::<Vec<f64>>(), shape, &Device::Cpu)?)
}

/// `|got - expected| / |expected|`, in f64 on the CPU.
pub(crate) fn error(got: &Tensor, expected: &Tensor) -> Result<f64> {
    if got.dims() != expected.dims() {
        return Err(anyhow!("shape {:?} instead of {:?}", got.dims(), expected.dims()));
    }
    let got = got.to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    let norm = |t: &Tensor| -> Result<f64> { Ok(t.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt()) };
    let (distance, size) = (norm(&(got - expected)?)?, norm(expected)?);
    Ok(if size > 0.0 { distance / size } else { distance })
}

/// An input of a function: f64 on the CPU, and the type that it has on the device.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) values: Tensor,
    pub(crate) dtype: DType,
}

/// Inputs of one type.
pub(crate) fn inputs(dtype: DType, values: &[Tensor]) -> Vec<Input> {
    values.iter().map(|v| Input { values: v.clone(), dtype }).collect()
}

/// A function of some tensors.
pub(crate) trait Function: Fn(&[Tensor]) -> Result<Tensor> {}
impl<F: Fn(&[Tensor]) -> Result<Tensor>> Function for F {}

/// Value and gradients of `f` at `inputs`, with the cotangent `cot` of the value.
fn both(inputs: &[Tensor], f: impl Function, seed: u64) -> Result<(Tensor, Vec<Tensor>)> {
    let vars = inputs.iter().map(Var::from_tensor).collect::<candle_core::Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let value = f(&tensors)?;
    let wide = if value.dtype() == DType::BF16 { value.to_dtype(DType::F32)? } else { value.clone() };
    let cot =
        draw(value.dims(), seed)?.to_dtype(DType::F32)?.to_dtype(wide.dtype())?.to_device(wide.device())?;
    let grads = (wide * cot)?.sum_all()?.backward()?;
    let grad =
        |(i, t): (usize, &Tensor)| grads.get(t).cloned().ok_or_else(|| anyhow!("no gradient of input {i}"));
    let grads = tensors.iter().enumerate().map(grad).collect::<Result<Vec<_>>>()?;
    Ok((value.detach(), grads))
}

/// The largest error of value and gradients of `fast` on the device against `reference` in f64 on the CPU, both at
/// the inputs rounded to their types.
pub(crate) fn versus(
    device: &Device,
    inputs: &[Input],
    fast: impl Function,
    reference: impl Function,
) -> Result<Worst> {
    let given: Vec<Tensor> =
        inputs.iter().map(|i| Ok(i.values.to_dtype(i.dtype)?)).collect::<Result<Vec<_>>>()?;
    let exact = given.iter().map(|t| Ok(t.to_dtype(DType::F64)?)).collect::<Result<Vec<_>>>()?;
    let there = given.iter().map(|t| Ok(t.to_device(device)?)).collect::<Result<Vec<_>>>()?;
    let (value, grads) = both(&exact, reference, 77)?;
    let (got, got_grads) = guarded(|| both(&there, fast, 77))?;
    let mut worst = Worst::none();
    worst.take("value", error(&got, &value)?);
    for (i, (got, expected)) in got_grads.iter().zip(&grads).enumerate() {
        worst.take(&format!("gradient {i}"), error(got, expected)?);
    }
    Ok(worst)
}

/// A panic as an error.
pub(crate) fn guarded<R>(f: impl FnOnce() -> Result<R>) -> Result<R> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(anyhow!("panicked: {}", text.unwrap_or_default()))
        }
    }
}
