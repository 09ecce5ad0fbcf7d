//! How much entropy the embeddings hold, and how much their views tell of each other.

use super::{Figure, InspectConfig, Section, select, subset};
use candle_core::{DType, Tensor};
use infomax_eval::bound::{GeneralizationTerms, generalization_terms};
use infomax_eval::geometry::alignment;
use infomax_eval::information::{
    KsgConfig, MixtureConfig, MutualConfig, MutualEstimator, Norm, SlicedConfig, Variable, gaussian_entropy,
    kozachenko_leonenko, mixture_entropy, mutual_information, mutual_report, sliced_mutual_information,
};
use infomax_eval::spectrum::{LidarConfig, lidar};
use infomax_eval::{Doubt, Resampling};
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn entropy(z: &Tensor, cfg: &InspectConfig) -> Section {
    let mut section = Section::new("entropy, in nats");
    let mut most = None;
    if let Some(gaussian) = section.try_part("entropy_gaussian", gaussian_entropy(z, &cfg.resampling)) {
        // The larger of two estimates of the bound: neither is the bound itself.
        let unbiased = gaussian.unbiased.as_ref().map_or(f64::NEG_INFINITY, |e| e.value);
        most = Some(gaussian.ledoit_wolf.value.max(unbiased));
        section.figures.push(Figure::estimate(
            "entropy_gaussian",
            gaussian.ledoit_wolf,
            "the normal distribution of the same covariance (Ledoit-Wolf): no density of that covariance has more",
        ));
        section.figures.push(Figure::estimate(
            "entropy_oas",
            gaussian.oas,
            "the same with oracle approximating shrinkage (Chen et al.), which is nearer for normal rows",
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
            let above =
                most.filter(|most| estimate.value > *most).map(|most| above_bound(estimate.value, most, z));
            Figure::estimate(
                "entropy_neighbors",
                estimate,
                "Kozachenko-Leonenko, k = 3: no model of the density",
            )
            .doubting(above)
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

/// The doubt of an entropy above what the covariance allows.
fn above_bound(value: f64, most: f64, z: &Tensor) -> Doubt {
    let (n, d) = z.dims2().unwrap_or((0, 0));
    Doubt {
        code: "above-bound",
        message: format!(
            "{value:.4} is more than the {most:.4} of the normal distribution of the same covariance, which no density exceeds: one \
             of the two is off by {:.4} or more. Of {n} rows in {d} columns distances to neighbors are too large for an entropy \
             (more so in many columns), and a covariance is known roughly only; take the smaller",
            value - most
        ),
    }
}

/// What pairs of views tell, and with labels the terms of the generalization bound.
pub(super) fn views(
    z: &Tensor,
    views: &Tensor,
    labels: Option<&[Option<u32>]>,
    cfg: &InspectConfig,
) -> Section {
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
    section.add("lidar", pairs_of(z, views, cfg));
    view_information(&mut section, z, views, cfg);
    section.add("view_information_sliced", sliced(z, views, cfg));
    if let Some(labels) = labels
        && let Some(terms) = section.try_part("bound", terms(z, views, labels, cfg))
    {
        let doubts: Vec<Doubt> = terms.doubts.clone();
        section.figures.push(Figure::estimate(
            "bound_invariance",
            terms.invariance,
            "the generalization bound, its term of the views: the mean distance of two views of a sample; 0 is best",
        ));
        section.figures.push(
            Figure::plain(
                "bound_labels",
                terms.labeled.term,
                format!(
                    "the generalization bound, its term of the labels: the part of {} labels that no linear map of {} \
                     dimensions gives, |P_Z Y| / sqrt(n); 0 to 1, 0 is best",
                    terms.labeled.n, terms.labeled.rank
                ),
            )
            .doubting(doubts),
        );
    }
    section
}

/// LiDAR of the pairs of views.
fn pairs_of(z: &Tensor, views: &Tensor, cfg: &InspectConfig) -> crate::Result<Figure> {
    let n = z.dim(0)? as u32;
    if z.dims() != views.dims() {
        return Err(crate::Error::Config(format!(
            "views of shape {:?} are of another width than {:?}",
            views.dims(),
            z.dims()
        )));
    }
    let groups: Vec<u32> = (0..n).chain(0..n).collect();
    let both = Tensor::cat(&[z.to_dtype(DType::F64)?, views.to_dtype(DType::F64)?], 0)?;
    let found = lidar(&both, &groups, &LidarConfig::default(), &cfg.resampling)?;
    let most = z.dim(1)?.min(n.saturating_sub(1) as usize) as f64;
    let low = found.rank.value < 0.1 * most;
    Ok(Figure::estimate(
        "lidar",
        found.rank,
        format!("LiDAR, directions that tell samples apart rather than their views, of at most {most}"),
    )
    .warn_if(low, "below a tenth of them: views differ more than samples in most directions"))
}

/// The dimension of the projections of [`sliced`].
const SLICE_DIM: usize = 2;

/// k-sliced information of the views, a lower bound that many columns do not spoil.
fn sliced(z: &Tensor, views: &Tensor, cfg: &InspectConfig) -> crate::Result<Figure> {
    let rows = subset(z.dim(0)?, VIEW_ROWS, cfg.seed);
    let wanted = SlicedConfig { dim: SLICE_DIM, seed: cfg.seed, ..SlicedConfig::default() };
    let found = sliced_mutual_information(
        &select(z, &rows)?,
        &select(views, &rows)?,
        &wanted,
        &Resampling { max_rows: 500, ..cfg.resampling },
    )?;
    Ok(Figure::estimate(
        "view_information_sliced",
        found,
        format!(
            "the mean information in nats of random projections of both to {SLICE_DIM} dimensions, of {} rows: it does not fall \
             short in many columns, but is less than I(Z; Z')",
            rows.len()
        ),
    ))
}

/// The terms of the bound for the rows that have a label.
fn terms(
    z: &Tensor,
    views: &Tensor,
    labels: &[Option<u32>],
    cfg: &InspectConfig,
) -> crate::Result<GeneralizationTerms> {
    let known: Vec<usize> = (0..labels.len()).filter(|&i| labels[i].is_some()).collect();
    // Classes from 0 without gaps, whatever numbers they have.
    let all: BTreeSet<u32> = labels.iter().copied().flatten().collect();
    let number: BTreeMap<u32, u32> = all.into_iter().zip(0..).collect();
    let classes: Vec<u32> =
        known.iter().filter_map(|&i| labels[i].and_then(|label| number.get(&label).copied())).collect();
    Ok(generalization_terms(&select(z, &known)?, &classes, z, views, None, &cfg.resampling)?)
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
            let mut reasons: Vec<&str> = vec![&report.reason];
            reasons.extend(report.estimates.iter().filter_map(|e| e.refused.as_deref()));
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
