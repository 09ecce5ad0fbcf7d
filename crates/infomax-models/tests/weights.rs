//! Weights of torchvision and timm: tiny networks that these libraries saved give their features here, and go back
//! under their names. The files are written by `golden/weights/make_weights.py`.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use infomax_core::{Key, Learner as _, Params, Pass, View};
use infomax_models::{
    ConvNextConfig, EncoderConfig, JointEmbedding, ModelConfig, Naming, Precision, ResNet9Config,
    ResNetConfig, Stem, VitConfig, VitPool, export_encoder, init_encoder, init_student,
};
use infomax_testing::{Tolerance, assert_all_grads, assert_close};
use std::collections::BTreeMap;
use std::path::PathBuf;

type Tensors = BTreeMap<String, Tensor>;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/weights")
}

/// The tensors of a golden file, and of these the state dict alone.
fn golden(name: &str) -> (Tensors, Tensors) {
    let path = folder().join(format!("{name}.safetensors"));
    let all: Tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_iter().collect();
    let state = all.iter().filter_map(|(name, t)| Some((name.strip_prefix("state.")?.to_owned(), t.clone())));
    let state = state.collect();
    (all, state)
}

fn resnet(
    depth: usize,
    blocks: [usize; 4],
    width: usize,
    stem: Stem,
    inner_multiplier: usize,
) -> EncoderConfig {
    let blocks = blocks.to_vec();
    EncoderConfig::ResNet(ResNetConfig {
        depth,
        blocks,
        width,
        stem,
        inner_multiplier,
        ..ResNetConfig::default()
    })
}

fn vit(registers: usize, pool: VitPool) -> EncoderConfig {
    let small = VitConfig { image: 12, patch: 4, width: 16, depth: 2, heads: 2, ..VitConfig::default() };
    EncoderConfig::Vit(VitConfig { registers, pool, ..small })
}

fn convnext(blocks: &[usize], widths: &[usize]) -> EncoderConfig {
    let (blocks, widths) = (blocks.to_vec(), widths.to_vec());
    EncoderConfig::ConvNext(ConvNextConfig { blocks, widths, ..ConvNextConfig::default() })
}

/// The networks of the golden files, and whose names these have.
fn networks() -> Vec<(&'static str, EncoderConfig, Naming)> {
    use Naming::{Timm, Torchvision};
    let four = convnext(&[1, 1, 2, 1], &[4, 8, 12, 16]);
    vec![
        ("torchvision-resnet-basic", resnet(18, [1, 2, 1, 1], 2, Stem::Imagenet, 1), Torchvision),
        ("torchvision-resnet-cifar", resnet(18, [1, 1, 1, 1], 2, Stem::Cifar, 1), Torchvision),
        ("torchvision-resnet-wide", resnet(50, [1, 1, 1, 2], 2, Stem::Imagenet, 2), Torchvision),
        // The names of both libraries are the same in residual networks.
        ("timm-resnet-basic", resnet(34, [1, 1, 1, 2], 2, Stem::Imagenet, 1), Torchvision),
        ("timm-resnet-bottleneck", resnet(50, [1, 1, 1, 1], 2, Stem::Imagenet, 1), Torchvision),
        ("timm-vit", vit(0, VitPool::Token), Timm),
        ("timm-vit-registers", vit(2, VitPool::Token), Timm),
        ("timm-vit-mean", vit(2, VitPool::Mean), Timm),
        ("torchvision-vit", vit(0, VitPool::Token), Torchvision),
        ("timm-convnext", four.clone(), Timm),
        ("timm-convnext-pointwise", four, Timm),
        ("torchvision-convnext", convnext(&[1, 2, 1], &[4, 8, 12]), Torchvision),
    ]
}

fn params(seed: u64) -> Params {
    Params::new(DType::F32, &Device::Cpu, Key::new(seed))
}

fn copies(params: &Params) -> Tensors {
    params.tensors().into_iter().map(|(name, t)| (name, t.copy().unwrap())).collect()
}

const CLOSE: Tolerance = Tolerance { rel: 1e-4, abs: 1e-4 };

