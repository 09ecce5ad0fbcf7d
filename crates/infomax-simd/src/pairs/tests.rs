//! The instruction and its emulation.

use super::*;
use crate::element::Stored as _;
use crate::vectors::Shared;

/// `dot` of pairs side by side, `zip` and `zip_zero` of the first of them and `splat_pair` of the first pair.
struct All<'a> {
    x: &'a [bf16; 32],
    y: &'a [bf16; 32],
    c: &'a [f32; 16],
    to: Shared<[[f32; 16]; 4]>,
}

impl PairKernel for All<'_> {
    #[inline(always)]
    unsafe fn run<S: Pairs>(self) {
        // SAFETY: whole vectors of pairs, and four vectors of results.
        unsafe {
            let (c, y) = (S::load(self.c.as_ptr()), S::pairs(self.y.as_ptr()));
            let x = self.x.as_ptr();
            let to = self.to.get().cast::<f32>();
            for (i, x) in [S::pairs(x), S::zip(x), S::zip_zero(x), S::splat_pair(x)].into_iter().enumerate() {
                S::store(to.add(i * 16), S::dot(x, y, c));
            }
        }
    }
}

fn run(isa: Isa, x: &[bf16; 32], y: &[bf16; 32], c: &[f32; 16]) -> [[f32; 16]; 4] {
    let mut to = [[f32::NAN; 16]; 4];
    PairIsa::of(isa).unwrap().dispatch(All { x, y, c, to: Shared::new(&mut to) });
    to
}

/// Every instruction set with pairs.
fn all() -> impl Iterator<Item = Isa> {
    Isa::tested().filter(|isa| PairIsa::of(*isa).is_some())
}

fn halves(seed: u32, of: impl Fn(u32) -> bf16) -> [bf16; 32] {
    std::array::from_fn(|i| of((seed * 32 + i as u32).wrapping_mul(2_654_435_761).rotate_left(9)))
}

#[test]
fn exact_sums_are_exact() {
    // Small integers: no sum rounds, whatever its order.
    let small = |bits: u32| bf16::from_f32((bits % 31) as f32 - 15.0);
    for isa in all() {
        for seed in 0..20 {
            let (x, y) = (halves(seed, small), halves(seed + 100, small));
            let c: [f32; 16] = std::array::from_fn(|i| (i * i) as f32 - 50.0);
            let got = run(isa, &x, &y, &c);
            for i in 0..16 {
                let expected =
                    |x0: bf16, x1: bf16| c[i] + x0.wide() * y[2 * i].wide() + x1.wide() * y[2 * i + 1].wide();
                let name = format!("{isa:?} {seed} {i}");
                assert_eq!(got[0][i], expected(x[2 * i], x[2 * i + 1]), "{name}: side by side");
                assert_eq!(got[1][i], expected(x[i], x[16 + i]), "{name}: zipped");
                assert_eq!(got[2][i], expected(x[i], bf16::ZERO), "{name}: zipped with zeros");
                assert_eq!(got[3][i], expected(x[0], x[1]), "{name}: one pair");
            }
        }
    }
}

#[test]
fn each_product_is_added_with_one_rounding() {
    // A product that is lost in the first sum comes back if the two products are added first.
    let one = |x1: f32, y1: f32, x0: f32, y0: f32, c: f32| {
        let pair = |low: f32, high: f32| {
            std::array::from_fn(|i| bf16::from_f32(if i % 2 == 0 { low } else { high }))
        };
        run(Isa::EmulatedBf16, &pair(x0, x1), &pair(y0, y1), &[c; 16])[0][0]
    };
    let tiny = 2f32.powi(-24);
    // The upper product comes first: half of a step, to the even neighbor, twice.
    assert_eq!(one(tiny, 1.0, tiny, 1.0, 1.0), 1.0);
    // A whole step, then a half of one, to the even neighbor above.
    assert_eq!(one(2.0 * tiny, 1.0, tiny, 1.0, 1.0), 1.0 + 4.0 * tiny);
    // The other way round: a half is lost, then a whole step.
    assert_eq!(one(tiny, 1.0, 2.0 * tiny, 1.0, 1.0), 1.0 + 2.0 * tiny);
    // Subnormal operands and results are zeros.
    let small = f32::MIN_POSITIVE;
    assert_eq!(one(small / 2.0, 1e30, 0.0, 0.0, 0.0), 0.0);
    assert_eq!(one(small, 0.5, 0.0, 0.0, 0.0), 0.0);
    assert_eq!(one(0.0, 0.0, 0.0, 0.0, small / 2.0), 0.0);
    assert_eq!(one(small, 1.0, 0.0, 0.0, 0.0), small);
    assert!(one(f32::INFINITY, 0.0, 0.0, 0.0, 0.0).is_nan());
    assert_eq!(one(f32::INFINITY, -1.0, 1.0, 1.0, 0.0), f32::NEG_INFINITY);
}

#[test]
fn the_machine_computes_as_the_emulation() {
    // Bits of all kinds: signs, exponents, subnormal numbers, infinities, NaN.
    let any = |bits: u32| bf16::from_bits((bits >> 16) as u16);
    let near = |bits: u32| bf16::from_f32(((bits >> 8) as f32 / 8_388_608.0) - 1.0);
    for isa in all() {
        for seed in 0..if cfg!(miri) { 4 } else { 2000 } {
            let of: &dyn Fn(u32) -> bf16 = if seed % 2 == 0 { &any } else { &near };
            let (x, y) = (halves(seed, of), halves(seed + 5000, of));
            let c = halves(seed + 9000, of);
            let c = std::array::from_fn(|i| c[i].wide() * 1.000_123);
            let (got, expected) = (run(isa, &x, &y, &c), run(Isa::EmulatedBf16, &x, &y, &c));
            for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
                let same = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
                assert!(same, "{isa:?} {seed}: {got:e} instead of {expected:e}");
            }
        }
    }
}
