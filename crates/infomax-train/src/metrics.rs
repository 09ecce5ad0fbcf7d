//! What one step reports.

use crate::monitor::{EmbeddingStats, HealthState};
use infomax_core::InformationAccount;

/// A part of the objective in one step.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PartValue {
    /// Its name.
    pub name: String,
    /// The unweighted value.
    pub value: f64,
    /// The factor with which it enters the total.
    pub weight: f64,
}

/// What one step reports: a line of `metrics.jsonl`.
///
/// All fields but `time` depend on the configuration alone: a resumed run writes the same ones.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct StepMetrics {
    /// The number of finished steps, this one included.
    pub step: u64,
    /// The epoch of the batch, from 0.
    pub epoch: u64,
    /// The number of steps of the run.
    pub total_steps: u64,
    /// The learning rate of the step.
    pub lr: f64,
    /// The value of the objective.
    pub total: f64,
    /// Its parts.
    pub parts: Vec<PartValue>,
    /// The norm of the gradient, before clipping.
    pub grad_norm: f64,
    /// The monitor's measurement of the projections, in the steps in which it measures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<EmbeddingStats>,
    /// The same of the encoder's features, where the model gives them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<EmbeddingStats>,
    /// The objective's account of its information in nats, in the steps in which the monitor measures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<InformationAccount>,
    /// The monitor's verdict, in the steps in which it measures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthState>,
    /// What differs from run to run.
    pub time: StepTime,
}

/// The times of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct StepTime {
    /// Seconds of training since the start or the resumption.
    pub elapsed_s: f64,
    /// Seconds of this step, the wait for its batch included.
    pub step_s: f64,
    /// Seconds of waiting for the batch.
    pub data_wait_s: f64,
    /// Samples of this step by its seconds.
    pub images_per_s: f64,
    /// Seconds of the loader's threads for reading and decoding, since the start or the resumption, added up.
    #[serde(default)]
    pub decode_s: f64,
    /// The same for augmentation.
    #[serde(default)]
    pub augment_s: f64,
}

/// The length of the part of a metrics file that a run resumed at `step` keeps: all whole lines before the
/// first one of a later step.
pub(crate) fn keep_len(bytes: &[u8], step: u64) -> usize {
    #[derive(serde::Deserialize)]
    struct Line {
        step: u64,
    }
    let mut kept = 0;
    for line in bytes.split_inclusive(|&b| b == b'\n') {
        let whole = line.ends_with(b"\n");
        let later = serde_json::from_slice::<Line>(line).is_ok_and(|line| line.step > step);
        if !whole || later {
            break;
        }
        kept += line.len();
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::keep_len;

    #[test]
    fn later_and_partial_lines_are_cut() {
        let text = b"{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"ste";
        assert_eq!(keep_len(text, 2), 22);
        assert_eq!(keep_len(text, 9), 33);
        assert_eq!(keep_len(text, 0), 0);
        // A foreign line between good ones is none of our business.
        assert_eq!(keep_len(b"?\n{\"step\":1}\n", 1), 13);
    }
}
