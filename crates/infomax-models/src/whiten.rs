//! A first layer that whitens patches.

use crate::{Error, Result, Scope};
use candle_core::{D, DType, Device, Tensor, Var};
use infomax_core::{Init, ParamKind, Params};
use infomax_kernels::{Conv2dConfig, relu};

/// The side of the patches, in pixels, as in the networks of Jordan ("94% on CIFAR-10 in 3.29 seconds", arXiv:2404.00498).
const SIDE: usize = 2;

/// Added to the eigenvalues of the covariance, as there.
const EPS: f64 = 5e-4;

/// `relu(W p + b)` of each patch `p` of 2x2 pixels: `(N, C, H, W)` to `(N, 8 C, H - 1, W - 1)`.
///
/// The first half of the outputs are the coordinates of the patch in the basis of the eigenvectors of the covariance of
/// patches, less their mean, over the square root of their eigenvalues; the second half are the same with the other
/// sign, so that the ReLU loses nothing. Parameters: `weight` `(8 C, C, 2, 2)`, `bias` `(8 C)`, buffers unless the layer
/// is trained. They start at random; [`whiten_stem`] sets them.
#[derive(Clone, Debug)]
pub(crate) struct Whiten {
    name: String,
    weight: Var,
    bias: Var,
    trained: bool,
}

impl Whiten {
    /// The number of outputs for images of so many channels.
    pub(crate) fn outputs(channels: usize) -> usize {
        2 * channels * SIDE * SIDE
    }

    pub(crate) fn new(channels: usize, trained: bool, scope: Scope) -> Result<Self> {
        let kind = |kind| if trained { kind } else { ParamKind::Buffer };
        let outputs = Self::outputs(channels);
        let init = Init::Normal { mean: 0.0, std: ((channels * SIDE * SIDE) as f64).sqrt().recip() };
        let shape = (outputs, channels, SIDE, SIDE);
        let weight = scope.get("weight", shape, kind(ParamKind::Weight), init)?;
        let bias = scope.get("bias", outputs, kind(ParamKind::Bias), Init::Const(0.0))?;
        Ok(Self { name: scope.name(), weight, bias, trained })
    }

    pub(crate) fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let [weight, bias] = [&self.weight, &self.bias].map(|var| match self.trained {
            true => var.as_tensor().clone(),
            // Nothing flows to what is frozen.
            false => var.as_detached_tensor(),
        });
        infomax_kernels::conv2d(xs, &weight, Some(&bias), Conv2dConfig::default())
            .and_then(|ys| relu(&ys))
            .map_err(Error::kernel(&self.name))
    }
}

/// Sets the whitening stem of an encoder below `prefix` (for example `encoder`) from images `(N, C, H, W)`, normalized
/// as in training; where there is a teacher (`teacher.PREFIX`), its stem too. `false` if the encoder has none.
///
/// With the mean `m` and the covariance `S = V diag(s) V^T` of all patches of 2x2 pixels, centered, in f64, the rows are
/// `w_i = v_i / sqrt(s_i + 5e-4)` and `b_i = -w_i m`, the largest eigenvalue first, then all `-w_i`, `-b_i`. The sign of
/// an eigenvector is that which makes its largest component positive, so that equal images give equal weights.
/// Before the ReLU the first half has the mean 0 and the covariance `diag(s / (s + 5e-4))`, the identity where patches
/// vary.
///
/// # Errors
/// Images of other channels, below 2x2 pixels, or values that are not finite.
pub fn whiten_stem(params: &Params, prefix: &str, images: &Tensor) -> Result<bool> {
    let both = ParamsOf { params, prefix, layer: "whiten" };
    let Some(shape) = both.shape() else { return Ok(false) };
    let (w, b) = whitening(images, shape[1])?;
    both.set(&w, &b)?;
    Ok(true)
}

/// `weight` and `bias` of a layer of an encoder and of its teacher.
pub(crate) struct ParamsOf<'a> {
    pub(crate) params: &'a Params,
    pub(crate) prefix: &'a str,
    pub(crate) layer: &'a str,
}

impl ParamsOf<'_> {
    fn name(&self, root: &str, leaf: &str) -> String {
        format!("{root}{}.{}.{leaf}", self.prefix, self.layer)
    }

    /// The shape of the weight, if there is such a layer.
    pub(crate) fn shape(&self) -> Option<Vec<usize>> {
        Some(self.params.get(&self.name("", "weight"))?.var.dims().to_vec())
    }

    pub(crate) fn set(&self, weight: &Tensor, bias: &Tensor) -> Result<()> {
        for root in ["", "teacher."] {
            for (leaf, value) in [("weight", weight), ("bias", bias)] {
                if let Some(param) = self.params.get(&self.name(root, leaf)) {
                    param.var.set(&value.to_dtype(param.var.dtype())?.to_device(param.var.device())?)?;
                }
            }
        }
        Ok(())
    }
}

