//! `infomax inspect` as a user runs it.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

mod common;

use common::{infomax, ok, pretrain, stderr, stdout};
use infomax_core::Key;
use infomax_core::candle_core::{DType, Device, Tensor};
use serde_json::Value;
use std::fs;
use std::path::Path;

fn normal(dir: &Path, name: &str, seed: u64, n: usize, d: usize) -> Tensor {
    let z = Key::new(seed).normal(0.0, 1.0, (n, d), DType::F32, &Device::Cpu).unwrap();
    z.write_npy(dir.join(name)).unwrap();
    z
}

#[test]
fn a_file_of_embeddings_is_reported_on() {
    let dir = tempfile::tempdir().unwrap();
    let z = normal(dir.path(), "z.npy", 1, 200, 6);
    let labels: String = z
        .to_vec2::<f32>()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(i, row)| match i {
            3 => "\n",
            _ if row[0] > 0.0 => "cat\n",
            _ => "dog\n",
        })
        .collect();
    fs::write(dir.path().join("y.txt"), labels).unwrap();
    let args = ["inspect", "z.npy", "--labels", "y.txt", "--out", "rows.csv", "--quiet"];
    let output = infomax(dir.path(), &args);
    ok(&output);
    let text = stdout(&output);
    for part in
        ["200 rows, 6 columns", "SHAPE AND HEALTH", "rankme", "NORMALITY", "LABELS", "1 rows have no label"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    let rows = fs::read_to_string(dir.path().join("rows.csv")).unwrap();
    assert_eq!(rows.lines().count(), 201);
    assert!(rows.starts_with("row,norm,duplicate_of,"), "{rows}");

    let json = infomax(dir.path(), &[&args[..], &["--json"]].concat());
    ok(&json);
    let json: Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!((&json["report"]["n"], &json["report"]["d"]), (&200.into(), &6.into()));
}

#[test]
fn conditions_have_an_exit_code_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    normal(dir.path(), "z.npy", 2, 120, 5);
    let status = |condition: &str| {
        let output = infomax(dir.path(), &["inspect", "z.npy", "--quiet", "--json", "--fail-if", condition]);
        (output.status.code(), stderr(&output))
    };
    assert_eq!(status("rankme < 0.1 * d").0, Some(0));
    let (code, said) = status("rankme < 2 * d");
    assert!(code == Some(4) && said.contains("rankme < 2 * d"), "{code:?} {said}");
    let (code, said) = status("rank < 3");
    assert!(code == Some(1) && said.contains("no figure `rank`"), "{code:?} {said}");
    assert_eq!(status("rankme").0, Some(1));
}

#[test]
fn two_embeddings_and_a_run_are_inspected() {
    let dir = tempfile::tempdir().unwrap();
    normal(dir.path(), "a.npy", 3, 150, 4);
    normal(dir.path(), "b.npy", 4, 150, 7);
    normal(dir.path(), "short.npy", 5, 20, 4);
    let output = infomax(dir.path(), &["inspect", "a.npy", "b.npy", "--json", "--quiet"]);
    ok(&output);
    let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(json["second"]["report"]["d"], 7);
    let beside = json["comparison"]["figures"].as_array().unwrap();
    assert!(beside.iter().any(|f| f["key"] == "cka"), "{json}");
    // Every figure that is printed is a name, those of the comparison and of the second ones, too.
    let status = |condition: &str| {
        let args = ["inspect", "a.npy", "b.npy", "--quiet", "--json", "--fail-if", condition];
        let output = infomax(dir.path(), &args);
        (output.status.code(), stderr(&output))
    };
    for figure in beside {
        let key = figure["key"].as_str().unwrap();
        let (code, said) = status(&format!("{key} > 1e9"));
        assert_eq!(code, Some(0), "{key}: {said}");
    }
    assert_eq!(status("cka < 0.5").0, Some(4));
    assert_eq!((status("second_d > 6").0, status("second_rankme > d").0), (Some(4), Some(4)));
    let (code, said) = status("ckaa < 0.5");
    assert!(code == Some(1) && said.contains("did you mean `cka`"), "{said}");
    let output = infomax(dir.path(), &["inspect", "a.npy", "short.npy", "--quiet"]);
    assert!(
        output.status.code() == Some(1) && stderr(&output).contains("150 and 20 rows"),
        "{}",
        stderr(&output)
    );

    ok(&pretrain(dir.path(), &["--epochs", "1", "--no-eval", "--run", "run"]));
    let output = infomax(dir.path(), &["inspect", "run", "--json"]);
    ok(&output);
    assert!(stderr(&output).contains("100 images of the part `test`"), "{}", stderr(&output));
    let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let sections = json["report"]["sections"].as_array().unwrap();
    let labels = sections.iter().find(|section| section["title"] == "labels").unwrap();
    assert!(labels["figures"].as_array().unwrap().iter().any(|f| f["key"] == "linear"), "{labels}");
}

