//! Recipes by name, with the parameters of the published code.
//!
//! `solo` is solo-learn's augmentation for the method, `official` the code of the paper's authors; both
//! resize with a bicubic filter. `lightly` and `spt` (stable-pretraining) leave torchvision's bilinear
//! filter. Where the sources blur with Pillow, three box filters approximate a Gaussian of the drawn
//! standard deviation; here it is the Gaussian itself.

use crate::recipe::{default_ratio, default_sigma, default_threshold};
use crate::{Blur, ColorJitter, Crop, Error, Filter, Recipe, Result, Semantics, Solarize, ViewConfig};

/// Mean and standard deviation of the channels of a data set.
type Moments = ([f32; 3], [f32; 3]);

const CIFAR10: Moments = ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]);
const IMAGENET: Moments = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
const TINY_IMAGENET: Moments = ([0.4802, 0.4481, 0.3975], [0.2302, 0.2265, 0.2262]);

/// Brightness, contrast, saturation and hue of the strengths in use.
const MODERATE: [f64; 4] = [0.4, 0.4, 0.2, 0.1];
const EVEN: [f64; 4] = [0.4, 0.4, 0.4, 0.1];
const MEDIUM: [f64; 4] = [0.6, 0.6, 0.6, 0.2];
const STRONG: [f64; 4] = [0.8, 0.8, 0.8, 0.2];

/// The range of the area of a crop.
const WIDE: (f64, f64) = (0.08, 1.0);
const WEAK: (f64, f64) = (0.2, 1.0);

/// A recipe that has a name.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// The name.
    pub name: &'static str,
    /// Whose parameters they are.
    pub source: &'static str,
    normalization: Normalization,
    build: fn() -> Vec<ViewConfig>,
}

/// The data set whose mean and standard deviation a preset uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Normalization {
    Cifar10,
    ImageNet,
    TinyImageNet,
}

use Normalization::{Cifar10, ImageNet, TinyImageNet};

const fn preset(
    name: &'static str,
    source: &'static str,
    normalization: Normalization,
    build: fn() -> Vec<ViewConfig>,
) -> Preset {
    Preset { name, source, normalization, build }
}

