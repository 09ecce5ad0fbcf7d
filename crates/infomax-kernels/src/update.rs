//! The passes of optimizers over memory, in place: `x` is changed, `y` and `z` are read. On contiguous f32 and
//! f64 tensors of the CPU one loop, and the same formula as composed Candle operations for every other device
//! and dtype.
//!
//! Elements are independent, so that long passes are split over threads: one thread does not fill the bus to
//! memory. Sums stay sequential: one order gives one result.

use candle_core::{CpuStorage, DType, Device, InplaceOp2, InplaceOp3, Layout, Result, Storage, Tensor, bail};
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
    crate::has_cpu_kernels(x) && x.is_contiguous()
}

fn range(layout: &Layout) -> Result<std::ops::Range<usize>> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(from..to),
        None => bail!("optimizer pass: tensors must be contiguous"),
    }
}

/// Elements of one task.
const TASK: usize = 1 << 16;

/// What a pass does with each element.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// `x <- decay x + a y`.
    Axpy { decay: f64, a: f64 },
    /// `x <- decay x + a y^2`: Adam's second moment.
    AxpySquare { decay: f64, a: f64 },
    /// `x <- x + w (y - x)`: PyTorch's `lerp`, in its order of operations.
    Lerp { w: f64 },
    /// `x <- mu x + scale (z + decay y)`: a momentum `x` of the parameter `y` with the gradient `z`.
    Momentum { mu: f64, scale: f64, decay: f64 },
    /// `x <- x - lr (scale (z + decay x) + mu y)`: Nesterov's step with the momentum `y` and the gradient `z`.
    Nesterov { lr: f64, mu: f64, scale: f64, decay: f64 },
    /// `x <- keep x - step y / (sqrt(z) / root + eps)`: Adam's step with both moments.
    Adam { keep: f64, step: f64, root: f64, eps: f64 },
}

impl Rule {
    /// One part of the elements; rules of two arguments ignore `z`.
    fn part<T: Real>(self, x: &mut [T], y: &[T], z: &[T]) {
        let of = T::of;
        match self {
            Self::Axpy { decay: 1.0, a } => each(x, y, z, |x, y, _| x + of(a) * y),
            Self::Axpy { decay, a } => each(x, y, z, |x, y, _| of(decay) * x + of(a) * y),
            Self::AxpySquare { decay, a } => each(x, y, z, |x, y, _| of(decay) * x + of(a) * y * y),
            Self::Lerp { w } if w < 0.5 => each(x, y, z, |x, y, _| x + of(w) * (y - x)),
            // This form is exact at w = 1.
            Self::Lerp { w } => each(x, y, z, |x, y, _| y - of(1.0 - w) * (y - x)),
            Self::Momentum { mu, scale, decay } => {
                each(x, y, z, |m, p, g| of(mu) * m + of(scale) * (g + of(decay) * p));
            }
            Self::Nesterov { lr, mu, scale, decay } => {
                each(x, y, z, |p, m, g| p - of(lr) * (of(scale) * (g + of(decay) * p) + of(mu) * m));
            }
            Self::Adam { keep, step, root, eps } => {
                each(x, y, z, |p, m, v| of(keep) * p - of(step) * m / (v.root() / of(root) + of(eps)));
            }
        }
    }

    fn run<T: Real>(self, x: &mut [T], y: &[T], z: &[T]) {
        if x.len() <= TASK {
            return self.part(x, y, z);
        }
        let yz = y.par_chunks(TASK).zip(z.par_chunks(TASK));
        x.par_chunks_mut(TASK).zip(yz).for_each(|(x, (y, z))| self.part(x, y, z));
    }

    fn apply(
        self,
        x: (&mut CpuStorage, &Layout),
        y: (&CpuStorage, &Layout),
        z: (&CpuStorage, &Layout),
    ) -> Result<()> {
        let (rx, ry, rz) = (range(x.1)?, range(y.1)?, range(z.1)?);
        match (x.0, y.0, z.0) {
            (CpuStorage::F32(x), CpuStorage::F32(y), CpuStorage::F32(z)) => {
                self.run(&mut x[rx], &y[ry], &z[rz])
            }
            (CpuStorage::F64(x), CpuStorage::F64(y), CpuStorage::F64(z)) => {
                self.run(&mut x[rx], &y[ry], &z[rz])
            }
            _ => bail!("optimizer pass: unequal dtypes"),
        }
        Ok(())
    }
}

#[inline(always)]
fn each<T: Real>(x: &mut [T], y: &[T], z: &[T], f: impl Fn(T, T, T) -> T) {
    for ((x, &y), &z) in x.iter_mut().zip(y).zip(z) {
        *x = f(*x, y, z);
    }
}

impl InplaceOp2 for Rule {
    fn name(&self) -> &'static str {
        "optimizer-pass"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, lx: &Layout, y: &CpuStorage, ly: &Layout) -> Result<()> {
        self.apply((x, lx), (y, ly), (y, ly))
    }
}

