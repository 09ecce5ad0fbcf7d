//! Test support of the workspace: gradient checks, tolerances, and golden files.
//!
//! Unpublished. Knows only Candle, so that every crate can use it as a dev-dependency.

mod close;
mod gradcheck;

pub use candle_core;
pub use close::{Tolerance, assert_close, max_error};
pub use gradcheck::{GradCheck, assert_all_grads, gradcheck};

use candle_core::{Device, Tensor};

/// A deterministic tensor of well-spread values in `(-scale, scale)`, f64: a low-discrepancy sequence, so
/// that no two are equal and none is at a kink of the usual functions.
pub fn spread(shape: &[usize], seed: u64, scale: f64) -> Tensor {
    let n: usize = shape.iter().product();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03;
    let values: Vec<f64> = (0..n)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut x = state;
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^= x >> 31;
            scale * (2.0 * ((x >> 11) as f64 + 0.5) / (1u64 << 53) as f64 - 1.0)
        })
        .collect();
    #[allow(clippy::expect_used)]
    Tensor::from_vec(values, shape, &Device::Cpu).expect("a shape with as many elements as were drawn")
}

/// Reads a golden `.npy` file of the calling crate.
///
/// # Errors
/// A missing or malformed file, with its path.
pub fn read_npy(path: impl AsRef<std::path::Path>) -> candle_core::Result<Tensor> {
    let path = path.as_ref();
    Tensor::read_npy(path).map_err(|e| e.context(format!("reading {}", path.display())))
}

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
