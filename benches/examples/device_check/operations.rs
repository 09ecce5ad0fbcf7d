//! Each operation at odd shapes.

use crate::compare::{Input, Report, Worst, draw, error, guarded, inputs, versus};
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use infomax_cuda::{
    Conv2dConfig, Exclude, Function, Images, Math, Options, Pool2dConfig, Score, Search, conv2d,
};
use infomax_kernels::{Activation, Elementwise, pairwise as cpu, reference};

const TYPES: [(DType, &str, f64); 2] = [(DType::F32, "f32", 1e-4), (DType::BF16, "bf16", 1e-2)];

pub(crate) fn elementwise(device: &Device, report: &mut Report) -> Result<()> {
    let functions = [
        (Function::Relu, Elementwise::Relu),
        (Function::Gelu, Elementwise::Gelu),
        (Function::Silu, Elementwise::Silu),
        (Function::Sigmoid, Elementwise::Sigmoid),
        (Function::Tanh, Elementwise::Tanh),
        (Function::Erf, Elementwise::Erf),
        (Function::Exp, Elementwise::Exp),
    ];
    for (dtype, name, tolerance) in TYPES {
        for (fast, slow) in functions {
            for count in [1003, 40_000] {
                let xs = inputs(dtype, &[(draw(&[count], 3)? * 2.0)?]);
                let worst = versus(
                    device,
                    &xs,
                    |x| Ok(infomax_cuda::elementwise(&x[0], fast)?),
                    |x| Ok(reference::elementwise(&x[0], slow)?),
                );
                report.row(&format!("{fast:?} {name} {count}"), worst, tolerance);
            }
        }
    }
    let xs = inputs(DType::F32, &[draw(&[6, 35], 4)?]);
    let worst = versus(
        device,
        &xs,
        |x| Ok(infomax_cuda::elementwise(&x[0].t()?, Function::Gelu)?),
        |x| Ok(reference::gelu(&x[0].t()?)?),
    );
    report.row("Gelu f32 of a transposed matrix", worst, 1e-4);
    Ok(())
}

pub(crate) fn rows(device: &Device, report: &mut Report) -> Result<()> {
    for (dtype, name, tolerance) in TYPES {
        for (n, d) in [(1, 7), (37, 33), (257, 384), (5, 3001)] {
            let at = format!("{name} {n}x{d}");
            let x = ((draw(&[n, d], 5)? * 1.5)? + 2.0)?;
            let xs = inputs(dtype, std::slice::from_ref(&x));
            let vector =
                |seed| -> Result<Input> { Ok(Input { values: draw(&[d], seed)?, dtype: DType::F32 }) };
            let all = vec![xs[0].clone(), vector(6)?, vector(7)?];
            let affine = |x: &[Tensor]| (x[0].clone(), x[1].clone(), x[2].clone());
            let worst = versus(
                device,
                &all,
                |x| Ok(infomax_cuda::layer_norm(&x[0], Some(&x[1]), Some(&x[2]), 1e-5)?),
                |x| {
                    let (x, w, b) = affine(x);
                    Ok(reference::layer_norm(&x, Some(&w), Some(&b), 1e-5)?)
                },
            );
            report.row(&format!("layer_norm {at}"), worst, tolerance);
            let worst = versus(
                device,
                &all[..2],
                |x| Ok(infomax_cuda::rms_norm(&x[0], Some(&x[1]), 1e-5)?),
                |x| Ok(reference::rms_norm(&x[0], Some(&x[1]), 1e-5)?),
            );
            report.row(&format!("rms_norm {at}"), worst, tolerance);
            let worst = versus(
                device,
                &xs,
                |x| Ok(infomax_cuda::layer_norm(&x[0], None, None, 1e-5)?),
                |x| Ok(reference::layer_norm(&x[0], None, None, 1e-5)?),
            );
            report.row(&format!("layer_norm without parameters {at}"), worst, tolerance);
            let worst = versus(
                device,
                &xs,
                |x| Ok(infomax_cuda::softmax(&x[0])?),
                |x| Ok(reference::softmax(&x[0])?),
            );
            report.row(&format!("softmax {at}"), worst, tolerance);
            let worst = versus(
                device,
                &xs,
                |x| Ok(infomax_cuda::log_softmax(&x[0])?),
                |x| Ok(reference::log_softmax(&x[0])?),
            );
            report.row(&format!("log_softmax {at}"), worst, tolerance);
            let worst = versus(
                device,
                &xs,
                |x| Ok(infomax_cuda::log_sum_exp(&x[0])?),
                |x| Ok(x[0].exp()?.sum(1)?.log()?),
            );
            report.row(&format!("log_sum_exp {at}"), worst, tolerance);
            for eps in [1e-6, 1e3] {
                let worst = versus(
                    device,
                    &xs,
                    |x| Ok(infomax_cuda::l2_normalize(&x[0], eps)?),
                    |x| Ok(reference::l2_normalize(&x[0], eps)?),
                );
                report.row(&format!("l2_normalize eps {eps:e} {at}"), worst, tolerance);
            }
        }
    }
    let all = inputs(DType::F32, &[draw(&[3, 12, 5, 7], 8)?, draw(&[12], 9)?, draw(&[12], 10)?]);
    let worst = versus(
        device,
        &all,
        |x| Ok(infomax_cuda::group_norm(&x[0], 4, Some(&x[1]), Some(&x[2]), 1e-5)?),
        |x| Ok(reference::group_norm(&x[0], 4, Some(&x[1]), Some(&x[2]), 1e-5)?),
    );
    report.row("group_norm f32", worst, 1e-4);
    Ok(())
}

