//! A program without an engine between processes, started by a launcher of several.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

mod common;

use common::stderr;
use std::process::Command;

/// The built program with the variables of a launcher.
fn launched(dir: &std::path::Path, variables: &[(&str, &str)], args: &[&str]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infomax"));
    command.current_dir(dir).args(args).envs(variables.iter().copied()).output().unwrap()
}

#[test]
#[cfg(not(feature = "mpi"))]
fn several_processes_are_refused_before_there_is_a_run() {
    let dir = tempfile::tempdir().unwrap();
    for (launcher, variables) in [
        ("mpirun of Open MPI", [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")]),
        ("srun of Slurm", [("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "2")]),
        ("torchrun", [("RANK", "1"), ("WORLD_SIZE", "2")]),
    ] {
        let args = [&["pretrain", "--epochs", "1"], &common::SMALL[..]].concat();
        let output = launched(dir.path(), &variables, &args);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        for part in ["process 1 of 2", launcher, "built without mpi", "--features mpi"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_one_process_does_is_refused_to_several_and_variables_without_a_meaning_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let two = [("RANK", "0"), ("WORLD_SIZE", "2")];
    for args in [&["evaluate", "runs/x"][..], &["embed", "runs/x", "--out", "z.npy"], &["paper", "--all"]] {
        let output = launched(dir.path(), &two, args);
        let text = stderr(&output);
        assert!(!output.status.success() && text.contains("the work of one process"), "{args:?}: {text}");
    }
    let wrong = [("RANK", "2"), ("WORLD_SIZE", "2")];
    let text = stderr(&launched(dir.path(), &wrong, &["pretrain"]));
    assert!(text.contains("WORLD_SIZE = 2: RANK = 2 must be below it"), "{text}");
    // One process of a launcher is a process like any other; so is one where others use the name.
    for variables in [&[("RANK", "0"), ("WORLD_SIZE", "1")][..], &[("RANK", "first")]] {
        let output = launched(dir.path(), variables, &["pretrain", "--rank-timeout", "0"]);
        assert!(stderr(&output).contains("--rank-timeout 0: seconds above 0"), "{}", stderr(&output));
    }
}
