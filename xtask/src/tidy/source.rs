//! Checks of single Rust files.

use super::Finding;
use super::lexer::{code_only, line_of, words};

/// Crates whose job is to speak to a person; every other crate is a library and stays silent.
const MAY_PRINT: &[&str] = &["crates/infomax-cli/", "xtask/", "benches/"];

/// The only crates that may hold `unsafe` code: the vectors, the kernels of host and device, the calls of MPI and NCCL.
const MAY_BE_UNSAFE: &[&str] = &[
    "crates/infomax-cuda/",
    "crates/infomax-kernels/",
    "crates/infomax-ranks/src/mpi.rs",
    "crates/infomax-ranks/src/nccl.rs",
    "crates/infomax-simd/",
];

/// All checks of one file.
pub(super) fn check(name: &str, source: &str) -> Vec<Finding> {
    let code = code_only(source);
    let mut findings = header(name, source);
    findings.extend(unsafe_code(name, &code));
    findings.extend(printing(name, &code));
    findings.extend(unfinished(name, &code));
    findings
}

/// Every file says in its first line what it is for.
fn header(name: &str, source: &str) -> Vec<Finding> {
    let says =
        source.lines().next().and_then(|l| l.strip_prefix("//!")).is_some_and(|l| !l.trim().is_empty());
    if says {
        vec![]
    } else {
        vec![Finding::new(name, 1, "the first line must be `//! what this file is for`")]
    }
}

fn unsafe_code(name: &str, code: &str) -> Vec<Finding> {
    if MAY_BE_UNSAFE.iter().any(|p| name.starts_with(p)) {
        return vec![];
    }
    let message = "`unsafe` belongs in infomax-simd, infomax-kernels, infomax-cuda and infomax-ranks/src/{mpi,nccl}.rs only";
    words(code, "unsafe").map(|at| Finding::new(name, line_of(code, at), message)).collect()
}

/// No library writes to the terminal. Tests may: what follows `#[cfg(test)]` and the folders
/// `tests/` and `examples/` are left out.
fn printing(name: &str, code: &str) -> Vec<Finding> {
    let library = name.starts_with("crates/") && name.contains("/src/");
    if !library || MAY_PRINT.iter().any(|p| name.starts_with(p)) || name.ends_with("/tests.rs") {
        return vec![];
    }
    let shipped = code.find("#[cfg(test)]").map_or(code, |at| &code[..at]);
    let found = ["println!", "print!", "eprintln!", "eprint!"].into_iter().flat_map(|word| {
        words(shipped, word).map(move |at| {
            let message = format!("`{word}` in a library: return the value, or report it to an observer");
            Finding::new(name, line_of(shipped, at), message)
        })
    });
    found.collect()
}

/// Nothing is left half done or switched off.
fn unfinished(name: &str, code: &str) -> Vec<Finding> {
    let banned = [
        ("todo!", "finish it or leave it out"),
        ("unimplemented!", "return a typed error"),
        ("dbg!", "remove it"),
        ("#[ignore", "assert what the code does today, or delete the test"),
    ];
    let found = banned.into_iter().flat_map(|(word, advice)| {
        words(code, word).map(move |at| Finding::new(name, line_of(code, at), format!("`{word}`: {advice}")))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: &str = "crates/infomax-losses/src/x.rs";

    fn found(name: &str, source: &str) -> Vec<(usize, String)> {
        check(name, source).into_iter().map(|f| (f.line, f.message)).collect()
    }

    #[test]
    fn a_clean_file_has_no_finding() {
        let source = "//! Losses.\n// unsafe, todo!(), dbg!() and println!() in words\nfn f() -> &'static str { \"unsafe\" }\n";
        assert_eq!(found(LIB, source), []);
    }

    #[test]
    fn finds_a_missing_or_empty_header() {
        assert_eq!(found(LIB, "fn f() {}\n")[0].0, 1);
        assert_eq!(found(LIB, "//!\nfn f() {}\n").len(), 1);
        assert_eq!(found(LIB, "").len(), 1);
    }

    #[test]
    fn finds_unsafe_outside_the_kernels() {
        let source = "//! X.\n\nfn f() { unsafe { g() } }\n";
        assert_eq!(
            found(LIB, source),
            [(3, "`unsafe` belongs in infomax-simd, infomax-kernels, infomax-cuda and infomax-ranks/src/{mpi,nccl}.rs only".to_owned())]
        );
        assert_eq!(found("crates/infomax-kernels/src/x.rs", source), []);
        assert_eq!(found("crates/infomax-simd/src/x.rs", source), []);
    }

    #[test]
    fn finds_printing_in_libraries_only() {
        for word in ["println!", "print!", "eprintln!", "eprint!"] {
            let source = format!("//! X.\nfn f() {{ {word}(\"x\") }}\n");
            assert_eq!(found(LIB, &source).len(), 1, "{word}");
            assert_eq!(found("crates/infomax-cli/src/main.rs", &source), [], "{word}");
            assert_eq!(found("crates/infomax-losses/tests/it.rs", &source), [], "{word}");
        }
        let in_test = "//! X.\n#[cfg(test)]\nmod tests { fn f() { println!(\"x\") } }\n";
        assert_eq!(found(LIB, in_test), []);
    }

    #[test]
    fn finds_what_is_unfinished() {
        for line in ["todo!()", "unimplemented!()", "dbg!(x);", "#[ignore]", "#[ignore = \"slow\"]"] {
            let findings = found("crates/infomax-cli/tests/it.rs", &format!("//! X.\n{line}\n"));
            assert_eq!(findings.len(), 1, "{line}");
            assert_eq!(findings[0].0, 2);
        }
    }
}
