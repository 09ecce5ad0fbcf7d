//! ResNet-18 for small images, of the operations of this crate or of the composed reference.

use crate::compare::draw;
use anyhow::Result;
use candle_core::{DType, Device, Tensor, Var};
use infomax_cuda::{
    Conv2dConfig, Images, Options, batch_norm_train, conv_norm_train, conv2d, global_avg_pool,
};
use infomax_kernels::{Activation, reference};

/// What computes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Backend {
    /// The operations of this crate, on feature maps of a type.
    Cuda(Options, DType),
    /// The same with each convolution and its norm as one operation.
    Fused(Options, DType),
    /// The composed reference; images have their channels first.
    Reference,
}

/// A convolution and its norm.
#[derive(Debug)]
struct Layer {
    weight: Var,
    scale: Var,
    shift: Var,
    stride: usize,
}

/// The network; all parameters are f32 on a CUDA device, f64 on the CPU.
#[derive(Debug)]
pub(crate) struct ResNet {
    stem: Layer,
    blocks: Vec<(Layer, Layer, Option<Layer>)>,
}

impl Layer {
    fn new(
        device: &Device,
        inputs: usize,
        outputs: usize,
        side: usize,
        stride: usize,
        seed: u64,
    ) -> Result<Self> {
        let dtype = if device.is_cuda() { DType::F32 } else { DType::F64 };
        let std = (2.0 / (outputs * side * side) as f64).sqrt();
        // Rounded to f32 for both.
        let weight =
            (draw(&[outputs, inputs, side, side], seed)? * std)?.to_dtype(DType::F32)?.to_dtype(dtype)?;
        Ok(Self {
            weight: Var::from_tensor(&weight.to_device(device)?)?,
            scale: Var::ones(outputs, dtype, device)?,
            shift: Var::zeros(outputs, dtype, device)?,
            stride,
        })
    }

    fn forward(
        &self,
        xs: &Tensor,
        residual: Option<&Tensor>,
        relu: bool,
        backend: Backend,
    ) -> Result<Tensor> {
        let padding = self.weight.dim(2)? / 2;
        let cfg = Conv2dConfig { stride: self.stride, padding, ..Default::default() };
        match backend {
            Backend::Cuda(options, dtype) => {
                let weight = match dtype {
                    DType::F32 => self.weight.as_tensor().clone(),
                    other => self.weight.to_dtype(other)?,
                };
                let ys = conv2d(xs, &weight, None, cfg, options)?;
                let (scale, shift) = (Some(self.scale.as_tensor()), Some(self.shift.as_tensor()));
                Ok(batch_norm_train(&ys, scale, shift, residual, 1e-5, relu, options.images)?.ys)
            }
            Backend::Fused(options, _) => {
                let (weight, scale, shift) = (&self.weight, &self.scale, &self.shift);
                Ok(conv_norm_train(xs, weight, scale, shift, residual, cfg, 1e-5, relu, options)?.ys)
            }
            Backend::Reference => {
                let cfg =
                    infomax_kernels::Conv2dConfig { stride: self.stride, padding, ..Default::default() };
                let ys = reference::conv2d(xs, &self.weight, None, cfg)?;
                let (scale, shift) = (Some(self.scale.as_tensor()), Some(self.shift.as_tensor()));
                let act = if relu { Activation::Relu } else { Activation::None };
                Ok(reference::batch_norm_train(&ys, scale, shift, residual, 1e-5, act)?.ys)
            }
        }
    }
}

impl ResNet {
    /// The standard network has the width 64.
    pub(crate) fn new(device: &Device, width: usize) -> Result<Self> {
        let stem = Layer::new(device, 3, width, 3, 1, 100)?;
        let (mut blocks, mut inputs, mut seed) = (Vec::new(), width, 101);
        for stage in 0..4 {
            for j in 0..2 {
                let (outputs, stride) = (width << stage, if stage > 0 && j == 0 { 2 } else { 1 });
                let first = Layer::new(device, inputs, outputs, 3, stride, seed)?;
                let second = Layer::new(device, outputs, outputs, 3, 1, seed + 1)?;
                let projected = stride != 1 || inputs != outputs;
                let shortcut = projected
                    .then(|| Layer::new(device, inputs, outputs, 1, stride, seed + 2))
                    .transpose()?;
                blocks.push((first, second, shortcut));
                (inputs, seed) = (outputs, seed + 3);
            }
        }
        Ok(Self { stem, blocks })
    }

    /// Features `(N, D)` of images.
    pub(crate) fn forward(&self, xs: &Tensor, backend: Backend) -> Result<Tensor> {
        let mut ys = self.stem.forward(xs, None, true, backend)?;
        for (first, second, shortcut) in &self.blocks {
            let way = match shortcut {
                Some(layer) => layer.forward(&ys, None, false, backend)?,
                None => ys.clone(),
            };
            let inner = first.forward(&ys, None, true, backend)?;
            ys = second.forward(&inner, Some(&way), true, backend)?;
        }
        Ok(match backend {
            Backend::Cuda(options, _) | Backend::Fused(options, _) => global_avg_pool(&ys, options.images)?,
            Backend::Reference => reference::global_avg_pool(&ys)?,
        })
    }

    /// All parameters, in a fixed order.
    pub(crate) fn parameters(&self) -> Vec<&Var> {
        let blocks = self.blocks.iter().flat_map(|(a, b, c)| [Some(a), Some(b), c.as_ref()]).flatten();
        std::iter::once(&self.stem).chain(blocks).flat_map(|l| [&l.weight, &l.scale, &l.shift]).collect()
    }
}

/// Images in the order and type of a backend.
pub(crate) fn images(device: &Device, [n, h, w]: [usize; 3], backend: Backend) -> Result<Tensor> {
    let xs = draw(&[n, 3, h, w], 99)?.to_dtype(DType::F32)?;
    Ok(match backend {
        Backend::Cuda(options, dtype) | Backend::Fused(options, dtype) => {
            let xs = xs.to_device(device)?;
            let xs = match options.images {
                Images::ChannelsFirst => xs,
                Images::ChannelsLast => xs.permute((0, 2, 3, 1))?.contiguous()?,
            };
            xs.to_dtype(dtype)?
        }
        Backend::Reference => xs.to_dtype(DType::F64)?,
    })
}

/// The loss of a step: the mean square of the features after a fixed projection, which no norm makes constant.
pub(crate) fn loss(features: &Tensor) -> Result<Tensor> {
    let wide =
        if features.dtype() == DType::BF16 { features.to_dtype(DType::F32)? } else { features.clone() };
    Ok(wide.sqr()?.mean_all()?)
}
