//! What changes from step to step beside the learning rate.

use crate::Result;
use infomax_core::Learner;
use infomax_optim::{Optimizer, Schedule};

/// Schedules of other values than the learning rate; `None` leaves a value to the optimizer or the learner.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Courses {
    /// The weight decay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<Schedule>,
    /// The momentum of the optimizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub momentum: Option<Schedule>,
    /// The momentum of the teacher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher_momentum: Option<Schedule>,
}

impl Courses {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The values of a step in a run of `total` steps.
    pub(crate) fn at(&self, step: u64, total: Option<u64>) -> Values {
        let value = |schedule: Option<Schedule>| {
            schedule.map(|schedule| total.map_or(schedule, |total| schedule.over(total)).value(step))
        };
        Values {
            weight_decay: value(self.weight_decay),
            momentum: value(self.momentum),
            teacher_momentum: value(self.teacher_momentum),
        }
    }

    /// Refuses what optimizer or learner would refuse in some step: every schedule stays between its corners.
    ///
    /// # Errors
    /// The message of the optimizer or the learner.
    pub fn check(&self, optimizer: &mut dyn Optimizer, learner: &mut dyn Learner) -> Result<()> {
        let corners = |schedule: Option<Schedule>| {
            schedule.into_iter().flat_map(|s| [s.warmup_start_lr, s.final_lr, s.base_lr])
        };
        for value in corners(self.weight_decay) {
            optimizer.set_weight_decay(value)?;
        }
        for value in corners(self.momentum) {
            optimizer.set_momentum(value)?;
        }
        for value in corners(self.teacher_momentum) {
            learner.set_teacher_momentum(value)?;
        }
        Ok(())
    }
}

/// The values of one step.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Values {
    pub(crate) weight_decay: Option<f64>,
    pub(crate) momentum: Option<f64>,
    pub(crate) teacher_momentum: Option<f64>,
}

impl Values {
    /// Hands them over, before the optimizer's step.
    pub(crate) fn set(&self, optimizer: &mut dyn Optimizer, learner: &mut dyn Learner) -> Result<()> {
        if let Some(value) = self.weight_decay {
            optimizer.set_weight_decay(value)?;
        }
        if let Some(value) = self.momentum {
            optimizer.set_momentum(value)?;
        }
        if let Some(value) = self.teacher_momentum {
            learner.set_teacher_momentum(value)?;
        }
        Ok(())
    }
}
