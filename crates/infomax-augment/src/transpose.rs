//! Transposes blocks of 16 x 16 bytes.

/// 16 rows of 16 bytes.
pub(crate) type Block = [[u8; 16]; 16];

/// Byte `j` of row `i` becomes byte `i` of row `j`.
#[inline(always)]
pub(crate) fn transpose<S: infomax_simd::bytes::Simd>(simd: S, block: Block) -> Block {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = infomax_simd::bytes::v3(simd) {
        return avx2(simd, block);
    }
    let _ = simd;
    portable(block)
}

/// Interleaving the bytes of the first and the second half of 8 rows of 16 bytes rotates the 7 bits of their
/// address by one: after three rounds the number of the row, which was in front, is at the end. Both halves
/// of a 256-bit vector do that, for rows 0..8 and 8..16, and are put together at the end.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn avx2(simd: infomax_simd::bytes::V3, block: Block) -> Block {
    use core::arch::x86_64::__m256i;
    // Plain loops: `from_fn` becomes a call without vector instructions.
    let mut rows = [simd.avx._mm256_setzero_si256(); 8];
    for (i, row) in rows.iter_mut().enumerate() {
        *row = infomax_simd::bytes::cast::<_, __m256i>([block[i], block[i + 8]]);
    }
    for _ in 0..3 {
        let old = rows;
        for i in 0..4 {
            rows[2 * i] = simd.avx2._mm256_unpacklo_epi8(old[i], old[i + 4]);
            rows[2 * i + 1] = simd.avx2._mm256_unpackhi_epi8(old[i], old[i + 4]);
        }
    }
    for row in &mut rows {
        *row = simd.avx2._mm256_permute4x64_epi64::<0b11_01_10_00>(*row);
    }
    infomax_simd::bytes::cast(rows)
}

#[inline(always)]
fn portable(block: Block) -> Block {
    let mut out = [[0; 16]; 16];
    for (top, left) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
        let words =
            std::array::from_fn(|i| u64::from_le_bytes(std::array::from_fn(|j| block[top + i][left + j])));
        for (i, word) in eight(words).iter().enumerate() {
            out[left + i][top..top + 8].copy_from_slice(&word.to_le_bytes());
        }
    }
    out
}

/// Transposes a matrix of 8 x 8 bytes: byte `i` of word `r` becomes byte `r` of word `i`. Blocks of 4, 2
/// and 1 bytes change places in turn.
#[inline(always)]
fn eight(mut words: [u64; 8]) -> [u64; 8] {
    for (step, mask) in
        [(4, 0x0000_0000_ffff_ffff), (2, 0x0000_ffff_0000_ffff), (1, 0x00ff_00ff_00ff_00ff_u64)]
    {
        let bits = 8 * step;
        for i in 0..8 {
            if i & step == 0 {
                let (a, b) = (words[i], words[i + step]);
                words[i] = (a & mask) | ((b & mask) << bits);
                words[i + step] = ((a >> bits) & mask) | (b & !mask);
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Any(Block);

    impl infomax_simd::bytes::WithSimd for Any {
        type Output = Block;

        fn with_simd<S: infomax_simd::bytes::Simd>(self, simd: S) -> Block {
            transpose(simd, self.0)
        }
    }

    #[test]
    fn rows_become_columns_in_every_variant() {
        let block: Block = std::array::from_fn(|i| std::array::from_fn(|j| (16 * i + j) as u8));
        let want: Block = std::array::from_fn(|i| std::array::from_fn(|j| (16 * j + i) as u8));
        assert_eq!(portable(block), want);
        assert_eq!(infomax_simd::bytes::dispatch(Any(block)), want);
    }
}
