//! Crop and resize in one pass over the pixels of the crop, with Pillow's fixed-point arithmetic.
//!
//! A filter of radius `r` is stretched by `max(1, in / out)`; the output pixel `x` is the sum of the
//! input pixels within reach of `(x + 0.5) in / out`, with weights that are normalised to 1 and rounded
//! to 22 bits. One direction first, rounded to 8 bits, then the other, in the order that Pillow 13 chooses,
//! so the result is the same: columns first where the height shrinks by more than twice as many pixels as the
//! width.

use crate::transpose::transpose;
use crate::{CropBox, Filter};
#[cfg(target_arch = "x86_64")]
use crate::{simd::v3, x86};

/// Bits after the binary point of the weights (Pillow's `PRECISION_BITS`).
const BITS: u32 = 32 - 8 - 2;
/// Rows that are resized together: one lane of a vector each.
const LANES: usize = 16;
/// Columns that are summed together, in registers.
const BLOCK: usize = 32;

type Block = [u8; BLOCK];

/// The weights of one axis.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    /// First input pixel and number of weights of every output pixel.
    bounds: Vec<(usize, usize)>,
    /// Weights, `stride` per output pixel.
    weights: Vec<i32>,
    exact: Vec<f64>,
    stride: usize,
}

impl Taps {
    /// The weights of `count` output pixels from `offset` on, of a resize from `input` to `output` pixels.
    fn set(&mut self, filter: Filter, input: usize, output: usize, offset: usize, count: usize) {
        let scale = input as f64 / output as f64;
        let stretch = scale.max(1.0);
        let radius = match filter {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
        };
        let support = radius * stretch;
        let inverse = 1.0 / stretch;
        self.stride = support.ceil() as usize * 2 + 1;
        self.bounds.clear();
        self.weights.clear();
        self.weights.resize(self.stride * count, 0);
        for x in 0..count {
            let centre = ((offset + x) as f64 + 0.5) * scale;
            // Truncation towards zero, as the C original.
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(input);
            self.exact.clear();
            self.exact.extend((first..end).map(|i| weight(filter, (i as f64 - centre + 0.5) * inverse)));
            let sum: f64 = self.exact.iter().sum();
            let norm = if sum != 0.0 { sum } else { 1.0 };
            let slots = &mut self.weights[x * self.stride..];
            for (slot, w) in slots.iter_mut().zip(&self.exact) {
                let scaled = w / norm * f64::from(1 << BITS);
                *slot = (scaled + 0.5f64.copysign(scaled)) as i32;
            }
            self.bounds.push((first, end - first));
        }
    }

    /// The first input pixel that is needed and the one behind the last.
    fn reach(&self) -> (usize, usize) {
        let first = self.bounds.first().map_or(0, |(first, _)| *first);
        (first, self.bounds.iter().map(|(first, count)| first + count).max().unwrap_or(first))
    }

    #[inline(always)]
    fn at(&self, x: usize) -> (usize, &[i32]) {
        let (first, count) = self.bounds[x];
        (first, &self.weights[x * self.stride..x * self.stride + count])
    }
}

fn weight(filter: Filter, x: f64) -> f64 {
    let x = x.abs();
    match filter {
        Filter::Bilinear => (1.0 - x).max(0.0),
        Filter::Bicubic => {
            const A: f64 = -0.5;
            if x < 1.0 {
                ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
            } else if x < 2.0 {
                (((x - 5.0) * x + 8.0) * x - 4.0) * A
            } else {
                0.0
            }
        }
    }
}

/// Buffers of the resampler.
#[derive(Debug, Default)]
pub(crate) struct Resampler {
    x: Taps,
    y: Taps,
    lanes: Vec<Lane>,
    rows: Vec<Block>,
    columns: Vec<u8>,
}

/// One value of each of 16 rows.
type Lane = [u8; LANES];

/// The pixels of an image.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) width: usize,
    pub(crate) channels: usize,
}

/// What of the resized crop is wanted.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    /// Width and height of the resized crop.
    pub(crate) full: (usize, usize),
    /// The first column and row that are wanted.
    pub(crate) offset: (usize, usize),
    /// How many columns and rows are wanted.
    pub(crate) size: usize,
}

