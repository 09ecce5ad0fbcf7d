//! The optimizers against PyTorch's trajectories, on quadratics, over a save and load, and on bad input.

#![allow(clippy::unwrap_used)] // Helpers outside of the test functions.

use infomax_core::candle_core::{DType, Device, Tensor, Var};
use infomax_core::{Init, Key, ParamKind, Params};
use infomax_optim::{Error, Gradients, Muon, MuonConfig, MuonScale, OptimConfig, Optimizer, build};
use infomax_testing::{Tolerance, assert_close, spread};
use serde_json::Value;
use std::collections::BTreeMap;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/optimizers.json")).unwrap()
}

fn tensor(value: &Value, dtype: DType) -> Tensor {
    let flat = |row: &Value| row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>();
    let rows = value.as_array().unwrap();
    let tensor = match rows[0].is_array() {
        true => Tensor::new(rows.iter().map(flat).collect::<Vec<_>>(), &Device::Cpu),
        false => Tensor::new(flat(value), &Device::Cpu),
    };
    tensor.unwrap().to_dtype(dtype).unwrap()
}

/// The problem that the generator describes.
struct Problem {
    params: Params,
    w: Var,
    b: Var,
    s: Var,
    a: Tensor,
    c: Tensor,
}

impl Problem {
    fn new(golden: &Value, dtype: DType) -> Self {
        let start = &golden["start"];
        let params = Params::new(dtype, &Device::Cpu, Key::new(0));
        let var = |name: &str, kind| {
            let value = tensor(&start[name], dtype);
            let var = params.root().get(name, value.dims(), kind, Init::Const(0.0)).unwrap();
            var.set(&value).unwrap();
            var
        };
        let (w, b, s) = (var("w", ParamKind::Weight), var("b", ParamKind::Bias), var("s", ParamKind::Norm));
        Self { w, b, s, a: tensor(&start["a"], dtype), c: tensor(&start["c"], dtype), params }
    }

    fn loss(&self) -> Tensor {
        let compute = || -> infomax_core::candle_core::Result<Tensor> {
            let quadratic = ((&*self.w - &self.c)?.sqr()? * &self.a)?.sum_all()? * 0.5;
            let quartic = self.w.sqr()?.sqr()?.sum_all()? * 0.25;
            let bias = (&*self.b - 0.3)?.sqr()?.sum_all()? * 0.5;
            ((quadratic? + quartic?)? + bias?)? + self.s.cos()?.sum_all()?
        };
        compute().unwrap()
    }

    fn step(&self, optimizer: &mut dyn Optimizer, lr: f64) {
        optimizer.step(&self.params, &gradients(&self.params, &self.loss()), lr).unwrap();
    }

    fn bits(&self) -> Vec<u64> {
        bits(&self.params.tensors())
    }
}

fn gradients(params: &Params, loss: &Tensor) -> Gradients {
    Gradients::of(params, &loss.backward().unwrap()).unwrap()
}

fn bits(tensors: &BTreeMap<String, Tensor>) -> Vec<u64> {
    let flat = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    tensors.values().flat_map(flat).map(f64::to_bits).collect()
}

#[test]
fn trajectories_are_those_of_pytorch() {
    let golden = golden();
    for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 3e-6)] {
        for case in golden["cases"].as_array().unwrap() {
            let config: OptimConfig = serde_json::from_value(case["config"].clone()).unwrap();
            let problem = Problem::new(&golden, dtype);
            let mut optimizer = build(&config).unwrap();
            for (step, expected) in case["trajectory"].as_array().unwrap().iter().enumerate() {
                problem.step(&mut *optimizer, golden["lr"][step].as_f64().unwrap());
                for (name, value) in problem.params.tensors() {
                    let label = format!("{} {dtype:?}, step {step}, {name}", case["config"]);
                    let expected = tensor(&expected[&name], dtype);
                    assert_close(&label, &value, &expected, Tolerance { rel: tolerance, abs: tolerance });
                }
            }
        }
    }
}

