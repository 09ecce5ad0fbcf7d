//! The operations of objectives against their composed forms: values, gradients, numbers of threads, numerics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use candle_core::{DType, Tensor, Var};
use infomax_kernels::columns::{Columns, Finishing, center, gram, inner_product, second_moment};
use infomax_kernels::pairwise::{
    Exclude, Score, nearest_squared_distances, row_log_sum_exp, row_log_sum_exp_blocked, squared_distances,
};
use infomax_kernels::{
    Error, Normalize, Result, characteristic_error, half_log_det_gram, l2_normalize, reference, squared_error,
};
use infomax_testing::{GradCheck, Tolerance, assert_close, gradcheck, spread};

type Op = Box<dyn Fn(&[Tensor]) -> Result<Tensor> + Send + Sync>;

/// Every operation with its reference and the number of its arguments.
fn operations() -> Vec<(String, usize, Op, Op)> {
    let mut all: Vec<(String, usize, Op, Op)> = Vec::new();
    let mut add =
        |name: String, inputs: usize, fused: Op, composed: Op| all.push((name, inputs, fused, composed));
    add("center".into(), 1, Box::new(|x| center(&x[0])), Box::new(|x| reference::center(&x[0])));
    add("gram".into(), 1, Box::new(|x| gram(&x[0])), Box::new(|x| reference::gram(&x[0])));
    add(
        "second_moment".into(),
        1,
        Box::new(|x| second_moment(&x[0])),
        Box::new(|x| reference::second_moment(&x[0])),
    );
    add(
        "l2_normalize".into(),
        1,
        Box::new(|x| l2_normalize(&x[0], 1e-6)),
        Box::new(|x| reference::l2_normalize(&x[0], 1e-6)),
    );
    add(
        "squared_error".into(),
        2,
        Box::new(|x| squared_error(&x[0], &x[1])),
        Box::new(|x| reference::squared_error(&x[0], &x[1])),
    );
    add(
        "squared_distances".into(),
        1,
        Box::new(|x| squared_distances(&x[0])),
        Box::new(|x| reference::squared_distances(&x[0])),
    );
    for score in [Score::Distance(0.3), Score::Dot(0.7)] {
        for exclude in [Exclude::Nothing, Exclude::Own, Exclude::Sample(3)] {
            add(
                format!("row_log_sum_exp {score:?} {exclude:?}"),
                1,
                Box::new(move |x| row_log_sum_exp(&x[0], score, exclude)),
                Box::new(move |x| reference::row_log_sum_exp(&x[0], score, exclude)),
            );
        }
    }
    for normalize in [Normalize::Not, Normalize::Center, Normalize::Standardize(1e-3)] {
        for rows in [false, true] {
            add(
                format!("half_log_det_gram {normalize:?} {rows}"),
                1,
                Box::new(move |x| half_log_det_gram(&x[0], 0.8, normalize, rows)),
                Box::new(move |x| reference::half_log_det_gram(&x[0], 0.8, normalize)),
            );
        }
    }
    const TARGETS: [f64; 5] = [1.0, 0.9, 0.6, 0.3, 0.1];
    const WEIGHTS: [f64; 5] = [0.2, 0.5, 0.4, 0.3, 0.1];
    add(
        "characteristic_error".into(),
        1,
        Box::new(|x| characteristic_error(&x[0], 0.4, &TARGETS, &WEIGHTS)),
        Box::new(|x| reference::characteristic_error(&x[0], 0.4, &TARGETS, &WEIGHTS)),
    );
    all
}

/// The value, and the gradient of its sum with weights that all differ.
fn value_and_grads(inputs: &[Tensor], f: &Op) -> Result<(Tensor, Vec<Tensor>)> {
    let vars: Vec<Var> = inputs.iter().map(Var::from_tensor).collect::<candle_core::Result<_>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let value = f(&tensors)?;
    let weights = (spread(value.dims(), 77, 1.0) + 0.3)?.to_dtype(value.dtype())?;
    let grads = (&value * weights)?.sum_all()?.backward()?;
    Ok((value.detach(), tensors.iter().map(|t| grads.get(t).unwrap().clone()).collect()))
}

