//! One SGD step of a vision transformer and of ConvNeXts: images per second, and the peak of memory. The peer is
//! `benches/peers/vision_step.py`.
//!
//! `cargo run --release -p infomax-models --example vision_step [--bf16] [part of a name]`

#![allow(clippy::print_stdout)]

use candle_core::{CpuStorage, DType, Device, InplaceOp2, Layout, Tensor, bail};
use infomax_core::{Encoder, Init, Key, ParamKind, Params, Pass};
use infomax_kernels::{CpuProducts, Single, cross_entropy, linear};
use infomax_models::{ConvNext, ConvNextConfig, Vit, VitConfig};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: infomax_kernels::LineAligned = infomax_kernels::LineAligned;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// `x -= rate * g` where it lies, as an optimizer does it.
struct Descend(f32);

impl InplaceOp2 for Descend {
    fn name(&self) -> &'static str {
        "descend"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        lx: &Layout,
        g: &CpuStorage,
        lg: &Layout,
    ) -> candle_core::Result<()> {
        let ranges = (lx.contiguous_offsets(), lg.contiguous_offsets());
        let (CpuStorage::F32(x), CpuStorage::F32(g), (Some(own), Some(other))) = (x, g, ranges) else {
            bail!("contiguous f32 only");
        };
        for (x, g) in x[own.0..own.1].iter_mut().zip(&g[other.0..other.1]) {
            *x -= self.0 * g;
        }
        Ok(())
    }
}

/// The largest resident memory of this process so far, in MiB, where the system tells.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}

fn measure(
    name: &str,
    precision: &str,
    images: (usize, usize, usize),
    build: impl Fn(&Params) -> Outcome<Box<dyn Encoder>>,
) -> Outcome<()> {
    let (batch, channels, size) = images;
    let before = peak_memory();
    let params = Params::new(DType::F32, &Device::Cpu, Key::new(0));
    let model = build(&params)?;
    let d = model.feature_dim();
    let head = params.root().pp("head");
    let weight = head.get("weight", (10, d), ParamKind::Weight, Init::Normal { mean: 0.0, std: 0.02 })?;
    let bias = head.get("bias", 10, ParamKind::Bias, Init::Const(0.0))?;
    let xs = Key::new(1).normal(0.0, 1.0, (batch, channels, size, size), DType::F32, &Device::Cpu)?;
    let labels: Vec<u32> = (0..batch as u32).map(|i| i % 10).collect();
    let (mut times, mut forwards) = (Vec::new(), Vec::new());
    let begin = Instant::now();
    while times.len() < 4 || begin.elapsed().as_secs_f64() < 8.0 {
        let start = Instant::now();
        let logits: Tensor = linear(&model.forward(&xs, &Pass::train(Key::new(0)))?, &weight, Some(&bias))?;
        let loss = cross_entropy(&logits, &labels, 0.0)?;
        forwards.push(start.elapsed().as_secs_f64());
        let grads = infomax_kernels::backward(&loss)?;
        for (name, param) in params.trainable() {
            let grad = grads.get(&param.var).ok_or_else(|| format!("{name} has no gradient"))?;
            param.var.inplace_op2(&grad.contiguous()?, &Descend(1e-3))?;
        }
        times.push(start.elapsed().as_secs_f64());
    }
    let median = |mut times: Vec<f64>| {
        // The first step maps the memory.
        times.remove(0);
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    };
    let (time, forward) = (median(times), median(forwards));
    println!("{name} batch {batch}{precision}: {:.2} images/s", batch as f64 / time);
    println!("  forward {:.0} ms of {:.0} ms", forward * 1e3, time * 1e3);
    if let (Some(before), Some(after)) = (before, peak_memory()) {
        println!("{name} batch {batch}{precision}, peak memory: {:.0} MiB", after - before);
    }
    Ok(())
}

/// What is built and trained for a name, with the batch, the channels and the side of its images.
struct Case {
    name: String,
    images: (usize, usize, usize),
    build: Build,
}

type Build = Box<dyn Fn(&Params) -> Outcome<Box<dyn Encoder>>>;

fn cases() -> Vec<Case> {
    let vit: Build = Box::new(|p| Ok(Box::new(Vit::new(&VitConfig::tiny(32, 4), p.root())?)));
    let mut cases = vec![Case { name: "vit-tiny 4/32".to_owned(), images: (128, 3, 32), build: vit }];
    // Stages of ConvNeXt-Tiny at 224x224 by themselves: a map of the channels, the blocks, the mean.
    for (count, width, size, batch) in [(3, 96, 56, 8), (3, 192, 28, 16), (9, 384, 14, 16), (3, 768, 7, 16)] {
        let build: Build = Box::new(move |p| {
            let (blocks, widths) = (vec![count], vec![width]);
            let cfg =
                ConvNextConfig { blocks, widths, patch: 1, in_channels: width, ..ConvNextConfig::tiny() };
            Ok(Box::new(ConvNext::new(&cfg, p.root())?))
        });
        let name = format!("convnext {count} blocks {width} {size}x{size}");
        cases.push(Case { name, images: (batch, width, size), build });
    }
    let whole: Build = Box::new(|p| Ok(Box::new(ConvNext::new(&ConvNextConfig::default(), p.root())?)));
    cases.push(Case { name: "convnext-tiny 224".to_owned(), images: (8, 3, 224), build: whole });
    cases
}

fn main() -> Outcome<()> {
    infomax_kernels::keep_freed_memory();
    let bf16 = std::env::args().any(|a| a == "--bf16");
    if bf16 {
        let choice = CpuProducts { single: Single::Rounded, ..CpuProducts::default() };
        if let Some(why) = choice.why_exact() {
            println!("products stay f32: {why}");
        }
        choice.apply()?;
    }
    let wanted = std::env::args().skip(1).find(|a| !a.starts_with('-')).unwrap_or_default();
    let cases: Vec<_> = cases().into_iter().filter(|case| case.name.contains(&wanted)).collect();
    if let [case] = &cases[..] {
        return measure(&case.name, if bf16 { " bf16" } else { "" }, case.images, &case.build);
    }
    // A process for each case, so that the peak of memory is its own.
    for case in cases {
        let status = std::process::Command::new(std::env::current_exe()?)
            .arg(&case.name)
            .args(bf16.then_some("--bf16"))
            .status()?;
        if !status.success() {
            return Err(format!("{}: {status}", case.name).into());
        }
    }
    Ok(())
}
