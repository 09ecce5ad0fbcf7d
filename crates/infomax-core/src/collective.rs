//! Sums and gathers over the processes of a run.

use crate::Result;
use candle_core::Tensor;

/// The processes of a data-parallel run. Losses and trainers take `&dyn Collective` and never know more.
///
/// Both operations are differentiable where the implementation has more than one rank; [`Local`] passes
/// its input on, so that code written for many ranks costs nothing on one.
pub trait Collective: std::fmt::Debug + Send + Sync {
    /// The number of this process, `0 <= rank < size`.
    fn rank(&self) -> usize;

    /// The number of processes.
    fn size(&self) -> usize;

    /// The sum of every rank's tensor, on every rank.
    fn all_reduce_sum(&self, x: &Tensor) -> Result<Tensor>;

    /// Every rank's rows below each other, in the order of ranks, on every rank.
    fn all_gather(&self, x: &Tensor) -> Result<Tensor>;
}

/// The collective of a single process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local;

impl Collective for Local {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_reduce_sum(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.clone())
    }

    fn all_gather(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.clone())
    }
}