const PRESETS: [Preset; 40] = [
    preset("vicreg-cifar", "solo-learn, CIFAR-10/100", Cifar10, || vicreg_small(32)),
    preset("vicreg-tiny-imagenet", "solo-learn's CIFAR recipe at 64 pixels", TinyImageNet, || {
        vicreg_small(64)
    }),
    preset("vicreg-stl10", "solo-learn's ImageNet-100 recipe at 96 pixels", ImageNet, || vicreg_large(96)),
    preset("vicreg-imagenet", "official", ImageNet, || asymmetric(224)),
    preset("vicreg-imagenet-symmetric", "solo-learn, ImageNet-100", ImageNet, || vicreg_large(224)),
    preset("simclr-cifar", "solo-learn", Cifar10, || symmetric(32, STRONG)),
    preset("simclr-tiny-imagenet", "solo-learn's recipe at 64 pixels", TinyImageNet, || {
        symmetric(64, STRONG)
    }),
    preset("simclr-stl10", "solo-learn's recipe at 96 pixels", ImageNet, || symmetric(96, STRONG)),
    preset("simclr-imagenet", "solo-learn", ImageNet, || symmetric(224, STRONG)),
    preset("symmetric-weak-cifar", "solo-learn, `symmetric_weak`", Cifar10, || symmetric(32, EVEN)),
    preset("symmetric-weak-imagenet", "solo-learn, `symmetric_weak`", ImageNet, || symmetric(224, EVEN)),
    preset("byol-cifar", "solo-learn", Cifar10, || asymmetric_small(32)),
    preset("byol-tiny-imagenet", "solo-learn's CIFAR recipe at 64 pixels", TinyImageNet, || {
        asymmetric_small(64)
    }),
    preset("byol-stl10", "solo-learn's ImageNet-100 recipe at 96 pixels", ImageNet, || asymmetric(96)),
    preset("byol-imagenet", "solo-learn, ImageNet-100", ImageNet, || asymmetric(224)),
    preset("barlow-twins-cifar", "solo-learn", Cifar10, || asymmetric_small(32)),
    preset("barlow-twins-tiny-imagenet", "solo-learn's CIFAR recipe at 64 pixels", TinyImageNet, || {
        asymmetric_small(64)
    }),
    preset("barlow-twins-stl10", "solo-learn's ImageNet-100 recipe at 96 pixels", ImageNet, || {
        asymmetric(96)
    }),
    preset("barlow-twins-imagenet", "solo-learn, ImageNet-100", ImageNet, || asymmetric(224)),
    preset("w-mse-cifar", "solo-learn", Cifar10, || vec![view(32, WEAK, STRONG).times(2)]),
    preset("swav-multicrop-cifar", "solo-learn", Cifar10, || {
        let small = view(18, (0.08, 0.5), STRONG).blurred(0.1).solarized(0.1).times(6);
        vec![view(32, WEAK, MEDIUM), view(32, WEAK, MEDIUM).solarized(0.2), small]
    }),
    preset("multicrop-imagenet", "solo-learn, ImageNet-100", ImageNet, || {
        vec![view(224, WIDE, STRONG).blurred(0.5).times(2), view(96, WIDE, STRONG).times(6)]
    }),
    preset("vicregl-imagenet", "lightly", ImageNet, || {
        let global = view(224, WEAK, MODERATE).always_jittered().blurred(0.5).times(2);
        let local = view(96, (0.05, 0.2), MODERATE).always_jittered();
        vec![global, local.blurred(0.1).solarized(0.2).times(6)]
    }),
    preset("lejepa-imagenet", "LeJEPA, README", ImageNet, || {
        let part = |size, scale| view(size, scale, MODERATE).blurred(0.5).solarized(0.2);
        vec![part(224, (0.3, 1.0)).times(2), part(98, (0.05, 0.3)).times(6)]
    }),
    preset("lejepa-minimal", "LeJEPA, MINIMAL.md (Imagenette)", ImageNet, || {
        let view = view(128, WIDE, STRONG).bilinear().blurred(0.5).solarized(0.2).times(4);
        vec![ViewConfig { blur: view.blur.map(|b| Blur { kernel: Some(7), ..b }), ..view }]
    }),
    preset("lightly-vicreg", "lightly", ImageNet, || {
        vec![view(224, WIDE, MODERATE).bilinear().blurred(0.5).solarized(0.1).times(2)]
    }),
    preset("lightly-simclr", "lightly", ImageNet, || bilinear(symmetric(224, STRONG))),
    preset("lightly-simclr-cifar", "lightly, CIFAR-10 benchmark", ImageNet, || {
        vec![view(32, WIDE, EVEN).bilinear().times(2)]
    }),
    preset("lightly-byol", "lightly", ImageNet, || bilinear(asymmetric(224))),
    preset("lightly-w-mse", "lightly", ImageNet, || {
        let view = view(224, WEAK, EVEN).bilinear().blurred(0.5).times(2);
        vec![ViewConfig { grayscale: 0.1, ..view }]
    }),
    preset("lightly-swav", "lightly", ImageNet, || {
        let part = |size, scale| view(size, scale, STRONG).bilinear().blurred(0.5);
        vec![part(224, (0.14, 1.0)).times(2), part(96, (0.05, 0.14)).times(6)]
    }),
    preset("spt-vicreg-cifar", "stable-pretraining", Cifar10, || {
        vec![view(32, WIDE, MODERATE).bilinear().times(2)]
    }),
    preset("spt-barlow-twins-cifar", "stable-pretraining; also its BYOL", Cifar10, || {
        vec![view(32, WEAK, MODERATE).bilinear(), view(32, WIDE, MODERATE).bilinear()]
    }),
    preset("spt-vicreg-imagenet100", "stable-pretraining", ImageNet, || bilinear(asymmetric(224))),
    // Color and brightness say nothing about a shape, and are the easiest thing to remember an image
    // by: they are changed as far as they go, so that the outline is what two views have in common.
    preset("vicreg-shapes", "ours, for the embedded data set", Cifar10, || {
        vec![of_shapes(32, (0.6, 1.0)).times(2)]
    }),
    preset("four-views-shapes", "ours, for the embedded data set", Cifar10, || {
        vec![of_shapes(24, (0.6, 1.0)).times(4)]
    }),
    preset("multicrop-shapes", "ours, for the embedded data set", Cifar10, || {
        vec![of_shapes(24, (0.6, 1.0)).times(2), of_shapes(16, (0.4, 0.7)).times(4)]
    }),
    preset("emp-ssl-shapes", "ours, for the embedded data set", Cifar10, || {
        vec![of_shapes(16, (0.4, 0.7)).times(20)]
    }),
    preset("emp-ssl-cifar", "EMP-SSL, official", Cifar10, || {
        let patch = view(32, (0.25, 0.25), [0.4, 0.4, 0.4, 0.2]).blurred(0.1).solarized(0.1);
        vec![
            ViewConfig { crop: Some(Crop { scale: (0.25, 0.25), ratio: (1.0, 1.0) }), ..patch.bilinear() }
                .times(20),
        ]
    }),
    preset("none", "resized, no randomness", Cifar10, || vec![ViewConfig::plain(32).times(2)]),
];

