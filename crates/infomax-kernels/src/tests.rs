//! Every fused operation of rows, blocks and attention: value and gradients against its composed form, for
//! each instruction set of the machine, in f32 and f64; the same bits for any number of threads; half
//! precision, strides and refusals.

use crate::ops::attention::attention_isa;
use crate::ops::conv::depthwise::depthwise_conv2d_last_isa;
use crate::ops::cross_entropy::{cross_entropy_isa, cross_entropy_soft_isa};
use crate::ops::elementwise::elementwise_isa;
use crate::ops::l2_normalize::l2_normalize_isa;
use crate::ops::linear::linear_with_isa;
use crate::ops::max_pool::max_pool2d_isa;
use crate::ops::row_norm::{group_norm_isa, layer_norm_isa, rms_norm_isa};
use crate::ops::rows::{log_softmax_isa, softmax_isa};
use crate::ops::transformer::{feed_forward_isa, self_attention_isa};
use crate::{
    AttentionConfig, Conv2dConfig, Elementwise, Error, FeedForward, Result, SelfAttention, reference,
};
use candle_core::{DType, Device, Tensor, Var};
use infomax_simd::Isa;
use infomax_testing::{Tolerance, assert_close, spread};
use proptest::prelude::*;

type Fused = Box<dyn Fn(&[Tensor], Isa) -> Result<Tensor>>;
type Composed = Box<dyn Fn(&[Tensor]) -> Result<Tensor>>;

/// An operation with the shapes of its inputs.
struct Case {
    name: String,
    shapes: Vec<Vec<usize>>,
    fused: Fused,
    composed: Composed,
}

fn case(
    name: impl Into<String>,
    shapes: &[&[usize]],
    fused: impl Fn(&[Tensor], Isa) -> Result<Tensor> + 'static,
    composed: impl Fn(&[Tensor]) -> Result<Tensor> + 'static,
) -> Case {
    let shapes = shapes.iter().map(|s| s.to_vec()).collect();
    Case { name: name.into(), shapes, fused: Box::new(fused), composed: Box::new(composed) }
}

const FUNCTIONS: [Elementwise; 8] = [
    Elementwise::Identity,
    Elementwise::Relu,
    Elementwise::Gelu,
    Elementwise::Silu,
    Elementwise::Sigmoid,
    Elementwise::Tanh,
    Elementwise::Erf,
    Elementwise::Exp,
];

fn feed<'a>(t: &'a [Tensor], scaled: bool) -> FeedForward<'a> {
    FeedForward {
        norm_weight: &t[1],
        norm_bias: &t[2],
        eps: 1e-3,
        in_weight: &t[3],
        in_bias: &t[4],
        act: Elementwise::Gelu,
        out_weight: &t[5],
        out_bias: &t[6],
        scale: scaled.then(|| &t[7]),
    }
}

fn attend<'a>(t: &'a [Tensor], heads: usize, scaled: bool) -> SelfAttention<'a> {
    SelfAttention {
        norm_weight: &t[1],
        norm_bias: &t[2],
        eps: 1e-3,
        qkv_weight: &t[3],
        qkv_bias: &t[4],
        out_weight: &t[5],
        out_bias: &t[6],
        heads,
        scale: scaled.then(|| &t[7]),
    }
}

