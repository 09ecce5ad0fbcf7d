//! The passes over memory: in-place loops on contiguous f32 and f64 slices of the CPU, and the same
//! formulas as composed Candle operations for every other device and dtype.
//!
//! Elements are independent, so that long passes are split over threads: one thread does not fill the bus to
//! memory. Sums stay sequential: one order gives one result.

use crate::Result;
use candle_core::{CpuStorage, DType, InplaceOp2, InplaceOp3, Layout, Storage, Tensor, bail};
use rayon::prelude::*;

/// A scalar type of the fast passes. Coefficients are computed in f64 and rounded once.
trait Real:
    Copy
    + Send
    + Sync
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
{
    fn of(x: f64) -> Self;
    fn root(self) -> Self;
}

impl Real for f32 {
    fn of(x: f64) -> Self {
        x as Self
    }
    fn root(self) -> Self {
        self.sqrt()
    }
}

impl Real for f64 {
    fn of(x: f64) -> Self {
        x
    }
    fn root(self) -> Self {
        self.sqrt()
    }
}

/// Whether the fast passes apply; the tensors of one call always share dtype and device.
fn fast(x: &Tensor) -> bool {
    x.device().is_cpu() && x.is_contiguous() && matches!(x.dtype(), DType::F32 | DType::F64)
}

fn range(layout: &Layout) -> candle_core::Result<std::ops::Range<usize>> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(from..to),
        None => bail!("optimiser pass: tensors must be contiguous"),
    }
}

/// Elements of one task.
const TASK: usize = 1 << 16;

/// `f` on parts of two slices of equal length.
fn parts2<T: Real>(x: &mut [T], y: &[T], f: impl Fn(&mut [T], &[T]) + Sync) {
    if x.len() <= TASK {
        return f(x, y);
    }
    x.par_chunks_mut(TASK).zip(y.par_chunks(TASK)).for_each(|(x, y)| f(x, y));
}

/// `f` on parts of three slices of equal length.
fn parts3<T: Real>(x: &mut [T], y: &[T], z: &[T], f: impl Fn(&mut [T], &[T], &[T]) + Sync) {
    if x.len() <= TASK {
        return f(x, y, z);
    }
    let yz = y.par_chunks(TASK).zip(z.par_chunks(TASK));
    x.par_chunks_mut(TASK).zip(yz).for_each(|(x, (y, z))| f(x, y, z));
}

/// `x <- decay x + a y`, with `y` squared first if asked: momentum without weight decay, Adam's second
/// moment, and the descent step (`decay = 1`).
struct Axpy {
    decay: f64,
    a: f64,
    square: bool,
}

impl Axpy {
    fn run<T: Real>(&self, x: &mut [T], y: &[T]) {
        let (decay, a) = (T::of(self.decay), T::of(self.a));
        match (self.square, self.decay == 1.0) {
            (true, _) => x.iter_mut().zip(y).for_each(|(x, &y)| *x = decay * *x + a * y * y),
            (false, true) => x.iter_mut().zip(y).for_each(|(x, &y)| *x = *x + a * y),
            (false, false) => x.iter_mut().zip(y).for_each(|(x, &y)| *x = decay * *x + a * y),
        }
    }
}

impl InplaceOp2 for Axpy {
    fn name(&self) -> &'static str {
        "optimiser-axpy"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        lx: &Layout,
        y: &CpuStorage,
        ly: &Layout,
    ) -> candle_core::Result<()> {
        match (x, y) {
            (CpuStorage::F32(x), CpuStorage::F32(y)) => {
                parts2(&mut x[range(lx)?], &y[range(ly)?], |x, y| self.run(x, y))
            }
            (CpuStorage::F64(x), CpuStorage::F64(y)) => {
                parts2(&mut x[range(lx)?], &y[range(ly)?], |x, y| self.run(x, y))
            }
            _ => bail!("optimiser pass: unequal dtypes"),
        }
        Ok(())
    }
}

/// `m <- m + w (g - m)`: PyTorch's `lerp`, in its order of operations.
struct Lerp {
    w: f64,
}

impl Lerp {
    fn run<T: Real>(&self, m: &mut [T], g: &[T]) {
        let w = T::of(self.w);
        // The second form is exact at w = 1.
        if self.w < 0.5 {
            m.iter_mut().zip(g).for_each(|(m, &g)| *m = *m + w * (g - *m));
        } else {
            let v = T::of(1.0 - self.w);
            m.iter_mut().zip(g).for_each(|(m, &g)| *m = g - v * (g - *m));
        }
    }
}

