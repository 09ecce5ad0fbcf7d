//! Signed distances to the outlines of the shapes: negative inside, in units of the circumradius.
//!
//! Near the outline they are distances; far from it they only keep their sign, which is all that
//! antialiasing needs.

use super::Shape;

/// A point of the plane.
pub(crate) type Point = (f32, f32);

/// The signed distance of a point in the frame of the shape, which lies within the unit circle.
pub(crate) fn distance(shape: Shape, p: Point) -> f32 {
    match shape {
        Shape::Circle => disc(p, 0.88),
        Shape::Square => rect(p, 0.7, 0.7),
        Shape::Triangle => regular(p, &TRIANGLE, 0.5),
        Shape::Pentagon => regular(p, &PENTAGON, 0.809_017),
        Shape::Star => polygon(p, &STAR),
        Shape::Cross => rect(p, 0.95, 0.27).min(rect(p, 0.27, 0.95)),
        Shape::Ring => (length(p) - 0.68).abs() - 0.2,
        Shape::Heart => heart(p),
        Shape::Crescent => disc(p, 0.95).max(-disc((p.0 - 0.48, p.1), 0.74)),
        Shape::Arrow => polygon(p, &ARROW),
    }
}

/// The outward normals of the sides of a triangle and a pentagon.
const TRIANGLE: [Point; 3] = [(1.0, 0.0), (-0.5, 0.866_025_4), (-0.5, -0.866_025_4)];
const PENTAGON: [Point; 5] = [
    (1.0, 0.0),
    (0.309_017, 0.951_056_5),
    (-0.809_017, 0.587_785_25),
    (-0.809_017, -0.587_785_25),
    (0.309_017, -0.951_056_5),
];

/// Corners at radius 1 and 0.42, in turn.
const STAR: [Point; 10] = [
    (1.0, 0.0),
    (0.339_787, 0.246_87),
    (0.309_017, 0.951_057),
    (-0.129_787, 0.399_444),
    (-0.809_017, 0.587_785),
    (-0.42, 0.0),
    (-0.809_017, -0.587_785),
    (-0.129_787, -0.399_444),
    (0.309_017, -0.951_057),
    (0.339_787, -0.246_87),
];

const ARROW: [Point; 7] =
    [(0.98, 0.0), (0.1, 0.8), (0.1, 0.28), (-0.92, 0.28), (-0.92, -0.28), (0.1, -0.28), (0.1, -0.8)];

pub(crate) fn length(p: Point) -> f32 {
    (p.0 * p.0 + p.1 * p.1).sqrt()
}

pub(crate) fn disc(p: Point, radius: f32) -> f32 {
    length(p) - radius
}

/// A rectangle of these half sides at the origin.
pub(crate) fn rect(p: Point, half_width: f32, half_height: f32) -> f32 {
    let (x, y) = (p.0.abs() - half_width, p.1.abs() - half_height);
    length((x.max(0.0), y.max(0.0))) + x.max(y).min(0.0)
}

/// A regular polygon as the intersection of half planes at distance `apothem`.
fn regular(p: Point, normals: &[Point], apothem: f32) -> f32 {
    normals.iter().map(|n| n.0 * p.0 + n.1 * p.1).fold(f32::NEG_INFINITY, f32::max) - apothem
}

/// A square on its corner with a disc on each of its two upper sides.
fn heart(p: Point) -> f32 {
    const SIDE: f32 = 0.52;
    let (x, y) = (p.0 + 0.18, p.1 + 0.18);
    let lobes = disc((x - SIDE, y), SIDE).min(disc((x, y - SIDE), SIDE));
    rect((x, y), SIDE, SIDE).min(lobes)
}

/// The distance to the nearest side, with the sign of the crossing number.
fn polygon(p: Point, corners: &[Point]) -> f32 {
    let mut nearest = f32::INFINITY;
    let mut inside = false;
    let mut from = corners[corners.len() - 1];
    for &to in corners {
        let (ex, ey) = (to.0 - from.0, to.1 - from.1);
        let (wx, wy) = (p.0 - from.0, p.1 - from.1);
        let t = ((wx * ex + wy * ey) / (ex * ex + ey * ey)).clamp(0.0, 1.0);
        let (dx, dy) = (wx - ex * t, wy - ey * t);
        nearest = nearest.min(dx * dx + dy * dy);
        let crosses = (from.1 > p.1) != (to.1 > p.1);
        inside ^= crosses && p.0 < from.0 + ex * wy / ey;
        from = to;
    }
    if inside { -nearest.sqrt() } else { nearest.sqrt() }
}
