//! What a run writes for TensorBoard and MLflow, read back by their own packages.

use std::env::consts::EXE_SUFFIX;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::bench::python;
use crate::run::Runner;
use crate::workspace::Workspace;

/// The script, which needs tensorboard, and mlflow for its second half.
const SCRIPT: &str = "crates/infomax-cli/tests/python/logs.py";

/// Runs the script by the Python of `INFOMAX_PYTHON`, or `python3`; says so where it lacks TensorBoard.
pub(crate) fn run(ws: &Workspace) -> Result<()> {
    let python = python(None);
    let shown = python.to_string_lossy().into_owned();
    let runner = Runner::new(ws);
    if !runner.silent(python.as_os_str(), &["-c", "import tensorboard"]).unwrap_or(false) {
        println!(
            "skipped: {shown} has no tensorboard; name a Python that has (and mlflow) by INFOMAX_PYTHON"
        );
        return Ok(());
    }
    let metadata = ws.metadata()?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    let program = Path::new(target).join("debug").join(format!("infomax{EXE_SUFFIX}"));
    runner.program(python.as_os_str(), &shown, &[SCRIPT, &program.to_string_lossy()])
}
