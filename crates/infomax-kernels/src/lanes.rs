//! Loops that the compiler turns into vectors, compiled once for each instruction set.
//!
//! A [`Task`] is plain safe code over slices. [`run`] compiles it for AVX-512, for AVX2 with FMA, and for what
//! the target always has (SSE2 on x86-64, NEON on aarch64), and picks one at run time. Everything below
//! [`Task::run`] must be `inline(always)`, so that it lands inside of the functions with `target_feature`.
//! The kernels of convolution, whose register tiles matter, use the explicit vectors of `simd` instead.

use crate::simd::{Float, Isa, Shared, filled};
use rayon::prelude::*;

/// The accumulators of a sum: as many as the lanes of the widest vector, whatever the instruction set, so that
/// the order of summation does not depend on it.
pub(crate) const WIDTH: usize = 16;

/// How `a * b + c` is computed.
pub(crate) trait Arith: Copy + 'static {
    fn fma<T: Real>(a: T, b: T, c: T) -> T;
}

/// With one rounding, where the machine has the instruction.
#[derive(Clone, Copy)]
pub(crate) struct Fused;

impl Arith for Fused {
    #[inline(always)]
    fn fma<T: Real>(a: T, b: T, c: T) -> T {
        a.mul_add(b, c)
    }
}

/// With two roundings: without the instruction `mul_add` would be a call for each element.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

impl Arith for Plain {
    #[inline(always)]
    fn fma<T: Real>(a: T, b: T, c: T) -> T {
        a * b + c
    }
}

/// Work that is compiled for each instruction set.
pub(crate) trait Task {
    /// What it returns.
    type Out;
    /// The implementation must be `inline(always)`.
    fn run<A: Arith>(self) -> Self::Out;
}

/// Runs `task` with the instructions of `isa`, or with the best below it that this machine has.
pub(crate) fn run<K: Task>(isa: Isa, task: K) -> K::Out {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn avx2<K: Task>(task: K) -> K::Out {
            task.run::<Fused>()
        }
        #[target_feature(enable = "avx2,fma,avx512f")]
        fn avx512<K: Task>(task: K) -> K::Out {
            task.run::<Fused>()
        }
        let available = Isa::available();
        if matches!(isa, Isa::Avx512 | Isa::Avx512Bf16) && available.contains(&Isa::Avx512) {
            // SAFETY: the features were just detected.
            return unsafe { avx512(task) };
        }
        if isa != Isa::Portable && available.contains(&Isa::Avx2) {
            // SAFETY: the features were just detected.
            return unsafe { avx2(task) };
        }
    }
    let _ = isa;
    // Every aarch64 has the instruction.
    if cfg!(target_arch = "aarch64") { task.run::<Fused>() } else { task.run::<Plain>() }
}

