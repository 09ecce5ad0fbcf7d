//! Checks of the dependency graph: who may know whom, and how features travel.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Finding;
use crate::workspace::packages;

/// The edges between our crates that ARCHITECTURE.md allows; no other may exist.
///
/// A new edge is a decision about the design: change this table, ARCHITECTURE.md and the
/// manifest together, or none of them.
const ALLOWED: &[(&str, &[&str])] = &[
    ("infomax-core", &[]),
    ("infomax-simd", &[]),
    ("infomax-report", &[]),
    ("infomax-testing", &[]),
    // Settings and, by features, operations on CUDA: it stands below the kernels.
    ("infomax-cuda", &[]),
    ("infomax-kernels", &["infomax-cuda", "infomax-simd"]),
    ("infomax-augment", &["infomax-simd"]),
    ("infomax-losses", &["infomax-core", "infomax-kernels"]),
    ("infomax-data", &["infomax-core", "infomax-augment", "infomax-simd"]),
    ("infomax-models", &["infomax-core", "infomax-kernels"]),
    ("infomax-optim", &["infomax-core", "infomax-kernels"]),
    // The second in its check of NCCL only: it defines the functions of CUDA's libraries.
    ("infomax-ranks", &["infomax-core", "infomax-cuda"]),
    ("infomax-eval", &["infomax-core", "infomax-kernels"]),
    ("infomax-train", &["infomax-core", "infomax-kernels", "infomax-optim"]),
    (
        "infomax-run",
        &[
            "infomax-augment",
            "infomax-core",
            "infomax-data",
            "infomax-eval",
            "infomax-kernels",
            "infomax-losses",
            "infomax-models",
            "infomax-optim",
            "infomax-report",
            "infomax-train",
        ],
    ),
    // Whole runs and what is measured of them: all that a run may use, and runs.
    (
        "infomax-paper",
        &[
            "infomax-augment",
            "infomax-core",
            "infomax-data",
            "infomax-eval",
            "infomax-kernels",
            "infomax-losses",
            "infomax-models",
            "infomax-report",
            "infomax-run",
            "infomax-train",
        ],
    ),
    ("infomax", LIBRARIES),
    ("infomax-cli", LIBRARIES),
    ("infomax-benches", LIBRARIES),
    ("xtask", &[]),
];

/// What the facade and the command may use: everything that is published.
const LIBRARIES: &[&str] = &[
    "infomax",
    "infomax-augment",
    "infomax-core",
    "infomax-cuda",
    "infomax-data",
    "infomax-eval",
    "infomax-kernels",
    "infomax-losses",
    "infomax-models",
    "infomax-optim",
    "infomax-paper",
    "infomax-ranks",
    "infomax-report",
    "infomax-run",
    "infomax-simd",
    "infomax-train",
];

/// The one crate of ours that any crate may use in its tests.
const TESTING: &str = "infomax-testing";

/// Features that switch on a backend of Candle: forwarded by name, nothing else.
const BACKENDS: &[&str] = &["cuda", "cudnn", "metal"];

/// Crates that are never built for another backend, and the one that is a backend: its features are its own.
const EXEMPT: &[&str] = &["infomax-testing", "infomax-benches", "infomax-cuda", "xtask"];

/// Dependencies between our crates that the table does not allow.
pub(super) fn edges(metadata: &Value) -> Vec<Finding> {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let members: BTreeSet<_> = packages(metadata).filter_map(|p| p["name"].as_str()).collect();
    let mut findings = vec![];
    for package in packages(metadata) {
        let Some(name) = package["name"].as_str() else { continue };
        let Some(may) = allowed.get(name) else {
            findings.push(Finding::new(
                name,
                0,
                "not in the table of allowed edges (xtask/src/tidy/graph.rs)",
            ));
            continue;
        };
        for (to, kind) in dependencies(package) {
            let test_only = kind == "dev" && (to == TESTING || to == name);
            if members.contains(to) && !test_only && !may.contains(&to) {
                findings.push(Finding::new(name, 0, format!("may not depend on {to} ({kind})")));
            }
        }
    }
    findings
}

/// Backend features that are missing, or that do anything but forward to the same feature of
/// each dependency that has it.
pub(super) fn features(metadata: &Value) -> Vec<Finding> {
    let with_feature = |feature: &str| -> BTreeSet<&str> {
        packages(metadata)
            .filter(|p| p["features"].get(feature).is_some())
            .filter_map(|p| p["name"].as_str())
            .collect()
    };
    let mut findings = vec![];
    for package in packages(metadata) {
        let Some(name) = package["name"].as_str() else { continue };
        let deps: Vec<&str> =
            dependencies(package).filter(|(_, kind)| *kind == "normal").map(|(to, _)| to).collect();
        if EXEMPT.contains(&name) || !deps.iter().any(|d| is_candle(d)) {
            continue;
        }
        for &feature in BACKENDS {
            let ours = with_feature(feature);
            let Some(list) = package["features"].get(feature).and_then(Value::as_array) else {
                findings.push(Finding::new(
                    name,
                    0,
                    format!("depends on Candle and lacks the feature `{feature}`"),
                ));
                continue;
            };
            let has: BTreeSet<String> = list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
            let forward = |dep: &&str| format!("{dep}/{feature}");
            let mut must: BTreeSet<String> = deps.iter().filter(|d| ours.contains(*d)).map(forward).collect();
            let candle: BTreeSet<String> = deps.iter().filter(|d| is_candle(d)).map(forward).collect();
            if must.is_empty() {
                // No crate of ours in between: this one has to reach Candle itself.
                must.extend(candle.iter().cloned());
            }
            if feature == "cudnn" {
                must.insert("cuda".to_owned());
            }
            for missing in must.difference(&has) {
                findings.push(Finding::new(name, 0, format!("feature `{feature}` lacks {missing:?}")));
            }
            for extra in has.iter().filter(|h| !must.contains(*h) && !candle.contains(*h)) {
                findings.push(Finding::new(
                    name,
                    0,
                    format!("feature `{feature}` does more than forward: {extra:?}"),
                ));
            }
        }
    }
    findings
}

