//! The mutual information of two variables of any kind, by every estimator that fits them, and which to read first.

use super::caution::{Determined, FEW_ROWS, reach_zero, said, too_few};
use super::continuous::{KsgConfig, KsgKind, Marginals, ksg, prepare};
use super::corrected::{self, CorrectedConfig};
use super::determined::flat;
use super::labels::ross;
use super::labels_mixture::gao_of_classes;
use super::mixtures::{gao, plug_in};
use super::normal::{self, NormalModel, read_pair};
use super::permutation::test;
use super::sliced::{SlicedConfig, sliced_mutual_information};
use super::ties::{self, Groups};
use crate::estimate::{Doubt, Estimate, Resampling, choose};
use crate::matrix::{self, Rows};
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use infomax_core::Key;
use serde::Serialize;

/// One of the two variables: row `i` of both is the same sample.
#[derive(Clone, Debug)]
pub enum Variable {
    /// Columns of numbers whose distances mean something, `(N, D)`.
    Continuous(Tensor),
    /// A class a row.
    Discrete(Vec<u32>),
}

impl Variable {
    fn rows(&self) -> usize {
        match self {
            Self::Continuous(x) => x.dims().first().copied().unwrap_or(0),
            Self::Discrete(labels) => labels.len(),
        }
    }

    fn select(&self, rows: &[usize]) -> Result<Self> {
        Ok(match self {
            Self::Continuous(x) => {
                let index: Vec<u32> = rows.iter().map(|&i| i as u32).collect();
                let index = Tensor::from_vec(index, rows.len(), &Device::Cpu)?;
                Self::Continuous(x.to_device(&Device::Cpu)?.contiguous()?.index_select(&index, 0)?)
            }
            Self::Discrete(labels) => Self::Discrete(rows.iter().map(|&i| labels[i]).collect()),
        })
    }
}

/// An estimator of mutual information.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum MutualEstimator {
    /// [`super::matched_mutual_information`].
    Matched,
    /// [`super::corrected_mutual_information`].
    Corrected,
    /// [`super::mutual_information`], the first kind, normal scores.
    Ksg1,
    /// The second kind.
    Ksg2,
    /// [`super::normal_mutual_information`] of normal scores.
    NormalCopula,
    /// The same of the columns as they are.
    Normal,
    /// The same with the covariance of Ledoit and Wolf.
    NormalShrunk,
    /// [`super::copula_splitting_information`].
    CopulaSplitting,
    /// [`super::sliced_mutual_information`] of lines: a lower bound.
    Sliced,
    /// [`super::mixture_mutual_information`], for ties; with labels [`super::label_mixture_information`].
    Mixture,
    /// [`super::mixed_mutual_information`]: one variable is discrete.
    Mixed,
    /// [`super::discrete_mutual_information`]: both are, or have few distinct rows, which are the classes.
    Discrete,
}

impl MutualEstimator {
    /// Those for two continuous variables.
    pub const CONTINUOUS: [Self; 10] = [
        Self::Matched,
        Self::Corrected,
        Self::NormalCopula,
        Self::Ksg1,
        Self::Ksg2,
        Self::Normal,
        Self::NormalShrunk,
        Self::CopulaSplitting,
        Self::Sliced,
        Self::Mixture,
    ];

    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Corrected => "corrected",
            Self::Ksg1 => "ksg1",
            Self::Ksg2 => "ksg2",
            Self::NormalCopula => "normal-copula",
            Self::Normal => "normal",
            Self::NormalShrunk => "normal-shrunk",
            Self::CopulaSplitting => "copula-splitting",
            Self::Sliced => "sliced",
            Self::Mixture => "mixture",
            Self::Mixed => "mixed",
            Self::Discrete => "discrete",
        }
    }

    /// What it is, in a line.
    pub fn about(self) -> &'static str {
        match self {
            Self::Matched => "KSG, read off the Student copulas of the same correlations",
            Self::Corrected => "KSG in canonical coordinates, less its bias on a normal copula",
            Self::Ksg1 => "Kraskov, Stoegbauer and Grassberger 1, normal scores",
            Self::Ksg2 => "Kraskov, Stoegbauer and Grassberger 2, normal scores",
            Self::NormalCopula => "correlations of normal scores; exact for a normal copula",
            Self::Normal => "correlations of the columns; exact for normal variables",
            Self::NormalShrunk => "correlations, Ledoit-Wolf; for as many columns as rows",
            Self::CopulaSplitting => "recursive copula splitting (CADEE)",
            Self::Sliced => "mean over random lines: a lower bound",
            Self::Mixture => "Gao et al., for ties and partly discrete columns",
            Self::Mixed => "Ross, neighbors within classes",
            Self::Discrete => "shares of pairs of classes, Miller-Madow",
        }
    }
}

