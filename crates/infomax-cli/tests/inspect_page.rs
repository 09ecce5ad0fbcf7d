//! The page of `infomax inspect`, its inputs of every kind, and what it writes of each row.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

mod common;

use common::{infomax, ok, stderr, stdout};
use infomax_core::Key;
use infomax_core::candle_core::{DType, Device, Tensor};
use infomax_data::{Cells, VectorOptions, parquet_bytes, read_table, read_vectors};
use serde_json::Value;
use std::fs;
use std::path::Path;

const N: usize = 150;

/// Three classes apart in 5 columns, one row twice.
fn embeddings() -> Vec<Vec<f32>> {
    let z = Key::new(1).normal(0.0, 1.0, (N, 5), DType::F32, &Device::Cpu).unwrap();
    let mut rows = z.to_vec2::<f32>().unwrap();
    rows.iter_mut().enumerate().for_each(|(i, row)| row[i % 3] += 6.0);
    rows[140] = rows[20].clone();
    rows
}

fn class(i: usize) -> &'static str {
    ["ant", "bee", "<cow>"][i % 3]
}

fn npy(dir: &Path, name: &str, rows: &[Vec<f32>]) {
    Tensor::new(rows.to_vec(), &Device::Cpu).unwrap().write_npy(dir.join(name)).unwrap();
}

/// A table with names, pictures, splits and sites.
fn table(dir: &Path) {
    image::RgbImage::from_fn(300, 200, |x, _| image::Rgb([x as u8, 9, 200]))
        .save(dir.join("photo.png"))
        .unwrap();
    let row =
        |i: usize| format!("photo.png,{},s{},{}\n", class(i), i % 2, if i < 100 { "train" } else { "test" });
    let lines: String = (0..N).map(row).collect();
    fs::write(dir.join("meta.csv"), format!("path,label,site,split\n{lines}")).unwrap();
}

fn json(dir: &Path, args: &[&str]) -> Value {
    let output = infomax(dir, &[&["inspect", "--quiet", "--json"], args].concat());
    ok(&output);
    serde_json::from_str(&stdout(&output)).unwrap()
}

fn figure(report: &Value, key: &str) -> f64 {
    let sections = report["report"]["sections"].as_array().unwrap();
    let mut all = sections.iter().flat_map(|s| s["figures"].as_array().unwrap());
    all.find(|f| f["key"] == key).unwrap()["value"].as_f64().unwrap()
}

#[test]
fn a_page_has_every_chart_and_the_pictures_of_rows() {
    let dir = tempfile::tempdir().unwrap();
    npy(dir.path(), "z.npy", &embeddings());
    table(dir.path());
    let args = ["inspect", "z.npy", "--columns", "meta.csv", "--html", "report.html", "--quiet"];
    ok(&infomax(dir.path(), &args));
    let html = fs::read_to_string(dir.path().join("report.html")).unwrap();
    for title in [
        "Spectrum of the covariance",
        "Share of the variance",
        ">Entropy<",
        "Least normal: column",
        "p-values of the columns",
        "Distances of pairs",
        "Principal axes, by label",
        "Neighbors, by label",
        "Neighbors, by site",
        "Confusion of the linear probe",
        "duplicates_across_splits",
        "&lt;cow&gt;",
        "data:image/png;base64,",
        "RankMe",
    ] {
        assert!(html.contains(title), "{title}");
    }
    assert!(!html.contains("<cow>") && !html.contains("<script") && !html.contains("src=\"http"));
    assert!(html.len() < 1_500_000, "{}", html.len());
    // The same input, the same bytes.
    ok(&infomax(dir.path(), &[&args[..5], &["again.html", "--quiet"]].concat()));
    assert_eq!(html, fs::read_to_string(dir.path().join("again.html")).unwrap());
}

