//! `infomax mi` and `infomax probe` as a user runs them.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use infomax_run::infomax_core::Key;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn infomax(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infomax"));
    command.current_dir(dir).args(args).env("RAYON_NUM_THREADS", "2").output().unwrap()
}

#[track_caller]
fn stdout(dir: &Path, args: &[&str]) -> String {
    let output = infomax(dir, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn json(dir: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&stdout(dir, &[args, &["--json", "--quiet"]].concat())).unwrap()
}

#[track_caller]
fn fails(dir: &Path, args: &[&str], words: &[&str]) {
    let output = infomax(dir, args);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && words.iter().all(|w| err.contains(w)), "{args:?}: {err}");
    assert!(!err.contains("panicked"), "{err}");
}

fn normal(seed: u64, n: usize, d: usize) -> Tensor {
    Key::new(seed).normal(0.0, 1.0, (n, d), DType::F64, &Device::Cpu).unwrap()
}

const FAST: [&str; 6] = ["--draws", "12", "--permutations", "19", "--permutation-rows", "100"];

#[test]
fn two_arrays_tell_of_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (x, e) = (normal(1, 400, 2), normal(2, 400, 2));
    let y = ((&x * 0.8).unwrap() + (e * 0.6).unwrap()).unwrap();
    x.write_npy(d.join("x.npy")).unwrap();
    y.write_npy(d.join("y.npy")).unwrap();
    normal(3, 400, 1).write_npy(d.join("z.npy")).unwrap();
    let r = json(d, &[&["mi", "x.npy", "y.npy"][..], &FAST].concat());
    let first = &r["estimates"][0];
    assert_eq!(
        (r["unit"].as_str(), first["estimator"].as_str()),
        (Some("nats"), Some("normal-copula")),
        "{r}"
    );
    let nats = first["estimate"]["value"].as_f64().unwrap();
    assert!(
        (nats + 0.36f64.ln()).abs() < 0.15
            && (first["bits"].as_f64().unwrap() - nats / 2f64.ln()).abs() < 1e-9
    );
    assert!(
        first["estimate"]["interval"]["lower"].as_f64().unwrap() < nats && first["p_value"] == 0.05,
        "{first}"
    );
    let text = stdout(d, &[&["mi", "x.npy", "y.npy", "--estimator", "ksg1,corrected"][..], &FAST].concat());
    assert!(
        text.starts_with("I(X; Y) = ")
            && text.contains("bits")
            && text.contains("corrected")
            && !text.contains("sliced")
    );
    let given = json(d, &["mi", "x.npy", "y.npy", "--given", "z.npy", "--draws", "8"]);
    assert!(given["neighbors"]["value"].as_f64().unwrap() > 0.4, "{given}");

    // Classes: numbers and words, told by what is in the file.
    let rows = x.to_vec2::<f64>().unwrap();
    let words: Vec<&str> = rows.iter().map(|r| if r[0] > 0.0 { "up" } else { "down" }).collect();
    std::fs::write(d.join("words.txt"), words.join("\n")).unwrap();
    let numbers: Vec<&str> = rows.iter().map(|r| if r[0] > 0.0 { "1" } else { "0" }).collect();
    std::fs::write(d.join("numbers.csv"), format!("label\n{}", numbers.join("\n"))).unwrap();
    for file in ["words.txt", "numbers.csv"] {
        let r = json(d, &[&["mi", "x.npy", file][..], &FAST].concat());
        assert_eq!(r["estimates"][0]["estimator"], "mixed", "{file}: {r}");
        assert!(r["estimates"][0]["estimate"]["value"].as_f64().unwrap() > 0.4);
    }
    let r = json(d, &[&["mi", "words.txt", "numbers.csv"][..], &FAST].concat());
    assert_eq!(r["estimates"][0]["estimator"], "discrete");
    let as_asked = json(d, &[&["mi", "x.npy", "numbers.csv", "--y-is", "continuous"][..], &FAST].concat());
    assert_ne!(as_asked["estimates"][0]["estimator"], "mixed");

    normal(4, 30, 2).write_npy(d.join("short.npy")).unwrap();
    fails(d, &["mi", "x.npy", "short.npy"], &["400", "30", "same sample"]);
    fails(d, &["mi", "x.npy"], &["two files"]);
    fails(d, &["mi", "x.npy", "y.npy", "--estimator", "best"], &["best", "corrected", "ksg2"]);
    fails(d, &["mi", "words.txt", "y.npy", "--estimator", "ksg1"], &["ksg1", "does not fit"]);
    let mut damaged = x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    damaged[7] = f64::NAN;
    Tensor::from_vec(damaged, (400, 2), &Device::Cpu).unwrap().write_npy(d.join("nan.npy")).unwrap();
    // Two columns: the eighth number is in the row 3.
    fails(d, &["mi", "nan.npy", "y.npy"], &["nan.npy", "not finite", "1 row: 3"]);
    std::fs::write(d.join("same.txt"), vec!["owl"; 400].join("\n")).unwrap();
    let error = infomax(d, &["mi", "x.npy", "same.txt"]);
    let error = String::from_utf8_lossy(&error.stderr).into_owned();
    assert!(error.contains("same.txt: all 400 rows have one and the same class"), "{error}");
    assert!(!error.contains("folder"), "{error}");
}

