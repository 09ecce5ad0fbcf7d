//! Tests of all columns together.

use super::NormalityTest;
use super::moments::two_sided;
use crate::estimate::Doubt;
use crate::matrix::Rows;
use crate::{Error, Result, special};
use candle_core::{Device, Tensor};
use infomax_kernels::linalg;
use rayon::prelude::*;
use serde::Serialize;

/// The result of [`mardia`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mardia {
    /// `b_{1,p} = mean_ij g_ij^3`; statistic `n b_{1,p} / 6`, chi-square of `p (p + 1)(p + 2) / 6` degrees.
    pub skewness: NormalityTest,
    /// The same with Mardia's factor for small samples, `(p + 1)(n + 1)(n + 3) / (n ((n + 1)(p + 1) - 6))`.
    pub skewness_small_sample: NormalityTest,
    /// `b_{2,p} = mean_i g_ii^2`; statistic `(b_{2,p} - p (p + 2)) / sqrt(8 p (p + 2) / n)`, standard normal.
    pub kurtosis: NormalityTest,
    /// `b_{1,p}` itself.
    pub b1: f64,
    /// `b_{2,p}` itself.
    pub b2: f64,
}

/// The tests of Mardia (1970) on multivariate skewness and kurtosis, with `g_ij = (x_i - m)^T S^{-1} (x_j - m)` and
/// the biased covariance `S`. Cost `n^2 p`.
///
/// # Errors
/// Not a matrix, values that are not finite, no more rows than columns, or a singular covariance.
pub fn mardia(z: &Tensor) -> Result<Mardia> {
    let white = whitened("mardia", z)?;
    let (n, p) = (white.n as f64, white.d as f64);
    let cubes = products(&white, |_, _, g| g * g * g)?;
    let b1 = cubes.iter().sum::<f64>() / (n * n);
    let (b2, kurtosis) = kurtosis(&white);
    let df = p * (p + 1.0) * (p + 2.0) / 6.0;
    let few = few(white.n, white.d);
    let test = |statistic: f64, p_value: f64| NormalityTest {
        statistic,
        p_value,
        n: white.n,
        doubts: few.iter().cloned().collect(),
    };
    let skew = n * b1 / 6.0;
    let factor = (p + 1.0) * (n + 1.0) * (n + 3.0) / (n * ((n + 1.0) * (p + 1.0) - 6.0));
    Ok(Mardia {
        skewness: test(skew, special::chi2_survival(skew, df)),
        skewness_small_sample: test(skew * factor, special::chi2_survival(skew * factor, df)),
        kurtosis: test(kurtosis, two_sided(kurtosis)),
        b1,
        b2,
    })
}

/// [`Mardia::kurtosis`] alone, which needs no pairs of rows: cost `n p^2`.
///
/// # Errors
/// As [`mardia`].
pub fn mardia_kurtosis(z: &Tensor) -> Result<NormalityTest> {
    let white = whitened("mardia", z)?;
    let (_, statistic) = kurtosis(&white);
    let p_value = two_sided(statistic);
    Ok(NormalityTest { statistic, p_value, n: white.n, doubts: few(white.n, white.d).into_iter().collect() })
}

/// The doubt of Mardia's limits.
fn few(n: usize, p: usize) -> Option<Doubt> {
    (n < 10 * p * p).then(|| {
        let message = format!("{n} rows in {p} dimensions; the limits are good from about 10 p^2 rows");
        Doubt::new("few-samples", message)
    })
}

/// `b_{2,p}` of whitened rows, and its statistic.
fn kurtosis(white: &Rows) -> (f64, f64) {
    let (n, p) = (white.n as f64, white.d as f64);
    let b2 = white.squares().iter().map(|g| g * g).sum::<f64>() / n;
    (b2, (b2 - p * (p + 2.0)) / (8.0 * p * (p + 2.0) / n).sqrt())
}

/// The test of Henze and Zirkler (1990): with squared Mahalanobis distances `D` (biased covariance) and
/// `b = ((2 p + 1) n / 4)^{1 / (p + 4)} / sqrt 2`,
/// `n [mean_jk exp(-b^2 D_jk / 2) - 2 (1 + b^2)^{-p/2} mean_j exp(-b^2 D_j / (2 (1 + b^2))) + (1 + 2 b^2)^{-p/2}]`.
///
/// Consistent against every alternative; the p-value is by their log-normal approximation.
/// `pingouin.multivariate_normality`. Cost `n^2 p`.
///
/// # Errors
/// As [`mardia`].
pub fn henze_zirkler(z: &Tensor) -> Result<NormalityTest> {
    let white = whitened("henze_zirkler", z)?;
    let (n, p) = (white.n as f64, white.d as f64);
    let b = ((2.0 * p + 1.0) * n / 4.0).powf(1.0 / (p + 4.0)) / 2f64.sqrt();
    let b2 = b * b;
    let squares = white.squares();
    let kernel = |i: usize, j: usize, g: f64| {
        if i == j { 1.0 } else { (-0.5 * b2 * (squares[i] + squares[j] - 2.0 * g).max(0.0)).exp() }
    };
    let pairs = products(&white, kernel)?.iter().sum::<f64>() / (n * n);
    let singles = squares.iter().map(|d| (-0.5 * b2 * d / (1.0 + b2)).exp()).sum::<f64>() / n;
    let statistic = n * (pairs - 2.0 * (1.0 + b2).powf(-0.5 * p) * singles + (1.0 + 2.0 * b2).powf(-0.5 * p));
    let few = (n < 2.0 * p).then(|| {
        Doubt::new("few-samples", format!("{n} rows in {p} dimensions: the covariance is barely known"))
    });
    let p_value = bhep_p_value(statistic, b2, white.d);
    Ok(NormalityTest { statistic, p_value, n: white.n, doubts: few.into_iter().collect() })
}

