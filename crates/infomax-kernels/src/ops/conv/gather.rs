//! `out[k, pixel] = sum over (channel, tap) of weight[k, channel, tap] * source[channel, window(pixel) + tap]`:
//! the forward pass, and the gradient of the input, which has the same form.
//!
//! A register tile holds some output channels times three vectors of pixels. The pixels come either
//! straight from the staged copy (rows at least as wide as a vector), or from a packed panel that fits the
//! first-level cache. The order of the sum of a pixel depends on the shape alone.

use super::stage::{Stage, Windows};
use infomax_simd::{Float, Isa, Kernel, Scratch, Shared, Simd, grow};
use rayon::prelude::*;

/// The vectors of one register tile.
const NR: usize = 3;
/// Rows of a packed panel: with 48 pixels of f32 they take 27 KiB of the first-level cache.
const DEPTH: usize = 144;
/// Pixels of one task.
const TASK_PIXELS: usize = 768;

/// Where the results go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// Elements of one image.
    pub(crate) image: usize,
    /// Elements of one channel of an image.
    pub(crate) plane: usize,
    /// Width of a plane.
    pub(crate) width: usize,
    /// First row and column of the grid.
    pub(crate) origin: (usize, usize),
    /// The step of the grid in the target.
    pub(crate) step: usize,
    /// Offset of the first channel.
    pub(crate) first: usize,
}

impl Target {
    fn at(&self, image: usize, i: usize, j: usize) -> usize {
        let (y, x) = (self.origin.0 + i * self.step, self.origin.1 + j * self.step);
        self.first + image * self.image + y * self.width + x
    }
}

/// One pass over a batch.
pub(crate) struct Gather<'a, T> {
    pub(crate) windows: &'a Windows,
    pub(crate) target: Target,
    pub(crate) images: usize,
    pub(crate) source: &'a [T],
    /// Elements of one image of the source.
    pub(crate) source_image: usize,
    /// Offset of the first channel.
    pub(crate) source_first: usize,
    pub(crate) channels: usize,
    pub(crate) outputs: usize,
    /// Weights in panels of `rows_of(isa)` output channels: `[panel][channel][tap][output]`.
    pub(crate) weights: &'a [T],
    pub(crate) bias: Option<&'a [T]>,
}

/// The output channels of one register tile, whose other side is an image row: narrower than that of a product.
pub(crate) fn channels_per_tile<T: Float>(isa: Isa) -> usize {
    if T::has_32_registers(isa) { 8 } else { 4 }
}

/// Packs weights for [`Gather`]: `at(k, c, t)` is the weight of output `k`, channel `c`, tap `t`.
pub(crate) fn pack_weights<T: Float>(
    rows: usize,
    outputs: usize,
    channels: usize,
    taps: usize,
    at: impl Fn(usize, usize, usize) -> T + Sync,
) -> Vec<T> {
    let depth = channels * taps;
    let mut packed = vec![T::default(); outputs.div_ceil(rows) * depth * rows];
    let pack = |(panel, block): (usize, &mut [T])| {
        for i in 0..rows.min(outputs - panel * rows) {
            for c in 0..channels {
                for t in 0..taps {
                    block[(c * taps + t) * rows + i] = at(panel * rows + i, c, t);
                }
            }
        }
    };
    if packed.len() > 1 << 16 {
        packed.par_chunks_mut(depth * rows).enumerate().for_each(pack);
    } else {
        packed.chunks_mut(depth * rows).enumerate().for_each(pack);
    }
    packed
}

impl<T: Float> Gather<'_, T> {
    /// Writes every pixel of the grid in `out`.
    ///
    /// # Safety
    /// `out` must be valid for every index that `self.target` makes of the images, outputs and grid of this
    /// pass, and no one else may use those elements meanwhile. `self.source` must hold all images.
    pub(crate) unsafe fn run(&self, isa: Isa, out: Shared<T>) {
        let Windows { po, qo, .. } = *self.windows;
        // Whole images while they are small, else blocks of rows of one image.
        let group = (TASK_PIXELS / (po * qo)).clamp(1, self.images.div_ceil(4).max(1));
        let rows = if group > 1 { po } else { (TASK_PIXELS.max(po * qo / 16) / qo).clamp(1, po) };
        let blocks = po.div_ceil(rows);
        let tasks = self.images.div_ceil(group) * blocks;
        (0..tasks).into_par_iter().for_each(|task| {
            let (image, block) = (task / blocks * group, task % blocks * rows);
            let images = group.min(self.images - image);
            let rows = rows.min(po - block);
            T::with_scratch(|scratch| {
                let part = Part { gather: self, out, image, images, row: block, rows };
                T::dispatch(isa, Task { part, scratch });
            });
        });
    }
}

