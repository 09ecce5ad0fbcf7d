//! Brightness, contrast, saturation, grayscale, solarize, posterize and equalize on planes, as Pillow's `ImageEnhance` and
//! `ImageOps` compute them.

use crate::image::luma;
#[cfg(target_arch = "x86_64")]
use crate::x86::color;
use infomax_simd::bytes::v3;

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

/// Three planes in blocks of 32 pixels, for vectors, and what is left of them.
#[cfg(target_arch = "x86_64")]
type Blocks<'a> = ([&'a mut [[u8; 32]]; 3], [&'a mut [u8]; 3]);

#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn blocks<'a>(r: &'a mut [u8], g: &'a mut [u8], b: &'a mut [u8]) -> Blocks<'a> {
    let ((r, r_rest), (g, g_rest), (b, b_rest)) = (r.as_chunks_mut(), g.as_chunks_mut(), b.as_chunks_mut());
    ([r, g, b], [r_rest, g_rest, b_rest])
}

/// The three planes of an image in color.
#[inline(always)]
pub(crate) fn split(planes: &mut [u8], plane: usize) -> [&mut [u8]; 3] {
    let (r, rest) = planes.split_at_mut(plane);
    let (g, b) = rest.split_at_mut(plane);
    [r, g, b]
}

/// `level + factor (v - level)`.
#[inline(always)]
fn blend_level<S: infomax_simd::bytes::Simd>(simd: S, planes: &mut [u8], level: i32, factor: f32) {
    #[cfg(target_arch = "x86_64")]
    let planes = if let Some(simd) = v3(simd) {
        let (blocks, rest) = planes.as_chunks_mut();
        for block in blocks {
            color::blend_level(simd, level as f32, factor, block);
        }
        rest
    } else {
        planes
    };
    let _ = simd;
    for v in planes {
        *v = blend(level, *v, factor);
    }
}

/// `factor v`.
#[inline(always)]
pub(crate) fn brightness<S: infomax_simd::bytes::Simd>(simd: S, planes: &mut [u8], factor: f32) {
    blend_level(simd, planes, 0, factor);
}

/// `m + factor (v - m)` with the mean luma `m` of the image, rounded to an integer; of gray images and of
/// bands, the mean value.
#[inline(always)]
pub(crate) fn contrast<S: infomax_simd::bytes::Simd>(simd: S, planes: &mut [u8], plane: usize, factor: f32) {
    let colors = planes.len() / plane;
    let (sum, count) = if colors == 3 {
        (sum_of_luma(simd, split(planes, plane)), plane)
    } else {
        (planes.iter().map(|v| u64::from(*v)).sum(), planes.len())
    };
    let mean = (sum as f64 / count as f64 + 0.5) as i32;
    blend_level(simd, planes, mean, factor);
}

#[inline(always)]
fn sum_of_luma<S: infomax_simd::bytes::Simd>(simd: S, [r, g, b]: [&mut [u8]; 3]) -> u64 {
    let mut total = 0;
    #[cfg(target_arch = "x86_64")]
    let [r, g, b] = if let Some(simd) = v3(simd) {
        let ([r, g, b], rest) = blocks(r, g, b);
        for ((r, g), b) in r.iter().zip(g).zip(b) {
            total += color::sum(simd, &color::gray(simd, r, g, b));
        }
        rest
    } else {
        [r, g, b]
    };
    let _ = simd;
    // Blocks that cannot overflow 32 bits keep the inner loop in vectors.
    for ((r, g), b) in r.chunks(4096).zip(g.chunks(4096)).zip(b.chunks(4096)) {
        let part: u32 = r.iter().zip(g).zip(b).map(|((r, g), b)| u32::from(luma(*r, *g, *b))).sum();
        total += u64::from(part);
    }
    total
}

/// `l + factor (v - l)` with the luma `l` of the pixel.
#[inline(always)]
pub(crate) fn saturation<S: infomax_simd::bytes::Simd>(
    simd: S,
    planes: &mut [u8],
    plane: usize,
    factor: f32,
) {
    let [r, g, b] = split(planes, plane);
    #[cfg(target_arch = "x86_64")]
    let [r, g, b] = if let Some(simd) = v3(simd) {
        let ([r, g, b], rest) = blocks(r, g, b);
        for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
            color::saturation(simd, factor, r, g, b);
        }
        rest
    } else {
        [r, g, b]
    };
    let _ = simd;
    for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
        let l = i32::from(luma(*r, *g, *b));
        (*r, *g, *b) = (blend(l, *r, factor), blend(l, *g, factor), blend(l, *b, factor));
    }
}

/// The luma in all three planes.
#[inline(always)]
pub(crate) fn grayscale<S: infomax_simd::bytes::Simd>(simd: S, planes: &mut [u8], plane: usize) {
    let [r, g, b] = split(planes, plane);
    #[cfg(target_arch = "x86_64")]
    let [r, g, b] = if let Some(simd) = v3(simd) {
        let ([r, g, b], rest) = blocks(r, g, b);
        for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
            let l = color::gray(simd, r, g, b);
            (*r, *g, *b) = (l, l, l);
        }
        rest
    } else {
        [r, g, b]
    };
    let _ = simd;
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
