//! Runs side by side, their metrics in other formats, and failed steps made again.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

mod common;

use common::{infomax, ok, pretrain, stderr, stdout};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn runs_are_listed_and_compared() {
    let dir = tempfile::tempdir().unwrap();
    let refused = infomax(dir.path(), &["runs"]);
    assert!(
        !refused.status.success() && stderr(&refused).contains("infomax pretrain"),
        "{}",
        stderr(&refused)
    );
    ok(&pretrain(dir.path(), &["--epochs", "2", "--set", "optim.lr=0.002"]));
    let collapsed = pretrain(
        dir.path(),
        &[
            &["--epochs", "4", "--no-eval", "--set", "train.max_steps=12", "--set", "objective.name=simclr"]
                [..],
            // Whatever the embedding, it counts as collapsed.
            &["--set", "train.monitor.every=1", "--set", "train.monitor.grace_steps=0"],
            &["--set", "train.monitor.patience=1", "--set", "train.monitor.collapsed_std=50.0"],
            &["--set", "train.monitor.warning_std=60.0"],
        ]
        .concat(),
    );
    assert_eq!(collapsed.status.code(), Some(3), "{}", stderr(&collapsed));
    // What else lies in such a folder.
    let runs = dir.path().join("runs");
    fs::create_dir(runs.join("notes")).unwrap();
    fs::create_dir(runs.join("damaged")).unwrap();
    fs::write(runs.join("damaged/config.toml"), "[train\nepochs = ").unwrap();
    fs::write(runs.join("todo.txt"), "sleep").unwrap();

    let output = infomax(dir.path(), &["runs"]);
    ok(&output);
    let (text, said) = (stdout(&output), stderr(&output));
    let rows: Vec<&str> = text.lines().collect();
    assert!(rows[0].starts_with("run ") && rows.len() == 4, "{text}");
    assert!(rows[2].starts_with("001-vicreg-shapes  finished  vicreg  shapes     10"), "{text}");
    assert!(rows[3].starts_with("002-simclr-shapes  finished  simclr  shapes     12"), "{text}");
    assert!(rows[2].contains(" %") && !rows[3].contains(" %"), "only the first is evaluated: {text}");
    assert!(
        said.contains("002-simclr-shapes: the monitor's last verdict on its embedding: collapsed"),
        "{said}"
    );
    assert!(!said.contains("001-vicreg-shapes"), "{said}");
    assert!(
        said.contains("runs/notes: ") && said.contains("runs/damaged: ") && !said.contains("todo"),
        "{said}"
    );

    let listing = json(&stdout(&infomax(dir.path(), &["runs", "runs", "--json", "--sort", "steps"])));
    assert_eq!(listing["skipped"].as_array().unwrap().len(), 2);
    let names: Vec<&str> =
        listing["runs"].as_array().unwrap().iter().map(|run| run["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["002-simclr-shapes", "001-vicreg-shapes"]);
    // The figures are those of the run's own files.
    let first = &listing["runs"][1];
    let evaluation = json(&fs::read_to_string(runs.join("001-vicreg-shapes/evaluation.json")).unwrap());
    assert_eq!(first["evaluation"]["linear"], evaluation["rows"][0]["linear"]);
    let metrics = common::metrics(&runs.join("001-vicreg-shapes"));
    assert_eq!(first["loss"], metrics.last().unwrap()["total"]);
    let output = infomax(dir.path(), &["runs", "--sort", "lineer"]);
    assert!(!output.status.success() && stderr(&output).contains("linear"), "{}", stderr(&output));

    let output = infomax(dir.path(), &["runs", "001", "002"]);
    ok(&output);
    let text = stdout(&output);
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
    let words = |start: &str| line(start).split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>();
    assert_eq!(words("optim.lr"), ["optim.lr", "0.002", "0.0028"]);
    assert_eq!(words("train.max_steps"), ["train.max_steps", "-", "12"]);
    assert!(line("train.seed").is_empty() && line("train.batch").is_empty(), "they are equal: {text}");
    assert!(text.contains("total  ") && text.contains('█') && text.contains('▁'), "{text}");
    let compared = json(&stdout(&infomax(dir.path(), &["runs", "001", "002", "--json"])));
    let total = compared["curves"].as_array().unwrap().iter().find(|curve| curve["name"] == "total").unwrap();
    assert_eq!(total["points"][1].as_array().unwrap().len(), 12);

    // One that cannot be read is named, and hides no other.
    let output = infomax(dir.path(), &["runs", "001", "runs/damaged"]);
    ok(&output);
    assert!(stdout(&output).contains("001-vicreg-shapes"), "{}", stdout(&output));
    assert!(stderr(&output).contains("skipped runs/damaged: "), "{}", stderr(&output));
    assert!(!infomax(dir.path(), &["runs", "runs/damaged"]).status.success());

    let output = infomax(dir.path(), &["runs", "--html", "runs.txt"]);
    assert!(output.status.code() == Some(1) && !dir.path().join("runs.txt").exists());
    let output = infomax(dir.path(), &["runs", "--html", "runs.html"]);
    ok(&output);
    let page = fs::read_to_string(dir.path().join("runs.html")).unwrap();
    assert!(page.contains("<svg") && page.contains("002-simclr-shapes") && page.contains("optim.lr"));
    assert!(!page.contains("<script") && page.contains("runs/damaged"), "loads nothing, hides nothing");
}

#[test]
fn metrics_go_into_other_formats() {
    let dir = tempfile::tempdir().unwrap();
    ok(&pretrain(
        dir.path(),
        &["--epochs", "1", "--no-eval", "--run", "run", "--set", "train.log=[\"csv\"]"],
    ));
    let csv = fs::read_to_string(dir.path().join("run/metrics.csv")).unwrap();
    assert_eq!(csv.lines().count(), 6);
    let export = |format: &str, out: &str| {
        infomax(dir.path(), &["runs", "export", "run", "--format", format, "-o", out])
    };
    ok(&export("csv", "again.csv"));
    assert_eq!(fs::read_to_string(dir.path().join("again.csv")).unwrap(), csv);
    ok(&export("tensorboard", "tb/run"));
    assert_eq!(fs::read_dir(dir.path().join("tb/run")).unwrap().count(), 1);
    ok(&export("mlflow", "mlruns"));
    assert!(dir.path().join("mlruns/0/meta.yaml").is_file());
    for (output, wanted) in [
        (export("csv", "tb"), "is a folder"),
        (export("mlflow", "again.csv"), "is a file"),
        (export("xml", "x"), "tensorboard"),
        (infomax(dir.path(), &["runs", "export", "tb", "--format", "csv", "-o", "x.csv"]), "not a run"),
    ] {
        assert!(!output.status.success() && stderr(&output).contains(wanted), "{}", stderr(&output));
    }
    let output = pretrain(dir.path(), &["--set", "train.log=[\"xml\"]"]);
    assert!(!output.status.success() && stderr(&output).contains("train.log"), "{}", stderr(&output));
}

#[test]
fn a_run_that_diverges_is_replayed_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    let sets = [
        "--no-eval",
        "--run",
        "run",
        "--epochs",
        "8",
        "--set",
        "optim.name=sgd",
        "--set",
        "optim.lr=1e18",
        "--set",
        "optim.warmup_epochs=0",
    ];
    let output = pretrain(dir.path(), &sets);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    // error: the part `variance` is not finite (...) at step N
    let what = said.lines().find_map(|line| line.strip_prefix("error: ")).unwrap();
    let what = what.split(" is not finite").next().unwrap();
    let capsules = fs::read_dir(dir.path().join("run/capsules")).unwrap();
    let capsules: Vec<PathBuf> = capsules.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(capsules.len(), 1, "{said}");
    let capsule = capsules[0].to_str().unwrap();
    assert!(said.contains("infomax replay run/capsules/step-"), "{said}");

    let before = fs::read(dir.path().join("run/log.txt")).unwrap();
    for threads in ["1", "2"] {
        let output = infomax(dir.path(), &["replay", capsule, "--json", "--threads", threads]);
        ok(&output);
        let replay = json(&stdout(&output));
        assert_eq!(replay["same"], true, "{replay}");
        assert!(replay["found"]["reason"].as_str().unwrap().starts_with(what), "{what}: {replay}");
        let held = replay["held"].as_array().unwrap();
        let of = |kind: &str| held.iter().filter(|held| held["kind"] == kind).count();
        assert!(of("view") == 2 && of("projection") == 2 && of("term") >= 3 && of("gradient") > 5, "{what}");
        // The layers of both views, in the order of the step: behind the views, before the features.
        for layer in ["encoder.bn1 (means of its input)", "projector.1"] {
            let first = |kind: &str| held.iter().position(|held| held["kind"] == kind).unwrap();
            for view in 0..2 {
                let name = format!("{layer} [{view}]");
                let at =
                    held.iter().position(|held| held["kind"] == "layer" && held["name"] == name.as_str());
                assert!(at.is_some_and(|at| at > first("view") && at < first("feature")), "{name}: {at:?}");
            }
        }
    }
    let output = infomax(dir.path(), &["replay", capsule]);
    let text = stdout(&output);
    assert!(text.contains("replayed: the same") && text.contains("not finite ("), "{text}");
    assert!(
        stdout(&infomax(dir.path(), &["replay", capsule, "--all"])).lines().count() > text.lines().count()
    );
    assert_eq!(fs::read(dir.path().join("run/log.txt")).unwrap(), before, "a replay changes nothing");
    let listed = stdout(&infomax(dir.path(), &["runs", "run", "--list"]));
    assert!(listed.contains("failed") && listed.contains(what), "{listed}");
    // Nothing was logged before it failed, and yet it made steps.
    let steps = capsule.rsplit('-').next().unwrap().trim_start_matches('0');
    let row: Vec<&str> = listed.lines().nth(2).unwrap().split_whitespace().collect();
    assert_eq!(row[4].split('/').next(), Some(if steps.is_empty() { "0" } else { steps }), "{listed}");
    assert!(said.contains(&format!("after {} finished steps", row[4].split('/').next().unwrap())), "{said}");

    fs::rename(&capsules[0], dir.path().join("elsewhere")).unwrap();
    let output = infomax(dir.path(), &["replay", "elsewhere"]);
    assert!(!output.status.success() && stderr(&output).contains("name the run"), "{}", stderr(&output));
    ok(&infomax(dir.path(), &["replay", "elsewhere", "--run", "run"]));
}
