//! Scaled dot-product attention in blocks, without a matrix of all weights.

use crate::linalg::mat::{Mat, multiply, multiply_raw};
use crate::ops::rows::dot;
use crate::tensor::check::{Heads, check_attention};
use crate::tensor::half::{half, wide};
use crate::tensor::path::Path;
use crate::tensor::storage::tensor;
use crate::{AttentionConfig, Result, device};
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Shape, Storage, Tensor, bail};
use gemm::Parallelism;
use infomax_simd::{Arith, Real, Task, max, run, sum};
use infomax_simd::{Float, Isa, Shared, grow};
use rayon::prelude::*;
use std::sync::OnceLock;

/// Scaled dot-product attention (arXiv:1706.03762): `softmax(scale q k^T) v` for each image and head.
///
/// `q` is `(B, H, N, D)`, `k` and `v` are `(B, H, M, D)`; the result is `(B, H, N, D)`. Any strides are
/// accepted as they are: heads that were cut out of one projection need no copy.
///
/// # Gradient
/// Of all three. The weights are computed again from the stored `ln sum exp` of each row (arXiv:2205.14135),
/// so that memory grows with `N`, not with `N M`.
///
/// # Numerics
/// Blocks of keys are merged with a running maximum (arXiv:1805.02867). An image and head is one task: the same
/// bits for any number of threads. bf16 and f16 are computed in f32.
///
/// # Errors
/// Shapes or types that do not fit; tensors without elements; a `scale` that is not finite.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, cfg: AttentionConfig) -> Result<Tensor> {
    attention_isa(q, k, v, cfg, Isa::detect())
}

pub(crate) fn attention_isa(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    cfg: AttentionConfig,
    isa: Isa,
) -> Result<Tensor> {
    if half(q) {
        return Ok(attention_isa(&wide(q)?, &wide(k)?, &wide(v)?, cfg, isa)?.to_dtype(q.dtype())?);
    }
    let shape = check_attention(q, k, v, cfg)?;
    let Path::Cpu(_) = Path::of(q) else {
        return device::attention(q, k, v, cfg);
    };
    Ok(match q.dtype() {
        DType::F64 => q.apply_op3(k, v, Attention::<f64> { shape, isa, logs: OnceLock::new() })?,
        _ => q.apply_op3(k, v, Attention::<f32> { shape, isa, logs: OnceLock::new() })?,
    })
}

/// One head of one image in a slice: rows of positions.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) strides: (usize, usize),
}

impl<'a, T: Real> Head<'a, T> {
    fn rows(&self, first: usize, rows: usize, d: usize) -> Mat<'a, T> {
        Mat::strided(&self.data[first * self.strides.0..], (rows, d), self.strides)
    }
}

/// Cuts `len` into equal blocks of at most `most`.
fn blocks(len: usize, most: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
    let size = len.div_ceil(len.div_ceil(most));
    (0..len.div_ceil(size)).map(move |i| (i * size, size.min(len - i * size)))
}

/// Queries and keys of one block: the weights of a block take 128 KiB in f32.
const QUERIES: usize = 128;
const KEYS: usize = 256;

impl Heads {
    /// The keys that a block of queries sees, rounded up to the last query's.
    fn visible(&self, first: usize, rows: usize) -> usize {
        if self.causal { self.m.min(first + rows) } else { self.m }
    }

