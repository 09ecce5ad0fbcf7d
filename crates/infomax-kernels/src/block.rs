//! The two halves of a transformer layer, each as one operation: normalisation, products, activation or
//! attention, scale and residual sum.
//!
//! Candle's backward pass adds the gradient of every intermediate tensor to fresh zeros in a single thread;
//! an operation without intermediate tensors has none of these passes. Forward and backward run over groups of
//! positions that fit in the cache; only the gradients of the weights are products over all positions.

use crate::attention::{Head, Heads};
use crate::elementwise::{Function, with_function};
use crate::lanes::{Arith, Real, Task, add_rows, run};
use crate::mat::{Mat, multiply, product};
use crate::row_norm::{normalize_row, pull_row};
use crate::simd::{Isa, Shared, filled, grow};
use crate::storage::{contiguous, on_cpu, result, slice, tensor};
use crate::wide::{half, wide, wide_option};
use crate::{Elementwise, Error, Result, check, reference};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Shape, Tensor, bail};
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
    let residual = residual.map(contiguous).transpose()?;
    let keep = xs.track_op() || packed.track_op();
    macro_rules! call {
        ($t:ty) => {{
            let op = Dense::<$t> { d, h, eps: p.eps, act: p.act, isa, keep, hidden: OnceLock::new() };
            match residual {
                Some(residual) => xs.apply_op3(&packed, &residual, op)?,
                None => xs.apply_op2(&packed, op)?,
            }
        }};
    }
    Ok(if xs.dtype() == DType::F64 { call!(f64) } else { call!(f32) })
}

/// The parameters of [`self_attention`], for `D` channels.
#[derive(Clone, Copy, Debug)]
pub struct SelfAttention<'a> {
    /// The scale of the layer norm, `(D)`.
    pub norm_weight: &'a Tensor,
    /// The shift of the layer norm, `(D)`.
    pub norm_bias: &'a Tensor,
    /// Added to the variance.
    pub eps: f64,
    /// The projections to queries, keys and values, in this order, `(3 D, D)`.
    pub qkv_weight: &'a Tensor,
    /// Their bias, `(3 D)`.
    pub qkv_bias: &'a Tensor,
    /// The projection of the heads' outputs, `(D, D)`.
    pub out_weight: &'a Tensor,
    /// Its bias, `(D)`.
    pub out_bias: &'a Tensor,
    /// The number of heads, of `D / heads` channels each.
    pub heads: usize,
    /// The scale of the branch, `(D)` (LayerScale, arXiv:2103.17239); absent: 1.
    pub scale: Option<&'a Tensor>,
}

/// `xs + scale (attention(norm(xs) qkv_weight^T + qkv_bias) out_weight^T + out_bias)` for `xs` `(B, N, D)`: the
/// attention half of a transformer layer with pre-normalisation (arXiv:2010.11929).
///
/// # Gradient
/// Of `xs` and all parameters. Queries, keys, values, the output of the heads and `ln sum exp` of each row are
/// kept from the forward pass; the normalised input and the weights of attention are computed again.
///
/// # Numerics
/// As [`attention`](crate::attention) and [`layer_norm`](crate::layer_norm). bf16 and f16 are computed in f32.
///
/// # Errors
/// Shapes or types that do not fit; a tensor without elements; an `eps` that is not positive.
pub fn self_attention(xs: &Tensor, p: &SelfAttention<'_>) -> Result<Tensor> {
    self_attention_isa(xs, p, Isa::detect())
}

