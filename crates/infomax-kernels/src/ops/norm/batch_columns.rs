//! The passes of batch norm where planes are small (one element in the 1d form): some neighboring channels
//! together, so that the elements of a row lie side by side, whatever the size of a plane.
//!
//! A block of channels is one task, its rows are visited in order: the sums have the same bits for any number
//! of threads.

use infomax_simd::Shared;
use infomax_simd::{Arith, Real, Task};

/// Elements of a row of a block, at most, unless a plane has more.
const WIDTH: usize = 128;
/// Rows between two sums in f64.
const ROWS: usize = 64;

/// Largest planes that go this way.
pub(super) const SMALL: usize = 64;

/// Channels of a block.
pub(super) fn channels(inner: usize) -> usize {
    (WIDTH / inner).max(1)
}

/// Some channels: `n` rows of `width` elements, `pitch` apart, `inner` of each channel.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) n: usize,
    pub(super) inner: usize,
    pub(super) pitch: usize,
    pub(super) first: usize,
    pub(super) width: usize,
}

impl Block {
    #[inline(always)]
    fn row<'a, T>(&self, xs: &'a [T], i: usize) -> &'a [T] {
        &xs[self.first + i * self.pitch..][..self.width]
    }

    /// The row of an output.
    ///
    /// # Safety
    /// `out` must hold the whole tensor, and the block must belong to this task.
    #[inline(always)]
    unsafe fn row_mut<'a, T>(&self, out: Shared<T>, i: usize) -> &'a mut [T] {
        // SAFETY: within the tensor, and nobody else's, by the caller.
        unsafe { std::slice::from_raw_parts_mut(out.get().add(self.first + i * self.pitch), self.width) }
    }

    /// One value of each channel for each element of a row.
    #[inline(always)]
    fn spread<T: Real>(&self, value: impl Fn(usize) -> f64) -> [T; WIDTH] {
        let mut all = [T::ZERO; WIDTH];
        for (channel, run) in all[..self.width].chunks_mut(self.inner).enumerate() {
            run.fill(T::of(value(channel)));
        }
        all
    }

    /// Two sums over all elements of each channel; `add` adds the summands of a row.
    #[inline(always)]
    fn sums<T: Real>(&self, mut add: impl FnMut(usize, &mut [T], &mut [T])) -> Vec<(f64, f64)> {
        let mut totals = [(0f64, 0f64); WIDTH];
        for from in (0..self.n).step_by(ROWS) {
            let (mut a, mut b) = ([T::ZERO; WIDTH], [T::ZERO; WIDTH]);
            for i in from..self.n.min(from + ROWS) {
                add(i, &mut a[..self.width], &mut b[..self.width]);
            }
            for (total, (a, b)) in totals[..self.width].iter_mut().zip(a.iter().zip(&b)) {
                *total = (total.0 + a.f64(), total.1 + b.f64());
            }
        }
        let channels = totals[..self.width].chunks(self.inner);
        channels.map(|c| c.iter().fold((0.0, 0.0), |s, t| (s.0 + t.0, s.1 + t.1))).collect()
    }
}

/// The means and the biased variances of the channels of a block.
pub(super) struct Moments<'a, T> {
    pub(super) block: Block,
    pub(super) xs: &'a [T],
}

impl<T: Real> Task for Moments<'_, T> {
    type Out = Vec<(f64, f64)>;

    #[inline(always)]
    fn run<A: Arith>(self) -> Self::Out {
        let Self { block, xs } = self;
        let m = (block.n * block.inner) as f64;
        let sums = block.sums::<T>(|i, sum, _| {
            for (s, x) in sum.iter_mut().zip(block.row(xs, i)) {
                *s += *x;
            }
        });
        let mean: [T; WIDTH] = block.spread(|c| sums[c].0 / m);
        let centered = block.sums::<T>(|i, sum, square| {
            let row = sum.iter_mut().zip(square).zip(block.row(xs, i)).zip(&mean);
            for (((s, q), x), mean) in row {
                let d = *x - *mean;
                *s += d;
                *q = A::fma(d, d, *q);
            }
        });
        let channels = sums.iter().zip(&centered);
        // The rounding of the mean is taken back.
        channels
            .map(|((sum, _), (rest, square))| {
                let rest = rest / m;
                (T::of(sum / m).f64() + rest, f64::max(square / m - rest * rest, 0.0))
            })
            .collect()
    }
}

