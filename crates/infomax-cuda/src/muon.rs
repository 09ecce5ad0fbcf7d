//! The orthogonalization of Muon.

use crate::blas::{Factor, multiply};
use crate::launch::{Arg, Grid, Module, contiguous, device, empty, launch, tensor};
use crate::moments::{f32_only, power};
use crate::{Error, Products, Result};
use candle_core::backend::BackendStorage as _;
use candle_core::{CudaStorage, DType, Layout, Storage, Tensor, bail};

/// The Newton-Schulz iterations of Muon (Jordan et al., 2024) on an f32 matrix `G` `(rows, columns)`, detached:
/// `X = G / (|G| + 1e-7)`, then `steps` times `X <- a X + (b A + c A^2) X` with `A = X X^T` and the `coefficients`
/// `(a, b, c)`; of the transposed matrix where it has more rows than columns.
///
/// Three products by cuBLAS and two copies an iteration, the sums within the products; the norm stays on the device.
///
/// # Errors
/// Anything but an f32 matrix with elements on a CUDA device.
pub fn newton_schulz(g: &Tensor, steps: usize, coefficients: [f64; 3], products: Products) -> Result<Tensor> {
    const OP: &str = "newton_schulz";
    let (rows, columns) = match *g.dims() {
        [rows, columns] if rows > 0 && columns > 0 => (rows, columns),
        _ => {
            let expected = "a matrix with elements".into();
            return Err(Error::Shape { op: OP, name: "g", expected, got: g.dims().to_vec() });
        }
    };
    f32_only(OP, "g", g)?;
    let cuda = device(OP, "g", g)?;
    let g = contiguous(&g.detach())?;
    let [a, b, c] = coefficients.map(|v| v as f32);
    let norm = power(&cuda, &g)?;
    let mut x = empty(&cuda, DType::F32, rows * columns)?;
    let args = vec![
        Arg::Read(&g),
        Arg::Read(&norm),
        Arg::Write(&mut x),
        Arg::U64((rows * columns) as u64),
        Arg::F32(1e-7),
    ];
    launch(&cuda, Module::Moments, "over_norm", Grid::over(rows * columns), args)?;
    let mut x = tensor(x, (rows, columns));
    // Of the smaller side: X X^T and M X, or X^T X and X M, which is the same on the transposed matrix.
    let tall = rows > columns;
    let side = rows.min(columns);
    for _ in 0..steps {
        let own = Factor::plain(&x);
        let other = Factor::transposed(&x);
        let mut product = empty(&cuda, DType::F32, side * side)?;
        multiply(&cuda, if tall { [other, own] } else { [own, other] }, (1.0, 0.0), &mut product, products)?;
        let product = tensor(product, (side, side));
        let mut polynomial = copy(&product)?;
        let both = [Factor::plain(&product), Factor::plain(&product)];
        multiply(&cuda, both, (c, b), &mut polynomial, products)?;
        let polynomial = tensor(polynomial, (side, side));
        let mut next = copy(&x)?;
        let m = Factor::plain(&polynomial);
        multiply(&cuda, if tall { [own, m] } else { [m, own] }, (1.0, a), &mut next, products)?;
        x = tensor(next, (rows, columns));
    }
    Ok(x)
}

/// A buffer with the elements of a contiguous tensor.
fn copy(x: &Tensor) -> candle_core::Result<CudaStorage> {
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) if layout.is_contiguous() => storage.try_clone(&Layout::contiguous(x.shape())),
        _ => bail!("a copy on the device of a tensor that is not contiguous there"),
    }
}
