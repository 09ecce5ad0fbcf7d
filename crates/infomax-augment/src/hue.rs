//! The shift of the hue, through Pillow's 8-bit HSV.

use crate::color::{self, truncate};

/// Turns the hue of three planes by `turns` of a full turn.
///
/// Each pixel is converted to 8-bit hue, saturation and value, `trunc(255 turns)` is added to the hue
/// modulo 256, and the result is converted back, all with the rounding of Pillow and torchvision.
#[inline(always)]
pub(crate) fn shift<S: infomax_simd::bytes::Simd>(simd: S, planes: &mut [u8], plane: usize, turns: f64) {
    let offset = (turns * 255.0) as i32 as u8;
    let [r, g, b] = color::split(planes, plane);
    #[cfg(target_arch = "x86_64")]
    let [r, g, b] = if let Some(simd) = infomax_simd::bytes::v3(simd) {
        let ([r, g, b], rest) = color::blocks(r, g, b);
        crate::x86::hue::shift(simd, offset, r, g, b);
        rest
    } else {
        [r, g, b]
    };
    let _ = simd;
    for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
        (*r, *g, *b) = shift_pixel(*r, *g, *b, offset);
    }
}

/// One pixel. Written without branches and casts that check, so that the compiler works on several pixels
/// at once. Where Pillow computes in double precision and single precision gives the same, which the tests
/// show for all colors, it is single here.
#[inline(always)]
fn shift_pixel(r: u8, g: u8, b: u8, offset: u8) -> (u8, u8, u8) {
    let max = r.max(g).max(b);
    let min = r.min(g).min(b);
    // Gray pixels have no hue; a range of 1 keeps the divisions finite and the selects below drop the result.
    let gray = max == min;
    let range = f32::from(if gray { 1 } else { max - min });
    let rc = f32::from(max - r) / range;
    let gc = f32::from(max - g) / range;
    let bc = f32::from(max - b) / range;
    // In `2 + rc - bc` and `4 + gc - rc` one of the two is 1, so one rounding is enough.
    let second = if bc == 1.0 { 1.0 + rc } else { 3.0 - bc };
    let third = if rc == 1.0 { 3.0 + gc } else { 5.0 - rc };
    let h = if r == max {
        bc - gc
    } else if g == max {
        second
    } else {
        third
    };
    let h = f64::from(h) / 6.0 + 1.0;
    let h = (if h >= 1.0 { h - 1.0 } else { h }) as f32;
    let h8 = scaled(h);
    let s8 = scaled(range / f32::from(max.max(1)));
    from_hsv(if gray { 0 } else { h8.wrapping_add(offset) }, if gray { 0 } else { s8 }, max)
}

/// The integer part of the exact product `255 x` for `x` in 0..=1.
#[inline(always)]
fn scaled(x: f32) -> u8 {
    let whole = (x * 255.0).floor();
    // `256 x` is exact, and so is its difference to a whole number nearby: is 255 x below `whole`?
    let whole = if x * 256.0 - whole < x { whole - 1.0 } else { whole };
    truncate(whole)
}

