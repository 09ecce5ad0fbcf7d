//! Exponential and circular functions over slices, without branches so that they become vector code.
//!
//! In f32: own polynomials (least maximum error, fitted on the reduced interval). In f64: the exact library
//! functions.

use crate::lanes::{Arith, Real};

/// Functions of an element that objectives are made of.
pub trait Elementary: Real {
    /// `e^x` for results that are normal numbers: `x < -87.3` gives 0, `x > 88.3` is cut there. The polynomial is
    /// that of [`Real::exp`], the scaling by the power of two cheaper.
    fn exp_normal<A: Arith>(self) -> Self;
    /// `(cos x, sin x)`; absolute error in f32 below 1.5e-7 for `|x| <= 8192`.
    fn cos_sin<A: Arith>(self) -> (Self, Self);
    /// Arguments up to which a product, rounded to this type, is an angle to nearly its precision.
    const REACH: f64;
}

/// `1.5 2^23`: adding it leaves the nearest integer in the last places of the mantissa.
const MAGIC: f32 = 12_582_912.0;

impl Elementary for f32 {
    const REACH: f64 = 32.0;

    #[inline(always)]
    fn exp_normal<A: Arith>(self) -> Self {
        let x = if self > 88.3 { 88.3 } else { self };
        let (y, n) = crate::real::exp_parts::<A>(x);
        let power = f32::from_bits((n.wrapping_add(127) as u32) << 23);
        // Not below the normal numbers; a NaN stays one.
        if x < -87.3 { 0.0 } else { y * power }
    }

    #[inline(always)]
    fn cos_sin<A: Arith>(self) -> (Self, Self) {
        // x = n pi / 2 + r with |r| <= pi / 4, pi / 2 in three parts.
        let t = A::fma(self, std::f32::consts::FRAC_2_PI, MAGIC);
        let n = t - MAGIC;
        let r = A::fma(n, -1.570_312_5, self);
        let r = A::fma(n, -4.837_513e-4, r);
        let r = A::fma(n, -7.549_79e-8, r);
        let s = r * r;
        let sine = A::fma(s, -0.000_195_15, 0.008_332_16);
        let sine = A::fma(s, sine, -0.166_666_55);
        let sine = A::fma(r * s, sine, r);
        let cosine = A::fma(s, 2.443_773e-5, -0.001_388_736_1);
        let cosine = A::fma(s, cosine, 0.041_666_647);
        let cosine = A::fma(s * s, cosine, A::fma(s, -0.5, 1.0));
        // Quadrant n: cos, -sin, -cos, sin.
        let quadrant = t.to_bits();
        let odd = quadrant & 1 == 1;
        let (c, s) = if odd { (sine, cosine) } else { (cosine, sine) };
        let flip_cosine = (quadrant.wrapping_add(1) & 2) << 30;
        let flip_sine = (quadrant & 2) << 30;
        (f32::from_bits(c.to_bits() ^ flip_cosine), f32::from_bits(s.to_bits() ^ flip_sine))
    }
}

impl Elementary for f64 {
    const REACH: f64 = f64::INFINITY;

    #[inline(always)]
    fn exp_normal<A: Arith>(self) -> Self {
        f64::exp(self)
    }

    #[inline(always)]
    fn cos_sin<A: Arith>(self) -> (Self, Self) {
        let (s, c) = self.sin_cos();
        (c, s)
    }
}

/// `out_j = e^(x_j - shift_j)` for shifts that are above `x_j` but for rounding, which is large for large
/// scores: what is not below is 1.
#[inline(always)]
pub fn exp_shifted<T: Elementary, A: Arith>(x: &[T], shift: impl Fn(usize) -> T, out: &mut [T]) {
    let len = out.len();
    let x = &x[..len];
    for j in 0..len {
        let below = x[j] - shift(j);
        // A NaN is not above zero, and stays.
        out[j] = if below > T::default() { T::default() } else { below }.exp_normal::<A>();
    }
}

/// The sum of a slice, in 16 interleaved parts.
#[inline(always)]
pub fn sum<T: Real>(x: &[T]) -> T {
    let mut lanes = [T::default(); 16];
    let chunks = x.chunks_exact(16);
    let mut rest = T::default();
    for v in chunks.remainder() {
        rest += *v;
    }
    for chunk in chunks {
        for l in 0..16 {
            lanes[l] += chunk[l];
        }
    }
    for v in lanes {
        rest += v;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lanes::{Fused, Plain};

    fn worst(from: f64, to: f64, error: impl Fn(f32) -> f64) -> f64 {
        (0..400_000)
            .map(|i| error((from + (to - from) * f64::from(i) / 400_000.0) as f32))
            .fold(0.0, f64::max)
    }

    #[test]
    fn exponentials_hold_the_stated_error() {
        let exact = |x: f32| f64::from(x).exp();
        for f in [f32::exp_normal::<Fused>, f32::exp_normal::<Plain>] {
            let error = worst(-87.2, 88.2, |x| (f64::from(f(x)) / exact(x) - 1.0).abs());
            assert!(error < 1.5e-7, "{error:e}");
            assert_eq!((f(0.0), f(-88.0), f(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
            assert!(f(f32::NAN).is_nan() && f(1e30).is_finite());
        }
    }

    #[test]
    fn circular_functions_hold_the_stated_error() {
        for f in [f32::cos_sin::<Fused>, f32::cos_sin::<Plain>] {
            for reach in [1.0, 20.0, 8192.0] {
                let error = worst(-reach, reach, |x| {
                    let ((c, s), (se, ce)) = (f(x), f64::from(x).sin_cos());
                    (f64::from(c) - ce).abs().max((f64::from(s) - se).abs())
                });
                assert!(error < 1.5e-7, "{reach}: {error:e}");
            }
            assert!(f(f32::NAN).0.is_nan());
        }
    }
}
