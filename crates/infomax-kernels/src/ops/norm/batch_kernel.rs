//! The passes of batch norm over one channel: moments, output, and the two passes of the gradient.
//!
//! A channel is one task, its planes are visited in order: the sums have the same bits for any number of
//! threads.

use infomax_simd::{Float, Kernel, Simd};

/// The planes of one channel: `n` runs of `inner` elements, `pitch` apart.
#[derive(Clone, Copy)]
pub(super) struct Planes {
    pub(super) n: usize,
    pub(super) inner: usize,
    pub(super) pitch: usize,
    pub(super) first: usize,
}

impl Planes {
    #[inline(always)]
    fn at(&self, i: usize) -> usize {
        self.first + i * self.pitch
    }
}

/// The mean and the biased variance of a channel.
pub(super) struct Moments<'a, T> {
    pub(super) planes: Planes,
    pub(super) xs: &'a [T],
}

impl<T: Float> Kernel<T> for Moments<'_, T> {
    type Out = (f64, f64);

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) -> (f64, f64) {
        let p = self.planes;
        // Two passes over each plane while it is in the cache, then the parallel formula of Chan et al.
        let (mut count, mut mean, mut m2) = (0.0, 0.0, 0.0);
        let size = p.inner as f64;
        for i in 0..p.n {
            let plane = &self.xs[p.at(i)..][..p.inner];
            let whole = p.inner / S::LANES * S::LANES;
            // SAFETY: loads of whole vectors within the plane.
            let (plane_mean, plane_m2) = unsafe {
                let mut sum = S::splat(T::default());
                for l in (0..whole).step_by(S::LANES) {
                    sum = S::add(sum, S::load(plane.as_ptr().add(l)));
                }
                let mut total = S::sum(sum).f64();
                for x in &plane[whole..] {
                    total += x.f64();
                }
                let plane_mean = T::of(total / size);
                let shift = S::splat(plane_mean);
                let (mut sum, mut square) = (S::splat(T::default()), S::splat(T::default()));
                for l in (0..whole).step_by(S::LANES) {
                    let d = S::sub(S::load(plane.as_ptr().add(l)), shift);
                    sum = S::add(sum, d);
                    square = S::fma(d, d, square);
                }
                let (mut rest, mut squares) = (S::sum(sum).f64(), S::sum(square).f64());
                for x in &plane[whole..] {
                    let d = (*x - plane_mean).f64();
                    rest += d;
                    squares += d * d;
                }
                // The rounding of the shift is taken back.
                let rest = rest / size;
                (plane_mean.f64() + rest, squares - size * rest * rest)
            };
            let delta = plane_mean - mean;
            let all = count + size;
            mean += delta * size / all;
            m2 += plane_m2 + delta * delta * count * size / all;
            count = all;
        }
        (mean, f64::max(m2 / count, 0.0))
    }
}

/// `y = act(x * scale + shift + residual)`.
pub(super) struct Apply<'a, T> {
    pub(super) planes: Planes,
    pub(super) xs: &'a [T],
    pub(super) residual: Option<&'a [T]>,
    pub(super) scale: T,
    pub(super) shift: T,
    pub(super) relu: bool,
    pub(super) out: *mut T,
}

impl<T: Float> Kernel<T> for Apply<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        // SAFETY: `out` has room for the whole tensor; whole vectors within a plane.
        unsafe {
            match (self.residual, self.relu) {
                (None, false) => self.with::<S, false, false>(),
                (None, true) => self.with::<S, false, true>(),
                (Some(_), false) => self.with::<S, true, false>(),
                (Some(_), true) => self.with::<S, true, true>(),
            }
        }
    }
}

impl<T: Float> Apply<'_, T> {
    #[inline(always)]
    unsafe fn with<S: Simd<T = T>, const RESIDUAL: bool, const RELU: bool>(&self) {
        let p = self.planes;
        let whole = p.inner / S::LANES * S::LANES;
        for i in 0..p.n {
            let x = &self.xs[p.at(i)..][..p.inner];
            let r = match self.residual {
                Some(r) => &r[p.at(i)..][..p.inner],
                None => x,
            };
            // SAFETY: the planes were just checked, and `out` has the same layout.
            unsafe {
                let out = self.out.add(p.at(i));
                let (scale, shift) = (S::splat(self.scale), S::splat(self.shift));
                for l in (0..whole).step_by(S::LANES) {
                    let mut y = S::fma(S::load(x.as_ptr().add(l)), scale, shift);
                    if RESIDUAL {
                        y = S::add(y, S::load(r.as_ptr().add(l)));
                    }
                    if RELU {
                        y = S::relu(y);
                    }
                    S::store(out.add(l), y);
                }
                for l in whole..p.inner {
                    let mut y = x[l] * self.scale + self.shift;
                    if RESIDUAL {
                        y += r[l];
                    }
                    if RELU && y <= T::default() {
                        y = T::default();
                    }
                    *out.add(l) = y;
                }
            }
        }
    }
}

