//! Encoders and heads for self-supervised learning: layers, ResNets of any width, vision transformers, ConvNeXts, projectors, and the
//! joint-embedding model that the trainer drives.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use infomax_core::{Key, Learner, Params, Pass, View};
//! use infomax_models::{EncoderConfig, JointEmbedding, ModelConfig, ResNetConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let encoder = ResNetConfig { blocks: vec![1, 1], width: 4, ..ResNetConfig::default() };
//! let encoder = EncoderConfig::ResNet(encoder);
//! let cfg = ModelConfig { encoder, projector: vec![16, 8], ..ModelConfig::default() };
//! let params = Params::new(DType::F32, &Device::Cpu, Key::new(0));
//! let model = JointEmbedding::new(&cfg, &params)?;
//! let view = View::global(Tensor::ones((2, 3, 8, 8), DType::F32, &Device::Cpu)?);
//! let z = model.embed(&[view.clone(), view], &Pass::train(Key::new(1)))?;
//! assert_eq!(z.projections.cat()?.dims(), [4, 8]);
//! assert_eq!(model.feature_dim(), 8);
//! # Ok(())
//! # }
//! ```

mod convnext;
mod error;
mod joint;
mod layers;
mod load;
mod mlp;
mod resnet;
mod scope;
mod transformer;
mod vit;

pub use convnext::{ConvNext, ConvNextConfig};
pub use error::{Error, Result};
pub use joint::{EncoderConfig, JointEmbedding, ModelConfig};
pub use layers::{BatchNorm, Conv2d, Linear};
pub use load::load_encoder;
pub use mlp::{Predictor, Projector, ProjectorConfig};
pub use resnet::{Precision, ResNet, ResNetConfig, Stem};
pub use scope::Scope;
pub use vit::{Vit, VitConfig, VitPool};
pub use {candle_core, infomax_core};

/// The examples of the README run as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
