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
    /// What [`Isa::Avx512Bf16`] has, and products of tiles of bf16 (AMX), where the processor and the operating system allow
    /// them: [`crate::tiles`].
    Amx,
    /// The pairs of [`Isa::Avx512Bf16`] in plain arithmetic.
    #[cfg(any(test, feature = "emulated"))]
    EmulatedBf16,
    /// The best vectors of this machine, and the tiles of [`Isa::Amx`] in plain arithmetic.
    #[cfg(any(test, feature = "emulated"))]
    EmulatedAmx,
}

/// The place in [`Isa::available`] of the best one that may be used.
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

/// The place of an emulated one.
#[cfg(any(test, feature = "emulated"))]
const EMULATED: usize = usize::MAX - 1;

impl Isa {
    /// The best instruction set of this machine, or that of [`Isa::limit_process`].
    pub fn detect() -> Self {
        let (available, limit) = (Self::available(), LIMIT.load(Ordering::Relaxed));
        #[cfg(any(test, feature = "emulated"))]
        if limit == EMULATED {
            return Self::EmulatedAmx;
        }
        *available.get(limit).or(available.last()).unwrap_or(&Self::Portable)
    }

    /// Every instruction set of this machine, the slowest first.
    pub fn available() -> &'static [Self] {
        #[cfg(target_arch = "x86_64")]
        {
            const ALL: &[Isa] = &[Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = avx2 && is_x86_feature_detected!("avx512f");
            let pairs =
                avx512 && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512bf16");
            let tiles = pairs && crate::tiles::unit().is_ok();
            &ALL[..1 + usize::from(avx2) + usize::from(avx512) + usize::from(pairs) + usize::from(tiles)]
        }
        #[cfg(not(target_arch = "x86_64"))]
        if cfg!(target_arch = "aarch64") { &[Self::Portable, Self::Neon] } else { &[Self::Portable] }
    }

    /// Every instruction set of this machine, and the emulated ones.
    #[cfg(any(test, feature = "emulated"))]
    pub fn tested() -> impl Iterator<Item = Self> {
        Self::available().iter().copied().chain([Self::EmulatedBf16, Self::EmulatedAmx])
    }

    /// Switches off every instruction set that is better than this one, for the operations of the whole process
    /// that start from now on: to compare, or to have the bits of another machine. On a machine without it
    /// nothing changes. Matrix products of the `gemm` and `faer` crates choose for themselves.
    pub fn limit_process(self) {
        let place = Self::available().iter().position(|isa| *isa == self);
        #[cfg(any(test, feature = "emulated"))]
        let place = if self == Self::EmulatedAmx { Some(EMULATED) } else { place };
        LIMIT.store(place.unwrap_or(usize::MAX), Ordering::Relaxed);
    }
}
