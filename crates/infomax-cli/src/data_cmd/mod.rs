//! `infomax data`: what training sees.

mod preview;

use crate::Status;
use anyhow::Result;
use clap::{Args, Subcommand};

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
}

/// `infomax data ...`.
pub(crate) fn run(args: &DataArgs) -> Result<Status> {
    match &args.command {
        DataCommand::Preview(args) => preview::run(args),
    }
}
