//! Vision transformers.

use crate::transformer::{Affine, EPS, images, patchify};
use crate::{Error, Result, Scope};
use candle_core::{Tensor, Var};
use infomax_core::{Encoder, Init, ParamKind, Pass};
use infomax_kernels::{Elementwise, FeedForward, SelfAttention, feed_forward, self_attention};
use serde::{Deserialize, Serialize};

/// What the features of a [`Vit`] are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum VitPool {
    /// The class token.
    #[default]
    Token,
    /// The mean of the patch tokens.
    Mean,
}

/// The shape of a [`Vit`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct VitConfig {
    /// The side of the images, in pixels.
    pub image: usize,
    /// The side of a patch, in pixels; it must divide `image`.
    pub patch: usize,
    /// The channels of a token.
    pub width: usize,
    /// The number of layers.
    pub depth: usize,
    /// The heads of attention; they must divide `width`.
    pub heads: usize,
    /// The hidden channels of the feed-forward half, in multiples of `width`.
    pub mlp_ratio: usize,
    /// What the features are.
    pub pool: VitPool,
    /// The channels of the image.
    pub in_channels: usize,
}

impl Default for VitConfig {
    /// ViT-Tiny for images of 32 pixels, in patches of 4.
    fn default() -> Self {
        Self::tiny(32, 4)
    }
}

impl VitConfig {
    /// ViT-Tiny (arXiv:2012.12877): 12 layers of 192 channels and 3 heads; 5.5 million parameters at 224/16.
    pub fn tiny(image: usize, patch: usize) -> Self {
        Self {
            image,
            patch,
            width: 192,
            depth: 12,
            heads: 3,
            mlp_ratio: 4,
            pool: VitPool::Token,
            in_channels: 3,
        }
    }

    /// ViT-Small (arXiv:2012.12877): 12 layers of 384 channels and 6 heads; 21.7 million parameters at 224/16.
    pub fn small(image: usize, patch: usize) -> Self {
        Self { width: 384, heads: 6, ..Self::tiny(image, patch) }
    }

    /// ViT-Base (arXiv:2010.11929): 12 layers of 768 channels and 12 heads; 85.8 million parameters at 224/16.
    pub fn base(image: usize, patch: usize) -> Self {
        Self { width: 768, heads: 12, ..Self::tiny(image, patch) }
    }

    fn check(&self) -> Result<()> {
        for (key, value) in [
            ("image", self.image),
            ("patch", self.patch),
            ("width", self.width),
            ("depth", self.depth),
            ("heads", self.heads),
            ("mlp_ratio", self.mlp_ratio),
            ("in_channels", self.in_channels),
        ] {
            if value == 0 {
                return Err(Error::config(key, value, "must be at least 1"));
            }
        }
        if !self.image.is_multiple_of(self.patch) {
            return Err(Error::config("patch", self.patch, format!("must divide image = {}", self.image)));
        }
        if !self.width.is_multiple_of(self.heads) {
            return Err(Error::config("heads", self.heads, format!("must divide width = {}", self.width)));
        }
        Ok(())
    }
}

/// A vision transformer without its classifier (Dosovitskiy et al., arXiv:2010.11929): images
/// `(B, C, image, image)` to features `(B, width)`, the class token or the mean of the patches after the last
/// normalization.
///
/// Pre-normalization, learned positions, GELU, no dropout and no stochastic depth. Parameters carry timm's
/// names (`cls_token`, `pos_embed`, `patch_embed.proj.weight`, `blocks.0.attn.qkv.weight`,
/// `blocks.0.mlp.fc1.weight`, `norm.bias`); [`load_encoder`](crate::load_encoder) takes such weights. Maps start
/// from `N(0, 0.02^2)`, biases at 0.
#[derive(Clone, Debug)]
pub struct Vit {
    name: String,
    cfg: VitConfig,
    cls_token: Var,
    pos_embed: Var,
    patches: Affine,
    layers: Vec<Layer>,
    norm: Affine,
}

#[derive(Clone, Debug)]
struct Layer {
    norm1: Affine,
    qkv: Affine,
    proj: Affine,
    norm2: Affine,
    fc1: Affine,
    fc2: Affine,
}

