//! `infomax objective` as a user runs it, on embeddings in files.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn infomax(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_infomax")).current_dir(dir).args(args).output().unwrap()
}

#[track_caller]
fn ok(dir: &Path, args: &[&str]) -> String {
    let output = infomax(dir, args);
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {}\n{err}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn json(dir: &Path, args: &[&str]) -> Value {
    let args = [&["objective"][..], args, &["--json"]].concat();
    serde_json::from_str(&ok(dir, &args)).unwrap()
}

#[track_caller]
fn fails(dir: &Path, args: &[&str], words: &[&str]) {
    let output = infomax(dir, &[&["objective"][..], args].concat());
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && words.iter().all(|w| err.contains(w)), "{args:?}: {err}");
    assert!(!err.contains("panicked"), "{err}");
}

/// A table of numbers that no rule of the estimators knows.
fn values(n: usize, d: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n * d)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) as f64 / f64::from(1u32 << 31) - 0.5) * 2.0
        })
        .collect()
}

fn save(dir: &Path, name: &str, values: &[f64], dims: &[usize], dtype: DType) {
    let tensor = Tensor::from_slice(values, dims, &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    tensor.write_npy(dir.join(name)).unwrap();
}

fn pair(dir: &Path, dtype: DType) -> [Vec<f64>; 2] {
    let views = [values(12, 3, 1), values(12, 3, 2)];
    save(dir, "z1.npy", &views[0], &[12, 3], dtype);
    save(dir, "z2.npy", &views[1], &[12, 3], dtype);
    views
}

/// VICReg in its official form, written out.
fn vicreg(views: &[Vec<f64>; 2], n: usize, d: usize) -> f64 {
    let mse = views[0].iter().zip(&views[1]).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / (n * d) as f64;
    let (mut variance, mut covariance) = (0.0, 0.0);
    for z in views {
        let mean: Vec<f64> = (0..d).map(|j| (0..n).map(|i| z[i * d + j]).sum::<f64>() / n as f64).collect();
        let s = |a: usize, b: usize| {
            (0..n).map(|i| (z[i * d + a] - mean[a]) * (z[i * d + b] - mean[b])).sum::<f64>() / (n - 1) as f64
        };
        for a in 0..d {
            variance += (1.0 - (s(a, a) + 1e-4).sqrt()).max(0.0) / d as f64 / 2.0;
            covariance += (0..d).filter(|b| *b != a).map(|b| s(a, b).powi(2)).sum::<f64>() / d as f64;
        }
    }
    25.0 * mse + 25.0 * variance + covariance
}

#[test]
fn values_are_those_of_the_formula() {
    let dir = tempfile::tempdir().unwrap();
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
        let views = pair(dir.path(), dtype);
        let answer = json(dir.path(), &["vicreg", "z1.npy", "z2.npy"]);
        let (total, expected) = (answer["total"].as_f64().unwrap(), vicreg(&views, 12, 3));
        assert!((total - expected).abs() < tolerance * expected, "{total} {expected}");
        let parts = answer["parts"].as_array().unwrap();
        let names: Vec<&str> = parts.iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["invariance", "variance", "covariance"]);
        let sum: f64 = parts.iter().map(|p| p["weighted"].as_f64().unwrap()).sum();
        assert!((sum - total).abs() < 1e-5 * total);
        assert_eq!(
            (answer["bound"].as_str(), answer["dtype"].as_str().unwrap().len()),
            (Some("surrogate"), 3)
        );
        let account = &answer["account"];
        let number = |key: &str| account[key].as_f64().unwrap();
        assert!(
            (account["entropy"]["nats"].as_f64().unwrap() + number("conditional") - number("information"))
                .abs()
                < 1e-9
        );
        assert_eq!(
            (account["estimator"].as_str(), account["stands_in"].as_bool()),
            (Some("gaussian"), Some(true))
        );
    }
    let text = ok(dir.path(), &["objective", "vicreg", "z1.npy", "z2.npy"]);
    for word in ["25 mse", "2 views of 12 x 3", "covariance", "surrogate", "E ln q(z | z')", "an upper bound"]
    {
        assert!(text.contains(word), "no `{word}` in\n{text}");
    }
}

