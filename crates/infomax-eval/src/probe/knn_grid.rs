//! The nearest-neighbor classifier with its metric, weights, number of neighbors and temperature chosen on a held-out
//! part of the training set.

use super::linear::{accuracy, edge_of_grid};
use super::sgd::held_out;
use crate::estimate::Doubt;
use crate::geometry::Metric;
use crate::matrix::{self, Rows};
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;
use serde::Serialize;

/// How the votes of neighbors are weighted.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vote {
    /// All alike.
    Uniform,
    /// `1 / distance`; a row at distance 0 decides alone, as in scikit-learn.
    Inverse,
    /// `exp(s / T)` of the similarity `s` with this temperature: the cosine, or `-distance^2 / 2` of the rows divided by
    /// the root of their mean squared length.
    Exponential(f64),
}

/// The settings of [`knn_grid`]: what is tried.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct KnnGridConfig {
    /// The metrics.
    pub metrics: Vec<Metric>,
    /// The votes.
    pub votes: Vec<Vote>,
    /// The numbers of neighbors; those above the rows are cut to them.
    pub k: Vec<usize>,
    /// The share of the training set held out for the choice.
    pub holdout: f64,
    /// The seed of that share.
    pub seed: u64,
}

impl Default for KnnGridConfig {
    /// Both metrics; uniform, inverse and exponential votes with `T` of 0.02, 0.07, 0.1, 0.2 and 0.5; `k` of 1, 5, 10, 20,
    /// 50, 100 and 200; a fifth held out.
    fn default() -> Self {
        let mut votes = vec![Vote::Uniform, Vote::Inverse];
        votes.extend([0.02, 0.07, 0.1, 0.2, 0.5].map(Vote::Exponential));
        let metrics = vec![Metric::Cosine, Metric::Euclidean];
        Self { metrics, votes, k: vec![1, 5, 10, 20, 50, 100, 200], holdout: 0.2, seed: 0 }
    }
}

/// One of the settings that were tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KnnTrial {
    /// The metric.
    pub metric: Metric,
    /// The vote.
    pub vote: Vote,
    /// The number of neighbors.
    pub k: usize,
    /// The accuracy on the held-out rows.
    pub held_out: f64,
}

/// The result of [`knn_grid`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KnnGridReport {
    /// The share of test samples whose class has the most votes.
    pub accuracy: f64,
    /// The share of test samples whose class is among the five of the most votes, of those that have any; only for more
    /// than 10 classes.
    pub top5_accuracy: Option<f64>,
    /// The accuracy on each class; `None` for a class without test samples.
    pub per_class: Vec<Option<f64>>,
    /// `confusion[t][p]`: test samples of class `t` that were predicted as `p`.
    pub confusion: Vec<Vec<u32>>,
    /// What was chosen.
    pub chosen: KnnTrial,
    /// All trials, in the order of the grid.
    pub trials: Vec<KnnTrial>,
    /// Reasons not to trust the choice: `edge-of-grid`, if it is the largest of several `k`, which the rows would exceed.
    pub doubts: Vec<Doubt>,
    /// How it was done, in words.
    pub protocol: String,
}

/// Classifies test rows by the votes of their nearest training rows, with the settings of the grid that do best on a
/// held-out part of the training set (the first of equals); the test set is looked at once, with all training rows.
///
/// Exact; of equal distances the earlier row is the nearer, of equal votes the smaller class wins. Cost
/// `N_test N_train D` and a partial sort for each row.
///
/// # Errors
/// Shapes and labels that do not fit, values that are not finite, a single training class, an empty grid or settings
/// out of range.
pub fn knn_grid(
    train: &Tensor,
    train_labels: &[u32],
    test: &Tensor,
    test_labels: &[u32],
    cfg: &KnnGridConfig,
) -> Result<KnnGridReport> {
    const OP: &str = "knn_grid";
    let positive = |v: &Vote| if let Vote::Exponential(t) = v { *t > 0.0 && t.is_finite() } else { true };
    let sizes = [cfg.metrics.len(), cfg.votes.len(), cfg.k.len()];
    if sizes.contains(&0) || cfg.k.contains(&0) || !cfg.votes.iter().all(positive) {
        let value = format!("{} metrics, {} votes, k {:?}", sizes[0], sizes[1], cfg.k);
        let reason = "needs one of each at least, k of at least 1 and positive temperatures";
        return Err(Error::Config { key: "knn_grid", value, reason });
    }
    let train = matrix::labeled(OP, "train", train, train_labels)?;
    let test = matrix::labeled(OP, "test", test, test_labels)?;
    matrix::same_width(OP, &train, &test)?;
    let classes = matrix::classes(OP, train_labels, test_labels)?;
    let (held, kept) = held_out(train.n, cfg.holdout, cfg.seed);
    let largest = cfg.k.iter().copied().max().unwrap_or(1);
    let pick = |rows: &[usize]| rows.iter().map(|&i| train_labels[i]).collect::<Vec<u32>>();
    let (held_labels, kept_labels) = (pick(&held), pick(&kept));
    let mut trials = Vec::new();
    for &metric in &cfg.metrics {
        let near = if held.is_empty() || kept.is_empty() {
            Vec::new()
        } else {
            neighbors(metric, &train.select(&kept), &train.select(&held), largest)?
        };
        for &vote in &cfg.votes {
            for &k in &cfg.k {
                let k = k.min(kept.len());
                let votes = near.iter().map(|row| votes(metric, row, &kept_labels, k, vote, classes));
                let predicted: Vec<u32> = votes.map(|v| best(&v)).collect();
                let held_out = match predicted.is_empty() {
                    true => f64::NAN,
                    false => accuracy(&predicted, &held_labels, classes).0,
                };
                trials.push(KnnTrial { metric, vote, k, held_out });
            }
        }
    }
    let chosen = trials.iter().fold(None::<&KnnTrial>, |top, t| match top {
        Some(top) if t.held_out <= top.held_out || t.held_out.is_nan() => Some(top),
        _ => Some(t),
    });
    let Some(chosen) = chosen.cloned() else {
        return Err(Error::TooFew { op: OP, name: "train", rows: 0, needed: 1 });
    };
    let near = neighbors(chosen.metric, &train, &test, chosen.k)?;
    let all: Vec<Vec<f64>> = near
        .iter()
        .map(|row| votes(chosen.metric, row, train_labels, chosen.k, chosen.vote, classes))
        .collect();
    let predicted: Vec<u32> = all.iter().map(|v| best(v)).collect();
    let mut confusion = vec![vec![0u32; classes]; classes];
    predicted.iter().zip(test_labels).for_each(|(p, t)| confusion[*t as usize][*p as usize] += 1);
    let among_five = |(votes, label): (&Vec<f64>, &u32)| {
        let own = votes[*label as usize];
        let before =
            (0..classes).filter(|&c| votes[c] > own || (votes[c] == own && c < *label as usize)).count();
        f64::from(u8::from(own > 0.0 && before < 5))
    };
    let top5 = all.iter().zip(test_labels).map(among_five).sum::<f64>() / test.n as f64;
    let (accuracy, per_class) = accuracy(&predicted, test_labels, classes);
    let protocol = format!(
        "k nearest neighbors on frozen features; metric, vote, k and temperature from {} settings on {:.0} % of the \
         training set held out (seed {}); tested with all training rows: {:?}, {:?}, k = {}",
        trials.len(),
        100.0 * cfg.holdout,
        cfg.seed,
        chosen.metric,
        chosen.vote,
        chosen.k
    );
    let top5_accuracy = (classes > 10).then_some(top5);
    let most = cfg.k.iter().copied().max().unwrap_or(1);
    let edge = cfg.k.len() > 1 && chosen.k == most && most < kept.len();
    let tried: Vec<f64> = cfg.k.iter().map(|k| *k as f64).collect();
    let doubts = edge.then(|| edge_of_grid("number of neighbors", most as f64, &tried)).into_iter().collect();
    Ok(KnnGridReport { accuracy, top5_accuracy, per_class, confusion, chosen, trials, doubts, protocol })
}

