//! Times forward and backward of the objectives on random embeddings, and the memory that they take on top.
//!
//! `cargo run --release -p infomax-losses --example timing -- [--filter TEXT] [--repeats N]`. The same lines, for
//! the formulas in PyTorch, come from `benches/peers/losses.py`; `cargo xtask bench --peers --filter losses` prints
//! both side by side. Times are medians. The extra memory is the peak of one forward and backward pass in a
//! fresh process above what it held with its inputs (Linux only).

use candle_core::{DType, Device, Tensor, Var};
use infomax_core::{Context, Embeddings, Key};
use infomax_losses::{EntropyConfig, Error, InvarianceConfig, NoEntropy, ObjectiveConfig, entropy};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: infomax_kernels::LineAligned = infomax_kernels::LineAligned;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const CASES: &[(&str, usize, usize)] = &[
    ("vicreg", 256, 512),
    ("vicreg", 256, 2048),
    ("vicreg", 256, 8192),
    ("vicreg", 2048, 8192),
    ("vicreg", 4096, 256),
    ("barlow-twins", 256, 4096),
    ("vicreg-logdet", 256, 4096),
    ("coding-rate", 256, 4096),
    ("frossl", 256, 4096),
    ("nt-xent", 4096, 256),
    ("pairdist", 8192, 256),
    ("uniformity", 8192, 256),
    ("koleo", 8192, 256),
    ("kozachenko-leonenko", 8192, 256),
    ("sigreg", 512, 512),
];

/// Memory is asked for where a bar is set on it, or where it grows with more than the batch.
const MEMORY: &[&str] = &["vicreg n=256 d=8192", "pairdist n=8192 d=256", "nt-xent n=4096 d=256"];

fn label((name, n, d): &(&str, usize, usize)) -> String {
    format!("{name} n={n} d={d}")
}

#[allow(clippy::print_stdout)] // An example prints.
fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1));
    // As a training program does: freed buffers are used again.
    infomax_kernels::keep_freed_memory();
    if let Some(wanted) = value("--memory") {
        let case = CASES.iter().find(|c| label(c) == *wanted).ok_or("no such case")?;
        println!("{}", memory(case)?);
        return Ok(());
    }
    let repeats: usize = value("--repeats").map_or(Ok(0), |r| r.parse())?;
    for case in CASES.iter().filter(|c| value("--filter").is_none_or(|f| label(c).contains(f.as_str()))) {
        println!("{}: {:.3} ms", label(case), time(case, repeats)?);
        if MEMORY.contains(&label(case).as_str()) && cfg!(target_os = "linux") {
            let own = std::env::current_exe()?;
            let output = std::process::Command::new(own).args(["--memory", &label(case)]).output()?;
            println!("{} extra memory: {} MB", label(case), String::from_utf8(output.stdout)?.trim());
        }
    }
    Ok(())
}

/// Views that ask for gradients, as wide as the case says.
fn views(n: usize, d: usize, count: u64) -> Outcome<Vec<Var>> {
    (0..count)
        .map(|seed| {
            let z = Key::new(seed).normal(0.0, 1.0, (n, d), DType::F32, &Device::Cpu)?;
            Ok(Var::from_tensor(&z)?)
        })
        .collect()
}

/// One forward and backward pass over the views.
type Step = Box<dyn Fn(&[Var]) -> Outcome<()>>;

fn step(name: &str) -> Outcome<(u64, Step)> {
    let single = |f: fn(&Tensor) -> infomax_losses::Result<Tensor>| -> (u64, Step) {
        (1, Box::new(move |z| Ok(f(z[0].as_tensor())?.backward().map(drop)?)))
    };
    let config = match name {
        "pairdist" => {
            return Ok(single(|z| entropy::PairDist { variance: 100.0, ..Default::default() }.entropy(z)));
        }
        "uniformity" => return Ok(single(|z| entropy::Uniformity::default().entropy(z))),
        "koleo" => return Ok(single(|z| entropy::KoLeo::default().entropy(z))),
        "kozachenko-leonenko" => {
            return Ok(single(|z| entropy::KozachenkoLeonenko::default().entropy(z)));
        }
        "coding-rate" => return Ok(single(|z| entropy::CodingRate::default().entropy(z))),
        "sigreg" => ObjectiveConfig {
            name: "sigreg".into(),
            convention: "official".into(),
            temperature: None,
            invariance: InvarianceConfig::None(infomax_losses::NoInvariance {}),
            entropy: EntropyConfig::SigReg(entropy::SigReg::default()),
        },
        "nt-xent" => ObjectiveConfig::named("simclr")?,
        name => ObjectiveConfig::named(name)?,
    };
    if config.entropy == EntropyConfig::None(NoEntropy {}) {
        return Err(Error::Missing { term: "timing", field: "entropy", hint: "choose another case" }.into());
    }
    let objective = config.build()?;
    let step = move |z: &[Var]| -> Outcome<()> {
        let z = Embeddings::pair(z[0].as_tensor().clone(), z[1].as_tensor().clone())?;
        objective.evaluate(&z, &Context::standalone())?.total.backward()?;
        Ok(())
    };
    Ok((2, Box::new(step)))
}

/// The median of the times; without a number of repeats, as many as fit into two seconds, at least three.
fn time((name, n, d): &(&str, usize, usize), repeats: usize) -> Outcome<f64> {
    let (count, step) = step(name)?;
    let z = views(*n, *d, count)?;
    step(&z)?;
    let mut times = Vec::new();
    let begin = Instant::now();
    while times.len() < repeats.max(3)
        || (repeats == 0 && times.len() < 200 && begin.elapsed() < Duration::from_secs(2))
    {
        let start = Instant::now();
        step(&z)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Megabytes above the inputs at the peak of one pass.
fn memory((name, n, d): &(&str, usize, usize)) -> Outcome<f64> {
    let (count, step) = step(name)?;
    step(&views(64, 96, count)?)?; // Threads and tables are there before.
    let z = views(*n, *d, count)?;
    std::fs::write("/proc/self/clear_refs", "5")?;
    let before = status("VmRSS:")?;
    step(&z)?;
    Ok(((status("VmHWM:")? - before) / 1024.0 * 10.0).round() / 10.0)
}

fn status(key: &str) -> Outcome<f64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find(|l| l.starts_with(key)).ok_or("no such line in /proc/self/status")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
}
