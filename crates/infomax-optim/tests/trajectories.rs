//! Twenty steps of every optimizer against an independent implementation, and settings by group.
//!
//! `golden/trajectories.json` is written by `golden/trajectories.py` (numpy, float64).

#![allow(clippy::unwrap_used)] // Helpers outside of the test functions.

use infomax_core::candle_core::{DType, Device, Tensor, Var};
use infomax_core::{Key, Params};
use infomax_optim::{Error, Gradients, OptimConfig, Optimizer, build, kind_of};
use serde_json::Value;
use std::collections::BTreeMap;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/trajectories.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// `1/2 a (p - c)^2 + 1/4 p^4`, summed over all parameters.
struct Problem {
    params: Params,
    terms: Vec<(Var, Tensor, Tensor)>,
}

impl Problem {
    fn new(golden: &Value, dtype: DType) -> Self {
        let params = Params::new(dtype, &Device::Cpu, Key::new(0));
        let mut terms = Vec::new();
        for (name, entry) in golden["params"].as_object().unwrap() {
            let shape: Vec<usize> = numbers(&entry["shape"]).into_iter().map(|n| n as usize).collect();
            let tensor = |key: &str| {
                let values = Tensor::new(numbers(&entry[key]), &Device::Cpu).unwrap();
                values.reshape(shape.as_slice()).unwrap().to_dtype(dtype).unwrap()
            };
            let var = Var::from_tensor(&tensor("start")).unwrap();
            params.adopt(name, &var, kind_of(name, &shape)).unwrap();
            terms.push((var, tensor("a"), tensor("c")));
        }
        Self { params, terms }
    }

    fn loss(&self) -> Tensor {
        let term = |(p, a, c): &(Var, Tensor, Tensor)| {
            let square = (p.as_tensor() - c).unwrap().sqr().unwrap();
            let quadratic = ((square * a).unwrap().sum_all().unwrap() * 0.5).unwrap();
            (quadratic + (p.sqr().unwrap().sqr().unwrap().sum_all().unwrap() * 0.25).unwrap()).unwrap()
        };
        self.terms.iter().map(term).reduce(|a, b| (a + b).unwrap()).unwrap()
    }

    fn gradients(&self) -> Gradients {
        Gradients::of(&self.params, &self.loss().backward().unwrap()).unwrap()
    }

    fn values(&self) -> BTreeMap<String, Vec<f64>> {
        let flat =
            |t: Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        self.params.tensors().into_iter().map(|(name, t)| (name, flat(t))).collect()
    }
}

fn config(value: &Value) -> OptimConfig {
    serde_json::from_value(value.clone()).unwrap()
}

fn optimizer(text: &str) -> Box<dyn Optimizer> {
    build(&serde_json::from_str(text).unwrap()).unwrap()
}

#[test]
fn twenty_steps_are_those_of_the_reference() {
    let golden = golden();
    let mut names = Vec::new();
    for case in golden["cases"].as_array().unwrap() {
        let config = config(&case["config"]);
        let mut optimizer = build(&config).unwrap();
        names.push(optimizer.name());
        // Orthogonalization lifts what is small by 3.4 an iteration, roundings included.
        let f32_tolerance = if optimizer.name() == "muon" { 3e-4 } else { 1e-5 };
        for (dtype, tolerance) in [(DType::F64, 1e-11), (DType::F32, f32_tolerance)] {
            let problem = Problem::new(&golden, dtype);
            optimizer = build(&config).unwrap();
            let trajectory = case["trajectory"].as_array().unwrap();
            assert_eq!(trajectory.len(), 20);
            for (step, expected) in trajectory.iter().enumerate() {
                let lr = case["lr"][step].as_f64().unwrap();
                optimizer.step(&problem.params, &problem.gradients(), lr).unwrap();
                for (name, values) in problem.values() {
                    for (got, expected) in values.iter().zip(numbers(&expected[&name])) {
                        assert!(
                            (got - expected).abs() <= tolerance,
                            "{} {dtype:?}, step {step}, {name}: {got} instead of {expected}",
                            case["config"]
                        );
                    }
                }
            }
        }
    }
    for name in ["sgd", "adamw", "lars", "lamb", "muon"] {
        assert!(names.contains(&name), "no trajectory of {name}");
    }
}

