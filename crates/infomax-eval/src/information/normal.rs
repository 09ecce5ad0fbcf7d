//! Mutual information of variables that are normal, or become so by monotone maps of their columns.

use super::continuous::{Marginals, transform};
use super::gaussian::{Shrinkage, half_log_det, second_moment, shrink};
use super::tree::beside;
use crate::estimate::{Doubt, Estimate, Resampling};
use crate::matrix::{self, Rows};
use crate::special::digamma;
use crate::{Error, Result};
use candle_core::Tensor;
use serde::Serialize;

/// Which covariance a normal estimate is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormalModel {
    /// The sample covariance of the columns as they are.
    Sample,
    /// The sample covariance of the normal scores of the columns: exact for a Gaussian copula with any marginals (Ince
    /// et al. 2017, `gcmi`).
    #[default]
    Copula,
    /// The covariance of Ledoit and Wolf of the standardized columns: for `N` about `D` or below it. Biased towards 0.
    Shrunk,
}

/// The mutual information of the normal distribution of the covariance `C` of `(x, y)`,
/// `1/2 (ln det C_x + ln det C_y - ln det C)`, in nats, with its interval by subsampling.
///
/// `Sample` and `Copula` subtract the bias that the log-determinants of a sample of normal rows have,
/// `1/2 [b(D_x) + b(D_y) - b(D_x + D_y)]` with `b(D) = sum_{j=1}^D psi((N - j) / 2) + D ln(2 / (N - 1))`, so that the
/// mean over independent normal variables is 0 at any `N > D_x + D_y + 1`. Dependence that no covariance shows is not
/// seen: of a normal copula the value is the information, of another one it is neither bound nor estimate.
///
/// # Errors
/// Different numbers of rows, values that are not finite, constant columns, or, but for `Shrunk`, no more rows than
/// columns or linearly dependent columns.
pub fn normal_mutual_information(
    x: &Tensor,
    y: &Tensor,
    model: NormalModel,
    cfg: &Resampling,
) -> Result<Estimate> {
    const OP: &str = "normal_mutual_information";
    let (x, y) = read_pair(OP, x, y)?;
    let (n, d) = (x.n, x.d + y.d);
    let value = information(&x, &y, model)?;
    let interval = cfg.subsample(value, n, 4.max(d + 2), |chosen| {
        information(&x.select(chosen), &y.select(chosen), model)
    })?;
    let mut doubts = doubts(n, d, value);
    if model == NormalModel::Copula {
        super::ties::explain(&mut doubts, super::ties::doubt(&[("x", &x), ("y", &y)]));
    }
    Ok(Estimate::new(value, n).with(interval).doubting(doubts))
}

/// The conditional mutual information of normal variables, `1/2 (ln det C_xz + ln det C_yz - ln det C_z - ln det C)`,
/// in nats: of partial correlations. Bias and models as in [`normal_mutual_information`].
///
/// # Errors
/// As [`normal_mutual_information`].
pub fn normal_conditional_mutual_information(
    x: &Tensor,
    y: &Tensor,
    z: &Tensor,
    model: NormalModel,
    cfg: &Resampling,
) -> Result<Estimate> {
    const OP: &str = "normal_conditional_mutual_information";
    let (x, y) = read_pair(OP, x, y)?;
    let z = Rows::read_at_least(OP, "z", z, 4)?;
    matrix::paired(OP, ["x", "z"], &x, &z)?;
    spread(OP, "z", &z)?;
    let (n, d) = (x.n, x.d + y.d + z.d);
    let of = |x: &Rows, y: &Rows, z: &Rows| conditional_information(OP, x, y, z, model);
    let value = of(&x, &y, &z)?;
    let interval = cfg.subsample(value, n, 4.max(d + 2), |chosen| {
        of(&x.select(chosen), &y.select(chosen), &z.select(chosen))
    })?;
    let mut doubts = doubts(n, d, value);
    if model == NormalModel::Copula {
        super::ties::explain(&mut doubts, super::ties::doubt(&[("x", &x), ("y", &y), ("z", &z)]));
    }
    Ok(Estimate::new(value, n).with(interval).doubting(doubts))
}

/// The conditional estimate of checked variables.
pub(super) fn conditional_information(
    op: &'static str,
    x: &Rows,
    y: &Rows,
    z: &Rows,
    model: NormalModel,
) -> Result<f64> {
    let (x, y, z) = (model.prepare(x), model.prepare(y), model.prepare(z));
    let part = |variables: &[&Rows]| model.half_log_det(op, &beside(variables));
    Ok(part(&[&x, &z])? + part(&[&y, &z])? - part(&[&z])? - part(&[&x, &y, &z])?)
}

/// Two variables, checked.
pub(super) fn read_pair(op: &'static str, x: &Tensor, y: &Tensor) -> Result<(Rows, Rows)> {
    let (x, y) = (Rows::read_at_least(op, "x", x, 4)?, Rows::read_at_least(op, "y", y, 4)?);
    matrix::paired(op, ["x", "y"], &x, &y)?;
    spread(op, "x", &x)?;
    spread(op, "y", &y)?;
    Ok((x, y))
}

/// Refuses constant columns.
pub(super) fn spread(op: &'static str, name: &'static str, rows: &Rows) -> Result<()> {
    let columns = rows.constant_columns();
    if columns.is_empty() { Ok(()) } else { Err(Error::Constant { op, name, columns }) }
}

fn doubts(n: usize, d: usize, value: f64) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    if n < 5 * d {
        let message = format!("{n} rows for a covariance of {d} columns: it is known roughly only");
        doubts.push(Doubt::new("few-samples", message));
    }
    doubts.extend(super::mutual::negative(value));
    doubts
}

/// The estimate of checked variables.
pub(super) fn information(x: &Rows, y: &Rows, model: NormalModel) -> Result<f64> {
    const OP: &str = "normal_mutual_information";
    let (x, y) = (model.prepare(x), model.prepare(y));
    Ok(model.half_log_det(OP, &x)? + model.half_log_det(OP, &y)?
        - model.half_log_det(OP, &beside(&[&x, &y]))?)
}

impl NormalModel {
    fn prepare(self, rows: &Rows) -> Rows {
        let marginals = match self {
            Self::Sample => Marginals::Raw,
            Self::Copula => Marginals::NormalScores,
            Self::Shrunk => Marginals::Standardized,
        };
        transform(rows.clone(), marginals).centered()
    }

    /// `1/2 ln det` of the covariance of centered rows, minus its bias.
    fn half_log_det(self, op: &'static str, centered: &Rows) -> Result<f64> {
        let (n, d) = (centered.n as f64, centered.d);
        let singular = Error::Singular { op, name: "(x, y)", rows: centered.n, columns: d };
        let biased = second_moment(centered)?;
        if self == Self::Shrunk {
            return half_log_det(&shrink(centered, &biased, Shrinkage::LedoitWolf).0, d).ok_or(singular);
        }
        if centered.n <= d + 1 {
            return Err(singular);
        }
        let cov: Vec<f64> = biased.iter().map(|v| v * n / (n - 1.0)).collect();
        let bias: f64 = (1..=d).map(|j| digamma(0.5 * (n - j as f64)) + (2.0 / (n - 1.0)).ln()).sum();
        Ok(half_log_det(&cov, d).ok_or(singular)? - 0.5 * bias)
    }
}
