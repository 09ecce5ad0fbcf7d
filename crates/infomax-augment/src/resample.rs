//! Crop and resize in one pass over the pixels of the crop, with Pillow's fixed-point arithmetic, or that of
//! ATen on tensors of `uint8`, which torchvision's second interface takes.
//!
//! A filter of radius `r` is stretched by `max(1, in / out)`; the output pixel `x` is the sum of the
//! input pixels within reach of `(x + 0.5) in / out`, with weights that are normalized to 1 and rounded
//! to 22 bits. One direction first, rounded to 8 bits, then the other, in the order that Pillow 13 chooses,
//! so the result is the same: columns first where the height shrinks by more than twice as many pixels as the
//! width.
//!
//! ATen resizes the rows first, always, and rounds the weights to as many bits, at most 22, as let the largest
//! weight of an axis fit into 16 bits. Here these weights are shifted left to 22 bits; the sums are the same.

use crate::transpose::transpose;
#[cfg(target_arch = "x86_64")]
use crate::x86;
use crate::{CropBox, Filter, Semantics};
use infomax_simd::bytes::v3;

/// Bits after the binary point of the weights (Pillow's `PRECISION_BITS`).
const BITS: u32 = 32 - 8 - 2;
/// Rows that are resized together: one lane of a vector each.
pub(crate) const LANES: usize = 16;
/// Columns that are summed together, in registers.
const BLOCK: usize = 32;

type Block = [u8; BLOCK];

/// The filter, and how its weights are rounded.
#[derive(Clone, Copy)]
pub(crate) struct Kernel {
    pub(crate) filter: Filter,
    /// Anything but [`Semantics::TensorV2`] has the arithmetic of Pillow here.
    pub(crate) semantics: Semantics,
}

/// The weights of one axis, equally many for every output pixel.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    /// How many input pixels an output pixel is the sum of.
    count: usize,
    /// The first of them, of every output pixel.
    first: Vec<usize>,
    /// Their weights, `count` per output pixel; those beyond the filter's reach are 0.
    weights: Vec<i32>,
    /// The center, the first input pixel and the one behind the last, of every output pixel.
    spans: [Vec<f64>; 3],
    /// The sums of the weights, before rounding.
    sums: Vec<f64>,
    /// The weights before rounding and after, those of the first input pixels of all output pixels, those of
    /// the second, and so on.
    exact: Vec<f64>,
    rounded: Vec<i32>,
}

impl Taps {
    /// The weights of `count` output pixels from `offset` on, of a resize from `input` to `output` pixels.
    #[inline(always)]
    pub(crate) fn set(&mut self, kernel: Kernel, input: usize, output: usize, offset: usize, count: usize) {
        if kernel.semantics == Semantics::TensorV2 {
            // The largest weight is that of the whole axis, also where only a part of it is wanted.
            self.weigh_axis(kernel.filter, input, output, 0, output);
            let bits = self.short_bits(output);
            if count != output {
                self.weigh_axis(kernel.filter, input, output, offset, count);
            }
            self.round(count, f64::from(1 << bits), BITS - bits);
        } else {
            self.weigh_axis(kernel.filter, input, output, offset, count);
            self.round(count, f64::from(1 << BITS), 0);
        }
        self.weights.clear();
        self.weights.resize(self.count * count, 0);
        for (x, (first, weights)) in
            self.first.iter_mut().zip(self.weights.chunks_exact_mut(self.count)).enumerate()
        {
            // At the end of the axis there are weights of 0 before the others instead of behind them.
            let start = (*first).min(input - self.count);
            let column = self.rounded[x..].iter().step_by(count);
            for (to, w) in weights[*first - start..].iter_mut().zip(column) {
                *to = *w;
            }
            *first = start;
        }
    }

