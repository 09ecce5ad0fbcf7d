//! The linear probe: multinomial logistic regression on frozen features.

use super::lbfgs;
use super::scores::{Calibration, calibration, ln_probabilities};
use crate::estimate::Doubt;
use crate::matrix::Rows;
use crate::{Error, Result, matrix};
use candle_core::{D, Device, Tensor};
use infomax_core::Key;
use rayon::prelude::*;
use serde::Serialize;

/// The settings of [`linear_probe`].
#[derive(Clone, Debug, PartialEq, serde::Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LinearProbeConfig {
    /// The penalties `l2` to choose from, tried from the largest to the smallest. Where the best of several lies at an end,
    /// the grid is widened by decades beyond it while that is better, between `1e-8` and `1e3`.
    pub l2: Vec<f64>,
    /// The share of the training set held out for that choice.
    pub holdout: f64,
    /// At most so many L-BFGS steps for each fit.
    pub max_steps: usize,
    /// A fit has converged when no element of the gradient exceeds this.
    pub tolerance: f64,
}

impl Default for LinearProbeConfig {
    fn default() -> Self {
        Self { l2: vec![1e-1, 1e-2, 1e-3, 1e-4], holdout: 0.2, max_steps: 100, tolerance: 1e-4 }
    }
}

impl LinearProbeConfig {
    /// Refuses settings out of their range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting.
    pub fn check(&self) -> Result<()> {
        if self.l2.is_empty() || self.l2.iter().any(|l| !(l.is_finite() && *l >= 0.0)) {
            let (value, reason) = (format!("{:?}", self.l2), "must be one or more finite numbers >= 0");
            return Err(Error::Config { key: "linear.l2", value, reason });
        }
        if !(0.0..1.0).contains(&self.holdout) {
            let (value, reason) = (self.holdout.to_string(), "must be at least 0 and below 1");
            return Err(Error::Config { key: "linear.holdout", value, reason });
        }
        Ok(())
    }
}

/// The result of [`linear_probe`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProbeReport {
    /// The share of test samples whose class is predicted.
    pub accuracy: f64,
    /// The same on the training set.
    pub train_accuracy: f64,
    /// The share of test samples whose class is among the five most probable, for more than 10 classes; where
    /// classes are equally probable, its expectation over their order.
    pub top5_accuracy: Option<f64>,
    /// The accuracy on each class; `None` for a class without test samples.
    pub per_class: Vec<Option<f64>>,
    /// `confusion[t][p]`: test samples of class `t` that were predicted as `p`.
    pub confusion: Vec<Vec<u32>>,
    /// The quality of the predicted probabilities on the test samples.
    pub calibration: Calibration,
    /// The penalty that was chosen on the held-out part of the training set.
    pub l2: f64,
    /// All penalties that were tried, descending: the grid of the settings, and what it was widened by.
    pub tried: Vec<f64>,
    /// Reasons not to trust the choice: `edge-of-grid`.
    pub doubts: Vec<Doubt>,
    /// The L-BFGS steps of the last fit.
    pub steps: usize,
    /// How it was done, in words.
    pub protocol: String,
}

