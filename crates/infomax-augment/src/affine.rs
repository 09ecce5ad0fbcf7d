//! Rotation, shift, scaling and shear, with the arithmetic of Pillow's `Image.transform`; that of tensors is in
//! `tensor::affine`.
//!
//! The matrix is torchvision's: rotation, then scaling, then shear, about the center, and last the shift.
//! Each pixel of the result looks up the point that it comes from. There is no antialiasing, as in Pillow.

use crate::draw::AffineStep;
use crate::tensor::affine::{Point, warp};
use crate::{Sampling, Semantics};

/// Buffers of the transformation.
#[derive(Debug, Default)]
pub(crate) struct Warper {
    source: Vec<u8>,
    /// Where the pixels of one row come from, for the arithmetic of tensors.
    row: Vec<Point>,
}

/// `(x, y) -> (m[0] x + m[1] y + m[2], m[3] x + m[4] y + m[5])`, from the result to the source.
type Matrix = [f64; 6];

impl Warper {
    /// Transforms each of the planes of `size x size`, with the sampling and the fill of the settings.
    #[inline(always)]
    pub(crate) fn run<S: infomax_simd::bytes::Simd>(
        &mut self,
        simd: S,
        planes: &mut [u8],
        size: usize,
        step: &AffineStep,
        settings: (Sampling, u8),
        semantics: Semantics,
    ) {
        self.source.clear();
        self.source.extend_from_slice(planes);
        let Self { source, row } = self;
        infomax_simd::bytes::alone(simd, Warp { source, row, out: planes, size, step, settings, semantics });
    }
}

/// The transformation, as an operation by itself.
struct Warp<'a> {
    source: &'a [u8],
    row: &'a mut Vec<Point>,
    out: &'a mut [u8],
    size: usize,
    step: &'a AffineStep,
    settings: (Sampling, u8),
    semantics: Semantics,
}

impl infomax_simd::bytes::WithSimd for Warp<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: infomax_simd::bytes::Simd>(self, _simd: S) {
        let Self { source, row, out, size, step, settings, semantics } = self;
        match semantics {
            Semantics::Pil => {
                out.fill(settings.1);
                let matrix = inverse(step, size as f64 * 0.5);
                match settings.0 {
                    Sampling::Nearest => nearest(source, out, size, &matrix),
                    Sampling::Bilinear => bilinear(source, out, size, &matrix),
                }
            }
            Semantics::Tensor => warp::<false>(source, out, row, size, &inverse(step, 0.0), settings),
            Semantics::TensorV2 => warp::<true>(source, out, row, size, &inverse(step, 0.0), settings),
        }
    }
}

/// The inverse of shift * center * rotation * scale * shear * center^-1.
fn inverse(step: &AffineStep, center: f64) -> Matrix {
    let (rotation, shear) = (step.degrees.to_radians(), step.shear.to_radians());
    let (tx, ty) = (f64::from(step.translate.0), f64::from(step.translate.1));
    let (a, c) = (rotation.cos(), rotation.sin());
    let b = -rotation.cos() * shear.tan() - rotation.sin();
    let d = -rotation.sin() * shear.tan() + rotation.cos();
    let mut m = [d, -b, 0.0, -c, a, 0.0].map(|x| x / step.scale);
    m[2] += m[0] * (-center - tx) + m[1] * (-center - ty);
    m[5] += m[3] * (-center - tx) + m[4] * (-center - ty);
    m[2] += center;
    m[5] += center;
    m
}

