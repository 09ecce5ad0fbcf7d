//! The inner loops with AVX2, through the safe instructions of `pulp`.
//!
//! Each does the arithmetic of the portable loop that it stands in for, so the bits are the same; the
//! compiler does not find these forms by itself. Arrays have no `map` here: it becomes a call without
//! vector instructions.

pub(crate) mod colour;
pub(crate) mod hue;

use core::arch::x86_64::{__m256, __m256i};
pub(crate) use pulp::x86::V3;

/// Bytes that are worked on together.
pub(crate) const BLOCK: usize = 32;

type Block = [u8; BLOCK];

/// Eight bytes as 32-bit integers, from byte `8 part` on.
#[inline(always)]
fn widen(simd: V3, bytes: &Block, part: usize) -> __m256i {
    let words: &[[u8; 8]; 4] = &pulp::cast(*bytes);
    simd.avx2._mm256_cvtepu8_epi32(pulp::cast([words[part], [0; 8]]))
}

/// Four vectors of 32-bit integers as bytes in order; what does not fit becomes 0 or 255.
#[inline(always)]
fn narrow(simd: V3, [a, b, c, d]: [__m256i; 4]) -> Block {
    let (ab, cd) = (simd.avx2._mm256_packs_epi32(a, b), simd.avx2._mm256_packs_epi32(c, d));
    let bytes = simd.avx2._mm256_packus_epi16(ab, cd);
    let order: __m256i = pulp::cast([0i32, 4, 1, 5, 2, 6, 3, 7]);
    pulp::cast(simd.avx2._mm256_permutevar8x32_epi32(bytes, order))
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

/// The weighted sum of the first 32 bytes of rows of `stride` bytes, in 22-bit fixed point.
#[inline(always)]
pub(crate) fn weigh_rows(simd: V3, rows: &[u8], stride: usize, weights: &[i32]) -> Block {
    let half = simd.avx._mm256_set1_epi32(1 << 21);
    let mut sums = [half; 4];
    for (block, w) in rows.chunks(stride).filter_map(<[u8]>::first_chunk).zip(weights) {
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

/// The weighted sums of lanes of 16 bytes, for `N` channels: the first `N`, the `N` behind them and so on.
#[inline(always)]
pub(crate) fn weigh_lanes<const N: usize>(simd: V3, lanes: &[[u8; 16]], weights: &[i32]) -> [[u8; 16]; N] {
    let half = simd.avx._mm256_set1_epi32(1 << 21);
    let mut sums = [[half; 2]; N];
    for (lanes, w) in lanes.as_chunks::<N>().0.iter().zip(weights) {
        let w = simd.avx._mm256_set1_epi32(*w);
        for (lane, sums) in lanes.iter().zip(&mut sums) {
            let halves: [[u8; 8]; 2] = pulp::cast(*lane);
            for (bytes, sum) in halves.into_iter().zip(sums) {
                let values = simd.avx2._mm256_cvtepu8_epi32(pulp::cast([bytes, [0; 8]]));
                *sum = simd.avx2._mm256_add_epi32(*sum, simd.avx2._mm256_mullo_epi32(values, w));
            }
        }
    }
    let mut out = [[0; 16]; N];
    for (out, [low, high]) in out.iter_mut().zip(sums) {
        let low = simd.avx2._mm256_srai_epi32::<22>(low);
        let high = simd.avx2._mm256_srai_epi32::<22>(high);
        let bytes: [[u8; 16]; 2] = pulp::cast(narrow(simd, [low, high, low, high]));
        *out = bytes[0];
    }
    out
}

/// `(line above + line below) w` over all pairs of the first blocks of rows, as the portable loop of the blur.
#[inline(always)]
pub(crate) fn blur_vertical(
    simd: V3,
    lines: &[[u16; BLOCK]],
    stride: usize,
    weights: &[[u16; 16]],
    start: u16,
) -> [u16; BLOCK] {
    let radius = weights.len() - 1;
    let mut sums = [simd.avx._mm256_set1_epi16(start as i16); 2];
    let at = |line: usize| -> [__m256i; 2] { pulp::cast(lines[line * stride]) };
    add_times(simd, &mut sums, at(radius), weights[0]);
    for (k, w) in weights.iter().enumerate().skip(1) {
        let ([a, b], [c, d]) = (at(radius - k), at(radius + k));
        let pair = [simd.avx2._mm256_add_epi16(a, c), simd.avx2._mm256_add_epi16(b, d)];
        add_times(simd, &mut sums, pair, *w);
    }
    pulp::cast(sums)
}

/// `(span[radius - k] + span[radius + k]) w[k]` over all k, rounded, as the portable loop of the blur.
#[inline(always)]
pub(crate) fn blur_horizontal(simd: V3, span: &[u16], weights: &[[u16; 16]], start: u16) -> Block {
    let radius = weights.len() - 1;
    let mut sums = [simd.avx._mm256_set1_epi16(start as i16); 2];
    let at = |k: usize| -> [__m256i; 2] {
        match span[k..].first_chunk::<BLOCK>() {
            Some(values) => pulp::cast(*values),
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
    pulp::cast(simd.avx2._mm256_permute4x64_epi64::<0b11_01_10_00>(bytes))
}

/// Adds the upper halves of the products with `weight`.
#[inline(always)]
fn add_times(simd: V3, sums: &mut [__m256i; 2], values: [__m256i; 2], weight: [u16; 16]) {
    let weight: __m256i = pulp::cast(weight);
    for (sum, v) in sums.iter_mut().zip(values) {
        *sum = simd.avx2._mm256_add_epi16(*sum, simd.avx2._mm256_mulhi_epu16(v, weight));
    }
}

/// `(v / 255 - mean) / std`, each division rounded as by a division: the quotient by a reciprocal and its
/// remainder, which fused multiply-add finds exactly (Markstein 1990).
#[inline(always)]
pub(crate) fn normalise(simd: V3, bytes: &Block, (mean, std): (f32, f32), out: &mut [f32; BLOCK]) {
    let quotient = |x: __m256, d: __m256, r: __m256| {
        let q = simd.avx._mm256_mul_ps(x, r);
        let rest = simd.fma._mm256_fnmadd_ps(q, d, x);
        simd.fma._mm256_fmadd_ps(rest, r, q)
    };
    let (range, by_range) = (all(simd, 255.0), all(simd, 1.0 / 255.0));
    let (mean, std, by_std) = (all(simd, mean), all(simd, std), all(simd, 1.0 / std));
    for (part, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let unit = quotient(floats(simd, bytes, part), range, by_range);
        *out = pulp::cast(quotient(simd.avx._mm256_sub_ps(unit, mean), std, by_std));
    }
}

/// The bytes in reverse order.
#[inline(always)]
pub(crate) fn reverse(simd: V3, bytes: Block) -> Block {
    let order: __m256i = pulp::cast([[15u8, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]; 2]);
    let halves = simd.avx2._mm256_shuffle_epi8(pulp::cast(bytes), order);
    pulp::cast(simd.avx2._mm256_permute4x64_epi64::<0b01_00_11_10>(halves))
}
