//! How good predicted probabilities are, beside their largest one.

use candle_core::Tensor;
use serde::Serialize;

use crate::Result;

/// The quality of predicted probabilities on test rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// The mean of `-ln q(y | z)`, in nats.
    pub cross_entropy: f64,
    /// The mean over rows of `sum_c (q_c - 1[y = c])^2` (Brier 1950): 0 to 2.
    pub brier: f64,
    /// The expected calibration error (Guo et al., arXiv:1706.04599): over 15 bins of equal width of the largest
    /// probability, the mean difference of the accuracy and that probability, weighted by rows.
    pub expected_error: f64,
}

/// `ln softmax` of each row, in f64.
pub(super) fn ln_probabilities(logits: &Tensor) -> Result<Vec<Vec<f64>>> {
    let normalize = |row: Vec<f32>| {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|v| f64::from(v - max).exp()).sum();
        row.iter().map(|v| f64::from(v - max) - sum.ln()).collect()
    };
    Ok(logits.to_vec2::<f32>()?.into_iter().map(normalize).collect())
}

pub(super) fn calibration(ln_q: &[Vec<f64>], labels: &[u32]) -> Calibration {
    const BINS: usize = 15;
    let n = labels.len() as f64;
    let (mut cross_entropy, mut brier) = (0.0, 0.0);
    // Rows, right ones, and summed confidence of each bin.
    let mut bins = [(0.0, 0.0, 0.0); BINS];
    for (row, label) in ln_q.iter().zip(labels) {
        let own = *label as usize;
        cross_entropy -= row[own] / n;
        let mut best = 0;
        for (class, l) in row.iter().enumerate() {
            let target = if class == own { 1.0 } else { 0.0 };
            brier += (l.exp() - target).powi(2) / n;
            if *l > row[best] {
                best = class;
            }
        }
        let confidence = row[best].exp();
        let bin = &mut bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
        bin.0 += 1.0;
        bin.1 += if best == own { 1.0 } else { 0.0 };
        bin.2 += confidence;
    }
    let expected_error = bins.iter().map(|(_, right, sum)| (right - sum).abs() / n).sum();
    Calibration { cross_entropy, brier, expected_error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worked_example() {
        let q = [[0.9f64, 0.1], [0.6, 0.4], [0.2, 0.8]].map(|r| r.map(f64::ln).to_vec());
        let c = calibration(&q, &[0, 1, 1]);
        assert!((c.cross_entropy + (0.9f64.ln() + 0.4f64.ln() + 0.8f64.ln()) / 3.0).abs() < 1e-12);
        assert!((c.brier - (0.02 + 0.72 + 0.08) / 3.0).abs() < 1e-12);
        // Confidences 0.9, 0.6 and 0.8 lie in three bins: right, wrong, right.
        assert!((c.expected_error - (0.1 + 0.6 + 0.2) / 3.0).abs() < 1e-12);
    }
}
