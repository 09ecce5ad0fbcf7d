//! The engine under a launcher: `mpirun -n 3 mpi_check bits`, and what happens when a rank fails.
//!
//! `cargo xtask ci --only mpi` builds and runs it; each mode prints one line on rank 0 and exits with 0, except for the
//! faults, which end all ranks with another status and a message that names the rank at fault.

#![allow(clippy::print_stdout, clippy::print_stderr)] // A program of its own.

use anyhow::{Context as _, Result, bail, ensure};
use infomax_ranks::candle_core::{DType, Device, Tensor, Var};
use infomax_ranks::infomax_core::{Collective, Key, replicas};
use infomax_ranks::{Limits, Ranks, Report, World, connect, guarded};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn main() -> Result<()> {
    let mode = std::env::args()
        .nth(1)
        .context("a mode: bits, gradients, mismatch, speed, panic, error, exit, stop")?;
    let world = World::of_variables(|name| std::env::var(name).ok())?;
    let report: Report = Arc::new(|text: &str| eprintln!("error: {text}"));
    let limits = match mode.as_str() {
        "stop" => Limits { usual: Duration::from_secs(3), ..Limits::default() },
        _ => Limits::default(),
    };
    let Some(ranks) = connect(world.as_ref(), limits, report.clone())? else {
        // One rank alone has no engine: there is nothing to compare.
        println!("{mode}: one process");
        return Ok(());
    };
    guarded(&ranks, &report, || run(&mode, &ranks));
    ranks.finish()?;
    Ok(())
}

fn run(mode: &str, ranks: &Ranks) -> Result<()> {
    match mode {
        "bits" => bits(ranks)?,
        "gradients" => gradients(ranks)?,
        "mismatch" => mismatch(ranks)?,
        "speed" => return speed(ranks),
        // Faults: of rank 1, in the third round.
        "panic" | "error" | "exit" | "stop" => return rounds(mode, ranks),
        other => bail!("there is no mode {other}"),
    }
    if ranks.rank() == 0 {
        println!("{mode}: {} ranks passed", ranks.size());
    }
    Ok(())
}

fn values(rank: usize, count: usize, dtype: DType) -> Result<Tensor> {
    let key = Key::new(7).fold_in(rank as u64);
    let x = key.normal(0.0, 1.0, count, DType::F64, &Device::Cpu)?;
    let scale = key.fold_in(1).normal(0.0, 3.0, count, DType::F64, &Device::Cpu)?.exp()?;
    Ok((x * scale)?.to_dtype(dtype)?)
}

/// The bits of a tensor with its shape.
fn bytes(x: &Tensor) -> Result<Vec<u8>> {
    let flat = x.flatten_all()?;
    let mut out = format!("{:?} {:?} ", x.dims(), x.dtype()).into_bytes();
    match x.dtype() {
        DType::F64 => out.extend(flat.to_vec1::<f64>()?.iter().flat_map(|x| x.to_bits().to_le_bytes())),
        _ => {
            let flat = flat.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            out.extend(flat.iter().flat_map(|x| x.to_bits().to_le_bytes()));
        }
    }
    Ok(out)
}

/// What every operation gives to a rank.
fn everything(ranks: &dyn Collective) -> Result<Vec<Vec<u8>>> {
    let rank = ranks.rank();
    let mut out = Vec::new();
    for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
        for count in [0, 1, 5, 4096, 5000, 3_000_001] {
            if count < 10_000 || dtype == DType::F32 {
                out.push(bytes(&ranks.sum(&values(rank, count, dtype)?)?)?);
            }
        }
    }
    let rows = values(rank, 3 * (rank + 1), DType::F32)?.reshape((rank + 1, 3))?;
    for part in ranks.gather(&rows)? {
        out.push(bytes(&part)?);
    }
    for part in ranks.gather(&values(rank, 30_000 * rank, DType::F64)?)? {
        out.push(bytes(&part)?);
    }
    for root in 0..ranks.size() {
        out.push(bytes(&ranks.broadcast(&values(rank, 9000, DType::F32)?, root)?)?);
    }
    ranks.barrier()?;
    out.push(ranks.agree(1 << rank)?.to_le_bytes().to_vec());
    let mut bucket =
        [values(rank, 2000, DType::F32)?, values(rank, 7, DType::F64)?, values(rank, 900_000, DType::F32)?];
    ranks.sum_in_place(&mut bucket)?;
    for sum in &bucket {
        out.push(bytes(sum)?);
    }
    Ok(out)
}

/// Every operation gives the bits of ranks in threads.
fn bits(ranks: &Ranks) -> Result<()> {
    let expected = std::thread::scope(|scope| {
        let threads: Vec<_> = replicas(ranks.size())
            .into_iter()
            .map(|r| scope.spawn(move || (r.rank(), everything(&r))))
            .collect();
        let mut own = None;
        for thread in threads {
            let (rank, found) = thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
            if rank == ranks.rank() {
                own = Some(found?);
            }
        }
        own.context("no thread of this rank")
    })?;
    let found = everything(ranks)?;
    ensure!(found.len() == expected.len(), "{} results instead of {}", found.len(), expected.len());
    for (i, (a, b)) in found.iter().zip(&expected).enumerate() {
        ensure!(a == b, "result {i} has other bits than that of threads");
    }
    Ok(())
}

