//! Ranks over TCP on this host: bits, faults, and what goes wrong at the start.
#![allow(clippy::unwrap_used)]

mod common;

use common::{all_of_it, bytes, of_replicas};
use infomax_ranks::candle_core::{DType, Device, Tensor};
use infomax_ranks::infomax_core::Collective;
use infomax_ranks::{Limits, Ranks, Report, Result, World, connect};
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For ranks that find each other, and lose each other once gradients were summed.
const LIMITS: Limits = Limits { usual: Duration::from_millis(500), first: Duration::from_secs(60) };

/// For ranks that do not find each other.
const SHORT: Limits = Limits { usual: Duration::from_millis(2500), first: Duration::from_millis(2500) };

/// A port that was free a moment ago.
fn free() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

fn join(rank: usize, size: usize, port: u16, limits: Limits) -> Result<Ranks> {
    let master = Some(("127.0.0.1".to_owned(), port));
    let launcher = "a test";
    let world = World { rank, size, local_rank: None, local_size: None, launcher, mpi: false, master };
    let report: Report = Arc::new(|_: &str| {});
    connect(Some(&world), limits, report).map(|ranks| ranks.unwrap())
}

fn each<T: Send>(ranks: &[(usize, usize)], f: impl Fn(usize, usize) -> T + Sync) -> Vec<T> {
    let f = &f;
    std::thread::scope(|scope| {
        let threads: Vec<_> = ranks.iter().map(|&(rank, size)| scope.spawn(move || f(rank, size))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn run<T: Send>(size: usize, f: impl Fn(Ranks) -> T + Sync) -> Vec<T> {
    let port = free();
    let ranks: Vec<_> = (0..size).map(|rank| (rank, size)).collect();
    each(&ranks, |rank, size| f(join(rank, size, port, LIMITS).unwrap()))
}

/// What ranks of these numbers and sizes say that do not come together.
fn refused(port: u16, ranks: &[(usize, usize)]) -> Vec<String> {
    each(ranks, |rank, size| join(rank, size, port, SHORT).unwrap_err().to_string())
}

/// The usual limit holds from the first gradients on.
fn warm(ranks: &Ranks) {
    ranks.sum_in_place(&mut [Tensor::zeros(3000, DType::F32, &Device::Cpu).unwrap()]).unwrap();
}

#[test]
fn every_operation_gives_the_bits_of_replicas() {
    for size in 2..=4 {
        assert!(run(size, |ranks| all_of_it(&ranks)) == of_replicas(size), "{size} ranks");
    }
}

/// More than a connection holds, in both directions at once.
#[test]
fn large_sums_pass() {
    let count = (6 << 20) + 3;
    let part = |rank: usize| {
        let values: Vec<f32> = (0..count).map(|i| (i * (rank + 3)) as f32).collect();
        Tensor::from_vec(values, count, &Device::Cpu).unwrap()
    };
    let expected = bytes(&((part(0) + part(1)).unwrap() + part(2)).unwrap());
    let found = run(3, |ranks| bytes(&ranks.sum(&part(ranks.rank())).unwrap()) == expected);
    assert_eq!(found, [true; 3]);
}

#[test]
fn a_rank_that_stops_is_named_in_time() {
    let seen = run(3, |ranks| {
        warm(&ranks);
        if ranks.rank() == 1 {
            std::thread::sleep(Duration::from_secs(4));
            return (String::new(), Duration::ZERO);
        }
        let start = Instant::now();
        (ranks.barrier().unwrap_err().to_string(), start.elapsed())
    });
    for (error, time) in [&seen[0], &seen[2]] {
        assert!(error.contains("for rank 1 (") && error.contains("`barrier`"), "{error}");
        assert!(*time < Duration::from_millis(3500), "{time:?}");
    }
}

#[test]
fn a_rank_that_ends_without_a_word_is_named_at_once() {
    let seen = run(3, |ranks| {
        warm(&ranks);
        if ranks.rank() == 1 {
            return Vec::new();
        }
        let start = Instant::now();
        let error = ranks.sum(&Tensor::zeros(5000, DType::F32, &Device::Cpu).unwrap()).unwrap_err();
        // Nobody waits twice.
        let again = ranks.agree(0).unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        // As the program does: the other one may hear of it from this one.
        ranks.leave(&error.to_string(), Duration::from_secs(5));
        vec![error.to_string(), again.to_string()]
    });
    for errors in [&seen[0], &seen[2]] {
        let named = |e: &String| e.contains("rank 1 (") && e.contains("closed its connection");
        assert!(errors.iter().all(named), "{errors:?}");
    }
}

#[test]
fn a_rank_that_leaves_takes_the_others_along_with_its_reason() {
    let seen = run(3, |ranks| {
        if ranks.rank() == 2 {
            return (String::new(), ranks.leave("the disk is full", Duration::from_secs(20)));
        }
        let error = ranks.sum(&Tensor::new(1f32, &Device::Cpu).unwrap()).unwrap_err().to_string();
        (error.clone(), ranks.leave(&error, Duration::from_secs(20)))
    });
    for (error, together) in &seen[..2] {
        assert!(error.contains("rank 2 (") && error.contains("left the run: the disk is full"), "{seen:?}");
        assert!(together, "{seen:?}");
    }
}

#[test]
fn a_port_that_is_taken_is_named_on_every_rank() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    // Another program: it takes connections and speaks its own language.
    std::thread::spawn(move || {
        for stream in listener.incoming().take(8).flatten() {
            let _ = (&stream).write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let errors = refused(port, &[(0, 2), (1, 2)]);
    let parts = ["rank 0 of 2", "MASTER_PORT", "is taken by another program"];
    assert!(parts.iter().all(|part| errors[0].contains(part)), "{errors:?}");
    let parts = ["rank 1 of 2", "MASTER_PORT", "did not answer as rank 0"];
    assert!(parts.iter().all(|part| errors[1].contains(part)), "{errors:?}");
}

#[test]
fn ranks_that_do_not_come_are_named_on_every_rank() {
    let errors = refused(free(), &[(0, 4), (2, 4)]);
    assert!(errors[0].contains("rank 1, rank 3 did not come"), "{errors:?}");
    assert!(
        errors[1].contains("rank 0 ended the start") && errors[1].contains("rank 1, rank 3"),
        "{errors:?}"
    );
    let alone = refused(free(), &[(1, 2)]);
    assert!(alone[0].contains("rank 0 was not found at 127.0.0.1:"), "{alone:?}");
}

#[test]
fn contradictions_end_the_start_on_every_rank() {
    let errors = refused(free(), &[(0, 3), (1, 3), (1, 3)]);
    assert!(errors.iter().all(|error| error.contains("two processes are rank 1")), "{errors:?}");
    let errors = refused(free(), &[(0, 2), (1, 3)]);
    let said = "says that there are 3 processes, rank 0 that there are 2";
    assert!(errors.iter().all(|error| error.contains(said)), "{errors:?}");
}

#[test]
fn a_stranger_at_the_port_is_no_rank() {
    let port = free();
    let seen = each(&[(0, 3), (1, 3), (9, 9), (2, 3)], |rank, size| {
        if rank < size {
            if rank == 2 {
                std::thread::sleep(Duration::from_millis(300));
            }
            return join(rank, size, port, LIMITS).unwrap().agree(1 << rank).unwrap();
        }
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
                stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
                return 0b111;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        0
    });
    assert_eq!(seen, [0b111; 4]);
}