impl Resampler {
    /// Resizes the crop of `source` (interleaved) into `out` (planes).
    #[inline(always)]
    pub(crate) fn run<S: pulp::Simd>(
        &mut self,
        simd: S,
        source: Source<'_>,
        crop: CropBox,
        filter: Filter,
        window: Window,
        out: &mut [u8],
    ) {
        let (size, channels) = (window.size, source.channels);
        if crop.height == window.full.1 {
            let rows = CropBox { y: crop.y + window.offset.1, height: size, ..crop };
            return self.horizontal(simd, source, rows, filter, window, Target { out, stride: size });
        }
        self.y.set(filter, crop.height, window.full.1, window.offset.1, size);
        let shrinks = |from: usize, to: usize| from.saturating_sub(to);
        if crop.width != window.full.0
            && shrinks(crop.height, window.full.1) > 2 * shrinks(crop.width, window.full.0)
        {
            return self.columns_first(simd, source, crop, filter, window, out);
        }
        let (first, end) = self.y.reach();
        let height = end - first;
        let mut rows = std::mem::take(&mut self.rows);
        // Rows are filled up to whole blocks.
        let stride = size.div_ceil(BLOCK);
        rows.resize(channels * height * stride, [0; BLOCK]);
        let needed = CropBox { y: crop.y + first, height, ..crop };
        let target = Target { out: rows.as_flattened_mut(), stride: stride * BLOCK };
        self.horizontal(simd, source, needed, filter, window, target);
        for (plane, out) in rows.chunks_exact(height * stride).zip(out.chunks_exact_mut(size * size)) {
            for (y, out) in out.chunks_exact_mut(size).enumerate() {
                let (start, weights) = self.y.at(y);
                let rows = plane[(start - first) * stride..].as_flattened();
                for (x, out) in out.chunks_mut(BLOCK).enumerate() {
                    let values = weigh_rows(simd, &rows[x * BLOCK..], stride * BLOCK, weights);
                    match out.first_chunk_mut::<BLOCK>() {
                        Some(out) => *out = values,
                        None => out.copy_from_slice(&values[..out.len()]),
                    }
                }
            }
        }
        self.rows = rows;
    }

    /// Resizes the columns of the crop, as they lie in the image, and then the rows.
    #[inline(always)]
    fn columns_first<S: pulp::Simd>(
        &mut self,
        simd: S,
        source: Source<'_>,
        crop: CropBox,
        filter: Filter,
        window: Window,
        out: &mut [u8],
    ) {
        let Source { data, width, channels } = source;
        let (row_len, stride) = (crop.width * channels, width * channels);
        let mut columns = std::mem::take(&mut self.columns);
        columns.resize(row_len * window.size, 0);
        for (y, out) in columns.chunks_exact_mut(row_len).enumerate() {
            let (start, weights) = self.y.at(y);
            let rows = &data[((crop.y + start) * width + crop.x) * channels..];
            if row_len < BLOCK {
                for (x, out) in out.iter_mut().enumerate() {
                    let terms = rows[x..].iter().step_by(stride).zip(weights);
                    *out = clip(terms.map(|(v, w)| i32::from(*v) * w).sum::<i32>() + (1 << (BITS - 1)));
                }
                continue;
            }
            // The last block overlaps the one before it, so that all have the same length.
            for x in (0..row_len).step_by(BLOCK).map(|x| x.min(row_len - BLOCK)) {
                out[x..x + BLOCK].copy_from_slice(&weigh_rows(simd, &rows[x..], stride, weights));
            }
        }
        let source = Source { data: &columns, width: crop.width, channels };
        let crop = CropBox { x: 0, y: 0, width: crop.width, height: window.size };
        self.horizontal(simd, source, crop, filter, window, Target { out, stride: window.size });
        self.columns = columns;
    }

    /// Resizes the rows of the crop into planes of `window.size` columns.
    #[inline(always)]
    fn horizontal<S: pulp::Simd>(
        &mut self,
        simd: S,
        source: Source<'_>,
        crop: CropBox,
        filter: Filter,
        window: Window,
        target: Target<'_>,
    ) {
        let (width, height, channels) = (window.size, crop.height, source.channels);
        if crop.width == window.full.0 {
            return split_planes(source, CropBox { x: crop.x + window.offset.0, width, ..crop }, target);
        }
        let Target { out, stride } = target;
        self.x.set(filter, crop.width, window.full.0, window.offset.0, width);
        let (first, end) = self.x.reach();
        let row_len = (end - first) * channels;
        self.lanes.resize(row_len.next_multiple_of(LANES), [0; LANES]);
        let mut top = 0;
        while top < height {
            let count = LANES.min(height - top);
            // Turn 16 rows into columns of lanes, so that one weight meets 16 pixels at once. Where there
            // are fewer, the last row stands in for the others.
            let rows: [&[u8]; LANES] = std::array::from_fn(|r| {
                let at = (crop.y + top + r.min(count - 1)) * source.width + crop.x + first;
                &source.data[at * channels..at * channels + row_len]
            });
            interleave(simd, rows, &mut self.lanes);
            let tiles = Tiles { lanes: &self.lanes, taps: &self.x, first, channels, top, count };
            let target = Target { out: &mut *out, stride };
            match channels {
                1 => tiles.run::<1, S>(simd, target, width, height),
                3 => tiles.run::<3, S>(simd, target, width, height),
                4 => tiles.run::<4, S>(simd, target, width, height),
                _ => tiles.run::<0, S>(simd, target, width, height),
            }
            top += count;
        }
    }
}

/// Sixteen rows of the crop as lanes, to be resized into planes.
struct Tiles<'a> {
    lanes: &'a [Lane],
    taps: &'a Taps,
    first: usize,
    channels: usize,
    top: usize,
    count: usize,
}