#[test]
fn gradient_files_are_the_slopes_of_the_total() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    for name in ["vicreg", "simclr", "mmcr", "hydes"] {
        let views = pair(d, DType::F64);
        let answer = json(d, &[name, "z1.npy", "z2.npy", "--grad", "out/grads"]);
        assert_eq!(answer["gradients"].as_array().unwrap().len(), 2);
        let grad = Tensor::read_npy(d.join("out/grads/grad-2.npy")).unwrap();
        assert_eq!((grad.dims(), grad.dtype()), (&[12, 3][..], DType::F64));
        let grad = grad.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for at in [0, 17, 35] {
            let total = |h: f64| {
                let mut moved = views[1].clone();
                moved[at] += h;
                save(d, "moved.npy", &moved, &[12, 3], DType::F64);
                json(d, &[name, "z1.npy", "moved.npy"])["total"].as_f64().unwrap()
            };
            let slope = (total(1e-5) - total(-1e-5)) / 2e-5;
            assert!(
                (slope - grad[at]).abs() < 1e-6 * (1.0 + slope.abs()),
                "{name} {at}: {slope} {}",
                grad[at]
            );
        }
        let left = std::fs::read_dir(d.join("out/grads")).unwrap().count();
        assert_eq!(left, 2, "temporary files stay behind");
    }
}

#[test]
fn settings_conventions_and_custom_objectives() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    pair(d, DType::F32);
    let plain = json(d, &["vicreg", "z1.npy", "z2.npy"]);
    let solo = json(d, &["vicreg", "z1.npy", "z2.npy", "--convention", "solo-learn"]);
    let value = |answer: &Value| answer["parts"][1]["value"].as_f64().unwrap();
    assert!((value(&solo) - 2.0 * value(&plain)).abs() < 1e-6, "solo-learn does not halve the variance");
    let heavy = json(
        d,
        &[
            "vicreg",
            "z1.npy",
            "z2.npy",
            "--set",
            "entropy.covariance=4",
            "--set",
            "objective.invariance.weight=1",
        ],
    );
    assert_eq!(
        (heavy["parts"][2]["weight"].as_f64(), heavy["parts"][0]["weight"].as_f64()),
        (Some(4.0), Some(1.0))
    );
    let custom =
        ["custom", "z1.npy", "z2.npy", "--set", "invariance.kind=mse", "--set", "entropy.kind=pairdist"];
    let upper = json(d, &custom);
    let lower = json(d, &[&custom[..], &["--set", "entropy.divergence=bhattacharyya"]].concat());
    assert_eq!((upper["bound"].as_str(), lower["bound"].as_str()), (Some("upper"), Some("lower")));
    let nats = |answer: &Value| answer["account"]["entropy"]["nats"].as_f64().unwrap();
    assert!(nats(&lower) < nats(&upper));
    assert_eq!(upper["account"]["stands_in"].as_bool(), Some(false));
}

#[test]
fn views_from_many_files_one_array_or_safetensors() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let all = values(36, 3, 5);
    save(d, "all.npy", &all, &[3, 12, 3], DType::F32);
    let mut tensors = std::collections::HashMap::new();
    for v in 0..3 {
        save(d, &format!("v{v}.npy"), &all[v * 36..(v + 1) * 36], &[12, 3], DType::F32);
        let t = Tensor::from_slice(&all[v * 36..(v + 1) * 36], (12, 3), &Device::Cpu).unwrap();
        tensors.insert(format!("z{v}"), t.to_dtype(DType::F32).unwrap());
    }
    candle_core::safetensors::save(&tensors, d.join("run.safetensors")).unwrap();
    let total = |args: &[&str]| json(d, args)["total"].as_f64().unwrap();
    let files = total(&["frossl", "v0.npy", "v1.npy", "v2.npy"]);
    assert_eq!(files, total(&["frossl", "all.npy"]));
    assert_eq!(files, total(&["frossl", "run.safetensors:z0", "run.safetensors:z1", "run.safetensors:z2"]));
    fails(d, &["frossl", "run.safetensors", "v1.npy"], &["3 tensors", "run.safetensors:z0"]);
    fails(d, &["frossl", "run.safetensors:zz", "v1.npy"], &["`zz`", "z0, z1, z2"]);
}

