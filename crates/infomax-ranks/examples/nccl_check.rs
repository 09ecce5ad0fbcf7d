//! The engine over NCCL: `nccl_check` on one card, or started once a card by a launcher (`torchrun --no-python`, `mpirun`).
//!
//! Every operation on tensors of a card is compared with its exact result: `nccl_check values`. `nccl_check mismatch` lets the
//! last rank compute on the CPU, which every rank must refuse, and `nccl_check speed` times sums. It ends with one line on
//! rank 0 and the status 0, or with an error on every rank.

#![allow(clippy::print_stdout, clippy::print_stderr)] // A program of its own.

use anyhow::{Context as _, Result, bail, ensure};
use infomax_ranks::candle_core::{DType, Device, Tensor};
use infomax_ranks::infomax_core::{Collective, Queued};
use infomax_ranks::{Limits, Ranks, Report, World, alone, connect, guarded};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn main() -> Result<()> {
    // It also links the functions of CUDA's libraries that are found at their first use.
    if let Some(missing) = infomax_cuda::missing_libraries() {
        bail!("{missing}");
    }
    let mut args = std::env::args().skip(1);
    let mode = args.next().unwrap_or_else(|| "values".to_owned());
    let limit =
        args.next().map(|seconds| seconds.parse::<f64>().context("seconds of the limit")).transpose()?;
    let usual = limit.map_or(Limits::default().usual, Duration::from_secs_f64);
    let limits = Limits { usual, first: usual };
    let world = World::of_variables(|name| std::env::var(name).ok())?;
    let report: Report = Arc::new(|text: &str| eprintln!("error: {text}"));
    let ranks = match connect(world.as_ref(), limits, report.clone())? {
        Some(ranks) => ranks,
        None => alone(limits, report.clone())?,
    };
    let local = world.and_then(|world| world.local_rank).unwrap_or_else(|| ranks.on_this_host_before());
    guarded(&ranks, &report, || run(&mode, &ranks, local));
    ranks.finish()?;
    Ok(())
}

fn run(mode: &str, ranks: &Ranks, local: usize) -> Result<()> {
    // A launcher that gives each process one card lets it see no other.
    let open = Device::new_cuda_with_stream;
    let card = open(local).or_else(|_| open(0)).context("no card")?;
    match mode {
        "values" => values(ranks, &card)?,
        "mismatch" => mismatch(ranks, &card)?,
        "speed" => return speed(ranks, &card),
        other => bail!("there is no mode {other}: values, mismatch, speed"),
    }
    if ranks.rank() == 0 {
        println!("{mode}: {} ranks passed", ranks.size());
    }
    Ok(())
}

/// Small whole numbers, of which every type holds the sums, whatever their order.
fn part(rank: usize, shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    let count = shape.iter().product();
    let values: Vec<f64> = (0..count).map(|i| ((i * 7 + rank * 3) % 23) as f64).collect();
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)?)
}

fn same(what: &str, found: &Tensor, expected: &Tensor) -> Result<()> {
    ensure!(found.device().is_cuda(), "{what}: the result is not on the card");
    ensure!(
        found.dims() == expected.dims() && found.dtype() == expected.dtype(),
        "{what}: {:?} {:?} instead of {:?} {:?}",
        found.dims(),
        found.dtype(),
        expected.dims(),
        expected.dtype()
    );
    let flat = |x: &Tensor| -> Result<Vec<f64>> {
        Ok(x.to_device(&Device::Cpu)?.flatten_all()?.to_dtype(DType::F64)?.to_vec1()?)
    };
    let (found, expected) = (flat(found)?, flat(expected)?);
    let off = found.iter().zip(&expected).position(|(a, b)| a != b);
    match off {
        None => Ok(()),
        Some(i) => bail!("{what}: element {i} is {} instead of {}", found[i], expected[i]),
    }
}

