//! `infomax doctor`: what this machine and this build have, what a run would use, and why not more.

use crate::args::DoctorArgs;
use crate::{Status, print};
use anyhow::{Result, bail};
use infomax_kernels::{CpuProducts, Isa, cuda};
use infomax_run::device;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// `infomax doctor`.
pub(crate) fn run(args: &DoctorArgs) -> Result<Status> {
    let findings = look(&args.device);
    if args.json {
        print(&serde_json::to_string_pretty(&findings)?)?;
    } else {
        print(&text(&findings))?;
    }
    match &findings.device.problem {
        Some(problem) if findings.device.used.is_none() => bail!("{problem}"),
        _ => Ok(Status::Done),
    }
}

#[derive(Debug, Serialize)]
struct Findings {
    version: &'static str,
    system: String,
    features: Features,
    processor: Processor,
    memory: Option<Memory>,
    cuda: Cuda,
    device: DeviceFound,
    places: Vec<Place>,
}

/// What this program was built with.
#[derive(Debug, Serialize)]
struct Features {
    cuda: bool,
    cudnn: bool,
    metal: bool,
    mpi: bool,
    nccl: bool,
}

#[derive(Debug, Serialize)]
struct Processor {
    name: Option<String>,
    /// Threads that a run uses without `--threads`.
    threads: usize,
    instruction_sets: Vec<String>,
    used: String,
    /// What multiplies bf16 (`train.precision`), and why.
    bf16: String,
    /// Why there are no products of tiles (AMX), where there are none.
    amx: Option<String>,
}

/// In bytes.
#[derive(Debug, Serialize)]
struct Memory {
    total: u64,
    available: u64,
}

#[derive(Debug, Serialize)]
struct Cuda {
    /// The newest CUDA that the driver knows.
    driver: Option<String>,
    /// The compute capability that Candle's kernels were made for.
    built_for: Option<String>,
    cards: Vec<CardFound>,
    /// Files of CUDA's libraries that can be loaded, and that cannot; they are loaded when they are first used.
    libraries: Vec<String>,
    missing: Vec<String>,
    /// Why there are none.
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct CardFound {
    device: String,
    name: String,
    capability: String,
    memory: u64,
}

/// What `--device` leads to.
#[derive(Debug, Serialize)]
struct DeviceFound {
    asked: String,
    /// Nothing if it cannot be used.
    used: Option<String>,
    /// Why it is not, or why `auto` took the CPU.
    problem: Option<String>,
}

/// A folder that commands read or write by default.
#[derive(Debug, Serialize)]
struct Place {
    what: &'static str,
    path: PathBuf,
    exists: bool,
    /// Bytes that are free on its disk.
    free: Option<u64>,
}

fn look(asked: &str) -> Findings {
    let (used, problem) = match device::open(asked) {
        Ok(chosen) => (Some(device::describe(&chosen.device)), chosen.warning),
        Err(error) => (None, Some(error.to_string())),
    };
    Findings {
        version: env!("CARGO_PKG_VERSION"),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        features: Features {
            cuda: cfg!(feature = "cuda"),
            cudnn: cfg!(feature = "cudnn"),
            metal: cfg!(feature = "metal"),
            mpi: infomax_ranks::has_mpi(),
            nccl: infomax_ranks::has_nccl(),
        },
        processor: Processor {
            name: processor(),
            threads: rayon::current_num_threads(),
            instruction_sets: Isa::available().iter().map(|isa| name(*isa).to_owned()).collect(),
            used: name(Isa::detect()).to_owned(),
            bf16: CpuProducts::default().in_words(),
            amx: infomax_kernels::no_amx(),
        },
        memory: memory(),
        cuda: cards(),
        device: DeviceFound { asked: asked.to_owned(), used, problem },
        places: vec![place("data sets of `data fetch`", "data"), place("runs", "runs")],
    }
}

fn name(isa: Isa) -> &'static str {
    match isa {
        Isa::Portable => "portable",
        Isa::Neon => "NEON",
        Isa::Avx2 => "AVX2",
        Isa::Avx512 => "AVX-512",
        Isa::Avx512Bf16 => "AVX-512 with bf16 products",
        Isa::Amx => "AMX",
        #[allow(unreachable_patterns)] // Builds for tests know one more.
        _ => "emulated",
    }
}

fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim().to_owned()))
}

fn memory() -> Option<Memory> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let find = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
    };
    Some(Memory { total: find("MemTotal")?, available: find("MemAvailable")? })
}

