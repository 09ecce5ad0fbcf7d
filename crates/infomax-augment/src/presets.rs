//! Recipes by name, with the parameters of the published code.
//!
//! `solo` is solo-learn's augmentation for the method, `official` the code of the paper's authors. Both
//! resize with a bicubic filter. Their blur is Pillow's, three box filters that approximate a Gaussian of
//! the drawn standard deviation; here it is the Gaussian itself.

use crate::recipe::{default_ratio, default_sigma, default_threshold};
use crate::{Blur, ColorJitter, Crop, Error, Filter, Recipe, Result, Solarize, ViewConfig};

/// Mean and standard deviation of CIFAR-10.
const CIFAR10: ([f32; 3], [f32; 3]) = ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]);
/// Mean and standard deviation of ImageNet.
const IMAGENET: ([f32; 3], [f32; 3]) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// Brightness, contrast, saturation and hue of the two strengths in use.
const MODERATE: [f64; 4] = [0.4, 0.4, 0.2, 0.1];
const STRONG: [f64; 4] = [0.8, 0.8, 0.8, 0.2];

const NAMES: [&str; 16] = [
    "vicreg-cifar",
    "vicreg-imagenet",
    "vicreg-imagenet-symmetric",
    "simclr-cifar",
    "simclr-imagenet",
    "byol-cifar",
    "byol-imagenet",
    "barlow-twins-cifar",
    "barlow-twins-imagenet",
    "w-mse-cifar",
    "swav-multicrop-cifar",
    "multicrop-imagenet",
    "vicregl-imagenet",
    "lejepa-imagenet",
    "vicreg-shapes",
    "none",
];

impl Recipe {
    /// The names that [`Recipe::preset`] knows.
    pub fn preset_names() -> &'static [&'static str] {
        &NAMES
    }

    /// A recipe by name. [`Recipe::with_size`] and [`Recipe::with_normalisation`] adapt it.
    ///
    /// All flip with probability 0.5 and turn grey with probability 0.2; `b/c/s/h` are the strengths of
    /// the colour jitter (p 0.8), the standard deviation of the blur is uniform on 0.1..2 pixels, and
    /// solarize inverts from 128 on.
    ///
    /// | name | source | size, area | jitter | blur p | solarize p |
    /// |---|---|---|---|---|---|
    /// | `vicreg-cifar` | solo | 32, 0.2..1 | .4/.4/.2/.1 | - | 0.1 |
    /// | `vicreg-imagenet` | official | 224, 0.08..1 | .4/.4/.2/.1 | 1, 0.1 | 0, 0.2 |
    /// | `vicreg-imagenet-symmetric` | solo | 224, 0.2..1 | .4/.4/.2/.1 | 0.5 | 0.1 |
    /// | `simclr-cifar`, `simclr-imagenet` | solo | 32, 224, 0.08..1 | .8/.8/.8/.2 | 0.5 | - |
    /// | `byol-cifar`, `barlow-twins-cifar` | solo | 32, 0.08..1 | .4/.4/.2/.1 | - | 0, 0.2 |
    /// | `byol-imagenet`, `barlow-twins-imagenet` | solo | 224, 0.08..1 | .4/.4/.2/.1 | 1, 0.1 | 0, 0.2 |
    /// | `w-mse-cifar` | solo | 32, 0.2..1 | .8/.8/.8/.2 | - | - |
    /// | `swav-multicrop-cifar` | solo | 2 x 32, 0.2..1; 6 x 18, 0.08..0.5 | .6/.6/.6/.2; .8/.8/.8/.2 | -; 0.1 | 0, 0.2; 0.1 |
    /// | `multicrop-imagenet` | solo | 2 x 224, 6 x 96, 0.08..1 | .8/.8/.8/.2 | 0.5; - | - |
    /// | `vicregl-imagenet` | lightly | 2 x 224, 0.2..1; 6 x 96, 0.05..0.2 | .4/.4/.2/.1, p 1 | 0.5; 0.1 | 0; 0.2 |
    /// | `lejepa-imagenet` | README | 2 x 224, 0.3..1; 6 x 98, 0.05..0.3 | .4/.4/.2/.1 | 0.5 | 0.2 |
    /// | `vicreg-shapes` | ours, for the embedded data set; bilinear, grey with p 0.5 | 32, 0.6..1 | .8/.5/.8/.5, p 1 | - | 0.3 |
    /// | `none` | | 2 x 32, resized, no randomness | - | - | - |
    ///
    /// # Errors
    /// [`Error::UnknownPreset`], with the names that exist.
    pub fn preset(name: &str) -> Result<Self> {
        let wide = (0.08, 1.0);
        let weak = (0.2, 1.0);
        let (norm, views) = match name {
            "vicreg-cifar" => (CIFAR10, vec![view(32, weak, MODERATE).solarized(0.1).times(2)]),
            "vicreg-imagenet" | "byol-imagenet" | "barlow-twins-imagenet" => (
                IMAGENET,
                vec![
                    view(224, wide, MODERATE).blurred(1.0),
                    view(224, wide, MODERATE).blurred(0.1).solarized(0.2),
                ],
            ),
            "vicreg-imagenet-symmetric" => {
                (IMAGENET, vec![view(224, weak, MODERATE).blurred(0.5).solarized(0.1).times(2)])
            }
            "simclr-cifar" => (CIFAR10, vec![view(32, wide, STRONG).blurred(0.5).times(2)]),
            "simclr-imagenet" => (IMAGENET, vec![view(224, wide, STRONG).blurred(0.5).times(2)]),
            "byol-cifar" | "barlow-twins-cifar" => {
                (CIFAR10, vec![view(32, wide, MODERATE), view(32, wide, MODERATE).solarized(0.2)])
            }
            "w-mse-cifar" => (CIFAR10, vec![view(32, weak, STRONG).times(2)]),
            "swav-multicrop-cifar" => {
                let medium = [0.6, 0.6, 0.6, 0.2];
                let small = view(18, (0.08, 0.5), STRONG).blurred(0.1).solarized(0.1).times(6);
                (CIFAR10, vec![view(32, weak, medium), view(32, weak, medium).solarized(0.2), small])
            }
            "multicrop-imagenet" => (
                IMAGENET,
                vec![view(224, wide, STRONG).blurred(0.5).times(2), view(96, wide, STRONG).times(6)],
            ),
            "vicregl-imagenet" => {
                let global = view(224, weak, MODERATE).always_jittered().blurred(0.5).times(2);
                let local = view(96, (0.05, 0.2), MODERATE).always_jittered();
                (IMAGENET, vec![global, local.blurred(0.1).solarized(0.2).times(6)])
            }
            "lejepa-imagenet" => {
                let part = |size, scale| view(size, scale, MODERATE).blurred(0.5).solarized(0.2);
                (IMAGENET, vec![part(224, (0.3, 1.0)).times(2), part(98, (0.05, 0.3)).times(6)])
            }
            // Colour and brightness say nothing about a shape, and are the easiest thing to remember an image
            // by: they are changed as far as they go, so that the outline is what two views have in common.
            "vicreg-shapes" => {
                let base = view(32, (0.6, 1.0), [0.8, 0.5, 0.8, 0.5]).always_jittered().solarized(0.3);
                (CIFAR10, vec![ViewConfig { grayscale: 0.5, filter: Filter::Bilinear, ..base }.times(2)])
            }
            "none" => (CIFAR10, vec![ViewConfig::plain(32).times(2)]),
            _ => return Err(Error::UnknownPreset { name: name.to_owned(), known: NAMES.join(", ") }),
        };
        Ok(Self { mean: norm.0.to_vec(), std: norm.1.to_vec(), views })
    }
}

