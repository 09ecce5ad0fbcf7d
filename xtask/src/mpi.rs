//! The engine between processes, under the mpirun of this machine: bits, errors, faults, and a run beside one process.

use std::env::consts::EXE_SUFFIX;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::run::Runner;
use crate::workspace::Workspace;

/// Apart from the other builds: the generator of the bindings changes the features of crates that all others are made
/// of, and `target/debug/infomax` is to stay the one without MPI.
const TARGET: &str = "target/mpi";

/// Within this time all ranks have to end after a fault of one.
const LIMIT: Duration = Duration::from_secs(60);

/// A job of seconds.
const TINY: &[&str] = &[
    "data.train_images=96",
    "data.test_images=24",
    "data.shapes.size=16",
    "train.batch=24",
    "train.log_every=1",
    "model.encoder.blocks=[1, 1]",
    "model.encoder.width=4",
    "model.projector=[16, 16]",
    "optim.lr=0.01",
];

/// What the runs of all methods have otherwise: projections of fewer columns than a batch has rows, which whitening needs, and a
/// learning rate that keeps rounding small.
const METHOD: &[&str] = &["model.projector=[32, 16]", "optim.lr=0.001"];

/// Builds with MPI and runs everything; says so where this machine has none.
pub(crate) fn run(ws: &Workspace) -> Result<()> {
    let runner = Runner::new(ws);
    let there = |program: &str| runner.silent(&OsString::from(program), &["--version"]).unwrap_or(false);
    for program in ["mpicc", "mpirun"] {
        if !there(program) {
            println!(
                "skipped: there is no {program} here (Open MPI: libopenmpi-dev, openmpi-bin, libclang-dev; MPICH: `pip install \
                 mpich` into a virtual environment, its bin first in PATH and its lib in LD_LIBRARY_PATH)"
            );
            return Ok(());
        }
    }
    other_mpi(ws, &runner)?;
    runner.cargo(&[
        "build",
        "--target-dir",
        TARGET,
        "--package",
        "infomax-cli",
        "--package",
        "infomax-ranks",
        "--features",
        "infomax-cli/mpi",
        "--bin",
        "infomax",
        "--example",
        "mpi_check",
    ])?;
    let built = ws.root().join(TARGET).join("debug");
    let check = built.join("examples").join(format!("mpi_check{EXE_SUFFIX}"));
    let infomax = built.join(format!("infomax{EXE_SUFFIX}"));
    for size in 1..=4 {
        for mode in ["bits", "gradients", "mismatch"] {
            let ended = Job::start(size, &check, &[mode])?.end()?;
            ensure!(ended.passed, "{mode} on {size} ranks failed:\n{}", ended.text);
        }
        println!("bits, gradients and errors on {size} ranks: passed");
    }
    faults(&check)?;
    let folder = std::env::temp_dir().join(format!("xtask-mpi-{}", std::process::id()));
    fs::create_dir_all(&folder).with_context(|| format!("could not create {}", folder.display()))?;
    let result = training(&infomax, &folder)
        .and_then(|()| methods(&infomax, &folder))
        .and_then(|()| stopped(&infomax, &folder));
    fs::remove_dir_all(&folder).with_context(|| format!("could not remove {}", folder.display()))?;
    result
}

/// The bindings are made for one MPI, and not made again where `mpicc` becomes that of another one.
fn other_mpi(ws: &Workspace, runner: &Runner) -> Result<()> {
    let shown = runner.capture(&OsString::from("mpicc"), "mpicc", &["-show"])?;
    let (folder, file) = (ws.root().join(TARGET), ws.root().join(TARGET).join("mpicc.txt"));
    if fs::read_to_string(&file).is_ok_and(|last| last == shown) {
        return Ok(());
    }
    if folder.is_dir() {
        runner.cargo(&["clean", "--target-dir", TARGET, "--package", "mpi-sys"])?;
    }
    fs::create_dir_all(&folder)?;
    fs::write(&file, shown).with_context(|| format!("could not write {}", file.display()))
}

/// Rank 1 of 3 fails in each way: all end in time, with a message that names it.
fn faults(check: &Path) -> Result<()> {
    for (mode, said) in [
        ("panic", "panicked: index out of bounds, for example"),
        ("error", "the gradient of `encoder.conv1.weight` is not finite"),
        ("stop", "s in `sum`"),
        ("exit", ""),
    ] {
        let start = Instant::now();
        let ended = Job::start(3, check, &[mode])?.end()?;
        ensure!(!ended.passed, "{mode}: the job ended well");
        ensure!(ended.text.contains(said), "{mode}: not said: {said}\n{}", ended.text);
        // A process that ends without a word is named by mpirun, in its own way.
        ensure!(
            mode == "exit" || ended.text.contains("rank 1"),
            "{mode}: rank 1 is not named\n{}",
            ended.text
        );
        println!("rank 1 of 3, {mode}: all ended after {:.1} s", start.elapsed().as_secs_f64());
    }
    Ok(())
}