impl InplaceOp2 for Lerp {
    fn name(&self) -> &'static str {
        "optimiser-lerp"
    }

    fn cpu_fwd(
        &self,
        m: &mut CpuStorage,
        lm: &Layout,
        g: &CpuStorage,
        lg: &Layout,
    ) -> candle_core::Result<()> {
        match (m, g) {
            (CpuStorage::F32(m), CpuStorage::F32(g)) => {
                parts2(&mut m[range(lm)?], &g[range(lg)?], |x, y| self.run(x, y))
            }
            (CpuStorage::F64(m), CpuStorage::F64(g)) => {
                parts2(&mut m[range(lm)?], &g[range(lg)?], |x, y| self.run(x, y))
            }
            _ => bail!("optimiser pass: unequal dtypes"),
        }
        Ok(())
    }
}

/// `m <- mu m + scale (g + decay p)`.
struct Momentum {
    mu: f64,
    scale: f64,
    decay: f64,
}

impl Momentum {
    fn run<T: Real>(&self, m: &mut [T], p: &[T], g: &[T]) {
        let (mu, scale, decay) = (T::of(self.mu), T::of(self.scale), T::of(self.decay));
        for ((m, &p), &g) in m.iter_mut().zip(p).zip(g) {
            *m = mu * *m + scale * (g + decay * p);
        }
    }
}

impl InplaceOp3 for Momentum {
    fn name(&self) -> &'static str {
        "optimiser-momentum"
    }

    fn cpu_fwd(
        &self,
        m: &mut CpuStorage,
        lm: &Layout,
        p: &CpuStorage,
        lp: &Layout,
        g: &CpuStorage,
        lg: &Layout,
    ) -> candle_core::Result<()> {
        match (m, p, g) {
            (CpuStorage::F32(m), CpuStorage::F32(p), CpuStorage::F32(g)) => {
                parts3(&mut m[range(lm)?], &p[range(lp)?], &g[range(lg)?], |x, y, z| self.run(x, y, z));
            }
            (CpuStorage::F64(m), CpuStorage::F64(p), CpuStorage::F64(g)) => {
                parts3(&mut m[range(lm)?], &p[range(lp)?], &g[range(lg)?], |x, y, z| self.run(x, y, z));
            }
            _ => bail!("optimiser pass: unequal dtypes"),
        }
        Ok(())
    }
}

/// `p <- p - lr (scale (g + decay p) + mu m)`: Nesterov's step.
struct Nesterov {
    lr: f64,
    mu: f64,
    scale: f64,
    decay: f64,
}

impl Nesterov {
    fn run<T: Real>(&self, p: &mut [T], m: &[T], g: &[T]) {
        let (lr, mu) = (T::of(self.lr), T::of(self.mu));
        let (scale, decay) = (T::of(self.scale), T::of(self.decay));
        for ((p, &m), &g) in p.iter_mut().zip(m).zip(g) {
            *p = *p - lr * (scale * (g + decay * *p) + mu * m);
        }
    }
}

impl InplaceOp3 for Nesterov {
    fn name(&self) -> &'static str {
        "optimiser-nesterov"
    }

    fn cpu_fwd(
        &self,
        p: &mut CpuStorage,
        lp: &Layout,
        m: &CpuStorage,
        lm: &Layout,
        g: &CpuStorage,
        lg: &Layout,
    ) -> candle_core::Result<()> {
        match (p, m, g) {
            (CpuStorage::F32(p), CpuStorage::F32(m), CpuStorage::F32(g)) => {
                parts3(&mut p[range(lp)?], &m[range(lm)?], &g[range(lg)?], |x, y, z| self.run(x, y, z));
            }
            (CpuStorage::F64(p), CpuStorage::F64(m), CpuStorage::F64(g)) => {
                parts3(&mut p[range(lp)?], &m[range(lm)?], &g[range(lg)?], |x, y, z| self.run(x, y, z));
            }
            _ => bail!("optimiser pass: unequal dtypes"),
        }
        Ok(())
    }
}

/// `p <- keep p - step m / (sqrt(v) / root + eps)`.
struct AdamStep {
    keep: f64,
    step: f64,
    root: f64,
    eps: f64,
}

impl AdamStep {
    fn run<T: Real>(&self, p: &mut [T], m: &[T], v: &[T]) {
        let (keep, step) = (T::of(self.keep), T::of(self.step));
        let (root, eps) = (T::of(self.root), T::of(self.eps));
        for ((p, &m), &v) in p.iter_mut().zip(m).zip(v) {
            *p = keep * *p - step * m / (v.root() / root + eps);
        }
    }
}

