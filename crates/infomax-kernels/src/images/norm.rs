//! The passes of batch norm: moments, output, and the two passes of the gradient.
//!
//! Work is split into runs of pixels whose number depends on the shape alone; sums over runs are added in
//! order, in f64. Activations between two convolutions are not stored: whether one was positive is computed
//! again from the input of the norm.

use super::layout::Dims;
use super::tile::fit;
use infomax_simd::Stored;
use infomax_simd::{Float, Isa, Kernel, Shared, Simd};
use rayon::prelude::*;

/// Elements of one run: two of its tensors fit the second-level cache.
const RUN: usize = 24 << 10;

/// Some pixels of one block.
#[derive(Clone, Copy)]
struct Run {
    /// First element.
    at: usize,
    pixels: usize,
    c: usize,
    lanes: usize,
    /// Images that are no filling.
    used: usize,
}

fn runs(d: &Dims) -> Vec<Run> {
    let (line, image) = (d.c * d.lanes, d.h * d.w);
    let step = (RUN / line).clamp(1, image);
    let mut runs = Vec::new();
    for block in 0..d.blocks {
        for first in (0..image).step_by(step) {
            let pixels = step.min(image - first);
            let at = (block * image + first) * line;
            runs.push(Run { at, pixels, c: d.c, lanes: d.lanes, used: d.used(block) });
        }
    }
    runs
}

/// Values of one channel for a kernel: one splat each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Affine<T> {
    pub(super) scale: T,
    pub(super) shift: T,
}

/// The mean and the biased variance of each channel over all images and pixels.
pub(super) fn moments<E: Stored>(isa: Isa, d: &Dims, xs: &[E]) -> Vec<(f64, f64)> {
    struct Moments<'a, E> {
        run: Run,
        xs: &'a [E],
    }
    impl<T: Float, E: Stored<Real = T>> Kernel<T> for Moments<'_, E> {
        type Out = Vec<(f64, f64)>;
        #[inline(always)]
        unsafe fn run<S: Simd<T = T>>(self) -> Self::Out {
            let Run { at, pixels, c, lanes, used } = self.run;
            let line = c * lanes;
            let xs = &self.xs[at..][..pixels * line];
            let mut sums = vec![T::default(); 2 * line];
            let (first, second) = sums.split_at_mut(line);
            let count = (pixels * used) as f64;
            let total =
                |line: &[T], c: usize| line[c * lanes..][..used].iter().fold(0.0, |sum, x| sum + x.f64());
            // Two passes while the run is in the cache.
            // SAFETY: whole vectors of lines of equal length.
            unsafe {
                for pixel in xs.chunks_exact(line) {
                    for x in (0..line).step_by(S::LANES) {
                        let sum = first.as_mut_ptr().add(x);
                        S::store(sum, S::add(S::load(sum), E::load::<S>(pixel.as_ptr().add(x))));
                    }
                }
                let means: Vec<T> = (0..c).map(|c| T::of(total(first, c) / count)).collect();
                first.fill(T::default());
                for pixel in xs.chunks_exact(line) {
                    for (c, mean) in means.iter().enumerate() {
                        let mean = S::splat(*mean);
                        for x in (c * lanes..(c + 1) * lanes).step_by(S::LANES) {
                            let d = S::sub(E::load::<S>(pixel.as_ptr().add(x)), mean);
                            let (a, b) = (first.as_mut_ptr().add(x), second.as_mut_ptr().add(x));
                            S::store(a, S::add(S::load(a), d));
                            S::store(b, S::fma(d, d, S::load(b)));
                        }
                    }
                }
                means
                    .iter()
                    .enumerate()
                    .map(|(c, mean)| {
                        // The rounding of the shift is taken back.
                        let rest = total(first, c) / count;
                        (mean.f64() + rest, f64::max(total(second, c) - count * rest * rest, 0.0))
                    })
                    .collect()
            }
        }
    }
    let isa = fit::<E::Real>(isa, d.lanes);
    let runs = runs(d);
    let parts: Vec<_> =
        runs.par_iter().map(|run| E::Real::dispatch(isa, Moments { run: *run, xs })).collect();
    // The parallel formula of Chan et al.
    let mut all = vec![(0.0, 0.0); d.c];
    let mut count = 0.0;
    for (run, part) in runs.iter().zip(&parts) {
        let size = (run.pixels * run.used) as f64;
        let sum = count + size;
        for ((mean, m2), (part_mean, part_m2)) in all.iter_mut().zip(part) {
            let delta = part_mean - *mean;
            *mean += delta * size / sum;
            *m2 += part_m2 + delta * delta * count * size / sum;
        }
        count = sum;
    }
    all.iter().map(|(mean, m2)| (*mean, m2 / count)).collect()
}

