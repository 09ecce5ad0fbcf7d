//! Convolution of any kernel, stride, padding and dilation, and the gradient of its input: for each pixel of
//! the result, a list of the source pixels that reach it.

use super::buffer::Pooled;
use super::tile::{Cell, NV, Outer, PAIRS, Pair, Seg, Sweep, fit, geometry, outer, rows, sweep};
use crate::tensor::check::ConvShape;
use infomax_simd::Stored;
use infomax_simd::{Float, Isa, Kernel, Shared, Simd, grow};
use rayon::prelude::*;
use std::ops::Range;

/// Elements of the source that one task visits again for each panel of weights: half of a second-level cache.
const TASK: usize = 64 << 10;

/// Which source pixel each tap of each result pixel reads; `NONE` for the padding.
pub(super) struct Reach {
    table: Vec<u32>,
    taps: usize,
    /// Pixels of a result plane.
    pixels: usize,
    /// Pixels of a source plane.
    sources: usize,
}

const NONE: u32 = u32::MAX;

impl Reach {
    /// Of the convolution.
    pub(super) fn forward(d: &ConvShape) -> Self {
        let mut table = Vec::with_capacity(d.p * d.q * d.r * d.s);
        for p in 0..d.p {
            for q in 0..d.q {
                for r in 0..d.r {
                    for s in 0..d.s {
                        let y = (p * d.stride + r * d.dilation).checked_sub(d.padding);
                        let x = (q * d.stride + s * d.dilation).checked_sub(d.padding);
                        table.push(match (y, x) {
                            (Some(y), Some(x)) if y < d.h && x < d.w => (y * d.w + x) as u32,
                            _ => NONE,
                        });
                    }
                }
            }
        }
        Self { table, taps: d.r * d.s, pixels: d.p * d.q, sources: d.h * d.w }
    }

    /// Of the gradient of the input.
    pub(super) fn backward(d: &ConvShape) -> Self {
        let from = |at: usize, tap: usize, len: usize| {
            let shifted = (at + d.padding).checked_sub(tap * d.dilation)?;
            (shifted.is_multiple_of(d.stride) && shifted / d.stride < len).then_some(shifted / d.stride)
        };
        let mut table = Vec::with_capacity(d.h * d.w * d.r * d.s);
        for y in 0..d.h {
            for x in 0..d.w {
                for r in 0..d.r {
                    for s in 0..d.s {
                        table.push(match (from(y, r, d.p), from(x, s, d.q)) {
                            (Some(p), Some(q)) => (p * d.q + q) as u32,
                            _ => NONE,
                        });
                    }
                }
            }
        }
        Self { table, taps: d.r * d.s, pixels: d.h * d.w, sources: d.p * d.q }
    }

    /// Source pixel of a tap of a result pixel.
    pub(super) fn at(&self, pixel: usize, tap: usize) -> Option<usize> {
        let source = self.table[pixel * self.taps + tap];
        (source != NONE).then_some(source as usize)
    }

    /// The pixels of the source from the first that some result pixels read to the last.
    pub(super) fn sources_of(&self, pixels: Range<usize>) -> Range<usize> {
        let reached = &self.table[pixels.start * self.taps..pixels.end * self.taps];
        let (mut first, mut end) = (self.sources, 0);
        for source in reached.iter().filter(|source| **source != NONE) {
            first = first.min(*source as usize);
            end = end.max(*source as usize + 1);
        }
        first.min(end)..end
    }

    pub(super) fn taps(&self) -> usize {
        self.taps
    }

    /// Pixels of a result plane.
    pub(super) fn pixels(&self) -> usize {
        self.pixels
    }

    /// Pixels of a source plane.
    pub(super) fn sources(&self) -> usize {
        self.sources
    }
}

