//! The sections of a configuration: every key once, with its default, its unit and its documentation.

use super::Layers;
use super::online::OnlineConfig;
use crate::error::of;
use crate::{Error, Result};
use infomax_augment::{Recipe, Semantics};
use infomax_data::ShapesConfig;
use infomax_eval::{KnnConfig, LinearProbeConfig};
use infomax_losses::ObjectiveConfig;
use infomax_models::{EncoderConfig, ModelConfig, Precision, ResNetConfig};
use infomax_optim::{AdamWConfig, CourseConfig, LrScale, OptimConfig, Schedule, ScheduleConfig};
use infomax_train::{Courses, RunDir, TrainConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A resolved configuration: all that a run depends on, beside the images themselves.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct RunConfig {
    /// The method whose recipe lies below what is written: see `infomax methods`. Absent: the default job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Which images.
    pub data: DataConfig,
    /// The views that training sees.
    pub augment: AugmentConfig,
    /// The encoder and its heads.
    pub model: ModelConfig,
    /// The loss: a named objective, or an invariance and an entropy term.
    pub objective: ObjectiveConfig,
    /// The optimizer and its schedule.
    pub optim: OptimSection,
    /// The loop.
    pub train: TrainSection,
    /// The probes.
    pub eval: EvalConfig,
}

impl Default for RunConfig {
    /// The main job: the embedded data set, VICReg, a small ResNet; minutes on two cores.
    fn default() -> Self {
        let encoder = ResNetConfig { blocks: vec![1, 1, 1], width: 24, ..ResNetConfig::default() };
        Self {
            method: None,
            data: DataConfig::default(),
            augment: AugmentConfig::default(),
            model: ModelConfig {
                encoder: EncoderConfig::ResNet(encoder),
                projector: vec![256, 256, 256],
                ..ModelConfig::default()
            },
            objective: vicreg(),
            optim: OptimSection {
                schedule: ScheduleConfig { lr: 2.8e-3, warmup_epochs: 1.0, ..ScheduleConfig::default() },
                optimizer: OptimConfig::AdamW(AdamWConfig { weight_decay: 1e-4, ..AdamWConfig::default() }),
                lr_scale: LrScale::None,
                courses: CoursesSection::default(),
            },
            train: TrainSection { batch: 64, ..TrainSection::default() },
            eval: EvalConfig::default(),
        }
    }
}

/// The default objective. The name is one of the table's own, so that the other branch is never taken.
fn vicreg() -> ObjectiveConfig {
    ObjectiveConfig::named("vicreg").unwrap_or_else(|_| {
        use infomax_losses::{EntropyConfig, InvarianceConfig, entropy, invariance};
        ObjectiveConfig::custom(
            InvarianceConfig::Mse(invariance::Mse { weight: 25.0, ..Default::default() }),
            EntropyConfig::Vicreg(entropy::Vicreg::default()),
        )
    })
}

/// The batch of a method on the embedded data: contrastive ones want more than the default job has.
pub(crate) const METHOD_BATCH: i64 = 128;

/// The batch of a run on a folder of images where nobody chose one.
pub(super) const FOLDER_BATCH: usize = 256;

impl RunConfig {
    /// What differs when a folder of images is given: a recipe that follows from the images, a deeper network.
    #[must_use]
    pub fn for_folder(mut self) -> Self {
        (self.data.train_images, self.data.test_images) = (0, 0);
        // The recipe follows from the images: see `settle`.
        (self.augment.preset, self.augment.size) = (None, None);
        self.model.encoder = EncoderConfig::ResNet(ResNetConfig { width: 16, ..ResNetConfig::default() });
        self.model.projector = vec![512, 512, 512];
        self.optim.schedule.lr = 1e-3;
        self.train.batch = FOLDER_BATCH;
        self
    }

    /// Reads every section of merged layers and checks what can be checked without data.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Setting`] with the key, its value and its origin.
    pub fn resolve(layers: &Layers) -> Result<Self> {
        let config = Self {
            method: layers.method()?,
            data: layers.section("data")?,
            augment: layers.section("augment")?,
            model: layers.section("model")?,
            objective: super::objective(layers)?,
            optim: layers.section("optim")?,
            train: layers.section("train")?,
            eval: layers.section("eval")?,
        };
        config.check()?;
        Ok(config)
    }

    /// Reads the resolved configuration of a run.
    ///
    /// # Errors
    /// A folder that is no run, or as [`RunConfig::resolve`].
    pub fn of_run(run: &Path) -> Result<Self> {
        RunDir::config_of(run)?;
        let mut layers = Layers::default();
        layers.over_file(&run.join("config.toml"))?;
        layers.check()?;
        Self::resolve(&layers)
    }

    /// The configuration as TOML, complete.
    ///
    /// # Errors
    /// A path that is not valid UTF-8.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::Config(format!("this configuration is no TOML: {e}")))
    }

    fn check(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::Config(text));
        if let Some(name) = &self.method {
            crate::methods::Method::named(name)?;
        }
        let d = &self.data;
        if d.source == Source::Folder && d.path.is_none() {
            return refuse("data.source = \"folder\" needs data.path (or `--data DIR`)".into());
        }
        if let (Source::Shapes, Some(path)) = (d.source, &d.path) {
            return refuse(format!(
                "data.source = \"shapes\" draws its own images, and data.path = \"{}\" names others: leave one of \
                 them out",
                path.display()
            ));
        }
        if d.source == Source::Shapes && d.part != "train" {
            return refuse(format!(
                "data.part = \"{}\": the embedded data set has the part \"train\" only",
                d.part
            ));
        }
        if !(0.0..1.0).contains(&d.test_fraction) {
            return refuse(format!(
                "data.test_fraction = {}: it must be at least 0 and below 1",
                d.test_fraction
            ));
        }
        let t = &self.train;
        for (key, value, least) in
            [("epochs", t.run.epochs, 1), ("batch", t.batch as u64, 2), ("prefetch", t.prefetch as u64, 1)]
        {
            if value < least {
                let why = if key == "batch" { " (the covariance of one sample is undefined)" } else { "" };
                return refuse(format!("train.{key} = {value}: it must be at least {least}{why}"));
            }
        }
        t.run.check().map_err(of("train"))?;
        // The ranges of a schedule are checked where it is made.
        self.optim.schedule.schedule(1, t.run.epochs).map_err(of("optim"))?;
        self.optim.courses(&self.model, 1, t.run.epochs)?;
        t.online.check()?;
        t.stop_if.iter().try_for_each(|text| crate::Condition::of_run(text).map(drop))?;
        infomax_optim::build(&self.optim.optimizer).map_err(of("optim"))?;
        self.objective.build().map_err(of("objective"))?;
        self.eval.knn.check().and(self.eval.linear.check()).map_err(of("eval"))?;
        for (key, value) in [("batch", self.eval.batch), ("linear.max_steps", self.eval.linear.max_steps)] {
            if value == 0 {
                return refuse(format!("eval.{key} = 0: it must be at least 1"));
            }
        }
        if self.is_settled() { self.augment.resolve().map(drop) } else { self.augment.check_size() }
    }
}

