//! Ridge, few-shot and calibrated probes, and the terms of the bound, on data with and without classes.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use infomax_core::Key;
use infomax_eval::bound::*;
use infomax_eval::probe::*;
use infomax_eval::*;

fn normal(seed: u64, n: usize, d: usize) -> Tensor {
    Key::new(seed).normal(0.0, 1.0, (n, d), DType::F32, &Device::Cpu).unwrap()
}

/// Rows around one center for each class.
fn clusters(seed: u64, n: usize, d: usize, classes: u32, spread: f64) -> (Tensor, Vec<u32>) {
    let labels: Vec<u32> = (0..n as u32).map(|i| i % classes).collect();
    let index = Tensor::from_vec(labels.clone(), n, &Device::Cpu).unwrap();
    let centers = (normal(99, classes as usize, d) * 4.0).unwrap().index_select(&index, 0).unwrap();
    ((centers + (normal(seed, n, d) * spread).unwrap()).unwrap(), labels)
}

#[test]
fn ridge_leaves_one_out_as_if_it_were_fitted_again() {
    let (x, labels) = clusters(1, 24, 3, 2, 6.0);
    let cfg = RidgeConfig { l2: vec![0.05] };
    let report = ridge_probe(&x, &labels, &x, &labels, &cfg).unwrap();
    // The same objective without one row, by gradient descent on standardized columns with an intercept.
    let rows = x.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
    let n = 24.0;
    let mean: Vec<f64> = (0..3).map(|j| rows.iter().map(|r| r[j]).sum::<f64>() / n).collect();
    let sd: Vec<f64> =
        (0..3).map(|j| (rows.iter().map(|r| (r[j] - mean[j]).powi(2)).sum::<f64>() / n).sqrt()).collect();
    let z: Vec<Vec<f64>> = rows.iter().map(|r| (0..3).map(|j| (r[j] - mean[j]) / sd[j]).collect()).collect();
    let mut total = 0.0;
    for out in 0..24 {
        for class in 0..2 {
            let target = |i: usize| if labels[i] == class { 1.0 } else { 0.0 };
            let (mut w, mut b) = ([0.0; 3], 0.0);
            for _ in 0..4000 {
                let (mut gw, mut gb) = (w.map(|w| 0.05 * w), 0.0);
                for i in (0..24).filter(|&i| i != out) {
                    let r = z[i].iter().zip(&w).map(|(x, w)| x * w).sum::<f64>() + b - target(i);
                    gb += r / n;
                    gw.iter_mut().zip(&z[i]).for_each(|(g, x)| *g += r * x / n);
                }
                b -= 0.3 * gb;
                w.iter_mut().zip(gw).for_each(|(w, g)| *w -= 0.3 * g);
            }
            total +=
                (z[out].iter().zip(&w).map(|(x, w)| x * w).sum::<f64>() + b - target(out)).powi(2) / 48.0;
        }
    }
    assert!((report.leave_one_out - total).abs() < 1e-5, "{} {total}", report.leave_one_out);
    assert!(report.protocol.contains("ridge"));
}

#[test]
fn probes_find_classes_and_find_none_where_there_are_none() {
    let (train, labels) = clusters(1, 300, 10, 5, 1.0);
    let (test, test_labels) = clusters(2, 200, 10, 5, 1.0);
    assert!(
        ridge_probe(&train, &labels, &test, &test_labels, &RidgeConfig::default()).unwrap().accuracy > 0.97
    );
    let few = few_shot(&train, &labels, &test, &test_labels, &FewShotConfig::default()).unwrap();
    assert!(few.accuracy.value > 0.9 && few.draws.len() == 20, "{few:?}");
    let one = FewShotConfig { shots: 1, ..FewShotConfig::default() };
    let fewer = few_shot(&train, &labels, &test, &test_labels, &one).unwrap();
    assert!(fewer.accuracy.value < few.accuracy.value && fewer.deviation > few.deviation);
    let sure = linear_probe(&train, &labels, &test, &test_labels, &LinearProbeConfig::default()).unwrap();
    assert!(sure.calibration.cross_entropy < 0.2 && sure.calibration.brier < 0.1);

    let (a, b) = (normal(3, 400, 10), normal(4, 400, 10));
    let labels: Vec<u32> = (0..400).map(|i| i % 4).collect();
    // A quarter, by five deviations.
    let chance = |accuracy: f64| (accuracy - 0.25).abs() < 0.11;
    assert!(chance(ridge_probe(&a, &labels, &b, &labels, &RidgeConfig::default()).unwrap().accuracy));
    let few = few_shot(&a, &labels, &b, &labels, &FewShotConfig::default()).unwrap();
    let i = few.accuracy.interval.unwrap();
    assert!(i.lower < 0.27 && 0.23 < i.upper && i.method.contains("20 draws"));
    let none = linear_probe(&a, &labels, &b, &labels, &LinearProbeConfig::default()).unwrap();
    // It does not beat ln 4 where there is nothing to know.
    assert!(none.calibration.cross_entropy > 4f64.ln() - 0.01, "{:?}", none.calibration);
}

