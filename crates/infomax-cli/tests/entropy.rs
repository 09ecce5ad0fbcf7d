//! `infomax entropy` as a user runs it.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use std::f64::consts::{E, PI};
use std::path::Path;
use std::process::{Command, Output};

fn infomax(dir: &Path, args: &[&str]) -> Output {
    let all = [&["entropy"][..], args].concat();
    Command::new(env!("CARGO_BIN_EXE_infomax")).current_dir(dir).args(all).output().unwrap()
}

#[track_caller]
fn json(dir: &Path, args: &[&str]) -> Value {
    let output = infomax(dir, &[args, &["--json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn fails(dir: &Path, args: &[&str], words: &[&str]) {
    let output = infomax(dir, args);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && words.iter().all(|w| err.contains(w)), "{args:?}: {err}");
    assert!(!err.contains("panicked"), "{err}");
}

fn save(dir: &Path, name: &str, values: &[f64], dims: &[usize]) {
    let tensor = Tensor::from_slice(values, dims, &Device::Cpu).unwrap();
    tensor.to_dtype(DType::F64).unwrap().write_npy(dir.join(name)).unwrap();
}

fn draw(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let draws = (0..count).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as f64 / f64::from(1u32 << 31) - 0.5) * 2.0
    });
    draws.collect()
}

/// `-1/2 [ln det(2 pi e S)]` of one and of two columns, written out.
#[test]
fn gaussian_entropies_are_positive_where_they_are_and_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (x, e) = (draw(200, 1), draw(200, 2));
    let y: Vec<f64> = x.iter().zip(&e).map(|(x, e)| 0.8 * x + 0.6 * e).collect();
    save(d, "x.npy", &x, &[200, 1]);
    save(d, "y.npy", &y, &[200, 1]);
    let moment = |a: &[f64], b: &[f64]| {
        let mean = |v: &[f64]| v.iter().sum::<f64>() / 200.0;
        let (m, k) = (mean(a), mean(b));
        a.iter().zip(b).map(|(a, b)| (a - m) * (b - k)).sum::<f64>() / 199.0
    };
    let (xx, yy, xy) = (moment(&x, &x), moment(&y, &y), moment(&x, &y));
    let (hx, hy) = (0.5 * (2.0 * PI * E * xx).ln(), 0.5 * (2.0 * PI * E * yy).ln());
    let joint = (2.0 * PI * E).ln() + 0.5 * (xx * yy - xy * xy).ln();
    let one = json(d, &["gaussian", "x.npy", "--set", "eps=0"]);
    let number = |v: &Value, key: &str| v[key].as_f64().unwrap();
    assert!((number(&one, "entropy") - hx).abs() < 1e-10 && hx > 0.0);
    assert_eq!((one["bound"].as_str(), one["unit"].as_str()), (Some("upper"), Some("nats")));
    assert!(one.get("joint_entropy").is_none());
    let both = json(d, &["gaussian", "x.npy", "y.npy", "--set", "entropy.eps=0"]);
    for (key, expected) in [
        ("entropy", hx),
        ("other_entropy", hy),
        ("joint_entropy", joint),
        ("mutual_information", hx + hy - joint),
    ] {
        assert!((number(&both, key) - expected).abs() < 1e-10, "{key}: {both}");
    }
    let conditional: Vec<f64> =
        both["conditional_entropy"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert!((conditional[0] - (joint - hy)).abs() < 1e-10 && (conditional[1] - (joint - hx)).abs() < 1e-10);
    let text = String::from_utf8(infomax(d, &["gaussian", "x.npy", "y.npy"]).stdout).unwrap();
    for word in ["H(Z)", "nats", "an upper bound of the entropy", "H(Z | Y)", "I(Z; Y)"] {
        assert!(text.contains(word), "no `{word}` in\n{text}");
    }
}

/// The quadratic matrix entropies, by their sums.
#[test]
fn matrix_entropies_have_joint_forms() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let (n, x, y) = (15, draw(30, 3), draw(45, 4));
    save(d, "x.npy", &x, &[n, 2]);
    save(d, "y.npy", &y, &[n, 3]);
    let kernel = |z: &[f64], dim: usize, i: usize, j: usize| {
        let r2: f64 = (0..dim).map(|k| (z[i * dim + k] - z[j * dim + k]).powi(2)).sum();
        (-r2 / (dim as f64)).exp() // sigma^2 = d / 2
    };
    let entropy = |f: &dyn Fn(usize, usize) -> f64| {
        let sum: f64 = (0..n * n).map(|ij| (f(ij / n, ij % n) / n as f64).powi(2)).sum();
        -sum.ln()
    };
    let hx = entropy(&|i, j| kernel(&x, 2, i, j));
    let hy = entropy(&|i, j| kernel(&y, 3, i, j));
    let joint = entropy(&|i, j| kernel(&x, 2, i, j) * kernel(&y, 3, i, j));
    let both = json(d, &["renyi", "x.npy", "y.npy"]);
    for (key, expected) in [
        ("entropy", hx),
        ("other_entropy", hy),
        ("joint_entropy", joint),
        ("mutual_information", hx + hy - joint),
    ] {
        assert!((both[key].as_f64().unwrap() - expected).abs() < 1e-10, "{key}: {both}");
    }
    assert_eq!(both["unit"].as_str(), Some("surrogate"));
    let logdet = json(d, &["logdet", "x.npy", "y.npy", "--set", "beta=10"]);
    assert!(logdet["mutual_information"].as_f64().unwrap() > 0.0);
}

