//! The learning rate of a step.

use crate::error::check;
use crate::{Error, Result};
use std::f64::consts::PI;

/// The course of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ScheduleKind {
    /// Half a cosine from the base to the final rate.
    #[default]
    Cosine,
    /// The base rate throughout.
    Constant,
}

/// A schedule in epochs, as it is written in a configuration.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleConfig {
    /// The learning rate after the warm-up.
    pub lr: f64,
    /// The length of the warm-up in epochs; parts of an epoch are allowed.
    pub warmup_epochs: f64,
    /// The learning rate of the very first step.
    pub warmup_start_lr: f64,
    /// The final learning rate as a part of `lr`.
    pub final_lr_ratio: f64,
    /// The course after the warm-up.
    pub kind: ScheduleKind,
}

impl Default for ScheduleConfig {
    /// A cosine from 1e-3 to 0 without warm-up.
    fn default() -> Self {
        Self {
            lr: 1e-3,
            warmup_epochs: 0.0,
            warmup_start_lr: 0.0,
            final_lr_ratio: 0.0,
            kind: ScheduleKind::Cosine,
        }
    }
}

impl ScheduleConfig {
    /// The schedule of a run of `total_steps` steps. A warm-up that is longer than the run is cut to it.
    ///
    /// # Errors
    /// A setting that is out of its range, or an epoch without steps.
    pub fn schedule(&self, steps_per_epoch: u64, total_steps: u64) -> Result<Schedule> {
        check("lr", self.lr, f64::MIN_POSITIVE.., "the learning rate must be above 0")?;
        check("warmup_epochs", self.warmup_epochs, 0.0.., "the warm-up must be at least 0 epochs")?;
        check("warmup_start_lr", self.warmup_start_lr, 0.0.., "the first rate must be at least 0")?;
        check("final_lr_ratio", self.final_lr_ratio, 0.0..=1.0, "the ratio must be in [0, 1]")?;
        if steps_per_epoch == 0 {
            let reason = "an epoch needs at least one step: is the batch larger than the data set?";
            return Err(Error::Config { key: "steps_per_epoch".into(), value: "0".into(), reason });
        }
        let warmup_steps = (self.warmup_epochs * steps_per_epoch as f64).round() as u64;
        Ok(Schedule {
            kind: self.kind,
            base_lr: self.lr,
            warmup_start_lr: self.warmup_start_lr,
            warmup_steps: warmup_steps.min(total_steps),
            total_steps,
            final_lr: self.lr * self.final_lr_ratio,
        })
    }
}

/// Linear warm-up, then a cosine or a constant; the rate changes with every step.
///
/// ```
/// use infomax_optim::{Schedule, ScheduleKind};
/// let schedule = Schedule {
///     kind: ScheduleKind::Cosine,
///     base_lr: 0.4,
///     warmup_start_lr: 0.0,
///     warmup_steps: 10,
///     total_steps: 110,
///     final_lr: 0.0,
/// };
/// assert_eq!(schedule.lr(0), 0.0);
/// assert_eq!(schedule.lr(5), 0.2);
/// assert_eq!(schedule.lr(10), 0.4);
/// assert!((schedule.lr(60) - 0.2).abs() < 1e-15);
/// assert_eq!(schedule.lr(110), 0.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Schedule {
    /// The course after the warm-up.
    pub kind: ScheduleKind,
    /// The rate at step `warmup_steps`.
    pub base_lr: f64,
    /// The rate at step 0 if there is a warm-up.
    pub warmup_start_lr: f64,
    /// The length of the warm-up.
    pub warmup_steps: u64,
    /// The length of the run, warm-up included.
    pub total_steps: u64,
    /// The rate of the cosine at step `total_steps` and after it.
    pub final_lr: f64,
}

impl Schedule {
    /// One rate throughout.
    pub fn constant(lr: f64) -> Self {
        Self {
            kind: ScheduleKind::Constant,
            base_lr: lr,
            warmup_start_lr: 0.0,
            warmup_steps: 0,
            total_steps: 0,
            final_lr: lr,
        }
    }

    /// The learning rate of the step that follows `step` finished ones:
    /// `start + (base - start) step / warmup` in the warm-up, then with `x` from 0 to 1 over the rest
    /// `final + (base - final) (1 + cos(pi x)) / 2`.
    pub fn lr(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            let x = step as f64 / self.warmup_steps as f64;
            return self.warmup_start_lr + (self.base_lr - self.warmup_start_lr) * x;
        }
        match self.kind {
            ScheduleKind::Constant => self.base_lr,
            ScheduleKind::Cosine if step >= self.total_steps => self.final_lr,
            ScheduleKind::Cosine => {
                let x = (step - self.warmup_steps) as f64 / (self.total_steps - self.warmup_steps) as f64;
                self.final_lr + (self.base_lr - self.final_lr) * 0.5 * (1.0 + (PI * x).cos())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_of_the_vicreg_recipe() {
        // 10 of 100 epochs of 3 steps; base 0.3, final 0.001 of it.
        let config = ScheduleConfig {
            lr: 0.3,
            warmup_epochs: 10.0,
            warmup_start_lr: 0.0,
            final_lr_ratio: 0.001,
            kind: ScheduleKind::Cosine,
        };
        let s = config.schedule(3, 300).unwrap();
        assert_eq!((s.warmup_steps, s.total_steps), (30, 300));
        let expected = [
            (0, 0.0),
            (1, 0.01),
            (29, 0.29),
            (30, 0.3),
            (120, 0.0003 + 0.2997 * 0.75), // cos(pi / 3) = 1/2
            (165, 0.15015),
            (210, 0.0003 + 0.2997 * 0.25),
            (300, 0.0003),
            (1000, 0.0003),
        ];
        for (step, lr) in expected {
            assert!((s.lr(step) - lr).abs() < 1e-15, "step {step}: {} and {lr}", s.lr(step));
        }
    }

    #[test]
    fn constant_and_bad_settings() {
        assert_eq!(Schedule::constant(0.1).lr(12345), 0.1);
        let warm = Schedule { warmup_steps: 4, warmup_start_lr: 0.02, ..Schedule::constant(0.1) };
        assert_eq!((warm.lr(0), warm.lr(2), warm.lr(4)), (0.02, 0.06, 0.1));
        assert!(ScheduleConfig::default().schedule(0, 10).is_err());
        assert!(ScheduleConfig { lr: -1.0, ..Default::default() }.schedule(1, 10).is_err());
        assert!(ScheduleConfig { lr: f64::NAN, ..Default::default() }.schedule(1, 10).is_err());
        let long = ScheduleConfig { warmup_epochs: 9.0, ..Default::default() }.schedule(10, 20).unwrap();
        assert_eq!(long.warmup_steps, 20);
        assert!(long.lr(19) < 1e-3 && long.lr(20) == 0.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn rises_then_falls_between_its_ends(warm in 0u64..50, rest in 1u64..200, ratio in 0.0f64..1.0) {
            let s = Schedule {
                kind: ScheduleKind::Cosine, base_lr: 1.0, warmup_start_lr: 0.1, warmup_steps: warm,
                total_steps: warm + rest, final_lr: ratio,
            };
            for step in 0..warm + rest + 3 {
                let (now, next) = (s.lr(step), s.lr(step + 1));
                prop_assert!(now <= 1.0 + 1e-15 && now >= 0.1f64.min(ratio) - 1e-15);
                if step < warm { prop_assert!(next > now) } else { prop_assert!(next <= now + 1e-15) }
            }
        }
    }
}
