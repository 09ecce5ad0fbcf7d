//! What a model offers to training and to evaluation.

use crate::{Context, Embeddings, Params, Pass, Result, View};
use candle_core::Tensor;

/// A function from inputs to feature vectors.
pub trait Encoder: std::fmt::Debug + Send + Sync {
    /// Features `(B, feature_dim)` of a batch of inputs, for images `(B, C, H, W)`.
    ///
    /// # Errors
    /// Inputs of a shape that the encoder does not take.
    fn forward(&self, xs: &Tensor, pass: &Pass<'_>) -> Result<Tensor>;

    /// Features as [`Encoder::forward`] gives them, with the map that they are pooled from; `None` where the encoder
    /// has no such map.
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    fn forward_mapped(&self, _xs: &Tensor, _pass: &Pass<'_>) -> Result<Option<Mapped>> {
        Ok(None)
    }

    /// The width of the features.
    fn feature_dim(&self) -> usize;
}

/// Features with the map that they are pooled from.
#[derive(Clone, Debug)]
pub struct Mapped {
    /// The features `(B, D)`.
    pub features: Tensor,
    /// The map `(B, rows * columns, D)`, row by row from the upper left corner.
    pub map: Tensor,
    /// Its rows and columns.
    pub grid: (usize, usize),
}

impl Mapped {
    /// Features with a map of images `(B, D, rows, columns)`.
    ///
    /// # Errors
    /// A map of another rank.
    pub fn of_images(features: Tensor, map: &Tensor) -> Result<Self> {
        let (_, _, rows, columns) = map.dims4()?;
        let map = map.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        Ok(Self { features, map, grid: (rows, columns) })
    }
}

/// All that is trained together: an encoder with its heads, and a teacher where the method has one.
pub trait Learner: std::fmt::Debug + Send {
    /// The parameters and buffers, by name. A checkpoint holds exactly these.
    fn params(&self) -> &Params;

    /// The encoder that is trained: what evaluation and exports look at.
    fn encoder(&self) -> &dyn Encoder;

    /// Embeds the views of a batch. Teachers embed the global views only.
    ///
    /// # Errors
    /// Views that the encoder does not take.
    fn embed(&self, views: &[View], pass: &Pass<'_>) -> Result<Embeddings>;

    /// The encoder's features in evaluation mode, without a gradient: a bank of them does not keep every
    /// activation alive.
    ///
    /// # Errors
    /// As [`Encoder::forward`].
    fn features(&self, xs: &Tensor) -> Result<Tensor> {
        Ok(self.encoder().forward(xs, &Pass::eval())?.detach())
    }

    /// The width of [`Learner::features`].
    fn feature_dim(&self) -> usize {
        self.encoder().feature_dim()
    }

    /// Why the embedding of a sample in training depends on the other samples of its batch (batch normalization);
    /// `None` if it does not, and the batch may be embedded in parts.
    ///
    /// Who answers `None` draws what is random for each sample by itself, from `pass.key` and the number of the sample,
    /// `pass.collective.rank() * batch + i`: then parts draw what the whole batch would.
    fn batch_dependence(&self) -> Option<String> {
        Some("the model does not say whether a sample depends on the rest of its batch".to_owned())
    }

    /// The momentum with which the teacher follows after the step of `ctx`; `None` without a teacher.
    fn teacher_momentum(&self, _ctx: &Context<'_>) -> Option<f64> {
        None
    }

    /// Another momentum of the teacher from now on, in the place of the course that it has by itself.
    ///
    /// # Errors
    /// A value outside of `[0, 1]`, or a model without a teacher.
    fn set_teacher_momentum(&mut self, momentum: f64) -> Result<()> {
        Err(crate::Error::config("teacher_momentum", momentum, "this model has no teacher"))
    }

    /// Called after each optimizer step (momentum teachers follow here).
    ///
    /// # Errors
    /// Parameters that do not fit each other.
    fn after_step(&mut self, _ctx: &Context<'_>) -> Result<()> {
        Ok(())
    }
}
