//! Estimators of information against reference implementations, closed forms, and variables without any.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use infomax_core::Key;
use infomax_eval::information::*;
use infomax_eval::*;
use proptest::prelude::*;
use serde_json::Value;

fn normal(seed: u64, n: usize, d: usize) -> Tensor {
    Key::new(seed).normal(0.0, 1.0, (n, d), DType::F64, &Device::Cpu).unwrap()
}

/// `d` pairs of columns of the correlation `rho`: `-d / 2 ln(1 - rho^2)` nats.
fn pairs(seed: u64, n: usize, d: usize, rho: f64) -> (Tensor, Tensor) {
    let (x, e) = (normal(seed, n, d), normal(1_000 + seed, n, d));
    let y = ((&x * rho).unwrap() + (e * (1.0 - rho * rho).sqrt()).unwrap()).unwrap();
    (x, y)
}

fn golden(name: &str) -> Tensor {
    let path = format!("{}/tests/golden/{name}.npy", env!("CARGO_MANIFEST_DIR"));
    let x = infomax_testing::read_npy(path).unwrap().to_dtype(DType::F64).unwrap();
    if x.rank() == 1 { x.unsqueeze(1).unwrap() } else { x }
}

fn columns(x: &Tensor, from: usize, count: usize) -> Tensor {
    x.narrow(1, from, count).unwrap().contiguous().unwrap()
}

#[track_caller]
fn close(got: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap();
    assert!((got - expected).abs() <= 1e-9 * expected.abs().max(1e-3), "{got} instead of {expected}");
}

fn few() -> Resampling {
    Resampling { draws: 20, max_rows: 400, ..Resampling::default() }
}

fn raw(k: usize) -> KsgConfig {
    KsgConfig { k, marginals: Marginals::Raw, ..KsgConfig::default() }
}

#[test]
fn reference_values() {
    let all: Value = serde_json::from_str(include_str!("golden/information/information.json")).unwrap();
    let (dx, dy) = (golden("mi/multinormal-dense-5-5-0.5.x"), golden("mi/multinormal-dense-5-5-0.5.y"));
    let (sx, sy) = (golden("mi/asinh-student-identity-2-2-2.x"), golden("mi/asinh-student-identity-2-2-2.y"));
    let none = Resampling::none();
    let (x, y, z) = (columns(&dx, 0, 1), columns(&dy, 0, 2), columns(&dx, 1, 2));
    for k in [3, 5] {
        let e = conditional_mutual_information(&x, &y, &z, &raw(k), &none).unwrap();
        close(e.value, &all["conditional"][format!("k{k}")]);
        let e = mixture_mutual_information(&sx, &sy, k, &none).unwrap();
        close(e.value, &all["gao"]["student"][format!("k{k}")]);
        let (ux, uy) =
            ("information/gao2017-discrete-uniform-m5.x", "information/gao2017-discrete-uniform-m5.y");
        let e = mixture_mutual_information(&golden(ux), &golden(uy), k, &none).unwrap();
        close(e.value, &all["gao"]["uniform"][format!("k{k}")]);
    }
    let e = normal_conditional_mutual_information(&x, &y, &z, NormalModel::Sample, &none).unwrap();
    close(e.value, &all["normal_conditional"]);
    close(normal_mutual_information(&dx, &dy, NormalModel::Sample, &none).unwrap().value, &all["normal"]);
    close(normal_mutual_information(&sx, &sy, NormalModel::Copula, &none).unwrap().value, &all["copula"]);
    close(normal_mutual_information(&dx, &dy, NormalModel::Shrunk, &none).unwrap().value, &all["shrunk"]);
    for (name, k, d) in [("k8_d5", 8, 5), ("k12_d10", 12, 10)] {
        for (got, expected) in
            entropy_weights(k, d).unwrap().iter().zip(all["weights"][name].as_array().unwrap())
        {
            close(*got, expected);
        }
    }
    let joint = Tensor::cat(&[&dx, &dy], 1).unwrap();
    close(weighted_kozachenko_leonenko(&joint, 8, &none).unwrap().value, &all["weighted"]["k8"]);
    close(weighted_kozachenko_leonenko(&sx, 3, &none).unwrap().value, &all["weighted"]["k3"]);
}

