//! Models of `candle_nn` and plain variables under the optimizers of this crate.

#![allow(clippy::unwrap_used)] // Helpers outside of the test functions.

use candle_core::{DType, Device, Module, ModuleT, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use infomax_core::ParamKind;
use infomax_optim::{Gradients, build, params};
use std::collections::BTreeMap;

struct Net {
    map: VarMap,
    first: candle_nn::Linear,
    norm: candle_nn::BatchNorm,
    last: candle_nn::Linear,
}

impl Net {
    fn new() -> Self {
        let map = VarMap::new();
        let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        let first = candle_nn::linear(3, 8, vb.pp("first")).unwrap();
        let norm = candle_nn::batch_norm(8, 1e-5, vb.pp("norm")).unwrap();
        let last = candle_nn::linear(8, 2, vb.pp("last")).unwrap();
        // candle_nn draws from a generator without a seed.
        let mut data = map.data().lock().unwrap().clone().into_iter().collect::<Vec<_>>();
        data.sort_by(|a, b| a.0.cmp(&b.0));
        for (i, (_, var)) in data.iter().enumerate() {
            let start = infomax_testing::spread(var.dims(), i as u64, 0.5).abs().unwrap();
            var.set(&start.to_dtype(DType::F32).unwrap()).unwrap();
        }
        Self { map, first, norm, last }
    }

    fn loss(&self, seed: u64) -> Tensor {
        let xs = infomax_testing::spread(&[6, 3], seed, 1.0).to_dtype(DType::F32).unwrap();
        let ys = self.norm.forward_t(&self.first.forward(&xs).unwrap(), true).unwrap();
        let out = self.last.forward(&ys.tanh().unwrap()).unwrap();
        (out - 0.5).unwrap().sqr().unwrap().mean_all().unwrap()
    }

    fn bits(&self) -> Vec<u32> {
        let data: BTreeMap<String, Var> = self.map.data().lock().unwrap().clone().into_iter().collect();
        let flat = |v: &Var| v.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        data.values().flat_map(flat).map(f32::to_bits).collect()
    }
}

#[test]
fn a_var_map_is_trained_under_its_own_names_and_resumes_with_the_same_bits() {
    for text in [r#"{"name":"sgd"}"#, r#"{"name":"adamw"}"#, r#"{"name":"lars","eta":0.1}"#] {
        let config = serde_json::from_str(text).unwrap();
        let steps = |net: &Net, optimizer: &mut dyn infomax_optim::Optimizer, seeds: std::ops::Range<u64>| {
            let params = params(net.map.data()).unwrap();
            for seed in seeds {
                let grads = Gradients::of(&params, &net.loss(seed).backward().unwrap()).unwrap();
                assert!(grads.missing(&params).is_empty(), "{:?}", grads.missing(&params));
                optimizer.step(&params, &grads, 0.05).unwrap();
            }
        };
        let (net, mut optimizer) = (Net::new(), build(&config).unwrap());
        // Another one, as each pass moves the running statistics.
        let start = Net::new().loss(0).to_scalar::<f32>().unwrap();
        steps(&net, &mut *optimizer, 0..8);

        let (again, mut first) = (Net::new(), build(&config).unwrap());
        steps(&again, &mut *first, 0..3);
        let mut second = build(&config).unwrap();
        second.load_state(&first.state().unwrap()).unwrap();
        steps(&again, &mut *second, 3..8);
        assert_eq!(net.bits(), again.bits(), "{text}");
        assert!(net.loss(0).to_scalar::<f32>().unwrap() < start, "{text}");
        assert!(optimizer.state().unwrap().keys().any(|key| key.ends_with(".first.weight")), "{text}");
    }
}

#[test]
fn running_statistics_of_a_var_map_are_buffers() {
    let params = params(Net::new().map.data()).unwrap();
    let kind = |name: &str| params.get(name).unwrap().kind;
    assert_eq!(kind("norm.running_mean"), ParamKind::Buffer);
    assert_eq!(kind("norm.running_var"), ParamKind::Buffer);
    assert_eq!(kind("first.weight"), ParamKind::Weight);
    assert_eq!(kind("first.bias"), ParamKind::Bias);
    assert_eq!(kind("norm.weight"), ParamKind::Norm);
    assert_eq!(params.trainable().len(), 6);
}

#[test]
fn plain_variables_are_numbered_and_move() {
    let w = Var::ones((2, 2), DType::F64, &Device::Cpu).unwrap();
    let params = params(std::slice::from_ref(&w)).unwrap();
    let mut sgd = build(&serde_json::from_str(r#"{"name":"sgd","momentum":0.0}"#).unwrap()).unwrap();
    let grads = Gradients::of(&params, &w.sqr().unwrap().sum_all().unwrap().backward().unwrap()).unwrap();
    assert_eq!(grads.iter().map(|(name, _)| name.to_owned()).collect::<Vec<_>>(), ["0"]);
    sgd.step(&params, &grads, 0.25).unwrap();
    assert_eq!(w.to_vec2::<f64>().unwrap(), [[0.5; 2]; 2]);
}
