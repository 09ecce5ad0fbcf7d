//! Second moments of a batch without a copy of it: [`Columns`] is `X = (Z - shift) diag(scale)` of a matrix
//! `Z` `(n, d)`, formed on the way into the products with it.
//!
//! [`center`], [`gram`], [`second_moment`] and [`variance_covariance`] are differentiable. The methods of [`Columns`] are the pieces
//! of closed-form gradients and carry none themselves.

pub(crate) mod moments;
pub(crate) mod product;
mod regularization;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use crate::tensor::check;
use crate::tensor::path::Path;
use crate::tensor::storage::{self, contiguous, result, tensor};
use crate::{Error, Result, device};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Shape, Tensor};
use infomax_simd::gemm::Map;
use infomax_simd::{Float, Isa};
pub(crate) use product::Side;
use product::{Finish, Matrix};
pub use regularization::variance_covariance;

/// The mean and the sum of squared deviations of every column.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnMoments {
    /// `1/n sum_i z_ij`.
    pub mean: Vec<f64>,
    /// `sum_i (z_ij - mean_j)^2`.
    pub squares: Vec<f64>,
}

/// The moments of the columns of `z` `(n, d)`: two passes, sums in f64 whatever the type.
///
/// # Errors
/// Anything but a matrix with elements.
pub fn column_moments(z: &Tensor) -> Result<ColumnMoments> {
    const OP: &str = "column_moments";
    let (_, d) = matrix(OP, z)?;
    let z = host(z)?;
    let isa = Isa::detect();
    let (mean, squares) = crate::on_the_host(|| match z.dtype() {
        DType::F64 => result(&[&z], |v: &[&[f64]]| moments::moments(v[0], d, isa)),
        _ => result(&[&z], |v: &[&[f32]]| moments::moments(v[0], d, isa)),
    })?;
    Ok(ColumnMoments { mean, squares })
}

/// `x_ij = (z_ij - shift_j) scale_j` of a matrix `(n, d)` on the CPU, never stored.
#[derive(Clone, Debug)]
pub struct Columns {
    z: Tensor,
    shift: Vec<f64>,
    scale: Vec<f64>,
}

/// The last steps of a product `Y` of [`Columns::left`] and [`Columns::right`], in this order.
#[derive(Clone, Debug)]
pub struct Finishing<'a> {
    /// `y_ij *= alpha`.
    pub alpha: f64,
    /// `y_ij += factor_j w_ij` for other columns `W` of the shape of the product.
    pub add: Option<(&'a Columns, Vec<f64>)>,
    /// `y_ij -= project_j x_ij sum_k x_kj y_kj`: the gradient through a normalization of the columns.
    pub project: Option<Vec<f64>>,
    /// `y_ij *= post_j`.
    pub post: Option<Vec<f64>>,
}

impl Default for Finishing<'_> {
    /// Nothing is done.
    fn default() -> Self {
        Self { alpha: 1.0, add: None, project: None, post: None }
    }
}

impl Columns {
    /// `x_ij = (z_ij - shift_j) scale_j`; f32 and f64 on the CPU, others are brought there (half as f32).
    ///
    /// # Errors
    /// Anything but a matrix with elements and vectors of its width.
    pub fn new(z: &Tensor, shift: Vec<f64>, scale: Vec<f64>) -> Result<Self> {
        const OP: &str = "Columns";
        let (_, d) = matrix(OP, z)?;
        for (name, vector) in [("shift", &shift), ("scale", &scale)] {
            if vector.len() != d {
                let expected = format!("{d} numbers, one a column");
                return Err(Error::Shape { op: OP, name, expected, got: vec![vector.len()] });
            }
        }
        Ok(Self { z: host(&z.detach())?, shift, scale })
    }

    /// The matrix as it is.
    ///
    /// # Errors
    /// Anything but a matrix with elements.
    pub fn plain(z: &Tensor) -> Result<Self> {
        let (_, d) = matrix("Columns", z)?;
        Self::new(z, vec![0.0; d], vec![1.0; d])
    }

    /// The centered matrix, with the moments that it took.
    ///
    /// # Errors
    /// Anything but a matrix with elements.
    pub fn centered(z: &Tensor) -> Result<(Self, ColumnMoments)> {
        let moments = column_moments(z)?;
        let d = moments.mean.len();
        Ok((Self::new(z, moments.mean.clone(), vec![1.0; d])?, moments))
    }

