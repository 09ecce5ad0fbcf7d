//! The settings of a run.

use crate::{Budget, Error, LogFormat, Result};

/// The settings of [`crate::Trainer`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the data; a run with a `budget` makes as many as it can instead.
    pub epochs: u64,
    /// The wall time of training, such as `5m`, in the place of `epochs`: schedules follow the time. Such a run cannot
    /// be repeated bit for bit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// In how many parts each batch is embedded, for less memory; the objective sees the whole batch, and its gradient
    /// is that of the whole batch.
    pub accumulate: u64,
    /// What becomes of batch normalization where a batch is embedded in parts.
    pub batch_norm: InParts,
    /// The seed of the run: initial weights, the order of the samples, views, and what the model and the objective
    /// draw. The embedded images have a seed of their own.
    pub seed: u64,
    /// Stops after so many steps, in the midst of an epoch if need be.
    pub max_steps: Option<u64>,
    /// A checkpoint after every so many epochs; 0 for none but the last.
    pub checkpoint_every_epochs: u64,
    /// A checkpoint after every so many steps as well.
    pub checkpoint_every_steps: Option<u64>,
    /// A checkpoint when the last one is so many seconds old as well.
    pub checkpoint_every_seconds: Option<f64>,
    /// How many of the newest checkpoints are kept.
    pub keep_checkpoints: usize,
    /// Checkpoints whose step is a multiple of this are kept for ever.
    pub keep_every_steps: Option<u64>,
    /// A line in `metrics.jsonl` for every so many steps.
    pub log_every: u64,
    /// Formats that the lines of `metrics.jsonl` are written in as well: `csv`, `tensorboard`, `mlflow`.
    pub log: Vec<LogFormat>,
    /// How many capsules of failed steps are kept for `infomax replay`; 0 for none at all.
    pub keep_capsules: usize,
    /// The largest norm of the gradient of all parameters together.
    pub clip_grad_norm: Option<f64>,
    /// Whether parameters that the objective does not reach are accepted.
    pub allow_unused_parameters: bool,
    /// Whether the ranks of a data-parallel run sum gradients while the backward pass still runs. The bits are the same.
    pub overlap: bool,
    /// After how many steps the ranks of a data-parallel run meet (DiLoCo): 1 averages the gradients of every step. With
    /// more, or with `outer`, a rank trains by itself in between, and the loss and the statistics of batch norm are those
    /// of its own share of the batch.
    pub local_steps: u64,
    /// The outer optimizer of local steps; its defaults where `local_steps` is above 1 and this is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outer: Option<OuterConfig>,
    /// The monitor of the embedding.
    pub monitor: MonitorConfig,
}

/// SGD on the mean over the ranks of what each moved in its local steps (Douillard et al., arXiv:2311.08105).
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct OuterConfig {
    /// The outer learning rate; 1 without momentum takes the mean of the ranks' parameters.
    pub lr: f64,
    /// The outer momentum, at least 0 and below 1.
    pub momentum: f64,
    /// Whether the momentum looks ahead (Nesterov).
    pub nesterov: bool,
}

impl Default for OuterConfig {
    /// The values of the paper.
    fn default() -> Self {
        Self { lr: 0.7, momentum: 0.9, nesterov: true }
    }
}

impl TrainConfig {
    /// The outer optimizer of a run with local steps; `None` for one that averages gradients.
    pub fn outer_optimizer(&self) -> Option<OuterConfig> {
        self.outer.or_else(|| (self.local_steps > 1).then(OuterConfig::default))
    }
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            epochs: 10,
            budget: None,
            accumulate: 1,
            batch_norm: InParts::Refuse,
            seed: 0,
            max_steps: None,
            checkpoint_every_epochs: 1,
            checkpoint_every_steps: None,
            checkpoint_every_seconds: None,
            keep_checkpoints: 2,
            keep_every_steps: None,
            log_every: 1,
            log: Vec::new(),
            keep_capsules: 3,
            clip_grad_norm: None,
            allow_unused_parameters: false,
            overlap: true,
            local_steps: 1,
            outer: None,
            monitor: MonitorConfig::default(),
        }
    }
}

/// Batch normalization where a batch is embedded in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum InParts {
    /// It is an error: the gradient would not be that of the whole batch.
    #[default]
    Refuse,
    /// It takes the statistics of each part, and its running statistics move once a part.
    MicroBatch,
}