/// Some images, some rows of the grid, and the buffers of the thread.
struct Task<'a, T> {
    part: Part<'a, T>,
    scratch: &'a mut Scratch<T>,
}

/// Some images, some rows of the grid.
struct Part<'a, T> {
    gather: &'a Gather<'a, T>,
    out: Shared<T>,
    image: usize,
    images: usize,
    row: usize,
    rows: usize,
}

/// One vector of pixels.
#[derive(Clone, Copy)]
struct Pixels {
    /// Its first window in the stage (direct), or its first segment (packed).
    base: usize,
    /// Its first element in the target, or `SCATTER` and the first lane in the table of lanes.
    out: usize,
    lanes: usize,
    scatter: bool,
}

impl<T: Float> Kernel<T> for Task<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        // SAFETY: passed on from `Gather::run`.
        unsafe {
            if S::WIDE { self.part.run::<S, 8>(self.scratch) } else { self.part.run::<S, 4>(self.scratch) }
        }
    }
}

impl<T: Float> Part<'_, T> {
    #[inline(always)]
    unsafe fn run<S: Simd<T = T>, const MR: usize>(&self, scratch: &mut Scratch<T>) {
        let Scratch { stage: stage_buffer, panel, tile } = scratch;
        let g = self.gather;
        let windows = g.windows;
        let taps = windows.taps.len();
        let depth = g.channels * taps;
        let stage = Stage::new(windows, self.rows);
        let direct = windows.qo >= S::LANES;
        let image_stage = g.channels * stage.plane;

        let in_place = direct && self.rows == windows.po && stage.is_source(windows) && self.images == 1;
        let staged: *const T = if in_place {
            // SAFETY: `source` holds all images.
            unsafe { g.source.as_ptr().add(self.image * g.source_image + g.source_first) }
        } else {
            // One vector of slack: packing reads whole vectors.
            let buffer = grow(stage_buffer, self.images * image_stage + S::LANES);
            for n in 0..self.images {
                let from = (self.image + n) * g.source_image + g.source_first;
                for c in 0..g.channels {
                    let plane = &g.source[from + c * windows.hs * windows.ws..][..windows.hs * windows.ws];
                    let to = &mut buffer[n * image_stage + c * stage.plane..][..stage.plane];
                    stage.fill(windows, plane, self.row, to);
                }
            }
            buffer.as_ptr()
        };
        let channel = if in_place { windows.hs * windows.ws } else { stage.plane };
        let mut offsets = Vec::with_capacity(depth);
        for c in 0..g.channels {
            offsets.extend(windows.taps.iter().map(|t| (c * channel + stage.offset(*t)) as u32));
        }
        // SAFETY: the vectors below lie in the stage, and their results in the target.
        unsafe {
            if direct {
                self.direct::<S, MR>(&stage, staged, image_stage, &offsets, tile);
            } else {
                self.packed::<S, MR>(&stage, staged, image_stage, &offsets, panel, tile);
            }
        }
    }

    /// Rows of at least one vector: the last vector of a row overlaps the one before it.
    #[inline(always)]
    unsafe fn direct<S: Simd<T = T>, const MR: usize>(
        &self,
        stage: &Stage,
        staged: *const T,
        image_stage: usize,
        offsets: &[u32],
        tile: &mut Vec<T>,
    ) {
        let g = self.gather;
        let mut pixels = Vec::with_capacity(self.images * self.rows * g.windows.qo.div_ceil(S::LANES));
        let mut lanes = Vec::new();
        for n in 0..self.images {
            for i in 0..self.rows {
                let mut j = 0;
                while j < g.windows.qo {
                    let at = j.min(g.windows.qo - S::LANES);
                    let base = n * image_stage + stage.base(i, at);
                    let first = g.target.at(self.image + n, self.row + i, at);
                    let scatter = g.target.step != 1;
                    let out = if scatter { lanes.len() } else { first };
                    if scatter {
                        lanes.extend((0..S::LANES).map(|l| first + l * g.target.step));
                    }
                    pixels.push(Pixels { base, out, lanes: S::LANES, scatter });
                    j += S::LANES;
                }
            }
        }
        let tile = grow(tile, MR * NR * S::LANES).as_mut_ptr();
        let mut rest = &pixels[..];
        while !rest.is_empty() {
            let take = tile_width(rest.len());
            let (now, later) = rest.split_at(take);
            rest = later;
            let base = |j: usize| now[j.min(take - 1)].base;
            let bases = [base(0), base(1), base(2)];
            // SAFETY: passed on from the caller.
            unsafe { self.outputs::<S, MR>(now, &lanes, (0, offsets.len()), staged, offsets, bases, tile) };
        }
    }

    /// Rows of less than one vector: pixels of all rows and images in one sequence, copied into panels.
    #[inline(always)]
    unsafe fn packed<S: Simd<T = T>, const MR: usize>(
        &self,
        stage: &Stage,
        staged: *const T,
        image_stage: usize,
        offsets: &[u32],
        panel: &mut Vec<T>,
        tile: &mut Vec<T>,
    ) {
        let g = self.gather;
        let (qo, per_image) = (g.windows.qo, self.rows * g.windows.qo);
        let total = self.images * per_image;
        let contiguous = g.target.step == 1 && qo == g.target.width;
        let mut pixels = Vec::with_capacity(total.div_ceil(S::LANES));
        // (lane within its tile, place in the stage) of each run of pixels.
        let mut segments: Vec<(u32, u32)> = Vec::new();
        let mut lanes = Vec::new();
        let mut ends = Vec::with_capacity(pixels.capacity());
        for v in 0..total.div_ceil(S::LANES) {
            let first = v * S::LANES;
            let count = S::LANES.min(total - first);
            let begin = segments.len();
            let mut l = 0;
            while l < count {
                let pixel = first + l;
                let (n, i, j) = (pixel / per_image, pixel % per_image / qo, pixel % qo);
                segments.push((l as u32, (n * image_stage + stage.base(i, j)) as u32));
                l += qo - j;
            }
            let at = |pixel: usize| {
                g.target.at(self.image + pixel / per_image, self.row + pixel % per_image / qo, pixel % qo)
            };
            let one_image = first / per_image == (first + count - 1) / per_image;
            let scatter = !(contiguous && one_image && count == S::LANES);
            let out = if scatter { lanes.len() } else { at(first) };
            if scatter {
                lanes.extend((0..count).map(|l| at(first + l)));
            }
            pixels.push(Pixels { base: begin, out, lanes: count, scatter });
            ends.push(segments.len());
        }
        let depth = offsets.len();
        let blocks = depth.div_ceil(DEPTH);
        let block = depth.div_ceil(blocks);
        let width = NR * S::LANES;
        // One vector of slack: packing writes whole vectors.
        let panel = grow(panel, block * width + S::LANES).as_mut_ptr();
        let rows: Vec<u32> = (0..block).map(|d| (d * width) as u32).collect();
        let tile = grow(tile, MR * width).as_mut_ptr();
        for d0 in (0..depth).step_by(block) {
            let d1 = (d0 + block).min(depth);
            let mut v = 0;
            while v < pixels.len() {
                let take = tile_width(pixels.len() - v);
                let now = &pixels[v..v + take];
                for (d, offset) in offsets[d0..d1].iter().enumerate() {
                    // SAFETY: segments lie in the stage, which has a vector of slack; each row of the panel
                    // is written from left to right and before the next one, so that what a segment writes
                    // beyond its end is overwritten or slack.
                    unsafe {
                        let from = staged.add(*offset as usize);
                        let to = panel.add(d * width);
                        for j in 0..take {
                            for (lane, place) in &segments[now[j].base..ends[v + j]] {
                                let x = S::load(from.add(*place as usize));
                                S::store(to.add(j * S::LANES + *lane as usize), x);
                            }
                        }
                    }
                }
                let bases = [0, S::LANES, 2 * S::LANES];
                // SAFETY: passed on from the caller; the panel holds the rows.
                unsafe { self.outputs::<S, MR>(now, &lanes, (d0, d1), panel, &rows[..d1 - d0], bases, tile) };
                v += take;
            }
        }
    }

    /// All output channels of up to three vectors of pixels, over the part `d0..d1` of the sum.
    #[inline(always)]
    unsafe fn outputs<S: Simd<T = T>, const MR: usize>(
        &self,
        now: &[Pixels],
        lanes: &[usize],
        (d0, d1): (usize, usize),
        values: *const T,
        offsets: &[u32],
        bases: [usize; NR],
        tile: *mut T,
    ) {
        let g = self.gather;
        let depth = g.channels * g.windows.taps.len();
        let scatter = now.iter().any(|p| p.scatter);
        for panel in 0..g.outputs.div_ceil(MR) {
            let k = panel * MR;
            let rows = MR.min(g.outputs - k);
            let mut start = [T::default(); MR];
            if let (Some(bias), 0) = (g.bias, d0) {
                start[..rows].copy_from_slice(&bias[k..k + rows]);
            }
            // SAFETY: the weights hold every panel; targets are in bounds as the caller promises.
            unsafe {
                let weights = g.weights.as_ptr().add((panel * depth + d0) * MR);
                let channel = self.out.get().add(k * g.target.plane);
                let at = |j: usize| {
                    let j = j.min(now.len() - 1);
                    if scatter { tile.add(j * S::LANES) } else { channel.add(now[j].out) }
                };
                let place = Place {
                    outs: [at(0), at(1), at(2)],
                    pitch: if scatter { NR * S::LANES } else { g.target.plane },
                    rows,
                    add: d0 != 0 && !scatter,
                };
                match now.len() {
                    1 => tile_sum::<S, MR, 1>(d1 - d0, weights, values, offsets, bases, &start, &place),
                    2 => tile_sum::<S, MR, 2>(d1 - d0, weights, values, offsets, bases, &start, &place),
                    _ => tile_sum::<S, MR, NR>(d1 - d0, weights, values, offsets, bases, &start, &place),
                }
                if scatter {
                    for i in 0..rows {
                        for (j, p) in now.iter().enumerate() {
                            for l in 0..p.lanes {
                                let index = if p.scatter { lanes[p.out + l] } else { p.out + l };
                                let to = channel.add(i * g.target.plane + index);
                                let value = *tile.add((i * NR + j) * S::LANES + l);
                                *to = if d0 == 0 { value } else { *to + value };
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Three vectors at a time; the last four as two and two.
fn tile_width(left: usize) -> usize {
    if left == 4 { 2 } else { left.min(NR) }
}

/// Where a register tile is stored.
struct Place<T> {
    outs: [*mut T; NR],
    pitch: usize,
    rows: usize,
    add: bool,
}

/// The register tile: `MR` output channels times `N` vectors of pixels.
///
/// # Safety
/// `weights` must hold `len * MR` elements; `values` a vector at each `bases[j] + offsets[d]` for `d < len`;
/// `place` must be writable.
#[inline(always)]
unsafe fn tile_sum<S: Simd, const MR: usize, const N: usize>(
    len: usize,
    weights: *const S::T,
    values: *const S::T,
    offsets: &[u32],
    bases: [usize; NR],
    start: &[S::T; MR],
    place: &Place<S::T>,
) {
    // SAFETY: as the function requires.
    unsafe {
        let mut acc = [[S::splat(S::T::default()); N]; MR];
        for i in 0..MR {
            acc[i] = [S::splat(start[i]); N];
        }
        let mut weight = weights;
        let offset = offsets.as_ptr();
        for d in 0..len {
            let row = values.add(*offset.add(d) as usize);
            let mut x = [S::splat(S::T::default()); N];
            for j in 0..N {
                x[j] = S::load(row.add(bases[j]));
            }
            for i in 0..MR {
                let w = S::splat(*weight.add(i));
                for j in 0..N {
                    acc[i][j] = S::fma(w, x[j], acc[i][j]);
                }
            }
            weight = weight.add(MR);
        }
        for i in 0..MR {
            if i < place.rows {
                for j in 0..N {
                    let to = place.outs[j].add(i * place.pitch);
                    let value = if place.add { S::add(S::load(to), acc[i][j]) } else { acc[i][j] };
                    S::store(to, value);
                }
            }
        }
    }
}
