//! `infomax data`, and training on every kind of source, as a user runs them.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

fn infomax(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_infomax")).current_dir(dir).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A colored square per class, with some noise.
fn pixels(i: usize, side: usize) -> Vec<u8> {
    let at = |k: usize| {
        let (channel, place) = (k / (side * side), k % (side * side));
        let base = if channel == i % 3 { 180 } else { 40 };
        (base + (i * 31 + place * 7) % 60) as u8
    };
    (0..3 * side * side).map(at).collect()
}

fn cifar(folder: &Path, train: usize, test: usize) {
    fs::create_dir_all(folder).unwrap();
    let records = |from: usize, count: usize| -> Vec<u8> {
        (from..from + count).flat_map(|i| [vec![(i % 3) as u8], pixels(i, 32)].concat()).collect()
    };
    fs::write(folder.join("data_batch_1.bin"), records(0, train)).unwrap();
    fs::write(folder.join("test_batch.bin"), records(train, test)).unwrap();
}

fn png(i: usize) -> Vec<u8> {
    let planes = pixels(i, 32);
    let image = image::RgbImage::from_fn(32, 32, |x, y| {
        let at = (y * 32 + x) as usize;
        image::Rgb([planes[at], planes[1024 + at], planes[2048 + at]])
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// One short epoch of a tiny network.
fn pretrain(dir: &Path, data: &str, more: &[&str]) -> Output {
    let args = [
        "pretrain",
        "--quiet",
        "--json",
        "--data",
        data,
        "--set",
        "train.epochs=1",
        "--set",
        "model.encoder.blocks=[1]",
        "--set",
        "model.encoder.width=4",
        "--set",
        "model.projector=[8, 8]",
        "--set",
        "train.batch=8",
        "--set",
        "augment.size=16",
        "--set",
        "eval.knn.k=3",
        "--set",
        "eval.random_baseline=false",
        "--set",
        "eval.pixel_baseline=false",
    ];
    infomax(dir, &[&args[..], more].concat())
}

/// Collapse is no failure here: the network is far too small.
#[track_caller]
fn trained(output: &Output, steps: u64) -> Value {
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["steps"], steps, "{report}");
    report
}

#[test]
fn info_tells_counts_classes_sizes_and_damage() {
    let dir = TempDir::new().unwrap();
    for (name, i) in [("a/1.png", 0), ("a/2.png", 1), ("b/1.png", 2)] {
        let path = dir.path().join("set").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, png(i)).unwrap();
    }
    fs::write(dir.path().join("set/b/bad.png"), &png(3)[..60]).unwrap();
    fs::write(dir.path().join("set/b/empty.jpg"), b"").unwrap();
    let info = json(&infomax(dir.path(), &["data", "info", "set", "--json", "--verify", "decode"]));
    let part = &info["parts"][0];
    assert_eq!(
        (&info["format"], &part["name"], &part["images"]),
        (&"image folder".into(), &"train".into(), &3.into())
    );
    assert_eq!(part["classes"], serde_json::json!([{"name": "a", "images": 2}, {"name": "b", "images": 1}]));
    assert_eq!(part["sizes"], serde_json::json!({"least": [32, 32], "largest": [32, 32]}));
    let damaged = part["damaged"].as_array().unwrap();
    assert_eq!(damaged.len(), 2);
    assert!(
        damaged.iter().any(|d| d["path"] == "set/b/empty.jpg" && d["reason"] == "the file is empty"),
        "{damaged:?}"
    );

    let output = infomax(dir.path(), &["data", "info", "set", "--list", "1"]);
    let shown = text(&output.stdout);
    assert!(
        shown.contains("set: image folder") && shown.contains("1 to 2") && shown.contains("... and 1 more"),
        "{shown}"
    );
    let strict = infomax(dir.path(), &["data", "info", "set", "--strict"]);
    assert_eq!(strict.status.code(), Some(1));
    assert!(text(&strict.stderr).contains("2 damaged files"), "{}", text(&strict.stderr));
    let gone = infomax(dir.path(), &["data", "info", "gone"]);
    assert!(
        gone.status.code() == Some(1) && text(&gone.stderr).contains("no such file"),
        "{}",
        text(&gone.stderr)
    );

    cifar(&dir.path().join("cifar"), 5, 2);
    let info = json(&infomax(dir.path(), &["data", "info", "cifar", "--json"]));
    assert_eq!((&info["format"], &info["parts"][1]["images"]), (&"CIFAR-10 binary".into(), &2.into()));
}

#[test]
fn pretrain_takes_cifar() {
    let dir = TempDir::new().unwrap();
    cifar(&dir.path().join("cifar"), 30, 12);
    let report = trained(&pretrain(dir.path(), "cifar", &[]), 3);
    let evaluation = &report["evaluation"];
    assert_eq!(
        (&evaluation["train_images"], &evaluation["test_images"], &evaluation["classes"]),
        (&30.into(), &12.into(), &3.into())
    );
    let run = report["run"].as_str().unwrap();
    let metrics = fs::read_to_string(dir.path().join(run).join("metrics.jsonl")).unwrap();
    let line: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    for counter in ["decode_s", "augment_s"] {
        assert!(line["time"][counter].as_f64().unwrap() > 0.0, "{counter}: {line}");
    }
}

#[test]
fn pretrain_takes_the_unlabeled_part_of_stl_10_and_probes_the_labeled_one() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("stl10_binary");
    fs::create_dir(&folder).unwrap();
    let write = |name: &str, from: usize, count: usize| {
        let images: Vec<u8> = (from..from + count).flat_map(|i| pixels(i, 96)).collect();
        fs::write(folder.join(format!("{name}_X.bin")), images).unwrap();
        let labels: Vec<u8> = (from..from + count).map(|i| (i % 3 + 1) as u8).collect();
        if name != "unlabeled" {
            fs::write(folder.join(format!("{name}_y.bin")), labels).unwrap();
        }
    };
    write("train", 0, 9);
    write("test", 9, 6);
    write("unlabeled", 20, 32);
    let report = trained(&pretrain(dir.path(), "stl10_binary", &["--set", "data.part=unlabeled"]), 4);
    assert_eq!(
        (&report["evaluation"]["train_images"], &report["evaluation"]["test_images"]),
        (&9.into(), &6.into())
    );
    let wrong = pretrain(dir.path(), "stl10_binary", &["--set", "data.part=dev"]);
    assert!(text(&wrong.stderr).contains("there are train, test, unlabeled"), "{}", text(&wrong.stderr));
}

#[test]
fn pretrain_takes_tar_shards_and_lists_and_splits_them() {
    let dir = TempDir::new().unwrap();
    let mut tar = tar::Builder::new(fs::File::create(dir.path().join("shapes.tar")).unwrap());
    let mut list = String::new();
    for i in 0..30 {
        let bytes = png(i);
        fs::write(dir.path().join(format!("{i}.png")), &bytes).unwrap();
        list += &format!("{i}.png,{}\n", ["red", "green", "blue"][i % 3]);
        for (name, bytes) in
            [(format!("{i}.png"), bytes), (format!("{i}.cls"), (i % 3).to_string().into_bytes())]
        {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, &bytes[..]).unwrap();
        }
    }
    tar.finish().unwrap();
    fs::write(dir.path().join("list.csv"), list).unwrap();
    for source in ["shapes.tar", "list.csv"] {
        let report = trained(&pretrain(dir.path(), source, &[]), 3);
        let evaluation = &report["evaluation"];
        assert_eq!(
            (&evaluation["train_images"], &evaluation["test_images"]),
            (&24.into(), &6.into()),
            "{source}"
        );
    }
}

