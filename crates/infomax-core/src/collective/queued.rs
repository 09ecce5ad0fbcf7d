//! The calls of one rank in a queue, so that some of them run beside other work.

use super::Collective;
use crate::{Error, Result};
use candle_core::Tensor;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// A collective whose calls are made by a thread of their own, one after the other in the order in which they were asked for.
///
/// [`Queued::start_sum`] returns at once: the gradients of the last layers are on their way while those of the first are
/// still computed. All other calls wait for what was asked for before them, and then for their own result. Calls are collective,
/// so all ranks must ask in the same order; from one thread a rank, they do. Clones and handles share the queue.
///
/// Values and errors are those of the collective inside.
///
/// ```
/// use infomax_core::{Collective, Queued, candle_core::{Device, Tensor}, replicas};
/// use std::sync::Arc;
/// std::thread::scope(|threads| {
///     for rank in replicas(2) {
///         threads.spawn(move || {
///             let rank = Queued::new(Arc::new(rank))?;
///             let bucket = vec![Tensor::new(1f64, &Device::Cpu)?];
///             let pending = rank.start_sum(bucket)?;
///             // What is computed here takes no time from the exchange.
///             assert_eq!(pending.wait()?[0].to_scalar::<f64>()?, 2.0);
///             Ok::<_, infomax_core::Error>(())
///         });
///     }
/// });
/// ```
#[derive(Clone, Debug)]
pub struct Queued {
    inner: Arc<dyn Collective>,
    jobs: Sender<Job>,
}

/// A sum that was asked for.
#[derive(Debug)]
pub struct Pending {
    rank: usize,
    result: Receiver<Result<Vec<Tensor>>>,
}

impl Pending {
    /// The sums over the ranks, in the order of the bucket; waits until they are there.
    ///
    /// # Errors
    /// As [`Collective::sum_in_place`].
    pub fn wait(self) -> Result<Vec<Tensor>> {
        self.result.recv().map_err(|_| ended(self.rank))?
    }
}

type Work = Box<dyn FnOnce(&dyn Collective) + Send>;

struct Job(Work);

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Job")
    }
}

fn ended(rank: usize) -> Error {
    Error::Collective { rank, problem: "has lost the thread that exchanges for it".into() }
}

impl Queued {
    /// Starts the thread. It ends after the last job, once no clone and no handle is left.
    ///
    /// # Errors
    /// A system that starts no thread.
    pub fn new(inner: Arc<dyn Collective>) -> Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let own = inner.clone();
        let work = move || queue.into_iter().for_each(|Job(work)| work(&*own));
        let thread = std::thread::Builder::new().name("collective".into()).spawn(work);
        let rank = inner.rank();
        let problem = |e: std::io::Error| format!("could not start the thread that exchanges for it: {e}");
        thread.map_err(|e| Error::Collective { rank, problem: problem(e) })?;
        Ok(Self { inner, jobs })
    }

    /// Asks for the sums of [`Collective::sum_in_place`], and does not wait for them.
    ///
    /// # Errors
    /// A thread that has ended.
    pub fn start_sum(&self, mut bucket: Vec<Tensor>) -> Result<Pending> {
        let result =
            self.ask(move |inner| inner.sum_in_place(&mut bucket).map(|()| std::mem::take(&mut bucket)))?;
        Ok(Pending { rank: self.inner.rank(), result })
    }

    fn ask<T: Send + 'static>(
        &self,
        f: impl FnOnce(&dyn Collective) -> Result<T> + Send + 'static,
    ) -> Result<Receiver<Result<T>>> {
        let (answer, result) = channel();
        // Nobody may wait any more: an error elsewhere ended the step.
        let work = move |inner: &dyn Collective| drop(answer.send(f(inner)));
        self.jobs.send(Job(Box::new(work))).map_err(|_| ended(self.inner.rank()))?;
        Ok(result)
    }

    fn now<T: Send + 'static>(
        &self,
        f: impl FnOnce(&dyn Collective) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.ask(f)?.recv().map_err(|_| ended(self.inner.rank()))?
    }
}

impl Collective for Queued {
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
        let x = x.detach();
        self.now(move |inner| inner.sum(&x))
    }

    fn gather(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        let x = x.detach();
        self.now(move |inner| inner.gather(&x))
    }

    fn broadcast(&self, x: &Tensor, root: usize) -> Result<Tensor> {
        let x = x.detach();
        self.now(move |inner| inner.broadcast(&x, root))
    }

    fn barrier(&self) -> Result<()> {
        self.now(|inner| inner.barrier())
    }

    fn agree(&self, word: u64) -> Result<u64> {
        self.now(move |inner| inner.agree(word))
    }

    fn sum_in_place(&self, bucket: &mut [Tensor]) -> Result<()> {
        let sums = self.start_sum(bucket.to_vec())?.wait()?;
        bucket.iter_mut().zip(sums).for_each(|(x, sum)| *x = sum);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicas;
    use candle_core::Device;

    #[test]
    fn sums_overtake_nothing_and_are_not_overtaken() {
        let seen: Vec<Vec<f64>> = std::thread::scope(|scope| {
            let ranks = replicas(3).into_iter().map(|rank| {
                scope.spawn(move || {
                    let mine = |v: f64| Tensor::new(v + rank.rank() as f64, &Device::Cpu).unwrap();
                    let (first, second) = (mine(0.0), mine(10.0));
                    let queue = Queued::new(Arc::new(rank)).unwrap();
                    let a = queue.start_sum(vec![first.clone()]).unwrap();
                    let b = queue.start_sum(vec![second, first.clone()]).unwrap();
                    let word = queue.agree(1 << queue.rank()).unwrap();
                    // Waited for in another order than they were asked for.
                    let b = b.wait().unwrap();
                    let a = a.wait().unwrap();
                    let value = |t: &Tensor| t.to_scalar::<f64>().unwrap();
                    vec![value(&a[0]), value(&b[0]), value(&b[1]), word as f64]
                })
            });
            ranks.collect::<Vec<_>>().into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        assert!(seen.iter().all(|one| *one == [3.0, 33.0, 3.0, 7.0]), "{seen:?}");
    }

    #[test]
    fn a_rank_that_left_is_an_error_of_what_is_waited_for() {
        let mut ranks = replicas(2);
        drop(ranks.pop());
        let queue = Queued::new(Arc::new(ranks.remove(0))).unwrap();
        let pending = queue.start_sum(vec![Tensor::new(1f64, &Device::Cpu).unwrap()]).unwrap();
        assert!(pending.wait().unwrap_err().to_string().contains("has left"));
        assert!(queue.barrier().is_err());
    }

    #[test]
    fn a_lost_thread_is_an_error_and_no_wait() {
        let queue = Queued::new(Arc::new(crate::Local)).unwrap();
        let died = queue.now(|_| -> Result<()> { std::panic::panic_any("a test") });
        assert!(died.unwrap_err().to_string().contains("lost the thread"));
        assert!(queue.barrier().unwrap_err().to_string().contains("lost the thread"));
    }
}
