//! Maps in bf16: against the composed form in f64, for inputs that bf16 holds.

use super::*;

/// The nearest bf16, in the type of `t`; its gradient is rounded too.
fn round(t: &Tensor) -> Tensor {
    t.to_dtype(DType::BF16).unwrap().to_dtype(t.dtype()).unwrap()
}

/// [`spread`] in f32, of values that bf16 holds.
fn held(dims: &[usize], seed: u64) -> Tensor {
    round(&spread(dims, seed, 1.0).to_dtype(DType::F32).unwrap())
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The norm of the difference, relative to that of `expected`.
fn error(got: &Tensor, expected: &Tensor) -> f64 {
    let (got, expected) = (values(got), values(expected));
    assert_eq!(got.len(), expected.len());
    let difference: f64 = got.iter().zip(&expected).map(|(g, e)| (g - e) * (g - e)).sum();
    (difference / expected.iter().map(|e| e * e).sum::<f64>().max(1e-300)).sqrt()
}

/// Each value within `halves` halves of a bf16 step (at most 2^-8 of the value), and within 1e-4 of the largest one (the error of f32).
fn close(name: &str, got: &Tensor, expected: &Tensor, halves: f64) {
    assert_eq!(got.dims(), expected.dims(), "{name}");
    let (got, expected) = (values(got), values(expected));
    let largest = expected.iter().fold(0.0, |m: f64, e| m.max(e.abs()));
    for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
        let bound = halves * e.abs() / 256.0 + 1e-4 * largest;
        assert!((g - e).abs() <= bound, "{name}, element {i}: {g} instead of {e} (+-{bound:e})");
    }
}

fn wide(t: &Tensor) -> Tensor {
    t.to_dtype(DType::F64).unwrap()
}

/// Value and gradients.
fn run(f: &dyn Fn(&Tensor, &Tensor) -> Tensor, x: &Tensor, w: &Tensor) -> [Tensor; 3] {
    let (x, w) = (Var::from_tensor(x).unwrap(), Var::from_tensor(w).unwrap());
    let ys = f(&x, &w);
    let readout = held(ys.dims(), 9).to_dtype(ys.dtype()).unwrap();
    let grads = (&ys * readout).unwrap().sum_all().unwrap().backward().unwrap();
    [ys, grads.get(&x).unwrap().clone(), grads.get(&w).unwrap().clone()]
}

fn conv(x: &Tensor, w: &Tensor, cfg: Conv2dConfig, isa: Isa, fast: bool) -> Tensor {
    let ys = Blocked::from_images_bf16(x).unwrap().conv2d_with(w, cfg, isa, fast).unwrap();
    assert_eq!(ys.dtype(), DType::BF16);
    ys.to_images().unwrap()
}

fn check_conv(x: [usize; 4], w: [usize; 4], cfg: Conv2dConfig) {
    let (x_shape, w_shape) = (x, w);
    let (x, w) = (held(&x, 1), held(&w, 2));
    let composed = |x: &Tensor, w: &Tensor| reference::conv2d(x, w, None, cfg).unwrap();
    let expected = run(&composed, &wide(&x), &wide(&w));
    for isa in Isa::tested() {
        for fast in [false, true] {
            let got = run(&|x, w| conv(x, w, cfg, isa, fast), &x, &w);
            assert!(got.iter().all(|t| t.dtype() == DType::F32));
            let name = format!("{isa:?} x{x_shape:?} w{w_shape:?} {cfg:?} winograd {fast}");
            // Maps are rounded once; the gradient of the weight is not.
            close(&format!("{name}: output"), &got[0], &expected[0], 1.001);
            close(&format!("{name}: gradient of the input"), &got[1], &expected[1], 1.001);
            close(&format!("{name}: gradient of the weight"), &got[2], &expected[2], 0.0);
            // What is stored is a bf16.
            assert_eq!(values(&got[0]), values(&round(&got[0])));
        }
    }
}

#[test]
fn convolutions_round_once() {
    check_conv([2, 8, 5, 6], [9, 8, 3, 3], cfg(1, 1, 1));
    check_conv([1, 3, 4, 5], [5, 3, 3, 2], cfg(2, 1, 1));
}

