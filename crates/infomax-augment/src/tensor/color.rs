//! Brightness, contrast, saturation and grayscale as torchvision computes them on tensors.

use super::product_plus;
use crate::color::{split, truncate};

/// Clamped and cut off.
#[inline(always)]
fn to_byte(x: f32) -> u8 {
    truncate(x.clamp(0.0, 255.0))
}

/// The weights of `other` in `factor v + (1 - factor) other`; the difference is computed in double precision.
#[inline(always)]
fn rest(factor: f32) -> f32 {
    (1.0 - f64::from(factor)) as f32
}

/// `factor v`.
#[inline(always)]
pub(crate) fn brightness(planes: &mut [u8], factor: f32) {
    for v in planes {
        *v = to_byte(factor * f32::from(*v));
    }
}

/// `0.2989 r + 0.587 g + 0.114 b`.
#[inline(always)]
fn luma<const FUSED: bool>(r: u8, g: u8, b: u8) -> f32 {
    let (r, g, b) = (f32::from(r), f32::from(g), f32::from(b));
    if FUSED { b.mul_add(0.114, g.mul_add(0.587, 0.2989 * r)) } else { (0.2989 * r + 0.587 * g) + 0.114 * b }
}

/// The luma, cut off, in all three planes.
#[inline(always)]
pub(crate) fn grayscale<const FUSED: bool>(planes: &mut [u8], plane: usize) {
    let [r, g, b] = split(planes, plane);
    for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
        let l = truncate(luma::<FUSED>(*r, *g, *b));
        (*r, *g, *b) = (l, l, l);
    }
}

/// `factor v + (1 - factor) m` with the mean `m` of the luma, cut off pixel by pixel; of gray images and of
/// bands, the mean value. The sum is exact; torchvision's, in single precision, is so below 2^24 (256 x 256).
#[inline(always)]
pub(crate) fn contrast<const FUSED: bool>(planes: &mut [u8], plane: usize, factor: f32) {
    let (sum, count) = if planes.len() == 3 * plane {
        let [r, g, b] = split(planes, plane);
        let mut total = 0u64;
        // Blocks that cannot overflow 32 bits keep the inner loop in vectors.
        for ((r, g), b) in r.chunks(4096).zip(g.chunks(4096)).zip(b.chunks(4096)) {
            let lumas = r.iter().zip(g).zip(b).map(|((r, g), b)| truncate(luma::<FUSED>(*r, *g, *b)));
            total += u64::from(lumas.map(u32::from).sum::<u32>());
        }
        (total, plane)
    } else {
        (planes.iter().map(|v| u64::from(*v)).sum(), planes.len())
    };
    let mean = sum as f32 / count as f32;
    let other = rest(factor);
    let level = other * mean;
    for v in planes {
        let scaled = factor * f32::from(*v);
        *v = to_byte(if FUSED { mean.mul_add(other, scaled) } else { scaled + level });
    }
}

/// `factor v + (1 - factor) l` with the luma `l` of the pixel, cut off.
#[inline(always)]
pub(crate) fn saturation<const FUSED: bool>(planes: &mut [u8], plane: usize, factor: f32) {
    let [r, g, b] = split(planes, plane);
    let other = rest(factor);
    for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
        let l = luma::<FUSED>(*r, *g, *b).floor();
        for v in [r, g, b] {
            *v = to_byte(product_plus::<FUSED>(l, other, factor * f32::from(*v)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every color against torchvision's formulas, written as it computes them, one rounding after the other.
    #[test]
    fn every_color_equals_the_reference() {
        let side = 1 << 16;
        let fused = |a: f32, b: f32, c: f32| (f64::from(a) * f64::from(b) + f64::from(c)) as f32;
        for r in 0..=255u8 {
            let factor = f32::from(r) / 127.0;
            let other = (1.0 - f64::from(factor)) as f32;
            let colors: Vec<u8> = (0..3 * side).map(|i| [r, (i >> 8) as u8, i as u8][i / side]).collect();
            let mut gray = [colors.clone(), colors.clone()];
            grayscale::<false>(&mut gray[0], side);
            grayscale::<true>(&mut gray[1], side);
            let mut vivid = [colors.clone(), colors.clone()];
            saturation::<false>(&mut vivid[0], side, factor);
            saturation::<true>(&mut vivid[1], side, factor);
            for i in 0..side {
                let rgb = [0, 1, 2].map(|c| f32::from(colors[c * side + i]));
                let products = [0.2989f32 * rgb[0], 0.587 * rgb[1], 0.114 * rgb[2]];
                let luma = [
                    ((products[0] + products[1]) + products[2]).trunc(),
                    fused(rgb[2], 0.114, fused(rgb[1], 0.587, products[0])).trunc(),
                ];
                for (k, luma) in luma.into_iter().enumerate() {
                    for c in 0..3 {
                        let scaled = factor * rgb[c];
                        let mixed = if k == 0 { scaled + other * luma } else { fused(luma, other, scaled) };
                        let at = c * side + i;
                        assert_eq!(f32::from(gray[k][at]), luma, "{rgb:?} {k}");
                        assert_eq!(vivid[k][at], mixed.clamp(0.0, 255.0) as u8, "{rgb:?} {k} {factor}");
                    }
                }
            }
        }
    }
}