    /// The numbers of rows and columns.
    pub fn dims(&self) -> (usize, usize) {
        (self.z.dims()[0], self.z.dims()[1])
    }

    /// The type of the elements: f32 or f64.
    pub fn dtype(&self) -> DType {
        self.z.dtype()
    }

    /// `X X^T` `(n, n)`, detached. The products are taken in the type of the matrix or, with `wide`, in f64,
    /// and the result has that type; partial sums are added in f64 either way.
    ///
    /// # Errors
    /// Those of Candle.
    pub fn gram(&self, wide: bool) -> Result<Tensor> {
        self.symmetric(Side::Rows, wide)
    }

    /// `X^T X` `(d, d)`, as [`Columns::gram`].
    ///
    /// # Errors
    /// Those of Candle.
    pub fn second_moment(&self, wide: bool) -> Result<Tensor> {
        self.symmetric(Side::Columns, wide)
    }

    pub(crate) fn symmetric(&self, side: Side, wide: bool) -> Result<Tensor> {
        let (n, d) = self.dims();
        let size = if side == Side::Rows { n } else { d };
        let isa = Isa::detect();
        let shape = Shape::from((size, size));
        Ok(match (self.dtype(), wide) {
            (DType::F64, _) => {
                let map = self.map::<f64>();
                let values: Vec<f64> = result(&[&self.z], |v: &[&[f64]]| {
                    product::symmetric(Matrix { z: v[0], n, d, map: &map }, side, isa)
                })?;
                tensor(values, &shape)?
            }
            (_, true) => {
                let map = self.map::<f64>();
                let values: Vec<f64> = result(&[&self.z], |v: &[&[f32]]| {
                    product::symmetric(Matrix { z: v[0], n, d, map: &map }, side, isa)
                })?;
                tensor(values, &shape)?
            }
            _ => {
                let map = self.map::<f32>();
                let values: Vec<f32> = result(&[&self.z], |v: &[&[f32]]| {
                    product::symmetric(Matrix { z: v[0], n, d, map: &map }, side, isa)
                })?;
                tensor(values, &shape)?
            }
        })
    }