/// Packs weights in panels of `rows` outputs: `[panel][tap][channel][row]`, rounded as the maps `E` are.
pub(super) fn pack<E: Stored>(
    rows: usize,
    outputs: usize,
    channels: usize,
    taps: usize,
    at: impl Fn(usize, usize, usize) -> E::Real + Sync,
) -> Vec<E::Real> {
    // Panels side by side, so that a line of memory is read once where outputs are the inner dimension.
    const GROUP: usize = 4;
    let panel = channels * taps * rows;
    let mut packed = vec![E::Real::default(); outputs.div_ceil(rows) * panel];
    packed.par_chunks_mut(GROUP * panel).enumerate().for_each(|(group, to)| {
        for c in 0..channels {
            for (p, to) in to.chunks_exact_mut(panel).enumerate() {
                let first = (group * GROUP + p) * rows;
                for i in 0..rows.min(outputs - first) {
                    for t in 0..taps {
                        to[(t * channels + c) * rows + i] = E::narrow(at(first + i, c, t)).wide();
                    }
                }
            }
        }
    });
    packed
}

/// The gradient of a weight, `(outputs, inner)`, from rows of `outputs` values, `pitch` apart; row `row(x)`
/// belongs to the element `x` of the inner dimensions.
pub(super) fn unturn<T: Float>(
    outputs: usize,
    inner: usize,
    rows: &[T],
    pitch: usize,
    row: impl Fn(usize) -> usize + Sync,
) -> Vec<T> {
    // Outputs of one task: a line of memory.
    const GROUP: usize = 16;
    let mut weight = vec![T::default(); outputs * inner];
    weight.par_chunks_mut(GROUP * inner).enumerate().for_each(|(group, to)| {
        let count = to.len() / inner;
        for x in 0..inner {
            let from = &rows[row(x) * pitch + group * GROUP..][..count];
            for (k, value) in from.iter().enumerate() {
                to[k * inner + x] = *value;
            }
        }
    });
    weight
}

/// One pass over a batch, with weights of type `W`.
pub(super) struct Direct<'a, E: Stored, W = <E as Stored>::Real> {
    pub(super) reach: &'a Reach,
    pub(super) blocks: usize,
    pub(super) lanes: usize,
    pub(super) source: &'a [E],
    pub(super) channels: usize,
    pub(super) outputs: usize,
    /// From [`pack`].
    pub(super) weights: &'a [W],
    pub(super) add: bool,
}

/// Some pixels of the result of a block, and the pixels of the source from `first` on that they read.
pub(super) struct Window<'a, E> {
    pub(super) block: usize,
    pub(super) pixels: Range<usize>,
    pub(super) source: &'a [E],
    pub(super) first: usize,
}

/// The register tiles of some pixels, with results of type `O`.
pub(super) struct Plan<E, O = E> {
    pub(super) segs: Vec<Seg<E>>,
    pub(super) cells: Vec<Cell<O>>,
    /// Where a tile holds two pixels, one of them may have no source for a tap, or be beyond the end.
    _zeros: Vec<E>,
    _trash: Vec<O>,
}

