//! Textures: two colors mixed by a pattern.

use rand::{Rng, RngExt as _};

/// Red, green and blue in 0..1.
pub(crate) type Rgb = [f32; 3];

pub(crate) fn luma(c: Rgb) -> f32 {
    0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2]
}

const CELLS: usize = 8;

/// A pattern with values in 0..1 over the unit square.
enum Pattern {
    Plain,
    /// `clamp(0.5 + a x + b y)` around the center.
    Gradient {
        a: f32,
        b: f32,
    },
    /// A wave along a direction; `second` makes it a chequerboard.
    Wave {
        a: f32,
        b: f32,
        phase: f32,
        second: bool,
    },
    /// Smooth noise on a lattice.
    Noise {
        lattice: Box<[f32; (CELLS + 1) * (CELLS + 1)]>,
        cells: f32,
    },
}

/// A base color and a second one, mixed by a pattern.
pub(crate) struct Texture {
    base: Rgb,
    step: Rgb,
    pattern: Pattern,
}

impl Texture {
    /// A random pattern around `base`; the second color is at most `strength` away in each channel.
    pub(crate) fn draw(base: Rgb, strength: f32, rng: &mut impl Rng) -> Self {
        let angle = rng.random::<f32>() * std::f32::consts::TAU;
        let (sin, cos) = angle.sin_cos();
        let pattern = match rng.random_range(0..5u32) {
            0 => Pattern::Plain,
            1 => Pattern::Gradient { a: cos, b: sin },
            2 | 3 => {
                let waves = 2.0 + 5.0 * rng.random::<f32>();
                let second = rng.random::<bool>();
                Pattern::Wave { a: cos * waves, b: sin * waves, phase: rng.random(), second }
            }
            _ => {
                let mut lattice = Box::new([0.0; (CELLS + 1) * (CELLS + 1)]);
                lattice.iter_mut().for_each(|v| *v = rng.random());
                Pattern::Noise { lattice, cells: rng.random_range(3..=CELLS as u32) as f32 }
            }
        };
        let step: Rgb = std::array::from_fn(|_| strength * (2.0 * rng.random::<f32>() - 1.0));
        // Centered, so that the mean color stays the base.
        let base = std::array::from_fn(|c| base[c] - 0.5 * step[c]);
        Self { base, step, pattern }
    }

    /// The color at a point of the unit square.
    #[inline]
    pub(crate) fn at(&self, x: f32, y: f32) -> Rgb {
        let t = match &self.pattern {
            Pattern::Plain => 0.5,
            Pattern::Gradient { a, b } => (0.5 + a * (x - 0.5) + b * (y - 0.5)).clamp(0.0, 1.0),
            Pattern::Wave { a, b, phase, second } => {
                let first = wave(a * x + b * y + phase);
                if *second {
                    let other = wave(a * y - b * x + phase);
                    first + other - 2.0 * first * other
                } else {
                    first
                }
            }
            Pattern::Noise { lattice, cells } => noise(lattice, x * cells, y * cells),
        };
        std::array::from_fn(|c| self.base[c] + t * self.step[c])
    }
}

/// A wave of period 1 between 0 and 1, with slopes that a pixel can resolve.
#[inline]
fn wave(x: f32) -> f32 {
    let triangle = 2.0 * (x - x.floor() - 0.5).abs();
    (0.5 + 2.0 * (triangle - 0.5)).clamp(0.0, 1.0)
}

#[inline]
fn noise(lattice: &[f32; (CELLS + 1) * (CELLS + 1)], x: f32, y: f32) -> f32 {
    let (i, j) = ((x as usize).min(CELLS - 1), (y as usize).min(CELLS - 1));
    let ease = |t: f32| t * t * (3.0 - 2.0 * t);
    let (u, v) = (ease((x - i as f32).clamp(0.0, 1.0)), ease((y - j as f32).clamp(0.0, 1.0)));
    let at = |i: usize, j: usize| lattice[j * (CELLS + 1) + i];
    let top = at(i, j) + u * (at(i + 1, j) - at(i, j));
    let bottom = at(i, j + 1) + u * (at(i + 1, j + 1) - at(i, j + 1));
    top + v * (bottom - top)
}
