//! Crop and resize as ATen does on tensors of `f32`, which torchvision's first interface turns `uint8` into.
//!
//! The weights are those of `crate::resample`, in single precision and not rounded to integers. Rows first, then
//! columns, without rounding between them; sums are fused, from the first weight to the last. The result is
//! clamped and rounded to the nearest integer, half to even.

use crate::resample::{LANES, Lane, Source, Window, load_lanes};
#[cfg(target_arch = "x86_64")]
use crate::x86;
use crate::{CropBox, Filter};

/// Columns that are summed together, in registers.
const BLOCK: usize = 32;

/// Buffers of the resampler.
#[derive(Debug, Default)]
pub(crate) struct FloatResampler {
    x: Taps,
    y: Taps,
    tiles: Vec<[Lane; LANES]>,
    /// Planes after the first pass, with as many rows as the second needs.
    rows: Vec<f32>,
}

/// The weights of one axis, equally many for every output pixel.
#[derive(Debug, Default)]
struct Taps {
    count: usize,
    first: Vec<usize>,
    weights: Vec<f32>,
    /// The exact reach of every output pixel, and its center.
    spans: Vec<(usize, usize, f32)>,
}

impl Taps {
    /// The weights of `count` output pixels from `offset` on, of a resize from `input` to `output` pixels.
    fn set(&mut self, filter: Filter, input: usize, output: usize, offset: usize, count: usize) {
        let scale = input as f32 / output as f32;
        let radius = match filter {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
        };
        let support = if scale >= 1.0 { radius * scale } else { radius };
        let inverse = if scale >= 1.0 { 1.0 / scale } else { 1.0 };
        let most = support.ceil() as usize * 2 + 1;
        self.spans.clear();
        self.count = 0;
        for x in offset..offset + count {
            let center = (f64::from(scale) * (x as f64 + 0.5)) as f32;
            let first = (f64::from(center - support) + 0.5).max(0.0) as usize;
            let end = ((f64::from(center + support) + 0.5) as usize).min(input).min(first + most);
            self.count = self.count.max(end.saturating_sub(first));
            self.spans.push((first, end, center));
        }
        self.first.clear();
        self.weights.clear();
        self.weights.resize(self.count * count, 0.0);
        for ((first, end, center), weights) in
            self.spans.iter().zip(self.weights.chunks_exact_mut(self.count))
        {
            // At the end of the axis there are weights of 0 before the others instead of behind them.
            let start = (*first).min(input - self.count);
            let mut total = 0.0;
            let inside = &mut weights[first - start..end - start];
            for (at, w) in (*first..*end).zip(inside.iter_mut()) {
                let x = ((f64::from(at as f32 - center) + 0.5) * f64::from(inverse)) as f32;
                *w = match filter {
                    Filter::Bilinear => (1.0 - x.abs()).max(0.0),
                    Filter::Bicubic => bicubic(x),
                };
                total += *w;
            }
            if total != 0.0 {
                inside.iter_mut().for_each(|w| *w /= total);
            }
            self.first.push(start);
        }
    }

    /// The first input pixel that is needed and the one behind the last.
    fn reach(&self) -> (usize, usize) {
        let first = self.first.first().copied().unwrap_or(0);
        (first, self.first.last().map_or(first, |last| last + self.count))
    }

    #[inline(always)]
    fn at(&self, x: usize) -> (usize, &[f32]) {
        (self.first[x], &self.weights[x * self.count..(x + 1) * self.count])
    }
}

/// Keys' cubic with a = -0.5, each product with its sum in one rounding.
fn bicubic(x: f32) -> f32 {
    let x = x.abs();
    if x < 1.0 {
        (1.5f32.mul_add(x, -2.5) * x).mul_add(x, 1.0)
    } else if x < 2.0 {
        (-0.5f32).mul_add(x, 2.5).mul_add(x, -4.0).mul_add(x, 2.0)
    } else {
        0.0
    }
}

impl FloatResampler {
    /// Resizes the crop of `source` (interleaved) into `out` (planes).
    #[inline(always)]
    pub(crate) fn run<S: infomax_simd::bytes::Simd>(
        &mut self,
        simd: S,
        source: Source<'_>,
        crop: CropBox,
        filter: Filter,
        window: Window,
        out: &mut [u8],
    ) {
        infomax_simd::bytes::alone(simd, Resize { resampler: self, source, crop, filter, window, out });
    }
}

/// The resize, as an operation by itself.
struct Resize<'a> {
    resampler: &'a mut FloatResampler,
    source: Source<'a>,
    crop: CropBox,
    filter: Filter,
    window: Window,
    out: &'a mut [u8],
}

