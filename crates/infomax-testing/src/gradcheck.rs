//! Central differences against backpropagation.

use candle_core::{DType, Device, Result, Tensor, Var, bail};

/// The settings of [`gradcheck`].
#[derive(Clone, Copy, Debug)]
pub struct GradCheck {
    /// The step of the central difference, relative to `max(1, |x|)`.
    pub step: f64,
    /// The allowed error, relative to the largest gradient element.
    pub rel: f64,
    /// The allowed absolute error.
    pub abs: f64,
    /// At most so many elements of each input are checked, spread evenly.
    pub max_elements: usize,
}

impl Default for GradCheck {
    fn default() -> Self {
        Self { step: 1e-5, rel: 1e-6, abs: 1e-8, max_elements: 60 }
    }
}

/// Checks the gradient of `f` with respect to every input by f64 central differences.
///
/// Outputs that are not scalars are contracted with fixed weights, so that each element counts.
/// An input that gets no gradient is an error unless `f` does not depend on it.
///
/// # Errors
/// Names the input, the element, and both derivatives.
pub fn gradcheck(
    inputs: &[Tensor],
    settings: GradCheck,
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<()> {
    let readout = |xs: &[Tensor]| -> Result<Tensor> {
        let y = f(xs)?;
        if y.rank() == 0 {
            return Ok(y);
        }
        let weights = crate::spread(y.dims(), 77, 1.0).to_dtype(y.dtype())?;
        (y * weights)?.sum_all()
    };
    let vars =
        inputs.iter().map(|x| Var::from_tensor(&x.to_dtype(DType::F64)?)).collect::<Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let grads = readout(&tensors)?.backward()?;

    for (k, input) in inputs.iter().enumerate() {
        let values = input.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?;
        let analytic = match grads.get(&tensors[k]) {
            Some(grad) => {
                if grad.dims() != input.dims() {
                    bail!("input {k}: gradient has shape {:?}, input {:?}", grad.dims(), input.dims());
                }
                grad.flatten_all()?.to_vec1::<f64>()?
            }
            None => vec![0.0; values.len()],
        };
        let scale = analytic.iter().fold(0f64, |m, g| m.max(g.abs()));
        let stride = values.len().div_ceil(settings.max_elements).max(1);
        for i in (0..values.len()).step_by(stride) {
            let h = settings.step * values[i].abs().max(1.0);
            let at = |x: f64| -> Result<f64> {
                let mut moved = values.clone();
                moved[i] = x;
                let mut xs: Vec<Tensor> = tensors.iter().map(Tensor::detach).collect();
                xs[k] = Tensor::from_vec(moved, input.dims(), &Device::Cpu)?;
                readout(&xs)?.to_scalar::<f64>()
            };
            let numeric = (at(values[i] + h)? - at(values[i] - h)?) / (2.0 * h);
            let error = (numeric - analytic[i]).abs();
            let allowed = settings.abs + settings.rel * scale.max(numeric.abs());
            if error.is_nan() || error > allowed {
                bail!(
                    "input {k}, element {i} of {:?}: central difference {numeric:e}, backward {:e} (error {error:e}, allowed {allowed:e})",
                    input.dims(),
                    analytic[i]
                );
            }
        }
    }
    Ok(())
}

/// Asserts that each named variable gets a finite gradient that is not all zero.
///
/// # Errors
/// Lists the variables that do not.
pub fn assert_all_grads(vars: &[(String, Var)], loss: &Tensor, except: &[&str]) -> Result<()> {
    let grads = loss.backward()?;
    let mut wrong = Vec::new();
    for (name, var) in vars {
        if except.iter().any(|e| name.contains(e)) {
            continue;
        }
        match grads.get(var) {
            None => wrong.push(format!("{name}: no gradient")),
            Some(grad) => {
                let total = grad.to_dtype(DType::F64)?.abs()?.sum_all()?.to_scalar::<f64>()?;
                if !total.is_finite() || total == 0.0 {
                    wrong.push(format!("{name}: sum of |gradient| is {total}"));
                }
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_a_right_gradient_and_refuses_a_wrong_one() {
        let x = crate::spread(&[3, 4], 1, 2.0);
        gradcheck(std::slice::from_ref(&x), GradCheck::default(), |xs| xs[0].sqr()?.exp()?.sum_all())
            .unwrap();
        // `detach` hides one factor from backpropagation: half of the gradient is missing.
        let wrong = gradcheck(&[x], GradCheck::default(), |xs| (&xs[0] * xs[0].detach())?.sum_all());
        assert!(wrong.unwrap_err().to_string().contains("central difference"));
    }

    #[test]
    fn an_input_without_gradient_is_found() {
        let x = crate::spread(&[4], 1, 1.0);
        assert!(gradcheck(&[x], GradCheck::default(), |xs| xs[0].detach().sqr()).is_err());
    }
}
