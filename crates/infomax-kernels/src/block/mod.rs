//! The two halves of a transformer layer, each as one operation: normalisation, products, activation or
//! attention, scale and residual sum.
//!
//! Candle's backward pass adds the gradient of every intermediate tensor to fresh zeros in a single thread;
//! an operation without intermediate tensors has none of these passes. Forward and backward run over groups of
//! positions that fit in the cache; only the gradients of the weights are products over all positions.

mod feed_forward;
mod self_attention;

pub(crate) use feed_forward::check_feed_forward;
#[cfg(test)]
pub(crate) use feed_forward::feed_forward_isa;
pub use feed_forward::{FeedForward, feed_forward};
pub(crate) use self_attention::check_self_attention;
#[cfg(test)]
pub(crate) use self_attention::self_attention_isa;
pub use self_attention::{SelfAttention, self_attention};

use crate::elementwise::Function;
use crate::lanes::{Arith, Real, Task};
use crate::row_norm::{normalize_row, pull_row};
use crate::simd::Shared;
use crate::{Error, Result, check};
use candle_core::Tensor;
use std::marker::PhantomData;

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
