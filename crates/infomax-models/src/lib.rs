//! Encoders and heads for self-supervised learning: layers, ResNets of any width, vision transformers, ConvNeXts, projectors, and the
//! joint-embedding model that the trainer drives.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use infomax_core::{Key, Learner, Mode, Params};
//! use infomax_models::{JointEmbedding, ModelConfig, ResNetConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let encoder = ResNetConfig { blocks: vec![1, 1], width: 4, ..ResNetConfig::default() };
//! let cfg = ModelConfig { encoder, projector: vec![16, 8], ..ModelConfig::default() };
//! let params = Params::new(DType::F32, &Device::Cpu, Key::new(0));
//! let model = JointEmbedding::new(&cfg, &params)?;
//! let view = Tensor::ones((2, 3, 8, 8), DType::F32, &Device::Cpu)?;
//! let z = model.embed(&[view.clone(), view], Mode::Train)?;
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
pub use joint::{JointEmbedding, ModelConfig};
pub use layers::{BatchNorm, Conv2d, Linear};
pub use load::load_encoder;
pub use mlp::{Predictor, Projector, ProjectorConfig};
pub use resnet::{Precision, ResNet, ResNetConfig, Stem};
pub use scope::Scope;
pub use vit::{Vit, VitConfig, VitPool};
