//! Convolutions by products of tiles (AMX): of maps in bf16, and of maps in f32 whose factors are split into two bf16 each.
//!
//! Forward and in the gradient of the input a tile of sums holds 16 outputs of one pixel of a block of images, and the inner
//! dimension is the channels of a tap; in the gradient of the weight it holds 16 channels and 16 outputs, and the inner
//! dimension is the images of a pixel, of two blocks of 16 so that it is as deep as a tile. This is the direct form, as in
//! [`super::dot_pairs`]. What a task needs of the maps is brought into pairs of channels (or the gradients into pairs of
//! images) in the second cache, once for all taps and outputs.

use super::buffer::Pooled;
use super::direct::{Direct, DirectWeight, Part, Plan, Reach, Window};
use super::winograd::suits;
use crate::tensor::check::ConvShape;
use half::bf16;
use infomax_simd::tiles::{COLUMNS, Cost, Factors, PAIRS, ROWS, SUMS, Shape, Sums, TileIsa, pieces};
use infomax_simd::{Arith, Float as _, Isa, Kernel, Shared, Simd, Stored, Task, grow, line_room, lined, run};
use rayon::prelude::*;

/// Outputs of two tiles.
const WIDTH: usize = 2 * ROWS;

/// Places whose sums stay in the tiles: 128 KiB of gradients of 32 images.
const PLACES: usize = 64;

/// Elements of the maps of a band of pixels, in pairs: half of a second-level cache.
const BAND: usize = 512 << 10;

/// Elements that are worth a task of their own.
const LEAST: usize = 16 << 10;

/// Elements of the images and gradients of one round of the gradient of a weight.
const ROUND: usize = 512 << 10;

/// Maps that tiles multiply.
#[derive(Clone, Copy)]
pub(super) enum Maps<'a> {
    /// As they are.
    Rounded(&'a [bf16]),
    /// In two parts each.
    Split(&'a [f32]),
}

impl<'a> Maps<'a> {
    /// Those of a type that tiles multiply.
    pub(super) fn of<E: Stored>(values: &'a [E]) -> Option<Self> {
        E::as_bf16(values).map(Self::Rounded).or_else(|| E::as_f32(values).map(Self::Split))
    }

    /// Those with weights in f32, which both have.
    pub(super) fn with<E: Stored>(values: &'a [E], weight: &'a [E::Real]) -> Option<(Self, &'a [f32])> {
        Self::of(values).zip(E::Real::as_f32(weight))
    }

    pub(super) fn factors(self) -> Factors {
        match self {
            Self::Rounded(_) => Factors::Rounded,
            Self::Split(_) => Factors::Split,
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Rounded(values) => values.len(),
            Self::Split(values) => values.len(),
        }
    }

    #[inline(always)]
    fn line(self, at: usize, len: usize) -> Self {
        match self {
            Self::Rounded(values) => Self::Rounded(&values[at..at + len]),
            Self::Split(values) => Self::Split(&values[at..at + len]),
        }
    }
}

/// One of the three passes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Forward,
    InputGrad,
    WeightGrad,
}

/// Whether tiles are expected to be faster than the best form in f32: a function of the shape alone, by [`Cost`].
/// What Winograd's form saves was measured beside tiles (`docs/kernels-speed.md`).
pub(super) fn pays(d: &ConvShape, blocks: usize, lanes: usize, pass: Pass, factors: Factors) -> bool {
    let (terms, parts) = (factors.terms().len() as f64, factors.parts() as f64);
    let taps = d.r * d.s;
    let padded = |x: usize| x.next_multiple_of(WIDTH);
    let (pixels, sources) = (blocks * d.p * d.q, blocks * d.h * d.w);
    let flop = 2.0 * (pixels * lanes * d.k * d.c * taps) as f64;
    let weights = (padded(d.k) * padded(d.c) * taps) as f64 * parts;
    // Instructions for each pixel, of the four for two pixels and 32 outputs.
    let swept = |outputs: usize, channels: usize| 2.0 * (padded(outputs) / WIDTH * pieces(channels).0) as f64;
    let cost = match pass {
        Pass::Forward => Cost {
            tiles: (pixels * taps) as f64 * swept(d.k, d.c) * terms,
            packed: (sources * lanes * d.c) as f64 * parts + weights,
        },
        Pass::InputGrad => Cost {
            tiles: (pixels * taps) as f64 * swept(d.c, d.k) * terms,
            packed: (pixels * lanes * d.k) as f64 * parts + weights,
        },
        Pass::WeightGrad => {
            let joined = (2 * PAIRS / lanes).min(blocks);
            let places = blocks.div_ceil(joined) * d.p * d.q;
            Cost {
                tiles: 4.0 * (places * taps * (padded(d.c) / WIDTH) * (padded(d.k) / WIDTH)) as f64 * terms,
                // The sums are read and written a few times.
                packed: ((pixels * d.k + sources * d.c) * lanes) as f64 * if parts > 1.0 { 3.5 } else { 1.0 }
                    + 3.0 * weights / parts,
            }
        }
    };
    // What Winograd's form saves; the direct form is slower in the gradient of the weight. Then what the source costs.
    let (saved, moved) = match (suits(d), pass) {
        (true, Pass::WeightGrad) => (2.4, 1.5),
        (false, Pass::WeightGrad) => (0.6, 1.5),
        (true, _) => (2.6, 0.7),
        (false, _) => (1.0, 0.7),
    };
    let channels = if pass == Pass::InputGrad { pixels * d.k } else { sources * d.c };
    cost.beats(flop, saved, moved * (channels * lanes) as f64)
}

