//! From 8 bits to normalised numbers: flips, noise, normalisation, erasing.

use crate::draw::{EraseStep, NoiseStep};
use crate::{EraseFill, ViewParams};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, StandardNormal};

/// The normalisation of a recipe.
#[derive(Clone, Debug)]
pub(crate) struct Finish {
    /// `(v / 255 - mean) / std` for every value of every channel.
    tables: Vec<[f32; 256]>,
    moments: Vec<(f32, f32)>,
}

/// Where a view is written to, `(C, H, W)`.
pub(crate) struct Output<'a> {
    pub(crate) out: &'a mut [f32],
    pub(crate) size: usize,
}

impl Finish {
    pub(crate) fn new(mean: &[f32], std: &[f32]) -> Self {
        let moments: Vec<_> = mean.iter().copied().zip(std.iter().copied()).collect();
        let table = |(m, s): &(f32, f32)| std::array::from_fn(|v| (v as f32 / 255.0 - m) / s);
        Self { tables: moments.iter().map(table).collect(), moments }
    }

    pub(crate) fn channels(&self) -> usize {
        self.tables.len()
    }

    #[inline(always)]
    pub(crate) fn run(&self, planes: &[u8], params: &ViewParams, output: Output<'_>) {
        let Output { out, size } = output;
        let plane = size * size;
        for ((table, plane), out) in
            self.tables.iter().zip(planes.chunks_exact(plane)).zip(out.chunks_exact_mut(plane))
        {
            for (y, out) in out.chunks_exact_mut(size).enumerate() {
                let y = if params.vertical_flip { size - 1 - y } else { y };
                let row = &plane[y * size..][..size];
                if params.flip {
                    for (o, v) in out.iter_mut().zip(row.iter().rev()) {
                        *o = table[usize::from(*v)];
                    }
                } else {
                    for (o, v) in out.iter_mut().zip(row) {
                        *o = table[usize::from(*v)];
                    }
                }
            }
        }
        if let Some(noise) = &params.noise {
            self.add_noise(noise, out, plane);
        }
        if let Some(step) = &params.erase {
            erase(step, out, size);
        }
    }

    /// Adds noise to the values before normalisation and normalises again.
    fn add_noise(&self, step: &NoiseStep, out: &mut [f32], plane: usize) {
        let mut rng = ChaCha8Rng::seed_from_u64(step.seed);
        let sigma = step.sigma as f32;
        for ((mean, std), out) in self.moments.iter().zip(out.chunks_exact_mut(plane)) {
            for v in out {
                let n: f32 = StandardNormal.sample(&mut rng);
                *v = ((*v * std + mean + sigma * n).clamp(0.0, 1.0) - mean) / std;
            }
        }
    }
}

/// Overwrites the box, or the part of it that lies inside the view.
fn erase(step: &EraseStep, out: &mut [f32], size: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(step.seed);
    let rows = step.area.y.min(size)..step.area.y.saturating_add(step.area.height).min(size);
    let columns = step.area.x.min(size)..step.area.x.saturating_add(step.area.width).min(size);
    for plane in out.chunks_exact_mut(size * size) {
        for row in plane.chunks_exact_mut(size).take(rows.end).skip(rows.start) {
            for v in &mut row[columns.clone()] {
                *v = match step.fill {
                    EraseFill::Value(value) => value,
                    EraseFill::Noise => StandardNormal.sample(&mut rng),
                };
            }
        }
    }
}
