//! The course of a value other than the learning rate, as data, and scaling rules of the learning rate.

use crate::error::check;
use crate::{Error, Result, Schedule, ScheduleKind};

/// The course of a weight decay or a momentum: the kinds of the learning rate's schedule, from the value that the
/// optimizer or the model is configured with to `end`. In TOML:
///
/// ```toml
/// [optim.courses.weight_decay]
/// end = 0.4        # DINO (arXiv 2104.14294): 0.04 to 0.4 along a cosine
/// ```
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CourseConfig {
    /// The course after the warm-up.
    pub kind: ScheduleKind,
    /// The value that `cosine`, `linear` and `one-cycle` end at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<f64>,
    /// The length of the warm-up in epochs; parts of an epoch are allowed.
    pub warmup_epochs: f64,
    /// The value of the very first step where there is a warm-up; the configured value if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_start: Option<f64>,
    /// The epochs between the drops of `step`, counted from the start of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_epochs: Option<f64>,
    /// The factor of each drop of `step`, in `(0, 1]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_factor: Option<f64>,
}

impl CourseConfig {
    /// The schedule of a run of `total_steps` steps whose configured value is `base`.
    ///
    /// # Errors
    /// A value out of its range, or one that the kind needs and that is missing, or has no use for and that is there.
    pub fn schedule(&self, base: f64, steps_per_epoch: u64, total_steps: u64) -> Result<Schedule> {
        let refuse = |key: &str, value: String, reason| Err(Error::Config { key: key.into(), value, reason });
        check("warmup_epochs", self.warmup_epochs, 0.0.., "the warm-up must be at least 0 epochs")?;
        for (key, value) in [("end", self.end), ("warmup_start", self.warmup_start)] {
            if let Some(value) = value {
                check(key, value, 0.0.., "the value must be at least 0")?;
            }
        }
        let ends = matches!(self.kind, ScheduleKind::Cosine | ScheduleKind::Linear | ScheduleKind::OneCycle);
        match self.end {
            None if ends => {
                return refuse("end", "unset".into(), "this course needs the value that it ends at");
            }
            Some(end) if !ends => {
                return refuse("end", end.to_string(), "a constant and a course in steps have no end");
            }
            _ => {}
        }
        if self.kind == ScheduleKind::OneCycle && self.warmup_epochs == 0.0 {
            let reason = "one cycle moves to its middle value during the warm-up: give it some epochs";
            return refuse("warmup_epochs", "0".into(), reason);
        }
        if self.warmup_start.is_some() && self.warmup_epochs == 0.0 {
            return refuse(
                "warmup_epochs",
                "0".into(),
                "`warmup_start` is for a warm-up: give it some epochs",
            );
        }
        let steps = |epochs: f64| (epochs * steps_per_epoch as f64).round() as u64;
        let (every, factor) = match (self.kind, self.step_epochs, self.step_factor) {
            (ScheduleKind::Step, Some(epochs), Some(factor)) => {
                check("step_epochs", epochs, f64::MIN_POSITIVE.., "drops must be some epochs apart")?;
                let range = f64::MIN_POSITIVE..=1.0;
                check("step_factor", factor, range, "the factor of a drop must be in (0, 1]")?;
                (steps(epochs).max(1), factor)
            }
            (ScheduleKind::Step, epochs, _) => {
                let key = if epochs.is_none() { "step_epochs" } else { "step_factor" };
                return refuse(
                    key,
                    "unset".into(),
                    "a course in steps needs `step_epochs` and `step_factor`",
                );
            }
            (_, None, None) => (0, 1.0),
            (_, epochs, factor) => {
                let (key, value) = match epochs {
                    Some(epochs) => ("step_epochs", epochs),
                    None => ("step_factor", factor.unwrap_or_default()),
                };
                return refuse(key, value.to_string(), "only a course of the kind `step` has drops");
            }
        };
        Ok(Schedule {
            kind: self.kind,
            warmup_start_lr: self.warmup_start.unwrap_or(base),
            warmup_steps: steps(self.warmup_epochs).min(total_steps),
            total_steps,
            final_lr: self.end.unwrap_or(base),
            step_every: every,
            step_factor: factor,
            ..Schedule::constant(base)
        })
    }
}

