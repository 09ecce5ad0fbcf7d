//! Sums and gathers over the processes of a run.

mod counted;
mod gradient;
mod laws;
mod queued;
mod replica;

pub use counted::{Counted, Traffic};
pub use laws::check_collective;
pub use queued::{Pending, Queued};
pub use replica::{Replica, replicas};

use crate::Result;
use candle_core::Tensor;
use std::sync::Arc;

/// The processes (ranks) of a data-parallel run. Losses, layers and trainers take `&dyn Collective` and never
/// know more.
///
/// Every method is collective: all ranks call the same methods in the same order, with tensors of the same
/// shape (rows may differ in a gather). Sums are taken in the order of ranks, so that every rank holds the same
/// bits.
///
/// # The convention of gradients
/// What is differentiated is the **sum over the ranks** of the scalar on which each rank calls `backward`, and
/// the backward pass of an operation is its adjoint under that sum:
///
/// - [`Collective::all_reduce_sum`] sums the incoming gradients of all ranks;
/// - [`Collective::all_gather`] sums them too, and keeps the rows of this rank.
///
/// An objective of the gathered batch is the same number `L` on each of `K` ranks, so the sum is `K L`: a
/// trainer takes the **mean** over ranks of the gradients of parameters, and has that of `L`. A mean over the
/// samples of one rank is right under the same rule, where all ranks have as many samples. Statistics that
/// every rank applies to its own rows (synchronized batch norm) are right as well, which they would not be if
/// the backward pass of a sum were the identity.
///
/// Where every rank makes the same number of what it got, the incoming gradients are equal on all ranks, and
/// their sum is `K` times the own one: [`Collective::all_reduce_same`] and [`Collective::all_gather_same`] have
/// that gradient without a message. The terms of this project are such numbers.
///
/// [`check_collective`] holds an engine against all of this.
pub trait Collective: std::fmt::Debug + Send + Sync {
    /// The number of this process, `0 <= rank < size`.
    fn rank(&self) -> usize;

    /// The number of processes.
    fn size(&self) -> usize;

    /// This rank's part in the same processes, to be kept by an operation until its backward pass.
    fn handle(&self) -> Arc<dyn Collective>;

    /// The sum of every rank's tensor, on every rank; values only, without a gradient.
    ///
    /// # Errors
    /// Tensors of unequal shape or type, a rank that has left.
    fn sum(&self, x: &Tensor) -> Result<Tensor>;

    /// Every rank's tensor in the order of ranks, on every rank; values only. First dimensions may differ.
    ///
    /// # Errors
    /// As [`Collective::sum`].
    fn gather(&self, x: &Tensor) -> Result<Vec<Tensor>>;

    /// The tensor of the rank `root`, on every rank; values only.
    ///
    /// # Errors
    /// A root that is no rank, a rank that has left.
    fn broadcast(&self, x: &Tensor, root: usize) -> Result<Tensor>;

    /// Returns when every rank has come here.
    ///
    /// # Errors
    /// A rank that has left.
    fn barrier(&self) -> Result<()>;

    /// The bitwise or of every rank's word: does any rank stop, is any rank not finite?
    ///
    /// # Errors
    /// A rank that has left.
    fn agree(&self, word: u64) -> Result<u64>;

    /// Replaces every tensor of a bucket (of gradients) by its sum over the ranks; values only. An engine may
    /// send the bucket as one message.
    ///
    /// # Errors
    /// As [`Collective::sum`]; the bucket is left as it was then.
    fn sum_in_place(&self, bucket: &mut [Tensor]) -> Result<()> {
        let sums = bucket.iter().map(|x| self.sum(x)).collect::<Result<Vec<_>>>()?;
        bucket.iter_mut().zip(sums).for_each(|(x, sum)| *x = sum);
        Ok(())
    }

    /// The sum of every rank's tensor, on every rank, with the gradient of the convention above.
    ///
    /// # Errors
    /// As [`Collective::sum`].
    fn all_reduce_sum(&self, x: &Tensor) -> Result<Tensor> {
        if self.size() == 1 { Ok(x.clone()) } else { gradient::all_reduce_sum(self.handle(), x, false) }
    }

    /// [`Collective::all_reduce_sum`] of which every rank makes the same number, on which it calls `backward`: the
    /// gradient is `K` times the incoming one, and costs no message. Wrong for anything else.
    ///
    /// # Errors
    /// As [`Collective::sum`].
    fn all_reduce_same(&self, x: &Tensor) -> Result<Tensor> {
        if self.size() == 1 { Ok(x.clone()) } else { gradient::all_reduce_sum(self.handle(), x, true) }
    }

    /// Every rank's rows below each other, in the order of ranks, on every rank, with the gradient of the
    /// convention above.
    ///
    /// # Errors
    /// As [`Collective::gather`].
    fn all_gather(&self, x: &Tensor) -> Result<Tensor> {
        if self.size() == 1 { Ok(x.clone()) } else { gradient::all_gather(self.handle(), x, false) }
    }

    /// [`Collective::all_gather`] of which every rank makes the same number, on which it calls `backward`: the
    /// gradient is `K` times the own rows of the incoming one, and costs no message. Wrong for anything else.
    ///
    /// # Errors
    /// As [`Collective::gather`].
    fn all_gather_same(&self, x: &Tensor) -> Result<Tensor> {
        if self.size() == 1 { Ok(x.clone()) } else { gradient::all_gather(self.handle(), x, true) }
    }
}

/// The collective of a single process: every operation passes its input on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Local;

impl Collective for Local {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn handle(&self) -> Arc<dyn Collective> {
        Arc::new(Self)
    }

    fn sum(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.detach())
    }

    fn gather(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        Ok(vec![x.detach()])
    }

    fn broadcast(&self, x: &Tensor, root: usize) -> Result<Tensor> {
        replica::check_root(root, 1)?;
        Ok(x.detach())
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }

    fn agree(&self, word: u64) -> Result<u64> {
        Ok(word)
    }
}
