//! Cross-entropy of rows of logits, with labels or with distributions as targets.

use crate::ops::rows::{dot, shifted_exp};
use crate::tensor::check;
use crate::tensor::half::{half, wide};
use crate::tensor::path::Path;
use crate::tensor::storage::{contiguous, result, slice, tensor};
use crate::{Error, Result, device};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, DType, Layout, Shape, Tensor};
use infomax_simd::Isa;
use infomax_simd::{Arith, Real, Task, chunked, rows_per_task, run, sum};

/// The mean cross-entropy of `logits` `(N, K)` against `labels`, a scalar in nats:
/// `mean over n of [ ln sum exp x - (1 - e) x[label] - e mean(x) ]` with the label smoothing `e`.
///
/// The target is `1 - e` at the label plus `e / K` everywhere, as in PyTorch.
///
/// # Gradient
/// `dx = g / N (softmax(x) - target)`.
///
/// # Numerics
/// The maximum is taken off first; rows are added in f64, in order. bf16 and f16 logits are computed in f32.
///
/// # Errors
/// Logits that are not a matrix or have no elements; labels of another number or beyond the classes; a
/// smoothing outside of `0..=1`.
pub fn cross_entropy(logits: &Tensor, labels: &[u32], label_smoothing: f64) -> Result<Tensor> {
    cross_entropy_isa(logits, labels, label_smoothing, Isa::detect())
}

pub(crate) fn cross_entropy_isa(logits: &Tensor, labels: &[u32], smoothing: f64, isa: Isa) -> Result<Tensor> {
    if half(logits) {
        return Ok(cross_entropy_isa(&wide(logits)?, labels, smoothing, isa)?.to_dtype(logits.dtype())?);
    }
    let classes = check_labels(logits, labels, smoothing)?;
    let Path::Cpu(_) = Path::of(logits) else {
        return device::cross_entropy(logits, labels, smoothing);
    };
    let op = Labels { labels: labels.to_vec(), smoothing, rows: Rows { classes, isa } };
    Ok(contiguous(logits)?.apply_op1(op)?)
}

/// The mean cross-entropy of `logits` `(N, K)` against the distributions `targets` `(N, K)`, a scalar in nats:
/// `mean over n of sum over k of t (ln sum exp x - x)`.
///
/// # Gradient
/// `dx = g / N (softmax(x) sum(t) - t)`, and of the targets `g / N (ln sum exp x - x)`.
///
/// # Numerics
/// As [`cross_entropy`]. Rows of `targets` are taken as they are, also if they do not add up to 1.
///
/// # Errors
/// Shapes or types that do not fit, or no elements.
pub fn cross_entropy_soft(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    cross_entropy_soft_isa(logits, targets, Isa::detect())
}

pub(crate) fn cross_entropy_soft_isa(logits: &Tensor, targets: &Tensor, isa: Isa) -> Result<Tensor> {
    const OP: &str = "cross_entropy_soft";
    if half(logits) {
        let ys = cross_entropy_soft_isa(&wide(logits)?, &wide(targets)?, isa)?;
        return Ok(ys.to_dtype(logits.dtype())?);
    }
    let (_, classes) = check::dims2(OP, "logits", logits)?;
    check::not_empty(OP, "logits", logits)?;
    check::same_shape(OP, logits, "targets", Some(targets))?;
    let Path::Cpu(_) = Path::of(logits) else {
        return device::cross_entropy_soft(logits, targets);
    };
    Ok(contiguous(logits)?.apply_op2(&contiguous(targets)?, Soft { rows: Rows { classes, isa } })?)
}

/// The number of classes, once everything fits.
pub(crate) fn check_labels(logits: &Tensor, labels: &[u32], label_smoothing: f64) -> Result<usize> {
    const OP: &str = "cross_entropy";
    let (n, k) = check::dims2(OP, "logits", logits)?;
    check::not_empty(OP, "logits", logits)?;
    let config = |name, value, reason| Err(Error::Config { op: OP, name, value, reason });
    if labels.len() != n {
        let value = format!("{} labels for {n} rows", labels.len());
        return config("labels", value, "must be one for each row of the logits");
    }
    if let Some(label) = labels.iter().find(|l| **l as usize >= k) {
        let value = format!("{label} of {k} classes");
        return config("labels", value, "must be smaller than the number of classes");
    }
    if !(0.0..=1.0).contains(&label_smoothing) {
        return config("label_smoothing", label_smoothing.to_string(), "must be between 0 and 1");
    }
    Ok(k)
}

