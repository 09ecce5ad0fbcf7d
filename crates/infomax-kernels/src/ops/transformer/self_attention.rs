//! Normalization, attention with its projections, scale and residual sum.

use super::{AddRows, Norm, PullNorm, Start, Weights, matrix, ones_unless, part, whole};
use crate::linalg::mat::{Mat, Tiled, of_f32, product};
use crate::ops::attention::Head;
use crate::tensor::check;
use crate::tensor::check::Heads;
use crate::tensor::half::{half, wide, wide_option};
use crate::tensor::parameters::Parameters;
use crate::tensor::path::Path;
use crate::tensor::storage::{contiguous, result, slice, tensor};
use crate::{Error, Result, device};
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Shape, Tensor, bail};
use infomax_simd::gemm::{Left, Out, Panels, across, multiply};
use infomax_simd::tiles::{Gathered, TileIsa};
use infomax_simd::{Isa, Shared, filled, grow};
use infomax_simd::{Real, add_rows, run};
use rayon::prelude::*;
use std::sync::OnceLock;

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
/// attention half of a transformer layer with pre-normalization (arXiv:2010.11929).
///
/// # Gradient
/// Of `xs` and all parameters. Queries, keys, values, the output of the heads and `ln sum exp` of each row are
/// kept from the forward pass; the normalized input and the weights of attention are computed again.
/// The parameters are read again: update them after the backward pass.
///
/// # Numerics
/// As [`attention`](crate::attention) and [`layer_norm`](crate::layer_norm). bf16 and f16 are computed in f32. With
/// [`Single::Rounded`](crate::Single) the factors of the products of f32 with both projections, and of their gradients, are
/// rounded to bf16 on processors with AMX, where that is expected to be faster; all else stays f32.
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
    let Path::Cpu(_) = Path::of(xs) else {
        return device::self_attention(xs, p);
    };
    let ones = ones_unless(p.scale, d, xs)?;
    let small = [p.norm_weight, p.norm_bias, p.qkv_bias, p.out_bias, p.scale.unwrap_or(&ones)];
    let (parameters, token) = Parameters::new([p.qkv_weight, p.out_weight, &Tensor::cat(&small, 0)?])?;
    let xs = contiguous(xs)?;
    let keep = xs.track_op() || token.track_op();
    let scale = 1.0 / ((d / p.heads) as f64).sqrt();
    let heads = Heads { batch: 1, heads: p.heads, n, m: n, d: d / p.heads, scale, causal: false };
    let (rows, single) = (batch * n, xs.dtype() == DType::F32);
    let tiles = Tiled::rounded(isa, &[(rows, 3 * d, d), (rows, d, d)]).filter(|_| single);
    macro_rules! call {
        ($t:ty) => {{
            let kept = OnceLock::new();
            let op = Attend::<$t> { d, batch, heads, eps: p.eps, isa, tiles, keep, parameters, kept };
            xs.apply_op2(&token, op)?
        }};
    }
    Ok(if xs.dtype() == DType::F64 { call!(f64) } else { call!(f32) })
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
    /// What multiplies with the projections in the place of f32; chosen for the forward and the backward pass alike.
    tiles: Option<TileIsa>,
    keep: bool,
    parameters: Parameters,
    kept: OnceLock<Kept<T>>,
}

/// Positions of a group, at least: keys and values of its images stay in the cache.
const GROUP: usize = 160;

impl<T: Real> Attend<T> {
    /// Images of a group.
    fn images(&self) -> usize {
        GROUP.div_ceil(self.heads.n).min(self.batch)
    }