#[test]
fn what_a_method_needs_beside_the_projections() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    pair(d, DType::F32);
    fails(d, &["byol", "z1.npy", "z2.npy"], &["targets", "--target FILE"]);
    fails(d, &["simsiam", "z1.npy", "z2.npy"], &["predictions", "--prediction FILE", "2 views"]);
    let with = ["--prediction", "z2.npy", "--prediction", "z1.npy", "--grad", "g"];
    let answer = json(d, &[&["simsiam", "z1.npy", "z2.npy"][..], &with].concat());
    // Each prediction is the other view: the cosine is 1.
    assert!((answer["total"].as_f64().unwrap() + 1.0).abs() < 1e-6);
    assert!(answer["bound"].is_null() && answer["gradients"].as_array().unwrap().len() == 4);
    fails(d, &["vicregl", "z1.npy", "z2.npy"], &["--local FILE"]);
    for v in 0..2 {
        save(d, &format!("m{v}.npy"), &values(12, 8, 7 + v), &[12, 4, 2], DType::F32);
        save(d, &format!("p{v}.npy"), &values(12, 8, 9 + v), &[12, 4, 2], DType::F32);
    }
    let maps = ["--local", "m0.npy", "--local", "m1.npy", "--places", "p0.npy", "--places", "p1.npy"];
    let local = json(d, &[&["vicregl", "z1.npy", "z2.npy"][..], &maps].concat());
    assert_eq!(local["parts"].as_array().unwrap().len(), 6);
    // Labels: version 1.0 of the format, eight bytes an element.
    let mut labels =
        b"\x93NUMPY\x01\x00\x46\x00{'descr': '<i8', 'fortran_order': False, 'shape': (12,), }".to_vec();
    labels.resize(79, b' ');
    labels.push(b'\n');
    labels.extend((0..12i64).flat_map(|i| (i % 3).to_le_bytes()));
    std::fs::write(d.join("y.npy"), labels).unwrap();
    let own = json(d, &["mcr2", "z1.npy", "z2.npy"])["total"].as_f64().unwrap();
    let given = json(d, &["mcr2", "z1.npy", "z2.npy", "--labels", "y.npy"])["total"].as_f64().unwrap();
    assert!((own - given).abs() > 1e-3, "{own} {given}");
    fails(d, &["vicreg", "z1.npy", "z2.npy", "--labels", "y.npy"], &["mcr2", "supcon"]);
    let supervised = json(d, &["supcon", "z1.npy", "z2.npy", "--labels", "y.npy"]);
    assert!(
        supervised["total"].as_f64().unwrap() > 0.0 && supervised["parts"].as_array().unwrap().len() == 2
    );
    fails(d, &["supcon", "z1.npy", "z2.npy"], &["`labels`", "--labels FILE"]);
}

#[test]
fn mistakes_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    pair(d, DType::F32);
    save(d, "short.npy", &values(11, 3, 3), &[11, 3], DType::F32);
    save(d, "vector.npy", &values(11, 1, 3), &[11], DType::F32);
    save(d, "nan.npy", &[f64::NAN; 36], &[12, 3], DType::F32);
    std::fs::write(d.join("text.npy"), "not an array").unwrap();
    fails(d, &["vicrag", "z1.npy", "z2.npy"], &["vicrag", "`vicreg`"]);
    fails(d, &["vicreg", "z1.npy", "none.npy"], &["none.npy"]);
    fails(d, &["vicreg", "z1.npy", "text.npy"], &["text.npy", "not a .npy file"]);
    fails(d, &["vicreg", "z1.npy", "short.npy"], &["[11, 3]", "[12, 3]"]);
    fails(d, &["vicreg", "z1.npy", "vector.npy"], &["vector.npy", "[11]"]);
    fails(d, &["vicreg", "z1.npy", "nan.npy"], &["nan.npy", "not finite"]);
    fails(d, &["vicreg", "z1.npy", "z2.npy", "--set", "entropy.covarience=4"], &["covarience", "covariance"]);
    fails(d, &["vicreg", "z1.npy", "z2.npy", "--convention", "mine"], &["mine", "solo-learn"]);
    fails(d, &["vicreg"], &["no file"]);
    fails(d, &["vicreg", "z1.npy"], &["at least 2 views"]);
    fails(d, &[], &["objective list"]);
}

