//! The automation of the workspace: `cargo xtask <command>`.
//!
//! Everything a build server or a contributor runs is here, in Rust, so that it works the same
//! on every machine. The matrix itself is data: see [`cells`].

#![allow(clippy::print_stdout, clippy::print_stderr)] // A command-line tool speaks on stdout.

mod bench;
mod bundle;
mod cells;
mod ci;
mod devices;
mod golden;
mod logs;
mod memory;
mod mpi;
mod package;
mod peers;
mod readmes;
mod report;
mod run;
mod slowest;
mod tidy;
mod weights;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::run::Runner;
use crate::workspace::Workspace;

/// The automation of the infomax workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the matrix: format, lints, tests, documentation, each crate alone, benchmarks in smoke mode.
    Ci(ci::Options),
    /// Run the tests and the doc tests of the workspace, or of one crate.
    Test {
        /// Only this package.
        #[arg(short, long, value_name = "NAME")]
        package: Option<String>,
        /// Passed on to the test binaries: a name filter, `--nocapture` …
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Run the criterion benchmarks, or time the same work in Python beside ours.
    Bench(bench::Options),
    /// Build an archive that checks and times everything on a machine with nothing but a card and PyTorch.
    DeviceBundle(bundle::Options),
    /// Build the documentation with every warning an error.
    Doc {
        /// Open it in a browser.
        #[arg(long)]
        open: bool,
    },
    /// Check the conventions that no compiler checks: dependency edges, features, links, headers.
    Tidy,
    /// Check each crate alone, with no default feature and, with --full, build and test it too.
    Features {
        /// Build, test and document, not only check.
        #[arg(long)]
        full: bool,
    },
    /// List the golden files and what made them; regenerate them.
    Golden(golden::Options),
    /// Put the results of two pretraining runs (ours, PyTorch's) side by side as a Markdown table.
    Compare(report::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let ws = Workspace::find()?;
    match cli.command {
        Command::Ci(options) => ci::run(&ws, &options),
        Command::Test { package, args } => test(&ws, package.as_deref(), &args),
        Command::Bench(options) => bench::run(&ws, &options),
        Command::DeviceBundle(options) => bundle::run(&ws, &options),
        Command::Doc { open } => {
            let mut argv: Vec<&str> = cells::DOC.to_vec();
            if open {
                argv.push("--open");
            }
            Runner::new(&ws).env("RUSTDOCFLAGS", "-D warnings").cargo(&argv)
        }
        Command::Tidy => tidy::run(&ws),
        Command::Features { full } => ci::run(&ws, &ci::Options::alone(full)),
        Command::Golden(options) => golden::run(&ws, &options),
        Command::Compare(options) => report::run(&options),
    }
}

/// Unit, integration and documentation tests, of the workspace or of one package.
fn test(ws: &Workspace, package: Option<&str>, args: &[String]) -> Result<()> {
    let runner = Runner::new(ws);
    let mut argv = vec!["test"];
    match package {
        Some(name) => argv.extend(["--package", name]),
        None => argv.push("--workspace"),
    }
    if !args.is_empty() {
        argv.push("--");
        argv.extend(args.iter().map(String::as_str));
    }
    runner.cargo(&argv)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
