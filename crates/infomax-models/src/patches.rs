//! A single layer of whitened patches.

use crate::transformer::images;
use crate::whiten::{ParamsOf, eigenpatches};
use crate::{Error, Result, Scope};
use candle_core::{DType, Device, Tensor, Var};
use infomax_core::{Encoder, Init, Key, ParamKind, Params, Pass};
use infomax_kernels::relu;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

/// Added to the eigenvalues of the covariance of patches, of images that are normalized to about one.
const EPS: f64 = 1e-2;

/// The shape of a [`Patches`] encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct PatchesConfig {
    /// The side of the patches, in pixels.
    pub patch: usize,
    /// The number of filters; the features have `2 grid^2` times as many.
    pub filters: usize,
    /// The pixels from one patch to the next.
    pub stride: usize,
    /// What a response has to exceed, in its standard deviations over all patches.
    pub threshold: f64,
    /// The responses are averaged over the cells of a grid of so many rows and columns.
    pub grid: usize,
    /// Whether the filters are trained further.
    pub trained: bool,
    /// The channels of the image.
    pub in_channels: usize,
}

impl Default for PatchesConfig {
    fn default() -> Self {
        Self { patch: 6, filters: 400, stride: 2, threshold: 0.5, grid: 3, trained: true, in_channels: 3 }
    }
}

/// The single-layer network of Coates and Ng ("The importance of encoding versus training with sparse coding and vector
/// quantization", ICML 2011): images `(B, C, H, W)` to features `(B, 2 K G^2)`.
///
/// For each patch `p` of `S x S` pixels and each of `K` filters, `r_k = w_k p + b_k`; the maps are
/// `relu(r_k - t)` and, after all of these, `relu(-r_k - t)` with the threshold `t`; each is averaged over the `G x G`
/// cells of a grid (cell `i` of `G` along a side of `n` places covers `floor(i n / G)` to `ceil((i + 1) n / G)`). Features
/// come cell by cell, row by row, all maps of a cell together. At the threshold the gradient is 0. Parameters: `filters.weight` `(K, C, S, S)` and `filters.bias`
/// `(K)`, buffers unless they are trained. They start at random; [`fit_patches`] makes them whitened patches of images.
#[derive(Clone, Debug)]
pub struct Patches {
    name: String,
    cfg: PatchesConfig,
    weight: Var,
    bias: Var,
}

impl Patches {
    /// Builds the layer and draws filters of unit variance for white inputs.
    ///
    /// # Errors
    /// A size of 0, a threshold that is negative or not finite, names that are taken.
    pub fn new(cfg: &PatchesConfig, scope: impl Into<Scope>) -> Result<Self> {
        let scope = scope.into();
        let sizes = [
            ("patch", cfg.patch),
            ("filters", cfg.filters),
            ("stride", cfg.stride),
            ("grid", cfg.grid),
            ("in_channels", cfg.in_channels),
        ];
        for (key, value) in sizes {
            if value == 0 {
                return Err(Error::config(key, value, "must be at least 1"));
            }
        }
        if !(cfg.threshold >= 0.0 && cfg.threshold.is_finite()) {
            return Err(Error::config("threshold", cfg.threshold, "must be 0 or more, and finite"));
        }
        let kind = |kind| if cfg.trained { kind } else { ParamKind::Buffer };
        let shape = (cfg.filters, cfg.in_channels, cfg.patch, cfg.patch);
        let std = ((cfg.in_channels * cfg.patch * cfg.patch) as f64).sqrt().recip();
        let filters = scope.pp("filters");
        let weight =
            filters.get("weight", shape, kind(ParamKind::Weight), Init::Normal { mean: 0.0, std })?;
        let bias = filters.get("bias", cfg.filters, kind(ParamKind::Bias), Init::Const(0.0))?;
        Ok(Self { name: scope.name(), cfg: cfg.clone(), weight, bias })
    }

    /// The filters of both signs and their biases, less the threshold.
    pub(crate) fn both_signs(weight: &Tensor, bias: &Tensor, threshold: f64) -> Result<(Tensor, Tensor)> {
        let weight = Tensor::cat(&[weight, &weight.neg()?], 0)?;
        let bias = Tensor::cat(&[bias, &bias.neg()?], 0)?.affine(1.0, -threshold)?;
        Ok((weight, bias))
    }
}

impl Encoder for Patches {
    fn forward(&self, xs: &Tensor, pass: &Pass<'_>) -> infomax_core::Result<Tensor> {
        let cfg = &self.cfg;
        images(&self.name, xs, cfg.in_channels, cfg.patch + (cfg.grid - 1) * cfg.stride)?;
        let [weight, bias] = [&self.weight, &self.bias].map(|var| match cfg.trained {
            true => var.as_tensor().clone(),
            // Nothing flows to what is frozen.
            false => var.as_detached_tensor(),
        });
        let (weight, bias) = Self::both_signs(&weight, &bias, cfg.threshold)?;
        // A convolution of three channels is all border to the kernels of wide ones: a product of all patches with all
        // filters is several times as fast, above all backward. The bias is the weight of a pixel that is always 1.
        let (patches, (h, w)) = unfold(xs, cfg.patch, cfg.stride)?;
        let (b, places, _) = patches.dims3()?;
        let rows = patches.flatten_to(1)?;
        let outputs = weight.dim(0)?;
        let filters = Tensor::cat(&[weight.flatten_from(1)?, bias.unsqueeze(1)?], 1)?;
        let maps = relu(&rows.matmul(&filters.t()?)?).map_err(Error::kernel(&self.name))?;
        pass.saw(|| self.name.clone(), &maps);
        let maps = maps.reshape((b, places, outputs))?;
        let cells = cells(cfg.grid, (h, w), maps.dtype(), maps.device())?.t()?.contiguous()?;
        Ok(cells.broadcast_left(b)?.contiguous()?.matmul(&maps)?.flatten_from(1)?)
    }

