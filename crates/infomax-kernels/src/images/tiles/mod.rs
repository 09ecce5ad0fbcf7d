//! Convolutions by products of tiles (AMX): of maps in bf16, and of maps in f32 whose factors are split into two bf16 each.
//!
//! Forward and in the gradient of the input a tile of sums holds 16 outputs of one pixel of a block of images, and the inner
//! dimension is the channels of a tap; in the gradient of the weight it holds 16 channels and 16 outputs, and the inner
//! dimension is the images of a pixel, of two blocks of 16 so that it is as deep as a tile. This is the direct form, as in
//! [`super::dot_pairs`]. What a task needs of the maps is brought into pairs of channels (or the gradients into pairs of
//! images) in the second cache, once for all taps and outputs.

mod pairs;
mod sweep;
mod weight;

pub(super) use sweep::{TileConv, Weight};
pub(super) use weight::weight_grad;

use super::winograd::suits;
use crate::tensor::check::ConvShape;
use half::bf16;
use infomax_simd::Stored;
use infomax_simd::tiles::{Cost, Factors, PAIRS, ROWS, pieces};

/// Outputs of two tiles.
const WIDTH: usize = 2 * ROWS;

/// Maps that tiles multiply.
#[derive(Clone, Copy)]
pub(super) enum Maps<'a> {
    /// As they are.
    Rounded(&'a [bf16]),
    /// In two parts each.
    Split(&'a [f32]),
}

impl<'a> Maps<'a> {
    /// Those of a type that tiles multiply.
    pub(super) fn of<E: Stored>(values: &'a [E]) -> Option<Self> {
        E::as_bf16(values).map(Self::Rounded).or_else(|| E::as_f32(values).map(Self::Split))
    }

    /// Those with weights in f32, which both have.
    pub(super) fn with<E: Stored>(values: &'a [E], weight: &'a [E::Real]) -> Option<(Self, &'a [f32])> {
        Self::of(values).zip(E::Real::as_f32(weight))
    }

    pub(super) fn factors(self) -> Factors {
        match self {
            Self::Rounded(_) => Factors::Rounded,
            Self::Split(_) => Factors::Split,
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Rounded(values) => values.len(),
            Self::Split(values) => values.len(),
        }
    }

    #[inline(always)]
    fn line(self, at: usize, len: usize) -> Self {
        match self {
            Self::Rounded(values) => Self::Rounded(&values[at..at + len]),
            Self::Split(values) => Self::Split(&values[at..at + len]),
        }
    }
}

/// One of the three passes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pass {
    Forward,
    InputGrad,
    WeightGrad,
}

/// Whether tiles are expected to be faster than the best form in f32: a function of the shape alone, by [`Cost`].
/// What Winograd's form saves was measured beside tiles (`docs/kernels-speed.md`).
pub(super) fn pays(d: &ConvShape, blocks: usize, lanes: usize, pass: Pass, factors: Factors) -> bool {
    let (terms, parts) = (factors.terms().len() as f64, factors.parts() as f64);
    let taps = d.r * d.s;
    let padded = |x: usize| x.next_multiple_of(WIDTH);
    let (pixels, sources) = (blocks * d.p * d.q, blocks * d.h * d.w);
    let flop = 2.0 * (pixels * lanes * d.k * d.c * taps) as f64;
    let weights = (padded(d.k) * padded(d.c) * taps) as f64 * parts;
    // Instructions for each pixel, of the four for two pixels and 32 outputs.
    let swept = |outputs: usize, channels: usize| 2.0 * (padded(outputs) / WIDTH * pieces(channels).0) as f64;
    let cost = match pass {
        Pass::Forward => Cost {
            tiles: (pixels * taps) as f64 * swept(d.k, d.c) * terms,
            packed: (sources * lanes * d.c) as f64 * parts + weights,
        },
        Pass::InputGrad => Cost {
            tiles: (pixels * taps) as f64 * swept(d.c, d.k) * terms,
            packed: (pixels * lanes * d.k) as f64 * parts + weights,
        },
        Pass::WeightGrad => {
            let joined = (2 * PAIRS / lanes).min(blocks);
            let places = blocks.div_ceil(joined) * d.p * d.q;
            Cost {
                tiles: 4.0 * (places * taps * (padded(d.c) / WIDTH) * (padded(d.k) / WIDTH)) as f64 * terms,
                // The sums are read and written a few times.
                packed: ((pixels * d.k + sources * d.c) * lanes) as f64 * if parts > 1.0 { 3.5 } else { 1.0 }
                    + 3.0 * weights / parts,
            }
        }
    };
    // What Winograd's form saves; the direct form is slower in the gradient of the weight. Then what the source costs.
    let (saved, moved) = match (suits(d), pass) {
        (true, Pass::WeightGrad) => (2.4, 1.5),
        (false, Pass::WeightGrad) => (0.6, 1.5),
        (true, _) => (2.6, 0.7),
        (false, _) => (1.0, 0.7),
    };
    let channels = if pass == Pass::InputGrad { pixels * d.k } else { sources * d.c };
    cost.beats(flop, saved, moved * (channels * lanes) as f64)
}
