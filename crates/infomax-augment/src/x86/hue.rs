//! The shift of the hue, eight pixels at once; the formulas are those of `crate::hue`.

use super::{Block, V3, all, floats, narrow};
use core::arch::x86_64::{__m256, __m256i};

/// Of the value, the least and the middle of the new channels, which one is red in each sextant of the
/// hue, and so on for green and blue. The seventh sextant is the first again.
const VALUE: [[i32; 8]; 3] =
    [[-1, 0, 0, 0, 0, -1, -1, 0], [0, -1, -1, 0, 0, 0, 0, 0], [0, 0, 0, -1, -1, 0, 0, 0]];
const MIDDLE: [[i32; 8]; 3] =
    [[0, -1, 0, 0, -1, 0, 0, 0], [-1, 0, 0, -1, 0, 0, -1, 0], [0, 0, -1, 0, 0, -1, 0, 0]];

/// Turns the hue of 32 pixels.
#[inline(always)]
pub(crate) fn shift(simd: V3, offset: u8, r: &mut Block, g: &mut Block, b: &mut Block) {
    let zero = simd.avx._mm256_setzero_si256();
    let mut out = [[zero; 4]; 3];
    for part in 0..4 {
        let (fr, fg, fb) = (floats(simd, r, part), floats(simd, g, part), floats(simd, b, part));
        let turned = eight(simd, f32::from(offset), fr, fg, fb);
        for (out, turned) in out.iter_mut().zip(turned) {
            out[part] = simd.avx._mm256_cvttps_epi32(turned);
        }
    }
    (*r, *g, *b) = (narrow(simd, out[0]), narrow(simd, out[1]), narrow(simd, out[2]));
}

/// Eight pixels; the results are to be cut off to integers.
#[inline(always)]
fn eight(simd: V3, offset: f32, r: __m256, g: __m256, b: __m256) -> [__m256; 3] {
    const LESS_OR_EQUAL: i32 = 18;
    let avx = simd.avx;
    let one = all(simd, 1.0);
    let select = |no: __m256, yes: __m256, mask: __m256| avx._mm256_blendv_ps(no, yes, mask);
    let at_most = |a: __m256, b: __m256| avx._mm256_cmp_ps::<LESS_OR_EQUAL>(a, b);

    let (high_rg, low_rg) = (avx._mm256_max_ps(r, g), avx._mm256_min_ps(r, g));
    let (value, least) = (avx._mm256_max_ps(high_rg, b), avx._mm256_min_ps(low_rg, b));
    let middle = avx._mm256_max_ps(low_rg, avx._mm256_min_ps(high_rg, b));
    let range = avx._mm256_sub_ps(value, least);
    let part = avx._mm256_div_ps(avx._mm256_sub_ps(value, middle), avx._mm256_max_ps(range, one));

    // Hue times six is `base + part` or `base - part`, in sextants by which channel is largest and which
    // least; the one that begins at -1 is moved by a turn below.
    let minus = all(simd, -0.0);
    let red = select(all(simd, -1.0), one, at_most(b, g));
    let red_sign = select(all(simd, 0.0), minus, at_most(b, g));
    let green = select(all(simd, 3.0), one, at_most(b, r));
    let green_sign = select(minus, all(simd, 0.0), at_most(b, r));
    let blue = select(all(simd, 5.0), all(simd, 3.0), at_most(r, g));
    let blue_sign = select(minus, all(simd, 0.0), at_most(r, g));
    let (is_red, is_green) = (at_most(value, r), at_most(value, g));
    let base = select(select(blue, green, is_green), red, is_red);
    let sign = select(select(blue_sign, green_sign, is_green), red_sign, is_red);
    let sixfold = avx._mm256_add_ps(base, avx._mm256_xor_ps(part, sign));
    let hue = avx._mm256_div_ps(sixfold, all(simd, 6.0));
    // The sign bit of a negative hue selects.
    let hue = select(hue, avx._mm256_add_ps(hue, one), hue);
    let saturation = scaled(simd, avx._mm256_div_ps(range, avx._mm256_max_ps(value, one)));

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
    let share = avx._mm256_mul_ps(value, saturation);
    let reduced = |share: __m256, scale: f32| {
        let less = avx._mm256_mul_ps(share, all(simd, scale));
        avx._mm256_add_ps(avx._mm256_sub_ps(value, less), all(simd, 0.5))
    };
    let lowest = reduced(share, 1.0 / 255.0);
    let between = reduced(avx._mm256_mul_ps(value, avx._mm256_mul_ps(saturation, along)), 1.0 / 65025.0);

    let mut out = [value; 3];
    for (channel, out) in out.iter_mut().enumerate() {
        let mask = |table: [i32; 8]| -> __m256 {
            let table: __m256i = pulp::cast(table);
            pulp::cast(simd.avx2._mm256_permutevar8x32_epi32(table, index))
        };
        let others = select(lowest, between, mask(MIDDLE[channel]));
        *out = select(others, value, mask(VALUE[channel]));
    }
    out
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
