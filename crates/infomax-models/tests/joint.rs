//! The joint-embedding model: gradients, determinism, heads, and the momentum teacher.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use infomax_core::{Context, Key, Learner as _, ParamKind, Params, Pass, View};
use infomax_models::{
    ConvNextConfig, EncoderConfig, JointEmbedding, ModelConfig, PatchesConfig, Precision, ResNetConfig, Stem,
    VitConfig,
};
use infomax_testing::{GradCheck, assert_all_grads, gradcheck, spread};

fn small() -> ResNetConfig {
    ResNetConfig { blocks: vec![1, 1], width: 4, ..ResNetConfig::default() }
}

fn config() -> ModelConfig {
    let encoder = EncoderConfig::ResNet(small());
    ModelConfig { encoder, projector: vec![12, 6], ..ModelConfig::default() }
}

fn build(config: &ModelConfig, dtype: DType, seed: u64) -> (Params, JointEmbedding) {
    let params = Params::new(dtype, &Device::Cpu, Key::new(seed));
    let model = JointEmbedding::new(config, &params).unwrap();
    (params, model)
}

fn views(dtype: DType) -> [View; 2] {
    [1, 2].map(|seed| View::global(spread(&[6, 3, 9, 7], seed, 1.5).to_dtype(dtype).unwrap()))
}

/// A random linear read-out of all embeddings, so that every output counts differently.
fn readout(z: &infomax_core::Views) -> Tensor {
    let all = z.cat().unwrap();
    let weights = spread(all.dims(), 5, 1.0).to_dtype(all.dtype()).unwrap();
    (all * weights).unwrap().sum_all().unwrap()
}

#[test]
fn every_parameter_gets_a_gradient() {
    for depth in [18, 50] {
        let mut config = config();
        config.encoder = EncoderConfig::ResNet(ResNetConfig { depth, ..small() });
        let (params, model) = build(&config, DType::F32, 0);
        let z = model.embed(&views(DType::F32), &Pass::train(Key::new(0))).unwrap();
        let vars: Vec<_> = params.trainable().into_iter().map(|(name, p)| (name, p.var)).collect();
        assert!(vars.len() > 20);
        assert_all_grads(&vars, &readout(&z.projections), &[]).unwrap();
    }
}

#[test]
fn the_gradient_of_the_input_is_right() {
    let (_, model) = build(&config(), DType::F64, 1);
    let fixed = views(DType::F64)[1].clone();
    let settings = GradCheck { max_elements: 25, rel: 1e-5, ..GradCheck::default() };
    gradcheck(&[views(DType::F64)[0].values.clone()], settings, |xs| {
        let views = [View::global(xs[0].clone()), fixed.clone()];
        Ok(model.embed(&views, &Pass::train(Key::new(0))).unwrap().projections.cat().unwrap())
    })
    .unwrap();
}

#[test]
fn the_seed_decides_the_bits() {
    let bits = |seed| {
        let (_, model) = build(&config(), DType::F32, seed);
        let z = model.embed(&views(DType::F32), &Pass::train(Key::new(0))).unwrap();
        z.projections.cat().unwrap().to_vec2::<f32>().unwrap()
    };
    assert_eq!(bits(3), bits(3));
    assert_ne!(bits(3), bits(4));
}

