//! `cargo xtask tidy`: the conventions of ARCHITECTURE.md that no compiler checks.
//!
//! Each check is a function of text or of `cargo metadata` that returns its findings, so that a
//! test can plant a violation and see it found.

mod graph;
mod lexer;
mod source;
mod text;
mod unused;

use std::fmt;
use std::fs;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{package, readmes};

pub(crate) use graph::one_version;

/// One violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Path relative to the root, or the name of a package.
    place: String,
    /// Line, from 1; 0 where the finding has none.
    line: usize,
    message: String,
}

impl Finding {
    fn new(place: &str, line: usize, message: impl Into<String>) -> Self {
        Self { place: place.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.place, self.message),
            line => write!(f, "{}:{line}: {}", self.place, self.message),
        }
    }
}

/// Files longer than this are reported; it is no error, a person decides.
const LONG_FILE: usize = 600;

/// Runs every check over the workspace; an error if anything was found.
pub(crate) fn run(ws: &Workspace) -> Result<()> {
    let metadata = ws.metadata()?;
    let lock = fs::read_to_string(ws.root().join("Cargo.lock")).context("could not read Cargo.lock")?;
    let mut findings = graph::edges(&metadata);
    findings.extend(graph::features(&metadata));
    for name in ["candle-core", "candle-nn"] {
        findings.extend(graph::one_version(&lock, name));
    }
    for (name, fault) in package::check(&metadata, |path| path.exists()) {
        findings.push(Finding::new(&name, 0, fault));
    }
    for (name, folder) in readmes::libraries(&metadata) {
        // One that is missing is a finding of the line above.
        let text = fs::read_to_string(folder.join("README.md")).unwrap_or_default();
        findings.extend(readmes::check(&name, &text).into_iter().map(|f| Finding::new(&name, 0, f)));
    }
    let (mut sources, mut long) = (Vec::new(), Vec::new());
    for path in ws.files()? {
        let name = ws.relative(&path);
        let Ok(text) = fs::read_to_string(&path) else { continue }; // Images and other binary files.
        findings.extend(text::machine_paths(&name, &text));
        if name.ends_with(".rs") {
            findings.extend(source::check(&name, &text));
            let lines = text.lines().count();
            if lines > LONG_FILE {
                long.push((lines, name.clone()));
            }
        }
        if name.ends_with(".rs") || name.ends_with("README.md") {
            sources.push((name.clone(), text.clone()));
        }
        if name.ends_with("Cargo.toml") {
            findings.extend(text::workspace_lints(&name, &text));
        }
        if text::is_documentation(&name) {
            findings.extend(text::links(&name, &text, |target| ws.root().join(target).exists()));
        }
    }
    findings.extend(unused::unused(&metadata, &ws.root().to_string_lossy(), &sources));
    long.sort();
    for (lines, name) in long.iter().rev() {
        println!("note: {name} has {lines} lines (more than {LONG_FILE}): split it if it has two subjects");
    }
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    let rust = sources.iter().filter(|(name, _)| name.ends_with(".rs")).count();
    println!("tidy: {rust} source files, no finding");
    Ok(())
}