#[test]
fn networks_of_torchvision_and_timm_give_their_features() {
    for (name, encoder, naming) in networks() {
        let (all, state) = golden(name);
        let params = params(1);
        let net = encoder.build(Precision::F32, params.root().pp("backbone")).unwrap();
        let done = init_encoder(&encoder, &params, "backbone", &state).unwrap();
        assert_eq!((done.naming, done.tensors), (naming, params.all().len()), "{name}");
        let ignored = done.notes.iter().find(|note| note.contains("passed over"));
        assert!(
            ignored.is_some_and(|note| ["fc.*", "head", "classifier"].iter().any(|c| note.contains(c))),
            "{name}"
        );
        for (pass, mode) in [(Pass::eval(), "eval"), (Pass::train(Key::new(0)), "train")] {
            let ys = net.forward(&all["input"], &pass).unwrap();
            assert_close(&format!("{name} {mode}"), &ys, &all[mode], CLOSE);
        }
        // In training the features of a batch are others, where there are batch statistics.
        let differ = (&all["eval"] - &all["train"]).unwrap().abs().unwrap().max_all().unwrap();
        assert_eq!(differ.to_scalar::<f32>().unwrap() > 0.1, name.contains("resnet"), "{name}");
    }
}

#[test]
fn an_export_has_the_names_and_shapes_of_the_library_and_comes_back() {
    for (name, encoder, naming) in networks() {
        let (_, mut state) = golden(name);
        let trained = params(1);
        encoder.build(Precision::F32, trained.root()).unwrap();
        init_encoder(&encoder, &trained, "", &state).unwrap();
        let export = export_encoder(&encoder, &trained.tensors(), naming).unwrap();
        // What the library saved, without its classifier, its counters and its layer scales, which are folded.
        state.retain(|key, _| {
            let classifier =
                ["fc.", "heads.", "head.fc.", "classifier.2."].iter().any(|c| key.starts_with(c));
            let of_vit = name.starts_with("timm-vit") && key.starts_with("head.");
            !classifier && !of_vit && !key.ends_with("num_batches_tracked") && !key.contains(".ls")
        });
        let shape = |t: &Tensor| t.dims().to_vec();
        // The constructor that the export names has maps, not convolutions, and positions for class and registers.
        let other = ["timm-convnext-pointwise", "timm-vit-mean"].contains(&name);
        for (key, tensor) in &state {
            let there = export.tensors.get(key).unwrap_or_else(|| panic!("{name}: {key} is not exported"));
            assert!(other || shape(there) == shape(tensor), "{name} {key}: {:?}", there.dims());
        }
        assert_eq!(export.tensors.len(), state.len(), "{name}");
        assert!(export.python.contains("model = "), "{name}: {}", export.python);

        let again = params(2);
        encoder.build(Precision::F32, again.root().pp("encoder")).unwrap();
        init_encoder(&encoder, &again, "encoder", &export.tensors).unwrap();
        for (key, value) in trained.tensors() {
            let back = again.get(&format!("encoder.{key}")).unwrap().var;
            let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(bits(&back), bits(&value), "{name} {key}");
        }
    }
}

#[test]
fn named_networks_of_timm_have_their_shapes() {
    let encoder = EncoderConfig::named("convnext-atto", 32).unwrap();
    let params = params(0);
    encoder.build(Precision::F32, params.root()).unwrap();
    let export = export_encoder(&encoder, &params.tensors(), Naming::Timm).unwrap();
    assert_eq!(export.tensors["stages.0.blocks.1.mlp.fc1.weight"].dims(), [160, 40, 1, 1]);
    assert_eq!(export.tensors["stages.0.blocks.1.gamma"].dims(), [40]);
    assert!(
        export.python.contains("convnext_atto") && export.python.contains("model.stem[0]"),
        "{}",
        export.python
    );
    assert!(export.notes.iter().any(|note| note.contains("stem[0]")), "{:?}", export.notes);
    // The same in torchvision.
    let export = export_encoder(&encoder, &params.tensors(), Naming::Torchvision).unwrap();
    assert_eq!(export.tensors["features.1.1.block.3.weight"].dims(), [160, 40]);
    assert_eq!(export.tensors["features.1.1.layer_scale"].dims(), [40, 1, 1]);
}

