//! What all optimizers have in common, and their configuration as data.

use crate::{
    AdamW, AdamWConfig, Error, Gradients, Lamb, LambConfig, Lars, LarsConfig, Muon, MuonConfig, Result, Sgd,
    SgdConfig,
};
use candle_core::Tensor;
use infomax_core::{ParamKind, Params};
use std::collections::BTreeMap;

/// A rule that changes parameters by their gradients.
pub trait Optimizer: Send + std::fmt::Debug {
    /// Changes every trainable parameter that has a gradient; the others stay as they are, with their state.
    ///
    /// # Errors
    /// A learning rate that is negative or not finite; states of another shape than their parameter; what
    /// [`Optimizer::check`] refuses.
    fn step(&mut self, params: &Params, grads: &Gradients, lr: f64) -> Result<()>;

    /// A copy of the state, keyed `KIND.PARAMETER`; empty before the first step.
    fn state(&self) -> Result<BTreeMap<String, Tensor>>;

    /// Continues from a state that [`Optimizer::state`] gave: the steps that follow have the same bits as
    /// those of the optimizer that it came from.
    ///
    /// # Errors
    /// [`Error::State`] for the state of another kind of optimizer; nothing is changed then.
    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()>;

    /// The name in configurations: `sgd`, `adamw`, `lars`, `lamb`, `muon`.
    fn name(&self) -> &'static str;

    /// That the settings fit these parameters: what [`Optimizer::step`] would refuse, before the first step.
    ///
    /// # Errors
    /// [`Error::NoMatch`] for a pattern of a group that matches no trainable parameter, with names that there are.
    fn check(&self, _params: &Params) -> Result<()> {
        Ok(())
    }

    /// Another weight decay from the next step on, of a [`Schedule`](crate::Schedule) for example. Groups with a
    /// weight decay of their own keep it.
    ///
    /// # Errors
    /// A negative value, or an optimizer without weight decay.
    fn set_weight_decay(&mut self, weight_decay: f64) -> Result<()> {
        let reason = "this optimizer has no weight decay";
        Err(Error::Config { key: "weight_decay".into(), value: weight_decay.to_string(), reason })
    }

    /// Another momentum from the next step on: `momentum` of SGD, LARS and Muon, `beta1` of AdamW and LAMB.
    ///
    /// # Errors
    /// A value outside of `[0, 1)`, or an optimizer without momentum.
    fn set_momentum(&mut self, momentum: f64) -> Result<()> {
        let reason = "this optimizer has no momentum";
        Err(Error::Config { key: "momentum".into(), value: momentum.to_string(), reason })
    }
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
    /// Layer-wise adaptive moments.
    Lamb(LambConfig),
    /// Orthogonalized momentum for matrices, AdamW for the rest.
    Muon(MuonConfig),
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self::AdamW(AdamWConfig::default())
    }
}

impl OptimConfig {
    /// The weight decay, as [`Optimizer::set_weight_decay`] replaces it.
    pub fn weight_decay(&self) -> f64 {
        match self {
            Self::Sgd(config) => config.weight_decay,
            Self::AdamW(config) => config.weight_decay,
            Self::Lars(config) => config.weight_decay,
            Self::Lamb(config) => config.weight_decay,
            Self::Muon(config) => config.weight_decay,
        }
    }

    /// The momentum, as [`Optimizer::set_momentum`] replaces it: `momentum` or `beta1`.
    pub fn momentum(&self) -> f64 {
        match self {
            Self::Sgd(config) => config.momentum,
            Self::AdamW(config) => config.beta1,
            Self::Lars(config) => config.momentum,
            Self::Lamb(config) => config.beta1,
            Self::Muon(config) => config.momentum,
        }
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
        OptimConfig::Lamb(config) => Box::new(Lamb::new(config.clone())?),
        OptimConfig::Muon(config) => Box::new(Muon::new(config.clone())?),
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