#[test]
fn bad_input_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("broken.npy"), b"\x93NUMPY\x01\x00").unwrap();
    fs::write(dir.path().join("empty.npy"), b"").unwrap();
    normal(dir.path(), "z.npy", 6, 40, 3);
    fs::write(dir.path().join("y.txt"), "1\n2.5\n").unwrap();
    fs::write(dir.path().join("few.txt"), "1\n2\n").unwrap();
    for (args, wanted) in [
        (&["broken.npy"][..], "broken.npy"),
        (&["empty.npy"], "empty.npy"),
        (&["missing.npy"], "missing.npy"),
        (&["z.npy", "--labels", "y.txt"], "2.5"),
        (&["z.npy", "--labels", "few.txt"], "40 embeddings and 2 labels"),
        (&["z.npy", "--max-rows", "5"], "--max-rows 5"),
        (&["z.npy", "--out", "nowhere/rows.csv"], "nowhere/rows.csv"),
        (&["."], "is not a run"),
    ] {
        let output = infomax(dir.path(), &[&["inspect", "--quiet"], args].concat());
        assert!(
            output.status.code() == Some(1) && stderr(&output).contains(wanted),
            "{args:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn labels_of_every_kind_of_file_are_read() {
    let dir = tempfile::tempdir().unwrap();
    normal(dir.path(), "z.npy", 7, 60, 3);
    let classes: Vec<i64> = (0..60).map(|i| if i == 4 { -1 } else { i % 3 }).collect();
    let of = |file: &str| {
        let args = ["inspect", "z.npy", "--labels", file, "--quiet", "--json"];
        let output = infomax(dir.path(), &args);
        ok(&output);
        let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let sections = json["report"]["sections"].as_array().unwrap().clone();
        let labels = sections.into_iter().find(|section| section["title"] == "labels").unwrap();
        labels["notes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|note| note.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let expected = ["1 rows have no label", "3 classes"];
    Tensor::new(classes.clone(), &Device::Cpu).unwrap().write_npy(dir.path().join("y.npy")).unwrap();
    let text = |f: &dyn Fn(&i64) -> String| classes.iter().map(f).collect::<Vec<_>>().join("\n");
    fs::write(dir.path().join("header.txt"), format!("label\n{}", text(&|c| c.to_string()))).unwrap();
    let names = |c: &i64| ["", "ant", "bee", "cow"][(c + 1) as usize].to_owned();
    fs::write(dir.path().join("names.txt"), text(&names)).unwrap();
    for file in ["y.npy", "header.txt", "names.txt"] {
        let notes = of(file);
        assert!(
            expected.iter().all(|part| notes.iter().any(|note| note.contains(part))),
            "{file}: {notes:?}"
        );
    }
}

#[test]
fn whole_numbers_and_maps_of_one_pixel_are_embeddings_too() {
    let dir = tempfile::tempdir().unwrap();
    let z = normal(dir.path(), "z.npy", 8, 50, 4);
    let whole = (z * 100.0).unwrap().round().unwrap().to_dtype(DType::I64).unwrap();
    whole.write_npy(dir.path().join("whole.npy")).unwrap();
    let wide = whole.to_dtype(DType::F64).unwrap();
    wide.write_npy(dir.path().join("wide.npy")).unwrap();
    wide.reshape((50, 4, 1, 1)).unwrap().write_npy(dir.path().join("maps.npy")).unwrap();
    let report = |file: &str| {
        let output = infomax(dir.path(), &["inspect", file, "--quiet", "--json"]);
        ok(&output);
        serde_json::from_str::<Value>(&stdout(&output)).unwrap()["report"].clone()
    };
    let expected = report("wide.npy");
    assert_eq!(expected["d"], 4);
    assert_eq!((report("whole.npy"), report("maps.npy")), (expected.clone(), expected));
}

#[test]
fn equal_rows_have_no_entropy_and_files_are_not_kinds() {
    let dir = tempfile::tempdir().unwrap();
    Tensor::ones((9, 3), DType::F64, &Device::Cpu).unwrap().write_npy(dir.path().join("same.npy")).unwrap();
    for (args, wanted) in [
        (["entropy", "gaussian", "same.npy"], "minus infinity"),
        (["entropy", "pairdist", "same.npy"], "no spread"),
        (["entropy", "same.npy", "gaussian"], "infomax entropy gaussian same.npy"),
    ] {
        let output = infomax(dir.path(), &args);
        assert!(output.status.code() == Some(1) && stderr(&output).contains(wanted), "{}", stderr(&output));
    }
}

/// A file of NumPy with texts of three characters.
fn texts(path: &Path, words: &[&str]) {
    let header = format!("{{'descr': '|S3', 'fortran_order': False, 'shape': ({},), }}", words.len());
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    words.iter().for_each(|word| bytes.extend(word.bytes()));
    fs::write(path, bytes).unwrap();
}

#[test]
fn names_of_classes_are_shown_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let z = Key::new(31).normal(0.0, 1.0, (80, 3), DType::F32, &Device::Cpu).unwrap();
    let mut rows = z.to_vec2::<f32>().unwrap();
    rows.iter_mut().enumerate().for_each(|(i, row)| row[0] += if i % 2 == 0 { 9.0 } else { -9.0 });
    Tensor::new(rows, &Device::Cpu).unwrap().write_npy(dir.path().join("z.npy")).unwrap();
    let mut words: Vec<&str> = (0..80).map(|i| if i % 2 == 0 { "emu" } else { "fox" }).collect();
    // One label is wrong, so that it is listed.
    words[10] = "fox";
    texts(&dir.path().join("y.npy"), &words);
    fs::write(dir.path().join("y.txt"), words.join("\n")).unwrap();
    for file in ["y.npy", "y.txt"] {
        let args = ["inspect", "z.npy", "--labels", file, "--quiet", "--out", "o.csv", "--html", "o.html"];
        let output = infomax(dir.path(), &args);
        ok(&output);
        let text = stdout(&output);
        assert!(text.contains("have the class emu and not fox"), "{file}: {text}");
        assert!(text.contains("on the class emu") || text.contains("on the class fox"), "{file}: {text}");
        assert!(!text.contains("class 0") && !text.contains("class 1"), "{file}: {text}");
        let table = fs::read_to_string(dir.path().join("o.csv")).unwrap();
        assert!(table.lines().nth(1).unwrap().contains(",emu,"), "{table}");
        let page = fs::read_to_string(dir.path().join("o.html")).unwrap();
        assert!(page.contains("emu") && page.contains("have the class emu and not fox"), "{file}");
    }
}

#[test]
fn what_cannot_be_read_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let z = normal(dir.path(), "z.npy", 41, 40, 3);
    normal(dir.path(), "a.npy", 42, 40, 3);
    z.get(0).unwrap().get(0).unwrap().write_npy(path("scalar.npy")).unwrap();
    z.get(0).unwrap().write_npy(path("vector.npy")).unwrap();
    for name in ["empty.npy", "empty.parquet", "empty.jsonl", "empty.csv", "empty.npz", "empty.txt"] {
        fs::write(path(name), b"").unwrap();
    }
    fs::write(path("z.bin"), b"something").unwrap();
    let table: Vec<String> = (0..40).map(|i| format!("{i},{}", ["ant", "bee"][i % 2])).collect();
    fs::write(path("t.csv"), format!("id,species\n{}\n", table.join("\n"))).unwrap();
    let run = |args: &[&str]| infomax(dir.path(), &[&["inspect", "--quiet"], args].concat());
    for (args, parts) in [
        (&["scalar.npy"][..], &["scalar.npy", "not []"][..]),
        (&["vector.npy"], &["vector.npy", "not [3]", "reshape(-1, 1)"]),
        (&["z.npy", "--views", "scalar.npy"], &["scalar.npy", "not []"]),
        (&["missing.npy"], &["missing.npy", "no such file"]),
        (&["missing.parquet"], &["missing.parquet", "no such file"]),
        (&["missing.jsonl"], &["missing.jsonl", "no such file"]),
        (&["empty.npy"], &["empty.npy is empty"]),
        (&["empty.parquet"], &["empty.parquet is empty"]),
        (&["empty.jsonl"], &["empty.jsonl is empty"]),
        (&["empty.csv"], &["empty.csv is empty"]),
        (&["empty.npz"], &["empty.npz is empty"]),
        (&["z.npy", "--labels", "empty.txt"], &["empty.txt is empty"]),
        (&["z.npy", "--columns", "empty.csv"], &["empty.csv is empty"]),
        (&["z.bin"], &["z.bin", ".parquet", ".jsonl", ".csv"]),
        (&["z.npy", "--labels", "t.csv"], &["several columns", "t.csv:id | species"]),
        (&["z.npy", "--columns", "t.csv", "--labels", "kind"], &["--labels kind", "id, species"]),
        (&["z.npy", "--labels", "kind"], &["--labels kind", "--columns FILE"]),
        (&["z.npy", "--labels", "missing.npz:y"], &["missing.npz", "no such file"]),
        (&["z.npy", "a.npy", "z.npy"], &["3 inputs", "'z-*.npy'"]),
    ] {
        let output = run(args);
        let said = stderr(&output);
        assert!(output.status.code() == Some(1), "{args:?}: {said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{args:?}: {said}");
        assert!(
            !said.contains("folder that holds the images") && !said.contains("candle"),
            "{args:?}: {said}"
        );
    }
}

#[test]
fn labels_of_archives_columns_and_files_with_a_header_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let z = normal(dir.path(), "z.npy", 43, 40, 3);
    let classes: Vec<i64> = (0..40).map(|i| i % 2).collect();
    let y = Tensor::new(classes, &Device::Cpu).unwrap();
    Tensor::write_npz(&[("z", &z), ("y", &y)], path("both.npz")).unwrap();
    let words: Vec<&str> = (0..40).map(|i| ["ant", "bee"][i % 2]).collect();
    fs::write(path("species.csv"), format!("species\n{}\n", words.join("\n"))).unwrap();
    let table: Vec<String> = words.iter().map(|w| format!("{w},x")).collect();
    fs::write(path("t.csv"), format!("species,other\n{}\n", table.join("\n"))).unwrap();
    for args in [
        &["both.npz:z", "--labels", "both.npz:y"][..],
        &["z.npy", "--labels", "species.csv"],
        &["z.npy", "--columns", "t.csv", "--labels", "species"],
    ] {
        let output = infomax(dir.path(), &[&["inspect", "--quiet", "--json"], args].concat());
        ok(&output);
        let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let sections = json["report"]["sections"].as_array().unwrap();
        let labels = sections.iter().find(|section| section["title"] == "labels").unwrap();
        let notes = labels["notes"].to_string();
        assert!(notes.contains("2 classes") && !notes.contains("no label"), "{args:?}: {notes}");
        if args.contains(&"species.csv") {
            assert!(json["notes"].to_string().contains("`species` is taken for the name"), "{json}");
        }
    }
}