#[test]
fn what_the_probes_cannot_do_is_said() {
    let (x, labels) = clusters(1, 30, 4, 3, 1.0);
    let error = few_shot(&x, &labels, &x, &labels, &FewShotConfig { shots: 11, ..FewShotConfig::default() });
    assert!(error.unwrap_err().to_string().contains("smallest class"));
    let zero = ridge_probe(&x, &labels, &x, &labels, &RidgeConfig { l2: vec![0.0] });
    assert!(zero.unwrap_err().to_string().contains("ridge.l2"));
}

#[test]
fn the_terms_of_the_bound_fall_with_what_is_known() {
    let cfg = Resampling::default();
    let (z, labels) = clusters(1, 200, 8, 3, 0.2);
    let (a, pairs) = clusters(2, 150, 8, 3, 0.2);
    let b = (&a + (normal(3, 150, 8) * 0.1).unwrap()).unwrap();
    let known = generalization_terms(&z, &labels, &a, &b, Some(&pairs), &cfg).unwrap();
    let noise = normal(5, 200, 8);
    let unknown =
        generalization_terms(&noise, &labels, &normal(6, 150, 8), &normal(7, 150, 8), None, &cfg).unwrap();
    assert!(known.labeled.term < 0.1 && known.unlabeled.as_ref().unwrap().term < 0.2, "{known:?}");
    assert!(unknown.labeled.term > 0.9 && unknown.unlabeled.is_none());
    // The mean length of a normal vector of variance 0.01 in 8 dimensions, and of the difference of two.
    assert!((known.invariance.value - 0.1 * 2.741).abs() < 0.02, "{:?}", known.invariance);
    assert!((unknown.invariance.value - 2f64.sqrt() * 2.741).abs() < 0.2);
    assert_eq!(known.labeled.rank, 8);
    assert!(unknown.doubts.iter().any(|d| d.message.contains("labels are unknown")));
    // More dimensions than rows fit anything, which is said.
    let all = generalization_terms(
        &normal(8, 20, 30),
        &labels[..20],
        &normal(9, 9, 30),
        &normal(10, 9, 30),
        None,
        &cfg,
    );
    let all = all.unwrap();
    assert!(all.labeled.term < 1e-9 && all.doubts[0].code == "saturated");
}

#[test]
fn the_protocols_by_gradient_descent_and_the_grid_of_neighbors() {
    let (train, labels) = clusters(1, 240, 6, 12, 1.0);
    let (test, truth) = clusters(2, 120, 6, 12, 1.0);
    for cfg in [SgdProbeConfig::solo_learn(), SgdProbeConfig::vicreg()] {
        let cfg = SgdProbeConfig { batch: 32, epochs: 30, lr: 0.05, ..cfg };
        let a = sgd_probe(&train, &labels, &test, &truth, &cfg).unwrap();
        assert!(
            a.accuracy > 0.9 && a.top5_accuracy.unwrap() >= a.accuracy && a.calibration.cross_entropy < 0.5,
            "{a:?}"
        );
        assert!(a.protocol.contains(&cfg.name) && a.confusion.iter().flatten().sum::<u32>() == 120);
        assert_eq!(a, sgd_probe(&train, &labels, &test, &truth, &cfg).unwrap());
    }
    let wild = SgdProbeConfig { lr: 1e30, epochs: 3, ..SgdProbeConfig::vicreg() };
    assert!(
        sgd_probe(&train, &labels, &test, &truth, &wild).unwrap_err().to_string().contains("sgd_probe.lr")
    );

    let grid = knn_grid(&train, &labels, &test, &truth, &KnnGridConfig::default()).unwrap();
    assert!(grid.accuracy > 0.9 && grid.trials.len() == 98 && grid.top5_accuracy.unwrap() >= grid.accuracy);
    // One setting alone is that classifier: the one of the same settings in `knn`.
    let one = KnnGridConfig {
        metrics: vec![geometry::Metric::Cosine],
        votes: vec![Vote::Exponential(0.1)],
        k: vec![20],
        ..KnnGridConfig::default()
    };
    let alone = knn_grid(&train, &labels, &test, &truth, &one).unwrap();
    let plain = knn(&train, &labels, &test, &truth, &KnnConfig { k: 20, temperature: 0.1 }).unwrap();
    assert_eq!((alone.accuracy, &alone.per_class), (plain.accuracy, &plain.per_class));
    // The nearest row alone, by a loop.
    let nearest = KnnGridConfig {
        metrics: vec![geometry::Metric::Euclidean],
        votes: vec![Vote::Inverse],
        k: vec![1],
        ..one
    };
    let found = knn_grid(&train, &labels, &test, &truth, &nearest).unwrap();
    let (a, b) = (train.to_vec2::<f32>().unwrap(), test.to_vec2::<f32>().unwrap());
    let distance = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| (x - y) * (x - y)).sum::<f32>();
    let right = b.iter().zip(&truth).filter(|(t, l)| {
        let first = (0..240).min_by(|&i, &j| distance(&a[i], t).total_cmp(&distance(&a[j], t))).unwrap();
        labels[first] == **l
    });
    assert_eq!(found.accuracy, right.count() as f64 / 120.0);
    // No classes: chance.
    let (noise, other) = (normal(31, 240, 6), normal(32, 120, 6));
    let none = knn_grid(&noise, &labels, &other, &truth, &KnnGridConfig::default()).unwrap();
    assert!(none.accuracy < 0.25, "{}", none.accuracy);
}