fn cards() -> Cuda {
    let built_for = cuda::built_for().map(|cap| format!("{}.{}", cap / 10, cap % 10));
    let (driver, problem) = match cuda::driver() {
        Ok(driver) => (Some(driver), None),
        Err(problem) => (None, Some(problem)),
    };
    let cards = driver.iter().flat_map(|driver| driver.cards.iter().enumerate());
    let files = |there: bool| {
        let all = cuda::libraries().into_iter().filter(|library| library.found == there);
        all.map(|library| library.file).collect()
    };
    Cuda {
        libraries: files(true),
        missing: files(false),
        cards: cards
            .map(|(i, card)| CardFound {
                device: format!("cuda:{i}"),
                name: card.name.clone(),
                capability: format!("{}.{}", card.capability.0, card.capability.1),
                memory: card.memory,
            })
            .collect(),
        driver: driver.map(|driver| format!("{}.{}", driver.cuda.0, driver.cuda.1)),
        built_for,
        problem,
    }
}

fn place(what: &'static str, folder: &str) -> Place {
    let path = std::path::absolute(folder).unwrap_or_else(|_| PathBuf::from(folder));
    let there = path.ancestors().find(|path| path.exists()).map(Path::to_path_buf);
    Place { what, exists: path.is_dir(), free: there.and_then(|there| free(&there)), path }
}

#[cfg(unix)]
fn free(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(path).ok()?;
    disk.f_bavail.checked_mul(disk.f_frsize)
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}

fn text(found: &Findings) -> String {
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64);
    let mut lines = vec![("infomax", format!("{}, {}", found.version, found.system))];
    let Features { cuda, cudnn, metal, mpi, nccl } = found.features;
    let built = [("cuda", cuda), ("cudnn", cudnn), ("metal", metal), ("mpi", mpi), ("nccl", nccl)];
    let names = |with: bool| {
        let names: Vec<&str> = built.iter().filter(|(_, has)| *has == with).map(|(name, _)| *name).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    lines.push(("built with", format!("{}; without: {}", names(true), names(false))));
    let Processor { name, threads, instruction_sets, used, bf16, amx } = &found.processor;
    lines.push(("processor", format!("{}, {threads} threads", name.as_deref().unwrap_or("unknown"))));
    lines.push(("instructions", format!("{used} are used; there are: {}", instruction_sets.join(", "))));
    lines.push(("", format!("train.precision = \"bf16\" multiplies by {bf16}")));
    lines.push((
        "",
        match amx {
            None => "train.precision = \"bf16x3\" multiplies f32 by three products of tiles".to_owned(),
            Some(why) => format!("train.precision = \"bf16x3\" multiplies in f32: {why}"),
        },
    ));
    if let Some(memory) = &found.memory {
        lines.push(("memory", format!("{}, {} available", gib(memory.total), gib(memory.available))));
    }
    let Cuda { driver, built_for, cards, libraries, missing, problem } = &found.cuda;
    let made = built_for.as_ref().map_or(String::new(), |cap| format!("; this build is for cards of {cap}"));
    match (driver, problem) {
        (Some(version), _) => lines.push(("CUDA", format!("the driver knows CUDA {version}{made}"))),
        (None, Some(problem)) => lines.push(("CUDA", format!("not usable: {problem}{made}"))),
        (None, None) => {}
    }
    for CardFound { device, name, capability, memory } in cards {
        lines.push(("", format!("{device}: {name}, compute capability {capability}, {}", gib(*memory))));
    }
    for (what, files) in [("found", libraries), ("not found", missing)] {
        if !files.is_empty() {
            lines.push(("", format!("libraries {what}: {}", files.join(", "))));
        }
    }
    if cuda && !cudnn {
        lines.push(("", "convolutions without cuDNN are slow: build with `--features cudnn`".to_owned()));
    }
    lines.push((
        "Metal",
        match metal {
            true => "built in; its operations are composed ones".to_owned(),
            false => "not built in (`--features metal`, on a Mac)".to_owned(),
        },
    ));
    lines.push((
        "MPI",
        match mpi {
            true => "built in: `mpirun -n N infomax pretrain` trains in N processes".to_owned(),
            false => "not built in (`--features mpi`); MASTER_ADDR and MASTER_PORT join processes over TCP"
                .to_owned(),
        },
    ));
    lines.push((
        "NCCL",
        match nccl {
            true => "built in: several processes with a card each exchange large tensors by it".to_owned(),
            false => "not built in (`--features nccl`)".to_owned(),
        },
    ));
    for Place { what, path, exists, free } in &found.places {
        let state = if *exists { "" } else { ", not there yet" };
        let free = free.map_or(String::new(), |free| format!(", {} free", gib(free)));
        lines.push((
            if *what == "runs" { "runs" } else { "data" },
            format!("{}: {what}{state}{free}", path.display()),
        ));
    }
    lines.push((
        "",
        "decoded images are kept in memory only, up to data.cache_mib; data are looked for where --data says"
            .to_owned(),
    ));
    let DeviceFound { asked, used, problem } = &found.device;
    let why = problem.as_ref().map_or(String::new(), |problem| format!(" ({problem})"));
    lines.push((
        "device",
        match used {
            Some(used) => format!("--device {asked} computes on {used}{why}"),
            None => format!("--device {asked} cannot be used{why}"),
        },
    ));
    lines.iter().map(|(key, value)| format!("{key:<14}{value}")).collect::<Vec<_>>().join("\n")
}
