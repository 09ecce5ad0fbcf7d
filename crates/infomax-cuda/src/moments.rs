//! Second moments of a batch: centered columns, Gram matrices on either side, variance and covariance in one operation.

use crate::blas::{Factor, multiply};
use crate::graph::{node1, node2};
use crate::launch::{Arg, Grid, Module, contiguous, count32, device, empty, launch, tensor};
use crate::types::parts;
use crate::{Error, Products, Result};
use candle_core::{CudaDevice, CudaStorage, DType, Tensor};

/// `Z - mean` of every column of `z` `(n, d)`, f32: the means in f64, the differences rounded once.
///
/// # Gradient
/// `G - mean(G)`.
///
/// # Errors
/// Anything but an f32 matrix with elements on a CUDA device.
pub fn center(z: &Tensor) -> Result<Tensor> {
    const OP: &str = "center";
    let (columns, z) = Columns::new(OP, z)?;
    let (x, _) = columns.centered(&z, false)?;
    Ok(node1(OP, &z, x, z.shape(), move |[z], _, g| {
        let (x, _) = columns.centered(g, false)?;
        Ok([Some(tensor(x, z.shape()))])
    })?)
}

/// `Z Z^T` `(n, n)` of the rows of `z` `(n, d)`, f32, or with `rows` false `Z^T Z` `(d, d)`: one product by cuBLAS.
///
/// # Gradient
/// `(G + G^T) Z`, or `Z (G + G^T)`: one product as well.
///
/// # Errors
/// As [`center`].
pub fn gram(z: &Tensor, rows: bool, products: Products) -> Result<Tensor> {
    const OP: &str = "gram";
    let (columns, z) = Columns::new(OP, z)?;
    let side = if rows { columns.n } else { columns.d };
    let product = columns.symmetric(&z.detach(), rows, products)?;
    Ok(node1(OP, &z, product, (side, side), move |[z], _, g| {
        let both = with_transpose(&columns.device, g)?;
        Ok([Some(tensor(columns.times(&both, &z.detach(), rows, products)?, z.shape()))])
    })?)
}

/// `[variance, covariance]` of `z` `(n, d)`, f32, as VICReg defines them (arXiv:2105.04906): shape `(2)`. With the centered
/// columns `X` and the unbiased `S = X^T X / (n - 1)`:
///
/// `variance = 1/d sum_j max(0, gamma - sqrt(S_jj + eps))`, `covariance = 1/d sum_{i != j} S_ij^2`,
///
/// the latter with `rows` from `||X X^T||_F^2`, which is less work where `n < d`. Two matrix products, one each way, and
/// passes over the embeddings; nothing waits for the device. The centered embeddings and the product are kept for the
/// gradient.
///
/// # Gradient
/// `4 g_1 / ((n - 1)^2 d) (K X - X diag(s))` with the sums of squares `s` of the columns, and
/// `-g_0 x_ij / (d (n - 1) std_j)` for the columns with `std_j < gamma`.
///
/// # Numerics
/// Means, squares and sums over the product in f64 in a fixed order, the product as `products` says.
///
/// # Errors
/// As [`center`], and fewer than two rows.
pub fn variance_covariance(
    z: &Tensor,
    gamma: f64,
    eps: f64,
    rows: bool,
    products: Products,
) -> Result<Tensor> {
    const OP: &str = "variance_covariance";
    let (columns, z) = Columns::new(OP, z)?;
    let (n, d) = (columns.n, columns.d);
    if n < 2 {
        let expected = "of at least two rows".into();
        return Err(Error::Shape { op: OP, name: "z", expected, got: vec![n, d] });
    }
    let cuda = columns.device.clone();
    let (x, squares) = columns.centered(&z.detach(), true)?;
    let x = tensor(x, (n, d));
    let dof = (n - 1) as f64;
    let mut terms = empty(&cuda, DType::F64, d)?;
    let mut slopes = empty(&cuda, DType::F32, d)?;
    let args = vec![
        Arg::Read(&squares),
        Arg::Write(&mut terms),
        Arg::Write(&mut slopes),
        Arg::U32(d as u32),
        Arg::F64(dof),
        Arg::F64(gamma),
        Arg::F64(eps),
    ];
    launch(&cuda, Module::Moments, "hinge_terms", line(d), args)?;
    let (terms, slopes) = (tensor(terms, d), tensor(slopes, d));

    let side = if rows { n } else { d };
    let mut product = columns.symmetric(&x, rows, products)?;
    let mut powers = empty(&cuda, DType::F64, side)?;
    let args = vec![
        Arg::Write(&mut product),
        Arg::Write(&mut powers),
        Arg::U32(side as u32),
        Arg::U32(u32::from(!rows)),
    ];
    launch(&cuda, Module::Moments, "row_powers", each(side), args)?;
    let (product, powers) = (tensor(product, (side, side)), tensor(powers, side));
    let mut values = empty(&cuda, DType::F32, 2)?;
    let args = vec![
        Arg::Read(&terms),
        Arg::Read(&squares),
        Arg::Read(&powers),
        Arg::Write(&mut values),
        Arg::U32(d as u32),
        Arg::U32(side as u32),
        Arg::U32(u32::from(rows)),
        Arg::F64(1.0 / (dof * dof * d as f64)),
    ];
    launch(&cuda, Module::Moments, "moment_values", each(1), args)?;
    let alpha = 4.0 / (dof * dof * d as f64);
    Ok(node1(OP, &z, values, 2, move |_, _, g| {
        let mut grad = columns.times(&product, &x, rows, products)?;
        let args = vec![
            Arg::Write(&mut grad),
            Arg::Read(&x),
            Arg::Read(&slopes),
            Arg::Read(&squares),
            Arg::Read(g),
            Arg::U32(n as u32),
            Arg::U32(d as u32),
            Arg::F64(alpha),
            Arg::U32(u32::from(rows)),
            Arg::U32(columns.per),
        ];
        launch(&columns.device, Module::Moments, "moment_grad", columns.grid(), args)?;
        Ok([Some(tensor(grad, (n, d)))])
    })?)
}

