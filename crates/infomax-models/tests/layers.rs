//! What a pass shows of the layers that it goes through.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use infomax_core::{Encoder, Key, Layers, Params, Pass};
use infomax_models::{ResNet, ResNetConfig, Vit, VitConfig};
use std::sync::Mutex;

#[derive(Debug, Default)]
struct Seen(Mutex<Vec<(String, Tensor)>>);

impl Layers for Seen {
    fn saw(&self, layer: &str, values: &Tensor) {
        self.0.lock().unwrap().push((layer.to_owned(), values.detach()));
    }
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// What was seen of a training pass, whose result somebody who looks does not change.
fn watched(net: &dyn Encoder, xs: &Tensor) -> Vec<(String, Tensor)> {
    let seen = Seen::default();
    let ys = net.forward(xs, &Pass { layers: Some(&seen), ..Pass::train(Key::new(1)) }).unwrap();
    assert_eq!(values(&ys), values(&net.forward(xs, &Pass::train(Key::new(1))).unwrap()));
    seen.0.into_inner().unwrap()
}

fn images(batch: usize) -> Tensor {
    Key::new(5).normal(0.0, 1.0, (batch, 3, 8, 8), DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn residual_networks_show_each_normalization() {
    let params = Params::new(DType::F32, &Device::Cpu, Key::new(0));
    let cfg = ResNetConfig { blocks: vec![1, 1], width: 4, ..ResNetConfig::default() };
    let net = ResNet::new(&cfg, params.root().pp("encoder")).unwrap();
    let layers =
        ["bn1", "layer1.0.bn1", "layer1.0.bn2", "layer2.0.bn1", "layer2.0.bn2", "layer2.0.downsample.1"];

    // Four images go through one operation: the statistics of what comes into each normalization.
    let xs = images(4);
    let seen = watched(&net, &xs);
    let names: Vec<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
    let expected: Vec<String> = layers
        .iter()
        .flat_map(|layer| ["means", "variances"].map(|what| format!("encoder.{layer} ({what} of its input)")))
        .collect();
    assert_eq!(names, expected);
    let weight = params.get("encoder.conv1.weight").unwrap().var.as_tensor().clone();
    let maps = xs.conv2d(&weight, 1, 1, 1, 1).unwrap();
    for channel in 0..4 {
        let values = values(&maps.narrow(1, channel, 1).unwrap());
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let var = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64;
        let got = [0, 1].map(|i: usize| self::values(&seen[i].1)[channel]);
        assert!((got[0] - mean).abs() < 1e-5 && (got[1] - var).abs() < 1e-5, "{got:?} {mean} {var}");
    }

    // Two go layer by layer: whole maps, and the last is what the features are the mean of.
    let xs = images(2);
    let seen = watched(&net, &xs);
    let names: Vec<&str> = seen.iter().map(|(name, _)| name.trim_start_matches("encoder.")).collect();
    let mut sorted = layers.to_vec();
    sorted.sort_unstable();
    let mut found = names.clone();
    found.sort_unstable();
    assert_eq!(found, sorted);
    let last = &seen.iter().rfind(|(name, _)| name == "encoder.layer2.0.bn2").unwrap().1;
    let features = net.forward(&xs, &Pass::train(Key::new(1))).unwrap();
    let means = last.flatten_from(2).unwrap().mean(2).unwrap();
    let off = values(&means).iter().zip(values(&features)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(off < 1e-6, "{off}");
}

#[test]
fn transformers_show_each_block() {
    let params = Params::new(DType::F32, &Device::Cpu, Key::new(0));
    let cfg = VitConfig { image: 8, patch: 4, width: 8, depth: 3, heads: 2, ..VitConfig::default() };
    let net = Vit::new(&cfg, params.root().pp("encoder")).unwrap();
    let seen = watched(&net, &images(2));
    let names: Vec<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(names[0], "encoder.patch_embed");
    assert!(names[1..].iter().enumerate().all(|(i, name)| name.ends_with(&i.to_string())), "{names:?}");
    assert!(seen.iter().all(|(_, ys)| ys.dims() == [2, 5, 8]));
}
