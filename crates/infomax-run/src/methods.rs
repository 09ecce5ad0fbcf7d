//! Methods by one word: the whole recipe that the authors of a method, or the library that reproduces it, use.
//!
//! A [`Method`] is a layer of a configuration between the defaults and what a user writes: heads, predictor, teacher,
//! views, optimizer; the objective has its name. Batch, epochs and encoder stay those of the run, and learning rates,
//! which are published for a batch of 256, follow the batch by `optim.lr_scale = "linear"`.
//!
//! One thing is ours: with LARS the gradient is clipped to a norm of 1 (`train.clip_grad_norm`). The rates are published with
//! warm-ups of thousands of steps. In a run of some hundred steps the parameters that LARS does not adapt, biases and those
//! of norms, take steps of the whole rate from the start: VICReg's covariance then grows without bound. Three epochs of the
//! embedded data end at 21 % linear without the clip and at 78 % with it.

mod table;

use crate::{Error, Result};
use infomax_losses::{EntropyConfig, ObjectiveConfig};
use toml::{Table, Value};

/// A method with its recipe.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// Its name, which is that of its objective.
    pub name: &'static str,
    /// Whose settings these are.
    pub settings: &'static str,
    /// What is to be known beside them.
    pub note: &'static str,
    projector: Sizes<&'static [usize]>,
    predictor: &'static [usize],
    local_projector: &'static [usize],
    teacher_momentum: Option<Sizes<f64>>,
    views: Views,
    optimizer: Sizes<Rule>,
    epochs: Option<u64>,
    /// Whether both terms see rows of unit length, where the objective by itself leaves that to the caller.
    unit_rows: bool,
}

/// A setting for small images, and one for views of 128 pixels and more.
#[derive(Clone, Copy, Debug)]
struct Sizes<T> {
    small: T,
    large: T,
}

/// The presets of views: for the embedded data set, for small images and for photographs.
#[derive(Clone, Copy, Debug)]
struct Views {
    embedded: &'static str,
    small: &'static str,
    large: &'static str,
}

/// An optimizer with its learning rate for a batch of 256.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// solo-learn's LARS for CIFAR: its form, `eta = 0.02`, clipped.
    ClippedLars {
        lr: f64,
        weight_decay: f64,
    },
    /// LARS as in the official codes.
    Lars {
        lr: f64,
        weight_decay: f64,
    },
    Sgd {
        lr: f64,
        weight_decay: f64,
    },
    AdamW {
        lr: f64,
        weight_decay: f64,
    },
}

/// What the choice of a method's settings depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setting<'a> {
    /// Whether the images are the embedded ones.
    pub embedded: bool,
    /// Whether the views have 128 pixels and more.
    pub large: bool,
    /// Whether the encoder is a transformer or a ConvNeXt: they train with AdamW.
    pub adaptive: bool,
    /// The optimizer that the user chose: another one than that of the method has a rate and a decay of its own.
    pub optimizer: Option<&'a str>,
}

/// All methods, by name.
pub fn methods() -> &'static [Method] {
    table::METHODS
}