#[test]
fn normal_pairs_in_many_columns() {
    // Five pairs among 2 x 10 columns, where nearest neighbors alone find half.
    let (a, b) = pairs(1, 1_000, 5, 0.8);
    let (x, y) = (
        Tensor::cat(&[&a, &normal(7, 1_000, 5)], 1).unwrap(),
        Tensor::cat(&[&b, &normal(8, 1_000, 5)], 1).unwrap(),
    );
    let truth = -2.5 * (1.0f64 - 0.64).ln();
    let plain = mutual_information(&x, &y, &KsgConfig::default(), &Resampling::none()).unwrap().value;
    let corrected = corrected_mutual_information(&x, &y, &CorrectedConfig::default(), &few()).unwrap();
    assert!(plain < 0.7 * truth, "{plain} of {truth}");
    assert!((corrected.value - truth).abs() < 0.25, "{} of {truth}", corrected.value);
    let copula = normal_mutual_information(&x, &y, NormalModel::Copula, &few()).unwrap();
    assert!((copula.value - truth).abs() < 0.2 && copula.interval.is_some(), "{} of {truth}", copula.value);
    let i = corrected.interval.unwrap();
    assert!(i.lower < truth && truth < i.upper && i.method.contains("trend"), "{i:?}");
}

#[test]
fn independent_variables_have_none() {
    for (n, d) in [(600, 1), (400, 4)] {
        let (x, y) = (normal(11, n, d), normal(12, n, d));
        let none = Resampling::none();
        let values = [
            corrected_mutual_information(&x, &y, &CorrectedConfig::default(), &none).unwrap().value,
            normal_mutual_information(&x, &y, NormalModel::Copula, &none).unwrap().value,
            normal_mutual_information(&x, &y, NormalModel::Sample, &none).unwrap().value,
            copula_splitting_information(&x, &y, &none).unwrap().value,
            sliced_mutual_information(&x, &y, &SlicedConfig::default(), &none).unwrap().value,
            mixture_mutual_information(&x, &y, 3, &none).unwrap().value,
            conditional_mutual_information(&x, &y, &normal(13, n, 1), &KsgConfig::default(), &none)
                .unwrap()
                .value,
        ];
        assert!(values.iter().all(|v| v.abs() < 0.08), "{values:?}");
    }
}

#[test]
fn what_a_third_variable_explains_is_not_counted() {
    // A chain x -> z -> y: dependent, but not given z.
    let (z, e, f) = (normal(21, 900, 1), normal(22, 900, 1), normal(23, 900, 1));
    let (x, y) = ((&z + (e * 0.5).unwrap()).unwrap(), (&z + (f * 0.5).unwrap()).unwrap());
    let plain = mutual_information(&x, &y, &KsgConfig::default(), &Resampling::none()).unwrap().value;
    let given = conditional_mutual_information(&x, &y, &z, &KsgConfig::default(), &few()).unwrap();
    assert!(plain > 0.4 && given.value.abs() < 0.08, "{plain} {}", given.value);
    let normal = normal_conditional_mutual_information(&x, &y, &z, NormalModel::Copula, &few()).unwrap();
    assert!(normal.value.abs() < 0.02 && normal.interval.is_some(), "{}", normal.value);
    let second = KsgConfig { kind: KsgKind::Two, ..KsgConfig::default() };
    assert!(conditional_mutual_information(&x, &y, &z, &second, &few()).is_err());
}

#[test]
fn slices_see_dependence_and_are_below_it() {
    let (x, y) = pairs(31, 500, 3, 0.9);
    let truth = -1.5 * (1.0f64 - 0.81).ln();
    let e = sliced_mutual_information(&x, &y, &SlicedConfig::default(), &few()).unwrap();
    assert!(e.value > 0.05 && e.value < truth && e.doubts[0].code == "lower-bound", "{e:?}");
    // A projection to all dimensions is a rotation.
    let whole = SlicedConfig { dim: 3, slices: 4, ..SlicedConfig::default() };
    let e = sliced_mutual_information(&x, &y, &whole, &Resampling::none()).unwrap();
    assert!(e.value > 0.7 * truth && e.value < 1.1 * truth && e.doubts.is_empty(), "{e:?}");
}

