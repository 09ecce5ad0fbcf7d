//! The packages as the registry would take them: what is in them, and that they can be made.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::readmes::{folder, published};
use crate::run::Runner;
use crate::workspace::{Workspace, cargo, packages};

/// Files that every package has to hold.
const FILES: &[&str] = &["Cargo.toml", "README.md", "LICENSE-MIT", "LICENSE-APACHE"];

/// The registry takes packages up to this size in bytes.
const LARGEST: u64 = 10 * 1024 * 1024;

/// Lists and makes the packages of all crates that may be published, without building them again: the cells of
/// single crates do that.
pub(crate) fn run(ws: &Workspace) -> Result<()> {
    let metadata = ws.metadata()?;
    let runner = Runner::new(ws);
    for package in published(&metadata) {
        let name = package["name"].as_str().context("a package without a name")?;
        let args = ["package", "--package", name, "--list", "--allow-dirty"];
        let listed = runner.capture(&cargo(), "cargo", &args)?;
        if let Some(file) = missing(&listed) {
            bail!("the package of {name} lacks {file}");
        }
    }
    let mut args = vec!["package", "--workspace", "--no-verify", "--allow-dirty"];
    for package in packages(&metadata).filter(|p| !p["publish"].is_null()) {
        args.extend(["--exclude", package["name"].as_str().unwrap_or_default()]);
    }
    runner.cargo(&args)?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    for package in published(&metadata) {
        let (name, version) = (&package["name"], &package["version"]);
        let file =
            format!("{}-{}.crate", name.as_str().unwrap_or_default(), version.as_str().unwrap_or_default());
        let path = Path::new(target).join("package").join(&file);
        let size = fs::metadata(&path).with_context(|| format!("no {}", path.display()))?.len();
        println!("{file:<32} {:>6} KiB", size / 1024);
        if size > LARGEST {
            bail!("{file} is larger than the registry takes ({LARGEST} bytes)");
        }
    }
    Ok(())
}

/// What the registry would refuse in the manifests, or what their package would lack.
pub(crate) fn check(metadata: &Value, exists: impl Fn(&Path) -> bool) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    for package in published(metadata) {
        let name = package["name"].as_str().unwrap_or_default().to_owned();
        let mut fault = |what: String| faults.push((name.clone(), what));
        let keywords: Vec<&str> =
            package["keywords"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if keywords.len() > 5 {
            fault(format!("{} keywords; the registry takes 5", keywords.len()));
        }
        for keyword in keywords.iter().filter(|k| k.len() > 20) {
            fault(format!("the keyword {keyword:?} is longer than 20 characters"));
        }
        for key in ["description", "license", "readme"] {
            if package[key].as_str().is_none_or(str::is_empty) {
                fault(format!("lacks the key `{key}`"));
            }
        }
        let Some(folder) = folder(package) else { continue };
        for file in FILES.iter().filter(|file| !exists(&folder.join(file))) {
            fault(format!("lacks {file}"));
        }
    }
    faults
}

fn missing(listed: &str) -> Option<&'static str> {
    FILES.iter().copied().find(|file| !listed.lines().any(|line| line.trim() == *file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(keywords: Value, readme: Value) -> usize {
        let package = json!({
            "name": "a", "description": "x", "license": "MIT", "readme": readme, "keywords": keywords,
            "publish": null, "manifest_path": "/w/crates/a/Cargo.toml",
        });
        check(&json!({ "packages": [package] }), |path| !path.ends_with("LICENSE-MIT")).len()
    }

    #[test]
    fn finds_what_the_registry_would_refuse() {
        assert_eq!(found(json!(["entropy"]), json!("README.md")), 1, "the missing licence text alone");
        assert_eq!(found(json!(["representation-learning"]), json!("README.md")), 2);
        assert_eq!(found(json!(["a", "b", "c", "d", "e", "f"]), json!(null)), 3);
    }

    #[test]
    fn unpublished_packages_are_left_alone() {
        let package = json!({ "name": "a", "publish": [], "manifest_path": "/w/a/Cargo.toml" });
        assert_eq!(check(&json!({ "packages": [package] }), |_| false).len(), 0);
    }

    #[test]
    fn a_package_holds_its_licences() {
        let all = FILES.join("\n");
        assert_eq!(missing(&all), None);
        assert_eq!(missing(&all.replace("LICENSE-MIT", "src/lib.rs")), Some("LICENSE-MIT"));
    }
}