/// Crop, flip, jitter and grayscale, which all presets have.
fn view(size: usize, scale: (f64, f64), [brightness, contrast, saturation, hue]: [f64; 4]) -> ViewConfig {
    ViewConfig {
        crop: Some(Crop { scale, ratio: default_ratio() }),
        filter: Filter::Bicubic,
        flip: 0.5,
        jitter: Some(ColorJitter { p: 0.8, brightness, contrast, saturation, hue }),
        grayscale: 0.2,
        ..ViewConfig::plain(size)
    }
}

impl ViewConfig {
    fn blurred(self, p: f64) -> Self {
        Self { blur: Some(Blur { p, sigma: default_sigma(), kernel: None }), ..self }
    }

    fn solarized(self, p: f64) -> Self {
        Self { solarize: Some(Solarize { p, threshold: default_threshold() }), ..self }
    }

    fn always_jittered(self) -> Self {
        Self { jitter: self.jitter.map(|j| ColorJitter { p: 1.0, ..j }), ..self }
    }

    fn times(self, count: usize) -> Self {
        Self { count, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid_and_survives_toml() {
        for name in Recipe::preset_names() {
            let recipe = Recipe::preset(name).unwrap();
            recipe.check().unwrap();
            assert!(recipe.view_count() >= 2, "{name}");
            let text = toml::to_string(&recipe).unwrap();
            assert_eq!(toml::from_str::<Recipe>(&text).unwrap(), recipe, "{text}");
        }
        let message = Recipe::preset("vicreg").unwrap_err().to_string();
        assert!(message.contains("`vicreg`") && message.contains("vicreg-cifar"), "{message}");
    }

    #[test]
    fn resizing_keeps_proportions() {
        let recipe = Recipe::preset("swav-multicrop-cifar").unwrap().with_size(64);
        assert_eq!(recipe.views.iter().map(|v| v.size).collect::<Vec<_>>(), [64, 64, 36]);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let base = Recipe::preset("simclr-cifar").unwrap();
        let message = |change: &dyn Fn(&mut Recipe)| {
            let mut recipe = base.clone();
            change(&mut recipe);
            recipe.check().unwrap_err().to_string()
        };
        assert!(message(&|r| r.views[0].flip = 1.5).contains("views[0].flip = 1.5"));
        assert!(message(&|r| r.views[0].size = 0).contains("views[0].size = 0"));
        assert!(
            message(&|r| r.views[0].crop = Some(Crop { scale: (0.0, 1.0), ratio: (1.0, 1.0) }))
                .contains("scale")
        );
        assert!(
            message(&|r| r.views[0].blur = Some(Blur { p: 0.5, sigma: (0.1, f64::NAN), kernel: None }))
                .contains("sigma")
        );
        assert!(message(&|r| r.std[1] = 0.0).contains("std"));
        assert!(message(&|r| r.mean.push(0.5)).contains("mean"));
        assert!(message(&|r| r.views.clear()).contains("at least one view"));
        assert!(toml::from_str::<Recipe>("mean=[0.5]\nstd=[0.5]\nviews=[{size=32, flop=0.5}]").is_err());
    }
}
