//! Residual networks of any width.

use crate::whiten::Whiten;
use crate::{BatchNorm, Conv2d, Error, Result, Scope};
use candle_core::{DType, Device, Tensor};
use infomax_core::{Encoder, Mapped, Pass};
use infomax_kernels::{
    Activation, Blocked, Conv2dConfig, Pool2dConfig, ResidualUnit, Shortcut, global_avg_pool, max_pool2d,
};
use serde::{Deserialize, Serialize};

/// What comes before the residual stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Stem {
    /// A 3x3 convolution of stride 1 and nothing else: for images of 32 to 64 pixels
    /// (SimCLR, arXiv:2002.05709, appendix B.9).
    #[default]
    Cifar,
    /// Patches of 2x2 pixels, whitened by the covariance of those of the training images, with both signs, and a ReLU;
    /// then as `cifar`. Set from the first training images and frozen: for images of 32 to 64 pixels (Jordan,
    /// arXiv:2404.00498).
    Whitened,
    /// The same, trained further.
    WhitenedTrained,
    /// A 7x7 convolution of stride 2 and a 3x3 max-pool of stride 2: for images of 96 pixels and more.
    Imagenet,
}

impl Stem {
    /// Whether a whitening layer comes first, and whether it is trained.
    pub(crate) fn whitens(self) -> Option<bool> {
        match self {
            Self::Whitened => Some(false),
            Self::WhitenedTrained => Some(true),
            Self::Cifar | Self::Imagenet => None,
        }
    }
}

/// What a training pass computes with. Parameters, their gradients and checkpoints are f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// f32 throughout (f64 where the parameters are f64).
    #[default]
    F32,
    /// On CUDA only: f32 in memory, and the factors of products are rounded to 10 bits of mantissa (TF32), with
    /// sums in f32. Networks are built as for f32; the products are chosen by `infomax_kernels::CudaProducts`.
    Tf32,
    /// Feature maps, their gradients, and weights where they are multiplied, are rounded to bf16; sums and
    /// statistics are f32 or wider, and so are parameters and their gradients. Half of the memory for activations.
    /// Residual networks, on the CPU and on CUDA. Vision transformers and ConvNeXts on the CPU keep f32 in memory, and the
    /// factors of their products are rounded to bf16 where the processor has tiles for them (AMX) and they are expected to
    /// be faster; elsewhere they stay f32. Such networks are built as for f32; the products are chosen by
    /// `infomax_kernels::CpuProducts`.
    Bf16,
    /// On the CPU only: f32 in memory, and products of f32 are sums of three products of bf16 (the factors split into a
    /// high and a low part), where the processor has tiles for them (AMX) and they are expected to be faster; elsewhere f32.
    /// Networks are built as for f32; the products are chosen by `infomax_kernels::CpuProducts`.
    Bf16x3,
}

impl Precision {
    /// Refuses bf16 for parameters that it cannot have.
    pub(crate) fn check(self, weight: &Tensor) -> Result<()> {
        self.check_at(weight.dtype(), weight.device())
    }

    /// Refuses a precision for parameters of a type on a device.
    pub(crate) fn check_at(self, dtype: DType, device: &Device) -> Result<()> {
        let single = dtype == DType::F32;
        let (precision, fits, reason) = match self {
            Self::F32 => return Ok(()),
            Self::Tf32 => {
                ("tf32", single && device.is_cuda(), "it needs f32 parameters on CUDA; use the precision f32")
            }
            Self::Bf16 => {
                let reason = "it needs f32 parameters on the CPU or on CUDA; use the precision f32";
                ("bf16", single && !device.is_metal(), reason)
            }
            Self::Bf16x3 => (
                "bf16x3",
                single && device.is_cpu(),
                "it needs f32 parameters on the CPU; use the precision f32",
            ),
        };
        if fits {
            return Ok(());
        }
        let with = format!("with {dtype:?} parameters on {:?}", device.location());
        Err(Error::Precision { precision, with, reason })
    }
}

