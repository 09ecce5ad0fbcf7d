//! Conditional mutual information by every estimator that there is, and which to read first.

use super::caution::{reach_zero, too_few};
use super::conditional::{
    ConditionalEstimator, conditional_mutual_information, conditional_permutation_test,
};
use super::continuous::{KsgConfig, Marginals};
use super::corrected::determined;
use super::normal::{NormalModel, normal_conditional_mutual_information, read_pair, spread};
use super::tree::beside;
use super::{MutualConfig, MutualEstimator, MutualReport, NamedEstimate};
use crate::estimate::{Doubt, Estimate};
use crate::matrix::{self, Rows};
use crate::{Error, Result};
use candle_core::Tensor;

const OP: &str = "conditional_report";

/// The estimators of [`conditional_report`]: [`conditional_mutual_information`] of normal scores, and partial correlations of normal
/// scores ([`normal_conditional_mutual_information`]).
pub const CONDITIONAL: [MutualEstimator; 2] = [MutualEstimator::Ksg1, MutualEstimator::NormalCopula];

/// `I(X; Y | Z)` of columns by both estimators, each with interval, doubts and the p-value of local permutations
/// ([`conditional_permutation_test`]), and which to read first.
///
/// The rule: where the value of partial correlations lies in the interval of neighbors, partial correlations, which vary
/// least; else neighbors, which see any dependence. Where partial correlations lie above that interval, neighbors have the doubt
/// `disagree`: neighbors are biased towards 0 in many columns, and partial correlations are too high where `Z` acts on both in a way that no
/// correlation shows (`x = z^2 + e`, `y = z^2 + f`), and nothing here tells which it is.
///
/// Where `x` and `z` together determine a combination of the columns of `y` that `z` alone does not, or the other way round, the
/// information is infinite: all estimates have the doubt `determined` and no interval. Where `z` alone determines one of `x` or of `y`, that one tells
/// nothing beyond `z`, and all estimates have the doubt `given-determines`. Both are seen for linear combinations, of the values or of their ranks.
/// Of fewer than 24 rows (`8 k`) none is recommended, and all have the doubt `few-rows`.
///
/// # Errors
/// Different numbers of rows, values that are not finite, constant columns, settings out of range, or an estimator that has no conditional form.
pub fn conditional_report(x: &Tensor, y: &Tensor, z: &Tensor, cfg: &MutualConfig) -> Result<MutualReport> {
    if let Some(other) = cfg.estimators.iter().find(|e| !CONDITIONAL.contains(e)) {
        let reason = "has no conditional form: there are `ksg1` and `normal-copula`";
        return Err(Error::Config { key: "estimator", value: other.name().into(), reason });
    }
    cfg.check()?;
    let (rows_x, rows_y) = read_pair(OP, x, y)?;
    let rows_z = Rows::read_at_least(OP, "z", z, 4)?;
    matrix::paired(OP, ["x", "z"], &rows_x, &rows_z)?;
    spread(OP, "z", &rows_z)?;
    let n = rows_x.n;
    let doubt = of_functions(&rows_x, &rows_y, &rows_z);
    let wanted = if cfg.estimators.is_empty() { CONDITIONAL.to_vec() } else { cfg.estimators.clone() };
    let few = cfg.few_rows();
    let mut estimates = Vec::with_capacity(wanted.len());
    for estimator in wanted {
        let mut found = one(estimator, [x, y, z], n, cfg)?;
        if let Some(estimate) = &mut found.estimate {
            if let Some(doubt) = &doubt {
                if doubt.code == "determined" {
                    estimate.interval = None;
                }
                estimate.doubts.push(doubt.clone());
            }
            if n < few {
                estimate.doubts.push(too_few(n, few));
            }
        }
        reach_zero(&mut found, n, cfg.resampling.level);
        estimates.push(found);
    }
    let best = recommended(&mut estimates);
    Ok(MutualReport::of(n, vec![rows_x.d, rows_y.d, rows_z.d], estimates, best, few))
}