/// Which images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// The embedded data set or a folder; a `path` alone means the latter.
    pub source: Source,
    /// The folder or file: whatever `infomax data info` recognizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// How many training images, the same number of each class (0: all of the folder).
    pub train_images: usize,
    /// How many test images (0: all of the folder; of the embedded data set: none).
    pub test_images: usize,
    /// The part held out for evaluation where a folder has no `test/` or `val/`, in 0..1.
    pub test_fraction: f64,
    /// Whether an unreadable image is an error.
    pub strict: bool,
    /// The part to train on, where there are several, for example `unlabeled` of STL-10.
    pub part: String,
    /// Which image of a sample that has several: the field in tar shards (`jpg`, `left.png`), the column of parquet
    /// files, the name of an array.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Where the labels stand, if there are several: the field in tar shards (`cls`), the column of parquet files and
    /// of lists, the name of an array.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Whether images are turned upright as their EXIF data ask; off as in torchvision.
    pub exif_orientation: bool,
    /// Images of more pixels are refused.
    pub max_pixels: u64,
    /// Decoded images are kept in memory up to this many MiB.
    pub cache_mib: usize,
    /// Where the views of training are made; the same bits on both. `auto` takes the card where all images fit into its
    /// memory and have one size of at most 96 pixels, in color, and the recipe is one of small images; else the host.
    pub views: ViewsOn,
    /// The seed of the embedded data set and of held-out parts.
    pub seed: u64,
    /// How hard the embedded data set is.
    pub shapes: ShapesSection,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            source: Source::Shapes,
            path: None,
            train_images: 10_000,
            test_images: 4_000,
            test_fraction: 0.2,
            strict: false,
            part: "train".into(),
            image: None,
            label: None,
            exif_orientation: false,
            max_pixels: 100_000_000,
            cache_mib: 2048,
            views: ViewsOn::Auto,
            seed: 0,
            shapes: ShapesSection::default(),
        }
    }
}

