//! Estimators of entropy against the truth on mixtures of Gaussians.

use super::Experiment;
use crate::ctx::Ctx;
use crate::finding::{Finding, Plot, Style, Table};
use crate::verdict::{self, Judgment, Side};
use crate::{Result, random, stats};
use candle_core::Tensor;
use infomax_core::Key;
use infomax_eval::{
    Resampling,
    information::{self, Norm},
};
use infomax_losses::entropy::{Divergence, mixture_bound};
use std::f64::consts::PI;

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "mixtures",
    claim: "The pairwise-distance bounds hold the entropy of a Gaussian mixture between them, and follow it where \
            separation makes the log-determinant of its covariance fail.",
    needs: "nothing",
    statistic: "the share of mixtures whose true entropy lies between the bounds; the error of the log-determinant \
                minus that of the upper bound on separated mixtures",
    revision: 1,
    small_minutes: 2.0,
    full: "10 minutes",
    run,
};

/// `1/k sum_j N(m_j, I)` in `d` dimensions, the means drawn at the distance `separation` from the origin.
struct Mixture {
    means: Vec<Vec<f64>>,
}

impl Mixture {
    fn new(key: Key, k: usize, d: usize, separation: f64) -> Result<Self> {
        let mut means = random::normal(key, k, d)?;
        for mean in &mut means {
            let norm = mean.iter().map(|v| v * v).sum::<f64>().sqrt();
            mean.iter_mut().for_each(|v| *v *= separation / norm);
        }
        Ok(Self { means })
    }

    fn draw(&self, key: Key, n: usize) -> Result<Vec<Vec<f64>>> {
        let d = self.means[0].len();
        let mut points = random::normal(key, n, d)?;
        for (i, point) in points.iter_mut().enumerate() {
            point.iter_mut().zip(&self.means[i % self.means.len()]).for_each(|(p, m)| *p += m);
        }
        Ok(points)
    }

    fn ln_density(&self, x: &[f64]) -> f64 {
        let half: Vec<f64> = self
            .means
            .iter()
            .map(|m| -0.5 * m.iter().zip(x).map(|(a, b)| (a - b) * (a - b)).sum::<f64>())
            .collect();
        let most = half.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = half.iter().map(|h| (h - most).exp()).sum();
        most + sum.ln() - (half.len() as f64).ln() - 0.5 * x.len() as f64 * (2.0 * PI).ln()
    }

    /// The entropy with its standard error: by Simpson's rule in one dimension (error far below 1e-6), else by Monte
    /// Carlo with the components taking turns.
    fn entropy(&self, key: Key, draws: usize) -> Result<(f64, f64)> {
        if self.means[0].len() == 1 {
            let centers = || self.means.iter().map(|m| m[0]);
            let low = centers().fold(f64::INFINITY, f64::min) - 12.0;
            let high = centers().fold(f64::NEG_INFINITY, f64::max) + 12.0;
            let steps = 2 * ((high - low) * 40.0).ceil() as usize;
            let h = (high - low) / steps as f64;
            let term = |i: usize| {
                let l = self.ln_density(&[low + h * i as f64]);
                -l.exp() * l
            };
            let weight = |i: usize| {
                if i == 0 || i == steps {
                    1.0
                } else if i % 2 == 1 {
                    4.0
                } else {
                    2.0
                }
            };
            return Ok(((0..=steps).map(|i| weight(i) * term(i)).sum::<f64>() * h / 3.0, 1e-9));
        }
        let surprise: Vec<f64> = self.draw(key, draws)?.iter().map(|x| -self.ln_density(x)).collect();
        Ok((stats::mean(&surprise), stats::deviation(&surprise) / (surprise.len() as f64).sqrt()))
    }

    fn bound(&self, divergence: Divergence) -> Result<f64> {
        let (k, d) = (self.means.len(), self.means[0].len());
        let means = random::tensor(&self.means)?;
        let eye = Tensor::eye(d, means.dtype(), means.device())?.unsqueeze(0)?;
        let covariances = eye.broadcast_as((k, d, d))?.contiguous()?;
        Ok(mixture_bound(&means, &covariances, divergence, 0.5)?.to_scalar::<f64>()?)
    }
}

