//! Encoders by name: numbers of parameters, gradients, other sizes of images, and what is random in training.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use infomax_core::{Encoder, Key, Learner as _, Params, Pass, View};
use infomax_models::{
    ConvNextConfig, EncoderConfig, JointEmbedding, ModelConfig, Precision, ResNet9, ResNet9Config,
    ResNetConfig, Vit, VitConfig, VitPool,
};
use infomax_testing::{GradCheck, Tolerance, assert_all_grads, assert_close, gradcheck, spread};

fn params(dtype: DType) -> Params {
    Params::new(dtype, &Device::Cpu, Key::new(0))
}

fn vit() -> VitConfig {
    VitConfig { image: 12, patch: 4, width: 8, depth: 2, heads: 2, ..VitConfig::default() }
}

fn convnext() -> ConvNextConfig {
    ConvNextConfig { blocks: vec![2, 1], widths: vec![6, 10], ..ConvNextConfig::default() }
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn presets_have_the_published_numbers_of_parameters() {
    // Totals of torchvision 0.29 (`weights.meta["num_params"]`) and timm 1.0 (its table of results, in units of
    // 10,000, in comments), with a classifier of 1000 classes: features x 1000 + 1000.
    for (name, features, total) in [
        ("resnet18", 512, 11_689_512),
        ("resnet34", 512, 21_797_672),
        ("resnet50", 2048, 25_557_032),
        ("resnet101", 2048, 44_549_160),
        ("wide-resnet50-2", 2048, 68_883_240),
        ("vit-tiny", 192, 5_717_416),       // 5.72
        ("vit-small", 384, 22_050_664),     // 22.05
        ("convnext-atto", 320, 3_695_520),  // 3.70
        ("convnext-femto", 384, 5_217_784), // 5.22
        ("convnext-pico", 512, 9_045_672),  // 9.05
        ("convnext-nano", 640, 15_593_560), // 15.59
        ("convnext-tiny", 768, 28_589_128),
    ] {
        let params = params(DType::F32);
        let config = EncoderConfig::named(name, 224).unwrap();
        let encoder = config.build(Precision::F32, params.root()).unwrap();
        assert_eq!(encoder.feature_dim(), features, "{name}");
        assert_eq!(params.count() + features * 1000 + 1000, total, "{name}");
    }
    // Page's network has 6,573,120 with its classifier of 10 classes, which has no bias.
    let params = params(DType::F32);
    ResNet9::new(&ResNet9Config::default(), params.root()).unwrap();
    assert_eq!(params.count() + 512 * 10, 6_573_120);
}

#[test]
fn every_name_is_a_network_for_small_and_large_images() {
    for &name in EncoderConfig::NAMES {
        for image in [32, 96, 224] {
            let config = EncoderConfig::named(name, image).unwrap();
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<EncoderConfig>(&text).unwrap(), config, "{name}");
        }
    }
    let message = EncoderConfig::named("resnet19", 32).unwrap_err().to_string();
    assert!(message.contains("resnet19") && message.contains("convnext-atto"), "{message}");
    assert!(EncoderConfig::named("vit-small/x", 32).is_err());
    assert!(EncoderConfig::named("vit-small/14", 32).unwrap_err().to_string().contains("do not divide"));
    let basic = ResNetConfig { inner_multiplier: 2, ..ResNetConfig::default() };
    let error = EncoderConfig::ResNet(basic).build(Precision::F32, params(DType::F32).root()).unwrap_err();
    assert!(error.to_string().contains("inner_multiplier = 2"), "{error}");
    for (config, part) in [
        (EncoderConfig::Vit(VitConfig { drop_path: 1.0, ..vit() }), "drop_path"),
        (EncoderConfig::Vit(VitConfig { dropout: -0.1, ..vit() }), "dropout"),
        (EncoderConfig::ConvNext(ConvNextConfig { drop_path: f64::NAN, ..convnext() }), "drop_path"),
        (EncoderConfig::ResNet9(ResNet9Config { width: 0, ..ResNet9Config::default() }), "width"),
    ] {
        let message = config.build(Precision::F32, params(DType::F32).root()).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn every_parameter_gets_a_gradient() {
    let wide = ResNetConfig { depth: 101, blocks: vec![1, 2], width: 2, ..ResNetConfig::default() };
    for encoder in [
        EncoderConfig::ResNet(ResNetConfig { inner_multiplier: 2, ..wide }),
        EncoderConfig::ResNet9(ResNet9Config { width: 2, ..ResNet9Config::default() }),
        EncoderConfig::Vit(VitConfig { registers: 3, ..vit() }),
        EncoderConfig::Vit(VitConfig { registers: 2, pool: VitPool::Mean, ..vit() }),
        EncoderConfig::Vit(VitConfig { drop_path: 0.5, ..vit() }),
        EncoderConfig::Vit(VitConfig { drop_path: 0.3, dropout: 0.2, ..vit() }),
        EncoderConfig::ConvNext(ConvNextConfig { drop_path: 0.5, ..convnext() }),
    ] {
        // Images of another size than the vision transformers are built for.
        for side in [12, 16] {
            let params = params(DType::F64);
            let net = encoder.build(Precision::F32, params.root()).unwrap();
            let xs = spread(&[5, 3, side, side], 1, 1.0);
            let ys = net.forward(&xs, &Pass::train(Key::new(2))).unwrap();
            let loss = (&ys * spread(ys.dims(), 5, 1.0)).unwrap().sum_all().unwrap();
            let vars: Vec<_> = params.trainable().into_iter().map(|(name, p)| (name, p.var)).collect();
            assert_all_grads(&vars, &loss, &[]).unwrap();
        }
    }
}

#[test]
fn parameters_have_a_gradient_where_every_sample_is_dropped() {
    for encoder in [
        EncoderConfig::Vit(VitConfig { drop_path: 0.999, ..vit() }),
        EncoderConfig::Vit(VitConfig { drop_path: 0.999, dropout: 0.1, ..vit() }),
        EncoderConfig::ConvNext(ConvNextConfig { drop_path: 0.999, ..convnext() }),
    ] {
        let params = params(DType::F32);
        let net = encoder.build(Precision::F32, params.root()).unwrap();
        let xs = spread(&[2, 3, 12, 12], 1, 1.0).to_dtype(DType::F32).unwrap();
        let loss = net.forward(&xs, &Pass::train(Key::new(2))).unwrap().sqr().unwrap().sum_all().unwrap();
        let grads = infomax_kernels::backward(&loss).unwrap();
        let missing = params.trainable().into_iter().filter(|(_, p)| grads.get(&p.var).is_none());
        let missing: Vec<_> = missing.map(|(name, _)| name).collect();
        assert!(missing.is_empty(), "{encoder:?}: {missing:?}");
    }
}

#[test]
fn gradients_through_positions_drops_and_residual_sums_are_right() {
    for encoder in [
        EncoderConfig::Vit(VitConfig { registers: 1, ..vit() }),
        EncoderConfig::Vit(VitConfig { drop_path: 0.4, dropout: 0.3, pool: VitPool::Mean, ..vit() }),
        EncoderConfig::Vit(VitConfig { drop_path: 0.4, ..vit() }),
        EncoderConfig::ConvNext(ConvNextConfig { drop_path: 0.5, ..convnext() }),
        EncoderConfig::ResNet9(ResNet9Config { width: 2, ..ResNet9Config::default() }),
    ] {
        let params = params(DType::F64);
        let net = encoder.build(Precision::F32, params.root()).unwrap();
        let settings = GradCheck { max_elements: 16, rel: 1e-5, ..GradCheck::default() };
        gradcheck(&[spread(&[3, 3, 8, 16], 3, 1.0)], settings, |xs| {
            Ok(net.forward(&xs[0], &Pass::train(Key::new(4))).unwrap())
        })
        .unwrap();
    }
}

#[test]
fn a_vision_transformer_takes_images_of_whole_patches() {
    let params = params(DType::F64);
    let net = Vit::new(&vit(), params.root()).unwrap();
    let eval = Pass::eval();
    for dims in [[2, 3, 4, 4], [2, 3, 16, 8], [1, 3, 24, 24]] {
        let ys = net.tokens(&spread(&dims, 1, 1.0), &eval).unwrap();
        assert_eq!(ys.dims(), [dims[0], 1 + dims[2] * dims[3] / 16, 8]);
    }
    for dims in [[2, 3, 13, 12], [2, 3, 12, 2], [2, 1, 12, 12], [0, 3, 12, 12]] {
        let error = net.tokens(&Tensor::zeros(&dims, DType::F64, &Device::Cpu).unwrap(), &eval).unwrap_err();
        assert!(error.to_string().contains("images"), "{error}");
    }
    // Equal positions are equal at every size: an image of equal patches gives equal tokens.
    let flat = params.get("pos_embed").unwrap().var;
    flat.set(&flat.ones_like().unwrap()).unwrap();
    let mean = |side: usize| {
        let xs = Tensor::ones((1, 3, side, side), DType::F64, &Device::Cpu).unwrap();
        values(&net.tokens(&xs, &eval).unwrap().narrow(1, 1, 1).unwrap())
    };
    let (own, other) = (mean(12), mean(12 + 4));
    let near = |a: &[f64], b: &[f64], least: f64| a.iter().zip(b).all(|(a, b)| (a - b).abs() < least);
    // Attention weighs the class token among 10 and 17 tokens, which is all that differs.
    assert!(near(&own, &other, 0.05), "{own:?} {other:?}");
}

#[test]
fn registers_attend_and_are_no_features() {
    let xs = spread(&[2, 3, 12, 12], 1, 1.0);
    for pool in [VitPool::Token, VitPool::Mean] {
        let params = params(DType::F64);
        let cfg = VitConfig { registers: 3, pool, ..vit() };
        let net = Vit::new(&cfg, params.root()).unwrap();
        let eval = Pass::eval();
        let tokens = net.tokens(&xs, &eval).unwrap();
        assert_eq!(tokens.dims(), [2, 1 + 3 + 9, 8]);
        let features = values(&net.forward(&xs, &eval).unwrap());
        let expected = match pool {
            VitPool::Token => tokens.narrow(1, 0, 1).unwrap().squeeze(1).unwrap(),
            VitPool::Mean => tokens.narrow(1, 4, 9).unwrap().mean(1).unwrap(),
        };
        assert_eq!(features, values(&expected));
        let registers = params.get("reg_token").unwrap().var;
        registers.set(&spread(&[1, 3, 8], 9, 1.0)).unwrap();
        assert_ne!(features, values(&net.forward(&xs, &eval).unwrap()), "{pool:?}");
    }
}

#[test]
fn drops_follow_the_key_and_end_with_training() {
    let xs = spread(&[6, 3, 12, 12], 1, 1.0);
    for (with, without) in [
        (EncoderConfig::Vit(VitConfig { drop_path: 0.5, ..vit() }), EncoderConfig::Vit(vit())),
        (EncoderConfig::Vit(VitConfig { dropout: 0.3, ..vit() }), EncoderConfig::Vit(vit())),
        (
            EncoderConfig::ConvNext(ConvNextConfig { drop_path: 0.5, ..convnext() }),
            EncoderConfig::ConvNext(convnext()),
        ),
    ] {
        assert_eq!(with.without_drops(), without);
        let own = params(DType::F64);
        let net = with.build(Precision::F32, own.root()).unwrap();
        if let Some(scale) = own.get("features.3.0.layer_scale") {
            // At its start the branch of a ConvNeXt is too small to see.
            scale.var.set(&scale.var.ones_like().unwrap()).unwrap();
        }
        let plain = params(DType::F64);
        let reference = without.build(Precision::F32, plain.root()).unwrap();
        plain.load(&own.tensors()).unwrap();
        let train = |seed| values(&net.forward(&xs, &Pass::train(Key::new(seed))).unwrap());
        assert_eq!(train(1), train(1), "{with:?}");
        assert_ne!(train(1), train(2), "{with:?}");
        let eval = |net: &dyn Encoder| values(&net.forward(&xs, &Pass::eval()).unwrap());
        assert_eq!(eval(&*net), eval(&*reference), "{with:?}");
        assert_ne!(train(1), eval(&*net), "{with:?}");
    }
}

#[test]
fn the_composed_layers_of_dropout_are_the_fused_ones() {
    // A rate that is too small to drop anything leaves the composed path alone.
    let params = params(DType::F64);
    let rare = Vit::new(&VitConfig { dropout: 1e-11, ..vit() }, params.root().pp("a")).unwrap();
    let fused = Vit::new(&vit(), params.root().pp("b")).unwrap();
    for (name, param) in params.all() {
        if let Some(rest) = name.strip_prefix("a.") {
            params.get(&format!("b.{rest}")).unwrap().var.set(param.var.as_tensor()).unwrap();
        }
    }
    let xs = spread(&[3, 3, 12, 12], 1, 1.0);
    let run = |net: &Vit| net.forward(&xs, &Pass::train(Key::new(0))).unwrap();
    assert_close("composed", &run(&rare), &run(&fused), Tolerance { rel: 1e-8, abs: 1e-9 });
}

#[test]
fn a_teacher_drops_nothing() {
    let encoder = EncoderConfig::Vit(VitConfig { drop_path: 0.4, dropout: 0.2, ..vit() });
    let config = ModelConfig {
        encoder,
        projector: Vec::new(),
        predictor: vec![8],
        teacher_momentum: Some(0.9),
        ..ModelConfig::default()
    };
    let model = JointEmbedding::new(&config, &params(DType::F64)).unwrap();
    let views = [1, 2].map(|seed| View::global(spread(&[6, 3, 12, 12], seed, 1.0)));
    let embed = |seed| model.embed(&views, &Pass::train(Key::new(seed))).unwrap();
    let (a, b) = (embed(0), embed(1));
    let all = |z: &infomax_core::Views| values(&z.cat().unwrap());
    assert_eq!(all(a.targets.as_ref().unwrap()), all(b.targets.as_ref().unwrap()));
    assert_ne!(all(&a.projections), all(&b.projections));
}

/// The network in evaluation, by plain operations of Candle.
fn resnet9_by_hand(params: &Params, xs: &Tensor) -> Tensor {
    let get = |name: &str| params.get(name).unwrap().var.as_tensor().clone();
    let layer = |name: &str, xs: &Tensor| {
        let column = |part: &str| {
            let t = get(&format!("{name}.bn.{part}"));
            let c = t.dims()[0];
            t.reshape((1, c, 1, 1)).unwrap()
        };
        let ys = xs.conv2d(&get(&format!("{name}.conv.weight")), 1, 1, 1, 1).unwrap();
        let ys = ys.broadcast_sub(&column("running_mean")).unwrap();
        let ys = ys.broadcast_div(&(column("running_var") + 1e-5).unwrap().sqrt().unwrap()).unwrap();
        let ys = ys.broadcast_mul(&column("weight")).unwrap().broadcast_add(&column("bias")).unwrap();
        ys.relu().unwrap()
    };
    let mut ys = layer("prep", xs);
    for (i, residual) in [(1, true), (2, false), (3, true)] {
        ys = layer(&format!("layer{i}"), &ys).max_pool2d(2).unwrap();
        if residual {
            let branch = layer(&format!("layer{i}.residual.0"), &ys);
            ys = (&ys + layer(&format!("layer{i}.residual.1"), &branch)).unwrap();
        }
    }
    ys.flatten_from(2).unwrap().max(2).unwrap()
}

#[test]
fn resnet9_is_what_its_documentation_says() {
    let params = params(DType::F64);
    let net = ResNet9::new(&ResNet9Config { width: 4, ..ResNet9Config::default() }, params.root()).unwrap();
    let xs = spread(&[5, 3, 17, 24], 1, 1.0);
    // Training moves the running statistics away from 0 and 1.
    net.forward(&xs, &Pass::train(Key::new(0))).unwrap();
    for batch in [2, 5] {
        // Two images run layer by layer, five in blocks.
        let xs = xs.narrow(0, 0, batch).unwrap();
        let ys = net.forward(&xs, &Pass::eval()).unwrap();
        assert_eq!(ys.dims(), [batch, 32]);
        let tolerance = Tolerance { rel: 1e-10, abs: 1e-12 };
        assert_close("resnet9", &ys, &resnet9_by_hand(&params, &xs), tolerance);
    }
    assert!(net.forward(&spread(&[2, 3, 7, 8], 1, 1.0), &Pass::eval()).is_err());
    assert!(net.forward(&spread(&[2, 1, 8, 8], 1, 1.0), &Pass::eval()).is_err());
}

#[test]
fn resnet9_trains_in_bf16_near_f32() {
    let run = |precision| {
        let params = params(DType::F32);
        let cfg = ResNet9Config { width: 8, ..ResNet9Config::default() };
        let net = ResNet9::with_precision(&cfg, precision, params.root()).unwrap();
        let xs = spread(&[9, 3, 16, 16], 1, 1.0).to_dtype(DType::F32).unwrap();
        (
            values(&net.forward(&xs, &Pass::train(Key::new(0))).unwrap()),
            values(&net.forward(&xs, &Pass::eval()).unwrap()),
        )
    };
    let ((wide, _), (half, _)) = (run(Precision::F32), run(Precision::Bf16));
    let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let far = norm(&wide.iter().zip(&half).map(|(a, b)| a - b).collect::<Vec<_>>()) / norm(&wide);
    assert!(far > 0.0 && far < 0.03, "{far}");
    let f64s = ResNet9::with_precision(&ResNet9Config::default(), Precision::Bf16, params(DType::F64).root());
    assert!(f64s.unwrap_err().to_string().contains("bf16"));
}
