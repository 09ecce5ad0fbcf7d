//! Products of matrices in slices, through the `gemm` crate, or on tiles of bf16: the bounds are checked here.

use crate::{Arithmetic, CpuProducts, Single};
use gemm::Parallelism;
use infomax_simd::tiles::{self, Factors, Operand, TileIsa};
use infomax_simd::{Isa, Real};
use std::any::Any;

/// A matrix in a slice, with any strides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mat<'a, T> {
    data: &'a [T],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, T> Mat<'a, T> {
    /// `rows` by `cols`, row by row.
    pub(crate) fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        Self::strided(data, (rows, cols), (cols, 1))
    }

    pub(crate) fn strided(
        data: &'a [T],
        (rows, cols): (usize, usize),
        (row_stride, col_stride): (usize, usize),
    ) -> Self {
        assert!(
            rows == 0 || cols == 0 || (rows - 1) * row_stride + (cols - 1) * col_stride < data.len(),
            "a matrix beyond its slice"
        );
        Self { data, rows, cols, row_stride, col_stride }
    }

    /// The matrix for tiles, if it is of f32.
    fn operand(&self) -> Option<Operand<'a>>
    where
        T: Real,
    {
        let (dims, strides) = ((self.rows, self.cols), (self.row_stride, self.col_stride));
        T::as_f32(self.data).map(|data| Operand { data, dims, strides })
    }

    /// The transpose.
    pub(crate) fn t(self) -> Self {
        let Self { data, rows, cols, row_stride, col_stride } = self;
        Self { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }
}

/// Tiles that multiply f32, rounded or split on the way in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiled {
    isa: Isa,
    tiles: TileIsa,
    factors: Factors,
    /// For all sizes, not only where they are expected to be faster.
    always: bool,
}

impl Tiled {
    /// For these factors with the tiles of `isa`, if it has some and the choice of the process allows them.
    pub(crate) fn new(isa: Isa, factors: Factors) -> Option<Self> {
        let always = match CpuProducts::current().arithmetic {
            Arithmetic::F32 | Arithmetic::Pairs => return None,
            Arithmetic::Tiles => true,
            Arithmetic::Auto => false,
        };
        Some(Self { isa, tiles: TileIsa::of(isa)?, factors, always })
    }

    /// For products of f32, if they are to be split or rounded.
    pub(crate) fn single(isa: Isa) -> Option<Self> {
        match CpuProducts::current().single {
            Single::Exact => None,
            Single::Split => Self::new(isa, Factors::Split),
            Single::Rounded => Self::new(isa, Factors::Rounded),
        }
    }

    /// The tiles for several products of these sizes whose factors are rounded, if those are expected to be faster.
    pub(crate) fn rounded(isa: Isa, sizes: &[(usize, usize, usize)]) -> Option<TileIsa> {
        let own = Self::single(isa).filter(|own| own.factors == Factors::Rounded)?;
        sizes.iter().all(|size| own.pays(*size)).then_some(own.tiles)
    }

    fn pays(self, size: (usize, usize, usize)) -> bool {
        self.always || tiles::product_pays(size, self.factors)
    }

    #[cfg(test)]
    pub(crate) fn always(self) -> Self {
        Self { always: true, ..self }
    }

    fn product<T: Real>(self, a: Mat<'_, T>, b: Mat<'_, T>) -> Option<Vec<T>> {
        let (x, y) = (a.operand()?, b.operand()?);
        if !self.pays((a.rows, b.cols, a.cols)) {
            return None;
        }
        Some(of_f32(tiles::product(self.tiles, self.isa, self.factors, x, y)))
    }
}

/// The vector itself, where the type is f32: only products of that are taken on tiles.
pub(crate) fn of_f32<T: Real>(values: Vec<f32>) -> Vec<T> {
    let values: Box<dyn Any> = Box::new(values);
    values.downcast().map(|values| *values).unwrap_or_default()
}

/// [`product`], of f32 on tiles where there are some for it and they pay.
pub(crate) fn product_by<T: Real>(tiled: Option<Tiled>, a: Mat<'_, T>, b: Mat<'_, T>) -> Vec<T> {
    tiled.and_then(|tiled| tiled.product(a, b)).unwrap_or_else(|| product(a, b))
}

/// `dst = scale a b`, or `dst += scale a b`, into rows that are `row_stride` apart.
///
/// # Safety
/// `dst` must be valid for writes of `a.rows` rows of `b.cols` elements, `row_stride` apart, which nothing
/// else reads or writes meanwhile, and initialized if `add`.
pub(crate) unsafe fn multiply_raw<T: Real>(
    dst: *mut T,
    row_stride: usize,
    a: Mat<'_, T>,
    b: Mat<'_, T>,
    scale: T,
    add: bool,
    parallelism: Parallelism,
) {
    assert_eq!(a.cols, b.rows, "the inner sizes of a product");
    // SAFETY: the sources are within their slices, by their constructors; the destination by the caller.
    unsafe {
        gemm::gemm(
            a.rows,
            b.cols,
            a.cols,
            dst,
            1,
            row_stride as isize,
            add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            if add { T::ONE } else { T::ZERO },
            scale,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `dst = a b`, or `dst += a b`, row by row, on this thread.
pub(crate) fn multiply<T: Real>(dst: &mut [T], a: Mat<'_, T>, b: Mat<'_, T>, add: bool) {
    assert!(dst.len() >= a.rows * b.cols, "a product beyond its slice");
    // SAFETY: the slice is exclusive and long enough.
    unsafe { multiply_raw(dst.as_mut_ptr(), b.cols, a, b, T::ONE, add, Parallelism::None) };
}

/// `a b` on all threads of the pool; each element is one sum in a fixed order, so the bits do not depend on
/// their number.
pub(crate) fn product<T: Real>(a: Mat<'_, T>, b: Mat<'_, T>) -> Vec<T> {
    let len = a.rows * b.cols;
    let mut values: Vec<T> = Vec::with_capacity(len);
    let threads = rayon::current_num_threads();
    let parallelism = if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None };
    if a.cols == 0 {
        values.resize(len, T::ZERO);
        return values;
    }
    // SAFETY: the capacity is `len`, and the product writes all of it.
    unsafe {
        multiply_raw(values.as_mut_ptr(), b.cols, a, b, T::ONE, false, parallelism);
        values.set_len(len);
    }
    values
}