#[test]
fn tables_of_pandas_are_read_and_what_is_left_out_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let rows = normal(dir.path(), "z.npy", 44, 30, 3).to_vec2::<f32>().unwrap();
    let line = |row: &Vec<f32>| row.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let text: Vec<String> = rows.iter().map(line).collect();
    let indexed: Vec<String> = text.iter().enumerate().map(|(i, t)| format!("{i},{t}")).collect();
    fs::write(dir.path().join("plain.csv"), format!("0,1,2\n{}\n", text.join("\n"))).unwrap();
    fs::write(dir.path().join("indexed.csv"), format!(",0,1,2\n{}\n", indexed.join("\n"))).unwrap();
    fs::write(dir.path().join("gap.csv"), format!("a,b,c\n1,,3\n{}\n", text.join("\n"))).unwrap();
    for (file, n, finite, said) in [
        ("plain.csv", 30, 30, "names of the columns"),
        ("indexed.csv", 30, 30, "it is an index"),
        ("gap.csv", 31, 30, "1 cells are empty"),
    ] {
        let output = infomax(dir.path(), &["inspect", file, "--json"]);
        ok(&output);
        let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let report = &json["report"];
        assert_eq!(
            (&report["n"], &report["d"], &report["finite_rows"]),
            (&n.into(), &3.into(), &finite.into())
        );
        assert!(stderr(&output).contains(said) && json["notes"].to_string().contains(said), "{file}");
    }
}

