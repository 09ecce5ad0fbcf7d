//! The program as a user runs it: small runs on the embedded data and on folders of images.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

mod common;

use common::{SMALL, deterministic, infomax, metrics, ok, pretrain, stderr, stdout, weights};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn pretrains_and_reports() {
    let dir = tempfile::tempdir().unwrap();
    let output = pretrain(dir.path(), &["--epochs", "2", "--json"]);
    ok(&output);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["steps"], 10);
    let rows = report["evaluation"]["rows"].as_array().unwrap();
    let names: Vec<_> = rows.iter().map(|row| row["what"].as_str().unwrap()).collect();
    assert_eq!(names, ["trained encoder", "random encoder", "raw pixels"]);
    for row in rows {
        for key in ["linear", "knn"] {
            let accuracy = row[key].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&accuracy), "{row}");
        }
    }
    let run = dir.path().join("runs/001-vicreg-shapes");
    for file in ["config.toml", "metrics.jsonl", "evaluation.json", "log.txt"] {
        assert!(run.join(file).is_file(), "{file}");
    }
    let lines = metrics(&run);
    assert_eq!(lines.len(), 10);
    let parts: Vec<_> = lines[9]["parts"].as_array().unwrap().iter().map(|p| p["name"].clone()).collect();
    assert_eq!(parts, ["invariance", "variance", "covariance"]);
    let loss = |i: usize| lines[i]["total"].as_f64().unwrap();
    assert!(loss(9) < loss(0), "the loss went from {} to {}", loss(0), loss(9));

    // The table again, from the checkpoint.
    let again = infomax(dir.path(), &["evaluate", "runs/001-vicreg-shapes", "--json", "--quiet"]);
    ok(&again);
    let again: Value = serde_json::from_str(&stdout(&again)).unwrap();
    assert_eq!(again["rows"], report["evaluation"]["rows"]);
    // Lines take the place of the bar where nobody sees one.
    let loud = infomax(dir.path(), &["evaluate", "runs/001-vicreg-shapes"]);
    ok(&loud);
    let said = stderr(&loud);
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("evaluate: ")).collect();
    assert_eq!(lines.len(), 6, "three rows, embedded and probed: {said}");
    assert!(lines[1].starts_with("evaluate: trained encoder: probes (300 of 900 images)"), "{said}");
}

#[test]
fn a_small_vision_transformer_and_a_convnext_train() {
    let dir = tempfile::tempdir().unwrap();
    for (name, sets) in [
        ("vit", &["image=16", "width=16", "heads=2", "depth=2"][..]),
        ("convnext", &["blocks=[1, 1]", "widths=[8, 16]"]),
    ] {
        let kind = format!("kind={name}");
        let sets = [&[&kind[..]], sets].concat();
        let sets: Vec<String> = sets.iter().map(|set| format!("model.encoder.{set}")).collect();
        let mut args = vec!["pretrain", "--quiet", "--epochs", "1", "--run", name];
        // The keys of the residual network belong to another kind.
        args.extend(SMALL.chunks(2).filter(|pair| !pair[1].starts_with("model.encoder")).flatten());
        args.extend(["--set", "data.train_images=80"]);
        args.extend(sets.iter().flat_map(|set| ["--set", set]));
        ok(&infomax(dir.path(), &args));
        let lines = metrics(&dir.path().join(name));
        assert_eq!(lines.len(), 2, "{name}");
        assert!(lines.iter().all(|line| line["total"].as_f64().unwrap().is_finite()), "{name}");
        assert!(dir.path().join(name).join("evaluation.json").is_file(), "{name}");
    }
}

#[test]
fn same_seed_same_bits_whatever_the_threads() {
    let dir = tempfile::tempdir().unwrap();
    for (run, threads) in [("a", "1"), ("b", "2")] {
        ok(&pretrain(dir.path(), &["--epochs", "1", "--no-eval", "--run", run, "--threads", threads]));
    }
    assert_eq!(deterministic(&dir.path().join("a")), deterministic(&dir.path().join("b")));
    assert!(weights(&dir.path().join("a")) == weights(&dir.path().join("b")));
    ok(&pretrain(dir.path(), &["--epochs", "1", "--no-eval", "--run", "c", "--seed", "1"]));
    assert!(weights(&dir.path().join("a")) != weights(&dir.path().join("c")));
}

