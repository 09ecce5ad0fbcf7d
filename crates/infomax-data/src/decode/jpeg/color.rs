//! Chroma at full resolution, and YCbCr to RGB, as libjpeg-turbo does both.

use infomax_simd::bytes::Simd;

/// The AVX2 instructions, in code that is compiled for them: the answer is known to the compiler.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn v3<S: Simd>(simd: S) -> Option<infomax_simd::bytes::V3> {
    (&simd as &dyn std::any::Any).downcast_ref::<infomax_simd::bytes::V3>().copied()
}

/// Columns that are worked on together; rows are filled up to a multiple of it.
pub(super) const LANES: usize = 32;

/// A row of chroma of half the width, with one column more on each side, ready to be doubled.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// Weighted sums of two rows, or the one row.
    sums: Vec<u16>,
    /// Twice as many columns, without those at the sides.
    pub(super) out: Vec<u8>,
}

impl Row {
    /// A row of so many columns before they are doubled.
    pub(super) fn new(columns: usize) -> Self {
        let chunks = columns.div_ceil(LANES / 2);
        Self { sums: vec![0; chunks * LANES / 2 + 2], out: vec![0; chunks * LANES] }
    }

    /// Takes the columns from `first` on out of a row that begins with column `start` and ends, in the image,
    /// with column `last`: `3 near + far`, or `near` alone. Outside of the image its border is repeated.
    #[inline(always)]
    pub(super) fn take(&mut self, near: &[u8], far: Option<&[u8]>, first: usize, start: usize, last: usize) {
        // The column before the first one, or that itself.
        let skip = usize::from(first == 0);
        let from = first + skip - 1 - start;
        let count = (last + 1 - start).min(near.len()).saturating_sub(from).min(self.sums.len() - skip);
        let sums = &mut self.sums[skip..skip + count];
        match far {
            None => {
                for (sum, near) in sums.iter_mut().zip(&near[from..from + count]) {
                    *sum = u16::from(*near);
                }
            }
            Some(far) => {
                let pairs = near[from..from + count].iter().zip(&far[from..from + count]);
                for (sum, (near, far)) in sums.iter_mut().zip(pairs) {
                    *sum = 3 * u16::from(*near) + u16::from(*far);
                }
            }
        }
        if skip == 1 {
            self.sums[0] = self.sums[1];
        }
        if let [.., border] = self.sums[..skip + count]
            && let Some(beyond) = self.sums.get_mut(skip + count)
        {
            *beyond = border;
        }
    }

    /// Doubles the columns: three parts of the nearer and one of the farther one, rounded down and up in turn.
    #[inline(always)]
    pub(super) fn double<const SHIFT: u16, const EVEN: u16, const ODD: u16>(&mut self) {
        for (i, out) in self.out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let at = i * LANES / 2;
            let Some(sums) = self.sums[at..].first_chunk::<{ LANES / 2 + 2 }>() else { return };
            // Two bytes at once are a form that the compiler makes vectors of.
            let mut pairs = [0u16; LANES / 2];
            for j in 0..LANES / 2 {
                let near = 3 * sums[j + 1];
                let (even, odd) = ((near + sums[j] + EVEN) >> SHIFT, (near + sums[j + 2] + ODD) >> SHIFT);
                pairs[j] = (even | odd << 8).to_le();
            }
            *out = infomax_simd::bytes::cast(pairs);
        }
    }
}

/// Appends a row of RGB.
#[inline(always)]
pub(super) fn append_rgb<S: Simd>(simd: S, y: &[u8], cb: &[u8], cr: &[u8], out: &mut Vec<u8>) {
    let width = y.len();
    let (ys, rest) = y.as_chunks::<LANES>();
    let (cb, cr) = (&cb[..width], &cr[..width]);
    let ((cbs, cb_rest), (crs, cr_rest)) = (cb.as_chunks::<LANES>(), cr.as_chunks::<LANES>());
    for ((y, cb), cr) in ys.iter().zip(cbs).zip(crs) {
        out.extend_from_slice(pixels(simd, y, cb, cr).as_flattened());
    }
    if !rest.is_empty() {
        let full = |rest: &[u8]| {
            let mut bytes = [0; LANES];
            bytes[..rest.len()].copy_from_slice(rest);
            bytes
        };
        let last = pixels(simd, &full(rest), &full(cb_rest), &full(cr_rest));
        out.extend_from_slice(&last.as_flattened()[..3 * rest.len()]);
    }
}

#[inline(always)]
fn pixels<S: Simd>(simd: S, y: &[u8; LANES], cb: &[u8; LANES], cr: &[u8; LANES]) -> [[u8; LANES]; 3] {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = v3(simd) {
        return super::x86::to_rgb(simd, y, cb, cr);
    }
    let _ = simd;
    let mut out = [[0; LANES]; 3];
    for (i, pixel) in out.as_flattened_mut().as_chunks_mut::<3>().0.iter_mut().enumerate() {
        *pixel = rgb(y[i], cb[i], cr[i]);
    }
    out
}

/// JFIF's conversion in 16-bit fixed point.
#[inline(always)]
fn rgb(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let half = 1 << 15;
    [
        y + ((91881 * cr + half) >> 16),
        y + ((half - 22554 * cb - 46802 * cr) >> 16),
        y + ((116_130 * cb + half) >> 16),
    ]
    .map(|value| value.clamp(0, 255) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct All;

    impl infomax_simd::bytes::WithSimd for All {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            for cb in 0..=255 {
                for cr in 0..=255u8 {
                    let y: Vec<u8> = (0..45u8).map(|i| i.wrapping_mul(6).wrapping_add(cr)).collect();
                    let mut row = Vec::new();
                    append_rgb(simd, &y, &[cb; 64], &[cr; 64], &mut row);
                    let want: Vec<u8> = y.iter().flat_map(|y| rgb(*y, cb, cr)).collect();
                    assert_eq!(row, want, "{cb} {cr}");
                }
            }
        }
    }

    #[test]
    fn all_colors_are_those_of_the_plain_loop() {
        infomax_simd::bytes::dispatch(All);
    }

    #[test]
    fn the_whole_row_and_parts_of_it_are_doubled_alike() {
        let source: Vec<u8> = (0..100u8).map(|i| i.wrapping_mul(73)).collect();
        let doubled = |first: usize, count: usize| {
            let mut row = Row::new(count);
            row.take(&source, None, first, 0, 99);
            row.double::<2, 1, 2>();
            row.out[..2 * count].to_vec()
        };
        let all = doubled(0, 100);
        assert_eq!((all[0], all[199]), (source[0], source[99]));
        assert_eq!(u16::from(all[5]), (3 * u16::from(source[2]) + u16::from(source[3]) + 2) >> 2);
        for (first, count) in [(0, 1), (1, 1), (99, 1), (31, 69), (50, 17)] {
            assert_eq!(doubled(first, count), all[2 * first..2 * (first + count)], "{first} {count}");
        }
    }
}
