//! The residual network of nine layers.

use crate::resnet::{Fused, run};
use crate::transformer::images;
use crate::whiten::Whiten;
use crate::{BatchNorm, Conv2d, Error, Precision, Result, Scope, Stem};
use candle_core::{DType, Tensor};
use infomax_core::{Encoder, Mapped, Pass};
use infomax_kernels::{Activation, Blocked, Conv2dConfig, Pool2dConfig, max_pool2d};
use serde::{Deserialize, Serialize};

/// The shape of a [`ResNet9`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ResNet9Config {
    /// The channels of the first layer, doubled three times; the features have eight times as many.
    pub width: usize,
    /// The channels of the image.
    pub in_channels: usize,
    /// What comes before the first layer: `cifar` for nothing, `whitened` or `whitened-trained`.
    pub stem: Stem,
}

impl Default for ResNet9Config {
    /// The network of 64 to 512 channels: 6.6 million parameters.
    fn default() -> Self {
        Self { width: 64, in_channels: 3, stem: Stem::Cifar }
    }
}

/// The residual network of Page's "How to train your ResNet" (2018, winner of DAWNBench on CIFAR-10) without its
/// classifier: images `(B, C, H, W)` of 8x8 pixels at least to features `(B, 8 width)`, the largest value of each
/// channel.
///
/// `prep`, then `layer1` to `layer3`: each a 3x3 convolution, batch norm and ReLU; the last three halve the image by
/// a 2x2 max-pool, and the first and third of these add `x + relu(bn(conv(relu(bn(conv(x))))))`. Parameters are
/// `prep.conv.weight`, `layer1.bn.bias`, `layer3.residual.0.conv.weight` and so on; weights start as those of
/// [`ResNet`](crate::ResNet).
#[derive(Clone, Debug)]
pub struct ResNet9 {
    name: String,
    cfg: ResNet9Config,
    precision: Precision,
    whiten: Option<Whiten>,
    prep: Layer,
    layers: Vec<(Layer, Vec<Layer>)>,
}

#[derive(Clone, Debug)]
struct Layer {
    conv: Conv2d,
    bn: BatchNorm,
}

/// Feature maps in either layout.
enum Maps {
    Plain(Tensor),
    Blocked(Blocked),
}

const POOL: Pool2dConfig = Pool2dConfig { kernel: 2, stride: 2, padding: 0 };

impl ResNet9 {
    /// Builds the network and draws its initial weights.
    ///
    /// # Errors
    /// A width or number of channels of 0, or names that are taken.
    pub fn new(cfg: &ResNet9Config, scope: impl Into<Scope>) -> Result<Self> {
        Self::with_precision(cfg, Precision::F32, scope)
    }

    /// [`ResNet9::new`] for training with `precision`; in evaluation the network computes in f32.
    ///
    /// # Errors
    /// As [`ResNet9::new`]; bf16 for parameters that are not f32 on the CPU or CUDA.
    pub fn with_precision(
        cfg: &ResNet9Config,
        precision: Precision,
        scope: impl Into<Scope>,
    ) -> Result<Self> {
        let scope = scope.into();
        for (key, value) in [("width", cfg.width), ("in_channels", cfg.in_channels)] {
            if value == 0 {
                return Err(Error::config(key, value, "must be at least 1"));
            }
        }
        if cfg.stem == Stem::Imagenet {
            let reason = "a ResNet-9 takes small images: `cifar`, `whitened` or `whitened-trained`";
            return Err(Error::config("stem", "imagenet", reason));
        }
        let whiten = match cfg.stem.whitens() {
            Some(trained) => Some(Whiten::new(cfg.in_channels, trained, scope.pp("whiten"))?),
            None => None,
        };
        let inputs = if whiten.is_some() { Whiten::outputs(cfg.in_channels) } else { cfg.in_channels };
        let prep = Layer::new(inputs, cfg.width, &scope.pp("prep"))?;
        precision.check(prep.conv.weight())?;
        let mut layers = Vec::with_capacity(3);
        for i in 0..3 {
            let (inputs, outputs, scope) =
                (cfg.width << i, cfg.width << (i + 1), scope.pp(format!("layer{}", i + 1)));
            let residual = if i == 1 { 0..0 } else { 0..2 };
            let residual = residual.map(|j| Layer::new(outputs, outputs, &scope.pp("residual").pp(j)));
            layers.push((Layer::new(inputs, outputs, &scope)?, residual.collect::<Result<_>>()?));
        }
        Ok(Self { name: scope.name(), cfg: cfg.clone(), precision, whiten, prep, layers })
    }

