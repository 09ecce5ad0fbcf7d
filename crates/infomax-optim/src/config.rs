//! What all optimizers have in common, and their configuration as data.

use crate::{AdamW, AdamWConfig, Error, Gradients, Lars, LarsConfig, Result, Sgd, SgdConfig};
use candle_core::Tensor;
use infomax_core::{ParamKind, Params};
use std::collections::BTreeMap;

/// A rule that changes parameters by their gradients.
pub trait Optimizer: Send + std::fmt::Debug {
    /// Changes every trainable parameter that has a gradient; the others stay as they are, with their state.
    ///
    /// # Errors
    /// A learning rate that is negative or not finite; states of another shape than their parameter.
    fn step(&mut self, params: &Params, grads: &Gradients, lr: f64) -> Result<()>;

    /// A copy of the state, keyed `KIND.PARAMETER`; empty before the first step.
    fn state(&self) -> Result<BTreeMap<String, Tensor>>;

    /// Continues from a state that [`Optimizer::state`] gave: the steps that follow have the same bits as
    /// those of the optimizer that it came from.
    ///
    /// # Errors
    /// [`Error::State`] for the state of another kind of optimizer; nothing is changed then.
    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()>;

    /// The name in configurations: `sgd`, `adamw`, `lars`.
    fn name(&self) -> &'static str;
}

/// An optimizer with its settings. In TOML:
///
/// ```toml
/// name = "lars"
/// momentum = 0.9
/// weight_decay = 1e-6
/// ```
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "name", rename_all = "lowercase")]
#[non_exhaustive]
pub enum OptimConfig {
    /// Stochastic gradient descent with momentum.
    Sgd(SgdConfig),
    /// Adam with decoupled weight decay.
    AdamW(AdamWConfig),
    /// Layer-wise adaptive rate scaling.
    Lars(LarsConfig),
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self::AdamW(AdamWConfig::default())
    }
}

/// Builds an optimizer.
///
/// # Errors
/// A setting that is out of its range.
pub fn build(config: &OptimConfig) -> Result<Box<dyn Optimizer>> {
    Ok(match config {
        OptimConfig::Sgd(config) => Box::new(Sgd::new(config.clone())?),
        OptimConfig::AdamW(config) => Box::new(AdamW::new(config.clone())?),
        OptimConfig::Lars(config) => Box::new(Lars::new(config.clone())?),
    })
}

/// Whether weight decay (and the adaptation of LARS) is for a parameter of this kind.
pub(crate) fn decays(kind: ParamKind, exclude_bias_and_norm: bool) -> bool {
    match kind {
        ParamKind::Weight => true,
        ParamKind::Bias | ParamKind::Norm => !exclude_bias_and_norm,
        ParamKind::Buffer => false,
    }
}

/// Refuses a learning rate that is negative or not finite.
pub(crate) fn check_lr(lr: f64) -> Result<()> {
    if lr.is_finite() && lr >= 0.0 {
        return Ok(());
    }
    let reason = "a learning rate is a finite number of at least 0";
    Err(Error::Config { key: "lr".into(), value: lr.to_string(), reason })
}
