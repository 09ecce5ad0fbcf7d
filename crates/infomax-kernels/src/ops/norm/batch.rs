//! Batch normalization, with the residual sum and the activation in the same pass.

use super::batch_columns::{self as columns, Block};
use super::batch_kernel::{Apply, GradApply, GradSums, Moments, Planes};
use super::peers::{Peers, join_moments, join_sums};
use crate::tensor::check;
use crate::tensor::optional::{self, Argument, Optional};
use crate::tensor::path::Path;
use crate::tensor::storage::{contiguous, result, slice, tensor};
use crate::{Activation, BatchNormOutput, Error, Result, device};
use candle_core::{CpuStorage, DType, Shape, Tensor};
use infomax_simd::{Isa, Shared, filled};
use infomax_simd::{Real, run};
use rayon::prelude::*;
use std::sync::Arc;

/// Batch norm with the statistics of this batch: `ys = act((xs - mean) / sqrt(var + eps) * weight + bias + residual)`.
///
/// `xs` is `(N, C)` or `(N, C, H, W)`; `mean` and the biased `var` of each channel are taken over all other
/// dimensions; `weight` and `bias` `(C)` may be missing (1 and 0), and so may `residual`, of the shape of
/// `xs`. Running statistics are the caller's: mix in the returned ones. PyTorch mixes in the unbiased
/// variance, `var * M / (M - 1)` with `M = N H W`.
///
/// # Gradient
/// Through the statistics too. With `g = dys [ys > 0]` (or `dys` without activation) and
/// `x^ = (xs - mean) / sqrt(var + eps)`: `dbias = sum g`, `dweight = sum g x^`, `dresidual = g`,
/// `dxs = weight / sqrt(var + eps) (g - mean(g) - x^ mean(g x^))`. The derivative of ReLU at 0 is 0.
///
/// # Numerics
/// Moments in two passes for each plane, merged in f64: no cancellation for a large mean. The same bits for
/// any number of threads.
///
/// # Errors
/// Shapes or types that do not fit; a batch without elements; an `eps` that is not positive.
pub fn batch_norm_train(
    xs: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    eps: f64,
    act: Activation,
) -> Result<BatchNormOutput> {
    batch_norm_train_isa(xs, weight, bias, residual, eps, act, Isa::detect(), None)
}

/// [`batch_norm_train`] with the statistics of a batch of which other processes hold the other rows (synchronized batch
/// norm): one exchange in the forward and one in the backward pass, of two numbers for each channel.
///
/// # Gradient
/// Of the sum over the processes of what each differentiates, of its own rows and of its own share of `weight` and
/// `bias`, as the ranks of a data-parallel run have it.
///
/// # Errors
/// As [`batch_norm_train`]; a process that is gone; a tensor that is not on the CPU.
pub fn batch_norm_train_with(
    xs: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    eps: f64,
    act: Activation,
    peers: Arc<dyn Peers>,
) -> Result<BatchNormOutput> {
    batch_norm_train_isa(xs, weight, bias, residual, eps, act, Isa::detect(), Some(peers))
}

/// [`batch_norm_train`] with a chosen instruction set.
pub(crate) fn batch_norm_train_isa(
    xs: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    eps: f64,
    act: Activation,
    isa: Isa,
    peers: Option<Arc<dyn Peers>>,
) -> Result<BatchNormOutput> {
    let (n, c, inner) = check::batch_norm("batch_norm_train", xs, weight, bias, residual, eps)?;
    let Path::Cpu(_) = Path::of(xs) else {
        if peers.is_some() {
            let on = format!("{:?}", xs.device().location());
            let reason = "statistics of several processes are taken on the CPU only";
            return Err(Error::Config { op: "batch_norm_train", name: "device", value: on, reason });
        }
        return device::batch_norm_train(xs, weight, bias, residual, eps, act);
    };
    let xs = contiguous(xs)?;
    let shape = Channels { n, c, inner };
    let mut moments: Vec<(f64, f64)> = match xs.dtype() {
        DType::F64 => result(&[&xs], |v: &[&[f64]]| shape.moments(v[0], isa))?,
        _ => result(&[&xs], |v: &[&[f32]]| shape.moments(v[0], isa))?,
    };
    let mut count = n * inner;
    if let Some(peers) = &peers {
        (moments, count) = join_moments(&**peers, &moments, count)?;
    }
    let column = |f: fn(&(f64, f64)) -> f64| -> Result<Tensor> {
        let values: Vec<f64> = moments.iter().map(f).collect();
        Ok(Tensor::from_vec(values, c, xs.device())?.to_dtype(xs.dtype())?)
    };
    let (mean, var) = (column(|m| m.0)?, column(|m| m.1)?);
    let relu = act == Activation::Relu;
    let op = BatchNorm { shape, moments: Arc::new(moments), eps, relu, count: Some(count), peers, isa };
    let ys = op.apply(&xs, weight, bias, residual)?;
    Ok(BatchNormOutput { ys, mean, var, count })
}

