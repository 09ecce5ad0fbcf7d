//! What one step reports.

use crate::monitor::{EmbeddingStats, HealthState};
use infomax_core::InformationAccount;
use std::collections::BTreeMap;

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
    /// The weight decay of the step, where it is not constant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// The momentum of the optimizer in the step, where it is not constant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    /// The momentum of the teacher in the step, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher_momentum: Option<f64>,
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
    /// What was measured beside the training, by name, in the steps in which it is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f64>,
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
    /// Seconds of embedding the views; where the batch is embedded in parts, of the first time.
    #[serde(default)]
    pub forward_s: f64,
    /// Seconds of the objective.
    #[serde(default)]
    pub loss_s: f64,
    /// Seconds of the backward pass; where the batch is embedded in parts, with the second embedding.
    #[serde(default)]
    pub backward_s: f64,
    /// Seconds of the optimizer, with the average over the ranks and clipping.
    #[serde(default)]
    pub optimizer_s: f64,
}

impl StepTime {
    /// Seconds of all else: teachers, running state, measurements.
    pub fn other_s(&self) -> f64 {
        let named = self.data_wait_s + self.forward_s + self.loss_s + self.backward_s + self.optimizer_s;
        (self.step_s - named).max(0.0)
    }
}

/// Where the time of several steps went, in seconds. An accelerator works behind the host: there the seconds of a part
/// are those until the host went on, and what it waits for is found where it reads values, in the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TimeTotals {
    /// The steps.
    pub steps: u64,
    /// All of them.
    pub total_s: f64,
    /// Waiting for batches.
    pub data_s: f64,
    /// Embedding the views.
    pub forward_s: f64,
    /// The objective.
    pub loss_s: f64,
    /// The backward pass.
    pub backward_s: f64,
    /// The optimizer.
    pub optimizer_s: f64,
    /// All else.
    pub other_s: f64,
}

impl TimeTotals {
    /// Adds a step.
    pub fn add(&mut self, step: &StepTime) {
        self.steps += 1;
        for (sum, seconds) in [
            (&mut self.total_s, step.step_s),
            (&mut self.data_s, step.data_wait_s),
            (&mut self.forward_s, step.forward_s),
            (&mut self.loss_s, step.loss_s),
            (&mut self.backward_s, step.backward_s),
            (&mut self.optimizer_s, step.optimizer_s),
            (&mut self.other_s, step.other_s()),
        ] {
            *sum += seconds;
        }
    }
}

impl std::fmt::Display for TimeTotals {
    /// `92 ms a step: data 1 %, forward 40 %, ...`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let each = 1e3 * self.total_s / self.steps.max(1) as f64;
        write!(f, "{each:.1} ms a step")?;
        for (at, (name, seconds)) in [
            ("data", self.data_s),
            ("forward", self.forward_s),
            ("loss", self.loss_s),
            ("backward", self.backward_s),
            ("optimizer", self.optimizer_s),
            ("other", self.other_s),
        ]
        .into_iter()
        .enumerate()
        {
            let sign = if at == 0 { ':' } else { ',' };
            write!(f, "{sign} {name} {:.1} %", 100.0 * seconds / self.total_s.max(1e-12))?;
        }
        Ok(())
    }
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
    use super::{StepTime, TimeTotals, keep_len};

    #[test]
    fn times_add_up_to_the_whole() {
        let step = StepTime {
            step_s: 1.0,
            data_wait_s: 0.1,
            forward_s: 0.3,
            loss_s: 0.1,
            backward_s: 0.3,
            optimizer_s: 0.1,
            ..StepTime::default()
        };
        assert!((step.other_s() - 0.1).abs() < 1e-12);
        let mut totals = TimeTotals::default();
        totals.add(&step);
        totals.add(&StepTime { step_s: 3.0, forward_s: 3.0, ..StepTime::default() });
        assert_eq!((totals.steps, totals.total_s), (2, 4.0));
        assert_eq!(
            totals.to_string(),
            "2000.0 ms a step: data 2.5 %, forward 82.5 %, loss 2.5 %, backward 7.5 %, optimizer 2.5 %, other 2.5 %"
        );
    }

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
