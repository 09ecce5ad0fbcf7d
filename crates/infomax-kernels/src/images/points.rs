//! The one-dimensional transforms of F(4, 3) at the points 0, 1, -1, 2, -2 and infinity, on whole vectors, and
//! the transformed weights. Two dimensions are one transform of the columns and one of the rows.

use super::tile::{geometry, rows};
use infomax_simd::Stored;
use infomax_simd::{Float, Isa, Kernel, Shared, Simd};
use rayon::prelude::*;

/// The points of a tile.
pub(super) const POINTS: usize = 36;

#[inline(always)]
unsafe fn constant<S: Simd>(x: f64) -> S::V {
    // SAFETY: the instruction set is the caller's.
    unsafe { S::splat(S::T::of(x)) }
}

/// `B' d`.
#[inline(always)]
pub(super) unsafe fn input<S: Simd>(d: [S::V; 6]) -> [S::V; 6] {
    // SAFETY: the instruction set is the caller's.
    unsafe {
        let (four, minus4, minus5) = (constant::<S>(4.0), constant::<S>(-4.0), constant::<S>(-5.0));
        let (two, minus2) = (constant::<S>(2.0), constant::<S>(-2.0));
        let a = S::fma(minus4, d[2], d[4]);
        let b = S::fma(minus4, d[1], d[3]);
        let c = S::sub(d[4], d[2]);
        let e = S::sub(d[3], d[1]);
        [
            S::fma(four, d[0], S::fma(minus5, d[2], d[4])),
            S::add(a, b),
            S::sub(a, b),
            S::fma(two, e, c),
            S::fma(minus2, e, c),
            S::fma(four, d[1], S::fma(minus5, d[3], d[5])),
        ]
    }
}

/// `A' m`.
#[inline(always)]
pub(super) unsafe fn output<S: Simd>(m: [S::V; 6]) -> [S::V; 4] {
    // SAFETY: the instruction set is the caller's.
    unsafe {
        let (a, b) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
        let (c, d) = (S::add(m[3], m[4]), S::sub(m[3], m[4]));
        [
            S::add(S::add(m[0], a), c),
            S::fma(constant::<S>(2.0), d, b),
            S::fma(constant::<S>(4.0), c, a),
            S::add(S::fma(constant::<S>(8.0), d, b), m[5]),
        ]
    }
}

/// `A y`.
#[inline(always)]
pub(super) unsafe fn gradient<S: Simd>(y: [S::V; 4]) -> [S::V; 6] {
    // SAFETY: the instruction set is the caller's.
    unsafe {
        let (a, b) = (S::add(y[0], y[2]), S::add(y[1], y[3]));
        let c = S::fma(constant::<S>(4.0), y[2], y[0]);
        let two = constant::<S>(2.0);
        let d = S::mul(two, S::fma(constant::<S>(4.0), y[3], y[1]));
        [y[0], S::add(a, b), S::sub(a, b), S::add(c, d), S::sub(c, d), y[3]]
    }
}

/// `G g`.
#[inline(always)]
pub(super) unsafe fn kernel<S: Simd>(g: [S::V; 3]) -> [S::V; 6] {
    // SAFETY: the instruction set is the caller's.
    unsafe {
        let sixth = constant::<S>(-1.0 / 6.0);
        let a = S::mul(sixth, S::add(g[0], g[2]));
        let b = S::mul(sixth, g[1]);
        let c = S::fma(constant::<S>(1.0 / 24.0), g[0], S::mul(constant::<S>(1.0 / 6.0), g[2]));
        let d = S::mul(constant::<S>(1.0 / 12.0), g[1]);
        [S::mul(constant::<S>(0.25), g[0]), S::add(a, b), S::sub(a, b), S::add(c, d), S::sub(c, d), g[2]]
    }
}

/// `G' m`.
#[inline(always)]
pub(super) unsafe fn kernel_gradient<S: Simd>(m: [S::V; 6]) -> [S::V; 3] {
    // SAFETY: the instruction set is the caller's.
    unsafe {
        let (a, b) = (S::add(m[1], m[2]), S::sub(m[2], m[1]));
        let (c, d) = (S::add(m[3], m[4]), S::sub(m[3], m[4]));
        let sixth = constant::<S>(1.0 / 6.0);
        let first = S::fma(constant::<S>(0.25), m[0], S::mul(constant::<S>(1.0 / 24.0), c));
        [
            S::fma(constant::<S>(-1.0 / 6.0), a, first),
            S::fma(sixth, b, S::mul(constant::<S>(1.0 / 12.0), d)),
            S::fma(sixth, S::sub(c, a), m[5]),
        ]
    }
}

/// Packs transformed weights: `[point][panel][channel][row]`; `at(k, c, t)` is the weight of output `k`,
/// channel `c`, tap `t`, which is rounded as the maps `E` are.
pub(super) fn transform_weights<E: Stored>(
    isa: Isa,
    outputs: usize,
    channels: usize,
    to: Shared<E::Real>,
    at: impl Fn(usize, usize, usize) -> E::Real + Sync,
) {
    struct Filters<'a, E: Stored, F> {
        panel: usize,
        panels: usize,
        outputs: usize,
        channels: usize,
        to: Shared<E::Real>,
        at: &'a F,
    }
    impl<T: Float, E: Stored<Real = T>, F: Fn(usize, usize, usize) -> T> Kernel<T> for Filters<'_, E, F> {
        type Out = ();
        #[inline(always)]
        unsafe fn run<S: Simd<T = T>>(self) {
            let rows = rows(S::WIDE);
            // At most 12 rows, in whole vectors of at least 2 and at most 16.
            let mut taps = [[T::default(); 16]; 9];
            let mut points = [[T::default(); 16]; POINTS];
            let point = self.panels * self.channels * rows;
            for c in 0..self.channels {
                for i in 0..rows.min(self.outputs - self.panel * rows) {
                    for (t, tap) in taps.iter_mut().enumerate() {
                        tap[i] = (self.at)(self.panel * rows + i, c, t);
                    }
                }
                // SAFETY: vectors within arrays of 16; each panel writes its own rows.
                unsafe {
                    for v in (0..rows).step_by(S::LANES) {
                        for tap in &mut taps {
                            let tap = tap.as_mut_ptr().add(v);
                            S::store(tap, E::rounded::<S>(S::load(tap)));
                        }
                        let mut half = [[S::splat(T::default()); 3]; 6];
                        for s in 0..3 {
                            let load = |r: usize| S::load(taps[r * 3 + s].as_ptr().add(v));
                            let column = kernel::<S>([load(0), load(1), load(2)]);
                            for r in 0..6 {
                                half[r][s] = column[r];
                            }
                        }
                        for r in 0..6 {
                            let row = kernel::<S>(half[r]);
                            for s in 0..6 {
                                S::store(points[r * 6 + s].as_mut_ptr().add(v), row[s]);
                            }
                        }
                    }
                    let to = self.to.get().add((self.panel * self.channels + c) * rows);
                    for (p, values) in points.iter().enumerate() {
                        std::ptr::copy_nonoverlapping(values.as_ptr(), to.add(p * point), rows);
                    }
                }
            }
        }
    }
    let panels = outputs.div_ceil(geometry::<E::Real>(isa).0);
    (0..panels).into_par_iter().for_each(|panel| {
        E::Real::dispatch(isa, Filters::<E, _> { panel, panels, outputs, channels, to, at: &at });
    });
}