/// `sum (a - b)^2` over all elements of two f32 tensors of one shape: a scalar.
///
/// # Gradient
/// `2 g (a - b)` and its negative: the difference is formed first.
///
/// # Numerics
/// Squares are added in f64, in an order that depends on the number of elements alone.
///
/// # Errors
/// Shapes that differ, other types than f32, no elements, a tensor that is not on a CUDA device.
pub fn squared_error(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    const OP: &str = "squared_error";
    let count = a.elem_count();
    if a.dims() != b.dims() || count == 0 {
        let expected = format!("of the shape {:?} of a, with elements", a.dims());
        return Err(Error::Shape { op: OP, name: "b", expected, got: b.dims().to_vec() });
    }
    f32_only(OP, "a", a)?;
    f32_only(OP, "b", b)?;
    let (cuda, _) = (device(OP, "a", a)?, device(OP, "b", b)?);
    let (a, b) = (contiguous(a)?, contiguous(b)?);
    let grid = Grid::over(count);
    let mut sums = empty(&cuda, DType::F64, grid.blocks.0 as usize)?;
    let args = vec![Arg::Read(&a), Arg::Read(&b), Arg::Write(&mut sums), Arg::U64(count as u64)];
    launch(&cuda, Module::Moments, "error_parts", grid, args)?;
    let value = sum_parts(&cuda, sums, grid.blocks.0)?;
    Ok(node2(OP, [&a, &b], value, (), move |[a, b], _, g| {
        let grad = |t: &Tensor| match t.track_op() {
            true => Ok::<_, candle_core::Error>(Some(empty(&cuda, DType::F32, count)?)),
            false => Ok(None),
        };
        let (mut da, mut db) = (grad(a)?, grad(b)?);
        let args = vec![
            Arg::Read(a),
            Arg::Read(b),
            Arg::Read(g),
            Arg::MaybeWrite(da.as_mut()),
            Arg::MaybeWrite(db.as_mut()),
            Arg::U64(count as u64),
        ];
        launch(&cuda, Module::Moments, "error_grad", grid, args)?;
        Ok([da.map(|da| tensor(da, a.shape())), db.map(|db| tensor(db, b.shape()))])
    })?)
}

/// The sum of the squares of a contiguous f32 tensor: one number on the device.
pub(crate) fn power(cuda: &CudaDevice, x: &Tensor) -> candle_core::Result<Tensor> {
    let (count, grid) = (x.elem_count(), Grid::over(x.elem_count()));
    let mut sums = empty(cuda, DType::F64, grid.blocks.0 as usize)?;
    let args = vec![Arg::Read(x), Arg::Write(&mut sums), Arg::U64(count as u64)];
    launch(cuda, Module::Moments, "power_parts", grid, args)?;
    Ok(tensor(sum_parts(cuda, sums, grid.blocks.0)?, 1))
}

/// The sum of numbers that the blocks of a launch left, f32.
fn sum_parts(cuda: &CudaDevice, parts: CudaStorage, count: u32) -> candle_core::Result<CudaStorage> {
    let (parts, mut sum) = (tensor(parts, count as usize), empty(cuda, DType::F32, 1)?);
    let args = vec![Arg::Read(&parts), Arg::Write(&mut sum), Arg::U32(count), Arg::F64(1.0)];
    launch(cuda, Module::Moments, "sum_parts", each(1), args)?;
    Ok(sum)
}

/// `A + A^T` of a contiguous square matrix.
pub(crate) fn with_transpose(cuda: &CudaDevice, a: &Tensor) -> candle_core::Result<Tensor> {
    let n = a.dim(0)?;
    let mut both = empty(cuda, DType::F32, n * n)?;
    let tiles = n.div_ceil(32) as u32;
    let grid = Grid { blocks: (tiles, tiles), threads: (32, 8) };
    let args = vec![Arg::Read(a), Arg::Write(&mut both), Arg::U32(n as u32)];
    launch(cuda, Module::Moments, "with_transpose", grid, args)?;
    Ok(tensor(both, (n, n)))
}

