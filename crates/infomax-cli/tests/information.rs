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
    // Two columns: the eighth number is in the row 3, which is left out of both.
    let out = infomax(d, &[&["mi", "nan.npy", "y.npy", "--json", "--estimator", "ksg1"][..], &FAST].concat());
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(error.contains("nan.npy") && error.contains("1 row: 3"), "{error}");
    let r: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (&r["n"], &r["rows_of"], &r["left_out"]["rows"]),
        (&399.into(), &400.into(), &serde_json::json!([3]))
    );
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

#[test]
fn what_says_nothing_is_left_out_and_what_cannot_be_known_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let write = |name: &str, n: usize, columns: usize, f: &dyn Fn(usize) -> Vec<f64>| {
        let values: Vec<f64> = (0..n).flat_map(f).collect();
        Tensor::from_vec(values, (n, columns), &Device::Cpu).unwrap().write_npy(d.join(name)).unwrap();
    };
    let draw = |seed: u64| normal(seed, 300, 1).flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let (a, b) = (draw(1), draw(2));
    write("x.npy", 300, 3, &|i| vec![a[i], 7.0, b[i]]);
    write("y.npy", 300, 1, &|i| vec![0.8 * a[i] + 0.6 * b[(i + 1) % 300]]);
    write("flat.npy", 300, 2, &|_| vec![1.0, 2.0]);
    let of = ["--estimator", "ksg1"];
    let r = json(d, &[&["mi", "x.npy", "y.npy"][..], &of, &FAST].concat());
    assert_eq!((&r["left_out"]["columns"]["x"], &r["dims"][0]), (&serde_json::json!([1]), &2.into()), "{r}");
    assert!(r["estimates"][0]["estimate"]["value"].as_f64().unwrap() > 0.25, "{r}");
    fails(d, &["mi", "flat.npy", "y.npy"], &["flat.npy: all 2 columns are the same"]);

    // A function of the other: no number first, whichever way round.
    write("square.npy", 300, 1, &|i| vec![a[i] * a[i]]);
    write("a.npy", 300, 1, &|i| vec![a[i]]);
    for pair in [["a.npy", "square.npy"], ["square.npy", "a.npy"]] {
        let text = stdout(d, &[&["mi", pair[0], pair[1]][..], &of, &FAST].concat());
        assert!(text.starts_with("I(X; Y) is infinite, or cannot be measured from 300 rows"), "{text}");
        assert!(text.contains("without bound") && text.contains("both together only 1.0"), "{text}");
    }
    // With noise there is a number.
    write("noisy.npy", 300, 1, &|i| vec![a[i] * a[i] + 0.5 * b[i]]);
    let text = stdout(d, &[&["mi", "a.npy", "noisy.npy"][..], &of, &FAST].concat());
    assert!(text.starts_with("I(X; Y) = "), "{text}");

    // Eight rows say nothing.
    write("few.npy", 8, 1, &|i| vec![a[i]]);
    write("fewer.npy", 8, 1, &|i| vec![b[i]]);
    let text = stdout(d, &["mi", "few.npy", "fewer.npy", "--permutations", "19"]);
    assert!(text.starts_with("I(X; Y) is not known: 8 rows are too few"), "{text}");
    let r = json(d, &["mi", "few.npy", "fewer.npy", "--permutations", "19"]);
    assert!(r["recommended"].is_null(), "{r}");
    // Thirty independent rows have an interval that holds 0.
    write("x30.npy", 30, 1, &|i| vec![a[i]]);
    write("y30.npy", 30, 1, &|i| vec![b[i]]);
    let r = json(d, &[&["mi", "x30.npy", "y30.npy"][..], &FAST].concat());
    for estimate in r["estimates"].as_array().unwrap() {
        let interval = &estimate["estimate"]["interval"];
        let excludes = interval["lower"].as_f64().is_some_and(|low| low > 0.0);
        assert!(!excludes || estimate["p_value"].as_f64().unwrap() <= 0.1, "{estimate}");
    }
}

