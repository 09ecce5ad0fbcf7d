//! Where the workspace is and what it holds: the root, the packages, the files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The workspace that this program belongs to.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Found from the folder of this crate's manifest, which cargo sets when it runs us.
    pub(crate) fn find() -> Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("the folder of xtask has no parent")?.to_path_buf();
        if !root.join("Cargo.toml").is_file() {
            bail!("no Cargo.toml in {}: run this as `cargo xtask` inside the workspace", root.display());
        }
        Ok(Self { root })
    }

    /// Another folder to run programs in.
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path relative to the root with forward slashes, for messages.
    pub(crate) fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().replace('\\', "/")
    }

    /// `cargo metadata` of the workspace members, without their dependencies' own graphs.
    pub(crate) fn metadata(&self) -> Result<Value> {
        let out = Command::new(cargo())
            .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
            .current_dir(&self.root)
            .output()
            .context("could not start `cargo metadata`")?;
        if !out.status.success() {
            bail!("`cargo metadata` failed:\n{}", String::from_utf8_lossy(&out.stderr));
        }
        serde_json::from_slice(&out.stdout).context("`cargo metadata` printed something that is not JSON")
    }

    /// Every file of the project, sorted; build outputs, runs and hidden folders but `.ci` and
    /// `.cargo` are left out.
    pub(crate) fn files(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        walk(&self.root, true, &mut found)?;
        found.sort();
        Ok(found)
    }
}

/// The names of the crates under `crates/`, sorted, from the result of [`Workspace::metadata`].
pub(crate) fn library_crates(metadata: &Value) -> Vec<String> {
    let mut names: Vec<String> = packages(metadata)
        .filter_map(|p| p["name"].as_str())
        .filter(|n| n.starts_with("infomax") && *n != "infomax-benches")
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

/// The packages of a `cargo metadata` document.
pub(crate) fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

/// The cargo that runs us, or the one on the path.
pub(crate) fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn walk(dir: &Path, top: bool, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("could not list {}", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            let hidden = name.starts_with('.') && name != ".ci" && name != ".cargo";
            let output = name == "target" || name == "__pycache__" || (top && name == "runs");
            // A folder with a cache tag is some cargo target directory under another name.
            if hidden || output || path.join("CACHEDIR.TAG").exists() {
                continue;
            }
            walk(&path, false, found)?;
        } else if entry.file_type()?.is_file() && name != ".git" {
            // `.git` is a file in a work tree beside the repository, with a path of the machine.
            found.push(path);
        }
    }
    Ok(())
}
