//! Ranks within one process, one thread each.

use super::Collective;
use crate::{Error, Result};
use candle_core::Tensor;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The ranks of a run of `size` threads within this process, in order: give each to a thread of its own.
///
/// They exchange tensors through shared memory, so that data-parallel code runs and is tested without any
/// engine: `K` replicas of a model give the gradient of one process on the whole batch.
///
/// ```
/// use infomax_core::{Collective, candle_core::{Device, Tensor}, replicas};
/// std::thread::scope(|threads| {
///     for rank in replicas(3) {
///         threads.spawn(move || {
///             let mine = Tensor::new(rank.rank() as f64, &Device::Cpu)?;
///             assert_eq!(rank.sum(&mine)?.to_scalar::<f64>()?, 0.0 + 1.0 + 2.0);
///             Ok::<_, infomax_core::Error>(())
///         });
///     }
/// });
/// ```
pub fn replicas(size: usize) -> Vec<Replica> {
    let shared = Arc::new(Shared { size, state: Mutex::default(), turn: Condvar::new() });
    (0..size).map(|rank| Replica(Arc::new(Seat { rank, shared: shared.clone() }))).collect()
}

/// One rank of [`replicas`]. Clones are the same rank. When the last one is dropped, the others get an error
/// instead of waiting for ever.
#[derive(Clone, Debug)]
pub struct Replica(Arc<Seat>);

#[derive(Debug)]
struct Seat {
    rank: usize,
    shared: Arc<Shared>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.left.get_or_insert(self.rank);
        drop(state);
        self.shared.turn.notify_all();
    }
}

#[derive(Debug)]
struct Shared {
    size: usize,
    state: Mutex<State>,
    turn: Condvar,
}

/// One exchange at a time: every rank puts its message down, then every rank reads all of them.
#[derive(Debug, Default)]
struct State {
    messages: Vec<(usize, Message)>,
    taken: usize,
    reading: bool,
    left: Option<usize>,
}

#[derive(Clone, Debug)]
struct Message {
    call: &'static str,
    value: Option<Tensor>,
    word: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.turn.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replica {
    /// Every rank's message, in the order of ranks.
    fn exchange(&self, call: &'static str, value: Option<Tensor>, word: u64) -> Result<Vec<Message>> {
        let (rank, shared) = (self.0.rank, &*self.0.shared);
        let mut state = shared.lock();
        while state.reading {
            if let Some(left) = state.left {
                return Err(gone(rank, left, call));
            }
            state = shared.wait(state);
        }
        state.messages.push((rank, Message { call, value, word }));
        if state.messages.len() == shared.size {
            state.messages.sort_by_key(|(rank, _)| *rank);
            state.reading = true;
            shared.turn.notify_all();
        }
        while !state.reading {
            if let Some(left) = state.left {
                return Err(gone(rank, left, call));
            }
            state = shared.wait(state);
        }
        let all: Vec<Message> = state.messages.iter().map(|(_, message)| message.clone()).collect();
        state.taken += 1;
        if state.taken == shared.size {
            state.messages.clear();
            (state.taken, state.reading) = (0, false);
            shared.turn.notify_all();
        }
        drop(state);
        match all.iter().position(|message| message.call != call) {
            None => Ok(all),
            Some(other) => Err(Error::Collective {
                rank,
                problem: format!("called `{call}` while rank {other} called `{}`", all[other].call),
            }),
        }
    }

    fn tensors(&self, call: &'static str, x: &Tensor) -> Result<Vec<Tensor>> {
        let all = self.exchange(call, Some(x.detach()), 0)?;
        Ok(all.into_iter().filter_map(|message| message.value).collect())
    }
}

fn gone(rank: usize, left: usize, call: &str) -> Error {
    Error::Collective { rank, problem: format!("waited in `{call}` for rank {left}, which has left the run") }
}

/// Refuses a root that is no rank.
pub(super) fn check_root(root: usize, size: usize) -> Result<()> {
    if root < size { Ok(()) } else { Err(Error::config("root", root, format!("ranks are below {size}"))) }
}

impl Collective for Replica {
    fn rank(&self) -> usize {
        self.0.rank
    }

    fn size(&self) -> usize {
        self.0.shared.size
    }

    fn handle(&self) -> Arc<dyn Collective> {
        Arc::new(self.clone())
    }

    fn sum(&self, x: &Tensor) -> Result<Tensor> {
        let all = self.tensors("sum", x)?;
        // Every rank compares all of them, so that all see the error.
        for (rank, other) in all.iter().enumerate() {
            if other.dims() != all[0].dims() || other.dtype() != all[0].dtype() {
                return Err(Error::Mismatch {
                    what: format!("the tensors that ranks 0 and {rank} sum"),
                    left: format!("{:?} {:?}", all[0].dims(), all[0].dtype()),
                    right: format!("{:?} {:?}", other.dims(), other.dtype()),
                    hint: "all ranks need the same model and batch".into(),
                });
            }
        }
        let mut total = all[0].clone();
        for other in &all[1..] {
            total = (total + other)?;
        }
        Ok(total)
    }

    fn gather(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        self.tensors("gather", x)
    }

    fn broadcast(&self, x: &Tensor, root: usize) -> Result<Tensor> {
        check_root(root, self.size())?;
        Ok(self.tensors("broadcast", x)?.swap_remove(root))
    }

    fn barrier(&self) -> Result<()> {
        self.exchange("barrier", None, 0).map(drop)
    }

