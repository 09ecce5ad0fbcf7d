//! The weighted k-nearest-neighbor classifier.

use crate::{Error, Result, matrix};
use candle_core::Tensor;
use rayon::prelude::*;
use serde::Serialize;

/// The settings of [`knn`].
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct KnnConfig {
    /// The number of neighbors; at most the number of training samples are used.
    pub k: usize,
    /// The temperature `T` of the weights `exp(cos / T)`.
    pub temperature: f64,
}

impl Default for KnnConfig {
    /// `k = 200`, `T = 0.1`: Wu et al. (arXiv:1805.01978) use 0.07; lightly and others 0.1.
    fn default() -> Self {
        Self { k: 200, temperature: 0.1 }
    }
}

impl KnnConfig {
    /// Refuses settings out of their range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting.
    pub fn check(&self) -> Result<()> {
        if self.k == 0 {
            return Err(Error::Config { key: "knn.k", value: "0".into(), reason: "must be at least 1" });
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            let value = self.temperature.to_string();
            return Err(Error::Config {
                key: "knn.temperature",
                value,
                reason: "must be positive and finite",
            });
        }
        Ok(())
    }
}

/// The result of [`knn`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KnnReport {
    /// The share of test samples whose class is predicted.
    pub accuracy: f64,
    /// The neighbors used: `k`, or the number of training samples.
    pub k: usize,
    /// The temperature.
    pub temperature: f64,
    /// The accuracy on each class; `None` for a class without test samples.
    pub per_class: Vec<Option<f64>>,
}

/// Classifies each test row by the `k` training rows of the largest cosine similarity, each voting for its
/// class with the weight `exp(cos / T)` (Wu et al., arXiv:1805.01978).
///
/// Rows of zero norm have cosine 0 to everything; the scale of the features does not matter. Exact, and deterministic: of equal similarities the earlier
/// training row is the nearer, and of equal votes the smaller class wins. Cost: one matrix product of
/// `N_test N_train D`, in blocks.
///
/// # Errors
/// Shapes and labels that do not fit, values that are not finite, a single training class, or settings out
/// of range.
pub fn knn(
    train: &Tensor,
    train_labels: &[u32],
    test: &Tensor,
    test_labels: &[u32],
    cfg: &KnnConfig,
) -> Result<KnnReport> {
    const OP: &str = "knn";
    const BLOCK: usize = 512;
    cfg.check()?;
    let train = matrix::labeled(OP, "train", train, train_labels)?;
    let test = matrix::labeled(OP, "test", test, test_labels)?;
    matrix::same_width(OP, &train, &test)?;
    let classes = matrix::classes(OP, train_labels, test_labels)?;
    let n = train_labels.len();
    let k = cfg.k.min(n);

    // Lengths in f64: the squares of features at 1e20 overflow f32, and those at 1e-13 vanish beside any floor.
    let (train, test) = (train.unit().tensor_f32()?, test.unit().tensor_f32()?);
    let transposed = train.t()?.contiguous()?;
    let mut predicted = Vec::with_capacity(test_labels.len());
    for start in (0..test_labels.len()).step_by(BLOCK) {
        let rows = BLOCK.min(test_labels.len() - start);
        let similarity = test.narrow(0, start, rows)?.matmul(&transposed)?.flatten_all()?.to_vec1::<f32>()?;
        let block: Vec<u32> = similarity
            .par_chunks(n)
            .map(|row| vote(row, train_labels, k, cfg.temperature, classes))
            .collect();
        predicted.extend(block);
    }
    let (accuracy, per_class) = super::linear::accuracy(&predicted, test_labels, classes);
    Ok(KnnReport { accuracy, k, temperature: cfg.temperature, per_class })
}

fn vote(similarity: &[f32], labels: &[u32], k: usize, temperature: f64, classes: usize) -> u32 {
    let mut order: Vec<u32> = (0..similarity.len() as u32).collect();
    let nearer =
        |&a: &u32, &b: &u32| similarity[b as usize].total_cmp(&similarity[a as usize]).then(a.cmp(&b));
    if k < order.len() {
        order.select_nth_unstable_by(k - 1, nearer);
        order.truncate(k);
    }
    // A fixed order of summation, whatever the selection left.
    order.sort_unstable();
    // exp((s - max) / T): the common factor changes no vote and cannot overflow.
    let max = order.iter().map(|&i| similarity[i as usize]).fold(f32::NEG_INFINITY, f32::max);
    let mut votes = vec![0f64; classes];
    for &i in &order {
        votes[labels[i as usize] as usize] += (f64::from(similarity[i as usize] - max) / temperature).exp();
    }
    let mut best = 0;
    for class in 1..classes {
        if votes[class] > votes[best] {
            best = class;
        }
    }
    best as u32
}
