//! Which instructions there are.

/// The AVX2 instructions, in code that is compiled for them: the answer is known to the compiler.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn v3<S: pulp::Simd>(simd: S) -> Option<pulp::x86::V3> {
    (&simd as &dyn std::any::Any).downcast_ref::<pulp::x86::V3>().copied()
}