/// A weight in memory, whose taps follow each other.
#[derive(Clone, Copy)]
pub(super) struct Weight<'a> {
    pub(super) values: &'a [f32],
    /// Elements between the outputs, and between the channels.
    pub(super) strides: (usize, usize),
}

/// One pass over a batch: forward, or the gradient of the input.
pub(super) struct TileConv<'a> {
    pub(super) reach: &'a Reach,
    pub(super) blocks: usize,
    pub(super) lanes: usize,
    pub(super) source: Maps<'a>,
    pub(super) channels: usize,
    pub(super) outputs: usize,
    pub(super) weight: Weight<'a>,
    pub(super) add: bool,
}

impl TileConv<'_> {
    /// Writes (or adds to) every pixel of `out`, which has the type of the source.
    ///
    /// # Safety
    /// As [`Direct::run`].
    pub(super) unsafe fn run(&self, tiles: TileIsa, isa: Isa, out: Shared<u8>) {
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

/// One part of some factors.
struct Parts<'a> {
    from: &'a [f32],
    part: usize,
    to: &'a mut [bf16],
}

impl Task for Parts<'_> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        for (to, x) in self.to.iter_mut().zip(self.from) {
            *to = Factors::part(*x, self.part);
        }
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

/// Brings the channels of a pixel into pairs, `[part][pair][lane][half]`, filled up with zeros.
struct Zip<'a> {
    from: Maps<'a>,
    lanes: usize,
    parts: usize,
    to: &'a mut [bf16],
}

impl Task for Zip<'_> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let Self { from, lanes, parts, to } = self;
        let whole = to.len() / parts;
        match from {
            Maps::Rounded(from) => zip_lanes(from, lanes, to, |x| x),
            Maps::Split(from) => {
                for (part, to) in to.chunks_exact_mut(whole).enumerate() {
                    zip_lanes(from, lanes, to, |x| Factors::part(x, part));
                }
            }
        }
    }
}

#[inline(always)]
fn zip_lanes<T: Copy>(from: &[T], lanes: usize, to: &mut [bf16], part: impl Fn(T) -> bf16 + Copy) {
    // A length that the compiler knows is a vector.
    match lanes {
        COLUMNS => zip(from, COLUMNS, to, part),
        _ => zip(from, lanes, to, part),
    }
}

