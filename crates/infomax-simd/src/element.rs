//! How values lie in memory beside how they are computed with: the same for f32 and f64, bf16 for f32.
//!
//! bf16 is the upper half of an f32: widening is exact, and rounding goes to the nearest, ties to even, as
//! [`half::bf16::from_f32`]. Infinities and subnormal numbers stay, and NaN stays NaN.

use crate::vectors::{Float, Simd};
use half::bf16;
use std::sync::Mutex;

/// A value in memory, computed with as [`Stored::Real`].
pub trait Stored: Copy + std::fmt::Debug + Default + Send + Sync + 'static {
    /// The type of the arithmetic.
    type Real: Float;

    /// The value, widened.
    fn wide(self) -> Self::Real;

    /// The value, rounded to the nearest, ties to even.
    fn narrow(x: Self::Real) -> Self;

    /// # Safety
    /// As [`Simd::load`].
    unsafe fn load<S: Simd<T = Self::Real>>(p: *const Self) -> S::V;

    /// Rounds.
    ///
    /// # Safety
    /// As [`Simd::store`].
    unsafe fn store<S: Simd<T = Self::Real>>(p: *mut Self, v: S::V);

    /// What [`Stored::store`] and [`Stored::load`] make of a vector.
    ///
    /// # Safety
    /// The instruction set must be present.
    unsafe fn rounded<S: Simd<T = Self::Real>>(v: S::V) -> S::V;

    /// [`Simd::transpose`], widening.
    ///
    /// # Safety
    /// As there.
    unsafe fn transpose_wide<S: Simd<T = Self::Real>>(
        from: *const Self,
        from_pitch: usize,
        to: *mut Self::Real,
        to_pitch: usize,
    );

    /// [`Simd::transpose`], rounding.
    ///
    /// # Safety
    /// As there.
    unsafe fn transpose_narrow<S: Simd<T = Self::Real>>(
        from: *const Self::Real,
        from_pitch: usize,
        to: *mut Self,
        to_pitch: usize,
    );

    /// The values of the arithmetic: `from` itself where nothing is to be done, else `buffer`.
    ///
    /// # Safety
    /// `from` and, for narrow types, `buffer` must be valid for `len` elements, whole vectors.
    unsafe fn widened<S: Simd<T = Self::Real>>(
        from: *const Self,
        len: usize,
        buffer: *mut Self::Real,
    ) -> *const Self::Real;

    /// Elements that [`Stored::widened`] needs for `len`.
    fn widened_len(len: usize) -> usize;

    /// The slice itself where its type is bf16, for the instructions that multiply bf16.
    fn as_bf16(_: &[Self]) -> Option<&[bf16]> {
        None
    }

    /// The slice itself where its type is f32.
    fn as_f32(_: &[Self]) -> Option<&[f32]> {
        None
    }

    /// The slice itself where its type is f32.
    fn as_f32_mut(_: &mut [Self]) -> Option<&mut [f32]> {
        None
    }

    /// A slice of f32 where this type is f32.
    fn of_f32_mut(_: &mut [f32]) -> Option<&mut [Self]> {
        None
    }

    /// The vector under the name of its type.
    fn typed(values: Vec<Self>) -> Values;

    /// Buffers between their users: see `Pooled` of the kernels.
    fn spare() -> &'static Mutex<Vec<Vec<Self>>>;
}

/// A vector of one of the types that are [`Stored`].
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Of f32.
    F32(Vec<f32>),
    /// Of f64.
    F64(Vec<f64>),
    /// Of bf16.
    Bf16(Vec<bf16>),
}

