//! Vision transformers.

use crate::drop::{dropout, path, rates, times};
use crate::positions::resample;
use crate::transformer::{Affine, EPS, images, patchify};
use crate::{Error, Result, Scope};
use candle_core::{Tensor, Var};
use infomax_core::{Encoder, Init, Mapped, ParamKind, Pass};
use infomax_kernels::{
    AttentionConfig, Elementwise, FeedForward, SelfAttention, attention, feed_forward, linear, linear_with,
    self_attention,
};
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct VitConfig {
    /// The side of the images that positions are learned for, in pixels; for images of another size these are
    /// interpolated.
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
    /// The number of register tokens (arXiv:2309.16588): they take part in attention and are no features.
    pub registers: usize,
    /// The rate of stochastic depth at the last layer, in `[0, 1)`; it rises from 0 along a line.
    pub drop_path: f64,
    /// The rate of dropout, in `[0, 1)`: after the positions, and after every linear map but that to queries, keys
    /// and values.
    pub dropout: f64,
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
            registers: 0,
            drop_path: 0.0,
            dropout: 0.0,
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
        crate::drop::check("drop_path", self.drop_path)?;
        crate::drop::check("dropout", self.dropout)?;
        if !self.image.is_multiple_of(self.patch) {
            return Err(Error::config("patch", self.patch, format!("must divide image = {}", self.image)));
        }
        if !self.width.is_multiple_of(self.heads) {
            return Err(Error::config("heads", self.heads, format!("must divide width = {}", self.width)));
        }
        Ok(())
    }
}

/// A vision transformer without its classifier (Dosovitskiy et al., arXiv:2010.11929): images `(B, C, H, W)` to
/// features `(B, width)`, the class token or the mean of the patches after the last normalization.
///
/// Pre-normalization, learned positions, GELU. Parameters carry timm's names (`cls_token`, `reg_token`,
/// `pos_embed`, `patch_embed.proj.weight`, `blocks.0.attn.qkv.weight`, `blocks.0.mlp.fc1.weight`, `norm.bias`);
/// [`load_encoder`](crate::load_encoder) takes such weights. Maps start from `N(0, 0.02^2)`, biases at 0.
///
/// **Sizes.** Images may have any size of whole patches. Where the grid is not the one of `image`, the positions are
/// interpolated, bicubic with anti-aliasing as timm's `dynamic_img_size` does, and learn through it.
///
/// **Registers** lie between class token and patches and have no positions, as in DINOv2 (`no_embed_class` of timm
/// differs: it leaves out the position of the class token, too).
///
/// **In training** stochastic depth and dropout draw from the key of the [`Pass`]; dropout leaves the fused layers
/// for composed ones.
#[derive(Clone, Debug)]
pub struct Vit {
    name: String,
    cfg: VitConfig,
    cls_token: Var,
    reg_token: Option<Var>,
    pos_embed: Var,
    patches: Affine,
    layers: Vec<Layer>,
    norm: Affine,
}