impl Vit {
    /// Builds the network and draws its initial weights.
    ///
    /// # Errors
    /// A configuration out of range, or names that are taken.
    pub fn new(cfg: &VitConfig, scope: impl Into<Scope>) -> Result<Self> {
        let scope = scope.into();
        cfg.check()?;
        let (d, p) = (cfg.width, cfg.patch);
        let tokens = (cfg.image / p) * (cfg.image / p) + 1;
        let normal = |std| Init::Normal { mean: 0.0, std };
        let layers =
            (0..cfg.depth).map(|i| Layer::new(cfg, &scope.pp("blocks").pp(i))).collect::<Result<_>>()?;
        let fan_in = (cfg.in_channels * p * p) as f64;
        let shape = [d, cfg.in_channels, p, p];
        Ok(Self {
            name: scope.name(),
            cls_token: scope.get("cls_token", (1, 1, d), ParamKind::Norm, normal(1e-6))?,
            pos_embed: scope.get("pos_embed", (1, tokens, d), ParamKind::Norm, normal(0.02))?,
            patches: Affine::map(&shape, fan_in.recip().sqrt(), scope.pp("patch_embed").pp("proj"))?,
            layers,
            norm: Affine::norm(d, scope.pp("norm"))?,
            cfg: cfg.clone(),
        })
    }

    /// All tokens after the last normalization, `(B, 1 + patches, width)`, the class token first.
    ///
    /// # Errors
    /// A tensor that is not `(B, C, image, image)` as configured.
    pub fn tokens(&self, xs: &Tensor) -> Result<Tensor> {
        let (b, h, w) = images(&self.name, xs, self.cfg.in_channels, self.cfg.image)?;
        if (h, w) != (self.cfg.image, self.cfg.image) {
            return Err(Error::Shape {
                layer: self.name.clone(),
                expected: format!("images of {0}x{0} pixels, for which it has positions", self.cfg.image),
                got: xs.dims().to_vec(),
            });
        }
        let rows = patchify(xs, self.cfg.patch, &self.patches, &self.name)?.flatten(1, 2)?;
        let cls = self.cls_token.broadcast_as((b, 1, self.cfg.width))?;
        let mut ys = Tensor::cat(&[&cls.contiguous()?, &rows], 1)?.broadcast_add(&self.pos_embed)?;
        for layer in &self.layers {
            ys = layer.forward(&ys, &self.cfg).map_err(Error::kernel(&self.name))?;
        }
        self.norm.layer_norm(&ys, &self.name)
    }
}

impl Encoder for Vit {
    fn forward(&self, xs: &Tensor, _: &Pass<'_>) -> infomax_core::Result<Tensor> {
        let tokens = self.tokens(xs)?;
        Ok(match self.cfg.pool {
            VitPool::Token => tokens.narrow(1, 0, 1)?.squeeze(1)?,
            VitPool::Mean => tokens.narrow(1, 1, tokens.dim(1)? - 1)?.mean(1)?,
        })
    }

    fn feature_dim(&self) -> usize {
        self.cfg.width
    }
}

impl Layer {
    fn new(cfg: &VitConfig, scope: &Scope) -> Result<Self> {
        let (d, h) = (cfg.width, cfg.width * cfg.mlp_ratio);
        let (attn, mlp) = (scope.pp("attn"), scope.pp("mlp"));
        Ok(Self {
            norm1: Affine::norm(d, scope.pp("norm1"))?,
            qkv: Affine::map(&[3 * d, d], 0.02, attn.pp("qkv"))?,
            proj: Affine::map(&[d, d], 0.02, attn.pp("proj"))?,
            norm2: Affine::norm(d, scope.pp("norm2"))?,
            fc1: Affine::map(&[h, d], 0.02, mlp.pp("fc1"))?,
            fc2: Affine::map(&[d, h], 0.02, mlp.pp("fc2"))?,
        })
    }

    fn forward(&self, xs: &Tensor, cfg: &VitConfig) -> infomax_kernels::Result<Tensor> {
        let attention = SelfAttention {
            norm_weight: &self.norm1.weight,
            norm_bias: &self.norm1.bias,
            eps: EPS,
            qkv_weight: &self.qkv.weight,
            qkv_bias: &self.qkv.bias,
            out_weight: &self.proj.weight,
            out_bias: &self.proj.bias,
            heads: cfg.heads,
            scale: None,
        };
        let dense = FeedForward {
            norm_weight: &self.norm2.weight,
            norm_bias: &self.norm2.bias,
            eps: EPS,
            in_weight: &self.fc1.weight,
            in_bias: &self.fc1.bias,
            act: Elementwise::Gelu,
            out_weight: &self.fc2.weight,
            out_bias: &self.fc2.bias,
            scale: None,
        };
        feed_forward(&self_attention(xs, &attention)?, &dense, None)
    }
}