    /// The places and the exact weights of output pixels, with their sums.
    #[inline(always)]
    fn weigh_axis(&mut self, filter: Filter, input: usize, output: usize, offset: usize, count: usize) {
        let scale = input as f64 / output as f64;
        let stretch = scale.max(1.0);
        let radius = match filter {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
        };
        let support = radius * stretch;
        self.first.clear();
        self.spans.iter_mut().for_each(Vec::clear);
        self.count = 0;
        for x in 0..count {
            let center = ((offset + x) as f64 + 0.5) * scale;
            // Truncation towards zero, as the C original.
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            self.count = self.count.max(end - first);
            self.first.push(first);
            for (span, v) in self.spans.iter_mut().zip([center, first as f64, end as f64]) {
                span.push(v);
            }
        }
        self.sums.clear();
        self.sums.resize(count, 0.0);
        self.exact.resize(self.count * count, 0.0);
        match filter {
            Filter::Bilinear => self.weigh(count, 1.0 / stretch, bilinear),
            Filter::Bicubic => self.weigh(count, 1.0 / stretch, bicubic),
        }
    }

    /// All weights and their sums; the loops are in an order that suits vectors.
    #[inline(always)]
    fn weigh(&mut self, count: usize, inverse: f64, filter: impl Fn(f64) -> f64) {
        let [centers, firsts, ends] = &self.spans;
        for (k, exact) in self.exact.chunks_exact_mut(count).enumerate() {
            let spans = centers.iter().zip(firsts).zip(ends);
            for ((w, sum), ((center, first), end)) in exact.iter_mut().zip(&mut self.sums).zip(spans) {
                let at = first + k as f64;
                let value = filter((at - center + 0.5) * inverse);
                *w = if at < *end { value } else { 0.0 };
                *sum += *w;
            }
        }
        for sum in &mut self.sums {
            *sum = if *sum == 0.0 { 1.0 } else { *sum };
        }
    }

    /// The weights, normalized, times `scale`, rounded and shifted to the left.
    #[inline(always)]
    fn round(&mut self, count: usize, scale: f64, shift: u32) {
        self.rounded.resize(self.exact.len(), 0);
        for (exact, rounded) in self.exact.chunks_exact(count).zip(self.rounded.chunks_exact_mut(count)) {
            for ((w, sum), to) in exact.iter().zip(&self.sums).zip(rounded) {
                let scaled = w / sum * scale;
                *to = ((scaled + 0.5f64.copysign(scaled)) as i32) << shift;
            }
        }
    }

    /// The bits after the binary point with which the largest of the weights takes less than 16, at most 22.
    fn short_bits(&self, count: usize) -> u32 {
        let weights = self.exact.chunks_exact(count).flat_map(|row| row.iter().zip(&self.sums));
        let largest = weights.map(|(w, sum)| w / sum).fold(0.0, f64::max);
        (0..BITS).find(|bits| 0.5 + largest * f64::from(2 << bits) >= 32768.0).unwrap_or(BITS)
    }

    /// The first input pixel that is needed and the one behind the last.
    fn reach(&self) -> (usize, usize) {
        let first = self.first.first().copied().unwrap_or(0);
        (first, self.first.last().map_or(first, |last| last + self.count))
    }

    /// How many weights an output pixel has.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The first input pixel of an output pixel, and the weights.
    #[inline(always)]
    pub(crate) fn at(&self, x: usize) -> (usize, &[i32]) {
        (self.first[x], &self.weights[x * self.count..(x + 1) * self.count])
    }
}

/// Whether Pillow resizes the columns of a crop before its rows.
pub(crate) fn columns_first(width: usize, height: usize, full: (usize, usize)) -> bool {
    let shrinks = |from: usize, to: usize| from.saturating_sub(to);
    width != full.0 && shrinks(height, full.1) > 2 * shrinks(width, full.0)
}

#[inline(always)]
fn bilinear(x: f64) -> f64 {
    (1.0 - x.abs()).max(0.0)
}

#[inline(always)]
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    let near = ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = (((x - 5.0) * x + 8.0) * x - 4.0) * A;
    let beyond = if x < 2.0 { far } else { 0.0 };
    if x < 1.0 { near } else { beyond }
}

/// Buffers of the resampler.
#[derive(Debug, Default)]
pub(crate) struct Resampler {
    x: Taps,
    y: Taps,
    tiles: Vec<[Lane; LANES]>,
    /// Rows after the first pass: blocks of columns of a channel, one below the other.
    rows: Vec<Block>,
    columns: Vec<u8>,
}

