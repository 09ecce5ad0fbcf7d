//! Gaussian blur with reflected borders.
//!
//! `w_k = exp(-k^2 / (2 sigma^2)) / sum`, one axis after the other in `f32`, rounded to the nearest
//! integer, halves to even: torchvision's `gaussian_blur` up to the order of the sums. Without a given
//! kernel width the weights end at four standard deviations, where they sum to less than 0.0001.

/// Buffers of the blur.
#[derive(Debug, Default)]
pub(crate) struct Blurrer {
    weights: Vec<f32>,
    /// One row after the vertical pass, with `radius` reflected values at each side.
    row: Vec<f32>,
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
        self.row.resize(width + 2 * radius, 0.0);
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
        self.weights.clear();
        self.weights.extend((0..=radius).map(|k| (-0.5 * (k as f64 / sigma).powi(2)).exp() as f32));
        let sum = self.weights[0] + 2.0 * self.weights[1..].iter().sum::<f32>();
        self.weights.iter_mut().for_each(|w| *w /= sum);
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

/// The starts of blocks that cover `0..width`; the last one overlaps the one before it.
#[inline(always)]
fn blocks(width: usize) -> impl Iterator<Item = usize> {
    (0..width).step_by(BLOCK).map(move |start| start.min(width - BLOCK))
}

#[inline(always)]
fn vertical(source: &[u8], (width, height): (usize, usize), y: usize, weights: &[f32], out: &mut [f32]) {
    let row = |i: isize| &source[reflect(i, height) * width..][..width];
    let centre = row(y as isize);
    let pair = |k: usize| (row(y as isize - k as isize), row(y as isize + k as isize));
    if width < BLOCK {
        for (x, out) in out.iter_mut().enumerate() {
            *out = weights[0] * f32::from(centre[x]);
        }
        for (k, w) in weights.iter().enumerate().skip(1) {
            let (above, below) = pair(k);
            for ((s, a), b) in out.iter_mut().zip(above).zip(below) {
                *s += w * f32::from(u16::from(*a) + u16::from(*b));
            }
        }
        return;
    }
    for start in blocks(width) {
        let mut sum = [0f32; BLOCK];
        for (s, v) in sum.iter_mut().zip(&centre[start..start + BLOCK]) {
            *s = weights[0] * f32::from(*v);
        }
        for (k, w) in weights.iter().enumerate().skip(1) {
            let (above, below) = pair(k);
            for ((s, a), b) in
                sum.iter_mut().zip(&above[start..start + BLOCK]).zip(&below[start..start + BLOCK])
            {
                *s += w * f32::from(u16::from(*a) + u16::from(*b));
            }
        }
        out[start..start + BLOCK].copy_from_slice(&sum);
    }
}

#[inline(always)]
fn horizontal(row: &[f32], weights: &[f32], out: &mut [u8]) {
    let radius = weights.len() - 1;
    if out.len() < BLOCK {
        for (x, out) in out.iter_mut().enumerate() {
            let mut sum = weights[0] * row[x + radius];
            for (k, w) in weights.iter().enumerate().skip(1) {
                sum += w * (row[x + radius - k] + row[x + radius + k]);
            }
            *out = nearest(sum);
        }
        return;
    }
    for start in blocks(out.len()) {
        let at = start + radius;
        let mut sum = [0f32; BLOCK];
        for (s, v) in sum.iter_mut().zip(&row[at..at + BLOCK]) {
            *s = weights[0] * v;
        }
        for (k, w) in weights.iter().enumerate().skip(1) {
            let (left, right) = (&row[at - k..at - k + BLOCK], &row[at + k..at + k + BLOCK]);
            for ((s, a), b) in sum.iter_mut().zip(left).zip(right) {
                *s += w * (a + b);
            }
        }
        for (o, s) in out[start..start + BLOCK].iter_mut().zip(sum) {
            *o = nearest(s);
        }
    }
}

/// Rounds halves to even: adding 2^23 leaves the nearest integer in the lowest bits.
#[inline(always)]
fn nearest(x: f32) -> u8 {
    (x.clamp(0.0, 255.0) + 8_388_608.0).to_bits() as u8
}
