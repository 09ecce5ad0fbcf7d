//! Stochastic gradient descent with momentum.

use crate::config::check_lr;
use crate::error::check;
use crate::groups::{Groups, Setting};
use crate::slots::{Slots, split};
use crate::{Gradients, Optimizer, ParamGroup, Result};
use candle_core::Tensor;
use infomax_core::Params;
use infomax_kernels::update::{self, Slot};
use std::collections::BTreeMap;

/// The settings of [`Sgd`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct SgdConfig {
    /// The factor `mu` of the momentum, in `[0, 1)`.
    pub momentum: f64,
    /// Whether the step looks ahead (Nesterov); needs a momentum.
    pub nesterov: bool,
    /// The factor of the L2 penalty, added to the gradient.
    pub weight_decay: f64,
    /// Whether biases and normalization parameters are exempt from the decay.
    pub exclude_bias_and_norm: bool,
    /// Settings of their own for parameters by a pattern of their names: `match`, `lr_factor`, `weight_decay`.
    pub groups: Vec<ParamGroup>,
}

impl Default for SgdConfig {
    /// Momentum 0.9, no weight decay.
    fn default() -> Self {
        Self {
            momentum: 0.9,
            nesterov: false,
            weight_decay: 0.0,
            exclude_bias_and_norm: true,
            groups: Vec::new(),
        }
    }
}

/// Stochastic gradient descent with momentum, in the form of `torch.optim.SGD` without dampening:
///
/// `d = g + wd p`, `m <- mu m + d`, `p <- p - lr m`, or with Nesterov's look-ahead `p <- p - lr (d + mu m)`.
///
/// The learning rate is outside of the momentum, so a change of it acts at once on the whole of `m`.
/// With `mu = 0` no state is kept.
#[derive(Debug)]
pub struct Sgd {
    config: SgdConfig,
    groups: Groups,
    momentum: Slots,
}

impl Sgd {
    /// An optimizer without state yet.
    ///
    /// # Errors
    /// A setting that is out of its range.
    pub fn new(config: SgdConfig) -> Result<Self> {
        check("momentum", config.momentum, 0.0..1.0, "the momentum must be in [0, 1)")?;
        check("weight_decay", config.weight_decay, 0.0.., "the weight decay must be at least 0")?;
        if config.nesterov {
            let reason = "Nesterov's step (`nesterov = true`) needs a momentum above 0";
            check("momentum", config.momentum, f64::MIN_POSITIVE.., reason)?;
        }
        let groups = Groups::new(&config.groups, false)?;
        Ok(Self { config, groups, momentum: Slots::new("momentum") })
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, params: &Params, grads: &Gradients, lr: f64) -> Result<()> {
        check_lr(lr)?;
        self.check(params)?;
        let SgdConfig { momentum: mu, nesterov, weight_decay, exclude_bias_and_norm, .. } = self.config;
        let mut moving = Vec::new();
        for (name, param) in params.trainable() {
            let Some(g) = grads.get(&name) else { continue };
            let Setting { lr, decay, .. } =
                self.groups.of((&name, &param), lr, weight_decay, exclude_bias_and_norm);
            if mu == 0.0 {
                // p - lr (g + wd p)
                update::axpy(&param.var, 1.0 - lr * decay, -lr, g)?;
                continue;
            }
            let m = self.momentum.get(&name, &param.var)?;
            moving.push((param.var.clone(), g, m, lr, decay));
        }
        let slots: Vec<Slot<'_>> = moving
            .iter()
            .map(|(param, grad, first, lr, decay)| Slot {
                param,
                grad,
                first,
                second: None,
                lr: *lr,
                decay: *decay,
                scale: 1.0,
                step: 0,
            })
            .collect();
        Ok(update::sgd_step(&slots, mu, nesterov)?)
    }

    fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        self.momentum.save(&mut state)?;
        Ok(state)
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        if let Some(momentum) = split("sgd", &["momentum"], state)?.pop() {
            self.momentum = momentum;
        }
        Ok(())
    }

    fn name(&self) -> &'static str {
        "sgd"
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
        check("momentum", momentum, 0.0..1.0, "the momentum must be in [0, 1)")?;
        if self.config.nesterov {
            check("momentum", momentum, f64::MIN_POSITIVE.., "Nesterov's step needs a momentum above 0")?;
        }
        self.config.momentum = momentum;
        Ok(())
    }
}