static NAMES: [&str; PRESETS.len()] = {
    let mut names = [""; PRESETS.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = PRESETS[i].name;
        i += 1;
    }
    names
};

impl Recipe {
    /// The names that [`Recipe::preset`] knows.
    pub fn preset_names() -> &'static [&'static str] {
        &NAMES
    }

    /// All presets.
    pub fn presets() -> &'static [Preset] {
        &PRESETS
    }

    /// A recipe by name. `NAME@SIZE` is [`Recipe::with_size`] of it; [`Recipe::with_normalization`] adapts
    /// it to other data.
    ///
    /// All flip with probability 0.5 and, unless said, turn gray with probability 0.2; `b/c/s/h` are the
    /// strengths of the color jitter (p 0.8 unless said), the standard deviation of the blur is uniform on
    /// 0.1..2 pixels, and solarize inverts from 128 on. Two values a cell are those of the first and the
    /// second view, or of global and local ones.
    ///
    /// | name | source | size, area | jitter | blur p | solarize p |
    /// |---|---|---|---|---|---|
    /// | `vicreg-cifar`, `vicreg-tiny-imagenet` | solo | 32, 64; 0.2..1 | .4/.4/.2/.1 | - | 0.1 |
    /// | `vicreg-imagenet` | official | 224, 0.08..1 | .4/.4/.2/.1 | 1, 0.1 | 0, 0.2 |
    /// | `vicreg-imagenet-symmetric`, `vicreg-stl10` | solo | 224, 96; 0.2..1 | .4/.4/.2/.1 | 0.5 | 0.1 |
    /// | `simclr-cifar`, `-tiny-imagenet`, `-stl10`, `-imagenet` | solo | 32, 64, 96, 224; 0.08..1 | .8/.8/.8/.2 | 0.5 | - |
    /// | `symmetric-weak-cifar`, `-imagenet` | solo | 32, 224; 0.08..1 | .4/.4/.4/.1 | 0.5 | - |
    /// | `byol-cifar`, `-tiny-imagenet`; `barlow-twins-cifar`, `-tiny-imagenet` | solo | 32, 64; 0.08..1 | .4/.4/.2/.1 | - | 0, 0.2 |
    /// | `byol-imagenet`, `-stl10`; `barlow-twins-imagenet`, `-stl10` | solo | 224, 96; 0.08..1 | .4/.4/.2/.1 | 1, 0.1 | 0, 0.2 |
    /// | `w-mse-cifar` | solo | 32, 0.2..1 | .8/.8/.8/.2 | - | - |
    /// | `swav-multicrop-cifar` | solo | 2 x 32, 0.2..1; 6 x 18, 0.08..0.5 | .6/.6/.6/.2; .8/.8/.8/.2 | -; 0.1 | 0, 0.2; 0.1 |
    /// | `multicrop-imagenet` | solo | 2 x 224, 6 x 96, 0.08..1 | .8/.8/.8/.2 | 0.5; - | - |
    /// | `vicregl-imagenet` | lightly | 2 x 224, 0.2..1; 6 x 96, 0.05..0.2 | .4/.4/.2/.1, p 1 | 0.5; 0.1 | 0; 0.2 |
    /// | `lejepa-imagenet` | README | 2 x 224, 0.3..1; 6 x 98, 0.05..0.3 | .4/.4/.2/.1 | 0.5 | 0.2 |
    /// | `lejepa-minimal` | MINIMAL.md | 4 x 128, 0.08..1 | .8/.8/.8/.2 | 0.5, kernel 7 | 0.2 |
    /// | `lightly-vicreg` | lightly | 224, 0.08..1 | .4/.4/.2/.1 | 0.5 | 0.1 |
    /// | `lightly-simclr` | lightly | 224, 0.08..1 | .8/.8/.8/.2 | 0.5 | - |
    /// | `lightly-simclr-cifar` | lightly | 32, 0.08..1 | .4/.4/.4/.1 | - | - |
    /// | `lightly-byol`, `spt-vicreg-imagenet100` | lightly, spt | 224, 0.08..1 | .4/.4/.2/.1 | 1, 0.1 | 0, 0.2 |
    /// | `lightly-w-mse` (gray p 0.1) | lightly | 224, 0.2..1 | .4/.4/.4/.1 | 0.5 | - |
    /// | `lightly-swav` | lightly | 2 x 224, 0.14..1; 6 x 96, 0.05..0.14 | .8/.8/.8/.2 | 0.5 | - |
    /// | `spt-vicreg-cifar` | spt | 32, 0.08..1 | .4/.4/.2/.1 | - | - |
    /// | `spt-barlow-twins-cifar` | spt | 32; 0.2..1, 0.08..1 | .4/.4/.2/.1 | - | - |
    /// | `vicreg-shapes` | ours, for the embedded data set; bilinear, gray with p 0.5 | 32, 0.6..1 | .8/.5/.8/.5, p 1 | - | 0.3 |
    /// | `four-views-shapes`, `multicrop-shapes`, `emp-ssl-shapes` | ours, as `vicreg-shapes` | 4 x 24, 0.6..1; 2 x 24, 0.6..1 and 4 x 16, 0.4..0.7; 20 x 16, 0.4..0.7 | .8/.5/.8/.5, p 1 | - | 0.3 |
    /// | `emp-ssl-cifar` | EMP-SSL, official; square patches | 20 x 32, 0.25 | .4/.4/.4/.2 | 0.1 | 0.1 |
    /// | `none` | | 2 x 32, resized, no randomness | - | - | - |
    ///
    /// No library has a preset for Tiny-ImageNet or STL-10; those are the recipe that is named, at that size,
    /// and STL-10 is normalized as ImageNet, from which it is drawn.
    ///
    /// # Errors
    /// [`Error::UnknownPreset`], with the names that exist; a size that is no number or out of range.
    pub fn preset(name: &str) -> Result<Self> {
        let (base, size) = name.split_once('@').map_or((name, None), |(base, size)| (base, Some(size)));
        let Some(preset) = PRESETS.iter().find(|p| p.name == base) else {
            return Err(Error::UnknownPreset { name: base.to_owned(), known: NAMES.join(", ") });
        };
        let (mean, std) = match preset.normalization {
            Cifar10 => CIFAR10,
            ImageNet => IMAGENET,
            TinyImageNet => TINY_IMAGENET,
        };
        let (mean, std, semantics) = (mean.to_vec(), std.to_vec(), Semantics::Pil);
        let mut views = (preset.build)();
        // Of views of several sizes, the small ones are the local ones.
        let largest = views.iter().map(|v| v.size).max().unwrap_or(0);
        views.iter_mut().for_each(|v| v.local = v.size < largest);
        let recipe = Self { mean, std, semantics, views };
        let Some(size) = size else { return Ok(recipe) };
        let pixels = size.parse().ok().filter(|n| (1..=crate::recipe::MAX_SIZE).contains(n));
        let reason = format!("NAME@SIZE takes a size of 1 to {} pixels", crate::recipe::MAX_SIZE);
        Ok(recipe.with_size(pixels.ok_or_else(|| Error::config("preset", name, reason))?))
    }
}

