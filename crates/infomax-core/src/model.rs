//! What a model offers to training and to evaluation.

use crate::{Context, Embeddings, Params, Result};
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

/// A function from inputs to feature vectors.
pub trait Encoder: std::fmt::Debug + Send + Sync {
    /// Features `(B, feature_dim)` of a batch of inputs, for images `(B, C, H, W)`.
    fn forward(&self, xs: &Tensor, mode: Mode) -> Result<Tensor>;

    /// The width of the features.
    fn feature_dim(&self) -> usize;
}

/// All that is trained together: an encoder with its heads, and a teacher where the method has one.
pub trait Learner: std::fmt::Debug + Send {
    /// The parameters and buffers, by name. A checkpoint holds exactly these.
    fn params(&self) -> &Params;

    /// Embeds the views of a batch: `views[v]` holds view `v` of every sample.
    fn embed(&self, views: &[Tensor], mode: Mode) -> Result<Embeddings>;

    /// The encoder's features in evaluation mode.
    fn features(&self, xs: &Tensor) -> Result<Tensor>;

    /// The width of [`Learner::features`].
    fn feature_dim(&self) -> usize;

    /// Called after each optimiser step (momentum teachers follow here).
    fn after_step(&mut self, _ctx: &Context<'_>) -> Result<()> {
        Ok(())
    }
}
