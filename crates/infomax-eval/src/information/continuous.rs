//! Mutual information of two continuous variables by nearest neighbors.

use super::entropy::{check_k, high_dimension, max_distances};
use super::tree::{Counter, MAX_COLUMNS, Searcher};
use crate::estimate::{Doubt, Estimate, Resampling};
use crate::geometry::smallest;
use crate::matrix::{self, Rows};
use crate::special::{digamma, normal_quantile};
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;
use serde::Serialize;

/// Which of the two estimators of Kraskov, Stoegbauer and Grassberger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KsgKind {
    /// Cubes: `psi(k) + psi(N) - <psi(n_x + 1) + psi(n_y + 1)>`, with `n_x` the rows strictly within the distance
    /// `eps` to the `k`-th joint neighbor in the maximum norm.
    #[default]
    One,
    /// Rectangles: `psi(k) - 1 / k + psi(N) - <psi(n_x) + psi(n_y)>`, with `n_x` the rows within the side `eps_x`
    /// of the rectangle that holds the `k` joint neighbors, its edge included.
    Two,
}

/// What is done to each column first. Mutual information does not change under monotone maps of columns; its
/// estimates do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Marginals {
    /// Nothing, as in NPEET and JIDT.
    Raw,
    /// Mean 0 and deviation 1.
    Standardized,
    /// The normal quantile of `(rank - 1/2) / N`, equal values at their mean rank: the best of the three for
    /// heavy tails and outliers.
    #[default]
    NormalScores,
}

/// The settings of [`mutual_information`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct KsgConfig {
    /// The number of neighbors: more of them trade variance for bias.
    pub k: usize,
    /// The estimator.
    pub kind: KsgKind,
    /// What is done to each column first.
    pub marginals: Marginals,
}

impl Default for KsgConfig {
    /// `k = 3` as in NPEET, the first estimator, normal scores.
    fn default() -> Self {
        Self { k: 3, kind: KsgKind::default(), marginals: Marginals::default() }
    }
}

/// The mutual information `I(X; Y)` of two continuous variables (Kraskov et al., arXiv:cond-mat/0305641), row `i`
/// of both being one sample, with its interval by
/// subsampling, widened towards where the estimate moves as the rows grow.
///
/// Estimates can fall below 0 for independent variables: the sign is kept. Neighbors are found exactly, by a tree up
/// to eight columns in all, and by comparison of all rows beyond: `N^2 (D_x + D_y)`.
///
/// # Errors
/// Different numbers of rows, values that are not finite, constant columns, `k` of 0 or not below the rows, or
/// rows that coincide with their `k` nearest.
pub fn mutual_information(
    x: &Tensor,
    y: &Tensor,
    cfg: &KsgConfig,
    resampling: &Resampling,
) -> Result<Estimate> {
    let (x, y) = prepare("mutual_information", x, y, cfg)?;
    let ties = super::ties::doubt(&[("x", &x), ("y", &y)]);
    let (value, saturated) = ksg(&x, &y, cfg)?;
    let n = x.n;
    let interval = resampling.subsample_trend(value, n, 4 * cfg.k, |chosen| {
        Ok(ksg(&x.select(chosen), &y.select(chosen), cfg)?.0)
    })?;
    let mut doubts: Vec<Doubt> = high_dimension(n, x.d + y.d).into_iter().collect();
    if saturated > 0.5 {
        let message = format!(
            "for {:.0} % of the rows no other row is as near in a marginal as the joint neighbor: the estimate \
             is close to the most that {n} rows can show, psi(N) = {:.2}",
            100.0 * saturated,
            digamma(n as f64)
        );
        doubts.push(Doubt::new("saturated", message));
    }
    if value < 0.0 {
        doubts.push(Doubt::new("negative", "below 0: indistinguishable from none"));
    }
    super::ties::explain(&mut doubts, ties);
    Ok(Estimate::new(value, n).with(interval).doubting(doubts))
}

/// Both variables, checked and with their marginals transformed.
pub(super) fn prepare(op: &'static str, x: &Tensor, y: &Tensor, cfg: &KsgConfig) -> Result<(Rows, Rows)> {
    let (x, y) = (Rows::read(op, "x", x)?, Rows::read(op, "y", y)?);
    matrix::paired(op, ["x", "y"], &x, &y)?;
    check_k(op, "x", x.n, cfg.k)?;
    for (name, rows) in [("x", &x), ("y", &y)] {
        let columns = rows.constant_columns();
        if !columns.is_empty() {
            return Err(Error::Constant { op, name, columns });
        }
    }
    Ok((transform(x, cfg.marginals), transform(y, cfg.marginals)))
}

pub(super) fn transform(mut rows: Rows, marginals: Marginals) -> Rows {
    let (n, d) = (rows.n, rows.d);
    if marginals == Marginals::Raw {
        return rows;
    }
    for j in 0..d {
        let column = rows.column(j);
        let new = match marginals {
            Marginals::NormalScores => normal_scores(&column),
            _ => {
                let mean = column.iter().sum::<f64>() / n as f64;
                let deviation = crate::estimate::variance(&column).sqrt();
                column.iter().map(|v| (v - mean) / deviation).collect()
            }
        };
        rows.values.iter_mut().skip(j).step_by(d).zip(new).for_each(|(v, new)| *v = new);
    }
    rows
}