#[test]
fn what_a_library_has_not_is_refused_with_the_reason() {
    let small = EncoderConfig::ResNet9(ResNet9Config { width: 2, ..ResNet9Config::default() });
    for (encoder, naming, part) in [
        (&small, Naming::Torchvision, "--names own"),
        (&small, Naming::Timm, "--names own"),
        (&vit(2, VitPool::Token), Naming::Torchvision, "register"),
        (&convnext(&[1, 1], &[4, 8]), Naming::Timm, "four stages"),
        (&convnext(&[1], &[4]), Naming::Torchvision, "one block"),
    ] {
        let params = params(0);
        encoder.build(Precision::F32, params.root()).unwrap();
        let message = export_encoder(encoder, &params.tensors(), naming).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
        let own = export_encoder(encoder, &params.tensors(), Naming::Own).unwrap();
        assert_eq!((own.tensors.len(), own.python.as_str()), (params.all().len(), ""));
        let mut tensors = params.tensors();
        let (name, _) = tensors.pop_first().unwrap();
        let message = export_encoder(encoder, &tensors, Naming::Own).unwrap_err().to_string();
        assert!(message.contains(&name), "{message}");
    }
}

#[test]
fn positions_of_another_grid_are_interpolated_as_timm_does() {
    let path = folder().join("positions.safetensors");
    let golden = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let encoder = vit(0, VitPool::Token);
    let (_, mut state) = self::golden("timm-vit");
    state.insert("pos_embed".into(), golden["old"].clone());
    let params = params(1);
    encoder.build(Precision::F32, params.root()).unwrap();
    let done = init_encoder(&encoder, &params, "", &state).unwrap();
    assert!(done.notes.iter().any(|note| note.contains("4x4") && note.contains("3x3")), "{:?}", done.notes);
    let positions = params.get("pos_embed").unwrap().var;
    assert_close("positions", &positions, &golden["new"], Tolerance { rel: 1e-5, abs: 1e-5 });
}

#[test]
fn half_precision_and_prefixes_are_recognized() {
    let encoder = resnet(18, [1, 1, 1, 1], 2, Stem::Cifar, 1);
    let (_, state) = golden("torchvision-resnet-cifar");
    for (dtype, prefix) in
        [(DType::F16, "module."), (DType::BF16, "backbone."), (DType::F64, "module.encoder_q.")]
    {
        let half = |t: &Tensor| if t.dtype() == DType::F32 { t.to_dtype(dtype).unwrap() } else { t.clone() };
        let mut tensors: Tensors =
            state.iter().map(|(name, t)| (format!("{prefix}{name}"), half(t))).collect();
        // A momentum encoder beside it is not meant.
        let zero = |t: &Tensor| t.zeros_like().unwrap();
        tensors.extend(state.iter().map(|(name, t)| (format!("module.encoder_k.{name}"), zero(t))));
        let params = params(1);
        encoder.build(Precision::F32, params.root()).unwrap();
        let done = init_encoder(&encoder, &params, "", &tensors).unwrap();
        assert_eq!(done.prefix, prefix);
        let converted = |note: &String| note.contains("converted") && note.contains(dtype.as_str());
        assert!(done.notes.iter().any(converted), "{:?}", done.notes);
        let got = params.get("layer1.0.conv1.weight").unwrap().var;
        let rel = if dtype == DType::BF16 { 1e-2 } else { 1e-3 };
        assert_close("weight", &got, &state["layer1.0.conv1.weight"], Tolerance { rel, abs: 1e-6 });
    }
}

