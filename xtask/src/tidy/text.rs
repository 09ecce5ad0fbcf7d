//! Checks of any text file: links, machine paths, manifests.

use std::path::Path;

use super::Finding;

/// Files whose links are checked.
pub(super) fn is_documentation(name: &str) -> bool {
    let top = !name.contains('/');
    name.ends_with(".md") && (top || name.starts_with("docs/") || name.starts_with("benches/"))
}

/// Relative links of a Markdown file whose target does not exist.
pub(super) fn links(name: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<Finding> {
    let folder = Path::new(name).parent().unwrap_or(Path::new(""));
    let (mut findings, mut in_code) = (vec![], false);
    for (i, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for target in targets(line) {
            let file = target.split('#').next().unwrap_or_default();
            let outside = target.contains("://") || target.starts_with("mailto:");
            if file.is_empty() || outside {
                continue; // An anchor of this page, or another site.
            }
            if file.starts_with('/') {
                findings.push(Finding::new(name, i + 1, format!("the link {target:?} is not relative")));
            } else if !exists(&folder.join(file).to_string_lossy()) {
                findings.push(Finding::new(name, i + 1, format!("the link {target:?} leads nowhere")));
            }
        }
    }
    findings
}

/// The `target` of every `[text](target)` in a line, titles left out.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](").filter_map(|(at, mark)| {
        let rest = &line[at + mark.len()..];
        // Inside a code span, an odd number of back-ticks precedes the link.
        if line[..at].matches('`').count() % 2 == 1 {
            return None;
        }
        let end = rest.find(')')?;
        rest[..end].split_whitespace().next()
    })
}

/// Absolute paths of somebody's machine: they work nowhere else.
pub(super) fn machine_paths(name: &str, text: &str) -> Vec<Finding> {
    // Put together here so that this file does not find itself.
    let roots = ["home", "root", "Users", "work", "opt", "mnt"].map(|root| format!("/{root}/"));
    let mut findings = vec![];
    for (i, line) in text.lines().enumerate() {
        for root in &roots {
            let absolute = line.match_indices(root.as_str()).any(|(at, _)| {
                // `docs/home/x` and `site.org/home/x` go on from something: they are not absolute.
                !line[..at]
                    .chars()
                    .next_back()
                    .is_some_and(|c| c.is_alphanumeric() || "._-/}$)~>*]".contains(c))
            });
            if absolute {
                findings.push(Finding::new(
                    name,
                    i + 1,
                    format!("an absolute path ({root}…) of one machine"),
                ));
            }
        }
    }
    findings
}

/// Every package inherits the lints of the workspace.
pub(super) fn workspace_lints(name: &str, text: &str) -> Vec<Finding> {
    let inherits = text.lines().skip_while(|l| l.trim() != "[lints]").nth(1).is_some_and(|l| {
        let l: String = l.split_whitespace().collect();
        l == "workspace=true"
    });
    if text.contains("[workspace]") || inherits {
        return vec![];
    }
    vec![Finding::new(name, 0, "lacks `[lints]` with `workspace = true`")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_links_that_lead_nowhere() {
        let exists = |t: &str| t == "docs/a.md" || t == "docs/../README.md";
        let check = |text: &str| links("docs/b.md", text, exists).len();
        assert_eq!(check("[a](a.md) [a](a.md#part) [r](../README.md \"title\") [p](#here)"), 0);
        assert_eq!(check("[x](https://example.org/x) `[x](missing.md)`"), 0);
        assert_eq!(check("```\n[x](missing.md)\n```"), 0);
        assert_eq!(check("[a](a.md) and [x](missing.md)"), 1);
        assert_eq!(check("[x](/docs/a.md)"), 1);
    }

    #[test]
    fn only_documentation_is_read_for_links() {
        assert!(is_documentation("README.md") && is_documentation("docs/x/y.md"));
        assert!(!is_documentation("crates/x/tests/golden/notes.md") && !is_documentation("docs/x.toml"));
    }

    #[test]
    fn finds_machine_paths() {
        let check = |text: &str| machine_paths("x.md", text).len();
        for root in ["home", "work", "opt", "Users", "root"] {
            assert_eq!(check(&format!("data = \"/{root}/me/x\"")), 1, "{root}");
            assert_eq!(check(&format!("https://example.org/{root}/me")), 0, "{root}");
            assert_eq!(check(&format!("see docs/{root}/me or ../{root}/x")), 0, "{root}");
        }
        assert_eq!(check("#!/usr/bin/env bash\nmkdir /tmp/x"), 0);
    }

    #[test]
    fn finds_packages_without_the_lints() {
        assert_eq!(workspace_lints("x/Cargo.toml", "[package]\n[lints]\nworkspace = true\n").len(), 0);
        assert_eq!(
            workspace_lints("x/Cargo.toml", "[package]\n[dependencies]\nx.workspace = true\n").len(),
            1
        );
        assert_eq!(workspace_lints("x/Cargo.toml", "[package]\n[lints]\nworkspace = false\n").len(), 1);
        assert_eq!(workspace_lints("Cargo.toml", "[workspace]\n").len(), 0);
    }
}
