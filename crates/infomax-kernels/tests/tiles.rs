//! The choice of the process with the emulated tiles: in a process of its own, because the choice holds for all of it.

#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor, Var};
use infomax_kernels::{
    Arithmetic, Blocked, Conv2dConfig, CpuProducts, Elementwise, FeedForward, Isa, SelfAttention, Single,
    feed_forward, linear, self_attention,
};

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

/// What multiplies in a result.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Of {
    Convolution,
    Linear,
    Half,
    Transformer,
}

/// Values and gradients of convolutions of maps in f32 and bf16, of a linear layer in both, and of the halves of a
/// transformer layer.
fn results() -> Vec<(Of, Vec<f32>)> {
    let (x, w) = (values(&[16, 24, 6, 6], 1), values(&[40, 24, 3, 3], 2));
    let (x, w) = (Var::from_tensor(&x).unwrap(), Var::from_tensor(&w).unwrap());
    let cfg = Conv2dConfig { stride: 2, padding: 1, ..Default::default() };
    let rows = x.reshape((36, 384)).unwrap();
    let map = w.reshape((60, 144)).unwrap();
    let narrow = rows.narrow(1, 0, 144).unwrap();
    let half = |t: &Tensor| t.to_dtype(DType::BF16).unwrap();
    // No size is one of whole tiles.
    let positions = x.reshape((6, 48, 48)).unwrap().narrow(1, 0, 37).unwrap().contiguous().unwrap();
    let weights = |rows: usize, cols: usize, at: usize| {
        w.flatten_all().unwrap().narrow(0, at, rows * cols).unwrap().reshape((rows, cols)).unwrap()
    };
    let vector = |len: usize, seed: u32| values(&[len], seed);
    let dense = FeedForward {
        norm_weight: &vector(48, 4),
        norm_bias: &vector(48, 5),
        eps: 1e-6,
        in_weight: &weights(75, 48, 0),
        in_bias: &vector(75, 6),
        act: Elementwise::Gelu,
        out_weight: &weights(48, 75, 3600),
        out_bias: &vector(48, 7),
        scale: Some(&vector(48, 8)),
    };
    let attend = SelfAttention {
        norm_weight: &vector(48, 4),
        norm_bias: &vector(48, 5),
        eps: 1e-6,
        // Not so large that a weight of attention is nearly 1.
        qkv_weight: &(weights(144, 48, 0) * 0.2).unwrap(),
        qkv_bias: &vector(144, 6),
        out_weight: &weights(48, 48, 1200),
        out_bias: &vector(48, 7),
        heads: 3,
        scale: None,
    };
    let all = [
        (Of::Convolution, Blocked::from_images(&x).unwrap().conv2d(&w, cfg).unwrap().to_images().unwrap()),
        (Of::Linear, linear(&narrow, &map, None).unwrap()),
        (Of::Half, Blocked::from_images_bf16(&x).unwrap().conv2d(&w, cfg).unwrap().to_images().unwrap()),
        (Of::Half, linear(&half(&narrow), &half(&map), None).unwrap().to_dtype(DType::F32).unwrap()),
        (Of::Transformer, feed_forward(&positions, &dense, None).unwrap()),
        (Of::Transformer, self_attention(&positions, &attend).unwrap()),
    ];
    let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    all.iter()
        .flat_map(|(of, y)| {
            let grads = (y * values(y.dims(), 3)).unwrap().sum_all().unwrap().backward().unwrap();
            let results = [flat(y), flat(grads.get(&x).unwrap()), flat(grads.get(&w).unwrap())];
            results.map(|result| (*of, result))
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
    for single in [Single::Split, Single::Rounded, Single::Exact] {
        let choice = CpuProducts { arithmetic: Arithmetic::Tiles, single };
        choice.apply().unwrap();
        assert_eq!(CpuProducts::current(), choice);
        assert_eq!(choice.why_exact().is_none(), single != Single::Exact);
        let got = results();
        assert!(got == results(), "other bits in a second run");
        for (i, ((of, got), (_, plain))) in got.iter().zip(&plain).enumerate() {
            let far = far(got, plain);
            match (of, single) {
                // Results in bf16 may fall to the neighbor; their gradients are sums of rounded ones.
                (Of::Half, _) => assert!(far < 1.0 / 64.0, "result {i}: {far:e}"),
                (Of::Linear | Of::Transformer, Single::Rounded) => {
                    assert!(far > 1e-5 && far < 1.0 / 64.0, "result {i}: {far:e}");
                }
                (Of::Convolution | Of::Linear, Single::Split) => {
                    assert!(far > 0.0 && far <= 1e-5, "result {i}: {far:e}");
                }
                _ => assert!(far < 2e-6, "result {i}: {far:e}"),
            }
        }
    }
    let fixed = CpuProducts { arithmetic: Arithmetic::F32, single: Single::Split };
    fixed.apply().unwrap();
    assert!(fixed.why_exact().is_some());
    let f32s = results();
    for ((of, got), (_, plain)) in f32s.iter().zip(&plain) {
        assert!(*of == Of::Half || far(got, plain) < 2e-6, "{of:?}");
    }
    // The emulated set has no pairs: refused, and nothing changes.
    let pairs = CpuProducts { arithmetic: Arithmetic::Pairs, single: Single::Exact };
    let message = pairs.apply().unwrap_err().to_string();
    assert!(message.contains("pairs") && message.contains("AVX512_BF16"), "{message}");
    assert_eq!(CpuProducts::current(), fixed);
    CpuProducts::default().apply().unwrap();
    Isa::available().last().unwrap().limit_process();
    assert!(results() == plain);
}
