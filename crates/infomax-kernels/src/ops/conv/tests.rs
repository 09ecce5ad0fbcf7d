//! Against the composed form in value and gradient, over drawn shapes and every instruction set.

use super::ops::conv2d_isa;
use crate::{Conv2dConfig, Error, reference};
use candle_core::{DType, Device, Tensor, Var};
use infomax_simd::Isa;
use infomax_testing::{GradCheck, Tolerance, assert_close, gradcheck, spread};
use proptest::prelude::*;

/// Value and gradients of a convolution, contracted with fixed weights.
fn all(
    f: impl Fn(&Tensor, &Tensor, Option<&Tensor>) -> crate::Result<Tensor>,
    inputs: &[Tensor],
) -> Vec<Tensor> {
    let vars: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let ys = f(&vars[0], &vars[1], vars.get(2).map(|v| v.as_tensor())).unwrap();
    let readout = spread(ys.dims(), 9, 1.0).to_dtype(ys.dtype()).unwrap();
    let grads = (&ys * readout).unwrap().sum_all().unwrap().backward().unwrap();
    let mut results = vec![ys];
    results.extend(vars.iter().map(|v| grads.get(v).unwrap().clone()));
    results
}

fn check(x: [usize; 4], w: [usize; 4], bias: bool, cfg: Conv2dConfig, dtype: DType) {
    let mut inputs = vec![spread(&x, 1, 1.0), spread(&w, 2, 1.0)];
    if bias {
        inputs.push(spread(&[w[0]], 3, 1.0));
    }
    let inputs: Vec<Tensor> = inputs.iter().map(|t| t.to_dtype(dtype).unwrap()).collect();
    let expected = all(|x, w, b| reference::conv2d(x, w, b, cfg), &inputs);
    for isa in Isa::available() {
        let got = all(|x, w, b| conv2d_isa(x, w, b, cfg, *isa), &inputs);
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let name = format!("{isa:?} {dtype:?} x{x:?} w{w:?} {cfg:?} result {i}");
            assert_close(&name, got, expected, Tolerance::of(dtype));
        }
    }
}

/// For valgrind: the instruction sets beside each other, without the products of the composed form.
#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn memory_small_conv() {
    for (x, w, cfg) in [
        ([2, 3, 3, 4], [5, 3, 2, 2], cfg(2, 1, 1, 1)),
        ([1, 4, 3, 3], [6, 2, 3, 3], cfg(1, 1, 1, 2)),
        ([1, 5, 2, 3], [7, 5, 1, 1], cfg(1, 0, 1, 1)),
    ] {
        let inputs = [spread(&x, 1, 1.0), spread(&w, 2, 1.0), spread(&[w[0]], 3, 1.0)];
        let inputs = inputs.map(|t| t.to_dtype(DType::F32).unwrap());
        let run = |isa| all(|x, w, b| conv2d_isa(x, w, b, cfg, isa), &inputs);
        let expected = run(Isa::Portable);
        for isa in Isa::available() {
            for (got, expected) in run(*isa).iter().zip(&expected) {
                let name = format!("{isa:?} x{x:?} w{w:?} {cfg:?}");
                assert_close(&name, got, expected, Tolerance::of(DType::F32));
            }
        }
    }
}

fn cfg(stride: usize, padding: usize, dilation: usize, groups: usize) -> Conv2dConfig {
    Conv2dConfig { stride, padding, dilation, groups }
}

#[test]
fn the_shapes_of_the_networks() {
    for dtype in [DType::F32, DType::F64] {
        check([2, 3, 32, 32], [16, 3, 3, 3], false, cfg(1, 1, 1, 1), dtype);
        check([2, 16, 32, 32], [16, 16, 3, 3], true, cfg(1, 1, 1, 1), dtype);
        check([3, 16, 32, 32], [32, 16, 3, 3], false, cfg(2, 1, 1, 1), dtype);
        check([3, 16, 32, 32], [32, 16, 1, 1], false, cfg(2, 0, 1, 1), dtype);
        check([5, 24, 8, 8], [40, 24, 3, 3], false, cfg(1, 1, 1, 1), dtype);
        check([7, 33, 4, 4], [9, 33, 3, 3], true, cfg(1, 1, 1, 1), dtype);
        check([1, 3, 56, 56], [12, 3, 7, 7], false, cfg(2, 3, 1, 1), dtype);
        check([2, 20, 14, 14], [24, 20, 1, 1], true, cfg(1, 0, 1, 1), dtype);
    }
}

