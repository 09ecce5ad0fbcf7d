//! The inverse cosine transform of a block, with the integer arithmetic of libjpeg-turbo's accurate method.
//!
//! Its two passes are sums of products with 13-bit constants, each rounded once, so any order of the sums
//! gives the same bits. libjpeg-turbo has several forms, which agree as long as nothing overflows 16 bits:
//! blocks that could are looked at closely, and refused if they do. No encoder writes such blocks.

#[cfg(target_arch = "x86_64")]
use super::color::v3;
use infomax_simd::bytes::Simd;

/// Coefficients of a block. Pairs of rows (0 and 2, 4 and 6, 1 and 3, 5 and 7) lie together, column by
/// column, as the transform multiplies them.
pub(super) type Block = [i16; 64];

/// Where the coefficients lie in a [`Block`], in the order of the scan.
pub(super) const PLACES: [u8; 64] = places();

const fn places() -> [u8; 64] {
    let mut places = [0; 64];
    let (mut row, mut column) = (0usize, 0usize);
    let mut k = 0;
    while k < 64 {
        places[k] = place(row, column) as u8;
        // Along the diagonals, upwards on the even ones.
        let up = (row + column) % 2 == 0;
        (row, column) = match (up, row, column) {
            (true, _, 7) => (row + 1, 7),
            (true, 0, _) => (0, column + 1),
            (true, _, _) => (row - 1, column + 1),
            (false, 7, _) => (7, column + 1),
            (false, _, 0) => (row + 1, 0),
            (false, _, _) => (row + 1, column - 1),
        };
        k += 1;
    }
    places
}

const fn place(row: usize, column: usize) -> usize {
    16 * (row % 2 * 2 + row / 4) + 2 * column + row / 2 % 2
}

/// The last place in the order of the scan before the first one in row or column 4.
#[cfg(any(test, target_arch = "x86_64"))]
const LOW: usize = 9;

/// As long as the magnitudes of a block add up to no more, nothing overflows: an intermediate value is at
/// most 4 · 1.39 and a pixel 0.25 times their sum.
const SAFE: u32 = 2000;

/// The constants of the rows 0, 2, 4, 6 for the first four sums of the even part.
pub(super) const EVEN: [[i16; 4]; 4] = [
    [8192, 10703, 8192, 4433],
    [8192, 4433, -8192, -10704],
    [8192, -4433, -8192, 10704],
    [8192, -10703, 8192, -4433],
];

/// The constants of the rows 1, 3, 5, 7 for the first four sums of the odd part.
pub(super) const ODD: [[i16; 4]; 4] = [
    [11363, 9633, 6437, 2260],
    [9633, -2259, -11362, -6436],
    [6437, -11362, 2261, 9633],
    [2260, -6436, 9633, -11363],
];

