//! The distance between empirical characteristic functions and a symmetric target, on an equispaced grid.

use crate::moments::columns::matrix;
use crate::tensor::path::Path;
use crate::tensor::storage::{contiguous, result, tensor};
use crate::{Error, Result, device};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};
use infomax_simd::Arith;
use infomax_simd::elementary::Elementary;
use infomax_simd::{Isa, Kernel, Shared, Simd, filled};
use rayon::prelude::*;

/// Columns of one task.
const WIDTH: usize = 64;
/// Columns that turn together.
const GROUP: usize = 16;
/// Rows whose terms are added in the type of the input before they go to f64.
const RUN: usize = 64;

/// `n sum_q w_q [(mean_i cos(q step y_ij) - target_q)^2 + (mean_i sin(q step y_ij))^2]` for every column of `y`
/// `(n, m)`: shape `(m)`, differentiable.
///
/// # Numerics
/// One cosine and one sine an element; the other points of the grid follow by rotation. In f32 the sums of 64
/// rows are added in f64. The same bits for any number of threads.
///
/// # Errors
/// Anything but a matrix with elements; numbers of targets and weights that differ, or are zero.
pub fn characteristic_error(y: &Tensor, step: f64, targets: &[f64], weights: &[f64]) -> Result<Tensor> {
    error(y, step, targets, weights, Isa::detect(), None)
}

/// [`characteristic_error`] of the rows of several processes together, `n` and the means being those of all of them: the
/// same numbers on each of `processes`. On the CPU only.
///
/// The gradient is that of the sum over the processes of what each differentiates, where all make the same of it: as many
/// times that of one process on all rows as there are processes. `sum` replaces numbers by their sums over the
/// processes: it is called once, for `2 m` numbers for each point of the grid and one more; nothing is exchanged backward.
///
/// # Errors
/// As [`characteristic_error`]; another device; errors of the transport.
pub fn characteristic_error_over(
    y: &Tensor,
    step: f64,
    targets: &[f64],
    weights: &[f64],
    processes: usize,
    sum: Sum<'_>,
) -> Result<Tensor> {
    error(y, step, targets, weights, Isa::detect(), Some((processes, sum)))
}

/// Replaces numbers by their sums over processes.
type Sum<'a> = &'a dyn Fn(&mut [f64]) -> candle_core::Result<()>;

#[cfg(test)]
pub(crate) fn characteristic_error_isa(
    y: &Tensor,
    step: f64,
    targets: &[f64],
    weights: &[f64],
    isa: Isa,
) -> Result<Tensor> {
    error(y, step, targets, weights, isa, None)
}

