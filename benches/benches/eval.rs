//! What is measured of embeddings: intrinsic dimension from exact neighbors, mutual information.

use std::hint::black_box;

use criterion::Criterion;
use infomax_benches::{id, normal, size};
use infomax_eval::Resampling;
use infomax_eval::geometry::{DimensionConfig, Metric, intrinsic_dimension, nearest_neighbors};
use infomax_eval::information::{KsgConfig, mutual_information};

/// The group `eval`.
pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("eval");
    group.sample_size(10);
    let (rows, width) = (size(10_000, 60), size(700, 10));
    let z = normal("embeddings", &[rows, width]).unwrap();
    // TwoNN and Levina and Bickel's estimate, with their intervals.
    group.bench_function(id("intrinsic-dimension-k20", &[rows, width]), |b| {
        b.iter(|| {
            let neighbors = nearest_neighbors(&z, 20, Metric::Euclidean).unwrap();
            let (cfg, resampling) = (DimensionConfig::default(), Resampling::default());
            black_box(intrinsic_dimension(&neighbors, &cfg, &resampling).unwrap())
        });
    });
    let rows = size(4_000, 60);
    let (x, noise) = (normal("x", &[rows, 3]).unwrap(), normal("noise", &[rows, 3]).unwrap());
    let y = (&x + noise).unwrap();
    group.bench_function(id("ksg-k3-estimate-alone", &[rows, 3, 3]), |b| {
        let none = Resampling::none();
        b.iter(|| black_box(mutual_information(&x, &y, &KsgConfig::default(), &none).unwrap()));
    });
    group.finish();
}
