//! Entropy and information against reference implementations, closed forms, and independent variables.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use infomax_core::Key;
use infomax_eval::information::*;
use infomax_eval::*;
use serde_json::Value;

fn normal(seed: u64, n: usize, d: usize) -> Tensor {
    Key::new(seed).normal(0.0, 1.0, (n, d), DType::F64, &Device::Cpu).unwrap()
}

/// A golden input as `(N, D)`.
fn golden(name: &str) -> Tensor {
    let path = format!("{}/tests/golden/{name}.npy", env!("CARGO_MANIFEST_DIR"));
    let x = infomax_testing::read_npy(path).unwrap().to_dtype(DType::F64).unwrap();
    if x.rank() == 1 { x.unsqueeze(1).unwrap() } else { x }
}

#[track_caller]
fn close(got: f64, expected: &Value, tolerance: f64) {
    let expected = expected.as_f64().unwrap();
    assert!((got - expected).abs() <= tolerance * expected.abs(), "{got} instead of {expected}");
}

fn few() -> Resampling {
    Resampling { draws: 20, max_rows: 400, ..Resampling::default() }
}

#[test]
fn entropies_equal_npeet_and_infomeasure() {
    let all: Value = serde_json::from_str(include_str!("golden/entropy/entropy.json")).unwrap();
    for name in ["normal_n1000_d1", "gauss_n500_d3", "uniform_n800_d2"] {
        let (z, expected) = (golden(&format!("entropy/{name}")), &all[name]);
        for k in [1, 3, 5] {
            for (norm, key) in [(Norm::Max, "chebyshev"), (Norm::Euclidean, "euclidean")] {
                let e = kozachenko_leonenko(&z, k, norm, &Resampling::none()).unwrap();
                close(e.value, &expected[format!("kl_{key}_k{k}")], 1e-9);
            }
        }
        let e = kozachenko_leonenko(&z, 3, Norm::Euclidean, &few()).unwrap();
        let i = e.interval.unwrap();
        let truth = expected["true_entropy_nats"].as_f64().unwrap();
        assert!(i.lower - 0.1 < truth && truth < i.upper + 0.1 && e.doubts.is_empty(), "{name} {i:?}");
        let g = gaussian_entropy(&z, &few()).unwrap();
        close(g.sample.unwrap().value, &expected["gaussian_bound_cov_ddof1"], 1e-9);
        close(g.diagonal.value, &expected["hadamard_diag_bound_ddof1"], 1e-9);
    }
}

#[test]
fn entropies_of_points_do_not_exist_and_many_dimensions_are_doubted() {
    let pairs = Tensor::cat(&[&normal(1, 40, 2); 4], 0).unwrap();
    let error = kozachenko_leonenko(&pairs, 3, Norm::Euclidean, &few()).unwrap_err();
    assert!(matches!(error, Error::Ties { rows: 160, n: 160, .. }), "{error}");
    // Beyond the duplicates there is a distance again.
    assert!(kozachenko_leonenko(&pairs, 4, Norm::Euclidean, &Resampling::none()).is_ok());
    let e = kozachenko_leonenko(&normal(2, 300, 30), 3, Norm::Euclidean, &few()).unwrap();
    assert_eq!(e.doubts[0].code, "high-dimension");
    let flat =
        Tensor::cat(&[&normal(1, 40, 2), &Tensor::ones((40, 1), DType::F64, &Device::Cpu).unwrap()], 1);
    assert!(
        matches!(gaussian_entropy(&flat.unwrap(), &few()), Err(Error::Constant { columns, .. }) if columns == [2])
    );
}

#[test]
fn information_equals_npeet_and_jidt() {
    let all: Value = serde_json::from_str(include_str!("golden/mi/mi.json")).unwrap();
    for (name, expected) in all.as_object().unwrap() {
        let (x, y) = (golden(&format!("mi/{name}.x")), golden(&format!("mi/{name}.y")));
        for k in [3, 5] {
            for (kind, key) in [(KsgKind::One, "ksg1"), (KsgKind::Two, "ksg2")] {
                let cfg = KsgConfig { k, kind, marginals: Marginals::Raw };
                let e = mutual_information(&x, &y, &cfg, &Resampling::none()).unwrap();
                close(e.value, &expected[format!("{key}_chebyshev_k{k}")], 1e-9);
            }
        }
    }
}

