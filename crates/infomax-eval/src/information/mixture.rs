//! The entropy of embeddings blurred by normal noise, between its pairwise bounds.

use crate::estimate::{Bracket, Doubt, Estimate, Interval};
use crate::matrix::{Rows, square_distances};
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use infomax_core::Key;
use serde::Serialize;
use std::f64::consts::{E, PI};

/// The settings of [`mixture_entropy`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MixtureConfig {
    /// The variance of the noise in each direction; `None` for the median squared distance to the nearest other
    /// row divided by `D`, so that the noise is about as long as that distance.
    pub variance: Option<f64>,
    /// Draws of the Monte Carlo estimate; where they are more than the rows, rounded up to a multiple of them.
    pub draws: usize,
    /// The level of its interval.
    pub level: f64,
    /// The seed of the draws.
    pub seed: u64,
}

impl Default for MixtureConfig {
    /// 4,000 draws, level 0.9, seed 0.
    fn default() -> Self {
        Self { variance: None, draws: 4_000, level: 0.9, seed: 0 }
    }
}

/// The entropy of the mixture `1/N sum_i N(z_i, s^2 I)`, which is `h(Z + noise)` for the rows at hand, in nats.
///
/// The estimate is by Monte Carlo, `-mean_t ln 1/N sum_j N(u_t; z_j, s^2 I)` at draws `u_t` from the mixture,
/// whose components take turns. The bounds are exact (Kolchinsky and Tracey, arXiv:1706.02419):
/// `d/2 ln(2 pi e s^2) - mean_i ln mean_j exp(-|z_i - z_j|^2 / c)` with `c = 2 s^2` (Kullback-Leibler) from above and
/// `c = 8 s^2` (Bhattacharyya) from below, or from below the expected likelihood,
/// `-mean_i ln mean_j N(z_i; z_j, 2 s^2 I)`, where that is larger.
///
/// Subtracting `d/2 ln(2 pi e s^2)` gives the information between row and blurred embedding, which cannot exceed
/// `ln N`: near it, the rows are told apart and the entropy says how many there are, no more. Cost
/// `(N + draws) N D`.
///
/// # Errors
/// Not a matrix, fewer than two rows, values that are not finite, settings out of range, or no variance given
/// where most rows have an exact duplicate.
pub fn mixture_entropy(z: &Tensor, cfg: &MixtureConfig) -> Result<Bracket> {
    const OP: &str = "mixture_entropy";
    let rows = Rows::read_at_least(OP, "z", z, 2)?;
    if cfg.draws < 2 || !(cfg.level > 0.0 && cfg.level < 1.0) {
        let value = format!("draws {}, level {}", cfg.draws, cfg.level);
        let reason = "needs at least 2 draws and a level above 0 and below 1";
        return Err(Error::Config { key: "mixture", value, reason });
    }
    let (n, d) = (rows.n, rows.d as f64);
    let rows = rows.centered();
    let variance = match cfg.variance {
        Some(v) => v,
        None => median_nearest(&rows)? / d,
    };
    if !(variance > 0.0 && variance.is_finite()) {
        let (value, reason) =
            (variance.to_string(), "must be positive and finite; give one for data with duplicates");
        return Err(Error::Config { key: "mixture.variance", value, reason });
    }
    let own = 0.5 * d * (2.0 * PI * E * variance).ln();
    // Mean over rows of the log of the mean kernel, at three widths, in one pass.
    let widths = [2.0 * variance, 4.0 * variance, 8.0 * variance];
    let kernels = square_distances(&rows, &rows, |_, squares| widths.map(|c| ln_mean_exp(squares, c)))?;
    let mean = |at: usize| kernels.iter().map(|k| k[at]).sum::<f64>() / n as f64;
    let upper = own - mean(0);
    let likelihood = 0.5 * d * (4.0 * PI * variance).ln() - mean(1);
    let bhattacharyya = own - mean(2);

    // Components take turns, from the first one on: less variance than drawing them.
    // Whole turns, so that each counts alike; with fewer draws than components a stride through all of them.
    let draws = if cfg.draws < n { cfg.draws } else { cfg.draws.div_ceil(n) * n };
    let noise = Key::new(cfg.seed)
        .fold_named("mixture")
        .normal(0.0, variance.sqrt(), (draws, rows.d), DType::F64, &Device::Cpu)?
        .flatten_all()?
        .to_vec1::<f64>()?;
    let mut values = noise;
    for (t, point) in values.chunks_exact_mut(rows.d).enumerate() {
        let center = rows.row((t as u128 * n as u128 / draws as u128) as usize);
        point.iter_mut().zip(center).for_each(|(p, c)| *p += c);
    }
    let points = Rows { n: draws, d: rows.d, values };
    let normal = 0.5 * d * (2.0 * PI * variance).ln();
    let surprise = square_distances(&points, &rows, |_, squares| normal - ln_mean_exp(squares, widths[0]))?;
    let value = surprise.iter().sum::<f64>() / draws as f64;
    let se = (crate::estimate::variance(&surprise) / draws as f64).sqrt();
    let method = format!("Monte Carlo, {draws} draws, normal");
    let mut estimate = Estimate::new(value, n).with(Some(Interval::normal(value, se, cfg.level, method)));

    let (held, most) = (upper - own, (n as f64).ln());
    if held > 0.95 * most {
        let message = format!(
            "the rows hold {held:.2} of the ln N = {most:.2} nats that {n} rows can: they are told apart at this \
             noise, and more rows would hold more"
        );
        estimate.doubts.push(Doubt::new("saturated", message));
    }
    if draws < n {
        let message = format!("{draws} draws for {n} components: not all of them were visited");
        estimate.doubts.push(Doubt::new("few-draws", message));
    }
    let lower = if likelihood > bhattacharyya {
        (likelihood, "expected likelihood")
    } else {
        (bhattacharyya, "pairwise Bhattacharyya")
    };
    Ok(Bracket::ordered(lower, estimate, (upper, "pairwise Kullback-Leibler")))
}

/// `ln mean_j exp(-s_j / c)`.
fn ln_mean_exp(squares: &[f64], c: f64) -> f64 {
    let nearest = squares.iter().copied().fold(f64::INFINITY, f64::min);
    let sum: f64 = squares.iter().map(|s| ((nearest - s) / c).exp()).sum();
    (sum / squares.len() as f64).ln() - nearest / c
}

/// The median over rows of the squared distance to the nearest other row.
fn median_nearest(rows: &Rows) -> Result<f64> {
    let mut nearest = square_distances(rows, rows, |i, squares| {
        squares[i] = f64::INFINITY;
        squares.iter().copied().fold(f64::INFINITY, f64::min)
    })?;
    nearest.sort_by(f64::total_cmp);
    Ok(crate::estimate::quantile(&nearest, 0.5))
}