#[test]
fn splitting_copulas() {
    let unit = 0.5 * (2.0 * std::f64::consts::PI * std::f64::consts::E).ln();
    // Twenty independent columns: what balls of 500 rows cannot see.
    let e = copula_splitting_entropy(&normal(41, 500, 20), &few()).unwrap();
    assert!((e.value - 20.0 * unit).abs() < 1.0 && e.interval.is_some(), "{} of {}", e.value, 20.0 * unit);
    let (x, y) = pairs(42, 2_000, 1, 0.9);
    let truth = -0.5 * (1.0f64 - 0.81).ln();
    let found = copula_splitting_information(&x, &y, &few()).unwrap().value;
    assert!((found - truth).abs() < 0.15, "{found} of {truth}");
    // Uncorrelated, but dependent.
    let square = x.sqr().unwrap();
    assert!(copula_splitting_information(&x, &square, &Resampling::none()).unwrap().value > 0.5);
}

#[test]
fn discrete_variables() {
    // A channel that flips one bit in ten: ln 2 - h(0.1).
    let draws = Key::new(5)
        .uniform(0.0, 1.0, (2, 4_000), DType::F64, &Device::Cpu)
        .unwrap()
        .to_vec2::<f64>()
        .unwrap();
    let x: Vec<u32> = draws[0].iter().map(|u| u32::from(*u < 0.5)).collect();
    let y: Vec<u32> = x.iter().zip(&draws[1]).map(|(x, u)| x ^ u32::from(*u < 0.1)).collect();
    let truth = 2f64.ln() + 0.1 * 0.1f64.ln() + 0.9 * 0.9f64.ln();
    let e = discrete_mutual_information(&x, &y, &few()).unwrap();
    let i = e.interval.unwrap();
    assert!((e.value - truth).abs() < 0.03 && i.lower < truth && truth < i.upper, "{} of {truth}", e.value);
    // Twenty by twenty classes without any: the plain estimate would be 361 / 8000 = 0.045.
    let classes = |row: usize| draws[row].iter().map(|u| (u * 20.0) as u32).collect::<Vec<u32>>();
    let e = discrete_mutual_information(&classes(0), &classes(1), &few()).unwrap();
    assert!(e.value.abs() < 0.015, "{}", e.value);
    assert!(matches!(
        discrete_mutual_information(&[1; 9], &[0, 1, 2, 0, 1, 2, 0, 1, 2], &few()),
        Err(Error::OneClass { .. })
    ));
}

#[test]
fn the_student_scale_finds_what_no_correlation_shows() {
    let task = |name: &str| infomax_eval::selftest::tasks().into_iter().find(|t| t.name == name).unwrap();
    let cfg = CorrectedConfig { surrogates: 6, ..CorrectedConfig::default() };
    let errors = |name: &str| {
        let task = task(name);
        let (mut matched, mut corrected) = (0.0, 0.0);
        for seed in 0..4 {
            let (x, y) = task.draw(Key::new(seed), 500).unwrap();
            let none = Resampling::none();
            matched += matched_mutual_information(&x, &y, &cfg, &none).unwrap().value / 4.0;
            corrected += corrected_mutual_information(&x, &y, &cfg, &none).unwrap().value / 4.0;
        }
        (matched - task.truth, corrected - task.truth)
    };
    // A common scale that no correlation shows, and one beside correlations.
    let (matched, corrected) = errors("student-identity-3-3-2");
    assert!(matched.abs() < 0.12 && corrected < -0.12, "{matched} {corrected}");
    // Dependence of another kind: no farther from the truth than without the scale.
    let (matched, corrected) = errors("spiral-multinormal-sparse-3-3-2-2.0");
    assert!(matched.abs() < 0.25 && corrected < -0.3, "{matched} {corrected}");
    // A normal copula, and none: the answer is that of `corrected`.
    let (matched, corrected) = errors("multinormal-sparse-3-3-2-2.0");
    assert!(matched.abs() < 0.09 && (matched - corrected).abs() < 0.04, "{matched} {corrected}");
    let (matched, _) = errors("independent-5-5");
    assert!(matched.abs() < 0.05, "{matched}");
    // Clusters with correlated centers look like normal rows of more information: the interval says so, and a doubt.
    let (x, y) = task("clusters-16-16").draw(Key::new(3), 400).unwrap();
    let found = matched_mutual_information(&x, &y, &cfg, &few()).unwrap();
    let interval = found.interval.as_ref().unwrap();
    assert!(interval.lower < 10f64.ln() && 10f64.ln() < interval.upper, "{found:?}");
    assert!(found.doubts.iter().any(|d| d.code == "not-normal"), "{found:?}");
    let report = mutual_report(
        &Variable::Continuous(x),
        &Variable::Continuous(y),
        &MutualConfig { resampling: few(), permutations: 0, ..MutualConfig::default() },
    );
    let report = report.unwrap();
    assert_eq!(report.estimates[0].estimator, MutualEstimator::Matched, "{}", report.reason);
    let copula = report.estimates.iter().find(|e| e.estimator == MutualEstimator::NormalCopula).unwrap();
    let doubts = &copula.estimate.as_ref().unwrap().doubts;
    assert!(doubts.iter().any(|d| d.code == "model-based"), "{doubts:?}");

    let (x, y) = task("student-identity-2-2-2").draw(Key::new(9), 300).unwrap();
    let of = |x: &Tensor| matched_mutual_information(x, &y, &cfg, &few()).unwrap();
    let once = of(&x);
    assert!(once.interval.as_ref().is_some_and(|i| i.lower < once.value && once.value < i.upper), "{once:?}");
    // Ranks are all that it sees.
    let mapped = of(&(&x / (x.abs().unwrap() + 1.0).unwrap()).unwrap());
    assert!((once.value - mapped.value).abs() < 1e-9, "{once:?} {mapped:?}");
    let wrong = CorrectedConfig { surrogates: 0, ..cfg };
    let error = matched_mutual_information(&x, &y, &wrong, &few()).unwrap_err();
    assert!(error.to_string().contains("corrected.surrogates"), "{error}");
}

