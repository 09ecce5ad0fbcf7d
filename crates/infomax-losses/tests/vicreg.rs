//! The fused variance-covariance operation against its composed form, and its gradient.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use candle_core::{DType, Tensor};
use infomax_losses::{MomentForm, entropy::variance_covariance, entropy::variance_covariance_composed};
use infomax_testing::{GradCheck, Tolerance, assert_close, gradcheck, spread};

#[test]
fn fused_equals_composed() {
    for (n, d) in [(2, 1), (2, 7), (7, 2), (5, 5), (6, 40), (40, 6)] {
        for (scale, offset) in [(1.0, 0.0), (1e-4, 0.0), (1e4, 0.0), (1.0, 1e3), (0.0, 1.0)] {
            let z = (spread(&[n, d], 3, scale) + offset).unwrap();
            let run = |f: &dyn Fn(&Tensor) -> Tensor| {
                common::value_and_grads(std::slice::from_ref(&z), |z| {
                    let parts = f(&z[0]);
                    let weighted = (parts.get(0).unwrap() * 3.0).unwrap();
                    (weighted + (parts.get(1).unwrap() * 2.0).unwrap()).unwrap()
                })
            };
            let (expected, expected_grad) = run(&|z| variance_covariance_composed(z, 1.0, 1e-4).unwrap());
            for path in [MomentForm::Gram, MomentForm::Features] {
                let (value, grad) = run(&|z| variance_covariance(z, 1.0, 1e-4, path).unwrap());
                let tolerance = Tolerance { rel: 1e-9, abs: 1e-12 };
                assert_close(&format!("{n} {d} {scale} {offset}"), &value, &expected, tolerance);
                let scale = 1e-9 + offset * 1e-11;
                assert_close("gradient", &grad[0], &expected_grad[0], Tolerance { rel: scale, abs: 1e-9 });
            }
        }
    }
}

#[test]
fn gradient_by_central_differences() {
    for (n, d) in [(3, 8), (5, 5), (9, 4)] {
        for path in [MomentForm::Gram, MomentForm::Features] {
            gradcheck(&[spread(&[n, d], 5, 1.2)], GradCheck::default(), |x| {
                Ok(variance_covariance(&x[0], 1.0, 1e-4, path)?)
            })
            .unwrap();
        }
    }
}

#[test]
fn f32_is_exact_far_from_the_origin() {
    let z = (spread(&[64, 256], 1, 2.0) + 1e3).unwrap().to_dtype(DType::F32).unwrap();
    let exact = variance_covariance_composed(&z.to_dtype(DType::F64).unwrap(), 1.0, 1e-4).unwrap();
    let got = variance_covariance(&z, 1.0, 1e-4, MomentForm::Auto).unwrap();
    assert_close("offset 1e3", &got, &exact, Tolerance::rel(2e-6));
}

/// A hinge must not make 0 of NaN: a step that is not finite would show a healthy term.
#[test]
fn nan_stays_nan() {
    let z = spread(&[6, 4], 5, 1.0).to_vec2::<f64>().unwrap();
    let z: Vec<f64> =
        z.into_iter().flatten().enumerate().map(|(i, v)| if i == 9 { f64::NAN } else { v }).collect();
    let z = Tensor::from_vec(z, (6, 4), &candle_core::Device::Cpu).unwrap();
    let both = [
        variance_covariance_composed(&z, 1.0, 1e-4).unwrap(),
        variance_covariance(&z, 1.0, 1e-4, MomentForm::Gram).unwrap(),
        variance_covariance(&z, 1.0, 1e-4, MomentForm::Features).unwrap(),
    ];
    for parts in both {
        assert!(parts.to_vec1::<f64>().unwrap().iter().all(|part| part.is_nan()), "{parts}");
    }
}

#[test]
fn one_row_is_refused() {
    let message =
        variance_covariance(&spread(&[1, 4], 1, 1.0), 1.0, 1e-4, MomentForm::Auto).unwrap_err().to_string();
    assert!(message.contains("n >= 2") && message.contains("[1, 4]"), "{message}");
}