#[test]
fn outputs_never_take_the_place_of_inputs_or_of_what_is_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    normal(d, "z.npy", 3, 60, 4);
    let before = fs::read(d.join("z.npy")).unwrap();
    for flag in ["--out", "--html"] {
        let output = infomax(d, &["inspect", "z.npy", flag, "z.npy", "--quiet"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains("which is read"), "{}", stderr(&output));
        let output = infomax(d, &["inspect", "z.npy", flag, ".", "--quiet"]);
        assert!(!output.status.success() && stderr(&output).contains("is no file"), "{}", stderr(&output));
    }
    assert!(fs::read(d.join("z.npy")).unwrap() == before);
    #[cfg(unix)]
    {
        // A link leads to the file that is written.
        fs::write(d.join("old.csv"), "old").unwrap();
        std::os::unix::fs::symlink("old.csv", d.join("link.csv")).unwrap();
        ok(&infomax(d, &["inspect", "z.npy", "--out", "link.csv", "--quiet"]));
        assert!(fs::symlink_metadata(d.join("link.csv")).unwrap().is_symlink());
        assert!(fs::read_to_string(d.join("old.csv")).unwrap().starts_with("row,"));
    }
}

#[test]
fn a_condition_that_cannot_be_judged_leaves_the_report() {
    let dir = tempfile::tempdir().unwrap();
    normal(dir.path(), "z.npy", 4, 60, 4);
    for (condition, why) in
        [("alpha_req > 1", "needs 100 positive eigenvalues"), ("rank_me > 1", "did you mean `rankme`")]
    {
        let output = infomax(dir.path(), &["inspect", "z.npy", "--quiet", "--fail-if", condition]);
        assert_eq!(output.status.code(), Some(1));
        assert!(stdout(&output).contains("COLLAPSE AND RANK"), "{}", stdout(&output));
        assert!(stderr(&output).contains(why), "{}", stderr(&output));
    }
}

