//! Matrix products by cuBLAS into a buffer that is there already, with factors that may be transposed: no copies.

use crate::Products;
use crate::launch::{Arg, Grid, Module, Value, empty, launch, tensor, with_values};
use candle_core::cuda::cudarc::cublas::{result, sys};
use candle_core::{CudaDevice, CudaStorage, DType, Tensor, bail};
use std::ffi::{c_int, c_void};

/// A contiguous f32 matrix as a factor, or its transpose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Factor<'a> {
    matrix: &'a Tensor,
    transposed: bool,
}

impl<'a> Factor<'a> {
    /// The matrix as it is.
    pub(crate) fn plain(matrix: &'a Tensor) -> Self {
        Self { matrix, transposed: false }
    }

    /// Its transpose.
    pub(crate) fn transposed(matrix: &'a Tensor) -> Self {
        Self { matrix, transposed: true }
    }

    /// The rows and columns of the factor, and the length of a row in memory.
    fn sizes(&self) -> candle_core::Result<(usize, usize, usize)> {
        let (rows, columns) = self.matrix.dims2()?;
        Ok(if self.transposed { (columns, rows, columns) } else { (rows, columns, columns) })
    }
}

/// `C <- alpha A B + beta C` with `C` in order; with a `beta` of 0 what `C` held before has no part.
pub(crate) fn multiply(
    device: &CudaDevice,
    [a, b]: [Factor<'_>; 2],
    (alpha, beta): (f32, f32),
    c: &mut CudaStorage,
    products: Products,
) -> candle_core::Result<()> {
    match products {
        Products::F32 => one(device, [a, b], (alpha, beta), c, false),
        Products::Tf32 => one(device, [a, b], (alpha, beta), c, true),
        Products::SplitTf32 => {
            let (high_a, low_a) = split(device, a.matrix)?;
            let same = a.matrix.id() == b.matrix.id();
            let (high_b, low_b) =
                if same { (high_a.clone(), low_a.clone()) } else { split(device, b.matrix)? };
            let of = |matrix, transposed| Factor { matrix, transposed };
            // The small products first, which keeps their digits.
            for (x, y, beta) in [(&low_a, &high_b, beta), (&high_a, &low_b, 1.0), (&high_a, &high_b, 1.0)] {
                one(device, [of(x, a.transposed), of(y, b.transposed)], (alpha, beta), c, true)?;
            }
            Ok(())
        }
    }
}

/// `X = H + L` with 10 bits of mantissa in `H`.
fn split(device: &CudaDevice, x: &Tensor) -> candle_core::Result<(Tensor, Tensor)> {
    let count = x.elem_count();
    let mut high = empty(device, DType::F32, count)?;
    let mut low = empty(device, DType::F32, count)?;
    let args = vec![Arg::Read(x), Arg::Write(&mut high), Arg::Write(&mut low), Arg::U64(count as u64)];
    launch(device, Module::Moments, "split_parts", Grid::over(count), args)?;
    Ok((tensor(high, x.shape()), tensor(low, x.shape())))
}

fn one(
    device: &CudaDevice,
    [a, b]: [Factor<'_>; 2],
    (alpha, beta): (f32, f32),
    c: &mut CudaStorage,
    tf32: bool,
) -> candle_core::Result<()> {
    use sys::cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T};
    let ((m, k, lda), (inner, n, ldb)) = (a.sizes()?, b.sizes()?);
    let held = candle_core::backend::BackendStorage::dtype(c);
    if inner != k || a.matrix.dtype() != DType::F32 || b.matrix.dtype() != DType::F32 || held != DType::F32 {
        bail!("a product of ({m}, {k}) and ({inner}, {n}) of {:?}", a.matrix.dtype());
    }
    let int = |size: usize| match c_int::try_from(size) {
        Ok(size) => Ok(size),
        Err(_) => bail!("a side of {size} in a matrix product; cuBLAS takes fewer than 2^31"),
    };
    let (m, n, k, lda, ldb) = (int(m)?, int(n)?, int(k)?, int(lda)?, int(ldb)?);
    let op = |factor: Factor<'_>| if factor.transposed { CUBLAS_OP_T } else { CUBLAS_OP_N };
    let compute = if tf32 {
        sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32
    } else {
        sys::cublasComputeType_t::CUBLAS_COMPUTE_32F
    };
    let blas = device.cublas_handle();
    let float = sys::cudaDataType_t::CUDA_R_32F;
    with_values(device, vec![Arg::Read(a.matrix), Arg::Read(b.matrix), Arg::Write(c)], |values| {
        let &[Value::U64(left), Value::U64(right), Value::U64(out)] = values else {
            bail!("a matrix product got other arguments than three matrices");
        };
        // SAFETY: cuBLAS reads columns, so that a matrix in rows is its transpose there and C^T = B^T A^T. The sizes are
        // those of the contiguous tensors behind the pointers, `c` is a buffer of `m n` elements made for this product,
        // and all of them live until the call has been put on the device's stream.
        unsafe {
            result::gemm_strided_batched_ex(
                *blas.handle(),
                op(b),
                op(a),
                n,
                m,
                k,
                (&raw const alpha).cast(),
                right as *const c_void,
                float,
                ldb,
                0,
                left as *const c_void,
                float,
                lda,
                0,
                (&raw const beta).cast(),
                out as *mut c_void,
                float,
                n,
                0,
                1,
                compute,
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
            )
        }
        .map_err(candle_core::Error::wrap)
    })
}
