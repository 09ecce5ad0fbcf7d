//! Adam with decoupled weight decay.

use crate::config::{check_lr, decays};
use crate::error::check;
use crate::slots::{Slots, split};
use crate::{Error, Gradients, Optimizer, Result};
use candle_core::{DType, Device, Tensor};
use infomax_core::Params;
use infomax_kernels::update;
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
}

impl Default for AdamWConfig {
    /// The defaults of `torch.optim.AdamW`: betas 0.9 and 0.999, eps 1e-8, weight decay 0.01.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, exclude_bias_and_norm: true }
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
    first: Slots,
    second: Slots,
    steps: BTreeMap<String, u64>,
}

const KINDS: [&str; 2] = ["exp_avg", "exp_avg_sq"];
const STEP: &str = "step.";

impl AdamW {
    /// An optimizer without state yet.
    ///
    /// # Errors
    /// A setting that is out of its range.
    pub fn new(config: AdamWConfig) -> Result<Self> {
        check("beta1", config.beta1, 0.0..1.0, "a beta must be in [0, 1)")?;
        check("beta2", config.beta2, 0.0..1.0, "a beta must be in [0, 1)")?;
        check("eps", config.eps, 0.0.., "eps must be at least 0")?;
        check("weight_decay", config.weight_decay, 0.0.., "the weight decay must be at least 0")?;
        let [first, second] = KINDS.map(Slots::new);
        Ok(Self { config, first, second, steps: BTreeMap::new() })
    }
}

impl Optimizer for AdamW {
    fn step(&mut self, params: &Params, grads: &Gradients, lr: f64) -> Result<()> {
        check_lr(lr)?;
        let AdamWConfig { beta1, beta2, eps, weight_decay, exclude_bias_and_norm } = self.config;
        for (name, param) in params.trainable() {
            let Some(g) = grads.get(&name) else { continue };
            let m = self.first.get(&name, &param.var)?;
            let v = self.second.get(&name, &param.var)?;
            let t = self.steps.entry(name).or_insert(0);
            *t += 1;
            let t = *t as f64;
            let decay = if decays(param.kind, exclude_bias_and_norm) { weight_decay } else { 0.0 };
            update::lerp(&m, 1.0 - beta1, g)?;
            update::axpy_square(&v, beta2, 1.0 - beta2, g)?;
            let rate = lr / (1.0 - beta1.powf(t));
            let root = (1.0 - beta2.powf(t)).sqrt();
            update::adam_step(param.var.as_tensor(), 1.0 - lr * decay, rate, root, eps, &m, &v)?;
        }
        Ok(())
    }

    fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        self.first.save(&mut state)?;
        self.second.save(&mut state)?;
        for (name, &steps) in &self.steps {
            // f64 holds every count below 2^53.
            state.insert(format!("{STEP}{name}"), Tensor::new(steps as f64, &Device::Cpu)?);
        }
        Ok(state)
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let mut steps = BTreeMap::new();
        let mut moments = BTreeMap::new();
        for (key, tensor) in state {
            match key.strip_prefix(STEP) {
                Some(name) => {
                    let count = tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
                    let [count] = count[..] else {
                        let problem = format!("`{key}` is not a single number");
                        return Err(Error::State { optimizer: "adamw", problem });
                    };
                    steps.insert(name.to_owned(), count as u64);
                }
                None => {
                    moments.insert(key.clone(), tensor.clone());
                }
            }
        }
        let slots = split("adamw", &KINDS, &moments)?;
        if !steps.keys().eq(moments.keys().filter_map(|key| key.strip_prefix("exp_avg."))) {
            let problem = "steps and moments are not of the same parameters".to_owned();
            return Err(Error::State { optimizer: "adamw", problem });
        }
        if let Ok([first, second]) = <[Slots; 2]>::try_from(slots) {
            (self.first, self.second, self.steps) = (first, second, steps);
        }
        Ok(())
    }

    fn name(&self) -> &'static str {
        "adamw"
    }
}
