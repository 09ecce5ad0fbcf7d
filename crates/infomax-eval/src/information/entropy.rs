//! Differential entropy from nearest neighbors.

use crate::estimate::{Doubt, Estimate, Resampling};
use crate::geometry::{nearest, smallest};
use crate::matrix::Rows;
use crate::special::{digamma, ln_ball};
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;
use serde::Serialize;

/// The norm of the balls around rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// `|x|_2`.
    #[default]
    Euclidean,
    /// `max |x_j|`, as in NPEET.
    Max,
}

/// The differential entropy of Kozachenko and Leonenko (1987) in the form of Kraskov et al. (2004):
/// `psi(N) - psi(k) + ln V_D + D / N sum_i ln r_k(i)`, `V_D` the volume of the unit ball and `r_k(i)` the distance
/// to the `k`-th neighbor. `k = 3` to 5 is usual. Differs from the form with `ln(N - 1)` by about `1 / (2 N)`.
///
/// # Errors
/// Not a matrix, values that are not finite, `k` of 0 or not below the rows, or rows that coincide with their `k`
/// nearest ([`Error::Ties`]). Rows that are equal to fewer than `k` others have a distance, but bias the estimate: the
/// doubt `ties`.
pub fn kozachenko_leonenko(z: &Tensor, k: usize, norm: Norm, cfg: &Resampling) -> Result<Estimate> {
    const OP: &str = "kozachenko_leonenko";
    let rows = Rows::read(OP, "z", z)?;
    let value = of_rows(OP, &rows, k, norm)?;
    let interval =
        cfg.subsample(value, rows.n, k + 2, |chosen| of_rows(OP, &rows.select(chosen), k, norm))?;
    Ok(Estimate::new(value, rows.n)
        .with(interval)
        .doubting(high_dimension(rows.n, rows.d))
        .doubting(super::ties::doubt_of_entropy(&rows)))
}

fn of_rows(op: &'static str, rows: &Rows, k: usize, norm: Norm) -> Result<f64> {
    let (n, d) = (rows.n, rows.d as f64);
    let (radii, volume) = match norm {
        Norm::Euclidean => {
            let neighbors = nearest(op, rows, k)?;
            ((0..n).map(|i| neighbors.distances_of(i)[k - 1]).collect(), ln_ball(rows.d))
        }
        Norm::Max => (max_radii(op, rows, k)?, d * 2f64.ln()),
    };
    let ties = radii.iter().filter(|r: &&f64| **r <= 0.0).count();
    if ties > 0 {
        return Err(Error::Ties { op, name: "z", rows: ties, n, k });
    }
    let logs: f64 = radii.iter().map(|r| r.ln()).sum();
    Ok(digamma(n as f64) - digamma(k as f64) + volume + d * logs / n as f64)
}

/// The distance in the maximum norm to the `k`-th neighbor of each row.
fn max_radii(op: &'static str, rows: &Rows, k: usize) -> Result<Vec<f64>> {
    check_k(op, "z", rows.n, k)?;
    let columns = rows.transposed();
    let radius = |i: usize| {
        let distances = max_distances(&columns, rows.n, rows.row(i));
        smallest(rows.n, i, k, |j| distances[j]).last().map_or(0.0, |(r, _)| *r)
    };
    Ok((0..rows.n).into_par_iter().map(radius).collect())
}

/// The distances in the maximum norm from `x` to all rows, which are given column by column.
pub(super) fn max_distances(columns: &[f64], n: usize, x: &[f64]) -> Vec<f64> {
    let mut distances = vec![0.0; n];
    for (column, x) in columns.chunks_exact(n).zip(x) {
        for (d, y) in distances.iter_mut().zip(column) {
            let difference = (x - y).abs();
            *d = if difference > *d { difference } else { *d };
        }
    }
    distances
}

pub(super) fn check_k(op: &'static str, name: &'static str, n: usize, k: usize) -> Result<()> {
    if k == 0 {
        return Err(Error::Config { key: "k", value: "0".into(), reason: "must be at least 1" });
    }
    if n <= k {
        return Err(Error::TooFew { op, name, rows: n, needed: k + 1 });
    }
    Ok(())
}

/// The doubt of neighborhoods that are not small: `N` rows have neighbors within a tenth of the diameter only up
/// to `log10 N` dimensions.
pub(super) fn high_dimension(n: usize, d: usize) -> Option<Doubt> {
    let limit = 2.0 * (n as f64).log10();
    (d as f64 > limit).then(|| {
        let message = format!(
            "{n} rows in {d} dimensions: neighborhoods are not small beyond about 2 log10 N = {limit:.1} \
             dimensions, unless the cloud itself has fewer, and the estimate is biased"
        );
        Doubt::new("high-dimension", message)
    })
}