#[test]
fn what_is_given_has_estimators_and_tests_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    // Both follow Z, and only the third follows X beyond it.
    let (z, e, f) = (normal(1, 300, 1), normal(2, 300, 1), normal(3, 300, 1));
    let x = ((&z * 0.8).unwrap() + (&e * 0.6).unwrap()).unwrap();
    let y = ((&z * 0.8).unwrap() + (&f * 0.6).unwrap()).unwrap();
    let w = ((&x * 0.9).unwrap() + (&f * 0.4).unwrap()).unwrap();
    for (name, v) in [("x.npy", &x), ("y.npy", &y), ("z.npy", &z), ("w.npy", &w)] {
        v.write_npy(d.join(name)).unwrap();
    }
    let fast = ["--given", "z.npy", "--draws", "8", "--permutations", "39", "--permutation-rows", "200"];
    let free = json(d, &[&["mi", "x.npy", "y.npy"][..], &fast].concat());
    let bound = json(d, &[&["mi", "x.npy", "w.npy"][..], &fast].concat());
    for key in ["neighbors", "normal_copula"] {
        assert!(free["p_values"][key].as_f64().unwrap() > 0.05, "{free}");
        assert_eq!(bound["p_values"][key], 0.025, "{bound}");
    }
    let one = json(d, &[&["mi", "x.npy", "w.npy", "--estimator", "normal-copula"][..], &fast].concat());
    assert!(one["neighbors"].is_null() && one["normal_copula"]["value"].as_f64().unwrap() > 0.3, "{one}");
    let none = ["mi", "x.npy", "y.npy", "--given", "z.npy", "--draws", "8", "--permutations", "0"];
    assert!(json(d, &none)["p_values"]["neighbors"].is_null());
    assert!(
        free["first"] == "normal_copula" && bound["reason"].as_str().unwrap().contains("interval"),
        "{free}"
    );
    // An estimator that refuses does not end the command, and what is infinite is said first.
    (&x * 2.0).unwrap().write_npy(d.join("twice.npy")).unwrap();
    let twice = json(d, &[&["mi", "x.npy", "twice.npy"][..], &fast].concat());
    assert!(twice["normal_copula"].is_null() && twice["refused"]["normal_copula"].is_string(), "{twice}");
    let text = stdout(d, &[&["mi", "x.npy", "twice.npy"][..], &fast].concat());
    assert!(text.starts_with("I(X; Y | Z) is infinite") && text.contains("not computed"), "{text}");
    let refused = ["mi", "x.npy", "y.npy", "--given", "z.npy", "--estimator", "sliced"];
    fails(d, &refused, &["sliced has no conditional form", "ksg1, normal-copula"]);
    for flag in [&["--write", "out"][..], &["--seeds", "3"], &["--n", "50"], &["--images"]] {
        fails(d, &[&["mi", "x.npy", "y.npy"][..], flag].concat(), &[flag[0], "--selftest"]);
    }
    assert!(!d.join("out").exists());
}

/// Two classes, their words, and rows that tell them apart.
fn two_classes(n: usize) -> (Vec<&'static str>, Tensor) {
    let words: Vec<&str> = (0..n).map(|i| ["emu", "fox"][i % 2]).collect();
    let means: Vec<f64> = (0..n).flat_map(|i| [if i % 2 == 0 { 2.0 } else { -2.0 }, 0.0]).collect();
    (words, (normal(7, n, 2) + Tensor::from_vec(means, (n, 2), &Device::Cpu).unwrap()).unwrap())
}

