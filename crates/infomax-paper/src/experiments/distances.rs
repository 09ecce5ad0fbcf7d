//! Distances between raw images against the radius of the noise around each.

use super::Experiment;
use crate::ctx::Ctx;
use crate::features::{plain, rows};
use crate::finding::{Finding, Plot, Style, Table};
use crate::verdict::{self, Judgment, Side};
use crate::{Result, stats};

pub(super) const EXPERIMENT: Experiment = Experiment {
    name: "distances",
    claim: "The Gaussians around the images of a data set do not overlap at the noise at which the theory is applied.",
    needs: "images",
    statistic: "the share of images whose nearest other image is closer than two radii of the noise ball",
    revision: 1,
    small_minutes: 0.5,
    full: "2 minutes",
    run,
};

/// The deviation of the noise in values of 0..1 that the verdict is about: about 2.5 of 255 gray levels.
const REFERENCE: f64 = 0.01;

/// At most this share of images may overlap.
const FEW: f64 = 0.05;

fn run(ctx: &mut Ctx<'_>) -> Result<Finding> {
    let most = ctx.pick(60, 1_500, 5_000);
    let xs = rows(&plain(ctx, most, true)?.flatten_from(1)?)?;
    if xs.len() < 2 {
        let reason = format!("{} images have no other one to be near to; at least two are needed", xs.len());
        return Err(crate::Error::Missing { experiment: "distances", reason });
    }
    let d = xs.first().map_or(0, Vec::len);
    let mut all = Vec::with_capacity(xs.len() * xs.len() / 2);
    let mut nearest = vec![f64::INFINITY; xs.len()];
    for i in 0..xs.len() {
        ctx.check()?;
        for j in 0..i {
            let distance = xs[i].iter().zip(&xs[j]).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
            all.push(distance);
            nearest[i] = nearest[i].min(distance);
            nearest[j] = nearest[j].min(distance);
        }
    }
    all.sort_by(f64::total_cmp);
    let radius = |deviation: f64| deviation * (d as f64).sqrt();
    let mut numbers = Table::new(
        "overlap",
        "the share of pairs and of nearest pairs whose balls of noise meet",
        &[
            "noise [of 0..1]",
            "radius",
            "pairs that overlap [share]",
            "images that overlap their nearest [share]",
            "median ratio of nearest distance to noise",
        ],
    );
    let share = |values: &[f64], limit: f64| {
        values.iter().filter(|v| **v < limit).count() as f64 / values.len() as f64
    };
    let mut plot = Plot::new(
        "overlap",
        "Overlap of the noise around images",
        "standard deviation of the noise",
        "share",
    )
    .logarithmic(true, false)
    .caption(
        "A ball has the radius of the noise's typical length, its deviation times the root of the dimension.",
    );
    let levels = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5];
    for level in levels {
        let limit = 2.0 * radius(level);
        numbers.row(vec![
            level.into(),
            radius(level).into(),
            share(&all, limit).into(),
            share(&nearest, limit).into(),
            (stats::median(&nearest) / level).into(),
        ]);
    }
    plot.add("pairs", Style::Line, levels.map(|l| (l, share(&all, 2.0 * radius(l)))));
    plot.add("nearest pairs", Style::Line, levels.map(|l| (l, share(&nearest, 2.0 * radius(l)))));
    let mut histogram = Plot::new(
        "distances",
        "Distances between raw images",
        "Euclidean distance, values in 0..1",
        "share below",
    )
    .caption("The share of pairs at most so far apart, beside the diameter of the noise ball at 0.01.");
    histogram.add(
        "all pairs",
        Style::Line,
        (0..=100).map(|i| (stats::quantile(&all, f64::from(i) / 100.0), f64::from(i) / 100.0)),
    );
    histogram.add(
        "nearest pairs",
        Style::Line,
        (0..=100).map(|i| (stats::quantile(&nearest, f64::from(i) / 100.0), f64::from(i) / 100.0)),
    );
    let diameter = 2.0 * radius(REFERENCE);
    histogram.add("diameter at noise 0.01", Style::Dashed, [(diameter, 0.0), (diameter, 1.0)]);
    let equal = nearest.iter().filter(|v| **v == 0.0).count();
    let mut notes = vec![format!(
        "{} images of {d} values, {} pairs. Noise of the deviation s has the length s sqrt({d}) almost surely; two balls \
         of that radius that meet are still told apart well, as their Gaussians overlap by the share \
         2 Phi(-distance / 2 s) only: the last column of the table divided by 2 is that argument.",
        xs.len(),
        all.len()
    )];
    if equal > 0 {
        notes.push(format!("{equal} images have an exact duplicate, which no noise is small against."));
    }
    Ok(Finding {
        judgments: judge(&nearest, radius(REFERENCE)),
        tables: vec![numbers],
        plots: vec![histogram, plot],
        notes,
        ..Finding::default()
    })
}

fn judge(nearest: &[f64], radius: f64) -> Vec<Judgment> {
    let hits = nearest.iter().filter(|d| **d < 2.0 * radius).count();
    vec![verdict::share_beyond(
        "The balls of noise of deviation 0.01 around different images do not meet.",
        "share of images nearer than two radii to another one",
        hits,
        nearest.len(),
        Side::Below,
        FEW,
    )]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

    #[test]
    fn verdicts_follow_the_numbers() {
        assert_eq!(judge(&[5.0; 200], 1.0)[0].verdict, Verdict::Supported);
        assert_eq!(judge(&[1.0; 200], 1.0)[0].verdict, Verdict::NotSupported);
        assert_eq!(judge(&[5.0; 5], 1.0)[0].verdict, Verdict::Undecided);
    }
}
