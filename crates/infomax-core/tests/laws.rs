//! The laws of a collective: those in this crate hold them, and wrong ones are found out.
#![allow(clippy::unwrap_used)] // Helpers outside of the test functions.

use infomax_core::candle_core::Tensor;
use infomax_core::{Collective, Counted, Local, Queued, Replica, Result, check_collective, replicas};
use std::sync::Arc;

fn run(size: usize, f: impl Fn(Replica) -> Result<()> + Sync) -> Vec<Result<()>> {
    let f = &f;
    std::thread::scope(|scope| {
        let threads: Vec<_> = replicas(size).into_iter().map(|r| scope.spawn(move || f(r))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn one_process_replicas_their_count_and_their_queue_hold_all_laws() {
    check_collective(&Local).unwrap();
    for size in 1..=4 {
        for result in run(size, |r| check_collective(&r)) {
            result.unwrap();
        }
        for result in run(size, |r| check_collective(&Counted::new(Arc::new(r)))) {
            result.unwrap();
        }
        for result in run(size, |r| check_collective(&Queued::new(Arc::new(r))?)) {
            result.unwrap();
        }
    }
}

/// Engines that are wrong in one thing each are found out, by the name of the law.
#[test]
fn wrong_engines_are_named() {
    #[derive(Clone, Debug)]
    struct Wrong(Replica, &'static str);
    impl Collective for Wrong {
        fn rank(&self) -> usize {
            self.0.rank()
        }
        fn size(&self) -> usize {
            self.0.size()
        }
        fn handle(&self) -> Arc<dyn Collective> {
            // As frameworks whose sum has the identity for a gradient.
            if self.1 == "adjoint" { Arc::new(Alone(self.0.clone())) } else { Arc::new(self.clone()) }
        }
        fn sum(&self, x: &Tensor) -> Result<Tensor> {
            let sum = self.0.sum(x)?;
            Ok(if self.1 == "is the sum" { (sum / self.size() as f64)? } else { sum })
        }
        fn gather(&self, x: &Tensor) -> Result<Vec<Tensor>> {
            let mut all = self.0.gather(x)?;
            if self.1 == "order of ranks" {
                all.reverse();
            }
            Ok(all)
        }
        fn broadcast(&self, x: &Tensor, root: usize) -> Result<Tensor> {
            self.0.broadcast(x, if self.1 == "root's" { 0 } else { root })
        }
        fn barrier(&self) -> Result<()> {
            self.0.barrier()
        }
        fn agree(&self, word: u64) -> Result<u64> {
            Ok(if self.1 == "joined by or" { word } else { self.0.agree(word)? })
        }
    }
    /// Exchanges values; a sum of gradients stays with the rank.
    #[derive(Clone, Debug)]
    struct Alone(Replica);
    impl Collective for Alone {
        fn rank(&self) -> usize {
            self.0.rank()
        }
        fn size(&self) -> usize {
            self.0.size()
        }
        fn handle(&self) -> Arc<dyn Collective> {
            Arc::new(self.clone())
        }
        fn sum(&self, x: &Tensor) -> Result<Tensor> {
            Ok(x.detach())
        }
        fn gather(&self, x: &Tensor) -> Result<Vec<Tensor>> {
            self.0.gather(x)
        }
        fn broadcast(&self, x: &Tensor, root: usize) -> Result<Tensor> {
            self.0.broadcast(x, root)
        }
        fn barrier(&self) -> Result<()> {
            self.0.barrier()
        }
        fn agree(&self, word: u64) -> Result<u64> {
            self.0.agree(word)
        }
    }
    for fault in ["is the sum", "order of ranks", "root's", "joined by or", "adjoint"] {
        let found = run(2, |r| check_collective(&Wrong(r, fault)));
        let problems: Vec<String> =
            found.into_iter().filter_map(|r| r.err()).map(|e| e.to_string()).collect();
        assert!(problems.iter().any(|p| p.contains(fault)), "{fault}: {problems:?}");
    }
}
