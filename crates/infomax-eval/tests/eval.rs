//! The evaluations against brute force, golden values, and cases with a known answer.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use infomax_core::Key;
use infomax_eval::*;
use serde_json::Value;

fn normal(seed: u64, n: usize, d: usize) -> Tensor {
    Key::new(seed).normal(0.0, 1.0, (n, d), DType::F32, &Device::Cpu).unwrap()
}

/// Rows around one well-separated center for each class.
fn clusters(seed: u64, n: usize, d: usize, classes: u32, spread: f64) -> (Tensor, Vec<u32>) {
    let labels: Vec<u32> = (0..n as u32).map(|i| i % classes).collect();
    let centers = (normal(99, classes as usize, d) * 4.0).unwrap();
    let index = Tensor::from_vec(labels.clone(), n, &Device::Cpu).unwrap();
    let noise = (normal(seed, n, d) * spread).unwrap();
    ((centers.index_select(&index, 0).unwrap() + noise).unwrap(), labels)
}

#[test]
fn knn_equals_brute_force() {
    let (train, labels) = clusters(1, 150, 6, 5, 6.0);
    let (test, test_labels) = clusters(2, 60, 6, 5, 6.0);
    let cosine = |a: &[f32], b: &[f32]| {
        let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(x * y)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let (a, b) = (train.to_vec2::<f32>().unwrap(), test.to_vec2::<f32>().unwrap());
    for k in [1, 7, 150, 1000] {
        let mut right = 0;
        for (row, label) in b.iter().zip(&test_labels) {
            let mut near: Vec<(f64, u32)> =
                a.iter().zip(&labels).map(|(x, l)| (cosine(x, row), *l)).collect();
            near.sort_by(|x, y| y.0.total_cmp(&x.0));
            let mut votes = [0f64; 5];
            near.iter().take(k).for_each(|(s, l)| votes[*l as usize] += (s / 0.1).exp());
            let best = (0..5).fold(0, |m, c| if votes[c] > votes[m] { c } else { m });
            right += usize::from(best as u32 == *label);
        }
        let report = knn(&train, &labels, &test, &test_labels, &KnnConfig { k, temperature: 0.1 }).unwrap();
        assert_eq!(report.accuracy, right as f64 / 60.0, "k = {k}");
        assert_eq!(report.k, k.min(150));
    }
}

#[test]
fn separable_classes_are_found_and_random_labels_are_not() {
    let (train, labels) = clusters(1, 600, 20, 12, 0.3);
    let (test, test_labels) = clusters(2, 240, 20, 12, 0.3);
    let probe = linear_probe(&train, &labels, &test, &test_labels, &LinearProbeConfig::default()).unwrap();
    assert_eq!((probe.accuracy, probe.train_accuracy, probe.top5_accuracy), (1.0, 1.0, Some(1.0)));
    assert!((0..12).all(|c| probe.confusion[c][c] == 20));
    assert_eq!(knn(&train, &labels, &test, &test_labels, &KnnConfig::default()).unwrap().accuracy, 1.0);

    let (x, y) = (normal(3, 2000, 8), normal(4, 2000, 8));
    let labels: Vec<u32> = (0..2000).map(|i| i % 4).collect();
    let probe = linear_probe(&x, &labels, &y, &labels, &LinearProbeConfig::default()).unwrap();
    let near = knn(&x, &labels, &y, &labels, &KnnConfig::default()).unwrap();
    // Five standard deviations of a binomial share with p = 1/4, n = 2000.
    assert!((probe.accuracy - 0.25).abs() < 0.05 && (near.accuracy - 0.25).abs() < 0.05);
    let again = linear_probe(&x, &labels, &y, &labels, &LinearProbeConfig::default()).unwrap();
    assert_eq!(probe, again);
}

#[test]
fn bad_input_is_refused_with_what_to_do() {
    let x = normal(1, 4, 3);
    let probe = |x: &Tensor, l: &[u32]| linear_probe(x, l, x, l, &LinearProbeConfig::default());
    assert!(matches!(probe(&x, &[0, 0, 0, 0]), Err(Error::OneClass { .. })));
    assert!(matches!(probe(&x, &[0, 1, 0]), Err(Error::Labels { .. })));
    let nan = (&x * f64::NAN).unwrap();
    assert!(matches!(probe(&nan, &[0, 1, 0, 1]), Err(Error::NonFinite { .. })));
    assert!(matches!(spectrum(&x.narrow(0, 0, 1).unwrap()), Err(Error::TooFew { rows: 1, .. })));
    let bank =
        FeatureBank::collect([Ok::<_, Error>((x, vec![Some(1), None, Some(0), None]))], |x| Ok(x.clone()));
    let message = bank.unwrap().known_labels().unwrap_err().to_string();
    assert!(message.contains("2 of 4") && message.contains("sub-folder"), "{message}");
}

#[test]
fn spectra_equal_the_golden_values() {
    let golden: Value = serde_json::from_str(include_str!("golden/diag/diag.json")).unwrap();
    for name in ["iso_n400_d32", "lowrank5_n200_d64", "rank1_n50_d8"] {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/diag");
        let z = infomax_testing::read_npy(format!("{dir}/{name}.npy")).unwrap();
        let s = spectrum(&z).unwrap();
        for (key, got) in [
            ("rankme_eps1e-7(no centering)", s.rank_me),
            ("effective_rank_roy_vetterli(singular values)", s.effective_rank),
            ("effective_rank_cov_eigenvalues", s.covariance_entropy_rank),
            ("participation_ratio", s.participation_ratio),
            ("stable_rank_matrix(||X||_F^2/||X||_2^2, no centering)", s.stable_rank),
        ] {
            let expected = golden[name][key].as_f64().unwrap();
            // The low-rank file has 59 singular values of 1e-9 to 1.2e-8 of the largest, below what a Gram matrix
            // resolves; a direct decomposition, as the reference used, counts them.
            let rank_of_tail = name == "lowrank5_n200_d64" && key.contains("rank");
            let tolerance = if rank_of_tail { 3e-6 } else { 1e-9 };
            assert!(
                (got - expected).abs() < tolerance * expected,
                "{name} {key}: {got} instead of {expected}"
            );
        }
    }
    let s = spectrum(
        &infomax_testing::read_npy(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/golden/diag/iso_n400_d32.npy"
        ))
        .unwrap(),
    )
    .unwrap();
    let expected = golden["iso_n400_d32"]["alpha_ols_all_nonzero"].as_f64().unwrap();
    assert!((s.alpha_all.unwrap() - expected).abs() < 1e-8);
}