/// Where views are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ViewsOn {
    /// On the card if it can, else on the host.
    #[default]
    Auto,
    /// By threads of the host.
    Host,
    /// On the card, or not at all.
    Device,
}

/// Where images come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The embedded data set, which is drawn.
    Shapes,
    /// What lies at `path`.
    Folder,
}

/// The settings of the embedded data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ShapesSection {
    /// The side of the images, in pixels.
    pub size: usize,
    /// The least and the largest size of a shape, in parts of the image.
    pub scale: (f64, f64),
    /// The largest rotation, in turns to either side.
    pub rotation: f64,
    /// The part of a shape that may lie outside of the image.
    pub cut: f64,
    /// The least contrast between shape and background.
    pub contrast: f64,
    /// The strength of the textures.
    pub texture: f64,
    /// The least and the largest number of small shapes around.
    pub clutter: (usize, usize),
    /// The standard deviation of the noise, of values in 0..1.
    pub noise: f64,
}

impl Default for ShapesSection {
    fn default() -> Self {
        let ShapesConfig { size, scale, rotation, cut, contrast, texture, clutter, noise, .. } =
            ShapesConfig::default();
        Self { size, scale, rotation, cut, contrast, texture, clutter, noise }
    }
}

/// The views that training sees: a preset at a size, or a whole recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AugmentConfig {
    /// The name of a preset (`infomax data preview --list`). Where none is named, a folder of images gets one that
    /// fits their size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// The side of the largest view, in pixels, where it is not that of the preset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
    /// Whose arithmetic the operations follow, instead of what the preset or the recipe says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semantics: Option<Semantics>,
    /// What is subtracted from each channel of pixels in 0..1, instead of what the preset or the recipe says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f32>>,
    /// What each channel is divided by after that, instead of what the preset or the recipe says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f32>>,
    /// Views written out, each with its size, instead of a preset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<Recipe>,
}

impl Default for AugmentConfig {
    fn default() -> Self {
        Self {
            preset: Some("vicreg-shapes".to_owned()),
            size: Some(24),
            semantics: None,
            mean: None,
            std: None,
            recipe: None,
        }
    }
}

impl AugmentConfig {
    /// The recipe that is meant.
    ///
    /// # Errors
    /// An unknown preset, a recipe with a setting out of its range, or neither of them.
    pub fn resolve(&self) -> Result<Recipe> {
        self.check_size()?;
        let recipe = match (&self.recipe, &self.preset) {
            (Some(recipe), _) => recipe.clone(),
            (None, Some(preset)) => {
                let recipe = Recipe::preset(preset)
                    .map_err(|e| Error::Config(format!("augment.preset = \"{preset}\": {e}")))?;
                self.size.map_or(recipe.clone(), |size| recipe.with_size(size))
            }
            (None, None) => {
                return Err(Error::Config("[augment] needs a `preset` or a [augment.recipe]".into()));
            }
        };
        let (mean, std) = (recipe.mean.clone(), recipe.std.clone());
        let recipe = self.with_settings(recipe);
        if (mean, std) != (recipe.mean.clone(), recipe.std.clone()) {
            recipe.check().map_err(|e| Error::Config(format!("augment.mean, augment.std: {e}")))?;
        }
        match (&self.recipe, self.size) {
            // Of a preset only its size can be out of range.
            (None, Some(size)) => {
                recipe.check().map_err(|e| Error::Config(format!("augment.size = {size}: {e}")))?;
            }
            _ => recipe.check().map_err(of("augment.recipe"))?,
        }
        Ok(recipe)
    }

    /// Refuses a size that is none, and one beside views that have their own.
    pub(crate) fn check_size(&self) -> Result<()> {
        let Some(size) = self.size else { return Ok(()) };
        let problem = match (&self.recipe, &self.preset) {
            _ if size == 0 => "views have at least 1 pixel".to_owned(),
            (Some(_), _) => "each view of [augment.recipe] has its own size; leave this one out".to_owned(),
            (None, Some(preset)) if preset.contains('@') => {
                format!("augment.preset = \"{preset}\" has a size already; leave one of the two out")
            }
            _ => return Ok(()),
        };
        Err(Error::Config(format!("augment.size = {size}: {problem}")))
    }