#[test]
fn every_row_of_a_kind_is_marked_and_ten_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    let z = Key::new(5).normal(0.0, 1.0, (60, 4), DType::F32, &Device::Cpu).unwrap();
    let z = Tensor::cat(&[&z, &z.narrow(0, 0, 30).unwrap()], 0).unwrap();
    z.write_npy(dir.path().join("z.npy")).unwrap();
    let output =
        infomax(dir.path(), &["inspect", "z.npy", "--out", "rows.csv", "--html", "p.html", "--quiet"]);
    ok(&output);
    let text = stdout(&output);
    assert!(text.contains("and 20 more of the kind duplicate"), "{text}");
    let printed = |line: &&str| line.starts_with("  row ") && line.contains(" duplicate ");
    assert_eq!(text.lines().filter(printed).count(), 10, "{text}");
    let rows = fs::read_to_string(dir.path().join("rows.csv")).unwrap();
    assert_eq!(
        rows.lines().filter(|line| line.contains("duplicate")).count(),
        31,
        "the header, and thirty rows"
    );
    assert!(fs::read_to_string(dir.path().join("p.html")).unwrap().contains("20 more duplicate"));

    // All rows alike is a collapse whatever the number of columns, and what is no number is no figure.
    Tensor::ones((50, 4), DType::F32, &Device::Cpu).unwrap().write_npy(dir.path().join("one.npy")).unwrap();
    let text = stdout(&infomax(dir.path(), &["inspect", "one.npy", "--quiet"]));
    assert!(text.contains("LOOK: few directions"), "{text}");
    let huge = (Key::new(6).normal(0.0, 1.0, (50, 4), DType::F64, &Device::Cpu).unwrap() * 1e300).unwrap();
    huge.write_npy(dir.path().join("huge.npy")).unwrap();
    let text = stdout(&infomax(dir.path(), &["inspect", "huge.npy", "--quiet"]));
    assert!(text.lines().all(|line| !line.ends_with(" NaN") && !line.ends_with(" inf")), "{text}");
    assert!(text.contains("entropy_gaussian: it came out as"), "{text}");
}

