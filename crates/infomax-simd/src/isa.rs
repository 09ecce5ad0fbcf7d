//! The instruction sets that the kernels are compiled for, and the choice at run time.

use std::sync::atomic::{AtomicUsize, Ordering};

/// An instruction set that the kernels are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Arrays of floats, left to the compiler.
    Portable,
    /// 128-bit vectors of aarch64, with fused multiply-add.
    Neon,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// 512-bit vectors.
    Avx512,
    /// 512-bit vectors, and for maps in bf16 the dot products of pairs of bf16 (AVX512_BF16).
    Avx512Bf16,
    /// The pairs of [`Isa::Avx512Bf16`] in plain arithmetic.
    #[cfg(any(test, feature = "emulated"))]
    EmulatedBf16,
}

/// The place in [`Isa::available`] of the best one that may be used.
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

impl Isa {
    /// The best instruction set of this machine, or that of [`Isa::limit_process`].
    pub fn detect() -> Self {
        let (available, limit) = (Self::available(), LIMIT.load(Ordering::Relaxed));
        *available.get(limit).or(available.last()).unwrap_or(&Self::Portable)
    }

    /// Every instruction set of this machine, the slowest first.
    pub fn available() -> &'static [Self] {
        #[cfg(target_arch = "x86_64")]
        {
            const ALL: &[Isa] = &[Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16];
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = avx2 && is_x86_feature_detected!("avx512f");
            let pairs =
                avx512 && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512bf16");
            &ALL[..1 + usize::from(avx2) + usize::from(avx512) + usize::from(pairs)]
        }
        #[cfg(not(target_arch = "x86_64"))]
        if cfg!(target_arch = "aarch64") { &[Self::Portable, Self::Neon] } else { &[Self::Portable] }
    }

    /// Every instruction set of this machine, and the emulated one.
    #[cfg(any(test, feature = "emulated"))]
    pub fn tested() -> impl Iterator<Item = Self> {
        Self::available().iter().copied().chain([Self::EmulatedBf16])
    }

    /// Switches off every instruction set that is better than this one, for the operations of the whole process
    /// that start from now on: to compare, or to have the bits of another machine. On a machine without it
    /// nothing changes. Matrix products of the `gemm` and `faer` crates choose for themselves.
    pub fn limit_process(self) {
        let place = Self::available().iter().position(|isa| *isa == self);
        LIMIT.store(place.unwrap_or(usize::MAX), Ordering::Relaxed);
    }
}