/// What is infinite, or zero, since a variable is a function of others.
fn of_functions(x: &Rows, y: &Rows, z: &Rows) -> Option<Doubt> {
    for (name, variable) in [("X", x), ("Y", y)] {
        if determined(z, variable) {
            let message = format!(
                "Z determines a combination of the columns of {name} but for rounding (of the values or of their ranks): that one \
                 tells nothing beyond Z, and estimates of it show the rounding"
            );
            return Some(Doubt::new("given-determines", message));
        }
    }
    let infinite = determined(&beside(&[x, z]), y) || determined(&beside(&[y, z]), x);
    infinite.then(|| {
        let message = format!(
            "as far as {} rows show, X and Z determine a part of Y, or Y and Z one of X, but for rounding: of continuous variables \
             I(X; Y | Z) is then infinite, and a number shows the rows or the rounding; no interval is given",
            x.n
        );
        Doubt::new("determined", message)
    })
}

/// An estimate and its test; what an estimator cannot do is kept as text.
fn one(estimator: MutualEstimator, of: [&Tensor; 3], n: usize, cfg: &MutualConfig) -> Result<NamedEstimate> {
    let ksg = KsgConfig { k: cfg.k, marginals: Marginals::NormalScores, ..KsgConfig::default() };
    let [x, y, z] = of;
    let (form, estimate) = match estimator {
        MutualEstimator::Ksg1 => (
            ConditionalEstimator::Neighbors(ksg),
            conditional_mutual_information(x, y, z, &ksg, &cfg.resampling),
        ),
        _ => (
            ConditionalEstimator::Normal(NormalModel::Copula),
            normal_conditional_mutual_information(x, y, z, NormalModel::Copula, &cfg.resampling),
        ),
    };
    NamedEstimate::of(estimator, estimate, n, cfg, |drawn| {
        let part = |t: &Tensor| Rows::read(OP, "rows", t)?.select(drawn).tensor();
        let (x, y, z) = (part(x)?, part(y)?, part(z)?);
        Ok(conditional_permutation_test(&x, &y, &z, form, cfg.permutations, cfg.seed)?.p_value)
    })
}