impl<E: Stored, W> Direct<'_, E, W> {
    /// `(pixels of a task, tasks of a block)`.
    pub(super) fn tasks(&self) -> (usize, usize) {
        let pixels = self.reach.pixels;
        let step = (TASK / (self.channels * self.lanes)).clamp(4, 256);
        let step = pixels.div_ceil(pixels.div_ceil(step)).next_multiple_of(NV);
        (step, pixels.div_ceil(step))
    }

    /// The pixels of task `task % tasks` of block `task / tasks`, for vectors of `width` lanes; the weights of a
    /// tap are `tap` elements. The segments point into the source or at zeros, the cells into the result `out`
    /// or the trash, as long as the plan lives.
    pub(super) fn plan<O: Stored>(
        &self,
        task: usize,
        width: usize,
        tap: usize,
        out: Shared<O>,
    ) -> Plan<E, O> {
        let (step, tasks) = self.tasks();
        let (block, first) = (task / tasks, task % tasks * step);
        let pixels = first..(first + step).min(self.reach.pixels);
        let plane = self.reach.sources * self.channels * self.lanes;
        let source = &self.source[block * plane..(block + 1) * plane];
        self.plan_of(Window { block, pixels, source, first: 0 }, width, tap, out)
    }

    /// [`Direct::plan`] of the pixels of a window, whose source is there and not in `self`.
    pub(super) fn plan_of<O: Stored>(
        &self,
        window: Window<'_, E>,
        width: usize,
        tap: usize,
        out: Shared<O>,
    ) -> Plan<E, O> {
        let (p, r) = (self, self.reach);
        let Window { block, pixels: Range { start: first, end }, source: window, first: start } = window;
        let vectors = p.lanes / width;
        let zeros = vec![E::default(); if vectors < NV { p.channels * p.lanes } else { 0 }];
        let mut trash = vec![O::default(); if vectors < NV { p.outputs * p.lanes } else { 0 }];
        let trash_start = trash.as_mut_ptr();
        let total = (end - first) * vectors;
        let mut segs = Vec::with_capacity(total.div_ceil(NV) * r.taps);
        let mut cells = Vec::with_capacity(total.div_ceil(NV));
        let image = p.channels * p.lanes;
        for v in (0..total).step_by(NV) {
            let from = segs.len();
            let place = |j: usize| {
                let v = v + j;
                (v < total).then(|| (first + v / vectors, v % vectors * width))
            };
            for t in 0..r.taps {
                let mut any = false;
                let mut xs = [zeros.as_ptr(); NV];
                for j in 0..NV {
                    if let Some((pixel, lane)) = place(j)
                        && let Some(source) = r.at(pixel, t)
                    {
                        any = true;
                        // SAFETY: a pixel of the window.
                        xs[j] = unsafe { window.as_ptr().add((source - start) * image + lane) };
                    }
                }
                if any {
                    segs.push(Seg { xs, weight: t * tap });
                }
            }
            let mut outs = [trash_start; NV];
            for j in 0..NV {
                if let Some((pixel, lane)) = place(j) {
                    let at = (block * r.pixels + pixel) * p.outputs * p.lanes + lane;
                    // SAFETY: a pixel of the result.
                    outs[j] = unsafe { out.get().add(at) };
                }
            }
            cells.push(Cell { from, to: segs.len(), outs });
        }
        Plan { segs, cells, _zeros: zeros, _trash: trash }
    }

    /// That the source is whole.
    pub(super) fn check(&self) {
        assert!(self.source.len() == self.blocks * self.reach.sources * self.channels * self.lanes);
    }

    pub(super) fn taps(&self) -> usize {
        self.reach.taps
    }
}

impl<E: Stored> Direct<'_, E> {
    /// Writes (or adds to) every pixel of `out`.
    ///
    /// # Safety
    /// `out` must be valid for `blocks * pixels * outputs * lanes` elements that no one else uses meanwhile,
    /// initialized where `add` is set.
    pub(super) unsafe fn run(&self, isa: Isa, out: Shared<E>) {
        let isa = fit::<E::Real>(isa, self.lanes);
        self.check();
        assert!(self.weights.len() >= self.outputs * self.channels * self.reach.taps);
        (0..self.blocks * self.tasks().1).into_par_iter().for_each(|task| {
            E::Real::dispatch(isa, Task { pass: self, task, out });
        });
    }
}

struct Task<'a, E: Stored> {
    pass: &'a Direct<'a, E>,
    task: usize,
    out: Shared<E>,
}

impl<T: Float, E: Stored<Real = T>> Kernel<T> for Task<'_, E> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        let p = self.pass;
        let rows = rows(S::WIDE);
        let plan = p.plan(self.task, S::LANES, p.channels * rows, self.out);
        // SAFETY: the segments point into the source or at zeros, the cells into the result or the trash.
        unsafe {
            sweep::<S, E>(&Sweep {
                segs: &plan.segs,
                cells: &plan.cells,
                channels: p.channels,
                weights: p.weights.as_ptr(),
                panel: p.channels * p.reach.taps * rows,
                first: 0,
                outputs: p.outputs,
                lanes: p.lanes,
                add: p.add,
            });
        }
    }
}

/// The gradient of the weight.
pub(super) struct DirectWeight<'a, E> {
    pub(super) shape: &'a ConvShape,
    pub(super) blocks: usize,
    pub(super) lanes: usize,
    pub(super) source: &'a [E],
}