/// Batch norm with given statistics, as in evaluation; otherwise like [`batch_norm_train`].
///
/// # Gradient
/// Of `xs`, `weight`, `bias` and `residual`; `mean` and `var` are constants.
///
/// # Errors
/// As [`batch_norm_train`].
pub fn batch_norm_eval(
    xs: &Tensor,
    mean: &Tensor,
    var: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    residual: Option<&Tensor>,
    eps: f64,
    act: Activation,
) -> Result<Tensor> {
    const OP: &str = "batch_norm_eval";
    let (n, c, inner) = check::batch_norm(OP, xs, weight, bias, residual, eps)?;
    check::vector(OP, xs, "mean", Some(mean), c)?;
    check::vector(OP, xs, "var", Some(var), c)?;
    let Path::Cpu(isa) = Path::of(xs) else {
        return device::batch_norm_eval(xs, [mean, var], weight, bias, residual, eps, act);
    };
    let values = |t: &Tensor| t.to_dtype(DType::F64)?.to_vec1::<f64>();
    let moments = values(mean)?.into_iter().zip(values(var)?).collect();
    let op = BatchNorm {
        shape: Channels { n, c, inner },
        moments: Arc::new(moments),
        eps,
        relu: act == Activation::Relu,
        count: None,
        peers: None,
        isa,
    };
    op.apply(&contiguous(xs)?, weight, bias, residual)
}

#[derive(Clone, Copy)]
struct Channels {
    n: usize,
    c: usize,
    inner: usize,
}

impl Channels {
    fn planes(&self, c: usize) -> Planes {
        Planes { n: self.n, inner: self.inner, pitch: self.c * self.inner, first: c * self.inner }
    }

    /// True if planes are so small that neighboring channels go together.
    fn small(&self) -> bool {
        self.inner <= columns::SMALL
    }

    /// Channels of a block of such planes.
    fn together(&self) -> usize {
        columns::channels(self.inner)
    }

    /// The block from channel `first` on.
    fn block(&self, first: usize) -> Block {
        let (n, inner) = (self.n, self.inner);
        let width = self.together().min(self.c - first) * inner;
        Block { n, inner, pitch: self.c * inner, first: first * inner, width }
    }

    fn moments<T: Real>(&self, xs: &[T], isa: Isa) -> Vec<(f64, f64)> {
        if self.small() {
            let blocks: Vec<_> = (0..self.c.div_ceil(self.together()))
                .into_par_iter()
                .map(|i| run(isa, columns::Moments { block: self.block(i * self.together()), xs }))
                .collect();
            return blocks.concat();
        }
        (0..self.c)
            .into_par_iter()
            .map(|c| T::dispatch(isa, Moments { planes: self.planes(c), xs }))
            .collect()
    }

    fn len(&self) -> usize {
        self.n * self.c * self.inner
    }
}

struct BatchNorm {
    shape: Channels,
    moments: Arc<Vec<(f64, f64)>>,
    eps: f64,
    relu: bool,
    /// The statistics are those of the input, over so many values of each channel, and get their part of the gradient.
    count: Option<usize>,
    /// The processes that hold the other rows.
    peers: Option<Arc<dyn Peers>>,
    isa: Isa,
}