/// The weights and biases of both signs, f64 on the CPU.
fn whitening(images: &Tensor, channels: usize) -> Result<(Tensor, Tensor)> {
    let Eigenpatches { mean, values, vectors } = eigenpatches(images, channels, SIDE)?;
    let scales: Vec<f64> = values.iter().map(|value| (value.max(0.0) + EPS).sqrt().recip()).collect();
    let d = scales.len();
    let weight = vectors.broadcast_mul(&Tensor::from_vec(scales, (d, 1), &Device::Cpu)?)?;
    let bias = weight.matmul(&mean)?.squeeze(D::Minus1)?.neg()?;
    let weight = Tensor::cat(&[&weight, &weight.neg()?], 0)?.reshape((2 * d, channels, SIDE, SIDE))?;
    Ok((weight, Tensor::cat(&[&bias, &bias.neg()?], 0)?))
}

/// The moments of all patches of `d = C side^2` values, in f64 on the CPU.
pub(crate) struct Eigenpatches {
    /// Their mean, `(d, 1)`.
    pub(crate) mean: Tensor,
    /// The eigenvalues of their covariance, the largest first.
    pub(crate) values: Vec<f64>,
    /// Its eigenvectors as rows, `(d, d)`; the largest component of each is positive.
    pub(crate) vectors: Tensor,
}

/// The moments of the patches of images `(N, C, H, W)`.
pub(crate) fn eigenpatches(images: &Tensor, channels: usize, side: usize) -> Result<Eigenpatches> {
    let (n, h, w) = match *images.dims() {
        [n, c, h, w] if n > 0 && c == channels && h >= side && w >= side => (n, h, w),
        _ => {
            return Err(Error::Shape {
                layer: "whiten".to_owned(),
                expected: format!(
                    "images (batch, {channels}, height, width) of at least {side}x{side} pixels"
                ),
                got: images.dims().to_vec(),
            });
        }
    };
    let images = images.detach().to_device(&Device::Cpu)?;
    // The patches of an image as columns, (C side^2, places); channels slowest, as in a kernel.
    let patches = |i: usize| -> Result<Tensor> {
        let image = images.narrow(0, i, 1)?.squeeze(0)?.to_dtype(DType::F64)?;
        let (rows, columns) = (h + 1 - side, w + 1 - side);
        let mut parts = Vec::with_capacity(channels * side * side);
        for c in 0..channels {
            for y in 0..side {
                for x in 0..side {
                    let part = image.narrow(0, c, 1)?.narrow(1, y, rows)?.narrow(2, x, columns)?;
                    parts.push(part.contiguous()?.reshape((1, rows * columns))?);
                }
            }
        }
        Ok(Tensor::cat(&parts, 0)?)
    };
    let d = channels * side * side;
    let count = (n * (h + 1 - side) * (w + 1 - side)) as f64;
    let mut mean = Tensor::zeros((d, 1), DType::F64, &Device::Cpu)?;
    for i in 0..n {
        mean = (mean + patches(i)?.sum_keepdim(1)?)?;
    }
    let mean = (mean / count)?;
    let mut covariance = Tensor::zeros((d, d), DType::F64, &Device::Cpu)?;
    for i in 0..n {
        let centered = patches(i)?.broadcast_sub(&mean)?;
        covariance = (covariance + centered.matmul(&centered.t()?)?)?;
    }
    let (values, vectors) =
        infomax_kernels::linalg::eigh(&(covariance / count)?).map_err(Error::kernel("whiten"))?;
    let (values, vectors) = (values.to_vec1::<f64>()?, vectors.t()?.to_vec2::<f64>()?);
    let mut order: Vec<usize> = (0..d).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    let mut rows = Vec::with_capacity(d * d);
    for &i in &order {
        let vector = &vectors[i];
        let largest = vector.iter().copied().fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
        rows.extend(vector.iter().map(|v| v * largest.signum()));
    }
    Ok(Eigenpatches {
        mean,
        values: order.into_iter().map(|i| values[i]).collect(),
        vectors: Tensor::from_vec(rows, (d, d), &Device::Cpu)?,
    })
}
