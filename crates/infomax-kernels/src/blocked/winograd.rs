//! Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, arXiv:1509.09308): a tile of 4x4 results costs
//! 36 products for each pair of channels instead of 144.
//!
//! `Y = A' [(G g G') . (B' d B)] A` for a tile `d` of 6x6 pixels and a kernel `g`; the gradient of the kernel
//! is `G' [(A dY A') . (B' d B)] G`. The transforms act on whole vectors of images; the products of all
//! channels are one matrix product for each of the 36 points. In f32 the largest error is some 1e-6 to 1e-5 of
//! the largest result (the tests bound it).

use super::buffer::Pooled;
use super::tile::{Cell, NV, Outer, Pair, Seg, Sweep, fit, geometry, outer, rows, sweep};
use super::direct::Turn;
use crate::check::ConvShape;
use crate::simd::{Float, Isa, Kernel, Scratch, Shared, Simd, grow};
use rayon::prelude::*;

/// The points of a tile.
const POINTS: usize = 36;
/// Elements of transformed tiles of a task that has a thread of its own.
const TASK: usize = 320 << 10;
/// Elements of transformed tiles that all threads share.
const SHARED: usize = 2 << 20;
/// Elements of transformed weights that may be read again for each task.
const SMALL: usize = 400 << 10;

/// True where this form is used.
pub(super) fn suits(d: &ConvShape) -> bool {
    (d.r, d.s, d.stride, d.dilation) == (3, 3, 1, 1) && d.padding <= 2 && d.c >= 8 && d.k >= 8
}

/// The tiles of a plane of results.
#[derive(Clone, Copy)]
struct Tiles {
    /// Size of the source.
    h: usize,
    w: usize,
    /// Size of the result.
    p: usize,
    q: usize,
    padding: usize,
    across: usize,
    /// Tiles of one block.
    count: usize,
}

impl Tiles {
    fn new(d: &ConvShape) -> Self {
        let across = d.q.div_ceil(4);
        Self { h: d.h, w: d.w, p: d.p, q: d.q, padding: d.padding, across, count: across * d.p.div_ceil(4) }
    }

    /// Source pixel `(i, j)` of the 6x6 of a tile.
    fn source(&self, tile: usize, i: usize, j: usize) -> Option<usize> {
        let y = (tile / self.across * 4 + i).checked_sub(self.padding)?;
        let x = (tile % self.across * 4 + j).checked_sub(self.padding)?;
        (y < self.h && x < self.w).then_some(y * self.w + x)
    }

    /// Result pixel `(i, j)` of the 4x4 of a tile.
    fn result(&self, tile: usize, i: usize, j: usize) -> Option<usize> {
        let (y, x) = (tile / self.across * 4 + i, tile % self.across * 4 + j);
        (y < self.p && x < self.q).then_some(y * self.q + x)
    }
}

#[inline(always)]
unsafe fn constant<S: Simd>(x: f64) -> S::V {
    // SAFETY: the instruction set is the caller's.
    unsafe { S::splat(S::T::of(x)) }
}

