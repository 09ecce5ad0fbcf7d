//! A chain of residual units as one operation: convolutions, their batch norms, shortcuts and all ReLUs.
//!
//! One operation instead of ten for each unit: only the outputs of the convolutions and the last activation of
//! a unit are kept for the gradient, everything else is computed again while it is in the cache, and no
//! gradient inside of the chain passes through Candle, which copies each of them twice.

use super::buffer::Pooled;
use super::layer::Layer;
use super::layout::{Blocked, Dims};
use super::norm::{Mask, Residual};
use crate::Peers;
use crate::tensor::check;
use crate::tensor::storage::{contiguous, result, tensor};
use crate::{Conv2dConfig, Error, Result};
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Shape, Tensor, bail};
use half::bf16;
use infomax_simd::Stored;
use infomax_simd::{Float, Isa, Shared, filled};
use std::sync::{Arc, Mutex, PoisonError};

/// A convolution without bias, followed by batch norm.
#[derive(Clone, Copy, Debug)]
pub struct ConvNorm<'a> {
    /// `(K, C, R, S)`.
    pub weight: &'a Tensor,
    /// The scale of the norm, `(K)`.
    pub scale: &'a Tensor,
    /// The shift of the norm, `(K)`.
    pub shift: &'a Tensor,
    /// The geometry of the convolution; one group.
    pub cfg: Conv2dConfig,
    /// Mean and variance `(K)` to normalize with, constants for the gradient, as in evaluation. Absent: those
    /// of this batch.
    pub stats: Option<(&'a Tensor, &'a Tensor)>,
}

/// What is added to the branch of a residual unit before its last ReLU.
#[derive(Clone, Copy, Debug)]
pub enum Shortcut<'a> {
    /// Nothing.
    None,
    /// The input.
    Identity,
    /// The input after a convolution and its norm.
    Projection(ConvNorm<'a>),
}

/// A block of a residual network: `relu(branch(x) + shortcut(x))`.
#[derive(Clone, Debug)]
pub struct ResidualUnit<'a> {
    /// Convolutions with their norms, one after the other, with a ReLU between them; one at least.
    pub branch: Vec<ConvNorm<'a>>,
    /// What is added to the branch.
    pub shortcut: Shortcut<'a>,
}

/// The result of [`Blocked::residual`].
#[derive(Clone, Debug)]
pub struct ResidualOutput {
    /// The activations.
    pub ys: Blocked,
    /// The statistics of every norm, unit by unit: those of the branch, then the one of the projection.
    pub stats: Vec<BatchStats>,
}

/// The statistics of one norm over a batch.
#[derive(Clone, Debug)]
pub struct BatchStats {
    /// The mean of each channel `(K)`, detached from the graph.
    pub mean: Tensor,
    /// The biased variance of each channel `(K)`, detached from the graph.
    pub var: Tensor,
    /// The values of each channel that they were taken over, those of other processes too; 0 for given statistics.
    pub count: usize,
}

