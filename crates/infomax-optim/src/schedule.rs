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
    /// A straight line from the base to the final rate.
    Linear,
    /// The base rate, multiplied by `step_factor` after every `step_epochs` epochs of the run.
    Step,
    /// Half a cosine up during the warm-up and half a cosine down after it (arXiv 1708.07120).
    OneCycle,
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
    /// The final learning rate as a part of `lr`: where `cosine`, `linear` and `one-cycle` end.
    pub final_lr_ratio: f64,
    /// The course after the warm-up.
    pub kind: ScheduleKind,
    /// The epochs between the drops of `step`, counted from the start of the run; parts of an epoch are allowed.
    pub step_epochs: f64,
    /// The factor of each drop of `step`, in `(0, 1]`.
    pub step_factor: f64,
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
            step_epochs: 30.0,
            step_factor: 0.1,
        }
    }
}

impl ScheduleConfig {
    /// The schedule of a run of `total_steps` steps. A warm-up that is longer than the run is cut to it.
    ///
    /// # Errors
    /// A setting that is out of its range, an epoch without steps, or one cycle without a warm-up.
    pub fn schedule(&self, steps_per_epoch: u64, total_steps: u64) -> Result<Schedule> {
        check("lr", self.lr, f64::MIN_POSITIVE.., "the learning rate must be above 0")?;
        check("warmup_epochs", self.warmup_epochs, 0.0.., "the warm-up must be at least 0 epochs")?;
        check("warmup_start_lr", self.warmup_start_lr, 0.0.., "the first rate must be at least 0")?;
        check("final_lr_ratio", self.final_lr_ratio, 0.0..=1.0, "the ratio must be in [0, 1]")?;
        if steps_per_epoch == 0 {
            let reason = "an epoch needs at least one step: is the batch larger than the data set?";
            return Err(Error::Config { key: "steps_per_epoch".into(), value: "0".into(), reason });
        }
        if self.kind == ScheduleKind::OneCycle && self.warmup_epochs == 0.0 {
            let reason = "one cycle rises during the warm-up: give it some epochs (0.3 of the run is usual)";
            return Err(Error::Config { key: "warmup_epochs".into(), value: "0".into(), reason });
        }
        check("step_epochs", self.step_epochs, f64::MIN_POSITIVE.., "drops must be some epochs apart")?;
        let range = f64::MIN_POSITIVE..=1.0;
        check("step_factor", self.step_factor, range, "the factor of a drop must be in (0, 1]")?;
        let steps = |epochs: f64| (epochs * steps_per_epoch as f64).round() as u64;
        let warmup_steps = steps(self.warmup_epochs);
        let (step_every, step_factor) = match self.kind {
            ScheduleKind::Step => (steps(self.step_epochs).max(1), self.step_factor),
            _ => (0, 1.0),
        };
        Ok(Schedule {
            kind: self.kind,
            base_lr: self.lr,
            warmup_start_lr: self.warmup_start_lr,
            warmup_steps: warmup_steps.min(total_steps),
            total_steps,
            final_lr: self.lr * self.final_lr_ratio,
            step_every,
            step_factor,
        })
    }
}

/// A warm-up, then a cosine, a line, steps or a constant; the value changes with every step.
///
/// Most often it is the learning rate, hence the names. It serves a weight decay or a momentum as well, which may
/// rise instead of fall:
///
/// ```
/// use infomax_optim::{OptimConfig, Schedule, build};
/// # fn main() -> infomax_optim::Result<()> {
/// let mut optimizer = build(&OptimConfig::default())?;
/// let weight_decay = Schedule::cosine(0.04, 0.4, 1000); // DINO, arXiv 2104.14294
/// let momentum = Schedule { warmup_start_lr: 0.95, final_lr: 0.95, ..Schedule::one_cycle(0.85, 1000) };
/// for step in 0..1000 {
///     optimizer.set_weight_decay(weight_decay.value(step))?;
///     optimizer.set_momentum(momentum.value(step))?;
/// }
/// assert!((weight_decay.value(500) - 0.22).abs() < 1e-12);
/// assert_eq!((momentum.value(0), momentum.value(300), momentum.value(1000)), (0.95, 0.85, 0.95));
/// # Ok(())
/// # }
/// ```
///
/// ```
/// use infomax_optim::{Schedule, ScheduleKind};
/// let schedule = Schedule { warmup_steps: 10, ..Schedule::cosine(0.4, 0.0, 110) };
/// assert_eq!(schedule.kind, ScheduleKind::Cosine);
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
    /// The value at step `warmup_steps`.
    pub base_lr: f64,
    /// The value at step 0 if there is a warm-up.
    pub warmup_start_lr: f64,
    /// The length of the warm-up.
    pub warmup_steps: u64,
    /// The length of the run, warm-up included.
    pub total_steps: u64,
    /// The value of a cosine or a line at step `total_steps` and after it.
    pub final_lr: f64,
    /// The steps between drops, counted from step 0; 0: none.
    #[serde(default)]
    pub step_every: u64,
    /// The factor of a drop.
    #[serde(default = "one")]
    pub step_factor: f64,
}

