//! The instruction sets of this machine, switched off one by one: in a process of its own, because the limit holds
//! for all of it.

#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor, Var};
use infomax_kernels::{AttentionConfig, Blocked, Conv2dConfig, Isa, attention, conv2d, layer_norm, softmax};

/// `dims` values between -1 and 1, which bf16 holds.
fn values(dims: &[usize], seed: usize) -> Tensor {
    let count = dims.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|i| ((i * 7919 + seed * 31) % 257) as f32 / 128.0 - 1.0).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

/// Values and gradients of convolutions in both layouts, in f32 and bf16, of a norm and attention.
fn results() -> Vec<Vec<f32>> {
    let (x, w) = (Var::from_tensor(&values(&[9, 7, 6, 6], 1)).unwrap(), values(&[10, 7, 3, 3], 2));
    let w = Var::from_tensor(&w).unwrap();
    let cfg = Conv2dConfig { stride: 1, padding: 1, ..Default::default() };
    let rows = x.reshape((9, 7, 36)).unwrap();
    let heads = x.reshape((9, 1, 7, 36)).unwrap();
    let all = [
        conv2d(&x, &w, None, cfg).unwrap(),
        Blocked::from_images(&x).unwrap().conv2d(&w, cfg).unwrap().to_images().unwrap(),
        Blocked::from_images_bf16(&x).unwrap().conv2d(&w, cfg).unwrap().to_images().unwrap(),
        layer_norm(&rows, None, None, 1e-5).unwrap(),
        softmax(&rows).unwrap(),
        attention(&heads, &heads, &heads, AttentionConfig::default()).unwrap(),
    ];
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let mut results: Vec<_> = all.iter().map(flat).collect();
    for y in &all {
        let readout = values(y.dims(), 3);
        let grads = (y * readout).unwrap().sum_all().unwrap().backward().unwrap();
        results.extend([&x, &w].into_iter().filter_map(|v| grads.get(v)).map(flat));
    }
    results
}

#[test]
fn instruction_sets_are_switched_off_one_by_one() {
    assert_eq!(Isa::detect(), *Isa::available().last().unwrap());
    let best = results();
    for isa in Isa::available() {
        isa.limit_process();
        assert_eq!(Isa::detect(), *isa);
        let got = results();
        assert_eq!(got.len(), best.len());
        for (i, (got, best)) in got.iter().zip(&best).enumerate() {
            let largest = best.iter().fold(0f32, |m, x| m.max(x.abs()));
            for (g, b) in got.iter().zip(best) {
                // A value of a map in bf16 may fall to the neighbor: 2^-7 of it.
                let bound = b.abs() / 128.0 + 1e-4 * largest;
                assert!((g - b).abs() <= bound, "{isa:?}, result {i}: {g} instead of {b}");
            }
        }
        // The same bits again.
        assert!(got == results(), "{isa:?}");
    }
    let portable = Isa::Portable;
    portable.limit_process();
    let slow = results();
    Isa::available().last().unwrap().limit_process();
    assert!(results() == best);
    // The limit does something, where there is something to switch off.
    assert!(Isa::available().len() == 1 || slow != best);
}
