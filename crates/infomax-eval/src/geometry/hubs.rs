//! Who is whose neighbor: hubs, rows that are nobody's neighbor, and neighborhoods of two clouds.

use super::Neighbors;
use crate::estimate::{Doubt, Estimate, Resampling};
use crate::{Error, Result};
use serde::Serialize;

/// The result of [`hubness`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hubness {
    /// The skewness `m_3 / m_2^{3/2}` of the `k`-occurrences (Radovanovic et al. 2010): about 0 without hubs,
    /// above 1 with strong ones. 0 where all rows occur alike.
    pub skewness: Estimate,
    /// The share of rows that are among the neighbors of no other row.
    pub antihubs: Estimate,
    /// How often each row is among the `k` nearest of another; their mean is `k`.
    pub occurrences: Vec<u32>,
    /// The rows that occur more often than `k + 2 sd` times, the most frequent first.
    pub hubs: Vec<usize>,
    /// Neighbors of each row.
    pub k: usize,
}

/// Hubness of a neighborhood graph; `k = 10` is usual. Intervals are bootstraps over rows with the graph kept.
///
/// # Errors
/// Settings out of range.
pub fn hubness(neighbors: &Neighbors, cfg: &Resampling) -> Result<Hubness> {
    let n = neighbors.n;
    let mut occurrences = vec![0u32; n];
    neighbors.indices.iter().for_each(|&j| occurrences[j as usize] += 1);
    let counts: Vec<f64> = occurrences.iter().map(|c| f64::from(*c)).collect();
    let zeros = |v: &[f64]| v.iter().filter(|c| **c == 0.0).count() as f64 / v.len() as f64;
    let mut doubts = Vec::new();
    if n < 10 * neighbors.k {
        let message = format!("{n} rows for {} neighbors each: nearly every row is a neighbor", neighbors.k);
        doubts.push(Doubt::new("few-samples", message));
    }
    let estimate = |statistic: fn(&[f64]) -> f64| -> Result<Estimate> {
        let interval = cfg.bootstrap(&counts, statistic)?;
        Ok(Estimate::new(statistic(&counts), n).with(interval).doubting(doubts.clone()))
    };
    let limit = neighbors.k as f64 + 2.0 * crate::estimate::variance(&counts).sqrt();
    let mut hubs: Vec<usize> = (0..n).filter(|&i| counts[i] > limit).collect();
    hubs.sort_by(|&a, &b| occurrences[b].cmp(&occurrences[a]).then(a.cmp(&b)));
    Ok(Hubness {
        skewness: estimate(skewness)?,
        antihubs: estimate(zeros)?,
        occurrences,
        hubs,
        k: neighbors.k,
    })
}

fn skewness(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let moment = |p: i32| values.iter().map(|v| (v - mean).powi(p)).sum::<f64>() / n;
    let second = moment(2);
    if second > 0.0 { moment(3) / second.powf(1.5) } else { 0.0 }
}

/// The result of [`neighbor_overlap`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Overlap {
    /// The mean share of a row's `k` neighbors that are the same in both.
    pub share: Estimate,
    /// The share of unrelated neighborhoods, `k / (N - 1)`.
    pub chance: f64,
    /// The share of each row.
    pub rows: Vec<f64>,
}

/// How much of each row's neighborhood two embeddings of the same samples share.
///
/// # Errors
/// Graphs of different numbers of rows or neighbors.
pub fn neighbor_overlap(a: &Neighbors, b: &Neighbors, cfg: &Resampling) -> Result<Overlap> {
    const OP: &str = "neighbor_overlap";
    if a.n != b.n {
        return Err(Error::Paired { op: OP, first: "a", second: "b", rows: [a.n, b.n] });
    }
    if a.k != b.k {
        let value = format!("{} and {}", a.k, b.k);
        return Err(Error::Config { key: "k", value, reason: "must be the same in both" });
    }
    let share = |i: usize| {
        let both = a.of(i).iter().filter(|j| b.of(i).contains(j)).count();
        both as f64 / a.k as f64
    };
    let rows: Vec<f64> = (0..a.n).map(share).collect();
    Ok(Overlap { share: cfg.mean(&rows)?, chance: a.k as f64 / (a.n as f64 - 1.0), rows })
}