impl BatchNorm {
    /// Weight and bias travel as one tensor `(2, C)`: a custom operation has three arguments at most.
    fn apply(
        self,
        xs: &Tensor,
        weight: Option<&Tensor>,
        bias: Option<&Tensor>,
        residual: Option<&Tensor>,
    ) -> Result<Tensor> {
        let default = |t: Option<&Tensor>, value: f64| match t {
            Some(t) => Ok(t.clone()),
            None => Tensor::full(value, self.shape.c, xs.device())?.to_dtype(xs.dtype()),
        };
        let affine = Tensor::stack(&[default(weight, 1.0)?, default(bias, 0.0)?], 0)?;
        optional::apply(xs, &affine, residual, self)
    }

    fn inverse(&self, c: usize) -> f64 {
        1.0 / (self.moments[c].1 + self.eps).sqrt()
    }

    fn forward<T: Real>(&self, xs: &[T], affine: &[T], residual: Option<&[T]>) -> Vec<T> {
        let d = self.shape;
        let affine_of = |c: usize| {
            let scale = affine[c].f64() * self.inverse(c);
            (scale, affine[d.c + c].f64() - self.moments[c].0 * scale)
        };
        if d.small() {
            let affine: Vec<_> = (0..d.c).map(affine_of).collect();
            // SAFETY: each task writes its channels, and those are all elements.
            return unsafe {
                filled(d.len(), |out: Shared<T>| {
                    affine.par_chunks(d.together()).enumerate().for_each(|(i, affine)| {
                        let (block, relu) = (d.block(i * d.together()), self.relu);
                        run(self.isa, columns::Apply { block, xs, residual, affine, relu, out });
                    });
                })
            };
        }
        // SAFETY: each task writes its channel, and the channels are all elements.
        unsafe {
            filled(d.len(), |out: Shared<T>| {
                (0..d.c).into_par_iter().for_each(|c| {
                    let (scale, shift) = affine_of(c);
                    let pass = Apply {
                        planes: d.planes(c),
                        xs,
                        residual,
                        scale: T::of(scale),
                        shift: T::of(shift),
                        relu: self.relu,
                        out: out.get(),
                    };
                    T::dispatch(self.isa, pass);
                });
            })
        }
    }

    /// The gradients of the input, of weight and bias, and of the residual (empty if there is none).
    fn backward<T: Real>(
        &self,
        xs: &[T],
        ys: &[T],
        grad: &[T],
        affine: &[T],
        with_residual: bool,
    ) -> candle_core::Result<(Vec<T>, Vec<T>, Vec<T>)> {
        let d = self.shape;
        let ys = self.relu.then_some(ys);
        // Where other processes hold rows too, their sums are needed before the second pass over the data.
        let everywhere = match &self.peers {
            Some(peers) => Some(join_sums(&**peers, &self.grad_sums(xs, ys, grad))?),
            None => None,
        };
        let mut dr: Vec<T> = Vec::with_capacity(if with_residual { d.len() } else { 0 });
        let residual = Shared::new(if with_residual { dr.as_mut_ptr() } else { std::ptr::null_mut() });
        let mut sums = vec![(T::default(), T::default()); d.c];
        let m = self.count.map_or(f64::INFINITY, |count| count as f64);
        // `a`, `b` and `c` of the second pass from the sums of the first one.
        let factors = |c: usize, (sum, dot): (f64, f64)| {
            let inverse = self.inverse(c);
            let a = affine[c].f64() * inverse;
            [a, -a * inverse * inverse * dot / m, -a * sum / m]
        };
        let by_block = |dx: Shared<T>| {
            sums.par_chunks_mut(d.together()).enumerate().for_each(|(i, sums)| {
                let first = i * d.together();
                let (block, means) = (d.block(first), &self.moments[first..first + sums.len()]);
                let own = run(self.isa, columns::GradSums { block, xs, ys, grad, means });
                let all = everywhere.as_ref().map_or(&own[..], |all| &all[first..first + own.len()]);
                let factors: Vec<_> = all.iter().enumerate().map(|(j, s)| factors(first + j, *s)).collect();
                for (j, (to, (sum, dot))) in sums.iter_mut().zip(own).enumerate() {
                    *to = (T::of(dot * self.inverse(first + j)), T::of(sum));
                }
                let (factors, residual) = (&factors[..], with_residual.then_some(residual));
                let pass = columns::GradApply { block, xs, ys, grad, means, factors, dx, residual };
                run(self.isa, pass);
            });
        };
        // SAFETY: each task writes its channels, and those are all elements.
        let dx = unsafe {
            if d.small() {
                filled(d.len(), by_block)
            } else {
                filled(d.len(), |dx: Shared<T>| {
                    sums.par_iter_mut().enumerate().for_each(|(c, sums)| {
                        let (planes, mean) = (d.planes(c), T::of(self.moments[c].0));
                        let (sum, dot) = T::dispatch(self.isa, GradSums { planes, xs, ys, grad, mean });
                        *sums = (T::of(dot * self.inverse(c)), T::of(sum));
                        let all = everywhere.as_ref().map_or((sum, dot), |all| all[c]);
                        let [a, b, c] = factors(c, all).map(T::of);
                        let (dx, residual) = (dx.get(), residual.get());
                        T::dispatch(
                            self.isa,
                            GradApply { planes, xs, ys, grad, mean, a, b, c, dx, residual },
                        );
                    });
                })
            }
        };
        if with_residual {
            // SAFETY: every channel was written above.
            unsafe { dr.set_len(d.len()) };
        }
        let affine = sums.iter().map(|s| s.0).chain(sums.iter().map(|s| s.1)).collect();
        Ok((dx, affine, dr))
    }