#[inline(always)]
fn from_hsv(h: u8, s: u8, v: u8) -> (u8, u8, u8) {
    let sector = f32::from(h) * 6.0 / 255.0;
    let i = sector.floor();
    let f = sector - i;
    let fs = f32::from(s) / 255.0;
    let value = f32::from(v);
    let p = truncate(value * (1.0 - fs) + 0.5);
    let q = truncate(value * (1.0 - fs * f) + 0.5);
    let t = truncate(value * (1.0 - fs * (1.0 - f)) + 0.5);
    let i = truncate(i);
    let i = if i == 6 { 0 } else { i };
    let r = if i == 0 || i == 5 {
        v
    } else if i == 1 {
        q
    } else if i == 4 {
        t
    } else {
        p
    };
    let g = if i == 1 || i == 2 {
        v
    } else if i == 0 {
        t
    } else if i == 3 {
        q
    } else {
        p
    };
    let b = if i == 3 || i == 4 {
        v
    } else if i == 2 {
        t
    } else if i == 5 {
        q
    } else {
        p
    };
    // Gray pixels come with s = 0, for which p = q = t = v.
    (r, g, b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pillow's conversion to HSV, with its mixture of single and double precision.
    fn to_hsv_reference(r: u8, g: u8, b: u8) -> (u8, u8, u8) {
        let (max, min) = (r.max(g).max(b), r.min(g).min(b));
        if max == min {
            return (0, 0, max);
        }
        let range = f32::from(max - min);
        let [rc, gc, bc] = [r, g, b].map(|v| f64::from(f32::from(max - v) / range));
        let h = match max {
            m if m == r => bc - gc,
            m if m == g => 2.0 + rc - bc,
            _ => 4.0 + gc - rc,
        } as f32;
        let h = ((f64::from(h) / 6.0 + 1.0) % 1.0) as f32;
        let s = range / f32::from(max);
        ((f64::from(h) * 255.0) as u8, (f64::from(s) * 255.0) as u8, max)
    }

    fn from_hsv_reference(h: u8, s: u8, v: u8) -> (u8, u8, u8) {
        let sector = f64::from(h) * 6.0 / 255.0;
        let f = (sector - sector.floor()) as f32;
        let fs = (f64::from(s) / 255.0) as f32;
        let value = f64::from(v);
        let p = (value * (1.0 - f64::from(fs))).round() as u8;
        let q = (value * (1.0 - f64::from(fs * f))).round() as u8;
        let t = (value * (1.0 - f64::from(fs) * (1.0 - f64::from(f)))).round() as u8;
        if s == 0 {
            return (v, v, v);
        }
        match sector as i32 % 6 {
            0 => (v, t, p),
            1 => (q, v, p),
            2 => (p, v, t),
            3 => (p, q, v),
            4 => (t, p, v),
            _ => (v, p, q),
        }
    }

    struct Shift<'a>(&'a mut [u8], usize, f64);

    impl infomax_simd::bytes::WithSimd for Shift<'_> {
        type Output = ();

        fn with_simd<S: infomax_simd::bytes::Simd>(self, simd: S) {
            shift(simd, self.0, self.1, self.2);
        }
    }

    /// All colors, by the vectors that this machine has, at shifts that change with the red.
    #[test]
    fn every_color_in_vectors_equals_one_alone() {
        let side = 1 << 16;
        let mut planes = vec![0; 3 * side];
        for r in 0..=255u8 {
            let turns = f64::from(r) / 256.0 - 0.5;
            let offset = (turns * 255.0) as i32 as u8;
            for i in 0..side {
                (planes[i], planes[side + i], planes[2 * side + i]) = (r, (i >> 8) as u8, i as u8);
            }
            infomax_simd::bytes::dispatch(Shift(&mut planes, side, turns));
            for i in 0..side {
                let (g, b) = ((i >> 8) as u8, i as u8);
                let got = (planes[i], planes[side + i], planes[2 * side + i]);
                assert_eq!(got, shift_pixel(r, g, b, offset), "{r} {g} {b} by {offset}");
            }
        }
    }

    #[test]
    fn every_color_equals_the_reference() {
        let all =
            || (0..=255u8).flat_map(|a| (0..=255u8).flat_map(move |b| (0..=255u8).map(move |c| (a, b, c))));
        for (r, g, b) in all() {
            let (h, s, v) = to_hsv_reference(r, g, b);
            let offset = r ^ g.rotate_left(3) ^ b.rotate_left(5);
            let offset = if h == 0 && s == 0 { 0 } else { offset };
            assert_eq!(
                shift_pixel(r, g, b, offset),
                from_hsv_reference(h.wrapping_add(offset), s, v),
                "{r} {g} {b}"
            );
        }
        for (h, s, v) in all() {
            assert_eq!(from_hsv(h, s, v), from_hsv_reference(h, s, v), "{h} {s} {v}");
        }
    }
}
