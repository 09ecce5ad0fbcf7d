//! Between Candle's tensors and slices of floats.

use crate::Result;
use candle_core::backend::BackendStorage as _;
use candle_core::{CpuStorage, DType, Device, Layout, Shape, Storage, Tensor, bail};
use infomax_simd::{Stored, Values};
use std::any::Any;

/// The tensor itself, or a copy in order; differentiable.
pub(crate) fn contiguous(xs: &Tensor) -> Result<Tensor> {
    Ok(if xs.is_contiguous() { xs.clone() } else { xs.contiguous()? })
}

/// The elements of a contiguous tensor.
pub(crate) fn slice<'a, T: Stored>(
    (storage, layout): (&'a CpuStorage, &Layout),
) -> candle_core::Result<&'a [T]> {
    super::path::may_read()?;
    match layout.contiguous_offsets() {
        Some((begin, end)) => Ok(&elements::<T>(storage)?[begin..end]),
        None => bail!("the tensor must be contiguous, its layout is {layout:?}"),
    }
}

/// Runs `f` on the elements of contiguous CPU tensors.
pub(crate) fn result<T: Stored, R>(xs: &[&Tensor], f: impl FnOnce(&[&[T]]) -> R) -> candle_core::Result<R> {
    super::path::may_read()?;
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
    from_storage(owned(values), shape)
}

/// A CPU tensor of values that are stored already.
pub(crate) fn from_storage(storage: CpuStorage, shape: &Shape) -> candle_core::Result<Tensor> {
    match storage {
        CpuStorage::F32(values) => Tensor::from_vec(values, shape, &Device::Cpu),
        CpuStorage::F64(values) => Tensor::from_vec(values, shape, &Device::Cpu),
        CpuStorage::BF16(values) => Tensor::from_vec(values, shape, &Device::Cpu),
        _ => bail!("only f32, f64 and bf16 are stored values"),
    }
}

/// All elements of a storage.
pub(crate) fn elements<T: Stored>(storage: &CpuStorage) -> candle_core::Result<&Vec<T>> {
    let values: &dyn Any = match storage {
        CpuStorage::F32(values) => values,
        CpuStorage::F64(values) => values,
        CpuStorage::BF16(values) => values,
        other => bail!("expected {}, got {:?}", std::any::type_name::<T>(), other.dtype()),
    };
    match values.downcast_ref() {
        Some(values) => Ok(values),
        None => bail!("expected {}, got {:?}", std::any::type_name::<T>(), storage.dtype()),
    }
}

/// Candle's storage of values.
pub(crate) fn owned<T: Stored>(values: Vec<T>) -> CpuStorage {
    match T::typed(values) {
        Values::F32(values) => CpuStorage::F32(values),
        Values::F64(values) => CpuStorage::F64(values),
        Values::Bf16(values) => CpuStorage::BF16(values),
    }
}

/// The name that Candle has for a type of values.
pub(crate) fn dtype<T: Stored>() -> DType {
    match std::any::TypeId::of::<T>() {
        id if id == std::any::TypeId::of::<f32>() => DType::F32,
        id if id == std::any::TypeId::of::<f64>() => DType::F64,
        _ => DType::BF16,
    }
}
