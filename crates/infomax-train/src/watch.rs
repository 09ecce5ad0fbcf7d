//! Measurements beside the training.

use crate::Result;
use candle_core::Tensor;
use infomax_core::{Embeddings, Learner};
use std::collections::BTreeMap;

/// What a [`Watcher`] sees after a step.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The number of finished steps.
    pub step: u64,
    /// The embeddings of the step's batch, without a graph, as they were before the optimizer's step.
    pub embeddings: &'a Embeddings,
    /// The classes of the samples, where all are known.
    pub labels: Option<&'a [u32]>,
    /// The model after the step.
    pub learner: &'a dyn Learner,
}

/// Measures something beside the training, and changes nothing of it: online probes, ranks. What it draws comes from
/// keys of its own, and its state is part of each checkpoint, so that a resumed run reports what the uninterrupted one
/// would have.
pub trait Watcher: std::fmt::Debug + Send {
    /// The names of all figures that it may report.
    fn names(&self) -> Vec<String>;

    /// Looks at a step, and reports what there is to report: figures by name.
    ///
    /// # Errors
    /// What makes a measurement impossible for good; a batch that cannot be measured reports nothing.
    fn watch(&mut self, seen: &Seen<'_>) -> Result<BTreeMap<String, f64>>;

    /// What it carries from step to step.
    fn state(&self) -> BTreeMap<String, Tensor> {
        BTreeMap::new()
    }

    /// Continues from a state that [`Watcher::state`] gave; empty for a checkpoint without one.
    ///
    /// # Errors
    /// The state of another watcher.
    fn load_state(&mut self, _state: &BTreeMap<String, Tensor>) -> Result<()> {
        Ok(())
    }
}