/// The shape of a [`ResNet`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ResNetConfig {
    /// 18, 34, 50, 101 or 152. It sets the number of blocks in each stage, and their kind: two 3x3 convolutions
    /// (basic) for 18 and 34, a bottleneck of 1x1, 3x3, 1x1 from 50 on.
    pub depth: usize,
    /// The number of blocks of each stage, instead of that of `depth`; empty: that of `depth`. Fewer than
    /// four stages are allowed, for small networks.
    pub blocks: Vec<usize>,
    /// The channels of the first stage, doubled with each stage; 64 is the standard network, 128 the "x2" of
    /// SimCLR and VICReg.
    pub width: usize,
    /// The factor of the channels inside of bottlenecks; 2 is the wide ResNet of torchvision (`wide_resnet50_2`;
    /// arXiv:1605.07146).
    pub inner_multiplier: usize,
    /// What comes before the stages.
    pub stem: Stem,
    /// The channels of the image.
    pub in_channels: usize,
    /// Start each residual branch at zero (the scale of its last normalization): the block starts as the
    /// identity (Goyal et al., arXiv:1706.02677). The official VICReg code does so.
    pub zero_init_residual: bool,
}

impl Default for ResNetConfig {
    /// The standard ResNet-18 with the stem for small images.
    fn default() -> Self {
        Self {
            depth: 18,
            blocks: Vec::new(),
            width: 64,
            inner_multiplier: 1,
            stem: Stem::Cifar,
            in_channels: 3,
            zero_init_residual: false,
        }
    }
}

impl ResNetConfig {
    /// The number of blocks of each stage.
    ///
    /// # Errors
    /// A depth other than 18, 34, 50, 101 and 152, or explicit blocks with a stage of none or more than six stages.
    pub fn stages(&self) -> Result<Vec<usize>> {
        let of_depth = match self.depth {
            18 => vec![2, 2, 2, 2],
            34 | 50 => vec![3, 4, 6, 3],
            101 => vec![3, 4, 23, 3],
            152 => vec![3, 8, 36, 3],
            other => return Err(Error::config("depth", other, "must be 18, 34, 50, 101 or 152")),
        };
        if self.blocks.is_empty() {
            return Ok(of_depth);
        }
        if self.blocks.len() > 6 || self.blocks.contains(&0) {
            return Err(Error::config(
                "blocks",
                format!("{:?}", self.blocks),
                "must name one to six stages of at least one block each, for example [1, 1, 1]",
            ));
        }
        Ok(self.blocks.clone())
    }

    /// The width of the features, without building the network.
    ///
    /// # Errors
    /// As [`ResNetConfig::stages`], a width, multiplier or number of image channels of 0, or a multiplier for
    /// basic blocks.
    pub fn feature_dim(&self) -> Result<usize> {
        for (key, value) in [
            ("width", self.width),
            ("inner_multiplier", self.inner_multiplier),
            ("in_channels", self.in_channels),
        ] {
            if value == 0 {
                return Err(Error::config(key, value, "must be at least 1"));
            }
        }
        if self.inner_multiplier != 1 && self.expansion() == 1 {
            let reason = format!("depth = {} has no bottlenecks; widen it with `width`", self.depth);
            return Err(Error::config("inner_multiplier", self.inner_multiplier, reason));
        }
        let last = self.stages()?.len() - 1;
        Ok((self.width << last) * self.expansion())
    }

    fn expansion(&self) -> usize {
        if self.depth >= 50 { 4 } else { 1 }
    }
}

/// A residual network without its classifier (He et al., arXiv:1512.03385): images `(B, C, H, W)` to
/// features `(B, D)`, the mean over the last feature map.
///
/// Parameters carry torchvision's names (`conv1.weight`, `bn1.bias`, `layer1.0.conv1.weight`,
/// `layer2.0.downsample.1.running_var`), and a bottleneck has its stride in the 3x3 convolution, as there;
/// [`load_encoder`](crate::load_encoder) takes such weights.
#[derive(Clone, Debug)]
pub struct ResNet {
    name: String,
    in_channels: usize,
    whiten: Option<Whiten>,
    conv1: Conv2d,
    bn1: BatchNorm,
    pool: Option<Pool2dConfig>,
    blocks: Vec<Block>,
    feature_dim: usize,
    precision: Precision,
}

