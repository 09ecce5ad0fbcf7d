//! The gradient of the weight: sums of 16 channels and 16 outputs.

use super::{Maps, WIDTH, pairs};
use crate::images::buffer::Pooled;
use crate::images::direct::{DirectWeight, Part};
use crate::tensor::check::ConvShape;
use half::bf16;
use infomax_simd::tiles::{COLUMNS, Factors, PAIRS, ROWS, SUMS, Shape, Sums, TileIsa};
use infomax_simd::{Arith, Float as _, Isa, Kernel, Shared, Simd, Task, line_room, lined, run};
use rayon::prelude::*;

/// Places whose sums stay in the tiles: 128 KiB of gradients of 32 images.
const PLACES: usize = 64;

/// Elements of the images and gradients of one round of the gradient of a weight.
const ROUND: usize = 512 << 10;

/// The gradient of the weight, `(K, C, R, S)`; `None` for maps of two types, which no convolution has.
pub(in crate::images) fn weight_grad(
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
                pairs::rows(maps.line((block * pixels + pixel) * len, len), lanes, part, to);
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
                    pairs::rows(from, lanes, part, rows);
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
