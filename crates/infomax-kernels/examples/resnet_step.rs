//! One SGD step of a residual network built from the functions of this crate: images per second, and the peak
//! memory of the process. The peer is `benches/peers/resnet_step.py`.
//!
//! `cargo run --release -p infomax-kernels --example resnet_step [depth width batch side] [--modes f32,bf16]`

#![allow(clippy::print_stdout)]

use candle_core::{Device, Result, Tensor, Var, backprop::GradStore};
use infomax_kernels::{
    Blocked, Conv2dConfig, ConvNorm, Pool2dConfig, ResidualUnit, Shortcut, cross_entropy, keep_freed_memory,
    linear,
};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: infomax_kernels::LineAligned = infomax_kernels::LineAligned;

/// A convolution and its batch norm.
struct Layer {
    weight: Var,
    scale: Var,
    shift: Var,
    cfg: Conv2dConfig,
}

fn noise(shape: &[usize], scale: f32, seed: u64) -> Result<Tensor> {
    let mut state = seed;
    let values = (0..shape.iter().product::<usize>())
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
        })
        .collect::<Vec<_>>();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

impl Layer {
    fn new(c: usize, k: usize, kernel: usize, stride: usize) -> Result<Self> {
        let scale = (6.0 / (c * kernel * kernel) as f32).sqrt();
        let ones = Tensor::ones(k, candle_core::DType::F32, &Device::Cpu)?;
        Ok(Self {
            weight: Var::from_tensor(&noise(&[k, c, kernel, kernel], scale, (c * k + kernel) as u64)?)?,
            scale: Var::from_tensor(&ones)?,
            shift: Var::from_tensor(&ones.zeros_like()?)?,
            cfg: Conv2dConfig { stride, padding: kernel / 2, ..Default::default() },
        })
    }

    fn part(&self) -> ConvNorm<'_> {
        ConvNorm { weight: &self.weight, scale: &self.scale, shift: &self.shift, cfg: self.cfg, stats: None }
    }
}

struct Block {
    branch: Vec<Layer>,
    short: Option<Layer>,
}

struct ResNet {
    stem: Layer,
    pool: bool,
    blocks: Vec<Block>,
    weight: Var,
    bias: Var,
}

impl ResNet {
    fn new(depth: usize, width: usize, side: usize) -> Result<Self> {
        let (expansion, stages) = if depth == 50 { (4, [3, 4, 6, 3]) } else { (1, [2, 2, 2, 2]) };
        let mut blocks = Vec::new();
        let mut c = width;
        for (i, count) in stages.into_iter().enumerate() {
            let (planes, k) = (width << i, (width << i) * expansion);
            for j in 0..count {
                let stride = if i > 0 && j == 0 { 2 } else { 1 };
                let short = if c != k || stride != 1 { Some(Layer::new(c, k, 1, stride)?) } else { None };
                let branch = if expansion == 1 {
                    vec![Layer::new(c, k, 3, stride)?, Layer::new(k, k, 3, 1)?]
                } else {
                    vec![
                        Layer::new(c, planes, 1, 1)?,
                        Layer::new(planes, planes, 3, stride)?,
                        Layer::new(planes, k, 1, 1)?,
                    ]
                };
                blocks.push(Block { branch, short });
                c = k;
            }
        }
        let weight = Var::from_tensor(&noise(&[10, c], 0.05, 1)?)?;
        let bias = Var::from_tensor(&noise(&[10], 0.05, 2)?)?;
        let pool = side > 64;
        let stem = if pool { Layer::new(3, width, 7, 2)? } else { Layer::new(3, width, 3, 1)? };
        Ok(Self { stem, pool, blocks, weight, bias })
    }