/// What is added to a normalized map.
#[derive(Clone, Copy)]
pub(super) enum Residual<'a, E: Stored> {
    None,
    /// A map.
    Plain(&'a [E]),
    /// A map that is to be normalized first.
    Normed(&'a [E], &'a [Affine<E::Real>]),
}

/// `out = relu(x * scale + shift + residual)`.
///
/// # Safety
/// `out` must be valid for the whole map, and no one else may use it meanwhile.
pub(super) unsafe fn apply<E: Stored>(
    isa: Isa,
    d: &Dims,
    xs: &[E],
    affine: &[Affine<E::Real>],
    residual: Residual<'_, E>,
    out: Shared<E>,
) {
    struct Apply<'a, E: Stored> {
        run: Run,
        xs: &'a [E],
        affine: &'a [Affine<E::Real>],
        residual: Residual<'a, E>,
        out: Shared<E>,
    }
    impl<T: Float, E: Stored<Real = T>> Apply<'_, E> {
        #[inline(always)]
        unsafe fn with<S: Simd<T = T>, const KIND: u8>(&self, other: &[E], norm: &[Affine<T>]) {
            let Run { at, pixels, c, lanes, .. } = self.run;
            let line = c * lanes;
            for pixel in 0..pixels {
                let at = at + pixel * line;
                let (x, r) = (&self.xs[at..][..line], &other[at..][..line]);
                // SAFETY: whole vectors of this line, in all maps.
                unsafe {
                    let out = self.out.get().add(at);
                    for c in 0..c {
                        let (scale, shift) = (S::splat(self.affine[c].scale), S::splat(self.affine[c].shift));
                        let more = (S::splat(norm[c].scale), S::splat(norm[c].shift));
                        for l in (c * lanes..(c + 1) * lanes).step_by(S::LANES) {
                            let mut y = S::fma(E::load::<S>(x.as_ptr().add(l)), scale, shift);
                            if KIND == 1 {
                                y = S::add(y, E::load::<S>(r.as_ptr().add(l)));
                            }
                            if KIND == 2 {
                                y = S::add(y, S::fma(E::load::<S>(r.as_ptr().add(l)), more.0, more.1));
                            }
                            E::store::<S>(out.add(l), S::relu(y));
                        }
                    }
                }
            }
        }
    }
    impl<T: Float, E: Stored<Real = T>> Kernel<T> for Apply<'_, E> {
        type Out = ();
        #[inline(always)]
        unsafe fn run<S: Simd<T = T>>(self) {
            // SAFETY: passed on.
            unsafe {
                match self.residual {
                    Residual::None => self.with::<S, 0>(self.xs, self.affine),
                    Residual::Plain(r) => self.with::<S, 1>(r, self.affine),
                    Residual::Normed(r, norm) => self.with::<S, 2>(r, norm),
                }
            }
        }
    }
    assert!(xs.len() == d.len() && affine.len() == d.c);
    if let Residual::Normed(_, norm) = residual {
        assert!(norm.len() == d.c);
    }
    let isa = fit::<E::Real>(isa, d.lanes);
    runs(d).into_par_iter().for_each(|run| {
        E::Real::dispatch(isa, Apply { run, xs, affine, residual, out });
    });
}

