//! Compiles the kernels to PTX when the feature `cuda` is on; does nothing otherwise.
//!
//! `NVCC` names the compiler (default: `nvcc` of the path), `INFOMAX_CUDA_ARCH` the virtual architecture
//! (default: `compute_80`). PTX of 8.0 is compiled by the driver for the card at hand, so one build serves all
//! cards from 8.0 on.

use std::path::PathBuf;
use std::process::Command;

/// Names of the files `kernels/NAME.cu`.
const MODULES: [&str; 10] = [
    "batch_norm",
    "characteristic",
    "cross_entropy",
    "elementwise",
    "moments",
    "optim",
    "pairwise",
    "pool",
    "rows",
    "views",
];

fn main() -> Result<(), String> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=INFOMAX_CUDA_MAJOR={}", major().unwrap_or(13));
    if std::env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return Ok(());
    }
    for name in ["NVCC", "INFOMAX_CUDA_ARCH", "CUDA_COMPUTE_CAP", "CUDARC_CUDA_VERSION"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    // What Candle's kernels are made for, for the messages of a program on another card.
    if let Ok(capability) = std::env::var("CUDA_COMPUTE_CAP") {
        println!("cargo:rustc-env=INFOMAX_CUDA_BUILT_FOR={capability}");
    }
    println!("cargo:rerun-if-changed=kernels");
    let nvcc = std::env::var("NVCC").unwrap_or_else(|_| "nvcc".into());
    let arch = std::env::var("INFOMAX_CUDA_ARCH").unwrap_or_else(|_| "compute_80".into());
    let out = PathBuf::from(std::env::var("OUT_DIR").map_err(|e| format!("OUT_DIR: {e}"))?);
    for module in MODULES {
        let result = Command::new(&nvcc)
            .args(["-ptx", "-O3", "-std=c++17"])
            .arg(format!("-arch={arch}"))
            .arg("-o")
            .arg(out.join(format!("{module}.ptx")))
            .arg(format!("kernels/{module}.cu"))
            .output()
            .map_err(|e| format!("cannot run {nvcc} ({e}); set NVCC to the compiler of the CUDA toolkit"))?;
        if !result.status.success() {
            let text = String::from_utf8_lossy(&result.stderr).into_owned();
            return Err(format!("{nvcc} failed on kernels/{module}.cu:\n{text}"));
        }
    }
    Ok(())
}

/// The version of CUDA that the bindings are made for, as `cudarc` finds it: what is set, or what the compiler says. It
/// is in the names of the libraries.
fn major() -> Option<u32> {
    std::env::var_os("CARGO_FEATURE_CUDA")?;
    if let Ok(version) = std::env::var("CUDARC_CUDA_VERSION") {
        // 13000 is 13.0.
        return Some(version.parse::<u32>().ok()? / 1000);
    }
    let nvcc = std::env::var("NVCC").unwrap_or_else(|_| "nvcc".into());
    let said = Command::new(nvcc).arg("--version").output().ok()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    said.split_once("release ")?.1.split_once('.')?.0.trim().parse().ok()
}
