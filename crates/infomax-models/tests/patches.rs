//! The single layer of whitened patches.

#![allow(clippy::unwrap_used)] // Helpers of tests, where a failure should stop.

use candle_core::{DType, Device, Tensor};
use infomax_core::{Encoder as _, Key, Learner as _, Params, Pass};
use infomax_models::{
    EncoderConfig, JointEmbedding, ModelConfig, Patches, PatchesConfig, Precision, fit_patches, whiten_stem,
};
use infomax_testing::{Tolerance, assert_all_grads, assert_close};

fn images(n: usize, channels: usize, (h, w): (usize, usize), dtype: DType) -> Tensor {
    let noise = Key::new(1).normal(0.1, 1.0, (n, channels, h, w), dtype, &Device::Cpu).unwrap();
    (noise.cumsum(2).unwrap().cumsum(3).unwrap() / h as f64).unwrap()
}

fn params(seed: u64, dtype: DType) -> Params {
    Params::new(dtype, &Device::Cpu, Key::new(seed))
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn small() -> PatchesConfig {
    PatchesConfig { patch: 3, filters: 4, stride: 2, threshold: 0.3, grid: 2, ..PatchesConfig::default() }
}

/// The features by loops over filters, places, pixels and cells.
fn by_hand(cfg: &PatchesConfig, params: &Params, xs: &Tensor) -> Vec<f64> {
    let var = |name: &str| values(params.get(name).unwrap().var.as_tensor());
    let (w, b, x) = (var("filters.weight"), var("filters.bias"), values(xs));
    let (n, channels, height, width) = xs.dims4().unwrap();
    let along = |n: usize| (n - cfg.patch) / cfg.stride + 1;
    let (rows, columns, s) = (along(height), along(width), cfg.patch);
    let edges = |n: usize, i: usize| (i * n / cfg.grid, ((i + 1) * n).div_ceil(cfg.grid));
    let mut out = Vec::new();
    for i in 0..n {
        let response = |k: usize, y: usize, z: usize| {
            let mut sum = b[k];
            for c in 0..channels {
                for dy in 0..s {
                    for dx in 0..s {
                        let pixel = x[((i * channels + c) * height + y * cfg.stride + dy) * width
                            + z * cfg.stride
                            + dx];
                        sum += w[((k * channels + c) * s + dy) * s + dx] * pixel;
                    }
                }
            }
            sum
        };
        for cell in 0..cfg.grid * cfg.grid {
            let ((top, bottom), (left, right)) =
                (edges(rows, cell / cfg.grid), edges(columns, cell % cfg.grid));
            for sign in [1.0, -1.0] {
                for k in 0..cfg.filters {
                    let mut sum = 0.0;
                    for y in top..bottom {
                        for z in left..right {
                            sum += (sign * response(k, y, z) - cfg.threshold).max(0.0);
                        }
                    }
                    out.push(sum / ((bottom - top) * (right - left)) as f64);
                }
            }
        }
    }
    out
}

#[test]
fn the_features_are_what_the_documentation_says() {
    // Cells of one size and of several, overlapping ones, strides that leave pixels out.
    for (cfg, size) in [
        (small(), (9, 9)),
        (small(), (12, 10)),
        (PatchesConfig { stride: 1, grid: 3, in_channels: 1, ..small() }, (6, 9)),
        (PatchesConfig { patch: 2, stride: 3, grid: 1, threshold: 0.0, ..small() }, (8, 7)),
    ] {
        let params = params(3, DType::F64);
        let net = Patches::new(&cfg, params.root()).unwrap();
        let xs = images(3, cfg.in_channels, size, DType::F64);
        let ys = net.forward(&xs, &Pass::eval()).unwrap();
        assert_eq!(ys.dims(), [3, net.feature_dim()]);
        let hand = Tensor::from_vec(by_hand(&cfg, &params, &xs), ys.dims(), &Device::Cpu).unwrap();
        assert_close("patches", &ys, &hand, Tolerance { rel: 1e-12, abs: 1e-12 });
    }
}

#[test]
fn gradients_reach_the_filters_unless_they_are_frozen() {
    for trained in [true, false] {
        let params = params(5, DType::F64);
        let cfg = PatchesConfig { trained, ..small() };
        let net = EncoderConfig::Patches(cfg).build(Precision::F32, params.root().pp("encoder")).unwrap();
        let xs = images(3, 3, (9, 8), DType::F64);
        let ys = net.forward(&xs, &Pass::train(Key::new(0))).unwrap();
        let factors = Key::new(7).normal(0.0, 1.0, ys.dims(), DType::F64, &Device::Cpu).unwrap();
        let loss = |net: &dyn infomax_core::Encoder| {
            let ys = net.forward(&xs, &Pass::train(Key::new(0))).unwrap();
            (ys * &factors).unwrap().sum_all().unwrap()
        };
        let vars: Vec<_> = params.trainable().into_iter().map(|(name, p)| (name, p.var)).collect();
        assert_eq!(vars.len(), if trained { 2 } else { 0 });
        let value = loss(&*net);
        assert_all_grads(&vars, &value, &[]).unwrap();
        // Central differences of some weights.
        let store = value.backward().unwrap();
        for (_, var) in &vars {
            let grad = values(store.get(var.as_tensor()).unwrap());
            let at = values(var.as_tensor());
            for i in [0, at.len() / 2, at.len() - 1] {
                let step = 1e-6;
                let moved = |by: f64| {
                    let mut values = at.clone();
                    values[i] += by;
                    var.set(&Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap()).unwrap();
                    loss(&*net).to_scalar::<f64>().unwrap()
                };
                let slope = (moved(step) - moved(-step)) / (2.0 * step);
                var.set(&Tensor::from_vec(at.clone(), var.dims(), &Device::Cpu).unwrap()).unwrap();
                assert!((slope - grad[i]).abs() < 1e-6 * (1.0 + slope.abs()), "{slope} {}", grad[i]);
            }
        }
    }
}

#[test]
fn fitted_filters_are_white_over_patches_the_same_for_a_key_and_shared_with_a_teacher() {
    let xs = images(8, 3, (14, 14), DType::F32);
    let config = ModelConfig {
        encoder: EncoderConfig::Patches(PatchesConfig { stride: 1, filters: 6, ..small() }),
        projector: vec![],
        teacher_momentum: Some(0.5),
        ..ModelConfig::default()
    };
    let (one, two, other) = (params(1, DType::F32), params(2, DType::F32), params(1, DType::F32));
    for (params, key) in [(&one, 0), (&two, 0), (&other, 1)] {
        JointEmbedding::new(&config, params).unwrap();
        assert!(!whiten_stem(params, "encoder", &xs).unwrap());
        assert!(fit_patches(params, "encoder", &xs, Key::new(key)).unwrap());
    }
    let at = |params: &Params, name: &str| values(params.get(name).unwrap().var.as_tensor());
    for leaf in ["weight", "bias"] {
        let name = format!("encoder.filters.{leaf}");
        assert_eq!(at(&one, &name), at(&two, &name));
        assert_eq!(at(&one, &name), at(&one, &format!("teacher.{name}")));
        assert_ne!(at(&one, &name), at(&other, &name));
    }
    // Responses over all patches: the mean of relu(r) less that of relu(-r) is that of r, so their mean is 0; the
    // variance is 1 as far as patches vary by more than 0.01.
    let (w, b) = (at(&one, "encoder.filters.weight"), at(&one, "encoder.filters.bias"));
    let x = values(&xs);
    for k in 0..6 {
        let mut responses = Vec::new();
        for i in 0..8 {
            for y in 0..12 {
                for z in 0..12 {
                    let mut sum = b[k];
                    for c in 0..3 {
                        for dy in 0..3 {
                            for dx in 0..3 {
                                let pixel = x[((i * 3 + c) * 14 + y + dy) * 14 + z + dx];
                                sum += w[((k * 3 + c) * 3 + dy) * 3 + dx] * pixel;
                            }
                        }
                    }
                    responses.push(sum);
                }
            }
        }
        let count = responses.len() as f64;
        let mean = responses.iter().sum::<f64>() / count;
        let variance = responses.iter().map(|r| (r - mean) * (r - mean)).sum::<f64>() / count;
        assert!(mean.abs() < 1e-3 && (0.5..1.001).contains(&variance), "{mean} {variance}");
    }
    // Another encoder has no such filters.
    let plain = params(1, DType::F32);
    JointEmbedding::new(&ModelConfig::default(), &plain).unwrap();
    assert!(!fit_patches(&plain, "encoder", &xs, Key::new(0)).unwrap());
    let narrow = images(2, 1, (8, 8), DType::F32);
    let message = fit_patches(&one, "encoder", &narrow, Key::new(0)).unwrap_err().to_string();
    assert!(message.contains("(batch, 3,"), "{message}");
}

#[test]
fn what_cannot_be_is_refused() {
    for (cfg, key) in [
        (PatchesConfig { patch: 0, ..small() }, "patch"),
        (PatchesConfig { filters: 0, ..small() }, "filters"),
        (PatchesConfig { stride: 0, ..small() }, "stride"),
        (PatchesConfig { grid: 0, ..small() }, "grid"),
        (PatchesConfig { threshold: f64::NAN, ..small() }, "threshold"),
        (PatchesConfig { threshold: -0.1, ..small() }, "threshold"),
    ] {
        let message = Patches::new(&cfg, params(1, DType::F32).root()).unwrap_err().to_string();
        assert!(message.contains(key), "{message}");
    }
    let net = Patches::new(&small(), params(1, DType::F32).root()).unwrap();
    let message = net.forward(&images(2, 3, (4, 9), DType::F32), &Pass::eval()).unwrap_err().to_string();
    assert!(message.contains("5x5 pixels"), "{message}");
    let bf16 = EncoderConfig::Patches(small()).build(Precision::Bf16, params(1, DType::F32).root());
    assert!(bf16.unwrap_err().to_string().contains("bf16"));
}

#[test]
fn the_joint_embedding_trains_them() {
    let params = params(1, DType::F32);
    let config = ModelConfig { encoder: EncoderConfig::Patches(small()), ..ModelConfig::default() };
    let model = JointEmbedding::new(&config, &params).unwrap();
    assert_eq!(model.features(&images(2, 3, (9, 9), DType::F32)).unwrap().dims(), [2, 2 * 4 * 4]);
}
