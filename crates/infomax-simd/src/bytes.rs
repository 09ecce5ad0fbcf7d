//! Vectors of bytes and words for pixels: the crate `pulp`, with the choice of this crate.

pub use pulp::{Scalar, Simd, WithSimd, cast};

#[cfg(target_arch = "x86_64")]
pub use pulp::x86::V3;

use crate::Isa;

/// Runs an operation with the vectors of this machine that [`Isa`] allows: those of AVX2 where there are any, also on
/// machines with wider ones. The operations are written for them ([`v3`]), and whether `pulp` knows AVX-512 depends
/// on what other crates of a program ask of it.
pub fn dispatch<Op: WithSimd>(op: Op) -> Op::Output {
    if Isa::detect() == Isa::Portable {
        return pulp::Arch::Scalar.dispatch(op);
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = V3::try_new() {
        return Simd::vectorize(simd, op);
    }
    pulp::Arch::new().dispatch(op)
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