/// `B' d`.
#[inline(always)]
unsafe fn input<S: Simd>(d: [S::V; 6]) -> [S::V; 6] {
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
unsafe fn output<S: Simd>(m: [S::V; 6]) -> [S::V; 4] {
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
unsafe fn gradient<S: Simd>(y: [S::V; 4]) -> [S::V; 6] {
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
unsafe fn kernel<S: Simd>(g: [S::V; 3]) -> [S::V; 6] {
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
unsafe fn kernel_gradient<S: Simd>(m: [S::V; 6]) -> [S::V; 3] {
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
/// channel `c`, tap `t`.
fn transform_weights<T: Float>(
    isa: Isa,
    outputs: usize,
    channels: usize,
    to: Shared<T>,
    at: impl Fn(usize, usize, usize) -> T + Sync,
) {
    struct Filters<'a, T, F> {
        panel: usize,
        panels: usize,
        outputs: usize,
        channels: usize,
        to: Shared<T>,
        at: &'a F,
    }
    impl<T: Float, F: Fn(usize, usize, usize) -> T> Kernel<T> for Filters<'_, T, F> {
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
    let panels = outputs.div_ceil(geometry::<T>(isa).0);
    (0..panels).into_par_iter().for_each(|panel| {
        T::dispatch(isa, Filters { panel, panels, outputs, channels, to, at: &at });
    });
}

/// `B' d B` of some tiles, in order `[point][tile][channel][lane]`.
struct Inputs<'a, T> {
    tiles: Tiles,
    /// Tiles of the whole batch, counted from the first block on.
    range: (usize, usize),
    /// The tile that is first in `to`, and how many there are.
    first: usize,
    total: usize,
    source: &'a [T],
    channels: usize,
    lanes: usize,
    zeros: &'a [T],
    to: Shared<T>,
}

impl<T: Float> Kernel<T> for Inputs<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        let image = self.tiles.h * self.tiles.w;
        let line = self.channels * self.lanes;
        let point = self.total * line;
        for tile in self.range.0..self.range.1 {
            let (block, at) = (tile / self.tiles.count, tile % self.tiles.count);
            let mut from = [self.zeros.as_ptr(); POINTS];
            for (p, from) in from.iter_mut().enumerate() {
                if let Some(pixel) = self.tiles.source(at, p / 6, p % 6) {
                    *from = self.source[(block * image + pixel) * line..][..line].as_ptr();
                }
            }
            // SAFETY: lines of the source or zeros; the tile has its own lines in `to`.
            unsafe {
                let to = self.to.get().add((tile - self.first) * line);
                for x in (0..line).step_by(S::LANES) {
                    let mut half = [[S::splat(T::default()); 6]; 6];
                    for j in 0..6 {
                        let load = |i: usize| S::load(from[i * 6 + j].add(x));
                        let column = input::<S>([load(0), load(1), load(2), load(3), load(4), load(5)]);
                        for i in 0..6 {
                            half[i][j] = column[i];
                        }
                    }
                    for i in 0..6 {
                        let row = input::<S>(half[i]);
                        for j in 0..6 {
                            S::store(to.add((i * 6 + j) * point + x), row[j]);
                        }
                    }
                }
            }
        }
    }
}

/// `A' m A` of some tiles.
struct Outputs<'a, T> {
    tiles: Tiles,
    range: (usize, usize),
    first: usize,
    total: usize,
    from: &'a [T],
    outputs: usize,
    lanes: usize,
    add: bool,
    out: Shared<T>,
}

