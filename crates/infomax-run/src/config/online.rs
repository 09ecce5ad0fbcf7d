//! The settings of what is measured while training goes on.

use crate::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is measured while training goes on, beside the monitor of collapse; nothing of it changes the training. The
/// figures are in `metrics.jsonl`, and `train.stop_if` may name them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OnlineConfig {
    /// RankMe, effective rank, alpha-ReQ, alignment and uniformity of the projections and the features of the batch,
    /// every so many steps; 0 for never.
    pub every: u64,
    /// Whether a linear classifier learns along on detached features. It needs labels, and reports its accuracy on each
    /// batch before it learns from it, over the last `every` steps.
    pub linear: bool,
    /// The learning rate of that classifier.
    pub linear_lr: f64,
    /// The accuracy of nearest neighbors on held-out images, every so many steps; 0 for never. It needs labels.
    pub knn_every: u64,
    /// So many training images are the neighbors, and at most as many held-out ones are classified.
    pub knn_images: usize,
}

impl Default for OnlineConfig {
    fn default() -> Self {
        Self { every: 50, linear: false, linear_lr: 2e-3, knn_every: 0, knn_images: 2000 }
    }
}

impl OnlineConfig {
    /// # Errors
    /// A setting out of its range.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |key: &str, value: String, why: &str| {
            Err(Error::Config(format!("train.online.{key} = {value}: {why}")))
        };
        if !(self.linear_lr > 0.0 && self.linear_lr.is_finite()) {
            return refuse("linear_lr", self.linear_lr.to_string(), "it must be above 0");
        }
        if self.linear && self.every == 0 {
            return refuse("linear", "true".into(), "its accuracy is reported every `every` steps: set that");
        }
        if self.knn_images < 2 {
            return refuse("knn_images", self.knn_images.to_string(), "it must be at least 2");
        }
        Ok(())
    }
}