macro_rules! itself {
    ($t:ty, $name:ident, $single:expr, $single_mut:expr, $of_single:expr) => {
        impl Stored for $t {
            type Real = $t;

            #[inline(always)]
            fn wide(self) -> $t {
                self
            }

            #[inline(always)]
            fn narrow(x: $t) -> $t {
                x
            }

            #[inline(always)]
            unsafe fn load<S: Simd<T = $t>>(p: *const $t) -> S::V {
                // SAFETY: passed on.
                unsafe { S::load(p) }
            }

            #[inline(always)]
            unsafe fn store<S: Simd<T = $t>>(p: *mut $t, v: S::V) {
                // SAFETY: passed on.
                unsafe { S::store(p, v) }
            }

            #[inline(always)]
            unsafe fn rounded<S: Simd<T = $t>>(v: S::V) -> S::V {
                v
            }

            #[inline(always)]
            unsafe fn transpose_wide<S: Simd<T = $t>>(
                from: *const $t,
                from_pitch: usize,
                to: *mut $t,
                to_pitch: usize,
            ) {
                // SAFETY: passed on.
                unsafe { S::transpose(from, from_pitch, to, to_pitch) }
            }

            #[inline(always)]
            unsafe fn transpose_narrow<S: Simd<T = $t>>(
                from: *const $t,
                from_pitch: usize,
                to: *mut $t,
                to_pitch: usize,
            ) {
                // SAFETY: passed on.
                unsafe { S::transpose(from, from_pitch, to, to_pitch) }
            }

            #[inline(always)]
            unsafe fn widened<S: Simd<T = $t>>(from: *const $t, _: usize, _: *mut $t) -> *const $t {
                from
            }

            fn widened_len(_: usize) -> usize {
                0
            }

            fn as_f32(values: &[$t]) -> Option<&[f32]> {
                let single: fn(&[$t]) -> Option<&[f32]> = $single;
                single(values)
            }

            fn as_f32_mut(values: &mut [$t]) -> Option<&mut [f32]> {
                let single: fn(&mut [$t]) -> Option<&mut [f32]> = $single_mut;
                single(values)
            }

            fn of_f32_mut(values: &mut [f32]) -> Option<&mut [$t]> {
                let own: fn(&mut [f32]) -> Option<&mut [$t]> = $of_single;
                own(values)
            }

            fn typed(values: Vec<$t>) -> Values {
                Values::$name(values)
            }

            fn spare() -> &'static Mutex<Vec<Vec<$t>>> {
                static SPARE: Mutex<Vec<Vec<$t>>> = Mutex::new(Vec::new());
                &SPARE
            }
        }
    };
}

itself!(f32, F32, |values| Some(values), |values| Some(values), |values| Some(values));
itself!(f64, F64, |_| None, |_| None, |_| None);

/// The largest vector.
const LANES: usize = 16;

impl Stored for bf16 {
    type Real = f32;

    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn narrow(x: f32) -> Self {
        Self::from_bits((round_bits(x) >> 16) as u16)
    }

    #[inline(always)]
    unsafe fn load<S: Simd<T = f32>>(p: *const Self) -> S::V {
        // SAFETY: passed on.
        unsafe { S::load_bf16(p) }
    }

    #[inline(always)]
    unsafe fn store<S: Simd<T = f32>>(p: *mut Self, v: S::V) {
        // SAFETY: passed on.
        unsafe { S::store_bf16(p, v) }
    }

    #[inline(always)]
    unsafe fn rounded<S: Simd<T = f32>>(v: S::V) -> S::V {
        // SAFETY: passed on.
        unsafe { S::round_bf16(v) }
    }

    #[inline(always)]
    unsafe fn transpose_wide<S: Simd<T = f32>>(
        from: *const Self,
        from_pitch: usize,
        to: *mut f32,
        to_pitch: usize,
    ) {
        let mut square = [0.0; LANES * LANES];
        // SAFETY: rows of the caller's square and of this one, which has room for the largest vector.
        unsafe {
            for i in 0..S::LANES {
                S::store(square.as_mut_ptr().add(i * LANES), S::load_bf16(from.add(i * from_pitch)));
            }
            S::transpose(square.as_ptr(), LANES, to, to_pitch);
        }
    }

    #[inline(always)]
    unsafe fn transpose_narrow<S: Simd<T = f32>>(
        from: *const f32,
        from_pitch: usize,
        to: *mut Self,
        to_pitch: usize,
    ) {
        let mut square = [0.0; LANES * LANES];
        // SAFETY: the caller's square is read, this one has room for the largest vector, and each row is written
        // whole.
        unsafe {
            S::transpose(from, from_pitch, square.as_mut_ptr(), LANES);
            for i in 0..S::LANES {
                S::store_bf16(to.add(i * to_pitch), S::load(square.as_ptr().add(i * LANES)));
            }
        }
    }

    #[inline(always)]
    unsafe fn widened<S: Simd<T = f32>>(from: *const Self, len: usize, buffer: *mut f32) -> *const f32 {
        for x in (0..len).step_by(S::LANES) {
            // SAFETY: whole vectors of both.
            unsafe { S::store(buffer.add(x), S::load_bf16(from.add(x))) };
        }
        buffer
    }

    fn widened_len(len: usize) -> usize {
        len
    }

    fn as_bf16(values: &[Self]) -> Option<&[bf16]> {
        Some(values)
    }

    fn typed(values: Vec<Self>) -> Values {
        Values::Bf16(values)
    }

    fn spare() -> &'static Mutex<Vec<Vec<Self>>> {
        static SPARE: Mutex<Vec<Vec<bf16>>> = Mutex::new(Vec::new());
        &SPARE
    }
}