fn error(
    y: &Tensor,
    step: f64,
    targets: &[f64],
    weights: &[f64],
    isa: Isa,
    shared: Option<(usize, Sum<'_>)>,
) -> Result<Tensor> {
    const OP: &str = "characteristic_error";
    let (n, m) = matrix(OP, y)?;
    if targets.is_empty() || targets.len() != weights.len() {
        let expected = "as many numbers as targets, at least one".into();
        return Err(Error::Shape {
            op: OP,
            name: "weights",
            expected,
            got: vec![targets.len(), weights.len()],
        });
    }
    let Path::Cpu(_) = Path::of(y) else {
        if shared.is_some() {
            return Err(Error::Config {
                op: OP,
                name: "processes",
                value: format!("{:?}", y.device().location()),
                reason: "the form of several processes is that of the CPU",
            });
        }
        return device::characteristic_error(y, step, targets, weights);
    };
    let y = contiguous(y)?;
    let grid = Grid { n, m, step, targets: targets.to_vec(), weights: weights.to_vec(), isa };
    let (mut cosines, mut sines) = match y.dtype() {
        DType::F64 => result(&[&y], |v: &[&[f64]]| grid.means(v[0]))?,
        _ => result(&[&y], |v: &[&[f32]]| grid.means(v[0]))?,
    };
    let mut op = CharacteristicError { grid, count: n as f64, factor: 1.0, cosines: vec![], sines: vec![] };
    if let Some((processes, sum)) = shared {
        (op.count, op.factor) = (joined(sum, n, &mut cosines, &mut sines)?, processes as f64);
    }
    (op.cosines, op.sines) = (cosines, sines);
    Ok(y.apply_op1(op)?)
}

/// Makes the errors of the means those of the rows of all processes, and returns their number.
fn joined(sum: Sum<'_>, n: usize, cosines: &mut [f64], sines: &mut [f64]) -> Result<f64> {
    // The targets are the same everywhere, so that the errors are averaged as the means are.
    let mut message: Vec<f64> = cosines.iter().chain(&*sines).map(|error| error * n as f64).collect();
    message.push(n as f64);
    sum(&mut message)?;
    let count = message.pop().unwrap_or(n as f64);
    for (to, sum) in cosines.iter_mut().chain(sines).zip(message) {
        *to = sum / count;
    }
    Ok(count)
}

struct Grid {
    n: usize,
    m: usize,
    step: f64,
    targets: Vec<f64>,
    weights: Vec<f64>,
    isa: Isa,
}

impl Grid {
    /// `mean_i cos - target` and `mean_i sin`, points in order for one column after the other.
    fn means<T: Elementary>(&self, y: &[T]) -> (Vec<f64>, Vec<f64>) {
        let points = self.targets.len();
        let (mut cosines, mut sines) = (vec![0f64; points * self.m], vec![0f64; points * self.m]);
        cosines
            .par_chunks_mut(points * WIDTH)
            .zip(sines.par_chunks_mut(points * WIDTH))
            .enumerate()
            .for_each(|(block, (cosines, sines))| {
                T::dispatch(self.isa, Means { grid: self, y, first: block * WIDTH, cosines, sines });
            });
        (cosines, sines)
    }
}

/// The first point of the grid beside 0, of the columns of a block in one row.
struct Turn<T> {
    cos: [T; WIDTH],
    sin: [T; WIDTH],
}

impl<T: Elementary> Turn<T> {
    #[inline(always)]
    fn new() -> Self {
        Self { cos: [T::default(); WIDTH], sin: [T::default(); WIDTH] }
    }

    #[inline(always)]
    fn start<A: Arith>(&mut self, row: &[T], step: f64) {
        let width = row.len();
        let t = T::of(step);
        let mut far = false;
        for j in 0..width {
            let angle = row[j] * t;
            let (c, s) = angle.cos_sin::<A>();
            self.cos[j] = c;
            self.sin[j] = s;
            far |= angle > T::of(T::REACH) || angle < T::of(-T::REACH);
        }
        if far {
            for j in 0..width {
                let (s, c) = (row[j].f64() * step).sin_cos();
                self.cos[j] = T::of(c);
                self.sin[j] = T::of(s);
            }
        }
    }
}

struct Means<'a, T> {
    grid: &'a Grid,
    y: &'a [T],
    first: usize,
    cosines: &'a mut [f64],
    sines: &'a mut [f64],
}

impl<T: Elementary> Kernel<T> for Means<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        self.with::<S::Arith>()
    }
}

impl<T: Elementary> Means<'_, T> {
    #[inline(always)]
    fn with<A: Arith>(self) {
        let (n, m, points) = (self.grid.n, self.grid.m, self.grid.targets.len());
        let width = self.cosines.len() / points;
        let mut turn = Turn::new();
        let mut sums = vec![([T::default(); WIDTH], [T::default(); WIDTH]); points];
        for from in (0..n).step_by(RUN) {
            for sum in &mut sums {
                *sum = ([T::default(); WIDTH], [T::default(); WIDTH]);
            }
            for i in from..(from + RUN).min(n) {
                turn.start::<A>(&self.y[i * m + self.first..][..width], self.grid.step);
                for g in (0..WIDTH).step_by(GROUP) {
                    let mut c = [T::of(1.0); GROUP];
                    let mut s = [T::default(); GROUP];
                    for (cosines, sines) in &mut sums {
                        for l in 0..GROUP {
                            cosines[g + l] += c[l];
                            sines[g + l] += s[l];
                            let (a, b) = (turn.cos[g + l], turn.sin[g + l]);
                            (c[l], s[l]) = (c[l] * a - s[l] * b, s[l] * a + c[l] * b);
                        }
                    }
                }
            }
            for (q, (cosines, sines)) in sums.iter().enumerate() {
                for j in 0..width {
                    self.cosines[j * points + q] += cosines[j].f64();
                    self.sines[j * points + q] += sines[j].f64();
                }
            }
        }
        for j in 0..width {
            for q in 0..points {
                let at = j * points + q;
                self.cosines[at] = self.cosines[at] / n as f64 - self.grid.targets[q];
                self.sines[at] /= n as f64;
            }
        }
    }
}

/// `dy_ij = g_j sum_q 2 w_q t_q [mean sin cos(t_q y_ij) - (mean cos - target) sin(t_q y_ij)]`.
struct Slopes<'a, T> {
    grid: &'a Grid,
    y: &'a [T],
    first: usize,
    width: usize,
    /// The factors of the cosines and of the sines: `WIDTH` columns for each point.
    factors: &'a [([T; WIDTH], [T; WIDTH])],
    out: *mut T,
}