/// One thread for each of `count` elements.
pub(crate) fn line(count: usize) -> Grid {
    Grid { blocks: (count.div_ceil(256) as u32, 1), threads: (256, 1) }
}

/// One block for each of `count` rows.
pub(crate) fn each(count: usize) -> Grid {
    Grid { blocks: (count as u32, 1), threads: (256, 1) }
}

pub(crate) fn f32_only(op: &'static str, name: &'static str, xs: &Tensor) -> Result<()> {
    match xs.dtype() {
        DType::F32 => Ok(()),
        got => Err(Error::DType { op, name, got, expected: "f32" }),
    }
}

/// The columns of a matrix `(n, d)`, and how its rows are cut for sums over them.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    pub(crate) device: CudaDevice,
    pub(crate) n: usize,
    pub(crate) d: usize,
    pub(crate) count: usize,
    pub(crate) per: u32,
}

impl Columns {
    /// The columns of a matrix, and the matrix in order.
    pub(crate) fn new(op: &'static str, z: &Tensor) -> Result<(Self, Tensor)> {
        let (n, d) = match *z.dims() {
            [n, d] if n > 0 && d > 0 => (n, d),
            _ => {
                let expected = "a matrix with elements".into();
                return Err(Error::Shape { op, name: "z", expected, got: z.dims().to_vec() });
            }
        };
        f32_only(op, "z", z)?;
        let cuda = device(op, "z", z)?;
        count32(op, "rows", n)?;
        count32(op, "columns", d)?;
        let (count, per) = parts(n, 32, (1024 / d.div_ceil(32)).max(1));
        Ok((Self { device: cuda, n, d, count, per: per as u32 }, contiguous(z)?))
    }

    /// Blocks of 32 columns and 8 rows.
    pub(crate) fn grid(&self) -> Grid {
        Grid { blocks: (self.d.div_ceil(32) as u32, self.count as u32), threads: (32, 8) }
    }

    fn sizes<'a>(&self) -> [Arg<'a>; 3] {
        [Arg::U32(self.n as u32), Arg::U32(self.d as u32), Arg::U32(self.per)]
    }

    /// `factor` times the sums of the parts of each column, f64.
    fn finish(&self, parts: CudaStorage, factor: f64) -> candle_core::Result<Tensor> {
        let parts = tensor(parts, (self.count, self.d));
        let mut sums = empty(&self.device, DType::F64, self.d)?;
        let args = vec![
            Arg::Read(&parts),
            Arg::Write(&mut sums),
            Arg::U32(self.d as u32),
            Arg::U32(self.count as u32),
            Arg::F64(factor),
        ];
        launch(&self.device, Module::Moments, "column_finish", line(self.d), args)?;
        Ok(tensor(sums, self.d))
    }

    /// The centered matrix, and the sums of its squares in f64 (the means in their place if they are not asked for).
    pub(crate) fn centered(&self, z: &Tensor, squares: bool) -> candle_core::Result<(CudaStorage, Tensor)> {
        let room = self.count * self.d;
        let mut sums = empty(&self.device, DType::F64, room)?;
        let mut args = vec![Arg::Read(z), Arg::Write(&mut sums)];
        args.extend(self.sizes());
        launch(&self.device, Module::Moments, "column_parts", self.grid(), args)?;
        let means = self.finish(sums, 1.0 / self.n as f64)?;
        let mut x = empty(&self.device, DType::F32, self.n * self.d)?;
        let mut powers = if squares { Some(empty(&self.device, DType::F64, room)?) } else { None };
        let mut args =
            vec![Arg::Read(z), Arg::Read(&means), Arg::Write(&mut x), Arg::MaybeWrite(powers.as_mut())];
        args.extend(self.sizes());
        launch(&self.device, Module::Moments, "center_parts", self.grid(), args)?;
        Ok((
            x,
            match powers {
                Some(powers) => self.finish(powers, 1.0)?,
                None => means,
            },
        ))
    }

    /// `X X^T`, or `X^T X` of the columns.
    pub(crate) fn symmetric(
        &self,
        x: &Tensor,
        rows: bool,
        products: Products,
    ) -> candle_core::Result<CudaStorage> {
        let side = if rows { self.n } else { self.d };
        let mut product = empty(&self.device, DType::F32, side * side)?;
        let factors = match rows {
            true => [Factor::plain(x), Factor::transposed(x)],
            false => [Factor::transposed(x), Factor::plain(x)],
        };
        multiply(&self.device, factors, (1.0, 0.0), &mut product, products)?;
        Ok(product)
    }

    /// `M X` of a matrix of the rows, or `X M` of one of the columns.
    pub(crate) fn times(
        &self,
        m: &Tensor,
        x: &Tensor,
        rows: bool,
        products: Products,
    ) -> candle_core::Result<CudaStorage> {
        let mut out = empty(&self.device, DType::F32, self.n * self.d)?;
        let (m, x) = (Factor::plain(m), Factor::plain(x));
        multiply(&self.device, if rows { [m, x] } else { [x, m] }, (1.0, 0.0), &mut out, products)?;
        Ok(out)
    }
}