impl<T: Float> Kernel<T> for Outputs<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        let image = self.tiles.p * self.tiles.q;
        let line = self.outputs * self.lanes;
        let point = self.total * line;
        for tile in self.range.0..self.range.1 {
            let (block, at) = (tile / self.tiles.count, tile % self.tiles.count);
            let mut to = [std::ptr::null_mut(); 16];
            for (p, to) in to.iter_mut().enumerate() {
                if let Some(pixel) = self.tiles.result(at, p / 4, p % 4) {
                    // SAFETY: a line of the result.
                    *to = unsafe { self.out.get().add((block * image + pixel) * line) };
                }
            }
            // SAFETY: lines of the products; the tile has its own lines in the result.
            unsafe {
                let from = self.from.as_ptr().add((tile - self.first) * line);
                for x in (0..line).step_by(S::LANES) {
                    let mut half = [[S::splat(T::default()); 6]; 4];
                    for j in 0..6 {
                        let load = |i: usize| S::load(from.add((i * 6 + j) * point + x));
                        let column = output::<S>([load(0), load(1), load(2), load(3), load(4), load(5)]);
                        for i in 0..4 {
                            half[i][j] = column[i];
                        }
                    }
                    for i in 0..4 {
                        let row = output::<S>(half[i]);
                        for j in 0..4 {
                            let to = to[i * 4 + j];
                            if !to.is_null() {
                                let to = to.add(x);
                                let value = if self.add { S::add(S::load(to), row[j]) } else { row[j] };
                                S::store(to, value);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The products of one point for some tiles and outputs.
struct Products<'a, T> {
    /// The tiles of this point.
    from: &'a [T],
    to: Shared<T>,
    total: usize,
    weights: &'a [T],
    channels: usize,
    outputs: usize,
    range: (usize, usize),
    lanes: usize,
}

impl<T: Float> Kernel<T> for Products<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        let vectors = self.lanes / S::LANES;
        let all = self.total * vectors;
        // The partner of the last vector where a tile holds two pixels and their number is odd.
        let mut trash = vec![T::default(); if vectors < NV { self.outputs * self.lanes } else { 0 }];
        let trash = trash.as_mut_ptr();
        let mut segs = Vec::with_capacity(all.div_ceil(NV));
        let mut cells = Vec::with_capacity(all.div_ceil(NV));
        for v in (0..all).step_by(NV) {
            let mut xs = [self.from.as_ptr(); NV];
            let mut outs = [trash; NV];
            for j in 0..NV {
                if v + j < all {
                    let (tile, lane) = ((v + j) / vectors, (v + j) % vectors * S::LANES);
                    // SAFETY: a tile of this point.
                    unsafe {
                        xs[j] = xs[j].add(tile * self.channels * self.lanes + lane);
                        outs[j] = self.to.get().add(tile * self.outputs * self.lanes + lane);
                    }
                }
            }
            cells.push(Cell { from: segs.len(), to: segs.len() + 1, outs });
            segs.push(Seg { xs, weight: 0 });
        }
        // SAFETY: the segments are tiles of the source, the cells those of the result.
        unsafe {
            sweep::<S>(&Sweep {
                segs: &segs,
                cells: &cells,
                channels: self.channels,
                weights: self.weights.as_ptr(),
                panel: self.channels * rows(S::WIDE),
                first: self.range.0,
                outputs: self.range.1 - self.range.0,
                lanes: self.lanes,
                add: false,
            });
        }
    }
}

/// One pass over a batch: forward, or the gradient of the input with the turned kernel.
pub(super) struct Winograd<'a, T> {
    pub(super) shape: &'a ConvShape,
    pub(super) blocks: usize,
    pub(super) lanes: usize,
    pub(super) source: &'a [T],
    pub(super) add: bool,
}

impl<T: Float> Winograd<'_, T> {
    /// Writes (or adds to) every pixel of `out`; `at(k, c, t)` is a weight.
    ///
    /// # Safety
    /// `out` must be valid for all results, which no one else uses meanwhile, initialised where `add` is set.
    pub(super) unsafe fn run(
        &self,
        isa: Isa,
        at: impl Fn(usize, usize, usize) -> T + Sync,
        out: Shared<T>,
    ) {
        let (d, lanes) = (self.shape, self.lanes);
        let isa = fit::<T>(isa, lanes);
        let tiles = Tiles::new(d);
        let all = tiles.count * self.blocks;
        assert!(self.source.len() == self.blocks * d.h * d.w * d.c * lanes);
        let (rows, _) = geometry::<T>(isa);
        let point_weights = d.k.div_ceil(rows) * d.c * rows;
        let mut weights = Pooled::<T>::take(POINTS * point_weights);
        let weights = weights.slice();
        transform_weights(isa, d.k, d.c, Shared::new(weights.as_mut_ptr()), at);
        let weights = &weights[..POINTS * point_weights];
        let zeros = vec![T::default(); d.c * lanes];
        let one = POINTS * (d.c + d.k) * lanes;
        let alone = (TASK / one).max(2).min(all.div_ceil(4));
        let pass = Pass { tiles, d, lanes, source: self.source, weights, point_weights, zeros: &zeros, add: self.add, out };
        if POINTS * point_weights <= SMALL && alone > 0 {
            (0..all.div_ceil(alone)).into_par_iter().for_each(|task| {
                let (first, end) = (task * alone, ((task + 1) * alone).min(all));
                let total = end - first;
                T::with_scratch(|Scratch { stage, panel, .. }| {
                    let inputs = grow(stage, POINTS * total * d.c * lanes);
                    pass.inputs(isa, (first, end), first, total, Shared::new(inputs.as_mut_ptr()));
                    let products = grow(panel, POINTS * total * d.k * lanes);
                    for p in 0..POINTS {
                        pass.products(isa, p, (0, d.k), inputs, total, Shared::new(products.as_mut_ptr()));
                    }
                    pass.outputs(isa, (first, end), first, total, products);
                });
            });
            return;
        }
        let round = (SHARED / one).max(4).min(all);
        let round = all.div_ceil(all.div_ceil(round));
        let mut inputs = Pooled::<T>::take(POINTS * round * d.c * lanes);
        let mut products = Pooled::<T>::take(POINTS * round * d.k * lanes);
        let (inputs, products) = (inputs.slice(), products.slice());
        for first in (0..all).step_by(round) {
            let total = round.min(all - first);
            let to = Shared::new(inputs.as_mut_ptr());
            (0..total).into_par_iter().for_each(|i| pass.inputs(isa, (first + i, first + i + 1), first, total, to));
            let to = Shared::new(products.as_mut_ptr());
            (0..POINTS).into_par_iter().for_each(|p| pass.products(isa, p, (0, d.k), inputs, total, to));
            let products = &*products;
            (0..total).into_par_iter().for_each(|i| pass.outputs(isa, (first + i, first + i + 1), first, total, products));
        }
    }
}

/// What the steps of a pass share.
struct Pass<'a, T> {
    tiles: Tiles,
    d: &'a ConvShape,
    lanes: usize,
    source: &'a [T],
    weights: &'a [T],
    point_weights: usize,
    zeros: &'a [T],
    add: bool,
    out: Shared<T>,
}

