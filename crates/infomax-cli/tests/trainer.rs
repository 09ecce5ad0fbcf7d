//! What the trainer offers beside the plain loop: parts of a batch, courses, scaled rates, online measurements, a
//! budget of time, conditions that end a run.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

mod common;

use common::{deterministic, infomax, metrics, ok, pretrain, stderr, stdout, weights};
use serde_json::Value;
use std::path::Path;

/// A short run in the folder `name`, without an evaluation.
fn run(dir: &Path, name: &str, more: &[&str]) -> std::process::Output {
    let args: Vec<&str> = ["--no-eval", "--run", name].iter().chain(more).copied().collect();
    pretrain(dir, &args)
}

#[track_caller]
fn refused(dir: &Path, more: &[&str], parts: &[&str]) {
    let output = run(dir, "refused", more);
    let said = stderr(&output);
    assert!(!output.status.success() && parts.iter().all(|part| said.contains(part)), "{said}");
    assert!(!dir.join("refused").exists(), "nothing is written: {said}");
}

fn numbers(lines: &[Value], key: &str) -> Vec<f64> {
    lines.iter().map(|line| line[key].as_f64().unwrap()).collect()
}

#[test]
fn a_batch_in_parts_is_refused_or_said() {
    let dir = tempfile::tempdir().unwrap();
    let in_parts = ["--epochs", "1", "--set", "train.accumulate=4"];
    refused(dir.path(), &in_parts, &["accumulate = 4", "encoder.bn1", "train.batch_norm"]);
    refused(dir.path(), &["--set", "train.accumulate=3"], &["accumulate = 3", "batch of 40"]);
    refused(dir.path(), &["--set", "train.accumulate=0"], &["train.accumulate = 0"]);
    let micro = [&in_parts[..], &["--set", "train.batch_norm=micro-batch"]].concat();
    ok(&run(dir.path(), "micro", &micro));
    assert_eq!(metrics(&dir.path().join("micro")).len(), 5);

    // Without batch normalization it is the run of the whole batch, up to rounding.
    let vit = "model.encoder={kind=\"vit\", image=16, patch=8, width=16, depth=1, heads=2}";
    let small = ["--epochs", "1", "--set", "train.seed=3"];
    let train = |name: &str, accumulate: &str| {
        let args: Vec<&str> = ["infomax", "--quiet", "--no-eval", "--run", name][1..]
            .iter()
            .chain(&small)
            .copied()
            .chain(["--set", vit, "--set", "model.projector_norm=false", "--set", accumulate])
            .chain(["--set", "data.train_images=80", "--set", "train.batch=40", "--set", "augment.size=16"])
            .chain([
                "--set",
                "data.shapes.size=16",
                "--set",
                "model.projector=[32, 16]",
                "--set",
                "train.log_every=1",
            ])
            .collect();
        let output = infomax(dir.path(), &[&["pretrain"], &args[..]].concat());
        ok(&output);
        numbers(&metrics(&dir.path().join(name)), "total")
    };
    let (whole, parts) = (train("whole", "train.accumulate=1"), train("parts", "train.accumulate=4"));
    assert!(
        whole.len() == 2 && whole.iter().zip(&parts).all(|(a, b)| (a - b).abs() < 1e-4 * a.abs()),
        "{whole:?} {parts:?}"
    );
}