/// `y = act(x * scale + shift + residual)`, with scale and shift of each channel.
pub(super) struct Apply<'a, T> {
    pub(super) block: Block,
    pub(super) xs: &'a [T],
    pub(super) residual: Option<&'a [T]>,
    pub(super) affine: &'a [(f64, f64)],
    pub(super) relu: bool,
    pub(super) out: Shared<T>,
}

impl<T: Real> Task for Apply<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<A: Arith>(self) {
        let Self { block, xs, residual, affine, relu, out } = self;
        let scale: [T; WIDTH] = block.spread(|c| affine[c].0);
        let shift: [T; WIDTH] = block.spread(|c| affine[c].1);
        for i in 0..block.n {
            // SAFETY: the output has the layout of the input, and each task has its channels.
            let ys = unsafe { block.row_mut(out, i) };
            for (((y, x), scale), shift) in ys.iter_mut().zip(block.row(xs, i)).zip(&scale).zip(&shift) {
                *y = A::fma(*x, *scale, *shift);
            }
            if let Some(residual) = residual {
                for (y, r) in ys.iter_mut().zip(block.row(residual, i)) {
                    *y += *r;
                }
            }
            if relu {
                for y in ys {
                    // The comparison keeps NaN.
                    *y = if *y <= T::ZERO { T::ZERO } else { *y };
                }
            }
        }
    }
}

/// `g = dy * [y > 0]`, or `dy` where no activation followed.
#[inline(always)]
fn masked<T: Real>(dy: T, y: T, relu: bool) -> T {
    if !relu || y > T::ZERO { dy } else { T::ZERO }
}

/// The first pass of the gradient: the sums of `g` and of `g * (x - mean)` of each channel.
pub(super) struct GradSums<'a, T> {
    pub(super) block: Block,
    pub(super) xs: &'a [T],
    /// The output, when an activation followed.
    pub(super) ys: Option<&'a [T]>,
    pub(super) grad: &'a [T],
    pub(super) means: &'a [(f64, f64)],
}

impl<T: Real> Task for GradSums<'_, T> {
    type Out = Vec<(f64, f64)>;

    #[inline(always)]
    fn run<A: Arith>(self) -> Self::Out {
        let Self { block, xs, ys, grad, means } = self;
        let mean: [T; WIDTH] = block.spread(|c| means[c].0);
        let relu = ys.is_some();
        block.sums::<T>(|i, sum, dot| {
            let (x, dy, y) = (block.row(xs, i), block.row(grad, i), block.row(ys.unwrap_or(xs), i));
            let elements = x.iter().zip(dy).zip(y).zip(&mean);
            for ((s, q), (((x, dy), y), mean)) in sum.iter_mut().zip(dot).zip(elements) {
                let g = masked(*dy, *y, relu);
                *s += g;
                *q = A::fma(g, *x - *mean, *q);
            }
        })
    }
}

/// The second pass: `dx = g * a + (x - mean) * b + c`, and `g` itself for the residual.
pub(super) struct GradApply<'a, T> {
    pub(super) block: Block,
    pub(super) xs: &'a [T],
    pub(super) ys: Option<&'a [T]>,
    pub(super) grad: &'a [T],
    pub(super) means: &'a [(f64, f64)],
    /// `a`, `b` and `c` of each channel.
    pub(super) factors: &'a [[f64; 3]],
    pub(super) dx: Shared<T>,
    pub(super) residual: Option<Shared<T>>,
}

impl<T: Real> Task for GradApply<'_, T> {
    type Out = ();

    #[inline(always)]
    fn run<A: Arith>(self) {
        let Self { block, xs, ys, grad, means, factors, dx, residual } = self;
        let mean: [T; WIDTH] = block.spread(|c| means[c].0);
        let [a, b, c]: [[T; WIDTH]; 3] = [0, 1, 2].map(|i| block.spread(|c| factors[c][i]));
        let relu = ys.is_some();
        for i in 0..block.n {
            let (x, dy, y) = (block.row(xs, i), block.row(grad, i), block.row(ys.unwrap_or(xs), i));
            // SAFETY: the outputs have the layout of the input, and each task has its channels.
            let dx = unsafe { block.row_mut(dx, i) };
            for j in 0..block.width {
                let g = masked(dy[j], y[j], relu);
                dx[j] = A::fma(g, a[j], A::fma(x[j] - mean[j], b[j], c[j]));
            }
            if let Some(residual) = residual {
                // SAFETY: the residual has the layout of the input too, and this task alone writes its channels.
                let dr = unsafe { block.row_mut(residual, i) };
                for ((r, dy), y) in dr.iter_mut().zip(dy).zip(y) {
                    *r = masked(*dy, *y, relu);
                }
            }
        }
    }
}