/// The settings of [`mutual_report`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MutualConfig {
    /// The estimators; empty for all that fit.
    pub estimators: Vec<MutualEstimator>,
    /// The number of neighbors.
    pub k: usize,
    /// The intervals.
    pub resampling: Resampling,
    /// Permutations of the test of independence of each estimator; 0 for none.
    pub permutations: usize,
    /// At most so many rows, drawn by the seed, take part in a permutation.
    pub permutation_rows: usize,
    /// The dimension of the projections of `sliced`, cut to that of each variable.
    pub slice_dim: usize,
    /// The seed of permutations, surrogates and slices.
    pub seed: u64,
}

impl Default for MutualConfig {
    /// All estimators, `k = 3`, 99 permutations of at most 1,000 rows, slices of one dimension.
    fn default() -> Self {
        Self {
            estimators: Vec::new(),
            k: 3,
            resampling: Resampling::default(),
            permutations: 99,
            permutation_rows: 1_000,
            slice_dim: 1,
            seed: 0,
        }
    }
}

/// An estimate with the name of its estimator.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NamedEstimate {
    /// The estimator.
    pub estimator: MutualEstimator,
    /// The estimate in nats; `None` where the estimator refused.
    pub estimate: Option<Estimate>,
    /// The p-value of independence by permutations, `None` without them.
    pub p_value: Option<f64>,
    /// The rows of the test.
    pub tested_rows: usize,
    /// Why there is no estimate.
    pub refused: Option<String>,
}

/// The result of [`mutual_report`] and of [`super::conditional_report`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MutualReport {
    /// The rows.
    pub n: usize,
    /// The columns of each variable, 0 for a discrete one.
    pub dims: Vec<usize>,
    /// The place in `estimates` of the one to read first; `None` if all refused, or if the rows are too few for any.
    pub recommended: Option<usize>,
    /// Why that one, or why none.
    pub reason: String,
    /// All estimates, the recommended one first.
    pub estimates: Vec<NamedEstimate>,
}

