//! Exponential, error function and hyperbolic tangent for vectors, element by element.
//!
//! The f32 forms are free of branches, so that the compiler vectorizes the loops around them. f64 is there
//! for checks and calls the scalar functions of the standard library and of Candle.
//!
//! Largest errors of the f32 forms with fused multiply-add (without it in brackets), in units in the last
//! place, over all exponents; `tests::errors_in_ulp` holds them:
//!
//! | function | error |
//! |---|---|
//! | `exp` | 1.5 (2), down to the subnormal numbers |
//! | `erf` | 3 (4) |
//! | `tanh` | 3 (4) |
//!
//! The coefficients are weighted minimax fits over the stated ranges.

use crate::lanes::{Arith, Real};

/// Adding it rounds to an integer, which then stands in the low bits.
const MAGIC: f32 = 12_582_912.0;

#[inline(always)]
fn horner<A: Arith, const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut y = c[N - 1];
    for i in (0..N - 1).rev() {
        y = A::fma(y, x, c[i]);
    }
    y
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;

    #[inline(always)]
    fn mul_add(self, b: f32, c: f32) -> f32 {
        f32::mul_add(self, b, c)
    }

    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }

    /// `2^n e^r` with `|r| <= ln 2 / 2`, and `2^n` in two factors: the first may leave the range of exponents
    /// that one has.
    #[inline(always)]
    fn exp<A: Arith>(self) -> f32 {
        // NaN compares false and stays.
        let x = if self < -150.0 { -150.0 } else { self };
        let x = if x > 100.0 { 100.0 } else { x };
        let (y, n) = exp_parts::<A>(x);
        let half = n >> 1;
        let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
        y * power(half) * power(n.wrapping_sub(half))
    }

    #[inline(always)]
    fn ln(self) -> f32 {
        f32::ln(self)
    }

    /// `P(-a) = exp(-a^2 / 2) t q(t)` for `a = |x|`, `t = 1 / (1 + 0.3 a)`: the tail keeps its relative error,
    /// and the exponential is that of the density.
    #[inline(always)]
    fn normal<A: Arith>(self) -> (f32, f32) {
        // Beyond 15 both are 0 in f32; the bound keeps infinity times 0 away.
        let a = self.abs();
        let a = if a > 15.0 { 15.0 } else { a };
        let e = half_square_exp::<A>(a);
        let t = 1.0 / A::fma(0.3, a, 1.0);
        let q = horner::<A, 10>(
            t,
            [
                0.119_686_69,
                0.119_571_81,
                0.110_235_42,
                0.078_389_66,
                0.096_156_806,
                -0.079_423_435,
                0.191_784_47,
                -0.228_213_55,
                0.112_435_594,
                -0.020_623_466,
            ],
        );
        let tail = e * (t * q);
        (if self > 0.0 { 1.0 - tail } else { tail }, e * 0.398_942_3)
    }

    /// A polynomial up to 1, and above it `1 - 2 P(-sqrt 2 x)`.
    #[inline(always)]
    fn erf<A: Arith>(self) -> f32 {
        let z = self * self;
        let small = self
            * horner::<A, 7>(
                z,
                [
                    std::f32::consts::FRAC_2_SQRT_PI,
                    -0.376_126_26,
                    0.112_835_854,
                    -0.026_853_813,
                    0.005_188_327_7,
                    -0.000_801_019_37,
                    7.853_861_5e-5,
                ],
            );
        let (tail, _) = (-(self.abs() * std::f32::consts::SQRT_2)).normal::<A>();
        let large = A::fma(-2.0, tail, 1.0).copysign(self);
        if self.abs() < 1.0 { small } else { large }
    }

    /// A polynomial up to 0.625, and above it `1 - 2 / (e^2x + 1)`.
    #[inline(always)]
    fn tanh<A: Arith>(self) -> f32 {
        let z = self * self;
        let p =
            horner::<A, 5>(z, [-0.333_332_84, 0.133_314_91, -0.053_743_497, 0.020_650_588, -0.005_717_045]);
        // The sign of zero would be lost in the sum.
        let small = A::fma(self * z, p, self).copysign(self);
        let a = self.abs();
        let large = (1.0 - 2.0 / (<f32 as Real>::exp::<A>(a + a) + 1.0)).copysign(self);
        if a < 0.625 { small } else { large }
    }
}

/// `e^x = y 2^n` with `y` in about `[0.7, 1.42]`, for `|x|` up to some hundreds: the one exponential of f32.
#[inline(always)]
pub(crate) fn exp_parts<A: Arith>(x: f32) -> (f32, i32) {
    let rounded = A::fma(x, std::f32::consts::LOG2_E, MAGIC);
    let n = rounded - MAGIC;
    // ln 2 in two parts; the first has so few bits that its product with n is exact.
    let r = A::fma(n, -0.693_359_4, x);
    let r = A::fma(n, 2.121_944_4e-4, r);
    let p = horner::<A, 5>(r, [0.499_999_94, 0.166_665_2, 0.041_668_393, 0.008_368_781, 0.001_381_446_7]);
    let y = A::fma(r * r, p, r) + 1.0;
    (y, (rounded.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32))
}