impl ResNet {
    /// Builds the network and draws its initial weights.
    ///
    /// # Errors
    /// A configuration out of range, or names that are taken.
    pub fn new(cfg: &ResNetConfig, scope: impl Into<Scope>) -> Result<Self> {
        Self::with_precision(cfg, Precision::F32, scope)
    }

    /// [`ResNet::new`] for training with `precision`. In evaluation the network computes in f32, whatever the
    /// precision: a checkpoint gives the same features to everyone.
    ///
    /// # Errors
    /// As [`ResNet::new`]; bf16 for parameters that are not f32 on the CPU or CUDA, tf32 for others than f32 on CUDA.
    pub fn with_precision(cfg: &ResNetConfig, precision: Precision, scope: impl Into<Scope>) -> Result<Self> {
        let scope = scope.into();
        let (stages, feature_dim) = (cfg.stages()?, cfg.feature_dim()?);
        let (side, stride, padding) = match cfg.stem {
            Stem::Cifar | Stem::Whitened | Stem::WhitenedTrained => (3, 1, 1),
            Stem::Imagenet => (7, 2, 3),
        };
        let geometry = Conv2dConfig { stride, padding, ..Conv2dConfig::default() };
        let whiten = match cfg.stem.whitens() {
            Some(trained) => Some(Whiten::new(cfg.in_channels, trained, scope.pp("whiten"))?),
            None => None,
        };
        let inputs = if whiten.is_some() { Whiten::outputs(cfg.in_channels) } else { cfg.in_channels };
        let conv1 = Conv2d::new(inputs, cfg.width, side, geometry, scope.pp("conv1"))?;
        precision.check(conv1.weight())?;
        let bn1 = BatchNorm::new(cfg.width, scope.pp("bn1"))?;
        let pool = (cfg.stem == Stem::Imagenet).then_some(Pool2dConfig { kernel: 3, stride: 2, padding: 1 });

        let mut blocks = Vec::new();
        let mut channels = cfg.width;
        for (i, &count) in stages.iter().enumerate() {
            let stage = scope.pp(format!("layer{}", i + 1));
            for j in 0..count {
                let stride = if i > 0 && j == 0 { 2 } else { 1 };
                blocks.push(Block::new(cfg, channels, cfg.width << i, stride, &stage.pp(j))?);
                channels = (cfg.width << i) * cfg.expansion();
            }
        }
        let (name, in_channels) = (scope.name(), cfg.in_channels);
        Ok(Self { name, in_channels, whiten, conv1, bn1, pool, blocks, feature_dim, precision })
    }

    /// The last feature map `(B, D, H', W')`, before the mean over pixels.
    ///
    /// # Errors
    /// A tensor that is not `(B, C, H, W)` with the configured number of channels, or with images too small
    /// for the stem.
    pub fn feature_map(&self, xs: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let xs = &self.enter(xs)?;
        if self.blocked(xs, pass) {
            return self.blocked_map(xs, pass)?.to_images().map_err(Error::kernel(&self.name));
        }
        self.plain_map(xs, pass)
    }

    /// True if this pass keeps its maps in bf16.
    fn half(&self, pass: &Pass<'_>) -> bool {
        self.precision == Precision::Bf16 && pass.is_train()
    }

    /// True where the fused operations on blocks of images apply and pay: a block holds eight images at least,
    /// and the time of a block does not depend on how many of them are real. On the CPU bf16 has no other form, and ranks with
    /// more and with fewer images have to take their statistics in the same order.
    fn blocked(&self, xs: &Tensor, pass: &Pass<'_>) -> bool {
        Blocked::supports(xs) && (self.half(pass) || xs.dims()[0] >= 3 || pass.collective.size() > 1)
    }

