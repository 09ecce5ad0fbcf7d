//! A linear map of the last dimension with its bias and activation.

use crate::linalg::mat::{Mat, Tiled, product_by};
use crate::ops::elementwise::Function;
use crate::ops::elementwise::with_function;
use crate::ops::transformer::{AddRows, BiasAct};
use crate::tensor::check;
use crate::tensor::half::{half, wide, wide_option};
use crate::tensor::optional::{self, Argument, Optional};
use crate::tensor::path::Path;
use crate::tensor::storage::{contiguous, result, slice, tensor};
use crate::{Elementwise, Error, Result, device};
use candle_core::{CpuStorage, DType, Shape, Tensor, bail};
use infomax_simd::Isa;
use infomax_simd::tiles::Factors;
use infomax_simd::{Arith, Real, Task, add_rows, chunked, chunked2, run};
use std::marker::PhantomData;
use std::sync::OnceLock;

/// `xs weight^T + bias` over the last dimension: `xs` `(.., I)`, `weight` `(O, I)`, `bias` `(O)`; the result is
/// `(.., O)`.
///
/// # Gradient, numerics, errors
/// As [`linear_with`].
pub fn linear(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    linear_with(xs, weight, bias, Elementwise::Identity)
}

/// `act(xs weight^T + bias)` over the last dimension: `xs` `(.., I)`, `weight` `(O, I)`, `bias` `(O)`; the
/// result is `(.., O)`.
///
/// # Gradient
/// With `h = g act'(xs weight^T + bias)`: `dxs = h weight`, `dweight = h^T xs`, `dbias = sum h`. `xs` gets none
/// (and no time is spent) if nothing it was made of is a variable.
///
/// # Numerics
/// The products are those of the `gemm` crate, with the instructions that it detects. bf16 and f16 are computed
/// in f32. On a processor with AMX, products of `xs` and `weight` in bf16 that are expected to be faster there are taken by
/// tiles, which add them up in f32; the gradient of the values before the activation is rounded to bf16 for them. With
/// [`Single`](crate::Single) those of f32 are rounded to bf16, or sums of three products of bf16, there. The same bits for
/// any number of threads.
///
/// # Errors
/// Shapes or types that do not fit; a tensor without elements.
pub fn linear_with(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>, act: Elementwise) -> Result<Tensor> {
    linear_with_isa(xs, weight, bias, act, Isa::detect())
}

pub(crate) fn linear_with_isa(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    act: Elementwise,
    isa: Isa,
) -> Result<Tensor> {
    let both = xs.dtype() == DType::BF16 && weight.dtype() == DType::BF16;
    let tiled = if both { Tiled::new(isa, Factors::Rounded) } else { Tiled::single(isa) };
    linear_by(xs, weight, bias, act, isa, tiled)
}

fn linear_by(
    xs: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    act: Elementwise,
    isa: Isa,
    tiled: Option<Tiled>,
) -> Result<Tensor> {
    if half(xs) {
        let bias = wide_option(bias)?;
        let ys = linear_by(&wide(xs)?, &wide(weight)?, bias.as_ref(), act, isa, tiled)?;
        return Ok(ys.to_dtype(xs.dtype())?);
    }
    let (inputs, outputs) = check_linear(xs, weight, bias)?;
    let Path::Cpu(_) = Path::of(xs) else {
        return device::linear_with(xs, weight, bias, act);
    };
    let rows = xs.elem_count() / inputs;
    let flat = contiguous(&xs.reshape((rows, inputs))?)?;
    let weight = contiguous(weight)?;
    let keep = flat.track_op() || weight.track_op() || bias.is_some_and(Tensor::track_op);
    macro_rules! call {
        ($t:ty) => {{
            let op = Linear::<$t> { rows, inputs, outputs, act, isa, tiled, keep, kept: OnceLock::new() };
            optional::apply(&flat, &weight, bias, op)?
        }};
    }
    let ys = if flat.dtype() == DType::F64 { call!(f64) } else { call!(f32) };
    let mut dims = xs.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = outputs;
    }
    Ok(ys.reshape(dims)?)
}

/// The inputs and outputs.
pub(crate) fn check_linear(xs: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<(usize, usize)> {
    const OP: &str = "linear";
    let inputs = check::last(OP, xs)?;
    let (outputs, columns) = check::dims2(OP, "weight", weight)?;
    if columns != inputs {
        let expected = format!("(outputs, {inputs})");
        return Err(Error::Shape { op: OP, name: "weight", expected, got: weight.dims().to_vec() });
    }
    check::not_empty(OP, "weight", weight)?;
    check::same_dtype(OP, xs, "weight", Some(weight))?;
    check::vector(OP, xs, "bias", bias, outputs)?;
    Ok((inputs, outputs))
}

struct Linear<T> {
    rows: usize,
    inputs: usize,
    outputs: usize,
    act: Elementwise,
    isa: Isa,
    /// What multiplies instead of f32, where it pays.
    tiled: Option<Tiled>,
    keep: bool,
    /// The values before the activation, if there is one.
    kept: OnceLock<Vec<T>>,
}

/// `dz = f'(zs) grad`, and the sums of `dz` over the rows.
struct Pull<'a, T, F> {
    zs: &'a [T],
    grad: &'a [T],
    dz: &'a mut [T],
    sums: &'a mut [T],
    function: PhantomData<F>,
}