impl Blocked {
    /// A chain of units, each `relu(norm(conv(.. relu(norm(conv(x)))))) + shortcut(x))`: blocks of a residual
    /// network (He et al., arXiv:1512.03385); a unit of one convolution without shortcut is its stem.
    ///
    /// # Gradient
    /// Of the images, weights, scales and shifts; through the statistics where they are those of the batch.
    /// As [`conv2d`](crate::conv2d), [`batch_norm_train`](crate::batch_norm_train) and
    /// [`batch_norm_eval`](crate::batch_norm_eval).
    ///
    /// # Numerics
    /// Convolutions as [`Blocked::conv2d`]; moments in two passes over runs of pixels, merged in f64. In bf16 the
    /// outputs of convolutions, the activations and the gradients of both are rounded; the statistics are those of
    /// the rounded outputs.
    ///
    /// # Errors
    /// Shapes or types that do not fit; no unit, or one without convolution; an `eps` that is not positive.
    pub fn residual(&self, units: &[ResidualUnit<'_>], eps: f64) -> Result<ResidualOutput> {
        self.residual_of(units, eps, Isa::detect(), true, None)
    }

    /// [`Blocked::residual`] with the statistics of a batch of which other processes hold the other images, as
    /// [`batch_norm_train_with`](crate::batch_norm_train_with): one exchange for each norm in the forward and one in the
    /// backward pass.
    ///
    /// # Errors
    /// As [`Blocked::residual`]; a process that is gone.
    pub fn residual_with(
        &self,
        units: &[ResidualUnit<'_>],
        eps: f64,
        peers: Arc<dyn Peers>,
    ) -> Result<ResidualOutput> {
        self.residual_of(units, eps, Isa::detect(), true, Some(&peers))
    }

    pub(super) fn residual_of(
        &self,
        units: &[ResidualUnit<'_>],
        eps: f64,
        isa: Isa,
        fast: bool,
        peers: Option<&Arc<dyn Peers>>,
    ) -> Result<ResidualOutput> {
        match self.data.dtype() {
            DType::F64 => chain::<f64>(self, units, eps, isa, fast, peers),
            DType::BF16 => chain::<bf16>(self, units, eps, isa, fast, peers),
            _ => chain::<f32>(self, units, eps, isa, fast, peers),
        }
    }
}

pub(super) const OP: &str = "blocked::residual";

fn chain<E: Stored>(
    xs: &Blocked,
    specs: &[ResidualUnit<'_>],
    eps: f64,
    isa: Isa,
    fast: bool,
    peers: Option<&Arc<dyn Peers>>,
) -> Result<ResidualOutput> {
    check::positive(OP, "eps", eps)?;
    let mut dims = xs.sizes()?;
    let mut units = Vec::with_capacity(specs.len());
    for spec in specs {
        let unit = Unit::<E>::new(dims, spec, eps, isa, fast, peers)?;
        dims = unit.last.conv.output();
        units.push(unit);
    }
    if units.is_empty() {
        return Err(nothing("units"));
    }
    let data = contiguous(&xs.data)?;
    let mut op = Chain { units, kept: Vec::new(), out: Mutex::default(), dims };
    op.forward(&data)?;
    let device = data.device();
    let mut stats = Vec::new();
    let mut token: Option<Tensor> = None;
    for layer in op.units.iter().flat_map(Unit::all) {
        let column = |f: fn(&(f64, f64)) -> f64| -> Result<Tensor> {
            let values: Vec<f64> = layer.moments.iter().map(f).collect();
            Ok(Tensor::from_vec(values, layer.moments.len(), device)?
                .to_dtype(crate::tensor::storage::dtype::<E::Real>())?)
        };
        let (mean, var) = (column(|m| m.0)?, column(|m| m.1)?);
        stats.push(BatchStats { mean, var, count: layer.count });
        token = Some(match token {
            Some(token) => (token + &layer.token)?,
            None => layer.token.clone(),
        });
    }
    // There is a layer, so there is a token.
    let token =
        token.map_or_else(|| Tensor::zeros(1, crate::tensor::storage::dtype::<E::Real>(), device), Ok)?;
    let data = data.apply_op2(&token, op)?;
    Ok(ResidualOutput { ys: Blocked { data, images: xs.images }, stats })
}

fn nothing(name: &'static str) -> Error {
    Error::Config { op: OP, name, value: "[]".into(), reason: "must name one at least" }
}

struct Unit<E: Stored> {
    /// All convolutions of the branch but the last one.
    first: Vec<Layer<E>>,
    last: Layer<E>,
    projection: Option<Layer<E>>,
    identity: bool,
    isa: Isa,
    eps: f64,
}

impl<T: Float, E: Stored<Real = T>> Unit<E> {
    fn new(
        input: Dims,
        spec: &ResidualUnit<'_>,
        eps: f64,
        isa: Isa,
        fast: bool,
        peers: Option<&Arc<dyn Peers>>,
    ) -> Result<Self> {
        let mut first = Vec::with_capacity(spec.branch.len());
        let mut dims = input;
        for part in &spec.branch {
            let layer = Layer::<E>::new(&dims, part, isa, fast, peers)?;
            dims = layer.conv.output();
            first.push(layer);
        }
        let Some(last) = first.pop() else { return Err(nothing("branch")) };
        let projection = match &spec.shortcut {
            Shortcut::Projection(part) => Some(Layer::<E>::new(&input, part, isa, fast, peers)?),
            _ => None,
        };
        let identity = matches!(spec.shortcut, Shortcut::Identity);
        let sum = projection.as_ref().map_or(input, |p| p.conv.output());
        if (identity || projection.is_some()) && sum != dims {
            return Err(Error::Shape {
                op: OP,
                name: "shortcut",
                expected: format!("of {} channels of {}x{}, as the branch", dims.c, dims.h, dims.w),
                got: vec![sum.images, sum.c, sum.h, sum.w],
            });
        }
        Ok(Self { first, last, projection, identity, isa, eps })
    }

    /// The layers of the branch, then the projection.
    fn all(&self) -> impl Iterator<Item = &Layer<E>> {
        self.first.iter().chain([&self.last]).chain(&self.projection)
    }

    fn forward(&mut self, xs: &[E]) -> candle_core::Result<Vec<E>> {
        let (isa, eps) = (self.isa, self.eps);
        if let Some(projection) = &mut self.projection {
            projection.forward(isa, eps, xs)?;
        }
        let mut hidden: Option<Pooled<E>> = None;
        for i in 0..=self.first.len() {
            let layer = self.first.get_mut(i).unwrap_or(&mut self.last);
            match &mut hidden {
                Some(hidden) => layer.forward(isa, eps, hidden.slice())?,
                None => layer.forward(isa, eps, xs)?,
            }
            if i < self.first.len() {
                hidden = Some(self.first[i].hidden(isa));
            }
        }
        let residual = match &self.projection {
            Some(p) => Residual::Normed(&p.z, &p.affine),
            None if self.identity => Residual::Plain(xs),
            None => Residual::None,
        };
        // SAFETY: every element is written.
        Ok(unsafe { filled(self.last.z.len(), |out| self.last.activation(isa, residual, out)) })
    }

    /// Leaves the gradients of the parameters in their slots, and returns that of the input; `weights` are in
    /// the order of [`Unit::all`].
    fn backward(
        &self,
        xs: &[E],
        ys: &[E],
        grad: &[E],
        weights: &[&[T]],
        wanted: bool,
    ) -> candle_core::Result<Vec<E>> {
        let (isa, eps) = (self.isa, self.eps);
        let null = Shared::new(std::ptr::null_mut());
        let mask = Mask::Kept(ys);
        let mut dx: Vec<E> = Vec::with_capacity(if wanted || self.identity { xs.len() } else { 0 });
        let to = Shared::new(dx.as_mut_ptr());
        let read = Shared::new(grad.as_ptr().cast_mut());
        let count = self.first.len() + 1;
        // SAFETY: maps of the sizes of their layers; the gradient is only read; `dx` is written by the
        // projection, the mask or the first convolution before anything is added to it.
        unsafe {
            if let Some(p) = &self.projection {
                let mut dz = Pooled::take(p.z.len());
                let at = Shared::new(dz.slice().as_mut_ptr());
                let norm = p.norm_grad(isa, eps, read, mask, at, null)?;
                p.put(p.weight_grad(xs, dz.slice()), norm);
                if wanted {
                    p.conv.input_grad(weights[count], dz.slice(), to, false);
                }
            }
            let mut dz = Pooled::take(self.last.z.len());
            let at = Shared::new(dz.slice().as_mut_ptr());
            let masked = if self.identity { to } else { null };
            let mut norm = self.last.norm_grad(isa, eps, read, mask, at, masked)?;
            for i in (0..count).rev() {
                let layer = self.first.get(i).unwrap_or(&self.last);
                if i == 0 {
                    layer.put(layer.weight_grad(xs, dz.slice()), norm);
                    if wanted {
                        let add = self.identity || self.projection.is_some();
                        layer.conv.input_grad(weights[0], dz.slice(), to, add);
                    }
                    break;
                }
                let before = &self.first[i - 1];
                layer.put(layer.weight_grad(before.hidden(isa).slice(), dz.slice()), norm);
                let mut next = Pooled::take(before.z.len());
                let at = Shared::new(next.slice().as_mut_ptr());
                layer.conv.input_grad(weights[i], dz.slice(), at, false);
                norm = before.norm_grad(isa, eps, at, Mask::Own(&before.affine), at, null)?;
                dz = next;
            }
            if wanted {
                dx.set_len(xs.len());
            }
        }
        Ok(dx)
    }
}

struct Chain<E: Stored> {
    units: Vec<Unit<E>>,
    /// The activations of all units but the last one.
    kept: Vec<Vec<E>>,
    /// Those of the last one, until Candle asks for them.
    out: Mutex<Vec<E>>,
    dims: Dims,
}

impl<T: Float, E: Stored<Real = T>> Chain<E> {
    fn forward(&mut self, xs: &Tensor) -> candle_core::Result<()> {
        let Self { units, kept, .. } = self;
        let count = units.len();
        let out = result(&[xs], |v: &[&[E]]| {
            for (i, unit) in units.iter_mut().enumerate() {
                let ys = unit.forward(kept.last().map_or(v[0], |before| before))?;
                if i + 1 == count {
                    return Ok::<_, candle_core::Error>(ys);
                }
                kept.push(ys);
            }
            bail!("a chain without units")
        })??;
        self.out = Mutex::new(out);
        Ok(())
    }

    fn backward(
        &self,
        xs: &[E],
        ys: &[E],
        grad: &[E],
        weights: &[&[T]],
        wanted: bool,
    ) -> candle_core::Result<Vec<E>> {
        let mut rest = weights;
        let mut own: Option<Vec<E>> = None;
        for (i, unit) in self.units.iter().enumerate().rev() {
            let (before, weights) = rest.split_at(rest.len() - unit.all().count());
            rest = before;
            let xs = if i == 0 { xs } else { &self.kept[i - 1] };
            let ys = self.kept.get(i).map_or(ys, |kept| kept);
            let grad = own.as_deref().unwrap_or(grad);
            own = Some(unit.backward(xs, ys, grad, weights, wanted || i > 0)?);
        }
        Ok(own.unwrap_or_default())
    }
}

impl<E: Stored> CustomOp2 for Chain<E> {
    fn name(&self) -> &'static str {
        "blocked-residual"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let out = std::mem::take(&mut *self.out.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((crate::tensor::storage::owned(out), self.dims.shape()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        token: &Tensor,
        ys: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let wanted = xs.track_op();
        let weights: Vec<_> = self.units.iter().flat_map(Unit::all).map(Layer::weight).collect();
        let dx = result(&[xs, ys, &grad], |v: &[&[E]]| {
            result(&weights, |w: &[&[E::Real]]| self.backward(v[0], v[1], v[2], w, wanted))
        })???;
        let dx = if wanted { Some(tensor(dx, xs.shape())?) } else { None };
        Ok((dx, Some(token.zeros_like()?)))
    }
}
