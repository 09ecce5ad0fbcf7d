//! `infomax paper` from the shell.

#![allow(clippy::unwrap_used)] // A failure should stop.

mod common;

use common::{infomax, ok, stderr, stdout};

#[test]
fn experiments_are_listed_run_and_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let list = infomax(dir.path(), &["paper", "list"]);
    ok(&list);
    assert!(["mixtures", "normality", "transfer"].iter().all(|name| stdout(&list).contains(name)));

    let command = ["paper", "em", "--preset", "smoke", "--out", "o"];
    let first = infomax(dir.path(), &command);
    ok(&first);
    assert!(stdout(&first).contains("em") && stdout(&first).contains("supported"), "{}", stdout(&first));
    assert!(dir.path().join("o/report.html").exists() && dir.path().join("o/em/starts.csv").exists());

    let again = infomax(dir.path(), &[&command[..], &["--resume", "--json"]].concat());
    ok(&again);
    assert!(stderr(&again).contains("there already"), "{}", stderr(&again));
    let json: serde_json::Value = serde_json::from_str(&stdout(&again)).unwrap();
    assert_eq!(json["experiments"][0]["name"], "em");

    let wrong = infomax(dir.path(), &["paper", "mixture"]);
    assert!(!wrong.status.success() && stderr(&wrong).contains("mixtures"), "{}", stderr(&wrong));
}
