//! Crop and resize in one pass over the pixels of the crop, with Pillow's fixed-point arithmetic.
//!
//! A filter of radius `r` is stretched by `max(1, in / out)`; the output pixel `x` is the sum of the
//! input pixels within reach of `(x + 0.5) in / out`, with weights that are normalised to 1 and rounded
//! to 22 bits. Rows first, rounded to 8 bits, then columns, as in Pillow, so the result is the same.

use crate::{CropBox, Filter};

/// Bits after the binary point of the weights (Pillow's `PRECISION_BITS`).
const BITS: u32 = 32 - 8 - 2;
/// Rows that are resized together: one lane of a vector each.
const LANES: usize = 16;

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
    fn set(&mut self, filter: Filter, input: usize, output: usize) {
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
        self.weights.resize(self.stride * output, 0);
        for x in 0..output {
            let centre = (x as f64 + 0.5) * scale;
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
    lanes: Vec<u8>,
    rows: Vec<u8>,
}

/// The pixels of an image.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) width: usize,
    pub(crate) channels: usize,
}

impl Resampler {
    /// Resizes the crop of `source` (interleaved) to `width x height` pixels in `out` (planes).
    #[inline(always)]
    pub(crate) fn run(
        &mut self,
        source: Source<'_>,
        crop: CropBox,
        filter: Filter,
        (width, height): (usize, usize),
        out: &mut [u8],
    ) {
        let channels = source.channels;
        if crop.width == width && crop.height == height {
            return split_planes(source, crop, out);
        }
        if crop.height == height {
            return self.horizontal(source, crop, filter, width, Target { out, height });
        }
        let mut rows = std::mem::take(&mut self.rows);
        rows.resize(channels * crop.height * width, 0);
        if crop.width == width {
            split_planes(source, crop, &mut rows);
        } else {
            self.horizontal(source, crop, filter, width, Target { out: &mut rows, height: crop.height });
        }
        self.y.set(filter, crop.height, height);
        for c in 0..channels {
            let plane = &rows[c * crop.height * width..][..crop.height * width];
            for y in 0..height {
                let (first, weights) = self.y.at(y);
                let row = &mut out[(c * height + y) * width..][..width];
                sum_rows(&plane[first * width..], weights, row);
            }
        }
        self.rows = rows;
    }

    /// Resizes the rows of the crop to `width` pixels.
    #[inline(always)]
    fn horizontal(
        &mut self,
        source: Source<'_>,
        crop: CropBox,
        filter: Filter,
        width: usize,
        target: Target<'_>,
    ) {
        let Target { out, height } = target;
        let channels = source.channels;
        self.x.set(filter, crop.width, width);
        let row_len = crop.width * channels;
        self.lanes.resize(row_len * LANES, 0);
        let mut top = 0;
        while top < height {
            let count = LANES.min(height - top);
            // Turn up to 16 rows into columns of lanes, so that one weight meets 16 pixels at once.
            let row = |r: usize| {
                let start = ((crop.y + top + r.min(count - 1)) * source.width + crop.x) * channels;
                &source.data[start..start + row_len]
            };
            interleave(row, &mut self.lanes, row_len);
            for c in 0..channels {
                let plane = &mut out[c * height * width..][..height * width];
                let mut x = 0;
                while x < width {
                    let n = 8.min(width - x);
                    let mut tile = [[0u8; LANES]; 8];
                    for (i, values) in tile.iter_mut().enumerate().take(n) {
                        let (first, weights) = self.x.at(x + i);
                        let mut sum = [1i32 << (BITS - 1); LANES];
                        let columns = self.lanes[(first * channels + c) * LANES..].chunks(channels * LANES);
                        for (column, w) in columns.zip(weights) {
                            for (s, v) in sum.iter_mut().zip(&column[..LANES]) {
                                *s += i32::from(*v) * w;
                            }
                        }
                        *values = sum.map(clip);
                    }
                    for half in (0..count).step_by(8) {
                        let block = transpose(std::array::from_fn(|i| word(&tile[i][half..half + 8])));
                        for (r, word) in block.iter().enumerate().take(count - half) {
                            let line = &mut plane[(top + half + r) * width + x..][..n];
                            line.copy_from_slice(&word.to_le_bytes()[..n]);
                        }
                    }
                    x += n;
                }
            }
            top += count;
        }
    }
}

