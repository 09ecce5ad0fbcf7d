//! Convolution, batch normalization and max pooling at the shapes of a ResNet-18 on 32x32 images.

use std::hint::black_box;

use candle_core::{Result, Tensor};
use criterion::{Criterion, Throughput};
use infomax_benches::{id, size, variable};
use infomax_kernels::{Activation, Conv2dConfig, Pool2dConfig, batch_norm_train, conv2d, max_pool2d};

/// The layers of a ResNet-18 with the CIFAR stem that differ: (in, out, side of the input, kernel, stride).
const CONVOLUTIONS: &[(usize, usize, usize, usize, usize)] = &[
    (3, 64, 32, 3, 1),
    (64, 64, 32, 3, 1),
    (64, 128, 32, 3, 2),
    (64, 128, 32, 1, 2),
    (128, 128, 16, 3, 1),
    (256, 256, 8, 3, 1),
    (512, 512, 4, 3, 1),
];

/// The group `kernels`.
pub(crate) fn benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("kernels");
    group.sample_size(10);
    let batch = size(32, 2);
    for &(c_in, c_out, side, kernel, stride) in CONVOLUTIONS {
        let xs = variable("xs", &[batch, c_in, side, side]).unwrap();
        let weight = variable("weight", &[c_out, c_in, kernel, kernel]).unwrap();
        let cfg = Conv2dConfig { stride, padding: kernel / 2, ..Conv2dConfig::default() };
        let forward = || conv2d(xs.as_tensor(), weight.as_tensor(), None, cfg).unwrap();
        // Multiply-adds of the forward pass; both gradients together cost twice as much.
        let work = (forward().elem_count() * c_in * kernel * kernel) as u64;
        let shape = [batch, c_in, side, side, c_out, kernel, stride];
        group.throughput(Throughput::Elements(work));
        group.bench_function(id("conv2d-forward", &shape), |b| b.iter(|| black_box(forward())));
        group.throughput(Throughput::Elements(3 * work));
        group.bench_function(id("conv2d-forward-backward", &shape), |b| {
            b.iter(|| backward(&forward()).unwrap())
        });
    }
    for &(channels, side) in &[(64, 32), (128, 16), (512, 4)] {
        let shape = [batch, channels, side, side];
        let (xs, weight) = (variable("xs", &shape).unwrap(), variable("scale", &[channels]).unwrap());
        let bias = variable("shift", &[channels]).unwrap();
        let forward = || {
            let (weight, bias) = (Some(weight.as_tensor()), Some(bias.as_tensor()));
            batch_norm_train(xs.as_tensor(), weight, bias, None, 1e-5, Activation::Relu).unwrap().ys
        };
        group.throughput(Throughput::Elements(xs.elem_count() as u64));
        group.bench_function(id("batch-norm-relu-forward", &shape), |b| b.iter(|| black_box(forward())));
        group.bench_function(id("batch-norm-relu-forward-backward", &shape), |b| {
            b.iter(|| backward(&forward()).unwrap());
        });
    }
    let shape = [batch, 64, 32, 32];
    let xs = variable("xs", &shape).unwrap();
    let forward = || max_pool2d(&xs, Pool2dConfig { kernel: 3, stride: 2, padding: 1 }).unwrap();
    group.throughput(Throughput::Elements(xs.elem_count() as u64));
    group.bench_function(id("max-pool-forward", &shape), |b| b.iter(|| black_box(forward())));
    group.bench_function(id("max-pool-forward-backward", &shape), |b| {
        b.iter(|| backward(&forward()).unwrap());
    });
    group.finish();
}

/// The backward pass of the sum of squares, so that the incoming gradient is no constant.
fn backward(ys: &Tensor) -> Result<()> {
    black_box(ys.sqr()?.sum_all()?.backward()?);
    Ok(())
}