impl<T: Real, F: Function> Task for Pull<'_, T, F> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let h = self.sums.len();
        self.sums.fill(T::ZERO);
        let rows = self.zs.chunks_exact(h).zip(self.grad.chunks_exact(h)).zip(self.dz.chunks_exact_mut(h));
        for ((z, g), dz) in rows {
            for (((z, g), dz), s) in z.iter().zip(g).zip(dz).zip(self.sums.iter_mut()) {
                *dz = F::both::<A, T>(*z).1 * *g;
                *s += *dz;
            }
        }
    }
}

impl<T: Real> Linear<T> {
    /// Rows of a task of the passes around the product.
    fn chunk(&self) -> usize {
        (32768 / self.outputs).max(16)
    }

    fn forward(&self, xs: &[T], weight: &[T], bias: Option<&[T]>) -> Vec<T> {
        let (rows, o) = (self.rows, self.outputs);
        let x = Mat::new(xs, rows, self.inputs);
        let mut zs = product_by(self.tiled, x, Mat::new(weight, o, self.inputs).t());
        if self.act == Elementwise::Identity {
            if let Some(bias) = bias {
                use rayon::prelude::*;
                zs.par_chunks_mut(self.chunk() * o).for_each(|zs| {
                    let function = PhantomData::<crate::ops::elementwise::Identity>;
                    run(self.isa, BiasAct { bias, zs, ys: None, function });
                });
            }
            return zs;
        }
        let none = vec![T::ZERO; o];
        let bias = bias.unwrap_or(&none);
        let chunk = self.chunk() * o;
        let shared = infomax_simd::Shared::new(zs.as_mut_ptr());
        let len = zs.len();
        let ys = chunked(len, chunk, |i, ys: &mut [T]| {
            // SAFETY: the chunks are disjoint and within the vector, which lives on.
            let zs = unsafe { std::slice::from_raw_parts_mut(shared.get().add(i * chunk), ys.len()) };
            with_function!(self.act, F => {
                run(self.isa, BiasAct { bias, zs, ys: Some(ys), function: PhantomData::<F> });
            });
        });
        if self.keep {
            let _ = self.kept.set(zs);
        }
        ys
    }

    /// The gradient of the values before the activation (none: it is that of the output), and of the bias.
    fn before(&self, grad: &[T], with_bias: bool) -> candle_core::Result<(Option<Vec<T>>, Vec<T>)> {
        let (o, rows) = (self.outputs, self.chunk());
        let (chunk, tasks) = (rows * o, self.rows.div_ceil(rows));
        if self.act == Elementwise::Identity {
            if !with_bias {
                return Ok((None, Vec::new()));
            }
            let parts = chunked(tasks * o, o, |i, sums: &mut [T]| {
                sums.fill(T::ZERO);
                let end = grad.len().min((i + 1) * chunk);
                run(self.isa, AddRows(&grad[i * chunk..end], sums));
            });
            return Ok((None, add_rows(&parts, o)));
        }
        let Some(zs) = self.kept.get() else { bail!("linear: backward before forward") };
        let (dz, parts) = chunked2((zs.len(), tasks * o), (chunk, o), |i, dz, sums| {
            let at = i * chunk..i * chunk + dz.len();
            let (zs, grad) = (&zs[at.clone()], &grad[at]);
            with_function!(self.act, F => run(self.isa, Pull { zs, grad, dz, sums, function: PhantomData::<F> }));
        });
        Ok((Some(dz), add_rows(&parts, o)))
    }
}

impl<T: Real> Optional for Linear<T> {
    const NAME: &'static str = "linear";

    fn run(
        &self,
        xs: Argument<'_>,
        weight: Argument<'_>,
        bias: Option<Argument<'_>>,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let bias = bias.map(slice::<T>).transpose()?;
        let ys = self.forward(slice::<T>(xs)?, slice::<T>(weight)?, bias);
        Ok((crate::tensor::storage::owned(ys), Shape::from((self.rows, self.outputs))))
    }

    fn grads(
        &self,
        (xs, weight, bias): (&Tensor, &Tensor, Option<&Tensor>),
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 3]> {
        let (rows, i, o) = (self.rows, self.inputs, self.outputs);
        let (want_x, want_w) = (xs.track_op(), weight.track_op());
        let (dx, dw, db) = result(&[xs, weight, grad], |v: &[&[T]]| {
            let (dz, db) = self.before(v[2], bias.is_some())?;
            let dz = Mat::new(dz.as_deref().unwrap_or(v[2]), rows, o);
            let dx = want_x.then(|| product_by(self.tiled, dz, Mat::new(v[1], o, i)));
            let dw = want_w.then(|| product_by(self.tiled, dz.t(), Mat::new(v[0], rows, i)));
            Ok::<_, candle_core::Error>((dx, dw, db))
        })??;
        let dx = dx.map(|dx| tensor(dx, xs.shape())).transpose()?;
        let dw = dw.map(|dw| tensor(dw, weight.shape())).transpose()?;
        let db = bias.map(|b| tensor(db, b.shape())).transpose()?;
        Ok([dx, dw, db])
    }
}

#[cfg(test)]
mod tests;