/// One value of each of 16 rows.
pub(crate) type Lane = [u8; LANES];

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
    pub(crate) fn run<S: infomax_simd::bytes::Simd>(
        &mut self,
        simd: S,
        source: Source<'_>,
        crop: CropBox,
        kernel: Kernel,
        window: Window,
        out: &mut [u8],
    ) {
        let (size, channels) = (window.size, source.channels);
        if crop.height == window.full.1 {
            let rows = CropBox { y: crop.y + window.offset.1, height: size, ..crop };
            return self.horizontal(simd, source, rows, kernel, window, Target { out, size, blocks: false });
        }
        self.y.set(kernel, crop.height, window.full.1, window.offset.1, size);
        if kernel.semantics != Semantics::TensorV2 && columns_first(crop.width, crop.height, window.full) {
            return self.columns_first(simd, source, crop, kernel, window, out);
        }
        let (first, end) = self.y.reach();
        let height = end - first;
        let mut rows = std::mem::take(&mut self.rows);
        let columns = size.div_ceil(BLOCK);
        rows.resize(channels * height * columns, [0; BLOCK]);
        let needed = CropBox { y: crop.y + first, height, ..crop };
        let target = Target { out: rows.as_flattened_mut(), size, blocks: true };
        self.horizontal(simd, source, needed, kernel, window, target);
        let pass = Vertical { taps: &self.y, first, rows: &rows, height, size, out };
        infomax_simd::bytes::alone(simd, pass);
        self.rows = rows;
    }

    /// Resizes the columns of the crop, as they lie in the image, and then the rows.
    #[inline(always)]
    fn columns_first<S: infomax_simd::bytes::Simd>(
        &mut self,
        simd: S,
        source: Source<'_>,
        crop: CropBox,
        kernel: Kernel,
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
        self.horizontal(simd, source, crop, kernel, window, Target { out, size: window.size, blocks: false });
        self.columns = columns;
    }

    /// Resizes the rows of the crop into planes of `window.size` columns.
    #[inline(always)]
    fn horizontal<S: infomax_simd::bytes::Simd>(
        &mut self,
        simd: S,
        source: Source<'_>,
        crop: CropBox,
        kernel: Kernel,
        window: Window,
        target: Target<'_>,
    ) {
        infomax_simd::bytes::alone(
            simd,
            Horizontal { resampler: self, source, crop, kernel, window, target },
        );
    }
}

/// The resize of rows, as an operation by itself.
struct Horizontal<'a> {
    resampler: &'a mut Resampler,
    source: Source<'a>,
    crop: CropBox,
    kernel: Kernel,
    window: Window,
    target: Target<'a>,
}

impl infomax_simd::bytes::WithSimd for Horizontal<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: infomax_simd::bytes::Simd>(self, simd: S) {
        let Self { resampler: Resampler { x: taps, tiles, .. }, source, crop, kernel, window, target } = self;
        let (width, height, channels) = (window.size, crop.height, source.channels);
        if crop.width == window.full.0 {
            let columns = CropBox { x: crop.x + window.offset.0, width, ..crop };
            return split_planes(source, columns, target);
        }
        taps.set(kernel, crop.width, window.full.0, window.offset.0, width);
        let (first, end) = taps.reach();
        let row_len = (end - first) * channels;
        tiles.resize(row_len.div_ceil(LANES), [[0; LANES]; LANES]);
        let mut target = target;
        let mut top = 0;
        while top < height {
            let count = LANES.min(height - top);
            load_lanes(simd, source, (crop.x + first, crop.y + top, count), row_len, tiles);
            let rows = Rows { lanes: tiles.as_flattened(), taps, first, channels, top, count, height };
            match (channels, taps.count) {
                (3, 2) => rows.run::<3, 2, S>(simd, &mut target),
                (3, 3) => rows.run::<3, 3, S>(simd, &mut target),
                (3, 4) => rows.run::<3, 4, S>(simd, &mut target),
                (3, 5) => rows.run::<3, 5, S>(simd, &mut target),
                (3, 6) => rows.run::<3, 6, S>(simd, &mut target),
                (3, _) => rows.run::<3, 0, S>(simd, &mut target),
                (1, _) => rows.run::<1, 0, S>(simd, &mut target),
                (4, _) => rows.run::<4, 0, S>(simd, &mut target),
                _ => rows.run::<0, 0, S>(simd, &mut target),
            }
            top += count;
        }
    }
}

