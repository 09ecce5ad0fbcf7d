//! From 8 bits to normalized numbers: flips, noise, normalization, erasing.

use crate::draw::{EraseStep, NoiseStep};
#[cfg(target_arch = "x86_64")]
use crate::x86;
use crate::{EraseFill, ViewParams};
use infomax_simd::bytes::v3;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, StandardNormal};

/// The normalization of a recipe.
#[derive(Clone, Debug)]
pub(crate) struct Finish {
    channels: Vec<Channel>,
}

#[derive(Clone, Debug)]
struct Channel {
    mean: f32,
    std: f32,
    /// `(v / 255 - mean) / std` for every value.
    table: [f32; 256],
    /// Whether the vectors, which do not divide, give what the table holds.
    exact: bool,
    #[cfg(target_arch = "x86_64")]
    normal: x86::Normal,
}

/// Where a view is written to, `(C, H, W)`.
pub(crate) struct Output<'a> {
    pub(crate) out: &'a mut [f32],
    pub(crate) size: usize,
}

impl Finish {
    pub(crate) fn new(mean: &[f32], std: &[f32]) -> Self {
        Self { channels: mean.iter().zip(std).map(|(mean, std)| Channel::new(*mean, *std)).collect() }
    }

    pub(crate) fn channels(&self) -> usize {
        self.channels.len()
    }

    /// The normalized value of each of 256 values, of each channel.
    pub(crate) fn normalized(&self) -> Vec<f32> {
        self.channels.iter().flat_map(|channel| channel.table).collect()
    }

    #[inline(always)]
    pub(crate) fn run<S: infomax_simd::bytes::Simd>(
        &self,
        simd: S,
        planes: &[u8],
        params: &ViewParams,
        output: Output<'_>,
    ) {
        let Output { out, size } = output;
        let plane = size * size;
        let flips = (params.flip, params.vertical_flip);
        infomax_simd::bytes::alone(simd, Normalize { finish: self, planes, flips, out: &mut *out, size });
        if let Some(noise) = &params.noise {
            self.add_noise(noise, out, plane);
        }
        if let Some(step) = &params.erase {
            erase(step, out, size);
        }
    }

    /// Adds noise to the values before normalization and normalizes again.
    fn add_noise(&self, step: &NoiseStep, out: &mut [f32], plane: usize) {
        let mut rng = ChaCha8Rng::seed_from_u64(step.seed);
        let sigma = step.sigma as f32;
        for (Channel { mean, std, .. }, out) in self.channels.iter().zip(out.chunks_exact_mut(plane)) {
            for v in out {
                let n: f32 = StandardNormal.sample(&mut rng);
                *v = ((*v * std + mean + sigma * n).clamp(0.0, 1.0) - mean) / std;
            }
        }
    }
}

/// Flips and normalization, as an operation by itself.
struct Normalize<'a> {
    finish: &'a Finish,
    planes: &'a [u8],
    flips: (bool, bool),
    out: &'a mut [f32],
    size: usize,
}

impl infomax_simd::bytes::WithSimd for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: infomax_simd::bytes::Simd>(self, simd: S) {
        let Self { finish, planes, flips: (flip, vertical), out, size } = self;
        let plane = size * size;
        // Without a flip all rows are one.
        let len = if flip || vertical { size } else { plane };
        let channels = finish.channels.iter().zip(planes.chunks_exact(plane));
        for ((channel, plane), out) in channels.zip(out.chunks_exact_mut(plane)) {
            for (y, out) in out.chunks_exact_mut(len).enumerate() {
                let y = if vertical { size - 1 - y } else { y };
                channel.row(simd, &plane[y * len..][..len], flip, out);
            }
        }
    }
}

impl Channel {
    fn new(mean: f32, std: f32) -> Self {
        let table: [f32; 256] = std::array::from_fn(|v| (v as f32 / 255.0 - mean) / std);
        let mut channel = Self {
            mean,
            std,
            table,
            exact: true,
            #[cfg(target_arch = "x86_64")]
            normal: x86::Normal::new(mean, std),
        };
        let bytes: Vec<u8> = (0..=255).collect();
        let mut out = [0.0; 256];
        infomax_simd::bytes::dispatch(Row { channel: &channel, bytes: &bytes, out: &mut out });
        channel.exact = out.iter().zip(&channel.table).all(|(a, b)| a.to_bits() == b.to_bits());
        channel
    }

    /// Normalizes a row, from the right if `flip`.
    #[inline(always)]
    fn row<S: infomax_simd::bytes::Simd>(&self, simd: S, row: &[u8], flip: bool, out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        let (row, out) = match v3(simd) {
            Some(simd) if self.exact => self.blocks(simd, row, flip, out),
            _ => (row, out),
        };
        let _ = simd;
        if flip {
            for (o, v) in out.iter_mut().zip(row.iter().rev()) {
                *o = self.table[usize::from(*v)];
            }
        } else {
            for (o, v) in out.iter_mut().zip(row) {
                *o = self.table[usize::from(*v)];
            }
        }
    }

    /// Normalizes whole blocks, and returns what is left.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn blocks<'a>(
        &self,
        simd: x86::V3,
        row: &'a [u8],
        flip: bool,
        out: &'a mut [f32],
    ) -> (&'a [u8], &'a mut [f32]) {
        let (places, out) = out.as_chunks_mut();
        if flip {
            let (rest, blocks) = row.as_rchunks();
            for (place, block) in places.iter_mut().zip(blocks.iter().rev()) {
                x86::normalize::<true>(simd, block, &self.normal, place);
            }
            (rest, out)
        } else {
            let (blocks, rest) = row.as_chunks();
            for (place, block) in places.iter_mut().zip(blocks) {
                x86::normalize::<false>(simd, block, &self.normal, place);
            }
            (rest, out)
        }
    }
}

struct Row<'a> {
    channel: &'a Channel,
    bytes: &'a [u8],
    out: &'a mut [f32],
}

impl infomax_simd::bytes::WithSimd for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: infomax_simd::bytes::Simd>(self, simd: S) {
        self.channel.row(simd, self.bytes, false, self.out);
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