/// The same steps on 1, 2 and 3 ranks, to rounding; a continuation with another number; refusals.
fn training(infomax: &Path, folder: &Path) -> Result<()> {
    let args = |run: &Path, more: &[&str]| {
        let mut args: Vec<String> =
            ["pretrain", "--quiet", "--no-eval", "--epochs", "2", "--run"].map(str::to_owned).to_vec();
        args.push(run.display().to_string());
        args.extend(TINY.iter().chain(more).flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
        args
    };
    let mut curves = Vec::new();
    for size in 1..=3 {
        let run = folder.join(size.to_string());
        let ended = Job::start(size, infomax, &args(&run, &[]))?.end()?;
        ensure!(ended.passed, "pretrain on {size} ranks failed:\n{}", ended.text);
        curves.push(totals(&run)?);
    }
    for (size, curve) in (1..).zip(&curves) {
        ensure!(curve.len() == 8, "{} steps on {size} ranks", curve.len());
        for (a, b) in curve.iter().zip(&curves[0]) {
            ensure!((a - b).abs() <= 2e-3 * b.abs(), "{size} ranks: {curve:?}, one process: {:?}", curves[0]);
        }
    }
    println!("8 steps on 1, 2 and 3 ranks: the same losses to 2e-3");
    let two = folder.join("2");
    let resume =
        ["pretrain", "--no-eval", "--epochs", "3", "--resume", &two.display().to_string()].map(str::to_owned);
    let ended = Job::start(3, infomax, &resume)?.end()?;
    ensure!(ended.passed && ended.text.contains("ranks was 2, now it is 3"), "resumed:\n{}", ended.text);
    ensure!(totals(&two)?.len() == 12, "a run of 2 ranks goes on with 3");
    let ended = Job::start(2, infomax, &args(&folder.join("odd"), &["train.batch=25"]))?.end()?;
    ensure!(!ended.passed && ended.text.contains("does not divide among 2"), "{}", ended.text);
    println!("resumed with another number of ranks, refused a batch that does not divide");
    Ok(())
}

/// Every named method on 1, 2 and 4 ranks: the first loss and the norm of its gradient to 1e-4, the losses after some steps
/// to what rounding becomes in them.
fn methods(infomax: &Path, folder: &Path) -> Result<()> {
    let out = Command::new(infomax).args(["methods", "--json"]).output()?;
    ensure!(out.status.success(), "infomax methods --json: {}", String::from_utf8_lossy(&out.stderr));
    let listed: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    let named = listed.as_array().context("a list of methods")?.iter();
    let names: Vec<&str> = named.filter_map(|method| method["name"].as_str()).collect();
    ensure!(names.len() >= 34, "{} methods", names.len());
    for name in &names {
        let mut runs = Vec::new();
        for size in [1, 2, 4] {
            let run = folder.join(format!("{name}-{size}"));
            let mut args: Vec<String> =
                ["pretrain", "--quiet", "--no-eval", "--epochs", "1", "--method", name, "--run"]
                    .map(str::to_owned)
                    .to_vec();
            args.push(run.display().to_string());
            args.extend(TINY.iter().chain(METHOD).flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
            let ended = Job::start(size, infomax, &args)?.end()?;
            ensure!(ended.passed, "{name} on {size} ranks failed:\n{}", ended.text);
            runs.push((figures(&run, "total")?, figures(&run, "grad_norm")?));
        }
        let (totals, norms) = &runs[0];
        ensure!(totals.len() == 4, "{name}: {} steps", totals.len());
        let off = |a: f64, b: f64| (a - b).abs() / b.abs().max(1e-3);
        for (size, (found, slopes)) in [2, 4].into_iter().zip(&runs[1..]) {
            let first = off(found[0], totals[0]).max(off(slopes[0], norms[0]));
            ensure!(first <= 1e-4, "{name}, first step on {size} ranks: off by {first:.1e}");
            let last = found.iter().zip(totals).map(|(a, b)| off(*a, *b)).fold(0.0, f64::max);
            ensure!(last <= 2e-2, "{name}, 4 steps on {size} ranks: {found:?}, one process: {totals:?}");
        }
    }
    println!("{} methods on 2 and 4 ranks: the first loss and its gradient's norm to 1e-4", names.len());
    Ok(())
}

/// Long runs of two ranks of which one is killed, stopped or asked to end: all end, and the last checkpoint is whole.
fn stopped(infomax: &Path, folder: &Path) -> Result<()> {
    for (signal, said) in [("KILL", ""), ("STOP", "for rank 1"), ("INT", "Stopped after step")] {
        let run = folder.join(signal);
        let shown = run.display().to_string();
        let mut args: Vec<String> = [
            "pretrain",
            "--quiet",
            "--no-eval",
            "--epochs",
            "100000",
            "--rank-timeout",
            "5",
            "--run",
            &shown,
        ]
        .map(str::to_owned)
        .to_vec();
        let more = ["train.checkpoint_every_steps=2"];
        args.extend(TINY.iter().chain(&more).flat_map(|set| ["--set".to_owned(), (*set).to_owned()]));
        let job = Job::start(2, infomax, &args)?;
        let began = Instant::now();
        while totals(&run).map_or(0, |steps| steps.len()) < 6 {
            ensure!(began.elapsed() < LIMIT, "{signal}: no steps within a minute");
            std::thread::sleep(Duration::from_millis(50));
        }
        let start = Instant::now();
        let id = rank_1(&shown)?.to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &id]).status()?;
        ensure!(sent.success(), "could not send {signal} to {id}");
        let ended = job.end()?;
        ensure!(!ended.passed, "{signal}: the job ended well");
        ensure!(ended.text.contains(said), "{signal}: not said: {said}\n{}", ended.text);
        println!("SIG{signal} to rank 1 of 2: all ended after {:.1} s", start.elapsed().as_secs_f64());
        let steps = totals(&run)?.len();
        let resume = ["pretrain", "--no-eval", "--resume", &shown, "--epochs", &(steps / 4 + 2).to_string()];
        let out = Command::new(infomax).args(resume).output()?;
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        ensure!(out.status.success() && text.contains("resumed at step"), "{signal}: not resumed:\n{text}");
    }
    Ok(())
}