/// Where the activation after the norm was positive.
#[derive(Clone, Copy)]
pub(super) enum Mask<'a, E: Stored> {
    /// The activation.
    Kept(&'a [E]),
    /// Where the norm of its own input is positive.
    Own(&'a [Affine<E::Real>]),
}

/// The sums of `g` and of `g * (x - mean)` for each channel, `g` being the gradient where the activation was
/// positive.
pub(super) fn grad_sums<E: Stored>(
    isa: Isa,
    d: &Dims,
    xs: &[E],
    means: &[E::Real],
    grad: &[E],
    mask: Mask<'_, E>,
) -> Vec<(f64, f64)> {
    struct Sums<'a, E: Stored> {
        run: Run,
        xs: &'a [E],
        means: &'a [E::Real],
        grad: &'a [E],
        mask: Mask<'a, E>,
    }
    impl<T: Float, E: Stored<Real = T>> Sums<'_, E> {
        #[inline(always)]
        unsafe fn with<S: Simd<T = T>, const OWN: bool>(
            &self,
            ys: &[E],
            affine: &[Affine<T>],
        ) -> Vec<(f64, f64)> {
            let Run { at, pixels, c, lanes, used } = self.run;
            let line = c * lanes;
            let mut sums = vec![T::default(); 2 * line];
            let (first, second) = sums.split_at_mut(line);
            for pixel in 0..pixels {
                let at = at + pixel * line;
                let (x, y, dy) = (&self.xs[at..][..line], &ys[at..][..line], &self.grad[at..][..line]);
                // SAFETY: whole vectors of lines of equal length.
                unsafe {
                    for c in 0..c {
                        let mean = S::splat(self.means[c]);
                        let own = &affine[if OWN { c } else { 0 }];
                        let (scale, shift) = (S::splat(own.scale), S::splat(own.shift));
                        for l in (c * lanes..(c + 1) * lanes).step_by(S::LANES) {
                            let x = E::load::<S>(x.as_ptr().add(l));
                            let y =
                                if OWN { S::fma(x, scale, shift) } else { E::load::<S>(y.as_ptr().add(l)) };
                            let g = S::keep_positive(E::load::<S>(dy.as_ptr().add(l)), y);
                            let (a, b) = (first.as_mut_ptr().add(l), second.as_mut_ptr().add(l));
                            S::store(a, S::add(S::load(a), g));
                            S::store(b, S::fma(g, S::sub(x, mean), S::load(b)));
                        }
                    }
                }
            }
            let total =
                |line: &[T], c: usize| line[c * lanes..][..used].iter().fold(0.0, |sum, x| sum + x.f64());
            (0..c).map(|c| (total(first, c), total(second, c))).collect()
        }
    }
    impl<T: Float, E: Stored<Real = T>> Kernel<T> for Sums<'_, E> {
        type Out = Vec<(f64, f64)>;
        #[inline(always)]
        unsafe fn run<S: Simd<T = T>>(self) -> Self::Out {
            // SAFETY: passed on.
            unsafe {
                match self.mask {
                    Mask::Kept(ys) => self.with::<S, false>(ys, &[Affine::default()]),
                    Mask::Own(affine) => self.with::<S, true>(self.xs, affine),
                }
            }
        }
    }
    let isa = fit::<E::Real>(isa, d.lanes);
    let parts: Vec<_> = runs(d)
        .into_par_iter()
        .map(|run| E::Real::dispatch(isa, Sums { run, xs, means, grad, mask }))
        .collect();
    let mut all = vec![(0.0, 0.0); d.c];
    for part in parts {
        for (all, part) in all.iter_mut().zip(part) {
            *all = (all.0 + part.0, all.1 + part.1);
        }
    }
    all
}

