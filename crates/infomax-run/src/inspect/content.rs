//! How much entropy the embeddings hold, and how much their views tell of each other.

use super::{Figure, InspectConfig, Section};
use candle_core::Tensor;
use infomax_eval::Doubt;
use infomax_eval::geometry::alignment;
use infomax_eval::information::{
    KsgConfig, MixtureConfig, Norm, gaussian_entropy, kozachenko_leonenko, mixture_entropy,
    mutual_information,
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
    section.add(
        "view_information",
        mutual_information(z, views, &KsgConfig::default(), &cfg.resampling).map(|estimate| {
            Figure::estimate("view_information", estimate, "I(Z; Z') in nats by nearest neighbors (KSG)")
        }),
    );
    section
}