    /// A recipe with the semantics and the normalization of pixels that are set, if any are.
    pub fn with_settings(&self, recipe: Recipe) -> Recipe {
        let semantics = self.semantics.unwrap_or(recipe.semantics);
        let mean = self.mean.clone().unwrap_or_else(|| recipe.mean.clone());
        let std = self.std.clone().unwrap_or_else(|| recipe.std.clone());
        recipe.with_semantics(semantics).with_normalization(&mean, &std)
    }
}

/// The optimizer and its schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OptimSection {
    /// The learning rate, its warm-up and its end.
    #[serde(flatten)]
    pub schedule: ScheduleConfig,
    /// The optimizer with its own settings.
    #[serde(flatten)]
    pub optimizer: OptimConfig,
    /// How the learning rate follows the batch: `lr` and `warmup_start_lr` are those of a batch of 256, and are
    /// multiplied by `batch / 256` (`linear`) or its square root (`sqrt`); `none` leaves them as they are.
    #[serde(default)]
    pub lr_scale: LrScale,
    /// The courses of other values than the learning rate.
    #[serde(default, skip_serializing_if = "CoursesSection::is_empty")]
    pub courses: CoursesSection,
}

/// Weight decay and momenta that change with the steps; each starts at the value that is configured elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CoursesSection {
    /// From `optim.weight_decay` on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<CourseConfig>,
    /// From `optim.momentum` on, or `optim.beta1` of AdamW and LAMB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub momentum: Option<CourseConfig>,
    /// From `model.teacher_momentum` on, in the place of its cosine to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher_momentum: Option<CourseConfig>,
}

impl CoursesSection {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl OptimSection {
    /// The schedule of the learning rate, scaled to the batch.
    ///
    /// # Errors
    /// A setting out of its range.
    pub fn lr(&self, batch: usize, steps_per_epoch: u64, total_steps: u64) -> Result<Schedule> {
        let schedule = self.schedule.schedule(steps_per_epoch, total_steps).map_err(of("optim"))?;
        let factor = self.lr_scale.factor(batch);
        Ok(Schedule {
            base_lr: schedule.base_lr * factor,
            warmup_start_lr: schedule.warmup_start_lr * factor,
            final_lr: schedule.final_lr * factor,
            ..schedule
        })
    }

    /// The learning rate in words: the configured one, the rule and what comes of it.
    pub fn lr_in_words(&self, batch: usize) -> String {
        let (lr, base) = (self.schedule.lr, LrScale::BATCH);
        let scaled = lr * self.lr_scale.factor(batch);
        match self.lr_scale {
            LrScale::Linear => format!("lr {lr} * {batch} / {base} = {scaled} (optim.lr_scale = \"linear\")"),
            LrScale::Sqrt => {
                format!("lr {lr} * sqrt({batch} / {base}) = {scaled} (optim.lr_scale = \"sqrt\")")
            }
            _ => format!("lr {lr}"),
        }
    }