/// The pixels of a block; `last` is the last coefficient that is not zero, in the order of the scan, and
/// `sum` the sum of all magnitudes. `None` if something overflows.
#[inline(always)]
pub(super) fn inverse<S: Simd>(simd: S, block: &Block, last: usize, sum: u32) -> Option<[u8; 64]> {
    if sum > SAFE {
        return plain(block);
    }
    if last == 0 {
        return Some([clamp((i32::from(block[0]) + 4) >> 3); 64]);
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = v3(simd) {
        return Some(match last <= LOW {
            true => super::x86::inverse::<true>(simd, block),
            false => super::x86::inverse::<false>(simd, block),
        });
    }
    let _ = simd;
    plain(block)
}

fn clamp(value: i32) -> u8 {
    (value + 128).clamp(0, 255) as u8
}

/// One pass over eight values, not rounded.
fn pass(values: [i32; 8]) -> [i32; 8] {
    let sum = |constants: [i16; 4], first: usize| {
        let products = (0..4).map(|i| i32::from(constants[i]) * values[first + 2 * i]);
        products.sum::<i32>()
    };
    let mut out = [0; 8];
    for i in 0..4 {
        let (even, odd) = (sum(EVEN[i], 0), sum(ODD[i], 1));
        (out[i], out[7 - i]) = (even + odd, even - odd);
    }
    out
}

/// The transform one value after the other; `None` if a value leaves the range in which all forms agree.
#[inline(never)]
fn plain(block: &Block) -> Option<[u8; 64]> {
    let fits = |value: i32| value.unsigned_abs() < 1 << 14;
    if !block.iter().all(|value| fits((*value).into())) {
        return None;
    }
    let mut half = [[0; 8]; 8];
    for column in 0..8 {
        let values = std::array::from_fn(|row| i32::from(block[place(row, column)]));
        for (row, value) in pass(values).into_iter().enumerate() {
            half[row][column] = (value + (1 << 10)) >> 11;
        }
    }
    if !half.as_flattened().iter().all(|value| fits(*value)) {
        return None;
    }
    let mut out = [0; 64];
    for (row, out) in half.into_iter().zip(out.as_chunks_mut::<8>().0) {
        for (value, out) in pass(row).into_iter().zip(out) {
            let value = (value + (1 << 17)) >> 18;
            if value.unsigned_abs() >= 512 {
                return None;
            }
            *out = clamp(value);
        }
    }
    Some(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The formula, in floating point.
    fn cosines(block: &Block) -> [f64; 64] {
        let basis = |n: usize, k: usize| {
            let scale = if k == 0 { 0.5f64.sqrt() } else { 1.0 };
            0.5 * scale * (std::f64::consts::PI * (2 * n + 1) as f64 * k as f64 / 16.0).cos()
        };
        std::array::from_fn(|i| {
            let mut sum = 0.0;
            for row in 0..8 {
                for column in 0..8 {
                    let value = f64::from(block[place(row, column)]);
                    sum += value * basis(i / 8, row) * basis(i % 8, column);
                }
            }
            sum
        })
    }

    /// Blocks with so many coefficients, of such a size.
    fn block(seed: u64, last: usize, size: i64) -> (Block, u32) {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut block = [0; 64];
        for place in &PLACES[..=last] {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block[usize::from(*place)] = ((state >> 32) as i64 % (2 * size + 1) - size) as i16;
        }
        (block, block.iter().map(|v| u32::from(v.unsigned_abs())).sum())
    }

    struct Inverse<'a>(&'a Block, usize, u32);

    impl infomax_simd::bytes::WithSimd for Inverse<'_> {
        type Output = Option<[u8; 64]>;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
            inverse(simd, self.0, self.1, self.2)
        }
    }

    #[test]
    fn the_order_of_the_scan() {
        let mut seen = PLACES;
        seen.sort_unstable();
        assert!(seen.iter().enumerate().all(|(i, place)| i == usize::from(*place)));
        let places = [place(0, 0), place(0, 1), place(1, 0), place(2, 0), place(1, 1), place(0, 2)];
        assert_eq!(PLACES[..6], places.map(|p| p as u8));
        assert_eq!(usize::from(PLACES[LOW]), place(3, 0));
        assert_eq!(usize::from(PLACES[63]), place(7, 7));
    }

    #[test]
    fn every_form_gives_the_same_pixels_near_the_formula() {
        for seed in 0..3000 {
            let last = [0, 1, 5, 9, 10, 30, 63][seed as usize % 7];
            let (block, sum) = block(seed, last, [3, 20, 60][seed as usize % 3]);
            let want = plain(&block).unwrap();
            assert_eq!(infomax_simd::bytes::dispatch(Inverse(&block, last, sum)), Some(want), "{block:?}");
            for (got, want) in want.iter().zip(cosines(&block)) {
                let want = (want + 128.0).clamp(0.0, 255.0);
                assert!((f64::from(*got) - want).abs() <= 0.6, "{got} {want}");
            }
        }
    }

    #[test]
    fn large_blocks_are_exact_or_refused() {
        let mut refused = 0;
        for seed in 0..2000 {
            let (block, sum) = block(seed, 63, 1 << (seed % 16).min(14));
            let got = infomax_simd::bytes::dispatch(Inverse(&block, 63, sum));
            refused += u32::from(got.is_none());
            for (got, want) in got.iter().flatten().zip(cosines(&block)) {
                assert!((f64::from(*got) - (want + 128.0).clamp(0.0, 255.0)).abs() <= 0.6);
            }
        }
        assert!((100..1500).contains(&refused), "{refused}");
    }
}
