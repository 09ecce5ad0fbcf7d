//! Batch norm against its composed form, by central differences, and at its corners.

use super::batch::batch_norm_train_isa;
use crate::{Activation, Error, reference};
use candle_core::{DType, Device, Tensor, Var};
use infomax_simd::Isa;
use infomax_testing::{GradCheck, Tolerance, assert_close, gradcheck, spread};

/// Small planes, whose channels go together in blocks, and in the last two shapes larger ones.
const SHAPES: [&[usize]; 10] = [
    &[5, 3, 7, 5],
    &[2, 4, 8, 8],
    &[6, 9],
    &[1, 2, 3, 3],
    &[3, 1, 1, 1],
    &[17, 16, 4, 4],
    &[70, 130],
    &[66, 9, 3, 5],
    &[2, 5, 9, 8],
    &[3, 3, 7, 11],
];

/// Outputs, statistics and the gradients of all four arguments.
fn all(
    inputs: &[Tensor],
    residual: bool,
    f: impl Fn(&Tensor, &Tensor, &Tensor, Option<&Tensor>) -> Vec<Tensor>,
) -> Vec<Tensor> {
    let v: Vec<Var> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let mut results = f(&v[0], &v[1], &v[2], residual.then(|| v[3].as_tensor()));
    let readout = spread(inputs[0].dims(), 9, 1.0).to_dtype(inputs[0].dtype()).unwrap();
    let grads = (&results[0] * readout).unwrap().sum_all().unwrap().backward().unwrap();
    let count = if residual { 4 } else { 3 };
    results.extend(v[..count].iter().map(|v| grads.get(v).unwrap().clone()));
    results
}

fn inputs(shape: &[usize], dtype: DType) -> Vec<Tensor> {
    let c = shape[1];
    [spread(shape, 1, 2.0), spread(&[c], 2, 1.0), spread(&[c], 3, 1.0), spread(shape, 4, 1.0)]
        .iter()
        .map(|t| t.to_dtype(dtype).unwrap())
        .collect()
}

#[test]
fn the_composed_form_in_value_and_gradient() {
    check(&SHAPES);
}

/// For valgrind.
#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn memory_small_norm() {
    check(&[&[3, 5, 2, 3], &[5, 9]]);
}

fn check(shapes: &[&[usize]]) {
    for &shape in shapes {
        for (residual, act) in [
            (false, Activation::None),
            (false, Activation::Relu),
            (true, Activation::Relu),
            (true, Activation::None),
        ] {
            for dtype in [DType::F32, DType::F64] {
                let inputs = inputs(shape, dtype);
                let expected = all(&inputs, residual, |x, w, b, r| {
                    let o = reference::batch_norm_train(x, Some(w), Some(b), r, 1e-2, act).unwrap();
                    vec![o.ys, o.mean, o.var]
                });
                for isa in Isa::available() {
                    let got = all(&inputs, residual, |x, w, b, r| {
                        let o = batch_norm_train_isa(x, Some(w), Some(b), r, 1e-2, act, *isa, None).unwrap();
                        vec![o.ys, o.mean, o.var]
                    });
                    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
                        let name = format!("{isa:?} {dtype:?} {shape:?} {residual} {act:?} result {i}");
                        assert_close(
                            &name,
                            got,
                            expected,
                            Tolerance { rel: Tolerance::of(dtype).rel, abs: 1e-6 },
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn evaluation_is_the_composed_form() {
    let inputs = inputs(&[3, 5, 4, 6], DType::F64);
    let (mean, var) = (spread(&[5], 5, 1.0), (spread(&[5], 6, 1.0) + 2.0).unwrap());
    let act = Activation::Relu;
    let expected = all(&inputs, true, |x, w, b, r| {
        vec![reference::batch_norm_eval(x, &mean, &var, Some(w), Some(b), r, 1e-5, act).unwrap()]
    });
    let got = all(&inputs, true, |x, w, b, r| {
        vec![crate::batch_norm_eval(x, &mean, &var, Some(w), Some(b), r, 1e-5, act).unwrap()]
    });
    for (got, expected) in got.iter().zip(&expected) {
        assert_close("eval", got, expected, Tolerance::of(DType::F64));
    }
}

#[test]
fn central_differences() {
    for shape in [&[3, 2, 3, 3][..], &[7, 4]] {
        for act in [Activation::None, Activation::Relu] {
            let inputs = inputs(shape, DType::F64);
            gradcheck(&inputs, GradCheck::default(), |v| {
                Ok(crate::batch_norm_train(&v[0], Some(&v[1]), Some(&v[2]), Some(&v[3]), 1e-3, act)?.ys)
            })
            .unwrap();
        }
    }
}

#[test]
fn a_large_mean_does_not_cancel() {
    let x = (spread(&[8, 2, 9, 9], 1, 1.0) + 1e4).unwrap().to_dtype(DType::F32).unwrap();
    let got = crate::batch_norm_train(&x, None, None, None, 1e-5, Activation::None).unwrap();
    let exact = reference::batch_norm_train(
        &x.to_dtype(DType::F64).unwrap(),
        None,
        None,
        None,
        1e-5,
        Activation::None,
    )
    .unwrap();
    assert_close("var", &got.var, &exact.var, Tolerance::rel(1e-5));
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let inputs = inputs(&[9, 7, 8, 8], DType::F32);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            all(&inputs, true, |x, w, b, r| {
                vec![crate::batch_norm_train(x, Some(w), Some(b), r, 1e-5, Activation::Relu).unwrap().ys]
            })
        })
        .iter()
        .map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap())
        .collect::<Vec<_>>()
    };
    assert!(run(1) == run(2));
}

#[test]
fn what_does_not_fit_is_an_error() {
    let zeros = |dims: &[usize]| Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
    let run = |x: &Tensor, w: Option<&Tensor>, eps| {
        crate::batch_norm_train(x, w, None, None, eps, Activation::None).unwrap_err()
    };
    assert!(matches!(run(&zeros(&[0, 3]), None, 1e-5), Error::Empty { .. }));
    assert!(matches!(run(&zeros(&[2, 3, 4]), None, 1e-5), Error::Shape { .. }));
    assert!(matches!(run(&zeros(&[2, 3]), Some(&zeros(&[2])), 1e-5), Error::Shape { name: "weight", .. }));
    assert!(matches!(run(&zeros(&[2, 3]), None, 0.0), Error::Config { .. }));
}
