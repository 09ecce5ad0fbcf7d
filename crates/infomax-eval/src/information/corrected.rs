//! Nearest neighbors with the bias that they have on a normal copula of the same correlations taken off.

use super::continuous::{KsgConfig, Marginals, ksg, transform};
use super::entropy::high_dimension;
use super::normal::read_pair;
use crate::estimate::{Doubt, Estimate, Resampling};
use crate::matrix::Rows;
use crate::normality::mardia_kurtosis;
use crate::special::digamma;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use infomax_core::Key;
use infomax_kernels::linalg;
use rand::RngExt as _;
use rayon::prelude::*;
use serde::Serialize;
use statrs::function::gamma::gamma_lr;

/// The settings of [`corrected_mutual_information`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct CorrectedConfig {
    /// The number of neighbors.
    pub k: usize,
    /// The normal samples from which the bias is measured.
    pub surrogates: usize,
    /// Their seed.
    pub seed: u64,
}

impl Default for CorrectedConfig {
    /// Three neighbors, 10 samples, seed 0.
    fn default() -> Self {
        Self { k: 3, surrogates: 10, seed: 0 }
    }
}

/// The mutual information by KSG in canonical coordinates, corrected for its bias at a normal copula, in nats.
///
/// Three steps. (1) Columns become normal scores, and `x` and `y` are rotated and scaled to their canonical variables,
/// which leaves the information as it is and makes cubes fit. (2) The first KSG estimator, `T`. (3) A parametric
/// bootstrap of the bias: `surrogates` samples of as many rows of the normal distribution of the same canonical
/// correlations, whose information `I_G` is known, go through the same estimator; the result is
/// `T + I_G - mean of theirs`. Of the canonical information `-1/2 ln(1 - rho^2)` of each pair so much is taken off
/// first that the sum has no bias for normal rows.
///
/// For a normal copula the bias cancels in any dimension; for others what remains is the bias of the part that no
/// correlation shows. Where the correlations are not significant (three deviations of the statistic of Wilks), nothing
/// is rotated or corrected.
///
/// The interval is by subsampling, the normal part being drawn again with the rows, and widened towards where the
/// estimate moves as the rows grow: see the method in its text.
///
/// # Errors
/// As [`super::mutual_information`], and no more rows than columns, linearly dependent columns or no surrogate.
pub fn corrected_mutual_information(
    x: &Tensor,
    y: &Tensor,
    cfg: &CorrectedConfig,
    resampling: &Resampling,
) -> Result<Estimate> {
    const OP: &str = "corrected_mutual_information";
    let (x, y) = read_pair(OP, x, y)?;
    let (mut estimate, _) = of_rows(&x, &y, cfg, resampling)?;
    super::ties::explain(&mut estimate.doubts, super::ties::doubt(&[("x", &x), ("y", &y)]));
    Ok(estimate)
}

/// Whether a combination of the columns of `x` is one of those of `y` but for rounding, `1 - rho^2 < 1e-12` of the first
/// canonical pair, in the columns as they are or in their normal scores: the information of continuous variables is
/// then infinite.
pub(super) fn determined(x: &Rows, y: &Rows) -> bool {
    if x.values == y.values && x.d == y.d {
        return true;
    }
    [Marginals::Standardized, Marginals::NormalScores].into_iter().any(|marginals| {
        let [x, y] = [x, y].map(|rows| transform(rows.clone(), marginals));
        // Columns that depend on each other within a variable say nothing of the other.
        canonical_information(&x, &y)
            .is_ok_and(|(axes, _)| axes.information.first().is_some_and(|i| *i > -0.5 * 1e-12f64.ln()))
    })
}

