//! `dw[k, (channel, tap)] = sum over pixels of dy[k, pixel] * source[channel, window(pixel) + tap]`:
//! the gradient of the weight.
//!
//! A register tile holds some outputs times some (channel, tap) pairs, each a vector of partial sums over
//! pixels. The batch is split into chunks, whose sums are added in order: how many depends on the shape
//! alone, so that the result has the same bits for any number of threads.

use super::stage::{Stage, Windows};
use infomax_simd::{Float, Isa, Kernel, Scratch, Shared, Simd, filled, grow};
use rayon::prelude::*;

/// Vectors of pixels between two horizontal sums.
const RUN: usize = 96;
/// Elements of all partial sums of one gradient.
const PARTIAL: usize = 4 << 20;
/// Elements of the staged copy of one task: half of a second-level cache.
const STAGED: usize = 96 << 10;

/// One pass over a batch.
pub(crate) struct WeightGrad<'a, T> {
    pub(crate) windows: &'a Windows,
    pub(crate) images: usize,
    pub(crate) source: &'a [T],
    pub(crate) source_image: usize,
    pub(crate) source_first: usize,
    pub(crate) channels: usize,
    pub(crate) grad: &'a [T],
    pub(crate) grad_image: usize,
    pub(crate) grad_first: usize,
    pub(crate) outputs: usize,
}

impl<T: Float> WeightGrad<'_, T> {
    /// The gradient `(outputs, channels, taps)`.
    pub(crate) fn run(&self, isa: Isa) -> Vec<T> {
        let taps = self.windows.taps.len();
        let row = self.channels * taps;
        let size = self.outputs * row;
        // Images of one staged block, channels of one task, images of one partial sum.
        let stage = Stage::new(self.windows, self.windows.po);
        let pixels = self.windows.po * self.windows.qo;
        let block = (RUN * T::lanes(isa) / pixels).clamp(1, self.images);
        let channels = (STAGED / (block * stage.plane)).clamp(1, self.channels);
        let channels = self.channels.div_ceil(self.channels.div_ceil(channels));
        let splits = self.channels.div_ceil(channels);
        let chunks = (PARTIAL / size).clamp(1, 32).min(self.images.div_ceil(block));
        let chunk = self.images.div_ceil(chunks).next_multiple_of(block);
        let chunks = self.images.div_ceil(chunk);
        // A batch that makes one chunk is split over channels, so that every thread has work.
        let (channels, splits) = if chunks * splits < 16 {
            let channels = self.channels.div_ceil(16usize.div_ceil(chunks)).max(1);
            (channels, self.channels.div_ceil(channels))
        } else {
            (channels, splits)
        };
        // SAFETY: each task writes the rows of its chunk for its channels, and together they cover all.
        let partial = unsafe {
            filled::<T>(chunks * size, |out| {
                (0..chunks * splits).into_par_iter().for_each(|task| {
                    let (i, c) = (task / splits, task % splits * channels);
                    T::with_scratch(|scratch| {
                        let part = Part {
                            pass: self,
                            images: (i * chunk, ((i + 1) * chunk).min(self.images)),
                            block,
                            channels: (c, (c + channels).min(self.channels)),
                            out: Shared::new(out.get().add(i * size)),
                        };
                        T::dispatch(isa, Task { part, scratch });
                    });
                });
            })
        };
        if chunks == 1 {
            return partial;
        }
        let mut sum = partial[..size].to_vec();
        let add = |(b, block): (usize, &mut [T])| {
            for i in 1..chunks {
                for (s, p) in block.iter_mut().zip(&partial[i * size + b * 4096..]) {
                    *s += *p;
                }
            }
        };
        if size > 1 << 15 {
            sum.par_chunks_mut(4096).enumerate().for_each(add);
        } else {
            sum.chunks_mut(4096).enumerate().for_each(add);
        }
        sum
    }
}

struct Task<'a, T> {
    part: Part<'a, T>,
    scratch: &'a mut Scratch<T>,
}