/// When the embedding is measured, and below what it counts as collapsed.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct MonitorConfig {
    /// Measures every so many steps; 0 for never.
    pub every: u64,
    /// The first so many steps are measured but not judged: a fresh network is nearly collapsed.
    pub grace_steps: u64,
    /// So many measurements in a row must agree.
    pub patience: usize,
    /// Below this `sqrt(D) std(z / ||z||)` the embedding is collapsed (a spread one has about 1).
    pub collapsed_std: f64,
    /// Below this a warning is given.
    pub warning_std: f64,
    /// Below this participation ratio the embedding is collapsed to a line.
    pub collapsed_rank: f64,
    /// Below this participation ratio a warning is given.
    pub warning_rank: f64,
}

impl Default for MonitorConfig {
    fn default() -> Self {
        Self {
            every: 10,
            grace_steps: 50,
            patience: 3,
            collapsed_std: 0.02,
            warning_std: 0.1,
            collapsed_rank: 1.1,
            warning_rank: 2.0,
        }
    }
}

impl TrainConfig {
    /// The number of steps of a run with so many batches an epoch.
    pub fn total_steps(&self, batches_per_epoch: u64) -> u64 {
        let all = self.epochs.saturating_mul(batches_per_epoch);
        self.max_steps.map_or(all, |max| all.min(max))
    }

    /// Refuses settings out of their range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting.
    pub fn check(&self) -> Result<()> {
        let refuse = |key, value: &dyn std::fmt::Display, reason| {
            Err(Error::Config { key, value: value.to_string(), reason })
        };
        if self.keep_checkpoints == 0 {
            return refuse("keep_checkpoints", &0, "at least one checkpoint must be kept");
        }
        if self.accumulate == 0 {
            return refuse("accumulate", &0, "must be at least 1; 1 embeds the batch in one piece");
        }
        if self.local_steps == 0 {
            return refuse("local_steps", &0, "must be at least 1; 1 averages the gradients of every step");
        }
        if let Some(outer) = self.outer {
            if !(outer.lr.is_finite() && outer.lr > 0.0) {
                return refuse("outer.lr", &outer.lr, "must be finite and above 0");
            }
            if !(0.0..1.0).contains(&outer.momentum) {
                return refuse("outer.momentum", &outer.momentum, "must be at least 0 and below 1");
            }
        }
        if self.log_every == 0 {
            return refuse("log_every", &0, "must be at least 1");
        }
        for (key, every) in [
            ("max_steps", self.max_steps),
            ("checkpoint_every_steps", self.checkpoint_every_steps),
            ("keep_every_steps", self.keep_every_steps),
        ] {
            if every == Some(0) {
                return refuse(key, &0, "must be at least 1; leave it out for none");
            }
        }
        for (key, value) in [
            ("clip_grad_norm", self.clip_grad_norm),
            ("checkpoint_every_seconds", self.checkpoint_every_seconds),
        ] {
            if let Some(value) = value
                && !(value.is_finite() && value > 0.0)
            {
                return refuse(key, &value, "must be above 0; leave it out for none");
            }
        }
        self.monitor.check()
    }
}

impl MonitorConfig {
    fn check(&self) -> Result<()> {
        if self.patience == 0 {
            let reason = "a verdict needs at least 1 measurement";
            return Err(Error::Config { key: "monitor.patience", value: "0".into(), reason });
        }
        for (key, value) in [
            ("monitor.collapsed_std", self.collapsed_std),
            ("monitor.warning_std", self.warning_std),
            ("monitor.collapsed_rank", self.collapsed_rank),
            ("monitor.warning_rank", self.warning_rank),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                let reason = "must be finite and at least 0";
                return Err(Error::Config { key, value: value.to_string(), reason });
            }
        }
        for (key, collapsed, warning) in [
            ("monitor.warning_std", self.collapsed_std, self.warning_std),
            ("monitor.warning_rank", self.collapsed_rank, self.warning_rank),
        ] {
            if warning < collapsed {
                let reason = "a warning comes before the collapse: it must be at least that threshold";
                return Err(Error::Config { key, value: warning.to_string(), reason });
            }
        }
        Ok(())
    }
}