fn values(ranks: &Ranks, card: &Device) -> Result<()> {
    let (rank, size) = (ranks.rank(), ranks.size());
    let sum_of = |shape: &[usize], dtype: DType| -> Result<Tensor> {
        let mut sum = part(0, shape, DType::F64, &Device::Cpu)?;
        for other in 1..size {
            sum = (sum + part(other, shape, DType::F64, &Device::Cpu)?)?;
        }
        Ok(sum.to_dtype(dtype)?)
    };
    for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16, DType::U8, DType::U32, DType::I64] {
        // With the header, and by NCCL.
        for count in [0, 5, 10_000, 1_000_003] {
            let found = ranks.sum(&part(rank, &[count], dtype, card)?)?;
            same(&format!("sum of {count} {dtype:?}"), &found, &sum_of(&[count], dtype)?)?;
        }
    }
    // Not contiguous, and not from the start of its memory.
    let wide = part(rank, &[90, 100], DType::F32, card)?;
    let expected = sum_of(&[90, 100], DType::F32)?;
    same("sum of a transpose", &ranks.sum(&wide.t()?)?, &expected.t()?.contiguous()?)?;
    same("sum of rows", &ranks.sum(&wide.narrow(0, 7, 60)?)?, &expected.narrow(0, 7, 60)?.contiguous()?)?;
    same("sum of columns", &ranks.sum(&wide.narrow(1, 7, 60)?)?, &expected.narrow(1, 7, 60)?.contiguous()?)?;

    // Equal rows, other rows on each rank, and some ranks with few enough to travel with the header.
    type Rows = fn(usize) -> usize;
    let rows: [(&str, Rows); 3] = [("equal", |_| 50), ("unequal", |r| 40 + r), ("few or many", |r| 90 * r)];
    for (name, rows) in rows {
        let found = ranks.gather(&part(rank, &[rows(rank), 100], DType::F32, card)?)?;
        ensure!(found.len() == size, "{} parts of {size} ranks", found.len());
        for (other, found) in found.iter().enumerate() {
            let expected = part(other, &[rows(other), 100], DType::F32, &Device::Cpu)?;
            same(&format!("{name} rows of rank {other}"), found, &expected)?;
        }
    }
    for root in 0..size {
        for shape in [&[3, 2][..], &[300, 20]] {
            let found = ranks.broadcast(&part(rank, shape, DType::F32, card)?, root)?;
            same(
                &format!("broadcast of rank {root}"),
                &found,
                &part(root, shape, DType::F32, &Device::Cpu)?,
            )?;
        }
    }
    let shapes = [&[3000][..], &[7], &[60, 70], &[0, 3]];
    let types = [DType::F32, DType::F64, DType::F32, DType::F32];
    let bucket = || -> Result<Vec<Tensor>> {
        shapes.iter().zip(types).map(|(shape, dtype)| part(rank, shape, dtype, card)).collect()
    };
    let check = |name: &str, sums: &[Tensor]| -> Result<()> {
        for ((sum, shape), dtype) in sums.iter().zip(shapes).zip(types) {
            same(&format!("{name} of {shape:?}"), sum, &sum_of(shape, dtype)?)?;
        }
        Ok(())
    };
    let mut sums = bucket()?;
    ranks.sum_in_place(&mut sums)?;
    check("a bucket", &sums)?;
    // On another thread, of what the card has not computed yet.
    let queue = Queued::new(ranks.handle())?;
    let later = queue.start_sum(bucket()?.iter().map(|x| x.affine(1.0, 0.0)).collect::<Result<_, _>>()?)?;
    let after = queue.sum(&part(rank, &[5000], DType::F32, card)?)?;
    check("a bucket beside other work", &later.wait()?)?;
    same("a sum behind it", &after, &sum_of(&[5000], DType::F32)?)?;
    ensure!(ranks.agree(1 << rank)? == (1 << size) - 1, "the words of all ranks");
    Ok(())
}

/// The last rank computes on the CPU: refused by every rank, and the run goes on.
fn mismatch(ranks: &Ranks, card: &Device) -> Result<()> {
    ensure!(ranks.size() > 1, "one rank fits itself");
    let device = if ranks.rank() + 1 == ranks.size() { &Device::Cpu } else { card };
    let x = Tensor::zeros(10_000, DType::F32, device)?;
    let errors = [
        ranks.sum(&x).err(),
        ranks.gather(&x).err(),
        ranks.broadcast(&x, 0).err(),
        ranks.sum(&x.narrow(0, 0, 5)?).err(),
    ];
    for error in errors {
        let error = error.context("a card and the CPU were taken together")?.to_string();
        ensure!(error.contains("by NCCL"), "{error}");
    }
    ensure!(ranks.agree(1)? == 1, "the run does not go on");
    Ok(())
}

/// The time of sums: the median of 20.
fn speed(ranks: &Ranks, card: &Device) -> Result<()> {
    for count in [11_000_000usize, 1_000_000, 10_000, 1000] {
        let x = Tensor::zeros(count, DType::F32, card)?;
        let mut times = Vec::new();
        for _ in 0..22 {
            ranks.barrier()?;
            let start = Instant::now();
            ranks.sum_in_place(&mut [x.clone()])?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.drain(..2);
        times.sort_by(f64::total_cmp);
        if ranks.rank() == 0 {
            println!("sum of {count} f32 on {} ranks: median {:.3} ms", ranks.size(), times[10]);
        }
    }
    Ok(())
}
