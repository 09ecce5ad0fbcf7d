//! `cargo xtask bench`: criterion benchmarks, and the same work in Python beside ours.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use crate::peers;
use crate::run::Runner;
use crate::workspace::Workspace;

/// What to measure.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Options {
    /// Time the Python scripts of benches/peers and the same work in Rust, side by side.
    #[arg(long)]
    peers: bool,
    /// Only benchmarks (or peers) whose name contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// The Python to use; otherwise $INFOMAX_PYTHON, otherwise `python3`.
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Threads for both sides (with --peers); without it each side takes what it finds.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// A folder of images, for the peers that read files.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Passed on to criterion: `--save-baseline NAME`, `--baseline NAME` …
    #[arg(last = true)]
    args: Vec<String>,
}

/// Runs the benchmarks.
pub(crate) fn run(ws: &Workspace, options: &Options) -> Result<()> {
    if options.peers {
        let request = peers::Request {
            filter: options.filter.as_deref(),
            python: python(options.python.as_deref()),
            threads: options.threads,
            data: options.data.as_deref(),
        };
        return peers::run(ws, &request);
    }
    let mut argv = vec!["bench", "--package", "infomax-benches", "--bench", "main", "--"];
    argv.extend(options.filter.as_deref());
    argv.extend(options.args.iter().map(String::as_str));
    Runner::new(ws).cargo(&argv)
}

/// The Python that a person named, in the order: argument, environment, path.
pub(crate) fn python(asked: Option<&Path>) -> PathBuf {
    asked
        .map(Path::to_path_buf)
        .or_else(|| std::env::var_os("INFOMAX_PYTHON").map(PathBuf::from))
        .unwrap_or_else(|| PathBuf::from("python3"))
}
