//! Making the images of the embedded data set.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use infomax_data::{Dataset as _, Shapes, ShapesConfig};

/// The group `data`.
pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("data");
    group.throughput(Throughput::Elements(1));
    for side in [32, 64] {
        // Without a cache every call draws.
        let config = ShapesConfig { size: side, len: 1000, cache_bytes: 0, ..ShapesConfig::default() };
        let shapes = Shapes::new(config).unwrap();
        let mut index = 0;
        group.bench_function(format!("cpu/shapes/u8/{side}x{side}x3"), |b| {
            b.iter(|| {
                index = (index + 1) % shapes.len();
                black_box(shapes.image(index).unwrap())
            });
        });
    }
    group.finish();
}
