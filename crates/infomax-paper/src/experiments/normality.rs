//! Whether the outputs of an encoder are normal, given an image and small noise.

use super::Experiment;
use crate::ctx::Ctx;
use crate::encoders::{FAMILIES, LATER, Method, Model, Trained, VIT, model};
use crate::features::{in_batches, plain};
use crate::finding::{Finding, Plot, Style, Table};
use crate::verdict::{self, Judgment, Side};
use crate::{Result, stats};
use candle_core::{DType, Device, Tensor};
use infomax_core::Key;
use infomax_eval::normality::{ColumnTest, marginal_normality};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "normality",
    claim: "Given an image, the outputs of an encoder are normal as long as the noise at its input is small, and are not \
            when it is large.",
    needs: "encoders of vicreg, simclr, barlow-twins, and vicreg on a vision transformer",
    statistic: "the share of outputs that the K^2 test of D'Agostino and Pearson rejects at 1 %, at the smallest and at the \
                largest noise",
    revision: 1,
    small_minutes: 6.0,
    full: "2 hours after training",
    run,
};

/// The share that may be rejected at the level 1 %, which is 0.01 for normal outputs.
const FEW: f64 = 0.05;

/// The share that has to be rejected at the largest noise.
const MANY: f64 = 0.5;

/// The tests of one model at one noise.
struct Level {
    noise: f64,
    mean_p: f64,
    rejected: f64,
}

fn run(ctx: &mut Ctx<'_>) -> Result<Finding> {
    let methods: [Method; 4] = [FAMILIES[0][0], FAMILIES[1][0], LATER[0], VIT];
    let (count, copies) = ctx.pick((2, 64), (6, 400), (32, 512));
    let levels: Vec<f64> = ctx.pick(
        vec![1e-2, 1.0],
        vec![2e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0],
        vec![2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1, 2e-1, 5e-1, 1.0, 2.0, 4.0],
    );
    let images = plain(ctx, count, false)?;
    let trained = ctx.encoders(&methods)?;
    let mut numbers = Table::new(
        "p-values",
        "K^2 tests of each output over noisy copies of an image",
        &["model", "seed", "noise [sd of normalized pixels]", "mean p-value", "rejected at 1 % [share]"],
    );
    let mut curves: Vec<(String, u64, Vec<Level>)> = Vec::new();
    for t in &trained {
        ctx.check()?;
        ctx.note(&format!("  normality: {} seed {}", t.method.name, t.seed));
        curves.push((t.method.name.into(), t.seed, test(&t.model, &images, copies, &levels, t.seed)?));
    }
    for t in trained.iter().filter(|t| [FAMILIES[0][0], VIT].contains(&t.method)) {
        ctx.check()?;
        let name = if t.method == VIT { "random-vit" } else { "random" };
        curves.push((name.into(), t.seed, test(&random(t)?, &images, copies, &levels, t.seed)?));
    }
    for (name, seed, levels) in &curves {
        for l in levels {
            numbers.row(vec![
                name.as_str().into(),
                (*seed as usize).into(),
                l.noise.into(),
                l.mean_p.into(),
                l.rejected.into(),
            ]);
        }
    }
    let mut names: Vec<&String> = curves.iter().map(|(name, _, _)| name).collect();
    names.dedup();
    names.sort();
    names.dedup();
    let mean_curve = |name: &str, get: fn(&Level) -> f64| -> Vec<(f64, f64)> {
        let of = || curves.iter().filter(|(n, _, _)| n == name);
        let at = |i: usize| stats::mean(&of().filter_map(|(_, _, l)| l.get(i).map(get)).collect::<Vec<_>>());
        levels.iter().enumerate().map(|(i, noise)| (*noise, at(i))).collect()
    };
    let mut p = Plot::new(
        "p-values",
        "Are the outputs normal, given an image?",
        "noise [sd of normalized pixels]",
        "mean p-value",
    )
    .logarithmic(true, false)
    .mark(0.01, "rejected at 99 %")
    .caption("Mean over outputs, images and seeds; 0.5 is expected where outputs are normal.");
    let mut rejected = Plot::new(
        "rejected",
        "Outputs that are rejected",
        "noise [sd of normalized pixels]",
        "share rejected at 1 %",
    )
    .logarithmic(true, false)
    .mark(0.01, "expected of normal outputs")
    .caption("A ResNet is piecewise affine; a vision transformer with its GELU and softmax is not.");
    let mut half = Table::new(
        "half",
        "the noise at which half of the outputs are rejected",
        &["model", "noise [sd of normalized pixels]"],
    );
    for name in names {
        p.add(name, Style::Line, mean_curve(name, |l| l.mean_p));
        let curve = mean_curve(name, |l| l.rejected);
        half.row(vec![name.as_str().into(), stats::crossing(&curve, 0.5).into()]);
        rejected.add(name, Style::Line, curve);
    }
    Ok(Finding {
        judgments: judge(&curves),
        tables: vec![half, numbers],
        plots: vec![p, rejected],
        notes: vec![
            format!(
                "{count} images, {copies} noisy copies each, the features of the encoder in evaluation mode. Constant \
                 outputs (dead units) are left out. The test has limited power at {copies} copies: not rejected is not \
                 the same as normal."
            ),
            "At the smallest noise the rounding of f32 is about 1e-4 of the spread of the outputs.".into(),
        ],
        ..Finding::default()
    })
}

