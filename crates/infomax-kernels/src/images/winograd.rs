//! Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, arXiv:1509.09308): a tile of 4x4 results costs
//! 36 products for each pair of channels instead of 144.
//!
//! `Y = A' [(G g G') . (B' d B)] A` for a tile `d` of 6x6 pixels and a kernel `g`; the gradient of the kernel
//! is `G' [(A dY A') . (B' d B)] G`. The transforms act on whole vectors of images; the products of all
//! channels are one matrix product for each of the 36 points. In f32 the largest error is some 1e-6 to 1e-5 of
//! the largest result (the tests bound it).

use super::buffer::Pooled;
use super::points::{POINTS, input, output, transform_weights};
use super::tile::{Cell, NV, Seg, Sweep, fit, geometry, rows, sweep};
use crate::tensor::check::ConvShape;
use infomax_simd::Stored;
use infomax_simd::{Float, Isa, Kernel, Scratch, Shared, Simd, grow};
use rayon::prelude::*;

/// Elements of transformed tiles of a task that has a thread of its own.
const TASK: usize = 320 << 10;
/// Elements of transformed tiles that all threads share.
pub(super) const SHARED: usize = 2 << 20;
/// Elements of transformed weights that may be read again for each task.
const SMALL: usize = 400 << 10;

/// True where this form is used.
pub(super) fn suits(d: &ConvShape) -> bool {
    (d.r, d.s, d.stride, d.dilation) == (3, 3, 1, 1) && d.padding <= 2 && d.c >= 8 && d.k >= 8
}

/// The tiles of a plane of results.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    /// Size of the source.
    h: usize,
    w: usize,
    /// Size of the result.
    pub(super) p: usize,
    pub(super) q: usize,
    padding: usize,
    across: usize,
    /// Tiles of one block.
    pub(super) count: usize,
}

impl Tiles {
    pub(super) fn new(d: &ConvShape) -> Self {
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
    pub(super) fn result(&self, tile: usize, i: usize, j: usize) -> Option<usize> {
        let (y, x) = (tile / self.across * 4 + i, tile % self.across * 4 + j);
        (y < self.p && x < self.q).then_some(y * self.q + x)
    }
}

/// `B' d B` of some tiles, in order `[point][tile][channel][lane]`.
pub(super) struct Inputs<'a, E: Stored> {
    pub(super) tiles: Tiles,
    /// Tiles of the whole batch, counted from the first block on.
    pub(super) range: (usize, usize),
    /// The tile that is first in `to`, and how many there are.
    pub(super) first: usize,
    pub(super) total: usize,
    pub(super) source: &'a [E],
    pub(super) channels: usize,
    pub(super) lanes: usize,
    pub(super) zeros: &'a [E],
    pub(super) to: Shared<E::Real>,
}

impl<T: Float, E: Stored<Real = T>> Kernel<T> for Inputs<'_, E> {
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
                        let load = |i: usize| E::load::<S>(from[i * 6 + j].add(x));
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
struct Outputs<'a, E: Stored> {
    tiles: Tiles,
    range: (usize, usize),
    first: usize,
    total: usize,
    from: &'a [E::Real],
    outputs: usize,
    lanes: usize,
    add: bool,
    out: Shared<E>,
}

impl<T: Float, E: Stored<Real = T>> Kernel<T> for Outputs<'_, E> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        let image = self.tiles.p * self.tiles.q;
        let line = self.outputs * self.lanes;
        let point = self.total * line;
        for tile in self.range.0..self.range.1 {
            let (block, at) = (tile / self.tiles.count, tile % self.tiles.count);
            let mut to = [std::ptr::null_mut::<E>(); 16];
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
                                let value = if self.add { S::add(E::load::<S>(to), row[j]) } else { row[j] };
                                E::store::<S>(to, value);
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
            sweep::<S, T>(&Sweep {
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
pub(super) struct Winograd<'a, E> {
    pub(super) shape: &'a ConvShape,
    pub(super) blocks: usize,
    pub(super) lanes: usize,
    pub(super) source: &'a [E],
    pub(super) add: bool,
}

impl<T: Float, E: Stored<Real = T>> Winograd<'_, E> {
    /// Writes (or adds to) every pixel of `out`; `at(k, c, t)` is a weight.
    ///
    /// # Safety
    /// `out` must be valid for all results, which no one else uses meanwhile, initialized where `add` is set.
    pub(super) unsafe fn run(&self, isa: Isa, at: impl Fn(usize, usize, usize) -> T + Sync, out: Shared<E>) {
        let (d, lanes) = (self.shape, self.lanes);
        let isa = fit::<T>(isa, lanes);
        let tiles = Tiles::new(d);
        let all = tiles.count * self.blocks;
        assert!(self.source.len() == self.blocks * d.h * d.w * d.c * lanes);
        let (rows, _) = geometry::<T>(isa);
        let point_weights = d.k.div_ceil(rows) * d.c * rows;
        let mut weights = Pooled::<T>::take(POINTS * point_weights);
        let weights = weights.slice();
        transform_weights::<E>(isa, d.k, d.c, Shared::new(weights.as_mut_ptr()), at);
        let weights = &weights[..POINTS * point_weights];
        let zeros = vec![E::default(); d.c * lanes];
        let one = POINTS * (d.c + d.k) * lanes;
        let alone = (TASK / one).max(2).min(all.div_ceil(4));
        let pass = Pass {
            tiles,
            d,
            lanes,
            source: self.source,
            weights,
            point_weights,
            zeros: &zeros,
            add: self.add,
            out,
        };
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
            (0..total)
                .into_par_iter()
                .for_each(|i| pass.inputs(isa, (first + i, first + i + 1), first, total, to));
            let to = Shared::new(products.as_mut_ptr());
            (0..POINTS).into_par_iter().for_each(|p| pass.products(isa, p, (0, d.k), inputs, total, to));
            let products = &*products;
            (0..total)
                .into_par_iter()
                .for_each(|i| pass.outputs(isa, (first + i, first + i + 1), first, total, products));
        }
    }
}

/// What the steps of a pass share.
struct Pass<'a, E: Stored> {
    tiles: Tiles,
    d: &'a ConvShape,
    lanes: usize,
    source: &'a [E],
    weights: &'a [E::Real],
    point_weights: usize,
    zeros: &'a [E],
    add: bool,
    out: Shared<E>,
}

impl<T: Float, E: Stored<Real = T>> Pass<'_, E> {
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
