//! Rotation, shift, scaling and shear as torchvision computes them on tensors: a grid of points in single
//! precision, sampled with zeros beyond the edge, and blended with the fill by what is missing.

use crate::Sampling;

/// Where a pixel of the result comes from: up to four pixels with their weights. Those beyond the edge have the
/// weight 0 and the place of any pixel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    places: [u32; 4],
    weights: [f32; 4],
    /// The sum of the weights, which torchvision finds by sampling a plane of ones.
    mask: f32,
}

/// Transforms each of the planes of `size x size` into `out`; `row` is a buffer. The matrix leads from the result
/// to the source, about the center: `(x, y) -> (m[0] x + m[1] y + m[2], m[3] x + m[4] y + m[5])`.
///
/// The result is `v mask + fill (1 - mask)`; a pixel that lies partly beyond the edge is therefore weighed twice,
/// as by torchvision. `V2` has this formula in another order.
#[inline(always)]
pub(crate) fn warp<const V2: bool>(
    source: &[u8],
    out: &mut [u8],
    row: &mut Vec<Point>,
    size: usize,
    matrix: &[f64; 6],
    (sampling, fill): (Sampling, u8),
) {
    let half = (0.5 * size as f64) as f32;
    let [a, b, c, d, e, f] = matrix.map(|m| m as f32 / half);
    let centered = |i: usize| (i as f64 - 0.5 * size as f64 + 0.5) as f32;
    let fill_level = f32::from(fill);
    for y in 0..size {
        let py = centered(y);
        row.clear();
        row.extend((0..size).map(|x| {
            let px = centered(x);
            let (u, v) = ((px * a + py * b) + c, (px * d + py * e) + f);
            let (sx, sy) = ((u + 1.0).mul_add(half, -0.5), (v + 1.0).mul_add(half, -0.5));
            match sampling {
                Sampling::Nearest => one(sx.round_ties_even(), sy.round_ties_even(), size),
                Sampling::Bilinear => four(sx, sy, size),
            }
        }));
        let planes = out.chunks_exact_mut(size * size).zip(source.chunks_exact(size * size));
        for (out, source) in planes {
            for (out, point) in out[y * size..(y + 1) * size].iter_mut().zip(&*row) {
                let value = |k: usize| source[point.places[k] as usize];
                *out = match sampling {
                    Sampling::Nearest => {
                        if point.mask < 0.5 {
                            fill
                        } else {
                            value(0)
                        }
                    }
                    Sampling::Bilinear => {
                        let mut sum = 0.0;
                        for (k, w) in point.weights.iter().enumerate() {
                            sum = f32::from(value(k)).mul_add(*w, sum);
                        }
                        let blended = if V2 {
                            (sum - fill_level) * point.mask + fill_level
                        } else {
                            sum * point.mask + (1.0 - point.mask) * fill_level
                        };
                        // At most 255 and a rounding error, so the nearest integer is a byte.
                        (blended + 8_388_608.0).to_bits() as u8
                    }
                };
            }
        }
    }
}

/// The pixel of a column and a row, if they lie inside.
#[inline(always)]
fn place(x: f32, y: f32, size: usize) -> Option<u32> {
    let inside = |v: f32| v >= 0.0 && v < size as f32;
    (inside(x) && inside(y)).then(|| y as u32 * size as u32 + x as u32)
}

#[inline(always)]
fn one(x: f32, y: f32, size: usize) -> Point {
    let at = place(x, y, size);
    Point { places: [at.unwrap_or(0); 4], weights: [0.0; 4], mask: if at.is_some() { 1.0 } else { 0.0 } }
}

#[inline(always)]
fn four(x: f32, y: f32, size: usize) -> Point {
    let (left, upper) = (x.floor(), y.floor());
    let (dx, dy) = (x - left, y - upper);
    let (ex, ey) = (1.0 - dx, 1.0 - dy);
    let corners = [
        (left, upper, ey * ex),
        (left + 1.0, upper, ey * dx),
        (left, upper + 1.0, dy * ex),
        (left + 1.0, upper + 1.0, dy * dx),
    ];
    let mut point = Point { places: [0; 4], weights: [0.0; 4], mask: 0.0 };
    for (k, (x, y, w)) in corners.into_iter().enumerate() {
        if let Some(at) = place(x, y, size) {
            point.places[k] = at;
            point.weights[k] = w;
            point.mask += w;
        }
    }
    point
}
