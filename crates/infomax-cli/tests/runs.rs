//! What becomes of a run after its training: continued, extended, evaluated, embedded.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

mod common;

use common::{infomax, metrics, ok, pretrain, stderr, stdout};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Changes a value in the configuration of a run, as a person with an editor does.
fn edit(run: &Path, from: &str, to: &str) {
    let file = run.join("config.toml");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&file, text.replace(from, to)).unwrap();
}

#[test]
fn a_run_that_continues_with_other_settings_says_so_and_refuses_other_data() {
    let dir = tempfile::tempdir().unwrap();
    ok(&pretrain(dir.path(), &["--epochs", "2", "--no-eval", "--run", "run", "--set", "train.max_steps=7"]));
    let run = dir.path().join("run");
    let resume = || infomax(dir.path(), &["pretrain", "--quiet", "--no-eval", "--resume", "run"]);

    edit(&run, "max_steps = 7", "max_steps = 8");
    edit(&run, "lr = 0.0028", "lr = 0.002");
    let output = resume();
    ok(&output);
    let said = stderr(&output);
    for part in ["train.max_steps was 7, now it is 8", "optim.lr was 0.0028, now it is 0.002"] {
        assert!(said.contains(part), "{said}");
    }
    // The checkpoint of step 8 remembers the new settings.
    let output = resume();
    ok(&output);
    assert!(!stderr(&output).contains("optim.lr"), "{}", stderr(&output));

    for (from, to, named) in [
        ("batch = 40", "batch = 50", "train.batch: it was 40, now it is 50"),
        ("train_images = 200", "train_images = 240", "the training images: it was 200"),
    ] {
        edit(&run, from, to);
        let output = resume();
        assert!(!output.status.success() && stderr(&output).contains(named), "{}", stderr(&output));
        edit(&run, to, from);
    }
    // Other pixels under the same number.
    edit(&run, "noise = ", "noise = 0.3 # ");
    let output = resume();
    assert!(!output.status.success() && stderr(&output).contains("fingerprint"), "{}", stderr(&output));
}

#[test]
fn a_finished_run_is_extended() {
    let dir = tempfile::tempdir().unwrap();
    ok(&pretrain(dir.path(), &["--epochs", "1", "--no-eval", "--run", "run"]));
    let resume = |epochs| {
        infomax(dir.path(), &["pretrain", "--quiet", "--no-eval", "--resume", "run", "--epochs", epochs])
    };
    let output = resume("3");
    ok(&output);
    assert!(stderr(&output).contains("schedule"), "{}", stderr(&output));
    let steps = metrics(&dir.path().join("run")).len();
    assert_eq!(steps, 15);
    // The configuration is that of the longer run.
    ok(&infomax(dir.path(), &["pretrain", "--quiet", "--no-eval", "--resume", "run"]));
    let output = resume("2");
    assert!(!output.status.success() && stderr(&output).contains("15 steps already"), "{}", stderr(&output));
}

#[test]
fn images_are_embedded_with_what_each_row_is() {
    let dir = tempfile::tempdir().unwrap();
    ok(&pretrain(dir.path(), &["--epochs", "1", "--no-eval", "--run", "run"]));
    let output = infomax(dir.path(), &["embed", "run", "-o", "z.npy", "--json", "--quiet"]);
    ok(&output);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&report["rows"], &report["dim"], &report["step"]), (&300.into(), &16.into(), &5.into()));
    let npy = fs::read(dir.path().join("z.npy")).unwrap();
    assert!(npy.starts_with(b"\x93NUMPY") && npy.len() > 300 * 16 * 4);
    let rows = fs::read_to_string(dir.path().join("z.csv")).unwrap();
    let rows: Vec<&str> = rows.lines().collect();
    assert_eq!((rows[0], rows.len()), ("row,part,index,label,class,place", 301));
    assert!(rows[1].starts_with("0,train,0,") && rows[300].starts_with("299,test,99,"), "{}", rows[300]);

    // Other files, other space, an older checkpoint; the values are those of the first.
    ok(&infomax(dir.path(), &["embed", "run", "-o", "z.safetensors", "--quiet", "--checkpoint", "5"]));
    let tensors = fs::read(dir.path().join("z.safetensors")).unwrap();
    assert!(npy.ends_with(&tensors[tensors.len() - 300 * 16 * 4..]), "z comes last and is the same");
    let output = infomax(dir.path(), &["embed", "run", "-o", "p.npz", "--projections", "--json", "--quiet"]);
    ok(&output);
    assert_eq!(serde_json::from_str::<Value>(&stdout(&output)).unwrap()["dim"], 32);

    for (args, wanted) in [
        (&["embed", "run", "-o", "z.parquet"][..], ".npy, .npz or .safetensors"),
        (&["embed", "run", "-o", "nowhere/z.npy"], "there is no folder nowhere"),
        (&["embed", "run", "-o", "z.npy", "--checkpoint", "3"], "those of the steps 5"),
        (&["evaluate", "run", "--checkpoint", "3"], "those of the steps 5"),
    ] {
        let output = infomax(dir.path(), args);
        assert!(!output.status.success() && stderr(&output).contains(wanted), "{}", stderr(&output));
    }
}

