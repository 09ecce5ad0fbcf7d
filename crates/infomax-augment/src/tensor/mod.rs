//! The arithmetic of torchvision on tensors of `uint8`, in single precision.
//!
//! torchvision has two interfaces for tensors, `transforms.functional` and `transforms.v2.functional`. They
//! share the formulas and differ in the order of operations: where the first adds a product in two roundings,
//! the second does in one (`FUSED` below); the first resizes in single precision, the second in fixed point
//! (`crate::resample`). The plain loops here are written for the compiler to turn into vectors.

pub(crate) mod affine;
pub(crate) mod color;
pub(crate) mod hue;
pub(crate) mod resize;

/// `a b + c`, in one rounding if `FUSED`, else in two.
#[inline(always)]
fn product_plus<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}
