//! Multinomial logistic regression: its loss and its gradient in one walk over the rows.

use crate::tensor::check;
use crate::tensor::storage::{contiguous, result};
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use infomax_simd::{Float, Isa, Kernel, Simd};
use rayon::prelude::*;

/// What [`softmax_regression`] computes.
#[derive(Clone, Debug, PartialEq)]
pub struct SoftmaxRegression {
    /// The mean cross-entropy in nats.
    pub value: f64,
    /// Its gradient by the weights, `(C, D)`.
    pub weights: Vec<f64>,
    /// Its gradient by the biases, `(C)`.
    pub bias: Vec<f64>,
}

/// The mean cross-entropy of the logits `x W^T + b` against labels, with its gradient by `W` `(C, D)` and `b` `(C)`;
/// `x` is `(N, D)` in f32 on the host.
///
/// `dW = (softmax - onehot)^T x / N`. Solvers ask for both again and again, and a product of `x` with the few columns
/// of a classifier is a walk through memory. So each group of rows is read once for both products, where two matrix
/// products read `x` twice and pack it.
///
/// # Numerics
/// Products are f32, in lanes; softmax and logarithms are f64; the gradient is added up in f32 over 256 rows, and in
/// f64 beyond. The order is a function of the number of rows and the instruction set.
///
/// # Errors
/// Rows that are no f32 matrix on the CPU or have no elements, labels of another number or beyond the classes, weights
/// of another length.
pub fn softmax_regression(
    xs: &Tensor,
    labels: &[u32],
    weights: &[f32],
    bias: &[f32],
) -> Result<SoftmaxRegression> {
    softmax_regression_isa(xs, labels, weights, bias, Isa::detect())
}

pub(crate) fn softmax_regression_isa(
    xs: &Tensor,
    labels: &[u32],
    weights: &[f32],
    bias: &[f32],
    isa: Isa,
) -> Result<SoftmaxRegression> {
    const OP: &str = "softmax_regression";
    let (n, dim) = check::dims2(OP, "xs", xs)?;
    check::not_empty(OP, "xs", xs)?;
    let classes = bias.len();
    let config = |name, value: String, reason| Err(Error::Config { op: OP, name, value, reason });
    if xs.dtype() != DType::F32 {
        return config("xs", xs.dtype().as_str().into(), "must be f32");
    }
    if labels.len() != n {
        return config("labels", format!("{} labels for {n} rows", labels.len()), "must be one for each row");
    }
    if let Some(label) = labels.iter().find(|label| **label as usize >= classes) {
        let value = format!("{label} of {classes} classes");
        return config("labels", value, "must be smaller than the number of classes");
    }
    if weights.len() != classes * dim {
        let value = format!("{} for {classes} classes of {dim} features", weights.len());
        return config("weights", value, "must be one for each class and feature");
    }
    /// Parts of the rows, whatever the number of threads.
    const PARTS: usize = 16;
    let rows = n.div_ceil(PARTS).next_multiple_of(ROWS);
    let parts: Vec<SoftmaxRegression> = result(&[&contiguous(xs)?], |v: &[&[f32]]| {
        let parts = v[0].par_chunks(rows * dim).zip(labels.par_chunks(rows));
        parts.map(|(xs, labels)| f32::dispatch(isa, Part { xs, labels, weights, bias, n })).collect()
    })?;
    let add = |sum: &mut [f64], more: &[f64]| sum.iter_mut().zip(more).for_each(|(s, m)| *s += m);
    let mut sum = SoftmaxRegression::zeros(classes, dim);
    for part in parts {
        sum.value += part.value;
        add(&mut sum.weights, &part.weights);
        add(&mut sum.bias, &part.bias);
    }
    Ok(sum)
}

impl SoftmaxRegression {
    fn zeros(classes: usize, dim: usize) -> Self {
        Self { value: 0.0, weights: vec![0.0; classes * dim], bias: vec![0.0; classes] }
    }
}