/// `I(X; Y)` by the estimators that fit both variables, each with interval, doubts and the p-value of a permutation
/// test, and which to read first.
///
/// The rule, drawn from the table of `docs/information.md`: two discrete variables, or columns with so few distinct rows
/// that there are five rows for each pair of them, `discrete`; more than 5 % of the rows with their `k` nearest at
/// distance 0 in columns beside labels, or, of two variables of columns, a row that a twentieth of all are equal to in one
/// of them, or rows that coincide with their `k` nearest in both, `mixture`; one discrete
/// variable, `mixed`; no more rows than columns, `normal-shrunk`; where the interval of `corrected` holds the value of
/// `normal-copula` and Mardia's kurtosis of the normal scores is that of normal rows, nothing speaks against a normal copula,
/// and that estimate varies least; else `matched`, or `corrected`
/// where that one is not had. An estimator that refuses passes to the next.
///
/// Where a combination of the columns of one continuous variable is one of the other but for rounding, or where the rows of both
/// together fill fewer dimensions than both do apart (`y = x^2`, a circle), no estimate has
/// an interval, and all have the doubt `determined`: the information is infinite.
///
/// Of fewer than 24 rows (`8 k`) none is recommended, and all have the doubt `few-rows`. Where the permutations, of all rows, do not
/// reject independence at the level of the intervals, an interval reaches to 0.
///
/// # Errors
/// Different numbers of rows, values that are not finite, constant columns, a single class, settings out of range, or
/// an estimator that does not fit the kinds of the variables.
pub fn mutual_report(x: &Variable, y: &Variable, cfg: &MutualConfig) -> Result<MutualReport> {
    const OP: &str = "mutual_report";
    if x.rows() != y.rows() {
        return Err(Error::Paired { op: OP, first: "x", second: "y", rows: [x.rows(), y.rows()] });
    }
    cfg.check()?;
    if cfg.slice_dim == 0 {
        let (value, reason) = ("0".into(), "must be at least 1");
        return Err(Error::Config { key: "slice_dim", value, reason });
    }
    let dim = |v: &Variable| match v {
        Variable::Continuous(x) => x.dims().get(1).copied().unwrap_or(0),
        Variable::Discrete(_) => 0,
    };
    let (mut tied, mut determined, mut kurtosis) = (false, None, None);
    let mut fitting: Vec<MutualEstimator> = match (x, y) {
        (Variable::Continuous(a), Variable::Continuous(b)) => {
            let (a, b) = read_pair(OP, a, b)?;
            // Values of a fine grid are no classes: such a group holds a twentieth of the rows.
            let least = cfg.k.max(a.n / 20);
            tied = ties::share(&a, least) > ties::FEW || ties::share(&b, least) > ties::FEW;
            determined = match tied {
                true => None,
                false if corrected::determined(&a, &b) => Some(Determined::Correlation),
                false => flat(&a, &b).map(Determined::Dimensions),
            };
            kurtosis = corrected::kurtosis_of_scores(&a, &b);
            MutualEstimator::CONTINUOUS.to_vec()
        }
        (Variable::Continuous(a), Variable::Discrete(l))
        | (Variable::Discrete(l), Variable::Continuous(a)) => {
            let a = matrix::labeled(OP, "x", a, l)?;
            matrix::classes(OP, l, l)?;
            tied = ties::share(&a, cfg.k) > ties::FEW;
            vec![MutualEstimator::Mixed, MutualEstimator::Mixture]
        }
        (Variable::Discrete(_), Variable::Discrete(_)) => vec![MutualEstimator::Discrete],
    };
    // Distinct rows as classes, where all pairs of them are there often enough.
    let classes = if tied { Some([of_rows(OP, x)?, of_rows(OP, y)?]) } else { None };
    if let Some([a, b]) = &classes
        && (cfg.estimators.contains(&MutualEstimator::Discrete)
            || 5 * plug_in(a, b, &(0..x.rows()).collect::<Vec<_>>()).1 <= x.rows())
    {
        fitting.push(MutualEstimator::Discrete);
    }
    for wanted in &cfg.estimators {
        if !fitting.contains(wanted) {
            return Err(Error::Config {
                key: "estimator",
                value: wanted.name().into(),
                reason: "does not fit: `mixed` is for one discrete variable, `discrete` for two or for columns with few \
                         distinct rows, `mixture` for none or one, all others for none",
            });
        }
    }
    let chosen = if cfg.estimators.is_empty() { fitting } else { cfg.estimators.clone() };
    let few = cfg.few_rows();
    let mut estimates = Vec::with_capacity(chosen.len());
    for estimator in chosen {
        let mut found = match (&classes, estimator) {
            (Some([a, b]), MutualEstimator::Discrete) => {
                one(estimator, &Variable::Discrete(a.clone()), &Variable::Discrete(b.clone()), cfg)?
            }
            _ => one(estimator, x, y, cfg)?,
        };
        if let Some(estimate) = &mut found.estimate {
            said(estimate, determined, &cfg.resampling);
            if x.rows() < few {
                estimate.doubts.push(too_few(x.rows(), few));
            }
        }
        reach_zero(&mut found, x.rows(), cfg.resampling.level);
        estimates.push(found);
    }
    let not_normal = kurtosis.is_some_and(|z: f64| z.abs() > corrected::NOT_NORMAL);
    let (best, reason) = recommended(&estimates, x, y, tied, not_normal);
    rests_on_the_model(&mut estimates);
    Ok(MutualReport::of(x.rows(), vec![dim(x), dim(y)], estimates, (best, reason), few))
}

impl MutualReport {
    /// The report of estimates of which the one at a place is to be read first; of fewer than `few` rows none is.
    pub(super) fn of(
        n: usize,
        dims: Vec<usize>,
        mut estimates: Vec<NamedEstimate>,
        (best, reason): (Option<usize>, String),
        few: usize,
    ) -> Self {
        if let Some(best) = best {
            estimates[..=best].rotate_right(1);
        }
        let (recommended, reason) = match n < few {
            true => (None, too_few(n, few).message),
            false => (best.map(|_| 0), reason),
        };
        Self { n, dims, recommended, reason, estimates }
    }
}

impl MutualConfig {
    /// Refuses what no report can be made with.
    pub(super) fn check(&self) -> Result<()> {
        if self.k == 0 || self.permutation_rows < 8 {
            let value = format!("k {}, permutation_rows {}", self.k, self.permutation_rows);
            let reason = "needs k of at least 1 and permutations of at least 8 rows";
            return Err(Error::Config { key: "mutual", value, reason });
        }
        self.resampling.check()
    }

