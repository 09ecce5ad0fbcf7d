//! The choice of the process with the emulated tiles: in a process of its own, because the choice holds for all of it.

#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor, Var};
use infomax_kernels::{Arithmetic, Blocked, Conv2dConfig, CpuProducts, Isa, linear};

/// `dims` values between -1 and 1.
fn values(dims: &[usize], seed: u32) -> Tensor {
    let count = dims.iter().product::<usize>() as u32;
    // Mixed well: sums of products of an even sequence would cancel, and no error is small beside them.
    let hash = |i: u32| {
        let mixed = (i ^ seed << 20).wrapping_mul(2_654_435_761);
        (mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca6b).rotate_left(13).wrapping_mul(0xc2b2_ae35) >> 8
    };
    let values: Vec<f32> = (0..count).map(|i| hash(i) as f32 / 8_388_608.0 - 1.0).collect();
    Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
}

/// Values and gradients of convolutions of maps in f32 and bf16, and of a linear layer in both.
fn results() -> Vec<Vec<f32>> {
    let (x, w) = (values(&[16, 24, 6, 6], 1), values(&[40, 24, 3, 3], 2));
    let (x, w) = (Var::from_tensor(&x).unwrap(), Var::from_tensor(&w).unwrap());
    let cfg = Conv2dConfig { stride: 2, padding: 1, ..Default::default() };
    let rows = x.reshape((36, 384)).unwrap();
    let map = w.reshape((60, 144)).unwrap();
    let narrow = rows.narrow(1, 0, 144).unwrap();
    let half = |t: &Tensor| t.to_dtype(DType::BF16).unwrap();
    let all = [
        Blocked::from_images(&x).unwrap().conv2d(&w, cfg).unwrap().to_images().unwrap(),
        linear(&narrow, &map, None).unwrap(),
        Blocked::from_images_bf16(&x).unwrap().conv2d(&w, cfg).unwrap().to_images().unwrap(),
        linear(&half(&narrow), &half(&map), None).unwrap().to_dtype(DType::F32).unwrap(),
    ];
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    all.iter()
        .flat_map(|y| {
            let grads = (y * values(y.dims(), 3)).unwrap().sum_all().unwrap().backward().unwrap();
            [flat(y), flat(grads.get(&x).unwrap()), flat(grads.get(&w).unwrap())]
        })
        .collect()
}

/// The largest difference, relative to the largest value.
fn far(got: &[f32], expected: &[f32]) -> f32 {
    let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
    got.iter().zip(expected).fold(0f32, |m, (g, e)| m.max((g - e).abs())) / largest
}

#[test]
fn the_process_multiplies_by_what_was_chosen() {
    let plain = results();
    Isa::EmulatedAmx.limit_process();
    assert_eq!(Isa::detect(), Isa::EmulatedAmx);
    // The rule leaves shapes as small as these to f32, but for bits of pairs that this machine may have.
    let words = CpuProducts::current().in_words();
    assert!(words.contains("tiles"), "{words}");
    for split in [true, false] {
        let choice = CpuProducts { arithmetic: Arithmetic::Tiles, split };
        choice.apply().unwrap();
        assert_eq!(CpuProducts::current(), choice);
        assert_eq!(choice.why_not_split().is_none(), split);
        let got = results();
        assert!(got == results(), "other bits in a second run");
        for (i, (got, plain)) in got.iter().zip(&plain).enumerate() {
            let (far, half) = (far(got, plain), i >= 6);
            match (half, split) {
                // Results in bf16 may fall to the neighbor; their gradients are sums of rounded ones.
                (true, _) => assert!(far < 1.0 / 64.0, "result {i}: {far:e}"),
                (false, true) => assert!(far > 0.0 && far <= 1e-5, "result {i}: {far:e}"),
                (false, false) => assert!(far < 1e-6, "result {i}: {far:e}"),
            }
        }
    }
    let fixed = CpuProducts { arithmetic: Arithmetic::F32, split: true };
    fixed.apply().unwrap();
    assert!(fixed.why_not_split().is_some());
    let f32s = results();
    assert!(f32s.iter().zip(&plain).take(6).all(|(a, b)| far(a, b) < 1e-6));
    // The emulated set has no pairs: refused, and nothing changes.
    let pairs = CpuProducts { arithmetic: Arithmetic::Pairs, split: false };
    let message = pairs.apply().unwrap_err().to_string();
    assert!(message.contains("pairs") && message.contains("AVX512_BF16"), "{message}");
    assert_eq!(CpuProducts::current(), fixed);
    CpuProducts::default().apply().unwrap();
    Isa::available().last().unwrap().limit_process();
    assert!(results() == plain);
}
