//! Starting other programs: always from the root, always with the same environment.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::{Workspace, cargo};

/// Runs commands in the root of the workspace.
#[derive(Debug)]
pub(crate) struct Runner<'a> {
    ws: &'a Workspace,
    env: Vec<(String, String)>,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(ws: &'a Workspace) -> Self {
        Self { ws, env: Vec::new() }
    }

    /// One environment variable for the commands that follow.
    pub(crate) fn env(mut self, key: &str, value: &str) -> Self {
        self.env.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Runs `cargo ARGS`, with its output on the terminal.
    pub(crate) fn cargo(&self, args: &[&str]) -> Result<()> {
        self.program(&cargo(), "cargo", args)
    }

    /// Runs `program ARGS`; `shown` stands for the program in messages.
    pub(crate) fn program(&self, program: &OsStr, shown: &str, args: &[&str]) -> Result<()> {
        println!("$ {shown} {}", args.join(" "));
        let status =
            self.command(program, args).status().with_context(|| format!("could not start `{shown}`"))?;
        if !status.success() {
            bail!("`{shown} {}` failed ({status})", args.join(" "));
        }
        Ok(())
    }

    /// Runs `cargo ARGS` with its output on stdout, and shows every line to `see`.
    pub(crate) fn cargo_seen(&self, args: &[&str], mut see: impl FnMut(&str)) -> Result<()> {
        println!("$ cargo {}", args.join(" "));
        // One pipe for both streams keeps their order: what runs is said on one, and how long it took on the other.
        let (reader, writer) = std::io::pipe()?;
        let mut command = self.command(&cargo(), args);
        command.stdout(writer.try_clone()?).stderr(writer);
        let mut child = command.spawn().context("could not start `cargo`")?;
        // The command holds the other end of the pipe, which must close for the last line to be the last.
        drop(command);
        for line in BufReader::new(reader).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            see(&line);
        }
        let status = child.wait()?;
        if !status.success() {
            bail!("`cargo {}` failed ({status})", args.join(" "));
        }
        Ok(())
    }

    /// Runs `program ARGS` and returns what it prints on stdout; stderr stays on the terminal.
    pub(crate) fn capture(&self, program: &OsStr, shown: &str, args: &[&str]) -> Result<String> {
        let out = self
            .command(program, args)
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("could not start `{shown}`"))?;
        if !out.status.success() {
            bail!("`{shown} {}` failed ({})", args.join(" "), out.status);
        }
        String::from_utf8(out.stdout)
            .with_context(|| format!("`{shown}` printed something that is not UTF-8"))
    }

    /// Runs `program ARGS` without a word; true if it succeeded, an error if it cannot be started.
    pub(crate) fn silent(&self, program: &OsStr, args: &[&str]) -> Result<bool> {
        let status = self.command(program, args).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        Ok(status.success())
    }

    fn command(&self, program: &OsStr, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.ws.root());
        // Cargo described *this* package to us; the commands below are about others.
        for (key, _) in std::env::vars_os() {
            if let Some(name) = key.to_str()
                && (name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
            {
                command.env_remove(&key);
            }
        }
        command.envs(self.env.iter().map(|(k, v)| (k, v)));
        command
    }
}
