//! Optimizer state by parameter name.

use crate::{Error, Result};
use candle_core::{Tensor, Var};
use std::collections::BTreeMap;

/// One kind of state tensor (a momentum, a moment) for each parameter, created at first use.
///
/// Saved as `KIND.PARAMETER`. Tensors are changed in place, so nothing outside may share them.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    kind: &'static str,
    tensors: BTreeMap<String, Tensor>,
}

impl Slots {
    pub(crate) fn new(kind: &'static str) -> Self {
        Self { kind, tensors: BTreeMap::new() }
    }

    /// The state of a parameter, zeros at first.
    pub(crate) fn get(&mut self, name: &str, var: &Var) -> Result<Tensor> {
        if let Some(tensor) = self.tensors.get(name) {
            if tensor.dims() != var.dims() {
                return Err(Error::Shape {
                    what: self.kind,
                    name: name.to_owned(),
                    got: tensor.dims().to_vec(),
                    expected: var.dims().to_vec(),
                    hint: "the saved optimizer state belongs to another model",
                });
            }
            if tensor.dtype() == var.dtype() && tensor.device().same_device(var.device()) {
                return Ok(tensor.clone());
            }
        }
        let tensor = match self.tensors.get(name) {
            // A state that was loaded from a file onto the host, or in another precision.
            Some(tensor) => tensor.to_device(var.device())?.to_dtype(var.dtype())?.copy()?,
            None => var.as_tensor().detach().zeros_like()?,
        };
        self.tensors.insert(name.to_owned(), tensor.clone());
        Ok(tensor)
    }

    /// Whether there is state of a parameter.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Adds copies of all tensors to `state`.
    pub(crate) fn save(&self, state: &mut BTreeMap<String, Tensor>) -> Result<()> {
        for (name, tensor) in &self.tensors {
            state.insert(format!("{}.{name}", self.kind), tensor.copy()?);
        }
        Ok(())
    }
}

/// Splits a saved state into the given kinds, in order.
///
/// # Errors
/// [`Error::State`] for a name of none of these kinds, or if the kinds do not have the same parameters.
pub(crate) fn split(
    optimizer: &'static str,
    kinds: &[&'static str],
    state: &BTreeMap<String, Tensor>,
) -> Result<Vec<Slots>> {
    let mut slots: Vec<Slots> = kinds.iter().map(|kind| Slots::new(kind)).collect();
    for (key, tensor) in state {
        let (kind, name) = key.split_once('.').unwrap_or((key, ""));
        let Some(slot) = slots.iter_mut().find(|slot| slot.kind == kind && !name.is_empty()) else {
            let problem = format!("`{key}` has none of the prefixes {kinds:?}");
            return Err(Error::State { optimizer, problem });
        };
        slot.tensors.insert(name.to_owned(), tensor.copy()?);
    }
    let names = |slots: &Slots| slots.tensors.keys().cloned().collect::<Vec<_>>();
    if let [first, rest @ ..] = slots.as_slice() {
        for other in rest {
            if names(first) != names(other) {
                let problem = format!("`{}` and `{}` are not of the same parameters", first.kind, other.kind);
                return Err(Error::State { optimizer, problem });
            }
        }
    }
    Ok(slots)
}
