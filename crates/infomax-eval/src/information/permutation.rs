//! Whether two variables depend on each other at all.

use super::continuous::{KsgConfig, ksg, prepare};
use super::labels::ross;
use crate::estimate::permutation;
use crate::{Error, Result, matrix};
use candle_core::Tensor;
use infomax_core::Key;
use rayon::prelude::*;
use serde::Serialize;

/// The result of a permutation test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PermutationTest {
    /// The estimate of the rows as they are, in nats.
    pub value: f64,
    /// `(1 + #{permuted >= value}) / (1 + permutations)`: exact under independence, never 0.
    pub p_value: f64,
    /// The mean over permutations: what the estimator reports where there is nothing.
    pub null_mean: f64,
    /// The number of permutations.
    pub permutations: usize,
    /// The rows that took part.
    pub n: usize,
}

/// The independence of two continuous variables by [`super::mutual_information`] under permutations of the rows of
/// `y`. Cost: that of one estimate for each permutation.
///
/// # Errors
/// As [`super::mutual_information`], or no permutation.
pub fn mutual_information_permutation_test(
    x: &Tensor,
    y: &Tensor,
    cfg: &KsgConfig,
    permutations: usize,
    seed: u64,
) -> Result<PermutationTest> {
    let (x, y) = prepare("mutual_information_permutation_test", x, y, cfg)?;
    test(x.n, permutations, seed, |order| {
        Ok(ksg(&x, &order.map_or_else(|| y.clone(), |o| y.select(o)), cfg)?.0)
    })
}

/// The independence of embeddings and labels by [`super::mixed_mutual_information`] under permutations of the
/// labels.
///
/// # Errors
/// As [`super::mixed_mutual_information`], or no permutation.
pub fn label_permutation_test(
    z: &Tensor,
    labels: &[u32],
    k: usize,
    permutations: usize,
    seed: u64,
) -> Result<PermutationTest> {
    const OP: &str = "label_permutation_test";
    let rows = matrix::labeled(OP, "z", z, labels)?;
    matrix::classes(OP, labels, labels)?;
    if k == 0 {
        return Err(Error::Config { key: "k", value: "0".into(), reason: "must be at least 1" });
    }
    test(rows.n, permutations, seed, |order| {
        let moved: Vec<u32> = match order {
            Some(order) => order.iter().map(|&i| labels[i]).collect(),
            None => labels.to_vec(),
        };
        Ok(ross(&rows, &moved, k)?.0)
    })
}

pub(super) fn test(
    n: usize,
    permutations: usize,
    seed: u64,
    estimate: impl Fn(Option<&[usize]>) -> Result<f64> + Sync,
) -> Result<PermutationTest> {
    test_by(n, permutations, seed, |key| permutation(key, n), estimate)
}

/// [`test`] with what a draw does to the rows.
pub(super) fn test_by(
    n: usize,
    permutations: usize,
    seed: u64,
    draw: impl Fn(Key) -> Vec<usize> + Sync,
    estimate: impl Fn(Option<&[usize]>) -> Result<f64> + Sync,
) -> Result<PermutationTest> {
    if permutations == 0 {
        let reason = "must be at least 1; 99 allow a p-value of 0.01";
        return Err(Error::Config { key: "permutations", value: "0".into(), reason });
    }
    let value = estimate(None)?;
    let key = Key::new(seed).fold_named("permutation");
    let drawn: Vec<f64> = (0..permutations as u64)
        .into_par_iter()
        .map(|at| estimate(Some(&draw(key.fold_in(at)))))
        .collect::<Result<_>>()?;
    let above = drawn.iter().filter(|v| **v >= value).count();
    Ok(PermutationTest {
        value,
        p_value: (1 + above) as f64 / (1 + permutations) as f64,
        null_mean: drawn.iter().sum::<f64>() / permutations as f64,
        permutations,
        n,
    })
}
