//! Normalization, two linear maps with an activation between them, scale and residual sum.

use super::{AddRows, Norm, PullNorm, Start, Weights, matrix, ones_unless, part, whole};
use crate::linalg::mat::{Tiled, of_f32};
use crate::ops::elementwise::{Function, with_function};
use crate::tensor::check;
use crate::tensor::half::{half, wide, wide_option};
use crate::tensor::optional::{self, Argument, Optional};
use crate::tensor::parameters::Parameters;
use crate::tensor::path::Path;
use crate::tensor::storage::{contiguous, result, slice, tensor};
use crate::{Elementwise, Result, device};
use candle_core::{CpuStorage, DType, Shape, Tensor, bail};
use infomax_simd::gemm::{
    Left, Out, PanelSums, Panels, Reduce, across, group_rows, multiply, strips, tile_rows,
};
use infomax_simd::tiles::{Gathered, TileIsa};
use infomax_simd::{Arith, Real, Task, add_rows, run};
use infomax_simd::{Isa, Shared, filled, grow};
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
/// pre-normalization (arXiv:2010.11929), and the channel half of a ConvNeXt block (arXiv:2201.03545).
///
/// # Gradient
/// Of `xs`, `residual` and all parameters. The hidden values before the activation are kept from the forward
/// pass; the normalized input and the activations are computed again.
/// The parameters are read again: update them after the backward pass.
///
/// # Numerics
/// As [`layer_norm`](crate::layer_norm) and [`elementwise`](crate::elementwise). Positions are cut into groups
/// that depend on the shape only: the same bits for any number of threads. bf16 and f16 are computed in f32.
/// With [`Single::Rounded`](crate::Single) the factors of the products of f32, of both maps and of their gradients, are
/// rounded to bf16 on processors with AMX, where that is expected to be faster; all else stays f32.
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
    let Path::Cpu(_) = Path::of(xs) else {
        return device::feed_forward(xs, p, residual);
    };
    let ones = ones_unless(p.scale, d, xs)?;
    let small = [p.norm_weight, p.norm_bias, p.in_bias, p.out_bias, p.scale.unwrap_or(&ones)];
    let (parameters, token) = Parameters::new([p.in_weight, p.out_weight, &Tensor::cat(&small, 0)?])?;
    let xs = contiguous(xs)?;
    let keep = xs.track_op() || token.track_op();
    let rows = xs.elem_count() / d;
    let single = xs.dtype() == DType::F32;
    let tiles = Tiled::rounded(isa, &[(rows, h, d), (rows, d, h)]).filter(|_| single);
    macro_rules! call {
        ($t:ty) => {{
            let hidden = OnceLock::new();
            let op = Dense::<$t> { d, h, eps: p.eps, act: p.act, isa, tiles, keep, parameters, hidden };
            optional::apply(&xs, &token, residual, op)?
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

/// `ys = f(zs)`.
struct Act<'a, T, F>(&'a [T], &'a mut [T], PhantomData<F>);

impl<T: Real, F: Function> Task for Act<'_, T, F> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        for (z, y) in self.0.iter().zip(self.1) {
            *y = F::value::<A, T>(*z);
        }
    }
}

/// From `zs`: `ys = f(zs)` and `dz = f'(zs) dz`.
struct PullAct<'a, T, F> {
    zs: &'a [T],
    ys: &'a mut [T],
    dz: &'a mut [T],
    function: PhantomData<F>,
}

impl<T: Real, F: Function> Task for PullAct<'_, T, F> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        for ((z, y), dz) in self.zs.iter().zip(self.ys).zip(self.dz) {
            let (value, slope) = F::both::<A, T>(*z);
            *y = value;
            *dz *= slope;
        }
    }
}

/// Rows of a tile at its full depth, so that gradients of weights fill their tiles.
const PIECE: usize = 32;

