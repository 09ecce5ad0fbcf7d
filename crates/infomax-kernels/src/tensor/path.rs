//! Which form of an operation a tensor gets.

use candle_core::{DType, Device, Tensor};
use infomax_simd::Isa;
use std::cell::Cell;

/// The form of an operation for a tensor: the one place where devices are told apart. A kernel for another device is
/// added in `device.rs`, before the composed form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// The kernels of this crate with an instruction set: f32 and f64 on the CPU.
    Cpu(Isa),
    /// A CUDA device: the kernels of `infomax-cuda` for f32 and bf16.
    Cuda,
    /// A Metal device: plain operations of Candle.
    Metal,
    /// Plain operations of Candle, for every other type on the CPU.
    Composed,
}

thread_local! {
    /// True within [`without_cpu_kernels`] on this thread.
    static ELSEWHERE: Cell<bool> = const { Cell::new(false) };
}

impl Path {
    /// The form for a tensor.
    pub(crate) fn of(xs: &Tensor) -> Self {
        match (xs.device(), xs.dtype()) {
            (Device::Cpu, DType::F32 | DType::F64) if !ELSEWHERE.get() => Self::Cpu(Isa::detect()),
            (Device::Cpu, _) => Self::Composed,
            (Device::Cuda(_), _) => Self::Cuda,
            (Device::Metal(_), _) => Self::Metal,
        }
    }
}

/// True if the CPU kernels of this crate take this tensor: f32 or f64 on the CPU. Code that has a form of its own for
/// the CPU, in the layouts of these kernels, asks this and not the device: see [`without_cpu_kernels`].
pub fn has_cpu_kernels(xs: &Tensor) -> bool {
    matches!(Path::of(xs), Path::Cpu(_))
}

/// Runs `f` with the forms that a device without kernels of ours would get, for tensors of the CPU too: every operation
/// is composed of Candle's own, on this thread.
///
/// Within it, kernels of this crate that are called on a tensor all the same, as they cannot be on a device, are an
/// error with their name. So a test of a model or of an objective shows on any machine that it would run on a device,
/// and that it gives the values and gradients of the CPU there. The backward pass belongs inside.
pub fn without_cpu_kernels<R>(f: impl FnOnce() -> R) -> R {
    with(true, f)
}

/// Runs `f`, whose tensors were brought to the host, as on the CPU: within [`without_cpu_kernels`] too.
pub fn on_the_host<R>(f: impl FnOnce() -> R) -> R {
    with(false, f)
}

/// Whether the storage of a tensor may be read directly here.
pub(crate) fn may_read() -> candle_core::Result<()> {
    match ELSEWHERE.get() {
        true => candle_core::bail!("a kernel of the CPU was called for a tensor that could be on a device"),
        false => Ok(()),
    }
}

fn with<R>(elsewhere: bool, f: impl FnOnce() -> R) -> R {
    /// Puts back what was there before, also when `f` panics.
    struct Back(bool);
    impl Drop for Back {
        fn drop(&mut self) {
            ELSEWHERE.set(self.0);
        }
    }
    let _back = Back(ELSEWHERE.replace(elsewhere));
    f()
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

    #[test]
    fn forms_of_a_device_end_with_their_scope() {
        let xs = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
        without_cpu_kernels(|| {
            assert_eq!(Path::of(&xs), Path::Composed);
            assert!(may_read().is_err());
            on_the_host(|| assert!(has_cpu_kernels(&xs) && may_read().is_ok()));
            assert!(!has_cpu_kernels(&xs));
        });
        assert!(std::panic::catch_unwind(|| without_cpu_kernels(|| panic!("within"))).is_err());
        assert!(has_cpu_kernels(&xs));
    }
}