fn inputs(count: usize, (n, d): (usize, usize), dtype: DType) -> Vec<Tensor> {
    (0..count)
        .map(|i| spread(&[n, d], 5 + i as u64, 1.0 / (d as f64).sqrt()).to_dtype(dtype).unwrap())
        .collect()
}

/// Shapes at and around the edges of blocks, panels and packed parts.
const SHAPES: [(usize, usize); 9] =
    [(4, 1), (7, 2), (5, 5), (13, 40), (40, 13), (97, 17), (101, 530), (260, 100), (300, 49)];

#[test]
fn fused_equals_composed() {
    for (name, count, fused, composed) in operations() {
        for shape in SHAPES {
            for (dtype, rel) in [(DType::F64, 1e-10), (DType::F32, 3e-5)] {
                let x = inputs(count, shape, dtype);
                let (value, grads) = value_and_grads(&x, &fused).unwrap();
                let wide: Vec<Tensor> = x.iter().map(|x| x.to_dtype(DType::F64).unwrap()).collect();
                let (expected, expected_grads) = value_and_grads(&wide, &composed).unwrap();
                let tolerance = Tolerance { rel, abs: rel * 1e-1 };
                let what = format!("{name} {shape:?} {dtype:?}");
                let wide = |x: &Tensor| x.to_dtype(DType::F64).unwrap();
                assert_close(&what, &wide(&value), &expected, tolerance);
                for (grad, expected) in grads.iter().zip(&expected_grads) {
                    assert_close(&format!("gradient of {what}"), &wide(grad), expected, tolerance);
                }
            }
        }
    }
}

#[test]
fn gradients_by_central_differences() {
    for (name, count, fused, _) in operations() {
        for shape in [(4, 6), (5, 5), (7, 3)] {
            gradcheck(&inputs(count, shape, DType::F64), GradCheck::default(), |x| Ok(fused(x)?))
                .unwrap_or_else(|e| panic!("{name} {shape:?}: {e}"));
        }
    }
}

#[test]
fn same_bits_for_any_number_of_threads() {
    let bits = |x: &Tensor| -> Vec<u32> {
        x.flatten_all().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect()
    };
    for (name, count, fused, _) in operations() {
        for shape in [(150, 700), (700, 150)] {
            let x = inputs(count, shape, DType::F32);
            let mut seen: Option<Vec<Vec<u32>>> = None;
            for threads in [1, 2, 5] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let (value, grads) = pool.install(|| value_and_grads(&x, &fused)).unwrap();
                let all: Vec<_> = std::iter::once(&value).chain(&grads).map(bits).collect();
                match &seen {
                    None => seen = Some(all),
                    Some(seen) => {
                        assert!(*seen == all, "{name} {shape:?}: {threads} threads change the bits")
                    }
                }
            }
        }
    }
}

#[test]
fn products_are_finished_in_the_stated_order() {
    // Wider than a block of columns, deeper than a packed part.
    for (n, d) in [(30, 420), (270, 40)] {
        let (z, w) = (spread(&[n, d], 1, 1.0), spread(&[n, d], 2, 1.0));
        let vector = |seed: u64, len: usize| spread(&[len], seed, 1.0).to_vec1::<f64>().unwrap();
        let (shift, scale, factors, post, project) =
            (vector(3, d), vector(4, d), vector(5, d), vector(6, d), vector(7, d));
        let row = |v: &[f64]| Tensor::from_slice(v, (1, v.len()), z.device()).unwrap();
        let x = Columns::new(&z, shift.clone(), scale.clone()).unwrap();
        let dense = z.broadcast_sub(&row(&shift)).unwrap().broadcast_mul(&row(&scale)).unwrap();
        let tolerance = Tolerance { rel: 1e-11, abs: 1e-11 };
        assert_close("to_tensor", &x.to_tensor().unwrap(), &dense, tolerance);
        let m = spread(&[n, n], 8, 1.0);
        let other = Columns::plain(&w).unwrap();
        let finishing = Finishing {
            alpha: 0.7,
            add: Some((&other, factors.clone())),
            project: Some(project.clone()),
            post: Some(post.clone()),
        };
        let y = (m.matmul(&dense).unwrap() * 0.7).unwrap();
        let y = (y + w.broadcast_mul(&row(&factors)).unwrap()).unwrap();
        let sums = (&dense * &y).unwrap().sum_keepdim(0).unwrap();
        let drop = dense.broadcast_mul(&(sums * row(&project)).unwrap()).unwrap();
        let expected = (y - drop).unwrap().broadcast_mul(&row(&post)).unwrap();
        assert_close("left", &x.left(&m, &finishing).unwrap(), &expected, tolerance);
        let m = spread(&[d, d], 9, 1.0);
        let finishing = Finishing { project: None, ..finishing };
        let y = (dense.matmul(&m).unwrap() * 0.7).unwrap();
        let y = (y + w.broadcast_mul(&row(&factors)).unwrap()).unwrap();
        let expected = y.broadcast_mul(&row(&post)).unwrap();
        assert_close("right", &x.right(&m, &finishing).unwrap(), &expected, tolerance);
        let total: f64 = (&z * &w).unwrap().sum_all().unwrap().to_scalar().unwrap();
        assert!((inner_product(&z, &w).unwrap() - total).abs() < 1e-9);
    }
}