/// Hidden values lie in panels, group by group: see [`panels`](crate::panels).
struct Dense<T> {
    d: usize,
    h: usize,
    eps: f64,
    act: Elementwise,
    isa: Isa,
    /// What multiplies in the place of f32; chosen for the forward and the backward pass alike.
    tiles: Option<TileIsa>,
    /// The hidden values are wanted for a backward pass.
    keep: bool,
    parameters: Parameters,
    /// The hidden values before the activation.
    hidden: OnceLock<Vec<T>>,
}

impl<T: Real> Dense<T> {
    /// The hidden channels, rounded up to whole panels.
    fn padded(&self) -> usize {
        self.h.next_multiple_of(across::<T>(self.isa))
    }

    /// Rows of a group.
    fn group(&self, rows: usize) -> usize {
        match self.tiles {
            Some(_) => group_rows::<T>(self.isa, rows).next_multiple_of(PIECE),
            None => group_rows::<T>(self.isa, rows),
        }
    }

    fn forward(&self, xs: &[T], w: &Weights<'_, T>, residual: Option<&[T]>) -> Vec<T> {
        let (d, isa, h) = (self.d, self.isa, self.padded());
        let width = across::<T>(isa);
        let first = Panels::pack(isa, self.tiles, w.first(true), false);
        let second = Panels::pack(isa, self.tiles, w.second(true), true);
        let (in_bias, out_bias) = (whole(w.in_bias, h), w.scaled_bias());
        let (rows, group) = (xs.len() / d, self.group(xs.len() / d));
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
                    let (weight, bias, eps) = (w.norm_weight, w.norm_bias, self.eps);
                    run(isa, Norm { xs, weight, bias, eps, ys: normed });
                    let mut act = |panel: usize, zs: &mut [T]| {
                        let ys = &mut active[panel * own * width..][..own * width];
                        with_function!(self.act, F => run(isa, Act(zs, ys, PhantomData::<F>)));
                    };
                    let out = Out::Panels(zs, &mut act);
                    multiply(isa, own, Left::Rows(normed), &first, Some(&in_bias), out);
                    run(isa, Start(residual, &out_bias, ys));
                    multiply(isa, own, Left::Panels(active), &second, None, Out::Rows(ys, true));
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

    /// The gradients of the input, to which `own` adds `grad`, and of the parameters if somebody wants them.
    fn backward(
        &self,
        xs: &[T],
        w: &Weights<'_, T>,
        hidden: &[T],
        grad: &[T],
        (own, want): (bool, bool),
    ) -> (Vec<T>, Option<[Vec<T>; 3]>) {
        let (d, isa, h) = (self.d, self.isa, self.padded());
        let panel = across::<T>(isa);
        let second = Panels::pack(isa, self.tiles, w.second(false), false);
        let first = Panels::pack(isa, self.tiles, w.first(false), true);
        let (rows, group) = (xs.len() / d, self.group(xs.len() / d));
        let groups = rows.div_ceil(group);
        let width = 3 * d + h;
        let mut sums = vec![T::ZERO; groups * width];
        let sides = Sides::new(self, rows, group);
        let fill = |out: Shared<T>| {
            sums.par_chunks_exact_mut(width).enumerate().for_each(|(i, sums)| {
                // SAFETY: the groups are disjoint.
                let dx = unsafe { part(out, i, group * d, rows * d) };
                let n = dx.len() / d;
                let (xs, grad) = (&xs[i * group * d..][..n * d], &grad[i * group * d..][..n * d]);
                let zs = &hidden[i * group * h..][..n * h];
                let (dw, rest) = sums.split_at_mut(d);
                let (db, rest) = rest.split_at_mut(d);
                let (totals, dh) = rest.split_at_mut(d);
                run(isa, AddRows(grad, totals));
                T::with_scratch(|scratch| {
                    let rows = &mut grow(&mut scratch.stage, n * d)[..n * d];
                    let (weight, bias, eps) = (w.norm_weight, w.norm_bias, self.eps);
                    run(isa, Norm { xs, weight, bias, eps, ys: rows });
                    // SAFETY: the groups are disjoint, and each comes once.
                    let (active, slopes) = unsafe {
                        sides.rows(i, rows, grad);
                        sides.hidden(i, n, (&mut scratch.panel, &mut scratch.tile))
                    };
                    let mut pull = |i: usize, dz: &mut [T]| {
                        let at = i * n * panel..(i + 1) * n * panel;
                        let (zs, ys) = (&zs[at.clone()], &mut active[at]);
                        with_function!(self.act, F => {
                            run(isa, PullAct { zs, ys, dz, function: PhantomData::<F> });
                        });
                        T::dispatch(isa, PanelSums(dz, &mut dh[i * panel..][..panel]));
                    };
                    let out = Out::Panels(slopes, &mut pull);
                    multiply(isa, n, Left::Rows(grad), &second, None, out);
                    // SAFETY: as above; both are written.
                    unsafe { sides.give(i, n, active, slopes) };
                    let back = rows;
                    multiply(isa, n, Left::Panels(slopes), &first, None, Out::Rows(back, false));
                    if own {
                        dx.copy_from_slice(grad);
                    } else {
                        dx.fill(T::ZERO);
                    }
                    run(isa, PullNorm { xs, weight, eps, grad: back, dx, dw, db });
                });
            });
        };
        // SAFETY: each group writes its rows, and those are all.
        let dx = unsafe { filled(xs.len(), fill) };
        if !want {
            return (dx, None);
        }
        // SAFETY: every group was given.
        let [in_weight, products] = unsafe { sides.products() };
        let sums = add_rows(&sums, width);
        let (norm, rest) = sums.split_at(2 * d);
        let (totals, dh) = rest.split_at(d);
        (dx, Some(w.join(norm, &dh[..self.h], totals, in_weight, products)))
    }
}

/// Both sides of the gradients of the weights, group by group: `slopes^T normed` and `grad^T active`.
enum Sides<T> {
    /// Strips of the normalized input and of the gradient, panels of the activations and of the slopes.
    Panels { isa: Isa, sizes: Sizes, rows: usize, group: usize, kept: [Vec<T>; 4], to: [Shared<T>; 4] },
    /// Rounded for tiles.
    Tiles([Gathered; 2]),
}

/// Columns of the input and of its strips, hidden channels and those of their panels.
#[derive(Clone, Copy)]
struct Sizes {
    d: usize,
    tall: usize,
    h: usize,
    padded: usize,
}

impl<T: Real> Sides<T> {
    fn new(op: &Dense<T>, rows: usize, group: usize) -> Self {
        let (d, isa, h, padded) = (op.d, op.isa, op.h, op.padded());
        match op.tiles {
            Some(tiles) => Self::Tiles([0, 1].map(|_| Gathered::new(tiles, isa, (rows, group), d, h))),
            None => {
                let tall = d.next_multiple_of(tile_rows::<T>(isa));
                let mut kept =
                    [tall, tall, padded, padded].map(|width| Vec::<T>::with_capacity(rows * width));
                let [a, b, c, e] = &mut kept;
                let to = [a, b, c, e].map(|v| Shared::new(v.as_mut_ptr()));
                Self::Panels { isa, sizes: Sizes { d, tall, h, padded }, rows, group, kept, to }
            }
        }
    }

