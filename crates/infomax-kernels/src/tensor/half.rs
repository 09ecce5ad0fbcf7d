//! Half precision: bf16 and f16 are storage; the operations compute in f32 and round once at the end.

use crate::Result;
use candle_core::{DType, Tensor};

/// True for the types that are stored in 16 bits.
pub(crate) fn half(xs: &Tensor) -> bool {
    matches!(xs.dtype(), DType::BF16 | DType::F16)
}

/// The tensor in f32; differentiable. Parameters beside a half-precision input may be in any float type.
pub(crate) fn wide(xs: &Tensor) -> Result<Tensor> {
    Ok(xs.to_dtype(DType::F32)?)
}

/// [`wide`] of what may be missing.
pub(crate) fn wide_option(xs: Option<&Tensor>) -> Result<Option<Tensor>> {
    xs.map(wide).transpose()
}