#[test]
fn weights_covariances_and_directions_come_from_files() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let z = draw(12, 5);
    save(d, "z.npy", &z, &[6, 2]);
    save(d, "w.npy", &[1.0, 2.0, 3.0, 1.0, 2.0, 1.0], &[6]);
    let eyes: Vec<f64> = (0..6).flat_map(|_| [0.4, 0.0, 0.0, 0.4]).collect();
    save(d, "s.npy", &eyes, &[6, 2, 2]);
    save(d, "a.npy", &[1.0, 0.0, 0.0, 1.0], &[2, 2]);
    let w = [0.1, 0.2, 0.3, 0.1, 0.2, 0.1];
    let r2 = |i: usize, j: usize| (z[2 * i] - z[2 * j]).powi(2) + (z[2 * i + 1] - z[2 * j + 1]).powi(2);
    let mixture: f64 = (0..6)
        .map(|i| -w[i] * (0..6).map(|j| w[j] * (-r2(i, j) / (2.0 * 0.5)).exp()).sum::<f64>().ln())
        .sum::<f64>()
        + (2.0 * PI * E * 0.5).ln();
    let h = |args: &[&str]| json(d, args)["entropy"].as_f64().unwrap();
    let plain = h(&["pairdist", "z.npy", "--set", "variance=0.5", "--weights", "w.npy"]);
    assert!((plain - mixture).abs() < 1e-10, "{plain} {mixture}");
    let full = h(&["pairdist-full", "z.npy", "--covariances", "s.npy", "--weights", "w.npy"]); // 0.4 + eps 0.1
    assert!((full - mixture).abs() < 1e-9, "{full} {mixture}");
    h(&["sigreg", "z.npy", "--directions", "a.npy"]);
    let seeded = |seed: &str| h(&["sigreg", "z.npy", "--set", "slices=3", "--set", seed]);
    assert_eq!(seeded("seed=1"), seeded("seed=1"));
    assert!((seeded("seed=1") - seeded("seed=2")).abs() > 1e-9);
    fails(d, &["kde", "z.npy", "--weights", "w.npy"], &["--weights", "`pairdist`", "`kde`"]);
    fails(d, &["pairdist-full", "z.npy", "--covariances", "z.npy"], &["covariances (n, d, d)"]);
    fails(d, &["pairdist", "z.npy", "--set", "variance=-1"], &["entropy.variance = -1", "above 0"]);
    fails(d, &["pairdist", "z.npy", "--set", "varience=1"], &["`varience`", "`variance`"]);
    fails(d, &["kde", "z.npy", "z.npy"], &["gaussian", "renyi"]);
    fails(d, &["gaussain", "z.npy"], &["`gaussian`"]);
    fails(d, &["gaussian", "s.npy"], &["one matrix"]);
}

#[test]
fn what_must_be_known_of_a_figure_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    save(d, "wide.npy", &draw(60, 6), &[6, 10]);
    save(d, "tall.npy", &draw(60, 6), &[30, 2]);
    let r = json(d, &["gaussian", "wide.npy"]);
    assert!(r["bound"].is_null() && r["notes"][0].as_str().unwrap().contains("singular"), "{r}");
    let text = String::from_utf8(infomax(d, &["gaussian", "wide.npy"]).stdout).unwrap();
    assert!(text.contains("no bound of the entropy") && !text.contains("an upper bound"), "{text}");
    let r = json(d, &["gaussian", "tall.npy"]);
    assert!(r["bound"] == "upper" && r["notes"].as_array().unwrap().is_empty(), "{r}");
    let r = json(d, &["kde", "tall.npy"]);
    assert!(r["notes"][0].as_str().unwrap().contains("no row is left out"), "{r}");
    let once = draw(60, 7);
    save(d, "twice.npy", &[&once[..], &once[..]].concat(), &[60, 2]);
    let r = json(d, &["kozachenko-leonenko", "twice.npy"]);
    assert!(r["notes"][0].as_str().unwrap().contains("60 of 60 rows have an equal one"), "{r}");
    let r = json(d, &["kozachenko-leonenko", "tall.npy"]);
    assert!(r["notes"].as_array().unwrap().is_empty(), "{r}");
    fails(d, &["kozachenko-leonenko", "twice.npy", "--set", "k=1"], &["equal"]);
    save(d, "bad.npy", &[0.0, 1.0, f64::NAN, 2.0, 3.0, 4.0], &[3, 2]);
    fails(d, &["gaussian", "bad.npy"], &["bad.npy", "1 row: 1"]);
}
