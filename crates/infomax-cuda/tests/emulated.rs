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
        .args(["-std=c++17", "-O1", "-o"])
        .arg(&program)
        .arg(folder.join("main.cpp"))
        .output()
        .unwrap_or_else(|e| {
            panic!("cannot run {compiler} ({e}); install a C++17 compiler, or name one in CXX")
        });
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let run = Command::new(&program).output().expect("the program that was just built");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
}