impl InplaceOp3 for AdamStep {
    fn name(&self) -> &'static str {
        "optimiser-adam"
    }

    fn cpu_fwd(
        &self,
        p: &mut CpuStorage,
        lp: &Layout,
        m: &CpuStorage,
        lm: &Layout,
        v: &CpuStorage,
        lv: &Layout,
    ) -> candle_core::Result<()> {
        match (p, m, v) {
            (CpuStorage::F32(p), CpuStorage::F32(m), CpuStorage::F32(v)) => {
                parts3(&mut p[range(lp)?], &m[range(lm)?], &v[range(lv)?], |x, y, z| self.run(x, y, z));
            }
            (CpuStorage::F64(p), CpuStorage::F64(m), CpuStorage::F64(v)) => {
                parts3(&mut p[range(lp)?], &m[range(lm)?], &v[range(lv)?], |x, y, z| self.run(x, y, z));
            }
            _ => bail!("optimiser pass: unequal dtypes"),
        }
        Ok(())
    }
}

/// Writes `value` into the storage of `x`.
fn overwrite(x: &Tensor, value: &Tensor) -> Result<()> {
    // Flattening a contiguous tensor shares its storage; scalars get a dimension that way.
    Ok(x.flatten_all()?.slice_set(&value.flatten_all()?.contiguous()?, 0, 0)?)
}

/// `x <- decay x + a y`.
pub(crate) fn axpy(x: &Tensor, decay: f64, a: f64, y: &Tensor) -> Result<()> {
    if fast(x) {
        return Ok(x.inplace_op2(&y.contiguous()?, &Axpy { decay, a, square: false })?);
    }
    overwrite(x, &((x * decay)? + (y * a)?)?)
}

/// `v <- decay v + a g^2`.
pub(crate) fn axpy_square(v: &Tensor, decay: f64, a: f64, g: &Tensor) -> Result<()> {
    if fast(v) {
        return Ok(v.inplace_op2(&g.contiguous()?, &Axpy { decay, a, square: true })?);
    }
    overwrite(v, &((v * decay)? + (g.sqr()? * a)?)?)
}

/// `m <- m + w (g - m)`.
pub(crate) fn lerp(m: &Tensor, w: f64, g: &Tensor) -> Result<()> {
    if fast(m) {
        return Ok(m.inplace_op2(&g.contiguous()?, &Lerp { w })?);
    }
    overwrite(m, &((m * (1.0 - w))? + (g * w)?)?)
}

/// `m <- mu m + scale (g + decay p)`.
pub(crate) fn momentum(m: &Tensor, mu: f64, scale: f64, decay: f64, p: &Tensor, g: &Tensor) -> Result<()> {
    if fast(m) {
        return Ok(m.inplace_op3(p, &g.contiguous()?, &Momentum { mu, scale, decay })?);
    }
    overwrite(m, &((m * mu)? + ((g + (p * decay)?)? * scale)?)?)
}

/// `p <- p - lr (scale (g + decay p) + mu m)`.
pub(crate) fn nesterov(
    p: &Tensor,
    lr: f64,
    mu: f64,
    scale: f64,
    decay: f64,
    m: &Tensor,
    g: &Tensor,
) -> Result<()> {
    if fast(p) {
        return Ok(p.inplace_op3(m, &g.contiguous()?, &Nesterov { lr, mu, scale, decay })?);
    }
    let d = (((g + (p * decay)?)? * scale)? + (m * mu)?)?;
    overwrite(p, &(p - (d * lr)?)?)
}

/// `p <- keep p - step m / (sqrt(v) / root + eps)`.
pub(crate) fn adam_step(
    p: &Tensor,
    keep: f64,
    step: f64,
    root: f64,
    eps: f64,
    m: &Tensor,
    v: &Tensor,
) -> Result<()> {
    if fast(p) {
        return Ok(p.inplace_op3(m, v, &AdamStep { keep, step, root, eps })?);
    }
    let denominator = ((v.sqrt()? / root)? + eps)?;
    overwrite(p, &((p * keep)? - ((m / denominator)? * step)?)?)
}

/// `sum (g + decay p)^2`, summed in f64 in eight fixed lanes; `p` is not read if `decay` is 0.
pub(crate) fn sum_squares(g: &Tensor, decay: f64, p: &Tensor) -> Result<f64> {
    if g.device().is_cpu() && matches!(g.dtype(), DType::F32 | DType::F64) && g.dtype() == p.dtype() {
        let (g, p) = (g.contiguous()?, p.contiguous()?);
        let (gs, gl) = g.storage_and_layout();
        let (ps, pl) = p.storage_and_layout();
        if let (Storage::Cpu(gs), Storage::Cpu(ps)) = (&*gs, &*ps) {
            match (gs, ps) {
                (CpuStorage::F32(g), CpuStorage::F32(p)) => {
                    return Ok(lanes(
                        &g[range(gl)?],
                        decay as f32,
                        p.get(range(pl)?).filter(|_| decay != 0.0),
                        f64::from,
                    ));
                }
                (CpuStorage::F64(g), CpuStorage::F64(p)) => {
                    return Ok(lanes(
                        &g[range(gl)?],
                        decay,
                        p.get(range(pl)?).filter(|_| decay != 0.0),
                        |x| x,
                    ));
                }
                _ => {}
            }
        }
    }
    let wide = if g.device().is_metal() { DType::F32 } else { DType::F64 };
    let g = g.to_dtype(wide)?;
    let g = if decay == 0.0 { g } else { (g + (p.to_dtype(wide)? * decay)?)? };
    Ok(g.sqr()?.sum_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?)
}