pub(super) fn normal_scores(column: &[f64]) -> Vec<f64> {
    let n = column.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| column[a].total_cmp(&column[b]));
    let mut scores = vec![0.0; n];
    let mut start = 0;
    while start < n {
        let mut end = start + 1;
        while end < n && column[order[end]] == column[order[start]] {
            end += 1;
        }
        let rank = 0.5 * (start + end) as f64;
        let score = normal_quantile(rank / n as f64);
        order[start..end].iter().for_each(|&i| scores[i] = score);
        start = end;
    }
    scores
}

/// The estimate, and the share of rows for which both counts are the smallest possible.
pub(super) fn ksg(x: &Rows, y: &Rows, cfg: &KsgConfig) -> Result<(f64, f64)> {
    const OP: &str = "mutual_information";
    let (n, k) = (x.n, cfg.k);
    check_k(OP, "x", n, k)?;
    let each: Vec<Option<(f64, bool)>> =
        if x.d + y.d <= MAX_COLUMNS { by_trees(x, y, cfg) } else { by_comparison(x, y, cfg) };
    let ties = each.iter().filter(|e| e.is_none()).count();
    if ties > 0 {
        return Err(Error::Ties { op: OP, name: "(x, y)", rows: ties, n, k });
    }
    let size = n as f64;
    let mean = each.iter().flatten().map(|(psi, _)| psi).sum::<f64>() / size;
    let least = each.iter().flatten().filter(|(_, least)| *least).count() as f64 / size;
    let head = match cfg.kind {
        KsgKind::One => digamma(k as f64),
        KsgKind::Two => digamma(k as f64) - 1.0 / k as f64,
    };
    Ok((head + digamma(size) - mean, least))
}

/// `psi` of both counts of a row, added, and whether they are the smallest possible; `None` where the neighborhood
/// has no extent.
type Counted = Option<(f64, bool)>;

fn counted(nx: usize, ny: usize, k: usize) -> Counted {
    Some((digamma(nx as f64) + digamma(ny as f64), nx <= k && ny <= k))
}

/// Few columns: neighbors and counts by trees.
fn by_trees(x: &Rows, y: &Rows, cfg: &KsgConfig) -> Vec<Counted> {
    let k = cfg.k;
    let (joint, in_x, in_y) = (Searcher::new(&[x, y]), Counter::new(x), Counter::new(y));
    let one = |i: usize| {
        let near = joint.nearest(i, k);
        let eps = near.last().map_or(0.0, |(r, _)| *r);
        if eps <= 0.0 {
            return None;
        }
        match cfg.kind {
            // The row itself is within: that is the 1 of n_x + 1.
            KsgKind::One => counted(in_x.count(x.row(i), eps, false), in_y.count(y.row(i), eps, false), k),
            KsgKind::Two => {
                let count = |rows: &Rows, counter: &Counter| {
                    let own = rows.row(i);
                    let side = |j: u32| {
                        own.iter().zip(rows.row(j as usize)).fold(0f64, |m, (a, b)| m.max((a - b).abs()))
                    };
                    let side = near.iter().map(|(_, j)| side(*j)).fold(0.0, f64::max);
                    counter.count(own, side, true) - 1
                };
                counted(count(x, &in_x), count(y, &in_y), k)
            }
        }
    };
    (0..x.n).into_par_iter().map(one).collect()
}

/// Many columns: the distances to all rows, which serve the neighbors and the counts.
fn by_comparison(x: &Rows, y: &Rows, cfg: &KsgConfig) -> Vec<Counted> {
    let (n, k) = (x.n, cfg.k);
    let (columns_x, columns_y) = (x.transposed(), y.transposed());
    let one = |i: usize| {
        let (dx, dy) = (max_distances(&columns_x, n, x.row(i)), max_distances(&columns_y, n, y.row(i)));
        let near = smallest(n, i, k, |j| if dx[j] > dy[j] { dx[j] } else { dy[j] });
        let eps = near.last().map_or(0.0, |(r, _)| *r);
        if eps <= 0.0 {
            return None;
        }
        match cfg.kind {
            KsgKind::One => {
                let count = |d: &[f64]| d.iter().map(|v| u32::from(*v < eps)).sum::<u32>() as usize;
                counted(count(&dx), count(&dy), k)
            }
            KsgKind::Two => {
                let count = |d: &[f64]| {
                    let side = near.iter().map(|(_, j)| d[*j as usize]).fold(0.0, f64::max);
                    d.iter().map(|v| u32::from(*v <= side)).sum::<u32>() as usize - 1
                };
                counted(count(&dx), count(&dy), k)
            }
        }
    };
    (0..n).into_par_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use infomax_core::Key;

    #[test]
    fn trees_and_comparison_count_alike() {
        let draw = |seed: u64, d: usize| {
            let device = candle_core::Device::Cpu;
            let x = Key::new(seed).normal(0.0, 1.0, (200, d), candle_core::DType::F64, &device).unwrap();
            Rows::read("op", "x", &x).unwrap()
        };
        for (dx, dy) in [(1, 1), (3, 2), (1, 5)] {
            let (x, y) = (draw(1, dx), draw(2, dy));
            for kind in [KsgKind::One, KsgKind::Two] {
                let cfg = KsgConfig { k: 4, kind, marginals: Marginals::Raw };
                assert_eq!(by_trees(&x, &y, &cfg), by_comparison(&x, &y, &cfg));
            }
        }
    }
}
