//! Golden files, and comparison of an objective's value and gradients with them.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Each test binary uses a part.

use candle_core::{DType, Device, Tensor, Var};
use infomax_core::{Context, Embeddings, Objective};
pub use infomax_testing::assert_close;
use infomax_testing::{Tolerance, read_npy};
use std::path::PathBuf;

pub mod catalog;

pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

pub fn tensor(name: &str) -> Tensor {
    read_npy(path(name)).unwrap()
}

pub fn json(name: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(path(name)).unwrap()).unwrap()
}

pub fn scalar(value: f64) -> Tensor {
    Tensor::new(value, &Device::Cpu).unwrap()
}

pub fn number(x: &Tensor) -> f64 {
    x.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

/// The tolerance of the golden data for a dtype.
pub fn tolerance(dtype: DType) -> Tolerance {
    match dtype {
        DType::F64 => Tolerance { rel: 1e-9, abs: 1e-13 },
        _ => Tolerance { rel: 1e-5, abs: 1e-6 },
    }
}

/// Value and gradients with respect to all inputs.
pub fn value_and_grads(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Tensor) -> (Tensor, Vec<Tensor>) {
    let vars: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let value = f(&tensors);
    let grads = value.backward().unwrap();
    let grads =
        tensors.iter().map(|t| grads.get(t).cloned().unwrap_or_else(|| t.zeros_like().unwrap())).collect();
    (value.detach(), grads)
}

/// Holds `f` against the value and gradients of a golden record, in f64 and f32.
pub fn check(
    group: &str,
    case: &str,
    key: &str,
    inputs: &[&str],
    loosen: f64,
    f: impl Fn(&[Tensor]) -> Tensor,
) {
    let index = json(&format!("{group}/{group}.json"));
    let golden = &index[case][key];
    let expected = golden["value"].as_f64().unwrap_or_else(|| panic!("{key}: no value"));
    for dtype in [DType::F64, DType::F32] {
        let mut tolerance = tolerance(dtype);
        if dtype == DType::F32 {
            tolerance.rel *= loosen;
            tolerance.abs *= loosen;
        }
        let xs: Vec<Tensor> = inputs.iter().map(|x| tensor(x).to_dtype(dtype).unwrap()).collect();
        let (value, grads) = value_and_grads(&xs, &f);
        assert_close(
            &format!("{key} {dtype:?}"),
            &value.to_dtype(DType::F64).unwrap(),
            &scalar(expected),
            tolerance,
        );
        for (i, grad) in grads.iter().enumerate() {
            if let Some(file) = golden[format!("grad_z{}", i + 1)].as_str() {
                let file = tensor(file);
                assert_close(
                    &format!("{key} {dtype:?} gradient {i}"),
                    &grad.to_dtype(DType::F64).unwrap(),
                    &file,
                    tolerance,
                );
            }
        }
    }
}

/// The total of an objective on projections.
pub fn total(objective: &dyn Objective, views: &[Tensor]) -> Tensor {
    let z = Embeddings::new(infomax_core::Views::new(views.to_vec()).unwrap());
    objective.evaluate(&z, &Context::standalone()).unwrap().total
}