#[test]
fn blocks_of_any_size_give_the_same_sums() {
    let x = spread(&[130, 11], 3, 2.0);
    for exclude in [Exclude::Nothing, Exclude::Own, Exclude::Sample(13)] {
        for score in [Score::Distance(5.0), Score::Dot(2.0)] {
            let whole = reference::row_log_sum_exp(&x, score, exclude).unwrap();
            for block in [1, 2, 7, 64, 130, 1000] {
                let got = row_log_sum_exp_blocked(&x, score, exclude, block).unwrap();
                let tolerance = Tolerance { rel: 1e-12, abs: 1e-12 };
                assert_close(&format!("{score:?} {exclude:?} {block}"), &got, &whole, tolerance);
            }
        }
    }
}

#[test]
fn far_from_the_origin_f32_keeps_its_digits() {
    let x = (spread(&[120, 300], 1, 2.0) + 1e3).unwrap().to_dtype(DType::F32).unwrap();
    let exact = x.to_dtype(DType::F64).unwrap();
    let wide = |x: Tensor| x.to_dtype(DType::F64).unwrap();
    let tolerance = Tolerance { rel: 2e-6, abs: 1e-5 };
    let (got, expected) = (squared_distances(&x).unwrap(), reference::squared_distances(&exact).unwrap());
    assert_close("distances", &wide(got), &expected, tolerance);
    let score = Score::Distance(1e-3);
    let got = row_log_sum_exp(&x, score, Exclude::Own).unwrap();
    let expected = reference::row_log_sum_exp(&exact, score, Exclude::Own).unwrap();
    assert_close("log-sum-exp", &wide(got), &expected, tolerance);
    let got = half_log_det_gram(&x, 1e4, Normalize::Center, true).unwrap();
    let expected = half_log_det_gram(&exact, 1e4, Normalize::Center, false).unwrap();
    assert_close("log-det", &wide(got), &expected, Tolerance::rel(1e-6));
}

/// The value and gradient of `sum_i g_i ln sum_j exp(-c |x_i - x_j|^2)`, by the differences of the rows, in f64.
fn plain_log_sums(x: &[Vec<f64>], g: &[f64], c: f64) -> (Vec<f64>, Vec<f64>) {
    let (n, d) = (x.len(), x[0].len());
    let score = |i: usize, j: usize| -c * (0..d).map(|k| (x[i][k] - x[j][k]).powi(2)).sum::<f64>();
    let logs: Vec<f64> = (0..n).map(|i| (0..n).map(|j| score(i, j).exp()).sum::<f64>().ln()).collect();
    let mut grad = vec![0.0; n * d];
    for i in 0..n {
        for j in (0..n).filter(|j| *j != i) {
            let w = score(i, j).exp() * (g[i] * (-logs[i]).exp() + g[j] * (-logs[j]).exp());
            for k in 0..d {
                grad[i * d + k] -= 2.0 * c * w * (x[i][k] - x[j][k]);
            }
        }
    }
    (logs, grad)
}

