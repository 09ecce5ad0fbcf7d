//! The stem that whitens patches.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use infomax_core::{Key, Params, Pass};
use infomax_models::{
    EncoderConfig, JointEmbedding, ModelConfig, Precision, ResNet9Config, ResNetConfig, Stem, whiten_stem,
};
use infomax_testing::assert_all_grads;

/// Images whose neighbors are alike: a random walk along both axes, with another scale in each channel.
fn images(n: usize, channels: usize, side: usize) -> Tensor {
    let noise = Key::new(1).normal(0.3, 1.0, (n, channels, side, side), DType::F32, &Device::Cpu).unwrap();
    let scale: Vec<f32> = (0..channels).map(|c| 6.0 + 4.0 * c as f32).collect();
    let scale = Tensor::from_vec(scale, (1, channels, 1, 1), &Device::Cpu).unwrap();
    let walk = noise.cumsum(2).unwrap().cumsum(3).unwrap();
    ((walk / side as f64).unwrap() + 2.0).unwrap().broadcast_mul(&scale).unwrap()
}

fn resnet(stem: Stem) -> EncoderConfig {
    EncoderConfig::ResNet(ResNetConfig { blocks: vec![1, 1], width: 4, stem, ..ResNetConfig::default() })
}

fn params(seed: u64) -> Params {
    Params::new(DType::F32, &Device::Cpu, Key::new(seed))
}

fn values(params: &Params, name: &str) -> Vec<f32> {
    params.get(name).unwrap().var.flatten_all().unwrap().to_vec1().unwrap()
}

/// The mean and the covariance of `W p + b` over all patches, by loops over pixels in f64.
fn moments(params: &Params, xs: &Tensor) -> (Vec<f64>, Vec<Vec<f64>>) {
    let (w, b) = (values(params, "encoder.whiten.weight"), values(params, "encoder.whiten.bias"));
    let (n, channels, h, width) = xs.dims4().unwrap();
    let x: Vec<f32> = xs.flatten_all().unwrap().to_vec1().unwrap();
    let outputs = b.len();
    let per = channels * 4;
    let mut rows = Vec::new();
    for i in 0..n {
        for y in 0..h - 1 {
            for z in 0..width - 1 {
                let row = (0..outputs).map(|o| {
                    let mut sum = f64::from(b[o]);
                    for c in 0..channels {
                        for (dy, dx) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                            let pixel = x[((i * channels + c) * h + y + dy) * width + z + dx];
                            sum += f64::from(w[o * per + c * 4 + dy * 2 + dx]) * f64::from(pixel);
                        }
                    }
                    sum
                });
                rows.push(row.collect::<Vec<f64>>());
            }
        }
    }
    let count = rows.len() as f64;
    let mean: Vec<f64> = (0..outputs).map(|o| rows.iter().map(|r| r[o]).sum::<f64>() / count).collect();
    let cov =
        |a: usize, b: usize| rows.iter().map(|r| (r[a] - mean[a]) * (r[b] - mean[b])).sum::<f64>() / count;
    let covariance = (0..outputs).map(|a| (0..outputs).map(|b| cov(a, b)).collect()).collect();
    (mean, covariance)
}

#[test]
fn whitened_patches_have_the_identity_as_covariance_and_both_signs() {
    let xs = images(6, 3, 12);
    let params = params(1);
    resnet(Stem::Whitened).build(Precision::F32, params.root().pp("encoder")).unwrap();
    // At its random start the layer does not whiten.
    let far = |covariance: &[Vec<f64>]| {
        let half = covariance.len() / 2;
        let off = |a: usize, b: usize| (covariance[a][b] - f64::from(u8::from(a == b))).abs();
        (0..half).flat_map(|a| (0..half).map(move |b| off(a, b))).fold(0.0, f64::max)
    };
    assert!(far(&moments(&params, &xs).1) > 0.5);
    assert!(whiten_stem(&params, "encoder", &xs).unwrap());
    let (mean, covariance) = moments(&params, &xs);
    let outputs = mean.len();
    assert_eq!(outputs, 24);
    assert!(mean.iter().all(|m| m.abs() < 1e-3), "{mean:?}");
    // Up to s / (s + eps): these patches vary by far more than eps.
    assert!(far(&covariance) < 0.05, "{covariance:?}");
    for o in 0..outputs / 2 {
        assert!((covariance[o][o + outputs / 2] + covariance[o][o]).abs() < 1e-3, "the other sign");
    }
    // Other images are not white under these weights.
    let other = (images(6, 3, 12).affine(1.0, 0.0).unwrap().flip(&[3]).unwrap() * 2.0).unwrap();
    assert!(far(&moments(&params, &other).1) > 0.5);
}

#[test]
fn it_is_deterministic_frozen_by_default_and_shared_with_a_teacher() {
    let xs = images(4, 3, 10);
    let config = |stem| ModelConfig {
        encoder: resnet(stem),
        projector: vec![],
        teacher_momentum: Some(0.5),
        ..ModelConfig::default()
    };
    let (one, two) = (params(1), params(2));
    for params in [&one, &two] {
        JointEmbedding::new(&config(Stem::Whitened), params).unwrap();
        assert!(whiten_stem(params, "encoder", &xs).unwrap());
        assert!(params.trainable().iter().all(|(name, _)| !name.contains("whiten")));
    }
    for leaf in ["weight", "bias"] {
        let name = format!("encoder.whiten.{leaf}");
        // The seed of the other weights does not matter.
        assert_eq!(values(&one, &name), values(&two, &name));
        assert_eq!(values(&one, &name), values(&one, &format!("teacher.{name}")));
    }
    let trained = params(1);
    JointEmbedding::new(&config(Stem::WhitenedTrained), &trained).unwrap();
    assert!(trained.trainable().iter().any(|(name, _)| name == "encoder.whiten.weight"));
    let plain = params(1);
    JointEmbedding::new(&config(Stem::Cifar), &plain).unwrap();
    assert!(!whiten_stem(&plain, "encoder", &xs).unwrap());
    let message = whiten_stem(&one, "encoder", &images(2, 1, 8)).unwrap_err().to_string();
    assert!(message.contains("(batch, 3,"), "{message}");
}

#[test]
fn gradients_reach_what_is_trained() {
    let small = ResNet9Config { width: 2, stem: Stem::Whitened, ..ResNet9Config::default() };
    for encoder in [resnet(Stem::Whitened), resnet(Stem::WhitenedTrained), EncoderConfig::ResNet9(small)] {
        let params = params(1);
        let net = encoder.build(Precision::F32, params.root().pp("encoder")).unwrap();
        let xs = images(4, 3, 12);
        whiten_stem(&params, "encoder", &xs).unwrap();
        let ys = net.forward(&xs, &Pass::train(Key::new(0))).unwrap();
        let factors = Key::new(7).normal(0.0, 1.0, ys.dims(), DType::F32, &Device::Cpu).unwrap();
        let loss = (ys * factors).unwrap().sum_all().unwrap();
        let vars: Vec<_> = params.trainable().into_iter().map(|(name, p)| (name, p.var)).collect();
        assert_all_grads(&vars, &loss, &[]).unwrap();
    }
    let large = EncoderConfig::ResNet9(ResNet9Config { stem: Stem::Imagenet, ..ResNet9Config::default() });
    let message = large.build(Precision::F32, params(1).root()).unwrap_err().to_string();
    assert!(message.contains("stem = imagenet") && message.contains("whitened"), "{message}");
}
