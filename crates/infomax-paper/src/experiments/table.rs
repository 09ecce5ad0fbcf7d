//! The table of the paper: linear evaluation with the own and with other entropy terms.

use super::Experiment;
use crate::ctx::{Ctx, Preset};
use crate::encoders::{CONVNEXT, FAMILIES, Trained, VIT, all_methods};
use crate::features::{Batch, in_batches, labeled};
use crate::finding::{Finding, Plot, Style, Table};
use crate::verdict::{self, Judgment, LEVEL, Side};
use crate::{Result, stats};
use candle_core::DType;
use infomax_eval::{LinearProbeConfig, linear_probe};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "table",
    claim: "With the same backbone and invariance, LogDet or PairDist in place of the own entropy term of VICReg, SimCLR \
            and BYOL gives better features under linear evaluation.",
    needs: "encoders of twelve methods, images with labels",
    statistic: "the accuracy of a linear probe with the other entropy term minus that with the own, paired by seed",
    revision: 1,
    small_minutes: 27.0,
    full: "several days on a GPU: 60 trainings of 200 epochs on CIFAR-10",
    run,
};

struct Score {
    method: &'static str,
    seed: u64,
    accuracy: f64,
    collapsed: bool,
}

fn run(ctx: &mut Ctx<'_>) -> Result<Finding> {
    let (train, test) = labeled(ctx, usize::MAX, usize::MAX)?;
    let mut methods = all_methods();
    if ctx.settings.preset == Preset::Full {
        methods.extend([VIT, CONVNEXT]);
    }
    let mut scores = Vec::new();
    for seed in ctx.seeds() {
        for method in &methods {
            let Some(t) = ctx.encoder(method, seed)? else { continue };
            let accuracy = accuracy(&t, &train, &test)?;
            ctx.note(&format!("  {} seed {seed}: {:.1} %", method.name, 100.0 * accuracy));
            scores.push(Score { method: method.name, seed, accuracy, collapsed: t.collapsed });
        }
    }
    let of = |name: &str| -> Vec<f64> {
        scores.iter().filter(|s| s.method == name).map(|s| 100.0 * s.accuracy).collect()
    };
    let mut single = Table::new(
        "accuracies",
        "linear accuracy of each encoder",
        &["method", "seed", "linear accuracy [%]", "collapsed"],
    );
    for s in &scores {
        let collapsed = if s.collapsed { "yes" } else { "no" };
        single.row(vec![
            s.method.into(),
            (s.seed as usize).into(),
            (100.0 * s.accuracy).into(),
            collapsed.into(),
        ]);
    }
    let mut summary = Table::new(
        "methods",
        "linear accuracy over seeds",
        &["method", "mean [%]", "deviation [%]", "lower end [%]", "upper end [%]", "seeds"],
    );
    let mut plot = Plot::new(
        "accuracies",
        "Linear evaluation",
        "method, in the order of the table",
        "linear accuracy [%]",
    )
    .caption("One point a seed.");
    for (at, method) in methods.iter().enumerate() {
        let values = of(method.name);
        let interval = stats::t_interval(&values, LEVEL);
        summary.row(vec![
            method.name.into(),
            stats::mean(&values).into(),
            stats::deviation(&values).into(),
            interval.map(|i| i.0).into(),
            interval.map(|i| i.1).into(),
            values.len().into(),
        ]);
        plot.add(method.name, Style::Points, values.iter().map(|v| (at as f64 + 1.0, *v)));
    }
    let mut pairs = Table::new(
        "differences",
        "linear accuracy with the other entropy term minus that with the own, paired by seed",
        &["own", "other", "mean difference [points]", "lower end [points]", "upper end [points]", "pairs"],
    );
    for family in FAMILIES {
        for other in &family[1..] {
            let d = differences(&scores, family[0].name, other.name);
            let interval = stats::t_interval(&d, LEVEL);
            pairs.row(vec![
                family[0].name.into(),
                other.name.into(),
                stats::mean(&d).into(),
                interval.map(|i| i.0).into(),
                interval.map(|i| i.1).into(),
                d.len().into(),
            ]);
        }
    }
    let chance = 100.0 / crate::features::classes(&[&train.labels, &test.labels]).max(1) as f64;
    let collapsed = scores.iter().filter(|s| s.collapsed).count();
    let mut notes = vec![format!(
        "Linear probe on the features of {} training images, tested on {}; chance is {chance:.1} %. One learning rate and \
         schedule for all methods, tuned for none of them.",
        train.labels.len(),
        test.labels.len()
    )];
    if collapsed > 0 {
        notes.push(format!(
            "{collapsed} of {} encoders ended collapsed by the monitor; they count as they are.",
            scores.len()
        ));
    }
    Ok(Finding {
        judgments: judge(&scores),
        tables: vec![summary, pairs, single],
        plots: vec![plot.mark(chance, "chance")],
        notes,
        ..Finding::default()
    })
}

