//! The 3x3 convolutions of a ResNet-18, layer by layer: GFLOP/s forward, input gradient, weight gradient.
//!
//! `cargo run --release -p infomax-kernels --example conv_layers [width] [batch]`

#![allow(clippy::print_stdout)]

use candle_core::{Device, Result, Tensor, Var};
use infomax_kernels::{Conv2dConfig, conv2d};
use std::time::Instant;

fn median(mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut times = Vec::new();
    let begin = Instant::now();
    while times.len() < 5 || begin.elapsed().as_secs_f64() < 0.3 {
        let start = Instant::now();
        f()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).filter_map(|a| a.parse().ok());
    let (width, batch) = (args.next().unwrap_or(16usize), args.next().unwrap_or(256usize));
    let device = Device::Cpu;
    for (c, k, size, kernel, stride) in [
        (3, width, 32, 3, 1),
        (width, width, 32, 3, 1),
        (width, 2 * width, 32, 3, 2),
        (width, 2 * width, 32, 1, 2),
        (2 * width, 2 * width, 16, 3, 1),
        (2 * width, 4 * width, 16, 3, 2),
        (4 * width, 4 * width, 8, 3, 1),
        (8 * width, 8 * width, 4, 3, 1),
    ] {
        let values = |n: usize| (0..n).map(|i| ((i * 7919 % 1009) as f32) / 1009.0 - 0.5).collect::<Vec<_>>();
        let x = Tensor::from_vec(values(batch * c * size * size), (batch, c, size, size), &device)?;
        let w = Tensor::from_vec(values(k * c * kernel * kernel), (k, c, kernel, kernel), &device)?;
        let cfg = Conv2dConfig { stride, padding: kernel / 2, ..Default::default() };
        let forward = median(|| conv2d(&x, &w, None, cfg).map(drop).map_err(Into::into))?;
        let backward = |x: &Tensor, w: &Tensor| -> Result<f64> {
            // The sum's own gradient costs a pass over the output, the same in both.
            median(|| conv2d(x, w, None, cfg)?.sum_all()?.backward().map(drop))
        };
        let vx = Var::from_tensor(&x)?;
        let vw = Var::from_tensor(&w)?;
        let (dx, dw) = (backward(&vx, &w)?, backward(&x, &vw)?);
        let pixels = size / stride;
        let gflop = 2e-9 * (batch * c * k * pixels * pixels * kernel * kernel) as f64;
        println!(
            "{c:4} -> {k:4} {size:2}x{size:<2} {kernel}x{kernel}/{stride}: {gflop:6.2} GFLOP; forward {:6.1} ms {:6.1} GF/s; forward + input gradient {:6.1} ms; + weight gradient {:6.1} ms",
            forward * 1e3,
            gflop / forward,
            dx * 1e3,
            dw * 1e3,
        );
    }
    Ok(())
}
