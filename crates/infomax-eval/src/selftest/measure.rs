//! Error and coverage of estimators over many draws of tasks.

use super::Task;
use crate::estimate::{Resampling, variance};
use crate::information::{MutualConfig, MutualEstimator, MutualReport, Variable, mutual_report};
use crate::{Error, Result};
use candle_core::Tensor;
use infomax_core::Key;
use serde::Serialize;

/// The settings of [`measure`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MeasureConfig {
    /// The numbers of rows.
    pub n: Vec<usize>,
    /// How often each task is drawn.
    pub seeds: usize,
    /// The first seed.
    pub seed: u64,
    /// The estimators, of those for continuous variables.
    pub estimators: Vec<MutualEstimator>,
    /// The number of neighbors.
    pub k: usize,
    /// The intervals.
    pub resampling: Resampling,
}

impl Default for MeasureConfig {
    /// 1,000 rows, 5 draws, the estimators that `mutual_report` chooses from and KSG, `k = 3`, intervals from 30
    /// subsamples of at most 500 rows.
    fn default() -> Self {
        use MutualEstimator::*;
        Self {
            n: vec![1_000],
            seeds: 5,
            seed: 0,
            estimators: vec![Matched, Corrected, NormalCopula, Ksg1, CopulaSplitting],
            k: 3,
            resampling: Resampling { draws: 30, max_rows: 500, ..Resampling::default() },
        }
    }
}

impl MeasureConfig {
    /// The arrays `(n, D_x)` and `(n, D_y)` of one draw, `seed < seeds`, as [`measure`] takes them.
    ///
    /// # Errors
    /// Those of the sampler.
    pub fn draw(&self, task: &Task, seed: u64, n: usize) -> Result<(Tensor, Tensor)> {
        task.draw(Key::new(self.seed).fold_named("selftest").fold_named(&task.name).fold_in(seed), n)
    }
}

/// How one estimator did on one task with one number of rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// The task.
    pub task: String,
    /// Its family.
    pub family: &'static str,
    /// The rows.
    pub n: usize,
    /// The information in nats.
    pub truth: f64,
    /// The estimator; `first` for the one that the rule chose each time.
    pub estimator: &'static str,
    /// The mean estimate.
    pub mean: f64,
    /// The standard deviation over draws.
    pub deviation: f64,
    /// The mean of `|estimate - truth|`.
    pub error: f64,
    /// The share of the draws whose interval holds the truth, of those that have one.
    pub coverage: Option<f64>,
    /// The mean width of the intervals.
    pub width: Option<f64>,
    /// The draws that gave an estimate.
    pub draws: usize,
}

/// Draws every task `seeds` times with every number of rows, and measures each estimator and the one that the rule of
/// [`mutual_report`] puts first. `progress` is told of each task when it begins.
///
/// # Errors
/// No draw, settings out of range, or a sampler that fails.
pub fn measure(
    tasks: &[Task],
    cfg: &MeasureConfig,
    mut progress: impl FnMut(&Task, usize),
) -> Result<Vec<Cell>> {
    if cfg.seeds == 0 || cfg.n.is_empty() || cfg.estimators.is_empty() {
        let value = format!("{} seeds, n {:?}, {} estimators", cfg.seeds, cfg.n, cfg.estimators.len());
        let reason = "needs one of each at least";
        return Err(Error::Config { key: "selftest", value, reason });
    }
    let mut cells = Vec::new();
    for &n in &cfg.n {
        for task in tasks {
            progress(task, n);
            let mut reports = Vec::with_capacity(cfg.seeds);
            for seed in 0..cfg.seeds as u64 {
                let (x, y) = cfg.draw(task, seed, n)?;
                let one = MutualConfig {
                    estimators: cfg.estimators.clone(),
                    k: cfg.k,
                    resampling: Resampling { seed, ..cfg.resampling },
                    permutations: 0,
                    seed,
                    ..MutualConfig::default()
                };
                reports.push(mutual_report(&Variable::Continuous(x), &Variable::Continuous(y), &one)?);
            }
            cells.push(cell(task, n, None, &reports));
            cells.extend(cfg.estimators.iter().map(|e| cell(task, n, Some(*e), &reports)));
        }
    }
    Ok(cells)
}

fn cell(task: &Task, n: usize, estimator: Option<MutualEstimator>, reports: &[MutualReport]) -> Cell {
    let found: Vec<_> = reports
        .iter()
        .filter_map(|r| match estimator {
            Some(wanted) => r.estimates.iter().find(|e| e.estimator == wanted)?.estimate.as_ref(),
            None => r.estimates.get(r.recommended?)?.estimate.as_ref(),
        })
        .collect();
    let values: Vec<f64> = found.iter().map(|e| e.value).collect();
    let count = values.len() as f64;
    let intervals: Vec<_> = found.iter().filter_map(|e| e.interval.as_ref()).collect();
    let of_intervals = |f: &dyn Fn(f64, f64) -> f64| {
        let sum = intervals.iter().map(|i| f(i.lower, i.upper)).sum::<f64>();
        (!intervals.is_empty()).then(|| sum / intervals.len() as f64)
    };
    Cell {
        task: task.name.clone(),
        family: task.family,
        n,
        truth: task.truth,
        estimator: estimator.map_or("first", MutualEstimator::name),
        mean: values.iter().sum::<f64>() / count,
        deviation: variance(&values).sqrt(),
        error: values.iter().map(|v| (v - task.truth).abs()).sum::<f64>() / count,
        coverage: of_intervals(&|low, high| f64::from(u8::from(low <= task.truth && task.truth <= high))),
        width: of_intervals(&|low, high| high - low),
        draws: values.len(),
    }
}
