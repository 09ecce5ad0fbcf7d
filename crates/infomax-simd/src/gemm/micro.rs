//! The register tiles of the matrix products, and the packing of their operands.

use crate::vectors::{Float, Simd};

/// Vectors across of a tile of [`outer`]: with 6 rows they need 15 registers of 16, with 12 rows 27 of 32. One
/// more, and the compiler keeps a sum in memory.
pub const ACROSS: usize = 2;
/// Rows across of a tile of [`dots`]: with 4 rows they need 16 registers, with 8 rows 28.
pub const DOTS: usize = 3;
/// Side of the blocks that a task forms.
pub const BLOCK: usize = 96;

/// `acc_i + sum_p a_i[p step] b[p]` for `MR` rows `a_i` and vectors `b[p]` of `ACROSS` registers.
///
/// # Safety
/// The instruction set of `S` must be present. Each `a_i` must be valid for `k` elements `step` apart, `b` for
/// `k ACROSS LANES` elements.
#[inline(always)]
pub unsafe fn outer<S: Simd, const MR: usize>(
    mut acc: [[S::V; ACROSS]; MR],
    k: usize,
    a: [*const S::T; MR],
    step: usize,
    b: *const S::T,
) -> [[S::V; ACROSS]; MR] {
    // SAFETY: element `p` of every row and vector `p` of `b` are within what the caller promises for `p < k`.
    unsafe {
        let mut at = 0;
        for p in 0..k {
            let row = b.add(p * ACROSS * S::LANES);
            let (left, right) = (S::load(row), S::load(row.add(S::LANES)));
            for i in 0..MR {
                let x = S::splat(*a[i].add(at));
                acc[i][0] = S::fma(x, left, acc[i][0]);
                acc[i][1] = S::fma(x, right, acc[i][1]);
            }
            at += step;
        }
        acc
    }
}

/// Sums of nothing, for [`outer`].
///
/// # Safety
/// The instruction set of `S` must be present.
#[inline(always)]
pub unsafe fn zeros<S: Simd, const MR: usize>() -> [[S::V; ACROSS]; MR] {
    // SAFETY: by the caller.
    unsafe { [[S::splat(S::T::default()); ACROSS]; MR] }
}

/// The scalar products of `MR` rows with `DOTS` rows of `k` elements, `k` a multiple of `LANES`.
///
/// # Safety
/// All pointers must be valid for `k` elements.
#[inline(always)]
pub unsafe fn dots<S: Simd, const MR: usize>(
    k: usize,
    a: [*const S::T; MR],
    b: [*const S::T; DOTS],
) -> [[S::T; DOTS]; MR] {
    // SAFETY: reads within what the caller promises.
    unsafe {
        let zero = S::splat(S::T::default());
        let mut acc = [[zero; DOTS]; MR];
        let mut p = 0;
        while p < k {
            let mut across = [zero; DOTS];
            for j in 0..DOTS {
                across[j] = S::load(b[j].add(p));
            }
            for i in 0..MR {
                let x = S::load(a[i].add(p));
                for j in 0..DOTS {
                    acc[i][j] = S::fma(x, across[j], acc[i][j]);
                }
            }
            p += S::LANES;
        }
        let mut out = [[S::T::default(); DOTS]; MR];
        for i in 0..MR {
            for j in 0..DOTS {
                out[i][j] = S::sum(acc[i][j]);
            }
        }
        out
    }
}

/// The column-wise map `x = (z - high - low) scale` in the type of a product. `high + low` is the shift to
/// twice the precision, so that data far from the origin keep their digits in f32.
#[derive(Clone, Debug)]
pub struct Map<T> {
    /// The shift of each column.
    pub high: Vec<T>,
    /// What the type lost of it.
    pub low: Vec<T>,
    /// The factor of each column.
    pub scale: Vec<T>,
}

impl<T: Float> Map<T> {
    /// The map of a shift and a factor for each column.
    pub fn new(shift: &[f64], scale: &[f64]) -> Self {
        let high: Vec<T> = shift.iter().map(|s| T::of(*s)).collect();
        let low = shift.iter().zip(&high).map(|(s, h)| T::of(s - h.f64())).collect();
        Self { high, low, scale: scale.iter().map(|s| T::of(*s)).collect() }
    }

    /// The mapped elements of columns `first ..` of a row.
    #[inline(always)]
    pub fn row<Z: Float>(&self, first: usize, source: &[Z], out: &mut [T]) {
        let len = source.len().min(out.len());
        let (high, low, scale) =
            (&self.high[first..][..len], &self.low[first..][..len], &self.scale[first..][..len]);
        for j in 0..len {
            out[j] = (T::of(source[j].f64()) - high[j] - low[j]) * scale[j];
        }
    }
}

/// Packs columns `from .. from + k` of rows into rows of `padded` elements, with zeros beyond `k`.
#[inline(always)]
pub fn pack_rows<Z: Float, T: Float>(
    source: &[Z],
    width: usize,
    rows: (usize, usize),
    (from, k): (usize, usize),
    padded: usize,
    map: &Map<T>,
    out: &mut [T],
) {
    for (i, out) in (rows.0..rows.1).zip(out.chunks_exact_mut(padded)) {
        map.row(from, &source[i * width + from..][..k], out);
        out[k..].fill(T::default());
    }
}

/// Packs columns `from .. to` of rows `rows` of a row-major matrix of `width` columns into panels of `across`
/// columns, `rows x across` each, with zeros beyond `to`. Returns the number of panels.
#[inline(always)]
pub fn pack_columns<Z: Float, T: Float>(
    source: &[Z],
    width: usize,
    rows: (usize, usize),
    (from, to): (usize, usize),
    across: usize,
    map: Option<&Map<T>>,
    out: &mut [T],
) -> usize {
    let (count, k) = ((to - from).div_ceil(across), rows.1 - rows.0);
    for panel in 0..count {
        let first = from + panel * across;
        let columns = across.min(to - first);
        for p in 0..k {
            let source = &source[(rows.0 + p) * width + first..][..columns];
            let out = &mut out[(panel * k + p) * across..][..across];
            match map {
                Some(map) => map.row(first, source, out),
                None => {
                    for j in 0..columns {
                        out[j] = T::of(source[j].f64());
                    }
                }
            }
            out[columns..].fill(T::default());
        }
    }
    count
}
