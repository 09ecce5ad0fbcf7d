//! What the vectors of x86-64 are made of beside single intrinsics.

pub(crate) mod avx512;
pub(crate) mod bf16;
