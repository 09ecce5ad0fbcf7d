//! Theorem 2: at bounded variances the covariance of largest entropy is diagonal.

use super::Experiment;
use crate::ctx::Ctx;
use crate::finding::{Finding, Plot, Style, Table};
use crate::verdict::{self, Judgment, Side};
use crate::{Result, random};
use candle_core::{DType, Tensor, Var};
use infomax_core::Key;
use infomax_losses::{
    MomentForm,
    entropy::{Gaussian, variance_covariance},
};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "diagonal",
    claim: "At bounded variances the log-determinant entropy is largest for a diagonal covariance (Theorem 2), which is \
            what the variance and covariance terms of VICReg reach as well.",
    needs: "nothing",
    statistic: "|off-diagonal|_F / |diagonal|_F of the covariance where gradient ascent ends, from many starts",
    revision: 1,
    small_minutes: 1.0,
    full: "5 minutes",
    run,
};

/// Below this the covariance counts as diagonal.
const DIAGONAL: f64 = 0.02;

struct End {
    /// Off-diagonal by diagonal at the start and at the end.
    ratio: (f64, f64),
    /// `1/2 ln det` below that of the unit matrix, in nats.
    deficit: f64,
    /// Whether the last tenth of the steps changed the ratio by less than a tenth of [`DIAGONAL`].
    converged: bool,
    path: Vec<(f64, f64)>,
}

fn covariance(z: &Tensor) -> Result<Vec<Vec<f64>>> {
    let centered = z.broadcast_sub(&z.mean_keepdim(0)?)?;
    let n = z.dim(0)? as f64;
    Ok((centered.t()?.contiguous()?.matmul(&centered)? / (n - 1.0))?.to_vec2::<f64>()?)
}

fn off_diagonal(c: &[Vec<f64>]) -> f64 {
    let (mut on, mut off) = (0.0, 0.0);
    for (i, row) in c.iter().enumerate() {
        for (j, v) in row.iter().enumerate() {
            if i == j { on += v * v } else { off += v * v }
        }
    }
    (off / on).sqrt()
}

