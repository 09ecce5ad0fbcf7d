//! The shift of the hue, 32 pixels at once.
//!
//! The same results as `crate::hue` by another way: whole numbers in 16 bits where they are exact, and single
//! precision for the three quotients. The tests compare all colors.

use super::{Block, V3, all, join, low_high, spread};
use core::arch::x86_64::{__m256, __m256i};

/// Hue times six is `BASE - part` in the even sextants and `BASE + part` in the odd ones, where `part` is the
/// distance of the largest channel to the middle one by its distance to the least.
const BASE: [f32; 8] = [1.0, 1.0, 3.0, 3.0, 5.0, 5.0, 0.0, 0.0];

/// In which sextants of the new hue red, green and blue are the value and in which the middle one of the
/// new channels; else they are the least. The seventh sextant is the first again.
const VALUE: [[i8; 8]; 3] =
    [[-1, 0, 0, 0, 0, -1, -1, 0], [0, -1, -1, 0, 0, 0, 0, 0], [0, 0, 0, -1, -1, 0, 0, 0]];
const MIDDLE: [[i8; 8]; 3] =
    [[0, -1, 0, 0, -1, 0, 0, 0], [-1, 0, 0, -1, 0, 0, -1, 0], [0, 0, -1, 0, 0, -1, 0, 0]];

/// A sixth as the sum of two numbers, so that a product is rounded as a quotient is.
const SIXTH: f32 = 1.0 / 6.0;
const SIXTH_REST: f32 = (1.0 / 6.0 - SIXTH as f64) as f32;

/// Blocks that go through both conversions together: each is a long chain of instructions, and in two loops
/// those of several blocks overlap.
const STRIP: usize = 16;

/// Turns the hue of three planes.
#[inline(always)]
pub(crate) fn shift(simd: V3, offset: u8, red: &mut [Block], green: &mut [Block], blue: &mut [Block]) {
    let strips = red.chunks_mut(STRIP).zip(green.chunks_mut(STRIP)).zip(blue.chunks_mut(STRIP));
    for ((red, green), blue) in strips {
        for ((r, g), b) in red.iter_mut().zip(&mut *green).zip(&mut *blue) {
            to_hsv(simd, r, g, b);
        }
        for ((h, s), v) in red.iter_mut().zip(green).zip(blue) {
            from_hsv(simd, offset, h, s, v);
        }
    }
}

/// Hue, saturation and value in the place of the colors of 32 pixels.
#[inline(always)]
fn to_hsv(simd: V3, red: &mut Block, green: &mut Block, blue: &mut Block) {
    let avx2 = simd.avx2;
    let (r, g, b): (__m256i, __m256i, __m256i) = (
        infomax_simd::bytes::cast(*red),
        infomax_simd::bytes::cast(*green),
        infomax_simd::bytes::cast(*blue),
    );
    let constant = |x: i8| simd.avx._mm256_set1_epi8(x);
    let (high_rg, low_rg) = (avx2._mm256_max_epu8(r, g), avx2._mm256_min_epu8(r, g));
    let (value, least) = (avx2._mm256_max_epu8(high_rg, b), avx2._mm256_min_epu8(low_rg, b));
    let middle = avx2._mm256_max_epu8(low_rg, avx2._mm256_min_epu8(high_rg, b));

    // The sextant: which channel is largest, the first of several, and which of the others is least.
    let at_most = |a: __m256i, b: __m256i| avx2._mm256_cmpeq_epi8(avx2._mm256_min_epu8(a, b), a);
    let from_red = avx2._mm256_andnot_si256(at_most(b, g), constant(5));
    let from_green = avx2._mm256_add_epi8(constant(2), at_most(b, r));
    let from_blue = avx2._mm256_add_epi8(constant(4), at_most(r, g));
    let is_green = avx2._mm256_cmpeq_epi8(g, value);
    let sextant = avx2._mm256_blendv_epi8(from_blue, from_green, is_green);
    let sextant = avx2._mm256_blendv_epi8(sextant, from_red, avx2._mm256_cmpeq_epi8(r, value));

    let values = spread(simd, value);
    let ranges = spread(simd, avx2._mm256_sub_epi8(value, least));
    let tops = spread(simd, avx2._mm256_sub_epi8(value, middle));
    let sextants = spread(simd, sextant);
    let zero = simd.avx._mm256_setzero_si256();
    let (mut hues, mut saturations) = ([zero; 2], [zero; 2]);
    for half in 0..2 {
        let (v, range) = (low_high(simd, values[half]), low_high(simd, ranges[half]));
        let (top, sextant) = (low_high(simd, tops[half]), low_high(simd, sextants[half]));
        let (mut hue, mut saturation) = ([zero; 2], [zero; 2]);
        for part in 0..2 {
            let range = simd.avx._mm256_cvtepi32_ps(range[part]);
            let top = simd.avx._mm256_cvtepi32_ps(top[part]);
            hue[part] = hue_of(simd, sextant[part], top, range);
            saturation[part] = saturation_of(simd, simd.avx._mm256_cvtepi32_ps(v[part]), range);
        }
        hues[half] = avx2._mm256_packs_epi32(hue[0], hue[1]);
        saturations[half] = avx2._mm256_packs_epi32(saturation[0], saturation[1]);
    }
    (*red, *green) =
        (infomax_simd::bytes::cast(join(simd, hues)), infomax_simd::bytes::cast(join(simd, saturations)));
    *blue = infomax_simd::bytes::cast(value);
}

