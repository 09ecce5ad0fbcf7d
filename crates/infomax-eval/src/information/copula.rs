//! Entropy by recursive splitting of the copula.

use super::normal::{read_pair, spread};
use super::tree::beside;
use crate::estimate::{Doubt, Estimate, Resampling};
use crate::matrix::Rows;
use crate::special::{digamma, normal_quantile};
use crate::{Error, Result};
use candle_core::Tensor;

/// The differential entropy by recursive copula splitting (CADEE; Ariel and Louzoun, arXiv:1911.06204) in nats: the
/// entropies of the columns plus that of their copula, whose columns are parted into blocks that no test calls
/// dependent, and which is else halved at the median of the most dependent column, each half being treated alike.
///
/// The entropies of the columns are by Kozachenko and Leonenko with three neighbors; those of ranks in a half by
/// `m`-spacings, `m = sqrt(N)`: `<ln(x_(i+m) - x_(i))> + psi(N + 1) - psi(m)`, exact in the mean for a uniform distribution. Two columns are dependent where one of the four correlations of their ranks `u` and
/// of `|u - 1/2|` is significant at 1 % after Bonferroni; fewer than `max(32, 4 D)` rows are not split further. The
/// interval is by subsampling.
///
/// Made for many columns and compact supports, where balls are of no use. What the four correlations do not show is
/// not seen (the value is then too high), and each halving leaves dependence within a half.
///
/// # Errors
/// Fewer than four rows, values that are not finite, constant columns, or so many equal values in a column that a
/// neighbor is at distance 0.
pub fn copula_splitting_entropy(z: &Tensor, cfg: &Resampling) -> Result<Estimate> {
    const OP: &str = "copula_splitting_entropy";
    let rows = Rows::read_at_least(OP, "z", z, 4)?;
    spread(OP, "z", &rows)?;
    let of = |rows: &Rows| -> Result<f64> {
        let mut sum = copula_entropy(rows);
        for j in 0..rows.d {
            let mut column = rows.column(j);
            column.sort_by(f64::total_cmp);
            let k = 3.min(rows.n - 1);
            sum += line_entropy(&column, k).map_err(|ties| Error::Ties {
                op: OP,
                name: "a column of z",
                rows: ties,
                n: rows.n,
                k,
            })?;
        }
        Ok(sum)
    };
    let value = of(&rows)?;
    let interval = cfg.subsample(value, rows.n, 32, |chosen| of(&rows.select(chosen)))?;
    Ok(Estimate::new(value, rows.n).with(interval).doubting(few(rows.n, rows.d)))
}

/// The mutual information by [`copula_splitting_entropy`], in which the entropies of columns cancel:
/// `H_c(X) + H_c(Y) - H_c(X, Y)` of the copulas. The interval is by subsampling.
///
/// # Errors
/// As [`super::mutual_information`], but for ties, which are broken by the order of the rows.
pub fn copula_splitting_information(x: &Tensor, y: &Tensor, cfg: &Resampling) -> Result<Estimate> {
    let (x, y) = read_pair("copula_splitting_information", x, y)?;
    let value = splitting(&x, &y);
    let interval =
        cfg.subsample(value, x.n, 32, |chosen| Ok(splitting(&x.select(chosen), &y.select(chosen))))?;
    let mut doubts: Vec<Doubt> = few(x.n, x.d + y.d).into_iter().collect();
    doubts.extend(super::mutual::negative(value));
    super::ties::explain(&mut doubts, super::ties::doubt(&[("x", &x), ("y", &y)]));
    Ok(Estimate::new(value, x.n).with(interval).doubting(doubts))
}

pub(super) fn splitting(x: &Rows, y: &Rows) -> f64 {
    copula_entropy(x) + copula_entropy(y) - copula_entropy(&beside(&[x, y]))
}

fn few(n: usize, d: usize) -> Option<Doubt> {
    (n < smallest(d) * 4).then(|| {
        let message = format!("{n} rows in {d} dimensions: the copula is split twice at most");
        Doubt::new("few-samples", message)
    })
}

/// Fewer rows are not split further.
fn smallest(d: usize) -> usize {
    (4 * d).max(32)
}

fn order(n: usize) -> usize {
    ((n as f64).sqrt().round() as usize).clamp(1, n - 1)
}