    fn forward(&self, xs: &Tensor, mode: Mode) -> Result<Tensor> {
        const EPS: f64 = 1e-5;
        let mut xs = match mode {
            Mode::F32 => Blocked::from_images(xs)?,
            Mode::Bf16 => Blocked::from_images_bf16(xs)?,
        };
        let mut units = vec![ResidualUnit { branch: vec![self.stem.part()], shortcut: Shortcut::None }];
        if self.pool {
            xs =
                xs.residual(&units, EPS)?.ys.max_pool2d(Pool2dConfig { kernel: 3, stride: 2, padding: 1 })?;
            units.clear();
        }
        units.extend(self.blocks.iter().map(|block| ResidualUnit {
            branch: block.branch.iter().map(Layer::part).collect(),
            shortcut: match &block.short {
                Some(short) => Shortcut::Projection(short.part()),
                None => Shortcut::Identity,
            },
        }));
        let ys = xs.residual(&units, EPS)?.ys;
        Ok(linear(&ys.global_avg_pool()?, &self.weight, Some(&self.bias))?)
    }

    fn step(&self, grads: &GradStore, lr: f64) -> Result<()> {
        let update = |var: &Var| -> Result<()> {
            match grads.get(var) {
                Some(grad) => var.set(&(var.as_tensor() - (grad * lr)?)?),
                None => candle_core::bail!("a parameter without gradient"),
            }
        };
        let layers = self.blocks.iter().flat_map(|b| b.branch.iter().chain(&b.short));
        for layer in std::iter::once(&self.stem).chain(layers) {
            [&layer.weight, &layer.scale, &layer.shift].into_iter().try_for_each(update)?;
        }
        [&self.weight, &self.bias].into_iter().try_for_each(update)
    }
}

/// The largest resident memory of this process so far, in MiB, where the system tells.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}

/// How feature maps are stored; parameters are f32 either way.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    F32,
    Bf16,
}

impl Mode {
    fn of(name: &str) -> Result<Self> {
        match name {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            other => candle_core::bail!("a mode is f32 or bf16, not {other}"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

fn main() -> Result<()> {
    keep_freed_memory();
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let mut modes = vec![Mode::F32, Mode::Bf16];
    if let Some(at) = args.iter().position(|a| a == "--modes") {
        let names = args.drain(at..).nth(1).unwrap_or_default();
        modes = names.split(',').map(Mode::of).collect::<Result<_>>()?;
    }
    let args: Vec<usize> = args.iter().filter_map(|a| a.parse().ok()).collect();
    let cases = match args[..] {
        [depth, width, batch, side] => vec![[depth, width, batch, side]],
        _ => vec![[18, 64, 64, 32], [18, 16, 512, 32], [50, 64, 8, 224]],
    };
    if let ([case], [mode]) = (&cases[..], &modes[..]) {
        return measure(*case, *mode);
    }
    // A process for each case, so that the peak of memory is its own.
    for case in cases {
        for mode in &modes {
            let args = case.map(|x| x.to_string());
            let mut child = std::process::Command::new(std::env::current_exe()?);
            child.args(args).args(["--modes", mode.name()]).status()?;
        }
    }
    Ok(())
}

fn measure([depth, width, batch, side]: [usize; 4], mode: Mode) -> Result<()> {
    let before = peak_memory();
    let model = ResNet::new(depth, width, side)?;
    let xs = noise(&[batch, 3, side, side], 1.0, 7)?;
    let labels: Vec<u32> = (0..batch as u32).map(|i| i % 10).collect();
    let (mut times, mut forwards) = (Vec::new(), Vec::new());
    let begin = Instant::now();
    while times.len() < 5 || begin.elapsed().as_secs_f64() < 5.0 {
        let start = Instant::now();
        let loss = cross_entropy(&model.forward(&xs, mode)?, &labels, 0.0)?;
        forwards.push(start.elapsed().as_secs_f64());
        let grads = infomax_kernels::backward(&loss)?;
        model.step(&grads, 1e-3)?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    forwards.sort_by(f64::total_cmp);
    let (time, forward) = (times[times.len() / 2], forwards[forwards.len() / 2]);
    let name = format!("resnet{depth} width {width} batch {batch} {side}x{side}");
    let rate = batch as f64 / time;
    let (what, tag) = match mode {
        Mode::F32 => ("best f32", ""),
        Mode::Bf16 => ("bf16", " bf16"),
    };
    println!("{name}, {what}: {rate:.1} images/s");
    println!("{name}, forward alone{tag}: {:.1} images/s", batch as f64 / forward);
    if let (Some(before), Some(after)) = (before, peak_memory()) {
        println!("{name}, peak memory{tag}: {:.0} MiB", after - before);
    }
    Ok(())
}
