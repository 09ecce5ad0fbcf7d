//! Rotation, shift, scaling and shear as torchvision computes them on tensors: a grid of points in single
//! precision, sampled with zeros beyond the edge, and blended with the fill by what is missing.

use crate::Sampling;

/// Transforms each of the planes of `size x size` into `out`. The matrix leads from the result to the source,
/// about the centre: `(x, y) -> (m[0] x + m[1] y + m[2], m[3] x + m[4] y + m[5])`.
///
/// torchvision samples a plane of ones beside the image, and the result is `v mask + fill (1 - mask)`; a pixel
/// that lies partly beyond the edge is therefore weighed twice. `V2` has this formula in another order.
#[inline(always)]
pub(crate) fn warp<const V2: bool>(
    source: &[u8],
    out: &mut [u8],
    size: usize,
    matrix: &[f64; 6],
    sampling: Sampling,
    fill: u8,
) {
    let half = (0.5 * size as f64) as f32;
    let [a, b, c, d, e, f] = matrix.map(|m| m as f32 / half);
    for y in 0..size {
        let py = (y as f64 - 0.5 * size as f64 + 0.5) as f32;
        for x in 0..size {
            let px = (x as f64 - 0.5 * size as f64 + 0.5) as f32;
            let point = [(px * a + py * b) + c, (px * d + py * e) + f];
            let [sx, sy] = [0, 1].map(|k: usize| (point[k] + 1.0).mul_add(half, -0.5));
            let at = y * size + x;
            match sampling {
                Sampling::Nearest => nearest(source, out, size, at, [sx, sy], fill),
                Sampling::Bilinear => bilinear::<V2>(source, out, size, at, [sx, sy], fill),
            }
        }
    }
}

/// The pixel of a column and a row, if they lie inside.
#[inline(always)]
fn place(x: f32, y: f32, size: usize) -> Option<usize> {
    let inside = |v: f32| v >= 0.0 && v < size as f32;
    (inside(x) && inside(y)).then(|| y as usize * size + x as usize)
}

#[inline(always)]
fn nearest(source: &[u8], out: &mut [u8], size: usize, at: usize, [x, y]: [f32; 2], fill: u8) {
    let plane = size * size;
    let from = place(x.round_ties_even(), y.round_ties_even(), size);
    for (out, source) in out.chunks_exact_mut(plane).zip(source.chunks_exact(plane)) {
        out[at] = from.map_or(fill, |from| source[from]);
    }
}

#[inline(always)]
fn bilinear<const V2: bool>(
    source: &[u8],
    out: &mut [u8],
    size: usize,
    at: usize,
    [x, y]: [f32; 2],
    fill: u8,
) {
    let plane = size * size;
    let (left, upper) = (x.floor(), y.floor());
    let (dx, dy) = (x - left, y - upper);
    let (ex, ey) = (1.0 - dx, 1.0 - dy);
    let corners = [
        (place(left, upper, size), ey * ex),
        (place(left + 1.0, upper, size), ey * dx),
        (place(left, upper + 1.0, size), dy * ex),
        (place(left + 1.0, upper + 1.0, size), dy * dx),
    ];
    let mask: f32 = corners.iter().map(|(place, w)| if place.is_some() { *w } else { 0.0 }).sum();
    let fill = f32::from(fill);
    for (out, source) in out.chunks_exact_mut(plane).zip(source.chunks_exact(plane)) {
        let mut sum = 0.0;
        for (place, w) in corners {
            sum = place.map_or(0.0, |from| f32::from(source[from])).mul_add(w, sum);
        }
        let v = if V2 { (sum - fill) * mask + fill } else { sum * mask + (1.0 - mask) * fill };
        // No more than 255 and a rounding error, so the nearest integer is a byte.
        out[at] = v.round_ties_even() as u8;
    }
}
