//! The tasks have the information that they say, and measuring finds what covers and what does not.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use infomax_core::Key;
use infomax_eval::information::*;
use infomax_eval::selftest::*;
use infomax_eval::{Resampling, information};

#[test]
fn closed_forms_are_those_of_the_benchmark() {
    // Values of `bmi` as its authors print them.
    let expected = [
        ("1v1-normal-0.75", 0.413_339_286_592_234),
        ("1v1-additive-0.1", 1.709_437_912_434_1),
        ("1v1-additive-0.75", 0.333_333_333_333_333),
        ("multinormal-dense-2-2-0.5", 0.293_893_332_451_059),
        ("multinormal-dense-25-25-0.5", 1.292_183_721_659_323),
        ("multinormal-sparse-5-5-2-2.0", 1.021_651_247_531_982),
        ("student-identity-1-1-1", 0.224_171_427_529_236),
        ("asinh-student-identity-5-5-3", 0.298_543_622_652_757),
        ("student-identity-2-2-2", 0.193_147_180_559_945),
        ("spiral-multinormal-sparse-3-3-2-2.0", 1.021_651_247_531_982),
        ("independent-5-5", 0.0),
        ("pairs-4-4-10-nats", 10.0),
        ("student-4-2-2-5-nats", 5.0),
    ];
    let all = tasks();
    for (name, truth) in expected {
        let task = all.iter().find(|t| t.name == name).unwrap();
        assert!((task.truth - truth).abs() < 1e-12, "{name}: {}", task.truth);
    }
    let mut names: Vec<&str> = all.iter().map(|t| t.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!((all.len(), names.len()), (80, 80));
}

#[test]
fn every_task_is_drawn_and_small_ones_are_found() {
    for task in tasks() {
        let (x, y) = task.draw(Key::new(1), 700).unwrap();
        assert_eq!((x.dims()[0], y.dims()[0]), (700, 700), "{}", task.name);
        let (again, _) = task.draw(Key::new(1), 700).unwrap();
        assert_eq!(x.to_vec2::<f64>().unwrap(), again.to_vec2::<f64>().unwrap());
        // In one or two columns KSG is nearly right, which also holds the truths against the draws; but for the waves, which are
        // narrower than the distance to a neighbor.
        if x.dims()[1] + y.dims()[1] <= 3 && task.truth < 4.0 && !task.name.contains("waves") {
            let none = Resampling::none();
            let value = information::mutual_information(&x, &y, &KsgConfig::default(), &none).unwrap().value;
            assert!(
                (value - task.truth).abs() < 0.13 + 0.1 * task.truth,
                "{}: {value} of {}",
                task.name,
                task.truth
            );
        }
    }
}

#[test]
fn no_task_is_taken_for_one_without_noise() {
    let cfg = MutualConfig {
        estimators: vec![MutualEstimator::NormalCopula],
        permutations: 0,
        resampling: Resampling::none(),
        ..MutualConfig::default()
    };
    for task in tasks() {
        for seed in [1, 2] {
            let (x, y) = task.draw(Key::new(seed), 500).unwrap();
            let (x, y) = (Variable::Continuous(x), Variable::Continuous(y));
            let report = mutual_report(&x, &y, &cfg).unwrap();
            let doubts = report.estimates[0].estimate.iter().flat_map(|e| &e.doubts);
            let found: Vec<_> = doubts.filter(|d| d.code == "determined").collect();
            assert!(found.is_empty(), "{}: {found:?}", task.name);
        }
    }
}

#[test]
fn error_and_coverage_are_counted() {
    let some: Vec<Task> = tasks()
        .into_iter()
        .filter(|t| ["1v1-normal-0.75", "independent-1-1", "pairs-4-4-5-nats"].contains(&t.name.as_str()))
        .collect();
    let cfg = MeasureConfig {
        n: vec![300],
        seeds: 12,
        estimators: vec![MutualEstimator::Corrected, MutualEstimator::NormalCopula, MutualEstimator::Ksg2],
        resampling: Resampling { draws: 16, max_rows: 200, ..Resampling::default() },
        ..MeasureConfig::default()
    };
    let mut told = 0;
    let cells = measure(&some, &cfg, |_, _| told += 1).unwrap();
    assert_eq!((cells.len(), told), (12, 3));
    let cell = |task: &str, estimator: &str| {
        cells.iter().find(|c| c.task.starts_with(task) && c.estimator == estimator).unwrap()
    };
    let copula = cell("1v1", "normal-copula");
    assert!(copula.error < 0.06 && copula.coverage.unwrap() >= 0.6 && copula.draws == 12, "{copula:?}");
    // A plain KSG cannot show 5 nats with 300 rows, and its interval does not know.
    let strong = cell("pairs", "ksg2");
    assert!(strong.error > 0.5, "{strong:?}");
    assert!(cell("pairs", "corrected").error < 0.5 * strong.error);
    assert!(cell("independent", "first").error < 0.05);
}