#[cfg(unix)]
#[test]
fn bf16_trains_and_continues_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let path = |run: &str| dir.path().join(run);
    const BF16: [&str; 2] = ["--set", "train.precision=bf16"];
    for (run, more) in
        [("f32", &[][..]), ("bf16", &BF16), ("one", &["--set", "train.precision=bf16", "--threads", "1"])]
    {
        ok(&pretrain(dir.path(), &[&["--epochs", "8", "--run", run], more].concat()));
    }
    let total = |run: &str| -> Vec<f64> {
        metrics(&path(run)).iter().map(|line| line["total"].as_f64().unwrap()).collect()
    };
    let (f32s, bf16s) = (total("f32"), total("bf16"));
    // The same start but for the roundings, and then a run of its own that gets better.
    assert!(f32s[0] != bf16s[0] && (f32s[0] - bf16s[0]).abs() < 0.02 * f32s[0], "{} {}", f32s[0], bf16s[0]);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(&bf16s[35..]) < mean(&bf16s[..5]) - 0.5, "{bf16s:?}");
    assert!((mean(&bf16s[35..]) - mean(&f32s[35..])).abs() < 0.5, "{bf16s:?} {f32s:?}");
    assert_eq!(deterministic(&path("bf16")), deterministic(&path("one")));
    // Master weights, optimizer and all else that is saved are f32.
    assert!(weights(&path("bf16")) == weights(&path("one")));
    let saved = weights(&path("bf16"));
    let header = u64::from_le_bytes(saved[..8].try_into().unwrap()) as usize;
    let header = String::from_utf8_lossy(&saved[8..8 + header]).into_owned();
    assert!(header.contains("\"F32\"") && !header.contains("BF16"), "{header}");
    stop(dir.path(), "killed", "-KILL", &BF16);
    ok(&infomax(dir.path(), &["pretrain", "--quiet", "--no-eval", "--resume", "killed"]));
    assert_eq!(deterministic(&path("bf16")), deterministic(&path("killed")));
    assert!(saved == weights(&path("killed")));
}

/// Stops a run by a signal, and gives its exit code.
#[cfg(unix)]
fn stop(dir: &Path, run: &str, signal: &str, more: &[&str]) -> Option<i32> {
    let mut args = vec!["pretrain", "--quiet", "--epochs", "8", "--run", run, "--no-eval"];
    args.extend(SMALL.iter().chain(more));
    let mut child = Command::new(env!("CARGO_BIN_EXE_infomax"))
        .current_dir(dir)
        .args(&args)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The first checkpoint is written after the first epoch: there is something to go on from.
    let start = Instant::now();
    let checkpoints = dir.join(run).join("checkpoints");
    let written = || {
        std::fs::read_dir(&checkpoints)
            .is_ok_and(|d| d.flatten().any(|e| e.file_name().to_string_lossy().starts_with("step-")))
    };
    while !written() && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(300), "no checkpoint came");
        std::thread::sleep(Duration::from_millis(5));
    }
    Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    child.wait().unwrap().code()
}

#[cfg(unix)]
#[test]
fn a_stopped_run_continues_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    ok(&pretrain(dir.path(), &["--epochs", "8", "--run", "whole", "--no-eval"]));
    for (run, signal) in [("interrupted", "-INT"), ("killed", "-KILL")] {
        let code = stop(dir.path(), run, signal, &[]);
        // A run that was done before the signal came has nothing to resume, and still must be equal.
        assert!(matches!(code, Some(130 | 0) | None), "{run}: {code:?}");
        ok(&infomax(dir.path(), &["pretrain", "--quiet", "--no-eval", "--resume", run]));
        assert_eq!(deterministic(&dir.path().join("whole")), deterministic(&dir.path().join(run)), "{run}");
        assert!(weights(&dir.path().join("whole")) == weights(&dir.path().join(run)), "{run}");
    }
}

