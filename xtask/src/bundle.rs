//! `cargo xtask device-bundle`: one archive for a machine that has a card and PyTorch, and nothing of ours.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::run::Runner;
use crate::workspace::{Workspace, cargo};

/// An archive that is carried to a machine is at most this large, in bytes.
const LARGEST: u64 = 60 << 20;

/// How to build and what for.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where the archive goes.
    #[arg(long, value_name = "DIR", default_value = "target/device-bundle")]
    out: PathBuf,
    /// The compute capability of the card, 90 for 9.0 [default: CUDA_COMPUTE_CAP, else 90].
    #[arg(long, value_name = "CAP")]
    capability: Option<String>,
    /// Another folder for candle-kernels, for example one without kernels that are not used: its build takes long.
    #[arg(long, value_name = "DIR")]
    candle_kernels: Option<PathBuf>,
    /// The folder of build outputs.
    #[arg(long, value_name = "DIR", default_value = "target/device")]
    target: PathBuf,
}

/// What is in the archive beside the two programs.
const FILES: &[&str] = &["benches/device/run.sh", "benches/peers/cuda_step.py"];

/// The golden files that are in it.
const GOLDEN: &str = "crates/infomax-losses/tests/golden/losses";

pub(crate) fn run(ws: &Workspace, options: &Options) -> Result<()> {
    let nvcc = std::env::var_os("NVCC").unwrap_or_else(|| OsString::from("nvcc"));
    toolchain(ws, &nvcc)?;
    let capability = options.capability.clone().or_else(|| std::env::var("CUDA_COMPUTE_CAP").ok());
    let capability = capability.unwrap_or_else(|| "90".to_owned());
    let target = ws.root().join(&options.target);
    build(ws, options, &nvcc, &capability, &target)?;

    let out = ws.root().join(&options.out);
    let folder = out.join("infomax-device");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let release = target.join("release");
    for (from, name) in [("examples/device_check", "infomax-device-check"), ("infomax", "infomax")] {
        let to = folder.join(name);
        fs::copy(release.join(from), &to).with_context(|| format!("the build left no {from}"))?;
        Runner::new(ws).program(&OsString::from("strip"), "strip", &[&to.to_string_lossy()])?;
        needs_no_cuda(ws, &to)?;
    }
    copy_golden(ws, &folder.join("golden"))?;
    for file in FILES {
        let name = Path::new(file).file_name().context("a file without a name")?;
        fs::copy(ws.root().join(file), folder.join(name))
            .with_context(|| format!("could not copy {file}"))?;
    }
    let about = format!(
        "infomax {}, for cards of compute capability {capability} and CUDA 13 libraries.\n\nbash run.sh\n\nNeeds python3 \
         with a CUDA 13 PyTorch, whose libraries are used. Ends with a table and a line of totals, within six minutes.\n",
        env!("CARGO_PKG_VERSION")
    );
    fs::write(folder.join("README.txt"), about)?;
    let archive = out.join("infomax-device.tar.xz");
    let (archive_text, out_text) =
        (archive.to_string_lossy().into_owned(), out.to_string_lossy().into_owned());
    let args = ["-cJf", &archive_text, "-C", &out_text, "infomax-device"];
    Runner::new(ws).program(&OsString::from("tar"), "tar", &args)?;
    let size = fs::metadata(&archive)?.len();
    println!("{}: {:.1} MB", archive.display(), size as f64 / 1e6);
    if size > LARGEST {
        bail!("the archive is larger than {} MB: leave kernels out with --candle-kernels", LARGEST >> 20);
    }
    println!("on the machine: tar -xJf infomax-device.tar.xz && bash infomax-device/run.sh");
    Ok(())
}

/// That the compiler of CUDA is there, a real one of the version that drivers of CUDA 13.0 understand.
fn toolchain(ws: &Workspace, nvcc: &OsString) -> Result<()> {
    let shown = nvcc.to_string_lossy();
    let said = Runner::new(ws).capture(nvcc, &shown, &["--version"]).with_context(|| {
        format!(
            "no compiler of CUDA: {shown} does not run. Install the CUDA 13.0 toolkit, or its wheels from PyPI \
             (nvidia-cuda-nvcc, -crt, -runtime, -cccl and nvidia-nvvm 13.0), and name nvcc in NVCC"
        )
    })?;
    match version(&said) {
        Some((13, 0)) => Ok(()),
        Some((major, minor)) => bail!(
            "{shown} is of CUDA {major}.{minor}; kernels of 13.0 run with every driver from 580 on, newer ones do not: \
             name an nvcc of 13.0 in NVCC"
        ),
        None => bail!("{shown} --version names no release; is it nvcc?"),
    }
}

/// The release that `nvcc --version` names.
fn version(said: &str) -> Option<(u32, u32)> {
    let (_, rest) = said.split_once("release ")?;
    let (major, minor) = rest.split_once(',')?.0.split_once('.')?;
    Some((major.trim().parse().ok()?, minor.trim().parse().ok()?))
}

/// That a program starts where there is neither driver nor toolkit.
fn needs_no_cuda(ws: &Workspace, program: &Path) -> Result<()> {
    let tool = OsString::from("readelf");
    let said = Runner::new(ws).capture(&tool, "readelf", &["-d", &program.to_string_lossy()])?;
    let bound = bound_libraries(&said);
    if !bound.is_empty() {
        bail!("{} needs {} to start", program.display(), bound.join(", "));
    }
    Ok(())
}