/// The factor of schedules that were written before there were drops.
fn one() -> f64 {
    1.0
}

impl Schedule {
    /// One value throughout.
    pub fn constant(value: f64) -> Self {
        Self {
            kind: ScheduleKind::Constant,
            base_lr: value,
            warmup_start_lr: 0.0,
            warmup_steps: 0,
            total_steps: 0,
            final_lr: value,
            step_every: 0,
            step_factor: 1.0,
        }
    }

    /// Half a cosine from one value to another over `total_steps`.
    pub fn cosine(from: f64, to: f64, total_steps: u64) -> Self {
        Self { kind: ScheduleKind::Cosine, total_steps, final_lr: to, ..Self::constant(from) }
    }

    /// A straight line from one value to another over `total_steps`.
    pub fn linear(from: f64, to: f64, total_steps: u64) -> Self {
        Self { kind: ScheduleKind::Linear, ..Self::cosine(from, to, total_steps) }
    }

    /// `base` times `factor` after every `every` steps.
    pub fn steps(base: f64, factor: f64, every: u64) -> Self {
        Self { kind: ScheduleKind::Step, step_every: every, step_factor: factor, ..Self::constant(base) }
    }

    /// One cycle (arXiv 1708.07120) with the defaults of `torch.optim.lr_scheduler.OneCycleLR`: from `max / 25` to
    /// `max` in three tenths of the steps, then down to `max / 250000`. The largest value is at the first step after
    /// the rise and the last one at `total_steps`; PyTorch has both one step earlier.
    pub fn one_cycle(max: f64, total_steps: u64) -> Self {
        Self {
            kind: ScheduleKind::OneCycle,
            warmup_start_lr: max / 25.0,
            warmup_steps: (total_steps as f64 * 0.3).round() as u64,
            ..Self::cosine(max, max / 25.0 / 1e4, total_steps)
        }
    }

