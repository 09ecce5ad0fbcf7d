//! The entropy of embeddings on the way of training, by several estimators.

use super::Experiment;
use crate::Result;
use crate::ctx::Ctx;
use crate::encoders::{FAMILIES, Model, model};
use crate::features::{in_batches, plain, principal};
use crate::finding::{Finding, Plot, Style, Table};
use crate::verdict::{self, Judgment, Side};
use crate::{Error, stats};
use candle_core::Tensor;
use infomax_eval::Resampling;
use infomax_eval::information::{
    MixtureConfig, Norm, gaussian_entropy, kozachenko_leonenko, mixture_entropy,
};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "entropy",
    claim: "The entropy of the embeddings rises during training, and estimators agree on the order of methods.",
    needs: "encoders of nine methods with their checkpoints",
    statistic: "entropy at the end minus entropy at the random start, one value a run, by three estimators; rank correlation \
                of estimators over methods",
    revision: 1,
    small_minutes: 5.0,
    full: "1 hour after training",
    run,
};

const ESTIMATORS: [&str; 3] = ["Gaussian (upper bound)", "mixture (bracketed)", "nearest neighbors"];

/// The entropies at one step.
struct At {
    step: u64,
    values: [f64; 3],
    bracket: (f64, f64),
}

struct Way {
    method: &'static str,
    seed: u64,
    at: Vec<At>,
}

/// The variance of the components of the mixture, of rows of length `sqrt(D)`.
const VARIANCE: f64 = 0.1;

fn entropies(model: &Model, images: &Tensor) -> Result<([f64; 3], (f64, f64))> {
    let z = in_batches(images, |xs| model.projections(xs))?;
    // Rows of one length: cosine methods leave it free, and its growth would be taken for information.
    let d = z.dim(1)? as f64;
    let lengths = (z.sqr()?.sum_keepdim(1)?.sqrt()? + 1e-12)?;
    let z = (z.broadcast_div(&lengths)? * d.sqrt())?;
    let none = Resampling::none();
    let gaussian = match gaussian_entropy(&z, &none) {
        Ok(found) => found.ledoit_wolf.value,
        Err(infomax_eval::Error::Constant { .. }) => f64::NAN,
        Err(error) => return Err(error.into()),
    };
    let mixture =
        mixture_entropy(&z, &MixtureConfig { variance: Some(VARIANCE), draws: 1_000, ..Default::default() })?;
    // In few directions, as neighbors are far in many; their scale is kept.
    let leading = principal(&z, &[], 8)?;
    let scale = leading_scale(&z)?;
    let neighbors = match leading.first() {
        Some(z) => match kozachenko_leonenko(&(z * scale)?, 3, Norm::Euclidean, &none) {
            Ok(found) => found.value,
            Err(infomax_eval::Error::Ties { .. }) => f64::NAN,
            Err(error) => return Err(error.into()),
        },
        None => f64::NAN,
    };
    Ok(([gaussian, mixture.estimate.value, neighbors], (mixture.lower, mixture.upper)))
}

/// The deviation of the first principal direction, which [`principal`] divides by.
fn leading_scale(z: &Tensor) -> Result<f64> {
    let centered = z.broadcast_sub(&z.mean_keepdim(0)?)?;
    let values = infomax_kernels::linalg::singular_values(&centered)?;
    Ok(values.iter().copied().fold(0.0, f64::max) / (z.dim(0)? as f64 - 1.0).sqrt())
}

