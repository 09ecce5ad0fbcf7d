//! Local steps with an outer optimizer.

use super::Trainer;
use crate::config::OuterConfig;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use infomax_core::{Collective, ParamKind, Params, Result as CoreResult};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a run with local steps carries beside the rest: the parameters at the last outer step, and the momentum.
#[derive(Clone, Debug)]
pub(crate) struct LocalSteps {
    every: u64,
    outer: OuterConfig,
    start: BTreeMap<String, Tensor>,
    velocity: BTreeMap<String, Tensor>,
}

/// The prefixes of the names in the checkpoint's file.
const START: &str = "start.";
const VELOCITY: &str = "velocity.";

/// The name in the checkpoint's file of a parameter at the last outer step.
pub(super) fn started(name: &str) -> String {
    format!("{START}{name}")
}

impl LocalSteps {
    pub(super) fn new(every: u64, outer: OuterConfig, params: &Params) -> Result<Self> {
        Ok(Self { every, outer, start: copies(params)?, velocity: BTreeMap::new() })
    }

    /// Whether the ranks meet after this step.
    fn is_due(&self, step: u64) -> bool {
        step.is_multiple_of(self.every)
    }

    /// In words, for the log.
    pub(super) fn describe(&self, ranks: usize) -> String {
        let Self { every, outer: OuterConfig { lr, momentum, nesterov }, .. } = self;
        let kind = if *nesterov && *momentum > 0.0 { "Nesterov momentum" } else { "momentum" };
        let what = match ranks {
            1 => {
                "one process: its own parameters move back toward the last ones, as Lookahead does".to_owned()
            }
            _ => format!("{ranks} ranks: losses and batch statistics are those of each rank's own batch"),
        };
        format!("local steps: an outer step every {every}, lr {lr}, {kind} {momentum}; {what}")
    }

    /// The parameters after an outer step, from those at its start and the mean over ranks of start minus local ones:
    /// SGD with momentum as PyTorch has it, the mean difference being the gradient.
    fn moved(&mut self, name: &str, mean: &Tensor) -> Result<Tensor> {
        let Some(start) = self.start.get(name) else { return Ok(mean.clone()) };
        let OuterConfig { lr, momentum, nesterov } = self.outer;
        let velocity = match self.velocity.get(name) {
            Some(old) => ((old * momentum)? + mean)?,
            None => mean.clone(),
        };
        let direction = if nesterov { (mean + (&velocity * momentum)?)? } else { velocity.clone() };
        let moved = (start - (direction * lr)?)?;
        if momentum > 0.0 {
            self.velocity.insert(name.to_owned(), velocity);
        }
        Ok(moved)
    }

    pub(super) fn state(&self) -> BTreeMap<String, Tensor> {
        let named = |prefix: &'static str, all: &BTreeMap<String, Tensor>| {
            let named = all.iter().map(move |(name, tensor)| (format!("{prefix}{name}"), tensor.clone()));
            named.collect::<Vec<_>>()
        };
        named(START, &self.start).into_iter().chain(named(VELOCITY, &self.velocity)).collect()
    }

    /// Takes over a state; without one, the parameters as they are and no momentum.
    pub(super) fn load(&mut self, state: &BTreeMap<String, Tensor>, params: &Params) -> Result<()> {
        let mut loaded = Self { start: copies(params)?, velocity: BTreeMap::new(), ..self.clone() };
        for (name, tensor) in state {
            let tensor = tensor.to_device(params.device())?;
            if let Some(name) = name.strip_prefix(START) {
                loaded.start.insert(name.to_owned(), tensor);
            } else if let Some(name) = name.strip_prefix(VELOCITY) {
                loaded.velocity.insert(name.to_owned(), tensor);
            }
        }
        *self = loaded;
        Ok(())
    }
}

fn copies(params: &Params) -> Result<BTreeMap<String, Tensor>> {
    let copy =
        |(name, param): (String, infomax_core::Param)| Ok((name, param.var.as_tensor().detach().copy()?));
    params.trainable().into_iter().map(copy).collect()
}

/// A rank by itself: the number of a rank, so that what is random for a sample is what it would be in the whole batch,
/// and nobody to exchange anything with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alone(pub(super) usize);

impl Collective for Alone {
    fn rank(&self) -> usize {
        self.0
    }

    fn size(&self) -> usize {
        1
    }

    fn handle(&self) -> Arc<dyn Collective> {
        Arc::new(*self)
    }

    fn sum(&self, x: &Tensor) -> CoreResult<Tensor> {
        Ok(x.detach())
    }

    fn gather(&self, x: &Tensor) -> CoreResult<Vec<Tensor>> {
        Ok(vec![x.detach()])
    }

    fn broadcast(&self, x: &Tensor, _: usize) -> CoreResult<Tensor> {
        Ok(x.detach())
    }

    fn barrier(&self) -> CoreResult<()> {
        Ok(())
    }

    fn agree(&self, word: u64) -> CoreResult<u64> {
        Ok(word)
    }
}

impl Trainer {
    /// What losses, layers and gradients see as the processes of the run.
    pub(super) fn seen_ranks(&self) -> Arc<dyn Collective> {
        match self.local {
            Some(_) => Arc::new(Alone(self.parts.collective.rank())),
            None => self.parts.collective.clone(),
        }
    }