    /// `M X` for `M` `(m, n)`, finished; detached, of the type of the matrix. In f64 if `M` is.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn left(&self, m: &Tensor, finishing: &Finishing<'_>) -> Result<Tensor> {
        let (rows, inner) = matrix("Columns::left", m)?;
        if inner != self.dims().0 || (finishing.project.is_some() && rows != inner) {
            return Err(Error::Shape {
                op: "Columns::left",
                name: "m",
                expected: format!("(m, {}), square for a projection", self.dims().0),
                got: m.dims().to_vec(),
            });
        }
        self.times(m, rows, self.dims().1, true, finishing)
    }

    /// `X M` for `M` `(d, m)`, finished without a projection; detached, of the type of the matrix.
    ///
    /// # Errors
    /// Shapes that do not fit; a projection.
    pub fn right(&self, m: &Tensor, finishing: &Finishing<'_>) -> Result<Tensor> {
        let (inner, cols) = matrix("Columns::right", m)?;
        if inner != self.dims().1 {
            return Err(Error::Shape {
                op: "Columns::right",
                name: "m",
                expected: format!("({}, m)", self.dims().1),
                got: m.dims().to_vec(),
            });
        }
        if finishing.project.is_some() {
            return Err(Error::Config {
                op: "Columns::right",
                name: "project",
                value: "given".into(),
                reason: "must be None: only products from the left hold whole columns",
            });
        }
        self.times(m, self.dims().0, cols, false, finishing)
    }

    fn times(
        &self,
        m: &Tensor,
        rows: usize,
        cols: usize,
        left: bool,
        finishing: &Finishing<'_>,
    ) -> Result<Tensor> {
        let columns = |name: &'static str, got: Vec<usize>| Error::Shape {
            op: "Columns",
            name,
            expected: format!("({rows}, {cols}) of the type {:?}", self.dtype()),
            got,
        };
        if let Some((w, factors)) = &finishing.add
            && (w.dims() != (rows, cols) || factors.len() != cols || w.dtype() != self.dtype())
        {
            return Err(columns("add", vec![w.dims().0, w.dims().1, factors.len()]));
        }
        for (name, factors) in [("project", &finishing.project), ("post", &finishing.post)] {
            if let Some(factors) = factors
                && factors.len() != cols
            {
                return Err(columns(name, vec![factors.len()]));
            }
        }
        let m = contiguous(&m.detach())?;
        Ok(match (self.dtype(), m.dtype()) {
            (DType::F64, _) => self.times_as::<f64, f64>(&m, rows, cols, left, finishing)?,
            (_, DType::F64) => self.times_as::<f32, f64>(&m, rows, cols, left, finishing)?,
            _ => self.times_as::<f32, f32>(&m, rows, cols, left, finishing)?,
        })
    }

    fn times_as<Z: Float, T: Float>(
        &self,
        m: &Tensor,
        rows: usize,
        cols: usize,
        left: bool,
        finishing: &Finishing<'_>,
    ) -> candle_core::Result<Tensor> {
        let m = m.to_dtype(storage::dtype::<T>())?;
        let isa = Isa::detect();
        let (n, d) = self.dims();
        let map = self.map::<T>();
        let (other, factors) = match &finishing.add {
            Some((w, factors)) => (*w, factors.iter().map(|f| T::of(*f)).collect::<Vec<T>>()),
            None => (self, Vec::new()),
        };
        let other_map = other.map::<T>();
        let post: Option<Vec<T>> = finishing.post.as_ref().map(|p| p.iter().map(|v| T::of(*v)).collect());
        let values = result(&[&m], |v: &[&[T]]| {
            let m = v[0];
            result(&[&self.z, &other.z], |v: &[&[Z]]| {
                let x = Matrix { z: v[0], n, d, map: &map };
                let (wn, wd) = other.dims();
                let w = Matrix { z: v[1], n: wn, d: wd, map: &other_map };
                let finish = Finish {
                    alpha: finishing.alpha,
                    add: finishing.add.is_some().then_some((w, factors.as_slice())),
                    project: finishing.project.as_deref(),
                    post: post.as_deref(),
                };
                if left {
                    product::left(m, rows, x, &finish, isa)
                } else {
                    product::right(x, m, cols, &finish, isa)
                }
            })
        })??;
        tensor(values, &Shape::from((rows, cols)))
    }

    /// `sum_i x_ij w_ij` of every column, in f64, with other columns of the same shape.
    ///
    /// # Errors
    /// Shapes or types that differ.
    pub fn dot_columns(&self, other: &Self) -> Result<Vec<f64>> {
        if self.dims() != other.dims() || self.dtype() != other.dtype() {
            return Err(Error::Shape {
                op: "Columns::dot_columns",
                name: "other",
                expected: format!("{:?} of the type {:?}", self.dims(), self.dtype()),
                got: vec![other.dims().0, other.dims().1],
            });
        }
        let (_, d) = self.dims();
        let isa = Isa::detect();
        let maps = (self.map::<f64>(), other.map::<f64>());
        Ok(match self.dtype() {
            DType::F64 => result(&[&self.z, &other.z], |v: &[&[f64]]| {
                moments::dot_columns(v[0], v[1], d, (&maps.0, &maps.1), isa)
            })?,
            _ => result(&[&self.z, &other.z], |v: &[&[f32]]| {
                moments::dot_columns(v[0], v[1], d, (&maps.0, &maps.1), isa)
            })?,
        })
    }

    /// `post_j (g_ij - project_j x_ij sum_k x_kj g_kj)` of a gradient `G` of the shape of `X`, detached: the last
    /// steps of [`Columns::left`] alone.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn through_normalization(&self, g: &Tensor, project: &[f64], post: &[f64]) -> Result<Tensor> {
        let (_, d) = self.dims();
        let grad = Self::plain(g)?;
        let dots = self.dot_columns(&grad)?;
        if project.len() != d || post.len() != d {
            return Err(Error::Shape {
                op: "Columns::through_normalization",
                name: "project, post",
                expected: format!("{d} numbers each"),
                got: vec![project.len(), post.len()],
            });
        }
        fn run<Z: Float>(x: &Columns, g: &Tensor, dots: &[f64], post: &[f64]) -> candle_core::Result<Tensor> {
            let (n, d) = x.dims();
            let map = x.map::<Z>();
            let (dots, post): (Vec<Z>, Vec<Z>) =
                (dots.iter().map(|v| Z::of(*v)).collect(), post.iter().map(|v| Z::of(*v)).collect());
            let values = result(&[&x.z, g], |v: &[&[Z]]| {
                // SAFETY: every row is written.
                unsafe {
                    infomax_simd::filled(n * d, |out| {
                        moments::by_rows(n, d, out, |i, row| {
                            map.row(0, &v[0][i * d..][..d], row);
                            for (j, y) in row.iter_mut().enumerate() {
                                *y = post[j] * (v[1][i * d + j] - *y * dots[j]);
                            }
                        });
                    })
                }
            })?;
            tensor(values, x.z.shape())
        }
        let dots: Vec<f64> = dots.iter().zip(project).map(|(d, p)| d * p).collect();
        Ok(match self.dtype() {
            DType::F64 => run::<f64>(self, &grad.z, &dots, post)?,
            _ => run::<f32>(self, &grad.z, &dots, post)?,
        })
    }

    /// `X` itself, detached.
    ///
    /// # Errors
    /// Those of Candle.
    pub fn to_tensor(&self) -> Result<Tensor> {
        fn run<Z: Float>(x: &Columns) -> candle_core::Result<Tensor> {
            let (n, d) = x.dims();
            let map = x.map::<Z>();
            let values = result(&[&x.z], |v: &[&[Z]]| {
                // SAFETY: every row is written.
                unsafe {
                    infomax_simd::filled(n * d, |out| {
                        moments::by_rows(n, d, out, |i, row| map.row(0, &v[0][i * d..][..d], row));
                    })
                }
            })?;
            tensor(values, x.z.shape())
        }
        Ok(match self.dtype() {
            DType::F64 => run::<f64>(self)?,
            _ => run::<f32>(self)?,
        })
    }

    fn map<T: Float>(&self) -> Map<T> {
        Map::new(&self.shift, &self.scale)
    }
}

