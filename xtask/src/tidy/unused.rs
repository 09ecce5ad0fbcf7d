//! Dependencies that a manifest lists and no source names.

use serde_json::Value;

use super::Finding;
use super::graph::dependencies;
use super::lexer::{code_only, words};
use crate::workspace::packages;

/// A Rust file, or a README whose examples the documentation runs: its path relative to the root, and its text.
pub(super) type Source = (String, String);

/// What each package lists and does not use. A dependency of the library has to be named under `src/`, one of the
/// tests anywhere in the package, one of the build script in `build.rs`.
///
/// `root` is the folder of the workspace as the manifests' paths begin with it. Words in comments and strings do
/// not count, except that a dependency of the tests may be named by an example in the documentation.
pub(super) fn unused(metadata: &Value, root: &str, sources: &[Source]) -> Vec<Finding> {
    let mut findings = vec![];
    for package in packages(metadata) {
        let Some(name) = package["name"].as_str() else { continue };
        let Some(folder) = folder(package, root) else { continue };
        let files: Vec<(&str, String, &str)> = sources
            .iter()
            .filter_map(|(path, text)| Some((path.strip_prefix(&folder)?, code_only(text), text.as_str())))
            .collect();
        for (dependency, kind) in dependencies(package) {
            // A few libraries drop the hyphen of their package: `md-5` is `md5`.
            let names = [dependency.replace('-', "_"), dependency.replace('-', "")];
            let is_named = |code: &str| names.iter().any(|name| words(code, name).next().is_some());
            let named = files.iter().any(|(path, code, text)| match kind {
                "build" => *path == "build.rs" && is_named(code),
                "dev" if path.ends_with(".md") => text.lines().any(is_named),
                "dev" => is_named(code) || comments(text).any(is_named),
                _ => path.starts_with("src/") && is_named(code),
            });
            if !named {
                findings.push(Finding::new(
                    name,
                    0,
                    format!("lists {dependency} ({kind}) and does not name it"),
                ));
            }
        }
    }
    findings
}

fn comments(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| line.trim_start().starts_with("//"))
}

/// The folder of a package relative to the root, with a slash behind it.
fn folder(package: &Value, root: &str) -> Option<String> {
    let manifest = package["manifest_path"].as_str()?.replace('\\', "/");
    let inside = manifest.strip_prefix(&root.replace('\\', "/"))?.trim_start_matches('/');
    Some(inside.strip_suffix("Cargo.toml")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata(kind: Option<&str>) -> Value {
        let list = json!([{ "name": "serde-json", "kind": kind }]);
        let manifest = "/w/crates/a/Cargo.toml";
        json!({ "packages": [{ "name": "a", "manifest_path": manifest, "dependencies": list }] })
    }

    fn found(kind: Option<&str>, path: &str, text: &str) -> usize {
        unused(&metadata(kind), "/w", &[(path.to_owned(), text.to_owned())]).len()
    }

    #[test]
    fn what_is_named_passes() {
        assert_eq!(found(None, "crates/a/src/lib.rs", "use serde_json::Value;"), 0);
        assert_eq!(found(Some("dev"), "crates/a/tests/it.rs", "use serde_json::Value;"), 0);
        assert_eq!(found(Some("build"), "crates/a/build.rs", "fn main() { serde_json::f() }"), 0);
        assert_eq!(found(Some("dev"), "crates/a/src/lib.rs", "//! use serde_json::Value;\n"), 0);
        assert_eq!(found(Some("dev"), "crates/a/README.md", "use serde_json::Value;\n"), 0);
    }

    #[test]
    fn finds_what_nothing_names() {
        assert_eq!(found(None, "crates/a/src/lib.rs", "fn f() {}"), 1);
        assert_eq!(found(None, "crates/a/src/lib.rs", "// serde_json\nfn f() { \"serde_json\" }"), 1);
        assert_eq!(found(None, "crates/a/src/lib.rs", "use my_serde_json::Value;"), 1);
    }

    #[test]
    fn a_library_needs_it_in_its_sources_and_in_its_own() {
        assert_eq!(found(None, "crates/a/tests/it.rs", "use serde_json::Value;"), 1);
        assert_eq!(found(None, "crates/ab/src/lib.rs", "use serde_json::Value;"), 1);
        assert_eq!(found(Some("build"), "crates/a/src/lib.rs", "use serde_json::Value;"), 1);
    }
}
