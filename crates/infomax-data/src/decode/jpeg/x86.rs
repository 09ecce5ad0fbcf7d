//! The inner loops with AVX2, through the safe instructions of `pulp`; the bits are those of the plain loops.

use super::idct::{Block, EVEN, ODD};
use core::arch::x86_64::{__m128i, __m256i};
use infomax_simd::bytes::V3;

/// Four sums of products with the constants of four rows, of which two are zero if `LOW`.
#[inline(always)]
fn sums<const LOW: bool>(simd: V3, [a, b]: [__m256i; 2], constants: [[i16; 4]; 4]) -> [__m256i; 4] {
    let mut sums = [a; 4];
    for (sum, [c0, c1, c2, c3]) in sums.iter_mut().zip(constants) {
        *sum = simd.avx2._mm256_madd_epi16(a, infomax_simd::bytes::cast([[c0, c1]; 8]));
        if !LOW {
            let more = simd.avx2._mm256_madd_epi16(b, infomax_simd::bytes::cast([[c2, c3]; 8]));
            *sum = simd.avx2._mm256_add_epi32(*sum, more);
        }
    }
    sums
}

/// One pass over eight columns; the pairs are those of the rows 0 and 2, 4 and 6, 1 and 3, 5 and 7.
#[inline(always)]
fn pass<const LOW: bool, const SHIFT: i32>(simd: V3, pairs: [__m256i; 4], offset: i32) -> [__m256i; 8] {
    let [a, b, c, d] = pairs;
    let offset = simd.avx._mm256_set1_epi32(offset);
    let even = sums::<LOW>(simd, [a, b], EVEN);
    let odd = sums::<LOW>(simd, [c, d], ODD);
    let mut rows = [a; 8];
    for i in 0..4 {
        let even = simd.avx2._mm256_add_epi32(even[i], offset);
        rows[i] = simd.avx2._mm256_srai_epi32::<SHIFT>(simd.avx2._mm256_add_epi32(even, odd[i]));
        rows[7 - i] = simd.avx2._mm256_srai_epi32::<SHIFT>(simd.avx2._mm256_sub_epi32(even, odd[i]));
    }
    rows
}

/// Rows of eight values to pairs of the columns 0 and 2, 4 and 6, 1 and 3, 5 and 7.
#[inline(always)]
fn turn(simd: V3, rows: [__m256i; 8]) -> [__m256i; 4] {
    let avx2 = simd.avx2;
    // The lower halves hold columns 0 to 3, the upper ones columns 4 to 7.
    let a = avx2._mm256_packs_epi32(rows[0], rows[2]);
    let b = avx2._mm256_packs_epi32(rows[1], rows[3]);
    let c = avx2._mm256_packs_epi32(rows[4], rows[6]);
    let d = avx2._mm256_packs_epi32(rows[5], rows[7]);
    let (r01, r23) = (avx2._mm256_unpacklo_epi16(a, b), avx2._mm256_unpackhi_epi16(a, b));
    let (r45, r67) = (avx2._mm256_unpacklo_epi16(c, d), avx2._mm256_unpackhi_epi16(c, d));
    let (low, low2) = (avx2._mm256_unpacklo_epi32(r01, r23), avx2._mm256_unpackhi_epi32(r01, r23));
    let (high, high2) = (avx2._mm256_unpacklo_epi32(r45, r67), avx2._mm256_unpackhi_epi32(r45, r67));
    let columns = [
        avx2._mm256_unpacklo_epi64(low, high),
        avx2._mm256_unpackhi_epi64(low, high),
        avx2._mm256_unpacklo_epi64(low2, high2),
        avx2._mm256_unpackhi_epi64(low2, high2),
    ];
    let mut out = columns;
    for i in 0..2 {
        let (a, b) = (columns[i], columns[i + 2]);
        let (top, bottom) = (avx2._mm256_unpacklo_epi16(a, b), avx2._mm256_unpackhi_epi16(a, b));
        out[2 * i] = avx2._mm256_permute2x128_si256::<0x20>(top, bottom);
        out[2 * i + 1] = avx2._mm256_permute2x128_si256::<0x31>(top, bottom);
    }
    out
}

/// Four columns of eight values to bytes, row by row: rows 0 to 3 in the lower half.
#[inline(always)]
fn four(simd: V3, [a, b, c, d]: [__m256i; 4]) -> __m256i {
    let avx2 = simd.avx2;
    let bytes = avx2._mm256_packus_epi16(avx2._mm256_packs_epi32(a, b), avx2._mm256_packs_epi32(c, d));
    let order = infomax_simd::bytes::cast([[0u8, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15]; 2]);
    avx2._mm256_shuffle_epi8(bytes, order)
}

/// The inverse transform of a block without large values; `LOW` if rows and columns 4 to 7 are zero.
#[inline(always)]
pub(super) fn inverse<const LOW: bool>(simd: V3, block: &Block) -> [u8; 64] {
    let avx2 = simd.avx2;
    let rows = pass::<LOW, 11>(simd, infomax_simd::bytes::cast(*block), 1 << 10);
    let columns = pass::<LOW, 18>(simd, turn(simd, rows), (128 << 18) + (1 << 17));
    let [c0, c1, c2, c3, c4, c5, c6, c7] = columns;
    let (left, right) = (four(simd, [c0, c1, c2, c3]), four(simd, [c4, c5, c6, c7]));
    let (r0145, r2367) = (avx2._mm256_unpacklo_epi32(left, right), avx2._mm256_unpackhi_epi32(left, right));
    infomax_simd::bytes::cast([
        avx2._mm256_permute2x128_si256::<0x20>(r0145, r2367),
        avx2._mm256_permute2x128_si256::<0x31>(r0145, r2367),
    ])
}

