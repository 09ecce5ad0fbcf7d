//! The gradients of a model's parameters.

use crate::{Error, Result};
use candle_core::Tensor;
use candle_core::backprop::GradStore;
use infomax_core::{Collective, Params};
use infomax_kernels::update::sums_of_squares;
use std::collections::BTreeMap;

/// The gradients of the trainable parameters of a model, by name: checked against the shapes of the parameters,
/// finite, and with their common norm, which is computed once for the trainer, clipping and optimizers.
///
/// It is also what is accumulated over several batches, and what the ranks of a data-parallel run average.
#[derive(Clone, Debug)]
pub struct Gradients {
    entries: BTreeMap<String, Tensor>,
    norm: f64,
}

impl Gradients {
    /// Takes the gradients of the trainable parameters out of what a backward pass gave.
    ///
    /// # Errors
    /// [`Error::NonFiniteGradient`] with the first parameter whose gradient holds a NaN or an infinity;
    /// [`Error::NoGradients`] if no parameter has one; a gradient of another shape than its parameter.
    pub fn of(params: &Params, grads: &GradStore) -> Result<Self> {
        let mut entries = BTreeMap::new();
        let trainable = params.trainable();
        let count = trainable.len();
        for (name, param) in trainable {
            let Some(grad) = grads.get(&param.var) else { continue };
            if grad.dims() != param.var.dims() {
                return Err(Error::Shape {
                    what: "the gradient",
                    name,
                    got: grad.dims().to_vec(),
                    expected: param.var.dims().to_vec(),
                    hint: "an operation of the model has a wrong backward",
                });
            }
            entries.insert(name, grad.clone());
        }
        if entries.is_empty() && count > 0 {
            return Err(Error::NoGradients { parameters: count });
        }
        let mut all = Self { entries, norm: 0.0 };
        all.measure()?;
        Ok(all)
    }

