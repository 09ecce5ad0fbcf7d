//! Weights out of runs and into them, by the program.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

mod common;

use candle_core::{Device, Tensor};
use common::{SMALL, infomax, ok, pretrain, stderr, stdout};
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

fn golden(name: &str) -> String {
    format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn tensors(path: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn bits(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

#[track_caller]
fn refused(dir: &Path, args: &[&str], parts: &[&str]) {
    let output = infomax(dir, args);
    let said = stderr(&output);
    assert!(!output.status.success() && parts.iter().all(|part| said.contains(part)), "{args:?}: {said}");
}

#[test]
fn an_export_holds_the_encoder_says_what_it_is_and_starts_another_run() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    ok(&pretrain(
        dir,
        &["--epochs", "1", "--no-eval", "--run", "run", "--set", "model.teacher_momentum=0.5"],
    ));
    let export = |more: &[&str]| infomax(dir, &[&["export", "run", "--quiet"], more].concat());
    let output = export(&["-o", "t.safetensors", "--names", "torchvision"]);
    ok(&output);
    let code = stdout(&output);
    for part in
        ["model.load_state_dict(state, strict=True)", "\"t.safetensors\"", "model.maxpool", "model.layer3 ="]
    {
        assert!(code.contains(part), "{code}");
    }
    ok(&export(&["-o", "again.safetensors", "--names", "torchvision", "--checkpoint", "5"]));
    let bytes = fs::read(dir.join("t.safetensors")).unwrap();
    assert!(bytes == fs::read(dir.join("again.safetensors")).unwrap(), "equal exports are equal bytes");
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + size]).unwrap();
    let said = &header["__metadata__"];
    assert_eq!((&said["format"], &said["names"]), (&"pt".into(), &"torchvision".into()));
    assert_eq!((&said["architecture"], &said["input_size"]), (&"resnet".into(), &"[3, 16, 16]".into()));
    assert!(said["python"].as_str().unwrap().contains("BasicBlock"), "{said}");
    assert!(said["mean"].as_str().unwrap().starts_with("[0."), "{said}");

    let checkpoint = tensors(&dir.join("run/checkpoints/step-00000005/model.safetensors"));
    let exported = tensors(&dir.join("t.safetensors"));
    assert_eq!(exported.len(), checkpoint.keys().filter(|name| name.starts_with("encoder.")).count());
    for (name, tensor) in &exported {
        assert_eq!(bits(tensor), bits(&checkpoint[&format!("encoder.{name}")]), "{name}");
    }
    // The head under its prefix, the teacher, a checkpoint by its folder.
    let folder = "run/checkpoints/step-00000005";
    let args = [
        "export",
        folder,
        "-o",
        "h.safetensors",
        "--names",
        "own",
        "--head",
        "--teacher",
        "--json",
        "--quiet",
    ];
    let output = infomax(dir, &args);
    ok(&output);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let heads = tensors(&dir.join("h.safetensors"));
    assert_eq!(report["tensors"], heads.len());
    assert_eq!(bits(&heads["conv1.weight"]), bits(&checkpoint["teacher.encoder.conv1.weight"]));
    assert_eq!(bits(&heads["projector.0.weight"]), bits(&checkpoint["teacher.projector.0.weight"]));

    // The features are those of the run, whether from the checkpoint, the export or the run as a start.
    ok(&infomax(dir, &["embed", "run", "-o", "a.npy", "--quiet"]));
    for init in ["t.safetensors", "run", folder] {
        ok(&infomax(dir, &["embed", "run", "-o", "b.npy", "--quiet", "--init", init]));
        assert!(fs::read(dir.join("a.npy")).unwrap() == fs::read(dir.join("b.npy")).unwrap(), "{init}");
    }
    // A run of no learning rate keeps the weights that it starts from; running statistics follow its batches.
    let start =
        ["--epochs", "1", "--no-eval", "--run", "next", "--init", "t.safetensors", "--set", "optim.lr=1e-30"];
    ok(&pretrain(dir, &[&start[..], &["--set", "optim.weight_decay=0"]].concat()));
    let next = tensors(&dir.join("next/checkpoints/step-00000005/model.safetensors"));
    for (name, tensor) in exported.iter().filter(|(name, _)| !name.contains("running")) {
        assert_eq!(bits(tensor), bits(&next[&format!("encoder.{name}")]), "{name}");
    }
    let log = fs::read_to_string(dir.join("next/log.txt")).unwrap();
    assert!(log.contains("the encoder starts from") && log.contains("names of torchvision"), "{log}");
    // It continues without the file, which is absolute in its configuration.
    assert!(fs::read_to_string(dir.join("next/config.toml")).unwrap().contains(dir.to_str().unwrap()));
    fs::remove_file(dir.join("t.safetensors")).unwrap();
    ok(&infomax(dir, &["pretrain", "--quiet", "--no-eval", "--resume", "next", "--epochs", "2"]));

    let onnx = ["export", "run", "-o", "e.onnx", "--quiet", "--head", "--json"];
    let output = infomax(dir, &onnx);
    ok(&output);
    assert!(stdout(&output).contains("opset 17"), "{}", stdout(&output));
    let graph = fs::read(dir.join("e.onnx")).unwrap();
    for part in ["projections", "BatchNormalization", "layer2.0.downsample.1.running_var", "input_size"] {
        assert!(graph.windows(part.len()).any(|window| window == part.as_bytes()), "{part}");
    }

    refused(dir, &["export", "run", "-o", "x.bin", "--names", "timm"], &[".safetensors or .onnx"]);
    refused(dir, &["export", "run", "-o", "x.safetensors"], &["--names is missing", "torchvision"]);
    refused(
        dir,
        &["export", "run", "-o", "x.safetensors", "--names", "keras"],
        &["keras", "torchvision, timm or own"],
    );
    refused(dir, &["export", "run", "-o", "x.onnx", "--names", "timm"], &["--names goes with"]);
    refused(dir, &["export", "run", "-o", "no/x.onnx"], &["there is no folder no"]);
    refused(dir, &["export", "next", "-o", "x.onnx", "--teacher"], &["no momentum teacher"]);
    refused(dir, &["export", "nowhere", "-o", "x.onnx"], &["nowhere"]);
}