#[test]
fn an_image_found_damaged_in_a_run_is_replaced_and_named() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("set");
    fs::create_dir(&folder).unwrap();
    for i in 0..24 {
        fs::write(folder.join(format!("{i:02}.png")), png(i)).unwrap();
    }
    // Whole in its header, damaged behind it: found only when it is decoded.
    let mut damaged = png(24);
    damaged[60..100].fill(0);
    fs::write(folder.join("24.png"), damaged).unwrap();
    let none = ["--set", "data.cache_mib=0", "--set", "train.epochs=3"];
    let output = pretrain(dir.path(), "set", &none);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("1 samples could not be read and were replaced"),
        "{}",
        text(&output.stderr)
    );
    let log = fs::read_to_string(dir.path().join("runs/001-vicreg-set/log.txt")).unwrap();
    assert!(log.contains("24.png"), "{log}");
    let strict = pretrain(dir.path(), "set", &[&none[..], &["--strict"]].concat());
    assert_eq!(strict.status.code(), Some(1));
    assert!(text(&strict.stderr).contains("24.png"), "{}", text(&strict.stderr));
}

/// Images without a label are trained on and left out of the probes; numbers of classes with gaps cost nothing; a
/// class that is missing in the test part, or that is only there, is said before training.
#[test]
fn probes_take_what_has_a_label_and_say_what_they_leave_out() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("set");
    let write = |name: &str, i: usize| {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, png(i)).unwrap();
    };
    for i in 0..30 {
        write(&format!("Training/{}/{i}.png", ["5", "200000", "red"][i % 3]), i);
    }
    for i in 0..8 {
        write(&format!("Testing/{}/{i}.png", ["5", "200000"][i % 2]), i + i / 2);
    }
    write("Training/none.png", 0);
    write("Training/none2.png", 1);
    write("Testing/blue/0.png", 2);
    write("Testing/loose.png", 2);
    let output = pretrain(dir.path(), "set", &[]);
    let evaluation = trained(&output, 4)["evaluation"].clone();
    let count = |key: &str| evaluation[key].as_u64().unwrap();
    assert_eq!((count("train_images"), count("test_images"), count("classes")), (32, 8, 3));
    assert_eq!((count("unlabeled_train"), count("unlabeled_test")), (2, 2));
    assert!(evaluation["rows"][0]["linear"].is_number(), "{evaluation}");
    let said = text(&output.stderr);
    let log = fs::read_to_string(dir.path().join("runs/001-vicreg-set/log.txt")).unwrap();
    for words in [
        "2 of 32 training images have no label",
        "none.png",
        "1 of 10 held-out images have no label",
        "1 of 3 classes have no held-out image (red)",
        "1 held-out images are of classes that no training image has (blue)",
    ] {
        assert!(log.contains(words), "{words}: {log}\n{said}");
    }
    let info = json(&infomax(dir.path(), &["data", "info", "set", "--json"]));
    assert_eq!((&info["parts"][0]["unlabeled"], &info["parts"][1]["images"]), (&2.into(), &10.into()));
    assert!(info["notes"].is_array());

    // No label anywhere in the held-out part: said, and no error behind the training.
    fs::remove_dir_all(folder.join("Testing/5")).unwrap();
    fs::remove_dir_all(folder.join("Testing/200000")).unwrap();
    fs::remove_dir_all(folder.join("Testing/blue")).unwrap();
    let report = trained(&pretrain(dir.path(), "set", &[]), 4);
    let why = report["evaluation"]["no_probe"].as_str().unwrap();
    assert!(why.contains("have no labels"), "{why}");

    let gone = infomax(dir.path(), &["pretrain", "--quiet", "--set", "data.path=/nope/at/all"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stderr).contains("/nope/at/all: no such file"), "{}", text(&gone.stderr));
}