/// Fits `softmax(x W + b)` to the training rows and reports its accuracy on the test rows.
///
/// Features are standardized by the statistics of the training set. The loss is the mean cross-entropy plus
/// `l2 / 2 |W|^2`, convex, minimized by full-batch L-BFGS from 0; `l2` is the one with the best accuracy on a
/// held-out part of the *training* set (the larger one of equals), and the last fit uses all of it. The test
/// set is looked at once. Nothing is random but the fixed choice of the held-out rows. Of equally probable
/// classes the one of the smallest number is predicted.
///
/// # Errors
/// Shapes and labels that do not fit, values that are not finite, a single training class, or settings out
/// of range.
pub fn linear_probe(
    train: &Tensor,
    train_labels: &[u32],
    test: &Tensor,
    test_labels: &[u32],
    cfg: &LinearProbeConfig,
) -> Result<ProbeReport> {
    let fitted = fitted("linear_probe", train, train_labels, test, test_labels, cfg, Choice::Accuracy)?;
    let classes = fitted.classes;
    let train_predicted = predict(&fitted.train, &fitted.weights, classes)?;
    let predicted = argmax(&fitted.logits)?;
    let mut confusion = vec![vec![0u32; classes]; classes];
    for (p, t) in predicted.iter().zip(test_labels) {
        confusion[*t as usize][*p as usize] += 1;
    }
    let (accuracy, per_class) = self::accuracy(&predicted, test_labels, classes);
    Ok(ProbeReport {
        accuracy,
        train_accuracy: self::accuracy(&train_predicted, train_labels, classes).0,
        top5_accuracy: if classes > 10 { Some(top5(&fitted.logits, test_labels)?) } else { None },
        per_class,
        confusion,
        calibration: calibration(&ln_probabilities(&fitted.logits)?, test_labels),
        l2: fitted.l2,
        steps: fitted.steps,
        protocol: format!(
            "multinomial logistic regression on frozen standardized features, full-batch L-BFGS, \
             l2 = {:?} from {:?} on {:.0} % of the training set held out",
            fitted.l2,
            fitted.grid,
            100.0 * cfg.holdout
        ),
        tried: fitted.grid,
        doubts: fitted.doubt.into_iter().collect(),
    })
}

/// `ln q(y_i | z_i)` of each test row, in nats, by the probe of [`linear_probe`], but with the penalty of the best
/// likelihood on the held-out rows: accuracy does not ask for sure probabilities.
///
/// # Errors
/// As [`linear_probe`].
pub fn linear_probe_likelihood(
    train: &Tensor,
    train_labels: &[u32],
    test: &Tensor,
    test_labels: &[u32],
    cfg: &LinearProbeConfig,
) -> Result<Vec<f64>> {
    const OP: &str = "linear_probe_likelihood";
    let fitted = fitted(OP, train, train_labels, test, test_labels, cfg, Choice::Likelihood)?;
    let ln_q = ln_probabilities(&fitted.logits)?;
    Ok(ln_q.iter().zip(test_labels).map(|(row, label)| row[*label as usize]).collect())
}

/// By what the penalty is chosen on the held-out rows.
#[derive(Clone, Copy, PartialEq)]
enum Choice {
    Accuracy,
    Likelihood,
}

/// A probe and its outputs on the test rows.
struct Fitted {
    train: Tensor,
    classes: usize,
    grid: Vec<f64>,
    doubt: Option<Doubt>,
    l2: f64,
    steps: usize,
    weights: Vec<f64>,
    logits: Tensor,
}

fn fitted(
    op: &'static str,
    train: &Tensor,
    train_labels: &[u32],
    test: &Tensor,
    test_labels: &[u32],
    cfg: &LinearProbeConfig,
    choice: Choice,
) -> Result<Fitted> {
    cfg.check()?;
    let mut grid = cfg.l2.clone();
    grid.sort_by(|a, b| b.total_cmp(a));
    let train = matrix::labeled(op, "train", train, train_labels)?;
    let test = matrix::labeled(op, "test", test, test_labels)?;
    matrix::same_width(op, &train, &test)?;
    let classes = matrix::classes(op, train_labels, test_labels)?;
    let (train, test) = standardize(&train, &test)?;
    let (l2, doubt) = choose(&train, train_labels, classes, &mut grid, cfg, choice)?;
    let (weights, steps) = fit(&train, train_labels, classes, l2, None, cfg)?;
    let logits = logits(&test, &weights, classes)?;
    Ok(Fitted { train, classes, grid, doubt, l2, steps, weights, logits })
}

/// The share of right predictions, over all and for each class.
pub(crate) fn accuracy(predicted: &[u32], labels: &[u32], classes: usize) -> (f64, Vec<Option<f64>>) {
    let (mut right, mut all) = (vec![0usize; classes], vec![0usize; classes]);
    for (p, t) in predicted.iter().zip(labels) {
        all[*t as usize] += 1;
        right[*t as usize] += usize::from(p == t);
    }
    let total = right.iter().sum::<usize>() as f64 / labels.len() as f64;
    let share = |(r, a): (&usize, &usize)| (*a > 0).then(|| *r as f64 / *a as f64);
    (total, right.iter().zip(&all).map(share).collect())
}

