//! Checked access to the matrices that evaluations take.

use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};

/// A matrix on the host in f32, checked to be finite and not empty.
pub(crate) fn host(op: &'static str, name: &'static str, x: &Tensor) -> Result<Tensor> {
    let refuse = |expected: &str| {
        Err(Error::Shape { op, name, expected: expected.to_owned(), got: x.dims().to_vec() })
    };
    if x.rank() != 2 || x.elem_count() == 0 {
        return refuse("a matrix (samples, dimensions) with at least one of each");
    }
    let x = x.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?.contiguous()?;
    let d = x.dims()[1];
    let values = x.flatten_all()?.to_vec1::<f32>()?;
    match values.iter().position(|v| !v.is_finite()) {
        Some(i) => Err(Error::NonFinite { op, name, row: i / d }),
        None => Ok(x),
    }
}

/// [`host`] with as many labels as rows.
pub(crate) fn labeled(op: &'static str, name: &'static str, x: &Tensor, labels: &[u32]) -> Result<Tensor> {
    let x = host(op, name, x)?;
    if x.dims()[0] != labels.len() {
        return Err(Error::Labels { op, name, rows: x.dims()[0], labels: labels.len() });
    }
    Ok(x)
}

/// A train and a test set of one width.
pub(crate) fn same_width(op: &'static str, train: &Tensor, test: &Tensor) -> Result<()> {
    if train.dims()[1] != test.dims()[1] {
        return Err(Error::Shape {
            op,
            name: "test",
            expected: format!("(samples, {}) like train", train.dims()[1]),
            got: test.dims().to_vec(),
        });
    }
    Ok(())
}

/// The number of classes: one more than the largest label.
pub(crate) fn classes(op: &'static str, train: &[u32], test: &[u32]) -> Result<usize> {
    let first = train.first().copied().unwrap_or(0);
    if train.iter().all(|&label| label == first) {
        return Err(Error::OneClass { op, class: first });
    }
    let largest = train.iter().chain(test).copied().max().unwrap_or(0);
    if largest >= 1_000_000 {
        return Err(Error::Config {
            key: "labels",
            value: largest.to_string(),
            reason: "classes are numbered from 0 without gaps",
        });
    }
    Ok(largest as usize + 1)
}