/// The mean over ranks of the gradients of a loss of the gathered batch is that of the whole batch, and so is that of
/// statistics which every rank applies to its own rows.
fn gradients(ranks: &Ranks) -> Result<()> {
    let (share, size) = (3, ranks.size());
    let all = Key::new(3).normal(0.0, 1.0, (share * size, 4), DType::F64, &Device::Cpu)?;
    let own = all.narrow(0, share * ranks.rank(), share)?;
    let start = Key::new(4).normal(0.0, 1.0, (4, 5), DType::F64, &Device::Cpu)?;
    let gram = |z: &Tensor| -> Result<Tensor> { Ok(z.t()?.matmul(z)?.sqr()?.sum_all()?) };
    let w = Var::from_tensor(&start)?;
    let whole = all.matmul(&w)?;
    let mean = (whole.sum_keepdim(0)? / (share * size) as f64)?;
    let whole = (gram(&whole)? + whole.broadcast_sub(&mean)?.sqr()?.sqr()?.sum_all()?)?;
    let expected = whole.backward()?.get(&w).context("no gradient")?.flatten_all()?.to_vec1::<f64>()?;
    let w = Var::from_tensor(&start)?;
    let z = own.matmul(&w)?;
    let mean = (ranks.all_reduce_sum(&z.sum_keepdim(0)?)? / (share * size) as f64)?;
    let spread = z.broadcast_sub(&mean)?.sqr()?.sqr()?.sum_all()?;
    // The first part is the same number on each rank, the second is a share of a sum.
    let loss = (gram(&ranks.all_gather(&z)?)? + (spread * size as f64)?)?;
    let grad = loss.backward()?.get(&w).context("no gradient")?.clone();
    let grad = (ranks.sum(&grad)? / size as f64)?.flatten_all()?.to_vec1::<f64>()?;
    for (a, b) in grad.iter().zip(&expected) {
        ensure!((a - b).abs() < 1e-9 * b.abs().max(1.0), "{a} instead of {b}");
    }
    Ok(())
}

/// What does not fit is an error on every rank, and the run goes on.
fn mismatch(ranks: &Ranks) -> Result<()> {
    let last = ranks.rank() + 1 == ranks.size();
    let shape = Tensor::zeros(3 + usize::from(last), DType::F32, &Device::Cpu)?;
    let error = ranks.sum(&shape).err().context("unequal shapes were summed")?.to_string();
    ensure!(error.contains("[3] f32") && error.contains("[4] f32"), "{error}");
    let dtype = if last { DType::F64 } else { DType::F32 };
    let mut bucket = [Tensor::zeros((100_000, 2), dtype, &Device::Cpu)?];
    let error = ranks.sum_in_place(&mut bucket).err().context("unequal types were summed")?.to_string();
    ensure!(error.contains("f64"), "{error}");
    let error = if last { ranks.barrier() } else { ranks.agree(0).map(drop) };
    let error = error.err().context("unequal calls were taken")?.to_string();
    ensure!(error.contains("barrier") && error.contains("agree"), "{error}");
    ensure!(ranks.agree(1)? == 1, "the run does not go on");
    Ok(())
}

/// Rounds of work, in whose third one rank 1 fails.
fn rounds(mode: &str, ranks: &Ranks) -> Result<()> {
    for round in 0..1_000_000 {
        let mut bucket = [values(ranks.rank(), 100_000, DType::F32)?];
        ranks.sum_in_place(&mut bucket)?;
        if round == 3 && ranks.rank() == 1 {
            match mode {
                "panic" => fail(),
                "error" => bail!("the gradient of `encoder.conv1.weight` is not finite (NaN)"),
                "exit" => std::process::exit(3),
                _ => {
                    // Its own process: kill -STOP.
                    let id = std::process::id().to_string();
                    std::process::Command::new("kill").args(["-STOP", &id]).status()?;
                    std::thread::sleep(Duration::from_secs(5));
                }
            }
        }
    }
    Ok(())
}

#[allow(clippy::panic)] // What is to be shown.
fn fail() {
    panic!("index out of bounds, for example")
}

/// The time of a sum of 11 million f32, the gradients of a ResNet-18: the median of 20.
fn speed(ranks: &Ranks) -> Result<()> {
    for count in [11_000_000usize, 1_000_000, 1000] {
        let x = Tensor::zeros(count, DType::F32, &Device::Cpu)?;
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
            println!(
                "sum of {count} f32 on {} ranks: median {:.3} ms, {:.3} to {:.3}",
                ranks.size(),
                times[10],
                times[0],
                times[19]
            );
        }
    }
    Ok(())
}
