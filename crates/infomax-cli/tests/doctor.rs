//! `infomax doctor` and `--device`, through the program.

#![allow(clippy::unwrap_used)]

mod common;

use common::{infomax, ok, pretrain, stderr, stdout};
use serde_json::Value;

/// Builds for a card have other answers, which depend on the machine.
const PLAIN: bool = !cfg!(any(feature = "cuda", feature = "metal"));

#[test]
fn the_machine_and_the_build_are_described() {
    let dir = tempfile::tempdir().unwrap();
    let output = infomax(dir.path(), &["doctor"]);
    ok(&output);
    let text = stdout(&output);
    for key in [
        "infomax ",
        "built with",
        "processor",
        "instructions",
        "CUDA",
        "Metal",
        "MPI",
        "NCCL",
        "runs",
        "device",
    ] {
        assert!(text.lines().any(|line| line.starts_with(key)), "{key}\n{text}");
    }
    let output = infomax(dir.path(), &["doctor", "--json"]);
    ok(&output);
    let found: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let sets = found["processor"]["instruction_sets"].as_array().unwrap();
    assert!(sets.contains(&found["processor"]["used"]) && found["processor"]["threads"].as_u64() > Some(0));
    // What multiplies bf16, and why not by tiles where there are none.
    let tiles = sets.contains(&Value::from("AMX"));
    assert_eq!(found["processor"]["amx"].is_null(), tiles);
    let bf16 = found["processor"]["bf16"].as_str().unwrap();
    assert!(text.contains(bf16) && (bf16.contains("f32 registers") || tiles), "{bf16}");
    let runs = found["places"].as_array().unwrap().iter().find(|place| place["what"] == "runs").unwrap();
    assert_eq!(runs["exists"], false);
    if cfg!(target_os = "linux") {
        assert!(runs["free"].as_u64() > Some(0) && found["memory"]["total"].as_u64() > Some(1 << 28));
    }
    assert_eq!(found["features"]["cuda"], cfg!(feature = "cuda"));
    if PLAIN {
        assert_eq!(found["device"]["used"], "cpu");
        assert!(found["cuda"]["problem"].as_str().unwrap().contains("--features cudnn"));
        assert!(found["cuda"]["cards"].as_array().unwrap().is_empty());
    }
}

#[test]
fn a_device_that_cannot_be_used_is_an_error_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    for (device, words) in [
        ("cuda:7", if PLAIN { ["no CUDA", "--features cudnn"] } else { ["cuda:7", "use cpu"] }),
        ("gpu", ["cuda:N", "metal"]),
    ] {
        let output = infomax(dir.path(), &["doctor", "--device", device]);
        assert_eq!(output.status.code(), Some(1), "{device}");
        for word in words {
            assert!(stderr(&output).contains(word), "{word}: {}", stderr(&output));
        }
        assert!(
            stdout(&output).contains(&format!("--device {device} cannot be used")),
            "{}",
            stdout(&output)
        );
    }
}

/// A run of a machine with a card, and what it says on one without.
#[test]
fn runs_are_used_and_continued_on_another_device() {
    if !PLAIN {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    ok(&pretrain(d, &["--run", "r", "--epochs", "1", "--no-eval", "--device", "cpu"]));
    let path = d.join("r/config.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    assert!(config.contains("device = \"cpu\""), "{config}");
    std::fs::write(&path, config.replace("device = \"cpu\"", "device = \"cuda:0\"")).unwrap();
    let output = infomax(d, &["evaluate", "r", "--quiet"]);
    assert!(!output.status.success() && stderr(&output).contains("no CUDA"), "{}", stderr(&output));
    for args in [
        &["embed", "r", "--quiet", "-o", "z.npy", "--device", "cpu"][..],
        &["inspect", "r", "--quiet", "--device", "cpu"],
        &["pretrain", "--resume", "r", "--epochs", "2", "--no-eval", "--quiet", "--device", "cpu"],
        // The configuration of the run has followed.
        &["evaluate", "r", "--quiet"],
    ] {
        ok(&infomax(d, args));
    }
    // TF32 has no meaning on the CPU.
    let output = pretrain(d, &["--run", "t", "--device", "cpu", "--set", "train.precision=tf32"]);
    let error = stderr(&output);
    assert!(!output.status.success() && error.contains("tf32") && error.contains("CUDA"), "{error}");
}

/// The arithmetic of a run is said in its log; what the processor lacks is refused or, for `bf16x3`, is f32 to the bit.
#[test]
fn the_arithmetic_of_bf16_is_said_fixed_or_refused() {
    if !PLAIN {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let run = |name: &str, settings: &[&str]| {
        let sets: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        pretrain(d, &[&["--epochs", "1", "--no-eval", "--run", name], &sets[..]].concat())
    };
    let log = |name: &str| std::fs::read_to_string(d.join(name).join("log.txt")).unwrap();
    ok(&run("f32", &[]));
    ok(&run("x3", &["train.precision=bf16x3"]));
    ok(&run("fixed", &["train.precision=bf16", "train.arithmetic=f32"]));
    ok(&run("auto", &["train.precision=bf16"]));
    assert!(log("fixed").contains("f32 registers, as was asked"), "{}", log("fixed"));
    assert!(log("auto").contains("train.precision = \"bf16\": products by "), "{}", log("auto"));
    assert!(log("x3").contains("train.precision = \"bf16x3\": products "), "{}", log("x3"));
    let refused = run("no", &["train.precision=bf16", "train.arithmetic=tiles"]);
    match infomax_kernels::no_amx() {
        Some(why) => {
            assert!(log("x3").contains(&why), "{}", log("x3"));
            assert!(common::weights(&d.join("x3")) == common::weights(&d.join("f32")));
            let error = stderr(&refused);
            assert!(
                !refused.status.success() && error.contains("train.arithmetic") && error.contains(&why),
                "{error}"
            );
            assert!(!d.join("no").exists());
        }
        None => ok(&refused),
    }
}
