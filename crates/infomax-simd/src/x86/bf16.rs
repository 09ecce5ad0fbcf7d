//! Between vectors of f32 and bf16 in memory on x86-64, without bf16 instructions: the same bits everywhere.

use crate::x86::avx512::nan16;
use std::arch::x86_64::*;

/// # Safety
/// AVX2; 8 elements.
#[inline(always)]
pub(crate) unsafe fn load_bf16x8(p: *const __m128i) -> __m256 {
    // SAFETY: as the function requires.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)))) }
}

/// The bits of [`round_bits`](crate::element::round_bits); the lower halves hold anything.
///
/// # Safety
/// AVX2.
#[inline(always)]
unsafe fn bits_bf16x8(v: __m256) -> __m256i {
    // SAFETY: as the function requires.
    unsafe {
        let bits = _mm256_castps_si256(v);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
        let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(v, v);
        let chosen = _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), nan);
        _mm256_castps_si256(chosen)
    }
}

/// # Safety
/// AVX2; 8 elements.
#[inline(always)]
pub(crate) unsafe fn store_bf16x8(p: *mut __m128i, v: __m256) {
    // SAFETY: as the function requires.
    unsafe {
        let upper = _mm256_srli_epi32::<16>(bits_bf16x8(v));
        let (low, high) = (_mm256_castsi256_si128(upper), _mm256_extracti128_si256::<1>(upper));
        _mm_storeu_si128(p, _mm_packus_epi32(low, high));
    }
}

/// # Safety
/// AVX2.
#[inline(always)]
pub(crate) unsafe fn round_bf16x8(v: __m256) -> __m256 {
    // SAFETY: as the function requires.
    unsafe {
        let upper = _mm256_set1_epi32(0xffff_0000u32 as i32);
        _mm256_castsi256_ps(_mm256_and_si256(bits_bf16x8(v), upper))
    }
}

/// # Safety
/// AVX-512F; 16 elements.
#[inline(always)]
pub(crate) unsafe fn load_bf16x16(p: *const __m256i) -> __m512 {
    // SAFETY: as the function requires.
    unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)))) }
}

/// As [`bits_bf16x8`].
///
/// # Safety
/// AVX-512F.
#[inline(always)]
unsafe fn bits_bf16x16(v: __m512) -> __m512i {
    // SAFETY: as the function requires.
    unsafe {
        let bits = _mm512_castps_si512(v);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
        let nan = nan16(v);
        _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x0040_0000))
    }
}

/// # Safety
/// AVX-512F; 16 elements.
#[inline(always)]
pub(crate) unsafe fn store_bf16x16(p: *mut __m256i, v: __m512) {
    // SAFETY: as the function requires.
    unsafe { _mm256_storeu_si256(p, _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(bits_bf16x16(v)))) }
}

/// # Safety
/// AVX-512F.
#[inline(always)]
pub(crate) unsafe fn round_bf16x16(v: __m512) -> __m512 {
    // SAFETY: as the function requires.
    unsafe {
        let upper = _mm512_set1_epi32(0xffff_0000u32 as i32);
        _mm512_castsi512_ps(_mm512_and_si512(bits_bf16x16(v), upper))
    }
}