/// The process of rank 1 whose arguments name this run.
fn rank_1(run: &str) -> Result<u32> {
    for entry in fs::read_dir("/proc").context("faults are sent to processes by /proc")?.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let has =
            |bytes: &[u8], what: &str| bytes.split(|byte| *byte == 0).any(|part| part == what.as_bytes());
        let (args, env) = (read("cmdline"), read("environ"));
        if has(&args, run) && (has(&env, "OMPI_COMM_WORLD_RANK=1") || has(&env, "PMI_RANK=1")) {
            return Ok(id);
        }
    }
    bail!("no process of rank 1 was found")
}

/// The loss of each logged step.
fn totals(run: &Path) -> Result<Vec<f64>> {
    figures(run, "total")
}

/// A figure of each logged step.
fn figures(run: &Path, name: &str) -> Result<Vec<f64>> {
    let text = fs::read_to_string(run.join("metrics.jsonl"))?;
    let figure = |line: &str| -> Result<f64> {
        let step: serde_json::Value = serde_json::from_str(line)?;
        step[name].as_f64().with_context(|| format!("a step without {name}"))
    };
    text.lines().map(figure).collect()
}

/// A command under mpirun, with its output in a file.
struct Job {
    child: Child,
    output: PathBuf,
}

struct Ended {
    passed: bool,
    text: String,
}

impl Job {
    fn start<S: AsRef<str>>(size: usize, program: &Path, args: &[S]) -> Result<Self> {
        let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
        let number = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
        let output = std::env::temp_dir().join(format!("xtask-mpi-{}-{number}.txt", std::process::id()));
        let file = fs::File::create(&output)?;
        let mut command = Command::new("mpirun");
        command.args(["-n", &size.to_string()]);
        let version = Command::new("mpirun").arg("--version").output()?;
        if String::from_utf8_lossy(&version.stdout).contains("Open MPI") {
            command.args(["--bind-to", "none", "--oversubscribe"]);
        }
        command
            .arg(program)
            .args(args)
            // Containers of build servers run as root.
            .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
            .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        Ok(Self { child: command.spawn().context("could not start mpirun")?, output })
    }

    /// Waits for the end; one that does not come in time is an error.
    fn end(mut self) -> Result<Ended> {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break Some(status);
            }
            if start.elapsed() > LIMIT {
                self.child.kill()?;
                self.child.wait()?;
                break None;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let text = String::from_utf8_lossy(&fs::read(&self.output)?).into_owned();
        fs::remove_file(&self.output)?;
        match status {
            Some(status) => Ok(Ended { passed: status.success(), text }),
            None => bail!("the job did not end within {} s:\n{text}", LIMIT.as_secs()),
        }
    }
}
