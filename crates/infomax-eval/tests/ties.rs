//! Equal rows, equal values, and variables that determine each other: what is said instead of a wrong number.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use infomax_core::Key;
use infomax_eval::information::*;
use infomax_eval::*;

fn normal(seed: u64, n: usize, d: usize) -> Tensor {
    Key::new(seed).normal(0.0, 1.0, (n, d), DType::F64, &Device::Cpu).unwrap()
}

fn few() -> Resampling {
    Resampling { draws: 12, max_rows: 200, ..Resampling::default() }
}

fn report(x: &Variable, y: &Variable) -> MutualReport {
    let cfg = MutualConfig {
        permutations: 19,
        permutation_rows: 100,
        resampling: few(),
        ..MutualConfig::default()
    };
    mutual_report(x, y, &cfg).unwrap()
}

fn numbers(x: &Tensor) -> Variable {
    Variable::Continuous(x.clone())
}

fn column(values: Vec<f64>) -> Tensor {
    let n = values.len();
    Tensor::from_vec(values, (n, 1), &Device::Cpu).unwrap()
}

fn first(report: &MutualReport) -> (MutualEstimator, &Estimate) {
    (report.estimates[0].estimator, report.estimates[0].estimate.as_ref().unwrap())
}

fn of(report: &MutualReport, estimator: MutualEstimator) -> &NamedEstimate {
    report.estimates.iter().find(|e| e.estimator == estimator).unwrap()
}

fn codes(estimate: &Estimate) -> Vec<&'static str> {
    estimate.doubts.iter().map(|d| d.code).collect()
}

/// The label of a row as columns of 0 and 1.
fn one_hot(labels: &[u32], classes: u32) -> Tensor {
    let values: Vec<f64> =
        labels.iter().flat_map(|l| (0..classes).map(move |c| f64::from(u8::from(c == *l)))).collect();
    Tensor::from_vec(values, (labels.len(), classes as usize), &Device::Cpu).unwrap()
}

#[test]
fn discrete_columns_against_labels_hold_what_their_rows_do() {
    // Ten columns are beyond what distances are found by differences for.
    for classes in [3, 10] {
        let labels: Vec<u32> = (0..300).map(|i| i % classes).collect();
        let (x, y) = (numbers(&one_hot(&labels, classes)), Variable::Discrete(labels.clone()));
        for r in [report(&x, &y), report(&y, &x)] {
            let (estimator, e) = first(&r);
            assert_eq!(estimator, MutualEstimator::Discrete, "{}", r.reason);
            assert!((e.value - f64::from(classes).ln()).abs() < 0.02, "{}", e.value);
            assert!(of(&r, MutualEstimator::Mixed).refused.as_ref().unwrap().contains("duplicates"));
            let mixture = of(&r, MutualEstimator::Mixture).estimate.as_ref().unwrap();
            assert!((mixture.value - f64::from(classes).ln()).abs() < 0.1, "{}", mixture.value);
        }
        // Columns against columns: the same classes.
        let r = report(&x, &x);
        assert_eq!(first(&r).0, MutualEstimator::Discrete, "{}", r.reason);
        assert!(!codes(first(&r).1).contains(&"determined"));
        // Strangers.
        let other: Vec<u32> = (0..300).map(|i| (i / classes) % 3).collect();
        let r = report(&x, &Variable::Discrete(other));
        assert!(first(&r).1.value.abs() < 0.05, "{:?}", first(&r));
    }
}

#[test]
fn rounded_columns_against_labels_go_to_the_mixture() {
    let z = normal(1, 400, 2);
    let rounded = (((z.clone() * 2.5).unwrap()).round().unwrap() / 2.5).unwrap();
    let labels: Vec<u32> = z.to_vec2::<f64>().unwrap().iter().map(|r| u32::from(r[0] > 0.0)).collect();
    let r = report(&numbers(&rounded), &Variable::Discrete(labels.clone()));
    let (estimator, e) = first(&r);
    assert_eq!(estimator, MutualEstimator::Mixture, "{}", r.reason);
    assert!(e.value > 0.45 && e.value < 0.8 && codes(e).contains(&"ties"), "{e:?}");
    let other = normal(2, 400, 2);
    let rounded = (((other * 2.5).unwrap()).round().unwrap() / 2.5).unwrap();
    let none = label_mixture_information(&rounded, &labels, 3, &few()).unwrap();
    assert!(none.value.abs() < 0.15, "{none:?}");
    // A finer grid: rows at one distance are counted all or none, so that H(Y) = ln 2 holds.
    let fine = (((z.clone() * 6.0).unwrap()).round().unwrap() / 6.0).unwrap();
    let e = label_mixture_information(&fine, &labels, 3, &few()).unwrap();
    assert!(e.value > 0.5 && e.value < 0.75, "{e:?}");
    let finer = (((z.clone() * 15.0).unwrap()).round().unwrap() / 15.0).unwrap();
    let e = mixed_mutual_information(&finer, &labels, 3, &few()).unwrap();
    assert!(e.value > 0.5 && e.value < 0.75, "{e:?}");
    // Without ties it is the estimate of Ross, but for ln N in the place of psi(N).
    let (plain, mixed) = (
        label_mixture_information(&z, &labels, 3, &Resampling::none()).unwrap().value,
        mixed_mutual_information(&z, &labels, 3, &Resampling::none()).unwrap().value,
    );
    assert!((plain - mixed - 1.0 / 800.0).abs() < 1e-5, "{plain} {mixed}");
}