    fn agree(&self, word: u64) -> Result<u64> {
        Ok(self.exchange("agree", None, word)?.iter().fold(0, |all, message| all | message.word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    /// Runs one function on every rank and returns what they gave, in order.
    fn run<T: Send>(size: usize, f: impl Fn(Replica) -> T + Sync) -> Vec<T> {
        let f = &f;
        std::thread::scope(|scope| {
            let threads: Vec<_> = replicas(size).into_iter().map(|r| scope.spawn(move || f(r))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    fn rows(from: usize, count: usize) -> Tensor {
        let values: Vec<f64> = (from * 2..(from + count) * 2).map(|i| (i as f64 * 0.7).sin()).collect();
        Tensor::from_vec(values, (count, 2), &Device::Cpu).unwrap()
    }

    #[test]
    fn words_sums_and_broadcasts_reach_every_rank() {
        let seen = run(3, |r| {
            let mine = Tensor::new(&[r.rank() as f64, 1.0], &Device::Cpu).unwrap();
            r.barrier().unwrap();
            let sum = r.sum(&mine).unwrap().to_vec1::<f64>().unwrap();
            let root = r.broadcast(&mine, 2).unwrap().to_vec1::<f64>().unwrap();
            let mut bucket = [mine.clone(), (mine * 2.0).unwrap()];
            r.sum_in_place(&mut bucket).unwrap();
            (sum, root, bucket[1].to_vec1::<f64>().unwrap(), r.agree(1 << r.rank()).unwrap())
        });
        for one in seen {
            assert_eq!(one, (vec![3.0, 3.0], vec![2.0, 1.0], vec![6.0, 6.0], 0b111));
        }
    }

    /// `L = sum((Z Z^T)^2) / n` of the whole batch `Z = X w`, gathered, is differentiated on every rank; the mean
    /// over ranks of the gradients of `w` is that of one process, for equal and for unequal shares.
    #[test]
    fn the_mean_over_ranks_is_the_gradient_of_the_whole_batch() {
        let loss = |z: &Tensor| {
            (z.matmul(&z.t().unwrap()).unwrap().sqr().unwrap().sum_all().unwrap() / z.dims()[0] as f64)
                .unwrap()
        };
        for shares in [vec![2, 2], vec![3, 1], vec![1, 2, 4]] {
            let total: usize = shares.iter().sum();
            let start = Tensor::new(&[[0.3f64, -0.2], [0.5, 0.8]], &Device::Cpu).unwrap();
            let w = Var::from_tensor(&start).unwrap();
            let expected = loss(&rows(0, total).matmul(&w).unwrap()).backward().unwrap();
            let expected = expected.get(&w).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let found = run(shares.len(), |r| {
                let w = Var::from_tensor(&start).unwrap();
                let from = shares[..r.rank()].iter().sum();
                let mine = rows(from, shares[r.rank()]).matmul(&w).unwrap();
                let grads = loss(&r.all_gather(&mine).unwrap()).backward().unwrap();
                let mean = (r.sum(grads.get(&w).unwrap()).unwrap() / r.size() as f64).unwrap();
                mean.flatten_all().unwrap().to_vec1::<f64>().unwrap()
            });
            for one in found {
                assert!(
                    one.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12),
                    "{one:?} {expected:?}"
                );
            }
        }
    }

    /// A mean over the whole batch that each rank subtracts from its own rows, as synchronized batch norm does.
    #[test]
    fn shared_statistics_have_the_gradient_of_the_whole_batch() {
        let w0 = Tensor::new(&[[0.3f64, -0.2], [0.5, 0.8]], &Device::Cpu).unwrap();
        let centered = |z: &Tensor, sum: &Tensor, n: usize| {
            let mean = (sum / n as f64).unwrap();
            z.broadcast_sub(&mean).unwrap().sqr().unwrap().sqr().unwrap().sum_all().unwrap()
        };
        let w = Var::from_tensor(&w0).unwrap();
        let z = rows(0, 4).matmul(&w).unwrap();
        let expected = centered(&z, &z.sum_keepdim(0).unwrap(), 4).backward().unwrap();
        let expected = expected.get(&w).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let found = run(2, |r| {
            let w = Var::from_tensor(&w0).unwrap();
            let z = rows(2 * r.rank(), 2).matmul(&w).unwrap();
            let sum = r.all_reduce_sum(&z.sum_keepdim(0).unwrap()).unwrap();
            let grads = centered(&z, &sum, 4).backward().unwrap();
            // Each rank holds its share of the sum, so that here the sum over ranks is that of the batch.
            r.sum(grads.get(&w).unwrap()).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()
        });
        for one in found {
            assert!(one.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12), "{one:?} {expected:?}");
        }
    }

    #[test]
    fn unequal_calls_and_lost_ranks_are_errors_on_every_rank() {
        let calls = run(2, |r| {
            let x = Tensor::new(1f64, &Device::Cpu).unwrap();
            let error = if r.rank() == 0 { r.barrier().map(drop) } else { r.sum(&x).map(drop) };
            error.unwrap_err().to_string()
        });
        assert!(
            calls[0].contains("rank 1 called `sum`") && calls[1].contains("rank 0 called `barrier`"),
            "{calls:?}"
        );
        let shapes = run(2, |r| {
            let x = Tensor::zeros(1 + r.rank(), candle_core::DType::F64, &Device::Cpu).unwrap();
            r.sum(&x).unwrap_err().to_string()
        });
        assert!(shapes.iter().all(|e| e.contains("[1]") && e.contains("[2]")), "{shapes:?}");
        let left = run(3, |r| match r.rank() {
            1 => String::new(),
            _ => r.barrier().unwrap_err().to_string(),
        });
        assert!(left[0].contains("rank 1") && left[2].contains("has left"), "{left:?}");
    }
}