/// The coefficients of [`grad_apply`] for one channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coefficients<T> {
    pub(super) mean: T,
    pub(super) a: T,
    pub(super) b: T,
    pub(super) c: T,
}

/// `dx = g * a + (x - mean) * b + c`, zero in the filling of the batch, and `g` itself where `masked` is not
/// null. `dx` or `masked` may be the gradient itself.
///
/// # Safety
/// `grad` and the results must be valid for the whole map, and no one else may use the results meanwhile.
pub(super) unsafe fn grad_apply<E: Stored>(
    isa: Isa,
    d: &Dims,
    xs: &[E],
    coefficients: &[Coefficients<E::Real>],
    grad: Shared<E>,
    mask: Mask<'_, E>,
    dx: Shared<E>,
    masked: Shared<E>,
) {
    struct Grads<'a, E: Stored> {
        run: Run,
        xs: &'a [E],
        coefficients: &'a [Coefficients<E::Real>],
        grad: Shared<E>,
        mask: Mask<'a, E>,
        dx: Shared<E>,
        masked: Shared<E>,
    }
    impl<T: Float, E: Stored<Real = T>> Grads<'_, E> {
        #[inline(always)]
        unsafe fn with<S: Simd<T = T>, const OWN: bool>(&self, ys: &[E], affine: &[Affine<T>]) {
            let Run { at, pixels, c, lanes, used } = self.run;
            let line = c * lanes;
            let keep = !self.masked.get().is_null();
            let mut real = [T::default(); 16];
            real[..used].fill(T::of(1.0));
            for pixel in 0..pixels {
                let at = at + pixel * line;
                let (x, y) = (&self.xs[at..][..line], &ys[at..][..line]);
                // SAFETY: whole vectors of lines of equal length; each is read before it is written.
                unsafe {
                    let (dy, dx) = (self.grad.get().add(at), self.dx.get().add(at));
                    for c in 0..c {
                        let k = &self.coefficients[c];
                        let mean = S::splat(k.mean);
                        let (ka, kb, kc) = (S::splat(k.a), S::splat(k.b), S::splat(k.c));
                        let own = &affine[if OWN { c } else { 0 }];
                        let (scale, shift) = (S::splat(own.scale), S::splat(own.shift));
                        for lane in (0..lanes).step_by(S::LANES) {
                            let l = c * lanes + lane;
                            let x = E::load::<S>(x.as_ptr().add(l));
                            let y =
                                if OWN { S::fma(x, scale, shift) } else { E::load::<S>(y.as_ptr().add(l)) };
                            let g = S::keep_positive(E::load::<S>(dy.add(l)), y);
                            let mut value = S::fma(g, ka, S::fma(S::sub(x, mean), kb, kc));
                            if used < lanes {
                                value = S::mul(value, S::load(real.as_ptr().add(lane)));
                            }
                            E::store::<S>(dx.add(l), value);
                            if keep {
                                E::store::<S>(self.masked.get().add(at + l), g);
                            }
                        }
                    }
                }
            }
        }
    }
    impl<T: Float, E: Stored<Real = T>> Kernel<T> for Grads<'_, E> {
        type Out = ();
        #[inline(always)]
        unsafe fn run<S: Simd<T = T>>(self) {
            // SAFETY: passed on.
            unsafe {
                match self.mask {
                    Mask::Kept(ys) => self.with::<S, false>(ys, &[Affine::default()]),
                    Mask::Own(affine) => self.with::<S, true>(self.xs, affine),
                }
            }
        }
    }
    assert!(xs.len() == d.len() && coefficients.len() == d.c);
    let isa = fit::<E::Real>(isa, d.lanes);
    runs(d).into_par_iter().for_each(|run| {
        E::Real::dispatch(isa, Grads { run, xs, coefficients, grad, mask, dx, masked });
    });
}