#[test]
fn uniformity_has_its_known_values() {
    let axes = Tensor::eye(2, DType::F32, &Device::Cpu).unwrap();
    // Two orthogonal unit vectors are at the squared distance 2.
    assert!((uniformity(&axes).unwrap() + 4.0).abs() < 1e-12);
    let collapsed = Tensor::ones((500, 16), DType::F32, &Device::Cpu).unwrap();
    assert!(uniformity(&collapsed).unwrap().abs() < 1e-9);
    assert!(uniformity(&normal(1, 500, 16)).unwrap() < -3.0);
}

#[test]
fn the_scale_of_features_changes_no_probe() {
    let (train, labels) = clusters(1, 240, 8, 4, 6.0);
    let (test, test_labels) = clusters(2, 120, 8, 4, 6.0);
    let near = |s: f64| {
        let (a, b) = ((&train * s).unwrap(), (&test * s).unwrap());
        let cfg = KnnConfig { k: 15, temperature: 0.1 };
        knn(&a, &labels, &b, &test_labels, &cfg).unwrap().accuracy
    };
    let probe = |s: f64| {
        let (a, b) = ((&train * s).unwrap(), (&test * s).unwrap());
        linear_probe(&a, &labels, &b, &test_labels, &LinearProbeConfig::default()).unwrap().accuracy
    };
    let (right_near, right_probe) = (near(1.0), probe(1.0));
    assert!((0.4..0.99).contains(&right_near) && (0.4..0.99).contains(&right_probe));
    for scale in [1e-30, 1e-13, 1e-3, 1e20, 1e35] {
        // Rounding of the scaled features may move a test row that lies at a boundary.
        assert!((near(scale) - right_near).abs() < 0.02, "kNN at {scale}");
        assert!((probe(scale) - right_probe).abs() < 0.02, "probe at {scale}");
        let spread = (uniformity(&(&train * scale).unwrap()).unwrap() - uniformity(&train).unwrap()).abs();
        assert!(spread < 1e-5, "uniformity at {scale}: {spread}");
    }
}

#[test]
fn constant_features_hold_chance_and_no_more() {
    let x = Tensor::ones((400, 8), DType::F32, &Device::Cpu).unwrap();
    let labels: Vec<u32> = (0..400).map(|i| i % 20).collect();
    let report = linear_probe(&x, &labels, &x, &labels, &LinearProbeConfig::default()).unwrap();
    assert_eq!(report.top5_accuracy, Some(0.25));
    assert_eq!(report.accuracy, 0.05);
}