/// The similarity and number of the `k` nearest training rows of each query, the nearest first. Similarities are at
/// most 1 (cosine) or 0 (Euclidean).
fn neighbors(metric: Metric, train: &Rows, queries: &Rows, k: usize) -> Result<Vec<Vec<(f64, u32)>>> {
    let k = k.min(train.n);
    let (train, queries) = match metric {
        Metric::Cosine => (train.unit(), queries.unit()),
        Metric::Euclidean => {
            let squares = train.squares().iter().sum::<f64>() / train.n as f64;
            let scale = if squares > 0.0 { squares.sqrt() } else { 1.0 };
            let scaled =
                |r: &Rows| Rows { n: r.n, d: r.d, values: r.values.iter().map(|v| v / scale).collect() };
            (scaled(train), scaled(queries))
        }
    };
    let (own, others) = (queries.squares(), train.squares());
    let transposed = train.tensor_f32()?.t()?.contiguous()?;
    let queries = queries.tensor_f32()?;
    let mut found = Vec::with_capacity(own.len());
    for start in (0..own.len()).step_by(512) {
        let count = 512.min(own.len() - start);
        let products =
            queries.narrow(0, start, count)?.matmul(&transposed)?.flatten_all()?.to_vec1::<f32>()?;
        let block: Vec<Vec<(f64, u32)>> = products
            .par_chunks(train.n)
            .enumerate()
            .map(|(i, row)| {
                let similarity = |j: usize| match metric {
                    Metric::Cosine => f64::from(row[j]),
                    Metric::Euclidean => {
                        -0.5 * (own[start + i] + others[j] - 2.0 * f64::from(row[j])).max(0.0)
                    }
                };
                let mut all: Vec<(f64, u32)> = (0..train.n).map(|j| (similarity(j), j as u32)).collect();
                let nearer = |a: &(f64, u32), b: &(f64, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
                if k < all.len() {
                    all.select_nth_unstable_by(k - 1, nearer);
                    all.truncate(k);
                }
                all.sort_unstable_by(nearer);
                all
            })
            .collect();
        found.extend(block);
    }
    Ok(found)
}

/// The votes for each class; of the nearest row with exponential weights it is 1.
fn votes(
    metric: Metric,
    near: &[(f64, u32)],
    labels: &[u32],
    k: usize,
    vote: Vote,
    classes: usize,
) -> Vec<f64> {
    let mut votes = vec![0.0; classes];
    let top = near.first().map_or(0.0, |(s, _)| *s);
    // Of unit rows |a - b|^2 = 2 - 2 s; the Euclidean similarity is -|a - b|^2 / 2.
    let offset = if metric == Metric::Cosine { 2.0 } else { 0.0 };
    let distance = |s: f64| (offset - 2.0 * s).max(0.0).sqrt();
    let exact = near.first().is_some_and(|(s, _)| distance(*s) < 1e-6);
    for (s, j) in near.iter().take(k) {
        votes[labels[*j as usize] as usize] += match vote {
            Vote::Uniform => 1.0,
            Vote::Inverse if exact => f64::from(u8::from(distance(*s) < 1e-6)),
            Vote::Inverse => 1.0 / distance(*s),
            Vote::Exponential(t) => ((s - top) / t).exp(),
        };
    }
    votes
}

fn best(votes: &[f64]) -> u32 {
    (0..votes.len()).fold(0, |best, c| if votes[c] > votes[best] { c } else { best }) as u32
}