impl<T: Float> Pass<'_, T> {
    fn inputs(&self, isa: Isa, range: (usize, usize), first: usize, total: usize, to: Shared<T>) {
        let Self { tiles, source, lanes, zeros, .. } = *self;
        T::dispatch(isa, Inputs { tiles, range, first, total, source, channels: self.d.c, lanes, zeros, to });
    }

    /// Point `p` of all tiles of a round, the outputs of `range`.
    fn products(&self, isa: Isa, p: usize, range: (usize, usize), from: &[T], total: usize, to: Shared<T>) {
        let (c, k, lanes) = (self.d.c, self.d.k, self.lanes);
        // SAFETY: the products of this point.
        let to = unsafe { Shared::new(to.get().add(p * total * k * lanes)) };
        let from = &from[p * total * c * lanes..][..total * c * lanes];
        let weights = &self.weights[p * self.point_weights..][..self.point_weights];
        T::dispatch(isa, Products { from, to, total, weights, channels: c, outputs: k, range, lanes });
    }

    fn outputs(&self, isa: Isa, range: (usize, usize), first: usize, total: usize, from: &[T]) {
        let Self { tiles, lanes, add, out, .. } = *self;
        T::dispatch(isa, Outputs { tiles, range, first, total, from, outputs: self.d.k, lanes, add, out });
    }
}

/// `A dY A'` of some tiles, turned: `[point][panel][tile][lane][k]`.
struct Gradients<'a, T> {
    tiles: Tiles,
    range: (usize, usize),
    first: usize,
    total: usize,
    grad: &'a [T],
    outputs: usize,
    lanes: usize,
    zeros: &'a [T],
    to: Shared<T>,
    buffer: &'a mut Vec<T>,
}

