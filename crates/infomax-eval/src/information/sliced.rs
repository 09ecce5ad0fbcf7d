//! Mutual information of random projections.

use super::continuous::{KsgConfig, ksg, transform};
use super::normal::read_pair;
use crate::estimate::{Doubt, Estimate, Resampling};
use crate::matrix::Rows;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use infomax_core::Key;
use infomax_kernels::linalg;
use rayon::prelude::*;
use serde::Serialize;

/// The settings of [`sliced_mutual_information`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlicedConfig {
    /// The dimension of the projections of both variables, cut to theirs.
    pub dim: usize,
    /// The number of pairs of projections.
    pub slices: usize,
    /// The estimator of each; its marginal transform acts after the projection.
    pub ksg: KsgConfig,
    /// The seed of the projections.
    pub seed: u64,
}

impl Default for SlicedConfig {
    /// 64 pairs of lines, with the default of the estimator, seed 0.
    fn default() -> Self {
        Self { dim: 1, slices: 64, ksg: KsgConfig::default(), seed: 0 }
    }
}

/// The `k`-sliced mutual information (Goldfeld and Greenewald, arXiv:2110.05279; Goldfeld et al., arXiv:2206.08526): the
/// mean over random orthonormal `A` and `B` of `I(A^T X; B^T Y)`, each by [`super::mutual_information`], in nats.
///
/// Another quantity than `I(X; Y)`: 0 if and only if that is 0, and never above it, so a lower bound that needs no more
/// rows in high dimensions than in low ones. Columns are standardized first, as it depends on their scale. The interval
/// adds the spread over slices and that over rows by subsampling (16 of the slices).
///
/// # Errors
/// As [`super::mutual_information`], no slice, or dimension 0.
pub fn sliced_mutual_information(
    x: &Tensor,
    y: &Tensor,
    cfg: &SlicedConfig,
    resampling: &Resampling,
) -> Result<Estimate> {
    const OP: &str = "sliced_mutual_information";
    if cfg.dim == 0 || cfg.slices < 2 {
        let value = format!("dim {}, slices {}", cfg.dim, cfg.slices);
        let reason = "needs a dimension of at least 1 and at least two slices";
        return Err(Error::Config { key: "sliced", value, reason });
    }
    let (x, y) = read_pair(OP, x, y)?;
    let ties = super::ties::doubt(&[("x", &x), ("y", &y)]);
    let [x, y] = [x, y].map(|rows| transform(rows, super::Marginals::Standardized));
    let key = Key::new(cfg.seed).fold_named("slices");
    let project = |rows: &Rows, key: Key| -> Result<Rows> {
        let k = cfg.dim.min(rows.d);
        let normal = key.normal(0.0, 1.0, (rows.d, k), DType::F64, &Device::Cpu)?;
        // The polar factor of a normal matrix: uniform among orthonormal ones.
        let (u, _, v) = linalg::svd(&normal)?;
        let z = rows.tensor()?.matmul(&u.matmul(&v.t()?.contiguous()?)?)?;
        Ok(transform(Rows::read(OP, "the projection", &z)?, cfg.ksg.marginals))
    };
    let slices: Vec<(Rows, Rows)> = (0..cfg.slices as u64)
        .into_par_iter()
        .map(|s| {
            let key = key.fold_in(s);
            Ok((project(&x, key.fold_named("x"))?, project(&y, key.fold_named("y"))?))
        })
        .collect::<Result<_>>()?;
    let each: Vec<f64> = slices.iter().map(|(x, y)| Ok(ksg(x, y, &cfg.ksg)?.0)).collect::<Result<_>>()?;
    let value = each.iter().sum::<f64>() / cfg.slices as f64;
    let few = &slices[..cfg.slices.min(16)];
    let rows = resampling.subsample(value, x.n, 4 * cfg.ksg.k, |chosen| {
        let one = |(x, y): &(Rows, Rows)| Ok(ksg(&x.select(chosen), &y.select(chosen), &cfg.ksg)?.0);
        Ok(few.iter().map(one).sum::<Result<f64>>()? / few.len() as f64)
    })?;
    let spread = crate::estimate::variance(&each) / cfg.slices as f64;
    let interval = rows.map(|mut i| {
        let z = crate::special::normal_quantile(0.5 + 0.5 * i.level);
        let half = (0.25 * (i.upper - i.lower).powi(2) + z * z * spread).sqrt();
        (i.lower, i.upper) = (value - half, value + half);
        i.method = format!("{}; with the spread over {} slices", i.method, cfg.slices);
        i
    });
    let bound = Doubt::new(
        "lower-bound",
        format!("the mean over projections to {} dimensions: below I(X; Y), not an estimate of it", cfg.dim),
    );
    let whole = cfg.dim >= x.d && cfg.dim >= y.d;
    let mut doubts: Vec<Doubt> = (!whole).then_some(bound).into_iter().collect();
    doubts.extend(super::mutual::negative(value));
    super::ties::explain(&mut doubts, ties);
    Ok(Estimate::new(value, x.n).with(interval).doubting(doubts))
}
