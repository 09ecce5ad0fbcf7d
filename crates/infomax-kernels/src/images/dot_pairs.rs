//! Convolutions of maps in bf16 by dot products of pairs: both operands are bf16, the sums f32.
//!
//! Forward and in the gradient of the input a pair holds two channels, in the gradient of the weight two images.
//! This is the direct form: Winograd's transforms would have to be rounded to bf16 before they are multiplied, and lose
//! what the sums in f32 keep. Where Winograd's form suits, it is taken in f32 registers instead, which is faster
//! ([`super::conv::Conv::pairs`]).

use super::direct::{Direct, DirectWeight, Part, Plan, round};
use super::tile::{NV, PAIRS, Sweep, rows};
use crate::tensor::check::ConvShape;
use half::bf16;
use infomax_simd::pairs::{PairIsa, PairKernel, Pairs};
use infomax_simd::{Isa, Shared};
use rayon::prelude::*;

/// Rows of a register tile, as in [`super::tile`] with 32 registers.
const MR: usize = rows(true);

/// Images of one block, lanes of one vector.
const LANES: usize = 16;

/// Weights of two channels.
pub(super) type Two = [bf16; 2];

/// The pairs of `isa`, for blocks of `lanes` images.
pub(super) fn pairs(isa: Isa, lanes: usize) -> Option<PairIsa> {
    if lanes == LANES { PairIsa::of(isa) } else { None }
}

/// Packs weights in panels of `MR` outputs: `[panel][tap][pair of channels][row]`, the last pair filled with zeros.
pub(super) fn pack_pairs(
    outputs: usize,
    channels: usize,
    taps: usize,
    at: impl Fn(usize, usize, usize) -> bf16 + Sync,
) -> Vec<Two> {
    let panel = channels.div_ceil(2) * taps * MR;
    let mut packed = vec![[bf16::ZERO; 2]; outputs.div_ceil(MR) * panel];
    packed.par_chunks_mut(panel).enumerate().for_each(|(p, to)| {
        for c in 0..channels {
            for i in 0..MR.min(outputs - p * MR) {
                for t in 0..taps {
                    to[(t * channels.div_ceil(2) + c / 2) * MR + i][c % 2] = at(p * MR + i, c, t);
                }
            }
        }
    });
    packed
}

impl Direct<'_, bf16, Two> {
    /// Writes (or adds to) every pixel of `out`.
    ///
    /// # Safety
    /// As [`Direct::run`].
    pub(super) unsafe fn run_pairs(&self, isa: PairIsa, out: Shared<bf16>) {
        self.check();
        let panel = self.channels.div_ceil(2) * self.taps() * MR;
        assert!(self.lanes == LANES && self.weights.len() == self.outputs.div_ceil(MR) * panel);
        (0..self.blocks * self.tasks().1).into_par_iter().for_each(|task| {
            let Plan { segs, cells, .. } = &self.plan(task, LANES, self.channels.div_ceil(2) * MR, out);
            let (channels, outputs, lanes, add) = (self.channels, self.outputs, self.lanes, self.add);
            let weights = self.weights.as_ptr();
            let sweep = Sweep { segs, cells, channels, weights, panel, first: 0, outputs, lanes, add };
            isa.dispatch(PairSweep(sweep));
        });
    }
}

/// [`super::tile::sweep`] in pairs of channels.
struct PairSweep<'a>(Sweep<'a, bf16, Two>);

impl PairKernel for PairSweep<'_> {
    #[inline(always)]
    unsafe fn run<S: Pairs>(self) {
        let s = self.0;
        let end = s.first + s.outputs;
        for k in (s.first..end).step_by(MR) {
            let rows = MR.min(end - k);
            // SAFETY: the panel of output `k`; the segments and cells of a plan, with `channels` and `outputs`
            // lines of one vector.
            unsafe {
                let weights = s.weights.add(k / MR * s.panel);
                for cell in s.cells {
                    let zero = S::splat(0.0);
                    let (mut left, mut right) = ([zero; MR], [zero; MR]);
                    for seg in &s.segs[cell.from..cell.to] {
                        let mut weight = weights.add(seg.weight).cast::<bf16>();
                        let [mut x, mut y] = seg.xs;
                        for _ in 0..s.channels / 2 {
                            let (a, b) = (S::zip(x), S::zip(y));
                            for i in 0..MR {
                                let w = S::splat_pair(weight.add(2 * i));
                                left[i] = S::dot(a, w, left[i]);
                                right[i] = S::dot(b, w, right[i]);
                            }
                            weight = weight.add(2 * MR);
                            x = x.wrapping_add(2 * LANES);
                            y = y.wrapping_add(2 * LANES);
                        }
                        if s.channels % 2 == 1 {
                            let (a, b) = (S::zip_zero(x), S::zip_zero(y));
                            for i in 0..MR {
                                let w = S::splat_pair(weight.add(2 * i));
                                left[i] = S::dot(a, w, left[i]);
                                right[i] = S::dot(b, w, right[i]);
                            }
                        }
                    }
                    for i in 0..rows {
                        for (j, acc) in [left[i], right[i]].into_iter().enumerate() {
                            let to = cell.outs[j].add((k + i) * LANES);
                            S::store_bf16(to, if s.add { S::add(S::load_bf16(to), acc) } else { acc });
                        }
                    }
                }
            }
        }
    }
}

