//! Graphs are read back, checked in their structure, and run operator by operator against the networks.

use super::proto::{Attribute, FLOAT, Initializer, Model, Node};
use super::{ONNX_OPSET, export_onnx};
use crate::{
    ConvNextConfig, EncoderConfig, JointEmbedding, ModelConfig, PatchesConfig, ResNet9Config, ResNetConfig,
    Stem, VitConfig, VitPool,
};
use candle_core::{D, DType, Device, Tensor};
use infomax_core::{Key, Learner as _, Params, Pass, View};
use infomax_testing::{Tolerance, assert_close};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};

fn models() -> Vec<(ModelConfig, (usize, usize))> {
    let resnet = |depth, stem| {
        let cfg = ResNetConfig { depth, blocks: vec![1, 2], width: 2, stem, ..ResNetConfig::default() };
        EncoderConfig::ResNet(cfg)
    };
    let vit = |registers, pool| {
        let cfg = VitConfig { image: 12, patch: 4, width: 8, depth: 2, heads: 2, ..VitConfig::default() };
        EncoderConfig::Vit(VitConfig { registers, pool, ..cfg })
    };
    let convnext = ConvNextConfig { blocks: vec![1, 2], widths: vec![4, 6], ..ConvNextConfig::default() };
    let patches = PatchesConfig { filters: 3, grid: 2, ..PatchesConfig::default() };
    let with = |encoder, projector: &[usize], norm| ModelConfig {
        encoder,
        projector: projector.to_vec(),
        projector_norm: norm,
        ..ModelConfig::default()
    };
    vec![
        (with(resnet(18, Stem::Cifar), &[6, 5], true), (16, 16)),
        (with(resnet(18, Stem::WhitenedTrained), &[6, 5], true), (16, 12)),
        (with(resnet(50, Stem::Imagenet), &[6, 5, 4], true), (33, 20)),
        (
            with(
                EncoderConfig::ResNet9(ResNet9Config { width: 2, in_channels: 1, stem: Stem::Whitened }),
                &[3],
                true,
            ),
            (16, 24),
        ),
        (with(vit(0, VitPool::Token), &[6, 5], false), (12, 12)),
        (with(vit(2, VitPool::Mean), &[6, 5], true), (8, 16)),
        (with(EncoderConfig::ConvNext(convnext), &[6, 5], true), (19, 16)),
        (with(EncoderConfig::Patches(patches), &[6, 5], true), (13, 16)),
    ]
}

/// A model with weights far from their start, its graph and a batch.
fn build(config: &ModelConfig, image: (usize, usize)) -> (JointEmbedding, Model, Tensor) {
    let params = Params::new(DType::F32, &Device::Cpu, Key::new(3));
    let model = JointEmbedding::new(config, &params).unwrap();
    for (i, (name, param)) in params.all().into_iter().enumerate() {
        let noise =
            Key::new(4).fold_in(i as u64).normal(0.0, 0.3, param.var.shape(), DType::F32, &Device::Cpu);
        let scale = name.contains("layer_scale") || name.ends_with("running_var");
        let moved = (param.var.as_detached_tensor() + noise.unwrap()).unwrap();
        param.var.set(&if scale { (moved.abs().unwrap() + 0.3).unwrap() } else { moved }).unwrap();
    }
    let own = |(name, t): (String, Tensor)| (name.strip_prefix("encoder.").unwrap_or(&name).to_owned(), t);
    let tensors: BTreeMap<String, Tensor> = params.tensors().into_iter().map(own).collect();
    let metadata = BTreeMap::from([("mean".to_owned(), "[0.5]".to_owned())]);
    let bytes = export_onnx(config, &tensors, image, true, &metadata).unwrap();
    assert_eq!(bytes, export_onnx(config, &tensors, image, true, &metadata).unwrap());
    let channels = if matches!(config.encoder, EncoderConfig::ResNet9(_)) { 1 } else { 3 };
    let shape = (3, channels, image.0, image.1);
    let xs = Key::new(5).normal(0.0, 1.0, shape, DType::F32, &Device::Cpu).unwrap();
    (model, Model::decode(bytes.as_slice()).unwrap(), xs)
}

#[test]
fn graphs_give_the_features_and_projections_of_the_networks() {
    for (config, image) in models() {
        let (model, message, xs) = build(&config, image);
        let got = run(&message, &xs);
        let name = config.encoder.kind();
        let close = Tolerance { rel: 1e-4, abs: 1e-4 };
        assert_close(name, &got["features"], &model.features(&xs).unwrap(), close);
        let z = model.embed(&[View::global(xs)], &Pass::eval()).unwrap();
        assert_close(name, &got["projections"], &z.projections[0], close);
    }
}