/// CUDA's libraries among those that `readelf -d` names.
fn bound_libraries(said: &str) -> Vec<&str> {
    let needed = said.lines().filter(|line| line.contains("(NEEDED)"));
    let names = needed.filter_map(|line| line.split_once('[')?.1.split_once(']').map(|(name, _)| name));
    names.filter(|name| LIBRARIES.iter().any(|own| name.starts_with(&format!("lib{own}.so")))).collect()
}

/// Values and gradients of reference implementations, which the check compares with.
fn copy_golden(ws: &Workspace, to: &Path) -> Result<()> {
    let from = ws.root().join(GOLDEN);
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(&from).with_context(|| format!("could not list {}", from.display()))? {
        let path = entry?.path();
        if let (Some(name), true) =
            (path.file_name(), path.extension().is_some_and(|e| e == "npy" || e == "json"))
        {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}

/// CUDA's libraries that Candle asks the linker for.
const LIBRARIES: &[&str] = &["cuda", "cudart", "cublas", "cublasLt", "curand", "cudnn", "nvrtc"];

/// Empty libraries of these names: the program defines the functions that it calls (`lazy` of infomax-cuda) and loads the
/// real libraries at their first use. So nothing of CUDA is needed to link, and a function that is missing there fails
/// the link instead of tying the program to its library.
fn empty_libraries(ws: &Workspace, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let source = folder.join("empty.c");
    fs::write(&source, "")?;
    let cc = std::env::var_os("CC").unwrap_or_else(|| OsString::from("cc"));
    for name in LIBRARIES {
        let library = folder.join(format!("lib{name}.so"));
        if !library.exists() {
            let args = ["-shared", "-o", &library.to_string_lossy(), &source.to_string_lossy()];
            Runner::new(ws).program(&cc, &cc.to_string_lossy(), &args)?;
        }
    }
    Ok(())
}

fn build(ws: &Workspace, options: &Options, nvcc: &OsString, capability: &str, target: &Path) -> Result<()> {
    let empty = target.join("empty-libraries");
    empty_libraries(ws, &empty)?;
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    let flags = format!("{flags} -L native={}", empty.display());
    let runner = Runner::new(ws)
        .env("NVCC", &nvcc.to_string_lossy())
        // Otherwise the `nvcc` of the path is asked.
        .env("CUDARC_CUDA_VERSION", "13000")
        .env("CUDA_COMPUTE_CAP", capability)
        .env("NVCC_APPEND_FLAGS", "--compress-mode=size")
        .env("RUSTFLAGS", flags.trim())
        .env("CARGO_TARGET_DIR", &target.to_string_lossy());
    let mut args = vec!["build", "--release", "--package", "infomax-benches", "--package", "infomax-cli"];
    args.extend(["--features", "infomax-benches/cudnn,infomax-cli/cudnn"]);
    args.extend(["--example", "device_check", "--bin", "infomax"]);
    let patch = match &options.candle_kernels {
        Some(folder) if folder.join("Cargo.toml").is_file() => {
            Some(format!("patch.crates-io.candle-kernels.path={:?}", folder.display().to_string()))
        }
        Some(folder) => bail!("--candle-kernels {}: there is no Cargo.toml in it", folder.display()),
        None => None,
    };
    patch.iter().for_each(|patch| args.extend(["--config", patch]));
    // A patch changes the lock file, for this command only.
    let lock = ws.root().join("Cargo.lock");
    let before = fs::read(&lock).context("could not read Cargo.lock")?;
    let shown = args.join(" ");
    println!("building for {capability} ({}): minutes", cargo().to_string_lossy());
    let built = runner.cargo(&args);
    fs::write(&lock, before).context("could not restore Cargo.lock")?;
    built.with_context(|| {
        format!(
            "`cargo {shown}`: where the linker misses a function of CUDA, name it in crates/infomax-cuda/src/lazy/names.rs"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_of_a_compiler_is_read() {
        let said = "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 13.0, V13.0.88\n";
        assert_eq!(version(said), Some((13, 0)));
        assert_eq!(version("release 12.4, V12.4.1"), Some((12, 4)));
        assert_eq!(version("gcc 12"), None);
    }

    #[test]
    fn libraries_that_a_program_is_bound_to_are_found() {
        let said = " 0x1 (NEEDED)  Shared library: [libcuda.so.1]\n 0x1 (NEEDED)  Shared library: [libc.so.6]\n \
                    0x1 (NEEDED)  Shared library: [libcublasLt.so.13]\n 0xe (SONAME)  Library soname: [libcudnn.so.9]\n";
        assert_eq!(bound_libraries(said), ["libcuda.so.1", "libcublasLt.so.13"]);
    }

    #[test]
    fn a_missing_compiler_is_named_with_what_to_install() {
        let ws = Workspace::find().unwrap();
        let error = format!("{:#}", toolchain(&ws, &OsString::from("no-such-nvcc")).unwrap_err());
        assert!(error.contains("no-such-nvcc") && error.contains("CUDA 13.0"), "{error}");
        assert!(FILES.iter().all(|file| ws.root().join(file).is_file()));
        assert!(ws.root().join(GOLDEN).join("losses.json").is_file());
    }
}
