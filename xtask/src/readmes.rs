//! The examples of the READMEs in projects outside of the workspace, as a reader would make them.
//!
//! Every README gives one package: its `[dependencies]` block as it stands, each of its Rust blocks a program. All of
//! them form one workspace below the target folder, so that dependencies are built once; `[patch.crates-io]` stands
//! for the registry, and the lock file starts from ours.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::Runner;
use crate::tidy;
use crate::workspace::{Workspace, packages};

/// Crates whose README can have no example that runs everywhere: infomax-cuda needs `nvcc`.
const NO_EXAMPLE: &[&str] = &["infomax-cuda"];

/// What every README gives to copy.
const PROFILE: &str = "[profile.dev.package.\"*\"]\nopt-level = 3\n";

/// A README with what a reader would copy from it.
#[derive(Debug, PartialEq, Eq)]
struct Readme {
    /// The blocks that begin with `[dependencies]`.
    dependencies: Vec<String>,
    /// The programs, and whether they are run (`no_run` ones are only compiled).
    programs: Vec<(String, bool)>,
    /// Whether the profile is there.
    profile: bool,
}

/// Builds all examples and runs them.
pub(crate) fn run(ws: &Workspace) -> Result<()> {
    let metadata = ws.metadata()?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    let place = Path::new(target).join("readmes");
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("could not remove {}", place.display()))?;
    }
    let libraries = libraries(&metadata);
    let mut sources = vec![("root".to_owned(), ws.root().join("README.md"))];
    sources.extend(libraries.iter().map(|(name, folder)| (name.clone(), folder.join("README.md"))));
    let (mut members, mut programs) = (Vec::new(), Vec::new());
    for (name, path) in sources {
        let text = fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
        let readme = parse(&text);
        if let Some(fault) = faults(&name, &readme).first() {
            bail!("{}: {fault}", ws.relative(&path));
        }
        if readme.programs.is_empty() {
            println!("{name}: no example");
            continue;
        }
        write_package(&place, &name, &readme, &mut programs)?;
        members.push(name);
    }
    write(&place.join("Cargo.toml"), &manifest(&members, &libraries))?;
    fs::copy(ws.root().join("Cargo.lock"), place.join("Cargo.lock")).context("could not copy Cargo.lock")?;

    let outside = Workspace::at(place.clone());
    let cargo = |args: &[&str]| Runner::new(&outside).cargo(&[args, &["--target-dir", target]].concat());
    cargo(&["build", "--workspace", "--bins"])?;
    let lock = fs::read_to_string(place.join("Cargo.lock")).context("could not read the new Cargo.lock")?;
    if let Some(finding) = tidy::one_version(&lock, "candle-core").first() {
        bail!("in a project outside of the workspace: {finding}");
    }
    for (program, runs) in &programs {
        if *runs {
            let path =
                Path::new(target).join("debug").join(format!("{program}{}", std::env::consts::EXE_SUFFIX));
            Runner::new(&outside).program(path.as_os_str(), program, &[])?;
        }
    }
    println!("{} programs of {} READMEs", programs.len(), members.len());
    Ok(())
}

/// What a README lacks that each of a library must have.
pub(crate) fn check(name: &str, text: &str) -> Vec<String> {
    let mut faults = faults(name, &parse(text));
    if text.contains("](../") {
        faults.push("a link leaves the crate: it leads nowhere in its package".to_owned());
    }
    faults
}

/// The published libraries with their folders.
pub(crate) fn libraries(metadata: &Value) -> Vec<(String, PathBuf)> {
    published(metadata)
        .filter(|package| {
            let targets = package["targets"].as_array().into_iter().flatten();
            targets.flat_map(|t| t["kind"].as_array().into_iter().flatten()).any(|kind| kind == "lib")
        })
        .filter_map(|p| Some((p["name"].as_str()?.to_owned(), folder(p)?)))
        .collect()
}

/// The packages that may be published: those without `publish = false`.
pub(crate) fn published(metadata: &Value) -> impl Iterator<Item = &Value> {
    packages(metadata).filter(|p| p["publish"].is_null())
}

/// The folder of a package.
pub(crate) fn folder(package: &Value) -> Option<PathBuf> {
    Some(Path::new(package["manifest_path"].as_str()?).parent()?.to_path_buf())
}

fn faults(name: &str, readme: &Readme) -> Vec<String> {
    let mut faults = Vec::new();
    match readme.dependencies.as_slice() {
        [block] => {
            let names = |line: &str| line.split('=').next().is_some_and(|key| key.trim() == name);
            if name != "root" && !block.lines().any(names) {
                faults.push(format!("its `[dependencies]` block does not name {name}"));
            }
        }
        blocks => faults.push(format!("{} `[dependencies]` blocks; there must be one", blocks.len())),
    }
    if !readme.profile {
        faults.push(format!("lacks the profile to copy:\n{PROFILE}"));
    }
    if readme.programs.is_empty() && !NO_EXAMPLE.contains(&name) {
        faults.push("lacks an example".to_owned());
    }
    faults
}