/// Writes a folder of small images in several modes, two classes, and some damaged files.
fn photos(dir: &Path) {
    for (class, base) in [("dark", 20u8), ("light", 200)] {
        let folder = dir.join(class);
        std::fs::create_dir_all(&folder).unwrap();
        for i in 0..24u32 {
            let (w, h) = (20 + i % 7, 18 + i % 5);
            let value = |x: u32, y: u32| base.saturating_add(((x * 7 + y * 3 + i * 11) % 50) as u8);
            match i % 4 {
                0 => image::GrayImage::from_fn(w, h, |x, y| image::Luma([value(x, y)]))
                    .save(folder.join(format!("{i}.png"))),
                1 => image::RgbaImage::from_fn(w, h, |x, y| image::Rgba([value(x, y), base, 30, 255]))
                    .save(folder.join(format!("{i}.png"))),
                2 => image::ImageBuffer::<image::Luma<u16>, Vec<u16>>::from_fn(w, h, |x, y| {
                    image::Luma([u16::from(value(x, y)) * 257])
                })
                .save(folder.join(format!("{i}.png"))),
                _ => image::RgbImage::from_fn(w, h, |x, y| image::Rgb([value(x, y), base, 90]))
                    .save(folder.join(format!("{i}.jpg"))),
            }
            .unwrap();
        }
    }
    std::fs::write(dir.join("dark/text.jpg"), "this is no image").unwrap();
    let whole = std::fs::read(dir.join("light/3.jpg")).unwrap();
    std::fs::write(dir.join("light/cut.jpg"), &whole[..whole.len() / 2]).unwrap();
}

#[test]
fn trains_on_a_folder_and_names_damaged_files() {
    let dir = tempfile::tempdir().unwrap();
    photos(&dir.path().join("photos"));
    let more = [
        "--data",
        "photos",
        "--epochs",
        "1",
        "--json",
        "--set",
        "data.train_images=0",
        "--set",
        "data.test_images=0",
        "--set",
        "train.batch=8",
    ];
    let args: Vec<&str> = ["pretrain"].iter().chain(&SMALL).chain(&more).copied().collect();
    let output = infomax(dir.path(), &args);
    ok(&output);
    assert!(
        stderr(&output).contains("text.jpg") && stderr(&output).contains("2 damaged"),
        "{}",
        stderr(&output)
    );
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["evaluation"]["classes"], 2);
    assert!(report["evaluation"]["rows"][0]["linear"].is_f64());
    let log = std::fs::read_to_string(dir.path().join("runs/001-vicreg-photos/log.txt")).unwrap();
    assert!(log.contains("text.jpg"), "{log}");

    let strict = pretrain(dir.path(), &[&more[..], &["--strict"]].concat());
    assert_eq!(strict.status.code(), Some(1));
    assert!(
        stderr(&strict).contains("text.jpg") || stderr(&strict).contains("cut.jpg"),
        "{}",
        stderr(&strict)
    );
}