#[test]
fn labels_of_every_kind_shards_and_folders_are_probed() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (words, z) = two_classes(120);
    z.write_npy(d.join("z.npy")).unwrap();
    let rows = z.to_vec2::<f64>().unwrap();
    let line = |i: usize| format!("{},{}", rows[i][0], rows[i][1]);
    let table: Vec<String> = (0..120).map(|i| format!("{},{}", line(i), words[i])).collect();
    std::fs::write(d.join("t.csv"), format!("a,b,species\n{}\n", table.join("\n"))).unwrap();
    std::fs::write(d.join("l.csv"), format!("a,b,label\n{}\n", table.join("\n"))).unwrap();
    let path = d.join("t.parquet");
    let texts = words.iter().map(|w| Some((*w).to_owned())).collect();
    let list = rows.iter().flatten().map(|v| *v as f32).collect();
    let columns = [
        ("embedding".to_owned(), infomax_data::Cells::Lists(2, list)),
        ("species".to_owned(), infomax_data::Cells::Texts(texts)),
    ];
    std::fs::write(&path, infomax_data::parquet_bytes(&path, &columns).unwrap()).unwrap();
    // An .npz with texts, stored as NumPy does.
    let text = {
        let header = "{'descr': '|S3', 'fortran_order': False, 'shape': (120,), }";
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.bytes());
        words.iter().for_each(|word| bytes.extend(word.bytes()));
        bytes
    };
    let mut archive = zip::ZipWriter::new(std::fs::File::create(d.join("y.npz")).unwrap());
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    archive.start_file("names.npy", stored).unwrap();
    std::io::Write::write_all(&mut archive, &text).unwrap();
    archive.start_file("more.npy", stored).unwrap();
    std::io::Write::write_all(&mut archive, &text).unwrap();
    archive.finish().unwrap();
    for folder in ["zs", "ys", "none"] {
        std::fs::create_dir(d.join(folder)).unwrap();
    }
    for part in 0..3 {
        z.narrow(0, 40 * part, 40).unwrap().write_npy(d.join(format!("zs/z-{part}.npy"))).unwrap();
        std::fs::write(d.join(format!("ys/y-{part}.txt")), words[40 * part..40 * part + 40].join("\n"))
            .unwrap();
    }
    let ridge = ["--protocol", "ridge"];
    let of = |args: &[&str]| json(d, &[&["probe"][..], args, &ridge].concat());
    let plain = of(&["z.npy", "--labels", "y.npz:names"]);
    assert_eq!(plain["classes"], serde_json::json!(["emu", "fox"]));
    for args in [
        &["t.csv", "--labels", "species"][..],
        &["l.csv"],
        &["z.npy", "--labels", "t.csv:species"],
        &["z.npy", "--labels", "l.csv"],
        &["z.npy", "--labels", "t.parquet:species"],
        &["t.parquet", "--labels", "species"],
        &["zs", "--labels", "ys"],
        &["zs/z-*.npy", "--labels", "ys/y-*.txt"],
    ] {
        let r = of(args);
        let accuracy = |r: &Value| r["probes"][0]["accuracy"].as_f64().unwrap();
        assert!((accuracy(&r) - accuracy(&plain)).abs() < 1e-9, "{args:?}: {r}");
        assert_eq!((&r["classes"], &r["rows"]), (&plain["classes"], &plain["rows"]), "{args:?}");
    }
    // Labels beside both, by one name.
    let r = of(&["t.csv", "--labels", "species", "--test", "t.parquet"]);
    assert_eq!(r["test_rows"], 120, "{r}");
    for (args, wanted) in [
        (&["z.npy", "--labels", "y.npz"][..], &["more | names"][..]),
        (&["z.npy", "--labels", "t.csv"], &["several columns", "t.csv:a | b | species"]),
        (&["z.npy", "--labels", "species"], &["--labels species", "neither such a file nor such a column"]),
        (&["t.csv"], &["--labels FILE is needed", "species"]),
        (&["none", "--labels", "ys"], &["none is not a run", "it is empty"]),
        (&["zs", "--labels", "none"], &["none", "without a file"]),
        (&["z.npy", "--labels", "t.csv:kind"], &["no column kind", "species"]),
        (&["t.csv", "--labels", "species", "--test", "z.npy"], &["--test-labels"]),
    ] {
        fails(d, &[&["probe"][..], args].concat(), wanted);
    }
    // The same folders as variables.
    let r = json(d, &[&["mi", "zs", "ys/y-*.txt", "--y-is", "discrete"][..], &FAST].concat());
    assert_eq!((&r["estimates"][0]["estimator"], &r["n"]), (&"mixed".into(), &120.into()), "{r}");
    fails(d, &["mi", "none", "z.npy"], &["none is not a run"]);
}