#[test]
fn ties_and_what_determines_the_other_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let labels: Vec<u32> = (0..240).map(|i| i % 3).collect();
    let hot: Vec<f64> =
        labels.iter().flat_map(|l| (0..3).map(move |c| f64::from(u8::from(c == *l)))).collect();
    Tensor::from_vec(hot, (240, 3), &Device::Cpu).unwrap().write_npy(d.join("hot.npy")).unwrap();
    let names: Vec<&str> = labels.iter().map(|l| ["cat", "dog", "owl"][*l as usize]).collect();
    std::fs::write(d.join("y.txt"), names.join("\n")).unwrap();
    let r = json(d, &[&["mi", "hot.npy", "y.txt"][..], &FAST].concat());
    let first = &r["estimates"][0];
    assert_eq!(first["estimator"], "discrete", "{r}");
    assert!((first["estimate"]["value"].as_f64().unwrap() - 3f64.ln()).abs() < 0.02, "{r}");
    let alone = infomax(d, &[&["mi", "hot.npy", "y.txt", "--estimator", "mixed"][..], &FAST].concat());
    let alone = String::from_utf8_lossy(&alone.stdout).into_owned();
    assert!(alone.contains("not computed") && !alone.contains("I(X; Y) = "), "{alone}");

    normal(1, 200, 2).write_npy(d.join("x.npy")).unwrap();
    let text = stdout(d, &[&["mi", "x.npy", "x.npy"][..], &FAST].concat());
    assert!(text.starts_with("I(X; Y) is infinite, or cannot be measured from 200 rows"), "{text}");
    assert!(!text.contains('['), "{text}");
}

#[test]
fn columns_of_lists_are_read_and_rows_are_those_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let x = normal(1, 120, 2);
    x.write_npy(d.join("x.npy")).unwrap();
    let rows = x.to_vec2::<f64>().unwrap();
    let class = |row: &[f64]| if row[0] > 0.0 { "up" } else { "down" };
    let lines: Vec<String> = rows
        .iter()
        .map(|row| serde_json::json!({ "embedding": row, "label": class(row) }).to_string())
        .collect();
    std::fs::write(d.join("x.jsonl"), lines.join("\n")).unwrap();
    let columns: Vec<(String, infomax_data::Cells)> = (0..2)
        .map(|j| {
            let column = rows.iter().map(|row| Some(row[j])).collect();
            (format!("f{j}"), infomax_data::Cells::Numbers(column))
        })
        .collect();
    let path = d.join("x.parquet");
    std::fs::write(&path, infomax_data::parquet_bytes(&path, &columns).unwrap()).unwrap();
    let of = |file: &str| {
        let r = json(d, &[&["mi", file, "x.jsonl:label", "--y-is", "discrete"][..], &FAST].concat());
        r["estimates"][0]["estimate"]["value"].as_f64().unwrap()
    };
    let plain = of("x.npy");
    assert!(plain > 0.4, "{plain}");
    for file in ["x.jsonl", "x.jsonl:embedding", "x.parquet"] {
        assert!((of(file) - plain).abs() < 1e-3, "{file}");
    }
    for file in ["x.jsonl", "x.parquet"] {
        let r = json(d, &["probe", file, "--labels", "x.jsonl:label", "--protocol", "ridge"]);
        assert!(r["probes"][0]["accuracy"].as_f64().unwrap() > 0.8, "{file}: {r}");
        let out = infomax(d, &["entropy", "gaussian", file, "--json"]);
        let r: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!((&r["samples"], &r["dim"]), (&120.into(), &2.into()), "{r}");
    }
    fails(d, &["mi", "x.npy", "x.jsonl:nothing", "--y-is", "discrete"], &["no column nothing", "label"]);

    // Rows that are not finite are left out of probes, by their numbers in the file.
    let mut damaged = x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    (damaged[15], damaged[238]) = (f64::NAN, f64::INFINITY);
    Tensor::from_vec(damaged, (120, 2), &Device::Cpu).unwrap().write_npy(d.join("bad.npy")).unwrap();
    let out = infomax(d, &["probe", "bad.npy", "--labels", "x.jsonl:label", "--protocol", "ridge", "--json"]);
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success() && error.contains("not finite are left out, in 2 rows: 7, 119"), "{error}");
    let r: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(r["rows"], 118, "{r}");
}