#[test]
fn information_of_normal_pairs_lies_in_its_interval_and_of_strangers_is_none() {
    let truth = 0.413_339_286_592_234; // -1/2 ln(1 - 0.75^2)
    let pair = |seed: u64| {
        let (x, e) = (normal(seed, 800, 1), normal(1000 + seed, 800, 1));
        let y = ((&x * 0.75).unwrap() + (e * (1.0f64 - 0.5625).sqrt()).unwrap()).unwrap();
        (x, y)
    };
    let mut inside = 0;
    let mut strangers = 0.0;
    for seed in 0..20 {
        let (x, y) = pair(seed);
        let e = mutual_information(&x, &y, &KsgConfig { k: 5, ..KsgConfig::default() }, &few()).unwrap();
        let i = e.interval.unwrap();
        inside += usize::from(i.lower <= truth && truth <= i.upper);
        let none = mutual_information(&x, &pair(seed + 50).1, &KsgConfig::default(), &Resampling::none());
        strangers += none.unwrap().value / 20.0;
    }
    // 18 of 20 at the level 0.9.
    assert!(inside >= 14, "{inside}");
    assert!(strangers.abs() < 0.02, "{strangers}");
    // Normal scores do not see monotone maps of columns.
    let (x, y) = pair(1);
    let cfg = KsgConfig::default();
    let plain = mutual_information(&x, &y, &cfg, &Resampling::none()).unwrap().value;
    let mapped =
        mutual_information(&x.exp().unwrap(), &(y * 1e9).unwrap(), &cfg, &Resampling::none()).unwrap();
    assert_eq!(mapped.value, plain);
}

#[test]
fn a_variable_and_itself_saturate() {
    let x = normal(1, 300, 1);
    let e = mutual_information(&x, &x, &KsgConfig::default(), &Resampling::none()).unwrap();
    assert!(e.doubts.iter().any(|d| d.code == "saturated"), "{e:?}");
}

#[test]
fn permutations_tell_dependence_from_none() {
    let (x, y) = (normal(1, 150, 2), normal(2, 150, 2));
    let cfg = KsgConfig::default();
    let none = mutual_information_permutation_test(&x, &y, &cfg, 39, 0).unwrap();
    assert!(none.p_value > 0.05 && none.null_mean.abs() < 0.05, "{none:?}");
    let near = ((&x * 2.0).unwrap() + &y).unwrap();
    let some = mutual_information_permutation_test(&x, &near, &cfg, 39, 0).unwrap();
    assert_eq!(some.p_value, 1.0 / 40.0);
    let labels: Vec<u32> = (0..150).map(|i| i % 3).collect();
    let none = label_permutation_test(&x, &labels, 3, 39, 0).unwrap();
    assert!(none.p_value > 0.05, "{none:?}");
    assert_eq!(label_permutation_test(&x, &labels, 3, 39, 0).unwrap(), none);
    // p-values of independent variables are spread evenly.
    let low = (0..40).filter(|&s| {
        let (x, y) = (normal(300 + s, 60, 1), normal(500 + s, 60, 1));
        mutual_information_permutation_test(&x, &y, &cfg, 19, s).unwrap().p_value <= 0.25
    });
    assert!((3..=18).contains(&low.count()));
}

