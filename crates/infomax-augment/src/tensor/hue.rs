//! The shift of the hue as torchvision computes it on tensors: through HSV in single precision.

use crate::color::{split, truncate};

/// Pixels that are worked on together, in arrays that the compiler keeps in vectors.
const BLOCK: usize = 32;

/// Turns the hue of three planes by `turns` of a full turn.
#[inline(always)]
pub(crate) fn shift<const V2: bool>(planes: &mut [u8], plane: usize, turns: f64) {
    let turns = turns as f32;
    let [r, g, b] = split(planes, plane);
    let (r, g, b) = (r.chunks_mut(BLOCK), g.chunks_mut(BLOCK), b.chunks_mut(BLOCK));
    for ((r, g), b) in r.zip(g).zip(b) {
        // The last block is shorter; what stands behind it is computed and dropped.
        let mut block = [[0u8; BLOCK]; 3];
        for (to, from) in block.iter_mut().zip([&*r, &*g, &*b]) {
            to[..from.len()].copy_from_slice(from);
        }
        shift_block::<V2>(&mut block, turns);
        for (from, to) in block.iter().zip([r, g, b]) {
            to.copy_from_slice(&from[..to.len()]);
        }
    }
}

#[inline(always)]
fn shift_block<const V2: bool>([r, g, b]: &mut [[u8; BLOCK]; 3], turns: f32) {
    for i in 0..BLOCK {
        let (x, y, z) = shift_pixel::<V2>([r[i], g[i], b[i]], turns);
        (r[i], g[i], b[i]) = (x, y, z);
    }
}

/// One pixel. The two interfaces differ in where they divide or multiply by a reciprocal, and in one factor.
#[inline(always)]
fn shift_pixel<const V2: bool>(rgb: [u8; 3], turns: f32) -> (u8, u8, u8) {
    let unit = |v: u8| if V2 { f32::from(v) * (1.0 / 255.0) } else { f32::from(v) / 255.0 };
    let (r, g, b) = (unit(rgb[0]), unit(rgb[1]), unit(rgb[2]));
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let gray = max == min;
    let range = max - min;
    let s = range / if gray { 1.0 } else { max };
    let divisor = if gray { 1.0 } else { range };
    let (rc, gc, bc) = ((max - r) / divisor, (max - g) / divisor, (max - b) / divisor);
    let second = (2.0 + rc) - bc;
    let third = (4.0 + gc) - rc;
    let other = if max == g { second } else { third };
    let h = if max == r { bc - gc } else { other };
    let h = if V2 { h * (1.0 / 6.0) } else { h / 6.0 } + 1.0;
    let h = wrap(h) + turns;
    let h = wrap(h);
    let h = if h < 0.0 { h + 1.0 } else { h };

    let sixfold = h * 6.0;
    let sector = sixfold.floor();
    let f = sixfold - sector;
    let sector = if sector == 6.0 { 0.0 } else { sector };
    let (p, q, t) = if V2 {
        let (sf, rest) = (s * f, 1.0 - s);
        (rest * max, (1.0 - sf) * max, (sf + rest) * max)
    } else {
        (max * (1.0 - s), max * (1.0 - s * f), max * (1.0 - s * (1.0 - f)))
    };
    let (v, p, q, t) = (to_byte(max), to_byte(p), to_byte(q), to_byte(t));
    // All comparisons, without branches.
    let at = |k: f32| sector == k;
    let r = if at(1.0) {
        q
    } else if at(4.0) {
        t
    } else if at(2.0) | at(3.0) {
        p
    } else {
        v
    };
    let g = if at(0.0) {
        t
    } else if at(3.0) {
        q
    } else if at(4.0) | at(5.0) {
        p
    } else {
        v
    };
    let b = if at(2.0) {
        t
    } else if at(5.0) {
        q
    } else if at(0.0) | at(1.0) {
        p
    } else {
        v
    };
    (r, g, b)
}

/// `x` modulo 1 for `x < 2`, where it is positive.
#[inline(always)]
fn wrap(x: f32) -> f32 {
    if x >= 1.0 { x - 1.0 } else { x }
}

/// torchvision's `convert_image_dtype`: a little less than 256 times as much, cut off.
#[inline(always)]
fn to_byte(x: f32) -> u8 {
    truncate(x.clamp(0.0, 1.0) * (255.0 + 1.0 - 1e-3))
}