/// What stands at one place of the objective follows at the others: `simclr` at a temperature is NT-Xent.
#[test]
fn a_shared_temperature_stands_once() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let views = pair(d, DType::F64);
    let (n, dim, t) = (12, 3, 0.1);
    let unit: Vec<Vec<f64>> = views
        .iter()
        .flat_map(|z| z.chunks(dim))
        .map(|row| {
            let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            row.iter().map(|v| v / norm).collect()
        })
        .collect();
    let dot = |i: usize, j: usize| unit[i].iter().zip(&unit[j]).map(|(a, b)| a * b).sum::<f64>() / t;
    let losses = (0..2 * n).map(|i| {
        let sum: f64 = (0..2 * n).filter(|j| *j != i).map(|j| dot(i, j).exp()).sum();
        sum.ln() - dot(i, (i + n) % (2 * n))
    });
    let nt_xent = losses.sum::<f64>() / (2 * n) as f64;
    for set in ["temperature=0.1", "objective.temperature=0.1", "entropy.temperature=0.1"] {
        let total = json(d, &["simclr", "z1.npy", "z2.npy", "--set", set])["total"].as_f64().unwrap();
        assert!((total - nt_xent).abs() < 1e-9, "{set}: {total} {nt_xent}");
    }
    let both = ["--set", "entropy.temperature=0.1", "--set", "invariance.weight=10"];
    let total = json(d, &[&["simclr", "z1.npy", "z2.npy"][..], &both].concat())["total"].as_f64().unwrap();
    assert!((total - nt_xent).abs() < 1e-9);
    let with = |set: &[&'static str]| [&["simclr", "z1.npy", "z2.npy"][..], set].concat();
    let words = ["invariance.weight = 4", "objective.temperature = 0.25"];
    fails(d, &with(&["--set", "invariance.weight=4"]), &words);
    let twice = ["--set", "temperature=0.2", "--set", "entropy.temperature=0.1"];
    fails(d, &with(&twice), &["temperature = 0.2", "entropy.temperature = 0.1"]);
    fails(d, &["vicreg", "z1.npy", "z2.npy", "--set", "temperature=0.1"], &["`vicreg`", "`simclr`"]);
    fails(d, &with(&["--set", "temperature=0"]), &["temperature = 0", "above 0"]);
    // Nothing hangs at the ends.
    json(d, &with(&["--set", "temperature=1e-17"]));
    let lejepa = json(d, &["lejepa", "z1.npy", "z2.npy", "--set", "entropy.weight=0.1"]);
    assert!((lejepa["parts"][0]["weight"].as_f64().unwrap() - 0.9).abs() < 1e-12);
}