pub(crate) fn self_attention_isa(xs: &Tensor, p: &SelfAttention<'_>, isa: Isa) -> Result<Tensor> {
    if half(xs) {
        let scale = wide_option(p.scale)?;
        let wide_p = SelfAttention {
            norm_weight: &wide(p.norm_weight)?,
            norm_bias: &wide(p.norm_bias)?,
            qkv_weight: &wide(p.qkv_weight)?,
            qkv_bias: &wide(p.qkv_bias)?,
            out_weight: &wide(p.out_weight)?,
            out_bias: &wide(p.out_bias)?,
            scale: scale.as_ref(),
            ..*p
        };
        return Ok(self_attention_isa(&wide(xs)?, &wide_p, isa)?.to_dtype(xs.dtype())?);
    }
    let (batch, n, d) = check_self_attention(xs, p)?;
    if !on_cpu(xs) {
        return reference::self_attention(xs, p);
    }
    let ones = ones_unless(p.scale, d, xs)?;
    let parameters = [
        p.norm_weight,
        p.norm_bias,
        &p.qkv_weight.flatten_all()?,
        p.qkv_bias,
        &p.out_weight.flatten_all()?,
        p.out_bias,
        p.scale.unwrap_or(&ones),
    ];
    let packed = Tensor::cat(&parameters, 0)?;
    let xs = contiguous(xs)?;
    let keep = xs.track_op() || packed.track_op();
    let scale = 1.0 / ((d / p.heads) as f64).sqrt();
    let heads = Heads { batch: 1, heads: p.heads, n, m: n, d: d / p.heads, scale, causal: false };
    Ok(if xs.dtype() == DType::F64 {
        xs.apply_op2(
            &packed,
            Attend::<f64> { d, batch, heads, eps: p.eps, isa, keep, kept: OnceLock::new() },
        )?
    } else {
        xs.apply_op2(
            &packed,
            Attend::<f32> { d, batch, heads, eps: p.eps, isa, keep, kept: OnceLock::new() },
        )?
    })
}

fn ones_unless(scale: Option<&Tensor>, d: usize, xs: &Tensor) -> Result<Tensor> {
    Ok(match scale {
        Some(scale) => scale.clone(),
        None => Tensor::ones(d, xs.dtype(), xs.device())?,
    })
}

fn matrix(
    op: &'static str,
    xs: &Tensor,
    name: &'static str,
    t: &Tensor,
    (rows, cols): (usize, usize),
) -> Result<()> {
    if t.dims() != [rows, cols] {
        let expected = format!("({rows}, {cols})");
        return Err(Error::Shape { op, name, expected, got: t.dims().to_vec() });
    }
    check::same_dtype(op, xs, name, Some(t))
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

/// `B`, `N` and `D`.
pub(crate) fn check_self_attention(xs: &Tensor, p: &SelfAttention<'_>) -> Result<(usize, usize, usize)> {
    const OP: &str = "self_attention";
    let [batch, n, d] = *xs.dims() else {
        let expected = "(B, N, D)".into();
        return Err(Error::Shape { op: OP, name: "xs", expected, got: xs.dims().to_vec() });
    };
    check::not_empty(OP, "xs", xs)?;
    if p.heads == 0 || !d.is_multiple_of(p.heads) {
        let reason = "must divide the number of channels";
        return Err(Error::Config { op: OP, name: "heads", value: p.heads.to_string(), reason });
    }
    matrix(OP, xs, "qkv_weight", p.qkv_weight, (3 * d, d))?;
    matrix(OP, xs, "out_weight", p.out_weight, (d, d))?;
    check::vector(OP, xs, "norm_weight", Some(p.norm_weight), d)?;
    check::vector(OP, xs, "norm_bias", Some(p.norm_bias), d)?;
    check::vector(OP, xs, "qkv_bias", Some(p.qkv_bias), 3 * d)?;
    check::vector(OP, xs, "out_bias", Some(p.out_bias), d)?;
    check::vector(OP, xs, "scale", p.scale, d)?;
    check::positive(OP, "eps", p.eps)?;
    Ok((batch, n, d))
}

/// The packed parameters of either half: norm, first map to `h` channels, second map from `k` channels.
#[derive(Clone, Copy)]
struct Packed<'a, T> {
    norm_weight: &'a [T],
    norm_bias: &'a [T],
    in_weight: &'a [T],
    in_bias: &'a [T],
    out_weight: &'a [T],
    out_bias: &'a [T],
    scale: &'a [T],
}