/// Columns of mean 0 and deviation 1 by the statistics of the training rows, which are taken in f64: the squares
/// of features at 1e20 overflow f32.
pub(super) fn standardize(train: &Rows, test: &Rows) -> Result<(Tensor, Tensor)> {
    /// Beyond this a test feature only has a sign: products of it stay finite in f32.
    const LIMIT: f64 = 1e15;
    let mean = train.mean();
    let mut variance = vec![0f64; train.d];
    for row in train.iter() {
        for ((s, v), m) in variance.iter_mut().zip(row).zip(&mean) {
            *s += (v - m) * (v - m) / train.n as f64;
        }
    }
    // A constant feature stays 0; one that only rounding moves is not blown up.
    let scale = |(v, m): (&f64, &f64)| if v.sqrt() > m.abs() * 1e-6 { v.sqrt() } else { f64::INFINITY };
    let scales: Vec<f64> = variance.iter().zip(&mean).map(scale).collect();
    let apply = |x: &Rows| {
        let standard = |row: &[f64]| -> Vec<f32> {
            let each = row.iter().zip(mean.iter().zip(&scales));
            each.map(|(v, (m, s))| ((v - m) / s).clamp(-LIMIT, LIMIT) as f32).collect()
        };
        let values: Vec<f32> = x.iter().flat_map(standard).collect();
        Tensor::from_vec(values, (x.n, x.d), &Device::Cpu)
    };
    Ok((apply(train)?, apply(test)?))
}

/// The smallest and the largest penalty up to which a grid is widened.
const WIDEST: (f64, f64) = (1e-8, 1e3);

/// The best penalty of the descending `grid`, which is widened beyond an end that is best, and the doubt that remains.
fn choose(
    x: &Tensor,
    labels: &[u32],
    classes: usize,
    grid: &mut Vec<f64>,
    cfg: &LinearProbeConfig,
    choice: Choice,
) -> Result<(f64, Option<Doubt>)> {
    let n = labels.len();
    // Random rows, as labels are often periodic in the index; the key is fixed.
    let draws =
        Key::new(0).fold_named("probe").uniform(0.0, 1.0, n, candle_core::DType::F64, &Device::Cpu)?;
    let (held, kept): (Vec<u32>, Vec<u32>) = {
        let draws = draws.to_vec1::<f64>()?;
        (0..n as u32).partition(|&i| draws[i as usize] < cfg.holdout)
    };
    let pick = |rows: &[u32]| rows.iter().map(|&i| labels[i as usize]).collect::<Vec<u32>>();
    let (held_labels, kept_labels) = (pick(&held), pick(&kept));
    let one_class = kept_labels.windows(2).all(|w| w[0] == w[1]);
    if grid.len() == 1 || held.is_empty() || one_class {
        return Ok((grid[grid.len() / 2], None));
    }
    let select = |rows: Vec<u32>| -> Result<Tensor> {
        let count = rows.len();
        Ok(x.index_select(&Tensor::from_vec(rows, count, &Device::Cpu)?, 0)?)
    };
    let (held, kept) = (select(held)?, select(kept)?);
    let tried = |l2: f64, start: Option<Vec<f64>>| -> Result<(f64, Vec<f64>)> {
        let (weights, _) = fit(&kept, &kept_labels, classes, l2, start, cfg)?;
        let logits = logits(&held, &weights, classes)?;
        let score = match choice {
            Choice::Accuracy => accuracy(&argmax(&logits)?, &held_labels, classes).0,
            Choice::Likelihood => -calibration(&ln_probabilities(&logits)?, &held_labels).cross_entropy,
        };
        Ok((score, weights))
    };
    let (mut best, mut best_score) = (grid[0], f64::NEG_INFINITY);
    let (mut first, mut start) = (None, None);
    for &l2 in grid.iter() {
        let (score, weights) = tried(l2, start)?;
        if score > best_score {
            (best, best_score) = (l2, score);
        }
        first.get_or_insert_with(|| weights.clone());
        start = Some(weights);
    }
    // Beyond an end only what is better, not what is alike, moves the choice.
    let mut edge = false;
    for (down, mut from) in [(true, start), (false, first)] {
        let end = |grid: &[f64]| if down { grid[grid.len() - 1] } else { grid[0] };
        while !edge && best == end(grid) && best > 0.0 {
            let l2 = decade(best, down);
            edge = l2 < WIDEST.0 * 0.99 || l2 > WIDEST.1 * 1.01;
            if edge {
                break;
            }
            let (score, weights) = tried(l2, from)?;
            from = Some(weights);
            if down {
                grid.push(l2)
            } else {
                grid.insert(0, l2)
            }
            if score > best_score {
                (best, best_score) = (l2, score);
            }
        }
    }
    let doubt = edge.then(|| edge_of_grid("penalty", best, grid));
    Ok((best, doubt))
}