#[test]
fn courses_and_scaled_rates_are_logged() {
    let dir = tempfile::tempdir().unwrap();
    let more = [
        "--epochs",
        "2",
        "--set",
        "optim.weight_decay=0.04",
        "--set",
        "optim.courses.weight_decay={end=0.4}",
        "--set",
        "optim.courses.momentum={kind=\"linear\", end=0.5}",
        "--set",
        "model.teacher_momentum=0.9",
        "--set",
        "optim.lr_scale=sqrt",
        "--set",
        "optim.kind=constant",
        "--set",
        "optim.warmup_epochs=0",
    ];
    ok(&run(dir.path(), "run", &more));
    let lines = metrics(&dir.path().join("run"));
    let decay = numbers(&lines, "weight_decay");
    assert!(
        decay.len() == 10 && (decay[0] - 0.04).abs() < 1e-9 && (decay[5] - 0.22).abs() < 1e-9,
        "{decay:?}"
    );
    let momentum = numbers(&lines, "momentum");
    assert!((momentum[0] - 0.9).abs() < 1e-9 && (momentum[5] - 0.7).abs() < 1e-9, "{momentum:?}");
    // The teacher's own cosine to 1.
    let teacher = numbers(&lines, "teacher_momentum");
    assert!((teacher[0] - 0.9).abs() < 1e-9 && (teacher[5] - 0.95).abs() < 1e-9, "{teacher:?}");
    let lr = 0.0028 * (40f64 / 256.0).sqrt();
    assert!(numbers(&lines, "lr").iter().all(|found| (found - lr).abs() < 1e-12));
    let log = std::fs::read_to_string(dir.path().join("run/log.txt")).unwrap();
    assert!(log.contains("0.0028 * sqrt(40 / 256)"), "{log}");

    // The teacher along a line instead, and a run that goes on with another course says so.
    let line = "optim.courses.teacher_momentum={kind=\"linear\", end=1.0}";
    let teacher = ["--epochs", "1", "--set", "model.teacher_momentum=0.9", "--set", line];
    ok(&run(dir.path(), "line", &teacher));
    let found = numbers(&metrics(&dir.path().join("line")), "teacher_momentum");
    assert!((found[1] - 0.92).abs() < 1e-9 && (found[4] - 0.98).abs() < 1e-9, "{found:?}");
    let file = dir.path().join("line/config.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("end = 1.0"), "{text}");
    std::fs::write(&file, text.replace("end = 1.0", "end = 0.95")).unwrap();
    let output = infomax(dir.path(), &["pretrain", "--quiet", "--no-eval", "--resume", "line"]);
    ok(&output);
    assert!(
        stderr(&output).contains("optim.courses.teacher_momentum.end was 1.0, now it is 0.95"),
        "{}",
        stderr(&output)
    );

    let set = |text: &'static str| ["--set", text];
    refused(dir.path(), &set(line), &["teacher_momentum", "there is no teacher"]);
    refused(
        dir.path(),
        &set("optim.courses.weight_decay={kind=\"linear\"}"),
        &["weight_decay", "end = unset"],
    );
    refused(
        dir.path(),
        &set("optim.courses.momentum={end=1.5}"),
        &["optim.courses.momentum reaches 1.5: a beta must be in [0, 1)"],
    );
    refused(
        dir.path(),
        &set("optim.groups=[{match=\"encoder.*\"}]"),
        &["groups = [{ match = \"encoder.*\" }]: it sets nothing"],
    );
    refused(dir.path(), &set("optim.courses.decay={end=1}"), &["`decay`", "weight_decay"]);
    refused(dir.path(), &set("optim.lr_scale=log"), &["optim.lr_scale", "linear"]);
}

#[test]
fn online_measurements_leave_the_training_as_it_is_and_survive_a_resumption() {
    let dir = tempfile::tempdir().unwrap();
    let online = [
        "--set",
        "train.online.every=2",
        "--set",
        "train.online.linear=true",
        "--set",
        "train.online.knn_every=5",
        "--set",
        "train.online.knn_images=60",
        "--set",
        "train.log_every=100",
    ];
    ok(&run(dir.path(), "plain", &["--epochs", "2", "--set", "train.online.every=0"]));
    ok(&run(dir.path(), "online", &[&["--epochs", "2"], &online[..]].concat()));
    let at = |name: &str| dir.path().join(name);
    assert_eq!(weights(&at("plain")), weights(&at("online")));
    assert!(metrics(&at("plain")).iter().all(|line| line.get("figures").is_none()));

    let lines = deterministic(&at("online"));
    let steps: Vec<u64> = lines.iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [2, 4, 5, 6, 8, 10], "a line wherever something was measured");
    let figures = &lines[0]["figures"];
    for name in ["rank_me", "effective_rank", "uniformity", "alignment", "feature_rank_me", "online_linear"] {
        assert!(figures[name].as_f64().unwrap().is_finite(), "{name}: {figures}");
    }
    assert!(lines[2]["figures"]["online_knn"].as_f64().unwrap() > 0.1, "{}", lines[2]);

    // Stopped at step 6 and continued: the same figures, to the bit.
    let stop = ["--epochs", "2", "--stop-if", "step >= 6", "--set", "train.monitor.grace_steps=0"];
    let output = run(dir.path(), "parts", &[&stop[..], &online[..]].concat());
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let file = at("parts").join("config.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("step >= 6", "step >= 60")).unwrap();
    ok(&infomax(dir.path(), &["pretrain", "--quiet", "--no-eval", "--resume", "parts"]));
    let strip =
        |lines: Vec<Value>| -> Vec<Value> { lines.into_iter().map(|line| line["figures"].clone()).collect() };
    let kept: Vec<Value> = strip(deterministic(&at("parts")));
    assert_eq!(kept, strip(lines));

    // Without labels it is said.
    let photos = at("photos");
    std::fs::create_dir(&photos).unwrap();
    ok(&infomax(dir.path(), &["data", "preview", "--out", "photos/a.png"]));
    for name in ["b", "c", "d"] {
        std::fs::copy(photos.join("a.png"), photos.join(format!("{name}.png"))).unwrap();
    }
    let args = [
        "pretrain",
        "--data",
        "photos",
        "--run",
        "unlabeled",
        "--no-eval",
        "--epochs",
        "1",
        "--set",
        "train.batch=4",
        "--set",
        "train.online.linear=true",
        "--set",
        "train.online.knn_every=1",
        "--set",
        "model.encoder.blocks=[1]",
        "--set",
        "augment.preset=vicreg-cifar",
        "--set",
        "model.projector=[8]",
    ];
    let output = infomax(dir.path(), &args);
    ok(&output);
    let said = stderr(&output);
    assert!(
        said.contains("train.online.linear: left out") && said.contains("train.online.knn_every: left out"),
        "{said}"
    );
}

#[test]
fn a_condition_ends_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let monitor = ["--epochs", "4", "--set", "train.monitor.every=2", "--set", "train.monitor.grace_steps=3"];
    let output = run(dir.path(), "run", &[&monitor[..], &["--stop-if", "rank < 40 * d"]].concat());
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(
        said.contains("at step 4") && said.contains("rank < 40 * d") && said.contains("step-00000004"),
        "{said}"
    );
    assert_eq!(metrics(&dir.path().join("run")).len(), 4);

    // It goes on with another condition, and with none.
    let go_on = |condition: &str| {
        infomax(
            dir.path(),
            &["pretrain", "--quiet", "--no-eval", "--json", "--resume", "run", "--stop-if", condition],
        )
    };
    let output = go_on("step >= 8");
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&told["status"], &told["evaluation"]), (&"stopped".into(), &Value::Null));
    let output = go_on("none");
    ok(&output);
    let told: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&told["status"], &told["steps"]), (&"done".into(), &20.into()));
    let steps: Vec<u64> =
        metrics(&dir.path().join("run")).iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=20).collect::<Vec<_>>());

    // The step that ended it is in the metrics, whatever is logged.
    let rare =
        ["--set", "train.log_every=4", "--set", "train.monitor.grace_steps=0", "--stop-if", "step >= 3"];
    let output = run(dir.path(), "rare", &[&["--epochs", "4"][..], &rare].concat());
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let steps: Vec<Value> =
        metrics(&dir.path().join("rare")).iter().map(|line| line["step"].clone()).collect();
    assert_eq!(steps, [3]);

    // A part of the objective, unweighted.
    let part = ["--set", "train.monitor.grace_steps=0", "--stop-if", "parts.covariance >= 0"];
    let output = run(dir.path(), "part", &part);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("at step 1") && stderr(&output).contains("parts.covariance >= 0"));
    let never =
        ["--epochs", "1", "--set", "train.monitor.grace_steps=0", "--stop-if", "parts.covariance < 0"];
    ok(&run(dir.path(), "never", &never));
    refused(dir.path(), &["--stop-if", "parts.covariant < 3"], &["did you mean `parts.covariance`"]);

    // One that does not hold, and one that cannot be judged.
    let more = ["--epochs", "1", "--stop-if", "rank > 40 * d", "--stop-if", "online_linear < 0.1"];
    let online = [
        "--set",
        "train.online.linear=true",
        "--set",
        "train.monitor.every=2",
        "--set",
        "train.monitor.grace_steps=0",
    ];
    let output = run(dir.path(), "whole", &[&more[..], &online[..]].concat());
    ok(&output);
    let said = stderr(&output);
    assert!(said.contains("`online_linear < 0.1`") && !said.contains("rank > 40"), "{said}");

    refused(
        dir.path(),
        &["--stop-if", "rnk < 3"],
        &["no figure `rnk`", "did you mean `rank`", "feature_rank_me"],
    );
    refused(dir.path(), &["--stop-if", "rank"], &["`rank`", "rank < 0.1 * d"]);
    let never = ["train.online.knn_every", "train.online.linear = true", "train.online.every"];
    for (figure, how) in ["online_knn", "online_linear", "feature_rank_me"].iter().zip(never) {
        let condition = format!("{figure} < 0.1");
        let more = ["--stop-if", &condition, "--set", "train.online.every=0"];
        refused(dir.path(), &more, &[&format!("`{figure}` is not measured"), how]);
    }
    let never = ["--stop-if", "rank < 3", "--set", "train.monitor.every=0"];
    refused(dir.path(), &never, &["`rank` is not measured", "train.monitor.every"]);
    let help = stdout(&infomax(dir.path(), &["pretrain", "--help"]));
    assert!(help.contains("4 a condition holds (--stop-if)"), "{help}");
}

