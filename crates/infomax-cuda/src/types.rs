//! Settings of the operations, which the CPU operations of `infomax-kernels` have too, and the arithmetic of their
//! shapes; no CUDA is needed here.

// Without cuDNN nothing calls the arithmetic of convolutions but the tests.
#![cfg_attr(not(feature = "cudnn"), allow(dead_code))]

use crate::{Error, Result};
use candle_core::Tensor;

/// The geometry of a convolution, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Conv2dConfig {
    /// The step between windows, in pixels.
    pub stride: usize,
    /// The zeros added on each side, in pixels.
    pub padding: usize,
    /// The step between taps of the kernel, in pixels.
    pub dilation: usize,
    /// The number of groups of channels that do not mix.
    pub groups: usize,
}

impl Default for Conv2dConfig {
    /// Stride 1, no padding, no dilation, one group: the default of PyTorch.
    fn default() -> Self {
        Self { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}

/// The geometry of a pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool2dConfig {
    /// The side of the window, in pixels.
    pub kernel: usize,
    /// The step between windows, in pixels.
    pub stride: usize,
    /// The padding on each side, in pixels; at most half of the kernel.
    pub padding: usize,
}

impl Pool2dConfig {
    /// Windows side by side: the stride is the kernel, without padding.
    pub fn new(kernel: usize) -> Self {
        Self { kernel, stride: kernel, padding: 0 }
    }
}

/// The order of the dimensions of a batch of images in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Images {
    /// `(N, C, H, W)`.
    #[default]
    ChannelsFirst,
    /// `(N, H, W, C)`.
    ChannelsLast,
}

impl Images {
    /// `(N, C, H, W)` of a tensor in this order.
    pub(crate) fn sizes(self, op: &'static str, xs: &Tensor) -> Result<[usize; 4]> {
        match (self, xs.dims()) {
            (Self::ChannelsFirst, &[n, c, h, w]) => Ok([n, c, h, w]),
            (Self::ChannelsLast, &[n, h, w, c]) => Ok([n, c, h, w]),
            (_, dims) => {
                let expected = "of rank 4".into();
                Err(Error::Shape { op, name: "xs", expected, got: dims.to_vec() })
            }
        }
    }

    /// The shape of `(n, c, h, w)` in this order.
    pub(crate) fn shape(self, [n, c, h, w]: [usize; 4]) -> [usize; 4] {
        match self {
            Self::ChannelsFirst => [n, c, h, w],
            Self::ChannelsLast => [n, h, w, c],
        }
    }
}

/// How f32 convolutions multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Math {
    /// In f32.
    #[default]
    F32,
    /// Factors are rounded to 10 bits of mantissa (TF32), sums are f32: the default of PyTorch for convolutions.
    Tf32,
}

/// How the f32 matrix products of second moments are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Products {
    /// In f32.
    #[default]
    F32,
    /// Factors are rounded to 10 bits of mantissa (TF32), sums are f32.
    Tf32,
    /// Each factor as the sum of two of 10 bits of mantissa, the products of which, but for that of the two small ones, are
    /// added in f32: about 21 bits by three products with TF32 (arXiv:2203.03341 without its sums outside of the tensor
    /// cores). Needs room for a copy of each factor twice.
    SplitTf32,
}

/// How an algorithm of cuDNN is chosen; the choice is kept by shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Search {
    /// The first in cuDNN's own order whose sums have a fixed order: the same bits in every run.
    #[default]
    Deterministic,
    /// The first in cuDNN's own order.
    Heuristic,
    /// The fastest in a measurement at the first use of a shape. Two runs may choose differently.
    Measured,
}

/// What a convolution computes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Options {
    /// The arithmetic for f32.
    pub math: Math,
    /// The choice of the algorithm.
    pub search: Search,
    /// The order of the dimensions of images. Weights are `(K, C / groups, R, S)` in both.
    pub images: Images,
}

/// A function of one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// `max(x, 0)`, with the derivative 0 at 0. NaN stays.
    Relu,
    /// `x (1 + erf(x / sqrt 2)) / 2`, the exact form.
    Gelu,
    /// `x / (1 + e^-x)`.
    Silu,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// The error function.
    Erf,
    /// `e^x`.
    Exp,
}

