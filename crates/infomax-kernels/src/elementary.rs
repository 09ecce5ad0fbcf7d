//! Exponential and circular functions over slices, without branches so that they become vector code.
//!
//! In f32: own polynomials (least maximum error, fitted on the reduced interval). In f64: the exact library
//! functions.

use crate::simd::{Float, Simd};

/// Functions of an element.
pub(crate) trait Elementary: Float {
    /// `e^x`, where `FMA` says that a fused multiply-add is one instruction. Relative error in f32 below
    /// 1.5e-7; `x < -87.3` gives 0, `x > 88.3` is cut there.
    fn exp<const FMA: bool>(self) -> Self;
    /// `(cos x, sin x)`; absolute error in f32 below 1.5e-7 for `|x| <= 8192`.
    fn cos_sin<const FMA: bool>(self) -> (Self, Self);
    /// Arguments up to which a product, rounded to this type, is an angle to nearly its precision.
    const REACH: f64;
}

/// True if the vectors have a fused multiply-add.
pub(crate) fn fused<S: Simd>() -> bool {
    cfg!(target_arch = "aarch64") || S::LANES * size_of::<S::T>() > 16
}

#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `1.5 2^23`: adding it leaves the nearest integer in the last places of the mantissa.
const MAGIC: f32 = 12_582_912.0;

impl Elementary for f32 {
    const REACH: f64 = 32.0;

    #[inline(always)]
    fn exp<const FMA: bool>(self) -> Self {
        // x = n ln 2 + r with |r| <= ln 2 / 2; e^r = 1 + r + r^2 q(r).
        let x = if self > 88.3 { 88.3 } else { self };
        let t = fma::<FMA>(x, std::f32::consts::LOG2_E, MAGIC);
        let n = t - MAGIC;
        let r = fma::<FMA>(n, -0.693_115_23, x);
        let r = fma::<FMA>(n, -3.194_618_3e-5, r);
        let q = fma::<FMA>(r, 0.001_381_46, 0.008_368_72);
        let q = fma::<FMA>(r, q, 0.041_668_39);
        let q = fma::<FMA>(r, q, 0.166_665_21);
        let q = fma::<FMA>(r, q, 0.499_999_93);
        let p = fma::<FMA>(r * r, q, r) + 1.0;
        let power = f32::from_bits((t.to_bits() << 23).wrapping_add(0x3f80_0000));
        // Not below the normal numbers; a NaN stays one.
        if x < -87.3 { 0.0 } else { p * power }
    }

    #[inline(always)]
    fn cos_sin<const FMA: bool>(self) -> (Self, Self) {
        // x = n pi / 2 + r with |r| <= pi / 4, pi / 2 in three parts.
        let t = fma::<FMA>(self, std::f32::consts::FRAC_2_PI, MAGIC);
        let n = t - MAGIC;
        let r = fma::<FMA>(n, -1.570_312_5, self);
        let r = fma::<FMA>(n, -4.837_513e-4, r);
        let r = fma::<FMA>(n, -7.549_79e-8, r);
        let s = r * r;
        let sine = fma::<FMA>(s, -0.000_195_15, 0.008_332_16);
        let sine = fma::<FMA>(s, sine, -0.166_666_55);
        let sine = fma::<FMA>(r * s, sine, r);
        let cosine = fma::<FMA>(s, 2.443_773e-5, -0.001_388_736_1);
        let cosine = fma::<FMA>(s, cosine, 0.041_666_647);
        let cosine = fma::<FMA>(s * s, cosine, fma::<FMA>(s, -0.5, 1.0));
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
    fn exp<const FMA: bool>(self) -> Self {
        Self::exp(self)
    }

    #[inline(always)]
    fn cos_sin<const FMA: bool>(self) -> (Self, Self) {
        let (s, c) = self.sin_cos();
        (c, s)
    }
}

/// `out_j = e^(x_j - shift_j)` for shifts that are above `x_j` but for rounding, which is large for large
/// scores: what is not below is 1.
#[inline(always)]
pub(crate) fn exp_shifted<T: Elementary, const FMA: bool>(
    x: &[T],
    shift: impl Fn(usize) -> T,
    out: &mut [T],
) {
    let len = out.len();
    let x = &x[..len];
    for j in 0..len {
        let below = x[j] - shift(j);
        // A NaN is not above zero, and stays.
        out[j] = if below > T::default() { T::default() } else { below }.exp::<FMA>();
    }
}

/// The sum of a slice, in 16 interleaved parts.
#[inline(always)]
pub(crate) fn sum<T: Float>(x: &[T]) -> T {
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

    fn worst(from: f64, to: f64, error: impl Fn(f32) -> f64) -> f64 {
        (0..400_000)
            .map(|i| error((from + (to - from) * f64::from(i) / 400_000.0) as f32))
            .fold(0.0, f64::max)
    }

    #[test]
    fn exponentials_hold_the_stated_error() {
        let exact = |x: f32| f64::from(x).exp();
        for f in [<f32 as Elementary>::exp::<true>, <f32 as Elementary>::exp::<false>] {
            let error = worst(-87.2, 88.2, |x| (f64::from(f(x)) / exact(x) - 1.0).abs());
            assert!(error < 1.5e-7, "{error:e}");
            assert_eq!((f(0.0), f(-88.0), f(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
            assert!(f(f32::NAN).is_nan() && f(1e30).is_finite());
        }
    }

    #[test]
    fn circular_functions_hold_the_stated_error() {
        for f in [f32::cos_sin::<true>, f32::cos_sin::<false>] {
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
