//! Batch norm over all ranks, with equal and unequal shares: the outputs, gradients and running statistics of one
//! process on the whole batch.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use infomax_core::candle_core::{DType, Device, Tensor};
use infomax_core::{Collective, Encoder as _, Key, Params, Pass, replicas};
use infomax_models::{
    Precision, Projector, ProjectorConfig, ResNet, ResNet9, ResNet9Config, ResNetConfig, Stem,
};
use std::collections::BTreeMap;

/// A network over its parameters, as a function of images or rows in a pass.
type Network = Box<dyn Fn(&Tensor, &Pass<'_>) -> Tensor + Send>;
type Build = fn(&Params) -> Network;

const NETWORKS: [(&str, Build, &[usize]); 5] = [
    ("projector", projector, &[5]),
    // Blocks of images: the fused chain.
    ("resnet", |params| resnet(params, Stem::Cifar), &[3, 8, 8]),
    ("resnet with pooled stem", |params| resnet(params, Stem::Imagenet), &[3, 16, 16]),
    ("resnet-9", resnet9, &[3, 8, 8]),
    ("bf16", bf16, &[3, 8, 8]),
];

fn projector(params: &Params) -> Network {
    let config = ProjectorConfig::vicreg(vec![6, 7, 4]);
    let network = Projector::new(5, &config, params.root()).unwrap();
    Box::new(move |xs, pass| network.forward(xs, pass).unwrap())
}

fn config(stem: Stem) -> ResNetConfig {
    ResNetConfig { blocks: vec![1, 1], width: 4, stem, ..ResNetConfig::default() }
}

fn resnet(params: &Params, stem: Stem) -> Network {
    let network = ResNet::new(&config(stem), params.root()).unwrap();
    Box::new(move |xs, pass| network.forward(xs, pass).unwrap())
}

fn bf16(params: &Params) -> Network {
    let network = ResNet::with_precision(&config(Stem::Cifar), Precision::Bf16, params.root()).unwrap();
    Box::new(move |xs, pass| network.forward(xs, pass).unwrap())
}

fn resnet9(params: &Params) -> Network {
    let config = ResNet9Config { width: 4, ..ResNet9Config::default() };
    let network = ResNet9::new(&config, params.root()).unwrap();
    Box::new(move |xs, pass| network.forward(xs, pass).unwrap())
}

/// Output, gradients of the parameters and of the input, and buffers after two training passes.
fn results(
    build: Build,
    xs: &Tensor,
    readout: &Tensor,
    ranks: &dyn Collective,
) -> (Tensor, BTreeMap<String, Tensor>) {
    let params = Params::new(xs.dtype(), &Device::Cpu, Key::new(5));
    let network = build(&params);
    let var = infomax_core::candle_core::Var::from_tensor(xs).unwrap();
    let pass = Pass { collective: ranks, ..Pass::train(Key::new(1)) };
    network(var.as_tensor(), &pass);
    let ys = network(var.as_tensor(), &pass);
    // The sum over the ranks is what is differentiated: here a sum over samples, each with factors of its own.
    let loss = (&ys * readout).unwrap().sum_all().unwrap();
    let grads = infomax_kernels::backward(&loss).unwrap();
    let mut all: BTreeMap<String, Tensor> = params
        .trainable()
        .into_iter()
        .map(|(name, param)| (format!("d {name}"), ranks.sum(grads.get(&param.var).unwrap()).unwrap()))
        .collect();
    all.insert("dx".into(), grads.get(&var).unwrap().clone());
    let buffers = params.tensors().into_iter().filter(|(name, _)| name.contains("running"));
    all.extend(buffers.map(|(name, value)| (name, value.copy().unwrap())));
    (ys.detach(), all)
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn near(what: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let (found, expected) = (values(found), values(expected));
    let scale = expected.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() <= tolerance * scale, "{what}: {a} and {b}, of a scale of {scale}");
    }
}

#[test]
fn ranks_normalize_as_one_process_does() {
    for (name, build, shape) in NETWORKS {
        for shares in [vec![4, 4], vec![5, 1, 2], vec![2, 3, 1, 2]] {
            for dtype in [DType::F64, DType::F32] {
                let tolerance = match (name, dtype) {
                    ("bf16", DType::F64) => continue,
                    // Another summation order moves a value to the next number of 8 bits here and there.
                    ("bf16", _) => 3e-2,
                    (_, DType::F64) => 1e-6,
                    _ => 1e-4,
                };
                let n: usize = shares.iter().sum();
                let dims: Vec<usize> = [n].iter().chain(shape).copied().collect();
                let xs = infomax_testing::spread(&dims, 3, 1.0).to_dtype(dtype).unwrap();
                let width = {
                    let params = Params::new(dtype, &Device::Cpu, Key::new(5));
                    build(&params)(&xs, &Pass::eval()).dims()[1]
                };
                let readout = infomax_testing::spread(&[n, width], 9, 1.0).to_dtype(dtype).unwrap();
                let (whole, expected) = results(build, &xs, &readout, &infomax_core::Local);
                let found: Vec<_> = std::thread::scope(|scope| {
                    let mut start = 0;
                    let mut threads = Vec::new();
                    for (rank, &rows) in replicas(shares.len()).into_iter().zip(&shares) {
                        let own = |t: &Tensor| t.narrow(0, start, rows).unwrap().copy().unwrap();
                        let (xs, readout, at) = (own(&xs), own(&readout), start);
                        start += rows;
                        threads.push(scope.spawn(move || (at, rows, results(build, &xs, &readout, &rank))));
                    }
                    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
                });
                for (start, rows, (ys, all)) in &found {
                    let what = |name: &str, key: &str| format!("{name}, {shares:?}, {dtype:?}: {key}");
                    let part = |t: &Tensor| t.narrow(0, *start, *rows).unwrap();
                    near(&what(name, "outputs"), ys, &part(&whole), tolerance);
                    for (key, expected) in &expected {
                        let expected = if key == "dx" { part(expected) } else { expected.clone() };
                        near(&what(name, key), &all[key], &expected, tolerance);
                        if key != "dx" {
                            assert_eq!(values(&all[key]), values(&found[0].2.1[key]), "{key}: other bits");
                        }
                    }
                }
            }
        }
    }
}
