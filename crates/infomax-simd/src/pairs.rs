//! Dot products of pairs of bf16, summed in f32: the instruction `vdpbf16ps` of AVX512_BF16.
//!
//! For each lane, with `x = (x0, x1)` and `y = (y0, y1)` two pairs of bf16 and `c` an f32, it is two fused
//! multiply-adds, the upper half first:
//!
//! ```text
//! c = flush(fma(flush(x1), flush(y1), flush(c)))
//! c = flush(fma(flush(x0), flush(y0), c))
//! ```
//!
//! Each rounds once, to the nearest f32 with ties to even. `flush` makes zeros, with their sign, of subnormal
//! numbers: of operands and of results, whatever the modes of the thread are; for bf16 as for f32 they are those
//! below 2^-126 (1.2e-38). Infinities and NaN are those of f32. This is what the manuals specify; a machine that
//! sums otherwise is within the rounding of one f32 sum of it.

use crate::isa::Isa;
use crate::vectors::Simd;
use half::bf16;

/// Vectors that multiply pairs of bf16: 16 lanes, as the blocks of images.
///
/// # Safety
/// As [`Simd`]; pointers need no alignment.
#[allow(clippy::missing_safety_doc)]
pub unsafe trait Pairs: Simd<T = f32> {
    /// A register of `LANES` pairs.
    type P: Copy;
    /// `LANES` pairs that lie side by side.
    unsafe fn pairs(p: *const bf16) -> Self::P;
    /// Two lines of `LANES` values, the one after the other, as pairs of one of each.
    unsafe fn zip(p: *const bf16) -> Self::P;
    /// One line, in pairs with zeros.
    unsafe fn zip_zero(p: *const bf16) -> Self::P;
    /// A pair in all lanes.
    unsafe fn splat_pair(p: *const bf16) -> Self::P;
    /// `x0 * y0 + x1 * y1 + c` of each pair, in the order that the head of this module states.
    unsafe fn dot(x: Self::P, y: Self::P, c: Self::V) -> Self::V;
}

/// The work of one task with pairs.
pub trait PairKernel {
    /// # Safety
    /// The instruction set of `S` must be present. The implementation must be `inline(always)`.
    unsafe fn run<S: Pairs>(self);
}

/// An instruction set with pairs, which is present.
#[derive(Clone, Copy, Debug)]
pub struct PairIsa(Which);

#[derive(Clone, Copy, Debug)]
enum Which {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(any(test, feature = "emulated"))]
    Emulated,
}

impl PairIsa {
    /// That of `isa`, if it has one on this machine.
    pub fn of(isa: Isa) -> Option<Self> {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 | Isa::Amx if Isa::available().contains(&isa) => Some(Self(Which::Avx512)),
            #[cfg(any(test, feature = "emulated"))]
            Isa::EmulatedBf16 => Some(Self(Which::Emulated)),
            _ => None,
        }
    }

    /// Whether a dot product of pairs does more in the same time than multiply-adds in f32 of the same width: those of AMD, as far as
    /// steps of residual networks on a Zen 4 show. On those of Intel it did not: 65 GFLOP/s of one core of a Sapphire Rapids against 130, in loops of registers,
    /// an earlier measurement that was not repeated. A function of the processor alone; others count as those of Intel.
    pub fn pay(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Which::Avx512 => of_amd(),
            #[cfg(any(test, feature = "emulated"))]
            Which::Emulated => true,
        }
    }

    /// Runs `kernel`.
    pub fn dispatch<K: PairKernel>(self, kernel: K) {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512bf16")]
        unsafe fn avx512<K: PairKernel>(kernel: K) {
            // SAFETY: AVX-512 and its dot products are enabled here.
            unsafe { kernel.run::<crate::vectors::x86::F32x16>() }
        }
        #[cfg(not(any(target_arch = "x86_64", test, feature = "emulated")))]
        drop(kernel);
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the features were detected when `self` was made.
            Which::Avx512 => unsafe { avx512(kernel) },
            #[cfg(any(test, feature = "emulated"))]
            // SAFETY: plain arithmetic.
            Which::Emulated => unsafe { kernel.run::<Emulated>() },
        }
    }
}

