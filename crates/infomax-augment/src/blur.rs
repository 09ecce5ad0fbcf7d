//! Gaussian blur with reflected borders.
//!
//! `w_k = exp(-k^2 / (2 sigma^2)) / sum`, one axis after the other, rounded to the nearest integer:
//! torchvision's `gaussian_blur` to one grey level. Without a given kernel width the weights end at four
//! standard deviations; what is cut off sums to less than 0.0001.
//!
//! Weights have 16 bits after the binary point and values 7, so that a vector holds as many as possible.
//! The products of one pass are cut off by less than `n / 2^7` grey levels for `n` weights, half of which
//! is added back: at the largest standard deviation, 16 pixels, a pass is off by at most 0.26 levels.

/// Buffers of the blur.
#[derive(Debug, Default)]
pub(crate) struct Blurrer {
    weights: Vec<u16>,
    /// One row after the vertical pass, with `radius` reflected values at each side.
    row: Vec<u16>,
    source: Vec<u8>,
}

impl Blurrer {
    /// Blurs each of the planes of `width x height`.
    #[inline(always)]
    pub(crate) fn run(
        &mut self,
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
        self.row.resize(width + 2 * radius, 0);
        for plane in planes.chunks_exact_mut(width * height) {
            self.source.clear();
            self.source.extend_from_slice(plane);
            for (y, out) in plane.chunks_exact_mut(width).enumerate() {
                vertical(
                    &self.source,
                    (width, height),
                    y,
                    &self.weights,
                    &mut self.row[radius..radius + width],
                );
                for k in 1..=radius {
                    self.row[radius - k] = self.row[radius + reflect(-(k as isize), width)];
                    self.row[radius + width - 1 + k] =
                        self.row[radius + reflect((width - 1 + k) as isize, width)];
                }
                horizontal(&self.row, &self.weights, out);
            }
        }
    }

    fn set_weights(&mut self, sigma: f64, kernel: Option<usize>) {
        let reach = (4.0 * sigma).ceil() as usize;
        let radius = kernel.map_or(reach, |k| (k / 2).min(reach.max(1)));
        let weight = |k: usize| (-0.5 * (k as f64 / sigma).powi(2)).exp();
        let sum = 1.0 + 2.0 * (1..=radius).map(weight).sum::<f64>();
        self.weights.clear();
        self.weights.extend((0..=radius).map(|k| (weight(k) / sum * 65536.0).round().min(65535.0) as u16));
        // The centre takes what rounding left over, so that the weights sum to one.
        let sides: u32 = self.weights[1..].iter().map(|w| 2 * u32::from(*w)).sum();
        self.weights[0] = (65536 - sides.min(65536)).min(65535) as u16;
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

/// Pixels that are summed at once, in registers.
const BLOCK: usize = 32;
/// Bits after the binary point of the values between the passes, which leaves room for the sum of two.
const BITS: u32 = 7;

/// `sum / 2^16 * weight`, the upper half of a 16-bit product.
#[inline(always)]
fn times(sum: u16, weight: u16) -> u16 {
    ((u32::from(sum) * u32::from(weight)) >> 16) as u16
}

/// The starts of blocks that cover `0..width`; the last one overlaps the one before it.
#[inline(always)]
fn blocks(width: usize) -> impl Iterator<Item = usize> {
    (0..width).step_by(BLOCK).map(move |start| start.min(width - BLOCK))
}

#[inline(always)]
fn vertical(source: &[u8], (width, height): (usize, usize), y: usize, weights: &[u16], out: &mut [u16]) {
    let row = |i: isize| &source[reflect(i, height) * width..][..width];
    let centre = row(y as isize);
    let pair = |k: usize| (row(y as isize - k as isize), row(y as isize + k as isize));
    let start_value = bias(weights);
    if width < BLOCK {
        for (out, v) in out.iter_mut().zip(centre) {
            *out = start_value + times(u16::from(*v) << BITS, weights[0]);
        }
        for (k, w) in weights.iter().enumerate().skip(1) {
            let (above, below) = pair(k);
            for ((s, a), b) in out.iter_mut().zip(above).zip(below) {
                *s += times((u16::from(*a) + u16::from(*b)) << BITS, *w);
            }
        }
        return;
    }
    for start in blocks(width) {
        let mut sum = [start_value; BLOCK];
        for (s, v) in sum.iter_mut().zip(&centre[start..start + BLOCK]) {
            *s += times(u16::from(*v) << BITS, weights[0]);
        }
        for (k, w) in weights.iter().enumerate().skip(1) {
            let (above, below) = pair(k);
            for ((s, a), b) in
                sum.iter_mut().zip(&above[start..start + BLOCK]).zip(&below[start..start + BLOCK])
            {
                *s += times((u16::from(*a) + u16::from(*b)) << BITS, *w);
            }
        }
        out[start..start + BLOCK].copy_from_slice(&sum);
    }
}

#[inline(always)]
fn horizontal(row: &[u16], weights: &[u16], out: &mut [u8]) {
    let radius = weights.len() - 1;
    let start_value = bias(weights);
    if out.len() < BLOCK {
        for (x, out) in out.iter_mut().enumerate() {
            let mut sum = start_value + times(row[x + radius], weights[0]);
            for (k, w) in weights.iter().enumerate().skip(1) {
                sum += times(row[x + radius - k] + row[x + radius + k], *w);
            }
            *out = nearest(sum);
        }
        return;
    }
    for start in blocks(out.len()) {
        let at = start + radius;
        let mut sum = [start_value; BLOCK];
        for (s, v) in sum.iter_mut().zip(&row[at..at + BLOCK]) {
            *s += times(*v, weights[0]);
        }
        for (k, w) in weights.iter().enumerate().skip(1) {
            let (left, right) = (&row[at - k..at - k + BLOCK], &row[at + k..at + k + BLOCK]);
            for ((s, a), b) in sum.iter_mut().zip(left).zip(right) {
                *s += times(a + b, *w);
            }
        }
        for (o, s) in out[start..start + BLOCK].iter_mut().zip(sum) {
            *o = nearest(s);
        }
    }
}

/// Every product is cut off, by half a unit on average: this much is added to make up for it.
#[inline(always)]
fn bias(weights: &[u16]) -> u16 {
    weights.len() as u16 / 2
}

#[inline(always)]
fn nearest(x: u16) -> u8 {
    ((x + (1 << (BITS - 1))) >> BITS).min(255) as u8
}
