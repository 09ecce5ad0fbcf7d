//! The ridge probe: least squares on one-hot labels, in closed form.

use super::linear::{accuracy, decade, edge_of_grid, standardize};
use crate::estimate::Doubt;
use crate::matrix;
use crate::{Error, Result};
use candle_core::{D, DType, Tensor};
use infomax_kernels::linalg;
use serde::Serialize;

/// The settings of [`ridge_probe`].
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RidgeConfig {
    /// The penalties to choose from, relative to the number of training rows. Where the best of several lies at an end,
    /// the grid is widened by decades beyond it while that is better, between `1e-10` and `1e4`.
    pub l2: Vec<f64>,
}

impl Default for RidgeConfig {
    fn default() -> Self {
        Self { l2: vec![1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0] }
    }
}

/// The result of [`ridge_probe`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RidgeReport {
    /// The share of test samples whose class has the largest output.
    pub accuracy: f64,
    /// The accuracy on each class; `None` for a class without test samples.
    pub per_class: Vec<Option<f64>>,
    /// The penalty that was chosen.
    pub l2: f64,
    /// All penalties that were tried, ascending: the grid of the settings, and what it was widened by.
    pub tried: Vec<f64>,
    /// Reasons not to trust the choice: `edge-of-grid`.
    pub doubts: Vec<Doubt>,
    /// The mean squared error of the outputs, leaving out one training row at a time, at that penalty.
    pub leave_one_out: f64,
    /// How it was done, in words.
    pub protocol: String,
}

/// The smallest and the largest penalty up to which a grid is widened.
const WIDEST: (f64, f64) = (1e-10, 1e4);

/// Fits `min 1/N |X W + 1 b^T - Y|_F^2 + l2 |W|_F^2` to one-hot labels and reports the accuracy on test rows.
///
/// Features are standardized by the training rows. The penalty is the one of the smallest squared error when one
/// training row is left out at a time, which the singular value decomposition gives for all penalties at once; no
/// row is held out and nothing is random. The test set is looked at once.
///
/// # Errors
/// Shapes and labels that do not fit, values that are not finite, a single training class, or penalties that are
/// not positive.
pub fn ridge_probe(
    train: &Tensor,
    train_labels: &[u32],
    test: &Tensor,
    test_labels: &[u32],
    cfg: &RidgeConfig,
) -> Result<RidgeReport> {
    const OP: &str = "ridge_probe";
    if cfg.l2.is_empty() || cfg.l2.iter().any(|l| !(l.is_finite() && *l > 0.0)) {
        let (value, reason) = (format!("{:?}", cfg.l2), "must be one or more finite positive numbers");
        return Err(Error::Config { key: "ridge.l2", value, reason });
    }
    let train = matrix::labeled(OP, "train", train, train_labels)?;
    let test = matrix::labeled(OP, "test", test, test_labels)?;
    matrix::same_width(OP, &train, &test)?;
    let classes = matrix::classes(OP, train_labels, test_labels)?;
    let n = train.n;
    let (x, test) = standardize(&train, &test)?;
    let x = x.to_dtype(DType::F64)?;
    // Rounding to f32 leaves means of 1e-9; without them the intercept is the mean of the labels.
    let shift = x.mean_keepdim(0)?;
    let x = x.broadcast_sub(&shift)?;
    let mut shares = vec![0f64; classes];
    train_labels.iter().for_each(|l| shares[*l as usize] += 1.0 / n as f64);
    let mut y = Vec::with_capacity(n * classes);
    for label in train_labels {
        y.extend((0..classes).map(|c| if c == *label as usize { 1.0 } else { 0.0 } - shares[c]));
    }
    let y = Tensor::from_vec(y, (n, classes), x.device())?;

    let (u, s, v) = linalg::svd(&x)?;
    let s = s.to_vec1::<f64>()?;
    let uy = u.t()?.contiguous()?.matmul(&y)?;
    let usq = u.sqr()?;
    let left_out = |l2: f64| -> Result<f64> {
        let gain: Vec<f64> = s.iter().map(|s| s * s / (s * s + l2 * n as f64)).collect();
        let gain = Tensor::from_vec(gain, (s.len(), 1), x.device())?;
        let residual = (&y - u.matmul(&uy.broadcast_mul(&gain)?)?)?;
        // The leverage of a row, the intercept's 1 / N among it.
        let free = ((usq.matmul(&gain)? * -1.0)? + (1.0 - 1.0 / n as f64))?;
        Ok(residual.broadcast_div(&free)?.sqr()?.mean_all()?.to_scalar::<f64>()?)
    };
    let mut tried = cfg.l2.clone();
    tried.sort_by(f64::total_cmp);
    let (mut best, mut best_error) = (tried[0], f64::INFINITY);
    for &l2 in &tried {
        let error = left_out(l2)?;
        if error < best_error {
            (best, best_error) = (l2, error);
        }
    }
    let mut edge = false;
    for down in [true, false] {
        let end = |tried: &[f64]| if down { tried[0] } else { tried[tried.len() - 1] };
        while cfg.l2.len() > 1 && !edge && best == end(&tried) {
            let l2 = decade(best, down);
            edge = l2 < WIDEST.0 * 0.99 || l2 > WIDEST.1 * 1.01;
            if edge {
                break;
            }
            let error = left_out(l2)?;
            if down {
                tried.insert(0, l2)
            } else {
                tried.push(l2)
            }
            if error < best_error {
                (best, best_error) = (l2, error);
            }
        }
    }
    let shrunk: Vec<f64> = s.iter().map(|s| s / (s * s + best * n as f64)).collect();
    let shrunk = Tensor::from_vec(shrunk, (s.len(), 1), x.device())?;
    let weights = v.matmul(&uy.broadcast_mul(&shrunk)?)?;
    let shares = Tensor::from_vec(shares, (1, classes), x.device())?;
    let test = test.to_dtype(DType::F64)?.broadcast_sub(&shift)?;
    let outputs = test.matmul(&weights)?.broadcast_add(&shares)?;
    let predicted = outputs.argmax(D::Minus1)?.to_vec1::<u32>()?;
    let (accuracy, per_class) = accuracy(&predicted, test_labels, classes);
    Ok(RidgeReport {
        accuracy,
        per_class,
        l2: best,
        leave_one_out: best_error,
        protocol: format!(
            "ridge regression of one-hot labels on frozen standardized features, l2 = {best:?} from {tried:?} by leaving out \
             one training row at a time"
        ),
        doubts: edge.then(|| edge_of_grid("penalty", best, &tried)).into_iter().collect(),
        tried,
    })
}
