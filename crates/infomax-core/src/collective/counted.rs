//! How much the processes of a run exchange.

use super::Collective;
use crate::Result;
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A collective that counts what one rank exchanges, backward passes included; all else is that of the one inside.
///
/// Clones and [`Collective::handle`]s count together.
///
/// ```
/// use infomax_core::{Collective, Counted, candle_core::{DType, Device, Tensor}, replicas};
/// use std::sync::Arc;
/// let counts = std::thread::scope(|threads| {
///     let run = |rank| threads.spawn(move || {
///         let rank = Counted::new(Arc::new(rank));
///         let x = Tensor::zeros((3, 2), DType::F32, &Device::Cpu)?;
///         rank.all_gather(&x)?;
///         Ok::<_, infomax_core::Error>(rank.traffic())
///     });
///     let threads: Vec<_> = replicas(2).into_iter().map(run).collect();
///     threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Result<Vec<_>, _>>()
/// })?;
/// assert_eq!((counts[0].messages(), counts[0].bytes()), (1, 24));
/// # Ok::<(), infomax_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Counted {
    inner: Arc<dyn Collective>,
    traffic: Arc<Mutex<Traffic>>,
}

/// What one rank exchanged: for each kind of call, the number of calls and the bytes that it received.
///
/// Bytes are those of the algorithms that keep the links of all ranks equally busy (a ring), of `K` ranks: a sum of `m` bytes
/// is `2 (K - 1) / K m`, a gather all but the own part, a broadcast `m` except at its root, a word of 8 bytes
/// `8 (K - 1)`. An engine may do with more messages, or with other bytes for small ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    calls: BTreeMap<&'static str, (u64, u64)>,
}

impl Traffic {
    /// The calls that exchange anything.
    pub fn messages(&self) -> u64 {
        self.calls.values().map(|(calls, _)| calls).sum()
    }

    /// The bytes that this rank received.
    pub fn bytes(&self) -> u64 {
        self.calls.values().map(|(_, bytes)| bytes).sum()
    }

    /// The kinds of calls in the order of their names: the name of the method, calls, bytes.
    pub fn calls(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        self.calls.iter().map(|(name, (calls, bytes))| (*name, *calls, *bytes))
    }
}

impl Counted {
    /// Counts the calls of this rank.
    pub fn new(inner: Arc<dyn Collective>) -> Self {
        Self { inner, traffic: Arc::default() }
    }

    /// What was exchanged up to now.
    pub fn traffic(&self) -> Traffic {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was exchanged up to now; the count starts again.
    pub fn take(&self) -> Traffic {
        std::mem::take(&mut *self.traffic.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn count(&self, call: &'static str, bytes: usize) {
        if self.inner.size() == 1 {
            return;
        }
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = traffic.calls.entry(call).or_default();
        *entry = (entry.0 + 1, entry.1 + bytes as u64);
    }

    /// The bytes of a sum of so many.
    fn ring(&self, bytes: usize) -> usize {
        let ranks = self.inner.size();
        (2 * bytes * (ranks - 1)).div_ceil(ranks)
    }
}

fn bytes(x: &Tensor) -> usize {
    x.elem_count() * x.dtype().size_in_bytes()
}

impl Collective for Counted {
    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn size(&self) -> usize {
        self.inner.size()
    }

    fn handle(&self) -> Arc<dyn Collective> {
        Arc::new(self.clone())
    }

    fn sum(&self, x: &Tensor) -> Result<Tensor> {
        let sum = self.inner.sum(x)?;
        self.count("sum", self.ring(bytes(x)));
        Ok(sum)
    }

    fn gather(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        let all = self.inner.gather(x)?;
        self.count("gather", all.iter().map(bytes).sum::<usize>() - bytes(x));
        Ok(all)
    }

    fn broadcast(&self, x: &Tensor, root: usize) -> Result<Tensor> {
        let value = self.inner.broadcast(x, root)?;
        self.count("broadcast", if root == self.rank() { 0 } else { bytes(&value) });
        Ok(value)
    }

    fn barrier(&self) -> Result<()> {
        self.inner.barrier()?;
        self.count("barrier", 0);
        Ok(())
    }

    fn agree(&self, word: u64) -> Result<u64> {
        let all = self.inner.agree(word)?;
        self.count("agree", 8 * (self.size() - 1));
        Ok(all)
    }

    fn sum_in_place(&self, bucket: &mut [Tensor]) -> Result<()> {
        self.inner.sum_in_place(bucket)?;
        self.count("sum_in_place", self.ring(bucket.iter().map(bytes).sum()));
        Ok(())
    }
}