#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn convolutions_of_the_networks_round_once() {
    check_conv([16, 3, 16, 16], [16, 3, 3, 3], cfg(1, 1, 1));
    check_conv([33, 16, 16, 16], [24, 16, 3, 3], cfg(1, 1, 1));
    check_conv([19, 16, 8, 8], [32, 16, 3, 3], cfg(2, 1, 1));
    check_conv([8, 40, 9, 7], [33, 40, 1, 1], cfg(2, 0, 1));
    check_conv([24, 24, 8, 8], [40, 24, 3, 3], cfg(1, 1, 1));
    check_conv([1, 3, 28, 28], [12, 3, 7, 7], cfg(2, 3, 1));
    check_conv([3, 9, 1, 1], [10, 9, 3, 3], cfg(1, 1, 1));
}

#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn blocks_of_16_images_round_once() {
    // Odd and even channels, rows beside a multiple of a tile, one pixel, channels beyond a panel.
    check_conv([9, 7, 5, 6], [13, 7, 3, 3], cfg(1, 1, 1));
    check_conv([16, 40, 5, 3], [33, 40, 1, 1], cfg(2, 0, 1));
    check_conv([12, 3, 9, 9], [12, 3, 7, 7], cfg(2, 3, 1));
    check_conv([30, 1, 4, 4], [1, 1, 2, 2], cfg(1, 0, 2));
    check_conv([16, 37, 4, 4], [70, 37, 3, 3], cfg(1, 1, 1));
    check_conv([9, 9, 1, 1], [10, 9, 3, 3], cfg(1, 1, 1));
}

#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn pairs_have_the_bits_of_their_emulation() {
    let bits = |x: [usize; 4], w: [usize; 4], cfg, isa| {
        // Not the fastest form: pairs wherever there are some.
        let all = run(&|x, w| conv(x, w, cfg, isa, false), &spread_single(&x, 1), &spread_single(&w, 2));
        all.map(|t| values(&t))
    };
    for (x, w, cfg) in [
        ([9, 7, 5, 6], [13, 7, 3, 3], cfg(1, 1, 1)),
        ([16, 40, 5, 3], [33, 40, 1, 1], cfg(2, 0, 1)),
        ([41, 3, 9, 9], [12, 3, 7, 7], cfg(2, 3, 1)),
    ] {
        let expected = bits(x, w, cfg, Isa::EmulatedBf16);
        // Sums in another order, or of the products of Winograd's form, have other bits.
        assert!(expected != bits(x, w, cfg, Isa::Portable));
        for isa in Isa::available().iter().filter(|isa| **isa == Isa::Avx512Bf16) {
            assert!(expected == bits(x, w, cfg, *isa), "{isa:?} x{x:?} w{w:?}");
        }
    }
}

/// Where Winograd's form suits, maps in bf16 take it whatever the processor has: the bits are those without pairs.
#[test]
fn pairs_are_left_alone_where_winograd_suits() {
    let (x, w) = (held(&[16, 8, 6, 6], 1), held(&[8, 8, 3, 3], 2));
    let bits = |isa, fast| run(&|x, w| conv(x, w, cfg(1, 1, 1), isa, fast), &x, &w).map(|t| values(&t));
    // The bits of vectors of one width are the same, with pairs or without.
    for (with, without) in [(Isa::Avx512Bf16, Isa::Avx512)] {
        if Isa::available().contains(&with) {
            assert!(bits(with, true) == bits(without, true));
            assert!(bits(with, true) != bits(with, false));
        }
    }
    assert!(bits(Isa::EmulatedBf16, true) != bits(Isa::EmulatedBf16, false));
}

fn spread_single(dims: &[usize], seed: u64) -> Tensor {
    spread(dims, seed, 1.0).to_dtype(DType::F32).unwrap()
}

/// The instruction sets beside each other, without the products of the composed form.
fn beside(x: [usize; 4], w: [usize; 4], cfg: Conv2dConfig) {
    let (xs, ws) = (held(&x, 1), held(&w, 2));
    let of = |isa| run(&|x, w| conv(x, w, cfg, isa, true), &xs, &ws);
    let expected = of(Isa::Portable);
    for isa in Isa::tested() {
        for (i, (got, expected)) in of(isa).iter().zip(&expected).enumerate() {
            let halves = if i < 2 { 2.0 } else { 0.0 };
            close(&format!("{isa:?} x{x:?} w{w:?}: {i}"), got, expected, halves);
        }
    }
}

/// For valgrind, as the next two.
#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn memory_small_pairs() {
    beside([9, 3, 1, 2], [2, 3, 1, 2], cfg(1, 0, 1));
    beside([1, 2, 2, 1], [3, 2, 1, 1], cfg(1, 0, 1));
}

