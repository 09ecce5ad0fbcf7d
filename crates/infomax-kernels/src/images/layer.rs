//! A convolution with its norm, one part of a residual unit.

use super::buffer::Pooled;
use super::conv::Conv;
use super::layout::Dims;
use super::norm::{Affine, Coefficients, Mask, Residual, apply, grad_apply, grad_sums, moments};
use super::unit::{ConvNorm, OP};
use crate::ops::norm::peers::{Peers, join_moments, join_sums};
use crate::tensor::check;
use crate::tensor::parameters::Parameters;
use crate::tensor::storage::result;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use infomax_simd::Stored;
use infomax_simd::{Float, Isa, Shared};
use std::sync::Arc;

/// Parameters of maps of type `E` have the type of its arithmetic.
///
/// # Errors
/// One of another type.
pub(super) fn computes<E: Stored>(op: &'static str, name: &'static str, parameter: &Tensor) -> Result<()> {
    let (expected, got) = (crate::tensor::storage::dtype::<E::Real>(), parameter.dtype());
    if expected == got { Ok(()) } else { Err(Error::DType { op, name, got, expected }) }
}

/// A convolution with its norm, and what its gradient needs.
pub(super) struct Layer<E: Stored> {
    pub(super) conv: Conv,
    /// Weight, scale and shift.
    params: Parameters,
    /// What stands for them as an argument of the chain.
    pub(super) token: Tensor,
    pub(super) scale: Vec<f64>,
    pub(super) shift: Vec<f64>,
    /// The statistics are those of the batch.
    pub(super) train: bool,
    pub(super) moments: Vec<(f64, f64)>,
    /// The values of each channel that they were taken over.
    pub(super) count: usize,
    /// The processes that hold the other images of the batch.
    peers: Option<Arc<dyn Peers>>,
    /// The output of the convolution.
    pub(super) z: Vec<E>,
    pub(super) affine: Vec<Affine<E::Real>>,
}

impl<T: Float, E: Stored<Real = T>> Layer<E> {
    pub(super) fn new(
        dims: &Dims,
        part: &ConvNorm<'_>,
        isa: Isa,
        fast: bool,
        peers: Option<&Arc<dyn Peers>>,
    ) -> Result<Self> {
        let conv = Conv { fast, ..Conv::new(dims, part.weight.dims(), part.cfg, isa)? };
        let k = conv.output().c;
        computes::<E>(OP, "weight", part.weight)?;
        let like = part.weight;
        check::vector(OP, like, "scale", Some(part.scale), k)?;
        check::vector(OP, like, "shift", Some(part.shift), k)?;
        let values = |t: &Tensor| t.to_dtype(DType::F64)?.to_vec1::<f64>();
        let moments = match part.stats {
            Some((mean, var)) => {
                check::vector(OP, like, "stats.0", Some(mean), k)?;
                check::vector(OP, like, "stats.1", Some(var), k)?;
                values(mean)?.into_iter().zip(values(var)?).collect()
            }
            None => Vec::new(),
        };
        let (params, token) = Parameters::new([part.weight, part.scale, part.shift])?;
        Ok(Self {
            conv,
            params,
            token,
            scale: values(part.scale)?,
            shift: values(part.shift)?,
            train: part.stats.is_none(),
            moments,
            count: 0,
            peers: peers.cloned(),
            z: Vec::new(),
            affine: Vec::new(),
        })
    }

    /// Convolves, and takes the statistics.
    pub(super) fn forward(&mut self, isa: Isa, eps: f64, source: &[E]) -> candle_core::Result<()> {
        self.z = result(&[self.weight()], |v: &[&[T]]| self.conv.forward(source, v[0]))?;
        if self.train {
            let d = self.conv.output();
            (self.moments, self.count) = (moments(isa, &d, &self.z), d.images * d.h * d.w);
            if let Some(peers) = &self.peers {
                (self.moments, self.count) = join_moments(&**peers, &self.moments, self.count)?;
            }
        }
        let norm = |(k, m): (usize, &(f64, f64))| {
            let scale = self.scale[k] / (m.1 + eps).sqrt();
            Affine { scale: T::of(scale), shift: T::of(self.shift[k] - m.0 * scale) }
        };
        self.affine = self.moments.iter().enumerate().map(norm).collect();
        Ok(())
    }

    /// The activation after this norm.
    ///
    /// # Safety
    /// As [`apply`].
    pub(super) unsafe fn activation(&self, isa: Isa, residual: Residual<'_, E>, out: Shared<E>) {
        // SAFETY: passed on.
        unsafe { apply(isa, &self.conv.output(), &self.z, &self.affine, residual, out) }
    }

    /// The activation after this norm, where nothing is added to it.
    pub(super) fn hidden(&self, isa: Isa) -> Pooled<E> {
        let mut values = Pooled::take(self.z.len());
        // SAFETY: the buffer holds the map.
        unsafe { self.activation(isa, Residual::None, Shared::new(values.slice().as_mut_ptr())) };
        values
    }

    /// The gradient of the convolution's output in `dz`, from the one of the activation in `grad`, which may be
    /// the same; returns those of scale and shift.
    ///
    /// # Safety
    /// As [`grad_apply`].
    pub(super) unsafe fn norm_grad(
        &self,
        isa: Isa,
        eps: f64,
        grad: Shared<E>,
        mask: Mask<'_, E>,
        dz: Shared<E>,
        masked: Shared<E>,
    ) -> candle_core::Result<(Vec<T>, Vec<T>)> {
        let d = self.conv.output();
        let means: Vec<T> = self.moments.iter().map(|m| T::of(m.0)).collect();
        // SAFETY: the caller's gradient is a whole map, and no one writes it meanwhile.
        let sums = unsafe {
            grad_sums(isa, &d, &self.z, &means, std::slice::from_raw_parts(grad.get(), d.len()), mask)
        };
        // The parameters get the share of this process; the input is moved by the sums over all.
        let all = match &self.peers {
            Some(peers) if self.train => join_sums(&**peers, &sums)?,
            _ => sums.clone(),
        };
        let m = if self.train { self.count as f64 } else { f64::INFINITY };
        let inverse: Vec<f64> = self.moments.iter().map(|m| 1.0 / (m.1 + eps).sqrt()).collect();
        let coefficients: Vec<_> = (0..d.c)
            .map(|k| {
                let a = self.scale[k] * inverse[k];
                Coefficients {
                    mean: means[k],
                    a: T::of(a),
                    b: T::of(-a * inverse[k] * inverse[k] * all[k].1 / m),
                    c: T::of(-a * all[k].0 / m),
                }
            })
            .collect();
        // SAFETY: passed on.
        unsafe { grad_apply(isa, &d, &self.z, &coefficients, grad, mask, dz, masked) };
        let scale = (0..d.c).map(|k| T::of(sums[k].1 * inverse[k])).collect();
        Ok((scale, sums.iter().map(|s| T::of(s.0)).collect()))
    }

    /// The weight, contiguous.
    pub(super) fn weight(&self) -> &Tensor {
        &self.params.tensors[0]
    }

    /// Leaves the gradients of the parameters for Candle to find.
    pub(super) fn put(&self, weight: Vec<T>, (scale, shift): (Vec<T>, Vec<T>)) {
        self.params.leave([weight, scale, shift]);
    }

    pub(super) fn weight_grad(&self, source: &[E], dz: &[E]) -> Vec<T> {
        if self.weight().track_op() { self.conv.weight_grad(source, dz) } else { Vec::new() }
    }
}