/// Whether the processor is one of AMD.
#[cfg(target_arch = "x86_64")]
fn of_amd() -> bool {
    static FOUND: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *FOUND.get_or_init(|| {
        // SAFETY: a processor with AVX-512, which alone asks, has the instruction.
        #[allow(unused_unsafe)]
        let leaf = unsafe { std::arch::x86_64::__cpuid(0) };
        // "AuthenticAMD" in three registers.
        (leaf.ebx, leaf.edx, leaf.ecx) == (0x6874_7541, 0x6974_6e65, 0x444d_4163)
    })
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! The instruction itself.

    use super::{Pairs, bf16};
    use crate::vectors::x86::F32x16;
    use std::arch::x86_64::*;

    /// Words 0 to 15 in the lower halves of the pairs, 16 to 31 in the upper ones.
    const ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 16 {
            order[2 * i] = i as u16;
            order[2 * i + 1] = 16 + i as u16;
            i += 1;
        }
        order
    };

    // SAFETY: the intrinsics need the features that `PairIsa` detects; pointers are used unaligned.
    unsafe impl Pairs for F32x16 {
        type P = __m512i;

        #[inline(always)]
        unsafe fn pairs(p: *const bf16) -> __m512i {
            // SAFETY: as for the whole implementation.
            unsafe { _mm512_loadu_si512(p.cast()) }
        }

        #[inline(always)]
        unsafe fn zip(p: *const bf16) -> __m512i {
            // SAFETY: as for the whole implementation.
            unsafe {
                // Miri knows no permutation of words.
                if cfg!(miri) {
                    let upper = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.add(16).cast()));
                    return _mm512_or_si512(_mm512_slli_epi32::<16>(upper), Self::zip_zero(p));
                }
                let order = _mm512_loadu_si512(ORDER.as_ptr().cast());
                _mm512_permutexvar_epi16(order, _mm512_loadu_si512(p.cast()))
            }
        }

        #[inline(always)]
        unsafe fn zip_zero(p: *const bf16) -> __m512i {
            // SAFETY: as for the whole implementation.
            unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())) }
        }

        #[inline(always)]
        unsafe fn splat_pair(p: *const bf16) -> __m512i {
            // SAFETY: as for the whole implementation.
            unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
        }

        #[inline(always)]
        unsafe fn dot(x: __m512i, y: __m512i, c: __m512) -> __m512 {
            // SAFETY: as for the whole implementation; the types are 64 bytes of any contents.
            unsafe {
                // Miri does not know the instruction.
                #[cfg(miri)]
                return std::mem::transmute::<[f32; 16], __m512>(super::dots(
                    std::mem::transmute::<__m512i, [[bf16; 2]; 16]>(x),
                    std::mem::transmute::<__m512i, [[bf16; 2]; 16]>(y),
                    std::mem::transmute::<__m512, [f32; 16]>(c),
                ));
                #[cfg(not(miri))]
                _mm512_dpbf16_ps(
                    c,
                    std::mem::transmute::<__m512i, __m512bh>(x),
                    std::mem::transmute::<__m512i, __m512bh>(y),
                )
            }
        }
    }
}

/// [`Pairs::dot`] in plain arithmetic. (A result just below 2^-126 that rounds up to it is kept here.)
#[cfg(any(test, miri, feature = "emulated"))]
fn dots(x: [[bf16; 2]; 16], y: [[bf16; 2]; 16], c: [f32; 16]) -> [f32; 16] {
    use crate::element::Stored as _;
    let flush = |x: f32| if x.is_subnormal() { 0f32.copysign(x) } else { x };
    std::array::from_fn(|i| {
        [1, 0]
            .into_iter()
            .fold(c[i], |c, half| flush(flush(x[i][half].wide()).mul_add(flush(y[i][half].wide()), flush(c))))
    })
}

#[cfg(any(test, feature = "emulated"))]
pub use emulated::Emulated;

