//! Products on tiles, by their emulation.
#![allow(clippy::unwrap_used)]

use super::*;
use candle_core::Var;
use infomax_testing::spread;
use proptest::prelude::*;

/// Value and gradients, in f64.
fn all(
    (xs, weight, bias): (&Tensor, &Tensor, &Tensor),
    f: impl Fn(&Tensor, &Tensor, &Tensor) -> Tensor,
) -> Vec<Vec<f64>> {
    let vars = [xs, weight, bias].map(|t| Var::from_tensor(t).unwrap());
    let ys = f(&vars[0], &vars[1], &vars[2]);
    let readout = spread(ys.dims(), 9, 1.0).to_dtype(ys.dtype()).unwrap();
    let grads = (&ys * readout).unwrap().sum_all().unwrap().backward().unwrap();
    let values = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    std::iter::once(values(&ys)).chain(vars.iter().map(|v| values(grads.get(v).unwrap()))).collect()
}

fn inputs(rows: usize, inputs: usize, outputs: usize, dtype: DType) -> [Tensor; 3] {
    [spread(&[rows, inputs], 1, 1.0), spread(&[outputs, inputs], 2, 1.0), spread(&[outputs], 3, 1.0)]
        .map(|t| t.to_dtype(dtype).unwrap())
}

/// The largest difference, relative to the largest of `sizes`.
fn far(got: &[f64], expected: &[f64], sizes: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let largest = sizes.iter().fold(0f64, |m, x| m.max(x.abs()));
    got.iter().zip(expected).fold(0f64, |m, (g, e)| m.max((g - e).abs())) / largest
}

fn tiled(factors: Factors) -> Option<Tiled> {
    Some(Tiled::new(Isa::EmulatedAmx, factors).unwrap().always())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    #[cfg_attr(miri, ignore = "too slow there")]
    fn split_products_lose_no_more_than_they_may((rows, i, o) in (1usize..70, 1usize..70, 1usize..70)) {
        let [xs, weight, bias] = inputs(rows, i, o, DType::F32);
        let by = |xs: &Tensor, weight: &Tensor, bias: &Tensor, tiled| all((xs, weight, bias), |x, w, b| {
            linear_by(x, w, Some(b), Elementwise::Identity, Isa::Portable, tiled).unwrap()
        });
        let [x, w, b] = [&xs, &weight, &bias].map(|t| t.to_dtype(DType::F64).unwrap());
        let expected = by(&x, &w, &b, None);
        // Sums of absolute products: the signs make those of the readout positive.
        let [x, w, b] = [x, w, b].map(|t| t.abs().unwrap());
        let sizes = all((&x, &w, &b), |x, w, b| {
            let ys = linear_by(x, w, Some(b), Elementwise::Identity, Isa::Portable, None).unwrap();
            let signs = spread(ys.dims(), 9, 1.0).sign().unwrap();
            (ys * signs).unwrap()
        });
        let got = by(&xs, &weight, &bias, tiled(Factors::Split));
        for (at, ((got, expected), sizes)) in got.iter().zip(&expected).zip(&sizes).enumerate() {
            let far = far(got, expected, sizes);
            prop_assert!(far <= 1.0 / 32_768.0, "{rows}x{i}x{o} result {at}: {far:e}");
        }
    }
}

#[test]
fn products_of_bf16_are_those_of_their_values() {
    for (rows, i, o) in [(5, 3, 7), (40, 33, 65), (1, 64, 16)] {
        let [xs, weight, bias] = inputs(rows, i, o, DType::BF16);
        let run = |isa, tiled| {
            let f = |x: &Tensor, w: &Tensor, b: &Tensor| {
                linear_by(x, w, Some(b), Elementwise::Identity, isa, tiled).unwrap()
            };
            assert_eq!(f(&xs, &weight, &bias).dtype(), DType::BF16);
            all((&xs, &weight, &bias), f)
        };
        let (got, expected) = (run(Isa::EmulatedAmx, tiled(Factors::Rounded)), run(Isa::Portable, None));
        for (got, expected) in got.iter().zip(&expected) {
            // Both round once; a value may fall to its neighbor.
            assert!(far(got, expected, expected) < 1.0 / 128.0, "{rows}x{i}x{o}");
        }
    }
}

#[test]
fn small_products_and_f64_stay_where_they_were() {
    let bits = |dtype, sizes: (usize, usize, usize), tiled| {
        let [xs, weight, bias] = inputs(sizes.0, sizes.1, sizes.2, dtype);
        all((&xs, &weight, &bias), |x, w, b| {
            linear_by(x, w, Some(b), Elementwise::Identity, Isa::detect(), tiled).unwrap()
        })
    };
    let split = Tiled::new(Isa::EmulatedAmx, Factors::Split);
    assert!(split.is_some());
    assert_eq!(bits(DType::F32, (4, 8, 8), split), bits(DType::F32, (4, 8, 8), None));
    let f64s = bits(DType::F64, (40, 33, 35), split.map(Tiled::always));
    assert_eq!(f64s, bits(DType::F64, (40, 33, 35), None));
    let large = (512, 512, 512);
    assert_ne!(bits(DType::F32, large, split), bits(DType::F32, large, None));
}
