//! The shift of the hue, 32 pixels at once; the formulas are those of `crate::hue`.

use super::{Block, V3, all, floats, narrow, widen};
use core::arch::x86_64::{__m256, __m256i};

/// Hue times six is `BASE + part` or, with the sign bit of `SIGN`, `BASE - part` in the sextants that begin
/// at red, where `part` is the distance of the largest channel to the middle one by its distance to the
/// least. The last one ends at zero instead of six.
const BASE: [f32; 8] = [1.0, 1.0, 3.0, 3.0, 5.0, -1.0, 0.0, 0.0];
const SIGN: [f32; 8] = [-0.0, 0.0, -0.0, 0.0, -0.0, 0.0, 0.0, 0.0];

/// In which sextants of the new hue red, green and blue are the value and in which the middle one of the
/// new channels; else they are the least. The seventh sextant is the first again.
const VALUE: [[i8; 8]; 3] =
    [[-1, 0, 0, 0, 0, -1, -1, 0], [0, -1, -1, 0, 0, 0, 0, 0], [0, 0, 0, -1, -1, 0, 0, 0]];
const MIDDLE: [[i8; 8]; 3] =
    [[0, -1, 0, 0, -1, 0, 0, 0], [-1, 0, 0, -1, 0, 0, -1, 0], [0, 0, -1, 0, 0, -1, 0, 0]];

/// Turns the hue of 32 pixels.
#[inline(always)]
pub(crate) fn shift(simd: V3, offset: u8, red: &mut Block, green: &mut Block, blue: &mut Block) {
    let avx2 = simd.avx2;
    let (r, g, b): (__m256i, __m256i, __m256i) = (pulp::cast(*red), pulp::cast(*green), pulp::cast(*blue));
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

    let pixels = Pixels {
        value: pulp::cast(value),
        range: pulp::cast(avx2._mm256_sub_epi8(value, least)),
        top: pulp::cast(avx2._mm256_sub_epi8(value, middle)),
        sextant: pulp::cast(sextant),
    };
    let zero = simd.avx._mm256_setzero_si256();
    let (mut sextants, mut lowest, mut between) = ([zero; 4], [zero; 4], [zero; 4]);
    for part in 0..4 {
        [sextants[part], lowest[part], between[part]] = eight(simd, f32::from(offset), &pixels, part);
    }
    let sextants: __m256i = pulp::cast(narrow(simd, sextants));
    let lowest: __m256i = pulp::cast(narrow(simd, lowest));
    let between: __m256i = pulp::cast(narrow(simd, between));
    let mask =
        |table: [i8; 8]| avx2._mm256_shuffle_epi8(pulp::cast([table, [0; 8], table, [0; 8]]), sextants);
    for (channel, out) in [red, green, blue].into_iter().enumerate() {
        let others = avx2._mm256_blendv_epi8(lowest, between, mask(MIDDLE[channel]));
        *out = pulp::cast(avx2._mm256_blendv_epi8(others, value, mask(VALUE[channel])));
    }
}

/// What the new colours of 32 pixels follow from.
struct Pixels {
    value: Block,
    range: Block,
    top: Block,
    sextant: Block,
}

/// The new sextant, the least and the middle channel of eight pixels.
#[inline(always)]
fn eight(simd: V3, offset: f32, pixels: &Pixels, part: usize) -> [__m256i; 3] {
    let avx = simd.avx;
    let one = all(simd, 1.0);
    let select = |no: __m256, yes: __m256, mask: __m256| avx._mm256_blendv_ps(no, yes, mask);
    let value = floats(simd, &pixels.value, part);
    let range = floats(simd, &pixels.range, part);
    let sextant = widen(simd, &pixels.sextant, part);
    let top = avx._mm256_div_ps(floats(simd, &pixels.top, part), avx._mm256_max_ps(range, one));
    let base = simd.avx2._mm256_permutevar8x32_ps(pulp::cast(BASE), sextant);
    let sign = simd.avx2._mm256_permutevar8x32_ps(pulp::cast(SIGN), sextant);
    let sixfold = avx._mm256_add_ps(base, avx._mm256_xor_ps(top, sign));
    let hue = avx._mm256_div_ps(sixfold, all(simd, 6.0));
    // The sign bit of a negative hue selects.
    let hue = select(hue, avx._mm256_add_ps(hue, one), hue);
    let saturation = avx._mm256_div_ps(range, avx._mm256_max_ps(value, one));
    let saturation = avx._mm256_floor_ps(avx._mm256_mul_ps(saturation, all(simd, 255.0)));

    let turned = avx._mm256_add_ps(scaled(simd, hue), all(simd, offset));
    let wrapped = avx._mm256_sub_ps(turned, all(simd, 256.0));
    // Where the difference is negative nothing is to be wrapped.
    let turned = select(wrapped, turned, wrapped);
    let sextant = avx._mm256_mul_ps(turned, all(simd, 6.0 / 255.0));
    let sextant = avx._mm256_floor_ps(avx._mm256_add_ps(sextant, all(simd, 1e-4)));
    let sixfold = avx._mm256_mul_ps(turned, all(simd, 6.0));
    let rest = avx._mm256_sub_ps(sixfold, avx._mm256_mul_ps(sextant, all(simd, 255.0)));
    let index = avx._mm256_cvttps_epi32(sextant);
    // The lowest bit, moved to the sign, selects the odd sextants.
    let odd: __m256 = pulp::cast(simd.avx2._mm256_slli_epi32::<31>(index));
    let along = select(avx._mm256_sub_ps(all(simd, 255.0), rest), rest, odd);
    let reduced = |share: __m256, scale: f32| {
        let less = avx._mm256_mul_ps(share, all(simd, scale));
        avx._mm256_cvttps_epi32(avx._mm256_add_ps(avx._mm256_sub_ps(value, less), all(simd, 0.5)))
    };
    let lowest = reduced(avx._mm256_mul_ps(value, saturation), 1.0 / 255.0);
    let share = avx._mm256_mul_ps(value, avx._mm256_mul_ps(saturation, along));
    [index, lowest, reduced(share, 1.0 / 65025.0)]
}

/// The integer part of the exact product `255 x` for `x` in 0..=1: `256 x` is exact, and so is its
/// difference to a whole number nearby, which tells whether `255 x` is below that.
#[inline(always)]
fn scaled(simd: V3, x: __m256) -> __m256 {
    const LESS: i32 = 17;
    let avx = simd.avx;
    let whole = avx._mm256_floor_ps(avx._mm256_mul_ps(x, all(simd, 255.0)));
    let above = avx._mm256_sub_ps(avx._mm256_mul_ps(x, all(simd, 256.0)), whole);
    let too_much = avx._mm256_cmp_ps::<LESS>(above, x);
    avx._mm256_sub_ps(whole, avx._mm256_and_ps(too_much, all(simd, 1.0)))
}
