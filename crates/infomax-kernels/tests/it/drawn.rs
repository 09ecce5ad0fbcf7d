//! Gradients of every operation by central differences in f64, over drawn shapes: odd sizes, images of one
//! pixel, kernels larger than the image, strides larger than the kernel, widths off every vector, batch 1.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests, where a failure should stop.

use candle_core::Tensor;
use infomax_kernels::{
    Activation, AttentionConfig, Conv2dConfig, Elementwise, FeedForward, Pool2dConfig, SelfAttention,
    attention, avg_pool2d, batch_norm_eval, batch_norm_train, conv2d, cross_entropy, cross_entropy_soft,
    depthwise_conv2d_last, elementwise, feed_forward, global_avg_pool, group_norm, l2_normalize, layer_norm,
    linalg, linear_with, log_softmax, max_pool2d, rms_norm, self_attention, softmax,
};
use infomax_testing::{GradCheck, gradcheck, spread};
use proptest::prelude::*;

fn check(name: &str, shapes: &[&[usize]], f: impl Fn(&[Tensor]) -> infomax_kernels::Result<Tensor>) {
    let inputs: Vec<Tensor> = shapes.iter().enumerate().map(|(i, s)| spread(s, i as u64, 1.5)).collect();
    let settings = GradCheck { max_elements: 8, rel: 2e-6, abs: 1e-7, ..Default::default() };
    gradcheck(&inputs, settings, |v| Ok(f(v)?)).unwrap_or_else(|e| panic!("{name} {shapes:?}: {e}"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn rows(n in 1usize..6, d in 1usize..36, k in 1usize..5) {
        let (x, v): (&[usize], &[usize]) = (&[n, d], &[d]);
        // With one element a row normalizes to nothing: only rounding is left to compare.
        if d > 1 {
            check("layer_norm", &[x, v, v], |t| layer_norm(&t[0], Some(&t[1]), Some(&t[2]), 1e-2));
        }
        check("rms_norm", &[x, v], |t| rms_norm(&t[0], Some(&t[1]), 1e-2));
        check("softmax", &[x], |t| softmax(&t[0]));
        check("log_softmax", &[x], |t| log_softmax(&t[0]));
        check("l2_normalize", &[x], |t| l2_normalize(&t[0], 1e-9));
        check("cross_entropy_soft", &[x, x], |t| cross_entropy_soft(&t[0], &t[1]));
        let labels: Vec<u32> = (0..n).map(|i| (i * 5 % d) as u32).collect();
        check("cross_entropy", &[x], |t| cross_entropy(&t[0], &labels, 0.1));
        for f in [Elementwise::Gelu, Elementwise::Silu, Elementwise::Tanh, Elementwise::Erf, Elementwise::Exp,
            Elementwise::Sigmoid, Elementwise::Relu, Elementwise::Identity] {
            check(&format!("{f:?}"), &[x], |t| elementwise(&t[0], f));
        }
        for act in [Elementwise::Identity, Elementwise::Gelu] {
            check("linear", &[x, &[k, d], &[k]], |t| linear_with(&t[0], &t[1], Some(&t[2]), act));
        }
    }

    #[test]
    fn blocks(b in 1usize..4, n in 1usize..7, heads in 1usize..3, e in 1usize..5, causal in any::<bool>()) {
        let cfg = AttentionConfig { scale: None, causal };
        let (q, m): (&[usize], &[usize]) = (&[b, heads, n, e], &[b, heads, n + 2, e]);
        check("attention", &[q, m, m], |t| attention(&t[0], &t[1], &t[2], cfg));
        let d = 2 * heads * e;
        let v: &[usize] = &[d];
        check("self_attention", &[&[b, n, d], v, v, &[3 * d, d], &[3 * d], &[d, d], v, v], |t| {
            self_attention(&t[0], &SelfAttention {
                norm_weight: &t[1], norm_bias: &t[2], eps: 1e-2, qkv_weight: &t[3], qkv_bias: &t[4],
                out_weight: &t[5], out_bias: &t[6], heads, scale: Some(&t[7]),
            })
        });
        let h = d + 1;
        check("feed_forward", &[&[b, n, d], v, v, &[h, d], &[h], &[d, h], v, v], |t| {
            feed_forward(&t[0], &FeedForward {
                norm_weight: &t[1], norm_bias: &t[2], eps: 1e-2, in_weight: &t[3], in_bias: &t[4],
                act: Elementwise::Gelu, out_weight: &t[5], out_bias: &t[6], scale: Some(&t[7]),
            }, None)
        });
    }

    #[test]
    fn images(
        n in 1usize..3, h in 1usize..8, w in 1usize..8, r in 1usize..5, s in 1usize..5,
        stride in 1usize..5, padding in 0usize..4, dilation in 1usize..3, groups in 1usize..4,
    ) {
        let c = 2 * groups;
        let cfg = Conv2dConfig { stride, padding, dilation, groups };
        let fits = |size: usize, taps: usize| size + 2 * padding > dilation * (taps - 1);
        if fits(h, r) && fits(w, s) {
            let k = 3 * groups;
            check("conv2d", &[&[n, c, h, w], &[k, 2, r, s], &[k]], |t| conv2d(&t[0], &t[1], Some(&t[2]), cfg));
            let cfg = Conv2dConfig { groups: c, ..cfg };
            let kernel: &[usize] = &[c, 1, r, s];
            check("depthwise", &[&[n, c, h, w], kernel, &[c]], |t| conv2d(&t[0], &t[1], Some(&t[2]), cfg));
            check("depthwise, channels last", &[&[n, h, w, c], kernel, &[c]], |t| {
                depthwise_conv2d_last(&t[0], &t[1], Some(&t[2]), cfg)
            });
        }
        let x: &[usize] = &[n, c, h, w];
        if n * h * w > 2 {
            for act in [Activation::None, Activation::Relu] {
                check("batch_norm", &[x, &[c], &[c], x], |t| {
                    Ok(batch_norm_train(&t[0], Some(&t[1]), Some(&t[2]), Some(&t[3]), 1e-2, act)?.ys)
                });
            }
        }
        let (mean, var) = (spread(&[c], 5, 1.0), (spread(&[c], 6, 1.0) + 2.0).unwrap());
        check("batch_norm_eval", &[x, &[c], &[c]], |t| {
            batch_norm_eval(&t[0], &mean, &var, Some(&t[1]), Some(&t[2]), None, 1e-2, Activation::None)
        });
        if h * w > 1 {
            check("group_norm", &[x, &[c], &[c]], |t| group_norm(&t[0], groups, Some(&t[1]), Some(&t[2]), 1e-2));
        }
        check("global_avg_pool", &[x], |t| global_avg_pool(&t[0]));
        let pool = Pool2dConfig { kernel: r, stride, padding: padding.min(r / 2) };
        if h + 2 * pool.padding >= r && w + 2 * pool.padding >= r {
            check("max_pool2d", &[x], |t| max_pool2d(&t[0], pool));
            check("avg_pool2d", &[x], |t| avg_pool2d(&t[0], pool));
        }
    }

    #[test]
    fn decompositions(d in 1usize..6, more in 1usize..4) {
        let x: &[usize] = &[d, d + more];
        let spd = |x: &Tensor| -> infomax_kernels::Result<Tensor> {
            let eye = Tensor::eye(d, x.dtype(), x.device())?;
            Ok(((x.matmul(&x.t()?)? / d as f64)? + (eye * 0.5)?)?)
        };
        check("log_det_spd", &[x], |t| linalg::log_det_spd(&spd(&t[0])?));
        check("solve_spd", &[x, &[d, 2]], |t| linalg::solve_spd(&spd(&t[0])?, &t[1]));
        check("traces of eigenvalues", &[x], |t| {
            let values = linalg::eigvalsh(&spd(&t[0])?)?;
            Ok((values.log()? * values)?.sum_all()?)
        });
        // Tall and wide: the sum of a smooth function of the singular values.
        for shape in [[d, d + more], [d + more, d]] {
            check("singular values", &[&shape], |t| Ok(linalg::svdvals(&t[0])?.sqr()?.exp()?.sum_all()?));
        }
    }
}

#[test]
fn the_thin_decomposition_gives_the_matrix_again() {
    for shape in [[4, 7], [6, 3]] {
        let a = spread(&shape, 3, 1.0);
        let (u, s, v) = linalg::svd(&a).unwrap();
        let again = u.broadcast_mul(&s.unsqueeze(0).unwrap()).unwrap().matmul(&v.t().unwrap()).unwrap();
        infomax_testing::assert_close("U S V^T", &again, &a, infomax_testing::Tolerance::rel(1e-13));
        let values = linalg::singular_values(&a).unwrap();
        assert_eq!(values.len(), s.to_vec1::<f64>().unwrap().len());
    }
}