/// Some images, some channels.
struct Part<'a, T> {
    pass: &'a WeightGrad<'a, T>,
    images: (usize, usize),
    block: usize,
    channels: (usize, usize),
    /// The partial sum of this chunk, all outputs and channels.
    out: Shared<T>,
}

impl<T: Float> Kernel<T> for Task<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        // SAFETY: the part was made by `WeightGrad::run`.
        unsafe {
            if S::WIDE {
                self.part.run::<S, 4, 6>(self.scratch);
            } else {
                self.part.run::<S, 3, 4>(self.scratch);
            }
        }
    }
}

impl<T: Float> Part<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd<T = T>, const MR: usize, const NR: usize>(&self, scratch: &mut Scratch<T>) {
        let Scratch { stage: stage_buffer, panel, tile } = scratch;
        let p = self.pass;
        let windows = p.windows;
        let (po, qo) = (windows.po, windows.qo);
        let taps = windows.taps.len();
        let (c0, c1) = self.channels;
        let rows = (c1 - c0) * taps;
        let row = p.channels * taps;
        let stage = Stage::new(windows, po);
        let plane = windows.hs * windows.ws;
        // Whole vectors in each row: no packing, neither of the source nor of the gradient.
        let direct = qo % S::LANES == 0;
        let image_stage = (c1 - c0) * stage.plane;
        let mut first = true;
        let mut n0 = self.images.0;
        while n0 < self.images.1 {
            let images = self.block.min(self.images.1 - n0);
            let in_place = direct && images == 1 && stage.is_source(windows);
            let staged: *const T = if in_place {
                // SAFETY: `source` holds all images.
                unsafe { p.source.as_ptr().add(n0 * p.source_image + p.source_first + c0 * plane) }
            } else {
                let buffer = grow(stage_buffer, images * image_stage + S::LANES);
                for n in 0..images {
                    let from = (n0 + n) * p.source_image + p.source_first;
                    for c in c0..c1 {
                        let to = &mut buffer[n * image_stage + (c - c0) * stage.plane..][..stage.plane];
                        stage.fill(windows, &p.source[from + c * plane..][..plane], 0, to);
                    }
                }
                buffer.as_ptr()
            };
            let channel = if in_place { plane } else { stage.plane };
            let total = images * po * qo;
            let vectors = total.div_ceil(S::LANES);
            // Places of the vectors: in the source and in the gradient.
            let mut xs = Vec::with_capacity(vectors);
            let mut gs = Vec::with_capacity(vectors);
            let mut offsets: Vec<usize> = Vec::with_capacity(rows);
            let (values, grads, grad_pitch): (*const T, *const T, usize);
            if direct {
                for n in 0..images {
                    for i in 0..po {
                        for j in (0..qo).step_by(S::LANES) {
                            xs.push((n * image_stage + stage.base(i, j)) as u32);
                            gs.push((n * p.grad_image + i * qo + j) as u32);
                        }
                    }
                }
                for c in 0..c1 - c0 {
                    offsets.extend(windows.taps.iter().map(|t| c * channel + stage.offset(*t)));
                }
                values = staged;
                // SAFETY: `grad` holds all images.
                grads = unsafe { p.grad.as_ptr().add(n0 * p.grad_image + p.grad_first) };
                grad_pitch = po * qo;
            } else {
                let pitch = vectors * S::LANES;
                xs.extend((0..vectors).map(|v| (v * S::LANES) as u32));
                gs.extend_from_slice(&xs);
                offsets.extend((0..rows).map(|d| d * pitch));
                let panel = grow(panel, rows * pitch + S::LANES);
                let to = panel.as_mut_ptr();
                for c in 0..c1 - c0 {
                    for (t, tap) in windows.taps.iter().enumerate() {
                        // SAFETY: the rows of the stage have a vector of slack behind the last one; what a
                        // copy writes beyond its row is overwritten by the next one, or is slack.
                        unsafe {
                            let from = staged.add(c * stage.plane + stage.offset(*tap));
                            let to = to.add((c * taps + t) * pitch);
                            for n in 0..images {
                                for i in 0..po {
                                    let from = from.add(n * image_stage + stage.base(i, 0));
                                    let to = to.add((n * po + i) * qo);
                                    copy::<S>(from, to, qo);
                                }
                            }
                            // What is multiplied by the zeros of the gradient must be finite.
                            for l in total..pitch {
                                *to.add(l) = T::default();
                            }
                        }
                    }
                }
                let tile = grow(tile, p.outputs * pitch + S::LANES);
                for k in 0..p.outputs {
                    let row = &mut tile[k * pitch..(k + 1) * pitch];
                    for n in 0..images {
                        let from = (n0 + n) * p.grad_image + p.grad_first + k * po * qo;
                        row[n * po * qo..][..po * qo].copy_from_slice(&p.grad[from..][..po * qo]);
                    }
                    row[total..].fill(T::default());
                }
                (values, grads, grad_pitch) = (panel.as_ptr(), tile.as_ptr(), pitch);
            }
            let mut v = 0;
            while v < vectors {
                let run = (vectors - v).min(RUN);
                let mut t = 0;
                while t < rows {
                    let cols = NR.min(rows - t);
                    let mut x = [values; NR];
                    for j in 0..NR {
                        // SAFETY: the row of a (channel, tap) pair; the last one again where there is none.
                        x[j] = unsafe { values.add(offsets[(t + j).min(rows - 1)]) };
                    }
                    let mut k = 0;
                    while k < p.outputs {
                        let lines = MR.min(p.outputs - k);
                        let mut g = [grads; MR];
                        for i in 0..MR {
                            // SAFETY: the row of an output channel.
                            g[i] = unsafe { grads.add((k + i).min(p.outputs - 1) * grad_pitch) };
                        }
                        // SAFETY: the tables point at whole vectors in both, and the results lie in the rows
                        // of this chunk.
                        unsafe {
                            let to = self.out.get().add(k * row + c0 * taps + t);
                            dot_tile::<S, MR, NR>(
                                &xs[v..v + run],
                                &gs[v..v + run],
                                x,
                                g,
                                to,
                                row,
                                lines,
                                cols,
                                first,
                            );
                        }
                        k += MR;
                    }
                    t += NR;
                }
                first = false;
                v += run;
            }
            n0 += images;
        }
    }
}

