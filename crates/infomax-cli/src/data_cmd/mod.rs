//! `infomax data`: what lies at a path, the views that training sees, and public data sets from the network.

mod catalog;
mod download;
mod fetch;
mod info;
mod preview;
mod unpack;

use crate::Status;
use anyhow::Result;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Write the views that training sees as a PNG, with their parameters.
    #[command(after_help = preview::EXAMPLES)]
    Preview(preview::PreviewArgs),
    /// Recognize the format of a data set and say what is in it.
    #[command(
        after_help = "Examples:\n  infomax data info photos/\n  infomax data info cifar-10-batches-bin/ --json\n  infomax data info shards/ --verify decode     decode every image\n\nExit codes: 0 readable, 1 not a data set (or, with --strict, anything damaged)."
    )]
    Info(InfoArgs),
    /// Download a public data set: resumable, checked, unpacked.
    #[command(
        after_help = "Examples:\n  infomax data fetch --list                     names, sizes, sources, licenses\n  infomax data fetch cifar10                    into data/cifar10\n  infomax data fetch mnist --to sets/mnist\n  infomax data fetch stl10 --base-url https://mirror.example.org/stl10/\n\nAn interrupted download goes on where it stopped when the command is run again."
    )]
    Fetch(FetchArgs),
}

#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// A folder or a file.
    pub(crate) path: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// How much of every encoded image is checked: `never`, `header`, `decode`, or `auto`: everything if all
    /// images fit into 1 GiB, else the headers, and above 100,000 images nothing.
    #[arg(long, default_value = "auto", value_parser = parse_verify)]
    pub(crate) verify: infomax_data::Verify,
    /// End with an error when anything is damaged.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Which image of a sample that has several: a field of tar shards (`jpg`, `seg.png`), a column, an array.
    #[arg(long, value_name = "NAME")]
    pub(crate) image: Option<String>,
    /// Where the labels stand, if there are several: a field of tar shards (`cls`), a column, an array.
    #[arg(long, value_name = "NAME")]
    pub(crate) label: Option<String>,
    /// How many damaged files are listed.
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) list: usize,
}

#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    /// The name of the data set.
    #[arg(required_unless_present = "list")]
    pub(crate) name: Option<String>,
    /// Where it goes [default: data/NAME].
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
    /// Take the files from this address instead of their source; they are checked all the same.
    #[arg(long, value_name = "URL")]
    pub(crate) base_url: Option<String>,
    /// Keep the archive after it was unpacked.
    #[arg(long)]
    pub(crate) keep_archive: bool,
    /// No progress bar.
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// List the data sets with their sizes, sources and licenses.
    #[arg(long)]
    pub(crate) list: bool,
}

fn parse_verify(text: &str) -> Result<infomax_data::Verify, String> {
    use infomax_data::Verify;
    match text {
        "auto" => Ok(Verify::Auto),
        "never" => Ok(Verify::Never),
        "header" => Ok(Verify::Header),
        "decode" => Ok(Verify::Decode),
        other => Err(format!("`{other}` is none of auto, never, header, decode")),
    }
}

/// `infomax data ...`.
pub(crate) fn run(args: &DataArgs) -> Result<Status> {
    match &args.command {
        DataCommand::Preview(args) => preview::run(args),
        DataCommand::Info(args) => info::run(args),
        DataCommand::Fetch(args) => fetch::run(args),
    }
}
