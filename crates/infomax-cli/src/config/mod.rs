//! The configuration of a run: one TOML with seven sections.

mod layers;
mod show;

pub(crate) use layers::{Layers, suggestion};
pub(crate) use show::show;

use crate::args::ConfigSource;
use anyhow::{Context as _, Result, bail};
use infomax_augment::{Recipe, Semantics};
use infomax_losses::ObjectiveConfig;
use infomax_models::{ModelConfig, Precision};
use infomax_optim::{OptimConfig, ScheduleConfig};
use infomax_train::{RunDir, TrainConfig};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The sections, in the order in which they are shown.
pub(crate) const SECTIONS: [&str; 7] = ["data", "augment", "model", "objective", "optim", "train", "eval"];

/// A resolved configuration.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunConfig {
    pub(crate) data: DataConfig,
    pub(crate) augment: AugmentConfig,
    pub(crate) model: ModelConfig,
    pub(crate) objective: ObjectiveConfig,
    pub(crate) optim: OptimSection,
    pub(crate) train: TrainSection,
    pub(crate) eval: EvalConfig,
}

/// `[data]`: which images.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataConfig {
    /// The embedded data set or a folder.
    pub(crate) source: Source,
    /// The folder or file, for `source = "folder"`: whatever `infomax data info` recognises.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<PathBuf>,
    /// How many training images (0: all of the folder), the same number of each class.
    pub(crate) train_images: usize,
    /// How many test images (0: all of the folder).
    pub(crate) test_images: usize,
    /// The part held out for evaluation where a folder has no `test/` or `val/`.
    pub(crate) test_fraction: f64,
    /// Whether an unreadable image is an error.
    pub(crate) strict: bool,
    /// The part to train on, where there are several, for example `unlabeled` of STL-10.
    #[serde(default = "default_part")]
    pub(crate) part: String,
    /// Images of more pixels are refused.
    pub(crate) max_pixels: u64,
    /// Decoded images are kept in memory up to this many MiB.
    pub(crate) cache_mib: usize,
    /// The seed of the embedded data set and of held-out parts.
    pub(crate) seed: u64,
    /// How hard the embedded data set is.
    pub(crate) shapes: ShapesSection,
}

fn default_part() -> String {
    "train".to_owned()
}

/// `[data.shapes]`: the settings of the embedded data set, see `infomax_data::ShapesConfig`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShapesSection {
    pub(crate) size: usize,
    pub(crate) scale: (f64, f64),
    pub(crate) rotation: f64,
    pub(crate) cut: f64,
    pub(crate) contrast: f64,
    pub(crate) texture: f64,
    pub(crate) clutter: (usize, usize),
    pub(crate) noise: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Source {
    Shapes,
    Folder,
}

/// `[augment]`: a preset at a size, or a whole recipe.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AugmentConfig {
    /// The name of a preset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) preset: Option<String>,
    /// The size of the views in pixels.
    pub(crate) size: usize,
    /// Whose arithmetic the operations follow, instead of what the preset or the recipe says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) semantics: Option<Semantics>,
    /// Views written out, instead of a preset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) recipe: Option<Recipe>,
}

impl AugmentConfig {
    /// The recipe that is meant.
    pub(crate) fn resolve(&self) -> Result<Recipe> {
        let recipe = match (&self.recipe, &self.preset) {
            (Some(recipe), _) => recipe.clone(),
            (None, Some(preset)) => Recipe::preset(preset).context("[augment] preset")?.with_size(self.size),
            (None, None) => bail!("[augment] needs a `preset` or a [augment.recipe]"),
        };
        let recipe = self.with_semantics(recipe);
        recipe.check().context("[augment]")?;
        Ok(recipe)
    }

    /// A recipe with the semantics that are set, if any are.
    pub(crate) fn with_semantics(&self, recipe: Recipe) -> Recipe {
        let semantics = self.semantics.unwrap_or(recipe.semantics);
        recipe.with_semantics(semantics)
    }
}

/// `[optim]`: the optimiser and its schedule.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct OptimSection {
    /// The learning rate, its warm-up and its end.
    #[serde(flatten)]
    pub(crate) schedule: ScheduleConfig,
    /// `sgd`, `adamw` or `lars`, with their own settings.
    #[serde(flatten)]
    pub(crate) optimizer: OptimConfig,
}

/// `[train]`: the loop.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TrainSection {
    /// Samples in a batch.
    pub(crate) batch: usize,
    /// Batches that are prepared ahead.
    pub(crate) prefetch: usize,
    /// What the encoder's training passes compute with.
    pub(crate) precision: Precision,
    #[serde(flatten)]
    pub(crate) run: TrainConfig,
}

/// `[eval]`: the probes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EvalConfig {
    /// Neighbours of the kNN classifier.
    pub(crate) knn_k: usize,
    /// Temperature of its weights `exp(cos / T)`.
    pub(crate) knn_temperature: f64,
    /// Whether the encoder at random initialisation is evaluated beside the trained one.
    pub(crate) random_baseline: bool,
    /// Whether raw pixels are evaluated beside it.
    pub(crate) pixel_baseline: bool,
    /// Images in one forward pass.
    pub(crate) batch: usize,
}

/// The keys of [optim] that belong to the schedule.
const SCHEDULE_KEYS: [&str; 5] = ["lr", "warmup_epochs", "warmup_start_lr", "final_lr_ratio", "kind"];

