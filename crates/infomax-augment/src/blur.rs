//! Gaussian blur with reflected borders.
//!
//! `w_k = exp(-k^2 / (2 sigma^2)) / sum`, one axis after the other, rounded to the nearest integer:
//! torchvision's `gaussian_blur` to one gray level. Without a given kernel width the weights end at four
//! standard deviations; what is cut off sums to less than 0.0001.
//!
//! Weights have 16 bits after the binary point and values 7, so that a vector holds as many as possible.
//! The products of one pass are cut off by less than `n / 2^7` gray levels for `n` weights, half of which
//! is added back: at the largest standard deviation, 16 pixels, a pass is off by at most 0.26 levels.

#[cfg(target_arch = "x86_64")]
use crate::x86;
use infomax_simd::bytes::v3;

/// Buffers of the blur.
#[derive(Debug, Default)]
pub(crate) struct Blurrer {
    /// The weights of the center and of the pixels at distance 1, 2 and so on.
    weights: Vec<Weight>,
    /// The plane with `radius` reflected rows above and below: blocks of columns, one below the other.
    source: Vec<Block>,
    /// Some rows after the vertical pass, each with `radius` reflected values at both sides.
    rows: Vec<u16>,
    /// The columns that the reflected values at both sides come from, for a radius beyond the width.
    mirror: Vec<(usize, usize)>,
}

/// Pixels that are summed at once, in registers.
const BLOCK: usize = 32;
/// Rows that go through both passes together, so that they stay in the cache.
const STRIP: usize = 16;
/// Bits after the binary point of a value.
const BITS: u32 = 7;

/// Values with `BITS` bits after the binary point.
type Block = [u16; BLOCK];
/// A weight in all lanes of a vector.
type Weight = [u16; 16];

impl Blurrer {
    /// Blurs each of the planes of `width x height`.
    #[inline(always)]
    pub(crate) fn run<S: infomax_simd::bytes::Simd>(
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
        self.mirror.clear();
        self.mirror.extend(
            (1..=radius).map(|k| (reflect(-(k as isize), width), reflect((width - 1 + k) as isize, width))),
        );
        infomax_simd::bytes::alone(simd, Blur { blurrer: self, planes, width, height });
    }

    /// The weights of the center and of the pixels at distance 1, 2 and so on.
    pub(crate) fn weights(sigma: f64, kernel: Option<usize>) -> Vec<u16> {
        let mut blurrer = Self::default();
        blurrer.set_weights(sigma, kernel);
        blurrer.weights.iter().map(|weight| weight[0]).collect()
    }

    fn set_weights(&mut self, sigma: f64, kernel: Option<usize>) {
        let reach = (4.0 * sigma).ceil() as usize;
        let radius = kernel.map_or(reach, |k| (k / 2).min(reach.max(1)));
        let weight = |k: usize| (-0.5 * (k as f64 / sigma).powi(2)).exp();
        let sum = 1.0 + 2.0 * (1..=radius).map(weight).sum::<f64>();
        self.weights.clear();
        self.weights
            .extend((0..=radius).map(|k| [(weight(k) / sum * 65536.0).round().min(65535.0) as u16; 16]));
        // The center takes what rounding left over, so that the weights sum to one.
        let sides: u32 = self.weights[1..].iter().map(|w| 2 * u32::from(w[0])).sum();
        self.weights[0] = [(65536 - sides.min(65536)).min(65535) as u16; 16];
    }
}

/// The blur with given weights, as an operation by itself.
struct Blur<'a> {
    blurrer: &'a mut Blurrer,
    planes: &'a mut [u8],
    width: usize,
    height: usize,
}

impl infomax_simd::bytes::WithSimd for Blur<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: infomax_simd::bytes::Simd>(self, simd: S) {
        match self.blurrer.weights.len() - 1 {
            1 => self.run::<1, S>(simd),
            2 => self.run::<2, S>(simd),
            3 => self.run::<3, S>(simd),
            4 => self.run::<4, S>(simd),
            5 => self.run::<5, S>(simd),
            6 => self.run::<6, S>(simd),
            7 => self.run::<7, S>(simd),
            8 => self.run::<8, S>(simd),
            _ => self.run::<0, S>(simd),
        }
    }
}