/// The entropy of sorted values by Kozachenko and Leonenko; the number of rows without a distance where there are any.
fn line_entropy(sorted: &[f64], k: usize) -> Result<f64, usize> {
    let n = sorted.len();
    let (mut sum, mut ties) = (0.0, 0);
    for i in 0..n {
        // The k nearest stand in k + 1 places in a row that hold this one.
        let radius = (i.saturating_sub(k)..=i.min(n - 1 - k))
            .map(|from| (sorted[i] - sorted[from]).max(sorted[from + k] - sorted[i]))
            .fold(f64::INFINITY, f64::min);
        ties += usize::from(radius <= 0.0);
        sum += radius.ln();
    }
    let mean = digamma(n as f64) - digamma(k as f64) + 2f64.ln() + sum / n as f64;
    if ties > 0 { Err(ties) } else { Ok(mean) }
}

/// The entropy of sorted values in a unit interval; `None` where a spacing is 0.
fn spacings(sorted: &[f64]) -> Option<f64> {
    let (n, m) = (sorted.len(), order(sorted.len()));
    let mut sum = 0.0;
    for (low, high) in sorted.iter().zip(&sorted[m..]) {
        if high <= low {
            return None;
        }
        sum += (high - low).ln();
    }
    Some(sum / (n - m) as f64 + digamma(n as f64 + 1.0) - digamma(m as f64))
}

fn copula_entropy(rows: &Rows) -> f64 {
    let columns: Vec<Vec<f64>> = (0..rows.d).map(|j| ranks(&rows.column(j))).collect();
    if rows.d == 1 { 0.0 } else { halves(columns) }
}

/// `(rank - 1/2) / N`, without ties.
fn ranks(column: &[f64]) -> Vec<f64> {
    let n = column.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| column[a].total_cmp(&column[b]).then(a.cmp(&b)));
    let mut ranks = vec![0.0; n];
    order.iter().enumerate().for_each(|(at, &i)| ranks[i] = (at as f64 + 0.5) / n as f64);
    ranks
}

/// The entropy of columns of ranks.
fn halves(u: Vec<Vec<f64>>) -> f64 {
    let (d, n) = (u.len(), u.first().map_or(0, Vec::len));
    if d < 2 || n < smallest(d) {
        return 0.0;
    }
    let (strength, blocks) = dependence(&u);
    if blocks.len() > 1 {
        let of = |block: &Vec<usize>| halves(block.iter().map(|&j| u[j].clone()).collect());
        return blocks.iter().map(of).sum();
    }
    let split = (0..d).fold(0, |best, j| if strength[j] > strength[best] { j } else { best });
    let mut value = 0.0;
    for upper in [false, true] {
        let rows: Vec<usize> = (0..n).filter(|&i| (u[split][i] > 0.5) == upper).collect();
        let mut columns = Vec::with_capacity(d);
        for (j, column) in u.iter().enumerate() {
            let half: Vec<f64> = rows.iter().map(|&i| column[i]).collect();
            if j != split {
                // The split column stays uniform, at twice its density over half of its range.
                let mut sorted = half.clone();
                sorted.sort_by(f64::total_cmp);
                value += 0.5 * spacings(&sorted).unwrap_or(0.0);
            }
            columns.push(ranks(&half));
        }
        value += 0.5 * halves(columns);
    }
    value
}

/// How much each column depends on the others, and the blocks of columns that no significant pair joins.
fn dependence(u: &[Vec<f64>]) -> (Vec<f64>, Vec<Vec<usize>>) {
    let (d, n) = (u.len(), u[0].len() as f64);
    let standard = |column: Vec<f64>| {
        let mean = column.iter().sum::<f64>() / n;
        let length = column.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>().sqrt();
        column.into_iter().map(|v| (v - mean) / length).collect::<Vec<f64>>()
    };
    let forms: Vec<[Vec<f64>; 2]> = u
        .iter()
        .map(|c| [standard(c.clone()), standard(c.iter().map(|v| (v - 0.5).abs()).collect())])
        .collect();
    let tests = (4 * d * (d - 1) / 2) as f64;
    let critical = normal_quantile(1.0 - 0.005 / tests) / (n - 1.0).sqrt();
    let mut strength = vec![0.0; d];
    let mut block: Vec<usize> = (0..d).collect();
    for i in 0..d {
        for j in 0..i {
            let pairs = forms[i].iter().flat_map(|a| forms[j].iter().map(move |b| (a, b)));
            let largest = pairs
                .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>().abs())
                .fold(0.0, f64::max);
            if largest <= critical {
                continue;
            }
            strength[i] += largest;
            strength[j] += largest;
            let (from, to) = (block[i], block[j]);
            block.iter_mut().filter(|b| **b == from).for_each(|b| *b = to);
        }
    }
    let mut blocks: Vec<Vec<usize>> = vec![Vec::new(); d];
    block.iter().enumerate().for_each(|(j, b)| blocks[*b].push(j));
    blocks.retain(|b| !b.is_empty());
    (strength, blocks)
}