impl<'a, T: Real> Packed<'a, T> {
    fn new(all: &'a [T], d: usize, h: usize, k: usize) -> Self {
        let (norm_weight, all) = all.split_at(d);
        let (norm_bias, all) = all.split_at(d);
        let (in_weight, all) = all.split_at(h * d);
        let (in_bias, all) = all.split_at(h);
        let (out_weight, all) = all.split_at(d * k);
        let (out_bias, scale) = all.split_at(d);
        Self { norm_weight, norm_bias, in_weight, in_bias, out_weight, out_bias, scale }
    }

    /// The second map with the scale of the branch in it.
    fn scaled_out(&self) -> (Vec<T>, Vec<T>) {
        let k = self.out_weight.len() / self.scale.len();
        let rows = self.out_weight.chunks_exact(k).zip(self.scale);
        let weight = rows.flat_map(|(row, s)| row.iter().map(|w| *w * *s)).collect();
        (weight, self.out_bias.iter().zip(self.scale).map(|(b, s)| *b * *s).collect())
    }
}

/// Rows of a group: the weights are packed once for each group, and the hidden values stay in the cache.
const GROUP: usize = 160;

/// Rows of a group for `weights` elements: large ones cost more to pack again than hidden values to fetch.
fn group_rows(weights: usize) -> usize {
    if weights > 256 << 10 { 2 * GROUP } else { GROUP }
}

/// `ys = norm(xs)`, row by row.
struct Norm<'a, T> {
    xs: &'a [T],
    weight: &'a [T],
    bias: &'a [T],
    eps: f64,
    ys: &'a mut [T],
}

impl<T: Real> Task for Norm<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let d = self.weight.len();
        for (x, y) in self.xs.chunks_exact(d).zip(self.ys.chunks_exact_mut(d)) {
            normalize_row::<A, T>(x, self.weight, self.bias, self.eps, y);
        }
    }
}

/// `dx += norm'(xs) grad`, row by row, and the sums for weight and bias.
struct PullNorm<'a, T> {
    xs: &'a [T],
    weight: &'a [T],
    eps: f64,
    grad: &'a [T],
    dx: &'a mut [T],
    dw: &'a mut [T],
    db: &'a mut [T],
}

impl<T: Real> Task for PullNorm<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let d = self.weight.len();
        let rows = self.xs.chunks_exact(d).zip(self.grad.chunks_exact(d)).zip(self.dx.chunks_exact_mut(d));
        for ((x, g), dx) in rows {
            pull_row::<A, T>(x, self.weight, g, (true, self.eps), dx, self.dw, self.db);
        }
    }
}

/// `ys = residual + bias`, row by row: what a product is then added to.
struct Start<'a, T>(&'a [T], &'a [T], &'a mut [T]);

impl<T: Real> Task for Start<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let d = self.1.len();
        for (x, y) in self.0.chunks_exact(d).zip(self.2.chunks_exact_mut(d)) {
            for ((y, x), b) in y.iter_mut().zip(x).zip(self.1) {
                *y = *x + *b;
            }
        }
    }
}

/// `zs += bias`, and `ys = f(zs)` if `ys` is there.
pub(crate) struct BiasAct<'a, T, F> {
    pub(crate) bias: &'a [T],
    pub(crate) zs: &'a mut [T],
    pub(crate) ys: Option<&'a mut [T]>,
    pub(crate) function: PhantomData<F>,
}

impl<T: Real, F: Function> Task for BiasAct<'_, T, F> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let h = self.bias.len();
        let Some(ys) = self.ys else {
            for z in self.zs.chunks_exact_mut(h) {
                for (z, b) in z.iter_mut().zip(self.bias) {
                    *z += *b;
                }
            }
            return;
        };
        for (z, y) in self.zs.chunks_exact_mut(h).zip(ys.chunks_exact_mut(h)) {
            for ((z, b), y) in z.iter_mut().zip(self.bias).zip(y) {
                *z += *b;
                *y = F::value::<A, T>(*z);
            }
        }
    }
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

/// `sums += xs` over the rows.
pub(crate) struct AddRows<'a, T>(pub(crate) &'a [T], pub(crate) &'a mut [T]);

