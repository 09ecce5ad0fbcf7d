//! Loops that the compiler turns into vectors, compiled once for each instruction set.
//!
//! A [`Task`] is plain safe code over slices. [`run`] compiles it for AVX-512, for AVX2 with FMA, and for what
//! the target always has (SSE2 on x86-64, NEON on aarch64), and picks one at run time. Everything below
//! [`Task::run`] must be `inline(always)`, so that it lands inside of the functions with `target_feature`.
//! The kernels of convolution, whose register tiles matter, use the explicit vectors of `simd` instead.

use crate::isa::Isa;
use crate::vectors::{Float, Kernel, Simd};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// The accumulators of a sum: as many as the lanes of the widest vector, whatever the instruction set, so that
/// the order of summation does not depend on it.
pub const WIDTH: usize = 16;

/// How `a * b + c` is computed.
pub trait Arith: Copy + 'static {
    /// `a * b + c`.
    fn fma<T: Real>(a: T, b: T, c: T) -> T;
}

/// With one rounding, where the machine has the instruction.
#[derive(Clone, Copy, Debug)]
pub struct Fused;

impl Arith for Fused {
    #[inline(always)]
    fn fma<T: Real>(a: T, b: T, c: T) -> T {
        a.mul_add(b, c)
    }
}

/// With two roundings: without the instruction `mul_add` would be a call for each element.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Arith for Plain {
    #[inline(always)]
    fn fma<T: Real>(a: T, b: T, c: T) -> T {
        a * b + c
    }
}

/// Work that is compiled for each instruction set.
pub trait Task {
    /// What it returns.
    type Out;
    /// The implementation must be `inline(always)`.
    fn run<A: Arith>(self) -> Self::Out;
}

/// Runs `task` with the instructions of `isa`, or with the best below it that this machine has: by the dispatcher
/// of [`Float`].
pub fn run<K: Task>(isa: Isa, task: K) -> K::Out {
    struct AsKernel<K>(K);
    impl<K: Task> Kernel<f32> for AsKernel<K> {
        type Out = K::Out;
        #[inline(always)]
        unsafe fn run<S: Simd<T = f32>>(self) -> K::Out {
            self.0.run::<S::Arith>()
        }
    }
    f32::dispatch(isa, AsKernel(task))
}

/// f32 or f64, with the functions of one element.
pub trait Real: Float + std::ops::Neg<Output = Self> {
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// `self * b + c` with one rounding.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// `e^x`.
    fn exp<A: Arith>(self) -> Self;
    /// `ln x`, for one value of a row: not vectorized.
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
pub fn sum<T: Real>(len: usize, f: impl Fn(usize) -> T) -> T {
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
pub fn max<T: Real>(xs: &[T]) -> T {
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

/// A vector of `len` elements, made chunk by chunk in parallel: `f(i, chunk)` gets zeros, `chunk` of them or fewer in
/// the last one. (Zeros that are written where they are needed next cost next to nothing, those of a whole vector
/// a pass over memory.)
pub fn chunked<T: Float>(len: usize, chunk: usize, f: impl Fn(usize, &mut [T]) + Sync) -> Vec<T> {
    let mut values = Vec::with_capacity(len);
    values.spare_capacity_mut()[..len]
        .par_chunks_mut(chunk.max(1))
        .enumerate()
        .for_each(|(i, chunk)| f(i, zeros(chunk)));
    // SAFETY: the chunks cover the first `len` elements, and `zeros` initialized each of them.
    unsafe { values.set_len(len) };
    values
}

/// Two vectors at once, of `chunk.0` and `chunk.1` elements a task; otherwise as [`chunked`].
///
/// # Panics
/// If the vectors do not have equally many chunks.
pub fn chunked2<T: Float>(
    len: (usize, usize),
    chunk: (usize, usize),
    f: impl Fn(usize, &mut [T], &mut [T]) + Sync,
) -> (Vec<T>, Vec<T>) {
    let chunk = (chunk.0.max(1), chunk.1.max(1));
    assert_eq!(len.0.div_ceil(chunk.0), len.1.div_ceil(chunk.1), "vectors of unequally many chunks");
    let (mut first, mut second) = (Vec::with_capacity(len.0), Vec::with_capacity(len.1));
    let twins = second.spare_capacity_mut()[..len.1].par_chunks_mut(chunk.1);
    first.spare_capacity_mut()[..len.0]
        .par_chunks_mut(chunk.0)
        .zip(twins)
        .enumerate()
        .for_each(|(i, (own, twin))| f(i, zeros(own), zeros(twin)));
    // SAFETY: both have the same number of chunks, as was just asserted, so that every chunk of both was
    // initialized by `zeros`.
    unsafe {
        first.set_len(len.0);
        second.set_len(len.1);
    }
    (first, second)
}

/// Initializes a slice with zeros.
fn zeros<T: Float>(slice: &mut [MaybeUninit<T>]) -> &mut [T] {
    slice.iter_mut().for_each(|x| {
        x.write(T::default());
    });
    // SAFETY: every element was just written.
    unsafe { slice.assume_init_mut() }
}

/// Rows of `width` elements that make a task of about 16 KiB: enough to pay for its start, and in the cache.
pub fn rows_per_task(width: usize) -> usize {
    (4096 / width.max(1)).max(1)
}

/// The sum of the rows of `parts`, in order, in f64.
pub fn add_rows<T: Real>(parts: &[T], width: usize) -> Vec<T> {
    let mut total = vec![0f64; width];
    for row in parts.chunks_exact(width) {
        for (t, x) in total.iter_mut().zip(row) {
            *t += x.f64();
        }
    }
    total.into_iter().map(T::of).collect()
}