/// All operations on a batch of `n`, rows of `d`, and a second size `k`.
fn cases(n: usize, d: usize, k: usize) -> Vec<Case> {
    let (x, v): (&[usize], &[usize]) = (&[n, d], &[d]);
    let mut all = vec![
        case("softmax", &[x], |t, isa| softmax_isa(&t[0], isa), |t| reference::softmax(&t[0])),
        case("log_softmax", &[x], |t, isa| log_softmax_isa(&t[0], isa), |t| reference::log_softmax(&t[0])),
        case(
            "l2",
            &[x],
            |t, isa| l2_normalize_isa(&t[0], 1e-3, isa),
            |t| reference::l2_normalize(&t[0], 1e-3),
        ),
        case(
            "l2 below the floor",
            &[x],
            |t, isa| l2_normalize_isa(&t[0], 1e3, isa),
            |t| reference::l2_normalize(&t[0], 1e3),
        ),
        case(
            "layer_norm",
            &[x, v, v],
            |t, isa| layer_norm_isa(&t[0], Some(&t[1]), Some(&t[2]), 1e-3, isa),
            |t| reference::layer_norm(&t[0], Some(&t[1]), Some(&t[2]), 1e-3),
        ),
        case(
            "layer_norm without affine",
            &[x],
            |t, isa| layer_norm_isa(&t[0], None, None, 1e-3, isa),
            |t| reference::layer_norm(&t[0], None, None, 1e-3),
        ),
        case(
            "rms_norm",
            &[x, v],
            |t, isa| rms_norm_isa(&t[0], Some(&t[1]), 1e-3, isa),
            |t| reference::rms_norm(&t[0], Some(&t[1]), 1e-3),
        ),
        case(
            "cross_entropy_soft",
            &[x, x],
            |t, isa| cross_entropy_soft_isa(&t[0], &t[1], isa),
            |t| reference::cross_entropy_soft(&t[0], &t[1]),
        ),
    ];
    for smoothing in [0.0, 0.3] {
        let labels: Vec<u32> = (0..n).map(|i| (i * 7 % d) as u32).collect();
        let same = labels.clone();
        all.push(case(
            format!("cross_entropy {smoothing}"),
            &[x],
            move |t, isa| cross_entropy_isa(&t[0], &labels, smoothing, isa),
            move |t| reference::cross_entropy(&t[0], &same, smoothing),
        ));
    }
    for f in FUNCTIONS {
        all.push(case(
            format!("{f:?}"),
            &[x],
            move |t, isa| elementwise_isa(&t[0], f, isa),
            move |t| reference::elementwise(&t[0], f),
        ));
        all.push(case(
            format!("linear {f:?}"),
            &[&[n, 2, d], &[k, d], &[k]],
            move |t, isa| linear_with_isa(&t[0], &t[1], Some(&t[2]), f, isa),
            move |t| reference::linear_with(&t[0], &t[1], Some(&t[2]), f),
        ));
    }
    all.push(case(
        "linear without bias",
        &[x, &[k, d]],
        |t, isa| linear_with_isa(&t[0], &t[1], None, Elementwise::Silu, isa),
        |t| reference::linear_with(&t[0], &t[1], None, Elementwise::Silu),
    ));
    for groups in [1, k] {
        all.push(case(
            format!("group_norm {groups}"),
            &[&[n, 2 * k, 3, d], &[2 * k], &[2 * k]],
            move |t, isa| group_norm_isa(&t[0], groups, Some(&t[1]), Some(&t[2]), 1e-3, isa),
            move |t| reference::group_norm(&t[0], groups, Some(&t[1]), Some(&t[2]), 1e-3),
        ));
    }
    let planes: &[usize] = &[n, 2, k, d + 1];
    all.push(case(
        "global_avg_pool",
        &[planes],
        |t, _| crate::global_avg_pool(&t[0]),
        |t| reference::global_avg_pool(&t[0]),
    ));
    for (kernel, stride, padding) in [(1, 2, 0), (2, 1, 1), (3, 2, 1)] {
        let pool = crate::Pool2dConfig { kernel, stride, padding };
        if k + 2 * padding < kernel {
            continue;
        }
        all.push(case(
            format!("avg_pool2d {kernel} {stride} {padding}"),
            &[planes],
            move |t, _| crate::avg_pool2d(&t[0], pool),
            move |t| reference::avg_pool2d(&t[0], pool),
        ));
        all.push(case(
            format!("max_pool2d {kernel} {stride} {padding}"),
            &[planes],
            move |t, isa| max_pool2d_isa(&t[0], pool, isa),
            move |t| reference::max_pool2d(&t[0], pool),
        ));
    }
    for patch in [1, 2, 3] {
        if patch > k || patch > d {
            continue;
        }
        all.push(case(
            format!("patches {patch}"),
            &[&[n, 3, k, d]],
            move |t, _| crate::patches(&t[0], patch),
            move |t| reference::patches(&t[0], patch),
        ));
        all.push(case(
            format!("patches_last {patch}"),
            &[&[n, k, d, 3]],
            move |t, _| crate::patches_last(&t[0], patch),
            move |t| reference::patches_last(&t[0], patch),
        ));
    }
    for causal in [false, true] {
        let cfg = AttentionConfig { scale: None, causal };
        // More queries than keys, and fewer.
        for (rows, keys) in [(n, d), (d, n)] {
            let (q, m): (&[usize], &[usize]) = (&[2, 2, rows, k], &[2, 2, keys, k]);
            all.push(case(
                format!("attention {causal} {rows} {keys}"),
                &[q, m, m],
                move |t, isa| attention_isa(&t[0], &t[1], &t[2], cfg, isa),
                move |t| reference::attention(&t[0], &t[1], &t[2], cfg),
            ));
        }
    }
    for (scaled, apart) in [(false, false), (true, true)] {
        all.push(case(
            format!("feed_forward {scaled}"),
            &[&[n, 3, d], v, v, &[2 * k, d], &[2 * k], &[d, 2 * k], v, v, &[n, 3, d]],
            move |t, isa| feed_forward_isa(&t[0], &feed(t, scaled), apart.then(|| &t[8]), isa),
            move |t| reference::feed_forward(&t[0], &feed(t, scaled), apart.then(|| &t[8])),
        ));
        let w = 2 * k;
        all.push(case(
            format!("self_attention {scaled}"),
            &[&[n, d, w], &[w], &[w], &[3 * w, w], &[3 * w], &[w, w], &[w], &[w]],
            move |t, isa| self_attention_isa(&t[0], &attend(t, 2, scaled), isa),
            move |t| reference::self_attention(&t[0], &attend(t, 2, scaled)),
        ));
    }
    all
}

