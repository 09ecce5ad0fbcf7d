//! Comparison with a tolerance.

use candle_core::{DType, Tensor};

/// `|a - b| <= abs + rel * max|b|`: relative to the largest element, as is right for sums.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Relative to the largest absolute expected value.
    pub rel: f64,
    /// Absolute.
    pub abs: f64,
}

impl Tolerance {
    /// A relative tolerance with a tiny absolute floor.
    pub fn rel(rel: f64) -> Self {
        Self { rel, abs: 1e-300 }
    }

    /// The default of a dtype: room for the rounding of a few hundred summands.
    pub fn of(dtype: DType) -> Self {
        match dtype {
            DType::F64 => Self { rel: 1e-11, abs: 1e-14 },
            DType::F32 => Self { rel: 2e-5, abs: 1e-7 },
            _ => Self { rel: 2e-2, abs: 1e-3 },
        }
    }
}

/// The largest absolute difference, and the largest absolute expected value.
pub fn max_error(got: &Tensor, expected: &Tensor) -> candle_core::Result<(f64, f64)> {
    let flat = |t: &Tensor| t.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    let (got, expected) = (flat(got)?, flat(expected)?);
    let mut error = 0f64;
    let mut scale = 0f64;
    for (g, e) in got.iter().zip(&expected) {
        let d = (g - e).abs();
        error = if d.is_nan() && !(g.is_nan() && e.is_nan()) { f64::INFINITY } else { error.max(d) };
        scale = scale.max(e.abs());
    }
    Ok((error, scale))
}

/// Asserts equal shapes and values within the tolerance.
///
/// # Panics
/// With the name, both magnitudes and the worst error, if they differ.
#[allow(clippy::panic, clippy::expect_used)]
#[track_caller]
pub fn assert_close(name: &str, got: &Tensor, expected: &Tensor, tolerance: Tolerance) {
    assert_eq!(got.dims(), expected.dims(), "{name}: shapes");
    let (error, scale) = max_error(got, expected).expect("comparable tensors");
    let allowed = tolerance.abs + tolerance.rel * scale;
    assert!(error <= allowed, "{name}: error {error:e} exceeds {allowed:e} (largest value {scale:e})");
}
