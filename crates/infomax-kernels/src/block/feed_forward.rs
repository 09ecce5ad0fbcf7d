//! Normalisation, two linear maps with an activation between them, scale and residual sum.

use super::{AddRows, BiasAct, GROUP, Norm, Packed, PullNorm, Start, join_grads, matrix, ones_unless, part};
use crate::elementwise::{Function, with_function};
use crate::lanes::{Arith, Real, Task, add_rows, run};
use crate::mat::{Mat, multiply, product};
use crate::optional::{self, Optional, Stored};
use crate::simd::{Isa, Shared, filled, grow};
use crate::storage::{contiguous, on_cpu, result, slice, tensor};
use crate::wide::{half, wide, wide_option};
use crate::{Elementwise, Result, check, reference};
use candle_core::{CpuStorage, DType, Shape, Tensor, bail};
use rayon::prelude::*;
use std::marker::PhantomData;
use std::sync::OnceLock;

/// The parameters of [`feed_forward`], for `D` channels and `H` hidden ones.
#[derive(Clone, Copy, Debug)]
pub struct FeedForward<'a> {
    /// The scale of the layer norm, `(D)`.
    pub norm_weight: &'a Tensor,
    /// The shift of the layer norm, `(D)`.
    pub norm_bias: &'a Tensor,
    /// Added to the variance.
    pub eps: f64,
    /// The first linear map, `(H, D)`.
    pub in_weight: &'a Tensor,
    /// Its bias, `(H)`.
    pub in_bias: &'a Tensor,
    /// Between the maps.
    pub act: Elementwise,
    /// The second linear map, `(D, H)`.
    pub out_weight: &'a Tensor,
    /// Its bias, `(D)`.
    pub out_bias: &'a Tensor,
    /// The scale of the branch, `(D)` (LayerScale, arXiv:2103.17239); absent: 1.
    pub scale: Option<&'a Tensor>,
}

/// `residual + scale (act(norm(xs) in_weight^T + in_bias) out_weight^T + out_bias)` over the last dimension of
/// `xs` `(.., D)`; without `residual`, `xs` itself is added: the feed-forward half of a transformer layer with
/// pre-normalisation (arXiv:2010.11929), and the channel half of a ConvNeXt block (arXiv:2201.03545).
///
/// # Gradient
/// Of `xs`, `residual` and all parameters. The hidden values before the activation are kept from the forward
/// pass; the normalised input and the activations are computed again.
///
/// # Numerics
/// As [`layer_norm`](crate::layer_norm) and [`elementwise`](crate::elementwise). Positions are cut into groups
/// that depend on the shape only: the same bits for any number of threads. bf16 and f16 are computed in f32.
///
/// # Errors
/// Shapes or types that do not fit; a tensor without elements; an `eps` that is not positive.
pub fn feed_forward(xs: &Tensor, p: &FeedForward<'_>, residual: Option<&Tensor>) -> Result<Tensor> {
    feed_forward_isa(xs, p, residual, Isa::detect())
}

pub(crate) fn feed_forward_isa(
    xs: &Tensor,
    p: &FeedForward<'_>,
    residual: Option<&Tensor>,
    isa: Isa,
) -> Result<Tensor> {
    if half(xs) {
        let scale = wide_option(p.scale)?;
        let wide_p = FeedForward {
            norm_weight: &wide(p.norm_weight)?,
            norm_bias: &wide(p.norm_bias)?,
            in_weight: &wide(p.in_weight)?,
            in_bias: &wide(p.in_bias)?,
            out_weight: &wide(p.out_weight)?,
            out_bias: &wide(p.out_bias)?,
            scale: scale.as_ref(),
            ..*p
        };
        let residual = wide_option(residual)?;
        let ys = feed_forward_isa(&wide(xs)?, &wide_p, residual.as_ref(), isa)?;
        return Ok(ys.to_dtype(xs.dtype())?);
    }
    let (d, h) = check_feed_forward(xs, p, residual)?;
    if !on_cpu(xs) {
        return reference::feed_forward(xs, p, residual);
    }
    let ones = ones_unless(p.scale, d, xs)?;
    let parameters = [
        p.norm_weight,
        p.norm_bias,
        &p.in_weight.flatten_all()?,
        p.in_bias,
        &p.out_weight.flatten_all()?,
        p.out_bias,
        p.scale.unwrap_or(&ones),
    ];
    let packed = Tensor::cat(&parameters, 0)?;
    let xs = contiguous(xs)?;
    let keep = xs.track_op() || packed.track_op();
    macro_rules! call {
        ($t:ty) => {{
            let op = Dense::<$t> { d, h, eps: p.eps, act: p.act, isa, keep, hidden: OnceLock::new() };
            optional::apply(&xs, &packed, residual, op)?
        }};
    }
    Ok(if xs.dtype() == DType::F64 { call!(f64) } else { call!(f32) })
}

