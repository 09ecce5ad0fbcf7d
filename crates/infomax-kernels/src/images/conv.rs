//! One convolution in the blocked layout, by the form that suits its shape.

use super::direct::{Direct, DirectWeight, Reach, pack};
use super::dot_pairs::{pack_pairs, pairs};
use super::layout::{Blocked, Dims};
use super::tile::{fit, geometry};
use super::tiles::{Maps, Pass, TileConv, Weight, pays, weight_grad};
use super::winograd::{Winograd, suits};
use super::winograd_weight::WinogradWeight;
use crate::settings::{Arithmetic, CpuProducts, Single};
use crate::tensor::backward::hand;
use crate::tensor::check;
use crate::tensor::check::ConvShape;
use crate::tensor::storage::{contiguous, result, slice, tensor};
use crate::{Conv2dConfig, Error, Result};
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Shape, Tensor};
use half::bf16;
use infomax_simd::Stored;
use infomax_simd::pairs::PairIsa;
use infomax_simd::tiles::{Factors, TileIsa};
use infomax_simd::{Float as _, Isa, Shared, filled};
use std::any::Any;

/// A convolution of known sizes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conv {
    pub(super) shape: ConvShape,
    pub(super) blocks: usize,
    pub(super) lanes: usize,
    pub(super) isa: Isa,
    /// False: never by Winograd's form, and by tiles or pairs of bf16 wherever there are some.
    pub(super) fast: bool,
    /// The choice of the process when it was made.
    pub(super) products: CpuProducts,
}

/// How a pass of a convolution is computed.
enum Form {
    Tiles(TileIsa),
    Pairs(PairIsa),
    Winograd,
    Direct,
}

impl Conv {
    /// # Errors
    /// Sizes that do not fit; groups.
    pub(super) fn new(d: &Dims, weight: &[usize], cfg: Conv2dConfig, isa: Isa) -> Result<Self> {
        const OP: &str = "blocked::conv2d";
        let [k, c, r, s] = *weight else {
            return Err(Error::Shape {
                op: OP,
                name: "weight",
                expected: "of rank 4".into(),
                got: weight.to_vec(),
            });
        };
        if cfg.groups != 1 {
            let (name, value) = ("groups", cfg.groups.to_string());
            return Err(Error::Config { op: OP, name, value, reason: "must be 1 in the blocked layout" });
        }
        let shape = check::conv_sizes(OP, [d.images, d.c, d.h, d.w], [k, c, r, s], cfg)?;
        Ok(Self {
            shape,
            blocks: d.blocks,
            lanes: d.lanes,
            isa,
            fast: true,
            products: CpuProducts::current(),
        })
    }

    /// The sizes of the result.
    pub(super) fn output(&self) -> Dims {
        let d = &self.shape;
        Dims { images: d.n, blocks: self.blocks, h: d.p, w: d.q, c: d.k, lanes: self.lanes }
    }

    /// The form of a pass over maps of type `E`: a function of the machine, of the shape and of the choice of the process.
    fn form<E: Stored>(&self, pass: Pass) -> Form {
        if let Some(tiles) = self.tiles::<E>(pass) {
            return Form::Tiles(tiles);
        }
        match self.pairs() {
            Some(pairs) if E::as_bf16(&[]).is_some() => Form::Pairs(pairs),
            _ if self.fast && suits(&self.shape) => Form::Winograd,
            _ => Form::Direct,
        }
    }

    /// The tiles that multiply maps in bf16, and the parts of maps in f32 where these are to be split, where they are
    /// expected to be the fastest form ([`pays`]) or are asked for.
    fn tiles<E: Stored>(&self, pass: Pass) -> Option<TileIsa> {
        let factors = if E::as_bf16(&[]).is_some() {
            Factors::Rounded
        } else if self.products.single == Single::Split && E::as_f32(&[]).is_some() {
            Factors::Split
        } else {
            return None;
        };
        let found = TileIsa::of(self.isa)?;
        let chosen = match self.products.arithmetic {
            Arithmetic::F32 | Arithmetic::Pairs => false,
            Arithmetic::Tiles => true,
            Arithmetic::Auto => !self.fast || pays(&self.shape, self.blocks, self.lanes, pass, factors),
        };
        chosen.then_some(found)
    }