/// Depthwise convolutions, channels last.
fn depthwise(n: usize, (h, w, c): (usize, usize, usize), kernel: (usize, usize), cfg: Conv2dConfig) -> Case {
    let cfg = Conv2dConfig { groups: c, ..cfg };
    case(
        format!("depthwise {n} {h} {w} {c} {kernel:?} {cfg:?}"),
        &[&[n, h, w, c], &[c, 1, kernel.0, kernel.1], &[c]],
        move |t, isa| depthwise_conv2d_last_isa(&t[0], &t[1], Some(&t[2]), cfg, isa),
        move |t| reference::depthwise_conv2d_last(&t[0], &t[1], Some(&t[2]), cfg),
    )
}

fn inputs(case: &Case, dtype: DType) -> Vec<Tensor> {
    let shapes = case.shapes.iter().enumerate();
    shapes.map(|(i, s)| spread(s, i as u64 + 1, 1.5).to_dtype(dtype).unwrap()).collect()
}

/// The value, and the gradients of all inputs (zeros where there is none).
fn all(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Vec<Tensor> {
    let vars: Vec<Tensor> = inputs.iter().map(|t| Var::from_tensor(t).unwrap().as_tensor().clone()).collect();
    let ys = f(&vars).unwrap();
    let readout = spread(ys.dims(), 99, 1.0).to_dtype(ys.dtype()).unwrap();
    let grads = (&ys * readout).unwrap().sum_all().unwrap().backward().unwrap();
    let mut results = vec![ys];
    results.extend(vars.iter().map(|v| grads.get(v).cloned().unwrap_or_else(|| v.zeros_like().unwrap())));
    results
}

fn check(case: &Case) {
    let exact = all(&inputs(case, DType::F64), &case.composed);
    for dtype in [DType::F64, DType::F32] {
        for isa in Isa::available() {
            let got = all(&inputs(case, dtype), |t| (case.fused)(t, *isa));
            assert_eq!(got.len(), exact.len());
            for (i, (got, exact)) in got.iter().zip(&exact).enumerate() {
                let name = format!("{} {isa:?} {dtype:?} result {i} {:?}", case.name, case.shapes);
                // Gradients of keys and of normalized rows cancel to nearly nothing at some shapes.
                let abs = if dtype == DType::F64 { 1e-12 } else { 1e-5 };
                assert_close(&name, got, exact, Tolerance { rel: Tolerance::of(dtype).rel, abs });
            }
        }
    }
}

#[test]
fn the_composed_forms_in_value_and_gradient() {
    for (n, d, k) in [(3, 5, 4), (1, 1, 1), (2, 33, 3), (17, 16, 8), (1, 300, 5)] {
        cases(n, d, k).iter().for_each(check);
    }
}

#[test]
fn feed_forward_over_several_groups_and_panels() {
    // Rows beyond two groups, hidden channels beyond two blocks of the packed weights, and remainders of both.
    for (rows, d, h) in [(450, 19, 530), (13, 270, 33), (400, 197, 5)] {
        check(&case(
            "groups",
            &[&[rows, d], &[d], &[d], &[h, d], &[h], &[d, h], &[d], &[d], &[rows, d]],
            |t, isa| feed_forward_isa(&t[0], &feed(t, true), Some(&t[8]), isa),
            |t| reference::feed_forward(&t[0], &feed(t, true), Some(&t[8])),
        ));
    }
}

/// Only what is wanted gets a gradient, and a second backward pass over the same graph gives the same.
#[test]
fn frozen_parameters_and_repeated_passes() {
    let case = cases(4, 12, 3).into_iter().find(|c| c.name == "feed_forward true").unwrap();
    let inputs = inputs(&case, DType::F64);
    let exact = all(&inputs, &case.composed);
    for trained in [vec![0], vec![3], vec![5], vec![7], vec![1, 6], vec![0, 4]] {
        let mut tensors = inputs.clone();
        let vars: Vec<Var> = trained.iter().map(|i| Var::from_tensor(&inputs[*i]).unwrap()).collect();
        for (i, var) in trained.iter().zip(&vars) {
            tensors[*i] = var.as_tensor().clone();
        }
        let ys = (case.fused)(&tensors, Isa::detect()).unwrap();
        let readout = spread(ys.dims(), 99, 1.0);
        let loss = (&ys * readout).unwrap().sum_all().unwrap();
        for _ in 0..2 {
            let grads = loss.backward().unwrap();
            for (i, var) in trained.iter().zip(&vars) {
                let got = grads.get(var).unwrap();
                assert_close("frozen", got, &exact[i + 1], Tolerance { rel: 1e-9, abs: 1e-12 });
            }
        }
    }
}

#[test]
fn attention_over_several_blocks() {
    for causal in [false, true] {
        let cfg = AttentionConfig { scale: Some(0.4), causal };
        check(&case(
            "blocks of queries and keys",
            &[&[1, 1, 300, 8], &[1, 1, 530, 8], &[1, 1, 530, 8]],
            move |t, isa| attention_isa(&t[0], &t[1], &t[2], cfg, isa),
            move |t| reference::attention(&t[0], &t[1], &t[2], cfg),
        ));
    }
}

#[test]
fn depthwise_convolutions() {
    let cfg = |stride, padding, dilation| Conv2dConfig { stride, padding, dilation, groups: 1 };
    for case in [
        depthwise(2, (7, 9, 5), (7, 7), cfg(1, 3, 1)),
        depthwise(1, (1, 1, 3), (7, 7), cfg(1, 3, 1)),
        depthwise(2, (14, 13, 19), (3, 3), cfg(2, 1, 1)),
        depthwise(3, (6, 5, 8), (2, 3), cfg(3, 0, 1)),
        depthwise(1, (9, 8, 16), (3, 3), cfg(1, 2, 2)),
        depthwise(1, (5, 5, 2), (1, 1), cfg(1, 2, 1)),
        depthwise(1, (3, 20, 4), (3, 11), cfg(1, 5, 1)),
    ] {
        check(&case);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn drawn_shapes(n in 1usize..6, d in 1usize..40, k in 1usize..7) {
        cases(n, d, k).iter().for_each(check);
    }

    #[test]
    fn drawn_depthwise(
        n in 1usize..3, h in 1usize..9, w in 1usize..12, c in 1usize..19, r in 1usize..6, s in 1usize..6,
        stride in 1usize..4, padding in 0usize..4, dilation in 1usize..3,
    ) {
        let fits = |size: usize, taps: usize| size + 2 * padding > dilation * (taps - 1);
        prop_assume!(fits(h, r) && fits(w, s));
        check(&depthwise(n, (h, w, c), (r, s), Conv2dConfig { stride, padding, dilation, groups: 1 }));
    }
}

#[test]
fn the_same_bits_for_any_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut bits = Vec::new();
            let cfg = Conv2dConfig { padding: 3, ..Default::default() };
            // Large enough that every operation is cut into several tasks.
            for case in cases(90, 70, 24).into_iter().chain([depthwise(20, (9, 9, 40), (7, 7), cfg)]) {
                let got = all(&inputs(&case, DType::F32), |t| (case.fused)(t, Isa::detect()));
                let got = got.iter().map(|t| t.flatten_all().unwrap().to_vec1::<f32>().unwrap());
                bits.push((case.name, got.collect::<Vec<_>>()));
            }
            bits
        })
    };
    for (a, b) in run(1).into_iter().zip(run(3)) {
        assert!(a.1 == b.1, "{} depends on the number of threads", a.0);
    }
}

