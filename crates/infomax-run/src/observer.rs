//! Who watches a run.

use infomax_train::Observer;

/// Is told what happens in a run, from the opening of the data to the evaluation. Every method does nothing by
/// default.
pub trait RunObserver: Observer {
    /// Something worth showing: what is trained on what, and where it goes.
    fn on_note(&mut self, _line: &str) {}

    /// Something that the user should look at.
    fn on_warning(&mut self, _line: &str) {}

    /// Before the first step: so many steps of so many samples in so many epochs, `done` of them made already.
    fn on_start(&mut self, _plan: &Plan) {}

    /// Training ended, finished or not.
    fn on_trained(&mut self) {}

    /// The evaluation has seen `done` of `total` images and is at `what`; at the end `done` equals `total`.
    fn on_evaluation(&mut self, _done: u64, _total: u64, _what: &str) {}
}

/// The size of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Passes over the data.
    pub epochs: u64,
    /// Steps of one pass.
    pub per_epoch: u64,
    /// Whether the run ends by time: then epochs and steps are not known before.
    pub timed: bool,
    /// Steps in all.
    pub steps: u64,
    /// Steps that an earlier part of the run has made.
    pub done: u64,
    /// Samples in a batch.
    pub batch: usize,
}

/// An observer that does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
impl RunObserver for Silent {}
