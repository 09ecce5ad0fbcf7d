//! `infomax methods` and `pretrain --method` from the shell.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

mod common;

use common::{infomax, ok, stderr, stdout};
use std::path::Path;

fn out(args: &[&str]) -> String {
    let output = infomax(Path::new("."), args);
    ok(&output);
    stdout(&output)
}

#[test]
fn methods_are_listed_and_written_out() {
    let list: Vec<serde_json::Value> = serde_json::from_str(&out(&["methods", "--json"])).unwrap();
    assert!(list.len() >= 34, "{}", list.len());
    let byol = list.iter().find(|method| method["name"] == "byol").unwrap();
    assert_eq!(byol["recipe"]["small"]["model"]["teacher_momentum"], 0.99);
    assert_eq!((&byol["entropy"], &byol["entropy_in_nats"]), (&"none".into(), &false.into()));
    let simclr = list.iter().find(|method| method["name"] == "simclr").unwrap();
    assert_eq!(simclr["entropy_in_nats"], true);
    let text = out(&["methods"]);
    for part in [
        "vicregl",
        "local 512-512-512",
        "multicrop-shapes",
        "arXiv 2006.07733",
        "infomax pretrain --method NAME",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // One method is printed as a file that gives the same configuration as its name.
    let folder = tempfile::tempdir().unwrap();
    let printed = out(&["methods", "byol"]);
    let path = folder.path().join("byol.toml");
    std::fs::write(&path, printed).unwrap();
    let read = |args: &[&str]| -> serde_json::Value { serde_json::from_str(&out(args)).unwrap() };
    let by_file = read(&["config", "show", "--json", "--config", path.to_str().unwrap()]);
    let by_name = read(&["config", "show", "--json", "--method", "byol"]);
    assert_eq!((&by_name["method"], &by_name), (&"byol".into(), &by_file));
    // Its views are those of the method, too.
    std::fs::write(&path, out(&["methods", "emp-ssl"])).unwrap();
    let shown = read(&["config", "show", "--json", "--config", path.to_str().unwrap()]);
    assert_eq!(shown["augment"]["preset"], "emp-ssl-shapes");
}

/// The rate of LARS is none of AdamW, nor that of AdamW one of Muon.
#[test]
fn another_optimizer_has_a_rate_of_its_own() {
    let read = |args: &[&str]| -> serde_json::Value {
        serde_json::from_str(&out(&[&["config", "show", "--json"], args].concat())).unwrap()
    };
    let own = read(&["--method", "byol"]);
    assert_eq!((&own["optim"]["lr"], &own["train"]["clip_grad_norm"]), (&1.0.into(), &1.0.into()));
    let other = read(&["--method", "byol", "--set", "optim.name=adamw"]);
    assert_eq!((&other["optim"]["lr"], &other["optim"]["weight_decay"]), (&5e-4.into(), &0.05.into()));
    assert!(other["train"]["clip_grad_norm"].is_null() && other["optim"]["eta"].is_null(), "{other}");
    assert_eq!(read(&["--method", "byol", "--set", "optim.name=lars"])["optim"], own["optim"]);
    assert_eq!(read(&["--set", "optim.name=muon"])["optim"]["lr"], 0.02);
    assert_eq!(read(&["--set", "optim.name=muon", "--set", "optim.lr=0.1"])["optim"]["lr"], 0.1);
    assert_eq!(read(&[])["optim"]["lr"], 0.0028);
    assert_eq!(read(&["--set", "optim.name=adamw"])["optim"]["lr"], 0.0028);
}

#[test]
fn wrong_names_and_contradictions_are_said() {
    for (args, parts) in [
        (&["methods", "byoll"][..], &["byoll", "did you mean `byol`"][..]),
        (&["pretrain", "--method", "vicregg"], &["vicregg", "did you mean `vicreg`"]),
        (
            &["pretrain", "--method", "byol", "--set", "objective.name=simclr"],
            &["byol", "simclr", "leave one"],
        ),
        (&["pretrain", "--method", "byol", "--set", "model.predictor=[]"], &["predict"]),
        (&["pretrain", "--set", "model.predictor=[16]"], &["model.predictor", "does not look at"]),
        (
            &["pretrain", "--method", "byol", "--set", "model.predictor=[0]"],
            &["predictor = [0]", "at least 1"],
        ),
        (&["pretrain", "--set", "model.projector=[4, 0]"], &["projector = [4, 0]", "at least 1"]),
    ] {
        let output = infomax(Path::new("."), args);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {error}");
        assert!(parts.iter().all(|part| error.contains(part)), "{args:?}: {error}");
    }
}
