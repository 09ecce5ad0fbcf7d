//! The layers of a ResNet-18 (CIFAR stem) one by one, beside the limits of this machine: 3x3 convolutions
//! forward, gradient of the input, gradient of the weight; batch norm with ReLU and residual sum. The peer is
//! `benches/peers/resnet_layers.py`.
//!
//! `cargo run --release -p infomax-kernels --example conv_layers [width batch]`

#![allow(clippy::print_stdout)]

use candle_core::{Device, Result, Tensor, Var};
use infomax_kernels::{
    Activation, Blocked, Conv2dConfig, MachineLimits, batch_norm_train, keep_freed_memory,
};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: infomax_kernels::LineAligned = infomax_kernels::LineAligned;

fn median<R>(mut f: impl FnMut() -> Result<R>) -> Result<f64> {
    f()?;
    let mut times = Vec::new();
    let begin = Instant::now();
    while times.len() < 7 || begin.elapsed().as_secs_f64() < 0.3 {
        let start = Instant::now();
        f()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn values(shape: &[usize]) -> Result<Tensor> {
    let n = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..n).map(|i| ((i * 7919 % 1009) as f32) / 1009.0 - 0.5).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

fn main() -> Result<()> {
    keep_freed_memory();
    let mut args = std::env::args().skip(1).filter_map(|a| a.parse().ok());
    let (width, batch) = (args.next().unwrap_or(64usize), args.next().unwrap_or(64usize));
    let limits = MachineLimits::measure();
    println!("limit of this machine, f32 arithmetic: {:.1} GFLOP/s", limits.gflops);
    println!("limit of this machine, memory: {:.1} GB/s", limits.gigabytes);
    // GFLOP/s count the products of the direct form; Winograd's form needs a quarter of them, and so may
    // pass the limit.
    for (c, k, side, stride) in [
        (3, width, 32, 1),
        (width, width, 32, 1),
        (width, 2 * width, 32, 2),
        (2 * width, 2 * width, 16, 1),
        (2 * width, 4 * width, 16, 2),
        (4 * width, 4 * width, 8, 1),
        (4 * width, 8 * width, 8, 2),
        (8 * width, 8 * width, 4, 1),
    ] {
        let cfg = Conv2dConfig { stride, padding: 1, ..Default::default() };
        let xs = Blocked::from_images(&values(&[batch, c, side, side])?)?;
        let out = side / stride;
        let grad = Blocked::from_images(&values(&[batch, k, out, out])?)?;
        let w = values(&[k, c, 3, 3])?;
        let gflop = 2e-9 * (batch * c * k * out * out * 9) as f64;
        let name = format!("conv 3x3/{stride} {c} to {k}, {side}x{side}, batch {batch}");
        let forward = median(|| Ok(xs.conv2d(&w, cfg)?))?;
        println!("{name}, forward: {:.1} GFLOP/s", gflop / forward);
        if c > 3 {
            let time = median(|| Ok(xs.conv2d_grads(&w, cfg, &grad, (true, false))?))?;
            println!("{name}, input gradient: {:.1} GFLOP/s", gflop / time);
        }
        let time = median(|| Ok(xs.conv2d_grads(&w, cfg, &grad, (false, true))?))?;
        println!("{name}, weight gradient: {:.1} GFLOP/s", gflop / time);
    }
    for (c, side) in [(width, 32), (2 * width, 16), (4 * width, 8), (8 * width, 4)] {
        let shape = [batch, c, side, side];
        let (xs, residual) = (Var::from_tensor(&values(&shape)?)?, Var::from_tensor(&values(&shape)?)?);
        let (scale, shift) = (Var::from_tensor(&values(&[c])?)?, Var::from_tensor(&values(&[c])?)?);
        let forward = || -> Result<Tensor> {
            let (scale, shift) = (Some(scale.as_tensor()), Some(shift.as_tensor()));
            let residual = Some(residual.as_tensor());
            Ok(batch_norm_train(&xs, scale, shift, residual, 1e-5, Activation::Relu)?.ys)
        };
        let name = format!("batch norm + add + relu {c}, {side}x{side}, batch {batch}");
        println!("{name}, forward: {:.3} ms", 1e3 * median(&forward)?);
        let both = median(|| forward()?.sum_all()?.backward())?;
        println!("{name}, forward and backward: {:.3} ms", 1e3 * both);
    }
    Ok(())
}
