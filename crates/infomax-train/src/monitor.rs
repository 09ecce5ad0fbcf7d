//! Tells a healthy embedding from a collapsed one.

use crate::{MonitorConfig, Result};
use candle_core::{D, DType, Device, Tensor};

/// The spread of one view of a batch of embeddings `z` of shape `(B, D)`.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct EmbeddingStats {
    /// The mean over dimensions of the standard deviation over the batch (divisor `B - 1`).
    pub std_mean: f64,
    /// The smallest standard deviation of a dimension.
    pub std_min: f64,
    /// `sqrt(D)` times the mean standard deviation of `z / ||z||`: about 1 if directions are spread evenly,
    /// 0 if all are equal.
    pub std_l2_normalized: f64,
    /// The participation ratio `(tr S)^2 / ||S||_F^2` of the covariance `S`: from 1 (a line) to
    /// `min(B - 1, D)`; 0 for a constant embedding. It needs no eigenvalues: `||S||_F` is that of the
    /// smaller of the two Gram matrices.
    pub participation_ratio: f64,
    /// The largest rank that this batch could show, `min(B - 1, D)`.
    pub attainable_rank: f64,
}

impl EmbeddingStats {
    /// Measures one view, in f64 on the CPU.
    ///
    /// # Errors
    /// A tensor that is not a matrix.
    pub fn of(z: &Tensor) -> Result<Self> {
        let z = z.detach().to_device(&Device::Cpu)?.to_dtype(DType::F64)?;
        let (b, d) = z.dims2()?;
        let divisor = b.saturating_sub(1).max(1) as f64;
        let std = |z: &Tensor| -> candle_core::Result<(Tensor, Vec<f64>)> {
            let centered = z.broadcast_sub(&z.mean_keepdim(0)?)?;
            let std = (centered.sqr()?.sum(0)? / divisor)?.sqrt()?.to_vec1::<f64>()?;
            Ok((centered, std))
        };
        let (centered, stds) = std(&z)?;
        // A zero row has no direction: it stays zero.
        let norms = (z.sqr()?.sum_keepdim(D::Minus1)?.sqrt()? + 1e-300)?;
        let (_, unit_stds) = std(&z.broadcast_div(&norms)?)?;
        let gram = match b < d {
            true => centered.matmul(&centered.t()?)?,
            false => centered.t()?.contiguous()?.matmul(&centered)?,
        };
        let trace = centered.sqr()?.sum_all()?.to_scalar::<f64>()?;
        let frobenius = gram.sqr()?.sum_all()?.to_scalar::<f64>()?;
        let mean = |xs: &[f64]| xs.iter().sum::<f64>() / xs.len() as f64;
        Ok(Self {
            std_mean: mean(&stds),
            std_min: stds.iter().copied().fold(f64::INFINITY, f64::min),
            std_l2_normalized: (d as f64).sqrt() * mean(&unit_stds),
            participation_ratio: if frobenius > 0.0 { trace * trace / frobenius } else { 0.0 },
            attainable_rank: b.saturating_sub(1).min(d) as f64,
        })
    }
}

/// The verdict on an embedding.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum HealthState {
    /// Spread, as far as the monitor can tell.
    #[default]
    Healthy,
    /// Close to a collapse.
    Warning,
    /// All inputs get (nearly) the same embedding, or embeddings on a line.
    Collapsed,
}

impl HealthState {
    /// The verdict in words.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Warning => "close to a collapse",
            Self::Collapsed => "collapsed",
        }
    }
}

/// The verdict with its reason and what to change.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Health {
    /// The verdict.
    pub state: HealthState,
    /// The number of finished steps when it was reached.
    pub step: u64,
    /// What was measured and what to change; empty if healthy.
    pub advice: String,
}

/// Judges a series of measurements: the best of the last `patience` counts, so a single bad batch is no
/// collapse.
#[derive(Debug)]
pub(crate) struct Monitor {
    config: MonitorConfig,
    recent: Vec<(HealthState, String)>,
    health: Health,
}

impl Monitor {
    pub(crate) fn new(config: MonitorConfig) -> Self {
        Self { config, recent: Vec::new(), health: Health::default() }
    }

    /// Whether the step that will be number `step` is measured.
    pub(crate) fn is_due(&self, step: u64) -> bool {
        self.config.every > 0 && step.is_multiple_of(self.config.every)
    }

    /// Whether the step that will be number `step` can bring the verdict of a collapse.
    pub(crate) fn may_collapse(&self, step: u64) -> bool {
        let before = self.config.patience.max(1) - 1;
        let fresh = step > self.config.grace_steps && self.health.state != HealthState::Collapsed;
        let collapsed = self.recent.iter().rev().take(before);
        fresh
            && self.is_due(step)
            && self.recent.len() >= before
            && collapsed.into_iter().all(|(state, _)| *state == HealthState::Collapsed)
    }

    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// Whether there were enough measurements for a verdict.
    pub(crate) fn has_judged(&self) -> bool {
        self.recent.len() >= self.config.patience.max(1)
    }

    /// The verdicts that still count, for a checkpoint.
    pub(crate) fn memory(&self) -> (&[(HealthState, String)], &Health) {
        (&self.recent, &self.health)
    }

    pub(crate) fn restore(&mut self, recent: Vec<(HealthState, String)>, health: Health) {
        (self.recent, self.health) = (recent, health);
    }