/// `(N, C, H, W)` as it is, or with the channels last.
fn ordered(x: &Tensor, images: Images) -> Result<Tensor> {
    Ok(match images {
        Images::ChannelsFirst => x.clone(),
        Images::ChannelsLast => x.permute((0, 2, 3, 1))?.contiguous()?,
    })
}

/// Back again.
fn first(x: &Tensor, images: Images) -> Result<Tensor> {
    Ok(match images {
        Images::ChannelsFirst => x.clone(),
        Images::ChannelsLast => x.permute((0, 3, 1, 2))?,
    })
}

const ORDERS: [(Images, &str); 2] = [(Images::ChannelsFirst, "first"), (Images::ChannelsLast, "last")];

pub(crate) fn pool(device: &Device, report: &mut Report) -> Result<()> {
    for (dtype, name, tolerance) in TYPES {
        for (images, order) in ORDERS {
            for (kernel, stride, padding) in [(3, 2, 1), (2, 2, 0), (3, 1, 1), (4, 3, 2)] {
                let cfg = Pool2dConfig { kernel, stride, padding };
                let slow = infomax_kernels::Pool2dConfig { kernel, stride, padding };
                // Ties, as after a ReLU.
                let x = ((draw(&[3, 5, 13, 11], 11)? * 2.0)?.round()? * 0.5)?;
                let xs = inputs(dtype, &[x]);
                let at = format!("{kernel}/{stride}+{padding} {name} {order}");
                let worst = versus(
                    device,
                    &xs,
                    |x| first(&infomax_cuda::max_pool2d(&ordered(&x[0], images)?, cfg, images)?, images),
                    |x| Ok(reference::max_pool2d(&x[0], slow)?),
                );
                report.row(&format!("max_pool2d {at}"), worst, tolerance);
                let worst = versus(
                    device,
                    &xs,
                    |x| first(&infomax_cuda::avg_pool2d(&ordered(&x[0], images)?, cfg, images)?, images),
                    |x| Ok(reference::avg_pool2d(&x[0], slow)?),
                );
                report.row(&format!("avg_pool2d {at}"), worst, tolerance);
            }
            let xs = inputs(dtype, &[draw(&[3, 37, 5, 7], 12)?]);
            let worst = versus(
                device,
                &xs,
                |x| Ok(infomax_cuda::global_avg_pool(&ordered(&x[0], images)?, images)?),
                |x| Ok(reference::global_avg_pool(&x[0])?),
            );
            report.row(&format!("global_avg_pool {name} {order}"), worst, tolerance);
        }
    }
    Ok(())
}

