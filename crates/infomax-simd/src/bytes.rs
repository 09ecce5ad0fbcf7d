//! Vectors of bytes and words for pixels: the crate `pulp`, with the choice of this crate.

pub use pulp::{Scalar, Simd, WithSimd, cast};

#[cfg(target_arch = "x86_64")]
pub use pulp::x86::V3;

use crate::Isa;

/// Runs an operation with the best vectors of this machine that [`Isa`] allows.
pub fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    match Isa::detect() {
        Isa::Portable => pulp::Arch::Scalar.dispatch(op),
        _ => pulp::Arch::new().dispatch(op),
    }
}

/// Runs an operation as a function of its own: inlined into a large one, its inner loops would share registers
/// with everything around them.
#[inline(never)]
pub fn alone<S: Simd, Op: WithSimd>(simd: S, op: Op) -> Op::Output {
    simd.vectorize(op)
}

/// The AVX2 instructions, in code that is compiled for them: the answer is known to the compiler.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn v3<S: Simd>(simd: S) -> Option<V3> {
    (&simd as &dyn std::any::Any).downcast_ref::<V3>().copied()
}
