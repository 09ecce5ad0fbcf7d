//! Parity with torchvision: names, outputs in both modes, running statistics and gradients.
//!
//! `golden/resnet.json` is written by `golden/make.py` (torch 2.15.0, torchvision 0.29.2, float64).

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use infomax_core::{Encoder as _, Key, Params, Pass};
use infomax_models::{ResNet, ResNetConfig, Stem, load_encoder};
use serde_json::Value;
use std::collections::BTreeMap;

fn wave(shape: &[usize], p: usize) -> Tensor {
    let n: usize = shape.iter().product();
    let values: Vec<f64> = (0..n).map(|i| (0.37 * i as f64 + 1.3 * p as f64 + 0.2).sin()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// The same formula as in `make.py`.
fn formula(name: &str, dims: &[usize], p: usize) -> Tensor {
    let w = wave(dims, p);
    let (scale, shift) = if name.ends_with("running_mean") {
        (0.1, 0.0)
    } else if name.ends_with("running_var") {
        (0.3, 1.0)
    } else if dims.len() == 1 {
        (0.2, if name.ends_with("weight") { 1.0 } else { 0.0 })
    } else {
        ((2.0 / (dims[0] * dims[2] * dims[3]) as f64).sqrt(), 0.0)
    };
    w.affine(scale, shift).unwrap()
}

fn norm(t: &Tensor) -> f64 {
    t.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
}

fn check_values(what: &str, got: &Tensor, expected: &Value) {
    let got = got.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let expected: Vec<f64> = expected.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!(got.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0f64, |m, v| m.max(v.abs()));
    for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
        assert!((g - e).abs() <= 1e-9 * scale, "{what} {i}: {g} instead of {e}");
    }
}

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/resnet.json")).unwrap()
}

fn check(case: &str, cfg: &ResNetConfig, size: usize) {
    let golden = &golden()[case];
    let params = Params::new(DType::F64, &Device::Cpu, Key::new(0));
    let net = ResNet::new(cfg, params.root().pp("encoder")).unwrap();

    let names: Vec<String> =
        params.all().into_iter().map(|(n, _)| n.strip_prefix("encoder.").unwrap().to_owned()).collect();
    let expected: Vec<&str> =
        golden["names"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    assert_eq!(names, expected, "{case}: parameter names");

    let mut weights = BTreeMap::new();
    for (p, (name, param)) in params.all().iter().enumerate() {
        let short = name.strip_prefix("encoder.").unwrap();
        weights.insert(short.to_owned(), formula(short, param.var.dims(), p));
    }
    weights.insert("fc.weight".into(), wave(&[10, 4], 0));
    weights.insert("bn1.num_batches_tracked".into(), wave(&[1], 0));
    load_encoder(&params, "encoder", &weights).unwrap();

    let shape = [3, 3, size, size];
    let cube = wave(&shape, 3).powf(3.0).unwrap();
    let factor = Tensor::new(&[1f64, 2.0, 3.0], &Device::Cpu).unwrap().reshape((3, 1, 1, 1)).unwrap();
    let xs = (wave(&shape, 7) + cube.broadcast_mul(&factor).unwrap()).unwrap();
    check_values(&format!("{case} eval"), &net.forward(&xs, &Pass::eval()).unwrap(), &golden["eval"]);
    // Two images run layer by layer, three as one fused operation.
    let rows = golden["eval"].as_array().unwrap();
    let two = Value::from(rows[..rows.len() / 3 * 2].to_vec());
    let ys = net.forward(&xs.narrow(0, 0, 2).unwrap(), &Pass::eval()).unwrap();
    check_values(&format!("{case} eval, two images"), &ys, &two);
    let ys = net.forward(&xs, &Pass::train(Key::new(0))).unwrap();
    check_values(&format!("{case} train"), &ys, &golden["train"]);

    let loss = (&ys * wave(ys.dims(), 5)).unwrap().sum_all().unwrap();
    let grads = loss.backward().unwrap();
    let largest =
        golden["grad_norms"].as_object().unwrap().values().fold(0f64, |m, v| m.max(v.as_f64().unwrap()));
    for (name, param) in params.trainable() {
        let expected = golden["grad_norms"][name.strip_prefix("encoder.").unwrap()].as_f64().unwrap();
        let got = norm(grads.get(&param.var).unwrap());
        assert!(
            (got - expected).abs() <= 1e-8 * expected + 1e-11 * largest,
            "{case} {name}: {got} {expected}"
        );
    }
    for (name, expected) in golden["running_norms"].as_object().unwrap() {
        let got = norm(params.get(&format!("encoder.{name}")).unwrap().var.as_tensor());
        let expected = expected.as_f64().unwrap();
        assert!((got - expected).abs() <= 1e-9 * expected.max(1e-3), "{case} {name}: {got} {expected}");
    }
}

#[test]
fn resnet18_with_the_small_stem() {
    check("resnet18-cifar", &ResNetConfig { width: 4, ..Default::default() }, 16);
}

#[test]
fn resnet18_with_the_large_stem() {
    check("resnet18-imagenet", &ResNetConfig { width: 4, stem: Stem::Imagenet, ..Default::default() }, 48);
}

#[test]
fn resnet50_with_the_large_stem() {
    let cfg = ResNetConfig { depth: 50, width: 2, stem: Stem::Imagenet, ..Default::default() };
    check("resnet50-imagenet", &cfg, 48);
}

#[test]
fn the_standard_network_has_the_standard_number_of_parameters() {
    let params = Params::new(DType::F32, &Device::Cpu, Key::new(0));
    ResNet::new(&ResNetConfig::default(), params.root()).unwrap();
    assert_eq!(params.count() as u64, golden()["resnet18-cifar-64-parameters"].as_u64().unwrap());
    assert_eq!(params.count(), 11_168_832);
}