    /// The rows below which nothing is recommended.
    pub(super) fn few_rows(&self) -> usize {
        (8 * self.k).max(FEW_ROWS)
    }
}

impl NamedEstimate {
    /// An estimate, or why there is none, and the p-value of some of `n` rows, which are drawn; what an estimator cannot do is kept as
    /// text, and a part of the rows can be degenerate where all are not.
    pub(super) fn of(
        estimator: MutualEstimator,
        estimate: Result<Estimate>,
        n: usize,
        cfg: &MutualConfig,
        p_value: impl FnOnce(&[usize]) -> Result<f64>,
    ) -> Result<Self> {
        let (estimate, refused) = match estimate {
            Ok(estimate) => (Some(estimate), None),
            Err(error @ Error::Config { .. }) => return Err(error),
            Err(error) => (None, Some(error.to_string())),
        };
        let rows = n.min(cfg.permutation_rows);
        let tested = estimate.is_some() && cfg.permutations > 0;
        let drawn = || choose(Key::new(cfg.seed).fold_named("tested"), n, rows);
        let p_value = if tested { p_value(&drawn()).ok() } else { None };
        Ok(Self { estimator, estimate, p_value, tested_rows: rows, refused })
    }
}

/// The distinct rows of a variable as classes.
fn of_rows(op: &'static str, variable: &Variable) -> Result<Vec<u32>> {
    Ok(match variable {
        Variable::Continuous(x) => Groups::new(&Rows::read(op, "x", x)?).of,
        Variable::Discrete(labels) => labels.clone(),
    })
}

/// An estimate and its test; what an estimator cannot do is kept as text.
fn one(estimator: MutualEstimator, x: &Variable, y: &Variable, cfg: &MutualConfig) -> Result<NamedEstimate> {
    NamedEstimate::of(estimator, estimate(estimator, x, y, cfg), x.rows(), cfg, |drawn| {
        p_of(estimator, &x.select(drawn)?, &y.select(drawn)?, cfg)
    })
}

fn estimate(estimator: MutualEstimator, x: &Variable, y: &Variable, cfg: &MutualConfig) -> Result<Estimate> {
    use super::*;
    let (k, resampling) = (cfg.k, &cfg.resampling);
    match (x, y) {
        (Variable::Discrete(a), Variable::Discrete(b)) => discrete_mutual_information(a, b, resampling),
        (Variable::Continuous(z), Variable::Discrete(l))
        | (Variable::Discrete(l), Variable::Continuous(z)) => match estimator {
            MutualEstimator::Mixture => label_mixture_information(z, l, k, resampling),
            _ => mixed_mutual_information(z, l, k, resampling),
        },
        (Variable::Continuous(x), Variable::Continuous(y)) => match estimator {
            MutualEstimator::Ksg1 => mutual_information(x, y, &of_kind(k, KsgKind::One), resampling),
            MutualEstimator::Ksg2 => mutual_information(x, y, &of_kind(k, KsgKind::Two), resampling),
            MutualEstimator::NormalCopula => normal_mutual_information(x, y, NormalModel::Copula, resampling),
            MutualEstimator::Normal => normal_mutual_information(x, y, NormalModel::Sample, resampling),
            MutualEstimator::NormalShrunk => normal_mutual_information(x, y, NormalModel::Shrunk, resampling),
            MutualEstimator::CopulaSplitting => copula_splitting_information(x, y, resampling),
            MutualEstimator::Sliced => {
                let ksg = of_kind(k, KsgKind::One);
                let sliced = SlicedConfig { dim: cfg.slice_dim, ksg, seed: cfg.seed, ..Default::default() };
                sliced_mutual_information(x, y, &sliced, resampling)
            }
            MutualEstimator::Mixture => mixture_mutual_information(x, y, k, resampling),
            MutualEstimator::Matched => {
                let matched = CorrectedConfig { k, seed: cfg.seed, ..Default::default() };
                matched_mutual_information(x, y, &matched, resampling)
            }
            _ => {
                let corrected = CorrectedConfig { k, seed: cfg.seed, ..Default::default() };
                corrected_mutual_information(x, y, &corrected, resampling)
            }
        },
    }
}

fn of_kind(k: usize, kind: KsgKind) -> KsgConfig {
    KsgConfig { k, kind, marginals: Marginals::default() }
}