impl infomax_simd::bytes::WithSimd for Resize<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: infomax_simd::bytes::Simd>(self, simd: S) {
        let Self { resampler, source, crop, filter, window, out } = self;
        let FloatResampler { x, y, tiles, rows } = resampler;
        let Window { full, offset, size } = window;
        let vertical = crop.height != full.1;
        let (first, height) = if vertical {
            y.set(filter, crop.height, full.1, offset.1, size);
            let (first, end) = y.reach();
            (first, end - first)
        } else {
            (offset.1, size)
        };
        let needed = CropBox { y: crop.y + first, height, ..crop };
        // Whole blocks, so that the loops over them have a fixed length; what stands behind a row is not used.
        let stride = size.next_multiple_of(BLOCK);
        rows.resize(source.channels * height * stride, 0.0);
        if crop.width == full.0 {
            let columns = CropBox { x: crop.x + offset.0, width: size, ..needed };
            split(source, columns, stride, rows);
        } else {
            x.set(filter, crop.width, full.0, offset.0, size);
            horizontal(simd, source, needed, x, tiles, size, rows);
        }
        let planes = out.chunks_exact_mut(size * size).zip(rows.chunks_exact(height * stride));
        for (out, rows) in planes {
            for (at, out) in out.chunks_exact_mut(size).enumerate() {
                if vertical {
                    let (start, weights) = y.at(at);
                    weigh_rows(&rows[(start - first) * stride..], stride, weights, out);
                } else {
                    let row = &rows[at * stride..at * stride + size];
                    out.iter_mut().zip(row).for_each(|(out, v)| *out = nearest(*v));
                }
            }
        }
    }
}

/// The crop in planes of numbers.
#[inline(always)]
fn split(source: Source<'_>, crop: CropBox, stride: usize, out: &mut [f32]) {
    let channels = source.channels;
    for (c, out) in out.chunks_exact_mut(crop.height * stride).enumerate() {
        for (y, out) in out.chunks_exact_mut(stride).enumerate() {
            let start = ((crop.y + y) * source.width + crop.x) * channels;
            let row = &source.data[start..start + crop.width * channels];
            out.iter_mut().zip(row.chunks_exact(channels)).for_each(|(out, px)| *out = f32::from(px[c]));
        }
    }
}

/// Resizes the rows of the crop into planes of `size` columns, 16 rows at once.
#[inline(always)]
fn horizontal<S: infomax_simd::bytes::Simd>(
    simd: S,
    source: Source<'_>,
    crop: CropBox,
    taps: &Taps,
    tiles: &mut Vec<[Lane; LANES]>,
    size: usize,
    out: &mut [f32],
) {
    let stride = size.next_multiple_of(BLOCK);
    let (channels, plane) = (source.channels, crop.height * stride);
    let (first, end) = taps.reach();
    let row_len = (end - first) * channels;
    tiles.resize(row_len.div_ceil(LANES), [[0; LANES]; LANES]);
    for top in (0..crop.height).step_by(LANES) {
        let count = LANES.min(crop.height - top);
        load_lanes(simd, source, (crop.x + first, crop.y + top, count), row_len, tiles);
        let lanes = tiles.as_flattened();
        for left in (0..size).step_by(LANES) {
            let width = LANES.min(size - left);
            for c in 0..channels {
                let mut block = [[0f32; LANES]; LANES];
                for (x, to) in (left..left + width).zip(&mut block) {
                    let (start, weights) = taps.at(x);
                    *to = weigh_lanes(&lanes[(start - first) * channels + c..], channels, weights);
                }
                let rows = out[c * plane + top * stride..].chunks_exact_mut(stride);
                for (row, values) in rows.zip(&transpose(simd, block)[..count]) {
                    row[left..left + LANES].copy_from_slice(values);
                }
            }
        }
    }
}

/// The weighted sum of every `step`-th column of lanes.
#[inline(always)]
fn weigh_lanes(lanes: &[Lane], step: usize, weights: &[f32]) -> [f32; LANES] {
    let mut sum = [0f32; LANES];
    for (lane, w) in lanes.iter().step_by(step).zip(weights) {
        for i in 0..LANES {
            sum[i] = f32::from(lane[i]).mul_add(*w, sum[i]);
        }
    }
    sum
}

/// Value `j` of row `i` becomes value `i` of row `j`.
#[inline(always)]
fn transpose<S: infomax_simd::bytes::Simd>(simd: S, block: [[f32; LANES]; LANES]) -> [[f32; LANES]; LANES] {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = infomax_simd::bytes::v3(simd) {
        return x86::transpose_floats(simd, &block);
    }
    let _ = simd;
    let mut out = [[0.0; LANES]; LANES];
    for (i, row) in block.iter().enumerate() {
        for (j, v) in row.iter().enumerate() {
            out[j][i] = *v;
        }
    }
    out
}

/// The weighted sum of rows of `stride` numbers, one below the other.
#[inline(always)]
fn weigh_rows(rows: &[f32], stride: usize, weights: &[f32], out: &mut [u8]) {
    for (i, out) in out.chunks_mut(BLOCK).enumerate() {
        let mut sum = [0f32; BLOCK];
        let blocks = rows.chunks_exact(stride).filter_map(|row| row[i * BLOCK..].first_chunk::<BLOCK>());
        for (block, w) in blocks.zip(weights) {
            for k in 0..BLOCK {
                sum[k] = block[k].mul_add(*w, sum[k]);
            }
        }
        match out.first_chunk_mut::<BLOCK>() {
            Some(out) => out.iter_mut().zip(sum).for_each(|(out, v)| *out = nearest(v)),
            None => out.iter_mut().zip(sum).for_each(|(out, v)| *out = nearest(v)),
        }
    }
}

/// The nearest byte, half to even: adding 2^23 rounds to an integer, which then stands in the lowest bits.
#[inline(always)]
fn nearest(x: f32) -> u8 {
    (x.clamp(0.0, 255.0) + 8_388_608.0).to_bits() as u8
}
