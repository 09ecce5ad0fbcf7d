//! The vectors of aarch64. Every aarch64 has NEON, so nothing is detected.

use crate::vectors::Simd;
use half::bf16;
use std::arch::aarch64::*;

macro_rules! vector {
    ($name:ident, $t:ty, $v:ty, $lanes:literal, $splat:ident, $load:ident, $store:ident, $fma:ident, $add:ident,
     $sub:ident, $mul:ident, $max:ident, |$x:ident, $y:ident| $keep:expr, $transpose:ident
     $(; $load_bf16:ident, $store_bf16:ident, $round_bf16:ident)?) => {
        #[derive(Clone, Copy)]
        pub struct $name;

        // SAFETY: NEON is part of the target; pointers are used unaligned, for LANES elements.
        unsafe impl Simd for $name {
            type T = $t;
            type V = $v;
            const LANES: usize = $lanes;
            type Arith = crate::lanes::Fused;
            const WIDE: bool = true;
            #[inline(always)]
            unsafe fn splat(x: $t) -> $v {
                // SAFETY: as for the whole implementation.
                unsafe { $splat(x) }
            }
            #[inline(always)]
            unsafe fn load(p: *const $t) -> $v {
                // SAFETY: as for the whole implementation.
                unsafe { $load(p) }
            }
            #[inline(always)]
            unsafe fn store(p: *mut $t, v: $v) {
                // SAFETY: as for the whole implementation.
                unsafe { $store(p, v) }
            }
            #[inline(always)]
            unsafe fn fma(a: $v, b: $v, c: $v) -> $v {
                // SAFETY: as for the whole implementation. The instruction adds to its first operand.
                unsafe { $fma(c, a, b) }
            }
            #[inline(always)]
            unsafe fn add(a: $v, b: $v) -> $v {
                // SAFETY: as for the whole implementation.
                unsafe { $add(a, b) }
            }
            #[inline(always)]
            unsafe fn sub(a: $v, b: $v) -> $v {
                // SAFETY: as for the whole implementation.
                unsafe { $sub(a, b) }
            }
            #[inline(always)]
            unsafe fn mul(a: $v, b: $v) -> $v {
                // SAFETY: as for the whole implementation.
                unsafe { $mul(a, b) }
            }
            #[inline(always)]
            unsafe fn transpose(from: *const $t, from_pitch: usize, to: *mut $t, to_pitch: usize) {
                // SAFETY: as for the whole implementation; the squares are the caller's.
                unsafe { $transpose(from, from_pitch, to, to_pitch) }
            }
            #[inline(always)]
            unsafe fn relu(x: $v) -> $v {
                // SAFETY: as for the whole implementation. A NaN comes through this instruction.
                unsafe { $max(x, $splat(0.0)) }
            }
            #[inline(always)]
            unsafe fn keep_positive($x: $v, $y: $v) -> $v {
                // SAFETY: as for the whole implementation.
                unsafe { $keep }
            }
            #[inline(always)]
            unsafe fn sum(v: $v) -> $t {
                let mut lanes = [0.0; $lanes];
                // SAFETY: as for the whole implementation.
                unsafe { $store(lanes.as_mut_ptr(), v) };
                // The order of the portable form: both give the same bits.
                lanes[1..].iter().fold(lanes[0], |sum, x| sum + x)
            }
            $(
                #[inline(always)]
                unsafe fn load_bf16(p: *const bf16) -> $v {
                    // SAFETY: as for the whole implementation.
                    unsafe { $load_bf16(p.cast()) }
                }
                #[inline(always)]
                unsafe fn store_bf16(p: *mut bf16, v: $v) {
                    // SAFETY: as for the whole implementation.
                    unsafe { $store_bf16(p.cast(), v) }
                }
                #[inline(always)]
                unsafe fn round_bf16(v: $v) -> $v {
                    // SAFETY: as for the whole implementation.
                    unsafe { $round_bf16(v) }
                }
            )?
        }
    };
}

