//! Which instructions there are.

/// Runs an operation as a function of its own: inlined into a large one, its inner loops would share registers
/// with everything around them.
#[inline(never)]
pub(crate) fn alone<S: pulp::Simd, Op: pulp::WithSimd>(simd: S, op: Op) -> Op::Output {
    simd.vectorize(op)
}

/// The AVX2 instructions, in code that is compiled for them: the answer is known to the compiler.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn v3<S: pulp::Simd>(simd: S) -> Option<pulp::x86::V3> {
    (&simd as &dyn std::any::Any).downcast_ref::<pulp::x86::V3>().copied()
}
