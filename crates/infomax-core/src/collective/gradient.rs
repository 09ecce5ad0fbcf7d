//! Collectives as operations with a gradient, by the convention of [`Collective`](super::Collective).

use super::Collective;
use crate::Result;
use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};
use std::sync::Arc;

/// The sum over ranks; its backward pass is the sum over ranks of the incoming gradients, which are equal if the
/// ranks make the `same` of it.
pub(super) fn all_reduce_sum(ranks: Arc<dyn Collective>, x: &Tensor, same: bool) -> Result<Tensor> {
    let value = ranks.sum(&x.detach())?;
    Ok(x.apply_op1(Joined { value, ranks, kept: None, same })?)
}

/// The rows of all ranks; its backward pass is the sum over ranks, cut to the rows of this one.
pub(super) fn all_gather(ranks: Arc<dyn Collective>, x: &Tensor, same: bool) -> Result<Tensor> {
    let parts = ranks.gather(&x.detach())?;
    let rows = |part: &Tensor| part.dims().first().copied().unwrap_or(0);
    let start = parts.iter().take(ranks.rank()).map(rows).sum();
    let value = Tensor::cat(&parts, 0)?;
    Ok(x.apply_op1(Joined { value, ranks, kept: Some((start, rows(x))), same })?)
}

/// A value that was exchanged already, and how gradients come back.
struct Joined {
    value: Tensor,
    ranks: Arc<dyn Collective>,
    /// The rows of this rank, first and number; all of them for a sum.
    kept: Option<(usize, usize)>,
    /// The incoming gradients of all ranks are equal.
    same: bool,
}

impl CustomOp1 for Joined {
    fn name(&self) -> &'static str {
        "collective"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let value = self.value.contiguous()?;
        let (storage, layout) = value.storage_and_layout();
        let candle_core::Storage::Cpu(storage) = &*storage else {
            candle_core::bail!("collective: the exchanged value is not on the CPU, its argument is")
        };
        use candle_core::backend::BackendStorage as _;
        let mut out = storage.try_clone(layout)?;
        if layout.start_offset() != 0 || layout.shape().elem_count() != elements(&out) {
            out = part(&out, layout.start_offset(), layout.shape().elem_count());
        }
        Ok((out, value.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        _: &candle_core::CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(candle_core::CudaStorage, Shape)> {
        // A copy has a storage of its own that starts at its first element.
        let value = self.value.contiguous()?.copy()?;
        let (storage, layout) = value.storage_and_layout();
        let candle_core::Storage::Cuda(storage) = &*storage else {
            candle_core::bail!("collective: the exchanged value is not on the device of its argument")
        };
        use candle_core::backend::BackendStorage as _;
        Ok((storage.try_clone(layout)?, value.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let own = |g: &Tensor| match self.kept {
            Some((start, rows)) => g.narrow(0, start, rows),
            None => Ok(g.clone()),
        };
        if self.same {
            return Ok(Some((own(g)? * self.ranks.size() as f64)?));
        }
        let sum = self.ranks.sum(&g.contiguous()?).map_err(candle_core::Error::wrap)?;
        Ok(Some(own(&sum)?))
    }
}

fn elements(storage: &CpuStorage) -> usize {
    match storage {
        CpuStorage::F32(v) => v.len(),
        CpuStorage::F64(v) => v.len(),
        CpuStorage::BF16(v) => v.len(),
        CpuStorage::F16(v) => v.len(),
        // Nothing else is differentiated.
        _ => usize::MAX,
    }
}

fn part(storage: &CpuStorage, start: usize, len: usize) -> CpuStorage {
    match storage {
        CpuStorage::F32(v) => CpuStorage::F32(v[start..start + len].to_vec()),
        CpuStorage::F64(v) => CpuStorage::F64(v[start..start + len].to_vec()),
        CpuStorage::BF16(v) => CpuStorage::BF16(v[start..start + len].to_vec()),
        CpuStorage::F16(v) => CpuStorage::F16(v[start..start + len].to_vec()),
        other => other.clone(),
    }
}
