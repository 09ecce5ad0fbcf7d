//! How much entropy the embeddings hold, and how much their views tell of each other.

use super::{Figure, InspectConfig, Section, select, subset};
use candle_core::Tensor;
use infomax_eval::Doubt;
use infomax_eval::geometry::alignment;
use infomax_eval::information::{
    KsgConfig, MixtureConfig, MutualConfig, MutualEstimator, Norm, Variable, gaussian_entropy,
    kozachenko_leonenko, mixture_entropy, mutual_information, mutual_report,
};

pub(super) fn entropy(z: &Tensor, cfg: &InspectConfig) -> Section {
    let mut section = Section::new("entropy, in nats");
    if let Some(gaussian) = section.try_part("entropy_gaussian", gaussian_entropy(z, &cfg.resampling)) {
        section.figures.push(Figure::estimate(
            "entropy_gaussian",
            gaussian.ledoit_wolf,
            "the normal distribution of the same covariance (Ledoit-Wolf): no density of that covariance has more",
        ));
        section.figures.push(Figure::estimate(
            "entropy_independent",
            gaussian.diagonal,
            "the same if columns were independent; what it has more is total correlation",
        ));
    }
    let neighbors = kozachenko_leonenko(z, 3, Norm::Euclidean, &cfg.resampling);
    section.add(
        "entropy_neighbors",
        neighbors.map(|estimate| {
            Figure::estimate(
                "entropy_neighbors",
                estimate,
                "Kozachenko-Leonenko, k = 3: no model of the density",
            )
        }),
    );
    let mixture = mixture_entropy(z, &MixtureConfig { seed: cfg.seed, ..MixtureConfig::default() });
    section.add(
        "entropy_blurred",
        mixture.map(|bracket| {
            let mut figure = Figure::bracket(
                "entropy_blurred",
                bracket,
                "not h(Z): the entropy of a mixture of normals, one around each row at hand, as wide as the distance to \
                 the nearest row, with the bounds of that mixture",
            );
            // The bounds are exact for the mixture; a density with few rows a neighborhood can lie outside of them.
            figure.doubts.push(Doubt {
                code: "not-the-density",
                message: "the bounds need not hold the entropy of the density that the rows come from: the mixture has \
                          gaps between its rows, and is blurred; entropy_neighbors estimates h(Z)"
                    .to_owned(),
            });
            figure
        }),
    );
    section
}

pub(super) fn views(z: &Tensor, views: &Tensor, cfg: &InspectConfig) -> Section {
    let mut section = Section::new("what views tell of each other");
    section.add(
        "alignment",
        alignment(z, views, 2.0, &cfg.resampling).map(|estimate| {
            Figure::estimate(
                "alignment",
                estimate,
                "mean squared distance of the directions of two views; 0 is best",
            )
        }),
    );
    view_information(&mut section, z, views, cfg);
    section
}

/// Rows of the estimate of `I(Z; Z')`, which surrogates and subsamples repeat.
const VIEW_ROWS: usize = 1_000;
/// Columns of both together, beyond which canonical coordinates of each subsample would take too long.
const VIEW_COLUMNS: usize = 128;

/// `I(Z; Z')` by the rule of [`mutual_report`] among the estimators that it can recommend; of many columns by plain
/// nearest neighbors, which fall short then.
fn view_information(section: &mut Section, z: &Tensor, views: &Tensor, cfg: &InspectConfig) {
    const KEY: &str = "view_information";
    let columns: usize = [z, views].iter().filter_map(|t| t.dims().get(1)).sum();
    if columns > VIEW_COLUMNS {
        let found = mutual_information(z, views, &KsgConfig::default(), &cfg.resampling);
        section.add(
            KEY,
            found.map(|estimate| {
                let text = format!(
                    "I(Z; Z') in nats by nearest neighbors (KSG), which fall short in {columns} columns; `infomax mi` \
                     compares estimators"
                );
                Figure::estimate(KEY, estimate, text)
            }),
        );
        return;
    }
    let found = (|| -> crate::Result<Figure> {
        let n = z.dims().first().copied().unwrap_or(0);
        let rows = subset(n, VIEW_ROWS, cfg.seed);
        let of = |t: &Tensor| Ok::<_, crate::Error>(Variable::Continuous(select(t, &rows)?));
        let wanted = MutualConfig {
            estimators: vec![
                MutualEstimator::Matched,
                MutualEstimator::Corrected,
                MutualEstimator::NormalCopula,
                MutualEstimator::NormalShrunk,
                MutualEstimator::Mixture,
            ],
            resampling: cfg.resampling,
            permutations: 0,
            seed: cfg.seed,
            ..MutualConfig::default()
        };
        let report = mutual_report(&of(z)?, &of(views)?, &wanted)?;
        let first = report.recommended.and_then(|at| report.estimates.get(at));
        let (Some(first), Some(estimate)) = (first, first.and_then(|first| first.estimate.clone())) else {
            let reasons: Vec<&str> = report.estimates.iter().filter_map(|e| e.refused.as_deref()).collect();
            return Err(crate::Error::Config(reasons.join("; ")));
        };
        let text = format!(
            "I(Z; Z') in nats by `{}` of {} rows, as `infomax mi` chooses: {}",
            first.estimator.name(),
            report.n,
            report.reason
        );
        Ok(Figure::estimate(KEY, estimate, text))
    })();
    section.add(KEY, found);
}