    /// The output `n` rows of `d`, `out_stride` apart, and `ln sum exp` of each row.
    ///
    /// # Safety
    /// `out` must be valid for writes of these rows, which nothing else uses meanwhile.
    pub(crate) unsafe fn forward<T: Real>(
        &self,
        isa: Isa,
        [q, k, v]: [Head<'_, T>; 3],
        out: *mut T,
        out_stride: usize,
        logs: &mut [T],
    ) {
        let d = self.d;
        T::with_scratch(|scratch| {
            for (i, rows) in blocks(self.n, QUERIES) {
                let seen = self.visible(i, rows);
                let weights = grow(&mut scratch.stage, rows * KEYS.min(seen));
                let state = grow(&mut scratch.panel, rows * (d + 2));
                let (sums, state) = state.split_at_mut(rows * d);
                let (maxima, totals) = state.split_at_mut(rows);
                let totals = &mut totals[..rows];
                for (j, cols) in blocks(seen, KEYS) {
                    // SAFETY: the scratch holds rows * cols elements.
                    unsafe {
                        multiply_raw(
                            weights.as_mut_ptr(),
                            cols,
                            q.rows(i, rows, d),
                            k.rows(j, cols, d).t(),
                            T::of(self.scale),
                            false,
                            Parallelism::None,
                        );
                    }
                    let weights = &mut weights[..rows * cols];
                    self.mask(weights, i, j, cols, T::of(f64::NEG_INFINITY));
                    run(isa, Merge { weights, cols, sums, d, maxima, totals, first: j == 0 });
                    multiply(sums, Mat::new(weights, rows, cols), v.rows(j, cols, d), j > 0);
                }
                for r in 0..rows {
                    logs[i + r] = maxima[r] + totals[r].ln();
                    let scale = T::ONE / totals[r];
                    // SAFETY: a row of the destination, by the caller.
                    let out = unsafe { std::slice::from_raw_parts_mut(out.add((i + r) * out_stride), d) };
                    for (y, x) in out.iter_mut().zip(&sums[r * d..]) {
                        *y = *x * scale;
                    }
                }
            }
        });
    }

    /// The gradients of the three inputs, into rows that are `stride` apart.
    ///
    /// # Safety
    /// The pointers must be valid for writes of `n` (the first) and `m` rows of `d`, `stride` apart, which
    /// nothing else uses meanwhile.
    pub(crate) unsafe fn backward<T: Real>(
        &self,
        isa: Isa,
        [q, k, v]: [Head<'_, T>; 3],
        [out, grad]: [Head<'_, T>; 2],
        logs: &[T],
        [dq, dk, dv]: [*mut T; 3],
        stride: usize,
    ) {
        let d = self.d;
        debug_assert!(out.strides.1 == 1 && grad.strides.1 == 1);
        T::with_scratch(|scratch| {
            let means = grow(&mut scratch.tile, self.n);
            for r in 0..self.n {
                let (o, g) = (&out.data[r * out.strides.0..][..d], &grad.data[r * grad.strides.0..][..d]);
                means[r] = run(isa, Dot(o, g));
            }
            // Keys that no query sees get 0; queries always see one.
            for j in 0..self.m {
                if self.causal && j >= self.n {
                    // SAFETY: a row of the destination, by the caller.
                    unsafe {
                        std::slice::from_raw_parts_mut(dk.add(j * stride), d).fill(T::ZERO);
                        std::slice::from_raw_parts_mut(dv.add(j * stride), d).fill(T::ZERO);
                    }
                }
            }
            let keys = if self.causal { self.m.min(self.n) } else { self.m };
            for (j, cols) in blocks(keys, KEYS) {
                let mut begun = false;
                for (i, rows) in blocks(self.n, QUERIES) {
                    if self.causal && i + rows <= j {
                        continue;
                    }
                    let weights = grow(&mut scratch.stage, rows * cols);
                    let slopes = grow(&mut scratch.panel, rows * cols);
                    let (qs, ks) = (q.rows(i, rows, d), k.rows(j, cols, d));
                    let (gs, vs) = (grad.rows(i, rows, d), v.rows(j, cols, d));
                    let none = Parallelism::None;
                    // SAFETY: the scratch holds rows * cols elements; the destinations are the caller's, and
                    // those that are added to were written by the first block that reached them.
                    unsafe {
                        let scale = T::of(self.scale);
                        multiply_raw(weights.as_mut_ptr(), cols, qs, ks.t(), scale, false, none);
                        multiply_raw(slopes.as_mut_ptr(), cols, gs, vs.t(), T::ONE, false, none);
                        let (weights, slopes) = (&mut weights[..rows * cols], &mut slopes[..rows * cols]);
                        self.mask(weights, i, j, cols, T::of(f64::NEG_INFINITY));
                        let (logs, means) = (&logs[i..i + rows], &means[i..i + rows]);
                        run(isa, Slopes { weights, slopes, cols, logs, means, scale });
                        let (p, s) = (Mat::new(weights, rows, cols), Mat::new(slopes, rows, cols));
                        multiply_raw(dv.add(j * stride), stride, p.t(), gs, T::ONE, begun, none);
                        multiply_raw(dk.add(j * stride), stride, s.t(), qs, T::ONE, begun, none);
                        multiply_raw(dq.add(i * stride), stride, s, ks, T::ONE, j > 0, none);
                    }
                    begun = true;
                }
            }
        });
    }

    fn mask<T: Real>(&self, weights: &mut [T], first: usize, key: usize, cols: usize, value: T) {
        if !self.causal {
            return;
        }
        for (r, row) in weights.chunks_exact_mut(cols).enumerate() {
            let seen = (first + r + 1).saturating_sub(key).min(cols);
            row[seen..].fill(value);
        }
    }
}

struct Dot<'a, T>(&'a [T], &'a [T]);

impl<T: Real> Task for Dot<'_, T> {
    type Out = T;
    #[inline(always)]
    fn run<A: Arith>(self) -> T {
        dot::<T>(self.0, self.1)
    }
}

/// Turns the products of a block into weights, relative to the running maximum, and moves what was summed
/// before to that maximum.
struct Merge<'a, T> {
    weights: &'a mut [T],
    cols: usize,
    sums: &'a mut [T],
    d: usize,
    maxima: &'a mut [T],
    totals: &'a mut [T],
    first: bool,
}

impl<T: Real> Task for Merge<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let rows = self.weights.chunks_exact_mut(self.cols).zip(self.sums.chunks_exact_mut(self.d));
        for (((w, o), m), l) in rows.zip(self.maxima).zip(self.totals) {
            let own = max(w);
            let shift = if self.first { own } else { own.larger(*m) };
            // A block in which a row sees nothing: its maximum is -inf, and so may be the running one.
            for w in w.iter_mut() {
                *w = (*w - shift).exp::<A>();
            }
            let w = &*w;
            let total = sum(w.len(), |j| w[j]);
            if self.first {
                *l = total;
            } else {
                let keep = (*m - shift).exp::<A>();
                *l = A::fma(*l, keep, total);
                for o in o {
                    *o *= keep;
                }
            }
            *m = shift;
        }
    }
}

