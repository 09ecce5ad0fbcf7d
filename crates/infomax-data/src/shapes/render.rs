//! Draws one image.

use super::sdf::{self, Point};
use super::texture::{Rgb, Texture, luma};
use super::{Shape, ShapesConfig};
use rand::{Rng, RngExt as _};

/// The pixels of an image that shows `shape`, `size x size` RGB.
pub(crate) fn render(config: &ShapesConfig, shape: Shape, rng: &mut impl Rng) -> Vec<u8> {
    let size = config.size;
    let (ground, figure) = colors(config.contrast as f32, rng);
    let texture = config.texture as f32;
    let ground = Texture::draw(ground, texture, rng);
    let figure = Texture::draw(figure, texture, rng);
    let unit = 1.0 / size as f32;
    let mut canvas: Vec<Rgb> = Vec::with_capacity(size * size);
    for y in 0..size {
        for x in 0..size {
            canvas.push(ground.at((x as f32 + 0.5) * unit, (y as f32 + 0.5) * unit));
        }
    }
    let clutter = rng.random_range(config.clutter.0 as u64..=config.clutter.1 as u64);
    for _ in 0..clutter {
        draw_clutter(&mut canvas, size, rng);
    }
    let pose = Pose::draw(config, rng);
    paint(&mut canvas, size, &pose, |p| sdf::distance(shape, p), |x, y| figure.at(x, y));
    quantize(&canvas, config.noise as f32, rng)
}

/// Two random colors whose luma differs by at least `contrast`.
fn colors(contrast: f32, rng: &mut impl Rng) -> (Rgb, Rgb) {
    let mut color = || -> Rgb { std::array::from_fn(|_| rng.random()) };
    let ground = color();
    for _ in 0..64 {
        let figure = color();
        if (luma(figure) - luma(ground)).abs() >= contrast {
            return (ground, figure);
        }
    }
    // Not reached in practice: black or white is at least 0.5 away from any color.
    (ground, if luma(ground) > 0.5 { [0.0; 3] } else { [1.0; 3] })
}

/// Where a shape lies: center and radius in pixels, and the direction of its axis.
struct Pose {
    center: Point,
    radius: f32,
    axis: Point,
}

impl Pose {
    fn draw(config: &ShapesConfig, rng: &mut impl Rng) -> Self {
        let size = config.size as f32;
        let (low, high) = (config.scale.0 as f32, config.scale.1 as f32);
        let radius = 0.5 * size * (low + (high - low) * rng.random::<f32>());
        let margin = (radius * (1.0 - 2.0 * config.cut as f32)).min(0.5 * size);
        let mut place = || margin + (size - 2.0 * margin) * rng.random::<f32>();
        let center = (place(), place());
        let turn = config.rotation as f32 * (2.0 * rng.random::<f32>() - 1.0);
        let (sin, cos) = (turn * std::f32::consts::TAU).sin_cos();
        Self { center, radius, axis: (cos, sin) }
    }
}

/// Paints what lies within an outline, antialiased over one pixel.
fn paint(
    canvas: &mut [Rgb],
    size: usize,
    pose: &Pose,
    outline: impl Fn(Point) -> f32,
    color: impl Fn(f32, f32) -> Rgb,
) {
    let Pose { center, radius, axis } = *pose;
    let unit = 1.0 / size as f32;
    let range = |c: f32| {
        let first = (c - radius - 1.0).max(0.0) as usize;
        let end = ((c + radius + 2.0).max(0.0) as usize).min(size);
        first..end
    };
    for y in range(center.1) {
        for x in range(center.0) {
            let (px, py) = (x as f32 + 0.5, y as f32 + 0.5);
            let (dx, dy) = ((px - center.0) / radius, (py - center.1) / radius);
            let d = outline((axis.0 * dx + axis.1 * dy, axis.0 * dy - axis.1 * dx));
            let cover = (0.5 - d * radius).clamp(0.0, 1.0);
            if cover > 0.0 {
                let new = color(px * unit, py * unit);
                let pixel = &mut canvas[y * size + x];
                for c in 0..3 {
                    pixel[c] += cover * (new[c] - pixel[c]);
                }
            }
        }
    }
}

/// A small disc, bar or box of a random color at a random place.
fn draw_clutter(canvas: &mut [Rgb], size: usize, rng: &mut impl Rng) {
    let color: Rgb = std::array::from_fn(|_| rng.random());
    let kind = rng.random_range(0..3u32);
    let side = size as f32;
    let part = 0.05 + 0.1 * rng.random::<f32>();
    let radius = side * if kind == 1 { 2.0 * part } else { part };
    let center = (side * rng.random::<f32>(), side * rng.random::<f32>());
    let (sin, cos) = (rng.random::<f32>() * std::f32::consts::TAU).sin_cos();
    let pose = Pose { center, radius, axis: (cos, sin) };
    let outline = |p: Point| match kind {
        0 => sdf::disc(p, 0.9),
        1 => sdf::rect(p, 0.98, 0.18),
        _ => sdf::rect(p, 0.7, 0.7),
    };
    paint(canvas, size, &pose, outline, |_, _| color);
}

/// Adds noise and rounds to 8 bits.
fn quantize(canvas: &[Rgb], noise: f32, rng: &mut impl Rng) -> Vec<u8> {
    let mut draws = vec![0u8; canvas.len() * 12];
    if noise > 0.0 {
        rng.fill_bytes(&mut draws);
    }
    // The sum of four bytes is close to normal, with mean 510 and variance 4 (256^2 - 1) / 12.
    let factor = noise * 255.0 / 147.801;
    canvas
        .as_flattened()
        .iter()
        .zip(draws.chunks_exact(4))
        .map(|(v, d)| {
            let sum: i32 = d.iter().map(|b| i32::from(*b)).sum();
            let shift = if noise > 0.0 { (sum - 510) as f32 * factor } else { 0.0 };
            (v * 255.0 + shift + 0.5).clamp(0.0, 255.0) as u8
        })
        .collect()
}
