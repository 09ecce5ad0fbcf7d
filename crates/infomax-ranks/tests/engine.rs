//! The engine over a link of threads: the exchanges of MPI without MPI.
#![allow(clippy::unwrap_used)]

mod common;

use common::{all_of_it, bytes, of_replicas};
use infomax_ranks::candle_core::{DType, Device, Tensor};
use infomax_ranks::infomax_core::Collective;
use infomax_ranks::link::{Link, Request, Slice};
use infomax_ranks::{Limits, Ranks, Report, Result, World, connect, has_mpi};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What is on its way: from, to, tag.
type Post = Arc<Mutex<BTreeMap<(usize, usize, i32), VecDeque<Vec<u8>>>>>;

#[derive(Debug)]
struct Threads {
    rank: usize,
    size: usize,
    post: Post,
}

struct Letter {
    /// `None` for one that was sent.
    awaited: Option<((usize, usize, i32), Post)>,
    came: Vec<u8>,
}

impl Link for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn host(&self) -> String {
        format!("host-{}", self.rank / 2)
    }

    fn send(&mut self, to: usize, tag: i32, message: Slice) -> Result<Box<dyn Request>> {
        let mut post = self.post.lock().unwrap();
        post.entry((self.rank, to, tag)).or_default().push_back(message.get().to_vec());
        Ok(Box::new(Letter { awaited: None, came: Vec::new() }))
    }

    fn receive(&mut self, from: usize, tag: i32, _: Vec<u8>) -> Result<Box<dyn Request>> {
        let awaited = Some(((from, self.rank, tag), self.post.clone()));
        Ok(Box::new(Letter { awaited, came: Vec::new() }))
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    fn abort(&self, _: i32) {}
}

impl Request for Letter {
    fn poll(&mut self) -> Result<bool> {
        let Some((key, post)) = &self.awaited else { return Ok(true) };
        let Some(bytes) = post.lock().unwrap().get_mut(key).and_then(VecDeque::pop_front) else {
            return Ok(false);
        };
        (self.came, self.awaited) = (bytes, None);
        Ok(true)
    }

    fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.came)
    }
}

const SHORT: Limits = Limits { usual: Duration::from_millis(300), first: Duration::from_millis(300) };