/// `weights = exp(products - log)`, `slopes = scale weights (slopes - mean)`.
struct Slopes<'a, T> {
    weights: &'a mut [T],
    slopes: &'a mut [T],
    cols: usize,
    logs: &'a [T],
    means: &'a [T],
    scale: T,
}

impl<T: Real> Task for Slopes<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let rows = self.weights.chunks_exact_mut(self.cols).zip(self.slopes.chunks_exact_mut(self.cols));
        for (((w, s), log), mean) in rows.zip(self.logs).zip(self.means) {
            for (w, s) in w.iter_mut().zip(s) {
                let p = (*w - *log).exp::<A>();
                *w = p;
                *s = p * (*s - *mean) * self.scale;
            }
        }
    }
}

struct Attention<T> {
    shape: Heads,
    isa: Isa,
    /// `ln sum exp` of each row, written by the forward pass.
    logs: OnceLock<Vec<T>>,
}

/// The elements of a tensor from its first on, with the strides of image, head, position and dimension.
fn view<'a, T: Float>(
    storage: &'a CpuStorage,
    layout: &Layout,
) -> candle_core::Result<(&'a [T], [usize; 4])> {
    match *layout.stride() {
        [a, b, c, d] => {
            Ok((&crate::tensor::storage::elements::<T>(storage)?[layout.start_offset()..], [a, b, c, d]))
        }
        _ => bail!("attention: rank 4 expected, the layout is {layout:?}"),
    }
}