impl<T: Real> Task for AddRows<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        for x in self.0.chunks_exact(self.1.len()) {
            for (s, x) in self.1.iter_mut().zip(x) {
                *s += *x;
            }
        }
    }
}

/// The part of a shared buffer that belongs to group `i` of `size` elements, cut at `len`.
///
/// # Safety
/// The buffer holds `len` elements; no two tasks have the same `i`.
unsafe fn part<'a, T>(buffer: Shared<T>, i: usize, size: usize, len: usize) -> &'a mut [T] {
    let first = i * size;
    // SAFETY: in bounds, and disjoint for different `i`, by the caller.
    unsafe { std::slice::from_raw_parts_mut(buffer.get().add(first), size.min(len - first)) }
}

/// The gradients that both halves have in common, in the order of the packed parameters.
fn join_grads<T: Real>(p: &Packed<'_, T>, sums: &[T], in_weight: Vec<T>, products: &[T]) -> Vec<T> {
    let (d, h) = (p.scale.len(), p.in_bias.len());
    let k = p.out_weight.len() / d;
    let (norm, rest) = sums.split_at(2 * d);
    let (in_bias, totals) = rest.split_at(h);
    let mut all = Vec::with_capacity(2 * d + h * (d + 1) + d * (k + 2));
    all.extend_from_slice(norm);
    all.extend(in_weight);
    all.extend_from_slice(in_bias);
    for (row, s) in products.chunks_exact(k).zip(p.scale) {
        all.extend(row.iter().map(|x| *x * *s));
    }
    all.extend(totals.iter().zip(p.scale).map(|(t, s)| *t * *s));
    // d scale[j] = sum over positions of dy[j] (out of the second map)[j].
    let rows = products.chunks_exact(k).zip(p.out_weight.chunks_exact(k));
    for ((m, w), (b, t)) in rows.zip(p.out_bias.iter().zip(totals)) {
        let along: f64 = m.iter().zip(w).map(|(m, w)| m.f64() * w.f64()).sum();
        all.push(T::of(along + b.f64() * t.f64()));
    }
    all
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

    fn grads(
        &self,
        xs: &Tensor,
        packed: &Tensor,
        grad: &Tensor,
        own: bool,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(hidden) = self.hidden.get() else { bail!("feed_forward: backward before forward") };
        let (dx, dp) =
            result(&[xs, packed, grad], |v: &[&[T]]| self.backward(v[0], v[1], hidden, v[2], own))?;
        Ok((Some(tensor(dx, xs.shape())?), Some(tensor(dp, packed.shape())?)))
    }
}

impl<T: Real> CustomOp2 for Dense<T> {
    fn name(&self) -> &'static str {
        "feed-forward"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let ys = self.forward(slice::<T>((s1, l1))?, slice::<T>((s2, l2))?, None);
        Ok((T::to_cpu_storage_owned(ys), l1.shape().clone()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        packed: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        self.grads(xs, packed, &grad.contiguous()?, true)
    }
}

impl<T: Real> CustomOp3 for Dense<T> {
    fn name(&self) -> &'static str {
        "feed-forward"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let residual = slice::<T>((s3, l3))?;
        let ys = self.forward(slice::<T>((s1, l1))?, slice::<T>((s2, l2))?, Some(residual));
        Ok((T::to_cpu_storage_owned(ys), l1.shape().clone()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        packed: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let grad = grad.contiguous()?;
        let (dx, dp) = self.grads(xs, packed, &grad, false)?;
        Ok((dx, dp, Some(grad)))
    }
}

/// What the forward pass of attention leaves for the backward pass.
struct Kept<T> {
    qkv: Vec<T>,
    out: Vec<T>,
    logs: Vec<T>,
}

struct Attend<T> {
    d: usize,
    batch: usize,
    /// Of one image.
    heads: Heads,
    eps: f64,
    isa: Isa,
    keep: bool,
    kept: OnceLock<Kept<T>>,
}

impl<T: Real> Attend<T> {
    /// Images of a group.
    fn images(&self) -> usize {
        GROUP.div_ceil(self.heads.n).min(self.batch)
    }