fn configs() -> Vec<OptimConfig> {
    let cases = golden()["cases"].as_array().unwrap().clone();
    let later = [r#"{"name":"lamb"}"#, r#"{"name":"lamb","max_trust":1.0}"#, r#"{"name":"muon"}"#]
        .map(|text| serde_json::from_str(text).unwrap());
    let cases = cases.into_iter().map(|case| serde_json::from_value(case["config"].clone()).unwrap());
    cases.chain(later).collect()
}

#[test]
fn a_loaded_state_continues_with_the_same_bits() {
    let golden = golden();
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        for config in configs() {
            let problem = Problem::new(&golden, dtype);
            let mut optimizer = build(&config).unwrap();
            for _ in 0..3 {
                problem.step(&mut *optimizer, 0.03);
            }
            let saved_params: BTreeMap<_, _> =
                problem.params.tensors().into_iter().map(|(k, v)| (k, v.copy().unwrap())).collect();
            let saved_state = optimizer.state().unwrap();
            for _ in 0..3 {
                problem.step(&mut *optimizer, 0.02);
            }

            let again = Problem::new(&golden, dtype);
            again.params.load(&saved_params).unwrap();
            let mut resumed = build(&config).unwrap();
            resumed.load_state(&saved_state).unwrap();
            assert_eq!(bits(&resumed.state().unwrap()), bits(&saved_state));
            for _ in 0..3 {
                again.step(&mut *resumed, 0.02);
            }
            assert_eq!(again.bits(), problem.bits(), "{config:?} {dtype:?}");
            assert_eq!(bits(&resumed.state().unwrap()), bits(&optimizer.state().unwrap()));
            assert_ne!(bits(&problem.params.tensors()), bits(&saved_params), "{config:?}: nothing moved");
        }
    }
}