/// The keys of [train] that the loop itself does not know.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    batch: usize,
    prefetch: usize,
    /// Runs of before it was a setting are f32.
    #[serde(default)]
    precision: Precision,
}

const DEFAULTS: &str = include_str!("defaults.toml");
const FOLDER_DEFAULTS: &str = include_str!("folder.toml");

/// Reads all layers: defaults < defaults of a folder < file < flags < `--set`.
pub(crate) fn layers(source: &ConfigSource) -> Result<Layers> {
    let mut layers = Layers::default();
    layers.over(DEFAULTS.parse().context("the built-in defaults")?, "default");
    let mut upper = Layers::default();
    if let Some(path) = &source.config {
        upper.over_file(path)?;
    }
    if let Some(path) = &source.data {
        // A folder is part of the resolved configuration: kept absolute, so that `--resume` works elsewhere.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        let text = path.to_str().with_context(|| format!("{} is not valid UTF-8", path.display()))?;
        let data = Table::from_iter([
            ("source".to_owned(), Value::String("folder".into())),
            ("path".to_owned(), Value::String(text.to_owned())),
        ]);
        upper.over(Table::from_iter([("data".to_owned(), Value::Table(data))]), "--data");
    }
    for (key, value) in [("epochs", source.epochs), ("seed", source.seed)] {
        if let Some(value) = value {
            upper.over_assignment(&format!("train.{key}={value}"), &format!("--{key}"))?;
        }
    }
    if source.strict {
        upper.over_assignment("data.strict=true", "--strict")?;
    }
    for assignment in &source.set {
        upper.over_assignment(assignment, "--set")?;
    }
    let folder = upper
        .table()
        .get("data")
        .and_then(|data| data.get("source"))
        .is_some_and(|value| value.as_str() == Some("folder"));
    if folder {
        layers.over(FOLDER_DEFAULTS.parse().context("the built-in folder defaults")?, "default for folders");
    }
    layers.over_layers(upper);
    layers.check_sections(&SECTIONS)?;
    Ok(layers)
}

impl RunConfig {
    /// Reads every section of the merged layers and checks what can be checked without data.
    pub(crate) fn resolve(layers: &Layers) -> Result<Self> {
        let config = Self {
            data: layers.section("data")?,
            augment: layers.section("augment")?,
            model: layers.section("model")?,
            objective: objective(layers)?,
            optim: {
                let (schedule, optimizer) = layers.split_section("optim", &SCHEDULE_KEYS)?;
                OptimSection { schedule, optimizer }
            },
            train: {
                let (own, run) = layers.split_section("train", &["batch", "prefetch", "precision"])?;
                let Own { batch, prefetch, precision } = own;
                TrainSection { batch, prefetch, precision, run }
            },
            eval: layers.section("eval")?,
        };
        config.check()?;
        Ok(config)
    }

    /// Reads the resolved configuration of a run.
    pub(crate) fn of_run(run: &Path) -> Result<Self> {
        RunDir::config_of(run)?;
        let mut layers = Layers::default();
        layers.over_file(&run.join("config.toml"))?;
        layers.check_sections(&SECTIONS)?;
        Self::resolve(&layers)
    }

    /// The configuration as TOML, complete.
    pub(crate) fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }

    fn check(&self) -> Result<()> {
        let d = &self.data;
        if d.source == Source::Folder && d.path.is_none() {
            bail!("data.source = \"folder\" needs data.path (or `--data DIR`)");
        }
        if !(0.0..1.0).contains(&d.test_fraction) {
            bail!("data.test_fraction = {}: it must be at least 0 and below 1", d.test_fraction);
        }
        let t = &self.train;
        if t.run.epochs == 0 || t.batch < 2 || t.prefetch == 0 {
            bail!(
                "[train] needs epochs >= 1, batch >= 2 (the covariance of one sample is undefined), prefetch >= 1"
            );
        }
        // The ranges of a schedule are checked where it is made.
        self.optim.schedule.schedule(1, t.run.epochs)?;
        infomax_optim::build(&self.optim.optimizer)?;
        self.objective.build()?;
        let temperature = self.eval.knn_temperature;
        if self.eval.knn_k == 0 || self.eval.batch == 0 || temperature.is_nan() || temperature <= 0.0 {
            bail!("[eval] needs knn_k >= 1, batch >= 1 and knn_temperature > 0");
        }
        self.augment.resolve()?;
        Ok(())
    }
}

/// The objective: a named preset is written out first, so that single keys of its terms can be set.
pub(crate) fn objective(layers: &Layers) -> Result<ObjectiveConfig> {
    let written: Table = layers.section("objective")?;
    let text = |key: &str| written.get(key).and_then(Value::as_str);
    let preset = match text("name") {
        None | Some("custom") => return layers.section("objective"),
        Some(name) => match text("convention") {
            Some(convention) => ObjectiveConfig::with_convention(name, convention),
            None => ObjectiveConfig::named(name),
        },
    };
    let preset = preset.context("[objective]")?;
    let mut whole = Layers::default();
    whole.over(Table::from_iter([("objective".to_owned(), Value::try_from(preset)?)]), "preset");
    whole.over_layers(layers.only("objective"));
    whole.section("objective")
}
