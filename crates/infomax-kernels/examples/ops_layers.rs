//! Single layers beside the limits of this machine: layer norm, GELU, softmax, max pooling, attention, depthwise
//! convolution, forward and with the gradient of the input. The peer is `benches/peers/ops_layers.py`.
//!
//! `cargo run --release -p infomax-kernels --example ops_layers`

#![allow(clippy::print_stdout)]

use candle_core::{Device, Result, Tensor, Var};
use infomax_kernels::{
    AttentionConfig, Conv2dConfig, Elementwise, Pool2dConfig, attention, conv2d, depthwise_conv2d_last,
    elementwise, gelu, layer_norm, max_pool2d, softmax,
};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: infomax_kernels::LineAligned = infomax_kernels::LineAligned;

fn noise(shape: &[usize], seed: u64) -> Result<Tensor> {
    let mut state = seed;
    let values = (0..shape.iter().product::<usize>())
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect::<Vec<_>>();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

fn median(mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut times = Vec::new();
    let begin = Instant::now();
    while times.len() < 7 || begin.elapsed().as_secs_f64() < 0.7 {
        let start = Instant::now();
        f()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2] * 1e3)
}

/// Reads and writes of memory, in GB/s, by all threads: `a[i] = b[i] + c[i]` over 96 MiB.
fn bandwidth() -> f64 {
    use rayon::prelude::*;
    let (mut a, b, c) = (vec![0f32; 8 << 20], vec![1f32; 8 << 20], vec![2f32; 8 << 20]);
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let start = Instant::now();
        a.par_chunks_mut(1 << 16).zip(b.par_chunks(1 << 16)).zip(c.par_chunks(1 << 16)).for_each(
            |((a, b), c)| {
                for ((a, b), c) in a.iter_mut().zip(b).zip(c) {
                    *a = b + c;
                }
            },
        );
        best = best.min(start.elapsed().as_secs_f64());
    }
    std::hint::black_box(&a);
    (3 * 4 * a.len()) as f64 / best / 1e9
}

/// Multiplications and additions of f32, in GFLOP/s, of the product of two matrices that fit in the cache: what
/// arithmetic reaches here in practice.
fn arithmetic() -> Result<f64> {
    let (a, b) = (noise(&[1536, 1536], 1)?, noise(&[1536, 1536], 2)?);
    let time = median(|| a.matmul(&b).map(drop))?;
    Ok(2.0 * 1536f64.powi(3) / time / 1e6)
}

/// Prints the forward time, and that with backward, beside the limit of the forward pass.
fn report(name: &str, limit: f64, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<()> {
    let forward = median(|| f(inputs).map(drop))?;
    let vars: Vec<Var> = inputs.iter().map(Var::from_tensor).collect::<Result<_>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let both = median(|| f(&tensors)?.backward().map(drop))?;
    println!("{name} forward: {forward:.3} ms");
    println!("{name} forward + backward: {both:.3} ms");
    println!("  limit of the forward pass: {limit:.3} ms ({:.0} %)", 100.0 * limit / forward);
    Ok(())
}

fn main() -> Result<()> {
    infomax_kernels::keep_freed_memory();
    let (bandwidth, arithmetic) = (bandwidth(), arithmetic()?);
    println!("memory: {bandwidth:.1} GB/s; arithmetic: {arithmetic:.0} GFLOP/s");
    // A read and a write of each element.
    let moved = |elements: usize| (8 * elements) as f64 / bandwidth / 1e6;
    let computed = |gflop: f64| gflop / arithmetic * 1e3;

    let (rows, d) = (8320, 192);
    let x = [noise(&[rows, d], 1)?, noise(&[d], 2)?, noise(&[d], 3)?];
    report("layer norm 8320x192", moved(rows * d), &x, |t| {
        Ok(layer_norm(&t[0], Some(&t[1]), Some(&t[2]), 1e-6)?)
    })?;
    let x = [noise(&[rows, 4 * d], 1)?];
    report("gelu 8320x768", moved(rows * 4 * d), &x, |t| Ok(gelu(&t[0])?))?;
    // A copy: what Candle's own passes of `backward` cost at this size.
    let x = [noise(&[rows, 4 * d], 1)?];
    report("copy 8320x768", moved(rows * 4 * d), &x, |t| Ok(elementwise(&t[0], Elementwise::Identity)?))?;
    let x = [noise(&[4096, 1024], 1)?];
    report("softmax 4096x1024", moved(4096 * 1024), &x, |t| Ok(softmax(&t[0])?))?;
    let pool = Pool2dConfig { kernel: 3, stride: 2, padding: 1 };
    let x = [noise(&[8, 64, 112, 112], 1)?];
    report("max pool 3x3/2 8x64x112x112", moved(8 * 64 * 112 * 112 * 5 / 8), &x, |t| {
        Ok(max_pool2d(&t[0], pool)?)
    })?;
    for (b, h, n, d) in [(128, 3, 65, 64), (8, 12, 197, 64)] {
        let x = [1, 2, 3].map(|seed| noise(&[b, h, n, d], seed));
        let x = x.into_iter().collect::<Result<Vec<_>>>()?;
        let limit = computed(4e-9 * (b * h * n * n * d) as f64);
        report(&format!("attention {b}x{h}x{n}x{d}"), limit, &x, |t| {
            Ok(attention(&t[0], &t[1], &t[2], AttentionConfig::default())?)
        })?;
    }
    for (n, c, size) in [(8, 96, 56), (16, 384, 14)] {
        let limit = computed(2e-9 * (n * c * size * size * 49) as f64);
        let cfg = Conv2dConfig { padding: 3, groups: c, ..Default::default() };
        let (weight, bias) = (noise(&[c, 1, 7, 7], 2)?, noise(&[c], 3)?);
        let x = [noise(&[n, size, size, c], 1)?, weight.clone(), bias.clone()];
        report(&format!("depthwise 7x7 {n}x{c}x{size}x{size} channels last"), limit, &x, |t| {
            Ok(depthwise_conv2d_last(&t[0], &t[1], Some(&t[2]), cfg)?)
        })?;
        let x = [noise(&[n, c, size, size], 1)?, weight, bias];
        report(&format!("depthwise 7x7 {n}x{c}x{size}x{size} channels first"), limit, &x, |t| {
            Ok(conv2d(&t[0], &t[1], Some(&t[2]), cfg)?)
        })?;
    }
    Ok(())
}