fn head<'a, T>((data, s): (&'a [T], [usize; 4]), b: usize, h: usize) -> Head<'a, T> {
    Head { data: &data[b * s[0] + h * s[1]..], strides: (s[2], s[3]) }
}

impl<T: Real> Attention<T> {
    fn forward(&self, views: [(&[T], [usize; 4]); 3]) -> Vec<T> {
        let s = &self.shape;
        let len = s.batch * s.heads * s.n;
        let mut logs = vec![T::ZERO; len];
        // SAFETY: each task writes its rows, and those are all elements.
        let out = unsafe {
            infomax_simd::filled(len * s.d, |out: Shared<T>| {
                logs.par_chunks_exact_mut(s.n).enumerate().for_each(|(i, logs)| {
                    let heads = views.map(|v| head(v, i / s.heads, i % s.heads));
                    s.forward(self.isa, heads, out.get().add(i * s.n * s.d), s.d, logs);
                });
            })
        };
        // The forward pass of an operation runs once.
        let _ = self.logs.set(logs);
        out
    }

    fn backward(&self, views: [(&[T], [usize; 4]); 3], ys: &[T], grad: &[T], logs: &[T]) -> [Vec<T>; 3] {
        let s = &self.shape;
        let tasks = s.batch * s.heads;
        let mut grads = [s.n, s.m, s.m].map(|rows| Vec::<T>::with_capacity(tasks * rows * s.d));
        let pointers = {
            let [a, b, c] = &mut grads;
            [a, b, c].map(|v| Shared::new(v.as_mut_ptr()))
        };
        (0..tasks).into_par_iter().for_each(|i| {
            let heads = views.map(|v| head(v, i / s.heads, i % s.heads));
            let own =
                [ys, grad].map(|data| Head { data: &data[i * s.n * s.d..][..s.n * s.d], strides: (s.d, 1) });
            let [q, k, v] = pointers;
            // SAFETY: each task writes its rows only, all of them.
            unsafe {
                let to = [q.get().add(i * s.n * s.d), k.get().add(i * s.m * s.d), v.get().add(i * s.m * s.d)];
                let logs = &logs[i * s.n..][..s.n];
                s.backward(self.isa, heads, own, logs, to, s.d);
            }
        });
        for (grad, rows) in grads.iter_mut().zip([s.n, s.m, s.m]) {
            // SAFETY: written by the tasks above.
            unsafe { grad.set_len(tasks * rows * s.d) };
        }
        grads
    }
}

impl<T: Real> CustomOp3 for Attention<T> {
    fn name(&self) -> &'static str {
        "attention"
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
        let ys = self.forward([view::<T>(s1, l1)?, view::<T>(s2, l2)?, view::<T>(s3, l3)?]);
        Ok((crate::tensor::storage::owned(ys), l1.shape().clone()))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        ys: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let Some(logs) = self.logs.get() else { bail!("attention: backward before forward") };
        let (ys, grad) = (ys.contiguous()?, grad.contiguous()?);
        let grads = crate::tensor::storage::result(&[&ys, &grad], |flat: &[&[T]]| {
            let guards = [q, k, v].map(|t| t.storage_and_layout());
            let mut views = [(&[][..], [0; 4]); 3];
            for (to, (storage, layout)) in views.iter_mut().zip(&guards) {
                match &**storage {
                    Storage::Cpu(cpu) => *to = view::<T>(cpu, layout)?,
                    _ => bail!("attention: the tensor must be on the CPU"),
                }
            }
            Ok(self.backward(views, flat[0], flat[1], logs))
        })??;
        let [dq, dk, dv] = grads;
        Ok((Some(tensor(dq, q.shape())?), Some(tensor(dk, k.shape())?), Some(tensor(dv, v.shape())?)))
    }
}