impl InplaceOp3 for Rule {
    fn name(&self) -> &'static str {
        "optimizer-pass"
    }

    fn cpu_fwd(
        &self,
        x: &mut CpuStorage,
        lx: &Layout,
        y: &CpuStorage,
        ly: &Layout,
        z: &CpuStorage,
        lz: &Layout,
    ) -> Result<()> {
        self.apply((x, lx), (y, ly), (z, lz))
    }
}

/// Writes `value` into the storage of `x`.
fn overwrite(x: &Tensor, value: &Tensor) -> Result<()> {
    // Flattening a contiguous tensor shares its storage; scalars get a dimension that way.
    x.flatten_all()?.slice_set(&value.flatten_all()?.contiguous()?, 0, 0)
}

/// `x <- decay x + a y`.
///
/// # Errors
/// Tensors of unequal shape or type, or an `x` that is not contiguous.
pub fn axpy(x: &Tensor, decay: f64, a: f64, y: &Tensor) -> Result<()> {
    if fast(x) {
        return x.inplace_op2(&y.contiguous()?, &Rule::Axpy { decay, a });
    }
    overwrite(x, &((x * decay)? + (y * a)?)?)
}

/// `v <- decay v + a g^2`.
///
/// # Errors
/// Tensors of unequal shape or type, or an `x` that is not contiguous.
pub fn axpy_square(v: &Tensor, decay: f64, a: f64, g: &Tensor) -> Result<()> {
    if fast(v) {
        return v.inplace_op2(&g.contiguous()?, &Rule::AxpySquare { decay, a });
    }
    overwrite(v, &((v * decay)? + (g.sqr()? * a)?)?)
}

/// `m <- m + w (g - m)`.
///
/// # Errors
/// Tensors of unequal shape or type, or an `x` that is not contiguous.
pub fn lerp(m: &Tensor, w: f64, g: &Tensor) -> Result<()> {
    if fast(m) {
        return m.inplace_op2(&g.contiguous()?, &Rule::Lerp { w });
    }
    overwrite(m, &((m * (1.0 - w))? + (g * w)?)?)
}

/// `m <- mu m + scale (g + decay p)`.
///
/// # Errors
/// Tensors of unequal shape or type, or an `x` that is not contiguous.
pub fn momentum(m: &Tensor, mu: f64, scale: f64, decay: f64, p: &Tensor, g: &Tensor) -> Result<()> {
    if fast(m) {
        return m.inplace_op3(p, &g.contiguous()?, &Rule::Momentum { mu, scale, decay });
    }
    overwrite(m, &((m * mu)? + ((g + (p * decay)?)? * scale)?)?)
}

/// `p <- p - lr (scale (g + decay p) + mu m)`.
///
/// # Errors
/// Tensors of unequal shape or type, or an `x` that is not contiguous.
pub fn nesterov(p: &Tensor, lr: f64, mu: f64, scale: f64, decay: f64, m: &Tensor, g: &Tensor) -> Result<()> {
    if fast(p) {
        return p.inplace_op3(m, &g.contiguous()?, &Rule::Nesterov { lr, mu, scale, decay });
    }
    let d = (((g + (p * decay)?)? * scale)? + (m * mu)?)?;
    overwrite(p, &(p - (d * lr)?)?)
}

/// `p <- keep p - step m / (sqrt(v) / root + eps)`.
///
/// # Errors
/// Tensors of unequal shape or type, or an `x` that is not contiguous.
pub fn adam_step(
    p: &Tensor,
    keep: f64,
    step: f64,
    root: f64,
    eps: f64,
    m: &Tensor,
    v: &Tensor,
) -> Result<()> {
    if fast(p) {
        return p.inplace_op3(m, v, &Rule::Adam { keep, step, root, eps });
    }
    let denominator = ((v.sqrt()? / root)? + eps)?;
    overwrite(p, &((p * keep)? - ((m / denominator)? * step)?)?)
}

/// `sum (g + decay p)^2`, summed in f64 in eight fixed lanes; `p` is not read if `decay` is 0.
///
/// # Errors
/// Tensors of unequal shape or type.
pub fn sum_squares(g: &Tensor, decay: f64, p: &Tensor) -> Result<f64> {
    if crate::has_cpu_kernels(g) && g.dtype() == p.dtype() {
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
    composed_sum(g, decay, p)?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_scalar::<f64>()
}

/// [`sum_squares`] on the device of the tensors: in f64, or f32 on Metal, which has no f64.
fn composed_sum(g: &Tensor, decay: f64, p: &Tensor) -> Result<Tensor> {
    let wide = if g.device().is_metal() { DType::F32 } else { DType::F64 };
    let g = g.to_dtype(wide)?;
    let g = if decay == 0.0 { g } else { (g + (p.to_dtype(wide)? * decay)?)? };
    g.sqr()?.sum_all()
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

mod newton_schulz;
mod steps;
pub use newton_schulz::newton_schulz;
pub use steps::{Lamb, Slot, adamw_step, lamb_step, sgd_step, sums_of_squares};

#[cfg(test)]
mod tests {
    use super::*;
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