    /// Takes the normalized input and the gradient of group `i`.
    ///
    /// # Safety
    /// Each group is given once.
    unsafe fn rows(&self, i: usize, normed: &[T], grad: &[T]) {
        match self {
            Self::Panels { isa, sizes: Sizes { d, tall, .. }, rows, group, to, .. } => {
                for (to, from) in to.iter().zip([normed, grad]) {
                    // SAFETY: the groups are disjoint, and the capacity is that of all.
                    let to = unsafe { part(*to, i, group * tall, rows * tall) };
                    strips(*isa, from, *d, to);
                }
            }
            Self::Tiles(sides) => {
                for (side, from) in sides.iter().zip([normed, grad]) {
                    if let Some(from) = T::as_f32(from) {
                        // SAFETY: by the caller.
                        unsafe { side.left(i, from) };
                    }
                }
            }
        }
    }

    /// Where the activations and slopes of group `i` of `n` rows go.
    ///
    /// # Safety
    /// No two for the same group at a time.
    unsafe fn hidden<'a>(
        &'a self,
        i: usize,
        n: usize,
        scratch: (&'a mut Vec<T>, &'a mut Vec<T>),
    ) -> (&'a mut [T], &'a mut [T]) {
        match self {
            Self::Panels { sizes: Sizes { padded, .. }, rows, group, to, .. } => {
                // SAFETY: the groups are disjoint, and the capacity is that of all.
                let of = |to: Shared<T>| unsafe { part(to, i, group * padded, rows * padded) };
                (of(to[2]), of(to[3]))
            }
            Self::Tiles(sides) => {
                let len = n * sides[0].panels();
                (&mut grow(scratch.0, len)[..len], &mut grow(scratch.1, len)[..len])
            }
        }
    }

