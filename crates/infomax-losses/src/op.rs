//! Attaches closed-form gradients to values.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Device, Layout, Result, Shape, Tensor};

/// A tensor of the given `value` whose gradient with respect to `x` is `grad(g)` for an incoming `g`.
///
/// The gradient is computed only when it is asked for. `value` has the dtype and device of `x`; it is a scalar, or
/// has the shape of `x` with a gradient that is elementwise. On other devices than the CPU the gradient `G` for
/// `g = 1` is taken at once and joined by `value + sum((x - x') G)`, or without the sum, with `x'` = `x` detached,
/// which has the same value and gradient.
pub(crate) fn attach<F>(x: &Tensor, value: Tensor, grad: F) -> Result<Tensor>
where
    F: Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
{
    if infomax_kernels::has_cpu_kernels(x) {
        return x.apply_op1(ClosedForm { value, grad });
    }
    joined(x, value, grad)
}

fn joined<F: Fn(&Tensor) -> Result<Tensor>>(x: &Tensor, value: Tensor, grad: F) -> Result<Tensor> {
    let g = grad(&value.ones_like()?)?;
    let moves = ((x - x.detach())? * g)?;
    match value.rank() {
        0 => value + moves.sum_all()?,
        _ => value + moves,
    }
}

/// As [`attach`] for two arguments on the CPU, with the gradient of both at once.
pub(crate) fn attach_pair<F>(x: &Tensor, y: &Tensor, value: Tensor, grad: F) -> Result<Tensor>
where
    F: Fn(&Tensor) -> Result<(Tensor, Tensor)> + Send + Sync + 'static,
{
    x.apply_op2(y, ClosedForm { value, grad })
}

/// The input in f32 or f64: half types are widened, others are passed on.
pub(crate) fn widen(x: &Tensor) -> Result<Tensor> {
    match x.dtype() {
        DType::F32 | DType::F64 => x.contiguous(),
        _ => x.to_dtype(DType::F32)?.contiguous(),
    }
}

/// `max(x, 0)` that keeps NaN, of which a maximum would make 0.
pub(crate) fn hinge(x: &Tensor) -> Result<Tensor> {
    x.relu()? + (x * 0.0)?
}

/// A scalar of the dtype and device of `like`.
pub(crate) fn scalar(value: f64, like: &Tensor) -> Result<Tensor> {
    Tensor::new(value, &Device::Cpu)?.to_dtype(like.dtype())?.to_device(like.device())
}

/// All elements as f64, row by row, on the host.
pub(crate) fn host(x: &Tensor) -> Result<Vec<f64>> {
    // To the host first: Metal has no f64.
    x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

/// A scalar as f64.
pub(crate) fn number(x: &Tensor) -> Result<f64> {
    x.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_scalar()
}

struct ClosedForm<F> {
    value: Tensor,
    grad: F,
}

impl<F> ClosedForm<F> {
    fn forward(&self) -> Result<(CpuStorage, Shape)> {
        let flat = self.value.flatten_all()?;
        let storage = match self.value.dtype() {
            DType::F32 => CpuStorage::F32(flat.to_vec1()?),
            _ => CpuStorage::F64(flat.to_dtype(DType::F64)?.to_vec1()?),
        };
        Ok((storage, self.value.shape().clone()))
    }
}

impl<F> CustomOp1 for ClosedForm<F>
where
    F: Fn(&Tensor) -> Result<Tensor> + Send + Sync,
{
    fn name(&self) -> &'static str {
        "closed-form"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward()
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some((self.grad)(g)?))
    }
}

impl<F> CustomOp2 for ClosedForm<F>
where
    F: Fn(&Tensor) -> Result<(Tensor, Tensor)> + Send + Sync,
{
    fn name(&self) -> &'static str {
        "closed-form"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (x, y) = (self.grad)(g)?;
        Ok((Some(x), Some(y)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Var;

    /// The form of other devices has the values and gradients of the CPU's.
    #[test]
    fn both_forms_agree() {
        let x = Var::from_tensor(&Tensor::new(&[[0.5f64, -1.5], [2.0, 0.1]], &Device::Cpu).unwrap()).unwrap();
        let cube = |x: &Tensor| x.detach().powf(3.0).unwrap();
        let slope = (x.detach().sqr().unwrap() * 3.0).unwrap();
        let weights = Tensor::new(&[[1f64, 2.0], [-0.5, 0.25]], &Device::Cpu).unwrap();
        for scalar in [true, false] {
            let value = || if scalar { cube(&x).sum_all().unwrap() } else { cube(&x) };
            let grad = |slope: Tensor| move |g: &Tensor| slope.broadcast_mul(g);
            let all = [
                attach(&x, value(), grad(slope.clone())).unwrap(),
                joined(&x, value(), grad(slope.clone())).unwrap(),
            ];
            let results = all.map(|y| {
                let loss = y.broadcast_mul(&weights).unwrap().sum_all().unwrap();
                let grads = loss.backward().unwrap();
                (host(&y).unwrap(), host(grads.get(&x).unwrap()).unwrap())
            });
            assert_eq!(results[0].0, results[1].0);
            for (a, b) in results[0].1.iter().zip(&results[1].1) {
                assert!((a - b).abs() < 1e-12, "{a} {b}");
            }
        }
    }
}