/// The sum of the squares of all elements, in f64; with `other`, the sum of the products.
///
/// # Errors
/// Shapes or types that differ.
pub fn inner_product(a: &Tensor, b: &Tensor) -> Result<f64> {
    fn run<T: Float>(a: &Tensor, b: &Tensor) -> candle_core::Result<f64> {
        struct Dot<'a, T>(&'a [T], &'a [T]);
        impl<T: Float> infomax_simd::Kernel<T> for Dot<'_, T> {
            type Out = f64;
            #[inline(always)]
            unsafe fn run<S: infomax_simd::Simd<T = T>>(self) -> f64 {
                let mut lanes = [0f64; 16];
                let (a, b) = (self.0.chunks_exact(16), self.1.chunks_exact(16));
                let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x.f64() * y.f64()).sum();
                for (a, b) in a.zip(b) {
                    for l in 0..16 {
                        lanes[l] += a[l].f64() * b[l].f64();
                    }
                }
                lanes.iter().sum::<f64>() + rest
            }
        }
        let isa = Isa::detect();
        result(&[a, b], |v: &[&[T]]| {
            moments::sum_chunks(v[0].len(), |r| T::dispatch(isa, Dot(&v[0][r.clone()], &v[1][r])))
        })
    }
    check::same_shape("inner_product", a, "b", Some(b))?;
    let (a, b) = (host(a)?, host(b)?);
    Ok(crate::on_the_host(|| match a.dtype() {
        DType::F64 => run::<f64>(&a, &b),
        _ => run::<f32>(&a, &b),
    })?)
}

/// `Z - mean` of every column, `(n, d)`, differentiable; the mean is taken in f64.
///
/// # Gradient
/// `G - mean(G)`.
///
/// # Errors
/// Anything but a matrix with elements.
pub fn center(z: &Tensor) -> Result<Tensor> {
    matrix("center", z)?;
    let Path::Cpu(_) = Path::of(z) else {
        return device::center(z);
    };
    Ok(contiguous(z)?.apply_op1(Center)?)
}

struct Center;