#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn memory_small_winograd_in_bf16() {
    beside([9, 8, 1, 1], [8, 8, 3, 3], cfg(1, 1, 1));
}

#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn memory_small_unit_in_bf16() {
    let layers = vec![([3, 2, 2, 2], 2, 0), ([2, 3, 1, 1], 1, 0)];
    let case = Case { x: [9, 2, 2, 3], layers, short: Short::None, train: true };
    for isa in Isa::tested() {
        assert_eq!(fused(&case, &case.tensors(DType::F32), isa, true).len(), 12);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    #[cfg_attr(miri, ignore = "too slow there")]
    fn drawn_shapes_round_once(
        (n, c, k) in (1usize..20, 1usize..20, 1usize..20),
        (h, w) in (1usize..12, 1usize..12),
        (r, s, stride, padding, dilation) in (1usize..5, 1usize..5, 1usize..4, 0usize..4, 1usize..3),
        winograd in any::<bool>(),
    ) {
        let (r, s, stride, padding, dilation) =
            if winograd { (3, 3, 1, padding.min(2), 1) } else { (r, s, stride, padding, dilation) };
        let fits = |size: usize, taps: usize| size + 2 * padding > dilation * (taps - 1);
        prop_assume!(fits(h, r) && fits(w, s));
        check_conv([n, c, h, w], [k, c, r, s], cfg(stride, padding, dilation));
    }
}

#[test]
fn weights_are_rounded() {
    let x = held(&[9, 8, 4, 4], 1);
    let w = spread(&[8, 8, 3, 3], 2, 1.0).to_dtype(DType::F32).unwrap();
    assert!(values(&w) != values(&round(&w)));
    for (stride, fast) in [(1, true), (1, false), (2, false)] {
        for isa in Isa::tested() {
            let run = |w: &Tensor| values(&conv(&x, w, cfg(stride, 1, 1), isa, fast));
            assert_eq!(run(&w), run(&round(&w)));
        }
    }
}

/// The results of a unit in bf16.
fn fused(case: &Case, inputs: &[Tensor], isa: Isa, fast: bool) -> Vec<Tensor> {
    case.results(inputs, &|dims| held(dims, 9), &|v| {
        case.fused_from(Blocked::from_images_bf16(&v[0]).unwrap(), v, isa, fast).unwrap()
    })
}

#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn units_are_the_composed_form_with_the_same_roundings() {
    for (number, case) in cases().iter().enumerate() {
        let inputs: Vec<Tensor> = case.tensors(DType::F32).iter().map(round).collect();
        let exact: Vec<Tensor> = inputs.iter().map(wide).collect();
        let composed = |round| case.results(&exact, &|dims| held(dims, 9), &|v| case.composed(v, round));
        let (rounded, exact) = (composed(round), composed(Tensor::clone));
        for isa in Isa::tested() {
            for fast in [false, true] {
                let got = fused(case, &inputs, isa, fast);
                assert_eq!(got.len(), exact.len());
                let name = |i| format!("case {number}, {isa:?}, winograd {fast}, result {i}");
                for (i, (got, rounded)) in got.iter().zip(&rounded).enumerate() {
                    assert_eq!(got.dtype(), DType::F32, "{}", name(i));
                    // What is left is f32 instead of f64, and now and then a tie that falls to the other side.
                    let far = error(got, rounded);
                    assert!(far < 1.0 / 256.0, "{}: {far:e} from the rounded composed form", name(i));
                }
                // Without the roundings: the output and the statistics. A gradient may be further away, where
                // a value rounds to the other side of a ReLU.
                let values = if case.train { 1 + 2 * case.layers.len() } else { 1 };
                for i in 0..values {
                    let far = error(&got[i], &exact[i]);
                    assert!(far < 2.0 / 256.0, "{}: {far:e} from the composed form", name(i));
                }
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn the_same_bits_for_any_number_of_threads() {
    // Blocks of 8 images and of 16.
    for (n, isa) in [(33, Isa::detect()), (41, Isa::detect()), (41, Isa::EmulatedBf16)] {
        assert!(bits(n, isa, 1) == bits(n, isa, 3));
    }
}

fn bits(n: usize, isa: Isa, threads: usize) -> Vec<Vec<f32>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let mut bits = Vec::new();
        for case in cases() {
            let case = Case { x: [n, case.x[1], 12, 12], ..case };
            let all = fused(&case, &case.tensors(DType::F32), isa, true);
            bits.extend(all.iter().map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap()));
        }
        bits
    })
}