    /// The sums of `g` and `g (x - mean)` of each channel over the rows of this process.
    fn grad_sums<T: Real>(&self, xs: &[T], ys: Option<&[T]>, grad: &[T]) -> Vec<(f64, f64)> {
        let d = self.shape;
        if d.small() {
            let blocks: Vec<_> = (0..d.c.div_ceil(d.together()))
                .into_par_iter()
                .map(|i| {
                    let first = i * d.together();
                    let means = &self.moments[first..d.c.min(first + d.together())];
                    run(self.isa, columns::GradSums { block: d.block(first), xs, ys, grad, means })
                })
                .collect();
            return blocks.concat();
        }
        let sums = |c: usize| {
            let mean = T::of(self.moments[c].0);
            T::dispatch(self.isa, GradSums { planes: d.planes(c), xs, ys, grad, mean })
        };
        (0..d.c).into_par_iter().map(sums).collect()
    }
}

impl Optional for BatchNorm {
    const NAME: &'static str = "batch-norm";

    fn run(
        &self,
        xs: Argument<'_>,
        affine: Argument<'_>,
        residual: Option<Argument<'_>>,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        fn typed<T: Real>(
            op: &BatchNorm,
            xs: Argument<'_>,
            affine: Argument<'_>,
            residual: Option<Argument<'_>>,
        ) -> candle_core::Result<CpuStorage> {
            let residual = residual.map(|r| slice::<T>(r)).transpose()?;
            Ok(crate::tensor::storage::owned(op.forward(slice::<T>(xs)?, slice::<T>(affine)?, residual)))
        }
        let storage = match xs.0 {
            CpuStorage::F64(_) => typed::<f64>(self, xs, affine, residual)?,
            _ => typed::<f32>(self, xs, affine, residual)?,
        };
        Ok((storage, xs.1.shape().clone()))
    }

    fn grads(
        &self,
        (xs, affine, residual): (&Tensor, &Tensor, Option<&Tensor>),
        ys: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 3]> {
        fn typed<T: Real>(
            op: &BatchNorm,
            xs: &Tensor,
            affine: &Tensor,
            ys: &Tensor,
            grad: &Tensor,
            with_residual: bool,
        ) -> candle_core::Result<[Option<Tensor>; 3]> {
            let (dx, da, dr) = result(&[xs, ys, grad, affine], |v: &[&[T]]| {
                op.backward(v[0], v[1], v[2], v[3], with_residual)
            })??;
            let dr = with_residual.then(|| tensor(dr, xs.shape())).transpose()?;
            Ok([Some(tensor(dx, xs.shape())?), Some(tensor(da, affine.shape())?), dr])
        }
        let with_residual = residual.is_some();
        match xs.dtype() {
            DType::F64 => typed::<f64>(self, xs, affine, ys, grad, with_residual),
            _ => typed::<f32>(self, xs, affine, ys, grad, with_residual),
        }
    }
}
