//! What vision transformers and ConvNeXts share: affine maps, normalizations, and patches as rows.

use crate::{Error, Result, Scope};
use candle_core::{Tensor, Var};
use infomax_core::{Init, ParamKind};

/// A weight with its bias, under the names `weight` and `bias`.
#[derive(Clone, Debug)]
pub(crate) struct Affine {
    pub(crate) weight: Var,
    pub(crate) bias: Var,
}

impl Affine {
    /// A map with weights of this shape from `N(0, std^2)` and biases of 0.
    pub(crate) fn map(shape: &[usize], std: f64, scope: Scope) -> Result<Self> {
        let weight = scope.get("weight", shape, ParamKind::Weight, Init::Normal { mean: 0.0, std })?;
        Ok(Self { weight, bias: scope.get("bias", shape[0], ParamKind::Bias, Init::Const(0.0))? })
    }

    /// A normalization: scale 1, shift 0.
    pub(crate) fn norm(channels: usize, scope: Scope) -> Result<Self> {
        let weight = scope.get("weight", channels, ParamKind::Norm, Init::Const(1.0))?;
        Ok(Self { weight, bias: scope.get("bias", channels, ParamKind::Norm, Init::Const(0.0))? })
    }

    /// Layer norm over the last dimension.
    pub(crate) fn layer_norm(&self, xs: &Tensor, name: &str) -> Result<Tensor> {
        infomax_kernels::layer_norm(xs, Some(&self.weight), Some(&self.bias), EPS)
            .map_err(Error::kernel(name))
    }
}

/// Added to variances, as in timm's vision transformers and torchvision's ConvNeXts.
pub(crate) const EPS: f64 = 1e-6;

/// The size of a square image that a model takes, `(B, C, H, W)`; an error that names the model otherwise.
pub(crate) fn images(
    name: &str,
    xs: &Tensor,
    channels: usize,
    patch: usize,
) -> Result<(usize, usize, usize)> {
    match *xs.dims() {
        [b, c, h, w] if b > 0 && c == channels && h >= patch && w >= patch => Ok((b, h, w)),
        _ => Err(Error::Shape {
            layer: name.to_owned(),
            expected: format!("images (batch, {channels}, height, width) of at least {patch}x{patch} pixels"),
            got: xs.dims().to_vec(),
        }),
    }
}

/// The convolution with a kernel and stride of `patch` pixels, channels last: `(B, C, H, W)` to
/// `(B, H / patch, W / patch, K)`. Rows and columns beyond the last whole patch have no part, as in a
/// convolution.
///
/// Each patch is a row, and the convolution a linear map of rows: nothing is transposed afterwards.
pub(crate) fn patchify(xs: &Tensor, patch: usize, map: &Affine, name: &str) -> Result<Tensor> {
    let map_rows = |xs: &Tensor| {
        let rows = infomax_kernels::patches(xs, patch)?;
        infomax_kernels::linear(&rows, &map.weight.flatten_from(1)?, Some(&map.bias))
    };
    map_rows(xs).map_err(Error::kernel(name))
}