/// The estimate, and its normal part without bias.
pub(super) fn of_rows(
    x: &Rows,
    y: &Rows,
    cfg: &CorrectedConfig,
    resampling: &Resampling,
) -> Result<(Estimate, f64)> {
    check(cfg)?;
    let n = x.n;
    let model = Canonical::new(x, y)?;
    let ksg_cfg = KsgConfig { k: cfg.k, marginals: Marginals::Raw, ..KsgConfig::default() };
    let (found, saturated) = ksg(&model.x, &model.y, &ksg_cfg)?;
    let normal = model.normal();
    let bias_at = |rows: usize| -> Result<f64> {
        if model.kept.is_empty() { Ok(0.0) } else { Ok(normal - model.surrogate_mean(rows, cfg)?) }
    };
    let value = found + bias_at(n)?;
    let m = (n / 2).min(resampling.max_rows);
    // The bias of a subsample's size, in proportion to its own normal information.
    let share = if model.kept.is_empty() || m <= 4 * cfg.k || resampling.draws == 0 {
        0.0
    } else {
        bias_at(m)? / normal
    };
    let interval = resampling.subsample_trend(value, n, (4 * cfg.k).max(x.d + y.d + 4), |chosen| {
        let (a, b) = (model.x.select(chosen), model.y.select(chosen));
        let own = if share == 0.0 { 0.0 } else { canonical_information(&a, &b)?.1 };
        Ok(ksg(&a, &b, &ksg_cfg)?.0 + share * own)
    })?;
    let mut doubts: Vec<Doubt> = high_dimension(n, x.d + y.d).into_iter().collect();
    if saturated > 0.5 {
        doubts.push(saturation(saturated, n));
    }
    let added = value - found;
    if added.abs() > 0.5 * value.abs().max(0.05) {
        let message = format!(
            "{added:+.3} nats of it are the correction for a normal copula: neighbors alone say {found:.3}"
        );
        doubts.push(Doubt::new("model-based", message));
    }
    doubts.extend(super::mutual::negative(value));
    Ok((Estimate::new(value, n).with(interval).doubting(doubts), normal))
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

pub(super) fn check(cfg: &CorrectedConfig) -> Result<()> {
    if cfg.surrogates == 0 {
        let (value, reason) = ("0".into(), "must be at least 1");
        return Err(Error::Config { key: "corrected.surrogates", value, reason });
    }
    Ok(())
}

/// The doubt of a share of rows that are alone.
pub(super) fn saturation(share: f64, n: usize) -> Doubt {
    let message = format!(
        "for {:.0} % of the rows no other row is as near in a marginal as the joint neighbor: the estimate is close to the \
         most that {n} rows can show",
        100.0 * share
    );
    Doubt::new("saturated", message)
}

/// Both variables in canonical coordinates, and what their correlations hold.
pub(super) struct Canonical {
    pub(super) x: Rows,
    pub(super) y: Rows,
    /// The canonical correlations that remain after the bias is taken off; empty if they are not significant.
    pub(super) kept: Vec<f64>,
}

impl Canonical {
    pub(super) fn new(x: &Rows, y: &Rows) -> Result<Self> {
        let scores = |rows: &Rows| transform(rows.clone(), Marginals::NormalScores).centered();
        let (x, y) = (scores(x), scores(y));
        let n = x.n as f64;
        let cells = (x.d * y.d) as f64;
        let (axes, total) = canonical_information(&x, &y)?;
        let raw: f64 = axes.information.iter().sum();
        if 2.0 * n * raw <= cells + 3.0 * (2.0 * cells).sqrt() || total <= 0.0 {
            return Ok(Self { x, y, kept: Vec::new() });
        }
        let kept = thresholded(&axes.information, total);
        let kept = kept.iter().map(|i| (1.0 - (-2.0 * i).exp()).sqrt()).collect();
        let rotate = |rows: &Rows, axes: &Tensor| -> Result<Rows> {
            Rows::read("corrected_mutual_information", "x", &rows.tensor()?.matmul(axes)?)
        };
        Ok(Self { x: rotate(&x, &axes.x)?, y: rotate(&y, &axes.y)?, kept })
    }

    /// The normal information of the kept correlations.
    pub(super) fn normal(&self) -> f64 {
        self.kept.iter().map(|r| -0.5 * (1.0 - r * r).ln()).sum()
    }

    /// The mean estimate on normal samples of these correlations.
    fn surrogate_mean(&self, rows: usize, cfg: &CorrectedConfig) -> Result<f64> {
        Ok(mean(&self.surrogates(rows, cfg.surrogates, cfg, 1.0, None)?))
    }

    /// The estimates on the first `draws` of these samples, with a `share` of the information of each correlation, or that of Student's distribution with so many degrees of freedom: the normal rows, each
    /// divided by its `sqrt(chi^2 / nu)`, the quantiles of `chi^2` at `(i + 1/2) / rows` in an order that is drawn. The normal rows
    /// and the order are the same whatever `nu`.
    pub(super) fn surrogates(
        &self,
        rows: usize,
        draws: usize,
        cfg: &CorrectedConfig,
        share: f64,
        nu: Option<f64>,
    ) -> Result<Vec<f64>> {
        // -1/2 ln(1 - rho^2) in proportion.
        let kept: Vec<f64> = self.kept.iter().map(|r| (1.0 - (1.0 - r * r).powf(share)).sqrt()).collect();
        let key = Key::new(cfg.seed).fold_named("surrogate").fold_in(rows as u64);
        let (dx, dy) = (self.x.d, self.y.d);
        let scales: Vec<f64> = nu.map_or_else(Vec::new, |nu| {
            let at = |i| (nu / chi_squared_quantile(nu, (i as f64 + 0.5) / rows as f64)).sqrt();
            (0..rows).into_par_iter().map(at).collect()
        });
        let ksg_cfg = KsgConfig { k: cfg.k, marginals: Marginals::Raw, ..KsgConfig::default() };
        let one = |at: usize| -> Result<f64> {
            let normal =
                key.fold_in(at as u64).normal(0.0, 1.0, (rows, dx + dy), DType::F64, &Device::Cpu)?;
            let mut values = normal.flatten_all()?.to_vec1::<f64>()?;
            for row in values.chunks_exact_mut(dx + dy) {
                for (j, r) in kept.iter().enumerate() {
                    row[dx + j] = r * row[j] + (1.0 - r * r).sqrt() * row[dx + j];
                }
            }
            if !scales.is_empty() {
                let mut rng = key.fold_in(at as u64).fold_named("scale").rng();
                let drawn: Vec<f64> = (0..rows).map(|_| rng.random()).collect();
                let mut order: Vec<usize> = (0..rows).collect();
                order.sort_by(|&a, &b| drawn[a].total_cmp(&drawn[b]));
                for (&i, scale) in order.iter().zip(&scales) {
                    values[i * (dx + dy)..(i + 1) * (dx + dy)].iter_mut().for_each(|v| *v *= scale);
                }
            }
            let take = |from: usize, d: usize| Rows {
                n: rows,
                d,
                values: values.chunks_exact(dx + dy).flat_map(|row| &row[from..from + d]).copied().collect(),
            };
            // Scores as of the data, whose tails they cut.
            let scores = |rows: Rows| transform(rows, Marginals::NormalScores);
            Ok(ksg(&scores(take(0, dx)), &scores(take(dx, dy)), &ksg_cfg)?.0)
        };
        (0..draws).into_par_iter().map(one).collect()
    }
}

/// The statistic of Mardia's kurtosis of the normal scores of both variables together: standard normal for a normal copula. `None`
/// where the rows are too few, or columns depend on each other.
pub(super) fn kurtosis_of_scores(x: &Rows, y: &Rows) -> Option<f64> {
    let scores = |rows: &Rows| transform(rows.clone(), Marginals::NormalScores).tensor();
    let both = Tensor::cat(&[scores(x).ok()?, scores(y).ok()?], 1).ok()?;
    mardia_kurtosis(&both).ok().map(|test| test.statistic)
}

/// Standard deviations of [`kurtosis_of_scores`] from which rows are taken not to be normal.
pub(super) const NOT_NORMAL: f64 = 4.0;

/// The quantile of `chi^2` with `nu` degrees of freedom, any positive number of them; kept off 0.
fn chi_squared_quantile(nu: f64, u: f64) -> f64 {
    // In the logarithm, as that of few degrees of freedom lies next to 0 for many `u`.
    let cdf = |ln: f64| gamma_lr(0.5 * nu, (0.5 * ln.exp()).max(f64::MIN_POSITIVE));
    let (mut low, mut high) = (-80.0f64, 8.0f64 + nu.ln().max(0.0));
    for _ in 0..50 {
        let middle = 0.5 * (low + high);
        if cdf(middle) < u { low = middle } else { high = middle }
    }
    (0.5 * (low + high)).exp()
}

/// The canonical axes of centered variables: `x` times the first has the identity as its covariance.
pub(super) struct Axes {
    x: Tensor,
    y: Tensor,
    /// `-1/2 ln(1 - rho^2)` of each pair, descending.
    information: Vec<f64>,
}

/// The canonical axes, and the information of the correlations without its bias for normal rows.
pub(super) fn canonical_information(x: &Rows, y: &Rows) -> Result<(Axes, f64)> {
    let (x, y) = (x.centered(), y.centered());
    let (n, dx, dy) = (x.n as f64, x.d, y.d);
    let whiten = |rows: &Rows| -> Result<(Tensor, Tensor)> {
        let singular = || Error::Singular {
            op: "corrected_mutual_information",
            name: "(x, y)",
            rows: rows.n,
            columns: dx + dy,
        };
        if rows.n <= dx + dy + 1 {
            return Err(singular());
        }
        let z = rows.tensor()?;
        let cov = (z.t()?.contiguous()?.matmul(&z)? / (n - 1.0))?.flatten_all()?.to_vec1::<f64>()?;
        let lower = linalg::cholesky_factor(&cov, rows.d).ok_or_else(singular)?;
        let inverse = Tensor::from_vec(linalg::invert_lower(&lower, rows.d), (rows.d, rows.d), &Device::Cpu)?;
        let w = inverse.t()?.contiguous()?;
        Ok((z.matmul(&w)?, w))
    };
    let ((zx, wx), (zy, wy)) = (whiten(&x)?, whiten(&y)?);
    let cross = (zx.t()?.contiguous()?.matmul(&zy)? / (n - 1.0))?;
    let (u, s, v) = linalg::svd(&cross)?;
    let information: Vec<f64> =
        s.to_vec1::<f64>()?.iter().map(|r| -0.5 * (1.0 - r * r).max(1e-14).ln()).collect();
    let b = |d: usize| (1..=d).map(|j| digamma(0.5 * (n - j as f64))).sum::<f64>();
    let bias = 0.5 * (b(dx) + b(dy) - b(dx + dy));
    let total = information.iter().sum::<f64>() - bias;
    // Axes beyond the smaller dimension: the rest of the whitened space.
    let (u, v) = (completed(&u, dx)?, completed(&v, dy)?);
    Ok((Axes { x: wx.matmul(&u)?, y: wy.matmul(&v)?, information }, total))
}

/// An orthonormal basis that begins with the `k` columns of `u`.
fn completed(u: &Tensor, d: usize) -> Result<Tensor> {
    let k = u.dim(1)?;
    if k == d {
        return Ok(u.clone());
    }
    // The coordinate axis that sticks out most, again and again: a choice that rounding does not turn.
    let mut columns = u.t()?.to_vec2::<f64>()?;
    while columns.len() < d {
        let outside = |j: usize| {
            let mut axis = vec![0.0; d];
            axis[j] = 1.0;
            // Twice: what rounding leaves of the first pass.
            for _ in 0..2 {
                for column in &columns {
                    let share: f64 = axis.iter().zip(column).map(|(a, c)| a * c).sum();
                    axis.iter_mut().zip(column).for_each(|(a, c)| *a -= share * c);
                }
            }
            let length = axis.iter().map(|a| a * a).sum::<f64>().sqrt();
            (length, axis)
        };
        let mut best = outside(0);
        for j in 1..d {
            let next = outside(j);
            // Axes that stick out alike: the first one.
            if next.0 > best.0 * (1.0 + 1e-9) {
                best = next;
            }
        }
        columns.push(best.1.iter().map(|a| a / best.0).collect());
    }
    Ok(Tensor::new(columns, &Device::Cpu)?.t()?.contiguous()?)
}

/// The informations, each lowered by the same number and cut at 0, so that their sum is `total`.
fn thresholded(information: &[f64], total: f64) -> Vec<f64> {
    let (mut sum, mut cut) = (0.0, 0.0);
    for (at, i) in information.iter().enumerate() {
        sum += i;
        let candidate = (sum - total) / (at + 1) as f64;
        let next = information.get(at + 1).copied().unwrap_or(0.0);
        if candidate >= next || at + 1 == information.len() {
            cut = candidate.max(0.0);
            break;
        }
    }
    information.iter().map(|i| (i - cut).max(0.0)).filter(|i| *i > 0.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_keeps_the_sum() {
        for total in [1.4, 1.0, 0.3, 0.01] {
            let kept = thresholded(&[0.9, 0.4, 0.2, 0.01], total);
            assert!((kept.iter().sum::<f64>() - total).abs() < 1e-12, "{kept:?}");
        }
    }

    #[test]
    fn a_basis_is_completed() {
        let u = Tensor::new(&[[0.6f64], [0.8], [0.0]], &Device::Cpu).unwrap();
        let q = completed(&u, 3).unwrap();
        let gram = q.t().unwrap().contiguous().unwrap().matmul(&q).unwrap().to_vec2::<f64>().unwrap();
        for (i, row) in gram.iter().enumerate() {
            for (j, v) in row.iter().enumerate() {
                assert!((v - if i == j { 1.0 } else { 0.0 }).abs() < 1e-12);
            }
        }
    }
}