    /// The learning rate of the step that follows `step` finished ones. In the warm-up, with `x = step / warmup`:
    /// `start + (base - start) x`, or for one cycle half a cosine, `start + (base - start) (1 - cos(pi x)) / 2`.
    /// After it, with `x` from 0 to 1 over the rest: cosine and one cycle
    /// `final + (base - final) (1 + cos(pi x)) / 2`, linear `base + (final - base) x`; step
    /// `base factor^floor(step / every)`.
    pub fn lr(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            let x = step as f64 / self.warmup_steps as f64;
            let x = if self.kind == ScheduleKind::OneCycle { 0.5 * (1.0 - (PI * x).cos()) } else { x };
            return self.warmup_start_lr + (self.base_lr - self.warmup_start_lr) * x;
        }
        let rest = || (step - self.warmup_steps) as f64 / (self.total_steps - self.warmup_steps) as f64;
        match self.kind {
            ScheduleKind::Constant => self.base_lr,
            // A count beyond i32 has long underflowed.
            ScheduleKind::Step => match step.checked_div(self.step_every) {
                Some(drops) => self.base_lr * self.step_factor.powi(drops.min(i32::MAX as u64) as i32),
                None => self.base_lr,
            },
            _ if step >= self.total_steps => self.final_lr,
            ScheduleKind::Linear => self.base_lr + (self.final_lr - self.base_lr) * rest(),
            ScheduleKind::Cosine | ScheduleKind::OneCycle => {
                self.final_lr + (self.base_lr - self.final_lr) * 0.5 * (1.0 + (PI * rest()).cos())
            }
        }
    }

    /// The same course over another number of steps, of which the warm-up keeps its own.
    #[must_use]
    pub fn over(self, total_steps: u64) -> Self {
        Self { total_steps, warmup_steps: self.warmup_steps.min(total_steps), ..self }
    }

    /// [`Schedule::lr`], for a weight decay or a momentum.
    pub fn value(&self, step: u64) -> f64 {
        self.lr(step)
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
            ..ScheduleConfig::default()
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

    #[test]
    fn lines_steps_and_cycles() {
        let line = Schedule { warmup_steps: 2, ..Schedule::linear(1.0, 0.2, 10) };
        let values: Vec<f64> = (0..12).map(|step| line.lr(step)).collect();
        let expected = [0.0, 0.5, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.2];
        assert!(values.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{values:?}");

        // 30 epochs of 2 steps, ten times less after every 10 epochs: the rates of He et al., arXiv:1512.03385.
        let config =
            ScheduleConfig { kind: ScheduleKind::Step, lr: 0.1, step_epochs: 10.0, ..Default::default() };
        let steps = config.schedule(2, 60).unwrap();
        for (step, lr) in [(0, 0.1), (19, 0.1), (20, 0.01), (39, 0.01), (40, 1e-3), (59, 1e-3), (60, 1e-4)] {
            assert!((steps.lr(step) - lr).abs() < 1e-16, "step {step}: {}", steps.lr(step));
        }
        assert_eq!(steps, Schedule { total_steps: 60, final_lr: 0.0, ..Schedule::steps(0.1, 0.1, 20) });

        // torch.optim.lr_scheduler.OneCycleLR(max_lr=1, total_steps=101): steps 0, 15, 29 (the top), 64, 100.
        let cycle = Schedule::one_cycle(1.0, 100);
        let torch = |from: f64, to: f64, x: f64| to + (from - to) / 2.0 * (1.0 + (PI * x).cos());
        for (step, value) in
            [(0, 0.04), (15, torch(0.04, 1.0, 0.5)), (30, 1.0), (65, torch(1.0, 4e-6, 0.5)), (100, 4e-6)]
        {
            assert!((cycle.value(step) - value).abs() < 1e-15, "step {step}: {}", cycle.value(step));
        }
        let none = ScheduleConfig { kind: ScheduleKind::OneCycle, ..Default::default() }.schedule(1, 10);
        assert!(none.unwrap_err().to_string().contains("warmup_epochs"));
        let flat = ScheduleConfig { kind: ScheduleKind::Step, step_epochs: 0.0, ..Default::default() };
        assert!(flat.schedule(1, 10).is_err());
    }

    #[test]
    fn schedules_of_earlier_versions_are_read() {
        let text = r#"{"kind":"cosine","base_lr":0.4,"warmup_start_lr":0.0,"warmup_steps":3,"total_steps":9,
            "final_lr":0.1}"#;
        let read: Schedule = serde_json::from_str(text).unwrap();
        let config =
            ScheduleConfig { lr: 0.4, warmup_epochs: 3.0, final_lr_ratio: 0.25, ..Default::default() };
        assert_eq!(read, config.schedule(1, 9).unwrap());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn rises_then_falls_between_its_ends(warm in 0u64..50, rest in 1u64..200, ratio in 0.0f64..1.0) {
            let s = Schedule {
                kind: ScheduleKind::Cosine, base_lr: 1.0, warmup_start_lr: 0.1, warmup_steps: warm,
                total_steps: warm + rest, final_lr: ratio, ..Schedule::constant(1.0)
            };
            for step in 0..warm + rest + 3 {
                let (now, next) = (s.lr(step), s.lr(step + 1));
                prop_assert!(now <= 1.0 + 1e-15 && now >= 0.1f64.min(ratio) - 1e-15);
                if step < warm { prop_assert!(next > now) } else { prop_assert!(next <= now + 1e-15) }
            }
        }
    }
}
