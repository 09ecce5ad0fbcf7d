//! The matrix: every cell that `cargo xtask ci` runs, as data.
//!
//! All cells use the dev profile, the same `RUSTFLAGS` (none) and, except where a crate is taken
//! alone, the same feature selection (`--workspace`): nothing is compiled twice for want of care.

/// When a cell runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// In every `cargo xtask ci`.
    Quick,
    /// Only with `--full`.
    Full,
}

/// One command of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// `cargo ARGS`.
    Cargo(Vec<String>),
    /// `cargo ARGS` with an environment variable.
    CargoEnv(&'static str, &'static str, Vec<String>),
    /// `cargo ARGS` that runs test programs, whose times are kept.
    Tests(Vec<String>),
    /// The checks of `cargo xtask tidy`, inside this process.
    Tidy,
    /// A program that an earlier step built, from the dev profile's folder, in an empty folder.
    Built(&'static str, Vec<String>),
    /// Types behind the features of CUDA, with a stand-in for its compiler: `devices`, inside this process.
    Cuda,
    /// Types behind the feature of Metal: `devices`, inside this process.
    Metal,
    /// Logs of a run in TensorBoard and MLflow: `logs`, inside this process.
    Logs,
    /// The unsafe code under the tools of `memory`, inside this process.
    Memory,
    /// The examples of the READMEs outside of the workspace: `readmes`, inside this process.
    Readmes,
    /// Exports of the built program in PyTorch: `weights`, inside this process.
    Weights,
    /// The engine between processes under mpirun: `mpi`, inside this process.
    Mpi,
    /// The packages as the registry would take them: `package`, inside this process.
    Package,
}

/// One cell: a name to ask for, what it shows, and how.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) stage: Stage,
    pub(crate) steps: Vec<Step>,
}

/// The arguments of the documentation build; `RUSTDOCFLAGS=-D warnings` goes with it.
///
/// Libraries only: the binary `infomax` and the facade `infomax` would write the same files.
pub(crate) const DOC: &[&str] = &["doc", "--workspace", "--no-deps", "--lib"];

/// Examples and binaries in one go, against the libraries that the tests compiled: binaries alone would
/// leave out the features that dev-dependencies switch on, and compile half of the tree again.
const BUILD: &[&str] = &["build", "--workspace", "--examples", "--bins"];

/// The matrix for these crates, in the order in which it runs: cheap and telling first.
pub(crate) fn cells(crates: &[String]) -> Vec<Cell> {
    let mut cells = vec![
        quick("fmt", "the source is formatted", vec![cargo(&["fmt", "--all", "--check"])]),
        quick("tidy", "edges, features, headers, links: see `cargo xtask tidy`", vec![Step::Tidy]),
        quick(
            "clippy",
            "no lint fires, in any target",
            vec![cargo(&["clippy", "--workspace", "--all-targets", "--keep-going", "--", "-D", "warnings"])],
        ),
        quick(
            "doc",
            "the documentation builds without a warning",
            vec![Step::CargoEnv("RUSTDOCFLAGS", "-D warnings", owned(DOC))],
        ),
    ];
    cells.extend(crates.iter().map(|name| alone(name)));
    cells.extend([
        quick(
            "test",
            "unit and integration tests of every crate",
            vec![Step::Tests(owned(&[
                "test",
                "--workspace",
                "--lib",
                "--bins",
                "--tests",
                "--no-fail-fast",
            ]))],
        ),
        quick(
            "doctest",
            "the examples in the documentation run",
            vec![Step::Tests(owned(&["test", "--workspace", "--doc"]))],
        ),
        quick("examples", "the examples and the command compile", vec![cargo(BUILD)]),
        quick(
            "bench",
            "every benchmark runs once (criterion's test mode, dev profile)",
            vec![cargo(&["test", "--workspace", "--bench", "main"])],
        ),
        quick(
            "cli",
            "the built command answers, away from the source tree",
            vec![
                cargo(BUILD),
                Step::Built("infomax", owned(&["--version"])),
                Step::Built("infomax", owned(&["pretrain", "--help"])),
                Step::Built("infomax", owned(&["config", "show"])),
            ],
        ),
    ]);
    // Another selection of features, which compiles everything again.
    cells.push(Cell {
        name: "mpi".to_owned(),
        what: "ranks under mpirun, where it and mpicc are there: bits, faults, a run beside one process"
            .to_owned(),
        stage: Stage::Full,
        steps: vec![Step::Mpi],
    });
    cells.extend(crates.iter().map(|name| alone_full(name)));
    cells.push(Cell {
        name: "fuzz".to_owned(),
        what: "parsers of data sets on many more mutated files than `test` tries".to_owned(),
        stage: Stage::Full,
        steps: vec![Step::CargoEnv(
            "INFOMAX_FUZZ_ITERATIONS",
            "5000",
            owned(&["test", "--workspace", "--test", "fuzz"]),
        )],
    });
    cells.push(Cell {
        name: "own-term".to_owned(),
        what: "a user's crate outside of the workspace: the losses alone, a term and a model of its own"
            .to_owned(),
        stage: Stage::Full,
        steps: vec![cargo(&[
            "run",
            "--manifest-path",
            "examples/own-term/Cargo.toml",
            "--target-dir",
            "target/own-term",
        ])],
    });
    cells.push(Cell {
        name: "readmes".to_owned(),
        what: "the examples of each README build and run in a project outside of the workspace".to_owned(),
        stage: Stage::Full,
        steps: vec![Step::Readmes],
    });
    cells.push(Cell {
        name: "package".to_owned(),
        what: "every crate can be packaged, with its README and its licences".to_owned(),
        stage: Stage::Full,
        steps: vec![Step::Package],
    });
    cells.push(Cell {
        name: "logs".to_owned(),
        what: "TensorBoard and MLflow read what a run writes for them, where they are there".to_owned(),
        stage: Stage::Full,
        steps: vec![cargo(BUILD), Step::Logs],
    });
    cells.push(Cell {
        name: "weights".to_owned(),
        what:
            "exports of each kind of encoder load in PyTorch (strict) and onnxruntime, where they are there"
                .to_owned(),
        stage: Stage::Full,
        steps: vec![cargo(BUILD), Step::Weights],
    });
    cells.push(Cell {
        name: "cuda-check".to_owned(),
        what: "everything behind `cuda` and `cudnn` type-checks, without the toolkit".to_owned(),
        stage: Stage::Full,
        steps: vec![Step::Cuda],
    });
    cells.push(Cell {
        name: "metal-check".to_owned(),
        what: "everything behind `metal` type-checks, where the sources of Apple's bindings are there"
            .to_owned(),
        stage: Stage::Full,
        steps: vec![Step::Metal],
    });
    cells.push(Cell {
        name: "memory".to_owned(),
        what: "the unsafe code under Miri, AddressSanitizer and valgrind, whichever is there".to_owned(),
        stage: Stage::Full,
        steps: vec![Step::Memory],
    });
    cells
}

