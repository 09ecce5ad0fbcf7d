//! Conditional mutual information by nearest neighbors.

use super::continuous::{KsgConfig, transform};
use super::entropy::{check_k, high_dimension};
use super::normal::{read_pair, spread};
use super::tree::{Counter, Searcher, beside};
use crate::estimate::{Doubt, Estimate, Resampling};
use crate::matrix::{self, Rows};
use crate::special::digamma;
use crate::{Error, Result};
use candle_core::Tensor;
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