impl Tiles<'_> {
    /// Resizes the rows of all channels, `N` together; with `N = 0`, one after the other.
    #[inline(always)]
    fn run<const N: usize, S: pulp::Simd>(&self, simd: S, target: Target<'_>, width: usize, height: usize) {
        let Target { out, stride } = target;
        for x in (0..width).step_by(LANES) {
            let n = LANES.min(width - x);
            if N == 0 {
                for c in 0..self.channels {
                    let mut block = [[0u8; LANES]; LANES];
                    for (i, values) in block.iter_mut().enumerate().take(n) {
                        let (start, weights) = self.taps.at(x + i);
                        let lanes = &self.lanes[(start - self.first) * self.channels + c..];
                        *values = weigh(lanes.iter().step_by(self.channels), weights);
                    }
                    self.write(simd, block, &mut out[c * height * stride..][..height * stride], stride, x);
                }
            } else {
                let mut blocks = [[[0u8; LANES]; LANES]; N];
                for i in 0..n {
                    let (start, weights) = self.taps.at(x + i);
                    let values = weigh_lanes::<N, S>(simd, &self.lanes[(start - self.first) * N..], weights);
                    for (block, values) in blocks.iter_mut().zip(values) {
                        block[i] = values;
                    }
                }
                for (block, plane) in blocks.into_iter().zip(out.chunks_exact_mut(height * stride)) {
                    self.write(simd, block, plane, stride, x);
                }
            }
        }
    }

    /// Turns the columns of a block into rows again.
    #[inline(always)]
    fn write<S: pulp::Simd>(&self, simd: S, block: [Lane; LANES], plane: &mut [u8], stride: usize, x: usize) {
        let lines = &mut plane[self.top * stride..(self.top + self.count) * stride];
        for (line, values) in lines.chunks_exact_mut(stride).zip(transpose(simd, block)) {
            let line = &mut line[x..];
            match line.first_chunk_mut::<LANES>() {
                Some(line) => *line = values,
                None => line.copy_from_slice(&values[..line.len()]),
            }
        }
    }
}

/// Writes 16 rows as columns: value `j` of row `r` goes to `lanes[j][r]`.
#[inline(always)]
fn interleave<S: pulp::Simd>(simd: S, rows: [&[u8]; LANES], lanes: &mut [Lane]) {
    let len = rows[0].len();
    let (whole, rest) = lanes.as_chunks_mut::<LANES>();
    for (j, lanes) in whole.iter_mut().enumerate().take(len / LANES) {
        let mut block = [[0; LANES]; LANES];
        for (to, row) in block.iter_mut().zip(rows) {
            to.copy_from_slice(&row[j * LANES..(j + 1) * LANES]);
        }
        *lanes = transpose(simd, block);
    }
    let done = len / LANES * LANES;
    let tail = whole[len / LANES..].iter_mut().flatten().chain(rest);
    for (j, lane) in (done..len).zip(tail) {
        for (value, row) in lane.iter_mut().zip(rows) {
            *value = row[j];
        }
    }
}

/// Planes with `stride` bytes a row.
struct Target<'a> {
    out: &'a mut [u8],
    stride: usize,
}

/// The weighted sum of the first bytes of rows of `stride` bytes.
#[inline(always)]
fn weigh_rows<S: pulp::Simd>(simd: S, rows: &[u8], stride: usize, weights: &[i32]) -> Block {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = v3(simd) {
        return x86::weigh_rows(simd, rows, stride, weights);
    }
    let _ = simd;
    weigh(rows.chunks(stride).filter_map(<[u8]>::first_chunk), weights)
}

/// The weighted sums of lanes, for `N` channels: the first `N`, the `N` behind them, and so on.
#[inline(always)]
fn weigh_lanes<const N: usize, S: pulp::Simd>(simd: S, lanes: &[Lane], weights: &[i32]) -> [Lane; N] {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = v3(simd) {
        return x86::weigh_lanes(simd, lanes, weights);
    }
    let _ = simd;
    let mut out = [[0; LANES]; N];
    for (c, out) in out.iter_mut().enumerate() {
        *out = weigh(lanes[c..].iter().step_by(N), weights);
    }
    out
}

#[inline(always)]
fn weigh<'a, const N: usize>(rows: impl Iterator<Item = &'a [u8; N]>, weights: &[i32]) -> [u8; N] {
    let mut sum = [1i32 << (BITS - 1); N];
    for (row, w) in rows.zip(weights) {
        let w = *w;
        for (s, v) in sum.iter_mut().zip(row) {
            *s += i32::from(*v) * w;
        }
    }
    let mut out = [0; N];
    for (out, s) in out.iter_mut().zip(sum) {
        *out = clip(s);
    }
    out
}

#[inline(always)]
fn clip(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// Copies the crop of an interleaved image into planes.
#[inline(always)]
fn split_planes(source: Source<'_>, crop: CropBox, target: Target<'_>) {
    let channels = source.channels;
    for (c, plane) in target.out.chunks_exact_mut(target.stride * crop.height).enumerate() {
        for (y, line) in plane.chunks_exact_mut(target.stride).enumerate() {
            let start = ((crop.y + y) * source.width + crop.x) * channels;
            let row = &source.data[start..start + crop.width * channels];
            for (o, px) in line.iter_mut().zip(row.chunks_exact(channels)) {
                *o = px[c];
            }
        }
    }
}
