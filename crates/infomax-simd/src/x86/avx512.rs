//! The comparisons of AVX-512, in plain arithmetic where Miri runs them: it does not know these instructions.

use std::arch::x86_64::*;

macro_rules! comparisons {
    ($relu:ident, $positive:ident, $v:ty, $t:ty, $lanes:literal, $mask:ty, $max:ident, $cmp:ident, $zero:ident) => {
        /// `x` where `x > 0` or NaN, else 0: the maximum with 0 is its second operand where one is NaN.
        ///
        /// # Safety
        /// AVX-512F.
        #[inline(always)]
        pub(crate) unsafe fn $relu(x: $v) -> $v {
            // SAFETY: as the function requires; arrays and vectors have the same bytes.
            unsafe {
                if cfg!(miri) {
                    let x = std::mem::transmute::<$v, [$t; $lanes]>(x);
                    return std::mem::transmute::<[$t; $lanes], $v>(x.map(|x| if 0.0 > x { 0.0 } else { x }));
                }
                $max($zero(), x)
            }
        }

        /// The lanes where `x > 0`.
        ///
        /// # Safety
        /// AVX-512F.
        #[inline(always)]
        pub(crate) unsafe fn $positive(x: $v) -> $mask {
            // SAFETY: AVX-512F is present, as the function requires; an array and a vector of the same lanes have the same bytes.
            unsafe {
                if cfg!(miri) {
                    let x = std::mem::transmute::<$v, [$t; $lanes]>(x);
                    return (0..$lanes).fold(0, |mask, i| mask | <$mask>::from(x[i] > 0.0) << i);
                }
                $cmp::<_CMP_GT_OQ>(x, $zero())
            }
        }
    };
}

comparisons!(
    relu16,
    positive16,
    __m512,
    f32,
    16,
    __mmask16,
    _mm512_max_ps,
    _mm512_cmp_ps_mask,
    _mm512_setzero_ps
);
comparisons!(
    relu8,
    positive8,
    __m512d,
    f64,
    8,
    __mmask8,
    _mm512_max_pd,
    _mm512_cmp_pd_mask,
    _mm512_setzero_pd
);

/// The lanes that are NaN.
///
/// # Safety
/// AVX-512F.
#[inline(always)]
pub(crate) unsafe fn nan16(x: __m512) -> __mmask16 {
    // SAFETY: AVX-512F is present, as the function requires; an array and a vector of the same lanes have the same bytes.
    unsafe {
        if cfg!(miri) {
            let x = std::mem::transmute::<__m512, [f32; 16]>(x);
            return (0..16).fold(0, |mask, i| mask | __mmask16::from(x[i].is_nan()) << i);
        }
        _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x)
    }
}