#[test]
fn unlabeled_and_one_class_folders_train_without_a_probe() {
    let dir = tempfile::tempdir().unwrap();
    photos(&dir.path().join("photos"));
    for (name, from) in [("flat", "photos/light"), ("one", "photos/light")] {
        let to = dir.path().join(name).join(if name == "one" { "only" } else { "" });
        std::fs::create_dir_all(&to).unwrap();
        for entry in std::fs::read_dir(dir.path().join(from)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        let more = [
            "--data",
            name,
            "--epochs",
            "1",
            "--set",
            "data.train_images=0",
            "--set",
            "data.test_images=0",
            "--set",
            "train.batch=8",
        ];
        let output = pretrain(dir.path(), &more);
        ok(&output);
        assert!(stdout(&output).contains("No probe"), "{}", stdout(&output));
    }
}

/// Runs a command that must fail with all of these in its message.
#[track_caller]
fn fails(dir: &Path, args: &[&str], wanted: &[&str]) {
    let output = infomax(dir, args);
    assert_eq!(output.status.code(), Some(1), "{args:?}\n{}", stdout(&output));
    let message = stderr(&output);
    for part in wanted {
        assert!(message.contains(part), "{args:?}: `{part}` is not in: {message}");
    }
}

#[test]
fn bad_input_is_a_clear_error_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    std::fs::create_dir(d.join("empty")).unwrap();
    fails(d, &["pretrain", "--data", "missing"], &["missing"]);
    fails(d, &["pretrain", "--data", "empty"], &["empty"]);
    fails(d, &["pretrain", "--set", "train.batch=20000"], &["20000", "10000"]);
    fails(d, &["pretrain", "--set", "train.epoch=3"], &["`epoch`", "did you mean `epochs`", "--set"]);
    fails(
        d,
        &["pretrain", "--set", "optim.momentun=0.9", "--set", "optim.name=sgd"],
        &["momentun", "momentum"],
    );
    fails(d, &["pretrain", "--set", "traim.epochs=3"], &["traim", "did you mean `train`"]);
    fails(d, &["pretrain", "--set", "objective.name=vicrag"], &["vicrag", "vicreg"]);
    fails(d, &["pretrain", "--set", "augment.preset=vicreg"], &["vicreg-cifar"]);
    fails(
        d,
        &["pretrain", "--set", "train.precision=bf61"],
        &["bf61", "did you mean `bf16`", "train.precision"],
    );
    fails(
        d,
        &["pretrain", "--set", "train.precision=1"],
        &["train.precision = 1", "f32, tf32, bf16, bf16x3"],
    );
    fails(
        d,
        &["pretrain", "--set", "train.precision=bf16", "--set", "model.encoder.kind=patches"],
        &["train.precision", "bf16", "`patches`", "f32"],
    );
    fails(d, &["pretrain", "--set", "model.encoder.depth=19"], &["model.encoder.depth = 19"]);
    fails(
        d,
        &["pretrain", "--set", "model.vit.image=24"],
        &["model.vit", "[model.encoder]", "kind = \"vit\""],
    );
    fails(d, &["pretrain", "--device", "gpu"], &["train.device", "\"gpu\"", "cuda:N"]);
    fails(d, &["pretrain", "--config", "none.toml"], &["none.toml"]);
    std::fs::write(d.join("bad.toml"), "[train\nepochs = 3").unwrap();
    fails(d, &["pretrain", "--config", "bad.toml"], &["bad.toml"]);
    fails(d, &["pretrain", "--resume", "nowhere"], &["nowhere"]);
    fails(d, &["evaluate", "nowhere"], &["nowhere"]);
    assert!(!d.join("runs").exists(), "a refused run left a folder");
}

#[test]
fn a_damaged_checkpoint_falls_back_and_a_foreign_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    ok(&pretrain(d, &["--epochs", "2", "--no-eval", "--run", "run"]));
    let mut steps: Vec<PathBuf> =
        std::fs::read_dir(d.join("run/checkpoints")).unwrap().map(|e| e.unwrap().path()).collect();
    steps.sort();
    assert_eq!(steps.len(), 2);
    let newest = steps[1].join("model.safetensors");
    let bytes = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, &bytes[..bytes.len() - 7]).unwrap();
    let output = infomax(d, &["evaluate", "run"]);
    ok(&output);
    assert!(stderr(&output).contains("damaged"), "{}", stderr(&output));
    // With another model in its configuration the checkpoint does not fit.
    let config = std::fs::read_to_string(d.join("run/config.toml")).unwrap();
    std::fs::write(d.join("run/config.toml"), config.replace("width = 8", "width = 12")).unwrap();
    fails(d, &["evaluate", "run"], &["encoder.", "another model"]);
}

#[test]
fn a_diverging_run_names_the_term_and_the_step() {
    let dir = tempfile::tempdir().unwrap();
    let more = [
        "--epochs",
        "3",
        "--set",
        "optim.name=sgd",
        "--set",
        "optim.lr=1e30",
        "--set",
        "optim.warmup_epochs=0",
        "--run",
        "run",
    ];
    let output = pretrain(dir.path(), &more);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("not finite") && stderr(&output).contains("step"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_collapsing_run_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    // Invariance alone: nothing keeps the embeddings apart.
    let more = [
        "--epochs",
        "30",
        "--no-eval",
        "--set",
        "objective.entropy.kind=none",
        "--set",
        "model.projector_norm=false",
        "--set",
        "optim.kind=constant",
        "--set",
        "optim.lr=0.1",
        "--set",
        "train.monitor.every=1",
        "--set",
        "train.monitor.grace_steps=5",
    ];
    let output = pretrain(dir.path(), &more);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("collapsed"), "{}", stderr(&output));
}