/// One mixture with all estimates.
struct Row {
    what: &'static str,
    k: usize,
    d: usize,
    n: usize,
    separation: f64,
    truth: (f64, f64),
    lower: f64,
    upper: f64,
    gaussian: f64,
    neighbors: f64,
    blurred: f64,
}

fn run(ctx: &mut Ctx<'_>) -> Result<Finding> {
    let draws = ctx.pick(4_000, 200_000, 1_000_000);
    let n = ctx.pick(200, 1_000, 4_000);
    let seeds: u64 = ctx.pick(1, 3, 10);
    let mut cases: Vec<(&'static str, usize, usize, usize, f64)> = Vec::new();
    cases.extend([1, 2, 4, 8, 16, 32].map(|k| ("number", k, 2, n, 6.0)));
    cases.extend([0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 10.0].map(|s| ("separation", 8, 2, n, s)));
    cases.extend([1, 2, 4, 8, 16].map(|d| ("dimension", 8, d, n, 6.0)));
    cases.extend([n / 8, n / 4, n / 2, n, 2 * n].map(|n| ("samples", 8, 4, n, 6.0)));
    let mut rows = Vec::new();
    for seed in 0..seeds {
        for (case, (what, k, d, n, separation)) in cases.iter().copied().enumerate() {
            ctx.check()?;
            let key = Key::new(seed).fold_named("mixtures").fold_in(case as u64);
            let mixture = Mixture::new(key.fold_in(0), k, d, separation)?;
            let sample = random::tensor(&mixture.draw(key.fold_in(1), n)?)?;
            let none = Resampling::none();
            let gaussian = information::gaussian_entropy(&sample, &none)?;
            rows.push(Row {
                what,
                k,
                d,
                n,
                separation,
                truth: mixture.entropy(key.fold_in(2), draws)?,
                lower: mixture.bound(Divergence::Bhattacharyya)?,
                upper: mixture.bound(Divergence::Kl)?,
                gaussian: gaussian.unbiased.unwrap_or(gaussian.ledoit_wolf).value,
                neighbors: information::kozachenko_leonenko(&sample, 3, Norm::Euclidean, &none)?.value,
                blurred: information::mixture_entropy(&sample, &Default::default())?.estimate.value,
            });
        }
    }
    let judgments = judge(&rows);
    let mut numbers = Table::new(
        "entropies",
        "entropies of mixtures of unit Gaussians by several estimators beside the truth",
        &[
            "varied",
            "components",
            "dimensions",
            "samples",
            "distance of means [sd]",
            "truth [nats]",
            "error of truth [nats]",
            "pairwise lower [nats]",
            "pairwise upper [nats]",
            "Gaussian [nats]",
            "nearest neighbors [nats]",
            "blurred sample [nats]",
        ],
    );
    for r in &rows {
        numbers.row(vec![
            r.what.into(),
            r.k.into(),
            r.d.into(),
            r.n.into(),
            r.separation.into(),
            r.truth.0.into(),
            r.truth.1.into(),
            r.lower.into(),
            r.upper.into(),
            r.gaussian.into(),
            r.neighbors.into(),
            r.blurred.into(),
        ]);
    }
    let axis = |what: &str, r: &Row| match what {
        "number" => r.k as f64,
        "separation" => r.separation,
        "dimension" => r.d as f64,
        _ => r.n as f64,
    };
    let named = [
        ("number", "number of components"),
        ("separation", "distance of the means from the origin [sd]"),
        ("dimension", "dimensions"),
        ("samples", "samples"),
    ];
    let plots = named.map(|(what, label)| {
        let mut plot = Plot::new(
            what,
            &format!("Error of estimators against the {label}"),
            label,
            "estimate - truth [nats]",
        )
        .logarithmic(what != "separation", false)
        .mark(0.0, "truth")
        .caption("The mean over seeds. The pairwise bounds know the components; the others see a sample.");
        type Get = fn(&Row) -> f64;
        let series: [(&str, Get); 5] = [
            ("pairwise, lower (Bhattacharyya)", |r| r.lower),
            ("pairwise, upper (Kullback-Leibler)", |r| r.upper),
            ("Gaussian (log-determinant)", |r| r.gaussian),
            ("nearest neighbors", |r| r.neighbors),
            ("blurred sample", |r| r.blurred),
        ];
        for (name, get) in series {
            let of: Vec<&Row> = rows.iter().filter(|r| r.what == what).collect();
            let mut at: Vec<f64> = of.iter().map(|r| axis(what, r)).collect();
            at.sort_by(f64::total_cmp);
            at.dedup();
            let error = |x: &f64| {
                let errors: Vec<f64> =
                    of.iter().filter(|r| axis(what, r) == *x).map(|r| get(r) - r.truth.0).collect();
                (*x, stats::mean(&errors))
            };
            plot.add(name, Style::Line, at.iter().map(error));
        }
        plot
    });
    Ok(Finding {
        judgments,
        tables: vec![numbers],
        plots: plots.into(),
        notes: vec![
            format!(
                "Truth: Simpson's rule in one dimension, else {draws} Monte Carlo draws with their standard error. \
                 {seeds} seeds for each of {} mixtures.",
                cases.len()
            ),
            "Nearest neighbors: Kozachenko and Leonenko with k = 3. Blurred sample: the entropy of the sample convolved \
             with a Gaussian as wide as its nearest neighbors are far, which adds to the entropy of what was sampled."
                .into(),
            "The upper bound fails slowly where components overlap in part; the log-determinant fails where they separate; \
             nearest neighbors are biased in many dimensions: the charts show where."
                .into(),
        ],
        ..Finding::default()
    })
}

fn judge(rows: &[Row]) -> Vec<Judgment> {
    let held = |r: &&Row| {
        let error = 3.0 * r.truth.1 + 1e-9;
        r.lower - error <= r.truth.0 && r.truth.0 <= r.upper + error
    };
    let gain: Vec<f64> = rows
        .iter()
        .filter(|r| r.k > 1 && r.separation >= 6.0)
        .map(|r| (r.gaussian - r.truth.0).abs() - (r.upper - r.truth.0).abs())
        .collect();
    vec![
        verdict::share_beyond(
            "The true entropy lies between the pairwise bounds.",
            "share of mixtures with lower <= truth <= upper, within 3 standard errors of the truth",
            rows.iter().filter(held).count(),
            rows.len(),
            Side::Above,
            0.9,
        ),
        verdict::mean_beyond(
            "On separated mixtures the pairwise bound is nearer to the truth than the log-determinant.",
            "|log-determinant - truth| - |upper bound - truth| [nats], mixtures of 2 and more components at 6 sd and more",
            &gain,
            Side::Above,
            0.0,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

    fn row(truth: f64, lower: f64, upper: f64, gaussian: f64) -> Row {
        let (what, k, d, n, separation) = ("number", 4, 2, 100, 8.0);
        let (neighbors, blurred) = (truth, truth);
        Row { what, k, d, n, separation, truth: (truth, 1e-3), lower, upper, gaussian, neighbors, blurred }
    }

    #[test]
    fn verdicts_follow_the_numbers() {
        let good: Vec<Row> = (0..50).map(|i| row(3.0, 2.9, 3.05, 4.0 + 0.01 * f64::from(i))).collect();
        assert!(judge(&good).iter().all(|j| j.verdict == Verdict::Supported));
        // A broken bound below the truth, and a log-determinant that is better.
        let bad: Vec<Row> = (0..50).map(|i| row(3.0, 2.0, 2.5, 3.01 + 0.001 * f64::from(i))).collect();
        assert!(judge(&bad).iter().all(|j| j.verdict == Verdict::NotSupported));
        assert!(judge(&good[..2]).iter().any(|j| j.verdict == Verdict::Undecided));
    }

    #[test]
    fn the_truth_is_that_of_a_gaussian_and_of_far_components() {
        let own = 0.5 * (2.0 * PI * std::f64::consts::E).ln();
        let one = Mixture { means: vec![vec![0.0]] };
        assert!((one.entropy(Key::new(0), 10).unwrap().0 - own).abs() < 1e-8);
        let two = Mixture { means: vec![vec![-20.0], vec![20.0]] };
        assert!((two.entropy(Key::new(0), 10).unwrap().0 - own - 2f64.ln()).abs() < 1e-8);
        let plane = Mixture { means: vec![vec![0.0, 0.0]] };
        let (value, error) = plane.entropy(Key::new(0), 20_000).unwrap();
        assert!((value - 2.0 * own).abs() < 4.0 * error && error < 0.01);
    }
}