/// Wide components, narrow ones, clusters, equal rows and an offset: the gradient in f32 has the digits of f32,
/// relative to the largest element.
#[test]
fn gradients_of_distances_keep_their_digits_in_f32() {
    let plain = spread(&[64, 32], 3, 1.7);
    let order = Tensor::from_vec((0..64u32).map(|i| i / 2).collect(), 64, plain.device()).unwrap();
    let pairs = plain.index_select(&order, 0).unwrap();
    let near = (&pairs + spread(&[64, 32], 4, 1e-4)).unwrap();
    let long = Tensor::cat(&[&near, &(&near + 3.0).unwrap(), &(&plain - 1.0).unwrap()], 0).unwrap();
    for (name, x, c, rel) in [
        ("narrow", &plain, 0.5, 3e-6),
        ("wide", &plain, 1e-3, 3e-6),
        ("wider", &plain, 1e-6, 3e-6),
        ("duplicates", &pairs, 0.1, 3e-6),
        ("clusters", &near, 1.0, 3e-6),
        ("clusters, narrow", &near, 1e6, 3e-5),
        ("blocks of clusters", &long, 1.0, 3e-6),
        ("offset", &(&plain + 1e3).unwrap(), 0.01, 3e-6),
        ("one dimension", &spread(&[200, 1], 5, 1.0), 3.0, 3e-6),
    ] {
        let x = x.to_dtype(DType::F32).unwrap();
        let rows: Vec<Vec<f64>> = x.to_dtype(DType::F64).unwrap().to_vec2().unwrap();
        let g: Vec<f64> = (0..rows.len()).map(|i| 1.0 + 0.25 * (i % 4) as f64).collect();
        let (logs, expected) = plain_log_sums(&rows, &g, c);
        let var = Var::from_tensor(&x).unwrap();
        let sums = row_log_sum_exp(&var, Score::Distance(c), Exclude::Nothing).unwrap();
        for (got, expected) in sums.to_vec1::<f32>().unwrap().into_iter().zip(&logs) {
            assert!(
                (f64::from(got) - expected).abs() < 2e-6 * (1.0 + expected.abs()),
                "{name}: {got} {expected}"
            );
        }
        let weights: Vec<f32> = g.iter().map(|v| *v as f32).collect();
        let weights = Tensor::from_vec(weights, rows.len(), x.device()).unwrap();
        let grads = (sums * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let got: Vec<f32> = grads.get(&var).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let largest = expected.iter().fold(0f64, |m, v| m.max(v.abs()));
        let error = got.iter().zip(&expected).fold(0f64, |m, (a, b)| m.max((f64::from(*a) - b).abs()));
        assert!(error <= rel * largest, "{name}: {error:e} of {largest:e}");
    }
}

#[test]
fn equal_rows_have_distance_zero_and_near_ones_their_digits() {
    let x = (spread(&[40, 7], 6, 1.0) + 50.0).unwrap();
    let (a, b) = (x.clone(), (&x + spread(&[40, 7], 7, 1e-3)).unwrap());
    for dtype in [DType::F32, DType::F64] {
        let x = Tensor::cat(&[&a, &b, &a], 0).unwrap().to_dtype(dtype).unwrap();
        let rows: Vec<Vec<f64>> = x.to_dtype(DType::F64).unwrap().to_vec2().unwrap();
        let got: Vec<Vec<f64>> =
            squared_distances(&x).unwrap().to_dtype(DType::F64).unwrap().to_vec2().unwrap();
        for i in 0..120 {
            for j in 0..120 {
                let r2: f64 = rows[i].iter().zip(&rows[j]).map(|(u, v)| (u - v) * (u - v)).sum();
                assert!((got[i][j] - r2).abs() <= 2e-5 * r2, "{dtype:?} {i} {j}: {} {r2}", got[i][j]);
            }
        }
        let nearest = nearest_squared_distances(&x).unwrap();
        for i in 0..120 {
            let (from, to) = if i % 80 < 40 { (0.0, 0.0) } else { (1e-7, 1e-4) };
            assert!((from..=to).contains(&nearest[i]), "{dtype:?} {i}: {}", nearest[i]);
        }
    }
}

/// `2 (a - b)` to the last bits, whatever both share.
#[test]
fn the_gradient_of_squared_errors_does_not_see_an_offset() {
    for offset in [0.0, 1e3, 1e5] {
        let draw = |seed| (spread(&[33, 17], seed, 1.0) + offset).unwrap().to_dtype(DType::F32).unwrap();
        let (a, b) = (Var::from_tensor(&draw(1)).unwrap(), Var::from_tensor(&draw(2)).unwrap());
        let grads = (squared_error(&a, &b).unwrap() * 0.3).unwrap().backward().unwrap();
        let host =
            |x: &Tensor| x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let (x, y) = (host(&a), host(&b));
        let (da, db) = (host(grads.get(&a).unwrap()), host(grads.get(&b).unwrap()));
        for i in 0..x.len() {
            let expected = 2.0 * 0.3 * (x[i] - y[i]);
            assert!((da[i] - expected).abs() <= 2e-7 * expected.abs(), "{offset} {i}: {} {expected}", da[i]);
            assert_eq!(da[i], -db[i]);
        }
    }
}

/// What is left of a gradient that is almost along its row.
#[test]
fn the_gradient_of_unit_rows_keeps_the_digits_beside_the_row() {
    let z = (spread(&[9, 70], 1, 1.0) * 3.0).unwrap().to_dtype(DType::F32).unwrap();
    let side = spread(&[9, 70], 2, 1e-4).to_dtype(DType::F32).unwrap();
    let g = (&z + side).unwrap();
    let var = Var::from_tensor(&z).unwrap();
    let got = (l2_normalize(&var, 1e-12).unwrap() * &g).unwrap().sum_all().unwrap().backward().unwrap();
    let rows = |x: &Tensor| x.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
    let (z, g, got) = (rows(&z), rows(&g), rows(got.get(&var).unwrap()));
    for i in 0..z.len() {
        let (mut zz, mut zg) = (0.0, 0.0);
        for (u, v) in z[i].iter().zip(&g[i]) {
            zz += u * u;
            zg += u * v;
        }
        let expected: Vec<f64> = z[i].iter().zip(&g[i]).map(|(u, v)| (v - zg / zz * u) / zz.sqrt()).collect();
        let largest = expected.iter().fold(0f64, |m, v| m.max(v.abs()));
        for (a, b) in got[i].iter().zip(&expected) {
            assert!((a - b).abs() <= 2e-7 * largest, "{a:e} {b:e}");
        }
    }
}

#[test]
fn nearest_distances_are_those_of_the_whole_matrix() {
    let x = spread(&[150, 6], 4, 1.0);
    let (n, r2) = (150, squared_distances(&x).unwrap().to_vec2::<f64>().unwrap());
    for (i, got) in nearest_squared_distances(&x).unwrap().into_iter().enumerate() {
        let expected = (0..n).filter(|j| *j != i).map(|j| r2[i][j]).fold(f64::INFINITY, f64::min);
        assert!((got - expected).abs() < 1e-12, "{i}: {got} {expected}");
    }
}

#[test]
fn what_is_left_out_or_not_finite() {
    // A row alone leaves out everything; its gradient is 0, not NaN.
    let x = Var::from_tensor(&spread(&[1, 3], 1, 1.0)).unwrap();
    let l = row_log_sum_exp(&x, Score::Dot(1.0), Exclude::Own).unwrap();
    assert_eq!(l.to_vec1::<f64>().unwrap(), [f64::NEG_INFINITY]);
    let grad = l.sum_all().unwrap().backward().unwrap().get(&x).unwrap().to_vec2::<f64>().unwrap();
    assert_eq!(grad, [[0.0; 3]]);
    for bad in [f64::NAN, f64::INFINITY] {
        let x = (spread(&[4, 3], 1, 1.0) * bad).unwrap();
        let refused = |e: Error| matches!(e, Error::NonFinite { .. } | Error::NotPositiveDefinite { .. });
        assert!(refused(row_log_sum_exp(&x, Score::Dot(1.0), Exclude::Own).unwrap_err()));
        for rows in [true, false] {
            assert!(refused(half_log_det_gram(&x, 1.0, Normalize::Center, rows).unwrap_err()));
        }
    }
    let x = spread(&[4, 3], 1, 1.0);
    let message = |e: Error| e.to_string();
    assert!(message(half_log_det_gram(&x, 0.0, Normalize::Not, true).unwrap_err()).contains("positive"));
    assert!(
        message(row_log_sum_exp(&x, Score::Distance(-1.0), Exclude::Own).unwrap_err()).contains("factor")
    );
    assert!(message(gram(&x.get(0).unwrap()).unwrap_err()).contains("rank 2"));
    assert!(message(characteristic_error(&x, 0.1, &[1.0], &[]).unwrap_err()).contains("weights"));
}
