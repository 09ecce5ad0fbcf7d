//! Probes that see a few rows of each class.

use super::linear::{LinearProbeConfig, linear_probe};
use crate::estimate::{Doubt, Estimate, Resampling, choose};
use crate::matrix;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use infomax_core::Key;
use serde::Serialize;

/// The settings of [`few_shot`].
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct FewShotConfig {
    /// Training rows of each class.
    pub shots: usize,
    /// How often they are drawn.
    pub draws: usize,
    /// The penalty of the logistic regression: a few rows leave none to choose it on.
    pub l2: f64,
    /// The level of the interval.
    pub level: f64,
    /// The seed of the draws.
    pub seed: u64,
}

impl Default for FewShotConfig {
    /// Five rows a class, 20 draws, `l2 = 0.01`, level 0.9, seed 0.
    fn default() -> Self {
        Self { shots: 5, draws: 20, l2: 1e-2, level: 0.9, seed: 0 }
    }
}

/// The result of [`few_shot`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FewShotReport {
    /// The mean accuracy on the test rows over the draws; its interval is that of the mean over draws.
    pub accuracy: Estimate,
    /// The accuracy of each draw.
    pub draws: Vec<f64>,
    /// The standard deviation over draws.
    pub deviation: f64,
    /// How it was done, in words.
    pub protocol: String,
}

/// The linear probe on `shots` training rows of each class, drawn many times without replacement, always on all test
/// rows.
///
/// # Errors
/// As [`linear_probe`], settings out of range, or a class with fewer training rows than `shots`.
pub fn few_shot(
    train: &Tensor,
    train_labels: &[u32],
    test: &Tensor,
    test_labels: &[u32],
    cfg: &FewShotConfig,
) -> Result<FewShotReport> {
    const OP: &str = "few_shot";
    if cfg.shots == 0 || cfg.draws < 2 {
        let value = format!("shots {}, draws {}", cfg.shots, cfg.draws);
        let reason = "needs at least one row a class and two draws";
        return Err(Error::Config { key: "few_shot", value, reason });
    }
    let rows = matrix::labeled(OP, "train", train, train_labels)?;
    let classes = matrix::classes(OP, train_labels, test_labels)?;
    let mut members = vec![Vec::new(); classes];
    train_labels.iter().enumerate().for_each(|(i, l)| members[*l as usize].push(i));
    members.retain(|m| !m.is_empty());
    let least = members.iter().map(Vec::len).min().unwrap_or(0);
    if least < cfg.shots {
        return Err(Error::TooFew { op: OP, name: "the smallest class", rows: least, needed: cfg.shots });
    }
    let probe = LinearProbeConfig { l2: vec![cfg.l2], holdout: 0.0, ..LinearProbeConfig::default() };
    let key = Key::new(cfg.seed).fold_named("few-shot");
    let mut draws = Vec::with_capacity(cfg.draws);
    for draw in 0..cfg.draws as u64 {
        let of_class = |(class, own): (usize, &Vec<usize>)| -> Vec<usize> {
            let key = key.fold_in(draw).fold_in(class as u64);
            choose(key, own.len(), cfg.shots).into_iter().map(|i| own[i]).collect()
        };
        let chosen: Vec<usize> = members.iter().enumerate().flat_map(of_class).collect();
        let labels: Vec<u32> = chosen.iter().map(|&i| train_labels[i]).collect();
        let some = rows.select(&chosen);
        let some = Tensor::from_vec(some.values, (some.n, some.d), &Device::Cpu)?;
        draws.push(linear_probe(&some, &labels, test, test_labels, &probe)?.accuracy);
    }
    let level = Resampling { level: cfg.level, ..Resampling::default() };
    let mut accuracy = level.mean(&draws)?;
    accuracy.n = test_labels.len();
    if let Some(interval) = &mut accuracy.interval {
        interval.method = format!("standard error over {} draws of the training rows, normal", cfg.draws);
    }
    if least < 2 * cfg.shots {
        let message =
            format!("the smallest class has {least} rows: draws of {} share most of them", cfg.shots);
        accuracy.doubts.push(Doubt::new("few-samples", message));
    }
    Ok(FewShotReport {
        accuracy,
        deviation: crate::estimate::variance(&draws).sqrt(),
        protocol: format!(
            "logistic regression (l2 = {}) on {} rows of each class, {} draws, all test rows",
            cfg.l2, cfg.shots, cfg.draws
        ),
        draws,
    })
}
