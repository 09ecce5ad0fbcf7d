//! Forward and the gradient of the input: sums of 16 outputs of a pixel.

use super::pairs::{Parts, Zip};
use super::{Maps, WIDTH};
use crate::images::buffer::Pooled;
use crate::images::direct::{Direct, Plan, Reach, Window};
use half::bf16;
use infomax_simd::tiles::{COLUMNS, Factors, ROWS, SUMS, Shape, Sums, TileIsa, pieces};
use infomax_simd::{Arith, Float as _, Isa, Kernel, Shared, Simd, Stored, Task, grow, line_room, lined, run};
use rayon::prelude::*;

/// Elements of the maps of a band of pixels, in pairs: half of a second-level cache.
const BAND: usize = 512 << 10;

/// Elements that are worth a task of their own.
const LEAST: usize = 16 << 10;

/// A weight in memory, whose taps follow each other.
#[derive(Clone, Copy)]
pub(in crate::images) struct Weight<'a> {
    pub(in crate::images) values: &'a [f32],
    /// Elements between the outputs, and between the channels.
    pub(in crate::images) strides: (usize, usize),
}

/// One pass over a batch: forward, or the gradient of the input.
pub(in crate::images) struct TileConv<'a> {
    pub(in crate::images) reach: &'a Reach,
    pub(in crate::images) blocks: usize,
    pub(in crate::images) lanes: usize,
    pub(in crate::images) source: Maps<'a>,
    pub(in crate::images) channels: usize,
    pub(in crate::images) outputs: usize,
    pub(in crate::images) weight: Weight<'a>,
    pub(in crate::images) add: bool,
}

