//! Convolutions by products of tiles (AMX): of maps in bf16, and of maps in f32 whose factors are split into two bf16 each.
//!
//! Forward and in the gradient of the input a tile of sums holds 16 outputs of one pixel of a block of images, and the inner
//! dimension is the channels of a tap; in the gradient of the weight it holds 16 channels and 16 outputs, and the inner
//! dimension is the images of a pixel. This is the direct form, as in [`super::dot_pairs`]. The maps are brought into pairs
//! of channels (or the gradients into pairs of images) first, once for all taps.

use super::buffer::Pooled;
use super::direct::{Direct, DirectWeight, Part, Plan, Reach};
use super::winograd::suits;
use crate::tensor::check::ConvShape;
use half::bf16;
use infomax_simd::tiles::{COLUMNS, Cost, Factors, ROWS, SUMS, Shape, TileIsa, pieces};
use infomax_simd::{Arith, Isa, Shared, Stored, Task, run};
use rayon::prelude::*;

/// Outputs of two tiles.
const WIDTH: usize = 2 * ROWS;

/// Places whose sums stay in the tiles: 64 KiB of gradients of 16 images.
const PLACES: usize = 64;

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

    fn line(self, at: usize, len: usize) -> Self {
        match self {
            Self::Rounded(values) => Self::Rounded(&values[at..at + len]),
            Self::Split(values) => Self::Split(&values[at..at + len]),
        }
    }

    #[inline(always)]
    fn part(self, at: usize, part: usize) -> bf16 {
        match self {
            Self::Rounded(values) => values[at],
            Self::Split(values) => Factors::part(values[at], part),
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
/// Winograd's form is taken to save 2.4 times, the most that was measured.
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
        Pass::WeightGrad => Cost {
            tiles: 4.0 * (pixels * taps * (padded(d.c) / WIDTH) * (padded(d.k) / WIDTH)) as f64 * terms,
            packed: (pixels * lanes * padded(d.k)) as f64 * parts
                + if factors == Factors::Split { (sources * lanes * d.c) as f64 * parts } else { 0.0 },
        },
    };
    cost.beats(flop, if suits(d) { 2.4 } else { 1.0 })
}

/// One pass over a batch: forward, or the gradient of the input.
pub(super) struct TileConv<'a, F> {
    pub(super) reach: &'a Reach,
    pub(super) blocks: usize,
    pub(super) lanes: usize,
    pub(super) source: Maps<'a>,
    pub(super) channels: usize,
    pub(super) outputs: usize,
    /// The weight of an output, a channel and a tap.
    pub(super) weight: F,
    pub(super) add: bool,
}