/// The colors in the place of hue, which is turned, saturation and value of 32 pixels.
#[inline(always)]
fn from_hsv(simd: V3, offset: u8, red: &mut Block, green: &mut Block, blue: &mut Block) {
    let avx2 = simd.avx2;
    let hue = avx2._mm256_add_epi8(infomax_simd::bytes::cast(*red), simd.avx._mm256_set1_epi8(offset as i8));
    let value: __m256i = infomax_simd::bytes::cast(*blue);
    let (hues, values) = (spread(simd, hue), spread(simd, value));
    let saturations = spread(simd, infomax_simd::bytes::cast(*green));
    let zero = simd.avx._mm256_setzero_si256();
    let (mut new, mut lowest, mut between) = ([zero; 2], [zero; 2], [zero; 2]);
    for half in 0..2 {
        [new[half], lowest[half], between[half]] =
            from_words(simd, hues[half], saturations[half], values[half]);
    }
    let (new, lowest, between) = (join(simd, new), join(simd, lowest), join(simd, between));
    let mask = |table: [i8; 8]| {
        avx2._mm256_shuffle_epi8(infomax_simd::bytes::cast([table, [0; 8], table, [0; 8]]), new)
    };
    for (channel, out) in [red, green, blue].into_iter().enumerate() {
        let others = avx2._mm256_blendv_epi8(lowest, between, mask(MIDDLE[channel]));
        *out = infomax_simd::bytes::cast(avx2._mm256_blendv_epi8(others, value, mask(VALUE[channel])));
    }
}

/// `255 hue` of eight pixels, cut off to an integer.
///
/// Where the exact value is no integer it is at least 1/510 away from the next one, and any rounding will do;
/// where it is one, Pillow's roundings may end below it, and these are the same: a quotient, a sum, a
/// sixth. Only in the last sextant Pillow wraps a negative hue around, and never ends below.
#[inline(always)]
fn hue_of(simd: V3, sextant: __m256i, top: __m256, range: __m256) -> __m256i {
    const AT_LEAST: i32 = 29;
    let avx = simd.avx;
    let part = avx._mm256_div_ps(top, avx._mm256_max_ps(range, all(simd, 1.0)));
    let base = simd.avx2._mm256_permutevar8x32_ps(infomax_simd::bytes::cast(BASE), sextant);
    // The lowest bit, moved to the sign, turns the difference into a sum in the odd sextants.
    let sign: __m256 = infomax_simd::bytes::cast(simd.avx2._mm256_slli_epi32::<31>(sextant));
    let sixfold = avx._mm256_sub_ps(base, avx._mm256_xor_ps(part, sign));
    let rest = avx._mm256_mul_ps(sixfold, all(simd, SIXTH_REST));
    let hue = simd.fma._mm256_fmadd_ps(sixfold, all(simd, SIXTH), rest);
    let last = avx._mm256_cmp_ps::<AT_LEAST>(sixfold, all(simd, 5.0));
    let more = avx._mm256_and_ps(last, all(simd, 1e-3));
    avx._mm256_cvttps_epi32(simd.fma._mm256_fmadd_ps(hue, all(simd, 255.0), more))
}