#[inline(always)]
fn zip<T: Copy>(from: &[T], lanes: usize, to: &mut [bf16], part: impl Fn(T) -> bf16 + Copy) {
    let both = from.chunks_exact(2 * lanes);
    let last = both.remainder();
    let mut to = to.chunks_exact_mut(2 * lanes);
    for (from, to) in both.zip(&mut to) {
        let (a, b) = from.split_at(lanes);
        for ((to, a), b) in to.chunks_exact_mut(2).zip(a).zip(b) {
            to[0] = part(*a);
            to[1] = part(*b);
        }
    }
    if let (false, Some(to)) = (last.is_empty(), to.next()) {
        for (to, a) in to.chunks_exact_mut(2).zip(last) {
            to[0] = part(*a);
            to[1] = bf16::ZERO;
        }
    }
    for to in to {
        to.fill(bf16::ZERO);
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

/// The gradient of the weight, `(K, C, R, S)`; `None` for maps of two types, which no convolution has.
pub(super) fn weight_grad(
    tiles: TileIsa,
    isa: Isa,
    d: &ConvShape,
    (blocks, lanes): (usize, usize),
    source: Maps<'_>,
    grad: Maps<'_>,
) -> Option<Vec<f32>> {
    let factors = source.factors();
    if factors != grad.factors() {
        return None;
    }
    assert!(lanes.is_multiple_of(2) && lanes <= COLUMNS && blocks > 0);
    assert!(
        source.len() == blocks * d.h * d.w * d.c * lanes && grad.len() == blocks * d.p * d.q * d.k * lanes
    );
    // Blocks that make the inner dimension together, and its length; blocks that are missing are zeros.
    let joined = (2 * PAIRS / lanes).min(blocks);
    let (groups, deep) = (blocks.div_ceil(joined), joined * lanes);
    let parts = factors.parts();
    let place = move |at: usize, pixels: usize| (at / pixels * joined, at % pixels);
    // `[part][channel][image]` of each pixel.
    let (line, pixels) = (d.c * deep, d.h * d.w);
    let mut images = Pooled::<bf16>::take(groups * pixels * parts * line);
    let images = images.slice();
    images.par_chunks_mut(parts * line).with_min_len(8).enumerate().for_each(|(at, to)| {
        let (first, pixel) = place(at, pixels);
        run(isa, Join { maps: source, rows: d.c, lanes, blocks: (first, blocks, pixels), pixel, parts, to });
    });
    let pixels = d.p * d.q;
    // As if both parts were images.
    let whole = DirectWeight { shape: d, blocks: groups, lanes: parts * deep, source: images };
    let round = (ROUND / ((d.c + d.k) * parts * deep)).max(PLACES);
    Some(whole.rounds::<bf16>(
        (WIDTH, WIDTH),
        round,
        |at, to, pitch| {
            let (first, pixel) = place(at, pixels);
            let blocks = (first, blocks, pixels);
            f32::dispatch(isa, Turn { maps: grad, k: d.k, lanes, blocks, pixel, deep, to: to.get(), pitch });
        },
        |part, out| f32::dispatch(isa, Outer { tiles, line, deep, factors, part, out }),
    ))
}

/// `[row][lane]` of a pixel in some blocks, `(first, number of all, pixels of each)`, side by side: `[part][row][block][lane]`,
/// zeros for blocks that are not there.
struct Join<'a> {
    maps: Maps<'a>,
    rows: usize,
    lanes: usize,
    blocks: (usize, usize, usize),
    pixel: usize,
    parts: usize,
    to: &'a mut [bf16],
}

impl Task for Join<'_> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let Self { maps, rows, lanes, blocks: (first, blocks, pixels), pixel, parts, to } = self;
        let len = rows * lanes;
        let deep = to.len() / (parts * rows);
        for j in 0..deep / lanes {
            let block = first + j;
            for (part, to) in to.chunks_exact_mut(rows * deep).enumerate() {
                let to = to.chunks_exact_mut(deep).map(|to| &mut to[j * lanes..(j + 1) * lanes]);
                if block >= blocks {
                    to.for_each(|to| to.fill(bf16::ZERO));
                    continue;
                }
                match maps.line((block * pixels + pixel) * len, len) {
                    Maps::Rounded(from) if lanes == COLUMNS => {
                        // A length that the compiler knows is a vector.
                        to.zip(from.chunks_exact(COLUMNS))
                            .for_each(|(to, from)| to[..COLUMNS].copy_from_slice(from));
                    }
                    Maps::Rounded(from) => {
                        to.zip(from.chunks_exact(lanes)).for_each(|(to, from)| to.copy_from_slice(from));
                    }
                    Maps::Split(from) => {
                        for (to, from) in to.zip(from.chunks_exact(lanes)) {
                            for (to, x) in to.iter_mut().zip(from) {
                                *to = Factors::part(*x, part);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Turns `[k][lane]` of a pixel in the blocks of a group, as in [`Join`], into panels of `[part][pair of images][k][half]`,
/// `pitch` values apart; missing `k` and blocks become zeros.
struct Turn<'a> {
    maps: Maps<'a>,
    k: usize,
    lanes: usize,
    blocks: (usize, usize, usize),
    pixel: usize,
    /// Images of a group.
    deep: usize,
    to: *mut bf16,
    pitch: usize,
}

impl Kernel<f32> for Turn<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd<T = f32>>(self) {
        let Self { maps, k, lanes, blocks: (first, blocks, pixels), pixel, deep, to, pitch } = self;
        let parts = maps.factors().parts();
        for at in (0..k.next_multiple_of(WIDTH)).step_by(ROWS) {
            for part in 0..parts {
                // A pair of bf16 in the place of an f32, which is moved only.
                let mut square = [bf16::ZERO; 2 * SUMS];
                for j in 0..deep / lanes {
                    let block = first + j;
                    let own = ROWS.min(k.saturating_sub(at));
                    if block >= blocks || own == 0 {
                        continue;
                    }
                    let from = maps.line(((block * pixels + pixel) * k + at) * lanes, own * lanes);
                    let rows =
                        square.chunks_exact_mut(2 * PAIRS).map(|to| &mut to[j * lanes..(j + 1) * lanes]);
                    match from {
                        Maps::Rounded(from) => {
                            rows.zip(from.chunks_exact(lanes))
                                .for_each(|(to, from)| to.copy_from_slice(from));
                        }
                        Maps::Split(from) => {
                            for (to, from) in rows.zip(from.chunks_exact(lanes)) {
                                for (to, x) in to.iter_mut().zip(from) {
                                    *to = Factors::part(*x, part);
                                }
                            }
                        }
                    }
                }
                let mut turned = [0f32; SUMS];
                // SAFETY: squares of both, and rows of this pixel in its panel, of which there are `deep / 2` in each part.
                unsafe {
                    for i in (0..ROWS).step_by(S::LANES) {
                        for j in (0..PAIRS).step_by(S::LANES) {
                            let from = square.as_ptr().cast::<f32>().add(i * PAIRS + j);
                            S::transpose(from, PAIRS, turned.as_mut_ptr().add(j * ROWS + i), ROWS);
                        }
                    }
                    let to = to.add(at / WIDTH * pitch + part * WIDTH * deep + at % WIDTH * 2);
                    for (pair, from) in turned.chunks_exact(ROWS).enumerate().take(deep / 2) {
                        let from = from.as_ptr().cast::<bf16>();
                        std::ptr::copy_nonoverlapping(from, to.add(pair * 2 * WIDTH), 2 * ROWS);
                    }
                }
            }
        }
    }
}

/// Adds the products of a part: channels in rows, outputs in columns.
struct Outer<'a> {
    tiles: TileIsa,
    /// Values of a pixel, in one part of its factors.
    line: usize,
    /// Images of a group.
    deep: usize,
    factors: Factors,
    part: Part<'a, bf16, bf16>,
    out: Shared<f32>,
}

impl Kernel<f32> for Outer<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd<T = f32>>(self) {
        let Self { tiles, line, deep, factors, part, out } = self;
        let Part { places, first, channels, panels, panel } = part;
        let (tile, row) = (ROWS * deep, WIDTH * deep);
        let end = first + channels;
        // Rows beyond the channels of this part are zeros here.
        let len = factors.parts() * 2 * tile;
        let mut edge = vec![bf16::ZERO; len + line_room::<bf16>()];
        let edge = lined(&mut edge, len);
        let mut session = tiles.begin(Shape { pairs: deep / 2, columns: COLUMNS, pitch: (deep, 2 * WIDTH) });
        let mut sums = Sums::default();
        for places in places.chunks(PLACES) {
            for p in 0..panels {
                for c in (first..end).step_by(WIDTH) {
                    let rows = WIDTH.min(end - c);
                    session.zero();
                    for place in places {
                        // SAFETY: channels of this part of a pixel, in each part of its values, copied where they are
                        // fewer than two tiles; the panels hold the rows of all parts.
                        unsafe {
                            let (mut xs, mut pitch) = (place.xs.add(c * deep), line);
                            if rows < WIDTH {
                                for (i, edge) in edge.chunks_exact_mut(2 * tile).enumerate() {
                                    let from = std::slice::from_raw_parts(xs.add(i * line), rows * deep);
                                    edge[..rows * deep].copy_from_slice(from);
                                }
                                (xs, pitch) = (edge.as_ptr(), 2 * tile);
                            }
                            let grad = place.grad.add(p * panel);
                            for (x, y) in factors.terms() {
                                let (a, b) = (xs.add(x * pitch), grad.add(y * row));
                                session.add([a, a.add(tile)], [b, b.add(2 * COLUMNS)]);
                            }
                        }
                    }
                    session.store(&mut sums);
                    for (at, sums) in sums.0.iter().enumerate() {
                        let (i, j) = (at / 2 * ROWS, at % 2 * COLUMNS);
                        for (r, sums) in sums.chunks_exact(COLUMNS).enumerate().take(rows.saturating_sub(i)) {
                            for lane in (0..COLUMNS).step_by(S::LANES) {
                                // SAFETY: the result has a row of all panels for each channel of this part.
                                unsafe {
                                    let to = out.get().add(((c + i + r) * panels + p) * WIDTH + j + lane);
                                    S::store(to, S::add(S::load(to), S::load(sums.as_ptr().add(lane))));
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