#[test]
fn a_budget_of_time_trains_along_the_whole_schedule_and_what_is_left_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), "run", &["--budget", "1500ms", "--set", "optim.warmup_epochs=0"]);
    ok(&output);
    let at = dir.path().join("run");
    let lines = metrics(&at);
    let lr = numbers(&lines, "lr");
    assert!(lr.len() > 3 && lr[0] == 0.0028, "{lr:?}");
    // A cosine over the time: the last step starts late in it.
    let elapsed = lines.last().unwrap()["time"]["elapsed_s"].as_f64().unwrap();
    let step = lines.last().unwrap()["time"]["step_s"].as_f64().unwrap();
    // The clock of a line is read before that of the budget, which a busy machine can put some way apart.
    assert!(elapsed >= 1.3 && elapsed - step <= 1.5, "{elapsed} {step}");
    let progress = (elapsed - step) / 1.5;
    let expected = 0.0014 * (1.0 + (std::f64::consts::PI * progress).cos());
    assert!((lr.last().unwrap() - expected).abs() < 4e-4, "{lr:?} {expected}");

    let state = |at: &Path| {
        let mut all: Vec<_> =
            std::fs::read_dir(at.join("checkpoints")).unwrap().map(|e| e.unwrap().path()).collect();
        all.sort();
        let text = std::fs::read_to_string(all.last().unwrap().join("state.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let spent = state(&at)["trained_s"].as_f64().unwrap();
    assert!((1.5..10.0).contains(&spent), "{spent}");
    // Nothing is left, and more is given.
    ok(&infomax(dir.path(), &["pretrain", "--quiet", "--no-eval", "--resume", "run"]));
    assert_eq!(metrics(&at).len(), lines.len());
    let more = format!("{}ms", (spent * 1000.0) as u64 + 700);
    let output =
        infomax(dir.path(), &["pretrain", "--quiet", "--no-eval", "--resume", "run", "--budget", &more]);
    ok(&output);
    assert!(stderr(&output).contains("train.budget was"), "{}", stderr(&output));
    assert!(metrics(&at).len() > lines.len());
    assert!(state(&at)["trained_s"].as_f64().unwrap() >= spent + 0.6);

    // What was trained without a budget counts as well.
    ok(&run(dir.path(), "later", &[]));
    let at = dir.path().join("later");
    assert_eq!(state(&at)["trained_s"], Value::Null);
    let steps = metrics(&at).len();
    let config = std::fs::read(at.join("config.toml")).unwrap();
    let less =
        infomax(dir.path(), &["pretrain", "--quiet", "--no-eval", "--resume", "later", "--budget", "1ms"]);
    assert!(!less.status.success() && stderr(&less).contains("has trained for"), "{}", stderr(&less));
    assert_eq!((metrics(&at).len(), std::fs::read(at.join("config.toml")).unwrap()), (steps, config));

    refused(dir.path(), &["--budget", "soon"], &["--budget", "5m"]);
    refused(dir.path(), &["--set", "train.budget=5"], &["train.budget"]);
}

#[test]
fn where_the_time_goes_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let loud: Vec<&str> = ["pretrain"].iter().chain(&common::SMALL).copied().collect();
    let output = infomax(dir.path(), &[&loud[..], &["--epochs", "1", "--no-eval", "--run", "run"]].concat());
    ok(&output);
    let said = stderr(&output);
    let line = said.lines().find(|line| line.starts_with("time: ")).unwrap();
    assert!(
        ["data", "forward", "loss", "backward", "optimizer", "other"].iter().all(|part| line.contains(part)),
        "{line}"
    );
    for line in metrics(&dir.path().join("run")) {
        let time = &line["time"];
        let part = |name: &str| time[name].as_f64().unwrap();
        let named: f64 = ["data_wait_s", "forward_s", "loss_s", "backward_s", "optimizer_s"]
            .iter()
            .map(|name| part(name))
            .sum();
        assert!(named <= part("step_s") + 1e-9 && named > 0.5 * part("step_s"), "{time}");
        assert!(part("forward_s") > 0.0 && part("backward_s") > 0.0, "{time}");
    }
}