impl<T: Elementary> Kernel<T> for Slopes<'_, T> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd<T = T>>(self) {
        // SAFETY: the columns of the output are this task's alone.
        unsafe { self.with::<S::Arith>() }
    }
}

impl<T: Elementary> Slopes<'_, T> {
    #[inline(always)]
    unsafe fn with<A: Arith>(self) {
        let (n, m) = (self.grid.n, self.grid.m);
        let mut turn = Turn::new();
        let mut slopes = [T::default(); WIDTH];
        for i in 0..n {
            turn.start::<A>(&self.y[i * m + self.first..][..self.width], self.grid.step);
            for g in (0..WIDTH).step_by(GROUP) {
                let mut c = [T::of(1.0); GROUP];
                let mut s = [T::default(); GROUP];
                let mut slope = [T::default(); GROUP];
                for (cosines, sines) in self.factors {
                    for l in 0..GROUP {
                        slope[l] += cosines[g + l] * c[l] + sines[g + l] * s[l];
                        let (a, b) = (turn.cos[g + l], turn.sin[g + l]);
                        (c[l], s[l]) = (c[l] * a - s[l] * b, s[l] * a + c[l] * b);
                    }
                }
                slopes[g..g + GROUP].copy_from_slice(&slope);
            }
            // SAFETY: as the caller promises, in row `i`.
            let out = unsafe { std::slice::from_raw_parts_mut(self.out.add(i * m + self.first), self.width) };
            out.copy_from_slice(&slopes[..self.width]);
        }
    }
}

struct CharacteristicError {
    grid: Grid,
    /// The rows that the means are taken over.
    count: f64,
    /// Of the gradient: the number of processes.
    factor: f64,
    cosines: Vec<f64>,
    sines: Vec<f64>,
}

impl CharacteristicError {
    fn values(&self) -> Vec<f64> {
        let points = self.grid.targets.len();
        let columns = self.cosines.chunks_exact(points).zip(self.sines.chunks_exact(points));
        columns
            .map(|(cosines, sines)| {
                let terms = cosines.iter().zip(sines).zip(&self.grid.weights);
                self.count * terms.map(|((c, s), w)| w * (c * c + s * s)).sum::<f64>()
            })
            .collect()
    }

    fn backward<T: Elementary>(&self, y: &[T], g: &[T]) -> Vec<T> {
        let grid = &self.grid;
        let points = grid.targets.len();
        // SAFETY: the blocks of columns write all elements.
        unsafe {
            filled(grid.n * grid.m, |out: Shared<T>| {
                (0..grid.m.div_ceil(WIDTH)).into_par_iter().for_each(|block| {
                    let first = block * WIDTH;
                    let width = WIDTH.min(grid.m - first);
                    let mut factors = vec![([T::default(); WIDTH], [T::default(); WIDTH]); points];
                    for (q, (cosines, sines)) in factors.iter_mut().enumerate() {
                        let factor = self.factor * 2.0 * grid.weights[q] * grid.step * q as f64;
                        for j in 0..width {
                            let (at, g) = ((first + j) * points + q, g[first + j].f64() * factor);
                            cosines[j] = T::of(g * self.sines[at]);
                            sines[j] = T::of(-g * self.cosines[at]);
                        }
                    }
                    let slopes = Slopes { grid, y, first, width, factors: &factors, out: out.get() };
                    T::dispatch(grid.isa, slopes);
                });
            })
        }
    }
}

impl CustomOp1 for CharacteristicError {
    fn name(&self) -> &'static str {
        "characteristic-error"
    }

    fn cpu_fwd(&self, s: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let values = self.values();
        let storage = match s {
            CpuStorage::F64(_) => CpuStorage::F64(values),
            _ => CpuStorage::F32(values.into_iter().map(|v| v as f32).collect()),
        };
        Ok((storage, Shape::from(self.grid.m)))
    }

    fn bwd(&self, y: &Tensor, _: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let g = g.contiguous()?;
        Ok(Some(match y.dtype() {
            DType::F64 => tensor(result(&[y, &g], |v: &[&[f64]]| self.backward(v[0], v[1]))?, y.shape())?,
            _ => tensor(result(&[y, &g], |v: &[&[f32]]| self.backward(v[0], v[1]))?, y.shape())?,
        }))
    }
}