#[test]
fn pooling_is_that_of_the_rounded_values() {
    for (shape, kernel, stride, padding) in
        [([5, 3, 7, 6], 3, 2, 1), ([17, 2, 5, 5], 2, 1, 0), ([1, 4, 6, 6], 3, 3, 0)]
    {
        let pool = Pool2dConfig { kernel, stride, padding };
        let x = held(&shape, 1);
        let run = |f: &dyn Fn(&Tensor) -> Tensor, x: &Tensor| {
            let x = Var::from_tensor(x).unwrap();
            let ys = f(&x);
            let readout = held(ys.dims(), 9).to_dtype(ys.dtype()).unwrap();
            let grads = (&ys * readout).unwrap().sum_all().unwrap().backward().unwrap();
            (ys, grads.get(&x).unwrap().clone())
        };
        let blocked = |x: &Tensor| Blocked::from_images_bf16(x).unwrap();
        let got = run(&|x| blocked(x).max_pool2d(pool).unwrap().to_images().unwrap(), &x);
        let expected = run(&|x| reference::max_pool2d(x, pool).unwrap(), &wide(&x));
        assert_eq!(values(&got.0), values(&expected.0));
        // Overlapping windows: one rounding for each of them.
        close("max pool", &got.1, &expected.1, if stride < kernel { 4.0 } else { 0.0 });
        let got = run(&|x| blocked(x).global_avg_pool().unwrap(), &x);
        let expected = run(&|x| reference::global_avg_pool(x).unwrap(), &wide(&x));
        close("mean", &got.0, &expected.0, 0.0);
        close("gradient of the mean", &got.1, &expected.1, 1.001);
        assert_eq!(got.0.dtype(), DType::F32);
    }
}

#[test]
fn what_is_no_number_stays_so() {
    for (n, special) in [(1, f32::NAN), (16, f32::NAN), (9, f32::INFINITY), (8, f32::NEG_INFINITY)] {
        let mut data = vec![0.5f32; n * 3 * 4 * 5];
        data[7] = special;
        data[8] = 1e-40;
        let xs = Tensor::from_vec(data.clone(), (n, 3, 4, 5), &Device::Cpu).unwrap();
        let back = Blocked::from_images_bf16(&xs).unwrap().to_images().unwrap();
        let back: Vec<f32> = back.flatten_all().unwrap().to_vec1().unwrap();
        for (got, x) in back.iter().zip(&data) {
            assert_eq!(got.to_bits(), half::bf16::from_f32(*x).to_f32().to_bits());
        }
        assert!(back[8] > 0.0 && back[7].is_nan() == special.is_nan());
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let zeros = |dims: &[usize], dtype| Tensor::zeros(dims, dtype, &Device::Cpu).unwrap();
    for dtype in [DType::F64, DType::BF16, DType::U8] {
        let xs = zeros(&[2, 3, 4, 4], dtype);
        assert!(!Blocked::supports_bf16(&xs));
        let e = Blocked::from_images_bf16(&xs).unwrap_err();
        assert!(matches!(e, Error::Config { name: "xs", .. }), "{e}");
    }
    assert!(matches!(
        Blocked::from_images_bf16(&zeros(&[0, 3, 4, 4], DType::F32)).unwrap_err(),
        Error::Empty { .. }
    ));
    let xs = Blocked::from_images_bf16(&zeros(&[2, 3, 4, 4], DType::F32)).unwrap();
    // Parameters are f32, also of maps in bf16.
    let w = zeros(&[4, 3, 1, 1], DType::BF16);
    let e = xs.conv2d(&w, cfg(1, 0, 1)).unwrap_err();
    assert!(matches!(e, Error::DType { name: "weight", expected: DType::F32, .. }), "{e}");
    let w = zeros(&[4, 3, 1, 1], DType::F32);
    let (one, narrow) = (zeros(&[4], DType::F32), zeros(&[4], DType::BF16));
    let part = ConvNorm { weight: &w, scale: &narrow, shift: &one, cfg: cfg(1, 0, 1), stats: None };
    let unit = ResidualUnit { branch: vec![part], shortcut: Shortcut::None };
    let e = xs.residual(&[unit], 1e-5).unwrap_err();
    assert!(matches!(e, Error::DType { name: "scale", expected: DType::F32, .. }), "{e}");
}