#[derive(Clone, Debug)]
struct Layer {
    name: String,
    /// The rate of stochastic depth.
    drop_path: f64,
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
        let rates = rates(cfg.drop_path, cfg.depth).into_iter().enumerate();
        let layers =
            rates.map(|(i, rate)| Layer::new(cfg, rate, &scope.pp("blocks").pp(i))).collect::<Result<_>>()?;
        let reg_token = match cfg.registers {
            0 => None,
            count => Some(scope.get("reg_token", (1, count, d), ParamKind::Norm, normal(1e-6))?),
        };
        let fan_in = (cfg.in_channels * p * p) as f64;
        let shape = [d, cfg.in_channels, p, p];
        Ok(Self {
            name: scope.name(),
            cls_token: scope.get("cls_token", (1, 1, d), ParamKind::Norm, normal(1e-6))?,
            reg_token,
            pos_embed: scope.get("pos_embed", (1, tokens, d), ParamKind::Norm, normal(0.02))?,
            patches: Affine::map(&shape, fan_in.recip().sqrt(), scope.pp("patch_embed").pp("proj"))?,
            layers,
            norm: Affine::norm(d, scope.pp("norm"))?,
            cfg: cfg.clone(),
        })
    }

    /// All tokens after the last normalization, `(B, 1 + registers + patches, width)`, the class token first.
    ///
    /// # Errors
    /// A tensor that is not `(B, C, H, W)` with the configured channels, or images that are not made of whole
    /// patches.
    pub fn tokens(&self, xs: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let VitConfig { patch, image, in_channels, width, .. } = self.cfg;
        let (b, h, w) = images(&self.name, xs, in_channels, patch)?;
        if !h.is_multiple_of(patch) || !w.is_multiple_of(patch) {
            return Err(Error::Shape {
                layer: self.name.clone(),
                expected: format!(
                    "images of whole patches: height and width must be multiples of {patch} pixels"
                ),
                got: xs.dims().to_vec(),
            });
        }
        let rows = patchify(xs, patch, &self.patches, &self.name)?.flatten(1, 2)?;
        let first = |token: &Tensor| token.broadcast_as((b, token.dim(1)?, width))?.contiguous();
        let positions = self.positions((h / patch, w / patch), image / patch)?;
        let mut ys = Tensor::cat(&[&first(&self.cls_token)?, &rows], 1)?.broadcast_add(&positions)?;
        if let Some(registers) = &self.reg_token {
            let (cls, rows) = (ys.narrow(1, 0, 1)?, ys.narrow(1, 1, ys.dim(1)? - 1)?);
            ys = Tensor::cat(&[&cls, &first(registers)?, &rows], 1)?;
        }
        ys = dropout(&ys, (self.cfg.dropout, &format!("{}.pos_drop", self.name)), pass)?;
        pass.saw(|| format!("{}.patch_embed", self.name), &ys);
        for layer in &self.layers {
            ys = layer.forward(&ys, &self.cfg, pass)?;
            pass.saw(|| layer.name.clone(), &ys);
        }
        self.norm.layer_norm(&ys, &self.name)
    }

    fn pool(&self, tokens: &Tensor) -> Result<Tensor> {
        Ok(match self.cfg.pool {
            VitPool::Token => tokens.narrow(1, 0, 1)?.squeeze(1)?,
            VitPool::Mean => self.patch_tokens(tokens)?.mean(1)?,
        })
    }

    /// Without the class token and the registers.
    fn patch_tokens(&self, tokens: &Tensor) -> Result<Tensor> {
        let prefix = 1 + self.cfg.registers;
        Ok(tokens.narrow(1, prefix, tokens.dim(1)? - prefix)?)
    }

    /// The positions of the class token and of a grid of patches.
    fn positions(&self, grid: (usize, usize), old: usize) -> Result<Tensor> {
        if grid == (old, old) {
            return Ok(self.pos_embed.as_tensor().clone());
        }
        let cls = self.pos_embed.narrow(1, 0, 1)?;
        let patches = resample(&self.pos_embed.narrow(1, 1, old * old)?, old, grid)?;
        Ok(Tensor::cat(&[&cls, &patches], 1)?)
    }
}

impl Encoder for Vit {
    fn forward(&self, xs: &Tensor, pass: &Pass<'_>) -> infomax_core::Result<Tensor> {
        Ok(self.pool(&self.tokens(xs, pass)?)?)
    }

    fn forward_mapped(&self, xs: &Tensor, pass: &Pass<'_>) -> infomax_core::Result<Option<Mapped>> {
        let tokens = self.tokens(xs, pass)?;
        let (features, map) = (self.pool(&tokens)?, self.patch_tokens(&tokens)?.contiguous()?);
        let (_, _, height, width) = xs.dims4()?;
        Ok(Some(Mapped { features, map, grid: (height / self.cfg.patch, width / self.cfg.patch) }))
    }

    fn feature_dim(&self) -> usize {
        self.cfg.width
    }
}

impl Layer {
    fn new(cfg: &VitConfig, drop_path: f64, scope: &Scope) -> Result<Self> {
        let (d, h) = (cfg.width, cfg.width * cfg.mlp_ratio);
        let (attn, mlp) = (scope.pp("attn"), scope.pp("mlp"));
        Ok(Self {
            name: scope.name(),
            drop_path,
            norm1: Affine::norm(d, scope.pp("norm1"))?,
            qkv: Affine::map(&[3 * d, d], 0.02, attn.pp("qkv"))?,
            proj: Affine::map(&[d, d], 0.02, attn.pp("proj"))?,
            norm2: Affine::norm(d, scope.pp("norm2"))?,
            fc1: Affine::map(&[h, d], 0.02, mlp.pp("fc1"))?,
            fc2: Affine::map(&[d, h], 0.02, mlp.pp("fc2"))?,
        })
    }