/// Rows that are read together.
const ROWS: usize = 4;
/// Rows whose gradients are added in f32.
const BLOCK: usize = 256;

/// Some rows, whose share of the loss and the gradient is asked for.
struct Part<'a> {
    xs: &'a [f32],
    labels: &'a [u32],
    weights: &'a [f32],
    bias: &'a [f32],
    /// All rows.
    n: usize,
}

impl Kernel<f32> for Part<'_> {
    type Out = SoftmaxRegression;

    #[inline(always)]
    unsafe fn run<S: Simd<T = f32>>(self) -> SoftmaxRegression {
        let (classes, dim) = (self.bias.len(), self.xs.len() / self.labels.len());
        let mut sum = SoftmaxRegression::zeros(classes, dim);
        let mut block = vec![0f32; self.weights.len()];
        let mut rest = vec![0f32; ROWS * classes];
        for (xs, labels) in self.xs.chunks(BLOCK * dim).zip(self.labels.chunks(BLOCK)) {
            block.fill(0.0);
            for (xs, labels) in xs.chunks(ROWS * dim).zip(labels.chunks(ROWS)) {
                let rest = &mut rest[..labels.len() * classes];
                // SAFETY: the instruction set is present, as the caller promises; `rest` has a row of classes for each
                // row of `xs`, and weights and gradients a row of features for each class.
                unsafe { logits::<S>(xs, dim, self.weights, rest) };
                for (row, label) in rest.chunks_exact_mut(classes).zip(labels) {
                    sum.value += residual(row, *label as usize, self.bias, self.n);
                    sum.bias.iter_mut().zip(row.iter()).for_each(|(sum, r)| *sum += f64::from(*r));
                }
                // SAFETY: as above.
                unsafe { gradient::<S>(xs, dim, rest, &mut block) };
            }
            sum.weights.iter_mut().zip(&block).for_each(|(sum, g)| *sum += f64::from(*g));
        }
        sum
    }
}

/// Turns the products of a row into `(softmax - onehot) / n`; its share of the loss.
#[inline(always)]
fn residual(row: &mut [f32], label: usize, bias: &[f32], n: usize) -> f64 {
    row.iter_mut().zip(bias).for_each(|(x, b)| *x += b);
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|x| f64::from(x - max).exp()).sum();
    let loss = sum.ln() - f64::from(row[label] - max);
    let scale = 1.0 / n as f64;
    for x in row.iter_mut() {
        *x = (f64::from(*x - max).exp() / sum * scale) as f32;
    }
    row[label] -= scale as f32;
    loss * scale
}

/// The products of up to [`ROWS`] rows with all classes.
///
/// # Safety
/// The instruction set of `S` is present; `xs` holds rows of `dim`, `weights` classes of `dim`, `out` as many rows of
/// classes.
#[inline(always)]
unsafe fn logits<S: Simd<T = f32>>(xs: &[f32], dim: usize, weights: &[f32], out: &mut [f32]) {
    let (rows, classes) = (xs.len() / dim, weights.len() / dim);
    let mut class = 0;
    // SAFETY: within rows and classes.
    unsafe {
        while rows == ROWS && S::WIDE && class + 5 <= classes {
            dots::<S, ROWS, 5>(xs, dim, &weights[class * dim..], &mut out[class..], classes);
            class += 5;
        }
        while rows == ROWS && class + 2 <= classes {
            dots::<S, ROWS, 2>(xs, dim, &weights[class * dim..], &mut out[class..], classes);
            class += 2;
        }
        for class in class..classes {
            for row in 0..rows {
                let out = &mut out[row * classes + class..];
                dots::<S, 1, 1>(&xs[row * dim..], dim, &weights[class * dim..], out, classes);
            }
        }
    }
}