/// A view of the embedded data set.
fn of_shapes(size: usize, scale: (f64, f64)) -> ViewConfig {
    let base = view(size, scale, [0.8, 0.5, 0.8, 0.5]).always_jittered().solarized(0.3);
    ViewConfig { grayscale: 0.5, ..base.bilinear() }
}

fn vicreg_small(size: usize) -> Vec<ViewConfig> {
    vec![view(size, WEAK, MODERATE).solarized(0.1).times(2)]
}

fn vicreg_large(size: usize) -> Vec<ViewConfig> {
    vec![view(size, WEAK, MODERATE).blurred(0.5).solarized(0.1).times(2)]
}

fn symmetric(size: usize, jitter: [f64; 4]) -> Vec<ViewConfig> {
    vec![view(size, WIDE, jitter).blurred(0.5).times(2)]
}

fn asymmetric_small(size: usize) -> Vec<ViewConfig> {
    vec![view(size, WIDE, MODERATE), view(size, WIDE, MODERATE).solarized(0.2)]
}

fn asymmetric(size: usize) -> Vec<ViewConfig> {
    let view = || view(size, WIDE, MODERATE);
    vec![view().blurred(1.0), view().blurred(0.1).solarized(0.2)]
}

fn bilinear(views: Vec<ViewConfig>) -> Vec<ViewConfig> {
    views.into_iter().map(ViewConfig::bilinear).collect()
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

    fn bilinear(self) -> Self {
        Self { filter: Filter::Bilinear, ..self }
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
        assert_eq!(Recipe::preset("swav-multicrop-cifar@64").unwrap(), recipe);
        for name in ["vicreg-cifar@", "vicreg-cifar@0", "vicreg-cifar@9999", "vicreg-cifar@big"] {
            let message = Recipe::preset(name).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains("NAME@SIZE"), "{message}");
        }
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