    /// Takes a measurement; true if the verdict changed.
    pub(crate) fn observe(&mut self, step: u64, stats: &EmbeddingStats) -> bool {
        if step <= self.config.grace_steps {
            return false;
        }
        self.recent.push(self.judge(stats));
        let patience = self.config.patience.max(1);
        if self.recent.len() > patience {
            self.recent.remove(0);
        }
        if self.recent.len() < patience {
            return false;
        }
        let best = self.recent.iter().map(|(state, _)| *state).min().unwrap_or_default();
        let advice = self.recent.iter().rev().find(|(state, _)| *state == best);
        let changed = best != self.health.state;
        if changed {
            let advice = advice.map(|(_, text)| text.clone()).unwrap_or_default();
            self.health = Health { state: best, step, advice };
        }
        changed
    }

    fn judge(&self, stats: &EmbeddingStats) -> (HealthState, String) {
        let c = &self.config;
        let grade = |value: f64, collapsed: f64, warning: f64| match value {
            v if v < collapsed => HealthState::Collapsed,
            v if v < warning => HealthState::Warning,
            _ => HealthState::Healthy,
        };
        let spread = grade(stats.std_l2_normalized, c.collapsed_std, c.warning_std);
        // Ranks mean something only where there is room for more than the threshold.
        let room = stats.attainable_rank >= 2.0 * c.warning_rank;
        let rank = match room {
            true => grade(stats.participation_ratio, c.collapsed_rank, c.warning_rank),
            false => HealthState::Healthy,
        };
        if spread >= rank && spread > HealthState::Healthy {
            let text = format!(
                "all inputs get nearly the same direction (std of the normalized embedding {:.4} of about 1): \
                 raise the weight of the entropy terms (for VICReg the variance), lower the learning rate or \
                 lengthen the warm-up, and check that the projector ends without a ReLU",
                stats.std_l2_normalized
            );
            return (spread, text);
        }
        if rank > HealthState::Healthy {
            let text = format!(
                "the embedding lies on few directions (participation ratio {:.2} of at most {:.0}): raise the weight \
                 of the decorrelation or log-det term, use a larger batch, or lower the learning rate",
                stats.participation_ratio, stats.attainable_rank
            );
            return (rank, text);
        }
        (HealthState::Healthy, String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use infomax_core::Key;

    fn normal(b: usize, d: usize) -> Tensor {
        Key::new(1).normal(0.0, 1.0, (b, d), DType::F64, &Device::Cpu).unwrap()
    }

    #[test]
    fn known_embeddings_have_known_ranks() {
        // Rows +-e_i: the covariance is a multiple of the identity.
        let mut rows = [[0f64; 4]; 8];
        (0..4).for_each(|i| (rows[2 * i][i], rows[2 * i + 1][i]) = (1.0, -1.0));
        let stats = EmbeddingStats::of(&Tensor::new(&rows, &Device::Cpu).unwrap()).unwrap();
        assert!((stats.participation_ratio - 4.0).abs() < 1e-12);
        let std = (2f64 / 7.0).sqrt();
        assert!((stats.std_mean - std).abs() < 1e-12 && (stats.std_min - std).abs() < 1e-12);
        assert!((stats.std_l2_normalized - 2.0 * std).abs() < 1e-12);

        let line = normal(20, 1).matmul(&normal(1, 6)).unwrap();
        assert!((EmbeddingStats::of(&line).unwrap().participation_ratio - 1.0).abs() < 1e-9);
        let constant = Tensor::ones((20, 6), DType::F32, &Device::Cpu).unwrap();
        let stats = EmbeddingStats::of(&constant).unwrap();
        assert_eq!((stats.participation_ratio, stats.std_mean, stats.std_l2_normalized), (0.0, 0.0, 0.0));
    }

    #[test]
    fn both_gram_matrices_give_one_rank() {
        let z = normal(12, 12);
        let tall = EmbeddingStats::of(&z).unwrap().participation_ratio;
        let padded = z.pad_with_zeros(1, 0, 3).unwrap();
        assert!((EmbeddingStats::of(&padded).unwrap().participation_ratio - tall).abs() < 1e-9);
    }

    #[test]
    fn a_collapse_is_seen_after_patience_and_grace_and_healed() {
        let mut monitor = Monitor::new(MonitorConfig { grace_steps: 5, patience: 2, ..Default::default() });
        let spread = EmbeddingStats::of(&normal(64, 16)).unwrap();
        let constant =
            EmbeddingStats::of(&Tensor::ones((64, 16), DType::F64, &Device::Cpu).unwrap()).unwrap();
        let line = EmbeddingStats::of(&normal(64, 1).matmul(&normal(1, 16)).unwrap()).unwrap();
        assert!(!monitor.observe(5, &constant) && !monitor.observe(6, &constant));
        assert!(monitor.observe(7, &constant));
        assert_eq!(monitor.health().state, HealthState::Collapsed);
        assert!(monitor.health().advice.contains("variance"));
        assert!(monitor.observe(8, &spread));
        assert_eq!(monitor.health().state, HealthState::Healthy);
        monitor.observe(9, &line);
        assert!(monitor.observe(10, &line));
        assert!(monitor.health().advice.contains("participation ratio 1.00"), "{}", monitor.health().advice);
    }
}