/// Turns 16 rows into columns of lanes, so that one weight meets 16 pixels at once: `row_len` bytes each, from
/// the pixel `(x, y)` on. Where there are fewer rows, `count`, the last stands in for the others.
#[inline(always)]
pub(crate) fn load_lanes<S: infomax_simd::bytes::Simd>(
    simd: S,
    source: Source<'_>,
    (x, y, count): (usize, usize, usize),
    row_len: usize,
    tiles: &mut [[Lane; LANES]],
) {
    for r in 0..LANES {
        let at = ((y + r.min(count - 1)) * source.width + x) * source.channels;
        let row = &source.data[at..at + row_len];
        let (whole, rest) = row.as_chunks();
        for (tile, values) in tiles.iter_mut().zip(whole) {
            tile[r] = *values;
        }
        if let (false, Some(tile)) = (rest.is_empty(), tiles.last_mut()) {
            tile[r][..rest.len()].copy_from_slice(rest);
        }
    }
    for tile in tiles.iter_mut() {
        *tile = transpose(simd, *tile);
    }
}

/// Sixteen rows of the crop as lanes, to be resized into planes.
struct Rows<'a> {
    lanes: &'a [Lane],
    taps: &'a Taps,
    first: usize,
    channels: usize,
    top: usize,
    count: usize,
    height: usize,
}

impl Rows<'_> {
    /// Resizes the rows of all channels, `N` together, or with `N = 0` one after the other, with `T` weights,
    /// or with `T = 0` as many as there are.
    #[inline(always)]
    fn run<const N: usize, const T: usize, S: infomax_simd::bytes::Simd>(
        &self,
        simd: S,
        target: &mut Target<'_>,
    ) {
        let width = target.size;
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
                    self.write(simd, block, target, c, x);
                }
            } else {
                let pixels = self.lanes.as_chunks::<N>().0;
                let mut blocks = [[[0u8; LANES]; LANES]; N];
                for i in 0..n {
                    let (start, weights) = self.taps.at(x + i);
                    let pixels = &pixels[start - self.first..];
                    let values = match (pixels.first_chunk::<T>(), weights.first_chunk::<T>()) {
                        (Some(pixels), Some(weights)) if T > 0 => weigh_lanes(simd, pixels, weights),
                        _ => weigh_lanes(simd, pixels, weights),
                    };
                    for (block, values) in blocks.iter_mut().zip(values) {
                        block[i] = values;
                    }
                }
                for (c, block) in blocks.into_iter().enumerate() {
                    self.write(simd, block, target, c, x);
                }
            }
        }
    }

    /// Turns the columns of a block into rows again.
    #[inline(always)]
    fn write<S: infomax_simd::bytes::Simd>(
        &self,
        simd: S,
        block: [Lane; LANES],
        target: &mut Target<'_>,
        channel: usize,
        x: usize,
    ) {
        let (lines, stride, x) = target.lines(channel, self.height, x);
        let lines = lines[self.top * stride..].chunks_exact_mut(stride).take(self.count);
        for (line, values) in lines.zip(transpose(simd, block)) {
            let line = &mut line[x..];
            match line.first_chunk_mut::<LANES>() {
                Some(line) => *line = values,
                None => line.copy_from_slice(&values[..line.len()]),
            }
        }
    }
}

/// Planes of `size` columns: rows, or, for the second pass, blocks of columns one below the other.
struct Target<'a> {
    out: &'a mut [u8],
    size: usize,
    blocks: bool,
}

impl Target<'_> {
    /// What holds column `x` of a channel: lines, their length, and the place of the column in a line.
    #[inline(always)]
    fn lines(&mut self, channel: usize, height: usize, x: usize) -> (&mut [u8], usize, usize) {
        if self.blocks {
            let len = height * BLOCK;
            let block = channel * self.size.div_ceil(BLOCK) + x / BLOCK;
            (&mut self.out[block * len..(block + 1) * len], BLOCK, x % BLOCK)
        } else {
            let len = height * self.size;
            (&mut self.out[channel * len..(channel + 1) * len], self.size, x)
        }
    }
}

