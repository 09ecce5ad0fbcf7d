//! Conditional mutual information by nearest neighbors.

use super::continuous::{KsgConfig, transform};
use super::entropy::{check_k, high_dimension};
use super::normal::{self, NormalModel, read_pair, spread};
use super::permutation::{PermutationTest, test_by};
use super::tree::{Counter, Searcher, beside};
use crate::estimate::{Doubt, Estimate, Resampling, permutation};
use crate::geometry::nearest;
use crate::matrix::{self, Rows};
use crate::special::digamma;
use crate::{Error, Result};
use candle_core::Tensor;
use infomax_core::Key;
use rayon::prelude::*;

/// The conditional mutual information `I(X; Y | Z)` of three continuous variables (Frenzel and Pompe 2007),
/// `psi(k) + <psi(n_z + 1) - psi(n_xz + 1) - psi(n_yz + 1)>` in nats, where the counts are of the rows strictly within
/// the distance to the `k`-th joint neighbor in the maximum norm. The interval is by subsampling; of `cfg` the kind
/// must be the first.
///
/// Biased towards 0 as the neighborhoods grow: with many columns, or with `Z` that tells nearly all of `X` and `Y`.
///
/// # Errors
/// As [`super::mutual_information`], or the second kind, which has no conditional form here.
pub fn conditional_mutual_information(
    x: &Tensor,
    y: &Tensor,
    z: &Tensor,
    cfg: &KsgConfig,
    resampling: &Resampling,
) -> Result<Estimate> {
    const OP: &str = "conditional_mutual_information";
    if cfg.kind != super::KsgKind::One {
        let reason = "must be `one`: the conditional form counts in cubes";
        return Err(Error::Config { key: "ksg.kind", value: "two".into(), reason });
    }
    let (x, y) = read_pair(OP, x, y)?;
    let z = Rows::read(OP, "z", z)?;
    matrix::paired(OP, ["x", "z"], &x, &z)?;
    spread(OP, "z", &z)?;
    let ties = super::ties::doubt(&[("x", &x), ("y", &y), ("z", &z)]);
    let [x, y, z] = [x, y, z].map(|rows| transform(rows, cfg.marginals));
    let (n, k) = (x.n, cfg.k);
    let value = frenzel_pompe(OP, &x, &y, &z, k)?;
    let interval = resampling.subsample(value, n, 4 * k, |chosen| {
        frenzel_pompe(OP, &x.select(chosen), &y.select(chosen), &z.select(chosen), k)
    })?;
    let mut doubts: Vec<Doubt> = high_dimension(n, x.d + y.d + z.d).into_iter().collect();
    doubts.extend(super::mutual::negative(value));
    super::ties::explain(&mut doubts, ties);
    Ok(Estimate::new(value, n).with(interval).doubting(doubts))
}

/// What [`conditional_permutation_test`] permutes.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ConditionalEstimator {
    /// [`conditional_mutual_information`].
    Neighbors(KsgConfig),
    /// [`super::normal_conditional_mutual_information`].
    Normal(NormalModel),
}

/// Rows of near `z` among which a row of `x` is exchanged, itself among them.
const EXCHANGED: usize = 5;

/// Whether `x` and `y` are independent given `z`, by local permutations (Runge, arXiv:1709.01447): each row takes the `x` of
/// one of the five rows whose `z` is nearest (itself among them, in normal scores, the Euclidean distance), no `x` twice where that can be avoided, so that what
/// `x` and `z` share stays. Approximate: it is as good as rows of near `z` have alike distributions of `x`, so with few columns of `z`.
///
/// # Errors
/// As [`conditional_mutual_information`], or no permutation.
pub fn conditional_permutation_test(
    x: &Tensor,
    y: &Tensor,
    z: &Tensor,
    estimator: ConditionalEstimator,
    permutations: usize,
    seed: u64,
) -> Result<PermutationTest> {
    const OP: &str = "conditional_permutation_test";
    let (x, y) = read_pair(OP, x, y)?;
    let z = Rows::read_at_least(OP, "z", z, EXCHANGED)?;
    matrix::paired(OP, ["x", "z"], &x, &z)?;
    spread(OP, "z", &z)?;
    let near = nearest(OP, &transform(z.clone(), super::Marginals::NormalScores), EXCHANGED - 1)?;
    let exchange = |key: Key| {
        let mut taken = vec![false; x.n];
        let mut source = vec![0; x.n];
        for row in permutation(key, x.n) {
            let order = permutation(key.fold_in(row as u64), EXCHANGED);
            let candidate = |at: usize| if at == 0 { row } else { near.of(row)[at - 1] as usize };
            let free = order.iter().map(|at| candidate(*at)).find(|other| !taken[*other]);
            let other = free.unwrap_or_else(|| candidate(order[EXCHANGED - 1]));
            taken[other] = true;
            source[row] = other;
        }
        source
    };
    let prepared = match estimator {
        ConditionalEstimator::Neighbors(cfg) => {
            [&x, &y, &z].map(|rows| transform(rows.clone(), cfg.marginals))
        }
        ConditionalEstimator::Normal(_) => [x.clone(), y, z],
    };
    let [x, y, z] = &prepared;
    test_by(x.n, permutations, seed, exchange, |order| {
        let x = order.map_or_else(|| x.clone(), |order| x.select(order));
        match estimator {
            ConditionalEstimator::Neighbors(cfg) => frenzel_pompe(OP, &x, y, z, cfg.k),
            ConditionalEstimator::Normal(model) => normal::conditional_information(OP, &x, y, z, model),
        }
    })
}

fn frenzel_pompe(op: &'static str, x: &Rows, y: &Rows, z: &Rows, k: usize) -> Result<f64> {
    check_k(op, "x", x.n, k)?;
    let (xz, yz) = (beside(&[x, z]), beside(&[y, z]));
    let joint = Searcher::new(&[x, y, z]);
    let (in_xz, in_yz, in_z) = (Counter::new(&xz), Counter::new(&yz), Counter::new(z));
    let one = |i: usize| {
        let eps = joint.nearest(i, k).last().map_or(0.0, |(r, _)| *r);
        let psi = |counter: &Counter, row: &[f64]| digamma(counter.count(row, eps, false) as f64);
        (eps > 0.0).then(|| psi(&in_z, z.row(i)) - psi(&in_xz, xz.row(i)) - psi(&in_yz, yz.row(i)))
    };
    let each: Vec<Option<f64>> = (0..x.n).into_par_iter().map(one).collect();
    let ties = each.iter().filter(|e| e.is_none()).count();
    if ties > 0 {
        return Err(Error::Ties { op, name: "(x, y, z)", rows: ties, n: x.n, k });
    }
    Ok(digamma(k as f64) + each.iter().flatten().sum::<f64>() / x.n as f64)
}