/// The encoder of a run at its start.
fn random(t: &Trained) -> Result<Model> {
    model(&t.config, None)
}

fn test(model: &Model, images: &Tensor, copies: usize, levels: &[f64], seed: u64) -> Result<Vec<Level>> {
    let key = Key::new(seed).fold_named("normality");
    let (n, c, h, w) = images.dims4()?;
    let mut found = Vec::new();
    for (at, noise) in levels.iter().enumerate() {
        let (mut p_values, mut hits) = (Vec::new(), 0usize);
        for i in 0..n {
            let draws = key.fold_in(at as u64).fold_in(i as u64);
            let e = draws.normal(0.0, *noise, (copies, c, h, w), DType::F32, &Device::Cpu)?;
            let z = in_batches(&images.narrow(0, i, 1)?.broadcast_add(&e)?, |xs| model.features(xs))?;
            let tests = match marginal_normality(&z, ColumnTest::DagostinoPearson, 0.01) {
                Ok(tests) => tests,
                Err(infomax_eval::Error::Constant { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            for test in tests.columns.iter().flatten() {
                p_values.push(test.p_value);
                hits += usize::from(test.p_value < 0.01);
            }
        }
        let rejected = hits as f64 / p_values.len() as f64;
        found.push(Level { noise: *noise, mean_p: stats::mean(&p_values), rejected });
    }
    Ok(found)
}

/// The theorem is about piecewise affine networks: transformers are shown, and not judged.
fn judge(curves: &[(String, u64, Vec<Level>)]) -> Vec<Judgment> {
    let affine = || curves.iter().filter(|(name, _, _)| !name.contains("vit"));
    let first: Vec<f64> = affine().filter_map(|(_, _, l)| l.first()).map(|l| l.rejected).collect();
    let last: Vec<f64> = affine().filter_map(|(_, _, l)| l.last()).map(|l| l.rejected).collect();
    vec![
        verdict::mean_beyond(
            "At the smallest noise the outputs of the residual networks are normal.",
            "share of outputs rejected at 1 %, one value an encoder",
            &first,
            Side::Below,
            FEW,
        ),
        verdict::mean_beyond(
            "At the largest noise they are not.",
            "share of outputs rejected at 1 %, one value an encoder",
            &last,
            Side::Above,
            MANY,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

    /// The levels of a function of standard normal rows, tested as encoders are.
    fn of(f: fn(f64, f64) -> f64) -> Vec<(String, u64, Vec<Level>)> {
        let curve = |seed: u64| {
            let x = crate::random::normal(Key::new(seed), 400, 60).unwrap();
            let level = |noise: f64| {
                let z: Vec<Vec<f64>> =
                    x.iter().map(|r| r.iter().map(|v| f(*v * noise, noise)).collect()).collect();
                let z = crate::random::tensor(&z).unwrap();
                let tests = marginal_normality(&z, ColumnTest::DagostinoPearson, 0.01).unwrap();
                let p: Vec<f64> = tests.columns.iter().flatten().map(|t| t.p_value).collect();
                let hits = p.iter().filter(|p| **p < 0.01).count();
                Level { noise, mean_p: stats::mean(&p), rejected: hits as f64 / p.len() as f64 }
            };
            ("m".to_owned(), seed, vec![level(0.01), level(3.0)])
        };
        (0..6).map(curve).collect()
    }

    #[test]
    fn a_linear_map_stays_normal_and_a_saturating_one_does_not() {
        let linear = judge(&of(|v, _| 2.0 * v + 1.0));
        assert_eq!([linear[0].verdict, linear[1].verdict], [Verdict::Supported, Verdict::NotSupported]);
        let saturating = judge(&of(|v, _| v.tanh()));
        assert_eq!([saturating[0].verdict, saturating[1].verdict], [Verdict::Supported, Verdict::Supported]);
        let broken = judge(&of(|v, noise| (v / noise).tanh() + (v / noise).exp()));
        assert_eq!(broken[0].verdict, Verdict::NotSupported);
    }
}
