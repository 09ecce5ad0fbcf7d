//! Builds for CUDA and Metal, checked on machines that have neither: types only, nothing runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::Runner;
use crate::workspace::{Workspace, cargo};

/// What is built for CUDA: the program, and the checks of its operations and of NCCL on a card.
pub(crate) const CUDA: &[&str] = &[
    "--package",
    "infomax-benches",
    "--package",
    "infomax-cli",
    "--package",
    "infomax-cuda",
    "--package",
    "infomax-ranks",
    "--features",
    "infomax-benches/cudnn,infomax-cli/cudnn,infomax-cli/nccl,infomax-cuda/cudnn,infomax-ranks/nccl",
];

/// A compiler of CUDA that compiles nothing. Build scripts ask it for its version, and want the files that it was told to
/// write; `cargo check` never reads them.
const NO_NVCC: &str = r#"#!/bin/sh
# Answers as nvcc does where build scripts look, and writes empty files: for `cargo check` only.
for word in "$@"; do
    # The release is looked for in the fourth line.
    [ "$word" = --version ] && { printf 'stand-in for nvcc\n\n\nCuda compilation tools, release 13.0, V13.0.88\n'; exit 0; }
done
folder=.
file=
assembly=no
while [ $# -gt 0 ]; do
    case $1 in
    --output-directory) folder=$2; shift ;;
    -o) file=$2; shift ;;
    --ptx) assembly=yes ;;
    *.cu) source=$(basename "$1" .cu) ;;
    esac
    shift
done
case $file in
'') [ $assembly = yes ] && : > "$folder/$source.ptx" ;;
*.a) printf '!<arch>\n' > "$file" ;;
*) : > "$file" ;;
esac
exit 0
"#;

/// Type-checks everything behind the features `cuda`, `cudnn` and `nccl`, without the toolkit.
pub(crate) fn cuda(ws: &Workspace) -> Result<()> {
    if !cfg!(unix) {
        println!("skipped: the stand-in for nvcc is a shell script");
        return Ok(());
    }
    let folder = ws.root().join("target/cuda-check");
    let tools = folder.join("tools");
    fs::create_dir_all(&tools)?;
    script(&tools.join("nvcc"), NO_NVCC)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([tools.clone()].into_iter().chain(std::env::split_paths(&path)))?;
    let runner = Runner::new(ws)
        .env("PATH", &path.to_string_lossy())
        .env("NVCC", &tools.join("nvcc").to_string_lossy())
        // Any card will do: nothing is made for it.
        .env("CUDA_COMPUTE_CAP", "80")
        .env("CARGO_TARGET_DIR", &folder.to_string_lossy());
    runner.cargo(&[&["check"], CUDA, &["--lib", "--bins", "--examples", "--tests"]].concat())
}

/// Writes a file that can be run, and leaves one of this content as it is: build scripts look at its time.
fn script(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("could not write {}", path.display()))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// The crates of the way to Metal that refuse to be compiled elsewhere.
const APPLE: &[&str] = &["objc2", "block2", "objc2-metal", "objc2-foundation", "objc2-core-foundation"];

/// Type-checks everything behind the feature `metal` for the machine at hand: a Mac checks it as it is, others check
/// copies of Apple's bindings that leave out what only a Mac has. What is behind `cfg(target_os = "macos")` is not seen.
pub(crate) fn metal(ws: &Workspace) -> Result<()> {
    let args = ["check", "--package", "infomax-cli", "--features", "metal"];
    if cfg!(target_os = "macos") {
        return Runner::new(ws).cargo(&args);
    }
    let Some(sources) = sources(ws)? else {
        println!(
            "skipped: the sources of Apple's bindings are not in cargo's registry; `cargo fetch` gets them"
        );
        return Ok(());
    };
    let folder = ws.root().join("target/metal-check");
    let mut configs = Vec::new();
    for (name, from) in sources {
        let to = folder.join("patched").join(&name);
        if to.exists() {
            fs::remove_dir_all(&to)?;
        }
        copy(&from, &to, &portable)?;
        let manifest = to.join("Cargo.toml");
        let text = fs::read_to_string(&manifest)?;
        fs::write(&manifest, elsewhere(&name, &text))?;
        configs.push(format!("patch.crates-io.{name}.path={:?}", to.display().to_string()));
    }
    let mut argv = args.to_vec();
    configs.iter().for_each(|config| argv.extend(["--config", config]));
    // Patches change the lock file, for this command only.
    let lock = ws.root().join("Cargo.lock");
    let before = fs::read(&lock).context("could not read Cargo.lock")?;
    let checked = Runner::new(ws).env("CARGO_TARGET_DIR", &folder.to_string_lossy()).cargo(&argv);
    fs::write(&lock, before).context("could not restore Cargo.lock")?;
    checked
}