    /// The images, checked and whitened where there is a layer for it.
    fn enter(&self, xs: &Tensor) -> Result<Tensor> {
        if xs.rank() != 4 || xs.dims()[1] != self.in_channels || xs.elem_count() == 0 {
            return Err(Error::Shape {
                layer: self.name.clone(),
                expected: format!("images (batch, {}, height, width)", self.in_channels),
                got: xs.dims().to_vec(),
            });
        }
        self.whiten.as_ref().map_or_else(|| Ok(xs.clone()), |whiten| whiten.forward(xs))
    }

    /// Layer by layer, on any device. The result has the type of `xs`.
    fn plain_map(&self, xs: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let dtype = xs.dtype();
        let xs = if self.half(pass) { xs.to_dtype(DType::BF16)? } else { xs.clone() };
        let mut ys = self.bn1.forward_after(&self.conv1, &xs, None, Activation::Relu, pass)?;
        if let Some(pool) = self.pool {
            ys = max_pool2d(&ys, pool).map_err(Error::kernel(&self.name))?;
        }
        for block in &self.blocks {
            ys = block.forward(&ys, pass)?;
        }
        Ok(ys.to_dtype(dtype)?)
    }

    /// All blocks as one operation; before a pooling the stem is another one.
    fn blocked_map(&self, xs: &Tensor, pass: &Pass<'_>) -> Result<Blocked> {
        let kernel = || Error::kernel(&self.name);
        let mut xs = match self.half(pass) {
            true => Blocked::from_images_bf16(xs),
            false => Blocked::from_images(xs),
        }
        .map_err(kernel())?;
        let mut chain =
            vec![Fused { branch: vec![(&self.conv1, &self.bn1)], shortcut: None, residual: false }];
        if let Some(pool) = self.pool {
            xs = run(&self.name, &xs, &chain, pass)?.max_pool2d(pool).map_err(kernel())?;
            chain.clear();
        }
        chain.extend(self.blocks.iter().map(|block| Fused {
            branch: block.branch.iter().map(|(conv, bn)| (conv, bn)).collect(),
            shortcut: block.shortcut.as_ref().map(|(conv, bn)| (conv, bn)),
            residual: true,
        }));
        run(&self.name, &xs, &chain, pass)
    }
}

impl Encoder for ResNet {
    fn forward(&self, xs: &Tensor, pass: &Pass<'_>) -> infomax_core::Result<Tensor> {
        let xs = &self.enter(xs)?;
        let pooled = if self.blocked(xs, pass) {
            self.blocked_map(xs, pass)?.global_avg_pool()
        } else {
            global_avg_pool(&self.plain_map(xs, pass)?)
        };
        Ok(pooled.map_err(Error::kernel(&self.name))?)
    }

    fn forward_mapped(&self, xs: &Tensor, pass: &Pass<'_>) -> infomax_core::Result<Option<Mapped>> {
        let map = self.feature_map(xs, pass)?;
        let features = global_avg_pool(&map).map_err(Error::kernel(&self.name))?;
        Mapped::of_images(features, &map).map(Some)
    }

    fn feature_dim(&self) -> usize {
        self.feature_dim
    }
}

/// `relu(branch(x) + shortcut(x))`: a branch of two (basic) or three (bottleneck) convolutions, each with its
/// normalization and all but the last with a ReLU; the shortcut is the identity where shapes allow it.
#[derive(Clone, Debug)]
struct Block {
    branch: Vec<(Conv2d, BatchNorm)>,
    shortcut: Option<(Conv2d, BatchNorm)>,
}

