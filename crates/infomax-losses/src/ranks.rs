//! Numbers of the batch of all ranks, by the messages that cost least.
//!
//! Every value that a term gives is the same on all ranks, so that gathers and sums need no message backward
//! ([`Collective::all_gather_same`]). What one rank applies to its own rows alone must not use that form.

use crate::{Result, op};
use candle_core::{DType, Device, Tensor};
use infomax_core::{Collective, Context};

/// The rows of one batch over the ranks.
pub(crate) struct Ranks<'a> {
    pub(crate) collective: &'a dyn Collective,
    /// The rows of this rank.
    pub(crate) rows: usize,
    /// The rows of the ranks before it.
    pub(crate) start: usize,
    /// The rows of all ranks.
    pub(crate) total: usize,
}

impl<'a> Ranks<'a> {
    /// The ranks of a step in which this one has so many rows. One message of 8 bytes.
    pub(crate) fn of(ctx: &Context<'a>, rows: usize) -> Result<Self> {
        let collective = ctx.collective;
        if collective.size() == 1 {
            return Ok(Self { collective, rows, start: 0, total: rows });
        }
        let own = Tensor::new(&[rows as f64], &Device::Cpu)?;
        let mut counts = Vec::new();
        for part in collective.gather(&own)? {
            counts.push(part.to_vec1::<f64>()?.first().map_or(0, |count| *count as usize));
        }
        let start = counts.iter().take(collective.rank()).sum();
        Ok(Self { collective, rows, start, total: counts.iter().sum() })
    }

    /// Whether there is one process only.
    pub(crate) fn alone(&self) -> bool {
        self.collective.size() == 1
    }

    /// The rows of all ranks below each other, of which every rank makes the same number.
    pub(crate) fn gather(&self, rows: &Tensor) -> Result<Tensor> {
        Ok(self.collective.all_gather_same(rows)?)
    }

    /// The sum over the ranks, of which every rank makes the same number.
    pub(crate) fn sum(&self, own: &Tensor) -> Result<Tensor> {
        Ok(self.collective.all_reduce_same(own)?)
    }

    /// The mean over the rows of all ranks of means over the rows of each.
    pub(crate) fn mean(&self, own: &Tensor) -> Result<Tensor> {
        if self.alone() {
            Ok(own.clone())
        } else {
            self.sum(&(own * (self.rows as f64 / self.total as f64))?)
        }
    }

    /// Whether a sum of so many f64 numbers moves fewer bytes than a gather of rows like these: a rank receives
    /// `2 (K - 1)/K` of the one and `(K - 1)/K` of the other. All ranks decide alike.
    pub(crate) fn sums_pay(&self, numbers: usize, like: &Tensor) -> bool {
        let width = like.dims().iter().skip(1).product::<usize>();
        !self.alone() && 16 * numbers < self.total * width * like.dtype().size_in_bytes()
    }

    /// The scatter `sum_i (z_i - m)^T (z_i - m)` `(d, d)` of all rows about their mean, in f64, where it is less
    /// traffic than the rows; two messages.
    pub(crate) fn scatter(&self, z: &Tensor) -> Result<Option<Tensor>> {
        let d = z.dim(1)?;
        if !self.sums_pay(d * d, z) {
            return Ok(None);
        }
        let zc = self.centered(z)?;
        Ok(Some(self.sum(&zc.t()?.matmul(&zc)?)?))
    }

    /// `X^T Y` `(d, d)` over all rows, in f64, where it is less traffic than the rows; one message.
    pub(crate) fn product(&self, x: &Tensor, y: &Tensor) -> Result<Option<Tensor>> {
        if !self.sums_pay(x.dim(1)? * y.dim(1)?, x) {
            return Ok(None);
        }
        let (x, y) = (wide(x)?, wide(y)?);
        Ok(Some(self.sum(&x.t()?.matmul(&y)?)?))
    }

    /// The own rows in f64 less the mean of all rows, which is a constant: a sum of products of centered rows does
    /// not change with it in first order. One message.
    pub(crate) fn centered(&self, z: &Tensor) -> Result<Tensor> {
        let z = wide(z)?;
        let mean = (self.collective.sum(&z.detach().sum_keepdim(0)?)? / self.total as f64)?;
        Ok(z.broadcast_sub(&mean)?)
    }

    /// Replaces numbers by their sums over the ranks. One message.
    pub(crate) fn add(&self, values: &mut [f64]) -> candle_core::Result<()> {
        let own = Tensor::from_slice(values, values.len(), &Device::Cpu)?;
        let sum = self.collective.sum(&own).map_err(candle_core::Error::wrap)?;
        values.copy_from_slice(&sum.to_vec1::<f64>()?);
        Ok(())
    }
}

/// The mean over the rows of all ranks of a mean over `rows` of this one: the same on every rank, differentiable. One
/// message.
pub(crate) fn mean(own: &Tensor, rows: usize, ctx: &Context<'_>) -> Result<Tensor> {
    if ctx.collective.size() == 1 {
        return Ok(own.clone());
    }
    let count = Tensor::new(&[rows as f64], &Device::Cpu)?.to_dtype(own.dtype())?.to_device(own.device())?;
    let message = Tensor::cat(&[(own.flatten_all()? * rows as f64)?, count], 0)?;
    let sums = ctx.collective.all_reduce_same(&message)?;
    let values = own.elem_count();
    let total = op::host(&sums.narrow(0, values, 1)?)?.first().copied().unwrap_or(1.0);
    Ok((sums.narrow(0, 0, values)? / total)?.reshape(own.shape())?)
}

/// The labels of the samples of all ranks, in their order. One message.
pub(crate) fn labels(own: &[u32], ctx: &Context<'_>) -> Result<Vec<u32>> {
    let own = Tensor::from_slice(own, own.len(), &Device::Cpu)?;
    let mut all = Vec::new();
    for part in ctx.collective.gather(&own)? {
        all.extend(part.to_vec1::<u32>()?);
    }
    Ok(all)
}

fn wide(z: &Tensor) -> Result<Tensor> {
    // Metal has no f64.
    Ok(if z.device().is_metal() { op::widen(z)? } else { z.to_dtype(DType::F64)? })
}