#[test]
fn the_report_chooses_by_its_rule() {
    let cfg = MutualConfig {
        permutations: 19,
        permutation_rows: 200,
        resampling: few(),
        ..MutualConfig::default()
    };
    let report = |x: Tensor, y: Tensor| {
        mutual_report(&Variable::Continuous(x), &Variable::Continuous(y), &cfg).unwrap()
    };
    let (x, y) = pairs(51, 500, 2, 0.6);
    let r = report(x.clone(), y.clone());
    assert_eq!(r.estimates[0].estimator, MutualEstimator::NormalCopula, "{}", r.reason);
    assert_eq!(r.estimates.len(), 10);
    assert!(r.estimates.iter().all(|e| e.refused.is_none() && e.p_value == Some(0.05)), "{:?}", r.estimates);
    // Dependence without correlation.
    let r = report(columns(&x, 0, 1), columns(&x, 0, 1).sqr().unwrap());
    assert_eq!(r.estimates[0].estimator, MutualEstimator::Matched, "{}", r.reason);
    // No dependence: the p-values are not small.
    let r = report(normal(52, 400, 2), normal(53, 400, 2));
    assert!(r.estimates[0].p_value.unwrap() > 0.05, "{:?}", r.estimates[0]);
    // Ties.
    let rounded = |t: &Tensor| t.round().unwrap();
    let r = report(rounded(&x), rounded(&y));
    assert_eq!(r.estimates[0].estimator, MutualEstimator::Mixture, "{}", r.reason);
    assert!(r.estimates.iter().any(|e| e.refused.is_some()));
    // More columns than rows.
    let r = report(normal(54, 40, 30), normal(55, 40, 30));
    assert_eq!(r.estimates[0].estimator, MutualEstimator::NormalShrunk, "{}", r.reason);
    // Classes.
    let labels: Vec<u32> = x.to_vec2::<f64>().unwrap().iter().map(|r| u32::from(r[0] > 0.0)).collect();
    let r = mutual_report(&Variable::Continuous(x), &Variable::Discrete(labels.clone()), &cfg).unwrap();
    assert_eq!((r.estimates[0].estimator, r.dims), (MutualEstimator::Mixed, vec![2, 0]));
    let r = mutual_report(&Variable::Discrete(labels.clone()), &Variable::Discrete(labels.clone()), &cfg)
        .unwrap();
    assert!((r.estimates[0].estimate.as_ref().unwrap().value - 2f64.ln()).abs() < 0.01);
    let wrong = MutualConfig { estimators: vec![MutualEstimator::Ksg1], ..cfg.clone() };
    let error =
        mutual_report(&Variable::Discrete(labels.clone()), &Variable::Discrete(labels), &wrong).unwrap_err();
    assert!(error.to_string().contains("ksg1"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn information_does_not_depend_on_order_place_or_scale(
        seed in 0u64..1_000, dx in 1usize..4, dy in 1usize..7, shift in -50.0f64..50.0, scale in 0.01f64..100.0,
    ) {
        let n = 90;
        let (x, y) = (normal(seed, n, dx), normal(seed + 1, n, dy));
        let y = y.broadcast_add(&(columns(&x, 0, 1) * 2.0).unwrap()).unwrap();
        let moved = |t: &Tensor| ((t * scale).unwrap() + shift).unwrap();
        let order: Vec<u32> = (0..n as u32).map(|i| (i * 7 + 3) % n as u32).collect();
        let order = Tensor::from_vec(order, n, &Device::Cpu).unwrap();
        let permuted = |t: &Tensor| t.index_select(&order, 0).unwrap();
        let none = Resampling::none();
        let all = |x: &Tensor, y: &Tensor| {
            [
                mutual_information(x, y, &KsgConfig::default(), &none).unwrap().value,
                corrected_mutual_information(x, y, &CorrectedConfig { surrogates: 2, ..Default::default() }, &none).unwrap().value,
                normal_mutual_information(x, y, NormalModel::Sample, &none).unwrap().value,
                normal_mutual_information(x, y, NormalModel::Copula, &none).unwrap().value,
                normal_mutual_information(x, y, NormalModel::Shrunk, &none).unwrap().value,
                copula_splitting_information(x, y, &none).unwrap().value,
            ]
        };
        let before = all(&x, &y);
        for after in [all(&moved(&x), &y), all(&permuted(&x), &permuted(&y)), all(&x, &moved(&y))] {
            for (i, (a, b)) in before.iter().zip(after).enumerate() {
                // Canonical coordinates are known up to rounding, where a row at the edge of a neighborhood counts or
                // not: one count of 90 rows moves the corrected estimate by about a thousandth.
                let allowed = if i == 1 { 0.02 } else { 1e-6 };
                prop_assert!((a - b).abs() < allowed, "{before:?} {after:?}");
            }
        }
        // What both sides tell of each other is one number.
        let (a, b) = (all(&x, &y), all(&y, &x));
        prop_assert!((a[0] - b[0]).abs() < 1e-9 && (a[2] - b[2]).abs() < 1e-9);
    }

    #[test]
    fn entropies_follow_scale_and_place(seed in 0u64..1_000, d in 1usize..6, shift in -20.0f64..20.0, scale in 0.05f64..20.0) {
        let z = normal(seed, 120, d);
        let moved = ((&z * scale).unwrap() + shift).unwrap();
        let none = Resampling::none();
        let all = |z: &Tensor| {
            [
                kozachenko_leonenko(z, 3, Norm::Euclidean, &none).unwrap().value,
                kozachenko_leonenko(z, 3, Norm::Max, &none).unwrap().value,
                weighted_kozachenko_leonenko(z, 4, &none).unwrap().value,
                copula_splitting_entropy(z, &none).unwrap().value,
                gaussian_entropy(z, &none).unwrap().unbiased.unwrap().value,
            ]
        };
        for (a, b) in all(&z).iter().zip(all(&moved)) {
            prop_assert!((a + d as f64 * scale.ln() - b).abs() < 1e-6, "{a} {b}");
        }
    }
}

#[test]
fn intervals_of_shrunk_entropies_hold_what_more_rows_say() {
    // The spread over subsamples alone held it in none of these draws: shrinking leaves a bias that falls with the rows.
    let d = 30;
    let scales: Vec<f64> = (0..d).map(|j| 0.95f64.powi(j)).collect();
    let truth = 0.5 * f64::from(d) * (2.0 * std::f64::consts::PI * std::f64::consts::E).ln()
        + scales.iter().map(|s| s.ln()).sum::<f64>();
    let scales = Tensor::from_vec(scales, (1, d as usize), &Device::Cpu).unwrap();
    let cfg = Resampling { draws: 24, ..Resampling::default() };
    let mut held = [0, 0];
    for seed in 0..12 {
        let z = Key::new(seed).normal(0.0, 1.0, (200, d as usize), DType::F64, &Device::Cpu).unwrap();
        let found = gaussian_entropy(&z.broadcast_mul(&scales).unwrap(), &cfg).unwrap();
        for (held, estimate) in held.iter_mut().zip([found.ledoit_wolf, found.unbiased.unwrap()]) {
            let interval = estimate.interval.unwrap();
            assert!(interval.lower <= estimate.value && estimate.value <= interval.upper);
            *held += usize::from(interval.lower <= truth && truth <= interval.upper);
        }
    }
    assert!(held[0] >= 7 && held[1] >= 7, "{held:?}");
}