/// Writes 16 rows as columns: value `j` of row `r` goes to `lanes[16 j + r]`.
#[inline(always)]
fn interleave<'a>(row: impl Fn(usize) -> &'a [u8], lanes: &mut [u8], row_len: usize) {
    for half in [0, 8] {
        let rows: [&[u8]; 8] = std::array::from_fn(|r| row(half + r));
        let whole = row_len / 8 * 8;
        for j in (0..whole).step_by(8) {
            let block = transpose(std::array::from_fn(|r| word(&rows[r][j..j + 8])));
            for (i, word) in block.iter().enumerate() {
                lanes[(j + i) * LANES + half..][..8].copy_from_slice(&word.to_le_bytes());
            }
        }
        for j in whole..row_len {
            for (r, row) in rows.iter().enumerate() {
                lanes[j * LANES + half + r] = row[j];
            }
        }
    }
}

#[inline(always)]
fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte))
}

/// Transposes a matrix of 8 x 8 bytes: byte `i` of word `r` becomes byte `r` of word `i`. Blocks of 4, 2
/// and 1 bytes change places in turn.
#[inline(always)]
fn transpose(mut words: [u64; 8]) -> [u64; 8] {
    for (step, mask) in
        [(4, 0x0000_0000_ffff_ffff), (2, 0x0000_ffff_0000_ffff), (1, 0x00ff_00ff_00ff_00ff_u64)]
    {
        let bits = 8 * step;
        for i in 0..8 {
            if i & step == 0 {
                let (a, b) = (words[i], words[i + step]);
                words[i] = (a & mask) | ((b & mask) << bits);
                words[i + step] = ((a >> bits) & mask) | (b & !mask);
            }
        }
    }
    words
}

struct Target<'a> {
    out: &'a mut [u8],
    height: usize,
}

/// The weighted sum of rows that lie one after the other.
#[inline(always)]
fn sum_rows(rows: &[u8], weights: &[i32], out: &mut [u8]) {
    const BLOCK: usize = 32;
    let width = out.len();
    if width < BLOCK {
        for (x, out) in out.iter_mut().enumerate() {
            let terms = weights.iter().enumerate().map(|(k, w)| i32::from(rows[k * width + x]) * w);
            *out = clip(terms.sum::<i32>() + (1 << (BITS - 1)));
        }
        return;
    }
    // The last block overlaps the one before it, so that all have the same length.
    for start in (0..width).step_by(BLOCK).map(|start| start.min(width - BLOCK)) {
        let mut sum = [1i32 << (BITS - 1); BLOCK];
        for (k, w) in weights.iter().enumerate() {
            let row = &rows[k * width + start..][..BLOCK];
            for (s, v) in sum.iter_mut().zip(row) {
                *s += i32::from(*v) * w;
            }
        }
        for (o, s) in out[start..start + BLOCK].iter_mut().zip(sum) {
            *o = clip(s);
        }
    }
}

#[inline(always)]
fn clip(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// Copies the crop of an interleaved image into planes.
#[inline(always)]
fn split_planes(source: Source<'_>, crop: CropBox, out: &mut [u8]) {
    let channels = source.channels;
    let plane = crop.width * crop.height;
    for y in 0..crop.height {
        let start = ((crop.y + y) * source.width + crop.x) * channels;
        let row = &source.data[start..start + crop.width * channels];
        for c in 0..channels {
            let line = &mut out[c * plane + y * crop.width..][..crop.width];
            for (o, px) in line.iter_mut().zip(row.chunks_exact(channels)) {
                *o = px[c];
            }
        }
    }
}
