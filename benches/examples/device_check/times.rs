//! Times on the device: medians after a warm-up, synchronized.

use crate::compare::{Report, draw, guarded};
use crate::network::{Backend, ResNet, images, loss};
use anyhow::{Result, anyhow};
use candle_core::{DType, Device, Tensor, Var};
use infomax_core::{Context, Embeddings, Views};
use infomax_cuda::{
    Conv2dConfig, Exclude, Images, Math, Options, Score, Search, Sgd, Slot, batch_norm_train, conv2d,
    memory_use, reset_peak_memory, sgd_step,
};
use infomax_losses::ObjectiveConfig;
use std::time::{Duration, Instant};

/// The median time of one call in milliseconds: at least three calls, and about 0.4 seconds of them.
pub(crate) fn median<T>(device: &Device, mut f: impl FnMut() -> Result<T>) -> Result<f64> {
    let (mut times, start) = (Vec::new(), Instant::now());
    for i in 0..60 {
        device.synchronize()?;
        let began = Instant::now();
        drop(f()?);
        device.synchronize()?;
        // The first two load code and choose algorithms.
        if i >= 2 {
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        if times.len() >= 3 && start.elapsed() > Duration::from_millis(400) {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Prints one row of the table, or the failure.
pub(crate) fn row(report: &mut Report, name: &str, f: impl FnOnce() -> Result<String>) {
    match guarded(f) {
        Ok(text) => println!("TIME {name}: {text}"),
        Err(error) => report.failed(&format!("time of {name}"), &format!("{error:#}")),
    }
}

/// Numbers on the device, cheaply: a block of normal numbers, repeated with other factors.
pub(crate) fn random(device: &Device, shape: &[usize], dtype: DType) -> Result<Tensor> {
    const BLOCK: usize = 1 << 16;
    let count: usize = shape.iter().product();
    let repeats = count.div_ceil(BLOCK);
    let block = draw(&[1, BLOCK], 300)?.to_dtype(DType::F32)?.to_device(device)?;
    let factors = draw(&[repeats, 1], 301)?.to_dtype(DType::F32)?.to_device(device)?;
    let all = block.broadcast_mul(&factors)?.flatten_all()?.narrow(0, 0, count)?;
    Ok(all.to_dtype(dtype)?.reshape(shape)?.contiguous()?)
}

pub(crate) fn kernels(device: &Device, report: &mut Report) -> Result<()> {
    let n = 8192;
    for (name, dtype, reduced) in
        [("f32", DType::F32, false), ("tf32", DType::F32, true), ("bf16", DType::BF16, false)]
    {
        row(report, &format!("matmul {n}^3 {name}"), || {
            let (a, b) = (random(device, &[n, n], dtype)?, random(device, &[n, n], dtype)?);
            candle_core::cuda::set_gemm_reduced_precision_f32(reduced);
            let ms = median(device, || Ok(a.matmul(&b)?));
            candle_core::cuda::set_gemm_reduced_precision_f32(false);
            let ms = ms?;
            Ok(format!("{ms:.2} ms, {:.0} TFLOP/s", 2.0 * (n as f64).powi(3) / ms / 1e9))
        });
    }
    row(report, "copy of 1 GiB", || {
        let a = random(device, &[1 << 28], DType::F32)?;
        let ms = median(device, || Ok(a.copy()?))?;
        Ok(format!("{ms:.3} ms, {:.0} GB/s read and written", 2.0 * (1u64 << 30) as f64 / ms / 1e6))
    });
    let batch = 512;
    for (layer, [c, h, k, side, stride]) in [
        ("64 to 64, 3x3, 32x32", [64, 32, 64, 3, 1]),
        ("128 to 128, 3x3, 16x16", [128, 16, 128, 3, 1]),
        ("512 to 512, 3x3, 4x4", [512, 4, 512, 3, 1]),
    ] {
        for (name, math, dtype, images, search) in modes() {
            row(report, &format!("conv {layer}, batch {batch}, {name}"), || {
                let options = Options { math, search, images };
                let shape = match images {
                    Images::ChannelsFirst => [batch, c, h, h],
                    Images::ChannelsLast => [batch, h, h, c],
                };
                let xs = Var::from_tensor(&random(device, &shape, dtype)?)?;
                let weight = Var::from_tensor(&(random(device, &[k, c, side, side], dtype)? * 0.05)?)?;
                let cfg = Conv2dConfig { stride, padding: side / 2, ..Default::default() };
                let forward =
                    median(device, || Ok(conv2d(&xs.detach(), &weight.detach(), None, cfg, options)?))?;
                let all = median(device, || {
                    // The sum costs a pass; it is counted in.
                    Ok(conv2d(&xs, &weight, None, cfg, options)?.sum_all()?.backward()?)
                })?;
                let flops = 2.0 * (batch * h * h * k * c * side * side) as f64 / (stride * stride) as f64;
                Ok(format!(
                    "forward {forward:.2} ms ({:.0} TFLOP/s), with backward {all:.2} ms",
                    flops / forward / 1e9
                ))
            });
        }
    }
    for (name, shape, images, dtype) in [
        ("f32 first", [512, 64, 32, 32], Images::ChannelsFirst, DType::F32),
        ("f32 last", [512, 32, 32, 64], Images::ChannelsLast, DType::F32),
        ("bf16 last", [512, 32, 32, 64], Images::ChannelsLast, DType::BF16),
        ("f32 first, 512 channels of 4x4", [512, 512, 4, 4], Images::ChannelsFirst, DType::F32),
        ("f32 last, 512 channels of 4x4", [512, 4, 4, 512], Images::ChannelsLast, DType::F32),
    ] {
        row(report, &format!("batch norm, ReLU, residual, {shape:?} {name}"), || {
            let c = if images == Images::ChannelsFirst { shape[1] } else { shape[3] };
            let (xs, residual) = (random(device, &shape, dtype)?, random(device, &shape, dtype)?);
            let (xs, residual) = (Var::from_tensor(&xs)?, Var::from_tensor(&residual)?);
            let (w, b) = (Var::ones(c, DType::F32, device)?, Var::zeros(c, DType::F32, device)?);
            let run = |x: &Tensor, r: &Tensor, w: &Tensor, b: &Tensor| -> Result<Tensor> {
                Ok(batch_norm_train(x, Some(w), Some(b), Some(r), 1e-5, true, images)?.ys)
            };
            let forward = median(device, || run(&xs.detach(), &residual.detach(), &w.detach(), &b.detach()))?;
            let all = median(device, || Ok(run(&xs, &residual, &w, &b)?.sum_all()?.backward()?))?;
            // The input twice, the residual and the result once each.
            let bytes = 4.0 * (shape.iter().product::<usize>() * dtype.size_in_bytes()) as f64;
            Ok(format!(
                "forward {forward:.3} ms ({:.0} GB/s), with backward and Candle's sums {all:.3} ms",
                bytes / forward / 1e6
            ))
        });
    }
    Ok(())
}

/// Names and settings of the convolutions that are timed.
fn modes() -> Vec<(String, Math, DType, Images, Search)> {
    let mut all = Vec::new();
    for (name, math, dtype) in
        [("f32", Math::F32, DType::F32), ("tf32", Math::Tf32, DType::F32), ("bf16", Math::Tf32, DType::BF16)]
    {
        for (order, images) in [("first", Images::ChannelsFirst), ("last", Images::ChannelsLast)] {
            for (how, search) in [("fixed", Search::Deterministic), ("measured", Search::Measured)] {
                all.push((format!("{name} {order} {how}"), math, dtype, images, search));
            }
        }
    }
    all
}

/// The time of one step of stochastic gradient descent, images included, optimizer included.
fn step_time(device: &Device, net: &ResNet, batch: usize, backend: Backend) -> Result<String> {
    let xs = images(device, [batch, 32, 32], backend)?;
    let momenta = net.parameters().iter().map(|p| Ok(p.zeros_like()?)).collect::<Result<Vec<_>>>()?;
    let step = || -> Result<()> {
        let grads = loss(&net.forward(&xs, backend)?)?.backward()?;
        let parameters = net.parameters();
        let mut slots = Vec::with_capacity(parameters.len());
        for (p, m) in parameters.into_iter().zip(&momenta) {
            let grad = grads.get(p).ok_or_else(|| anyhow!("a parameter without a gradient"))?;
            let (decay, scale) = (1e-4, 1.0);
            slots.push(Slot { param: p, grad, first: m, second: None, decay, scale, step: 1 });
        }
        Ok(sgd_step(&slots, Sgd { lr: 1e-3, momentum: 0.9, nesterov: false })?)
    };
    reset_peak_memory(device)?;
    let forward = median(device, || net.forward(&xs, backend))?;
    let ms = median(device, step)?;
    let peak = memory_use(device)?.peak as f64 / 1e9;
    // The host alone: how long it takes to submit a step, without waiting for the device.
    device.synchronize()?;
    let began = Instant::now();
    step()?;
    let submitted = began.elapsed().as_secs_f64() * 1e3;
    device.synchronize()?;
    Ok(format!(
        "{ms:.1} ms a step ({:.0} images/s), forward {forward:.1} ms, submitted in {submitted:.1} ms, peak {peak:.2} GB",
        batch as f64 / ms * 1e3
    ))
}

pub(crate) fn steps(device: &Device, report: &mut Report) -> Result<()> {
    let batch = 512;
    let net = ResNet::new(device, 64)?;
    for (name, math, dtype, order, search) in modes() {
        row(report, &format!("ResNet-18 step, 32x32, batch {batch}, {name}"), || {
            step_time(device, &net, batch, Backend::Cuda(Options { math, search, images: order }, dtype))
        });
    }
    for (name, math, dtype, order, search) in modes() {
        if order == Images::ChannelsLast || dtype == DType::F32 && math == Math::Tf32 {
            row(report, &format!("ResNet-18 step, 32x32, batch {batch}, {name}, fused"), || {
                step_time(device, &net, batch, Backend::Fused(Options { math, search, images: order }, dtype))
            });
        }
    }
    row(report, "VICReg loss, n 4096, d 8192, forward and backward, f32", || {
        let objective = ObjectiveConfig::named("vicreg")?.build()?;
        let make = |_| Ok(Var::from_tensor(&random(device, &[4096, 8192], DType::F32)?)?);
        let views = (0..2).map(make).collect::<Result<Vec<Var>>>()?;
        reset_peak_memory(device)?;
        let ms = median(device, || {
            let views = Views::new(views.iter().map(|v| v.as_tensor().clone()).collect())?;
            let report = objective.evaluate(&Embeddings::new(views), &Context::standalone())?;
            Ok(report.total.backward()?)
        })?;
        Ok(format!("{ms:.2} ms, peak {:.2} GB", memory_use(device)?.peak as f64 / 1e9))
    });
    let (n, d, t) = (16384, 128, 0.5);
    row(report, &format!("NT-Xent, n {n}, d {d}, forward and backward, f32, streamed"), || {
        let rows = Var::from_tensor(&random(device, &[n, d], DType::F32)?)?;
        reset_peak_memory(device)?;
        let ms = median(device, || {
            let z = infomax_cuda::l2_normalize(&rows, 1e-8)?;
            let half = n / 2;
            let (a, b) = (z.narrow(0, 0, half)?, z.narrow(0, half, half)?);
            let along = ((a * b)?.sum_all()? * (2.0 / (n as f64 * t)))?;
            let logs = infomax_cuda::row_log_sum_exp(&z, Score::Dot(1.0 / t), Exclude::Own)?;
            Ok((logs.mean_all()? - along)?.backward()?)
        })?;
        Ok(format!("{ms:.2} ms, peak {:.2} GB", memory_use(device)?.peak as f64 / 1e9))
    });
    row(
        report,
        &format!("ResNet-18 step, 32x32, batch {batch}, bf16 last measured, fused, without events"),
        || {
            infomax_cuda::stop_tracking_events(device)?;
            let options =
                Options { math: Math::Tf32, search: Search::Measured, images: Images::ChannelsLast };
            step_time(device, &ResNet::new(device, 64)?, batch, Backend::Fused(options, DType::BF16))
        },
    );
    Ok(())
}