#[test]
fn quadratics_are_descended() {
    for (text, lr, steps) in [
        (r#"{"name":"sgd"}"#, 0.05, 300),
        (r#"{"name":"sgd","nesterov":true}"#, 0.05, 300),
        (r#"{"name":"adamw","weight_decay":0.0}"#, 0.05, 600),
        (r#"{"name":"lars","weight_decay":0.0,"eta":0.05}"#, 1.0, 600),
        (r#"{"name":"lamb","weight_decay":0.0}"#, 0.05, 600),
        (r#"{"name":"muon"}"#, 0.05, 600),
    ] {
        let config: OptimConfig = serde_json::from_str(text).unwrap();
        let params = Params::new(DType::F32, &Device::Cpu, Key::new(3));
        let init = Init::Normal { mean: 0.0, std: 1.0 };
        let w = params.root().get("w", (6, 5), ParamKind::Weight, init).unwrap();
        let target = spread(&[6, 5], 4, 1.0).to_dtype(DType::F32).unwrap();
        let curvature = (spread(&[6, 5], 5, 0.5).to_dtype(DType::F32).unwrap() + 1.0).unwrap();
        let loss =
            || ((w.as_tensor() - &target).unwrap().sqr().unwrap() * &curvature).unwrap().sum_all().unwrap();
        let start = loss().to_scalar::<f32>().unwrap();
        let mut optimizer = build(&config).unwrap();
        for step in 0..steps {
            let lr = lr * (1.0 - step as f64 / steps as f64);
            optimizer.step(&params, &gradients(&params, &loss()), lr).unwrap();
        }
        let end = loss().to_scalar::<f32>().unwrap();
        assert!(end < 1e-4 * start, "{text}: {start} to {end}");
    }
}

#[test]
fn a_nan_names_its_parameter_and_changes_nothing() {
    for config in configs() {
        let problem = Problem::new(&golden(), DType::F32);
        let mut optimizer = build(&config).unwrap();
        problem.step(&mut *optimizer, 0.01);
        let (params, state) = (problem.bits(), bits(&optimizer.state().unwrap()));
        for bad in [f32::NAN, f32::INFINITY] {
            let mut grads = problem.loss().backward().unwrap();
            grads.insert(&problem.s, Tensor::new(&[0.0, bad], &Device::Cpu).unwrap());
            let error = Gradients::of(&problem.params, &grads).unwrap_err();
            assert!(matches!(&error, Error::NonFiniteGradient { name, .. } if name == "s"), "{error}");
        }
        assert_eq!(problem.bits(), params);
        assert_eq!(bits(&optimizer.state().unwrap()), state);
    }
}

#[test]
fn bad_settings_states_and_shapes_are_refused() {
    for text in [
        r#"{"name":"sgd","momentum":1.0}"#,
        r#"{"name":"sgd","momentum":0.0,"nesterov":true}"#,
        r#"{"name":"adamw","beta2":1.0}"#,
        r#"{"name":"adamw","weight_decay":-0.1}"#,
        r#"{"name":"lars","eta":0.0}"#,
    ] {
        let error = build(&serde_json::from_str(text).unwrap()).unwrap_err();
        assert!(matches!(error, Error::Config { .. }), "{text}: {error}");
    }
    for text in [r#"{"name":"adam"}"#, r#"{"name":"sgd","momentom":0.9}"#, r#"{"momentum":0.9}"#] {
        assert!(serde_json::from_str::<OptimConfig>(text).is_err(), "{text}");
    }

    let problem = Problem::new(&golden(), DType::F32);
    let mut adamw = build(&OptimConfig::default()).unwrap();
    problem.step(&mut *adamw, 0.01);
    let state = adamw.state().unwrap();
    let mut lars = build(&serde_json::from_str(r#"{"name":"lars"}"#).unwrap()).unwrap();
    assert!(matches!(lars.load_state(&state), Err(Error::State { optimizer: "lars", .. })));
    let mut partial = state.clone();
    partial.remove("exp_avg_sq.w");
    assert!(matches!(adamw.load_state(&partial), Err(Error::State { .. })));
    let mut partial = state.clone();
    partial.remove("step.w");
    assert!(matches!(adamw.load_state(&partial), Err(Error::State { .. })));
    let mut reshaped = state;
    for key in ["exp_avg.b", "exp_avg_sq.b"] {
        reshaped.insert(key.into(), Tensor::zeros(4, DType::F32, &Device::Cpu).unwrap());
    }
    adamw.load_state(&reshaped).unwrap();
    let before = problem.bits();
    let error = adamw.step(&problem.params, &gradients(&problem.params, &problem.loss()), 0.01).unwrap_err();
    assert!(error.to_string().contains("`b`") && error.to_string().contains("[4]"), "{error}");
    assert_eq!(problem.bits(), before, "a refused step must change nothing");
    assert!(adamw.step(&problem.params, &gradients(&problem.params, &problem.loss()), f64::NAN).is_err());
}

#[test]
fn parameters_without_gradient_stay() {
    for config in configs() {
        let problem = Problem::new(&golden(), DType::F64);
        let mut optimizer = build(&config).unwrap();
        let before = problem.b.to_vec1::<f64>().unwrap();
        let loss = problem.w.sqr().unwrap().sum_all().unwrap();
        optimizer.step(&problem.params, &gradients(&problem.params, &loss), 0.1).unwrap();
        assert_eq!(problem.b.to_vec1::<f64>().unwrap(), before);
        assert!(optimizer.state().unwrap().keys().all(|key| key.ends_with(".w")));
    }
}

#[test]
fn configurations_round_trip() {
    for config in configs() {
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<OptimConfig>(&text).unwrap(), config);
        assert!(text.contains(&format!("\"name\":\"{}\"", build(&config).unwrap().name())), "{text}");
    }
}

/// Muon takes all matrices together on a device.
#[test]
fn steps_of_muon_on_a_device_are_those_of_the_cpu() {
    let run = |config: &MuonConfig| {
        let params = Params::zeros(DType::F64, &Device::Cpu);
        let shapes: [(&str, &[usize]); 3] =
            [("a.weight", &[6, 4]), ("b.weight", &[3, 2, 3, 3]), ("a.bias", &[6])];
        let mut muon = Muon::new(config.clone()).unwrap();
        let mut vars = Vec::new();
        for (i, (name, dims)) in shapes.into_iter().enumerate() {
            let kind = if name.ends_with("bias") { ParamKind::Bias } else { ParamKind::Weight };
            let var = Var::from_tensor(&spread(dims, i as u64, 1.0)).unwrap();
            params.adopt(name, &var, kind).unwrap();
            vars.push(var);
        }
        for step in 0..3 {
            let terms = vars.iter().enumerate().map(|(i, var)| {
                let slope = spread(var.dims(), 10 * step + i as u64, 1.0);
                (var.as_tensor() * slope).unwrap().sum_all().unwrap()
            });
            let loss = Tensor::stack(&terms.collect::<Vec<_>>(), 0).unwrap().sum_all().unwrap();
            let grads = Gradients::of(&params, &loss.backward().unwrap()).unwrap();
            muon.step(&params, &grads, 0.1).unwrap();
        }
        let all = vars.iter().map(|v| v.flatten_all().unwrap().to_vec1::<f64>().unwrap());
        all.collect::<Vec<_>>().concat()
    };
    for nesterov in [true, false] {
        for scale in [MuonScale::Original, MuonScale::MatchRms] {
            let config = MuonConfig { nesterov, scale, weight_decay: 0.3, ..MuonConfig::default() };
            let (host, there) = (run(&config), infomax_kernels::without_cpu_kernels(|| run(&config)));
            assert!(host.iter().zip(&there).all(|(a, b)| (a - b).abs() < 1e-9), "{config:?}");
        }
    }
}
