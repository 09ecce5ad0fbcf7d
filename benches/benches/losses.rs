//! Objectives: value and gradient of one batch of two views.

use std::hint::black_box;

use candle_core::Var;
use criterion::{Criterion, Throughput};
use infomax_benches::{id, size, variable};
use infomax_core::{Context, Embeddings};
use infomax_losses::ObjectiveConfig;

/// The group `losses`.
pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("losses");
    group.sample_size(10);
    let objective = ObjectiveConfig::named("vicreg").unwrap().build().unwrap();
    let batch = size(256, 32);
    for dim in [512, size(2048, 512 / 4)] {
        let views = ["a", "b"].map(|name| variable(name, &[batch, dim]).unwrap());
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(id("vicreg-forward", &[2, batch, dim]), |b| {
            b.iter(|| black_box(objective.evaluate(&embeddings(&views), &Context::standalone()).unwrap()));
        });
        group.bench_function(id("vicreg-forward-backward", &[2, batch, dim]), |b| {
            b.iter(|| {
                let report = objective.evaluate(&embeddings(&views), &Context::standalone()).unwrap();
                black_box(report.total.backward().unwrap());
            });
        });
    }
    group.finish();
}

fn embeddings(views: &[Var; 2]) -> Embeddings {
    let [a, b] = views.each_ref().map(|v| v.as_tensor().clone());
    Embeddings::pair(a, b).unwrap()
}