#[derive(Clone, Copy)]
struct Rows {
    classes: usize,
    isa: Isa,
}

/// `out = softmax(x)` for each row, and `ln sum exp x` of each row.
struct Softmax<'a, T> {
    classes: usize,
    xs: &'a [T],
    out: &'a mut [T],
    logs: &'a mut [T],
}

impl<T: Real> Task for Softmax<'_, T> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let rows = self.xs.chunks_exact(self.classes).zip(self.out.chunks_exact_mut(self.classes));
        for ((x, y), log) in rows.zip(self.logs) {
            let (shift, total) = shifted_exp::<A, T>(x, y);
            *log = shift + total.ln();
            let scale = T::ONE / total;
            for y in y {
                *y *= scale;
            }
        }
    }
}

/// The losses of some rows, one each. `target(i)` gives row `i`, weighted and summed, and the sum of targets.
struct Losses<'a, T, F> {
    classes: usize,
    xs: &'a [T],
    out: &'a mut [T],
    weighted: F,
}

trait Weighted<T> {
    /// The sum of `t x`, and the sum of `t`, over row `i` of the task.
    fn of<A: Arith>(&self, i: usize, xs: &[T]) -> (T, T);
}

struct LabelTarget<'a>(&'a [u32], f64);

impl<T: Real> Weighted<T> for LabelTarget<'_> {
    #[inline(always)]
    fn of<A: Arith>(&self, i: usize, xs: &[T]) -> (T, T) {
        let label = xs[self.0[i] as usize];
        if self.1 == 0.0 {
            return (label, T::ONE);
        }
        let mean = sum(xs.len(), |j| xs[j]) / T::of(xs.len() as f64);
        (T::of(1.0 - self.1) * label + T::of(self.1) * mean, T::ONE)
    }
}

struct SoftTarget<'a, T>(&'a [T]);

impl<T: Real> Weighted<T> for SoftTarget<'_, T> {
    #[inline(always)]
    fn of<A: Arith>(&self, i: usize, xs: &[T]) -> (T, T) {
        let target = &self.0[i * xs.len()..][..xs.len()];
        (dot::<T>(target, xs), sum(target.len(), |j| target[j]))
    }
}

impl<T: Real, F: Weighted<T>> Task for Losses<'_, T, F> {
    type Out = ();
    #[inline(always)]
    fn run<A: Arith>(self) {
        let mut scratch = vec![T::ZERO; self.classes];
        for (i, (x, out)) in self.xs.chunks_exact(self.classes).zip(self.out).enumerate() {
            let (shift, total) = shifted_exp::<A, T>(x, &mut scratch);
            let (along, weight) = self.weighted.of::<A>(i, x);
            *out = (shift + total.ln()) * weight - along;
        }
    }
}

impl Rows {
    /// The mean of the losses of all rows.
    fn loss<'a, T: Real, F: Weighted<T>>(
        &self,
        xs: &[T],
        weighted: impl Fn(std::ops::Range<usize>) -> F + Sync + 'a,
    ) -> T {
        let (rows, n) = (rows_per_task(self.classes), xs.len() / self.classes);
        let losses = chunked(n, rows, |i, out: &mut [T]| {
            let range = i * rows..i * rows + out.len();
            let xs = &xs[range.start * self.classes..range.end * self.classes];
            run(self.isa, Losses { classes: self.classes, xs, out, weighted: weighted(range) });
        });
        T::of(losses.iter().map(|l| l.f64()).sum::<f64>() / n as f64)
    }

    /// Softmax and `ln sum exp` of all rows.
    fn softmax<T: Real>(&self, xs: &[T]) -> (Vec<T>, Vec<T>) {
        let rows = rows_per_task(self.classes);
        let chunk = rows * self.classes;
        infomax_simd::chunked2((xs.len(), xs.len() / self.classes), (chunk, rows), |i, out, logs| {
            let xs = &xs[i * chunk..][..out.len()];
            run(self.isa, Softmax { classes: self.classes, xs, out, logs });
        })
    }
}