impl Block {
    fn new(cfg: &ResNetConfig, inputs: usize, planes: usize, stride: usize, scope: &Scope) -> Result<Self> {
        let outputs = planes * cfg.expansion();
        // (inputs, outputs, side, stride) of each convolution.
        let plan = if cfg.expansion() == 1 {
            vec![(inputs, planes, 3, stride), (planes, planes, 3, 1)]
        } else {
            let inner = planes * cfg.inner_multiplier;
            vec![(inputs, inner, 1, 1), (inner, inner, 3, stride), (inner, outputs, 1, 1)]
        };
        let count = plan.len();
        let mut branch = Vec::with_capacity(count);
        for (i, (inputs, outputs, side, stride)) in plan.into_iter().enumerate() {
            let geometry = Conv2dConfig { stride, padding: side / 2, ..Conv2dConfig::default() };
            let conv = Conv2d::new(inputs, outputs, side, geometry, scope.pp(format!("conv{}", i + 1)))?;
            let scale = if cfg.zero_init_residual && i + 1 == count { 0.0 } else { 1.0 };
            branch.push((conv, BatchNorm::with_scale(outputs, scale, scope.pp(format!("bn{}", i + 1)))?));
        }
        let shortcut = if stride != 1 || inputs != outputs {
            let scope = scope.pp("downsample");
            let geometry = Conv2dConfig { stride, ..Conv2dConfig::default() };
            let conv = Conv2d::new(inputs, outputs, 1, geometry, scope.pp(0))?;
            Some((conv, BatchNorm::new(outputs, scope.pp(1))?))
        } else {
            None
        };
        Ok(Self { branch, shortcut })
    }

    fn forward(&self, xs: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        let shortcut = match &self.shortcut {
            Some((conv, bn)) => bn.forward_after(conv, xs, None, Activation::None, pass)?,
            None => xs.clone(),
        };
        let mut ys = xs.clone();
        for (i, (conv, bn)) in self.branch.iter().enumerate() {
            let residual = (i + 1 == self.branch.len()).then_some(&shortcut);
            ys = bn.forward_after(conv, &ys, residual, Activation::Relu, pass)?;
        }
        Ok(ys)
    }
}

/// Convolutions with their norms, and whether and how their input is added to them.
pub(crate) struct Fused<'a> {
    pub(crate) branch: Vec<(&'a Conv2d, &'a BatchNorm)>,
    pub(crate) shortcut: Option<(&'a Conv2d, &'a BatchNorm)>,
    pub(crate) residual: bool,
}

/// A chain of units as one operation. The running statistics follow in training.
pub(crate) fn run(name: &str, xs: &Blocked, chain: &[Fused<'_>], pass: &Pass<'_>) -> Result<Blocked> {
    let layers: Vec<_> = chain.iter().flat_map(|u| u.branch.iter().chain(&u.shortcut)).copied().collect();
    let running: Vec<_> = match pass.is_train() {
        true => vec![None; layers.len()],
        false => layers.iter().map(|(_, bn)| Some(bn.running())).collect(),
    };
    let mut parts = layers.iter().zip(&running).map(|((conv, bn), stats)| bn.after(conv, stats.as_ref()));
    let units: Vec<_> = chain
        .iter()
        .map(|unit| ResidualUnit {
            branch: parts.by_ref().take(unit.branch.len()).collect(),
            shortcut: match unit.shortcut.and_then(|_| parts.next()) {
                Some(projection) => Shortcut::Projection(projection),
                None if unit.residual => Shortcut::Identity,
                None => Shortcut::None,
            },
        })
        .collect();
    let out = match crate::peers::of(pass) {
        Some(peers) => xs.residual_with(&units, BatchNorm::EPS, peers),
        None => xs.residual(&units, BatchNorm::EPS),
    }
    .map_err(Error::kernel(name))?;
    if pass.is_train() {
        let norms = || layers.iter().map(|(_, bn)| bn).zip(&out.stats);
        norms().try_for_each(|(bn, s)| bn.at_least_two(s.count, &[s.count, s.mean.elem_count()]))?;
        norms().try_for_each(|(bn, s)| bn.follow(&s.mean, &s.var, s.count))?;
        norms().for_each(|(bn, s)| bn.saw(&s.mean, &s.var, pass));
    }
    Ok(out.ys)
}