    /// Takes the activations and slopes of group `i` of `n` rows, which are where [`Sides::hidden`] put them.
    ///
    /// # Safety
    /// Each group is given once.
    unsafe fn give(&self, i: usize, n: usize, active: &[T], slopes: &[T]) {
        if let Self::Tiles(sides) = self {
            for (side, from) in sides.iter().zip([slopes, active]) {
                if let Some(from) = T::as_f32(from) {
                    // SAFETY: by the caller.
                    unsafe { side.right(i, n, Left::Panels(from)) };
                }
            }
        }
    }

    /// The gradient of the first map `(h, d)`, and `grad^T active` `(d, h)`.
    ///
    /// # Safety
    /// Every group was given and written.
    unsafe fn products(self) -> [Vec<T>; 2] {
        match self {
            Self::Panels {
                isa, sizes: Sizes { d: m, tall, h: n, padded }, rows, group, mut kept, ..
            } => {
                for (v, width) in kept.iter_mut().zip([tall, tall, padded, padded]) {
                    // SAFETY: by the caller.
                    unsafe { v.set_len(rows * width) };
                }
                let [normed, grads, active, slopes] = &kept;
                [(normed, slopes, true), (grads, active, false)].map(|(strips, panels, transposed)| {
                    Reduce { strips, panels, rows, group, m, n, transposed }.run(isa)
                })
            }
            Self::Tiles([slopes, active]) => {
                // SAFETY: by the caller.
                unsafe { [slopes.product(true), active.product(false)].map(of_f32) }
            }
        }
    }
}

impl<T: Real> Optional for Dense<T> {
    const NAME: &'static str = "feed-forward";

    fn run(
        &self,
        xs: Argument<'_>,
        _: Argument<'_>,
        residual: Option<Argument<'_>>,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let residual = residual.map(slice::<T>).transpose()?;
        let x = slice::<T>(xs)?;
        let [a, b, c] = &self.parameters.tensors;
        let ys = result(&[a, b, c], |v: &[&[T]]| {
            self.forward(x, &Weights::new([v[0], v[1], v[2]], self.d, self.h), residual)
        })?;
        Ok((crate::tensor::storage::owned(ys), xs.1.shape().clone()))
    }

    fn grads(
        &self,
        (xs, token, residual): (&Tensor, &Tensor, Option<&Tensor>),
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 3]> {
        let Some(hidden) = self.hidden.get() else { bail!("feed_forward: backward before forward") };
        // A residual takes the gradient itself; without one it goes to the input.
        let flags = (residual.is_none(), token.track_op());
        let [a, b, c] = &self.parameters.tensors;
        let (dx, grads) = result(&[xs, grad, a, b, c], |v: &[&[T]]| {
            let weights = Weights::new([v[2], v[3], v[4]], self.d, self.h);
            self.backward(v[0], &weights, hidden, v[1], flags)
        })?;
        let dt = self.parameters.give(token, grads)?;
        let dr = residual.map(|_| grad.clone());
        Ok([Some(tensor(dx, xs.shape())?), dt, dr])
    }
}
