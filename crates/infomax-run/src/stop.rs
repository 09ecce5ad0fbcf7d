//! Conditions that end a run.

use crate::online::Online;
use crate::{Condition, Error, Result, RunConfig, RunObserver};
use infomax_core::Learner as _;
use infomax_models::JointEmbedding;
use infomax_train::{EmbeddingStats, EpochSummary, Health, Observer, StepMetrics};
use std::collections::BTreeMap;
use std::path::Path;

/// Figures of every step.
const STEP: [&str; 4] = ["total", "grad_norm", "lr", "step"];
/// Figures of the monitor, of the projections, and behind `feature_` of the features.
const MONITOR: [&str; 6] =
    ["rank", "participation_ratio", "attainable_rank", "std_mean", "std_min", "std_l2_normalized"];
/// Figures of the objective's account, where it has one.
const ACCOUNT: [&str; 3] = ["entropy", "conditional", "information"];

/// Before the name of a part of the objective, as in the columns of `infomax runs`.
const PARTS: &str = "parts.";

/// The conditions of `train.stop_if`, judged while training goes on.
///
/// A condition is judged in the steps in which one of its figures is measured, after the grace of the monitor, with the
/// last value of each.
#[derive(Debug)]
pub(crate) struct StopIf {
    conditions: Vec<(Condition, bool)>,
    grace: u64,
    values: BTreeMap<String, f64>,
    reason: Option<String>,
}

impl StopIf {
    /// # Errors
    /// A text that is no condition, or a figure that this run does not measure, with the list of those that it does.
    pub(crate) fn new(
        config: &RunConfig,
        learner: &JointEmbedding,
        online: &Online,
        parts: &[String],
    ) -> Result<Self> {
        let sizes = [
            ("d", learner.embedding_dim()),
            ("feature_d", learner.feature_dim()),
            ("batch", config.train.batch),
        ];
        let values: BTreeMap<String, f64> =
            sizes.into_iter().map(|(name, size)| (name.to_owned(), size as f64)).collect();
        let mut names: Vec<String> = values.keys().cloned().chain(STEP.map(str::to_owned)).collect();
        if config.train.run.monitor.every > 0 {
            names.extend(MONITOR.iter().flat_map(|name| [(*name).to_owned(), format!("feature_{name}")]));
            names.extend(ACCOUNT.map(str::to_owned));
        }
        names.extend(infomax_train::Watcher::names(online));
        names.extend(parts.iter().map(|name| format!("{PARTS}{name}")));
        names.sort();
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let read = |text: &String| {
            let condition = Condition::of_run(text)?;
            if let Some((name, how)) = condition.names().find_map(|name| {
                let how = unmeasured(name, config)?;
                (!known.contains(&name)).then_some((name, how))
            }) {
                return Err(Error::Config(format!("`{condition}`: `{name}` is not measured: {how}")));
            }
            condition.check(&known, "this run")?;
            Ok((condition, false))
        };
        let conditions = config.train.stop_if.iter().map(read).collect::<Result<_>>()?;
        Ok(Self { conditions, grace: config.train.run.monitor.grace_steps, values, reason: None })
    }

    /// Takes the figures of a step, and judges.
    pub(crate) fn see(&mut self, metrics: &StepMetrics) {
        if self.conditions.is_empty() {
            return;
        }
        let mut fresh = figures(metrics);
        if metrics.step > self.grace {
            for (condition, judged) in &mut self.conditions {
                if !condition.names().any(|name| fresh.contains_key(name)) {
                    continue;
                }
                let value = |name: &str| fresh.get(name).or_else(|| self.values.get(name)).copied();
                if let Some(held) = condition.holds_for(value) {
                    *judged = true;
                    self.reason = self.reason.take().or(held);
                }
            }
        }
        self.values.append(&mut fresh);
    }

    /// What ended the run; asked once.
    pub(crate) fn reason(&mut self) -> Option<String> {
        self.reason.take()
    }

    /// A sentence for each condition that no step could judge.
    pub(crate) fn unjudged(&self) -> Vec<String> {
        let open = self.conditions.iter().filter(|(_, judged)| !judged);
        open.map(|(condition, _)| {
            format!(
                "the condition `{condition}` of train.stop_if was not judged: no step after the {} of grace \
                 (train.monitor.grace_steps) measured it",
                self.grace
            )
        })
        .collect()
    }
}

/// What to set so that a run measures a figure which it may measure.
fn unmeasured(name: &str, config: &RunConfig) -> Option<&'static str> {
    let of_monitor = |name: &&str| MONITOR.contains(name) || ACCOUNT.contains(name);
    let plain = name.strip_prefix("feature_").unwrap_or(name);
    match name {
        "online_knn" if config.train.online.knn_every == 0 => {
            Some("set train.online.knn_every, for example to 100")
        }
        "online_knn" => Some("there are no labels for it, as the notes at the start say"),
        "online_linear" | "online_linear_loss" if !config.train.online.linear => {
            Some("set train.online.linear = true")
        }
        "online_linear" | "online_linear_loss" => {
            Some("it needs the class of every training image, and some have none")
        }
        _ if Online::measures(plain) => Some("set train.online.every, for example to 50"),
        _ if Some(plain).as_ref().is_some_and(of_monitor) => {
            Some("set train.monitor.every, for example to 10")
        }
        _ => None,
    }
}

/// The figures of a step by name.
fn figures(metrics: &StepMetrics) -> BTreeMap<String, f64> {
    let mut all = metrics.figures.clone();
    let step = [metrics.total, metrics.grad_norm, metrics.lr, metrics.step as f64];
    all.extend(STEP.iter().map(|name| (*name).to_owned()).zip(step));
    all.extend(metrics.parts.iter().map(|part| (format!("{PARTS}{}", part.name), part.value)));
    let mut add = |prefix: &str, stats: &EmbeddingStats| {
        let values = [
            stats.participation_ratio,
            stats.participation_ratio,
            stats.attainable_rank,
            stats.std_mean,
            stats.std_min,
            stats.std_l2_normalized,
        ];
        all.extend(MONITOR.iter().map(|name| format!("{prefix}{name}")).zip(values));
    };
    if let Some(stats) = &metrics.embedding {
        add("", stats);
    }
    if let Some(stats) = &metrics.features {
        add("feature_", stats);
    }
    if let Some(account) = &metrics.account {
        let values = [account.entropy, account.conditional, account.information];
        all.extend(ACCOUNT.iter().map(|name| (*name).to_owned()).zip(values));
    }
    all
}

/// An observer beside which conditions are judged.
pub(crate) struct Judged<'a> {
    pub(crate) inner: &'a mut dyn RunObserver,
    pub(crate) stop: StopIf,
}

impl Observer for Judged<'_> {
    fn on_step(&mut self, metrics: &StepMetrics) {
        self.stop.see(metrics);
        self.inner.on_step(metrics);
    }

    fn on_epoch(&mut self, summary: &EpochSummary) {
        self.inner.on_epoch(summary);
    }

    fn on_checkpoint(&mut self, path: &Path, step: u64) {
        self.inner.on_checkpoint(path, step);
    }

    fn on_no_capsule(&mut self, reason: &str) {
        self.inner.on_no_capsule(reason);
    }

    fn on_capsule(&mut self, path: &Path, bytes: u64) {
        self.inner.on_capsule(path, bytes);
    }

    fn on_health(&mut self, health: &Health) {
        self.inner.on_health(health);
    }

    fn stop_reason(&mut self) -> Option<String> {
        self.stop.reason().or_else(|| self.inner.stop_reason())
    }
}