#[test]
fn mistakes_lead_to_what_was_meant() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    pair(d, DType::F32);
    save(d, "empty.npy", &[], &[0, 3], DType::F32);
    save(d, "same.npy", &[1.5; 36], &[12, 3], DType::F32);
    let vicreg = |more: &[&'static str]| [&["vicreg", "z1.npy", "z2.npy"][..], more].concat();
    fails(d, &["vicreg", "empty.npy", "empty.npy"], &["empty.npy", "[0, 3]", "no sample"]);
    fails(d, &["z1.npy", "z2.npy"], &["`z1.npy` is a file", "infomax objective vicreg z1.npy z2.npy"]);
    fails(d, &["barlow", "z1.npy", "z2.npy"], &["did you mean `barlow-twins`,"]);
    fails(d, &["logdet", "z1.npy", "z2.npy"], &["`vicreg-logdet`", "entropy.kind = \"logdet\""]);
    for (set, words) in [
        ("invariance.weight=-1", &["invariance.weight = -1", "at least 0"][..]),
        ("invariance.weight=nan", &["invariance.weight = NaN"]),
        ("entropy.eps=-1", &["entropy.eps = -1"]),
        ("entropy.path=3", &["path = 3", "auto, gram, features"]),
        ("entropy.gamma=[1]", &["write a number"]),
        ("entropy=3", &["entropy.kind = "]),
        ("invariance.weight=abc", &["objective.invariance", "weight = \"abc\": write a number"]),
    ] {
        fails(d, &vicreg(&["--set", set]), words);
    }
    // The keys of the chosen kind, and of no other; the table that holds the mistake.
    for args in [
        vicreg(&["--set", "invariance.wieght=3"]),
        vicreg(&["--set", "entropy.kind=kde", "--set", "invariance.wieght=3"]),
        ["custom", "z1.npy", "z2.npy"]
            .into_iter()
            .chain([
                "--set",
                "invariance.kind=mse",
                "--set",
                "invariance.wieght=3",
                "--set",
                "entropy.kind=kde",
            ])
            .collect(),
    ] {
        fails(d, &args, &["`wieght`", "[objective.invariance]", "`weight`", "sum_dims"]);
        let output = infomax(d, &[&["objective"][..], &args].concat());
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!err.contains("sub_batch") && !err.contains("[objective.entropy]"), "{err}");
    }
    let output = infomax(d, &["config", "show", "--set", "objective.entropy.varience=3"]);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(err.contains("`variance`") && !err.contains("prototypes"), "{err}");
    // One sentence once, and no trace of the program.
    for args in [&["mec", "z1.npy"][..], &["w-mse", "same.npy", "same.npy"], &["vicreg", "empty.npy"]] {
        let output = infomax(d, &[&["objective"][..], args].concat());
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && !err.contains("candle_core"), "{err}");
        assert_eq!(err.matches("needs").count() + err.matches("no sample").count(), 1, "{err}");
    }
    fails(d, &["mec", "z1.npy"], &["at least 2 views", "got 1", "augment.recipe"]);
    fails(d, &["byol", "z1.npy", "z2.npy"], &["model.teacher_momentum"]);
    // No spread is no information.
    let collapsed = json(d, &["vicreg", "same.npy", "same.npy"]);
    assert!(collapsed["account"].is_null());
    assert!(collapsed["account_refused"].as_str().unwrap().contains("no spread"), "{collapsed}");
}

