//! What columns with ties say about labels.

use super::entropy::high_dimension;
use crate::estimate::{Doubt, Estimate, Resampling};
use crate::matrix::{self, Rows, square_distances};
use crate::special::digamma;
use crate::{Error, Result};
use candle_core::Tensor;

/// The mutual information between labels and a variable that is discrete, or partly so, by the estimator of Gao et al.
/// (arXiv:1709.06212) with classes as far from each other as none is within: `ln N + <psi(k_i) - psi(m_i) - psi(N_y)>`
/// in nats, Euclidean. `N_y` counts the rows of a row's class. Where its `k`-th neighbor in the class is at a distance,
/// `k_i` and `m_i` count the other rows up to that distance, in the class and in all: `k_i = k` unless several are as far.
/// Where that neighbor coincides with the row, they count the rows that do, itself included.
///
/// Without ties this is [`super::mixed_mutual_information`] with `ln N` for `psi(N)`; of one-hot or binary columns it is
/// nearly the estimate from shares. Small classes and classes of one row as there. Cost `N^2 D`.
///
/// # Errors
/// Not a matrix, values that are not finite, labels that do not fit, `k` of 0, or fewer than two classes of at least two
/// rows.
pub fn label_mixture_information(z: &Tensor, labels: &[u32], k: usize, cfg: &Resampling) -> Result<Estimate> {
    const OP: &str = "label_mixture_information";
    let rows = matrix::labeled(OP, "z", z, labels)?;
    matrix::classes(OP, labels, labels)?;
    if k == 0 {
        return Err(Error::Config { key: "k", value: "0".into(), reason: "must be at least 1" });
    }
    let (value, used, ties) = gao_of_classes(&rows, labels, k)?;
    let interval = cfg.subsample(value, rows.n, 4 * k, |chosen| {
        let some: Vec<u32> = chosen.iter().map(|&i| labels[i]).collect();
        Ok(gao_of_classes(&rows.select(chosen), &some, k)?.0)
    })?;
    let mut doubts: Vec<Doubt> = high_dimension(rows.n, rows.d).into_iter().collect();
    if used < rows.n {
        let message = format!("{} rows are alone in their class and were left out", rows.n - used);
        doubts.push(Doubt::new("few-samples", message));
    }
    if ties > 0 {
        let n = rows.n;
        let message = format!(
            "{ties} of {n} rows coincide with their {k} nearest of the same class: they count as discrete"
        );
        doubts.push(Doubt::new("ties", message));
    }
    doubts.extend(super::mutual::negative(value));
    Ok(Estimate::new(value, used).with(interval).doubting(doubts))
}

/// The estimate, the rows that took part, and those that coincide with their `k` nearest.
pub(super) fn gao_of_classes(rows: &Rows, labels: &[u32], k: usize) -> Result<(f64, usize, usize)> {
    const OP: &str = "label_mixture_information";
    let largest = labels.iter().copied().max().unwrap_or(0) as usize;
    let mut sizes = vec![0usize; largest + 1];
    labels.iter().for_each(|l| sizes[*l as usize] += 1);
    let classes = sizes.iter().filter(|s| **s > 1).count();
    if classes < 2 {
        return Err(Error::TooFew { op: OP, name: "classes of at least two rows", rows: classes, needed: 2 });
    }
    let kept: Vec<usize> = (0..rows.n).filter(|&i| sizes[labels[i] as usize] > 1).collect();
    let rows = rows.select(&kept);
    let labels: Vec<u32> = kept.iter().map(|&i| labels[i]).collect();
    // Which rows are equal is a matter of their values: distances by products round.
    let groups = super::ties::Groups::new(&rows);
    let each = square_distances(&rows, &rows, |i, squares| {
        let size = sizes[labels[i] as usize];
        let k = k.min(size - 1);
        let equal = |j: &usize| groups.of[*j] == groups.of[i];
        let own = || (0..labels.len()).filter(|&j| labels[j] == labels[i]);
        let coincide = own().filter(equal).count();
        let (counted, within) = if coincide > k {
            (coincide, groups.sizes[groups.of[i] as usize])
        } else {
            let mut near: Vec<f64> =
                own().filter(|&j| j != i).map(|j| if equal(&j) { 0.0 } else { squares[j] }).collect();
            // Rounded columns have many rows at this very distance: all of them or none, in the class and in all.
            let radius = *near.select_nth_unstable_by(k - 1, f64::total_cmp).1 * (1.0 + 1e-9);
            let others = || (0..labels.len()).filter(|&j| j != i && (equal(&j) || squares[j] <= radius));
            (others().filter(|&j| labels[j] == labels[i]).count(), others().count())
        };
        (digamma(counted as f64) - digamma(size as f64) - digamma(within as f64), coincide > k)
    })?;
    let n = each.len() as f64;
    let mean = each.iter().map(|(v, _)| v).sum::<f64>() / n;
    Ok((n.ln() + mean, each.len(), each.iter().filter(|(_, tie)| *tie).count()))
}