#[test]
fn an_evaluation_says_what_was_trained_on_what_and_needs_the_model_alone() {
    let dir = tempfile::tempdir().unwrap();
    ok(&pretrain(dir.path(), &["--epochs", "1", "--no-eval", "--run", "run"]));
    let run = dir.path().join("run");
    fs::remove_file(run.join("checkpoints/step-00000005/optimizer.safetensors")).unwrap();
    // What cannot be written is said, and the table is printed.
    fs::create_dir(run.join("evaluation.json")).unwrap();
    let output = infomax(dir.path(), &["evaluate", "run"]);
    ok(&output);
    let text = stdout(&output);
    assert!(
        text.contains("on 100 images of shapes") && text.contains("5 steps on 200 images of shapes"),
        "{text}"
    );
    assert!(stderr(&output).contains("not kept with the run"), "{}", stderr(&output));

    let log = fs::read_to_string(run.join("log.txt")).unwrap();
    let first = log.lines().next().unwrap();
    assert!(first.starts_with("20") && first.contains("T") && first.contains("Z "), "{first}");
    assert!(log.contains("too few measurements to judge the embedding"), "{log}");
}

#[cfg(unix)]
#[test]
fn files_have_the_mode_that_the_umask_leaves() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_infomax");
    let sets = common::SMALL.join("' '");
    let command = format!(
        "umask 027 && '{program}' pretrain --quiet --epochs 1 --run run '{sets}' && '{program}' embed run -o z.npy"
    );
    let output =
        std::process::Command::new("sh").current_dir(dir.path()).args(["-c", &command]).output().unwrap();
    ok(&output);
    let files = ["run/config.toml", "run/evaluation.json", "run/log.txt", "z.npy", "z.csv"];
    for file in files.into_iter().chain(["run/checkpoints/step-00000005/model.safetensors"]) {
        let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "{file}");
    }
}

#[test]
fn the_views_of_a_folder_follow_from_its_images_unless_they_are_chosen() {
    let dir = tempfile::tempdir().unwrap();
    for (name, side) in [("icons", 32), ("photographs", 100)] {
        for i in 0..6u32 {
            let folder = dir.path().join(name).join(if i % 2 == 0 { "cats" } else { "dogs" });
            fs::create_dir_all(&folder).unwrap();
            let image =
                image::RgbImage::from_fn(side + i, side, |x, y| image::Rgb([x as u8, y as u8, i as u8]));
            image.save(folder.join(format!("{i}.png"))).unwrap();
        }
    }
    let show = |args: &[&str]| {
        let output = infomax(dir.path(), &[&["config", "show"], args].concat());
        ok(&output);
        let text = stdout(&output);
        let line = |key: &str| text.lines().find(|line| line.starts_with(key)).map(ToOwned::to_owned);
        (line("preset").unwrap_or_default(), line("size").unwrap_or_default())
    };
    let (preset, size) = show(&["--data", "icons"]);
    assert!(preset.contains("vicreg-cifar") && preset.contains("follows from the images"), "{preset}");
    assert!(size.contains("= 32"), "{size}");
    let (preset, size) = show(&["--data", "photographs"]);
    assert!(preset.contains("vicreg-imagenet") && size.contains("= 64"), "{preset} {size}");
    // What is chosen holds.
    let (preset, size) = show(&["--data", "photographs", "--set", "augment.preset=vicreg-cifar"]);
    assert!(
        preset.contains("vicreg-cifar") && preset.contains("--set") && size.is_empty(),
        "{preset} {size}"
    );
    let (preset, size) = show(&["--data", "photographs", "--set", "augment.size=48"]);
    assert!(preset.contains("vicreg-imagenet") && size.contains("= 48"), "{preset} {size}");
}

#[test]
fn what_would_stop_a_run_is_refused_before_it_has_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    for (sets, wanted) in [
        (&["objective.name=byol"][..], "byol"),
        (&["objective.name=w-mse", "model.projector=[64, 64]"], "batch of 40"),
        (&["model.encoder.kind=vit", "model.encoder.patch=5"], "patch"),
    ] {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        for command in [&["pretrain", "--quiet", "--run", "run"][..], &["config", "show"]] {
            // The keys of the residual network belong to another kind.
            let small =
                common::SMALL.chunks(2).filter(|pair| !pair[1].starts_with("model.encoder")).flatten();
            let args: Vec<&str> = command.iter().chain(small).chain(&sets).copied().collect();
            let output = infomax(dir.path(), &args);
            let said = stderr(&output);
            assert!(output.status.code() == Some(1) && said.contains(wanted), "{args:?}: {said}");
            assert!(!dir.path().join("run").exists(), "{args:?}");
        }
    }
}