    fn forward(&self, xs: &Tensor, cfg: &VitConfig, pass: &Pass<'_>) -> Result<Tensor> {
        let drop = |part: &str| format!("{}.{part}", self.name);
        let attend = |xs: &Tensor, scale: Option<f64>| match cfg.dropout > 0.0 && pass.is_train() {
            true => self.attend_composed(xs, cfg, scale, pass),
            false => self.attend(xs, cfg, scale),
        };
        let dense = |xs: &Tensor, scale: Option<f64>| match cfg.dropout > 0.0 && pass.is_train() {
            true => self.dense_composed(xs, cfg, scale, pass),
            false => self.dense(xs, scale),
        };
        let ys = path(xs, (self.drop_path, &drop("drop_path1")), pass, attend)?;
        path(&ys, (self.drop_path, &drop("drop_path2")), pass, dense)
    }

    fn attend(&self, xs: &Tensor, cfg: &VitConfig, scale: Option<f64>) -> Result<Tensor> {
        let scale = self.branch_scale(scale)?;
        let parts = SelfAttention {
            norm_weight: &self.norm1.weight,
            norm_bias: &self.norm1.bias,
            eps: EPS,
            qkv_weight: &self.qkv.weight,
            qkv_bias: &self.qkv.bias,
            out_weight: &self.proj.weight,
            out_bias: &self.proj.bias,
            heads: cfg.heads,
            scale: scale.as_ref(),
        };
        self_attention(xs, &parts).map_err(Error::kernel(&self.name))
    }

    fn dense(&self, xs: &Tensor, scale: Option<f64>) -> Result<Tensor> {
        let scale = self.branch_scale(scale)?;
        let parts = FeedForward {
            norm_weight: &self.norm2.weight,
            norm_bias: &self.norm2.bias,
            eps: EPS,
            in_weight: &self.fc1.weight,
            in_bias: &self.fc1.bias,
            act: Elementwise::Gelu,
            out_weight: &self.fc2.weight,
            out_bias: &self.fc2.bias,
            scale: scale.as_ref(),
        };
        feed_forward(xs, &parts, None).map_err(Error::kernel(&self.name))
    }

    /// The attention half, operation by operation, with dropout after its last map.
    fn attend_composed(
        &self,
        xs: &Tensor,
        cfg: &VitConfig,
        scale: Option<f64>,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let kernel = || Error::kernel(&self.name);
        let (b, n, d) = xs.dims3()?;
        let ys = self.norm1.layer_norm(xs, &self.name)?;
        let qkv = linear(&ys, &self.qkv.weight, Some(&self.qkv.bias)).map_err(kernel())?;
        let qkv = qkv.reshape((b, n, 3, cfg.heads, d / cfg.heads))?.permute((2, 0, 3, 1, 4))?;
        let part = |i: usize| qkv.narrow(0, i, 1)?.squeeze(0);
        let ys = attention(&part(0)?, &part(1)?, &part(2)?, AttentionConfig::default()).map_err(kernel())?;
        let ys = ys.transpose(1, 2)?.reshape((b, n, d))?;
        let ys = linear(&ys, &self.proj.weight, Some(&self.proj.bias)).map_err(kernel())?;
        let ys = dropout(&ys, (cfg.dropout, &format!("{}.attn.proj_drop", self.name)), pass)?;
        Ok((xs + times(&ys, scale)?)?)
    }

    /// The feed-forward half, operation by operation, with dropout after both of its maps.
    fn dense_composed(
        &self,
        xs: &Tensor,
        cfg: &VitConfig,
        scale: Option<f64>,
        pass: &Pass<'_>,
    ) -> Result<Tensor> {
        let kernel = || Error::kernel(&self.name);
        let drop =
            |ys: &Tensor, part: &str| dropout(ys, (cfg.dropout, &format!("{}.mlp.{part}", self.name)), pass);
        let ys = self.norm2.layer_norm(xs, &self.name)?;
        let ys =
            linear_with(&ys, &self.fc1.weight, Some(&self.fc1.bias), Elementwise::Gelu).map_err(kernel())?;
        let ys = linear(&drop(&ys, "drop1")?, &self.fc2.weight, Some(&self.fc2.bias)).map_err(kernel())?;
        Ok((xs + times(&drop(&ys, "drop2")?, scale)?)?)
    }

    /// A scale of the whole branch, as the operations take it.
    fn branch_scale(&self, scale: Option<f64>) -> Result<Option<Tensor>> {
        let like = self.proj.bias.as_detached_tensor();
        Ok(scale.map(|scale| like.ones_like()? * scale).transpose()?)
    }
}
