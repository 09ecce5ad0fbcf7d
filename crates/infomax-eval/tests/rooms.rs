//! The spectrum and the geometry of embeddings against golden values, brute force, and inputs without structure.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use infomax_core::Key;
use infomax_eval::geometry::*;
use infomax_eval::spectrum::*;
use infomax_eval::*;
use serde_json::Value;

fn normal(seed: u64, n: usize, d: usize) -> Tensor {
    Key::new(seed).normal(0.0, 1.0, (n, d), DType::F64, &Device::Cpu).unwrap()
}

fn golden(name: &str) -> Tensor {
    infomax_testing::read_npy(format!("{}/tests/golden/diag/{name}.npy", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn diag() -> Value {
    serde_json::from_str(include_str!("golden/diag/diag.json")).unwrap()
}

#[track_caller]
fn close(got: f64, expected: &Value, tolerance: f64) {
    let expected = expected.as_f64().unwrap();
    assert!((got - expected).abs() <= tolerance * expected.abs(), "{got} instead of {expected}");
}

fn few() -> Resampling {
    Resampling { draws: 20, ..Resampling::default() }
}

#[test]
fn lidar_equals_stable_pretraining() {
    let golden_value = diag();
    let z = golden("lidar_60x10_d24");
    let groups: Vec<u32> = (0..600).map(|i| i / 10).collect();
    let l = lidar(&z, &groups, &LidarConfig::default(), &few()).unwrap();
    let expected = &golden_value["lidar_60x10_d24"]["delta0.0001,eps1e-08"];
    // The reference's eps of 1e-8 in the shares moves the value by about as much.
    close(l.rank.value, &expected["lidar"], 1e-6);
    close(l.eigenvalues[0], &expected["top_eigenvalue"], 1e-9);
    let i = l.rank.interval.unwrap();
    assert!(i.lower < l.rank.value && l.rank.value < i.upper && i.method.contains("subsamples"));
    // The order of rows and the numbers of groups mean nothing.
    let order: Vec<u32> = (0..600).map(|i| (i * 7) % 600).collect();
    let named: Vec<u32> = order.iter().map(|i| 90_000 - 7 * (i / 10)).collect();
    let index = Tensor::from_vec(order, 600, &Device::Cpu).unwrap();
    let mixed =
        lidar(&z.index_select(&index, 0).unwrap(), &named, &LidarConfig::default(), &Resampling::none())
            .unwrap();
    assert!((mixed.rank.value - l.rank.value).abs() < 1e-9 && mixed.rank.interval.is_none());
}

#[test]
fn lidar_of_views_without_images_is_that_of_noise_and_lonely_views_are_named() {
    // Nothing between groups but what noise leaves: eigenvalues near 1 / q in all directions alike.
    let z = normal(1, 3000, 6);
    let groups: Vec<u32> = (0..3000).map(|i| i / 10).collect();
    let l = lidar(&z, &groups, &LidarConfig::default(), &Resampling::none()).unwrap();
    assert!(l.rank.value > 5.9 && (l.eigenvalues[0] - 0.1).abs() < 0.05, "{l:?}");
    let error = lidar(&normal(1, 5, 2), &[0, 0, 1, 2, 2], &LidarConfig::default(), &few()).unwrap_err();
    assert!(error.to_string().contains("1 row: 2"), "{error}");
}

#[test]
fn nesum_and_iso_score_equal_their_definitions() {
    let golden_value = diag();
    for name in ["iso_n400_d32", "lowrank5_n200_d64", "rank1_n50_d8"] {
        let s = spectrum(&golden(name)).unwrap();
        close(s.nesum, &golden_value[name]["nesum(sum eig/max eig)"], 1e-9);
        // Rudman et al., literally: variances at length sqrt d, their distance to ones, and two rescalings.
        let d = s.dim as f64;
        let mut values = s.eigenvalues.clone();
        values.resize(s.dim, 0.0);
        let norm = values.iter().map(|l| l * l).sum::<f64>().sqrt();
        let distance = values.iter().map(|l| (d.sqrt() * l / norm - 1.0).powi(2)).sum::<f64>().sqrt();
        let defect = distance / (2.0 * (d - d.sqrt())).sqrt();
        let share = (d - defect * defect * (d - d.sqrt())).powi(2) / (d * d);
        let expected = (d * share - 1.0) / (d - 1.0);
        assert!((s.iso_score.unwrap() - expected).abs() < 1e-9, "{name}: {expected}");
    }
}

#[test]
fn the_corrected_participation_ratio_sees_all_directions_with_few_rows() {
    let (mut plain, mut corrected) = (0.0, 0.0);
    for seed in 0..20 {
        let s = spectrum(&normal(seed, 60, 200)).unwrap();
        plain += s.participation_ratio / 20.0;
        corrected += s.participation_ratio_corrected.unwrap() / 20.0;
        assert_eq!(s.doubts[0].code, "few-samples");
    }
    // The true one is 200.
    assert!(plain < 60.0 && (corrected - 200.0).abs() < 12.0, "{plain} {corrected}");
    let one = spectrum(&normal(5, 60, 1).matmul(&normal(6, 1, 200)).unwrap()).unwrap();
    assert!((one.participation_ratio_corrected.unwrap() - 1.0).abs() < 0.05);
    let constant = spectrum(&Tensor::ones((9, 4), DType::F64, &Device::Cpu).unwrap()).unwrap();
    assert_eq!((constant.participation_ratio, constant.participation_ratio_corrected), (0.0, None));
    assert_eq!(constant.doubts[0].code, "constant");
}

#[test]
fn rank_intervals_hold_their_value_and_do_not_depend_on_the_scale() {
    let z = normal(3, 300, 12);
    let r = rank_estimates(&z, &few()).unwrap();
    for e in [&r.rank_me, &r.effective_rank, &r.participation_ratio, &r.nesum] {
        let i = e.interval.as_ref().unwrap();
        assert!(i.lower < e.value && e.value < i.upper && e.n == 300);
    }
    let large = spectrum(&(z.clone() * 1e120).unwrap()).unwrap();
    assert!((large.rank_me - r.rank_me.value).abs() < 1e-9);
    assert_eq!(rank_estimates(&z, &few()).unwrap(), r);
    let labels: Vec<u32> = (0..300).map(|i| [0, 0, 2][i % 3]).collect();
    let classes = spectrum_per_class(&z, &labels).unwrap();
    assert!(classes[1].is_none() && classes[2].as_ref().unwrap().samples == 100);
}

/// All distances, sorted, by differences.
fn brute(z: &Tensor, k: usize) -> Vec<Vec<(f64, u32)>> {
    let rows = z.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
    let of = |i: usize| {
        let distance =
            |j: usize| rows[i].iter().zip(&rows[j]).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        let mut all: Vec<(f64, u32)> =
            (0..rows.len()).filter(|&j| j != i).map(|j| (distance(j), j as u32)).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        all.truncate(k);
        all
    };
    (0..rows.len()).map(of).collect()
}

#[test]
fn neighbors_are_exact_whatever_the_data_look_like() {
    let tight = {
        // Clusters a million times narrower than their distance: f32 products cannot order their rows.
        let labels = Tensor::from_vec((0..700u32).map(|i| i % 5).collect(), 700, &Device::Cpu).unwrap();
        let centers = normal(7, 5, 40).index_select(&labels, 0).unwrap();
        (centers + (normal(8, 700, 40) * 1e-6).unwrap()).unwrap()
    };
    let offset = (normal(9, 600, 33) + 1e4).unwrap();
    let far = Tensor::cat(&[&normal(10, 300, 20), &(normal(11, 2, 20) * 1e9).unwrap()], 0).unwrap();
    let cases = [normal(1, 530, 3), normal(2, 900, 50), tight, offset, far];
    for (case, z) in cases.iter().enumerate() {
        for k in [1, 10] {
            let found = nearest_neighbors(z, k, Metric::Euclidean).unwrap();
            for (i, expected) in brute(z, k).iter().enumerate() {
                for (rank, (distance, row)) in expected.iter().enumerate() {
                    assert_eq!(found.of(i)[rank], *row, "case {case}, row {i}");
                    let got = found.distances_of(i)[rank];
                    assert!((got - distance).abs() <= 1e-7 * distance, "case {case}: {got} {distance}");
                }
            }
            if case == 2 {
                assert!(found.searched_again > 0);
            }
            if case == 1 {
                assert_eq!(found.searched_again, 0);
            }
        }
    }
}

#[test]
fn neighbors_of_duplicates_and_cosine() {
    // Twelve copies of each row: the nearest are copies, the earlier first.
    let index = Tensor::from_vec((0..600u32).map(|i| i % 50).collect(), 600, &Device::Cpu).unwrap();
    let z = normal(1, 50, 24).index_select(&index, 0).unwrap();
    let found = nearest_neighbors(&z, 3, Metric::Euclidean).unwrap();
    assert!(found.distances.iter().all(|d| *d == 0.0));
    assert!((0..600).all(|i| found.of(i).iter().all(|j| j % 50 == i as u32 % 50)));
    // The cosine does not see lengths.
    let z = normal(2, 200, 12);
    let lengths = Key::new(3).uniform(0.1, 9.0, (200, 1), DType::F64, &Device::Cpu).unwrap();
    let a = nearest_neighbors(&z, 5, Metric::Cosine).unwrap();
    let b = nearest_neighbors(&z.broadcast_mul(&lengths).unwrap(), 5, Metric::Cosine).unwrap();
    assert_eq!(a.indices, b.indices);
    assert!(nearest_neighbors(&z, 200, Metric::Cosine).unwrap_err().to_string().contains("201"));
}

#[test]
fn intrinsic_dimension_equals_scikit_dimension() {
    let golden_value = diag();
    let neighbors = nearest_neighbors(&golden("id_sphere2_n500_d3"), 20, Metric::Euclidean).unwrap();
    let d = intrinsic_dimension(&neighbors, &DimensionConfig::default(), &few()).unwrap();
    let expected = &golden_value["id_sphere2_n500_d3"];
    close(d.two_nn.value, &expected["twonn_ols_discard0.1(skdim default)"], 1e-9);
    close(d.two_nn_likelihood.value, &expected["twonn_mle(N-1)/sum ln mu"], 1e-9);
    let levina = d.levina_bickel.unwrap();
    close(levina.value, &expected["mle_levina_bickel_k20_mackay(harmonic; skdim comb=mle)"], 1e-9);
    let i = levina.interval.unwrap();
    assert!(i.lower < 2.0 && 2.0 < i.upper && i.upper - i.lower < 0.4);
    assert!(d.two_nn.doubts.is_empty());
}

#[test]
fn intrinsic_dimension_says_when_rows_are_too_few() {
    // 40 dimensions of 400 rows cannot be resolved, and rows that all coincide have none.
    let neighbors = nearest_neighbors(&normal(1, 400, 40), 20, Metric::Euclidean).unwrap();
    let d = intrinsic_dimension(&neighbors, &DimensionConfig::default(), &few()).unwrap();
    assert!(d.two_nn.value < 35.0 && d.two_nn.doubts[0].code == "few-samples", "{d:?}");
    let same =
        nearest_neighbors(&Tensor::ones((60, 3), DType::F32, &Device::Cpu).unwrap(), 20, Metric::Euclidean);
    let error = intrinsic_dimension(&same.unwrap(), &DimensionConfig::default(), &few()).unwrap_err();
    assert!(matches!(error, Error::TooFew { rows: 0, .. }));
}

#[test]
fn cka_equals_the_golden_values_by_both_ways() {
    let golden_value = diag();
    let (x, y) = (golden("cka.x"), golden("cka.y"));
    let c = linear_cka(&x, &y, &few()).unwrap();
    close(c.plain.value, &golden_value["cka_n80"]["linear_biased(feature form)"], 1e-9);
    close(c.debiased.value, &golden_value["cka_n80"]["linear_debiased(Song HSIC1)"], 1e-9);
    // Columns of zeros change nothing but make the Gram matrices the cheaper way.
    let (n, _) = x.dims2().unwrap();
    let zeros = Tensor::zeros((n, 200), DType::F32, &Device::Cpu).unwrap();
    let wide = Tensor::cat(&[&x.to_dtype(DType::F32).unwrap(), &zeros], 1).unwrap();
    let g = linear_cka(&wide, &y, &Resampling::none()).unwrap();
    assert!((g.plain.value - c.plain.value).abs() < 1e-9);
    assert!((g.debiased.value - c.debiased.value).abs() < 1e-9);
}

#[test]
fn cka_of_unrelated_representations_is_zero_only_when_debiased() {
    let mut debiased = 0.0;
    for seed in 0..10 {
        let c =
            linear_cka(&normal(seed, 60, 100), &normal(100 + seed, 60, 100), &Resampling::none()).unwrap();
        assert!(c.plain.value > 0.4 && c.plain.doubts[0].code == "few-samples");
        debiased += c.debiased.value / 10.0;
    }
    assert!(debiased.abs() < 0.05, "{debiased}");
    let x = normal(1, 50, 4);
    assert!((linear_cka(&x, &(&x * -3.0).unwrap(), &few()).unwrap().plain.value - 1.0).abs() < 1e-12);
    let error = linear_cka(&x, &normal(2, 49, 4), &few()).unwrap_err().to_string();
    assert!(error.contains("50 rows") && error.contains("has 49"), "{error}");
    let flat = Tensor::ones((50, 3), DType::F64, &Device::Cpu).unwrap();
    assert!(matches!(linear_cka(&x, &flat, &few()), Err(Error::Constant { name: "y", .. })));
}

#[test]
fn hubs_appear_in_many_dimensions_and_not_in_one() {
    let graph = |d: usize| nearest_neighbors(&normal(4, 1000, d), 10, Metric::Euclidean).unwrap();
    let (low, high) = (hubness(&graph(1), &few()).unwrap(), hubness(&graph(100), &few()).unwrap());
    assert!(low.skewness.value.abs() < 0.6, "{:?}", low.skewness);
    assert!(high.skewness.value > 2.0 && high.antihubs.value > 0.1, "{:?}", high.skewness);
    assert_eq!(high.occurrences.iter().sum::<u32>(), 10_000);
    assert!(high.hubs.windows(2).all(|w| high.occurrences[w[0]] >= high.occurrences[w[1]]));
}

#[test]
fn neighborhoods_overlap_by_chance_or_wholly() {
    let (a, b) = (normal(1, 500, 8), normal(2, 500, 8));
    let graph = |z: &Tensor| nearest_neighbors(z, 10, Metric::Euclidean).unwrap();
    let none = neighbor_overlap(&graph(&a), &graph(&b), &few()).unwrap();
    assert!((none.share.value - none.chance).abs() < 0.02, "{:?}", none.share);
    let shifted = ((&a * 2.0).unwrap() + 1.0).unwrap();
    assert_eq!(neighbor_overlap(&graph(&a), &graph(&shifted), &few()).unwrap().share.value, 1.0);
}

#[test]
fn silhouette_equals_its_definition_and_is_zero_without_classes() {
    let z = normal(3, 60, 3);
    let labels: Vec<u32> = (0..60).map(|i| if i == 0 { 3 } else { i % 3 }).collect();
    let s = silhouette(&z, &labels, &few()).unwrap();
    let rows = z.to_vec2::<f64>().unwrap();
    for i in 0..60 {
        let mean = |class: u32| {
            let others: Vec<f64> = (0..60)
                .filter(|&j| j != i && labels[j] == class)
                .map(|j| rows[i].iter().zip(&rows[j]).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt())
                .collect();
            others.iter().sum::<f64>() / others.len() as f64
        };
        let a = mean(labels[i]);
        let b = (0..4).filter(|c| *c != labels[i]).map(mean).fold(f64::INFINITY, f64::min);
        let expected = if i == 0 { 0.0 } else { (b - a) / a.max(b) };
        assert!((s.rows[i] - expected).abs() < 1e-9, "row {i}: {} {expected}", s.rows[i]);
    }
    let labels: Vec<u32> = (0..600).map(|i| i % 3).collect();
    assert!(silhouette(&normal(4, 600, 5), &labels, &few()).unwrap().score.value.abs() < 0.02);
    assert!(matches!(silhouette(&z, &[1; 60], &few()), Err(Error::OneClass { .. })));
}

#[test]
fn alignment_and_uniformity_have_their_known_values() {
    let x = normal(1, 800, 64);
    assert!(alignment(&x, &(&x * 5.0).unwrap(), 2.0, &few()).unwrap().value.abs() < 1e-15);
    // Unrelated directions are at the squared distance 2 in the mean.
    let apart = alignment(&x, &normal(2, 800, 64), 2.0, &few()).unwrap();
    let i = apart.interval.unwrap();
    assert!((apart.value - 2.0).abs() < 0.05 && i.upper - i.lower < 0.05);
    // On the sphere of many dimensions the kernel is exp(-2 t) times the cumulant of the cosine, 1 / D.
    let u = uniformity_estimate(&x, 2.0, &few()).unwrap();
    assert!((u.value - (-4.0 + 0.5 * 16.0 / 64.0)).abs() < 0.02, "{u:?}");
    assert_eq!(u.value, uniformity(&x).unwrap());
    assert!(alignment(&x, &normal(2, 800, 63), 2.0, &few()).is_err());
}

#[test]
fn intervals_of_the_dimension_hold_it_as_often_as_they_say() {
    let mut inside = [0; 3];
    for seed in 0..100 {
        let sphere = nearest_neighbors(&normal(seed, 300, 3), 10, Metric::Cosine).unwrap();
        let d = intrinsic_dimension(&sphere, &DimensionConfig::default(), &few()).unwrap();
        let all = [&d.two_nn, &d.two_nn_likelihood, d.levina_bickel.as_ref().unwrap()];
        for (count, e) in inside.iter_mut().zip(all) {
            let i = e.interval.as_ref().unwrap();
            *count += usize::from(i.lower <= 2.0 && 2.0 <= i.upper);
        }
    }
    // 90 of 100, by four deviations.
    assert!(inside.iter().all(|c| (78..=99).contains(c)), "{inside:?}");
}