#[test]
fn a_resumed_run_equals_the_uninterrupted_one() {
    let golden = golden();
    for case in golden["cases"].as_array().unwrap() {
        for dtype in [DType::F32, DType::BF16] {
            let run = |optimizer: &mut dyn Optimizer, problem: &Problem, steps| {
                for _ in 0..steps {
                    optimizer.step(&problem.params, &problem.gradients(), 0.02).unwrap();
                }
            };
            let (whole, mut optimizer) =
                (Problem::new(&golden, dtype), build(&config(&case["config"])).unwrap());
            run(&mut *optimizer, &whole, 6);

            let (parts, mut first) = (Problem::new(&golden, dtype), build(&config(&case["config"])).unwrap());
            run(&mut *first, &parts, 2);
            let mut second = build(&config(&case["config"])).unwrap();
            second.load_state(&first.state().unwrap()).unwrap();
            run(&mut *second, &parts, 4);
            assert_eq!(whole.values(), parts.values(), "{} {dtype:?}", case["config"]);
            assert_eq!(
                optimizer.state().unwrap().keys().collect::<Vec<_>>(),
                second.state().unwrap().keys().collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn a_group_sets_what_holds_for_its_parameters_only() {
    let golden = golden();
    let moved = |text: &str| {
        let problem = Problem::new(&golden, DType::F64);
        let before = problem.values();
        optimizer(text).step(&problem.params, &problem.gradients(), 0.1).unwrap();
        let after = problem.values();
        let step = |name: &String| {
            let pairs = before[name].iter().zip(&after[name]);
            pairs.map(|(before, after)| after - before).collect::<Vec<_>>()
        };
        after.keys().map(|name| (name.clone(), step(name))).collect::<BTreeMap<_, _>>()
    };
    let plain = moved(r#"{"name":"sgd","momentum":0.0,"weight_decay":0.5}"#);
    let grouped = moved(
        r#"{"name":"sgd","momentum":0.0,"weight_decay":0.5,"groups":[
            {"match":"*","lr_factor":0.5},{"match":"up.*","lr_factor":0.0},
            {"match":"*.weight","weight_decay":0.0},{"match":"wide.?eight","lr_factor":1.0,"weight_decay":0.5}]}"#,
    );
    let undecayed = moved(r#"{"name":"sgd","momentum":0.0}"#);
    let half = |steps: &[f64]| steps.iter().map(|x| x * 0.5).collect::<Vec<_>>();
    let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-15);
    assert!(near(&grouped["bias"], &half(&plain["bias"])));
    assert!(near(&grouped["kernel.weight"], &half(&undecayed["kernel.weight"])));
    assert!(!near(&grouped["kernel.weight"], &half(&plain["kernel.weight"])));
    assert!(near(&grouped["up.weight"], &[0.0; 8]));
    assert!(near(&grouped["wide.weight"], &plain["wide.weight"]));

    // A group's decay holds for biases, too, which the optimizer exempts.
    let decayed = r#"{"name":"sgd","momentum":0.0,"groups":[{"match":"bias","weight_decay":0.5}]}"#;
    assert!(!near(&moved(decayed)["bias"], &plain["bias"]));
}

#[test]
fn groups_that_cannot_be_meant_are_refused() {
    let golden = golden();
    let problem = Problem::new(&golden, DType::F32);
    let before = problem.values();
    for name in ["sgd", "adamw", "lars", "lamb", "muon"] {
        let text =
            format!(r#"{{"name":"{name}","groups":[{{"match":"encoder.*.bias","weight_decay":0.0}}]}}"#);
        let mut optimizer = optimizer(&text);
        let error = optimizer.check(&problem.params).unwrap_err();
        assert!(matches!(error, Error::NoMatch { .. }), "{name}: {error}");
        let message = error.to_string();
        assert!(message.contains("`kernel.weight`") && message.contains("encoder.*.bias"), "{message}");
        assert!(optimizer.step(&problem.params, &problem.gradients(), 0.1).is_err(), "{name}");
        assert_eq!(problem.values(), before, "{name} changed something");
    }
    for (text, part) in [
        (r#"{"name":"sgd","groups":[{"match":"*","trust":false}]}"#, "trust"),
        (r#"{"name":"lars","groups":[{"match":"*"}]}"#, "sets nothing"),
        (r#"{"name":"lamb","groups":[{"match":"a[","trust":true}]}"#, "groups.match"),
        (r#"{"name":"adamw","groups":[{"match":"*","lr_factor":-1.0}]}"#, "lr_factor"),
        (r#"{"name":"muon","groups":[{"match":"*","weight_decay":-1.0}]}"#, "weight_decay"),
        (r#"{"name":"muon","adamw_match":["x["]}"#, "adamw_match"),
        (r#"{"name":"muon","ns_steps":0}"#, "ns_steps"),
        (r#"{"name":"muon","adamw_beta1":1.0}"#, "adamw_beta1"),
        (r#"{"name":"lamb","max_trust":0.0}"#, "max_trust"),
    ] {
        let message = build(&serde_json::from_str(text).unwrap()).unwrap_err().to_string();
        assert!(message.contains(part), "{text}: {message}");
    }
    for text in [
        r#"{"name":"sgd","groups":[{"match":"*","lr":0.1}]}"#,
        r#"{"name":"sgd","groups":[{"lr_factor":0.1}]}"#,
    ] {
        assert!(serde_json::from_str::<OptimConfig>(text).is_err(), "{text}");
    }
    let own = optimizer(r#"{"name":"muon","adamw_match":["*embed*","decoder.*"]}"#);
    let message = own.check(&problem.params).unwrap_err().to_string();
    assert!(message.contains("decoder.*") && message.contains("adamw_match"), "{message}");
    assert!(optimizer(r#"{"name":"muon"}"#).check(&problem.params).is_ok());
}

#[test]
fn muon_refuses_the_state_of_another_choice() {
    let problem = Problem::new(&golden(), DType::F32);
    let mut before = optimizer(r#"{"name":"muon"}"#);
    before.step(&problem.params, &problem.gradients(), 0.02).unwrap();
    let state = before.state().unwrap();
    assert!(state.contains_key("momentum.kernel.weight") && state.contains_key("exp_avg.embed.weight"));
    for (text, name) in [
        (r#"{"name":"muon","adamw_match":[]}"#, "`embed.weight`"),
        (r#"{"name":"muon","adamw_match":["*embed*","up.*"]}"#, "`up.weight`"),
    ] {
        let mut after = optimizer(text);
        after.load_state(&state).unwrap();
        let message = after.check(&problem.params).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("adamw_match"), "{message}");
    }
}

#[test]
fn schedules_reach_weight_decay_and_momentum() {
    let golden = golden();
    let problem = || Problem::new(&golden, DType::F64);
    for (name, momentum) in [
        ("sgd", "momentum"),
        ("adamw", "beta1"),
        ("lars", "momentum"),
        ("lamb", "beta1"),
        ("muon", "momentum"),
    ] {
        let (a, b) = (problem(), problem());
        let mut set = optimizer(&format!(r#"{{"name":"{name}"}}"#));
        set.set_weight_decay(0.3).unwrap();
        set.set_momentum(0.5).unwrap();
        let mut built = optimizer(&format!(r#"{{"name":"{name}","weight_decay":0.3,"{momentum}":0.5}}"#));
        for _ in 0..2 {
            set.step(&a.params, &a.gradients(), 0.05).unwrap();
            built.step(&b.params, &b.gradients(), 0.05).unwrap();
        }
        assert_eq!(a.values(), b.values(), "{name}");
        let plain = problem();
        let mut unset = optimizer(&format!(r#"{{"name":"{name}"}}"#));
        (0..2).for_each(|_| unset.step(&plain.params, &plain.gradients(), 0.05).unwrap());
        assert_ne!(a.values(), plain.values(), "{name}");
        assert!(set.set_weight_decay(-0.1).is_err() && set.set_momentum(1.0).is_err());
    }
}