/// The score of two rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Score {
    /// `-c |x_i - x_j|^2`.
    Distance(f64),
    /// `c x_i . x_j`.
    Dot(f64),
}

/// Which columns a row leaves out of its sum. All choices are symmetric in the row and the column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclude {
    /// None.
    Nothing,
    /// The row itself.
    Own,
    /// All rows of the same sample, for views stacked below each other: `j = i` modulo the batch.
    Sample(usize),
}

impl Exclude {
    /// Whether row `i` leaves out column `j`.
    pub fn excludes(self, i: usize, j: usize) -> bool {
        match self {
            Self::Nothing => false,
            Self::Own => i == j,
            Self::Sample(batch) => i % batch == j % batch,
        }
    }
}

/// The result of batch norm in training.
#[derive(Clone, Debug)]
pub struct BatchNormOutput {
    /// The normalized input, with the shape and type of the input.
    pub ys: Tensor,
    /// The mean of each channel over this batch, `(C)`, outside of the graph: f32 on a CUDA device.
    pub mean: Tensor,
    /// The biased variance of each channel over this batch, `(C)`, outside of the graph: f32 on a CUDA device.
    pub var: Tensor,
    /// The values of each channel that they were taken over, those of other processes too.
    pub count: usize,
}

/// The sizes of a convolution, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConvShape {
    pub(crate) n: usize,
    pub(crate) c: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) k: usize,
    pub(crate) r: usize,
    pub(crate) s: usize,
    pub(crate) p: usize,
    pub(crate) q: usize,
    pub(crate) cfg: Conv2dConfig,
}

impl ConvShape {
    /// The sizes for images `(n, c, h, w)` and weights `(k, c / groups, r, s)`.
    pub(crate) fn new(images: [usize; 4], weight: [usize; 4], cfg: Conv2dConfig) -> Result<Self> {
        const OP: &str = "conv2d";
        let ([n, c, h, w], [k, cg, r, s]) = (images, weight);
        for (name, value) in [("stride", cfg.stride), ("dilation", cfg.dilation), ("groups", cfg.groups)] {
            if value == 0 {
                return Err(Error::Config { op: OP, name, value: "0".into(), reason: "must be at least 1" });
            }
        }
        if cg * cfg.groups != c || k % cfg.groups != 0 {
            let expected = format!("(K, {c} / {} groups, R, S) with K divisible by the groups", cfg.groups);
            return Err(Error::Shape { op: OP, name: "weight", expected, got: weight.to_vec() });
        }
        let out = |size: usize, taps: usize| {
            let reach = cfg.dilation * taps.checked_sub(1)? + 1;
            Some((size + 2 * cfg.padding).checked_sub(reach)? / cfg.stride + 1)
        };
        let (Some(p), Some(q)) = (out(h, r), out(w, s)) else {
            let expected =
                format!("at least as large as the kernel {r}x{s} after padding by {}", cfg.padding);
            return Err(Error::Shape { op: OP, name: "xs", expected, got: images.to_vec() });
        };
        let shape = Self { n, c, h, w, k, r, s, p, q, cfg };
        if images.contains(&0) || weight.contains(&0) {
            let expected = "with elements".into();
            return Err(Error::Shape { op: OP, name: "xs", expected, got: images.to_vec() });
        }
        Ok(shape)
    }
}

impl Pool2dConfig {
    /// The output size for planes of `h` by `w`.
    pub(crate) fn out(self, op: &'static str, h: usize, w: usize) -> Result<(usize, usize)> {
        for (name, value) in [("kernel", self.kernel), ("stride", self.stride)] {
            if value == 0 {
                return Err(Error::Config { op, name, value: "0".into(), reason: "must be at least 1" });
            }
        }
        if self.padding * 2 > self.kernel {
            let reason = "must be at most half of the kernel, so that every window holds a pixel";
            return Err(Error::Config { op, name: "padding", value: self.padding.to_string(), reason });
        }
        let out = |size: usize| {
            (size + 2 * self.padding).checked_sub(self.kernel).map(|room| room / self.stride + 1)
        };
        match (out(h), out(w)) {
            (Some(p), Some(q)) => Ok((p, q)),
            _ => {
                let expected = format!("at least {0}x{0} after padding by {1}", self.kernel, self.padding);
                Err(Error::Shape { op, name: "xs", expected, got: vec![h, w] })
            }
        }
    }
}

