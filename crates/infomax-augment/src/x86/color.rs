//! Changes of color, 32 pixels at once.

use super::{Block, V3, all, floats, narrow};
use core::arch::x86_64::{__m256, __m256i};

/// `degenerate + factor (v - degenerate)`; `narrow` cuts off and clamps what comes out.
#[inline(always)]
fn blend(simd: V3, degenerate: __m256, v: __m256, factor: __m256) -> __m256 {
    let distance = simd.avx._mm256_sub_ps(v, degenerate);
    simd.avx._mm256_add_ps(degenerate, simd.avx._mm256_mul_ps(factor, distance))
}

/// Blends every value with one level.
#[inline(always)]
pub(crate) fn blend_level(simd: V3, level: f32, factor: f32, block: &mut Block) {
    let (level, factor) = (all(simd, level), all(simd, factor));
    let mut out = [simd.avx._mm256_setzero_si256(); 4];
    for (part, out) in out.iter_mut().enumerate() {
        let mixed = blend(simd, level, floats(simd, block, part), factor);
        *out = simd.avx._mm256_cvttps_epi32(mixed);
    }
    *block = narrow(simd, out);
}

/// The luma of eight pixels. Up to `255 * 65536 + 32768 < 2^24` single precision is exact.
#[inline(always)]
fn luma(simd: V3, r: __m256, g: __m256, b: __m256) -> __m256 {
    let mul = |v, w| simd.avx._mm256_mul_ps(v, all(simd, w));
    let rg = simd.avx._mm256_add_ps(mul(r, 19595.0), mul(g, 38470.0));
    let sum = simd.avx._mm256_add_ps(rg, simd.avx._mm256_add_ps(mul(b, 7471.0), all(simd, 32768.0)));
    simd.avx._mm256_floor_ps(mul(sum, 1.0 / 65536.0))
}

/// Blends every pixel with its luma.
#[inline(always)]
pub(crate) fn saturation(simd: V3, factor: f32, r: &mut Block, g: &mut Block, b: &mut Block) {
    let factor = all(simd, factor);
    let zero = simd.avx._mm256_setzero_si256();
    let (mut nr, mut ng, mut nb) = ([zero; 4], [zero; 4], [zero; 4]);
    for part in 0..4 {
        let (fr, fg, fb) = (floats(simd, r, part), floats(simd, g, part), floats(simd, b, part));
        let gray = luma(simd, fr, fg, fb);
        nr[part] = simd.avx._mm256_cvttps_epi32(blend(simd, gray, fr, factor));
        ng[part] = simd.avx._mm256_cvttps_epi32(blend(simd, gray, fg, factor));
        nb[part] = simd.avx._mm256_cvttps_epi32(blend(simd, gray, fb, factor));
    }
    (*r, *g, *b) = (narrow(simd, nr), narrow(simd, ng), narrow(simd, nb));
}

/// The luma of every pixel, `(19595 r + 38470 g + 7471 b + 32768) >> 16`, in 16 bits.
///
/// The weights are split into bytes, `256 high + low`, and the colors are taken relative to 128, so that no
/// sum leaves 16 bits: with those of the high bytes at least `-255 * 128` and of the low ones `-256 * 128`.
/// Half a level is 128 times the constant 1 beside blue.
#[inline(always)]
pub(crate) fn gray(simd: V3, r: &Block, g: &Block, b: &Block) -> Block {
    let avx2 = simd.avx2;
    let middle = simd.avx._mm256_set1_epi8(-128);
    let signed = |v: &Block| avx2._mm256_xor_si256(infomax_simd::bytes::cast(*v), middle);
    let (r, g, b) = (signed(r), signed(g), signed(b));
    let one = simd.avx._mm256_set1_epi8(1);
    let pairs = |first: u8, second: u8| simd.avx._mm256_set1_epi16(i16::from_le_bytes([first, second]));
    let (high, low) = (pairs(76, 150), pairs(139, 70));
    let (high_b, low_b) = (pairs(29, 128), pairs(47, 0));
    let luma = |rg: __m256i, b: __m256i| {
        let times = |v: __m256i, weights: __m256i| avx2._mm256_maddubs_epi16(weights, v);
        let low = avx2._mm256_add_epi16(times(rg, low), times(b, low_b));
        let high = avx2._mm256_add_epi16(times(rg, high), times(b, high_b));
        avx2._mm256_srai_epi16::<8>(avx2._mm256_add_epi16(high, avx2._mm256_srai_epi16::<8>(low)))
    };
    let first = luma(avx2._mm256_unpacklo_epi8(r, g), avx2._mm256_unpacklo_epi8(b, one));
    let second = luma(avx2._mm256_unpackhi_epi8(r, g), avx2._mm256_unpackhi_epi8(b, one));
    infomax_simd::bytes::cast(avx2._mm256_xor_si256(avx2._mm256_packs_epi16(first, second), middle))
}

/// The sum of bytes.
#[inline(always)]
pub(crate) fn sum(simd: V3, block: &Block) -> u64 {
    let zero = simd.avx._mm256_setzero_si256();
    let sums: [u64; 4] =
        infomax_simd::bytes::cast(simd.avx2._mm256_sad_epu8(infomax_simd::bytes::cast(*block), zero));
    sums[0] + sums[1] + sums[2] + sums[3]
}