/// Where cargo has the sources of these crates; `None` if it has not.
fn sources(ws: &Workspace) -> Result<Option<Vec<(String, PathBuf)>>> {
    let out = Command::new(cargo())
        .args(["metadata", "--format-version", "1", "--offline", "--features", "infomax-cli/metal"])
        .current_dir(ws.root())
        .output()
        .context("could not start `cargo metadata`")?;
    if !out.status.success() {
        return Ok(None);
    }
    let metadata: Value = serde_json::from_slice(&out.stdout)?;
    let packages = metadata["packages"].as_array().context("`cargo metadata` names no packages")?;
    let mut found = Vec::new();
    for name in APPLE {
        let of_name = packages.iter().filter(|package| package["name"] == *name);
        let folders: Vec<PathBuf> = of_name
            .filter_map(|package| Some(Path::new(package["manifest_path"].as_str()?).parent()?.to_path_buf()))
            .collect();
        match folders.as_slice() {
            [] => bail!(
                "no {name} among the dependencies of the feature `metal`: change APPLE in xtask/src/devices.rs"
            ),
            [.., last] if last.is_dir() => found.push(((*name).to_owned(), last.clone())),
            _ => return Ok(None),
        }
    }
    Ok(Some(found))
}

/// Source without links to Apple's frameworks, which rustc refuses elsewhere (E0455).
fn portable(text: &str) -> String {
    let framework = |line: &str| {
        let line = line.trim();
        line.starts_with("#[link(") && line.contains("kind = \"framework\"") && line.ends_with(")]")
    };
    text.split_inclusive('\n').filter(|line| !framework(line)).collect()
}

/// The manifest with the runtime of GNUstep switched on, without which two of them refuse other systems.
fn elsewhere(name: &str, manifest: &str) -> String {
    if !["objc2", "block2"].contains(&name) {
        return manifest.to_owned();
    }
    let mut within = false;
    let mut out = String::new();
    for line in manifest.split_inclusive('\n') {
        if line.starts_with('[') {
            within = line.trim() == "[features]";
        }
        match line.strip_prefix("std = [").or_else(|| line.strip_prefix("alloc = [")) {
            Some(rest) if within => {
                let feature = if line.starts_with("std") { "std" } else { "alloc" };
                out += &format!("{feature} = [\"gnustep-2-1\", {rest}");
            }
            _ => out += line,
        }
    }
    out
}

/// Copies a folder; Rust sources through `change`.
fn copy(from: &Path, to: &Path, change: &impl Fn(&str) -> String) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("could not list {}", from.display()))? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy(&path, &target, change)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            fs::write(&target, change(&fs::read_to_string(&path)?))?;
        } else {
            fs::write(&target, fs::read(&path)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_lose_their_frameworks_only() {
        let text =
            "#[link(name = \"Metal\", kind = \"framework\")]\nextern \"C\" {}\n#[link(name = \"m\")]\n";
        assert_eq!(portable(text), "extern \"C\" {}\n#[link(name = \"m\")]\n");
        let manifest = "[features]\nstd = [\"alloc\"]\nalloc = []\n[dependencies]\nstd = [1]\n";
        assert_eq!(
            elsewhere("objc2", manifest),
            "[features]\nstd = [\"gnustep-2-1\", \"alloc\"]\nalloc = [\"gnustep-2-1\", ]\n[dependencies]\nstd = [1]\n"
        );
        assert_eq!(elsewhere("objc2-metal", manifest), manifest);
    }

    #[cfg(unix)]
    #[test]
    fn the_stand_in_answers_and_writes_what_it_is_told() {
        let folder = std::env::temp_dir().join(format!("infomax-nvcc-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let nvcc = folder.join("nvcc");
        script(&nvcc, NO_NVCC).unwrap();
        let run = |args: &[&str]| Command::new(&nvcc).args(args).current_dir(&folder).output().unwrap();
        // As the build script of `cudarc` reads it.
        let said = run(&["--version"]).stdout;
        let release = String::from_utf8_lossy(&said).lines().nth(3).map(str::to_owned);
        assert_eq!(release.unwrap().split(", ").nth(1), Some("release 13.0"));
        run(&["-o", "one.ptx", "-ptx", "kernels/one.cu"]);
        run(&["--ptx", "--output-directory", ".", "a/two.cu"]);
        run(&["-o", "three.a", "x.o"]);
        for name in ["one.ptx", "two.ptx", "three.a"] {
            assert!(folder.join(name).is_file(), "{name}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