/// How a sum over `len` terms is cut: `(parts, terms of a part)`. At least `least` terms a part, which is also
/// what the terms of a part are a multiple of, and at most `most` parts; every part has terms.
pub(crate) fn parts(len: usize, least: usize, most: usize) -> (usize, usize) {
    let per = len.div_ceil(most.max(1)).next_multiple_of(least.max(1));
    (len.div_ceil(per).max(1), per)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_everything_once() {
        for len in [1, 2, 63, 64, 65, 1000, 524_288, 524_289] {
            for least in [1, 4, 64, 1024] {
                for most in [1, 3, 16, 512] {
                    let (count, per) = parts(len, least, most);
                    assert!(count <= most && per.is_multiple_of(least), "{len} {least} {most}");
                    assert!((count - 1) * per < len && len <= count * per, "{len} {least} {most}");
                }
            }
        }
    }

    #[test]
    fn sizes_of_convolutions() {
        let cfg = Conv2dConfig { stride: 2, padding: 3, ..Default::default() };
        let shape = ConvShape::new([2, 3, 224, 224], [64, 3, 7, 7], cfg).unwrap();
        assert_eq!((shape.p, shape.q), (112, 112));
        let cfg = Conv2dConfig { dilation: 2, ..Default::default() };
        let shape = ConvShape::new([1, 4, 9, 5], [2, 4, 3, 3], cfg).unwrap();
        assert_eq!((shape.p, shape.q), (5, 1));
        for (images, weight, cfg) in [
            ([1, 4, 4, 4], [2, 4, 3, 3], Conv2dConfig { dilation: 2, ..Default::default() }),
            ([1, 4, 4, 4], [2, 3, 3, 3], Conv2dConfig::default()),
            ([1, 4, 4, 4], [3, 2, 1, 1], Conv2dConfig { groups: 2, ..Default::default() }),
            ([1, 4, 4, 4], [2, 4, 1, 1], Conv2dConfig { stride: 0, ..Default::default() }),
            ([0, 4, 4, 4], [2, 4, 1, 1], Conv2dConfig::default()),
            ([1, 4, 4, 4], [2, 4, 0, 1], Conv2dConfig::default()),
        ] {
            assert!(ConvShape::new(images, weight, cfg).is_err(), "{images:?} {weight:?} {cfg:?}");
        }
    }

    #[test]
    fn sizes_of_poolings() {
        let cfg = Pool2dConfig { kernel: 3, stride: 2, padding: 1 };
        assert_eq!(cfg.out("max_pool2d", 112, 7).unwrap(), (56, 4));
        assert!(Pool2dConfig { kernel: 3, stride: 1, padding: 2 }.out("max_pool2d", 9, 9).is_err());
        assert!(Pool2dConfig { kernel: 3, stride: 1, padding: 0 }.out("max_pool2d", 2, 9).is_err());
        assert!(Pool2dConfig { kernel: 2, stride: 0, padding: 0 }.out("max_pool2d", 4, 4).is_err());
    }

    #[test]
    fn plans_are_kept_apart_by_everything_that_matters() {
        let base = (
            ConvShape::new([2, 4, 8, 8], [4, 4, 3, 3], Conv2dConfig::default()).unwrap(),
            Options::default(),
        );
        let other = Conv2dConfig { padding: 1, ..Default::default() };
        let mut keys = std::collections::HashSet::from([base]);
        assert!(keys.insert((ConvShape::new([2, 4, 8, 8], [4, 4, 3, 3], other).unwrap(), base.1)));
        assert!(keys.insert((base.0, Options { math: Math::Tf32, ..base.1 })));
        assert!(keys.insert((base.0, Options { images: Images::ChannelsLast, ..base.1 })));
        assert!(keys.insert((base.0, Options { search: Search::Measured, ..base.1 })));
        assert!(!keys.insert(base));
    }
}