impl TileConv<'_> {
    /// Writes (or adds to) every pixel of `out`, which has the type of the source.
    ///
    /// # Safety
    /// As [`Direct::run`].
    pub(in crate::images) unsafe fn run(&self, tiles: TileIsa, isa: Isa, out: Shared<u8>) {
        let (taps, factors) = (self.reach.taps(), self.source.factors());
        let (count, pairs) = pieces(self.channels);
        let parts = factors.parts();
        let line = self.channels * self.lanes;
        assert!(
            self.source.len() == self.blocks * self.reach.sources() * line
                && self.lanes <= COLUMNS
                && self.outputs > 0
                && (self.outputs - 1) * self.weight.strides.0
                    + (self.channels - 1) * self.weight.strides.1
                    + taps
                    == self.weight.values.len()
        );
        // Elements of a tile of weights, of all of a tap, and of a panel of outputs.
        let tile = ROWS * 2 * pairs;
        let tap = parts * count * 2 * tile;
        let panel = taps * tap;
        // Each part of the weight as it lies, then in tiles.
        let all = self.weight.values.len();
        let mut rounded = Pooled::<bf16>::take(parts * all);
        let rounded = rounded.slice();
        for (part, to) in rounded.chunks_exact_mut(all).enumerate() {
            to.par_chunks_mut(LEAST).zip(self.weight.values.par_chunks(LEAST)).for_each(|(to, from)| {
                run(isa, Parts { from, part, to });
            });
        }
        let mut weights = Pooled::<bf16>::take(self.outputs.div_ceil(WIDTH) * panel);
        let weights = weights.slice();
        let rounded = &*rounded;
        weights.par_chunks_mut(tap).enumerate().for_each(|(at, to)| {
            let (first, t) = (at / taps * WIDTH, at % taps);
            let (outputs, depth) = (WIDTH.min(self.outputs - first), 2 * pairs);
            let (strides, channels) = (self.weight.strides, self.channels);
            run(isa, PackTap { rounded, all, strides, first, outputs, channels, t, depth, to });
        });
        // `[part][pair of channels][lane][half]` of each pixel.
        let channels = parts * count * 2 * pairs;
        let pixel = channels * self.lanes;
        let steps: Vec<(usize, usize)> = (0..count)
            .flat_map(|piece| {
                let place = move |part: usize| part * count + piece;
                let right = 2 * pairs * self.lanes;
                factors.terms().iter().map(move |(x, y)| (place(*x) * 2 * tile, place(*y) * right))
            })
            .collect();
        let direct = Direct::<'_, bf16, bf16> {
            reach: self.reach,
            blocks: self.blocks,
            lanes: self.lanes,
            source: &[],
            channels,
            outputs: self.outputs,
            weights,
            add: self.add,
        };
        let shape = Shape { pairs, columns: self.lanes, pitch: (2 * pairs, 2 * self.lanes) };
        let (outputs, lanes, add) = (self.outputs, self.lanes, self.add);
        // As many bands of pixels as threads want, and as the second cache: the results do not depend on it.
        let wanted = (2 * rayon::current_num_threads()).div_ceil(self.blocks);
        let bands =
            (self.reach.sources() * pixel).div_ceil(BAND).max(wanted).min(self.reach.pixels().div_ceil(2));
        let step = self.reach.pixels().div_ceil(bands).next_multiple_of(2);
        let bands = self.reach.pixels().div_ceil(step);
        (0..self.blocks * bands).into_par_iter().for_each(|task| {
            let (block, first) = (task / bands, task % bands * step);
            let pixels = first..(first + step).min(self.reach.pixels());
            let sources = self.reach.sources_of(pixels.clone());
            let len = sources.len() * pixel;
            f32::with_scratch(|scratch| {
                let zipped = grow(&mut scratch.stage, len.div_ceil(2) + line_room::<f32>());
                let zipped = lined(zipped, len.div_ceil(2));
                // SAFETY: as many bytes as two bf16 for each f32, and any bits are bf16.
                let zipped =
                    unsafe { std::slice::from_raw_parts_mut(zipped.as_mut_ptr().cast::<bf16>(), len) };
                for (at, to) in sources.clone().zip(zipped.chunks_exact_mut(pixel)) {
                    let from = self.source.line((block * self.reach.sources() + at) * line, line);
                    run(isa, Zip { from, lanes, parts, to });
                }
                let window = Window { block, pixels, source: zipped, first: sources.start };
                let common = Common { tiles, shape, steps: &steps, weights, panel, tile, outputs, add };
                match factors {
                    Factors::Rounded => {
                        let plan = direct.plan_of::<bf16>(window, lanes, tap, Shared::new(out.get().cast()));
                        f32::dispatch(isa, Sweep { common, plan: &plan });
                    }
                    Factors::Split => {
                        let plan = direct.plan_of::<f32>(window, lanes, tap, Shared::new(out.get().cast()));
                        f32::dispatch(isa, Sweep { common, plan: &plan });
                    }
                }
            });
        });
    }
}

/// Brings a tap of the weights of up to [`WIDTH`] outputs into tiles: `[part][piece][tile of two][row][channel]`, filled up
/// with zeros.
struct PackTap<'a> {
    /// The parts of the weight, `all` elements each, with the strides of [`Weight`].
    rounded: &'a [bf16],
    all: usize,
    strides: (usize, usize),
    first: usize,
    outputs: usize,
    channels: usize,
    t: usize,
    /// Channels of a piece.
    depth: usize,
    to: &'a mut [bf16],
}

impl Task for PackTap<'_> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let Self { rounded, all, strides: (down, along), first, outputs, channels, t, depth, to } = self;
        let tile = ROWS * depth;
        let count = channels.div_ceil(depth);
        if outputs < WIDTH || channels < count * depth {
            to.fill(bf16::ZERO);
        }
        for (part, values) in rounded.chunks_exact(all).enumerate() {
            for piece in 0..count {
                let to = &mut to[(part * count + piece) * 2 * tile..][..2 * tile];
                let own = depth.min(channels - piece * depth);
                let at = first * down + piece * depth * along + t;
                // The smaller distance inside, so that a line of memory is read once.
                if along < down {
                    for (i, to) in to.chunks_exact_mut(depth).enumerate().take(outputs) {
                        let from = values[at + i * down..].iter().step_by(along);
                        for (to, x) in to[..own].iter_mut().zip(from) {
                            *to = *x;
                        }
                    }
                } else {
                    for c in 0..own {
                        let from = values[at + c * along..].iter().step_by(down);
                        for (i, x) in from.enumerate().take(outputs) {
                            to[i * depth + c] = *x;
                        }
                    }
                }
            }
        }
    }
}