pub(crate) fn batch_norm(device: &Device, report: &mut Report) -> Result<()> {
    for (dtype, name, tolerance) in TYPES {
        for (images, order) in ORDERS {
            for [n, c, h, w] in [[3, 5, 7, 9], [16, 64, 8, 8], [70, 33, 2, 2], [300, 36, 1, 1]] {
                for (relu, residual) in [(false, false), (true, false), (false, true), (true, true)] {
                    let at = format!("{n}x{c}x{h}x{w} {name} {order} relu {relu} residual {residual}");
                    let x = ((draw(&[n, c, h, w], 13)? * 1.3)? + 4.0)?;
                    let vector = |seed| -> Result<Input> {
                        Ok(Input { values: draw(&[c], seed)?, dtype: DType::F32 })
                    };
                    let mut all = vec![Input { values: x, dtype }, vector(14)?, vector(15)?];
                    if residual {
                        all.push(Input { values: draw(&[n, c, h, w], 16)?, dtype });
                    }
                    let act = if relu { Activation::Relu } else { Activation::None };
                    let fast = |x: &[Tensor], train: bool| -> Result<Tensor> {
                        let r = x.get(3).map(|r| ordered(r, images)).transpose()?;
                        let (xs, w, b) = (ordered(&x[0], images)?, Some(&x[1]), Some(&x[2]));
                        let ys = if train {
                            infomax_cuda::batch_norm_train(&xs, w, b, r.as_ref(), 1e-5, relu, images)?.ys
                        } else {
                            let (m, v) = (x[1].affine(0.3, 1.0)?, x[2].sqr()?.affine(1.0, 0.5)?);
                            infomax_cuda::batch_norm_eval(&xs, &m, &v, w, b, r.as_ref(), 1e-5, relu, images)?
                        };
                        first(&ys, images)
                    };
                    let slow = |x: &[Tensor], train: bool| -> Result<Tensor> {
                        let (w, b) = (Some(&x[1]), Some(&x[2]));
                        Ok(if train {
                            reference::batch_norm_train(&x[0], w, b, x.get(3), 1e-5, act)?.ys
                        } else {
                            let (m, v) =
                                (x[1].affine(0.3, 1.0)?.detach(), x[2].sqr()?.affine(1.0, 0.5)?.detach());
                            reference::batch_norm_eval(&x[0], &m, &v, w, b, x.get(3), 1e-5, act)?
                        })
                    };
                    for train in [true, false] {
                        let worst = versus(device, &all, |x| fast(x, train), |x| slow(x, train));
                        let what = if train { "train" } else { "eval" };
                        report.row(&format!("batch_norm_{what} {at}"), worst, tolerance);
                    }
                }
            }
        }
    }
    // A matrix, and a mean of a thousand deviations.
    let x = (draw(&[500, 37], 17)? + 1000.0)?;
    let xs = inputs(DType::F32, std::slice::from_ref(&x));
    let worst = guarded(|| {
        let x = xs[0].values.to_dtype(DType::F32)?;
        let there = x.to_device(device)?;
        let out =
            infomax_cuda::batch_norm_train(&there, None, None, None, 1e-5, false, Images::ChannelsFirst)?;
        let slow =
            reference::batch_norm_train(&x.to_dtype(DType::F64)?, None, None, None, 1e-5, Activation::None)?;
        let mut worst = Worst::none();
        worst.take("value", error(&out.ys, &slow.ys)?);
        worst.take("mean", error(&out.mean, &slow.mean)?);
        worst.take("var", error(&out.var, &slow.var)?);
        Ok(worst)
    });
    report.row("batch_norm_train of a matrix with a large mean", worst, 1e-4);
    Ok(())
}

/// `(images, weight, geometry)`.
type Shape = ([usize; 4], [usize; 4], Conv2dConfig);

fn shapes() -> Vec<(&'static str, Shape)> {
    let cfg = |stride, padding, dilation, groups| Conv2dConfig { stride, padding, dilation, groups };
    vec![
        ("3x3", ([2, 16, 9, 7], [24, 16, 3, 3], cfg(1, 1, 1, 1))),
        ("3x3 odd", ([3, 5, 11, 13], [7, 5, 3, 3], cfg(1, 1, 1, 1))),
        ("3x3 stride 2", ([2, 16, 9, 8], [32, 16, 3, 3], cfg(2, 1, 1, 1))),
        ("1x1", ([3, 24, 7, 5], [40, 24, 1, 1], cfg(1, 0, 1, 1))),
        ("1x1 stride 2", ([2, 16, 8, 8], [32, 16, 1, 1], cfg(2, 0, 1, 1))),
        ("7x7 stem", ([2, 3, 30, 31], [64, 3, 7, 7], cfg(2, 3, 1, 1))),
        ("3x3 stem", ([4, 3, 32, 32], [64, 3, 3, 3], cfg(1, 1, 1, 1))),
        ("dilated", ([2, 8, 12, 12], [8, 8, 3, 3], cfg(1, 2, 2, 1))),
        ("groups", ([2, 16, 9, 9], [32, 8, 3, 3], cfg(1, 1, 1, 2))),
        ("depthwise", ([2, 16, 9, 9], [16, 1, 7, 7], cfg(1, 3, 1, 16))),
    ]
}