/// Elements of the transposed gradients of one round.
const ROUND: usize = 1 << 20;

/// Places of a round, for so many elements of the transposed gradients of each.
pub(super) fn round(elements: usize) -> usize {
    (ROUND / elements).max(8)
}

impl<T: Float, E: Stored<Real = T>> DirectWeight<'_, E> {
    /// `(K, C, R, S)`, from the gradient of the result.
    pub(super) fn run(&self, grad: &[E], isa: Isa) -> Vec<T> {
        let lanes = self.lanes;
        let isa = fit::<T>(isa, lanes);
        let (_, width) = geometry::<T>(isa);
        let line = self.shape.k * lanes;
        self.rounds::<T>(
            (width, 12),
            round(self.shape.k.next_multiple_of(width) * lanes),
            |at, to, pitch| {
                let from = &grad[at * line..(at + 1) * line];
                T::dispatch(isa, Turn { from, k: self.shape.k, lanes, to: to.get(), pitch });
            },
            |part, out| {
                let Part { places: pairs, first, channels, panels, panel } = part;
                T::with_scratch(|scratch| {
                    let buffer = &mut scratch.tile;
                    T::dispatch(isa, OuterTask { pairs, first, channels, lanes, panels, panel, out, buffer });
                });
            },
        )
    }

    /// For panels of `width` outputs and tiles of `rows` channels, in rounds of `round` places at most: `turn` brings the
    /// gradients of a place (a pixel of a block, counted through) into panels of `[lane][k]` in the type `G`, which are a
    /// pitch apart; `outer` adds the products of a [`Part`].
    pub(super) fn rounds<G: Stored>(
        &self,
        (width, rows): (usize, usize),
        round: usize,
        turn: impl Fn(usize, Shared<G>, usize) + Sync,
        outer: impl Fn(Part<'_, E, G>, Shared<T>) + Sync,
    ) -> Vec<T> {
        let d = self.shape;
        let (taps, pixels, lanes) = (d.r * d.s, d.p * d.q, self.lanes);
        let reach = Reach::forward(d);
        assert!(self.source.len() == self.blocks * d.h * d.w * d.c * lanes);
        let panels = d.k.div_ceil(width);
        let panel_row = panels * width;
        // [tap][channel][k, padded]
        let mut sums = Pooled::<T>::take(taps * d.c * panel_row);
        let sums = sums.slice();
        sums.fill(T::default());
        let total = self.blocks * pixels;
        let round = total.div_ceil(total.div_ceil(round));
        let mut turned = Pooled::<G>::take(round.min(total) * panel_row * lanes);
        let turned = turned.slice();
        // Channels of one task: few enough for every thread to have work.
        let split = d.c.div_ceil(16usize.div_ceil(taps)).next_multiple_of(rows).min(d.c);
        let splits = d.c.div_ceil(split);
        for begin in (0..total).step_by(round) {
            let end = (begin + round).min(total);
            // [panel][pixel][lane][k]
            let count = end - begin;
            let to = Shared::new(turned.as_mut_ptr());
            (0..count).into_par_iter().with_min_len(8).for_each(|i| {
                // SAFETY: each task writes the rows of its pixel in every panel.
                let to = unsafe { Shared::new(to.get().add(i * lanes * width)) };
                turn(begin + i, to, count * lanes * width);
            });
            let out = Shared::new(sums.as_mut_ptr());
            let turned = &*turned;
            (0..taps * splits).into_par_iter().for_each(|task| {
                let (tap, part) = (task / splits, task % splits);
                let mut places = Vec::with_capacity(count);
                for i in 0..count {
                    let (block, pixel) = ((begin + i) / pixels, (begin + i) % pixels);
                    if let Some(source) = reach.at(pixel, tap) {
                        // SAFETY: pixels of the source and rows of the first panel.
                        unsafe {
                            places.push(Place {
                                xs: self.source.as_ptr().add((block * d.h * d.w + source) * d.c * lanes),
                                grad: turned.as_ptr().add(i * lanes * width),
                            });
                        }
                    }
                }
                let first = part * split;
                // SAFETY: each task writes its tap and channels.
                let out = unsafe { Shared::new(out.get().add(tap * d.c * panel_row)) };
                let (channels, panel) = (split.min(d.c - first), count * lanes * width);
                outer(Part { places: &places, first, channels, panels, panel }, out);
            });
        }
        unturn(d.k, d.c * taps, sums, panel_row, |x| x % taps * d.c + x / taps)
    }
}