fn lanes<T: Real>(g: &[T], decay: T, p: Option<&[T]>, wide: impl Fn(T) -> f64) -> f64 {
    let mut sums = [0f64; 8];
    let add = |sum: &mut f64, x: T| {
        let x = wide(x);
        *sum += x * x;
    };
    match p {
        None => {
            let (blocks, rest) = g.as_chunks::<8>();
            for block in blocks {
                sums.iter_mut().zip(block).for_each(|(sum, &g)| add(sum, g));
            }
            sums.iter_mut().zip(rest).for_each(|(sum, &g)| add(sum, g));
        }
        Some(p) => {
            for (g, p) in g.chunks(8).zip(p.chunks(8)) {
                for ((sum, &g), &p) in sums.iter_mut().zip(g).zip(p) {
                    add(sum, g + decay * p);
                }
            }
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};
    use infomax_testing::{Tolerance, assert_close, spread};

    /// Runs a pass on a contiguous f64 tensor (fast) and on a BF16 one (composed).
    fn both(f: impl Fn(&Tensor, &Tensor, &Tensor) -> Result<()>) {
        let make = |seed, dtype| {
            let x = (spread(&[5, 7], seed, 1.0).abs().unwrap() + 0.1).unwrap();
            x.to_dtype(DType::BF16).unwrap().to_dtype(dtype).unwrap()
        };
        let run = |dtype| {
            let x = make(1, dtype);
            f(&x, &make(2, dtype), &make(3, dtype)).unwrap();
            x.to_dtype(DType::F64).unwrap()
        };
        let (exact, composed) = (run(DType::F64), run(DType::BF16));
        assert_close("fast and composed", &composed, &exact, Tolerance { rel: 3e-2, abs: 0.0 });
        assert_close("f32", &run(DType::F32), &exact, Tolerance { rel: 1e-6, abs: 0.0 });
        let before = make(1, DType::F64);
        let moved = (exact - before).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
        assert!(moved > 1e-3, "the pass changed nothing");
    }

    #[test]
    fn fast_passes_match_the_composed_ones() {
        both(|x, y, _| axpy(x, 0.9, 0.5, y));
        both(|x, y, _| axpy(x, 1.0, -0.5, y));
        both(|x, y, _| axpy_square(x, 0.9, 0.5, y));
        both(|x, y, _| lerp(x, 0.1, y));
        both(|x, y, _| lerp(x, 0.7, y));
        both(|x, y, z| momentum(x, 0.9, 0.3, 0.2, y, z));
        both(|x, y, z| nesterov(x, 0.5, 0.9, 0.3, 0.2, y, z));
        both(|x, y, z| adam_step(x, 0.9, 0.3, 0.8, 1e-3, y, z));
    }

    #[test]
    fn long_passes_reach_every_element() {
        let n = 3 * TASK + 5;
        let ramp = Tensor::arange(0f32, n as f32, &Device::Cpu).unwrap();
        let (x, m) = (ramp.copy().unwrap(), ramp.copy().unwrap());
        axpy(&x, 1.0, -1.0, &ramp).unwrap();
        momentum(&m, 0.0, 1.0, 1.0, &ramp, &ramp).unwrap();
        assert!(x.to_vec1::<f32>().unwrap().iter().all(|x| *x == 0.0));
        assert_eq!(m.to_vec1::<f32>().unwrap(), (ramp * 2.0).unwrap().to_vec1::<f32>().unwrap());
    }

    #[test]
    fn strided_gradients_are_read_in_order() {
        let x = Tensor::zeros((2, 3), DType::F64, &Device::Cpu).unwrap();
        let y = Tensor::arange(0f64, 6., &Device::Cpu).unwrap().reshape((3, 2)).unwrap().t().unwrap();
        axpy(&x, 1.0, 1.0, &y).unwrap();
        assert_eq!(x.to_vec2::<f64>().unwrap(), [[0., 2., 4.], [1., 3., 5.]]);
        assert_eq!(sum_squares(&y, 0.0, &x).unwrap(), 55.0);
        assert_eq!(sum_squares(&y, 1.0, &x).unwrap(), 220.0);
    }

    #[test]
    fn sums_of_squares_do_not_overflow_f32() {
        let g = Tensor::full(1e30f32, 100, &Device::Cpu).unwrap();
        let norm = sum_squares(&g, 0.0, &g).unwrap().sqrt();
        assert!((norm / 1e31 - 1.0).abs() < 1e-6, "{norm}");
    }
}