fn conv(device: &Device, report: &mut Report, dtype: DType, math: Math, tolerance: f64) -> Result<()> {
    for (images, order) in ORDERS {
        for search in [Search::Deterministic, Search::Heuristic, Search::Measured] {
            for (name, (image, weight, cfg)) in shapes() {
                let options = Options { math, search, images };
                let all =
                    inputs(dtype, &[draw(&image, 18)?, (draw(&weight, 19)? * 0.2)?, draw(&[weight[0]], 20)?]);
                let slow = infomax_kernels::Conv2dConfig {
                    stride: cfg.stride,
                    padding: cfg.padding,
                    dilation: cfg.dilation,
                    groups: cfg.groups,
                };
                let worst = versus(
                    device,
                    &all,
                    |x| {
                        let xs = ordered(&x[0], images)?;
                        first(&conv2d(&xs, &x[1], Some(&x[2]), cfg, options)?, images)
                    },
                    |x| Ok(reference::conv2d(&x[0], &x[1], Some(&x[2]), slow)?),
                );
                let at = format!("conv2d {name} {dtype:?} {math:?} {order} {search:?}");
                report.row(&at, worst, tolerance);
            }
        }
    }
    // The same bits twice.
    let options = Options { math, search: Search::Deterministic, images: Images::ChannelsFirst };
    let bits = guarded(|| {
        let once = || -> Result<Vec<Tensor>> {
            let make = |shape: &[usize], seed| -> Result<candle_core::Var> {
                Ok(candle_core::Var::from_tensor(&draw(shape, seed)?.to_dtype(dtype)?.to_device(device)?)?)
            };
            let (x, w) = (make(&[32, 32, 16, 16], 21)?, make(&[64, 32, 3, 3], 22)?);
            let cfg = Conv2dConfig { padding: 1, ..Default::default() };
            let ys = conv2d(&x, &w, None, cfg, options)?;
            let grads = ys.to_dtype(DType::F32)?.sqr()?.sum_all()?.backward()?;
            let wide = |t: &Tensor| -> Result<Tensor> {
                Ok(t.to_dtype(DType::F32)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?)
            };
            let grad =
                |v: &candle_core::Var| grads.get(v).map_or_else(|| Err(anyhow::anyhow!("no gradient")), wide);
            Ok(vec![wide(&ys)?, grad(&x)?, grad(&w)?])
        };
        let mut worst = Worst::none();
        for (i, (a, b)) in once()?.iter().zip(&once()?).enumerate() {
            worst.take(&format!("tensor {i}"), error(a, b)?);
        }
        Ok(worst)
    });
    report.row(&format!("conv2d {dtype:?} {math:?} deterministic: the same bits twice"), bits, 0.0);
    Ok(())
}

pub(crate) fn conv_f32(device: &Device, report: &mut Report) -> Result<()> {
    conv(device, report, DType::F32, Math::F32, 1e-4)
}

pub(crate) fn conv_tf32(device: &Device, report: &mut Report) -> Result<()> {
    conv(device, report, DType::F32, Math::Tf32, 2e-3)
}

pub(crate) fn conv_bf16(device: &Device, report: &mut Report) -> Result<()> {
    conv(device, report, DType::BF16, Math::F32, 1e-2)
}

pub(crate) fn pairwise(device: &Device, report: &mut Report) -> Result<()> {
    let scores = [(Score::Dot(0.5), cpu::Score::Dot(0.5)), (Score::Distance(0.4), cpu::Score::Distance(0.4))];
    let excludes = [
        (Exclude::Nothing, cpu::Exclude::Nothing),
        (Exclude::Own, cpu::Exclude::Own),
        (Exclude::Sample(32), cpu::Exclude::Sample(32)),
    ];
    for (n, d, block) in [(64, 5, 7), (96, 33, 0), (320, 17, 128)] {
        for (score, slow_score) in scores {
            for (exclude, slow_exclude) in excludes {
                // Near enough that the row itself does not outweigh all others.
                let xs = inputs(DType::F32, &[(draw(&[n, d], 23)? * 0.3)?]);
                let worst = versus(
                    device,
                    &xs,
                    |x| Ok(infomax_cuda::row_log_sum_exp_blocked(&x[0], score, exclude, block)?),
                    |x| Ok(reference::row_log_sum_exp(&x[0], slow_score, slow_exclude)?),
                );
                let at = format!("row_log_sum_exp {n}x{d} {score:?} {exclude:?} strips of {block}");
                report.row(&at, worst, 1e-4);
            }
        }
    }
    Ok(())
}