/// Products of `R` rows with `G` classes.
///
/// # Safety
/// The instruction set of `S` is present; `xs` and `weights` hold `R` and `G` rows of `dim` at least.
#[inline(always)]
unsafe fn dots<S: Simd<T = f32>, const R: usize, const G: usize>(
    xs: &[f32],
    dim: usize,
    weights: &[f32],
    out: &mut [f32],
    pitch: usize,
) {
    let whole = dim / S::LANES * S::LANES;
    // SAFETY: vectors within rows of `dim` elements.
    unsafe {
        let mut sums = [[S::splat(0.0); G]; R];
        for j in (0..whole).step_by(S::LANES) {
            let mut x = [S::splat(0.0); R];
            for r in 0..R {
                x[r] = S::load(xs.as_ptr().add(r * dim + j));
            }
            for g in 0..G {
                let w = S::load(weights.as_ptr().add(g * dim + j));
                for r in 0..R {
                    sums[r][g] = S::fma(x[r], w, sums[r][g]);
                }
            }
        }
        for r in 0..R {
            for g in 0..G {
                let tail: f32 = (whole..dim).map(|j| xs[r * dim + j] * weights[g * dim + j]).sum();
                out[r * pitch + g] = S::sum(sums[r][g]) + tail;
            }
        }
    }
}

/// Adds `residual^T x` of up to [`ROWS`] rows.
///
/// # Safety
/// As [`logits`].
#[inline(always)]
unsafe fn gradient<S: Simd<T = f32>>(xs: &[f32], dim: usize, residual: &[f32], grad: &mut [f32]) {
    let (rows, classes) = (xs.len() / dim, grad.len() / dim);
    let mut class = 0;
    // SAFETY: within rows and classes.
    unsafe {
        while rows == ROWS && S::WIDE && class + 5 <= classes {
            outer::<S, ROWS, 5>(xs, dim, &residual[class..], &mut grad[class * dim..], classes);
            class += 5;
        }
        while rows == ROWS && class + 2 <= classes {
            outer::<S, ROWS, 2>(xs, dim, &residual[class..], &mut grad[class * dim..], classes);
            class += 2;
        }
        for class in class..classes {
            for row in 0..rows {
                let residual = &residual[row * classes + class..];
                outer::<S, 1, 1>(&xs[row * dim..], dim, residual, &mut grad[class * dim..], classes);
            }
        }
    }
}

