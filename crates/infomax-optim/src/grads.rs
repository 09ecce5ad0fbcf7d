//! Norms of gradients.

use crate::passes::sum_squares;
use crate::{Error, Result};
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};
use infomax_core::Params;

/// The gradient of a variable, with its shape checked.
pub(crate) fn gradient<'a>(name: &str, var: &Var, grads: &'a GradStore) -> Result<Option<&'a Tensor>> {
    match grads.get(var) {
        Some(grad) if grad.dims() != var.dims() => Err(Error::Shape {
            what: "the gradient",
            name: name.to_owned(),
            got: grad.dims().to_vec(),
            expected: var.dims().to_vec(),
            hint: "an operation of the model has a wrong backward",
        }),
        grad => Ok(grad),
    }
}

/// The Euclidean norm of all gradients of trainable parameters together, summed in f64 in the order of names.
///
/// # Errors
/// [`Error::NonFiniteGradient`] with the first parameter whose gradient holds a NaN or an infinity;
/// [`Error::NoGradients`] if no parameter has one.
pub fn grad_norm(params: &Params, grads: &GradStore) -> Result<f64> {
    let trainable = params.trainable();
    let mut total = 0.0;
    let mut found = false;
    for (name, param) in &trainable {
        let Some(grad) = gradient(name, &param.var, grads)? else { continue };
        found = true;
        let squares = sum_squares(grad, 0.0, param.var.as_tensor())?;
        if !squares.is_finite() {
            return Err(Error::NonFiniteGradient { name: name.clone(), norm: squares.sqrt() });
        }
        total += squares;
    }
    if !found && !trainable.is_empty() {
        return Err(Error::NoGradients { parameters: trainable.len() });
    }
    Ok(total.sqrt())
}

/// Scales all gradients by `min(1, max_norm / norm)` and returns the norm that they had.
///
/// As `torch.nn.utils.clip_grad_norm_`, but without its `1e-6` in the denominator.
///
/// # Errors
/// Those of [`grad_norm`], and a `max_norm` that is not positive.
pub fn clip_grad_norm(params: &Params, grads: &mut GradStore, max_norm: f64) -> Result<f64> {
    crate::error::check("max_norm", max_norm, f64::MIN_POSITIVE.., "the largest norm must be positive")?;
    let norm = grad_norm(params, grads)?;
    if norm > max_norm {
        for (_, param) in params.trainable() {
            if let Some(grad) = grads.remove(&param.var) {
                grads.insert(&param.var, (grad * (max_norm / norm))?);
            }
        }
    }
    Ok(norm)
}

/// The names of the trainable parameters that have no gradient. Optimisers leave these as they are, so a
/// trainer should look once: a layer that is cut off by accident trains frozen without any other sign.
pub fn without_gradient(params: &Params, grads: &GradStore) -> Vec<String> {
    let trainable = params.trainable().into_iter();
    trainable.filter(|(_, param)| grads.get(&param.var).is_none()).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};
    use infomax_core::{Init, Key, ParamKind};

    fn setup() -> (Params, Var, Var) {
        let params = Params::new(DType::F32, &Device::Cpu, Key::new(0));
        let a = params.root().get("a", 2, ParamKind::Weight, Init::Const(3.0)).unwrap();
        let b = params.root().get("b", 1, ParamKind::Bias, Init::Const(4.0)).unwrap();
        (params, a, b)
    }

    #[test]
    fn norm_and_clipping() {
        let (params, a, b) = setup();
        let loss = ((a.sqr().unwrap().sum_all().unwrap() + b.sqr().unwrap().sum_all().unwrap()).unwrap()
            * 0.5)
            .unwrap();
        let mut grads = loss.backward().unwrap();
        let norm = 34f64.sqrt();
        assert!((grad_norm(&params, &grads).unwrap() - norm).abs() < 1e-12);
        assert!((clip_grad_norm(&params, &mut grads, 100.0).unwrap() - norm).abs() < 1e-12);
        assert_eq!(grads.get(&a).unwrap().to_vec1::<f32>().unwrap(), [3.0, 3.0]);
        clip_grad_norm(&params, &mut grads, 1.0).unwrap();
        assert!((grad_norm(&params, &grads).unwrap() - 1.0).abs() < 1e-6);
        assert!(clip_grad_norm(&params, &mut grads, 0.0).is_err());
    }

    #[test]
    fn what_has_no_gradient_is_named() {
        let (params, a, _) = setup();
        let grads = a.sum_all().unwrap().backward().unwrap();
        assert_eq!(without_gradient(&params, &grads), ["b"]);
        let elsewhere = Var::zeros(1, DType::F32, &Device::Cpu).unwrap();
        let none = elsewhere.sum_all().unwrap().backward().unwrap();
        assert!(matches!(grad_norm(&params, &none), Err(Error::NoGradients { parameters: 2 })));
    }
}
