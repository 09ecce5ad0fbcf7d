//! The linear probe by stochastic gradient descent, with the protocols of published evaluations.

use super::linear::{accuracy, argmax, standardize, top5};
use super::scores::{Calibration, calibration, ln_probabilities};
use crate::matrix;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use infomax_core::Key;
use rand::RngExt as _;
use serde::Serialize;

/// How the learning rate falls.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// By a half cosine to 0, each epoch.
    Cosine,
    /// By a factor of 0.1 at these epochs.
    Steps(Vec<usize>),
}

/// The settings of [`sgd_probe`].
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SgdProbeConfig {
    /// Whose protocol it is, for the report.
    pub name: String,
    /// The learning rate at the start.
    pub lr: f64,
    /// How it falls.
    pub decay: Decay,
    /// The momentum.
    pub momentum: f64,
    /// The penalty `weight_decay / 2 |W|^2`, biases included, as in PyTorch.
    pub weight_decay: f64,
    /// The rows of a step.
    pub batch: usize,
    /// The passes over the training rows.
    pub epochs: usize,
    /// Whether columns get mean 0 and deviation 1 first. The published protocols do not.
    pub standardize: bool,
    /// The seed of the order of rows and of the weights at the start.
    pub seed: u64,
}

impl SgdProbeConfig {
    /// The linear evaluation of solo-learn on CIFAR: 0.1, tenfold lower at epochs 60 and 80 of 100, momentum 0.9, no
    /// decay of weights, batches of 256.
    pub fn solo_learn() -> Self {
        Self {
            name: "solo-learn".into(),
            lr: 0.1,
            decay: Decay::Steps(vec![60, 80]),
            momentum: 0.9,
            weight_decay: 0.0,
            batch: 256,
            epochs: 100,
            standardize: false,
            seed: 0,
        }
    }

    /// The linear evaluation of VICReg (`evaluate.py` of its authors): 0.3, half a cosine over 100 epochs, momentum 0.9,
    /// `1e-6` decay of weights, batches of 256.
    pub fn vicreg() -> Self {
        Self {
            name: "vicreg".into(),
            lr: 0.3,
            decay: Decay::Cosine,
            weight_decay: 1e-6,
            ..Self::solo_learn()
        }
    }

    fn rate(&self, epoch: usize) -> f64 {
        match &self.decay {
            Decay::Cosine => {
                0.5 * self.lr * (1.0 + (std::f64::consts::PI * epoch as f64 / self.epochs as f64).cos())
            }
            Decay::Steps(at) => self.lr * 0.1f64.powi(at.iter().filter(|e| **e <= epoch).count() as i32),
        }
    }
}

/// The result of [`sgd_probe`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SgdProbeReport {
    /// The share of test samples whose class is predicted after the last epoch.
    pub accuracy: f64,
    /// The share of test samples whose class is among the five most probable, for more than 10 classes.
    pub top5_accuracy: Option<f64>,
    /// The accuracy on each class; `None` for a class without test samples.
    pub per_class: Vec<Option<f64>>,
    /// `confusion[t][p]`: test samples of class `t` that were predicted as `p`.
    pub confusion: Vec<Vec<u32>>,
    /// The quality of the predicted probabilities on the test samples.
    pub calibration: Calibration,
    /// The mean cross-entropy of the last epoch's batches, in nats.
    pub train_loss: f64,
    /// How it was done, in words.
    pub protocol: String,
}

