//! How far apart classes are, beside their own width.

use crate::estimate::{Doubt, Estimate, Resampling};
use crate::{Result, matrix};
use candle_core::Tensor;
use rayon::prelude::*;
use serde::Serialize;

/// The result of [`silhouette`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Silhouette {
    /// The mean over rows: 1 for tight classes far apart, 0 for classes that overlap, below 0 for rows that are
    /// nearer to another class.
    pub score: Estimate,
    /// The mean over the rows of each class; `None` for a class without rows.
    pub per_class: Vec<Option<f64>>,
    /// The value of each row.
    pub rows: Vec<f64>,
}

/// The silhouette (Rousseeuw 1987) `(b - a) / max(a, b)` with the Euclidean distance: `a` is the mean distance of
/// a row to the others of its class, `b` the smallest mean distance to another class. The only row of a class
/// has 0, as in scikit-learn. The interval takes rows for independent. Cost `N^2 D`.
///
/// # Errors
/// Not a matrix, values that are not finite, labels that do not fit, or a single class.
pub fn silhouette(z: &Tensor, labels: &[u32], cfg: &Resampling) -> Result<Silhouette> {
    const OP: &str = "silhouette";
    let rows = matrix::labeled(OP, "z", z, labels)?;
    let classes = matrix::classes(OP, labels, labels)?;
    let rows = rows.centered();
    let n = rows.n;
    let mut sizes = vec![0usize; classes];
    labels.iter().for_each(|&l| sizes[l as usize] += 1);
    let squares = rows.squares();
    let x = rows.tensor()?;
    let transposed = x.t()?.contiguous()?;
    let mut values = Vec::with_capacity(n);
    for start in (0..n).step_by(512) {
        let count = 512.min(n - start);
        let products = x.narrow(0, start, count)?.matmul(&transposed)?.flatten_all()?.to_vec1::<f64>()?;
        let block: Vec<f64> = products
            .par_chunks(n)
            .enumerate()
            .map(|(i, row)| {
                let own = start + i;
                let mut sums = vec![0f64; classes];
                for (j, product) in row.iter().enumerate() {
                    if j != own {
                        let square = squares[own] + squares[j] - 2.0 * product;
                        sums[labels[j] as usize] += square.max(0.0).sqrt();
                    }
                }
                value(&sums, &sizes, labels[own] as usize)
            })
            .collect();
        values.extend(block);
    }
    let mut per_class = vec![0f64; classes];
    labels.iter().zip(&values).for_each(|(l, v)| per_class[*l as usize] += v);
    let per_class = per_class.iter().zip(&sizes).map(|(sum, n)| (*n > 0).then(|| sum / *n as f64)).collect();
    let single = sizes.iter().filter(|n| **n == 1).count();
    let doubt = (single > 0)
        .then(|| Doubt::new("few-samples", format!("{single} classes have a single row, which counts as 0")));
    Ok(Silhouette { score: cfg.mean(&values)?.doubting(doubt), per_class, rows: values })
}

fn value(sums: &[f64], sizes: &[usize], own: usize) -> f64 {
    if sizes[own] < 2 {
        return 0.0;
    }
    let a = sums[own] / (sizes[own] - 1) as f64;
    let others = (0..sums.len()).filter(|&c| c != own && sizes[c] > 0);
    let b = others.map(|c| sums[c] / sizes[c] as f64).fold(f64::INFINITY, f64::min);
    let larger = a.max(b);
    if larger > 0.0 { (b - a) / larger } else { 0.0 }
}