#[test]
fn graphs_are_well_formed() {
    for (config, image) in models() {
        let (_, message, xs) = build(&config, image);
        assert_eq!(message.opset_import[0].version, Some(ONNX_OPSET));
        assert_eq!(message.metadata_props[0].key.as_deref(), Some("mean"));
        let graph = message.graph.unwrap();
        // Every value is made before it is used, once; every weight is used.
        let mut known: BTreeSet<&str> =
            graph.initializer.iter().map(|t| t.name.as_deref().unwrap()).collect();
        assert_eq!(known.len(), graph.initializer.len());
        let weights = known.clone();
        known.insert("images");
        let mut used = BTreeSet::new();
        for node in &graph.node {
            for input in &node.input {
                assert!(known.contains(input.as_str()), "{input} is not made before {:?}", node.name);
                used.insert(input.as_str());
            }
            assert!(node.output.iter().all(|output| known.insert(output)), "{:?} twice", node.name);
        }
        assert!(weights.is_subset(&used), "{:?}", weights.difference(&used));
        assert!(graph.output.iter().all(|output| known.contains(output.name.as_deref().unwrap())));
        for tensor in &graph.initializer {
            let size: i64 = tensor.dims.iter().product();
            let bytes = if tensor.data_type == Some(FLOAT) { 4 } else { 8 };
            assert_eq!(tensor.raw_data.as_ref().unwrap().len() as i64, size * bytes, "{:?}", tensor.name);
        }
        let dims = |value: &super::proto::ValueInfo| {
            let shape = value.kind.clone().unwrap().tensor.unwrap().shape.unwrap();
            shape.dim.into_iter().map(|d| d.value).collect::<Vec<_>>()
        };
        let fixed = matches!(config.encoder, EncoderConfig::Vit(_) | EncoderConfig::Patches(_));
        let size = |n: usize| fixed.then_some(n as i64);
        let channels = Some(xs.dims()[1] as i64);
        assert_eq!(dims(&graph.input[0]), [None, channels, size(image.0), size(image.1)]);
        assert_eq!(dims(&graph.output[1]), [None, config.projector.last().map(|&d| d as i64)]);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let (config, _) = models().swap_remove(4);
    let params = Params::new(DType::F32, &Device::Cpu, Key::new(3));
    JointEmbedding::new(&config, &params).unwrap();
    let own = |(name, t): (String, Tensor)| Some((name.strip_prefix("encoder.")?.to_owned(), t));
    let mut tensors: BTreeMap<String, Tensor> = params.tensors().into_iter().filter_map(own).collect();
    let none = BTreeMap::new();
    let message = |r: crate::Result<Vec<u8>>| r.unwrap_err().to_string();
    assert!(message(export_onnx(&config, &tensors, (10, 12), false, &none)).contains("whole patches"));
    assert!(message(export_onnx(&config, &tensors, (12, 12), true, &none)).contains("projector.0.weight"));
    let bare = ModelConfig { projector: vec![], ..config.clone() };
    assert!(message(export_onnx(&bare, &tensors, (12, 12), true, &none)).contains("no projector"));
    tensors.remove("norm.bias");
    assert!(message(export_onnx(&config, &tensors, (12, 12), false, &none)).contains("`norm.bias`"));
}

/// Runs a graph by plain operations; shapes and indices are i64 tensors.
fn run(message: &Model, images: &Tensor) -> BTreeMap<String, Tensor> {
    let graph = message.graph.as_ref().unwrap();
    let mut values: BTreeMap<String, Tensor> =
        graph.initializer.iter().map(|t| (t.name.clone().unwrap(), constant(t))).collect();
    values.insert("images".to_owned(), images.clone());
    for node in &graph.node {
        let inputs: Vec<&Tensor> = node.input.iter().map(|name| &values[name]).collect();
        let out = step(node, &inputs).unwrap_or_else(|e| panic!("{:?}: {e}", node.name));
        values.insert(node.output[0].clone(), out);
    }
    values
}

fn constant(t: &Initializer) -> Tensor {
    let dims: Vec<usize> = t.dims.iter().map(|&d| d as usize).collect();
    let dtype = if t.data_type == Some(FLOAT) { DType::F32 } else { DType::I64 };
    Tensor::from_raw_buffer(t.raw_data.as_ref().unwrap(), dtype, &dims, &Device::Cpu).unwrap()
}

fn step(node: &Node, x: &[&Tensor]) -> candle_core::Result<Tensor> {
    let find = |name: &str| node.attribute.iter().find(|a| a.name.as_deref() == Some(name));
    let int = |name: &str| find(name).and_then(|a: &Attribute| a.i).unwrap();
    let ints = |name: &str| find(name).unwrap().ints.iter().map(|&i| i as usize).collect::<Vec<_>>();
    let eps = || f64::from(find("epsilon").and_then(|a| a.f).unwrap());
    let list = |t: &Tensor| t.flatten_all()?.to_vec1::<i64>();
    match node.op_type.as_deref().unwrap() {
        "Identity" => Ok(x[0].clone()),
        "Add" => x[0].broadcast_add(x[1]),
        "Mul" => x[0].broadcast_mul(x[1]),
        "MatMul" => x[0].contiguous()?.broadcast_matmul(&x[1].contiguous()?),
        "Relu" => x[0].relu(),
        "Erf" => x[0].erf(),
        "Transpose" => x[0].permute(ints("perm")),
        "Softmax" => {
            let e = x[0].broadcast_sub(&x[0].max_keepdim(D::Minus1)?)?.exp()?;
            e.broadcast_div(&e.sum_keepdim(D::Minus1)?)
        }
        "Conv" => {
            let (stride, pads, groups) = (ints("strides"), ints("pads"), int("group") as usize);
            assert!(stride[0] == stride[1] && pads.iter().all(|p| *p == pads[0]));
            let ys = x[0].conv2d(x[1], pads[0], stride[0], 1, groups)?;
            x.get(2).map_or(Ok(ys.clone()), |b| ys.broadcast_add(&b.reshape((1, (), 1, 1))?))
        }
        "BatchNormalization" => {
            let mut shape = vec![1; x[0].rank()];
            shape[1] = x[1].elem_count();
            let on = |t: &Tensor| t.reshape(shape.clone());
            let ys = x[0].broadcast_sub(&on(x[3])?)?.broadcast_div(&on(&(x[4] + eps())?.sqrt()?)?)?;
            ys.broadcast_mul(&on(x[1])?)?.broadcast_add(&on(x[2])?)
        }
        "LayerNormalization" => {
            assert_eq!(int("axis"), -1);
            let ys = x[0].broadcast_sub(&x[0].mean_keepdim(D::Minus1)?)?;
            let var = (ys.sqr()?.mean_keepdim(D::Minus1)? + eps())?.sqrt()?;
            ys.broadcast_div(&var)?.broadcast_mul(x[1])?.broadcast_add(x[2])
        }
        "MaxPool" => {
            let (kernel, stride, pad) = (ints("kernel_shape")[0], ints("strides")[0], ints("pads")[0]);
            // After a ReLU, a border of zeros is as good as one of minus infinity.
            let xs = x[0].pad_with_zeros(2, pad, pad)?.pad_with_zeros(3, pad, pad)?;
            xs.max_pool2d_with_stride(kernel, stride)
        }
        "GlobalAveragePool" => x[0].mean_keepdim(3)?.mean_keepdim(2),
        "GlobalMaxPool" => x[0].max_keepdim(3)?.max_keepdim(2),
        "Flatten" => x[0].flatten_from(int("axis") as usize),
        "ReduceMean" => {
            assert_eq!(int("keepdims"), 0);
            x[0].mean(ints("axes"))
        }
        "Reshape" => {
            let known: Vec<i64> = list(x[1])?;
            let mut dims: Vec<usize> = known
                .iter()
                .enumerate()
                .map(|(i, &d)| if d == 0 { x[0].dims()[i] } else { d.max(1) as usize })
                .collect();
            if let Some(free) = known.iter().position(|&d| d == -1) {
                dims[free] = x[0].elem_count() / dims.iter().product::<usize>();
            }
            x[0].contiguous()?.reshape(dims)
        }
        "Shape" => {
            let dims: Vec<i64> = x[0].dims().iter().map(|&d| d as i64).collect();
            Tensor::new(&dims[int("start") as usize..int("end") as usize], &Device::Cpu)
        }
        "Concat" => Tensor::cat(x, int("axis") as usize),
        "Expand" => x[0].broadcast_as(list(x[1])?.iter().map(|&d| d as usize).collect::<Vec<_>>()),
        "Gather" => {
            let (axis, index) = (int("axis") as usize, list(x[1])?[0] as usize);
            x[0].narrow(axis, index, 1)?.squeeze(axis)
        }
        "Slice" => {
            let (start, end, axis) = (list(x[1])?[0] as usize, list(x[2])?[0], list(x[3])?[0] as usize);
            assert_eq!(end, i64::MAX);
            x[0].narrow(axis, start, x[0].dim(axis)? - start)
        }
        other => panic!("{other} is no operator that graphs may hold"),
    }
}