    /// The outer step, where it is due: the parameters move from those at its start by the mean over ranks of what
    /// each did; buffers and the objective's running state become their means. Inner optimizers keep their own state.
    pub(super) fn meet(&mut self) -> Result<()> {
        let last = self.step == self.limit;
        let Some(local) = self.local.as_mut().filter(|local| last || local.is_due(self.step)) else {
            return Ok(());
        };
        let ranks = self.parts.collective.clone();
        let params = self.parts.learner.params();
        let trainable = params.trainable();
        let difference = |(name, param): &(String, infomax_core::Param)| -> Result<Tensor> {
            let now = param.var.as_tensor().detach();
            Ok(match local.start.get(name) {
                Some(start) => (start - now)?,
                // A parameter that came later has no start: it stays as it is.
                None => now.zeros_like()?,
            })
        };
        let differences = trainable.iter().map(difference).collect::<Result<Vec<_>>>()?;
        let means = average(&*ranks, differences)?;
        for ((name, param), mean) in trainable.iter().zip(means) {
            if local.start.contains_key(name) {
                param.var.set(&local.moved(name, &mean)?)?;
            }
        }
        local.start = copies(params)?;
        if ranks.size() > 1 {
            let buffers = params.all().into_iter().filter(|(_, param)| param.kind == ParamKind::Buffer);
            let buffers: Vec<_> = buffers.filter(|(_, param)| param.var.dtype().is_float()).collect();
            let values = buffers.iter().map(|(_, param)| Ok(param.var.as_tensor().detach().copy()?));
            let means = average(&*ranks, values.collect::<Result<_>>()?)?;
            for ((_, param), mean) in buffers.iter().zip(means) {
                param.var.set(&mean)?;
            }
            let state = self.parts.objective.state();
            if !state.is_empty() {
                let (names, values): (Vec<_>, Vec<_>) = state.into_iter().unzip();
                let means = average(&*ranks, values)?;
                self.parts.objective.load_state(&names.into_iter().zip(means).collect())?;
            }
        }
        Ok(())
    }

    /// What the other ranks carry that this one does not, for the checkpoint of the rank that writes: names begin with
    /// the number of the rank. Empty where all ranks carry the same.
    pub(super) fn others(
        &self,
        own: [(&str, &BTreeMap<String, Tensor>); 3],
    ) -> Result<BTreeMap<String, Tensor>> {
        let ranks = &*self.parts.collective;
        let mut all = BTreeMap::new();
        if self.local.is_none() || ranks.size() == 1 {
            return Ok(all);
        }
        for (what, tensors) in own {
            for (name, tensor) in tensors {
                let parts = ranks.gather(tensor)?.into_iter().enumerate();
                let parts = parts.filter(|(rank, _)| *rank != ranks.rank());
                all.extend(parts.map(|(rank, part)| (format!("{rank}.{what}.{name}"), part)));
            }
        }
        Ok(all)
    }
}

/// The tensors of one rank and kind among those of [`Trainer::others`].
pub(super) fn of_rank(all: &BTreeMap<String, Tensor>, rank: usize, what: &str) -> BTreeMap<String, Tensor> {
    let prefix = format!("{rank}.{what}.");
    let own = all.iter().filter_map(|(name, tensor)| {
        name.strip_prefix(&prefix).map(|name| (name.to_owned(), tensor.clone()))
    });
    own.collect()
}

/// The number of ranks that a checkpoint holds the state of.
pub(super) fn ranks_in(all: &BTreeMap<String, Tensor>) -> usize {
    let ranks: std::collections::BTreeSet<&str> =
        all.keys().filter_map(|name| name.split('.').next()).collect();
    ranks.len() + 1
}

/// The mean over the ranks of every tensor of a bucket.
fn average(ranks: &dyn Collective, mut bucket: Vec<Tensor>) -> Result<Vec<Tensor>> {
    if ranks.size() == 1 {
        return Ok(bucket);
    }
    ranks.sum_in_place(&mut bucket)?;
    let count = ranks.size() as f64;
    let mean = |sum: Tensor| match sum.dtype() {
        DType::F32 | DType::F64 => Ok((sum / count)?),
        other => Err(Error::Core(infomax_core::Error::config(
            "train.local_steps",
            format!("{other:?}"),
            "only f32 and f64 have a mean over the ranks",
        ))),
    };
    bucket.into_iter().map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use infomax_core::{Init, Key};

    /// Three outer steps by hand, with and without the look ahead.
    #[test]
    fn the_outer_step_is_sgd_with_momentum_on_mean_differences() {
        for nesterov in [true, false] {
            let params = Params::new(DType::F64, &Device::Cpu, Key::new(0));
            let var = params.root().get("w", 1, ParamKind::Weight, Init::Const(2.0)).unwrap();
            let outer = OuterConfig { lr: 0.7, momentum: 0.9, nesterov };
            let mut local = LocalSteps::new(4, outer, &params).unwrap();
            let (mut w, mut v) = (2.0, 0.0);
            for (k, difference) in [0.3, -0.1, 0.25].into_iter().enumerate() {
                v = 0.9 * v + difference;
                w -= 0.7 * if nesterov { difference + 0.9 * v } else { v };
                let mean = Tensor::new(&[difference], &Device::Cpu).unwrap();
                var.set(&local.moved("w", &mean).unwrap()).unwrap();
                local.start = copies(&params).unwrap();
                let found = var.to_vec1::<f64>().unwrap()[0];
                assert!((found - w).abs() < 1e-14, "{k} {nesterov}: {found} {w}");
            }
            assert!(local.is_due(8) && !local.is_due(9));
            // A state that is taken over goes on as it would have.
            let mut again = LocalSteps::new(4, outer, &params).unwrap();
            again.load(&local.state(), &params).unwrap();
            let mean = Tensor::new(&[0.1], &Device::Cpu).unwrap();
            let values =
                [&mut local, &mut again].map(|l| l.moved("w", &mean).unwrap().to_vec1::<f64>().unwrap());
            assert_eq!(values[0], values[1]);
        }
    }
}
