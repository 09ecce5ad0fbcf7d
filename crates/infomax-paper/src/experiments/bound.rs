//! The generalization bound: do its terms predict the loss of the classifier?

use super::Experiment;
use super::runs::{Embedded, Material, Terms, each, terms, terms_of};
use crate::Result;
use crate::ctx::Ctx;
use crate::finding::{Finding, Plot, Style, Table};
use crate::stats;
use crate::verdict::{self, Judgment, LEVEL, Verdict};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "bound",
    claim: "The terms of the generalization bound that can be computed predict the downstream loss of the least-squares \
            classifier over methods and seeds.",
    needs: "encoders of twelve methods (36 runs with three seeds), images with labels",
    statistic: "Spearman's correlation of the sum of the terms with the loss on held-out images, over runs",
    // 2: a constant among the features, without which labels that say nothing were predicted as well, and that as a control.
    revision: 2,
    small_minutes: 4.0,
    full: "1 hour after training",
    run,
};

/// A predictor: its name, the sign with which it should go with the loss, its value.
type Predictor = (&'static str, f64, fn(&Terms) -> f64);

const PREDICTORS: [Predictor; 7] = [
    ("sum of the known terms", 1.0, |t| t.sum),
    ("invariance term", 1.0, |t| t.invariance),
    ("labeled residual", 1.0, |t| t.labeled),
    ("unlabeled residual (oracle)", 1.0, |t| t.unlabeled.unwrap_or(f64::NAN)),
    ("VICReg's loss", 1.0, |t| t.vicreg),
    ("RankMe", -1.0, |t| t.rank_me),
    ("information account", -1.0, |t| t.account),
];

fn run(ctx: &mut Ctx<'_>) -> Result<Finding> {
    let material = Material::new(ctx)?;
    let shuffled = material.shuffled();
    let both = each(ctx, "the bound", |t| {
        let embedded = Embedded::new(&t.model, &material)?;
        Ok((terms_of(&embedded, &material)?, terms_of(&embedded, &shuffled)?))
    })?;
    let control: Vec<Terms> = both.iter().map(|(_, (_, control))| control.clone()).collect();
    let all: Vec<_> = both.into_iter().map(|(t, (own, _))| (t, own)).collect();
    let columns = [
        "method",
        "seed",
        "step",
        "invariance",
        "labeled residual",
        "unlabeled residual",
        "sum",
        "VICReg's loss",
        "RankMe",
        "information account [nats]",
        "downstream loss",
        "accuracy of least squares",
    ];
    let mut numbers = Table::new(
        "terms",
        "the terms of the bound and the downstream loss, at the end of each run",
        &columns,
    );
    let mut way = Table::new("way", "the terms of the bound on the way of the runs of seed 0", &columns);
    let cells = |method: &str, seed: u64, step: u64, t: &Terms| {
        vec![
            method.into(),
            (seed as usize).into(),
            (step as usize).into(),
            t.invariance.into(),
            t.labeled.into(),
            t.unlabeled.into(),
            t.sum.into(),
            t.vicreg.into(),
            t.rank_me.into(),
            t.account.into(),
            t.loss.into(),
            t.accuracy.into(),
        ]
    };
    let mut during = Plot::new("way", "The bound on the way", "step", "value")
        .caption("VICReg, seed 0: the sum of the known terms, its parts, and the loss that it is to bound (up to constants).");
    for (t, end) in &all {
        let steps = t.steps()?;
        numbers.row(cells(t.method.name, t.seed, steps.last().map_or(0, |s| s.0), end));
        if t.seed != 0 || t.method.name != "vicreg" {
            continue;
        }
        let mut curve = Vec::new();
        for (step, path) in &steps {
            ctx.check()?;
            let at = terms(&t.at(path)?, &material)?;
            way.row(cells(t.method.name, t.seed, *step, &at));
            curve.push((*step as f64, at));
        }
        type Get = fn(&Terms) -> f64;
        let series: [(&str, Get); 5] = [
            ("sum of the known terms", |t| t.sum),
            ("invariance", |t| t.invariance),
            ("labeled residual", |t| t.labeled),
            ("unlabeled residual", |t| t.unlabeled.unwrap_or(f64::NAN)),
            ("downstream loss", |t| t.loss),
        ];
        for (name, get) in series {
            during.add(name, Style::Line, curve.iter().map(|(x, t)| (*x, get(t))));
        }
    }
    let ends: Vec<Terms> = all.iter().map(|(_, t)| t.clone()).collect();
    let loss: Vec<f64> = ends.iter().map(|t| t.loss).collect();
    let mut ranking = Table::new(
        "predictors",
        "rank correlation with the downstream loss over runs, counted positive in the expected direction",
        &["predictor", "Spearman", "lower end", "upper end", "p-value (one-sided)", "runs"],
    );
    let nothing: Vec<f64> = control.iter().map(|t| t.loss).collect();
    let rows = PREDICTORS.iter().map(|p| (p.0.to_owned(), p.1, ends.iter().map(p.2).collect(), &loss));
    let own = ("sum of the known terms, labels shuffled (control)".to_owned(), 1.0);
    let own = (own.0, own.1, control.iter().map(|t| t.sum).collect::<Vec<f64>>(), &nothing);
    for (name, sign, values, loss) in rows.chain([own]) {
        let (x, y) = stats::finite_pairs(&values, loss);
        let rho = stats::spearman(&x, &y).map(|r| sign * r);
        let interval = rho.and_then(|r| stats::correlation_interval(r, x.len(), LEVEL));
        ranking.row(vec![
            name.into(),
            rho.into(),
            interval.map(|i| i.0).into(),
            interval.map(|i| i.1).into(),
            stats::spearman_permutation(&x, &y, sign, 4999, 0).into(),
            x.len().into(),
        ]);
    }
    let mut plot = Plot::new("bound", "The bound and the loss", "sum of the known terms", "downstream loss")
        .caption("One point a run.");
    let mut names: Vec<&str> = all.iter().map(|(t, _)| t.method.name).collect();
    names.dedup();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let of = all.iter().filter(|(t, _)| t.method.name == name).map(|(_, e)| (e.sum, e.loss));
        plot.add(name, Style::Points, of);
    }
    Ok(Finding {
        judgments: judge(&ends, &control),
        tables: vec![ranking, numbers, way],
        plots: vec![plot, during],
        notes: vec![
            format!(
                "{} labeled images, {} pairs of views, {} held-out images. The labels of the pairs are an oracle's. The \
                 constants and the vanishing term of the bound cannot be computed: whether the bound holds is not tested, \
                 whether it ranks is.",
                material.train.labels.len(),
                material.views.0.dim(0)?,
                material.test.labels.len()
            ),
            "The loss is that of the classifier of the theorem, least squares of smallest norm on the features and a constant; its \
             labeled residual on other images is close to a training loss, so its correlation is expected. Runs of one \
             method are alike: the interval takes them for independent and is too narrow for another set of methods."
                .into(),
        ],
        ..Finding::default()
    })
}

