//! Adam with decoupled weight decay.

use crate::config::check_lr;
use crate::error::check;
use crate::groups::Groups;
use crate::moments::Moments;
use crate::{Gradients, Optimizer, ParamGroup, Result};
use candle_core::Tensor;
use infomax_core::Params;
use infomax_kernels::update::{self, Slot};
use std::collections::BTreeMap;

/// The settings of [`AdamW`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// The factor of the running mean of the gradient, in `[0, 1)`.
    pub beta1: f64,
    /// The factor of the running mean of the squared gradient, in `[0, 1)`.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// The decoupled weight decay: each step multiplies a parameter by `1 - lr weight_decay`.
    pub weight_decay: f64,
    /// Whether biases and normalization parameters are exempt from the decay.
    pub exclude_bias_and_norm: bool,
    /// Settings of their own for parameters by a pattern of their names: `match`, `lr_factor`, `weight_decay`.
    pub groups: Vec<ParamGroup>,
}

impl Default for AdamWConfig {
    /// The defaults of `torch.optim.AdamW`: betas 0.9 and 0.999, eps 1e-8, weight decay 0.01.
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
            exclude_bias_and_norm: true,
            groups: Vec::new(),
        }
    }
}

/// Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), as `torch.optim.AdamW`:
///
/// `p <- (1 - lr wd) p`, `m <- m + (1 - b1)(g - m)`, `v <- b2 v + (1 - b2) g^2`,
/// `p <- p - lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)`,
///
/// where `t` counts the steps in which the parameter had a gradient.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    groups: Groups,
    moments: Moments,
}

impl AdamW {
    /// An optimizer without state yet.
    ///
    /// # Errors
    /// A setting that is out of its range.
    pub fn new(config: AdamWConfig) -> Result<Self> {
        check_moments(config.beta1, config.beta2, config.eps)?;
        check("weight_decay", config.weight_decay, 0.0.., "the weight decay must be at least 0")?;
        let groups = Groups::new(&config.groups, false)?;
        Ok(Self { config, groups, moments: Moments::new() })
    }
}

/// Refuses settings of Adam's moments that are out of their range.
pub(crate) fn check_moments(beta1: f64, beta2: f64, eps: f64) -> Result<()> {
    check("beta1", beta1, 0.0..1.0, "a beta must be in [0, 1)")?;
    check("beta2", beta2, 0.0..1.0, "a beta must be in [0, 1)")?;
    check("eps", eps, 0.0.., "eps must be at least 0")
}

impl Optimizer for AdamW {
    fn step(&mut self, params: &Params, grads: &Gradients, lr: f64) -> Result<()> {
        check_lr(lr)?;
        self.check(params)?;
        let AdamWConfig { beta1, beta2, eps, weight_decay, exclude_bias_and_norm, .. } = self.config;
        let mut moving = Vec::new();
        for (name, param) in params.trainable() {
            let Some(g) = grads.get(&name) else { continue };
            let at = self.groups.of((&name, &param), lr, weight_decay, exclude_bias_and_norm);
            let next = self.moments.next(&name, &param.var)?;
            moving.push((param.var.clone(), g, next, at));
        }
        let slots: Vec<Slot<'_>> =
            moving.iter().map(|(param, grad, next, at)| next.slot(param, grad, at.lr, at.decay)).collect();
        Ok(update::adamw_step(&slots, (beta1, beta2), eps)?)
    }

    fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        self.moments.save(&mut state)?;
        Ok(state)
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        self.moments = Moments::load("adamw", state)?;
        Ok(())
    }

    fn name(&self) -> &'static str {
        "adamw"
    }

    fn check(&self, params: &Params) -> Result<()> {
        self.groups.check(params)
    }

    fn set_weight_decay(&mut self, weight_decay: f64) -> Result<()> {
        check("weight_decay", weight_decay, 0.0.., "the weight decay must be at least 0")?;
        self.config.weight_decay = weight_decay;
        Ok(())
    }

    fn set_momentum(&mut self, momentum: f64) -> Result<()> {
        check("beta1", momentum, 0.0..1.0, "a beta must be in [0, 1)")?;
        self.config.beta1 = momentum;
        Ok(())
    }
}
