//! Exports of the built program in PyTorch and onnxruntime.

use std::env::consts::EXE_SUFFIX;
use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::run::Runner;
use crate::workspace::Workspace;

/// The script, which needs PyTorch, numpy and safetensors.
const SCRIPT: &str = "crates/infomax-cli/tests/python/exports.py";

/// Runs the script by the Python of `INFOMAX_PYTHON`, or `python3`; says so where it lacks PyTorch.
pub(crate) fn run(ws: &Workspace) -> Result<()> {
    let python = std::env::var_os("INFOMAX_PYTHON").unwrap_or_else(|| OsString::from("python3"));
    let shown = python.to_string_lossy().into_owned();
    let runner = Runner::new(ws);
    if !runner.silent(&python, &["-c", "import numpy, safetensors.torch, torch"]).unwrap_or(false) {
        println!(
            "skipped: {shown} has no torch, numpy and safetensors; name one that has by INFOMAX_PYTHON, for example a \
             virtual environment with torch, torchvision, timm, safetensors, onnx and onnxruntime"
        );
        return Ok(());
    }
    let metadata = ws.metadata()?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    let program = Path::new(target).join("debug").join(format!("infomax{EXE_SUFFIX}"));
    runner.program(&python, &shown, &[SCRIPT, &program.to_string_lossy()])
}
