//! The inner loops with AVX2, through the safe instructions of `pulp`.
//!
//! Each does the arithmetic of the portable loop that it stands in for, so the bits are the same; the
//! compiler does not find these forms by itself. Arrays have no `map` here: it becomes a call without
//! vector instructions.

pub(crate) mod color;
pub(crate) mod hue;

use core::arch::x86_64::{__m128i, __m256, __m256i};
pub(crate) use infomax_simd::bytes::V3;

/// Bytes that are worked on together.
pub(crate) const BLOCK: usize = 32;

type Block = [u8; BLOCK];

/// Eight bytes as 32-bit integers, from byte `8 part` on.
#[inline(always)]
fn widen(simd: V3, bytes: &Block, part: usize) -> __m256i {
    let words: &[[u8; 8]; 4] = &infomax_simd::bytes::cast(*bytes);
    simd.avx2._mm256_cvtepu8_epi32(infomax_simd::bytes::cast([words[part], [0; 8]]))
}

/// Four vectors of 32-bit integers as bytes in order; what does not fit becomes 0 or 255.
#[inline(always)]
fn narrow(simd: V3, [a, b, c, d]: [__m256i; 4]) -> Block {
    let (ab, cd) = (simd.avx2._mm256_packs_epi32(a, b), simd.avx2._mm256_packs_epi32(c, d));
    let bytes = simd.avx2._mm256_packus_epi16(ab, cd);
    let order: __m256i = infomax_simd::bytes::cast([0i32, 4, 1, 5, 2, 6, 3, 7]);
    infomax_simd::bytes::cast(simd.avx2._mm256_permutevar8x32_epi32(bytes, order))
}

/// Bytes as 16-bit integers: the first and the second eight of each half. [`join`] puts them together again.
#[inline(always)]
fn spread(simd: V3, bytes: __m256i) -> [__m256i; 2] {
    let zero = simd.avx._mm256_setzero_si256();
    [simd.avx2._mm256_unpacklo_epi8(bytes, zero), simd.avx2._mm256_unpackhi_epi8(bytes, zero)]
}

/// Two vectors of 16-bit integers as bytes, in the order of [`spread`]; what does not fit becomes 0 or 255.
#[inline(always)]
fn join(simd: V3, [low, high]: [__m256i; 2]) -> __m256i {
    simd.avx2._mm256_packus_epi16(low, high)
}

/// Unsigned 16-bit integers as 32-bit ones: the first and the second four of each half.
#[inline(always)]
fn low_high(simd: V3, words: __m256i) -> [__m256i; 2] {
    let zero = simd.avx._mm256_setzero_si256();
    [simd.avx2._mm256_unpacklo_epi16(words, zero), simd.avx2._mm256_unpackhi_epi16(words, zero)]
}

#[inline(always)]
fn floats(simd: V3, bytes: &Block, part: usize) -> __m256 {
    simd.avx._mm256_cvtepi32_ps(widen(simd, bytes, part))
}

#[inline(always)]
fn all(simd: V3, x: f32) -> __m256 {
    simd.avx._mm256_set1_ps(x)
}

/// The weighted sum of blocks, in 22-bit fixed point.
#[inline(always)]
pub(crate) fn weigh_blocks<'a>(simd: V3, blocks: impl Iterator<Item = &'a Block>, weights: &[i32]) -> Block {
    let half = simd.avx._mm256_set1_epi32(1 << 21);
    let mut sums = [half; 4];
    for (block, w) in blocks.zip(weights) {
        let w = simd.avx._mm256_set1_epi32(*w);
        for (part, sum) in sums.iter_mut().enumerate() {
            let product = simd.avx2._mm256_mullo_epi32(widen(simd, block, part), w);
            *sum = simd.avx2._mm256_add_epi32(*sum, product);
        }
    }
    for sum in &mut sums {
        *sum = simd.avx2._mm256_srai_epi32::<22>(*sum);
    }
    narrow(simd, sums)
}

