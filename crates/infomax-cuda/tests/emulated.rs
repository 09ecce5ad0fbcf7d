//! Every kernel on the CPU: `tests/emulated/main.cpp` compiles the `.cu` files with the C++ compiler and checks them
//! against plain loops in f64.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;

#[test]
fn kernels_against_plain_loops() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulated");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulated-kernels");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let built = Command::new(&compiler)
        .args(["-std=c++17", "-O1", "-ffp-contract=off", "-o"])
        .arg(&program)
        .arg(folder.join("main.cpp"))
        .output();
    let built = match built {
        Ok(built) => built,
        // The rest of the workspace needs no C++ compiler: a machine without one checks all else.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && std::env::var_os("CXX").is_none() => {
            eprintln!(
                "NOT CHECKED: the CUDA kernels; there is no {compiler} ({e}): install one, or name it in CXX"
            );
            return;
        }
        Err(e) => panic!("cannot run {compiler}: {e}"),
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let run = Command::new(&program).output().expect("the program that was just built");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
}