/// Heads and pooling show in no shape: where the file knows them, another setting is said.
#[test]
fn weights_of_another_function_are_said() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let vit = |run: &str, heads: &str, more: &[&str]| {
        let heads = format!("model.encoder.heads={heads}");
        let keys = ["kind=vit", "width=12", "depth=1", "image=16", "patch=4"]
            .map(|key| format!("model.encoder.{key}"));
        let mut args: Vec<&str> = keys.iter().flat_map(|key| ["--set", key.as_str()]).collect();
        args.extend(["--set", &heads, "--set", "data.train_images=80", "--set", "data.test_images=20"]);
        args.extend(["--set", "data.shapes.size=16", "--set", "augment.size=16", "--set", "train.batch=40"]);
        args.extend([
            "--set",
            "train.max_steps=1",
            "--set",
            "model.projector=[8]",
            "--no-eval",
            "--run",
            run,
        ]);
        args.extend(more);
        ok(&infomax(dir, &[&["pretrain", "--quiet"], args.as_slice()].concat()));
        fs::read_to_string(dir.join(run).join("log.txt")).unwrap()
    };
    vit("a", "2", &[]);
    ok(&infomax(dir, &["export", "a", "-o", "a.safetensors", "--names", "timm", "--quiet"]));
    let same = vit("b", "2", &["--init", "a.safetensors"]);
    assert!(same.contains("the encoder starts from") && !same.contains("another function"), "{same}");
    let other = vit("c", "3", &["--init", "a.safetensors"]);
    assert!(other.contains("another function") && other.contains("heads was 2, now it is 3"), "{other}");
}