    /// Queries, keys and values of one image and head in `(N, 3, heads, D / heads)`.
    fn parts<'a>(&self, qkv: &'a [T], h: usize) -> [Head<'a, T>; 3] {
        [0, 1, 2].map(|i| Head { data: &qkv[i * self.d + h * self.heads.d..], strides: (3 * self.d, 1) })
    }

    fn forward(&self, xs: &[T], packed: &[T]) -> Vec<T> {
        let (d, n, images) = (self.d, self.heads.n, self.images());
        let p = Packed::new(packed, d, 3 * d, d);
        let (out_weight, out_bias) = p.scaled_out();
        let rows = self.batch * n;
        let group = images * n;
        let sizes = [3 * d, d, self.heads.heads];
        let mut kept = sizes.map(|width| Vec::<T>::with_capacity(rows * width));
        let to = {
            let [a, b, c] = &mut kept;
            [a, b, c].map(|v| Shared::new(v.as_mut_ptr()))
        };
        let fill = |all: Shared<T>| {
            (0..rows.div_ceil(group)).into_par_iter().for_each(|i| {
                // SAFETY: the groups are disjoint, and the capacities are those of all.
                let (ys, qkv, out, logs) = unsafe {
                    (
                        part(all, i, group * d, rows * d),
                        part(to[0], i, group * sizes[0], rows * sizes[0]),
                        part(to[1], i, group * sizes[1], rows * sizes[1]),
                        part(to[2], i, group * sizes[2], rows * sizes[2]),
                    )
                };
                let own = ys.len() / d;
                let xs = &xs[i * group * d..][..own * d];
                T::with_scratch(|scratch| {
                    let normed = &mut grow(&mut scratch.stage, own * d)[..own * d];
                    let (weight, bias, eps) = (p.norm_weight, p.norm_bias, self.eps);
                    run(self.isa, Norm { xs, weight, bias, eps, ys: normed });
                    multiply(qkv, Mat::new(normed, own, d), Mat::new(p.in_weight, 3 * d, d).t(), false);
                });
                let function = PhantomData::<crate::elementwise::Identity>;
                run(self.isa, BiasAct { bias: p.in_bias, zs: qkv, ys: None, function });
                let one = qkv.chunks_exact(n * 3 * d).zip(out.chunks_exact_mut(n * d));
                for ((qkv, out), logs) in one.zip(logs.chunks_exact_mut(n * self.heads.heads)) {
                    for h in 0..self.heads.heads {
                        let logs = &mut logs[h * n..][..n];
                        // SAFETY: the columns of this head, in rows of d.
                        unsafe {
                            let to = out.as_mut_ptr().add(h * self.heads.d);
                            self.heads.forward(self.isa, self.parts(qkv, h), to, d, logs);
                        }
                    }
                }
                run(self.isa, Start(xs, &out_bias, ys));
                multiply(ys, Mat::new(out, own, d), Mat::new(&out_weight, d, d).t(), true);
            });
        };
        // SAFETY: each group writes its images, and those are all.
        let ys = unsafe { filled(rows * d, fill) };
        if self.keep {
            for (v, width) in kept.iter_mut().zip(sizes) {
                // SAFETY: every group wrote its images.
                unsafe { v.set_len(rows * width) };
            }
            let [qkv, out, logs] = kept;
            let _ = self.kept.set(Kept { qkv, out, logs });
        }
        ys
    }