/// A [`Pair`] in memory, with the gradients of the first panel.
pub(super) struct Place<E, G> {
    pub(super) xs: *const E,
    pub(super) grad: *const G,
}

/// All panels of some channels of one tap.
pub(super) struct Part<'a, E, G> {
    pub(super) places: &'a [Place<E, G>],
    pub(super) first: usize,
    pub(super) channels: usize,
    pub(super) panels: usize,
    /// Elements between the gradients of two panels.
    pub(super) panel: usize,
}

/// All panels of some channels of one tap.
struct OuterTask<'a, E: Stored> {
    pairs: &'a [Place<E, E::Real>],
    first: usize,
    channels: usize,
    lanes: usize,
    panels: usize,
    /// Elements between the gradients of two panels.
    panel: usize,
    out: Shared<E::Real>,
    /// For the widened sources.
    buffer: &'a mut Vec<E::Real>,
}

impl<T: Float, E: Stored<Real = T>> Kernel<T> for OuterTask<'_, E> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        let Self { first, channels, lanes, .. } = self;
        let width = NV * S::LANES;
        let mut shifted = Vec::with_capacity(PAIRS);
        let (len, room) = (channels * lanes, E::widened_len(channels * lanes));
        let wide = grow(self.buffer, PAIRS * room).as_mut_ptr();
        // The sources of one run stay in the cache while all panels pass.
        for pairs in self.pairs.chunks(PAIRS) {
            let mut sources = [wide.cast_const(); PAIRS];
            // SAFETY: the channels of this task, in whole vectors; the buffer has room for each pair. The panels
            // follow each other; the result has a row of all of them for each channel.
            unsafe {
                for (i, p) in pairs.iter().enumerate() {
                    sources[i] = E::widened::<S>(p.xs.add(first * lanes), len, wide.add(i * room));
                }
                for panel in 0..self.panels {
                    shifted.clear();
                    for (p, xs) in pairs.iter().zip(sources) {
                        shifted.push(Pair { xs, grad: p.grad.add(panel * self.panel) });
                    }
                    outer::<S>(&Outer {
                        pairs: &shifted,
                        first: 0,
                        channels,
                        lanes,
                        out: self.out.get().add((first * self.panels + panel) * width),
                        pitch: self.panels * width,
                        add: true,
                    });
                }
            }
        }
    }
}

/// Turns `[k][lane]` into panels of `[lane][k]`, `pitch` apart; missing `k` become zeros.
pub(super) struct Turn<'a, E: Stored> {
    pub(super) from: &'a [E],
    pub(super) k: usize,
    pub(super) lanes: usize,
    pub(super) to: *mut E::Real,
    pub(super) pitch: usize,
}

impl<T: Float, E: Stored<Real = T>> Kernel<T> for Turn<'_, E> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        let width = NV * S::LANES;
        for panel in 0..self.k.div_ceil(width) {
            // SAFETY: the panels hold `lanes` rows of `width` elements; sources are checked by `self.k`.
            unsafe {
                let to = self.to.add(panel * self.pitch);
                for j in 0..NV {
                    let k = panel * width + j * S::LANES;
                    for lane in (0..self.lanes).step_by(S::LANES) {
                        let to = to.add(lane * width + j * S::LANES);
                        if k + S::LANES <= self.k {
                            let from = self.from.as_ptr().add(k * self.lanes + lane);
                            E::transpose_wide::<S>(from, self.lanes, to, width);
                        } else {
                            for l in 0..S::LANES {
                                for i in 0..S::LANES {
                                    let value = if k + i < self.k {
                                        self.from[(k + i) * self.lanes + lane + l].wide()
                                    } else {
                                        T::default()
                                    };
                                    *to.add(l * width + i) = value;
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