fn run(ctx: &mut Ctx<'_>) -> Result<Finding> {
    let images = plain(ctx, ctx.pick(60, 600, 5_000), false)?;
    let mut ways: Vec<Way> = Vec::new();
    for seed in ctx.seeds() {
        for method in FAMILIES.iter().flatten() {
            let Some(t) = ctx.encoder(method, seed)? else { continue };
            ctx.note(&format!("  entropy: {} seed {seed}", method.name));
            let mut models = vec![(0, model(&t.config, None)?)];
            for (step, path) in t.steps()? {
                models.push((step, t.at(&path)?));
            }
            let mut at = Vec::new();
            let mut failed = None;
            for (step, model) in &models {
                ctx.check()?;
                match entropies(model, &images) {
                    Ok((values, bracket)) => at.push(At { step: *step, values, bracket }),
                    Err(Error::Interrupted) => return Err(Error::Interrupted),
                    Err(error) => failed = Some(error),
                }
            }
            if let Some(error) = failed {
                ctx.missing.push(format!("entropies of {} seed {seed}: {error}", method.name));
                continue;
            }
            ways.push(Way { method: method.name, seed, at });
        }
    }
    let mut numbers = Table::new(
        "entropies",
        "entropies of projections scaled to rows of length sqrt(D), on the way of each run",
        &[
            "method",
            "seed",
            "step",
            "Gaussian [nats]",
            "mixture [nats]",
            "mixture, lower [nats]",
            "mixture, upper [nats]",
            "nearest neighbors [nats]",
        ],
    );
    for way in &ways {
        for a in &way.at {
            numbers.row(vec![
                way.method.into(),
                (way.seed as usize).into(),
                (a.step as usize).into(),
                a.values[0].into(),
                a.values[1].into(),
                a.bracket.0.into(),
                a.bracket.1.into(),
                a.values[2].into(),
            ]);
        }
    }
    let mut plots = Vec::new();
    for (e, estimator) in ESTIMATORS.iter().enumerate() {
        let name = ["gaussian", "mixture", "neighbors"][e];
        let mut plot = Plot::new(name, &format!("Entropy on the way: {estimator}"), "step", "entropy [nats]")
            .caption("The mean over seeds, from the random start on.");
        for method in FAMILIES.iter().flatten() {
            let of: Vec<&Way> = ways.iter().filter(|w| w.method == method.name).collect();
            let Some(first) = of.first() else { continue };
            let mean = |i: usize| {
                stats::mean(&of.iter().filter_map(|w| w.at.get(i).map(|a| a.values[e])).collect::<Vec<_>>())
            };
            plot.add(
                method.name,
                Style::Line,
                first.at.iter().enumerate().map(|(i, a)| (a.step as f64, mean(i))),
            );
        }
        plots.push(plot);
    }
    let mut order = Table::new(
        "methods",
        "entropy at the end minus at the start, mean over seeds",
        &["method", "Gaussian [nats]", "mixture [nats]", "nearest neighbors [nats]"],
    );
    for method in FAMILIES.iter().flatten() {
        let rise = |e: usize| stats::mean(&rises(&ways, e, Some(method.name)));
        order.row(vec![method.name.into(), rise(0).into(), rise(1).into(), rise(2).into()]);
    }
    Ok(Finding {
        judgments: judge(&ways),
        tables: vec![order, numbers],
        plots,
        notes: vec![format!(
            "{} images, the projections, scaled to rows of one length, since cosine methods leave the length free: what \
             rises is how far they are spread, not their scale. Gaussian: the covariance by Ledoit and Wolf. Mixture: a \
             component of variance {VARIANCE} around each row, with exact bounds in the table. Nearest neighbors: in the 8 \
             leading principal directions.",
            images.dim(0)?
        )],
        ..Finding::default()
    })
}

/// End minus start of each run.
fn rises(ways: &[Way], estimator: usize, method: Option<&str>) -> Vec<f64> {
    ways.iter()
        .filter(|w| method.is_none_or(|m| m == w.method))
        .filter_map(|w| Some(w.at.last()?.values[estimator] - w.at.first()?.values[estimator]))
        .collect()
}

fn judge(ways: &[Way]) -> Vec<Judgment> {
    let mut parts: Vec<Judgment> = ESTIMATORS
        .iter()
        .enumerate()
        .map(|(e, name)| {
            verdict::mean_beyond(
                &format!("The entropy rises by the estimator `{name}`."),
                "entropy at the end minus at the random start [nats], one value a run",
                &rises(ways, e, None),
                Side::Above,
                0.0,
            )
        })
        .collect();
    let mut methods: Vec<&str> = ways.iter().map(|w| w.method).collect();
    methods.sort_unstable();
    methods.dedup();
    let end = |e: usize| -> Vec<f64> {
        let of = |m: &&str| {
            let ends: Vec<f64> = ways
                .iter()
                .filter(|w| w.method == *m)
                .filter_map(|w| w.at.last())
                .map(|a| a.values[e])
                .collect();
            stats::mean(&ends)
        };
        methods.iter().map(of).collect()
    };
    for (e, name) in ESTIMATORS.iter().enumerate().skip(1) {
        parts.push(verdict::predicts(
            &format!("`{}` and `{name}` agree on the order of methods.", ESTIMATORS[0]),
            "Spearman's correlation of the final entropies over methods",
            &end(0),
            &end(e),
            1.0,
            0,
        ));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

    fn ways(rise: f64, agree: bool) -> Vec<Way> {
        const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
        let way = |i: usize, seed: u64| {
            let end = rise + 0.1 * i as f64 * rise.signum() + 0.001 * seed as f64;
            let other = if agree { end } else { rise + 0.1 * ((i * 5 + 3) % 9) as f64 * rise.signum() };
            let at = |step, v: f64, w: f64| At { step, values: [v, w, w], bracket: (w, w) };
            Way { method: NAMES[i], seed, at: vec![at(0, 0.0, 0.0), at(10, end, other)] }
        };
        (0..9).flat_map(|i| (0..3).map(move |s| (i, s))).map(|(i, s)| way(i, s)).collect()
    }

    #[test]
    fn verdicts_follow_the_numbers() {
        assert!(judge(&ways(1.0, true)).iter().all(|j| j.verdict == Verdict::Supported));
        assert!(judge(&ways(-1.0, true))[..3].iter().all(|j| j.verdict == Verdict::NotSupported));
        assert_ne!(judge(&ways(1.0, false))[3].verdict, Verdict::Supported);
    }
}