/// `255 range / value` of eight pixels, cut off to an integer: Pillow's is the exact one, also where the
/// quotient is an integer. With half a unit more above the line no quotient is closer to an integer than
/// 1/510, and a reciprocal with a step of Newton's method is good for 1/10,000.
#[inline(always)]
fn saturation_of(simd: V3, value: __m256, range: __m256) -> __m256i {
    let avx = simd.avx;
    let value = avx._mm256_max_ps(value, all(simd, 1.0));
    let near = avx._mm256_rcp_ps(value);
    let rest = simd.fma._mm256_fnmadd_ps(near, value, all(simd, 1.0));
    let inverse = simd.fma._mm256_fmadd_ps(near, rest, near);
    let above = simd.fma._mm256_fmadd_ps(range, all(simd, 255.0), all(simd, 0.5));
    avx._mm256_cvttps_epi32(avx._mm256_mul_ps(above, inverse))
}

/// The sextant, the least and the middle channel of 16 pixels.
#[inline(always)]
fn from_words(simd: V3, hue: __m256i, saturation: __m256i, value: __m256i) -> [__m256i; 3] {
    let (avx, avx2) = (simd.avx, simd.avx2);
    let constant = |x: i16| avx._mm256_set1_epi16(x);
    let byte = constant(255);
    // 6 hue / 255 and the remainder: 1543 / 65536 is little enough above 6 / 255.
    let sextant = avx2._mm256_mulhi_epu16(hue, constant(1543));
    let sixfold = avx2._mm256_mullo_epi16(hue, constant(6));
    let rest = avx2._mm256_sub_epi16(sixfold, avx2._mm256_mullo_epi16(sextant, byte));
    // The middle channel rises in the even sextants: 255 - rest there, rest in the odd ones.
    let odd = avx2._mm256_srai_epi16::<15>(avx2._mm256_slli_epi16::<15>(sextant));
    let along = avx2._mm256_xor_si256(rest, avx2._mm256_andnot_si256(odd, byte));

    let product = avx2._mm256_mullo_epi16(value, saturation);
    // A whole number by 255, rounded to the nearest.
    let raised = avx2._mm256_add_epi16(product, constant(128));
    let more = avx2._mm256_add_epi16(raised, avx2._mm256_srli_epi16::<8>(raised));
    let lowest = avx2._mm256_sub_epi16(value, avx2._mm256_srli_epi16::<8>(more));

    // product along / 255^2, rounded to the nearest: below 2^24 single precision is exact, and no quotient
    // is half a number.
    let low = avx2._mm256_mullo_epi16(product, along);
    let high = avx2._mm256_mulhi_epu16(product, along);
    let scaled = |whole: __m256i| {
        let share = avx._mm256_mul_ps(avx._mm256_cvtepi32_ps(whole), all(simd, 1.0 / 65025.0));
        avx._mm256_cvtps_epi32(share)
    };
    let (a, b) = (avx2._mm256_unpacklo_epi16(low, high), avx2._mm256_unpackhi_epi16(low, high));
    let less = avx2._mm256_packs_epi32(scaled(a), scaled(b));
    [sextant, lowest, avx2._mm256_sub_epi16(value, less)]
}
