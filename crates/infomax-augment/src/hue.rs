//! The shift of the hue, through Pillow's 8-bit HSV.

/// Turns the hue of three planes by `turns` of a full turn.
///
/// Each pixel is converted to 8-bit hue, saturation and value, `trunc(255 turns)` is added to the hue
/// modulo 256, and the result is converted back, all with the rounding of Pillow and torchvision.
#[inline(always)]
pub(crate) fn shift(planes: &mut [u8], plane: usize, turns: f64) {
    let offset = (turns * 255.0) as i32 as u8;
    let (r, rest) = planes.split_at_mut(plane);
    let (g, b) = rest.split_at_mut(plane);
    for ((r, g), b) in r.iter_mut().zip(g).zip(b) {
        (*r, *g, *b) = shift_pixel(*r, *g, *b, offset);
    }
}

/// One pixel. Written without branches, so that the compiler can work on several pixels at once.
#[inline(always)]
fn shift_pixel(r: u8, g: u8, b: u8, offset: u8) -> (u8, u8, u8) {
    let max = r.max(g).max(b);
    let min = r.min(g).min(b);
    let range = f32::from(max - min);
    // Grey pixels have no hue; a range of 1 keeps the divisions finite and the selects below drop the result.
    let grey = max == min;
    let safe = if grey { 1.0 } else { range };
    let s = safe / f32::from(max.max(1));
    let rc = f32::from(max - r) / safe;
    let gc = f32::from(max - g) / safe;
    let bc = f32::from(max - b) / safe;
    // Pillow adds in double precision and stores single; with operands in 0..1 and a constant 2 or 4,
    // rounding twice can differ from rounding once, so the double is kept here too.
    let (rc, gc, bc) = (f64::from(rc), f64::from(gc), f64::from(bc));
    let h = if r == max {
        bc - gc
    } else if g == max {
        2.0 + rc - bc
    } else {
        4.0 + gc - rc
    };
    let h = f64::from(h as f32) / 6.0 + 1.0;
    let h = (if h >= 1.0 { h - 1.0 } else { h }) as f32;
    let h8 = (f64::from(h) * 255.0) as i32 as u8;
    let s8 = (f64::from(s) * 255.0) as i32 as u8;
    let (h8, s8) = if grey { (0, 0) } else { (h8, s8) };
    from_hsv(h8.wrapping_add(offset), s8, max)
}

#[inline(always)]
fn from_hsv(h: u8, s: u8, v: u8) -> (u8, u8, u8) {
    let sector = f32::from(h) as f64 * 6.0 / 255.0;
    let i = sector as i32;
    let f = f64::from((sector - f64::from(i)) as f32);
    let fs = f64::from((f64::from(s) / 255.0) as f32);
    let value = f64::from(v);
    let p = round(value * (1.0 - fs));
    let q = round(value * (1.0 - f64::from((fs * f) as f32)));
    let t = round(value * (1.0 - fs * (1.0 - f)));
    let (r, g, b) = match i % 6 {
        0 => (v, t, p),
        1 => (q, v, p),
        2 => (p, v, t),
        3 => (p, q, v),
        4 => (t, p, v),
        _ => (v, p, q),
    };
    if s == 0 { (v, v, v) } else { (r, g, b) }
}

/// Rounds a value in 0..=255, halves up.
#[inline(always)]
fn round(x: f64) -> u8 {
    (x + 0.5) as i32 as u8
}
