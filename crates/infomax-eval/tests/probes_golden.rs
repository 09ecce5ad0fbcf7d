//! Probes equal scikit-learn: `golden/probes/make.py`.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use candle_core::Tensor;
use infomax_eval::geometry::Metric;
use infomax_eval::probe::*;
use infomax_eval::*;
use serde_json::Value;

struct Set {
    train: Tensor,
    y: Vec<u32>,
    test: Tensor,
    u: Vec<u32>,
    values: Value,
}

fn sets() -> Vec<Set> {
    let all: Value = serde_json::from_str(include_str!("golden/probes/probes.json")).unwrap();
    let read = |name: &str| {
        let path = format!("{}/tests/golden/probes/{name}.npy", env!("CARGO_MANIFEST_DIR"));
        Tensor::read_npy(path).unwrap()
    };
    let labels = |name: &str| {
        let values = read(name).to_dtype(candle_core::DType::U32).unwrap();
        values.to_vec1::<u32>().unwrap()
    };
    ["five", "two"]
        .into_iter()
        .map(|name| Set {
            train: read(&format!("{name}.train.x")),
            y: labels(&format!("{name}.train.y")),
            test: read(&format!("{name}.test.x")),
            u: labels(&format!("{name}.test.y")),
            values: all[name].clone(),
        })
        .collect()
}

#[track_caller]
fn near(found: f64, want: &Value, tolerance: f64) {
    let want = want.as_f64().unwrap();
    assert!((found - want).abs() <= tolerance, "{found} instead of {want}");
}

#[test]
fn logistic_regression_equals_scikit_learn_along_the_penalties() {
    for set in sets() {
        for want in set.values["logistic"].as_array().unwrap() {
            let cfg = LinearProbeConfig {
                l2: vec![want["l2"].as_f64().unwrap()],
                tolerance: 1e-7,
                max_steps: 1_000,
                ..LinearProbeConfig::default()
            };
            let report = linear_probe(&set.train, &set.y, &set.test, &set.u, &cfg).unwrap();
            near(report.calibration.cross_entropy, &want["cross_entropy"], 2e-5);
            near(report.accuracy, &want["accuracy"], 1e-12);
            near(report.train_accuracy, &want["train_accuracy"], 1e-12);
            assert_eq!(serde_json::to_value(&report.confusion).unwrap(), want["confusion"]);
            assert_eq!((report.tried.len(), report.doubts.len()), (1, 0), "one penalty is no grid");
        }
    }
}

#[test]
fn ridge_equals_scikit_learn_and_its_leave_one_out() {
    for set in sets() {
        for want in set.values["ridge"].as_array().unwrap() {
            let cfg = RidgeConfig { l2: vec![want["l2"].as_f64().unwrap()] };
            let report = ridge_probe(&set.train, &set.y, &set.test, &set.u, &cfg).unwrap();
            near(report.accuracy, &want["accuracy"], 1e-12);
            // Features are standardized to f32.
            near(report.leave_one_out, &want["leave_one_out"], 1e-6);
        }
    }
}

#[test]
fn neighbors_equal_scikit_learn() {
    for set in sets() {
        for want in set.values["knn"].as_array().unwrap() {
            let k = want["k"].as_u64().unwrap() as usize;
            let cosine = want["metric"] == "cosine";
            let vote = match &want["vote"] {
                Value::String(name) if name == "uniform" => Vote::Uniform,
                Value::String(_) => Vote::Inverse,
                temperature => Vote::Exponential(temperature.as_f64().unwrap()),
            };
            let cfg = KnnGridConfig {
                metrics: vec![if cosine { Metric::Cosine } else { Metric::Euclidean }],
                votes: vec![vote],
                k: vec![k],
                ..KnnGridConfig::default()
            };
            let report = knn_grid(&set.train, &set.y, &set.test, &set.u, &cfg).unwrap();
            near(report.accuracy, &want["accuracy"], 1e-12);
            if let (true, Vote::Exponential(temperature)) = (cosine, vote) {
                let plain =
                    knn(&set.train, &set.y, &set.test, &set.u, &KnnConfig { k, temperature }).unwrap();
                near(plain.accuracy, &want["accuracy"], 1e-12);
            }
        }
    }
}

#[test]
fn a_grid_is_widened_where_its_end_is_best_and_what_remains_is_said() {
    let set = sets().swap_remove(0);
    // The best of a path lies within it.
    let wide = LinearProbeConfig::default();
    let report = linear_probe(&set.train, &set.y, &set.test, &set.u, &wide).unwrap();
    assert!(report.doubts.is_empty(), "{:?}", report.doubts);
    // A grid far below it grows until the best is no end.
    let low = LinearProbeConfig { l2: vec![1e-7, 1e-6], ..LinearProbeConfig::default() };
    let report = linear_probe(&set.train, &set.y, &set.test, &set.u, &low).unwrap();
    assert!(report.tried.len() > 2, "{:?}", report.tried);
    let ridge = RidgeConfig { l2: vec![1e-9, 1e-8] };
    let ridge = ridge_probe(&set.train, &set.y, &set.test, &set.u, &ridge).unwrap();
    let best = ridge_probe(&set.train, &set.y, &set.test, &set.u, &RidgeConfig::default()).unwrap();
    assert!((ridge.l2 - best.l2).abs() < 1e-9 * best.l2 && ridge.doubts.is_empty(), "{ridge:?} {best:?}");
    assert!(ridge.tried.windows(2).all(|w| w[0] < w[1]));
    // Labels of chance want the largest penalty that there is.
    let chance: Vec<u32> = (0..set.y.len() as u32).map(|i| (i * 7 + i / 3) % 5).collect();
    let none = ridge_probe(&set.train, &chance, &set.test, &set.u, &RidgeConfig::default()).unwrap();
    assert!(none.l2 > 1.0, "{none:?}");
    assert_eq!(none.doubts.iter().any(|d| d.code == "edge-of-grid"), none.l2 > 9e3, "{none:?}");
}
