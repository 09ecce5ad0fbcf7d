//! The command `infomax`: arguments, tables and a progress bar around the library `infomax-run`.

#![allow(clippy::print_stderr)] // The one crate that prints.
#![allow(rustdoc::broken_intra_doc_links)] // Texts of the help name sections, such as [data].

/// Prints to standard error; one that is closed (`2>&1 | head`) ends no training.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        // In one piece: the lines of several processes meet on one terminal.
        let line = format!($($text)*) + "\n";
        let _ = std::io::stderr().write_all(line.as_bytes());
    }};
}
pub(crate) use say;

mod args;
mod arrays;
mod data_cmd;
mod doctor;
mod embed;
mod embeddings;
mod entropy;
mod evaluate;
mod export;
mod inspect;
mod labels;
mod methods;
mod mi;
mod objective;
mod paper;
mod pretrain;
mod probe;
mod progress;
mod ranks;
mod replay;
mod runs;
mod table;
mod variables;

use args::{Cli, Command, ConfigCommand, Output};
use clap::{CommandFactory as _, FromArgMatches as _};
use infomax_run::{RunConfig, config};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

/// Vectors of AVX-512 and tiles of AMX are as long as a line of the cache, and read twice where they lie on two.
#[global_allocator]
static ALLOCATOR: infomax_kernels::LineAligned = infomax_kernels::LineAligned;

/// What a command that ended without an error has to tell the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Done,
    /// The embedding collapsed.
    Collapsed,
    /// Stopped by Ctrl-C, resumable.
    Interrupted,
    /// A condition that was to fail holds.
    ConditionHolds,
    /// A replayed step went another way than it did in its run.
    NotTheSame,
}

fn main() -> ExitCode {
    infomax_kernels::keep_freed_memory();
    let matches = Cli::command().get_matches();
    let name = matches.subcommand_name().unwrap_or_default();
    let command = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).command;
    let allowed = if SHARED.contains(&name) { Ok(()) } else { ranks::alone(name) };
    match allowed.and_then(|()| run(command)) {
        Ok(Status::Done) => ExitCode::SUCCESS,
        Ok(Status::Collapsed) => ExitCode::from(3),
        Ok(Status::Interrupted) => ExitCode::from(130),
        Ok(Status::ConditionHolds) => ExitCode::from(4),
        Ok(Status::NotTheSame) => ExitCode::from(5),
        Err(error) => {
            crate::say!("error: {}", said(&error));
            ExitCode::FAILURE
        }
    }
}

/// What several processes may do that a launcher started together: share the work, or say what is the same for all.
const SHARED: [&str; 4] = ["pretrain", "doctor", "methods", "config"];

fn run(command: Command) -> anyhow::Result<Status> {
    match command {
        Command::Pretrain(args) => ranks::run(args.rank_timeout, |job| pretrain::run(&args, job)),
        Command::Evaluate(args) => threads(&args.output).and_then(|()| evaluate::run(&args)),
        Command::Embed(args) => threads(&args.output).and_then(|()| embed::run(&args)),
        Command::Export(args) => threads(&args.output).and_then(|()| export::run(&args)),
        Command::Inspect(args) => threads(&args.output).and_then(|()| inspect::run(&args)),
        Command::Paper(args) => threads(&args.output).and_then(|()| paper::run(&args)),
        Command::Doctor(args) => doctor::run(&args),
        Command::Data(args) => data_cmd::run(&args),
        Command::Config(args) => match args.command {
            ConfigCommand::Show { source, json } => show(&source, json),
            ConfigCommand::Reference => print(config::reference().trim_end()).map(|()| Status::Done),
        },
        Command::Methods(args) => methods::run(&args),
        Command::Objective(args) => objective::run(&args),
        Command::Entropy(args) => entropy::run(&args),
        Command::Runs(args) => runs::run(&args),
        Command::Replay(args) => threads(&args.output).and_then(|()| replay::run(&args)),
        Command::Mi(args) => threads(&args.output).and_then(|()| mi::run(&args)),
        Command::Probe(args) => threads(&args.output).and_then(|()| probe::run(&args)),
    }
}

/// An error with its causes, each once: many messages hold that of their cause already.
pub(crate) fn said(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !message.contains(&cause) {
            message = if message.is_empty() { cause } else { format!("{message}: {cause}") };
        }
    }
    message
}

/// Prints to standard output; a closed pipe (`| head`) is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// The folder of an output, which must be there: before the work and not after it.
pub(crate) fn folder_of(out: &Path) -> anyhow::Result<&Path> {
    let folder = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        anyhow::bail!("--out {}: there is no folder {}", out.display(), folder.display());
    }
    Ok(folder)
}

pub(crate) fn threads(output: &Output) -> anyhow::Result<()> {
    if output.threads == Some(0) {
        anyhow::bail!("--threads 0: at least one thread is needed; leave the flag out for all cores");
    }
    if let Some(n) = output.threads {
        start_threads(n)?;
    }
    Ok(())
}

pub(crate) fn start_threads(n: usize) -> anyhow::Result<()> {
    Ok(rayon::ThreadPoolBuilder::new().num_threads(n).build_global()?)
}

fn show(source: &args::ConfigSource, json: bool) -> anyhow::Result<Status> {
    let layers = config::layers(&source.origins())?;
    let mut config = RunConfig::resolve(&layers)?;
    // What only a run would refuse is refused here too, and what follows from the images is shown.
    if let Some(reason) = infomax_run::check(&mut config)? {
        crate::say!("warning: checked without the images, which a run would refuse: {reason}");
    }
    if json {
        print(&serde_json::to_string_pretty(&config)?)?;
    } else {
        print(&config::show(&config, &layers)?)?;
    }
    Ok(Status::Done)
}