/// What the sweeps of all types share.
#[derive(Clone, Copy)]
struct Common<'a> {
    tiles: TileIsa,
    shape: Shape,
    /// The pieces of the weights and of a pixel that are multiplied, one after the other.
    steps: &'a [(usize, usize)],
    weights: &'a [bf16],
    /// Elements of a panel of weights, and of one of its tiles.
    panel: usize,
    tile: usize,
    outputs: usize,
    add: bool,
}

/// The cells of a plan with all panels of weights. The segments of the plan point at pixels of pairs or at zeros, the cells
/// into a result, or trash, that no one else uses and that is initialized where it is added to; the weights belong to it.
struct Sweep<'a, O> {
    common: Common<'a>,
    plan: &'a Plan<bf16, O>,
}

impl<O: Stored<Real = f32>> Kernel<f32> for Sweep<'_, O> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd<T = f32>>(self) {
        let Self { common, plan } = self;
        let Common { tiles, shape, steps, weights, panel, tile, outputs, add } = common;
        let mut session = tiles.begin(shape);
        let mut sums = Sums::default();
        for (at, weights) in weights.chunks_exact(panel).enumerate() {
            for cell in &plan.cells {
                session.zero();
                for seg in &plan.segs[cell.from..cell.to] {
                    let [x, y] = seg.xs;
                    for &(left, right) in steps {
                        // SAFETY: tiles of this tap in the panel, and pieces of two pixels.
                        unsafe {
                            let w = weights.as_ptr().add(seg.weight + left);
                            session.add([w, w.add(tile)], [x.add(right), y.add(right)]);
                        }
                    }
                }
                session.store(&mut sums);
                for (i, sums) in sums.0.iter_mut().enumerate() {
                    let first = at * WIDTH + i / 2 * ROWS;
                    let rows = ROWS.min(outputs.saturating_sub(first));
                    if rows > 0 {
                        // SAFETY: outputs from `first` on of a pixel of the result or of the trash; nothing is read
                        // unless it is added to.
                        unsafe {
                            let to = cell.outs[i % 2].add(first * shape.columns);
                            deliver::<S, O>(sums, (rows, shape.columns), to, add);
                        }
                    }
                }
            }
        }
    }
}

/// Writes (or adds) the first rows and columns of a tile of sums, one row after the other.
///
/// # Safety
/// The instruction set must be present; `to` must be valid for the rows, initialized where `add` is set.
#[inline(always)]
unsafe fn deliver<S: Simd<T = f32>, O: Stored<Real = f32>>(
    sums: &mut [f32; SUMS],
    (rows, columns): (usize, usize),
    to: *mut O,
    add: bool,
) {
    if columns < COLUMNS {
        for row in 1..rows {
            sums.copy_within(row * COLUMNS..row * COLUMNS + columns, row * columns);
        }
    }
    let len = rows * columns;
    let whole = len / S::LANES * S::LANES;
    for at in (0..whole).step_by(S::LANES) {
        // SAFETY: a whole vector of both.
        unsafe {
            let (sum, to) = (S::load(sums.as_ptr().add(at)), to.add(at));
            O::store::<S>(to, if add { S::add(O::load::<S>(to), sum) } else { sum });
        }
    }
    for (at, sum) in sums[..len].iter().enumerate().skip(whole) {
        // SAFETY: an element of the rows.
        unsafe {
            let to = to.add(at);
            to.write(O::narrow(if add { (*to).wide() + *sum } else { *sum }));
        }
    }
}