/// Fits `softmax(x W + b)` by stochastic gradient descent with momentum and reports the accuracy on test rows after the
/// last epoch: no setting is chosen by looking at them.
///
/// What differs from the published protocols: features are frozen once, so that images are not augmented. Weights start
/// uniformly in `+-1 / sqrt(D)` as in PyTorch; the last batch of an epoch may be smaller. The same seed gives the same
/// bits.
///
/// # Errors
/// Shapes and labels that do not fit, values that are not finite, a single training class, settings out of range, or a
/// loss that is not finite any more: the learning rate is too large for the scale of the features.
pub fn sgd_probe(
    train: &Tensor,
    train_labels: &[u32],
    test: &Tensor,
    test_labels: &[u32],
    cfg: &SgdProbeConfig,
) -> Result<SgdProbeReport> {
    const OP: &str = "sgd_probe";
    if !(cfg.lr > 0.0 && cfg.lr.is_finite() && (0.0..1.0).contains(&cfg.momentum) && cfg.weight_decay >= 0.0)
        || cfg.batch == 0
        || cfg.epochs == 0
    {
        let value = format!("{cfg:?}");
        let reason =
            "needs a positive lr, momentum from 0 to 1, weight_decay of at least 0, and one epoch and row";
        return Err(Error::Config { key: "sgd_probe", value, reason });
    }
    let train = matrix::labeled(OP, "train", train, train_labels)?;
    let test = matrix::labeled(OP, "test", test, test_labels)?;
    matrix::same_width(OP, &train, &test)?;
    let classes = matrix::classes(OP, train_labels, test_labels)?;
    let (x, t) = match cfg.standardize {
        true => standardize(&train, &test)?,
        false => (train.tensor_f32()?, test.tensor_f32()?),
    };
    let (n, d) = (train.n, train.d);
    let key = Key::new(cfg.seed).fold_named("sgd-probe");
    let reach = 1.0 / (d as f64).sqrt();
    let start = key.fold_named("weights");
    let mut w = start.uniform(-reach, reach, (d, classes), candle_core::DType::F32, &Device::Cpu)?;
    let mut b =
        start.fold_in(1).uniform(-reach, reach, (1, classes), candle_core::DType::F32, &Device::Cpu)?;
    let (mut vw, mut vb) = (w.zeros_like()?, b.zeros_like()?);
    let mut train_loss = 0.0;
    for epoch in 0..cfg.epochs {
        let order = crate::estimate::permutation(key.fold_in(epoch as u64), n);
        let lr = cfg.rate(epoch);
        train_loss = 0.0;
        for rows in order.chunks(cfg.batch) {
            let index: Vec<u32> = rows.iter().map(|&i| i as u32).collect();
            let batch = x.index_select(&Tensor::from_vec(index, rows.len(), &Device::Cpu)?, 0)?;
            let logits = batch.matmul(&w)?.broadcast_add(&b)?;
            let (residual, loss) = residual(&logits, rows, train_labels, classes)?;
            train_loss += loss * rows.len() as f64 / n as f64;
            let gw = (batch.t()?.contiguous()?.matmul(&residual)? + (&w * cfg.weight_decay)?)?;
            let gb = (residual.sum_keepdim(0)? + (&b * cfg.weight_decay)?)?;
            vw = ((vw * cfg.momentum)? + gw)?;
            vb = ((vb * cfg.momentum)? + gb)?;
            w = (w - (&vw * lr)?)?;
            b = (b - (&vb * lr)?)?;
        }
        if !train_loss.is_finite() {
            return Err(Error::Config {
                key: "sgd_probe.lr",
                value: cfg.lr.to_string(),
                reason: "the loss is not finite any more: take a smaller rate, or standardize the features",
            });
        }
    }
    let logits = t.matmul(&w)?.broadcast_add(&b)?;
    let predicted = argmax(&logits)?;
    let mut confusion = vec![vec![0u32; classes]; classes];
    predicted.iter().zip(test_labels).for_each(|(p, t)| confusion[*t as usize][*p as usize] += 1);
    let (accuracy, per_class) = accuracy(&predicted, test_labels, classes);
    let decay = match &cfg.decay {
        Decay::Cosine => "half a cosine to 0".to_owned(),
        Decay::Steps(at) => format!("a tenth at epochs {at:?}"),
    };
    Ok(SgdProbeReport {
        accuracy,
        top5_accuracy: if classes > 10 { Some(top5(&logits, test_labels)?) } else { None },
        per_class,
        confusion,
        calibration: calibration(&ln_probabilities(&logits)?, test_labels),
        train_loss,
        protocol: format!(
            "linear layer on frozen{} features by SGD as in {} (without augmentation): lr {}, {decay}, momentum {}, \
             weight decay {}, batch {}, {} epochs, seed {}; the last epoch is reported",
            if cfg.standardize { " standardized" } else { "" },
            cfg.name,
            cfg.lr,
            cfg.momentum,
            cfg.weight_decay,
            cfg.batch,
            cfg.epochs,
            cfg.seed
        ),
    })
}

/// `(softmax - one-hot) / B`, and the mean cross-entropy of the batch.
fn residual(logits: &Tensor, rows: &[usize], labels: &[u32], classes: usize) -> Result<(Tensor, f64)> {
    let size = rows.len() as f64;
    let ln_q = ln_probabilities(logits)?;
    let mut values = Vec::with_capacity(rows.len() * classes);
    let mut loss = 0.0;
    for (row, &i) in ln_q.iter().zip(rows) {
        let own = labels[i] as usize;
        loss -= row[own] / size;
        let target = |c: usize| if c == own { 1.0 } else { 0.0 };
        values.extend(row.iter().enumerate().map(|(c, l)| ((l.exp() - target(c)) / size) as f32));
    }
    Ok((Tensor::from_vec(values, (rows.len(), classes), &Device::Cpu)?, loss))
}

/// Rows held out for a choice, and the others, both ascending: each is held with the probability `share`.
pub(super) fn held_out(n: usize, share: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut rng = Key::new(seed).fold_named("held-out").rng();
    let draws: Vec<f64> = (0..n).map(|_| rng.random::<f64>()).collect();
    (0..n).partition(|&i| draws[i] < share)
}
