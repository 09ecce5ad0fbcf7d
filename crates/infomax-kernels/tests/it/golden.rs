//! Value and gradients as PyTorch has them: `golden/ops.json`, written by `golden/make.py` (torch 2.15.0,
//! float64).

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Result, Tensor, Var};
use infomax_kernels::{
    Activation, AttentionConfig, Conv2dConfig, Elementwise, Pool2dConfig, attention, avg_pool2d,
    batch_norm_eval, batch_norm_train, conv2d, cross_entropy, cross_entropy_soft, elementwise,
    global_avg_pool, group_norm, l2_normalize, layer_norm, linalg, linear, log_softmax, max_pool2d, rms_norm,
    softmax,
};
use infomax_testing::{Tolerance, assert_close};
use serde_json::Value;

/// The same formula as in `make.py`.
fn wave(shape: &[usize], p: usize) -> Tensor {
    let n: usize = shape.iter().product();
    let values: Vec<f64> = (0..n).map(|i| (0.37 * i as f64 + 1.3 * p as f64 + 0.2).sin()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn numbers(value: &Value, shape: &[usize]) -> Tensor {
    let values: Vec<f64> = value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

struct Golden(Value, std::cell::Cell<usize>);

impl Golden {
    fn check(
        &self,
        name: &str,
        shapes: &[&[usize]],
        f: impl Fn(&[Tensor]) -> infomax_kernels::Result<Tensor>,
    ) {
        self.1.set(self.1.get() + 1);
        let golden = &self.0[name];
        assert!(golden.is_object(), "no golden values of {name}");
        for dtype in [DType::F64, DType::F32] {
            if dtype == DType::F32 && name == "eigvalsh" {
                continue; // Nearly equal eigenvalues: their gradients depend on the rounding of the input.
            }
            let waves = shapes.iter().enumerate().map(|(p, s)| wave(s, p).to_dtype(dtype).unwrap());
            let vars: Vec<Var> = waves.map(|t| Var::from_tensor(&t).unwrap()).collect();
            let xs: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
            let ys = f(&xs).unwrap();
            // Numbers in the file have 15 digits.
            let rel = if dtype == DType::F64 { 1e-12 } else { 1e-4 };
            let tolerance = Tolerance { rel, abs: rel * 0.1 };
            let shape: Vec<usize> =
                golden["shape"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as usize).collect();
            assert_close(&format!("{name} {dtype:?}"), &ys, &numbers(&golden["value"], &shape), tolerance);
            let readout = wave(ys.dims(), 9).to_dtype(dtype).unwrap();
            let grads = (ys * readout).unwrap().sum_all().unwrap().backward().unwrap();
            for (i, (var, shape)) in vars.iter().zip(shapes).enumerate() {
                let got = grads.get(var).unwrap_or_else(|| panic!("{name}: input {i} has no gradient"));
                let expected = numbers(&golden["grads"][i], shape);
                assert_close(&format!("{name} {dtype:?}: gradient of input {i}"), got, &expected, tolerance);
            }
        }
    }
}

/// `X X^T / m + I / 2`.
fn positive(x: &Tensor) -> Result<Tensor> {
    let (d, m) = x.dims2()?;
    (x.matmul(&x.t()?)? / m as f64)? + (Tensor::eye(d, x.dtype(), &Device::Cpu)? * 0.5)?
}

#[test]
fn pytorch() {
    let all: Value = serde_json::from_str(include_str!("../golden/ops.json")).unwrap();
    let golden = Golden(all, Default::default());
    for (stride, padding, dilation, groups) in
        [(1, 1, 1, 1), (2, 1, 1, 2), (1, 2, 2, 1), (3, 0, 1, 4), (2, 3, 1, 4)]
    {
        let k = if groups == 2 { 8 } else { 4 };
        let cfg = Conv2dConfig { stride, padding, dilation, groups };
        golden.check(
            &format!("conv2d {stride} {padding} {dilation} {groups}"),
            &[&[2, 4, 6, 5], &[k, 4 / groups, 3, 2], &[k]],
            |t| conv2d(&t[0], &t[1], Some(&t[2]), cfg),
        );
    }
    let cfg = Conv2dConfig { padding: 2, ..Default::default() };
    golden.check("conv2d kernel larger than the image", &[&[1, 2, 1, 1], &[3, 2, 5, 3], &[3]], |t| {
        conv2d(&t[0], &t[1], Some(&t[2]), cfg)
    });

    let (x, c): (&[usize], &[usize]) = (&[4, 3, 3, 2], &[3]);
    let none = Activation::None;
    golden.check("batch_norm train", &[x, c, c], |t| {
        Ok(batch_norm_train(&t[0], Some(&t[1]), Some(&t[2]), None, 1e-3, none)?.ys)
    });
    let out = batch_norm_train(&wave(x, 0), None, None, None, 1e-3, none).unwrap();
    let count = 24.0;
    for (name, batch, start, scale) in
        [("mean", out.mean, 0.0, 1.0), ("var", out.var, 0.9, count / (count - 1.0))]
    {
        let running = batch.affine(0.1 * scale, start).unwrap();
        assert_close(name, &running, &numbers(&golden.0["running"][name], &[3]), Tolerance::rel(1e-12));
    }
    golden.check("batch_norm eval", &[x, c, c], |t| {
        let dtype = t[0].dtype();
        let (mean, var) = (wave(&[3], 5).to_dtype(dtype)?, wave(&[3], 6).sqr()?.to_dtype(dtype)?);
        batch_norm_eval(&t[0], &mean, &var, Some(&t[1]), Some(&t[2]), None, 1e-3, none)
    });

    let (x, v): (&[usize], &[usize]) = (&[4, 7], &[7]);
    golden.check("layer_norm", &[x, v, v], |t| layer_norm(&t[0], Some(&t[1]), Some(&t[2]), 1e-3));
    golden.check("rms_norm", &[x, v], |t| rms_norm(&t[0], Some(&t[1]), 1e-3));
    golden.check("group_norm", &[&[2, 6, 3, 2], &[6], &[6]], |t| {
        group_norm(&t[0], 3, Some(&t[1]), Some(&t[2]), 1e-3)
    });
    golden.check("softmax", &[x], |t| softmax(&(&t[0] * 3.0)?));
    golden.check("log_softmax", &[x], |t| log_softmax(&(&t[0] * 3.0)?));
    golden.check("l2_normalize", &[x], |t| l2_normalize(&t[0], 1e-6));
    for causal in [false, true] {
        let name = if causal { "attention causal" } else { "attention" };
        let x: &[usize] = &[2, 2, 5, 3];
        golden.check(name, &[x, x, x], |t| {
            attention(&t[0], &t[1], &t[2], AttentionConfig { scale: None, causal })
        });
    }
    for (name, f) in [
        ("gelu", Elementwise::Gelu),
        ("silu", Elementwise::Silu),
        ("relu", Elementwise::Relu),
        ("sigmoid", Elementwise::Sigmoid),
        ("tanh", Elementwise::Tanh),
        ("erf", Elementwise::Erf),
        ("exp", Elementwise::Exp),
    ] {
        golden.check(name, &[&[5, 9]], |t| elementwise(&(&t[0] * 4.0)?, f));
    }
    for (kernel, stride, padding) in [(3, 2, 1), (2, 1, 0), (2, 3, 1)] {
        let cfg = Pool2dConfig { kernel, stride, padding };
        let name = |pool| format!("{pool} {kernel} {stride} {padding}");
        golden.check(&name("max_pool2d"), &[&[2, 2, 7, 6]], |t| max_pool2d(&t[0], cfg));
        golden.check(&name("avg_pool2d"), &[&[2, 2, 7, 6]], |t| avg_pool2d(&t[0], cfg));
    }
    golden.check("global_avg_pool", &[&[2, 3, 4, 5]], |t| global_avg_pool(&t[0]));
    golden.check("linear", &[&[2, 3, 5], &[4, 5], &[4]], |t| linear(&t[0], &t[1], Some(&t[2])));
    for smoothing in ["0.0", "0.2"] {
        golden.check(&format!("cross_entropy {smoothing}"), &[&[4, 6]], |t| {
            cross_entropy(&(&t[0] * 3.0)?, &[2, 0, 5, 1], smoothing.parse().unwrap())
        });
    }
    golden.check("cross_entropy soft", &[&[4, 6], &[4, 6]], |t| cross_entropy_soft(&(&t[0] * 3.0)?, &t[1]));
    golden.check("log_det", &[&[4, 7]], |t| linalg::log_det_spd(&positive(&t[0])?));
    golden.check("solve", &[&[4, 7], &[4, 3]], |t| linalg::solve_spd(&positive(&t[0])?, &t[1]));
    golden.check("eigvalsh", &[&[4, 7]], |t| linalg::eigvalsh(&positive(&t[0])?));
    golden.check("svdvals", &[&[4, 6]], |t| linalg::svdvals(&(t[0].sqr()? * &t[0])?));
    // Every case of the file was used, and `running`.
    assert_eq!(golden.1.get() + 1, golden.0.as_object().unwrap().len());
}
