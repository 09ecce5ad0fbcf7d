//! LiDAR: how many directions tell images apart rather than views of one image.

use super::ranks::entropy_rank;
use crate::estimate::{Doubt, Estimate, Resampling};
use crate::matrix::{self, Rows};
use crate::{Error, Result};
use candle_core::Tensor;
use infomax_kernels::linalg;
use serde::Serialize;
use std::collections::BTreeMap;

/// The settings of [`lidar`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LidarConfig {
    /// Added to the diagonal of the covariance within groups.
    pub delta: f64,
}

impl Default for LidarConfig {
    /// `delta = 1e-4`, the value of the paper's code and of stable-pretraining.
    fn default() -> Self {
        Self { delta: 1e-4 }
    }
}

/// The result of [`lidar`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lidar {
    /// `exp` of the entropy of the eigenvalues, between 1 and the smaller of `D` and the number of groups less
    /// one.
    pub rank: Estimate,
    /// The number of groups.
    pub groups: usize,
    /// The eigenvalues of the whitened covariance between groups, descending.
    pub eigenvalues: Vec<f64>,
}

/// LiDAR (Thilak et al., arXiv:2312.04000): `exp H(l / sum l)` over the eigenvalues `l` of
/// `Sw^{-1/2} Sb Sw^{-1/2}`, where `Sb` is the covariance of the means of groups, divided by their number less
/// one, and `Sw` the covariance within, `sum (z - mean)(z - mean)^T / (N - C) + delta I`.
///
/// Row `i` of `z` belongs to the group `groups[i]`: the views of one image. Groups are named by any numbers, in
/// any order; each needs two views. The interval is of subsamples of groups. The reference adds `1e-8` to each
/// eigenvalue before it normalizes, which changes the value by about `1e-8 D / sum l`.
///
/// # Errors
/// Not a matrix, values that are not finite, groups that do not fit, fewer than two groups, or a group of a
/// single view.
pub fn lidar(z: &Tensor, groups: &[u32], cfg: &LidarConfig, resampling: &Resampling) -> Result<Lidar> {
    const OP: &str = "lidar";
    if !(cfg.delta > 0.0 && cfg.delta.is_finite()) {
        let (value, reason) = (cfg.delta.to_string(), "must be positive and finite");
        return Err(Error::Config { key: "lidar.delta", value, reason });
    }
    let rows = matrix::labeled(OP, "z", z, groups)?;
    let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    groups.iter().enumerate().for_each(|(i, g)| members.entry(*g).or_default().push(i));
    let members: Vec<Vec<usize>> = members.into_values().collect();
    if members.len() < 2 {
        return Err(Error::TooFew { op: OP, name: "groups", rows: members.len(), needed: 2 });
    }
    let single: Vec<usize> = members.iter().filter(|m| m.len() < 2).map(|m| m[0]).collect();
    if !single.is_empty() {
        let (value, reason) = (
            crate::error::numbered("row", &single),
            "each group needs at least two views: these rows are alone in theirs",
        );
        return Err(Error::Config { key: "lidar.groups", value, reason });
    }
    let eigenvalues = eigenvalues(&rows, &members, cfg.delta)?;
    let value = entropy_rank(&eigenvalues);
    let interval = resampling.subsample(value, members.len(), 3, |chosen| {
        let some: Vec<Vec<usize>> = chosen.iter().map(|&g| members[g].clone()).collect();
        Ok(entropy_rank(&self::eigenvalues(&rows, &some, cfg.delta)?))
    })?;
    let mut doubts = Vec::new();
    let (c, free) = (members.len(), rows.n - members.len());
    if c <= rows.d {
        let message = format!("{c} groups in {} dimensions: the rank cannot exceed {}", rows.d, c - 1);
        doubts.push(Doubt::new("few-samples", message));
    }
    if free < rows.d {
        let message = format!(
            "{free} degrees of freedom within groups in {} dimensions: the covariance within groups is singular, \
             and delta = {} decides",
            rows.d, cfg.delta
        );
        doubts.push(Doubt::new("few-samples", message));
    }
    Ok(Lidar { rank: Estimate::new(value, rows.n).with(interval).doubting(doubts), groups: c, eigenvalues })
}

fn eigenvalues(rows: &Rows, members: &[Vec<usize>], delta: f64) -> Result<Vec<f64>> {
    let d = rows.d;
    let (mut means, mut within) = (Vec::new(), Vec::new());
    for own in members {
        let group = rows.select(own);
        means.extend(group.mean());
        within.extend(group.centered().values);
    }
    let means = Rows { n: members.len(), d, values: means }.centered();
    let within = Rows { n: within.len() / d, d, values: within };
    let free = (within.n - members.len()) as f64;
    let w = within.tensor()?;
    let mut sw = (w.t()?.contiguous()?.matmul(&w)? / free)?.flatten_all()?.to_vec1::<f64>()?;
    (0..d).for_each(|i| sw[i * d + i] += delta);
    let singular =
        || Error::Singular { op: "lidar", name: "views within groups", rows: within.n, columns: d };
    let factor = linalg::cholesky_factor(&sw, d).ok_or_else(singular)?;
    let inverse = Tensor::from_vec(linalg::invert_lower(&factor, d), (d, d), &candle_core::Device::Cpu)?;
    // Eigenvalues of L^-1 Sb L^-T are those of Sw^-1/2 Sb Sw^-1/2; the smaller Gram matrix of M L^-T holds them.
    let whitened = means.tensor()?.matmul(&inverse.t()?.contiguous()?)?;
    let t = whitened.t()?.contiguous()?;
    let gram = if d <= means.n { t.matmul(&whitened)? } else { whitened.matmul(&t)? };
    let scale = 1.0 / (members.len() as f64 - 1.0);
    let mut values = linalg::eigvalsh(&gram)?.to_vec1::<f64>()?;
    values.reverse();
    Ok(values.into_iter().map(|l| (l * scale).max(0.0)).collect())
}