#[test]
fn running_statistics_follow_the_batch() {
    let (params, model) = build(&config(), DType::F64, 0);
    let view = views(DType::F64)[0].clone();
    let before = params.get("encoder.bn1.running_mean").unwrap().var.to_vec1::<f64>().unwrap();
    assert_eq!(before, [0.0; 4]);
    model.features(&view.values).unwrap();
    assert_eq!(params.get("encoder.bn1.running_mean").unwrap().var.to_vec1::<f64>().unwrap(), before);

    // By hand: mean and unbiased variance of the first convolution's output, a tenth of the way.
    let weight = params.get("encoder.conv1.weight").unwrap().var.as_tensor().clone();
    let out = view.values.conv2d(&weight, 1, 1, 1, 1).unwrap();
    model.embed(std::slice::from_ref(&view), &Pass::train(Key::new(0))).unwrap();
    let rows = out.transpose(0, 1).unwrap().flatten_from(1).unwrap().to_vec2::<f64>().unwrap();
    let mean = params.get("encoder.bn1.running_mean").unwrap().var.to_vec1::<f64>().unwrap();
    let var = params.get("encoder.bn1.running_var").unwrap().var.to_vec1::<f64>().unwrap();
    for (c, row) in rows.iter().enumerate() {
        let n = row.len() as f64;
        let m = row.iter().sum::<f64>() / n;
        let v = row.iter().map(|x| (x - m).powi(2)).sum::<f64>() / (n - 1.0);
        assert!((mean[c] - 0.1 * m).abs() < 1e-12, "{} {}", mean[c], 0.1 * m);
        assert!((var[c] - (0.9 + 0.1 * v)).abs() < 1e-12, "{} {}", var[c], 0.9 + 0.1 * v);
    }
}

#[test]
fn a_teacher_follows_and_gets_no_gradient() {
    let config = ModelConfig { predictor: vec![8], teacher_momentum: Some(0.75), ..config() };
    let (params, mut model) = build(&config, DType::F64, 0);
    let z = model.embed(&views(DType::F64), &Pass::train(Key::new(0))).unwrap();
    let (predictions, targets) = (z.predictions.unwrap(), z.targets.unwrap());
    assert_eq!((predictions.len(), targets.len()), (2, 2));
    let grads = (readout(&predictions) + readout(&targets)).unwrap().backward().unwrap();
    let teacher: Vec<_> = params.all().into_iter().filter(|(name, _)| name.starts_with("teacher.")).collect();
    assert!(!teacher.is_empty());
    for (name, param) in &teacher {
        assert_eq!(param.kind, ParamKind::Buffer, "{name}");
        assert!(grads.get(&param.var).is_none(), "{name}");
    }
    let name = "encoder.conv1.weight";
    let student = params.get(name).unwrap().var;
    let shadow = params.get(&format!("teacher.{name}")).unwrap().var;
    let (start, moved) = (shadow.copy().unwrap(), (student.as_tensor() + 1.0).unwrap());
    student.set(&moved).unwrap();
    model.after_step(&Context::standalone()).unwrap();
    let now = shadow.as_tensor().sub(&start).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    // Without a known length of the run the momentum is the configured one: a quarter of the way to +1.
    assert!(now.iter().all(|d| (d - 0.25).abs() < 1e-9), "{:?}", &now[..3]);
}

/// Views of two sizes: the student embeds all of them, the teacher the global ones.
#[test]
fn teachers_embed_the_global_views_only() {
    let config = ModelConfig { predictor: vec![8], teacher_momentum: Some(0.9), ..config() };
    let (_, model) = build(&config, DType::F64, 0);
    let local = || View::local(spread(&[6, 3, 5, 6], 4, 1.0));
    let [a, b] = views(DType::F64);
    let z = model.embed(&[a.clone(), b.clone(), local()], &Pass::train(Key::new(0))).unwrap();
    assert_eq!((z.projections.len(), z.predictions.unwrap().len()), (3, 3));
    assert_eq!((z.targets.unwrap().len(), z.globals), (2, Some(2)));
    // Without local views nothing is told apart, so that losses keep their own convention.
    assert_eq!(model.embed(&[a.clone(), b], &Pass::train(Key::new(0))).unwrap().globals, None);
    let wrong = model.embed(&[local(), a], &Pass::train(Key::new(0))).unwrap_err().to_string();
    assert!(wrong.contains("global views come first"), "{wrong}");
}

