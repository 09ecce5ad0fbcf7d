//! The unsafe code of the kernels under tools that watch memory: Miri, AddressSanitizer, valgrind.
//!
//! Each tool sees something else. Miri knows the rules of the language, and on x86-64 the vectors of any processor
//! that it is told to play, but not the assembly that the matrix products use to ask for the processor.
//! AddressSanitizer and valgrind run the real machine code, with the vectors of this machine (AddressSanitizer) or up
//! to AVX2 (valgrind). What is not there on a machine is named; at least one must be.

use std::ffi::OsString;

use anyhow::{Result, bail};

use crate::run::Runner;
use crate::workspace::{Workspace, cargo};

/// The crate whose unsafe code works on tensors.
const CRATE: &str = "infomax-kernels";

/// The crate that holds the vectors.
const VECTORS: &str = "infomax-simd";

/// Tests that Miri can run in minutes: raw pointers of the rows, of pooling and of depthwise convolution,
/// without the matrix products.
const MIRI: &[&str] = &["--lib", "memory_small"];

/// Those with AVX-512: the vectors themselves.
const MIRI_WIDE: &[&str] = &["--lib", "--", "pairs::tests", "element::tests::squares"];

/// The features of a processor with AVX-512 and its dot products of bf16: Miri takes what is compiled for as present,
/// and runs most vector instructions as plain arithmetic, on any machine. Where it does not know one (the dot
/// product, a permutation), the crate has its plain form.
const WIDE: &str = "-Ctarget-feature=+avx2,+fma,+f16c,+avx512f,+avx512bw,+avx512bf16";

/// Runs every tool that is there.
pub(crate) fn run(ws: &Workspace) -> Result<()> {
    let nightly = |args: &[&str]| {
        // Through rustup's own proxy: the cargo that started us is bound to its toolchain.
        Runner::new(ws)
            .silent(&OsString::from("rustup"), &[&["run", "nightly"], args].concat())
            .unwrap_or(false)
    };
    let target = target_triple(ws)?;
    let mut ran = Vec::new();
    if nightly(&["cargo", "miri", "--version"]) {
        miri(ws, CRATE, "target/miri", MIRI, None)?;
        if target.starts_with("x86_64") {
            miri(ws, VECTORS, "target/miri-avx512", MIRI_WIDE, Some(WIDE))?;
        }
        ran.push("Miri");
    } else {
        println!("Miri: not here (`rustup toolchain install nightly --component miri,rust-src`)");
    }
    if target.contains("linux") && nightly(&["rustc", "--version"]) {
        let args = [
            &[
                "run",
                "nightly",
                "cargo",
                "test",
                "--package",
                CRATE,
                "--package",
                VECTORS,
                "--lib",
                "--tests",
            ][..],
            &["--target-dir", "target/asan", "--target", &target],
            // Its own allocator stands in the place of the one that this test speaks to.
            &["--", "--skip", "large_blocks_still_come_and_go"],
        ]
        .concat();
        Runner::new(ws)
            .env("RUSTFLAGS", "-Zsanitizer=address")
            // Threads of the pool keep their buffers until the process ends.
            .env("ASAN_OPTIONS", "detect_leaks=0")
            .program(&OsString::from("rustup"), "rustup", &args)?;
        ran.push("AddressSanitizer");
    } else {
        println!("AddressSanitizer: not here (a nightly toolchain on Linux)");
    }
    if Runner::new(ws).silent(&OsString::from("valgrind"), &["--version"]).unwrap_or(false) {
        valgrind(ws, &target)?;
        ran.push("valgrind");
    } else {
        println!("valgrind: not here (a package of most distributions)");
    }
    if ran.is_empty() {
        bail!("none of Miri, AddressSanitizer and valgrind is here: the unsafe code was not checked");
    }
    println!("checked by {}", ran.join(", "));
    Ok(())
}

/// Some tests, for the processor that every machine has or one with these features.
fn miri(ws: &Workspace, package: &str, folder: &str, tests: &[&str], features: Option<&str>) -> Result<()> {
    let mut args = vec!["run", "nightly", "cargo", "miri", "test", "--package", package];
    args.extend(["--target-dir", folder]);
    args.extend(tests);
    // Files (proptest's seeds), clocks and `available_parallelism` are outside of Miri's machine. The queues of
    // the thread pool (crossbeam) keep the rules of tree borrows, not those of stacked borrows.
    let flags = "-Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-tree-borrows";
    let mut runner = Runner::new(ws).env("MIRIFLAGS", flags);
    if let Some(features) = features {
        runner = runner.env("RUSTFLAGS", features);
    }
    runner.program(&OsString::from("rustup"), "rustup", &args)
}

/// The unit tests of the shapes that fit, as machine code under memcheck.
fn valgrind(ws: &Workspace, target: &str) -> Result<()> {
    let runner = format!("CARGO_TARGET_{}_RUNNER", target.to_uppercase().replace('-', "_"));
    Runner::new(ws)
        .env(&runner, "valgrind --quiet --error-exitcode=9 --fair-sched=yes")
        .env("PROPTEST_CASES", "2")
        .program(
            &cargo(),
            "cargo",
            &["test", "--package", CRATE, "--lib", "--", "memory_small", "--test-threads=1"],
        )
}

/// The triple of this machine, as the compiler names it.
fn target_triple(ws: &Workspace) -> Result<String> {
    let printed = Runner::new(ws).capture(&OsString::from("rustc"), "rustc", &["-vV"])?;
    match printed.lines().find_map(|l| l.strip_prefix("host: ")) {
        Some(host) => Ok(host.to_owned()),
        None => bail!("`rustc -vV` names no host"),
    }
}