impl Method {
    /// The method of a name.
    ///
    /// # Errors
    /// An unknown name, with the nearest one.
    pub fn named(name: &str) -> Result<&'static Self> {
        methods().iter().find(|method| method.name == name).ok_or_else(|| {
            let names = methods().iter().map(|method| method.name);
            let hint = crate::config::suggestion(&name.to_lowercase(), names.clone());
            let list = names.collect::<Vec<_>>().join(", ");
            Error::Config(format!("method = \"{name}\": unknown{hint}; `infomax methods` shows them: {list}"))
        })
    }

    /// Its objective.
    ///
    /// # Errors
    /// None for the methods of the table.
    pub fn objective(&self) -> Result<ObjectiveConfig> {
        ObjectiveConfig::named(self.name).map_err(crate::error::of("objective"))
    }

    /// The keys that it sets, as the sections of a configuration.
    pub fn layer(&self, setting: Setting<'_>) -> Table {
        let mut model = Table::new();
        let widths = |dims: &[usize]| Value::Array(dims.iter().map(|d| Value::Integer(*d as i64)).collect());
        model.insert("projector".into(), widths(self.projector.of(setting.large)));
        if !self.predictor.is_empty() {
            model.insert("predictor".into(), widths(self.predictor));
        }
        if !self.local_projector.is_empty() {
            model.insert("local_projector".into(), widths(self.local_projector));
        }
        if let Some(momentum) = self.teacher_momentum {
            model.insert("teacher_momentum".into(), Value::Float(momentum.of(setting.large)));
        }
        let mut layer = Table::new();
        let mut section = |name: &str, table: Table| layer.insert(name.to_owned(), Value::Table(table));
        section("model", model);
        let mut objective = Table::from_iter([("name".to_owned(), Value::String(self.name.into()))]);
        if self.unit_rows {
            for term in ["invariance", "entropy"] {
                let unit = Table::from_iter([("normalize".to_owned(), Value::Boolean(true))]);
                objective.insert(term.to_owned(), Value::Table(unit));
            }
        }
        section("objective", objective);
        let rule = (!setting.adaptive).then(|| self.optimizer.of(setting.large));
        let optimizer = setting.optimizer.unwrap_or_else(|| rule.map_or("adamw", Rule::name));
        let own = rule.filter(|rule| rule.name() == optimizer);
        section("optim", own.map_or_else(|| chosen(optimizer), Rule::table));
        if setting.embedded {
            let preset = Value::String(self.views.embedded.into());
            let mut augment = Table::from_iter([("preset".to_owned(), preset)]);
            if let Some(size) = self.embedded_size() {
                augment.insert("size".into(), Value::Integer(size));
            }
            section("augment", augment);
        }
        let mut train = Table::new();
        if setting.embedded {
            train.insert("batch".into(), Value::Integer(crate::config::METHOD_BATCH));
        }
        if let Some(epochs) = self.epochs {
            train.insert("epochs".into(), Value::Integer(epochs as i64));
        }
        if own.is_some_and(|rule| rule.name() == "lars") {
            train.insert("clip_grad_norm".into(), Value::Float(1.0));
        }
        if !train.is_empty() {
            section("train", train);
        }
        layer
    }

    /// [`Method::layer`] as a file.
    ///
    /// # Errors
    /// None for the methods of the table.
    pub fn to_toml(&self, setting: Setting<'_>) -> Result<String> {
        toml::to_string(&self.layer(setting)).map_err(|e| Error::Config(format!("{}: {e}", self.name)))
    }

    /// The preset of the views for a folder of small images or of photographs.
    pub fn views(&self, small: bool) -> &'static str {
        if small { self.views.small } else { self.views.large }
    }

    /// The heads in words.
    pub fn heads(&self) -> String {
        let join = |dims: &[usize]| dims.iter().map(ToString::to_string).collect::<Vec<_>>().join("-");
        let mut text = join(self.projector.small);
        if self.projector.large != self.projector.small {
            text += &format!(" (from 128 pixels on {})", join(self.projector.large));
        }
        if !self.predictor.is_empty() {
            text += &format!(", predictor {}", join(self.predictor));
        }
        if !self.local_projector.is_empty() {
            text += &format!(", local {}", join(self.local_projector));
        }
        if let Some(momentum) = self.teacher_momentum {
            text += &format!(", teacher {} to 1", momentum.small);
        }
        text
    }

    /// The optimizer in words, for small images.
    pub fn optimizer(&self) -> String {
        let (lr, decay) = match self.optimizer.small {
            Rule::ClippedLars { lr, weight_decay }
            | Rule::Lars { lr, weight_decay }
            | Rule::Sgd { lr, weight_decay }
            | Rule::AdamW { lr, weight_decay } => (lr, weight_decay),
        };
        let name = self.optimizer.small.name();
        let clip = if name == "lars" { ", gradient clipped to 1" } else { "" };
        format!("{name}, lr {lr} for a batch of 256, weight decay {decay}{clip}")
    }

    /// The presets of views in words: for the embedded images, small images and photographs.
    pub fn view_presets(&self) -> [&'static str; 3] {
        [self.views.embedded, self.views.small, self.views.large]
    }

    /// Whether its entropy term is an entropy in nats, of the rows as the invariance sees them.
    ///
    /// # Errors
    /// As [`Method::objective`].
    pub fn entropy_in_nats(&self) -> Result<bool> {
        Ok(self.objective()?.entropy_in_nats())
    }

    /// Whether what is minimized is minus that entropy itself; else it is so up to constants, or a surrogate.
    ///
    /// # Errors
    /// As [`Method::objective`].
    pub fn trains_nats(&self) -> Result<bool> {
        let term = self.objective()?.entropy.build().map_err(crate::error::of("objective"))?;
        let bound = term.and_then(|term| term.bound());
        Ok(self.entropy_in_nats()? && bound.is_some_and(|bound| bound != infomax_core::Bound::Surrogate))
    }

    /// Whether there is an entropy term at all.
    ///
    /// # Errors
    /// As [`Method::objective`].
    pub fn has_entropy(&self) -> Result<bool> {
        Ok(!matches!(self.objective()?.entropy, EntropyConfig::None(_)))
    }

    /// `vicreg-shapes` is written for 32 pixels and used at the size of the default job.
    fn embedded_size(&self) -> Option<i64> {
        (self.views.embedded == "vicreg-shapes").then_some(24)
    }
}