    /// Queries, keys and values of one image and head in `(N, 3, heads, D / heads)`.
    fn parts<'a>(&self, qkv: &'a [T], h: usize) -> [Head<'a, T>; 3] {
        [0, 1, 2].map(|i| Head { data: &qkv[i * self.d + h * self.heads.d..], strides: (3 * self.d, 1) })
    }

    fn forward(&self, xs: &[T], w: &Weights<'_, T>) -> Vec<T> {
        let (d, n, images, isa) = (self.d, self.heads.n, self.images(), self.isa);
        let first = Panels::pack(isa, self.tiles, w.first(true), false);
        let second = Panels::pack(isa, self.tiles, w.second(true), false);
        let in_bias = whole(w.in_bias, (3 * d).next_multiple_of(across::<T>(isa)));
        let out_bias = w.scaled_bias();
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
                    let (weight, bias, eps) = (w.norm_weight, w.norm_bias, self.eps);
                    run(isa, Norm { xs, weight, bias, eps, ys: normed });
                    let out = Out::Rows(qkv, false);
                    multiply(isa, own, Left::Rows(normed), &first, Some(&in_bias), out);
                });
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
                run(isa, Start(xs, &out_bias, ys));
                multiply(isa, own, Left::Rows(out), &second, None, Out::Rows(ys, true));
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

    /// The gradients of the input, and of the parameters if somebody wants them.
    fn backward(
        &self,
        xs: &[T],
        w: &Weights<'_, T>,
        kept: &Kept<T>,
        grad: &[T],
        want: bool,
    ) -> (Vec<T>, Option<[Vec<T>; 3]>) {
        let (d, n, images, isa) = (self.d, self.heads.n, self.images(), self.isa);
        let second = Panels::pack(isa, self.tiles, w.second(false), false);
        let first = Panels::pack(isa, self.tiles, w.first(false), false);
        let (rows, group) = (self.batch * n, images * n);
        let width = 6 * d;
        let mut sums = vec![T::ZERO; rows.div_ceil(group) * width];
        let [mut normed, mut slopes] = [rows * d, rows * 3 * d].map(|len| Vec::<T>::with_capacity(len));
        let to = [&mut normed, &mut slopes].map(|v| Shared::new(v.as_mut_ptr()));
        let sides =
            self.tiles.map(|tiles| [3 * d, d].map(|n| Gathered::new(tiles, isa, (rows, group), d, n)));
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
                run(isa, AddRows(grad, totals));
                let (weight, bias, eps) = (w.norm_weight, w.norm_bias, self.eps);
                run(isa, Norm { xs, weight, bias, eps, ys: normed });
                // The gradient of the heads' output, in the place of the result for a while.
                multiply(isa, own, Left::Rows(grad), &second, None, Out::Rows(dx, false));
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
                if let Some(sides) = &sides {
                    // SAFETY: the groups are disjoint, and each comes once.
                    unsafe { gather(sides, i, own, [normed, slopes], [grad, out]) };
                }
                T::with_scratch(|scratch| {
                    let back = &mut grow(&mut scratch.stage, own * d)[..own * d];
                    multiply(isa, own, Left::Rows(slopes), &first, None, Out::Rows(back, false));
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
        if !want {
            return (dx, None);
        }
        let [in_weight, products] = match sides {
            // SAFETY: every group was given.
            Some([first, second]) => unsafe { [of_f32(first.product(true)), of_f32(second.product(false))] },
            None => [
                product(Mat::new(&slopes, rows, 3 * d).t(), Mat::new(&normed, rows, d)),
                product(Mat::new(grad, rows, d).t(), Mat::new(&kept.out, rows, d)),
            ],
        };
        let sums = add_rows(&sums, width);
        let (norm, rest) = sums.split_at(2 * d);
        let (dh, totals) = rest.split_at(3 * d);
        (dx, Some(w.join(norm, dh, totals, in_weight, products)))
    }
}

/// Gives group `i` of `own` rows to the gradients of both projections.
///
/// # Safety
/// Each group is given once.
unsafe fn gather<T: Real>(
    [first, second]: &[Gathered; 2],
    i: usize,
    own: usize,
    [normed, slopes]: [&[T]; 2],
    [grad, out]: [&[T]; 2],
) {
    for (side, left, right) in [(first, normed, slopes), (second, grad, out)] {
        if let (Some(left), Some(right)) = (T::as_f32(left), T::as_f32(right)) {
            // SAFETY: by the caller.
            unsafe {
                side.left(i, left);
                side.right(i, own, Left::Rows(right));
            }
        }
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
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let xs = slice::<T>((s1, l1))?;
        let [a, b, c] = &self.parameters.tensors;
        let ys = result(&[a, b, c], |v: &[&[T]]| {
            self.forward(xs, &Weights::new([v[0], v[1], v[2]], self.d, 3 * self.d))
        })?;
        Ok((crate::tensor::storage::owned(ys), l1.shape().clone()))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        token: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(kept) = self.kept.get() else { bail!("self_attention: backward before forward") };
        let grad = grad.contiguous()?;
        let [a, b, c] = &self.parameters.tensors;
        let (dx, grads) = result(&[xs, &grad, a, b, c], |v: &[&[T]]| {
            let weights = Weights::new([v[2], v[3], v[4]], self.d, 3 * self.d);
            self.backward(v[0], &weights, kept, v[1], token.track_op())
        })?;
        Ok((Some(tensor(dx, xs.shape())?), self.parameters.give(token, grads)?))
    }
}