/// `exp(-a^2 / 2)`: the rounding of the square is taken back where there is a fused multiply-add.
#[inline(always)]
fn half_square_exp<A: Arith>(a: f32) -> f32 {
    let s = a * a;
    let lost = A::fma(a, a, -s);
    let e = <f32 as Real>::exp::<A>(-0.5 * s);
    A::fma(e, -0.5 * lost, e)
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;

    #[inline(always)]
    fn mul_add(self, b: f64, c: f64) -> f64 {
        f64::mul_add(self, b, c)
    }

    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }

    #[inline(always)]
    fn exp<A: Arith>(self) -> f64 {
        f64::exp(self)
    }

    #[inline(always)]
    fn ln(self) -> f64 {
        f64::ln(self)
    }

    #[inline(always)]
    fn normal<A: Arith>(self) -> (f64, f64) {
        let tail = 0.5 * libm::erfc(-self * std::f64::consts::FRAC_1_SQRT_2);
        let density = (-0.5 * self * self).exp()
            * (0.5 * std::f64::consts::FRAC_1_SQRT_2 * std::f64::consts::FRAC_2_SQRT_PI);
        (tail, density)
    }

    #[inline(always)]
    fn erf<A: Arith>(self) -> f64 {
        libm::erf(self)
    }

    #[inline(always)]
    fn tanh<A: Arith>(self) -> f64 {
        f64::tanh(self)
    }
}

#[cfg(test)]
mod tests {
    use crate::Isa;
    use crate::lanes::{Arith, Real, Task, run};

    struct Map<'a>(&'a mut [f32], u8);

    impl Task for Map<'_> {
        type Out = ();
        #[inline(always)]
        fn run<A: Arith>(self) {
            for x in self.0 {
                *x = match self.1 {
                    0 => Real::exp::<A>(*x),
                    1 => Real::erf::<A>(*x),
                    2 => Real::tanh::<A>(*x),
                    _ => Real::normal::<A>(*x).0,
                };
            }
        }
    }

    fn map(isa: Isa, function: u8, xs: &[f32]) -> Vec<f32> {
        let mut ys = xs.to_vec();
        run(isa, Map(&mut ys, function));
        ys
    }

    /// The distance to the exact value in units of the last place of its rounding.
    fn ulp(got: f32, exact: f64) -> f64 {
        let rounded = (exact as f32).abs().max(f32::MIN_POSITIVE);
        let unit = f64::from(f32::from_bits(rounded.to_bits() + 1)) - f64::from(rounded);
        // Below the normal numbers the unit is constant.
        (f64::from(got) - exact).abs() / unit
    }

    /// A prime step through the bits: 400,000 values over all exponents and both signs.
    fn values() -> Vec<f32> {
        (0..=u32::MAX).step_by(10_007).map(f32::from_bits).filter(|x| x.is_finite()).collect()
    }

    #[test]
    fn errors_in_ulp() {
        use libm::{erf as erf_f64, erfc as erfc_f64};
        type Exact = fn(f64) -> f64;
        let functions: [(&str, Exact, f64, f64); 4] = [
            ("exp", f64::exp, 1.5, 2.0),
            ("erf", erf_f64, 3.0, 4.0),
            ("tanh", f64::tanh, 3.0, 4.0),
            ("normal", |x| 0.5 * erfc_f64(-x / 2f64.sqrt()), 8.0, 80.0),
        ];
        // Where the functions are not constant, more densely.
        let dense = (0..400_000).map(|i| (i as f32 - 200_000.0) * 5.17e-4);
        let xs: Vec<f32> = values().into_iter().chain(dense).collect();
        for isa in Isa::available() {
            for (k, (name, exact, fused, plain)) in functions.iter().enumerate() {
                let bound = if *isa == Isa::Portable && cfg!(target_arch = "x86_64") { plain } else { fused };
                let ys = map(*isa, k as u8, &xs);
                let mut worst = (0.0, 0.0);
                for (x, y) in xs.iter().zip(&ys) {
                    let exact = exact(f64::from(*x));
                    if exact.abs() > f64::from(f32::MAX) {
                        assert_eq!(*y, f32::INFINITY, "{name}({x})");
                        continue;
                    }
                    let error = ulp(*y, exact);
                    if error > worst.0 {
                        worst = (error, f64::from(*x));
                    }
                }
                println!("{isa:?} {name}: {:.2} ulp at {}", worst.0, worst.1);
                assert!(worst.0 <= *bound, "{isa:?} {name}: {} ulp at {}", worst.0, worst.1);
            }
        }
    }

    #[test]
    fn what_is_not_finite() {
        for isa in Isa::available() {
            let xs = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0];
            let at = |function| map(*isa, function, &xs);
            let (exp, erf, tanh, normal) = (at(0), at(1), at(2), at(3));
            for ys in [&exp, &erf, &tanh, &normal] {
                assert!(ys[0].is_nan(), "{isa:?} {ys:?}");
            }
            assert_eq!(exp[1..], [f32::INFINITY, 0.0, 1.0]);
            assert_eq!(erf[1..], [1.0, -1.0, 0.0]);
            assert_eq!(tanh[1..], [1.0, -1.0, 0.0]);
            assert_eq!(normal[1..], [1.0, 0.0, 0.5]);
            assert!(erf[3].is_sign_negative() && tanh[3].is_sign_negative());
        }
    }
}