#[test]
fn the_shown_configuration_is_itself_a_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let shown =
        infomax(dir.path(), &["config", "show", "--set", "objective.entropy.covariance=4", "--epochs", "3"]);
    ok(&shown);
    let text = stdout(&shown);
    assert!(
        text.contains("entropy.covariance = 4") && text.contains("# --set") && text.contains("# --epochs"),
        "{text}"
    );
    std::fs::write(dir.path().join("again.toml"), &text).unwrap();
    let json = |args: &[&str]| -> Value {
        let output = infomax(dir.path(), args);
        ok(&output);
        serde_json::from_str(&stdout(&output)).unwrap()
    };
    let first =
        json(&["config", "show", "--json", "--set", "objective.entropy.covariance=4", "--epochs", "3"]);
    assert_eq!(first, json(&["config", "show", "--json", "--config", "again.toml"]));
    assert_eq!(first["objective"]["entropy"]["covariance"], 4.0);
    assert_eq!(first["objective"]["invariance"]["weight"], 25.0);
}

#[test]
fn the_committed_configurations_resolve() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut count = 0;
    for entry in std::fs::read_dir(configs).unwrap() {
        let path = entry.unwrap().path();
        // A folder is given on the command line in these; any path does for resolving.
        ok(&infomax(Path::new("."), &["config", "show", "--config", path.to_str().unwrap()]));
        count += 1;
    }
    assert!(count >= 3, "{count} configurations");
}

#[test]
fn objectives_are_listed() {
    let output = infomax(Path::new("."), &["objective", "list", "--json"]);
    ok(&output);
    let list: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(list.as_array().unwrap().iter().any(|o| o["name"] == "vicreg"));
}

/// The trainer's guard sees what a built-in objective makes of weights that are too large, and says from where to go on.
#[test]
fn a_divergence_names_the_part_and_the_last_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let more = [
        "--set",
        "optim.lr=1e30",
        "--set",
        "optim.warmup_epochs=0",
        "--set",
        "train.checkpoint_every_steps=1",
        "--set",
        "train.max_steps=5",
        "--run",
        "run",
    ];
    let output = pretrain(dir.path(), &more);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    let message = stderr(&output);
    for part in ["the part `", "is not finite", "after 1 finished steps", "step-00000001"] {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

/// What the encoder or the objective refuses leaves no folder in the way of the next try.
#[test]
fn a_run_that_never_started_can_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let too_small = ["--set", "model.encoder={kind=\"convnext\"}", "--run", "run"];
    let message = stderr(&infomax(
        dir.path(),
        &["pretrain", "--quiet", "--set", "augment.size=16"]
            .iter()
            .chain(&too_small)
            .copied()
            .collect::<Vec<_>>(),
    ));
    assert!(message.contains("augment.size = 16") && message.contains("at least 32x32"), "{message}");
    assert!(!dir.path().join("run").exists());
    // A value that is not finite stops the first step, when the folder is there.
    let output = pretrain(dir.path(), &["--set", "objective.invariance.weight=1e300", "--run", "run"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("after 0 finished steps") && dir.path().join("run").exists(),
        "{}",
        stderr(&output)
    );
    ok(&pretrain(dir.path(), &["--set", "train.max_steps=2", "--no-eval", "--run", "run"]));
    let again = pretrain(dir.path(), &["--set", "train.max_steps=2", "--no-eval", "--run", "run"]);
    assert!(stderr(&again).contains("already holds a run"), "{}", stderr(&again));
}

#[test]
fn contradictions_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    for (settings, wanted) in [
        ("augment.size=0", "augment.size = 0"),
        ("data.part=foo", "data.part = \"foo\""),
        ("data.train_images=0", "data.train_images = 0"),
        ("data.shapes.scale=[0.9,0.1]", "data.shapes.scale"),
        ("augment.preset=foo", "augment.preset = \"foo\""),
        ("model.arch=resnet18", "[model.encoder]"),
        ("eval.knn.k=0", "error: eval.knn.k = 0"),
    ] {
        fails(dir.path(), &["pretrain", "--set", settings], &[wanted]);
    }
    fails(
        dir.path(),
        &["pretrain", "--set", "data.source=shapes", "--set", "data.path=pictures"],
        &["data.source", "data.path", "leave one of them out"],
    );
}
