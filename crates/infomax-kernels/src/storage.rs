//! Between Candle's tensors and slices of floats.

use crate::Result;
use crate::stored::Stored;
use candle_core::{CpuStorage, DType, Device, Layout, Shape, Storage, Tensor, bail};

/// True if the kernels of this crate take this tensor.
pub(crate) fn on_cpu(xs: &Tensor) -> bool {
    xs.device().is_cpu() && matches!(xs.dtype(), DType::F32 | DType::F64)
}

/// The tensor itself, or a copy in order; differentiable.
pub(crate) fn contiguous(xs: &Tensor) -> Result<Tensor> {
    Ok(if xs.is_contiguous() { xs.clone() } else { xs.contiguous()? })
}

/// The elements of a contiguous tensor.
pub(crate) fn slice<'a, T: Stored>(
    (storage, layout): (&'a CpuStorage, &Layout),
) -> candle_core::Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((begin, end)) => Ok(&storage.as_slice::<T>()?[begin..end]),
        None => bail!("the tensor must be contiguous, its layout is {layout:?}"),
    }
}

/// Runs `f` on the elements of contiguous CPU tensors.
pub(crate) fn result<T: Stored, R>(xs: &[&Tensor], f: impl FnOnce(&[&[T]]) -> R) -> candle_core::Result<R> {
    let guards: Vec<_> = xs.iter().map(|x| x.storage_and_layout()).collect();
    let mut slices = Vec::with_capacity(xs.len());
    for (storage, layout) in &guards {
        match &**storage {
            Storage::Cpu(cpu) => slices.push(slice::<T>((cpu, layout))?),
            _ => bail!("the tensor must be on the CPU"),
        }
    }
    Ok(f(&slices))
}

/// A CPU tensor that owns `values`.
pub(crate) fn tensor<T: Stored>(values: Vec<T>, shape: &Shape) -> candle_core::Result<Tensor> {
    Tensor::from_vec(values, shape, &Device::Cpu)
}