/// `D` and `H`.
pub(crate) fn check_feed_forward(
    xs: &Tensor,
    p: &FeedForward<'_>,
    residual: Option<&Tensor>,
) -> Result<(usize, usize)> {
    const OP: &str = "feed_forward";
    let d = check::last(OP, xs)?;
    let (h, _) = check::dims2(OP, "in_weight", p.in_weight)?;
    check::not_empty(OP, "in_weight", p.in_weight)?;
    matrix(OP, xs, "in_weight", p.in_weight, (h, d))?;
    matrix(OP, xs, "out_weight", p.out_weight, (d, h))?;
    check::vector(OP, xs, "norm_weight", Some(p.norm_weight), d)?;
    check::vector(OP, xs, "norm_bias", Some(p.norm_bias), d)?;
    check::vector(OP, xs, "in_bias", Some(p.in_bias), h)?;
    check::vector(OP, xs, "out_bias", Some(p.out_bias), d)?;
    check::vector(OP, xs, "scale", p.scale, d)?;
    check::positive(OP, "eps", p.eps)?;
    check::same_shape(OP, xs, "residual", residual)?;
    Ok((d, h))
}

/// Rows of a group for `weights` elements: large ones cost more to pack again than hidden values to fetch.
fn group_rows(weights: usize) -> usize {
    if weights > 256 << 10 { 2 * GROUP } else { GROUP }
}

/// From `zs`: `ys = f(zs)`, `dz = f'(zs) dz`, and `sums += dz` over the rows.
struct PullAct<'a, T, F> {
    zs: &'a [T],
    ys: &'a mut [T],
    dz: &'a mut [T],
    sums: &'a mut [T],
    function: PhantomData<F>,
}

impl<T: Real, F: Function> Task for PullAct<'_, T, F> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let h = self.sums.len();
        let rows = self.zs.chunks_exact(h).zip(self.ys.chunks_exact_mut(h)).zip(self.dz.chunks_exact_mut(h));
        for ((z, y), dz) in rows {
            for (((z, y), dz), s) in z.iter().zip(y).zip(dz).zip(self.sums.iter_mut()) {
                let (value, slope) = F::both::<A, T>(*z);
                *y = value;
                *dz *= slope;
                *s += *dz;
            }
        }
    }
}

struct Dense<T> {
    d: usize,
    h: usize,
    eps: f64,
    act: Elementwise,
    isa: Isa,
    /// The hidden values are wanted for a backward pass.
    keep: bool,
    /// The hidden values before the activation.
    hidden: OnceLock<Vec<T>>,
}

impl<T: Real> Dense<T> {
    fn forward(&self, xs: &[T], packed: &[T], residual: Option<&[T]>) -> Vec<T> {
        let (d, h) = (self.d, self.h);
        let p = Packed::new(packed, d, h, h);
        let (out_weight, out_bias) = p.scaled_out();
        let (rows, group) = (xs.len() / d, group_rows(d * h));
        let mut hidden: Vec<T> = Vec::with_capacity(if self.keep { rows * h } else { 0 });
        let kept = Shared::new(hidden.as_mut_ptr());
        let fill = |out: Shared<T>| {
            (0..rows.div_ceil(group)).into_par_iter().for_each(|i| {
                // SAFETY: the groups are disjoint.
                let ys = unsafe { part(out, i, group * d, rows * d) };
                let xs = &xs[i * group * d..][..ys.len()];
                let residual = residual.map_or(xs, |r| &r[i * group * d..][..ys.len()]);
                let own = ys.len() / d;
                T::with_scratch(|scratch| {
                    let normed = &mut grow(&mut scratch.stage, own * d)[..own * d];
                    let active = &mut grow(&mut scratch.panel, own * h)[..own * h];
                    let zs = if self.keep {
                        // SAFETY: the groups are disjoint, and the capacity is that of all.
                        unsafe { part(kept, i, group * h, rows * h) }
                    } else {
                        &mut grow(&mut scratch.tile, own * h)[..own * h]
                    };
                    let (weight, bias, eps) = (p.norm_weight, p.norm_bias, self.eps);
                    run(self.isa, Norm { xs, weight, bias, eps, ys: normed });
                    multiply(zs, Mat::new(normed, own, d), Mat::new(p.in_weight, h, d).t(), false);
                    with_function!(self.act, F => {
                        let (bias, ys) = (p.in_bias, Some(&mut *active));
                        run(self.isa, BiasAct { bias, zs, ys, function: PhantomData::<F> });
                    });
                    run(self.isa, Start(residual, &out_bias, ys));
                    multiply(ys, Mat::new(active, own, h), Mat::new(&out_weight, d, h).t(), true);
                });
            });
        };
        // SAFETY: each group writes its rows, and those are all.
        let ys = unsafe { filled(xs.len(), fill) };
        if self.keep {
            // SAFETY: every group wrote its rows.
            unsafe { hidden.set_len(rows * h) };
            let _ = self.hidden.set(hidden);
        }
        ys
    }

