//! Mutual information where columns are discrete, or partly so.

use super::entropy::{check_k, high_dimension};
use super::normal::read_pair;
use super::tree::{Counter, Searcher};
use crate::estimate::{Doubt, Estimate, Resampling};
use crate::matrix::Rows;
use crate::special::digamma;
use crate::{Error, Result};
use candle_core::Tensor;
use rayon::prelude::*;
use std::collections::BTreeMap;

/// The mutual information of variables whose distributions may be mixtures of discrete and continuous parts (Gao et
/// al., arXiv:1709.06212): `<psi(k_i)> + ln N - <psi(n_x) + psi(n_y)>` in nats, in the maximum norm on the columns as
/// they are. Where the `k`-th joint neighbor of a row is at a distance, `k_i = k` and the counts are of the rows
/// strictly within it, the row itself included; where it coincides with the row, all three count the rows that
/// coincide with it, itself included, as in the authors' program. Beyond it: where several rows are as far as the `k`-th, as
/// all zeros of a column are from a row, all three count the other rows up to that distance. The interval is by subsampling.
///
/// Rows may coincide: this is the estimator for ties, zero inflation, and integer columns whose distances mean
/// something. For classes without an order there is [`super::mixed_mutual_information`].
///
/// # Errors
/// Different numbers of rows, values that are not finite, constant columns, or `k` of 0 or not below the rows.
pub fn mixture_mutual_information(x: &Tensor, y: &Tensor, k: usize, cfg: &Resampling) -> Result<Estimate> {
    const OP: &str = "mixture_mutual_information";
    let (x, y) = read_pair(OP, x, y)?;
    check_k(OP, "x", x.n, k)?;
    let n = x.n;
    let (value, ties) = gao(&x, &y, k);
    let interval =
        cfg.subsample(value, n, 4 * k, |chosen| Ok(gao(&x.select(chosen), &y.select(chosen), k).0))?;
    let mut doubts: Vec<Doubt> = high_dimension(n, x.d + y.d).into_iter().collect();
    if ties > 0 {
        let message = format!("{ties} of {n} rows coincide with their {k} nearest: they count as discrete");
        doubts.push(Doubt::new("ties", message));
    }
    doubts.extend(super::mutual::negative(value));
    Ok(Estimate::new(value, n).with(interval).doubting(doubts))
}

/// The estimate, and the rows without extent.
pub(super) fn gao(x: &Rows, y: &Rows, k: usize) -> (f64, usize) {
    let (joint, in_x, in_y) = (Searcher::new(&[x, y]), Counter::new(x), Counter::new(y));
    let both = Counter::new(&super::tree::beside(&[x, y]));
    let one = |i: usize| {
        let radius = joint.nearest(i, k).last().map_or(0.0, |(r, _)| *r);
        let tie = radius <= 0.0;
        let row: Vec<f64> = x.row(i).iter().chain(y.row(i)).copied().collect();
        let edge = radius * (1.0 + 1e-9);
        // Itself included.
        let reached = both.count(&row, edge, true);
        let (own, nx, ny) = if tie {
            (reached, in_x.count(x.row(i), 0.0, true), in_y.count(y.row(i), 0.0, true))
        } else if reached > k + 1 {
            (reached - 1, in_x.count(x.row(i), edge, true) - 1, in_y.count(y.row(i), edge, true) - 1)
        } else {
            (k, in_x.count(x.row(i), radius, false), in_y.count(y.row(i), radius, false))
        };
        (digamma(own as f64) - digamma(nx as f64) - digamma(ny as f64), tie)
    };
    let each: Vec<(f64, bool)> = (0..x.n).into_par_iter().map(one).collect();
    let n = x.n as f64;
    let mean = each.iter().map(|(v, _)| v).sum::<f64>() / n;
    (n.ln() + mean, each.iter().filter(|(_, tie)| *tie).count())
}

/// The mutual information of two discrete variables in nats: `sum p_xy ln(p_xy / (p_x p_y))` of the shares, minus the
/// bias of Miller (1955) and Madow, `(K_xy - K_x - K_y + 1) / (2 N)` for numbers `K` of values that occur. The interval
/// is by subsampling, made of the corrected estimate.
///
/// # Errors
/// Other numbers of rows, fewer than four, or a variable of one value.
pub fn discrete_mutual_information(x: &[u32], y: &[u32], cfg: &Resampling) -> Result<Estimate> {
    const OP: &str = "discrete_mutual_information";
    if x.len() != y.len() {
        return Err(Error::Paired { op: OP, first: "x", second: "y", rows: [x.len(), y.len()] });
    }
    let n = x.len();
    if n < 4 {
        return Err(Error::TooFew { op: OP, name: "x", rows: n, needed: 4 });
    }
    for labels in [x, y] {
        if labels.windows(2).all(|w| w[0] == w[1]) {
            return Err(Error::OneClass { op: OP, class: labels[0] });
        }
    }
    let rows: Vec<usize> = (0..n).collect();
    let (value, cells) = plug_in(x, y, &rows);
    let interval = cfg.subsample(value, n, 4, |chosen| Ok(plug_in(x, y, chosen).0))?;
    let few = (n < 5 * cells).then(|| {
        let message =
            format!("{n} rows in {cells} pairs of values: the correction of the bias does not suffice");
        Doubt::new("few-samples", message)
    });
    Ok(Estimate::new(value, n).with(interval).doubting(few).doubting(super::mutual::negative(value)))
}

/// The corrected estimate of some rows, and the pairs of values that occur.
pub(super) fn plug_in(x: &[u32], y: &[u32], rows: &[usize]) -> (f64, usize) {
    let mut joint: BTreeMap<(u32, u32), f64> = BTreeMap::new();
    let (mut in_x, mut in_y): (BTreeMap<u32, f64>, BTreeMap<u32, f64>) = Default::default();
    for &i in rows {
        *joint.entry((x[i], y[i])).or_default() += 1.0;
        *in_x.entry(x[i]).or_default() += 1.0;
        *in_y.entry(y[i]).or_default() += 1.0;
    }
    let n = rows.len() as f64;
    let sum: f64 = joint.iter().map(|((a, b), c)| c / n * (c * n / (in_x[a] * in_y[b])).ln()).sum();
    let bias = (joint.len() as f64 - in_x.len() as f64 - in_y.len() as f64 + 1.0) / (2.0 * n);
    (sum - bias, joint.len())
}