    /// The schedules of weight decay and momenta.
    ///
    /// # Errors
    /// A setting out of its range, or the course of what there is not.
    pub fn courses(&self, model: &ModelConfig, steps_per_epoch: u64, total_steps: u64) -> Result<Courses> {
        let course = |name: &'static str, course: &Option<CourseConfig>, base: f64| match course {
            Some(course) => course.schedule(base, steps_per_epoch, total_steps).map(Some).map_err(of(name)),
            None => Ok(None),
        };
        let teacher = match (&self.courses.teacher_momentum, model.teacher_momentum) {
            (None, _) => None,
            (course_, Some(base)) => course("optim.courses.teacher_momentum", course_, base)?,
            (Some(_), None) => {
                let text = "optim.courses.teacher_momentum: there is no teacher; set model.teacher_momentum, its start";
                return Err(Error::Config(text.into()));
            }
        };
        let courses = Courses {
            weight_decay: course(
                "optim.courses.weight_decay",
                &self.courses.weight_decay,
                self.optimizer.weight_decay(),
            )?,
            momentum: course("optim.courses.momentum", &self.courses.momentum, self.optimizer.momentum())?,
            teacher_momentum: teacher,
        };
        // A schedule stays between its corners: what the optimizer would refuse in some step is refused here.
        let mut probe = infomax_optim::build(&self.optimizer).map_err(of("optim"))?;
        let corners =
            |s: Option<Schedule>| s.into_iter().flat_map(|s| [s.base_lr, s.warmup_start_lr, s.final_lr]);
        // The key is that of the course, and not the optimizer's own (`beta1`).
        let named = |key: &'static str| {
            move |error: infomax_optim::Error| match error {
                infomax_optim::Error::Config { value, reason, .. } => {
                    Error::Config(format!("{key} reaches {value}: {reason}"))
                }
                other => of(key)(other),
            }
        };
        for value in corners(courses.weight_decay) {
            probe.set_weight_decay(value).map_err(named("optim.courses.weight_decay"))?;
        }
        for value in corners(courses.momentum) {
            probe.set_momentum(value).map_err(named("optim.courses.momentum"))?;
        }
        if let Some(value) = corners(courses.teacher_momentum).find(|value| !(0.0..=1.0).contains(value)) {
            let text = format!("optim.courses.teacher_momentum reaches {value}: it must stay in 0..=1");
            return Err(Error::Config(text));
        }
        Ok(courses)
    }
}

/// What multiplies bf16 on the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Arithmetic {
    /// By shape, from what the processor has.
    #[default]
    Auto,
    /// Multiply-adds in f32.
    F32,
    /// Dot products of pairs (AVX512_BF16).
    Pairs,
    /// Products of tiles (AMX).
    Tiles,
}

impl From<Arithmetic> for infomax_kernels::Arithmetic {
    fn from(choice: Arithmetic) -> Self {
        match choice {
            Arithmetic::Auto => Self::Auto,
            Arithmetic::F32 => Self::F32,
            Arithmetic::Pairs => Self::Pairs,
            Arithmetic::Tiles => Self::Tiles,
        }
    }
}

/// The loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TrainSection {
    /// Where training computes: `auto` (an accelerator that this build has and that works, else the CPU), `cpu`,
    /// `cuda:N` or `metal`.
    pub device: String,
    /// On CUDA: only algorithms of cuDNN whose sums have a fixed order, so that a run repeats bit for bit on one card
    /// with one cuDNN. Without it convolutions may be faster. The CPU is deterministic either way.
    pub deterministic: bool,
    /// Samples in a batch, over all ranks of a run of several processes.
    pub batch: usize,
    /// Batches that are prepared ahead.
    pub prefetch: usize,
    /// What the encoder's training passes compute with.
    pub precision: Precision,
    /// What multiplies bf16 on the CPU, for `precision = "bf16"` and `"bf16x3"`: `auto` chooses by shape from what the
    /// processor has; the others fix it, and what the processor lacks is refused.
    pub arithmetic: Arithmetic,
    /// Conditions that end the run, saved, such as `rank < 0.1 * d`; names as `metrics.jsonl` has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop_if: Vec<String>,
    /// What is measured while training goes on.
    pub online: OnlineConfig,
    /// The loop itself.
    #[serde(flatten)]
    pub run: TrainConfig,
}

impl Default for TrainSection {
    fn default() -> Self {
        let run = TrainConfig { log_every: 5, ..TrainConfig::default() };
        Self {
            device: "auto".into(),
            deterministic: true,
            batch: 128,
            prefetch: 4,
            precision: Precision::F32,
            arithmetic: Arithmetic::Auto,
            stop_if: Vec::new(),
            online: OnlineConfig::default(),
            run,
        }
    }
}

/// The probes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EvalConfig {
    /// Whether the encoder at random initialization is evaluated beside the trained one.
    pub random_baseline: bool,
    /// Whether raw pixels are evaluated beside it.
    pub pixel_baseline: bool,
    /// Images in one forward pass.
    pub batch: usize,
    /// The nearest-neighbor classifier.
    pub knn: KnnConfig,
    /// The linear probe.
    pub linear: LinearProbeConfig,
}

impl Default for EvalConfig {
    fn default() -> Self {
        Self {
            random_baseline: true,
            pixel_baseline: true,
            batch: 256,
            knn: KnnConfig::default(),
            linear: LinearProbeConfig::default(),
        }
    }
}
