//! The gradient of the weight in Winograd's form: `G' [(A dY A') . (B' d B)] G`, summed over all tiles.

use super::buffer::Pooled;
use super::direct::{Turn, unturn};
use super::points::{POINTS, gradient, kernel_gradient};
use super::tile::{NV, Outer, Pair, fit, geometry, outer};
use super::winograd::{Inputs, SHARED, Tiles};
use crate::tensor::check::ConvShape;
use infomax_simd::Stored;
use infomax_simd::{Float, Isa, Kernel, Shared, Simd, grow};
use rayon::prelude::*;

/// `A dY A'` of some tiles, turned: `[point][panel][tile][lane][k]`.
struct Gradients<'a, E: Stored> {
    tiles: Tiles,
    range: (usize, usize),
    first: usize,
    total: usize,
    grad: &'a [E],
    outputs: usize,
    lanes: usize,
    zeros: &'a [E],
    to: Shared<E::Real>,
    buffer: &'a mut Vec<E::Real>,
}

impl<T: Float, E: Stored<Real = T>> Kernel<T> for Gradients<'_, E> {
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
                            let load = |i: usize| E::load::<S>(from[i * 4 + j].add(group * part + x));
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
pub(super) struct WinogradWeight<'a, E> {
    pub(super) shape: &'a ConvShape,
    pub(super) blocks: usize,
    pub(super) lanes: usize,
    pub(super) source: &'a [E],
    pub(super) grad: &'a [E],
}

impl<T: Float, E: Stored<Real = T>> WinogradWeight<'_, E> {
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
        let zeros = vec![E::default(); d.c.max(padded) * lanes];
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
                T::dispatch(
                    isa,
                    Inputs { tiles, range, first, total, source, channels: d.c, lanes, zeros, to: to_inputs },
                );
                T::with_scratch(|scratch| {
                    let buffer = &mut scratch.tile;
                    T::dispatch(
                        isa,
                        Gradients {
                            tiles,
                            range,
                            first,
                            total,
                            grad,
                            outputs: d.k,
                            lanes,
                            zeros,
                            to: to_grads,
                            buffer,
                        },
                    );
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
        turned.par_chunks_mut(9 * padded).enumerate().for_each(|(c, to)| {
            let from = &sums[c * padded..];
            T::dispatch(isa, WeightSums { from, point: d.c * padded, outputs: padded, to });
        });
        unturn(d.k, d.c * 9, turned, padded, |x| x)
    }
}