#[test]
fn mixed_information_has_its_closed_form() {
    // Gao et al. (2017): X of five classes, Y uniform on [X, X + 2]: ln 5 - 4/5 ln 2.
    let truth = 5f64.ln() - 0.8 * 2f64.ln();
    let labels: Vec<u32> = (0..2000).map(|i| i % 5).collect();
    let places =
        Tensor::from_vec(labels.iter().map(|l| f64::from(*l)).collect::<Vec<_>>(), (2000, 1), &Device::Cpu);
    let y = (Key::new(1).uniform(0.0, 2.0, (2000, 1), DType::F64, &Device::Cpu).unwrap() + places.unwrap())
        .unwrap();
    let e = mixed_mutual_information(&y, &labels, 3, &few()).unwrap();
    assert!((e.value - truth).abs() < 0.05, "{} {truth}", e.value);
    // By the definition, in one dimension.
    let values = y.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let psi = |m: usize| (1..m).map(|i| 1.0 / i as f64).sum::<f64>() - 0.577_215_664_901_532_9;
    let each = |i: usize| {
        let mut own: Vec<f64> = (0..2000)
            .filter(|&j| j != i && labels[j] == labels[i])
            .map(|j| (values[i] - values[j]).abs())
            .collect();
        own.sort_by(f64::total_cmp);
        psi(1 + (0..2000).filter(|&j| j != i && (values[i] - values[j]).abs() < own[2]).count())
    };
    let expected = psi(2000) + psi(3) - psi(400) - (0..2000).map(each).sum::<f64>() / 2000.0;
    assert!((e.value - expected).abs() < 1e-9, "{} {expected}", e.value);
    // Nothing to know, in few and in many columns.
    for d in [2, 20] {
        let none = mixed_mutual_information(&normal(9, 1000, d), &labels[..1000], 3, &few()).unwrap();
        assert!(none.value.abs() < 0.08, "{}", none.value);
    }
}

#[test]
fn the_labels_of_clusters_are_bracketed() {
    let draw = |seed: u64, spread: f64| {
        let labels: Vec<u32> = (0..600).map(|i| i % 4).collect();
        let index = Tensor::from_vec(labels.clone(), 600, &Device::Cpu).unwrap();
        let centers = normal(77, 4, 3).index_select(&index, 0).unwrap();
        ((centers + (normal(seed, 600, 3) * spread).unwrap()).unwrap(), labels)
    };
    let of = |spread: f64| {
        let ((a, la), (b, lb)) = (draw(1, spread), draw(2, spread));
        label_information(&a, &la, &b, &lb, 5, &LinearProbeConfig::default(), &few()).unwrap()
    };
    let near = of(0.8);
    let b = &near.bracket;
    assert!((near.entropy.value - 4f64.ln()).abs() < 1e-9);
    assert!(b.lower > 0.2 && b.lower <= b.estimate.value && b.estimate.value <= b.upper, "{b:?}");
    let none = of(1e6);
    assert!(none.bracket.lower < 0.03 && none.bracket.estimate.value < 0.08, "{none:?}");
    let all = of(0.01);
    assert!(all.bracket.lower > 1.3 && all.bracket.estimate.doubts.iter().any(|d| d.code == "saturated"));
    // Names of classes mean nothing.
    let h = label_entropy(&[7, 7, 4_000_000_000, 4_000_000_000], &Resampling::none()).unwrap();
    assert!((h.value - 2f64.ln()).abs() < 1e-12 && h.doubts[0].code == "few-samples");
}

