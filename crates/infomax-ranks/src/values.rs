//! Tensors as bytes, and sums of them.

use candle_core::{CpuStorage, DType, Device, Shape, Storage, Tensor};
use half::{bf16, f16};
use infomax_core::Result;

/// Appends the elements of a tensor, in its order.
pub(crate) fn append(out: &mut Vec<u8>, x: &Tensor) -> Result<()> {
    let x = x.to_device(&Device::Cpu)?.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        return Err(candle_core::Error::Msg("a copy on the CPU is not on the CPU".into()).into());
    };
    let range = layout.start_offset()..layout.start_offset() + layout.shape().elem_count();
    match storage {
        CpuStorage::F32(v) => out.extend_from_slice(bytemuck::cast_slice(&v[range])),
        CpuStorage::F64(v) => out.extend_from_slice(bytemuck::cast_slice(&v[range])),
        CpuStorage::U8(v) => out.extend_from_slice(&v[range]),
        CpuStorage::U32(v) => out.extend_from_slice(bytemuck::cast_slice(&v[range])),
        CpuStorage::I64(v) => out.extend_from_slice(bytemuck::cast_slice(&v[range])),
        CpuStorage::BF16(v) => out.extend(v[range].iter().flat_map(|x| x.to_bits().to_ne_bytes())),
        CpuStorage::F16(v) => out.extend(v[range].iter().flat_map(|x| x.to_bits().to_ne_bytes())),
        _ => return Err(unsupported(x.dtype()).into()),
    }
    Ok(())
}

/// The tensor of these bytes.
pub(crate) fn tensor(bytes: &[u8], dtype: DType, shape: &Shape, device: &Device) -> Result<Tensor> {
    fn of<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(bytes: &[u8]) -> Vec<T> {
        bytemuck::pod_collect_to_vec(bytes)
    }
    let storage = match dtype {
        DType::F32 => Tensor::from_vec(of::<f32>(bytes), shape, &Device::Cpu)?,
        DType::F64 => Tensor::from_vec(of::<f64>(bytes), shape, &Device::Cpu)?,
        DType::U8 => Tensor::from_vec(bytes.to_vec(), shape, &Device::Cpu)?,
        DType::U32 => Tensor::from_vec(of::<u32>(bytes), shape, &Device::Cpu)?,
        DType::I64 => Tensor::from_vec(of::<i64>(bytes), shape, &Device::Cpu)?,
        DType::BF16 => {
            let values: Vec<bf16> = of::<u16>(bytes).into_iter().map(bf16::from_bits).collect();
            Tensor::from_vec(values, shape, &Device::Cpu)?
        }
        DType::F16 => {
            let values: Vec<f16> = of::<u16>(bytes).into_iter().map(f16::from_bits).collect();
            Tensor::from_vec(values, shape, &Device::Cpu)?
        }
        other => return Err(unsupported(other).into()),
    };
    Ok(storage.to_device(device)?)
}

/// `sum += x`, element by element; half types are rounded after each sum, as Candle's own.
pub(crate) fn add(sum: &mut [u8], x: &[u8], dtype: DType) -> candle_core::Result<()> {
    fn typed<const N: usize>(sum: &mut [u8], x: &[u8], add: impl Fn([u8; N], [u8; N]) -> [u8; N]) {
        let (sums, _) = sum.as_chunks_mut::<N>();
        let (xs, _) = x.as_chunks::<N>();
        for (sum, x) in sums.iter_mut().zip(xs) {
            *sum = add(*sum, *x);
        }
    }
    macro_rules! plain {
        ($type:ty) => {
            |a, b| (<$type>::from_ne_bytes(a) + <$type>::from_ne_bytes(b)).to_ne_bytes()
        };
    }
    match dtype {
        DType::F32 => typed::<4>(sum, x, plain!(f32)),
        DType::F64 => typed::<8>(sum, x, plain!(f64)),
        DType::BF16 => typed::<2>(sum, x, plain!(bf16)),
        DType::F16 => typed::<2>(sum, x, plain!(f16)),
        // What is counted wraps around as in Candle's release builds, and does not panic.
        DType::U8 => typed::<1>(sum, x, |a, b| [a[0].wrapping_add(b[0])]),
        DType::U32 => {
            typed::<4>(sum, x, |a, b| u32::from_ne_bytes(a).wrapping_add(u32::from_ne_bytes(b)).to_ne_bytes())
        }
        DType::I64 => {
            typed::<8>(sum, x, |a, b| i64::from_ne_bytes(a).wrapping_add(i64::from_ne_bytes(b)).to_ne_bytes())
        }
        other => return Err(unsupported(other)),
    }
    Ok(())
}

fn unsupported(dtype: DType) -> candle_core::Error {
    candle_core::Error::Msg(format!(
        "tensors of {dtype:?} are not sent between ranks; convert them first (`to_dtype`)"
    ))
}
