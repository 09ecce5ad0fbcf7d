//! Layer-wise adaptive moments.

use crate::adamw::check_moments;
use crate::config::check_lr;
use crate::error::check;
use crate::groups::Groups;
use crate::moments::Moments;
use crate::{Gradients, Optimizer, ParamGroup, Result};
use candle_core::Tensor;
use infomax_core::Params;
use infomax_kernels::update::{self, Slot};
use std::collections::BTreeMap;

/// The settings of [`Lamb`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct LambConfig {
    /// The factor of the running mean of the gradient, in `[0, 1)`.
    pub beta1: f64,
    /// The factor of the running mean of the squared gradient, in `[0, 1)`.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// The weight decay, added to the direction before its norm is taken.
    pub weight_decay: f64,
    /// The largest trust ratio; absent: no bound. timm's `trust_clip` is 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_trust: Option<f64>,
    /// Whether biases and normalization parameters are exempt from decay and adaptation.
    pub exclude_bias_and_norm: bool,
    /// Settings of their own for parameters by a pattern of their names: `match`, `lr_factor`, `weight_decay`,
    /// `trust`.
    pub groups: Vec<ParamGroup>,
}

impl Default for LambConfig {
    /// The settings of the paper: betas 0.9 and 0.999, eps 1e-6, weight decay 0.01, biases and normalizations
    /// exempt.
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-6,
            weight_decay: 0.01,
            max_trust: None,
            exclude_bias_and_norm: true,
            groups: Vec::new(),
        }
    }
}

/// Layer-wise adaptive moments for large batches (You et al., arXiv 1904.00962, algorithm 2 with `phi(z) = z`):
///
/// `r = m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)`, `p <- p - lr q (r + wd p)`, `q = ||p|| / ||r + wd p||`,
///
/// with Adam's moments `m` and `v`. `q = 1` where a norm in it is 0; excluded parameters have `q = 1` and `wd = 0`.
/// The gradient is not normalized beforehand; [`Gradients::clip`] does that where it is wanted.
#[derive(Debug)]
pub struct Lamb {
    config: LambConfig,
    groups: Groups,
    moments: Moments,
}

impl Lamb {
    /// An optimizer without state yet.
    ///
    /// # Errors
    /// A setting that is out of its range.
    pub fn new(config: LambConfig) -> Result<Self> {
        check_moments(config.beta1, config.beta2, config.eps)?;
        check("weight_decay", config.weight_decay, 0.0.., "the weight decay must be at least 0")?;
        if let Some(max) = config.max_trust {
            check("max_trust", max, f64::MIN_POSITIVE.., "the largest trust ratio must be above 0")?;
        }
        let groups = Groups::new(&config.groups, true)?;
        Ok(Self { config, groups, moments: Moments::new() })
    }
}

impl Optimizer for Lamb {
    fn step(&mut self, params: &Params, grads: &Gradients, lr: f64) -> Result<()> {
        check_lr(lr)?;
        self.check(params)?;
        let LambConfig { beta1, beta2, eps, weight_decay, exclude_bias_and_norm, .. } = self.config;
        let (mut moving, mut adapt) = (Vec::new(), Vec::new());
        for (name, param) in params.trainable() {
            let Some(g) = grads.get(&name) else { continue };
            let at = self.groups.of((&name, &param), lr, weight_decay, exclude_bias_and_norm);
            let next = self.moments.next(&name, &param.var)?;
            adapt.push(at.trust);
            moving.push((param.var.as_tensor().clone(), g, next, at));
        }
        let slots: Vec<Slot<'_>> =
            moving.iter().map(|(param, grad, next, at)| next.slot(param, grad, at.lr, at.decay)).collect();
        let cfg = update::Lamb { betas: (beta1, beta2), eps, max_trust: self.config.max_trust };
        Ok(update::lamb_step(&slots, &adapt, cfg)?)
    }

    fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        self.moments.save(&mut state)?;
        Ok(state)
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        self.moments = Moments::load("lamb", state)?;
        Ok(())
    }

    fn name(&self) -> &'static str {
        "lamb"
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
