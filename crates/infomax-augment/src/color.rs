//! Brightness, contrast, saturation, grayscale, solarize, posterize and equalize on planes, as Pillow's `ImageEnhance` and
//! `ImageOps` compute them.

use crate::image::luma;

/// `degenerate + factor (value - degenerate)` in `f32`, clamped and truncated: Pillow's `Image.blend`.
#[inline(always)]
fn blend(degenerate: i32, value: u8, factor: f32) -> u8 {
    let mixed = degenerate as f32 + factor * (i32::from(value) - degenerate) as f32;
    truncate(mixed.clamp(0.0, 255.0))
}

/// The integer part of a value in 0..=255, without the checks of a cast: adding 2^23 puts the integer
/// into the lowest bits of the number.
#[inline(always)]
pub(crate) fn truncate(x: f32) -> u8 {
    (x.floor() + 8_388_608.0).to_bits() as u8
}

/// `factor v`.
#[inline(always)]
pub(crate) fn brightness(planes: &mut [u8], factor: f32) {
    for v in planes {
        *v = blend(0, *v, factor);
    }
}

/// `m + factor (v - m)` with the mean luma `m` of the image, rounded to an integer.
#[inline(always)]
pub(crate) fn contrast(planes: &mut [u8], plane: usize, factor: f32) {
    let sum: u64 = if planes.len() >= 3 * plane {
        let (r, rest) = planes.split_at(plane);
        let (g, b) = rest.split_at(plane);
        let mut total = 0u64;
        // Blocks that cannot overflow 32 bits keep the inner loop in vectors.
        for ((r, g), b) in r.chunks(4096).zip(g.chunks(4096)).zip(b.chunks(4096)) {
            let part: u32 = r.iter().zip(g).zip(b).map(|((r, g), b)| u32::from(luma(*r, *g, *b))).sum();
            total += u64::from(part);
        }
        total
    } else {
        planes.iter().map(|v| u64::from(*v)).sum()
    };
    let mean = (sum as f64 / plane as f64 + 0.5) as i32;
    for v in planes {
        *v = blend(mean, *v, factor);
    }
}

/// `l + factor (v - l)` with the luma `l` of the pixel.
#[inline(always)]
pub(crate) fn saturation(planes: &mut [u8], plane: usize, factor: f32) {
    let (r, rest) = planes.split_at_mut(plane);
    let (g, b) = rest.split_at_mut(plane);
    for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
        let l = i32::from(luma(*r, *g, *b));
        (*r, *g, *b) = (blend(l, *r, factor), blend(l, *g, factor), blend(l, *b, factor));
    }
}

/// The luma in all three planes.
#[inline(always)]
pub(crate) fn grayscale(planes: &mut [u8], plane: usize) {
    let (r, rest) = planes.split_at_mut(plane);
    let (g, b) = rest.split_at_mut(plane);
    for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
        let l = luma(*r, *g, *b);
        (*r, *g, *b) = (l, l, l);
    }
}

/// `255 - v` where `v >= threshold`.
#[inline(always)]
pub(crate) fn solarize(planes: &mut [u8], threshold: u8) {
    for v in planes {
        *v = if *v >= threshold { 255 - *v } else { *v };
    }
}

/// The upper `bits` of every value.
#[inline(always)]
pub(crate) fn posterize(planes: &mut [u8], bits: u8) {
    let mask = !(0xff_u32 >> bits.min(8)) as u8;
    for v in planes {
        *v &= mask;
    }
}

/// Equalizes the histogram of each plane, with the integer arithmetic of `PIL.ImageOps.equalize`.
pub(crate) fn equalize(planes: &mut [u8], plane: usize) {
    for plane in planes.chunks_exact_mut(plane) {
        let mut counts = [0usize; 256];
        for v in plane.iter() {
            counts[usize::from(*v)] += 1;
        }
        let last = counts.iter().rev().find(|n| **n > 0).copied().unwrap_or(0);
        let step = (plane.len() - last) / 255;
        if step == 0 {
            continue;
        }
        let mut total = step / 2;
        let table = counts.map(|count| {
            let level = (total / step).min(255) as u8;
            total += count;
            level
        });
        for v in plane {
            *v = table[usize::from(*v)];
        }
    }
}