    /// The pairs that multiply maps in bf16, where they are the fastest form: not where Winograd's suits, which in f32 registers is as fast
    /// on maps in bf16 as on those in f32 or faster, where pairs are mostly slower (`docs/kernels-speed.md`); and not on processors
    /// whose pairs are slower than f32. Or wherever there are some, where they are asked for.
    fn pairs(&self) -> Option<PairIsa> {
        let found = pairs(self.isa, self.lanes);
        match self.products.arithmetic {
            Arithmetic::F32 | Arithmetic::Tiles => None,
            Arithmetic::Auto if self.fast => found.filter(|pairs| pairs.pay() && !suits(&self.shape)),
            Arithmetic::Pairs | Arithmetic::Auto => found,
        }
    }

    fn rows<E: Stored>(&self) -> usize {
        geometry::<E::Real>(fit::<E::Real>(self.isa, self.lanes)).0
    }

    pub(super) fn forward<E: Stored>(&self, source: &[E], weight: &[E::Real]) -> Vec<E> {
        // SAFETY: both forms write every pixel.
        unsafe { filled(self.output().len(), |out| self.forward_to(source, weight, out)) }
    }

    /// # Safety
    /// `out` must be valid for the whole result, and no one else may use it meanwhile.
    pub(super) unsafe fn forward_to<E: Stored>(&self, source: &[E], weight: &[E::Real], out: Shared<E>) {
        let d = &self.shape;
        let taps = d.r * d.s;
        let at = |k: usize, c: usize, t: usize| weight[(k * d.c + c) * taps + t];
        let (blocks, lanes) = (self.blocks, self.lanes);
        // SAFETY: passed on.
        unsafe {
            match (self.form::<E>(Pass::Forward), E::as_bf16(source), Maps::with(source, weight)) {
                (Form::Tiles(tiles), _, Some((source, values))) => {
                    let weight = Weight { values, strides: (d.c * taps, taps) };
                    let reach = &Reach::forward(d);
                    let (channels, outputs) = (d.c, d.k);
                    TileConv { reach, blocks, lanes, source, channels, outputs, weight, add: false }.run(
                        tiles,
                        self.isa,
                        Shared::new(out.get().cast()),
                    );
                }
                (Form::Pairs(isa), Some(source), _) => {
                    let weights = &pack_pairs(d.k, d.c, taps, |k, c, t| bf16::from_f64(at(k, c, t).f64()));
                    let reach = &Reach::forward(d);
                    let (channels, outputs) = (d.c, d.k);
                    Direct { reach, blocks, lanes, source, channels, outputs, weights, add: false }
                        .run_pairs(isa, Shared::new(out.get().cast()));
                }
                (Form::Winograd, ..) => {
                    Winograd { shape: d, blocks, lanes, source, add: false }.run(self.isa, at, out);
                }
                _ => {
                    let weights = &pack::<E>(self.rows::<E>(), d.k, d.c, taps, at);
                    let reach = &Reach::forward(d);
                    let (channels, outputs) = (d.c, d.k);
                    Direct { reach, blocks, lanes, source, channels, outputs, weights, add: false }
                        .run(self.isa, out);
                }
            }
        }
    }

