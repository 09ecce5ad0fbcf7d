//! The checkpoints of this project as weights of an encoder alone.

use infomax_core::candle_core::{DType, Device};
use infomax_core::{Encoder as _, Key, Learner as _, Params, Pass};
use infomax_models::{EncoderConfig, JointEmbedding, ModelConfig, ResNet, ResNetConfig, load_encoder};

#[test]
fn an_encoder_takes_the_weights_of_a_whole_model() {
    let small = ResNetConfig { blocks: vec![1, 1], width: 4, ..ResNetConfig::default() };
    let config = ModelConfig {
        encoder: EncoderConfig::ResNet(small.clone()),
        projector: vec![8, 8],
        teacher_momentum: Some(0.9),
        ..ModelConfig::default()
    };
    let params = |seed| Params::new(DType::F32, &Device::Cpu, Key::new(seed));
    let trained = params(1);
    let model = JointEmbedding::new(&config, &trained).unwrap();
    let xs = Key::new(3).normal(0.0, 1.0, (2, 3, 16, 16), DType::F32, &Device::Cpu).unwrap();
    let expected = model.features(&xs).unwrap().to_vec2::<f32>().unwrap();

    // What a checkpoint holds: `encoder.*`, `projector.*`, `teacher.*`.
    let weights = trained.tensors();
    assert!(weights.keys().any(|name| name.starts_with("teacher.encoder.")));
    let alone = params(2);
    let encoder = ResNet::new(&small, alone.root().pp("backbone")).unwrap();
    load_encoder(&alone, "backbone", &weights).unwrap();
    let features = encoder.forward(&xs, &Pass::eval()).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(features, expected);

    // Another width is refused with the names and shapes.
    let wider = params(2);
    ResNet::new(&ResNetConfig { width: 6, ..small }, wider.root().pp("backbone")).unwrap();
    let message = load_encoder(&wider, "backbone", &weights).unwrap_err().to_string();
    assert!(
        message.contains("bn1.weight") && message.contains("[4]") && message.contains("[6]"),
        "{message}"
    );
}
