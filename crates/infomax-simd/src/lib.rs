//! Instruction sets, vectors of f32, f64 and bf16, elementary functions, and packed matrix products, without
//! tensors: the floor that the kernels, the augmentations and the decoders of `infomax` stand on.
//!
//! | item | what it is |
//! |---|---|
//! | [`Isa`] | the instruction sets of this machine, and which one is used |
//! | [`Simd`], [`Kernel`], [`Float::dispatch`] | explicit vectors: a kernel is written once and compiled for each set |
//! | [`Task`], [`run`] | loops that the compiler vectorizes, compiled for each set by the same dispatcher |
//! | [`Stored`] | how values lie in memory (f32, f64, bf16) beside how they are computed with |
//! | [`Real`], [`elementary`] | exponential, error function, circular functions, branch-free |
//! | [`pairs`] | dot products of pairs of bf16 (AVX512_BF16), with their exact emulation |
//! | [`tiles`] | products of tiles of bf16 (AMX), with their exact emulation; f32 by three of them |
//! | [`gemm`] | register tiles, and products with a packed right side |
//! | [`bytes`] | vectors of bytes and words for pixels, by the crate `pulp` |
//! | [`MachineLimits`] | what this machine could do at most |
//!
//! Unsafe code is allowed here, in `infomax-kernels` and in `infomax-cuda` only. Everything is deterministic: a sum has one order,
//! whatever the number of threads.
#![allow(unsafe_code)]

pub mod bytes;
mod element;
pub mod elementary;
pub mod gemm;
mod isa;
mod lanes;
mod limits;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod pairs;
mod real;
pub mod tiles;
mod vectors;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use element::{Stored, Values};
pub use half;
pub use isa::Isa;
pub use lanes::{
    Arith, Fused, Plain, Real, Task, WIDTH, add_rows, chunked, chunked2, max, rows_per_task, run, sum,
};
pub use limits::MachineLimits;
pub use vectors::{Float, Kernel, LINE, Portable, Scratch, Shared, Simd, filled, grow, line_room, lined};

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