/// How the learning rate follows the batch: its configured value is that of a batch of [`LrScale::BATCH`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LrScale {
    /// The learning rate is used as it is written.
    #[default]
    None,
    /// It is multiplied by `batch / 256` (Goyal et al., arXiv 1706.02677): usual for SGD and LARS.
    Linear,
    /// It is multiplied by `sqrt(batch / 256)` (Krizhevsky, arXiv 1404.5997): usual for Adam and LAMB.
    Sqrt,
}

impl LrScale {
    /// The batch whose learning rate is the configured one.
    pub const BATCH: usize = 256;

    /// The factor of the learning rate for a batch.
    pub fn factor(self, batch: usize) -> f64 {
        let ratio = batch as f64 / Self::BATCH as f64;
        match self {
            Self::None => 1.0,
            Self::Linear => ratio,
            Self::Sqrt => ratio.sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn courses_start_at_the_configured_value_and_end_at_their_own() {
        let dino = CourseConfig { end: Some(0.4), ..Default::default() };
        let s = dino.schedule(0.04, 10, 100).unwrap();
        let near =
            |value: f64, expected: f64| assert!((value - expected).abs() < 1e-12, "{value} {expected}");
        near(s.value(0), 0.04);
        near(s.value(100), 0.4);
        near(s.value(50), 0.22);
        let held = CourseConfig { warmup_epochs: 2.0, ..dino.clone() }.schedule(0.04, 10, 100).unwrap();
        [0, 19, 20].into_iter().for_each(|step| near(held.value(step), 0.04));
        let line = CourseConfig { kind: ScheduleKind::Linear, end: Some(1.0), ..Default::default() };
        assert!((line.schedule(0.5, 1, 10).unwrap().value(5) - 0.75).abs() < 1e-12);
        let cycle = CourseConfig {
            kind: ScheduleKind::OneCycle,
            warmup_epochs: 3.0,
            warmup_start: Some(0.95),
            end: Some(0.95),
            ..Default::default()
        };
        let s = cycle.schedule(0.85, 1, 10).unwrap();
        assert_eq!((s.value(0), s.value(3), s.value(10)), (0.95, 0.85, 0.95));
        let drops = CourseConfig {
            kind: ScheduleKind::Step,
            step_epochs: Some(2.0),
            step_factor: Some(0.5),
            ..Default::default()
        };
        let s = drops.schedule(0.8, 2, 40).unwrap();
        assert_eq!((s.value(3), s.value(4), s.value(8)), (0.8, 0.4, 0.2));
    }

    #[test]
    fn what_a_kind_lacks_or_has_no_use_for_is_refused() {
        let refused = |config: CourseConfig, part: &str| {
            let message = config.schedule(0.5, 2, 40).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        };
        refused(CourseConfig::default(), "end = unset");
        let constant = CourseConfig { kind: ScheduleKind::Constant, ..Default::default() };
        refused(CourseConfig { end: Some(0.1), ..constant.clone() }, "have no end");
        refused(CourseConfig { step_factor: Some(0.1), ..constant }, "step_factor = 0.1");
        refused(CourseConfig { kind: ScheduleKind::Step, ..Default::default() }, "step_epochs = unset");
        refused(CourseConfig { end: Some(-0.1), ..Default::default() }, "end = -0.1");
        refused(
            CourseConfig { end: Some(0.1), warmup_start: Some(0.1), ..Default::default() },
            "warmup_epochs",
        );
        refused(
            CourseConfig { kind: ScheduleKind::OneCycle, end: Some(0.1), ..Default::default() },
            "warmup_epochs",
        );
    }

    #[test]
    fn rates_follow_the_batch() {
        assert_eq!(LrScale::None.factor(1024), 1.0);
        assert_eq!(LrScale::Linear.factor(1024), 4.0);
        assert_eq!(LrScale::Sqrt.factor(1024), 2.0);
        assert_eq!((LrScale::Linear.factor(64), LrScale::Sqrt.factor(64)), (0.25, 0.5));
    }
}
