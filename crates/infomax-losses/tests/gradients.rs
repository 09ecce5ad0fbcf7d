//! Every objective, estimator and invariance term: gradients by central differences, finiteness, half types.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use candle_core::{DType, Device, Tensor, Var};
use common::catalog::{Case, batches, catalog, embeddings, frozen};
use common::number;
use infomax_core::{Context, Key, Objective};

/// Where a term has a kink on a batch, so that no derivative exists there: neighbors or ranks that tie, null
/// directions of a square root or of a logarithm.
const KINKS: &[(&str, &str)] = &[
    ("koleo", "duplicated rows"),
    ("kozachenko-leonenko", "duplicated rows"),
    ("m-spacing", "duplicated rows"),
    ("e2mc", "duplicated rows"),
    ("radial", "duplicated rows"),
    ("rectified", "duplicated rows"),
    ("sliced-normality", "duplicated rows"),
    ("renyi", "duplicated rows"),
    ("mmcr", "duplicated rows"),
];

fn kink(case: &str, batch: &str) -> bool {
    KINKS.iter().any(|(c, b)| case.contains(c) && *b == batch)
}

/// Derivatives along coordinates, of fourth order, with a step that follows the size of the batch.
fn check(objective: &dyn Objective, name: &str, views: &[Tensor]) -> Result<(usize, usize), String> {
    let constant: Vec<Tensor> = views.iter().map(|z| z.affine(0.9, 0.01).unwrap().detach()).collect();
    let stops = name.contains("simsiam") || name.contains("stop-gradient");
    // Behind a stop-gradient the projections are constants, and the predictions vary.
    let embed = |zs: &[Tensor]| {
        let mut z = embeddings(zs, &constant);
        if stops {
            z.projections = infomax_core::Views::new(constant.clone()).unwrap();
        }
        if name.contains("mmcr") {
            z.targets = None;
        }
        z
    };
    let value = |zs: &[Tensor]| {
        objective.evaluate(&embed(zs), &Context::standalone()).map(|r| r.total).map_err(|e| e.to_string())
    };
    let vars: Vec<Var> = views.iter().map(|z| Var::from_tensor(z).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let total = value(&tensors)?;
    let at_rest = number(&total).abs();
    let grads = total.backward().unwrap();
    let first = views[0].flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let mean = first.iter().sum::<f64>() / first.len() as f64;
    let size = (first.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / first.len() as f64).sqrt();
    let step = 1e-3 * size;
    // A singular covariance of size 1e8 beside an eps down to 1e-4: its condition, up to 1e12, leaves the values
    // of log-determinants four digits, and their differences two.
    let (n, d) = views[0].dims2().unwrap();
    let ill = size > 1e3
        && n <= d
        && ["gaussian", "total-correlation", "logdet"].iter().any(|kind| name.contains(kind));
    let relative = if ill { 2e-2 } else { 2e-5 };
    let (mut checked, mut open) = (0, 0);
    for (v, tensor) in tensors.iter().enumerate() {
        let data = views[v].flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let grad = match grads.get(tensor) {
            Some(grad) => grad.flatten_all().unwrap().to_vec1::<f64>().unwrap(),
            None => vec![0.0; data.len()],
        };
        let scale = grad.iter().fold(0f64, |m, g| m.max(g.abs()));
        for i in (0..data.len()).step_by(data.len().div_ceil(3)) {
            let at = |h: f64| -> Result<f64, String> {
                let mut moved = data.clone();
                moved[i] += h;
                let mut zs: Vec<Tensor> = views.to_vec();
                zs[v] = Tensor::from_vec(moved, views[v].dims(), &Device::Cpu).unwrap();
                Ok(number(&value(&zs)?))
            };
            let estimate = |h: f64| -> Result<f64, String> {
                Ok((8.0 * (at(h)? - at(-h)?) - (at(2.0 * h)? - at(-2.0 * h)?)) / (12.0 * h))
            };
            // Two steps: where they differ, a kink or rounding is near, and they decide up to their difference only.
            let (wide, narrow) = (estimate(step)?, estimate(step / 16.0)?);
            let error = (wide - grad[i]).abs().min((narrow - grad[i]).abs());
            let rounding = 4e-13 * (at_rest + 1.0) / step;
            let allowed = relative * scale.max(wide.abs()) + rounding;
            let doubt = (wide - narrow).abs();
            if doubt > 10.0 * allowed {
                open += 1;
            }
            let allowed = allowed + 3.0 * doubt;
            if error.is_nan() || error > allowed {
                return Err(format!(
                    "WRONG view {v}, element {i}: differences {wide:e} and {narrow:e}, backward {:e}, \
                     error {error:e}, allowed {allowed:e}",
                    grad[i]
                ));
            }
            checked += 1;
        }
    }
    Ok((checked, open))
}

/// Whether an error says which term or objective it comes from.
fn names_its_term(error: &str, case: &Case) -> bool {
    let entropy = case.config.entropy.build().unwrap();
    let invariance = toml::Value::try_from(&case.config.invariance).unwrap();
    let names = [
        case.config.name.as_str(),
        entropy.as_ref().map_or("invariance", |e| e.name()),
        invariance["kind"].as_str().unwrap(),
        // What terms are made of.
        "whitening",
        "coding-rate",
    ];
    names.iter().any(|name| error.contains(name))
}

fn sweep(cases: &[Case], shapes: &[(usize, usize, usize)], only: Option<&[&str]>) {
    let mut wrong = Vec::new();
    let (mut checked, mut open, mut refused) = (0, 0, 0);
    for case in cases {
        for (views, n, d) in shapes {
            let objective = frozen(&case.config, *d);
            for (batch, zs) in batches(*views, *n, *d) {
                if kink(&case.name, batch) || only.is_some_and(|only| !only.contains(&batch)) {
                    continue;
                }
                let what = format!("{} on {views} views, n {n}, d {d}, {batch}", case.name);
                match check(objective.as_ref(), &case.name, &zs) {
                    Ok((count, undecided)) => {
                        checked += count;
                        open += undecided;
                    }
                    Err(error) if error.starts_with("WRONG") => wrong.push(format!("{what}: {error}")),
                    Err(error) => {
                        // An ordinary batch with more rows than columns is never refused.
                        if batch == "ordinary" && n > d && *n > 3 {
                            wrong.push(format!("{what}: {error}"));
                        }
                        assert!(names_its_term(&error, case), "{what}: {error}");
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(
        checked > 30 * open && checked > 20 * refused,
        "{checked} derivatives checked, {open} undecided, {refused} batches refused"
    );
}

#[test]
fn gradients_of_two_views() {
    sweep(&catalog(), &[(2, 5, 9), (2, 6, 6), (2, 11, 4)], None);
}

#[test]
fn gradients_of_four_views() {
    sweep(&catalog(), &[(4, 4, 7), (4, 5, 5), (4, 9, 3)], None);
}

#[test]
fn gradients_of_two_rows() {
    sweep(&catalog(), &[(2, 2, 5), (2, 2, 2), (2, 2, 1)], Some(&["ordinary", "offset 1e3"]));
}

/// Any finite input: a finite value and gradient, or an error that says what is wrong.
#[test]
fn finite_or_a_named_error() {
    let mut wrong = Vec::new();
    let cases = catalog();
    for dtype in [DType::F32, DType::F64] {
        let (tiny, huge) = if dtype == DType::F32 { (1e-30, 1e30) } else { (1e-200, 1e200) };
        let levels = [
            (1.0, 0.0),
            (0.0, 1.0),
            (0.0, 0.0),
            (1e-4, 0.0),
            (1e4, 0.0),
            (1.0, 1e3),
            (1e-4, 1e3),
            (tiny, 0.0),
            (1e12, 0.0),
            (huge, 0.0),
        ];
        for case in &cases {
            for (n, d) in [(2, 3), (4, 9), (9, 4)] {
                let objective = case.config.build().unwrap();
                for (scale, offset) in levels {
                    let vars: Vec<Var> = (0..2)
                        .map(|v| {
                            let z = Key::new(v).normal(0.0, 1.0, (n, d), DType::F64, &Device::Cpu).unwrap();
                            let z = z.affine(scale, offset).unwrap().to_dtype(dtype).unwrap();
                            Var::from_tensor(&z).unwrap()
                        })
                        .collect();
                    let views: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
                    let constant: Vec<Tensor> = views.iter().map(Tensor::detach).collect();
                    let what =
                        format!("{} {dtype:?} n {n}, d {d}, scale {scale}, offset {offset}", case.name);
                    let report =
                        match objective.evaluate(&embeddings(&views, &constant), &Context::standalone()) {
                            Ok(report) => report,
                            Err(e) => {
                                if !names_its_term(&e.to_string(), case)
                                    || (scale == 1.0 && n == 9 && offset == 0.0)
                                {
                                    wrong.push(format!("{what}: refused: {e}"));
                                }
                                continue;
                            }
                        };
                    if !number(&report.total).is_finite() {
                        // The trainer's guard refuses it by the name of a part, which must tell.
                        let told = report.parts.iter().any(|part| !number(&part.value).is_finite());
                        if !told || (scale == 1.0 && n == 9 && offset == 0.0) {
                            wrong.push(format!("{what}: value {}", number(&report.total)));
                        }
                        continue;
                    }
                    match report.total.backward() {
                        Err(e) => wrong.push(format!("{what}: backward: {e}")),
                        Ok(grads) => {
                            for z in &views {
                                if let Some(g) = grads.get(z) {
                                    let values = g
                                        .to_dtype(DType::F64)
                                        .unwrap()
                                        .flatten_all()
                                        .unwrap()
                                        .to_vec1::<f64>();
                                    if values.unwrap().iter().any(|g| !g.is_finite()) {
                                        wrong.push(format!("{what}: gradient"));
                                        break;
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Half types are computed in f32: the value and gradient are those of the widened input.
#[test]
fn half_types_are_computed_in_f32() {
    let mut wrong = Vec::new();
    for case in catalog() {
        let objective = case.config.build().unwrap();
        for dtype in [DType::BF16, DType::F16] {
            let run = |wide: bool| {
                let vars: Vec<Var> = (0..2)
                    .map(|v| {
                        let z = Key::new(v).normal(0.1, 1.0, (9, 4), DType::F64, &Device::Cpu).unwrap();
                        let z = z.to_dtype(dtype).unwrap();
                        let z = if wide { z.to_dtype(DType::F32).unwrap() } else { z };
                        Var::from_tensor(&z).unwrap()
                    })
                    .collect();
                let views: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
                let constant: Vec<Tensor> = views.iter().map(Tensor::detach).collect();
                let report = objective
                    .evaluate(&embeddings(&views, &constant), &Context::standalone())
                    .map_err(|e| e.to_string())?;
                let grads = report.total.backward().map_err(|e| e.to_string())?;
                let grad = grads.get(&views[0]).map(|g| {
                    g.to_dtype(dtype)
                        .unwrap()
                        .to_dtype(DType::F32)
                        .unwrap()
                        .flatten_all()
                        .unwrap()
                        .to_vec1::<f32>()
                });
                Ok::<_, String>((report.total.dtype(), number(&report.total), grad.map(|g| g.unwrap())))
            };
            match (run(false), run(true)) {
                (Ok((kind, half, grad)), Ok((_, wide, expected))) => {
                    if kind != DType::F32 || (half - wide).abs() > 1e-6 * (1.0 + wide.abs()) {
                        wrong.push(format!("{} {dtype:?}: {kind:?} {half} {wide}", case.name));
                    }
                    let far = match (&grad, &expected) {
                        (Some(a), Some(b)) => {
                            let scale = b.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
                            a.iter().zip(b).any(|(a, b)| (a - b).abs() > 0.02 * scale)
                        }
                        (a, b) => a.is_some() != b.is_some(),
                    };
                    if far {
                        wrong.push(format!("{} {dtype:?}: gradient", case.name));
                    }
                }
                (half, wide) => {
                    wrong.push(format!("{} {dtype:?}: {:?} {:?}", case.name, half.err(), wide.err()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
