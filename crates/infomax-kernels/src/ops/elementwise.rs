//! Functions of one element, with their exact derivatives.

use crate::tensor::check;
use crate::tensor::half::{half, wide};
use crate::tensor::path::Path;
use crate::tensor::storage::{contiguous, result, slice, tensor};
use crate::{Elementwise, Result, device};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};
use infomax_simd::Isa;
use infomax_simd::{Arith, Real, Task, chunked, run};

/// Value and derivative, generic over the type and the arithmetic.
pub(crate) trait Function: Copy + Default + Send + Sync + 'static {
    fn value<A: Arith, T: Real>(x: T) -> T;
    fn both<A: Arith, T: Real>(x: T) -> (T, T);
}

macro_rules! functions {
    ($($name:ident: |$x:ident, $a:ident| $value:expr, $both:expr;)*) => {$(
        #[derive(Clone, Copy, Default)]
        pub(crate) struct $name;

        impl Function for $name {
            #[inline(always)]
            fn value<$a: Arith, T: Real>($x: T) -> T {
                $value
            }
            #[inline(always)]
            fn both<$a: Arith, T: Real>($x: T) -> (T, T) {
                $both
            }
        }
    )*};
}

functions! {
    Identity: |x, A| x, (x, T::ONE);
    // The comparisons keep NaN in the value.
    Relu: |x, A| if x <= T::ZERO { T::ZERO } else { x },
        (Self::value::<A, T>(x), if x > T::ZERO { T::ONE } else { T::ZERO });
    Gelu: |x, A| x * x.normal::<A>().0, {
        let (cdf, density) = x.normal::<A>();
        (x * cdf, A::fma(x, density, cdf))
    };
    Silu: |x, A| x * x.sigmoid::<A>(), {
        let s = x.sigmoid::<A>();
        (x * s, s * A::fma(x, T::ONE - s, T::ONE))
    };
    Sigmoid: |x, A| x.sigmoid::<A>(), {
        let s = x.sigmoid::<A>();
        (s, s * (T::ONE - s))
    };
    Tanh: |x, A| x.tanh::<A>(), {
        let t = x.tanh::<A>();
        (t, T::ONE - t * t)
    };
    Erf: |x, A| x.erf::<A>(), {
        (x.erf::<A>(), T::of(std::f64::consts::FRAC_2_SQRT_PI) * (-(x * x)).exp::<A>())
    };
    Exp: |x, A| x.exp::<A>(), {
        let e = x.exp::<A>();
        (e, e)
    };
}

/// Calls a generic function with the type that belongs to an [`Elementwise`].
macro_rules! with_function {
    ($kind:expr, $F:ident => $body:expr) => {{
        use $crate::ops::elementwise as e;
        match $kind {
            $crate::Elementwise::Identity => {
                type $F = e::Identity;
                $body
            }
            $crate::Elementwise::Relu => {
                type $F = e::Relu;
                $body
            }
            $crate::Elementwise::Gelu => {
                type $F = e::Gelu;
                $body
            }
            $crate::Elementwise::Silu => {
                type $F = e::Silu;
                $body
            }
            $crate::Elementwise::Sigmoid => {
                type $F = e::Sigmoid;
                $body
            }
            $crate::Elementwise::Tanh => {
                type $F = e::Tanh;
                $body
            }
            $crate::Elementwise::Erf => {
                type $F = e::Erf;
                $body
            }
            $crate::Elementwise::Exp => {
                type $F = e::Exp;
                $body
            }
        }
    }};
}
pub(crate) use with_function;

/// A function of each element of a tensor of any shape.
///
/// # Numerics
/// The f32 forms are vectorized, with the errors that `math` states (`exp` 1.5 units in the last place, `erf`
/// and `tanh` 3); the tail of [`Elementwise::Gelu`] keeps its relative error. f64 calls the scalar functions.
/// bf16 and f16 are computed in f32 and rounded once.
///
/// # Errors
/// A tensor without elements.
pub fn elementwise(xs: &Tensor, function: Elementwise) -> Result<Tensor> {
    elementwise_isa(xs, function, Isa::detect())
}