/// The first pass of the gradient: `g = dy * [y > 0]`, and the sums of `g` and `g * (x - mean)`.
pub(super) struct GradSums<'a, T> {
    pub(super) planes: Planes,
    pub(super) xs: &'a [T],
    /// The output, when an activation followed.
    pub(super) ys: Option<&'a [T]>,
    pub(super) grad: &'a [T],
    pub(super) mean: T,
}

impl<T: Float> Kernel<T> for GradSums<'_, T> {
    type Out = (f64, f64);

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) -> (f64, f64) {
        let p = self.planes;
        let whole = p.inner / S::LANES * S::LANES;
        let (mut total, mut moment) = (0.0, 0.0);
        for i in 0..p.n {
            let x = &self.xs[p.at(i)..][..p.inner];
            let dy = &self.grad[p.at(i)..][..p.inner];
            let masked = self.ys.is_some();
            let y = match self.ys {
                Some(y) => &y[p.at(i)..][..p.inner],
                None => x,
            };
            // SAFETY: whole vectors within the planes.
            unsafe {
                let mean = S::splat(self.mean);
                let (mut sum, mut dot) = (S::splat(T::default()), S::splat(T::default()));
                for l in (0..whole).step_by(S::LANES) {
                    let mut g = S::load(dy.as_ptr().add(l));
                    if masked {
                        g = S::keep_positive(g, S::load(y.as_ptr().add(l)));
                    }
                    sum = S::add(sum, g);
                    dot = S::fma(g, S::sub(S::load(x.as_ptr().add(l)), mean), dot);
                }
                total += S::sum(sum).f64();
                moment += S::sum(dot).f64();
            }
            for l in whole..p.inner {
                let g = if !masked || y[l] > T::default() { dy[l] } else { T::default() };
                total += g.f64();
                moment += (g * (x[l] - self.mean)).f64();
            }
        }
        (total, moment)
    }
}

/// The second pass: `dx = g * a + (x - mean) * b + c`, and `g` itself for the residual.
pub(super) struct GradApply<'a, T> {
    pub(super) planes: Planes,
    pub(super) xs: &'a [T],
    pub(super) ys: Option<&'a [T]>,
    pub(super) grad: &'a [T],
    pub(super) mean: T,
    pub(super) a: T,
    pub(super) b: T,
    pub(super) c: T,
    pub(super) dx: *mut T,
    /// Null where there is no residual.
    pub(super) residual: *mut T,
}

impl<T: Float> Kernel<T> for GradApply<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        let p = self.planes;
        let whole = p.inner / S::LANES * S::LANES;
        let (masked, residual) = (self.ys.is_some(), !self.residual.is_null());
        for i in 0..p.n {
            let x = &self.xs[p.at(i)..][..p.inner];
            let dy = &self.grad[p.at(i)..][..p.inner];
            let y = match self.ys {
                Some(y) => &y[p.at(i)..][..p.inner],
                None => x,
            };
            // SAFETY: `dx` and, where it is not null, `residual` have the layout of `xs`.
            unsafe {
                let dx = self.dx.add(p.at(i));
                let dr = if residual { self.residual.add(p.at(i)) } else { dx };
                let mean = S::splat(self.mean);
                let (a, b, c) = (S::splat(self.a), S::splat(self.b), S::splat(self.c));
                for l in (0..whole).step_by(S::LANES) {
                    let mut g = S::load(dy.as_ptr().add(l));
                    if masked {
                        g = S::keep_positive(g, S::load(y.as_ptr().add(l)));
                    }
                    if residual {
                        S::store(dr.add(l), g);
                    }
                    let centered = S::sub(S::load(x.as_ptr().add(l)), mean);
                    S::store(dx.add(l), S::fma(g, a, S::fma(centered, b, c)));
                }
                for l in whole..p.inner {
                    let g = if !masked || y[l] > T::default() { dy[l] } else { T::default() };
                    if residual {
                        *dr.add(l) = g;
                    }
                    *dx.add(l) = g * self.a + ((x[l] - self.mean) * self.b + self.c);
                }
            }
        }
    }
}