#[cfg(any(test, feature = "emulated"))]
mod emulated {
    //! The vectors of `F32x16` as arrays, with the same roundings and orders: what machines with the instruction
    //! compute, on those without.

    use super::{Pairs, bf16, dots};
    use crate::element::Stored as _;
    use crate::vectors::Simd;

    /// Sixteen lanes in plain arithmetic.
    #[derive(Clone, Copy, Debug)]
    pub struct Emulated;

    // SAFETY: plain arithmetic; pointers are used as the trait allows.
    unsafe impl Simd for Emulated {
        type T = f32;
        type V = [f32; 16];
        const LANES: usize = 16;
        type Arith = crate::lanes::Fused;
        const WIDE: bool = true;
        unsafe fn splat(x: f32) -> Self::V {
            [x; 16]
        }
        unsafe fn load(p: *const f32) -> Self::V {
            // SAFETY: the caller's pointer is valid for LANES elements.
            unsafe { p.cast::<Self::V>().read_unaligned() }
        }
        unsafe fn store(p: *mut f32, v: Self::V) {
            // SAFETY: the caller may write LANES values through `p`; the store needs no alignment.
            unsafe { p.cast::<Self::V>().write_unaligned(v) }
        }
        unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
        }
        unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
            std::array::from_fn(|i| a[i] + b[i])
        }
        unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
            std::array::from_fn(|i| a[i] - b[i])
        }
        unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
            std::array::from_fn(|i| a[i] * b[i])
        }
        unsafe fn relu(x: Self::V) -> Self::V {
            x.map(|x| if x <= 0.0 { 0.0 } else { x })
        }
        unsafe fn keep_positive(x: Self::V, y: Self::V) -> Self::V {
            std::array::from_fn(|i| if y[i] > 0.0 { x[i] } else { 0.0 })
        }
        unsafe fn sum(v: Self::V) -> f32 {
            // In halves, as the intrinsic.
            let eight: [f32; 8] = std::array::from_fn(|i| v[i] + v[i + 8]);
            let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
            (four[0] + four[2]) + (four[1] + four[3])
        }
        unsafe fn load_bf16(p: *const bf16) -> Self::V {
            // SAFETY: the caller's pointer is valid for LANES elements.
            unsafe { p.cast::<[bf16; 16]>().read_unaligned().map(bf16::wide) }
        }
        unsafe fn store_bf16(p: *mut bf16, v: Self::V) {
            // SAFETY: the caller may write LANES bf16 through `p`; the store needs no alignment.
            unsafe { p.cast::<[bf16; 16]>().write_unaligned(v.map(bf16::narrow)) }
        }
        unsafe fn round_bf16(v: Self::V) -> Self::V {
            v.map(|x| bf16::narrow(x).wide())
        }
    }

    // SAFETY: plain arithmetic; every pointer is read for no more elements than its method requires.
    unsafe impl Pairs for Emulated {
        type P = [[bf16; 2]; 16];
        unsafe fn pairs(p: *const bf16) -> Self::P {
            // SAFETY: the caller's pointer is valid for LANES pairs.
            unsafe { p.cast::<Self::P>().read_unaligned() }
        }
        unsafe fn zip(p: *const bf16) -> Self::P {
            // SAFETY: the caller may read two lines of LANES values at `p`, one after the other.
            let lines = unsafe { p.cast::<[[bf16; 16]; 2]>().read_unaligned() };
            std::array::from_fn(|i| [lines[0][i], lines[1][i]])
        }
        unsafe fn zip_zero(p: *const bf16) -> Self::P {
            // SAFETY: the caller may read one line of LANES values at `p`.
            let line = unsafe { p.cast::<[bf16; 16]>().read_unaligned() };
            line.map(|x| [x, bf16::ZERO])
        }
        unsafe fn splat_pair(p: *const bf16) -> Self::P {
            // SAFETY: the caller may read one pair at `p`.
            [unsafe { p.cast::<[bf16; 2]>().read_unaligned() }; 16]
        }
        unsafe fn dot(x: Self::P, y: Self::P, c: Self::V) -> Self::V {
            dots(x, y, c)
        }
    }
}

#[cfg(test)]
mod tests;