/// [`elementwise`] with a chosen instruction set.
pub(crate) fn elementwise_isa(xs: &Tensor, function: Elementwise, isa: Isa) -> Result<Tensor> {
    check::not_empty("elementwise", "xs", xs)?;
    if half(xs) && !device::takes_half(xs) {
        return Ok(elementwise_isa(&wide(xs)?, function, isa)?.to_dtype(xs.dtype())?);
    }
    let Path::Cpu(_) = Path::of(xs) else {
        return device::elementwise(xs, function);
    };
    Ok(contiguous(xs)?.apply_op1(Pointwise { function, isa })?)
}

/// `x Phi(x)`, element by element: see [`Elementwise::Gelu`].
///
/// # Errors
/// A tensor without elements.
pub fn gelu(xs: &Tensor) -> Result<Tensor> {
    elementwise(xs, Elementwise::Gelu)
}

/// `x / (1 + e^-x)`, element by element: see [`Elementwise::Silu`].
///
/// # Errors
/// A tensor without elements.
pub fn silu(xs: &Tensor) -> Result<Tensor> {
    elementwise(xs, Elementwise::Silu)
}

/// `max(x, 0)`, element by element: see [`Elementwise::Relu`].
///
/// # Errors
/// A tensor without elements.
pub fn relu(xs: &Tensor) -> Result<Tensor> {
    elementwise(xs, Elementwise::Relu)
}

/// Elements of one task: 64 KiB of f32.
const CHUNK: usize = 16384;

struct Pointwise {
    function: Elementwise,
    isa: Isa,
}

/// `ys = f(xs)`.
struct Apply<'a, T, F>(&'a [T], &'a mut [T], F);

impl<T: Real, F: Function> Task for Apply<'_, T, F> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        for (y, x) in self.1.iter_mut().zip(self.0) {
            *y = F::value::<A, T>(*x);
        }
    }
}

/// `dx = f'(xs) g`.
struct Pull<'a, T, F>(&'a [T], &'a [T], &'a mut [T], F);

impl<T: Real, F: Function> Task for Pull<'_, T, F> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        for ((d, x), g) in self.2.iter_mut().zip(self.0).zip(self.1) {
            *d = F::both::<A, T>(*x).1 * *g;
        }
    }
}

impl Pointwise {
    fn forward<T: Real>(&self, xs: &[T]) -> Vec<T> {
        with_function!(self.function, F => {
            let f = F::default();
            chunked(xs.len(), CHUNK, |i, ys| run(self.isa, Apply(&xs[i * CHUNK..][..ys.len()], ys, f)))
        })
    }

    fn backward<T: Real>(&self, xs: &[T], grad: &[T]) -> Vec<T> {
        with_function!(self.function, F => {
            let f = F::default();
            chunked(xs.len(), CHUNK, |i, dx| {
                let range = i * CHUNK..i * CHUNK + dx.len();
                run(self.isa, Pull(&xs[range.clone()], &grad[range], dx, f));
            })
        })
    }
}

impl CustomOp1 for Pointwise {
    fn name(&self) -> &'static str {
        "elementwise"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let storage = match s {
            CpuStorage::F64(_) => CpuStorage::F64(self.forward(slice::<f64>((s, l))?)),
            _ => CpuStorage::F32(self.forward(slice::<f32>((s, l))?)),
        };
        Ok((storage, l.shape().clone()))
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let grad = grad.contiguous()?;
        Ok(Some(match xs.dtype() {
            DType::F64 => {
                let dx = result(&[xs, &grad], |v: &[&[f64]]| self.backward(v[0], v[1]))?;
                tensor(dx, xs.shape())?
            }
            _ => {
                let dx = result(&[xs, &grad], |v: &[&[f32]]| self.backward(v[0], v[1]))?;
                tensor(dx, xs.shape())?
            }
        }))
    }
}