/// The resize of the columns that the first pass left, as an operation by itself.
struct Vertical<'a> {
    taps: &'a Taps,
    first: usize,
    rows: &'a [Block],
    height: usize,
    size: usize,
    out: &'a mut [u8],
}

impl infomax_simd::bytes::WithSimd for Vertical<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: infomax_simd::bytes::Simd>(self, simd: S) {
        match self.taps.count {
            2 => self.run::<2, S>(simd),
            3 => self.run::<3, S>(simd),
            4 => self.run::<4, S>(simd),
            5 => self.run::<5, S>(simd),
            6 => self.run::<6, S>(simd),
            _ => self.run::<0, S>(simd),
        }
    }
}

impl Vertical<'_> {
    /// With `T` weights, or with `T = 0` as many as there are.
    #[inline(always)]
    fn run<const T: usize, S: infomax_simd::bytes::Simd>(self, simd: S) {
        let Self { taps, first, rows, height, size, out } = self;
        let columns = size.div_ceil(BLOCK);
        for (i, column) in rows.chunks_exact(height).enumerate() {
            let (plane, x) = (i / columns * size * size, i % columns * BLOCK);
            for (y, out) in out[plane..plane + size * size].chunks_exact_mut(size).enumerate() {
                let (start, weights) = taps.at(y);
                let blocks = &column[start - first..];
                let values = match (blocks.first_chunk::<T>(), weights.first_chunk::<T>()) {
                    (Some(blocks), Some(weights)) if T > 0 => weigh_blocks(simd, blocks, weights),
                    _ => weigh_blocks(simd, blocks, weights),
                };
                let out = &mut out[x..];
                match out.first_chunk_mut::<BLOCK>() {
                    Some(out) => *out = values,
                    None => out.copy_from_slice(&values[..out.len()]),
                }
            }
        }
    }
}

/// The weighted sum of blocks.
#[inline(always)]
fn weigh_blocks<S: infomax_simd::bytes::Simd>(simd: S, blocks: &[Block], weights: &[i32]) -> Block {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = v3(simd) {
        return x86::weigh_blocks(simd, blocks.iter(), weights);
    }
    let _ = simd;
    weigh(blocks.iter(), weights)
}

/// The weighted sum of the first bytes of rows of `stride` bytes.
#[inline(always)]
fn weigh_rows<S: infomax_simd::bytes::Simd>(simd: S, rows: &[u8], stride: usize, weights: &[i32]) -> Block {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = v3(simd) {
        return x86::weigh_blocks(simd, rows.chunks(stride).filter_map(<[u8]>::first_chunk), weights);
    }
    let _ = simd;
    weigh(rows.chunks(stride).filter_map(<[u8]>::first_chunk), weights)
}

/// The weighted sums of the lanes of pixels of `N` channels.
#[inline(always)]
fn weigh_lanes<const N: usize, S: infomax_simd::bytes::Simd>(
    simd: S,
    pixels: &[[Lane; N]],
    weights: &[i32],
) -> [Lane; N] {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = v3(simd) {
        return x86::weigh_lanes(simd, pixels, weights);
    }
    let _ = simd;
    let mut out = [[0; LANES]; N];
    for (c, out) in out.iter_mut().enumerate() {
        *out = weigh(pixels.iter().map(|pixel| &pixel[c]), weights);
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
fn split_planes(source: Source<'_>, crop: CropBox, mut target: Target<'_>) {
    let channels = source.channels;
    let step = if target.blocks { BLOCK } else { crop.width };
    for c in 0..channels {
        for left in (0..crop.width).step_by(step) {
            let (lines, stride, _) = target.lines(c, crop.height, left);
            let width = step.min(crop.width - left);
            for (y, line) in lines.chunks_exact_mut(stride).enumerate() {
                let start = ((crop.y + y) * source.width + crop.x + left) * channels;
                let row = &source.data[start..start + width * channels];
                for (o, px) in line.iter_mut().zip(row.chunks_exact(channels)) {
                    *o = px[c];
                }
            }
        }
    }
}
