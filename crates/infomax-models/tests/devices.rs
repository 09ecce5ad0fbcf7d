//! What a device would run: every kind of encoder, and a whole learner, with the forms for tensors that the kernels of
//! the CPU do not take has the features, gradients and running statistics of the CPU.

#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor};
use infomax_core::{Encoder, Key, Params, Pass};
use infomax_kernels::without_cpu_kernels;
use infomax_models::{EncoderConfig, Precision};
use infomax_testing::spread;

/// Features in training and in evaluation, then the gradients and buffers of all parameters.
fn run(config: &EncoderConfig, precision: Precision, dtype: DType) -> Vec<(String, Tensor)> {
    let params = Params::new(dtype, &Device::Cpu, Key::new(3));
    let net: Box<dyn Encoder> = config.build(precision, params.root()).unwrap();
    let xs = spread(&[6, 3, 32, 32], 1, 1.0).to_dtype(dtype).unwrap();
    let ys = net.forward(&xs, &Pass::train(Key::new(1))).unwrap();
    let cot = spread(ys.dims(), 2, 1.0).to_dtype(dtype).unwrap();
    let grads = infomax_kernels::backward(&(&ys * cot).unwrap().sum_all().unwrap()).unwrap();
    let mut all = vec![("features".to_owned(), ys.detach())];
    for (name, param) in params.all() {
        if let Some(grad) = grads.get(&param.var) {
            all.push((format!("gradient of {name}"), grad.clone()));
        } else {
            all.push((name, param.var.as_detached_tensor().copy().unwrap()));
        }
    }
    all.push(("evaluation".to_owned(), net.forward(&xs, &Pass::eval()).unwrap().detach()));
    all
}

fn norm(t: &Tensor) -> f64 {
    t.to_dtype(DType::F64).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
}

/// The largest difference, relative to the norm of all gradients for gradients that are nearly nothing.
fn far(a: &[(String, Tensor)], b: &[(String, Tensor)]) -> (f64, String) {
    assert_eq!(a.len(), b.len());
    let scale = b.iter().map(|(_, t)| norm(t)).fold(0.0, f64::max);
    let each = a.iter().zip(b).map(|((name, a), (other, b))| {
        assert_eq!(name, other);
        let (a, b) = (a.to_dtype(DType::F64).unwrap(), b.to_dtype(DType::F64).unwrap());
        let far = norm(&(a - &b).unwrap()) / norm(&b).max(1e-6 * scale);
        (if far.is_nan() { f64::INFINITY } else { far }, name.clone())
    });
    each.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

fn small() -> Vec<(&'static str, EncoderConfig)> {
    let text = [
        ("resnet", r#"{"kind":"resnet","blocks":[1,1],"width":8}"#),
        ("bottleneck", r#"{"kind":"resnet","depth":50,"blocks":[1,1],"width":4,"stem":"imagenet"}"#),
        ("whitened", r#"{"kind":"resnet","blocks":[1],"width":8,"stem":"whitened"}"#),
        ("resnet9", r#"{"kind":"resnet9","width":4}"#),
        ("vit", r#"{"kind":"vit","image":32,"patch":8,"width":24,"depth":2,"heads":3}"#),
        ("convnext", r#"{"kind":"convnext","widths":[8,16],"blocks":[1,1]}"#),
        ("patches", r#"{"kind":"patches"}"#),
    ];
    text.into_iter().map(|(name, text)| (name, serde_json::from_str(text).unwrap())).collect()
}

#[test]
fn every_encoder_has_the_forms_of_a_device() {
    let kinds: std::collections::BTreeSet<_> = small().iter().map(|(_, config)| config.kind()).collect();
    assert!(EncoderConfig::KINDS.iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
    for (name, config) in small() {
        let exact = run(&config, Precision::F32, DType::F64);
        let there = without_cpu_kernels(|| run(&config, Precision::F32, DType::F64));
        let (far, what) = far(&there, &exact);
        assert!(far < 1e-6, "{name}: {what}: {far:.1e}");
    }
}

/// Maps in bf16 have a form on devices, with parameters, gradients and statistics in f32: as far from f32 as in blocks.
#[test]
fn residual_networks_train_in_bf16_in_the_form_of_a_device() {
    for (name, config) in small().into_iter().filter(|(name, _)| ["resnet", "resnet9"].contains(name)) {
        let wide = run(&config, Precision::F32, DType::F32);
        let blocks = run(&config, Precision::Bf16, DType::F32);
        let there = without_cpu_kernels(|| run(&config, Precision::Bf16, DType::F32));
        assert!(there.iter().all(|(_, t)| t.dtype() == DType::F32), "{name}");
        let features =
            |all: &[(String, Tensor)]| all.iter().find(|(n, _)| n == "features").unwrap().1.clone();
        let error =
            |a: &[(String, Tensor)]| norm(&(features(a) - features(&wide)).unwrap()) / norm(&features(&wide));
        let (ours, theirs) = (error(&there), error(&blocks));
        assert!(ours > 0.0 && ours < 0.03 && ours < 3.0 * theirs, "{name}: {ours} {theirs}");
        let total = |all: &[(String, Tensor)], other: &[(String, Tensor)]| {
            let all = all.iter().zip(other).filter(|((name, _), _)| name.starts_with("gradient"));
            let (mut far, mut size) = (0.0, 0.0);
            for ((_, a), (_, b)) in all {
                (far, size) = (far + norm(&(a - b).unwrap()).powi(2), size + norm(b).powi(2));
            }
            (far / size).sqrt()
        };
        let (ours, theirs) = (total(&there, &wide), total(&blocks, &wide));
        assert!(ours > 0.0 && ours < 3.0 * theirs, "{name}: {ours} {theirs}");
    }
}

#[test]
fn tf32_is_for_cuda() {
    let config = infomax_models::ModelConfig::default();
    let params = Params::new(DType::F32, &Device::Cpu, Key::new(0));
    let error =
        infomax_models::JointEmbedding::with_precision(&config, Precision::Tf32, &params).unwrap_err();
    assert!(error.to_string().contains("CUDA"), "{error}");
}