impl<T: Float> Kernel<T> for Gradients<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        let image = self.tiles.p * self.tiles.q;
        let (line, width) = (self.outputs * self.lanes, NV * S::LANES);
        let panels = self.outputs.div_ceil(width);
        let panel = self.total * self.lanes * width;
        // One panel of channels at a time, all points of it in the first-level cache.
        let part = width * self.lanes;
        let buffer = grow(self.buffer, POINTS * part);
        for tile in self.range.0..self.range.1 {
            let (block, at) = (tile / self.tiles.count, tile % self.tiles.count);
            let mut from = [self.zeros.as_ptr(); 16];
            for (p, from) in from.iter_mut().enumerate() {
                if let Some(pixel) = self.tiles.result(at, p / 4, p % 4) {
                    *from = self.grad[(block * image + pixel) * line..][..line].as_ptr();
                }
            }
            for group in 0..panels {
                let len = part.min(line - group * part);
                // SAFETY: lines of the gradient or zeros, points of the buffer.
                unsafe {
                    for x in (0..len).step_by(S::LANES) {
                        let mut half = [[S::splat(T::default()); 4]; 6];
                        for j in 0..4 {
                            let load = |i: usize| S::load(from[i * 4 + j].add(group * part + x));
                            let column = gradient::<S>([load(0), load(1), load(2), load(3)]);
                            for i in 0..6 {
                                half[i][j] = column[i];
                            }
                        }
                        for i in 0..6 {
                            let row = gradient::<S>(half[i]);
                            for j in 0..6 {
                                S::store(buffer.as_mut_ptr().add((i * 6 + j) * part + x), row[j]);
                            }
                        }
                    }
                }
                for p in 0..POINTS {
                    // SAFETY: the rows of this tile in this panel of this point.
                    unsafe {
                        let at = (p * panels + group) * panel + (tile - self.first) * self.lanes * width;
                        let to = self.to.get().add(at);
                        let from = &buffer[p * part..][..len];
                        Turn { from, k: len / self.lanes, lanes: self.lanes, to, pitch: 0 }.run::<S>();
                    }
                }
            }
        }
    }
}

/// The sums of one point over the tiles of a round, some channels.
struct Sums<'a, T> {
    /// `[tile][channel][lane]`.
    inputs: &'a [T],
    /// `[panel][tile][lane][k]`.
    grads: &'a [T],
    total: usize,
    channels: usize,
    lanes: usize,
    panels: usize,
    out: Shared<T>,
    add: bool,
}

impl<T: Float> Kernel<T> for Sums<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        let width = NV * S::LANES;
        let mut pairs = Vec::with_capacity(self.total);
        for panel in 0..self.panels {
            pairs.clear();
            // SAFETY: the tiles of this point; the result has a row of all panels for each channel.
            unsafe {
                for t in 0..self.total {
                    pairs.push(Pair {
                        xs: self.inputs.as_ptr().add(t * self.channels * self.lanes),
                        grad: self.grads.as_ptr().add((panel * self.total + t) * self.lanes * width),
                    });
                }
                outer::<S>(&Outer {
                    pairs: &pairs,
                    first: 0,
                    channels: self.channels,
                    lanes: self.lanes,
                    out: self.out.get().add(panel * width),
                    pitch: self.panels * width,
                    add: self.add,
                });
            }
        }
    }
}

/// `G' m G` for one channel, all outputs.
struct WeightSums<'a, T> {
    /// The sums of this channel in point 0.
    from: &'a [T],
    /// Elements of one point.
    point: usize,
    /// Outputs, padded.
    outputs: usize,
    to: &'a mut [T],
}

impl<T: Float> Kernel<T> for WeightSums<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        for k in (0..self.outputs).step_by(S::LANES) {
            // SAFETY: whole vectors of the padded outputs; `to` has 9 rows of them.
            unsafe {
                let from = self.from.as_ptr().add(k);
                let mut half = [[S::splat(T::default()); 6]; 3];
                for j in 0..6 {
                    let load = |i: usize| S::load(from.add((i * 6 + j) * self.point));
                    let column = kernel_gradient::<S>([load(0), load(1), load(2), load(3), load(4), load(5)]);
                    for i in 0..3 {
                        half[i][j] = column[i];
                    }
                }
                for i in 0..3 {
                    let row = kernel_gradient::<S>(half[i]);
                    for j in 0..3 {
                        S::store(self.to.as_mut_ptr().add((i * 3 + j) * self.outputs + k), row[j]);
                    }
                }
            }
        }
    }
}

