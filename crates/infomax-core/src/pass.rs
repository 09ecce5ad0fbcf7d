//! What a forward pass of a network is for, and what it may use.

use crate::{Collective, Key, Local};
use candle_core::Tensor;

/// Whether layers use the statistics of the batch (and update the running ones) or the running ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics, dropout on, running statistics updated.
    Train,
    /// Running statistics, nothing random, nothing updated.
    Eval,
}

impl Mode {
    /// Whether this is [`Mode::Train`].
    pub fn is_train(self) -> bool {
        self == Self::Train
    }
}

/// Who looks at what layers give while a pass goes through them, for example to find the first one that overflows.
pub trait Layers: std::fmt::Debug + Send + Sync {
    /// A layer, by the name of its parameters, has given these values. A layer that is part of a larger operation and keeps
    /// no map shows its statistics, and says so behind its name.
    fn saw(&self, layer: &str, values: &Tensor);
}

/// One forward pass: its mode, its randomness, and the processes that it runs in.
///
/// ```
/// use infomax_core::{Key, Pass};
/// let pass = Pass::train(Key::new(3));
/// assert!(pass.is_train() && !Pass::eval().is_train());
/// // A layer draws from a key of its own, so that layers do not depend on each other.
/// let dropout = pass.key.fold_named("blocks.3.drop");
/// assert_ne!(dropout, pass.fold_in(1).key.fold_named("blocks.3.drop"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// Whether this is training or evaluation.
    pub mode: Mode,
    /// The key of what is random in this pass (dropout, stochastic depth). A layer folds its name into it.
    pub key: Key,
    /// The processes that share the batch (synchronized batch norm).
    pub collective: &'a dyn Collective,
    /// Who looks at what the layers give; nobody, usually.
    pub layers: Option<&'a dyn Layers>,
}

impl Pass<'static> {
    /// A training pass of a single process.
    pub fn train(key: Key) -> Self {
        Self { mode: Mode::Train, key, collective: &Local, layers: None }
    }

    /// An evaluation pass: nothing is random.
    pub fn eval() -> Self {
        Self { mode: Mode::Eval, key: Key::new(0), collective: &Local, layers: None }
    }
}

impl Pass<'_> {
    /// Whether this is a training pass.
    pub fn is_train(&self) -> bool {
        self.mode.is_train()
    }

    /// Shows what a layer gives, if somebody looks; the name is made only then.
    pub fn saw(&self, layer: impl FnOnce() -> String, values: &Tensor) {
        if let Some(layers) = self.layers {
            layers.saw(&layer(), values);
        }
    }

    /// The same pass with other randomness: that of its view `i`, for example.
    #[must_use]
    pub fn fold_in(self, i: u64) -> Self {
        Self { key: self.key.fold_in(i), ..self }
    }
}