#[test]
fn zeros_in_a_continuous_column_go_to_the_mixture() {
    // The zeros are drawn apart: I = 0.6 (-1/2 ln(1 - 0.81)).
    let n = 800;
    let (z, e, u) = (normal(3, n, 1), normal(4, n, 1), normal(5, n, 1));
    let y = ((&z * 0.9).unwrap() + (e * (1.0f64 - 0.81).sqrt()).unwrap()).unwrap();
    let read = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    // Below the quantile 0.4 of the normal distribution.
    let x = column(read(&z).iter().zip(read(&u)).map(|(z, u)| if u < -0.2533 { 0.0 } else { *z }).collect());
    let truth = -0.3 * (1.0f64 - 0.81).ln();
    let r = report(&numbers(&x), &numbers(&y));
    let (estimator, e) = first(&r);
    assert_eq!(estimator, MutualEstimator::Mixture, "{}", r.reason);
    assert!((e.value - truth).abs() < 0.09, "{} of {truth}", e.value);
    use MutualEstimator::*;
    for estimator in [Ksg1, Ksg2, Corrected, NormalCopula, CopulaSplitting, Sliced] {
        let e = of(&r, estimator).estimate.as_ref();
        assert!(e.is_none_or(|e| codes(e).contains(&"ties")), "{estimator:?}: {e:?}");
    }
    assert!(of(&r, Ksg2).estimate.is_some() && of(&r, NormalCopula).estimate.is_some());
    // Columns without ties have no such doubt.
    let r = report(&numbers(&z), &numbers(&y));
    assert_ne!(first(&r).0, Mixture);
    assert!(r.estimates.iter().all(|e| !codes(e.estimate.as_ref().unwrap()).contains(&"ties")));
}

#[test]
fn what_determines_the_other_has_no_interval() {
    let x = normal(6, 200, 2);
    let single = x.to_dtype(DType::F32).unwrap();
    let scaled = ((single.clone() * 2.0).unwrap() + 1.0).unwrap();
    for (x, y) in [
        (x.clone(), x.clone()),
        (single, scaled),
        (x.narrow(1, 0, 1).unwrap().contiguous().unwrap(), x.narrow(1, 0, 1).unwrap().exp().unwrap()),
    ] {
        let r = report(&numbers(&x), &numbers(&y));
        for e in r.estimates.iter().filter_map(|e| e.estimate.as_ref()) {
            assert!(e.interval.is_none() && codes(e).contains(&"determined"), "{e:?}");
        }
        assert!(r.estimates.iter().any(|e| e.estimate.is_some()), "{:?}", r.estimates);
    }
    // Nearly is not wholly.
    let y = (&x + (normal(7, 200, 2) * 0.1).unwrap()).unwrap();
    let r = report(&numbers(&x), &numbers(&y));
    assert!(first(&r).1.interval.is_some() && !codes(first(&r).1).contains(&"determined"));
}

#[test]
fn few_rows_have_an_estimate_and_no_false_reason() {
    for n in 4..16 {
        let x = normal(20 + n as u64, n, 1);
        let y = ((&x * 0.5).unwrap() + normal(50 + n as u64, n, 1)).unwrap();
        let r = report(&numbers(&x), &numbers(&y));
        let copula = of(&r, MutualEstimator::NormalCopula);
        assert!(copula.refused.is_none(), "{n}: {:?}", copula.refused);
        let e = copula.estimate.as_ref().unwrap();
        assert!(e.interval.is_some() || codes(e).contains(&"no-interval"), "{n}: {e:?}");
        let known = first(&r).1.interval.is_some();
        assert!(known || !r.reason.contains("is not that of"), "{n}: {}", r.reason);
    }
    // Without `normal-copula` nothing is said of the kind of the dependence.
    let x = normal(8, 200, 1);
    let cfg = MutualConfig {
        estimators: vec![MutualEstimator::Ksg1, MutualEstimator::Corrected],
        permutations: 0,
        resampling: few(),
        ..MutualConfig::default()
    };
    let r = mutual_report(&numbers(&x), &numbers(&x.sqr().unwrap()), &cfg).unwrap();
    assert!(r.reason.contains("was not had"), "{}", r.reason);
}

#[test]
fn rows_that_occur_twice_are_a_doubt_of_entropies() {
    let z = normal(9, 300, 2);
    let twice = Tensor::cat(&[&z, &z], 0).unwrap();
    assert_eq!((repeated_rows(&twice).unwrap(), repeated_rows(&z).unwrap()), (600, 0));
    let none = Resampling::none();
    for e in [
        kozachenko_leonenko(&twice, 3, Norm::Euclidean, &none).unwrap(),
        weighted_kozachenko_leonenko(&twice, 3, &none).unwrap(),
    ] {
        assert_eq!(codes(&e), ["ties"]);
        assert!(e.doubts[0].message.contains("600 of 600 rows (100 %)"), "{:?}", e.doubts);
    }
    assert!(kozachenko_leonenko(&z, 3, Norm::Euclidean, &none).unwrap().doubts.is_empty());
}