    /// The gradient of a parameter; `None` if the objective does not reach it.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.entries.get(name)
    }

    /// The gradients by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(name, grad)| (name.as_str(), grad))
    }

    /// The Euclidean norm of all gradients together, summed in f64 in the order of names.
    pub fn norm(&self) -> f64 {
        self.norm
    }

    /// The names of the trainable parameters that have no gradient. Optimizers leave these as they are, so a
    /// trainer should look once: a layer that is cut off by accident trains frozen without any other sign.
    pub fn missing(&self, params: &Params) -> Vec<String> {
        let names = params.trainable().into_iter().map(|(name, _)| name);
        names.filter(|name| !self.entries.contains_key(name)).collect()
    }

    /// Scales all gradients by `min(1, max_norm / norm)`.
    ///
    /// As `torch.nn.utils.clip_grad_norm_`, but without its `1e-6` in the denominator.
    ///
    /// # Errors
    /// A `max_norm` that is not positive.
    pub fn clip(&mut self, max_norm: f64) -> Result<()> {
        crate::error::check("max_norm", max_norm, f64::MIN_POSITIVE.., "the largest norm must be positive")?;
        if self.norm > max_norm { self.scale(max_norm / self.norm) } else { Ok(()) }
    }

    /// Multiplies all gradients by a factor.
    ///
    /// # Errors
    /// Errors of Candle.
    pub fn scale(&mut self, factor: f64) -> Result<()> {
        for grad in self.entries.values_mut() {
            *grad = (&*grad * factor)?;
        }
        self.norm *= factor.abs();
        Ok(())
    }

    /// Adds the gradients of another batch.
    ///
    /// # Errors
    /// [`Error::NonFiniteGradient`] where the sum overflows; gradients of unequal shape.
    pub fn add(&mut self, other: &Self) -> Result<()> {
        for (name, grad) in &other.entries {
            let sum = match self.entries.get(name) {
                Some(own) => (own + grad)?,
                None => grad.clone(),
            };
            self.entries.insert(name.clone(), sum);
        }
        self.measure()
    }

    /// Replaces all gradients by their mean over the ranks: by the convention of [`Collective`], the gradient of
    /// an objective of the whole batch.
    ///
    /// # Errors
    /// Ranks with other parameters; [`Error::NonFiniteGradient`] where the mean is not finite.
    pub fn average(&mut self, ranks: &dyn Collective) -> Result<()> {
        self.average_rest(&BTreeMap::new(), ranks)
    }

    /// [`Gradients::average`] where some sums over the ranks are there already, by name. All ranks have those of the same
    /// parameters.
    ///
    /// # Errors
    /// As [`Gradients::average`].
    pub fn average_rest(&mut self, sums: &BTreeMap<String, Tensor>, ranks: &dyn Collective) -> Result<()> {
        if ranks.size() == 1 {
            return Ok(());
        }
        let rest = self.entries.iter().filter(|(name, _)| !sums.contains_key(*name));
        let mut bucket: Vec<Tensor> = rest.map(|(_, grad)| grad.clone()).collect();
        ranks.sum_in_place(&mut bucket)?;
        let mut rest = bucket.into_iter();
        for (name, grad) in &mut self.entries {
            let sum = sums.get(name).cloned().or_else(|| rest.next());
            *grad = (sum.as_ref().unwrap_or(grad) / ranks.size() as f64)?;
        }
        self.measure()
    }

    fn measure(&mut self) -> Result<()> {
        let mut total = 0.0;
        let all: Vec<_> = self.entries.values().map(|grad| (grad, 0.0, grad)).collect();
        for (name, squares) in self.entries.keys().zip(sums_of_squares(&all)?) {
            if !squares.is_finite() {
                return Err(Error::NonFiniteGradient { name: name.clone(), norm: squares.sqrt() });
            }
            total += squares;
        }
        self.norm = total.sqrt();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};
    use infomax_core::{Init, Key, ParamKind, replicas};

    fn setup() -> (Params, Var, Var) {
        let params = Params::new(DType::F32, &Device::Cpu, Key::new(0));
        let a = params.root().get("a", 2, ParamKind::Weight, Init::Const(3.0)).unwrap();
        let b = params.root().get("b", 1, ParamKind::Bias, Init::Const(4.0)).unwrap();
        (params, a, b)
    }

    fn quadratic(a: &Var, b: &Var) -> GradStore {
        let squares = |x: &Var| x.sqr().unwrap().sum_all().unwrap();
        ((squares(a) + squares(b)).unwrap() * 0.5).unwrap().backward().unwrap()
    }

    fn values(grads: &Gradients, name: &str) -> Vec<f32> {
        grads.get(name).unwrap().to_vec1().unwrap()
    }

    #[test]
    fn norm_and_clipping() {
        let (params, a, b) = setup();
        let mut grads = Gradients::of(&params, &quadratic(&a, &b)).unwrap();
        assert!((grads.norm() - 34f64.sqrt()).abs() < 1e-12);
        grads.clip(100.0).unwrap();
        assert_eq!(values(&grads, "a"), [3.0, 3.0]);
        grads.clip(1.0).unwrap();
        assert!((grads.norm() - 1.0).abs() < 1e-12);
        assert!((f64::from(values(&grads, "b")[0]) - 4.0 / 34f64.sqrt()).abs() < 1e-6);
        assert!(grads.clip(0.0).is_err());
    }

    #[test]
    fn sums_and_means_are_measured_again() {
        let (params, a, b) = setup();
        let mut grads = Gradients::of(&params, &quadratic(&a, &b)).unwrap();
        let only_a = Gradients::of(&params, &a.sum_all().unwrap().backward().unwrap()).unwrap();
        assert_eq!(only_a.missing(&params), ["b"]);
        grads.add(&only_a).unwrap();
        assert_eq!((values(&grads, "a"), values(&grads, "b")), (vec![4.0, 4.0], vec![4.0]));
        assert!((grads.norm() - 48f64.sqrt()).abs() < 1e-6);
        let seen: Vec<(Vec<f32>, f64)> = std::thread::scope(|scope| {
            let ranks = replicas(2).into_iter().map(|rank| {
                let mut own = grads.clone();
                scope.spawn(move || {
                    own.scale(1.0 + rank.rank() as f64).unwrap();
                    own.average(&rank).unwrap();
                    (values(&own, "b"), own.norm())
                })
            });
            ranks.collect::<Vec<_>>().into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        assert!(
            seen.iter().all(|(b, norm)| *b == [6.0] && (norm - 1.5 * 48f64.sqrt()).abs() < 1e-6),
            "{seen:?}"
        );
    }

    #[test]
    fn sums_that_are_there_are_taken() {
        let (params, a, b) = setup();
        let grads = Gradients::of(&params, &quadratic(&a, &b)).unwrap();
        std::thread::scope(|scope| {
            for rank in replicas(2) {
                let mut own = grads.clone();
                scope.spawn(move || {
                    let sums = BTreeMap::from([("a".to_owned(), (own.get("a").unwrap() * 5.0).unwrap())]);
                    own.average_rest(&sums, &rank).unwrap();
                    assert_eq!((values(&own, "a"), values(&own, "b")), (vec![7.5, 7.5], vec![4.0]));
                    assert!((own.norm() - 128.5f64.sqrt()).abs() < 1e-6);
                });
            }
        });
    }

    #[test]
    fn what_is_not_finite_or_not_there_is_named() {
        let (params, a, _) = setup();
        let nan = (a.sum_all().unwrap() * f64::NAN).unwrap().backward().unwrap();
        assert!(
            matches!(Gradients::of(&params, &nan), Err(Error::NonFiniteGradient { name, .. }) if name == "a")
        );
        let elsewhere = Var::zeros(1, DType::F32, &Device::Cpu).unwrap();
        let none = elsewhere.sum_all().unwrap().backward().unwrap();
        assert!(matches!(Gradients::of(&params, &none), Err(Error::NoGradients { parameters: 2 })));
    }
}