#[test]
fn every_kind_of_input_gives_the_same_report() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let rows = embeddings();
    npy(dir.path(), "z.npy", &rows);
    fs::create_dir(path("shards")).unwrap();
    npy(&path("shards"), "s-0.npy", &rows[..70]);
    npy(&path("shards"), "s-1.npy", &rows[70..]);
    let line = |i: usize| format!("{}\n", serde_json::json!({ "label": class(i), "embedding": rows[i] }));
    fs::write(path("z.jsonl"), (0..N).map(line).collect::<String>()).unwrap();
    let columns = [
        ("label".to_owned(), Cells::Texts((0..N).map(|i| Some(class(i).to_owned())).collect())),
        ("embedding".to_owned(), Cells::Lists(5, rows.concat())),
    ];
    fs::write(path("z.parquet"), parquet_bytes(&path("z.parquet"), &columns).unwrap()).unwrap();
    table(dir.path());

    let plain = json(dir.path(), &["z.npy", "--columns", "meta.csv"]);
    assert_eq!(figure(&plain, "duplicate_rows"), 1.0);
    assert_eq!(figure(&plain, "duplicates_across_splits"), 2.0);
    assert!(figure(&plain, "linear") > 0.95);
    for file in ["z.jsonl", "z.parquet", "shards", "shards/s-*.npy", "z.parquet:embedding"] {
        let other = json(dir.path(), &[file]);
        for key in ["rankme", "entropy_gaussian", "hubness", "duplicate_rows"] {
            assert_eq!(figure(&other, key), figure(&plain, key), "{file} {key}");
        }
        if !file.starts_with("shards") {
            assert_eq!(figure(&other, "linear"), figure(&plain, "linear"), "{file}");
        }
    }
    // Drawn rows: said, with seed and size, and counted over the whole file.
    let part = json(dir.path(), &["z.parquet", "--read-rows", "60", "--seed", "3"]);
    assert_eq!((figure(&part, "file_rows"), figure(&part, "file_duplicate_rows")), (150.0, 1.0));
    assert_eq!(part["report"]["n"], 60);
    assert!(part["notes"].to_string().contains("60 of 150 rows were drawn with the seed 3"), "{part}");
    let most = json(dir.path(), &["z.parquet", "--read-rows", "149", "--seed", "3"]);
    let listed = most["report"]["rows"].as_array().unwrap();
    let number = |note: &Value, key: &str| note[key].as_u64().unwrap();
    assert!(
        listed.iter().all(|note| (0..2).contains(&(number(note, "source") - number(note, "row")))),
        "{most}"
    );
    assert!(listed.iter().any(|note| note["why"] == "duplicate" && number(note, "source") == 140), "{most}");
}

#[test]
fn each_row_is_written_as_a_table_that_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    npy(dir.path(), "z.npy", &embeddings());
    table(dir.path());
    for file in ["rows.parquet", "rows.csv"] {
        ok(&infomax(dir.path(), &["inspect", "z.npy", "--columns", "meta.csv", "--out", file, "--quiet"]));
        let table = read_table(&dir.path().join(file)).unwrap();
        assert_eq!(table.rows(), N, "{file}");
        let cell = |name: &str, row: usize| table.column(&[name]).unwrap().1[row].clone();
        assert_eq!(cell("duplicate_of", 140).unwrap().parse::<f64>(), Ok(20.0), "{file}");
        assert!(cell("look_at", 140).unwrap().contains("duplicate"));
        assert_eq!(
            (cell("label", 2).as_deref(), cell("split", 0).as_deref()),
            (Some("<cow>"), Some("train"))
        );
        assert!(cell("x", 0).is_some() && cell("y", 0).is_some() && cell("norm", 0).is_some());
    }
    let read = read_vectors(&dir.path().join("rows.parquet"), &VectorOptions::default()).unwrap();
    assert_eq!(read.values.to_vec2::<f32>().unwrap(), embeddings());
    // What was written is an input.
    assert_eq!(figure(&json(dir.path(), &["rows.parquet"]), "duplicate_rows"), 1.0);
}

#[test]
fn what_does_not_fit_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    npy(dir.path(), "z.npy", &embeddings());
    fs::write(path("few.csv"), "name\na\nb\n").unwrap();
    fs::write(path("empty.jsonl"), "").unwrap();
    fs::write(path("broken.parquet"), "PAR1").unwrap();
    fs::create_dir(path("mixed")).unwrap();
    npy(&path("mixed"), "a.npy", &embeddings());
    fs::write(path("mixed/b.csv"), "1,2\n3,4\n").unwrap();
    fs::create_dir(path("uneven")).unwrap();
    npy(&path("uneven"), "a.npy", &embeddings());
    npy(&path("uneven"), "b.npy", &vec![vec![1.0; 2]; 9]);
    for (args, wanted) in [
        (&["z.npy", "--columns", "few.csv"][..], "few.csv has 2 rows, and there are 150 embeddings"),
        (&["z.npy", "--columns", "none.csv"], "none.csv"),
        (&["z.npy", "--labels", "none"], "none"),
        (&["z.npy", "--read-rows", "1"], "at least 2"),
        (&["z.npy", "--html", "no/where.html"], "no/where.html"),
        (&["empty.jsonl"], "empty.jsonl is empty"),
        (&["broken.parquet"], "damaged parquet"),
        (&["none-*.npy"], "no file matches"),
        (&["mixed"], "shards are of one kind"),
        (&["uneven"], "shards have the same columns"),
    ] {
        let output = infomax(dir.path(), &[&["inspect", "--quiet"], args].concat());
        let said = stderr(&output);
        assert!(output.status.code() == Some(1) && said.contains(wanted), "{args:?}: {said}");
    }
}
