//! Encoders by name.

use crate::{ConvNextConfig, EncoderConfig, Error, ResNet9Config, ResNetConfig, Result, Stem, VitConfig};

impl EncoderConfig {
    /// The names that [`EncoderConfig::named`] knows.
    pub const NAMES: &'static [&'static str] = &[
        "resnet9",
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet152",
        "resnet50x2",
        "wide-resnet50-2",
        "wide-resnet101-2",
        "vit-tiny",
        "vit-small",
        "vit-base",
        "convnext-atto",
        "convnext-femto",
        "convnext-pico",
        "convnext-nano",
        "convnext-tiny",
    ];

    /// The published network of a name, for images of `image` pixels a side.
    ///
    /// Residual networks have the stem for large images above 64 pixels. A vision transformer has patches of 16
    /// pixels from 128 on, of 8 from 64 on and of 4 below, or those of the name: `vit-small/14`. A ConvNeXt has
    /// patches of 4 pixels from 128 on, of 2 from 64 on and of 1 below.
    ///
    /// ```
    /// use infomax_models::{EncoderConfig, VitConfig};
    /// assert_eq!(EncoderConfig::named("vit-small", 224)?, EncoderConfig::Vit(VitConfig::small(224, 16)));
    /// assert_eq!(EncoderConfig::named("vit-base/14", 224)?, EncoderConfig::Vit(VitConfig::base(224, 14)));
    /// # Ok::<(), infomax_models::Error>(())
    /// ```
    ///
    /// # Errors
    /// A name that is none of [`EncoderConfig::NAMES`], or patches that do not divide the image.
    pub fn named(name: &str, image: usize) -> Result<Self> {
        let stem = if image > 64 { Stem::Imagenet } else { Stem::Cifar };
        let resnet = |depth, width, inner_multiplier| {
            Self::ResNet(ResNetConfig { depth, width, inner_multiplier, stem, ..ResNetConfig::default() })
        };
        let by_size = |large, middle, small| match image {
            128.. => large,
            64.. => middle,
            _ => small,
        };
        let (family, patch) = match name.split_once('/') {
            Some((family, patch)) if family.starts_with("vit-") => match patch.parse::<usize>() {
                Ok(patch) if patch > 0 => (family, patch),
                _ => return Err(unknown(name)),
            },
            _ => (name, by_size(16, 8, 4)),
        };
        let vit = |make: fn(usize, usize) -> VitConfig| {
            if image.is_multiple_of(patch) {
                return Ok(Self::Vit(make(image, patch)));
            }
            let reason = format!("patches of {patch} pixels do not divide images of {image}");
            Err(Error::config("encoder", name, reason))
        };
        let convnext =
            |cfg: ConvNextConfig| Self::ConvNext(ConvNextConfig { patch: by_size(4, 2, 1), ..cfg });
        Ok(match family {
            "resnet9" => Self::ResNet9(ResNet9Config::default()),
            "resnet18" => resnet(18, 64, 1),
            "resnet34" => resnet(34, 64, 1),
            "resnet50" => resnet(50, 64, 1),
            "resnet101" => resnet(101, 64, 1),
            "resnet152" => resnet(152, 64, 1),
            "resnet50x2" => resnet(50, 128, 1),
            "wide-resnet50-2" => resnet(50, 64, 2),
            "wide-resnet101-2" => resnet(101, 64, 2),
            "vit-tiny" => vit(VitConfig::tiny)?,
            "vit-small" => vit(VitConfig::small)?,
            "vit-base" => vit(VitConfig::base)?,
            "convnext-atto" => convnext(ConvNextConfig::atto()),
            "convnext-femto" => convnext(ConvNextConfig::femto()),
            "convnext-pico" => convnext(ConvNextConfig::pico()),
            "convnext-nano" => convnext(ConvNextConfig::nano()),
            "convnext-tiny" => convnext(ConvNextConfig::tiny()),
            _ => return Err(unknown(name)),
        })
    }
}

fn unknown(name: &str) -> Error {
    Error::config("encoder", name, format!("must be one of {}", EncoderConfig::NAMES.join(", ")))
}