/// Images without folders of classes.
fn write_flat(dir: &Path) {
    for (part, count) in [("train", 16), ("test", 4)] {
        let folder = dir.join("flat").join(part);
        fs::create_dir_all(&folder).unwrap();
        (0..count).for_each(|i| fs::write(folder.join(format!("{i}.png")), png(i)).unwrap());
    }
}

#[test]
fn a_method_that_learns_from_labels_refuses_a_single_class() {
    let dir = TempDir::new().unwrap();
    let write = |name: &str, i: usize| {
        let path = dir.path().join("set").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, png(i)).unwrap();
    };
    for i in 0..16 {
        write(&format!("train/red/{i}.png"), i);
    }
    for i in 0..4 {
        write(&format!("test/red/{i}.png"), i);
    }
    let mcr2 = ["--no-eval", "--set", "objective.name=mcr2"];
    let supervised = [&mcr2[..], &["--set", "objective.entropy.supervised=true"]].concat();
    let output = pretrain(dir.path(), "set", &supervised);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("all 16 training images have the same class (`red`)"), "{said}");
    assert!(!dir.path().join("runs").exists(), "nothing is written");
    // Images without a class beside others: which, and how many.
    write_flat(dir.path());
    let output = pretrain(dir.path(), "flat", &["--no-eval", "--method", "supcon"]);
    let said = text(&output.stderr);
    assert!(
        said.contains("learns from labels, and 16 of 16 training images have none (the first: "),
        "{said}"
    );
    assert!(said.contains("0.png"), "{said}");
    let output = pretrain(dir.path(), "set", &["--no-eval", "--method", "supcon"]);
    assert!(
        text(&output.stderr).contains("all 16 training images have the same class"),
        "{}",
        text(&output.stderr)
    );
    // Without labels in the objective one class is as good as any number; with two classes labels are of use.
    assert!(pretrain(dir.path(), "set", &mcr2).status.success());
    write("train/blue/0.png", 1);
    let output = pretrain(dir.path(), "set", &supervised);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn fetch_lists_suggests_and_refuses_what_is_not_the_file() {
    let dir = TempDir::new().unwrap();
    let list = infomax(dir.path(), &["data", "fetch", "--list"]);
    let shown = text(&list.stdout);
    for name in ["cifar10", "cifar100", "stl10", "tiny-imagenet", "mnist", "fashion-mnist"] {
        assert!(shown.contains(&format!("\n{name}: ")), "{shown}");
    }
    assert!(shown.contains("license: MIT"));
    let wrong = infomax(dir.path(), &["data", "fetch", "cifar-10"]);
    assert!(text(&wrong.stderr).contains("did you mean `cifar10`"), "{}", text(&wrong.stderr));

    // A mirror that answers every request with the same few bytes.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mnist", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let read = stream.read(&mut [0; 4096]).unwrap();
        assert!(read > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello").unwrap();
    });
    let output = infomax(dir.path(), &["data", "fetch", "mnist", "--to", "m", "--base-url", &url, "--quiet"]);
    server.join().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(
        message.contains("has 5 bytes, not 9912422") && message.contains("/mnist/train-images"),
        "{message}"
    );
    assert!(!dir.path().join("m/train-images-idx3-ubyte.gz").exists());
}