impl<F: Fn(usize, usize, usize) -> f32 + Sync> TileConv<'_, F> {
    /// Writes (or adds to) every pixel of `out`, which has the type of the source.
    ///
    /// # Safety
    /// As [`Direct::run`].
    pub(super) unsafe fn run(&self, tiles: TileIsa, isa: Isa, out: Shared<u8>) {
        let (taps, factors) = (self.reach.taps(), self.source.factors());
        let (count, pairs) = pieces(self.channels);
        let parts = factors.parts();
        assert!(
            self.source.len() == self.blocks * self.reach.sources() * self.channels * self.lanes
                && self.lanes <= COLUMNS
        );
        // Elements of a tile of weights, of all of a tap, and of a panel of outputs.
        let tile = ROWS * 2 * pairs;
        let tap = parts * count * 2 * tile;
        let mut weights = vec![bf16::ZERO; self.outputs.div_ceil(WIDTH) * taps * tap];
        weights.par_chunks_mut(tap).enumerate().for_each(|(at, to)| {
            let (first, t) = (at / taps * WIDTH, at % taps);
            for (at, to) in to.chunks_exact_mut(tile).enumerate() {
                let (part, piece, first) = (at / 2 / count, at / 2 % count, first + at % 2 * ROWS);
                for (i, to) in to.chunks_exact_mut(2 * pairs).enumerate() {
                    for (c, to) in (piece * 2 * pairs..self.channels).zip(to) {
                        if first + i < self.outputs {
                            *to = Factors::part((self.weight)(first + i, c, t), part);
                        }
                    }
                }
            }
        });
        // `[part][pair of channels][lane][half]` of each pixel.
        let channels = parts * count * 2 * pairs;
        let pixel = channels * self.lanes;
        let mut zipped = Pooled::<bf16>::take(self.blocks * self.reach.sources() * pixel);
        let zipped = zipped.slice();
        zipped.par_chunks_mut(pixel).with_min_len(8).enumerate().for_each(|(at, to)| {
            let len = self.channels * self.lanes;
            run(isa, Zip { from: self.source.line(at * len, len), lanes: self.lanes, parts, to });
        });
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
            source: zipped,
            channels,
            outputs: self.outputs,
            weights: &weights,
            add: self.add,
        };
        direct.check();
        let shape = Shape { pairs, columns: self.lanes, pitch: (2 * pairs, 2 * self.lanes) };
        let (outputs, lanes, add, panel) = (self.outputs, self.lanes, self.add, taps * tap);
        (0..self.blocks * direct.tasks().1).into_par_iter().for_each(|task| {
            let common = Common { tiles, shape, steps: &steps, weights: &weights, panel, tile, outputs, add };
            match factors {
                Factors::Rounded => {
                    let plan = direct.plan::<bf16>(task, lanes, tap, Shared::new(out.get().cast()));
                    run(isa, Sweep { common, plan: &plan });
                }
                Factors::Split => {
                    let plan = direct.plan::<f32>(task, lanes, tap, Shared::new(out.get().cast()));
                    run(isa, Sweep { common, plan: &plan });
                }
            }
        });
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
        let (whole, half) = (to.len() / parts, from.len());
        for (part, to) in to.chunks_exact_mut(whole).enumerate() {
            for (pair, to) in to.chunks_exact_mut(2 * lanes).enumerate() {
                let at = 2 * pair * lanes;
                if at + 2 * lanes <= half {
                    for lane in 0..lanes {
                        to[2 * lane] = from.part(at + lane, part);
                        to[2 * lane + 1] = from.part(at + lanes + lane, part);
                    }
                } else if at < half {
                    for lane in 0..lanes {
                        to[2 * lane] = from.part(at + lane, part);
                        to[2 * lane + 1] = bf16::ZERO;
                    }
                } else {
                    to.fill(bf16::ZERO);
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

impl<O: Stored<Real = f32>> Task for Sweep<'_, O> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let Self { common, plan } = self;
        let Common { tiles, shape, steps, weights, panel, tile, outputs, add } = common;
        let mut session = tiles.begin(shape);
        let mut sums = [[0f32; SUMS]; 4];
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
                for (i, sums) in sums.iter().enumerate() {
                    let first = at * WIDTH + i / 2 * ROWS;
                    let rows = ROWS.min(outputs.saturating_sub(first));
                    for (row, sums) in sums.chunks_exact(COLUMNS).enumerate().take(rows) {
                        for (lane, sum) in sums.iter().enumerate().take(shape.columns) {
                            // SAFETY: output `first + row` of a pixel of the result or of the trash; nothing is read
                            // unless it is added to.
                            unsafe {
                                let to = cell.outs[i % 2].add((first + row) * shape.columns + lane);
                                to.write(O::narrow(if add { (*to).wide() + *sum } else { *sum }));
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The gradient of the weight, `(K, C, R, S)`; `None` for maps of two types, which no convolution has.
pub(super) fn weight_grad(
    tiles: TileIsa,
    d: &ConvShape,
    (blocks, lanes): (usize, usize),
    source: Maps<'_>,
    grad: Maps<'_>,
) -> Option<Vec<f32>> {
    assert!(lanes.is_multiple_of(2) && lanes <= 2 * COLUMNS);
    let line = d.c * lanes;
    Some(match (source, grad) {
        (Maps::Rounded(source), Maps::Rounded(grad)) => {
            DirectWeight { shape: d, blocks, lanes, source, grad }.rounds::<bf16>(
                (WIDTH, WIDTH),
                |from, to, pitch| turn(Maps::Rounded(from), (d.k, lanes), to.get(), pitch),
                |part, out| outer(tiles, (line, lanes), Factors::Rounded, part, out),
            )
        }
        (Maps::Split(source), Maps::Split(grad)) => {
            // Both parts of a pixel take the place of its values.
            let mut halves = Pooled::<f32>::take(source.len());
            let halves = halves.slice();
            halves.par_chunks_mut(line).zip(source.par_chunks(line)).with_min_len(8).for_each(
                |(to, from)| {
                    // SAFETY: as many bytes as two bf16 for each value, and any bits are f32.
                    let to =
                        unsafe { std::slice::from_raw_parts_mut(to.as_mut_ptr().cast::<bf16>(), 2 * line) };
                    for (part, to) in to.chunks_exact_mut(line).enumerate() {
                        for (to, x) in to.iter_mut().zip(from) {
                            *to = Factors::part(*x, part);
                        }
                    }
                },
            );
            DirectWeight { shape: d, blocks, lanes, source: halves, grad }.rounds::<f32>(
                (WIDTH, WIDTH),
                |from, to, pitch| turn(Maps::Split(from), (d.k, lanes), to.get().cast(), 2 * pitch),
                |part, out| outer(tiles, (line, lanes), Factors::Split, part, out),
            )
        }
        _ => return None,
    })
}

/// Turns `[k][lane]` into panels of `[part][pair of lanes][k][half]`, `pitch` values apart; missing `k` become zeros.
fn turn(from: Maps<'_>, (k, lanes): (usize, usize), to: *mut bf16, pitch: usize) {
    let parts = from.factors().parts();
    for panel in 0..k.div_ceil(WIDTH) {
        // SAFETY: the rows of one pixel in this panel, which belong to this call; every one of them is written.
        let to = unsafe { std::slice::from_raw_parts_mut(to.add(panel * pitch), parts * WIDTH * lanes) };
        for (part, to) in to.chunks_exact_mut(WIDTH * lanes).enumerate() {
            for (pair, to) in to.chunks_exact_mut(2 * WIDTH).enumerate() {
                for (i, to) in to.chunks_exact_mut(2).enumerate() {
                    let k_at = panel * WIDTH + i;
                    for (half, to) in to.iter_mut().enumerate() {
                        *to = match k_at < k {
                            true => from.part(k_at * lanes + 2 * pair + half, part),
                            false => bf16::ZERO,
                        };
                    }
                }
            }
        }
    }
}

/// Adds the products of a part: channels in rows, outputs in columns. `line` is the number of values of a pixel.
fn outer<E, G>(
    tiles: TileIsa,
    (line, lanes): (usize, usize),
    factors: Factors,
    part: Part<'_, E, G>,
    out: Shared<f32>,
) {
    let Part { places, first, channels, panels, panel } = part;
    // Values of bf16 between panels: the carrier may be f32.
    let panel = panel * size_of::<G>() / size_of::<bf16>();
    let (tile, row) = (ROWS * lanes, WIDTH * lanes);
    let shape = Shape { pairs: lanes / 2, columns: COLUMNS, pitch: (lanes, 2 * WIDTH) };
    let end = first + channels;
    // Rows beyond the channels of this part are zeros here.
    let mut edge = vec![bf16::ZERO; factors.parts() * 2 * tile];
    tiles.with(shape, |session| {
        let mut sums = [[0f32; SUMS]; 4];
        for places in places.chunks(PLACES) {
            for p in 0..panels {
                for c in (first..end).step_by(WIDTH) {
                    let rows = WIDTH.min(end - c);
                    session.zero();
                    for place in places {
                        // SAFETY: channels of this part of a pixel, in each part of its values, copied where they are
                        // fewer than two tiles; the panels hold the rows of all parts.
                        unsafe {
                            let (mut xs, mut pitch) = (place.xs.cast::<bf16>().add(c * lanes), line);
                            if rows < WIDTH {
                                for (i, edge) in edge.chunks_exact_mut(2 * tile).enumerate() {
                                    let from = std::slice::from_raw_parts(xs.add(i * line), rows * lanes);
                                    edge[..rows * lanes].copy_from_slice(from);
                                }
                                (xs, pitch) = (edge.as_ptr(), 2 * tile);
                            }
                            let grad = place.grad.cast::<bf16>().add(p * panel);
                            for (x, y) in factors.terms() {
                                let (a, b) = (xs.add(x * pitch), grad.add(y * row));
                                session.add([a, a.add(tile)], [b, b.add(2 * COLUMNS)]);
                            }
                        }
                    }
                    session.store(&mut sums);
                    for (at, sums) in sums.iter().enumerate() {
                        let (i, j) = (at / 2 * ROWS, at % 2 * COLUMNS);
                        for (r, sums) in sums.chunks_exact(COLUMNS).enumerate().take(rows.saturating_sub(i)) {
                            // SAFETY: the result has a row of all panels for each channel of this part.
                            let to = unsafe {
                                let to = out.get().add(((c + i + r) * panels + p) * WIDTH + j);
                                std::slice::from_raw_parts_mut(to, COLUMNS)
                            };
                            for (to, sum) in to.iter_mut().zip(sums) {
                                *to += *sum;
                            }
                        }
                    }
                }
            }
        }
    });
}