/// The weighted sums of the lanes of pixels of `N` channels.
#[inline(always)]
pub(crate) fn weigh_lanes<const N: usize>(
    simd: V3,
    pixels: &[[[u8; 16]; N]],
    weights: &[i32],
) -> [[u8; 16]; N] {
    let half = simd.avx._mm256_set1_epi32(1 << 21);
    let mut sums = [[half; 2]; N];
    for (pixel, w) in pixels.iter().zip(weights) {
        let w = simd.avx._mm256_set1_epi32(*w);
        for (lane, sums) in pixel.iter().zip(&mut sums) {
            let halves: [[u8; 8]; 2] = infomax_simd::bytes::cast(*lane);
            for (bytes, sum) in halves.into_iter().zip(sums) {
                let values = simd.avx2._mm256_cvtepu8_epi32(infomax_simd::bytes::cast([bytes, [0; 8]]));
                *sum = simd.avx2._mm256_add_epi32(*sum, simd.avx2._mm256_mullo_epi32(values, w));
            }
        }
    }
    let zero = simd.avx._mm256_setzero_si256();
    let shifted = |sum: __m256i| simd.avx2._mm256_srai_epi32::<22>(sum);
    let mut out = [[0; 16]; N];
    // Two channels go through the same instructions.
    for (out, sums) in out.chunks_mut(2).zip(sums.chunks(2)) {
        let [[a, b], [c, d]] = [sums[0], *sums.get(1).unwrap_or(&[zero; 2])];
        let values = [shifted(a), shifted(b), shifted(c), shifted(d)];
        let both: [[u8; 16]; 2] = infomax_simd::bytes::cast(narrow(simd, values));
        for (out, bytes) in out.iter_mut().zip(both) {
            *out = bytes;
        }
    }
    out
}

/// Value `j` of row `i` becomes value `i` of row `j`, in blocks of 8 x 8.
#[inline(always)]
pub(crate) fn transpose_floats(simd: V3, block: &[[f32; 16]; 16]) -> [[f32; 16]; 16] {
    let avx = simd.avx;
    let zero = avx._mm256_setzero_ps();
    let mut out = [[zero; 2]; 16];
    for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut rows = [zero; 8];
        for (row, values) in rows.iter_mut().zip(&block[8 * i..8 * i + 8]) {
            let halves: [__m256; 2] = infomax_simd::bytes::cast(*values);
            *row = halves[j];
        }
        // Pairs of rows, then pairs of pairs, within the halves of a vector; then the halves.
        let (mut pairs, mut fours) = ([zero; 8], [zero; 8]);
        for k in 0..4 {
            pairs[2 * k] = avx._mm256_unpacklo_ps(rows[2 * k], rows[2 * k + 1]);
            pairs[2 * k + 1] = avx._mm256_unpackhi_ps(rows[2 * k], rows[2 * k + 1]);
        }
        for k in [0, 4] {
            for half in 0..2 {
                let (a, b) = (pairs[k + half], pairs[k + half + 2]);
                fours[k + 2 * half] = avx._mm256_shuffle_ps::<0b01_00_01_00>(a, b);
                fours[k + 2 * half + 1] = avx._mm256_shuffle_ps::<0b11_10_11_10>(a, b);
            }
        }
        for k in 0..4 {
            let (a, b) = (fours[k], fours[k + 4]);
            out[8 * j + k][i] = avx._mm256_permute2f128_ps::<0x20>(a, b);
            out[8 * j + k + 4][i] = avx._mm256_permute2f128_ps::<0x31>(a, b);
        }
    }
    infomax_simd::bytes::cast(out)
}

/// Bytes with 7 bits behind the binary point.
#[inline(always)]
pub(crate) fn blur_raise(simd: V3, bytes: &Block) -> [u16; BLOCK] {
    let halves: [__m128i; 2] = infomax_simd::bytes::cast(*bytes);
    let mut out = [simd.avx._mm256_setzero_si256(); 2];
    for (out, half) in out.iter_mut().zip(halves) {
        *out = simd.avx2._mm256_slli_epi16::<7>(simd.avx2._mm256_cvtepu8_epi16(half));
    }
    infomax_simd::bytes::cast(out)
}

/// `(line above + line below) w` over all pairs of blocks, as the portable loop of the blur.
#[inline(always)]
pub(crate) fn blur_vertical(
    simd: V3,
    lines: &[[u16; BLOCK]],
    radius: usize,
    weights: &[[u16; 16]],
    start: u16,
) -> [u16; BLOCK] {
    let mut sums = [simd.avx._mm256_set1_epi16(start as i16); 2];
    let at = |line: usize| -> [__m256i; 2] { infomax_simd::bytes::cast(lines[line]) };
    add_times(simd, &mut sums, at(radius), weights[0]);
    for (k, w) in weights.iter().enumerate().skip(1) {
        let ([a, b], [c, d]) = (at(radius - k), at(radius + k));
        let pair = [simd.avx2._mm256_add_epi16(a, c), simd.avx2._mm256_add_epi16(b, d)];
        add_times(simd, &mut sums, pair, *w);
    }
    infomax_simd::bytes::cast(sums)
}

