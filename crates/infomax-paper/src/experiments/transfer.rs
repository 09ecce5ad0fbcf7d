//! Does the entropy of features predict accuracy on shifted images?

use super::Experiment;
use super::runs::each;
use crate::Result;
use crate::ctx::Ctx;
use crate::encoders::{Model, images};
use crate::features::{Batch, in_batches, labeled};
use crate::finding::{Finding, Plot, Style, Table};
use crate::verdict::{self, Judgment};
use crate::{Error, stats};
use candle_core::{DType, Device, Tensor};
use infomax_augment::{Augmenter, Blur, ColorJitter, Noise, Recipe, Scratch, ViewConfig};
use infomax_core::Key;
use infomax_eval::information::gaussian_entropy;
use infomax_eval::{LinearProbeConfig, Resampling, linear_probe, spectrum};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "transfer",
    claim: "The entropy of features predicts the accuracy on blurred, noisy and recolored test images over methods and \
            seeds.",
    needs: "encoders of twelve methods, images with labels",
    statistic: "Spearman's correlation of the entropy of the features with the mean accuracy under shift, over runs",
    revision: 1,
    small_minutes: 5.0,
    full: "1 hour after training",
    run,
};

const SHIFTS: [&str; 3] = ["blur", "noise", "color"];

#[derive(Clone)]
struct Row {
    entropy: f64,
    rank_me: f64,
    clean: f64,
    shifted: [f64; 3],
}

impl Row {
    fn mean(&self) -> f64 {
        stats::mean(&self.shifted)
    }
}

/// The same held-out images under each shift, with fixed draws.
fn shifted(ctx: &mut Ctx<'_>, most: usize) -> Result<Vec<Batch>> {
    let (config, images) = images(ctx)?;
    let recipe = config.augment.resolve()?;
    let size = recipe.views.iter().map(|v| v.size).max().unwrap_or(32);
    let test = images.test.clone().ok_or_else(|| Error::Config("there are no held-out images".into()))?;
    let known: Vec<usize> = (0..test.len()).filter(|i| test.label(*i).is_some()).collect();
    let chosen = infomax_eval::choose(Key::new(0).fold_named("shift"), known.len(), most.min(known.len()));
    let sigma = size as f64 / 24.0;
    let change: [fn(&mut ViewConfig, f64); 3] = [
        |v, s| v.blur = Some(Blur { p: 1.0, sigma: (1.2 * s, 1.2 * s), kernel: None }),
        |v, _| v.noise = Some(Noise { p: 1.0, sigma: (0.15, 0.15) }),
        |v, _| {
            v.jitter = Some(ColorJitter { p: 1.0, brightness: 0.6, contrast: 0.6, saturation: 0.6, hue: 0.3 })
        },
    ];
    let mut all = Vec::new();
    for (at, change) in change.iter().enumerate() {
        ctx.check()?;
        let mut view = ViewConfig::plain(size);
        change(&mut view, sigma);
        if recipe.mean.len() != 3 {
            // Colors are those of three channels.
            view.jitter = view.jitter.map(|j| ColorJitter { saturation: 0.0, hue: 0.0, ..j });
        }
        let augmenter = Augmenter::new(&Recipe { views: vec![view], ..recipe.clone() })?;
        let (c, h, w) = augmenter.output(0);
        let (mut values, mut labels, mut scratch) = (Vec::new(), Vec::new(), Scratch::default());
        for i in &chosen {
            let index = known[*i];
            let image = test.image(index)?;
            let image = if image.channels() == c { image } else { image.to_channels(c)? };
            let mut out = vec![0f32; c * h * w];
            let mut rng = Key::new(at as u64).fold_named("shift").fold_in(index as u64).rng();
            augmenter.apply(0, &image, &mut rng, &mut scratch, &mut out)?;
            values.append(&mut out);
            labels.extend(test.label(index));
        }
        all.push(Batch { xs: Tensor::from_vec(values, (labels.len(), c, h, w), &Device::Cpu)?, labels });
    }
    Ok(all)
}

fn measure(model: &Model, train: &Batch, test: &Batch, shifts: &[Batch]) -> Result<Row> {
    let features = |b: &Batch| in_batches(&b.xs, |xs| model.features(xs));
    let single = |z: &Tensor| Ok::<_, Error>(z.to_dtype(DType::F32)?);
    let z = features(train)?;
    let probe = |b: &Batch| -> Result<f64> {
        let cfg = LinearProbeConfig { l2: vec![1e-2, 1e-3], ..LinearProbeConfig::default() };
        Ok(linear_probe(&single(&z)?, &train.labels, &single(&features(b)?)?, &b.labels, &cfg)?.accuracy)
    };
    // Rows of length sqrt(D), as in the experiment on entropy; constant columns hold nothing and are left out.
    let lengths = (z.sqr()?.sum_keepdim(1)?.sqrt()? + 1e-12)?;
    let unit = (z.broadcast_div(&lengths)? * (z.dim(1)? as f64).sqrt())?;
    let entropy = match gaussian_entropy(&unit, &Resampling::none()) {
        Ok(found) => found.ledoit_wolf.value,
        Err(infomax_eval::Error::Constant { .. }) => f64::NAN,
        Err(error) => return Err(error.into()),
    };
    let mut accuracies = [0.0; 3];
    for (accuracy, shift) in accuracies.iter_mut().zip(shifts) {
        *accuracy = probe(shift)?;
    }
    Ok(Row { entropy, rank_me: spectrum(&z)?.rank_me, clean: probe(test)?, shifted: accuracies })
}