fn run<T: Send>(size: usize, limits: Limits, f: impl Fn(Ranks) -> T + Sync) -> Vec<T> {
    let (f, post) = (&f, Post::default());
    std::thread::scope(|scope| {
        let threads = (0..size).map(|rank| {
            let post = post.clone();
            scope.spawn(move || f(Ranks::over(Box::new(Threads { rank, size, post }), limits, None).unwrap()))
        });
        threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn every_operation_gives_the_bits_of_replicas() {
    for size in 1..=4 {
        let expected = of_replicas(size);
        let found = run(size, Limits::default(), |ranks| all_of_it(&ranks));
        assert!(found == expected, "{size} ranks");
        // Sums, gathers and words are equal on all ranks.
        assert!(found.iter().all(|one| *one == found[0]), "{size} ranks");
    }
}

/// Several segments, more than are on their way at a time.
#[test]
fn large_sums_are_those_of_replicas() {
    let count = (10 << 20) + 3;
    let part = |rank: usize| {
        let values: Vec<f32> = (0..count).map(|i| ((i * (rank + 3)) as f32).sin()).collect();
        Tensor::from_vec(values, count, &Device::Cpu).unwrap()
    };
    let expected = ((part(0) + part(1)).unwrap() + part(2)).unwrap();
    let found = run(3, Limits::default(), |ranks| bytes(&ranks.sum(&part(ranks.rank())).unwrap()));
    assert!(found.iter().all(|sum| *sum == bytes(&expected)));
}

#[test]
fn other_shapes_types_and_calls_are_errors_on_every_rank_and_the_run_goes_on() {
    let seen = run(3, Limits::default(), |ranks| {
        let rank = ranks.rank();
        let shape = Tensor::zeros(3 + rank / 2, DType::F32, &Device::Cpu).unwrap();
        let dtype = if rank == 1 { DType::F64 } else { DType::F32 };
        let typed = Tensor::zeros((2, 2), dtype, &Device::Cpu).unwrap();
        let errors = [
            ranks.sum(&shape).unwrap_err().to_string(),
            ranks.sum(&typed).unwrap_err().to_string(),
            ranks
                .gather(&Tensor::zeros((2, 3 + rank), DType::F32, &Device::Cpu).unwrap())
                .unwrap_err()
                .to_string(),
            if rank == 0 { ranks.barrier() } else { ranks.agree(0).map(drop) }.unwrap_err().to_string(),
        ];
        (errors, ranks.agree(1 << rank).unwrap())
    });
    for (rank, (errors, word)) in seen.into_iter().enumerate() {
        let parts = [
            ["[3] f32", "[4] f32", "rank 2 (host-1)"],
            ["[2, 2] f32", "[2, 2] f64", "rank 1 (host-0)"],
            ["beside their rows", "rank 0", "rank 1"],
            ["`barrier`", "`agree`", "exchange 5"],
        ];
        for (error, parts) in errors.iter().zip(parts) {
            assert!(parts.iter().all(|part| error.contains(part)), "{rank}: {error} {parts:?}");
        }
        assert_eq!(word, 0b111);
    }
}

#[test]
fn a_rank_that_does_not_come_is_named_and_nobody_waits_twice() {
    let seen = run(3, SHORT, |ranks| {
        if ranks.rank() == 1 {
            std::thread::sleep(Duration::from_millis(1000));
            return Vec::new();
        }
        let start = Instant::now();
        let first = ranks.barrier().unwrap_err().to_string();
        assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
        let start = Instant::now();
        let second = ranks.agree(0).unwrap_err().to_string();
        assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
        vec![first, second]
    });
    for errors in [&seen[0], &seen[2]] {
        let named = |e: &String| e.contains("for rank 1 (host-0)") && e.contains("`barrier` (exchange 2)");
        assert!(errors.iter().all(named), "{errors:?}");
    }
}

#[test]
fn a_rank_that_leaves_takes_the_others_along_with_its_reason() {
    let seen = run(3, Limits::default(), |ranks| {
        if ranks.rank() == 2 {
            return (String::new(), ranks.leave("the disk is full", Duration::from_secs(20)));
        }
        let error = ranks.sum(&Tensor::new(1f32, &Device::Cpu).unwrap()).unwrap_err().to_string();
        (error.clone(), ranks.leave(&error, Duration::from_secs(20)))
    });
    assert!(seen[0].0.contains("rank 2 (host-1) left the run: the disk is full"), "{seen:?}");
    assert!(seen.iter().all(|(_, together)| *together), "{seen:?}");
    // Somebody who never comes does not hold up the end.
    let alone = run(2, Limits::default(), |ranks| {
        ranks.rank() == 1 || !ranks.leave("alone", Duration::from_millis(50))
    });
    assert_eq!(alone, [true, true]);
}

#[test]
fn several_processes_without_an_engine_are_refused_and_one_needs_none() {
    let report: Report = Arc::new(|_: &str| {});
    let world = |size, mpi| World {
        rank: 0,
        size,
        local_rank: None,
        local_size: None,
        launcher: "a test",
        mpi,
        master: None,
    };
    assert!(connect(None, SHORT, report.clone()).unwrap().is_none());
    assert!(connect(Some(&world(1, true)), SHORT, report.clone()).unwrap().is_none());
    let error = connect(Some(&world(4, false)), SHORT, report.clone()).unwrap_err().to_string();
    assert!(error.contains("rank 0 of 4") && error.contains("MASTER_ADDR"), "{error}");
    if !has_mpi() {
        let error = connect(Some(&world(4, true)), SHORT, report).unwrap_err().to_string();
        let parts = ["process 0 of 4", "built without mpi", "MASTER_ADDR"];
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}