/// Adds the outer products of `R` rows with their residuals of `G` classes.
///
/// # Safety
/// As [`dots`].
#[inline(always)]
unsafe fn outer<S: Simd<T = f32>, const R: usize, const G: usize>(
    xs: &[f32],
    dim: usize,
    residual: &[f32],
    grad: &mut [f32],
    pitch: usize,
) {
    let whole = dim / S::LANES * S::LANES;
    // SAFETY: vectors within rows of `dim` elements.
    unsafe {
        let mut factors = [[S::splat(0.0); G]; R];
        for r in 0..R {
            for g in 0..G {
                factors[r][g] = S::splat(residual[r * pitch + g]);
            }
        }
        for j in (0..whole).step_by(S::LANES) {
            let mut x = [S::splat(0.0); R];
            for r in 0..R {
                x[r] = S::load(xs.as_ptr().add(r * dim + j));
            }
            for g in 0..G {
                let at = grad.as_mut_ptr().add(g * dim + j);
                let mut sum = S::load(at);
                for r in 0..R {
                    sum = S::fma(x[r], factors[r][g], sum);
                }
                S::store(at, sum);
            }
        }
        for g in 0..G {
            for j in whole..dim {
                for r in 0..R {
                    grad[g * dim + j] += xs[r * dim + j] * residual[r * pitch + g];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn noise(len: usize, seed: u64) -> Vec<f64> {
        infomax_testing::spread(&[len], seed, 0.5).to_vec1().unwrap()
    }

    /// The loss by scalars in f64.
    fn loss(xs: &[f64], labels: &[u32], weights: &[f64], bias: &[f64]) -> f64 {
        let (n, classes) = (labels.len(), bias.len());
        let dim = xs.len() / n;
        let of = |i: usize| {
            let logit =
                |c: usize| bias[c] + (0..dim).map(|j| xs[i * dim + j] * weights[c * dim + j]).sum::<f64>();
            let sum: f64 = (0..classes).map(|c| logit(c).exp()).sum();
            sum.ln() - logit(labels[i] as usize)
        };
        (0..n).map(of).sum::<f64>() / n as f64
    }

    /// Every number of rows and classes beyond whole groups, and features beyond whole vectors.
    #[test]
    fn value_and_gradient_are_those_of_scalars() {
        for (n, dim, classes) in [(1, 1, 1), (3, 5, 2), (21, 37, 3), (70, 33, 7), (300, 20, 11), (530, 3, 10)]
        {
            // Values that f32 holds, so that both see the same.
            let f32s = |values: Vec<f64>| -> Vec<f32> { values.into_iter().map(|v| v as f32).collect() };
            let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|v| f64::from(*v)).collect() };
            let (xs, weights) = (f32s(noise(n * dim, 1)), f32s(noise(classes * dim, 2)));
            let bias = f32s(noise(classes, 3));
            let labels: Vec<u32> = (0..n).map(|i| (i * 7 % classes) as u32).collect();
            let tensor = Tensor::from_slice(&xs, (n, dim), &Device::Cpu).unwrap();
            let (xs, w, b) = (wide(&xs), wide(&weights), wide(&bias));
            let expected = loss(&xs, &labels, &w, &b);
            for isa in Isa::tested() {
                let got = softmax_regression_isa(&tensor, &labels, &weights, &bias, isa).unwrap();
                assert!((got.value - expected).abs() < 1e-6 * (1.0 + expected), "{isa:?}: {}", got.value);
                let h = 1e-5;
                for at in (0..classes * dim).step_by(1 + classes * dim / 40) {
                    let moved = |by: f64| {
                        let mut w = w.clone();
                        w[at] += by;
                        loss(&xs, &labels, &w, &b)
                    };
                    let slope = (moved(h) - moved(-h)) / (2.0 * h);
                    assert!(
                        (got.weights[at] - slope).abs() < 1e-6,
                        "{isa:?} {at}: {} {slope}",
                        got.weights[at]
                    );
                }
                for class in 0..classes {
                    let moved = |by: f64| {
                        let mut b = b.clone();
                        b[class] += by;
                        loss(&xs, &labels, &w, &b)
                    };
                    let slope = (moved(h) - moved(-h)) / (2.0 * h);
                    assert!((got.bias[class] - slope).abs() < 1e-6, "{isa:?}: {} {slope}", got.bias[class]);
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let xs = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        let of = |labels: &[u32], weights: usize| {
            softmax_regression(&xs, labels, &vec![0.0; weights], &[0.0; 2]).unwrap_err().to_string()
        };
        assert!(of(&[0], 6).contains("1 labels for 2 rows"));
        assert!(of(&[0, 2], 6).contains("2 of 2 classes"));
        assert!(of(&[0, 1], 5).contains("5 for 2 classes of 3 features"));
        let doubles = xs.to_dtype(DType::F64).unwrap();
        assert!(softmax_regression(&doubles, &[0, 1], &[0.0; 6], &[0.0; 2]).is_err());
    }

    /// Logits that overflow as powers give the loss that they have.
    #[test]
    fn large_logits_stay_finite() {
        let xs = Tensor::from_slice(&[1e4f32, -1e4], (2, 1), &Device::Cpu).unwrap();
        let got = softmax_regression(&xs, &[0, 1], &[1.0, -1.0], &[0.0, 0.0]).unwrap();
        assert!(got.value.abs() < 1e-12 && got.weights.iter().all(|g| g.abs() < 1e-12), "{got:?}");
        let wrong = softmax_regression(&xs, &[1, 0], &[1.0, -1.0], &[0.0, 0.0]).unwrap();
        assert!((wrong.value - 2e4).abs() < 1e-6 && (wrong.weights[0] - 1e4).abs() < 1e-3, "{wrong:?}");
    }
}