    fn backward(&self, xs: &[T], packed: &[T], kept: &Kept<T>, grad: &[T]) -> (Vec<T>, Vec<T>) {
        let (d, n, images) = (self.d, self.heads.n, self.images());
        let p = Packed::new(packed, d, 3 * d, d);
        let (out_weight, _) = p.scaled_out();
        let (rows, group) = (self.batch * n, images * n);
        let width = 6 * d;
        let mut sums = vec![T::ZERO; rows.div_ceil(group) * width];
        let [mut normed, mut slopes] = [rows * d, rows * 3 * d].map(|len| Vec::<T>::with_capacity(len));
        let to = [&mut normed, &mut slopes].map(|v| Shared::new(v.as_mut_ptr()));
        let fill = |all: Shared<T>| {
            sums.par_chunks_exact_mut(width).enumerate().for_each(|(i, sums)| {
                // SAFETY: the groups are disjoint, and the capacities are those of all.
                let (dx, normed, slopes) = unsafe {
                    (
                        part(all, i, group * d, rows * d),
                        part(to[0], i, group * d, rows * d),
                        part(to[1], i, group * 3 * d, rows * 3 * d),
                    )
                };
                let own = dx.len() / d;
                let at = i * group * d..i * group * d + own * d;
                let (xs, grad, out) = (&xs[at.clone()], &grad[at.clone()], &kept.out[at]);
                let qkv = &kept.qkv[i * group * 3 * d..][..own * 3 * d];
                let logs = &kept.logs[i * group * self.heads.heads..][..own * self.heads.heads];
                let (dw, rest) = sums.split_at_mut(d);
                let (db, rest) = rest.split_at_mut(d);
                let (dh, totals) = rest.split_at_mut(3 * d);
                run(self.isa, AddRows(grad, totals));
                let (weight, bias, eps) = (p.norm_weight, p.norm_bias, self.eps);
                run(self.isa, Norm { xs, weight, bias, eps, ys: normed });
                // The gradient of the heads' output, in the place of the result for a while.
                multiply(dx, Mat::new(grad, own, d), Mat::new(&out_weight, d, d), false);
                for image in 0..own / n {
                    for h in 0..self.heads.heads {
                        let (from, strides) = (image * n * d + h * self.heads.d, (d, 1));
                        let pair = [out, &*dx].map(|data| Head { data: &data[from..], strides });
                        let logs = &logs[(image * self.heads.heads + h) * n..][..n];
                        let parts = self.parts(&qkv[image * n * 3 * d..], h);
                        // SAFETY: the columns of this head in each third of the rows of 3 d.
                        unsafe {
                            let first = slopes.as_mut_ptr().add(image * n * 3 * d + h * self.heads.d);
                            let to = [first, first.add(d), first.add(2 * d)];
                            self.heads.backward(self.isa, parts, pair, logs, to, 3 * d);
                        }
                    }
                }
                run(self.isa, AddRows(slopes, dh));
                T::with_scratch(|scratch| {
                    let back = &mut grow(&mut scratch.stage, own * d)[..own * d];
                    multiply(back, Mat::new(slopes, own, 3 * d), Mat::new(p.in_weight, 3 * d, d), false);
                    dx.copy_from_slice(grad);
                    run(self.isa, PullNorm { xs, weight, eps, grad: back, dx, dw, db });
                });
            });
        };
        // SAFETY: each group writes its images, and those are all.
        let dx = unsafe { filled(rows * d, fill) };
        // SAFETY: every group wrote its images.
        unsafe {
            normed.set_len(rows * d);
            slopes.set_len(rows * 3 * d);
        }
        let in_weight = product(Mat::new(&slopes, rows, 3 * d).t(), Mat::new(&normed, rows, d));
        let products = product(Mat::new(grad, rows, d).t(), Mat::new(&kept.out, rows, d));
        (dx, join_grads(&p, &add_rows(&sums, width), in_weight, &products))
    }
}

impl<T: Real> CustomOp2 for Attend<T> {
    fn name(&self) -> &'static str {
        "self-attention"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let ys = self.forward(slice::<T>((s1, l1))?, slice::<T>((s2, l2))?);
        Ok((T::to_cpu_storage_owned(ys), l1.shape().clone()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        packed: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(kept) = self.kept.get() else { bail!("self_attention: backward before forward") };
        let grad = grad.contiguous()?;
        let (dx, dp) = result(&[xs, packed, &grad], |v: &[&[T]]| self.backward(v[0], v[1], kept, v[2]))?;
        Ok((Some(tensor(dx, xs.shape())?), Some(tensor(dp, packed.shape())?)))
    }
}
