//! Encoders and heads for self-supervised learning.
//!
#![doc = include_str!("../README.md")]

mod convnext;
mod drop;
mod error;
mod joint;
mod layers;
mod load;
mod mlp;
#[cfg(feature = "onnx")]
mod onnx;
mod patches;
mod peers;
mod positions;
mod presets;
mod resnet;
mod resnet9;
mod scope;
mod transformer;
mod vit;
mod weights;
mod whiten;

pub use convnext::{ConvNext, ConvNextConfig};
pub use error::{Error, Result};
pub use joint::{EncoderConfig, JointEmbedding, ModelConfig};
pub use layers::{BatchNorm, Conv2d, Linear};
pub use load::load_encoder;
pub use mlp::{Predictor, Projector, ProjectorConfig};
#[cfg(feature = "onnx")]
pub use onnx::{ONNX_OPSET, export_onnx};
pub use patches::{Patches, PatchesConfig, fit_patches};
pub use resnet::{Precision, ResNet, ResNetConfig, Stem};
pub use resnet9::{ResNet9, ResNet9Config};
pub use scope::Scope;
pub use vit::{Vit, VitConfig, VitPool};
pub use weights::{Export, Initialized, Naming, export_encoder, init_encoder, init_student};
pub use whiten::whiten_stem;
pub use {candle_core, infomax_core};

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