    /// The gradient of the input, written to or added to `out`.
    ///
    /// # Safety
    /// `out` must be valid for the whole input, initialized where `add` is set, and no one else may use it
    /// meanwhile.
    pub(super) unsafe fn input_grad<E: Stored>(
        &self,
        weight: &[E::Real],
        grad: &[E],
        out: Shared<E>,
        add: bool,
    ) {
        let d = &self.shape;
        let taps = d.r * d.s;
        let (blocks, lanes) = (self.blocks, self.lanes);
        // SAFETY: passed on.
        unsafe {
            match (self.form::<E>(Pass::InputGrad), E::as_bf16(grad), Maps::with(grad, weight)) {
                (Form::Tiles(tiles), _, Some((source, values))) => {
                    let weight = Weight { values, strides: (taps, d.c * taps) };
                    let reach = &Reach::backward(d);
                    let (channels, outputs) = (d.k, d.c);
                    TileConv { reach, blocks, lanes, source, channels, outputs, weight, add }.run(
                        tiles,
                        self.isa,
                        Shared::new(out.get().cast()),
                    );
                }
                (Form::Pairs(isa), Some(source), _) => {
                    let at = |c: usize, k: usize, t: usize| weight[(k * d.c + c) * taps + t].f64();
                    let weights = &pack_pairs(d.c, d.k, taps, |c, k, t| bf16::from_f64(at(c, k, t)));
                    let reach = &Reach::backward(d);
                    let (channels, outputs) = (d.k, d.c);
                    Direct { reach, blocks, lanes, source, channels, outputs, weights, add }
                        .run_pairs(isa, Shared::new(out.get().cast()));
                }
                (Form::Winograd, ..) => {
                    // A convolution of the gradient with the kernel turned by 180 degrees.
                    let turned = ConvShape {
                        c: d.k,
                        h: d.p,
                        w: d.q,
                        k: d.c,
                        p: d.h,
                        q: d.w,
                        padding: 2 - d.padding,
                        ..*d
                    };
                    let at = |c: usize, k: usize, t: usize| weight[(k * d.c + c) * taps + taps - 1 - t];
                    Winograd { shape: &turned, blocks, lanes, source: grad, add }.run(self.isa, at, out);
                }
                _ => {
                    let at = |c: usize, k: usize, t: usize| weight[(k * d.c + c) * taps + t];
                    let weights = &pack::<E>(self.rows::<E>(), d.c, d.k, taps, at);
                    let reach = &Reach::backward(d);
                    let (channels, outputs) = (d.k, d.c);
                    Direct { reach, blocks, lanes, source: grad, channels, outputs, weights, add }
                        .run(self.isa, out);
                }
            }
        }
    }

    /// The gradient of the weight.
    pub(super) fn weight_grad<E: Stored>(&self, source: &[E], grad: &[E]) -> Vec<E::Real> {
        let (shape, blocks, lanes) = (&self.shape, self.blocks, self.lanes);
        let form = self.form::<E>(Pass::WeightGrad);
        let values: Option<Vec<f32>> = match form {
            Form::Tiles(tiles) => Maps::of(source).zip(Maps::of(grad)).and_then(|(source, grad)| {
                weight_grad(tiles, self.isa, shape, (blocks, lanes), source, grad)
            }),
            Form::Pairs(isa) => E::as_bf16(source)
                .zip(E::as_bf16(grad))
                .map(|(source, grad)| DirectWeight { shape, blocks, lanes, source }.run_pairs(grad, isa)),
            _ => None,
        };
        if let Some(values) = values {
            let values: Box<dyn Any> = Box::new(values);
            // The arithmetic of bf16 and f32 is in f32, so that these are the same type; were they not, the general
            // form below would do it.
            if let Ok(values) = values.downcast() {
                return *values;
            }
        }
        match form {
            Form::Winograd => WinogradWeight { shape, blocks, lanes, source, grad }.run(self.isa),
            _ => DirectWeight { shape, blocks, lanes, source }.run(grad, self.isa),
        }
    }
}

impl Conv {
    fn grads<E: Stored>(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        grad: &Tensor,
        images: bool,
        weights: bool,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let mut grads = (None, None);
        if images {
            let dx = result(&[grad], |g: &[&[E]]| {
                result(&[weight], |w: &[&[E::Real]]| {
                    // SAFETY: every pixel is written.
                    unsafe { filled(xs.elem_count(), |out| self.input_grad(w[0], g[0], out, false)) }
                })
            })??;
            grads.0 = Some(tensor(dx, xs.shape())?);
        }
        if weights {
            let dw = result(&[xs, grad], |v: &[&[E]]| self.weight_grad(v[0], v[1]))?;
            grads.1 = hand(weight, tensor(dw, weight.shape())?);
        }
        Ok(grads)
    }
}

