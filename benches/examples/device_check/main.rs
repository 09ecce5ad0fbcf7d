//! Checks and times the operations on a CUDA device: every value and gradient against the composed reference in f64
//! on the CPU, every named objective, the memory after many steps, and times.
//!
//! `device_check GROUP..` runs some groups (`--list` names them), without arguments all. A row that fails is reported
//! and the next one runs; the last line is `N passed, N failed`. `--on-host` tries the check itself on a machine
//! without a card: the objectives run on the CPU, every row that needs a card must fail and say so.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod compare;
mod golden;
mod moments;
mod network;
mod objectives;
mod operations;
mod steps;
mod times;
mod training;
mod views;

use anyhow::{Context as _, Result};
use candle_core::Device;
use compare::Report;

/// A group of rows.
type Group = (&'static str, fn(&Device, &mut Report) -> Result<()>);

const GROUPS: [Group; 27] = [
    ("elementwise", operations::elementwise),
    ("rows", operations::rows),
    ("pool", operations::pool),
    ("batch-norm", operations::batch_norm),
    ("conv-f32", operations::conv_f32),
    ("conv-tf32", operations::conv_tf32),
    ("conv-bf16", operations::conv_bf16),
    ("pairwise", operations::pairwise),
    ("moments", moments::moments),
    ("distances", moments::distances),
    ("characteristic", moments::characteristic),
    ("cross-entropy", moments::cross_entropy),
    ("newton-schulz", moments::newton_schulz),
    ("optimizers", steps::optimizers),
    ("network", steps::network),
    ("memory", steps::memory),
    ("objectives", objectives::all),
    ("golden", golden::objectives),
    ("views", views::bits),
    ("uploads", views::uploads),
    ("kernels", training::kernels),
    ("training", training::beside_the_cpu),
    ("training-memory", training::memory),
    ("times-views", views::times),
    ("times-moments", moments::times),
    ("times-kernels", times::kernels),
    ("times-steps", times::steps),
];

fn main() -> Result<()> {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    let host = wanted.iter().position(|a| a == "--on-host").map(|i| wanted.remove(i)).is_some();
    let mut report = Report::default();
    if let Some(at) = wanted.iter().position(|a| a == "--skip") {
        anyhow::ensure!(at + 1 < wanted.len(), "--skip needs a number of objectives");
        report.skip = wanted.remove(at + 1).parse().context("--skip needs a number of objectives")?;
        wanted.remove(at);
    }
    if wanted.iter().any(|a| a == "--list") {
        for (name, _) in GROUPS {
            println!("{name}");
        }
        return Ok(());
    }
    if let Some(unknown) = wanted.iter().find(|a| GROUPS.iter().all(|(name, _)| name != a)) {
        anyhow::bail!("no group `{unknown}`; --list names them");
    }
    let device = if host {
        Device::Cpu
    } else {
        let device = Device::new_cuda(0).context("no CUDA device could be opened")?;
        infomax_cuda::keep_freed_memory(&device)?;
        device
    };
    for (name, run) in GROUPS {
        if !wanted.is_empty() && wanted.iter().all(|a| a != name) {
            continue;
        }
        println!("## {name}");
        // Times are taken without the extra writes.
        infomax_cuda::poison_new_buffers(!name.starts_with("times"));
        let start = std::time::Instant::now();
        if let Err(error) = run(&device, &mut report) {
            report.failed(name, &format!("{error:#}"));
        }
        println!("## {name} took {:.1} s", start.elapsed().as_secs_f64());
    }
    println!("{} passed, {} failed", report.passed, report.failed);
    std::process::exit(i32::from(report.failed > 0));
}
