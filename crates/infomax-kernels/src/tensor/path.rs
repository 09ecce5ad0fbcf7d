//! Which form of an operation a tensor gets.

use candle_core::{DType, Device, Tensor};
use infomax_simd::Isa;

/// The form of an operation for a tensor: the one place where devices are told apart. A kernel for another device is
/// added as a branch of the operation's function beside the composed form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// The kernels of this crate with an instruction set: f32 and f64 on the CPU.
    Cpu(Isa),
    /// A CUDA device.
    Cuda,
    /// A Metal device.
    Metal,
    /// Plain operations of Candle, for every other type on the CPU.
    Composed,
}

impl Path {
    /// The form for a tensor.
    pub(crate) fn of(xs: &Tensor) -> Self {
        match (xs.device(), xs.dtype()) {
            (Device::Cpu, DType::F32 | DType::F64) => Self::Cpu(Isa::detect()),
            (Device::Cpu, _) => Self::Composed,
            (Device::Cuda(_), _) => Self::Cuda,
            (Device::Metal(_), _) => Self::Metal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_has_kernels_for_its_float_types() {
        let xs = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
        assert_eq!(Path::of(&xs), Path::Cpu(Isa::detect()));
        assert_eq!(Path::of(&xs.to_dtype(DType::F64).unwrap()), Path::Cpu(Isa::detect()));
        for other in [DType::BF16, DType::F16, DType::U32] {
            assert_eq!(Path::of(&xs.to_dtype(other).unwrap()), Path::Composed);
        }
    }
}