/// Gradient steps on `n` rows in `d` dimensions from correlated rows; `bounded` puts variances above 1 back to 1 after
/// each step.
fn climb(
    key: Key,
    (n, d, steps): (usize, usize, usize),
    bounded: bool,
    loss: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<End> {
    let mixing = random::tensor(&random::normal(key.fold_in(0), d, d)?)?;
    let rows = random::tensor(&random::normal(key.fold_in(1), n, d)?)?.matmul(&mixing)?;
    let bound = |z: &Tensor| -> Result<Tensor> {
        let centered = z.broadcast_sub(&z.mean_keepdim(0)?)?;
        let deviations = (centered.sqr()?.sum_keepdim(0)? / (n as f64 - 1.0))?.sqrt()?;
        Ok(centered.broadcast_div(&deviations.clamp(1.0, f64::INFINITY)?)?)
    };
    let start = bound(&rows)?;
    let var = Var::from_tensor(&start)?;
    let first = off_diagonal(&covariance(var.as_tensor())?);
    let mut path = vec![(0.0, first)];
    let (mut before, mut momentum) = (first, start.zeros_like()?);
    for step in 0..steps {
        let gradients = loss(var.as_tensor())?.backward()?;
        let Some(g) = gradients.get(var.as_tensor()) else { break };
        let norm = g.sqr()?.sum_all()?.sqrt()?.to_scalar::<f64>()?;
        if !norm.is_finite() || norm == 0.0 {
            break;
        }
        // Steps of one length that shrinks: neither loss needs its own rate then.
        let length = 0.5 * (n as f64).sqrt() * (1.0 - step as f64 / steps as f64).powi(2);
        momentum = ((momentum * 0.8)? + (g * (0.2 * length / norm))?)?;
        let moved = (var.as_tensor() - &momentum)?.detach();
        var.set(&if bounded { bound(&moved)? } else { moved })?;
        momentum = momentum.detach();
        if step % (steps / 40).max(1) == 0 || step + 1 == steps {
            path.push((step as f64 + 1.0, off_diagonal(&covariance(var.as_tensor())?)));
        }
        if step == steps - steps / 10 {
            before = off_diagonal(&covariance(var.as_tensor())?);
        }
    }
    let end = covariance(var.as_tensor())?;
    let ratio = off_diagonal(&end);
    let entropy = Gaussian { eps: 0.0, ..Gaussian::default() }.entropy(var.as_tensor())?;
    let unit = 0.5 * d as f64 * (2.0 * std::f64::consts::PI * std::f64::consts::E).ln();
    let deficit = unit - entropy.to_dtype(DType::F64)?.to_scalar::<f64>()?;
    Ok(End { ratio: (first, ratio), deficit, converged: (ratio - before).abs() < 0.1 * DIAGONAL, path })
}

fn run(ctx: &mut Ctx<'_>) -> Result<Finding> {
    let size = ctx.pick((40, 4, 200), (128, 12, 400), (512, 64, 1000));
    let mut numbers = Table::new(
        "ends",
        "where gradient ascent ends from each start",
        &[
            "objective",
            "start",
            "off-diagonal at the start",
            "off-diagonal at the end",
            "deficit of entropy [nats]",
            "converged",
        ],
    );
    let mut plot =
        Plot::new("paths", "Distance to a diagonal covariance", "step", "|off-diagonal|_F / |diagonal|_F")
            .logarithmic(false, true)
            .mark(DIAGONAL, "counts as diagonal")
            .caption("The first starts, with their covariance on the way.");
    let (mut log_det, mut vicreg) = (Vec::new(), Vec::new());
    for start in ctx.starts() {
        ctx.check()?;
        let key = Key::new(start).fold_named("diagonal");
        let entropy = Gaussian { eps: 0.0, ..Gaussian::default() };
        let one = climb(key, size, true, |z| Ok(entropy.entropy(z)?.neg()?))?;
        let two = climb(key, size, false, |z| {
            let parts = variance_covariance(z, 1.0, 1e-4, MomentForm::Auto)?;
            Ok(((parts.get(0)? * 25.0)? + parts.get(1)?)?)
        })?;
        for (name, end, all) in [("log-determinant", one, &mut log_det), ("VICReg", two, &mut vicreg)] {
            numbers.row(vec![
                name.into(),
                (start as usize).into(),
                end.ratio.0.into(),
                end.ratio.1.into(),
                end.deficit.into(),
                if end.converged { "yes" } else { "no" }.into(),
            ]);
            if start < 3 {
                plot.add(&format!("{name}, start {start}"), Style::Line, end.path.iter().copied());
            }
            all.push(end);
        }
    }
    let (n, d, steps) = size;
    Ok(Finding {
        judgments: judge(&log_det, &vicreg),
        tables: vec![numbers],
        plots: vec![plot],
        notes: vec![format!(
            "{n} rows in {d} dimensions, {steps} steps with momentum. Log-determinant: ascent of 1/2 ln det of the \
             covariance, variances above 1 put back to 1 after each step. VICReg: descent of 25 hinge + covariance, without \
             a bound. Deficit: how far the log-determinant lies below that of the unit matrix; below 0 where variances \
             exceed 1, which VICReg's hinge allows."
        )],
        ..Finding::default()
    })
}

fn judge(log_det: &[End], vicreg: &[End]) -> Vec<Judgment> {
    let part = |claim: &str, ends: &[End]| {
        // A start that is still on its way says nothing of the optimum.
        let ratios: Vec<f64> = ends.iter().filter(|e| e.converged).map(|e| e.ratio.1).collect();
        let statistic = "off-diagonal by diagonal of the covariance at the end, starts that converged";
        if 2 * ratios.len() < ends.len() {
            return verdict::nothing(
                claim,
                statistic,
                "undecided, as fewer than half of the starts converged",
            );
        }
        verdict::mean_beyond(claim, statistic, &ratios, Side::Below, DIAGONAL)
    };
    vec![
        part("The log-determinant at bounded variances ends in a diagonal covariance.", log_det),
        part("VICReg's variance and covariance terms end in a diagonal covariance.", vicreg),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

    fn ends(ratios: &[f64], converged: bool) -> Vec<End> {
        ratios.iter().map(|r| End { ratio: (0.8, *r), deficit: 0.0, converged, path: Vec::new() }).collect()
    }

    #[test]
    fn verdicts_follow_the_numbers() {
        let (good, bad) = (ends(&[1e-4, 2e-4, 1e-3], true), ends(&[0.3, 0.31, 0.4], true));
        assert!(judge(&good, &good).iter().all(|j| j.verdict == Verdict::Supported));
        assert_eq!(judge(&bad, &good)[0].verdict, Verdict::NotSupported);
        assert_eq!(judge(&ends(&[0.3, 0.31, 0.4], false), &good)[0].verdict, Verdict::Undecided);
    }

    #[test]
    fn ascent_ends_in_a_diagonal_and_another_objective_does_not() {
        let size = (40, 3, 300);
        let entropy = Gaussian { eps: 0.0, ..Gaussian::default() };
        let end = climb(Key::new(1), size, true, |z| Ok(entropy.entropy(z)?.neg()?)).unwrap();
        assert!(end.converged && end.ratio.1 < DIAGONAL && end.ratio.0 > 0.1, "{:?}", end.ratio);
        assert!(end.deficit.abs() < 1e-2, "{}", end.deficit);
        // The largest sum of all coordinates: rows of one direction, correlated.
        let end = climb(Key::new(1), size, true, |z| Ok(z.sum(1)?.sqr()?.sum_all()?.neg()?)).unwrap();
        assert!(end.ratio.1 > 0.5, "{:?}", end.ratio);
    }
}
