//! ConvNeXt.

use crate::drop::{path, rates, times};
use crate::transformer::{Affine, EPS, images, patchify};
use crate::{Error, Result, Scope};
use candle_core::{Tensor, Var};
use infomax_core::{Encoder, Init, Mapped, ParamKind, Pass};
use infomax_kernels::{
    Conv2dConfig, Elementwise, FeedForward, depthwise_conv2d_last, feed_forward, patches_last,
};
use serde::{Deserialize, Serialize};

/// The shape of a [`ConvNext`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ConvNextConfig {
    /// The number of blocks of each stage.
    pub blocks: Vec<usize>,
    /// The channels of each stage.
    pub widths: Vec<usize>,
    /// The side of the patches of the stem, in pixels: 4 for images of 224 pixels, 1 or 2 for small ones.
    pub patch: usize,
    /// The channels of the image.
    pub in_channels: usize,
    /// The rate of stochastic depth at the last block, in `[0, 1)`; it rises from 0 along a line.
    pub drop_path: f64,
}

impl Default for ConvNextConfig {
    /// ConvNeXt-Tiny: 27.8 million parameters without its classifier.
    fn default() -> Self {
        Self::tiny()
    }
}

impl ConvNextConfig {
    fn of(blocks: [usize; 4], width: usize) -> Self {
        let widths = (0..4).map(|stage| width << stage).collect();
        Self { blocks: blocks.to_vec(), widths, patch: 4, in_channels: 3, drop_path: 0.0 }
    }

    /// ConvNeXt-Atto of timm: 3.4 million parameters without its classifier.
    pub fn atto() -> Self {
        Self::of([2, 2, 6, 2], 40)
    }

    /// ConvNeXt-Femto of timm: 4.8 million parameters.
    pub fn femto() -> Self {
        Self::of([2, 2, 6, 2], 48)
    }

    /// ConvNeXt-Pico of timm: 8.5 million parameters.
    pub fn pico() -> Self {
        Self::of([2, 2, 6, 2], 64)
    }

    /// ConvNeXt-Nano of timm: 15.0 million parameters.
    pub fn nano() -> Self {
        Self::of([2, 2, 8, 2], 80)
    }

    /// ConvNeXt-Tiny (arXiv:2201.03545): 27.8 million parameters.
    pub fn tiny() -> Self {
        Self::of([3, 3, 9, 3], 96)
    }

    fn check(&self) -> Result<()> {
        let stages = self.blocks.len();
        if stages == 0 || stages != self.widths.len() || self.blocks.contains(&0) || self.widths.contains(&0)
        {
            return Err(Error::config(
                "blocks",
                format!("{:?} with widths {:?}", self.blocks, self.widths),
                "must name as many stages as convnext.widths, each with at least one block and one channel",
            ));
        }
        crate::drop::check("drop_path", self.drop_path)?;
        for (key, value) in [("patch", self.patch), ("in_channels", self.in_channels)] {
            if value == 0 {
                return Err(Error::config(key, value, "must be at least 1"));
            }
        }
        Ok(())
    }
}

/// A ConvNeXt without its classifier (Liu et al., arXiv:2201.03545): images `(B, C, H, W)` to features
/// `(B, D)`, the normalized mean over the last feature map.
///
/// Feature maps are kept with the channels last; stochastic depth draws from the key of the [`Pass`]. Parameters
/// carry torchvision's names
/// (`features.0.0.weight`, `features.1.0.block.0.weight`, `features.1.0.layer_scale`, `classifier.0.weight`);
/// [`load_encoder`](crate::load_encoder) takes such weights. Maps start from `N(0, 0.02^2)`, biases at 0, the
/// scale of each block at 1e-6.
#[derive(Clone, Debug)]
pub struct ConvNext {
    name: String,
    cfg: ConvNextConfig,
    stem: (Affine, Affine),
    stages: Vec<Stage>,
    norm: Affine,
}

#[derive(Clone, Debug)]
struct Stage {
    /// Normalization and a 2x2 convolution of stride 2; none before the first stage.
    down: Option<(Affine, Affine)>,
    blocks: Vec<Block>,
}

#[derive(Clone, Debug)]
struct Block {
    name: String,
    /// The rate of stochastic depth.
    drop_path: f64,
    conv: Affine,
    norm: Affine,
    fc1: Affine,
    fc2: Affine,
    layer_scale: Var,
}