    /// The gradients of input and parameters; that of the residual is `grad`.
    fn backward(&self, xs: &[T], packed: &[T], hidden: &[T], grad: &[T], own: bool) -> (Vec<T>, Vec<T>) {
        let (d, h) = (self.d, self.h);
        let p = Packed::new(packed, d, h, h);
        let (out_weight, _) = p.scaled_out();
        let (rows, group) = (xs.len() / d, group_rows(d * h));
        let groups = rows.div_ceil(group);
        let width = 3 * d + h;
        let mut sums = vec![T::ZERO; groups * width];
        let [mut normed, mut active, mut slopes] =
            [rows * d, rows * h, rows * h].map(|len| Vec::<T>::with_capacity(len));
        let to = [&mut normed, &mut active, &mut slopes].map(|v| Shared::new(v.as_mut_ptr()));
        let fill = |out: Shared<T>| {
            sums.par_chunks_exact_mut(width).enumerate().for_each(|(i, sums)| {
                // SAFETY: the groups are disjoint, and the capacities are those of all.
                let (dx, normed, active, slopes) = unsafe {
                    (
                        part(out, i, group * d, rows * d),
                        part(to[0], i, group * d, rows * d),
                        part(to[1], i, group * h, rows * h),
                        part(to[2], i, group * h, rows * h),
                    )
                };
                let n = dx.len() / d;
                let (xs, grad) = (&xs[i * group * d..][..n * d], &grad[i * group * d..][..n * d]);
                let zs = &hidden[i * group * h..][..n * h];
                let (dw, rest) = sums.split_at_mut(d);
                let (db, rest) = rest.split_at_mut(d);
                let (dh, totals) = rest.split_at_mut(h);
                run(self.isa, AddRows(grad, totals));
                let (weight, bias, eps) = (p.norm_weight, p.norm_bias, self.eps);
                run(self.isa, Norm { xs, weight, bias, eps, ys: normed });
                multiply(slopes, Mat::new(grad, n, d), Mat::new(&out_weight, d, h), false);
                with_function!(self.act, F => {
                    let function = PhantomData::<F>;
                    run(self.isa, PullAct { zs, ys: active, dz: slopes, sums: dh, function });
                });
                T::with_scratch(|scratch| {
                    let back = &mut grow(&mut scratch.stage, n * d)[..n * d];
                    multiply(back, Mat::new(slopes, n, h), Mat::new(p.in_weight, h, d), false);
                    if own {
                        dx.copy_from_slice(grad);
                    } else {
                        dx.fill(T::ZERO);
                    }
                    run(self.isa, PullNorm { xs, weight, eps, grad: back, dx, dw, db });
                });
            });
        };
        // SAFETY: each group writes its rows, and those are all.
        let dx = unsafe { filled(xs.len(), fill) };
        // SAFETY: every group wrote its rows.
        unsafe {
            normed.set_len(rows * d);
            active.set_len(rows * h);
            slopes.set_len(rows * h);
        }
        let in_weight = product(Mat::new(&slopes, rows, h).t(), Mat::new(&normed, rows, d));
        let products = product(Mat::new(grad, rows, d).t(), Mat::new(&active, rows, h));
        (dx, join_grads(&p, &add_rows(&sums, width), in_weight, &products))
    }
}

impl<T: Real> Optional for Dense<T> {
    const NAME: &'static str = "feed-forward";

    fn run(
        &self,
        xs: Stored<'_>,
        packed: Stored<'_>,
        residual: Option<Stored<'_>>,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let residual = residual.map(slice::<T>).transpose()?;
        let ys = self.forward(slice::<T>(xs)?, slice::<T>(packed)?, residual);
        Ok((T::to_cpu_storage_owned(ys), xs.1.shape().clone()))
    }

    fn grads(
        &self,
        (xs, packed, residual): (&Tensor, &Tensor, Option<&Tensor>),
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 3]> {
        let Some(hidden) = self.hidden.get() else { bail!("feed_forward: backward before forward") };
        // A residual takes the gradient itself; without one it goes to the input.
        let own = residual.is_none();
        let (dx, dp) =
            result(&[xs, packed, grad], |v: &[&[T]]| self.backward(v[0], v[1], hidden, v[2], own))?;
        let dr = residual.map(|_| grad.clone());
        Ok([Some(tensor(dx, xs.shape())?), Some(tensor(dp, packed.shape())?), dr])
    }
}