/// Pixels that are converted together.
type Bytes = [u8; 32];

/// `(value * factor + 2^15) >> 16`: of the two shifts the first is by 15.
#[inline(always)]
fn scaled(simd: V3, value: __m256i, factor: i16) -> __m256i {
    let (avx, avx2) = (simd.avx, simd.avx2);
    let product = avx2._mm256_mulhi_epi16(avx2._mm256_add_epi16(value, value), avx._mm256_set1_epi16(factor));
    avx2._mm256_srai_epi16::<1>(avx2._mm256_add_epi16(product, avx._mm256_set1_epi16(1)))
}

/// `(18734 cr - 22554 cb + 2^15) >> 16`.
#[inline(always)]
fn mixed(simd: V3, pairs: __m256i) -> __m256i {
    let (avx, avx2) = (simd.avx, simd.avx2);
    let sum = avx2._mm256_madd_epi16(pairs, infomax_simd::bytes::cast([[-22554i16, 18734]; 8]));
    avx2._mm256_srai_epi32::<16>(avx2._mm256_add_epi32(sum, avx._mm256_set1_epi32(1 << 15)))
}

/// 16 pixels to red, green and blue, as 16-bit values that may lie outside of a byte.
#[inline(always)]
fn convert(simd: V3, y: __m256i, cb: __m256i, cr: __m256i) -> [__m256i; 3] {
    let (avx, avx2) = (simd.avx, simd.avx2);
    let zero = avx._mm256_set1_epi16(128);
    let (cb, cr) = (avx2._mm256_sub_epi16(cb, zero), avx2._mm256_sub_epi16(cr, zero));
    // 91881 is 2^16 + 26345, 116130 is 2 * 2^16 - 14942, and -46802 is 18734 - 2^16.
    let red = avx2._mm256_add_epi16(avx2._mm256_add_epi16(y, cr), scaled(simd, cr, 26345));
    let twice = avx2._mm256_add_epi16(cb, cb);
    let blue = avx2._mm256_add_epi16(avx2._mm256_add_epi16(y, twice), scaled(simd, cb, -14942));
    let (low, high) = (avx2._mm256_unpacklo_epi16(cb, cr), avx2._mm256_unpackhi_epi16(cb, cr));
    let green = avx2._mm256_packs_epi32(mixed(simd, low), mixed(simd, high));
    let green = avx2._mm256_sub_epi16(avx2._mm256_add_epi16(y, green), cr);
    [red, green, blue]
}

/// Bytes as 16-bit integers.
#[inline(always)]
fn wide(simd: V3, bytes: &Bytes) -> [__m256i; 2] {
    let [low, high]: [__m128i; 2] = infomax_simd::bytes::cast(*bytes);
    [simd.avx2._mm256_cvtepu8_epi16(low), simd.avx2._mm256_cvtepu8_epi16(high)]
}

/// The order in which bytes of one color go into the three thirds of 16 interleaved pixels.
const fn spread(color: usize) -> [[u8; 16]; 3] {
    let mut out = [[0x80; 16]; 3];
    let mut pixel = 0;
    while pixel < 16 {
        let at = 3 * pixel + color;
        out[at / 16][at % 16] = pixel as u8;
        pixel += 1;
    }
    out
}

const SPREAD: [[[u8; 16]; 3]; 3] = [spread(0), spread(1), spread(2)];

/// YCbCr to interleaved RGB.
#[inline(always)]
pub(super) fn to_rgb(simd: V3, y: &Bytes, cb: &Bytes, cr: &Bytes) -> [[u8; 32]; 3] {
    let avx2 = simd.avx2;
    let ([y0, y1], [cb0, cb1], [cr0, cr1]) = (wide(simd, y), wide(simd, cb), wide(simd, cr));
    let (first, second) = (convert(simd, y0, cb0, cr0), convert(simd, y1, cb1, cr1));
    let mut thirds = [y0; 3];
    for color in 0..3 {
        // Each half of the lanes holds eight pixels of the first and of the second sixteen.
        let bytes = avx2._mm256_packus_epi16(first[color], second[color]);
        let bytes = avx2._mm256_permute4x64_epi64::<0b11_01_10_00>(bytes);
        for (third, order) in thirds.iter_mut().zip(SPREAD[color]) {
            let placed = avx2._mm256_shuffle_epi8(bytes, infomax_simd::bytes::cast([order; 2]));
            *third = if color == 0 { placed } else { avx2._mm256_or_si256(*third, placed) };
        }
    }
    let [a, b, c] = thirds;
    infomax_simd::bytes::cast([
        avx2._mm256_permute2x128_si256::<0x20>(a, b),
        avx2._mm256_blend_epi32::<0b1111_0000>(c, a),
        avx2._mm256_permute2x128_si256::<0x31>(b, c),
    ])
}
