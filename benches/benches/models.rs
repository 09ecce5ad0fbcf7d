//! One step of a ResNet-18 with the CIFAR stem: forward pass and all gradients.

use std::hint::black_box;

use candle_core::{DType, Device};
use criterion::{Criterion, Throughput};
use infomax_benches::{id, normal, size};
use infomax_core::{Encoder as _, Key, Params, Pass};
use infomax_models::{ResNet, ResNetConfig};

/// The group `models`.
pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("models");
    group.sample_size(10);
    let (batch, side) = (size(64, 2), size(32, 16));
    for width in [16, 64] {
        let params = Params::new(DType::F32, &Device::Cpu, Key::new(0));
        let cfg = ResNetConfig { width, ..ResNetConfig::default() };
        let net = ResNet::new(&cfg, params.root()).unwrap();
        let xs = normal("images", &[batch, 3, side, side]).unwrap();
        group.throughput(Throughput::Elements(batch as u64));
        let shape = [batch, 3, side, side];
        group.bench_function(id(&format!("resnet18-width{width}-eval"), &shape), |b| {
            b.iter(|| black_box(net.forward(&xs, &Pass::eval()).unwrap()));
        });
        group.bench_function(id(&format!("resnet18-width{width}-gradients"), &shape), |b| {
            b.iter(|| {
                let features = net.forward(&xs, &Pass::train(Key::new(0))).unwrap();
                let loss = features.sqr().unwrap().sum_all().unwrap();
                black_box(loss.backward().unwrap());
            });
        });
    }
    group.finish();
}