#[test]
fn half_precision_is_storage() {
    for dtype in [DType::BF16, DType::F16] {
        for case in cases(3, 20, 4) {
            let inputs = inputs(&case, dtype);
            let wide: Vec<Tensor> = inputs.iter().map(|t| t.to_dtype(DType::F32).unwrap()).collect();
            let got = all(&inputs, |t| (case.fused)(t, Isa::detect()));
            let exact = all(&wide, |t| (case.fused)(t, Isa::detect()));
            for (i, (got, exact)) in got.iter().zip(&exact).enumerate() {
                assert_eq!(got.dtype(), dtype, "{}", case.name);
                let name = format!("{} {dtype:?} result {i}", case.name);
                // The read-out and the sums of gradients are rounded too.
                assert_close(&name, got, exact, Tolerance { rel: 3e-2, abs: 3e-2 });
            }
        }
    }
}

#[test]
fn strided_inputs() {
    for case in cases(4, 6, 4) {
        let plain = inputs(&case, DType::F64);
        let exact = all(&plain, |t| (case.fused)(t, Isa::detect()));
        // The same values, stored in the reverse order of dimensions.
        let got = all(&plain, |t| {
            let t: Vec<Tensor> = t
                .iter()
                .map(|t| {
                    let back: Vec<usize> = (0..t.rank()).rev().collect();
                    t.permute(back.clone()).unwrap().contiguous().unwrap().permute(back).unwrap()
                })
                .collect();
            (case.fused)(&t, Isa::detect())
        });
        for (got, exact) in got.iter().zip(&exact) {
            assert_close(&case.name, got, exact, Tolerance { rel: 1e-12, abs: 1e-13 });
        }
    }
}