fn run(ctx: &mut Ctx<'_>) -> Result<Finding> {
    let (rows_train, rows_test) = ctx.pick((64, 48), (1_000, 600), (20_000, 10_000));
    let (train, test) = labeled(ctx, rows_train, rows_test)?;
    let shifts = shifted(ctx, rows_test)?;
    let all = each(ctx, "transfer", |t| measure(&t.model, &train, &test, &shifts))?;
    let mut numbers = Table::new(
        "accuracies",
        "entropy of the features and linear accuracy on clean and shifted images",
        &[
            "method",
            "seed",
            "entropy [nats]",
            "RankMe",
            "clean [share]",
            "blur [share]",
            "noise [share]",
            "color [share]",
            "mean under shift [share]",
        ],
    );
    let mut plot = Plot::new(
        "transfer",
        "Entropy and accuracy under shift",
        "entropy of the features [nats]",
        "mean accuracy under shift",
    )
    .caption("One point a run.");
    for (t, r) in &all {
        let [a, b, c] = r.shifted;
        numbers.row(vec![
            t.method.name.into(),
            (t.seed as usize).into(),
            r.entropy.into(),
            r.rank_me.into(),
            r.clean.into(),
            a.into(),
            b.into(),
            c.into(),
            r.mean().into(),
        ]);
    }
    let mut names: Vec<&str> = all.iter().map(|(t, _)| t.method.name).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        plot.add(
            name,
            Style::Points,
            all.iter().filter(|(t, _)| t.method.name == name).map(|(_, r)| (r.entropy, r.mean())),
        );
    }
    let rows: Vec<Row> = all.into_iter().map(|(_, r)| r).collect();
    let mut ranking = Table::new(
        "predictors",
        "rank correlation with the accuracy under shift, over runs",
        &["predictor", "shift", "Spearman", "runs"],
    );
    type Get = fn(&Row) -> f64;
    let predictors: [(&str, Get); 3] =
        [("entropy", |r| r.entropy), ("RankMe", |r| r.rank_me), ("clean accuracy", |r| r.clean)];
    for (name, get) in predictors {
        for (s, shift) in SHIFTS.iter().enumerate() {
            let x: Vec<f64> = rows.iter().map(get).collect();
            let y: Vec<f64> = rows.iter().map(|r| r.shifted[s]).collect();
            let (x, y) = stats::finite_pairs(&x, &y);
            ranking.row(vec![name.into(), (*shift).into(), stats::spearman(&x, &y).into(), x.len().into()]);
        }
    }
    Ok(Finding {
        judgments: judge(&rows),
        tables: vec![ranking, numbers],
        plots: vec![plot],
        notes: vec![
            "Shifts by our own augmentations with fixed draws: blur of 5 % of the side, noise of 0.15 of 0..1, strong color \
             jitter. The probe is trained on clean images. The entropy is the Gaussian one of features scaled to rows of one \
             length; a run with a constant feature has none and is left out. Accuracy on clean images is the rival to beat: see \
             the table."
                .into(),
        ],
        ..Finding::default()
    })
}

fn judge(rows: &[Row]) -> Vec<Judgment> {
    let x: Vec<f64> = rows.iter().map(|r| r.entropy).collect();
    let y: Vec<f64> = rows.iter().map(Row::mean).collect();
    vec![verdict::predicts(
        "Features of higher entropy are more accurate under shift.",
        "Spearman's correlation over runs",
        &x,
        &y,
        1.0,
        0,
    )]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

    #[test]
    fn verdicts_follow_the_numbers() {
        let rows = |good: bool| -> Vec<Row> {
            (0..36)
                .map(|i| {
                    let y = if good { i } else { (i * 17 + 5) % 36 };
                    let accuracy = 0.5 + 0.01 * f64::from(y);
                    Row { entropy: f64::from(i), rank_me: 1.0, clean: 0.9, shifted: [accuracy; 3] }
                })
                .collect()
        };
        assert_eq!(judge(&rows(true))[0].verdict, Verdict::Supported);
        assert_eq!(judge(&rows(false))[0].verdict, Verdict::NotSupported);
    }
}
