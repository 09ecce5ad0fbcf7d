//! `cargo xtask golden`: which reference values are committed, what made them, and again.
//!
//! Golden files live in `crates/NAME/tests/golden/`; a Python script beside them (`*.py`) writes
//! them into its own folder, and `manifest.json` records the versions it ran with.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::bench::python;
use crate::run::Runner;
use crate::workspace::Workspace;

/// What to do with the golden files.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Options {
    /// Run the generators; `git diff` then shows what moved.
    #[arg(long)]
    regenerate: bool,
    /// Only folders whose path contains this.
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// The Python to use; otherwise $INFOMAX_PYTHON, otherwise `python3`.
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
}

/// One folder of golden files.
#[derive(Debug, Default, PartialEq, Eq)]
struct Folder {
    artifacts: usize,
    bytes: u64,
    generators: Vec<String>,
    manifest: bool,
}

/// Lists the folders, or regenerates them.
pub(crate) fn run(ws: &Workspace, options: &Options) -> Result<()> {
    let mut folders: BTreeMap<String, Folder> = BTreeMap::new();
    for path in ws.files()? {
        let name = ws.relative(&path);
        let Some(folder) = golden_folder(&name) else { continue };
        if options.filter.as_ref().is_some_and(|f| !folder.contains(f.as_str())) {
            continue;
        }
        add(folders.entry(folder.to_owned()).or_default(), &name, fs::metadata(&path)?.len());
    }
    if folders.is_empty() {
        println!(
            "no golden files{}",
            options.filter.as_ref().map_or(String::new(), |f| format!(" match {f:?}"))
        );
        return Ok(());
    }
    println!("{:<48} {:>6} {:>9}  made by", "folder", "files", "KiB");
    for (name, folder) in &folders {
        let by = match (folder.generators.is_empty(), folder.manifest) {
            (false, _) => folder.generators.join(", "),
            (true, true) => "see manifest.json".to_owned(),
            (true, false) => "unknown: add a generator script or a manifest.json".to_owned(),
        };
        println!("{name:<48} {:>6} {:>9.1}  {by}", folder.artifacts, folder.bytes as f64 / 1024.0);
    }
    if options.regenerate {
        regenerate(ws, &folders, options)?;
    }
    Ok(())
}

fn regenerate(ws: &Workspace, folders: &BTreeMap<String, Folder>, options: &Options) -> Result<()> {
    let scripts: Vec<String> = folders
        .iter()
        .flat_map(|(name, f)| f.generators.iter().map(move |g| format!("{name}/{g}")))
        .collect();
    if scripts.is_empty() {
        bail!("no generator script among these folders: nothing to regenerate");
    }
    let python = python(options.python.as_deref());
    for script in &scripts {
        Runner::new(ws)
            .program(python.as_os_str(), &python.to_string_lossy(), &[script])
            .with_context(|| format!("{script} needs the packages that its manifest names"))?;
    }
    println!("{} scripts ran; `git diff --stat` shows what moved", scripts.len());
    Ok(())
}

/// The part of a path up to the folder that holds the file, if it is under `tests/golden/`.
fn golden_folder(name: &str) -> Option<&str> {
    name.contains("/tests/golden/").then(|| name.rsplit_once('/')).flatten().map(|(folder, _)| folder)
}

fn add(folder: &mut Folder, name: &str, bytes: u64) {
    let file = name.rsplit('/').next().unwrap_or(name);
    if file.ends_with(".py") {
        folder.generators.push(file.to_owned());
    } else if file == "manifest.json" {
        folder.manifest = true;
    } else if !file.ends_with(".rs") && !file.ends_with(".md") {
        folder.artifacts += 1;
        folder.bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_files_into_artifacts_and_generators() {
        let mut folder = Folder::default();
        for (name, bytes) in [("a/x.npy", 8), ("a/gen.py", 100), ("a/manifest.json", 50), ("a/mod.rs", 10)] {
            add(&mut folder, name, bytes);
        }
        let expected = Folder { artifacts: 1, bytes: 8, generators: vec!["gen.py".into()], manifest: true };
        assert_eq!(folder, expected);
    }

    #[test]
    fn only_golden_folders_count() {
        assert_eq!(golden_folder("crates/a/tests/golden/gram/x.npy"), Some("crates/a/tests/golden/gram"));
        assert_eq!(golden_folder("crates/a/tests/x.npy"), None);
    }
}
