//! Means and sums of squares of columns, in two passes over panels that stay in the cache.

use infomax_simd::{Float, Isa, Kernel, Shared, Simd};
use rayon::prelude::*;

/// Columns of a panel.
const PANEL: usize = 64;

/// The mean and `sum_i (z_ij - mean_j)^2` of every column of a row-major matrix `(n, d)`; sums in f64.
pub(crate) fn moments<Z: Float>(z: &[Z], d: usize, isa: Isa) -> (Vec<f64>, Vec<f64>) {
    let (mut mean, mut squares) = (vec![0f64; d], vec![0f64; d]);
    mean.par_chunks_mut(PANEL).zip(squares.par_chunks_mut(PANEL)).enumerate().for_each(
        |(p, (mean, squares))| {
            Z::dispatch(isa, Panel { z, d, from: p * PANEL, shift: None, sums: mean });
            let n = (z.len() / d) as f64;
            for m in mean.iter_mut() {
                *m /= n;
            }
            Z::dispatch(isa, Panel { z, d, from: p * PANEL, shift: Some(mean), sums: squares });
        },
    );
    (mean, squares)
}

/// `sum_i z_ij`, or `sum_i (z_ij - shift_j)^2`.
struct Panel<'a, Z> {
    z: &'a [Z],
    d: usize,
    from: usize,
    shift: Option<&'a [f64]>,
    sums: &'a mut [f64],
}

impl<Z: Float> Kernel<Z> for Panel<'_, Z> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = Z>>(self) {
        let width = self.sums.len();
        let mut acc = [0f64; PANEL];
        match self.shift {
            None => {
                for row in self.z.chunks_exact(self.d) {
                    for (a, v) in acc.iter_mut().zip(&row[self.from..][..width]) {
                        *a += v.f64();
                    }
                }
            }
            Some(shift) => {
                for row in self.z.chunks_exact(self.d) {
                    for ((a, v), m) in acc.iter_mut().zip(&row[self.from..][..width]).zip(shift) {
                        let x = v.f64() - m;
                        *a += x * x;
                    }
                }
            }
        }
        self.sums.copy_from_slice(&acc[..width]);
    }
}

/// `f` of rows of `d` elements, in parallel: `out_i = f(i)`, written into a new buffer.
pub(crate) fn by_rows<Z: Float>(
    n: usize,
    d: usize,
    out: Shared<Z>,
    f: impl Fn(usize, &mut [Z]) + Send + Sync,
) {
    let block = (1usize << 15).div_ceil(d.max(1)).max(1);
    (0..n.div_ceil(block)).into_par_iter().for_each(|b| {
        for i in b * block..((b + 1) * block).min(n) {
            // SAFETY: rows are disjoint, and the buffer has `n d` elements.
            f(i, unsafe { std::slice::from_raw_parts_mut(out.get().add(i * d), d) });
        }
    });
}

/// The sum of `f` over chunks of a fixed size, in order.
pub(crate) fn sum_chunks(len: usize, f: impl Fn(std::ops::Range<usize>) -> f64 + Send + Sync) -> f64 {
    const CHUNK: usize = 1 << 14;
    let parts: Vec<f64> =
        (0..len.div_ceil(CHUNK)).into_par_iter().map(|c| f(c * CHUNK..((c + 1) * CHUNK).min(len))).collect();
    parts.iter().sum()
}

/// `sum_i x_ij w_ij` of every column of two mapped matrices.
pub(crate) fn dot_columns<Z: Float>(
    x: &[Z],
    w: &[Z],
    d: usize,
    maps: (&infomax_simd::gemm::Map<f64>, &infomax_simd::gemm::Map<f64>),
    isa: Isa,
) -> Vec<f64> {
    let mut sums = vec![0f64; d];
    sums.par_chunks_mut(PANEL).enumerate().for_each(|(p, sums)| {
        Z::dispatch(isa, Dots { x, w, d, from: p * PANEL, maps, sums });
    });
    sums
}

struct Dots<'a, Z> {
    x: &'a [Z],
    w: &'a [Z],
    d: usize,
    from: usize,
    maps: (&'a infomax_simd::gemm::Map<f64>, &'a infomax_simd::gemm::Map<f64>),
    sums: &'a mut [f64],
}

impl<Z: Float> Kernel<Z> for Dots<'_, Z> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = Z>>(self) {
        let width = self.sums.len();
        let (mut acc, mut a, mut b) = ([0f64; PANEL], [0f64; PANEL], [0f64; PANEL]);
        for (x, w) in self.x.chunks_exact(self.d).zip(self.w.chunks_exact(self.d)) {
            self.maps.0.row(self.from, &x[self.from..][..width], &mut a[..width]);
            self.maps.1.row(self.from, &w[self.from..][..width], &mut b[..width]);
            for j in 0..width {
                acc[j] += a[j] * b[j];
            }
        }
        self.sums.copy_from_slice(&acc[..width]);
    }
}