    /// The last feature map `(B, 8 width, H / 8, W / 8)`.
    ///
    /// # Errors
    /// A tensor that is not `(B, C, H, W)` with the configured channels, or images below 8x8 pixels.
    pub fn feature_map(&self, xs: &Tensor, pass: &Pass<'_>) -> Result<Tensor> {
        // The whitening takes a row and a column.
        let least = 8 + usize::from(self.whiten.is_some());
        images(&self.name, xs, self.cfg.in_channels, least)?;
        let xs = &self.whiten.as_ref().map_or_else(|| Ok(xs.clone()), |whiten| whiten.forward(xs))?;
        let half = self.precision == Precision::Bf16 && pass.is_train();
        // As in the other residual networks, a block of images pays from three on, and ranks take the same form.
        let enough = xs.dims()[0] >= 3 || pass.collective.size() > 1;
        let blocked = Blocked::supports(xs) && (half || enough);
        let enter = |xs: &Tensor| -> Result<Maps> {
            Ok(match (blocked, half) {
                (true, true) => Maps::Blocked(Blocked::from_images_bf16(xs).map_err(self.error())?),
                (true, false) => Maps::Blocked(Blocked::from_images(xs).map_err(self.error())?),
                (false, true) => Maps::Plain(xs.to_dtype(DType::BF16)?),
                (false, false) => Maps::Plain(xs.clone()),
            })
        };
        let mut maps = self.prep.forward(&self.name, &enter(xs)?, pass)?;
        for (layer, residual) in &self.layers {
            maps = match layer.forward(&self.name, &maps, pass)? {
                Maps::Plain(ys) => Maps::Plain(max_pool2d(&ys, POOL).map_err(self.error())?),
                Maps::Blocked(ys) => Maps::Blocked(ys.max_pool2d(POOL).map_err(self.error())?),
            };
            if let [first, second] = residual.as_slice() {
                let branch = second.forward(&self.name, &first.forward(&self.name, &maps, pass)?, pass)?;
                maps = enter(&(self.leave(&maps)? + self.leave(&branch)?)?)?;
            }
        }
        self.leave(&maps)
    }

    fn leave(&self, maps: &Maps) -> Result<Tensor> {
        match maps {
            // Sums of maps, and what comes after them, are f32 here as in blocks.
            Maps::Plain(ys) if ys.dtype() == DType::BF16 => Ok(ys.to_dtype(DType::F32)?),
            Maps::Plain(ys) => Ok(ys.clone()),
            Maps::Blocked(ys) => ys.to_images().map_err(self.error()),
        }
    }

    fn error(&self) -> impl FnOnce(infomax_kernels::Error) -> Error + '_ {
        Error::kernel(&self.name)
    }
}

impl Encoder for ResNet9 {
    fn forward(&self, xs: &Tensor, pass: &Pass<'_>) -> infomax_core::Result<Tensor> {
        // Values are at least 0, and a tie at 0 gets no gradient through the ReLU below it.
        Ok(self.feature_map(xs, pass)?.flatten_from(2)?.max(2)?)
    }

    fn forward_mapped(&self, xs: &Tensor, pass: &Pass<'_>) -> infomax_core::Result<Option<Mapped>> {
        let map = self.feature_map(xs, pass)?;
        Mapped::of_images(map.flatten_from(2)?.max(2)?, &map).map(Some)
    }

    fn feature_dim(&self) -> usize {
        8 * self.cfg.width
    }
}

impl Layer {
    fn new(inputs: usize, outputs: usize, scope: &Scope) -> Result<Self> {
        let geometry = Conv2dConfig { padding: 1, ..Conv2dConfig::default() };
        let conv = Conv2d::new(inputs, outputs, 3, geometry, scope.pp("conv"))?;
        Ok(Self { conv, bn: BatchNorm::new(outputs, scope.pp("bn"))? })
    }

    /// `relu(bn(conv(xs)))`.
    fn forward(&self, name: &str, xs: &Maps, pass: &Pass<'_>) -> Result<Maps> {
        Ok(match xs {
            Maps::Plain(xs) => {
                Maps::Plain(self.bn.forward_after(&self.conv, xs, None, Activation::Relu, pass)?)
            }
            Maps::Blocked(xs) => {
                let unit = Fused { branch: vec![(&self.conv, &self.bn)], shortcut: None, residual: false };
                Maps::Blocked(run(name, xs, &[unit], pass)?)
            }
        })
    }
}