/// The p-value of independence: `y` is permuted.
fn p_of(estimator: MutualEstimator, x: &Variable, y: &Variable, cfg: &MutualConfig) -> Result<f64> {
    const OP: &str = "mutual_report";
    let (n, k) = (x.rows(), cfg.k);
    let p = |value: &(dyn Fn(Option<&[usize]>) -> Result<f64> + Sync)| -> Result<f64> {
        Ok(test(n, cfg.permutations, cfg.seed, value)?.p_value)
    };
    let moved = |labels: &[u32], order: Option<&[usize]>| match order {
        Some(order) => order.iter().map(|&i| labels[i]).collect::<Vec<u32>>(),
        None => labels.to_vec(),
    };
    let (x, y) = match (x, y) {
        (Variable::Discrete(a), Variable::Discrete(b)) => {
            let all: Vec<usize> = (0..n).collect();
            return p(&|order| Ok(plug_in(a, &moved(b, order), &all).0));
        }
        (Variable::Continuous(z), Variable::Discrete(l))
        | (Variable::Discrete(l), Variable::Continuous(z)) => {
            let rows = Rows::read(OP, "x", z)?;
            return match estimator {
                MutualEstimator::Mixture => p(&|order| Ok(gao_of_classes(&rows, &moved(l, order), k)?.0)),
                _ => p(&|order| Ok(ross(&rows, &moved(l, order), k)?.0)),
            };
        }
        (Variable::Continuous(x), Variable::Continuous(y)) => (x, y),
    };
    let kind = if estimator == MutualEstimator::Ksg2 { KsgKind::Two } else { KsgKind::One };
    let (scores_x, scores_y) = prepare(OP, x, y, &of_kind(k, kind))?;
    let (rows_x, rows_y) = read_pair(OP, x, y)?;
    let with = |order: Option<&[usize]>, rows: &Rows| order.map_or_else(|| rows.clone(), |o| rows.select(o));
    let model = |model: NormalModel| p(&|order| normal::information(&rows_x, &with(order, &rows_y), model));
    match estimator {
        MutualEstimator::NormalCopula => model(NormalModel::Copula),
        MutualEstimator::Normal => model(NormalModel::Sample),
        MutualEstimator::NormalShrunk => model(NormalModel::Shrunk),
        MutualEstimator::CopulaSplitting => {
            p(&|order| Ok(super::copula::splitting(&rows_x, &with(order, &rows_y))))
        }
        MutualEstimator::Mixture => p(&|order| Ok(gao(&rows_x, &with(order, &rows_y), k).0)),
        MutualEstimator::Sliced => {
            let few = SlicedConfig { dim: cfg.slice_dim, slices: 8, ksg: of_kind(k, kind), seed: cfg.seed };
            p(&|order| {
                let y = with(order, &rows_y).tensor()?;
                Ok(sliced_mutual_information(x, &y, &few, &Resampling::none())?.value)
            })
        }
        // Testing needs no scale, which would be that of each permutation.
        MutualEstimator::Corrected | MutualEstimator::Matched => {
            let few = CorrectedConfig { k, surrogates: 2, seed: cfg.seed };
            let none = Resampling::none();
            p(&|order| Ok(corrected::of_rows(&rows_x, &with(order, &rows_y), &few, &none)?.0.value))
        }
        _ => p(&|order| Ok(ksg(&scores_x, &with(order, &scores_y), &of_kind(k, kind))?.0)),
    }
}

