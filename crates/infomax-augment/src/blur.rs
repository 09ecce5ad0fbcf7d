//! Gaussian blur with reflected borders.
//!
//! `w_k = exp(-k^2 / (2 sigma^2)) / sum`, one axis after the other, rounded to the nearest integer:
//! torchvision's `gaussian_blur` to one grey level. Without a given kernel width the weights end at four
//! standard deviations; what is cut off sums to less than 0.0001.
//!
//! Weights have 16 bits after the binary point and values 7, so that a vector holds as many as possible.
//! The products of one pass are cut off by less than `n / 2^7` grey levels for `n` weights, half of which
//! is added back: at the largest standard deviation, 16 pixels, a pass is off by at most 0.26 levels.

#[cfg(target_arch = "x86_64")]
use crate::{simd::v3, x86};

/// Buffers of the blur.
#[derive(Debug, Default)]
pub(crate) struct Blurrer {
    /// The weights of the centre and of the pixels at distance 1, 2 and so on.
    weights: Vec<Weight>,
    /// The plane with `radius` reflected rows above and below; rows are filled up to whole blocks.
    source: Vec<Block>,
    /// One row after the vertical pass, with `radius` reflected values at each side.
    row: Vec<u16>,
    /// The columns that the reflected values at both sides come from.
    mirror: Vec<(usize, usize)>,
}

/// Pixels that are summed at once, in registers.
const BLOCK: usize = 32;
/// Bits after the binary point of a value.
const BITS: u32 = 7;

/// Values with `BITS` bits after the binary point.
type Block = [u16; BLOCK];
/// A weight in all lanes of a vector.
type Weight = [u16; 16];

impl Blurrer {
    /// Blurs each of the planes of `width x height`.
    #[inline(always)]
    pub(crate) fn run<S: pulp::Simd>(
        &mut self,
        simd: S,
        planes: &mut [u8],
        (width, height): (usize, usize),
        sigma: f64,
        kernel: Option<usize>,
    ) {
        self.set_weights(sigma, kernel);
        let radius = self.weights.len() - 1;
        if radius == 0 {
            return;
        }
        let stride = width.div_ceil(BLOCK);
        self.mirror.clear();
        self.mirror.extend(
            (1..=radius).map(|k| (reflect(-(k as isize), width), reflect((width - 1 + k) as isize, width))),
        );
        self.source.resize(stride * (height + 2 * radius), [0; BLOCK]);
        self.row.resize(stride * BLOCK + 2 * radius, 0);
        let Self { weights, source, row, mirror } = self;
        for plane in planes.chunks_exact_mut(width * height) {
            for (y, line) in source.chunks_exact_mut(stride).enumerate() {
                let from = reflect(y as isize - radius as isize, height) * width;
                let line = line.as_flattened_mut();
                for (to, v) in line.iter_mut().zip(&plane[from..from + width]) {
                    *to = u16::from(*v) << BITS;
                }
            }
            for (y, out) in plane.chunks_exact_mut(width).enumerate() {
                let lines = &source[y * stride..(y + 2 * radius + 1) * stride];
                let middle = row[radius..].as_chunks_mut::<BLOCK>().0;
                for (x, out) in middle.iter_mut().enumerate().take(stride) {
                    *out = vertical(simd, &lines[x..], stride, weights);
                }
                for (k, (left, right)) in mirror.iter().enumerate() {
                    row[radius - 1 - k] = row[radius + left];
                    row[radius + width + k] = row[radius + right];
                }
                for (x, out) in out.chunks_mut(BLOCK).enumerate() {
                    let values = horizontal(simd, row, x * BLOCK, weights);
                    match out.first_chunk_mut::<BLOCK>() {
                        Some(out) => *out = values,
                        None => out.copy_from_slice(&values[..out.len()]),
                    }
                }
            }
        }
    }