/// A tenth of a number, or ten times it, without the last digits that the division leaves.
pub(super) fn decade(value: f64, down: bool) -> f64 {
    let next = if down { value / 10.0 } else { value * 10.0 };
    format!("{next:.13e}").parse().unwrap_or(next)
}

/// The doubt of a choice that lies at the end of what was tried.
pub(super) fn edge_of_grid(what: &str, chosen: f64, grid: &[f64]) -> Doubt {
    let message = format!(
        "the chosen {what} {chosen} lies at the edge of what was tried, {grid:?}: a better one may lie beyond it"
    );
    Doubt::new("edge-of-grid", message)
}

/// Weights `(D, C)` and biases `(C)` in one vector.
fn fit(
    x: &Tensor,
    labels: &[u32],
    classes: usize,
    l2: f64,
    start: Option<Vec<f64>>,
    cfg: &LinearProbeConfig,
) -> Result<(Vec<f64>, usize)> {
    let d = x.dims()[1];
    let mut weights = start.unwrap_or_else(|| vec![0.0; (d + 1) * classes]);
    // As many as a cache beside the cores holds: then one walk over the rows beats two matrix products.
    const FEW: usize = 1 << 17;
    let steps = if d * classes <= FEW {
        lbfgs::minimize(&mut weights, cfg.max_steps, cfg.tolerance, |w| walk(x, labels, classes, l2, w))?
    } else {
        let transposed = x.t()?.contiguous()?;
        lbfgs::minimize(&mut weights, cfg.max_steps, cfg.tolerance, |w| {
            loss(x, &transposed, labels, classes, l2, w)
        })?
    };
    Ok((weights, steps))
}

/// [`loss`] in one walk over the rows.
fn walk(x: &Tensor, labels: &[u32], classes: usize, l2: f64, weights: &[f64]) -> Result<(f64, Vec<f64>)> {
    let (w, bias) = weights.split_at(weights.len() - classes);
    let d = w.len() / classes;
    let by_class: Vec<f32> =
        (0..classes).flat_map(|c| w.iter().skip(c).step_by(classes).map(|w| *w as f32)).collect();
    let bias: Vec<f32> = bias.iter().map(|b| *b as f32).collect();
    let found = infomax_kernels::softmax_regression(x, labels, &by_class, &bias)?;
    let mut grad = Vec::with_capacity(weights.len());
    for j in 0..d {
        grad.extend((0..classes).map(|c| found.weights[c * d + j] + l2 * w[j * classes + c]));
    }
    grad.extend(found.bias);
    Ok((found.value + 0.5 * l2 * w.iter().map(|w| w * w).sum::<f64>(), grad))
}