impl ConvNext {
    /// Builds the network and draws its initial weights.
    ///
    /// # Errors
    /// A configuration out of range, or names that are taken.
    pub fn new(cfg: &ConvNextConfig, scope: impl Into<Scope>) -> Result<Self> {
        let scope = scope.into();
        cfg.check()?;
        let features = scope.pp("features");
        let shape = [cfg.widths[0], cfg.in_channels, cfg.patch, cfg.patch];
        let stem = (
            Affine::map(&shape, 0.02, features.pp(0).pp(0))?,
            Affine::norm(cfg.widths[0], features.pp(0).pp(1))?,
        );
        let mut stages = Vec::with_capacity(cfg.widths.len());
        let mut rates = rates(cfg.drop_path, cfg.blocks.iter().sum()).into_iter();
        for (i, (&count, &width)) in cfg.blocks.iter().zip(&cfg.widths).enumerate() {
            let down = match i {
                0 => None,
                _ => {
                    let (before, scope) = (cfg.widths[i - 1], features.pp(2 * i));
                    let map = Affine::map(&[width, before, 2, 2], 0.02, scope.pp(1))?;
                    Some((Affine::norm(before, scope.pp(0))?, map))
                }
            };
            let scope = features.pp(2 * i + 1);
            let rates = rates.by_ref().take(count).enumerate();
            let blocks =
                rates.map(|(j, rate)| Block::new(width, rate, &scope.pp(j))).collect::<Result<_>>()?;
            stages.push(Stage { down, blocks });
        }
        let last = cfg.widths[cfg.widths.len() - 1];
        let norm = Affine::norm(last, scope.pp("classifier").pp(0))?;
        Ok(Self { name: scope.name(), cfg: cfg.clone(), stem, stages, norm })
    }

    /// The last feature map `(B, H', W', D)`, channels last, before the mean over pixels.
    ///
    /// # Errors
    /// A tensor that is not `(B, C, H, W)` with the configured channels, or images that a stage would make
    /// smaller than one pixel.
    pub fn feature_map(&self, xs: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let least = self.cfg.patch << (self.stages.len() - 1);
        images(&self.name, xs, self.cfg.in_channels, least)?;
        let ys = patchify(xs, self.cfg.patch, &self.stem.0, &self.name)?;
        let mut ys = self.stem.1.layer_norm(&ys, &self.name)?;
        pass.saw(|| format!("{}.stem", self.name), &ys);
        for stage in &self.stages {
            if let Some((norm, map)) = &stage.down {
                ys = halve(&norm.layer_norm(&ys, &self.name)?, map).map_err(Error::kernel(&self.name))?;
            }
            for block in &stage.blocks {
                ys = path(&ys, (block.drop_path, &block.name), pass, |xs, scale| {
                    block.forward(xs, scale).map_err(Error::kernel(&block.name))
                })?;
                pass.saw(|| block.name.clone(), &ys);
            }
        }
        Ok(ys)
    }

    fn mapped(&self, xs: &Tensor, pass: &Pass<'_>) -> Result<Mapped> {
        let map = self.feature_map(xs, pass)?;
        let grid = (map.dim(1)?, map.dim(2)?);
        let map = map.flatten(1, 2)?;
        let features = self.norm.layer_norm(&map.mean(1)?, &self.name)?;
        Ok(Mapped { features, map, grid })
    }
}

impl Encoder for ConvNext {
    fn forward(&self, xs: &Tensor, pass: &Pass<'_>) -> infomax_core::Result<Tensor> {
        Ok(self.mapped(xs, pass)?.features)
    }

    fn forward_mapped(&self, xs: &Tensor, pass: &Pass<'_>) -> infomax_core::Result<Option<Mapped>> {
        Ok(Some(self.mapped(xs, pass)?))
    }

    fn feature_dim(&self) -> usize {
        self.cfg.widths[self.cfg.widths.len() - 1]
    }
}

/// A 2x2 convolution of stride 2 of `(B, H, W, C)`: the four pixels of a window are one row.
fn halve(xs: &Tensor, map: &Affine) -> infomax_kernels::Result<Tensor> {
    infomax_kernels::linear(&patches_last(xs, 2)?, &map.weight.flatten_from(1)?, Some(&map.bias))
}

impl Block {
    fn new(width: usize, drop_path: f64, scope: &Scope) -> Result<Self> {
        let block = scope.pp("block");
        Ok(Self {
            name: scope.name(),
            drop_path,
            conv: Affine::map(&[width, 1, 7, 7], 0.02, block.pp(0))?,
            norm: Affine::norm(width, block.pp(2))?,
            fc1: Affine::map(&[4 * width, width], 0.02, block.pp(3))?,
            fc2: Affine::map(&[width, 4 * width], 0.02, block.pp(5))?,
            layer_scale: scope.get("layer_scale", (width, 1, 1), ParamKind::Norm, Init::Const(1e-6))?,
        })
    }

    /// `xs + scale f(xs)`.
    fn forward(&self, xs: &Tensor, scale: Option<f64>) -> infomax_kernels::Result<Tensor> {
        let groups = xs.dim(3)?;
        let cfg = Conv2dConfig { padding: 3, groups, ..Conv2dConfig::default() };
        let ys = depthwise_conv2d_last(xs, &self.conv.weight, Some(&self.conv.bias), cfg)?;
        let scale = times(&self.layer_scale.flatten_all()?, scale)?;
        let dense = FeedForward {
            norm_weight: &self.norm.weight,
            norm_bias: &self.norm.bias,
            eps: EPS,
            in_weight: &self.fc1.weight,
            in_bias: &self.fc1.bias,
            act: Elementwise::Gelu,
            out_weight: &self.fc2.weight,
            out_bias: &self.fc2.bias,
            scale: Some(&scale),
        };
        feed_forward(&ys, &dense, Some(xs))
    }
}