#[test]
fn splits_types_and_columns_are_told_of_all_rows() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let z = Key::new(9).normal(0.0, 1.0, (400, 5), DType::F32, &Device::Cpu).unwrap();
    let mut rows = z.to_vec2::<f32>().unwrap();
    // Columns 1 and 3 are constant and alike, 4 is 0 again; the last row is the first.
    for row in &mut rows {
        (row[1], row[3], row[4]) = (2.0, 2.0, row[0]);
    }
    rows[399] = rows[0].clone();
    Tensor::new(rows, &Device::Cpu).unwrap().write_npy(d.join("z.npy")).unwrap();
    let table: Vec<String> = (0..400)
        .map(|i| {
            let split = if i < 300 { "train" } else { "test" };
            let gap = if i == 7 { String::new() } else { i.to_string() };
            format!("{split},{},{gap},{}", f64::from(i) / 8.0, i % 2 == 0)
        })
        .collect();
    fs::write(d.join("t.csv"), format!("split,share,count,odd\n{}\n", table.join("\n"))).unwrap();
    let args = ["inspect", "z.npy", "--columns", "t.csv", "--max-rows", "100", "--quiet"];
    let json = infomax(d, &[&args[..], &["--json", "--out", "o.parquet"]].concat());
    ok(&json);
    let json: Value = serde_json::from_str(&stdout(&json)).unwrap();
    let figures: Vec<&Value> = json["report"]["sections"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|section| section["figures"].as_array().unwrap())
        .collect();
    let figure = |key: &str| *figures.iter().find(|f| f["key"] == key).unwrap();
    assert_eq!(figure("equal_across_splits")["value"], 2.0);
    assert!(figure("constant_columns")["meaning"].as_str().unwrap().contains("1, 3"));
    let doubled = figure("duplicate_columns");
    assert!(doubled["value"] == 2.0, "{doubled}");
    assert!(doubled["meaning"].as_str().unwrap().contains("3 as 1, 4 as 0"), "{doubled}");
    let listed = json["report"]["rows"].as_array().unwrap();
    assert!(listed.iter().any(|r| r["why"] == "across-splits" && r["row"] == 399), "{listed:?}");
    // Types survive: what was a number is one.
    let read = infomax_data::read_table(&d.join("o.parquet")).unwrap();
    assert_eq!(read.texts.iter().map(String::as_str).collect::<Vec<_>>(), ["look_at", "split"]);
    assert_eq!(read.column(&["count"]).unwrap().1[7], None);
    assert_eq!(read.column(&["share"]).unwrap().1[3].as_deref(), Some("0.375"));
    // All columns alike are all counted.
    Tensor::ones((50, 4), DType::F32, &Device::Cpu).unwrap().write_npy(d.join("one.npy")).unwrap();
    let text = stdout(&infomax(d, &["inspect", "one.npy", "--quiet", "--fail-if", "duplicate_columns < 3"]));
    assert!(text.contains("1 as 0, 2 as 0, 3 as 0"), "{text}");
    let usage = infomax(d, &["inspect"]);
    assert_eq!(usage.status.code(), Some(2), "wrong arguments have an exit code of their own");
}

#[test]
fn views_have_lidar_slices_and_the_terms_of_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let z = normal(d, "z.npy", 11, 200, 4);
    let near = (&z + (Key::new(12).normal(0.0, 0.1, (200, 4), DType::F32, &Device::Cpu).unwrap())).unwrap();
    near.write_npy(d.join("near.npy")).unwrap();
    normal(d, "other.npy", 13, 200, 4);
    let labels: String = z
        .to_vec2::<f32>()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(i, row)| {
            if i == 5 {
                "\n"
            } else if row[0] > 0.0 {
                "7\n"
            } else {
                "3\n"
            }
        })
        .collect();
    fs::write(d.join("y.txt"), labels).unwrap();
    let of = |views: &str| {
        let args = ["inspect", "z.npy", "--views", views, "--labels", "y.txt", "--json", "--quiet"];
        let output = infomax(d, &args);
        ok(&output);
        let json: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let sections = json["report"]["sections"].as_array().unwrap().clone();
        let section = sections.into_iter().find(|s| s["title"].as_str().unwrap().contains("views")).unwrap();
        move |key: &str| {
            let figures = section["figures"].as_array().unwrap();
            let figure = figures.iter().find(|f| f["key"] == key);
            figure.unwrap_or(&section)["value"].as_f64().unwrap_or(f64::NAN)
        }
    };
    let (near, other) = (of("near.npy"), of("other.npy"));
    assert!(near("lidar") > 3.0, "{}", near("lidar"));
    assert!(near("view_information_sliced") > 0.5 && other("view_information_sliced") < 0.1);
    assert!(near("bound_invariance") < 0.3 && other("bound_invariance") > 2.0);
    assert!((near("bound_labels") - other("bound_labels")).abs() < 1e-9 && near("bound_labels") < 0.95);
    // Another width has no pairs, and says so.
    normal(d, "wide.npy", 14, 200, 6);
    let text = stdout(&infomax(d, &["inspect", "z.npy", "--views", "wide.npy", "--quiet"]));
    assert!(text.contains("not computed: lidar"), "{text}");
}