impl<T: Copy> Sizes<T> {
    fn of(&self, large: bool) -> T {
        if large { self.large } else { self.small }
    }
}

/// The keys of an optimizer in the place of a method's own.
fn chosen(name: &str) -> Table {
    let mut table = Table::from_iter([("name".to_owned(), Value::String(name.into()))]);
    if let Some((lr, weight_decay)) = usual(name) {
        table.insert("lr".into(), Value::Float(lr));
        table.insert("lr_scale".into(), Value::String("linear".into()));
        table.insert("weight_decay".into(), Value::Float(weight_decay));
    }
    table
}

/// The usual learning rate of an optimizer for a batch of 256, and its weight decay: rates of one are no rates of another.
pub(crate) fn usual(name: &str) -> Option<(f64, f64)> {
    match name {
        "sgd" => Some((0.03, 1e-4)),
        "adamw" => Some((5e-4, 0.05)),
        "lars" => Some((0.3, 1e-6)),
        "lamb" => Some((2e-3, 1e-2)),
        "muon" => Some((0.02, 1e-4)),
        _ => None,
    }
}

impl Rule {
    fn name(self) -> &'static str {
        match self {
            Self::ClippedLars { .. } | Self::Lars { .. } => "lars",
            Self::Sgd { .. } => "sgd",
            Self::AdamW { .. } => "adamw",
        }
    }

    fn table(self) -> Table {
        let mut table = Table::new();
        let (lr, weight_decay) = match self {
            Self::ClippedLars { lr, weight_decay } => {
                table.insert("form".into(), Value::String("solo-learn".into()));
                table.insert("eta".into(), Value::Float(0.02));
                table.insert("clip_lr".into(), Value::Boolean(true));
                (lr, weight_decay)
            }
            Self::Lars { lr, weight_decay }
            | Self::Sgd { lr, weight_decay }
            | Self::AdamW { lr, weight_decay } => (lr, weight_decay),
        };
        table.insert("name".into(), Value::String(self.name().into()));
        table.insert("lr".into(), Value::Float(lr));
        table.insert("lr_scale".into(), Value::String("linear".into()));
        table.insert("weight_decay".into(), Value::Float(weight_decay));
        table
    }
}