#[test]
fn weights_of_pytorch_and_of_a_hub_are_recognized_and_others_refused_before_a_run() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path();
    let hub = dir.join("hub");
    fs::create_dir(&hub).unwrap();
    fs::copy(golden("resnet.safetensors"), hub.join("model.safetensors")).unwrap();
    let config = r#"{"architecture": "resnet_tiny", "pretrained_cfg": {"mean": [0.485, 0.456, 0.406], "std": [1, 1, 1]}}"#;
    fs::write(hub.join("config.json"), config).unwrap();
    let pth = golden("resnet.pth");
    let loud = |more: &[&str]| {
        let args = [&["pretrain", "--epochs", "1", "--no-eval"][..], &SMALL, more].concat();
        infomax(dir, &args)
    };
    let output = loud(&["--run", "a", "--init", "hub"]);
    ok(&output);
    let said = stderr(&output);
    for part in [
        "`resnet_tiny`",
        "names of torchvision",
        "F16",
        "converted",
        "fc.*",
        "used to pixels with the mean [0.485",
    ] {
        assert!(said.to_lowercase().contains(&part.to_lowercase()), "{part}: {said}");
    }
    // What the note says to write is what makes it go away.
    let pixels = ["--set", "augment.mean=[0.485, 0.456, 0.406]", "--set", "augment.std=[1.0, 1.0, 1.0]"];
    let output = loud(&[&["--run", "a2", "--init", "hub"][..], &pixels].concat());
    ok(&output);
    assert!(said.contains("augment.mean = [0.485") && !stderr(&output).contains("used to pixels"), "{said}");
    let output = loud(&["--run", "b", "--init", &pth]);
    ok(&output);
    assert!(stderr(&output).contains("names of torchvision"), "{}", stderr(&output));

    // The same weights in two files with an index, as hubs keep large ones.
    let shards = dir.join("shards");
    fs::create_dir(&shards).unwrap();
    fs::copy(hub.join("config.json"), shards.join("config.json")).unwrap();
    let all = tensors(&hub.join("model.safetensors"));
    let file = |name: &str| {
        if name < "layer1.1" {
            "model-00001-of-00002.safetensors"
        } else {
            "model-00002-of-00002.safetensors"
        }
    };
    for part in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        let some: HashMap<String, Tensor> =
            all.iter().filter(|(name, _)| file(name) == part).map(|(n, t)| (n.clone(), t.clone())).collect();
        assert!(!some.is_empty());
        candle_core::safetensors::save(&some, shards.join(part)).unwrap();
    }
    let index = |lost: &str| {
        let map: HashMap<&str, &str> =
            all.keys().map(|name| (name.as_str(), file(name))).filter(|(name, _)| *name != lost).collect();
        let text = serde_json::json!({ "metadata": {}, "weight_map": map }).to_string();
        fs::write(shards.join("model.safetensors.index.json"), text).unwrap();
    };
    index("");
    ok(&loud(&["--run", "s", "--init", "shards"]));
    let weights = |run: &str| {
        let mut all: Vec<_> = fs::read_dir(dir.join(run).join("checkpoints")).unwrap().flatten().collect();
        all.sort_by_key(fs::DirEntry::file_name);
        tensors(&all.last().unwrap().path().join("model.safetensors"))
    };
    let (one, two) = (weights("a"), weights("s"));
    assert_eq!(one.len(), two.len());
    assert!(one.iter().all(|(name, t)| bits(t) == bits(&two[name])), "one file and two are the same weights");

    let other = |encoder: &str, init: &str, parts: &[&str]| {
        let args = [&["pretrain", "--quiet", "--run", "c"][..], &SMALL, &["--set", encoder, "--init", init]]
            .concat();
        refused(dir, &args, parts);
        assert!(!dir.join("c").exists(), "a refused run leaves no folder");
    };
    other(
        "model.encoder.width=6",
        "hub",
        &["resnet_tiny", "bn1.bias", "is [8] in the file, the model has [6]"],
    );
    other("model.encoder.blocks=[1, 2]", &pth, &["`layer2.1.bn1.bias`", "not in the file"]);
    other("train.seed=1", "nowhere.safetensors", &["nowhere.safetensors", "No such file"]);
    fs::write(dir.join("junk.safetensors"), b"junk").unwrap();
    other(
        "train.seed=1",
        "junk.safetensors",
        &["junk.safetensors", "neither a safetensors file", "save_file"],
    );
    let whole = fs::read(hub.join("model.safetensors")).unwrap();
    for cut in [whole.len() - 1, 200] {
        fs::write(dir.join("cut.safetensors"), &whole[..cut]).unwrap();
        other(
            "train.seed=1",
            "cut.safetensors",
            &["cut.safetensors", "it is cut off", &format!("{cut} bytes")],
        );
    }
    let mut spoiled = all.clone();
    let name = spoiled.keys().find(|name| name.ends_with("conv1.weight")).unwrap().clone();
    let nan = spoiled[&name].to_dtype(candle_core::DType::F32).unwrap().affine(f64::NAN, 0.0).unwrap();
    spoiled.insert(name.clone(), nan);
    candle_core::safetensors::save(&spoiled, dir.join("nan.safetensors")).unwrap();
    other("train.seed=1", "nan.safetensors", &["1 of its", &format!("`{name}`"), "NaN"]);
    fs::create_dir(dir.join("empty")).unwrap();
    other("train.seed=1", "empty", &["empty", "has no model.safetensors"]);
    index("bn1.bias");
    other("train.seed=1", "shards", &["`bn1.bias`", "not in the index"]);
    fs::write(
        shards.join("model.safetensors.index.json"),
        r#"{"weight_map": {"a": "../hub/model.safetensors"}}"#,
    )
    .unwrap();
    other("train.seed=1", "shards", &["no name of a file beside it"]);
    fs::write(shards.join("model.safetensors.index.json"), r#"{"weight_map": {"a": "lost.safetensors"}}"#)
        .unwrap();
    other("train.seed=1", "shards", &["lost.safetensors", "No such file"]);
}
