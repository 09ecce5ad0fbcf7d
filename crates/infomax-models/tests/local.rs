//! Local embeddings: every encoder's map pools to its features, and places follow the cut of each view.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use infomax_core::{Cut, Key, Learner as _, Params, Pass, View};
use infomax_models::{
    ConvNextConfig, EncoderConfig, JointEmbedding, ModelConfig, Precision, ResNet9Config, ResNetConfig,
    VitConfig, VitPool,
};
use infomax_testing::{assert_all_grads, spread};
use std::sync::Arc;

fn encoders() -> Vec<EncoderConfig> {
    let vit = |pool| {
        let base = VitConfig {
            image: 16,
            patch: 4,
            width: 8,
            depth: 1,
            heads: 2,
            registers: 1,
            ..Default::default()
        };
        EncoderConfig::Vit(VitConfig { pool, ..base })
    };
    vec![
        EncoderConfig::ResNet(ResNetConfig { blocks: vec![1, 1], width: 4, ..Default::default() }),
        EncoderConfig::ResNet9(ResNet9Config { width: 4, ..Default::default() }),
        EncoderConfig::ConvNext(ConvNextConfig {
            blocks: vec![1, 1],
            widths: vec![4, 8],
            patch: 2,
            ..Default::default()
        }),
        vit(VitPool::Token),
        vit(VitPool::Mean),
    ]
}

#[test]
fn a_mapped_pass_gives_the_same_features_and_a_map_of_the_grid() {
    for config in encoders() {
        let params = Params::new(DType::F32, &Device::Cpu, Key::new(0));
        let encoder = config.build(Precision::F32, params.root()).unwrap();
        for batch in [2, 5] {
            let xs = spread(&[batch, 3, 16, 24], 1, 1.0).to_dtype(DType::F32).unwrap();
            let features = encoder.forward(&xs, &Pass::eval()).unwrap();
            let mapped = encoder.forward_mapped(&xs, &Pass::eval()).unwrap().unwrap();
            let off = (&features - &mapped.features).unwrap().abs().unwrap().max_all().unwrap();
            assert!(off.to_scalar::<f32>().unwrap() < 1e-5, "{config:?}");
            let (rows, columns) = mapped.grid;
            assert_eq!(mapped.map.dims(), [batch, rows * columns, encoder.feature_dim()], "{config:?}");
            assert_eq!(3 * rows, 2 * columns, "{config:?}: {:?}", mapped.grid);
        }
    }
}

/// A network whose receptive field is small sees a bright corner at the place of that corner.
#[test]
fn the_map_is_row_by_row() {
    let params = Params::new(DType::F32, &Device::Cpu, Key::new(0));
    let config = EncoderConfig::ResNet(ResNetConfig { blocks: vec![1], width: 4, ..Default::default() });
    let encoder = config.build(Precision::F32, params.root()).unwrap();
    let mut pixels = vec![0f32; 3 * 16 * 16];
    // The upper right corner.
    pixels[15] = 50.0;
    let xs = Tensor::from_vec(pixels, (1, 3, 16, 16), &Device::Cpu).unwrap();
    let map = encoder.forward_mapped(&xs, &Pass::eval()).unwrap().unwrap().map;
    let size: Vec<f32> = map.sqr().unwrap().sum(2).unwrap().squeeze(0).unwrap().to_vec1().unwrap();
    let most = (0..size.len()).max_by(|a, b| size[*a].total_cmp(&size[*b])).unwrap();
    assert!(most / 16 < 4 && most % 16 > 11, "place {most} of {}", size.len());
}

#[test]
fn local_embeddings_have_gradients_and_places() {
    let encoder = EncoderConfig::ResNet(ResNetConfig { blocks: vec![1, 1], width: 4, ..Default::default() });
    let config = ModelConfig {
        encoder,
        projector: vec![12, 6],
        local_projector: vec![8, 5],
        ..ModelConfig::default()
    };
    let params = Params::new(DType::F32, &Device::Cpu, Key::new(0));
    let model = JointEmbedding::new(&config, &params).unwrap();
    let cut = |flip| Cut { image: (40, 20), x: 10, y: 4, width: 20, height: 10, flip, vertical_flip: false };
    let views = [1, 2].map(|seed| View {
        cuts: Some(Arc::from(vec![cut(false), cut(true), cut(false), cut(false)])),
        ..View::global(spread(&[4, 3, 8, 8], seed, 1.0).to_dtype(DType::F32).unwrap())
    });
    let z = model.embed(&views, &Pass::train(Key::new(0))).unwrap();
    let local = z.projections.local().unwrap();
    assert_eq!((local.len(), local[0].values().dims()), (2, [4, 16, 5].as_slice()));
    let places = local[0].places().unwrap().to_vec3::<f32>().unwrap();
    // The first of 4 x 4 patches: 1/8 of the box of 20 x 10 pixels, in parts of the longer side of 40.
    assert!((places[0][0][0] - 12.5 / 40.0).abs() < 1e-6 && (places[0][0][1] - 5.25 / 40.0).abs() < 1e-6);
    // Mirrored, it is the last of its row.
    assert!((places[1][0][0] - 27.5 / 40.0).abs() < 1e-6);
    assert_eq!(places[0][5], places[1][6]);
    let vars: Vec<_> = params.trainable().into_iter().map(|(name, p)| (name, p.var)).collect();
    assert!(vars.iter().any(|(name, _)| name.starts_with("local_projector.")));
    let read =
        |t: &Tensor| (t * spread(t.dims(), 3, 1.0).to_dtype(DType::F32).unwrap()).unwrap().sum_all().unwrap();
    let total = (read(&z.projections[0]) + read(local[1].values())).unwrap();
    assert_all_grads(&vars, &total, &[]).unwrap();
    // Without cuts there are no places, and nothing else changes.
    let plain: Vec<View> = views.iter().map(|view| View { cuts: None, ..view.clone() }).collect();
    let z = model.embed(&plain, &Pass::train(Key::new(0))).unwrap();
    assert!(z.projections.local().unwrap()[0].places().is_none());
}

#[test]
fn a_local_projector_out_of_range_is_named() {
    let config = ModelConfig { local_projector: vec![8, 0], ..ModelConfig::default() };
    let params = Params::new(DType::F32, &Device::Cpu, Key::new(0));
    let message = JointEmbedding::new(&config, &params).unwrap_err().to_string();
    assert!(message.contains("local_projector") && message.contains("[8, 0]"), "{message}");
}