#[test]
fn weights_of_another_architecture_name_the_first_five_with_both_shapes() {
    let (_, state) = golden("torchvision-resnet-cifar");
    let refused = |encoder: &EncoderConfig, state: &Tensors, parts: &[&str]| {
        let params = params(1);
        encoder.build(Precision::F32, params.root()).unwrap();
        let before = copies(&params);
        let message = init_encoder(encoder, &params, "", state).unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        for (name, t) in params.tensors() {
            let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(bits(&t), bits(&before[&name]), "{name} was changed");
        }
        message
    };
    let wide = resnet(18, [1, 1, 1, 1], 3, Stem::Cifar, 1);
    let message = refused(&wide, &state, &["`bn1.bias` is [2] in the file, the model has [3]", "and "]);
    assert_eq!(message.matches(" in the file").count(), 5, "{message}");
    let stem = resnet(18, [1, 1, 1, 1], 2, Stem::Imagenet, 1);
    refused(&stem, &state, &["`conv1.weight` is [2, 3, 3, 3]", "[2, 3, 7, 7]", "stem \"cifar\""]);
    let deep = resnet(18, [1, 1, 1, 2], 2, Stem::Cifar, 1);
    refused(&deep, &state, &["`layer4.1.bn1.bias` is not in the file, the model has [16]"]);
    let shallow = resnet(18, [2, 1, 1, 1], 2, Stem::Cifar, 1);
    refused(&shallow, &state, &["layer1.1.bn1.bias"]);
    let mut more = state.clone();
    more.insert("layer1.0.se.weight".into(), Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap());
    refused(&resnet(18, [1, 1, 1, 1], 2, Stem::Cifar, 1), &more, &["`layer1.0.se.weight` is [3]", "no such"]);
    refused(&vit(0, VitPool::Token), &state, &["none of the names", "`vit`", "bn1.bias", "blocks.0.attn"]);
    let mut bad = state.clone();
    bad.insert("bn1.bias".into(), Tensor::new(&[0f32, f32::NAN], &Device::Cpu).unwrap());
    refused(&resnet(18, [1, 1, 1, 1], 2, Stem::Cifar, 1), &bad, &["`bn1.bias`", "not finite"]);
    // A final norm after the mean is another network.
    let (_, mut other) = golden("timm-vit-mean");
    for leaf in ["weight", "bias"] {
        let moved = other.remove(&format!("norm.{leaf}")).unwrap();
        other.insert(format!("fc_norm.{leaf}"), moved);
    }
    refused(&vit(2, VitPool::Mean), &other, &["`norm.bias` is not in the file", "`fc_norm.bias`"]);
}

#[test]
fn a_student_and_its_teacher_start_from_the_same_weights_and_train() {
    for (name, encoder, _) in networks() {
        let (_, state) = golden(name);
        let params = params(1);
        let config = ModelConfig {
            encoder: encoder.clone(),
            projector: vec![6, 4],
            teacher_momentum: Some(0.9),
            ..ModelConfig::default()
        };
        let model = JointEmbedding::new(&config, &params).unwrap();
        init_student(&encoder, &params, &state).unwrap();
        for (key, param) in params.all() {
            if let Some(teacher) = params.get(&format!("teacher.{key}")) {
                let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert_eq!(bits(&teacher.var), bits(&param.var), "{name} {key}");
            }
        }
        // Every parameter learns: its gradient is there, finite and not zero.
        let side = if name.contains("vit") { 12 } else { 32 };
        let image = Key::new(5).normal(0.0, 1.0, (4, 3, side, side), DType::F32, &Device::Cpu).unwrap();
        let other = Key::new(6).normal(0.0, 1.0, (4, 3, side, side), DType::F32, &Device::Cpu).unwrap();
        let z = model.embed(&[View::global(image), View::global(other)], &Pass::train(Key::new(0))).unwrap();
        let z = z.projections.cat().unwrap();
        let factors = Key::new(7).normal(0.0, 1.0, z.dims(), DType::F32, &Device::Cpu).unwrap();
        let loss = (z * factors).unwrap().sum_all().unwrap();
        let vars: Vec<_> = params.trainable().into_iter().map(|(key, p)| (key, p.var)).collect();
        assert_all_grads(&vars, &loss, &[]).unwrap();
    }
}

/// The numbers of `golden/weights/counts.json` are those of the networks that torchvision and timm have under these
/// names, without their classifiers.
#[test]
fn numbers_of_parameters_are_those_of_torchvision_and_timm() {
    let text = std::fs::read_to_string(folder().join("counts.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
    let counts = golden["counts"].as_object().unwrap();
    assert!(counts.len() >= 22);
    let mut cache = BTreeMap::new();
    for (key, count) in counts {
        let (ours, there) = key.split_once(' ').unwrap();
        let mine = cache.entry(ours.to_owned()).or_insert_with(|| {
            let shapes = EncoderConfig::named(ours, 224).unwrap().shapes().unwrap();
            shapes
                .iter()
                .filter(|(name, _)| !name.contains("running_"))
                .map(|(_, s)| s.iter().product::<usize>())
                .sum::<usize>()
        });
        assert_eq!(*mine as u64, count.as_u64().unwrap(), "{there}");
    }
}