/// The p-value of a BHEP statistic by a log-normal of its limit's mean and variance (Henze and Zirkler 1990).
pub(super) fn bhep_p_value(statistic: f64, b2: f64, dim: usize) -> f64 {
    let p = dim as f64;
    let (b4, b8) = (b2 * b2, b2 * b2 * b2 * b2);
    let a = 1.0 + 2.0 * b2;
    let w = (1.0 + b2) * (1.0 + 3.0 * b2);
    let root = a.powf(-0.5 * p);
    let mean = 1.0 - root * (1.0 + p * b2 / a + p * (p + 2.0) * b4 / (2.0 * a * a));
    let variance = 2.0 * (1.0 + 4.0 * b2).powf(-0.5 * p)
        + 2.0 * root * root * (1.0 + 2.0 * p * b4 / (a * a) + 3.0 * p * (p + 2.0) * b8 / (4.0 * a.powi(4)))
        - 4.0 * w.powf(-0.5 * p) * (1.0 + 3.0 * p * b4 / (2.0 * w) + p * (p + 2.0) * b8 / (2.0 * w * w));
    let ratio = 1.0 + variance / (mean * mean);
    let (center, spread) = (mean.ln() - 0.5 * ratio.ln(), ratio.ln().sqrt());
    if statistic <= 0.0 {
        return 1.0;
    }
    special::normal_survival((statistic.ln() - center) / spread)
}

/// Rows of mean 0 and the biased covariance `I`.
pub(crate) fn whitened(op: &'static str, z: &Tensor) -> Result<Rows> {
    let rows = Rows::read(op, "z", z)?;
    let (n, d) = (rows.n, rows.d);
    if n < (d + 1).max(8) {
        return Err(Error::TooFew { op, name: "z", rows: n, needed: (d + 1).max(8) });
    }
    let columns = rows.constant_columns();
    if !columns.is_empty() {
        return Err(Error::Constant { op, name: "z", columns });
    }
    // Columns at a deviation of 1 first, so that scales that differ do not look singular.
    let mut centered = rows.centered();
    for j in 0..d {
        let largest = centered.iter().fold(0f64, |m, row| m.max(row[j].abs())).max(f64::MIN_POSITIVE);
        let square: f64 = centered.iter().map(|row| (row[j] / largest).powi(2)).sum();
        let deviation = largest * (square / n as f64).sqrt();
        centered.values.iter_mut().skip(j).step_by(d).for_each(|v| *v /= deviation);
    }
    let x = centered.tensor()?;
    let cov = (x.t()?.contiguous()?.matmul(&x)? / n as f64)?.flatten_all()?.to_vec1::<f64>()?;
    let factor = linalg::cholesky_factor(&cov, d).filter(|l| {
        // A column that depends on others up to rounding leaves a pivot of rounding.
        (0..d).all(|i| l[i * d + i] > 1e-6)
    });
    let factor = factor.ok_or(Error::Singular { op, name: "z", rows: n, columns: d })?;
    let inverse = Tensor::from_vec(linalg::invert_lower(&factor, d), (d, d), &Device::Cpu)?;
    let values = x.matmul(&inverse.t()?.contiguous()?)?.flatten_all()?.to_vec1::<f64>()?;
    Ok(Rows { n, d, values })
}

/// The sum over `j` of a function of `(i, j, x_i . x_j)`, for each `i`, in blocks.
fn products(rows: &Rows, f: impl Fn(usize, usize, f64) -> f64 + Sync) -> Result<Vec<f64>> {
    let n = rows.n;
    let x = rows.tensor()?;
    let transposed = x.t()?.contiguous()?;
    let mut sums = Vec::with_capacity(n);
    for start in (0..n).step_by(512) {
        let count = 512.min(n - start);
        let block = x.narrow(0, start, count)?.matmul(&transposed)?.flatten_all()?.to_vec1::<f64>()?;
        let of = |(i, row): (usize, &[f64])| -> f64 {
            row.iter().enumerate().map(|(j, g)| f(start + i, j, *g)).sum()
        };
        sums.extend(block.par_chunks(n).enumerate().map(of).collect::<Vec<f64>>());
    }
    Ok(sums)
}