#[test]
fn accuracies_have_intervals_and_rare_classes_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (words, z) = two_classes(101);
    // So near that no split tells all of them apart.
    let z = (z + (normal(9, 101, 2) * 2.0).unwrap()).unwrap();
    z.write_npy(d.join("z.npy")).unwrap();
    let mut rare = words.clone();
    rare[100] = "owl";
    std::fs::write(d.join("y.txt"), words.join("\n")).unwrap();
    std::fs::write(d.join("rare.txt"), rare.join("\n")).unwrap();
    let interval = |r: &Value, at: usize| {
        let i = &r["probes"][at]["interval"];
        let ends = (i["lower"].as_f64().unwrap(), i["upper"].as_f64().unwrap());
        (ends, i["method"].as_str().unwrap().to_owned())
    };
    let one =
        json(d, &["probe", "z.npy", "--labels", "y.txt", "--protocol", "ridge", "--protocol", "few-shot"]);
    let accuracy = one["probes"][0]["accuracy"].as_f64().unwrap();
    let ((low, high), method) = interval(&one, 0);
    assert!(low < accuracy && accuracy <= high && high - low > 0.02, "{one}");
    assert!(method.contains("Wilson, over 20 test rows"), "{method}");
    assert!(interval(&one, 1).1.contains("draws of training rows"), "{one}");
    let more = json(d, &["probe", "z.npy", "--labels", "y.txt", "--protocol", "ridge", "--seeds", "4"]);
    assert!(interval(&more, 0).1.contains("Nadeau"), "{more}");
    // Classes that are apart are told apart in every split, which is no certainty.
    let far: Vec<f64> = (0..101).flat_map(|i| [if i % 2 == 0 { 90.0 } else { -90.0 }, 0.0]).collect();
    let far = Tensor::from_vec(far, (101, 2), &Device::Cpu).unwrap();
    (far + normal(8, 101, 2)).unwrap().write_npy(d.join("apart.npy")).unwrap();
    let sure = json(d, &["probe", "apart.npy", "--labels", "y.txt", "--protocol", "ridge", "--seeds", "3"]);
    let ((low_end, _), method) = interval(&sure, 0);
    assert!(sure["probes"][0]["accuracy"] == 1.0 && low_end < 0.95 && method.contains("Wilson"), "{sure}");
    let wide = json(d, &["probe", "z.npy", "--labels", "y.txt", "--protocol", "ridge", "--level", "0.99"]);
    let ((lower, higher), _) = interval(&wide, 0);
    assert!(lower < low && higher >= high);
    fails(d, &["probe", "z.npy", "--labels", "y.txt", "--level", "1.5"], &["--level 1.5"]);

    let out = infomax(d, &["probe", "z.npy", "--labels", "rare.txt", "--protocol", "ridge", "--json"]);
    let error = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        out.status.success() && error.contains("1 class (owl)") && error.contains("never tested"),
        "{error}"
    );
    let r: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(r["classes"], serde_json::json!(["emu", "fox", "owl"]));
    assert!(r["notes"].to_string().contains("never tested"), "{r}");
    let both = [
        "probe",
        "z.npy",
        "--labels",
        "y.txt",
        "--test",
        "z.npy",
        "--test-labels",
        "rare.txt",
        "--protocol",
        "ridge",
    ];
    let r = json(d, &both);
    assert!(r["notes"].to_string().contains("only among the rows that are tested"), "{r}");
    let alone: Vec<String> = (0..101).map(|i| format!("class {i}")).collect();
    std::fs::write(d.join("alone.txt"), alone.join("\n")).unwrap();
    fails(d, &["probe", "z.npy", "--labels", "alone.txt"], &["no class has rows to hold out", "101 classes"]);
}

/// Rows that are there twice are no information; values of a grid are no copies.
#[test]
fn copies_of_rows_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let twice = |seed: u64| {
        let z = normal(seed, 150, 1);
        Tensor::cat(&[&z, &z], 0).unwrap()
    };
    twice(1).write_npy(d.join("x.npy")).unwrap();
    twice(2).write_npy(d.join("y.npy")).unwrap();
    let r = json(d, &["mi", "x.npy", "y.npy", "--permutations", "0", "--draws", "0"]);
    assert_eq!((&r["left_out"]["copies"], &r["n"]), (&150.into(), &150.into()), "{r}");
    let grid = |seed: u64| normal(seed, 300, 1).affine(4.0, 0.0).unwrap().round().unwrap();
    grid(1).write_npy(d.join("gx.npy")).unwrap();
    grid(2).write_npy(d.join("gy.npy")).unwrap();
    let args = ["mi", "gx.npy", "gy.npy", "--x-is", "continuous", "--y-is", "continuous"];
    let r = json(d, &[&args[..], &["--permutations", "0", "--draws", "0"]].concat());
    assert_eq!(r["left_out"]["copies"], 0, "{r}");
}