/// f32 or f64, with the functions of one element.
pub(crate) trait Real:
    Float + std::ops::Neg<Output = Self> + std::ops::MulAssign + std::ops::SubAssign
{
    const ZERO: Self;
    const ONE: Self;
    fn mul_add(self, b: Self, c: Self) -> Self;
    fn sqrt(self) -> Self;
    /// `e^x`.
    fn exp<A: Arith>(self) -> Self;
    /// `ln x`, for one value of a row: not vectorised.
    fn ln(self) -> Self;
    /// The distribution function and the density of the standard normal distribution.
    fn normal<A: Arith>(self) -> (Self, Self);
    /// The error function.
    fn erf<A: Arith>(self) -> Self;
    /// The hyperbolic tangent.
    fn tanh<A: Arith>(self) -> Self;

    /// `1 / (1 + e^-x)`.
    #[inline(always)]
    fn sigmoid<A: Arith>(self) -> Self {
        // `e^-x` is inf for very negative x, which gives 0 as it must.
        Self::ONE / (Self::ONE + (-self).exp::<A>())
    }

    /// The larger one; `other` if `self` is NaN.
    #[inline(always)]
    fn larger(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
}

/// The sum of `f` over the indices of a row of `len` elements, in an order that depends on `len` only.
#[inline(always)]
pub(crate) fn sum<T: Real>(len: usize, f: impl Fn(usize) -> T) -> T {
    let mut lanes = [T::ZERO; WIDTH];
    let whole = len / WIDTH * WIDTH;
    let mut at = 0;
    while at < whole {
        for l in 0..WIDTH {
            lanes[l] += f(at + l);
        }
        at += WIDTH;
    }
    for l in 0..len - whole {
        lanes[l] += f(whole + l);
    }
    fold(&lanes, |a, b| a + b)
}

/// The largest of a row; NaN is passed over unless it comes last, so callers check the sum that follows.
#[inline(always)]
pub(crate) fn max<T: Real>(xs: &[T]) -> T {
    let mut lanes = [T::of(f64::NEG_INFINITY); WIDTH];
    let mut chunks = xs.chunks_exact(WIDTH);
    for chunk in &mut chunks {
        for l in 0..WIDTH {
            lanes[l] = chunk[l].larger(lanes[l]);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = x.larger(*lane);
    }
    fold(&lanes, |a, b| a.larger(b))
}

/// Halves the lanes until one is left.
#[inline(always)]
fn fold<T: Copy>(lanes: &[T; WIDTH], f: impl Fn(T, T) -> T) -> T {
    let mut lanes = *lanes;
    let mut half = WIDTH / 2;
    while half > 0 {
        for l in 0..half {
            lanes[l] = f(lanes[l], lanes[l + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// A vector of `len` elements, written chunk by chunk in parallel: `f(i, chunk)` must write all of its chunk,
/// of `chunk` elements or fewer in the last one, before it reads any of it.
pub(crate) fn chunked<T: Float>(len: usize, chunk: usize, f: impl Fn(usize, &mut [T]) + Sync) -> Vec<T> {
    // SAFETY: the chunks cover every element, and `f` writes all of its chunk.
    unsafe {
        filled(len, |out: Shared<T>| {
            (0..len.div_ceil(chunk.max(1))).into_par_iter().for_each(|i| {
                let first = i * chunk;
                // SAFETY: in bounds, and chunks are disjoint. Floats have no invalid bit pattern, and the
                // contents are written before they are read.
                let chunk = std::slice::from_raw_parts_mut(out.get().add(first), chunk.min(len - first));
                f(i, chunk);
            });
        })
    }
}

/// Two vectors at once, of `chunk.0` and `chunk.1` elements a task; otherwise as [`chunked`].
pub(crate) fn chunked2<T: Float>(
    len: (usize, usize),
    chunk: (usize, usize),
    f: impl Fn(usize, &mut [T], &mut [T]) + Sync,
) -> (Vec<T>, Vec<T>) {
    let mut second: Vec<T> = Vec::with_capacity(len.1);
    let other = Shared::new(second.as_mut_ptr());
    let first = chunked(len.0, chunk.0, |i, own| {
        let first = (i * chunk.1).min(len.1);
        // SAFETY: as in `chunked`.
        let twin =
            unsafe { std::slice::from_raw_parts_mut(other.get().add(first), chunk.1.min(len.1 - first)) };
        f(i, own, twin);
    });
    debug_assert_eq!(len.0.div_ceil(chunk.0.max(1)), len.1.div_ceil(chunk.1.max(1)));
    // SAFETY: both have the same number of chunks, so `f` was called for each of the second ones too.
    unsafe { second.set_len(len.1) };
    (first, second)
}

/// Rows of `width` elements that make a task of about 16 KiB: enough to pay for its start, and in the cache.
pub(crate) fn rows_per_task(width: usize) -> usize {
    (4096 / width.max(1)).max(1)
}

/// The sum of the rows of `parts`, in order, in f64.
pub(crate) fn add_rows<T: Real>(parts: &[T], width: usize) -> Vec<T> {
    let mut total = vec![0f64; width];
    for row in parts.chunks_exact(width) {
        for (t, x) in total.iter_mut().zip(row) {
            *t += x.f64();
        }
    }
    total.into_iter().map(T::of).collect()
}
