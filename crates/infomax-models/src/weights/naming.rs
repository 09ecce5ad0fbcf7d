//! The names that parameters have in other libraries.

use crate::{EncoderConfig, Error, Result};

/// Whose names the parameters of an encoder have.
///
/// The parameters of this crate carry torchvision's names in residual networks and ConvNeXts, and timm's in vision
/// transformers. timm's residual networks have the names of torchvision's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Naming {
    /// Those of this project.
    Own,
    /// Those of `torchvision.models`.
    Torchvision,
    /// Those of `timm.models`.
    Timm,
}

impl Naming {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Own, Self::Torchvision, Self::Timm];

    /// The word for it: `own`, `torchvision`, `timm`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Torchvision => "torchvision",
            Self::Timm => "timm",
        }
    }

    /// The name that a parameter has there, from its name in this crate (without a prefix such as `encoder`).
    /// `None` if that library has no such network, or no such parameter in it.
    pub fn of(self, encoder: &EncoderConfig, own: &str) -> Option<String> {
        match (self, encoder) {
            (Self::Own, _) | (_, EncoderConfig::ResNet(_)) => Some(own.to_owned()),
            (_, EncoderConfig::ResNet9(_) | EncoderConfig::Patches(_)) => None,
            (Self::Timm, EncoderConfig::Vit(_)) | (Self::Torchvision, EncoderConfig::ConvNext(_)) => {
                Some(own.to_owned())
            }
            (Self::Torchvision, EncoderConfig::Vit(_)) => torchvision_vit(own),
            (Self::Timm, EncoderConfig::ConvNext(_)) => timm_convnext(own),
        }
    }
}

impl std::str::FromStr for Naming {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|naming| naming.name() == text);
        found.ok_or_else(|| Error::config("names", text, "must be torchvision, timm or own"))
    }
}

impl std::fmt::Display for Naming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// torchvision's vision transformer, from timm's names.
fn torchvision_vit(own: &str) -> Option<String> {
    Some(match own {
        "cls_token" => "class_token".to_owned(),
        "pos_embed" => "encoder.pos_embedding".to_owned(),
        "reg_token" => return None,
        _ => match own.split_once('.')? {
            ("norm", rest) => format!("encoder.ln.{rest}"),
            ("patch_embed", rest) => format!("conv_proj.{}", rest.strip_prefix("proj.")?),
            ("blocks", rest) => {
                let (number, rest) = rest.split_once('.')?;
                let (part, leaf) = rest.rsplit_once('.')?;
                let part = match part {
                    "norm1" => "ln_1.",
                    "norm2" => "ln_2.",
                    // One fused map, whose parameters end in `_weight` and `_bias`.
                    "attn.qkv" => "self_attention.in_proj_",
                    "attn.proj" => "self_attention.out_proj.",
                    "mlp.fc1" => "mlp.0.",
                    "mlp.fc2" => "mlp.3.",
                    _ => return None,
                };
                format!("encoder.layers.encoder_layer_{number}.{part}{leaf}")
            }
            _ => return None,
        },
    })
}

/// timm's ConvNeXt, from torchvision's names.
fn timm_convnext(own: &str) -> Option<String> {
    if let Some(leaf) = own.strip_prefix("classifier.0.") {
        return Some(format!("head.norm.{leaf}"));
    }
    let (number, rest) = own.strip_prefix("features.")?.split_once('.')?;
    let number: usize = number.parse().ok()?;
    if number == 0 {
        return Some(format!("stem.{rest}"));
    }
    if number.is_multiple_of(2) {
        return Some(format!("stages.{}.downsample.{rest}", number / 2));
    }
    let (block, rest) = rest.split_once('.')?;
    let rest = match rest {
        "layer_scale" => "gamma".to_owned(),
        _ => {
            let (part, leaf) = rest.strip_prefix("block.")?.split_once('.')?;
            let part = match part {
                "0" => "conv_dw",
                "2" => "norm",
                "3" => "mlp.fc1",
                "5" => "mlp.fc2",
                _ => return None,
            };
            format!("{part}.{leaf}")
        }
    };
    Some(format!("stages.{}.blocks.{block}.{rest}", number / 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConvNextConfig, ResNet9Config, VitConfig};

    #[test]
    fn names_are_those_of_the_libraries() {
        let vit = EncoderConfig::Vit(VitConfig::default());
        let convnext = EncoderConfig::ConvNext(ConvNextConfig::default());
        for (naming, encoder, own, there) in [
            (Naming::Torchvision, &vit, "cls_token", "class_token"),
            (Naming::Torchvision, &vit, "patch_embed.proj.bias", "conv_proj.bias"),
            (
                Naming::Torchvision,
                &vit,
                "blocks.11.attn.qkv.weight",
                "encoder.layers.encoder_layer_11.self_attention.in_proj_weight",
            ),
            (Naming::Torchvision, &vit, "blocks.0.mlp.fc2.bias", "encoder.layers.encoder_layer_0.mlp.3.bias"),
            (Naming::Torchvision, &vit, "norm.weight", "encoder.ln.weight"),
            (Naming::Timm, &vit, "blocks.0.mlp.fc2.bias", "blocks.0.mlp.fc2.bias"),
            (Naming::Timm, &convnext, "features.0.1.weight", "stem.1.weight"),
            (Naming::Timm, &convnext, "features.4.0.bias", "stages.2.downsample.0.bias"),
            (Naming::Timm, &convnext, "features.5.3.layer_scale", "stages.2.blocks.3.gamma"),
            (Naming::Timm, &convnext, "features.1.0.block.0.weight", "stages.0.blocks.0.conv_dw.weight"),
            (Naming::Timm, &convnext, "features.7.2.block.5.bias", "stages.3.blocks.2.mlp.fc2.bias"),
            (Naming::Timm, &convnext, "classifier.0.bias", "head.norm.bias"),
        ] {
            assert_eq!(naming.of(encoder, own).as_deref(), Some(there), "{own}");
        }
        assert_eq!(Naming::Torchvision.of(&vit, "reg_token"), None);
        let small = EncoderConfig::ResNet9(ResNet9Config::default());
        assert_eq!(Naming::Timm.of(&small, "prep.conv.weight"), None);
        assert_eq!(Naming::Own.of(&small, "prep.conv.weight").as_deref(), Some("prep.conv.weight"));
        assert_eq!("timm".parse::<Naming>().unwrap(), Naming::Timm);
        assert!("keras".parse::<Naming>().unwrap_err().to_string().contains("torchvision, timm or own"));
    }
}
