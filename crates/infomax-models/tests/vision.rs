//! Vision transformers and ConvNeXts: parity with torchvision, numbers of parameters, gradients, refusals.
//!
//! `golden/vision.json` is written by `golden/make_vision.py` (torch 2.15.0, torchvision 0.29.2, float64).

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use infomax_core::{Encoder, Key, Learner as _, Params, Pass, View};
use infomax_models::{
    ConvNext, ConvNextConfig, EncoderConfig, JointEmbedding, ModelConfig, Vit, VitConfig, VitPool,
    load_encoder,
};
use infomax_testing::{GradCheck, assert_all_grads, gradcheck, spread};
use serde_json::Value;
use std::collections::BTreeMap;

fn wave(shape: &[usize], p: usize) -> Tensor {
    let n: usize = shape.iter().product();
    let values: Vec<f64> = (0..n).map(|i| (0.37 * i as f64 + 1.3 * p as f64 + 0.2).sin()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/vision.json")).unwrap()
}

fn params(dtype: DType) -> Params {
    Params::new(dtype, &Device::Cpu, Key::new(0))
}

fn small_vit() -> VitConfig {
    VitConfig { image: 12, patch: 4, width: 8, depth: 2, heads: 2, ..VitConfig::default() }
}

fn small_convnext() -> ConvNextConfig {
    ConvNextConfig { blocks: vec![2, 1], widths: vec![6, 10], ..ConvNextConfig::default() }
}

/// Names, outputs and the norms of all gradients.
fn check(case: &str, params: &Params, net: &dyn Encoder, size: usize) {
    let golden = &golden()[case];
    let names: Vec<String> =
        params.all().into_iter().map(|(n, _)| n.strip_prefix("encoder.").unwrap().to_owned()).collect();
    let expected: Vec<&str> =
        golden["names"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
    assert_eq!(names, expected, "{case}: parameter names");

    let mut weights = BTreeMap::new();
    for (p, (name, param)) in params.all().iter().enumerate() {
        let short = name.strip_prefix("encoder.").unwrap();
        let norm = param.var.dims().len() == 1 && short.ends_with("weight");
        let value = wave(param.var.dims(), p).affine(0.3, if norm { 1.0 } else { 0.0 }).unwrap();
        weights.insert(short.to_owned(), value);
    }
    for classifier in ["head.weight", "classifier.2.bias"] {
        weights.insert(classifier.into(), wave(&[10, 4], 0));
    }
    load_encoder(params, "encoder", &weights).unwrap();

    let factor = Tensor::new(&[1f64, 2.0], &Device::Cpu).unwrap().reshape((2, 1, 1, 1)).unwrap();
    let xs = wave(&[2, 3, size, size], 7).broadcast_mul(&factor).unwrap();
    let ys = net.forward(&xs, &Pass::eval()).unwrap();
    let got = ys.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let values: Vec<f64> = golden["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!(got.len(), values.len());
    for (g, e) in got.iter().zip(&values) {
        assert!((g - e).abs() < 1e-10, "{case}: {g} instead of {e}");
    }
    let grads = (&ys * wave(ys.dims(), 5)).unwrap().sum_all().unwrap().backward().unwrap();
    for (name, param) in params.trainable() {
        let expected = golden["grad_norms"][name.strip_prefix("encoder.").unwrap()].as_f64().unwrap();
        let grad = grads.get(&param.var).unwrap();
        let got = grad.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
        assert!((got - expected).abs() <= 1e-8 * expected + 1e-10, "{case} {name}: {got} {expected}");
    }
}

#[test]
fn the_vision_transformer_of_torchvision() {
    let params = params(DType::F64);
    let net = Vit::new(&small_vit(), params.root().pp("encoder")).unwrap();
    check("vit", &params, &net, 12);
}

#[test]
fn the_convnext_of_torchvision() {
    let params = params(DType::F64);
    let net = ConvNext::new(&small_convnext(), params.root().pp("encoder")).unwrap();
    // A size that no stage divides.
    check("convnext", &params, &net, 21);
}

#[test]
fn the_standard_networks_have_the_standard_numbers_of_parameters() {
    let count = |cfg: &VitConfig| {
        let params = params(DType::F32);
        Vit::new(cfg, params.root()).unwrap();
        params.count()
    };
    // timm's vit_{tiny,small}_patch16_224 without their classifiers.
    assert_eq!(count(&VitConfig::tiny(224, 16)), 5_524_416);
    assert_eq!(count(&VitConfig::small(224, 16)), 21_665_664);
    assert_eq!(count(&VitConfig::base(224, 16)) as u64, golden()["vit-base parameters"].as_u64().unwrap());
    assert_eq!(count(&VitConfig::tiny(32, 4)), 5_524_416 - 132 * 192 - (768 - 48) * 192);
    let params = params(DType::F32);
    ConvNext::new(&ConvNextConfig::default(), params.root()).unwrap();
    assert_eq!(params.count() as u64, golden()["convnext-tiny parameters"].as_u64().unwrap());
}

#[test]
fn every_parameter_gets_a_gradient() {
    let model = ModelConfig { projector: vec![12, 6], ..ModelConfig::default() };
    for config in [
        ModelConfig { encoder: EncoderConfig::Vit(small_vit()), ..model.clone() },
        ModelConfig {
            encoder: EncoderConfig::Vit(VitConfig { pool: VitPool::Mean, ..small_vit() }),
            ..model.clone()
        },
        ModelConfig { encoder: EncoderConfig::ConvNext(small_convnext()), ..model.clone() },
    ] {
        let params = params(DType::F64);
        let net = JointEmbedding::new(&config, &params).unwrap();
        // At the start the blocks of a ConvNeXt are scaled by 1e-6: their gradients are small, not zero.
        let view = spread(&[4, 3, 12, 12], 1, 1.0);
        let views = [view.clone(), view.affine(0.5, 0.1).unwrap()].map(View::global);
        let z = net.embed(&views, &Pass::train(Key::new(0))).unwrap();
        let all = z.projections.cat().unwrap();
        let loss = (&all * spread(all.dims(), 5, 1.0)).unwrap().sum_all().unwrap();
        let vars: Vec<_> = params.trainable().into_iter().map(|(name, p)| (name, p.var)).collect();
        assert!(vars.len() > 20);
        assert_all_grads(&vars, &loss, &[]).unwrap();
    }
}

#[test]
fn the_gradient_of_the_image_is_right() {
    let params = params(DType::F64);
    let vit = Vit::new(&small_vit(), params.root().pp("vit")).unwrap();
    let convnext = ConvNext::new(&small_convnext(), params.root().pp("convnext")).unwrap();
    let nets: [&dyn Encoder; 2] = [&vit, &convnext];
    for net in nets {
        let settings = GradCheck { max_elements: 20, rel: 1e-5, ..GradCheck::default() };
        gradcheck(&[spread(&[2, 3, 12, 12], 3, 1.0)], settings, |xs| {
            Ok(net.forward(&xs[0], &Pass::train(Key::new(0))).unwrap())
        })
        .unwrap();
    }
}

#[test]
fn evaluation_does_not_depend_on_the_other_images() {
    let params = params(DType::F32);
    let vit = Vit::new(&small_vit(), params.root().pp("vit")).unwrap();
    let convnext = ConvNext::new(&small_convnext(), params.root().pp("convnext")).unwrap();
    let nets: [&dyn Encoder; 2] = [&vit, &convnext];
    let xs = spread(&[3, 3, 12, 12], 1, 1.0).to_dtype(DType::F32).unwrap();
    for net in nets {
        let all = net.forward(&xs, &Pass::eval()).unwrap();
        let one = net.forward(&xs.narrow(0, 1, 1).unwrap(), &Pass::eval()).unwrap();
        let tolerance = infomax_testing::Tolerance { rel: 1e-5, abs: 1e-6 };
        infomax_testing::assert_close("one of three", &one, &all.narrow(0, 1, 1).unwrap(), tolerance);
    }
}

#[test]
fn bad_configurations_and_inputs_are_named() {
    for (config, part) in [
        (
            ModelConfig {
                encoder: EncoderConfig::Vit(VitConfig { heads: 3, ..small_vit() }),
                ..ModelConfig::default()
            },
            "heads",
        ),
        (
            ModelConfig {
                encoder: EncoderConfig::Vit(VitConfig { patch: 5, ..small_vit() }),
                ..ModelConfig::default()
            },
            "patch",
        ),
        (
            ModelConfig {
                encoder: EncoderConfig::ConvNext(ConvNextConfig { widths: vec![4], ..small_convnext() }),
                ..ModelConfig::default()
            },
            "widths",
        ),
    ] {
        let message = JointEmbedding::new(&config, &params(DType::F32)).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    let vit = Vit::new(&small_vit(), params(DType::F32).root()).unwrap();
    for dims in [[2, 1, 12, 12], [0, 3, 12, 12], [2, 3, 15, 16], [2, 3, 2, 2]] {
        assert!(
            vit.forward(&Tensor::zeros(&dims, DType::F32, &Device::Cpu).unwrap(), &Pass::eval()).is_err()
        );
    }
    let parsed: ModelConfig =
        serde_json::from_str(r#"{"encoder": {"kind": "vit", "width": 64, "heads": 2}}"#).unwrap();
    assert_eq!(parsed.encoder, EncoderConfig::Vit(VitConfig { width: 64, heads: 2, ..VitConfig::default() }));
    assert!(serde_json::from_str::<ModelConfig>(r#"{"encoder": {"kind": "vit", "widht": 64}}"#).is_err());
}
