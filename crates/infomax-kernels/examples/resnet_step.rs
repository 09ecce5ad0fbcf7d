//! One SGD step of a ResNet-18 (CIFAR stem, 32x32) built from the functions of this crate, in images per
//! second. The peer is `benches/peers/resnet_step.py`.
//!
//! `cargo run --release -p infomax-kernels --example resnet_step [width batch]`

#![allow(clippy::print_stdout)]

use candle_core::{Device, Result, Tensor, Var, backprop::GradStore};
use infomax_kernels::{
    Activation, Conv2dConfig, batch_norm_train, conv2d, cross_entropy, global_avg_pool, linear,
};
use std::time::Instant;

/// A convolution and its batch norm.
struct ConvNorm {
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

impl ConvNorm {
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

    fn forward(&self, xs: &Tensor, residual: Option<&Tensor>, act: Activation) -> Result<Tensor> {
        let ys = conv2d(xs, &self.weight, None, self.cfg)?;
        Ok(batch_norm_train(&ys, Some(&self.scale), Some(&self.shift), residual, 1e-5, act)?.ys)
    }

    fn vars(&self) -> [&Var; 3] {
        [&self.weight, &self.scale, &self.shift]
    }
}

struct Block {
    first: ConvNorm,
    second: ConvNorm,
    short: Option<ConvNorm>,
}

struct ResNet18 {
    stem: ConvNorm,
    blocks: Vec<Block>,
    weight: Var,
    bias: Var,
}

impl ResNet18 {
    fn new(width: usize) -> Result<Self> {
        let mut blocks = Vec::new();
        let mut c = width;
        for i in 0..4 {
            let (k, stride) = (width << i, if i == 0 { 1 } else { 2 });
            for (c, stride) in [(c, stride), (k, 1)] {
                let short = if c != k { Some(ConvNorm::new(c, k, 1, stride)?) } else { None };
                let (first, second) = (ConvNorm::new(c, k, 3, stride)?, ConvNorm::new(k, k, 3, 1)?);
                blocks.push(Block { first, second, short });
            }
            c = k;
        }
        let weight = Var::from_tensor(&noise(&[10, c], 0.05, 1)?)?;
        let bias = Var::from_tensor(&noise(&[10], 0.05, 2)?)?;
        Ok(Self { stem: ConvNorm::new(3, width, 3, 1)?, blocks, weight, bias })
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let mut xs = self.stem.forward(xs, None, Activation::Relu)?;
        for block in &self.blocks {
            let ys = block.first.forward(&xs, None, Activation::Relu)?;
            let residual = match &block.short {
                Some(short) => short.forward(&xs, None, Activation::None)?,
                None => xs,
            };
            xs = block.second.forward(&ys, Some(&residual), Activation::Relu)?;
        }
        Ok(linear(&global_avg_pool(&xs)?, &self.weight, Some(&self.bias))?)
    }

    fn step(&self, grads: &GradStore, lr: f64) -> Result<()> {
        let update = |var: &Var| -> Result<()> {
            match grads.get(var) {
                Some(grad) => var.set(&(var.as_tensor() - (grad * lr)?)?),
                None => candle_core::bail!("a parameter without gradient"),
            }
        };
        let convs = self.blocks.iter().flat_map(|b| [&b.first, &b.second].into_iter().chain(&b.short));
        for conv in std::iter::once(&self.stem).chain(convs) {
            conv.vars().into_iter().try_for_each(update)?;
        }
        [&self.weight, &self.bias].into_iter().try_for_each(update)
    }
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1).filter_map(|a| a.parse().ok());
    let cases = match (args.next(), args.next()) {
        (Some(width), Some(batch)) => vec![(width, batch)],
        _ => vec![(16, 256), (64, 64)],
    };
    for (width, batch) in cases {
        let model = ResNet18::new(width)?;
        let xs = noise(&[batch, 3, 32, 32], 1.0, 7)?;
        let labels: Vec<u32> = (0..batch as u32).map(|i| i % 10).collect();
        let (mut times, mut forwards) = (Vec::new(), Vec::new());
        let begin = Instant::now();
        while times.len() < 4 || begin.elapsed().as_secs_f64() < 5.0 {
            let start = Instant::now();
            let loss = cross_entropy(&model.forward(&xs)?, &labels, 0.0)?;
            forwards.push(start.elapsed().as_secs_f64());
            let grads = loss.backward()?;
            model.step(&grads, 1e-3)?;
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        forwards.sort_by(f64::total_cmp);
        let (time, forward) = (times[times.len() / 2], forwards[forwards.len() / 2]);
        println!(
            "resnet18 width {width} batch {batch}: {:.1} images/s (forward {:.0} ms of {:.0} ms)",
            batch as f64 / time,
            forward * 1e3,
            time * 1e3
        );
    }
    Ok(())
}