fn accuracy(t: &Trained, train: &Batch, test: &Batch) -> Result<f64> {
    let features = |b: &Batch| {
        Ok::<_, crate::Error>(in_batches(&b.xs, |xs| t.model.features(xs))?.to_dtype(DType::F32)?)
    };
    let (a, b) = (features(train)?, features(test)?);
    Ok(linear_probe(&a, &train.labels, &b, &test.labels, &LinearProbeConfig::default())?.accuracy)
}

/// In points, of the seeds that have both.
fn differences(scores: &[Score], own: &str, other: &str) -> Vec<f64> {
    let find = |method: &str, seed: u64| scores.iter().find(|s| s.method == method && s.seed == seed);
    scores
        .iter()
        .filter(|s| s.method == own)
        .filter_map(|s| Some(100.0 * (find(other, s.seed)?.accuracy - s.accuracy)))
        .collect()
}

fn judge(scores: &[Score]) -> Vec<Judgment> {
    let mut parts = Vec::new();
    for (at, name) in [(1, "LogDet"), (2, "PairDist")] {
        // One value a seed: the mean over the families, so that the values are independent.
        let mut seeds: Vec<u64> = scores.iter().map(|s| s.seed).collect();
        seeds.sort_unstable();
        seeds.dedup();
        let of_seed = |seed: u64| {
            let of: Vec<Score> = scores
                .iter()
                .filter(|s| s.seed == seed)
                .map(|s| Score { method: s.method, seed, accuracy: s.accuracy, collapsed: s.collapsed })
                .collect();
            let all: Vec<f64> =
                FAMILIES.iter().flat_map(|f| differences(&of, f[0].name, f[at].name)).collect();
            // All of the families, or the seeds are not comparable.
            (all.len() == FAMILIES.len()).then(|| stats::mean(&all))
        };
        let values: Vec<f64> = seeds.into_iter().filter_map(of_seed).collect();
        parts.push(verdict::mean_beyond(
            &format!("{name} in place of the own entropy term raises the linear accuracy."),
            "difference of linear accuracy [points], mean over the three families, one value a seed",
            &values,
            Side::Above,
            0.0,
        ));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

    fn scores(gain: f64) -> Vec<Score> {
        let mut all = Vec::new();
        for seed in 0..4u64 {
            for family in FAMILIES {
                for (at, method) in family.iter().enumerate() {
                    let accuracy = 0.5
                        + 0.01 * seed as f64
                        + gain * at.min(1) as f64
                        + 0.001 * (seed % 2) as f64 * at as f64;
                    all.push(Score { method: method.name, seed, accuracy, collapsed: false });
                }
            }
        }
        all
    }

    #[test]
    fn verdicts_follow_the_numbers() {
        assert!(judge(&scores(0.05)).iter().all(|j| j.verdict == Verdict::Supported));
        assert!(judge(&scores(-0.05)).iter().all(|j| j.verdict == Verdict::NotSupported));
        assert!(judge(&scores(0.0)).iter().all(|j| j.verdict == Verdict::Undecided));
        // A family that is missing in all but one seed leaves one value.
        let mut few = scores(0.05);
        few.retain(|s| s.seed == 0 || s.method != "byol");
        assert!(judge(&few).iter().all(|j| j.verdict == Verdict::Undecided));
    }
}
