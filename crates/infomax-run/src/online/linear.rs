//! A linear classifier that learns along on detached features.

use crate::{Error, Result};
use candle_core::{D, DType, Device, Tensor, Var};
use infomax_core::{Init, Key, ParamKind, Params};
use infomax_optim::{AdamWConfig, Gradients, OptimConfig, Optimizer, build};
use std::collections::BTreeMap;

/// Softmax regression on features that are standardized over their batch, by Adam from weights of zero. It is judged
/// on each batch before it learns from it.
#[derive(Debug)]
pub(super) struct Linear {
    params: Params,
    weight: Var,
    bias: Var,
    optimizer: Box<dyn Optimizer>,
    lr: f64,
    classes: usize,
    /// Samples, right answers and the sum of the cross-entropy since the last report.
    since: [f64; 3],
}

impl Linear {
    pub(super) fn new(dim: usize, classes: usize, lr: f64) -> Result<Self> {
        let params = Params::new(DType::F32, &Device::Cpu, Key::new(0));
        let weight = params.root().get("weight", (dim, classes), ParamKind::Weight, Init::Const(0.0))?;
        let bias = params.root().get("bias", classes, ParamKind::Bias, Init::Const(0.0))?;
        let optimizer =
            build(&OptimConfig::AdamW(AdamWConfig { weight_decay: 0.0, ..AdamWConfig::default() }))?;
        Ok(Self { params, weight, bias, optimizer, lr, classes, since: [0.0; 3] })
    }

    /// Judges a batch of features `(B, D)`, then learns from it.
    pub(super) fn learn(&mut self, features: &Tensor, labels: &[u32]) -> Result<()> {
        let rows = features.dims().first().copied().unwrap_or(0);
        if rows < 2 || rows != labels.len() || labels.iter().any(|label| *label as usize >= self.classes) {
            return Ok(());
        }
        let x = features.detach().to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        let centered = x.broadcast_sub(&x.mean_keepdim(0)?)?;
        let spread = (centered.sqr()?.mean_keepdim(0)? + 1e-12)?.sqrt()?;
        let x = centered.broadcast_div(&spread)?;
        let logits = x.matmul(&self.weight)?.broadcast_add(&self.bias)?;
        let shifted = logits.broadcast_sub(&logits.detach().max_keepdim(D::Minus1)?)?;
        let log_sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
        let index = Tensor::new(labels, &Device::Cpu)?.unsqueeze(1)?;
        let loss = (log_sum - shifted.gather(&index, D::Minus1)?)?.mean_all()?;
        // Of equal logits the first class counts: weights of zero know nothing.
        let guesses = logits.detach().argmax(D::Minus1)?.to_vec1::<u32>()?;
        let right = guesses.iter().zip(labels).filter(|(guess, label)| guess == label).count();
        let value = f64::from(loss.to_scalar::<f32>()?);
        let added = [rows as f64, right as f64, value * rows as f64];
        self.since.iter_mut().zip(added).for_each(|(sum, value)| *sum += value);
        let grads = Gradients::of(&self.params, &loss.backward()?)?;
        Ok(self.optimizer.step(&self.params, &grads, self.lr)?)
    }

    /// Accuracy and mean cross-entropy in nats since the last report; `None` if no batch was judged.
    pub(super) fn report(&mut self) -> Option<(f64, f64)> {
        let [samples, right, loss] = std::mem::take(&mut self.since);
        (samples > 0.0).then(|| (right / samples, loss / samples))
    }

    pub(super) fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = self.params.tensors();
        let moments = self.optimizer.state()?;
        state.extend(moments.into_iter().map(|(name, tensor)| (format!("optimizer.{name}"), tensor)));
        state.insert("since".to_owned(), Tensor::new(&self.since, &Device::Cpu)?);
        Ok(state)
    }

    /// Continues from a state of [`Linear::state`].
    ///
    /// # Errors
    /// The state of another probe.
    pub(super) fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let mut state = state.clone();
        let since = state.remove("since").map(|since| since.to_vec1::<f64>()).transpose()?;
        let Some(since) = since.and_then(|since| <[f64; 3]>::try_from(since).ok()) else {
            return Err(Error::Config("the state of the online linear probe is incomplete".into()));
        };
        let (mut own, mut moments) = (BTreeMap::new(), BTreeMap::new());
        for (name, tensor) in state {
            match name.strip_prefix("optimizer.") {
                Some(name) => moments.insert(name.to_owned(), tensor),
                None => own.insert(name, tensor),
            };
        }
        self.params.load(&own)?;
        self.optimizer.load_state(&moments)?;
        self.since = since;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Features of three classes, `apart` standard deviations from each other, and the classes.
    fn batch(step: u64, apart: f64) -> (Tensor, Vec<u32>) {
        let labels: Vec<u32> = (0..60).map(|i| i % 3).collect();
        let one_hot: Vec<f32> = labels.iter().flat_map(|l| (0..4).map(move |d| f32::from(*l == d))).collect();
        let centers = (Tensor::from_vec(one_hot, (60, 4), &Device::Cpu).unwrap() * apart).unwrap();
        let noise = Key::new(7).fold_in(step).normal(0.0, 1.0, (60, 4), DType::F32, &Device::Cpu).unwrap();
        ((centers + noise).unwrap(), labels)
    }

    fn learn(probe: &mut Linear, steps: std::ops::Range<u64>, apart: f64) {
        for step in steps {
            let (x, y) = batch(step, apart);
            probe.learn(&x, &y).unwrap();
        }
    }

    #[test]
    fn classes_that_are_apart_are_learned_and_others_are_not() {
        let mut probe = Linear::new(4, 3, 0.05).unwrap();
        assert_eq!(probe.report(), None);
        learn(&mut probe, 0..1, 6.0);
        // Weights of zero: a third is right, ln 3 nats.
        let (accuracy, loss) = probe.report().unwrap();
        assert!((accuracy - 1.0 / 3.0).abs() < 1e-9 && (loss - 3f64.ln()).abs() < 1e-5);
        learn(&mut probe, 1..80, 6.0);
        probe.report();
        learn(&mut probe, 80..100, 6.0);
        assert!(probe.report().unwrap().0 > 0.95);

        let mut none = Linear::new(4, 3, 0.05).unwrap();
        learn(&mut none, 0..80, 0.0);
        none.report();
        learn(&mut none, 80..100, 0.0);
        let (accuracy, loss) = none.report().unwrap();
        assert!((accuracy - 1.0 / 3.0).abs() < 0.08 && loss > 3f64.ln() - 0.02, "{accuracy} {loss}");
    }

    #[test]
    fn a_restored_probe_goes_on_with_the_same_bits_and_unfit_labels_are_left_out() {
        let mut whole = Linear::new(4, 3, 0.05).unwrap();
        learn(&mut whole, 0..9, 2.0);
        let mut first = Linear::new(4, 3, 0.05).unwrap();
        learn(&mut first, 0..4, 2.0);
        let mut second = Linear::new(4, 3, 0.05).unwrap();
        second.load_state(&first.state().unwrap()).unwrap();
        learn(&mut second, 4..9, 2.0);
        assert_eq!(second.report(), whole.report());
        let weights = |probe: &Linear| probe.weight.to_vec2::<f32>().unwrap();
        assert_eq!(weights(&second), weights(&whole));
        assert!(second.load_state(&BTreeMap::new()).is_err());

        let (x, _) = batch(0, 1.0);
        second.learn(&x, &[9; 60]).unwrap();
        second.learn(&x, &[0; 3]).unwrap();
        assert_eq!(second.report(), None);
    }
}
