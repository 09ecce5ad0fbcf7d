//! Every instruction set against sums by hand, on and beside the edges of blocks.

use super::product::{Finish, Matrix, Side, left, right, symmetric};
use crate::moments::pairwise::{Exclude, Score};
use candle_core::DType;
use infomax_simd::gemm::Map;
use infomax_simd::{Float, Isa};
use infomax_testing::{Tolerance, assert_close, spread};

fn values<T: Float>(n: usize, d: usize, seed: u64) -> Vec<T> {
    let values = spread(&[n * d], seed, 1.0).to_vec1::<f64>().unwrap();
    values.into_iter().map(T::of).collect()
}

fn products<T: Float>(sizes: &[(usize, usize)], tolerance: f64) {
    for &(n, d) in sizes {
        let (z, shift, scale) = (values::<T>(n, d, 1), values::<f64>(1, d, 2), values::<f64>(1, d, 3));
        let map = Map::<T>::new(&shift, &scale);
        let x = Matrix { z: z.as_slice(), n, d, map: &map };
        let dense: Vec<f64> =
            (0..n * d).map(|at| (z[at].f64() - shift[at % d]) * T::of(scale[at % d]).f64()).collect();
        let finish = Finish { alpha: 1.0, add: None, project: None, post: None };
        let (rows, cols) = (values::<T>(n, n, 4), values::<T>(d, d, 5));
        for isa in Isa::available() {
            let check = |name: &str, got: &[T], width: usize, f: &dyn Fn(usize, usize) -> f64| {
                for (at, got) in got.iter().enumerate() {
                    let expected = f(at / width, at % width);
                    let error = (got.f64() - expected).abs() / (1.0 + expected.abs());
                    assert!(error < tolerance, "{name} {isa:?} ({n}, {d}) at {at}: {} {expected}", got.f64());
                }
            };
            check("rows", &symmetric::<T, T, T>(x, Side::Rows, *isa), n, &|i, j| {
                (0..d).map(|k| dense[i * d + k] * dense[j * d + k]).sum()
            });
            check("columns", &symmetric::<T, T, T>(x, Side::Columns, *isa), d, &|i, j| {
                (0..n).map(|k| dense[k * d + i] * dense[k * d + j]).sum()
            });
            check("left", &left(&rows, n, x, &finish, *isa), d, &|i, j| {
                (0..n).map(|k| rows[i * n + k].f64() * dense[k * d + j]).sum()
            });
            check("right", &right(x, &cols, d, &finish, *isa), d, &|i, j| {
                (0..d).map(|k| dense[i * d + k] * cols[k * d + j].f64()).sum()
            });
        }
    }
}

#[test]
fn products_of_every_instruction_set() {
    let sizes = [(1, 1), (3, 19), (100, 33), (33, 100), (110, 600)];
    products::<f32>(&sizes, 3e-5);
    products::<f64>(&sizes, 1e-12);
}

/// For valgrind: no product of the composed forms.
#[test]
#[cfg_attr(miri, ignore = "too slow there")]
fn memory_small_columns() {
    products::<f32>(&[(3, 19)], 3e-5);
    products::<f64>(&[(5, 3)], 1e-12);
    let x = spread(&[3, 5], 6, 1.0);
    let all = |isa| {
        let rows =
            crate::moments::pairwise::row_log_sum_exp_isa(&x, Score::Distance(0.4), Exclude::Own, 16, isa);
        let wave =
            crate::moments::characteristic::characteristic_error_isa(&x, 0.5, &[1.0, 0.7], &[0.5, 0.4], isa);
        [rows.unwrap(), wave.unwrap()]
    };
    let expected = all(Isa::Portable);
    for isa in Isa::available() {
        for (got, expected) in all(*isa).iter().zip(&expected) {
            assert_close(&format!("{isa:?}"), got, expected, Tolerance::of(DType::F64));
        }
    }
}

#[test]
fn sums_of_every_instruction_set() {
    for dtype in [DType::F32, DType::F64] {
        let x = spread(&[50, 21], 6, 1.0).to_dtype(dtype).unwrap();
        let exact = x.to_dtype(DType::F64).unwrap();
        let rel = if dtype == DType::F32 { 5e-6 } else { 1e-11 };
        let close = |name: &str, got: candle_core::Tensor, expected: candle_core::Tensor| {
            assert_close(name, &got.to_dtype(DType::F64).unwrap(), &expected, Tolerance { rel, abs: rel });
        };
        let score = Score::Distance(0.4);
        let expected = crate::reference::row_log_sum_exp(&exact, score, Exclude::Own).unwrap();
        let (targets, weights) = ([1.0, 0.7, 0.3], [0.5, 0.4, 0.1]);
        // Angles that need the library's reduction, too.
        let far = (&x * 3e4).unwrap();
        let wave = |x: &candle_core::Tensor| {
            crate::reference::characteristic_error(x, 0.5, &targets, &weights).unwrap()
        };
        let far_exact = far.to_dtype(DType::F64).unwrap();
        for isa in Isa::available() {
            let got =
                crate::moments::pairwise::row_log_sum_exp_isa(&x, score, Exclude::Own, 16, *isa).unwrap();
            close("log-sum-exp", got, expected.clone());
            for (x, exact) in [(&x, &exact), (&far, &far_exact)] {
                let got = crate::moments::characteristic::characteristic_error_isa(
                    x, 0.5, &targets, &weights, *isa,
                );
                close("characteristic", got.unwrap(), wave(exact));
            }
        }
    }
}
