//! Convolutions by tiles: maps in f32 whose factors are split, and the choice of the form. Maps in bf16 are in the tests
//! beside, which run over every instruction set.

use super::*;
use crate::images::conv::Conv;
use crate::images::tiles::{Pass, pays};
use crate::tensor::check::ConvShape;
use crate::{Arithmetic, CpuProducts, Single};
use infomax_simd::tiles::Factors;

/// Value and gradients of a convolution with a choice of products.
fn run(
    x: &Tensor,
    w: &Tensor,
    cfg: Conv2dConfig,
    (isa, fast): (Isa, bool),
    products: CpuProducts,
    half: bool,
) -> Vec<Tensor> {
    both(
        |x, w| {
            let xs = if half { Blocked::from_images_bf16(x) } else { Blocked::from_images(x) }.unwrap();
            let conv = Conv::new(&xs.sizes().unwrap(), w.dims(), cfg, isa).unwrap();
            xs.conv2d_of(w, Conv { fast, products, ..conv }).unwrap().to_images().unwrap()
        },
        x,
        w,
    )
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(all: &[Tensor]) -> Vec<Vec<f64>> {
    all.iter().map(values).collect()
}

const SPLIT: CpuProducts = CpuProducts { arithmetic: Arithmetic::Tiles, single: Single::Split };

/// The largest error of each result, relative to the largest sum of absolute products.
fn split_errors(x: [usize; 4], w: [usize; 4], cfg: Conv2dConfig) -> Vec<f64> {
    let exact = [spread(&x, 1, 1.0), spread(&w, 2, 1.0)];
    let [x, w] = [&exact[0], &exact[1]].map(|t| t.to_dtype(DType::F32).unwrap());
    let exact = [&x, &w].map(|t| t.to_dtype(DType::F64).unwrap());
    let expected = both(|x, w| reference::conv2d(x, w, None, cfg).unwrap(), &exact[0], &exact[1]);
    let sizes = {
        let [x, w] = exact.map(|t| Var::from_tensor(&t.abs().unwrap()).unwrap());
        let ys = reference::conv2d(&x, &w, None, cfg).unwrap();
        let readout = spread(ys.dims(), 9, 1.0).abs().unwrap();
        let grads = (&ys * readout).unwrap().sum_all().unwrap().backward().unwrap();
        [ys, grads.get(&x).unwrap().clone(), grads.get(&w).unwrap().clone()]
    };
    let got = run(&x, &w, cfg, (Isa::EmulatedAmx, true), SPLIT, false);
    let largest = |values: &[f64]| values.iter().fold(0f64, |m, e| m.max(e.abs()));
    let far = got.iter().zip(&expected).zip(&sizes).map(|((got, expected), size)| {
        let error: Vec<f64> = values(got).iter().zip(&values(expected)).map(|(g, e)| g - e).collect();
        // Where every tap lies in the padding there is nothing to lose.
        let (error, size) = (largest(&error), largest(&values(size)));
        if error == 0.0 { 0.0 } else { error / size }
    });
    far.collect()
}

/// What splitting may lose at most.
const LOST: f64 = 1.0 / 32_768.0;

#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn split_convolutions_of_the_networks_lose_no_more_than_they_may() {
    for (x, w, cfg) in [
        ([16, 16, 8, 8], [24, 16, 3, 3], cfg(1, 1, 1)),
        ([19, 33, 5, 6], [40, 33, 3, 3], cfg(2, 1, 1)),
        ([8, 40, 5, 3], [33, 40, 1, 1], cfg(2, 0, 1)),
        ([3, 70, 4, 4], [9, 70, 1, 1], cfg(1, 0, 1)),
    ] {
        let far = split_errors(x, w, cfg);
        assert!(far.iter().all(|far| *far > 0.0 && *far <= LOST), "x{x:?} w{w:?}: {far:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    #[cfg_attr(miri, ignore = "too slow there")]
    fn drawn_split_convolutions_lose_no_more_than_they_may(
        (n, c, k) in (1usize..20, 1usize..40, 1usize..40),
        (h, w) in (1usize..8, 1usize..8),
        (r, s, stride, padding, dilation) in (1usize..4, 1usize..4, 1usize..3, 0usize..3, 1usize..3),
    ) {
        let fits = |size: usize, taps: usize| size + 2 * padding > dilation * (taps - 1);
        prop_assume!(fits(h, r) && fits(w, s));
        let far = split_errors([n, c, h, w], [k, c, r, s], cfg(stride, padding, dilation));
        prop_assert!(far.iter().all(|far| *far <= LOST), "{far:?}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn the_same_bits_for_any_number_of_threads_by_tiles() {
    let (x, w) = (spread(&[41, 20, 9, 9], 1, 1.0), spread(&[40, 20, 3, 3], 2, 1.0));
    let [x, w] = [x, w].map(|t| t.to_dtype(DType::F32).unwrap());
    for half in [false, true] {
        let of = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| bits(&run(&x, &w, cfg(2, 1, 1), (Isa::EmulatedAmx, true), SPLIT, half)))
        };
        assert!(of(1) == of(3));
    }
}

/// A fixed arithmetic is what it says, whatever the rule would choose.
#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn a_fixed_arithmetic_is_taken() {
    let (x, w) = (spread(&[16, 8, 6, 6], 1, 1.0), spread(&[8, 8, 3, 3], 2, 1.0));
    let [x, w] = [x, w].map(|t| t.to_dtype(DType::F32).unwrap());
    let of = |isa, fast, arithmetic, half| {
        let products = CpuProducts { arithmetic, single: Single::Exact };
        bits(&run(&x, &w, cfg(1, 1, 1), (isa, fast), products, half))
    };
    let best = *Isa::available().iter().rfind(|isa| ![Isa::Avx512Bf16, Isa::Amx].contains(isa)).unwrap();
    let f32_by_winograd = of(best, true, Arithmetic::Auto, true);
    assert!(of(Isa::EmulatedAmx, true, Arithmetic::F32, true) == f32_by_winograd);
    assert!(
        of(Isa::EmulatedBf16, true, Arithmetic::Pairs, true)
            == of(Isa::EmulatedBf16, false, Arithmetic::Auto, true)
    );
    let tiles = of(Isa::EmulatedAmx, true, Arithmetic::Tiles, true);
    assert!(tiles != f32_by_winograd && tiles == of(Isa::EmulatedAmx, false, Arithmetic::Auto, true));
    // This map is too small for tiles to be expected faster.
    assert!(of(Isa::EmulatedAmx, true, Arithmetic::Auto, true) == f32_by_winograd);
    // Maps in f32 are left alone unless they are to be split.
    assert!(of(Isa::EmulatedAmx, true, Arithmetic::Tiles, false) == of(best, true, Arithmetic::Auto, false));
}

fn shape(channels: usize, outputs: usize, side: usize, taps: usize, stride: usize) -> ConvShape {
    let cfg = cfg(stride, taps / 2, 1);
    crate::tensor::check::conv_sizes("test", [64, channels, side, side], [outputs, channels, taps, taps], cfg)
        .unwrap()
}

#[test]
fn tiles_are_chosen_for_wide_layers() {
    let all = [Pass::Forward, Pass::InputGrad, Pass::WeightGrad];
    let of = |d: &ConvShape, factors| all.map(|pass| pays(d, 4, 16, pass, factors));
    // The middle of a ResNet-18, and strided and 1x1 layers of a ResNet-50.
    for d in [shape(128, 128, 16, 3, 1), shape(256, 512, 8, 3, 2), shape(256, 256, 14, 1, 1)] {
        assert_eq!(of(&d, Factors::Rounded), [true; 3], "{d:?}");
    }
    // The stem of three channels fills a tenth of a tile.
    assert_eq!(of(&shape(3, 16, 32, 3, 1), Factors::Rounded), [false; 3]);
    // Winograd's form in f32 saves more than three products for one leave.
    assert_eq!(of(&shape(16, 16, 32, 3, 1), Factors::Split), [false; 3]);
    assert_eq!(of(&shape(16, 16, 32, 3, 1), Factors::Rounded), [true; 3]);
    assert_eq!(of(&shape(256, 256, 16, 3, 2), Factors::Split)[..2], [true; 2]);
}
