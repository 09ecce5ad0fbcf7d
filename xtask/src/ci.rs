//! `cargo xtask ci`: runs the cells and says which passed.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::cells::{Cell, Stage, Step, cells};
use crate::run::Runner;
use crate::slowest::Slowest;
use crate::tidy;
use crate::workspace::{Workspace, library_crates};

/// What to run of the matrix.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Options {
    /// Also build, test and document each crate by itself.
    #[arg(long)]
    full: bool,
    /// Only this cell, or all cells whose names begin so; may be given again.
    #[arg(long, value_name = "CELL")]
    only: Vec<String>,
    /// List the cells and stop.
    #[arg(long)]
    list: bool,
    /// Run the remaining cells after one failed.
    #[arg(long)]
    keep_going: bool,
}

impl Options {
    /// The cells that take each crate alone.
    pub(crate) fn alone(full: bool) -> Self {
        let only =
            if full { vec!["alone-".to_owned(), "full-".to_owned()] } else { vec!["alone-".to_owned()] };
        Self { full, only, list: false, keep_going: true }
    }
}

/// Runs the selected cells; an error if one of them failed.
pub(crate) fn run(ws: &Workspace, options: &Options) -> Result<()> {
    let all = cells(&library_crates(&ws.metadata()?));
    let selected = select(all, options)?;
    if options.list {
        for cell in &selected {
            let stage = if cell.stage == Stage::Full { "full " } else { "quick" };
            println!("{:<24} {stage}  {}", cell.name, cell.what);
        }
        return Ok(());
    }
    let (mut outcomes, mut slowest) = (Vec::new(), Slowest::default());
    for cell in &selected {
        println!("\n== {}: {}", cell.name, cell.what);
        let start = Instant::now();
        let result = cell.steps.iter().try_for_each(|step| run_step(ws, step, &mut slowest));
        if let Err(error) = &result {
            println!("{}: {error:#}", cell.name);
        }
        outcomes.push((cell.name.clone(), start.elapsed().as_secs_f64(), result.is_ok()));
        if result.is_err() && !options.keep_going {
            break;
        }
    }
    let failed = outcomes.iter().filter(|(_, _, passed)| !passed).count();
    print!("\n{slowest}{}", summary(&outcomes, selected.len()));
    if failed > 0 {
        // The summary's last line is the last line on stdout; the exit status says the rest.
        std::process::exit(1);
    }
    Ok(())
}

/// The cells that the options ask for, in the order of the matrix.
fn select(all: Vec<Cell>, options: &Options) -> Result<Vec<Cell>> {
    // A cell asked for by its whole name is that cell; otherwise the text is a prefix.
    for asked in &options.only {
        if !all.iter().any(|c| c.name.starts_with(asked.as_str())) {
            let names: Vec<_> = all.iter().map(|c| c.name.as_str()).collect();
            bail!("no cell is called {asked:?}; there are: {}", names.join(", "));
        }
    }
    let exact: Vec<bool> = options.only.iter().map(|o| all.iter().any(|c| c.name == *o)).collect();
    Ok(all
        .into_iter()
        .filter(|cell| {
            if options.only.is_empty() {
                return options.full || cell.stage == Stage::Quick;
            }
            options.only.iter().zip(&exact).any(|(asked, &exact)| {
                if exact { cell.name == *asked } else { cell.name.starts_with(asked.as_str()) }
            })
        })
        .collect())
}

fn run_step(ws: &Workspace, step: &Step, slowest: &mut Slowest) -> Result<()> {
    match step {
        Step::Cargo(args) => Runner::new(ws).cargo(&strs(args)),
        Step::CargoEnv(key, value, args) => Runner::new(ws).env(key, value).cargo(&strs(args)),
        Step::Tests(args) => Runner::new(ws).cargo_seen(&strs(args), |line| slowest.see(line)),
        Step::Tidy => tidy::run(ws),
        Step::Built(name, args) => run_built(ws, name, args),
        Step::Cuda => crate::devices::cuda(ws),
        Step::Metal => crate::devices::metal(ws),
        Step::Logs => crate::logs::run(ws),
        Step::Memory => crate::memory::run(ws),
        Step::Readmes => crate::readmes::run(ws),
        Step::Weights => crate::weights::run(ws),
        Step::Mpi => crate::mpi::run(ws),
        Step::Package => crate::package::run(ws),
    }
}

/// Runs a binary of the dev profile inside a fresh empty folder, which is removed afterwards.
fn run_built(ws: &Workspace, name: &str, args: &[String]) -> Result<()> {
    let metadata = ws.metadata()?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    let binary: PathBuf =
        [target, "debug", &format!("{name}{}", std::env::consts::EXE_SUFFIX)].iter().collect();
    let scratch = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("could not create {}", scratch.display()))?;
    let elsewhere = Workspace::at(scratch.clone());
    let result = Runner::new(&elsewhere).program(&OsString::from(binary), name, &strs(args));
    fs::remove_dir_all(&scratch).with_context(|| format!("could not remove {}", scratch.display()))?;
    result
}

/// The table and the line that counts.
fn summary(outcomes: &[(String, f64, bool)], selected: usize) -> String {
    let mut text = format!("{:<24} {:>8}  result\n", "cell", "seconds");
    for (name, seconds, passed) in outcomes {
        text += &format!("{name:<24} {seconds:>8.1}  {}\n", if *passed { "passed" } else { "FAILED" });
    }
    let total: f64 = outcomes.iter().map(|(_, seconds, _)| seconds).sum();
    text += &format!("{:<24} {total:>8.1}\n", "total");
    if outcomes.len() < selected {
        text += &format!("{} cells were not run (--keep-going runs them)\n", selected - outcomes.len());
    }
    let passed = outcomes.iter().filter(|(_, _, passed)| *passed).count();
    text + &format!("{passed} passed, {} failed\n", outcomes.len() - passed)
}

fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(options: &Options) -> Vec<String> {
        let all = cells(&["infomax-core".to_owned(), "infomax".to_owned()]);
        select(all, options).unwrap().into_iter().map(|c| c.name).collect()
    }

    #[test]
    fn the_last_line_counts_cells() {
        let text = summary(&[("fmt".into(), 1.0, true), ("test".into(), 2.0, false)], 3);
        assert_eq!(text.lines().last(), Some("1 passed, 1 failed"));
        assert!(text.contains("1 cells were not run"));
    }

    #[test]
    fn full_cells_are_opt_in() {
        assert!(!names(&Options::default()).iter().any(|n| n.starts_with("full-")));
        let full = Options { full: true, ..Options::default() };
        assert!(names(&full).iter().any(|n| n == "full-infomax-core"));
    }

    #[test]
    fn only_takes_a_name_or_a_prefix() {
        let only = |o: &str| names(&Options { only: vec![o.to_owned()], ..Options::default() });
        assert_eq!(only("alone-infomax"), ["alone-infomax"]);
        assert_eq!(only("alone-").len(), 2);
        assert_eq!(only("full-infomax-core"), ["full-infomax-core"]);
        let unknown = Options { only: vec!["nope".to_owned()], ..Options::default() };
        assert!(select(cells(&[]), &unknown).is_err());
    }
}