/// The place of the estimate to read first, and why; a disagreement becomes a doubt.
fn recommended(estimates: &mut [NamedEstimate]) -> (Option<usize>, String) {
    let place =
        |wanted| estimates.iter().position(|e: &NamedEstimate| e.estimator == wanted && e.estimate.is_some());
    let (neighbors, copula) = (place(MutualEstimator::Ksg1), place(MutualEstimator::NormalCopula));
    let (neighbors, copula) = match (neighbors, copula) {
        (Some(neighbors), Some(copula)) => (neighbors, copula),
        (Some(only), None) | (None, Some(only)) => {
            return (Some(only), "no other estimate was asked for, or could be had".into());
        }
        (None, None) => {
            let reasons: Vec<&str> = estimates.iter().filter_map(|e| e.refused.as_deref()).collect();
            return (None, format!("all estimators refused: {}", reasons.join("; ")));
        }
    };
    let value = |at: usize| estimates[at].estimate.as_ref().map_or(f64::NAN, |e| e.value);
    let (seen, linear) = (value(neighbors), value(copula));
    let interval = estimates[neighbors].estimate.as_ref().and_then(|e| e.interval.as_ref());
    let Some((lower, upper)) = interval.map(|i| (i.lower, i.upper)) else {
        let reason = "neighbors see any dependence; without an interval of theirs nothing says whether partial correlations suffice";
        return (Some(neighbors), reason.into());
    };
    if (lower..=upper).contains(&linear) {
        let reason = "its value lies in the interval of neighbors: nothing speaks against partial correlations, which vary least";
        return (Some(copula), reason.into());
    }
    if linear < lower {
        let reason = format!(
            "neighbors see more than partial correlations ({linear:.4}): dependence that no correlation shows"
        );
        return (Some(neighbors), reason);
    }
    if let Some(Estimate { doubts, .. }) = &mut estimates[neighbors].estimate {
        let message = format!(
            "partial correlations say {linear:.4}, beyond the interval of neighbors ({seen:.4}): neighbors fall short in many columns, and \
             partial correlations are too high where Z acts on X and Y in ways that no correlation shows; nothing here tells which it is"
        );
        doubts.push(Doubt::new("disagree", message));
    }
    (
        Some(neighbors),
        "neighbors assume nothing of how Z acts; partial correlations say more, see the doubt".into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Resampling;
    use candle_core::{DType, Device};
    use infomax_core::Key;

    const N: usize = 600;

    fn normal(seed: u64) -> Tensor {
        Key::new(seed).normal(0.0, 1.0, (N, 1), DType::F64, &Device::Cpu).unwrap()
    }

    fn report(x: &Tensor, y: &Tensor, z: &Tensor) -> MutualReport {
        let resampling = Resampling { draws: 20, ..Resampling::default() };
        let cfg = MutualConfig { resampling, permutations: 39, permutation_rows: 300, ..Default::default() };
        conditional_report(x, y, z, &cfg).unwrap()
    }

    fn codes(report: &MutualReport) -> Vec<&'static str> {
        report.estimates[0].estimate.iter().flat_map(|e| e.doubts.iter().map(|d| d.code)).collect()
    }

    #[test]
    fn correlations_come_first_where_neighbors_agree_and_neighbors_where_they_see_more() {
        let (z, e, f) = (normal(1), normal(2), normal(3));
        // Both follow Z alone: 0.
        let (x, y) = ((&z + &e).unwrap(), (&z + &f).unwrap());
        let none = report(&x, &y, &z);
        assert_eq!(none.recommended, Some(0));
        assert_eq!(none.estimates[0].estimator, MutualEstimator::NormalCopula, "{}", none.reason);
        let first = none.estimates[0].estimate.as_ref().unwrap();
        assert!(first.value.abs() < 0.02 && none.estimates[0].p_value.unwrap() > 0.05, "{first:?}");
        // rho^2 = 0.5 given Z.
        let y = ((&z + &e).unwrap() + &f).unwrap();
        let some = report(&x, &y, &z);
        let first = some.estimates[0].estimate.as_ref().unwrap();
        assert_eq!(some.estimates[0].estimator, MutualEstimator::NormalCopula);
        assert!((first.value - 0.5 * 2f64.ln()).abs() < 0.08, "{first:?}");
        // A parabola of what X has beyond Z: no correlation shows it.
        let y = ((&z + e.sqr().unwrap()).unwrap() + (&f * 0.2).unwrap()).unwrap();
        let bent = report(&x, &y, &z);
        assert_eq!(bent.estimates[0].estimator, MutualEstimator::Ksg1);
        assert!(bent.reason.contains("neighbors see more"), "{}", bent.reason);
    }

    #[test]
    fn a_common_cause_that_no_correlation_shows_is_no_information_beyond_it() {
        let (z, e, f) = (normal(4), normal(5), normal(6));
        let square = z.sqr().unwrap();
        let (x, y) = ((&square + (&e * 0.3).unwrap()).unwrap(), (&square + (&f * 0.3).unwrap()).unwrap());
        let found = report(&x, &y, &z);
        assert_eq!(found.estimates[0].estimator, MutualEstimator::Ksg1, "{}", found.reason);
        assert!(found.estimates[0].estimate.as_ref().unwrap().value < 0.2);
        // Partial correlations do not see the cause.
        assert!(found.estimates[1].estimate.as_ref().unwrap().value > 0.4);
        assert!(codes(&found).contains(&"disagree"));
    }

    #[test]
    fn functions_of_each_other_are_said_and_an_estimator_that_refuses_does_not_end_the_report() {
        let (z, e) = (normal(7), normal(8));
        let x = (&z + &e).unwrap();
        // The same ranks: the matrix of their correlations is singular.
        let double = (&x * 2.0).unwrap();
        let found = report(&x, &double, &z);
        assert_eq!(found.estimates[0].estimator, MutualEstimator::Ksg1);
        assert!(found.estimates[1].refused.is_some() && codes(&found).contains(&"determined"));
        assert_eq!(found.estimates[0].estimate.as_ref().unwrap().interval, None);
        // X and Z together determine the sum, which Z alone does not.
        let sum = (&x + (&z * 0.5).unwrap()).unwrap();
        assert!(codes(&report(&x, &sum, &z)).contains(&"determined"));
        // X is a multiple of Z: it tells nothing beyond it.
        let of_z = (&z * 3.0).unwrap();
        let found = report(&of_z, &(&z + &e).unwrap(), &z);
        assert!(codes(&found).contains(&"given-determines"), "{found:?}");
        let few = |t: &Tensor| t.narrow(0, 0, 20).unwrap();
        let f = normal(9);
        let found = report(&few(&x), &few(&f), &few(&z));
        assert!(found.recommended.is_none() && codes(&found).contains(&"few-rows"));
        let cfg = MutualConfig { estimators: vec![MutualEstimator::Sliced], ..Default::default() };
        assert!(conditional_report(&x, &f, &z, &cfg).unwrap_err().to_string().contains("conditional form"));
    }
}