struct Labels {
    labels: Vec<u32>,
    smoothing: f64,
    rows: Rows,
}

impl Labels {
    fn loss<T: Real>(&self, xs: &[T]) -> Vec<T> {
        vec![self.rows.loss(xs, |range| LabelTarget(&self.labels[range], self.smoothing))]
    }

    fn pull<T: Real>(&self, xs: &[T], grad: T) -> Vec<T> {
        let (k, n) = (self.rows.classes, self.labels.len());
        let (mut dx, _) = self.rows.softmax(xs);
        let scale = grad / T::of(n as f64);
        let everywhere = T::of(self.smoothing / k as f64);
        for (row, label) in dx.chunks_exact_mut(k).zip(&self.labels) {
            row[*label as usize] -= T::of(1.0 - self.smoothing);
            for d in row {
                *d = (*d - everywhere) * scale;
            }
        }
        dx
    }
}

impl CustomOp1 for Labels {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let storage = match s {
            CpuStorage::F64(_) => CpuStorage::F64(self.loss(slice::<f64>((s, l))?)),
            _ => CpuStorage::F32(self.loss(slice::<f32>((s, l))?)),
        };
        Ok((storage, Shape::from(())))
    }

    fn bwd(&self, xs: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(match xs.dtype() {
            DType::F64 => {
                let grad = grad.to_scalar::<f64>()?;
                tensor(result(&[xs], |v: &[&[f64]]| self.pull(v[0], grad))?, xs.shape())?
            }
            _ => {
                let grad = grad.to_scalar::<f32>()?;
                tensor(result(&[xs], |v: &[&[f32]]| self.pull(v[0], grad))?, xs.shape())?
            }
        }))
    }
}

struct Soft {
    rows: Rows,
}

impl Soft {
    fn loss<T: Real>(&self, xs: &[T], targets: &[T]) -> Vec<T> {
        let k = self.rows.classes;
        vec![self.rows.loss(xs, |range| SoftTarget(&targets[range.start * k..range.end * k]))]
    }

    fn pull<T: Real>(&self, xs: &[T], targets: &[T], grad: T) -> (Vec<T>, Vec<T>) {
        let (k, scale) = (self.rows.classes, grad / T::of((xs.len() / self.rows.classes) as f64));
        let (mut dx, logs) = self.rows.softmax(xs);
        for (row, target) in dx.chunks_exact_mut(k).zip(targets.chunks_exact(k)) {
            let total = sum(k, |j| target[j]);
            for (d, t) in row.iter_mut().zip(target) {
                *d = (*d * total - *t) * scale;
            }
        }
        let mut dt = Vec::with_capacity(xs.len());
        for (row, log) in xs.chunks_exact(k).zip(&logs) {
            dt.extend(row.iter().map(|x| (*log - *x) * scale));
        }
        (dx, dt)
    }
}

impl CustomOp2 for Soft {
    fn name(&self) -> &'static str {
        "cross-entropy-soft"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let storage = match s1 {
            CpuStorage::F64(_) => {
                CpuStorage::F64(self.loss(slice::<f64>((s1, l1))?, slice::<f64>((s2, l2))?))
            }
            _ => CpuStorage::F32(self.loss(slice::<f32>((s1, l1))?, slice::<f32>((s2, l2))?)),
        };
        Ok((storage, Shape::from(())))
    }

    fn bwd(
        &self,
        xs: &Tensor,
        targets: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
        fn typed<T: Real>(
            op: &Soft,
            xs: &Tensor,
            targets: &Tensor,
            grad: T,
        ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>)> {
            let (dx, dt) = result(&[xs, targets], |v: &[&[T]]| op.pull(v[0], v[1], grad))?;
            Ok((Some(tensor(dx, xs.shape())?), Some(tensor(dt, xs.shape())?)))
        }
        match xs.dtype() {
            DType::F64 => typed(self, xs, targets, grad.to_scalar::<f64>()?),
            _ => typed(self, xs, targets, grad.to_scalar::<f32>()?),
        }
    }
}