/// The bytes of `torch.save` (protocol 2) of one f32 matrix with strides, alone or in a dictionary.
fn torch_file(values: &[f32], offset: u8, dims: [u8; 2], strides: [u8; 2], key: Option<&str>) -> Vec<u8> {
    let word = |s: &str| [&b"X"[..], &(s.len() as u32).to_le_bytes(), s.as_bytes()].concat();
    let mut pickle = b"\x80\x02".to_vec();
    if let Some(key) = key {
        pickle.extend(b"}(");
        pickle.extend(word(key));
    }
    pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    pickle.extend(word("storage"));
    pickle.extend(b"ctorch\nFloatStorage\n");
    pickle.extend(
        [word("0"), word("cpu"), vec![b'K', values.len() as u8], b"tQ".to_vec(), vec![b'K', offset]].concat(),
    );
    pickle.extend([b'K', dims[0], b'K', dims[1], 0x86, b'K', strides[0], b'K', strides[1], 0x86, 0x89]);
    pickle.extend(b"ccollections\nOrderedDict\n)RtR");
    pickle.extend(if key.is_some() { &b"u."[..] } else { &b"."[..] });
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    for (name, bytes) in [("z/data.pkl", &pickle), ("z/data/0", &data)] {
        archive.start_file(name, options).unwrap();
        std::io::Write::write_all(&mut archive, bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// Every kind of file gives the numbers that `.npy` gives.
#[test]
fn embeddings_of_many_kinds_of_files() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    // Numbers that f16 has.
    let values: Vec<f64> = values(12, 3, 1).iter().map(|v| (v * 64.0).round() / 64.0).collect();
    save(d, "z.npy", &values, &[12, 3], DType::F32);
    let total = |file: &str| json(d, &["vcreg", file])["total"].as_f64().unwrap();
    let expected = total("z.npy");
    let npy = |descr: &str, fortran: bool, data: Vec<u8>| {
        let fortran = if fortran { "True" } else { "False" };
        let mut text = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': (12, 3), }}");
        while (text.len() + 11) % 64 != 0 {
            text.push(' ');
        }
        text.push('\n');
        let length = (text.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\x00".to_vec(), length.to_vec(), text.into_bytes(), data].concat()
    };
    let by_columns: Vec<f64> = (0..36).map(|k| values[(k % 12) * 3 + k / 12]).collect();
    // The bits of a number that f16 has.
    let half = |v: f64| -> u16 {
        if v == 0.0 {
            return 0;
        }
        let bits = (v as f32).to_bits();
        ((bits >> 16 & 0x8000) | (((bits >> 23 & 0xff) - 112) << 10) | (bits >> 13 & 0x3ff)) as u16
    };
    let le = |v: &[f64]| v.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect::<Vec<u8>>();
    let big = values.iter().flat_map(|v| (*v as f32).to_be_bytes()).collect();
    let f32s: Vec<f32> = values.iter().map(|v| *v as f32).collect();
    let columns: Vec<f32> = by_columns.iter().map(|v| *v as f32).collect();
    let lines = |separator: &str| {
        values
            .chunks(3)
            .map(|r| r.iter().map(f64::to_string).collect::<Vec<_>>().join(separator) + "\n")
            .collect::<String>()
    };
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, data) in [("z.npy", le(&values)), ("y.npy", le(&by_columns))] {
        archive.start_file(name, options).unwrap();
        std::io::Write::write_all(&mut archive, &npy("<f4", false, data)).unwrap();
    }
    let npz = archive.finish().unwrap().into_inner();
    for (file, bytes) in [
        ("fortran.npy", npy("<f4", true, le(&by_columns))),
        ("big.npy", npy(">f4", false, big)),
        ("half.npy", npy("<f2", false, values.iter().flat_map(|v| half(*v).to_le_bytes()).collect())),
        ("dict.pt", torch_file(&f32s, 0, [12, 3], [3, 1], Some("z"))),
        ("alone.pt", torch_file(&f32s, 0, [12, 3], [3, 1], None)),
        ("part.pt", torch_file(&[&[7.0; 5], &f32s[..]].concat(), 5, [12, 3], [3, 1], Some("z"))),
        ("strided.pth", torch_file(&columns, 0, [12, 3], [1, 12], Some("z"))),
        ("comma.csv", lines(",").into_bytes()),
        ("header.csv", format!("\u{feff}a,b,c\n{}", lines(", ")).into_bytes()),
        ("semicolon.csv", lines(";").into_bytes()),
        ("tab.tsv", lines("\t").into_bytes()),
        ("savetxt.txt", format!("# three numbers\n{}", lines(" ")).into_bytes()),
        ("both.npz", npz),
    ] {
        std::fs::write(d.join(file), bytes).unwrap();
        let name = if file == "both.npz" { "both.npz:z" } else { file };
        let got = total(name);
        assert!((got - expected).abs() < 1e-5 * expected, "{file}: {got} {expected}");
    }
    fails(d, &["vcreg", "both.npz"], &["2 tensors", "both.npz:y | z"]);
    fails(d, &["vcreg", "both.npz:x"], &["no tensor `x`", "y, z"]);
    for (file, text, words) in [
        ("word.csv", "1,2\n3,four\n", &["word.csv", "line 2", "column 2", "`four`"][..]),
        ("short.csv", "1,2\n3\n", &["line 2", "1 numbers"]),
        ("index.csv", ",a,b\n0,1,2\n", &["index=False"]),
        ("z.pkl", "x", &["numpy.save", ".npz"]),
        ("old.pt", "\u{80}", &["old.pt", "torch.save"]),
    ] {
        std::fs::write(d.join(file), text).unwrap();
        fails(d, &["vcreg", file], words);
    }
}

#[test]
fn the_list_names_everything() {
    let dir = tempfile::tempdir().unwrap();
    let rows: Value = serde_json::from_str(&ok(dir.path(), &["objective", "list", "--json"])).unwrap();
    let rows = rows.as_array().unwrap();
    for name in [
        "vicreg",
        "vicregl",
        "vibcreg",
        "vcreg",
        "vicreg-logdet",
        "vicreg-pairdist-kl",
        "vicreg-pairdist-bd",
        "simclr",
        "simclr-logdet",
        "simclr-pairdist",
        "dcl",
        "dclw",
        "byol",
        "byol-logdet",
        "byol-pairdist",
        "simsiam",
        "barlow-twins",
        "w-mse",
        "tico",
        "mmcr",
        "frossl",
        "emp-ssl",
        "koleo",
        "align-uniform",
        "mec",
        "matrix-ssl",
        "mcr2",
        "supcon",
        "corinfomax",
        "lejepa",
        "visreg",
        "e2mc",
        "hydes",
        "swav",
    ] {
        let row = rows.iter().find(|row| row["name"] == name);
        let row = row.unwrap_or_else(|| panic!("{name} is not listed"));
        assert!(row["composition"].as_str().unwrap().len() > 5 && row["source"].as_str().unwrap().len() > 5);
        assert!(!row["conventions"].as_array().unwrap().is_empty() && row["entropy"].is_object());
    }
    let help = ok(dir.path(), &["objective", "--help"]);
    assert!(help.contains("infomax objective vicreg z1.npy z2.npy") && help.contains("--grad"), "{help}");
}

/// New methods train from the command line, and a logged step carries its account.
#[test]
fn training_reports_the_account_and_keeps_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let small = [
        "model.encoder.blocks=[1, 1]",
        "model.encoder.width=8",
        "model.projector=[16, 16]",
        "data.train_images=80",
        "data.test_images=40",
        "train.batch=40",
        "train.log_every=1",
        "train.monitor.every=2",
        "data.shapes.size=16",
        "augment.size=16",
    ];
    for (name, more) in [
        ("swav", &["objective.entropy.prototypes=8", "objective.entropy.freeze_steps=0"][..]),
        ("vicregl", &["objective.entropy.alpha=1.0"][..]),
        ("mcr2", &[][..]),
        ("supcon", &[][..]),
    ] {
        let objective = format!("objective.name={name}");
        let settings = small.iter().chain(more).copied().chain([objective.as_str()]);
        let mut args = vec!["pretrain", "--quiet", "--no-eval", "--epochs", "3", "--run", name];
        settings.for_each(|set| args.extend(["--set", set]));
        ok(dir.path(), &args);
        let text = std::fs::read_to_string(dir.path().join(name).join("metrics.jsonl")).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let account = lines.iter().find_map(|line| line.get("account"));
        let account = account.unwrap_or_else(|| panic!("{name}: no line has an account"));
        let number = |key: &str| account[key].as_f64().unwrap();
        assert!(
            (number("entropy") + number("conditional") - number("information")).abs() < 1e-9,
            "{account}"
        );
    }
    let mut checkpoints: Vec<_> = std::fs::read_dir(dir.path().join("swav/checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    checkpoints.sort();
    let state = checkpoints.last().unwrap().join("objective.safetensors");
    let state = candle_core::safetensors::load(state, &Device::Cpu).unwrap();
    assert_eq!(state["swav.prototypes"].dims(), [8, 16]);
    assert!(state.contains_key("swav.velocity"));
}
