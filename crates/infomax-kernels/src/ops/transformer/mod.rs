//! The two halves of a transformer layer, each as one operation: normalization, products, activation or
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

use crate::ops::elementwise::Function;
use crate::ops::row_norm::{normalize_row, pull_row};
use crate::tensor::check;
use crate::{Error, Result};
use candle_core::Tensor;
use infomax_simd::Shared;
use infomax_simd::gemm::Source;
use infomax_simd::{Arith, Real, Task};
use rayon::prelude::*;
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

/// The parameters of either half: norm, first map to `h` channels, second map from `k` channels.
#[derive(Clone, Copy)]
struct Weights<'a, T> {
    in_weight: &'a [T],
    out_weight: &'a [T],
    norm_weight: &'a [T],
    norm_bias: &'a [T],
    in_bias: &'a [T],
    out_bias: &'a [T],
    scale: &'a [T],
}

impl<'a, T: Real> Weights<'a, T> {
    /// From both maps, and the rest in one tensor.
    fn new([in_weight, out_weight, small]: [&'a [T]; 3], d: usize, h: usize) -> Self {
        let (norm_weight, small) = small.split_at(d);
        let (norm_bias, small) = small.split_at(d);
        let (in_bias, small) = small.split_at(h);
        let (out_bias, scale) = small.split_at(d);
        Self { in_weight, out_weight, norm_weight, norm_bias, in_bias, out_bias, scale }
    }

    /// The first map, transposed for the forward pass.
    fn first(&self, transposed: bool) -> Source<'a, T> {
        let (rows, cols) = (self.in_bias.len(), self.norm_weight.len());
        Source { data: self.in_weight, rows, cols, transposed, scale: None }
    }

    /// The second map with the scale of the branch in it, transposed for the forward pass.
    fn second(&self, transposed: bool) -> Source<'a, T> {
        let (rows, cols) = (self.scale.len(), self.out_weight.len() / self.scale.len());
        Source { data: self.out_weight, rows, cols, transposed, scale: Some(self.scale) }
    }

    /// The bias of the second map with the scale of the branch in it.
    fn scaled_bias(&self) -> Vec<T> {
        self.out_bias.iter().zip(self.scale).map(|(b, s)| *b * *s).collect()
    }

    /// The gradients in the order of [`Weights::new`]: from those of norm and first map, the sums of the
    /// gradient over the positions, and its products with what went into the second map.
    fn join(
        &self,
        norm: &[T],
        in_bias: &[T],
        totals: &[T],
        in_weight: Vec<T>,
        mut products: Vec<T>,
    ) -> [Vec<T>; 3] {
        let k = self.out_weight.len() / self.scale.len();
        let mut scale = vec![T::ZERO; self.scale.len()];
        // d scale[j] = sum over positions of dy[j] (out of the second map)[j].
        let rows = products.par_chunks_exact_mut(k).zip(self.out_weight.par_chunks_exact(k));
        rows.zip(&mut scale).enumerate().for_each(|(j, ((row, w), to))| {
            let mut along = [0f64; 8];
            for (m, w) in row.chunks(8).zip(w.chunks(8)) {
                for (a, (m, w)) in along.iter_mut().zip(m.iter().zip(w)) {
                    *a += m.f64() * w.f64();
                }
            }
            let along: f64 = along.iter().sum();
            *to = T::of(along + self.out_bias[j].f64() * totals[j].f64());
            for m in row {
                *m *= self.scale[j];
            }
        });
        let mut small = Vec::with_capacity(norm.len() + in_bias.len() + 2 * totals.len());
        small.extend_from_slice(norm);
        small.extend_from_slice(in_bias);
        small.extend(totals.iter().zip(self.scale).map(|(t, s)| *t * *s));
        small.extend(scale);
        [in_weight, products, small]
    }
}

/// The bias with zeros up to `len`.
fn whole<T: Real>(bias: &[T], len: usize) -> Vec<T> {
    let mut bias = bias.to_vec();
    bias.resize(len, T::ZERO);
    bias
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