impl DirectWeight<'_, bf16> {
    /// `(K, C, R, S)`, from the gradient of the result.
    pub(super) fn run_pairs(&self, grad: &[bf16], isa: PairIsa) -> Vec<f32> {
        assert!(self.lanes == LANES);
        let line = self.shape.k * LANES;
        self.rounds::<bf16>(
            (NV * LANES, MR),
            round(self.shape.k.next_multiple_of(NV * LANES) * LANES),
            |at, to, pitch| turn(&grad[at * line..(at + 1) * line], self.shape, to, pitch),
            |part, out| isa.dispatch(PairOuter { part, out }),
        )
    }
}

/// Turns `[k][lane]` into panels of `[pair of lanes][k]`, `pitch` values apart; missing `k` become zeros.
fn turn(from: &[bf16], d: &ConvShape, to: Shared<bf16>, pitch: usize) {
    const WIDTH: usize = NV * LANES;
    for panel in 0..d.k.div_ceil(WIDTH) {
        // SAFETY: the rows of one pixel in this panel, which belong to this call.
        let to = unsafe {
            std::slice::from_raw_parts_mut(to.get().add(panel * pitch).cast::<Two>(), WIDTH * LANES / 2)
        };
        for (i, to) in to.iter_mut().enumerate() {
            let (pair, k) = (i / WIDTH, panel * WIDTH + i % WIDTH);
            *to = if k < d.k {
                let at = k * LANES + 2 * pair;
                [from[at], from[at + 1]]
            } else {
                [bf16::ZERO; 2]
            };
        }
    }
}

/// [`super::tile::outer`] in pairs of images, for all panels of a part.
struct PairOuter<'a> {
    part: Part<'a, bf16, bf16>,
    out: Shared<f32>,
}

impl PairKernel for PairOuter<'_> {
    #[inline(always)]
    unsafe fn run<S: Pairs>(self) {
        let Part { places, first, channels, panels, panel } = self.part;
        const WIDTH: usize = NV * LANES;
        // The gradients of one run stay in the first-level cache while all channels pass.
        for places in places.chunks(PAIRS) {
            for p in 0..panels {
                for c in (first..first + channels).step_by(MR) {
                    let rows = MR.min(first + channels - c);
                    // SAFETY: channels of this part, the last one again where there is none; the panels follow
                    // each other, with a row of pairs for two images; the result has a row of all panels for
                    // each channel.
                    unsafe {
                        let zero = S::splat(0.0);
                        let (mut left, mut right) = ([zero; MR], [zero; MR]);
                        let mut offsets = [0; MR];
                        for i in 0..MR {
                            offsets[i] = (c + i.min(rows - 1)) * LANES;
                        }
                        for place in places {
                            let mut xs = [place.xs; MR];
                            for i in 0..MR {
                                xs[i] = place.xs.add(offsets[i]);
                            }
                            let mut grad = place.grad.add(p * panel);
                            for lane in (0..LANES).step_by(2) {
                                let (a, b) = (S::pairs(grad), S::pairs(grad.add(2 * LANES)));
                                for i in 0..MR {
                                    let x = S::splat_pair(xs[i].add(lane));
                                    left[i] = S::dot(a, x, left[i]);
                                    right[i] = S::dot(b, x, right[i]);
                                }
                                grad = grad.add(2 * WIDTH);
                            }
                        }
                        for i in 0..rows {
                            for (j, acc) in [left[i], right[i]].into_iter().enumerate() {
                                let at = ((c + i) * panels + p) * WIDTH + j * LANES;
                                let to = self.out.get().add(at);
                                S::store(to, S::add(S::load(to), acc));
                            }
                        }
                    }
                }
            }
        }
    }
}