fn parse(text: &str) -> Readme {
    let mut readme = Readme { dependencies: vec![], programs: vec![], profile: false };
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
        let body: String = block.iter().flat_map(|line| [line, "\n"]).collect();
        let mut words = info.split(',').map(str::trim);
        match words.next() {
            Some("toml") if body.starts_with("[dependencies]\n") => readme.dependencies.push(body),
            Some("toml") => readme.profile |= body.contains(PROFILE),
            Some("rust") => readme.programs.push((program(&block), !words.any(|word| word == "no_run"))),
            _ => {}
        }
    }
    readme
}

/// A Rust block as a program, by the rules of rustdoc: `# ` hides a line, and what has no `main` is the body of one.
fn program(block: &[&str]) -> String {
    let lines: Vec<&str> = block
        .iter()
        .map(|line| match line.trim_start() {
            "#" => "",
            hidden => hidden.strip_prefix("# ").unwrap_or(line),
        })
        .collect();
    let code = lines.join("\n");
    let header = "//! Written by `cargo xtask ci --only readmes`.\n";
    if code.contains("fn main(") {
        return format!("{header}{code}\n");
    }
    if lines.last().is_some_and(|line| line.trim_start().starts_with("Ok::<")) {
        let signature = "fn body() -> std::result::Result<(), impl std::fmt::Debug>";
        return format!("{header}fn main() {{\n{signature} {{\n{code}\n}}\nbody().unwrap();\n}}\n");
    }
    format!("{header}fn main() {{\n{code}\n}}\n")
}

fn write_package(
    place: &Path,
    name: &str,
    readme: &Readme,
    programs: &mut Vec<(String, bool)>,
) -> Result<()> {
    let folder = place.join(name);
    let head = format!(
        "[package]\nname = \"readme-{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\npublish = false\n\n"
    );
    write(&folder.join("Cargo.toml"), &(head + &readme.dependencies.concat()))?;
    for (i, (code, runs)) in readme.programs.iter().enumerate() {
        let program = format!("readme-{name}-{}", i + 1);
        write(&folder.join("src").join("bin").join(format!("{program}.rs")), code)?;
        programs.push((program, *runs));
    }
    Ok(())
}

/// The workspace of these packages. `debug = false` as in ours, so that what both need is built once.
fn manifest(taken: &[String], libraries: &[(String, PathBuf)]) -> String {
    let members: Vec<String> = taken.iter().map(|name| format!("{name:?}")).collect();
    let mut text = format!("[workspace]\nresolver = \"3\"\nmembers = [{}]\n\n", members.join(", "));
    text += &format!("{PROFILE}debug = false\n\n[patch.crates-io]\n");
    // Cargo warns of a patch that nothing asks for.
    for (name, folder) in libraries.iter().filter(|(name, _)| taken.contains(name)) {
        text += &format!("{name} = {{ path = {:?} }}\n", folder.to_string_lossy());
    }
    text
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("could not create {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("could not write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# x\n\n```toml\n[dependencies]\ninfomax-x = \"0.1\"\n```\n\n```toml\n[profile.dev.package.\"*\"]\nopt-level = 3\n```\n\n```rust,no_run\n# use a;\nfn main() {}\n```\n\n```sh\nls\n```\n";

    #[test]
    fn finds_what_a_reader_copies() {
        let readme = parse(TEXT);
        assert_eq!(readme.dependencies, ["[dependencies]\ninfomax-x = \"0.1\"\n"]);
        assert_eq!(readme.programs.len(), 1);
        assert!(!readme.programs[0].1 && readme.programs[0].0.ends_with("\nuse a;\nfn main() {}\n"));
        assert_eq!(check("infomax-x", TEXT), Vec::<String>::new());
    }

    #[test]
    fn finds_what_is_missing() {
        assert_eq!(check("infomax-y", TEXT).len(), 1, "the block names another crate");
        assert_eq!(check("infomax-x", &TEXT.replace("opt-level = 3", "opt-level = 0")).len(), 1);
        assert_eq!(check("infomax-x", &TEXT.replace("rust", "text")).len(), 1);
        assert_eq!(check("infomax-x", &format!("{TEXT}[a](../../docs/a.md)")).len(), 1);
        assert_eq!(check("infomax-x", "").len(), 3);
        assert_eq!(check("infomax-cuda", "").len(), 2);
    }

    #[test]
    fn a_block_without_main_becomes_one() {
        assert!(program(&["let x = 1;"]).contains("fn main() {\nlet x = 1;\n}"));
        let fallible = program(&["f()?;", "# Ok::<(), E>(())"]);
        assert!(fallible.contains("f()?;\nOk::<(), E>(())\n}\nbody().unwrap();"));
        assert!(program(&["#[derive(Debug)]", "struct S;"]).contains("#[derive(Debug)]"));
    }

    #[test]
    fn the_project_takes_our_crates_in_place_of_the_registry() {
        let library = |name: &str| (name.to_owned(), PathBuf::from("here"));
        let libraries = [library("infomax-x"), library("infomax-y")];
        let text = manifest(&["infomax-x".to_owned()], &libraries);
        assert!(text.contains("members = [\"infomax-x\"]"));
        assert!(text.ends_with("[patch.crates-io]\ninfomax-x = { path = \"here\" }\n"));
    }
}