#[test]
fn empty_batches_are_typed_errors() {
    for case in cases(1, 3, 2) {
        let mut empty = inputs(&case, DType::F32);
        let mut dims = empty[0].dims().to_vec();
        dims[0] = 0;
        empty[0] = Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
        // The partners of the batch.
        for i in 1..empty.len() {
            if case.shapes[i].len() > 1 && case.shapes[i] == case.shapes[0]
                || case.name.starts_with("attention")
            {
                let mut dims = empty[i].dims().to_vec();
                dims[0] = 0;
                empty[i] = Tensor::zeros(dims, DType::F32, &Device::Cpu).unwrap();
            }
        }
        let error = (case.fused)(&empty, Isa::detect()).unwrap_err();
        assert!(
            matches!(error, Error::Empty { .. })
                || case.name.starts_with("cross_entropy") && matches!(error, Error::Config { .. }),
            "{}: {error}",
            case.name
        );
    }
}

#[test]
fn extreme_rows() {
    let x = Tensor::new(&[[1e4f32, -1e4, 0.0], [f32::NEG_INFINITY, 1.0, 2.0]], &Device::Cpu).unwrap();
    let y = crate::softmax(&x).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(y[0], [1.0, 0.0, 0.0]);
    assert_eq!(y[1][0], 0.0);
    assert!((y[1][1] - 0.268_941_43).abs() < 1e-7);
    let y = crate::log_softmax(&x).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(y[0], [0.0, -2e4, -1e4]);
    // A large mean does not cancel in the variance.
    let x = (spread(&[4, 64], 1, 1.0) + 1e4).unwrap().to_dtype(DType::F32).unwrap();
    let exact = reference::layer_norm(&x.to_dtype(DType::F64).unwrap(), None, None, 1e-5).unwrap();
    let got = crate::layer_norm(&x, None, None, 1e-5).unwrap();
    assert_close("large mean", &got, &exact, Tolerance::rel(2e-3));
    let nan = Tensor::new(&[[f32::NAN, 1.0, 2.0]], &Device::Cpu).unwrap();
    for y in [crate::softmax(&nan), crate::log_softmax(&nan), crate::layer_norm(&nan, None, None, 1e-5)] {
        assert!(y.unwrap().to_vec2::<f32>().unwrap()[0].iter().all(|y| y.is_nan()));
    }
}

/// Small shapes through every raw pointer of the rows, pooling and depthwise convolution, and with `gemm` outside
/// of Miri through those of attention and the blocks: for Miri and valgrind (`cargo xtask ci --only memory`).
#[test]
fn memory_small() {
    let cfg = Conv2dConfig { stride: 2, padding: 1, ..Default::default() };
    let all_cases = cases(2, 5, 2).into_iter().chain([depthwise(1, (3, 4, 5), (3, 3), cfg)]);
    let products = ["linear", "attention", "feed_forward", "self_attention"];
    for case in all_cases {
        // The crate `gemm` asks the processor for its caches in assembly, which Miri does not run.
        if cfg!(miri) && products.iter().any(|p| case.name.starts_with(p)) {
            continue;
        }
        for isa in Isa::available() {
            let got = all(&inputs(&case, DType::F32), |t| (case.fused)(t, *isa));
            assert!(!got.is_empty());
        }
    }
}