fn judge(ends: &[Terms], control: &[Terms]) -> Vec<Judgment> {
    let of = |claim: &str, statistic: &str, runs: &[Terms]| {
        let sums: Vec<f64> = runs.iter().map(|t| t.sum).collect();
        let loss: Vec<f64> = runs.iter().map(|t| t.loss).collect();
        verdict::predicts(claim, statistic, &sums, &loss, 1.0, 0)
    };
    let own = of(
        "The sum of the known terms ranks runs by their downstream loss.",
        "Spearman's correlation over runs",
        ends,
    );
    let mut nothing = of(
        "With shuffled labels, which say nothing of the images, it does not (control).",
        "Spearman's correlation over runs, labels shuffled",
        control,
    );
    nothing.verdict = match (nothing.verdict, nothing.effect) {
        (_, None) => Verdict::Undecided,
        (Verdict::Supported, _) => Verdict::NotSupported,
        _ => Verdict::Supported,
    };
    nothing.rule = "not supported if the correlation of shuffled labels would pass the test of the first part: what ranks runs \
                    then is not the labels"
        .into();
    vec![own, nothing]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::least_squares;
    use infomax_eval::{Resampling, bound::generalization_terms};

    /// Embeddings that know the classes more or less, through the functions that the experiment uses.
    fn ends(shuffled: bool) -> Vec<Terms> {
        let one = |run: u64| {
            let key = infomax_core::Key::new(run);
            let noise = crate::random::normal(key, 300, 6).unwrap();
            let truth: Vec<u32> = (0..300).map(|i| i % 3).collect();
            let z: Vec<Vec<f64>> = noise
                .iter()
                .zip(&truth)
                .map(|(e, l)| {
                    e.iter()
                        .enumerate()
                        .map(|(j, e)| f64::from(j == *l as usize) + e * (0.1 + 0.05 * run as f64))
                        .collect()
                })
                .collect();
            // With the constant among the features: without an intercept, runs that span it fit any labels better.
            let z: Vec<Vec<f64>> = z.into_iter().map(|row| [row, vec![1.0]].concat()).collect();
            let z = crate::random::tensor(&z).unwrap();
            // Permuted within each half, so that the classes stay equally frequent: what is left is chance.
            let mut labels = truth.clone();
            if shuffled {
                for (half, part) in labels.chunks_mut(150).enumerate() {
                    let words =
                        |i: usize| infomax_core::Key::new(900 + run).fold_in((150 * half + i) as u64).words();
                    let mut order: Vec<usize> = (0..150).collect();
                    order.sort_by_key(|i| words(*i));
                    let old = part.to_vec();
                    part.iter_mut().zip(order).for_each(|(l, i)| *l = old[i]);
                }
            }
            let (train, test) = (z.narrow(0, 0, 150).unwrap(), z.narrow(0, 150, 150).unwrap());
            let (a, b) = labels.split_at(150);
            let bound = generalization_terms(&train, a, &train, &train, None, &Resampling::none()).unwrap();
            let (loss, accuracy) = least_squares((&train, a), (&test, b), 3).unwrap();
            Terms {
                invariance: 0.0,
                labeled: bound.labeled.term,
                unlabeled: None,
                sum: bound.known_sum,
                vicreg: 0.0,
                rank_me: 1.0,
                account: f64::NAN,
                loss,
                accuracy,
            }
        };
        (0..30).map(one).collect()
    }

    #[test]
    fn known_labels_correlate_and_shuffled_ones_do_not() {
        let (known, shuffled) = (ends(false), ends(true));
        assert!(judge(&known, &shuffled).iter().all(|j| j.verdict == Verdict::Supported));
        // Labels that say nothing, and a statistic that ranks runs by them all the same.
        let wrong = judge(&shuffled, &known);
        assert_ne!(wrong[0].verdict, Verdict::Supported, "{wrong:?}");
        assert_eq!(wrong[1].verdict, Verdict::NotSupported, "{wrong:?}");
    }
}