/// Pillow steps through the source in 16.16 fixed point where that has the range, else in `f64`.
#[inline(always)]
fn nearest(source: &[u8], out: &mut [u8], size: usize, m: &Matrix) {
    let plane = size * size;
    let side = size as f64;
    let fits = [(0.0, 0.0), (side, side), (0.0, side), (side, 0.0)].iter().all(|(x, y)| {
        (x * m[0] + y * m[1] + m[2]).abs() < 32768.0 && (x * m[3] + y * m[4] + m[5]).abs() < 32768.0
    });
    let mut copy = |x: usize, y: usize, (sx, sy): (i64, i64)| {
        if (0..size as i64).contains(&sx) && (0..size as i64).contains(&sy) {
            let (to, from) = (y * size + x, sy as usize * size + sx as usize);
            for (out, source) in out.chunks_exact_mut(plane).zip(source.chunks_exact(plane)) {
                out[to] = source[from];
            }
        }
    };
    let start = [m[2] + m[0] * 0.5 + m[1] * 0.5, m[5] + m[3] * 0.5 + m[4] * 0.5];
    if fits && (m[1] != 0.0 || m[3] != 0.0) {
        let fixed = |v: f64| (v * 65536.0 + 0.5).floor() as i64;
        let [mut x0, mut y0] = start.map(fixed);
        let [dx, ex, dy, ey] = [m[0], m[1], m[3], m[4]].map(fixed);
        for y in 0..size {
            let (mut sx, mut sy) = (x0, y0);
            for x in 0..size {
                copy(x, y, (sx >> 16, sy >> 16));
                sx += dx;
                sy += dy;
            }
            x0 += ex;
            y0 += ey;
        }
    } else {
        let whole = |v: f64| if v < 0.0 { -1 } else { v as i64 };
        let [mut x0, mut y0] = start;
        for y in 0..size {
            let (mut sx, mut sy) = (x0, y0);
            for x in 0..size {
                copy(x, y, (whole(sx), whole(sy)));
                sx += m[0];
                sy += m[3];
            }
            x0 += m[1];
            y0 += m[4];
        }
    }
}

/// Linear in x, then in y, in `f64`, and cut off; beyond the first and last pixel centers their values
/// continue.
#[inline(always)]
fn bilinear(source: &[u8], out: &mut [u8], size: usize, m: &Matrix) {
    let plane = size * size;
    let side = size as f64;
    let last = size as i64 - 1;
    for y in 0..size {
        for x in 0..size {
            let (px, py) = (x as f64 + 0.5, y as f64 + 0.5);
            let sx = m[0] * px + m[1] * py + m[2];
            let sy = m[3] * px + m[4] * py + m[5];
            if !(sx >= 0.0 && sx < side && sy >= 0.0 && sy < side) {
                continue;
            }
            let (sx, sy) = (sx - 0.5, sy - 0.5);
            let (ix, iy) = (sx.floor(), sy.floor());
            let (dx, dy) = (sx - ix, sy - iy);
            let column = |i: i64| i.clamp(0, last) as usize;
            let (left, right) = (column(ix as i64), column(ix as i64 + 1));
            let (upper, lower) = (column(iy as i64) * size, column(iy as i64 + 1) * size);
            for (out, source) in out.chunks_exact_mut(plane).zip(source.chunks_exact(plane)) {
                let row = |at: usize| {
                    let (a, b) = (f64::from(source[at + left]), f64::from(source[at + right]));
                    a + (b - a) * dx
                };
                let (above, below) = (row(upper), row(lower));
                out[y * size + x] = (above + (below - above) * dy) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STILL: AffineStep = AffineStep { degrees: 0.0, translate: (0, 0), scale: 1.0, shear: 0.0 };

    fn warp(step: AffineStep, sampling: Sampling, planes: &[u8], size: usize) -> Vec<u8> {
        let mut out = planes.to_vec();
        let settings = (sampling, 7);
        Warper::default().run(infomax_simd::bytes::Scalar, &mut out, size, &step, settings, Semantics::Pil);
        out
    }

    #[test]
    fn quarter_turns_and_shifts_are_permutations() {
        let planes: Vec<u8> = (0..32).map(|v| v * 8).collect();
        let turned = AffineStep { degrees: 90.0, ..STILL };
        for sampling in [Sampling::Nearest, Sampling::Bilinear] {
            assert_eq!(warp(STILL, sampling, &planes, 4), planes);
            let shifted = warp(AffineStep { translate: (1, -1), ..STILL }, sampling, &planes, 4);
            for y in 0..4 {
                for x in 0..4 {
                    let want = if x >= 1 && y < 3 { planes[(y + 1) * 4 + x - 1] } else { 7 };
                    assert_eq!(shifted[y * 4 + x], want, "{sampling:?} {x} {y}");
                }
            }
        }
        let quarter = warp(turned, Sampling::Nearest, &planes, 4);
        for y in 0..4 {
            for x in 0..4 {
                // Clockwise: the right column comes from the top row.
                assert_eq!(quarter[y * 4 + x], planes[(3 - x) * 4 + y]);
            }
        }
        assert_eq!(warp(turned, Sampling::Nearest, &quarter, 4)[..16], {
            let mut half = planes[..16].to_vec();
            half.reverse();
            half
        });
    }
}
