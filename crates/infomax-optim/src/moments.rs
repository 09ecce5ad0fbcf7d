//! Adam's moments, for every optimizer that is made of them.

use crate::slots::{Slots, split};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor, Var};
use infomax_kernels::update::Slot;
use std::collections::BTreeMap;

/// The running means of the gradients and of their squares by parameter name, with the number of gradients that
/// went into each.
#[derive(Debug)]
pub(crate) struct Moments {
    first: Slots,
    second: Slots,
    steps: BTreeMap<String, u64>,
}

/// The moments of one parameter before a gradient, and the number of it.
pub(crate) struct Next {
    pub(crate) first: Tensor,
    pub(crate) second: Tensor,
    pub(crate) step: u64,
}

impl Next {
    /// The parameter in a step, with its moments.
    pub(crate) fn slot<'a>(&'a self, param: &'a Tensor, grad: &'a Tensor, lr: f64, decay: f64) -> Slot<'a> {
        let (first, second, step) = (&self.first, Some(&self.second), self.step);
        Slot { param, grad, first, second, lr, decay, scale: 1.0, step }
    }
}

const KINDS: [&str; 2] = ["exp_avg", "exp_avg_sq"];
const STEP: &str = "step.";

impl Moments {
    pub(crate) fn new() -> Self {
        let [first, second] = KINDS.map(Slots::new);
        Self { first, second, steps: BTreeMap::new() }
    }

    /// Counts a gradient, which the caller takes into the moments.
    pub(crate) fn next(&mut self, name: &str, var: &Var) -> Result<Next> {
        let (first, second) = (self.first.get(name, var)?, self.second.get(name, var)?);
        let t = self.steps.entry(name.to_owned()).or_insert(0);
        *t += 1;
        Ok(Next { first, second, step: *t })
    }

    /// Whether there is state of a parameter.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.steps.contains_key(name)
    }

    pub(crate) fn save(&self, state: &mut BTreeMap<String, Tensor>) -> Result<()> {
        self.first.save(state)?;
        self.second.save(state)?;
        for (name, &steps) in &self.steps {
            // f64 holds every count below 2^53.
            state.insert(format!("{STEP}{name}"), Tensor::new(steps as f64, &Device::Cpu)?);
        }
        Ok(())
    }

    /// Reads what [`Moments::save`] wrote.
    ///
    /// # Errors
    /// [`Error::State`] for anything else.
    pub(crate) fn load(optimizer: &'static str, state: &BTreeMap<String, Tensor>) -> Result<Self> {
        let refuse = |problem: String| Err(Error::State { optimizer, problem });
        let mut steps = BTreeMap::new();
        let mut moments = BTreeMap::new();
        for (key, tensor) in state {
            match key.strip_prefix(STEP) {
                Some(name) => {
                    let count = tensor.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
                    let [count] = count[..] else {
                        return refuse(format!("`{key}` is not a single number"));
                    };
                    steps.insert(name.to_owned(), count as u64);
                }
                None => {
                    moments.insert(key.clone(), tensor.clone());
                }
            }
        }
        let slots = split(optimizer, &KINDS, &moments)?;
        if !steps.keys().eq(moments.keys().filter_map(|key| key.strip_prefix("exp_avg."))) {
            return refuse("steps and moments are not of the same parameters".to_owned());
        }
        match <[Slots; 2]>::try_from(slots) {
            Ok([first, second]) => Ok(Self { first, second, steps }),
            Err(_) => refuse("it has not two moments".to_owned()),
        }
    }
}