/// Copies a row by whole vectors; up to one vector beyond its end is read and written.
#[inline(always)]
unsafe fn copy<S: Simd>(from: *const S::T, to: *mut S::T, len: usize) {
    let mut l = 0;
    while l < len {
        // SAFETY: passed on from the caller.
        unsafe { S::store(to.add(l), S::load(from.add(l))) };
        l += S::LANES;
    }
}

/// The register tile: `MR` outputs times `NR` (channel, tap) pairs, summed over vectors of pixels.
///
/// # Safety
/// A vector at each `x[j] + xs[v]` and `g[i] + gs[v]`; `lines` x `cols` results at `to` with `pitch`.
#[inline(always)]
unsafe fn dot_tile<S: Simd, const MR: usize, const NR: usize>(
    xs: &[u32],
    gs: &[u32],
    x: [*const S::T; NR],
    g: [*const S::T; MR],
    to: *mut S::T,
    pitch: usize,
    lines: usize,
    cols: usize,
    first: bool,
) {
    // SAFETY: as the function requires.
    unsafe {
        let mut acc = [[S::splat(S::T::default()); NR]; MR];
        for (xv, gv) in xs.iter().zip(gs) {
            let (xv, gv) = (*xv as usize, *gv as usize);
            let mut dy = [S::splat(S::T::default()); MR];
            for i in 0..MR {
                dy[i] = S::load(g[i].add(gv));
            }
            for j in 0..NR {
                let value = S::load(x[j].add(xv));
                for i in 0..MR {
                    acc[i][j] = S::fma(dy[i], value, acc[i][j]);
                }
            }
        }
        for i in 0..MR {
            for j in 0..NR {
                if i < lines && j < cols {
                    let to = to.add(i * pitch + j);
                    let sum = S::sum(acc[i][j]);
                    *to = if first { sum } else { *to + sum };
                }
            }
        }
    }
}