/// The bits of `x` rounded to bf16, without a branch.
#[inline(always)]
pub(crate) fn round_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    // Ties go to the even one. The largest finite numbers overflow into infinity, as they should.
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // A NaN whose payload is in the lower half would become an infinity.
    let bits = if x.is_nan() { bits | 0x0040_0000 } else { rounded };
    bits & 0xffff_0000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::vectors::Kernel;

    /// Rounds a slice to bf16, vectors and then single values, and widens it again.
    struct RoundTrip<'a> {
        xs: &'a [f32],
        to: &'a mut [bf16],
        back: &'a mut [f32],
        rounded: &'a mut [f32],
    }

    impl Kernel<f32> for RoundTrip<'_> {
        type Out = ();
        #[inline(always)]
        unsafe fn run<S: Simd<T = f32>>(self) {
            for i in (0..self.xs.len()).step_by(S::LANES) {
                // SAFETY: the test gives slices of whole vectors, all of one length.
                unsafe {
                    let x = S::load(self.xs.as_ptr().add(i));
                    <bf16 as Stored>::store::<S>(self.to.as_mut_ptr().add(i), x);
                    let back = <bf16 as Stored>::load::<S>(self.to.as_ptr().add(i));
                    S::store(self.back.as_mut_ptr().add(i), back);
                    S::store(self.rounded.as_mut_ptr().add(i), <bf16 as Stored>::rounded::<S>(x));
                }
            }
        }
    }

    fn check(bits: impl Iterator<Item = u32>) {
        let mut xs: Vec<f32> = bits.map(f32::from_bits).collect();
        xs.resize(xs.len().next_multiple_of(LANES), 0.0);
        for isa in Isa::available() {
            let mut to = vec![bf16::ZERO; xs.len()];
            let (mut back, mut rounded) = (vec![0.0; xs.len()], vec![0.0; xs.len()]);
            f32::dispatch(*isa, RoundTrip { xs: &xs, to: &mut to, back: &mut back, rounded: &mut rounded });
            for i in 0..xs.len() {
                let (x, expected) = (xs[i], bf16::from_f32(xs[i]));
                let name = format!("{isa:?} {:#010x}", x.to_bits());
                assert_eq!(to[i].to_bits(), expected.to_bits(), "{name}");
                assert_eq!(bf16::narrow(x).to_bits(), expected.to_bits(), "{name}, a single value");
                assert_eq!(back[i].to_bits(), expected.to_f32().to_bits(), "{name}, widened");
                assert_eq!(expected.wide().to_bits(), expected.to_f32().to_bits(), "{name}, one widened");
                assert_eq!(rounded[i].to_bits(), back[i].to_bits(), "{name}, rounded in a register");
            }
        }
    }

    #[test]
    fn rounding_is_that_of_half() {
        // Every upper half (all exponents, infinities, NaN, subnormals) before lower halves around a tie.
        let step = if cfg!(miri) { 97 } else { 1 };
        for low in [0u32, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
            check((0..=0xffffu32).step_by(step).map(|high| high << 16 | low));
        }
        // Bits of all kinds.
        let count = if cfg!(miri) { 64 } else { 1 << 18 };
        check((0..count).map(|i: u32| i.wrapping_mul(2_654_435_761).rotate_left(7)));
    }

    #[test]
    fn what_is_special_stays() {
        let through = |x: f32| bf16::narrow(x).wide();
        assert!(through(f32::from_bits(0x7f80_0001)).is_nan() && through(-f32::NAN).is_nan());
        assert_eq!(through(f32::NEG_INFINITY), f32::NEG_INFINITY);
        assert_eq!(through(f32::MAX), f32::INFINITY);
        assert_eq!(through(-0.0).to_bits(), (-0.0f32).to_bits());
        let smallest = f32::from_bits(0x0001_0000);
        assert!(smallest.is_subnormal() && through(smallest) == smallest);
    }

    #[test]
    fn squares_are_turned() {
        struct Turned<'a>(&'a [bf16], &'a mut [f32], &'a mut [bf16]);
        impl Kernel<f32> for Turned<'_> {
            type Out = usize;
            #[inline(always)]
            unsafe fn run<S: Simd<T = f32>>(self) -> usize {
                // SAFETY: squares of 16 rows, 17 apart.
                unsafe {
                    bf16::transpose_wide::<S>(self.0.as_ptr(), 17, self.1.as_mut_ptr(), 17);
                    bf16::transpose_narrow::<S>(self.1.as_ptr(), 17, self.2.as_mut_ptr(), 17);
                }
                S::LANES
            }
        }
        let from: Vec<bf16> = (0..LANES * 17).map(|i| bf16::from_f32(i as f32)).collect();
        for isa in Isa::available() {
            let (mut wide, mut again) = (vec![0.0; from.len()], vec![bf16::ZERO; from.len()]);
            let lanes = f32::dispatch(*isa, Turned(&from, &mut wide, &mut again));
            for (i, j) in (0..lanes).flat_map(|i| (0..lanes).map(move |j| (i, j))) {
                assert_eq!(wide[j * 17 + i], from[i * 17 + j].to_f32(), "{isa:?} {i} {j}");
                assert_eq!(again[i * 17 + j], from[i * 17 + j], "{isa:?} {i} {j}");
            }
        }
    }
}