    fn set_weights(&mut self, sigma: f64, kernel: Option<usize>) {
        let reach = (4.0 * sigma).ceil() as usize;
        let radius = kernel.map_or(reach, |k| (k / 2).min(reach.max(1)));
        let weight = |k: usize| (-0.5 * (k as f64 / sigma).powi(2)).exp();
        let sum = 1.0 + 2.0 * (1..=radius).map(weight).sum::<f64>();
        self.weights.clear();
        self.weights
            .extend((0..=radius).map(|k| [(weight(k) / sum * 65536.0).round().min(65535.0) as u16; 16]));
        // The centre takes what rounding left over, so that the weights sum to one.
        let sides: u32 = self.weights[1..].iter().map(|w| 2 * u32::from(w[0])).sum();
        self.weights[0] = [(65536 - sides.min(65536)).min(65535) as u16; 16];
    }
}

/// The index that a mirror at the first and the last pixel shows at `i`, for any distance.
#[inline(always)]
fn reflect(i: isize, n: usize) -> usize {
    // Nearly always inside or one reflection away; the division below is slow.
    let last = n as isize - 1;
    if (0..=last).contains(&i) {
        return i as usize;
    }
    let once = if i < 0 { -i } else { 2 * last - i };
    if (0..=last).contains(&once) {
        return once as usize;
    }
    if n == 1 {
        return 0;
    }
    let period = 2 * (n as isize - 1);
    let i = i.rem_euclid(period);
    (if i < n as isize { i } else { period - i }) as usize
}

/// `sum / 2^16 * weight`, the upper half of a 16-bit product.
#[inline(always)]
fn times(sum: u16, weight: u16) -> u16 {
    ((u32::from(sum) * u32::from(weight)) >> 16) as u16
}

/// The weighted sum of the first blocks of rows of `stride` blocks, of which the middle one is the centre.
#[inline(always)]
fn vertical<S: pulp::Simd>(simd: S, lines: &[Block], stride: usize, weights: &[Weight]) -> Block {
    let radius = weights.len() - 1;
    let start = bias(weights);
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = v3(simd) {
        return x86::blur_vertical(simd, lines, stride, weights, start);
    }
    let _ = simd;
    let mut sum = [start; BLOCK];
    for (k, [w, ..]) in weights.iter().enumerate() {
        let w = *w;
        let (above, below) = (&lines[(radius - k) * stride], &lines[(radius + k) * stride]);
        for i in 0..BLOCK {
            sum[i] += times(if k == 0 { above[i] } else { above[i] + below[i] }, w);
        }
    }
    sum
}

#[inline(always)]
fn horizontal<S: pulp::Simd>(simd: S, row: &[u16], x: usize, weights: &[Weight]) -> [u8; BLOCK] {
    let radius = weights.len() - 1;
    let span = &row[x..x + BLOCK + 2 * radius];
    let start = bias(weights);
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = v3(simd) {
        return x86::blur_horizontal(simd, span, weights, start);
    }
    let _ = simd;
    let at = |k: usize| -> &[u16] { &span[k..k + BLOCK] };
    let mut sum = [start; BLOCK];
    for (k, [w, ..]) in weights.iter().enumerate() {
        let w = *w;
        let (left, right) = (at(radius - k), at(radius + k));
        for i in 0..BLOCK {
            sum[i] += times(if k == 0 { left[i] } else { left[i] + right[i] }, w);
        }
    }
    // A plain loop: `map` and `from_fn` of arrays become calls without vector instructions.
    let mut out = [0; BLOCK];
    for i in 0..BLOCK {
        out[i] = nearest(sum[i]);
    }
    out
}

/// Every product is cut off, by half a unit on average: this much is added to make up for it.
#[inline(always)]
fn bias(weights: &[Weight]) -> u16 {
    weights.len() as u16 / 2
}

#[inline(always)]
fn nearest(x: u16) -> u8 {
    ((x + (1 << (BITS - 1))) >> BITS).min(255) as u8
}