/// The penalized mean cross-entropy and its gradient, of many classes by matrix products.
fn loss(
    x: &Tensor,
    transposed: &Tensor,
    labels: &[u32],
    classes: usize,
    l2: f64,
    weights: &[f64],
) -> Result<(f64, Vec<f64>)> {
    let (n, d) = x.dims2()?;
    let mut residual = logits(x, weights, classes)?.flatten_all()?.to_vec1::<f32>()?;
    let losses: Vec<f64> = residual
        .par_chunks_mut(classes)
        .zip(labels)
        .map(|(row, &label)| {
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = row.iter().map(|v| f64::from(v - max).exp()).sum();
            let loss = sum.ln() - f64::from(row[label as usize] - max);
            for v in row.iter_mut() {
                *v = ((f64::from(*v - max).exp() / sum) / n as f64) as f32;
            }
            row[label as usize] -= 1.0 / n as f32;
            loss
        })
        .collect();
    let mut value = losses.iter().sum::<f64>() / n as f64;
    let mut bias = vec![0f64; classes];
    for row in residual.chunks(classes) {
        bias.iter_mut().zip(row).for_each(|(b, r)| *b += f64::from(*r));
    }
    let residual = Tensor::from_vec(residual, (n, classes), &Device::Cpu)?;
    let product = transposed.matmul(&residual)?.flatten_all()?.to_vec1::<f32>()?;
    let mut grad = Vec::with_capacity(weights.len());
    for (g, w) in product.iter().zip(&weights[..d * classes]) {
        value += 0.5 * l2 * w * w;
        grad.push(f64::from(*g) + l2 * w);
    }
    grad.extend(bias);
    Ok((value, grad))
}

fn logits(x: &Tensor, weights: &[f64], classes: usize) -> Result<Tensor> {
    let d = x.dims()[1];
    let w: Vec<f32> = weights.iter().map(|w| *w as f32).collect();
    let w = Tensor::from_vec(w, (d + 1, classes), &Device::Cpu)?;
    Ok(x.matmul(&w.narrow(0, 0, d)?)?.broadcast_add(&w.narrow(0, d, 1)?)?)
}

pub(super) fn argmax(logits: &Tensor) -> Result<Vec<u32>> {
    Ok(logits.argmax(D::Minus1)?.to_vec1::<u32>()?)
}

fn predict(x: &Tensor, weights: &[f64], classes: usize) -> Result<Vec<u32>> {
    argmax(&logits(x, weights, classes)?)
}

/// The share of rows whose own class is among the five largest logits, by expectation over the order of equal
/// ones: of a class that ties with others for the last places, the share of those places.
pub(super) fn top5(logits: &Tensor, labels: &[u32]) -> Result<f64> {
    let rows = logits.to_vec2::<f32>()?;
    let chance = |(row, label): (&Vec<f32>, &u32)| {
        let own = row[*label as usize];
        let larger = row.iter().filter(|v| **v > own).count();
        let equal = row.iter().filter(|v| **v == own).count();
        (5usize.saturating_sub(larger) as f64 / equal as f64).min(1.0)
    };
    Ok(rows.iter().zip(labels).map(chance).sum::<f64>() / labels.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_walk_is_two_products() {
        let (n, d, classes) = (57, 19, 5);
        let normal = |name: &str, rows: usize, columns: usize| {
            let key = Key::new(3).fold_named(name);
            key.normal(0.0, 1.0, (rows, columns), candle_core::DType::F32, &Device::Cpu).unwrap()
        };
        let x = normal("x", n, d);
        let weights = normal("w", d + 1, classes).flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
        let labels: Vec<u32> = (0..n).map(|i| (i * i % classes) as u32).collect();
        let transposed = x.t().unwrap().contiguous().unwrap();
        let (value, grad) = loss(&x, &transposed, &labels, classes, 0.3, &weights).unwrap();
        let (walked, gradient) = walk(&x, &labels, classes, 0.3, &weights).unwrap();
        assert!((value - walked).abs() < 1e-6 * value, "{value} {walked}");
        assert_eq!(grad.len(), gradient.len());
        for (a, b) in grad.iter().zip(&gradient) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }
}