impl Center {
    fn run(z: &Tensor) -> candle_core::Result<Tensor> {
        Ok(Columns::centered(z)?.0.to_tensor()?)
    }
}

impl CustomOp1 for Center {
    fn name(&self) -> &'static str {
        "center"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        fn run<Z: Float>(s: &CpuStorage, l: &Layout) -> candle_core::Result<CpuStorage> {
            let z = crate::tensor::storage::slice::<Z>((s, l))?;
            let (n, d) = l.shape().dims2()?;
            let (mean, _) = moments::moments(z, d, Isa::detect());
            let map = Map::<Z>::new(&mean, &vec![1.0; d]);
            // SAFETY: every row is written.
            let values = unsafe {
                infomax_simd::filled(n * d, |out| {
                    moments::by_rows(n, d, out, |i, row| map.row(0, &z[i * d..][..d], row));
                })
            };
            Ok(crate::tensor::storage::owned(values))
        }
        let storage = match s {
            CpuStorage::F64(_) => run::<f64>(s, l)?,
            _ => run::<f32>(s, l)?,
        };
        Ok((storage, l.shape().clone()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(Self::run(&g.contiguous()?)?))
    }
}

/// `Z Z^T` `(n, n)`, differentiable; half of the products of a general matrix multiplication.
///
/// # Gradient
/// `(G + G^T) Z`.
///
/// # Numerics
/// Partial sums of at most 512 products, added in f64.
///
/// # Errors
/// Anything but a matrix with elements.
pub fn gram(z: &Tensor) -> Result<Tensor> {
    symmetric("gram", z, Side::Rows)
}

/// `Z^T Z` `(d, d)`, differentiable, as [`gram`]; the gradient is `Z (G + G^T)`.
///
/// # Errors
/// Anything but a matrix with elements.
pub fn second_moment(z: &Tensor) -> Result<Tensor> {
    symmetric("second_moment", z, Side::Columns)
}

fn symmetric(op: &'static str, z: &Tensor, side: Side) -> Result<Tensor> {
    matrix(op, z)?;
    let Path::Cpu(_) = Path::of(z) else {
        return device::symmetric(z, side == Side::Rows);
    };
    Ok(contiguous(z)?.apply_op1(Symmetric(side))?)
}

struct Symmetric(Side);

impl CustomOp1 for Symmetric {
    fn name(&self) -> &'static str {
        match self.0 {
            Side::Rows => "gram",
            Side::Columns => "second-moment",
        }
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        fn run<Z: Float>(s: &CpuStorage, l: &Layout, side: Side) -> candle_core::Result<CpuStorage> {
            let z = crate::tensor::storage::slice::<Z>((s, l))?;
            let (n, d) = l.shape().dims2()?;
            let map = Map::<Z>::new(&vec![0.0; d], &vec![1.0; d]);
            let x = Matrix { z, n, d, map: &map };
            Ok(crate::tensor::storage::owned(product::symmetric::<Z, Z, Z>(x, side, Isa::detect())))
        }
        let (n, d) = l.shape().dims2()?;
        let size = if self.0 == Side::Rows { n } else { d };
        let storage = match s {
            CpuStorage::F64(_) => run::<f64>(s, l, self.0)?,
            _ => run::<f32>(s, l, self.0)?,
        };
        Ok((storage, Shape::from((size, size))))
    }

    fn bwd(&self, z: &Tensor, _: &Tensor, g: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let both = (g + g.t()?)?;
        let x = Columns::plain(z)?;
        let finishing = Finishing::default();
        Ok(Some(match self.0 {
            Side::Rows => x.left(&both, &finishing)?,
            Side::Columns => x.right(&both, &finishing)?,
        }))
    }
}

pub(crate) fn matrix(op: &'static str, z: &Tensor) -> Result<(usize, usize)> {
    let dims = check::dims2(op, "z", z)?;
    check::not_empty(op, "z", z)?;
    Ok(dims)
}

/// On the CPU, contiguous, f32 or f64.
fn host(z: &Tensor) -> Result<Tensor> {
    let z = z.to_device(&candle_core::Device::Cpu)?;
    Ok(match z.dtype() {
        DType::F32 | DType::F64 => contiguous(&z)?,
        _ => z.to_dtype(DType::F32)?,
    })
}