#[test]
fn shrinkage_equals_its_definition_and_holds_with_few_rows() {
    let z = normal(3, 12, 5);
    let x = z.broadcast_sub(&z.mean_keepdim(0).unwrap()).unwrap().to_vec2::<f64>().unwrap();
    let (n, p) = (12.0, 5.0);
    let s = |j: usize, k: usize| x.iter().map(|r| r[j] * r[k]).sum::<f64>() / n;
    let mu = (0..5).map(|j| s(j, j)).sum::<f64>() / p;
    let pairs = || (0..5).flat_map(|j| (0..5).map(move |k| (j, k)));
    let target = |j: usize, k: usize| if j == k { mu } else { 0.0 };
    // Ledoit and Wolf (2004), section 3.2: b^2 / d^2 with the norm divided by p.
    let d2 = pairs().map(|(j, k)| (s(j, k) - target(j, k)).powi(2)).sum::<f64>() / p;
    let b2 = x.iter().map(|r| pairs().map(|(j, k)| (r[j] * r[k] - s(j, k)).powi(2)).sum::<f64>() / p);
    let b2 = b2.sum::<f64>() / (n * n);
    let (cov, share) = shrinkage_covariance(&z, Shrinkage::LedoitWolf).unwrap();
    assert!((share - (b2 / d2).min(1.0)).abs() < 1e-12, "{share} {}", b2 / d2);
    let cov = cov.to_vec2::<f64>().unwrap();
    assert!(pairs().all(|(j, k)| (cov[j][k] - (1.0 - share) * s(j, k) - share * target(j, k)).abs() < 1e-12));
    // Chen et al. (2010), equation 23, in the form of scikit-learn.
    let alpha = pairs().map(|(j, k)| s(j, k).powi(2)).sum::<f64>() / (p * p);
    let expected = ((alpha + mu * mu) / ((n + 1.0) * (alpha - mu * mu / p))).min(1.0);
    assert!((shrinkage_covariance(&z, Shrinkage::Oas).unwrap().1 - expected).abs() < 1e-12);

    // 40 rows in 60 dimensions of variance 1: the truth is 30 ln(2 pi e).
    let truth = 30.0 * (2.0 * std::f64::consts::PI * std::f64::consts::E).ln();
    let g = gaussian_entropy(&normal(5, 40, 60), &Resampling::none()).unwrap();
    assert!(g.sample.is_none() && g.unbiased.is_none());
    assert!((g.ledoit_wolf.value - truth).abs() < 4.0 && (g.oas.value - truth).abs() < 4.0);
    assert!(g.oas.doubts.iter().any(|d| d.code == "rank-deficient"));
    // With 100 rows the sample is singular no more but far too low; its bias is known.
    let (mut sample, mut unbiased) = (0.0, 0.0);
    for seed in 0..10 {
        let g = gaussian_entropy(&normal(seed, 100, 60), &Resampling::none()).unwrap();
        (sample, unbiased) =
            (sample + g.sample.unwrap().value / 10.0, unbiased + g.unbiased.unwrap().value / 10.0);
    }
    assert!(sample < truth - 5.0 && (unbiased - truth).abs() < 1.5, "{sample} {unbiased} {truth}");
}

#[test]
fn mixtures_lie_between_their_bounds() {
    // At the golden set's variance the bounds are those of the definition.
    for (seed, n, d, variance) in [(1, 24, 4, 0.1), (2, 24, 4, 1.0), (3, 60, 12, 0.5)] {
        let z = normal(seed, n, d);
        let cfg = MixtureConfig { variance: Some(variance), draws: 4000, ..MixtureConfig::default() };
        let b = mixture_entropy(&z, &cfg).unwrap();
        let rows = z.to_vec2::<f64>().unwrap();
        let term = |c: f64| {
            let of = |a: &Vec<f64>| {
                let kernel = |b: &Vec<f64>| {
                    (-a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / c).exp() / n as f64
                };
                rows.iter().map(kernel).sum::<f64>().ln()
            };
            rows.iter().map(of).sum::<f64>() / n as f64
        };
        let tau = 2.0 * std::f64::consts::PI;
        let own = 0.5 * d as f64 * (tau * std::f64::consts::E * variance).ln();
        let likelihood = 0.5 * d as f64 * (2.0 * tau * variance).ln() - term(4.0 * variance);
        let lower = (own - term(8.0 * variance)).max(likelihood);
        assert!((b.upper - (own - term(2.0 * variance))).abs() < 1e-9);
        assert!((b.lower - lower).abs() < 1e-9);
        assert!(b.lower < b.estimate.value && b.estimate.value < b.upper, "{b:?}");
    }
}