/// A crate by itself: what a user who picks only this one gets, with no feature that another
/// member of the workspace happens to switch on.
fn alone(name: &str) -> Cell {
    // The first command sees neither dev-dependencies nor their features; the second sees the tests.
    let lib = cargo(&["check", "--package", name, "--no-default-features"]);
    let tests = cargo(&["check", "--package", name, "--no-default-features", "--tests"]);
    quick(&format!("alone-{name}"), "checks by itself without default features", vec![lib, tests])
}

/// The same, built, tested and documented.
fn alone_full(name: &str) -> Cell {
    let with = |command: &str| cargo(&[command, "--package", name, "--no-default-features"]);
    let doc = Step::CargoEnv(
        "RUSTDOCFLAGS",
        "-D warnings",
        owned(&["doc", "--package", name, "--no-default-features", "--no-deps"]),
    );
    Cell {
        name: format!("full-{name}"),
        what: "builds, tests and documents by itself".to_owned(),
        stage: Stage::Full,
        steps: vec![with("build"), with("test"), doc],
    }
}

fn quick(name: &str, what: &str, steps: Vec<Step>) -> Cell {
    Cell { name: name.to_owned(), what: what.to_owned(), stage: Stage::Quick, steps }
}

fn cargo(args: &[&str]) -> Step {
    Step::Cargo(owned(args))
}

fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(|&a| a.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn some_crates() -> Vec<String> {
        vec!["infomax-core".to_owned(), "infomax-cli".to_owned()]
    }

    #[test]
    fn names_are_unique() {
        let cells = cells(&some_crates());
        let names: BTreeSet<_> = cells.iter().map(|c| &c.name).collect();
        assert_eq!(names.len(), cells.len());
    }

    #[test]
    fn every_crate_is_taken_alone() {
        let cells = cells(&some_crates());
        for name in some_crates() {
            assert!(cells.iter().any(|c| c.name == format!("alone-{name}") && c.stage == Stage::Quick));
            assert!(cells.iter().any(|c| c.name == format!("full-{name}") && c.stage == Stage::Full));
        }
    }

    /// A second profile would compile every dependency a second time.
    #[test]
    fn no_cell_leaves_the_dev_profile() {
        for cell in cells(&some_crates()) {
            for step in &cell.steps {
                if let Step::Cargo(args) | Step::Tests(args) | Step::CargoEnv(_, _, args) = step {
                    assert!(
                        !args.iter().any(|a| a == "--release" || a == "--profile" || a == "bench"),
                        "{}",
                        cell.name
                    );
                }
            }
        }
    }
}