impl Blocked {
    /// Convolution with `weight` `(K, C, R, S)`, as [`conv2d`](crate::conv2d) without groups and bias.
    ///
    /// 3x3 kernels of stride 1 run through Winograd's minimal filtering F(4x4, 3x3): in f32 its error stays
    /// below 1e-4 of the largest result (`tests` measure some 1e-5). Of maps in bf16 `weight` is f32, and is
    /// rounded to bf16 first; sums are taken in f32, of pairs of products where there are fast instructions for it
    /// and Winograd's form does not suit (see [`Blocked`]).
    ///
    /// # Gradient
    /// Of the images and of `weight`, each only where it is asked for.
    ///
    /// # Errors
    /// Shapes or types that do not fit; groups.
    pub fn conv2d(&self, weight: &Tensor, cfg: Conv2dConfig) -> Result<Self> {
        self.conv2d_with(weight, cfg, Isa::detect(), true)
    }

    /// The gradients of [`Blocked::conv2d`] on their own: of these images and of `weight`, each where it is
    /// wanted, from the gradient `grad` of the result. Detached from the graph.
    ///
    /// # Errors
    /// As [`Blocked::conv2d`]; a `grad` of another shape than the result.
    pub fn conv2d_grads(
        &self,
        weight: &Tensor,
        cfg: Conv2dConfig,
        grad: &Self,
        (images, weights): (bool, bool),
    ) -> Result<(Option<Self>, Option<Tensor>)> {
        const OP: &str = "blocked::conv2d_grads";
        let conv = Conv::new(&self.sizes()?, weight.dims(), cfg, Isa::detect())?;
        let (expected, got) = (conv.output(), grad.sizes()?);
        if expected != got {
            return Err(Error::Shape {
                op: OP,
                name: "grad",
                expected: format!("({}, {}, {}, {})", expected.images, expected.c, expected.h, expected.w),
                got: vec![got.images, got.c, got.h, got.w],
            });
        }
        self.computes(OP, "weight", weight)?;
        check::same_dtype(OP, &self.data, "grad", Some(&grad.data))?;
        let weight = contiguous(weight)?;
        let (dx, dw) = match self.data.dtype() {
            DType::F64 => conv.grads::<f64>(&self.data, &weight, &grad.data, images, weights)?,
            DType::BF16 => conv.grads::<bf16>(&self.data, &weight, &grad.data, images, weights)?,
            _ => conv.grads::<f32>(&self.data, &weight, &grad.data, images, weights)?,
        };
        Ok((dx.map(|data| Self { data, images: self.images }), dw))
    }

    pub(super) fn conv2d_with(
        &self,
        weight: &Tensor,
        cfg: Conv2dConfig,
        isa: Isa,
        fast: bool,
    ) -> Result<Self> {
        self.conv2d_of(weight, Conv { fast, ..Conv::new(&self.sizes()?, weight.dims(), cfg, isa)? })
    }

    pub(super) fn conv2d_of(&self, weight: &Tensor, conv: Conv) -> Result<Self> {
        self.computes("blocked::conv2d", "weight", weight)?;
        Ok(Self { data: self.data.apply_op2(&contiguous(weight)?, conv)?, images: self.images })
    }
}

impl CustomOp2 for Conv {
    fn name(&self) -> &'static str {
        "blocked-conv2d"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (xs, weight) = ((s1, l1), (s2, l2));
        let storage = match s1 {
            CpuStorage::F64(_) => {
                crate::tensor::storage::owned(self.forward(slice::<f64>(xs)?, slice::<f64>(weight)?))
            }
            CpuStorage::BF16(_) => {
                crate::tensor::storage::owned(self.forward(slice::<bf16>(xs)?, slice::<f32>(weight)?))
            }
            _ => crate::tensor::storage::owned(self.forward(slice::<f32>(xs)?, slice::<f32>(weight)?)),
        };
        Ok((storage, self.output().shape()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        match xs.dtype() {
            DType::F64 => self.grads::<f64>(xs, weight, &grad, xs.track_op(), weight.track_op()),
            DType::BF16 => self.grads::<bf16>(xs, weight, &grad, xs.track_op(), weight.track_op()),
            _ => self.grads::<f32>(xs, weight, &grad, xs.track_op(), weight.track_op()),
        }
    }
}