/// Two versions of the tensor crate are two types called `Tensor`.
pub(crate) fn one_version(lock: &str, name: &str) -> Vec<Finding> {
    let line = format!("name = \"{name}\"");
    match lock.lines().filter(|l| l.trim() == line).count() {
        1 => vec![],
        n => vec![Finding::new("Cargo.lock", 0, format!("{n} versions of {name}; there must be one"))],
    }
}

/// The dependencies of a package with their kinds: `normal`, `dev` or `build`.
pub(super) fn dependencies(package: &Value) -> impl Iterator<Item = (&str, &str)> {
    package["dependencies"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|d| Some((d["name"].as_str()?, d["kind"].as_str().unwrap_or("normal"))))
}

fn is_candle(name: &str) -> bool {
    name == "candle-core" || name == "candle-nn"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn dep(name: &str, kind: Option<&str>) -> Value {
        json!({ "name": name, "kind": kind })
    }

    fn package(name: &str, dependencies: Vec<Value>, features: Value) -> Value {
        json!({ "name": name, "dependencies": dependencies, "features": features })
    }

    fn workspace(packages: Vec<Value>) -> Value {
        json!({ "packages": packages })
    }

    #[test]
    fn allowed_edges_pass() {
        let meta = workspace(vec![
            package("infomax-core", vec![dep("candle-core", None)], json!({})),
            package("infomax-testing", vec![], json!({})),
            package(
                "infomax-optim",
                vec![dep("infomax-core", None), dep("infomax-testing", Some("dev"))],
                json!({}),
            ),
        ]);
        assert_eq!(edges(&meta), []);
    }

    #[test]
    fn finds_a_forbidden_edge() {
        let meta = workspace(vec![
            package("infomax-models", vec![], json!({})),
            package("infomax-losses", vec![dep("infomax-models", None)], json!({})),
        ]);
        assert_eq!(edges(&meta)[0].message, "may not depend on infomax-models (normal)");
    }

    #[test]
    fn finds_forbidden_dev_and_testing_edges() {
        let meta = workspace(vec![
            package("infomax-testing", vec![], json!({})),
            package(
                "infomax-data",
                vec![dep("infomax-train", Some("dev")), dep("infomax-testing", None)],
                json!({}),
            ),
            package("infomax-train", vec![], json!({})),
        ]);
        assert_eq!(edges(&meta).len(), 2);
    }

    #[test]
    fn finds_an_unknown_crate() {
        let meta = workspace(vec![package("infomax-extra", vec![], json!({}))]);
        assert_eq!(edges(&meta).len(), 1);
    }

    fn backends(cuda: &[&str], cudnn: &[&str], metal: &[&str]) -> Value {
        json!({ "default": [], "cuda": cuda, "cudnn": cudnn, "metal": metal })
    }

    fn core() -> Value {
        let features =
            backends(&["candle-core/cuda"], &["cuda", "candle-core/cudnn"], &["candle-core/metal"]);
        package("infomax-core", vec![dep("candle-core", None)], features)
    }

    fn optim(features: Value) -> Vec<Finding> {
        let optim =
            package("infomax-optim", vec![dep("candle-core", None), dep("infomax-core", None)], features);
        super::features(&workspace(vec![core(), optim]))
    }

    #[test]
    fn forwarding_passes_with_or_without_candle_itself() {
        let both = backends(
            &["candle-core/cuda", "infomax-core/cuda"],
            &["cuda", "candle-core/cudnn", "infomax-core/cudnn"],
            &["infomax-core/metal"],
        );
        assert_eq!(optim(both), []);
    }

    #[test]
    fn finds_features_that_are_not_forwarded() {
        assert_eq!(optim(json!({ "default": [] })).len(), 3);
        let lacks_ours =
            backends(&["candle-core/cuda"], &["cuda", "infomax-core/cudnn"], &["infomax-core/metal"]);
        assert_eq!(optim(lacks_ours)[0].message, "feature `cuda` lacks \"infomax-core/cuda\"");
        let lacks_cuda = backends(&["infomax-core/cuda"], &["infomax-core/cudnn"], &["infomax-core/metal"]);
        assert_eq!(optim(lacks_cuda)[0].message, "feature `cudnn` lacks \"cuda\"");
    }

    #[test]
    fn finds_features_that_do_more() {
        let more = backends(
            &["infomax-core/cuda", "metal"],
            &["cuda", "infomax-core/cudnn"],
            &["infomax-core/metal"],
        );
        assert_eq!(optim(more)[0].message, "feature `cuda` does more than forward: \"metal\"");
    }

    #[test]
    fn a_crate_next_to_candle_forwards_to_it() {
        let features = backends(&[], &["cuda"], &[]);
        let meta = workspace(vec![package("infomax-core", vec![dep("candle-core", None)], features)]);
        assert_eq!(super::features(&meta).len(), 3);
    }

    #[test]
    fn finds_two_versions() {
        let one = "[[package]]\nname = \"candle-core\"\nversion = \"0.11.1\"\n";
        assert_eq!(one_version(one, "candle-core"), []);
        assert_eq!(one_version(&one.repeat(2), "candle-core").len(), 1);
        assert_eq!(one_version("", "candle-core").len(), 1);
    }
}