/// `(span[radius - k] + span[radius + k]) w[k]` over all k, rounded, as the portable loop of the blur.
#[inline(always)]
pub(crate) fn blur_horizontal(
    simd: V3,
    span: &[u16],
    radius: usize,
    weights: &[[u16; 16]],
    start: u16,
) -> Block {
    let mut sums = [simd.avx._mm256_set1_epi16(start as i16); 2];
    let at = |k: usize| -> [__m256i; 2] {
        match span[k..].first_chunk::<BLOCK>() {
            Some(values) => infomax_simd::bytes::cast(*values),
            None => [simd.avx._mm256_setzero_si256(); 2],
        }
    };
    add_times(simd, &mut sums, at(radius), weights[0]);
    for (k, w) in weights.iter().enumerate().skip(1) {
        let ([a, b], [c, d]) = (at(radius - k), at(radius + k));
        let pair = [simd.avx2._mm256_add_epi16(a, c), simd.avx2._mm256_add_epi16(b, d)];
        add_times(simd, &mut sums, pair, *w);
    }
    let half = simd.avx._mm256_set1_epi16(64);
    for sum in &mut sums {
        *sum = simd.avx2._mm256_srli_epi16::<7>(simd.avx2._mm256_add_epi16(*sum, half));
    }
    let bytes = simd.avx2._mm256_packus_epi16(sums[0], sums[1]);
    infomax_simd::bytes::cast(simd.avx2._mm256_permute4x64_epi64::<0b11_01_10_00>(bytes))
}

/// Adds the upper halves of the products with `weight`.
#[inline(always)]
fn add_times(simd: V3, sums: &mut [__m256i; 2], values: [__m256i; 2], weight: [u16; 16]) {
    let weight: __m256i = infomax_simd::bytes::cast(weight);
    for (sum, v) in sums.iter_mut().zip(values) {
        *sum = simd.avx2._mm256_add_epi16(*sum, simd.avx2._mm256_mulhi_epu16(v, weight));
    }
}

/// `(v / 255 - mean) / std`, each division rounded as by a division: the product with a reciprocal that is
/// the sum of two numbers. [`Normal::new`] makes them; the caller compares all 256 values.
///
/// With `FLIP` the last value comes first.
#[inline(always)]
pub(crate) fn normalize<const FLIP: bool>(simd: V3, bytes: &Block, normal: &Normal, out: &mut [f32; BLOCK]) {
    let back: __m256i = infomax_simd::bytes::cast([7i32, 6, 5, 4, 3, 2, 1, 0]);
    let quotient = |x: __m256, [high, low]: [f32; 2]| {
        simd.fma._mm256_fmadd_ps(x, all(simd, high), simd.avx._mm256_mul_ps(x, all(simd, low)))
    };
    for (part, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let values = if FLIP {
            simd.avx2._mm256_permutevar8x32_epi32(widen(simd, bytes, 3 - part), back)
        } else {
            widen(simd, bytes, part)
        };
        let unit = quotient(simd.avx._mm256_cvtepi32_ps(values), normal.by_range);
        let centered = simd.avx._mm256_sub_ps(unit, all(simd, normal.mean));
        *out = infomax_simd::bytes::cast(quotient(centered, normal.by_std));
    }
}

/// A mean, and the reciprocals of 255 and of a standard deviation, each as a sum.
#[derive(Clone, Debug)]
pub(crate) struct Normal {
    mean: f32,
    by_range: [f32; 2],
    by_std: [f32; 2],
}

impl Normal {
    pub(crate) fn new(mean: f32, std: f32) -> Self {
        let inverse = |x: f32| {
            let exact = 1.0 / f64::from(x);
            let high = exact as f32;
            [high, (exact - f64::from(high)) as f32]
        };
        Self { mean, by_range: inverse(255.0), by_std: inverse(std) }
    }
}
