//! Layer-wise adaptive rate scaling.

use crate::config::check_lr;
use crate::error::check;
use crate::groups::{Groups, Setting};
use crate::slots::{Slots, split};
use crate::{Gradients, Optimizer, ParamGroup, Result};
use candle_core::Tensor;
use infomax_core::Params;
use infomax_kernels::update::{self, Slot};
use std::collections::BTreeMap;

/// Where the weight decay enters the trust ratio of [`Lars`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LarsForm {
    /// The code published with VICReg (and Barlow Twins): `q = eta ||p|| / ||g + wd p||`, no epsilon.
    #[default]
    Official,
    /// solo-learn (and lightly): `q = eta ||p|| / (||g|| + wd ||p|| + 1e-8)`.
    SoloLearn,
}

/// The settings of [`Lars`].
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct LarsConfig {
    /// The factor `mu` of the momentum, in `[0, 1)`.
    pub momentum: f64,
    /// The factor of the L2 penalty, added to the gradient before it is scaled.
    pub weight_decay: f64,
    /// The trust coefficient `eta`.
    pub eta: f64,
    /// The form of the trust ratio.
    pub form: LarsForm,
    /// Whether the rate of a layer is at most `lr`: `q <- min(q / lr, 1)`. solo-learn turns it on for CIFAR
    /// and ImageNet-100, together with `eta = 0.02`.
    pub clip_lr: bool,
    /// Whether biases and normalization parameters are exempt from decay and adaptation.
    pub exclude_bias_and_norm: bool,
    /// Settings of their own for parameters by a pattern of their names: `match`, `lr_factor`, `weight_decay`,
    /// `trust`.
    pub groups: Vec<ParamGroup>,
}

impl Default for LarsConfig {
    /// The settings of the official VICReg pre-training: momentum 0.9, weight decay 1e-6, eta 0.001.
    fn default() -> Self {
        Self {
            momentum: 0.9,
            weight_decay: 1e-6,
            eta: 0.001,
            form: LarsForm::Official,
            clip_lr: false,
            exclude_bias_and_norm: true,
            groups: Vec::new(),
        }
    }
}

/// Layer-wise adaptive rate scaling (You, Gitman and Ginsburg, arXiv 1708.03888) with the learning rate
/// outside of the momentum:
///
/// `d = q (g + wd p)`, `m <- mu m + d`, `p <- p - lr m`,
///
/// with the trust ratio `q` of [`LarsForm`]. `q = 1` where a norm in it is 0; excluded parameters have `q = 1`
/// and `wd = 0`. In the solo-learn form a zero norm of `p` or `g` skips the decay too.
#[derive(Debug)]
pub struct Lars {
    config: LarsConfig,
    groups: Groups,
    momentum: Slots,
}

impl Lars {
    /// An optimizer without state yet.
    ///
    /// # Errors
    /// A setting that is out of its range.
    pub fn new(config: LarsConfig) -> Result<Self> {
        check("momentum", config.momentum, 0.0..1.0, "the momentum must be in [0, 1)")?;
        check("weight_decay", config.weight_decay, 0.0.., "the weight decay must be at least 0")?;
        check("eta", config.eta, f64::MIN_POSITIVE.., "the trust coefficient must be above 0")?;
        let groups = Groups::new(&config.groups, true)?;
        Ok(Self { config, groups, momentum: Slots::new("momentum") })
    }

    /// The trust ratio and the weight decay of an adapted parameter with the squares of its norm and of its gradient's:
    /// in the official form of the gradient with the decay.
    fn trust(&self, squares: [f64; 2], lr: f64, weight_decay: f64) -> (f64, f64) {
        let LarsConfig { eta, form, clip_lr, .. } = self.config;
        let [param_norm, grad_norm] = squares.map(f64::sqrt);
        let (ratio, decay) = match form {
            LarsForm::Official => {
                let update_norm = grad_norm;
                let adapted = param_norm > 0.0 && update_norm > 0.0;
                (adapted.then(|| eta * param_norm / update_norm), weight_decay)
            }
            LarsForm::SoloLearn => {
                let adapted = param_norm > 0.0 && grad_norm > 0.0;
                let ratio = eta * param_norm / (grad_norm + weight_decay * param_norm + 1e-8);
                if adapted { (Some(ratio), weight_decay) } else { (None, 0.0) }
            }
        };
        match ratio {
            // With lr = 0 the ratio is arbitrary: nothing moves, and the momentum takes the plain gradient.
            Some(q) if clip_lr => (if lr > 0.0 { (q / lr).min(1.0) } else { 1.0 }, decay),
            Some(q) => (q, decay),
            None => (1.0, decay),
        }
    }
}

impl Optimizer for Lars {
    fn step(&mut self, params: &Params, grads: &Gradients, lr: f64) -> Result<()> {
        check_lr(lr)?;
        self.check(params)?;
        let LarsConfig { momentum, weight_decay, exclude_bias_and_norm, .. } = self.config;
        let mut moving = Vec::new();
        for (name, param) in params.trainable() {
            let Some(g) = grads.get(&name) else { continue };
            let setting = self.groups.of((&name, &param), lr, weight_decay, exclude_bias_and_norm);
            let m = self.momentum.get(&name, &param.var)?;
            moving.push((param.var, g, m, setting));
        }
        // All norms at once: a device is waited for once.
        let mut norms = Vec::new();
        for (p, g, _, setting) in moving.iter().filter(|(.., setting)| setting.trust) {
            let decay = if self.config.form == LarsForm::Official { setting.decay } else { 0.0 };
            norms.extend([(p.as_tensor(), 0.0, p.as_tensor()), (*g, decay, p.as_tensor())]);
        }
        let squares = update::sums_of_squares(&norms)?;
        let mut squares = squares.as_chunks::<2>().0.iter();
        let mut slots = Vec::with_capacity(moving.len());
        for (param, grad, first, Setting { lr, decay, trust }) in &moving {
            let (scale, decay) = match trust.then(|| squares.next()).flatten() {
                Some(squares) => self.trust(*squares, *lr, *decay),
                None => (1.0, *decay),
            };
            slots.push(Slot { param, grad, first, second: None, lr: *lr, decay, scale, step: 0 });
        }
        Ok(update::sgd_step(&slots, momentum, false)?)
    }

    fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        self.momentum.save(&mut state)?;
        Ok(state)
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        if let Some(momentum) = split("lars", &["momentum"], state)?.pop() {
            self.momentum = momentum;
        }
        Ok(())
    }

    fn name(&self) -> &'static str {
        "lars"
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
        self.config.momentum = momentum;
        Ok(())
    }
}