/// The place of the estimate to read first, and why.
fn recommended(
    estimates: &[NamedEstimate],
    x: &Variable,
    y: &Variable,
    tied: bool,
    not_normal: bool,
) -> (Option<usize>, String) {
    let at = |wanted: MutualEstimator| {
        estimates.iter().position(|e| e.estimator == wanted && e.estimate.is_some())
    };
    let estimate = |at: usize| estimates[at].estimate.as_ref();
    if let Some(discrete) = at(MutualEstimator::Discrete).filter(|_| tied && estimates.len() > 1) {
        let reason = "few distinct rows: they are the classes of `discrete`";
        return (Some(discrete), reason.into());
    }
    if let Some(mixture) = at(MutualEstimator::Mixture).filter(|_| tied && estimates.len() > 1) {
        let reason = "many rows are equal to others in one variable: `mixture` counts them as discrete";
        return (Some(mixture), reason.into());
    }
    if let Some(mixed) = at(MutualEstimator::Mixed) {
        return (Some(mixed), "`mixed` is the one for columns and classes".into());
    }
    if let ([only], true) = (estimates, estimates.first().is_some_and(|e| e.estimate.is_some())) {
        return (Some(0), format!("`{}` is the one that was asked for, or that fits", only.estimator.name()));
    }
    let ties = at(MutualEstimator::Mixture)
        .filter(|&m| estimate(m).is_some_and(|e| e.doubts.iter().any(|d| d.code == "ties")));
    if let Some(mixture) = ties {
        return (Some(mixture), "rows coincide: `mixture` counts them as discrete".into());
    }
    let columns =
        [x, y].map(|v| if let Variable::Continuous(x) = v { x.dims().get(1).copied() } else { None });
    let columns: usize = columns.into_iter().flatten().sum();
    if x.rows() <= columns + 1
        && let Some(shrunk) = at(MutualEstimator::NormalShrunk)
    {
        return (Some(shrunk), "no more rows than columns: only a shrunk covariance can be had".into());
    }
    let (matched, copula) = (at(MutualEstimator::Matched), at(MutualEstimator::NormalCopula));
    // The narrower one decides whether a normal copula could be.
    let corrected = at(MutualEstimator::Corrected).or(matched);
    if let (Some(c), Some(g)) = (corrected, copula)
        && let (Some(Some(interval)), Some(normal)) = (estimate(c).map(|e| &e.interval), estimate(g))
        && interval.lower <= normal.value
        && normal.value <= interval.upper
        // Where neighbors see little, that interval alone excludes little.
        && !not_normal
    {
        let reason = format!(
            "the interval of `{}` holds the value of `normal-copula`: nothing speaks against a normal copula, whose \
             estimate varies least",
            estimates[c].estimator.name()
        );
        return (Some(g), reason);
    }
    if let (Some(c), Some(first)) = (corrected, matched.or(corrected)) {
        let interval = estimate(c).is_some_and(|e| e.interval.is_some());
        let (judge, name) = (estimates[c].estimator.name(), estimates[first].estimator.name());
        let reason = match (copula, interval) {
            (Some(_), true) if not_normal => {
                "the normal scores of both variables together are not normal (Mardia's kurtosis): the dependence is not that of \
                 correlations alone"
                    .to_owned()
            }
            (Some(_), true) => format!(
                "`normal-copula` lies outside of the interval of `{judge}`: the dependence is not that of correlations alone"
            ),
            (Some(_), false) => format!(
                "`{judge}` has no interval that could hold or exclude `normal-copula`: whether the dependence is that of \
                 correlations alone is not known"
            ),
            (None, _) => format!(
                "`{name}` takes off the bias of neighbors; `normal-copula` was not had, so that nothing is known of whether \
                 the dependence is that of correlations alone"
            ),
        };
        return (Some(first), reason);
    }
    match estimates.iter().position(|e| e.estimate.is_some()) {
        Some(first) => (Some(first), "the first one that did not refuse".into()),
        None => (None, "every estimator refused".into()),
    }
}

/// The doubt of `normal-copula` where neighbors alone see less than half of it: then only the model says so.
fn rests_on_the_model(estimates: &mut [NamedEstimate]) {
    let alone = estimates.iter().find_map(|e| {
        let neighbors = matches!(e.estimator, MutualEstimator::Ksg1 | MutualEstimator::Corrected);
        let estimate = e.estimate.as_ref().filter(|_| neighbors)?;
        let doubted =
            e.estimator == MutualEstimator::Ksg1 || estimate.doubts.iter().any(|d| d.code == "model-based");
        doubted.then_some((e.estimator, estimate.value))
    });
    let Some((by, value)) = alone else { return };
    for named in estimates.iter_mut().filter(|e| e.estimator == MutualEstimator::NormalCopula) {
        let Some(estimate) = &mut named.estimate else { continue };
        let message = match by {
            MutualEstimator::Ksg1 if estimate.value > 2.0 * value.max(0.05) => format!(
                "neighbors alone say {value:.3}: the rest is what a normal copula of these correlations would hold, and too \
                 few rows to see"
            ),
            MutualEstimator::Ksg1 => continue,
            _ => "neighbors alone see less than half of it: the rest is what a normal copula of these correlations would hold"
                .to_owned(),
        };
        estimate.doubts.push(Doubt::new("model-based", message));
    }
}

/// The doubt of a value below 0.
pub(super) fn negative(value: f64) -> Option<Doubt> {
    (value < 0.0).then(|| Doubt::new("negative", "below 0: indistinguishable from none"))
}
