//! Weights that come into a run and go out of it, in files.

mod archive;
mod export;
mod file;
mod init;

pub use export::{ExportOptions, Exported, export, export_onnx};
pub use file::WeightsFile;
pub(crate) use init::init;
