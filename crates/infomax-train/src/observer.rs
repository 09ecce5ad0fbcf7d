//! Who watches a run.

use crate::{Health, StepMetrics};
use std::path::Path;

/// The end of an epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpochSummary {
    /// The epoch that ended, from 0.
    pub epoch: u64,
    /// The number of finished steps.
    pub step: u64,
    /// The mean of the objective over the steps of the epoch that this process made.
    pub mean_total: f64,
}

/// Is told what happens in a run: progress bars, dashboards, tests. Every method does nothing by default.
pub trait Observer {
    /// After every step.
    fn on_step(&mut self, _metrics: &StepMetrics) {}

    /// After every epoch.
    fn on_epoch(&mut self, _summary: &EpochSummary) {}

    /// After a checkpoint was written.
    fn on_checkpoint(&mut self, _path: &Path, _step: u64) {}

    /// After a step failed and left a capsule of so many bytes.
    fn on_capsule(&mut self, _path: &Path, _bytes: u64) {}

    /// After a step failed and its capsule could not be written, with the reason.
    fn on_no_capsule(&mut self, _reason: &str) {}

    /// When the monitor's verdict changes.
    fn on_health(&mut self, _health: &Health) {}

    /// Asked after each step: a reason to end the run here, saved.
    fn stop_reason(&mut self) -> Option<String> {
        None
    }
}

/// An observer that does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