vector!(
    F32x4,
    f32,
    float32x4_t,
    4,
    vdupq_n_f32,
    vld1q_f32,
    vst1q_f32,
    vfmaq_f32,
    vaddq_f32,
    vsubq_f32,
    vmulq_f32,
    vmaxq_f32,
    |x, y| vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(x), vcgtq_f32(y, vdupq_n_f32(0.0)))),
    transpose4;
    load_bf16, store_bf16, round_bf16
);
vector!(
    F64x2,
    f64,
    float64x2_t,
    2,
    vdupq_n_f64,
    vld1q_f64,
    vst1q_f64,
    vfmaq_f64,
    vaddq_f64,
    vsubq_f64,
    vmulq_f64,
    vmaxq_f64,
    |x, y| vreinterpretq_f64_u64(vandq_u64(vreinterpretq_u64_f64(x), vcgtq_f64(y, vdupq_n_f64(0.0)))),
    transpose2
);

/// A square of 4 floats.
///
/// # Safety
/// Rows of 4 floats at both places.
#[inline(always)]
unsafe fn transpose4(from: *const f32, from_pitch: usize, to: *mut f32, to_pitch: usize) {
    // SAFETY: as the function requires.
    unsafe {
        let row = |i: usize| vld1q_f32(from.add(i * from_pitch));
        let (even, odd) = (vtrnq_f32(row(0), row(1)), vtrnq_f32(row(2), row(3)));
        // Pairs of floats are swapped as if they were doubles.
        let pair = |a, b| {
            let (a, b) = (vreinterpretq_f64_f32(a), vreinterpretq_f64_f32(b));
            [vtrn1q_f64(a, b), vtrn2q_f64(a, b)].map(|v| vreinterpretq_f32_f64(v))
        };
        let ([first, third], [second, fourth]) = (pair(even.0, odd.0), pair(even.1, odd.1));
        for (i, line) in [first, second, third, fourth].into_iter().enumerate() {
            vst1q_f32(to.add(i * to_pitch), line);
        }
    }
}

/// A square of 2 doubles.
///
/// # Safety
/// Rows of 2 doubles at both places.
#[inline(always)]
unsafe fn transpose2(from: *const f64, from_pitch: usize, to: *mut f64, to_pitch: usize) {
    // SAFETY: as the function requires.
    unsafe {
        let (a, b) = (vld1q_f64(from), vld1q_f64(from.add(from_pitch)));
        vst1q_f64(to, vtrn1q_f64(a, b));
        vst1q_f64(to.add(to_pitch), vtrn2q_f64(a, b));
    }
}

/// # Safety
/// 4 elements.
#[inline(always)]
unsafe fn load_bf16(p: *const u16) -> float32x4_t {
    // SAFETY: as the function requires.
    unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p))) }
}

/// The bits of [`round_bits`](crate::element::round_bits).
///
/// # Safety
/// None beyond NEON.
#[inline(always)]
unsafe fn bits(v: float32x4_t) -> uint16x4_t {
    // SAFETY: as the function requires.
    unsafe {
        let bits = vreinterpretq_u32_f32(v);
        let odd = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
        let rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
        let quiet = vorrq_u32(bits, vdupq_n_u32(0x0040_0000));
        vshrn_n_u32::<16>(vbslq_u32(vceqq_f32(v, v), rounded, quiet))
    }
}

/// # Safety
/// 4 elements.
#[inline(always)]
unsafe fn store_bf16(p: *mut u16, v: float32x4_t) {
    // SAFETY: as the function requires.
    unsafe { vst1_u16(p, bits(v)) }
}

/// # Safety
/// None beyond NEON.
#[inline(always)]
unsafe fn round_bf16(v: float32x4_t) -> float32x4_t {
    // SAFETY: as the function requires.
    unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(bits(v))) }
}
