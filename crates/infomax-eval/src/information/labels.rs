//! What embeddings say about labels.

use super::entropy::high_dimension;
use crate::estimate::{Bracket, Doubt, Estimate, Interval, Resampling};
use crate::matrix::{self, Rows, square_distances};
use crate::probe::{LinearProbeConfig, linear_probe_likelihood};
use crate::special::digamma;
use crate::{Error, Result};
use candle_core::Tensor;
use serde::Serialize;

/// The entropy of labels in nats, `-sum p ln p` of the shares plus the correction of Miller (1955),
/// `(C - 1) / (2 N)` for `C` classes that occur, and at most `ln C`. The interval is a bootstrap.
///
/// # Errors
/// No labels.
pub fn label_entropy(labels: &[u32], cfg: &Resampling) -> Result<Estimate> {
    if labels.is_empty() {
        return Err(Error::TooFew { op: "label_entropy", name: "labels", rows: 0, needed: 1 });
    }
    // Numbers without gaps, whatever the labels are.
    let mut names = labels.to_vec();
    names.sort_unstable();
    names.dedup();
    let places: Vec<f64> = labels.iter().map(|l| names.partition_point(|m| m < l) as f64).collect();
    let entropy = |places: &[f64]| {
        let mut counts = vec![0usize; names.len()];
        places.iter().for_each(|p| counts[*p as usize] += 1);
        let n = places.len() as f64;
        let occur = counts.iter().filter(|c| **c > 0).count() as f64;
        let plain: f64 = counts.iter().filter(|c| **c > 0).map(|c| *c as f64 / n).map(|p| -p * p.ln()).sum();
        (plain + 0.5 * (occur - 1.0) / n).min(occur.ln())
    };
    let interval = cfg.bootstrap(&places, entropy)?;
    let few = (labels.len() < 5 * names.len()).then(|| {
        let message = format!("{} labels of {} classes: the entropy is too low", labels.len(), names.len());
        Doubt::new("few-samples", message)
    });
    Ok(Estimate::new(entropy(&places), labels.len()).with(interval).doubting(few))
}

/// The mutual information `I(Z; Y)` between a continuous and a discrete variable (Ross 2014): `psi(N) + psi(k) -
/// <psi(N_y)> - <psi(m)>`, where `N_y` counts the rows of a row's class and `m` all rows within the distance to its
/// `k`-th neighbor in that class; where several are as far, `k` counts them too. The conventions are those of scikit-learn (`k` reduced in small classes, classes
/// of a single row left out), in the Euclidean distance and without its cut at 0. Cost `N^2 D`.
///
/// # Errors
/// Not a matrix, values that are not finite, labels that do not fit, `k` of 0, fewer than two classes of at least two
/// rows, or [`Error::Ties`] where more than 5 % of the rows coincide with their `k` nearest: there the estimate would be
/// far below 0, and [`super::label_mixture_information`] is the one to take.
pub fn mixed_mutual_information(z: &Tensor, labels: &[u32], k: usize, cfg: &Resampling) -> Result<Estimate> {
    const OP: &str = "mixed_mutual_information";
    let rows = matrix::labeled(OP, "z", z, labels)?;
    matrix::classes(OP, labels, labels)?;
    if k == 0 {
        return Err(Error::Config { key: "k", value: "0".into(), reason: "must be at least 1" });
    }
    let (value, used, ties) = ross(&rows, labels, k)?;
    if ties as f64 > super::ties::FEW * rows.n as f64 {
        return Err(Error::Ties { op: OP, name: "z within classes", rows: ties, n: rows.n, k });
    }
    let interval = cfg.subsample(value, rows.n, 4 * k, |chosen| {
        let some: Vec<u32> = chosen.iter().map(|&i| labels[i]).collect();
        Ok(ross(&rows.select(chosen), &some, k).map_or(f64::NAN, |r| r.0))
    })?;
    let mut doubts: Vec<Doubt> = high_dimension(rows.n, rows.d).into_iter().collect();
    if used < rows.n {
        let message = format!("{} rows are alone in their class and were left out", rows.n - used);
        doubts.push(Doubt::new("few-samples", message));
    }
    if value < 0.0 {
        doubts.push(Doubt::new("negative", "below 0: indistinguishable from none"));
    }
    let nearest = (ties > 0).then(|| {
        let message = format!("{ties} rows coincide with their {k} nearest of the same class");
        Doubt::new("ties", message)
    });
    let ties = nearest.or_else(|| super::ties::doubt(&[("z", &rows)]));
    super::ties::explain(&mut doubts, ties);
    Ok(Estimate::new(value, used).with(interval).doubting(doubts))
}