/// The gradient of the weight.
pub(super) struct WinogradWeight<'a, T> {
    pub(super) shape: &'a ConvShape,
    pub(super) blocks: usize,
    pub(super) lanes: usize,
    pub(super) source: &'a [T],
    pub(super) grad: &'a [T],
}

impl<T: Float> WinogradWeight<'_, T> {
    /// `(K, C, 3, 3)`.
    pub(super) fn run(&self, isa: Isa) -> Vec<T> {
        let (d, lanes) = (self.shape, self.lanes);
        let isa = fit::<T>(isa, lanes);
        let tiles = Tiles::new(d);
        let all = tiles.count * self.blocks;
        let (_, width) = geometry::<T>(isa);
        let panels = d.k.div_ceil(width);
        let padded = panels * width;
        assert!(self.source.len() == self.blocks * d.h * d.w * d.c * lanes);
        assert!(self.grad.len() == self.blocks * d.p * d.q * d.k * lanes);
        let zeros = vec![T::default(); d.c.max(padded) * lanes];
        let round = (SHARED / (POINTS * (d.c + padded) * lanes)).max(4).min(all);
        let round = all.div_ceil(all.div_ceil(round));
        let mut inputs = Pooled::<T>::take(POINTS * round * d.c * lanes);
        let mut grads = Pooled::<T>::take(POINTS * round * padded * lanes);
        let mut sums = Pooled::<T>::take(POINTS * d.c * padded);
        let (inputs, grads, sums) = (inputs.slice(), grads.slice(), sums.slice());
        for first in (0..all).step_by(round) {
            let total = round.min(all - first);
            let (to_inputs, to_grads) = (Shared::new(inputs.as_mut_ptr()), Shared::new(grads.as_mut_ptr()));
            (0..total).into_par_iter().for_each(|i| {
                let range = (first + i, first + i + 1);
                let (source, grad, zeros) = (self.source, self.grad, &zeros[..]);
                T::dispatch(isa, Inputs { tiles, range, first, total, source, channels: d.c, lanes, zeros, to: to_inputs });
                T::with_scratch(|scratch| {
                    let buffer = &mut scratch.tile;
                    T::dispatch(isa, Gradients { tiles, range, first, total, grad, outputs: d.k, lanes, zeros, to: to_grads, buffer });
                });
            });
            let out = Shared::new(sums.as_mut_ptr());
            let (inputs, grads) = (&*inputs, &*grads);
            (0..POINTS).into_par_iter().for_each(|p| {
                let inputs = &inputs[p * total * d.c * lanes..][..total * d.c * lanes];
                let grads = &grads[p * total * padded * lanes..][..total * padded * lanes];
                // SAFETY: the sums of this point.
                let out = unsafe { Shared::new(out.get().add(p * d.c * padded)) };
                let add = first > 0;
                T::dispatch(isa, Sums { inputs, grads, total, channels: d.c, lanes, panels, out, add });
            });
        }
        let mut turned = Pooled::<T>::take(d.c * 9 * padded);
        let turned = turned.slice();
        turned[..d.c * 9 * padded].par_chunks_mut(9 * padded).enumerate().for_each(|(c, to)| {
            let from = &sums[c * padded..];
            T::dispatch(isa, WeightSums { from, point: d.c * padded, outputs: padded, to });
        });
        let mut weight = vec![T::default(); d.k * d.c * 9];
        weight.par_chunks_mut(d.c * 9).enumerate().for_each(|(k, to)| {
            for (x, to) in to.iter_mut().enumerate() {
                *to = turned[x * padded + k];
            }
        });
        weight
    }
}
