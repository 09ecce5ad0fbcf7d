//! Attaches closed-form gradients to values.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Result, Shape, Tensor};

/// A tensor of the given `value` whose gradient with respect to `x` is `grad(g)` for an incoming `g`.
///
/// The gradient is computed only when it is asked for. `value` has the dtype and device of `x`. On other
/// devices than the CPU, where the value must be a scalar, the gradient is taken at once and joined by
/// `value + sum((x - x') G)` with `x'` = `x` detached, which has the same value and gradient.
pub(crate) fn attach<F>(x: &Tensor, value: Tensor, grad: F) -> Result<Tensor>
where
    F: Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
{
    if x.device().is_cpu() {
        return x.apply_op1(ClosedForm { value, grad });
    }
    let g = grad(&value.ones_like()?)?;
    value + ((x - x.detach())? * g)?.sum_all()?
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

/// A scalar of the dtype and device of `like`.
pub(crate) fn scalar(value: f64, like: &Tensor) -> Result<Tensor> {
    Tensor::new(value, &candle_core::Device::Cpu)?.to_dtype(like.dtype())?.to_device(like.device())
}

/// All elements as f64, row by row, on the host.
pub(crate) fn host(x: &Tensor) -> Result<Vec<f64>> {
    x.to_dtype(DType::F64)?.flatten_all()?.to_vec1()
}

/// A scalar as f64.
pub(crate) fn number(x: &Tensor) -> Result<f64> {
    x.to_dtype(DType::F64)?.to_scalar()
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