impl Blur<'_> {
    /// With a radius of `R`, or with `R = 0` any; known radii have loops without a test.
    #[inline(always)]
    fn run<const R: usize, S: infomax_simd::bytes::Simd>(self, simd: S) {
        let Self { blurrer: Blurrer { weights, source, rows, mirror }, planes, width, height } = self;
        let radius = if R == 0 { weights.len() - 1 } else { R };
        let weights = &weights[..radius + 1];
        let columns = width.div_ceil(BLOCK);
        let column = height + 2 * radius;
        let row_len = columns * BLOCK + 2 * radius;
        source.resize(columns * column, [0; BLOCK]);
        rows.resize(STRIP * row_len, 0);
        for plane in planes.chunks_exact_mut(width * height) {
            for y in 0..column {
                let from = reflect(y as isize - radius as isize, height) * width;
                for (x, values) in plane[from..from + width].chunks(BLOCK).enumerate() {
                    let to = &mut source[x * column + y];
                    match values.first_chunk::<BLOCK>() {
                        Some(values) => *to = raise(simd, values),
                        None => to.iter_mut().zip(values).for_each(|(to, v)| *to = u16::from(*v) << BITS),
                    }
                }
            }
            for (strip, out) in plane.chunks_mut(width * STRIP).enumerate() {
                let count = out.len() / width;
                for (x, column) in source.chunks_exact(column).enumerate() {
                    let lines = column[strip * STRIP..].windows(2 * radius + 1);
                    for (lines, row) in lines.zip(rows.chunks_exact_mut(row_len)).take(count) {
                        if let Some(to) = row[radius + x * BLOCK..].first_chunk_mut() {
                            *to = vertical(simd, lines, radius, weights);
                        }
                    }
                }
                for (out, row) in out.chunks_exact_mut(width).zip(rows.chunks_exact_mut(row_len)) {
                    if radius < width {
                        let (left, rest) = row.split_at_mut(radius);
                        left.iter_mut().rev().zip(&rest[1..]).for_each(|(to, v)| *to = *v);
                        let (body, right) = row.split_at_mut(radius + width);
                        let back = body.iter().rev().skip(1);
                        right.iter_mut().take(radius).zip(back).for_each(|(to, v)| *to = *v);
                    } else {
                        for (k, (left, right)) in mirror.iter().enumerate() {
                            row[radius - 1 - k] = row[radius + left];
                            row[radius + width + k] = row[radius + right];
                        }
                    }
                    for (x, out) in out.chunks_mut(BLOCK).enumerate() {
                        let span = &row[x * BLOCK..][..BLOCK + 2 * radius];
                        let values = horizontal(simd, span, radius, weights);
                        match out.first_chunk_mut::<BLOCK>() {
                            Some(out) => *out = values,
                            None => out.copy_from_slice(&values[..out.len()]),
                        }
                    }
                }
            }
        }
    }
}

/// Bytes with `BITS` bits behind the binary point.
#[inline(always)]
fn raise<S: infomax_simd::bytes::Simd>(simd: S, values: &[u8; BLOCK]) -> Block {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = v3(simd) {
        return x86::blur_raise(simd, values);
    }
    let _ = simd;
    let mut out = [0; BLOCK];
    for (to, v) in out.iter_mut().zip(values) {
        *to = u16::from(*v) << BITS;
    }
    out
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

/// The weighted sum of blocks, of which the middle one is the center.
#[inline(always)]
fn vertical<S: infomax_simd::bytes::Simd>(
    simd: S,
    lines: &[Block],
    radius: usize,
    weights: &[Weight],
) -> Block {
    let start = bias(weights);
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = v3(simd) {
        return x86::blur_vertical(simd, lines, radius, weights, start);
    }
    let _ = simd;
    let mut sum = [start; BLOCK];
    for (k, [w, ..]) in weights.iter().enumerate() {
        let w = *w;
        let (above, below) = (&lines[radius - k], &lines[radius + k]);
        for i in 0..BLOCK {
            sum[i] += times(if k == 0 { above[i] } else { above[i] + below[i] }, w);
        }
    }
    sum
}

/// The weighted sum of `BLOCK` values with `radius` more at both sides, rounded.
#[inline(always)]
fn horizontal<S: infomax_simd::bytes::Simd>(
    simd: S,
    span: &[u16],
    radius: usize,
    weights: &[Weight],
) -> [u8; BLOCK] {
    let start = bias(weights);
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = v3(simd) {
        return x86::blur_horizontal(simd, span, radius, weights, start);
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