    fn feature_dim(&self) -> usize {
        2 * self.cfg.filters * self.cfg.grid * self.cfg.grid
    }
}

/// The patches of images as rows `(B, places, C side^2 + 1)`, channels slowest as in a kernel, with a last column of
/// ones; then the numbers of places along the sides.
fn unfold(xs: &Tensor, side: usize, stride: usize) -> Result<(Tensor, (usize, usize))> {
    let (b, channels, height, width) = xs.dims4()?;
    let along = |n: usize| (n - side) / stride + 1;
    let (h, w) = (along(height), along(width));
    // Every `stride`-th row and column from an offset on, through a view of whole strides.
    let padded = xs.pad_with_zeros(2, 0, stride)?.pad_with_zeros(3, 0, stride)?;
    let mut columns = Vec::with_capacity(channels * side * side + 1);
    for c in 0..channels {
        let channel = padded.narrow(1, c, 1)?.squeeze(1)?;
        for y in 0..side {
            let rows = channel.narrow(1, y, h * stride)?;
            for x in 0..side {
                let part = rows.narrow(2, x, w * stride)?.contiguous()?;
                let part = part.reshape((b, h, stride, w, stride))?;
                let part = part.narrow(2, 0, 1)?.narrow(4, 0, 1)?.contiguous()?;
                columns.push(part.reshape((b, h * w, 1))?);
            }
        }
    }
    columns.push(Tensor::ones((b, h * w, 1), xs.dtype(), xs.device())?);
    Ok((Tensor::cat(&columns, 2)?, (h, w)))
}

/// The means over cells as a matrix: `(h w, grid^2)`, each column of sum 1.
pub(crate) fn cells(grid: usize, (h, w): (usize, usize), dtype: DType, device: &Device) -> Result<Tensor> {
    let edges = |n: usize, i: usize| (i * n / grid, ((i + 1) * n).div_ceil(grid));
    let mut values = vec![0.0; h * w * grid * grid];
    for row in 0..grid {
        for column in 0..grid {
            let ((top, bottom), (left, right)) = (edges(h, row), edges(w, column));
            let share = 1.0 / ((bottom - top) * (right - left)) as f64;
            for y in top..bottom {
                for x in left..right {
                    values[(y * w + x) * grid * grid + row * grid + column] = share;
                }
            }
        }
    }
    Ok(Tensor::from_vec(values, (h * w, grid * grid), device)?.to_dtype(dtype)?)
}

/// Sets the filters of a [`Patches`] encoder below `prefix` (for example `encoder`) to whitened patches of images
/// `(N, C, H, W)`, normalized as in training; where there is a teacher (`teacher.PREFIX`), its filters too. `false` if
/// the encoder is none.
///
/// With the mean `m` and the covariance `S = V diag(s) V^T` of all patches and `A = V diag(s + 0.01)^(-1/2) V^T`, each
/// filter is that of a patch `p` drawn by `key`: `u = A (p - m)`, `w = A u / |u|`, `b = -w m`. Its responses have the mean 0
/// over all patches, and the variance 1 as far as patches vary. No filter is learned: dictionaries of patches that were
/// only drawn are nearly as good as those of k-means and sparse coding once responses are thresholded (Coates and Ng, 2011).
///
/// # Errors
/// Images of other channels, below the patches in size, or values that are not finite.
pub fn fit_patches(params: &Params, prefix: &str, images: &Tensor, key: Key) -> Result<bool> {
    let both = ParamsOf { params, prefix, layer: "filters" };
    let Some(shape) = both.shape() else { return Ok(false) };
    let [count, channels, side, _] = shape[..] else { return Ok(false) };
    let patches = eigenpatches(images, channels, side)?;
    let d = channels * side * side;
    let scales: Vec<f64> = patches.values.iter().map(|v| (v.max(0.0) + EPS).sqrt().recip()).collect();
    let scales = Tensor::new(scales, &Device::Cpu)?;
    // Rows of `vectors` are eigenvectors: V diag(scales) V^T.
    let zca = patches.vectors.t()?.broadcast_mul(&scales)?.matmul(&patches.vectors)?;
    let (n, _, h, w) = images.dims4()?;
    let mut rng = key.fold_named("patches").rng();
    let mut rows = Vec::with_capacity(count);
    for _ in 0..count {
        let mut draw = |bound: usize| rng.random_range(0..bound as u64) as usize;
        let (i, y, x) = (draw(n), draw(h + 1 - side), draw(w + 1 - side));
        let patch = images.narrow(0, i, 1)?.narrow(2, y, side)?.narrow(3, x, side)?;
        rows.push(patch.contiguous()?.reshape((1, d))?);
    }
    let drawn = Tensor::cat(&rows, 0)?.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
    let white = drawn.broadcast_sub(&patches.mean.t()?)?.matmul(&zca)?;
    // A patch at the mean has no direction; its filter is 0.
    let norms = (white.sqr()?.sum_keepdim(1)?.sqrt()? + f64::MIN_POSITIVE)?;
    let weight = white.broadcast_div(&norms)?.matmul(&zca)?;
    let bias = weight.matmul(&patches.mean)?.flatten_all()?.neg()?;
    both.set(&weight.reshape((count, channels, side, side))?, &bias)?;
    Ok(true)
}