/// The estimate, the rows that took part, and those whose radius is 0.
pub(super) fn ross(rows: &Rows, labels: &[u32], k: usize) -> Result<(f64, usize, usize)> {
    const OP: &str = "mixed_mutual_information";
    let largest = labels.iter().copied().max().unwrap_or(0) as usize;
    let mut sizes = vec![0usize; largest + 1];
    labels.iter().for_each(|l| sizes[*l as usize] += 1);
    let kept: Vec<usize> = (0..rows.n).filter(|&i| sizes[labels[i] as usize] > 1).collect();
    let classes = sizes.iter().filter(|s| **s > 1).count();
    if classes < 2 {
        return Err(Error::TooFew { op: OP, name: "classes of at least two rows", rows: classes, needed: 2 });
    }
    let rows = rows.select(&kept);
    let labels: Vec<u32> = kept.iter().map(|&i| labels[i]).collect();
    // Which rows are equal is a matter of their values: distances by products round.
    let groups = super::ties::Groups::new(&rows);
    let each = square_distances(&rows, &rows, |i, squares| {
        squares.iter_mut().zip(&groups.of).filter(|(_, g)| **g == groups.of[i]).for_each(|(s, _)| *s = 0.0);
        let size = sizes[labels[i] as usize];
        let k = k.min(size - 1);
        let mut own: Vec<f64> =
            (0..labels.len()).filter(|&j| j != i && labels[j] == labels[i]).map(|j| squares[j]).collect();
        let (_, radius, _) = own.select_nth_unstable_by(k - 1, f64::total_cmp);
        // All rows at the very distance of the k-th, or none: rounded columns have many. Without ties these are `k` and
        // the number of rows strictly within, the row itself included.
        let (tie, radius) = (*radius == 0.0, *radius * (1.0 + 1e-9));
        let others = || (0..labels.len()).filter(|&j| j != i && squares[j] <= radius);
        let (own, within) = (others().filter(|&j| labels[j] == labels[i]).count(), others().count());
        (digamma(own as f64) - digamma(size as f64) - digamma(within as f64), tie)
    })?;
    let n = each.len() as f64;
    let mean = each.iter().map(|(v, _)| v).sum::<f64>() / n;
    Ok((digamma(n) + mean, each.len(), each.iter().filter(|(_, tie)| *tie).count()))
}

/// The result of [`label_information`], in nats.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelInformation {
    /// `I(Z; Y)` between its bounds.
    pub bracket: Bracket,
    /// The entropy of the labels of the test rows.
    pub entropy: Estimate,
    /// The lower bound with its interval, before the bracket was ordered: what a linear probe reads.
    pub probe: Estimate,
}

/// `I(Z; Y)` on test rows, in a bracket: from below by `H(Y) + mean ln q(y | z)` (Barber and Agakov 2003) with the
/// linear probe `q` fitted to the training rows, which no chance can lift above the truth but that of the test
/// rows; the estimate by [`mixed_mutual_information`], or by
/// [`super::label_mixture_information`] where that refuses ties; from above by `H(Y)`.
///
/// # Errors
/// Those of the probe and of the estimate.
pub fn label_information(
    train: &Tensor,
    train_labels: &[u32],
    test: &Tensor,
    test_labels: &[u32],
    k: usize,
    probe: &LinearProbeConfig,
    cfg: &Resampling,
) -> Result<LabelInformation> {
    let entropy = label_entropy(test_labels, cfg)?;
    let mut estimate = match mixed_mutual_information(test, test_labels, k, cfg) {
        Err(Error::Ties { .. }) => super::label_mixture_information(test, test_labels, k, cfg)?,
        other => other?,
    };
    let likelihoods = linear_probe_likelihood(train, train_labels, test, test_labels, probe)?;
    let mean = cfg.mean(&likelihoods)?;
    let value = entropy.value + mean.value;
    let shifted = mean.interval.map(|i| Interval {
        lower: entropy.value + i.lower,
        upper: entropy.value + i.upper,
        method: format!("{}; H(Y) kept", i.method),
        ..i
    });
    let mut probe = Estimate::new(value, mean.n).with(shifted);
    let mut lower = value;
    if value < 0.0 {
        let message =
            format!("the probe is worse than the shares of the classes ({value:.3}); 0 is the bound");
        probe.doubts.push(Doubt::new("negative", message));
        lower = 0.0;
    }
    if entropy.value - lower < 0.02 * entropy.value {
        let message = "the probe reads nearly all that the labels hold: the bracket is closed by H(Y)";
        estimate.doubts.push(Doubt::new("saturated", message));
    }
    let bracket = Bracket::ordered(
        (lower, "H(Y) less the test cross-entropy of a linear probe"),
        estimate,
        (entropy.value, "H(Y)"),
    );
    Ok(LabelInformation { bracket, entropy, probe })
}