#[test]
fn the_selftest_prints_error_and_coverage() {
    let dir = tempfile::tempdir().unwrap();
    let some = [
        "mi",
        "--selftest",
        "--seeds",
        "2",
        "--n",
        "200,300",
        "--tasks",
        "independent-1-1",
        "--estimator",
        "ksg1,normal-copula",
    ];
    let r = json(dir.path(), &some);
    let cells = r["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 6);
    assert!(cells.iter().all(|c| c["error"].as_f64().unwrap() < 0.1 && c["coverage"].is_number()), "{r}");
    let text = stdout(dir.path(), &[&some[..], &["--quiet"]].concat());
    assert!(text.contains("independent-1-1") && text.contains("first") && text.contains("coverage"));
    fails(dir.path(), &["mi", "--selftest", "--tasks", "nothing"], &["nothing"]);

    // The same draws as files, for other estimators: what is estimated from them is what the self-test has.
    stdout(dir.path(), &[&some[..], &["--write", "draws", "--quiet"]].concat());
    let list = std::fs::read(dir.path().join("draws/tasks.json")).unwrap();
    let list: Value = serde_json::from_slice(&list).unwrap();
    let draws = list["draws"].as_array().unwrap();
    assert_eq!(draws.len(), 4);
    let of_200 = draws.iter().filter(|d| d["n"] == 200);
    let values: Vec<f64> = of_200
        .map(|d| {
            let file = |side: &str| format!("draws/{}.{side}.npy", d["file"].as_str().unwrap());
            let (x, y) = (file("x"), file("y"));
            let args = ["mi", &x, &y, "--estimator", "ksg1", "--draws", "0", "--permutations", "0"];
            json(dir.path(), &args)["estimates"][0]["estimate"]["value"].as_f64().unwrap()
        })
        .collect();
    let mean = values.iter().sum::<f64>() / 2.0;
    let cell = cells.iter().find(|c| c["n"] == 200 && c["estimator"] == "ksg1").unwrap();
    assert!((mean - cell["mean"].as_f64().unwrap()).abs() < 1e-9, "{values:?} {cell}");
}

#[test]
fn probes_state_their_protocols() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let labels: Vec<u32> = (0..240).map(|i| i % 3).collect();
    // A direction for each class: least squares masks a class between two others.
    let at = |l: &u32| {
        let own = *l;
        (0..5).map(move |j| if j == own { 5.0 } else { 0.0 })
    };
    let means: Vec<f64> = labels.iter().flat_map(at).collect();
    let means = Tensor::from_vec(means, (240, 5), &Device::Cpu).unwrap();
    (normal(1, 240, 5) + &means).unwrap().write_npy(d.join("z.npy")).unwrap();
    (normal(2, 240, 5) + &means).unwrap().write_npy(d.join("t.npy")).unwrap();
    let names: Vec<String> = labels.iter().map(|l| ["cat", "dog", "owl"][*l as usize].to_owned()).collect();
    std::fs::write(d.join("y.txt"), names.join("\n")).unwrap();
    let r = json(
        d,
        &[
            "probe",
            "z.npy",
            "--labels",
            "y.txt",
            "--seeds",
            "2",
            "--protocol",
            "all",
            "--epochs",
            "20",
            "--standardize",
        ],
    );
    let probes = r["probes"].as_array().unwrap();
    assert_eq!(probes.len(), 6);
    for probe in probes {
        let accuracy = probe["accuracy"].as_f64().unwrap_or_else(|| panic!("{probe}"));
        assert!(accuracy > 0.85 && probe["seeds"] == 2 && probe["deviation"].is_number(), "{probe}");
        assert!(probe["reports"][0]["protocol"].as_str().unwrap().len() > 30);
    }
    let text = stdout(
        d,
        &["probe", "z.npy", "--labels", "y.txt", "--test", "t.npy", "--test-labels", "y.txt", "-q"],
    );
    assert!(
        text.contains("240 rows to train on, 240 to test on")
            && text.contains("ridge regression")
            && text.contains("L-BFGS"),
        "{text}"
    );
    // A test file with one class in another order of first appearance means the same classes.
    std::fs::write(d.join("owls.txt"), vec!["owl"; 240].join("\n")).unwrap();
    let r = json(
        d,
        &[
            "probe",
            "z.npy",
            "--labels",
            "y.txt",
            "--test",
            "t.npy",
            "--test-labels",
            "owls.txt",
            "--protocol",
            "ridge",
        ],
    );
    let share = r["probes"][0]["accuracy"].as_f64().unwrap();
    assert!((share - 1.0 / 3.0).abs() < 0.1, "{share}");
    fails(d, &["probe", "z.npy"], &["--labels"]);
    std::fs::write(d.join("few.txt"), "a\nb\n").unwrap();
    fails(d, &["probe", "z.npy", "--labels", "few.txt"], &["240 rows", "2 labels"]);
    std::fs::write(d.join("one.txt"), vec!["owl"; 240].join("\n")).unwrap();
    fails(
        d,
        &["probe", "z.npy", "--labels", "one.txt"],
        &["one.txt: all 240 rows have one and the same class"],
    );
}