#[test]
fn mixtures_have_their_limits() {
    let cfg = |variance: f64| MixtureConfig { variance: Some(variance), ..MixtureConfig::default() };
    let own = |d: f64, v: f64| 0.5 * d * (2.0 * std::f64::consts::PI * std::f64::consts::E * v).ln();
    // All rows equal: the noise alone, and both bounds meet.
    let same = mixture_entropy(&Tensor::ones((30, 3), DType::F64, &Device::Cpu).unwrap(), &cfg(0.5)).unwrap();
    assert!((same.lower - own(3.0, 0.5)).abs() < 1e-9 && (same.upper - own(3.0, 0.5)).abs() < 1e-9);
    // Three clusters without overlap: ln 3 more.
    let far =
        Tensor::from_vec((0..60).map(|i| 1e4 * f64::from(i % 3)).collect::<Vec<_>>(), (60, 1), &Device::Cpu);
    let b = mixture_entropy(&far.unwrap(), &cfg(1.0)).unwrap();
    let truth = own(1.0, 1.0) + 3f64.ln();
    assert!((b.lower - truth).abs() < 1e-9 && (b.upper - truth).abs() < 1e-9 && b.estimate.doubts.is_empty());
    // Noise far below the distances: the rows are told apart, which is said.
    let b = mixture_entropy(&normal(1, 100, 8), &cfg(1e-6)).unwrap();
    assert!(b.estimate.doubts.iter().any(|d| d.code == "saturated"));
    assert!((b.upper - own(8.0, 1e-6) - 100f64.ln()).abs() < 1e-6);
    // A blurred normal sample is nearly normal.
    let b = mixture_entropy(&normal(2, 2000, 2), &cfg(0.5)).unwrap();
    assert!((b.estimate.value - own(2.0, 1.5)).abs() < 0.06, "{b:?} {}", own(2.0, 1.5));
    assert!(mixture_entropy(&normal(3, 50, 5), &MixtureConfig::default()).is_ok());
    let copies = Tensor::cat(&[&normal(1, 20, 3), &normal(1, 20, 3)], 0).unwrap();
    let error = mixture_entropy(&copies, &MixtureConfig::default()).unwrap_err().to_string();
    assert!(error.contains("mixture.variance") && error.contains("duplicates"), "{error}");
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    use infomax_eval::geometry::*;
    let (z, y) = (normal(1, 700, 12), normal(2, 700, 2));
    let labels: Vec<u32> = (0..700).map(|i| i % 3).collect();
    let all = || {
        let graph = nearest_neighbors(&z, 5, Metric::Euclidean).unwrap();
        let dimension = intrinsic_dimension(&graph, &DimensionConfig::default(), &few()).unwrap();
        let entropy = kozachenko_leonenko(&z, 3, Norm::Euclidean, &few()).unwrap();
        let pair =
            mutual_information(&y, &z.narrow(1, 0, 2).unwrap(), &KsgConfig::default(), &few()).unwrap();
        let mixed = mixed_mutual_information(&z, &labels, 3, &few()).unwrap();
        let blurred = mixture_entropy(&z, &MixtureConfig { draws: 900, ..MixtureConfig::default() }).unwrap();
        let cka = linear_cka(&z, &y, &few()).unwrap();
        let gauss = gaussian_entropy(&z, &few()).unwrap();
        (graph, dimension, entropy, pair, mixed, blurred, cka, gauss)
    };
    let with =
        |threads: usize| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(all);
    assert_eq!(with(1), with(3));
}

#[test]
fn fewer_draws_than_rows_still_visit_all_parts_of_the_data() {
    // Half of the rows are far away: a prefix of the rows would see one half only.
    let far = (normal(1, 300, 2) + 1e3).unwrap();
    let z = Tensor::cat(&[&(normal(2, 300, 2) * 1e-3).unwrap(), &(far * 5.0).unwrap()], 0).unwrap();
    let cfg = |draws| MixtureConfig { variance: Some(0.5), draws, ..MixtureConfig::default() };
    let (some, all) = (mixture_entropy(&z, &cfg(200)).unwrap(), mixture_entropy(&z, &cfg(6_000)).unwrap());
    assert!((some.estimate.value - all.estimate.value).abs() < 0.5, "{some:?} {all:?}");
    assert_eq!(some.estimate.doubts[0].code, "few-draws");
}