#[test]
fn the_corners() {
    // 1x1 images, a kernel larger than the image, stride beyond the kernel, dilation, groups, depthwise.
    check([3, 5, 1, 1], [7, 5, 3, 3], true, cfg(1, 1, 1, 1), DType::F64);
    check([2, 3, 2, 3], [4, 3, 5, 4], false, cfg(1, 2, 1, 1), DType::F64);
    check([2, 3, 11, 9], [4, 3, 2, 2], false, cfg(3, 0, 1, 1), DType::F64);
    check([2, 3, 13, 17], [4, 3, 3, 2], true, cfg(2, 2, 3, 1), DType::F64);
    check([2, 6, 9, 19], [9, 2, 3, 3], true, cfg(1, 1, 1, 3), DType::F64);
    check([2, 5, 9, 9], [5, 1, 7, 7], true, cfg(1, 3, 1, 5), DType::F64);
    // Depthwise with whole squares of channels and pixels, and remainders of both.
    check([2, 19, 9, 21], [19, 1, 7, 7], true, cfg(1, 3, 1, 19), DType::F64);
    check([1, 16, 12, 13], [16, 1, 3, 3], false, cfg(2, 0, 1, 16), DType::F64);
    check([2, 9, 11, 18], [9, 1, 3, 3], true, cfg(1, 2, 2, 9), DType::F32);
    check([1, 16, 3, 16], [16, 1, 1, 1], true, cfg(1, 0, 1, 16), DType::F32);
    check([1, 1, 1, 1], [1, 1, 1, 1], true, cfg(1, 0, 1, 1), DType::F64);
    check([1, 2, 5, 40], [2, 2, 1, 3], true, cfg(4, 3, 2, 1), DType::F64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn drawn_shapes(
        (n, c, k, groups) in (1usize..4, 1usize..5, 1usize..5, 1usize..3),
        (h, w) in (1usize..20, 1usize..36),
        (r, s, stride, padding, dilation) in (1usize..5, 1usize..5, 1usize..4, 0usize..4, 1usize..3),
        bias in any::<bool>(),
        f64_type in any::<bool>(),
    ) {
        let fits = |size: usize, taps: usize| size + 2 * padding > dilation * (taps - 1);
        prop_assume!(fits(h, r) && fits(w, s));
        let dtype = if f64_type { DType::F64 } else { DType::F32 };
        check(
            [n, c * groups, h, w],
            [k * groups, c, r, s],
            bias,
            cfg(stride, padding, dilation, groups),
            dtype,
        );
    }
}

#[test]
fn central_differences() {
    for (x, w, c) in [
        ([2, 3, 5, 5], [4, 3, 3, 3], cfg(1, 1, 1, 1)),
        ([1, 4, 6, 7], [2, 2, 3, 2], cfg(2, 1, 1, 2)),
        ([2, 2, 9, 9], [3, 2, 3, 3], cfg(1, 2, 2, 1)),
    ] {
        let inputs = [spread(&x, 1, 1.0), spread(&w, 2, 1.0), spread(&[w[0]], 3, 1.0)];
        gradcheck(&inputs, GradCheck::default(), |v| Ok(crate::conv2d(&v[0], &v[1], Some(&v[2]), c)?))
            .unwrap();
    }
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let inputs = [spread(&[9, 16, 16, 16], 1, 1.0), spread(&[16, 16, 3, 3], 2, 1.0)]
        .map(|t| t.to_dtype(DType::F32).unwrap());
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| all(|x, w, b| crate::conv2d(x, w, b, cfg(1, 1, 1, 1)), &inputs))
            .iter()
            .map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
            .collect::<Vec<_>>()
    };
    let one = run(1);
    for threads in [2, 3] {
        assert!(one == run(threads), "{threads} threads");
    }
}

#[test]
fn a_strided_input_and_one_without_gradient() {
    let x = spread(&[2, 5, 7, 3], 1, 1.0).permute((0, 3, 1, 2)).unwrap();
    let w = Var::from_tensor(&spread(&[4, 3, 3, 3], 2, 1.0)).unwrap();
    let ys = crate::conv2d(&x, &w, None, cfg(1, 1, 1, 1)).unwrap();
    let expected = reference::conv2d(&x, &w, None, cfg(1, 1, 1, 1)).unwrap();
    assert_close("strided", &ys, &expected, Tolerance::of(DType::F64));
    let grads = ys.sum_all().unwrap().backward().unwrap();
    assert!(grads.get(&x).is_none() && grads.get(&w).is_some());
}

#[test]
fn what_does_not_fit_is_an_error() {
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    let run = |x: &[usize], w: &[usize], c| crate::conv2d(&zeros(x), &zeros(w), None, c).unwrap_err();
    let one = Conv2dConfig::default();
    assert!(matches!(run(&[0, 3, 4, 4], &[2, 3, 3, 3], one), Error::Empty { .. }));
    assert!(matches!(run(&[1, 3, 2, 2], &[2, 3, 3, 3], one), Error::Shape { name: "xs", .. }));
    assert!(matches!(run(&[1, 3, 4, 4], &[2, 4, 3, 3], one), Error::Shape { name: "weight", .. }));
    assert!(matches!(run(&[1, 3, 4, 4], &[2, 3, 3, 3], cfg(0, 0, 1, 1)), Error::Config { .. }));
    let w = zeros(&[2, 3, 3, 3]).to_dtype(DType::F64).unwrap();
    let e = crate::conv2d(&zeros(&[1, 3, 4, 4]), &w, None, one).unwrap_err();
    assert!(matches!(e, Error::DType { .. }));
}