#[test]
fn bad_configurations_and_inputs_are_named() {
    for (change, part) in [
        (ModelConfig { teacher_momentum: Some(1.5), ..config() }, "teacher_momentum"),
        (ModelConfig { projector: vec![8, 0], ..config() }, "projector"),
        (
            ModelConfig { encoder: EncoderConfig::ResNet(ResNetConfig { depth: 19, ..small() }), ..config() },
            "encoder.depth = 19",
        ),
    ] {
        let params = Params::new(DType::F32, &Device::Cpu, Key::new(0));
        let message = JointEmbedding::new(&change, &params).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    let (_, model) = build(&config(), DType::F32, 0);
    let gray = spread(&[2, 1, 8, 8], 0, 1.0).to_dtype(DType::F32).unwrap();
    assert!(model.features(&gray).is_err());
    assert!(serde_json::from_str::<ModelConfig>(r#"{"projektor": [3]}"#).is_err());
}

/// Embeddings of a training pass, features of an evaluation, and the gradients of all parameters by name.
fn pass(config: &ModelConfig, precision: Precision) -> (Tensor, Tensor, Vec<(String, Tensor)>) {
    let params = Params::new(DType::F32, &Device::Cpu, Key::new(0));
    let model = JointEmbedding::with_precision(config, precision, &params).unwrap();
    let views =
        [1, 2].map(|seed| View::global(spread(&[9, 3, 20, 17], seed, 1.5).to_dtype(DType::F32).unwrap()));
    let before = model.features(&views[0].values).unwrap();
    let z = model.embed(&views, &Pass::train(Key::new(0))).unwrap().projections;
    let grads = readout(&z).backward().unwrap();
    let gradient = |(name, p): (String, infomax_core::Param)| (name, grads.get(&p.var).unwrap().clone());
    (z.cat().unwrap(), before, params.trainable().into_iter().map(gradient).collect())
}

#[test]
fn bf16_is_near_f32_and_leaves_parameters_and_evaluation_alone() {
    let norm = |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
    for (depth, stem) in [(18, Stem::Cifar), (50, Stem::Imagenet)] {
        let encoder = EncoderConfig::ResNet(ResNetConfig { depth, stem, width: 8, ..small() });
        let config = ModelConfig { encoder, projector: Vec::new(), ..config() };
        let (z, features, grads) = pass(&config, Precision::F32);
        let (z16, features16, grads16) = pass(&config, Precision::Bf16);
        let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(bits(&features), bits(&features16));
        let far = norm(&(&z16 - &z).unwrap()) / norm(&z);
        assert!(far > 0.0 && far < 0.02, "depth {depth}: embeddings {far} away");
        assert_eq!(grads.len(), grads16.len());
        for ((name, g), (_, g16)) in grads.iter().zip(&grads16) {
            assert_eq!((g16.dtype(), g16.dims()), (DType::F32, g.dims()), "{name}");
            let far = norm(&(g16 - g).unwrap()) / norm(g);
            // At a random start a few values of each map round to the other side of a ReLU.
            assert!(far < 0.4, "depth {depth}, {name}: gradient {far} away");
        }
    }
}

#[test]
fn bf16_is_refused_where_it_is_not_possible() {
    let refused = |config: &ModelConfig, dtype, parts: &[&str]| {
        let params = Params::new(dtype, &Device::Cpu, Key::new(0));
        let message =
            JointEmbedding::with_precision(config, Precision::Bf16, &params).unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    refused(&config(), DType::F64, &["bf16", "F64", "precision f32"]);
    let patches = ModelConfig { encoder: EncoderConfig::Patches(PatchesConfig::default()), ..config() };
    refused(&patches, DType::F32, &["bf16", "`patches`", "precision f32"]);
    // Those whose products alone are rounded.
    for encoder in
        [EncoderConfig::Vit(VitConfig::default()), EncoderConfig::ConvNext(ConvNextConfig::default())]
    {
        let config = ModelConfig { encoder, ..config() };
        refused(&config, DType::F64, &["bf16", "F64", "precision f32"]);
        let params = Params::new(DType::F32, &Device::Cpu, Key::new(0));
        JointEmbedding::with_precision(&config, Precision::Bf16, &params).unwrap();
    }
    assert_eq!(serde_json::from_str::<Precision>(r#""bf16""#).unwrap(), Precision::Bf16);
}
